"""A KV78turbo feed of the world: two operators with delays, cancellations, moved stops, messages and planning.

Published through the ZeroMQ of the world. ``Model`` is the slow, obvious reading of what a process of the program has
received: the newest row of each passtime, and nothing else.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from math import inf
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tests import feed as rows
from tests.simulation.gateway import ZONE
from tests.simulation.zeromq import Frames, PublisherSocket

if TYPE_CHECKING:
    from tests.simulation.world import World

ADDRESS = "tcp://10.0.2.1:7817"
CYCLE = 30.0
"""Seconds in which all rows are repeated."""
STALE = 300.0
"""Seconds after which the departures of an operator that is silent are hidden."""
AHEAD, BEHIND = 3600.0, 900.0
"""Seconds that a journey is published before its start, and after it."""
SNAPSHOT_SECONDS = 130.0
"""The age of the latest snapshot of a process that is killed, at most: one may have met a full disk."""
HEADWAY = 900
LEG = 150
OPERATORS = ("LIN", "KUST")
GTFS_LINE = "B021"
"""A line that only GTFS has, of an operator that is not in the feed."""
LINES = {"L001": "LIN", "L002": "LIN", "K011": "KUST", "K012": "KUST", GTFS_LINE: "BUUR"}
LIVE_LINES = tuple(line for line in LINES if line != GTFS_LINE)
LEVELS = {line: f"9{n}" for n, line in enumerate(LINES)}
STOPS = [f"3000{n:04}" for n in range(1, 11)]
ROUTES = {line: [STOPS[(3 * n + 2 * i) % len(STOPS)] for i in range(4)] for n, line in enumerate(LINES)}
NAMES = {code: f"Halte {code[-2:]}" for code in STOPS}
DESTINATIONS = {line: f"Eindpunt {line}" for line in LINES}
GTFS_DESTINATIONS = {line: f"Halte achter {line}" for line in LINES}


def starts(line: str) -> Iterator[tuple[int, int]]:
    """Yield the number and the start, in seconds, of each journey of a line on an operating date."""
    return enumerate(range(5 * 3600 + 180 * list(LINES).index(line), 29 * 3600, HEADWAY), 1001)


@lru_cache(maxsize=100_000)
def moments(day: date, seconds: int) -> tuple[float, float]:
    """Return the earliest and the latest moment that a time on an operating date can mean."""
    local = datetime(day.year, day.month, day.day) + timedelta(seconds=seconds)  # the zone follows
    first, second = (local.replace(tzinfo=ZONE, fold=fold).timestamp() for fold in (0, 1))
    return min(first, second), max(first, second)


def clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


@dataclass(frozen=True, slots=True)
class Row:
    """A passtime of KV8. at: when it was true, in whole seconds."""

    owner: str
    day: date
    line: str
    journey: int
    order: int
    code: str
    target: int
    expected: int
    status: str
    kind: str
    at: int

    @property
    def key(self) -> tuple[str, date, str, int, int]:
        return self.owner, self.day, self.line, self.journey, self.order

    def fields(self) -> dict[str, str | None]:
        return {
            "DataOwnerCode": self.owner, "OperationDate": str(self.day), "LinePlanningNumber": self.line,
            "JourneyNumber": str(self.journey), "UserStopOrderNumber": str(self.order),
            "UserStopCode": f"u{self.order}{self.line}", "TimingPointCode": self.code,
            "LocalServiceLevelCode": LEVELS[self.line],
            "TargetArrivalTime": clock(self.target), "TargetDepartureTime": clock(self.target),
            "ExpectedArrivalTime": clock(self.expected), "ExpectedDepartureTime": clock(self.expected),
            "TripStopStatus": self.status, "JourneyStopType": self.kind, "DestinationCode": f"D{self.line}",
            "LastUpdateTimeStamp": datetime.fromtimestamp(self.at, ZONE).isoformat(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Planned:
    """A departure of a timetable. source: kv7 or gtfs."""

    source: str
    day: date
    line: str
    journey: int
    order: int
    code: str
    target: int

    @property
    def key(self) -> tuple[str, date, str, int, int]:
        """The key of its row, if the feed sends one."""
        return LINES[self.line], self.day, self.line, self.journey, self.order

    @property
    def is_last(self) -> bool:
        """Whether the journey only arrives."""
        return self.order == len(ROUTES[self.line]) - 1


@dataclass(frozen=True, slots=True)
class Timetable:
    """A part of KV7: the journeys of a line, or with days the operating dates on which it runs."""

    line: str
    days: tuple[date, ...] = ()


@dataclass(slots=True)
class Journey:
    """A journey under way or soon to be."""

    owner: str
    line: str
    day: date
    number: int
    start: int
    calls: dict[int, Row] = field(default_factory=dict)
    """The rows that are still repeated, by order."""


@dataclass(frozen=True, slots=True)
class Message:
    """A general message of a stop, or its deletion."""

    number: str
    code: str
    text: str
    at: int
    is_deleted: bool = False
    ends: float = inf
    """When it is no longer shown, without a deletion."""


@dataclass(slots=True)
class Model:
    """What a process has received: rows by key, and when each was received; messages; operators."""

    rows: dict[tuple[str, date, str, int, int], Row] = field(default_factory=dict)
    heard: dict[tuple[str, date, str, int, int], float] = field(default_factory=dict)
    repeats: Counter[str] = field(default_factory=Counter)
    """The number of repetitions of each line that were received, each with all of its rows."""
    heard_in: dict[tuple[str, date, str, int, int], int] = field(default_factory=dict)
    """The number of the repetition of its line in which each row was received."""
    changed: dict[str, float] = field(default_factory=dict)
    """When the departures of a stop have changed."""
    by_time: dict[tuple[str, float], dict[tuple[str, date, str, int, int], None]] = field(default_factory=dict)
    """The keys of the rows of a line, by its public number, at each moment that their planned time may mean."""
    operators: dict[str, float] = field(default_factory=dict)
    messages: dict[str, Message] = field(default_factory=dict)
    gone_messages: dict[str, Message] = field(default_factory=dict)
    planned: dict[str, list[tuple[float, Planned]]] = field(default_factory=dict)
    """The departures of the timetables by stop, in order, each with the first moment that its time may mean."""
    planned_at: dict[tuple[str, str, float], list[Planned]] = field(default_factory=dict)
    """The same by stop, public number and moment."""
    timetables: dict[tuple[str, str], float] = field(default_factory=dict)
    """When those of a source and line were received, as far as the process still has them for sure."""
    _parts: dict[str, set[bool]] = field(default_factory=dict)
    """Which parts of KV7 were received of each line: journeys (False), days (True)."""
    _days: dict[str, tuple[date, ...]] = field(default_factory=dict)
    _repeated_at: dict[str, float] = field(default_factory=dict)
    _known: set[object] = field(default_factory=set)
    last: float = -1e9
    first: float | None = None
    unsettled_until: float = -1e9
    """Until when the process may know less, since it was killed, or a message was lost."""
    killed_at: float = -1e9
    """When a process was last killed, and lost what it had received since its last snapshot."""

    def receive(self, content: list[Any], now: float, sent_at: float) -> None:
        self.last = now
        journeys = {(item.line, item.day, item.journey): None for item in content if isinstance(item, Row)}
        if len(journeys) > 1 and sent_at > self._repeated_at.get(content[0].line, 0.0):
            self._repeated_at[content[0].line] = sent_at
            self.repeats[content[0].line] += 1
        self.first = now if self.first is None else self.first
        for item in content:
            if isinstance(item, Row):
                self.hear(item.owner, now)
                stored = self.rows.get(item.key)
                if stored is not None and item.at < stored.at:
                    continue
                if stored is not None and self.may_be_lost(item.key):
                    # The process has now what it had lost: none, or an older one, at whichever stop.
                    self.changed.update(dict.fromkeys(STOPS, now))
                self.heard[item.key] = now
                self.heard_in[item.key] = self.repeats[item.line]
                if stored != item:
                    if stored is not None:
                        self.changed[stored.code] = now
                    for moment in moments(item.day, item.target):
                        self.by_time.setdefault((item.line[-2:], moment), {})[item.key] = None
                    self.rows[item.key] = item
                    self.changed[item.code] = now
            elif isinstance(item, Message):
                self.hear("LIN", now)
                gone = self.gone_messages.get(item.number)
                current = self.messages.get(item.number)
                if item.is_deleted:
                    if current is None or current.at <= item.at:
                        self.messages.pop(item.number, None)
                        self.gone_messages[item.number] = item
                        self.changed[item.code] = now
                elif (gone is None or gone.at < item.at) and (current is None or current.at <= item.at):
                    self.messages[item.number] = item
                    self.changed[item.code] = now
            elif isinstance(item, Timetable):
                parts = self._parts.setdefault(item.line, set())
                parts.add(bool(item.days))
                if item.days:
                    self._days[item.line] = item.days
                if len(parts) == 2:
                    self.plan("kv7", item.line, self._days[item.line], now)

    def hear(self, owner: str, now: float) -> None:
        """Note data of an operator; after a silence, its departures are shown again."""
        last = self.operators.get(owner, now)
        silence = now - last + (SNAPSHOT_SECONDS if last < self.killed_at else 0.0)
        self.operators[owner] = now
        if silence > STALE - 30:
            self.changed.update((row.code, now) for row in self.rows.values() if row.owner == owner)

    def plan(self, source: str, line: str, days: Iterable[date], now: float) -> None:
        """Add the timetable of a line."""
        self.timetables.setdefault((source, line), now)
        if (source, line, *days) in self._known:
            return
        self._known.add((source, line, *days))
        for day in days:
            for number, start in starts(line):
                for order, code in enumerate(ROUTES[line]):
                    planned = Planned(source, day, line, number, order, code, start + LEG * order)
                    if planned in self._known:
                        continue  # it is of the next file, too
                    self._known.add(planned)
                    both = moments(day, planned.target)
                    self.planned.setdefault(code, []).append((both[0], planned))
                    for moment in {*both}:
                        self.planned_at.setdefault((code, line[-2:], moment), []).append(planned)
        for departures in self.planned.values():
            departures.sort(key=lambda departure: departure[0])

    def is_sure(self, planned: Planned, now: float) -> bool:
        """Return whether the process has a planned departure.

        Of GTFS it does not take the lines that are missing in KV7, if that has half of an operator's lines. Once they
        arrive, it has them from KV7.
        """
        owner = LINES[planned.line]
        is_missing = now - self.timetables.get(("kv7", planned.line), now) <= 5
        if planned.source == "gtfs" and is_missing and any(LINES[line] == owner for line in self._parts):
            return False
        return now - self.timetables.get((planned.source, planned.line), now) > 5

    def is_named(self, now: float) -> bool:
        """Return whether the process has the names of KV7."""
        return all(now - self.timetables.get(("kv7", line), now) > 5 for line in LIVE_LINES)

    def may_be_lost(self, key: tuple[str, date, str, int, int]) -> bool:
        """Return whether the process may have lost a row when it was killed."""
        return self.heard[key] < self.killed_at

    def torn(self, paths: list[Path]) -> None:
        """Files of the process were damaged."""
        if any(path.name == "planning" for path in paths):
            for key in [key for key in self.timetables if key[0] == "gtfs"]:
                del self.timetables[key]
        if any(path.name == "snapshot" for path in paths):
            self.timetables = {key: at for key, at in self.timetables.items() if key[0] == "gtfs"}
            for parts in self._parts.values():
                parts.clear()

    def killed(self, now: float) -> None:
        """The process has lost what it had received since its last snapshot; the feed repeats most of it."""
        self.unsettled_until = now + 150
        self.killed_at = now
        for key, received in list(self.timetables.items()):
            if key[0] == "kv7" and received > now - SNAPSHOT_SECONDS:
                del self.timetables[key]
        for line, parts in self._parts.items():
            if ("kv7", line) not in self.timetables:
                parts.clear()

    def forget(self, now: float) -> None:
        """Drop what is long over."""
        for key, row in list(self.rows.items()):
            if moments(row.day, max(row.expected, row.target))[1] < now - 1800:
                del self.rows[key]
                self.heard.pop(key, None)
                self.heard_in.pop(key, None)
                for moment in moments(row.day, row.target):
                    self.by_time[row.line[-2:], moment].pop(key, None)


class FeedWorld:
    """The publisher, and what it knows."""

    def __init__(self, world: World, random: Random) -> None:
        self.world = world
        self.random = random
        self.publisher: PublisherSocket | None = None
        self.faults: list[str] = []
        """What is wrong with it now: see faults.FEED_FAULTS."""
        self.healthy_since = world.scheduler.now
        self.journeys: dict[tuple[date, str, int], Journey] = {}
        self.published_at = self.busy_since = world.scheduler.now
        """When it has last published rows, and since when it does so again and again: all journeys may be over."""
        self.messages: dict[str, Message] = {}
        self._n_messages = 0
        self.ends = Random(f"{world.seed}/ends")
        self.sent: dict[bytes, tuple[bytes, list[Any], float]] = {}
        """The latest messages: their envelope, what they say, and when they were sent."""
        self.n_rows = 0
        self.open()
        after = world.scheduler.after
        after(0.5, self._cycle)
        after(1.0, self._change)
        after(10.0, self._heartbeat)
        after(3600.0 * 12, lambda: None)

    @property
    def now(self) -> float:
        return self.world.scheduler.now

    def open(self) -> None:
        self.publisher = publisher = PublisherSocket(self.world.zeromq)
        publisher.bind(ADDRESS)

    def close(self) -> None:
        if self.publisher is not None:
            self.publisher.close()
            self.publisher = None

    def die(self) -> None:
        """Lose the subscribers without a word."""
        if self.publisher is not None:
            self.publisher.forget()

    # The day.

    def _cycle(self) -> None:
        now = self.now
        self.world.scheduler.after(CYCLE, self._cycle)
        self._plan(now)
        for n, line in enumerate(LIVE_LINES):
            self.world.scheduler.after(n * CYCLE / len(LIVE_LINES), self._repeat, line)
        self.sent = dict(list(self.sent.items())[-400:])

    def _plan(self, now: float) -> None:
        """Begin the journeys that are now published, and forget those that are over."""
        today = datetime.fromtimestamp(now, ZONE).date()
        for day in (today - timedelta(1), today, today + timedelta(1)):
            for line in LIVE_LINES:
                for number, start in starts(line):
                    key = day, line, number
                    begins = moments(day, start)[0]
                    if key in self.journeys:
                        if begins < now - BEHIND and not self.journeys[key].calls:
                            del self.journeys[key]
                    elif now - 60 < begins < now + AHEAD:
                        self.journeys[key] = self._begin(LINES[line], line, day, number, start)

    def _begin(self, owner: str, line: str, day: date, number: int, start: int) -> Journey:
        journey = Journey(owner, line, day, number, start)
        route = ROUTES[line]
        for order, code in enumerate(route):
            target = start + LEG * order
            kind = "FIRST" if order == 0 else "LAST" if order == len(route) - 1 else "INTERMEDIATE"
            journey.calls[order] = Row(
                owner, day, line, number, order, code, target, target, "PLANNED", kind, int(self.now)
            )
        return journey

    def _repeat(self, line: str) -> None:
        """Publish all rows of a line, also those that have passed since."""
        now = self.now
        content: list[Any] = []
        for journey in self.journeys.values():
            if journey.line != line:
                continue
            for order, row in list(journey.calls.items()):
                current = row
                if row.at >= int(now) - 1:
                    pass  # two versions of one second have no order
                elif moments(row.day, row.expected)[0] < now - 5:
                    current = replace(row, status="CANCEL" if row.status == "CANCEL" else "PASSED", at=int(now))
                    del journey.calls[order]
                elif row.status == "PLANNED" and moments(row.day, journey.start)[0] < now + 1200:
                    current = journey.calls[order] = replace(row, status="DRIVING", at=int(now))
                content.append(current)
        self.publish(LINES[line], content)

    def _change(self) -> None:
        """Something happens on the road."""
        random = self.random
        self.world.scheduler.after(random.uniform(2, 12), self._change)
        choice = random.random()
        if choice < 0.25:
            self._change_message()
            return
        candidates = [journey for journey in self.journeys.values() if journey.calls]
        if not candidates:
            return
        journey = random.choice(candidates)
        at = int(self.now)
        if any(row.at >= at - 1 for row in journey.calls.values()):
            return
        if choice < 0.3:
            journey.calls.clear()  # it is not repeated any more, and nobody says why
            return
        if choice < 0.8:
            change = random.choice((-60, 20, 60, 120, 240))
            for order, row in journey.calls.items():
                delay = min(max(row.expected - row.target + change, -60), 900)
                status = row.status if row.status == "CANCEL" else "DRIVING"
                journey.calls[order] = replace(row, expected=row.target + delay, status=status, at=at)
        elif choice < 0.9:
            is_cancelled = any(row.status == "CANCEL" for row in journey.calls.values())
            for order, row in journey.calls.items():
                journey.calls[order] = replace(row, status="DRIVING" if is_cancelled else "CANCEL", at=at)
        else:
            order = random.choice(list(journey.calls))
            journey.calls[order] = replace(journey.calls[order], code=random.choice(STOPS), at=at)
        if random.random() < 0.7:
            self.publish(journey.owner, list(journey.calls.values()))

    def _change_message(self) -> None:
        random, at = self.random, int(self.now)
        if self.messages and random.random() < 0.5:
            message = random.choice(list(self.messages.values()))
            if message.at >= at - 1:
                return
            del self.messages[message.number]
            message = replace(message, is_deleted=True, at=at)
        else:
            self._n_messages += 1
            number = str(self._n_messages)
            ends = at + self.ends.randrange(15, 150) if self.ends.random() < 0.5 else inf
            message = Message(number, random.choice(STOPS), f"Halte vervalt, nr. {number} <é>", at, ends=ends)
            self.messages[number] = message
        self.publish_message(message)

    def _heartbeat(self) -> None:
        self.world.scheduler.after(10.0, self._heartbeat)
        if "silent" not in self.faults and self.publisher is not None:
            self.publisher.send_multipart([b"/GOVI/KV8heartbeat"])
            self.publisher.send_multipart([b"/GOVI/KV7heartbeat"])

    # Publishing.

    def publish(self, owner: str, content: list[Any]) -> None:
        if not content or owner in self.faults:
            return
        if self.now - self.published_at > 2 * CYCLE:
            self.busy_since = self.now
        self.published_at = self.now
        self.n_rows += len(content)
        text = rows.passtimes(*[row.fields() for row in content], published=self._stamp(self.now))
        self.send(f"/GOVI/KV8passtimes/{owner}", text, content)

    def publish_message(self, message: Message) -> None:
        key: dict[str, str | None] = {"MessageCodeNumber": message.number, "TimingPointCode": message.code}
        stamp = self._stamp(message.at)
        if message.is_deleted:
            text = rows.general_message_delete(key, published=stamp)
        else:
            start = self._stamp(self.now - 600)
            fields = {"MessageContent": message.text, "MessageTimeStamp": stamp, "MessageStartTime": start}
            if message.ends < inf:
                fields["MessageEndTime"] = self._stamp(message.ends)
            text = rows.general_message(key | fields, published=stamp)
        if "LIN" not in self.faults:
            self.send("/GOVI/KV8generalmessages/LIN", text, [message])

    def publish_planning(self) -> None:
        """Publish the planning and the calendar of these days, as at night."""
        today = datetime.fromtimestamp(self.now, ZONE).date()
        days = tuple(today + timedelta(n) for n in (-1, 0, 1))
        for line in LIVE_LINES:
            owner = LINES[line]
            planned: list[rows.Row] = []
            for number, start in starts(line):
                for order, _ in enumerate(ROUTES[line]):
                    time = clock(start + LEG * order)
                    kind = "FIRST" if order == 0 else "LAST" if order == len(ROUTES[line]) - 1 else "INTERMEDIATE"
                    planned.append({
                        "DataOwnerCode": owner, "LinePlanningNumber": line, "JourneyNumber": str(number),
                        "LocalServiceLevelCode": LEVELS[line], "UserStopCode": f"u{order}{line}",
                        "UserStopOrderNumber": str(order), "DestinationCode": f"D{line}", "TargetArrivalTime": time,
                        "TargetDepartureTime": time, "JourneyStopType": kind,
                    })  # fmt: skip
            text = rows.planning(
                *planned,
                lines=[{"DataOwnerCode": owner, "LinePlanningNumber": line, "LinePublicNumber": line[-2:]}],
                destinations=[
                    {"DataOwnerCode": owner, "DestinationCode": f"D{line}"}
                    | {f"DestinationName{size}": DESTINATIONS[line] for size in (50, 30, 24, 19, 16)}
                ],
                points=[{"TimingPointCode": code, "TimingPointName": f"Dorp, {NAMES[code]}"} for code in STOPS],
                user_stops=[
                    {"DataOwnerCode": owner, "UserStopCode": f"u{order}{line}", "TimingPointCode": code}
                    for order, code in enumerate(ROUTES[line])
                ],
                published=self._stamp(self.now),
            )
            level: rows.Row = {"DataOwnerCode": owner, "LocalServiceLevelCode": LEVELS[line]}
            self.send(f"/GOVI/KV7planning/{owner}", text, [Timetable(line)])
            text = rows.calendar(*map(str, days), level=level, published=self._stamp(self.now))
            self.send(f"/GOVI/KV7calendar/{owner}", text, [Timetable(line, days)])

    def _stamp(self, moment: float) -> str:
        return datetime.fromtimestamp(int(moment), ZONE).isoformat()

    def send(self, envelope: str, text: bytes, content: list[Any]) -> None:
        if self.publisher is None or "silent" in self.faults or "heartbeats" in self.faults:
            return
        data = gzip.compress(text, 1, mtime=0)
        self.sent[data] = envelope.encode(), content, self.now
        self.publisher.send_multipart([envelope.encode(), data])

    def send_garbage(self) -> None:
        """Send what is no message."""
        garbage: list[Frames] = [
            [b"/GOVI/KV8passtimes/LIN", b"not gzip"],
            [
                b"/GOVI/KV8passtimes/LIN",
                gzip.compress(b"\\GKV8\r\n\\TDATEDPASSTIME|DATEDPASSTIME|x\r\n\\LA|B\r\n1|2|3\r\n"),
            ],
            [b"/GOVI/KV8\xff\0", gzip.compress(b"x")],
            [b"/GOVI/KV8passtimes/LIN", b""],
            [b"/GOVI/KV7planning/LIN", gzip.compress(b"\xff\xfe" * 1000)],
        ]
        if self.publisher is not None:
            for frames in garbage:
                self.publisher.send_multipart(frames)

    def send_again(self) -> None:
        """Send what was sent in the last twenty minutes, in any order."""
        messages = list(self.sent.items())[-250:]
        for data, (envelope, _, at) in self.random.sample(messages, min(80, len(messages))):
            if self.publisher is not None and self.now - at < 1200:
                self.publisher.send_multipart([envelope, data])

    def received(self, frames: Frames) -> None:
        """A process has read a message."""
        if len(frames) > 1:
            sent = self.sent.get(frames[1])
            if sent is not None and sent[1]:
                self.world.model.receive(sent[1], self.now, sent[2])
