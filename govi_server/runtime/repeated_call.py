"""Work that is repeated at an interval. All such work of the program is here, so that no exception ends it."""

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from govi_server.runtime.throttled_warnings import ThrottledWarnings


class RepeatedCall(Service):
    """Calls a function at an interval while it runs. A failure is logged, at most once a minute, and ends nothing.

    name: of the work, in the log. interval: in seconds. function: the next call waits for a Deferred that it returns.
    now: whether the first call is made at the start, or after the interval.
    """

    log = Logger()

    def __init__(
        self, name: str, clock: IReactorTime, interval: float, function: Callable[[], object], now: bool = True
    ) -> None:
        self._name = name
        self._interval = interval
        self._function = function
        self._now = now
        self._loop = LoopingCall(self._call)
        self._loop.clock = clock
        self._warnings = ThrottledWarnings(self.log, clock)
        self._ended: Deferred[LoopingCall] | None = None

    def startService(self) -> None:
        """Begin to call."""
        super().startService()
        self._ended = self._loop.start(self._interval, now=self._now)

    def stopService(self) -> Deferred[LoopingCall] | None:
        """Make no more calls; return a Deferred that fires when the last one is done. Do nothing if it is stopped."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        ended, self._ended = self._ended, None
        return ended

    def _call(self) -> Deferred[Any]:
        # LoopingCall ends for good if its function fails.
        return maybeDeferred(self._function).addErrback(self._log_failure)

    def _log_failure(self, failure: Failure) -> None:
        if self.running:  # otherwise the work was cancelled by stopping
            text = "{name} failed; repeated in {interval:g} s"
            self._warnings.add(
                "failed",
                text,
                LogLevel.critical,
                name=self._name,
                interval=self._interval,
                log_failure=failure,
            )
