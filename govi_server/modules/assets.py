"""GET /assets/<file>: the pages' static files."""

from twisted.application.service import Service
from zope.interface import implementer

from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import make_representation
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import Enum, Parameter
from govi_server.http.request import Environ
from govi_server.openapi.description import IDocumented, Operation, ResponseSpec
from govi_server.pages.assets import TYPES, content, version
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

_IMMUTABLE = "public, max-age=31536000, immutable"
_REVALIDATE = "public, no-cache"


@implementer(IWebModule, IDocumented)
class Assets(Service):
    """Serves files, which are read at startup."""

    name = "assets"

    def __init__(self) -> None:
        self.representations = {
            (name, compressed): make_representation(content(name), kind, compressed)
            for name, kind in TYPES.items()
            for compressed in (False, True)
        }

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "AssetsHandler":
        """Return the handler of one request."""
        return AssetsHandler(self, request_handler, env)

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        name = Parameter("name", Enum(tuple(TYPES)), "The file.", "front.css", "path", True)
        content_types = sorted({content_type.partition(";")[0] for content_type in TYPES.values()})
        headers = ("Cache-Control", "ETag")
        responses = (
            *(
                ResponseSpec(200, "The file.", content_type, dict if content_type.endswith("+json") else str, headers)
                for content_type in content_types
            ),
            ResponseSpec(404, "No such file."),
        )
        return [Operation("/assets/{name}", "Files of the pages", responses, (name,), section="Pages", noun="Asset")]


class AssetsHandler(WebHandler):
    """Sends a file; under the URL of its current version, which the pages use, it is immutable."""

    def __init__(self, module: Assets, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the file."""
        name = self.env["path_info"].removeprefix("/assets/")
        representation = self._module.representations.get((name, prefers_gzip(self.env)))
        self.mark("lookup")
        if representation is None:
            self.request_handler.send_not_found()
            return
        is_versioned = self.env.get("query_string", "") == f"v={version(name)}"
        headers = (("Cache-Control", _IMMUTABLE if is_versioned else _REVALIDATE),)
        self.send_representation(CachedResponse(representation, headers, "none"))
