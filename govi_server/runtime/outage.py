"""The log lines about an outage: one when it begins, one when it ends."""

from collections import deque

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from govi_server.runtime.throttled_warnings import WARNING_INTERVAL


class Outage:
    """Whether something is out of service, with one log line each way, of at most a few outages a minute.

    outages: that are logged in a minute. Further ones are logged only if they last.
    """

    def __init__(self, log: Logger, clock: IReactorTime, outages: int = 1) -> None:
        self._log = log
        self._clock = clock
        self.since: float | None = None
        """The start of the current outage (epoch seconds); None without one."""
        self._warned_at: deque[float] = deque([float("-inf")] * outages, maxlen=outages)
        """The times of the latest log lines."""
        self._is_warned = False
        """Whether there was a log line about the current outage."""

    def begin(self, format: str, **fields: object) -> None:
        """Begin an outage, or note that it lasts. It is logged once."""
        now = self._clock.seconds()
        if self.since is None:
            self.since = now
        if not self._is_warned and not 0 <= now - self._warned_at[0] < WARNING_INTERVAL:
            self._warned_at.append(now)
            self._is_warned = True
            self._log.warn(format, **fields)

    def end(self, format: str, **fields: object) -> None:
        """Log the end of an outage if its start was logged. format: may contain {seconds}, its duration."""
        if self.since is None:
            return
        seconds = round(max(self._clock.seconds() - self.since, 0.0), 1)
        self.since = None
        if self._is_warned:
            self._is_warned = False
            self._log.info(format, seconds=seconds, **fields)
