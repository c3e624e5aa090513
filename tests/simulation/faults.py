"""The faults of a world: a list that its seed determines, of which a failure is shrunk to the fewest."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from random import Random
from typing import TYPE_CHECKING

from tests.simulation import gtfs
from tests.simulation.disk import SLOWEST
from tests.simulation.feed import OPERATORS
from tests.simulation.gateway import MODES

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


STEPS = (-7200, -3600, -3600, -90, -2, 2, 60, 3600)
"""Seconds by which the clock is set."""


CALM = 140.0
"""Seconds in which nothing goes wrong, after which everything must be well."""
NETWORK_FAULTS = ("loss", "duplicates", "reordered")
FEED_FAULTS = (
    *OPERATORS,
    "silent",
    "heartbeats",
    "restart",
    "garbage",
    "repeats",
    "repeats",
    "dead",
    *NETWORK_FAULTS,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: it begins so many seconds after the world, and lasts so long."""

    at: float
    seconds: float
    kind: str
    target: str = ""
    amount: float = 0.0

    def __str__(self) -> str:
        text = f"{self.kind} {self.target or f'{self.amount:.2f}'}"
        return f"{text} for {self.seconds:.0f} s" if self.seconds else text

    def begin(self, world: World) -> None:
        getattr(self, f"_begin_{self.kind}")(world)

    def end(self, world: World) -> None:
        getattr(self, f"_end_{self.kind}", lambda world: None)(world)

    # A gateway misbehaves.

    def _begin_gateway(self, world: World) -> None:
        name, mode = self.target.split(":")
        world.gateways[name].set_mode(mode)

    def _end_gateway(self, world: World) -> None:
        name, mode = self.target.split(":")
        if world.gateways[name].mode == mode:
            world.gateways[name].set_mode("")

    # The network is slow, cuts writes, loses connections.

    def _begin_slow(self, world: World) -> None:
        world.network.slowest = self.amount

    def _end_slow(self, world: World) -> None:
        world.network.slowest = 0.02

    def _begin_pieces(self, world: World) -> None:
        world.network.cut_fraction = world.network.packet_fraction = self.amount

    def _end_pieces(self, world: World) -> None:
        world.network.cut_fraction, world.network.packet_fraction = 0.02, 0.05

    def _begin_cut(self, world: World) -> None:
        for session in list(world.sessions):
            if world.random.random() < self.amount:
                session.close(abort=True)

    # The process.

    def _begin_terminate(self, world: World) -> None:
        self._terminate(self._node(world), self.amount)

    def _begin_kill(self, world: World) -> None:
        self._kill(self._node(world), self.amount)

    def _begin_terminate_asker(self, world: World) -> None:
        """Stop the node that sends the next question, soon after it."""
        world.ambushes.append(lambda node: world.scheduler.after(self.amount / 2, self._terminate, node, 5.0))

    def _begin_kill_asker(self, world: World) -> None:
        world.ambushes.append(lambda node: world.scheduler.after(self.amount / 2, self._kill, node, 5.0))

    def _node(self, world: World) -> Node:
        return world.node_of(self.target) or world.node

    def _terminate(self, node: Node, pause: float) -> None:
        if node.is_up:
            node.terminate(pause)

    def _kill(self, node: Node, pause: float) -> None:
        if node.is_up:
            node.kill(pause)

    def _begin_reload(self, world: World) -> None:
        node = world.node
        if node.is_up and not world.disk.is_full:
            node.is_renamed, node.renamed_at = not node.is_renamed, world.scheduler.now
            world.write_configuration(node)
            node.reload()

    # The engine of several nodes.

    def _begin_engine(self, world: World) -> None:
        assert world.engines is not None
        world.engines.begin(self.target, self.amount)

    def _end_engine(self, world: World) -> None:
        assert world.engines is not None
        world.engines.end(self.target)

    def _begin_power(self, world: World) -> None:
        if world.node.is_up:
            world.node.kill(self.amount)
            world.model.torn(world.disk.tear(world.node.directory))
            world.statistics[world.node].skip()

    # The disk.

    def _begin_disk(self, world: World) -> None:
        path = world.node.statistics
        size = path.stat().st_size if path.exists() else 0
        world.disk.fill(size + int(self.amount) if self.amount else 0)

    def _end_disk(self, world: World) -> None:
        world.disk.free()

    def _begin_slow_disk(self, world: World) -> None:
        world.disk.set_delay(self.amount)

    def _end_slow_disk(self, world: World) -> None:
        world.disk.set_delay(0.0)

    def _begin_rename(self, world: World) -> None:
        path = world.node.statistics
        if path.exists():
            world.statistics[world.node].read()  # it may have been rotated just before
            path.rename(f"{path}-{int(world.scheduler.now)}")

    # The feed.

    def _begin_feed(self, world: World) -> None:
        feed = world.feed
        assert feed is not None
        feed.faults.append(self.target)
        feed.healthy_since = inf
        if self.target == "restart":
            feed.close()
        elif self.target == "garbage":
            feed.send_garbage()
        elif self.target == "dead":
            feed.die()
        elif self.target == "repeats":
            feed.send_again()
        elif self.target in NETWORK_FAULTS:
            setattr(world.zeromq, self.target, self.amount)

    def _end_feed(self, world: World) -> None:
        feed = world.feed
        assert feed is not None
        feed.faults.remove(self.target)
        if not feed.faults:
            feed.healthy_since = world.scheduler.now
        if self.target in NETWORK_FAULTS and self.target not in feed.faults:
            setattr(world.zeromq, self.target, 0.0)
        if self.target == "restart" and feed.publisher is None:
            feed.open()

    def _begin_gtfs(self, world: World) -> None:
        assert world.gtfs is not None
        world.gtfs.mode = self.target

    def _end_gtfs(self, world: World) -> None:
        assert world.gtfs is not None
        world.gtfs.mode = ""

    def _begin_planning(self, world: World) -> None:
        assert world.feed is not None
        world.feed.publish_planning()

    # The clock.

    def _begin_clock(self, world: World) -> None:
        world.step_clock(self._node(world), self.amount)


def make_reloads(random: Random, hours: float) -> list[Fault]:
    """Return when the configuration of a world is changed and reloaded."""
    faults = []
    at = CALM
    while (at := at + random.uniform(30, 400)) < 3600 * hours - 150:
        faults.append(Fault(at, 0.0, "reload"))
    return faults


def make_slow_disk(random: Random, hours: float) -> list[Fault]:
    """Return when the disk of a world is slow."""
    faults = []
    at = CALM
    while (at := at + random.uniform(100, 1500)) < 3600 * hours - 150:
        faults.append(Fault(at, random.uniform(5, 60), "slow_disk", amount=random.choice((SLOWEST / 5, SLOWEST))))
    return faults


def make_faults(random: Random, world: World) -> list[Fault]:
    """Return the faults of a world."""
    faults = []
    at = CALM
    if world.feed is not None:
        first, last = (1, 60) if world.gtfs is None else (300, 1500)
        faults.append(Fault(random.uniform(first, last), 0.0, "planning"))
    if world.feed is not None and world.seed % 2 == 0:  # longer than the stale limit
        faults.append(Fault(random.uniform(200, 1000), 450.0, "feed", random.choice(OPERATORS)))
    if world.gtfs is not None and world.seed % 4 == 3:
        faults.append(Fault(0.0, random.uniform(30, 400), "gtfs", random.choice(gtfs.MODES)))
    nodes = Random(f"{world.seed}/nodes")

    def node() -> str:
        return nodes.choice(world.nodes).host if len(world.nodes) > 1 else ""

    has_steps = world.seed % 4 == 0 or world.seed % 11 == 9  # mostly without a feed, whose rules do not apply then
    if world.seed % 4 == 0:  # one by an hour back, early enough for short worlds
        steps = Random(f"{world.seed}/steps")
        faults.append(Fault(steps.uniform(300, 1000), 0.0, "clock", steps.choice(world.nodes).host, -3600))
    while True:
        at += random.uniform(5, 100)
        if at > 3600 * world.hours - 150:
            return faults
        seconds = random.uniform(5, 60)
        choice = random.random()
        if has_steps and choice < 0.12:
            faults.append(Fault(at, 0.0, "clock", node(), random.choice(STEPS)))
        elif choice < 0.3 and world.feed is not None:
            kind = random.choice(FEED_FAULTS)
            long = random.choice((1, 8, 12) if kind in OPERATORS else (1, 1, 4, 8))
            faults.append(Fault(at, seconds * long, "feed", kind, random.choice((0.1, 0.3))))
            at += seconds * (long - 1) * random.random()
        elif choice < 0.65:
            gateway = random.choice(list(world.gateways))
            mode = random.choice((*MODES, "late", "late", "late", "late"))
            if mode in ("closed", "refuse", "late", "silent", "codeless"):
                seconds *= random.choice((1, 2, 4))
            faults.append(Fault(at, seconds, "gateway", f"{gateway}:{mode}"))
        elif choice < 0.72:
            faults.append(Fault(at, seconds, "slow", amount=random.choice((0.1, 0.3))))
        elif choice < 0.79:
            faults.append(Fault(at, seconds, "pieces", amount=random.choice((0.3, 0.8))))
        elif choice < 0.85:
            faults.append(Fault(at, 0.0, "cut", amount=random.random()))
        elif choice < 0.91:
            faults.append(Fault(at, 0.0, "terminate", node(), random.uniform(1, 20)))
        elif choice < 0.93:
            faults.append(Fault(at, 0.0, "kill", node(), random.uniform(0, 20)))
        elif choice < 0.945:
            faults.append(Fault(at, 0.0, "power", amount=random.uniform(0, 20)))
        elif choice < 0.97:
            faults.append(Fault(at, seconds, "disk", amount=random.choice((0, random.randrange(3000)))))
        elif choice < 0.985:
            faults.append(Fault(at, 0.0, "rename"))
