"""The clock of the system, which may be set: what is scheduled goes along when it is set back."""

import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any
from zoneinfo import ZoneInfo

from twisted.application.service import Service
from twisted.logger import Logger

LOCAL_ZONE = ZoneInfo("Europe/Amsterdam")


LEAST = 1.0
"""Seconds by which it must be set to be noticed: deadlines are several."""

LOOK_EVERY = 1.0
"""Seconds between two looks."""


class ClockWatch(Service):
    """Notices when the clock of the system is set, and when back, brings the reactor's calls along.

    A reactor's calls go by that clock. When it is set back by an hour, every deadline would be an hour late, and who
    waits for an answer that never comes would wait for an hour. Set forward, all calls are due, and nothing is late.

    reactor: an IReactorTime and IReactorFromThreads. monotonic: tells a time that nobody sets.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, monotonic: Callable[[], float] = time.monotonic, every: float = LOOK_EVERY
    ) -> None:
        self._reactor = reactor
        self._monotonic = monotonic
        self._every = every
        self._ended = Event()
        self._offset = 0.0

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._offset = self._now_offset()
        # A thread, because the reactor itself sleeps until its next call is due, by the clock that was set back.
        Thread(target=self._tick, name="clock", daemon=True).start()

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        self._ended.set()

    def _tick(self) -> None:
        while not self._ended.wait(self._every):
            self._reactor.callFromThread(self.look)

    def _now_offset(self) -> float:
        offset: float = self._reactor.seconds() - self._monotonic()
        return offset

    def look(self) -> None:
        """See whether the clock was set since the last look."""
        offset = self._now_offset()
        step, self._offset = offset - self._offset, offset
        if not self.running or abs(step) < LEAST:
            return
        way = "forward" if step > 0 else "back"
        self.log.warn("The clock of the system was set {way} by {seconds:.0f} s", way=way, seconds=abs(step))
        if step < 0:
            self._bring_along(-step)

    def _bring_along(self, back: float) -> None:
        now = self._reactor.seconds()
        for call in self._reactor.getDelayedCalls():
            # What was to come sooner was scheduled after the clock was set, or was due when it was.
            if call.getTime() - now >= back - 2 * self._every:
                call.delay(-back)
