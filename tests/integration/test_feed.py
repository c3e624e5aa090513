"""Tests of the simulated feed and the recorder as operators run them, over real sockets."""

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
from govi_server.simulator.replay import shift_dates
from tests.ports import free_port

TWISTD = "from twisted.scripts.twistd import run; run()"
RECORD = "from govi_server.command.record import record; record()"
FAST = "3600"
"""An hour per second, so that data changes every second, even at night."""

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Return a function that runs code in the test's directory; its processes are killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def run(code: str, *arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell starts its background jobs, which the tests may be, with SIGINT ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def simulator(feed: str, *more: str) -> list[str]:
    """Return the arguments of twistd for a simulator that publishes on an address."""
    listen = f"tcp:{free_port()}:interface=127.0.0.1"
    return ["--nodaemon", "--pidfile=", "govi-simulator", "--listen", listen, "--feed", feed, *more]


@pytest.fixture(scope="module")
def town() -> Iterator[str]:
    """Yield the address of a feed of the town that all tests share."""
    feed = f"tcp://127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-c", TWISTD, *simulator(feed, "--speed", FAST)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(process, f"Simulated feed: listening on {feed} (the town)")
        yield feed
    finally:
        process.kill()
        process.communicate()


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    """Return the output of a process up to a line that contains text."""
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if text in line:
            return output
    raise AssertionError(f"the process ended without {text!r}: {output}")


def stop(process: "subprocess.Popen[str]", number: signal.Signals) -> str:
    """Stop a process with a signal; return its output. Its exit status must be 0."""
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output
    assert process.returncode == 0, output
    return output


def read_records(path: Path) -> list[dict[str, str]]:
    """Return the records of a file, without one that is being written."""
    *lines, _ = path.read_text().split("\n") if path.exists() else [""]
    return [json.loads(line) for line in lines]


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition. Raises AssertionError after ten seconds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.02)


def date_sent(record: dict[str, str]) -> int:
    """Return the proleptic ordinal of the date on which a message was sent."""
    group, _, _ = record["ctx"].partition("\r\n")
    return datetime.fromisoformat(group.split("|")[7]).toordinal()


def test_record_and_replay(run: Run, town: str, tmp_path: Path) -> None:
    """The town's feed is recorded, and a replay of the recording has the same messages."""
    (tmp_path / "recordings").mkdir()
    first = tmp_path / "recordings" / "first.jsonl"
    # Only KV8: the town repeats KV7 at other times.
    recorder = run(RECORD, "--feed", town, "--output", str(first), "--prefix", "/GOVI/KV8")
    until(lambda: sum("KV8passtimes" in record["envelope"] for record in read_records(first)) >= 2)
    output = stop(recorder, signal.SIGINT)
    records = read_records(first)
    assert f"{first}: {len(records)} messages, " in output
    assert f"{first.stat().st_size} bytes" in output
    rejected: list[str] = []
    for record in records:
        for rows in ctx.read([record["ctx"].encode()], rejected.append):
            assert rows.table in ("DATEDPASSTIME", "GENERALMESSAGEUPDATE", "GENERALMESSAGEDELETE")
    assert not rejected

    feed = f"tcp://127.0.0.1:{free_port()}"
    replay = run(TWISTD, *simulator(feed, "--replay", "recordings", "--speed", "50"))
    assert f"{len(records)} messages in 1 file of recordings" in wait_for(replay, f"listening on {feed}")
    recorder = run(RECORD, "--feed", feed, "--output", "second.jsonl", "--prefix", "/GOVI/KV8")
    wait_for(replay, "Simulated feed: sent all of")
    second = tmp_path / "second.jsonl"
    until(lambda: len(read_records(second)) == len(records))
    stop(recorder, signal.SIGTERM)
    replayed = read_records(second)
    assert [record["envelope"] for record in replayed] == [record["envelope"] for record in records]
    days = date_sent(replayed[0]) - date_sent(records[0])  # 0, except around midnight
    for before, after in zip(records, replayed, strict=True):
        assert after["ctx"].encode() == shift_dates(before["ctx"].encode(), days)


def test_address_in_use(run: Run, town: str) -> None:
    """The error of an address in use is one line that names it; the exit status is 1."""
    process = run(TWISTD, *simulator(town))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"--feed: cannot listen on {town}: Address already in use\n" in output
    assert "Traceback" not in output


def test_full_disk(run: Run, town: str) -> None:
    """On a full disk the recorder exits with one line and status 1."""
    recorder = run(RECORD, "--feed", town, "--output", "/dev/full")
    output, _ = recorder.communicate(timeout=60)
    assert recorder.returncode == 1
    assert output.endswith("govi-cache record: cannot write /dev/full: No space left on device\n")
    assert "Traceback" not in output


def test_invalid_address(run: Run) -> None:
    """The error of an invalid address is one line; the exit status is 1."""
    recorder = run(RECORD, "--feed", "nonsense")
    output, _ = recorder.communicate(timeout=60)
    assert recorder.returncode == 1
    assert output.startswith("govi-cache record: --feed: invalid feed address 'nonsense'")
    assert output.count("\n") == 1
