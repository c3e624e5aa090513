"""Loads a server from the client's core: with wrk, or with clients of our own where wrk cannot."""

import asyncio
import re
import resource
import subprocess
import threading
import time
from dataclasses import dataclass

from peers import CLIENT, Running


@dataclass(frozen=True)
class Load:
    """What a server did under load. cost: its processor seconds for each answer. memory: in bytes, half-way."""

    answers: int
    rate: float
    cost: float
    memory: int


def wrk(server: Running, path: str, seconds: float, *, connections: int = 50, close: bool = False) -> Load:
    """Ask as fast as the server answers."""
    field = ["-H", "Connection: close"] if close else []
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
    return Load(answers, answers / float(found[2]), used / answers, memory[0])


def more_files() -> None:
    """Raise the limit of open files as far as may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def ask(port: int, path: str) -> float:
    """Ask once over a connection of its own; give when the answer was there (epoch seconds). Raises OSError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    moment = time.time()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise OSError(answer[:80].decode("latin-1"))
    return moment


async def ask_all(port: int, paths: list[str]) -> list[float | BaseException]:
    """Ask for many paths at once; give the moments of the answers, or what went wrong."""
    return await asyncio.gather(*(ask(port, path) for path in paths), return_exceptions=True)
