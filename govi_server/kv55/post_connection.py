"""A persistent HTTP/1.1 connection for POSTs: of a response only the status and the end are read."""

import re
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http import _ChunkedTransferDecoder, _IdentityTransferDecoder, _MalformedChunkedDataError

from govi_server.sockets.transport import IClientTransport, write_now

BODY_TIMEOUT = 5.0
"""Seconds to read a response's body before the connection is closed."""

CLOSE_TIMEOUT = 2.0
"""Seconds until a connection that closes is aborted: TLS waits until the peer has closed it as well."""

MAX_HEAD_BYTES = 8 << 10
"""Bytes of a response's header section."""

MAX_RESPONSE_BYTES = 16 << 10
"""Bytes of a response to read and discard for its connection to be reused; a longer one closes it. An acknowledgement
has some hundred bytes; 64 kB in chunks of one byte need 20 ms."""

_HEAD = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([^\r\n]*+))?\r?\n((?>(?:[^\r\n]++\r?\n)*))\r?\n")
_is_complete = re.compile(rb"\n\r?\n").search
_LENGTH = re.compile(rb"^Content-Length:[ \t]*([0-9]{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_CHUNKED = re.compile(rb"^Transfer-Encoding:.*\bchunked[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_CLOSE = re.compile(rb"^Connection:.*\bclose\b", re.IGNORECASE | re.MULTILINE)


class PostError(Exception):
    """A message was not accepted; the error's message is the reason."""


class PostConnection(Protocol):
    """A connection to one server, for one POST at a time.

    released: called when another POST may be sent, and lost: when the connection is closed, both with the connection.
    """

    def __init__(
        self,
        clock: IReactorTime,
        released: Callable[["PostConnection"], object],
        lost: Callable[["PostConnection"], object],
    ) -> None:
        self._clock = clock
        self._released = released
        self._lost = lost
        self._status: Deferred[tuple[int, str]] | None = None
        """Fires with the status and reason phrase of the response; None before a POST and after the status."""
        self._buffer = b""
        self._body: _ChunkedTransferDecoder | _IdentityTransferDecoder | None = None
        self._body_size = 0
        self._deadline: IDelayedCall | None = None
        self._persists = False
        self.is_reused = False
        """Whether the current POST is not the first one: the server may close the connection before it arrives."""

    @property
    def _sock(self) -> IClientTransport:
        return cast(IClientTransport, self.transport)

    @property
    def has_response(self) -> bool:
        """Whether any byte of a response to the current POST was received."""
        return bool(self._buffer)

    def send(self, request: bytes) -> Deferred[tuple[int, str]]:
        """Send a request; return a Deferred of its status code and reason phrase.

        Fails with PostError, or with the reason for which the connection was lost. Cancelling it aborts the
        connection.
        """
        status: Deferred[tuple[int, str]] = Deferred(lambda status: self.abort())
        self._status = status
        self._buffer = b""
        write_now(self._sock, request)
        return status

    def close(self) -> None:
        """Close the connection between two POSTs."""
        self._sock.loseConnection()
        self._deadline = self._clock.callLater(CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """Close the connection without waiting for anything."""
        self._sock.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Receive a part of a response."""
        if self._body is not None:
            self._receive_body(data)
        elif self._status is None:
            self.abort()  # nothing was requested, and a POST must not wait for the end of a connection that closes
        else:
            self._buffer += data
            self._receive_head(self._status)

    def _receive_head(self, status: Deferred[tuple[int, str]]) -> None:
        while match := _HEAD.match(self._buffer):
            rest = self._buffer[match.end() :]
            if not match[2].startswith(b"1"):
                self._status = None
                self._begin_body(match, rest)
                status.callback((int(match[2]), (match[3] or b"").decode("latin-1")))
                return
            self._buffer = rest  # an interim response, such as 100 Continue
        is_http = self._buffer.startswith(b"HTTP/1."[: len(self._buffer)])
        if len(self._buffer) > MAX_HEAD_BYTES or not is_http or _is_complete(self._buffer):
            self._status = None
            self.abort()
            status.errback(PostError("response is not HTTP/1.1"))

    def _begin_body(self, match: re.Match[bytes], data: bytes) -> None:
        """Receive the body of a response (RFC 9112 section 6.3)."""
        minor, code, _, fields = match.groups()
        self._persists = minor == b"1" and _CLOSE.search(fields) is None
        self._body_size = 0
        length = _LENGTH.search(fields)
        if code in (b"204", b"304"):
            self._body = _IdentityTransferDecoder(0, _discard, self._body_ended)
        elif _CHUNKED.search(fields):
            self._body = _ChunkedTransferDecoder(_discard, self._body_ended)
        elif length is not None:
            self._body = _IdentityTransferDecoder(int(length[1]), _discard, self._body_ended)
        else:
            self._body = _IdentityTransferDecoder(None, _discard, self._body_ended)  # ends with the connection
        self._receive_body(data)
        if self._body is not None:
            self._deadline = self._clock.callLater(BODY_TIMEOUT, self.abort)

    def _receive_body(self, data: bytes) -> None:
        assert self._body is not None
        self._body_size += len(data)
        if self._body_size > MAX_RESPONSE_BYTES:
            self.abort()
            return
        try:
            self._body.dataReceived(data)
        except _MalformedChunkedDataError:
            self.abort()

    def _body_ended(self, rest: bytes) -> None:
        self._body = None
        self._stop_deadline()
        if self._persists and not rest:
            self.is_reused = True
            self._released(self)
        else:
            self.close()

    def _stop_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the current POST, if its status was not received."""
        self._body = None
        self._stop_deadline()
        self._lost(self)
        status, self._status = self._status, None
        if status is not None and not status.called:
            status.errback(reason)


def _discard(data: Any) -> None:
    pass
