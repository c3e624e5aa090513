"""The commands as an operator runs them."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.integration.conftest import TWISTD, Twistd, arguments, free_port, wait_for

# These tests wait for processes, not for the reactor: they are plain functions.


def asked(url: str) -> bytes:
    """Ask, and give the body, whatever the status is."""
    try:
        with urlopen(url, timeout=13) as answer:
            return cast(bytes, answer.read())
    except HTTPError as error:
        return error.read()


def soon(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Tell whether something holds within so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_demo(twistd: Twistd) -> None:
    """The demo answers at the address that it suggests, and ends cleanly on SIGTERM."""
    port = free_port()
    process = twistd(*arguments(port))
    said = wait_for(process, "Try http://")
    address = said.split("Try ")[1].strip()
    assert address == f"http://localhost:{port}/kv55/57330430"
    with urlopen(address.replace("localhost", "127.0.0.1"), timeout=13) as answer:
        assert b"<TimingPointCode>57330430</TimingPointCode>" in answer.read()
    assert soon(lambda: b"Lindewaard, Station" in asked(f"http://127.0.0.1:{port}/tpc/57330430"))  # the town's feed
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=10)
    assert process.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert "Server Shut Down" in rest
    assert "Traceback" not in said + rest


def test_too_many_open_files(twistd: Twistd) -> None:
    """Near the limit of open files accepting pauses, says so once, and goes on when there are fewer."""
    port = free_port()
    process = twistd(*arguments(port))
    wait_for(process, "Try http://")
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (300, 300))
    clients = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(200)]
    said = wait_for(process, "Accepting pauses for govi-cache: too many open files")
    assert 150 < len(os.listdir(f"/proc/{process.pid}/fd")) < 300
    for client in clients:
        client.close()
    said += wait_for(process, "Accepting resumes for govi-cache")
    with urlopen(f"http://127.0.0.1:{port}/kv55/57330430", timeout=13) as answer:
        assert answer.status == 200
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=20)
    assert (said + rest).count("Accepting pauses") == 1
    assert "EMFILE" not in said + rest
    assert "Traceback" not in said + rest


def test_drain(twistd: Twistd, tmp_path: Path) -> None:
    """On SIGTERM the requests in flight are finished, and are in the statistics log."""
    port, simulator_port, callback_port = free_port(), free_port(), free_port()
    simulator = twistd(
        "govi-simulator", "--listen", f"tcp:{simulator_port}:interface=127.0.0.1",
        "--callback-url", f"http://127.0.0.1:{callback_port}/", "--delay", "1", "--gzip",
    )  # fmt: skip
    process = twistd(
        "govi-cache", "--listen", f"tcp:{port}:interface=127.0.0.1",
        "--callback", f"tcp:{callback_port}:interface=127.0.0.1",
        "--gateway-url", f"http://127.0.0.1:{simulator_port}/", "--statistics", "statistics.log", "--admin", "",
    )  # fmt: skip
    wait_for(simulator, "Listening on")
    wait_for(process, "for govi-cache")
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(b"GET /kv55/57330430 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(simulator, "is asked for")
        process.send_signal(signal.SIGTERM)
        received = b""
        while more := client.recv(65536):
            received += more
    assert received.startswith(b"HTTP/1.1 200 Ok\r\n")
    assert b"\r\nConnection: close\r\n" in received
    process.communicate(timeout=10)
    (line,) = (tmp_path / "statistics.log").read_text().splitlines()
    (request,) = json.loads(line)["requests"]
    assert (request["status"], request["cache"]) == (200, "miss")


def test_taken_port(twistd: Twistd) -> None:
    """A taken port is one line that names it, and exit status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        process = twistd(*arguments(free_port(), "--listen", endpoint))
        said, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert f"cannot listen on {endpoint} for govi-cache: Address already in use\n" in said
    assert "Traceback" not in said


def test_taken_port_of_a_daemon(tmp_path: Path) -> None:
    """A twistd that goes to the background says so, too, and leaves no pid file behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        ended = subprocess.run(
            [sys.executable, "-c", TWISTD, *arguments(free_port(), "--listen", endpoint)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=10,
        )
    assert ended.returncode == 1
    assert f"cannot listen on {endpoint}" in ended.stderr
    # The one in the background goes on for a moment after it has told the one that waited.
    end = time.monotonic() + 10
    while (tmp_path / "twistd.pid").exists():
        assert time.monotonic() < end, "the pid file stays"
        time.sleep(0.01)
    assert "Traceback" not in ended.stderr + (tmp_path / "twistd.log").read_text()


def test_open_files(twistd: Twistd) -> None:
    """A server that may open few files takes fewer connections, says so once, and goes on answering."""
    port = free_port()
    process = twistd(*arguments(port), files=200)
    said = wait_for(process, "Try http://")
    assert "25 connections at once: the limit of 200 open files allows no more" in said
    crowd = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(150)]
    try:
        with urlopen(f"http://127.0.0.1:{port}/kv55/57330430", timeout=13) as answer:
            assert answer.status == 200
    finally:
        for client in crowd:
            client.close()
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=10)
    assert "EMFILE" not in rest
    assert "Traceback" not in rest


def test_unwritable_statistics(twistd: Twistd) -> None:
    """A statistics file that cannot be written is one line that names it, and exit status 1."""
    process = twistd(*arguments(free_port(), "--statistics", "/nonexistent/log"))
    said, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert said.endswith("cannot write the statistics log /nonexistent/log: No such file or directory\n")
    assert "Traceback" not in said


def test_bad_configuration(twistd: Twistd, tmp_path: Path) -> None:
    """A wrong key is one line that names file and key, and exit status 1."""
    (tmp_path / "config.toml").write_text("[cache]\nfrehs = 3\n")
    process = twistd("govi-cache", "--config", "config.toml")
    said, _ = process.communicate(timeout=10)
    assert (process.returncode, said) == (
        1,
        "govi-cache: config.toml: cache: Object contains unknown field `frehs`\n",
    )
