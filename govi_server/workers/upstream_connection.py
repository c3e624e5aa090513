"""A persistent HTTP/1.1 connection to the main process."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from govi_server.http.response import Fields
from govi_server.sockets.transport import IClientTransport, write_now

MAX_HEAD_BYTES = 64 << 10
"""Bytes of a response's head."""

MAX_BODY_BYTES = 64 << 20
"""Bytes of a response's body: more than the main process makes (http/caching/representation.py)."""

_HEAD = re.compile(r"HTTP/1\.1 ([1-5][0-9]{2} [^\r\n]*)\r\n((?:[^\r\n]+\r\n)*)\r\n")
_FIELD = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([^\r\n]*)\r\n")


@lru_cache(maxsize=256)
def _shared(field: tuple[str, str]) -> tuple[str, str]:
    """Return a field that all equal ones share: most are the same in every response, and some have a kilobyte."""
    return field


class Message(NamedTuple):
    """A response of the main process, which spells the names of fields as this program does."""

    status: str
    """Code and reason, such as '200 Ok'."""
    fields: Fields
    body: bytes = b""
    stream: "UpstreamConnection | None" = None
    """The connection of a body that lasts until it is closed: see UpstreamConnection.read_stream()."""


class UpstreamError(Exception):
    """The main process did not send a complete response; the error's message is the reason.

    status: of the response to the client. is_stale: whether the connection was idle before, and closed before it
    received anything: the request may be repeated on another one.
    """

    def __init__(self, reason: str, status: str = "502 Bad Gateway", is_stale: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.is_stale = is_stale


class UpstreamConnection(Protocol):
    """A connection for one request at a time.

    released: called when another request may be sent, and lost: when the connection is closed, both with the
    connection.
    """

    def __init__(
        self, released: Callable[["UpstreamConnection"], object], lost: Callable[["UpstreamConnection"], object]
    ) -> None:
        self._released = released
        self._lost = lost
        self._response: Deferred[Message] | None = None
        """Fires with the response to the current request."""
        self._received: list[bytes] = []
        """What was received of the response, without its head once that is complete."""
        self._missing = 0
        """Bytes of the body that are still to be received, if the head is complete."""
        self._head: tuple[str, Fields] | None = None
        self._persists = True
        self._is_reused = False
        self._read: Callable[[bytes], object] | None = None
        self._ended: Callable[[], object] | None = None

    @property
    def _sock(self) -> IClientTransport:
        return cast(IClientTransport, self.transport)

    def send(self, request: bytes) -> Deferred[Message]:
        """Send a request; return a Deferred of the response, which may fail with UpstreamError.

        Cancelling it aborts the connection.
        """
        self._response = response = Deferred[Message](lambda response: self.abort())
        write_now(self._sock, request)
        return response

    def read_stream(self, read: Callable[[bytes], object], ended: Callable[[], object]) -> None:
        """Read a body that lasts until the connection is closed: call read() with each part, and then ended()."""
        self._read, self._ended = read, ended
        received, self._received = self._received, []
        for data in received:
            read(data)

    def abort(self) -> None:
        """Close the connection at once."""
        self._response = None
        self._sock.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Receive a part of a response."""
        if self._read is not None:
            self._read(data)
            return
        if self._response is None:
            self.abort()  # nothing was requested
            return
        self._received.append(data)
        if self._head is None:
            self._receive_head()
        else:
            self._missing -= len(data)
        if self._head is not None and self._missing <= 0:
            self._complete(*self._head)

    def _receive_head(self) -> None:
        data = b"".join(self._received)
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) + 4
        self._received = [data]
        if end < 4 and len(data) < MAX_HEAD_BYTES and data.startswith(b"HTTP/1.1 "[: len(data)]):
            return
        match = _HEAD.fullmatch(data[:end].decode("latin-1"))
        if match is None:
            self._fail("response is not HTTP/1.1")
            return
        fields = tuple(map(_shared, _FIELD.findall(match[2])))
        values = dict(fields)
        length = values.get("Content-Length")
        self._persists = values.get("Connection") != "close"
        self._received = [data[end:]]
        if length is None and not match[1].startswith("204"):
            self._respond(Message(match[1], fields, b"", self))
        elif length is not None and not (length.isdecimal() and int(length) <= MAX_BODY_BYTES):
            self._fail(f"invalid Content-Length {length!r}")
        else:
            self._head = match[1], fields
            self._missing = int(length or 0) - len(self._received[0])

    def _complete(self, status: str, fields: Fields) -> None:
        body, self._received, self._head = b"".join(self._received), [], None
        if self._missing < 0:
            self._fail("response is longer than its Content-Length")
            return
        if self._persists:
            self._is_reused = True
            self._released(self)
        else:
            self._sock.loseConnection()
        self._respond(Message(status, fields, body))

    def _respond(self, message: Message) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.callback(message)

    def _fail(self, reason: str, status: str = "502 Bad Gateway", is_stale: bool = False) -> None:
        response = self._response
        self.abort()
        if response is not None:
            response.errback(UpstreamError(reason, status, is_stale))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the current request."""
        self._lost(self)
        if self._ended is not None:
            self._ended()
        is_stale = self._is_reused and not self._received and self._head is None
        self._fail("connection closed before the end of the response", is_stale=is_stale)
