"""The local time zone, and a watch on the system clock that reschedules delayed calls when the clock is set back."""

import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any
from zoneinfo import ZoneInfo

from twisted.application.service import Service
from twisted.logger import Logger

from govi_server.runtime.outside import outside

LOCAL_ZONE = ZoneInfo("Europe/Amsterdam")

MIN_STEP_SECONDS = 1.0
"""Smaller steps of the clock are ignored: deadlines are several seconds long."""

CHECK_INTERVAL = 1.0
"""Seconds between checks of the clock."""


def call_every(interval: float, call: Callable[[], object]) -> Callable[[], None]:
    """Call a function in a thread at an interval in seconds that does not depend on the system clock; return the
    function that stops it.
    """
    stopped = Event()

    def run() -> None:
        while not stopped.wait(interval):
            call()

    Thread(target=run, name="clock", daemon=True).start()
    return stopped.set


class ClockWatch(Service):
    """Detects that the system clock was set, and reschedules the reactor's delayed calls if it was set back.

    Delayed calls depend on the system clock: if it is set back by an hour, every deadline is an hour late, and a
    client whose gateway never responds waits for an hour. If it is set forward, calls are early, but not late.

    reactor: an IReactorTime and IReactorFromThreads. monotonic: a clock that cannot be set, by default that of the
    system. every: seconds between two checks.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, monotonic: Callable[[], float] | None = None, every: float = CHECK_INTERVAL
    ) -> None:
        self._reactor = reactor
        self._monotonic = monotonic or outside(reactor, "monotonic", time.monotonic)
        self._every = every
        self._stop_checking: Callable[[], None] = lambda: None
        self._offset = 0.0
        self.set_back: list[Callable[[], object]] = []
        """Called after the clock was set back."""

    def startService(self) -> None:
        """Start checking."""
        super().startService()
        self._offset = self._now_offset()
        # In a thread, because the reactor sleeps until its next call is due by the clock that was set back.
        every = outside(self._reactor, "call_every", call_every)
        self._stop_checking = every(self._every, lambda: self._reactor.callFromThread(self.check))

    def stopService(self) -> None:
        """Stop checking."""
        super().stopService()
        self._stop_checking()

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
            for call in self.set_back:
                call()

    def _move_calls(self, back: float) -> None:
        now = self._reactor.seconds()
        for call in self._reactor.getDelayedCalls():
            # Calls due sooner were scheduled after the clock was set, or were due at that time.
            if call.getTime() - now >= back - 2 * self._every:
                call.delay(-back)
