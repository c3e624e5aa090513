"""What a worker does with a request: respond from memory, or with the main process's response."""

from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.event_listeners import bye
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.request import Environ
from govi_server.http.response import NO_STORE, RETRY_AFTER
from govi_server.runtime.bounded_memory import BoundedMemory
from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.runtime.malloc import FreedMemory
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.settings import ServerSettings
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler
from govi_server.workers.collapsing import CollapsedRequests
from govi_server.workers.fields import CHARGED
from govi_server.workers.relayed_stream import RelayedStream
from govi_server.workers.response import Response
from govi_server.workers.upstream import Upstream
from govi_server.workers.upstream_connection import Message, UpstreamConnection, UpstreamError

MAX_BYTES = 4 << 20
"""The memory of all responses by default. The main process has more, a fifth of a millisecond away."""

WAIT_SHARE = 0.98
"""Of the deadline of a connection, at which its client would get a 406 for a main process that hangs."""

ENTRY_BYTES = 1536
"""Memory of a response besides its body and target, about."""

VARY_BYTES = 256
"""Memory of the names in Vary besides the target, about."""

SELECTING_FIELDS = ("accept", "accept-encoding", "accept-language")
"""The request fields that select a response. Others are not sent to the main process: preconditions are evaluated
here, and no module reads more."""


class Request(NamedTuple):
    """The part of a client's request on which the response depends."""

    target: str
    values: tuple[str | None, ...]
    """Of SELECTING_FIELDS; None for those that are missing."""
    host: str = "localhost"
    """Of the client's request, for pages with the server's address."""

    def variant(self, vary: Collection[str]) -> tuple[str | None, ...]:
        """Return the values of the selecting fields in Vary."""
        return tuple(value for name, value in zip(SELECTING_FIELDS, self.values, strict=True) if name in vary)

    def encode(self, is_charged: bool) -> bytes:
        """Return the request to the main process. is_charged: whether its client was charged for the work."""
        fields = (f"{name}: {value}\r\n" for name, value in zip(SELECTING_FIELDS, self.values, strict=True) if value)
        charged = f"{CHARGED}: yes\r\n" if is_charged else ""
        text = f"GET {self.target} HTTP/1.1\r\nHost: {self.host}\r\n{''.join(fields)}{charged}\r\n"
        return text.encode("latin-1")


def make_request(env: Environ) -> Request:
    """Return the request of a client. A HEAD is sent as GET: both have the same response."""
    accept, language = (",".join(env.get_all(name, [])) or None for name in ("accept", "accept-language"))
    values = accept, "gzip" if prefers_gzip(env) else None, language
    return Request(env.target, values, env.get("http_host", "localhost"))


@implementer(IWebModule)
class Proxy:
    """Serves the modules of the main process.

    endpoint: the main process's socket. modules: their names, the first segments of paths. deadline: of a
    connection's request, as in ServerSettings.connection. max_bytes: the memory of all stored responses.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        modules: Collection[str],
        deadline: float = ServerSettings().connection,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.clock = clock
        self._modules = frozenset(modules)
        self._upstream = Upstream(endpoint)
        self._timeout = deadline * WAIT_SHARE
        self._runner = CooperativeRunner(clock)
        self._requests = CollapsedRequests(clock, self._runner, self._timeout, self._send, self._late)
        self._memory: BoundedMemory[Any] = BoundedMemory(max_bytes)
        self._freed = FreedMemory(clock)
        self._streams: dict[Request, RelayedStream] = {}
        self._warnings = ThrottledWarnings(self.log, clock)

    def find_module(self, segment: str) -> "Proxy":
        """Return the module of a path's first segment. Raises KeyError if the main process has none."""
        if segment not in self._modules:
            raise KeyError(segment)
        return self

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "ProxyHandler":
        """Return the handler of one request."""
        return ProxyHandler(self, request_handler, env)

    def clock_set_back(self) -> None:
        """Send no response again that was received before: its age is unknown."""
        self._memory = BoundedMemory(self._memory.max_bytes)

    def stored(self, request: Request) -> Response | None:
        """Return the stored response to a request, of any age; None if there is none."""
        vary: tuple[str, ...] | None = self._memory.get(request.target)
        if vary is None:
            return None
        response: Response | None = self._memory.get((request.target, request.variant(vary)))
        return response

    def respond(self, request: Request) -> CachedResponse | None:
        """Return the cached response to a request; None if there is no fresh one."""
        stored = self.stored(request)
        return None if stored is None else stored.again(self.clock.seconds())

    def fetch(self, request: Request, is_charged: bool) -> tuple[Deferred[Response | RelayedStream], bool]:
        """Return a Deferred of the response, and whether another client requested it before.

        is_charged: whether the client was charged for the work.
        """
        stream = self._streams.get(request)
        if stream is not None:
            return succeed(stream), True
        return self._requests.join((request, is_charged))

    def _send(self, key: tuple[Request, bool]) -> Deferred[Response | RelayedStream]:
        """Send a request to the main process; return a Deferred of its response, or of one about its failure."""
        request, is_charged = key
        sending = self._upstream.send(request.encode(is_charged))
        return sending.addCallback(self._received, request).addErrback(self._failed)

    def _received(self, message: Message, request: Request) -> Any:
        """Return a response, stored if it may be sent again, or a Deferred of a stream that clients may join."""
        if message.stream is not None:
            return self._relay(request, message, message.stream)
        response = Response(message, self.clock.seconds())
        if response.is_cacheable:
            self._store(request, response)
        return response

    def _relay(self, request: Request, message: Message, connection: UpstreamConnection) -> Deferred[RelayedStream]:
        def ready(_: None) -> RelayedStream:
            self._streams[request] = stream
            return stream

        def ended() -> None:
            if self._streams.get(request) is stream:
                del self._streams[request]

        stream = RelayedStream(self.clock, self._runner.cooperator, message, connection, ended)
        return stream.first_event.addCallback(ready)

    def _failed(self, failure: Failure) -> Response:
        failure.trap(UpstreamError)
        error: UpstreamError = failure.value  # type: ignore[assignment]  # as trap() ensures
        return self._unavailable(error.status, str(error))

    def _late(self) -> Response:
        return self._unavailable("504 Gateway Timeout", f"no response within {self._timeout:g} s")

    def _unavailable(self, status: str, reason: str) -> Response:
        """Return the response to requests that the main process did not respond to."""
        self._warnings.add(status, "Main process: {reason}", reason=reason)
        message = Message(status, (RETRY_AFTER, NO_STORE), b"The main process is not available\n")
        return Response(message, self.clock.seconds())

    def _store(self, request: Request, response: Response) -> None:
        target, size = request.target, len(request.target)
        before = self._memory.bytes
        self._memory.put(target, response.vary, size + VARY_BYTES)
        self._memory.put((target, request.variant(response.vary)), response, size + ENTRY_BYTES + len(response))
        self._freed.add(2 * size + VARY_BYTES + ENTRY_BYTES + len(response) - (self._memory.bytes - before))


class ProxyHandler(WebHandler):
    """Responds to one request."""

    def __init__(self, proxy: Proxy, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._proxy = proxy

    async def get(self) -> None:
        """Send the cached response, or fetch it."""
        request = make_request(self.env)
        stored, response = self._proxy.stored(request), self._proxy.respond(request)
        if stored is None or response is None:
            await self._fetch(request)
            return
        self.request_handler.set_stop(stored.stop)
        self.request_handler.store_in_memo(partial(self._proxy.respond, request), stored.stop)
        self.mark("lookup", response.cache)
        self.send_representation(response)

    async def _fetch(self, request: Request) -> None:
        self.mark("lookup")
        waiting, is_joined = self._proxy.fetch(request, False)
        fetched = await waiting
        if isinstance(fetched, Response) and fetched.cost is not None:
            self.request_handler.charge(fetched.cost)
            waiting, is_joined = self._proxy.fetch(request, True)
            fetched = await waiting
        self.request_handler.set_stop(fetched.stop)
        if isinstance(fetched, RelayedStream):
            self.mark("wait")
            await self._stream(fetched)
            return
        response = fetched.first(is_joined)
        self.mark("wait", response.cache)
        if isinstance(response, CachedResponse):
            self.send_representation(response)
        else:
            self.mark("render", response.cache)
            self.send_response(response.body, response.status, response.headers)

    async def _stream(self, relayed: RelayedStream) -> None:
        """Relay a stream until either side closes."""
        stream = self.stream(relayed.fields, bye())
        relayed.join(stream, self.env.get("last-event-id", ""))
        try:
            await stream.ended
        finally:
            relayed.leave(stream)
