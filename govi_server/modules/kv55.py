"""GET /kv55/<TimingPointCode>: the departures of a stop, as a DRIS_55 document."""

from math import floor

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from zope.interface import implementer

from govi_server.conditional import prefers_gzip
from govi_server.departures.board import Board, Busy, NoBoard, SourceBroken, SourceUnreachable
from govi_server.departures.cache import BoardCache, Entry, Result
from govi_server.environ import Environ
from govi_server.interfaces import IWebModule
from govi_server.kv55 import messages
from govi_server.request_handler import RequestHandler
from govi_server.response import Representation, represent
from govi_server.web_handler import WebHandler

RETRY_AFTER = "10"
"""Seconds after which a client may ask again for a board that the source could not tell: one more flight's time."""

MOST_ECHOED = 100
"""Characters of a wrong code that are echoed."""

# What the cache did, in the words of RFC 9211.
_CACHE_STATUS = {
    "hit": "govi-cache; hit",
    "stale": "govi-cache; hit",  # with a negative ttl, which is how a stale hit is told
    "joined": "govi-cache; fwd=miss; collapsed",
    "miss": "govi-cache; fwd=miss",
}

# What a client is told of a source that gives no board: the status, and the text of Error.
_FAILURES = {
    SourceBroken: ("502 Bad Gateway", "Unreadable answer"),
    SourceUnreachable: ("504 Gateway Timeout", "Gateway unreachable"),
    Busy: ("503 Service Unavailable", "Busy"),
    NoBoard: ("504 Gateway Timeout", "Timeout"),
}


def echoed(code: str) -> str:
    """Give what a client wrote for a code, as far as it is told again.

    A path is latin-1 for the bytes that it came in, which most clients mean as UTF-8.
    """
    return code[:MOST_ECHOED].encode("latin-1").decode("utf-8", "replace")


@implementer(IWebModule)
class Kv55(Service):
    """Answers under its name from a cache of boards."""

    def __init__(self, name: str, cache: BoardCache, license_url: str = messages.LICENSE) -> None:
        self.name = name
        self.cache = cache
        self._license_url = license_url

    def web_handler(self, request_handler: RequestHandler, env: Environ) -> "Kv55Handler":
        """Make the handler of one request."""
        return Kv55Handler(self, request_handler, env)

    def plain(self, board: Board) -> Representation:
        """Render a board as its DRIS_55 document."""
        return self._represent(board, compressed=False)

    def gzip(self, board: Board) -> Representation:
        """Render a board as its DRIS_55 document, compressed."""
        return self._represent(board, compressed=True)

    def _represent(self, board: Board, compressed: bool) -> Representation:
        document = messages.write_dris_55([board], self._license_url)
        return represent(document, messages.CONTENT_TYPE, compressed)


class Kv55Handler(WebHandler):
    """Answers one question about one stop."""

    def __init__(self, module: Kv55, request_handler: RequestHandler, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the stop's board, fresh or stale, or say why there is none."""
        code = self.env["path_info"].removeprefix(f"/{self._module.name}").removeprefix("/")
        if not messages.is_timing_point_code(code):
            self.mark("lookup")
            self._send_error("404 Not Found", code, "Invalid TimingPointCode")
            return
        result, found = self._module.cache.board(code)
        self.mark("lookup", result)
        try:
            if isinstance(found, Deferred):
                try:
                    found = await found
                finally:
                    self.mark("wait")
            self._send_board(result, found)
        except NoBoard as error:
            status, reason = next(words for kind, words in _FAILURES.items() if isinstance(error, kind))
            self._send_error(status, code, reason, result)

    def _send_board(self, result: Result, entry: Entry) -> None:
        cache = self._module.cache
        render = self._module.gzip if prefers_gzip(self.env) else self._module.plain
        made = cache.rendered(entry, render.__name__, render)
        age = cache.age(entry)
        if age > cache.limits.fresh and result != "stale":  # the flight failed: this is what there was
            result = "stale"
        self.mark("render", result)
        headers = (
            ("Cache-Control", f"public, max-age={floor(cache.limits.fresh)}"),
            ("Age", f"{floor(max(age, 0))}"),
            ("Cache-Status", f"{_CACHE_STATUS[result]}; ttl={floor(cache.limits.fresh - age)}"),
        )
        self.send_representation(made, headers, entry.board.made)

    def _send_error(self, status: str, code: str, reason: str, result: Result | None = None) -> None:
        body = messages.write_error(echoed(code), reason)
        self.mark("render")
        headers = {"Content-Type": messages.CONTENT_TYPE, "Cache-Control": "no-store"}
        if result is not None:
            headers["Retry-After"] = RETRY_AFTER
            headers["Cache-Status"] = _CACHE_STATUS[result]
        self.send_response(body, status, headers)
