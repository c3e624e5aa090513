"""GET /favicon.ico: the icon that browsers and link previews request without reading a page."""

from twisted.application.service import Service
from zope.interface import implementer

from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import make_representation
from govi_server.http.request import Environ
from govi_server.openapi.description import IDocumented, Operation, ResponseSpec
from govi_server.pages.assets import TYPES, content
from govi_server.web_handler import ICacheableModule, Responder


@implementer(ICacheableModule, IDocumented)
class Favicon(Service):
    """Serves the icon."""

    name = "favicon.ico"

    def __init__(self) -> None:
        representation = make_representation(content(self.name), TYPES[self.name], False)
        self._response = CachedResponse(representation, (("Cache-Control", "public, max-age=86400"),), "none")

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        success = ResponseSpec(200, "The icon.", TYPES[self.name], headers=("Cache-Control", "ETag"))
        return [Operation(f"/{self.name}", "Icon of the pages", (success,), section="Pages", noun="Favicon")]

    def responder(self, env: Environ) -> Responder | None:
        """Return the response; None for a path below it."""
        return Responder(lambda: self._response) if env["path_info"] == f"/{self.name}" else None
