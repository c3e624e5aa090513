"""Tests of the commands as operators run them.

These tests are plain functions: they wait for processes, not for the reactor.
"""

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


def body_of(url: str) -> bytes:
    """Return the body of the response to a GET, for any status."""
    try:
        with urlopen(url, timeout=13) as response:
            return cast(bytes, response.read())
    except HTTPError as error:
        return error.read()


def becomes_true(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Return whether a condition becomes true within so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_demo_responds_at_its_logged_url(twistd: Twistd) -> None:
    """The demo responds below the URL that it logs, and exits cleanly on SIGTERM."""
    port = free_port()
    process = twistd(*arguments(port))
    output = wait_for(process, "Open http://")
    address = output.split("Open ")[1].strip()
    assert address == f"http://localhost:{port}/"
    with urlopen(f"{address.replace('localhost', '127.0.0.1')}kv55/57330430", timeout=13) as response:
        assert b"<TimingPointCode>57330430</TimingPointCode>" in response.read()
    assert becomes_true(
        lambda: b"Lindewaard, Station" in body_of(f"http://127.0.0.1:{port}/tpc/57330430")
    )  # the town's feed
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=10)
    assert process.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert "Server Shut Down" in rest
    assert "Traceback" not in output + rest


def test_too_many_open_files(twistd: Twistd) -> None:
    """Near the limit of open files accepting pauses, with one log line, and resumes when files are closed."""
    port = free_port()
    process = twistd(*arguments(port))
    wait_for(process, "Open http://")
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (300, 300))
    clients = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(200)]
    output = wait_for(process, "govi-cache: accepting paused (too many open files)")
    assert 150 < len(os.listdir(f"/proc/{process.pid}/fd")) < 300
    for client in clients:
        client.close()
    output += wait_for(process, "govi-cache: accepting resumed")
    with urlopen(f"http://127.0.0.1:{port}/kv55/57330430", timeout=13) as response:
        assert response.status == 200
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=20)
    assert (output + rest).count("accepting paused") == 1
    assert "EMFILE" not in output + rest
    assert "Traceback" not in output + rest


def test_requests_in_flight_are_finished_on_sigterm(twistd: Twistd, tmp_path: Path) -> None:
    """On SIGTERM requests in flight are finished, and logged in the statistics."""
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
        wait_for(simulator, "request received")
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


def test_port_in_use(twistd: Twistd) -> None:
    """The error of a port in use is one line that names it; the exit status is 1."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        endpoint = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
        process = twistd(*arguments(free_port(), "--listen", endpoint))
        output, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert (
        f"listen (--listen): cannot listen on {endpoint}: address already in use; is another govi-cache running?\n"
        in output
    )
    assert "Traceback" not in output


def test_port_in_use_of_daemon(tmp_path: Path) -> None:
    """A daemon reports a port in use to the process that started it, and leaves no pid file."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        endpoint = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
        completed = subprocess.run(
            [sys.executable, "-c", TWISTD, *arguments(free_port(), "--listen", endpoint)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=10,
        )
    assert completed.returncode == 1
    assert "listen (--listen): cannot listen on tcp:" in completed.stderr  # twistd truncates it to 100 bytes
    # The daemon exits shortly after it has reported the error.
    end = time.monotonic() + 10
    while (tmp_path / "twistd.pid").exists():
        assert time.monotonic() < end, "the pid file was not removed"
        time.sleep(0.01)
    assert "Traceback" not in completed.stderr + (tmp_path / "twistd.log").read_text()


def test_limit_of_open_files(twistd: Twistd) -> None:
    """A low limit of open files lowers the limit of connections, with one log line."""
    port = free_port()
    process = twistd(*arguments(port), files=200)
    output = wait_for(process, "Open http://")
    assert "Accepting at most 25 connections: the limit of open files is 200" in output
    clients = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(150)]
    try:
        with urlopen(f"http://127.0.0.1:{port}/kv55/57330430", timeout=13) as response:
            assert response.status == 200
    finally:
        for client in clients:
            client.close()
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=10)
    assert "EMFILE" not in rest
    assert "Traceback" not in rest


def test_unwritable_statistics_log_is_reported(twistd: Twistd) -> None:
    """The error of an unwritable statistics log is one line that names it; the exit status is 1."""
    process = twistd(*arguments(free_port(), "--statistics", "/nonexistent/log"))
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    error = "statistics.file (--statistics): cannot write /nonexistent/log: No such file or directory"
    assert output.endswith(f"{error}\n")
    assert "Traceback" not in output


def test_invalid_configuration_is_reported_in_one_line(twistd: Twistd, tmp_path: Path) -> None:
    """The error of an unknown key is one line with the file and the nearest key; the exit status is 1."""
    (tmp_path / "config.toml").write_text("[cache]\nfrehs = 3\n")
    process = twistd("govi-cache", "--config", "config.toml")
    output, _ = process.communicate(timeout=10)
    assert (process.returncode, output) == (
        1,
        "govi-cache: config.toml: cache.frehs: unknown setting; did you mean 'cache.fresh'?\n",
    )
