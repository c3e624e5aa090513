"""What /openapi.json promises is what the program does: schemathesis asks for what it allows and what it does not.

It tries the examples, the bounds of every parameter and made-up requests, with all its checks.
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

# The feed is up as soon as its first word has come, and who asks for a stop that is not there does not wait long.
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
    """Run the demo, a gateway and a feed; gives its URL."""
    with _cache(folder, 0, 0.4) as url:
        program.until(lambda: program.state(url, program.STATION) == "live")
        yield url


@contextmanager
def gateway(folder: Path) -> Iterator[str]:
    """Run a server that has but a gateway; gives its URL."""
    callback = free_port()
    there = ["--listen", "tcp:0:interface=127.0.0.1", "--callback-url", f"http://127.0.0.1:{callback}/"]
    with (
        program.twistd(folder, "govi-simulator", *there, "--delay", "0.01") as asked,
        _cache(folder, callback, 0.1, "--gateway-url", f"http://{asked}/") as url,
    ):
        yield url


SERVERS: dict[str, tuple[Callable[[Path], AbstractContextManager[str]], str]] = {
    "demo": (demo, "/"),
    "feed": (program.town, "/kv55"),
    "gateway": (gateway, "/(kv55|board|events|$)"),
}
"""Servers of every kind, and which of their paths are not those of the first."""


@pytest.mark.parametrize("kind", SERVERS)
def test_contract(kind: str, tmp_path: Path) -> None:
    """Whatever a server has its departures from, schemathesis finds nothing.

    $EXAMPLES is how many made-up requests it tries of every operation, $PATHS which paths: to look further.
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
