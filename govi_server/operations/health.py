"""The health of the service: whether clients get departures, and if not, since when, why, and what to do."""

from collections import Counter, defaultdict, deque
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from twisted.internet.interfaces import IReactorTime

from govi_server.departures.times import DAY, utc_timestamp
from govi_server.kv78turbo.feed import Feed
from govi_server.operations.components import Components
from govi_server.operations.history import HISTORY_MINUTES, ModuleRequests, Outcome, RecentHistory
from govi_server.operations.problem import Problem, ProblemCode

HealthStatus = Literal["UP", "RECOVERING", "DEGRADED", "DOWN"]

WINDOW_MINUTES = 5
"""Minutes of requests from which health is derived."""

OUTAGE_WINDOW_MINUTES = 3
"""The shorter window for outages: earlier requests may still have been served from memory."""

MAX_FAILURE_RATIO = 0.01
"""Fraction of requests that may fail without a report."""

OUTAGE_FAILURE_RATIO = 0.95
"""Fraction of failed requests at which a source counts as down."""

MIN_FAILURES = 5
"""Fewer failed requests are not reported."""

MIN_STOPS = 3
"""With fewer failing stops, the stops themselves may not exist: a gateway does not respond for unknown stops."""

RECOVERY_SECONDS = 60.0
"""Time without problems after which RECOVERING becomes UP."""

MAX_CHANGES = 20
"""Changes of the health that are stored."""

MAX_CONNECTIONS_RATIO = 0.9
"""Fraction of the connection limit at which a problem is reported."""

MAX_PLANNING_AGE = 3 * DAY
"""Age in seconds of the GTFS file in use from which failed attempts to replace it are reported."""

_FEED = "Live feed"
_CHECK_DISK = "check the free space on its disk and the permissions of its directory"
_RESUMING = "Service is resuming, normally within a minute; no action needed."


@dataclass(frozen=True, slots=True)
class Health:
    """The current health. since: start of the status (epoch seconds). reasons: texts for operators."""

    status: HealthStatus
    since: float
    reasons: tuple[str, ...]
    """The texts of the problems, or what else is to be noted."""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class HealthChange:
    """A change of the status, or the start or end of a problem. moment: epoch seconds. reason: "" without any."""

    moment: float
    status: HealthStatus
    reason: str


class _Problem(NamedTuple):
    """A reason why the status is not UP."""

    name: str
    """Identifies the problem for as long as it lasts."""
    details: str
    """Figures that may change meanwhile."""
    action: str
    """The recommended action."""
    code: ProblemCode
    source: str = "server"


class _BoardRequests:
    """The sum of requests for boards, by several modules and minutes."""

    def __init__(self, parts: Iterable[ModuleRequests]) -> None:
        self.answered = 0
        self.unanswered: Counter[int | None] = Counter()
        """Requests without a board by status; None if the client left."""
        self.stops: defaultdict[Outcome, set[str]] = defaultdict(set)
        for requests in parts:
            for (result, status), n in requests.results.items():
                if result in ("timeout", "failed"):
                    self.unanswered[status] += n
                else:
                    self.answered += n
            for outcome, stops in requests.stops.items():
                self.stops[outcome] |= stops

    @property
    def failed(self) -> int:
        """The number of requests with an error response."""
        return self.unanswered.total() - self.unanswered[None]

    def by_status(self) -> str:
        """List the unanswered requests by status."""
        return ", ".join(f"{status or 'client left'}: {n:,}" for status, n in self.unanswered.most_common())


def describe_feed(feed: Feed) -> str:
    """Describe the state of the live feed."""
    return f"{_FEED} {feed.state}: {_feed_age(feed)}"


def _feed_age(feed: Feed) -> str:
    return "no data received yet" if feed.age is None else f"last data received {feed.age:.0f} s ago"


class HealthMonitor:
    """Derives the health from the components and the recent history, and tracks when its status changed."""

    def __init__(self, components: Components, history: RecentHistory, clock: IReactorTime) -> None:
        self._components = components
        self._history = history
        self._clock = clock
        self._health = Health("UP", clock.seconds(), ())
        self.changes: deque[HealthChange] = deque(maxlen=MAX_CHANGES)
        """The latest changes, newest first."""
        self._last_problem: float | None = None
        self._since: dict[str, float] = {}
        """The start of each current problem by name."""

    def health(self) -> Health:
        """Return the current health; must be called every few seconds to detect when it changes."""
        now = self._clock.seconds()
        failing = self._failing_sources()
        is_down = len(failing) == len(self._sources()) > 0
        problems, notes = list(failing.values()), list[str]()
        if not is_down:
            failures, notes = self._failing_requests(failing)
            problems += failures + self._server_problems()
        before = self._since
        self._since = {problem.name: min(before.get(problem.name, now), now) for problem in problems}
        described = tuple(Problem(problem.code, problem.source, self._describe(problem)) for problem in problems)
        status: HealthStatus
        if problems:
            self._last_problem = now
            status, reasons = "DOWN" if is_down else "DEGRADED", tuple(problem.text for problem in described)
        elif recovering := self._recovering(now):
            status, reasons = "RECOVERING", (recovering, *notes)
        else:
            status, reasons = "UP", tuple(notes)
        changes = [f"{name}: over" for name in before if name not in self._since]
        changes += [name for name in self._since if name not in before]
        since = min(self._health.since, now)
        if status != self._health.status:
            since = now
            changes = changes or [*reasons[:1], ""][:1]
        self.changes.extendleft(HealthChange(now, status, change) for change in changes)
        self._health = Health(status, since, reasons, described)
        return self._health

    def _describe(self, problem: _Problem) -> str:
        since = self._since[problem.name]
        minutes = max(self._clock.seconds() - since, 0) / 60
        ago = f"{minutes:.0f} min ago" if minutes < 120 else f"{minutes / 60:.0f} h ago"
        details = f" ({problem.details})" if problem.details else ""
        return f"{problem.name} since {utc_timestamp(since)[11:16]} UTC, {ago}{details}: {problem.action}"

    def _sources(self) -> list[str]:
        return [*self._components.gateways, *([] if self._components.feed is None else [_FEED])]

    def _failing_sources(self) -> dict[str, _Problem]:
        """Return the sources that deliver no boards, each with its problem."""
        failing = {}
        for name, gateway in self._components.gateways.items():
            breaker, details = gateway.breaker, self._outage(name)
            if breaker.state != "closed" or (details and not breaker.is_reachable):
                action = (
                    "it is retried every few seconds, and boards in memory are served; contact the gateway's operator"
                )
                failing[name] = _Problem(
                    f"/{name}: gateway not accepting requests", "", action, "gateway-unreachable", name
                )
            elif details:
                action = (
                    f"check that callbacks reach modules.{name}.callback and come from a network in "
                    f"modules.{name}.allow; else contact the gateway's operator"
                )
                failing[name] = _Problem(
                    f"/{name}: gateway accepts requests but does not respond", details, action, "gateway-silent", name
                )
        feed = self._components.feed
        if feed is not None and feed.subscriber is not None and feed.state == "DOWN":
            action = "the server reconnects automatically; check that outgoing connections to its port are allowed"
            failing[_FEED] = _Problem(f"{_FEED} DOWN", _feed_age(feed), action, "feed-down", "feed")
        elif feed is not None and (details := self._outage(_FEED)):
            action = "check when each transport operator last sent data"
            failing[_FEED] = _Problem(f"{_FEED}: no departures", details, action, "no-departures", "feed")
        return failing

    def _requests(self, source: str, minutes: int) -> _BoardRequests:
        """Return the requests of the last minutes to the modules that show boards from a source."""
        now = self._clock.seconds()
        return _BoardRequests(
            requests
            for minute in self._history.minutes()
            if now - minute.begins < minutes * 60
            for name, requests in minute.modules.items()
            if (name if name in self._components.gateways else _FEED) == source
        )

    def _outage(self, source: str) -> str:
        """Return details if nearly all recent requests to a source failed, or else ""."""
        requests = self._requests(source, OUTAGE_WINDOW_MINUTES)
        unanswered = requests.unanswered.total()
        total = unanswered + requests.answered
        if unanswered < MIN_FAILURES or unanswered < total * OUTAGE_FAILURE_RATIO:
            return ""
        stops = requests.stops["failed"] | requests.stops["left"]
        if self._may_not_exist(source, stops, are_others_answered=bool(self._existing_stops(source))):
            return ""
        return f"{requests.answered:,} of {total:,} answered in {OUTAGE_WINDOW_MINUTES} min; {requests.by_status()}"

    def _may_not_exist(self, source: str, stops: set[str], are_others_answered: bool) -> bool:
        """Return whether none of these stops is known to exist.

        The feed knows its stops, among which paths such as /places are not. A stop of a gateway exists if it had a
        board; without any board, MIN_STOPS failing stops count as existing.
        """
        if source == _FEED and self._components.feed is not None:
            return not any(map(self._components.feed.is_known, stops))
        return not self._existing_stops(source) & stops and (are_others_answered or len(stops) < MIN_STOPS)

    def _existing_stops(self, source: str) -> set[str]:
        """Return the stops that had a board in the last hour."""
        return self._requests(source, HISTORY_MINUTES).stops["answered"]

    def _failing_requests(self, failing: Container[str]) -> tuple[list[_Problem], list[str]]:
        """Return problems and notes for the sources of which too many requests fail.

        failing: sources that are already reported.
        """
        problems, notes = [], []
        for source in self._sources():
            requests = self._requests(source, WINDOW_MINUTES)
            failed, total = requests.failed, requests.failed + requests.answered
            if source in failing or failed < MIN_FAILURES or failed <= total * MAX_FAILURE_RATIO:
                continue
            stops = requests.stops["failed"]
            name = source if source == _FEED else f"/{source}"
            count = f"{failed:,} of {total:,} in {WINDOW_MINUTES} min"
            is_fault = requests.unanswered[500] > 0
            if not is_fault and self._may_not_exist(source, stops, are_others_answered=False):
                names = [*sorted(stops)[:MIN_STOPS], *(["..."] if len(stops) > MIN_STOPS else [])]
                notes.append(f"{name}: {count} failed, all for {', '.join(names)}, which may not exist")
            else:
                details = f"{count}, stops: {len(stops):,}; {requests.by_status()}"
                action = "check the stops with 5xx responses"
                failing_source = "feed" if source == _FEED else source
                problems.append(
                    _Problem(f"{name}: requests failing", details, action, "requests-failing", failing_source)
                )
        return problems, notes

    def _server_problems(self) -> list[_Problem]:
        """Return the problems of the server itself."""
        problems = []
        components = self._components
        figures, statistics, snapshots = components.figures, components.statistics, components.snapshots
        used, limit = figures.connections, figures.limit
        if limit and used >= limit * MAX_CONNECTIONS_RATIO:  # 0 while no worker runs
            action = "check the busiest clients, or raise access.connections"
            details = f"{used:,} of {limit:,} in use"
            problems.append(_Problem("Connections near their limit", details, action, "connections-near-limit"))
        if figures.paused:
            action = "raise the limit of open files; accepting resumes automatically"
            problems.append(_Problem("Not accepting connections: too many open files", "", action, "too-many-files"))
        if components.sharing is not None and not components.sharing.is_sharing:
            action = "check the engine of [share]; until then each node sends its own gateway requests"
            problems.append(_Problem("Boards not shared", components.sharing.reason, action, "not-shared"))
        problems += self._planning_problems()
        for worker in components.workers.workers if components.workers is not None else ():
            if worker.is_missing:
                action = "it is restarted automatically; the log has the reason"
                problems.append(_Problem(f"Worker {worker.number} not running", "", action, "worker-missing"))
        if statistics is not None and not statistics.writable:
            problems.append(_Problem("Statistics log not writable", "", _CHECK_DISK, "statistics-unwritable"))
        if snapshots is not None and not snapshots.writable:
            problems.append(_Problem("Snapshot not writable", "", _CHECK_DISK, "snapshot-unwritable"))
        return problems

    def _planning_problems(self) -> list[_Problem]:
        """Return the problem that boards lack planning from GTFS, or have that of an old file."""
        service = self._components.planning
        if service is None or not service.problem:
            return []
        name, action = (
            f"GTFS {service.source}",
            "it is tried again; check feed.gtfs (--gtfs; '' for none)",
        )
        if service.planning is None:
            return [_Problem(f"{name}: no file", service.problem, action, "no-planning", "feed")]
        if service.age <= MAX_PLANNING_AGE:
            return []
        details = f"{service.planning.header.name} is in use; {service.problem}"
        return [_Problem(f"{name}: no new file", details, action, "old-planning", "feed")]

    def _recovering(self, now: float) -> str:
        """Return why the service is still recovering, "" if it is not."""
        feed = self._components.feed
        if feed is not None and feed.subscriber is not None and feed.state != "UP":
            return describe_feed(feed)
        if self._last_problem is not None and 0 <= now - self._last_problem < RECOVERY_SECONDS:
            return _RESUMING
        return ""
