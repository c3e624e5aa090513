"""Loads a server from the client's core, with wrk or plain sockets."""

import os
import re
import resource
import selectors
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from peers import CLIENT, HERE, Running


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
    return _wrk(server, seconds, connections, fields, [f"http://127.0.0.1:{server.port}{path}"])


def wrk_random(
    server: Running, paths: Path, seconds: float, *, connections: int = 20, accept: str, encoding: str = "identity"
) -> Load:
    """Send requests for random paths of a file as fast as the server responds."""
    script = ["-s", str(HERE / "random_paths.lua"), f"http://127.0.0.1:{server.port}/", "--", str(paths)]
    seed = f"{time.time_ns() % 1_000_000}"
    return _wrk(server, seconds, connections, [f"Accept: {accept}", f"Accept-Encoding: {encoding}"], [*script, seed])


def _wrk(server: Running, seconds: float, connections: int, fields: list[str], arguments: list[str]) -> Load:
    memory: list[int] = []
    half_way = threading.Timer(seconds / 2, lambda: memory.append(server.memory()))
    before = server.cpu()
    half_way.start()
    output = subprocess.run(
        ["taskset", "-c", str(CLIENT), "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout=20s",
         *(f"-H{field}" for field in fields), *arguments],
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
