"""The names of KV7 in memory: lines, destinations, stops and stop areas, in tables of limited size."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import TypeVar

from govi_server.departures.timing_point import TimingPoint
from govi_server.kv78turbo.bounded_table import BoundedTable, K, largest_cohort
from govi_server.kv78turbo.ctx import Reject
from govi_server.kv78turbo.kv7_reader import Line, Update, UserStop

RETENTION_SECONDS = 7 * 86400.0
"""How long names are retained that are neither published again nor used: some operators do not publish KV7 every
night."""

MAX_USER_STOPS = 100
"""User stops of a TimingPoint: a few operators have some each."""

STEP_NAMES = 250
"""Names per step of applying or saving them."""

_V = TypeVar("_V")


class Names:
    """Stores the names of KV7. max_names: maximum number of entries of each table.

    is_known: returns whether a TimingPointCode is one of GTFS, whose changes are recorded as well.
    """

    def __init__(self, max_names: int, is_known: Callable[[str], object]) -> None:
        self._is_known = is_known
        self.lines: BoundedTable[tuple[str, str], Line] = BoundedTable(max_names, RETENTION_SECONDS)
        self.destinations: BoundedTable[tuple[str, str], str] = BoundedTable(max_names, RETENTION_SECONDS)
        self.timing_points: BoundedTable[str, TimingPoint] = BoundedTable(
            max_names, RETENTION_SECONDS, remove=self._remove_point
        )
        self.stop_areas: BoundedTable[str, str | None] = BoundedTable(max_names, RETENTION_SECONDS)
        self.directions: BoundedTable[tuple[str, str, str], str | None] = BoundedTable(max_names, RETENTION_SECONDS)
        self.code_of: BoundedTable[UserStop, str] = BoundedTable(
            max_names, RETENTION_SECONDS, remove=self._remove_user_stop
        )
        self.points_of_area: dict[str, dict[str, None]] = {}
        self.user_stops: dict[str, tuple[UserStop, ...]] = {}
        """By TimingPointCode. Most have one, for which a tuple takes 48 bytes and a dict 224."""
        self.versions: dict[str, int] = {}
        """By TimingPointCode: changes with the stop's own names, user stops and planned passtimes; never repeats."""
        self._latest_version = 0
        self.n_shared_changes = 0
        """The number of changes that concern any stop, besides new and removed lines and destinations."""

    @property
    def shared_version(self) -> int:
        """A number that changes with what concerns any stop: the names of lines and destinations."""
        return self.n_shared_changes + self.lines.generation + self.destinations.generation

    def change(self, code: str) -> None:
        """Record that data of a stop has changed."""
        self._latest_version += 1
        if code in self.timing_points or code in self.user_stops or self._is_known(code):
            self.versions[code] = self._latest_version
        else:
            self.versions.pop(code, None)

    def change_user_stop(self, stop: UserStop) -> None:
        """Record that data of a user stop has changed."""
        code = self.code_of.get(stop)
        if code is not None:
            self.change(code)

    def apply(self, update: Update, now: float, reject: Reject) -> Iterator[None]:
        """Store the names of an update; yields after each step."""

        def store(
            table: BoundedTable[K, _V], put: Callable[[K, _V, float], bool], names: Mapping[K, _V]
        ) -> Iterator[None]:
            for number, (key, value) in enumerate(names.items(), 1):
                if not put(key, value, now):
                    reject("too many names")
                elif update.is_confirmed:
                    table.confirm(key)
                if number % STEP_NAMES == 0:
                    yield

        yield from store(self.lines, partial(self._put_shared, self.lines), update.lines)
        yield from store(self.destinations, partial(self._put_shared, self.destinations), update.destinations)
        yield from store(self.directions, self.directions.put, update.directions)
        yield from store(self.stop_areas, self.stop_areas.put, update.stop_areas)
        yield from store(self.timing_points, self._put_point, update.timing_points)
        yield from store(self.code_of, self._put_user_stop, update.user_stops)

    def discard_known(self, update: Update) -> None:
        """Remove the names from an update that are stored already."""
        _discard(update.lines, self.lines)
        _discard(update.destinations, self.destinations)
        _discard(update.directions, self.directions)
        _discard(update.stop_areas, self.stop_areas)
        _discard(update.timing_points, self.timing_points)
        _discard(update.user_stops, self.code_of)

    def _put_shared(self, table: BoundedTable[K, _V], key: K, value: _V, now: float) -> bool:
        old = table.get(key)
        self.n_shared_changes += old is not None and old != value
        return table.put(key, value, now)

    def _put_point(self, code: str, point: TimingPoint, now: float) -> bool:
        old = self.timing_points.get(code)
        if not self.timing_points.put(code, point, now):
            return False
        if old != point:
            self.change(code)
        if old is not None and old.stop_area != point.stop_area:
            self._leave_area(code, old)
        if point.stop_area is not None:
            self.points_of_area.setdefault(point.stop_area, {})[code] = None
        return True

    def _remove_point(self, code: str) -> None:
        self._leave_area(code, self.timing_points[code])
        self.timing_points.discard(code)
        self.change(code)

    def _leave_area(self, code: str, point: TimingPoint) -> None:
        if point.stop_area is not None:
            remove_member(self.points_of_area, point.stop_area, code)

    def _put_user_stop(self, stop: UserStop, code: str, now: float) -> bool:
        is_new = self.code_of.get(stop) != code
        if is_new:
            if stop in self.code_of:
                self._remove_user_stop(stop)
            stops = self.user_stops.get(code, ())
            if len(stops) >= MAX_USER_STOPS:
                victims = largest_cohort((other, self.code_of.cohort(other)) for other in stops)[:1]
                if not victims:
                    return False
                self._remove_user_stop(victims[0])
        if not self.code_of.put(stop, code, now):
            return False
        if is_new:
            self.user_stops[code] = (*self.user_stops.get(code, ()), stop)
            self.change(code)
        return True

    def _remove_user_stop(self, stop: UserStop) -> None:
        code = self.code_of[stop]
        if others := tuple([other for other in self.user_stops[code] if other != stop]):
            self.user_stops[code] = others
        else:
            del self.user_stops[code]
        self.code_of.discard(stop)
        self.change(code)

    def sweep(
        self, now: float, is_active: Callable[[str], object], is_live_stop: Callable[[str], object]
    ) -> Iterator[None]:
        """Remove the names that are neither published nor used any more; yields after each step.

        is_active: returns whether an operator has passtimes, which may use its names. is_live_stop: returns whether
        KV8 has a TimingPointCode.
        """
        yield from self.lines.sweep(now, lambda key: is_active(key[0]))
        yield from self.directions.sweep(now, lambda key: is_active(key[0]))
        yield from self.destinations.sweep(now, lambda key: is_active(key[0]))
        yield from self.code_of.sweep(now, lambda stop: is_active(stop.partition(b"|")[0].decode()))
        yield from self.timing_points.sweep(now, lambda code: code in self.user_stops or is_live_stop(code))
        yield from self.stop_areas.sweep(now, self.points_of_area.__contains__)

    @property
    def n_evicted(self) -> int:
        """The number of names evicted to make room."""
        tables = (self.lines, self.destinations, self.timing_points, self.stop_areas, self.directions, self.code_of)
        return sum(table.n_evicted for table in tables)

    def updates(self) -> Iterator[Update]:
        """Yield updates that restore the names when they are applied."""
        for is_confirmed in (True, False):
            yield from (Update(is_confirmed=is_confirmed, lines=part) for part in _parts(self.lines, is_confirmed))
            for part in _parts(self.destinations, is_confirmed):
                yield Update(is_confirmed=is_confirmed, destinations=part)
            for points in _parts(self.timing_points, is_confirmed):
                yield Update(is_confirmed=is_confirmed, timing_points=points)
            for stops in _parts(self.code_of, is_confirmed):
                yield Update(is_confirmed=is_confirmed, user_stops=stops)
            for areas in _parts(self.stop_areas, is_confirmed):
                yield Update(is_confirmed=is_confirmed, stop_areas=areas)
            for directions in _parts(self.directions, is_confirmed):
                yield Update(is_confirmed=is_confirmed, directions=directions)


def remove_member(members: dict[K, dict[_V, None]], key: K, member: _V) -> None:
    """Remove a member of a key, and the key without any."""
    del members[key][member]
    if not members[key]:
        del members[key]


def _parts(table: BoundedTable[K, _V], is_confirmed: bool) -> Iterator[dict[K, _V]]:
    """Yield the confirmed or other entries of a table, which may change meanwhile, in parts of up to STEP_NAMES."""
    keys = iter(list(table))
    while part := list(islice(keys, STEP_NAMES)):
        yield {key: table[key] for key in part if key in table and table.is_confirmed(key) == is_confirmed}


def _discard(table: dict[K, _V], known: Mapping[K, _V]) -> None:
    """Remove the keys from a table that another one has."""
    for key in [key for key in table if key in known]:
        del table[key]
