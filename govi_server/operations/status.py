"""The status: one JSON object of what an operator wants to know, which the page shows, too."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IReactorTime

from govi_server.departures.times import utc_timestamp
from govi_server.operations.components import Components, GatewayComponents
from govi_server.operations.health import HealthMonitor
from govi_server.operations.history import OTHERS, Minute, RecentHistory
from govi_server.statistics.summary import QuantileSketch

MOST = 10
"""Lines of a list."""

LATELY = 5
"""Minutes whose latencies are told beside those of the hour."""

OUTCOMES = ("hit", "stale", "joined", "miss", "timeout", "failed")
"""What may come of a question for a board, from best to worst."""

Json = dict[str, Any]


class Status:
    """Tells what there is to know. Moments are UTC, times in seconds unless a name says ms."""

    def __init__(
        self, parts: Components, hour: RecentHistory, judge: HealthMonitor, clock: IReactorTime, version: str
    ) -> None:
        self._parts = parts
        self._hour = hour
        self._judge = judge
        self._clock = clock
        self._version = version
        self._started = clock.seconds()

    def json(self) -> Json:
        """Give the whole status."""
        now = self._clock.seconds()
        verdict = self._judge.health()
        server = self._parts.server
        return {
            "verdict": verdict.word,
            "since": _moment(verdict.since),
            "why": list(verdict.why),
            "now": _moment(now),
            "started": _moment(self._started),
            "version": self._version,
            "connections": {
                "open": len(server.connections),
                "limit": server.access.limits.connections,
                "streams": server.streams,
            },
            "modules": list(self._parts.modules),
            "gateways": {name: self._gateway(name, source, now) for name, source in self._parts.gateways.items()},
            "feed": self._feed(now),
            "hour": self._minutes(now),
            "stops": self._stops(),
            "clients": _most(_sum(minute.clients for minute in self._hour.minutes())),
            "incidents": {where: dict(counts) for where, counts in self._parts.incidents() if counts},
            "events": [
                {"time": _moment(event.moment), "level": event.level, "text": event.text}
                for event in self._hour.events
            ],
        }

    def _gateway(self, name: str, source: GatewayComponents, now: float) -> Json:
        flights = source.cache.pending
        hour = list(self._hour.minutes())
        lately = [minute for minute in hour if now - minute.begins < LATELY * 60]
        return {
            "breaker": source.breaker.state,
            "flights": len(flights),
            "waiting": sum(flights.values()),
            "cache": {"boards": source.cache.entries, "bytes": source.cache.bytes, "evicted": source.cache.evicted},
            "lately": _latencies(lately, name),
            "hour": _latencies(hour, name),
        }

    def _feed(self, now: float) -> Json | None:
        feed = self._parts.feed
        if feed is None:
            return None
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
            "owners": {
                owner: round(max(now - heard, 0), 1) for owner, heard in sorted(feed.passtimes.last_heard.items())
            },
        }

    def _minutes(self, now: float) -> Json:
        """Give the last hour: sixty minutes, the oldest first, and the sums."""
        minutes = {minute.begins: minute for minute in self._hour.minutes()}
        last = int(now) // 60 * 60
        outcomes = [
            minutes[at].outcomes if at in minutes else Counter[str]() for at in range(last - 3540, last + 60, 60)
        ]
        return {
            "outcomes": {name: [minute[name] for minute in outcomes] for name in OUTCOMES},
            "statuses": {str(status): n for status, n in sorted(_sum(m.statuses for m in minutes.values()).items())},
        }

    def _stops(self) -> Json:
        minutes = list(self._hour.minutes())
        slowest: dict[str, float] = {}
        for minute in minutes:
            for stop, seconds in minute.slow.items():
                slowest[stop] = max(seconds, slowest.get(stop, 0.0))
        failed = _sum(minute.unanswered for minute in minutes)
        modules = [asked for minute in minutes for asked in minute.modules.values()]
        answered = {stop for asked in modules for stop in asked.stops["answered"]}
        # Such a stop may not exist: the gateway is silent about those.
        never = Counter({stop: n for stop, n in failed.items() if stop not in answered and stop != OTHERS})
        return {
            "most_asked": _most(_sum(minute.stops for minute in minutes)),
            "slowest_ms": {
                stop: round(seconds * 1000)
                for stop, seconds in sorted(slowest.items(), key=lambda one: -one[1])[:MOST]
            },
            "most_failed": _most(failed - never),
            "never_answered": _most(never),
            "unknown": _most(_sum(minute.unknown for minute in minutes)),
        }


def _moment(seconds: float) -> str:
    return utc_timestamp(seconds) + "Z"


def _sum(counters: Any) -> Counter[Any]:
    total: Counter[Any] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def _most(counter: Counter[str]) -> dict[str, int]:
    """Give the names that come most, and the number of all that are counted together."""
    others = counter.pop(OTHERS, 0)
    return dict(counter.most_common(MOST)) | ({OTHERS: others} if others else {})


def _latencies(minutes: Iterable[Minute], module: str) -> Json:
    """Give the quantiles of a module's questions to its gateway."""
    taken, waited = QuantileSketch(), QuantileSketch()
    for minute in minutes:
        if module in minute.modules:
            taken.merge(minute.modules[module].taken)
            waited.merge(minute.modules[module].waited)
    return {"acknowledgement_ms": _quantiles(taken), "answer_ms": _quantiles(waited)}


def _quantiles(times: QuantileSketch) -> dict[str, float | None]:
    values = {"p50": times.quantile(0.5), "p95": times.quantile(0.95), "p99": times.quantile(0.99)}
    return {name: None if value is None else round(value, 1) for name, value in values.items()}
