"""Parses KV7: lines, destinations, stops, calendars and planned passtimes (docs/protocols.md, sections 2.3 and 2.4).

A message is parsed into an Update, which Timetable.apply() applies as a whole. Planned passtimes stay bytes until
their stop is requested.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from operator import itemgetter

from govi_server.departures.times import (
    DAY,
    PassingTimes,
    nearest_days,
    read_date,
    read_time,
    read_timestamp,
)
from govi_server.departures.timing_point import TimingPoint
from govi_server.kv78turbo.ctx import KEY_FIELD, NULL, Records, Reject, text, texts
from govi_server.runtime.text import nonblank

Group = bytes
"""DataOwnerCode|LocalServiceLevelCode|LinePlanningNumber: published as a whole."""

UserStop = bytes
"""DataOwnerCode|UserStopCode"""

Level = bytes
"""DataOwnerCode|LocalServiceLevelCode"""

KEY_NAMES = (
    "DataOwnerCode",
    "LocalServiceLevelCode",
    "LinePlanningNumber",
    "JourneyNumber",
    "FortifyOrderNumber",
    "UserStopOrderNumber",
    "UserStopCode",
)
"""The columns of a planned passtime's key, in order."""

VALUE_NAMES = (
    "TargetArrivalTime",
    "TargetDepartureTime",
    "JourneyStopType",
    "JourneyPatternCode",
    "LineDirection",
    "DestinationCode",
    "SideCode",
    "WheelChairAccessible",
    "IsTimingStop",
    "ProductFormulaType",
)
"""The columns of a planned passtime's values, in order."""

_STOP_TYPE, _DIRECTION, _DESTINATION = map(VALUE_NAMES.index, ("JourneyStopType", "LineDirection", "DestinationCode"))
_REQUIRED_NAMES = {*KEY_NAMES, *VALUE_NAMES[:3]}
# The order of the stop is a number.
_VALID_KEY = re.compile(rb"(?:%b\|){5}[0-9]{1,5}\|%b\Z" % (KEY_FIELD, KEY_FIELD))

EMPTY = (NULL, b"")
"""Fields without a value."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line; texts are None if unknown."""

    public_number: str | None
    name: str | None
    transport_type: str | None
    color: str | None = None
    text_color: str | None = None
    """LineColor and LineTextColor, unparsed."""


@dataclass(slots=True)
class Update:
    """The content of one message, not applied yet. Snapshots contain the field names, so they must not change."""

    published: float = 0.0
    """Epoch seconds of the message's group."""
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)
    destinations: dict[tuple[str, str], str] = field(default_factory=dict)
    timing_points: dict[str, TimingPoint] = field(default_factory=dict)
    user_stops: dict[UserStop, str] = field(default_factory=dict)
    stop_areas: dict[str, str | None] = field(default_factory=dict)
    planned: dict[Group, dict[UserStop, dict[bytes, bytes]]] = field(default_factory=dict)
    levels: set[Level] = field(default_factory=set)
    dates: dict[Level, set[date]] = field(default_factory=dict)
    directions: dict[tuple[str, str, str], str | None] = field(default_factory=dict)
    n_planned: int = 0


class TimetableReader:
    """Reads one message of KV7.

    now: returns the time in epoch seconds. is_full: returns whether no room is left after this many further
    planned passtimes.
    """

    def __init__(self, now: Callable[[], float], is_full: Callable[[int], bool], reject: Reject) -> None:
        self._now = now
        self._is_full = is_full
        self._reject = reject

    def read(self, message: Iterable[Records | None]) -> Iterator[Update | None]:
        """Yield None after each step, and an Update whenever one is complete.

        A None in the message stands for a step without KV7 records.
        """
        update = Update()
        group = None
        for records in message:
            if records is None:
                yield None
                continue
            if records.group is not group and records.group != group:
                if group is not None:
                    yield update
                group = records.group
                update = Update(self._published(group.timestamp))
            read_table = _TABLES.get(records.table)
            if read_table is not None:
                read_table(self, records, update)
            yield None
        if group is not None:
            yield update

    def _published(self, timestamp: str) -> float:
        """Return when a group was published (epoch seconds); now if unknown, or more than a day in the future."""
        now, published = self._now(), read_timestamp(timestamp)
        return now if published is None or not 0 < published <= now + DAY else published

    def _rows(self, records: Records, *labels: str) -> Iterator[list[str | None]]:
        """Yield these columns of each row, None for missing ones; rows without the first two are rejected."""
        index = {label: i for i, label in enumerate(records.labels)}
        if not {*labels[:2]} <= index.keys():
            for _ in records.lines:
                self._reject("key column")
            return
        positions = [index.get(label) for label in labels]
        for line in records.lines:
            fields = texts(line)
            row = [None if position is None else fields[position] for position in positions]
            if nonblank(row[0]) and nonblank(row[1]):
                yield row
            else:
                self._reject("key")

    def _read_lines(self, records: Records, update: Update) -> None:
        labels = (
            *("DataOwnerCode", "LinePlanningNumber", "LinePublicNumber", "LineName", "TransportType"),
            *("LineColor", "LineTextColor"),
        )
        for operator, line, *columns in self._rows(records, *labels):
            update.lines[str(operator), str(line)] = Line(*map(nonblank, columns))

    def _read_destinations(self, records: Records, update: Update) -> None:
        for operator, code, name in self._rows(records, "DataOwnerCode", "DestinationCode", "DestinationName50"):
            if nonblank(name) is not None:
                update.destinations[str(operator), str(code)] = str(name)

    def _read_timing_points(self, records: Records, update: Update) -> None:
        labels = (
            *("DataOwnerCode", "TimingPointCode", "TimingPointName", "TimingPointTown", "StopAreaCode"),
            *("LocationX_EW", "LocationY_NS"),
        )
        for _, code, name, town, area, x, y in self._rows(records, *labels):
            update.timing_points[str(code)] = TimingPoint(
                nonblank(name), nonblank(town), nonblank(area), _metres(x), _metres(y)
            )

    def _read_user_stops(self, records: Records, update: Update) -> None:
        for operator, stop, code in self._rows(records, "DataOwnerCode", "UserStopCode", "TimingPointCode"):
            if nonblank(code) is not None:
                update.user_stops[f"{operator}|{stop}".encode()] = str(code)

    def _read_stop_areas(self, records: Records, update: Update) -> None:
        for _, code, name in self._rows(records, "DataOwnerCode", "StopAreaCode", "StopAreaName"):
            update.stop_areas[str(code)] = nonblank(name)

    def _read_passtimes(self, records: Records, update: Update) -> None:
        index = {label: i for i, label in enumerate(records.labels)}
        if not index.keys() >= _REQUIRED_NAMES:
            for _ in records.lines:
                self._reject("key column")
            return
        key_of = itemgetter(*(index[name] for name in KEY_NAMES))
        values_of = itemgetter(*(index.get(name, -1) for name in VALUE_NAMES))
        arrival, departure = index["TargetArrivalTime"], index["TargetDepartureTime"]
        for line in records.lines:
            fields = [*line.split(b"|"), NULL]
            key = b"|".join(key_of(fields))
            invalid = [position for position in (arrival, departure) if not _is_time(fields[position])]
            for position in invalid:
                self._reject("value")
                fields[position] = NULL
            if not _VALID_KEY.match(key):
                self._reject("key")
            elif invalid and fields[arrival] in EMPTY and fields[departure] in EMPTY:
                self._reject("time")
            elif self._is_full(update.n_planned):
                self._reject("too many planned passes")
            else:
                _add_passtime(update, key, values_of(fields))

    def _read_levels(self, records: Records, update: Update) -> None:
        for operator, level in self._rows(records, "DataOwnerCode", "LocalServiceLevelCode"):
            update.levels.add(f"{operator}|{level}".encode())

    def _read_dates(self, records: Records, update: Update) -> None:
        labels = ("DataOwnerCode", "LocalServiceLevelCode", "OperationDate")
        for operator, level, text_date in self._rows(records, *labels):
            operation_date = read_date(text_date or "")
            if operation_date is None:
                self._reject("date")
            else:
                update.dates.setdefault(f"{operator}|{level}".encode(), set()).add(operation_date)


_TABLES: dict[str, Callable[[TimetableReader, Records, Update], None]] = {
    "LINE": TimetableReader._read_lines,
    "DESTINATION": TimetableReader._read_destinations,
    "TIMINGPOINT": TimetableReader._read_timing_points,
    "USERTIMINGPOINT": TimetableReader._read_user_stops,
    "STOPAREA": TimetableReader._read_stop_areas,
    "LOCALSERVICEGROUPPASSTIME": TimetableReader._read_passtimes,
    "LOCALSERVICEGROUP": TimetableReader._read_levels,
    "LOCALSERVICEGROUPVALIDITY": TimetableReader._read_dates,
}


def _add_passtime(update: Update, key: bytes, values: tuple[bytes, ...]) -> None:
    operator, level, line, *_, stop = key.split(b"|")
    group = update.planned.setdefault(b"|".join((operator, level, line)), {})
    group.setdefault(operator + b"|" + stop, {})[key] = b"|".join(values)
    if values[_STOP_TYPE] == b"FIRST":
        direction, destination = text(values[_DIRECTION]), text(values[_DESTINATION])
        update.directions[operator.decode(), line.decode(), direction or ""] = nonblank(destination)
    update.n_planned += 1


def _metres(value: str | None) -> int:
    """Parse a coordinate; return 0, an unknown position, if it is invalid."""
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 8 else 0


@lru_cache(maxsize=1 << 16)
def planned_times(arrival: bytes, departure: bytes, stop_type: bytes) -> PassingTimes:
    """Return the planned times at a stop, on the days that make sense. stop_type: JourneyStopType."""
    times = PassingTimes(read_time(arrival.decode()), read_time(departure.decode()))
    return nearest_days(times.at_stop(stop_type.decode()))


@lru_cache(maxsize=1 << 16)
def _is_time(time: bytes) -> bool:
    return time in EMPTY or read_time(time.decode()) is not None
