"""The receiving half of a connection: from bytes to requests."""

import re
from abc import ABC, abstractmethod

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from govi_server.http import request as environ
from govi_server.http.body import ChunkedBody, LengthBody, body_reader, too_large
from govi_server.http.request import TOKEN_CHARACTER, Environ, RequestError
from govi_server.http.response import CONTINUE
from govi_server.settings import ServerSettings
from govi_server.statistics.records import Phase

# The first byte of a request, which begins with its method.
_FIRST_BYTE = re.compile(TOKEN_CHARACTER)
_EMPTY_LINES = re.compile(rb"(?:\r?\n)+")

MAX_EMPTY_LINES = 8
"""Empty lines that are ignored before a request: some old clients send one after a body."""

MAX_FIELDS = 100
"""Lines of a header section, then 431: each needs some 300 bytes of memory when parsed. The default of Apache."""

MAX_DISCARDED_BODY_BYTES = 256 << 10
"""A longer body that no module reads closes the connection instead of being discarded; as in Go's net/http."""


class RequestReceiver(Protocol, ABC):
    """Buffers bytes up to the end of the header section; then receives the body if a module reads it.

    A subclass sets ``limits`` before the first bytes arrive, and implements the methods at the end of this class.
    While its property ``paused`` is true, received bytes are buffered.
    """

    limits: ServerSettings

    def __init__(self) -> None:
        self._buffer: bytes | bytearray = b""
        """Bytes that were not parsed: one piece as it was received, or a bytearray, to which pieces are appended
        without copying the others."""
        self._is_parsing = False
        self.next_request()

    def next_request(self) -> None:
        """Discard the current request; bytes received from now on belong to the next one."""
        self._searched = 0  # bytes of the buffer that do not contain the end of the header section
        self._empty_lines = 0
        self._start = b""  # the first bytes of the header section
        self._env: Environ | None = None
        self._request_size = 0
        self._body_length = 0
        self._expects_continue = False
        self._body: LengthBody | ChunkedBody | None = None
        self._body_received: Deferred[None] | None = None

    @property
    def is_head(self) -> bool:
        """Whether the request is a HEAD, whose response has no body, even if its request line is incomplete."""
        return (self._start or self._buffer[:5]) == b"HEAD "

    @property
    def held(self) -> int:
        """The bytes that are held of the current request and of those after it."""
        return len(self._buffer) + self._request_size + (0 if self._body is None else self._body.size)

    def dataReceived(self, data: bytes) -> None:
        """Receive bytes, and parse them unless the connection is paused."""
        if not self._buffer:
            self._buffer = data
        elif data:
            if not isinstance(self._buffer, bytearray):
                self._buffer = bytearray(self._buffer)
            self._buffer += data
        if self._is_parsing:
            return
        self._is_parsing = True
        try:
            while self._buffer and not self.paused:
                if not (self._parse_header_section() if self._body is None else self._parse_body()):
                    return
        finally:
            self._is_parsing = False

    def clear_buffer(self) -> None:
        """Discard the bytes that were not parsed."""
        self._buffer = b""

    def _take(self, size: int) -> bytes:
        """Remove bytes from the start of the buffer and return them."""
        taken = bytes(memoryview(self._buffer)[:size]) if size < len(self._buffer) else bytes(self._buffer)
        if size >= len(self._buffer):
            self._buffer = b""
        else:
            if not isinstance(self._buffer, bytearray):
                self._buffer = bytearray(self._buffer)
            del self._buffer[:size]
        return taken

    # The header section.

    def _parse_header_section(self) -> bool:
        """Parse a header section; return False if it is incomplete or invalid.

        Input that cannot be a request, such as a TLS ClientHello, is rejected before its line ends.
        """
        if empty_lines := _EMPTY_LINES.match(self._buffer):
            self._empty_lines += self._take(empty_lines.end()).count(b"\n")
        if self._empty_lines <= MAX_EMPTY_LINES and self._buffer in (b"", b"\r"):
            return False
        self.request_begins()
        if self._empty_lines > MAX_EMPTY_LINES or not _FIRST_BYTE.match(self._buffer):
            self.protocol_error(_not_http())
            return False
        searched, size = self._searched, self._header_section_size()
        error = _not_http() if self._is_not_http(searched, size) else self._size_error(size)
        if error is not None:
            self.protocol_error(error)
            return False
        return bool(size) and self._header_section_received(self._take(size))

    def _is_not_http(self, searched: int, size: int) -> bool:
        """Return whether a header section cannot be one, so that its client is not left waiting for a response.

        A CR inside of a line, as in CR CR LF, could be taken for a line end or a space (RFC 9112 section 2.2).
        """
        buffer, start, end = self._buffer, max(searched - 1, 0), size or len(self._buffer)
        bare = buffer.count(b"\r", start, end) - buffer.count(b"\r\n", start, end)
        if bare > buffer.endswith(b"\r", start, end):
            return True
        first_end = buffer.find(b"\n", 0, min(end, self.limits.request_line + 1))
        return first_end >= 0 and buffer.find(b" HTTP/", 0, first_end) < 0

    def _header_section_size(self) -> int:
        """Return the bytes of the header section in the buffer, with its empty line; 0 if it is incomplete."""
        buffer, limit = self._buffer, self.limits.head
        start = max(self._searched - 2, 0)  # a part of the end may have been received
        self._searched = len(buffer)
        crlf = buffer.find(b"\n\r\n", start, limit)
        lf = buffer.find(b"\n\n", start, limit if crlf < 0 else crlf)
        return lf + 2 if lf >= 0 else crlf + 3 if crlf >= 0 else 0

    def _size_error(self, size: int) -> RequestError | None:
        """Return the error of a header section of a size, or 0 if it is incomplete."""
        buffer, limits = self._buffer, self.limits
        longest_line = min(limits.request_line, limits.head)
        if (size or len(buffer)) > longest_line and buffer.find(b"\n", 0, longest_line + 1) < 0:
            return RequestError("414 URI Too Long", "The request line is too long")
        if (size or len(buffer)) > limits.head or buffer.count(b"\n", 0, size) > MAX_FIELDS + 2:
            return RequestError("431 Request Header Fields Too Large", "The header section is too large")
        return None

    def _header_section_received(self, header_section: bytes) -> bool:
        self._start = header_section[:5]
        self._request_size = len(header_section)
        self.mark("receive")
        try:
            env = self.parse_request(header_section)
            self._body_length = env.body_length()
            self._expects_continue = env.expects_continue()
            if self._body_length > self.limits.body:
                raise too_large(self.limits.body)
        except RequestError as error:
            self.mark("parse")
            self.protocol_error(error)
            return False
        self._env = env
        self.mark("parse")
        self.request_received(env)
        return True

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

    # The body.

    @property
    def has_body(self) -> bool:
        """Whether the rest of the current request's body is still to be received."""
        return self._body_length != 0

    @property
    def has_long_body(self) -> bool:
        """Whether the connection must close after the response, because the body is not worth discarding.

        A client that expected 100 Continue and did not get it may leave the body out (RFC 9110 section 10.1.1).
        """
        return self._body_length > MAX_DISCARDED_BODY_BYTES or (self.has_body and self._expects_continue)

    def receive_body(self) -> Deferred[None]:
        """Receive the body; return a Deferred that fires when env.body is set. Raises RequestError for a long one."""
        self._body = body_reader(self._body_length, self.limits.body)
        if self._expects_continue:
            assert self.transport is not None
            self._expects_continue = False
            self.transport.write(CONTINUE)
        self._body_received = received = Deferred[None]()
        return received

    def discard_body(self) -> None:
        """Discard the rest of the body of a request that was responded to, and then begin the next one."""
        body_length = self._body_length
        self.next_request()
        if body_length:
            self._body_length = body_length
            self._body = body_reader(body_length, MAX_DISCARDED_BODY_BYTES, is_discarded=True)

    def _parse_body(self) -> bool:
        """Receive a part of the body; return whether it is complete."""
        assert self._body is not None
        data, self._buffer = bytes(self._buffer), b""
        try:
            rest = self._body.feed(data)
        except RequestError as error:
            self.protocol_error(error)
            return False
        if rest is None:
            return False
        self._buffer = rest
        body, received = self._body.body, self._body_received
        self._body, self._body_length, self._body_received = None, 0, None
        if received is None:
            self.body_discarded()
            return True
        assert self._env is not None
        self._env.body = body
        self._request_size += len(body)
        self.mark("receive")
        self.body_received()
        received.callback(None)
        return True

    # Implemented by the subclass.

    @property
    @abstractmethod
    def paused(self) -> bool:
        """Whether received bytes are buffered."""

    @abstractmethod
    def mark(self, phase: Phase) -> None:
        """Record the end of a phase of the request."""

    @abstractmethod
    def request_begins(self) -> None:
        """Begin a request unless it has begun; called for each of its parts."""

    @abstractmethod
    def request_received(self, env: Environ) -> None:
        """Process a request whose header section was received."""

    @abstractmethod
    def body_received(self) -> None:
        """Continue with a request whose body was received; it is env.body."""

    @abstractmethod
    def body_discarded(self) -> None:
        """Begin the next request, after the body of the last one."""

    @abstractmethod
    def protocol_error(self, error: RequestError) -> None:
        """Reject a malformed or oversized request, after which the start of the next one is unknown."""


def _not_http() -> RequestError:
    return RequestError("400 Bad Request", "Not an HTTP/1.1 request")
