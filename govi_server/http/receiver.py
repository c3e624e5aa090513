"""From bytes to requests: the half of a connection that reads."""

import re

from twisted.protocols.basic import LineReceiver

from govi_server.http.body import ChunkedBody, LengthBody, reader
from govi_server.http.request import Environ, RequestError
from govi_server.http.response import CONTINUE
from govi_server.settings import ServerSettings
from govi_server.statistics.records import Phase

# How a request may begin: with a method, or an empty line.
_BEGINNING = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z\r]")

MOST_BLANK_LINES = 8
"""Empty lines before a request: some old clients send one behind a body."""


class RequestReceiver(LineReceiver):
    """Collects lines until the empty one, which makes the header block, and then the body, wanted or not.

    A subclass gives the limits before anything is received, parses a header block, and is told what has come by the
    methods from request_begins() on. It sets ``paused`` while it is at work on a request: what comes meanwhile waits.
    """

    delimiter = b"\n"
    limits: ServerSettings

    def __init__(self) -> None:
        self.next_request()

    def next_request(self) -> None:
        """Forget the request that was received: what comes now belongs to the next one."""
        self._lines: list[bytes] = []
        self._lines_size = 0
        self._body: LengthBody | ChunkedBody | None = None
        self._blank_lines = 0
        self._env: Environ | None = None

    @property
    def is_head(self) -> bool:
        """Whether the request is a HEAD, as far as its first line tells, whose answer has no body."""
        first_line = self._lines[0] if self._lines else self._buffer
        return first_line.startswith(b"HEAD ")

    @property
    def nothing_received(self) -> bool:
        """Whether not a byte of a request is here."""
        return self._env is None and not self._lines and not self._buffer

    def dataReceived(self, data: bytes) -> None:
        """Take bytes; what cannot become a request, a TLS hello for example, is refused before its line ends."""
        super().dataReceived(data)
        if self._buffer not in (b"", b"\r") and not (self.paused or self._busyReceiving or self._lines or self._body):
            self.request_begins()
            if not _BEGINNING.match(self._buffer):
                self.protocol_error(_no_request())

    def lineReceived(self, line: bytes) -> None:
        """Collect the lines of the head."""
        if line in (b"", b"\r") and not self._lines:
            self._blank_lines += 1
            if self._blank_lines <= MOST_BLANK_LINES:
                return  # empty lines before a request are passed over (RFC 9112 section 2.2)
        self.request_begins()
        self._lines_size += len(line) + 1
        if not self._lines and (not _BEGINNING.match(line) or self._blank_lines > MOST_BLANK_LINES):
            self.protocol_error(_no_request())
        elif not self._lines and len(line) > self.limits.request_line:
            self._refuse_line(line)
        elif self._lines_size > self.limits.head:
            self.protocol_error(_head_too_large())
        elif line not in (b"", b"\r"):
            self._lines.append(line)
        else:
            self._head_received()

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a line that is longer than a whole head may be."""
        self.request_begins()
        if self._lines:
            self.protocol_error(_head_too_large())
        else:
            self._refuse_line(line)

    def _refuse_line(self, line: bytes) -> None:
        self._lines = [line[:5]]  # enough to know a HEAD, whose answer has no body
        self.protocol_error(RequestError("414 URI Too Long", "The request line is too long"))

    def _head_received(self) -> None:
        self.mark("receive")
        try:
            self._env = env = self.parse_request(b"\n".join([*self._lines, b""]))
            length = env.body_length()
            waits = env.expects_continue()
            self._body = reader(length, self.limits.body) if length else None
        except RequestError as error:
            self.mark("parse")
            self.protocol_error(error)
            return
        self.mark("parse")
        if self._body is None:
            self.request_received(env)
            return
        if waits:
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
            self.request_received(self._env)
            self.setLineMode(rest)

    # What the subclass does.

    def parse_request(self, http_blob: str | bytes) -> Environ:
        """Parse a header block. Raises RequestError."""
        raise NotImplementedError

    def mark(self, phase: Phase) -> None:
        """A phase of the request ends."""
        raise NotImplementedError

    def request_begins(self) -> None:
        """There is something of a request; may be said more than once of the same one."""
        raise NotImplementedError

    def request_received(self, env: Environ) -> None:
        """A request is here, its body in env.body."""
        raise NotImplementedError

    def protocol_error(self, error: RequestError) -> None:
        """What came is no request, or too large; where the next one would begin is not known."""
        raise NotImplementedError


def _no_request() -> RequestError:
    return RequestError("400 Bad Request", "This is no HTTP/1.1 request")


def _head_too_large() -> RequestError:
    return RequestError("431 Request Header Fields Too Large", "The head is too large")
