"""GET /siri/stop-monitoring.json?MonitoringRef=<TimingPointCode>: a stop's board as SIRI Lite 2.0.

An error is an ErrorCondition in the delivery, with the corresponding HTTP status.
"""

import re
from functools import partial
from typing import NamedTuple

from twisted.application.service import Service
from zope.interface import implementer

from govi_server.departures.query import DEFAULT_HORIZON
from govi_server.departures.times import DAY, HOUR, MINUTE
from govi_server.documents.siri import ERRORS, ErrorCondition, SiriDocuments, SiriResponse, other_error, unknown_stop
from govi_server.http.caching.cached_response import CachedResponse, Validity
from govi_server.http.caching.representation import represent
from govi_server.http.caching.response_cache import ResponseCache
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import Integer, InvalidParameter, Json, Parameter, String, parse_query
from govi_server.http.request import Environ
from govi_server.http.response import NO_STORE, Fields
from govi_server.kv78turbo.display import similar_stops
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import SERVABLE
from govi_server.modules.feed_responses import (
    FEED_HEADERS,
    NOT_FOUND_HEADERS,
    UNAVAILABLE_HEADERS,
    StopValidator,
    feed_response,
    no_departures,
    respond_now,
)
from govi_server.modules.query_parameters import TIMING_POINT_CODE
from govi_server.openapi.description import Example, IDocumented, Operation, ResponseSpec
from govi_server.web_handler import ErrorResponse, Fetch, ICacheableModule, Mark, Responder

PATH = "/siri/stop-monitoring.json"

CONTENT_TYPE = "application/json"

_DURATION = "P(?=[0-9T])(?:([0-9]{1,3})D)?(?:T(?=[0-9])(?:([0-9]{1,3})H)?(?:([0-9]{1,4})M)?(?:([0-9]{1,5})S)?)?"


class Duration:
    """An ISO 8601 duration of days, hours, minutes and seconds, such as PT30M, limited to a day."""

    schema: Json = {"type": "string", "pattern": f"^(?:{_DURATION})$"}

    def parse(self, text: str) -> int | None:
        """Parse a duration into seconds; return None if it is invalid."""
        match = re.fullmatch(_DURATION, text)
        if match is None:
            return None
        return min(
            sum(int(n or 0) * size for n, size in zip(match.groups(), (DAY, HOUR, MINUTE, 1), strict=True)), DAY
        )

    def __str__(self) -> str:
        return "an ISO 8601 duration, such as PT30M"


STOP = Parameter("MonitoringRef", TIMING_POINT_CODE, "The stop: a TimingPointCode.", "57330430", required=True)
MAX_VISITS = Parameter("MaximumStopVisits", Integer("visits", 1, 9999), "The maximum number of visits.", 5)
LINE = Parameter(
    "LineRef", String(40, min_length=1), "Only this line: a LineRef of a response, or a LinePublicNumber."
)
PREVIEW = Parameter(
    "PreviewInterval", Duration(), "How far to look ahead: two hours by default, a day at most.", "PT30M"
)
PARAMETERS = (STOP, MAX_VISITS, LINE, PREVIEW)

EXAMPLES = (
    Example("The next visit", f"{PATH}?MonitoringRef=57330430&MaximumStopVisits=1"),
    Example("An unknown stop", f"{PATH}?MonitoringRef=1", status=404),
    Example("A missing parameter", PATH, status=400),
)


class SiriRequest(NamedTuple):
    """The inputs of a response, besides the departures of the stop."""

    code: str
    limit: int | None
    line: str | None
    preview: int | None
    compressed: bool


def parse_siri_request(env: Environ) -> SiriRequest:
    """Parse the query and the content coding. Raises InvalidParameter."""
    query = parse_query(env.get("query_string", ""))
    return SiriRequest(
        STOP.parse(query), MAX_VISITS.parse(query), LINE.parse(query), PREVIEW.parse(query), prefers_gzip(env)
    )


def _horizon(request: SiriRequest) -> float:
    return DEFAULT_HORIZON if request.preview is None else request.preview


@implementer(ICacheableModule, IDocumented)
class Siri(Service):
    """Serves SIRI Lite's stop monitoring."""

    name = "siri"

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._documents = SiriDocuments(feed)
        self.responses = ResponseCache(feed.clock, feed.boards.documents)

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        responses = tuple(
            ResponseSpec(status, description, CONTENT_TYPE, SiriResponse, headers, optional)
            for status, description, headers, optional in (
                (200, "The stop's next visits, if it has any.", FEED_HEADERS, ("Age",)),
                (400, "A parameter is missing or invalid; ErrorCondition names it.", ("Cache-Control",), ()),
                (404, "The stop is unknown (InvalidDataReferencesError).", NOT_FOUND_HEADERS, ()),
                (503, "No recent data is available.", UNAVAILABLE_HEADERS, ()),
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
                noun="StopMonitoring",
                has_problems=False,
            )
        ]

    def responder(self, env: Environ) -> Responder | None:
        """Parse a request; report an invalid parameter as an ErrorCondition."""
        if env["path_info"] != PATH:
            return None
        try:
            request = parse_siri_request(env)
        except InvalidParameter as error:
            condition = other_error(str(error))
            return Responder(lambda: self._error("400 Bad Request", (NO_STORE,), condition))
        cost = self._feed.boards.cost((request.code,), _horizon(request))
        return Responder(partial(self._respond, request), cost=cost)

    def _respond(self, request: SiriRequest) -> CachedResponse | ErrorResponse | Fetch:
        fetch = partial(self._fetch, request)
        return self.responses.lookup(request) or respond_now(self._feed, request.code, _horizon(request), fetch)

    async def _fetch(self, request: SiriRequest, mark: Mark) -> CachedResponse | ErrorResponse:
        """Return the stop's visits, or an ErrorCondition."""
        feed = self._feed
        await feed.restoration.wait((request.code,))
        validator = StopValidator(feed, request.code)
        board = await feed.runner.run(feed.boards.board_steps(request.code, _horizon(request)))
        freshness = feed.freshness(board)
        mark("lookup")
        if freshness[0] not in SERVABLE:
            is_unknown = freshness[0] == "unknown"
            condition = unknown_stop(similar_stops(feed, request.code)) if is_unknown else ERRORS[freshness[0]]
            return self._error(*no_departures(feed, freshness[0]), condition)
        visits = await feed.runner.run(self._documents.visits(board, request.line, request.limit))
        pieces = (self._documents.delivery(visits),)
        representation = await feed.runner.run(represent(pieces, CONTENT_TYPE, request.compressed))

        def make(max_age: int, validity: Validity | None) -> CachedResponse:
            return feed_response(feed, representation, freshness, (), max_age, validity)

        return self.responses.store(request, validator, make)

    def _error(self, status: str, headers: Fields, condition: ErrorCondition) -> ErrorResponse:
        body = self._documents.delivery([], condition)
        return ErrorResponse(status, (*headers, ("Content-Type", CONTENT_TYPE)), body)
