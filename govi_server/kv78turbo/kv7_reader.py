"""Parses KV7: lines, destinations, stops, calendars and planned passtimes (docs/protocols.md, sections 2.3 and 2.4).

A message is parsed into Updates, which Timetable.apply() applies. The passtimes of a group of records are in one
Update, so that they take effect together; many names or dates are divided into several. Planned passtimes stay bytes
until their stop is requested.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from operator import itemgetter

from msgspec import Struct

from govi_server.departures.times import (
    DAY,
    PassingTimes,
    local_date,
    nearest_days,
    read_date,
    read_time,
    read_timestamp,
)
from govi_server.departures.timing_point import TimingPoint, is_timing_point_code
from govi_server.kv78turbo.ctx import KEY_FIELD, NULL, Records, Reject, text, texts
from govi_server.runtime.text import nonblank

Group = bytes
"""DataOwnerCode|LocalServiceLevelCode|LinePlanningNumber: published as a whole."""

UserStop = bytes
"""DataOwnerCode|UserStopCode"""

Level = bytes
"""DataOwnerCode|LocalServiceLevelCode"""

Passtimes = dict[UserStop, dict[bytes, bytes]]
"""Planned passtimes by user stop: their keys and values, the columns of KEY_NAMES and VALUE_NAMES joined by |."""

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
MAX_CODE_CHARACTERS = 32
"""Maximum length of a code, in bytes for those of passtimes: the longest in the captures has 13 (docs/protocols.md,
section 2.4). Records with a longer key are rejected, other values are omitted."""

MAX_NAME_CHARACTERS = 100
"""Maximum length of a name, twice that of its column (DestinationName50). Longer ones are omitted."""

DAYS_BACK, DAYS_AHEAD = 2, 400
"""Operating dates that are stored, relative to today; calendars are for 30 days (docs/protocols.md, section 2.3)."""

MAX_UPDATE_NAMES = 5000
MAX_UPDATE_LEVELS = 1000
"""Names, and service levels, in an Update, beyond which it is divided: a file may have any number."""

MAX_STOP_PASSTIMES = 1500
"""Planned passtimes of a line at a stop on one service level: one each minute of a day of 25 hours."""

MAX_PLANNED_BYTES = 192
"""Length of a planned passtime's key and values: those of the captures have up to 107 bytes."""

MAX_KEY_BYTES = 128
"""Length of the key of a planned passtime: those of the captures have up to 50 bytes."""

# The order of the stop is a number.
_VALID_KEY = re.compile(
    rb"(?!.{%d})(?:%b\|){5}[0-9]{1,5}\|%b\Z" % (MAX_KEY_BYTES + 1, KEY_FIELD, KEY_FIELD), re.DOTALL
)

EMPTY = (NULL, b"")
"""Fields without a value."""


class Line(Struct, frozen=True, gc=False):
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
    planned: dict[Group, Passtimes] = field(default_factory=dict)
    levels: set[Level] = field(default_factory=set)
    dates: dict[Level, set[date]] = field(default_factory=dict)
    directions: dict[tuple[str, str, str], str | None] = field(default_factory=dict)
    n_planned: int = 0
    is_confirmed: bool = False
    """Whether its entries are evicted last: they are from a timetable directory, or were published repeatedly."""

    @property
    def n_names(self) -> int:
        """The number of names."""
        return sum(
            len(names)
            for names in (
                *(self.lines, self.destinations, self.timing_points),
                *(self.user_stops, self.stop_areas, self.directions),
            )
        )


class TimetableReader:
    """Reads one message of KV7.

    now: returns the time in epoch seconds. max_planned: maximum planned passtimes in an update. is_confirmed: whether
    its updates are.
    """

    def __init__(
        self, now: Callable[[], float], max_planned: int, reject: Reject, is_confirmed: bool = False
    ) -> None:
        self._now = now
        self._max_planned = max_planned
        self._reject = reject
        self._is_confirmed = is_confirmed
        today = local_date(now())
        self._dates = today - timedelta(DAYS_BACK), today + timedelta(DAYS_AHEAD)

    def read(self, message: Iterable[Records | None]) -> Iterator[Update | None]:
        """Yield None after each step, and an Update whenever one is complete.

        A None in the message stands for a step without KV7 records.
        """
        update = self._update(0.0)
        group = None
        for records in message:
            if records is None:
                yield None
                continue
            if records.group is not group and records.group != group:
                if group is not None:
                    yield update
                group = records.group
                update = self._update(self._published(group.timestamp))
            read_table = _TABLES.get(records.table)
            if read_table is not None:
                read_table(self, records, update)
            if update.n_names > MAX_UPDATE_NAMES or len(update.levels) + len(update.dates) > MAX_UPDATE_LEVELS:
                planned, update.planned = update.planned, {}
                n_planned, update.n_planned = update.n_planned, 0
                yield update
                update = self._update(update.published)
                update.planned, update.n_planned = planned, n_planned
            yield None
        if group is not None:
            yield update

    def _update(self, published: float) -> Update:
        return Update(published, is_confirmed=self._is_confirmed)

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
            if not (_is_code(row[0]) and _is_code(row[1])):
                self._reject("key")
                continue
            if len(line) > MAX_NAME_CHARACTERS:
                for i, value in enumerate(row):
                    if value is not None and len(value) > MAX_NAME_CHARACTERS:
                        self._reject("long value")
                        row[i] = None
            yield row

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
            if code is None or not is_timing_point_code(code):
                self._reject("TimingPointCode")
                continue
            update.timing_points[code] = TimingPoint(
                nonblank(name), nonblank(town), nonblank(area), _metres(x), _metres(y)
            )

    def _read_user_stops(self, records: Records, update: Update) -> None:
        for operator, stop, code in self._rows(records, "DataOwnerCode", "UserStopCode", "TimingPointCode"):
            if code is not None and _is_code(code):
                update.user_stops[f"{operator}|{stop}".encode()] = code

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
            elif len(key) + sum(map(len, values := values_of(fields))) > MAX_PLANNED_BYTES:
                self._reject("length")
            elif update.n_planned >= self._max_planned or not _add_passtime(update, key, values):
                self._reject("too many planned passes")

    def _read_levels(self, records: Records, update: Update) -> None:
        for operator, level in self._rows(records, "DataOwnerCode", "LocalServiceLevelCode"):
            update.levels.add(f"{operator}|{level}".encode())

    def _read_dates(self, records: Records, update: Update) -> None:
        labels = ("DataOwnerCode", "LocalServiceLevelCode", "OperationDate")
        for operator, level, text_date in self._rows(records, *labels):
            operation_date = read_date(text_date or "")
            first, last = self._dates
            if operation_date is None or operation_date > last:
                self._reject("date")
            elif operation_date >= first:  # the first days of a calendar are often in the past
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


def _add_passtime(update: Update, key: bytes, values: tuple[bytes, ...]) -> bool:
    """Add a planned passtime, unless its line has too many at its stop; return whether it was added."""
    operator, level, line, *_, stop = key.split(b"|")
    group = update.planned.setdefault(b"|".join((operator, level, line)), {})
    passtimes = group.setdefault(operator + b"|" + stop, {})
    if len(passtimes) >= MAX_STOP_PASSTIMES:
        return False
    passtimes[key] = b"|".join(values)
    if values[_STOP_TYPE] == b"FIRST":
        direction, destination = text(values[_DIRECTION]), text(values[_DESTINATION])
        update.directions[operator.decode(), line.decode(), direction or ""] = nonblank(destination)
    update.n_planned += 1
    return True


def _is_code(value: str | None) -> bool:
    return nonblank(value) is not None and len(str(value)) <= MAX_CODE_CHARACTERS


def _metres(value: str | None) -> int:
    """Parse a coordinate; return 0, an unknown position, if it is invalid."""
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 8 else 0


@lru_cache(maxsize=1 << 16)
def planned_times(arrival: bytes, departure: bytes, stop_type: bytes) -> PassingTimes:
    """Return the planned times at a stop, on the days that make sense. stop_type: JourneyStopType."""
    times = PassingTimes(read_time(arrival.decode()), read_time(departure.decode()))
    return nearest_days(times.at_stop(stop_type.decode()))


def _is_time(time: bytes) -> bool:
    # A longer one would stay in the cache.
    return time in EMPTY or (len(time) == len(b"HH:MM:SS") and _is_valid_time(time))


@lru_cache(maxsize=1 << 16)
def _is_valid_time(time: bytes) -> bool:
    return read_time(time.decode()) is not None
