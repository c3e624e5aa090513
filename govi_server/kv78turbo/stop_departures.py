"""The departures of a stop, joined from KV7 and KV8, and their renderings, cached until they change.

Longer than other modules: what is visible, reliable and for how long is decided together, since each pass over the
passtimes costs time.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Generator, Iterable, Sequence, Sized
from math import ceil, inf
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar
from weakref import ReferenceType, WeakValueDictionary, ref

from msgspec import Struct, structs

from govi_server.departures.times import HOUR, MINUTE
from govi_server.kv78turbo.general_message import GeneralMessage
from govi_server.kv78turbo.joined_stop import PAST_SECONDS, JoinedPasstime, JoinedStop
from govi_server.kv78turbo.kv7_timetable import Timetable
from govi_server.kv78turbo.kv8_passtimes import Passtimes
from govi_server.kv78turbo.passtime import Passtime
from govi_server.kv78turbo.passtime_index import StoredPasstime
from govi_server.kv78turbo.repetition import Repetition
from govi_server.kv78turbo.spread_version import SpreadVersion
from govi_server.runtime.bounded_memory import BoundedMemory
from govi_server.runtime.cooperative import run_now

MAX_VALID_SECONDS = 10 * MINUTE
"""The maximum validity of departures, and how far beyond the horizon planned passtimes are looked up."""

COST_PASSTIMES = 20
"""Passtimes that cost a client as much as one request: half a millisecond of work, as for the board of a typical
stop."""

MAX_CHEAP_PASSTIMES = 2 * COST_PASSTIMES
"""Joined passtimes of a stop whose board costs no more than one request, even if some have changed."""

COST_SECONDS = 2 * HOUR
"""The horizon of a typical stop's board, for the same cost."""

DOCUMENTS_SHARE = 0.5
"""The maximum memory of documents, in relation to that of joined passtimes and fragments."""

RENDERING_BYTES = 2 << 10
"""Memory of a cached rendering besides its body, about: 1,730 bytes were measured."""

SHORT_SHARE = 0.9
"""The share of the memory of joined passtimes that is in use before unused parts of documents are dropped."""

MEASURE_SECONDS = 1.0
"""How often the fragments of the stops that were used since are counted."""

MAX_UNMEASURED = 2_000
"""Passtimes of these stops after which they are counted earlier: two megabytes. Counting 10,000 took up to 10 ms:
most of them are not in the processor's cache."""

STEP_PASSTIMES = 32
"""Passtimes that are examined in one step."""

_Version = tuple[int, tuple[int, int], int]
_expected = attrgetter("expected")
_operator = attrgetter("operator")
_hidden_after = attrgetter("hidden_after")
_last_update = attrgetter("passtime.last_update")
Rendered = TypeVar("Rendered", bound=Sized)


class StopDepartures(Struct, frozen=True):
    """The passtimes of a stop within a horizon, in order of expected time, and its messages, at one moment."""

    code: str
    entries: tuple[JoinedPasstime, ...]
    """The passtimes, with the parts of documents that were made of them."""
    messages: tuple[GeneralMessage, ...]
    has_passtimes: bool
    realtime_operators: frozenset[str]
    """The operators of passtimes that are in KV8."""
    operators: frozenset[str]
    """The operators of all passtimes, planned or not, and of omitted ones."""
    stale_operators: frozenset[str]
    """The operators of passtimes that are omitted because their latest data is too old."""
    has_planning: bool
    """Whether passtimes of this stop are planned."""
    valid_until: float
    """Epoch seconds until which they stay the same unless new data arrives."""

    @property
    def passtimes(self) -> tuple[Passtime, ...]:
        """The passtimes."""
        return tuple([entry.passtime for entry in self.entries])


class _Operator(NamedTuple):
    """The state of an operator at one moment. Times are epoch seconds."""

    reliable_until: float
    """When its passtimes are omitted, because its latest data is too old."""
    repetition: Repetition | None
    limit: float
    """Seconds for which a passtime is reliable at least after it was heard."""


class _Rendering(NamedTuple):
    """A cached rendering."""

    version: _Version
    joined: "ReferenceType[JoinedStop]"
    """The joined passtimes, without which passtimes that move to other stops do not invalidate it."""
    made_at: float
    """Epoch seconds; an earlier time is of a clock that was set back."""
    departures: StopDepartures
    body: Any


class StopDeparturesCache:
    """Joins KV7 and KV8, and caches the joined passtimes of stops and renderings of their departures.

    Looking up a cached rendering takes 1.1 us; a request for a stop of which one of 20 passtimes has changed takes
    about a fifth of the time without joined passtimes and fragments (docs/performance.md). Both are bounded in bytes,
    and the least recently used is evicted first. Joined passtimes are updated when the
    version of their stop changes, and made anew when its planning or names have changed; what concerns all stops
    reaches many of them one after another. A rendering is invalidated
    by data about its stop, by new planning or names, and when the first of its departures is hidden, enters the
    horizon or becomes too old.

    now: returns the time in epoch seconds. size: maximum bytes of joined passtimes with their fragments. stale:
    seconds after which an operator's data is too old.
    """

    def __init__(
        self, passtimes: Passtimes, timetable: Timetable, now: Callable[[], float], size: int, stale: float
    ) -> None:
        self.passtimes = passtimes
        self.timetable = timetable
        self._now = now
        self._stale = stale
        self.joined: BoundedMemory[JoinedStop] = BoundedMemory(size)
        """By TimingPointCode."""
        self._shared_version = SpreadVersion(now, lambda: len(self.joined))
        self.documents: BoundedMemory[Any] = BoundedMemory(round(size * DOCUMENTS_SHARE), admits_repeated=True)
        """Renderings by TimingPointCode and form, and the responses of modules."""
        self._used: dict[str, JoinedStop] = {}
        self._n_unmeasured = 0
        """The passtimes of these."""
        self._measured_at = now()
        self._planned_at: WeakValueDictionary[bytes, JoinedStop] = WeakValueDictionary()
        """The stops that have a passtime that is only planned, by its key."""
        passtimes.watch_keys(self._key_changed)

    def is_known_stop(self, code: str) -> bool:
        """Return whether KV7 or KV8 has a TimingPointCode."""
        return code in self.passtimes.stops or self.timetable.is_known_stop(code)

    def version(self, code: str) -> _Version:
        """Return a token that changes whenever the data of a stop may have changed."""
        stop = self.passtimes.stops.get(code)
        stop_version = stop.version if stop is not None else 0
        return stop_version, self._planning_version(code), self.passtimes.reliability_version

    def _planning_version(self, code: str) -> tuple[int, int]:
        """Return a token that changes when a stop's planned passtimes and names are to be joined anew."""
        shared, own = self.timetable.version_of(code)
        return self._shared_version.of(code, shared), own

    def versions(self, codes: Collection[str]) -> tuple[int | None, ...]:
        """Return a token that changes whenever the data of some stops may have changed, without a call for each."""
        versions = [0 if stop is None else stop.version for stop in map(self.passtimes.stops.get, codes)]
        shared, *own = self.timetable.versions_of(codes)
        return self.passtimes.reliability_version, self._shared_version.of_all(codes, shared), *own, *versions

    def _key_changed(self, key: bytes, code: str) -> None:
        """Invalidate the stop that has a passtime from KV7, if KV8 has it now, or had it, at another stop."""
        joined = self._planned_at.get(key)
        if joined is not None and joined.code != code:
            self.timetable.invalidate_stop(joined.code)
        elif joined is None and self.timetable.gtfs is not None:
            codes = self.timetable.gtfs.codes_of(key)
            for other in codes if code not in codes else ():
                if self.joined.get(other) is not None:
                    self.timetable.invalidate_stop(other)

    def board(self, code: str, horizon: float) -> StopDepartures:
        """Return a stop's departures without a pause; see board_steps()."""
        return run_now(self.board_steps(code, horizon))

    def board_steps(self, code: str, horizon: float) -> Generator[None, None, StopDepartures]:
        """Return a stop's departures that are expected within the horizon (seconds) and not hidden yet, in steps."""
        self.passtimes.confirm_stop(code)
        self.timetable.confirm_stop(code)
        joined = yield from self._joined_stop(code, horizon)
        return (yield from self._select(joined, horizon))

    def _joined_stop(self, code: str, horizon: float) -> Generator[None, None, JoinedStop]:
        """Return the joined passtimes of a stop, up to date, in steps."""
        now = self._now()
        if not 0 <= now - self._measured_at < MEASURE_SECONDS or self._n_unmeasured >= MAX_UNMEASURED:
            self._measure(now)
        planning = self._planning_version(code)
        joined = self.joined.get(code)
        is_new = joined is None or joined.planning != planning
        if joined is None or is_new:
            joined = JoinedStop(code, planning, self._planned_at)
        stop = self.passtimes.stops.get(code)
        live, version = ({}, 0) if stop is None else (stop.passtimes, stop.version)
        until = now + horizon + MAX_VALID_SECONDS
        yield from joined.update(live, version, self.timetable, now - PAST_SECONDS, until)
        # Otherwise, requests for unknown codes would evict known stops.
        if is_new and self.is_known_stop(code):
            self.joined.put(code, joined, joined.size)
        if self._used.get(code) is not joined:
            self._used[code] = joined
            self._n_unmeasured += len(joined.passtimes)
        return joined

    def _measure(self, now: float) -> None:
        """Account for the fragments that were made of stops since they were used."""
        for code, joined in self._used.items():
            if self.joined.get(code) is joined:
                if self.joined.bytes > self.joined.max_bytes * SHORT_SHARE:  # rather than evict other stops
                    joined.drop_unused(now)
                self.joined.put(code, joined, joined.size)
        self._used.clear()
        self._n_unmeasured = 0
        self._measured_at = now

    def _select(self, joined: JoinedStop, horizon: float) -> Generator[None, None, StopDepartures]:
        """Return those of a stop's passtimes that are displayed now, in steps."""
        now = self._now()
        end, valid_until = now + horizon, now + MAX_VALID_SECONDS
        passtimes = joined.passtimes
        within = passtimes[: bisect_right(passtimes, end, key=_expected)]
        if len(within) < len(passtimes):
            valid_until = min(valid_until, passtimes[len(within)].expected - horizon)
        operators = {name: self._operator(name, now) for name in joined.realtime_operators}
        limits = {name: operator.limit for name, operator in operators.items()}
        stale = {name for name, operator in operators.items() if operator.reliable_until < now}
        entries: list[JoinedPasstime] = []
        has_planned = False
        for start in range(0, len(within), STEP_PASSTIMES):
            if start:
                yield
            for entry in within[start : start + STEP_PASSTIMES]:
                stored = entry.stored
                if entry.hidden_after <= now:
                    continue
                if stored is None:
                    if self._is_elsewhere(entry):
                        continue
                    has_planned = True
                elif stale and entry.operator in stale:
                    continue
                else:
                    changes_at = stored.last_heard + limits[entry.operator]
                    if changes_at < valid_until:
                        if changes_at < now:
                            entry, changes_at = self._with_reliability(entry, stored, operators[entry.operator], now)
                        valid_until = min(valid_until, changes_at)
                entries.append(entry)
        stale_operators = (yield from _operators_of(passtimes, stale, now)) if stale else frozenset()
        visible_operators = frozenset(map(_operator, entries))
        realtime_operators = visible_operators
        if has_planned:
            realtime_operators = frozenset([entry.operator for entry in entries if entry.stored is not None])
        valid_until = min([valid_until, *map(_hidden_after, entries)])
        if None in map(_last_update, entries):
            valid_until = now  # documents contain the time of its operator's latest data instead
        for operator in operators.values():
            if operator.reliable_until >= now:
                valid_until = min(valid_until, operator.reliable_until)
        code = joined.code
        stop = self.passtimes.stops.get(code)
        messages = tuple(stop.messages.values()) if stop is not None and stop.messages else ()
        if messages:
            changes = (time for message in messages for time in (message.starts, message.ends))
            valid_until = min([valid_until, *(time for time in changes if time is not None and time > now)])
            messages = tuple(message for message in messages if message.is_current(now))
        return StopDepartures(
            code,
            tuple(entries),
            messages,
            bool(entries),
            realtime_operators,
            visible_operators | stale_operators,
            stale_operators,
            self.timetable.has_planning(code),
            valid_until,
        )

    def _is_elsewhere(self, entry: JoinedPasstime) -> bool:
        """Return whether KV8 has a planned passtime at another stop."""
        if entry.passtime.provenance == "kv7" or self.timetable.gtfs is None:
            return self.passtimes.has_passtime(entry.key)
        return self.timetable.gtfs.is_elsewhere(entry.key, entry.passtime, self.passtimes.journeys)

    def _is_reliable(self, name: str) -> bool:
        """Return whether the latest data of an operator is not too old."""
        return self._operator(name, now := self._now()).reliable_until >= now

    def _operator(self, name: str, now: float) -> _Operator:
        repetition = self.passtimes.repetitions.get(name)
        reliable_until = min(self.passtimes.last_heard.get(name, 0.0), now) + self._stale
        return _Operator(reliable_until, repetition, inf if repetition is None else repetition.limit)

    def _with_reliability(
        self, entry: JoinedPasstime, stored: StoredPasstime, operator: _Operator, now: float
    ) -> tuple[JoinedPasstime, float]:
        """Return a passtime with its reliability, and when that changes (epoch seconds)."""
        if operator.repetition is None:
            return entry, inf
        reliability, seconds = operator.repetition.reliability(stored.last_heard, now, self._stale)
        if reliability != "current":
            entry = entry.with_reliability(reliability, stored.last_heard)
        return entry, now + seconds

    def cost(self, codes: Iterable[str], horizon: float) -> int:
        """Return the cost of boards for their client: one for every two hours, and for every 20 live passtimes."""
        least = max(ceil(horizon / COST_SECONDS), 1)
        live = (0 if stop is None else len(stop.passtimes) for stop in map(self.passtimes.stops.get, codes))
        return sum([least if n <= least * COST_PASSTIMES else ceil(n / COST_PASSTIMES) for n in live])

    def is_cheap(self, code: str, horizon: float) -> bool:
        """Return whether a board costs a few hundred microseconds at most: few passtimes, most of them joined."""
        joined, stop = self.joined.get(code), self.passtimes.stops.get(code)
        return (
            joined is not None
            and len(joined.passtimes) <= MAX_CHEAP_PASSTIMES
            and (stop is None or len(stop.passtimes) <= MAX_CHEAP_PASSTIMES)
            and horizon <= COST_SECONDS
            and joined.planning == self._planning_version(code)
        )

    def lookup(self, code: str, form: object) -> tuple[StopDepartures, Any] | None:
        """Return a stop's departures and their cached rendering; None if they may have changed since.

        The departures lack passtimes and messages. form: see render().
        """
        rendering: _Rendering | None = self.documents.get((code, form))
        if (
            rendering is None
            or rendering.version != self.version(code)
            or not rendering.made_at <= self._now() < rendering.departures.valid_until
            or (joined := self.joined.get(code)) is None
            or rendering.joined() is not joined
            or any(map(self._is_reliable, rendering.departures.stale_operators))
        ):
            return None
        return rendering.departures, rendering.body

    def render(
        self,
        code: str,
        horizon: float,
        form: object,
        render: Callable[[StopDepartures], Generator[None, None, Rendered]],
    ) -> Generator[None, None, tuple[StopDepartures, Rendered]]:
        """Return a stop's departures and a rendering of them, in steps; store them for lookup().

        form: the cache key, always rendered by the same function.
        """
        version, now = self.version(code), self._now()
        departures = yield from self.board_steps(code, horizon)
        joined = self.joined.get(code)
        rendered = yield from render(departures)
        if joined is not None:
            # Its passtimes are several times as large, and not needed any more.
            without_passtimes = structs.replace(departures, entries=(), messages=())
            rendering = _Rendering(version, ref(joined), now, without_passtimes, rendered)
            self.documents.put((code, form), rendering, len(rendered) + RENDERING_BYTES)
        return departures, rendered


def _operators_of(
    passtimes: Sequence[JoinedPasstime], names: Collection[str], now: float
) -> Generator[None, None, frozenset[str]]:
    """Return those of some operators that have live passtimes which are not hidden, in steps."""
    operators: set[str] = set()
    for start in range(0, len(passtimes), STEP_PASSTIMES):
        operators.update(
            [
                entry.operator
                for entry in passtimes[start : start + STEP_PASSTIMES]
                if entry.stored is not None and entry.operator in names and entry.hidden_after > now
            ]
        )
        yield
    return frozenset(operators)
