"""The protocol of an HTTP/1.1 connection, whose requests URL modules process one at a time and in order.

Longer than other modules: the fast path of cached responses stands beside the slow one, to which it must be equal.
"""

from collections.abc import Callable
from math import ceil
from typing import cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, INegotiated
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from govi_server.http.caching.conditional import conditions
from govi_server.http.caching.request_memo import MemoEntry
from govi_server.http.client_limits import Client
from govi_server.http.connection import Connection
from govi_server.http.cors import is_preflight
from govi_server.http.flow_control import FlowControl
from govi_server.http.parameters import InvalidParameter
from govi_server.http.request import Environ, RequestError
from govi_server.http.response import NO_STORE
from govi_server.http.sender import connection_field
from govi_server.http.state import State
from govi_server.runtime.cooperative import current_work
from govi_server.runtime.failures import release
from govi_server.server import Server
from govi_server.sockets.proxy_protocol import ProxyProtocol
from govi_server.sockets.transport import IClientTransport, write_some
from govi_server.statistics.records import MAX_PATH, ConnectionRecorder
from govi_server.web_handler import (
    CacheableHandler,
    ICacheableModule,
    IWebModule,
    TooManyRequests,
    WebHandler,
)

# The request methods that a module may implement, with the corresponding method of WebHandler.
_HANDLER_METHODS = {"GET": "get", "HEAD": "head", "POST": "post"}
_KNOWN_METHODS = frozenset(_HANDLER_METHODS) | {"PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}

MAX_REQUESTS_IN_TURN = 4
"""Pipelined requests that are processed before other connections are served."""

MAX_DISCARDED_BYTES = 4 << 20
"""Bytes that a lingering connection may still receive before it is aborted."""

_log = Logger()  # not an attribute, so that log events do not refer to a connection

# For speed: the metaclass of Enum makes State.IDLE a slow look-up.
_NEW, _IDLE = State.NEW, State.IDLE


class RequestHandler(FlowControl):
    """Receives requests, routes them to modules, and sends the responses.

    As its transport's producer, it is paused while the client does not read its responses.
    """

    server: Server
    connection: Connection
    accepted_from: Client
    """The client at the time of accept, which behind haproxy is haproxy."""

    def __init__(self, server: Server, sock: IClientTransport | None) -> None:
        super().__init__()
        self.server = server
        self.sock = cast(IClientTransport, sock)  # None until connectionMade()
        self._requests_in_turn = 0
        self._discarded_bytes = 0
        self._is_charged = False
        """Whether the client was charged for the current request before it was parsed."""
        self._header_section: bytes | None = None
        """The received bytes, if they may be exactly the header section of the current request."""

    # The connection.

    def connectionMade(self) -> None:
        """Start the deadline of the first request."""
        self.sock = sock = cast(IClientTransport, self.transport)
        self.limits = self.server.limits
        self.record = ConnectionRecorder(self.server, self.accepted_from.name)
        sock.registerProducer(self, True)
        self.connection = self.server.opened(self, sock)

    @property
    def peer(self) -> IAddress:
        """The client's address."""
        return self.connection.addr

    def handle_closing(self, previous: State) -> None:
        """End the current request, after the connection has left its previous state for an ending one."""
        self.abandon_record(previous)
        self.server.turns.remove(self)
        self.clear_buffer()
        if self._processing is not None:
            self._processing.cancel()
        self._header_section = None
        self.next_request()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel this client's wait, if any, and publish the statistics; shared gateway requests continue."""
        self.connection.lost("client" if reason.check(ConnectionDone) else "error")
        self.handle_close()

    def handle_close(self) -> None:
        """Publish the measured phases of a closed connection for the statistics log."""
        self.record.flush(self.connection.end or "client")

    # From bytes to requests.

    def dataReceived(self, data: bytes) -> None:
        """Receive bytes."""
        state = self.connection.state
        if (state is _IDLE or state is _NEW) and not self._buffer and not self._empty_lines:
            if self._respond_from_memo(data):
                return
            self._header_section = data
            self._receive(data)
            self._is_charged = False
            return
        if self.connection.is_ending:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > MAX_DISCARDED_BYTES:
                self.connection.abort()
            return
        self._header_section = None
        self._receive(data)

    def _receive(self, data: bytes) -> None:
        """Parse or buffer bytes."""
        if not self._is_parsing:
            self._requests_in_turn = 0
        super().dataReceived(data)
        if self._is_parsing or self.connection.is_ending:
            return
        self.connection.hold(self.held)
        if self.connection.is_ending:
            return  # all connections together held too much
        if not self.paused:
            if self.read_closed:
                self.connection.close("client")
        elif len(self._buffer) > self.limits.head:
            self.sock.pauseProducing()  # until after the response

    def request_begins(self) -> None:
        """Begin a request unless it has begun."""
        state = self.connection.state
        if state is _IDLE:
            self.record.begin()  # the record of the first request begins with the connection
        if state is _IDLE or state is _NEW:
            self.connection.enter(State.RECEIVING)

    def protocol_error(self, error: RequestError) -> None:
        """Reject a malformed or oversized request, and close the connection."""
        if self.connection.state is State.DISCARDING:
            self.connection.close()  # the response was sent before the rest of the body
            return
        self.keep_alive = False
        self.send_response(f"{error}\n", error.status)
        self.finish_request()

    # From requests to responses.

    def _respond_from_memo(self, header_section: bytes) -> bool:
        """Send the cached response to a header section in the memo; return False if there is none.

        The fast path: equivalent to request_received(), process() and a WebHandler, in this order.
        """
        server, connection, clock = self.server, self.connection, self.server.clock
        if server.draining:
            return False
        client, entry = connection.client, server.request_memo.get(header_section)
        if entry is None or server.access.seconds_to_wait(client.rate_key) > 0:
            return False
        received = clock.seconds()
        response = entry.response(received, server.headers)
        if response is None:
            self._is_charged = True
            return False
        data, exchange = response
        looked_up = clock.seconds()
        unsent = write_some(self.sock, data)
        if unsent:
            self._response_size = len(unsent)
            connection.enter(State.SENDING)
            self.sock.write(unsent)
        is_sent = not unsent or connection.state is State.SENDING
        sent = clock.seconds() if is_sent else None
        self.record.add_known_request(client.name, exchange, received, looked_up, sent)
        self.keep_alive = not entry.closes
        if not is_sent:
            return True  # resumeProducing() finishes the request
        if entry.closes:
            connection.close("server", nothing_follows=True)
        else:
            connection.enter(_IDLE)
        return True

    def store_in_memo(self, respond: Callable[[], object], stop: str) -> None:
        """Store the request in the memo, if its response depends only on the header section."""
        env, header_section = self._env, self._header_section
        if env is None or header_section is None:
            return
        has_precondition = "if-match" in env or "if-unmodified-since" in env  # too rare for the fast path
        if has_precondition or env.is_https or self.server.access.is_forwarded(env):
            return
        method, path, keep_alive = env["request_method"], env["path_info"][:MAX_PATH], env.keeps_alive()
        connection = connection_field(env, keep_alive)
        entry = MemoEntry(method, path, respond, conditions(env), not keep_alive, connection, env.segment, stop)
        self.server.request_memo.store(header_section, entry)

    def request_received(self, env: Environ) -> None:
        """Process a request; bytes that arrive meanwhile are buffered."""
        self.connection.enter(State.PROCESSING)
        if self._buffer or self.has_body:
            self._header_section = None
        self.record.set_client(self.server.client(self.connection, env).name)
        self.keep_alive = env.keeps_alive()
        self._processing = processing = maybeDeferred(self.process, env)
        processing.addErrback(self._failed)
        processing.addCallback(self._processed)

    def process(self, env: Environ) -> Deferred[None]:
        """Route a request to the module for its first path segment; return a Deferred that fires afterwards."""
        method, path = env["request_method"], env["path_info"]
        current_work.set(path[:MAX_PATH])
        if not self._is_charged:
            wait = self.server.access.seconds_to_wait(self.server.client(self.connection, env).rate_key)
            if wait > 0:
                raise TooManyRequests(wait)
        if method not in _KNOWN_METHODS:
            self.send_response("Unknown method\n", "501 Not Implemented")
            return succeed(None)
        if env.is_https and not self._may_be_secure():
            self.mark("lookup")
            self.send_response("https requires a connection with TLS\n", "421 Misdirected Request")
            return succeed(None)
        if method == "CONNECT":
            self.keep_alive = False  # the following bytes may be meant for the host in the target
        if path == "*":  # the entire server
            self.mark("lookup")
            self.send_methods(env, tuple(_HANDLER_METHODS))
            return succeed(None)
        segment = env.segment
        handler = self._handler(segment, env)
        self.mark("lookup")
        if handler is None:
            if is_preflight(env):  # otherwise scripts could not read the 404
                self.send_methods(env, WebHandler.methods)
            else:
                self.send_not_found()
            return succeed(None)
        self.record.set_module(segment)
        if method not in handler.methods:
            self.send_methods(env, handler.methods)
            return succeed(None)
        return Deferred.fromCoroutine(self._handle(handler, method))

    async def _handle(self, handler: WebHandler, method: str) -> None:
        """Call the handler's method. Bodies that no handler reads are not received before the response."""
        if method == "POST" and self.has_body and handler.reads_body():
            received = self.receive_body()
            self.connection.enter(State.RECEIVING)
            await received
        await getattr(handler, _HANDLER_METHODS[method])()

    def _may_be_secure(self) -> bool:
        """Return whether the client may use TLS, here or with a trusted gateway (RFC 9110 section 7.4)."""
        if INegotiated.providedBy(self.sock) or isinstance(self.sock, ProxyProtocol):
            return True
        return self.server.access.is_gateway(self.peer)

    def body_received(self) -> None:
        """Continue with a request whose body was received."""
        self.connection.enter(State.PROCESSING)

    def charge(self, cost: int) -> None:
        """Charge the work of the current request to its client; see web_handler.ResponseSender."""
        if self._env is not None:
            client = self.server.client(self.connection, self._env)
            wait = self.server.access.seconds_to_wait_for_work(client.rate_key, cost)
            if wait > 0:
                raise TooManyRequests(wait)

    def _handler(self, segment: str, env: Environ) -> WebHandler | None:
        """Return the handler of a request to a module; None if no module has this name."""
        try:
            module = self.server.find_module(segment)
        except KeyError:
            return None
        if ICacheableModule.providedBy(module):
            return CacheableHandler(self, env, module)
        return IWebModule(module).web_handler(self, env) if IWebModule.providedBy(module) else None

    def _failed(self, failure: Failure) -> None:
        self._respond_to(failure)
        failure.cleanFailure()
        release(failure.value)  # its traceback refers to this connection

    def _respond_to(self, failure: Failure) -> None:
        """Send 400 for an InvalidParameter, 429 for TooManyRequests; log any other exception and send 500."""
        if self.connection.is_ending and failure.check(CancelledError):
            return  # cancelled by handle_closing()
        has_response = self.connection.state is not State.PROCESSING
        if failure.check(InvalidParameter) and not has_response:
            self.mark("lookup")
            self.send_response(f"{failure.value}\n", "400 Bad Request", [NO_STORE])
            return
        if isinstance(failure.value, TooManyRequests) and not has_response:
            self.mark("lookup")
            if not self.server.access.limits.proxies:
                self.keep_alive = False  # without proxies all requests are this client's: discard pipelined ones
            retry_after = {"Retry-After": f"{ceil(failure.value.seconds)}"}
            self.send_response("Too many requests\n", "429 Too Many Requests", retry_after)
            return
        if isinstance(failure.value, RequestError) and not has_response:
            self.keep_alive = False
            self.send_response(f"{failure.value}\n", failure.value.status)
            return
        _log.failure("{path!r}: unhandled exception of the module", failure, path=self._path)
        if not has_response:
            self.send_response("Internal server error\n", "500 Internal Server Error")

    def _processed(self, _: None) -> None:
        self._processing = None
        if self.connection.state is State.PROCESSING:
            _log.error("{path!r}: the module returned without a response", path=self._path)
            self.send_response("Internal server error\n", "500 Internal Server Error")
        if self.connection.state in (State.SENDING, State.STREAMING):
            self.finish_request()

    @property
    def _path(self) -> str | None:
        """The path of the current request, for log lines."""
        return None if self._env is None else self._env["path_info"][:MAX_PATH]

    def finish_request(self) -> None:
        """End the current request, whose response was written; continue with the next request, or close."""
        self.finish_record()
        env, header_section, self._header_section = self._env, self._header_section, None
        if not self.keep_alive:
            # Only Connection: close in a request that arrived alone promises that nothing follows.
            is_last = header_section is not None and env is not None and not env.keeps_alive()
            nothing_follows = (is_last or self.read_closed) and not self._buffer
            self.next_request()
            self.connection.close("client" if self.read_closed else "server", nothing_follows)
            return
        self.discard_body()
        if not self.has_body:
            self._begin_next()
            return
        self.connection.enter(State.DISCARDING)
        if not self._is_parsing:
            self.sock.resumeProducing()
            self._receive(b"")

    def body_discarded(self) -> None:
        """Begin the next request."""
        self.next_request()
        self._begin_next()

    def _begin_next(self) -> None:
        """Continue with the next request: at once, or after other connections if this one sends many."""
        self._requests_in_turn += 1
        if not self._is_parsing:
            self.resume()
        elif self._requests_in_turn < MAX_REQUESTS_IN_TURN:
            self.connection.enter(_IDLE)  # dataReceived() continues with the next request
        else:
            self.connection.enter(State.YIELDING)
            self.server.turns.add(self)

    def resume(self) -> None:
        """Continue with the next request, part of which may be in the buffer."""
        self.connection.enter(_IDLE)
        self.sock.resumeProducing()
        self._receive(b"")
