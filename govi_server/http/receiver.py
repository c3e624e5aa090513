"""The receiving half of a connection: from bytes to requests."""

import re

from twisted.protocols.basic import LineReceiver

from govi_server.http import request as environ
from govi_server.http.body import ChunkedBody, LengthBody, body_reader
from govi_server.http.request import Environ, RequestError
from govi_server.http.response import CONTINUE
from govi_server.settings import ServerSettings
from govi_server.statistics.records import Phase

# The first byte of a request, which begins with its method or an empty line.
_FIRST_BYTE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z\r]")

MAX_EMPTY_LINES = 8
"""Empty lines that are ignored before a request: some old clients send one after a body."""


class RequestReceiver(LineReceiver):
    """Collects the header section line by line, and then the body.

    A subclass sets ``limits`` before the first bytes arrive, and implements the methods at the end of this class.
    While its property ``paused`` is true, received bytes are buffered.
    """

    delimiter = b"\n"
    limits: ServerSettings

    def __init__(self) -> None:
        self.next_request()

    def next_request(self) -> None:
        """Discard the current request; bytes received from now on belong to the next one."""
        self._lines: list[bytes] = []
        self._lines_size = 0
        self._body: LengthBody | ChunkedBody | None = None
        self._empty_lines = 0
        self._env: Environ | None = None

    @property
    def is_head(self) -> bool:
        """Whether the request is a HEAD, whose response has no body, even if its request line is incomplete."""
        first_line = self._lines[0] if self._lines else self._buffer
        return first_line.startswith(b"HEAD ")

    def dataReceived(self, data: bytes) -> None:
        """Receive bytes; reject input that cannot be a request, such as a TLS ClientHello, before its line ends."""
        super().dataReceived(data)
        if self._buffer in (b"", b"\r") or self.paused or self._busyReceiving or self._body:
            return
        self.request_begins()
        if not (self._lines or _FIRST_BYTE.match(self._buffer)) or _has_bare_cr(self._buffer):
            self.protocol_error(_not_http())

    def lineReceived(self, line: bytes) -> None:
        """Collect the lines of the header section."""
        if line in (b"", b"\r") and not self._lines:
            self._empty_lines += 1
            if self._empty_lines <= MAX_EMPTY_LINES:
                return  # empty lines before a request are ignored (RFC 9112 section 2.2)
        self.request_begins()
        self._lines_size += len(line) + 1
        is_first = not self._lines
        if _has_bare_cr(line) or (is_first and self._is_not_http(line)):
            self.protocol_error(_not_http())
        elif is_first and len(line) > self.limits.request_line:
            self._reject_request_line(line)
        elif self._lines_size > self.limits.head:
            self.protocol_error(_header_section_too_large())
        elif line not in (b"", b"\r"):
            self._lines.append(line)
        else:
            self._header_section_received()

    def lineLengthExceeded(self, line: bytes) -> None:
        """Reject a line that exceeds the limit of the entire header section."""
        self.request_begins()
        if self._lines:
            self.protocol_error(_header_section_too_large())
        else:
            self._reject_request_line(line)

    def _is_not_http(self, line: bytes) -> bool:
        """Return whether a line cannot be a request line, so that its client is not left waiting for a response."""
        return not _FIRST_BYTE.match(line) or b" HTTP/" not in line or self._empty_lines > MAX_EMPTY_LINES

    def _reject_request_line(self, line: bytes) -> None:
        self._lines = [line[:5]]  # enough for is_head
        self.protocol_error(RequestError("414 URI Too Long", "The request line is too long"))

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

    def _header_section_received(self) -> None:
        self.mark("receive")
        try:
            self._env = env = self.parse_request(b"\n".join([*self._lines, b""]))
            length = env.body_length()
            expects_continue = env.expects_continue()
            self._body = body_reader(length, self.limits.body) if length else None
        except RequestError as error:
            self.mark("parse")
            self.protocol_error(error)
            return
        self.mark("parse")
        if self._body is None:
            self.request_received(env)
            return
        if expects_continue:
            assert self.transport is not None
            self.transport.write(CONTINUE)
        self.setRawMode()

    def rawDataReceived(self, data: bytes) -> None:
        """Collect the body."""
        assert self._body is not None
        assert self._env is not None
        try:
            rest = self._body.feed(data)
        except RequestError as error:
            self.protocol_error(error)
            return
        if rest is not None:
            self._env.body = self._body.body
            self.mark("receive")
            self.setLineMode(rest)
            self.request_received(self._env)

    # Implemented by the subclass.

    def mark(self, phase: Phase) -> None:
        """Record the end of a phase of the request."""
        raise NotImplementedError

    def request_begins(self) -> None:
        """Begin a request unless it has begun; called for each of its parts."""
        raise NotImplementedError

    def request_received(self, env: Environ) -> None:
        """Process a request; its body is env.body."""
        raise NotImplementedError

    def protocol_error(self, error: RequestError) -> None:
        """Reject a malformed or oversized request, after which the start of the next one is unknown."""
        raise NotImplementedError


def _has_bare_cr(line: bytes) -> bool:
    """Return whether a line has a CR before its last byte: a recipient could take it for a line end, or for a space.

    RFC 9112 section 2.2. In CR CR LF, the first is such a CR.
    """
    return line.find(b"\r", 0, -1) >= 0


def _not_http() -> RequestError:
    return RequestError("400 Bad Request", "Not an HTTP/1.1 request")


def _header_section_too_large() -> RequestError:
    return RequestError("431 Request Header Fields Too Large", "The header section is too large")
