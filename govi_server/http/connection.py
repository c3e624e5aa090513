"""The connection to one client: its state, its deadline, and its end."""

from collections.abc import Mapping
from typing import Any, Protocol

from twisted.internet import tcp
from twisted.internet.interfaces import IAddress, INegotiated, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from govi_server.http.client_limits import Client, ClientLimits
from govi_server.http.state import Lifecycle, State, TimeoutHandler
from govi_server.http.unfinished import UnfinishedRequests
from govi_server.sockets.transport import IClientTransport, close_now
from govi_server.statistics.records import ConnectionRecorder, End

LINGER_SECONDS = 2.0
"""Time for a client to read the last response and close, before the connection is aborted."""


TLS_BYTES = 40 << 10
"""Memory of a TLS connection in OpenSSL, about."""


class ConnectionServer(Protocol):
    """The server of a connection."""

    access: ClientLimits
    unfinished: UnfinishedRequests
    reports: TimeoutHandler[Any]

    @property
    def state_timeouts(self) -> Mapping[State, TimeoutHandler[Any] | None]:
        """The deadline of each state."""

    def closed(self, connection: Any) -> None:
        """Remove a connection."""


class ConnectionHandler(Protocol):
    """The protocol of one connection, as far as its Server uses it."""

    accepted_from: Client
    """The client at the time of accept."""
    record: ConnectionRecorder

    @property
    def is_streaming(self) -> bool:
        """Whether the current response is a stream."""

    def end_stream(self) -> None:
        """End the current response if it is a stream."""

    def handle_timeout(self) -> bool:
        """Send 406 to a request past its deadline unless its response has begun; return whether it was sent."""

    def handle_overload(self) -> bool:
        """Send 503 to a request that holds too much, unless its response has begun; return whether it was sent."""

    def handle_closing(self, previous: State) -> None:
        """End the current request, after the connection has left its previous state for an ending one."""

    def makeConnection(self, transport: IClientTransport) -> None:
        """Begin with a connected transport."""

    def dataReceived(self, data: bytes) -> None:
        """Receive bytes."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End, because the transport is closed."""


class Connection(Lifecycle):
    """The connection to one client: its state, its deadline, and its end.

    sock: its transport. handler: its protocol.
    """

    __slots__ = ("_client", "_held", "_server", "end", "handler", "sock")

    def __init__(self, sock: IClientTransport, handler: ConnectionHandler, server: ConnectionServer) -> None:
        super().__init__(server.state_timeouts)
        self.sock = sock
        self.handler = handler
        self._server = server
        self._held = 0
        # Behind haproxy the client is unknown until the PROXY header has arrived.
        self._client = handler.accepted_from if isinstance(sock, tcp.Connection) else None
        self.end: End | None = None
        """The side or event that ended the connection; None while it is open."""

    @property
    def addr(self) -> IAddress:
        """The client's address; behind haproxy, haproxy's until its header has arrived."""
        return self.sock.getPeer()

    @property
    def client(self) -> Client:
        """The client of the requests, unless a proxy forwards them."""
        if self._client is None:
            self._client = self._server.access.peer(self.addr)
        return self._client

    def disconnect(self) -> None:
        """End the connection after a deadline: send '406 Gateway timeout' and close, or abort during a response."""
        if self.handler.handle_timeout():
            self.close("timeout")
        else:
            self.abort("timeout")

    def hold(self, size: int) -> None:
        """Set the bytes that the connection holds of unfinished requests; it is ended if all hold too many."""
        if size != self._held:
            before, self._held = self._held, size
            self._server.unfinished.change(self, before, size)

    def reject(self) -> None:
        """End the connection because it holds too much: send 503 and close, or abort during a response."""
        if self.handler.handle_overload():
            self.close()
        else:
            self.abort()

    def close(self, end: End = "server", nothing_follows: bool = False) -> None:
        """Close the sending side after all written bytes; the client has LINGER_SECONDS to close the other side.

        If both sides were closed together, the kernel would discard the response if bytes from the client are still
        unread (RFC 9112 section 9.6). nothing_follows: the client sends nothing more, so both sides are closed
        together, which saves a third of the cost of a connection.
        """
        self.end = self.end or end
        if nothing_follows and close_now(self.sock):
            return
        self._leave(State.LINGERING, end)
        self.sock.resumeProducing()
        if ITCPTransport.providedBy(self.sock) and not INegotiated.providedBy(self.sock):
            self.sock.loseWriteConnection()
        else:  # TLS closes with its own alert
            self.sock.loseConnection()

    def drop(self) -> None:
        """Close an idle connection without a response, or abort a lingering one, to make room for another."""
        if self.is_ending:
            self.abort()
            return
        self._leave(State.CLOSING, "server")
        self.sock.loseConnection()

    def abort(self, end: End = "server") -> None:
        """Close the connection immediately and discard unsent bytes."""
        if self.state is not State.CLOSED:
            self._leave(State.CLOSED, end)
        self.sock.abortConnection()

    def lost(self, end: End) -> None:
        """Remove the connection, whose transport is closed, and break its reference cycles.

        Otherwise the garbage collector would free what the client has sent, much later.
        """
        if self.state is not State.CLOSED:
            self._leave(State.CLOSED, end)
        self._server.closed(self)
        if INegotiated.providedBy(self.sock):
            self._server.unfinished.freed.add(TLS_BYTES)
        del self.handler

    def _leave(self, state: State, end: End) -> None:
        """Enter an ending state, in which no more requests are served."""
        self.end = self.end or end
        previous, was_ending = self.state, self.is_ending
        self.enter(state)
        if not was_ending:
            self.sock.unregisterProducer()  # a TLS transport would still refer to it
        self._server.reports.stop(self)
        self.handler.handle_closing(previous)
        self.hold(0)
