"""Loads a server from the client's core, with wrk or plain sockets."""

import gzip
import http.client
import os
import re
import resource
import selectors
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from peers import CLIENT, HERE, Running

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


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
    fields = [f"Accept: {accept}", *(["Connection: close"] if close else [])]
    return _wrk((server,), seconds, connections, fields, [f"http://127.0.0.1:{server.port}{path}"])


@dataclass(frozen=True)
class BoardRequests:
    """Requests for boards. contains: what a complete body has, at least so many times."""

    paths: Sequence[str]
    accept: str
    contains: bytes
    minimum: int
    encoding: str = "identity"

    @property
    def fields(self) -> list[str]:
        """The header fields."""
        return [f"Accept: {self.accept}", f"Accept-Encoding: {self.encoding}"]

    def requests(self) -> list[bytes]:
        """Return the requests."""
        rest = "\r\n".join(["Host: localhost", *self.fields, "", ""])
        return [f"GET {path} HTTP/1.1\r\n{rest}".encode() for path in self.paths]

    def response_length(self, data: bytes) -> int:
        """Return the length of the response that begins with data, 0 if more is needed; exit if it is not a 200."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return 0
        length = _CONTENT_LENGTH.search(data, 0, end)
        if data[9:12] != b"200" or length is None:
            raise SystemExit(f"unexpected response: {data[:1000]!r}")
        return end + 4 + int(length[1])

    def check(self, response: bytes) -> None:
        """Exit if the body of a response is not a complete board."""
        head, _, body = response.partition(b"\r\n\r\n")
        if b"content-encoding: gzip" in head.lower():
            body = gzip.decompress(body)
        count = body.count(self.contains)
        if count < self.minimum:
            raise SystemExit(f"{count} {self.contains!r} in {response[:3000]!r}")

    def wrk(self, server: Running, seconds: float, *, connections: int = 20, working: Sequence[Running] = ()) -> Load:
        """Send random ones as fast as the server responds. working: the servers whose work counts, if others."""
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("".join(f"{path}\n" for path in self.paths))
            file.flush()
            script = ["-s", str(HERE / "random_paths.lua"), f"http://127.0.0.1:{server.port}/", "--", file.name]
            seed = str(time.time_ns() % 1_000_000)
            return _wrk(working or (server,), seconds, connections, self.fields, [*script, seed])


def _wrk(
    servers: Sequence[Running], seconds: float, connections: int, fields: list[str], arguments: list[str]
) -> Load:
    memory: list[int] = []
    half_way = threading.Timer(seconds / 2, lambda: memory.append(servers[0].memory()))
    before = sum(server.cpu() for server in servers)
    half_way.start()
    output = subprocess.run(
        ["taskset", "-c", str(CLIENT), "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout=20s",
         *(f"-H{field}" for field in fields), *arguments],
        capture_output=True, text=True, check=True, preexec_fn=raise_file_limit,
    ).stdout  # fmt: skip
    used = sum(server.cpu() for server in servers) - before
    half_way.join()
    match = re.search(r"(\d+) requests in ([\d.]+)(m?s)", output)
    failed = re.search(r"Socket errors: (?!connect 0, read 0, write 0, timeout 0).*|Non-2xx.*", output)
    if match is None or failed or int(match[1]) == 0:
        raise SystemExit(f"{servers[0].name} failed:\n{output}")
    responses = int(match[1])
    return Load(responses, responses / float(match[2]), used, memory[0])


def pin_to_client_core() -> None:
    """Run this process on the client's core."""
    os.sched_setaffinity(0, {CLIENT})


def raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def request_all(port: int, paths: list[str]) -> list[float]:
    """Request paths concurrently, each over its own connection; return the times of the 200s (epoch seconds).

    The cost of plain sockets is small compared to that of the server.
    """
    pin_to_client_core()
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
