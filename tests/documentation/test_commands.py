"""Every block of commands in README.md, CONTRIBUTING.md and docs/ is run as written, in a fresh clone.

Another instance, a demo on the default ports, runs meanwhile. All of it is in namespaces of its own (unshare): ports
and files of this machine are neither used nor changed, and a simulated feed has the name of the public one.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from govi_server.settings import FEED_ADDRESS

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")))

NOT_RUN = {
    "make test": "is what runs tests, for minutes",
    "make check": "is what runs tests, for minutes",
    "docker build --tag govi-cache .": "needs an engine: make test-container runs the image",
    "docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --publish 8080:8080 govi-cache serve --source demo": (
        "needs an engine: make test-container runs the image"
    ),
    "until curl --fail --silent http://10.0.0.11:8081/ready; do sleep 1; done": "10.0.0.11 is the reader's node",
    "openapi-python-client generate --url http://localhost:8080/openapi.json": "tests/contract generates this client",
    "npx openapi-typescript http://localhost:8080/openapi.json --output api.ts": "tests/contract does this",
    "systemctl daemon-reload": "needs systemd as process 1: tests/deployment/test_service.py has one",
    ".venv/bin/twistd --nodaemon --pidfile= govi-feed-proxy --feed tcp://pubsub.besteffort.ndovloket.nl:7817"
    " --publish tcp://10.0.0.5:7817": "10.0.0.5 is an address of the reader's network",
    "systemctl restart govi-cache": "needs systemd as process 1: tests/deployment/test_service.py has one",
    "systemctl enable --now govi-cache.socket govi-cache.service": "as above",
    "systemd-run --pipe --wait --quiet -p DynamicUser=yes -p User=govi-cache \\\n"
    "    -p StateDirectory=govi-cache -p StateDirectoryMode=0700 \\\n"
    "    -p LogsDirectory=govi-cache -p LogsDirectoryMode=0750 \\\n"
    "    /opt/govi-cache/bin/govi-cache doctor --config /etc/govi-cache/govi-cache.toml \\\n"
    "    --listen systemd:domain=INET:index=0 --statistics /var/log/govi-cache/statistics.log \\\n"
    "    --snapshot /var/lib/govi-cache/snapshot": "as above, which runs it",
    "ssh -p 2222 -i ~/.ssh/govi-cache 127.0.0.1 'status()'": (
        "needs a service with the configuration below it: tests/integration/test_manhole.py logs in"
    ),
}
"""The commands that are not run, with the reason."""

ON_DEFAULT_PORTS = re.compile(r"twistd --nodaemon --pidfile= govi-cache (?!.*--listen tcp:9090)|govi-cache serve")
"""Servers on the default ports: the other instance is stopped for their blocks, as the documents tell the reader."""

RUNS_ON = {
    r"\bmake run": r"govi-cache: http",
    r"\bgovi-simulator\b": r"[Ll]istening on",
    r"\btwistd --nodaemon --pidfile= govi-cache|\bgovi-cache serve": r"govi-cache: http",
    r"\bgovi-cache record": r"RECOVERING",
    r"\bcurl -N": r"data:",
    r"^while ": r"\S",
    r"\bpython3 events\.py": r"\S",
}
"""Commands that do not end by themselves, with what they write once they work."""

READY_SECONDS = 90


class Block(NamedTuple):
    """A block of a document. code: the block of another language before it, which it may run."""

    name: str
    commands: tuple[str, ...]
    code: str


def read_blocks(path: Path) -> Iterator[Block]:
    """Yield the blocks of a document."""
    code, text = "", path.read_text("utf-8")
    for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        language, body = match.groups()
        name = f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
        if language == "console":
            commands = re.findall(r"^[$#] ((?:.*\\\n)*.*)$", body, re.MULTILINE)
            yield Block(name, tuple(commands), code)
        elif language == "sh":
            yield Block(name, (body,), "")
        code = body if language in ("python", "js") else ""


BLOCKS = [block for path in DOCUMENTS for block in read_blocks(path)]


class Machine:
    """Namespaces with a network, and /etc, /opt and /var as overlays; a clone; and the programs that run in them."""

    def __init__(self, folder: Path) -> None:
        self.clone, self._home, self._upper = folder / "clone", folder / "home", folder / "upper"
        self._home.mkdir()
        (self._home / ".ssh").mkdir(0o700)
        self._upper.mkdir()
        self.clone.mkdir()
        self.running: list[tuple[subprocess.Popen[bytes], Path]] = []
        self.background = 0  # the first programs of running: the feed and, if it runs, the other instance
        self._logs = 0
        enter = ["unshare", "--net", "--mount", "sh", "-c", "echo; exec sleep infinity"]
        self._namespaces = subprocess.Popen(enter, stdout=subprocess.PIPE)
        assert self._namespaces.stdout is not None
        self._namespaces.stdout.readline()
        mounts = "; ".join(
            f"mkdir -p {self._upper}/{name} {self._upper}/{name}-work; mount -t overlay overlay"
            f" -o lowerdir=/{name},upperdir={self._upper}/{name},workdir={self._upper}/{name}-work /{name}"
            for name in ("etc", "opt", "var")
        )
        host = FEED_ADDRESS.removeprefix("tcp://").partition(":")[0]
        directories = "mkdir -p /var/lib/kv7 /var/lib/govi-cache /etc/systemd/system"
        self.run(f"set -e; mount -t tmpfs tmpfs {self._upper}; {mounts}; ip link set lo up; {directories}; "
                 f"echo 127.0.0.2 {host} >> /etc/hosts")  # fmt: skip
        for name in subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, check=True, text=True
        ).stdout.split():
            (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.clone / name)  # also what is not committed
        self.run("git init -q && git add -A && git -c user.name=x -c user.email=x commit -qm x")
        self.run("make .venv/ready")
        self._twistd = f"{Path(sys.executable).with_name('twistd')} --nodaemon --pidfile="
        self.start(
            f"{self._twistd} govi-simulator --listen tcp:0 --speed 60 --feed tcp://127.0.0.2:7817", "listening on"
        )
        self.background = 1

    def set_other_instance(self, is_running: bool) -> None:
        """Start or stop the other instance, on the default ports."""
        if is_running and self.background == 1:
            self.start(
                f"{self._twistd} govi-cache --source demo --statistics {self.clone}/statistics.log",
                "govi-cache: http",
            )
            self.run("until curl -sf 'http://localhost:8080/places?q=station'; do sleep 0.1; done")
            self.background = 2
        elif not is_running:
            self.background = 1
            self.stop_block()

    def _entered(self, command: str) -> list[str]:
        """Return a command for the namespaces; one that installs packages keeps the machine's network."""
        installs = "pip install" in command or "make .venv/ready" in command
        namespaces = ["--mount"] if installs else ["--mount", "--net"]
        return [
            "nsenter",
            f"--target={self._namespaces.pid}",
            *namespaces,
            f"--wd={self.clone}",
            "bash",
            "-c",
            command,
        ]

    def run(self, command: str) -> None:
        """Run a command. Raises AssertionError if it fails."""
        process = subprocess.run(
            self._entered(command), env=self._environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=600, check=False,
        )  # fmt: skip
        assert process.returncode == 0, f"{command}\n{process.stdout.decode()}"

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": f"{self._home}", "PYTHONUNBUFFERED": "1", "TERM": "dumb"}

    def start(self, command: str, ready: str) -> None:
        """Start a command, and wait until its output contains a regular expression."""
        self._logs += 1
        log = self._home / f"{self._logs}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._entered(command), env=self._environment(), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.running.append((process, log))
        end = time.monotonic() + READY_SECONDS
        while not re.search(ready, log.read_text("utf-8", "replace")):
            assert process.poll() is None, f"{command}\n{log.read_text()}"
            assert time.monotonic() < end, f"{command}\n{log.read_text()}"
            time.sleep(0.1)

    def stop_block(self) -> None:
        """Stop all programs but those in the background."""
        for process, _ in reversed(self.running[self.background :]):
            self.interrupt(process)
        del self.running[self.background :]

    def interrupt(self, process: "subprocess.Popen[bytes]") -> None:
        """Press Ctrl-C, and wait for the end."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def close(self) -> None:
        """Stop everything."""
        self.background = 0
        self.stop_block()
        self._namespaces.kill()
        self._namespaces.communicate()


def _can_unshare() -> bool:
    command = ["unshare", "--net", "--mount", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return the machine with a simulated feed and the other instance."""
    if not _can_unshare():
        pytest.skip("needs root, or rather the permission to make namespaces")
    machine = Machine(tmp_path_factory.mktemp("machine"))
    yield machine
    machine.close()


def test_commands_that_are_not_run_exist() -> None:
    """Each command that is not run is in a document."""
    assert set(NOT_RUN) <= {command for block in BLOCKS for command in block.commands}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_block(machine: Machine, block: Block) -> None:
    """The commands of a block succeed in order; those that run on are stopped at its end."""
    try:
        machine.set_other_instance(not any(ON_DEFAULT_PORTS.search(command) for command in block.commands))
        for command in block.commands:
            if command in NOT_RUN:
                continue
            if block.code and (name := re.search(r"\b\w+\.(?:py|mjs)\b", command)):
                (machine.clone / name[0]).write_text(block.code)
            ready = next((ready for pattern, ready in RUNS_ON.items() if re.search(pattern, command)), None)
            if ready is None:
                machine.run(command)
            else:
                machine.start(command, ready)
                if "govi-cache record" in command:  # "stop it with Ctrl-C"
                    time.sleep(5)
                    machine.interrupt(machine.running[-1][0])
        for process, log in machine.running[machine.background :]:
            assert process.poll() in (None, 0, 130), log.read_text()
    finally:
        machine.stop_block()
