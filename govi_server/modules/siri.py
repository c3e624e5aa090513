"""GET /siri/stop-monitoring.json?MonitoringRef=<TimingPointCode>: a stop's board as SIRI Lite 2.0.

What is wrong is said in the delivery's ErrorCondition, with the HTTP status that goes with it.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from twisted.application.service import Service
from zope.interface import implementer

from govi_server.departures.times import DAY, HOUR, MINUTE
from govi_server.documents.siri import ERRORS, ErrorCondition, SiriDocuments, SiriResponse, other_error
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import make_representation
from govi_server.http.caching.response_cache import ResponseCache
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import Integer, InvalidParameter, Json, Parameter, String, parse_query
from govi_server.http.request import Environ
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import SERVABLE
from govi_server.modules.feed_handler import (
    FEED_HEADERS,
    NOT_FOUND_HEADERS,
    UNAVAILABLE_HEADERS,
    FeedHandler,
    answer,
)
from govi_server.modules.query_parameters import TIMING_POINT_CODE
from govi_server.openapi.description import Example, IDocumented, Operation, ResponseSpec
from govi_server.web_handler import ICacheableModule, ResponseSender

PATH = "/siri/stop-monitoring.json"

CONTENT_TYPE = "application/json"

HORIZON = 2 * HOUR
"""Seconds that are looked ahead if nothing is said: as /kv55 does."""

_DURATION = "P(?=[0-9T])(?:([0-9]{1,3})D)?(?:T(?=[0-9])(?:([0-9]{1,3})H)?(?:([0-9]{1,4})M)?(?:([0-9]{1,5})S)?)?"


class Duration:
    """An ISO 8601 duration of days, hours, minutes and seconds, such as PT30M; more than a day counts as a day."""

    schema: Json = {"type": "string", "pattern": f"^(?:{_DURATION})$"}

    def parse(self, text: str) -> int | None:
        """Return the seconds; None if it is invalid."""
        match = re.fullmatch(_DURATION, text)
        if match is None:
            return None
        return min(
            sum(int(n or 0) * size for n, size in zip(match.groups(), (DAY, HOUR, MINUTE, 1), strict=True)), DAY
        )

    def __str__(self) -> str:
        return "an ISO 8601 duration, such as PT30M"


STOP = Parameter("MonitoringRef", TIMING_POINT_CODE, "The stop: a TimingPointCode.", "57330430", required=True)
MOST = Parameter("MaximumStopVisits", Integer("visits", 1, 9999), "The maximum number of visits.", 5)
LINE = Parameter(
    "LineRef", String(40, min_length=1), "Only this line: a LineRef of a response, or a LinePublicNumber."
)
PREVIEW = Parameter(
    "PreviewInterval", Duration(), "How far to look ahead: two hours by default, a day at most.", "PT30M"
)
PARAMETERS = (STOP, MOST, LINE, PREVIEW)

EXAMPLES = (
    Example("The next visit", f"{PATH}?MonitoringRef=57330430&MaximumStopVisits=1"),
    Example("An unknown stop", f"{PATH}?MonitoringRef=1", status=404),
    Example("A missing parameter", PATH, status=400),
)


class SiriRequest(NamedTuple):
    """What is asked for: all that an answer depends on, beside what is known of the stop."""

    code: str
    most: int | None
    line: str | None
    preview: int | None
    compressed: bool


def parse_siri_request(env: Environ) -> SiriRequest:
    """Read what a request asks for. Raises BadQuery."""
    said = parse_query(env.get("query_string", ""))
    return SiriRequest(STOP.parse(said), MOST.parse(said), LINE.parse(said), PREVIEW.parse(said), prefers_gzip(env))


@implementer(ICacheableModule, IDocumented)
class Siri(Service):
    """Answers under /siri."""

    name = "siri"

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.shapes = SiriDocuments(feed)
        self.kept = ResponseCache(feed.clock)

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "SiriHandler":
        """Make the handler of one request."""
        return SiriHandler(self, request_handler, env)

    def ready(self, env: Environ) -> Callable[[], CachedResponse | None] | None:
        """Give what answers with a stop's visits for as long as they are kept."""
        try:
            return partial(self.at_hand, parse_siri_request(env)) if env["path_info"] == PATH else None
        except InvalidParameter:
            return None

    def at_hand(self, asked: SiriRequest) -> CachedResponse | None:
        """Give the answer that is kept, if it holds."""
        return self.kept.get(asked, self.version(asked))

    def version(self, asked: SiriRequest) -> object:
        """Give what is another thing when there may be another answer."""
        return self.feed.state, self.feed.boards.version(asked.code)

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        responses = tuple(
            ResponseSpec(status, description, CONTENT_TYPE, SiriResponse, headers, optional)
            for status, description, headers, optional in (
                (200, "The stop's next visits; none if nothing comes.", FEED_HEADERS, ("Age",)),
                (400, "A parameter is missing or invalid; ErrorCondition names it.", ("Cache-Control",), ()),
                (404, "The stop is unknown (InvalidDataReferencesError).", NOT_FOUND_HEADERS, ()),
                (503, "There is no recent data.", UNAVAILABLE_HEADERS, ()),
            )
        )
        return [
            Operation(
                PATH,
                "The next visits at a stop, as SIRI Lite 2.0",
                responses,
                PARAMETERS,
                "Times have an offset. Unknown values are absent: a departure without ExpectedDepartureTime has an "
                "unknown delay, or is cancelled (DepartureStatus).",
                EXAMPLES,
            )
        ]


class SiriHandler(FeedHandler):
    """Answers one question about one stop."""

    def __init__(self, module: Siri, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self.feed = module.feed
        self._module = module

    async def get(self) -> None:
        """Send the stop's visits, or an ErrorCondition."""
        if self.env["path_info"] != PATH:
            self.mark("lookup")
            self.request_handler.send_not_found()
            return
        try:
            asked = parse_siri_request(self.env)
        except InvalidParameter as error:
            self._send_error("400 Bad Request", {"Cache-Control": "no-store"}, other_error(str(error)))
            return
        module, feed = self._module, self.feed
        ready = module.at_hand(asked)
        if ready is not None:
            self.mark("lookup")
            self.send_representation(ready)
            return
        board = feed.boards.board(asked.code, HORIZON if asked.preview is None else asked.preview)
        condition = feed.freshness(board)
        self.mark("lookup")
        if condition[0] not in SERVABLE:
            self._send_error(*self.without(condition[0]), ERRORS[condition[0]])
            return
        body = module.shapes.delivery(module.shapes.visits(board, asked.line, asked.most))
        made = make_representation(body, CONTENT_TYPE, asked.compressed)

        def say(max_age: int) -> CachedResponse:
            return answer(feed, made, [condition], max_age=max_age)

        self.send_representation(module.kept.put(asked, module.version(asked), say))

    def _send_error(self, status: str, headers: dict[str, str], error: ErrorCondition) -> None:
        self.mark("lookup")
        body = self._module.shapes.delivery([], error)
        self.mark("render")
        self.send_response(body, status, {**headers, "Content-Type": CONTENT_TYPE})
