"""The verdict: whether travellers get answers, since when that is so, why, and what to do."""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from twisted.internet.interfaces import IReactorTime

from govi_server.departures.times import utc_timestamp
from govi_server.kv78turbo.feed import Feed
from govi_server.operations.components import Components
from govi_server.operations.history import MINUTES, HistoryRequest, Outcome, RecentHistory

HealthStatus = Literal["UP", "RECOVERING", "DEGRADED", "DOWN"]

LOOKED_AT = 5
"""Minutes of answers that are judged."""

ALL_LOOKED_AT = 3
"""The same when nearly all fail: what came from memory before that is soon of no account."""

TOLERATED = 0.01
"""Share of questions that may fail before it is told."""

NEARLY_ALL = 0.95
"""Share of questions without an answer from which it is as if there were none."""

ENOUGH = 5
"""Failed questions below which nobody is woken."""

SEVERAL = 3
"""Stops below which it may be that they do not exist: the gateway is silent about such stops."""

CALM = 60.0
"""Seconds without a reason after which it is UP again, and no longer RECOVERING."""

_FEED = "the live feed"
_DISK = "is there room on the disk, may the directory be written?"


@dataclass(frozen=True, slots=True)
class Health:
    """What there is to say. since: epoch seconds."""

    word: HealthStatus
    since: float
    why: tuple[str, ...]


class _Reason(NamedTuple):
    """Why it is not UP. what: the same for as long as it goes on; details: what changes meanwhile."""

    what: str
    details: str
    to_do: str


class _Tally:
    """The questions for boards that a source was asked in some minutes."""

    def __init__(self, modules: Iterable[HistoryRequest]) -> None:
        self.answered = 0
        self.lost: Counter[int | None] = Counter()
        """Those without an answer, by status; None: the client did not wait for one."""
        self.stops: defaultdict[Outcome, set[str]] = defaultdict(set)
        for module in modules:
            for (outcome, status), n in module.results.items():
                if outcome in ("timeout", "failed"):
                    self.lost[status] += n
                else:
                    self.answered += n
            for fate, stops in module.stops.items():
                self.stops[fate] |= stops

    @property
    def failed(self) -> int:
        """Questions that the server gave up."""
        return self.lost.total() - self.lost[None]

    def by_status(self) -> str:
        """List how many had which status."""
        return ", ".join(f"{status or 'left by the client'}: {n:,}" for status, n in self.lost.most_common())


def state_of(feed: Feed) -> str:
    """Say how the live feed is doing."""
    age = "there never was any data" if feed.age is None else f"the last data came {feed.age:.0f} s ago"
    return f"the live feed is {feed.state}: {age}"


class HealthMonitor:
    """Tells the verdict, and remembers since when it is so."""

    def __init__(self, parts: Components, hour: RecentHistory, clock: IReactorTime) -> None:
        self._parts = parts
        self._hour = hour
        self._clock = clock
        self._verdict = Health("UP", clock.seconds(), ())
        self._trouble: float | None = None
        self._since: dict[str, float] = {}
        """The reasons there are, and since when."""

    def health(self) -> Health:
        """Judge what there is now."""
        now = self._clock.seconds()
        failing = self._sources()
        down = len(failing) == len(self._all_sources()) > 0
        reasons, notes = list(failing.values()), list[str]()
        if not down:
            failed, notes = self._answers(failing)
            reasons += failed + self._house()
        self._since = {reason.what: min(self._since.get(reason.what, now), now) for reason in reasons}
        word: HealthStatus
        if reasons:
            self._trouble = now
            word, why = "DOWN" if down else "DEGRADED", tuple(map(self._said, reasons))
        elif settling := self._settling(now):
            word, why = "RECOVERING", (settling, *notes)
        else:
            word, why = "UP", tuple(notes)
        since = min(self._verdict.since, now) if word == self._verdict.word else now
        self._verdict = Health(word, since, why)
        return self._verdict

    def _said(self, reason: _Reason) -> str:
        since = self._since[reason.what]
        minutes = max(self._clock.seconds() - since, 0) / 60
        ago = f"{minutes:.0f} min ago" if minutes < 120 else f"{minutes / 60:.0f} h ago"
        details = f" ({reason.details})" if reason.details else ""
        return f"{reason.what}, since {utc_timestamp(since)[11:16]} UTC, {ago}{details}: {reason.to_do}"

    def _all_sources(self) -> list[str]:
        return [*self._parts.gateways, *([] if self._parts.feed is None else [_FEED])]

    def _sources(self) -> dict[str, _Reason]:
        """List the sources that do not answer, and why."""
        failing = {}
        for name, source in self._parts.gateways.items():
            if source.breaker.state != "closed":
                to_do = "call whoever runs it; it is tried every few seconds, boards in memory are served meanwhile"
                failing[name] = _Reason(f"/{name}: the gateway does not take questions", "", to_do)
            elif details := self._silent(name):
                to_do = f"do callbacks reach modules.{name}.callback, are they allowed? Else call whoever runs it"
                failing[name] = _Reason(f"/{name} takes questions, but gets no answers", details, to_do)
        feed = self._parts.feed
        if feed is not None and feed.subscriber is not None and feed.state == "DOWN":
            age = "there never was any data" if feed.age is None else f"the last data came {feed.age:.0f} s ago"
            failing[_FEED] = _Reason(
                "the live feed is DOWN", age, "it is tried by itself; is its port open outwards?"
            )
        elif feed is not None and (details := self._silent(_FEED)):
            failing[_FEED] = _Reason("the live feed tells of no departures", details, "see its data owners below")
        return failing

    def _modules(self, source: str, minutes: int) -> list[HistoryRequest]:
        """List what the modules that answer from a source were asked in the last minutes."""
        now = self._clock.seconds()
        return [
            asked
            for minute in self._hour.minutes()
            if now - minute.begins < minutes * 60
            for name, asked in minute.modules.items()
            if (name if name in self._parts.gateways else _FEED) == source
        ]

    def _silent(self, source: str) -> str:
        """Tell that nearly all questions had no answer; nothing if that is not so."""
        tally = _Tally(self._modules(source, ALL_LOOKED_AT))
        lost = tally.lost.total()
        asked = lost + tally.answered
        if lost < ENOUGH or lost < asked * NEARLY_ALL:
            return ""
        stops = tally.stops["failed"] | tally.stops["left"]
        known = self._known(source)
        # A stop that never had an answer may be made up.
        if not known & stops and (known or len(stops) < SEVERAL):
            return ""
        few = f"only {tally.answered:,}" if tally.answered else "none"
        return f"{few} of {asked:,} was answered in {ALL_LOOKED_AT} minutes; {tally.by_status()}"

    def _known(self, source: str) -> set[str]:
        """Give the stops that had an answer in the last hour."""
        return {stop for module in self._modules(source, MINUTES) for stop in module.stops["answered"]}

    def _answers(self, told: Container[str]) -> tuple[list[_Reason], list[str]]:
        """List where too many questions fail, and what is worth a note; not of sources that are told already."""
        reasons, notes = [], []
        for source in self._all_sources():
            tally = _Tally(self._modules(source, LOOKED_AT))
            failed, asked = tally.failed, tally.failed + tally.answered
            if source in told or failed < ENOUGH or failed <= asked * TOLERATED:
                continue
            stops = tally.stops["failed"]
            name = source if source == _FEED else f"/{source}"
            much = f"{failed:,} of {asked:,} in {LOOKED_AT} minutes"
            if len(stops) < SEVERAL and not self._known(source) & stops:
                notes.append(f"{name}: {much} failed, all for {', '.join(sorted(stops))}, which may not exist")
            else:
                details = f"{much}, stops: {len(stops):,}; {tally.by_status()}"
                to_do = "see the stops with most answers 5xx and those never answered"
                reasons.append(_Reason(f"{name}: questions fail", details, to_do))
        return reasons, notes

    def _house(self) -> list[_Reason]:
        """List what is wrong in the house itself."""
        why = []
        server, statistics, snapshots = self._parts.server, self._parts.statistics, self._parts.snapshots
        used, limit = len(server.connections), server.access.limits.connections
        if used >= limit * 0.9:
            to_do = "see the clients that ask most, or raise access.connections"
            why.append(_Reason("connections run out", f"{used:,} of {limit:,} are in use", to_do))
        if server.accepting.paused:
            to_do = "raise the limit of open files; it goes on by itself"
            why.append(_Reason("too many open files: no connections are accepted", "", to_do))
        if statistics is not None and not statistics.writable:
            why.append(_Reason("the statistics log cannot be written", "", _DISK))
        if snapshots is not None and not snapshots.writable:
            why.append(_Reason("the snapshot cannot be written", "", _DISK))
        return why

    def _settling(self, now: float) -> str:
        """Say why it is too early for UP."""
        feed = self._parts.feed
        if feed is not None and feed.subscriber is not None and feed.state != "UP":
            return state_of(feed)
        if self._trouble is not None and 0 <= now - self._trouble < CALM:
            return "it was in trouble a minute ago"
        return ""
