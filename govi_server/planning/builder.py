"""Builds compiled planning from stops, lines and trips with their calls, in any order."""

from array import array
from collections.abc import Sequence
from datetime import date
from functools import reduce
from operator import or_

from msgspec import Struct

from govi_server.departures.timing_point import is_timing_point_code
from govi_server.planning import layout
from govi_server.planning.planning import MODES, PlannedLine, Planning, stop_key, transport_type

MAX_NUMBER_BITS = 25
"""Bits of a call's number while calls are sorted: 33 million."""

Calls = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""The stops, arrivals and departures of a trip, in order."""


class TripKey(Struct, frozen=True, order=True):
    """What identifies a trip, in the order of the file."""

    line: tuple[str, str]
    """DataOwnerCode and LinePlanningNumber."""
    journey: str
    level: str
    fortify: str


class TripValues(Struct, gc=False):
    """What else is known of a trip."""

    headsign: int
    """The number of a text."""
    direction: int
    """LineDirection, 0 if unknown."""
    wheelchair: int
    """0 unknown, 1 accessible, 2 not accessible."""
    days: int
    """Bits of its operating dates."""


class _Stop(Struct, gc=False):
    name: int
    town: int
    area: int
    platform: int
    x: int
    y: int


class Builder:
    """Collects planning, and writes it. first_day: the first day of operating dates."""

    def __init__(self, first_day: date) -> None:
        self.first_day = first_day
        self._texts: dict[str, int] = {"": 0}
        self._stops: dict[int, _Stop] = {}
        self._areas: dict[str, str] = {}
        self._lines: dict[tuple[str, str], PlannedLine] = {}
        self._trips: list[tuple[TripKey, TripValues, int, int]] = []
        """Keys, values, and the part of the calls that is of the trip."""
        self._call_stops = array("Q")
        self._arrivals, self._departures = array("I"), array("I")
        self.sources: dict[str, str] = {}
        """The GTFS file that each operator is from."""

    @property
    def n_calls(self) -> int:
        """The number of calls."""
        return len(self._call_stops)

    @property
    def n_trips(self) -> int:
        """The number of trips."""
        return len(self._trips)

    def text(self, text: str) -> int:
        """Return the number of a text."""
        return self._texts.setdefault(text, len(self._texts))

    def add_stop(
        self, code: str, name: str, town: str, area: str, platform: str, position: tuple[int, int]
    ) -> int | None:
        """Add a stop, unless there is one of its TimingPointCode; return its key, None if the code is invalid."""
        if not is_timing_point_code(code):
            return None
        key = stop_key(code)
        if key not in self._stops:
            x, y = position
            texts = (self.text(name), self.text(town), self.text(area), self.text(platform))
            self._stops[key] = _Stop(*texts, x, y)
        return key

    def add_area(self, code: str, name: str) -> None:
        """Add a stop area, unless there is one of its code."""
        self._areas.setdefault(code, name)

    def add_line(self, line: PlannedLine) -> None:
        """Add a line, unless there is one of its operator and number."""
        self._lines.setdefault((line.operator, line.number), line)

    def add_trip(self, key: TripKey, values: TripValues, calls: Calls) -> None:
        """Add a trip with its calls, whose stops are keys. Its line must be added as well."""
        begin = self.n_calls
        self._call_stops.extend(calls[0])
        self._arrivals.extend(calls[1])
        self._departures.extend(calls[2])
        self._trips.append((key, values, begin, self.n_calls))

    def add_operator(self, planning: Planning, operator: str) -> None:
        """Add all that another planning has of an operator, on the days from the first one."""
        shift = self.first_day.toordinal() - planning.header.first_day
        columns = planning.columns
        lines = [n for n in range(planning.n_lines) if planning.line(n).operator == operator]
        for number in (trip for line in lines for trip in planning.trips_of(line)):
            days = columns["trip_days"][number] >> max(shift, 0)
            if not days:
                continue
            trip = planning.trip(number)
            keys, arrivals, departures = [], [], []
            for call in planning.calls_of(number):
                code = planning.code_of(call.stop)
                if stop_key(code) not in self._stops:
                    self._copy_stop(planning, code, call.stop)
                keys.append(stop_key(code))
                arrivals.append(call.arrival)
                departures.append(call.departure)
            self.add_line(planning.line(columns["trip_line"][number]))
            key = TripKey((operator, trip.line), trip.journey, trip.level, trip.fortify)
            direction, wheelchair = columns["trip_direction"][number], columns["trip_wheelchair"][number]
            values = TripValues(self.text(trip.headsign), direction, wheelchair, days)
            self.add_trip(key, values, (keys, arrivals, departures))
        self.sources[operator] = planning.header.operators[operator].source

    def _copy_stop(self, planning: Planning, code: str, number: int) -> None:
        point = planning.timing_point(code)
        assert point is not None
        area = point.stop_area or ""
        self.add_stop(code, point.name or "", point.town or "", area, planning.platform(number), (point.x, point.y))
        if area:
            self.add_area(area, planning.area_name(area) or "")

    # Writing.

    def columns(self) -> tuple[layout.Header, dict[str, "array[int]"]]:
        """Return the header, without a name, and the columns of a file."""
        columns = {name: array(code) for name, code in layout.COLUMNS.items()}
        lines = sorted(self._lines)
        self._trips.sort()
        self._add_trips(columns, {line: n for n, line in enumerate(lines)})
        keys = self._add_stops(columns)
        self._add_lines(columns, [self._lines[line] for line in lines])
        self._sort_calls(columns, len(keys))
        self._add_areas(columns)
        for text in self._texts:
            columns["texts"].frombytes(text.encode())
            columns["text_ends"].append(len(columns["texts"]))
        return self._header(columns, lines), columns

    def _add_trips(self, columns: dict[str, "array[int]"], numbers: dict[tuple[str, str], int]) -> None:
        """Add the columns of trips and calls; the calls' stops are still keys."""
        stops = array("Q")
        columns["trip_calls"].append(0)
        for key, values, begin, end in self._trips:
            columns["trip_line"].append(numbers[key.line])
            columns["trip_journey"].append(self.text(key.journey))
            columns["trip_level"].append(self.text(key.level))
            columns["trip_fortify"].append(self.text(key.fortify))
            columns["trip_headsign"].append(values.headsign)
            columns["trip_direction"].append(values.direction)
            columns["trip_wheelchair"].append(values.wheelchair)
            columns["trip_days"].append(values.days)
            stops.extend(self._call_stops[begin:end])
            columns["call_arrival"].extend(self._arrivals[begin:end])
            columns["call_departure"].extend(self._departures[begin:end])
            columns["trip_calls"].append(len(stops))
        self._call_stops, self._arrivals, self._departures = stops, array("I"), array("I")

    def _add_stops(self, columns: dict[str, "array[int]"]) -> list[int]:
        """Add the columns of stops, and the stops of calls; return the keys of stops in order."""
        keys = sorted(self._stops)
        number_of = {key: n for n, key in enumerate(keys)}
        columns["call_stop"].extend(map(number_of.__getitem__, self._call_stops))
        columns["stop_key"].extend(keys)
        for key in keys:
            stop = self._stops[key]
            for name in ("name", "town", "area", "platform", "x", "y"):
                columns[f"stop_{name}"].append(getattr(stop, name))
        return keys

    def _add_areas(self, columns: dict[str, "array[int]"]) -> None:
        """Add the columns of stop areas."""
        stops_of: dict[int, list[int]] = {}
        for stop, area in enumerate(columns["stop_area"]):
            stops_of.setdefault(area, []).append(stop)
        columns["area_stops"].append(0)
        for code, name in sorted(self._areas.items()):
            number = self.text(code)
            columns["area_code"].append(number)
            columns["area_name"].append(self.text(name))
            columns["area_stop"].extend(stops_of.get(number, ()))
            columns["area_stops"].append(len(columns["area_stop"]))

    def _add_lines(self, columns: dict[str, "array[int]"], lines: list[PlannedLine]) -> None:
        """Add the columns of lines, and the modes of stops."""
        modes = bytearray(len(self._stops))
        trip_line, trip_calls = columns["trip_line"], columns["trip_calls"]
        trip, n_trips = 0, len(trip_line)
        columns["line_stops"].append(0)
        columns["line_trips"].append(0)
        for number, line in enumerate(lines):
            texts = (line.operator, line.number, line.public_number, line.name, line.color, line.text_color)
            names = ("operator", "number", "public", "name", "color", "text_color")
            for name, text in zip(names, texts, strict=True):
                columns[f"line_{name}"].append(self.text(text))
            columns["line_type"].append(line.route_type)
            first = trip
            while trip < n_trips and trip_line[trip] == number:
                trip += 1
            stops = set(columns["call_stop"][trip_calls[first] : trip_calls[trip]])
            columns["line_stop"].extend(sorted(stops))
            columns["line_stops"].append(len(columns["line_stop"]))
            columns["line_trips"].append(trip)
            columns["line_days"].append(reduce(or_, columns["trip_days"][first:trip], 0))
            mode = transport_type(line.route_type)
            if mode is not None:
                for stop in stops:
                    modes[stop] |= 1 << MODES.index(mode)
        columns["stop_modes"].frombytes(modes)

    def _sort_calls(self, columns: dict[str, "array[int]"], n_stops: int) -> None:
        """Add the columns of calls by stop and time, and the number of departures of stops."""
        by_stop = [array("Q") for _ in range(n_stops)]
        departures = [0] * n_stops
        stops, trip_calls = columns["call_stop"], columns["trip_calls"]
        arrivals, departs = columns["call_arrival"], columns["call_departure"]
        for trip, days in enumerate(columns["trip_days"]):
            n_days, last = days.bit_count(), trip_calls[trip + 1] - 1
            for number in range(trip_calls[trip], last):
                stop = stops[number]
                by_stop[stop].append(departs[number] << MAX_NUMBER_BITS | number)
                departures[stop] += n_days
            by_stop[stops[last]].append(arrivals[last] << MAX_NUMBER_BITS | last)
        mask = (1 << MAX_NUMBER_BITS) - 1
        columns["stop_calls"].append(0)
        for of_stop in by_stop:
            calls = sorted(of_stop)
            columns["stop_call"].extend([call & mask for call in calls])
            columns["stop_time"].extend([call >> MAX_NUMBER_BITS for call in calls])
            columns["stop_calls"].append(len(columns["stop_call"]))
        columns["stop_departures"].extend(departures)

    def _header(self, columns: dict[str, "array[int]"], lines: list[tuple[str, str]]) -> layout.Header:
        stops: dict[str, set[int]] = {operator: set() for operator, _ in lines}
        n_trips = dict.fromkeys(stops, 0)
        for number, (operator, _) in enumerate(lines):
            begin, end = columns["line_stops"][number : number + 2]
            stops[operator].update(columns["line_stop"][begin:end])
            begin, end = columns["line_trips"][number : number + 2]
            n_trips[operator] += end - begin
        operators = {
            operator: layout.Operator(n_trips[operator], len(stops[operator]), self.sources.get(operator, ""))
            for operator in stops
            if n_trips[operator]
        }
        return layout.Header("", 0.0, self.first_day.toordinal(), operators)
