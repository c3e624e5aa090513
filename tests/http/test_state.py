"""The table of a connection's states, and a property test: any sequence of events conforms to it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.application.service import MultiService, Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from govi_server.departures.board import Board, Trip
from govi_server.departures.cache import BoardCache
from govi_server.departures.source import NoBoard
from govi_server.http.client_limits import UNLIMITED, ClientLimits
from govi_server.http.parameters import InvalidParameter
from govi_server.http.request import Environ
from govi_server.http.state import (
    MAX_EXPIRED_IN_TURN,
    MAX_EXPIRY_SECONDS,
    TABLE,
    Deadline,
    InvalidTransition,
    Lifecycle,
    State,
    TimeoutHandler,
)
from govi_server.http.stream import Stream
from govi_server.modules.kv55_gateway import Kv55Gateway
from govi_server.request_handler import MAX_REQUESTS_IN_TURN, RequestHandler
from govi_server.server import Server
from govi_server.settings import AccessSettings
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler
from tests.client import NOW
from tests.doubles import FakeSource

CODE = "57330430"
MAX_CONNECTIONS = 3

Transition = tuple[State, State]
Step = tuple[Any, ...]


@implementer(IWebModule)
class Scripted(Service):
    """A module that the test completes step by step."""

    name = "scripted"

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []
        self.streams: list[Stream] = []

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "ScriptedHandler":
        handler = ScriptedHandler(request_handler, env)
        handler.module = self
        return handler


class ScriptedHandler(WebHandler):
    """Performs the actions of the path in order, for instance /scripted/wait/respond or /scripted/stream/wait."""

    methods = ("GET", "HEAD", "POST")
    module: Scripted

    async def post(self) -> None:
        self.send_response(self.env.body)

    async def get(self) -> None:
        for action in self.env["path_info"].split("/")[2:]:
            if action == "wait":
                resumed: Deferred[None] = Deferred()
                self.module.waiting.append(resumed)
                await resumed
            elif action == "respond":
                self.send_response("text")
            elif action == "fail":
                raise ZeroDivisionError("on request")
            elif action == "invalid":
                raise InvalidParameter("q is missing")
            elif action in ("await-failed", "await-invalid"):
                failed: Deferred[None] = fail(
                    ZeroDivisionError("on request") if action == "await-failed" else InvalidParameter("q")
                )
                await failed
            elif action == "stream":
                stream = self.stream((), b"end")
                self.module.streams.append(stream)
                await stream.ended


class Transport(StringTransport):
    """Pauses its producer at every write while its peer does not read, as a transport with a full buffer does."""

    peer_reads = True
    world: "World"

    def write(self, data: bytes) -> None:
        super().write(data)
        if not self.peer_reads and self.producer is not None:
            self.producer.pauseProducing()


def write_some(sock: Transport, data: bytes) -> bytes:
    """Send all data, unless the peer does not read; return the data that was not sent."""
    if sock.peer_reads:
        sock.io.write(data)
        return b""
    return data


def close_now(sock: Transport) -> bool:
    """Close immediately, as a socket with an empty queue, unless the peer does not read; return whether it closed."""
    if sock.peer_reads:
        sock.world.lose(sock)
    return sock.peer_reads


class World:
    """A server with room for few connections; its methods are the events, and it records the transitions."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.scripted = Scripted()
        modules = MultiService()
        self.scripted.setServiceParent(modules)
        self.source = FakeSource()
        cache = BoardCache(self.source, self.clock)
        Kv55Gateway("kv55", cache).setServiceParent(modules)
        cache.put(Board(CODE, (Trip(journey_number="1"),), self.clock.seconds()))
        self.server = Server(
            "",
            0,
            RequestHandler,
            clock=self.clock,
            find_module=modules.getServiceNamed,
            observer=cast(ILogObserver, lambda event: None),
            access=ClientLimits(
                self.clock, AccessSettings(connections=MAX_CONNECTIONS, unlimited=UNLIMITED.unlimited)
            ),
        )
        self.handlers: list[RequestHandler] = []
        self.transitions: list[Transition] = []

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record every transition, and send as sockets do."""
        enter, last = Lifecycle.enter, dict[Lifecycle, State]()

        def record(connection: Lifecycle, state: State) -> None:
            previous = connection.state
            if last.get(connection, State.NEW) is not previous:
                raise AssertionError(f"{previous} was not entered")
            last[connection] = state
            if state is State.CLOSED:
                del last[connection]
            self.transitions.append((previous, state))
            enter(connection, state)

        with (
            mock.patch.object(Lifecycle, "enter", record),
            mock.patch("govi_server.sockets.transport.write_some", write_some),
            mock.patch("govi_server.request_handler.write_some", write_some),
            mock.patch("govi_server.http.connection.close_now", close_now),
        ):
            yield

    def run(self, step: Step) -> None:
        name, *arguments = step
        getattr(self, name)(*arguments)

    def handler(self, which: int) -> RequestHandler | None:
        """Return the handler of an open connection, or None if all are closed."""
        return self.handlers[which % len(self.handlers)] if self.handlers else None

    # Events

    def connect(self) -> None:
        if self.server.draining and not self.server.connections:
            return  # the server has stopped
        handler = self.server.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        if isinstance(handler, RequestHandler):
            transport = Transport(lenient=True)
            transport.world = self
            handler.makeConnection(transport)
            self.handlers.append(handler)

    def send(self, which: int, data: bytes, size: int = 1 << 20) -> None:
        for i in range(0, len(data), size):
            if handler := self.handler(which):
                handler.dataReceived(data[i : i + size])

    def read(self, which: int, peer_reads: bool) -> None:
        """Make the peer stop reading, or read all that was written."""
        if handler := self.handler(which):
            transport = cast(Transport, handler.transport)
            transport.peer_reads = peer_reads
            if peer_reads and transport.producer is not None:
                transport.producer.resumeProducing()

    def pause(self, which: int) -> None:
        """Make a transport pause its producer without a write, as TLS may."""
        if handler := self.handler(which):
            transport = cast(Transport, handler.transport)
            if transport.producer is not None:
                transport.producer.pauseProducing()

    def half_close(self, which: int) -> None:
        if handler := self.handler(which):
            handler.readConnectionLost()

    def leave(self, which: int) -> None:
        if handler := self.handler(which):
            self.lose(cast(Transport, handler.transport))

    def lose(self, transport: Transport) -> None:
        (handler,) = (handler for handler in self.handlers if handler.transport is transport)
        self.handlers.remove(handler)
        handler.connectionLost(Failure(ConnectionDone()))

    def advance(self, seconds: float) -> None:
        self.clock.pump([seconds])

    def resume(self) -> None:
        """Resume the handler that has waited longest."""
        waiting = [deferred for deferred in self.scripted.waiting if not deferred.called]
        if waiting:
            waiting[0].callback(None)

    def board(self) -> None:
        """Deliver the board that was requested first."""
        if self.source.results:
            board = Board(self.source.requested.pop(0), (Trip(journey_number="1"),), self.clock.seconds())
            self.source.results.pop(0).callback(board)

    def break_source(self) -> None:
        """Make the source fail at once from now on, as an open circuit breaker does."""
        self.source.immediate = NoBoard("on request")

    def no_board(self) -> None:
        """Fail the request of the source that was made first."""
        if self.source.results:
            self.source.requested.pop(0)
            self.source.results.pop(0).errback(NoBoard("on request"))

    def forget_source(self) -> None:
        """Forget the requests of the source, and its error."""
        self.source.immediate = None
        self.source.requested.clear()
        self.source.results.clear()

    def publish(self) -> None:
        """Write an event to all streams."""
        for stream in self.scripted.streams:
            stream.write(b"event")

    def drain(self) -> None:
        if not self.server.draining:
            self.server.drain()
            self.clock.advance(0)

    def close(self, which: int) -> None:
        """Close a connection, as its keep-alive deadline does."""
        if handler := self.handler(which):
            handler.connection.close()

    def disconnect(self, which: int) -> None:
        """Disconnect a client, as the deadline of its connection does."""
        if handler := self.handler(which):
            handler.connection.disconnect()


def request(path: str, *fields: str) -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()


CACHED = request(f"/kv55/{CODE}")
RESPOND, WAIT, STREAM = request("/scripted/respond"), request("/scripted/wait/respond"), request("/scripted/stream")
RESPOND_THEN_WAIT = request("/scripted/respond/wait")
LAST = request("/scripted/respond", "Connection: close")
POST = b"POST /scripted HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
DELETE = b"DELETE /scripted HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
MANY = RESPOND * (MAX_REQUESTS_IN_TURN + 1)
CONNECT: Step = ("connect",)
CROWD: list[Step] = [CONNECT] * MAX_CONNECTIONS
STALL: Step = ("read", 0, False)
READ: Step = ("read", 0, True)

SCENARIOS: Mapping[str, list[Step]] = {
    "cached": [CONNECT, ("send", 0, CACHED), ("send", 0, CACHED), CONNECT, ("send", 1, CACHED), ("advance", 13)],
    "cached, not read": [CONNECT, ("send", 0, CACHED), STALL, ("send", 0, CACHED), READ, CONNECT, ("read", 1, False),
                         ("send", 1, CACHED), ("advance", 13)],
    "cached, last": [CONNECT, ("send", 0, request(f"/kv55/{CODE}", "Connection: close")), CONNECT,
                     ("send", 0, request(f"/kv55/{CODE}", "Connection: close"))],
    "silent": [CONNECT, ("advance", 13), ("advance", 2)],
    "gone": [CONNECT, ("leave", 0), CONNECT, ("send", 0, RESPOND), ("leave", 0), CONNECT, ("send", 0, b"GET"),
             ("leave", 0), CONNECT, ("send", 0, WAIT), ("leave", 0), CONNECT, ("send", 0, MANY), ("leave", 0)],
    "half-closed": [*CROWD, ("half_close", 0), ("send", 1, b"GET"), ("half_close", 1), ("send", 2, WAIT),
                    ("half_close", 2), ("resume",)],
    "dropped": [*CROWD, CONNECT, ("send", 1, b"GET"), ("send", 2, RESPOND), CONNECT, CONNECT, ("leave", 0),
                ("advance", 2)],
    "dropped amid a request": [*CROWD, ("send", 0, b"GET"), ("send", 1, WAIT), ("send", 2, WAIT), CONNECT],
    "dropped for its turn": [*CROWD, ("send", 0, MANY), CONNECT],
    "malformed": [CONNECT, ("send", 0, b"\0"), CONNECT, ("read", 1, False), ("send", 1, b"\0")],
    "slow sender": [CONNECT, ("send", 0, RESPOND), ("send", 0, b"GET"), ("advance", 13)],
    "slow module": [CONNECT, ("send", 0, WAIT), ("advance", 13)],
    "slow reader": [CONNECT, STALL, ("send", 0, RESPOND), ("advance", 13)],
    "slow after its response": [CONNECT, ("send", 0, RESPOND_THEN_WAIT), ("advance", 13)],
    "reads again": [CONNECT, STALL, ("send", 0, RESPOND_THEN_WAIT), READ, ("resume",), ("advance", 13)],
    "stream": [CONNECT, ("send", 0, STREAM), ("publish",), ("advance", 60), STALL, ("publish",), READ, ("publish",),
               ("drain",)],
    "stream, not read": [CONNECT, ("send", 0, STREAM), STALL, ("publish",), ("half_close", 0)],
    "stream, gone": [CONNECT, ("send", 0, STREAM), ("leave", 0)],
    "unread body": [*CROWD, ("send", 0, DELETE), ("send", 0, b"abc" + DELETE), ("send", 0, b"ab"), ("half_close", 0),
                    ("send", 2, DELETE), ("leave", 2)],
    "dropped amid an unread body": [*CROWD, ("send", 0, DELETE), ("send", 1, WAIT), ("send", 2, WAIT), CONNECT],
    "unread bodies": [CONNECT, ("send", 0, (DELETE + b"abc") * (MAX_REQUESTS_IN_TURN + 1)), ("advance", 0)],
    "read body": [CONNECT, ("send", 0, POST), ("send", 0, b"abc")],
    "pipelined": [CONNECT, ("send", 0, MANY), ("advance", 0)],
    "expired for its turn": [*CROWD, ("send", 0, MANY), ("disconnect", 0), ("send", 1, MANY), ("close", 1)],
}  # fmt: skip
"""Sequences of events that together cause every transition of the table."""

DATA = st.sampled_from(
    [CACHED, RESPOND, WAIT, STREAM, RESPOND_THEN_WAIT, LAST, POST, POST + b"abc", DELETE, DELETE + b"abc", MANY,
     CACHED * 2, WAIT + RESPOND,
     request("/scripted/fail"), request("/scripted/respond/fail"), request("/scripted/wait/stream"),
     request("/nothing"), b"abc", b"\r\n", b"\r", b"GET /scripted", b"\0"]
)  # fmt: skip
WHICH = st.integers(0, MAX_CONNECTIONS - 1)
STEPS = st.one_of(
    st.just(CONNECT),
    st.tuples(st.just("send"), WHICH, DATA),
    st.tuples(st.just("send"), WHICH, DATA),
    st.tuples(st.just("send"), WHICH, DATA, st.sampled_from([1, 7])),
    st.tuples(st.just("read"), WHICH, st.booleans()),
    st.tuples(st.just("pause"), WHICH),
    st.tuples(st.just("half_close"), WHICH),
    st.tuples(st.just("leave"), WHICH),
    st.tuples(st.just("advance"), st.sampled_from([0.0, 1.9, 2.0, 12.9, 13.0, 60.0])),
    st.just(("resume",)),
    st.just(("publish",)),
    st.just(("drain",)),
    st.tuples(st.just("disconnect"), WHICH),
)


class LifecycleTests(SynchronousTestCase):
    """The state of one connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[Deadline] = []
        timeouts = {deadline: self._timeout(deadline) for deadline in Deadline}
        self.connection = Lifecycle(
            {state: timeouts[rule.deadline] if rule.deadline else None for state, rule in TABLE.items()}
        )

    def _timeout(self, deadline: Deadline) -> TimeoutHandler[Lifecycle]:
        return TimeoutHandler(self.clock, 13, lambda _: self.expired.append(deadline))

    def enter(self, *states: State) -> None:
        for state in states:
            self.connection.enter(state)

    def test_every_state_is_in_the_table(self) -> None:
        """The table has a row for each state, and only CLOSED is final."""
        self.assertEqual(set(TABLE), set(State))
        self.assertEqual([state for state, rule in TABLE.items() if not rule.transitions], [State.CLOSED])

    def test_invalid_transition_raises(self) -> None:
        """A transition that the table does not allow raises InvalidTransition, and the state does not change."""
        for state in set(State) - TABLE[State.NEW].transitions:
            self.assertRaises(InvalidTransition, self.connection.enter, state)
        self.assertIs(self.connection.state, State.NEW)

    def test_states_of_a_request_share_a_deadline(self) -> None:
        """A request has one deadline from its first byte to the end of its response."""
        self.clock.advance(6)
        self.enter(State.RECEIVING, State.PROCESSING, State.SENDING, State.WRITE_PAUSED)
        self.clock.advance(7)
        self.assertEqual(self.expired, [Deadline.REQUEST])

    def test_interrupted_deadline_restarts(self) -> None:
        """A deadline restarts after states that do not have it."""
        self.clock.advance(6)
        self.enter(State.RECEIVING, State.PROCESSING, State.STREAMING)
        self.clock.advance(60)
        self.enter(State.WRITE_PAUSED)
        self.clock.advance(12)
        self.assertEqual(self.expired, [])
        self.clock.advance(1)
        self.assertEqual(self.expired, [Deadline.REQUEST])

    def test_cached_response_restarts_keep_alive(self) -> None:
        """Each cached response restarts the keep-alive deadline."""
        self.enter(State.IDLE)
        self.clock.advance(12)
        self.enter(State.IDLE)
        self.clock.advance(12)
        self.assertEqual(self.expired, [])
        self.clock.advance(1)
        self.assertEqual(self.expired, [Deadline.KEEP_ALIVE])


class TimeoutHandlerTests(SynchronousTestCase):
    """Many deadlines at the same time."""

    def test_deadlines_expire_in_several_turns(self) -> None:
        """A thousand deadlines that pass together are handled in several turns of the reactor."""
        clock = Clock()
        expired: list[int] = []
        timeouts: TimeoutHandler[int] = TimeoutHandler(clock, 13.0, expired.append)
        for n in range(1000):
            timeouts.start(n)
        clock.rightNow += 13
        turns = 0
        while len(expired) < 1000:
            (call,) = clock.calls
            clock.calls.clear()
            before = len(expired)
            call.func(*call.args, **call.kw)
            self.assertLessEqual(len(expired) - before, MAX_EXPIRED_IN_TURN)
            turns += 1
        self.assertEqual(turns, 1000 // MAX_EXPIRED_IN_TURN)
        self.assertEqual(expired, [*range(1000)])

    def test_expensive_deadlines_expire_in_turns_of_their_own(self) -> None:
        """After a deadline whose handling took long, the others are handled in later turns."""
        clock = Clock()
        expired: list[int] = []

        def expire(n: int) -> None:
            expired.append(n)
            clock.rightNow += MAX_EXPIRY_SECONDS

        timeouts: TimeoutHandler[int] = TimeoutHandler(clock, 13.0, expire)
        for n in range(5):
            timeouts.start(n)
        clock.rightNow += 13
        for n in range(1, 6):
            (call,) = clock.calls
            clock.calls.clear()
            call.func(*call.args, **call.kw)
            self.assertEqual(len(expired), n)


class ConnectionTests(SynchronousTestCase):
    """Connections of a server."""

    def assert_deadlines(self, world: World) -> None:
        """Assert that each connection has exactly the deadline of its state in the table."""
        connections = world.server.connections.values()
        for deadline, timeout in world.server.timeouts.items():
            expected = {connection for connection in connections if TABLE[connection.state].deadline is deadline}
            self.assertEqual(set(timeout), expected, deadline)
        self.assertEqual(set(world.server.reports), {c for c in connections if not c.is_ending})

    def run_steps(self, steps: list[Step]) -> set[Transition]:
        """Run steps and close all connections; return the transitions that occurred."""
        world = World()
        with world.recorded():
            for step in steps:
                world.run(step)
                self.assert_deadlines(world)
            while world.handlers:
                world.leave(0)
            self.assert_deadlines(world)
            if not world.server.draining:
                self.successResultOf(world.server.drain())
            world.advance(0)
        self.assertEqual(world.clock.getDelayedCalls(), [])
        self.flushLoggedErrors(ZeroDivisionError)  # of /scripted/fail; any other fails the test
        return set(world.transitions)

    def test_every_transition_occurs(self) -> None:
        """The table allows exactly the transitions that occur."""
        occurred = set[Transition]().union(*map(self.run_steps, SCENARIOS.values()))
        allowed = {(state, next_state) for state, rule in TABLE.items() for next_state in rule.transitions}
        self.assertEqual(allowed - occurred, set())
        self.assertEqual(occurred - allowed, set())

    @settings(max_examples=300, deadline=None)
    @given(st.lists(STEPS, max_size=30))
    def test_any_events_conform_to_the_table(self, steps: list[Step]) -> None:
        """Any events cause only transitions of the table, and each state has its deadline armed."""
        occurred = self.run_steps([CONNECT, *steps])
        for state, next_state in occurred:
            self.assertIn(next_state, TABLE[state].transitions)
