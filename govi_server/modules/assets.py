"""GET /assets/<name>: what pages are made of, each a file of the folder pages."""

from pathlib import Path as File

from twisted.application.service import Service
from zope.interface import implementer

from govi_server.conditional import prefers_gzip
from govi_server.contract import TEXT, Answer, Choice, Parameter, Path
from govi_server.environ import Environ
from govi_server.interfaces import IDeclared, IWebModule
from govi_server.request_handler import RequestHandler
from govi_server.response import Representation, represent
from govi_server.web_handler import WebHandler

FOLDER = File(__file__).parent.parent / "pages"

MAX_AGE = 300
"""Seconds for which a client may keep a file: a new release has the same names."""

_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@implementer(IWebModule, IDeclared)
class Assets(Service):
    """Answers under /assets with what was in the folder at the start."""

    name = "assets"

    def __init__(self) -> None:
        self.files: dict[str, tuple[Representation, Representation]] = {}
        """Each file plain and compressed."""
        for file in sorted(FOLDER.iterdir()):
            if content_type := _TYPES.get(file.suffix):
                body = file.read_bytes()
                self.files[file.name] = represent(body, content_type, False), represent(body, content_type, True)

    def web_handler(self, request_handler: RequestHandler, env: Environ) -> "AssetsHandler":
        """Make the handler of one request."""
        return AssetsHandler(self, request_handler, env)

    def contract(self) -> list[Path]:
        """Declare the one path."""
        name = Parameter("name", Choice(tuple(self.files)), "The file.", "front.css", "path", True)
        answers = (
            *(Answer(200, "The file.", content_type.partition(";")[0], TEXT) for content_type in _TYPES.values()),
            Answer(404, "There is no such file."),
        )
        return [Path("/assets/{name}", "What pages are made of", answers, (name,), section="Pages")]


class AssetsHandler(WebHandler):
    """Answers for one file."""

    def __init__(self, module: Assets, request_handler: RequestHandler, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the file."""
        found = self._module.files.get(self.env["path_info"].removeprefix("/assets/"))
        self.mark("lookup")
        if found is None:
            self.request_handler.send_not_found()
        else:
            made = found[prefers_gzip(self.env)]
            self.send_representation(made, {"Cache-Control": f"public, max-age={MAX_AGE}"})
