"""Tests of several nodes that share boards through a real engine."""

import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

import hiredis
import pytest
import pytest_twisted
from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher

from govi_server.sharing.peers import Peers
from tests.integration.conftest import (
    GOVI_RESPONSE,
    Response,
    Running,
    Start,
    Twistd,
    arguments,
    request,
    until,
    wait_for,
)
from tests.integration.engine import EngineProcess
from tests.integration.test_kv55 import make_certificate
from tests.ports import free_port

CODE = "031102"
CONNECTED = "connected, boards are shared"
UNAVAILABLE = "unavailable, continuing without shared boards"
AGAIN = "available again"

StartEngine = Callable[..., EngineProcess]


@pytest.fixture(autouse=True)
def is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nodes wait for the engine, since nodes, clients and engine share two cores or fewer."""
    monkeypatch.setattr("govi_server.sharing.engine.REPLY_TIMEOUT", 10.0)


@pytest.fixture
def start_engine(tmp_path: Path) -> Iterator[StartEngine]:
    """Return a function that starts an engine; it is killed at the end."""
    engines: list[EngineProcess] = []

    def start_engine(*options: str, port: int = 0) -> EngineProcess:
        engines.append(EngineProcess(tmp_path, f"engine-{len(engines)}", *options, port=port))
        return engines[-1]

    yield start_engine
    for engine in engines:
        engine.kill()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Return the log lines about the engine."""
    texts: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace", "").startswith("govi_server.sharing"):
            texts.append(formatEvent(event))

    observer = cast(ILogObserver, observe)
    globalLogPublisher.addObserver(observer)
    yield texts
    globalLogPublisher.removeObserver(observer)


def count(lines: list[str], text: str) -> int:
    return sum(text in line for line in lines)


def services(service: IService) -> Iterator[IService]:
    """Yield a service, and all services that it contains."""
    yield service
    for each in service if isinstance(service, MultiService) else ():
        yield from services(each)


class Nodes:
    """Nodes with one gateway, whose callbacks arrive at the first of them."""

    def __init__(self, start: Start, lines: list[str], url: str, n: int, toml: str = "") -> None:
        self.all = [start(toml, "--share", url)]
        self.govi = self.all[0].govi
        self.gateway_url = f"http://127.0.0.1:{self.all[0].gateway_port}/TMI_Post/KV55/openOV"
        self.all += [start(toml, "--share", url, "--gateway-url", self.gateway_url) for _ in range(n - 1)]

    async def meet(self) -> None:
        """Wait until the nodes know each other."""
        peers = [service for node in self.all for service in services(node.service) if isinstance(service, Peers)]
        assert len(peers) == len(self.all)
        await until(lambda: all(len(each.urls) == len(peers) - 1 for each in peers))

    def respond_for(self, code: str) -> None:
        """Let the gateway respond for another stop."""
        self.govi.responses = [GOVI_RESPONSE.replace(CODE, code).encode()]

    def __getitem__(self, index: int) -> Running:
        return self.all[index]


def served(response: Response) -> bool:
    return response.code == 200 and b"<Trip>" in response.body


@pytest_twisted.ensureDeferred
async def test_many_clients_of_three_nodes_share_one_request(
    start: Start, start_engine: StartEngine, lines: list[str]
) -> None:
    """For 500 clients of three nodes, the gateway gets one request; the callback reaches one node, and wakes all."""
    nodes = Nodes(start, lines, start_engine().url, 3)
    await until(lambda: count(lines, CONNECTED) == 3)
    responses = await gatherResults([Deferred.fromCoroutine(nodes[i % 3].get(CODE)) for i in range(500)])
    assert all(map(served, responses))
    assert len({response.body for response in responses}) == 1
    assert len(nodes.govi.requests) == 1
    assert [callback.code for callback in nodes.govi.callbacks] == [200]


@pytest_twisted.ensureDeferred
async def test_callback_at_another_node_and_age(start: Start, start_engine: StartEngine, lines: list[str]) -> None:
    """A callback at a node that did not send the request is accepted; the board's age continues at other nodes."""
    engine = start_engine()
    nodes = Nodes(start, lines, engine.url, 2)
    await until(lambda: count(lines, CONNECTED) == 2)
    assert served(await nodes[1].get(CODE))
    assert [callback.code for callback in nodes.govi.callbacks] == [200]
    key = f"govi-cache:kv55:b:{CODE}"
    engine.command("PEXPIRE", key, 300_000 - 20_000)
    elsewhere = await nodes[0].get(CODE)
    assert served(elsewhere)
    assert 20 <= int(elsewhere.header("age") or 0) < 30
    engine.command("PEXPIRE", key, 300_000 - 61_000)
    assert served(await nodes[0].get(CODE))  # a hit
    assert len(nodes.govi.requests) == 1
    repeated = await request("POST", nodes.govi.callback_url, nodes.govi.responses[0])
    assert repeated.code == 200
    unsolicited = await request(
        "POST", nodes.govi.callback_url, nodes.govi.responses[0].replace(CODE.encode(), b"031103")
    )
    assert unsolicited.code == 403


@pytest_twisted.ensureDeferred
async def test_killed_node_is_taken_over(
    start: Start, start_engine: StartEngine, lines: list[str], twistd: Twistd
) -> None:
    """When the node that has sent the request is killed, another one sends it again; its clients get the board."""
    engine = start_engine()
    nodes = Nodes(start, lines, engine.url, 1)
    port = free_port()
    process = twistd(*arguments(port, "--share", engine.url, "--gateway-url", nodes.gateway_url))
    await deferToThread(wait_for, process, CONNECTED)
    await until(lambda: count(lines, CONNECTED) == 1)
    responses, nodes.govi.responses = nodes.govi.responses, []
    lost = Deferred.fromCoroutine(request("GET", f"http://127.0.0.1:{port}/kv55/{CODE}"))
    await until(lambda: nodes.govi.requests)
    waiting = Deferred.fromCoroutine(nodes[0].get(CODE))
    await until(lambda: engine.command("GET", f"govi-cache:kv55:f:{CODE}") is not None)
    nodes.govi.responses = responses
    process.send_signal(signal.SIGKILL)
    with suppress(Exception):
        await lost
    assert served(await waiting)
    assert len(nodes.govi.requests) == 2


@pytest_twisted.ensureDeferred
async def test_engine_that_ends_or_hangs(
    start: Start, start_engine: StartEngine, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the engine each node serves its clients itself; there is one log line each way."""
    monkeypatch.setattr("govi_server.sharing.engine.REPLY_TIMEOUT", 0.4)
    engine = start_engine()
    nodes = Nodes(start, lines, engine.url, 2)
    await nodes.meet()
    engine.signal(signal.SIGSTOP)
    responses = await gatherResults([Deferred.fromCoroutine(node.get(CODE)) for node in nodes.all])
    assert all(map(served, responses))  # the first node passes on the callback of the second one
    assert count(lines, UNAVAILABLE) == 2
    engine.signal(signal.SIGCONT)
    await until(lambda: count(lines, AGAIN) == 2)
    engine.kill()
    nodes.respond_for("031103")
    responses = await gatherResults([Deferred.fromCoroutine(node.get("031103")) for node in nodes.all])
    assert all(map(served, responses))
    assert len(nodes.govi.requests) == 4
    engine.start()
    await until(lambda: count(lines, AGAIN) == 4)
    assert (count(lines, CONNECTED), count(lines, UNAVAILABLE)) == (2, 4)


@pytest_twisted.ensureDeferred
async def test_flushed_engine(start: Start, start_engine: StartEngine, lines: list[str]) -> None:
    """If the engine loses its data and scripts during a request, the callback still reaches the node that sent it."""
    engine = start_engine()
    nodes = Nodes(start, lines, engine.url, 3)
    await until(lambda: count(lines, CONNECTED) == 3)
    responses, nodes.govi.responses = nodes.govi.responses, []
    waiting = [Deferred.fromCoroutine(node.get(CODE)) for node in nodes.all[1:]]
    await until(lambda: nodes.govi.requests)
    engine.command("FLUSHALL")
    engine.command("SCRIPT", "FLUSH")
    callback = await request("POST", nodes.govi.callback_url, responses[0])
    assert callback.code == 200
    assert all(map(served, await gatherResults(waiting)))
    assert len(nodes.govi.requests) <= 2
    assert count(lines, UNAVAILABLE) == 0


def is_stored(engine: EngineProcess, code: str, database: int = 0) -> bool:
    try:
        (value,) = engine.commands(["SELECT", database], ["GET", f"govi-cache:kv55:b:{code}"])[1:]
    except hiredis.ReplyError:
        return False
    return value is not None and bool(value.startswith(b"1\n<?xml"))


GARBAGE = {
    "031110": b"nonsense",
    "031111": b"2\n<DRIS_55/>",
    "031112": b"1\n" + GOVI_RESPONSE.encode(),  # of another stop
    "031113": b"1\n" + b"x" * 200_000,
    "031114": None,  # not a string
    "031115": b"1\n<a>\r\n*99999\r\n",  # closes the connection
}


@pytest_twisted.ensureDeferred
async def test_garbage_in_the_engine_is_replaced(start: Start, start_engine: StartEngine, lines: list[str]) -> None:
    """A value that is no board of the stop is ignored; the gateway's board replaces it."""
    engine = start_engine()
    nodes = Nodes(start, lines, engine.url, 1)
    await until(lambda: count(lines, CONNECTED) == 1)
    for code, value in GARBAGE.items():
        for kind in "bf":
            key = f"govi-cache:kv55:{kind}:{code}"
            engine.command(*(("SET", key, value) if value is not None else ("RPUSH", key, "x")))
            engine.command("PEXPIRE", key, 300_000 - 1000)
        nodes.respond_for(code)
        assert served(await nodes[0].get(code))
        if code != "031115":
            await until(partial(is_stored, engine, code))
    await until(lambda: count(lines, AGAIN) == 1)


@pytest_twisted.ensureDeferred
async def test_full_engine(start: Start, start_engine: StartEngine, lines: list[str]) -> None:
    """While the engine is full, boards are requested by each node itself; the state is logged once each way."""
    engine = start_engine()
    nodes = Nodes(start, lines, engine.url, 1)
    await until(lambda: count(lines, CONNECTED) == 1)
    engine.command("CONFIG", "SET", "maxmemory", "1")
    assert served(await nodes[0].get(CODE))
    nodes.respond_for("031103")
    assert served(await nodes[0].get("031103"))
    assert [UNAVAILABLE in line and "OOM" in line for line in lines[1:]] == [True]
    engine.command("CONFIG", "SET", "maxmemory", "0")
    nodes.respond_for("031104")
    assert served(await nodes[0].get("031104"))
    assert [AGAIN in line for line in lines[2:]] == [True]


@pytest_twisted.ensureDeferred
async def test_failover(start: Start, start_engine: StartEngine, lines: list[str]) -> None:
    """After a failover, the nodes use the new master among the hosts of the URL."""
    ports = free_port(), free_port()
    master, replica = (start_engine(port=port) for port in ports)
    replica.command("REPLICAOF", "127.0.0.1", ports[0])
    nodes = Nodes(start, lines, f"redis://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}", 2)
    await until(lambda: count(lines, CONNECTED) == 2)
    replica.command("REPLICAOF", "NO", "ONE")
    master.command("REPLICAOF", "127.0.0.1", ports[1])
    assert served(await nodes[0].get(CODE))
    nodes.respond_for("031103")
    assert served(await nodes[1].get("031103"))
    await until(lambda: count(lines, AGAIN) == 2)
    nodes.respond_for("031104")
    before = len(nodes.govi.requests)
    responses = await gatherResults([Deferred.fromCoroutine(node.get("031104")) for node in nodes.all])
    assert all(map(served, responses))
    assert len(nodes.govi.requests) == before + 1
    assert replica.command("EXISTS", "govi-cache:kv55:b:031104") == 1


@pytest_twisted.ensureDeferred
async def test_tls_and_password(start: Start, start_engine: StartEngine, lines: list[str], tmp_path: Path) -> None:
    """The engine may require TLS with certificates of both sides, and a user with the documented rights."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make_certificate(key, certificate)
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    engine = start_engine(*tls, "--tls-ca-cert-file", str(certificate))
    documentation = Path(__file__).parents[2] / "docs" / "scaling.md"
    (rights,) = (line for line in documentation.read_text("utf-8").splitlines() if line.startswith("ACL SETUSER"))
    engine.command(*rights.replace("password", "pass/word").split())
    toml = f'[share]\nauthorities = "{certificate}"\ncertificate = "{both}"\n'
    right = Nodes(start, lines, f"rediss://govi:pass%2Fword@localhost:{port}/3", 1, toml)
    await until(lambda: count(lines, CONNECTED) == 1)
    wrong = Nodes(start, lines, f"rediss://govi:wrong@localhost:{port}/3", 1, toml)
    await until(lambda: count(lines, UNAVAILABLE) == 1)
    assert "WRONGPASS" in lines[1]
    assert all(map(served, [await right[0].get(CODE), await wrong[0].get(CODE)]))
    assert [len(nodes.govi.requests) for nodes in (right, wrong)] == [1, 1]
    assert is_stored(engine, CODE, 3)
    assert count(lines, UNAVAILABLE) == 1
    assert not any("pass/word" in line or ":wrong" in line for line in lines)


@pytest_twisted.ensureDeferred
async def test_other_environments_do_not_meet(start: Start, start_engine: StartEngine, lines: list[str]) -> None:
    """Nodes with another prefix or database, and other modules, have boards and requests of their own."""
    engine = start_engine()
    nodes = [
        Nodes(start, lines, engine.url, 1),
        Nodes(start, lines, f"{engine.url}?db=1", 1),
        Nodes(start, lines, engine.url, 1, '[share]\nprefix = "test"\n'),
    ]
    await until(lambda: count(lines, CONNECTED) == 3)
    responses = [await environment[0].get(CODE) for environment in nodes]
    assert all(map(served, responses))
    assert [len(environment.govi.requests) for environment in nodes] == [1, 1, 1]
