"""The engine: one connection to Valkey or Redis, which is opened again whenever it is lost.

Not a ClientService: that logs every attempt, and raises NoTransition if a connection is lost while it is prepared
(Twisted 26.10).
"""

import re
from collections.abc import Callable, Mapping
from hashlib import sha1
from itertools import cycle
from typing import Any, Protocol, cast

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from govi_server.runtime.failures import connect_failure
from govi_server.runtime.repeated_call import RepeatedCall
from govi_server.runtime.text import printable
from govi_server.sharing.address import CONNECT_TIMEOUT, EngineURL
from govi_server.sharing.status import SharingStatus

RETRY_SECONDS = 1.0
"""Time between two attempts to connect."""

PING_SECONDS = 1.0
"""Time between checks that the engine replies, so that its state is right also without requests."""

REPLY_TIMEOUT = 0.4
"""Seconds until the reply to a command; then the connection is aborted, since an engine replies in a fraction of a
millisecond. A request of a client is delayed by at most half a second, once."""

CLOSE_SECONDS = 1.0
"""Time for the last commands to be sent when the program stops."""

MIN_VERSION = (7, 0)
"""Of Redis; the first version of Valkey is 7.2. Older ones have no flags of scripts, and other errors."""

MAX_REASON = 200
"""Characters of the engine's error texts."""

_EXPECTED = "expected Redis 7.0, Valkey 7.2 or newer"
_LOST_MASTER = ("READONLY", "MASTERDOWN", "LOADING", "NOAUTH", "UNBLOCKED")
"""Errors of an engine that is no longer, or not yet, the one to use."""


class EngineUnavailable(Exception):
    """The engine did not reply; the message is the reason."""


class EngineError(Exception):
    """The engine replied with an error, which is the message."""


class Connection(Protocol):
    """A connection to the engine. It is a protocol for Twisted, too.

    lost: fires with the reason when the connection is lost.
    """

    transport: Any
    lost: Deferred[str]
    is_lost: bool

    def command(self, *arguments: str | bytes | int) -> Deferred[Any]:
        """Send a command; return a Deferred of the reply. Fails with EngineError or EngineUnavailable."""

    def set_timeout(self, seconds: float) -> None:
        """Set the time limit of replies."""

    def abort(self, reason: str) -> None:
        """Close the connection without waiting for replies."""

    def close(self) -> None:
        """Close the connection when all commands are sent."""


MakeConnection = Callable[[Callable[[bytes, bytes], object]], Connection]
"""Makes a connection from the function that is called with each channel and message."""


class Script:
    """A Lua script, which the engine runs as one command: https://redis.io/docs/latest/develop/programmability/."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest()


class Engine(Service):
    """Runs scripts in an engine, and passes on the messages of its channels.

    endpoints: the addresses by name, tried in turn until one is a master. name: of this client, in the engine's list.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        url: EngineURL,
        endpoints: Mapping[str, IStreamClientEndpoint],
        status: SharingStatus,
        make_connection: MakeConnection,
        name: str = "govi-cache",
    ) -> None:
        self._clock = clock
        self._url = url
        self._endpoints = endpoints
        self._make_connection = make_connection
        self._name = name
        self.status = status
        self.database = url.database
        self._connection: Connection | None = None
        self._loaded: set[str] = set()
        """The digests of scripts that were sent over this connection."""
        self._listeners: dict[bytes, Callable[[bytes], object]] = {}
        self._connected: list[Callable[[], object]] = []
        self.local_host = "127.0.0.1"
        """The IP address of this machine from which it was last connected; loopback for a UNIX socket."""
        self._work: Deferred[None] | None = None
        self._pings = RepeatedCall("Pinging the engine", clock, PING_SECONDS, self._ping, now=False)

    def listen(self, channel: str, on_message: Callable[[bytes], object]) -> None:
        """Call a function with each message of a channel; to be called before the service starts."""
        self._listeners[channel.encode()] = on_message

    def on_connected(self, function: Callable[[], object]) -> None:
        """Call a function whenever the engine is connected; to be called before the service starts."""
        self._connected.append(function)

    def startService(self) -> None:
        """Connect, again and again."""
        super().startService()
        self._work = Deferred.fromCoroutine(self._stay_connected())
        self._work.addErrback(self._ended)
        self._pings.startService()

    async def stopService(self) -> None:
        """Close the connection."""
        super().stopService()
        self._pings.stopService()
        connection = self._connection
        if self._work is not None:
            self._work.cancel()
        if connection is not None and not connection.is_lost:
            connection.close()
            abort = self._clock.callLater(CLOSE_SECONDS, connection.abort, "closed")
            await connection.lost
            if abort.active():
                abort.cancel()

    def run(self, script: Script, keys: tuple[str, ...], *arguments: str | bytes | int) -> Deferred[Any]:
        """Run a script; return a Deferred of its result. Fails with EngineUnavailable or EngineError."""
        connection = self._connection
        if connection is None:
            return fail(EngineUnavailable(self.status.reason))
        operands = (len(keys), *keys, *arguments)
        # The first time in full: sending it again after the reply NOSCRIPT would put it after later commands.
        if script.digest not in self._loaded:
            self._loaded.add(script.digest)
            return connection.command("EVAL", script.text, *operands).addErrback(self._failed, connection)
        result = connection.command("EVALSHA", script.digest, *operands)
        result.addErrback(self._load, connection, script, operands)
        return result.addErrback(self._failed, connection)

    def _load(
        self, failure: Failure, connection: Connection, script: Script, operands: tuple[str | bytes | int, ...]
    ) -> Failure | Deferred[Any]:
        """Send a script again that the engine has dropped, as after SCRIPT FLUSH."""
        if failure.check(EngineError) and failure.getErrorMessage().startswith("NOSCRIPT"):
            return connection.command("EVAL", script.text, *operands)
        return failure

    def _failed(self, failure: Failure, connection: Connection) -> Failure:
        if failure.check(EngineError):
            reason = failure.getErrorMessage()
            if reason.startswith(_LOST_MASTER):
                connection.abort(reason)
            else:
                self.status.unavailable(reason)
        return failure

    def _ping(self) -> None:
        """Find out whether an engine that has nothing to do replies."""
        if self._connection is not None:
            self._connection.command("PING").addErrback(lambda _: None)

    async def _stay_connected(self) -> None:
        for name, endpoint in cycle(self._endpoints.items()):
            try:
                reason = await self._use(name, endpoint)
            except (EngineError, EngineUnavailable) as error:
                reason = str(error)
            except Exception:
                if self.running:
                    self.log.failure("Using the engine failed")
                reason = "unexpected error"
            if not self.running:
                return  # Twisted's error of a cancelled attempt to connect is not always a CancelledError
            self.status.unavailable(f"{name}: {reason}")
            await deferLater(self._clock, RETRY_SECONDS)

    async def _use(self, name: str, endpoint: IStreamClientEndpoint) -> str:
        """Connect; return the reason when the connection is lost."""
        connection = await self._connect(name, endpoint)
        lost: Deferred[str] = Deferred()
        connection.lost.chainDeferred(lost)  # which may be cancelled
        self._connection = connection
        self._loaded.clear()
        try:
            for function in self._connected:
                function()
            return await lost
        finally:
            self._connection = None

    async def _connect(self, name: str, endpoint: IStreamClientEndpoint) -> Connection:
        """Return a connection that is ready for scripts."""
        factory = Factory.forProtocol(lambda: cast(Any, self._make_connection(self._on_message)))
        factory.noisy = False  # do not log the start and end of each connection
        try:
            connection = cast(Connection, await endpoint.connect(factory))
        except Exception as error:
            raise EngineUnavailable(connect_failure(error, CONNECT_TIMEOUT)) from None
        connection.set_timeout(CONNECT_TIMEOUT)
        try:
            engine = await self._log_in(connection)
            if self._url.database:
                await connection.command("SELECT", self._url.database)
            for channel in self._listeners:
                await connection.command("SUBSCRIBE", channel)
        except BaseException as error:
            connection.abort(str(error))
            raise
        connection.set_timeout(REPLY_TIMEOUT)
        self.local_host = getattr(connection.transport.getHost(), "host", self.local_host)
        self.status.connected(f"{name} ({engine})")
        return connection

    async def _log_in(self, connection: Connection) -> str:
        """Log in with RESP3; return the engine's name and version."""
        login = ("AUTH", self._url.user, self._url.password) if self._url.password else ()
        try:
            hello = await connection.command("HELLO", 3, *login, "SETNAME", self._name)
        except EngineError as error:
            if re.match("ERR unknown command|NOPROTO", str(error)):
                raise EngineError(f"the engine is too old ({_EXPECTED})") from None
            raise
        if not isinstance(hello, dict):
            raise EngineError("invalid reply to HELLO")
        server, version, role = (_text(hello.get(key)) for key in (b"server", b"version", b"role"))
        numbers = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", version)
        if numbers is None or (int(numbers[1]), int(numbers[2])) < MIN_VERSION:
            raise EngineError(f"{server} {version} is not supported ({_EXPECTED})")
        if role != "master":
            raise EngineError(f"the engine is a {role} (expected a master)")
        return f"{server} {version}"

    def _on_message(self, channel: bytes, message: bytes) -> None:
        if (on_message := self._listeners.get(channel)) is not None:
            on_message(message)

    def _ended(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("Connecting to the engine failed", failure)


def _text(value: object) -> str:
    return printable(value.decode("utf-8", "replace"), MAX_REASON) if isinstance(value, bytes) else "?"
