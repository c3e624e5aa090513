"""Who watches the connections: real sockets and Twisted's transports, and a reactor that does nothing by itself."""

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


class Listening(Protocol):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.lost: list[type[BaseException]] = []

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert reason.type is not None
        self.lost.append(reason.type)


@implementer(IHalfCloseableProtocol)
class Polite(Listening):
    """Goes on when the other side has said that it has nothing more to say."""

    def readConnectionLost(self) -> None:
        self.heard.append(b"that was all")

    def writeConnectionLost(self) -> None:
        self.heard.append(b"goodbye")


class Clumsy(Listening):
    """Fails at whatever it hears."""

    def dataReceived(self, data: bytes) -> None:
        raise ZeroDivisionError


class Hopeless(Clumsy):
    """Fails at its end, too."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        raise IndexError


class Exiting(Listening):
    """Wants the program to end, from where nobody may."""

    def dataReceived(self, data: bytes) -> None:
        raise SystemExit


class Closing(Listening):
    """Closes connections when it hears something, its own by default."""

    def __init__(self, closes: "list[Closing] | None" = None) -> None:
        super().__init__()
        self.closes = [self] if closes is None else closes

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        for one in self.closes:
            transport: Any = one.transport
            transport.connectionLost(connectionDone)


class PollerTests(SynchronousTestCase):
    """Connections that are watched."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.poller = Poller(self.reactor)

    def connect(self, protocol: Protocol) -> socket.socket:
        """Connect a protocol; give the other end."""
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
        """What comes is told to whom it came for."""
        first, second = Listening(), Listening()
        one, other = self.connect(first), self.connect(second)
        one.send(b"to the first")
        self.poller.doRead()
        other.send(b"to the second")
        self.poller.doRead()
        self.assertEqual((first.heard, second.heard), ([b"to the first"], [b"to the second"]))

    def test_pause(self) -> None:
        """Who pauses is not told, until it goes on."""
        protocol = Listening()
        other = self.connect(protocol)
        transport: Any = protocol.transport
        transport.pauseProducing()
        transport.pauseProducing()
        other.send(b"wait")
        self.poller.doRead()
        self.assertEqual(protocol.heard, [])
        transport.resumeProducing()
        self.poller.doRead()
        self.assertEqual(protocol.heard, [b"wait"])

    def test_writes(self) -> None:
        """What the socket does not take at once goes out as the other side reads it."""
        protocol = Listening()
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
        """The reactor watches it while there is a connection, and knows of no connection itself."""
        self.assertEqual(self.reactor.getReaders(), [])
        first, second = Listening(), Listening()
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
        """Who can go on after the other side has said its last is told so, and can write."""
        protocol = Polite()
        other = self.connect(protocol)
        other.send(b"the last")
        other.shutdown(socket.SHUT_WR)
        self.poller.doRead()
        self.poller.doRead()
        self.assertEqual((protocol.heard, protocol.lost), ([b"the last", b"that was all"], []))
        assert protocol.transport is not None
        protocol.transport.write(b"answer")
        self.poller.doRead()
        self.assertEqual(other.recv(100), b"answer")

    def test_lost_while_paused(self) -> None:
        """A connection that nobody reads from is lost when it breaks, as it writes."""
        protocol = Listening()
        other = self.connect(protocol)
        transport: Any = protocol.transport
        transport.pauseProducing()
        transport.write(b"x" * (4 << 20))
        self.poller.doRead()
        other.close()
        self.poller.doRead()
        self.assertEqual(protocol.lost, [ConnectionLost])

    def test_abort(self) -> None:
        """Who is aborted is lost in the reactor's next turn, and not watched any more."""
        protocol = Listening()
        other = self.connect(protocol)
        transport: Any = protocol.transport
        transport.abortConnection()
        other.send(b"too late")
        self.poller.doRead()
        self.reactor.advance(0)
        self.assertEqual((protocol.heard, protocol.lost, self.reactor.getReaders()), ([], [ConnectionAborted], []))

    def test_failing(self) -> None:
        """A protocol that fails loses its connection, it is logged, and others are served."""
        clumsy, other = Clumsy(), Listening()
        for theirs in (self.connect(clumsy), self.connect(other)):
            theirs.send(b"something")
        self.poller.doRead()
        self.assertEqual((clumsy.lost, other.heard), ([ZeroDivisionError], [b"something"]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failing_at_its_end(self) -> None:
        """Whatever a connection dies of, and fails at, others are served, and the reactor goes on watching."""
        hopeless, exiting, other = Hopeless(), Exiting(), Listening()
        for theirs in [self.connect(protocol) for protocol in (hopeless, exiting, other)]:
            theirs.send(b"something")
        self.poller.doRead()
        self.assertEqual((hopeless.lost, exiting.lost), ([ZeroDivisionError], [SystemExit]))
        self.assertEqual((other.heard, self.reactor.getReaders()), ([b"something"], [self.poller]))
        logged = self.flushLoggedErrors(ZeroDivisionError, IndexError, SystemExit)
        self.assertEqual(len(logged), 3)

    def test_the_reactor_stops(self) -> None:
        """When the reactor stops, all connections are lost, whatever they do about it."""
        protocols = [Listening(), Hopeless(), Listening()]
        for protocol in protocols:
            self.connect(protocol)
        self.poller.connectionLost(Failure(ConnectionLost()))
        self.assertEqual([protocol.lost for protocol in protocols], [[ConnectionLost]] * 3)
        self.assertEqual((len(self.flushLoggedErrors(IndexError)), self.reactor.getReaders()), (1, []))

    def test_closes_while_it_could_write(self) -> None:
        """Who closes at what it reads is not written to in the same round."""
        protocol = Closing()
        other = self.connect(protocol)
        transport: Any = protocol.transport
        transport.startWriting()
        other.send(b"something")
        self.poller.doRead()
        self.assertEqual((protocol.heard, protocol.lost), ([b"something"], [ConnectionDone]))

    def test_closed_by_another(self) -> None:
        """Who is closed by another in the same round is not told of what came."""
        first, second = Closing([]), Closing([])
        first.closes, second.closes = [second], [first]
        for theirs in [self.connect(one) for one in (first, second)]:
            theirs.send(b"something")
        self.poller.doRead()
        self.assertEqual(sorted((len(one.heard), len(one.lost)) for one in (first, second)), [(0, 1), (1, 0)])

    def test_turns(self) -> None:
        """The reactor has its turn after a hundred, and all are served in their order."""
        protocols = [Listening() for _ in range(MAX_EVENTS + 10)]
        for theirs in [self.connect(protocol) for protocol in protocols]:
            theirs.send(b"x")
        self.poller.doRead()
        self.assertEqual(sum(len(one.heard) for one in protocols), MAX_EVENTS)
        self.poller.doRead()
        self.assertEqual([one.heard for one in protocols], [[b"x"]] * len(protocols))
