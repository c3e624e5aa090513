"""Tests of event streams through a worker."""

from collections.abc import Callable
from typing import cast
from unittest import mock

from twisted.application.service import IService
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.http import event_listeners
from govi_server.http.stream import Stream
from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.workers.relayed_stream import JOIN_SECONDS, RelayedStream
from govi_server.workers.upstream_connection import Message, UpstreamConnection
from tests.client import Client
from tests.examples import TOWN
from tests.workers.case import WorkerCase

PATH = "/events/57330430?as=json"
EVENT = b"id: %d\ndata: a\n\n"


class RelayedStreamTests(WorkerCase):
    """Clients of one stream of the main process, which has a gateway whose boards the test puts."""

    source = "gateway"

    def setUp(self) -> None:
        super().setUp()
        self.patch(event_listeners, "RETRY_RANGE", (4000, 4000))
        events = IService(self.program.modules.getServiceNamed("events"))
        events.startService()
        self.addCleanup(events.stopService)

    def listen(self, **headers: str) -> Client:
        client = self.client()
        client.get(PATH, **headers)
        self.program.turn(20)
        return client

    def end_joining(self) -> None:
        """Pass the time in which clients may join, in which a stream without clients does not end."""
        self.clock.advance(JOIN_SECONDS)
        self.program.turn(20)

    def change(self, trips: int) -> None:
        """Change the board to another number of departures, and let the main process notice."""
        self.clock.advance(0.01)  # boards are distinguished by their time
        cache = self.program.components.gateways["kv55"].cache
        cache.put(TOWN.board("57330430", self.clock.seconds(), max_trips=trips))
        for _ in range(6):
            self.clock.advance(0.1)
            self.program.turn(8)

    def test_one_stream_for_all_clients(self) -> None:
        """All clients of a worker share one stream, whatever they are; each receives every board."""
        clients = [self.listen(user_agent=f"{n}") for n in range(5)]
        boards = {client.received().partition(b"\r\n\r\n")[2] for client in clients}
        self.assertEqual(len(boards), 1)
        self.assertTrue(boards.pop().startswith(b"retry: 4000\nid: "))
        self.change(3)
        events = {client.received() for client in clients}
        self.assertEqual((len(events), self.upstream), (1, [PATH]))
        self.assertIn(b"event: board\n", events.pop())

    def test_last_event_id(self) -> None:
        """A client that has the latest board receives a beat, and any other the board."""
        first = self.listen().received()
        latest = first.partition(b"\nid: ")[2].partition(b"\n")[0].decode()
        beat = self.listen(last_event_id=latest).received().partition(b"\r\n\r\n")[2]
        self.assertEqual(beat, b"retry: 4000\n:\nevent: beat\ndata:\n\n")
        self.assertIn(b"event: board\n", self.listen(last_event_id="old").received())

    def test_events_that_arrive_together(self) -> None:
        """Events that a busy worker receives at once do not end the stream before its client has joined."""

        class TwoEvents(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(b"HTTP/1.1 200 Ok\r\n\r\nid: 1\ndata: a\n\nid: 2\ndata: b\n\n")

        server: ServerFactory[Protocol] = ServerFactory()
        server.protocol = TwoEvents
        self.program.address.server = server
        client = self.listen()
        self.assertTrue(client.received().endswith(b"id: 2\ndata: b\n\n"))
        (connection,) = self.program.address.connections
        self.assertFalse(connection.is_closed)
        self.end_joining()
        client.leave()
        self.program.turn()
        self.assertTrue(connection.is_closed)

    def test_beats(self) -> None:
        """Beats of the main process are relayed."""
        self.change(0)  # a board without departures does not age
        client = self.listen()
        client.received()
        for _ in range(21):
            self.clock.advance(1)
            self.program.turn()
        self.assertEqual(client.received(), b":\nevent: beat\ndata:\n\n" * 2)

    def test_slow_client_receives_the_latest_board(self) -> None:
        """A client that does not read misses boards, and receives the latest one when it reads again."""
        client = self.listen()
        client.received()
        client.handler.pauseProducing()
        self.change(3)
        self.change(4)
        self.assertEqual(client.received(), b"")
        client.handler.resumeProducing()
        for _ in range(6):
            self.clock.advance(0.1)
            self.program.turn()
        received = client.received()
        self.assertEqual(received.count(b"event: board\n"), 1)
        self.assertIn(received.partition(b"data: ")[2], self.listen().received())

    def test_client_that_never_reads(self) -> None:
        """A client that does not read for 13 s is disconnected; the others stay."""
        slow, other = self.listen(), self.listen()
        slow.handler.pauseProducing()
        for _ in range(14):
            self.clock.advance(1)
            self.program.turn()
        self.assertEqual((slow.closed, other.closed), (True, False))

    def test_stream_ends_with_its_last_client(self) -> None:
        """The stream of the main process ends when the last client leaves; the next one gets a new one."""
        first, second = self.listen(), self.listen()
        first.leave()
        self.turn()
        self.assertEqual(self.program.origin.streams, 1)
        self.end_joining()
        second.leave()
        self.turn()
        self.assertEqual((self.program.origin.streams, self.program.proxy._streams), (0, {}))
        self.assertIn(b"event: board\n", self.listen().received())
        self.assertEqual(self.upstream, [PATH] * 2)

    def test_client_that_leaves_before_the_first_event(self) -> None:
        """Nothing is left of a client that leaves while it waits."""
        client = self.client()
        client.get(PATH)
        self.clock.advance(0)
        client.leave()
        self.end_joining()
        self.assertEqual((self.program.origin.streams, self.program.proxy._streams), (0, {}))
        self.assertEqual(len(self.program.proxy._requests), 0)

    def test_head(self) -> None:
        """A HEAD has the fields of a stream, and leaves none behind."""
        client = self.client()
        client.send(f"HEAD {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.program.turn(20)
        response = client.response("HEAD")
        self.assertEqual(response.headers["Content-Type"], "text/event-stream; charset=utf-8")
        self.end_joining()
        self.assertEqual((self.program.origin.streams, client.closed), (0, True))

    def test_main_process_ends_a_stream(self) -> None:
        """When the main process stops or dies, each client gets one bye, and may reconnect."""
        for is_killed in (False, True):
            clients = [self.listen() for _ in range(3)]
            for client in clients:
                client.received()
            if is_killed:
                self.program.address.connections[-1].abortConnection()
            else:
                self.program.origin.drain()
                self.clock.advance(0.1)
            self.program.turn()
            self.assertEqual({client.received() for client in clients}, {b"retry: 4000\nevent: bye\ndata:\n\n"})
            self.assertEqual({client.closed for client in clients}, {True})
            self.assertEqual(self.program.proxy._streams, {})
            self.program.origin.draining = False

    def test_worker_drains(self) -> None:
        """A worker that stops ends the streams of its clients, and then that of the main process."""
        client = self.listen()
        self.end_joining()
        self.program.server.drain()
        self.clock.advance(0.1)
        self.turn()
        self.assertTrue(client.received().endswith(b"event: bye\ndata:\n\n"))
        client.leave()
        self.turn()
        self.assertEqual(self.program.origin.streams, 0)


class _Connection:
    """The connection of a stream of the main process, whose data the test receives."""

    is_aborted = False

    def read_stream(self, receive: Callable[[bytes], None], end: Callable[[], None]) -> None:
        self.receive, self.end = receive, end

    def abort(self) -> None:
        self.is_aborted = True
        self.end()


class JoiningTests(SynchronousTestCase):
    """Clients that wait for the first event of a stream, and join it in later turns of a busy worker."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.connection = _Connection()
        connection = cast(UpstreamConnection, self.connection)
        self.cooperator = CooperativeRunner(self.clock).cooperator
        message = Message("200 Ok", ())
        self.relayed = RelayedStream(self.clock, self.cooperator, message, connection, lambda: None)
        self.connection.receive(EVENT % 1)

    def join(self) -> tuple[Stream, mock.Mock]:
        """Join the stream; return the stream of a client, and its write()."""
        stream = mock.Mock(spec=Stream)
        self.relayed.join(stream, "")
        return stream, stream.write

    def test_events_before_all_clients_have_joined(self) -> None:
        """Further events, and clients that have joined and left, do not end a stream that others will join."""
        self.successResultOf(self.relayed.first_event)
        self.connection.receive(EVENT % 2)
        stream, _ = self.join()
        self.relayed.leave(stream)
        self.connection.receive(EVENT % 3)
        self.assertFalse(self.connection.is_aborted)
        _, write = self.join()
        self.assertTrue(write.call_args[0][0].endswith(EVENT % 3))
        self.clock.advance(JOIN_SECONDS)
        self.assertFalse(self.connection.is_aborted)

    def test_no_client_joins(self) -> None:
        """A stream whose clients have left before they joined ends, and leaves no call behind."""
        self.clock.advance(JOIN_SECONDS)
        self.assertTrue(self.connection.is_aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_end_while_clients_join(self) -> None:
        """A stream that the main process ends leaves no call behind."""
        self.connection.end()
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
