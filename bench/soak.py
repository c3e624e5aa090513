"""Attacks a server, and reports the latencies and failures of a well-behaved client.

    python bench/soak.py [--seconds 40] [--idle 2000]

Starts `twistd govi-cache` with the demo on loopback. Attackers have addresses 127.0.1.x, to which the limits per
client apply. The well-behaved client has the address 127.0.0.1, and sends a request every 50 ms over a new
connection. 20 s after the attack the connections that are still open are counted. The server is stopped at the end.
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
modules.kv55.source = "demo"
modules.kv55.callback = "tcp:{callback}:interface=127.0.0.1"
access.unlimited = ["127.0.0.1/32"]
"""

Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send nothing."""
    await reader.read()


async def slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a header section byte by byte."""
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
    while not reader.at_eof():
        writer.write(b"a")
        await writer.drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.read(4096), 0.5)


async def slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a body byte by byte."""
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    while not reader.at_eof():
        writer.write(b"a")
        await writer.drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.read(4096), 0.5)


async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send requests without reading responses."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # transports of sockets have it
    while True:
        writer.write(REQUEST * 100)
        await writer.drain()
        await asyncio.sleep(0.05)


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send requests as fast as possible, and read all responses."""
    while not reader.at_eof():
        writer.write(REQUEST * 1000)
        await writer.drain()
        await reader.read(1 << 20)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a request, and reset the connection."""
    writer.write(REQUEST)
    await writer.drain()
    writer.transport.abort()


async def repeat(attack: Attack, address: str, until: float, counts: Counter[str]) -> None:
    """Repeat an attack until a time of the loop's clock."""
    loop = asyncio.get_running_loop()
    while (remaining := until - loop.time()) > 0:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT, local_addr=(address, 0))
            counts[attack.__name__] += 1
            try:
                async with asyncio.timeout(remaining):
                    await attack(reader, writer)
            finally:
                writer.transport.abort()
        await asyncio.sleep(0.1 + random.random() * 0.2)


async def send_request(latencies: list[float], failures: Counter[str]) -> None:
    """Send one request as the well-behaved client; record its latency, or its failure."""
    start = time.perf_counter()
    try:
        async with asyncio.timeout(13):
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
            writer.write(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            response = await reader.read()
            writer.close()
        if not (response.startswith(b"HTTP/1.1 200 ") and response.rstrip().endswith(b"</DRIS_55>")):
            failures[repr(response[:40])] += 1
    except (OSError, TimeoutError) as error:
        failures[repr(error)] += 1
    latencies.append(time.perf_counter() - start)


async def good_client(seconds: float) -> tuple[list[float], Counter[str]]:
    """Send a request every 50 ms, without waiting for responses; return the latencies and failures."""
    latencies: list[float] = []
    failures: Counter[str] = Counter()
    requests = []
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        requests.append(asyncio.create_task(send_request(latencies, failures)))
        await asyncio.sleep(0.05)
    await asyncio.gather(*requests)
    return latencies, failures


def run_good_client(seconds: float) -> tuple[list[float], Counter[str]]:
    """Run the well-behaved client. It has its own process, because that of the attackers is busy."""
    return asyncio.run(good_client(seconds))


def memory(pid: int) -> float:
    """Return a process's resident memory in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def connections(pid: int) -> int:
    """Return the number of a process's established connections on the port."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(os.readlink(fd))
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(
        line[1].endswith(f":{PORT:04X}") and line[3] != "0A" and f"socket:[{line[9]}]" in inodes for line in lines
    )


async def soak(pid: int, seconds: float, idlers: int) -> bool:
    """Attack and report; return whether no request failed and no connection remained open."""
    counts: Counter[str] = Counter()
    await send_request([], Counter())  # so that later ones are hits
    before = memory(pid)
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    attackers: list[tuple[Attack, int]] = [
        (idle, idlers), (slow_head, 100), (slow_body, 100), (never_read, 50), (flood, 20), (reset, 50),
    ]  # fmt: skip
    tasks = [
        asyncio.create_task(repeat(attack, f"127.0.1.{1 + n % 200}", until, counts))
        for attack, number in attackers
        for n in range(number)
    ]
    with ProcessPoolExecutor(1) as process:
        latencies, failures = await loop.run_in_executor(process, run_good_client, seconds)
    peak = memory(pid)
    await asyncio.gather(*tasks)
    await asyncio.sleep(20)
    n_open = connections(pid)
    quantiles = statistics.quantiles(latencies, n=100)
    print("attacks:", ", ".join(f"{name} {number}" for name, number in counts.items()))
    print(f"good client: {len(latencies)} requests, {sum(failures.values())} failed {dict(failures) or ''}")
    print(f"good client: p50 {quantiles[49] * 1000:.1f} ms, p99 {quantiles[98] * 1000:.1f} ms")
    print(f"memory: {before:.0f} MB before, {peak:.0f} MB at the end, {memory(pid):.0f} MB 20 s later")
    print(f"connections open after 20 s: {n_open}")
    return not failures and not n_open


def main() -> int:
    """Run the soak; return 0 if no request failed, no connection remained open, and no traceback was logged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40, help="duration of the attack")
    parser.add_argument("--idle", type=int, default=2000, help="number of silent connections")
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
            has_passed = asyncio.run(soak(server.pid, options.seconds, options.idle))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
        log_text = (Path(folder) / "log").read_text()
        tracebacks = log_text.count("Traceback")
        print(f"tracebacks in the server's log: {tracebacks}")
        if tracebacks:
            print(log_text[log_text.index("Traceback") :][:2000])
    return 0 if has_passed and not tracebacks else 1


if __name__ == "__main__":
    sys.exit(main())
