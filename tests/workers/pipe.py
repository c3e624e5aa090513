"""Connections in memory between a client's protocol and a server, whose bytes arrive in later turns of a clock."""

from typing import Any, cast

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer


class PipeTransport(StringTransport):
    """One end of a connection; the other end is its peer."""

    peer: "PipeTransport"
    protocol: Any = None

    def __init__(self, clock: Clock) -> None:
        super().__init__(peerAddress=cast(Any, UNIXAddress("")), lenient=True)
        self._clock = clock
        self.is_closed = False

    def write(self, data: bytes) -> None:
        super().write(data)
        self._clock.callLater(0, self.peer.deliver, data)

    def deliver(self, data: bytes) -> None:
        if not self.is_closed:
            self.protocol.dataReceived(data)

    def loseConnection(self) -> None:
        super().loseConnection()
        self._clock.callLater(0, self.peer.close, ConnectionDone())
        self._clock.callLater(0, self.close, ConnectionDone())

    def loseWriteConnection(self) -> None:
        self.loseConnection()

    def abortConnection(self) -> None:
        super().abortConnection()
        self._clock.callLater(0, self.peer.close, ConnectionLost())
        self._clock.callLater(0, self.close, ConnectionLost())

    def close(self, reason: Exception) -> None:
        """Lose the connection."""
        if not self.is_closed:
            self.is_closed = True
            self.protocol.connectionLost(Failure(reason))


@implementer(IStreamClientEndpoint)
class PipeEndpoint:
    """The address of a server in memory; None if nothing listens. connections: the server's ends."""

    def __init__(self, clock: Clock, server: ServerFactory[Any] | None) -> None:
        self.server = server
        self._clock = clock
        self.connections: list[PipeTransport] = []

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        if self.server is None:
            return fail(ConnectError("refused"))
        near, far = PipeTransport(self._clock), PipeTransport(self._clock)
        near.peer, far.peer = far, near
        near.protocol = protocolFactory.buildProtocol(UNIXAddress(""))
        far.protocol = self.server.buildProtocol(cast(Any, UNIXAddress("")))
        self.connections.append(far)
        far.protocol.makeConnection(far)
        near.protocol.makeConnection(near)
        return succeed(near.protocol)

    @property
    def requests(self) -> list[bytes]:
        """The header sections that were sent, by connection."""
        sent = b"".join(connection.peer.value() for connection in self.connections)
        return sent.split(b"\r\n\r\n")[:-1]
