"""Measures the turns of the reactor, and logs slow ones with the work that made them slow.

A turn that works for long lets all clients wait. What a turn works on is not known in advance, so a thread looks at
the stack of the reactor's thread while a turn lasts long; this costs nothing per request.
"""

import gc
import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate
from threading import Event, Thread, get_ident
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from govi_server.runtime.cooperative import work_names

SLOW_TURN_SECONDS = 0.1
"""Processor time of a turn from which it is logged."""

SAMPLE_INTERVAL = 0.045
"""Seconds between looks at the stack: each slow turn is seen at least twice."""

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram in seconds."""

MAX_LOGGED = 10
"""Slow turns that are logged in a minute; more are only counted."""

MAX_WORK_CHARACTERS = 100
"""Characters of a path or an envelope in a log line."""

_FRAMES = 3
"""Innermost functions that are named."""


class TurnWatch(Service):
    """Watches the reactor. reactor: a ReactorBase. cpu_seconds: returns the processor time of this thread.

    A turn ends when the next one begins, with the reactor's delayed calls.
    """

    log = Logger()

    def __init__(self, reactor: Any, cpu_seconds: Callable[[], float] = time.thread_time) -> None:
        self._reactor = reactor
        self._cpu_seconds = cpu_seconds
        self._run_until_current: Callable[[], None] = lambda: None
        self._began = 0.0
        self._thread = 0
        self._stopped = Event()
        self._sample: tuple[int, str] = (0, "")
        """A turn that lasted long, and what it worked on."""
        self._collecting = 0.0
        self._collected = 0.0
        self._minute, self._logged = 0.0, 0
        self.turns = 0
        """The number of turns so far."""
        self.seconds = 0.0
        """Their processor time."""
        self.slow_turns = 0
        """The number of turns of at least SLOW_TURN_SECONDS."""
        self._counts = [0] * (len(BOUNDS) + 1)
        """The turns by bound, without those of the first."""

    def startService(self) -> None:
        """Start watching the reactor of this thread."""
        super().startService()
        self._thread = get_ident()
        self._began = self._cpu_seconds()
        self._run_until_current = self._reactor.runUntilCurrent
        self._reactor.runUntilCurrent = self._begin_turn
        gc.callbacks.append(self._on_collection)
        Thread(target=self._watch, name="turns", daemon=True).start()

    def stopService(self) -> None:
        """Stop watching."""
        super().stopService()
        self._stopped.set()
        self._reactor.runUntilCurrent = self._run_until_current
        gc.callbacks.remove(self._on_collection)

    @property
    def histogram(self) -> list[tuple[str, int]]:
        """The cumulative number of turns by upper bound."""
        counts = [self.turns - sum(self._counts), *self._counts[1:]]
        return list(zip((*map(str, BOUNDS), "+Inf"), accumulate(counts), strict=True))

    def _begin_turn(self) -> None:
        now = self._cpu_seconds()
        seconds = now - self._began
        self._began = now
        self.seconds += seconds
        self.turns += 1
        if seconds > BOUNDS[0]:
            self._counts[bisect_left(BOUNDS, seconds)] += 1
            if seconds >= SLOW_TURN_SECONDS:
                self._report(seconds)
            self._collected = 0.0
            # The interpreter does not count tuples, lists and dicts that it makes from its free lists. With 5,000
            # requests at once, 68,000 young objects accumulated, and visiting them took up to 80 ms. Since this
            # resets the count by which it begins collections, the middle generation must be collected as well.
            gc.collect(1 if gc.get_count()[1] > gc.get_threshold()[1] else 0)
        self._run_until_current()

    def _report(self, seconds: float) -> None:
        self.slow_turns += 1
        now = self._reactor.seconds()
        if not 0 <= now - self._minute < 60:
            self._minute, self._logged = now, 0
        self._logged += 1
        if self._logged > MAX_LOGGED:
            return
        turn, work = self._sample
        if self._collected > seconds / 2:
            work = "garbage collection"
        elif turn != self.turns - 1:
            work = "unknown work"
        text = "The reactor worked for {milliseconds:.0f} ms without a pause: {work}"
        self.log.warn(text, milliseconds=seconds * 1000, work=work)

    def _watch(self) -> None:
        """Note what the reactor works on in turns that last long."""
        last = -1
        while not self._stopped.wait(SAMPLE_INTERVAL):
            turn = self.turns
            frame = sys._current_frames().get(self._thread) if turn == last else None
            if frame is not None and frame.f_code.co_name != "doPoll":
                self._sample = (turn, describe(frame))
            last = turn

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] == 2:
            if phase == "start":
                self._collecting = self._cpu_seconds()
            else:
                self._collected += self._cpu_seconds() - self._collecting


def describe(frame: FrameType | None) -> str:
    """Return the innermost functions of this program on a stack, and the work that they are for; printable.

    The variables of frames are not read, see work_names.
    """
    functions: list[str] = []
    work = ""
    while frame is not None:
        code = frame.f_code
        if "govi_server" in code.co_filename:
            if len(functions) < _FRAMES:
                module = code.co_filename.rpartition("govi_server/")[2]
                functions.append(f"{code.co_qualname} ({module}:{frame.f_lineno})")
            work = work or work_names.get(id(frame), "")
        frame = frame.f_back
    names = " < ".join(functions) or "another library"
    return f"{names}, for {work[:MAX_WORK_CHARACTERS]!r}" if work else names
