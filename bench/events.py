"""Measures what telling many listeners of one stop costs: python bench/events.py [--listeners 5000] [--changes 15]

Starts `twistd govi-cache` with a feed of its own, on the first core, and listens to one stop over as many connections
from the last. Then the feed says, again and again, that the stop's 20 departures are later. Told are medians of the
changes: processor time of the server, the time from its first listener having the event to its last, and how long
another client waited for an answer meanwhile (the longest of each change). Loopback only; ends what it started.
"""

import argparse
import multiprocessing
import selectors
import socket
import statistics
import tempfile
import time
import urllib.request
from multiprocessing.connection import Connection
from pathlib import Path

import zmq
from ingest import Rows
from load import more_files
from peers import FIRST_PORT, Running, govi_cache

PASSES = 20
PATH = "/events/40000000"
SETTLED = 1.0
"""Seconds after a change until what it costs is read: the server looks twice a second whether there is another."""


class Listeners:
    """Connections that listen to the stop, with plain sockets, so that they cost little beside the server."""

    def __init__(self, port: int, count: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._count = count
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            self._selector.register(client, selectors.EVENT_READ, bytearray())

    def hear(self) -> tuple[float, float, int]:
        """Wait until all have an event; give when the first and the last had it, and its size."""
        moments: list[float] = []
        size = 0
        while len(moments) < self._count:
            heard = self._selector.select(20)
            if not heard:
                raise SystemExit(f"only {len(moments)} of {self._count} were told")
            for key, _ in heard:
                key.data.extend(key.fileobj.recv(1 << 16))  # type: ignore[union-attr]  # they are sockets
                if key.data.endswith(b"\n\n") and b"event: board\n" in key.data:
                    moments.append(time.monotonic())
                    size = len(key.data)
                    key.data.clear()
        return moments[0], moments[-1], size


def ask(port: int, pipe: Connection) -> None:
    """Ask again and again over one connection; tell the longest time whenever that is wanted."""
    client = socket.create_connection(("127.0.0.1", port))
    longest = 0.0
    while True:
        begun = time.monotonic()
        client.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if not client.recv(1 << 16):
            raise SystemExit("the other client was turned away")
        longest = max(longest, time.monotonic() - begun)
        if pipe.poll():
            pipe.recv()
            pipe.send(longest)
            longest = 0.0
        time.sleep(0.002)


def changes(server: Running, publisher: zmq.Socket[bytes], count: int, n: int) -> None:
    """Measure so many changes for so many listeners."""
    rows = Rows(None, 1, PASSES)

    def publish(late: int) -> None:
        publisher.send_multipart([b"/GOVI/KV8passtimes/BENCH", rows.message(0, time.time(), 60 * late, rows=PASSES)])

    publish(0)
    time.sleep(2)
    before = server.memory()
    begun = server.cpu()
    listeners = Listeners(server.port, count)
    listeners.hear()
    joined = server.cpu() - begun
    time.sleep(SETTLED)
    memory = (server.memory() - before) / count
    ours, theirs = multiprocessing.Pipe()
    other = multiprocessing.Process(target=ask, args=(server.port, theirs), daemon=True)
    other.start()
    costs, spans, waits, size = [], [], [], 0
    for late in range(1, n + 1):
        time.sleep(SETTLED)
        ours.send(None)
        ours.recv()
        begun = server.cpu()
        publish(late)
        first, last, size = listeners.hear()
        ours.send(None)
        waits.append(ours.recv())
        costs.append(server.cpu() - begun)
        spans.append(last - first)
    other.terminate()
    print(f"{count:,} listeners, {n} changes of {size:,} bytes")
    print(f"memory of a listener:             {memory / 1000:8.1f} kB")
    print(f"processor time of one that comes: {joined / count * 1e6:8.0f} us")
    print(f"processor time of a change:       {statistics.median(costs) * 1000:8.0f} ms", end="")
    print(f" ({statistics.median(costs) / count * 1e6:.1f} us a listener)")
    print(f"from the first to the last:       {statistics.median(spans) * 1000:8.0f} ms")
    print(
        f"longest answer to another:        {statistics.median(waits) * 1000:8.0f} ms (worst {max(waits) * 1000:.0f})"
    )


def main() -> None:
    """Measure, and say it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listeners", type=int, default=5000)
    parser.add_argument("--changes", type=int, default=15)
    options = parser.parse_args()
    more_files()
    with tempfile.TemporaryDirectory() as folder, zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.linger = 0
        address = f"ipc://{folder}/feed"
        publisher.bind(address)
        with govi_cache(Path(folder), FIRST_PORT, f"--feed={address}", path="/docs") as server:
            for _ in range(2):  # for KV7 and KV8
                publisher.recv()
            changes(server, publisher, options.listeners, options.changes)
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port + 1}/metrics") as told:
                print(next(line for line in told.read().decode().splitlines() if line.startswith("govi_streams ")))


if __name__ == "__main__":
    main()
