"""The system clock, which may be set: scheduled calls move along when it is set back; and the local time zone."""

import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any
from zoneinfo import ZoneInfo

from twisted.application.service import Service
from twisted.logger import Logger

LOCAL_ZONE = ZoneInfo("Europe/Amsterdam")

MIN_STEP_SECONDS = 1.0
"""Steps of the clock below it are ignored: deadlines are several seconds."""

CHECK_INTERVAL = 1.0
"""Seconds between two checks."""


class ClockWatch(Service):
    """Detects that the system clock was set, and moves the reactor's delayed calls along if it was set back.

    A reactor's calls go by that clock: when it is set back by an hour, every deadline is an hour late, and a client
    whose gateway never answers waits for an hour. When it is set forward, all calls are due, and none is late.

    reactor: an IReactorTime and IReactorFromThreads. monotonic: a clock that cannot be set.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, monotonic: Callable[[], float] = time.monotonic, every: float = CHECK_INTERVAL
    ) -> None:
        self._reactor = reactor
        self._monotonic = monotonic
        self._every = every
        self._ended = Event()
        self._offset = 0.0

    def startService(self) -> None:
        """Start checking."""
        super().startService()
        self._offset = self._now_offset()
        # In a thread, since the reactor sleeps until its next call is due by the clock that was set back.
        Thread(target=self._tick, name="clock", daemon=True).start()

    def stopService(self) -> None:
        """Stop checking."""
        super().stopService()
        self._ended.set()

    def _tick(self) -> None:
        while not self._ended.wait(self._every):
            self._reactor.callFromThread(self.check)

    def _now_offset(self) -> float:
        offset: float = self._reactor.seconds() - self._monotonic()
        return offset

    def check(self) -> None:
        """Check whether the clock was set since the last check."""
        offset = self._now_offset()
        step, self._offset = offset - self._offset, offset
        if not self.running or abs(step) < MIN_STEP_SECONDS:
            return
        direction = "forward" if step > 0 else "back"
        self.log.warn("System clock: set {direction} by {seconds:.0f} s", direction=direction, seconds=abs(step))
        if step < 0:
            self._move_calls(-step)

    def _move_calls(self, back: float) -> None:
        now = self._reactor.seconds()
        for call in self._reactor.getDelayedCalls():
            # A call that is due sooner was scheduled after the clock was set, or was due at that time.
            if call.getTime() - now >= back - 2 * self._every:
                call.delay(-back)
