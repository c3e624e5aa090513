"""Upgrade from 0.1.0 and rollback to it: each version with the files that the other one wrote.

version_0_1_0/ has what version 0.1.0 (commit f9d6417) wrote with a simulated gateway and feed.
"""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from govi_server.kv78turbo.recording import read_record
from tests.command.test_main import run
from tests.integration.conftest import TWISTD, Twistd, arguments, becomes_true, wait_for
from tests.integration.test_twistd import body_of
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
OLD = Path(__file__).parent / "version_0_1_0"
COMMIT = "f9d6417"


def test_configuration_and_snapshot(twistd: Twistd, tmp_path: Path) -> None:
    """The old configuration is valid; the boards of the old snapshot are restored, however old they are by now."""
    for path in OLD.iterdir():
        shutil.copy(path, tmp_path)
    ports = free_port(), free_port(), free_port()
    config = tmp_path / "govi-cache.toml"
    text = config.read_text()
    for old, port in zip(("18230", "18232", "18233"), ports, strict=True):
        text = text.replace(old, f"{port}")
    config.write_text(text)
    assert run("check", str(config)) == (0, f"{config}: valid\n")
    process = twistd("govi-cache", "--config", "govi-cache.toml")
    output = wait_for(process, "govi-cache: http://")
    if "Snapshot " not in output:
        output += wait_for(process, "Snapshot ")
    assert "renamed" not in output
    assert not list(tmp_path.glob("snapshot?*"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def test_statistics_log(tmp_path: Path) -> None:
    """Old lines of the statistics log are reported, alone and followed by new ones."""
    status, text = run("stats", "--json", str(OLD / "statistics.jsonl"))
    assert status == 0
    assert json.loads(text)["lines"] == {"counted": 4, "outside": 0, "bad": 0}


def test_recording(twistd: Twistd, tmp_path: Path) -> None:
    """An old recording is replayed; one of a later version than this is not."""
    lines = (OLD / "recording.jsonl").read_bytes().splitlines()
    assert [read_record(line).version for line in lines] == [0, 0]
    later = json.dumps({**json.loads(lines[0]), "version": 99}).encode()
    with pytest.raises(ValueError, match="version 99 of the format"):
        read_record(later)
    feed = f"tcp://127.0.0.1:{free_port()}"
    process = twistd("govi-simulator", "--listen", "tcp:0", "--feed", feed, "--replay", str(OLD / "recording.jsonl"))
    assert "2 messages in 1 file" in wait_for(process, f"listening on {feed}")


def test_configuration_of_a_later_version(tmp_path: Path) -> None:
    """A configuration of a later version is an error that says so."""
    config = tmp_path / "x.toml"
    config.write_text('version = 99\n[modules.kv55]\nsource = "demo"\n')
    status, text = run("check", str(config))
    assert (status, text.partition(" (")[0]) == (1, f"{config}:1: version: invalid value 99")


def old_program(directory: Path) -> dict[str, str]:
    """Extract the old program; return the environment in which it runs. Skips the test without its commit."""
    archive = subprocess.run(
        ["git", "archive", COMMIT, "govi_server", "twisted"], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip(f"the history of this checkout has no commit {COMMIT}")
    directory.mkdir()
    subprocess.run(["tar", "x"], cwd=directory, input=archive.stdout, check=True)
    return {"PYTHONPATH": f"{directory}"}


def test_rollback(twistd: Twistd, tmp_path: Path) -> None:
    """The old program starts with the files of this one: it appends to the log, and sets the snapshot aside."""
    environment = old_program(tmp_path / "old")
    files = ["--snapshot", "snapshot", "--statistics", "statistics.log"]
    port = free_port()
    process = twistd(*arguments(port, "--source", "demo", *files))
    wait_for(process, "govi-cache: http://")
    assert b"</DRIS_55>" in body_of(f"http://127.0.0.1:{port}/kv55/57330430")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    log = tmp_path / "statistics.log"
    assert json.loads(log.read_text())["version"] == 2
    old_port = free_port()
    old = subprocess.Popen(
        [sys.executable, "-c", TWISTD, "-n", "--pidfile=", *arguments(old_port, "--source", "demo", *files)],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        wait_for(old, "http://localhost")
        assert becomes_true(lambda: b"</DRIS_55>" in body_of(f"http://127.0.0.1:{old_port}/kv55/57330430"))
        old.send_signal(signal.SIGTERM)
        output, _ = old.communicate(timeout=60)
    finally:
        old.kill()
        old.communicate()
    assert "Traceback" not in output
    status, text = run("stats", "--json", str(log))
    assert (status, json.loads(text)["lines"]["bad"]) == (0, 0)
    assert json.loads(text)["requests"] >= 2
