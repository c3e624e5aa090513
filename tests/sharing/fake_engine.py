"""An engine in memory, with connections over StringTransport and the scripts of SharedBoards in Python."""

from functools import partial
from typing import Any, cast

import hiredis
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.sharing import boards
from govi_server.sharing.address import EngineURL
from govi_server.sharing.connection import EngineConnection
from govi_server.sharing.engine import Engine, Script
from govi_server.sharing.status import SharingStatus

LATENCY = 0.001
"""Seconds from a command to its reply."""


class EngineTransport(StringTransport):
    """The transport of a connection: passes what is written to the engine."""

    def __init__(self, engine: "FakeEngine") -> None:
        super().__init__(hostAddress=IPv4Address("TCP", "127.0.0.1", 1))
        self.protocol: Any = None
        self._engine = engine
        self._reader = hiredis.Reader()
        self.channels: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        super().write(data)
        self._reader.feed(data)
        while (command := self._reader.gets()) is not False:
            self._engine.execute(self, command)

    def loseConnection(self) -> None:
        self._engine.clock.callLater(0, self.end)

    abortConnection = loseConnection

    def end(self) -> None:
        """Close the connection."""
        if not self.is_closed:
            self.is_closed = True
            self._engine.connections.remove(self)
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def reply(self, data: bytes) -> None:
        if not self.is_closed:
            self.protocol.dataReceived(data)


@implementer(IStreamClientEndpoint)
class FakeEngine:
    """An engine, and the endpoint to connect to it.

    is_silent: whether it hangs. error: its reply to every script. loses_messages: whether subscribers get none.
    commands: the names of all commands.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.connections: list[EngineTransport] = []
        self.values: dict[bytes, tuple[bytes, float]] = {}
        self.nodes: dict[bytes, float] = {}
        self.scripts: set[bytes] = set()
        self.commands: list[list[bytes]] = []
        self.refuses = self.is_silent = self.loses_messages = False
        self.error = b""
        self.hello = {"server": "redis", "version": "7.0.15", "proto": 3, "role": "master"}
        self._scripts = {
            script.digest.encode(): run
            for script, run in (
                (boards._CLAIM, self._claim),
                (boards._STORE, self._store),
                (boards._OFFER, self._offer),
                (boards._RELEASE, self._release),
                (boards._REGISTER, self._register),
            )
        }

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        if self.refuses:
            return fail(ConnectionRefusedError(111))
        protocol: Any = factory.buildProtocol(cast(Any, None))
        transport = EngineTransport(self)
        transport.protocol = protocol
        self.connections.append(transport)
        protocol.makeConnection(transport)
        return succeed(protocol)

    def node(self, url: EngineURL | None = None) -> Engine:
        """Return a node's engine, connected to this one when it is started."""
        status = SharingStatus(self.clock, "engine.example:6379")
        make_connection = partial(EngineConnection, self.clock, CooperativeRunner(self.clock))
        return Engine(self.clock, url or EngineURL(), {"engine.example:6379": self}, status, make_connection)

    def execute(self, transport: EngineTransport, command: list[bytes]) -> None:
        self.commands.append(command)
        if not self.is_silent:
            self.clock.callLater(LATENCY, self._execute, transport, command)

    def _execute(self, transport: EngineTransport, command: list[bytes]) -> None:
        if transport.is_closed:
            return
        match command:
            case [b"HELLO", *_]:
                reply = encode(self.hello)
            case [b"SUBSCRIBE", channel]:
                transport.channels.append(channel)
                reply = b">3\r\n" + b"".join(map(encode, (b"subscribe", channel, 1)))
            case [b"EVALSHA", digest, *_] if digest not in self.scripts:
                reply = b"-NOSCRIPT No matching script.\r\n"
            case [b"EVALSHA", digest, *operands]:
                reply = self._run(digest, operands)
            case [b"EVAL", text, *operands]:
                digest = Script(text.decode()).digest.encode()
                self.scripts.add(digest)
                reply = self._run(digest, operands)
            case _:
                reply = b"+OK\r\n"
        transport.reply(reply)

    def _run(self, digest: bytes, operands: list[bytes]) -> bytes:
        if self.error:
            return b"-" + self.error + b"\r\n"
        n = int(operands[0])
        return encode(self._scripts[digest](operands[1 : n + 1], operands[n + 1 :]))

    # What the scripts do.

    def get(self, key: bytes) -> bytes | None:
        value, expires = self.values.get(key, (b"", 0.0))
        return value if expires > self.clock.seconds() else None

    def left(self, key: bytes) -> int:
        """Return the milliseconds left to a key; -2 if there is none."""
        return -2 if self.get(key) is None else int((self.values[key][1] - self.clock.seconds()) * 1000)

    def put(self, key: bytes, value: bytes, left: int | bytes) -> None:
        self.values[key] = value, self.clock.seconds() + int(left) / 1000

    def publish(self, channel: bytes, message: bytes) -> None:
        data = b">3\r\n" + b"".join(map(encode, (b"message", channel, message)))
        for transport in self.connections:
            if channel in transport.channels and not self.loses_messages:
                self.clock.callLater(LATENCY, transport.reply, data)

    def _claim(self, keys: list[bytes], arguments: list[bytes]) -> list[object]:
        node, least_left, lifetime, max_bytes, lease, has_waited = arguments
        board, left = self.get(keys[0]), self.left(keys[0])
        if board is not None and int(least_left) <= left <= int(lifetime) and len(board) <= int(max_bytes):
            return [b"board", board, left]
        request = self.get(keys[1])
        if request is not None and request not in (node, node + b"!"):
            if request[:1] not in (b"+", b"-"):
                if int(lease) <= self.left(keys[1]) <= int(lifetime):
                    self.values[keys[1]] = request.rstrip(b"!") + b"!", self.values[keys[1]][1]
                    return [b"wait"]
            elif has_waited == b"1" and request in (b"-silent", b"-broken"):
                return [request[1:]]
        self.put(keys[1], request if request == node + b"!" else node, lifetime)
        return [b"ask"]

    def _store(self, keys: list[bytes], arguments: list[bytes]) -> int:
        value, left, lifetime, channel, code, node = arguments
        request = self.get(keys[1])
        if self.left(keys[0]) < int(left) or self.left(keys[0]) > int(lifetime):
            self.put(keys[0], value, left)
        self.put(keys[1], b"+", lifetime)
        if request != node:
            self.publish(channel, code)
        return 1

    def _offer(self, keys: list[bytes], arguments: list[bytes]) -> bytes:
        request = self.get(keys[1])
        if request is None:
            return b"unknown"
        if request == b"+":
            return b"repeated"
        self._store(keys, arguments)
        return b"stored"

    def _release(self, keys: list[bytes], arguments: list[bytes]) -> int:
        node, outcome, lifetime, channel, code = arguments
        request = self.get(keys[0])
        if request in (node, node + b"!"):
            self.put(keys[0], outcome, lifetime)
            if request != node:
                self.publish(channel, code)
        return 1

    def _register(self, keys: list[bytes], arguments: list[bytes]) -> list[object]:
        address, _, channel, message = arguments
        if address and address not in self.nodes:
            self.nodes[address] = self.clock.seconds()
            self.publish(channel, message)
        return list(self.nodes)


def encode(value: object) -> bytes:
    """Encode a reply in RESP3."""
    match value:
        case dict():
            return b"%%%d\r\n" % len(value) + b"".join(encode(part) for item in value.items() for part in item)
        case list():
            return b"*%d\r\n" % len(value) + b"".join(map(encode, value))
        case int():
            return b":%d\r\n" % value
        case str():
            return encode(value.encode())
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(value), value)
    raise TypeError(value)
