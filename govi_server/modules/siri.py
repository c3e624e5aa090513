"""GET /siri/stop-monitoring.json?MonitoringRef=<TimingPointCode>: a stop's board as SIRI Lite 2.0.

An error is the ErrorCondition of the delivery, with the HTTP status that goes with it.
"""

import re
from functools import partial
from typing import NamedTuple

from twisted.application.service import Service
from zope.interface import implementer

from govi_server.departures.query import DEFAULT_HORIZON
from govi_server.departures.times import DAY, HOUR, MINUTE
from govi_server.documents.siri import ERRORS, SCHEMA, SiriDocuments
from govi_server.http.caching.cached_response import CachedResponse, Validity
from govi_server.http.caching.representation import make_representation
from govi_server.http.caching.response_cache import ResponseCache
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import Integer, InvalidParameter, Json, Parameter, String, parse_query
from govi_server.http.request import Environ
from govi_server.http.response import Fields
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import SERVABLE
from govi_server.modules.feed_handler import FEED_HEADERS, StopValidator, feed_response, no_departures
from govi_server.modules.query_parameters import TIMING_POINT_CODE
from govi_server.openapi.description import Example, IDocumented, Operation, ResponseSpec
from govi_server.web_handler import ErrorResponse, Fetch, ICacheableModule, Mark, Responder

PATH = "/siri/stop-monitoring.json"

CONTENT_TYPE = "application/json"

_DURATION = "P(?=[0-9T])(?:([0-9]{1,3})D)?(?:T(?=[0-9])(?:([0-9]{1,3})H)?(?:([0-9]{1,4})M)?(?:([0-9]{1,5})S)?)?"


class Duration:
    """An ISO 8601 duration of days, hours, minutes and seconds, such as PT30M; one above a day counts as a day."""

    schema: Json = {"type": "string", "pattern": f"^(?:{_DURATION})$"}

    def read(self, text: str) -> int | None:
        """Parse a duration; return its seconds, or None if it is invalid."""
        match = re.fullmatch(_DURATION, text)
        if match is None:
            return None
        units = zip(match.groups(), (DAY, HOUR, MINUTE, 1), strict=True)
        return min(sum(int(number or 0) * unit for number, unit in units), DAY)

    def __str__(self) -> str:
        return "an ISO 8601 duration, such as PT30M"


STOP = Parameter("MonitoringRef", TIMING_POINT_CODE, "The stop: a TimingPointCode.", "57330430", required=True)
MOST = Parameter("MaximumStopVisits", Integer("visits", 1, 9999), "The most visits that are wanted.", 5)
LINE = Parameter("LineRef", String(40, least=1), "Only this line, as LineRef tells it, or by its LinePublicNumber.")
PREVIEW = Parameter(
    "PreviewInterval", Duration(), "How far to look ahead: two hours if nothing is said, a day at most.", "PT30M"
)
PARAMETERS = (STOP, MOST, LINE, PREVIEW)

EXAMPLES = (
    Example("The next visit", f"{PATH}?MonitoringRef=57330430&MaximumStopVisits=1"),
    Example("A stop that nobody knows", f"{PATH}?MonitoringRef=1", status=404),
    Example("A parameter that is missing", PATH, status=400),
)


class SiriRequest(NamedTuple):
    """All that a response depends on, besides the departures of the stop."""

    code: str
    most: int | None
    line: str | None
    preview: int | None
    compressed: bool


def parse_siri_request(env: Environ) -> SiriRequest:
    """Parse the query and the content coding. Raises InvalidParameter."""
    query = parse_query(env.get("query_string", ""))
    return SiriRequest(
        STOP.parse(query), MOST.parse(query), LINE.parse(query), PREVIEW.parse(query), prefers_gzip(env)
    )


@implementer(ICacheableModule, IDocumented)
class Siri(Service):
    """Responds under /siri."""

    name = "siri"

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._documents = SiriDocuments(feed)
        self.responses = ResponseCache(feed.clock)

    def describe(self) -> list[Operation]:
        """Declare the one path."""
        about = ("Cache-Control", "Feed-State")
        answers = (
            ResponseSpec(
                200,
                "The stop's next visits, and none if nothing comes.",
                CONTENT_TYPE,
                SCHEMA,
                FEED_HEADERS,
                ("Age",),
            ),
            ResponseSpec(
                400, "A parameter is missing or wrong; ErrorCondition names it.", CONTENT_TYPE, SCHEMA, about[:1]
            ),
            ResponseSpec(404, "There is no such stop (InvalidDataReferencesError).", CONTENT_TYPE, SCHEMA, about),
            ResponseSpec(503, "Nothing recent is known.", CONTENT_TYPE, SCHEMA, (*about, "Retry-After")),
        )
        return [
            Operation(
                PATH,
                "The next visits at a stop, as SIRI Lite 2.0",
                answers,
                PARAMETERS,
                "Moments have their offset. What is not known is left out: a departure without ExpectedDepartureTime "
                "is one whose delay nobody knows, or that is cancelled (DepartureStatus).",
                EXAMPLES,
            )
        ]

    def responder(self, env: Environ) -> Responder | None:
        """Parse a request; an invalid parameter becomes an ErrorCondition."""
        if env["path_info"] != PATH:
            return None
        try:
            request = parse_siri_request(env)
        except InvalidParameter as error:
            condition = ("OtherError", str(error))
            return Responder(lambda: self._error("400 Bad Request", (("Cache-Control", "no-store"),), condition))
        return Responder(partial(self._respond, request))

    def _respond(self, request: SiriRequest) -> CachedResponse | Fetch:
        return self.responses.lookup(request) or partial(self._fetch, request)

    async def _fetch(self, request: SiriRequest, mark: Mark) -> CachedResponse | ErrorResponse:
        """Return the stop's visits, or an ErrorCondition."""
        feed = self._feed
        validator = StopValidator(feed, request.code)
        board = feed.boards.board(request.code, DEFAULT_HORIZON if request.preview is None else request.preview)
        freshness = feed.freshness(board)
        mark("lookup")
        if freshness[0] not in SERVABLE:
            return self._error(*no_departures(feed, freshness[0]), ERRORS[freshness[0]])
        body = self._documents.delivery(self._documents.visits(board, request.line, request.most))
        representation = make_representation(body, CONTENT_TYPE, request.compressed)

        def make(max_age: int, validity: Validity | None) -> CachedResponse:
            return feed_response(feed, representation, freshness, (), max_age, validity)

        return self.responses.store(request, validator, make)

    def _error(self, status: str, headers: Fields, condition: tuple[str, str]) -> ErrorResponse:
        body = self._documents.delivery([], condition)
        return ErrorResponse(status, (*headers, ("Content-Type", CONTENT_TYPE)), body)
