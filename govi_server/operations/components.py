"""The components of the running program, for operators."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
from twisted.internet.defer import Deferred

from govi_server.departures.board import Board
from govi_server.departures.breaker import CircuitBreaker
from govi_server.departures.cache import BoardCache
from govi_server.kv55.gateway import Gateway
from govi_server.kv78turbo.feed import REJECT_REASONS, Feed
from govi_server.operations.snapshot import Snapshots
from govi_server.planning.service import PlanningService
from govi_server.runtime.turn_watch import TurnWatch
from govi_server.server import Server, ServerFigures
from govi_server.settings import Config
from govi_server.sharing.status import SharingStatus
from govi_server.statistics.log import StatisticsLog
from govi_server.workers.pool import WorkerPool

INCIDENT_KINDS = {
    "gateway": ("broken", "late", "opened", "refused", "repeated", "silent", "unsolicited"),
    "feed": ("broken message", "evicted", *REJECT_REASONS),
    "subscriber": ("empty", "envelope", "not consumed", "slow", "too large"),
    "sharing": ("unreadable",),
    "statistics": ("lost", "unwritable"),
    "snapshot": ("unwritable",),
    "connections": ("unfinished",),
}
"""The kinds of incidents by component. Metrics show the module's name instead of "gateway"."""


@dataclass(frozen=True, slots=True)
class GatewayComponents:
    """A gateway with its circuit breaker and its cache.

    probe: requests the board of a stop from the gateway, whatever is in memory.
    """

    gateway: Gateway
    breaker: CircuitBreaker
    cache: BoardCache
    probe: Callable[[str], Deferred[Board]]


@dataclass(slots=True)
class Components:
    """The components of the running program."""

    server: Server
    """The server of clients, or with workers, of these."""
    workers: WorkerPool | None = None
    modules: tuple[str, ...] = ()
    """The names of the modules."""
    gateways: dict[str, GatewayComponents] = field(default_factory=dict)
    """Gateways by the name of the module that shows their boards."""
    feed: Feed | None = None
    planning: PlanningService | None = None
    sharing: SharingStatus | None = None
    statistics: StatisticsLog | None = None
    snapshots: Snapshots | None = None
    turns: TurnWatch | None = None
    appliers: dict[str, Callable[[Config], object]] = field(default_factory=dict)
    """What applies a changed configuration to the running program, by the keys of settings."""

    @property
    def figures(self) -> ServerFigures:
        """The figures of the server of clients, or of all workers together."""
        own = self.server.figures()
        if self.workers is None:
            return own
        # The connections of the own server are those of workers.
        return self.workers.figures + msgspec.structs.replace(own, connections=0, limit=0, streams=0)

    @property
    def is_draining(self) -> bool:
        """Whether the program is stopping."""
        return self.server.draining or (self.workers is not None and self.workers.is_draining)

    def unreachable(self) -> list[str]:
        """Return the names of the modules whose gateway could not be reached at the last attempt."""
        return [name for name, gateway in self.gateways.items() if not gateway.breaker.is_reachable]

    def incidents(self) -> Iterator[tuple[str, Mapping[str, int]]]:
        """Yield the name of each component with the counts of its incidents by kind."""
        for name, gateway in self.gateways.items():
            yield name, gateway.gateway.incidents.counts + gateway.breaker.incidents.counts
        if self.feed is not None:
            yield "feed", self.feed.incidents.counts
            if self.feed.subscriber is not None:
                yield "subscriber", self.feed.subscriber.incidents.counts
        if self.sharing is not None:
            yield "sharing", self.sharing.incidents.counts
        if self.statistics is not None:
            yield "statistics", self.statistics.incidents.counts
        if self.snapshots is not None:
            yield "snapshot", self.snapshots.incidents.counts
        yield "connections", +Counter(unfinished=self.figures.rejected)
