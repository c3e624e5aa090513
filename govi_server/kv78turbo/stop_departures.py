"""The departures of a stop, joined from KV7 and KV8, and their renderings, cached until they change."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sized
from dataclasses import dataclass, replace
from math import ceil
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from msgspec import structs

from govi_server.departures.times import HOUR, MINUTE
from govi_server.kv78turbo.general_message import GeneralMessage
from govi_server.kv78turbo.kv7_timetable import PlannedCall, Timetable
from govi_server.kv78turbo.kv8_columns import parse_passtime
from govi_server.kv78turbo.kv8_passtimes import Passtimes
from govi_server.kv78turbo.passtime import Passtime
from govi_server.kv78turbo.passtime_index import LiveStop, StoredPasstime
from govi_server.runtime.cooperative import run_now, sort_in_steps

PAST_SECONDS = HOUR / 2
"""How far back planned passtimes are looked up: KV8 may report them as late."""

MAX_VALID_SECONDS = 10 * MINUTE
"""The maximum validity of departures, and how far beyond the horizon planned passtimes are looked up."""

STALE_RETRY_SECONDS = 5.0
"""How long departures that omit a stale operator are valid: it may report again."""

COST_PASSTIMES = 20
"""Passtimes that cost a client as much as one request: half a millisecond of work, as for the board of a typical
stop."""

COST_SECONDS = 2 * HOUR
"""The horizon of a typical stop's board, for the same cost."""

ENTRY_BYTES = 2 << 10
"""Memory of a cached entry besides the rendered body, about: 1,730 bytes were measured."""

_Version = tuple[int, tuple[int, int], int]
Rendered = TypeVar("Rendered", bound=Sized)


@dataclass(frozen=True, slots=True)
class StopDepartures:
    """The passtimes of a stop within a horizon, in order of expected time, and its messages, at one moment."""

    code: str
    passtimes: tuple[Passtime, ...]
    messages: tuple[GeneralMessage, ...]
    has_passtimes: bool
    realtime_operators: frozenset[str]
    """The operators of passtimes that are in KV8."""
    operators: frozenset[str]
    """The operators of all passtimes, planned or not, and of omitted ones."""
    stale_operators: frozenset[str]
    """The operators of passtimes that are omitted because their latest data is too old."""
    has_planning: bool
    """Whether KV7 has passtimes of this stop."""
    valid_until: float
    """Epoch seconds until which they stay the same unless new data arrives."""


class _Candidate(NamedTuple):
    """A passtime that may be displayed."""

    passtime: Passtime
    is_realtime: bool
    reliable_until: float
    """When it is omitted because its operator's latest data is too old (epoch seconds)."""
    changes_at: float
    """When it becomes less reliable (epoch seconds)."""


class StopDeparturesCache:
    """Joins KV7 and KV8, and caches renderings of the departures.

    A cached rendering costs 1.1 us; joining a stop with 20 passtimes costs 430 us or more, and rendering is added to
    that. The size bounds the entries; the least recently used is evicted first (an OrderedDict, as in
    departures/cache). A rendering is invalidated by data about its stop, by new names of lines and destinations, and
    when the first of its departures is hidden, enters the horizon or becomes too old.

    now: returns the time in epoch seconds. size: maximum bytes of entries. stale: seconds after which an
    operator's data is too old.
    """

    def __init__(
        self, passtimes: Passtimes, timetable: Timetable, now: Callable[[], float], size: int, stale: float
    ) -> None:
        self.passtimes = passtimes
        self.timetable = timetable
        self._now = now
        self._size = size
        self._stale = stale
        self._entries: OrderedDict[tuple[str, object], tuple[_Version, StopDepartures, Sized]] = OrderedDict()
        self.bytes = 0
        """The size of all entries."""
        self.evicted = 0
        """Entries evicted to make room."""

    @property
    def entries(self) -> int:
        """The number of cached entries."""
        return len(self._entries)

    def is_known_stop(self, code: str) -> bool:
        """Return whether KV7 or KV8 has a TimingPointCode."""
        return code in self.passtimes.stops or self.timetable.is_known_stop(code)

    def version(self, code: str) -> _Version:
        """Return a token that changes whenever the data of a stop may have changed."""
        stop = self.passtimes.stops.get(code)
        stop_version = stop.version if stop is not None else 0
        return stop_version, self.timetable.version_of(code), self.passtimes.reliability_version

    def versions(self, codes: Collection[str]) -> tuple[int | None, ...]:
        """Return a token that changes whenever the data of some stops may have changed, without a call for each."""
        versions = [0 if stop is None else stop.version for stop in map(self.passtimes.stops.get, codes)]
        return self.passtimes.reliability_version, *self.timetable.versions_of(codes), *versions

    def board(self, code: str, horizon: float) -> StopDepartures:
        """Return a stop's departures without a pause; see board_steps()."""
        return run_now(self.board_steps(code, horizon))

    def board_steps(self, code: str, horizon: float) -> Generator[None, None, StopDepartures]:
        """Return a stop's departures that are expected within the horizon (seconds) and not hidden yet, in steps."""
        now = self._now()
        stop = self.passtimes.stops.get(code)
        self.passtimes.confirm_stop(code)
        self.timetable.confirm_stop(code)
        valid_until = now + MAX_VALID_SECONDS
        visible: list[tuple[float, str, _Candidate]] = []
        stale_operators: set[str] = set()
        for candidate in self._candidates(code, stop, now, horizon):
            yield
            if candidate is None:
                continue
            passtime = candidate.passtime
            hidden_after, expected = passtime.hidden_after, passtime.expected
            if hidden_after <= now:
                continue
            if candidate.reliable_until < now:
                stale_operators.add(passtime.data_owner_code)
                valid_until = min(valid_until, now + STALE_RETRY_SECONDS)
                continue
            valid_until = min(valid_until, candidate.reliable_until)
            if expected > now + horizon:
                valid_until = min(valid_until, expected - horizon)
                continue
            valid_until = min(valid_until, hidden_after, candidate.changes_at)
            visible.append((expected, passtime.journey, candidate))
        messages = tuple(stop.messages.values()) if stop is not None and stop.messages else ()
        changes = (time for message in messages for time in (message.starts, message.ends))
        valid_until = min([valid_until, *(time for time in changes if time is not None and time > now)])
        visible = yield from sort_in_steps(visible, itemgetter(0, 1))
        candidates = [candidate for _, _, candidate in visible]
        return StopDepartures(
            code,
            tuple(candidate.passtime for candidate in candidates),
            tuple(message for message in messages if message.is_current(now)),
            bool(candidates),
            frozenset(item.passtime.data_owner_code for item in candidates if item.is_realtime),
            frozenset(stale_operators.union(item.passtime.data_owner_code for item in candidates)),
            frozenset(stale_operators),
            self.timetable.has_planning(code),
            valid_until,
        )

    def _candidates(
        self, code: str, stop: LiveStop | None, now: float, horizon: float
    ) -> Iterator[_Candidate | None]:
        """Yield the passtimes of KV8, then those that only KV7 has; None for a step without one."""
        last_heard = self.passtimes.last_heard
        planned: dict[bytes, Passtime] = {}
        for match in self.timetable.passtimes(code, now - PAST_SECONDS, now + horizon + MAX_VALID_SECONDS):
            if match is not None:
                planned[match[0]] = match[1]
            yield None
        for key, stored in list(stop.passtimes.items()) if stop is not None else ():
            (kv8, seconds), kv7 = self._parse(key, stored, now), planned.pop(key, None)
            reliable_until = min(last_heard.get(kv8.data_owner_code, 0.0), now) + self._stale
            yield _Candidate(kv8 if kv7 is None else _joined(kv8, kv7), True, reliable_until, now + seconds)
        for key, kv7 in planned.items():
            if not self.passtimes.has_passtime(key):
                yield _Candidate(kv7, False, now + MAX_VALID_SECONDS, now + MAX_VALID_SECONDS)

    def _parse(self, key: bytes, stored: StoredPasstime, now: float) -> tuple[Passtime, float]:
        """Return a passtime of KV8, and for how many seconds its reliability lasts."""
        passtime = parse_passtime(key, stored.values, stored.code, stored.updated_by)
        repetition = self.passtimes.repetitions.get(passtime.data_owner_code)
        if repetition is None:
            return passtime, MAX_VALID_SECONDS
        reliability, seconds = repetition.reliability(stored.last_heard, now, self._stale)
        if reliability != "current":
            passtime = structs.replace(passtime, reliability=reliability, last_heard=stored.last_heard)
        return passtime, seconds

    def cost(self, codes: Iterable[str], horizon: float) -> int:
        """Return the cost of boards for their client: one for every two hours, and for every 20 live passtimes."""
        least = max(ceil(horizon / COST_SECONDS), 1)
        live = (0 if stop is None else len(stop.passtimes) for stop in map(self.passtimes.stops.get, codes))
        return sum([least if n <= least * COST_PASSTIMES else ceil(n / COST_PASSTIMES) for n in live])

    def lookup(self, code: str, form: object) -> tuple[StopDepartures, Any] | None:
        """Return a stop's departures and their cached rendering; None if they may have changed since.

        The departures lack passtimes and messages. form: see render().
        """
        key = (code, form)
        entry = self._entries.get(key)
        # A longer validity dates from before the clock was set back.
        if (
            entry is None
            or entry[0] != self.version(code)
            or not 0 < entry[1].valid_until - self._now() <= MAX_VALID_SECONDS
        ):
            return None
        self._entries.move_to_end(key)
        return entry[1], entry[2]

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
        key = (code, form)
        version = self.version(code)
        departures = yield from self.board_steps(code, horizon)
        rendered = yield from render(departures)
        self._remove(key)
        # Otherwise, requests for unknown codes would evict known stops.
        if not self.is_known_stop(code) or _size_of(rendered) > self._size:
            return departures, rendered
        while self.bytes + _size_of(rendered) > self._size:
            self.evicted += 1
            self._remove(next(iter(self._entries)))
        # Its passtimes are several times as large, and not needed any more.
        self._entries[key] = (version, replace(departures, passtimes=(), messages=()), rendered)
        self.bytes += _size_of(rendered)
        return departures, rendered

    def _remove(self, key: tuple[str, object]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= _size_of(entry[2])

    def journey(self, key: str) -> Generator[None, None, list[Passtime]]:
        """Return the passtimes of a journey, GVB_20260421_7_7189_0, on the date nearest to now, in steps."""
        prefix = _journey_prefix(key)
        now = self._now()
        live: dict[bytes, Passtime] = {}
        for passtime_key, stored in list(self.passtimes.journeys.get(prefix[:-1], {}).items()):
            live[passtime_key], _ = self._parse(passtime_key, stored, now)
            yield
        planned: dict[bytes, PlannedCall] = {}
        for call in self.timetable.journey(prefix, now) if prefix else ():
            planned[call.key] = call
            yield
        moments = [(abs(passtime.expected - now), passtime.operation_date) for passtime in live.values()]
        moments.extend((abs(call.time - now), call.day) for call in planned.values() if call.key not in live)
        nearest = min(moments, default=(0.0, None))[1]
        passtimes = []
        for passtime_key, call in planned.items():
            if call.day == nearest:
                kv8, kv7 = live.get(passtime_key), call.make()
                passtimes.append(kv7 if kv8 is None else _joined(kv8, kv7))
                yield
        passtimes.extend(
            passtime for key, passtime in live.items() if passtime.operation_date == nearest and key not in planned
        )
        return passtimes

    def journey_cost(self, key: str) -> int:
        """Return the cost of a journey for its client: one for every 20 passtimes."""
        prefix = _journey_prefix(key)
        live = len(self.passtimes.journeys.get(prefix[:-1], ()))
        return max(ceil((live + self.timetable.journey_size(prefix)) / COST_PASSTIMES), 1)


def _size_of(rendered: Sized) -> int:
    return len(rendered) + ENTRY_BYTES


def _journey_prefix(key: str) -> bytes:
    """Return what the keys of a journey's passtimes begin with; empty if its key is invalid."""
    parts = key.split("_")
    # Only the number of a line may contain the separator.
    return "|".join((*parts[:2], "_".join(parts[2:-2]), *parts[-2:], "")).encode() if len(parts) >= 5 else b""


def _joined(kv8: Passtime, kv7: Passtime) -> Passtime:
    """Return KV8's passtime, completed from KV7 (docs/protocols.md, section 5.7)."""
    return structs.replace(
        kv8,
        wheelchair=kv7.wheelchair if kv8.wheelchair == "UNKNOWN" else kv8.wheelchair,
        product_formula_type=kv7.product_formula_type,
        destination_code=kv8.destination_code or kv7.destination_code,
        line_direction=kv8.line_direction or kv7.line_direction,
        journey_pattern_code=kv8.journey_pattern_code or kv7.journey_pattern_code,
    )
