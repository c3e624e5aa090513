"""Tests of kv78turbo.feed and freshness: ingesting, rejecting, sweeping, and the freshness of departures."""

import gzip
import os
from collections.abc import Iterator
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import cast
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.times import HOUR
from govi_server.kv78turbo import ctx
from govi_server.kv78turbo import feed as feed_module
from govi_server.kv78turbo.feed import MAX_SUBSCRIPTIONS, REJECT_REASONS, SWEEP_INTERVAL, VALUE_KINDS
from govi_server.kv78turbo.freshness import Freshness
from govi_server.kv78turbo.subscriber import State, Subscriber
from govi_server.runtime.cooperative import SLICE_SECONDS
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.settings import FeedLimitSettings
from tests import feed as kv
from tests.client import NOW
from tests.doubles import FakeSubscriber, ingest, live_feed

CODE = "30000001"
HORIZON = float(HOUR)
ENVELOPE = "/GOVI/KV8passtimes/LIN"


class TickingClock(Clock):
    """A clock that advances by a quarter of a slice each time it is read."""

    ticks = False

    def seconds(self) -> float:
        """Return the time."""
        if self.ticks:
            self.rightNow += SLICE_SECONDS / 4
        return super().seconds()


class FeedTestCase(SynchronousTestCase):
    """A feed whose messages the test supplies."""

    def setUp(self) -> None:
        self.clock = TickingClock()
        self.clock.advance(NOW)
        self.feed = live_feed(self.clock)
        self.events = EventLoggingObserver()
        self.feed.incidents = ThrottledWarnings(Logger("feed", observer=self.events), self.clock)

    def receive(self, message: bytes, envelope: str = ENVELOPE) -> Deferred[None] | None:
        return self.feed.received(envelope, gzip.compress(message, 1))

    def journeys(self, code: str = CODE) -> list[str]:
        """Return the journey numbers of a stop's departures."""
        return [passtime.journey_number for passtime in self.feed.boards.board(code, HORIZON).passtimes]

    def receive_in_steps(self, message: bytes) -> Deferred[None]:
        """Receive a message that needs several turns of the reactor, on a clock that advances meanwhile."""
        self.clock.ticks = True
        done = self.receive(message)
        self.clock.ticks = False
        assert done is not None
        return done

    def seen_until(self, done: Deferred[None]) -> list[int]:
        """Return the numbers of departures that are visible between the steps of an ingestion."""
        seen: list[int] = []

        def observe() -> None:
            seen.append(len(self.journeys()))
            if not done.called:
                self.clock.callLater(0, observe)

        observe()
        self.clock.ticks = True
        while not done.called:
            self.clock.advance(0.001)
        self.clock.ticks = False
        self.clock.advance(0)
        self.successResultOf(done)
        return seen


class IngestTests(FeedTestCase):
    """Ingesting messages."""

    def test_usual_message_is_synchronous(self) -> None:
        """A message of usual size is ingested when received() returns."""
        self.assertIsNone(self.receive(kv.passtimes({})))
        self.assertEqual(self.journeys(), ["1001"])
        self.assertEqual((self.feed.n_records, dict(self.feed.incidents.counts)), (1, {}))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_mixed_tables(self) -> None:
        """A message may have tables of KV7 and KV8 in any order, and unknown ones."""
        message = kv.message(
            "KV78turbo",
            kv.table("DATEDPASSTIME", [{}]),
            kv.table("LINE", [{}]),
            ("SOMETHING", ["A", "B"], [["a", "b"]]),
            kv.table("DATEDPASSTIME", [{"JourneyNumber": "1002"}]),
        )
        self.receive(message)
        self.assertEqual(self.journeys(), ["1001", "1002"])
        self.assertEqual(self.feed.timetable.lines["LIN", "L004"].public_number, "4")
        self.assertEqual(self.feed.n_records, 4)

    def test_large_message_is_ingested_in_steps(self) -> None:
        """A large message is ingested in steps; the Deferred fires after the last one."""
        done = self.receive_in_steps(kv.passtimes(*({"JourneyNumber": f"{n}"} for n in range(900)), columns=49))
        self.assertNoResult(done)
        seen = self.seen_until(done)
        self.assertEqual((seen, seen[0], seen[-1]), (sorted(seen), 0, 900))
        self.assertGreater(len(set(seen)), 5)

    def test_large_invalid_message_is_read_in_steps(self) -> None:
        """A large message of invalid rows is also read in steps."""
        message = kv.message("KV8turbo_passtimes", ("DATEDPASSTIME", ["A", "B"], [])) + b"x\r\n" * 90_000
        done = self.receive_in_steps(message)
        self.assertGreater(len(self.seen_until(done)), 5)
        self.assertEqual(self.feed.incidents.counts, {"columns": 90_000})
        self.assertEqual(len(self.events), 1)

    def test_kv8_does_not_change_timetable_version(self) -> None:
        """Messages without planning leave the timetable's version unchanged, so cached departures stay valid."""
        ingest(self.feed, kv.planning({}), kv.calendar("2026-01-01"))
        version = self.feed.timetable.version
        table: ctx.Table = ("DATEDPASSTIME", ["A", "B"], [])
        ingest(
            self.feed, kv.passtimes({}), kv.general_message({}), kv.message("KV8turbo_passtimes", table) + b"x\r\n"
        )
        done = self.receive_in_steps(kv.message("KV8turbo_passtimes", table) + b"x\r\n" * 90_000)
        self.seen_until(done)
        self.assertEqual(self.feed.timetable.version, version)

    def test_planning_takes_effect_as_a_whole(self) -> None:
        """Planning that is ingested in steps takes effect at the end, all of it."""
        ingest(self.feed, kv.planning({}), kv.calendar("2026-01-01"))
        newer = "2026-01-01T00:59:59+01:00"
        rows = kv.planning(*({"JourneyNumber": f"{n}"} for n in range(1400)), published=newer).splitlines(True)
        done = self.receive_in_steps(b"".join([*rows[:1000], b"x\r\n" * 90_000, *rows[1000:]]))
        seen = self.seen_until(done)
        self.assertEqual(set(seen), {1, 1400})
        self.assertGreater(seen.count(1), 5)
        self.assertEqual(seen.index(1400), seen.count(1))

    def test_subscriptions_are_limited(self) -> None:
        """The number of stored subscriptions is limited; stored ones are still updated."""
        row = kv.table("DATEDPASSTIME", [{}])
        for name in range(MAX_SUBSCRIPTIONS + 5):
            ingest(self.feed, ctx.write("KV8turbo_passtimes", str(name), kv.PUBLISHED, [row]))
        latest = "2026-01-01T00:59:51+01:00"
        ingest(self.feed, ctx.write("KV8turbo_passtimes", "0", latest, [row]))
        self.assertEqual(len(self.feed.subscriptions), MAX_SUBSCRIPTIONS)
        self.assertEqual(self.feed.subscriptions["0"], latest)

    def test_last_update_of_subscriptions_and_operators(self) -> None:
        """The latest timestamp of each subscription and operator is stored."""
        self.receive(kv.passtimes({}, published="2026-01-01T00:59:00+01:00"))
        self.clock.advance(5)
        self.receive(kv.passtimes({"DataOwnerCode": "B", "LastUpdateTimeStamp": "2026-01-01T00:58:00+01:00"}))
        self.receive(kv.planning({}, published="2026-01-01T00:30:00+01:00"))
        older = {"LastUpdateTimeStamp": "2026-01-01T00:58:30+01:00"}
        self.receive(kv.passtimes(older, published="2026-01-01T00:58:31+01:00"))
        self.assertEqual(self.feed.subscriptions, {"openOV LIN": kv.PUBLISHED})
        self.assertEqual(self.feed.passtimes.last_heard, {"LIN": NOW + 5, "B": NOW + 5})
        self.assertEqual(self.feed.passtimes.last_update, {"LIN": kv.PUBLISHED, "B": "2026-01-01T00:58:00+01:00"})
        # A timestamp after the receipt counts as received.
        self.receive(kv.passtimes({"LastUpdateTimeStamp": "2026-01-01T02:00:00+01:00"}))
        self.assertEqual(self.feed.passtimes.last_update["LIN"], "2026-01-01T01:00:05+01:00")


class FailureTests(SynchronousTestCase):
    """Failures of the feed."""

    def test_failure_is_no_gap(self) -> None:
        """What the subscriber reports as a failure is not learned as the interval of an operator."""
        clock = Clock()
        clock.advance(NOW)
        with mock.patch("govi_server.kv78turbo.feed.Subscriber") as subscriber:
            feed = live_feed(clock, addresses=("tcp://feed.example:7817",))
        ingest(feed, kv.passtimes({"JourneyNumber": "1"}))
        clock.advance(150)
        subscriber.call_args.kwargs["recovered"](NOW)
        for _ in range(5):
            ingest(feed, kv.passtimes({"JourneyNumber": "1"}))
            clock.advance(30)
        (repetition,) = feed.passtimes.repetitions.values()
        self.assertEqual(repetition.interval, 30)


class BadInputTests(FeedTestCase):
    """Invalid messages and records are counted by kind, and logged once a minute."""

    def test_broken_messages_are_dropped(self) -> None:
        """A message that is not a complete gzip file, or too large, is dropped."""
        valid = gzip.compress(kv.passtimes({}))
        self.feed.limits = FeedLimitSettings(message=100_000)
        broken = [b"", b"x", valid[:-1], valid[:20], valid + b"x", kv.passtimes({}), gzip.compress(bytes(100_001))]
        for n, payload in enumerate(broken, 1):
            self.assertIsNone(self.feed.received(ENVELOPE, payload))
            self.assertEqual(self.feed.incidents.counts, {"broken message": n})
        self.assertEqual(self.journeys(), [])
        self.assertEqual(
            [formatEvent(event) for event in self.events], [f"Message '{ENVELOPE}' dropped: truncated gzip"]
        )
        self.assertIsNone(self.feed.received(ENVELOPE, valid))
        self.assertEqual(self.journeys(), ["1001"])

    def test_messages_without_records(self) -> None:
        """Messages without records, or that are not CTX, are ignored."""
        for message in (b"", b"\r\n", b"\\G", b"\\T", b"\\L\r\n\r\n", b"\\", b"\xff" * 100, b"<xml/>", bytes(1000)):
            self.receive(message)
        self.receive(kv.passtimes({}))
        self.assertEqual(self.journeys(), ["1001"])

    def test_invalid_records_are_rejected(self) -> None:
        """An invalid record is counted under its kind and logged; the message's other records are ingested.

        An invalid value is counted and logged, too; its record is ingested without it.
        """
        table = kv.table("DATEDPASSTIME", [{}])
        labels, valid = len(table[1]), kv.passtimes({}).splitlines()[-1]
        rows = [
            ("columns", b"LIN|2026-01-01"),
            ("columns", valid + b"|"),
            ("date", valid.replace(b"2026-01-01|", b"2026-02-01|", 1)),
            ("date", valid.replace(b"2026-01-01|", b"2026-99-99|", 1)),
            ("time", valid.replace(b"01:30:00", b"")),
            ("escape", valid.replace(b"D1", b"D\\x")),
            ("encoding", valid.replace(b"D1", b"D\xff")),
            ("value", valid.replace(b"01:30:00", b"01:60:00", 1)),
            ("value", valid.replace(b"01:30:00", b"48:00:00", 1)),
            ("value", valid.replace(kv.PUBLISHED.encode(), b"soon")),
            ("key", valid.replace(b"L004", b"")),
            ("key", valid.replace(b"L004", b"\\0")),
            ("TimingPointCode", valid.replace(CODE.encode(), b"+5")),
            ("TimingPointCode", valid.replace(CODE.encode(), "\u0665".encode())),
        ]
        self.assertEqual(labels, valid.count(b"|") + 1)
        for kind, row in rows:
            self.setUp()
            other = kv.passtimes({"JourneyNumber": "2"}).splitlines()[-1]
            self.receive(b"\r\n".join([*kv.passtimes().splitlines(), row, other, b""]))
            self.assertEqual(self.feed.incidents.counts, {kind: 1}, row)
            self.assertEqual(self.journeys(), ["1001", "2"] if kind in VALUE_KINDS else ["2"], row)
            what = "Value in a record" if kind in VALUE_KINDS else "Record"
            line = f"{what} of 'LIN' rejected: {REJECT_REASONS[kind]} ({kind})"
            self.assertEqual([formatEvent(event) for event in self.events], [line])

    def test_rejected_records_are_logged_once_a_minute(self) -> None:
        """Rejected records of one kind are logged once a minute."""
        message = kv.message("KV8turbo_passtimes", ("DATEDPASSTIME", ["A", "B"], [])) + b"x\r\n" * 1000
        for _ in range(7):
            self.receive(message)
            self.feed.received(ENVELOPE, b"")
            self.clock.advance(10)
        self.assertEqual(self.feed.incidents.counts, {"columns": 7000, "broken message": 7})
        self.assertEqual(len(self.events), 4)
        self.assertIn("(and 5999 more of this kind", formatEvent(list(self.events)[2]) or "")


class SweepTests(FeedTestCase):
    """Sweeping."""

    def test_running_feed_sweeps(self) -> None:
        """A running feed removes past passtimes; a stopped one leaves no delayed call."""
        self.feed.startService()
        self.receive(kv.passtimes({}, {"JourneyNumber": "2", "TimingPointCode": "5"}))
        self.clock.pump([SWEEP_INTERVAL] * 30)
        self.assertEqual(self.feed.passtimes.n_passtimes, 2)
        self.clock.pump([SWEEP_INTERVAL, 0.01] * 4)
        self.assertEqual(self.feed.passtimes.n_passtimes, 0)
        self.successResultOf(cast(Deferred[None], self.feed.stopService()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_passtimes_are_swept_less_often(self) -> None:
        """Sweeps of many passtimes use a small share of the time."""
        self.patch(feed_module, "SWEPT_PASSTIMES", 2 / (5 * SWEEP_INTERVAL))
        self.feed.startService()
        self.clock.pump([0.01] * 3)
        self.receive(kv.passtimes({}, {"JourneyNumber": "2", "TimingPointCode": "5"}))
        swept: list[float] = []

        def sweep() -> Iterator[None]:
            swept.append(self.clock.seconds())
            return iter(())

        self.patch(self.feed.passtimes, "sweep", sweep)
        self.clock.pump([SWEEP_INTERVAL, 0.0] * 26)
        self.assertEqual([later - earlier for earlier, later in pairwise(swept)], [5 * SWEEP_INTERVAL] * 4)

    def test_sweep_that_fails(self) -> None:
        """An error in one sweep is logged, and does not end the sweeps."""
        swept: list[float] = []

        def sweep() -> Iterator[None]:
            swept.append(self.clock.seconds())
            yield
            raise ValueError("broken")

        self.patch(self.feed.passtimes, "sweep", sweep)
        self.feed.startService()
        self.addCleanup(self.feed.stopService)
        self.clock.pump([SWEEP_INTERVAL, 0.0] * 3)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), len(swept))
        self.assertGreater(len(swept), 2)
        self.feed.stopService()


class TimetableDirectoryTests(SynchronousTestCase):
    """A feed with a timetable directory."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = directory.name
        self.clock = Clock()
        self.clock.advance(NOW)
        self.feed = live_feed(self.clock, self.path)
        self.events = EventLoggingObserver()
        self.feed.incidents = ThrottledWarnings(Logger("feed", observer=self.events), self.clock)

    def write(self, name: str, message: bytes) -> None:
        with open(os.path.join(self.path, name), "wb") as file:
            file.write(message)

    def test_files_are_ingested_at_startup(self) -> None:
        """The files of the directory are ingested after the feed has started."""
        self.write("a.ctx", kv.planning({}))
        self.write("b.ctx", kv.calendar("2026-01-01"))
        self.assertEqual(self.feed.timetable.n_planned, 0)
        self.feed.startService()
        self.clock.pump([0.01] * 5)
        (passtime,) = self.feed.boards.board(CODE, HORIZON).passtimes
        self.assertEqual((passtime.journey_number, passtime.trip_stop_status), ("1001", "PLANNED"))
        self.feed.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rejected_record_names_its_file(self) -> None:
        """A rejected record of a file is logged with the file, not with the latest sender of the feed."""
        self.write("a.ctx", kv.planning({"LocalServiceLevelCode": None}))
        self.feed.startService()
        self.addCleanup(self.feed.stopService)
        ingest(self.feed, kv.passtimes({}))
        self.clock.pump([0.01] * 5)
        (line,) = [formatEvent(event) for event in self.events]
        self.assertEqual(line, f"Record of '{self.path}/a.ctx' rejected: missing or invalid key (key)")

    def test_rejected_record_of_the_feed_during_a_read(self) -> None:
        """A record of the feed that is rejected while a file is read is logged with the feed's sender."""
        self.write("a.ctx", kv.planning(*({"JourneyNumber": str(n)} for n in range(1200))))
        self.feed.startService()
        self.addCleanup(self.feed.stopService)
        ingest(self.feed, kv.passtimes({"UserStopOrderNumber": "x"}))
        self.clock.pump([0.01] * 50)
        self.assertEqual(self.feed.timetable.n_planned, 1200)
        (line,) = [formatEvent(event) for event in self.events]
        self.assertEqual(line, "Record of 'LIN' rejected: missing or invalid key (key)")


class FreshnessTests(FeedTestCase):
    """The freshness of departures."""

    def set_state(self, state: State = "UP", last: float | None = None) -> None:
        self.feed.subscriber = cast(Subscriber, FakeSubscriber(state, last))

    def freshness(self, code: str = CODE) -> tuple[Freshness, float]:
        return self.feed.freshness(self.feed.boards.board(code, HORIZON))

    def test_state_is_that_of_the_subscriber(self) -> None:
        """The feed's state is its subscriber's; without one it is UNKNOWN."""
        self.assertEqual((self.feed.state, self.feed.age), ("UNKNOWN", None))
        self.set_state("RECOVERING")
        self.assertEqual((self.feed.state, self.feed.age), ("RECOVERING", None))
        self.set_state("DOWN", NOW - 70)
        self.assertEqual((self.feed.state, self.feed.age), ("DOWN", 70))
        self.set_state("UP", NOW + 5)  # the clock was set back
        self.assertEqual(self.feed.age, 0)

    def test_live_departures_age_with_their_operator(self) -> None:
        """Live departures are as old as the latest data of their operator, in any state of the feed."""
        states: tuple[State, ...] = ("UP", "RECOVERING", "DOWN", "UNKNOWN")
        for state in states:
            self.setUp()
            self.set_state(state, NOW)
            self.receive(kv.passtimes({}))
            for wait, expected in [(0, "fresh"), (60, "fresh"), (0.5, "stale"), (239.5, "stale"), (0.5, "old")]:
                self.clock.advance(wait)
                self.assertEqual(self.freshness(), (expected, self.clock.seconds() - NOW))

    def test_oldest_operator_counts(self) -> None:
        """The age of a stop is that of its operator with the oldest data."""
        self.set_state()
        self.receive(kv.passtimes({"DataOwnerCode": "A"}))
        self.clock.advance(100)
        self.receive(kv.passtimes({"DataOwnerCode": "B"}))
        self.assertEqual(self.freshness(), ("stale", 100))
        self.receive(kv.passtimes({"DataOwnerCode": "A"}))
        self.assertEqual(self.freshness(), ("fresh", 0))

    def test_age_is_not_negative(self) -> None:
        """Ages are not negative after the clock was set back."""
        self.set_state()
        self.receive(kv.passtimes({}))
        self.clock.advance(-5)
        self.assertEqual(self.freshness(), ("fresh", 0))

    def test_stop_without_departures(self) -> None:
        """A stop without departures is fresh if it exists and the feed is complete; otherwise unknown or down."""
        cases: tuple[tuple[State, bool, Freshness], ...] = (
            ("UP", True, "fresh"),
            ("UP", False, "unknown"),
            ("DOWN", False, "down"),
            ("RECOVERING", False, "down"),
            ("UNKNOWN", False, "down"),
            ("DOWN", True, "down"),
        )
        for state, is_known, freshness in cases:
            self.setUp()
            self.set_state(state, NOW - 7)
            if is_known:
                self.receive(kv.planning())
            self.assertEqual(self.freshness()[0], freshness, state)

    def test_planned_departures(self) -> None:
        """Planned departures are fresh while the feed would report changes, otherwise stale."""
        for minutes in (30, 300):  # within the horizon, and beyond
            cases: tuple[tuple[State, tuple[Freshness, float]], ...] = (
                ("UP", ("fresh", 0)),
                ("RECOVERING", ("stale", 7)),
                ("DOWN", ("stale", 7)),
                ("UNKNOWN", ("stale", 7)),
            )
            for state, freshness in cases:
                self.setUp()
                self.set_state(state, NOW - 7)
                time = f"{1 + minutes // 60:02}:{minutes % 60:02}:00"
                row = {"TargetArrivalTime": time, "TargetDepartureTime": time}
                ingest(self.feed, kv.planning(row), kv.calendar("2026-01-01"))
                self.assertEqual(self.freshness(), freshness, (state, minutes))

    def test_timetable_without_feed(self) -> None:
        """With a timetable and no feed, its stops are fresh and others unknown."""
        self.assertEqual(self.freshness(), ("unknown", 0))
        ingest(self.feed, kv.planning({}))
        self.assertEqual(self.freshness(), ("fresh", 0))
        ingest(self.feed, kv.calendar("2026-01-01"))
        self.assertEqual((self.freshness(), self.journeys()), (("fresh", 0), ["1001"]))


class SubscriberTests(SynchronousTestCase):
    """The subscriber of a feed."""

    def test_subscriber_needs_an_address(self) -> None:
        """A feed has a subscriber only if it has an address."""
        self.assertIsNone(live_feed(Clock()).subscriber)
        feed = live_feed(Clock(), addresses=["tcp://localhost:7817"])
        self.assertIn(feed.subscriber, list(feed))
        self.assertEqual(feed.state, "UNKNOWN")
