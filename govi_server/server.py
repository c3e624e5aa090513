"""The server: accepts connections, and keeps the promise that no client waits longer than 13 seconds."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, cast

from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    INegotiated,
    IProtocolNegotiationFactory,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from zope.interface import implementer

from govi_server.http.caching.request_memo import RequestMemo
from govi_server.http.client_limits import UNLIMITED, Client, ClientLimits
from govi_server.http.request import Environ
from govi_server.http.response import Headers, format_response, pairs
from govi_server.settings import ServerSettings
from govi_server.sockets import transport as at_once
from govi_server.sockets.accepting import AcceptThrottle
from govi_server.sockets.transport import IClientTransport
from govi_server.statistics.records import End

if TYPE_CHECKING:
    from govi_server.request_handler import RequestHandler

LINGER = 2.0
"""Seconds that a client has to take the last answer and close, before the connection is aborted."""

MOST_LOOKED_AT = 100
"""Connections among which room is looked for, when none idles after an answer."""

RETRY_AFTER = "5"
"""Seconds after which who was refused a connection may try again."""

REPORT_EVERY = 60.0
"""Seconds after which the statistics of a connection that is still open are written."""


class TimeoutHandler:
    """A deadline of the same length for many connections: what expires is handed over, oldest first.

    As all deadlines are equally long, the order in which they were set is the order in which they expire: one
    dictionary and one callLater serve them all. (An OrderedDict: to take the first out of a plain dict again and
    again takes quadratic time.)
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, limit: float, expire: "Callable[[Connection], None]") -> None:
        self._clock = clock
        self._limit = limit
        self._expire = expire
        self._since: OrderedDict[Connection, float] = OrderedDict()
        self._call: IDelayedCall | None = None
        self._latest = 0.0

    def start(self, connection: "Connection") -> None:
        """Set a connection's deadline, counted from now."""
        since, now = self._since, self._clock.seconds()
        since[connection] = now
        since.move_to_end(connection)
        if self._call is None:
            self._call = self._clock.callLater(self._limit, self._look)
        elif now < self._latest and self._call.active() and self._call.getTime() - now > self._limit:
            self._call.reset(self._limit)  # the clock was set back
        self._latest = now

    def stop(self, connection: "Connection") -> None:
        """Lift a connection's deadline, if it has one."""
        self._since.pop(connection, None)

    def __iter__(self) -> "Iterator[Connection]":
        """Go through the connections that have a deadline, the nearest first."""
        return iter(self._since)

    def cancel(self) -> None:
        """Lift all deadlines."""
        self._since.clear()
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _look(self) -> None:
        """Hand over what has expired, and look again when the next one may."""
        now = self._clock.seconds()
        while self._since:
            connection, since = next(iter(self._since.items()))
            remaining = since + self._limit - now
            # More than the limit and a second for rounding: the clock was set back, and its time is over, too.
            if 0 < remaining < self._limit + 1:
                self._call = self._clock.callLater(remaining, self._look)
                return
            del self._since[connection]
            try:
                self._expire(connection)
            except Exception:
                self.log.failure("A deadline failed")  # and the others are looked at all the same
        self._call = None


class Connection:
    """The connection between the server and one client: what its deadlines act on.

    sock: its transport. handler: what speaks HTTP on it.
    """

    __slots__ = ("_client", "closing", "deadline", "handler", "sock")

    def __init__(self, sock: IClientTransport, handler: "RequestHandler") -> None:
        self.sock = sock
        self.handler = handler
        self.deadline: TimeoutHandler | None = None
        """The deadline that it has: one at a time, or none."""
        # Where something is between, such as haproxy, it is not known yet.
        self._client = handler.accepted_from if isinstance(sock, tcp.Connection) else None
        self.closing: End | None = None
        """Who ended it, once somebody on this side has."""

    @property
    def addr(self) -> IAddress:
        """The client's address, which behind haproxy is known when its header has come."""
        return self.sock.getPeer()

    @property
    def client(self) -> Client:
        """Whom its requests are from, unless proxies tell otherwise."""
        if self._client is None:
            self._client = self.handler.server.access.peer(self.addr)
        return self._client

    def disconnect(self) -> None:
        """End it because its time is over: send '406 Gateway timeout' and close.

        Who is in the middle of an answer and does not take it is dropped.
        """
        if self.closing is None and self.handler.handle_timeout():
            self.close("timeout")
        else:
            self.closing = self.closing or "timeout"
            self.abort()

    def close(self, end: End = "server", nothing_follows: bool = False) -> None:
        """Close it politely: what was written is sent, then the client has two seconds to close its side.

        Closing both sides at once would make the kernel throw the answer away when bytes of the client are still
        unread (RFC 9112 section 9.6). It is done where nothing follows from the client: then it saves a third of what
        the connection costs.
        """
        self.closing = end
        if nothing_follows and at_once.close_now(self.sock):
            return
        self.handler.handle_closing()
        self.handler.server.closing(self)
        self.sock.unregisterProducer()
        if ITCPTransport.providedBy(self.sock) and not INegotiated.providedBy(self.sock):
            self.sock.loseWriteConnection()
        else:  # TLS says goodbye in its own way
            self.sock.loseConnection()

    def drop(self) -> None:
        """Close it at once, with nothing of an answer under way, to make room for another."""
        server = self.handler.server
        if self.closing is not None:
            server.set_deadline(self, None)
            self.abort()
            return
        self.closing = "server"
        server.reports.stop(self)
        server.set_deadline(self, server.drop_timeout)
        self.sock.unregisterProducer()
        self.sock.loseConnection()

    def abort(self) -> None:
        """Drop it, with whatever was not sent."""
        self.sock.abortConnection()


class RejectConnection(Protocol):
    """Says in a few words why a connection is not taken, and closes it."""

    def __init__(self, server: "Server", status: str, text: str) -> None:
        headers = (("Content-Type", "text/plain; charset=utf-8"), ("Retry-After", RETRY_AFTER), *server.headers)
        self._answer = format_response(status, headers, text.encode(), now=server.clock.seconds(), connection="close")

    def connectionMade(self) -> None:
        """Say it; not over TLS, whose handshake a client could hold open for ever."""
        sock = cast(IClientTransport, self.transport)
        if INegotiated.providedBy(sock):
            sock.abortConnection()
        else:
            sock.write(self._answer)
            sock.loseConnection()


@implementer(IProtocolNegotiationFactory)
class Server(ServerFactory["RequestHandler"]):
    """Accepts connections and gives each its handler.

    host, port: where it listens; '' and 0 where its endpoints say so. request_handler: makes the handler of a
    connection from the server and a transport. clock: tells and schedules all time. find_module: gives the module of
    a path's first segment, or raises KeyError, as MultiService.getServiceNamed does. headers: sent with every
    answer. access: who may connect and how often they may ask; by default all may as they like. name: what
    logs call it by. observer: what is told of the statistics of its connections, by default the log.
    """

    noisy = False
    log = Logger()

    def __init__(
        self,
        host: str,
        port: int,
        request_handler: "Callable[[Server, IClientTransport | None], RequestHandler]",
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
        self.repeats = RequestMemo()
        self.draining = False
        self.connections: dict[RequestHandler, Connection] = {}
        self.deadlines = TimeoutHandler(clock, limits.connection, Connection.disconnect)
        self.idle = TimeoutHandler(clock, limits.keep_alive, Connection.close)
        self.linger_timeout = TimeoutHandler(clock, LINGER, Connection.abort)
        self.drop_timeout = TimeoutHandler(clock, LINGER, Connection.abort)
        self.reports = TimeoutHandler(clock, REPORT_EVERY, self._report)
        self.streams: set[Connection] = set()
        """The connections whose answers go on, without a deadline."""
        self._drained: Deferred[None] | None = None
        self._drain_limit: IDelayedCall | None = None

    def logPrefix(self) -> str:
        """Say what listens, in Twisted's own log lines."""
        return self.name

    # A factory of handlers that now and then makes a Refusal: Twisted takes any protocol.
    def buildProtocol(self, addr: IAddress | None) -> "RequestHandler | RejectConnection":  # type: ignore[override]
        """Give a connection that Twisted accepted its handler, or a refusal to one that is too much."""
        self.accepting.look()
        client = self.access.peer(addr)
        if not self.access.acquire_connection(client):
            refusal = RejectConnection(self, "429 Too Many Requests", "Too many connections from your address\n")
        elif not self._has_room():
            refusal = RejectConnection(self, "503 Service Unavailable", "Too many connections\n")
        else:
            return self.handle_accept(client)
        self.access.release_connection(client)
        return refusal

    def _has_room(self) -> bool:
        """Tell whether there is room for one more connection, if need be that of another.

        First goes who has had the last answer and lingers, then who idles after one, then who has never sent a
        whole request; of each the one that has done so longest.
        """
        if len(self.connections) < self.access.limits.connections:
            return True
        unfinished = (c for c in islice(self.deadlines, MOST_LOOKED_AT) if c.handler.receiving)
        for connection in chain(self.linger_timeout, self.idle, unfinished):
            connection.drop()
            return True
        return False

    def client(self, connection: Connection, env: Environ) -> Client:
        """Tell whom a request is from."""
        if self.access.is_forwarded(env):
            return self.access.client(connection.addr, env)
        return connection.client

    def acceptableProtocols(self) -> list[bytes]:
        """Name what is spoken here to a TLS client that asks (RFC 7301): without an answer it would be refused."""
        return [b"http/1.1"]

    def handle_accept(self, client: Client) -> "RequestHandler":
        """Make the handler of an accepted connection."""
        handler = self.request_handler(self, None)
        handler.accepted_from = client
        return handler

    def drain(self) -> Deferred[None]:
        """Let what is in flight be answered and close everything else; fires when no connection is left.

        What has not ended within the limit is disconnected like any request whose time is over.
        """
        self.draining = True
        self._drained = drained = Deferred[None]()
        for connection in list(self.connections.values()):
            if connection.closing is None and connection.handler.idle:
                connection.close()
            elif connection in self.streams:
                connection.handler.end_stream()
        if self.connections:
            in_flight = sum(connection.closing is None for connection in self.connections.values())
            if in_flight:
                self.log.info("{what}: requests in flight: {n}", what=self.name, n=in_flight)
            self._drain_limit = self.clock.callLater(self.limits.drain, self._disconnect_all)
        else:
            self._end()
        return drained

    def _disconnect_all(self) -> None:
        self._drain_limit = None
        for connection in list(self.connections.values()):
            connection.disconnect()

    def _end(self) -> None:
        for deadline in (self.deadlines, self.idle, self.linger_timeout, self.drop_timeout, self.reports):
            deadline.cancel()
        if self._drain_limit is not None:
            self._drain_limit.cancel()
        if self._drained is not None:
            self._drained.callback(None)
            self._drained = None

    def opened(self, handler: "RequestHandler", sock: IClientTransport) -> Connection:
        """Take note of a connection whose first request begins now."""
        self.connections[handler] = connection = Connection(sock, handler)
        self.set_deadline(connection, self.deadlines)
        self.reports.start(connection)
        return connection

    def set_deadline(self, connection: Connection, deadline: TimeoutHandler | None) -> None:
        """Give a connection a deadline, counted from now, or none, in the place of the one that it has."""
        if connection.deadline is not deadline and connection.deadline is not None:
            connection.deadline.stop(connection)
        connection.deadline = deadline
        if deadline is not None:
            deadline.start(connection)

    def streaming(self, connection: Connection) -> None:
        """Let a connection's answer go on for as long as it likes."""
        self.set_deadline(connection, None)
        self.streams.add(connection)

    def closing(self, connection: Connection) -> None:
        """Give a connection that was closed on this side the time to take its last answer."""
        self.streams.discard(connection)
        self.reports.stop(connection)
        self.set_deadline(connection, self.linger_timeout)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        del self.connections[connection.handler]
        self.streams.discard(connection)
        self.access.release_connection(connection.handler.accepted_from)
        self.reports.stop(connection)
        self.set_deadline(connection, None)
        if self._drained is not None and not self.connections:
            self._end()

    def _report(self, connection: Connection) -> None:
        connection.handler.record.flush("open")
        self.reports.start(connection)
