"""Reads the GTFS of KV7 (docs/protocols.md, section 6)."""

import re
from array import array
from collections import Counter
from collections.abc import Container, Iterator
from datetime import date, timedelta
from itertools import groupby
from operator import eq, itemgetter

from govi_server.departures.timing_point import is_timing_point_code, rd
from govi_server.planning import layout
from govi_server.planning.builder import Builder, TripKey, TripValues
from govi_server.planning.gtfs import Gtfs, InvalidGtfs
from govi_server.planning.planning import PlannedLine

MAX_NAME_CHARACTERS = 100
MAX_CODE_CHARACTERS = 32
"""As in KV7: longer names are omitted, and what has longer codes is rejected."""

_TIME = re.compile(r" ?([0-3]?[0-9]|4[0-7]):([0-5][0-9]):([0-5][0-9])", re.ASCII)
_COLOR = re.compile(r"[0-9A-Fa-f]{6}")
_CODE = re.compile(rf"[!-{{}}~]{{1,{MAX_CODE_CHARACTERS}}}")
"""Printable, without the separator of trip_id."""

_WEEK = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Reading:
    """Reads a file, and adds what it has of some operators to a builder.

    max_calls: the maximum number of calls. max_names: that of the rows of other tables. Raises InvalidGtfs.
    """

    def __init__(self, gtfs: Gtfs, builder: Builder, max_calls: int, max_names: int) -> None:
        self._gtfs = gtfs
        self._builder = builder
        self._max_calls = max_calls
        self._max_names = max_names
        self.rejected: Counter[str] = Counter()
        """The number of rejected rows by reason."""
        self.stops_of: dict[str, set[int]] = {}
        """The keys of the stops that each operator serves."""
        self._stops: dict[str, int] = {}
        """Keys by stop_id."""
        self._routes: dict[str, tuple[str, str, int, str, str]] = {}
        self._days: dict[str, int] = {}
        """Bits of operating dates by service_id."""
        self._trips: dict[str, tuple[TripKey, TripValues]] = {}
        self._ranges: dict[str, tuple[int, int]] = {}
        """Where the calls of a trip are."""
        self._call_stops = array("Q")
        self._sequences, self._arrivals, self._departures = array("I"), array("I"), array("I")
        self._times: dict[str, int | None] = {}
        self._read_stops()
        self._read_routes()
        self._read_calendar()
        self._read_trips()
        self._read_stop_times()

    @property
    def days(self) -> int:
        """Bits of the operating dates of all trips."""
        days = 0
        for trip_id in self._ranges:
            days |= self._trips[trip_id][1].days
        return days

    def build(self, operators: Container[str], source: str) -> None:
        """Add what some operators have to the builder. source: the name of the file."""
        for trip_id, (begin, end) in self._ranges.items():
            key, values = self._trips[trip_id]
            operator, _ = key.line
            if operator not in operators:
                continue
            if begin == end:
                self.rejected["trip without calls"] += 1
                continue
            part = slice(begin, end)
            calls = self._call_stops[part], self._arrivals[part], self._departures[part]
            self._builder.add_trip(key, values, calls)
            self._builder.sources[operator] = source

    def _rows(
        self, table: str, required: tuple[str, ...], optional: tuple[str, ...] = (), limit: int | None = None
    ) -> Iterator[tuple[str, ...]]:
        limit = limit or self._max_names
        for number, row in enumerate(self._gtfs.rows(table, required, optional)):
            if number >= limit:
                raise InvalidGtfs(f"{table}: more than {limit} rows")
            yield row

    def _read_stops(self) -> None:
        required = ("stop_id", "stop_name", "stop_lat", "stop_lon")
        optional = ("stop_code", "location_type", "parent_station", "platform_code")
        areas: dict[str, str] = {}
        stops = []
        for row in self._rows("stops.txt", required, optional):
            if row[5] == "1":
                areas[row[0]] = _name(row[1])
            elif row[5] in ("", "0"):
                stops.append(row)
        for stop_id, text, latitude, longitude, stop_code, _, parent, platform in stops:
            name = _name(text)
            town, separator, _ = name.partition(", ")
            area = parent if _CODE.fullmatch(parent) else ""
            key = self._builder.add_stop(
                stop_id if is_timing_point_code(stop_id) else stop_code,
                *(name, town if separator else "", area, _name(platform)),
                _position(latitude, longitude),
            )
            if key is None:
                self.rejected["stop without a TimingPointCode"] += 1
                continue
            self._stops[stop_id] = key
            if area:
                self._builder.add_area(area, areas.get(area, ""))
        if not self._stops:
            raise InvalidGtfs("stops.txt: no stop has a TimingPointCode")

    def _read_routes(self) -> None:
        required = ("route_id", "route_short_name", "route_long_name", "route_type")
        for route, short_name, long_name, kind, *colors in self._rows(
            "routes.txt", required, ("route_color", "route_text_color")
        ):
            color, text_color = (value if _COLOR.fullmatch(value) else "" for value in colors)
            route_type = int(kind) if re.fullmatch("[0-9]{1,4}", kind) else 3
            self._routes[route] = _name(short_name), _name(long_name), route_type, color, text_color

    def _read_calendar(self) -> None:
        first_day = self._builder.first_day
        if self._gtfs.has("calendar.txt"):
            for service, *flags, start, end in self._rows(
                "calendar.txt", ("service_id", *_WEEK, "start_date", "end_date")
            ):
                first, last = _day(start), _day(end)
                if first is None or last is None:
                    self.rejected["invalid date"] += 1
                    continue
                for n, day in enumerate(first_day + timedelta(n) for n in range(layout.DAYS)):
                    if first <= day <= last and flags[day.weekday()] == "1":
                        self._days[service] = self._days.get(service, 0) | 1 << n
            if not self._gtfs.has("calendar_dates.txt"):
                return
        required = ("service_id", "date", "exception_type")
        for service, text, kind in self._rows("calendar_dates.txt", required, limit=self._max_calls):
            date_of = _day(text)
            if date_of is None:
                self.rejected["invalid date"] += 1
            elif 0 <= (n := (date_of - first_day).days) < layout.DAYS:
                days = self._days.get(service, 0)
                self._days[service] = days & ~(1 << n) if kind == "2" else days | 1 << n

    def _read_trips(self) -> None:
        required = ("trip_id", "route_id", "service_id")
        optional = ("trip_headsign", "direction_id", "wheelchair_accessible")
        fifths: dict[str, set[str]] = {}
        trips = []
        for trip_id, route, service, headsign, direction, wheelchair in self._rows(
            "trips.txt", required, optional, self._max_calls
        ):
            parts = trip_id.split("|")
            if len(parts) != 5 or not all(map(_CODE.fullmatch, parts)):
                self.rejected["trip_id of another form"] += 1
            elif route not in self._routes:
                self.rejected["trip of an unknown route"] += 1
            elif days := self._days.get(service, 0):
                operator, line, _, _, fifth = parts
                self._builder.add_line(PlannedLine(operator, line, *self._routes[route]))
                values = TripValues(
                    self._builder.text(_name(headsign)),
                    {"0": 1, "1": 2}.get(direction, 0),
                    {"1": 1, "2": 2}.get(wheelchair, 0),
                    days,
                )
                fifths.setdefault(operator, set()).add(fifth)
                trips.append((trip_id, parts, values))
        seen: set[tuple[str, ...]] = set()
        for trip_id, (operator, line, level, journey, fifth), values in trips:
            # Where no trip of an operator has 0, it is not FortifyOrderNumber: then a journey's first trip has 0.
            is_first = (operator, line, level, journey) not in seen
            seen.add((operator, line, level, journey))
            fortify = "0" if is_first and "0" not in fifths[operator] else fifth
            self._trips[trip_id] = TripKey((operator, line), journey, level, fortify), values

    def _read_stop_times(self) -> None:
        required = ("trip_id", "stop_id", "stop_sequence", "arrival_time", "departure_time")
        ranges: dict[str, list[tuple[int, int]]] = {}
        for trip_id, rows in groupby(self._gtfs.rows("stop_times.txt", required), itemgetter(0)):
            begin = len(self._call_stops)
            if trip_id in self._trips:
                self._read_calls(rows)
                ranges.setdefault(trip_id, []).append((begin, len(self._call_stops)))
            if len(self._call_stops) > self._max_calls:
                raise InvalidGtfs(f"stop_times.txt: more than {self._max_calls} calls")
        for trip_id, parts in ranges.items():
            self._ranges[trip_id] = begin, end = self._in_order(parts)
            self.stops_of.setdefault(self._trips[trip_id][0].line[0], set()).update(self._call_stops[begin:end])

    def _read_calls(self, rows: Iterator[tuple[str, ...]]) -> None:
        """Add consecutive calls of a trip."""
        stops, times = self._stops, self._times
        for _, stop_id, sequence, *texts in rows:
            stop = stops.get(stop_id)
            arrival, departure = [times[text] if text in times else self._time(text) for text in texts]
            if arrival is None or departure is None:
                arrival = departure = departure if arrival is None else arrival
            if stop is None or arrival is None or departure is None or not _is_number(sequence):
                self.rejected["call without a stop, time or sequence"] += 1
                continue
            self._call_stops.append(stop)
            self._sequences.append(int(sequence))
            self._arrivals.append(arrival)
            self._departures.append(departure)

    def _time(self, text: str) -> int | None:
        """Parse a time of stop_times.txt, H:MM:SS up to 47:59:59; return None if it is invalid."""
        match = _TIME.fullmatch(text)
        if match is None:
            return None
        seconds = self._times[text] = int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3])
        return seconds

    def _in_order(self, ranges: list[tuple[int, int]]) -> tuple[int, int]:
        """Return where the calls of a trip are in order, each at another stop than the one before.

        Those that are not together, or not in order, are copied. Two calls in a row at one stop become one: a file
        may repeat rows, as KV7 repeats messages.
        """
        begin, end = ranges[0]
        stops, sequences = self._call_stops, self._sequences[begin:end].tolist()
        repeats = any(map(eq, stops[begin : end - 1], stops[begin + 1 : end]))
        if len(ranges) == 1 and sequences == sorted(sequences) and not repeats:
            return begin, end
        numbers = sorted((n for part in ranges for n in range(*part)), key=self._sequences.__getitem__)
        begin = len(stops)
        for n in numbers:
            if len(stops) > begin and stops[-1] == stops[n]:
                self._departures[-1] = self._departures[n]
                continue
            for column in (stops, self._sequences, self._arrivals, self._departures):
                column.append(column[n])
        return begin, len(stops)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _name(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MAX_NAME_CHARACTERS else ""


def _day(text: str) -> date | None:
    """Parse YYYYMMDD; return None if it is invalid."""
    if not (len(text) == len("YYYYMMDD") and text.isascii() and text.isdigit()):
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None


def _position(latitude: str, longitude: str) -> tuple[int, int]:
    """Return RD coordinates in metres; 0, 0 for an invalid position, or one far outside of the Netherlands."""
    try:
        x, y = (round(metres) for metres in rd(float(longitude), float(latitude)))
    except (ValueError, OverflowError):  # infinite far outside
        return 0, 0
    return (x, y) if 0 < x < 400_000 and 200_000 < y < 700_000 else (0, 0)
