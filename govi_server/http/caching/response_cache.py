"""Answers that are kept for as long as they hold, so that a board is rendered once for all who ask for it.

What is told of a board takes off the seconds for which caches on the way may keep it; it makes no difference whether
they pass there or here. So an answer lasts until its source has something new to say, and MAX_AGE seconds at most.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import ceil

from twisted.internet.interfaces import IReactorTime

from govi_server.http.caching.cached_response import CachedResponse
from govi_server.statistics.records import CacheResult

MAX_AGE = 10
"""Seconds for which a client may keep a board: the feed changes it by the second, displays ask twice a minute."""


MOST_BYTES = 32 << 20
"""Of the bodies that are kept; the oldest goes first."""

MOST_ANSWERS = 5000
"""Answers that are kept: those to all that can be rendered in so short a time, and then some."""

# Seconds for which an answer is kept: one that tells its age in seconds for no more than one, and one that was waited
# for not at all, for the next is a hit.
_LASTS: dict[CacheResult, float] = {"hit": MAX_AGE, "stale": 1.0}


@dataclass(slots=True)
class _Answer:
    since: float
    version: object
    say: Callable[[int], CachedResponse]
    ready: CachedResponse
    max_age: int = MAX_AGE


class ResponseCache:
    """Keeps answers, each under what was asked."""

    def __init__(self, clock: IReactorTime, most_bytes: int = MOST_BYTES) -> None:
        self._clock = clock
        self._most_bytes = most_bytes
        self._answers: OrderedDict[Hashable, _Answer] = OrderedDict()
        self.bytes = 0
        """Of all bodies."""

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, asked: Hashable, version: object) -> CachedResponse | None:
        """Give the answer to what is asked, if it holds. version: of what it is made from, as in put()."""
        answer = self._answers.get(asked)
        if answer is None or answer.version != version:
            return None
        passed = self._clock.seconds() - answer.since
        if not 0 <= passed < _LASTS[answer.ready.cache]:
            return None
        max_age = MAX_AGE - ceil(passed)
        if max_age != answer.max_age:
            answer.max_age, answer.ready = max_age, answer.say(max_age)
        return answer.ready

    def put(self, asked: Hashable, version: object, say: Callable[[int], CachedResponse]) -> CachedResponse:
        """Keep an answer, and give it. say: makes it, for caches that may keep it for so many seconds."""
        ready = say(MAX_AGE)
        if ready.cache in _LASTS:
            self._forget(asked)
            self._answers[asked] = _Answer(self._clock.seconds(), version, say, ready)
            self.bytes += len(ready.representation)
            self._shrink()
        return ready

    def _shrink(self) -> None:
        """Let go of what is over, and of the oldest while there is too much."""
        now = self._clock.seconds()
        while self._answers:
            asked, oldest = next(iter(self._answers.items()))
            too_much = len(self._answers) > MOST_ANSWERS or self.bytes > self._most_bytes
            if not too_much and 0 <= now - oldest.since < MAX_AGE:
                return
            self._forget(asked)

    def _forget(self, asked: Hashable) -> None:
        answer = self._answers.pop(asked, None)
        if answer is not None:
            self.bytes -= len(answer.ready.representation)
