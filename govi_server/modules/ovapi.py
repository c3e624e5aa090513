"""The JSON of OVapi (v0.ovapi.nl) from the live feed, in the form that its clients read (docs/protocols.md 3).

A path is split at its slashes; what there is nothing for is a 404 with the body ``[]``.
"""

import re
from collections.abc import Callable, Generator
from functools import partial

import msgspec
from twisted.application.service import Service
from zope.interface import implementer

from govi_server.departures.query import Query
from govi_server.departures.times import read_timestamp
from govi_server.documents.ovapi import HORIZON, Json, OvapiDocuments, in_order, with_offset
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import Representation, make_representation
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.request import Environ
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import SERVABLE, Freshness
from govi_server.kv78turbo.stop_departures import StopDepartures
from govi_server.modules.declared import OVAPI
from govi_server.modules.feed_handler import FeedHandler, answer, condition_of
from govi_server.modules.query_parameters import MOST_CODES, read_query, split
from govi_server.openapi.description import IDocumented, Operation
from govi_server.runtime.cooperative import run_now
from govi_server.web_handler import ICacheableModule, ResponseSender

CONTENT_TYPE = "application/json;charset=utf-8"
HEADERS = (("Access-Control-Allow-Headers", "X-Requested-With,Content-Type"),)

NOTHING = b"[]"
"""The body of an answer that has none."""

_ONE_STOP = re.compile(r"/tpc/([0-9]{1,10})(/departures)?/?")


@implementer(ICacheableModule, IDocumented)
class Ovapi(Service):
    """Answers under its name, the first segment of a path of OVapi."""

    def __init__(self, name: str, feed: Feed, shapes: OvapiDocuments, handler: "type[OvapiHandler]") -> None:
        self.name = name
        self.feed = feed
        self.shapes = shapes
        self._handler = handler

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "OvapiHandler":
        """Make the handler of one request."""
        return self._handler(self, request_handler, env)

    def ready(self, env: Environ) -> Callable[[], CachedResponse | None] | None:
        """Give what answers for the board of one stop without a query, as long as it can be shown."""
        found = _ONE_STOP.fullmatch(env["path_info"])
        if found is None or "query_string" in env:
            return None
        return partial(self._hit, found[1], found[2] is not None, prefers_gzip(env))

    def _hit(self, code: str, departures: bool, compressed: bool) -> CachedResponse | None:
        board, made = self.made(code, "", departures, compressed)
        condition = self.feed.freshness(board)
        return answer(self.feed, made, [condition], HEADERS) if condition[0] in SERVABLE else None

    def made(self, code: str, area: str, departures: bool, compressed: bool) -> tuple[StopDepartures, Representation]:
        """Give a stop's board and its JSON, under its area's code if it has one, made once until it changes."""
        form = ("ovapi", departures, compressed, area)
        return self.feed.boards.rendered(
            code,
            HORIZON,
            form,
            lambda board: run_now(self.represent({area: [board]}, Query(), departures, compressed)),
        )

    def represent(
        self, areas: dict[str, list[StopDepartures]], query: Query, departures: bool, compressed: bool
    ) -> Generator[None, None, Representation]:
        """Write boards as JSON, bit by bit, those of the area "" by themselves."""
        shapes: Json = {}
        for area, boards in areas.items():
            of = shapes.setdefault(area, {}) if area else shapes
            for board in boards:
                of[board.code] = self.shapes.board(board, query, departures)
                yield
        return make_representation(msgspec.json.encode(shapes), CONTENT_TYPE, compressed)

    def describe(self) -> list[Operation]:
        """Declare what is of its name."""
        return OVAPI[str(self.name)]


class OvapiHandler(FeedHandler):
    """Answers one question of OVapi's: what there is of its kind, or the members of a comma list."""

    words: tuple[str, ...] = ()
    """What may stand behind the list."""

    def __init__(self, module: Ovapi, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self.module = module
        self.feed = module.feed
        self.shapes = module.shapes

    async def get(self) -> None:
        """Send what is asked for, or [] if there is nothing."""
        parts = self.env["path_info"].removesuffix("/").split("/")[2:]
        word = parts[1] if len(parts) > 1 else ""
        codes = split(parts[0]) if parts else []
        nothing = parts and not codes  # /tpc/, asks for no stop, and not for all of them
        if (
            nothing
            or len(parts) > 2
            or (len(parts) == 2 and not word)
            or (word and word not in self.words)
            or len(codes) > MOST_CODES
        ):
            self._send_nothing("unknown")
            return
        if not codes:
            self._send(
                make_representation(msgspec.json.encode(self.everything()), CONTENT_TYPE, prefers_gzip(self.env)), []
            )
            return
        await self.some(codes, word)

    def everything(self) -> Json:
        """Give what there is of this kind."""
        return {}

    async def some(self, codes: list[str], word: str) -> None:
        """Send what there is of a list."""
        found = {code: shape for code in codes if (shape := self.one(code, word)) is not None}
        conditions = {code: self.feed.operator_freshness(code.partition("_")[0]) for code in found}
        shown = {code: shape for code, shape in found.items() if conditions[code][0] != "old"}
        self.mark("lookup")
        if shown:
            made = make_representation(msgspec.json.encode(shown), CONTENT_TYPE, prefers_gzip(self.env))
            self._send(made, [conditions[code] for code in shown])
        elif found:
            self._send_nothing("old")
        else:
            self._send_nothing("unknown" if self.feed.is_complete else "down")

    def one(self, code: str, word: str) -> Json | None:
        """Give one of them."""
        return None

    def _send(self, made: Representation, conditions: list[tuple[Freshness, float]]) -> None:
        if len(made) < 3 or made.body == b"{}":
            self._send_nothing("unknown")
        else:
            self.send_representation(answer(self.feed, made, conditions, HEADERS))

    def _send_nothing(self, condition: Freshness) -> None:
        self.mark("lookup")
        status, headers = self.without(condition)
        self.send_response(NOTHING, status, [*HEADERS, *headers.items(), ("Content-Type", CONTENT_TYPE)])


class TpcHandler(OvapiHandler):
    """/tpc/, /tpc/<TimingPointCode,...>[/departures]."""

    words = ("departures",)

    def everything(self) -> Json:
        """Give the number of live passes of every stop."""
        codes = dict.fromkeys(self.feed.timetable.timing_points, 0)
        return codes | {code: len(stop.passtimes) for code, stop in self.feed.passtimes.stops.items()}

    async def some(self, codes: list[str], word: str) -> None:
        """Send the boards of some stops; the one of a single stop is made once."""
        await self._send_boards({"": codes}, word)

    async def _send_boards(self, areas: dict[str, list[str]], word: str) -> None:
        """Send boards: those of the area "" by themselves, those of others under the area's code."""
        query = read_query(self.env.get("query_string", ""))
        departures, compressed = word == "departures", prefers_gzip(self.env)
        made = None
        ((area, codes), *_) = areas.items()
        if len(areas) == len(codes) == 1 and query == Query():
            board, made = self.module.made(codes[0], area, departures, compressed)
            boards = {area: [board]}
        else:
            horizon = query.horizon or HORIZON
            boards = {
                name: await self.feed.runner.run(self.feed.boards.boards(of, horizon)) for name, of in areas.items()
            }
        self.mark("lookup")
        asked = [board for of in boards.values() for board in of]
        conditions = {board.code: self.feed.freshness(board) for board in asked}
        good = {code: found for code, found in conditions.items() if found[0] in SERVABLE}
        if not good:
            self._send_nothing(condition_of(self.feed, asked))
            return
        if made is None:
            shown = {name: [board for board in of if board.code in good] for name, of in boards.items()}
            made = await self.feed.runner.run(self.module.represent(shown, query, departures, compressed))
        self._send(made, list(good.values()))


class StopAreaHandler(TpcHandler):
    """/stopareacode/, /stopareacode/<StopAreaCode,...>[/departures]."""

    def everything(self) -> Json:
        """Describe every stop area, by one of its stops."""
        areas: Json = {}
        for area, codes in self.feed.timetable.points_of_area.items():
            for code in codes:
                stop = self.shapes.stop(code)
                names = ("TimingPointTown", "TimingPointName", "StopAreaCode", "Longitude", "Latitude")
                areas[area] = {name: stop[name] for name in names}
                break
        return areas

    async def some(self, codes: list[str], word: str) -> None:
        """Send the boards of the stops of some areas."""
        of_area = self.feed.timetable.points_of_area
        areas = {area: list(of_area[area]) for area in codes if of_area.get(area)}
        if areas:
            await self._send_boards(areas, word)
        else:
            self._send_nothing("unknown" if of_area or self.feed.is_complete else "down")


class LineHandler(OvapiHandler):
    """/line/, /line/<DataOwnerCode_LinePlanningNumber_LineDirection,...>[/actuals]."""

    words = ("actuals",)

    def everything(self) -> Json:
        """Describe every line in every direction."""
        keys = {*self.feed.timetable.directions, *self.feed.passtimes.lines}
        return {"_".join(key): self.shapes.line(*key) for key in sorted(keys)}

    def one(self, code: str, word: str) -> Json | None:
        """Describe a line, where its journeys are, and its stops."""
        owner, _, rest = code.partition("_")
        line, _, direction = rest.rpartition("_")
        shape = self.shapes.line(owner, line, direction)
        if shape is None:
            return None
        actuals = self.shapes.actuals(owner, line, direction)
        whole = {"Line": shape, "Actuals": actuals, "ServerTime": self.shapes.server_time()}
        return whole if word else {**whole, "Network": self.shapes.network(owner, line, direction)}


class JourneyHandler(OvapiHandler):
    """/journey/, /journey/<DataOwnerCode_LocalServiceLevelCode_LinePlanningNumber_JourneyNumber_Fortify...,...>."""

    def everything(self) -> Json:
        """Give the number of stops of every live journey."""
        return {key.decode().replace("|", "_"): len(codes) for key, codes in self.feed.passtimes.journeys.items()}

    def one(self, code: str, word: str) -> Json | None:
        """Describe a journey by its stops."""
        passes = self.feed.boards.journey(code)
        if not passes:
            return None
        passes.sort(key=in_order)
        stops = {one.user_stop_order_number: self.shapes.a_pass(one) for one in passes}
        return {"ServerTime": self.shapes.server_time(), "Stops": stops}


class GeneralMessageHandler(OvapiHandler):
    """/generalmessage: all messages that are for now."""

    def everything(self) -> Json:
        """Describe the messages of all stops."""
        now = self.feed.clock.seconds()
        return {
            message.key: self.shapes.message(message)
            for stop in self.feed.passtimes.stops.values()
            for message in (stop.messages or {}).values()
            if message.is_current(now)
        }


class LastUpdateHandler(OvapiHandler):
    """/lastupdate: when which data owner and subscription last said something."""

    def everything(self) -> Json:
        """Give the moments."""
        owners = self.feed.passtimes.last_update
        return {
            "LastUpdateTimeStamps": {
                "DataOwner": {owner: _stamp(stamp) for owner, stamp in sorted(owners.items())},
                "Subscription": {name: _stamp(stamp) for name, stamp in sorted(self.feed.subscriptions.items())},
            },
            "ServerTime": self.shapes.server_time(),
        }


def _stamp(text: str) -> str | None:
    return with_offset(read_timestamp(text))


_HANDLERS: dict[str, type[OvapiHandler]] = {
    "tpc": TpcHandler,
    "stopareacode": StopAreaHandler,
    "line": LineHandler,
    "journey": JourneyHandler,
    "generalmessage": GeneralMessageHandler,
    "lastupdate": LastUpdateHandler,
}


PATHS = frozenset(_HANDLERS)
"""The first segments that are answered here."""


def ovapi_modules(feed: Feed) -> list[Ovapi]:
    """Make the modules of all of OVapi's paths."""
    shapes = OvapiDocuments(feed)
    return [Ovapi(name, feed, shapes, handler) for name, handler in _HANDLERS.items()]
