"""Tests of all tables that a sender of the feed can fill: their limits, and what is stored beyond them."""

import gc
import gzip
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.kv78turbo import ctx, operators, passtime_index
from govi_server.kv78turbo import feed as feed_module
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.kv8_columns import COLUMNS
from govi_server.kv78turbo.kv8_passtimes import Passtimes
from govi_server.kv78turbo.message_store import MAX_STOP_MESSAGES
from govi_server.kv78turbo.passtime_index import (
    OVERHEAD_BYTES,
    StoredPasstime,
)
from govi_server.operations.snapshot import records_of, restore
from govi_server.settings import PasstimeSettings, PlanningSettings
from tests import feed as kv
from tests.client import NOW
from tests.doubles import ingest, live_feed

CODE = "30000001"
ROWS_PER_MESSAGE = 100
LIMIT = 100
"""Of the tables whose limit is a setting, or a constant that is lowered here."""


def passtimes(*columns: str) -> Callable[[Sequence[str]], bytes]:
    """Return a function that returns a message of passtimes, whose columns are names."""
    return lambda names: kv.passtimes(
        *({"JourneyNumber": f"j{name}", **dict.fromkeys(columns, name)} for name in names)
    )


def named(table: str, column: str) -> Callable[[Sequence[str]], bytes]:
    """Return a function that returns a message of a table, whose column is a name."""
    return lambda names: kv.message("KV7turbo_planning", kv.table(table, [{column: name} for name in names]))


def planned(*columns: str) -> Callable[[Sequence[str]], bytes]:
    """Return a function that returns a message of planned passtimes of each name."""
    return lambda names: kv.message(
        "KV7turbo_planning",
        kv.table(
            "LOCALSERVICEGROUPPASSTIME",
            [{**dict.fromkeys(columns, name), "JourneyStopType": "FIRST"} for name in names],
        ),
    )


def subscriptions(names: Sequence[str]) -> bytes:
    """Return a message of several subscriptions."""
    row = kv.table("DATEDPASSTIME", [{}])
    return b"".join(ctx.write("KV8turbo_passtimes", name, kv.PUBLISHED, [row]) for name in names)


class Table(NamedTuple):
    """A table of the feed."""

    name: str
    message: Callable[[Sequence[str]], bytes]
    """Returns a message with entries of these names, which are numbers."""
    keys: Callable[[Feed], Iterable[object]]
    """Returns the names of the stored entries."""
    limit: int = LIMIT


@cache
def payload(table: Table, names: range) -> bytes:
    """Return a compressed message with these entries of a table; most tests send the same ones."""
    return gzip.compress(table.message([str(name) for name in names]), 1)


def journeys(feed: Feed) -> list[str]:
    return [key.split(b"|")[3].decode().removeprefix("j") for key in feed.passtimes.journeys]


TABLES = (
    Table("passtimes", passtimes("TimingPointCode"), journeys),
    Table("passtimes at a stop", passtimes(), journeys),
    Table(
        "passtimes of a journey",
        lambda names: kv.passtimes(*({"UserStopOrderNumber": name, "TimingPointCode": name} for name in names)),
        lambda feed: [key.rpartition(b"|")[2].decode() for keys in feed.passtimes.journeys.values() for key in keys],
    ),
    Table("stops", passtimes("TimingPointCode"), lambda feed: feed.passtimes.stops),
    Table(
        "lines",
        passtimes("LinePlanningNumber"),
        lambda feed: [line for _, line, _ in feed.passtimes.lines],
        2 * LIMIT,
    ),
    Table("operators", passtimes("DataOwnerCode"), lambda feed: feed.passtimes.last_heard),
    Table("updates of operators", passtimes("DataOwnerCode"), lambda feed: feed.passtimes.last_update),
    Table("subscriptions", subscriptions, lambda feed: feed.subscriptions),
    Table(
        "messages",
        lambda names: kv.general_message(*({"MessageCodeNumber": name, "TimingPointCode": name} for name in names)),
        lambda feed: [key.split("_")[2] for stop in feed.passtimes.stops.values() for key in stop.messages or ()],
    ),
    Table(
        "messages of a stop",
        lambda names: kv.general_message(*({"MessageCodeNumber": name} for name in names)),
        lambda feed: [key.split("_")[2] for stop in feed.passtimes.stops.values() for key in stop.messages or ()],
        MAX_STOP_MESSAGES,
    ),
    Table("named lines", named("LINE", "LinePlanningNumber"), lambda feed: [key[1] for key in feed.timetable.lines]),
    Table(
        "destinations",
        named("DESTINATION", "DestinationCode"),
        lambda feed: [key[1] for key in feed.timetable.destinations],
    ),
    Table("timing points", named("TIMINGPOINT", "TimingPointCode"), lambda feed: feed.timetable.timing_points),
    Table("stop areas", named("STOPAREA", "StopAreaCode"), lambda feed: feed.timetable.stop_areas),
    Table(
        "stop areas of timing points",
        lambda names: kv.message(
            "KV7turbo_planning",
            kv.table("TIMINGPOINT", [{"TimingPointCode": name, "StopAreaCode": name} for name in names]),
        ),
        lambda feed: feed.timetable.points_of_area,
    ),
    Table(
        "user stops",
        lambda names: kv.message(
            "KV7turbo_planning",
            kv.table("USERTIMINGPOINT", [{"UserStopCode": name, "TimingPointCode": name} for name in names]),
        ),
        lambda feed: feed.timetable._user_stops,
    ),
    Table(
        "user stops of a timing point",
        named("USERTIMINGPOINT", "UserStopCode"),
        lambda feed: [stop.partition(b"|")[2].decode() for stop in feed.timetable._code_of],
        100,
    ),
    Table("directions", planned("LinePlanningNumber"), lambda feed: [key[1] for key in feed.timetable.directions]),
    Table(
        "planned passtimes",
        planned("LinePlanningNumber", "UserStopCode"),
        lambda feed: [stop.partition(b"|")[2].decode() for stop in feed.timetable._groups_of_stop],
    ),
    Table(
        "service levels",
        named("LOCALSERVICEGROUPVALIDITY", "LocalServiceLevelCode"),
        lambda feed: [level.partition(b"|")[2].decode() for level in feed.timetable._dates],
    ),
)


class FullTablesTests(SynchronousTestCase):
    """Invented entries beyond the limit of each table, and real ones."""

    def setUp(self) -> None:
        self.patch(passtime_index, "MAX_STOP_PASSTIMES", LIMIT)
        self.patch(passtime_index, "MAX_JOURNEY_PASSTIMES", LIMIT)
        self.patch(operators, "MAX_OPERATORS", LIMIT)
        self.patch(feed_module, "MAX_SUBSCRIPTIONS", LIMIT)
        self.clock = Clock()
        self.clock.advance(NOW)
        self.feed = self.make_feed()

    def make_feed(self) -> Feed:
        limits = PasstimeSettings(passes=2 * LIMIT, bytes=LIMIT * 3000, stops=LIMIT, messages=LIMIT)
        if self.table.name == "passtimes":
            limits = PasstimeSettings(passes=LIMIT)
        return live_feed(self.clock, passtimes=limits, timetable=PlanningSettings(planned=LIMIT, names=LIMIT))

    table = TABLES[0]

    def each(self) -> Iterable[Table]:
        """Yield each table, with an empty feed."""
        for self.table in TABLES:
            self.setUp()
            yield self.table

    def send(self, names: range, seconds: float = 0.0) -> set[str]:
        """Send entries; return their names. seconds: how long that takes."""
        for begin in range(0, len(names), ROWS_PER_MESSAGE):
            part = names[begin : begin + ROWS_PER_MESSAGE]
            self.assertIsNone(self.feed.received("/GOVI/KV8passtimes/LIN", payload(self.table, part)))
            self.clock.advance(seconds * len(part) / len(names))
        return set(map(str, names))

    def flood(self, seconds: float = 2.0) -> None:
        """Send three times as many invented entries as the table may have."""
        self.send(range(10_000, 10_000 + 3 * self.table.limit), seconds)
        self.assertLessEqual(len(self.keys()), self.table.limit, self.table.name)

    def keys(self) -> set[object]:
        """Return the names of the entries."""
        return set(self.table.keys(self.feed))

    def sweep(self) -> None:
        for _ in self.feed.passtimes.sweep():
            pass
        for _ in self.feed.timetable.sweep():
            pass

    def test_real_entries_after_invented_ones(self) -> None:
        """A full table stores new entries at once."""
        for table in self.each():
            self.flood()
            self.assertLessEqual(self.send(range(10)), self.keys(), table.name)

    def test_real_entries_after_repeated_invented_ones(self) -> None:
        """A full table stores new entries even if all others were repeated."""
        for table in self.each():
            for _ in range(3):
                self.flood()
                self.clock.advance(30)
            self.assertLessEqual(self.send(range(5)), self.keys(), table.name)

    def test_real_entries_before_invented_ones(self) -> None:
        """Invented entries do not evict those that were known before."""
        for table in self.each():
            real = self.send(range(10))
            self.clock.advance(2)
            self.flood()
            self.assertLessEqual(real, self.keys(), table.name)

    def test_repeated_real_entries_before_slow_flood(self) -> None:
        """Real entries, which are repeated, outlast a flood of any duration."""
        for table in self.each():
            real = self.send(range(10))
            self.clock.advance(30)
            self.send(range(10))
            self.flood(seconds=600)
            self.assertLessEqual(real, self.keys(), table.name)

    def test_restart(self) -> None:
        """After a restart, a full table stores new entries."""
        for table in self.each():
            for _ in range(2):
                self.flood()
                self.clock.advance(30)
            records = list(records_of({}, self.feed))
            self.feed = self.make_feed()
            for record in records:
                for _ in restore(record, {}, self.feed, self.clock.seconds(), lambda kind: None):
                    pass
            self.assertLessEqual(self.send(range(5)), self.keys(), table.name)

    def test_unused_entries_are_removed(self) -> None:
        """Entries that are not received any more are removed."""
        for table in self.each():
            if table.name == "subscriptions":
                continue  # swept by the feed itself
            self.flood()
            for _ in range(2):
                self.clock.advance(8 * 86400)
                self.sweep()
            self.assertEqual(self.keys(), set(), table.name)

    def test_rejections_leave_no_trace(self) -> None:
        """What is counted for each table is what is stored in it."""
        for table in self.each():
            self.flood()
            self.send(range(10))
            passtimes, timetable = self.feed.passtimes, self.feed.timetable
            stops = passtimes.stops.values()
            self.assertEqual(passtimes.n_passtimes, sum(len(stop.passtimes) for stop in stops), table.name)
            self.assertEqual(passtimes.n_passtimes, sum(map(len, passtimes.journeys.values())), table.name)
            self.assertEqual(passtimes.n_messages, sum(len(stop.messages or ()) for stop in stops), table.name)
            self.assertEqual(
                timetable.n_planned,
                sum(len(stop.by_key) for group in timetable._published.values() for stop in group.stops.values()),
                table.name,
            )


class BytesTests(SynchronousTestCase):
    """The memory of stored records."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.feed = live_feed(self.clock)

    def test_long_value_of_any_column(self) -> None:
        """A value of 60 kB in any column of any table is not stored, and costs at most its record."""
        for table, row in kv.TABLES.items():
            for column in row:
                self.setUp()
                message = kv.message("KV78turbo", kv.table(table, [{column: "x" * 60_000}, {}]))
                ingest(self.feed, message)
                self.assertLess(self.stored_bytes(), 30_000, (table, column))
        known = {column.name for column in COLUMNS if not column.is_required}
        for column in known:
            self.setUp()
            ingest(self.feed, kv.passtimes({"LinePublicNumber": "4", "DestinationName": "x", column: "x" * 60_000}))
            self.assertEqual(self.feed.passtimes.n_passtimes, 1, column)

    def test_long_labels_and_envelopes(self) -> None:
        """Long labels, and long texts of a group, are not stored."""
        for message in (
            ctx.write("KV8" * 10_000, "x" * 30_000, "x" * 30_000, [kv.table("DATEDPASSTIME", [{}])]),
            kv.message("KV8turbo_passtimes", ("DATEDPASSTIME", [*kv.TABLES["DATEDPASSTIME"], "x" * 30_000], [])),
            kv.message("KV8turbo_passtimes", ("DATEDPASSTIME", [*kv.TABLES["DATEDPASSTIME"], *"x" * 10_000], [])),
        ):
            self.setUp()
            ingest(self.feed, message)
            self.assertLess(self.stored_bytes(), 60_000)

    def test_bytes_are_limited(self) -> None:
        """The limit in bytes applies to the passtimes and messages that are stored."""
        limits = PasstimeSettings(bytes=100_000, message_bytes=100_000)
        self.feed = live_feed(self.clock, passtimes=limits)
        texts = dict.fromkeys(("MessageContent", "ReasonContent", "AdviceContent"), "é" * 200)
        for n in range(100):
            ingest(
                self.feed,
                kv.passtimes({"JourneyNumber": str(n), "TimingPointCode": str(n), **texts}),
                kv.general_message({"MessageCodeNumber": str(n), "TimingPointCode": str(n), **texts}),
            )
        passtimes = self.feed.passtimes
        self.assertLessEqual(passtimes.n_bytes, 100_000)
        self.assertLessEqual(passtimes.n_message_bytes, 100_000)
        self.assertGreater(min(passtimes.n_passtimes, passtimes.n_messages), 15)
        self.assertLess(passtimes.n_passtimes, 80)
        stored = [passtime for stop in passtimes.stops.values() for passtime in stop.passtimes.values()]
        self.assertEqual(passtimes.n_bytes, sum(len(passtime.values) + OVERHEAD_BYTES for passtime in stored))

    def stored_bytes(self) -> int:
        """Return the total length of the texts and bytes that the feed refers to."""
        stack: list[object] = [
            *(vars(self.feed.passtimes), vars(self.feed.timetable), self.feed.subscriptions),
            *(self.feed.incidents.counts,),
        ]
        visited, total = set[int](), 0
        while stack:
            thing = stack.pop()
            if id(thing) in visited or isinstance(thing, type) or callable(thing):
                continue
            visited.add(id(thing))
            if isinstance(thing, str | bytes):
                total += len(thing)
            elif type(thing).__module__.startswith(("builtins", "collections", "govi_server")):
                stack.extend(gc.get_referents(thing))
                if isinstance(thing, StoredPasstime):  # not tracked by the garbage collector
                    stack += [thing.code, thing.values]
        return total


class MoveTests(SynchronousTestCase):
    """Passtimes that move to a new stop while the table of stops is full."""

    def test_move_from_a_stop_that_is_evicted(self) -> None:
        """A passtime moves although its stop is evicted to make room for the other one."""
        clock = Clock()
        clock.advance(NOW)
        feed = live_feed(clock, passtimes=PasstimeSettings(stops=2))
        ingest(feed, kv.passtimes({"TimingPointCode": "1"}, {"TimingPointCode": "2", "JourneyNumber": "2"}))
        (key,) = feed.passtimes.stops["1"].passtimes
        saved = list(records_of({}, feed))
        ingest(feed, kv.passtimes({"TimingPointCode": "3"}))
        self.assertEqual({code: len(stop.passtimes) for code, stop in feed.passtimes.stops.items()}, {"2": 1, "3": 1})
        self.assertIn(key, feed.passtimes.stops["3"].passtimes)
        for record in saved:  # in which it is at the stop that was evicted
            for _ in restore(record, {}, feed, clock.seconds(), self.fail):
                pass
        self.assertEqual(
            sum(len(stop.passtimes) for stop in feed.passtimes.stops.values()), feed.passtimes.n_passtimes
        )


class StepTests(SynchronousTestCase):
    """The size of steps."""

    def test_steps_are_small(self) -> None:
        """However large a message is, no step handles more than some rows, or removes more than some entries."""
        for table in TABLES:
            clock = Clock()
            clock.advance(NOW)
            feed = live_feed(clock, passtimes=PasstimeSettings(passes=800, stops=400))
            rows: list[int] = []
            ingest_rows = Passtimes.ingest

            def count(passtimes: Passtimes, records: ctx.Records, reject: ctx.Reject) -> object:
                rows.append(len(records.lines))  # noqa: B023  # it is called in this round
                return ingest_rows(passtimes, records, reject)  # noqa: B023

            names = range(10_000, 11_200)
            with patch.object(Passtimes, "ingest", count):
                steps = feed._ingest_message("/GOVI/KV8passtimes/LIN", payload(table, names))
                n_steps = sum(1 for _ in steps)
            self.assertLessEqual(max(rows), ctx.STEP_LINES, table.name)
            self.assertGreater(n_steps, len(names) // ctx.STEP_LINES, table.name)

    def test_removal_in_steps(self) -> None:
        """Stops with many passtimes are evicted in several steps."""
        clock = Clock()
        clock.advance(NOW)
        feed = live_feed(clock, passtimes=PasstimeSettings(stops=2))
        for code in ("1", "2"):
            rows = ({"JourneyNumber": f"{code}-{n}", "TimingPointCode": code} for n in range(900))
            ingest(feed, kv.passtimes(*rows))
        message = kv.passtimes(*({"JourneyNumber": code, "TimingPointCode": code} for code in ("3", "4", "5")))
        removed: list[int] = [feed.passtimes.n_passtimes]
        for records in ctx.read([message], lambda kind: None):
            for _ in feed.passtimes.ingest(records, lambda kind: None):
                removed.append(feed.passtimes.n_passtimes)
        self.assertGreater(len(removed), 2)
        self.assertLessEqual(max(before - after for before, after in pairwise(removed)), 1000)

    def test_sweep_in_steps(self) -> None:
        """Expired entries of all tables are removed in steps."""
        clock = Clock()
        clock.advance(NOW)
        feed = live_feed(clock)
        for table in TABLES[-10:]:
            ingest(feed, table.message([str(10_000 + n) for n in range(1000)]))
        steps = sum(1 for _ in feed.timetable.sweep())
        self.assertGreater(steps, 20)
