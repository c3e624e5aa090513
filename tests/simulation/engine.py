"""The engine of a world with several nodes, and its replica: RESP over the simulated network, and what goes wrong.

The engine runs the program's own Lua scripts (tests.sharing.engine_model). Its clock differs from that of the nodes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from math import inf
from random import Random
from typing import TYPE_CHECKING

import hiredis

from tests.sharing.engine_model import EngineModel, encode, encode_push
from tests.simulation.faults import Fault
from tests.simulation.http_client import Wire
from tests.simulation.network import ListeningSocket

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

HOSTS = ("10.0.3.1", "10.0.3.2")
PORT = 6379
CLOCK_OFFSET = -86_400.5
REPLICATION_SECONDS = 1.0
"""The last writes before a failover, which may be lost."""
BOARD_SECONDS = 300.0
FAST = 0.1
"""The longest delay of a reply, and the longest latency of a connection, with which the engine is well."""

MODES = (
    "slow", "hung", "down", "loading", "unreachable", "failover", "full", "error", "garbage", "junk", "evict",
    "flush", "cut", "mute", "isolated",
)  # fmt: skip
"""The ways in which the engine misbehaves, each for a while."""
MOMENTARY = ("junk", "evict", "flush", "cut", "isolated", "mute")
"""Those with which it serves the connections that it has, and their claims, as well as before or after."""
LOSING = ("down", "loading", "failover", "junk", "evict", "flush")
"""Those that lose data."""

_NODE = re.compile(rb"[0-9a-f]{32}")
"""The name of a process in claims."""


class _Client:
    """A connection."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.host = wire.sock.remote[0]
        self.reader = hiredis.Reader()
        self.channels: list[bytes] = []
        self.free_at = 0.0
        """When its last command is executed."""


class _Server:
    """An engine on a machine."""

    def __init__(self, engines: Engines, host: str) -> None:
        self.engines = engines
        self.world = world = engines.world
        self.host = host
        self.model = EngineModel(lambda: world.scheduler.now + CLOCK_OFFSET, self._publish)
        self.clients: list[_Client] = []
        self.delay = 0.0
        self.is_hung = self.is_loading = self.is_mute = False
        self.isolated = ""
        """The machine whose connections get no replies."""
        self.garbage = 0.0
        """The fraction of replies that are not RESP."""
        self._listening: ListeningSocket | None = None
        self.open()

    # Connections.

    def open(self) -> None:
        if self._listening is None:
            self._listening = listening = ListeningSocket(self.world.network, self.host)
            listening.bind(("", PORT))
            listening.watchers.append(self._accept)

    def close(self) -> None:
        """End, as a process that is killed."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        self.cut(1.0)

    def cut(self, fraction: float) -> None:
        """Lose connections."""
        for client in list(self.clients):
            if self.engines.random.random() < fraction:
                self._lost(client)

    def _lost(self, client: _Client) -> None:
        client.wire.abort()
        self._ended(client)

    def _accept(self) -> None:
        while not self.is_hung and self._listening is not None and self._listening.queue:
            sock, _ = self._listening.accept()
            client = _Client(Wire(sock))
            client.wire.paused = client.host == self.isolated
            self.clients.append(client)
            client.wire.on_data = lambda data, client=client: self._received(client, data)  # type: ignore[misc]
            client.wire.on_end = lambda client=client: self._ended(client)  # type: ignore[misc]
            client.wire.begin()

    def _ended(self, client: _Client) -> None:
        if client in self.clients:
            self.clients.remove(client)
            self.engines.logged_out(client.host, self)
            client.wire.close()

    def hang(self) -> None:
        """Read nothing, as a process that is suspended."""
        self.is_hung = True
        for client in self.clients:
            client.wire.paused = True

    def resume(self) -> None:
        """Execute what has arrived meanwhile."""
        self.is_hung = False
        for client in list(self.clients):
            client.wire.resume()
        self._accept()

    def isolate(self, host: str) -> None:
        """Do not receive anything from a machine; "" for none."""
        previous, self.isolated = self.isolated, host
        for client in list(self.clients):
            if client.host == host:
                client.wire.paused = True
            elif client.host == previous:
                self._lost(client)

    # Commands.

    def _received(self, client: _Client, data: bytes) -> None:
        client.reader.feed(data)
        scheduler = self.world.scheduler
        while (command := client.reader.gets()) is not False:
            client.free_at = max(client.free_at, scheduler.now + self.delay)
            if client.free_at > scheduler.now:
                scheduler.at(client.free_at, self._execute, client, command)
            else:
                self._execute(client, command)

    def _execute(self, client: _Client, command: list[bytes]) -> None:
        if client.wire.closed:
            return
        name = command[0].upper()
        if self.is_loading:
            reply = b"-LOADING Redis is loading the dataset in memory\r\n"
        elif name == b"SUBSCRIBE":
            client.channels.append(command[1])
            reply = encode_push(b"subscribe", command[1], len(client.channels))
            if len(client.channels) == len(self.world.gateways):
                self.engines.logged_in(client, self)
        else:
            if name in (b"EVAL", b"EVALSHA"):
                self.engines.note_names(command, client.host)
            reply = encode(self.model.execute(command))
        if self.garbage and self.engines.random.random() < self.garbage:
            reply = self.engines.random.choice(
                (b"\x00\xff\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*1\r\n", b"_\r\n")
            )
        client.wire.send(reply)

    def _publish(self, channel: bytes, message: bytes) -> None:
        if not self.is_mute:
            data = encode_push(b"message", channel, message)
            for client in self.clients:
                if channel in client.channels:
                    client.wire.send(data)

    def spoil(self, fraction: float) -> None:
        """Overwrite keys, as another program that uses the same ones."""
        random = self.engines.random
        boards = [entry.value for key, entry in self.model.entries.items() if b":b:" in key]
        for key, entry in list(self.model.entries.items()):
            if random.random() < fraction:
                value = random.choice([b"", b"1\n<x>", b"\xff" * 50, b"2\n", b"+" * 9, {b"member": 1.0}, *boards])
                expires = random.choice((entry.expires, inf, self.model.now() + 1e6))
                self.model.entries[key] = replace(entry, value=value, expires=expires)

    def evict(self, fraction: float) -> None:
        """Evict keys, as an engine whose memory is full."""
        for key in list(self.model.entries):
            if self.engines.random.random() < fraction:
                del self.model.entries[key]


class Engines:
    """The engine and its replica. Nodes know the addresses of both."""

    url = f"redis://{','.join(f'{host}:{PORT}' for host in HOSTS)}"

    def __init__(self, world: World, random: Random) -> None:
        self.world = world
        self.random = random
        self.mode = ""
        self.healthy_since = world.scheduler.now
        """When it began to behave; inf while it does not."""
        self.heard_since = world.scheduler.now
        """The same for messages of channels."""
        self.changed_at = -inf
        """When a fault last began or ended."""
        self.lost_data_at = -inf
        self.met_at = -inf
        """When all nodes were last served well at the same time, and so know each other."""
        self.was_spoiled = False
        """Whether it has had values of another program."""
        self.names: dict[bytes, int] = {}
        """The processes by their names in claims."""
        self._logins: dict[str, tuple[_Server, float, float]] = {}
        """By machine: the server to which it is connected, since when, and the latency of the connection."""
        self.servers = [_Server(self, host) for host in HOSTS]
        self.servers[1].model.hello["role"] = "replica"
        self._master = 0

    @property
    def master(self) -> _Server:
        return self.servers[self._master]

    # What the rules know.

    def logged_in(self, client: _Client, server: _Server) -> None:
        latency = client.wire.sock.latency
        self._logins[client.host] = server, self.world.scheduler.now if latency <= FAST else inf, latency

    def logged_out(self, host: str, server: _Server) -> None:
        if self._logins.get(host, (None,))[0] is server:
            del self._logins[host]

    def well_since(self, node: Node) -> float:
        """Return since when a node has been served well; inf if it is not."""
        server, since, _ = self._logins.get(node.host, (None, inf, inf))
        is_served = server is self.master and server.isolated != node.host
        return max(self.healthy_since, since) if is_served else inf

    @property
    def slowest(self) -> float:
        """The latency of the slowest of the nodes' connections in seconds; inf if one has none."""
        return max(self._logins.get(node.host, (None, inf, inf))[2] for node in self.world.nodes)

    def is_steady(self) -> bool:
        """Return whether each node has the engine, or has not, for long enough that no question began before.

        A node that was started without it does not know the others.
        """
        if any(node.started_at > self.met_at for node in self.world.nodes):
            return False
        return self.mode not in ("garbage", "evict") and self.world.scheduler.now - self.changed_at > 20

    def is_connected(self, node: Node) -> bool:
        """Return whether a node is connected to the master."""
        return node.host in self._logins and self._logins[node.host][0] is self.master

    def note_names(self, command: list[bytes], host: str) -> None:
        """Note which process has which name."""
        node = self.world.node_of(host)
        for argument in command[3:]:
            if len(argument) == 32 and _NODE.fullmatch(argument) and node is not None:
                self.names.setdefault(argument, node.epoch)

    def claims(self) -> list[tuple[bytes, bytes, float]]:
        """Return the claims that have not ended: with the name of the process, and when it was last made."""
        now = self.master.model.now()
        return [
            (key, entry.value.rstrip(b"!"), entry.expires - BOARD_SECONDS - CLOCK_OFFSET)
            for key, entry in self.master.model.entries.items()
            if b":f:" in key and isinstance(entry.value, bytes) and entry.expires > now
            if not entry.value.startswith((b"+", b"-"))
        ]

    # Faults.

    def begin(self, mode: str, amount: float) -> None:
        """Begin to misbehave."""
        if self.mode:
            self.end(self.mode)
        self.mode = mode
        now, master = self.world.scheduler.now, self.master
        self.changed_at = now
        if mode == "mute":
            self.heard_since = inf
        if mode not in MOMENTARY and (mode != "slow" or 2 * amount > FAST):
            self.healthy_since = inf
        if mode in LOSING:
            self.lost_data_at = now
        match mode:
            case "slow":
                master.delay = 2 * amount
            case "hung":
                master.hang()
            case "down" | "loading":
                master.close()
                master.model.clear()
                if mode == "loading":
                    master.is_loading = True
                    master.open()
            case "unreachable":
                self.world.network.unreachable.add((master.host, PORT))
                master.hang()
            case "failover":
                master.model.hello["role"] = "replica"
                if amount > 0.5:
                    master.close()
            case "full":
                master.model.is_full = True
            case "error":
                master.model.error = self.random.choice(
                    ("ERR internal", "MISCONF Errors writing to disk", "NOPERM no", "NOAUTH Authentication required.")
                )
            case "garbage":
                master.garbage = amount
            case "junk":
                self.was_spoiled = True
                master.spoil(amount)
            case "evict":
                self._evict(amount)
            case "flush":
                master.model.clear()
            case "cut":
                master.cut(amount)
            case "mute":
                master.is_mute = True
            case "isolated":
                nodes = self.world.nodes
                master.isolate(nodes[int(amount * len(nodes))].host)

    def end(self, mode: str) -> None:
        """End a way of misbehaving, unless another one has begun meanwhile."""
        if mode != self.mode:
            return
        self.mode = ""
        now, master = self.world.scheduler.now, self.master
        self.changed_at = now
        if mode in LOSING:
            self.lost_data_at = now
        match mode:
            case "slow":
                master.delay = 0.0
            case "hung":
                master.resume()
            case "down":
                master.open()
            case "loading":
                master.is_loading = False
            case "unreachable":
                self.world.network.unreachable.discard((master.host, PORT))
                master.cut(1.0)
                master.resume()
            case "failover":
                self._promote()
            case "full":
                master.model.is_full = False
            case "error":
                master.model.error = ""
            case "garbage":
                master.garbage = 0.0
            case "mute":
                master.is_mute = False
            case "isolated":
                master.isolate("")
        if self.healthy_since == inf:
            self.healthy_since = now
        if self.heard_since == inf:
            self.heard_since = now

    def heal(self) -> None:
        """End whatever is wrong."""
        self.end(self.mode)

    def _promote(self) -> None:
        """Make the replica the master, with all but the last writes of the previous one."""
        old = self.master
        self._master = 1 - self._master
        new = self.master
        before = old.model.now() - REPLICATION_SECONDS * self.random.random()
        new.model.entries = {key: entry for key, entry in old.model.entries.items() if entry.written_at <= before}
        new.model.hello["role"] = "master"
        old.model.clear()
        old.open()

    def _evict(self, amount: float) -> None:
        if self.mode == "evict":
            self.master.evict(amount)
            self.lost_data_at = self.world.scheduler.now
            self.world.scheduler.after(1.0, self._evict, amount)


def make_engine_faults(random: Random, hours: float) -> list[Fault]:
    """Return the faults of an engine, and those that a node has while it requests a board."""
    faults = []
    at = 30.0
    while (at := at + random.uniform(20, 150)) < 3600 * hours - 150:
        if random.random() < 0.2:
            kind = random.choice(("kill_asker", "terminate_asker"))
            faults.append(Fault(at, 0.0, kind, amount=random.random()))
        else:
            seconds = random.choice((2.0, 10.0, 40.0)) * random.uniform(0.5, 1.5)
            faults.append(Fault(at, seconds, "engine", random.choice(MODES), random.random()))
    return faults
