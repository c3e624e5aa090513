"""One HTTP/1.1 connection: has its requests answered by URL modules, and sends what they say."""

from functools import partial
from math import ceil
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.http import request as environ
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.conditional import conditions
from govi_server.http.caching.request_memo import MemoEntry
from govi_server.http.client_limits import Client, request_cost
from govi_server.http.cors import preflight_headers
from govi_server.http.parameters import InvalidParameter
from govi_server.http.receiver import RequestReceiver
from govi_server.http.request import Environ, RequestError
from govi_server.http.response import Headers, format_head, format_response, pairs
from govi_server.http.stream import Stream
from govi_server.sockets.transport import IClientTransport, write_now
from govi_server.statistics.records import MAX_PATH, CacheResult, ConnectionRecorder, Phase
from govi_server.web_handler import CacheableHandler, ICacheableModule, IWebModule, Responder, WebHandler

if TYPE_CHECKING:
    from govi_server.server import Server

# The methods that a module may answer, each with the method of its WebHandler.
_ANSWERED = {"GET": "get", "HEAD": "head", "POST": "post"}
_KNOWN = frozenset(_ANSWERED) | {"PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}

MOST_IN_A_ROW = 4
"""Requests of one connection that are answered before others have their turn: they wait for as many of each."""

MOST_THROWN_AWAY = 4 << 20
"""Bytes that are read from a client after its last answer, so that it gets to read that, before it is dropped."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class RequestHandler(RequestReceiver):
    """Has requests processed one at a time, in order, and sends their answers.

    As the producer of its transport it reads nothing more while the client does not take its answers.
    """

    log = Logger()
    accepted_from: Client
    """Whom the connection is from, as far as is known when it is accepted."""

    def __init__(self, server: "Server", sock: IClientTransport | None) -> None:
        super().__init__()
        self.server = server
        self.sock = cast(IClientTransport, sock)  # None until connectionMade()
        self._processing: Deferred[None] | None = None
        self._answered = False
        self._last = False  # no request follows the current one
        self._parting = False  # the client has said that no request follows this one, and sent nothing more
        self._half_closed = False  # the client has said that nothing at all follows
        self._in_a_row = 0  # requests answered without a turn for others
        self._turn: IDelayedCall | None = None
        self._thrown_away = 0
        self.write_paused = False
        """Whether the client does not take its answers: the transport has asked for a pause."""
        self._stream: Stream | None = None
        self._at_rest = True  # nothing of a request is here, and nothing else is to be done first
        self._block: bytes | None = None  # what may be the header block of the request, and nothing else

    # The connection.

    def connectionMade(self) -> None:
        """Begin the first request: its time runs from here."""
        self.sock = sock = cast(IClientTransport, self.transport)
        self.limits = self.server.limits
        self.MAX_LENGTH = self.limits.head
        server = self.server
        self.record = ConnectionRecorder(server.name, self.accepted_from.name, server.clock, server.observer)
        sock.registerProducer(self, True)
        self.connection = server.opened(self, sock)

    @property
    def peer(self) -> IAddress:
        """The client's address."""
        return self.connection.addr

    @property
    def idle(self) -> bool:
        """Whether the client has nothing in flight, not even the first line of a request."""
        return self._processing is None and not self._answered and self.nothing_received

    @property
    def receiving(self) -> bool:
        """Whether the client has not sent a whole request yet."""
        return self._processing is None and not self._answered

    def readConnectionLost(self) -> None:
        """The client closed its side: it still gets the answers to what it sent whole."""
        self._half_closed = True
        if self.connection.closing:
            self.sock.loseConnection()
        elif not self.paused or self._stream is not None:
            self.connection.close("client")

    def writeConnectionLost(self) -> None:
        """Our side is closed: nothing to do until the client closes its own."""

    def pauseProducing(self) -> None:
        """The client does not take its answers: read nothing more from it."""
        self.write_paused = True
        self._at_rest = False
        if self._stream is not None:
            self._start_deadline()  # to take what there is; without it a stream may last for ever
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """The client has taken its answers: go on."""
        self.write_paused = False
        if self._stream is not None and self._processing is not None:
            self.server.set_deadline(self.connection, None)
            self.sock.resumeProducing()
        elif self._answered and self._processing is None:
            self._finish()
        elif self._processing is None and self._turn is None:
            super().resumeProducing()

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost() tells why."""

    def handle_timeout(self) -> bool:
        """Say that the time is over, unless an answer is under way; tell whether it was said."""
        if self._answered:
            return False
        self.mark(self._unfinished_phase)
        self._last = True
        self.send_response("Gateway timeout\n", "406 Gateway timeout")
        self.mark("send")
        return True

    def handle_closing(self) -> None:
        """Give up what is not answered; what still comes from the client is read and thrown away."""
        self._end_turn()
        self.clearLineBuffer()
        self.sock.resumeProducing()
        if self._processing is not None:
            self._processing.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the requests that others still wait for to them, and flush the statistics."""
        self.server.closed(self.connection)
        self._end_turn()
        if self.connection.closing is None:
            self.connection.closing = "client" if reason.check(ConnectionDone) else "error"
        self.handle_close()
        if self._processing is not None:
            self._processing.cancel()

    def handle_close(self) -> None:
        """Flush the measured phases of a closed connection to the statistics log."""
        if self._stream is not None:
            self.record.answer(200, self._stream.size)
        if not self.idle:
            self._describe()
            self.record.abandon(self._unfinished_phase)
        self.record.flush(self.connection.closing or "client")

    def _end_turn(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    @property
    def _unfinished_phase(self) -> Phase:
        """The phase of a request that is given up now."""
        return "receive" if self._processing is None else "wait"

    # From bytes to requests.

    def dataReceived(self, data: bytes) -> None:
        """Take what the client sends."""
        if self._at_rest:
            if self._repeat(data):
                return
            self._block = data
        else:
            self._block = None
        if self.connection.closing:
            self._thrown_away += len(data)
            if self._thrown_away > MOST_THROWN_AWAY:
                self.connection.abort()
            return
        if not self._busyReceiving:
            self._in_a_row = 0
        super().dataReceived(data)
        self._at_rest = self.idle and not (self.paused or self._busyReceiving or self._blank_lines)
        if self.connection.closing or self._busyReceiving:
            return
        if not self.paused:
            if self._half_closed:
                self.connection.close("client")
        elif len(self._buffer) > self.MAX_LENGTH:
            self.sock.pauseProducing()  # enough read ahead; resumed when the answer is out

    def request_begins(self) -> None:
        """Begin a request with its first byte, unless it has begun."""
        if not self.record.in_request:
            self.record.begin()
            self._start_deadline()

    def _start_deadline(self) -> None:
        self.server.set_deadline(self.connection, self.server.deadlines)

    def protocol_error(self, error: RequestError) -> None:
        """Say why, and close."""
        self._last = True
        self.send_response(f"{error}\n", error.status)
        self._finish()

    def parse_request(self, http_blob: str | bytes) -> Environ:
        r"""Parse an HTTP request blob and return an HTTPMessage that contains WSGI's environment values.

        >>> request = '''GET /kv55/57330430 HTTP/1.1
        ... Host: cache.govi.openov.nl
        ... User-Agent: Mozilla/5.0 (X11; Linux i686; rv:2.0) Firefox/4.0
        ... Accept: text/html,application/xml;q=0.9,*/*;q=0.8
        ... Accept-Language: en-us,en;q=0.5
        ... Accept-Encoding: gzip, deflate
        ... Accept-Charset: ISO-8859-1,utf-8;q=0.7,*;q=0.7
        ... Keep-Alive: 115
        ... DNT: 1
        ... Connection: keep-alive
        ... Cache-Control: max-age=0
        ...
        ... '''
        >>> env = RequestHandler(object(), None).parse_request(request)
        >>> for e in env.items():
        ...     print(e)
        ('host', 'cache.govi.openov.nl')
        ('user-agent', 'Mozilla/5.0 (X11; Linux i686; rv:2.0) Firefox/4.0')
        ('accept', 'text/html,application/xml;q=0.9,*/*;q=0.8')
        ('accept-language', 'en-us,en;q=0.5')
        ('accept-encoding', 'gzip, deflate')
        ('accept-charset', 'ISO-8859-1,utf-8;q=0.7,*;q=0.7')
        ('keep-alive', '115')
        ('dnt', '1')
        ('connection', 'keep-alive')
        ('cache-control', 'max-age=0')
        ('request_method', 'GET')
        ('http_host', 'cache.govi.openov.nl')
        ('path_info', '/kv55/57330430')

        Raises RequestError.
        """
        return environ.parse(http_blob)

    # From requests to answers.

    def _repeat(self, block: bytes) -> bool:
        """Answer a request whose header block is known, if its answer is at hand; tell whether it was.

        The short way of a hit: it does what request_received(), process() and a WebHandler do, in their order.
        """
        server, connection, clock = self.server, self.connection, self.server.clock
        if connection.closing or server.draining:
            return False
        received = clock.seconds()
        response = server.request_memo.lookup(block, received, server.headers)
        if response is None:
            return False
        client, entry, body = connection.client, response.entry, response.body
        if server.access.seconds_to_wait(client.rate_key, entry.request_cost) > 0:
            return False
        found = clock.seconds()
        write_now(self.sock, response.head + body)
        self._last = self._parting = entry.closes
        sent = None if self.write_paused else clock.seconds()
        if sent is None:
            self.request_begins()  # it is not over, and has the deadline of one, until the client has taken it
            self._answered = True
        self.record.repeat(client.name, entry, response.status, len(body), response.cache, received, found, sent)
        if sent is None:
            return True
        if entry.closes:
            self._go_on()
        else:  # as there, but nothing of the request was kept that would have to be forgotten
            server.set_deadline(connection, server.idle)
        return True

    def _remember(self, env: Environ, segment: str, responder: Responder) -> None:
        """Store what the header section means, if the response depends on nothing else of the connection."""
        block = self._block
        # Preconditions other than those of a cache are rare, and left to the slow path.
        if block is None or "if-match" in env or "if-unmodified-since" in env:
            return
        if self.server.access.is_forwarded(env):
            return
        closes = not env.keeps_alive()
        connection = "close" if closes else "keep-alive" if env.http_1_0 else ""
        entry = MemoEntry(
            env["request_method"],
            env["path_info"][:MAX_PATH],
            request_cost(env),
            responder.respond,
            conditions(env),
            closes,
            connection,
            segment,
            responder.stop,
        )
        self.server.request_memo.store(block, entry)

    def request_received(self, env: Environ) -> None:
        """Have the request processed; what the client sends meanwhile waits."""
        self.paused = True
        if self._buffer or self._body is not None:
            self._block = None  # there was more
        self.record.set_client(self.server.client(self.connection, env).name)
        self._last = not env.keeps_alive()
        self._parting = self._last and self._block is not None
        self._processing = processing = maybeDeferred(self.process, env)
        processing.addErrback(self._failed)
        processing.addCallback(self._processed)

    def process(self, env: Environ) -> Deferred[None]:
        """Find the module of the path's first segment and have it answer by the request's method."""
        early = self.server.access.seconds_to_wait(
            self.server.client(self.connection, env).rate_key, request_cost(env)
        )
        if early > 0:
            self.mark("lookup")
            if not self.server.access.limits.proxies:
                self._last = True  # it is one client's connection: what it sent ahead is thrown away
            retry = {"Retry-After": f"{ceil(early)}"}
            self.send_response("Too many requests\n", "429 Too Many Requests", retry)
            return succeed(None)
        method = env["request_method"]
        if method not in _KNOWN:
            self.send_response("The method is not known here\n", "501 Not Implemented")
            return succeed(None)
        if method == "CONNECT":
            self._last = True  # what follows may be meant for whom it wanted to reach
        if env["path_info"] == "*":  # the server as a whole
            self.mark("lookup")
            self._send_methods(env, tuple(_ANSWERED))
            return succeed(None)
        segment = env["path_info"].lstrip("/").partition("/")[0]
        handler = self._handler(segment, env)
        self.mark("lookup")
        if handler is None:
            self.send_not_found()
            return succeed(None)
        self.record.set_module(segment)
        if method not in handler.methods:
            self._send_methods(env, handler.methods)
            return succeed(None)
        return Deferred.fromCoroutine(getattr(handler, _ANSWERED[method])())

    def _handler(self, segment: str, env: Environ) -> WebHandler | None:
        """Return the handler of a request to the module of this name; None if there is no such module."""
        try:
            module = self.server.find_module(segment)
        except KeyError:
            return None
        if ICacheableModule.providedBy(module):
            return CacheableHandler(self, env, module, partial(self._remember, env, segment))
        return IWebModule(module).web_handler(self, env) if IWebModule.providedBy(module) else None

    def _send_methods(self, env: Environ, methods: tuple[str, ...]) -> None:
        """Say what may be asked: to OPTIONS (RFC 9110 section 9.3.7), with what a browser wants to know before it
        asks for another site's page, and to a method that may not."""
        allow = ", ".join((*methods, "OPTIONS"))
        if env["request_method"] == "OPTIONS":
            is_preflight = "access-control-request-method" in env
            preflight = preflight_headers(allow) if is_preflight else {}
            self.send_response(b"", "204 No Content", {"Allow": allow, **preflight})
        else:
            self.send_response("The method is not allowed here\n", "405 Method Not Allowed", {"Allow": allow})

    def _failed(self, failure: Failure) -> None:
        """A module raised: the client gets a 500, the log a traceback, the connection goes on.

        A BadQuery is the client's fault: it is told what is wrong.
        """
        if self.connection.closing and failure.check(CancelledError):
            return  # it was given up with its connection
        if failure.check(InvalidParameter) and not self._answered:
            self.mark("lookup")
            self.send_response(f"{failure.value}\n", "400 Bad Request", {"Cache-Control": "no-store"})
            return
        self.log.failure("{path!r} failed", failure, path=self._env and self._env["path_info"][:MAX_PATH])
        if not self._answered:  # nothing is sent on a connection that has ended
            self.send_response("Something went wrong here\n", "500 Internal Server Error")

    def _processed(self, _: None) -> None:
        self._processing = None
        if self.connection.closing:
            return
        if not self._answered:
            self.log.error("{path!r} got no answer", path=self._env and self._env["path_info"][:MAX_PATH])
            self.send_response("Something went wrong here\n", "500 Internal Server Error")
        if not self.write_paused:
            self._finish()

    def send_response(self, response: str | bytes, status: str = "200 Ok", headers: Headers | None = None) -> None:
        """Send an answer: status such as '404 Not Found', header fields, and the body.

        A str goes out as UTF-8; without a Content-Type among the headers it is plain text. Date, Content-Length and
        Connection are added. After the connection has ended nothing is sent. Raises ValueError for header fields
        that would break the head, and RuntimeError for a second answer.
        """
        if not self._may_answer():
            return
        env = self._env
        fields = pairs(headers or ())
        if not any(name.lower() == "content-type" for name, _ in fields):
            fields.append(("Content-Type", "text/plain; charset=utf-8"))
        body = response.encode() if isinstance(response, str) else response
        data = format_response(
            status,
            [*fields, *self.server.headers],
            body,
            now=self.server.clock.seconds(),
            connection=self._connection(env),
            without_body=self.is_head,
        )
        self._describe()
        self._send(data, int(status[:3]), 0 if self.is_head else len(body))

    def send_representation(self, response: CachedResponse, unchanged: bool) -> None:
        """Send what is at hand, or say that the client has it already."""
        if self._may_answer():
            assert self._env is not None
            self._describe()
            method, now, connection = (
                self._env["request_method"],
                self.server.clock.seconds(),
                self._connection(self._env),
            )
            head, body, status = response.serialize(method, unchanged, self.server.headers, now, connection)
            self._send(head + body, status, len(body))

    def stream(self, headers: Headers, farewell: bytes) -> Stream:
        """Begin an answer that goes on until the client leaves or the server ends, and says farewell.

        It has no deadline, unless the client does not take what there is. Who answers with it waits for its end.
        """
        if not self._may_answer():
            raise CancelledError  # the connection has ended
        self._last = True
        self._answered = True
        self._describe()
        fields = [*pairs(headers), *self.server.headers]
        write_now(self.sock, format_head("200 Ok", fields, None, now=self.server.clock.seconds(), connection="close"))
        self.server.streaming(self.connection)
        self._stream = Stream(self, farewell)
        if self.server.draining:  # it had waited for what it begins with
            self.server.clock.callLater(0, self.end_stream)
        return self._stream

    def end_stream(self) -> None:
        """End an answer that would go on."""
        if self._stream is not None:
            self._stream.end()

    def _may_answer(self) -> bool:
        """Tell whether an answer can be sent now. Raises RuntimeError for a second one."""
        if self.connection.closing:
            return False
        if self._answered:
            raise RuntimeError("a request is answered once")
        if self.server.draining or (self._half_closed and not self._buffer):
            self._last = True
        return True

    def _connection(self, env: Environ | None) -> str:
        """Give the Connection field of the answer, '' for none."""
        return "close" if self._last else "keep-alive" if env is not None and env.http_1_0 else ""

    def _send(self, data: bytes, status: int, size: int) -> None:
        """Send a whole answer. size: of its body."""
        self._answered = True
        self.record.answer(status, size)
        write_now(self.sock, data)

    def send_not_found(self) -> None:
        """Send the 404 of a path that no module answers."""
        self.send_response("There is nothing here\n", "404 Not Found")

    def send_timeout(self) -> None:
        """Send the 504 of an internal gateway that did not answer in time."""
        self.send_response("The gateway did not answer in time\n", "504 Gateway Timeout")

    def mark(self, phase: Phase, cache: CacheResult | None = None) -> None:
        """Say that a phase of the current request ends now, and what the cache had for it."""
        self.record.mark(phase, cache)

    def set_stop(self, stop: str) -> None:
        """Set the stop that the current request is about; see ResponseSender.set_stop()."""
        self.record.stop = stop

    def _describe(self) -> None:
        if self._env is not None:
            self.record.describe(self._env["request_method"], self._env["path_info"])

    def _finish(self) -> None:
        """The answer is with the transport: the request is over."""
        if self._stream is None:
            self.record.finish()
        else:  # how long it lasted is not how long an answer takes
            self.record.answer(200, self._stream.size)
            self.record.abandon("send")
            self._stream = None
        self._answered = False
        self._go_on()

    def _go_on(self) -> None:
        """Go on to the next request, or close."""
        server, connection = self.server, self.connection
        if self._last:
            nothing_follows = (self._parting or self._half_closed) and not self._buffer
            self.next_request()
            connection.close("client" if self._half_closed else "server", nothing_follows)
            return
        server.set_deadline(connection, server.idle)
        self.next_request()
        self._in_a_row += 1
        if not self._busyReceiving:
            super().resumeProducing()
        elif self._in_a_row < MOST_IN_A_ROW:
            self.paused = False  # dataReceived() is at work and goes on with the next request
        else:  # enough: it is the turn of others
            self._turn = server.clock.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        """Go on with requests that have come in one piece with many others."""
        self._turn = None
        if not self.write_paused:
            super().resumeProducing()
