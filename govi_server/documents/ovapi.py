"""The shapes of OVapi's JSON: names, order and forms of the values are OVapi's (docs/protocols.md 3.2)."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from govi_server.departures.query import Query
from govi_server.departures.times import MINUTE, read_time, read_timestamp
from govi_server.departures.timing_point import TimingPoint
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.general_message import GeneralMessage
from govi_server.kv78turbo.passtime import Passtime
from govi_server.kv78turbo.stop_departures import StopDepartures
from govi_server.runtime.clock import LOCAL_ZONE

_DIGITS = re.compile(r"[0-9]{1,15}")

HORIZON = 90 * MINUTE
"""Seconds: what OVapi's answers reach (docs/protocols.md 3.2)."""

Json = dict[str, Any]


class OvapiDocuments:
    """Makes the JSON of what the feed tells: names, order and forms of the values are OVapi's (docs/protocols.md 3.2)."""

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

    def a_pass(self, one: Passtime) -> Json:
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
            **dict(one.extra),
        }
        return {name: value for name, value in shape.items() if value is not None or name in _ALWAYS}

    def passes(self, passes: Iterable[Passtime]) -> Json:
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

    def board(self, board: StopDepartures, query: Query, departures: bool) -> Json:
        """Describe a stop with its passes and messages."""
        passes = (one for one in board.passtimes if one.is_departure or not departures)
        return {
            "Stop": self.stop(board.code),
            "Passes": self.passes(query.select(passes, self._timetable.public_number)),
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
        planned = self._timetable.first_passtimes(owner, line, direction, now, now + HORIZON)
        found.extend(one for _, one in planned if one.journey not in known)
        return self.passes(
            sorted((one for one in found if one.expected <= now + HORIZON), key=lambda one: one.expected)
        )


def where(passes: list[Passtime], now: float) -> Passtime | None:
    """Tell where a journey is: at the stop it came to last, or else the one that is next; None if it is nowhere."""
    passes = sorted(passes, key=in_order)
    if not passes or any(one.trip_stop_status == "CANCEL" for one in passes):
        return None
    been = [one for one in passes if one.trip_stop_status in ("ARRIVED", "PASSED")]
    if been:
        return been[-1] if been[-1].is_departure else None
    coming = [one for one in passes if one.hidden_after > now and one.trip_stop_status != "UNKNOWN"]
    return coming[0] if coming else None


_ALWAYS = frozenset({"Latitude", "Longitude", "LastUpdateTimeStamp", "TransportType", "LineName", "DestinationCode"})
"""What is null where it is not known: strict clients want the name to be there."""


def with_offset(moment: float | None) -> str | None:
    """Write a moment as OVapi does: 2026-04-21T23:13:58+0200."""
    return None if moment is None else f"{datetime.fromtimestamp(moment, LOCAL_ZONE):%Y-%m-%dT%H:%M:%S%z}"


def _naive(timestamp: str) -> str:
    """Write a timestamp as the clocks on the wall showed it: 2017-04-11T21:51:08; what is none stays as it is."""
    moment = read_timestamp(timestamp)
    return timestamp if moment is None else f"{datetime.fromtimestamp(moment, LOCAL_ZONE):%Y-%m-%dT%H:%M:%S}"


def _on(one: Passtime, time: str | None) -> str | None:
    """Write a time of a pass with its date on the wall: 24:10:00 is ten past midnight of the day after."""
    seconds = read_time(time or "")
    if seconds is None:
        return None
    day = one.operation_date
    return (datetime(day.year, day.month, day.day) + timedelta(seconds=seconds)).isoformat()


def _number(text: str | None) -> int | str | None:
    """Read a number; what is none, or larger than JSON's readers take, stays as it is."""
    return int(text) if text is not None and _DIGITS.fullmatch(text) else text


def _position(point: TimingPoint | None) -> tuple[float | None, float | None]:
    position = point.position if point is not None else None
    return (None, None) if position is None else position


def _town(point: TimingPoint | None) -> str:
    return (point.town if point is not None else None) or "unknown"


def _name(point: TimingPoint | None, code: str) -> str:
    return (point.name if point is not None else None) or code


def in_order(one: Passtime) -> tuple[int, str]:
    """Sort the stops of a journey by their numbers."""
    return len(one.user_stop_order_number), one.user_stop_order_number
