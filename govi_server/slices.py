"""Long work in slices: others have their turn between them."""

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator

SLICE = 0.002
"""Seconds for which work goes on before others have their turn."""

PAUSE = 0.001
"""Seconds until it goes on."""


def in_slices(clock: IReactorTime) -> Cooperator:
    """Make what does long work, given as iterators, bit by bit."""

    def slice_begins() -> Callable[[], bool]:
        begun = clock.seconds()
        return lambda: not 0 <= clock.seconds() - begun < SLICE

    return Cooperator(slice_begins, lambda call: clock.callLater(PAUSE, call))
