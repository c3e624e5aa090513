"""Long work in slices: others have their turn between them."""

from collections.abc import Callable, Generator
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator

SLICE = 0.002
"""Seconds for which work goes on before others have their turn."""

PAUSE = 0.001
"""Seconds until it goes on."""


_T = TypeVar("_T")


def run_now(bits: Generator[None, None, _T]) -> _T:
    """Do work without a break; gives what comes of it."""
    while True:
        try:
            next(bits)
        except StopIteration as end:
            done: _T = end.value
            return done


def make_cooperator(clock: IReactorTime) -> Cooperator:
    """Make what does long work, given as iterators, bit by bit."""
    return Cooperator(lambda: _slice_begins(clock), lambda call: clock.callLater(PAUSE, call))


class CooperativeRunner:
    """Has work done for many: at once what fits into a slice, and the rest in turns, with others between them."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._cooperator = make_cooperator(clock)
        self._waiting = 0

    async def run(self, bits: Generator[None, None, _T]) -> _T:
        """Do work; gives what comes of it."""
        made: list[_T] = []

        def work() -> Generator[None, None, None]:
            made.append((yield from bits))

        rest = work()
        try:
            if self._waiting or not self._fits(rest):
                self._waiting += 1
                try:
                    await self._cooperator.coiterate(rest)
                finally:
                    self._waiting -= 1
        finally:
            rest.close()  # whoever wanted it may have left
        return made[0]

    def _fits(self, work: Generator[None, None, None]) -> bool:
        """Begin with work; tell whether it is done."""
        is_over = _slice_begins(self._clock)
        return all(not is_over() for _ in work)


def _slice_begins(clock: IReactorTime) -> Callable[[], bool]:
    begun = clock.seconds()
    return lambda: not 0 <= clock.seconds() - begun < SLICE
