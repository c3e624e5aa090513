"""Tests of the systemd unit in a machine of its own: systemd as process 1, on an overlay of this machine's files."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.proxies import ETC, STOP, make_certificate
from tests.deployment.sandbox import directives
from tests.integration.conftest import TWISTD, becomes_true

ROOT = ETC.parent
UNIT = ETC / "systemd/govi-cache.service"
SERVICE = "govi-cache.service"

CONFIGURATION = """
workers = 2
[modules.kv55]
source = "demo"
[manhole]
listen = "tcp:2222:interface=127.0.0.1"
keys = "/var/lib/govi-cache/manhole.keys"
"""

GROUP = "games"
"""A group of every Debian, for the key."""

FETCH = """
import ssl, sys, urllib.error, urllib.request
context = ssl.create_default_context(cafile=sys.argv[1])
try:
    print(urllib.request.urlopen(sys.argv[2], timeout=20, context=context).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def write_program(directory: Path) -> None:
    """Write what is in /opt/govi-cache: an environment of /opt/python, with the packages and the program in /opt.

    So nothing is read from directories that the unit hides, such as /home, /root and /tmp.
    """
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = directory / f"lib/{python}/site-packages"
    packages.mkdir(parents=True)
    (packages / "program.pth").write_text("/opt/packages\n/opt/checkout\n")
    (directory / "pyvenv.cfg").write_text("home = /opt/python/bin\n")
    (directory / "bin").mkdir()
    (directory / "bin/python3").symlink_to(f"/opt/python/bin/{python}")
    for name, code in (("twistd", TWISTD), ("govi-cache", "from govi_server.command.main import main\nmain()")):
        script = directory / "bin" / name
        script.write_text(f"#!/opt/govi-cache/bin/python3\n{code}\n")
        script.chmod(0o755)


class Machine:
    """A booted machine with the units, and a network that has only loopback. directory: its /etc/govi-cache."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "etc"
        write_program(folder / "program")
        drop_in = folder / "drop-in"
        for path in (self.directory, drop_in, folder / "root"):
            path.mkdir()
        make_certificate(self.directory)
        (self.directory / "key.pem").chmod(0o640)
        shutil.chown(self.directory / "key.pem", group=GROUP)
        (self.directory / "govi-cache.toml").write_text(CONFIGURATION)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.directory / "id"], check=True)
        endpoint = "ssl:8443:interface=127.0.0.1:privateKey=/etc/govi-cache/key.pem:certKey=/etc/govi-cache/chain.pem"
        (drop_in / "test.conf").write_text(
            f"[Service]\nSupplementaryGroups={GROUP}\nWatchdogSec=4\n"
            "Environment=LD_LIBRARY_PATH=/opt/python/lib\n"
            "ExecStartPre=+install -m 644 /etc/govi-cache/id.pub /var/lib/govi-cache/manhole.keys\n"
            f"ExecStart=\nExecStart={directives(str(UNIT))['ExecStart'][-1]} --listen {endpoint}\n"
        )
        binds = {
            folder / "program": "/opt/govi-cache",
            Path(sys.base_prefix): "/opt/python",
            Path(sysconfig.get_path("purelib")): "/opt/packages",
            ROOT: "/opt/checkout",
            drop_in: f"/etc/systemd/system/{SERVICE}.d",
            **{path: f"/etc/systemd/system/{path.name}" for path in UNIT.parent.iterdir()},
        }
        options = [f"--bind-ro={source}:{target}" for source, target in binds.items()]
        mounts = f'mount --make-rprivate / && mount --bind / {folder}/root && exec "$@"'
        self._process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", mounts, "sh", "systemd-nspawn", f"--directory={folder}/root",
             "--volatile=overlay", "--boot", "--register=no", "--keep-unit", "--private-network", "--console=pipe",
             "--link-journal=no", "--tmpfs=/var/cache", "--tmpfs=/var/lib", "--tmpfs=/var/log", *options,
             f"--bind={self.directory}:/etc/govi-cache", "systemd.unit=basic.target"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert becomes_true(lambda: self.run("systemctl", "is-active", "basic.target") == "active", 60)

    def run(self, *command: str) -> str:
        """Return the output of a command in the machine, also of one that fails."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        leader = children.read_text().strip()
        if not leader:
            return ""
        entered = ["nsenter", f"--target={leader}", "--all", *command]
        return subprocess.run(entered, capture_output=True, text=True, timeout=60, check=False).stdout.strip()

    def fetch(self, url: str) -> str:
        """Return the status of a response."""
        return self.run("/opt/govi-cache/bin/python3", "-c", FETCH, "/etc/govi-cache/chain.pem", url)

    def show(self, name: str) -> str:
        """Return a property of the service."""
        return self.run("systemctl", "show", SERVICE, f"--property={name}", "--value")

    def journal(self) -> str:
        """Return the log of the service."""
        return self.run("journalctl", f"--unit={SERVICE}", "--output=cat", "--no-pager")

    def close(self) -> None:
        """Switch it off."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Return a booted machine."""
    if os.getuid() != 0 or shutil.which("systemd-nspawn") is None:
        pytest.skip("needs root, and systemd-nspawn (apt install systemd-container)")
    machine = Machine(tmp_path)
    yield machine
    machine.close()


def test_unit_under_systemd(machine: Machine) -> None:
    """TLS, workers, the manhole, reloading, restarts and the watchdog work as the unit is installed."""
    machine.run("systemctl", "start", "govi-cache.socket", SERVICE)
    assert machine.show("ActiveState") == "active", machine.journal()
    plain, secure = f"http://127.0.0.1:8080/tpc/{STOP}", f"https://localhost:8443/kv55/{STOP}"
    assert becomes_true(lambda: machine.fetch(plain) == "200", 30), machine.journal()
    assert machine.fetch(secure) == "200"
    assert becomes_true(lambda: machine.journal().count(": serving clients (process ") == 2)

    documented = (ROOT / "docs/install.md").read_text().partition("# systemd-run ")[2].partition("\n```")[0]
    library = "--setenv=LD_LIBRARY_PATH=/opt/python/lib"
    examined = machine.run("systemd-run", library, *documented.replace("\\\n", "").split())
    for line in (
        "ok    listen: systemd:domain=INET:index=0: given by the socket unit",
        f"process {machine.show('MainPID')}, configuration /etc/govi-cache/govi-cache.toml",
        "ok    statistics.file: /var/log/govi-cache/statistics.log: writable",
        "ok    snapshot.file: /var/lib/govi-cache/snapshot: writable",
    ):
        assert line in examined, examined

    ssh = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
           "-i", "/etc/govi-cache/id", "-p", "2222", "127.0.0.1", "status()"]  # fmt: skip
    assert "breaker closed" in machine.run(*ssh)

    configuration = machine.directory / "govi-cache.toml"
    configuration.write_text(f"{CONFIGURATION}[access]\nunlimited = []\nrate = 1\nburst = 1\n")
    make_certificate(machine.directory)
    machine.run("systemctl", "reload", SERVICE)
    assert becomes_true(lambda: machine.fetch(secure) == "429", 30), machine.journal()  # with the new certificate
    assert "certificate reloaded" in machine.journal()

    configuration.write_text(CONFIGURATION)
    machine.run("systemctl", "restart", SERVICE)
    assert machine.fetch(plain) == "200"  # waits in the socket until workers serve
    machine.run("kill", "-STOP", machine.show("MainPID"))
    assert becomes_true(lambda: machine.show("NRestarts") == "1", 60)
    assert machine.fetch(plain) == "200"

    machine.run("systemctl", "stop", "govi-cache.socket", SERVICE)
    assert machine.show("Result") == "success"
    assert "Traceback" not in machine.journal()
    assert len(machine.run("ls", "/var/lib/govi-cache/snapshot", "/var/log/govi-cache/statistics.log").split()) == 2
    report = machine.run("systemd-analyze", "security", "--no-pager", SERVICE)
    assert re.search(r"level for govi-cache\.service: 1\.[0-3] OK", report), report  # docs/install.md, With systemd
