"""GET /kv55/<TimingPointCode>: the departures of a stop from the GOVI gateway, as a DRIS_55 document."""

from functools import partial
from math import floor

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from zope.interface import implementer

from govi_server.departures.board import Board
from govi_server.departures.cache import BoardCache, Entry, Result
from govi_server.departures.source import Busy, NoBoard, SourceBroken, SourceUnreachable
from govi_server.departures.timing_point import is_timing_point_code
from govi_server.http.caching.cached_response import CachedResponse, Validity, cache_status, cached_response
from govi_server.http.caching.representation import Representation, make_representation
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import Parameter
from govi_server.http.request import Environ
from govi_server.http.response import NO_STORE
from govi_server.kv55 import messages
from govi_server.modules.feed_responses import DRIS_55, dris_55_noun
from govi_server.modules.query_parameters import TIMING_POINT_CODE, echoed
from govi_server.openapi.description import Example, IDocumented, Operation, ResponseSpec
from govi_server.runtime.failures import release
from govi_server.web_handler import ErrorResponse, Fetch, ICacheableModule, Mark, Responder

RETRY_AFTER = "10"
"""Seconds after which a client may retry: the maximum duration of another request to the gateway."""

_FAILURES = {
    SourceBroken: ("502 Bad Gateway", "Unreadable answer"),
    SourceUnreachable: ("504 Gateway Timeout", "Gateway unreachable"),
    Busy: ("503 Service Unavailable", "Busy"),
    NoBoard: ("504 Gateway Timeout", "Timeout"),
}
"""Responses to a failing gateway: the status and the text of Error, for the first class that matches."""


@implementer(ICacheableModule, IDocumented)
class Kv55Gateway(Service):
    """Serves DRIS_55 documents from a cache of boards."""

    def __init__(self, name: str, cache: BoardCache, license_url: str = messages.LICENSE) -> None:
        self.name = name
        self.cache = cache
        self._license_url = license_url

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        xml = "text/xml"
        success = ("Age", "Cache-Control", "Cache-Status", "ETag", "Last-Modified")
        failure = ("Cache-Control", "Cache-Status", "Retry-After")
        responses = (
            ResponseSpec(200, "The board, as a DRIS_55 document.", xml, str, success),
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
        noun = dris_55_noun(f"{self.name}")
        return [Operation(template, summary, responses, (code,), DRIS_55, examples, noun=noun, has_problems=False)]

    def responder(self, env: Environ) -> Responder:
        """Parse the TimingPointCode and the content coding."""
        code = env["path_info"].removeprefix(f"/{self.name}").removeprefix("/")
        if not is_timing_point_code(code):
            return Responder(lambda: _error("404 Not Found", code, "Invalid TimingPointCode"))
        return Responder(partial(self._respond, code, prefers_gzip(env)), code)

    def _respond(self, code: str, compressed: bool) -> CachedResponse | Fetch:
        entry = self.cache.fresh(code)
        if entry is None:
            return partial(self._fetch, code, compressed)
        return self._cached_response(entry, "hit", compressed)

    async def _fetch(self, code: str, compressed: bool, mark: Mark) -> CachedResponse | ErrorResponse:
        """Return the board, fresh or stale, or an error."""
        result, entry = self.cache.board(code)
        mark("lookup", result)
        try:
            if isinstance(entry, Deferred):
                try:
                    entry = await entry
                finally:
                    mark("wait")
            return self._cached_response(entry, result, compressed)
        except NoBoard as error:
            release(error)
            status, reason = next(
                failure for error_class, failure in _FAILURES.items() if isinstance(error, error_class)
            )
            return _error(status, code, reason, result)

    def _cached_response(self, entry: Entry, result: Result, compressed: bool) -> CachedResponse:
        """Return the DRIS_55 document of a board, gzip or plain."""
        representation = self.cache.rendered(entry, compressed, self._gzip if compressed else self._plain)
        age, fresh = self.cache.age(entry), self.cache.limits.fresh
        if age > fresh and result != "stale":  # the gateway failed, and this is the last board
            result = "stale"
        validity = None
        if result == "hit":  # valid until Age or ttl changes, in whole seconds
            now = entry.board.received_at + age
            validity = Validity(now, now + min(1 - age % 1, (fresh - age) % 1), entry)
        max_age, ttl = int(fresh), floor(fresh - age)
        return cached_response(representation, result, max_age, ttl, max(int(age), 0), validity=validity)

    def _plain(self, board: Board) -> Representation:
        document = messages.write_dris_55([board], self._license_url)
        return make_representation(document, messages.CONTENT_TYPE, False, board.received_at)

    def _gzip(self, board: Board) -> Representation:
        document = messages.write_dris_55([board], self._license_url)
        return make_representation(document, messages.CONTENT_TYPE, True, board.received_at)


def _error(status: str, code: str, reason: str, result: Result | None = None) -> ErrorResponse:
    """Return a DRIS_55 document with Error. result: the cache result; None without a lookup."""
    headers = [("Content-Type", messages.CONTENT_TYPE), NO_STORE]
    if result is not None:
        headers += [("Retry-After", RETRY_AFTER), ("Cache-Status", cache_status(result))]
    return ErrorResponse(status, tuple(headers), messages.write_error(echoed(code), reason), result or "none")
