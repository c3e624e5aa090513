"""What happened in the last hour, minute by minute, from the events that the logs are written from.

Bounded: sixty minutes, and of the names that clients choose only those that come most.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from twisted.internet.interfaces import IReactorTime
from twisted.logger import LogEvent, LogLevel, formatEvent

from govi_server.kv55.gateway import GatewayEvent
from govi_server.statistics.batches import Batch, StatisticsBatcher
from govi_server.statistics.paths import SEVERAL, stop_of
from govi_server.statistics.records import CacheResult
from govi_server.statistics.summary import QuantileSketch

MINUTES = 60
"""How far back it goes."""

MOST_NAMES = 2000
"""Stops or clients that are told apart in a minute; the rest is counted together."""

MOST_EVENTS = 50
"""Warnings and errors that are kept."""

OTHERS = "others"

_FAILED = (500, 502, 503, 504)
"""Statuses that say that a question was understood, and has no answer."""

Outcome = Literal["answered", "failed", "left"]
"""What becomes of questions, roughly; left are those whose client did not wait."""


@dataclass(slots=True)
class HistoryRequest:
    """What became of the questions for boards that a module was asked in a minute."""

    results: Counter[tuple[str, int | None]] = field(default_factory=Counter)
    """By outcome and status."""
    stops: defaultdict[Outcome, set[str]] = field(default_factory=lambda: defaultdict(set))
    taken: QuantileSketch = field(default_factory=QuantileSketch)
    """Milliseconds from questions to their acknowledgements."""
    waited: QuantileSketch = field(default_factory=QuantileSketch)
    """Milliseconds from questions to their answers, late ones too."""


@dataclass(slots=True)
class Minute:
    """What happened in one minute."""

    begins: int
    """Epoch seconds, a multiple of 60."""
    modules: defaultdict[str, HistoryRequest] = field(default_factory=lambda: defaultdict(HistoryRequest))
    statuses: Counter[int] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    """Stops by the answers that were 5xx."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Stops by the answers that were 404."""
    slow: dict[str, float] = field(default_factory=dict)
    """The longest wait in seconds for each stop."""

    @property
    def outcomes(self) -> Counter[str]:
        """Requests for boards by what came of them: hit, stale, joined, miss, timeout, failed."""
        outcomes: Counter[str] = Counter()
        for asked in self.modules.values():
            for (result, _), n in asked.results.items():
                outcomes[result] += n
        return outcomes


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A line of the log that somebody should read."""

    moment: float
    level: str
    text: str


class RecentHistory:
    """Observes the log, and counts. tally: of what connections did. modules: what may be asked for boards."""

    def __init__(self, clock: IReactorTime, tally: StatisticsBatcher, modules: Collection[str] = ("kv55",)) -> None:
        self._clock = clock
        self._tally = tally
        tally.listen(self._count)
        self._modules = modules
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)
        self.events: deque[LogEntry] = deque(maxlen=MOST_EVENTS)
        """The newest first."""

    def __call__(self, event: LogEvent) -> None:
        """Take note of an event of the log."""
        if isinstance(flight := event.get("flight"), GatewayEvent):
            self._tally.flush()  # of the minutes before this one
            asked = self._minute(int(self._clock.seconds()) // 60 * 60).modules[flight.module]
            (asked.taken if flight.name == "taken" else asked.waited).add(flight.seconds * 1000)
        elif event.get("log_level") in (LogLevel.warn, LogLevel.error, LogLevel.critical):
            text = formatEvent(event).partition("\n")[0][:300]
            self.events.appendleft(LogEntry(self._clock.seconds(), event["log_level"].name, text))

    def minutes(self) -> Iterator[Minute]:
        """Go through the minutes of the last hour in which anything happened, the oldest first."""
        self._tally.flush()
        now = self._clock.seconds()
        return (minute for minute in self._minutes if 0 <= now - minute.begins < (MINUTES + 1) * 60)

    def failing(self, minutes: int) -> dict[str, set[str]]:
        """Give the stops of each module whose questions failed in the last minutes."""
        failing: dict[str, set[str]] = {name: set() for name in self._modules}
        now = self._clock.seconds()
        for minute in self.minutes():
            if now - minute.begins < minutes * 60:
                for name, asked in minute.modules.items():
                    failing.setdefault(name, set()).update(asked.stops["failed"])
        return failing

    def _count(self, bulk: Batch) -> None:
        _count(self._minute(bulk.minute), bulk, self._modules)

    def _minute(self, begins: int) -> Minute:
        # Minutes of a clock that was ahead would come again, and with them what failed in them.
        while self._minutes and self._minutes[-1].begins > begins:
            self._minutes.pop()
        if not self._minutes or self._minutes[-1].begins != begins:
            self._minutes.append(Minute(begins))
        return self._minutes[-1]


def outcome(status: int | None, cache: CacheResult) -> str | None:
    """Tell what came of a module's request; None for one that was not for a board."""
    if cache == "none":  # of the live feed, which is asked for no cache, it is what has no board
        return "failed" if status in _FAILED else None
    if status in (406, 504) or status is None:
        return "timeout"
    return "failed" if status >= 500 else cache


def _count(minute: Minute, bulk: Batch, modules: Collection[str]) -> None:
    for connection in bulk.connections:
        _add(minute.clients, connection.client, len(connection.requests))
    for (path, status, cache), n in bulk.asked.items():
        stop = stop_of(path)
        module = (path or "/").lstrip("/").partition("/")[0]
        result = outcome(status, cache) if module in modules else None
        if result is not None:
            asked = minute.modules[module]
            asked.results[result, status] += n
            lost = result in ("timeout", "failed")
            stops = asked.stops["left" if status is None else "failed" if lost else "answered"]
            if len(stops) < MOST_NAMES:
                stops.add(path or "" if stop in (None, SEVERAL) else stop)
        if status is not None:
            minute.statuses[status] += n
        if stop is None:
            continue
        _add(minute.stops, stop, n)
        if status is not None and status >= 500:
            _add(minute.unanswered, stop, n)
        if status == 404:
            _add(minute.unknown, stop, n)
    for request in chain.from_iterable(connection.requests for connection in bulk.connections):
        waited = request.wait
        if waited and (stop := stop_of(request.path)) and (stop in minute.slow or len(minute.slow) < MOST_NAMES):
            minute.slow[stop] = max(waited, minute.slow.get(stop, 0.0))


def _add(counter: Counter[str], name: str, n: int) -> None:
    if n:
        counter[name if name in counter or len(counter) < MOST_NAMES else OTHERS] += n
