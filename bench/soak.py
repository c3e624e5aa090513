"""Attacks a server for a while, and reports what a good client noticed.

    python bench/soak.py [--seconds 40] [--idle 2000]

Starts `twistd govi-cache` on loopback with its demo. Attackers come from addresses of their own (127.0.1.x), to which
the limits of one client apply; the good client comes from 127.0.0.1 and asks every 50 ms over new connections. At the
end it waits 20 s and counts what connections are left open. Ends what it started.
"""

import argparse
import asyncio
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

PORT, CALLBACK = 18480, 18482
PATH = "/kv55/57330430"
REQUEST = f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
CONFIG = """
listen = ["tcp:{port}"]
modules.kv55.callback = "tcp:{callback}:interface=127.0.0.1"
access.unlimited = ["127.0.0.1/32"]
"""

Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing."""
    await reader.read()


async def slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Drip a head."""
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
    while not reader.at_eof():
        writer.write(b"a")
        await writer.drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.read(4096), 0.5)


async def slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Drip a body."""
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    while not reader.at_eof():
        writer.write(b"a")
        await writer.drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.read(4096), 0.5)


async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask and ask, and read nothing."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
    while True:
        writer.write(REQUEST * 100)
        await writer.drain()
        await asyncio.sleep(0.05)


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask as fast as may be, and read all."""
    while not reader.at_eof():
        writer.write(REQUEST * 1000)
        await writer.drain()
        await reader.read(1 << 20)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask, and break the connection off."""
    writer.write(REQUEST)
    await writer.drain()
    writer.transport.abort()


async def attack(how: Attack, address: str, until: float, counts: Counter[str]) -> None:
    """Attack again and again until a moment of the loop's clock."""
    loop = asyncio.get_running_loop()
    while (left := until - loop.time()) > 0:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT, local_addr=(address, 0))
            counts[how.__name__] += 1
            try:
                async with asyncio.timeout(left):
                    await how(reader, writer)
            finally:
                writer.transport.abort()
        await asyncio.sleep(0.1 + random.random() * 0.2)


async def ask(latencies: list[float], failures: Counter[str]) -> None:
    """Ask once, as a good client."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(13):
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
            writer.write(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            answer = await reader.read()
            writer.close()
        if not (answer.startswith(b"HTTP/1.1 200 ") and answer.rstrip().endswith(b"</DRIS_55>")):
            failures[repr(answer[:40])] += 1
    except (OSError, TimeoutError) as error:
        failures[repr(error)] += 1
    latencies.append(time.perf_counter() - began)


async def good_client(seconds: float) -> tuple[list[float], Counter[str]]:
    """Ask every 50 ms, whether the last one was answered or not; give the latencies and what failed."""
    latencies: list[float] = []
    failures: Counter[str] = Counter()
    asked = []
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        asked.append(asyncio.create_task(ask(latencies, failures)))
        await asyncio.sleep(0.05)
    await asyncio.gather(*asked)
    return latencies, failures


def run_good_client(seconds: float) -> tuple[list[float], Counter[str]]:
    """Be a good client, in a process of its own: the attackers' is busy."""
    return asyncio.run(good_client(seconds))


def memory(pid: int) -> float:
    """Tell a process's resident memory in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def connections(pid: int) -> int:
    """Count a process's established connections on our port."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(os.readlink(fd))
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(
        line[1].endswith(f":{PORT:04X}") and line[3] != "0A" and f"socket:[{line[9]}]" in inodes for line in lines
    )


async def soak(pid: int, seconds: float, idlers: int) -> bool:
    """Attack, report, and tell whether all is well."""
    counts: Counter[str] = Counter()
    await ask([], Counter())  # the first answer is the simulator's
    before = memory(pid)
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    crowd: list[tuple[Attack, int]] = [
        (idle, idlers), (slow_head, 100), (slow_body, 100), (never_read, 50), (flood, 20), (reset, 50),
    ]  # fmt: skip
    tasks = [
        asyncio.create_task(attack(how, f"127.0.1.{1 + n % 200}", until, counts))
        for how, number in crowd
        for n in range(number)
    ]
    with ProcessPoolExecutor(1) as process:
        latencies, failures = await loop.run_in_executor(process, run_good_client, seconds)
    peak = memory(pid)
    await asyncio.gather(*tasks)
    await asyncio.sleep(20)
    left = connections(pid)
    quantiles = statistics.quantiles(latencies, n=100)
    print("attacks:", ", ".join(f"{name} {number}" for name, number in counts.items()))
    print(f"good client: {len(latencies)} questions, {sum(failures.values())} failed {dict(failures) or ''}")
    print(f"good client: p50 {quantiles[49] * 1000:.1f} ms, p99 {quantiles[98] * 1000:.1f} ms")
    print(f"memory: {before:.0f} MB before, {peak:.0f} MB at the end, {memory(pid):.0f} MB 20 s later")
    print(f"connections left open after 20 s: {left}")
    return not failures and not left


def main() -> int:
    """Run the soak; 0 if the good client had every answer and nothing was left open."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40, help="how long to attack")
    parser.add_argument("--idle", type=int, default=2000, help="how many connections say nothing")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "soak.toml"
        config.write_text(CONFIG.format(port=PORT, callback=CALLBACK))
        with (Path(folder) / "log").open("wb") as log:
            server = subprocess.Popen(
                [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=",
                 "govi-cache", "--config", str(config), "--statistics", str(Path(folder) / "statistics.log")],
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            time.sleep(3)
            well = asyncio.run(soak(server.pid, options.seconds, options.idle))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
        said = (Path(folder) / "log").read_text()
        tracebacks = said.count("Traceback")
        print(f"tracebacks in the server's log: {tracebacks}")
        if tracebacks:
            print(said[said.index("Traceback") :][:2000])
    return 0 if well and not tracebacks else 1


if __name__ == "__main__":
    sys.exit(main())
