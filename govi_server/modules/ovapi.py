"""The JSON of OVapi (v0.ovapi.nl) from the live feed, in the form that its clients read (DOMAIN.md 3).

A path is split at its slashes; what there is nothing for is a 404 with the body ``[]``.
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from twisted.application.service import Service
from zope.interface import implementer

from govi_server.conditional import prefers_gzip
from govi_server.contract import Path
from govi_server.departures.times import AMSTERDAM, MINUTE, read_time, read_timestamp
from govi_server.environ import Environ
from govi_server.interfaces import IDeclared, IReadyModule
from govi_server.kv78turbo.boards import StopBoard
from govi_server.kv78turbo.feed import Condition, Feed
from govi_server.kv78turbo.passes import GeneralMessage, Pass
from govi_server.kv78turbo.timetable import TimingPoint
from govi_server.modules.declared import OVAPI
from govi_server.modules.live import MOST_CODES, SHOWN, LiveHandler, Query, answer, condition_of, split
from govi_server.ready import Ready
from govi_server.request_handler import RequestHandler
from govi_server.response import Representation, represent

HORIZON = 90 * MINUTE
"""Seconds: what OVapi's answers reach (DOMAIN.md 3.2)."""

CONTENT_TYPE = "application/json;charset=utf-8"
HEADERS = (("Access-Control-Allow-Headers", "X-Requested-With,Content-Type"),)

NOTHING = b"[]"
"""The body of an answer that has none."""

_DIGITS = re.compile(r"[0-9]{1,15}")
_ONE_STOP = re.compile(r"/tpc/([0-9]{1,10})(/departures)?/?")

Json = dict[str, Any]


class Shapes:
    """Makes the JSON of what the feed tells: names, order and forms of the values are OVapi's (DOMAIN.md 3.2)."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._timetable = feed.timetable

    def server_time(self) -> str:
        """Give the moment in UTC: 2026-04-22T11:42:57Z."""
        return f"{datetime.fromtimestamp(self._feed.clock.seconds(), UTC):%Y-%m-%dT%H:%M:%SZ}"

    def stop(self, code: str) -> Json:
        """Describe a stop."""
        point = self._timetable.timing_points.get(code)
        longitude, latitude = _position(point)
        return {
            "Longitude": longitude,
            "Latitude": latitude,
            "TimingPointTown": _town(point),
            "TimingPointName": _name(point, code),
            "TimingPointCode": code,
            "StopAreaCode": point.stop_area if point is not None else None,
        }

    def a_pass(self, one: Pass) -> Json:
        """Describe a pass."""
        line = self._timetable.lines.get((one.data_owner_code, one.line_planning_number))
        point = self._timetable.timing_points.get(one.timing_point_code)
        longitude, latitude = _position(point)
        arrival, departure = one.target_arrival_time, one.target_departure_time
        expected_arrival, expected_departure = one.expected_arrival_time, one.expected_departure_time
        shape: Json = {
            "IsTimingStop": one.is_timing_stop,
            "DestinationName50": self._timetable.destination(one),
            "DataOwnerCode": one.data_owner_code,
            "OperatorCode": one.operator_code or one.data_owner_code,
            "FortifyOrderNumber": _number(one.fortify_order_number),
            "TransportType": line.transport_type if line is not None else None,
            "Latitude": latitude,
            "Longitude": longitude,
            "JourneyNumber": _number(one.journey_number),
            "JourneyPatternCode": _number(one.journey_pattern_code),
            "LocalServiceLevelCode": _number(one.local_service_level_code),
            "LineDirection": _number(one.line_direction),
            "OperationDate": one.operation_date.isoformat(),
            "TimingPointCode": one.timing_point_code,
            "WheelChairAccessible": one.wheelchair,
            "LineName": line.name if line is not None else None,
            "LinePublicNumber": self._timetable.public_number(one),
            "LastUpdateTimeStamp": with_offset(one.last_update),
            "DestinationCode": one.destination_code,
            # Where only one of two times is told it stands for both: clients read all four.
            "ExpectedDepartureTime": _on(one, expected_departure or departure or expected_arrival or arrival),
            "UserStopOrderNumber": _number(one.user_stop_order_number),
            "ProductFormulaType": one.product_formula_type or "EMPTY",
            "TimingPointName": _name(point, one.timing_point_code),
            "LinePlanningNumber": one.line_planning_number,
            "SideCode": None if one.side_code in (None, "-", "Left", "Right") else one.side_code,
            "TimingPointDataOwnerCode": one.timing_point_data_owner_code,
            "TimingPointTown": _town(point),
            "TripStopStatus": one.trip_stop_status,
            "UserStopCode": one.user_stop_code,
            "JourneyStopType": one.journey_stop_type,
            "TargetArrivalTime": _on(one, arrival or departure or expected_arrival or expected_departure),
            "TargetDepartureTime": _on(one, departure or arrival or expected_departure or expected_arrival),
            "ExpectedArrivalTime": _on(one, expected_arrival or arrival or expected_departure or departure),
            "NumberOfCoaches": _number(one.number_of_coaches),
            **dict(one.remarks),
        }
        return {name: value for name, value in shape.items() if value is not None or name in _ALWAYS}

    def passes(self, passes: Iterable[Pass]) -> Json:
        """Describe the passes of a stop, in order; of a journey that calls twice the sooner."""
        shapes: Json = {}
        for one in passes:
            shapes.setdefault(one.journey, self.a_pass(one))
        return shapes

    def message(self, message: GeneralMessage) -> Json:
        """Describe a general message: what it says of itself, with moments of the wall clock."""
        return {
            name: _naive(value) if name.startswith("Message") and "Time" in name else value
            for name, value in message.fields
            if value is not None
        }

    def board(self, board: StopBoard, query: Query, departures: bool) -> Json:
        """Describe a stop with its passes and messages."""
        passes = (one for one in board.passes if one.leaves or not departures)
        return {
            "Stop": self.stop(board.code),
            "Passes": self.passes(query.of(passes, self._timetable.public_number)),
            "GeneralMessages": {message.key: self.message(message) for message in board.messages},
        }

    def line(self, owner: str, line: str, direction: str) -> Json | None:
        """Describe a line in one direction; None if there is none."""
        known = self._timetable.lines.get((owner, line))
        key = (owner, line, direction)
        if key not in self._timetable.directions and key not in self._feed.passtimes.lines:
            return None
        destination = self._timetable.directions.get(key)
        return {
            "LineWheelchairAccessible": "UNKNOWN",
            "TransportType": known.transport_type if known is not None else None,
            "DestinationName50": self._timetable.destinations.get((owner, destination or ""), destination),
            "DataOwnerCode": owner,
            "DestinationCode": destination,
            "LinePublicNumber": (known.public_number if known is not None else None) or line,
            "LinePlanningNumber": line,
            "LineName": known.name if known is not None else None,
            "LineDirection": _number(direction),
        }

    def network(self, owner: str, line: str, direction: str) -> Json:
        """Describe the stops of a line by journey pattern and order."""
        patterns = self._timetable.patterns(owner, line, direction)
        return {
            pattern: {
                str(order): {**self.stop(code), "IsTimingStop": timing, "UserStopOrderNumber": order}
                for order, (code, timing) in sorted(stops.items())
            }
            for pattern, stops in sorted(patterns.items())
        }

    def actuals(self, owner: str, line: str, direction: str) -> Json:
        """Describe where the journeys of a line are, or begin within the horizon."""
        now = self._feed.clock.seconds()
        found = []
        journeys = [
            key.decode().replace("|", "_") for key in self._feed.passtimes.lines.get((owner, line, direction), ())
        ]
        for journey in journeys:
            at = where(self._feed.boards.journey(journey), now)
            if at is not None:
                found.append(at)
        known = set(journeys)
        planned = self._timetable.line(owner, line, direction, now, now + HORIZON)
        found.extend(one for _, one in planned if one.journey not in known)
        return self.passes(
            sorted((one for one in found if one.expected <= now + HORIZON), key=lambda one: one.expected)
        )


def where(passes: list[Pass], now: float) -> Pass | None:
    """Tell where a journey is: at the stop it came to last, or else the one that is next; None if it is nowhere."""
    passes = sorted(passes, key=_order)
    if not passes or any(one.trip_stop_status == "CANCEL" for one in passes):
        return None
    been = [one for one in passes if one.trip_stop_status in ("ARRIVED", "PASSED")]
    if been:
        return been[-1] if been[-1].leaves else None
    coming = [one for one in passes if one.gone > now and one.trip_stop_status != "UNKNOWN"]
    return coming[0] if coming else None


_ALWAYS = frozenset({"Latitude", "Longitude", "LastUpdateTimeStamp", "TransportType", "LineName", "DestinationCode"})
"""What is null where it is not known: strict clients want the name to be there."""


def with_offset(moment: float | None) -> str | None:
    """Write a moment as OVapi does: 2026-04-21T23:13:58+0200."""
    return None if moment is None else f"{datetime.fromtimestamp(moment, AMSTERDAM):%Y-%m-%dT%H:%M:%S%z}"


def _naive(timestamp: str) -> str:
    """Write a timestamp as the clocks on the wall showed it: 2017-04-11T21:51:08; what is none stays as it is."""
    moment = read_timestamp(timestamp)
    return timestamp if moment is None else f"{datetime.fromtimestamp(moment, AMSTERDAM):%Y-%m-%dT%H:%M:%S}"


def _on(one: Pass, time: str | None) -> str | None:
    """Write a time of a pass with its date on the wall: 24:10:00 is ten past midnight of the day after."""
    seconds = read_time(time or "")
    if seconds is None:
        return None
    day = one.operation_date
    return (datetime(day.year, day.month, day.day) + timedelta(seconds=seconds)).isoformat()


def _number(text: str | None) -> int | str | None:
    """Read a number; what is none, or larger than JSON's readers take, stays as it is."""
    return int(text) if text is not None and _DIGITS.fullmatch(text) else text


def _order(one: Pass) -> tuple[int, str]:
    """Sort the stops of a journey by their numbers."""
    return len(one.user_stop_order_number), one.user_stop_order_number


def _position(point: TimingPoint | None) -> tuple[float | None, float | None]:
    position = point.position if point is not None else None
    return (None, None) if position is None else position


def _town(point: TimingPoint | None) -> str:
    return (point.town if point is not None else None) or "unknown"


def _name(point: TimingPoint | None, code: str) -> str:
    return (point.name if point is not None else None) or code


@implementer(IReadyModule, IDeclared)
class Ovapi(Service):
    """Answers under its name, the first segment of a path of OVapi."""

    def __init__(self, name: str, feed: Feed, shapes: Shapes, handler: "type[OvapiHandler]") -> None:
        self.name = name
        self.feed = feed
        self.shapes = shapes
        self._handler = handler

    def web_handler(self, request_handler: RequestHandler, env: Environ) -> "OvapiHandler":
        """Make the handler of one request."""
        return self._handler(self, request_handler, env)

    def ready(self, env: Environ) -> Callable[[], Ready | None] | None:
        """Give what answers for the board of one stop without a query, as long as it can be shown."""
        found = _ONE_STOP.fullmatch(env["path_info"])
        if found is None or "query_string" in env:
            return None
        return partial(self._hit, found[1], found[2] is not None, prefers_gzip(env))

    def _hit(self, code: str, departures: bool, compressed: bool) -> Ready | None:
        board, made = self.made(code, "", departures, compressed)
        condition = self.feed.condition(board)
        return answer(self.feed, made, [condition], HEADERS) if condition[0] in SHOWN else None

    def made(self, code: str, area: str, departures: bool, compressed: bool) -> tuple[StopBoard, Representation]:
        """Give a stop's board and its JSON, under its area's code if it has one, made once until it changes."""
        form = ("ovapi", departures, compressed, area)
        return self.feed.boards.made(
            code, HORIZON, form, lambda board: self.represent({area: [board]}, Query(), departures, compressed)
        )

    def represent(
        self, areas: dict[str, list[StopBoard]], query: Query, departures: bool, compressed: bool
    ) -> Representation:
        """Write boards as JSON, those of the area "" by themselves."""
        shapes: Json = {}
        for area, boards in areas.items():
            of = {board.code: self.shapes.board(board, query, departures) for board in boards}
            if area:
                shapes[area] = of
            else:
                shapes |= of
        return represent(msgspec.json.encode(shapes), CONTENT_TYPE, compressed)

    def contract(self) -> list[Path]:
        """Declare what is of its name."""
        return OVAPI[str(self.name)]


class OvapiHandler(LiveHandler):
    """Answers one question of OVapi's: what there is of its kind, or the members of a comma list."""

    words: tuple[str, ...] = ()
    """What may stand behind the list."""

    def __init__(self, module: Ovapi, request_handler: RequestHandler, env: Environ) -> None:
        super().__init__(request_handler, env)
        self.module = module
        self.feed = module.feed
        self.shapes = module.shapes

    async def get(self) -> None:
        """Send what is asked for, or [] if there is nothing."""
        parts = self.env["path_info"].removesuffix("/").split("/")[2:]
        query = self.query()
        if query is None:
            return
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
            self._send(represent(msgspec.json.encode(self.everything()), CONTENT_TYPE, prefers_gzip(self.env)), [])
            return
        self.some(codes, word, query)

    def everything(self) -> Json:
        """Give what there is of this kind."""
        return {}

    def some(self, codes: list[str], word: str, query: Query) -> None:
        """Send what there is of a list."""
        found = {code: shape for code in codes if (shape := self.one(code, word)) is not None}
        conditions = {code: self.feed.word_of(code.partition("_")[0]) for code in found}
        shown = {code: shape for code, shape in found.items() if conditions[code][0] != "old"}
        self.mark("lookup")
        if shown:
            made = represent(msgspec.json.encode(shown), CONTENT_TYPE, prefers_gzip(self.env))
            self._send(made, [conditions[code] for code in shown])
        elif found:
            self._send_nothing("old")
        else:
            self._send_nothing("unknown" if self.feed.tells_all else "down")

    def one(self, code: str, word: str) -> Json | None:
        """Give one of them."""
        return None

    def _send(self, made: Representation, conditions: list[tuple[Condition, float]]) -> None:
        if len(made) < 3 or made.body == b"{}":
            self._send_nothing("unknown")
        else:
            self.send_representation(answer(self.feed, made, conditions, HEADERS))

    def _send_nothing(self, condition: Condition) -> None:
        self.mark("lookup")
        status, headers = self.without(condition)
        self.send_response(NOTHING, status, [*HEADERS, *headers.items(), ("Content-Type", CONTENT_TYPE)])


class TpcHandler(OvapiHandler):
    """/tpc/, /tpc/<TimingPointCode,...>[/departures]."""

    words = ("departures",)

    def everything(self) -> Json:
        """Give the number of live passes of every stop."""
        codes = dict.fromkeys(self.feed.timetable.timing_points, 0)
        return codes | {code: len(stop.passes) for code, stop in self.feed.passtimes.stops.items()}

    def some(self, codes: list[str], word: str, query: Query) -> None:
        """Send the boards of some stops; the one of a single stop is made once."""
        self._send_boards({"": codes}, word, query)

    def _send_boards(self, areas: dict[str, list[str]], word: str, query: Query) -> None:
        """Send boards: those of the area "" by themselves, those of others under the area's code."""
        departures, compressed = word == "departures", prefers_gzip(self.env)
        made = None
        ((area, codes), *_) = areas.items()
        if len(areas) == len(codes) == 1 and query == Query():
            board, made = self.module.made(codes[0], area, departures, compressed)
            boards = {area: [board]}
        else:
            horizon = query.horizon or HORIZON
            boards = {name: [self.feed.boards.board(code, horizon) for code in of] for name, of in areas.items()}
        self.mark("lookup")
        asked = [board for of in boards.values() for board in of]
        conditions = {board.code: self.feed.condition(board) for board in asked}
        good = {code: found for code, found in conditions.items() if found[0] in SHOWN}
        if not good:
            self._send_nothing(condition_of(self.feed, asked))
            return
        if made is None:
            shown = {name: [board for board in of if board.code in good] for name, of in boards.items()}
            made = self.module.represent(shown, query, departures, compressed)
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

    def some(self, codes: list[str], word: str, query: Query) -> None:
        """Send the boards of the stops of some areas."""
        of_area = self.feed.timetable.points_of_area
        areas = {area: list(of_area[area]) for area in codes if of_area.get(area)}
        if areas:
            self._send_boards(areas, word, query)
        else:
            self._send_nothing("unknown" if of_area or self.feed.tells_all else "down")


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
        passes.sort(key=_order)
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
            if message.shown(now)
        }


class LastUpdateHandler(OvapiHandler):
    """/lastupdate: when which data owner and subscription last said something."""

    def everything(self) -> Json:
        """Give the moments."""
        owners = self.feed.passtimes.updated
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
    shapes = Shapes(feed)
    return [Ovapi(name, feed, shapes, handler) for name, handler in _HANDLERS.items()]
