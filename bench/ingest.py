"""Measures the live feed in one process: rows per second, memory, and the timetable.

    python bench/ingest.py [--timetable DIR]

Each part runs in its own process, without sockets. bench/live.py measures responses while rows arrive.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial

from rows import kv8_message, passtime_row
from twisted.internet.task import Clock

from govi_server.departures.times import local_timestamp, write_time
from govi_server.kv78turbo.feed import Feed
from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.settings import FeedLimitSettings, PasstimeSettings, PlanningSettings, SubscriberSettings

ROWS_PER_MESSAGE = 50


class Rows:
    """Creates messages of rows. Passtime n belongs to stop n modulo the number of stops."""

    def __init__(self, stops: int) -> None:
        self.stops = stops

    def message(self, first: int, now: float, late: int, rows: int = ROWS_PER_MESSAGE) -> bytes:
        """Return a message of rows of the passtimes from first on, which are late seconds late, published now."""
        local = datetime.fromtimestamp(now, LOCAL_ZONE)
        seconds = local.hour * 3600 + local.minute * 60
        lines = []
        for n in range(first, first + rows):
            stop, nth = n % self.stops, n // self.stops
            planned = seconds + 600 + nth * 120
            values = {
                "OperationDate": local.date().isoformat(),
                "JourneyNumber": str(1 + nth),
                "LinePlanningNumber": str(1000 + stop // 25),
                "UserStopOrderNumber": str(1 + stop % 25),
                "UserStopCode": f"{40000000 + stop}",
                "TimingPointCode": f"{40000000 + stop}",
                "LastUpdateTimeStamp": local_timestamp(now),
                "TargetArrivalTime": write_time(planned),
                "TargetDepartureTime": write_time(planned),
                "ExpectedArrivalTime": write_time(planned + late),
                "ExpectedDepartureTime": write_time(planned + late),
            }
            lines.append(passtime_row(values))
        return kv8_message(lines, now)


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


def ingest() -> None:
    """Ingest messages, from gzip to boards: new passtimes, changed ones, and repetitions."""
    clock = at_noon()
    rows, count = Rows(10_000), 200_000
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


def size() -> None:
    """Ingest 100,000 stops with 20 passtimes each."""
    clock = at_noon()
    rows, count = Rows(100_000), 2_000_000
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


def main() -> None:
    """Run the parts one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--timetable", help="directory of recorded KV7 to read")
    options = parser.parse_args()
    parts: list[Callable[[], None]] = [ingest, size]
    if options.timetable:
        parts.append(partial(planning, options.timetable))
    for part in parts:
        process = multiprocessing.Process(target=part)
        process.start()
        process.join()


if __name__ == "__main__":
    main()
