"""Measures pauses while a national timetable is loaded: 60,000 stops, 4 million planned passtimes.

    python bench/pauses.py [--planned 4000000] [--streams 500] [--connections 2000] [--by feed|directory|both|gtfs]
                           [--snapshot] [--nights 1] [--interval 0.005] [--no-freeze]

A complete server without sockets, whose clock is the processor time of its thread; time in which it has no work is
skipped. So other processes of the machine do not count. KV8 arrives (1,000 rows/s for 5,000 stops), event streams and
idle connections are open, a client requests random stops on a schedule; then the night arrives. Prints the
waits of the client from the scheduled moments, and the longest calls, turns and garbage collections.
"""

import argparse
import gc
import gzip
import heapq
import itertools
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from gtfs import write_national_gtfs
from ingest import Rows, memory
from night import Night
from twisted.application.service import MultiService
from twisted.internet.base import DelayedCall
from twisted.internet.defer import succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from govi_server.application import _public_server, add_modules
from govi_server.operations.components import Components
from govi_server.operations.snapshot import Snapshots
from govi_server.planning.planning import Planning
from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.runtime.garbage_collection import GarbageCollection
from govi_server.runtime.ordered_services import OrderedMultiService
from govi_server.settings import (
    AccessSettings,
    Config,
    FeedSettings,
    ModuleSettings,
    ServerSettings,
    SnapshotSettings,
)
from govi_server.statistics.log import statistics_publisher

LIVE_STOPS = 5_000
LONG_CALL = 0.01
"""Seconds of a call that is listed."""


@implementer(IReactorTime)
class ProcessorClock:
    """A reactor without sockets. Its time is the processor time of this thread, and idle time that is skipped."""

    def __init__(self, now: float) -> None:
        self._offset = now - time.thread_time()
        self._calls: list[tuple[float, int, DelayedCall]] = []
        self._numbers = itertools.count()
        self.turns: list[float] = []
        self.long_calls: list[tuple[float, str]] = []
        self.busy = 0.0

    def seconds(self) -> float:
        """Return the time in epoch seconds."""
        return self._offset + time.thread_time()

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object) -> DelayedCall:
        """Call a function after a delay."""
        call = DelayedCall(self.seconds() + delay, callable, args, kwargs, lambda _: None, self._moved, self.seconds)
        self._moved(call)
        return call

    def _moved(self, call: DelayedCall) -> None:
        heapq.heappush(self._calls, (call.getTime() if call.active() else 0.0, next(self._numbers), call))

    def getDelayedCalls(self) -> list[DelayedCall]:
        """Return nothing: it is not needed."""
        return []

    def exclude(self, seconds: float) -> None:
        """Do not count processor time that the measurement itself has used."""
        self._offset -= seconds

    def run(self, seconds: float) -> None:
        """Run turns for some time."""
        end = self.seconds() + seconds
        while self.seconds() < end:
            now = self.seconds()
            due = []
            while self._calls and self._calls[0][0] <= now:
                _, _, call = heapq.heappop(self._calls)
                if call.active():
                    if call.getTime() <= now:
                        due.append(call)
                    else:
                        self._moved(call)
            if not due:
                self._offset += max(self._calls[0][0] - now, 0.0)
                continue
            for call in due:
                if not call.active():
                    continue
                began = self.seconds()
                call.called = 1
                call.func(*call.args, **call.kw)
                duration = self.seconds() - began
                if duration > LONG_CALL:
                    self.long_calls.append((duration, getattr(call.func, "__qualname__", repr(call.func))))
            self.turns.append(self.seconds() - now)
            self.busy += self.turns[-1]


class Collections:
    """The garbage collections."""

    def __init__(self) -> None:
        self.durations: dict[int, list[float]] = {0: [], 1: [], 2: []}
        self._began = 0.0
        gc.callbacks.append(self._on_collection)

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.durations[info["generation"]].append(time.thread_time() - self._began)

    def __str__(self) -> str:
        parts = [
            f"{len(d)} of generation {g} (longest {max(d) * 1000:.0f} ms)" for g, d in self.durations.items() if d
        ]
        return ", ".join(parts) or "none"


class Client:
    """A connection in memory."""

    def __init__(self, server: Any, received: Callable[[], object] = lambda: None) -> None:
        self.transport = StringTransport(lenient=True)
        self.size = 0
        self._received = received
        self.transport.write = self._write  # type: ignore[method-assign]  # counts instead of storing
        self.handler = server.buildProtocol(self.transport.getPeer())
        self.handler.makeConnection(self.transport)

    def _write(self, data: bytes) -> None:
        self.size += len(data)
        self._received()

    def get(self, path: str) -> None:
        """Send a request."""
        self.handler.dataReceived(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


class Load:
    """What arrives at the server."""

    def __init__(self, clock: ProcessorClock, server: Any, feed: Any, rows: int, interval: float) -> None:
        self._interval = interval
        self.clock, self.server, self.feed = clock, server, feed
        self.waits: list[float] = []
        self.queue: deque[tuple[str, bytes]] = deque()
        self._is_consuming = False
        self._free: list[Client] = []
        self._rng = random.Random(55)
        self._rows = self._messages()
        self._probe(clock.seconds())
        if rows:
            self._publish(clock.seconds(), 50 / rows)

    def _messages(self) -> Iterator[bytes]:
        rows = Rows(LIVE_STOPS)
        for n in itertools.count():
            began = time.thread_time()
            rounds, first = divmod(n * 50, LIVE_STOPS * 20)
            message = rows.message(first, self.clock.seconds(), rounds % 5 * 60)
            self.clock.exclude(time.thread_time() - began)
            yield message

    def _publish(self, due: float, interval: float) -> None:
        self.publish("/GOVI/KV8passtimes/BENCH", next(self._rows))
        self.clock.callLater(max(due + interval - self.clock.seconds(), 0.0), self._publish, due + interval, interval)

    def publish(self, envelope: str, payload: bytes) -> None:
        """Send a message, which waits until those before it are ingested."""
        self.queue.append((envelope, payload))
        if not self._is_consuming:
            self._is_consuming = True
            self.clock.callLater(0, self._consume)

    def _consume(self) -> None:
        if not self.queue:
            self._is_consuming = False
            return
        done = self.feed.received(*self.queue.popleft()) or succeed(None)
        done.addBoth(lambda _: self.clock.callLater(0, self._consume))

    def _probe(self, due: float) -> None:
        client = self._free.pop() if self._free else Client(self.server)

        def received() -> None:
            client._received = lambda: None
            self.waits.append(self.clock.seconds() - due)
            self._free.append(client)

        client._received = received
        client.get(f"/kv55/{40000000 + self._rng.randrange(LIVE_STOPS)}")
        due += self._interval
        self.clock.callLater(max(due - self.clock.seconds(), 0.0), self._probe, due)


def compiled(directory: Path, n_stops: int, n_calls: int) -> Path:
    """Return the path of the planning of a GTFS file of national size, which a process of its own has compiled."""
    source, target = directory / "gtfs-kv7-national.zip", directory / "planning"
    today = datetime.now(LOCAL_ZONE).date()
    write_national_gtfs(source, n_stops, n_calls, today)
    arguments = [str(source), source.name, "", str(target), str(today), "20000000", "500000"]
    subprocess.run(
        [sys.executable, "-m", "govi_server.planning.compiler", *arguments], check=True, stdout=subprocess.DEVNULL
    )
    return target


def report(name: str, clock: ProcessorClock, load: Load, collections: Collections, began: float) -> None:
    """Print, and begin again."""
    waits, turns = sorted(load.waits), sorted(clock.turns)

    def at(share: float) -> str:
        return f"{waits[min(int(len(waits) * share), len(waits) - 1)] * 1000:.1f}"

    seconds = clock.seconds() - began
    print(f"{name}: {seconds:.1f} s, {clock.busy / seconds:.0%} busy, {memory():.0f} MB")
    print(f"  {len(waits):,} waits: p50 {at(0.5)}, p99 {at(0.99)}, p99.9 {at(0.999)}, longest {at(1)} ms")
    print(f"  longest turns: {', '.join(f'{turn * 1000:.1f}' for turn in turns[-6:])} ms of {len(turns):,}")
    print(f"  collections: {collections}")
    for function, n in Counter(function for _, function in clock.long_calls).most_common(6):
        longest = max(duration for duration, of in clock.long_calls if of == function)
        print(f"  {n} calls above {LONG_CALL * 1000:.0f} ms, longest {longest * 1000:.1f}: {function}")
    sys.stdout.flush()
    load.waits.clear()
    clock.turns.clear()
    clock.long_calls.clear()
    clock.busy = 0.0
    for durations in collections.durations.values():
        durations.clear()


def main() -> None:
    """Run the server, and load the night."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--planned", type=int, default=4_000_000, help="planned passtimes")
    parser.add_argument("--stops", type=int, default=60_000, help="stops of the timetable")
    parser.add_argument("--streams", type=int, default=500, help="event streams, each of its own stop")
    parser.add_argument("--connections", type=int, default=2_000, help="idle connections")
    parser.add_argument("--rows", type=int, default=1_000, help="rows of KV8 per second")
    parser.add_argument(
        "--by", choices=("feed", "directory", "both", "gtfs"), default="feed", help="how the night arrives"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="duration before and after")
    parser.add_argument("--snapshot", action="store_true", help="write snapshots")
    parser.add_argument("--nights", type=int, default=1, help="how often the night arrives")
    parser.add_argument("--no-freeze", action="store_true", help="let each full collection visit all objects")
    parser.add_argument("--interval", type=float, default=0.005, help="seconds between requests")
    parser.add_argument("--cache", help="a directory that keeps the generated night")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        now = datetime.now(LOCAL_ZONE).replace(hour=12, minute=0, second=0).timestamp()
        cache = Path(options.cache or directory) / f"{options.stops}-{options.planned}"
        folder = Path(directory) / "kv7"
        folder.mkdir()
        if not cache.exists() and options.by != "gtfs":
            cache.mkdir()
            for name, content in Night(options.stops, options.planned, now - 3600).messages():
                (cache / f"{name}.gz").write_bytes(gzip.compress(content, 1))
        paths = sorted(cache.iterdir()) if cache.exists() else []
        night = [(f"/GOVI/{path.stem.replace('_', '/', 1)}", path.read_bytes()) for path in paths]
        planning = compiled(Path(directory), options.stops, options.planned) if options.by == "gtfs" else None
        clock = ProcessorClock(now)
        config = Config(
            modules={"kv55": ModuleSettings(source="kv78turbo")},
            feed=FeedSettings(addresses=(), timetable=str(folder), gtfs=""),
            access=AccessSettings(rate=1_000_000, burst=1_000_000, per_client=100_000),
            limits=ServerSettings(keep_alive=3600.0),
        )
        services, modules = OrderedMultiService(), MultiService()
        if not options.no_freeze:
            services.addService(GarbageCollection(clock))
        server = _public_server(config, modules, config.access.connections, statistics_publisher(), clock)
        components = Components(server)
        runner = add_modules(services, modules, config, components, clock)
        feed = components.feed
        assert feed is not None
        for service in (*services, modules):
            service.startService()
        if options.snapshot:
            settings = SnapshotSettings(file=str(Path(directory) / "snapshot"), every=20.0)
            Snapshots({}, feed, settings, clock, runner.cooperator).startService()
        gc.collect()
        gc.freeze()
        collections = Collections()
        load = Load(clock, server, feed, options.rows, options.interval)
        clients = [Client(server) for _ in range(options.connections + options.streams)]
        for n, client in enumerate(clients):
            client.get(f"/events/{40000000 + n * 7 % LIVE_STOPS}" if n < options.streams else "/kv55/40000000")
        began = clock.seconds()
        clock.run(LIVE_STOPS * 20 / options.rows if options.rows else 0)
        report("first data", clock, load, collections, began)
        began = clock.seconds()
        clock.run(options.seconds)
        report("before", clock, load, collections, began)
        for n in range(options.nights):
            began, loaded = clock.seconds(), succeed(None)
            if planning is not None:
                opened = Planning.open(planning)
                feed.use_planning(opened)
                clock.run(10)
                report(f"loading GTFS, {opened.n_calls:,} calls", clock, load, collections, began)
                continue
            if options.by != "feed":
                for path in cache.iterdir():
                    (folder / f"{n}-{path.name}").write_bytes(path.read_bytes())
                clock.run(61)
                loaded = next(service.loaded for service in feed.services if hasattr(service, "loaded"))
            if options.by != "directory":
                for envelope, content in night:
                    load.publish(envelope, content)
            while not loaded.called or any("KV7" in envelope for envelope, _ in load.queue):
                clock.run(0.1)
            report(f"loading, {feed.timetable.n_planned:,} planned passtimes", clock, load, collections, began)
        began = clock.seconds()
        clock.run(options.seconds)
        report("after", clock, load, collections, began)
        assert feed.timetable.n_planned or feed.timetable.gtfs
        assert all(client.size for client in clients)


if __name__ == "__main__":
    main()
