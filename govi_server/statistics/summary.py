"""What statistics logs say in figures: their lines are read one by one, and only counts and sketches are kept.

The figures take the same memory for any amount of log, and are the same in whatever order its lines come. Times are
in milliseconds, as in the log. Pure.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from math import ceil
from typing import Annotated, Literal, get_args

import msgspec
from ddsketch.ddsketch import BaseDDSketch
from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import DenseStore
from msgspec import Meta, Struct

from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.statistics.paths import stop_of
from govi_server.statistics.records import CacheResult, End, Phase

Width = Literal["minute", "hour", "day", "month", "year"]
WIDTHS: tuple[Width, ...] = get_args(Width)

ACCURACY = 0.01
"""How far a quantile may be from the true one, as a fraction of it."""
SHORTEST = 0.001
"""What the log writes down at least, in milliseconds: what is shorter counts as nothing."""
LONGEST = 1e9
"""Milliseconds, 11 days: a line that says a phase took longer is broken. Sketches are bounded by this."""
LAST = 1 << 33
"""Epoch seconds, in 2242: a line from after that, or from before 1970, is broken. Periods are bounded by this."""

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
MOMENT_FORMATS: dict[Width, str] = {
    "minute": "%Y-%m-%d %H:%M %Z",
    "hour": "%Y-%m-%d %H:%M %Z",
    "day": "%a %Y-%m-%d",
    "month": "%Y-%m",
    "year": "%Y",
}

MOST_MINUTES = 2 * 3600
"""Seconds from the first period to the last below which periods are minutes."""
MOST_PERIODS = 31 * 24
"""When there would be more, they become longer: days in place of hours, then months, then years."""
MOST_STOPS = 100_000
"""Stops with figures of their own, more than the country has; the others are counted together."""
MOST_SEGMENTS = 1000
"""First segments of paths with figures of their own, most of which are a stranger's guesses."""
MOST_OF_SEGMENT = 40
"""Characters of a path's first segment that are kept."""

FEW = 4
"""Answers that are too few to call a stop slow."""

PHASES: tuple[Phase, ...] = get_args(Phase)
ENDS: tuple[End, ...] = get_args(End)
CACHE_RESULTS: tuple[CacheResult, ...] = get_args(CacheResult)
FROM_MEMORY: tuple[CacheResult, ...] = ("hit", "stale")
WAITED: tuple[CacheResult, ...] = ("joined", "miss")

StatusClass = Literal["2xx", "3xx", "4xx", "5xx", "other", "none"]
STATUS_CLASSES: tuple[StatusClass, ...] = get_args(StatusClass)

_Time = Annotated[float, Meta(le=LONGEST)]
_Count = Annotated[int, Meta(ge=0, lt=1 << 53)]


class Phases(Struct, gc=False):
    """The phases of a request, as in a line; None for one that it did not reach."""

    receive: _Time | None = None
    parse: _Time | None = None
    lookup: _Time | None = None
    wait: _Time | None = None
    render: _Time | None = None
    send: _Time | None = None


class Request(Struct):
    """A request, as in a line."""

    status: Annotated[int, Meta(ge=100, le=999)] | None
    cache: CacheResult
    phases: Phases
    path: str | None = None
    bytes: _Count = 0


class Line(Struct):
    """A line of the log. Keys that are not here are passed over: newer versions may write some."""

    time: Annotated[datetime, Meta(tz=True)]
    end: End
    requests: list[Request]


_read = msgspec.json.Decoder(Line).decode
_MAPPING = LogarithmicMapping(ACCURACY)


class QuantileSketch:
    """Times: how many, their quantiles within ACCURACY, and exactly the longest. Takes a few kB."""

    __slots__ = ("_sketch", "_store", "longest")

    def __init__(self) -> None:
        self._store = DenseStore()
        self._sketch = BaseDDSketch(_MAPPING, self._store, DenseStore(), 0.0)
        self.longest = 0.0

    def add(self, time: float) -> None:
        """Count a time. A negative one, of a clock that was set back, counts as nothing."""
        self._sketch.add(time if time >= SHORTEST else 0.0)
        if time > self.longest:
            self.longest = time

    def merge(self, other: "QuantileSketch") -> None:
        """Count all that the other has counted."""
        self._sketch.merge(other._sketch)
        self.longest = max(self.longest, other.longest)

    @property
    def count(self) -> int:
        """How many times there are."""
        return int(self._sketch.count)

    def quantile(self, fraction: float) -> float | None:
        """Tell the time that this fraction (0 to 1) of all is not longer than; None when there is none."""
        count = self.count
        if not count:
            return None
        # The sketch takes the rank below, which of a few times is far from what a p99 says: the one above is asked
        # for, and half a rank more, which cannot be rounded to the one before.
        rank = min(ceil(fraction * count) - 0.5, count - 1)
        value = self._sketch.get_quantile_value(rank / (count - 1) if rank > 0 else 0.0)
        return None if value is None else min(value, self.longest)

    def within(self, bounds: list[float]) -> list[int]:
        """Count the times up to each of the bounds, which ascend, and over the bound before it.

        One more count follows: of those over the last. A time within ACCURACY of a bound may be on either side.
        """
        counts = [0] * (len(bounds) + 1)
        counts[0] = self.count - int(self._store.count)  # those that count as nothing
        index = 0
        for key, number in enumerate(self._store.bins, self._store.offset):
            if number:
                while index < len(bounds) and _MAPPING.value(key) > bounds[index]:
                    index += 1
                counts[index] += int(number)
        return counts


@dataclass(slots=True)
class Group:
    """Requests that have something in common."""

    requests: int = 0
    failed: int = 0
    """Those answered with 5xx, or with 406, which is the 13 seconds' end."""
    answers: QuantileSketch = field(default_factory=QuantileSketch)
    """How long the answers took, from the end of the request's head to its last byte's way out."""

    def add(self, failed: bool, time: float | None) -> None:
        """Count a request; time: that of its answer, if it had one."""
        self.requests += 1
        self.failed += failed
        if time is not None:
            self.answers.add(time)

    def merge(self, other: "Group") -> None:
        """Count all that the other has counted."""
        self.requests += other.requests
        self.failed += other.failed
        self.answers.merge(other.answers)


@dataclass(slots=True)
class Period:
    """An hour, a day, a month or a year, in Dutch time."""

    caches: defaultdict[CacheResult, Group] = field(default_factory=lambda: defaultdict(Group))
    phases: defaultdict[Phase, QuantileSketch] = field(default_factory=lambda: defaultdict(QuantileSketch))
    classes: Counter[StatusClass] = field(default_factory=Counter)

    def merge(self, other: "Period") -> None:
        """Count all that the other has counted."""
        for cache, group in other.caches.items():
            self.caches[cache].merge(group)
        for phase, times in other.phases.items():
            self.phases[phase].merge(times)
        self.classes.update(other.classes)

    @property
    def whole(self) -> Group:
        """All its requests."""
        return merged(self.caches.values())

    @property
    def memory_ratio(self) -> float | None:
        """The fraction of its questions to the cache that memory answered; None when there were none."""
        asked = sum(group.requests for cache, group in self.caches.items() if cache != "none")
        held = sum(group.requests for cache, group in self.caches.items() if cache in FROM_MEMORY)
        return held / asked if asked else None


@dataclass(slots=True)
class Stop:
    """What was asked about a stop. Times are in microseconds: whole numbers add up the same in any order."""

    requests: int = 0
    failed: int = 0
    timed: int = 0
    """Answers that did not come from memory; the times are those of these."""
    total: int = 0
    longest: int = 0

    @property
    def mean(self) -> float:
        """Milliseconds, of the answers that did not come from memory."""
        return self.total / self.timed / 1000 if self.timed else 0.0


def merged(groups: Iterable[Group]) -> Group:
    """Make one group of several."""
    whole = Group()
    for group in groups:
        whole.merge(group)
    return whole


class LogSummary:
    """Reads lines and counts. since, until: moments from which and before which lines count, if given."""

    def __init__(self, since: datetime | None = None, until: datetime | None = None) -> None:
        self._since = since.timestamp() if since else 0.0
        self._until = until.timestamp() if until else float(LAST)
        self.lines = 0
        """Those that count."""
        self.outside = 0
        """Lines from before since or after until."""
        self.bad = 0
        """Broken lines."""
        self.first: float | None = None
        """Epoch seconds of the earliest line that counts."""
        self.last: float | None = None
        self.ends: Counter[End] = Counter()
        """Lines by end: one a closed connection, and reports of open ones."""
        self.bytes = 0
        """Of all bodies."""
        self.statuses: defaultdict[int | None, Group] = defaultdict(Group)
        """By status; None is a request without an answer."""
        self.stops: dict[str, Stop] = {}
        self.other_stops = Stop()
        """Those that came when there were MOST_STOPS already."""
        self.width: Width = "minute"
        self._periods: dict[int, Period] = {}  # by the epoch second of their begin
        self._by_slot: dict[int, Period] = {}  # epoch minutes or hours, as long as they are in these periods
        self._segments: dict[str, Group] = {}
        self._answering: set[str] = set()
        self._nowhere = Group()

    def read(self, line: bytes) -> None:
        """Count a line. A broken one is counted as such."""
        try:
            connection = _read(line)
            moment = connection.time.timestamp()
        except (msgspec.MsgspecError, UnicodeError, ValueError, OverflowError, RecursionError):
            self.bad += 1
            return
        if not 0 <= moment < LAST:
            self.bad += 1
        elif not self._since <= moment < self._until:
            self.outside += 1
        else:
            self._count(connection, moment)

    def _count(self, connection: Line, moment: float) -> None:
        self.lines += 1
        self.ends[connection.end] += 1
        if self.first is None or moment < self.first:
            self.first = moment
        if self.last is None or moment > self.last:
            self.last = moment
        if connection.requests:
            period = self._by_slot.get(int(moment // self._slot)) or self._period(moment)
            for request in connection.requests:
                self._count_request(request, period)

    def _count_request(self, request: Request, period: Period) -> None:
        phases, status, cache = request.phases, request.status, request.cache
        by_phase = period.phases
        time = 0.0
        if phases.receive is not None:  # not part of the answer's time: it is the client's own
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
        # A client that left without an answer says nothing about how long answers take.
        answer = None if status is None else time
        failed = status is not None and (status >= 500 or status == 406)
        self.bytes += request.bytes
        period.caches[cache].add(failed, answer)
        period.classes[_status_class(status)] += 1
        self.statuses[status].add(failed, answer)
        segment, code = parts(request.path)
        self._group(segment, status).add(failed, answer)
        if code is not None:
            stop = self._stop(code)
            stop.requests += 1
            stop.failed += failed
            if answer is not None and cache not in FROM_MEMORY:
                microseconds = max(0, round(answer * 1000))
                stop.timed += 1
                stop.total += microseconds
                stop.longest = max(stop.longest, microseconds)

    def _stop(self, code: str) -> Stop:
        stop = self.stops.get(code)
        if stop is None:
            if len(self.stops) >= MOST_STOPS:
                return self.other_stops
            stop = self.stops[code] = Stop()
        return stop

    def _group(self, segment: str | None, status: int | None) -> Group:
        if segment is None:
            return self._nowhere
        if status is not None and status < 400:
            # Modules are few, so those that answer always find room; guesses have what is left.
            if segment not in self._answering and len(self._answering) < MOST_SEGMENTS:
                self._answering.add(segment)
                return self._segments.setdefault(segment, Group())
        elif segment not in self._segments and len(self._segments) < MOST_SEGMENTS:
            return self._segments.setdefault(segment, Group())
        return self._segments.get(segment, self._nowhere)

    @property
    def _slot(self) -> int:
        """The seconds that are looked up together."""
        return 60 if self.width == "minute" else 3600

    def _period(self, moment: float) -> Period:
        begin = _begin(int(moment // self._slot) * self._slot, self.width)
        period = self._periods.get(begin)
        if period is None:
            period = self._periods[begin] = Period()
            while self._are_too_many():
                self.width = WIDTHS[WIDTHS.index(self.width) + 1]
                self._periods = _wider(self._periods, self.width)
                self._by_slot.clear()
            period = self._periods[_begin(begin, self.width)]
        if len(self._by_slot) >= MOST_PERIODS:
            self._by_slot.clear()
        self._by_slot[int(moment // self._slot)] = period
        return period

    def _are_too_many(self) -> bool:
        """Tell whether periods must become longer."""
        if self.width == "minute":
            return max(self._periods) - min(self._periods) >= MOST_MINUTES
        return len(self._periods) > MOST_PERIODS and self.width != WIDTHS[-1]

    @property
    def connections(self) -> int:
        """Connections that were closed: a report of one that goes on is none of its own."""
        return self.ends.total() - self.ends["open"]

    @property
    def whole(self) -> Period:
        """The whole time."""
        whole = Period()
        for period in self._periods.values():
            whole.merge(period)
        return whole

    @property
    def modules(self) -> dict[str, Group]:
        """By first segment of the path, those that gave any answer below 400; the most asked first."""
        found = {name: group for name, group in self._segments.items() if name in self._answering}
        return dict(sorted(found.items(), key=lambda item: (-item[1].requests, item[0])))

    @property
    def elsewhere(self) -> Group:
        """Requests to no module, and those that could not be read."""
        return merged(
            [self._nowhere, *(group for name, group in self._segments.items() if name not in self._answering)]
        )

    def periods(self, width: Width | None = None) -> list[tuple[datetime, Period]]:
        """Tell the periods that anything was asked in, in order; width: if not as narrow as is kept."""
        wider = width is not None and WIDTHS.index(width) > WIDTHS.index(self.width)
        periods = _wider(self._periods, width) if width is not None and wider else self._periods
        return [(datetime.fromtimestamp(begin, LOCAL_ZONE), periods[begin]) for begin in sorted(periods)]

    def slowest(self, most: int) -> list[tuple[str, Stop]]:
        """Tell the stops whose answers took longest on average, but for those from memory.

        Those with FEW such answers or fewer come last: one accident does not make a slow stop.
        """
        timed = [(code, stop) for code, stop in self.stops.items() if stop.timed]
        return sorted(timed, key=lambda item: (item[1].timed <= FEW, -item[1].mean, item[0]))[:most]


@lru_cache(maxsize=1 << 16)
def parts(path: str | None) -> tuple[str | None, str | None]:
    """Take a path's first segment, and the TimingPointCode that it asks about; None for what there is not."""
    if path is None or not path.startswith("/"):
        return None, None
    return path.partition("?")[0].split("/", 2)[1][:MOST_OF_SEGMENT], stop_of(path)


def _status_class(status: int | None) -> StatusClass:
    if status is None:
        return "none"
    hundreds = status // 100
    return STATUS_CLASSES[hundreds - 2] if 2 <= hundreds <= 5 else "other"


def _begin(second: int, width: Width) -> int:
    """Tell when the period of a full minute or hour began.

    Epoch seconds, because a Dutch hour comes twice in October.
    """
    if width in ("minute", "hour"):
        return second if width == "minute" else second // 3600 * 3600
    begin = datetime.fromtimestamp(second, LOCAL_ZONE).replace(hour=0, minute=0, fold=0)
    if width != "day":
        begin = begin.replace(day=1)
    if width == "year":
        begin = begin.replace(month=1)
    return int(begin.timestamp())


def _wider(periods: dict[int, Period], width: Width) -> dict[int, Period]:
    wider: defaultdict[int, Period] = defaultdict(Period)
    for begin, period in periods.items():
        wider[_begin(begin, width)].merge(period)
    return dict(wider)


MOST_OF_LINE = 16 << 20
"""Bytes of a line: those of the log have at most a thousand requests, which is far less."""


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut text into its lines, without the empty ones. One that is longer than MOST_OF_LINE comes cut short."""
    rest = b""
    skips = False
    for chunk in chunks:
        *whole, last = chunk.split(b"\n")
        if whole:
            if not skips and (rest + whole[0]).strip():
                yield rest + whole[0]
            yield from filter(bytes.strip, whole[1:])
            rest, skips = b"", False
        if not skips:
            rest += last
            if len(rest) > MOST_OF_LINE:
                yield rest[:MOST_OF_LINE]
                rest, skips = b"", True
    if rest.strip():
        yield rest


_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_moment(text: str, now: datetime) -> datetime:
    """Read a moment: ISO, in Dutch time when it has no offset, a date being its midnight; or 2h, 3d and so on ago.

    Raises ValueError.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=LOCAL_ZONE)
        moment.timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no moment: 2026-11-22, 2026-11-22T15:30, 2h, 3d") from None
    return moment


def statuses(figures: LogSummary) -> list[tuple[str, Group]]:
    """Tell the groups by status in order, requests without an answer last."""
    found = sorted(figures.statuses.items(), key=lambda item: item[0] or 1000)
    return [("none" if status is None else str(status), group) for status, group in found]


def milliseconds(time: float | None) -> str:
    """Write a time with three digits or more."""
    if time is None:
        return "-"
    return (
        f"{time:.3f}"
        if time < 1
        else f"{time:.2f}"
        if time < 10
        else f"{time:,.1f}"
        if time < 100
        else f"{time:,.0f}"
    )


def share(part: int, whole: int) -> str:
    """Write a part of a whole in per cent: never as 100 or 0 what is not quite that."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    return f"{percent:.1f}%" if part in (0, whole) else f"{min(99.9, max(0.1, percent)):.1f}%"
