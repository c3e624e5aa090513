"""Makes OVapi's documents from the feed, with its formats of values (docs/protocols.md, section 3.2)."""

import re
from collections.abc import Generator, Iterable
from datetime import UTC, date, datetime, timedelta
from math import ceil
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from govi_server.departures.fragments import STEP_PARTS, Fragments, make_part
from govi_server.departures.query import Query
from govi_server.departures.times import DAY, MINUTE, local_datetime, parse_resolved, read_timestamp, write_time
from govi_server.departures.timing_point import TimingPoint
from govi_server.documents.ovapi_structs import (
    Journey,
    LastUpdate,
    LastUpdateTimeStamps,
    Line,
    LineActuals,
    LineNetwork,
    Message,
    PassDocument,
    Stop,
    StopArea,
    StopDocument,
    StopOfLine,
)
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.general_message import GeneralMessage
from govi_server.kv78turbo.joined_stop import JoinedPasstime
from govi_server.kv78turbo.journeys import stop_order
from govi_server.kv78turbo.passtime import Passtime
from govi_server.kv78turbo.stop_departures import COST_PASSTIMES, StopDepartures
from govi_server.runtime.cooperative import map_in_steps, sort_in_steps

OVAPI_HORIZON = 90 * MINUTE
"""Seconds ahead for which departures are returned without a horizon parameter (docs/protocols.md, section 3.2)."""

_is_departure = attrgetter("is_departure")
_encode = msgspec.json.Encoder().encode

UNKNOWN = "UNKNOWN"
"""Stands for codes and enumerations that are not known; OVapi never returns null for them."""

UNKNOWN_NAME = "unknown"
"""Stands for names that are not known and have no code, as OVapi writes a TimingPointTown."""

UNKNOWN_POSITION = 3.3135424, 47.974766
"""The longitude and latitude that OVapi has for (0, 0) in RD, an unknown position; typed clients reject null."""

TIMING_POINT_DATA_OWNER = "ALGEMEEN"
"""The DataOwnerCode of all TimingPoints (docs/protocols.md, section 2.4)."""

_SECONDS_LENGTH = len("2017-04-11T21:51:08")
_DIGITS = re.compile(r"[0-9]{1,15}")  # more are too large for common JSON parsers


class OvapiDocuments:
    """Makes OVapi's documents from the feed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._timetable = feed.timetable

    def server_time(self) -> str:
        """Return the current time in UTC: 2026-04-22T11:42:57Z."""
        return f"{datetime.fromtimestamp(self._feed.clock.seconds(), UTC):%Y-%m-%dT%H:%M:%SZ}"

    def stop(self, code: str) -> Stop:
        """Return the description of a stop."""
        return Stop(*self._stop_members(code))

    def _stop_members(self, code: str) -> tuple[float, float, str, str, str, str | None, str, str]:
        point = self._timetable.timing_point(code)
        area = point.stop_area if point is not None else None
        return (*_position(point), _town(point), _name(point, code), code, area, UNKNOWN, UNKNOWN)

    def stop_area(self, area: str, code: str) -> StopArea:
        """Return the description of an area. code: one of its stops."""
        stop = self.stop(code)
        return StopArea(stop.TimingPointTown, stop.TimingPointName, area, stop.Longitude, stop.Latitude)

    def passtime(self, passtime: Passtime) -> PassDocument:
        """Return the description of a passtime."""
        timetable = self._timetable
        line = timetable.line(passtime.data_owner_code, passtime.line_planning_number)
        point = timetable.timing_point(passtime.timing_point_code)
        longitude, latitude = _position(point)
        arrival, departure = passtime.target_arrival_time, passtime.target_departure_time
        expected_arrival, expected_departure = passtime.expected_arrival_time, passtime.expected_departure_time
        day = passtime.operation_date
        return PassDocument(
            IsTimingStop=passtime.is_timing_stop,
            DestinationName50=timetable.destination(passtime) or UNKNOWN_NAME,
            DataOwnerCode=passtime.data_owner_code,
            OperatorCode=passtime.operator_code or passtime.data_owner_code,
            FortifyOrderNumber=_number(passtime.fortify_order_number),
            TransportType=(line and line.transport_type) or UNKNOWN,
            Latitude=latitude,
            Longitude=longitude,
            JourneyNumber=_number(passtime.journey_number),
            JourneyPatternCode=_number(passtime.journey_pattern_code),
            LocalServiceLevelCode=_number(passtime.local_service_level_code),
            LineDirection=_number(passtime.line_direction),
            OperationDate=day.isoformat(),
            TimingPointCode=passtime.timing_point_code,
            WheelChairAccessible=passtime.wheelchair,
            LineName=timetable.line_name(passtime),
            LinePublicNumber=timetable.public_number(passtime),
            LastUpdateTimeStamp=_with_offset(self._last_update(passtime)),
            DestinationCode=passtime.destination_code or UNKNOWN,
            # Clients read all four times, so a known time substitutes for an unknown one.
            ExpectedDepartureTime=_local_time(day, expected_departure or departure or expected_arrival or arrival),
            UserStopOrderNumber=int(passtime.user_stop_order_number),
            ProductFormulaType=passtime.product_formula_type or "EMPTY",
            TimingPointName=_name(point, passtime.timing_point_code),
            LinePlanningNumber=passtime.line_planning_number,
            SideCode=UNSET if passtime.side_code in (None, "-", "Left", "Right") else passtime.side_code,
            TimingPointDataOwnerCode=passtime.timing_point_data_owner_code or TIMING_POINT_DATA_OWNER,
            TimingPointTown=_town(point),
            TripStopStatus=passtime.reported_status,
            UserStopCode=passtime.user_stop_code,
            JourneyStopType=passtime.journey_stop_type,
            TargetArrivalTime=_local_time(day, arrival or departure or expected_arrival or expected_departure),
            TargetDepartureTime=_local_time(day, departure or arrival or expected_departure or expected_arrival),
            ExpectedArrivalTime=_local_time(day, expected_arrival or arrival or expected_departure or departure),
            NumberOfCoaches=_number(passtime.number_of_coaches),
            StopAreaCode=(point and point.stop_area) or UNSET,
            TimingPointWheelChairAccessible=UNKNOWN,
            TimingPointVisualAccessible=UNKNOWN,
            **dict(passtime.extra),
        )

    def _last_update(self, passtime: Passtime) -> float:
        """Return when a passtime was updated; without a timestamp, when its operator was last heard."""
        if passtime.last_update is not None:
            return passtime.last_update
        now: float = self._feed.clock.seconds()
        return self._feed.passtimes.last_heard.get(passtime.data_owner_code, now)

    def passes(
        self, passtimes: Iterable[tuple[str, Passtime, Fragments | None] | None]
    ) -> Generator[None, None, dict[str, PassDocument]]:
        """Return the passes of a stop or line by journey, in order, in steps; if a journey calls twice, the first.

        passtimes: each with its journey, and its fragments if they are stored; None for a step without one.
        """
        passes: dict[str, Any] = {}
        for n, item in enumerate(passtimes, 1):
            was_stored = False
            if item is not None and item[0] not in passes:
                journey, passtime, fragments = item
                # Without a timestamp, it depends on the moment.
                fragments = None if passtime.last_update is None else fragments
                part, was_stored = make_part(fragments, "ovapi", None, self._encoded, passtime)
                passes[journey] = Raw(part)
            if not was_stored or n % STEP_PARTS == 0:
                yield
        return passes

    def _encoded(self, passtime: Passtime) -> bytes:
        return _encode(self.passtime(passtime))

    def message(self, message: GeneralMessage) -> Message:
        """Return a general message: its non-null columns, with times in local time."""
        return {
            name: _local_timestamp(value) if name.startswith("Message") and "Time" in name else value
            for name, value in message.fields
            if value is not None
        }

    def board(self, board: StopDepartures, query: Query, departures: bool) -> Generator[None, None, bytes]:
        """Return a StopDocument with passes and messages, in steps. departures: omit passes that only arrive."""
        entries = filter(_is_departure, board.entries) if departures else board.entries
        selected = query.select(entries, self._public_number)
        passes = yield from self.passes(
            None if entry is None else (entry.journey, entry.passtime, entry.fragments) for entry in selected
        )
        messages = yield from map_in_steps(lambda message: (message.key, self.message(message)), board.messages, 10)
        return _encode(StopDocument(self.stop(board.code), passes, dict(messages)))

    def _public_number(self, entry: JoinedPasstime) -> str:
        return self._timetable.public_number(entry.passtime)

    def line(self, operator: str, number: str, direction: str) -> Line | None:
        """Return the description of a line in one direction; None if it is unknown."""
        key = (operator, number, direction)
        destination_name = self._timetable.line_headsign(*key)
        if destination_name is None and key not in self._feed.passtimes.lines:
            return None
        line = self._timetable.line(operator, number)
        destination = self._timetable.directions.get(key)
        public_number = (line and line.public_number) or number
        return Line(
            LineWheelchairAccessible=UNKNOWN,
            TransportType=(line and line.transport_type) or UNKNOWN,
            DestinationName50=destination_name or UNKNOWN_NAME,
            DataOwnerCode=operator,
            DestinationCode=destination or UNKNOWN,
            LinePublicNumber=public_number,
            LinePlanningNumber=number,
            LineName=(line and line.name) or public_number,
            LineDirection=_number(direction),
        )

    def line_document(
        self, operator: str, number: str, direction: str, network: bool
    ) -> Generator[None, None, bytes | None]:
        """Return a LineActuals, or with network a LineNetwork, in steps; None if the line is unknown."""
        line = self.line(operator, number, direction)
        if line is None:
            return None
        actuals = yield from self._actuals(operator, number, direction)
        members = line, actuals, self.server_time()
        if not network:
            return _encode(LineActuals(*members))
        return _encode(LineNetwork(*members, (yield from self._network(operator, number, direction))))

    def _network(
        self, operator: str, number: str, direction: str
    ) -> Generator[None, None, dict[str, dict[str, StopOfLine]]]:
        patterns = yield from self._timetable.patterns(operator, number, direction)
        network: dict[str, dict[str, StopOfLine]] = {}
        for pattern, stops in sorted(patterns.items()):
            yield
            network[pattern] = {
                str(order): StopOfLine(*self._stop_members(code), timing, order)
                for order, (code, timing) in sorted(stops.items())
            }
        return network

    def _actuals(self, operator: str, number: str, direction: str) -> Generator[None, None, dict[str, PassDocument]]:
        """Return the current pass of each journey of a line, including journeys that begin within the horizon."""
        now = self._feed.clock.seconds()
        live = list(self._feed.passtimes.lines.get((operator, number, direction), ()))
        journeys = dict.fromkeys(key.decode().replace("|", "_") for key in live)
        within: list[Passtime] = []
        numbers: set[tuple[str, str, date]] = set()
        for journey in journeys:
            passtimes = yield from self._feed.journeys.passtimes(journey)
            numbers.update(map(_journey_numbers, passtimes))
            passtime = current_passtime(passtimes, now)
            if passtime is not None and passtime.expected <= now + OVAPI_HORIZON:
                within.append(passtime)
        for call in self._timetable.first_passtimes(operator, number, direction, now, now + OVAPI_HORIZON):
            yield
            planned = None if call is None else call.make()
            # In GTFS, the service level of a live journey may be another one.
            if planned is not None and planned.journey not in journeys and _journey_numbers(planned) not in numbers:
                within.append(planned)
        within = yield from sort_in_steps(within, lambda passtime: passtime.expected)
        return (yield from self.passes((passtime.journey, passtime, None) for passtime in within))

    def line_cost(self, operator: str, number: str, direction: str) -> int:
        """Return the cost of a line: one for every live journey, and for every 20 planned passtimes."""
        live = len(self._feed.passtimes.lines.get((operator, number, direction), ()))
        return max(live + ceil(self._timetable.line_size(operator, number) / COST_PASSTIMES), 1)

    def journey(self, key: str) -> Generator[None, None, bytes | None]:
        """Return a Journey with its passes in order, in steps; None if it is unknown."""
        passtimes = yield from sort_in_steps((yield from self._feed.journeys.passtimes(key)), stop_order)
        stops: dict[str, Any] = {}
        for passtime in passtimes:
            stops[passtime.user_stop_order_number] = Raw(self._encoded(passtime))
            yield
        return _encode(Journey(self.server_time(), stops)) if stops else None

    def last_update(self) -> Generator[None, None, LastUpdate]:
        """Return the latest timestamps of data owners and subscriptions, in steps."""
        timestamps = []
        for texts in (self._feed.passtimes.last_update, self._feed.subscriptions):
            moments: dict[str, str] = {}
            for name, text in sorted(texts.items()):
                moment = read_timestamp(text)
                if moment is not None:
                    moments[name] = _with_offset(moment)
                yield
            timestamps.append(moments)
        return LastUpdate(LastUpdateTimeStamps(*timestamps), self.server_time())


def _journey_numbers(passtime: Passtime) -> tuple[str, str, date]:
    """Return what identifies a journey of a line on any service level."""
    return passtime.journey_number, passtime.fortify_order_number, passtime.operation_date


def current_passtime(passtimes: Iterable[Passtime], now: float) -> Passtime | None:
    """Return a journey's passtime at its last reported stop, or else its next; None if it ended or is cancelled."""
    passtimes = sorted(passtimes, key=stop_order)
    if not passtimes or any(passtime.trip_stop_status == "CANCEL" for passtime in passtimes):
        return None
    visited = [passtime for passtime in passtimes if passtime.reported_status in ("ARRIVED", "PASSED")]
    if visited:
        return visited[-1] if visited[-1].is_departure else None
    upcoming = (
        passtime for passtime in passtimes if passtime.hidden_after > now and passtime.reported_status != "UNKNOWN"
    )
    return next(upcoming, None)


def _with_offset(moment: float) -> str:
    """Format epoch seconds as OVapi does: 2026-04-21T23:13:58+0200."""
    return f"{local_datetime(moment):%Y-%m-%dT%H:%M:%S%z}"


def _local_timestamp(timestamp: str) -> str:
    """Format a timestamp without its offset: 2017-04-11T21:51:08; return it unchanged if it is invalid."""
    moment = read_timestamp(timestamp)
    return timestamp if moment is None else local_datetime(moment).isoformat(timespec="seconds")[:_SECONDS_LENGTH]


def _local_time(day: date, time: str | None) -> str:
    """Format a time of an operating date with its calendar date: 24:10:00 is 00:10:00 on the next day."""
    if time is None:
        return ""
    if "0" <= time < "24":
        return f"{day}T{time}"
    days, of_day = divmod(parse_resolved(time), DAY)
    return f"{day + timedelta(days)}T{write_time(of_day)}"


def _number(text: str | None) -> int | UnsetType:
    """Parse a number; absent if it is unknown, not a number, or too large."""
    return int(text) if text is not None and _DIGITS.fullmatch(text) else UNSET


def _position(point: TimingPoint | None) -> tuple[float, float]:
    return (point and point.position) or UNKNOWN_POSITION


def _town(point: TimingPoint | None) -> str:
    return (point and point.town) or UNKNOWN_NAME


def _name(point: TimingPoint | None, code: str) -> str:
    return (point and point.name) or code
