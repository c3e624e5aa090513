"""Loads a server from the client's core, with wrk or plain sockets."""

import http.client
import os
import re
import resource
import selectors
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import cast

from peers import CLIENT, Running


@dataclass(frozen=True)
class Load:
    """The work of a server under load. used: processor seconds. memory: bytes, half-way through the load."""

    responses: int
    rate: float
    used: float
    memory: int

    @property
    def cost(self) -> float:
        """The processor seconds per response."""
        return self.used / self.responses


def wrk(
    server: Running, path: str, seconds: float, *, connections: int = 50, close: bool = False, accept: str = "*/*"
) -> Load:
    """Send requests as fast as the server responds. accept: the value of Accept."""
    fields = ["-H", f"Accept: {accept}", *(["-H", "Connection: close"] if close else [])]
    memory: list[int] = []
    half_way = threading.Timer(seconds / 2, lambda: memory.append(server.memory()))
    before = server.cpu()
    half_way.start()
    output = subprocess.run(
        ["taskset", "-c", str(CLIENT), "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout=20s",
         *fields, f"http://127.0.0.1:{server.port}{path}"],
        capture_output=True, text=True, check=True, preexec_fn=raise_file_limit,
    ).stdout  # fmt: skip
    used = server.cpu() - before
    half_way.join()
    match = re.search(r"(\d+) requests in ([\d.]+)(m?s)", output)
    failed = re.search(r"Socket errors: (?!connect 0, read 0, write 0, timeout 0).*|Non-2xx.*", output)
    if match is None or failed or int(match[1]) == 0:
        raise SystemExit(f"{server.name} failed:\n{output}")
    responses = int(match[1])
    return Load(responses, responses / float(match[2]), used, memory[0])


def raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def request_all(port: int, paths: list[str]) -> list[float]:
    """Request paths concurrently, each over its own connection; return the times of the 200s (epoch seconds).

    The cost of plain sockets is small compared to that of the server.
    """
    os.sched_setaffinity(0, {CLIENT})
    waiting = selectors.DefaultSelector()
    for path in paths:
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        waiting.register(client, selectors.EVENT_READ)
    times: list[float] = []
    while waiting.get_map():
        for key, _ in waiting.select():
            client = cast(socket.socket, key.fileobj)
            if client.recv(1 << 16).startswith(b"HTTP/1.1 200 "):
                times.append(time.time())
            waiting.unregister(client)
            client.close()
    return times


def request_each(port: int, paths: list[str]) -> None:
    """Request paths one after the other over one connection. Raises RuntimeError unless all responses are 200s."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for path in paths:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status}")
    connection.close()


class HitWatch:
    """Requests a hit every 5 ms over one connection, in a context."""

    def __init__(self, server: Running, path: str) -> None:
        self._server = server
        self._path = path
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.longest = 0.0
        """Seconds of the longest wait for a response."""
        self.most_used = 0.0
        """The most processor time of the server in a wait, in seconds: its pauses without those of the machine."""

    def __enter__(self) -> "HitWatch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port)
        while not self._stopped.wait(0.005):
            began, used = time.perf_counter(), self._server.cpu()
            connection.request("GET", self._path)
            connection.getresponse().read()
            self.longest = max(self.longest, time.perf_counter() - began)
            self.most_used = max(self.most_used, self._server.cpu() - used)
