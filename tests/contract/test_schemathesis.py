"""Tests of the running program against /openapi.json, with schemathesis (make test-contract).

It sends the examples, values at and beyond the bounds of parameters, and generated requests, with all its checks.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.browser import program
from tests.integration.conftest import free_port

SETTINGS = Path(__file__).with_name("schemathesis.toml")

# The feed is up after its first message, and requests for unknown stops time out quickly.
_QUICK = """
[feed.subscriber]
recovery = 0.1
[gateway]
answer = {answer}
[breaker]
failures = 1000000
"""


@contextmanager
def _cache(folder: Path, callback: int, answer: float, *more: str) -> Iterator[str]:
    config = folder / "quick.toml"
    config.write_text(_QUICK.format(answer=answer))
    here = ["--listen", "tcp:0:interface=127.0.0.1", "--callback", f"tcp:{callback}:interface=127.0.0.1"]
    with program.twistd(folder, "govi-cache", "--config", str(config), *here, "--admin", "", *more) as address:
        yield f"http://{address}"


@contextmanager
def demo(folder: Path) -> Iterator[str]:
    """Run the demo, a gateway and a feed; yield its URL."""
    with _cache(folder, 0, 0.4) as url:
        program.until(lambda: program.state(url, program.STATION) == "live")
        yield url


@contextmanager
def gateway(folder: Path) -> Iterator[str]:
    """Run a server with a gateway alone; yield its URL."""
    callback = free_port()
    there = ["--listen", "tcp:0:interface=127.0.0.1", "--callback-url", f"http://127.0.0.1:{callback}/"]
    with (
        program.twistd(folder, "govi-simulator", *there, "--delay", "0.01") as simulator,
        _cache(folder, callback, 0.1, "--gateway-url", f"http://{simulator}/") as url,
    ):
        yield url


SERVERS: dict[str, tuple[Callable[[Path], AbstractContextManager[str]], str]] = {
    "demo": (demo, "/"),
    "feed": (program.town, "/kv55"),
    "gateway": (gateway, "/(kv55|board|events|$)"),
}
"""Servers with every source, each with the paths that differ from the first one's (a regular expression)."""


@pytest.mark.parametrize("kind", SERVERS)
def test_contract(kind: str, tmp_path: Path) -> None:
    """Schemathesis finds no fault, with every source of departures.

    $EXAMPLES is the number of generated requests for every operation (default 5), $PATHS a regular expression of the
    paths to test.
    """
    serve, paths = SERVERS[kind]
    with serve(tmp_path) as url:
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"), "--config-file", SETTINGS,
                "run", f"{url}/openapi.json", "--include-path-regex", f"^{os.environ.get('PATHS', paths)}",
                "--max-examples", os.environ.get("EXAMPLES", "5"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )  # fmt: skip
    print(done.stdout, done.stderr)
    assert done.returncode == 0
