"""An engine in memory, with connections over StringTransport."""

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
from govi_server.sharing.address import EngineURL
from govi_server.sharing.connection import EngineConnection
from govi_server.sharing.engine import Engine
from govi_server.sharing.status import SharingStatus
from tests.sharing.engine_model import EngineModel, encode, encode_push

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

    is_silent: whether it hangs. loses_messages: whether subscribers get none. commands: all that it has received.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.connections: list[EngineTransport] = []
        self.model = EngineModel(clock.seconds, self.publish)
        self.commands: list[list[bytes]] = []
        self.refuses = self.is_silent = self.loses_messages = False

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
        if command[0] == b"SUBSCRIBE":
            transport.channels.append(command[1])
            transport.reply(encode_push(b"subscribe", command[1], 1))
        else:
            transport.reply(encode(self.model.execute(command)))

    def publish(self, channel: bytes, message: bytes) -> None:
        """Send a message to the subscribers of a channel."""
        data = encode_push(b"message", channel, message)
        for transport in self.connections:
            if channel in transport.channels and not self.loses_messages:
                self.clock.callLater(LATENCY, transport.reply, data)
