"""A version of what all stops share, of which a change reaches the stops one after another."""

from collections.abc import Callable, Collection
from zlib import crc32

MAX_STOPS_AT_ONCE = 50
"""Stops that a change reaches at once if no more are stored: 0.2 s of work."""

STOPS_PER_SECOND = 30
"""Stops that a change reaches in a second otherwise, within the next two bounds: making them anew takes less than a
tenth of the time. A night's planning comes as hundreds of changes in a row."""

MIN_SPREAD_SECONDS = 10.0
"""The least time in which a change reaches all stops."""

MAX_SPREAD_SECONDS = 60.0
"""The longest time in which a change reaches all stops."""

GROUPS = 128
"""Groups of stops that a change reaches together."""


def _group(code: str) -> int:
    """Return the group of a stop, the same in every process."""
    return crc32(code.encode()) % GROUPS


class SpreadVersion:
    """The version of each stop.

    When a GTFS file takes effect, or lines get names, everything that is remembered of any stop is to be made anew:
    two seconds of work for 500 event streams, in which requests would wait if it were due at once. After several
    changes within the time of one, a stop is made anew twice at most.

    now: returns the time in epoch seconds. n_stops: returns the number of stops that are stored.
    """

    def __init__(self, now: Callable[[], float], n_stops: Callable[[], int]) -> None:
        self._now = now
        self._n_stops = n_stops
        self._latest = 0
        self._versions = [0] * GROUPS
        self._behind = 0
        """Groups that the latest change has not reached."""
        self._next = 0
        self._advanced_at = 0.0

    def of(self, code: str, latest: int) -> int:
        """Return the version of a stop. latest: the version of what is shared."""
        if self._behind or latest != self._latest:
            self._advance(latest)
        return self._versions[_group(code)] if self._behind else latest

    def of_all(self, codes: Collection[str], latest: int) -> int:
        """Return a version that changes whenever that of one of these stops does."""
        if self._behind or latest != self._latest:
            self._advance(latest)
        if not self._behind:
            return len(codes) * latest
        return sum([self._versions[_group(code)] for code in codes])

    def _advance(self, latest: int) -> None:
        """Let the latest change reach as many groups as is due."""
        now, n_stops = self._now(), self._n_stops()
        seconds = min(max(n_stops / STOPS_PER_SECOND, MIN_SPREAD_SECONDS), MAX_SPREAD_SECONDS)
        if latest != self._latest:
            if not self._behind:
                self._advanced_at = now
            self._latest, self._behind = latest, GROUPS
        due = int((now - self._advanced_at) * GROUPS / seconds)
        if n_stops <= MAX_STOPS_AT_ONCE or now < self._advanced_at:  # or the clock was set back
            due = GROUPS
        self._advanced_at += due * seconds / GROUPS
        for _ in range(min(due, self._behind)):
            self._versions[self._next] = latest
            self._next = (self._next + 1) % GROUPS
            self._behind -= 1
