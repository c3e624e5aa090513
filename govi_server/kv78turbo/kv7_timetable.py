"""KV7: what was planned. Lines, destinations, stops, the calendar and the planned passes (docs/protocols.md 2.3 and 2.4).

A message is read aside, into an Update, and takes effect at once: whoever asks sees all of it or nothing. Planned
passes stay the bytes that they came in until somebody asks for their stop.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import TypeVar

from govi_server.departures.times import DAY, local_date, moment, read_date, read_time, read_timestamp
from govi_server.departures.timing_point import TimingPoint
from govi_server.kv78turbo.ctx import NULL, Records, text
from govi_server.kv78turbo.passtime import Passtime
from govi_server.settings import PlanningSettings

_KEY = (
    "DataOwnerCode",
    "LocalServiceLevelCode",
    "LinePlanningNumber",
    "JourneyNumber",
    "FortifyOrderNumber",
    "UserStopOrderNumber",
    "UserStopCode",
)
_VALUES = (
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
_STOP_TYPE, _DIRECTION, _DESTINATION = map(_VALUES.index, ("JourneyStopType", "LineDirection", "DestinationCode"))
_NEEDED = {*_KEY, *_VALUES[:3]}
# All there, with nothing that is escaped, and a number for the order of the stop, for that is counted with.
_SOUND_KEY = re.compile(rb"[^|\\]+\|[^|\\]+\|[^|\\]+\|[^|\\]+\|[^|\\]+\|[0-9]{1,5}\|[^|\\]+\Z")
_UNSAID = (NULL, b"")

KEPT_UNDATED = 7 * 86400.0
"""Seconds for which the passes of a service level are kept that no calendar has: it often comes after them."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line; texts are None where nothing is said."""

    public_number: str | None
    name: str | None
    transport_type: str | None
    color: str | None = None
    text_color: str | None = None
    """LineColor and LineTextColor as they came."""


_K = TypeVar("_K")
_V = TypeVar("_V")
_Group = bytes  # DataOwnerCode|LocalServiceLevelCode|LinePlanningNumber: what is published as a whole
_UserStop = bytes  # DataOwnerCode|UserStopCode
_Level = bytes  # DataOwnerCode|LocalServiceLevelCode


@dataclass(slots=True)
class Update:
    """What one message says, before it takes effect."""

    published: float = 0.0
    """Epoch seconds of the message's group."""
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)
    destinations: dict[tuple[str, str], str] = field(default_factory=dict)
    timing_points: dict[str, TimingPoint] = field(default_factory=dict)
    user_stops: dict[_UserStop, str] = field(default_factory=dict)
    stop_areas: dict[str, str | None] = field(default_factory=dict)
    planned: dict[_Group, dict[_UserStop, dict[bytes, bytes]]] = field(default_factory=dict)
    levels: set[_Level] = field(default_factory=set)
    dates: dict[_Level, set[date]] = field(default_factory=dict)
    directions: dict[tuple[str, str, str], str | None] = field(default_factory=dict)
    n_planned: int = 0


class Timetable:
    """Keeps what KV7 says. now: gives the moment in epoch seconds; refused: is told why a record is not taken."""

    def __init__(
        self,
        now: Callable[[], float],
        refused: Callable[[str], object],
        limits: PlanningSettings = PlanningSettings(),
    ) -> None:
        self._now = now
        self._refused = refused
        self._limits = limits
        self.version = 0
        """Another number after each change."""
        self.lines: dict[tuple[str, str], Line] = {}
        """By DataOwnerCode and LinePlanningNumber."""
        self.destinations: dict[tuple[str, str], str] = {}
        """DestinationName50 by DataOwnerCode and DestinationCode."""
        self.timing_points: dict[str, TimingPoint] = {}
        """By TimingPointCode."""
        self.stop_areas: dict[str, str | None] = {}
        """StopAreaName by StopAreaCode."""
        self.points_of_area: dict[str, dict[str, None]] = {}
        """The TimingPointCodes of each StopAreaCode."""
        self._code_of: dict[_UserStop, str] = {}
        self._user_stops: dict[str, dict[_UserStop, None]] = {}
        self._planned: dict[_UserStop, dict[_Group, dict[bytes, bytes]]] = {}
        self._published: dict[_Group, tuple[float, dict[_UserStop, None]]] = {}
        self._lines_of: dict[tuple[str, str], dict[_Group, None]] = {}
        self.directions: dict[tuple[str, str, str], str | None] = {}
        """A DestinationCode of each DataOwnerCode, LinePlanningNumber and LineDirection."""
        self._dates: dict[_Level, tuple[float, frozenset[date]]] = {}
        self.n_planned = 0

    # Reading.

    def read(self, message: Iterable[Records | None]) -> Iterator[Update | None]:
        """Read a message bit by bit: yields None after each bit, and an Update whenever one is whole.

        None in the message is a bit that was somebody else's.
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
                update = Update(self._published_at(group.timestamp))
            reader = _READERS.get(records.table)
            if reader is not None:
                reader(self, records, update)
            yield None
        if group is not None:
            yield update

    def _published_at(self, timestamp: str) -> float:
        """Read when a group was published: now, if it does not say, or from a future that nothing would outlast."""
        now, published = self._now(), read_timestamp(timestamp)
        return now if published is None or published > now + DAY else published

    def _rows(self, records: Records, *labels: str) -> Iterator[list[str | None]]:
        """Read these columns of records, None for those that there are not; nothing if the first two are missing."""
        at = {label: i for i, label in enumerate(records.labels)}
        if not {*labels[:2]} <= at.keys():
            for _ in records.lines:
                self._refused("key column")
            return
        places = [at.get(label) for label in labels]
        for line in records.lines:
            fields = line.split(b"|")
            row = [None if place is None else text(fields[place]) for place in places]
            if row[0] and row[1]:
                yield row
            else:
                self._refused("key")

    def _read_lines(self, records: Records, update: Update) -> None:
        labels = (
            *("DataOwnerCode", "LinePlanningNumber", "LinePublicNumber", "LineName", "TransportType"),
            *("LineColor", "LineTextColor"),
        )
        for owner, line, *said in self._rows(records, *labels):
            update.lines[str(owner), str(line)] = Line(*said)

    def _read_destinations(self, records: Records, update: Update) -> None:
        for owner, code, name in self._rows(records, "DataOwnerCode", "DestinationCode", "DestinationName50"):
            if name is not None:
                update.destinations[str(owner), str(code)] = name

    def _read_timing_points(self, records: Records, update: Update) -> None:
        labels = (
            *("DataOwnerCode", "TimingPointCode", "TimingPointName", "TimingPointTown", "StopAreaCode"),
            *("LocationX_EW", "LocationY_NS"),
        )
        for _, code, name, town, area, x, y in self._rows(records, *labels):
            update.timing_points[str(code)] = TimingPoint(name, town, area or None, _metres(x), _metres(y))

    def _read_user_stops(self, records: Records, update: Update) -> None:
        for owner, stop, code in self._rows(records, "DataOwnerCode", "UserStopCode", "TimingPointCode"):
            if code:
                update.user_stops[f"{owner}|{stop}".encode()] = code

    def _read_stop_areas(self, records: Records, update: Update) -> None:
        for _, code, name in self._rows(records, "DataOwnerCode", "StopAreaCode", "StopAreaName"):
            update.stop_areas[str(code)] = name

    def _read_passtimes(self, records: Records, update: Update) -> None:
        at = {label: i for i, label in enumerate(records.labels)}
        if not at.keys() >= _NEEDED:
            for _ in records.lines:
                self._refused("key column")
            return
        key_of = itemgetter(*(at[label] for label in _KEY))
        values_of = itemgetter(*(at.get(label, -1) for label in _VALUES))
        arrival, departure = at["TargetArrivalTime"], at["TargetDepartureTime"]
        for line in records.lines:
            fields = [*line.split(b"|"), NULL]
            key = b"|".join(key_of(fields))
            if not _SOUND_KEY.match(key):
                self._refused("key")
            elif not (_is_time(fields[arrival]) and _is_time(fields[departure])):
                self._refused("time")
            elif self.n_planned + update.n_planned >= self._limits.planned:
                self._refused("too many planned passes")
            else:
                owner, level, line_number, *_, stop = key.split(b"|")
                group = update.planned.setdefault(b"|".join((owner, level, line_number)), {})
                values = values_of(fields)
                group.setdefault(owner + b"|" + stop, {})[key] = b"|".join(values)
                if values[_STOP_TYPE] == b"FIRST":
                    way, destination = text(values[_DIRECTION]), text(values[_DESTINATION])
                    update.directions[owner.decode(), line_number.decode(), way or ""] = destination
                update.n_planned += 1

    def _read_levels(self, records: Records, update: Update) -> None:
        for owner, level in self._rows(records, "DataOwnerCode", "LocalServiceLevelCode"):
            update.levels.add(f"{owner}|{level}".encode())

    def _read_dates(self, records: Records, update: Update) -> None:
        for owner, level, day in self._rows(records, "DataOwnerCode", "LocalServiceLevelCode", "OperationDate"):
            on = read_date(day or "")
            if on is None:
                self._refused("date")
            else:
                update.dates.setdefault(f"{owner}|{level}".encode(), set()).add(on)

    # Taking effect.

    def apply(self, update: Update) -> None:
        """Let an update take effect.

        The newest publication of a service level's line wins, whole, and so does that of a service level's dates;
        pieces of one publication come together.
        """
        for line_key, line in self._fit(self.lines, update.lines):
            self.lines[line_key] = line
        for destination, name in self._fit(self.destinations, update.destinations):
            self.destinations[destination] = name
        for direction, destination_code in self._fit(self.directions, update.directions):
            self.directions[direction] = destination_code
        for area, area_name in self._fit(self.stop_areas, update.stop_areas):
            self.stop_areas[area] = area_name
        for code, point in self._fit(self.timing_points, update.timing_points):
            self._put_point(code, point)
        for stop, code in self._fit(self._code_of, update.user_stops):
            old = self._code_of.get(stop)
            if old is not None and old != code:
                del self._user_stops[old][stop]
                if not self._user_stops[old]:
                    del self._user_stops[old]
            self._code_of[stop] = code
            self._user_stops.setdefault(code, {})[stop] = None
        for group, stops in update.planned.items():
            self._put_group(group, stops, update.published)
        for level, _ in self._fit(self._dates, dict.fromkeys(update.levels | update.dates.keys())):
            published, dates = self._dates.get(level, (0.0, frozenset()))
            new = frozenset(update.dates.get(level, ()))
            if update.published > published:
                self._dates[level] = (update.published, new)
            elif update.published == published:
                self._dates[level] = (published, dates | new)
        self.version += 1

    def _fit(self, kept: Mapping[_K, object], new: Mapping[_K, _V]) -> Iterator[tuple[_K, _V]]:
        """Go through what there is room for in a table."""
        for key, value in new.items():
            if key in kept or len(kept) < self._limits.names:
                yield key, value
            else:
                self._refused("too many names")

    def _put_point(self, code: str, point: TimingPoint) -> None:
        old = self.timing_points.get(code)
        if old is not None and old.stop_area is not None and old.stop_area != point.stop_area:
            self.points_of_area[old.stop_area].pop(code, None)
        self.timing_points[code] = point
        if point.stop_area is not None:
            self.points_of_area.setdefault(point.stop_area, {})[code] = None

    def _put_group(self, group: _Group, stops: dict[_UserStop, dict[bytes, bytes]], published: float) -> None:
        when, of = self._published.get(group, (0.0, {}))
        if published < when:
            return
        if published > when and of:
            self._remove_group(group)
            of = {}
        for stop, passes in stops.items():
            kept = self._planned.setdefault(stop, {}).setdefault(group, {})
            self.n_planned -= len(kept)
            kept.update(passes)
            self.n_planned += len(kept)
            of[stop] = None
        self._published[group] = (published, of)
        owner, _, line = group.decode().split("|")
        self._lines_of.setdefault((owner, line), {})[group] = None

    def _remove_group(self, group: _Group) -> None:
        _, of = self._published.pop(group)
        for stop in of:
            at_stop = self._planned[stop]
            self.n_planned -= len(at_stop.pop(group, ()))
            if not at_stop:
                del self._planned[stop]
        owner, _, line = group.decode().split("|")
        del self._lines_of[owner, line][group]
        if not self._lines_of[owner, line]:
            del self._lines_of[owner, line]

    def sweep(self) -> None:
        """Forget the service levels whose last day is over, and those that got no day for a week."""
        now = self._now()
        yesterday = local_date(now) - timedelta(1)
        before = self.n_planned
        for group, (published, _) in list(self._published.items()):
            dates = self._dates.get(group.rpartition(b"|")[0])
            dated = dates is not None and bool(dates[1])
            if max(dates[1]) < yesterday if dates and dated else now - published > KEPT_UNDATED:
                self._remove_group(group)
        for level, (published, dates_of) in list(self._dates.items()):
            if (max(dates_of) < yesterday) if dates_of else now - published > KEPT_UNDATED:
                del self._dates[level]
        self.version += before != self.n_planned

    def updates(self) -> Iterator[Update]:
        """Give what is known as updates that would bring it about again."""
        yield Update(
            lines=dict(self.lines),
            destinations=dict(self.destinations),
            timing_points=dict(self.timing_points),
            user_stops=dict(self._code_of),
            stop_areas=dict(self.stop_areas),
            directions=dict(self.directions),
        )
        for level, (published, dates) in list(self._dates.items()):
            yield Update(published, levels={level}, dates={level: set(dates)})
        for group in list(self._published):
            published, stops = self._published.get(group, (0.0, {}))
            yield Update(published, planned={group: {stop: dict(self._planned[stop][group]) for stop in stops}})

    # Asking.

    def public_number(self, a_pass: Passtime) -> str:
        """Give the number that passengers know a line by; the planning number if nobody says another."""
        line = self.lines.get((a_pass.data_owner_code, a_pass.line_planning_number))
        return a_pass.line_public_number or (line and line.public_number) or a_pass.line_planning_number

    def destination(self, a_pass: Passtime) -> str:
        """Give the name of a destination; its code if nobody says a name."""
        code = a_pass.destination_code or ""
        return a_pass.destination_name or self.destinations.get((a_pass.data_owner_code, code), code)

    def knows(self, code: str) -> bool:
        """Tell whether a TimingPointCode is one."""
        return code in self.timing_points or code in self._user_stops

    def passes(self, code: str, since: float, until: float) -> Iterator[tuple[bytes, Passtime]]:
        """Give what is planned at a stop between two moments (epoch seconds), each with the key that KV8 has for it.

        The dates of a pass are those on which its service level runs.
        """
        days = [local_date(since) + timedelta(n) for n in range(-1, (local_date(until) - local_date(since)).days + 1)]
        for stop in self._user_stops.get(code, ()):
            for group, passes in self._planned.get(stop, {}).items():
                dates = self._dates.get(group.rpartition(b"|")[0])
                running = [day for day in days if dates is not None and day in dates[1]]
                for key, values in passes.items() if running else ():
                    yield from self._on(running, key, values, code, since, until)

    def _on(
        self, days: list[date], key: bytes, values: bytes, code: str, since: float, until: float
    ) -> Iterator[tuple[bytes, Passtime]]:
        arrival, departure, stop_type, _ = values.split(b"|", 3)
        if stop_type == b"INFOPOINT":
            return
        seconds = _seconds(arrival if stop_type == b"LAST" or departure in _UNSAID else departure)
        for day in days:
            when = None if seconds is None else moment(day, seconds)
            if when is not None and since <= when <= until:
                parts = key.split(b"|")
                parts.insert(5, day.isoformat().encode())
                yield b"|".join(parts), self._pass(key, values, code, day)

    def _pass(self, key: bytes, values: bytes, code: str, day: date) -> Passtime:
        owner, level, line, journey, fortify, order, stop = (text(part) or "" for part in key.split(b"|"))
        said = dict(zip(_VALUES, map(text, values.split(b"|")), strict=True))
        arrival = said["TargetArrivalTime"] or None
        departure = None if said["JourneyStopType"] == "LAST" else said["TargetDepartureTime"] or None
        arrives, leaves = (
            None if time is None else moment(day, read_time(time) or 0) for time in (arrival, departure)
        )
        published = self._published.get(b"|".join(key.split(b"|", 3)[:3]))
        return Passtime(
            *(owner, level, line, journey, fortify, day, order, stop, code, "ALGEMEEN"),
            None if published is None else published[0],
            *(arrival, arrival, departure, departure, arrives, arrives, leaves, leaves),
            "PLANNED",
            said["JourneyStopType"] or "UNKNOWN",
            said["WheelChairAccessible"] or "UNKNOWN",
            said["DestinationCode"],
            said["LineDirection"],
            said["JourneyPatternCode"],
            said["IsTimingStop"] == "1",
            side_code=said["SideCode"],
            product_formula_type=said["ProductFormulaType"],
        )

    def plans(self, code: str) -> bool:
        """Tell whether passes of a stop are planned, on whatever day."""
        return any(stop in self._planned for stop in self._user_stops.get(code, ()))

    def journey(self, prefix: bytes, now: float) -> dict[bytes, Passtime]:
        """Give the planned passes of a journey, by the keys that KV8 has for them, around a moment.

        prefix: the first five columns of their key, each with its separator.
        """
        group = b"|".join(prefix.split(b"|", 3)[:3])
        _, dates = self._dates.get(group.rpartition(b"|")[0], (0.0, frozenset[date]()))
        running = sorted(dates & {local_date(now) + timedelta(n) for n in (-1, 0, 1)})
        found: dict[bytes, Passtime] = {}
        for stop in self._published.get(group, (0.0, {}))[1] if running else ():
            code = self._code_of.get(stop)
            for key, values in self._planned[stop][group].items() if code is not None else ():
                if code is not None and key.startswith(prefix):
                    found.update(self._on(running, key, values, code, 0.0, now + 7 * 86400))
        return found

    def line(self, owner: str, line: str, direction: str, since: float, until: float) -> list[tuple[bytes, Passtime]]:
        """List where the planned journeys of a line begin between two moments, as passes() does for a stop."""
        found: list[tuple[bytes, Passtime]] = []
        stops = {stop for group in self._lines_of.get((owner, line), ()) for stop in self._published[group][1]}
        for code in {code for stop in stops if (code := self._code_of.get(stop)) is not None}:
            for key, a_pass in self.passes(code, since, until):
                if (a_pass.data_owner_code, a_pass.line_planning_number) == (owner, line) and (
                    a_pass.line_direction == direction and a_pass.journey_stop_type == "FIRST"
                ):
                    found.append((key, a_pass))
        return found

    def patterns(self, owner: str, line: str, direction: str) -> dict[str, dict[int, tuple[str, bool]]]:
        """Give the journey patterns of a line in a direction: TimingPointCode and IsTimingStop by order of stop."""
        patterns: dict[str, dict[int, tuple[str, bool]]] = {}
        for group in self._lines_of.get((owner, line), ()):
            for stop in self._published[group][1]:
                code = self._code_of.get(stop)
                if code is None:
                    continue
                for key, values in self._planned[stop][group].items():
                    _, _, stop_type, pattern, way, *_, timing, _ = map(text, values.split(b"|"))
                    order = key.split(b"|")[5]
                    if way == direction and stop_type != "INFOPOINT" and pattern:
                        patterns.setdefault(pattern, {})[int(order)] = (code, timing == "1")
        return patterns


_READERS: dict[str, Callable[[Timetable, Records, Update], None]] = {
    "LINE": Timetable._read_lines,
    "DESTINATION": Timetable._read_destinations,
    "TIMINGPOINT": Timetable._read_timing_points,
    "USERTIMINGPOINT": Timetable._read_user_stops,
    "STOPAREA": Timetable._read_stop_areas,
    "LOCALSERVICEGROUPPASSTIME": Timetable._read_passtimes,
    "LOCALSERVICEGROUP": Timetable._read_levels,
    "LOCALSERVICEGROUPVALIDITY": Timetable._read_dates,
}


def _metres(text: str | None) -> int:
    """Read a coordinate; 0 for what is none, which is no position."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 8 else 0


@lru_cache(maxsize=1 << 16)
def _seconds(time: bytes) -> int | None:
    return read_time(time.decode())


def _is_time(time: bytes) -> bool:
    """Tell whether a field is a time, or says that there is none."""
    return _seconds(time) is not None or time in _UNSAID
