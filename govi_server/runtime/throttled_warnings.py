"""Warnings about incidents that may be frequent: counted by kind, and logged at most once a minute."""

from collections import Counter
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

WARNING_INTERVAL = 60.0
"""Seconds between log lines of one kind of incident; in between, incidents are only counted."""


class ThrottledWarnings:
    """Counts incidents by kind, and logs warnings about them."""

    def __init__(self, log: Logger, clock: IReactorTime) -> None:
        self.counts: Counter[str] = Counter()
        self._log = log
        self._clock = clock
        self._logged: dict[str, tuple[float, int]] = {}  # time and count of the last log line by kind

    def add(self, kind: str, format: str, level: Any = LogLevel.warn, **fields: object) -> bool:
        """Count an incident; log the first of its kind, then at most one a minute with the number of unlogged ones.

        Return whether it was logged.
        kind: a constant text, such as "late". format, level, fields: as in Logger.emit().
        """
        self.counts[kind] += 1
        now = self._clock.seconds()
        logged_at, count = self._logged.get(kind, (None, 0))
        if logged_at is not None and 0 <= now - logged_at < WARNING_INTERVAL:
            return False
        unlogged = self.counts[kind] - count - 1
        self._logged[kind] = (now, self.counts[kind])
        if unlogged:
            format += " (and {missed} more of this kind since the last such line)"
        self._log.emit(level, format, missed=unlogged, **fields)
        return True
