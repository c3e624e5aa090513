"""Measures the live feed: rows per second, memory, the timetable, and hits while rows arrive.

    python bench/ingest.py [--capture FILE.ctx] [--timetable DIR] [--seconds 20]

Rows are variations of one record of 65 columns: the first of --capture, a recorded KV8 message, or a fictitious one.
Each part runs in its own process. The last part starts `twistd govi-cache` and publishes 10,000 rows per second to it
over ZeroMQ, while a client requests stops that these rows change. Loopback only; the server is stopped at the end.
"""

import argparse
import gzip
import multiprocessing
import os
import random
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial

import zmq
from twisted.internet.task import Clock

from govi_server.departures.times import local_timestamp, write_time
from govi_server.kv78turbo.feed import Feed
from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.settings import FeedLimitSettings, PasstimeSettings, PlanningSettings, SubscriberSettings

ROWS_PER_MESSAGE = 50

LABELS = (
    "DataOwnerCode|OperationDate|LinePlanningNumber|JourneyNumber|FortifyOrderNumber|UserStopOrderNumber|UserStopCode|"
    "LocalServiceLevelCode|JourneyPatternCode|LineDirection|LastUpdateTimeStamp|DestinationCode|IsTimingStop|"
    "ExpectedArrivalTime|ExpectedDepartureTime|TripStopStatus|MessageContent|MessageType|SideCode|NumberOfCoaches|"
    "WheelChairAccessible|OperatorCode|ReasonType|SubReasonType|ReasonContent|AdviceType|SubAdviceType|AdviceContent|"
    "TimingPointDataOwnerCode|TimingPointCode|JourneyStopType|TargetArrivalTime|TargetDepartureTime|"
    "RecordedArrivalTime|RecordedDepartureTime|DetectedUserStopCode|DistanceSinceDetectedUserStop|Detected_RD_X|"
    "Detected_RD_Y|VehicleNumber|BlockCode|LineVeTagNumber|VejoJourneyNumber|VehicleJourneyType|VejoBlockNumCode|"
    "JourneyModificationType|VejoDepartureTime|VejoArrivalTime|VejoTripStatusType|ExtraJourney|CancelledJourney|"
    "ShowCancelledTrip|ShowFlexibleTrip|Monitored|MonitoringError|ExtraCall|CancelledCall|ShowCancelledStop|"
    "AimedQuayRef|ExpectedQuayRef|ActualQuayRef|Occupancy|LineDestIcon|LineDestColor|LineDestTextColor"
)
RECORD = (
    r"OWN|2026-01-01|3051|7039|0|20|54002060|6787227|298074|1|2026-01-01T18:26:05+01:00|3042|0|18:24:55|18:24:51|"
    r"DRIVING|\0|\0|-|1|UNKNOWN|\0|\0|\0|\0|\0|\0|\0|ALGEMEEN|42013502|INTERMEDIATE|18:26:02|18:26:02|18:24:51|"
    r"18:25:05|54002060|700|80485|454340|5172|206|51|7039|PUJO|\0|NONE|17:55:00|18:30:00|\0|0|0|TRUE|\0|1|\0|0|0|TRUE|"
    r"\0|\0|\0|UNKNOWN|\0|\0|\0"
)


class Rows:
    """Creates messages of rows. Passtime n belongs to stop n modulo the number of stops."""

    def __init__(self, capture: str | None, stops: int, per_stop: int) -> None:
        labels, record = LABELS, RECORD
        if capture is not None:
            with open(capture, encoding="utf-8") as file:
                lines = file.read().splitlines()
            labels, record = lines[2].removeprefix("\\L"), lines[3]
        self.columns = {label: i for i, label in enumerate(labels.split("|"))}
        self.fields = record.split("|")
        self.labels = labels
        self.stops, self.per_stop = stops, per_stop

    def message(self, first: int, now: float, late: int, rows: int = ROWS_PER_MESSAGE) -> bytes:
        """Return a message of rows of the passtimes from first on, which are late seconds late, published now."""
        local = datetime.fromtimestamp(now, LOCAL_ZONE)
        seconds = local.hour * 3600 + local.minute * 60
        stamp = local_timestamp(now)
        head = f"\\GKV8turbo_passtimes|KV8turbo_passtimes|bench|||UTF-8|0.1|{stamp}|\ufeff\n"
        lines = [head + "\\TDATEDPASSTIME|DATEDPASSTIME|start object", "\\L" + self.labels]
        for n in range(first, first + rows):
            stop, nth = n % self.stops, n // self.stops
            planned = seconds + 600 + nth * 120
            fields = self.fields.copy()
            for label, value in (
                ("OperationDate", local.date().isoformat()),
                ("JourneyNumber", str(1 + nth)),
                ("LinePlanningNumber", str(1000 + stop // 25)),
                ("UserStopOrderNumber", str(1 + stop % 25)),
                ("UserStopCode", f"{40000000 + stop}"),
                ("TimingPointCode", f"{40000000 + stop}"),
                ("LastUpdateTimeStamp", stamp),
                ("TripStopStatus", "DRIVING"),
                ("TargetArrivalTime", write_time(planned)),
                ("TargetDepartureTime", write_time(planned)),
                ("ExpectedArrivalTime", write_time(planned + late)),
                ("ExpectedDepartureTime", write_time(planned + late)),
            ):
                fields[self.columns[label]] = value
            lines.append("|".join(fields))
        return gzip.compress("\n".join([*lines, ""]).encode(), 1)


def make_feed(clock: Clock, folder: str = "") -> Feed:
    """Return a feed without a connection."""
    return Feed(
        clock,
        [],
        folder,
        FeedLimitSettings(),
        subscriber=SubscriberSettings(),
        passtimes=PasstimeSettings(),
        timetable=PlanningSettings(),
        cache_bytes=256 << 20,
    )


def at_noon() -> Clock:
    """Return a clock at noon of today, so that all rows have the same operating date."""
    clock = Clock()
    clock.rightNow = datetime.now(LOCAL_ZONE).replace(hour=12, minute=0, second=0).timestamp()
    return clock


def memory() -> float:
    """Return the memory of this process in MB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / (1 << 20)


def ingest(capture: str | None) -> None:
    """Ingest messages, from gzip to boards: new passtimes, changed ones, and repetitions."""
    clock = at_noon()
    rows, count = Rows(capture, 10_000, 20), 200_000
    feed = make_feed(clock)
    for name, late, later in (("new rows", 0, 0), ("changes", 60, 30), ("repetitions", 60, 30)):
        messages = [rows.message(n, clock.seconds() + later, late) for n in range(0, count, ROWS_PER_MESSAGE)]
        rates = []
        for tenth in range(10):
            start = time.process_time()
            for message in messages[tenth * len(messages) // 10 : (tenth + 1) * len(messages) // 10]:
                feed.received("/GOVI/KV8passtimes/BENCH", message)
            rates.append(count / 10 / (time.process_time() - start))
        print(f"{name:12}: {statistics.median(rates):9,.0f} rows per second of CPU time (median of 10)")
    assert feed.passtimes.n_passtimes == count
    assert not feed.incidents.counts
    board = feed.boards.board("40000000", 7200)
    assert [passtime.expected_departure_time for passtime in board.passtimes[:2]] == ["12:11:00", "12:13:00"]


def size(capture: str | None) -> None:
    """Ingest 100,000 stops with 20 passtimes each."""
    clock = at_noon()
    rows, count = Rows(capture, 100_000, 20), 2_000_000
    feed = make_feed(clock)
    before = memory()
    for n in range(0, count, 500):
        feed.received("/GOVI/KV8passtimes/BENCH", rows.message(n, clock.seconds(), 0, 500))
    assert feed.passtimes.n_passtimes == count
    stops = len(feed.passtimes.stops)
    print(f"memory      : {memory():7,.0f} MB with {count:,} passtimes at {stops:,} stops, {before:.0f} before")
    start = time.process_time()
    for _ in feed.passtimes.sweep():
        pass
    print(f"sweep       : {time.process_time() - start:7.1f} s of CPU time over all of them, in steps")


def planning(folder: str) -> None:
    """Read a directory of recorded KV7."""
    clock = at_noon()
    start = time.perf_counter()
    feed = make_feed(clock, folder)
    feed.startService()
    directories = [service for service in feed.services if hasattr(service, "loaded")]
    while not directories[0].loaded.called:
        clock.advance(0.001)
    timetable, stops = feed.timetable, len(feed.timetable.timing_points)
    duration = time.perf_counter() - start
    print(f"planning    : {duration:7.2f} s for {timetable.n_planned:,} passtimes, {stops:,} stops")


def publish(capture: str | None, port: int, rate: int, seconds: float) -> None:
    """Publish so many rows per second, as changes of 50,000 passtimes at 2,500 stops."""
    rows = Rows(capture, 2_500, 20)
    publisher = zmq.Context.instance().socket(zmq.PUB)
    publisher.bind(f"tcp://127.0.0.1:{port}")
    start, n = time.time(), 0
    messages = [
        [rows.message(first, start + late, late) for first in range(0, 50_000, ROWS_PER_MESSAGE)]
        for late in range(0, 60, 5)
    ]
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        cycle = messages[n // 1000 % len(messages)]
        publisher.send_multipart([b"/GOVI/KV8passtimes/BENCH", cycle[n % 1000]])
        n += 1
        time.sleep(max(0.0, start + n * ROWS_PER_MESSAGE / rate - time.monotonic()))
    print(f"published   : {n * ROWS_PER_MESSAGE / (time.monotonic() - start):7,.0f} rows per second")


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def read_response(client: socket.socket) -> int:
    """Read a response; return its status."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += client.recv(65536)
    return int(head[9:12])


def hits(capture: str | None, seconds: float) -> None:
    """Request boards over HTTP while 10,000 rows per second arrive."""
    feed_port, port = free_port(), free_port()
    publisher = multiprocessing.Process(target=publish, args=(capture, feed_port, 10_000, seconds + 15))
    publisher.start()
    with tempfile.TemporaryDirectory() as directory:
        code = "from twisted.scripts.twistd import run; run()"
        server = subprocess.Popen(
            [sys.executable, "-c", code, "-n", "--pidfile=", "govi-cache",
             "--listen", f"tcp:{port}:interface=127.0.0.1", "--feed", f"tcp://127.0.0.1:{feed_port}"],
            cwd=directory,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            client = connect(port)
            while request_stop(client, 0) != 200 or request_stop(client, 2_499) != 200:
                time.sleep(0.1)
            durations = []
            rng = random.Random(55)
            start = time.monotonic()
            used = cpu(server.pid)
            while time.monotonic() - start < seconds:
                sent = time.perf_counter()
                assert request_stop(client, rng.randrange(2_500)) == 200
                durations.append((time.perf_counter() - sent) * 1000)
                time.sleep(0.002)
            used = (cpu(server.pid) - used) / (time.monotonic() - start)
        finally:
            server.terminate()
            server.wait()
            publisher.terminate()
            publisher.join()
    durations.sort()
    p50, p99 = durations[len(durations) // 2], durations[len(durations) * 99 // 100]
    print(
        f"/kv55 hits  : {len(durations)} responses, p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {durations[-1]:.1f} ms;"
    )
    print(f"              the server used {used:.0%} of a core")


def connect(port: int) -> socket.socket:
    """Return a connection, once the server listens."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 10)
        except ConnectionRefusedError:
            time.sleep(0.1)


def request_stop(client: socket.socket, stop: int) -> int:
    """Request a stop's board; return the status."""
    client.sendall(f"GET /kv55/{40000000 + stop} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return read_response(client)


def cpu(pid: int) -> float:
    """Return the seconds of CPU time that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run the parts one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--capture", help="recorded KV8 message with the record to use")
    parser.add_argument("--timetable", help="directory of recorded KV7 to read")
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of the requests for boards")
    options = parser.parse_args()
    parts: list[Callable[[], None]] = [partial(ingest, options.capture), partial(size, options.capture)]
    if options.timetable:
        parts.append(partial(planning, options.timetable))
    for part in parts:
        process = multiprocessing.Process(target=part)
        process.start()
        process.join()
    hits(options.capture, options.seconds)


if __name__ == "__main__":
    main()
