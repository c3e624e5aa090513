"""Tests of the running program against /openapi.json, with schemathesis (make test-contract).

Schemathesis sends the examples, values at and beyond the bounds of parameters, and generated requests.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.browser import program
from tests.ports import free_port

SETTINGS = Path(__file__).with_name("schemathesis.toml")

# The feed is UP after its first message, and requests for unknown stops time out quickly.
_CONFIG = """
[feed.subscriber]
recovery = 0.1
[gateway]
answer = {response_seconds}
[breaker]
failures = 1000000
"""


@contextmanager
def _cache(folder: Path, callback: int, response_seconds: float, *more: str) -> Iterator[str]:
    config = folder / "quick.toml"
    config.write_text(_CONFIG.format(response_seconds=response_seconds))
    endpoints = ["--listen", "tcp:0:interface=127.0.0.1", "--callback", f"tcp:{callback}:interface=127.0.0.1"]
    with program.twistd(folder, "govi-cache", "--config", str(config), *endpoints, "--admin", "", *more) as address:
        yield f"http://{address}"


@contextmanager
def demo(folder: Path) -> Iterator[str]:
    """Run the demo, which has a gateway and a feed, in a context; yield its URL."""
    with _cache(folder, 0, 0.4, "--source", "demo") as url:
        program.until(lambda: program.state(url, program.STATION) == "live")
        yield url


@contextmanager
def gateway(folder: Path) -> Iterator[str]:
    """Run a server with only a gateway in a context; yield its URL."""
    callback = free_port()
    endpoints = ["--listen", "tcp:0:interface=127.0.0.1", "--callback-url", f"http://127.0.0.1:{callback}/"]
    with (
        program.twistd(folder, "govi-simulator", *endpoints, "--delay", "0.01") as simulator,
        _cache(folder, callback, 0.1, "--gateway-url", f"http://{simulator}/") as url,
    ):
        yield url


SERVERS: dict[str, tuple[Callable[[Path], AbstractContextManager[str]], str]] = {
    "demo": (demo, "/"),
    "feed": (program.town, "/kv55"),
    "gateway": (gateway, "/(kv55|board|events|$)"),
}
"""Servers with every source; the regular expression matches the paths that differ from those of the demo."""


@pytest.mark.parametrize("kind", SERVERS)
def test_program_conforms_to_its_description(kind: str, tmp_path: Path) -> None:
    """Schemathesis reports no failure with any source of departures.

    Environment: EXAMPLES, the number of generated requests per operation (default 5); PATHS, a regular expression of
    the paths to test.
    """
    serve, paths = SERVERS[kind]
    with serve(tmp_path) as url:
        process = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"), "--config-file", SETTINGS,
                "run", f"{url}/openapi.json", "--include-path-regex", f"^{os.environ.get('PATHS', paths)}",
                "--max-examples", os.environ.get("EXAMPLES", "5"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )  # fmt: skip
    print(process.stdout, process.stderr)
    assert process.returncode == 0
