"""Measures boards shared through an engine: the cost of a miss with and without it, and the time of a takeover.

    python bench/share.py [--quick]

A node without sharing and one with it each request cold stops from a gateway that responds at once, in alternating
rounds; the figures are medians of the rounds. Then two nodes request one stop, and the node that has sent the gateway
request is killed. Needs redis-server or valkey-server.
"""

import argparse
import http.client
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.request import urlopen

HERE = Path(__file__).parent
TWISTD = "from twisted.scripts.twistd import run; run()"
DEPARTURES = 5
"""Departures of a board, as GOVI's had."""

_codes = count(1)


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def next_code() -> str:
    """Return a stop that was not requested before."""
    return f"{next(_codes):06}{DEPARTURES:03}"


class Process:
    """A process that listens on a port."""

    def __init__(self, port: int, *command: str) -> None:
        self.port = port
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                time.sleep(0.02)
        raise SystemExit(f"{command[0]} does not listen on {port}")

    def core_seconds(self) -> float:
        """Return the processor time of all threads."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self.process.kill()
        self.process.wait()


class Node(Process):
    """A govi-cache. gateway: its port."""

    def __init__(self, gateway: int, callback: int, *options: str) -> None:
        port = free_port()
        super().__init__(
            port, sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile=", "govi-cache",
            "--listen", f"tcp:{port}:interface=127.0.0.1", "--admin", "",
            "--callback", f"tcp:{callback}:interface=127.0.0.1",
            "--gateway-url", f"http://127.0.0.1:{gateway}/", *options,
        )  # fmt: skip

    def get(self, client: http.client.HTTPConnection, code: str) -> None:
        """Request a stop."""
        client.request("GET", f"/kv55/{code}")
        response = client.getresponse()
        if b"<Trip>" not in response.read():
            raise SystemExit(f"/kv55/{code}: {response.status}")

    def misses(self, n: int) -> tuple[float, float]:
        """Return the median latency and the mean processor time of cold stops, in milliseconds."""
        client = http.client.HTTPConnection("127.0.0.1", self.port)
        latencies, before = [], self.core_seconds()
        for _ in range(n):
            begun = time.perf_counter()
            self.get(client, next_code())
            latencies.append(time.perf_counter() - begun)
        return statistics.median(latencies) * 1000, (self.core_seconds() - before) / n * 1000


@contextmanager
def running() -> Iterator[list[Process]]:
    """Kill the processes of a list at the end."""
    processes: list[Process] = []
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()


def start_gateway(processes: list[Process], callback: int, delay: float) -> int:
    """Start a gateway; return its port."""
    port = free_port()
    gateway = str(HERE / "gateway.py")
    processes.append(Process(port, sys.executable, gateway, str(port), f"http://127.0.0.1:{callback}/", str(delay)))
    return port


def start_engine(processes: list[Process], folder: str) -> tuple[Process, str]:
    """Start an engine; return it and its URL."""
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server is not installed (apt install redis-server)")
    port = free_port()
    options = ("--bind", "127.0.0.1", "--save", "", "--dir", folder)
    processes.append(Process(port, program, "--port", str(port), *options))
    return processes[-1], f"redis://127.0.0.1:{port}"


def measure_misses(folder: str, rounds: int, n: int) -> None:
    """Print the cost of a miss with an engine and without one."""
    with running() as processes:
        engine, url = start_engine(processes, folder)
        nodes = {}
        for name, options in (("alone", ()), ("shared", ("--share", url))):
            callback = free_port()
            nodes[name] = Node(start_gateway(processes, callback, 0), callback, *options)
            processes.append(nodes[name])
        time.sleep(1)  # for the connection to the engine
        for node in nodes.values():
            node.misses(n)
        before = engine.core_seconds()
        measured = [[node.misses(n) for node in nodes.values()] for _ in range(rounds)]
        in_engine = (engine.core_seconds() - before) / rounds / n * 1000
        for index, figure in enumerate(("p50 of a miss", "processor time of a miss")):
            alone, shared = (statistics.median(costs[i][index] for costs in measured) for i in range(2))
            added = statistics.median(costs[1][index] - costs[0][index] for costs in measured)
            print(f"{figure}: alone {alone:.2f} ms, shared {shared:.2f} ms, added {added:+.2f} ms")
        print(f"for comparison, a send() of 100 bytes over loopback: {send_seconds() * 1e6:.0f} us")
        print(f"processor time of the engine for a miss: {in_engine:.3f} ms")


def send_seconds() -> float:
    """Return the processor time of a send() over loopback: it differs tenfold between machines."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            seconds = 0.0
            for _ in range(1000):
                begun = time.process_time()
                client.send(b"x" * 100)
                seconds += time.process_time() - begun
                accepted.recv(100)
    return seconds / 1000


def measure_takeover(folder: str, rounds: int) -> None:
    """Print the time from the death of a node to the gateway request of another one."""
    times = []
    with running() as processes:
        _, url = start_engine(processes, folder)
        callback = free_port()
        gateway = start_gateway(processes, callback, 0.1)
        other = Node(gateway, callback, "--share", url)
        processes.append(other)

        def requests() -> int:
            with urlopen(f"http://127.0.0.1:{gateway}/") as response:
                return int(json.load(response)["requests"])

        for _ in range(rounds):
            slow = start_gateway(processes, callback, 3600)  # it never responds to the node that is killed
            dying = Node(slow, free_port(), "--share", url)
            time.sleep(1)
            code, before = next_code(), requests()
            clients = [http.client.HTTPConnection("127.0.0.1", node.port) for node in (dying, other)]
            clients[0].request("GET", f"/kv55/{code}")
            time.sleep(0.7)
            clients[1].request("GET", f"/kv55/{code}")
            time.sleep(0.5)
            dying.kill()
            killed = time.monotonic()
            if b"<Trip>" not in clients[1].getresponse().read() or requests() != before + 1:
                raise SystemExit("the request was not taken over")
            times.append(time.monotonic() - killed - 0.1)
    print(f"takeover of a killed node: {min(times):.2f} to {max(times):.2f} s, {rounds} times")


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        measure_misses(folder, 3 if quick else 11, 100 if quick else 500)
        measure_takeover(folder, 2 if quick else 10)


if __name__ == "__main__":
    main()
