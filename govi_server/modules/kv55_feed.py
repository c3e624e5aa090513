"""GET /kv55/<TimingPointCode>[,<TimingPointCode>...] from the live feed: DRIS_55 documents without a gateway."""

from collections.abc import Generator
from functools import partial

from twisted.application.service import Service
from zope.interface import implementer

from govi_server.departures.board import Board, Trip
from govi_server.departures.query import DEFAULT_HORIZON, Query
from govi_server.departures.times import DAY, parse_resolved, write_time
from govi_server.departures.timing_point import is_timing_point_code
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import Representation, make_representation
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.request import Environ
from govi_server.http.response import NO_STORE, Fields
from govi_server.kv55 import messages
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import SERVABLE, Freshness
from govi_server.kv78turbo.passtime import Passtime
from govi_server.kv78turbo.stop_departures import StopDepartures
from govi_server.modules.feed_responses import (
    DRIS_55,
    FEED_HEADERS,
    INVALID_PARAMETER,
    NOT_FOUND_HEADERS,
    UNAVAILABLE_HEADERS,
    board_response,
    dris_55_noun,
    feed_response,
    no_departures,
    oldest,
    reason_of,
)
from govi_server.modules.query_parameters import CODES, FILTERS, MAX_CODES, echoed, read_query, split, stop_of
from govi_server.openapi.description import Example, IDocumented, Operation, ResponseSpec
from govi_server.runtime.cooperative import run_now
from govi_server.web_handler import ErrorResponse, ICacheableModule, Mark, Responder

LICENSE = "http://creativecommons.org/publicdomain/zero/1.0/"
"""The feed is in the public domain (docs/protocols.md, section 2.2)."""

_REASONS: dict[Freshness, str] = {"unknown": "Unknown TimingPointCode", "old": "Too old"}


@implementer(ICacheableModule, IDocumented)
class Kv55Feed(Service):
    """Serves DRIS_55 documents from the live feed."""

    def __init__(self, name: str, feed: Feed, license_url: str = LICENSE) -> None:
        self.name = name
        self.feed = feed
        self.license_url = license_url

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        xml, error = "text/xml", "DRIS_55 with Error"
        responses = (
            ResponseSpec(
                200, "The boards of the known stops, as a DRIS_55 document.", xml, str, FEED_HEADERS, ("Age",)
            ),
            INVALID_PARAMETER,
            ResponseSpec(
                404, f"None of the stops is known; {error}.", xml, str, NOT_FOUND_HEADERS[:1], NOT_FOUND_HEADERS[1:]
            ),
            ResponseSpec(503, f"No recent data is available; {error}.", xml, str, UNAVAILABLE_HEADERS),
        )
        examples = (
            Example("A board", f"/{self.name}/57330430?limit=1"),
            Example("An unknown stop", f"/{self.name}/1", status=404),
        )
        template, summary = f"/{self.name}/{{TimingPointCodes}}", "The departures of stops, as DRIS_55"
        noun = dris_55_noun(f"{self.name}")
        return [Operation(template, summary, responses, (CODES, *FILTERS), DRIS_55, examples, noun=noun)]

    def responder(self, env: Environ) -> Responder:
        """Parse the TimingPointCodes, the filters and the content coding. Raises InvalidParameter."""
        text = env["path_info"].removeprefix(f"/{self.name}").removeprefix("/").removesuffix("/")
        codes, compressed = split(text), prefers_gzip(env)
        if not codes or len(codes) > MAX_CODES or not all(map(is_timing_point_code, codes)):
            headers = (NO_STORE,)
            return Responder(lambda: _error("404 Not Found", text, "Invalid TimingPointCode", headers))
        query = read_query(env.get("query_string", ""))
        if len(codes) == 1 and query == Query():
            return Responder(partial(self._respond, codes[0], text, compressed), stop_of(codes))
        fetch = partial(self._fetch, codes, text, query, compressed)
        return Responder(lambda: fetch, stop_of(codes))

    def _respond(self, code: str, text: str, compressed: bool) -> CachedResponse | ErrorResponse:
        """Return the board of a single stop, whose document is cached until the board changes."""
        form = ("dris_55", self.license_url, compressed)
        render = self._gzip if compressed else self._plain
        board, document = self.feed.boards.rendered(code, DEFAULT_HORIZON, form, render)
        return board_response(self.feed, board, document) or self._unavailable(text, [board])

    async def _fetch(
        self, codes: list[str], text: str, query: Query, compressed: bool, mark: Mark
    ) -> CachedResponse | ErrorResponse:
        """Return the servable boards of the stops."""
        feed = self.feed
        boards = await feed.runner.run(feed.boards.boards(codes, query.horizon_or(DEFAULT_HORIZON)))
        mark("lookup")
        freshness = {board.code: feed.freshness(board) for board in boards}
        served = [board for board in boards if freshness[board.code][0] in SERVABLE]
        if not served:
            return self._unavailable(text, boards)
        document = await feed.runner.run(self.document(served, query, compressed))
        return feed_response(feed, document, oldest(freshness[board.code] for board in served))

    def _unavailable(self, text: str, boards: list[StopDepartures]) -> ErrorResponse:
        reason = reason_of(self.feed, boards)
        status, headers = no_departures(self.feed, reason)
        return _error(status, text, _REASONS.get(reason, f"Feed {self.feed.state}"), headers)

    def _plain(self, board: StopDepartures) -> Representation:
        return run_now(self.document([board], Query(), compressed=False))

    def _gzip(self, board: StopDepartures) -> Representation:
        return run_now(self.document([board], Query(), compressed=True))

    def document(
        self, boards: list[StopDepartures], query: Query, compressed: bool
    ) -> Generator[None, None, Representation]:
        """Render the DRIS_55 document of the stops' departures in steps; arrivals are omitted."""
        now, public_number = self.feed.clock.seconds(), self.feed.timetable.public_number
        selected = []
        for board in boards:
            departures = (passtime for passtime in board.passtimes if passtime.is_departure)
            trips = tuple(map(self._trip, query.select(departures, public_number)))
            selected.append(Board(board.code, trips, now))
            yield
        body = messages.write_dris_55(selected, self.license_url)
        return make_representation(body, messages.CONTENT_TYPE, compressed)

    def _trip(self, passtime: Passtime) -> Trip:
        """Return the trip of a passtime. Clients require its departure times: a known time substitutes for each."""
        timetable = self.feed.timetable
        arrival, expected_arrival = passtime.target_arrival_time, passtime.expected_arrival_time
        departure, expected_departure = passtime.target_departure_time, passtime.expected_departure_time
        return Trip(
            operating_date=passtime.operation_date.isoformat(),
            data_owner_code=passtime.data_owner_code,
            line_planning_number=passtime.line_planning_number,
            line_public_number=timetable.public_number(passtime),
            destination_name=timetable.destination(passtime),
            journey_number=passtime.journey_number,
            fortify_order_number=passtime.fortify_order_number,
            target_arrival_time=_of_day(arrival),
            expected_arrival_time=_of_day(expected_arrival or arrival),
            target_departure_time=_of_day(departure or expected_departure or arrival or expected_arrival),
            expected_departure_time=_of_day(expected_departure or departure or expected_arrival or arrival),
            trip_stop_status=passtime.reported_status,
        )


def _of_day(time: str | None) -> str | None:
    """Return a time as KV55 writes it, without a day: one before the operating date is a time of the day before."""
    if time is None or not time.startswith("-"):
        return time
    return write_time(parse_resolved(time) % DAY)


def _error(status: str, code: str, reason: str, headers: Fields) -> ErrorResponse:
    """Return a DRIS_55 document with Error."""
    headers = (*headers, ("Content-Type", messages.CONTENT_TYPE))
    return ErrorResponse(status, headers, messages.write_error(echoed(code), reason))
