"""What goes wrong and may go wrong often: counted by kind, and told to the log once a minute at most."""

from collections import Counter

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

QUIET = 60.0
"""Seconds for which a kind of incident is only counted after it was logged."""


class ThrottledWarnings:
    """Counts incidents by kind. log: whom they are told to, as warnings."""

    def __init__(self, log: Logger, clock: IReactorTime) -> None:
        self.counts: Counter[str] = Counter()
        self._log = log
        self._clock = clock
        self._told: dict[str, tuple[float, int]] = {}

    def add(self, kind: str, format: str, **fields: object) -> None:
        """Count one more of a kind; log the first and then, once a minute, the newest with how many there were.

        kind: a few constant words. format, fields: as in Logger.warn().
        """
        self.counts[kind] += 1
        now = self._clock.seconds()
        told, count = self._told.get(kind, (None, 0))
        if told is not None and 0 <= now - told < QUIET:
            return
        missed = self.counts[kind] - count - 1
        self._told[kind] = (now, self.counts[kind])
        if missed:
            format += " (and {missed} more of this kind since the last such line)"
        self._log.emit(LogLevel.warn, format, missed=missed, **fields)
