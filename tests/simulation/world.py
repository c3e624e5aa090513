"""The world of one seed: machines, users, faults and oracles, and the hash of what the clients received."""

from __future__ import annotations

import gzip
import re
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from tests.simulation.balancer import Balancer
from tests.simulation.disk import Disk
from tests.simulation.engine import Engines, make_engine_faults
from tests.simulation.faults import Fault, make_faults, make_reloads, make_slow_disk
from tests.simulation.feed import ADDRESS, LEVELS, LINES, LIVE_LINES, STOPS, FeedWorld, Model, moments, starts
from tests.simulation.feed_oracles import FEED_ORACLES
from tests.simulation.gateway import ZONE, Answer, Gateway, Question
from tests.simulation.gateway_oracles import GATEWAY_ORACLES, Boards, OneQuestion
from tests.simulation.gtfs import URL, GtfsServer
from tests.simulation.http_oracles import HTTP_ORACLES
from tests.simulation.network import Network, Socket
from tests.simulation.node import Node
from tests.simulation.oracles import ORACLES, Oracle
from tests.simulation.scheduler import Scheduler
from tests.simulation.shared_oracles import SHARED_ORACLES, OneQuestionForAll, SharedBoards
from tests.simulation.statistics_oracles import KEEP, ROTATE_BYTES, Gauges, Statistics
from tests.simulation.users import (
    BURST,
    RATE,
    Browser,
    Commuter,
    Display,
    Exchange,
    Explorer,
    Flooder,
    HangsUp,
    Hostile,
    LiveDisplay,
    Operator,
    Pipeliner,
    Session,
    SlowReader,
    User,
)
from tests.simulation.zeromq import ZeroMQ

RENAMED = "renamed.example"
"""A name of the operators' port that a reloaded configuration may have."""
N_USERS = 50
TRACE = 60
"""Events that a failure shows."""
CYCLE = 1800.0
"""Seconds from one quiet time to the next."""
QUIET = 60.0
"""Seconds of a quiet time: all deadlines pass in it."""
STEP_MEMORY = 3.0
CACHE_BYTES = 1_000_000
"""Enough for the boards of all stops of a module, with their documents."""
TIGHT = (
    "[cache]", "entries = 6", "flights = 4",
    "[feed.passtimes]", "passes = 60", "messages = 4", "stops = 8", "[feed.cache]", "bytes = 200000",
)  # fmt: skip
"""Settings of a tight world."""

BEGINNINGS = (
    "2026-03-10 08:00", "2026-06-05 23:20", "2026-07-01 16:30", "2026-10-25 01:10", "2028-02-28 23:15",
    "2026-12-31 23:30", "2026-03-29 00:40",
)  # fmt: skip
"""Local times at which worlds begin: a morning, midnights, both changes of the clocks, a leap day."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule."""

    oracle: str
    time: float
    """Seconds since the beginning of the world."""
    text: str


@implementer(ILogObserver)
class _LogObserver:
    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, event: LogEvent) -> None:
        self._world.logged(event)


class World:
    """Everything of one seed. faults: those to use of the seed's faults, all by default."""

    def __init__(self, seed: int, hours: float = 1.0, faults: list[int] | None = None) -> None:
        self.seed = seed
        self.hours = hours
        random = Random(f"{seed}/world")
        text = BEGINNINGS[seed % len(BEGINNINGS)]
        begin = datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp()
        self.begin = begin
        self.end = begin + 3600 * hours
        self.scheduler = Scheduler(begin)
        self.network = Network(self.scheduler, Random(f"{seed}/network"))
        self.zeromq = ZeroMQ(self.scheduler, self.network, Random(f"{seed}/zeromq"))
        self.violation: Violation | None = None
        self.trace: deque[str] = deque(maxlen=TRACE)
        self._hash = blake2b(digest_size=16)
        self.n_events = 0
        self.is_quiet = False
        self.is_over = False
        self.ended_at = begin
        self.sessions: dict[Session, None] = {}
        self.steps: list[float] = []
        """When the clock was set (steady time)."""
        self.log_was_lossy = False
        self.n_processes = 0
        self.killed_epochs: set[int] = set()
        self.ambushes: list[Callable[[Node], object]] = []
        """Called with the node that sends the next question to a gateway."""
        self.browsers: list[Browser] = []
        self.model = Model()
        """What the current process has received from the feed."""
        n_nodes = 2 + seed % 2 if seed % 5 in (2, 4) else 1
        self.feed: FeedWorld | None = None
        if seed % 4 and n_nodes == 1:  # the feed is not shared
            self.feed = feed = FeedWorld(self, Random(f"{seed}/feed"))
            self.zeromq.on_read = feed.received
        self._directory = tempfile.TemporaryDirectory(prefix="govi-simulation-")
        self.nodes = [self._make_node(number) for number in range(1, n_nodes + 1)]
        self.node = self.nodes[0]
        self.balancer = Balancer(self)
        self.engines = Engines(self, Random(f"{seed}/engines")) if n_nodes > 1 else None
        self.disk = Disk(self, Random(f"{seed}/disk"))
        self.is_tight = seed % 6 == 5 and n_nodes == 1
        """Whether all tables are smaller than what happens in the world."""
        has_gtfs = self.feed is not None and seed % 4 in (1, 3) and not self.is_tight
        self.gtfs = GtfsServer(self, Random(f"{seed}/gtfs")) if has_gtfs else None
        modules = ["kv55", "arriva"] if seed % 3 else ["kv55"]
        self.gateways = {
            module: Gateway(self, module, f"10.0.1.{n}", 8090 + n, Random(f"{seed}/gateway/{module}"))
            for n, module in enumerate(modules, 1)
        }
        self.statistics = {node: Statistics(self, node) for node in self.nodes}
        rules: list[type[Oracle]] = [*ORACLES, *GATEWAY_ORACLES, Gauges, *HTTP_ORACLES, *FEED_ORACLES]
        if self.engines is not None:
            shared = {Boards: SharedBoards, OneQuestion: OneQuestionForAll}
            rules = [shared.get(rule, rule) for rule in rules] + [*SHARED_ORACLES]
        self.oracles: list[Oracle] = [*self.statistics.values(), *(rule(self) for rule in rules)]
        self.faults = make_faults(Random(f"{seed}/faults"), self)
        self.faults += make_slow_disk(Random(f"{seed}/slow disk"), hours)
        self.faults += make_reloads(Random(f"{seed}/reloads"), hours)
        if self.engines is not None:
            self.faults += make_engine_faults(Random(f"{seed}/engine faults"), hours)
        self.faults.sort(key=lambda fault: fault.at)
        self.selected = list(range(len(self.faults))) if faults is None else faults
        for node in self.nodes:
            self.write_configuration(node)
        self.network.on_accept = self._accepted
        kinds: list[type[User]] = [HangsUp] * 5 + [SlowReader] * 3 + [Hostile] * 2 + [Pipeliner] * 3 + [Browser] * 4
        kinds += [Commuter] * 6
        if self.feed is not None:
            kinds += [LiveDisplay] * 14
        kinds += [Flooder, Explorer]
        self.operators = {node: Operator(self, node, n * N_USERS) for n, node in enumerate(self.nodes)}
        self.users: list[User] = []
        for number in range(1, N_USERS):
            make = kinds[number - 1] if number <= len(kinds) else Display
            self.users.append(make(self, self.node, number))
        self._by_host = {user.host: user for user in self.users}
        self.random = random

    def _make_node(self, number: int) -> Node:
        directory = Path(self._directory.name, str(number))
        directory.mkdir()
        return Node(self, f"10.0.0.{number}", directory)

    def next_epoch(self) -> int:
        """Return the number of a new process."""
        self.n_processes += 1
        return self.n_processes

    def node_of(self, host: str) -> Node | None:
        """Return the node with an address."""
        return next((node for node in self.nodes if node.host == host), None)

    def is_current(self, epoch: int) -> bool:
        """Return whether a process runs."""
        return any(node.epoch == epoch and node.service is not None for node in self.nodes)

    def write_configuration(self, node: Node) -> None:
        """Write the configuration file of a node, as an operator would."""
        lines = ['listen = ["tcp:8080"]']
        allow = ["10.0.1.0/24"] if self.engines is None else ["10.0.0.0/24", "10.0.1.0/24"]
        for gateway in self.gateways.values():
            lines += [
                f"[modules.{gateway.module}]", 'source = "govi"', f'gateway_url = "{gateway.url}"',
                f'callback = "tcp:{gateway.callback_port}"', f"allow = {allow}",
            ]  # fmt: skip
        if self.feed is not None:
            lines += ["[modules.live]", 'source = "kv78turbo"', "[feed]", f'addresses = ["{ADDRESS}"]']
            lines.append(f'gtfs = "{URL if self.gtfs is not None else ""}"')
        lines += ["[access]", f"burst = {BURST}", f"rate = {RATE}"]
        if self.is_tight:
            lines += TIGHT
        else:
            lines += ["[cache]", f"bytes = {CACHE_BYTES}"]
        if self.engines is not None:
            lines += ["[share]", f'url = "{self.engines.url}"']
        lines += [
            "[statistics]", f'file = "{node.statistics}"',
            f"rotate = {ROTATE_BYTES}", f"keep = {KEEP}",
            "[snapshot]", f'file = "{node.snapshot}"',
            "[admin]", 'listen = "tcp:8081"',
            f"hosts = {['departures.example', RENAMED] if node.is_renamed else ['departures.example']}",
        ]  # fmt: skip
        (node.directory / "govi-cache.toml").write_text("\n".join(lines) + "\n")

    # The course of events.

    def run(self) -> Violation | None:
        """Run the world; return the first violation."""
        with self.disk.mounted():
            return self._run()

    def _run(self) -> Violation | None:
        observer = _LogObserver(self)
        globalLogPublisher.addObserver(observer)
        scheduler = self.scheduler
        try:
            for node in self.nodes:
                node.start()
            scheduler.after(1.0, self._tick)
            for n in self.selected:
                fault = self.faults[n]
                scheduler.at(self.begin + fault.at, self._begin_fault, fault)
            at = self.begin + min(CYCLE, 3600 * self.hours - QUIET - 1)
            while at < self.end:
                scheduler.at(at - QUIET, self._quieten)
                scheduler.at(at, self._check_quiet)
                at += CYCLE
            scheduler.run(self.end, lambda: self.violation is not None)
        except Exception as error:
            self.found("simulation", f"{type(error).__name__}: {error}")
            raise
        finally:
            self._finish()
            globalLogPublisher.removeObserver(observer)
        return self.violation

    def _finish(self) -> None:
        """End the processes, and free everything."""
        violation = self.violation
        self.is_over = True
        self.disk.free()
        self.ended_at = self.scheduler.now
        for node in self.nodes:
            if node.is_up:
                node.terminate()
        self.scheduler.run(self.scheduler.now + 60)
        for node in self.nodes:
            if node.reactor is not None:
                node.reactor.crash()
        self.violation = violation
        self._directory.cleanup()

    def _tick(self) -> None:
        self.scheduler.after(1.0, self._tick)
        if int(self.scheduler.now) % 300 == 0:
            self.model.forget(self.scheduler.now)
        for oracle in self.oracles:
            oracle.tick()

    def _quieten(self) -> None:
        self.is_quiet = True
        self.event("quiet", "begins")
        for gateway in self.gateways.values():
            gateway.set_mode("")
        self.disk.free()
        self.disk.set_delay(0.0)
        if self.engines is not None:
            self.engines.heal()
        for node in self.nodes:
            node.start()
        for user in self.users:
            user.quieten()
        # Clients that still wait have their responses; then all hang up.
        self.scheduler.after(14.0, self._hang_up)

    def _hang_up(self) -> None:
        for session in list(self.sessions):
            session.close()

    def _check_quiet(self) -> None:
        self.event("quiet", "ends")
        if all(node.is_up for node in self.nodes):
            for oracle in self.oracles:
                oracle.quiet()
        self.scheduler.after(3.0, self._wake)

    def _wake(self) -> None:
        self.is_quiet = False

    def _begin_fault(self, fault: Fault) -> None:
        if self.is_quiet or self.is_over:
            return
        self.event("fault", str(fault))
        fault.begin(self)
        self.scheduler.after(fault.seconds, self._end_fault, fault)

    def _end_fault(self, fault: Fault) -> None:
        self.event("fault ends", str(fault))
        fault.end(self)

    # What happens.

    def event(self, kind: str, text: str) -> None:
        if self.violation is not None or self.is_over:
            return
        self.n_events += 1
        now = self.scheduler.now - self.begin
        self.trace.append(f"{now:12.6f} {kind:12} {text}")
        self._hash.update(f"{now:.6f} {kind} {text}\n".encode())

    def received(self, user: User, data: bytes) -> None:
        """A client has received bytes."""
        if self.violation is not None or self.is_over:
            return
        self.n_events += 1
        now = self.scheduler.now - self.begin
        self.trace.append(f"{now:12.6f} {'received':12} {user.name} {data[:60]!r} ({len(data)} bytes)")
        if isinstance(user, Operator):
            return  # see completed()
        self._hash.update(f"{now:.6f} received {user.name} {len(data)}\n".encode())
        self._hash.update(data)

    def found(self, oracle: str, text: str) -> None:
        """A rule is broken."""
        if self.violation is None:
            self.violation = Violation(oracle, self.scheduler.now - self.begin, text)

    def logged(self, event: LogEvent) -> None:
        for oracle in self.oracles:
            oracle.logged(event)

    def sent(self, exchange: Exchange) -> None:
        for oracle in self.oracles:
            oracle.sent(exchange)

    def completed(self, exchange: Exchange) -> None:
        if isinstance(exchange.user, Operator) and exchange.path in ("/ready", "/health", "/metrics"):
            # The metrics of the process, and the Date of Twisted's own server, are those of the real machine.
            body = re.sub(rb"(?m)^(# \w+ )?(process|python)_.*\n", b"", self.plain_body(exchange))
            now = self.scheduler.now - self.begin
            self._hash.update(f"{now:.6f} {exchange.path} {exchange.status}\n".encode() + body)
        for oracle in self.oracles:
            oracle.completed(exchange)

    def abandoned(self, exchange: Exchange) -> None:
        for oracle in self.oracles:
            oracle.abandoned(exchange)

    def asked(self, gateway: Gateway, question: Question) -> None:
        while self.ambushes:
            self.ambushes.pop()(question.node)
        for oracle in self.oracles:
            oracle.asked(gateway, question)

    def acknowledged(self, gateway: Gateway, answer: Answer | None, *arguments: Any) -> None:
        self.event("acknowledged", f"{gateway.module} {answer.serial if answer else 'again'} {arguments[:2]}")
        for oracle in self.oracles:
            oracle.acknowledged(gateway, answer, *arguments)

    def stopped(self, node: Node, was_full: bool) -> None:
        """A process has ended in good order; what it has sent has arrived. On a full disk it could save nothing."""
        if was_full:
            self.model.killed(self.scheduler.now)
        for oracle in self.oracles:
            oracle.stopped(node, not was_full)

    def killed(self, node: Node) -> None:
        for oracle in self.oracles:
            oracle.stopped(node, False)
        self.model.killed(self.scheduler.now)
        self.killed_epochs.add(node.epoch)

    def processed(self, arguments: list[str], status: int) -> None:
        """A child process has run: the compiler of GTFS files."""
        source, target = Path(arguments[4]), Path(arguments[7])
        self.event("process", f"{arguments[5]} {status} {target.exists()}")
        if self.gtfs is not None and target.exists():
            self.gtfs.compiled(source.read_bytes())

    def _accepted(self, sock: Socket) -> None:
        user = self._by_host.get(sock.remote[0])
        node = self.node_of(sock.local[0])
        if user is not None and node is not None and sock.local[1] == 8080:
            user.books[node].connections += 1

    # The clock.

    def step_clock(self, node: Node, step: float) -> None:
        self.steps.append(self.scheduler.now)
        node.set_clock(step)

    def stepped_since(self, time: float) -> bool:
        """Return whether the clock was set since a time, or just before."""
        return bool(self.steps) and self.steps[-1] > time - 15

    def step_slack(self, since: float) -> float:
        """Return the seconds that deadlines may be late because the clock was set since a time."""
        return STEP_MEMORY if self.stepped_since(since) else 0.0

    def feed_is_healthy(self, seconds: float) -> bool:
        """Return whether the feed has been well for so long."""
        return self.feed is None or (
            self.scheduler.now - self.feed.healthy_since > seconds
            and self.model.first is not None
            and self.scheduler.now - self.model.first > seconds
        )

    def is_clock_change(self, time: float) -> bool:
        """Return whether the clocks change within a few hours of a time."""
        local = datetime.fromtimestamp(time, ZONE)
        return any(
            datetime.fromtimestamp(time + hours * 3600, ZONE).utcoffset() != local.utcoffset() for hours in (-3, 3)
        )

    def skips_an_hour(self, time: float) -> bool:
        """Return whether an hour is skipped within a few hours of a time: journeys an hour apart then coincide."""
        before, after = (datetime.fromtimestamp(time + hours * 3600, ZONE).utcoffset() for hours in (-3, 3))
        assert before is not None
        assert after is not None
        return before < after

    def plain_body(self, exchange: Exchange) -> bytes:
        """Return the body of a response without its content coding; of a 304, the body that the client has."""
        if exchange.status == 304 and exchange.known is not None:
            exchange = exchange.known
        assert exchange.response is not None
        body = exchange.response.body
        return gzip.decompress(body) if exchange.header("content-encoding") == "gzip" else body

    # What users ask for.

    def display_paths(self, random: Random, most: int = 3) -> list[str]:
        paths = []
        for _ in range(random.randrange(1, most + 1)):
            gateway = random.choice(list(self.gateways.values()))
            code = random.choice(gateway.stops) if random.random() < 0.97 else "99999999"
            paths.append(f"/{gateway.module}/{code}")
        return paths

    def board_stop(self, random: Random) -> str:
        """Return a stop that /board and /events have: of the feed, or else of the first gateway."""
        return random.choice(STOPS if self.feed is not None else next(iter(self.gateways.values())).stops)

    def feed_paths(self, random: Random) -> list[str]:
        code, another = random.sample(STOPS, 2)
        line = random.choice(LIVE_LINES)
        siri = "/siri/stop-monitoring.json?MonitoringRef="
        forms = (
            f"/live/{code}", f"/live/{code}", f"/board/{code}", f"/tpc/{code}", f"/tpc/{code},{another}",
            f"{siri}{code}", f"{siri}{another}", f"/board/{code}", f"/live/{code},{another}?limit=3",
            f"/tpc/{code}/departures", f"/line/{LINES[line]}_{line}_1{random.choice(('', '/actuals'))}",
        )  # fmt: skip
        middle = self.begin + 1800
        day = datetime.fromtimestamp(middle - 5 * 3600, ZONE).date()
        near = [number for number, start in starts(line) if abs(moments(day, start)[0] - middle) < 1800]
        number = random.choice(near or [1001])
        journey = f"/journey/{LINES[line]}_{LEVELS[line]}_{line}_{number}_0"
        return [random.choice(forms[:3]), *random.sample(forms, 2), journey]

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()
