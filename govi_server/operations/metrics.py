"""Metrics for Prometheus, counted from the events of the logs or read when they are scraped.

Counting a request with the counters of prometheus_client takes ten times as long as everything else in a cached
response. So requests are counted in plain integers, which the library only formats.
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
from govi_server.kv78turbo.feed import Feed
from govi_server.operations.components import INCIDENT_KINDS, Components
from govi_server.operations.health import WINDOW_MINUTES, HealthMonitor, HealthStatus
from govi_server.operations.history import RecentHistory
from govi_server.planning.service import PlanningService
from govi_server.runtime.text import printable
from govi_server.runtime.turn_watch import TurnWatch
from govi_server.runtime.version import VERSION
from govi_server.sharing.status import ShareResult, SharingStatus
from govi_server.statistics.batches import Batch, StatisticsBatcher
from govi_server.statistics.records import CacheResult
from govi_server.workers.pool import WorkerPool

_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 13.0,
)  # fmt: skip
"""Upper bounds in seconds: a hit needs fractions of a millisecond, a gateway up to ten seconds."""

_FEED_STATES = ("UP", "RECOVERING", "DOWN", "UNKNOWN")
_BREAKER_STATES = ("closed", "half-open", "open")


class Latencies:
    """A histogram of times."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS) + 1)
        self._sum = 0.0

    def add(self, times: Sequence[float]) -> None:
        """Count times in seconds."""
        if not times:
            return
        self._sum += sum(times)
        if max(times) <= _BUCKETS[0]:  # usual for all phases of hits
            self._counts[0] += len(times)
            return
        ordered, counted = sorted(times), 0
        for bucket, bound in enumerate(_BUCKETS):
            if counted == len(ordered):
                return
            below = bisect_right(ordered, bound, counted)
            self._counts[bucket] += below - counted
            counted = below
        self._counts[-1] += len(ordered) - counted

    def add_to(self, family: HistogramMetricFamily, *labels: str) -> None:
        """Add the histogram to a metric, with cumulative buckets."""
        names = (*map(str, _BUCKETS), "+Inf")
        family.add_metric(labels, list(zip(names, accumulate(self._counts), strict=True)), self._sum)


class Metrics(Collector):
    """Counts from the log, and reads the state of the components when scraped. registry: contains all metrics."""

    def __init__(self, components: Components, monitor: HealthMonitor, batcher: StatisticsBatcher) -> None:
        self._components = components
        self._monitor = monitor
        self._batcher = batcher
        batcher.listen(self._count)
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._bytes = 0
        self._phases: defaultdict[str, Latencies] = defaultdict(Latencies)
        self._ends: Counter[str] = Counter()
        self._acknowledgements: defaultdict[str, Latencies] = defaultdict(Latencies)
        self._callbacks: defaultdict[str, Latencies] = defaultdict(Latencies)
        self.registry = registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def __call__(self, event: LogEvent) -> None:
        """Observe an event of the log."""
        if isinstance(gateway_event := event.get("flight"), GatewayEvent):
            latencies = self._acknowledgements if gateway_event.name == "taken" else self._callbacks
            latencies[gateway_event.module].add([gateway_event.seconds])

    def _count(self, batch: Batch) -> None:
        for connection in batch.connections:
            if connection.end != "open":
                self._ends[connection.end] += 1
        requests = [request for connection in batch.connections for request in connection.requests]
        counts: dict[tuple[str, int | None, CacheResult], int] = {}  # far fewer than exchanges
        for exchange, n in batch.exchanges.items():
            # A request that was rejected before its path was known counts as one of the front page.
            name = exchange.module if exchange.module is not None else "other" if exchange.path else ""
            key = name, exchange.status, exchange.cache
            counts[key] = counts.get(key, 0) + n
            self._bytes += exchange.bytes * n
        for (name, status, cache), n in counts.items():
            self._requests[name, "none" if status is None else str(status), cache] += n
        if requests:  # each phase written out, which takes half the time of transposing them
            phases = self._phases
            phases["receive"].add([seconds for r in requests if (seconds := r.receive) is not None])
            phases["parse"].add([seconds for r in requests if (seconds := r.parse) is not None])
            phases["lookup"].add([seconds for r in requests if (seconds := r.lookup) is not None])
            phases["wait"].add([seconds for r in requests if (seconds := r.wait) is not None])
            phases["render"].add([seconds for r in requests if (seconds := r.render) is not None])
            phases["send"].add([seconds for r in requests if (seconds := r.send) is not None])

    def collect(self) -> Iterator[Metric]:
        """Return all metrics."""
        self._batcher.flush()
        yield from self._requests_metrics()
        yield from self._phase_metrics()
        yield from self._server_metrics()
        if self._components.turns is not None:
            yield from self._turn_metrics(self._components.turns)
        if self._components.workers is not None:
            yield from self._worker_metrics(self._components.workers)
        yield self._incidents()
        yield from self._gateway_metrics()
        if self._components.feed is not None:
            yield from self._feed_metrics(self._components.feed)
        if self._components.planning is not None:
            yield from self._planning_metrics(self._components.planning)
        if self._components.sharing is not None:
            yield from self._sharing_metrics(self._components.sharing)

    def _server_metrics(self) -> Iterator[Metric]:
        figures, status = self._components.figures, self._monitor.health().status
        build = GaugeMetricFamily("govi_build_info", "1, with the version of the program.", labels=["version"])
        build.add_metric([VERSION], 1)
        yield build
        yield _states("govi_verdict", "1 for the current health status.", "verdict", get_args(HealthStatus), status)
        yield _gauge("govi_connections", "Open connections.", figures.connections)
        yield _gauge("govi_connections_limit", "Maximum number of open connections.", figures.limit)
        yield _gauge(
            "govi_unfinished_request_bytes", "Bytes of unfinished requests of all ports.", figures.unfinished_bytes
        )
        yield _gauge("govi_streams", "Connections with a stream of server-sent events.", figures.streams)
        yield _gauge("govi_accepting", "1 while connections are accepted.", not figures.paused)

    def _worker_metrics(self, workers: WorkerPool) -> Iterator[Metric]:
        labels = ("worker",)
        serving = GaugeMetricFamily("govi_worker_serving", "1 while the worker serves clients.", labels=labels)
        restarts = CounterMetricFamily("govi_worker_restarts", "Processes after the worker's first.", labels=labels)
        memory = GaugeMetricFamily("govi_worker_resident_memory_bytes", "Resident memory.", labels=labels)
        used = CounterMetricFamily("govi_worker_cpu_seconds", "Processor time of the process.", labels=labels)
        for worker in workers.workers:
            name = (f"{worker.number}",)
            serving.add_metric(name, worker.figures is not None)
            restarts.add_metric(name, worker.restarts)
            if worker.figures is not None:
                memory.add_metric(name, worker.figures.memory_bytes)
                used.add_metric(name, worker.figures.processor_seconds)
        yield from (serving, restarts, memory, used)

    def _turn_metrics(self, turns: TurnWatch) -> Iterator[Metric]:
        text = "Processor time of a turn of the reactor, during which all clients wait."
        yield HistogramMetricFamily("govi_turn_seconds", text, buckets=turns.histogram, sum_value=turns.seconds)
        text = "Turns of 100 ms or more of processor time; the log names their work."
        yield CounterMetricFamily("govi_slow_turns", text, turns.slow_turns)

    def _incidents(self) -> Metric:
        metric = CounterMetricFamily("govi_incidents", "Incidents by component and kind.", labels=("where", "kind"))
        for name, counts in self._components.incidents():
            # Including 0: alerts detect a counter that increases, but not a new one.
            kinds = dict.fromkeys(INCIDENT_KINDS["gateway" if name in self._components.gateways else name], 0)
            for kind, count in {**kinds, **counts}.items():
                metric.add_metric((name, kind), count)
        return metric

    def _requests_metrics(self) -> Iterator[Metric]:
        labels = ("module", "status", "cache")
        requests = CounterMetricFamily("govi_requests", "Requests by module, status and cache result.", labels=labels)
        for values, n in self._requests.items():
            requests.add_metric(values, n)
        yield requests
        yield CounterMetricFamily("govi_response_bytes", "Bytes of response bodies.", self._bytes)
        ends = CounterMetricFamily("govi_connections_ended", "Closed connections by reason.", labels=("end",))
        for end, n in self._ends.items():
            ends.add_metric((end,), n)
        yield ends

    def _phase_metrics(self) -> Iterator[Metric]:
        for name, text, label, latencies in (
            ("govi_request_phase_seconds", "Time of requests in a phase.", "phase", self._phases),
            (
                "govi_gateway_acknowledgement_seconds",
                "Time from a request to the gateway to its acknowledgement.",
                "module",
                self._acknowledgements,
            ),
            (
                "govi_gateway_callback_seconds",
                "Time from a request to the gateway to its callback, including late ones.",
                "module",
                self._callbacks,
            ),
        ):
            family = HistogramMetricFamily(name, text, labels=(label,))
            for value, histogram in latencies.items():
                histogram.add_to(family, value)
            yield family

    def _gateway_metrics(self) -> Iterator[Metric]:
        labels = ("module",)
        entries = GaugeMetricFamily("govi_cache_entries", "Cached boards.", labels=labels)
        size = GaugeMetricFamily("govi_cache_bytes", "Bytes of cached boards and documents.", labels=labels)
        evicted = CounterMetricFamily("govi_cache_evictions", "Boards evicted from the cache.", labels=labels)
        flights = GaugeMetricFamily("govi_flights", "Gateway requests in flight.", labels=labels)
        waiting = GaugeMetricFamily(
            "govi_flights_waiting", "Client requests that wait for a gateway request.", labels=labels
        )
        breaker = GaugeMetricFamily(
            "govi_breaker_state", "1 for the current state of the circuit breaker.", labels=("module", "state")
        )
        for name, gateway in self._components.gateways.items():
            entries.add_metric((name,), gateway.cache.entries)
            size.add_metric((name,), gateway.cache.bytes)
            evicted.add_metric((name,), gateway.cache.evicted)
            flights.add_metric((name,), len(gateway.cache.pending))
            waiting.add_metric((name,), sum(gateway.cache.pending.values()))
            for state in _BREAKER_STATES:
                breaker.add_metric((name, state), state == gateway.breaker.state)
        if self._components.feed is not None:  # /kv55 and the OVapi paths share a cache of documents
            boards = self._components.feed.boards
            memories = boards.joined, boards.documents
            entries.add_metric(("feed",), sum(map(len, memories)))
            size.add_metric(("feed",), sum(memory.bytes for memory in memories))
            evicted.add_metric(("feed",), sum(memory.n_evicted for memory in memories))
        yield from (entries, size, evicted, flights, waiting, breaker)

    def _sharing_metrics(self, sharing: SharingStatus) -> Iterator[Metric]:
        yield _gauge("govi_sharing", "1 while boards are shared with other nodes.", sharing.is_sharing)
        text = "Results of requests for boards by where they came from: shared, waited, asked, alone."
        results = CounterMetricFamily("govi_sharing_results", text, labels=("module", "result"))
        for module in self._components.gateways:
            for result in get_args(ShareResult):
                results.add_metric((module, result), sharing.results[module, result])
        yield results

    def _feed_metrics(self, feed: Feed) -> Iterator[Metric]:
        now = feed.clock.seconds()
        yield CounterMetricFamily("govi_feed_records", "Records received from the live feed.", feed.n_records)
        yield CounterMetricFamily("govi_feed_reconnects", "Connections to the feed after the first.", feed.reconnects)
        yield _states("govi_feed_state", "1 for the current state of the feed.", "state", _FEED_STATES, feed.state)
        age = GaugeMetricFamily("govi_feed_age_seconds", "Age of an operator's latest data.", labels=("owner",))
        for operator, last_heard in feed.passtimes.last_heard.items():
            age.add_metric((printable(operator),), max(now - last_heard, 0.0))
        yield age
        yield _gauge("govi_feed_passes", "Live passing times in memory.", feed.passtimes.n_passtimes)
        yield _gauge("govi_feed_planned_passes", "Planned passing times in memory.", feed.timetable.n_planned)
        yield _gauge("govi_feed_messages", "General messages in memory.", feed.passtimes.n_messages)
        yield _gauge("govi_feed_passes_bytes", "Bytes of the live passing times in memory.", feed.passtimes.n_bytes)
        yield _gauge(
            "govi_feed_messages_bytes", "Bytes of the general messages in memory.", feed.passtimes.n_message_bytes
        )
        yield _gauge("govi_feed_stops", "Stops of the live feed in memory.", len(feed.passtimes.stops))
        evictions = CounterMetricFamily(
            "govi_feed_evictions", "Entries of a full table evicted to make room.", labels=("table",)
        )
        for table, n in feed.evictions.items():
            evictions.add_metric((table,), n)
        yield evictions

    def _planning_metrics(self, service: PlanningService) -> Iterator[Metric]:
        text = "1 if the latest attempt to get or use a GTFS file failed."
        yield _gauge("govi_gtfs_failing", text, bool(service.problem))
        if (planning := service.planning) is not None:
            yield _gauge("govi_gtfs_age_seconds", "Age of the GTFS file in use.", max(service.age, 0.0))
            yield _gauge(
                "govi_gtfs_planned_passes", "Planned passing times of the GTFS file in use.", planning.n_calls
            )


class FailingStops(Collector):
    """The number of stops with recent failures: a single such stop may not exist, but several do."""

    def __init__(self, history: RecentHistory) -> None:
        self._history = history

    def collect(self) -> Iterator[Metric]:
        """Return the metric."""
        text = f"Stops with a failed request in the last {WINDOW_MINUTES} minutes."
        metric = GaugeMetricFamily("govi_failing_stops", text, labels=("module",))
        for name, stops in self._history.failing_stops(WINDOW_MINUTES).items():
            metric.add_metric((name,), len(stops))
        yield metric


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value)


def _states(name: str, text: str, label: str, states: Iterable[str], current: str) -> GaugeMetricFamily:
    metric = GaugeMetricFamily(name, text, labels=(label,))
    for state in states:
        metric.add_metric((state,), state == current)
    return metric
