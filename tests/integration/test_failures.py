"""Tests of failures over real sockets and files: a gateway that fails and recovers, a full disk."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import pytest_twisted
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.protocols.policies import WrappingFactory
from twisted.web.server import Site

from govi_server.operations.health import MIN_FAILURES
from tests.integration.conftest import Response, Running, Start, reactor, request, sleep, until
from tests.ports import free_port

# A busy machine must see a stale board between a fresh one and none, and must not be too late for the gateway.
QUICK = "[cache]\nfresh = 0.2\nstale = 3.0\n[breaker]\nfailures = 3\npause = 0.2\n[gateway]\nanswer = 9.0\n"


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Yield the lines that the program logs."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_namespace"].startswith("govi_server") and (text := formatEvent(event)):
            lines.append(text)

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    yield lines
    globalLogPublisher.removeObserver(cast(ILogObserver, observe))


class Operators:
    """A client of the operators' endpoint."""

    def __init__(self) -> None:
        port = free_port()
        self.arguments = ("--admin", f"tcp:{port}:interface=127.0.0.1")
        self._url = f"http://127.0.0.1:{port}"

    async def ready(self) -> tuple[int, bytes]:
        """Return the status and the body of /ready."""
        response = await request("GET", f"{self._url}/ready")
        return response.code, response.body

    async def health(self) -> tuple[str, list[str]]:
        """Return the health and its reasons, without their times and advice."""
        status = json.loads((await request("GET", f"{self._url}/status.json")).body)
        return status["verdict"], [reason.partition(" since ")[0] for reason in status["why"]]

    async def metric(self, name: str) -> float | None:
        """Return the value of a metric, or None."""
        lines = (await request("GET", f"{self._url}/metrics")).body.decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), None)


async def get_until(running: Running, code: int, cache: str = "") -> Response:
    """Request a stop until the response has this status and Cache-Status; return the response."""
    end = reactor.seconds() + 10
    while True:
        response = await running.get("031102")
        if response.code == code and cache in (response.header("cache-status") or ""):
            return response
        assert reactor.seconds() < end, f"no response {code} {cache}"
        await sleep(0.02)


@pytest_twisted.ensureDeferred
async def test_gateway_fails_and_recovers(start: Start, lines: list[str]) -> None:
    """Clients get fresh boards, then stale ones, then 504, and fresh ones again; changes are logged."""
    operators, port = Operators(), free_port()
    running = start(QUICK, *operators.arguments, "--gateway-url", f"http://127.0.0.1:{port}/")
    lines.clear()
    # After the recovery the health is DEGRADED because requests failed in the last minutes.
    for health in (("UP", []), ("DEGRADED", ["/kv55: requests failing"])):
        gateway = WrappingFactory(Site(running.govi))
        listening = reactor.listenTCP(port, gateway, interface="127.0.0.1")
        fresh = await get_until(running, 200, "hit; ttl=0")
        assert await operators.ready() == (200, b"ready\n")
        end = reactor.seconds() + 10
        while await operators.health() != health:  # RECOVERING until requests succeed again
            assert reactor.seconds() < end, await operators.health()
            await sleep(0.02)
        assert await operators.metric('govi_breaker_state{module="kv55",state="closed"}') == 1

        await listening.stopListening()
        for connection in list(gateway.protocols):
            connection.transport.abortConnection()
        stale = await get_until(running, 200, "hit; ttl=-")
        assert stale.body == fresh.body
        failed = await get_until(running, 504)
        assert failed.header("retry-after") == "10"
        assert b"<Error>Gateway unreachable</Error>" in failed.body
        while await operators.metric('govi_breaker_state{module="kv55",state="open"}') == 0:
            assert (await running.get("031102")).code == 504
        for _ in range(MIN_FAILURES):  # fewer would not be reported afterwards
            assert (await running.get("031102")).code == 504
        assert await operators.health() == ("DOWN", ["/kv55: gateway not accepting requests"])
        assert await operators.metric('govi_verdict{verdict="DOWN"}') == 1
        status, why = await operators.ready()
        assert (status, why.partition(b" (")[0].strip()) == (503, b"/kv55: gateway not accepting requests")
    fails, opens, recovers = lines
    name = "Gateway of /kv55"
    assert fails.startswith(f"{name}: failing (connection ")
    assert opens == f"{name}: circuit breaker opened after 3 failures; probing every 0.2 s (connection refused)"
    assert recovers.startswith(f"{name}: accepting requests again after ")


async def assert_logged(running: Running, path: Path) -> None:
    """Send a request; assert that its line is written to the statistics log."""
    before = path.read_text() if path.exists() else ""
    assert (await running.get("031102")).code == 200
    await until(lambda: path.exists() and path.read_text() != before)
    json.loads(path.read_text().splitlines()[-1])


@pytest_twisted.ensureDeferred
async def test_full_disk_does_not_affect_responses(start: Start, lines: list[str], tmp_path: Path) -> None:
    """With a full disk the server responds; its lines are written when space is available."""
    operators, path = Operators(), tmp_path / "full.log"
    path.symlink_to("/dev/full")
    running = start("", *operators.arguments, "--statistics", str(path))
    unwritable = 'govi_incidents_total{kind="unwritable",where="statistics"}'
    assert await operators.metric(unwritable) == 0
    for _ in range(3):
        assert (await running.get("031102")).code == 200
    while await operators.metric(unwritable) == 0:
        await sleep(0.01)
    assert await operators.health() == ("DEGRADED", ["Statistics log not writable"])
    assert await operators.ready() == (200, b"ready\n")
    warning = f"Statistics log {path}: cannot be written ([Errno 28] No space left on device)"
    assert [line for line in lines if "cannot be written" in line] == [warning]
    path.unlink()
    await until(lambda: path.exists() and path.read_text().count("\n") == 3)
    await assert_logged(running, path)
    assert (await operators.health())[0] == "RECOVERING"
    assert await operators.metric('govi_incidents_total{kind="lost",where="statistics"}') == 0


@pytest_twisted.ensureDeferred
async def test_removed_log_is_created_again(start: Start, lines: list[str], tmp_path: Path) -> None:
    """A removed statistics log is created again; a removed directory is logged once."""
    operators, directory = Operators(), tmp_path / "logs"
    directory.mkdir()
    path = directory / "statistics.log"
    running = start("", *operators.arguments, "--statistics", str(path))
    await assert_logged(running, path)
    path.unlink()
    await assert_logged(running, path)
    assert len(path.read_text().splitlines()) == 1
    shutil.rmtree(directory)
    unwritable = 'govi_incidents_total{kind="unwritable",where="statistics"}'
    assert (await running.get("031102")).code == 200
    while await operators.metric(unwritable) == 0:
        await sleep(0.01)
    assert (await operators.health())[0] == "DEGRADED"
    (line,) = (line for line in lines if "cannot be written" in line)
    assert f"[Errno 2] No such file or directory: '{path}'" in line
    os.mkdir(directory)
    await assert_logged(running, path)
    assert (await operators.health())[0] == "RECOVERING"
