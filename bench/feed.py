"""A live feed for measurements: python bench/feed.py PORT [--stops 2000] [--rate 1000] [--changed 0.5] [--planning N]

Publishes KV8 over ZeroMQ: gzip of CTX, the 65 columns of 2021, messages of 25 to 100 rows of one operator. When the
server has subscribed, the names of KV7 and all passtimes are sent once; "all passtimes sent" is printed. From then
on all passtimes are repeated, in random order, so many rows per second for ever. The share --changed of the rows has
a new expected time and LastUpdateTimeStamp. The others are the previous rows of their passtimes, byte for byte: the
captures have each message only once, but in them LastUpdateTimeStamp is when the operator updated a passtime, not
when it was published. A passtime that has passed is replaced by the one two hours later.

For a line on the standard input, the planning of one operator's coming days, N planned passtimes for all stops, is
sent between the other messages, at the pace of the CXX capture of 2021; "planning sent" is printed.
"""

import argparse
import gzip
import random
import select
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import zmq
from rows import (
    calendar_tables,
    journey_stop_type,
    kv7_message,
    kv8_message,
    line_tables,
    passtime_row,
    planned_row,
    planned_table,
    stop_tables,
)

from govi_server.departures.times import local_timestamp, write_time
from govi_server.runtime.clock import LOCAL_ZONE

PER_STOP = 20
"""Passtimes of a stop in two hours."""

HEADWAY_SECONDS = 360
"""Between two passtimes of a stop."""

STOPS_PER_LINE = 20
OPERATORS = 10

PLANNING_RATE = 53_011 / 12
"""Planned passtimes per second, as in the capture. Its messages have one line each, of 12 to 109 stops."""

Message = tuple[str, bytes]
"""Envelope and content."""


def stop_code(stop: int) -> str:
    """Return the TimingPointCode of stop n."""
    return f"{40000000 + stop}"


def line_of(stop: int) -> int:
    """Return the LinePlanningNumber of the line of stop n."""
    return 1000 + stop // STOPS_PER_LINE


def operator_of(stop: int) -> str:
    """Return the DataOwnerCode of the line of stop n."""
    return f"OP{stop // STOPS_PER_LINE % OPERATORS}"


def planning_seconds(rows: int) -> float:
    """Return how long it takes to send so many planned passtimes."""
    return rows / PLANNING_RATE


class Passtimes:
    """The passtimes of all stops. Passtime n belongs to stop n modulo the number of stops.

    changed: the share of the repeated rows that are changed. now: the time in epoch seconds.
    """

    def __init__(self, stops: int, changed: float, now: float, seed: int = 17) -> None:
        self._stops, self._changed, self._start = stops, changed, now
        self._rng = random.Random(seed)
        local = datetime.fromtimestamp(now, LOCAL_ZONE)
        self._date = local.date()
        self._second = local.hour * 3600 + local.minute * 60 + local.second
        count = stops * PER_STOP
        self._journeys = array("i", (n // stops for n in range(count)))
        self._delays = array("i", [0]) * count  # in seconds
        self._updated = array("d", [0.0]) * count

    def _planned(self, n: int) -> int:
        """Return the seconds from the start to the planned departure of passtime n."""
        return 60 + n % self._stops % STOPS_PER_LINE * 15 + self._journeys[n] * HEADWAY_SECONDS

    def _row(self, n: int, now: float) -> str:
        """Return the next row of passtime n: a changed one, or the previous one again."""
        if self._start + self._planned(n) + self._delays[n] < now:
            self._journeys[n] += PER_STOP
            self._delays[n], self._updated[n] = 0, now
        elif not self._updated[n]:
            self._updated[n] = now
        elif self._rng.random() < self._changed:
            change = self._rng.choice((-30, -15, 15, 30, 60))
            self._delays[n], self._updated[n] = abs(self._delays[n] + change), now
        stop = n % self._stops
        code = stop_code(stop)
        planned = self._second + self._planned(n)
        target, expected = write_time(planned), write_time(planned + self._delays[n])
        values = {
            "DataOwnerCode": operator_of(stop),
            "OperationDate": self._date.isoformat(),
            "LinePlanningNumber": f"{line_of(stop)}",
            "JourneyNumber": f"{1 + self._journeys[n]}",
            "UserStopOrderNumber": f"{1 + stop % STOPS_PER_LINE}",
            "UserStopCode": code,
            "LastUpdateTimeStamp": local_timestamp(self._updated[n]),
            "DestinationCode": f"D{line_of(stop)}",
            "TimingPointCode": code,
            "TargetArrivalTime": target,
            "TargetDepartureTime": target,
            "ExpectedArrivalTime": expected,
            "ExpectedDepartureTime": expected,
        }
        return passtime_row(values)

    def names(self, now: float) -> Iterator[Message]:
        """Generate KV7 with the names of stops, lines and destinations, a message for each line."""
        for first in range(0, self._stops, STOPS_PER_LINE):
            codes = [stop_code(stop) for stop in range(first, min(first + STOPS_PER_LINE, self._stops))]
            operator = operator_of(first)
            tables = [*stop_tables(operator, codes), *line_tables(operator, [f"{line_of(first)}"])]
            yield f"/GOVI/KV7planning/{operator}", gzip.compress(kv7_message(operator, now, tables))

    def planning(self, rows: int, now: float) -> list[tuple[Message, float]]:
        """Return KV7 of one operator: its calendar from tomorrow on, and so many planned passtimes, line by line.

        With each message, the seconds until the next one.
        """
        operator, level = "NIGHT", "77"
        calendar = calendar_tables(operator, level, self._date + timedelta(1), 7)
        messages = [(("/GOVI/KV7calendar/NIGHT", gzip.compress(kv7_message(operator, now, calendar))), 0.0)]
        for first in range(0, self._stops, STOPS_PER_LINE):
            line, planned = f"{line_of(first)}", []
            for n in range(rows * STOPS_PER_LINE // self._stops):
                journey, index = divmod(n, STOPS_PER_LINE)
                order = 1 + index
                when = write_time(5 * 3600 + journey * 600 + order * 60)
                stop_type = journey_stop_type(order, STOPS_PER_LINE)
                code = stop_code(first + index)
                planned.append(planned_row(operator, level, line, 1 + journey, order, code, when, stop_type))
            tables = [*line_tables(operator, [line]), planned_table(planned)]
            message = "/GOVI/KV7planning/NIGHT", gzip.compress(kv7_message(operator, now, tables))
            messages.append((message, planning_seconds(len(planned))))
        return messages

    def groups(self) -> Iterator[list[int]]:
        """Generate all passtimes in random order, in groups for a message."""
        passtimes = list(range(len(self._journeys)))
        self._rng.shuffle(passtimes)
        of_operators: dict[str, list[int]] = {}
        for n in passtimes:
            group = of_operators.setdefault(operator_of(n % self._stops), [])
            group.append(n)
            if len(group) >= self._rng.randint(25, 100):
                yield group
                group.clear()
        yield from filter(None, of_operators.values())

    def message(self, group: Sequence[int], now: float) -> Message:
        """Return the next message of a group of passtimes."""
        operator = operator_of(group[0] % self._stops)
        return f"/GOVI/KV8passtimes/{operator}", kv8_message([self._row(n, now) for n in group], now)


class Publisher:
    """Publishes on a port, at a given rate."""

    def __init__(self, port: int) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.XPUB)
        self._socket.set_hwm(100_000)
        self._socket.bind(f"tcp://127.0.0.1:{port}")
        self.due = 0.0
        """When the next row may be published (monotonic seconds)."""

    def wait_for_subscriptions(self) -> None:
        """Wait for the subscriptions to KV7 and KV8."""
        for _ in range(2):
            self._socket.recv()
        self.due = time.monotonic()

    def publish(self, message: Message, seconds: float) -> None:
        """Publish a message; the next one is due so many seconds later."""
        envelope, content = message
        self._socket.send_multipart([envelope.encode(), content])
        self.due += seconds

    def wait(self) -> bool:
        """Wait until the next message is due; return whether the standard input has a line before."""
        return bool(select.select([sys.stdin], [], [], max(0.0, self.due - time.monotonic()))[0])


def main() -> None:
    """Publish until the standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--stops", type=int, default=2000)
    parser.add_argument("--rate", type=int, default=1000, help="rows per second")
    parser.add_argument("--changed", type=float, default=0.5, help="share of the rows that are changed")
    parser.add_argument("--planning", type=int, default=0, help="planned passtimes, sent when a line is read")
    options = parser.parse_args()
    passtimes = Passtimes(options.stops, options.changed, time.time())
    planning = passtimes.planning(options.planning, time.time())
    publisher = Publisher(options.port)
    publisher.wait_for_subscriptions()
    for message in passtimes.names(time.time()):
        publisher.publish(message, 0.001)
    for group in passtimes.groups():
        publisher.publish(passtimes.message(group, time.time()), len(group) / (20 * options.rate))
        time.sleep(max(0.0, publisher.due - time.monotonic()))
    print("all passtimes sent", flush=True)
    unsent: Iterator[tuple[Message, float]] = iter(())
    next_planning = float("inf")
    while True:
        for group in passtimes.groups():
            publisher.publish(passtimes.message(group, time.time()), len(group) / options.rate)
            while time.monotonic() < publisher.due:
                if publisher.wait():
                    if not sys.stdin.readline():
                        return
                    unsent, next_planning = iter(planning), 0.0
            if time.monotonic() > next_planning:
                planned = next(unsent, None)
                if planned is None:
                    next_planning = float("inf")
                    print("planning sent", flush=True)
                else:
                    next_planning = time.monotonic() + planned[1]
                    publisher.publish(planned[0], 0.0)


if __name__ == "__main__":
    main()
