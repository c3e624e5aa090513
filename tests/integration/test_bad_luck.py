"""Bad luck over real sockets and files: a gateway that comes and goes, a disk that is full."""

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

from tests.integration.conftest import Answer, Running, Start, free_port, later, reactor, request, until

QUICK = "[cache]\nfresh = 0.2\nstale = 1.0\n[breaker]\nfailures = 3\npause = 0.2\n[gateway]\nanswer = 1.0\n"


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Give what the program says in its log."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_namespace"].startswith("govi_server") and (text := formatEvent(event)):
            lines.append(text)

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    yield lines
    globalLogPublisher.removeObserver(cast(ILogObserver, observe))


class Operators:
    """Looks at the operators' endpoint."""

    def __init__(self) -> None:
        port = free_port()
        self.arguments = ("--admin", f"tcp:{port}:interface=127.0.0.1")
        self._url = f"http://127.0.0.1:{port}"

    async def ready(self) -> tuple[int, bytes]:
        answer = await request("GET", f"{self._url}/ready")
        return answer.code, answer.body

    async def verdict(self) -> tuple[str, list[str]]:
        """Return the health status, and its reasons without since when they exist and what to do."""
        status = json.loads((await request("GET", f"{self._url}/status.json")).body)
        return status["verdict"], [why.partition(" since ")[0] for why in status["why"]]

    async def metric(self, name: str) -> float | None:
        lines = (await request("GET", f"{self._url}/metrics")).body.decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), None)


async def get_until(running: Running, code: int, cache: str = "") -> Answer:
    """Ask until the answer has this status, and the cache says so of it."""
    end = reactor.seconds() + 10
    while True:
        answer = await running.get("031102")
        if answer.code == code and cache in (answer.header("cache-status") or ""):
            return answer
        assert reactor.seconds() < end, f"it never came to be {code} {cache}"
        await later(0.02)


@pytest_twisted.ensureDeferred
async def test_gateway_comes_and_goes(start: Start, lines: list[str]) -> None:
    """Clients get fresh boards, then stale ones, then 504, and fresh ones again; the log says it once a minute."""
    operators, port = Operators(), free_port()
    running = start(QUICK, *operators.arguments, "--gateway-url", f"http://127.0.0.1:{port}/")
    lines.clear()
    # It is what failed in the last minutes that is told of a gateway that has just come back.
    for verdict in (("UP", []), ("DEGRADED", ["/kv55: requests failing"])):
        gateway = WrappingFactory(Site(running.govi))
        listening = reactor.listenTCP(port, gateway, interface="127.0.0.1")
        fresh = await get_until(running, 200, "hit; ttl=0")
        assert await operators.ready() == (200, b"ready\n")
        assert await operators.verdict() == verdict
        assert await operators.metric('govi_breaker_state{module="kv55",state="closed"}') == 1

        await listening.stopListening()
        for connection in list(gateway.protocols):
            connection.transport.abortConnection()
        stale = await get_until(running, 200, "hit; ttl=-")
        assert stale.body == fresh.body
        gone = await get_until(running, 504)
        assert gone.header("retry-after") == "10"
        assert b"<Error>Gateway unreachable</Error>" in gone.body
        while await operators.metric('govi_breaker_state{module="kv55",state="open"}') == 0:
            assert (await running.get("031102")).code == 504
        assert await operators.verdict() == ("DOWN", ["/kv55: gateway not accepting requests"])
        assert await operators.metric('govi_verdict{verdict="DOWN"}') == 1
        why = b"/kv55: stop 031102: 504 Gateway Timeout, Gateway unreachable\n"
        assert await operators.ready() == (503, why)
    goes, opens, is_back = lines
    name = f"the gateway http://127.0.0.1:{port}/"
    assert goes.startswith(f"{name}: failing (Connection was refused")
    assert opens.startswith(f"{name} failed 3 times in a row, now it is asked once in 0.2 s: Connection was refused")
    assert is_back.startswith(f"{name}: accepts questions again, after ")


async def is_written(running: Running, path: Path) -> None:
    """Have a request answered, and its line written."""
    before = path.read_text() if path.exists() else ""
    assert (await running.get("031102")).code == 200
    await until(lambda: path.exists() and path.read_text() != before)
    json.loads(path.read_text().splitlines()[-1])


@pytest_twisted.ensureDeferred
async def test_full_disk(start: Start, lines: list[str], tmp_path: Path) -> None:
    """With a full disk serving goes on, one line and a figure say what is lost, and it ends when there is room."""
    operators, path = Operators(), tmp_path / "full.log"
    path.symlink_to("/dev/full")
    running = start("", *operators.arguments, "--statistics", str(path))
    unwritable = 'govi_incidents_total{kind="unwritable",where="statistics"}'
    assert await operators.metric(unwritable) == 0
    for n in (1, 2, 3):
        assert (await running.get("031102")).code == 200
        while (await operators.metric(unwritable) or 0) < n:
            await later(0.01)
    assert await operators.verdict() == ("DEGRADED", ["Statistics log not writable"])
    assert await operators.ready() == (200, b"ready\n")
    why = f"Statistics log {path}: cannot be written ([Errno 28] No space left on device)"
    assert [line for line in lines if "cannot be written" in line] == [why]
    path.unlink()
    await is_written(running, path)
    assert (await operators.verdict())[0] == "RECOVERING"
    assert await operators.metric(unwritable) == 3


@pytest_twisted.ensureDeferred
async def test_log_is_removed(start: Start, lines: list[str], tmp_path: Path) -> None:
    """A log that somebody removes to make room gives its room back and begins anew; its folder is missed once."""
    operators, folder = Operators(), tmp_path / "logs"
    folder.mkdir()
    path = folder / "statistics.log"
    running = start("", *operators.arguments, "--statistics", str(path))
    await is_written(running, path)
    path.unlink()
    await is_written(running, path)
    assert len(path.read_text().splitlines()) == 1
    shutil.rmtree(folder)
    unwritable = 'govi_incidents_total{kind="unwritable",where="statistics"}'
    while await operators.metric(unwritable) == 0:
        assert (await running.get("031102")).code == 200
    assert (await operators.verdict())[0] == "DEGRADED"
    (line,) = (line for line in lines if "cannot be written" in line)
    assert f"[Errno 2] No such file or directory: '{path}'" in line
    os.mkdir(folder)
    await is_written(running, path)
    assert (await operators.verdict())[0] == "RECOVERING"
