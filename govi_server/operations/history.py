"""The last hour by minute, counted from the events of the logs.

Bounded: at most HISTORY_MINUTES, each with at most MAX_NAMES of the names that clients choose.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

from twisted.internet.interfaces import IReactorTime
from twisted.logger import LogEvent, LogLevel, formatEvent

from govi_server.kv55.gateway import GatewayEvent
from govi_server.statistics.batches import Batch, StatisticsBatcher
from govi_server.statistics.quantiles import QuantileSketch
from govi_server.statistics.records import SEVERAL, CacheResult

HISTORY_MINUTES = 60
"""Minutes that are stored."""

MAX_NAMES = 2000
"""Stops, or clients, that are counted separately in a minute; others are counted together."""

MAX_ENTRIES = 50
"""Warnings and errors of the log that are stored."""

MAX_ENTRY_CHARACTERS = 300
"""Characters of a log entry that are stored."""

OTHERS = "others"
"""The name under which they are counted."""

FAILURE_STATUSES = (500, 502, 503, 504)
"""Statuses of responses to valid requests for which there was no board."""

BoardResult = Literal["hit", "stale", "joined", "miss", "timeout", "failed"]
"""The result of a request for a board: its cache result, or the kind of failure."""
BOARD_RESULTS: tuple[BoardResult, ...] = get_args(BoardResult)

Outcome = Literal["answered", "failed", "left"]
"""The outcome of a request for a board; 'left': the client left before the response."""


@dataclass(slots=True)
class ModuleRequests:
    """The requests for boards of a module in a minute, and the latencies of its gateway."""

    results: Counter[tuple[BoardResult, int | None]] = field(default_factory=Counter)
    """By result and status; the status is None if the client left."""
    stops: defaultdict[Outcome, set[str]] = field(default_factory=lambda: defaultdict(set))
    acknowledgement_ms: QuantileSketch = field(default_factory=QuantileSketch)
    """Times from requests to the gateway to their acknowledgements."""
    callback_ms: QuantileSketch = field(default_factory=QuantileSketch)
    """Times from requests to the gateway to its callbacks, including late ones."""


@dataclass(slots=True)
class Minute:
    """The counts of one minute."""

    begins: int
    """Epoch seconds, a multiple of 60."""
    modules: defaultdict[str, ModuleRequests] = field(default_factory=lambda: defaultdict(ModuleRequests))
    statuses: Counter[int] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    failed_stops: Counter[str] = field(default_factory=Counter)
    """5xx responses by stop."""
    unknown_stops: Counter[str] = field(default_factory=Counter)
    """404 responses by stop."""
    longest_waits: dict[str, float] = field(default_factory=dict)
    """The longest wait by stop, in seconds."""

    @property
    def results(self) -> Counter[BoardResult]:
        """Requests for boards by result."""
        results: Counter[BoardResult] = Counter()
        for requests in self.modules.values():
            for (result, _), n in requests.results.items():
                results[result] += n
        return results


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A warning or an error of the log."""

    moment: float
    level: str
    text: str


class RecentHistory:
    """Observes the log, and counts by minute. batcher: the source of statistics. modules: the modules' names."""

    def __init__(self, clock: IReactorTime, batcher: StatisticsBatcher, modules: Collection[str] = ("kv55",)) -> None:
        self._clock = clock
        self._batcher = batcher
        batcher.listen(self._count_batch)
        self._modules = modules
        self._minutes: deque[Minute] = deque(maxlen=HISTORY_MINUTES)
        self.entries: deque[LogEntry] = deque(maxlen=MAX_ENTRIES)
        """The latest warnings and errors of the log, newest first."""

    def __call__(self, event: LogEvent) -> None:
        """Observe an event of the log."""
        if isinstance(gateway_event := event.get("flight"), GatewayEvent):
            begins = int(self._clock.seconds()) // 60 * 60
            if not self._minutes or self._minutes[-1].begins != begins:
                self._batcher.flush()  # batches of earlier minutes must be counted first
            requests = self._minute(begins).modules[gateway_event.module]
            times = requests.acknowledgement_ms if gateway_event.name == "taken" else requests.callback_ms
            times.add(gateway_event.seconds * 1000)
        elif event.get("log_level") in (LogLevel.warn, LogLevel.error, LogLevel.critical):
            text = formatEvent(event).partition("\n")[0][:MAX_ENTRY_CHARACTERS]
            self.entries.appendleft(LogEntry(self._clock.seconds(), event["log_level"].name, text))

    def minutes(self) -> Iterator[Minute]:
        """Return the minutes of the last hour that have events, oldest first."""
        self._batcher.flush()
        now = self._clock.seconds()
        return (minute for minute in self._minutes if 0 <= now - minute.begins < (HISTORY_MINUTES + 1) * 60)

    def failing_stops(self, minutes: int) -> dict[str, set[str]]:
        """Return the stops with failed requests in the last minutes, by module."""
        failing: dict[str, set[str]] = {name: set() for name in self._modules}
        now = self._clock.seconds()
        for minute in self.minutes():
            if now - minute.begins < minutes * 60:
                for name, requests in minute.modules.items():
                    failing.setdefault(name, set()).update(requests.stops["failed"])
        return failing

    def _count_batch(self, batch: Batch) -> None:
        _count(self._minute(batch.minute), batch)

    def _minute(self, begins: int) -> Minute:
        # If the clock was set back, later minutes would recur, and their failures with them.
        while self._minutes and self._minutes[-1].begins > begins:
            self._minutes.pop()
        if not self._minutes or self._minutes[-1].begins != begins:
            self._minutes.append(Minute(begins))
        return self._minutes[-1]


def board_result(status: int | None, cache: CacheResult) -> BoardResult | None:
    """Return the result of a request to a module; None if it was not for a board."""
    if cache == "none":  # modules of the live feed use no cache: only their failures are recognizable
        return "failed" if status in FAILURE_STATUSES else None
    if status in (406, 504) or status is None:
        return "timeout"
    return "failed" if status >= 500 else cache


def _count(minute: Minute, batch: Batch) -> None:
    for connection in batch.connections:
        _add(minute.clients, connection.client, len(connection.requests))
    counts: dict[tuple[str | None, int | None, CacheResult], int] = {}  # far fewer than exchanges
    for exchange, n in batch.exchanges.items():
        key = module, status, cache = exchange.module, exchange.status, exchange.cache
        counts[key] = counts.get(key, 0) + n
        stop = exchange.stop
        if stop:
            _add(minute.stops, stop, n)
            if status is not None and status >= 500:
                _add(minute.failed_stops, stop, n)
            if status == 404:
                _add(minute.unknown_stops, stop, n)
        if module is not None and (result := board_result(status, cache)) is not None:
            stops = minute.modules[module].stops[_outcome(result, status)]
            if len(stops) < MAX_NAMES:
                stops.add(exchange.path or "" if stop in ("", SEVERAL) else stop)
    for (module, status, cache), n in counts.items():
        if module is not None and (result := board_result(status, cache)) is not None:
            minute.modules[module].results[result, status] += n
        if status is not None:
            minute.statuses[status] += n
    longest = minute.longest_waits
    for wait, stop in [(r.wait, r.exchange.stop) for c in batch.connections for r in c.requests if r.wait]:
        if stop and (stop in longest or len(longest) < MAX_NAMES):
            longest[stop] = max(wait, longest.get(stop, 0.0))


def _outcome(result: BoardResult, status: int | None) -> Outcome:
    if status is None:
        return "left"
    return "failed" if result in ("timeout", "failed") else "answered"


def _add(counter: Counter[str], name: str, n: int) -> None:
    if n:
        counter[name if name in counter or len(counter) < MAX_NAMES else OTHERS] += n
