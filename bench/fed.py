"""Runs govi-cache with the live feed of feed.py, and holds connections to it."""

import selectors
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast

from feed import PER_STOP
from peers import CLIENT, HERE, Running, govi_cache

CONFIG = """
[limits]
keep_alive = 3600.0  # so that idle connections remain open
[feed.subscriber]
recovery = 2.0  # the feed is complete when all passtimes have been sent
"""


class FedServer:
    """A running govi-cache, and the publisher of its feed."""

    def __init__(self, server: Running, publisher: subprocess.Popen[str]) -> None:
        self.server = server
        self._publisher = publisher

    def metrics(self) -> dict[str, float]:
        """Return the server's metrics by name and labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.port + 1}/metrics") as response:
            lines = response.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def is_complete(self, records: int) -> bool:
        """Return whether the server has received so many records, and reports that its feed is complete."""
        metrics = self.metrics()
        return metrics["govi_feed_records_total"] >= records and metrics['govi_feed_state{state="UP"}'] == 1

    def feed_share(self, seconds: float) -> float:
        """Return the share of a core that the server uses without requests."""
        start, used = time.monotonic(), self.server.cpu()
        time.sleep(seconds)
        return (self.server.cpu() - used) / (time.monotonic() - start)

    def start_planning(self) -> None:
        """Begin to send the planning."""
        stdin = cast(IO[str], self._publisher.stdin)
        stdin.write("planning\n")
        stdin.flush()

    def wait_for_feed(self) -> None:
        """Wait until all passtimes, or all the planning, have been sent."""
        if not cast(IO[str], self._publisher.stdout).readline():
            raise SystemExit("the feed has ended")


@contextmanager
def fed_server(
    folder: Path, port: int, stops: int, rate: int, changed: float, planning: int = 0
) -> Iterator[FedServer]:
    """Run govi-cache with a feed in a context; yield it once all passtimes have been sent."""
    config, feed_port = folder / "live.toml", port + 5
    config.write_text(CONFIG)
    publisher = subprocess.Popen(  # nice: the client of an open loop must not wait for it
        ["nice", "taskset", "-c", str(CLIENT), sys.executable, str(HERE / "feed.py"), str(feed_port),
         f"--stops={stops}", f"--rate={rate}", f"--changed={changed}", f"--planning={planning}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    options = (
        f"--config={config}", "--source=kv78turbo", f"--feed=tcp://127.0.0.1:{feed_port}", "--gtfs=",
        f"--statistics={folder / 'statistics.log'}",
    )  # fmt: skip
    try:
        with govi_cache(folder, port, *options, path="/docs") as server:
            fed = FedServer(server, publisher)
            fed.wait_for_feed()
            while not fed.is_complete(stops * PER_STOP):
                time.sleep(0.5)
            yield fed
    finally:
        publisher.terminate()
        publisher.wait()


class Streams(threading.Thread):
    """Event streams, each of another stop, which are read by a thread until stopped; events: their number so far."""

    def __init__(self, port: int, paths: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self.events = 0
        self._running = True
        self._selector = selectors.DefaultSelector()
        for path in paths:
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            self._selector.register(client, selectors.EVENT_READ)

    def run(self) -> None:
        """Read."""
        while self._running:
            for key, _ in self._selector.select(0.2):
                data = cast(socket.socket, key.fileobj).recv(1 << 18)
                if not data:
                    raise SystemExit("a stream has ended")
                self.events += data.count(b"event: board\n")

    def stop(self) -> None:
        """Close the streams."""
        self._running = False
        self.join()
        for key in list(self._selector.get_map().values()):
            cast(socket.socket, key.fileobj).close()


@contextmanager
def held_connections(port: int, path: str, idle: int, stream_paths: Sequence[str]) -> Iterator[Streams]:
    """Hold idle connections, each after one response, and event streams in a context; yield the streams."""
    with ExitStack() as stack:
        for _ in range(idle):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            client.recv(1 << 18)
        streams = Streams(port, stream_paths)
        streams.start()
        stack.callback(streams.stop)
        yield streams
