"""The JSON of OVapi (v0.ovapi.nl) from the live feed, as its clients expect it (docs/protocols.md, section 3).

An unknown path gets 404 with the body ``[]``.
"""

from collections.abc import Generator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
from twisted.application.service import Service
from zope.interface import implementer

from govi_server.departures.query import Query
from govi_server.departures.timing_point import is_timing_point_code
from govi_server.documents.ovapi import OVAPI_HORIZON, OvapiDocuments
from govi_server.documents.ovapi_structs import Journey, LastUpdate, Line, LineActuals, Message, StopArea
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import Representation, make_representation
from govi_server.http.cors import OVAPI_HEADERS
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.request import Environ
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import SERVABLE, Freshness
from govi_server.kv78turbo.stop_departures import StopDepartures
from govi_server.modules import ovapi_operations
from govi_server.modules.feed_responses import board_response, feed_response, no_departures, oldest, reason_of
from govi_server.modules.query_parameters import MAX_CODES, read_query, split, stop_of
from govi_server.openapi.description import IDocumented, Operation
from govi_server.runtime.cooperative import run_now
from govi_server.web_handler import ErrorResponse, Fetch, ICacheableModule, Mark, Responder

CONTENT_TYPE = "application/json;charset=utf-8"

EMPTY_BODY = b"[]"
"""The body of a response without results."""


class OvapiRequest(NamedTuple):
    """A parsed path of OVapi, without its first segment."""

    codes: Sequence[str]
    """The members of the comma-separated list; empty for everything of this kind."""
    suffix: str
    """The segment after the list, "" for none."""
    query: Query
    compressed: bool


class OvapiPaths:
    """The responses under one first segment of OVapi: everything of its kind, or the members of a list."""

    operations: list[Operation]
    """Their descriptions."""

    suffixes: tuple[str, ...] = ()
    """Valid segments after the list."""
    has_boards = False
    """Whether the responses are boards of stops, filtered by the query."""

    def __init__(self, feed: Feed, documents: OvapiDocuments) -> None:
        self.feed = feed
        self.documents = documents

    def parse(self, env: Environ) -> OvapiRequest | None:
        """Parse a path and its query; return None if the path is unknown. Raises InvalidParameter."""
        parts = env["path_info"].removesuffix("/").split("/")[2:]
        suffix = parts[1] if len(parts) > 1 else ""
        codes = split(parts[0]) if parts else []
        if parts and not codes:  # "/tpc/," does not mean all stops
            return None
        if len(parts) > 2 or (len(parts) == 2 and suffix not in self.suffixes) or len(codes) > MAX_CODES:
            return None
        query = read_query(env.get("query_string", "")) if codes and self.has_boards else Query()
        return OvapiRequest(codes, suffix, query, prefers_gzip(env))

    def stop(self, request: OvapiRequest) -> str:
        """Return the stop of a request, for its statistics."""
        return ""

    def respond(self, request: OvapiRequest) -> CachedResponse | ErrorResponse | Fetch:
        """Return the response, or a function that fetches it."""

        async def fetch(mark: Mark) -> CachedResponse | ErrorResponse:
            response = self.members(request) if request.codes else self._response(self.everything(), request, [])
            mark("lookup")
            return response

        return fetch

    def everything(self) -> object:
        """Return everything of this kind."""
        return {}

    def members(self, request: OvapiRequest) -> CachedResponse | ErrorResponse:
        """Return the members of a list."""
        members = {
            code: member for code in request.codes if (member := self.member(code, request.suffix)) is not None
        }
        freshness = {code: self.feed.operator_freshness(code.partition("_")[0]) for code in members}
        served = {code: member for code, member in members.items() if freshness[code][0] in SERVABLE}
        if served:
            return self._response(served, request, [freshness[code] for code in served])
        if members:
            return self.error_response("old")
        return self.error_response("unknown" if self.feed.is_complete else "down")

    def member(self, code: str, suffix: str) -> object:
        """Return a member of a list; None if its code is unknown."""
        return None

    def _response(
        self, document: object, request: OvapiRequest, freshness: list[tuple[Freshness, float]]
    ) -> CachedResponse | ErrorResponse:
        if not document:
            return self.error_response("unknown")
        body = msgspec.json.encode(document)
        representation = make_representation(body, CONTENT_TYPE, request.compressed)
        return feed_response(self.feed, representation, oldest(freshness), OVAPI_HEADERS)

    def error_response(self, reason: Freshness) -> ErrorResponse:
        """Return an error response for a reason."""
        status, headers = no_departures(self.feed, reason)
        return ErrorResponse(status, (*OVAPI_HEADERS, *headers, ("Content-Type", CONTENT_TYPE)), EMPTY_BODY)


class StopPaths(OvapiPaths):
    """/tpc/, /tpc/<TimingPointCode,...>[/departures]."""

    operations = ovapi_operations.STOPS

    suffixes = ("departures",)
    has_boards = True

    def everything(self) -> Mapping[str, object]:
        """Return the number of live passtimes of every stop."""
        codes = dict.fromkeys(self.feed.timetable.timing_points, 0)
        return codes | {code: len(stop.passtimes) for code, stop in self.feed.passtimes.stops.items()}

    def stop(self, request: OvapiRequest) -> str:
        """Return the stop of a request, for its statistics."""
        return stop_of(request.codes) if all(map(is_timing_point_code, request.codes)) else ""

    def areas(self, codes: Sequence[str]) -> dict[str, Sequence[str]]:
        """Return the stops of a list by area; stops without an area have the area ""."""
        return {"": codes}

    def respond(self, request: OvapiRequest) -> CachedResponse | ErrorResponse | Fetch:
        """Return the cached board of a single stop, or a function that fetches the boards of several."""
        if not request.codes:
            return super().respond(request)
        areas = self.areas(request.codes)
        stops = [(area, code) for area, codes in areas.items() for code in codes]
        if not stops:
            return self.error_response(
                "unknown" if self.feed.timetable.points_of_area or self.feed.is_complete else "down"
            )
        if len(stops) > 1 or request.query != Query():
            return partial(self._fetch_boards, areas, request)
        ((area, code),) = stops
        form = ("ovapi", request.suffix, request.compressed, area)
        board, document = self.feed.boards.rendered(
            code, OVAPI_HORIZON, form, lambda board: run_now(self.boards_document({area: [board]}, request))
        )
        return board_response(self.feed, board, document, OVAPI_HEADERS) or self.error_response(
            reason_of(self.feed, [board])
        )

    async def _fetch_boards(
        self, areas: dict[str, Sequence[str]], request: OvapiRequest, mark: Mark
    ) -> CachedResponse | ErrorResponse:
        """Return the servable boards of the stops."""
        feed, horizon = self.feed, request.query.horizon_or(OVAPI_HORIZON)
        boards = {area: await feed.runner.run(feed.boards.boards(codes, horizon)) for area, codes in areas.items()}
        mark("lookup")
        stops = [board for of_area in boards.values() for board in of_area]
        freshness = {board.code: feed.freshness(board) for board in stops}
        served = {code: state for code, state in freshness.items() if state[0] in SERVABLE}
        if not served:
            return self.error_response(reason_of(feed, stops))
        servable = {area: [board for board in of_area if board.code in served] for area, of_area in boards.items()}
        document = await feed.runner.run(self.boards_document(servable, request))
        return feed_response(feed, document, oldest(served.values()), OVAPI_HEADERS)

    def boards_document(
        self, areas: dict[str, list[StopDepartures]], request: OvapiRequest
    ) -> Generator[None, None, Representation]:
        """Render boards as JSON, in steps; those of an area under its code."""
        document: dict[str, Any] = {}
        for area, boards in areas.items():
            of_area = document.setdefault(area, {}) if area else document
            for board in boards:
                of_area[board.code] = self.documents.board(board, request.query, request.suffix == "departures")
                yield
        return make_representation(msgspec.json.encode(document), CONTENT_TYPE, request.compressed)


class StopAreaPaths(StopPaths):
    """/stopareacode/, /stopareacode/<StopAreaCode,...>[/departures]."""

    operations = ovapi_operations.STOP_AREAS

    def everything(self) -> dict[str, StopArea]:
        """Return every stop area, described by one of its stops."""
        areas = self.feed.timetable.points_of_area.items()
        return {area: self.documents.stop_area(area, next(iter(codes))) for area, codes in areas if codes}

    def stop(self, request: OvapiRequest) -> str:
        """Return "": the request names areas."""
        return ""

    def areas(self, codes: Sequence[str]) -> dict[str, Sequence[str]]:
        """Return the stops of each area that has any."""
        of_area = self.feed.timetable.points_of_area
        return {area: list(of_area[area]) for area in codes if of_area.get(area)}


class LinePaths(OvapiPaths):
    """/line/, /line/<DataOwnerCode_LinePlanningNumber_LineDirection,...>[/actuals]."""

    operations = ovapi_operations.LINES

    suffixes = ("actuals",)

    def everything(self) -> dict[str, Line | None]:
        """Return every line in every direction."""
        keys = {*self.feed.timetable.directions, *self.feed.passtimes.lines}
        return {"_".join(key): self.documents.line(*key) for key in sorted(keys)}

    def member(self, code: str, suffix: str) -> LineActuals | None:
        """Return a line with the passes of its journeys and its stops."""
        operator, _, rest = code.partition("_")
        line, _, direction = rest.rpartition("_")
        return self.documents.line_document(operator, line, direction, network=not suffix)


class JourneyPaths(OvapiPaths):
    """/journey/, /journey/<DataOwnerCode_LocalServiceLevelCode_LinePlanningNumber_JourneyNumber_Fortify...,...>."""

    operations = ovapi_operations.JOURNEYS

    def everything(self) -> dict[str, int]:
        """Return the number of stops of every live journey."""
        return {key.decode().replace("|", "_"): len(codes) for key, codes in self.feed.passtimes.journeys.items()}

    def member(self, code: str, suffix: str) -> Journey | None:
        """Return a journey with its stops."""
        return self.documents.journey(code)


class GeneralMessagePaths(OvapiPaths):
    """/generalmessage: all current messages."""

    operations = ovapi_operations.GENERAL_MESSAGES

    def everything(self) -> dict[str, Message]:
        """Return the messages of all stops."""
        now = self.feed.clock.seconds()
        return {
            message.key: self.documents.message(message)
            for stop in self.feed.passtimes.stops.values()
            for message in (stop.messages or {}).values()
            if message.is_current(now)
        }


class LastUpdatePaths(OvapiPaths):
    """/lastupdate: the latest timestamps of data owners and subscriptions."""

    operations = ovapi_operations.LAST_UPDATE

    def everything(self) -> LastUpdate:
        """Return the timestamps."""
        return self.documents.last_update()


PATHS: dict[str, type[OvapiPaths]] = {
    "tpc": StopPaths,
    "stopareacode": StopAreaPaths,
    "line": LinePaths,
    "journey": JourneyPaths,
    "generalmessage": GeneralMessagePaths,
    "lastupdate": LastUpdatePaths,
}
"""OVapi's paths by their first segment."""


@implementer(ICacheableModule, IDocumented)
class Ovapi(Service):
    """Serves the paths of OVapi with this first segment."""

    def __init__(self, name: str, paths: OvapiPaths) -> None:
        self.name = name
        self._paths = paths

    def describe(self) -> list[Operation]:
        """Return the operations of its paths."""
        return self._paths.operations

    def responder(self, env: Environ) -> Responder:
        """Parse a path and its query. Raises InvalidParameter."""
        request = self._paths.parse(env)
        if request is None:
            return Responder(lambda: self._paths.error_response("unknown"))
        return Responder(partial(self._paths.respond, request), self._paths.stop(request))


def ovapi_modules(feed: Feed) -> list[Ovapi]:
    """Return the modules of all of OVapi's paths."""
    documents = OvapiDocuments(feed)
    return [Ovapi(name, paths(feed, documents)) for name, paths in PATHS.items()]
