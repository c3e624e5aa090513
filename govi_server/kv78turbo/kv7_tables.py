"""The tables of the KV7 timetable: applies updates, and removes expired data.

Longer than other modules: what an update replaces depends on all tables, so their rules stand together.
"""

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from datetime import date, timedelta
from itertools import islice
from typing import NamedTuple

from msgspec import Struct

from govi_server.departures.times import local_date
from govi_server.kv78turbo.bounded_table import BoundedTable, largest_cohort
from govi_server.kv78turbo.ctx import Records, Reject
from govi_server.kv78turbo.gtfs_timetable import GtfsTimetable
from govi_server.kv78turbo.kv7_journeys import Journeys, journeys_of
from govi_server.kv78turbo.kv7_lines import LinesByDate
from govi_server.kv78turbo.kv7_names import RETENTION_SECONDS, Names, remove_member
from govi_server.kv78turbo.kv7_reader import Group, Level, Passtimes, TimetableReader, Update, UserStop
from govi_server.planning.planning import Planning
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


class StopPasstimes(Struct, frozen=True, eq=False, gc=False):
    """The planned passtimes of a group at a user stop.

    A national timetable has 300,000 of these dicts. A dict of them would be visited by each full garbage collection,
    for 27 ms in all; a dict of Structs without gc is not.
    """

    by_key: dict[bytes, bytes]


class Publication(Struct, frozen=True, eq=False, gc=False):
    """The latest publication of a group."""

    published: float
    """Epoch seconds."""
    stops: dict[UserStop, StopPasstimes]
    journeys: Journeys
    n_planned: int

    def passtimes(self, stop: UserStop) -> dict[bytes, bytes]:
        """Return the passtimes at a user stop."""
        return self.stops.get(stop, _NO_PASSTIMES).by_key


class Calendar(NamedTuple):
    """The latest publication of a service level's dates."""

    published: float
    dates: frozenset[date]


_NO_PASSTIMES = StopPasstimes({})
NO_PUBLICATION = Publication(0.0, {}, {}, 0)
NO_CALENDAR = Calendar(0.0, frozenset())


class TimetableTables:
    """Stores the timetable of KV7. now: returns the time in epoch seconds."""

    def __init__(self, now: Callable[[], float], limits: PlanningSettings = PLANNING_DEFAULTS) -> None:
        self._now = now
        self._limits = limits
        self.version = 0
        """Changes with each update; that of a stop is version_of()."""
        self.gtfs: GtfsTimetable | None = None
        """The timetable of GTFS, which applies to lines and dates that KV7 has not planned, and its names."""
        self._names = names = Names(limits.names, self._is_planned_stop)
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
        self._published: BoundedTable[Group, Publication] = BoundedTable(
            limits.planned,
            UNDATED_SECONDS,
            size_of=lambda publication: publication.n_planned,
            remove=self._remove_group,
        )
        self._groups_of_stop: dict[UserStop, dict[Group, None]] = {}
        self._groups_of_line: dict[tuple[str, str], dict[Group, None]] = {}
        self._groups_of_operator: Counter[str] = Counter()
        self._groups_of_level: dict[Level, dict[Group, None]] = {}
        self._dates: BoundedTable[Level, Calendar] = BoundedTable(
            limits.names, RETENTION_SECONDS, remove=self._evict_level
        )
        self._lines_by_date = LinesByDate()

    def version_of(self, code: str) -> tuple[int, int]:
        """Return a token that changes whenever a stop's planned passtimes or names on its board may have changed."""
        return self._names.shared_version, self._names.versions.get(code, 0)

    def versions_of(self, codes: Iterable[str]) -> tuple[int, *tuple[int | None, ...]]:
        """Return the shared and the other parts of the tokens of some stops, without a call for each."""
        return self._names.shared_version, *map(self._names.versions.get, codes)

    @property
    def n_planned(self) -> int:
        """The number of planned passtimes."""
        return self._published.size

    @property
    def planned_operators(self) -> Collection[str]:
        """The operators that KV7 has planned passtimes of."""
        return self._groups_of_operator

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
            if not (yield from self._set_group(group, stops, update.published, now)):
                reject("too many planned passes")
            elif update.is_confirmed:
                self._published.confirm(group)
            yield
        for number, level in enumerate(update.levels | update.dates.keys(), 1):
            dates = self._dates.get(level, NO_CALENDAR).dates
            if not self._set_dates(level, frozenset(update.dates.get(level, ())), update.published, now):
                reject("too many names")
            elif update.is_confirmed:
                self._dates.confirm(level)
            if self._dates.get(level, NO_CALENDAR).dates != dates:
                yield from self._change_stops_of_level(level)
            if number % STEP_ENTRIES == 0:
                yield
        self.version += 1

    def restore(self, update: Update, reject: Reject) -> Iterator[None]:
        """Apply an update of a snapshot in steps: names that are known already are newer."""
        self._names.discard_known(update)
        yield from self.apply(update, reject)

    def use_planning(self, planning: Planning) -> None:
        """Use the planning of a GTFS file instead of any earlier one."""
        self.gtfs = GtfsTimetable(planning, self.is_planned)
        self._names.versions.clear()  # of stops that only the earlier one had
        self._names.n_shared_changes += 1
        self.version += 1

    def _is_planned_stop(self, code: str) -> bool:
        return self.gtfs is not None and code in self.gtfs.planning

    def is_planned(self, operator: str, line: str, day: date) -> bool:
        """Return whether KV7 has planned a line on an operating date: then its planning from GTFS does not apply.

        Nor does it if KV7 has at least half as many lines of the operator: the line is not operated any more. With
        fewer, KV7 is a change of some lines, or still arriving.
        """
        number = self._lines_by_date.number(operator, day)
        return number > 0 and (
            self._lines_by_date.has(operator, line, day) or self._is_superseded(operator, day, number)
        )

    def _is_superseded(self, operator: str, day: date, n_lines: int) -> bool:
        return self.gtfs is None or 2 * n_lines >= self.gtfs.n_lines_on(operator, day)

    def _set_line_dates(self, group: Group, dates: frozenset[date]) -> None:
        """Record the dates of a line, and change the stops whose planning from GTFS applies no longer, or again."""
        changes = list(self._lines_by_date.set_dates(group, dates))
        if self.gtfs is None or not changes:
            return
        operator, _, line = group.decode().split("|")
        if any(
            self._is_superseded(operator, day, before) != self._is_superseded(operator, day, after)
            for day, before, after in changes
        ):
            self._names.n_shared_changes += 1  # all its lines change
            return
        for code in self.gtfs.planning.line_stops(operator, line):
            self._names.change(code)

    def _set_dates(self, level: Level, dates: frozenset[date], published: float, now: float) -> bool:
        """Set the dates of a service level; return whether there is room for it."""
        latest = self._dates.get(level, NO_CALENDAR)
        if published < latest.published:
            return True
        return self._dates.put(
            level, Calendar(published, dates if published > latest.published else latest.dates | dates), now
        )

    def _change_stops_of_level(self, level: Level) -> Iterator[None]:
        for group in list(self._groups_of_level.get(level, ())):
            if group in self._published:
                self._set_line_dates(group, self._dates.get(level, NO_CALENDAR).dates)
                self._change_stops(self._published[group].stops)
            yield

    def _change_stops(self, stops: Iterable[UserStop]) -> None:
        for stop in stops:
            self._names.change_user_stop(stop)

    def _evict_level(self, level: Level) -> None:
        self._dates.discard(level)
        self._names.n_shared_changes += 1  # its stops may be too many to change in one step

    def _set_group(
        self, group: Group, planned: Passtimes, published: float, now: float
    ) -> Generator[None, None, bool]:
        """Set, or add to, the passtimes of a service level's line in steps; return whether there is room for them."""
        while True:
            latest = self._published.get(group, NO_PUBLICATION)
            if published < latest.published:
                return True
            passtimes = planned if published > latest.published else (yield from _merged(latest, planned))
            journeys = yield from journeys_of(passtimes)
            if self._published.get(group, NO_PUBLICATION) is latest:  # not superseded meanwhile
                break
        n_planned = sum(map(len, passtimes.values()))
        stops = {stop: StopPasstimes(by_key) for stop, by_key in passtimes.items()}
        if n_planned > MAX_LINE_PASSTIMES or len(stops) > MAX_LINE_STOPS:
            return False
        if not all(self._make_room_at(stop) for stop in stops.keys() - latest.stops.keys()):
            return False
        is_confirmed = False
        if group in self._published:
            self._published.repeat(group, now)
            is_confirmed = self._published.is_confirmed(group)
            self._remove_group(group)
        if not self._published.put(group, Publication(published, stops, journeys, n_planned), now):
            return False
        if is_confirmed:
            self._published.confirm(group)
        for stop in stops:
            self._groups_of_stop.setdefault(stop, {})[group] = None
        operator, _, line = group.decode().split("|")
        self._groups_of_line.setdefault((operator, line), {})[group] = None
        self._groups_of_level.setdefault(level_of(group), {})[group] = None
        self._groups_of_operator[operator] += 1
        self._set_line_dates(group, self._dates.get(level_of(group), NO_CALENDAR).dates)
        self._change_stops(stops)
        return True

    def _make_room_at(self, stop: UserStop) -> bool:
        """Evict a group of a user stop if it has the maximum; return whether there is room."""
        groups = self._groups_of_stop.get(stop, {})
        if len(groups) >= MAX_STOP_GROUPS:
            for group in largest_cohort((group, self._published.cohort(group)) for group in groups)[:1]:
                self._remove_group(group)
        return len(groups) < MAX_STOP_GROUPS

    def _remove_group(self, group: Group) -> None:
        stops = self._published[group].stops
        self._published.discard(group)
        for stop in stops:
            remove_member(self._groups_of_stop, stop, group)
        operator, _, line = group.decode().split("|")
        remove_member(self._groups_of_line, (operator, line), group)
        remove_member(self._groups_of_level, level_of(group), group)
        self._groups_of_operator[operator] -= 1
        if not self._groups_of_operator[operator]:
            del self._groups_of_operator[operator]
        self._set_line_dates(group, frozenset())
        self._change_stops(stops)

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

        groups = list(self._published)
        while groups:
            group = groups.pop()  # the last reference, with which the group's memory is returned to the kernel
            dates = self._dates.get(level_of(group), NO_CALENDAR).dates
            if group in self._published and is_expired(self._published[group].published, dates):
                self._remove_group(group)
                yield
            elif len(groups) % STEP_ENTRIES == 0:
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
            publication = self._published.get(group, NO_PUBLICATION)
            stops = iter(publication.stops.items())
            while planned := {stop: passtimes.by_key for stop, passtimes in islice(stops, STEP_ENTRIES)}:
                is_confirmed = self._published.is_confirmed(group)
                yield Update(publication.published, planned={group: planned}, is_confirmed=is_confirmed)
                if self._published.get(group) is not publication:  # it was superseded meanwhile
                    break


def _merged(latest: Publication, planned: Passtimes) -> Generator[None, None, Passtimes]:
    """Return the passtimes of a publication with further ones, in steps."""
    merged = {stop: passtimes.by_key for stop, passtimes in latest.stops.items()}
    for number, (stop, by_key) in enumerate(planned.items(), 1):
        merged[stop] = {**merged.get(stop, {}), **by_key}
        if number % STEP_ENTRIES == 0:
            yield
    return merged


def level_of(group: Group) -> Level:
    """Return the service level of a group."""
    return group.rpartition(b"|")[0]
