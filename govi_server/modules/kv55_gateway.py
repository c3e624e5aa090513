"""GET /kv55/<TimingPointCode>: the departures of a stop, as a DRIS_55 document."""

from collections.abc import Callable
from functools import partial
from math import floor

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from zope.interface import implementer

from govi_server.departures.board import Board
from govi_server.departures.cache import BoardCache, Entry, Result
from govi_server.departures.source import Busy, NoBoard, SourceBroken, SourceUnreachable
from govi_server.departures.timing_point import is_timing_point_code
from govi_server.http.caching.cached_response import CACHE_STATUS, CachedResponse, cached_response
from govi_server.http.caching.representation import Representation, make_representation
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import Parameter
from govi_server.http.request import Environ
from govi_server.kv55 import messages
from govi_server.modules.feed_handler import DRIS_55
from govi_server.modules.query_parameters import TIMING_POINT_CODE, echoed
from govi_server.openapi.description import Example, IDocumented, Operation, ResponseSpec
from govi_server.web_handler import ICacheableModule, ResponseSender, WebHandler

RETRY_AFTER = "10"
"""Seconds after which a client may ask again for a board that the source could not tell: one more flight's time."""


# What a client is told of a source that gives no board: the status, and the text of Error.
_FAILURES = {
    SourceBroken: ("502 Bad Gateway", "Unreadable answer"),
    SourceUnreachable: ("504 Gateway Timeout", "Gateway unreachable"),
    Busy: ("503 Service Unavailable", "Busy"),
    NoBoard: ("504 Gateway Timeout", "Timeout"),
}


@implementer(ICacheableModule, IDocumented)
class Kv55Gateway(Service):
    """Answers under its name from a cache of boards."""

    def __init__(self, name: str, cache: BoardCache, license_url: str = messages.LICENSE) -> None:
        self.name = name
        self.cache = cache
        self._license_url = license_url

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "Kv55GatewayHandler":
        """Make the handler of one request."""
        return Kv55GatewayHandler(self, request_handler, env)

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        xml = "text/xml"
        success = ("Age", "Cache-Control", "Cache-Status", "ETag", "Last-Modified")
        failure = ("Cache-Control", "Cache-Status", "Retry-After")
        responses = (
            ResponseSpec(200, "The board, a DRIS_55 document.", xml, str, success),
            ResponseSpec(404, "The TimingPointCode is invalid; DRIS_55 with Error.", xml, str, ("Cache-Control",)),
            ResponseSpec(502, "The gateway's response is invalid; DRIS_55 with Error.", xml, str, failure),
            ResponseSpec(503, "Too many gateway requests are pending; DRIS_55 with Error.", xml, str, failure),
            ResponseSpec(504, "The gateway did not respond; DRIS_55 with Error.", xml, str, failure),
        )
        code = Parameter("TimingPointCode", TIMING_POINT_CODE, "A stop.", "57330430", "path", True)
        examples = (
            Example("A board", f"/{self.name}/57330430"),
            Example("An invalid TimingPointCode", f"/{self.name}/station", status=404),
        )
        template, summary = f"/{self.name}/{{TimingPointCode}}", "The departures of a stop, as DRIS_55"
        return [Operation(template, summary, responses, (code,), DRIS_55, examples)]

    def ready(self, env: Environ) -> Callable[[], CachedResponse | None] | None:
        """Give what answers from the cache for as long as there is a hit."""
        code = self.code(env)
        return partial(self._hit, code, prefers_gzip(env)) if is_timing_point_code(code) else None

    def _hit(self, code: str, compressed: bool) -> CachedResponse | None:
        entry = self.cache.fresh(code)
        return None if entry is None else self.answer(entry, "hit", compressed)

    def code(self, env: Environ) -> str:
        """Give the code that a path asks for, whatever it is."""
        return env["path_info"].removeprefix(f"/{self.name}").removeprefix("/")

    def answer(self, entry: Entry, result: Result, compressed: bool) -> CachedResponse:
        """Answer with the DRIS_55 document of a board, gzip or plain."""
        made = self.cache.rendered(entry, compressed, self._gzip if compressed else self._plain)
        age, fresh = self.cache.age(entry), self.cache.limits.fresh
        if age > fresh and result != "stale":  # the flight failed: this is what there was
            result = "stale"
        ready = cached_response(made, result, int(fresh), floor(fresh - age), max(int(age), 0))
        if result == "hit":  # its Date, its Age and its ttl are whole seconds
            now = entry.board.received_at + age
            ready.set_validity(now, now + min(1 - now % 1, 1 - age % 1, (fresh - age) % 1), entry)
        return ready

    def _plain(self, board: Board) -> Representation:
        document = messages.write_dris_55([board], self._license_url)
        return make_representation(document, messages.CONTENT_TYPE, False, board.received_at)

    def _gzip(self, board: Board) -> Representation:
        document = messages.write_dris_55([board], self._license_url)
        return make_representation(document, messages.CONTENT_TYPE, True, board.received_at)


class Kv55GatewayHandler(WebHandler):
    """Answers one question about one stop."""

    def __init__(self, module: Kv55Gateway, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the stop's board, fresh or stale, or say why there is none."""
        code = self._module.code(self.env)
        if not is_timing_point_code(code):
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
            self.send_representation(self._module.answer(found, result, prefers_gzip(self.env)))
        except NoBoard as error:
            status, reason = next(words for kind, words in _FAILURES.items() if isinstance(error, kind))
            self._send_error(status, code, reason, result)

    def _send_error(self, status: str, code: str, reason: str, result: Result | None = None) -> None:
        body = messages.write_error(echoed(code), reason)
        self.mark("render")
        headers = {"Content-Type": messages.CONTENT_TYPE, "Cache-Control": "no-store"}
        if result is not None:
            headers["Retry-After"] = RETRY_AFTER
            headers["Cache-Status"] = CACHE_STATUS[result]
        self.send_response(body, status, headers)
