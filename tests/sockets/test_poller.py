"""The poller, with real sockets, Twisted's transports, and a reactor that the test runs."""

import socket
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Server
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from govi_server.sockets.poller import MAX_EVENTS, MAX_TURN_SECONDS, Poller


class Recorder(Protocol):
    """Records received data and the reasons of lost connections."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.lost: list[type[BaseException]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert reason.type is not None
        self.lost.append(reason.type)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Recorder):
    """Stays open after the peer's half-close."""

    def readConnectionLost(self) -> None:
        self.received.append(b"read side lost")

    def writeConnectionLost(self) -> None:
        self.received.append(b"write side lost")


class Failing(Recorder):
    """Raises an exception when it receives data."""

    def dataReceived(self, data: bytes) -> None:
        raise ZeroDivisionError


class FailingTwice(Failing):
    """Raises another exception when the connection is lost."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        raise IndexError


class Exiting(Recorder):
    """Raises SystemExit when it receives data."""

    def dataReceived(self, data: bytes) -> None:
        raise SystemExit


class Closing(Recorder):
    """Closes connections, by default its own, when it receives data."""

    def __init__(self, closes: "list[Closing] | None" = None) -> None:
        super().__init__()
        self.closes = [self] if closes is None else closes

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        for protocol in self.closes:
            transport: Any = protocol.transport
            transport.connectionLost(connectionDone)


class PollerTests(SynchronousTestCase):
    """Polling connections."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.poller = Poller(self.reactor)

    def connect(self, protocol: Protocol) -> socket.socket:
        """Connect a protocol; return the peer's socket."""
        ours, peer = socket.socketpair()
        self.addCleanup(peer.close)
        ours.setblocking(False)
        peer.setblocking(False)
        server: Any = Server
        transport = server(ours, protocol, ("127.0.0.1", 1), None, 0, self.poller)
        protocol.makeConnection(transport)
        self.addCleanup(lambda: transport.connected and transport.connectionLost(connectionDone))
        return peer

    def test_data_is_delivered(self) -> None:
        """Data is delivered to the protocol of its connection."""
        first, second = Recorder(), Recorder()
        first_peer, second_peer = self.connect(first), self.connect(second)
        first_peer.send(b"to the first")
        self.poller.doRead()
        second_peer.send(b"to the second")
        self.poller.doRead()
        self.assertEqual((first.received, second.received), ([b"to the first"], [b"to the second"]))

    def test_paused_connection_receives_nothing(self) -> None:
        """A paused connection receives no data until it resumes."""
        protocol = Recorder()
        other = self.connect(protocol)
        transport: Any = protocol.transport
        transport.pauseProducing()
        transport.pauseProducing()
        other.send(b"data")
        self.poller.doRead()
        self.assertEqual(protocol.received, [])
        transport.resumeProducing()
        self.poller.doRead()
        self.assertEqual(protocol.received, [b"data"])

    def test_buffered_data_is_sent(self) -> None:
        """Data that the socket does not accept immediately is sent while the peer reads."""
        protocol = Recorder()
        other = self.connect(protocol)
        size = 4 << 20
        assert protocol.transport is not None
        protocol.transport.write(b"x" * size)
        protocol.transport.loseConnection()
        received = 0
        while not protocol.lost:
            self.poller.doRead()
            try:
                received += len(other.recv(1 << 20))
            except BlockingIOError:
                continue
        while data := other.recv(1 << 20):
            received += len(data)
        self.assertEqual((received, protocol.lost), (size, [ConnectionDone]))

    def test_reactor_polls_the_poller(self) -> None:
        """While connections exist, the reactor polls the poller instead of them."""
        self.assertEqual(self.reactor.getReaders(), [])
        first, second = Recorder(), Recorder()
        first_peer, second_peer = self.connect(first), self.connect(second)
        self.assertEqual(self.reactor.getReaders(), [self.poller])
        first_peer.close()
        self.poller.doRead()
        self.assertEqual(self.reactor.getReaders(), [self.poller])
        second_peer.close()
        self.poller.doRead()
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual((first.lost, second.lost), ([ConnectionDone], [ConnectionDone]))

    def test_half_closed_connection_can_write(self) -> None:
        """A half-closeable protocol is called at the peer's half-close, and can still write."""
        protocol = HalfCloseable()
        other = self.connect(protocol)
        other.send(b"last")
        other.shutdown(socket.SHUT_WR)
        self.poller.doRead()
        self.poller.doRead()
        self.assertEqual((protocol.received, protocol.lost), ([b"last", b"read side lost"], []))
        assert protocol.transport is not None
        protocol.transport.write(b"response")
        self.poller.doRead()
        self.assertEqual(other.recv(100), b"response")

    def test_lost_while_paused(self) -> None:
        """A paused connection whose peer has closed is lost when it writes."""
        protocol = Recorder()
        other = self.connect(protocol)
        transport: Any = protocol.transport
        transport.pauseProducing()
        transport.write(b"x" * (4 << 20))
        self.poller.doRead()
        other.close()
        self.poller.doRead()
        self.assertEqual(protocol.lost, [ConnectionLost])

    def test_aborted_connection_is_not_polled(self) -> None:
        """An aborted connection is no longer polled, and is lost in the next iteration of the reactor."""
        protocol = Recorder()
        other = self.connect(protocol)
        transport: Any = protocol.transport
        transport.abortConnection()
        other.send(b"late")
        self.poller.doRead()
        self.reactor.advance(0)
        self.assertEqual((protocol.received, protocol.lost, self.reactor.getReaders()), ([], [ConnectionAborted], []))

    def test_connection_of_failing_protocol_is_closed(self) -> None:
        """If a protocol fails, its connection is closed, the failure is logged, and others are served."""
        failing, other = Failing(), Recorder()
        for peer in (self.connect(failing), self.connect(other)):
            peer.send(b"data")
        self.poller.doRead()
        self.assertEqual((failing.lost, other.received), ([ZeroDivisionError], [b"data"]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failures_do_not_affect_others(self) -> None:
        """If protocols fail twice or raise SystemExit, others are served, and the reactor continues to poll."""
        failing, exiting, other = FailingTwice(), Exiting(), Recorder()
        for peer in [self.connect(protocol) for protocol in (failing, exiting, other)]:
            peer.send(b"data")
        self.poller.doRead()
        self.assertEqual((failing.lost, exiting.lost), ([ZeroDivisionError], [SystemExit]))
        self.assertEqual((other.received, self.reactor.getReaders()), ([b"data"], [self.poller]))
        logged = self.flushLoggedErrors(ZeroDivisionError, IndexError, SystemExit)
        self.assertEqual(len(logged), 3)

    def test_connections_are_lost_when_the_reactor_stops(self) -> None:
        """When the reactor stops, all connections are lost, even if a protocol fails."""
        protocols = [Recorder(), FailingTwice(), Recorder()]
        for protocol in protocols:
            self.connect(protocol)
        self.poller.connectionLost(Failure(ConnectionLost()))
        self.assertEqual([protocol.lost for protocol in protocols], [[ConnectionLost]] * 3)
        self.assertEqual((len(self.flushLoggedErrors(IndexError)), self.reactor.getReaders()), (1, []))

    def test_closed_connection_is_not_written(self) -> None:
        """A connection that closes when it receives data is not written in the same iteration."""
        protocol = Closing()
        other = self.connect(protocol)
        transport: Any = protocol.transport
        transport.startWriting()
        other.send(b"data")
        self.poller.doRead()
        self.assertEqual((protocol.received, protocol.lost), ([b"data"], [ConnectionDone]))

    def test_connection_closed_by_another(self) -> None:
        """A connection that another has closed in the same iteration receives no data."""
        first, second = Closing([]), Closing([])
        first.closes, second.closes = [second], [first]
        for peer in [self.connect(protocol) for protocol in (first, second)]:
            peer.send(b"data")
        self.poller.doRead()
        self.assertEqual(
            sorted((len(protocol.received), len(protocol.lost)) for protocol in (first, second)), [(0, 1), (1, 0)]
        )

    def test_events_per_iteration_are_bounded(self) -> None:
        """At most MAX_EVENTS connections are served per iteration, and all in turn."""
        protocols = [Recorder() for _ in range(MAX_EVENTS + 10)]
        for peer in [self.connect(protocol) for protocol in protocols]:
            peer.send(b"x")
        self.poller.doRead()
        self.assertEqual(sum(len(protocol.received) for protocol in protocols), MAX_EVENTS)
        self.poller.doRead()
        self.assertEqual([protocol.received for protocol in protocols], [[b"x"]] * len(protocols))

    def test_ready_meanwhile(self) -> None:
        """A connection that becomes ready while another is served is served in the same iteration."""
        second = Recorder()

        class First(Recorder):
            def dataReceived(self, data: bytes) -> None:
                peer.send(data)

        first_peer, peer = self.connect(First()), self.connect(second)
        first_peer.send(b"x")
        self.poller.doRead()
        self.assertEqual(second.received, [b"x"])

    def test_connection_that_is_always_ready(self) -> None:
        """A connection that is ready again whenever it is served ends an iteration like MAX_EVENTS others."""

        class Endless(Recorder):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                if len(self.received) < 2 * MAX_EVENTS:
                    peer.send(data)

        protocol = Endless()
        peer = self.connect(protocol)
        peer.send(b"x")
        self.poller.doRead()
        self.assertEqual(len(protocol.received), MAX_EVENTS)

    def test_time_of_an_iteration_is_bounded(self) -> None:
        """After MAX_TURN_SECONDS the other connections are served in the next iteration, before any other again."""
        clock = self.reactor
        order: list[Recorder] = []

        class Slow(Recorder):
            def dataReceived(self, data: bytes) -> None:
                clock.rightNow += 0.6 * MAX_TURN_SECONDS
                order.append(self)

        protocols = [Slow() for _ in range(7)]
        peers = [self.connect(protocol) for protocol in protocols]
        for _ in range(4):
            for peer in peers:
                peer.send(b"x")
            self.poller.doRead()
            self.assertTrue(self.poller.is_behind)
        self.assertEqual(len(order), 8)
        self.assertEqual({*order[:7]}, {*protocols})
        for _ in range(3):
            self.poller.doRead()
        self.assertFalse(self.poller.is_behind)
