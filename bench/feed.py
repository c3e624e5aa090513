"""A live feed for measurements: python bench/feed.py PORT [--stops 2000] [--rate 1000] [--changed 0.5]

Publishes KV8 over ZeroMQ as the public feed does (docs/protocols.md, section 2): gzip of CTX, the 65 columns of
version 8.1.2.2, one operator per message. When a subscriber arrives, all passtimes are sent once; from then on they are
repeated for ever, in random order, so many rows per second. A repeated row is literally the row that was sent before,
or has a new expected time and LastUpdateTimeStamp, and replaces a passtime that has passed with the one two hours later.

Writes a line to standard output when all passtimes have been sent.
"""

import argparse
import gzip
import random
import time
from array import array
from collections.abc import Sequence
from datetime import datetime

import zmq

from govi_server.departures.times import local_timestamp, write_time
from govi_server.runtime.clock import LOCAL_ZONE

PER_STOP = 20
"""Passtimes of a stop in two hours."""

HEADWAY_SECONDS = 360
"""Between two passtimes of a stop."""

STOPS_PER_LINE = 20

OPERATORS = 10

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
_COLUMNS = {label: i for i, label in enumerate(LABELS.split("|"))}


def code(stop: int) -> str:
    """Return the TimingPointCode of stop n."""
    return f"{40000000 + stop}"


def operator(stop: int) -> int:
    """Return the number of the operator of a stop's line."""
    return stop // STOPS_PER_LINE % OPERATORS


class Feed:
    """Creates the messages. Passtime n belongs to stop n modulo the number of stops."""

    def __init__(self, stops: int, changed: float, now: float, seed: int = 17) -> None:
        self.stops, self.changed, self.start = stops, changed, now
        self.count = stops * PER_STOP
        self._rng = random.Random(seed)
        local = datetime.fromtimestamp(now, LOCAL_ZONE)
        self._date = local.date().isoformat()
        self._second = local.hour * 3600 + local.minute * 60 + local.second
        self._journeys = array("i", (n // stops for n in range(self.count)))
        self._delays = array("i", [0]) * self.count  # in seconds
        self._updated = array("d", [now]) * self.count

    def _planned(self, n: int) -> int:
        """Return the seconds from the start to the planned departure of passtime n."""
        order = n % self.stops % STOPS_PER_LINE
        return 60 + order * 15 + self._journeys[n] * HEADWAY_SECONDS

    def _change(self, n: int, now: float) -> None:
        self._updated[n] = now
        self._delays[n] = max(0, self._delays[n] + self._rng.choice((-30, -15, 15, 30, 60)))

    def row(self, n: int, now: float) -> str:
        """Return the next row of passtime n: a changed one, or the same one again."""
        if self.start + self._planned(n) + self._delays[n] < now:
            self._journeys[n] += PER_STOP
            self._delays[n] = 0
            self._updated[n] = now
        elif self._rng.random() < self.changed:
            self._change(n, now)
        stop = n % self.stops
        planned = self._second + self._planned(n)
        target, expected = write_time(planned), write_time(planned + self._delays[n])
        fields = RECORD.split("|")
        for label, value in (
            ("DataOwnerCode", f"OP{operator(stop)}"),
            ("OperationDate", self._date),
            ("LinePlanningNumber", f"{1000 + stop // STOPS_PER_LINE}"),
            ("JourneyNumber", f"{1 + self._journeys[n]}"),
            ("UserStopOrderNumber", f"{1 + stop % STOPS_PER_LINE}"),
            ("UserStopCode", code(stop)),
            ("LastUpdateTimeStamp", local_timestamp(self._updated[n])),
            ("DestinationCode", f"D{stop // STOPS_PER_LINE}"),
            ("TimingPointCode", code(stop)),
            ("TargetArrivalTime", target),
            ("TargetDepartureTime", target),
            ("ExpectedArrivalTime", expected),
            ("ExpectedDepartureTime", expected),
        ):
            fields[_COLUMNS[label]] = value
        return "|".join(fields)

    def message(self, passtimes: Sequence[int], now: float) -> bytes:
        """Return the next message with these passtimes."""
        head = f"\\GKV8turbo_passtimes|KV8turbo_passtimes|bench|||UTF-8|0.1|{local_timestamp(now)}|\ufeff"
        lines = [head, "\\TDATEDPASSTIME|DATEDPASSTIME|start object", f"\\L{LABELS}"]
        lines += [self.row(n, now) for n in passtimes]
        return gzip.compress("\r\n".join([*lines, ""]).encode(), 6)

    def groups(self) -> list[list[int]]:
        """Return all passtimes in random order, in groups of 25 to 100 of one operator."""
        shuffled = list(range(self.count))
        self._rng.shuffle(shuffled)
        shuffled.sort(key=lambda n: operator(n % self.stops))
        groups = []
        while shuffled:
            size = self._rng.randint(25, 100)
            first = operator(shuffled[-1] % self.stops)
            group = [n for n in shuffled[-size:] if operator(n % self.stops) == first]
            del shuffled[-len(group) :]
            groups.append(group)
        self._rng.shuffle(groups)
        return groups


def publish(port: int, feed: Feed, rate: int) -> None:
    """Publish for ever."""
    publisher = zmq.Context.instance().socket(zmq.XPUB)
    publisher.set_hwm(100_000)
    publisher.bind(f"tcp://127.0.0.1:{port}")
    publisher.recv()
    time.sleep(1)  # the server subscribes to KV7, KV8 and general messages
    changed, feed.changed = feed.changed, 0.0
    for is_first in (True, False):
        due = time.monotonic()
        while True:
            for group in feed.groups():
                message = feed.message(group, time.time())
                publisher.send_multipart(
                    [f"/GOVI/KV8passtimes/OP{operator(group[0] % feed.stops)}".encode(), message]
                )
                due += len(group) / (20 * rate if is_first else rate)
                time.sleep(max(0.0, due - time.monotonic()))
            if is_first:
                print("all passtimes sent", flush=True)
                feed.changed = changed
                break


def main() -> None:
    """Publish until terminated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--stops", type=int, default=2000)
    parser.add_argument("--rate", type=int, default=1000, help="rows per second")
    parser.add_argument("--changed", type=float, default=0.5, help="share of the rows that are changed")
    options = parser.parse_args()
    publish(options.port, Feed(options.stops, options.changed, time.time()), options.rate)


if __name__ == "__main__":
    main()
