"""Measures the cost of many event streams of one stop: python bench/events.py [--listeners 5000] [--changes 15]

Starts `twistd govi-cache` with its own feed on the first core, and opens that many streams of one stop from the last
core. Then the feed repeatedly publishes new delays of the 20 departures of the stop. Results are medians over the
changes: the processor time of the server, the time between the first and the last stream's event, and the longest
wait of another client for a response meanwhile. Loopback only; the server is stopped at the end.
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
from load import raise_file_limit
from peers import FIRST_PORT, Running, govi_cache

PASSTIMES = 20
PATH = "/events/40000000"
SETTLE_SECONDS = 1.0
"""Pause before a measurement, in seconds: the server checks for changes twice a second."""


class Listeners:
    """Streams of the stop over plain sockets, whose cost is small compared to that of the server."""

    def __init__(self, port: int, count: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._count = count
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            self._selector.register(client, selectors.EVENT_READ, bytearray())

    def wait_for_event(self) -> tuple[float, float, int]:
        """Wait until every stream has an event; return the times of the first and the last, and the size in bytes."""
        times: list[float] = []
        size = 0
        while len(times) < self._count:
            ready = self._selector.select(20)
            if not ready:
                raise SystemExit(f"only {len(times)} of {self._count} streams have received the event")
            for key, _ in ready:
                key.data.extend(key.fileobj.recv(1 << 16))  # type: ignore[union-attr]  # they are sockets
                if key.data.endswith(b"\n\n") and b"event: board\n" in key.data:
                    times.append(time.monotonic())
                    size = len(key.data)
                    key.data.clear()
        return times[0], times[-1], size


def send_requests(port: int, pipe: Connection) -> None:
    """Send requests over one connection; for each message in the pipe, send the longest duration since the last."""
    client = socket.create_connection(("127.0.0.1", port))
    longest = 0.0
    while True:
        start = time.monotonic()
        client.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if not client.recv(1 << 16):
            raise SystemExit("the other client was disconnected")
        longest = max(longest, time.monotonic() - start)
        if pipe.poll():
            pipe.recv()
            pipe.send(longest)
            longest = 0.0
        time.sleep(0.002)


def changes(server: Running, publisher: zmq.Socket[bytes], count: int, n: int) -> None:
    """Measure n changes with count streams."""
    rows = Rows(1)

    def publish(minutes_late: int) -> None:
        publisher.send_multipart(
            [b"/GOVI/KV8passtimes/BENCH", rows.message(0, time.time(), 60 * minutes_late, rows=PASSTIMES)]
        )

    publish(0)
    time.sleep(2)
    before = server.memory()
    start = server.cpu()
    listeners = Listeners(server.port, count)
    listeners.wait_for_event()
    connect_cost = server.cpu() - start
    time.sleep(SETTLE_SECONDS)
    memory = (server.memory() - before) / count
    ours, theirs = multiprocessing.Pipe()
    other = multiprocessing.Process(target=send_requests, args=(server.port, theirs), daemon=True)
    other.start()
    costs, spans, waits, size = [], [], [], 0
    for minutes_late in range(1, n + 1):
        time.sleep(SETTLE_SECONDS)
        ours.send(None)
        ours.recv()
        start = server.cpu()
        publish(minutes_late)
        first, last, size = listeners.wait_for_event()
        ours.send(None)
        waits.append(ours.recv())
        costs.append(server.cpu() - start)
        spans.append(last - first)
    other.terminate()
    print(f"{count:,} streams, {n} changes of {size:,} bytes")
    print(f"memory of a stream:               {memory / 1000:8.1f} kB")
    print(f"processor time of a new stream:   {connect_cost / count * 1e6:8.0f} us")
    print(f"processor time of a change:       {statistics.median(costs) * 1000:8.0f} ms", end="")
    print(f" ({statistics.median(costs) / count * 1e6:.1f} us per stream)")
    print(f"from the first to the last event: {statistics.median(spans) * 1000:8.0f} ms")
    print(
        f"longest wait of another client:   {statistics.median(waits) * 1000:8.0f} ms (worst {max(waits) * 1000:.0f})"
    )


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listeners", type=int, default=5000)
    parser.add_argument("--changes", type=int, default=15)
    options = parser.parse_args()
    raise_file_limit()
    with tempfile.TemporaryDirectory() as folder, zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.linger = 0
        address = f"ipc://{folder}/feed"
        publisher.bind(address)
        with govi_cache(Path(folder), FIRST_PORT, f"--feed={address}", path="/docs") as server:
            for _ in range(2):  # for KV7 and KV8
                publisher.recv()
            changes(server, publisher, options.listeners, options.changes)
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port + 1}/metrics") as response:
                print(
                    next(line for line in response.read().decode().splitlines() if line.startswith("govi_streams "))
                )


if __name__ == "__main__":
    main()
