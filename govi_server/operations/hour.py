"""What happened in the last hour, minute by minute, from the events that the logs are written from.

Bounded: sixty minutes, and of the names that clients choose only those that come most.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from twisted.internet.interfaces import IReactorTime
from twisted.logger import LogEvent, LogLevel, formatEvent

from govi_server.departures.flights import FlightEvent
from govi_server.paths import stop_of
from govi_server.statistics import CacheResult, ConnectionStatistics

MINUTES = 60
"""How far back it goes."""

MOST_NAMES = 2000
"""Stops or clients that are told apart in a minute; the rest is counted together."""

MOST_EVENTS = 50
"""Warnings and errors that are kept."""

OTHERS = "others"

_LATENCIES = 500
"""Latencies of a minute that are kept."""


@dataclass(slots=True)
class Minute:
    """What happened in one minute."""

    begins: int
    """Epoch seconds, a multiple of 60."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Requests for boards by what came of them: hit, stale, joined, miss, timeout, failed."""
    statuses: Counter[int] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    """Stops by the answers that were 5xx."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Stops by the answers that were 404."""
    slow: dict[str, float] = field(default_factory=dict)
    """The longest wait in seconds for each stop."""
    taken: list[float] = field(default_factory=list)
    """Seconds from questions to their acknowledgements."""
    answered: list[float] = field(default_factory=list)
    """Seconds from questions to their answers."""


@dataclass(frozen=True, slots=True)
class Happening:
    """A line of the log that somebody should read."""

    moment: float
    level: str
    text: str


class LastHour:
    """Observes the log. server: whose connections count."""

    def __init__(self, clock: IReactorTime, server: str) -> None:
        self._clock = clock
        self._server = server
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)
        self.events: deque[Happening] = deque(maxlen=MOST_EVENTS)
        """The newest first."""

    def __call__(self, event: LogEvent) -> None:
        """Take note of an event of the log."""
        if isinstance(connection := event.get("statistics"), ConnectionStatistics):
            if connection.server == self._server:
                _count(self._minute(), connection)
        elif isinstance(flight := event.get("flight"), FlightEvent):
            kept = self._minute().taken if flight.what == "taken" else self._minute().answered
            if len(kept) < _LATENCIES:
                kept.append(flight.seconds)
        elif event.get("log_level") in (LogLevel.warn, LogLevel.error, LogLevel.critical):
            text = formatEvent(event).partition("\n")[0][:300]
            self.events.appendleft(Happening(self._clock.seconds(), event["log_level"].name, text))

    def minutes(self) -> Iterator[Minute]:
        """Go through the minutes of the last hour in which anything happened, the oldest first."""
        now = self._clock.seconds()
        return (minute for minute in self._minutes if 0 <= now - minute.begins < (MINUTES + 1) * 60)

    def _minute(self) -> Minute:
        begins = int(self._clock.seconds()) // 60 * 60
        # Minutes of a clock that was ahead would come again, and with them what failed in them.
        while self._minutes and self._minutes[-1].begins > begins:
            self._minutes.pop()
        if not self._minutes or self._minutes[-1].begins != begins:
            self._minutes.append(Minute(begins))
        return self._minutes[-1]


def outcome(status: int | None, cache: CacheResult) -> str | None:
    """Tell what came of a request for a board; None for other requests."""
    if cache == "none":
        return None
    if status in (406, 504) or status is None:
        return "timeout"
    return "failed" if status >= 500 else cache


def _count(minute: Minute, connection: ConnectionStatistics) -> None:
    requests = connection.requests
    _add(minute.clients, connection.client, len(requests))
    for (path, status, cache), n in connection.asked.items():
        result = outcome(status, cache)
        if result is not None:
            minute.outcomes[result] += n
        if status is not None:
            minute.statuses[status] += n
        stop = stop_of(path)
        if stop is None:
            continue
        _add(minute.stops, stop, n)
        if status is not None and status >= 500:
            _add(minute.unanswered, stop, n)
        if status == 404:
            _add(minute.unknown, stop, n)
    for request in requests:
        waited = request.wait
        if waited and (stop := stop_of(request.path)) and (stop in minute.slow or len(minute.slow) < MOST_NAMES):
            minute.slow[stop] = max(waited, minute.slow.get(stop, 0.0))


def _add(counter: Counter[str], name: str, n: int) -> None:
    if n:
        counter[name if name in counter or len(counter) < MOST_NAMES else OTHERS] += n


def quantile(values: list[float], share: float) -> float | None:
    """Give the value below which this share of the values lies; None if there are none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else None
