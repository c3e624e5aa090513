"""Tests of kv78turbo.subscriber and zmq_sockets, with fake sockets and a stepped clock."""

import errno
from collections import deque
from collections.abc import Callable
from typing import Any, cast
from unittest import mock

import zmq
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorPluggableNameResolver, IReadDescriptor, IResolutionReceiver
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from govi_server.errors import StartupError
from govi_server.kv78turbo import subscriber
from govi_server.kv78turbo.subscriber import MAX_TURN_MESSAGES, Subscriber
from govi_server.kv78turbo.zmq_sockets import SocketDescriptor
from govi_server.settings import SubscriberSettings

ADDRESS = "tcp://feed.example:7817"
OTHER = "tcp://other.example:7817"
ENVELOPE = "/GOVI/KV8passtimes/ARR"


class FakeSocket:
    """A SUB socket with messages of the test. As with libzmq, only its events indicate whether it is readable."""

    FD = 99

    def __init__(self) -> None:
        self.messages: deque[list[bytes]] = deque()
        self.closed = False
        self.error: zmq.ZMQError | None = None
        """The error of the next read."""
        self.polls = 0
        """How many times its events were read."""

    def get(self, option: int) -> int:
        assert option == zmq.EVENTS
        assert not self.closed
        self.polls += 1
        return zmq.POLLOUT | (zmq.POLLIN if self.messages or self.error else 0)

    def recv_multipart(self, flags: int) -> list[bytes]:
        assert flags == zmq.NOBLOCK
        assert not self.closed
        if self.error:
            raise self.error
        return self.messages.popleft()

    def close(self) -> None:
        self.closed = True


class FakeSockets:
    """Creates fake sockets. rejected: addresses that libzmq rejects."""

    def __init__(self) -> None:
        self.connects: list[tuple[float, str, bool]] = []
        self.sockets: list[FakeSocket] = []
        self.rejected: set[str] = set()
        self.first: list[list[bytes]] = []
        """Messages that are waiting in a new socket."""
        self.closed = False
        self.clock: MemoryReactorClock

    def connect(self, address: str, ipv6: bool) -> FakeSocket:
        self.connects.append((self.clock.seconds(), address, ipv6))
        if address in self.rejected:
            raise zmq.ZMQError(errno.ENODEV)
        self.sockets.append(FakeSocket())
        self.sockets[-1].messages.extend(self.first)
        return self.sockets[-1]

    def close(self) -> Deferred[None]:
        assert all(socket.closed for socket in self.sockets)
        self.closed = True
        return succeed(None)


class NameResolver:
    """A name resolver whose answers the test gives."""

    def __init__(self) -> None:
        self.receivers: dict[str, IResolutionReceiver] = {}

    def resolveHostName(self, receiver: IResolutionReceiver, host: str) -> None:
        self.receivers[host] = receiver

    def answer(self, host: str, n_addresses: int) -> None:
        receiver = self.receivers[host]
        for _ in range(n_addresses):
            receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", 0))
        receiver.resolutionComplete()


class SubscriberTestCase(SynchronousTestCase):
    """A subscriber that has just started."""

    addresses: tuple[str, ...] = (ADDRESS,)
    limits = SubscriberSettings()

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.clock.advance(1_000_000)
        self.started = self.clock.seconds()
        self.sockets = FakeSockets()
        self.sockets.clock = self.clock
        self.received: list[tuple[str, bytes]] = []
        self.relayed: list[list[bytes]] = []
        self.failures: list[float] = []
        """The times since which the feed had failed, for each recovery."""
        self.consume: Callable[[], Deferred[None] | None] = lambda: None
        self.logged = EventLoggingObserver()
        globalLogPublisher.addObserver(self.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged)
        self.subscriber = Subscriber(
            self.clock,
            self.addresses,
            ["/GOVI/"],
            self._receive,
            self.limits,
            recovered=self.failures.append,
            relay=self.relayed.append,
            _sockets=self.sockets,  # type: ignore[arg-type]
        )
        self.subscriber.startService()
        self.clock.advance(0)
        self.addCleanup(self._stop)

    def _receive(self, envelope: str, data: bytes) -> Deferred[None] | None:
        self.received.append((envelope, data))
        return self.consume()

    def _stop(self) -> None:
        self.successResultOf(self.subscriber.stopService())
        self.assertTrue(self.sockets.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.clock.getReaders(), [])

    @property
    def socket(self) -> FakeSocket:
        return self.sockets.sockets[-1]

    def now(self) -> float:
        return self.clock.seconds() - self.started

    def wake(self) -> None:
        """Make the descriptor readable, and run one turn of the reactor."""
        (reader,) = self.clock.getReaders()
        cast(IReadDescriptor, reader).doRead()
        self.clock.advance(0)

    def receive(self, *frames: bytes) -> None:
        self.socket.messages.append(list(frames))
        self.wake()

    def receive_data(self, data: bytes = b"gz") -> None:
        self.receive(ENVELOPE.encode(), data)

    def receive_heartbeat(self) -> None:
        self.receive(ENVELOPE.encode())

    def wait(self, seconds: int) -> None:
        self.clock.pump([1.0] * seconds)

    def lines(self) -> list[str]:
        return [str(event["log_format"]).format(**event) for event in self.logged if event["log_namespace"] != "-"]


class MessageTests(SubscriberTestCase):
    """Messages, and what is passed to the consumer."""

    limits = SubscriberSettings(message=256)

    def test_frames_are_joined(self) -> None:
        """All frames after the envelope are joined."""
        self.receive_data(b"one")
        self.receive(ENVELOPE.encode(), b"o", b"", b"ne")
        self.assertEqual(self.received, [(ENVELOPE, b"one")] * 2)

    def test_heartbeat_is_not_data(self) -> None:
        """An envelope without data is a heartbeat and not passed to the consumer."""
        self.assertIsNone(self.subscriber.alive)
        self.receive_heartbeat()
        self.assertEqual(self.received, [])
        self.assertEqual((self.subscriber.alive, self.subscriber.last), (self.started, None))
        self.assertEqual(self.subscriber.state, "UNKNOWN")
        self.wait(5)
        self.receive_data()
        self.assertEqual((self.subscriber.alive, self.subscriber.last), (self.started + 5, self.started + 5))

    def test_invalid_messages_are_dropped(self) -> None:
        """Messages that are too large, without data or with an invalid envelope are dropped and counted."""
        self.receive(b"/GOVI/" + b"\xff", b"gz")
        self.receive("/GOVI/KV8\u00e9".encode(), b"gz")
        self.receive(ENVELOPE.encode(), b"", b"")
        self.receive(b"e" * 56, b"x" * 100, b"x" * 101)
        self.assertEqual(self.subscriber.incidents.counts, {"envelope": 2, "empty": 1, "too large": 1})
        self.assertEqual((self.received, self.subscriber.state), ([], "UNKNOWN"))
        self.receive(b"e" * 56, b"x" * 100, b"x" * 100)
        self.assertEqual(self.received, [("e" * 56, b"x" * 200)])

    def test_messages_are_relayed_as_received(self) -> None:
        """All messages are relayed with their frames, also heartbeats and unknown envelopes, but no large ones."""
        messages = [[ENVELOPE.encode()], [ENVELOPE.encode(), b"o", b"", b"ne"], [b"\xff", b"gz"]]
        for frames in (*messages, [b"e" * 56, b"x" * 100, b"x" * 101]):
            self.receive(*frames)
        self.assertEqual(self.relayed, messages)

    def test_message_before_first_readiness(self) -> None:
        """Messages that arrive before the reactor watches the descriptor are read without readiness."""
        self.sockets.first = [[ENVELOPE.encode(), b"gz"]]
        self.wait(60 + 1)
        self.assertEqual(len(self.received), 1)


class TurnTests(SubscriberTestCase):
    """The limits of reading in one turn of the reactor."""

    def setUp(self) -> None:
        super().setUp()
        self.seen: list[int] = []

    def read(self, count: int, work: Callable[[], object] = lambda: None) -> list[int]:
        """Receive a number of messages; return how many had been read at each turn of other work."""
        self.socket.messages.extend([ENVELOPE.encode(), b"%d" % number] for number in range(count))
        (reader,) = self.clock.getReaders()
        cast(IReadDescriptor, reader).doRead()
        self.assertEqual(self.received, [])
        self._work(work)
        self.clock.advance(0)
        self.assertEqual(self.received, [(ENVELOPE, b"%d" % number) for number in range(count)])
        return self.seen

    def _work(self, work: Callable[[], object]) -> None:
        if self.received:
            self.seen.append(len(self.received))
            work()
        if self.socket.messages:
            self.clock.callLater(0, self._work, work)

    def test_turn_ends_after_messages(self) -> None:
        """A turn ends after a number of messages; the next turn follows without further readiness."""
        self.assertEqual(
            self.read(2 * MAX_TURN_MESSAGES + 1),
            [MAX_TURN_MESSAGES, 2 * MAX_TURN_MESSAGES, 2 * MAX_TURN_MESSAGES + 1],
        )

    def test_exactly_one_turn(self) -> None:
        """After exactly as many messages as a turn allows, the events are read once more."""
        before = self.socket.polls
        self.read(MAX_TURN_MESSAGES)
        self.assertEqual(self.socket.polls - before, 1 + MAX_TURN_MESSAGES + 1)

    def test_turn_ends_after_time(self) -> None:
        """A turn ends after 5 ms."""

        def slow() -> None:
            self.clock.rightNow += 0.002

        self.consume = slow
        self.assertEqual(self.read(7), [3, 6, 7])

    def test_clock_set_back_ends_turn(self) -> None:
        """A turn ends when the clock is set back."""

        def set_back() -> None:
            self.clock.rightNow -= 3600
            self.consume = lambda: None
            self.clock.callLater(0, self._work, lambda: None)

        self.consume = set_back
        self.socket.messages.extend([ENVELOPE.encode(), b"gz"] for _ in range(5))
        self.wake()
        self.assertEqual(self.seen, [1, 5])

    def test_readiness_during_turns(self) -> None:
        """While a turn is scheduled, readiness is cleared and schedules no other turn."""
        polls = []

        def wake() -> None:
            (reader,) = self.clock.getReaders()
            before = self.socket.polls
            cast(IReadDescriptor, reader).doRead()
            polls.append(self.socket.polls - before)

        self.assertEqual(self.read(2 * MAX_TURN_MESSAGES, wake)[:2], [MAX_TURN_MESSAGES, 2 * MAX_TURN_MESSAGES])
        self.assertEqual(polls[0], 1)

    def test_read_error_reconnects(self) -> None:
        """After a read error of libzmq, a new connection is made."""
        self.socket.error = zmq.ZMQError(zmq.ENOTSOCK)
        self.wake()
        self.assertTrue(self.socket.closed)
        self.assertEqual(self.subscriber.state, "DOWN")
        self.wait(1)
        self.receive_data()
        self.assertEqual(len(self.received), 1)

    def test_error_of_the_silence_check_reconnects(self) -> None:
        """A socket that cannot be examined, which libzmq does not make readable either, is replaced in time."""
        with mock.patch.object(subscriber, "has_message", side_effect=zmq.ZMQError(zmq.ENOTSOCK)):
            self.wait(60)
        self.assertEqual(self.subscriber.state, "DOWN")
        self.wait(1)
        self.receive_data()
        self.assertEqual(len(self.received), 1)


class ConsumerTests(SubscriberTestCase):
    """Passing messages to the consumer."""

    def test_back_pressure(self) -> None:
        """Nothing is read until the Deferred of the last message fires."""
        done: Deferred[None] = Deferred()
        self.consume = lambda: done
        self.socket.messages.append([ENVELOPE.encode(), b"1"])
        self.receive_data(b"2")
        self.receive_data(b"3")
        self.assertEqual(len(self.received), 1)
        self.consume = lambda: None
        done.callback(None)
        self.assertEqual(len(self.received), 1)
        self.clock.advance(0)
        self.assertEqual([data for _, data in self.received], [b"1", b"2", b"3"])

    def test_fired_deferred(self) -> None:
        """A Deferred that has fired does not delay reading."""
        self.consume = lambda: succeed(None)
        self.socket.messages.extend([ENVELOPE.encode(), b"gz"] for _ in range(5))
        self.wake()
        self.assertEqual(len(self.received), 5)

    def test_consumer_errors_are_logged_once(self) -> None:
        """Exceptions and failures of the consumer are counted, and logged once; reading continues."""

        def fail() -> None:
            raise ValueError("no")

        self.consume = fail
        self.receive_data()
        later: Deferred[None] = Deferred()
        self.consume = lambda: later
        self.receive_data()
        later.errback(Failure(ValueError("nor now")))
        self.clock.advance(0)
        self.consume = lambda: None
        self.receive_data()
        self.assertEqual(len(self.received), 3)
        self.assertEqual(self.subscriber.incidents.counts, {"not consumed": 2})
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        lines = [line for line in self.lines() if "ingested" in line]
        self.assertEqual(lines, [f"Feed {ADDRESS}: message dropped, {ENVELOPE} cannot be ingested: ValueError('no')"])

    def test_slow_consumer_is_not_silence(self) -> None:
        """A slow consumer is logged, and is not a silence of the feed."""
        done: Deferred[None] = Deferred()
        self.consume = lambda: done
        self.receive_data()
        self.wait(200)
        self.assertEqual((self.subscriber.state, self.socket.closed), ("RECOVERING", False))
        self.assertEqual(self.subscriber.incidents.counts, {"slow": 3})
        done.callback(None)
        self.wait(30)
        self.assertEqual(self.subscriber.state, "RECOVERING")
        self.wait(60)
        self.assertEqual(self.subscriber.state, "DOWN")

    def test_consumer_stops_service(self) -> None:
        """A consumer that stops the service receives no further message."""

        def stop() -> None:
            self.subscriber.stopService()

        self.consume = stop
        self.socket.messages.extend([ENVELOPE.encode(), b"gz"] for _ in range(5))
        self.wake()
        self.assertEqual(len(self.received), 1)

    def test_deferred_fires_after_stop(self) -> None:
        """A Deferred that fires after the stop has no effect."""
        done: Deferred[None] = Deferred()
        self.consume = lambda: done
        self.receive_data()
        self.subscriber.stopService()
        done.callback(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StateTests(SubscriberTestCase):
    """UNKNOWN, RECOVERING, UP and DOWN."""

    def test_up_after_recovery(self) -> None:
        """The feed is RECOVERING from its first message until it has received data for a minute; then it is UP."""
        self.assertEqual(self.subscriber.state, "UNKNOWN")
        self.receive_data()
        for _ in range(59):
            self.wait(1)
            self.receive_data()
            self.assertEqual(self.subscriber.state, "RECOVERING")
        self.wait(1)
        self.assertEqual(self.subscriber.state, "RECOVERING")
        self.receive_data()
        self.assertEqual(self.subscriber.state, "UP")
        self.assertEqual(
            self.lines(),
            [
                f"Feed {ADDRESS}: receiving data (RECOVERING)",
                f"Feed {ADDRESS}: complete after 60 s of data (UP)",
            ],
        )

    def test_heartbeats_only_is_down(self) -> None:
        """With heartbeats only, the connection stays open but the feed is DOWN."""
        for _ in range(59):
            self.wait(1)
            self.receive_heartbeat()
        self.assertEqual(self.subscriber.state, "UNKNOWN")
        self.wait(1)
        self.assertEqual(self.subscriber.state, "DOWN")
        for _ in range(100):
            self.wait(1)
            self.receive_heartbeat()
        self.assertEqual((len(self.sockets.connects), self.subscriber.state), (1, "DOWN"))
        self.receive_data()
        self.assertEqual(self.subscriber.state, "RECOVERING")
        self.assertEqual(self.lines()[0], f"Feed {ADDRESS}: only heartbeats for 60 s (DOWN)")

    def test_down_minutes_after_last_data(self) -> None:
        """Minutes after the last data the feed is DOWN, on the same connection."""
        self.receive_data()
        self.wait(60 - 1)
        self.receive_heartbeat()
        self.wait(1)
        self.receive_data()
        states = []
        for _ in range(20):
            self.wait(30)
            self.receive_heartbeat()
            states.append(self.subscriber.state)
        self.assertEqual((states[8], states[-1], self.subscriber.attempts), ("UP", "DOWN", 1))
        self.assertEqual(self.subscriber.last, self.started + 60)
        self.assertEqual(self.subscriber.alive, self.started + 660)
        self.receive_data()
        self.assertEqual(self.subscriber.state, "RECOVERING")

    def test_failures_are_reported(self) -> None:
        """With the first data after the feed was DOWN, the time of the data before is passed on."""
        self.receive_data()
        self.wait(59)
        self.receive_data()
        self.assertEqual(self.failures, [])
        self.wait(150)
        self.receive_data()
        self.assertEqual(self.failures, [self.started + 59])
        for _ in range(20):
            self.wait(30)
            self.receive_heartbeat()
        self.receive_data()
        self.receive_data()
        self.assertEqual(self.failures, [self.started + 59, self.started + 209])

    def test_silence_reconnects(self) -> None:
        """After a minute without any frame the feed is DOWN, with one log line, and a new connection is made."""
        self.receive_data()
        self.wait(40)
        self.receive_heartbeat()
        self.wait(59)
        self.assertEqual(self.subscriber.state, "RECOVERING")
        self.wait(1)
        self.assertEqual((self.subscriber.state, self.subscriber.address), ("DOWN", None))
        self.assertEqual(
            self.lines()[1:],
            [f"Feed {ADDRESS}: no data for 60 s (DOWN); reconnecting to {ADDRESS} in 1 s"],
        )
        self.wait(1)
        self.assertEqual(self.subscriber.address, ADDRESS)
        self.receive_data()
        self.assertEqual(self.subscriber.state, "RECOVERING")

    def test_clock_set_back_while_recovering(self) -> None:
        """After the clock was set back, recovery starts again."""
        self.receive_data()
        self.clock.rightNow -= 3600
        self.receive_data()
        self.wait(59)
        self.receive_data()
        self.assertEqual(self.subscriber.state, "RECOVERING")
        self.wait(1)
        self.receive_data()
        self.assertEqual(self.subscriber.state, "UP")


class ReconnectTests(SubscriberTestCase):
    """Silence and reconnection."""

    addresses = (ADDRESS, OTHER)

    def test_back_off(self) -> None:
        """The back-off doubles up to 30 s; addresses are used in turn, every other round without IPv6."""
        self.wait(8 * 60 + 1 + 2 + 4 + 8 + 16 + 30 + 30)
        at, expected = 0, []
        for number, wait in enumerate([1, 2, 4, 8, 16, 30, 30, 30]):
            expected.append((self.started + at, (ADDRESS, OTHER)[number % 2], number // 2 % 2 == 0))
            at += 60 + wait
        self.assertEqual(self.sockets.connects, expected)
        self.assertTrue(all(socket.closed for socket in self.sockets.sockets[:-1]))
        self.assertEqual(len(self.lines()), 1 + 8)

    def test_missing_first_frame_is_logged(self) -> None:
        """If nothing was received 10 s after the start, as from a refused connection, a line names the cause."""
        self.wait(9)
        self.assertEqual(self.lines(), [])
        self.wait(1)
        (line,) = self.lines()
        self.assertTrue(line.startswith(f"Feed {ADDRESS}: nothing received for 10 s; check the address"), line)

    def test_unresolved_host_name_is_logged(self) -> None:
        """If the host's name cannot be resolved, the line says so; nothing is logged if data came meanwhile."""
        for n_addresses, receives, expected in (
            (0, False, "host name cannot be resolved"),
            (1, False, "outgoing"),
            (0, True, ""),
        ):
            with self.subTest(expected=expected):
                self.setUp()
                resolver = NameResolver()
                self.clock.nameResolver = cast(Any, resolver)
                directlyProvides(self.clock, IReactorPluggableNameResolver)
                self.wait(10)
                self.assertEqual((self.lines(), [*resolver.receivers]), ([], ["feed.example"]))
                if receives:
                    self.receive_heartbeat()
                resolver.answer("feed.example", n_addresses)
                self.assertEqual([expected in line for line in self.lines()], [True] if expected else [])

    def test_unresolved_host_name_after_stop(self) -> None:
        """A name that is resolved after the stop has no effect."""
        resolver = NameResolver()
        self.clock.nameResolver = cast(Any, resolver)
        directlyProvides(self.clock, IReactorPluggableNameResolver)
        self.wait(10)
        self.subscriber.stopService()
        resolver.answer("feed.example", 0)
        self.assertEqual(self.lines(), [])

    def test_first_frame_is_not_missing(self) -> None:
        """A heartbeat within 10 s shows that the connection works."""
        self.receive(ENVELOPE.encode())
        self.wait(30)
        self.assertEqual(self.lines(), [])

    def test_data_resets_back_off(self) -> None:
        """Data resets the back-off to 1 s; heartbeats do not."""
        self.wait(61 + 62)
        self.receive_heartbeat()
        self.wait(60)
        self.assertIn("in 4 s", self.lines()[-1])
        self.wait(4)
        self.receive_data()
        self.wait(60)
        self.assertIn("in 1 s", self.lines()[-1])

    def test_rejected_further_address_is_skipped(self) -> None:
        """A further address that libzmq rejects is skipped after the back-off."""
        self.sockets.rejected = {OTHER}
        self.wait(60 + 1 + 2)
        self.assertEqual([address for _, address, _ in self.sockets.connects], [ADDRESS, OTHER, ADDRESS])
        self.receive_data()
        self.assertEqual(len(self.received), 1)

    def test_waiting_message_is_not_silence(self) -> None:
        """A message that is waiting in libzmq at the end of a silence is read, and no new connection is made."""
        self.wait(59)
        self.socket.messages.append([ENVELOPE.encode(), b"gz"])
        self.wait(2)
        self.assertEqual((len(self.received), len(self.sockets.connects)), (1, 1))

    def test_stop_during_back_off(self) -> None:
        """A stop between two attempts leaves no delayed call."""
        self.wait(60)
        self.subscriber.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_readiness_after_close(self) -> None:
        """Readiness from before the connection was closed has no effect."""
        (reader,) = self.clock.getReaders()
        self.wait(60)
        cast(IReadDescriptor, reader).doRead()

    def test_clock_set_forward_is_not_silence(self) -> None:
        """A clock set forward is not a silence; later silences are noticed in time."""
        self.receive_data()
        self.wait(10)
        self.clock.advance(3600)
        self.assertEqual((self.subscriber.state, self.socket.closed), ("RECOVERING", False))
        self.wait(59)
        self.assertFalse(self.socket.closed)
        self.wait(1)
        self.assertTrue(self.socket.closed)

    def test_clock_set_back(self) -> None:
        """After the clock was set back, the next silence is noticed in time."""
        self.receive_data()
        self.clock.rightNow -= 3600
        self.receive_data()
        self.wait(59)
        self.assertFalse(self.socket.closed)
        self.wait(1)
        self.assertTrue(self.socket.closed)

    def test_clock_set_back_during_silence(self) -> None:
        """A silence in which the clock is set back is noticed when the clock has caught up."""
        self.receive_data()
        self.clock.rightNow -= 3600
        self.wait(3660)
        self.assertTrue(self.socket.closed)


class AddressTests(SynchronousTestCase):
    """Valid and invalid addresses."""

    def subscriber(self, *addresses: str, sockets: FakeSockets | None = None) -> Subscriber:
        return Subscriber(
            MemoryReactorClock(),
            addresses,
            [""],
            lambda envelope, data: None,
            _sockets=sockets,  # type: ignore[arg-type]
        )

    def test_valid_addresses(self) -> None:
        """Hosts by name, IPv4 or IPv6, and local sockets are valid."""
        for address in (ADDRESS, "tcp://83.98.158.170:7817", "tcp://[::1]:1", "tcp://x:65535", "ipc:///run/feed"):
            self.assertIsNone(self.subscriber(address).address)

    def test_invalid_addresses(self) -> None:
        """An invalid address is a StartupError that names it, at any position of the list."""
        for address in (
            "", "feed.example:7817", "tcp://feed.example", "tcp://feed.example:", "tcp://feed.example:x",
            "tcp://feed.example:0", "tcp://feed.example:65536", "tcp://:7817", "tcp://*:7817", "tcp://a b:1",
            "tcp://\u00e9:1", "tcp://x:\u0661", "tcp://x:1/path", "http://x:1", "udp://x:1", "tcp:/x:1", "ipc://",
            "inproc://", "ipc://" + 200 * "x", "tcp://x:1\n", "tcp://[::1:1", "tcp://::1]:1", "tcp://[]:1",
        ):  # fmt: skip
            with self.assertRaises(StartupError) as caught:
                self.subscriber(ADDRESS, address)
            self.assertIn(repr(address), str(caught.exception))

    def test_address_and_prefix_are_required(self) -> None:
        """A subscriber without addresses or prefixes is a StartupError."""
        self.assertRaises(StartupError, self.subscriber)
        with self.assertRaises(StartupError):
            Subscriber(MemoryReactorClock(), [ADDRESS], [], lambda envelope, data: None)

    def test_rejected_first_address_fails_startup(self) -> None:
        """A first address that libzmq rejects is a StartupError, and the sockets are closed."""
        sockets = FakeSockets()
        sockets.rejected, sockets.clock = {ADDRESS}, MemoryReactorClock()
        subscriber = self.subscriber(ADDRESS, sockets=sockets)
        self.assertRaises(StartupError, subscriber.startService)
        self.assertTrue(sockets.closed)
        self.assertFalse(subscriber.running)

    def test_stop_without_start(self) -> None:
        """A subscriber that was never started can be stopped."""
        self.successResultOf(self.subscriber(ADDRESS).stopService())


class DescriptorTests(SynchronousTestCase):
    """The socket's descriptor."""

    def test_provides_read_descriptor(self) -> None:
        """It provides IReadDescriptor."""
        descriptor = SocketDescriptor(FakeSocket(), lambda: None)  # type: ignore[arg-type]
        self.assertTrue(verifyObject(IReadDescriptor, descriptor))
        self.assertEqual((descriptor.fileno(), descriptor.logPrefix()), (99, "kv78turbo"))
        descriptor.connectionLost(Failure(ValueError()))
