"""Tests of a socket that outlives the program, as systemd holds it: nothing is lost while the program restarts.

These tests are plain functions: they wait for processes, not for the reactor.
"""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import TWISTD, becomes_true, wait_for
from tests.ports import free_port

REQUEST = b"GET /kv55/57330430 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

# Passes its first socket on, as descriptor 3, to the program that it becomes (sd_listen_fds(3)).
PASS = 'export LISTEN_PID=$$ LISTEN_FDS=1; exec 3<&"$0"; exec "$@"'

Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Return a function that starts the program with a listening socket; its processes are killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def launch(sock: socket.socket, endpoint: str, *through: str, workers: int = 0) -> "subprocess.Popen[str]":
        fd = sock.fileno()
        process = subprocess.Popen(
            [
                "bash", "-c", PASS, str(fd), *through, sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile=",
                "govi-cache", "--listen", endpoint, "--callback", f"tcp:{free_port()}:interface=127.0.0.1",
                "--admin", "", "--statistics", "statistics.log", "--source", "demo", "--workers", f"{workers}",
            ],
            cwd=tmp_path,
            pass_fds=[fd],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()
        process.communicate()


def respond(sock: socket.socket, request: bytes = REQUEST) -> bytes:
    """Send a request on a connected socket; return all bytes until the end of the connection."""
    with sock:
        sock.settimeout(60)
        sock.sendall(request)
        received = b""
        while more := sock.recv(65536):
            received += more
    return received


def clients_of(statistics: Path) -> list[str]:
    """Return the clients in a statistics log."""
    return [json.loads(line)["client"] for line in statistics.read_text().splitlines()]


class Load(threading.Thread):
    """A client that requests a stop again and again, each time on a new connection; delay: before it sends."""

    def __init__(self, address: tuple[str, int], delay: float) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._delay = threading.Event(), delay
        self.stopped = threading.Event()
        self.count = 0
        self.failures: list[str] = []

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                sock = socket.create_connection(self._address, 20)
                self._delay[0].wait(self._delay[1])  # the connection may be accepted before its request arrives
                response = respond(sock)
            except OSError as error:
                self.failures.append(repr(error))
                continue
            self.count += 1
            if not (response.startswith(b"HTTP/1.1 200 ") and response.endswith(b"</DRIS_55>\n")):
                self.failures.append(repr(response[:100]))


# systemd-socket-activate is in Debian's package systemd; without it the test passes the socket itself.
THROUGH = ["systemd-socket-activate"] if shutil.which("systemd-socket-activate") else []


@pytest.mark.parametrize("workers", [0, 2])
def test_restart_under_load_loses_no_request(launch: Launch, tmp_path: Path, workers: int) -> None:
    """While the program restarts three times, every request is answered by the old process or by the new one."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as sock:
        process = launch(sock, "systemd:domain=INET:index=0", *THROUGH, workers=workers)
        with socket.create_connection(sock.getsockname()) as first:  # starts the program
            wait_for(process, "for govi-cache")
            first.sendall(REQUEST)
            assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        loads = [Load(sock.getsockname(), delay) for delay in (0, 0, 0.01, 0.1)]
        for load in loads:
            load.start()
        for _ in range(3):
            for load in loads:
                count = load.count
                assert becomes_true(lambda: load.count > count + 3)  # noqa: B023  # called within this turn of the loop
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
            assert "Traceback" not in output
            process = launch(sock, "systemd:domain=INET:index=0", *THROUGH, workers=workers)
            wait_for(process, "for govi-cache")
        for load in loads:
            load.stopped.set()
            load.join(20)
        assert [load.failures for load in loads] == [[], [], [], []]


@pytest.mark.parametrize("domain", ["INET", "INET6", "UNIX"])
def test_clients_of_an_adopted_socket(launch: Launch, tmp_path: Path, domain: str) -> None:
    """The clients of a socket are those that it has, whatever its endpoint says; IPv4 over IPv6 is IPv4."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as sock:
        port = sock.getsockname()[1]
        process = launch(sock, f"systemd:domain={domain}:index=0")
        output = wait_for(process, "govi-cache: http://")
        assert f"Listening on [::]:{port} for govi-cache" in output
        for host in ("127.0.0.1", "::1"):
            assert respond(socket.create_connection((host, port), 10)).startswith(b"HTTP/1.1 200 ")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output
    assert clients_of(tmp_path / "statistics.log") == ["127.0.0.0/24", "::/48"]


def test_adopted_unix_socket(launch: Launch, tmp_path: Path) -> None:
    """A UNIX socket is served again and again; its file stays, with its permissions."""
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        path.chmod(0o660)
        sock.listen(512)
        for _ in range(2):
            process = launch(sock, "systemd:domain=INET:index=0")
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(path))
            assert respond(client).startswith(b"HTTP/1.1 200 ")
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
            assert "Traceback" not in output
            assert path.stat().st_mode & 0o777 == 0o660
    assert clients_of(tmp_path / "statistics.log") == ["local", "local"]


def test_no_connection_is_accepted_while_draining(launch: Launch) -> None:
    """After SIGTERM connections wait in the queue of the socket, and the next process serves them."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as sock:
        process = launch(sock, "systemd:index=0")
        wait_for(process, "govi-cache: http://")
        held = socket.create_connection(sock.getsockname(), 10)
        held.sendall(b"GET /kv55/573304")  # holds up the drain
        assert respond(socket.create_connection(sock.getsockname(), 10)).startswith(b"HTTP/1.1 200 ")
        process.send_signal(signal.SIGTERM)
        wait_for(process, "draining 1 request")
        waiting = socket.create_connection(sock.getsockname(), 10)
        waiting.sendall(REQUEST)
        rest = REQUEST.removeprefix(b"GET /kv55/573304")
        assert respond(held, rest).startswith(b"HTTP/1.1 200 ")
        process.communicate(timeout=60)
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.recv(1)
        launch(sock, "systemd:index=0")
        assert respond(waiting, b"").startswith(b"HTTP/1.1 200 ")
