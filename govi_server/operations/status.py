"""The status for operators, as a JSON object that the status page shows as well."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IReactorTime

from govi_server.departures.times import utc_timestamp
from govi_server.kv78turbo.feed import Feed
from govi_server.operations.components import Components, GatewayComponents
from govi_server.operations.configuration import changed_settings
from govi_server.operations.health import HealthMonitor
from govi_server.operations.history import BOARD_RESULTS, OTHERS, BoardResult, Minute, RecentHistory
from govi_server.operations.limits import usages
from govi_server.operations.verdict import verdict
from govi_server.runtime.resident_memory import resident_bytes
from govi_server.settings import Config
from govi_server.statistics.quantiles import QuantileSketch

MAX_ITEMS = 10
"""Stops, or clients, in a list."""

RECENT_MINUTES = 5
"""Minutes of recent latencies, in addition to those of the hour."""

Json = dict[str, Any]


class Status:
    """Collects the status. Moments are UTC; durations are in seconds unless a key ends in ms.

    config: returns the configuration in force.
    """

    def __init__(
        self,
        components: Components,
        history: RecentHistory,
        monitor: HealthMonitor,
        clock: IReactorTime,
        version: str,
        config: Callable[[], Config],
    ) -> None:
        self._components = components
        self._history = history
        self._monitor = monitor
        self._clock = clock
        self._version = version
        self._config = config
        self._started = clock.seconds()

    def json(self) -> Json:
        """Return the status."""
        now = self._clock.seconds()
        health = self._monitor.health()
        sentence, has_failures = verdict(health.status, self._history.minutes(), now)
        components, figures, config = self._components, self._components.figures, self._config()
        clients = _sum(minute.clients for minute in self._history.minutes())
        return {
            "verdict": health.status,
            "since": _moment(health.since),
            "sentence": sentence,
            "failing": has_failures,
            "why": list(health.reasons),
            "problems": [problem._asdict() for problem in health.problems],
            "changes": [
                {"time": _moment(change.moment), "verdict": change.status, "reason": change.reason}
                for change in self._monitor.changes
            ],
            "now": _moment(now),
            "started": _moment(self._started),
            "version": self._version,
            "demo": config.is_demo or (components.feed is not None and components.feed.is_fictional),
            "connections": {
                "open": figures.connections,
                "limit": figures.limit,
                "streams": figures.streams,
            },
            "workers": self._workers(),
            "modules": list(components.modules),
            "gateways": {name: self._gateway(name, gateway, now) for name, gateway in components.gateways.items()},
            "feed": self._feed(now),
            "sharing": self._sharing(),
            "hour": self._hour(now),
            "stops": self._stops(),
            "clients": _most_common(clients),
            "limits": [usage._asdict() for usage in usages(components, config, resident_bytes())],
            "configuration": changed_settings(config),
            "incidents": {name: dict(counts) for name, counts in components.incidents() if counts},
            "events": [
                {"time": _moment(entry.moment), "level": entry.level, "text": entry.text}
                for entry in self._history.entries
            ],
        }

    def _workers(self) -> list[Json]:
        workers = self._components.workers
        return [
            {
                "number": worker.number,
                "process": worker.pid,
                "serving": worker.figures is not None,
                "connections": worker.figures.server.connections if worker.figures else 0,
                "memory": worker.figures.memory_bytes if worker.figures else 0,
                "restarts": worker.restarts,
            }
            for worker in (workers.workers if workers is not None else ())
        ]

    def _gateway(self, name: str, gateway: GatewayComponents, now: float) -> Json:
        cache, flights = gateway.cache, gateway.cache.pending
        hour = list(self._history.minutes())
        recent = [minute for minute in hour if now - minute.begins < RECENT_MINUTES * 60]
        return {
            "breaker": gateway.breaker.state,
            "flights": len(flights),
            "waiting": sum(flights.values()),
            "cache": {"boards": cache.entries, "bytes": cache.bytes, "evicted": cache.evicted},
            "lately": _latencies(recent, name),
            "hour": _latencies(hour, name),
        }

    def _feed(self, now: float) -> Json | None:
        feed = self._components.feed
        if feed is None:
            return None
        ages = {operator: max(now - last_heard, 0) for operator, last_heard in feed.passtimes.last_heard.items()}
        return {
            "state": feed.state,
            "address": None if feed.subscriber is None else feed.subscriber.address,
            "age": None if feed.age is None else round(feed.age, 1),
            "records": feed.n_records,
            "reconnects": feed.reconnects,
            "passes": feed.passtimes.n_passtimes,
            "planned": feed.timetable.n_planned,
            "stops": len(feed.passtimes.stops),
            "messages": feed.passtimes.n_messages,
            "operators": self._operators(feed),
            "owners": {operator: round(age, 1) for operator, age in sorted(ages.items())},
            "provenance": {operator: list(sources) for operator, sources in sorted(feed.provenance.items())},
            "gtfs": self._gtfs(now),
        }

    def _gtfs(self, now: float) -> Json | None:
        service = self._components.planning
        if service is None:
            return None
        planning = service.planning
        return {
            "source": service.source,
            "problem": service.problem,
            "file": None if planning is None else planning.header.name,
            "stops": 0 if planning is None else planning.n_stops,
            "planned": 0 if planning is None else planning.n_calls,
            "files": {} if planning is None else {name: of.source for name, of in planning.header.operators.items()},
            "checked": _moment(service.state.checked_at) if service.state.checked_at else None,
        }

    def _operators(self, feed: Feed) -> list[Json]:
        """Return the freshness of the data of each operator, the oldest first."""
        names = list(feed.passtimes.last_heard)
        operators = [
            {
                "name": name,
                "freshness": feed.operator_freshness(name)[0],
                "age": round(age or 0.0, 1),
                "fresh_until": round(fresh_seconds, 1),
            }
            for name, (age, fresh_seconds) in zip(names, feed.ages(names), strict=True)
        ]
        return sorted(operators, key=lambda operator: -operator["age"])

    def _sharing(self) -> Json | None:
        sharing = self._components.sharing
        if sharing is None:
            return None
        results: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for (module, result), n in sorted(sharing.results.items()):
            results[module][result] = n
        return {
            "state": "UP" if sharing.is_sharing else "DOWN",
            "since": _moment(sharing.since),
            "engine": sharing.engine or sharing.description,
            "why": sharing.reason,
            "results": results,
        }

    def _hour(self, now: float) -> Json:
        """Return the results by minute of the last hour, oldest first, and the responses by status."""
        minutes = {minute.begins: minute for minute in self._history.minutes()}
        last = int(now) // 60 * 60
        results = [
            minutes[begin].results if begin in minutes else Counter[BoardResult]()
            for begin in range(last - 3540, last + 60, 60)
        ]
        statuses = _sum(minute.statuses for minute in minutes.values())
        return {
            "outcomes": {name: [counts[name] for counts in results] for name in BOARD_RESULTS},
            "statuses": {str(status): n for status, n in sorted(statuses.items())},
        }

    def _stops(self) -> Json:
        minutes = list(self._history.minutes())
        waits: dict[str, float] = {}
        for minute in minutes:
            for stop, seconds in minute.longest_waits.items():
                waits[stop] = max(seconds, waits.get(stop, 0.0))
        slowest = sorted(waits.items(), key=lambda item: -item[1])[:MAX_ITEMS]
        failed = _sum(minute.failed_stops for minute in minutes)
        modules = [requests for minute in minutes for requests in minute.modules.values()]
        answered = {stop for requests in modules for stop in requests.stops["answered"]}
        # These stops may not exist: the gateway does not respond for stops that do not exist.
        never_answered = Counter({stop: n for stop, n in failed.items() if stop not in answered and stop != OTHERS})
        return {
            "most_asked": _most_common(_sum(minute.stops for minute in minutes)),
            "slowest_ms": {stop: round(seconds * 1000) for stop, seconds in slowest},
            "most_failed": _most_common(failed - never_answered),
            "never_answered": _most_common(never_answered),
            "unknown": _most_common(_sum(minute.unknown_stops for minute in minutes)),
        }


def _moment(seconds: float) -> str:
    return utc_timestamp(seconds) + "Z"


def _sum(counters: Any) -> Counter[Any]:
    total: Counter[Any] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def _most_common(counter: Counter[str]) -> dict[str, int]:
    """Return the most common names with their counts, followed by OTHERS."""
    others = counter.pop(OTHERS, 0)
    return dict(counter.most_common(MAX_ITEMS)) | ({OTHERS: others} if others else {})


def _latencies(minutes: Iterable[Minute], module: str) -> Json:
    """Return the quantiles of a gateway's acknowledgement and callback times."""
    acknowledgement_ms, callback_ms = QuantileSketch(), QuantileSketch()
    for minute in minutes:
        if module in minute.modules:
            acknowledgement_ms.merge(minute.modules[module].acknowledgement_ms)
            callback_ms.merge(minute.modules[module].callback_ms)
    return {"acknowledgement_ms": _quantiles(acknowledgement_ms), "answer_ms": _quantiles(callback_ms)}


def _quantiles(times: QuantileSketch) -> dict[str, float | None]:
    values = {"p50": times.quantile(0.5), "p95": times.quantile(0.95), "p99": times.quantile(0.99)}
    return {name: None if value is None else round(value, 1) for name, value in values.items()}
