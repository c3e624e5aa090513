"""The image of the Dockerfile, run as an engine runs it: another user, read-only, without capabilities.

The image is the one that `podman build --format docker --tag govi-cache .` has made; here its files are run in
namespaces of their own, which needs no network of an engine.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

USER = 10001


def podman(*arguments: str) -> str:
    """Return the output of podman."""
    return subprocess.run(["podman", *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """Return the configuration of the image."""
    if os.getuid() != 0 or shutil.which("podman") is None:
        pytest.skip("needs root and podman")
    if subprocess.run(["podman", "image", "exists", "govi-cache"], check=False).returncode:
        pytest.skip("no image: podman build --format docker --tag govi-cache .")
    image = json.loads(podman("image", "inspect", "govi-cache"))[0]
    return {**image["Config"], "Healthcheck": image["Healthcheck"]}


@pytest.fixture(scope="module")
def root(config: dict[str, Any]) -> Iterator[Path]:
    """Mount the image."""
    yield Path(podman("image", "mount", "govi-cache"))
    podman("image", "unmount", "govi-cache")


class Container:
    """A command in the image's root file system, with a network of its own that has only loopback."""

    def __init__(self, root: Path, config: dict[str, Any], command: list[str], state: Path) -> None:
        self._root, self._config = root, config
        mounts = (
            f"set -e; ip link set lo up; mount --bind {root} {root}; mount -o remount,bind,ro {root};"
            f" mount -t proc proc {root}/proc; mount -t tmpfs -o mode=1777 tmpfs {root}/tmp;"
            f" mount --bind /dev {root}/dev; mount --bind {state} {root}/var/lib/govi-cache;"
            f' echo; exec "$@"'
        )
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "sh", "-c", mounts,
             "sh", *self._enter(command)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.process.stdout.readline()  # all is mounted

    def _enter(self, command: list[str]) -> list[str]:
        user, _, group = self._config["User"].partition(":")
        privileges = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs",
                      "--bounding-set=-all", "--inh-caps=-all"]  # fmt: skip
        return ["chroot", str(self._root), *privileges, "env", "--ignore-environment",
                f"--chdir={self._config['WorkingDir']}", *self._config["Env"], *command]  # fmt: skip

    @property
    def first_process(self) -> int:
        """Process 1 of the container, by its number outside."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text())

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in the container."""
        namespaces = ["nsenter", f"--target={self.first_process}", "--mount", "--net", "--pid"]
        return subprocess.run(
            [*namespaces, *self._enter(list(command))], capture_output=True, text=True, timeout=20, check=False
        )

    def wait_for(self, *command: str) -> str:
        """Repeat a command in the container until it succeeds; return its output."""
        end = time.monotonic() + 60
        while (result := self.run(*command)).returncode:
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < end, result.stderr
            time.sleep(0.2)
        return result.stdout

    def stop(self) -> tuple[int, str]:
        """Send SIGTERM to process 1; return the exit status and the output."""
        os.kill(self.first_process, signal.SIGTERM)
        output, _ = self.process.communicate(timeout=30)
        return self.process.returncode, output


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a directory of the image's user."""
    state = tmp_path / "state"
    state.mkdir(0o700)
    os.chown(state, USER, USER)
    return state


FETCH = "import sys; from urllib.request import urlopen; print(urlopen(sys.argv[1]).read().decode())"


@pytest.mark.parametrize("workers", ["0", "2"])
def test_demo_is_served(root: Path, config: dict[str, Any], state: Path, workers: str) -> None:
    """The demo serves, is healthy, keeps its snapshot in its volume, and ends with SIGTERM."""
    options = ["serve", "--source", "demo", "--workers", workers, "--snapshot", "snapshot"]
    container = Container(root, config, [*config["Entrypoint"], *options], state)
    try:
        container.wait_for(*config["Healthcheck"]["Test"][1:])
        assert "Station" in container.wait_for("python", "-c", FETCH, "http://127.0.0.1:8080/board/57330430?as=json")
        status = Path(f"/proc/{container.first_process}/status").read_text()
        for line in (f"Uid:\t{USER}\t{USER}\t{USER}", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"):
            assert line in status
        assert "Read-only" in container.run("sh", "-c", "touch /usr/x /opt/govi-cache/x").stderr
    finally:
        status_code, output = container.stop()
    assert status_code == 0, output
    assert (state / "snapshot").stat().st_size > 0
    assert "Traceback" not in output
    assert "dropin.cache" not in output


def test_source_must_be_chosen(root: Path, config: dict[str, Any], state: Path) -> None:
    """Without arguments, the image names the sources."""
    container = Container(root, config, [*config["Entrypoint"], *config["Cmd"]], state)
    output, _ = container.process.communicate(timeout=60)
    assert container.process.returncode == 1
    for source in ("demo", "govi", "kv78turbo"):
        assert source in output


def test_no_build_tools_remain(root: Path) -> None:
    """The image has neither pip nor a compiler, nor the lists and caches of apt."""
    for name in ("pip", "pip3", "gcc", "cc", "make", "git"):
        for directory in ("usr/bin", "usr/local/bin", "opt/govi-cache/bin"):
            assert not (root / directory / name).exists(), name
    assert not any((root / "var/lib/apt/lists").glob("*_Packages*"))
    assert not list((root / "opt/govi-cache").glob("lib/*/site-packages/pip"))
