"""GET /kv55/<TimingPointCode>[,<TimingPointCode>...] from the live feed: DRIS_55 documents without a gateway."""

from collections.abc import Generator, Iterable, Iterator
from functools import partial
from operator import attrgetter

from twisted.application.service import Service
from zope.interface import implementer

from govi_server.departures.board import Trip
from govi_server.departures.fragments import make_part, pieces
from govi_server.departures.query import DEFAULT_HORIZON, Query
from govi_server.departures.times import DAY, parse_resolved, write_time
from govi_server.departures.timing_point import are_timing_point_codes
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import Representation, represent
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.request import Environ
from govi_server.http.response import NO_STORE, Fields
from govi_server.kv55 import messages
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import Freshness
from govi_server.kv78turbo.joined_stop import JoinedPasstime
from govi_server.kv78turbo.passtime import Passtime
from govi_server.kv78turbo.stop_departures import StopDepartures
from govi_server.modules.feed_responses import (
    DRIS_55,
    FEED_HEADERS,
    INVALID_PARAMETER,
    NOT_FOUND_HEADERS,
    UNAVAILABLE_HEADERS,
    ServedData,
    board_response,
    dris_55_noun,
    feed_response,
    no_departures,
    respond_now,
)
from govi_server.modules.query_parameters import CODES, FILTERS, echoed, read_list, read_query, stop_of
from govi_server.openapi.description import Example, IDocumented, Operation, ResponseSpec
from govi_server.web_handler import ErrorResponse, Fetch, ICacheableModule, Mark, Responder

LICENSE = "http://creativecommons.org/publicdomain/zero/1.0/"
"""The feed is in the public domain (docs/protocols.md, section 2.2)."""

_is_departure = attrgetter("is_departure")
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
        return [
            Operation(
                template, summary, responses, (CODES, *FILTERS), DRIS_55, examples, noun=noun, has_problems=False
            )
        ]

    def responder(self, env: Environ) -> Responder:
        """Parse the TimingPointCodes, the filters and the content coding. Raises InvalidParameter."""
        text = env["path_info"].removeprefix(f"/{self.name}").removeprefix("/").removesuffix("/")
        codes, compressed = read_list(text, "TimingPointCodes"), prefers_gzip(env)
        if not are_timing_point_codes(codes):
            headers = (NO_STORE,)
            return Responder(lambda: _error("404 Not Found", text, "Invalid TimingPointCode", headers))
        query = read_query(env.get("query_string", ""))
        horizon = query.horizon_or(DEFAULT_HORIZON)
        cost = self.feed.boards.cost(codes, horizon)
        if len(codes) == 1 and query == Query():
            return Responder(partial(self._respond, codes[0], text, compressed), stop_of(codes), cost)
        fetch = partial(self._fetch, codes, text, query, compressed)
        return Responder(lambda: fetch, stop_of(codes), cost)

    def _respond(self, code: str, text: str, compressed: bool) -> CachedResponse | ErrorResponse | Fetch:
        """Return the board of a single stop if it is cached, or else a function that fetches it."""
        form = ("dris_55", self.license_url, compressed)
        cached = self.feed.boards.lookup(code, form)
        if cached is None:
            return respond_now(self.feed, code, DEFAULT_HORIZON, partial(self._fetch_board, code, text, form))
        return self._board_response(text, *cached)

    async def _fetch_board(
        self, code: str, text: str, form: tuple[str, str, bool], mark: Mark
    ) -> CachedResponse | ErrorResponse:
        """Return the board of a single stop, whose document is cached until the board changes."""

        def render(board: StopDepartures) -> Generator[None, None, Representation]:
            return represent(self._pieces([self._point(board, Query())]), messages.CONTENT_TYPE, form[-1])

        await self.feed.restoration.wait((code,))
        mark("lookup")
        return self._board_response(text, *await self.feed.rendered(code, DEFAULT_HORIZON, form, render))

    def _board_response(
        self, text: str, board: StopDepartures, document: Representation
    ) -> CachedResponse | ErrorResponse:
        response = board_response(self.feed, board, document)
        return response or self._unavailable(text, self.feed.freshness(board)[0])

    async def _fetch(
        self, codes: list[str], text: str, query: Query, compressed: bool, mark: Mark
    ) -> CachedResponse | ErrorResponse:
        """Return the servable boards of the stops."""
        await self.feed.restoration.wait(codes)
        mark("lookup")
        served = ServedData()
        pieces = self._pieces(self._points(codes, query, served))
        document = await self.feed.runner.run(represent(pieces, messages.CONTENT_TYPE, compressed))
        if not served:
            return self._unavailable(text, served.reason)
        return feed_response(self.feed, document, served.freshness)

    def _unavailable(self, text: str, reason: Freshness) -> ErrorResponse:
        status, headers = no_departures(self.feed, reason)
        return _error(status, text, _REASONS.get(reason, f"Feed {self.feed.state}"), headers)

    def _pieces(self, points: Iterable[tuple[str, Iterable[bytes]] | None]) -> Iterator[bytes]:
        """Write the DRIS_55 document of stops."""
        return messages.dris_55_pieces(points, (), self.feed.clock.seconds(), self.license_url)

    def _points(
        self, codes: list[str], query: Query, served: ServedData
    ) -> Generator[tuple[str, Iterable[bytes]] | None, None, None]:
        """Make the departures of the stops that are served, in steps. served: their freshness is added to it."""
        for code in codes:
            board = yield from self.feed.boards.board_steps(code, query.horizon_or(DEFAULT_HORIZON))
            if served.add(self.feed.freshness(board)):
                yield self._point(board, query)

    def _point(self, board: StopDepartures, query: Query) -> tuple[str, Iterator[bytes]]:
        """Return a stop with its departures in pieces; arrivals are omitted."""
        selected = query.select(filter(_is_departure, board.entries), self._public_number)
        return board.code, pieces((None if entry is None else self._part(entry) for entry in selected), b"")

    def _part(self, entry: JoinedPasstime) -> tuple[bytes, bool]:
        return make_part(entry.fragments, "kv55", None, self._written, entry.passtime)

    def _written(self, passtime: Passtime) -> bytes:
        return messages.write_trip(self._trip(passtime))

    def _public_number(self, entry: JoinedPasstime) -> str:
        return self.feed.timetable.public_number(entry.passtime)

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
