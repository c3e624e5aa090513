"""Summaries of statistics logs: lines are added one by one to counters and sketches.

The memory of a summary does not grow with the log, and the order of the lines does not matter. Times are in
milliseconds, as in the log. Pure.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.statistics.log_lines import MAX_EPOCH_SECONDS, Line, Request, parse_line
from govi_server.statistics.quantiles import QuantileSketch
from govi_server.statistics.records import CacheResult, End, Phase

Width = Literal["minute", "hour", "day", "month", "year"]
"""The length of a period."""
WIDTHS: tuple[Width, ...] = get_args(Width)

MAX_MINUTES_SECONDS = 2 * 3600
"""Span of the log from which periods are hours instead of minutes."""

MAX_PERIODS = 31 * 24
"""Periods that are stored; more are merged into longer ones: hours into days, months, years."""

MAX_STOPS = 100_000
"""Stops that are counted separately, more than exist in the Netherlands; others are counted together."""

MAX_MODULES = 1000
"""Modules that are counted separately; a log has a dozen."""

MIN_TIMED_RESPONSES = 5
"""Stops with fewer responses not from memory rank last, since a single slow response is no evidence."""

FROM_MEMORY: tuple[CacheResult, ...] = ("hit", "stale")
FROM_SOURCE: tuple[CacheResult, ...] = ("joined", "miss")

StatusClass = Literal["2xx", "3xx", "4xx", "5xx", "other", "none"]
STATUS_CLASSES: tuple[StatusClass, ...] = get_args(StatusClass)


@dataclass(slots=True)
class Group:
    """Requests that have something in common."""

    requests: int = 0
    failed: int = 0
    """Requests with a 5xx response, or with 406: the connection's deadline."""
    response_times: QuantileSketch = field(default_factory=QuantileSketch)
    """From the end of the request's header section until the last byte of the response is written."""

    def add(self, failed: bool, response_time: float | None) -> None:
        """Count a request; response_time: milliseconds, None if there was no response."""
        self.requests += 1
        self.failed += failed
        if response_time is not None:
            self.response_times.add(response_time)

    def merge(self, other: "Group") -> None:
        """Add the requests of another group."""
        self.requests += other.requests
        self.failed += other.failed
        self.response_times.merge(other.response_times)


def merged(groups: Iterable[Group]) -> Group:
    """Return the sum of groups."""
    total = Group()
    for group in groups:
        total.merge(group)
    return total


@dataclass(slots=True)
class Period:
    """The requests of a minute, an hour, a day, a month or a year, in Dutch time."""

    caches: defaultdict[CacheResult, Group] = field(default_factory=lambda: defaultdict(Group))
    phases: defaultdict[Phase, QuantileSketch] = field(default_factory=lambda: defaultdict(QuantileSketch))
    status_classes: Counter[StatusClass] = field(default_factory=Counter)

    def merge(self, other: "Period") -> None:
        """Add the requests of another period."""
        for cache, group in other.caches.items():
            self.caches[cache].merge(group)
        for phase, times in other.phases.items():
            self.phases[phase].merge(times)
        self.status_classes.update(other.status_classes)

    @property
    def total(self) -> Group:
        """All requests of the period."""
        return merged(self.caches.values())

    @property
    def cache_lookups(self) -> int:
        """The number of requests that used the cache."""
        return sum(group.requests for cache, group in self.caches.items() if cache != "none")

    @property
    def from_memory(self) -> int:
        """The number of responses from memory."""
        return sum(self.caches[cache].requests for cache in FROM_MEMORY if cache in self.caches)

    @property
    def memory_ratio(self) -> float | None:
        """The fraction of cache look-ups with a response from memory; None if there were none."""
        return self.from_memory / self.cache_lookups if self.cache_lookups else None


@dataclass(slots=True)
class StopSummary:
    """The requests for a stop. Times are integers, so that their sum does not depend on the order."""

    requests: int = 0
    failed: int = 0
    timed: int = 0
    """Responses that were not from memory; only their times are included."""
    sum_us: int = 0
    max_us: int = 0

    @property
    def mean_ms(self) -> float:
        """The mean time in milliseconds of responses that were not from memory."""
        return self.sum_us / self.timed / 1000 if self.timed else 0.0

    @property
    def max_ms(self) -> float:
        """The longest time in milliseconds of responses that were not from memory."""
        return self.max_us / 1000


class LogSummary:
    """A summary of log lines. since, until: lines count from since (inclusive) to until (exclusive)."""

    def __init__(self, since: datetime | None = None, until: datetime | None = None) -> None:
        self._since = since.timestamp() if since else 0.0
        self._until = until.timestamp() if until else float(MAX_EPOCH_SECONDS)
        self.lines = 0
        """Lines within the period."""
        self.outside = 0
        """Lines outside the period."""
        self.bad = 0
        """Invalid lines."""
        self.first: float | None = None
        """Epoch seconds of the earliest line within the period."""
        self.last: float | None = None
        """Epoch seconds of the latest line within the period."""
        self.ends: Counter[End] = Counter()
        """Lines by end: one for each closed connection, and interim ones of open connections."""
        self.bytes = 0
        """Bytes of all response bodies."""
        self.stops: dict[str, StopSummary] = {}
        self.other_stops = StopSummary()
        """The stops beyond MAX_STOPS."""
        self.without_module = Group()
        """Requests without a module, and all requests in lines from versions before the field existed."""
        self.width: Width = "minute"
        self._modules: dict[str, Group] = {}
        self._statuses: defaultdict[int | None, Group] = defaultdict(Group)
        self._periods: dict[int, Period] = {}  # by start in epoch seconds
        self._by_slot: dict[int, Period] = {}  # the period of an epoch minute or hour

    def add_line(self, data: bytes) -> None:
        """Count a line; an invalid line counts as bad."""
        parsed = parse_line(data)
        if parsed is None:
            self.bad += 1
            return
        line, moment = parsed
        if self._since <= moment < self._until:
            self._count(line, moment)
        else:
            self.outside += 1

    def _count(self, line: Line, moment: float) -> None:
        self.lines += 1
        self.ends[line.end] += 1
        if self.first is None or moment < self.first:
            self.first = moment
        if self.last is None or moment > self.last:
            self.last = moment
        if line.requests:
            period = self._by_slot.get(int(moment // self._slot_seconds)) or self._period(moment)
            for request in line.requests:
                self._count_request(request, period)

    def _count_request(self, request: Request, period: Period) -> None:
        status, cache = request.status, request.cache
        time = _count_phases(request, period)
        # Requests whose client left before the response are no evidence of response times.
        response_time = None if status is None else time
        failed = status is not None and (status >= 500 or status == 406)
        self.bytes += request.bytes
        period.caches[cache].add(failed, response_time)
        period.status_classes[_status_class(status)] += 1
        self._statuses[status].add(failed, response_time)
        self._module(request.module).add(failed, response_time)
        if request.stop:
            stop = self._stop(request.stop)
            stop.requests += 1
            stop.failed += failed
            if response_time is not None and cache not in FROM_MEMORY:
                microseconds = max(0, round(response_time * 1000))
                stop.timed += 1
                stop.sum_us += microseconds
                stop.max_us = max(stop.max_us, microseconds)

    def _stop(self, code: str) -> StopSummary:
        stop = self.stops.get(code)
        if stop is None:
            if len(self.stops) >= MAX_STOPS:
                return self.other_stops
            stop = self.stops[code] = StopSummary()
        return stop

    def _module(self, name: str | None) -> Group:
        if name is None:
            return self.without_module
        group = self._modules.get(name)
        if group is None:
            if len(self._modules) >= MAX_MODULES:
                return self.without_module
            group = self._modules[name] = Group()
        return group

    @property
    def _slot_seconds(self) -> int:
        """Seconds that an entry of _by_slot covers."""
        return 60 if self.width == "minute" else 3600

    def _period(self, moment: float) -> Period:
        begin = _begin(int(moment // self._slot_seconds) * self._slot_seconds, self.width)
        period = self._periods.get(begin)
        if period is None:
            period = self._periods[begin] = Period()
            while self._needs_wider_periods():
                self.width = WIDTHS[WIDTHS.index(self.width) + 1]
                self._periods = _widened(self._periods, self.width)
                self._by_slot.clear()
            period = self._periods[_begin(begin, self.width)]
        if len(self._by_slot) >= MAX_PERIODS:
            self._by_slot.clear()
        self._by_slot[int(moment // self._slot_seconds)] = period
        return period

    def _needs_wider_periods(self) -> bool:
        if self.width == "minute":
            return max(self._periods) - min(self._periods) >= MAX_MINUTES_SECONDS
        return len(self._periods) > MAX_PERIODS and self.width != WIDTHS[-1]

    @property
    def connections(self) -> int:
        """The number of closed connections; interim lines of open ones do not count."""
        return self.ends.total() - self.ends["open"]

    @property
    def total(self) -> Period:
        """The sum of all periods."""
        total = Period()
        for period in self._periods.values():
            total.merge(period)
        return total

    @property
    def modules(self) -> list[tuple[str, Group]]:
        """The modules with their requests, the most requested first; the front page's name is empty."""
        return sorted(self._modules.items(), key=lambda item: (-item[1].requests, item[0]))

    @property
    def statuses(self) -> list[tuple[str, Group]]:
        """The statuses in ascending order with their requests; requests without a response last, as 'none'."""
        ordered = sorted(self._statuses.items(), key=lambda item: item[0] or 1000)
        return [("none" if status is None else str(status), group) for status, group in ordered]

    def periods(self, width: Width | None = None) -> list[tuple[datetime, Period]]:
        """Return the periods that have requests, in order, each with its start.

        width: the minimum width of the periods.
        """
        is_wider = width is not None and WIDTHS.index(width) > WIDTHS.index(self.width)
        periods = _widened(self._periods, width) if width is not None and is_wider else self._periods
        return [(datetime.fromtimestamp(begin, LOCAL_ZONE), periods[begin]) for begin in sorted(periods)]

    def slowest(self, limit: int) -> list[tuple[str, StopSummary]]:
        """Return the stops with the longest mean response time, slowest first, responses from memory excluded.

        Stops with fewer than MIN_TIMED_RESPONSES are last.
        """
        timed = [(code, stop) for code, stop in self.stops.items() if stop.timed]
        order = sorted(timed, key=lambda item: (item[1].timed < MIN_TIMED_RESPONSES, -item[1].mean_ms, item[0]))
        return order[:limit]


def _count_phases(request: Request, period: Period) -> float:
    """Count the phases of a request; return the sum of all except receive, which depends on the client."""
    phases, by_phase = request.phases, period.phases
    time = 0.0
    if phases.receive is not None:
        by_phase["receive"].add(phases.receive)
    if phases.parse is not None:
        by_phase["parse"].add(phases.parse)
        time += phases.parse
    if phases.lookup is not None:
        by_phase["lookup"].add(phases.lookup)
        time += phases.lookup
    if phases.wait is not None:
        by_phase["wait"].add(phases.wait)
        time += phases.wait
    if phases.render is not None:
        by_phase["render"].add(phases.render)
        time += phases.render
    if phases.send is not None:
        by_phase["send"].add(phases.send)
        time += phases.send
    return time


def _status_class(status: int | None) -> StatusClass:
    if status is None:
        return "none"
    hundreds = status // 100
    return STATUS_CLASSES[hundreds - 2] if 2 <= hundreds <= 5 else "other"


def _begin(second: int, width: Width) -> int:
    """Return the start of the period that contains a full minute or hour.

    second: the start of the minute or hour. Both are epoch seconds, because a Dutch hour occurs twice in October.
    """
    if width in ("minute", "hour"):
        return second if width == "minute" else second // 3600 * 3600
    begin = datetime.fromtimestamp(second, LOCAL_ZONE).replace(hour=0, minute=0, fold=0)
    if width != "day":
        begin = begin.replace(day=1)
    if width == "year":
        begin = begin.replace(month=1)
    return int(begin.timestamp())


def _widened(periods: dict[int, Period], width: Width) -> dict[int, Period]:
    widened: defaultdict[int, Period] = defaultdict(Period)
    for begin, period in periods.items():
        widened[_begin(begin, width)].merge(period)
    return dict(widened)
