"""Loads a server from the client's core: with wrk, or with clients of our own where wrk cannot."""

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
    """What a server did under load. used: its processor seconds. memory: in bytes, half-way."""

    answers: int
    rate: float
    used: float
    memory: int

    @property
    def cost(self) -> float:
        """Give the processor seconds for each answer."""
        return self.used / self.answers


def wrk(
    server: Running, path: str, seconds: float, *, connections: int = 50, close: bool = False, accept: str = "*/*"
) -> Load:
    """Ask as fast as the server answers. accept: the media type that is wanted."""
    field = ["-H", f"Accept: {accept}", *(["-H", "Connection: close"] if close else [])]
    memory: list[int] = []
    half_way = threading.Timer(seconds / 2, lambda: memory.append(server.memory()))
    before = server.cpu()
    half_way.start()
    done = subprocess.run(
        ["taskset", "-c", str(CLIENT), "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout=20s", *field,
         f"http://127.0.0.1:{server.port}{path}"],
        capture_output=True, text=True, check=True, preexec_fn=more_files,
    ).stdout  # fmt: skip
    used = server.cpu() - before
    half_way.join()
    found = re.search(r"(\d+) requests in ([\d.]+)(m?s)", done)
    failed = re.search(r"Socket errors: (?!connect 0, read 0, write 0, timeout 0).*|Non-2xx.*", done)
    if found is None or failed or int(found[1]) == 0:
        raise SystemExit(f"{server.name} did not answer well:\n{done}")
    answers = int(found[1])
    return Load(answers, answers / float(found[2]), used, memory[0])


def more_files() -> None:
    """Raise the limit of open files as far as may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def ask_all(port: int, paths: list[str]) -> list[float]:
    """Ask for many paths at once, each over a connection of its own; give the moments of the 200s (epoch seconds).

    Plain sockets, so that the clients cost little beside the server.
    """
    os.sched_setaffinity(0, {CLIENT})
    waiting = selectors.DefaultSelector()
    for path in paths:
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        waiting.register(client, selectors.EVENT_READ)
    moments: list[float] = []
    while waiting.get_map():
        for key, _ in waiting.select():
            client = cast(socket.socket, key.fileobj)
            if client.recv(1 << 16).startswith(b"HTTP/1.1 200 "):
                moments.append(time.time())
            waiting.unregister(client)
            client.close()
    return moments
