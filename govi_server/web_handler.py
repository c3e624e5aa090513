"""The interfaces between a connection and the URL modules, and the class that a module's handlers derive from."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from twisted.internet.interfaces import IAddress
from zope.interface import Interface

from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.conditional import not_modified, precondition_failed
from govi_server.http.request import Environ
from govi_server.http.response import Fields, Headers
from govi_server.http.stream import Stream
from govi_server.statistics.records import CacheResult, Phase


class ResponseSender(Protocol):
    """What a URL module sees of the connection whose request it answers."""

    @property
    def peer(self) -> IAddress:
        """The client's address."""

    def send_response(self, response: str | bytes, status: str = "200 Ok", headers: Headers | None = None) -> None:
        """Send a response: status such as '404 Not Found', header fields, and the body (a str goes out as UTF-8).

        Without a Content-Type among the headers it is plain text. After the connection has ended nothing is sent.
        Raises ValueError for invalid header fields, and RuntimeError for a second response.
        """

    def send_representation(self, response: CachedResponse, unchanged: bool) -> None:
        """Send a cached response, or 304 if the client has its representation."""

    def send_not_found(self) -> None:
        """Send the 404 of a path that no module answers."""

    def send_timeout(self) -> None:
        """Send the 504 of an internal gateway that did not answer in time."""

    def stream(self, headers: Headers, final_chunk: bytes) -> Stream:
        """Begin a response without a deadline that ends when the client or the server closes.

        final_chunk: what is sent when the server ends it.
        """

    def mark(self, phase: Phase, cache: CacheResult | None = None) -> None:
        """Record that a phase of the current request ends now, and the cache's result."""

    def set_stop(self, stop: str) -> None:
        """Set the stop that the current request is about, for its statistics; "several" for more than one.

        A module whose response is cached calls it before its method first waits.
        """


class Mark(Protocol):
    """ResponseSender.mark(), without the connection."""

    def __call__(self, phase: Phase, cache: CacheResult | None = None) -> None:
        """Record that a phase of the current request ends now, and the cache's result."""


class ErrorResponse(NamedTuple):
    """A response that is never cached, such as the 504 of a gateway that did not answer."""

    status: str
    """Such as '404 Not Found'."""
    headers: Fields
    body: bytes | str
    cache: CacheResult = "none"


Fetch = Callable[[Mark], Awaitable[CachedResponse | ErrorResponse]]
"""Begins and awaits what a response needs; marks the phases before rendering."""


class Responder(NamedTuple):
    """A parsed request to a cacheable module."""

    respond: Callable[[], CachedResponse | ErrorResponse | Fetch]
    """Returns the cached response, or else the function that fetches it.

    The fast path calls it too, for each request that repeats this one, and takes the slow path unless it returns a
    CachedResponse. So nothing is fetched before the client's limits have admitted the request.
    """
    stop: str = ""
    """The stop that the request is about, for its statistics: see ResponseSender.set_stop()."""


class IWebModule(Interface):
    """A service that responds under the URL segment that is its name."""

    def web_handler(request_handler: ResponseSender, env: "Environ") -> "WebHandler":
        """Return the handler of one request."""


class ICacheableModule(Interface):
    """A service that responds to GET and HEAD under the URL segment that is its name, mostly from a cache."""

    def responder(env: "Environ") -> "Responder | None":
        """Parse a request; return None if its path names nothing (404).

        The responses depend on nothing else of the request. Raises InvalidParameter (400).
        """


class WebHandler:
    """Responds to one request: env is the request, send_response() sends the response.

    If a method raises InvalidParameter, the client gets a 400 with its text.
    """

    methods: tuple[str, ...] = ("GET", "HEAD")
    """The allowed request methods; any other gets 405."""

    def __init__(self, request_handler: ResponseSender, env: Environ) -> None:
        self.request_handler = request_handler
        self.env = env

    async def get(self) -> None:
        """Respond to a GET."""
        raise NotImplementedError("a WebHandler implements the methods that it allows")

    async def head(self) -> None:
        """Respond to a HEAD as to a GET; the connection leaves the body out."""
        await self.get()

    async def post(self) -> None:
        """Respond to a POST, whose body is env.body."""
        raise NotImplementedError("a WebHandler implements the methods that it allows")

    def send_response(self, response: str | bytes, status: str = "200 Ok", headers: Headers | None = None) -> None:
        """Send the response; see ResponseSender.send_response()."""
        self.request_handler.send_response(response, status, headers)

    def send_representation(self, response: CachedResponse) -> None:
        """Send a representation, or 304 if the client has it, or 412 if its precondition fails."""
        self.mark("render", response.cache)
        representation = response.representation
        etag, modified = representation.etag, representation.modified
        if precondition_failed(self.env, etag, modified):
            self.send_response("It has changed\n", "412 Precondition Failed", {"Vary": "Accept-Encoding"})
        else:
            self.request_handler.send_representation(response, not_modified(self.env, etag, modified))

    def stream(self, headers: Headers, final_chunk: bytes) -> Stream:
        """Begin a response without an end; see ResponseSender.stream()."""
        return self.request_handler.stream(headers, final_chunk)

    def mark(self, phase: Phase, cache: CacheResult | None = None) -> None:
        """Record that a phase ends now; see ResponseSender.mark()."""
        self.request_handler.mark(phase, cache)


web_handler = WebHandler
"""The name under which the class is documented."""


class CacheableHandler(WebHandler):
    """Sends the response of a cacheable module.

    remember: called with a Responder that returned a cached response, for requests that repeat this one.
    """

    def __init__(
        self,
        request_handler: ResponseSender,
        env: Environ,
        module: ICacheableModule,
        remember: Callable[[Responder], None],
    ) -> None:
        super().__init__(request_handler, env)
        self._module = module
        self._remember = remember

    async def get(self) -> None:
        """Send the cached response, or fetch it."""
        responder = self._module.responder(self.env)
        if responder is None:
            self.mark("lookup")
            self.request_handler.send_not_found()
            return
        self.request_handler.set_stop(responder.stop)
        response = responder.respond()
        if isinstance(response, CachedResponse):
            self._remember(responder)
            self.mark("lookup", response.cache)
        elif isinstance(response, ErrorResponse):
            self.mark("lookup", response.cache)
        else:
            response = await response(self.mark)
        if isinstance(response, CachedResponse):
            self.send_representation(response)
        else:
            self.mark("render", response.cache)
            self.send_response(response.body, response.status, response.headers)
