"""Posts messages over HTTP, for both sides of KV55 (docs/protocols.md, section 1.1).

The client is our own: twisted.web's Agent needs as much time for a POST as the rest of a gateway request
(docs/performance.md).
"""

from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.kv55.gateway import IPoster
from govi_server.kv55.post_connection import PostConnection, PostError
from govi_server.runtime.failures import connect_failure
from govi_server.runtime.text import printable

MAX_CONNECTIONS = 256
"""Connections in use: of concurrent POSTs, and until the body of a response has ended; further POSTs wait."""

MAX_CONNECTING = 32
"""Connections that are opened at a time: often all of them are established in the same turn of the reactor, each with
a quarter of a millisecond of work."""

IDLE_TIMEOUT = 4
"""Seconds until an idle connection is closed, before most servers would close it under the next POST (Apache after
5 s). Shorter than the interval of the checks of /ready, which so find out whether the gateway accepts connections."""

MAX_CLOSED_IN_TURN = 20
"""Idle connections that are closed in one turn of the reactor."""

CONNECT_TIMEOUT = 5.0
"""Seconds."""

_REASONS = {
    ConnectionDone: "connection closed without a response",
    ConnectionLost: "connection lost",
}


class _Address:
    """The address of POSTs. Equal for POSTs that may share connections. url: an http or https URL with a host."""

    def __init__(self, reactor: Any, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        is_tls, host = parts.scheme == "https", parts.hostname or ""
        default_port = 443 if is_tls else 80
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.head = (
            f"POST {path} HTTP/1.1\r\nHost: {parts.netloc.removesuffix(f':{default_port}')}\r\n"
            "User-Agent: govi-cache\r\nContent-Type: text/xml\r\n"
        )
        endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, host, parts.port or default_port, CONNECT_TIMEOUT)
        self.endpoint = wrapClientTLS(optionsForClientTLS(host), endpoint) if is_tls else endpoint


class _Post:
    """A POST that waits for a connection or for its response."""

    __slots__ = ("address", "attempt", "is_cancelled", "request", "result")

    def __init__(self, address: _Address, request: bytes) -> None:
        self.address = address
        self.request = request
        self.result: Deferred[None] = Deferred(self._cancel)
        self.attempt: Deferred[Any] | None = None
        """Connecting, or waiting for the response."""
        self.is_cancelled = False

    def _cancel(self, result: Deferred[None]) -> None:
        self.is_cancelled = True
        if self.attempt is not None:
            self.attempt.cancel()


@implementer(IPoster)
class Poster:
    """Posts XML messages to one address over persistent connections.

    reactor: provides connections and time. url: returns the address of the next POST.
    """

    def __init__(self, reactor: Any, url: Callable[[], str]) -> None:
        self._reactor = reactor
        self._url = url
        self._address: _Address | None = None
        self._connecting = 0
        self._waiting: deque[_Post] = deque()
        self._connections: set[PostConnection] = set()
        self._idle: dict[PostConnection, float] = {}
        """The connections without a POST, with the time (epoch seconds) since then; the longest idle first."""
        self._idle_check: IDelayedCall | None = None
        self._closed: Deferred[None] | None = None

    def post(self, body: bytes, encoding: str | None = None) -> Deferred[None]:
        """Post a body; fires when the peer has accepted it with a 2xx. Fails with PostError.

        encoding: the Content-Encoding. Cancelling the Deferred aborts the connection.
        """
        address = self._current_address()
        coding = f"Content-Encoding: {encoding}\r\n" if encoding else ""
        post = _Post(address, f"{address.head}{coding}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body)
        self._waiting.append(post)
        self._start_waiting()
        return post.result

    def close(self) -> Deferred[None]:
        """Close the connections; return a Deferred that fires when they are closed."""
        for connection in list(self._connections):
            (connection.close if connection in self._idle else connection.abort)()
        if not self._connections:
            return succeed(None)
        self._closed = Deferred()
        return self._closed

    def _current_address(self) -> _Address:
        url = self._url()
        if self._address is None or self._address.url != url:
            self._address = _Address(self._reactor, url)
            self._close_idle(list(self._idle))
        return self._address

    # A POST.

    def _start_waiting(self) -> None:
        """Start the POSTs that wait, as far as the limits permit."""
        while self._waiting and len(self._connections) - len(self._idle) + self._connecting < MAX_CONNECTIONS:
            if not self._idle and self._connecting >= MAX_CONNECTING:
                return
            post = self._waiting.popleft()
            if post.is_cancelled:
                continue
            if self._idle:
                connection, _ = self._idle.popitem()
                self._send(connection, post)
            else:
                self._connect(post)

    def _connect(self, post: _Post) -> None:
        self._connecting += 1
        factory = Factory.forProtocol(self._make_connection)
        factory.noisy = False  # do not log the start and end of each connection
        post.attempt = connecting = post.address.endpoint.connect(factory)
        connecting.addBoth(self._connected)
        connecting.addCallbacks(self._send, self._failed, callbackArgs=(post,), errbackArgs=(post,))
        connecting.addCallback(lambda _: self._start_waiting())

    def _connected(self, result: PostConnection | Failure) -> PostConnection | Failure:
        self._connecting -= 1
        return result

    def _make_connection(self) -> PostConnection:
        connection = PostConnection(self._reactor, self._released, self._lost)
        self._connections.add(connection)
        return connection

    def _send(self, connection: PostConnection, post: _Post) -> None:
        post.attempt = status = connection.send(post.request)
        status.addCallbacks(self._responded, self._failed, callbackArgs=(post,), errbackArgs=(post, connection))

    def _responded(self, status: tuple[int, str], post: _Post) -> None:
        code, phrase = status
        is_accepted = 200 <= code < 300
        self._finish(post, None if is_accepted else PostError(f"responded {code} {printable(phrase, 80)}".rstrip()))

    def _failed(self, failure: Failure, post: _Post, connection: PostConnection | None = None) -> None:
        is_stale = connection is not None and connection.is_reused and not connection.has_response
        if is_stale and not post.is_cancelled:
            self._connect(post)  # the peer has closed a connection that was idle; repeating the request is harmless
        else:
            self._finish(post, PostError(_reason(failure.value)))

    def _finish(self, post: _Post, error: PostError | None) -> None:
        self._start_waiting()
        post.attempt = None
        if post.is_cancelled:
            return
        if error is None:
            post.result.callback(None)
        else:
            post.result.errback(error)

    # Connections without a POST.

    def _released(self, connection: PostConnection) -> None:
        self._idle[connection] = self._reactor.seconds()
        if self._idle_check is None:
            self._idle_check = self._reactor.callLater(IDLE_TIMEOUT, self._check_idle)
        self._start_waiting()

    def _check_idle(self) -> None:
        """Close the connections that have been idle for too long; also if the clock was set back."""
        self._idle_check = None
        now = self._reactor.seconds()
        expired = [connection for connection, since in self._idle.items() if not 0 <= now - since < IDLE_TIMEOUT]
        self._close_idle(expired[:MAX_CLOSED_IN_TURN])
        if self._idle:
            remaining = min(self._idle.values()) + IDLE_TIMEOUT - now
            delay = 0 if len(expired) > MAX_CLOSED_IN_TURN else remaining
            self._idle_check = self._reactor.callLater(delay, self._check_idle)

    def _close_idle(self, connections: list[PostConnection]) -> None:
        for connection in connections:
            del self._idle[connection]
            connection.close()

    def _lost(self, connection: PostConnection) -> None:
        self._connections.discard(connection)
        self._idle.pop(connection, None)
        if not self._connections:
            if self._idle_check is not None:
                self._idle_check.cancel()
                self._idle_check = None
            if self._closed is not None:
                closed, self._closed = self._closed, None
                closed.callback(None)
        self._start_waiting()


def _reason(error: BaseException | None) -> str:
    """Return the cause of a failed POST as a short text."""
    assert error is not None
    known = (text for error_class, text in _REASONS.items() if isinstance(error, error_class))
    return next(known, connect_failure(error, CONNECT_TIMEOUT))
