"""Places: what people call a stop, which may have a TimingPoint for each platform. Pure.

A place is all TimingPoints of one stop area, and those of one name within 150 m of each other. Both, since operators
have areas of their own at one stop, and often only one of two directions has an area.
"""

import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from math import hypot

from msgspec import Struct

from govi_server.departures.display import place as split_name
from govi_server.departures.modes import MODES, Mode
from govi_server.departures.place_words import folded
from govi_server.departures.timing_point import TIMING_POINT_CODE_PATTERN, TimingPoint, wgs84
from govi_server.runtime.cooperative import STEP_ITEMS, sort_in_steps

MAX_DISTANCE_METRES = 150
"""Distance within which TimingPoints of one name are one place."""

MAX_PLACE_STOPS = 100
"""TimingPoints of a place; the largest stations have about forty. Larger areas are divided."""

PLACE_ID_PATTERN = f"p{TIMING_POINT_CODE_PATTERN}"
"""A regular expression for a place's id, which no TimingPointCode matches."""

_PLACE_ID = re.compile(PLACE_ID_PATTERN)
_CELL_METRES = 100
"""Side length of cells: TimingPoints in the same cell are within MAX_DISTANCE_METRES."""
_NEIGHBOURS = [(dx, dy) for dx in range(-2, 3) for dy in range(-2, 3) if (dx, dy) > (0, 0)]
_STEP_GROUPS = 32
"""Groups per step."""
_MAX_COMPARED = 8
"""TimingPoints of a cell that are compared with those of another; a cell with more is full of the same name."""


class StopRecord(Struct, frozen=True, gc=False):
    """What is known of a TimingPoint, from any source."""

    code: str
    point: TimingPoint | None
    """Its name and position; None if unknown."""
    area_name: str | None
    """The name of its stop area."""
    modes: frozenset[Mode]
    n_departures: int
    """Planned departures, or current ones without planning; only compared with those of other stops."""


class Place(Struct, frozen=True, gc=False):
    """A place. x, y: its middle in RD coordinates, in metres; 0 if unknown."""

    id: str
    """See place_id()."""
    name: str
    town: str
    """"" if unknown."""
    codes: tuple[str, ...]
    """Its TimingPointCodes, sorted."""
    modes: tuple[Mode, ...]
    """In the order of MODES."""
    n_departures: int
    x: float
    y: float
    areas: tuple[str, ...] = ()
    """Its StopAreaCodes."""
    other_names: tuple[str, ...] = ()
    """Further names of its TimingPoints, by which it is found."""

    @property
    def has_position(self) -> bool:
        """Whether the position is known."""
        return self.x > 0

    @property
    def position(self) -> tuple[float, float] | None:
        """Longitude and latitude in degrees (WGS 84); None if unknown."""
        return wgs84(round(self.x), round(self.y)) if self.has_position else None


def is_place_id(text: str) -> bool:
    """Return whether a text has the form of a place's id."""
    return _PLACE_ID.fullmatch(text) is not None


def place_id(code: str) -> str:
    """Return an id of the place with a TimingPointCode.

    Ids contain no names, and remain valid when the timetable, the areas or the names change: any member identifies
    its place. /places returns the one with the lowest code.
    """
    return f"p{code}"


def code_of(identifier: str) -> str:
    """Return the TimingPointCode in a place's id."""
    return identifier[1:]


def make_places(records: Iterable[StopRecord]) -> Generator[None, None, list[Place]]:
    """Return the places of all TimingPoints, in steps. records: in order of their codes; each is read once."""
    joined = _Joined()
    areas: dict[str, str] = {}
    named: dict[tuple[str, str], list[StopRecord]] = {}
    for n, record in enumerate(records, 1):
        if not n % _STEP_GROUPS:
            yield
        joined.add(record)
        point = record.point
        if point is None:
            continue
        if point.stop_area is not None:
            joined.join(areas.setdefault(point.stop_area, record.code), record.code)
        if point.has_position and (name := folded(point.name or "")):
            named.setdefault((name, folded(point.town or "")), []).append(record)
    # Everything is popped: freeing all of it at the end would take a step of ten milliseconds.
    while named:
        _, same_name = named.popitem()
        for group in (yield from _near_each_other(same_name)) if len(same_name) > 1 else ():
            for n, record in enumerate(group, 1):
                joined.join(group[0].code, record.code)
                if not n % STEP_ITEMS:
                    yield
        if not len(named) % _STEP_GROUPS:
            yield
    while areas:
        areas.popitem()
        if not len(areas) % STEP_ITEMS:
            yield
    groups = yield from joined.groups()
    places: list[Place] = []
    while groups:
        group = groups.pop()
        for start in range(0, len(group), MAX_PLACE_STOPS):
            places.append(_place(group[start : start + MAX_PLACE_STOPS]))
        if not len(groups) % _STEP_GROUPS:
            yield
    return places


class _Joined:
    """TimingPoints of which some are joined to groups (a disjoint-set forest)."""

    def __init__(self) -> None:
        self._records: dict[str, StopRecord] = {}
        self._joined_to: dict[str, str] = {}
        """Of a code, another one of its group, which leads to its first code."""

    def add(self, record: StopRecord) -> None:
        """Add a TimingPoint as a group of its own."""
        self._records[record.code] = record

    def join(self, code: str, other: str) -> None:
        """Join the groups of two TimingPointCodes."""
        first, second = sorted((self._first(code), self._first(other)))
        if first != second:
            self._joined_to[second] = first

    def _first(self, code: str) -> str:
        joined_to = self._joined_to
        while (next_code := joined_to.get(code)) is not None:
            joined_to[code] = joined_to.get(next_code, next_code)
            code = next_code
        return code

    def groups(self) -> Generator[None, None, list[list[StopRecord]]]:
        """Return the groups, each in the order in which its TimingPoints were added, in steps; this is empty then."""
        groups: dict[str, list[StopRecord]] = {}
        for n, (code, record) in enumerate(self._records.items(), 1):
            groups.setdefault(self._first(code), []).append(record)
            if not n % STEP_ITEMS:
                yield
        while self._records:
            self._joined_to.pop(self._records.popitem()[0], None)
            if not len(self._records) % STEP_ITEMS:
                yield
        return list(groups.values())


def _near_each_other(records: list[StopRecord]) -> Generator[None, None, list[list[StopRecord]]]:
    """Return groups of TimingPoints each of which is within MAX_DISTANCE_METRES of another one of its group."""
    cells: dict[tuple[int, int], list[StopRecord]] = {}
    for n, record in enumerate(records, 1):
        assert record.point is not None
        cells.setdefault((record.point.x // _CELL_METRES, record.point.y // _CELL_METRES), []).append(record)
        if not n % STEP_ITEMS:
            yield
    first_cell = {cell: cell for cell in cells}

    def root(cell: tuple[int, int]) -> tuple[int, int]:
        while first_cell[cell] != cell:
            first_cell[cell] = cell = first_cell[first_cell[cell]]
        return cell

    for n, (cell, members) in enumerate(cells.items(), 1):
        for dx, dy in _NEIGHBOURS:
            others = cells.get((cell[0] + dx, cell[1] + dy))
            if others is not None and _are_near(members, others):
                first_cell[root((cell[0] + dx, cell[1] + dy))] = root(cell)
        if not n % 8:
            yield
    groups: dict[tuple[int, int], list[StopRecord]] = {}
    for n, (cell, members) in enumerate(cells.items(), 1):
        groups.setdefault(root(cell), []).extend(members)
        if not n % STEP_ITEMS:
            yield
    ordered = []
    for group in groups.values():
        ordered.append((yield from sort_in_steps(group, lambda record: record.code)))
    return ordered


def _are_near(some: list[StopRecord], others: list[StopRecord]) -> bool:
    return any(
        hypot(one.x - other.x, one.y - other.y) <= MAX_DISTANCE_METRES
        for one in _points(some[:_MAX_COMPARED])
        for other in _points(others[:_MAX_COMPARED])
    )


def _points(records: list[StopRecord]) -> Iterator[TimingPoint]:
    return (record.point for record in records if record.point is not None)


def _place(records: list[StopRecord]) -> Place:
    """Return the place of some TimingPoints, which are sorted by code."""
    points = list(_points(records))
    names = Counter(split_name(point.name, point.town) for point in points)
    name, town = max(names, key=lambda names_of: names[names_of]) if names else ("", "")
    other_names = dict.fromkeys(other for other, _ in names)
    if area_name := next((record.area_name for record in records if record.area_name), None):
        name = split_name(area_name, town)[0] or name
    other_names.pop(name, None)
    positions = [(point.x, point.y) for point in points if point.has_position]
    x, y = (sum(axis) / len(positions) for axis in zip(*positions, strict=True)) if positions else (0, 0)
    modes = frozenset().union(*(record.modes for record in records))
    code = records[0].code
    return Place(
        place_id(code),
        name or code,
        town,
        tuple([record.code for record in records]),
        tuple([mode for mode in MODES if mode in modes]),
        sum([record.n_departures for record in records]),
        x,
        y,
        tuple(dict.fromkeys([point.stop_area for point in points if point.stop_area is not None])),
        tuple(other_names),
    )
