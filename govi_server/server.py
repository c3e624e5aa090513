"""The server: accepts connections, and ends every request within 13 seconds."""

from collections.abc import Callable
from itertools import chain, islice
from typing import cast

from msgspec import Struct
from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    INegotiated,
    IProtocolNegotiationFactory,
    IReactorTime,
)
from twisted.internet.protocol import ServerFactory
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from zope.interface import implementer

from govi_server.http.caching.request_memo import RequestMemo
from govi_server.http.client_limits import UNLIMITED, Client, ClientLimits
from govi_server.http.connection import LINGER_SECONDS, Connection, ConnectionHandler
from govi_server.http.error_responses import ErrorFormats
from govi_server.http.request import Environ
from govi_server.http.response import RETRY_AFTER, Headers, format_response, pairs
from govi_server.http.state import TABLE, Deadline, State, TimeoutHandler
from govi_server.http.turns import Turns
from govi_server.http.unfinished import UnfinishedRequests
from govi_server.runtime.text import pluralize
from govi_server.settings import ServerSettings
from govi_server.sockets.accepting import AcceptThrottle
from govi_server.sockets.transport import IClientTransport
from govi_server.statistics.records import MAX_RECORDS, MAX_REQUESTS, MIN_REQUESTS

DRAIN_GRACE_SECONDS = 1.0
"""Time at shutdown for a request that is on its way, before a connection without a request is closed."""

MAX_EVICTION_CANDIDATES = 100
"""Connections that are searched for an incomplete request to drop if no connection is idle."""

REPORT_INTERVAL = 60.0
"""Seconds after which the statistics of an open connection are published."""


class ServerFigures(Struct, array_like=True):
    """The current figures of a server, or of several together."""

    connections: int = 0
    """Open connections."""
    limit: int = 0
    """Their maximum."""
    streams: int = 0
    """Connections whose response is a stream."""
    unfinished_bytes: int = 0
    """Bytes of unfinished requests."""
    rejected: int = 0
    """Requests that were rejected because all unfinished ones held too much."""
    paused: bool = False
    """Whether accepting is paused because files are scarce."""

    def __add__(self, other: "ServerFigures") -> "ServerFigures":
        return ServerFigures(
            self.connections + other.connections,
            self.limit + other.limit,
            self.streams + other.streams,
            self.unfinished_bytes + other.unfinished_bytes,
            self.rejected + other.rejected,
            self.paused or other.paused,
        )


class RejectConnection(protocol.Protocol):
    """Rejects a connection: sends a short response and closes."""

    def __init__(self, server: "Server", status: str, text: str) -> None:
        fields = [("Content-Type", "text/plain; charset=utf-8"), RETRY_AFTER]
        self._response = format_response(
            status, [*fields, *server.headers], text.encode(), now=server.clock.seconds(), connection="close"
        )

    def connectionMade(self) -> None:
        """Send the response and close; over TLS abort, since a client could stall the handshake forever."""
        sock = cast(IClientTransport, self.transport)
        if INegotiated.providedBy(sock):
            sock.abortConnection()
        else:
            sock.write(self._response)
            sock.loseConnection()


@implementer(IProtocolNegotiationFactory)
class Server(ServerFactory[ConnectionHandler]):  # type: ignore[type-var]  # Twisted only calls methods of IProtocol
    """Accepts connections and creates their handlers.

    host, port: the address to listen on; '' and 0 if endpoints determine it. request_handler: creates the handler of
    a connection from the server and a transport. clock: the source of all times and delayed calls. find_module:
    returns the module for a path's first segment, or raises KeyError, as MultiService.getServiceNamed does. headers:
    header fields of every response. access: the limits of clients, none by default. name: the name in log lines and
    statistics. observer: receives the statistics of connections as log events; the global log by default. unfinished:
    bounds the unfinished requests, also of other servers; only of this one by default. errors: their formats for
    clients; only text by default.
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
        unfinished: UnfinishedRequests | None = None,
        errors: ErrorFormats | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.request_handler = request_handler
        self.clock = clock
        self.find_module = find_module
        self.limits = limits
        self.headers = tuple(pairs(headers))
        self.errors = errors
        self.name = name
        self.access = access or ClientLimits(clock, UNLIMITED)
        self.observer = observer
        self.unfinished = unfinished or UnfinishedRequests(clock, limits.unfinished, self.access.limits.connections)
        self.accepting = AcceptThrottle(clock, name)
        self.request_memo = RequestMemo()
        # It stores no requests that proxies forward: with other proxies, these are others.
        self.access.changed = lambda: self.request_memo.clear()
        self.turns = Turns(clock)
        self.draining = False
        self.connections: dict[ConnectionHandler, Connection] = {}
        self.max_records = MAX_REQUESTS
        self.timeouts = {
            Deadline.REQUEST: TimeoutHandler(clock, limits.connection, Connection.disconnect),
            Deadline.KEEP_ALIVE: TimeoutHandler(clock, limits.keep_alive, Connection.close),
            Deadline.LINGER: TimeoutHandler(clock, LINGER_SECONDS, Connection.abort),
            Deadline.CLOSE: TimeoutHandler(clock, LINGER_SECONDS, Connection.abort),
        }
        self.state_timeouts = {
            state: None if rule.deadline is None else self.timeouts[rule.deadline] for state, rule in TABLE.items()
        }
        self.reports = TimeoutHandler(clock, REPORT_INTERVAL, self._report)
        self._drained: Deferred[None] | None = None
        grace = min(DRAIN_GRACE_SECONDS, limits.drain)
        # From the start of draining: deadlines of connections, so that no turn of the reactor ends all of them.
        self._drain_timeouts = (
            TimeoutHandler(clock, 0.0, _end_stream),
            TimeoutHandler(clock, grace, _close_idle),
            TimeoutHandler(clock, limits.drain, Connection.disconnect),
        )

    def logPrefix(self) -> str:
        """Return the name in Twisted's own log lines."""
        return self.name

    # Twisted accepts any protocol, including RejectConnection.
    def buildProtocol(self, addr: IAddress | None) -> ConnectionHandler | RejectConnection:  # type: ignore[override]
        """Return the handler of an accepted connection, or a RejectConnection if it exceeds a limit."""
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
        """Return whether another connection fits the limit, and open files, after dropping one if necessary.

        Lingering connections are dropped first, then idle ones, then those whose request is incomplete; of each kind,
        the connection that has been in its state longest.
        """
        fits = len(self.connections) < self.access.limits.connections
        if fits and not self.accepting.scarce:
            return True
        incomplete = (
            connection
            for connection in islice(self.timeouts[Deadline.REQUEST], MAX_EVICTION_CANDIDATES)
            if connection.state in (State.NEW, State.RECEIVING, State.DISCARDING)
        )
        for connection in chain(self.timeouts[Deadline.LINGER], self.timeouts[Deadline.KEEP_ALIVE], incomplete):
            connection.drop()
            return True
        return fits

    @property
    def streams(self) -> int:
        """The number of connections whose response is a stream."""
        return sum(handler.is_streaming for handler in self.connections)

    def figures(self) -> ServerFigures:
        """Return the current figures."""
        return ServerFigures(
            len(self.connections),
            self.access.limits.connections,
            self.streams,
            self.unfinished.bytes,
            self.unfinished.incidents.counts["unfinished"],
            self.accepting.paused,
        )

    def client(self, connection: Connection, env: Environ) -> Client:
        """Return the client of a request."""
        if self.access.is_forwarded(env):
            return self.access.client(connection.addr, env)
        return connection.client

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols for ALPN (RFC 7301), without which TLS clients that use it would fail."""
        return [b"http/1.1"]

    def handle_accept(self, client: Client) -> ConnectionHandler:
        """Return a new handler for an accepted connection."""
        handler = self.request_handler(self, None)
        handler.accepted_from = client
        return handler

    def drain(self) -> Deferred[None]:
        """Finish the requests in flight and close all connections; return a Deferred that fires afterwards.

        Connections without a request are closed after a short time, in which a request on its way still arrives.
        Requests that exceed limits.drain are disconnected in the same way as requests past their deadline.
        """
        self.draining = True
        self._drained = drained = Deferred[None]()
        connections = list(self.connections.values())
        for connection in connections:
            self._start_draining(connection)
        requests = sum(not (connection.is_ending or connection.is_idle) for connection in connections)
        if requests:
            self.log.info("{name}: draining {requests}", name=self.name, requests=pluralize(requests, "request"))
        if not connections:
            self._end()
        return drained

    def _start_draining(self, connection: Connection) -> None:
        for timeout in self._drain_timeouts:
            timeout.start(connection)

    def _end(self) -> None:
        for timeout in (*self.timeouts.values(), self.reports, *self._drain_timeouts):
            timeout.cancel()
        if self._drained is not None:
            self._drained.callback(None)
            self._drained = None

    def opened(self, handler: ConnectionHandler, sock: IClientTransport) -> Connection:
        """Add a connection and start the deadline of its first request."""
        self.connections[handler] = connection = Connection(sock, handler, self)
        self._set_max_records()
        self.reports.start(connection)
        if self._drained is not None:
            self._start_draining(connection)
        return connection

    def closed(self, connection: Connection) -> None:
        """Remove a connection."""
        del self.connections[connection.handler]
        self._set_max_records()
        self.access.release_connection(connection.handler.accepted_from)
        if self._drained is not None:
            for timeout in self._drain_timeouts:
                timeout.stop(connection)
            if not self.connections:
                self._end()

    def _set_max_records(self) -> None:
        self.max_records = min(max(MAX_RECORDS // (len(self.connections) or 1), MIN_REQUESTS), MAX_REQUESTS)

    def _report(self, connection: Connection) -> None:
        connection.handler.record.flush("open")
        self.reports.start(connection)


def _end_stream(connection: Connection) -> None:
    """End what has no end of its own: a stream, or the discarding of a body."""
    if connection.state is State.DISCARDING:
        connection.close()
    else:
        connection.handler.end_stream()


def _close_idle(connection: Connection) -> None:
    if connection.is_idle:
        connection.close()
