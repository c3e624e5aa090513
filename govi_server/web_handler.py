"""What a URL module derives from to answer one request."""

from typing import TYPE_CHECKING

from govi_server.conditional import has_changed, not_modified
from govi_server.environ import Environ
from govi_server.ready import Ready
from govi_server.response import Headers
from govi_server.statistics import CacheResult, Phase
from govi_server.stream import Stream

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

    def send_representation(self, ready: Ready) -> None:
        """Send a representation, or say that the client has it, or that it is not the one the client wants."""
        self.mark("render", ready.cache)
        made = ready.made
        if has_changed(self.env, made.etag, made.modified):
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
