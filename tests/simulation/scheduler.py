"""Virtual time: events in the order of their time, and of their scheduling at the same time."""

import heapq
from collections.abc import Callable
from typing import Any

MAX_EVENTS_AT_ONCE = 200_000
"""Events at one moment, after which the simulation gives up: a busy loop."""


class Livelock(Exception):
    """Events follow each other without any time passing."""


class Event:
    """A scheduled call. function is None once it was called or cancelled."""

    __slots__ = ("arguments", "function", "number", "time")

    def __init__(self, time: float, number: int, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.time = time
        self.number = number
        self.function: Callable[..., object] | None = function
        self.arguments = arguments

    def cancel(self) -> None:
        """Do not call the function."""
        self.function = None
        self.arguments = ()


class Scheduler:
    """Runs events; ``now`` is the steady time, which no fault can set, in seconds since the epoch."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.events = 0
        """The number of events so far."""
        self._queue: list[tuple[float, int, Event]] = []
        self._number = 0
        self._at_once = 0

    def at(self, time: float, function: Callable[..., object], *arguments: Any) -> Event:
        """Schedule a call."""
        self._number += 1
        event = Event(max(time, self.now), self._number, function, arguments)
        heapq.heappush(self._queue, (event.time, event.number, event))
        return event

    def after(self, delay: float, function: Callable[..., object], *arguments: Any) -> Event:
        """Schedule a call after a delay in seconds."""
        return self.at(self.now + delay, function, *arguments)

    def run(self, until: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Run all events before a time, or until a function that is called after each event returns True."""
        queue = self._queue
        while queue and queue[0][0] < until:
            time, _, event = heapq.heappop(queue)
            function = event.function
            if function is None:
                continue
            if time > self.now:
                self.now = time
                self._at_once = 0
            self._at_once += 1
            if self._at_once > MAX_EVENTS_AT_ONCE:
                raise Livelock(f"{MAX_EVENTS_AT_ONCE} events at once, the last one {function!r}")
            self.events += 1
            event.function = None
            function(*event.arguments)
            if stop():
                return
        self.now = max(self.now, until)
