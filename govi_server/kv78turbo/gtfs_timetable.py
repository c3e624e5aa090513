"""Planned passtimes from GTFS, in the form of those of KV7 (docs/protocols.md, section 6)."""

from collections.abc import Callable, Container, Iterator, Mapping
from datetime import date, timedelta
from functools import partial

from govi_server.departures.times import HOUR, local_date, moment, parse_resolved, write_time
from govi_server.kv78turbo.kv7_journeys import Journey
from govi_server.kv78turbo.kv7_reader import Line, Update
from govi_server.kv78turbo.kv8_columns import is_planned_at
from govi_server.kv78turbo.passtime import Passtime, PlannedCall
from govi_server.kv78turbo.passtime_index import StoredPasstime
from govi_server.planning.planning import Call, PlannedLine, Planning, Trip, transport_type

STEP_CALLS = 64
"""Calls that are examined in one step."""

STEP_NAMES = 50
"""Names in one step: half a millisecond."""

IsPlanned = Callable[[str, str, date], bool]
"""Returns whether KV7 has planned a line: DataOwnerCode, LinePlanningNumber and operating date."""


class GtfsTimetable:
    """Looks up planned passtimes of the lines and dates that KV7 has not planned.

    A passtime of KV8 is found by its journey and operating date, then by its TimingPointCode and, if its journey
    passes that twice, by its time: stop_sequence is not UserStopOrderNumber. is_planned: whether KV7 has a line.
    """

    def __init__(self, planning: Planning, is_planned: IsPlanned) -> None:
        self.planning = planning
        self._is_planned = is_planned
        self._n_lines: dict[tuple[str, date], int] = {}
        """What n_lines_on() has returned, except 0: KV7 may name any operators and dates."""
        self._latest_codes: tuple[bytes, list[str]] = b"", []
        """What codes_of() has returned, and for which journey: KV8 sends the rows of a journey together."""

    def names(self) -> Iterator[Update]:
        """Yield the names of lines, stops and stop areas, in parts."""
        for first in range(0, self.planning.n_lines, STEP_NAMES):
            lines = self.planning.lines(first, STEP_NAMES)
            yield Update(lines={(line.operator, line.number): _line(line) for line in lines}, is_confirmed=True)
        yield Update(stop_areas=self.planning.stop_areas(), is_confirmed=True)
        for first in range(0, self.planning.n_stops, STEP_NAMES):
            yield Update(timing_points=self.planning.timing_points(first, STEP_NAMES), is_confirmed=True)

    def names_like(self, update: Update) -> Update:
        """Return the names that the planning has for those of an update."""
        lines = {key: _line(line) for key in update.lines if (line := self.planning.find_line(*key)) is not None}
        points = {
            code: point for code in update.timing_points if (point := self.planning.timing_point(code)) is not None
        }
        areas = self.planning.stop_areas() if update.stop_areas else {}
        return Update(lines=lines, timing_points=points, stop_areas=areas)

    def n_lines_on(self, operator: str, day: date) -> int:
        """Return the number of an operator's lines on an operating date."""
        number = self._n_lines.get((operator, day), 0)
        if not number and (number := self.planning.n_lines_on(operator, day)):
            self._n_lines[operator, day] = number
        return number

    def passtimes(self, code: str, since: float, until: float) -> Iterator[PlannedCall | None]:
        """Yield the planned passtimes of a stop between two moments (epoch seconds), and None after each step."""
        first, last = local_date(since) - timedelta(1), local_date(until)
        for day in (first + timedelta(n) for n in range((last - first).days + 1)):
            midnight = moment(day, 0)
            # An hour more on both sides, by which a moment differs on days on which the clocks change.
            begin, end = (round(time - midnight) for time in (since - HOUR, until + HOUR))
            calls = self.planning.calls(code, max(begin, 0), max(end, 0), day)
            for n, call in enumerate(calls, 1):
                if n % STEP_CALLS == 0:
                    yield None
                if call is not None and not self._is_planned(*self.planning.line_key_of(call.trip), day):
                    planned = self._planned_call(call, self.planning.trip(call.trip), code, day)
                    if since <= planned.time <= until:
                        yield planned

    def find(self, passtime: Passtime) -> PlannedCall | None:
        """Return the planned passtime of a passtime of KV8; None if there is none."""
        day, code = passtime.operation_date, passtime.timing_point_code
        trip = self._find_trip(passtime)
        calls = [] if trip is None else self.planning.calls_at(trip, code)
        if (
            trip is None
            or not calls
            or self._is_planned(passtime.data_owner_code, passtime.line_planning_number, day)
        ):
            return None
        text = passtime.target_departure_time or passtime.target_arrival_time or passtime.expected_departure_time
        call = calls[0]
        if len(calls) > 1 and text is not None:
            time = parse_resolved(text)
            call = min(calls, key=lambda call: abs(_time(call) - time))
        return self._planned_call(call, self.planning.trip(trip), code, day)

    def _find_trip(self, passtime: Passtime) -> int | None:
        """Return the number of the trip of a passtime of KV8, if possible of its service level and fortify number."""
        planning = self.planning
        trips = planning.find_trips(passtime.data_owner_code, passtime.line_planning_number, passtime.journey_number)
        valid = [trip for trip in trips if planning.is_valid(trip, passtime.operation_date)]
        if len(valid) > 1:
            journey = passtime.local_service_level_code, passtime.fortify_order_number

            def difference(trip: int) -> tuple[bool, bool]:
                other = planning.trip(trip)
                return other.level != journey[0], other.fortify != journey[1]

            valid.sort(key=difference)
        return valid[0] if valid else None

    def calls_later(self, passtime: Passtime, codes: Container[str]) -> bool:
        """Return whether the journey of a passtime calls at one of these stops after it."""
        trip, planned = self._find_trip(passtime), self.find(passtime)
        if trip is None or planned is None:
            return False
        order = int(planned.key.rpartition(b" ")[2])
        return any(code in codes for code in self.planning.codes_of(trip)[order:])

    def codes_of(self, key: bytes) -> list[str]:
        """Return the TimingPointCodes of the journey of a key of KV8; none if it is unknown."""
        latest, codes = self._latest_codes
        prefix = b"|".join(key.split(b"|", 4)[:4])
        if prefix != latest:
            operator, level, line, journey = prefix.decode().split("|")
            trips = self.planning.find_trips(operator, line, journey)
            codes = next(
                (self.planning.codes_of(trip) for trip in trips if self.planning.level_of(trip) == level), []
            )
            self._latest_codes = prefix, codes
        return codes

    def is_elsewhere(
        self, key: bytes, passtime: Passtime, live: Mapping[bytes, Mapping[bytes, StoredPasstime]]
    ) -> bool:
        """Return whether KV8 has a planned passtime at a stop that is not one of its journey's.

        live: the passtimes of KV8 by journey and key.
        """
        journey, day, _ = key.rsplit(b"|", 2)
        rows = live.get(journey)
        if not rows:
            return False
        codes = self.codes_of(key)
        return any(
            stored.code not in codes and row.split(b"|", 6)[5] == day and is_planned_at(stored.values, passtime)
            for row, stored in rows.items()
        )

    def journey(self, journey: Journey, now: float) -> Iterator[PlannedCall]:
        """Yield the planned passtimes of a journey yesterday, today and tomorrow."""
        operator, level, line, number, fortify, _ = journey.decode().split("|")
        today = local_date(now)
        for trip_number in self.planning.find_trips(operator, line, number):
            trip = self.planning.trip(trip_number)
            if (trip.level, trip.fortify) != (level, fortify):
                continue
            for day in (today + timedelta(n) for n in (-1, 0, 1)):
                if self.planning.is_valid(trip_number, day) and not self._is_planned(operator, line, day):
                    for call in self.planning.calls_of(trip_number):
                        yield self._planned_call(call, trip, self.planning.code_of(call.stop), day)

    def _planned_call(self, call: Call, trip: Trip, code: str, day: date) -> PlannedCall:
        key = f"{trip.operator}|{trip.level}|{trip.line}|{trip.journey}|{trip.fortify}|{day}|gtfs {call.order}"
        return PlannedCall(
            key.encode(), day, moment(day, _time(call)), partial(self._passtime, call, trip, code, day)
        )

    def _passtime(self, call: Call, trip: Trip, code: str, day: date) -> Passtime:
        arrival = write_time(call.arrival)
        departure = None if call.is_last else write_time(call.departure)
        arrives = moment(day, call.arrival)
        departs = None if call.is_last else moment(day, call.departure)
        return Passtime(
            data_owner_code=trip.operator,
            local_service_level_code=trip.level,
            line_planning_number=trip.line,
            journey_number=trip.journey,
            fortify_order_number=trip.fortify,
            operation_date=day,
            user_stop_order_number=str(call.order),
            user_stop_code=code,
            timing_point_code=code,
            timing_point_data_owner_code="ALGEMEEN",
            last_update=self.planning.header.published,
            target_arrival_time=arrival,
            expected_arrival_time=arrival,
            target_departure_time=departure,
            expected_departure_time=departure,
            target_arrival=arrives,
            expected_arrival=arrives,
            target_departure=departs,
            expected_departure=departs,
            trip_stop_status="PLANNED",
            journey_stop_type="LAST" if call.is_last else "FIRST" if call.order == 1 else "INTERMEDIATE",
            wheelchair=trip.wheelchair,
            line_direction=trip.direction or None,
            side_code=self.planning.platform(call.stop) or None,
            provenance="gtfs",
            headsign=trip.headsign or None,
        )


def _line(line: PlannedLine) -> Line:
    texts = (line.public_number, line.name, transport_type(line.route_type), line.color, line.text_color)
    return Line(*(text or None for text in texts))


def _time(call: Call) -> int:
    return call.arrival if call.is_last else call.departure
