"""Compiled planning: stops, lines, trips and calls of a GTFS file, looked up in the file itself.

Longer than other modules: the look-ups share the columns of the file, each in a few lines.
"""

import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import NamedTuple

from govi_server.departures.timing_point import TimingPoint
from govi_server.planning import layout

MODES = ("TRAM", "METRO", "TRAIN", "BUS", "BOAT")
"""The modes of lines, by their names in KV7 (TransportType). The modes of a stop are bits in this order."""

_HUNDREDS = {
    1: "TRAIN",
    2: "BUS",
    4: "METRO",
    5: "METRO",
    6: "METRO",
    7: "BUS",
    8: "BUS",
    9: "TRAM",
    10: "BOAT",
}
"""Of the extended route types, by their hundreds (Google's Transit, "Extended route types"); 1200 is a ferry."""

_WHEELCHAIR = ("UNKNOWN", "ACCESSIBLE", "NOTACCESSIBLE")
"""By wheelchair_accessible of trips.txt."""

_MAX_KEY = 10**11


def transport_type(route_type: int) -> str | None:
    """Return the TransportType of KV7 for a route_type; None for another one, such as a funicular."""
    if route_type <= 4:
        return MODES[route_type]
    if route_type in (11, 12):  # trolleybus, monorail
        return "BUS" if route_type == 11 else "METRO"
    return "BOAT" if 1200 <= route_type < 1300 else _HUNDREDS.get(route_type // 100)


class PlannedLine(NamedTuple):
    """A line of the planning; texts are "" if unknown."""

    operator: str
    """DataOwnerCode."""
    number: str
    """LinePlanningNumber."""
    public_number: str
    name: str
    route_type: int
    """As of GTFS; see transport_type()."""
    color: str
    text_color: str
    """Six hexadecimal digits."""


class Trip(NamedTuple):
    """A journey on its operating dates."""

    operator: str
    level: str
    """LocalServiceLevelCode."""
    line: str
    """LinePlanningNumber."""
    journey: str
    """JourneyNumber."""
    fortify: str
    """FortifyOrderNumber."""
    headsign: str
    """Name of its destination, "" if unknown."""
    direction: str
    """LineDirection, "" if unknown."""
    wheelchair: str
    """WheelChairAccessible of KV7."""


class Call(NamedTuple):
    """A trip at a stop. Times are seconds on the operating date."""

    number: int
    """The number of the call in the planning."""
    trip: int
    """The number of its trip in the planning."""
    order: int
    """Its place in the trip, from 1."""
    is_last: bool
    stop: int
    """The number of its stop in the planning."""
    arrival: int
    departure: int


class StopUsage(NamedTuple):
    """What serves a stop."""

    modes: tuple[str, ...]
    """TransportTypes, in the order of MODES."""
    n_departures: int
    """Departures on all days of the planning."""


def _direction(number: int) -> str:
    return str(number) if number else ""


def stop_key(code: str) -> int:
    """Return the key of a TimingPointCode: its leading zeros are significant."""
    return int(f"1{code}")


class Planning:
    """Looks up stops, lines, trips and calls.

    All texts and numbers are read from the file when they are needed; a look-up needs some microseconds. content: the
    whole file. Raises layout.BrokenFile.
    """

    def __init__(self, content: memoryview) -> None:
        self.header, columns = layout.read(content)
        self.size = len(content)
        """Bytes of the file."""
        self._texts, self._text_ends = columns["texts"], columns["text_ends"]
        self.columns = columns
        """By name; see layout.COLUMNS."""
        self._stop_keys, self._stop_calls = columns["stop_key"], columns["stop_calls"]
        self._stop_call, self._stop_time = columns["stop_call"], columns["stop_time"]
        self._trip_calls, self._trip_line = columns["trip_calls"], columns["trip_line"]
        self._trip_days, self._call_stop = columns["trip_days"], columns["call_stop"]
        self._arrivals, self._departures = columns["call_arrival"], columns["call_departure"]
        self._line_trips = columns["line_trips"]
        self.n_stops = len(self._stop_keys)
        self.n_lines = len(columns["line_number"])
        self.n_areas = len(columns["area_code"])
        self.n_trips = len(self._trip_line)
        self.n_calls = len(self._call_stop)

    @classmethod
    def open(cls, path: Path) -> "Planning":
        """Map a file into memory. Raises OSError or layout.BrokenFile."""
        with path.open("rb") as file:
            try:
                return cls(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
            except ValueError as error:  # an empty file cannot be mapped
                raise layout.BrokenFile(str(error)) from None

    def _text(self, number: int) -> str:
        begin = self._text_ends[number - 1] if number else 0
        return str(self._texts[begin : self._text_ends[number]], "utf-8")

    def _column_text(self, column: str, number: int) -> str:
        return self._text(self.columns[column][number])

    # Stops.

    def _stop(self, code: str) -> int | None:
        """Return the number of a stop; None if it is unknown."""
        if not (code.isascii() and code.isdigit()) or (key := stop_key(code)) >= _MAX_KEY:
            return None
        number = bisect_left(self._stop_keys, key)
        return number if number < self.n_stops and self._stop_keys[number] == key else None

    def __contains__(self, code: str) -> bool:
        """Return whether a TimingPointCode is in the planning."""
        return self._stop(code) is not None

    def code_of(self, stop: int) -> str:
        """Return the TimingPointCode of a stop."""
        return str(self._stop_keys[stop])[1:]

    def codes(self) -> Iterator[str]:
        """Yield all TimingPointCodes."""
        return map(self.code_of, range(self.n_stops))

    def neighbours(self, code: str, number: int) -> list[str]:
        """Return the TimingPointCodes of as many digits that are nearest to one in their order.

        Without any, it is shortened, or continued with zeros.
        """
        place = bisect_left(self._stop_keys, stop_key(code))
        keys = self._stop_keys[max(place - number, 0) : place + number].tolist()
        same_length = [key for key in keys if len(str(key)) == len(code) + 1]
        if keys and not same_length:
            length = len(self.code_of(min(place, self.n_stops - 1)))
            return self.neighbours(code[:length].ljust(length, "0"), number)
        return [str(key)[1:] for key in sorted(same_length, key=lambda key: abs(key - stop_key(code)))[:number]]

    def timing_point(self, code: str) -> TimingPoint | None:
        """Return the name, town, stop area and position of a stop; None if it is unknown."""
        stop = self._stop(code)
        if stop is None:
            return None
        name, town, area = (self._column_text(f"stop_{name}", stop) or None for name in ("name", "town", "area"))
        return TimingPoint(name, town, area, self.columns["stop_x"][stop], self.columns["stop_y"][stop])

    def areas(self) -> Iterator[str]:
        """Yield the codes of all stop areas that have stops."""
        begins = self.columns["area_stops"]
        return (self._column_text("area_code", n) for n in range(self.n_areas) if begins[n] < begins[n + 1])

    def _area(self, code: str) -> int | None:
        """Return the number of a stop area; None if it is unknown."""
        key = partial(self._column_text, "area_code")
        number = bisect_left(range(self.n_areas), code, key=key)
        return number if number < self.n_areas and key(number) == code else None

    def area_name(self, code: str) -> str | None:
        """Return the name of a stop area; None if it is unknown."""
        number = self._area(code)
        return None if number is None else self._column_text("area_name", number) or None

    def area_stops(self, code: str) -> list[str]:
        """Return the TimingPointCodes of a stop area."""
        number = self._area(code)
        if number is None:
            return []
        begin, end = self.columns["area_stops"][number : number + 2]
        return [self.code_of(stop) for stop in self.columns["area_stop"][begin:end]]

    def usage(self, code: str) -> StopUsage:
        """Return what serves a stop."""
        stop = self._stop(code)
        if stop is None:
            return StopUsage((), 0)
        bits = self.columns["stop_modes"][stop]
        modes = tuple(mode for n, mode in enumerate(MODES) if bits & 1 << n)
        return StopUsage(modes, self.columns["stop_departures"][stop])

    def platform(self, stop: int) -> str:
        """Return the platform of a stop, "" if unknown."""
        return self._column_text("stop_platform", stop)

    # Lines.

    def line(self, number: int) -> PlannedLine:
        """Return a line. number: in their order."""
        operator, planning_number, public_number, name, color, text_color = (
            self._column_text(f"line_{column}", number)
            for column in ("operator", "number", "public", "name", "color", "text_color")
        )
        route_type = self.columns["line_type"][number]
        return PlannedLine(operator, planning_number, public_number, name, route_type, color, text_color)

    def find_line(self, operator: str, line: str) -> PlannedLine | None:
        """Return a line; None if it is unknown."""
        number = self._line(operator, line)
        return None if number is None else self.line(number)

    def _line(self, operator: str, line: str) -> int | None:
        """Return the number of a line; None if it is unknown."""
        wanted = operator, line
        number = bisect_left(range(self.n_lines), wanted, key=self._line_key)
        return number if number < self.n_lines and self._line_key(number) == wanted else None

    def _line_key(self, number: int) -> tuple[str, str]:
        return self._column_text("line_operator", number), self._column_text("line_number", number)

    def line_stops(self, operator: str, line: str) -> list[str]:
        """Return the TimingPointCodes at which a line calls."""
        number = self._line(operator, line)
        if number is None:
            return []
        begin, end = self.columns["line_stops"][number : number + 2]
        return [self.code_of(stop) for stop in self.columns["line_stop"][begin:end]]

    def n_lines_on(self, operator: str, day: date) -> int:
        """Return the number of an operator's lines that have trips on an operating date."""
        lines = range(self.n_lines)
        begin = bisect_left(lines, operator, key=partial(self._column_text, "line_operator"))
        end = bisect_right(lines, operator, begin, key=partial(self._column_text, "line_operator"))
        n, days = day.toordinal() - self.header.first_day, self.columns["line_days"]
        return sum(days[line] >> n & 1 for line in range(begin, end)) if 0 <= n < layout.DAYS else 0

    def line_directions(self, operator: str, line: str) -> dict[str, str]:
        """Return the LineDirections of a line, "" if unknown, each with the headsign of one of its trips."""
        trips = self.line_trips(operator, line)
        directions = self.columns["trip_direction"][trips.start : trips.stop].tolist()
        return {
            _direction(direction): self._column_text("trip_headsign", trips[directions.index(direction)])
            for direction in sorted(set(directions))
        }

    # Trips.

    def trip(self, number: int) -> Trip:
        """Return a trip."""
        line = self._trip_line[number]
        return Trip(
            self._column_text("line_operator", line),
            self._column_text("trip_level", number),
            self._column_text("line_number", line),
            self._column_text("trip_journey", number),
            self._column_text("trip_fortify", number),
            self._column_text("trip_headsign", number),
            self.direction_of(number),
            _WHEELCHAIR[self.columns["trip_wheelchair"][number]],
        )

    def n_line_calls(self, operator: str, line: str) -> int:
        """Return the number of calls of a line's trips."""
        trips = self.line_trips(operator, line)
        return self._trip_calls[trips.stop] - self._trip_calls[trips.start]

    def line_trips(self, operator: str, line: str) -> range:
        """Return the numbers of a line's trips."""
        number = self._line(operator, line)
        return range(0) if number is None else self.trips_of(number)

    def trips_of(self, line: int) -> range:
        """Return the numbers of the trips of a line with a number."""
        return range(*self._line_trips[line : line + 2])

    def find_trips(self, operator: str, line: str, journey: str) -> range:
        """Return the numbers of the trips of a journey, of all service levels."""
        trips = self.line_trips(operator, line)
        key = partial(self._column_text, "trip_journey")
        return trips[bisect_left(trips, journey, key=key) : bisect_right(trips, journey, key=key)]

    def direction_of(self, trip: int) -> str:
        """Return the LineDirection of a trip, "" if unknown."""
        return _direction(self.columns["trip_direction"][trip])

    def level_of(self, trip: int) -> str:
        """Return the LocalServiceLevelCode of a trip."""
        return self._column_text("trip_level", trip)

    def is_valid(self, trip: int, day: date) -> bool:
        """Return whether an operating date is one of a trip's."""
        n = day.toordinal() - self.header.first_day
        return 0 <= n < layout.DAYS and bool(self._trip_days[trip] >> n & 1)

    def line_key_of(self, trip: int) -> tuple[str, str]:
        """Return DataOwnerCode and LinePlanningNumber of a trip."""
        return self._line_key(self._trip_line[trip])

    # Calls.

    def calls_of(self, trip: int) -> Iterator[Call]:
        """Yield the calls of a trip in their order."""
        begin, end = self._trip_calls[trip : trip + 2]
        for number in range(begin, end):
            yield self._call(number, trip, begin, end)

    def codes_of(self, trip: int) -> list[str]:
        """Return the TimingPointCodes of a trip's calls."""
        begin, end = self._trip_calls[trip : trip + 2]
        return [self.code_of(stop) for stop in self._call_stop[begin:end]]

    def calls_at(self, trip: int, code: str) -> list[Call]:
        """Return the calls of a trip at a stop: two if it passes it twice."""
        stop = self._stop(code)
        begin, end = self._trip_calls[trip : trip + 2]
        stops = self._call_stop[begin:end]
        return [self._call(begin + n, trip, begin, end) for n, at in enumerate(stops) if at == stop]

    def calls(self, code: str, since: int, until: int, day: date) -> Iterator[Call | None]:
        """Yield the calls at a stop on an operating date between two times in seconds, and None for each other one.

        The time of a call is that of its departure, or its arrival at the last stop.
        """
        stop, n = self._stop(code), day.toordinal() - self.header.first_day
        if stop is None or not 0 <= n < layout.DAYS:
            return
        first, last = self._stop_calls[stop : stop + 2]
        begin = bisect_left(self._stop_time, since, first, last)
        end = bisect_right(self._stop_time, until, begin, last)
        for number in self._stop_call[begin:end]:
            trip = bisect_right(self._trip_calls, number) - 1
            if self._trip_days[trip] >> n & 1:
                yield self._call(number, trip, *self._trip_calls[trip : trip + 2])
            else:
                yield None

    def has_calls(self, code: str) -> bool:
        """Return whether a stop has calls on any date."""
        stop = self._stop(code)
        return stop is not None and self._stop_calls[stop] < self._stop_calls[stop + 1]

    def _call(self, number: int, trip: int, begin: int, end: int) -> Call:
        return Call(
            number,
            trip,
            number - begin + 1,
            number == end - 1,
            self._call_stop[number],
            self._arrivals[number],
            self._departures[number],
        )
