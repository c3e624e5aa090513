"""The poller, with real sockets, Twisted's transports, and a reactor that does nothing by itself."""

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

from govi_server.sockets.poller import MAX_EVENTS, Poller


class Recorder(Protocol):
    """Records what it is called with."""

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
    """Stays open when the peer has closed its sending side."""

    def readConnectionLost(self) -> None:
        self.received.append(b"that was all")

    def writeConnectionLost(self) -> None:
        self.received.append(b"goodbye")


class Failing(Recorder):
    """Fails at all data."""

    def dataReceived(self, data: bytes) -> None:
        raise ZeroDivisionError


class FailingTwice(Failing):
    """Fails when the connection is lost, too."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        raise IndexError


class Exiting(Recorder):
    """Raises SystemExit in a callback."""

    def dataReceived(self, data: bytes) -> None:
        raise SystemExit


class Closing(Recorder):
    """Closes connections when it receives data, its own by default."""

    def __init__(self, closes: "list[Closing] | None" = None) -> None:
        super().__init__()
        self.closes = [self] if closes is None else closes

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        for one in self.closes:
            transport: Any = one.transport
            transport.connectionLost(connectionDone)


class PollerTests(SynchronousTestCase):
    """Connections that are polled."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.poller = Poller(self.reactor)

    def connect(self, protocol: Protocol) -> socket.socket:
        """Connect a protocol; return the peer's socket."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        ours.setblocking(False)
        theirs.setblocking(False)
        server: Any = Server
        transport = server(ours, protocol, ("127.0.0.1", 1), None, 0, self.poller)
        protocol.makeConnection(transport)
        self.addCleanup(lambda: transport.connected and transport.connectionLost(connectionDone))
        return theirs

    def test_reads(self) -> None:
        """Data is delivered to its connection."""
        first, second = Recorder(), Recorder()
        one, other = self.connect(first), self.connect(second)
        one.send(b"to the first")
        self.poller.doRead()
        other.send(b"to the second")
        self.poller.doRead()
        self.assertEqual((first.received, second.received), ([b"to the first"], [b"to the second"]))

    def test_pause(self) -> None:
        """A paused connection receives nothing until it resumes."""
        protocol = Recorder()
        other = self.connect(protocol)
        transport: Any = protocol.transport
        transport.pauseProducing()
        transport.pauseProducing()
        other.send(b"wait")
        self.poller.doRead()
        self.assertEqual(protocol.received, [])
        transport.resumeProducing()
        self.poller.doRead()
        self.assertEqual(protocol.received, [b"wait"])

    def test_writes(self) -> None:
        """What the socket does not accept at once is sent as the peer reads."""
        protocol = Recorder()
        other = self.connect(protocol)
        size = 4 << 20
        assert protocol.transport is not None
        protocol.transport.write(b"x" * size)
        protocol.transport.loseConnection()
        got = 0
        while not protocol.lost:
            self.poller.doRead()
            try:
                got += len(other.recv(1 << 20))
            except BlockingIOError:
                continue
        while data := other.recv(1 << 20):
            got += len(data)
        self.assertEqual((got, protocol.lost), (size, [ConnectionDone]))

    def test_reactor(self) -> None:
        """The reactor polls the poller while there is a connection, and no connection itself."""
        self.assertEqual(self.reactor.getReaders(), [])
        first, second = Recorder(), Recorder()
        one, other = self.connect(first), self.connect(second)
        self.assertEqual(self.reactor.getReaders(), [self.poller])
        one.close()
        self.poller.doRead()
        self.assertEqual(self.reactor.getReaders(), [self.poller])
        other.close()
        self.poller.doRead()
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual((first.lost, second.lost), ([ConnectionDone], [ConnectionDone]))

    def test_half_close(self) -> None:
        """A protocol for half-closed connections is called at the peer's half close, and can write."""
        protocol = HalfCloseable()
        other = self.connect(protocol)
        other.send(b"the last")
        other.shutdown(socket.SHUT_WR)
        self.poller.doRead()
        self.poller.doRead()
        self.assertEqual((protocol.received, protocol.lost), ([b"the last", b"that was all"], []))
        assert protocol.transport is not None
        protocol.transport.write(b"answer")
        self.poller.doRead()
        self.assertEqual(other.recv(100), b"answer")

    def test_lost_while_paused(self) -> None:
        """A paused connection that breaks is lost when it writes."""
        protocol = Recorder()
        other = self.connect(protocol)
        transport: Any = protocol.transport
        transport.pauseProducing()
        transport.write(b"x" * (4 << 20))
        self.poller.doRead()
        other.close()
        self.poller.doRead()
        self.assertEqual(protocol.lost, [ConnectionLost])

    def test_abort(self) -> None:
        """An aborted connection is lost in the reactor's next turn, and not polled any more."""
        protocol = Recorder()
        other = self.connect(protocol)
        transport: Any = protocol.transport
        transport.abortConnection()
        other.send(b"too late")
        self.poller.doRead()
        self.reactor.advance(0)
        self.assertEqual((protocol.received, protocol.lost, self.reactor.getReaders()), ([], [ConnectionAborted], []))

    def test_failing(self) -> None:
        """The connection of a protocol that fails is closed, the failure is logged, and others are served."""
        clumsy, other = Failing(), Recorder()
        for theirs in (self.connect(clumsy), self.connect(other)):
            theirs.send(b"something")
        self.poller.doRead()
        self.assertEqual((clumsy.lost, other.received), ([ZeroDivisionError], [b"something"]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failing_when_lost(self) -> None:
        """However a connection fails, others are served, and the reactor goes on polling."""
        hopeless, exiting, other = FailingTwice(), Exiting(), Recorder()
        for theirs in [self.connect(protocol) for protocol in (hopeless, exiting, other)]:
            theirs.send(b"something")
        self.poller.doRead()
        self.assertEqual((hopeless.lost, exiting.lost), ([ZeroDivisionError], [SystemExit]))
        self.assertEqual((other.received, self.reactor.getReaders()), ([b"something"], [self.poller]))
        logged = self.flushLoggedErrors(ZeroDivisionError, IndexError, SystemExit)
        self.assertEqual(len(logged), 3)

    def test_the_reactor_stops(self) -> None:
        """When the reactor stops, all connections are lost, also if one fails."""
        protocols = [Recorder(), FailingTwice(), Recorder()]
        for protocol in protocols:
            self.connect(protocol)
        self.poller.connectionLost(Failure(ConnectionLost()))
        self.assertEqual([protocol.lost for protocol in protocols], [[ConnectionLost]] * 3)
        self.assertEqual((len(self.flushLoggedErrors(IndexError)), self.reactor.getReaders()), (1, []))

    def test_closes_while_writable(self) -> None:
        """A connection that closes at its data is not written to in the same turn."""
        protocol = Closing()
        other = self.connect(protocol)
        transport: Any = protocol.transport
        transport.startWriting()
        other.send(b"something")
        self.poller.doRead()
        self.assertEqual((protocol.received, protocol.lost), ([b"something"], [ConnectionDone]))

    def test_closed_by_another(self) -> None:
        """A connection that another has closed in the same turn receives nothing."""
        first, second = Closing([]), Closing([])
        first.closes, second.closes = [second], [first]
        for theirs in [self.connect(one) for one in (first, second)]:
            theirs.send(b"something")
        self.poller.doRead()
        self.assertEqual(sorted((len(one.received), len(one.lost)) for one in (first, second)), [(0, 1), (1, 0)])

    def test_max_events(self) -> None:
        """At most MAX_EVENTS connections are served in a turn, all in order."""
        protocols = [Recorder() for _ in range(MAX_EVENTS + 10)]
        for theirs in [self.connect(protocol) for protocol in protocols]:
            theirs.send(b"x")
        self.poller.doRead()
        self.assertEqual(sum(len(one.received) for one in protocols), MAX_EVENTS)
        self.poller.doRead()
        self.assertEqual([one.received for one in protocols], [[b"x"]] * len(protocols))
