"""Writing to a client, and closing its connection, at once: not when the reactor comes round to it.

For a short answer, the reactor's round costs more than the answer itself. What cannot be done at once is left to
Twisted, and so is everything on transports that are no sockets, TLS for example.
"""

from typing import TypeGuard

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure


class IClientTransport(ITCPTransport, IConsumer, IPushProducer):
    """What a connection does with its transport."""


_DONE = Failure(ConnectionDone())


def write_some(sock: IClientTransport, data: bytes) -> bytes:
    """Send what the socket accepts at once, if nothing is queued before it; return the rest."""
    if _has_nothing_queued(sock):
        try:
            sent = sock.socket.send(data)
        except OSError:  # full, or the connection is lost, which write() makes the reactor find out
            sent = 0
        return data[sent:]
    return data


def write_now(sock: IClientTransport, data: bytes) -> None:
    """Write as transport.write() does, but at once if nothing is queued and the socket accepts it."""
    if unsent := write_some(sock, data):
        sock.write(unsent)


def close_now(sock: IClientTransport) -> bool:
    """Close as transport.loseConnection() does, but now, if nothing is queued; tell whether it is done."""
    if _has_nothing_queued(sock):
        sock.connectionLost(_DONE)  # as the reactor does when it finds that a connection has ended
        return True
    return False


def _has_nothing_queued(sock: IClientTransport) -> TypeGuard[Connection]:
    # Twisted has no public way to ask whether anything is queued: dataBuffer is half of it.
    return isinstance(sock, Connection) and not (sock.dataBuffer or sock._tempDataBuffer)
