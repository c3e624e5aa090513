"""Tests of several nodes that share boards through a real engine."""

import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher

from tests.integration.conftest import (
    GOVI_RESPONSE,
    Response,
    Running,
    Start,
    Twistd,
    arguments,
    free_port,
    request,
    until,
    wait_for,
)
from tests.integration.engine import EngineProcess

CODE = "031102"
CONNECTED = "connected, boards are shared"
UNAVAILABLE = "unavailable, continuing without shared boards"
AGAIN = "available again"

StartEngine = Callable[..., EngineProcess]


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


class Nodes:
    """Nodes with one gateway, whose callbacks arrive at the first of them."""

    def __init__(self, start: Start, lines: list[str], url: str, n: int, toml: str = "") -> None:
        self.all = [start(toml, "--share", url)]
        self.govi = self.all[0].govi
        self.gateway_url = f"http://127.0.0.1:{self.all[0].gateway_port}/TMI_Post/KV55/openOV"
        self.all += [start(toml, "--share", url, "--gateway-url", self.gateway_url) for _ in range(n - 1)]

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
    assert elsewhere.header("age") == "20"
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
async def test_engine_that_ends_or_hangs(start: Start, start_engine: StartEngine, lines: list[str]) -> None:
    """Without the engine each node serves its clients itself; there is one log line each way."""
    engine = start_engine()
    nodes = Nodes(start, lines, engine.url, 2)
    await until(lambda: count(lines, CONNECTED) == 2)
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
    assert (count(lines, CONNECTED), count(lines, UNAVAILABLE)) == (2, 2)  # once a minute
