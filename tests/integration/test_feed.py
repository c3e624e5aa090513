"""The simulator's feed and the recorder, as an operator runs them, over real sockets."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from govi_server.kv78turbo import ctx
from govi_server.simulator.replay import shift
from tests.integration.conftest import free_port

TWISTD = "from twisted.scripts.twistd import run; run()"
RECORD = "from govi_server.command.record import main; main()"
FAST = "3600"
"""An hour in a second: however late at night it is, there is something new every second."""

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Give a function that runs a command in a directory of its own, and ends what it started."""
    started: list[subprocess.Popen[str]] = []

    def run(code: str, *arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def simulator(feed: str, *more: str) -> list[str]:
    """Give the arguments of a twistd that publishes on an address."""
    listen = f"tcp:{free_port()}:interface=127.0.0.1"
    return ["--nodaemon", "--pidfile=", "govi-simulator", "--listen", listen, "--feed", feed, *more]


@pytest.fixture(scope="module")
def town() -> Iterator[str]:
    """Give the address of a feed of the town, for all tests."""
    feed = f"tcp://127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-c", TWISTD, *simulator(feed, "--speed", FAST)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(process, f"Listening on {feed} for the feed of the town")
        yield feed
    finally:
        process.kill()
        process.communicate()


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    """Read what a process says until this text is in a line."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"it ended without saying {text!r}: {said}")


def ended(process: "subprocess.Popen[str]", number: signal.Signals) -> str:
    """End a process, and give what it said; it must have ended well."""
    process.send_signal(number)
    said, _ = process.communicate(timeout=10)
    assert "Traceback" not in said
    assert process.returncode == 0, said
    return said


def recorded(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.02)


def sent_on(record: dict[str, str]) -> int:
    """Give the day that a message says it was sent on."""
    group, _, _ = record["ctx"].partition("\r\n")
    return datetime.fromisoformat(group.split("|")[7]).toordinal()


def test_record_and_replay(run: Run, town: str, tmp_path: Path) -> None:
    """What the feed says of the town is recorded, and the recording is said again as it was."""
    (tmp_path / "recordings").mkdir()
    first = tmp_path / "recordings" / "first.jsonl"
    # Not what is planned, which the town says again at its own times.
    recorder = run(RECORD, "--feed", town, "--output", str(first), "--prefix", "/GOVI/KV8")
    until(lambda: sum("KV8passtimes" in record["envelope"] for record in recorded(first)) >= 2)
    said = ended(recorder, signal.SIGINT)
    records = recorded(first)
    assert f"{first}: {len(records)} messages, " in said
    assert f"{first.stat().st_size} bytes" in said
    refused: list[str] = []
    for record in records:
        for rows in ctx.read([record["ctx"].encode()], refused.append):
            assert rows.table in ("DATEDPASSTIME", "GENERALMESSAGEUPDATE", "GENERALMESSAGEDELETE")
    assert not refused

    feed = f"tcp://127.0.0.1:{free_port()}"
    replay = run(TWISTD, *simulator(feed, "--replay", "recordings", "--speed", "50"))
    assert f"{len(records)} messages in 1 files of recordings" in wait_for(replay, f"Listening on {feed}")
    recorder = run(RECORD, "--feed", feed, "--output", "second.jsonl", "--prefix", "/GOVI/KV8")
    wait_for(replay, "has been sent")
    second = tmp_path / "second.jsonl"
    until(lambda: len(recorded(second)) == len(records))
    ended(recorder, signal.SIGTERM)
    again = recorded(second)
    assert [record["envelope"] for record in again] == [record["envelope"] for record in records]
    days = sent_on(again[0]) - sent_on(records[0])  # none, unless it is midnight
    for before, after in zip(records, again, strict=True):
        assert after["ctx"].encode() == shift(before["ctx"].encode(), days)


def test_taken_address(run: Run, town: str) -> None:
    """A taken address of the feed is one line that names it, and exit status 1."""
    process = run(TWISTD, *simulator(town))
    said, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert f"cannot listen on {town} for the feed: Address already in use\n" in said
    assert "Traceback" not in said


def test_full_disk(run: Run, town: str) -> None:
    """On a full disk the recorder ends with one line and exit status 1."""
    recorder = run(RECORD, "--feed", town, "--output", "/dev/full")
    said, _ = recorder.communicate(timeout=10)
    assert recorder.returncode == 1
    assert said.endswith("govi-record: cannot write /dev/full: No space left on device\n")
    assert "Traceback" not in said


def test_cannot_record(run: Run) -> None:
    """What cannot be done is one line, and exit status 1."""
    recorder = run(RECORD, "--feed", "nonsense")
    said, _ = recorder.communicate(timeout=10)
    assert recorder.returncode == 1
    assert said.startswith("govi-record: invalid feed address 'nonsense'")
    assert said.count("\n") == 1
