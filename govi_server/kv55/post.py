"""Posting messages over HTTP, as both ends of KV55 do (docs/protocols.md 1.1)."""

from collections.abc import Callable

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, DNSLookupError
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

CONNECTIONS = 256
"""POSTs under way at once, each on a connection of its own; the others wait for one to end."""

IDLE = 15
"""Seconds that a kept connection may idle: most servers close theirs later, and not under the next POST."""

CONNECT_TIMEOUT = 5.0

ANSWER_TIMEOUT = 5.0
"""Seconds that the body of an answer may take, before its connection is dropped."""

MOST_ANSWER = 1 << 20
"""Bytes of an answer that are read and thrown away to keep its connection; after that it is dropped."""

# A kept connection that the other side had closed looks like this to the POST that is sent on it.
_BROKEN_OFF = (ConnectionDone, ConnectionLost, RequestNotSent, RequestTransmissionFailed, ResponseNeverReceived)


class PostError(Exception):
    """A message was not taken: the text says why."""


@implementer(IBodyProducer)
class _Body:
    """A body that is written at once: a message is a few kilobytes, and nothing to be doled out."""

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
    noisy = False  # or every connection says in the log that it starts and that it stops


class _Pool(HTTPConnectionPool):
    _factory = _QuietFactory


@implementer(IPoster)
class Poster:
    """Posts XML messages to one address over kept connections.

    reactor: connects, and tells time. url: gives the address when it is needed.
    """

    def __init__(self, reactor: IReactorTime, url: Callable[[], str]) -> None:
        self._url = url
        self._clock = reactor
        self._pool = _Pool(reactor)
        self._pool.maxPersistentPerHost = CONNECTIONS
        self._pool.cachedConnectionTimeout = IDLE
        self._pool.retryAutomatically = False
        self._agent = Agent(reactor, pool=self._pool, connectTimeout=CONNECT_TIMEOUT)
        self._room = DeferredSemaphore(CONNECTIONS)
        self._taken_once = False

    def post(self, body: bytes, encoding: str | None = None) -> Deferred[None]:
        """Post a body; fires when the other side has taken it with a 2xx. Fails with PostError.

        encoding: the Content-Encoding to name. Cancelling the Deferred breaks the connection off.
        """
        return self._room.run(lambda: Deferred.fromCoroutine(self._post(body, encoding)))

    async def _post(self, body: bytes, encoding: str | None) -> None:
        headers = Headers({"Content-Type": ["text/xml"], "User-Agent": ["govi-cache"]})
        if encoding:
            headers.addRawHeader("Content-Encoding", encoding)
        try:
            try:
                response = await self._request(body, headers)
            except _BROKEN_OFF:
                if not self._taken_once:
                    raise
                # It may have been a kept connection that was closed meanwhile. To ask twice does no harm.
                response = await self._request(body, headers)
        except (ConnectError, DNSLookupError, ResponseFailed, *_BROKEN_OFF) as error:
            self._taken_once = False
            raise PostError(_reason(error)) from None
        _throw_away(response, self._clock)
        if not 200 <= response.code < 300:
            raise PostError(f"answered {response.code} {response.phrase[:80]!r}")
        self._taken_once = True

    def _request(self, body: bytes, headers: Headers) -> Deferred[IResponse]:
        return self._agent.request(b"POST", self._url().encode("ascii"), headers, _Body(body))

    def close(self) -> Deferred[None]:
        """Close the connections that are kept."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed


class _ThrowAway(Protocol):
    """Reads an answer's body to its end, if that is not too far."""

    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred(self._cancel)
        self._room = MOST_ANSWER

    def _cancel(self, done: Deferred[None]) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room < 0 and self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            self.done.callback(None)


def _throw_away(response: IResponse, clock: IReactorTime) -> None:
    """Read the body, so that the connection can be kept; what it says matters to nobody, its status was before it."""
    reading = _ThrowAway()
    reading.done.addTimeout(ANSWER_TIMEOUT, clock)
    reading.done.addErrback(lambda failure: None)
    response.deliverBody(reading)


def _reason(error: Exception) -> str:
    """Say in a few words what a failed request died of."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return _reason(reasons[-1].value)
    return str(error).rstrip(".") or type(error).__name__
