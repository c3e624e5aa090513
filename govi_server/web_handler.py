"""What a URL module derives from to answer one request."""

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IAddress
from zope.interface import Interface

from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.conditional import not_modified, precondition_failed
from govi_server.http.request import Environ
from govi_server.http.response import Headers
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

    def send_representation(self, ready: CachedResponse, unchanged: bool) -> None:
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


class IWebModule(Interface):
    """What a service must provide to answer under the URL segment that is its name."""

    def web_handler(request_handler: ResponseSender, env: "Environ") -> "WebHandler":
        """Make the handler of one request."""


class ICacheableModule(IWebModule):
    """A module that may have an answer at hand."""

    def ready(env: "Environ") -> "Callable[[], CachedResponse | None] | None":
        """Give what answers a GET like this one from now on, as long as it can; None if nothing ever will.

        What it gives depends on nothing else of the request, and is what the WebHandler would send.
        """


class WebHandler:
    """Connects a URL module to the connection that asks: env is the request, send_response() answers it.

    Of a BadQuery that it raises the client is told with a 400.
    """

    methods: tuple[str, ...] = ("GET", "HEAD")
    """The request methods that the module answers; any other gets 405."""

    def __init__(self, request_handler: ResponseSender, env: Environ) -> None:
        self.request_handler = request_handler
        self.env = env

    async def get(self) -> None:
        """Answer a GET."""
        raise NotImplementedError("a WebHandler answers the methods that it names")

    async def head(self) -> None:
        """Answer a HEAD as a GET; the connection leaves the body out."""
        await self.get()

    async def post(self) -> None:
        """Answer a POST, whose body is env.body."""
        raise NotImplementedError("a WebHandler answers the methods that it names")

    def send_response(self, response: str | bytes, status: str = "200 Ok", headers: Headers | None = None) -> None:
        """Send the answer; see ResponseSender.send_response()."""
        self.request_handler.send_response(response, status, headers)

    def send_representation(self, ready: CachedResponse) -> None:
        """Send a representation, or say that the client has it, or that it is not the one the client wants."""
        self.mark("render", ready.cache)
        made = ready.representation
        if precondition_failed(self.env, made.etag, made.modified):
            self.send_response("It has changed\n", "412 Precondition Failed", {"Vary": "Accept-Encoding"})
        else:
            self.request_handler.send_representation(ready, not_modified(self.env, made.etag, made.modified))

    def stream(self, headers: Headers, final_chunk: bytes) -> Stream:
        """Begin an answer that goes on; see ResponseSender.stream()."""
        return self.request_handler.stream(headers, final_chunk)

    def mark(self, phase: Phase, cache: CacheResult | None = None) -> None:
        """Say that a phase of the request ends now, and what the cache had for it."""
        self.request_handler.mark(phase, cache)


web_handler = WebHandler
"""The name under which the class is documented."""
