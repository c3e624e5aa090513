"""Posts messages over HTTP, for both sides of KV55 (docs/protocols.md, section 1.1)."""

import os
from collections.abc import Callable

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, DNSLookupError, TimeoutError
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (  # type: ignore[attr-defined]  # RequestNotSent is documented, not exported
    Agent,
    HTTPConnectionPool,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
    _HTTP11ClientFactory,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from govi_server.kv55.gateway import IPoster

MAX_CONNECTIONS = 256
"""Concurrent POSTs, each on its own connection; further ones wait."""

IDLE_TIMEOUT = 4
"""Seconds until an idle connection is closed, before most servers would close it under the next POST (Apache after
5 s). Shorter than the interval of the checks of /ready, which so find out whether the gateway accepts connections."""

CONNECT_TIMEOUT = 5.0
"""Seconds."""

BODY_TIMEOUT = 5.0
"""Seconds to read a response's body before the connection is closed."""

MAX_RESPONSE_BYTES = 1 << 20
"""Bytes of a response to read and discard for its connection to be reused; a longer one closes it."""

# The errors of a POST on a persistent connection that the peer has closed.
_BROKEN = (ConnectionDone, ConnectionLost, RequestNotSent, RequestTransmissionFailed, ResponseNeverReceived)


_REASONS = {
    TimeoutError: f"no connection within {CONNECT_TIMEOUT:g} s",
    ConnectionDone: "connection closed without a response",
    ConnectionLost: "connection lost",
}


class PostError(Exception):
    """A message was not accepted; the error's message is the reason."""


@implementer(IBodyProducer)
class _Body:
    """A body that is written in one piece: messages are a few kilobytes."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def stopProducing(self) -> None: ...


class _QuietFactory(_HTTP11ClientFactory):
    noisy = False  # do not log the start and end of each connection


class _Pool(HTTPConnectionPool):
    _factory = _QuietFactory


@implementer(IPoster)
class Poster:
    """Posts XML messages to one address over persistent connections.

    reactor: provides connections and time. url: returns the address of the next POST.
    """

    def __init__(self, reactor: IReactorTime, url: Callable[[], str]) -> None:
        self._url = url
        self._clock = reactor
        self._pool = _Pool(reactor)
        self._pool.maxPersistentPerHost = MAX_CONNECTIONS
        self._pool.cachedConnectionTimeout = IDLE_TIMEOUT
        self._pool.retryAutomatically = False
        self._agent = Agent(reactor, pool=self._pool, connectTimeout=CONNECT_TIMEOUT)
        self._slots = DeferredSemaphore(MAX_CONNECTIONS)
        self._has_succeeded = False

    def post(self, body: bytes, encoding: str | None = None) -> Deferred[None]:
        """Post a body; fires when the peer has accepted it with a 2xx. Fails with PostError.

        encoding: the Content-Encoding. Cancelling the Deferred aborts the connection.
        """
        return self._slots.run(lambda: Deferred.fromCoroutine(self._post(body, encoding)))

    async def _post(self, body: bytes, encoding: str | None) -> None:
        headers = Headers({"Content-Type": ["text/xml"], "User-Agent": ["govi-cache"]})
        if encoding:
            headers.addRawHeader("Content-Encoding", encoding)
        try:
            try:
                response = await self._request(body, headers)
            except _BROKEN:
                if not self._has_succeeded:
                    raise
                # The peer may have closed the connection. Repeating the request is harmless.
                response = await self._request(body, headers)
        except (ConnectError, DNSLookupError, ResponseFailed, *_BROKEN) as error:
            self._has_succeeded = False
            raise PostError(_reason(error)) from None
        _discard_body(response, self._clock)
        if not 200 <= response.code < 300:
            raise PostError(f"responded {response.code} {response.phrase[:80]!r}")
        self._has_succeeded = True

    def _request(self, body: bytes, headers: Headers) -> Deferred[IResponse]:
        return self._agent.request(b"POST", self._url().encode("ascii"), headers, _Body(body))

    def close(self) -> Deferred[None]:
        """Close the idle connections."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed


class _BodyDiscarder(Protocol):
    """Reads a response's body to its end, up to MAX_RESPONSE_BYTES."""

    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred(self._cancel)
        self._remaining = MAX_RESPONSE_BYTES

    def _cancel(self, done: Deferred[None]) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._remaining -= len(data)
        if self._remaining < 0 and self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            self.done.callback(None)


def _discard_body(response: IResponse, clock: IReactorTime) -> None:
    """Read and discard the body, so that the connection can be reused."""
    reading = _BodyDiscarder()
    reading.done.addTimeout(BODY_TIMEOUT, clock)
    reading.done.addErrback(lambda failure: None)
    response.deliverBody(reading)


def _reason(error: Exception) -> str:
    """Return the cause of a failed request as a short text."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return _reason(reasons[-1].value)
    if isinstance(error, ConnectError) and isinstance(error.osError, int):
        return os.strerror(error.osError).lower()
    known = (text for error_class, text in _REASONS.items() if isinstance(error, error_class))
    return next(known, str(error).rstrip(".") or type(error).__name__)
