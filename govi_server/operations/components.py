"""What the operators' rooms look at: the parts of the running program, by name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from govi_server.departures.breaker import CircuitBreaker
from govi_server.departures.cache import BoardCache
from govi_server.kv55.gateway import Gateway
from govi_server.kv78turbo.feed import REJECT_REASONS, Feed
from govi_server.operations.snapshot import Snapshots
from govi_server.server import Server
from govi_server.statistics.log import StatisticsLog

KINDS = {
    "gateway": ("broken", "late", "opened", "refused", "repeated", "silent", "unsolicited"),
    "feed": ("broken message", *REJECT_REASONS),
    "subscriber": ("empty", "envelope", "not consumed", "slow", "too large"),
    "statistics": ("unwritable",),
    "snapshot": ("unwritable",),
}
"""What may go wrong, by where; for "gateway" figures have the name of its module."""


@dataclass(frozen=True, slots=True)
class GatewayComponents:
    """A gateway with what stands before it."""

    gateway: Gateway
    breaker: CircuitBreaker
    cache: BoardCache


@dataclass(slots=True)
class Components:
    """The parts of the running program."""

    server: Server
    modules: tuple[str, ...] = ()
    """The path segments that are answered."""
    gateways: dict[str, GatewayComponents] = field(default_factory=dict)
    """By the module that answers from it."""
    feed: Feed | None = None
    statistics: StatisticsLog | None = None
    snapshots: Snapshots | None = None

    def incidents(self) -> Iterator[tuple[str, Mapping[str, int]]]:
        """Go through what went wrong: where, and how often each kind."""
        for name, source in self.gateways.items():
            yield name, source.gateway.incidents.counts + source.breaker.incidents.counts
        if self.feed is not None:
            yield "feed", self.feed.incidents.counts
            if self.feed.subscriber is not None:
                yield "subscriber", self.feed.subscriber.incidents.counts
        if self.statistics is not None:
            yield "statistics", self.statistics.incidents.counts
        if self.snapshots is not None:
            yield "snapshot", self.snapshots.incidents.counts
