"""The sending half of a connection: from responses to bytes."""

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from govi_server.http.cors import is_preflight, preflight_headers
from govi_server.http.dates import http_date_bytes
from govi_server.http.error_responses import ErrorFormats
from govi_server.http.receiver import RequestReceiver
from govi_server.http.request import Environ
from govi_server.http.response import RETRY_AFTER, Fields, Headers, format_head, format_response, pairs
from govi_server.http.state import IN_REQUEST, Lifecycle, State
from govi_server.http.stream import Stream
from govi_server.sockets.transport import IClientTransport, write_now
from govi_server.statistics.records import CacheResult, ConnectionRecorder, Phase

MAX_COPIED_BYTES = 1 << 16
"""Larger bodies are written by themselves: joining them with their head would copy them."""


class SendingServer(Protocol):
    """The server of a connection."""

    clock: IReactorTime
    headers: Fields
    """Header fields of every response."""
    errors: ErrorFormats | None
    """The formats of errors; None for text."""
    draining: bool
    """Whether each connection closes after its current request."""


class SerializableResponse(Protocol):
    """A cached response."""

    def serialize(
        self, method: str, unchanged: bool, server_headers: Fields, connection: str
    ) -> tuple[bytes, bytes, bytes, int]:
        """Return the head before and after the value of Date, the body that follows it, and the status."""


class Sender(RequestReceiver):
    """Sends one response to each request, and records its statistics."""

    server: SendingServer
    sock: IClientTransport
    connection: Lifecycle
    record: ConnectionRecorder

    def __init__(self) -> None:
        super().__init__()
        self.keep_alive = True
        """Whether another request may follow the current one."""
        self.read_closed = False
        """Whether the client has closed its sending side."""
        self._stream: Stream | None = None
        self._response_size = 0
        """Bytes of the last response, of which the client may not have read all."""

    @property
    def now(self) -> float:
        """The time in epoch seconds."""
        return self.server.clock.seconds()

    def send_response(self, response: str | bytes, status: str = "200 Ok", headers: Headers | None = None) -> None:
        """Send a response with a body, a status such as '404 Not Found', and header fields.

        A str is sent as UTF-8. Content-Type defaults to plain text, and the text of an error to the form that the
        client accepts (see error_responses.py). Date, Content-Length and Connection are added.
        Does nothing if the connection has ended. Raises ValueError for invalid header fields, and RuntimeError for a
        second response.
        """
        if not self._may_respond():
            return
        fields = pairs(headers or ())
        if not any(name.lower() == "content-type" for name, _ in fields):
            errors = self.server.errors
            if errors is not None and self._env is not None and isinstance(response, str) and status >= "4":
                response, more = errors.format(self._env, status, response)
                fields.extend(more)
            else:
                fields.append(("Content-Type", "text/plain; charset=utf-8"))
        body = response.encode() if isinstance(response, str) else response
        data = format_response(
            status,
            [*fields, *self.server.headers],
            body,
            now=self.now,
            connection=connection_field(self._env, self.keep_alive),
            without_body=self.is_head,
        )
        self._send(data, b"", int(status[:3]), 0 if self.is_head else len(body))

    def send_representation(self, response: SerializableResponse, unchanged: bool) -> None:
        """Send a cached response. unchanged: send 304, since the client has its representation."""
        if self._may_respond():
            assert self._env is not None
            method = self._env["request_method"]
            connection = connection_field(self._env, self.keep_alive)
            start, rest, body, status = response.serialize(method, unchanged, self.server.headers, connection)
            head = start + http_date_bytes(self.now) + rest
            self._send(head, body, status, len(body))

    def send_not_found(self) -> None:
        """Send 404: the path names nothing."""
        self.send_response("No such path; see /docs\n", "404 Not Found")

    def send_timeout(self) -> None:
        """Send 504: an internal gateway did not respond in time."""
        self.send_response("The gateway did not respond in time\n", "504 Gateway Timeout")

    def handle_timeout(self) -> bool:
        """Send 406 to a request past its deadline unless its response has begun; return whether it was sent."""
        return self._end_request("Gateway timeout\n", "406 Gateway timeout", ())

    def handle_overload(self) -> bool:
        """Send 503 to a request that holds too much, unless its response has begun; return whether it was sent."""
        return self._end_request("Too many unfinished requests\n", "503 Service Unavailable", [RETRY_AFTER])

    def _end_request(self, text: str, status: str, headers: Headers) -> bool:
        state = self.connection.state
        if self.connection.is_ending or state in _RESPONDED:
            return False
        self.mark("wait" if state is State.PROCESSING else "receive")
        self.keep_alive = False
        self.send_response(text, status, headers)
        self.mark("send")
        return True

    def send_methods(self, env: Environ, methods: Sequence[str]) -> None:
        """Send the allowed methods: with 204 to OPTIONS (RFC 9110 section 9.3.7), also as a CORS preflight request,
        and with 405 otherwise."""
        allow = ", ".join((*methods, "OPTIONS"))
        if env["request_method"] == "OPTIONS":
            preflight = preflight_headers(allow) if is_preflight(env) else {}
            self.send_response(b"", "204 No Content", {"Allow": allow, **preflight})
        else:
            self.send_response("Method not allowed\n", "405 Method Not Allowed", {"Allow": allow})

    def stream(self, headers: Headers, final_chunk: bytes) -> Stream:
        """Begin a response that lasts until the client or the server closes the connection.

        It has no deadline while the client reads it; the module awaits Stream.ended. For HEAD it has already ended.
        Raises CancelledError if the connection has ended, and RuntimeError for a second response.
        """
        if not self._may_respond():
            raise CancelledError
        self.keep_alive = False
        self._describe()
        fields = [*pairs(headers), *self.server.headers]
        head = format_head("200 Ok", fields, None, now=self.now, connection="close")
        self._stream = Stream(self.sock, self.connection, b"" if self.is_head else final_chunk)
        self.connection.enter(State.STREAMING)
        write_now(self.sock, head)
        if self.is_head:
            self._stream.end()
        elif self.server.draining:  # draining began while the module prepared the stream
            self.server.clock.callLater(0, self.end_stream)
        return self._stream

    @property
    def is_streaming(self) -> bool:
        """Whether the current response is a stream."""
        return self._stream is not None

    def end_stream(self) -> None:
        """End the current response if it is a stream."""
        if self._stream is not None:
            self._stream.end()

    def mark(self, phase: Phase, cache: CacheResult | None = None) -> None:
        """Record the end of a phase of the current request, and the cache's result."""
        self.record.mark(phase, cache)

    def set_stop(self, stop: str) -> None:
        """Set the stop of the current request; see web_handler.ResponseSender."""
        self.record.set_stop(stop)

    def finish_record(self) -> None:
        """Record that the current response was sent."""
        stream, self._stream = self._stream, None
        if stream is None:
            self.record.finish()
        else:  # the lifetime of a stream is not a send time
            self.record.set_response(200, stream.size)
            self.record.abandon("send")

    def abandon_record(self, state: State) -> None:
        """Record that the connection ended in a state, with the current request, if any, unfinished."""
        if self._stream is not None:
            self.record.set_response(200, self._stream.size)
        if state in IN_REQUEST:
            self._describe()
            self.record.abandon("receive" if state is State.RECEIVING else "wait")

    def _may_respond(self) -> bool:
        """Return whether a response can be sent now. Raises RuntimeError for a second one."""
        if self.connection.is_ending:
            return False
        if self.connection.state in _RESPONDED:
            raise RuntimeError("the request already has a response")
        if self.server.draining or self.has_long_body or (self.read_closed and not self._buffer):
            self.keep_alive = False
        return True

    def _send(self, head: bytes, body: bytes, status: int, size: int) -> None:
        """Send a complete response; size: bytes of its body. The head may include the body."""
        self._describe()
        self.record.set_response(status, size)
        self.connection.enter(State.SENDING)
        self._response_size = len(head) + len(body)
        if len(body) <= MAX_COPIED_BYTES:
            write_now(self.sock, head + body)
        else:
            write_now(self.sock, head)
            self.sock.write(body)

    def _describe(self) -> None:
        if self._env is not None:
            self.record.describe(self._env["request_method"], self._env["path_info"])


_RESPONDED = frozenset((State.SENDING, State.WRITE_PAUSED, State.STREAMING, State.DISCARDING))


def connection_field(env: Environ | None, keep_alive: bool) -> str:
    """Return the Connection field of a response, '' for none (RFC 9112 section 9.3)."""
    return "close" if not keep_alive else "keep-alive" if env is not None and env.http_1_0 else ""
