"""Planned passtimes from GTFS, in the form of those of KV7 (docs/protocols.md, section 6)."""

from collections.abc import Callable, Collection, Container, Generator, Iterable, Iterator, Mapping
from datetime import date
from functools import partial

from govi_server.departures.times import HOUR, moment, parse_resolved
from govi_server.kv78turbo.kv7_journeys import Journey
from govi_server.kv78turbo.kv7_reader import Line
from govi_server.kv78turbo.kv8_columns import is_planned_at
from govi_server.kv78turbo.passtime import Passtime, PlannedCall, planned_passtime
from govi_server.kv78turbo.passtime_index import StoredPasstime
from govi_server.planning.planning import Call, PlannedLine, Planning, Trip, transport_type

STEP_CALLS = 64
"""Calls that are examined in one step."""

MAX_LINES = 8192
"""Lines that are remembered: looking one up takes 25 us, and each departure needs its line several times."""

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
        self._lines: dict[tuple[str, str], Line | None] = {}
        """What line() has returned."""
        self._latest_codes: tuple[bytes, list[str]] = b"", []
        """What codes_of() has returned, and for which journey: KV8 sends the rows of a journey together."""

    def line(self, operator: str, number: str) -> Line | None:
        """Return a line; None if it is unknown."""
        key = operator, number
        if key not in self._lines:
            if len(self._lines) >= MAX_LINES:
                self._lines.clear()
            planned = self.planning.find_line(operator, number)
            self._lines[key] = None if planned is None else _line(planned)
        return self._lines[key]

    def n_lines_on(self, operator: str, day: date) -> int:
        """Return the number of an operator's lines on an operating date."""
        number = self._n_lines.get((operator, day), 0)
        if not number and (number := self.planning.n_lines_on(operator, day)):
            self._n_lines[operator, day] = number
        return number

    def passtimes(self, code: str, dates: Iterable[date], since: float, until: float) -> Iterator[PlannedCall | None]:
        """Yield the planned passtimes of a stop between two moments (epoch seconds), and None after each step."""
        for day in dates:
            midnight = moment(day, 0)
            # An hour more on both sides, by which a moment differs on days on which the clocks change.
            begin, end = (round(time - midnight) for time in (since - HOUR, until + HOUR))
            calls = self.planning.calls(code, max(begin, 0), max(end, 0), day)
            for n, call in enumerate(calls, 1):
                if n % STEP_CALLS == 0:
                    yield None
                if call is not None and not self._is_planned(*self.planning.line_key_of(call.trip), day):
                    planned = self._planned_call(call, day)
                    if since <= planned.time <= until:
                        yield planned

    def first_passtimes(
        self, operator: str, line: str, direction: str, dates: Iterable[date], since: float, until: float
    ) -> Iterator[PlannedCall | None]:
        """Yield the first passtime of each journey of a line, as passtimes() does for a stop."""
        for day in dates:
            if not self._is_planned(operator, line, day):
                for trip in self._trips(operator, line, direction):
                    planned = None
                    if self.planning.is_valid(trip, day):
                        planned = self._planned_call(next(self.planning.calls_of(trip)), day)
                    yield planned if planned is not None and since <= planned.time <= until else None

    def patterns(
        self, operator: str, line: str, direction: str
    ) -> Generator[None, None, dict[str, dict[int, tuple[str, bool]]]]:
        """Return the patterns of a line in a direction, as those of KV7, in steps. They are numbered, from 1."""
        patterns: dict[tuple[str, ...], None] = {}
        for trip in self._trips(operator, line, direction):
            patterns[tuple(self.planning.codes_of(trip))] = None
            yield
        return {
            str(n): {order: (code, False) for order, code in enumerate(codes, 1)}
            for n, codes in enumerate(patterns, 1)
        }

    def _trips(self, operator: str, line: str, direction: str) -> Iterator[int]:
        """Yield the numbers of a line's trips in a direction."""
        trips = self.planning.line_trips(operator, line)
        return (trip for trip in trips if self.planning.direction_of(trip) == direction)

    def find(self, passtime: Passtime) -> PlannedCall | None:
        """Return the planned passtime of a passtime of KV8; None if there is none."""
        call = self._find(passtime)
        return None if call is None else self._planned_call(call, passtime.operation_date)

    def calls_later(self, passtime: Passtime, codes: Container[str]) -> bool:
        """Return whether the journey of a passtime calls at one of these stops after it."""
        call = self._find(passtime)
        return call is not None and any(code in codes for code in self.planning.codes_of(call.trip)[call.order :])

    def _find(self, passtime: Passtime) -> Call | None:
        """Return the call of a passtime, of its service level and fortify number if possible; None without one."""
        planning, day = self.planning, passtime.operation_date
        operator, line = passtime.data_owner_code, passtime.line_planning_number
        trips = planning.find_trips(operator, line, passtime.journey_number)
        valid = [trip for trip in trips if planning.is_valid(trip, day)]
        if not valid or self._is_planned(operator, line, day):
            return None
        if len(valid) > 1:
            level, fortify = passtime.local_service_level_code, passtime.fortify_order_number

            def difference(number: int) -> tuple[bool, bool]:
                trip = planning.trip(number)
                return trip.level != level, trip.fortify != fortify

            valid.sort(key=difference)
        calls = planning.calls_at(valid[0], passtime.timing_point_code)
        text = passtime.target_departure_time or passtime.target_arrival_time or passtime.expected_departure_time
        if len(calls) > 1 and text is not None:
            time = parse_resolved(text)
            return min(calls, key=lambda call: abs(_time(call) - time))
        return calls[0] if calls else None

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

    def journey(self, journey: Journey, dates: Collection[date]) -> Iterator[PlannedCall]:
        """Yield the planned passtimes of a journey on these dates; of any service level if none has its own."""
        operator, level, line, number, fortify, _ = journey.decode().split("|")
        planning = self.planning
        trips = [n for n in planning.find_trips(operator, line, number) if planning.trip(n).fortify == fortify]
        for trip in [n for n in trips if planning.level_of(n) == level] or trips:
            for day in dates:
                if planning.is_valid(trip, day) and not self._is_planned(operator, line, day):
                    for call in planning.calls_of(trip):
                        yield self._planned_call(call, day)

    def _planned_call(self, call: Call, day: date) -> PlannedCall:
        trip = self.planning.trip(call.trip)
        key = f"{trip.operator}|{trip.level}|{trip.line}|{trip.journey}|{trip.fortify}|{day}|gtfs {call.order}"
        return PlannedCall(key.encode(), day, moment(day, _time(call)), partial(self._passtime, call, trip, day))

    def _passtime(self, call: Call, trip: Trip, day: date) -> Passtime:
        code = self.planning.code_of(call.stop)
        return planned_passtime(
            day,
            call.arrival,
            None if call.is_last else call.departure,
            data_owner_code=trip.operator,
            local_service_level_code=trip.level,
            line_planning_number=trip.line,
            journey_number=trip.journey,
            fortify_order_number=trip.fortify,
            user_stop_order_number=str(call.order),
            user_stop_code=code,
            timing_point_code=code,
            last_update=self.planning.header.published,
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
