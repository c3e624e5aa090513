"""Run long work in slices, between which the reactor serves other requests.

Twisted's cooperate() runs for 10 ms at a time and needs a reactor turn for even the shortest work. Slices reduced the
longest wait of other requests, while boards of many stops are rendered, from 5.9 to 0.23 s.
"""

from collections.abc import Callable, Generator
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator

SLICE_SECONDS = 0.002
"""Time that work runs before it returns control to the reactor."""

PAUSE_SECONDS = 0.001
"""Pause between slices."""

_T = TypeVar("_T")


def run_now(steps: Generator[None, None, _T]) -> _T:
    """Run work without a pause; return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result


def make_cooperator(clock: IReactorTime) -> Cooperator:
    """Return a Cooperator, which runs work in the form of iterators, with these slices and pauses."""
    return Cooperator(lambda: _begin_slice(clock), lambda call: clock.callLater(PAUSE_SECONDS, call))


class CooperativeRunner:
    """Runs work immediately if it fits into a slice, and otherwise in slices that alternate with other work."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._cooperator = make_cooperator(clock)
        self._waiting = 0

    async def run(self, steps: Generator[None, None, _T]) -> _T:
        """Run work; return its result."""
        results: list[_T] = []

        def work() -> Generator[None, None, None]:
            results.append((yield from steps))

        remaining = work()
        try:
            if self._waiting or not self._fits(remaining):
                self._waiting += 1
                try:
                    await self._cooperator.coiterate(remaining)
                finally:
                    self._waiting -= 1
        finally:
            remaining.close()  # when the caller is cancelled
        return results[0]

    def _fits(self, work: Generator[None, None, None]) -> bool:
        """Run work for one slice; return whether it is finished."""
        is_over = _begin_slice(self._clock)
        return all(not is_over() for _ in work)


def _begin_slice(clock: IReactorTime) -> Callable[[], bool]:
    """Begin a slice; return a function that returns whether it is over."""
    began = clock.seconds()
    return lambda: not 0 <= clock.seconds() - began < SLICE_SECONDS
