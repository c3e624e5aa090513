"""The interfaces between a connection and the URL modules, and the base class of handlers."""

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol

from twisted.internet.interfaces import IAddress
from zope.interface import Interface

from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.conditional import not_modified, precondition_failed
from govi_server.http.request import Environ
from govi_server.http.response import Fields, Headers
from govi_server.http.stream import Stream
from govi_server.statistics.records import CacheResult, Phase


class ResponseSender(Protocol):
    """The connection of a request, as seen by a URL module."""

    @property
    def peer(self) -> IAddress:
        """The client's address."""

    @property
    def now(self) -> float:
        """The time in epoch seconds."""

    def send_response(self, response: str | bytes, status: str = "200 Ok", headers: Headers | None = None) -> None:
        """Send a response with a body, a status such as '404 Not Found', and header fields.

        A str is sent as UTF-8; Content-Type defaults to plain text. Does nothing if the connection has ended. Raises
        ValueError for invalid header fields, and RuntimeError for a second response.
        """

    def send_representation(self, response: CachedResponse, unchanged: bool) -> None:
        """Send a cached response. unchanged: send 304, since the client has its representation."""

    def send_not_found(self) -> None:
        """Send 404: the path names nothing."""

    def send_timeout(self) -> None:
        """Send 504: an internal gateway did not respond in time."""

    def stream(self, headers: Headers, final_chunk: bytes) -> Stream:
        """Begin a response without a deadline, which lasts until the client or the server closes the connection.

        final_chunk: sent when the server ends it.
        """

    def mark(self, phase: Phase, cache: CacheResult | None = None) -> None:
        """Record the end of a phase of the current request, and the cache's result."""

    def charge(self, cost: int) -> None:
        """Charge the work of the request to its client, before it is done. cost: see Responder.

        Raises TooManyRequests if the client must wait.
        """

    def set_stop(self, stop: str) -> None:
        """Set the stop of the current request for its statistics; "several" for more than one."""

    def store_in_memo(self, respond: Callable[[], object], stop: str) -> None:
        """Let the fast path respond to later requests with the same header section. respond, stop: see Responder."""


class Mark(Protocol):
    """The type of ResponseSender.mark()."""

    def __call__(self, phase: Phase, cache: CacheResult | None = None) -> None:
        """Record the end of a phase of the current request, and the cache's result."""


class TooManyRequests(Exception):
    """A client has exceeded its rate; a 429 is sent. seconds: until it may send the request again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class ErrorResponse(NamedTuple):
    """A response that is never cached, such as the 504 of a gateway that did not respond."""

    status: str
    """Code and reason, such as '404 Not Found'."""
    headers: Fields
    body: bytes | str
    cache: CacheResult = "none"


Fetch = Callable[[Mark], Coroutine[Any, Any, CachedResponse | ErrorResponse]]
"""Fetches the data of a response and renders it; marks the phases before rendering."""


class Responder(NamedTuple):
    """A parsed request to a cacheable module."""

    respond: Callable[[], CachedResponse | ErrorResponse | Fetch]
    """Returns the response if it is cached or made with little work, or else the function that fetches it.

    The fast path also calls it, for each repetition of the request, and falls back to the slow path unless it returns
    a CachedResponse. So nothing is fetched before the request has passed the client's limits.
    """
    stop: str = ""
    """The stop of the request, for its statistics: see ResponseSender.set_stop()."""
    cost: int = 1
    """The cost of fetching the response for its client; a response from memory costs 1.

    It is the work to be done: one for each stop and two hours, for 20 passtimes, or for 100 names that are listed,
    which is about half a millisecond.
    """


class IWebModule(Interface):
    """A service that responds to requests whose first path segment is its name."""

    def web_handler(request_handler: ResponseSender, env: "Environ") -> "WebHandler":
        """Return the handler of one request."""


class ICacheableModule(Interface):
    """Like IWebModule, for GET and HEAD, with responses that are mostly cached."""

    def responder(env: "Environ") -> "Responder | None":
        """Parse a request; return None if its path names nothing (404). Raises InvalidParameter (400).

        The Responder must be valid for all requests with the same header section.
        """


class WebHandler:
    """Responds to one request, env.

    If a method raises InvalidParameter, its text is sent as a 400.
    """

    methods: tuple[str, ...] = ("GET", "HEAD")
    """The allowed request methods; others get a 405."""

    def __init__(self, request_handler: ResponseSender, env: Environ) -> None:
        self.request_handler = request_handler
        self.env = env

    def reads_body(self) -> bool:
        """Return whether post() reads env.body. Otherwise it is called before the body is received."""
        return True

    async def get(self) -> None:
        """Respond to a GET."""
        raise NotImplementedError("a WebHandler must implement the methods that it allows")

    async def head(self) -> None:
        """Respond to a HEAD as to a GET; the connection omits the body."""
        await self.get()

    async def post(self) -> None:
        """Respond to a POST, whose body is env.body."""
        raise NotImplementedError("a WebHandler must implement the methods that it allows")

    def send_response(self, response: str | bytes, status: str = "200 Ok", headers: Headers | None = None) -> None:
        """Send the response; see ResponseSender.send_response()."""
        self.request_handler.send_response(response, status, headers)

    def send_representation(self, response: CachedResponse) -> None:
        """Send a cached response; send 304 if the client has its representation, or 412 if a precondition fails."""
        self.mark("render", response.cache)
        representation = response.representation
        etag, modified = representation.etag, representation.modified
        if precondition_failed(self.env, etag, modified):
            self.send_response(
                "The representation has changed\n", "412 Precondition Failed", {"Vary": "Accept-Encoding"}
            )
        else:
            is_unchanged = not_modified(self.env, etag, modified, self.request_handler.now)
            self.request_handler.send_representation(response, is_unchanged)

    def stream(self, headers: Headers, final_chunk: bytes) -> Stream:
        """Begin an endless response; see ResponseSender.stream()."""
        return self.request_handler.stream(headers, final_chunk)

    def mark(self, phase: Phase, cache: CacheResult | None = None) -> None:
        """Record the end of a phase; see ResponseSender.mark()."""
        self.request_handler.mark(phase, cache)


web_handler = WebHandler
"""The documented name of the class."""


class CacheableHandler(WebHandler):
    """Sends the response of a cacheable module."""

    def __init__(self, request_handler: ResponseSender, env: Environ, module: ICacheableModule) -> None:
        super().__init__(request_handler, env)
        self._module = module

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
            self.request_handler.store_in_memo(responder.respond, responder.stop)
            self.mark("lookup", response.cache)
        elif isinstance(response, ErrorResponse):
            self.mark("lookup", response.cache)
        else:
            self.request_handler.charge(responder.cost)
            response = await response(self.mark)
        if isinstance(response, CachedResponse):
            self.send_representation(response)
        else:
            self.mark("render", response.cache)
            self.send_response(response.body, response.status, response.headers)
