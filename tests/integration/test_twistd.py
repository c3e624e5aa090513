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
from pathlib import Path
from typing import cast
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.integration.conftest import TWISTD, Twistd, arguments, becomes_true, wait_for
from tests.ports import free_port


def body_of(url: str) -> bytes:
    """Return the body of the response to a GET, for any status."""
    try:
        with urlopen(url, timeout=13) as response:
            return cast(bytes, response.read())
    except HTTPError as error:
        return error.read()


def test_demo_responds_at_its_logged_url(twistd: Twistd) -> None:
    """The demo responds below the URL that it logs, and exits cleanly on SIGTERM."""
    port = free_port()
    process = twistd(*arguments(port))
    output = wait_for(process, "govi-cache: http://")
    address = output.split("govi-cache: ")[1].strip()
    assert address == f"http://localhost:{port}/"
    with urlopen(f"{address.replace('localhost', '127.0.0.1')}kv55/57330430", timeout=13) as response:
        assert b"<TimingPointCode>57330430</TimingPointCode>" in response.read()
    assert becomes_true(
        lambda: b"Lindewaard, Station" in body_of(f"http://127.0.0.1:{port}/tpc/57330430")
    )  # the town's feed
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert "Server Shut Down" in rest
    assert "Traceback" not in output + rest


def test_too_many_open_files(twistd: Twistd) -> None:
    """Near the limit of open files clients are served all the same: idle connections are closed for new ones."""
    port = free_port()
    process = twistd(*arguments(port))
    wait_for(process, "govi-cache: http://")
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (300, 300))
    clients = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(400)]
    url = f"http://127.0.0.1:{port}/kv55/57330430"
    assert b"<TimingPointCode>57330430</TimingPointCode>" in body_of(url)
    assert 250 < len(os.listdir(f"/proc/{process.pid}/fd")) < 300
    for client in clients:
        client.close()
    assert b"<TimingPointCode>57330430</TimingPointCode>" in body_of(url)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert "EMFILE" not in output
    assert "Traceback" not in output


def test_accepting_pauses_while_others_use_all_files(twistd: Twistd) -> None:
    """If the limit of open files is used up by others, accepting pauses, with one log line, and resumes."""
    port = free_port()
    process = twistd(*arguments(port))
    output = wait_for(process, "(RECOVERING)")  # the last files are open
    used = len(os.listdir(f"/proc/{process.pid}/fd"))
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + 1, 300))
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        output += wait_for(process, "govi-cache: accepting paused (too many open files)")
        client.sendall(b"GET /kv55/57330430 HTTP/1.1\r\nHost: x\r\n\r\n")
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (300, 300))
        output += wait_for(process, "govi-cache: accepting resumed")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert (output + rest).count("accepting paused") == 1
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
    process.communicate(timeout=60)
    (line,) = (tmp_path / "statistics.log").read_text().splitlines()
    (request,) = json.loads(line)["requests"]
    assert (request["status"], request["cache"]) == (200, "miss")


def test_port_in_use(twistd: Twistd) -> None:
    """The error of a port in use is one line that names it; the exit status is 1."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        endpoint = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
        process = twistd(*arguments(free_port(), "--listen", endpoint))
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert (
        f"listen (--listen): cannot listen on {endpoint}: address already in use, perhaps by another govi-cache (`ss "
        "-ltnp` lists the processes that listen); choose another with --listen\n"
    ) in output
    assert "Traceback" not in output
    for word in ("Listening", "listening", "starting on"):
        assert word not in output  # not before all endpoints listen


def test_port_in_use_of_daemon(tmp_path: Path) -> None:
    """A daemon reports a port in use to the process that started it, and leaves no pid file."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        endpoint = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
        completed = subprocess.run(
            [sys.executable, "-c", TWISTD, *arguments(free_port(), "--listen", endpoint)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert completed.returncode == 1
    assert "listen (--listen): cannot listen on tcp:" in completed.stderr  # twistd truncates it to 100 bytes
    # The daemon exits shortly after it has reported the error.
    assert becomes_true(lambda: not (tmp_path / "twistd.pid").exists())
    assert "Traceback" not in completed.stderr + (tmp_path / "twistd.log").read_text()


@pytest.mark.parametrize(("files", "connections"), [(60, 4), (64, 6), (200, 74)])
def test_limit_of_open_files(twistd: Twistd, files: int, connections: int) -> None:
    """A low limit of open files lowers the limit of connections, with one log line; clients are still served."""
    port = free_port()
    process = twistd(*arguments(port), files=files)
    output = wait_for(process, "govi-cache: http://")
    assert f"Accepting at most {connections} connections: the limit of open files is {files}" in output
    clients = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(150)]
    try:
        for _ in range(3):
            with urlopen(f"http://127.0.0.1:{port}/kv55/57330430", timeout=13) as response:
                assert response.status == 200
    finally:
        for client in clients:
            client.close()
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert "EMFILE" not in rest
    assert "Traceback" not in rest


@pytest.mark.parametrize("files", [20, 40])
def test_too_low_limit_of_open_files_is_reported(twistd: Twistd, files: int) -> None:
    """A limit of open files at which hardly any client fits is an error in one line, which names a sufficient one."""
    process = twistd(*arguments(free_port()), files=files)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.startswith(f"govi-cache: the limit of open files is {files} (expected at least 60)")
    assert output.count("\n") == 1


def test_unwritable_statistics_log_is_reported(twistd: Twistd) -> None:
    """The error of an unwritable statistics log is one line that names it; the exit status is 1."""
    process = twistd(*arguments(free_port(), "--statistics", "/nonexistent/log"))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    error = "statistics.file (--statistics): cannot write /nonexistent/log: No such file or directory"
    assert output.endswith(f"{error}\n")
    assert "Traceback" not in output


def test_invalid_configuration_is_reported_in_one_line(twistd: Twistd, tmp_path: Path) -> None:
    """The error of an unknown key is one line with the file and the nearest key; the exit status is 1."""
    (tmp_path / "config.toml").write_text("[cache]\nfrehs = 3\n")
    process = twistd("govi-cache", "--config", "config.toml", "--source", "demo")
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (
        1,
        "govi-cache: config.toml: cache.frehs: unknown setting; did you mean 'cache.fresh'?\n",
    )


@pytest.mark.parametrize("command", ["govi-cache", "govi-simulator"])
@pytest.mark.parametrize("logs_to_file", [True, False])
def test_hangup_reopens_the_logs(twistd: Twistd, tmp_path: Path, command: str, logs_to_file: bool) -> None:
    """On SIGHUP the program reopens its logs, which may have been renamed, and goes on; no line is lost."""
    port = free_port()
    cache = arguments(port, "--statistics", "statistics.log")
    simulator = ["govi-simulator", "--listen", f"tcp:{port}:interface=127.0.0.1"]
    process = twistd(
        *(["--logfile", "twistd.log"] if logs_to_file else []), *(cache if command == "govi-cache" else simulator)
    )
    log, statistics = tmp_path / "twistd.log", tmp_path / "statistics.log"
    url = f"http://127.0.0.1:{port}/kv55/57330430"
    if logs_to_file:
        assert becomes_true(lambda: log.exists() and "Listening on" in log.read_text())
    else:
        wait_for(process, "for govi-cache" if command == "govi-cache" else "Listening on")
    for number in range(1, 3):
        if logs_to_file:
            log.rename(tmp_path / f"twistd.log.{number}")
        if command == "govi-cache":
            body_of(url)
            assert becomes_true(lambda: statistics.stat().st_size > 0)
            statistics.rename(tmp_path / f"statistics.log.{number}")
        process.send_signal(signal.SIGHUP)
        if logs_to_file:
            assert becomes_true(lambda: log.exists() and "Log files reopened" in log.read_text())
        else:
            wait_for(process, "Log files reopened")
        if command == "govi-cache":
            assert statistics.exists()
            assert b"<TimingPointCode>57330430</TimingPointCode>" in body_of(url)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    if logs_to_file:
        assert "starting up" in (tmp_path / "twistd.log.1").read_text()
        assert "Log files reopened" in (tmp_path / "twistd.log.2").read_text()
        assert "Server Shut Down" in log.read_text()
    if command == "govi-cache":
        lines = [line for path in tmp_path.glob("statistics.log*") for line in path.read_text().splitlines()]
        assert len(lines) == 4  # one for each request


def test_daemon_survives_hangup(tmp_path: Path) -> None:
    """A daemon logs to twistd.log, and reopens it on SIGHUP."""
    port = free_port()
    subprocess.run([sys.executable, "-c", TWISTD, *arguments(port)], cwd=tmp_path, check=True, timeout=60)
    pid, log = int((tmp_path / "twistd.pid").read_text()), tmp_path / "twistd.log"
    try:
        log.rename(tmp_path / "twistd.log.1")
        os.kill(pid, signal.SIGHUP)
        assert becomes_true(lambda: log.exists() and "Log files reopened" in log.read_text())
        assert b"<TimingPointCode>57330430</TimingPointCode>" in body_of(f"http://127.0.0.1:{port}/kv55/57330430")
    finally:
        os.kill(pid, signal.SIGTERM)
    assert becomes_true(lambda: not (tmp_path / "twistd.pid").exists())
    assert "Traceback" not in log.read_text()


def test_truncated_log_has_no_nul_bytes(twistd: Twistd, tmp_path: Path) -> None:
    """After logrotate truncated a log in place (copytruncate), its lines are at the beginning."""
    port = free_port()
    process = twistd("--logfile", "twistd.log", *arguments(port, "--statistics", "statistics.log"))
    logs = [tmp_path / "twistd.log", tmp_path / "statistics.log"]
    assert becomes_true(lambda: logs[0].exists() and "govi-cache: http://" in logs[0].read_text())
    body_of(f"http://127.0.0.1:{port}/kv55/57330430")
    assert becomes_true(lambda: logs[1].stat().st_size > 0)
    for log in logs:
        os.truncate(log, 0)
    body_of(f"http://127.0.0.1:{port}/kv55/57330430")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    for log in logs:
        assert log.stat().st_size > 0
        assert b"\0" not in log.read_bytes()


def test_rotation_and_shutdown_lose_no_line(twistd: Twistd, tmp_path: Path) -> None:
    """Every request is in the statistics log, though it is renamed while lines wait, and SIGTERM follows at once."""
    port = free_port()
    process = twistd(*arguments(port, "--statistics", "statistics.log"))
    wait_for(process, "govi-cache: http://")
    log = tmp_path / "statistics.log"
    for number in range(5):
        for _ in range(10):
            body_of(f"http://127.0.0.1:{port}/kv55/57330430")
        log.rename(tmp_path / f"statistics.log.{number}")
        if number % 2:
            assert becomes_true(log.exists)  # with the lines that waited
        else:
            log.touch()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    lines = [line for path in tmp_path.glob("statistics.log*") for line in path.read_text().splitlines()]
    assert sum(len(json.loads(line)["requests"]) for line in lines) == 50


def test_two_programs_share_a_statistics_log(twistd: Twistd, tmp_path: Path) -> None:
    """Two programs may write one statistics log; every line is complete."""
    ports = [free_port(), free_port()]
    for port in ports:
        wait_for(twistd(*arguments(port, "--statistics", "statistics.log")), "govi-cache: http://")
    for _ in range(20):
        for port in ports:
            body_of(f"http://127.0.0.1:{port}/kv55/57330430")
    log = tmp_path / "statistics.log"
    assert becomes_true(lambda: log.read_text().count("\n") == 40)
    for line in log.read_text().splitlines():
        assert json.loads(line)["end"]
