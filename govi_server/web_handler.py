"""What a URL module derives from to answer one request."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from zope.interface import Interface

from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.conditional import not_modified, precondition_failed
from govi_server.http.request import Environ
from govi_server.http.response import Headers
from govi_server.http.stream import Stream
from govi_server.statistics.records import CacheResult, Phase


class IWebModule(Interface):
    """What a service must provide to answer under the URL segment that is its name."""

    def web_handler(request_handler: "RequestHandler", env: "Environ") -> "WebHandler":
        """Make the handler of one request."""


class ICacheableModule(IWebModule):
    """A module that may have an answer at hand."""

    def ready(env: "Environ") -> "Callable[[], CachedResponse | None] | None":
        """Give what answers a GET like this one from now on, as long as it can; None if nothing ever will.

        What it gives depends on nothing else of the request, and is what the WebHandler would send.
        """


if TYPE_CHECKING:
    from govi_server.request_handler import RequestHandler


class WebHandler:
    """Connects a URL module to the connection that asks: env is the request, send_response() answers it.

    Of a BadQuery that it raises the client is told with a 400.
    """

    methods: tuple[str, ...] = ("GET", "HEAD")
    """The request methods that the module answers; any other gets 405."""

    def __init__(self, request_handler: "RequestHandler", env: Environ) -> None:
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
        """Send the answer; see RequestHandler.send_response()."""
        self.request_handler.send_response(response, status, headers)

    def send_representation(self, ready: CachedResponse) -> None:
        """Send a representation, or say that the client has it, or that it is not the one the client wants."""
        self.mark("render", ready.cache)
        made = ready.representation
        if precondition_failed(self.env, made.etag, made.modified):
            self.send_response("It has changed\n", "412 Precondition Failed", {"Vary": "Accept-Encoding"})
        else:
            self.request_handler.send_representation(ready, not_modified(self.env, made.etag, made.modified))

    def stream(self, headers: Headers, farewell: bytes) -> Stream:
        """Begin an answer that goes on; see RequestHandler.stream()."""
        return self.request_handler.stream(headers, farewell)

    def mark(self, phase: Phase, cache: CacheResult | None = None) -> None:
        """Say that a phase of the request ends now, and what the cache had for it."""
        self.request_handler.mark(phase, cache)


web_handler = WebHandler
"""The name under which the class is documented."""
