"""Tables of what senders name, which make room for new entries without losing those in use.

A sender may name any number of stops, operators or lines that do not exist. So each new entry is on probation until
it is confirmed: it is received again later, as the feed repeats all that is real, or requested by a client. Only
entries on probation are evicted. They are grouped into cohorts by the second of their arrival; the oldest of the
largest cohort is evicted first, since invented entries arrive many at once.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from operator import attrgetter
from typing import Generic, TypeVar

CONFIRM_SECONDS = 10.0
"""Time after which a repetition confirms an entry; the feed repeats all data every 25 to 30 s."""

COHORT_SECONDS = 1.0
"""The period of arrival of a cohort."""

MAX_COHORTS = 128
"""More cohorts are merged, the oldest first; the number bounds the search for the largest."""

MAX_VICTIMS = 64
"""Entries of a cohort that are evicted in a row."""

STEP_KEYS = 4
"""Keys of a cohort that are examined when one of its entries leaves."""

MAX_EVICTIONS = 300
"""Entries evicted for a new one, which must be brief; if that is not enough, the next new entry evicts others."""

STEP_ENTRIES = 250
"""Entries per step of a sweep."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def largest_cohort(numbers: Iterable[tuple[K, int]]) -> list[K]:
    """Return the keys of the largest cohort among some entries, the oldest first; none if all are confirmed.

    numbers: each entry's key with the number of its cohort.
    """
    cohorts: dict[int, list[K]] = {}
    for key, number in numbers:
        if number:
            cohorts.setdefault(number, []).append(key)
    return max(cohorts.values(), key=len, default=[])


class _Cohort(Generic[K]):
    """The unconfirmed entries that arrived in the same second."""

    __slots__ = ("began", "keys", "n", "size")

    def __init__(self, began: float) -> None:
        self.began = began
        self.keys: deque[K] = deque()
        """Nearly in order of arrival, with some of entries that left: a dict would need 50 bytes for each."""
        self.n = 0
        """The number of entries."""
        self.size = 0
        """The sum of their sizes."""


class Probation(Generic[K]):
    """The unconfirmed entries of a table, in cohorts by time of arrival.

    The table stores the number of each entry's cohort, 0 if it is confirmed. Sizes have the unit of the limit: bytes,
    or 1 for each entry. limit: the table's maximum size, of which at most three quarters are confirmed, so that
    there is always room for new entries. number_of: returns the number that is stored for a key; 0 without an entry.
    """

    def __init__(self, limit: int, number_of: Callable[[K], int]) -> None:
        self._max_confirmed = limit * 3 // 4
        self._number_of = number_of
        self._cohorts: dict[int, _Cohort[K]] = {}
        self._latest = 0
        self._size = 0
        self._evicting: _Cohort[K] = _Cohort(0.0)
        self._n_spared = 0

    def add(self, key: K, size: int, now: float) -> int:
        """Add an entry; return the number of its cohort."""
        cohort = self._cohorts.get(self._latest)
        if cohort is None or not 0 <= now - cohort.began < COHORT_SECONDS:
            self._latest += 1
            cohort = self._cohorts[self._latest] = _Cohort(now)
            if len(self._cohorts) > MAX_COHORTS:
                self._merge_oldest()
        cohort.keys.append(key)
        cohort.n += 1
        cohort.size += size
        self._size += size
        return self._latest

    def resize(self, number: int, growth: int) -> None:
        """Change the size of an entry."""
        if number:
            self._cohort(number).size += growth
            self._size += growth

    def repeat(self, key: K, number: int, size: int, now: float, total: int) -> int:
        """Confirm an entry that is received again; return its number from now on. total: the table's size."""
        if number and not 0 <= now - self._cohort(number).began < CONFIRM_SECONDS:
            return self.confirm(number, size, total)
        return number

    def confirm(self, number: int, size: int, total: int) -> int:
        """Confirm an entry, unless too many are confirmed already; return its number from now on."""
        if not number or total - self._size + size > self._max_confirmed:
            return number
        self.discard(number, size)
        return 0

    def discard(self, number: int, size: int) -> None:
        """Remove an entry."""
        if number:
            cohort = self._cohort(number)
            cohort.n -= 1
            cohort.size -= size
            self._size -= size
            if not cohort.n:
                del self._cohorts[max(number, next(iter(self._cohorts)))]
            else:
                self._drop_keys(cohort)

    def victim(self) -> K | None:
        """Return the entry to evict next; None if all are confirmed."""
        if self._evicting.n <= self._n_spared:
            if not self._cohorts:
                return None
            # Several at once, because the search for the largest cohort takes longer than an eviction.
            self._evicting = max(self._cohorts.values(), key=attrgetter("size"))
            self._n_spared = self._evicting.n - min(MAX_VICTIMS, (self._evicting.n + 1) // 2)
        keys = self._evicting.keys
        while not self._contains(self._evicting, keys[0]):
            keys.popleft()
        return keys[0]

    def _contains(self, cohort: _Cohort[K], key: K) -> bool:
        number = self._number_of(key)
        return number != 0 and self._cohort(number) is cohort

    def _drop_keys(self, cohort: _Cohort[K]) -> None:
        """Drop keys of entries that left: the first ones, and all if they are most, in brief steps."""
        keys = cohort.keys
        for _ in range(STEP_KEYS):
            if not self._contains(cohort, keys[0]):
                keys.popleft()
            elif len(keys) > 2 * cohort.n:
                keys.rotate(-1)
            else:
                return

    def _cohort(self, number: int) -> _Cohort[K]:
        """Return the cohort with a number, or the oldest one, with which it was merged."""
        cohort = self._cohorts.get(number)
        return self._cohorts[next(iter(self._cohorts))] if cohort is None else cohort

    def _merge_oldest(self) -> None:
        """Merge the two oldest cohorts, under the number of the later one."""
        numbers = iter(self._cohorts)
        oldest, later = next(numbers), next(numbers)
        merged, other = self._cohorts.pop(oldest), self._cohorts[later]
        merged.keys += other.keys
        merged.n += other.n
        merged.size += other.size
        self._cohorts[later] = merged
        other.n = 0  # no longer evicted from


def _one(_: object) -> int:
    return 1


class BoundedTable(dict[K, V]):
    """A dict of limited size, changed with put() and discard().

    retention: seconds that unused entries are retained after they were last received. size_of: returns a value's
    size in the unit of the limit; by default each entry counts as 1. remove: called to remove an entry with all that
    belongs to it; by default discard().
    """

    def __init__(
        self,
        limit: int,
        retention: float,
        *,
        size_of: Callable[[V], int] = _one,
        remove: Callable[[K], object] | None = None,
    ) -> None:
        super().__init__()
        self._limit = limit
        self._retention = retention
        self._size_of = size_of
        self._remove = remove or self.discard
        self.unconfirmed: dict[K, int] = {}
        """The number of the cohort of each unconfirmed entry."""
        self._probation: Probation[K] = Probation(limit, self.cohort)
        self._last_heard: dict[K, float] = {}
        self.size = 0
        """The sum of the sizes."""
        self.generation = 0
        """Changes when a key is added or removed."""
        self.n_evicted = 0
        """The number of entries evicted to make room."""

    def last_heard(self, key: K) -> float:
        """Return when an entry was last received or used (epoch seconds)."""
        return self._last_heard[key]

    def restore_last_heard(self, key: K, time: float) -> None:
        """Set when a restored entry was last received (epoch seconds)."""
        self._last_heard[key] = time

    def is_idle(self, key: K, now: float) -> bool:
        """Return whether an entry was not received within the retention."""
        return now - self._last_heard[key] > self._retention

    def cohort(self, key: K) -> int:
        """Return the number of an entry's cohort, 0 if it is confirmed."""
        return self.unconfirmed.get(key, 0)

    def is_confirmed(self, key: K) -> bool:
        """Return whether an entry is confirmed."""
        return key not in self.unconfirmed

    def put(self, key: K, value: V, now: float) -> bool:
        """Store an entry that is received now; evict others if there is no room. Return whether it was stored."""
        size = self._size_of(value)
        for _ in range(MAX_EVICTIONS):
            growth = size - self._size_of(self[key]) if key in self else size
            if growth <= self._limit - self.size:
                break
            if not self._evict():
                return False
        else:
            return False
        self.size += growth
        if key in self:
            self._probation.resize(self.unconfirmed.get(key, 0), growth)
            self[key] = value
            self.repeat(key, now)
        else:
            self[key] = value
            self._last_heard[key] = now
            self.unconfirmed[key] = self._probation.add(key, size, now)
            self.generation += 1
        return True

    def repeat(self, key: K, now: float) -> None:
        """Record that an entry is received again."""
        self._last_heard[key] = now
        number = self.unconfirmed.get(key)
        if number is not None and not self._probation.repeat(key, number, self._size_of(self[key]), now, self.size):
            del self.unconfirmed[key]

    def confirm(self, key: K) -> None:
        """Record that an entry is in use, so that it is not evicted."""
        number = self.unconfirmed.get(key)
        if number is not None and not self._probation.confirm(number, self._size_of(self[key]), self.size):
            del self.unconfirmed[key]

    def discard(self, key: K) -> None:
        """Remove an entry if it exists."""
        if key in self:
            size = self._size_of(self.pop(key))
            del self._last_heard[key]
            self._probation.discard(self.unconfirmed.pop(key, 0), size)
            self.size -= size
            self.generation += 1

    def sweep(self, now: float, is_used: Callable[[K], object]) -> Iterator[None]:
        """Remove the entries that were neither received nor used within the retention; yields after each step."""
        for number, key in enumerate(list(self), 1):
            if number % STEP_ENTRIES == 0:
                yield
            if key not in self:
                continue
            # After the clock was set back, the time is in the future.
            if is_used(key) or self._last_heard[key] > now:
                self._last_heard[key] = now
            elif self.is_idle(key, now):
                self._remove(key)

    def _evict(self) -> bool:
        """Evict an unconfirmed entry; return whether there was one."""
        victim = self._probation.victim()
        if victim is not None:
            self._remove(victim)
            self.n_evicted += 1
        return victim is not None
