"""The KV7 timetable in memory: applies updates, removes expired data, and serves lookups."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from typing import NamedTuple

from govi_server.departures.times import PassingTimes, local_date, moment, write_time
from govi_server.kv78turbo.bounded_table import BoundedTable
from govi_server.kv78turbo.ctx import Records, Reject, texts
from govi_server.kv78turbo.kv7_names import RETENTION_SECONDS, Names
from govi_server.kv78turbo.kv7_reader import (
    VALUE_NAMES,
    Group,
    Level,
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

MAX_LINE_PASSTIMES = 50_000
"""Planned passtimes of a line on one service level: 500 journeys to 100 stops."""

MAX_LINE_STOPS = 2000
"""User stops of a line."""

MAX_STOP_GROUPS = 3000
"""Groups of passtimes of a user stop: 30 lines on 100 service levels."""

STEP_ENTRIES = 100
"""Groups, or service levels, per step."""

PLANNING_DEFAULTS = PlanningSettings()


class _Publication(NamedTuple):
    """The latest publication of a group."""

    published: float
    """Epoch seconds."""
    stops: tuple[UserStop, ...]
    n_planned: int


class _Calendar(NamedTuple):
    """The latest publication of a service level's dates."""

    published: float
    dates: frozenset[date]


_NO_PUBLICATION = _Publication(0.0, (), 0)
_NO_CALENDAR = _Calendar(0.0, frozenset())


class Timetable:
    """Stores the timetable of KV7. now: returns the time in epoch seconds."""

    def __init__(self, now: Callable[[], float], limits: PlanningSettings = PLANNING_DEFAULTS) -> None:
        self._now = now
        self._limits = limits
        self.version = 0
        """Changes with each update."""
        self._names = names = Names(limits.names)
        self.lines = names.lines
        """By DataOwnerCode and LinePlanningNumber."""
        self.destinations = names.destinations
        """DestinationName50 by DataOwnerCode and DestinationCode."""
        self.timing_points = names.timing_points
        """By TimingPointCode."""
        self.stop_areas = names.stop_areas
        """StopAreaName by StopAreaCode."""
        self.points_of_area = names.points_of_area
        """TimingPointCodes by StopAreaCode."""
        self.directions = names.directions
        """A DestinationCode by DataOwnerCode, LinePlanningNumber and LineDirection."""
        self._code_of = names.code_of
        self._user_stops = names.user_stops
        self._planned: dict[UserStop, dict[Group, dict[bytes, bytes]]] = {}
        self._published: BoundedTable[Group, _Publication] = BoundedTable(
            limits.planned,
            UNDATED_SECONDS,
            size_of=lambda publication: publication.n_planned,
            remove=self._remove_group,
        )
        self._groups_of_line: dict[tuple[str, str], dict[Group, None]] = {}
        self._groups_of_operator: Counter[str] = Counter()
        self._dates: BoundedTable[Level, _Calendar] = BoundedTable(limits.names, RETENTION_SECONDS)

    @property
    def n_planned(self) -> int:
        """The number of planned passtimes."""
        return self._published.size

    @property
    def evictions(self) -> dict[str, int]:
        """The number of entries evicted to make room, by table."""
        return {
            "planned passes": self._published.n_evicted,
            "names": self._names.n_evicted + self._dates.n_evicted,
        }

    def read(
        self, message: Iterable[Records | None], reject: Reject, is_confirmed: bool = False
    ) -> Iterator[Update | None]:
        """Parse a message in steps; see TimetableReader."""
        return TimetableReader(self._now, self._limits.planned // 2, reject, is_confirmed).read(message)

    # Applying updates.

    def apply(self, update: Update, reject: Reject) -> Iterator[None]:
        """Apply an update; yields after each step.

        The latest publication of a service level's line supersedes earlier ones as a whole, as does that of a service
        level's dates; updates of the same publication are combined.
        """
        now = self._now()
        yield from self._names.apply(update, now, reject)
        for group, stops in update.planned.items():
            if not self._set_group(group, stops, update.published, now):
                reject("too many planned passes")
            elif update.is_confirmed:
                self._published.confirm(group)
            yield
        for number, level in enumerate(update.levels | update.dates.keys(), 1):
            if not self._set_dates(level, frozenset(update.dates.get(level, ())), update.published, now):
                reject("too many names")
            elif update.is_confirmed:
                self._dates.confirm(level)
            if number % STEP_ENTRIES == 0:
                yield
        self.version += 1

    def restore(self, update: Update, reject: Reject) -> Iterator[None]:
        """Apply an update of a snapshot in steps: names that are known already are newer."""
        self._names.discard_known(update)
        yield from self.apply(update, reject)

    def _set_dates(self, level: Level, dates: frozenset[date], published: float, now: float) -> bool:
        """Set the dates of a service level; return whether there is room for it."""
        latest = self._dates.get(level, _NO_CALENDAR)
        if published < latest.published:
            return True
        return self._dates.put(
            level, _Calendar(published, dates if published > latest.published else latest.dates | dates), now
        )

    def _set_group(
        self, group: Group, stops: dict[UserStop, dict[bytes, bytes]], published: float, now: float
    ) -> bool:
        """Set, or add to, the passtimes of a service level's line; return whether there is room for them."""
        latest = self._published.get(group, _NO_PUBLICATION)
        if published < latest.published:
            return True
        if published == latest.published:
            stored = {stop: self._planned[stop][group] for stop in latest.stops}
            stops = stored | {stop: {**stored.get(stop, {}), **passtimes} for stop, passtimes in stops.items()}
        n_planned = sum(map(len, stops.values()))
        others = max((len(self._planned.get(stop, ())) for stop in stops.keys() - {*latest.stops}), default=0)
        if n_planned > MAX_LINE_PASSTIMES or len(stops) > MAX_LINE_STOPS or others >= MAX_STOP_GROUPS:
            return False
        is_confirmed = False
        if group in self._published:
            self._published.repeat(group, now)
            is_confirmed = self._published.is_confirmed(group)
            self._remove_group(group)
        if not self._published.put(group, _Publication(published, tuple(stops), n_planned), now):
            return False
        if is_confirmed:
            self._published.confirm(group)
        for stop, passtimes in stops.items():
            self._planned.setdefault(stop, {})[group] = passtimes
        operator, _, line = group.decode().split("|")
        self._groups_of_line.setdefault((operator, line), {})[group] = None
        self._groups_of_operator[operator] += 1
        return True

    def _remove_group(self, group: Group) -> None:
        for stop in self._published[group].stops:
            groups = self._planned[stop]
            del groups[group]
            if not groups:
                del self._planned[stop]
        self._published.discard(group)
        operator, _, line = group.decode().split("|")
        del self._groups_of_line[operator, line][group]
        if not self._groups_of_line[operator, line]:
            del self._groups_of_line[operator, line]
        self._groups_of_operator[operator] -= 1
        if not self._groups_of_operator[operator]:
            del self._groups_of_operator[operator]

    def sweep(
        self,
        is_live_operator: Callable[[str], object] = frozenset[str]().__contains__,
        is_live_stop: Callable[[str], object] = frozenset[str]().__contains__,
    ) -> Iterator[None]:
        """Remove expired passtimes and dates, and names that are not used any more; yields after each step.

        Service levels are removed when their last date has passed, and those without dates after UNDATED_SECONDS.
        is_live_operator, is_live_stop: return whether KV8 has an operator, or a TimingPointCode.
        """
        now = self._now()
        yesterday = local_date(now) - timedelta(1)
        before = self.n_planned

        def is_expired(published: float, dates: frozenset[date]) -> bool:
            return max(dates) < yesterday if dates else now - published > UNDATED_SECONDS

        for number, group in enumerate(list(self._published), 1):
            dates = self._dates.get(_level(group), _NO_CALENDAR).dates
            if group in self._published and is_expired(self._published[group].published, dates):
                self._remove_group(group)
            if number % STEP_ENTRIES == 0:
                yield
        for number, level in enumerate(list(self._dates), 1):
            if level in self._dates and is_expired(*self._dates[level]):
                self._dates.discard(level)
            if number % STEP_ENTRIES == 0:
                yield
        self.version += before != self.n_planned
        yield from self._names.sweep(
            now, lambda operator: operator in self._groups_of_operator or is_live_operator(operator), is_live_stop
        )

    def updates(self) -> Iterator[Update]:
        """Yield updates that restore the timetable when they are applied."""
        yield from self._names.updates()
        for level in list(self._dates):
            if level in self._dates:
                published, dates = self._dates[level]
                is_confirmed = self._dates.is_confirmed(level)
                yield Update(published, levels={level}, dates={level: {*dates}}, is_confirmed=is_confirmed)
        for group in list(self._published):
            publication = self._published.get(group, _NO_PUBLICATION)
            for start in range(0, len(publication.stops), STEP_ENTRIES):
                stops = publication.stops[start : start + STEP_ENTRIES]
                planned = {stop: self._planned[stop][group] for stop in stops}
                is_confirmed = self._published.is_confirmed(group)
                yield Update(publication.published, planned={group: planned}, is_confirmed=is_confirmed)
                if self._published.get(group) is not publication:  # it was superseded meanwhile
                    break

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

    def confirm_stop(self, code: str) -> None:
        """Record that a stop was requested, so that its name is not evicted."""
        self.timing_points.confirm(code)

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
                calendar = self._dates.get(_level(group), _NO_CALENDAR)
                valid = [day for day in dates if day in calendar.dates]
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
                kv8_key = b"|".join((*journey, day.isoformat().encode(), order))
                yield kv8_key, self._passtime(key, values, code, day, times)

    def _passtime(self, key: bytes, values: bytes, code: str, day: date, times: PassingTimes) -> Passtime:
        operator, level, line, journey, fortify, order, stop = (part or "" for part in texts(key))
        columns = dict(zip(VALUE_NAMES, map(nonblank, texts(values)), strict=True))
        arrival, departure = (None if time is None else write_time(time) for time in times[:2])
        arrives, departs = (None if time is None else moment(day, time) for time in times[:2])
        publication = self._published.get(b"|".join(key.split(b"|", 3)[:3]))
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
            last_update=None if publication is None else publication.published,
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
        dates = self._dates.get(_level(group), _NO_CALENDAR).dates
        valid = sorted(dates & {local_date(now) + timedelta(n) for n in (-1, 0, 1)})
        passtimes: dict[bytes, Passtime] = {}
        for stop in self._published.get(group, _NO_PUBLICATION).stops if valid else ():
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
            stop for group in self._groups_of_line.get((operator, line), ()) for stop in self._published[group].stops
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
            for stop in self._published[group].stops:
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
