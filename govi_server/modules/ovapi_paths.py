"""The responses under a path of OVapi: everything of its kind, the members of a list, or the boards of stops."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Sequence
from functools import partial
from math import ceil
from typing import NamedTuple

import msgspec

from govi_server.departures.query import Query
from govi_server.departures.timing_point import are_timing_point_codes
from govi_server.documents.json_pieces import json_object
from govi_server.documents.ovapi import OVAPI_HORIZON, OvapiDocuments
from govi_server.http.caching.cached_response import CachedResponse, Validator, VersionValidator
from govi_server.http.caching.representation import Representation, represent
from govi_server.http.cors import OVAPI_HEADERS
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import InvalidParameter
from govi_server.http.request import Environ
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import Freshness
from govi_server.kv78turbo.stop_departures import StopDepartures
from govi_server.modules import ovapi_operations
from govi_server.modules.feed_responses import ServedData, board_response, feed_response, no_departures, respond_now
from govi_server.modules.query_parameters import MAX_CODES, read_list, read_query, stop_of
from govi_server.openapi.description import Operation
from govi_server.web_handler import ErrorResponse, Fetch, Mark, Responder

CONTENT_TYPE = "application/json;charset=utf-8"

EMPTY_BODY = b"[]"
"""The body of a response without results."""

COST_NAMES = 100
"""Stops, areas, lines or journeys that cost a client as much as one request if they are listed without passes."""

_encode = msgspec.json.Encoder().encode


class OvapiRequest(NamedTuple):
    """A parsed path of OVapi, without its first segment."""

    codes: Sequence[str]
    """The members of the comma-separated list; empty for everything of this kind."""
    suffix: str
    """The segment after the list, "" for none."""
    query: Query
    compressed: bool


Members = Generator[tuple[str, bytes] | None, None, None]
"""The members of a response with their encoded values; None is a step without one."""


class OvapiPaths(ABC):
    """The responses under one first segment of OVapi: everything of its kind, or the members of a list."""

    operations: list[Operation]
    """Their descriptions."""

    suffixes: tuple[str, ...] = ()
    """Valid segments after the list."""
    list_name = "Codes"
    """The name of the list in errors."""
    has_boards = False
    """Whether the responses are boards of stops, filtered by the query."""

    def __init__(self, feed: Feed, documents: OvapiDocuments) -> None:
        self.feed = feed
        self.documents = documents

    def parse(self, env: Environ) -> OvapiRequest | None:
        """Parse a path and its query; return None if the path is unknown. Raises InvalidParameter."""
        parts = env["path_info"].removesuffix("/").split("/")[2:]
        suffix = parts[1] if len(parts) > 1 else ""
        codes = read_list(parts[0], self.list_name) if parts else []
        if parts and not codes:  # "/tpc/," does not mean all stops
            return None
        if len(parts) > 2 or (len(parts) == 2 and suffix not in self.suffixes):
            return None
        query = read_query(env.get("query_string", "")) if codes and self.has_boards else Query()
        return OvapiRequest(codes, suffix, query, prefers_gzip(env))

    def responder(self, request: OvapiRequest) -> Responder:
        """Return the responder of a request."""
        fetch = partial(self.fetch, request)
        cost = sum(map(self.cost, request.codes)) if request.codes else ceil(self.size / COST_NAMES)
        return Responder(lambda: fetch, cost=cost)

    @property
    def size(self) -> int:
        """The number of members of everything."""
        return 0

    def cost(self, code: str) -> int:
        """Return the cost of a member of a list; see Responder."""
        return 1

    async def fetch(self, request: OvapiRequest, mark: Mark) -> CachedResponse | ErrorResponse:
        """Return what is served of the request, or an error."""
        await self.feed.restoration.wait(self.needed_stops(request))
        mark("lookup")
        served = ServedData()
        members = self.members(request, served) if request.codes else self.everything(served)
        pieces = json_object(members)
        representation = await self.feed.runner.run(represent(pieces, CONTENT_TYPE, request.compressed))
        if not served:
            return self.error_response(served.reason)
        return feed_response(self.feed, representation, served.freshness, OVAPI_HEADERS)

    def needed_stops(self, request: OvapiRequest) -> Collection[str]:
        """Return the stops whose departures a response needs."""
        return ()

    def everything(self, served: ServedData) -> Members:
        """Make everything of this kind, in steps. served: the freshness is added to it."""
        for member in self.all():
            if member is not None and not served:
                served.add(("fresh", 0.0))
            yield member

    @abstractmethod
    def all(self) -> Members:
        """Make everything of this kind, in steps."""

    def members(self, request: OvapiRequest, served: ServedData) -> Members:
        """Make the members of a list that are served, in steps. served: their freshness is added to it."""
        for code in request.codes:
            value = yield from self.member(code, request.suffix)
            if value is None:
                served.add(("unknown" if self.feed.is_complete else "down", 0.0))
            elif served.add(self.feed.operator_freshness(code.partition("_")[0])):
                yield code, value

    def member(self, code: str, suffix: str) -> Generator[None, None, bytes | None]:
        """Return a member of a list, encoded, in steps; None if its code is unknown."""
        yield
        return None

    def error_response(self, reason: Freshness) -> ErrorResponse:
        """Return an error response for a reason."""
        status, headers = no_departures(self.feed, reason)
        return ErrorResponse(status, (*OVAPI_HEADERS, *headers, ("Content-Type", CONTENT_TYPE)), EMPTY_BODY)


class StopPaths(OvapiPaths):
    """/tpc/, /tpc/<TimingPointCode,...>[/departures]."""

    operations = ovapi_operations.STOPS

    suffixes = ("departures",)
    list_name = "TimingPointCodes"
    has_boards = True

    def responder(self, request: OvapiRequest) -> Responder:
        """Return the responder of a request: for a board that may be cached, or for those of several stops.

        Raises InvalidParameter for too many stops.
        """
        if not request.codes:
            return super().responder(request)
        n_stops = sum(len(self.stops(member)) for member in request.codes)
        if n_stops > MAX_CODES:
            raise InvalidParameter(f"{self.list_name} must have at most {MAX_CODES} stops, not {n_stops}")
        stops = [(member, code) for member in request.codes for code in self.stops(member)]
        if not stops and not self.feed.restoration.is_running:
            return Responder(lambda: self.error_response(self._unknown()))
        horizon = request.query.horizon_or(OVAPI_HORIZON)
        cost = self.feed.boards.cost((code for _, code in stops), horizon)
        if len(stops) != 1 or request.query != Query():
            fetch = partial(self.fetch, request)
            return Responder(lambda: fetch, self.stop(request), cost)
        return Responder(partial(self._respond, request, *stops[0]), self.stop(request), cost)

    def _unknown(self) -> Freshness:
        """Return what is known of an area without stops."""
        return "unknown" if self.feed.timetable.n_areas or self.feed.is_complete else "down"

    def needed_stops(self, request: OvapiRequest) -> Collection[str]:
        """Return the stops of the list; that of an unknown member is the member."""
        return [code for member in request.codes for code in self.stops(member) or (member,)]

    def stop(self, request: OvapiRequest) -> str:
        """Return the stop of a request, for its statistics."""
        return stop_of(request.codes) if are_timing_point_codes(request.codes) else ""

    def area(self, member: str) -> str:
        """Return the area that a member of the list names, "" for a stop."""
        return ""

    def stops(self, member: str) -> Collection[str]:
        """Return the stops of a member of the list."""
        return (member,)

    def validator(self, request: OvapiRequest, code: str) -> Validator | None:
        """Return what a response with the board of a stop depends on; None if only on the stop's departures."""
        return None

    def _respond(self, request: OvapiRequest, member: str, code: str) -> CachedResponse | ErrorResponse | Fetch:
        """Return the board of a list's only stop if it is cached, or else a function that fetches it."""
        if [stop for area in request.codes for stop in self.stops(area)] != [code]:
            return partial(self.fetch, request)  # other stops have joined its area since
        form = ("ovapi", request.suffix, request.compressed, self.area(member))
        cached = self.feed.boards.lookup(code, form)
        if cached is not None:
            return self._board_response(request, *cached)
        return respond_now(self.feed, code, OVAPI_HORIZON, partial(self._fetch_board, request, code, form))

    async def _fetch_board(
        self, request: OvapiRequest, code: str, form: tuple[str, str, bool, str], mark: Mark
    ) -> CachedResponse | ErrorResponse:
        def render(board: StopDepartures) -> Generator[None, None, Representation]:
            document = yield from self.document(board, request)
            area = form[-1]
            if area:
                document = b"{%b:{%b:%b}}" % (_encode(area), _encode(code), document)
            else:
                document = b"{%b:%b}" % (_encode(code), document)
            return (yield from represent((document,), CONTENT_TYPE, request.compressed))

        await self.feed.restoration.wait((code,))
        mark("lookup")
        return self._board_response(request, *await self.feed.rendered(code, OVAPI_HORIZON, form, render))

    def _board_response(
        self, request: OvapiRequest, board: StopDepartures, representation: Representation
    ) -> CachedResponse | ErrorResponse:
        validator = self.validator(request, board.code)
        response = board_response(self.feed, board, representation, OVAPI_HEADERS, validator)
        return response or self.error_response(self.feed.freshness(board)[0])

    def document(self, board: StopDepartures, request: OvapiRequest) -> Generator[None, None, bytes]:
        """Return the document of a stop, in steps."""
        return self.documents.board(board, request.query, request.suffix == "departures")

    @property
    def size(self) -> int:
        """The number of members of everything."""
        return self.feed.timetable.n_stops + len(self.feed.passtimes.stops)

    def all(self) -> Members:
        """Make the number of live passtimes of every stop, in steps."""
        for code in self.feed.stop_codes:
            stop = self.feed.passtimes.stops.get(code)
            yield code, b"%d" % (0 if stop is None else len(stop.passtimes))

    def members(self, request: OvapiRequest, served: ServedData) -> Members:
        """Make the boards of the stops that are served, in steps."""
        return self.boards(request.codes, request, served)

    def boards(self, codes: Sequence[str], request: OvapiRequest, served: ServedData) -> Members:
        """Make the boards of stops that are served, in steps. served: their freshness is added to it."""
        horizon = request.query.horizon_or(OVAPI_HORIZON)
        for code in codes:
            board = yield from self.feed.boards.board_steps(code, horizon)
            if served.add(self.feed.freshness(board)):
                yield code, (yield from self.document(board, request))


class StopAreaPaths(StopPaths):
    """/stopareacode/, /stopareacode/<StopAreaCode,...>[/departures]."""

    operations = ovapi_operations.STOP_AREAS
    list_name = "StopAreaCodes"

    def stop(self, request: OvapiRequest) -> str:
        """Return "": the request names areas."""
        return ""

    def area(self, member: str) -> str:
        """Return the area."""
        return member

    def stops(self, member: str) -> Collection[str]:
        """Return the stops of an area."""
        return self.feed.timetable.area_stops(member)

    def validator(self, request: OvapiRequest, code: str) -> Validator:
        """Return a validator that is current while no other stop joins the areas."""

        def version() -> object:
            stops = [stop for area in request.codes for stop in self.stops(area)]
            return self.feed.state, self.feed.boards.version(code), stops

        return VersionValidator(version)

    @property
    def size(self) -> int:
        """The number of members of everything."""
        return self.feed.timetable.n_areas

    def all(self) -> Members:
        """Make every stop area, described by one of its stops, in steps."""
        for area in self.feed.timetable.areas():
            codes = self.feed.timetable.area_stops(area)
            yield (area, _encode(self.documents.stop_area(area, codes[0]))) if codes else None

    def members(self, request: OvapiRequest, served: ServedData) -> Members:
        """Make the boards of the areas' stops that are served, in steps."""
        for area in request.codes:
            pieces: list[bytes] = []
            stops = list(self.stops(area))
            for piece in json_object(self.boards(stops, request, served)):
                pieces.append(piece)
                yield None
            if not stops:
                served.add((self._unknown(), 0.0))
            else:
                yield area, b"".join(pieces)
