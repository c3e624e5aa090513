"""Responses of one module, so that a board is rendered once for all clients that request it.

The remaining minutes on a board allow for MAX_AGE seconds in caches on the way. Whether a response ages there or here
makes no difference, so it is stored until its validator is no longer current, for nearly MAX_AGE seconds at most.
"""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime

from govi_server.http.caching.cached_response import CachedResponse, Validator, Validity
from govi_server.runtime.bounded_memory import BoundedMemory
from govi_server.statistics.records import CacheResult

MAX_AGE = 10
"""Seconds that a board may age, here and in caches on the way: the feed changes it by the second, and displays
request it twice a minute."""

AGE_STEP = 3
"""Seconds in which a stored board is sent with the same max-age, in the same bytes: the first ones of its MAX_AGE."""

MIN_ENTRY_BYTES = 6 << 10
"""Smaller bodies count as this size: a response needs some memory besides its body."""

STALE_SECONDS = 1
"""Seconds for which a stale response is sent again: it states its age, and a fresh board is expected."""

# Seconds for which a response is stored. One that had to wait is not stored, because the next one is a hit.
_LIFETIMES: dict[CacheResult, float] = {"hit": MAX_AGE // AGE_STEP * AGE_STEP, "stale": STALE_SECONDS}


MakeResponse = Callable[[int, Validity | None], CachedResponse]
"""Renders a response with a max-age (seconds) and a validity."""


class _Entry(NamedTuple):
    stored_at: float
    validator: Validator
    make: MakeResponse
    lifetime: float


class ResponseCache:
    """Responses by request.

    Saves rendering: 75 us instead of 9,126 for a page of 86 departures (docs/performance.md). Its memory bounds it;
    the least recently used is evicted. An entry is invalid when its validator is no longer current, or when its
    max-age would be 0.

    memory: may be shared with other values.
    """

    def __init__(self, clock: IReactorTime, memory: BoundedMemory[Any]) -> None:
        self._clock = clock
        self._memory = memory

    def lookup(self, request: Hashable) -> CachedResponse | None:
        """Return the response to a request, with the remaining max-age; None if no valid response is stored."""
        entry: _Entry | None = self._memory.get((self, request))
        if entry is None or not entry.validator.is_current:
            return None
        age = self._clock.seconds() - entry.stored_at
        if not 0 <= age < entry.lifetime:
            return None
        step_ends = (age // AGE_STEP + 1) * AGE_STEP
        until = entry.stored_at + min(step_ends, entry.lifetime)
        return entry.make(MAX_AGE - int(step_ends), Validity(entry.stored_at + age, until, entry.validator))

    def store(self, request: Hashable, validator: Validator, make: MakeResponse) -> CachedResponse:
        """Render a response with make(), store it, and return it.

        validator: whether the data of the response is current.
        """
        response = make(MAX_AGE - AGE_STEP, None)
        lifetime = _LIFETIMES.get(response.cache)
        size = max(len(response.representation), MIN_ENTRY_BYTES)
        if lifetime is not None:
            self._memory.put((self, request), _Entry(self._clock.seconds(), validator, make, lifetime), size)
            return self.lookup(request) or response  # with a validity
        return response
