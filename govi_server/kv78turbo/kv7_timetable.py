"""The KV7 timetable in memory: applies updates, removes expired data, and serves lookups."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, timedelta
from typing import TypeVar

from govi_server.departures.times import PassingTimes, local_date, moment, write_time
from govi_server.departures.timing_point import TimingPoint
from govi_server.kv78turbo.ctx import Records, Reject, texts
from govi_server.kv78turbo.kv7_reader import (
    VALUE_NAMES,
    Group,
    Level,
    Line,
    TimetableReader,
    Update,
    UserStop,
    planned_times,
)
from govi_server.kv78turbo.passtime import Passtime
from govi_server.runtime.text import nonblank
from govi_server.settings import PlanningSettings

UNDATED_SECONDS = 7 * 86400.0
"""How long the passtimes of a service level without dates are retained: its calendar is often published later."""

PLANNING_DEFAULTS = PlanningSettings()

_K = TypeVar("_K")
_V = TypeVar("_V")


class Timetable:
    """Stores the timetable of KV7. now: returns the time in epoch seconds."""

    def __init__(self, now: Callable[[], float], limits: PlanningSettings = PLANNING_DEFAULTS) -> None:
        self._now = now
        self._limits = limits
        self.version = 0
        """Changes with each update."""
        self.lines: dict[tuple[str, str], Line] = {}
        """By DataOwnerCode and LinePlanningNumber."""
        self.destinations: dict[tuple[str, str], str] = {}
        """DestinationName50 by DataOwnerCode and DestinationCode."""
        self.timing_points: dict[str, TimingPoint] = {}
        """By TimingPointCode."""
        self.stop_areas: dict[str, str | None] = {}
        """StopAreaName by StopAreaCode."""
        self.points_of_area: dict[str, dict[str, None]] = {}
        """TimingPointCodes by StopAreaCode."""
        self.directions: dict[tuple[str, str, str], str | None] = {}
        """A DestinationCode by DataOwnerCode, LinePlanningNumber and LineDirection."""
        self.n_planned = 0
        self._code_of: dict[UserStop, str] = {}
        self._user_stops: dict[str, dict[UserStop, None]] = {}
        self._planned: dict[UserStop, dict[Group, dict[bytes, bytes]]] = {}
        self._published: dict[Group, tuple[float, dict[UserStop, None]]] = {}
        self._groups_of_line: dict[tuple[str, str], dict[Group, None]] = {}
        self._dates: dict[Level, tuple[float, frozenset[date]]] = {}

    def read(self, message: Iterable[Records | None], reject: Reject) -> Iterator[Update | None]:
        """Parse a message in steps; see TimetableReader.read()."""
        return TimetableReader(self._now, self._is_full, reject).read(message)

    def _is_full(self, further: int) -> bool:
        return self.n_planned + further >= self._limits.planned

    # Applying updates.

    def apply(self, update: Update, reject: Reject) -> None:
        """Apply an update.

        The latest publication of a service level's line supersedes earlier ones as a whole, as does that of a service
        level's dates; updates of the same publication are combined.
        """
        for line_key, line in self._fitting(self.lines, update.lines, reject):
            self.lines[line_key] = line
        for destination, name in self._fitting(self.destinations, update.destinations, reject):
            self.destinations[destination] = name
        for direction, destination_code in self._fitting(self.directions, update.directions, reject):
            self.directions[direction] = destination_code
        for area, area_name in self._fitting(self.stop_areas, update.stop_areas, reject):
            self.stop_areas[area] = area_name
        for code, point in self._fitting(self.timing_points, update.timing_points, reject):
            self._set_point(code, point)
        for stop, code in self._fitting(self._code_of, update.user_stops, reject):
            self._set_code(stop, code)
        for group, stops in update.planned.items():
            self._set_group(group, stops, update.published)
        levels = dict.fromkeys(update.levels | update.dates.keys())
        for level, _ in self._fitting(self._dates, levels, reject):
            self._set_dates(level, frozenset(update.dates.get(level, ())), update.published)
        self.version += 1

    def restore(self, update: Update, reject: Reject) -> None:
        """Apply an update of a snapshot: names and stops that are known already are newer."""
        _discard(update.lines, self.lines)
        _discard(update.destinations, self.destinations)
        _discard(update.directions, self.directions)
        _discard(update.stop_areas, self.stop_areas)
        _discard(update.timing_points, self.timing_points)
        _discard(update.user_stops, self._code_of)
        self.apply(update, reject)

    def _fitting(self, table: Mapping[_K, object], items: Mapping[_K, _V], reject: Reject) -> Iterator[tuple[_K, _V]]:
        """Yield the items that are in a table already or fit into it."""
        for key, value in items.items():
            if key in table or len(table) < self._limits.names:
                yield key, value
            else:
                reject("too many names")

    def _set_point(self, code: str, point: TimingPoint) -> None:
        old = self.timing_points.get(code)
        if old is not None and old.stop_area is not None and old.stop_area != point.stop_area:
            self.points_of_area[old.stop_area].pop(code, None)
        self.timing_points[code] = point
        if point.stop_area is not None:
            self.points_of_area.setdefault(point.stop_area, {})[code] = None

    def _set_code(self, stop: UserStop, code: str) -> None:
        old = self._code_of.get(stop)
        if old is not None and old != code:
            del self._user_stops[old][stop]
            if not self._user_stops[old]:
                del self._user_stops[old]
        self._code_of[stop] = code
        self._user_stops.setdefault(code, {})[stop] = None

    def _set_dates(self, level: Level, dates: frozenset[date], published: float) -> None:
        latest, latest_dates = self._dates.get(level, (0.0, frozenset()))
        if published > latest:
            self._dates[level] = (published, dates)
        elif published == latest:
            self._dates[level] = (published, latest_dates | dates)

    def _set_group(self, group: Group, stops: dict[UserStop, dict[bytes, bytes]], published: float) -> None:
        latest, group_stops = self._published.get(group, (0.0, {}))
        if published < latest:
            return
        if published > latest and group_stops:
            self._remove_group(group)
            group_stops = {}
        for stop, passtimes in stops.items():
            stored = self._planned.setdefault(stop, {}).setdefault(group, {})
            self.n_planned -= len(stored)
            stored.update(passtimes)
            self.n_planned += len(stored)
            group_stops[stop] = None
        self._published[group] = (published, group_stops)
        operator, _, line = group.decode().split("|")
        self._groups_of_line.setdefault((operator, line), {})[group] = None

    def _remove_group(self, group: Group) -> None:
        _, stops = self._published.pop(group)
        for stop in stops:
            groups = self._planned[stop]
            self.n_planned -= len(groups.pop(group, ()))
            if not groups:
                del self._planned[stop]
        operator, _, line = group.decode().split("|")
        del self._groups_of_line[operator, line][group]
        if not self._groups_of_line[operator, line]:
            del self._groups_of_line[operator, line]

    def sweep(self) -> None:
        """Remove the service levels whose last date has passed, and those without dates for UNDATED_SECONDS."""
        now = self._now()
        yesterday = local_date(now) - timedelta(1)
        before = self.n_planned

        def is_expired(published: float, dates: frozenset[date]) -> bool:
            return max(dates) < yesterday if dates else now - published > UNDATED_SECONDS

        for group, (published, _) in list(self._published.items()):
            _, dates = self._dates.get(_level(group), (0.0, frozenset[date]()))
            if is_expired(published, dates):
                self._remove_group(group)
        for level, (published, dates) in list(self._dates.items()):
            if is_expired(published, dates):
                del self._dates[level]
        self.version += before != self.n_planned

    def updates(self) -> Iterator[Update]:
        """Yield updates that restore the timetable when they are applied."""
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

    # Lookups.

    def public_number(self, passtime: Passtime) -> str:
        """Return the LinePublicNumber of a passtime, or its LinePlanningNumber if unknown."""
        line = self.lines.get((passtime.data_owner_code, passtime.line_planning_number))
        return passtime.line_public_number or (line and line.public_number) or passtime.line_planning_number

    def destination(self, passtime: Passtime) -> str:
        """Return the name of a passtime's destination, or its code if unknown; "" without either."""
        code = passtime.destination_code or ""
        return passtime.destination_name or self.destinations.get((passtime.data_owner_code, code), code)

    def line_name(self, passtime: Passtime) -> str:
        """Return the LineName of a passtime, or its public number if unknown."""
        line = self.lines.get((passtime.data_owner_code, passtime.line_planning_number))
        return (line and line.name) or self.public_number(passtime)

    def is_known_stop(self, code: str) -> bool:
        """Return whether KV7 has a TimingPointCode."""
        return code in self.timing_points or code in self._user_stops

    def has_planning(self, code: str) -> bool:
        """Return whether passtimes of a stop are planned, on any date."""
        return any(stop in self._planned for stop in self._user_stops.get(code, ()))

    def passtimes(self, code: str, since: float, until: float) -> Iterator[tuple[bytes, Passtime]]:
        """Yield the planned passtimes of a stop between two moments (epoch seconds), each with its key in KV8.

        A passtime applies on the dates of its service level.
        """
        first = local_date(since)
        dates = [first + timedelta(n) for n in range(-1, (local_date(until) - first).days + 1)]
        for stop in self._user_stops.get(code, ()):
            for group, passtimes in self._planned.get(stop, {}).items():
                level = self._dates.get(_level(group))
                valid = [day for day in dates if level is not None and day in level[1]]
                for key, values in passtimes.items() if valid else ():
                    yield from self._on_dates(valid, key, values, code, since, until)

    def _on_dates(
        self, dates: list[date], key: bytes, values: bytes, code: str, since: float, until: float
    ) -> Iterator[tuple[bytes, Passtime]]:
        arrival, departure, stop_type, _ = values.split(b"|", 3)
        if stop_type == b"INFOPOINT":
            return
        times = planned_times(arrival, departure, stop_type)
        seconds = times.target_arrival if times.target_departure is None else times.target_departure
        for day in dates:
            time = None if seconds is None else moment(day, seconds)
            if time is not None and since <= time <= until:
                *journey, order, _ = key.split(b"|")
                identity = b"|".join((*journey, day.isoformat().encode(), order))
                yield identity, self._passtime(key, values, code, day, times)

    def _passtime(self, key: bytes, values: bytes, code: str, day: date, times: PassingTimes) -> Passtime:
        operator, level, line, journey, fortify, order, stop = (part or "" for part in texts(key))
        columns = dict(zip(VALUE_NAMES, map(nonblank, texts(values)), strict=True))
        arrival, departure = (None if time is None else write_time(time) for time in times[:2])
        arrives, departs = (None if time is None else moment(day, time) for time in times[:2])
        published = self._published.get(b"|".join(key.split(b"|", 3)[:3]))
        return Passtime(
            data_owner_code=operator,
            local_service_level_code=level,
            line_planning_number=line,
            journey_number=journey,
            fortify_order_number=fortify,
            operation_date=day,
            user_stop_order_number=order,
            user_stop_code=stop,
            timing_point_code=code,
            timing_point_data_owner_code="ALGEMEEN",
            last_update=None if published is None else published[0],
            target_arrival_time=arrival,
            expected_arrival_time=arrival,
            target_departure_time=departure,
            expected_departure_time=departure,
            target_arrival=arrives,
            expected_arrival=arrives,
            target_departure=departs,
            expected_departure=departs,
            trip_stop_status="PLANNED",
            journey_stop_type=columns["JourneyStopType"] or "UNKNOWN",
            wheelchair=columns["WheelChairAccessible"] or "UNKNOWN",
            destination_code=columns["DestinationCode"],
            line_direction=columns["LineDirection"],
            journey_pattern_code=columns["JourneyPatternCode"],
            is_timing_stop=columns["IsTimingStop"] == "1",
            side_code=columns["SideCode"],
            product_formula_type=columns["ProductFormulaType"],
        )

    def journey(self, prefix: bytes, now: float) -> dict[bytes, Passtime]:
        """Return the planned passtimes of a journey around a moment, by their keys in KV8.

        prefix: the first five columns of the key, each with its separator.
        """
        group = b"|".join(prefix.split(b"|", 3)[:3])
        _, dates = self._dates.get(_level(group), (0.0, frozenset[date]()))
        valid = sorted(dates & {local_date(now) + timedelta(n) for n in (-1, 0, 1)})
        passtimes: dict[bytes, Passtime] = {}
        for stop in self._published.get(group, (0.0, {}))[1] if valid else ():
            code = self._code_of.get(stop)
            for key, values in self._planned[stop][group].items() if code is not None else ():
                if code is not None and key.startswith(prefix):
                    passtimes.update(self._on_dates(valid, key, values, code, 0.0, now + 7 * 86400))
        return passtimes

    def first_passtimes(
        self, operator: str, line: str, direction: str, since: float, until: float
    ) -> list[tuple[bytes, Passtime]]:
        """Return the first passtime of each planned journey of a line, as passtimes() does for a stop."""
        stops = {
            stop for group in self._groups_of_line.get((operator, line), ()) for stop in self._published[group][1]
        }
        codes = {code for stop in stops if (code := self._code_of.get(stop)) is not None}
        return [
            (key, passtime)
            for code in codes
            for key, passtime in self.passtimes(code, since, until)
            if (passtime.data_owner_code, passtime.line_planning_number) == (operator, line)
            and (passtime.line_direction, passtime.journey_stop_type) == (direction, "FIRST")
        ]

    def patterns(self, operator: str, line: str, direction: str) -> dict[str, dict[int, tuple[str, bool]]]:
        """Return the patterns of a line in a direction: TimingPointCode and IsTimingStop by UserStopOrderNumber."""
        patterns: dict[str, dict[int, tuple[str, bool]]] = {}
        for group in self._groups_of_line.get((operator, line), ()):
            for stop in self._published[group][1]:
                code = self._code_of.get(stop)
                if code is None:
                    continue
                for key, values in self._planned[stop][group].items():
                    columns = dict(zip(VALUE_NAMES, texts(values), strict=True))
                    pattern, order = columns["JourneyPatternCode"], int(key.split(b"|")[5])
                    if (
                        pattern
                        and columns["LineDirection"] == direction
                        and columns["JourneyStopType"] != "INFOPOINT"
                    ):
                        patterns.setdefault(pattern, {})[order] = (code, columns["IsTimingStop"] == "1")
        return patterns


def _level(group: Group) -> Level:
    return group.rpartition(b"|")[0]


def _discard(table: dict[_K, _V], known: Mapping[_K, object]) -> None:
    """Remove the keys from a table that another one has."""
    for key in table.keys() & known.keys():
        del table[key]
