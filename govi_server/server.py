"""The server: accepts connections, and ends every request within 13 seconds."""

from collections.abc import Callable
from itertools import chain, islice
from typing import Protocol, cast

from twisted.internet import protocol, tcp
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    INegotiated,
    IProtocolNegotiationFactory,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.http.caching.request_memo import RequestMemo
from govi_server.http.client_limits import UNLIMITED, Client, ClientLimits
from govi_server.http.request import Environ
from govi_server.http.response import Headers, format_response, pairs
from govi_server.http.state import TABLE, Deadline, Lifecycle, State
from govi_server.http.timeouts import TimeoutHandler
from govi_server.settings import ServerSettings
from govi_server.sockets.accepting import AcceptThrottle
from govi_server.sockets.transport import IClientTransport, close_now
from govi_server.statistics.records import ConnectionRecorder, End

LINGER_SECONDS = 2.0
"""For a client to read the last response and close, before the connection is aborted."""

MAX_EVICTION_CANDIDATES = 100
"""Connections that are searched for an unfinished request to drop, when no connection is idle."""

RETRY_AFTER_SECONDS = "5"
"""In the response to a rejected connection."""

REPORT_INTERVAL = 60.0
"""Seconds after which the statistics of an open connection are published."""


class ConnectionHandler(Protocol):
    """The protocol of one connection, as its Server uses it."""

    accepted_from: Client
    record: ConnectionRecorder

    @property
    def is_streaming(self) -> bool:
        """Whether the current response is a stream."""

    def end_stream(self) -> None:
        """End the current response if it is a stream."""

    def handle_timeout(self) -> bool:
        """Send the 406 of a request that took too long, unless a response was begun; return whether it was sent."""

    def handle_closing(self, previous: State) -> None:
        """End the current request; the connection has just left its previous state for an ending one."""

    def makeConnection(self, transport: IClientTransport) -> None:
        """Begin: the transport is connected."""

    def dataReceived(self, data: bytes) -> None:
        """Receive bytes."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End: the transport is closed."""


class Connection(Lifecycle):
    """The connection between the server and one client: what its deadlines act on.

    sock: its transport. handler: its protocol.
    """

    __slots__ = ("_client", "_server", "end", "handler", "sock")

    def __init__(self, sock: IClientTransport, handler: ConnectionHandler, server: "Server") -> None:
        super().__init__(server.state_timeouts)
        self.sock = sock
        self.handler = handler
        self._server = server
        # Behind haproxy the client is unknown until the PROXY header was received.
        self._client = handler.accepted_from if isinstance(sock, tcp.Connection) else None
        self.end: End | None = None
        """The side or event that ended it; None while it is open."""

    @property
    def addr(self) -> IAddress:
        """The client's address, which behind haproxy is known when its header was received."""
        return self.sock.getPeer()

    @property
    def client(self) -> Client:
        """The client of its requests, unless a proxy forwards them."""
        if self._client is None:
            self._client = self._server.access.peer(self.addr)
        return self._client

    def disconnect(self) -> None:
        """End it because a deadline has passed: send '406 Gateway timeout' and close, or abort amid a response."""
        if self.handler.handle_timeout():
            self.close("timeout")
        else:
            self.abort("timeout")

    def close(self, end: End = "server", nothing_follows: bool = False) -> None:
        """Close it politely: what was written is sent, then the client has two seconds to close its side.

        If both sides were closed at once, the kernel would discard the response when bytes of the client are still
        unread (RFC 9112 section 9.6). nothing_follows: the client sends nothing more, so they are closed at once,
        which saves a third of the cost of a connection.
        """
        self.end = self.end or end
        if nothing_follows and close_now(self.sock):
            return
        self._leave(State.LINGERING, end)
        self.sock.resumeProducing()
        self.sock.unregisterProducer()
        if ITCPTransport.providedBy(self.sock) and not INegotiated.providedBy(self.sock):
            self.sock.loseWriteConnection()
        else:  # TLS closes with an alert of its own
            self.sock.loseConnection()

    def drop(self) -> None:
        """Close an idle connection without a response, or abort a lingering one, to make room for another."""
        if self.is_ending:
            self.abort()
            return
        self._leave(State.CLOSING, "server")
        self.sock.unregisterProducer()
        self.sock.loseConnection()

    def abort(self, end: End = "server") -> None:
        """Close it at once; what was not sent is discarded."""
        if self.state is not State.CLOSED:
            self._leave(State.CLOSED, end)
        self.sock.abortConnection()

    def lost(self, end: End) -> None:
        """Forget it: its transport is closed."""
        if self.state is not State.CLOSED:
            self._leave(State.CLOSED, end)
        self._server.closed(self)

    def _leave(self, state: State, end: End) -> None:
        """Enter an ending state: serve no more requests."""
        self.end = self.end or end
        previous = self.state
        self.enter(state)
        self._server.reports.stop(self)
        self.handler.handle_closing(previous)


class RejectConnection(protocol.Protocol):
    """Rejects a connection: sends a short response and closes."""

    def __init__(self, server: "Server", status: str, text: str) -> None:
        headers = {"Content-Type": "text/plain; charset=utf-8", "Retry-After": RETRY_AFTER_SECONDS}
        self._response = format_response(
            status, [*headers.items(), *server.headers], text.encode(), now=server.clock.seconds(), connection="close"
        )

    def connectionMade(self) -> None:
        """Send the response; over TLS abort instead, since a client could keep its handshake open for ever."""
        sock = cast(IClientTransport, self.transport)
        if INegotiated.providedBy(sock):
            sock.abortConnection()
        else:
            sock.write(self._response)
            sock.loseConnection()


@implementer(IProtocolNegotiationFactory)
class Server(ServerFactory[ConnectionHandler]):  # type: ignore[type-var]  # Twisted only calls IProtocol's methods
    """Accepts connections and makes their handlers.

    host, port: where it listens; '' and 0 if its endpoints determine that. request_handler: makes the handler of a
    connection from the server and a transport. clock: the source of all times and delayed calls. find_module: returns
    the module of a path's first segment, or raises KeyError, as MultiService.getServiceNamed does. headers: sent with
    every response. access: the limits of clients, by default none. name: its name in log lines and statistics.
    observer: receives the statistics of its connections as log events, by default the log.
    """

    noisy = False
    log = Logger()

    def __init__(
        self,
        host: str,
        port: int,
        request_handler: "Callable[[Server, IClientTransport | None], ConnectionHandler]",
        *,
        clock: IReactorTime,
        find_module: Callable[[str], object],
        limits: ServerSettings = ServerSettings(),
        headers: Headers = (),
        access: ClientLimits | None = None,
        name: str = "govi-cache",
        observer: ILogObserver = globalLogPublisher,
    ) -> None:
        self.host = host
        self.port = port
        self.request_handler = request_handler
        self.clock = clock
        self.find_module = find_module
        self.limits = limits
        self.headers = tuple(pairs(headers))
        self.name = name
        self.access = access or ClientLimits(clock, UNLIMITED)
        self.observer = observer
        self.accepting = AcceptThrottle(clock, name)
        self.request_memo = RequestMemo()
        self.draining = False
        self.connections: dict[ConnectionHandler, Connection] = {}
        self.timeouts = {
            Deadline.CONNECTION: TimeoutHandler(clock, limits.connection, Connection.disconnect),
            Deadline.KEEP_ALIVE: TimeoutHandler(clock, limits.keep_alive, Connection.close),
            Deadline.LINGER: TimeoutHandler(clock, LINGER_SECONDS, Connection.abort),
            Deadline.CLOSE: TimeoutHandler(clock, LINGER_SECONDS, Connection.abort),
        }
        self.state_timeouts = {
            state: None if rule.deadline is None else self.timeouts[rule.deadline] for state, rule in TABLE.items()
        }
        self.reports = TimeoutHandler(clock, REPORT_INTERVAL, self._report)
        self._drained: Deferred[None] | None = None
        self._drain_limit: IDelayedCall | None = None

    def logPrefix(self) -> str:
        """Return the name for Twisted's own log lines."""
        return self.name

    # Twisted accepts any protocol, such as a RejectConnection.
    def buildProtocol(self, addr: IAddress | None) -> ConnectionHandler | RejectConnection:  # type: ignore[override]
        """Return the handler of an accepted connection, or the rejection of one that exceeds a limit."""
        self.accepting.check()
        client = self.access.peer(addr)
        if not self.access.acquire_connection(client):
            rejection = RejectConnection(self, "429 Too Many Requests", "Too many connections from your address\n")
        elif not self._has_room():
            rejection = RejectConnection(self, "503 Service Unavailable", "Too many connections\n")
        else:
            return self.handle_accept(client)
        self.access.release_connection(client)
        return rejection

    def _has_room(self) -> bool:
        """Return whether there is room for another connection, after dropping one if necessary.

        Lingering connections are dropped first, then idle ones, then those without a whole request: of each kind the
        one that has been in its state longest.
        """
        if len(self.connections) < self.access.limits.connections:
            return True
        unfinished = (
            connection
            for connection in islice(self.timeouts[Deadline.CONNECTION], MAX_EVICTION_CANDIDATES)
            if connection.state in (State.NEW, State.RECEIVING)
        )
        for connection in chain(self.timeouts[Deadline.LINGER], self.timeouts[Deadline.KEEP_ALIVE], unfinished):
            connection.drop()
            return True
        return False

    @property
    def streams(self) -> int:
        """The number of connections whose response is a stream."""
        return sum(handler.is_streaming for handler in self.connections)

    def client(self, connection: Connection, env: Environ) -> Client:
        """Return the client of a request."""
        if self.access.is_forwarded(env):
            return self.access.client(connection.addr, env)
        return connection.client

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols for TLS clients that send ALPN (RFC 7301): without a common one they fail."""
        return [b"http/1.1"]

    def handle_accept(self, client: Client) -> ConnectionHandler:
        """Make the handler of an accepted connection."""
        handler = self.request_handler(self, None)
        handler.accepted_from = client
        return handler

    def drain(self) -> Deferred[None]:
        """Finish the requests in flight and close all connections; return a Deferred that fires afterwards.

        Requests that have not ended within the limit are disconnected like any that took too long.
        """
        self.draining = True
        self._drained = drained = Deferred[None]()
        for connection in list(self.connections.values()):
            if connection.state in (State.NEW, State.IDLE):
                connection.close()
            else:
                connection.handler.end_stream()
        if self.connections:
            requests = sum(not connection.is_ending for connection in self.connections.values())
            if requests:
                self.log.info("{name}: draining {n} requests", name=self.name, n=requests)
            self._drain_limit = self.clock.callLater(self.limits.drain, self._disconnect_all)
        else:
            self._end()
        return drained

    def _disconnect_all(self) -> None:
        self._drain_limit = None
        for connection in list(self.connections.values()):
            connection.disconnect()

    def _end(self) -> None:
        for timeout in (*self.timeouts.values(), self.reports):
            timeout.cancel()
        if self._drain_limit is not None:
            self._drain_limit.cancel()
        if self._drained is not None:
            self._drained.callback(None)
            self._drained = None

    def opened(self, handler: ConnectionHandler, sock: IClientTransport) -> Connection:
        """Add a connection; the deadline of its first request runs from now."""
        self.connections[handler] = connection = Connection(sock, handler, self)
        self.reports.start(connection)
        return connection

    def closed(self, connection: Connection) -> None:
        """Remove a connection."""
        del self.connections[connection.handler]
        self.access.release_connection(connection.handler.accepted_from)
        if self._drained is not None and not self.connections:
            self._end()

    def _report(self, connection: Connection) -> None:
        connection.handler.record.flush("open")
        self.reports.start(connection)
