"""Figures for Prometheus: counted from the events that the logs are written from, or read when they are asked for.

The library's own counters take ten times as long to count a request as all the rest of a cached answer. So what
requests are counted in are plain numbers, and the library writes them out.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import get_args

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.logger import LogEvent

from govi_server.kv55.gateway import GatewayEvent
from govi_server.operations.components import KINDS, Components
from govi_server.operations.health import LOOKED_AT, HealthMonitor, HealthStatus
from govi_server.operations.history import RecentHistory
from govi_server.statistics.batches import Batch, StatisticsBatcher
from govi_server.statistics.records import PHASES

# Seconds: a hit takes fractions of a millisecond, a gateway up to its ten seconds.
_BUCKETS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    13.0,
)
_FEED_STATES = ("UP", "RECOVERING", "DOWN", "UNKNOWN")
_BREAKER_STATES = ("closed", "half-open", "open")


class Latencies:
    """How many of some times were how long."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS) + 1)
        self._sum = 0.0

    def add(self, times: Sequence[float]) -> None:
        """Count times, in seconds."""
        if not times:
            return
        self._sum += sum(times)
        ordered, counted = sorted(times), 0
        for bucket, most in enumerate(_BUCKETS):
            if counted == len(ordered):  # mostly soon: of hits all are in the first
                return
            below = bisect_right(ordered, most, counted)
            self._counts[bucket] += below - counted
            counted = below
        self._counts[-1] += len(ordered) - counted

    def add_to(self, family: HistogramMetricFamily, *labels: str) -> None:
        """Tell them, each bucket with all that are below it."""
        names = (*map(str, _BUCKETS), "+Inf")
        family.add_metric(labels, list(zip(names, accumulate(self._counts), strict=True)), self._sum)


class Metrics(Collector):
    """Observes the log, counts, and reads the parts of the program when somebody asks. Provides a registry."""

    def __init__(self, parts: Components, judge: HealthMonitor, tally: StatisticsBatcher) -> None:
        self._parts = parts
        self._judge = judge
        self._tally = tally
        tally.listen(self._count)
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._bytes = 0
        self._phases: defaultdict[str, Latencies] = defaultdict(Latencies)
        self._ended: Counter[str] = Counter()
        self._taken: defaultdict[str, Latencies] = defaultdict(Latencies)
        self._answered: defaultdict[str, Latencies] = defaultdict(Latencies)
        self.registry = registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def __call__(self, event: LogEvent) -> None:
        """Count an event of the log."""
        if isinstance(flight := event.get("flight"), GatewayEvent):
            (self._taken if flight.name == "taken" else self._answered)[flight.module].add([flight.seconds])

    def _count(self, bulk: Batch) -> None:
        for connection in bulk.connections:
            if connection.end != "open":
                self._ended[connection.end] += 1
        requests = [request for connection in bulk.connections for request in connection.requests]
        for (path, status, cache), n in bulk.asked.items():
            self._requests[self._module(path), "none" if status is None else str(status), cache] += n
        self._bytes += sum([request.bytes for request in requests])
        times = [(r.receive, r.parse, r.lookup, r.wait, r.render, r.send) for r in requests]
        for phase, of_phase in zip(PHASES, zip(*times, strict=True), strict=False):  # nothing, if there is no request
            self._phases[phase].add([seconds for seconds in of_phase if seconds is not None])

    def _module(self, path: str | None) -> str:
        """Tell which module a path asks; whatever else clients make up is one."""
        segment = (path or "/").lstrip("/").partition("/")[0]
        return segment if segment in self._parts.modules else "other"

    def collect(self) -> Iterator[Metric]:
        """Tell what was counted, and read what is a state and no event."""
        self._tally.flush()
        yield from self._counted()
        parts = self._parts
        verdict = self._judge.health().word
        yield _states("govi_verdict", "1 for what the status page says.", "verdict", get_args(HealthStatus), verdict)
        yield _gauge("govi_connections", "Connections that are open.", len(parts.server.connections))
        yield _gauge(
            "govi_connections_limit", "Connections that may be open at once.", parts.server.access.limits.connections
        )
        yield _gauge("govi_streams", "Connections that listen for events.", parts.server.streams)
        yield _gauge("govi_accepting", "1 while connections are accepted.", not parts.server.accepting.paused)
        incidents = CounterMetricFamily(
            "govi_incidents", "What went wrong, by where and what.", labels=("where", "kind")
        )
        for where, counted in parts.incidents():
            # An alert sees a figure that grows, but not one that appears.
            kinds = dict.fromkeys(KINDS["gateway" if where in parts.gateways else where], 0)
            for kind, count in {**kinds, **counted}.items():
                incidents.add_metric((where, kind), count)
        yield incidents
        yield from self._caches()
        if parts.feed is not None:
            yield from self._feed()

    def _counted(self) -> Iterator[Metric]:
        """Tell what was counted."""
        requests = CounterMetricFamily(
            "govi_requests", "Requests by what they asked and got.", labels=("module", "status", "cache")
        )
        for labels, n in self._requests.items():
            requests.add_metric(labels, n)
        yield requests
        yield CounterMetricFamily("govi_response_bytes", "Bytes of answers' bodies.", self._bytes)
        ended = CounterMetricFamily("govi_connections_ended", "Connections by who ended them.", labels=("end",))
        for end, n in self._ended.items():
            ended.add_metric((end,), n)
        yield ended
        for name, text, label, latencies in (
            ("govi_request_phase_seconds", "How long requests were in a phase.", "phase", self._phases),
            (
                "govi_gateway_acknowledgement_seconds",
                "From a question to its acknowledgement.",
                "module",
                self._taken,
            ),
            (
                "govi_gateway_callback_seconds",
                "From a question to its answer, late ones too.",
                "module",
                self._answered,
            ),
        ):
            family = HistogramMetricFamily(name, text, labels=(label,))
            for value, counted in latencies.items():
                counted.add_to(family, value)
            yield family

    def _caches(self) -> Iterator[Metric]:
        labels = ("module",)
        entries = GaugeMetricFamily("govi_cache_entries", "Boards that are kept.", labels=labels)
        size = GaugeMetricFamily("govi_cache_bytes", "Bytes of documents that are kept.", labels=labels)
        evicted = CounterMetricFamily("govi_cache_evictions", "Boards that made room for others.", labels=labels)
        flights = GaugeMetricFamily("govi_flights", "Questions that are on their way.", labels=labels)
        waiting = GaugeMetricFamily("govi_flights_waiting", "Requests that wait for them.", labels=labels)
        breaker = GaugeMetricFamily("govi_breaker_state", "1 for the state it is in.", labels=("module", "state"))
        parts = self._parts
        for name, source in parts.gateways.items():
            entries.add_metric((name,), source.cache.entries)
            size.add_metric((name,), source.cache.bytes)
            evicted.add_metric((name,), source.cache.evicted)
            flights.add_metric((name,), len(source.cache.pending))
            waiting.add_metric((name,), sum(source.cache.pending.values()))
            for state in _BREAKER_STATES:
                breaker.add_metric((name, state), state == source.breaker.state)
        if parts.feed is not None:  # /kv55 and OVapi's paths keep what they make in one place
            boards = parts.feed.boards
            entries.add_metric(("feed",), boards.entries)
            size.add_metric(("feed",), boards.bytes)
            evicted.add_metric(("feed",), boards.evicted)
        yield from (entries, size, evicted, flights, waiting, breaker)

    def _feed(self) -> Iterator[Metric]:
        feed = self._parts.feed
        assert feed is not None
        now = feed.clock.seconds()
        yield CounterMetricFamily("govi_feed_records", "Records that came.", feed.n_records)
        yield CounterMetricFamily("govi_feed_reconnects", "Connections made after the first.", feed.reconnects)
        yield _states("govi_feed_state", "1 for the state it is in.", "state", _FEED_STATES, feed.state)
        age = GaugeMetricFamily("govi_feed_age_seconds", "Since a data owner was heard of.", labels=("owner",))
        for owner, heard in feed.passtimes.last_heard.items():
            age.add_metric((owner,), max(now - heard, 0.0))
        yield age
        yield _gauge("govi_feed_passes", "Live passes that are kept.", feed.passtimes.n_passtimes)
        yield _gauge("govi_feed_planned_passes", "Planned passes that are kept.", feed.timetable.n_planned)
        yield _gauge("govi_feed_messages", "General messages that are kept.", feed.passtimes.n_messages)


class FailingStops(Collector):
    """Tells how many stops had no answer of late: a single one may be made up, several are not."""

    def __init__(self, hour: RecentHistory) -> None:
        self._hour = hour

    def collect(self) -> Iterator[Metric]:
        """Count them."""
        text = f"Stops with a question that failed in the last {LOOKED_AT} minutes."
        stops = GaugeMetricFamily("govi_failing_stops", text, labels=("module",))
        for name, failing in self._hour.failing(LOOKED_AT).items():
            stops.add_metric((name,), len(failing))
        yield stops


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value)


def _states(name: str, text: str, label: str, states: Iterable[str], current: str) -> GaugeMetricFamily:
    metric = GaugeMetricFamily(name, text, labels=(label,))
    for state in states:
        metric.add_metric((state,), state == current)
    return metric
