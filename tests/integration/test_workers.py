"""Tests of worker processes, as operators run them.

These tests are plain functions: they wait for processes, not for the reactor.
"""

import http.client
import json
import os
import signal
import socket
import ssl
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.integration.conftest import Twistd, arguments, becomes_true, wait_for
from tests.integration.test_kv55 import make_certificate
from tests.ports import free_port

PATH = "/kv55/57330430"


class Program:
    """A running program with two workers."""

    def __init__(self, twistd: Twistd, *more: str) -> None:
        self.port, self.admin = free_port(), free_port()
        admin = f"tcp:{self.admin}:interface=127.0.0.1"
        self.process = twistd(*arguments(self.port, "--workers", "2", "--admin", admin, *more))
        self.output = "".join(wait_for(self.process, "serving clients") for _ in range(2))

    def get(self, path: str = PATH) -> tuple[int, dict[str, str], bytes]:
        """Return the status, the header fields and the body of a response over a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def metric(self, line: str) -> float:
        """Return the value of a metric with these labels, 0 if there is none."""
        with urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return next((float(text.rpartition(" ")[2]) for text in lines if text.rpartition(" ")[0] == line), 0.0)

    def status(self) -> dict[str, Any]:
        """Return the status."""
        with urlopen(f"http://127.0.0.1:{self.admin}/status.json", timeout=10) as response:
            status: dict[str, Any] = json.load(response)
        return status

    def workers(self) -> dict[int, int]:
        """Return the processes of the workers that serve clients, by number."""
        return {worker["number"]: worker["process"] for worker in self.status()["workers"] if worker["serving"]}

    def connect(self, n: int, stack: ExitStack) -> dict[int, list[socket.socket]]:
        """Return open connections by the number of the worker that has accepted them. stack: closes them."""
        address = "127.0.0.1", self.port
        connections = [stack.enter_context(socket.create_connection(address, 20)) for _ in range(n)]
        owners: dict[int, list[socket.socket]] = {number: [] for number in self.workers()}
        for connection in connections:
            request(connection)  # so that it is accepted
        remote_ports = {number: _remote_ports(pid) for number, pid in self.workers().items()}
        for connection in connections:
            port = connection.getsockname()[1]
            (owner,) = (number for number, ports in remote_ports.items() if port in ports)
            owners[owner].append(connection)
        return owners

    def stop(self) -> str:
        """Send SIGTERM; return the rest of the output."""
        self.process.send_signal(signal.SIGTERM)
        rest, _ = self.process.communicate(timeout=60)
        assert "Traceback" not in self.output + rest
        return rest


def _remote_ports(pid: int) -> set[int]:
    """Return the remote ports of a process's TCP connections over IPv4."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    lines = (line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:])
    return {int(fields[2].partition(":")[2], 16) for fields in lines if fields[9] in inodes}


def request(connection: socket.socket) -> bytes:
    """Send a request over an open connection; return its response, b"" if the connection is closed."""
    try:
        connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.read()
    except (OSError, http.client.HTTPException):
        return b""


def has_ended(pid: int) -> bool:
    """Return whether no such process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_endpoints_statistics_and_metrics(twistd: Twistd, tmp_path: Path) -> None:
    """Workers serve all kinds of endpoints; there is one gateway request, one log, one /metrics and one /status."""
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    make_certificate(key, chain)
    tls_port, proxy_port, path = free_port(), free_port(), tmp_path / "http.sock"
    program = Program(
        twistd, "--statistics", "statistics.log",
        "--listen", f"ssl:{tls_port}:privateKey={key}:certKey={chain}:interface=127.0.0.1",
        "--listen", f"haproxy:tcp:{proxy_port}:interface=127.0.0.1",
        "--listen", f"unix:{path}:mode=660",
    )  # fmt: skip
    key.unlink()  # in an installation, only the main process may read it
    results = [program.get() for _ in range(20)]
    assert {status for status, _, _ in results} == {200}
    assert len({body for _, _, body in results}) == 1
    assert [fields["Cache-Status"].count("fwd=miss") for _, fields, _ in results] == [1] + [0] * 19
    context = ssl.create_default_context(cafile=str(chain))
    for _ in range(8):
        with (
            socket.create_connection(("127.0.0.1", tls_port), 20) as client,
            context.wrap_socket(client, server_hostname="localhost") as secure,
        ):
            assert request(secure) == results[0][2]
        with socket.create_connection(("127.0.0.1", proxy_port), 20) as client:
            client.sendall(b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 80\r\n")
            assert request(client) == results[0][2]
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(path))
            assert request(client) == results[0][2]
    assert path.stat().st_mode & 0o777 == 0o660

    log = tmp_path / "statistics.log"
    assert becomes_true(lambda: log.exists() and log.read_text().count("\n") == 44)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["worker"] for line in lines} == {1, 2}
    assert Counter(line["client"] for line in lines) == {"127.0.0.0/24": 28, "198.51.100.0/24": 8, "local": 8}
    requests = [request for line in lines for request in line["requests"]]
    assert {(each["module"], each["stop"], each["status"]) for each in requests} == {("kv55", "57330430", 200)}
    assert Counter(each["cache"] for each in requests) == {"miss": 1, "hit": 43}
    assert program.metric('govi_requests_total{cache="hit",module="kv55",status="200"}') == 43
    ends = [program.metric(f'govi_connections_ended_total{{end="{end}"}}') for end in ("client", "error")]
    assert sum(ends) == 44  # those over TLS were closed without an alert
    status = program.status()
    assert status["connections"]["limit"] == 2 * 10_000
    assert sum(status["hour"]["outcomes"]["hit"]) == 43
    with ExitStack() as connections:
        for _ in range(5):
            connections.enter_context(socket.create_connection(("127.0.0.1", program.port), 20))
        assert becomes_true(lambda: program.metric("govi_connections") == 5)
    program.stop()
    assert not path.exists()


def test_killed_worker_is_replaced(twistd: Twistd) -> None:
    """When a worker is killed under load, its own connections alone are lost, and new ones are served throughout."""
    program = Program(twistd)
    program.get()
    stopped, failures, served = threading.Event(), list[str](), list[int]()

    def load() -> None:
        while not stopped.is_set():
            try:
                served.append(program.get()[0])
            except (OSError, http.client.HTTPException) as error:
                failures.append(repr(error))

    thread = threading.Thread(target=load)
    with ExitStack() as stack:
        owners = program.connect(30, stack)
        assert all(owners.values())
        thread.start()
        first = program.workers()[1]
        os.kill(first, signal.SIGKILL)
        assert all(request(connection) for connection in owners[2])
        assert becomes_true(lambda: program.workers().get(1, first) != first, 30)
        n = len(served)
        assert becomes_true(lambda: len(served) > n + 20, 30)
        stopped.set()
        thread.join()
        assert len(failures) <= 1  # the one request that the killed worker was serving
        assert set(served) == {200}
        assert not any(request(connection) for connection in owners[1])
        assert all(request(connection) for connection in owners[2])
    assert program.metric('govi_worker_restarts_total{worker="1"}') == 1
    assert "Worker 1: ended (signal 9); replaced in" in program.stop()


def test_hung_worker(twistd: Twistd) -> None:
    """A hung worker is killed and replaced; when the main process is killed, none is left behind, hung or not."""
    program = Program(twistd)
    os.kill(program.workers()[1], signal.SIGSTOP)
    wait_for(program.process, "Worker 1: no sign of life for 5 s; killed")
    wait_for(program.process, "Worker 1: serving clients")
    assert {program.get()[0] for _ in range(10)} == {200}
    workers = program.workers()
    os.kill(workers[2], signal.SIGSTOP)
    program.process.kill()
    assert becomes_true(lambda: all(map(has_ended, workers.values())))


def test_signals_to_all_processes(twistd: Twistd, tmp_path: Path) -> None:
    """Signals may reach all processes at once: SIGHUP reopens the log of all, SIGTERM lets all finish requests."""
    gateway, callback = free_port(), free_port()
    urls = ["--gateway-url", f"http://127.0.0.1:{gateway}/", "--callback", f"tcp:{callback}:interface=127.0.0.1"]
    simulator = ["--listen", f"tcp:{gateway}:interface=127.0.0.1", "--callback-url", f"http://127.0.0.1:{callback}/"]
    wait_for(twistd("govi-simulator", "--delay", "3", *simulator), "simulated gateway")
    program = Program(twistd, "--statistics", "statistics.log", "--source", "govi", *urls)
    processes = [*program.workers().values(), program.process.pid]
    log = tmp_path / "statistics.log"
    log.rename(tmp_path / "old.log")
    for pid in processes:
        os.kill(pid, signal.SIGHUP)
    wait_for(program.process, "Log files reopened")
    program.get("/")
    assert becomes_true(lambda: log.exists() and '"worker":' in log.read_text())

    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", program.port), 20)) for _ in range(8)]
        for client in clients:
            client.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert becomes_true(lambda: program.metric('govi_flights_waiting{module="kv55"}') > 0)
        for pid in processes[:-1]:
            os.kill(pid, signal.SIGTERM)  # and the main process:
        rest = program.stop()
        for client in clients:
            response = http.client.HTTPResponse(client)
            response.begin()
            assert response.status == 200
            assert b"57330430" in response.read()
    assert all(map(has_ended, processes[:-1]))
    assert program.process.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert "Server Shut Down" in rest


def test_event_stream(twistd: Twistd) -> None:
    """Event streams pass through workers, count as such, and end at shutdown."""
    program = Program(twistd)
    with urlopen(f"http://127.0.0.1:{program.port}/events/57330430", timeout=20) as stream:
        lines = [stream.readline() for _ in range(3)]
        assert any(line.startswith((b"data:", b"id:")) for line in lines)
        assert becomes_true(lambda: program.metric("govi_streams") == 1)
        program.stop()
        stream.read()
