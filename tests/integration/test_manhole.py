"""Tests of the manhole of a running program, over SSH."""

import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from struct import pack
from typing import Any, cast

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.client.knownhosts import KnownHostsFile
from twisted.conch.endpoints import AuthenticationFailed, SSHCommandClientEndpoint
from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.session import packRequest_pty_req
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ProcessTerminated
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from twisted.web.server import Site

from tests.integration.conftest import (
    GOVI_RESPONSE,
    Govi,
    Twistd,
    arguments,
    reactor,
    request,
    until,
    wait_for,
)
from tests.ports import free_port

CODE = "57330430"

WAIT_FOREVER = "__import__('twisted.internet.defer').internet.defer.Deferred()"


def new_key() -> Key:
    return Key(Ed25519PrivateKey.generate())


def write(path: Path, *keys: Key) -> None:
    """Write a file of authorized keys."""
    path.write_bytes(b"\n".join(key.public().toString("openssh") for key in keys) + b"\n")
    path.chmod(0o600)


class Output(Protocol):
    """Collects the output of a command."""

    def __init__(self) -> None:
        self.text: Deferred[str] = Deferred()
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        self._data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.text.callback(self._data.decode()) if reason.check(ConnectionDone) else self.text.errback(reason)


@dataclass
class Running:
    """A running program, and an authorized key."""

    port: int
    manhole_port: int
    keys: Path
    key: Key
    process: "subprocess.Popen[str]"

    async def connect(self, command: str, key: Key | None = None, password: bytes | None = None) -> Output:
        """Start a command over its own connection. Raises AuthenticationFailed."""
        host_key = Key.fromFile(f"{self.keys}.host")
        known = KnownHostsFile(FilePath(f"{self.keys}.known"))
        known.addHostKey(b"127.0.0.1", host_key.public())
        endpoint = SSHCommandClientEndpoint.newConnection(
            reactor,
            command.encode(),
            b"operator",
            b"127.0.0.1",
            self.manhole_port,
            keys=[key or self.key] if password is None else None,
            password=password,
            knownHosts=cast(Any, known),
        )
        return cast(Output, await endpoint.connect(Factory.forProtocol(Output)).addTimeout(10, reactor))

    async def run(self, command: str, key: Key | None = None) -> str:
        """Run a command; return its output. Raises ProcessTerminated if its exit status is not 0."""
        return await (await self.connect(command, key)).text.addTimeout(10, reactor)


StartManhole = Callable[..., Running]


@pytest.fixture
def start_manhole(twistd: Twistd, tmp_path: Path) -> StartManhole:
    """Return a function that starts the program with a manhole and one authorized key."""

    def start(*more: str) -> Running:
        port, manhole_port, keys, key = free_port(), free_port(), tmp_path / "keys", new_key()
        write(keys, key)
        manhole = ["--manhole", f"tcp:{manhole_port}:interface=127.0.0.1", "--manhole-keys", "keys"]
        process = twistd(*arguments(port, *manhole, *more))
        wait_for(process, "govi-cache: http://")
        return Running(port, manhole_port, keys, key, process)

    return start


@pytest_twisted.ensureDeferred
async def test_commands_report_their_effects(start_manhole: StartManhole) -> None:
    """The commands report their effects, and sessions log no warnings."""
    running = start_manhole()
    assert "  connections  0 of " in await running.run("status()")
    assert await running.run("breaker()") == "  /kv55  closed\n"
    assert await running.run("flights()") == "no gateway requests in flight\n"
    assert (await running.run(f'stop("{CODE}")')).splitlines()[0] == f"/kv55: {CODE} is not cached"
    first, *departures = (await running.run(f'refresh("{CODE}")')).splitlines()
    assert first.startswith("/kv55: received after ")
    assert first.endswith(f" s: {CODE}, {len(departures)} departures, 0 s old")
    assert departures
    lines = (await running.run(f'stop("{CODE}")')).splitlines()
    assert lines[1 : len(departures) + 1] == departures
    assert lines[len(departures) + 1].startswith(f"feed: {CODE} is ")
    assert await running.run(f'purge("{CODE}")') == f"{CODE}: removed from /kv55\n"
    assert (await running.run(f'stop("{CODE}")')).splitlines()[0] == f"/kv55: {CODE} is not cached"
    # A slow machine makes some turns slow, which is logged.
    assert await running.run('[e for e in history.entries if "without a pause" not in e.text]') == "[]\n"


@pytest_twisted.ensureDeferred
async def test_exception_is_exit_status_1(start_manhole: StartManhole) -> None:
    """An expression that raises an exception exits with status 1; the program continues."""
    running = start_manhole()
    with pytest.raises(ProcessTerminated) as caught:
        await running.run("1 / 0")
    assert caught.value.exitCode == 1
    assert await running.run("1 / 1") == "1.0\n"


@pytest_twisted.ensureDeferred
async def test_log_level_filters_events(start_manhole: StartManhole) -> None:
    """Events below the log level of their namespace are not written."""
    running = start_manhole()
    namespace = "govi_server.operations"
    assert f"  {namespace}  error\n" in await running.run(f'log_level("{namespace}", "error")')
    await running.run("slow()")
    await running.run(f'log_level("{namespace}", "info")')
    await running.run("status()")
    log = wait_for(running.process, "): status()")
    assert '): log_level("govi_server.operations", "error")' in log
    assert "): slow()" not in log


@pytest_twisted.ensureDeferred
async def test_only_listed_keys_are_accepted(start_manhole: StartManhole) -> None:
    """A listed key is accepted; other keys, passwords, and keys removed from the list are rejected."""
    running = start_manhole()
    other = new_key()
    with pytest.raises(AuthenticationFailed):
        await running.connect("1", other)
    with pytest.raises(AuthenticationFailed):
        await running.connect("1", password=b"secret")
    assert await running.run("1") == "1\n"
    write(running.keys, other)
    with pytest.raises(AuthenticationFailed):
        await running.connect("1")
    assert await running.run("1", other) == "1\n"


@dataclass(eq=False)
class Shell(SSHChannel):
    """A terminal with the prompt, or without a terminal."""

    has_terminal: bool = True
    name = b"session"
    text: str = ""
    errors: str = ""
    status: bytes = b""
    ended: Deferred[None] = field(default_factory=Deferred)

    def __post_init__(self) -> None:
        super().__init__()

    def channelOpen(self, specificData: bytes) -> None:
        assert isinstance(self.conn, SSHConnection)
        if self.has_terminal:
            self.conn.sendRequest(self, b"pty-req", packRequest_pty_req(b"xterm", (24, 80, 0, 0), b""))
        self.conn.sendRequest(self, b"shell", b"")

    def dataReceived(self, data: bytes) -> None:
        self.text += data.decode()

    def extReceived(self, dataType: int, data: bytes) -> None:
        self.errors += data.decode()

    def request_exit_status(self, data: bytes) -> None:
        self.status = data

    def closed(self) -> None:
        self.ended.callback(None)


@pytest_twisted.ensureDeferred
async def test_prompt_lists_commands(start_manhole: StartManhole) -> None:
    """The prompt lists the commands, runs them, and exits with status 0 on exit()."""
    running = start_manhole()
    # The prompt is a second channel of a connection that lasts as long as its command.
    connection = cast(Any, (await running.connect(WAIT_FOREVER)).transport).conn
    shell = Shell()
    connection.openChannel(shell)
    await until(lambda: ">>> " in shell.text)
    for command in ("breaker", "drain", "flights", "help", "log_level", "purge", "refresh", "slow", "status", "stop"):
        assert f"\n  {command}(" in shell.text
    shell.write(b"breaker()\r")
    await until(lambda: "\n  /kv55  closed\r\n>>> " in shell.text)
    shell.write(b"exit()\r")
    await shell.ended.addTimeout(10, reactor)
    assert shell.status == pack(">L", 0)
    connection.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_prompt_needs_a_terminal(start_manhole: StartManhole) -> None:
    """A session with neither a terminal nor a command ends with an error, not only when its input would."""
    running = start_manhole()
    connection = cast(Any, (await running.connect(WAIT_FOREVER)).transport).conn
    shell = Shell(has_terminal=False)
    connection.openChannel(shell)
    await shell.ended.addTimeout(60, reactor)
    assert (shell.status, shell.text) == (pack(">L", 1), "")
    assert shell.errors.endswith("without one, send an expression: ssh HOST 'status()'\n")
    connection.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_program_exits_after_drain(start_manhole: StartManhole) -> None:
    """After drain() the program exits with status 0 once the request in flight has its response."""
    callback_port = free_port()
    govi = Govi(f"http://127.0.0.1:{callback_port}/KV55")
    listening = reactor.listenTCP(0, Site(govi), interface="127.0.0.1")
    running = start_manhole(
        "--callback", f"tcp:{callback_port}:interface=127.0.0.1",
        "--gateway-url", f"http://127.0.0.1:{listening.getHost().port}/",
    )  # fmt: skip
    response = Deferred.fromCoroutine(request("GET", f"http://127.0.0.1:{running.port}/kv55/031102"))
    await until(lambda: govi.requests)
    assert await running.run("flights()") == "  /kv55  031102  1 waiting\n"
    assert (await running.run("drain()")).startswith("draining 1 connections")
    await until(lambda: not listens(running.port))
    assert not response.called
    await govi.post_callbacks([GOVI_RESPONSE.encode()])
    assert (await response).code == 200
    log, _ = running.process.communicate(timeout=60)
    assert running.process.returncode == 0
    assert "Traceback" not in log
    await listening.stopListening()


def listens(port: int) -> bool:
    """Return whether a port accepts connections."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_port_in_use(twistd: Twistd, tmp_path: Path) -> None:
    """The error of a port in use is one line that names it; the exit status is 1."""
    write(tmp_path / "keys", new_key())
    with socket.create_server(("127.0.0.1", 0)) as other:
        endpoint = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
        process = twistd(*arguments(free_port(), "--manhole", endpoint, "--manhole-keys", "keys"))
        log, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert log.count(f"manhole.listen (--manhole): cannot listen on {endpoint}: address already in use") == 1
    assert "Traceback" not in log


def test_missing_keys_file(twistd: Twistd, tmp_path: Path) -> None:
    """The error of a missing file of keys is one line; the exit status is 1."""
    manhole = ["--manhole", f"tcp:{free_port()}:interface=127.0.0.1", "--manhole-keys", "keys"]
    process = twistd(*arguments(free_port(), *manhole))
    log, _ = process.communicate(timeout=60)
    error = f"manhole.keys (--manhole-keys): cannot read {tmp_path}/keys: No such file or directory"
    assert (process.returncode, log) == (1, f"govi-cache: {error}\n")
