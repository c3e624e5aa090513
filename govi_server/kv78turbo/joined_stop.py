"""The passtimes of a stop, joined from KV8, KV7 and GTFS and in order, updated when some of them change."""

from bisect import bisect_left, insort
from collections.abc import Generator, Mapping, MutableMapping
from math import inf
from operator import attrgetter
from sys import intern

from msgspec import Struct, structs

from govi_server.departures.display import DisplayRow, Reliability
from govi_server.departures.fragments import OBJECT_BYTES, Fragments
from govi_server.departures.times import HOUR
from govi_server.kv78turbo.kv7_timetable import Timetable
from govi_server.kv78turbo.kv8_columns import parse_passtime
from govi_server.kv78turbo.passtime import Passtime, PlannedCall
from govi_server.kv78turbo.passtime_index import StoredPasstime
from govi_server.kv78turbo.stamps import Stamp
from govi_server.runtime.cooperative import sort_in_steps

PAST_SECONDS = HOUR / 2
"""How far back planned passtimes are looked up; those of KV8 that are later are joined by their keys."""

AHEAD_SECONDS = HOUR / 2
"""How much farther ahead than necessary planned passtimes are looked up, so that they are looked up twice an hour."""

PASSTIME_BYTES = 900
"""Memory of a joined passtime besides its fragments, about."""

STOP_BYTES = 500
"""Memory of a joined stop besides its passtimes, about."""

STEP_PASSTIMES = 64
"""Unchanged passtimes that are compared in one step."""

MAX_INSERTED = 16
"""Changes up to which passtimes are inserted one by one; with more, all are sorted."""

UNUSED_SECONDS = 10.0
"""Time without use after which parts of documents are dropped when memory is short: the documents of a stop that is
requested all the time are made again every ten seconds, if not more often."""

_Order = tuple[float, str, bytes]


class JoinedPasstime(Struct, gc=False, eq=False):
    """A passtime of a stop, with the parts of documents that were made of it.

    Without gc: it is in no cycle. What every board reads is stored: properties are slower.
    """

    key: bytes
    """Its key in KV8."""
    passtime: Passtime
    operator: str
    is_departure: bool
    """Whether passengers can board."""
    expected: float
    order: _Order
    """Its expected time, its journey and its key, by which boards are sorted."""
    hidden_after: float
    """When it is no longer displayed (epoch seconds)."""
    fragments: Fragments
    stored: StoredPasstime | None = None
    """What it was parsed from; None if it is only planned."""
    values: bytes = b""
    """Its stored values when it was parsed; the same object while they are unchanged."""
    stamp: Stamp | None = None
    """The stamp of these values."""
    planned_key: bytes = b""
    """The key of the planned passtime that completes it, which differs from its own if that is from GTFS."""
    unreliable: "JoinedPasstime | None" = None
    """The same passtime while KV8 does not repeat it, if that was displayed."""
    row: tuple[Reliability, DisplayRow | None] | None = None
    """Its latest row on a display, which shares its fragments, and the reliability that it shows; no row if it is not
    displayed. None until it is requested."""

    @property
    def journey(self) -> str:
        """OVapi's key of its journey."""
        return self.order[1]

    @property
    def line_planning_number(self) -> str:
        """LinePlanningNumber, by which queries select."""
        return self.passtime.line_planning_number

    @property
    def line_direction(self) -> str | None:
        """LineDirection, by which queries select."""
        return self.passtime.line_direction

    def with_reliability(self, reliability: Reliability, last_heard: float) -> "JoinedPasstime":
        """Return the passtime with a reliability other than "current", and fragments of its own."""
        unreliable = self.unreliable
        if (
            unreliable is None
            or unreliable.passtime.reliability != reliability
            or unreliable.passtime.last_heard != last_heard
        ):
            passtime = structs.replace(self.passtime, reliability=reliability, last_heard=last_heard)
            unreliable = self.unreliable = structs.replace(
                self, passtime=passtime, fragments=Fragments({}), unreliable=None, row=None
            )
        return unreliable


_order = attrgetter("order")


class JoinedStop:
    """The joined passtimes of a stop.

    planning: a token of the timetable that they are joined with; with another one, a new JoinedStop is made.
    planned_at: the stop is stored in it under the keys of passtimes that are only planned.
    """

    __slots__ = (
        "__weakref__", "_dropped_at", "_entries", "_planned_at", "_planned_since", "_planned_until", "_version",
        "code", "passtimes", "planning", "realtime_operators",
    )  # fmt: skip

    def __init__(self, code: str, planning: object, planned_at: MutableMapping[bytes, "JoinedStop"]) -> None:
        self.code = code
        self.planning = planning
        self._planned_at = planned_at
        self.passtimes: list[JoinedPasstime] = []
        """All passtimes in order."""
        self.realtime_operators: frozenset[str] = frozenset()
        """The operators of those that KV8 has, and perhaps of some that it had."""
        self._entries: dict[bytes, JoinedPasstime] = {}
        self._version = 0
        self._planned_since = self._planned_until = 0.0
        self._dropped_at = -inf

    def drop_unused(self, now: float) -> None:
        """Drop the parts of documents that were not used for UNUSED_SECONDS. now: epoch seconds."""
        if 0 <= now - self._dropped_at < UNUSED_SECONDS:
            return
        self._dropped_at = now
        for entry in self.passtimes:
            entry.fragments.drop_unused()
            if entry.unreliable is not None:
                entry.unreliable.fragments.drop_unused()

    @property
    def size(self) -> int:
        """The memory that it needs in bytes, about."""
        fragments = sum([entry.fragments.size + OBJECT_BYTES * (entry.row is not None) for entry in self.passtimes])
        unreliable = [entry.unreliable for entry in self.passtimes if entry.unreliable is not None]
        copies = sum([PASSTIME_BYTES + entry.fragments.size for entry in unreliable])
        return STOP_BYTES + PASSTIME_BYTES * len(self.passtimes) + fragments + copies

    def update(
        self,
        live: Mapping[bytes, StoredPasstime],
        version: int,
        timetable: Timetable,
        since: float,
        until: float,
    ) -> Generator[None, None, None]:
        """Parse what has changed, in steps, and replace it at the end.

        live: the passtimes of KV8, with their version. since, until: between these moments (epoch seconds), planned
        passtimes are needed.
        """
        covers = self._planned_since <= since and until <= self._planned_until
        if covers and self._version == version:
            return
        changed: list[JoinedPasstime] = []
        items, find = list(live.items()), self._entries.get
        for start in range(0, len(items), STEP_PASSTIMES):
            if start:
                yield
            for key, stored in items[start : start + STEP_PASSTIMES]:
                entry = find(key)
                if (
                    entry is None
                    or entry.values is not stored.values
                    or entry.stored is not stored
                    or entry.stamp != stored.stamp
                ):
                    changed.append((yield from _live_passtime(key, stored, self.code, timetable)))
                    yield
        removed = [key for key in self._entries.keys() - live.keys() if self._entries[key].stored is not None]
        if covers and not removed and len(changed) <= MAX_INSERTED:
            self.passtimes = list(self.passtimes)  # the previous list may be in use, between two steps
            for entry in changed:
                self._replace(entry)
        else:  # a passtime that KV8 does not have any more may still be planned
            yield from self._replace_all(changed, removed, timetable, since, until + AHEAD_SECONDS)
        if not self.realtime_operators.issuperset([entry.operator for entry in changed]):
            self.realtime_operators = frozenset([e.operator for e in self.passtimes if e.stored is not None])
        self._version = version

    def _replace(self, entry: JoinedPasstime) -> None:
        for key in {entry.key, entry.planned_key}:
            previous = self._entries.get(key)
            if previous is not None and (key == entry.key or previous.stored is None):
                del self.passtimes[bisect_left(self.passtimes, previous.order, key=_order)]
                del self._entries[key]
        insort(self.passtimes, entry, key=_order)
        self._entries[entry.key] = entry

    def _replace_all(
        self,
        changed: list[JoinedPasstime],
        removed: list[bytes],
        timetable: Timetable,
        since: float,
        until: float,
    ) -> Generator[None, None, None]:
        entries = {key: entry for key, entry in self._entries.items() if entry.stored is not None}
        for key in removed:
            entries.pop(key, None)
        entries.update((entry.key, entry) for entry in changed)
        joined = entries.keys() | {entry.planned_key for entry in entries.values()}
        for call in timetable.passtimes(self.code, since, until):
            if call is None:
                yield
            elif call.key not in joined:
                entry = self._entries.get(call.key)
                if entry is None or entry.stored is not None:
                    entry = _planned_passtime(call)
                    yield
                entries[call.key] = entry
        passtimes = yield from sort_in_steps(list(entries.values()), _order)
        for key in self._entries.keys() - entries.keys():
            if self._planned_at.get(key) is self:
                del self._planned_at[key]
        self._entries, self.passtimes = entries, passtimes
        # All at once, so that of several updates of a stop at the same time the last one has all of them.
        self._planned_at.update(dict.fromkeys([e.key for e in passtimes if e.stored is None], self))
        self._planned_since, self._planned_until = since, until


def _live_passtime(
    key: bytes, stored: StoredPasstime, code: str, timetable: Timetable
) -> Generator[None, None, JoinedPasstime]:
    """Return a passtime of KV8, completed from its planned one (docs/protocols.md, section 5.7)."""
    values, stamp = stored.values, stored.stamp
    passtime = parse_passtime(key, values, code, stored.updated_by)
    planned = yield from timetable.find(key, passtime)
    if planned is None:
        return _joined(key, passtime, stored, values, stamp)
    return _joined(key, completed(passtime, planned.make()), stored, values, stamp, planned.key)


def _planned_passtime(call: PlannedCall) -> JoinedPasstime:
    """Return a passtime that is only planned, hidden once it is looked up no longer."""
    entry = _joined(call.key, call.make())
    entry.hidden_after = min(entry.hidden_after, call.time + PAST_SECONDS)
    return entry


def _joined(
    key: bytes,
    passtime: Passtime,
    stored: StoredPasstime | None = None,
    values: bytes = b"",
    stamp: Stamp | None = None,
    planned_key: bytes = b"",
) -> JoinedPasstime:
    expected = passtime.expected
    return JoinedPasstime(
        key,
        passtime,
        passtime.data_owner_code,
        passtime.is_departure,
        expected,
        (expected, intern(passtime.journey), key),
        passtime.hidden_after,
        Fragments({}),
        stored,
        values,
        stamp,
        planned_key or key,
    )


def completed(kv8: Passtime, planned: Passtime) -> Passtime:
    """Return KV8's passtime, completed from KV7 or GTFS (docs/protocols.md, section 5.7)."""
    return structs.replace(
        kv8,
        wheelchair=planned.wheelchair if kv8.wheelchair == "UNKNOWN" else kv8.wheelchair,
        product_formula_type=planned.product_formula_type,
        destination_code=kv8.destination_code or planned.destination_code,
        line_direction=kv8.line_direction or planned.line_direction,
        journey_pattern_code=kv8.journey_pattern_code or planned.journey_pattern_code,
        headsign=planned.headsign,
    )
