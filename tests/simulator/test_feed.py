"""The live feed: what it takes in, what it refuses, and how far it says that a board can be relied upon."""

import gzip
import os
from tempfile import TemporaryDirectory
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.times import HOUR
from govi_server.kv78turbo import ctx
from govi_server.kv78turbo.feed import AT_ONCE, REFUSED, SUBSCRIPTIONS, SWEEP_EVERY
from govi_server.kv78turbo.freshness import Freshness
from govi_server.kv78turbo.subscriber import State, Subscriber
from govi_server.runtime.cooperative import SLICE_SECONDS
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.settings import FeedLimitSettings
from tests import feed as kv
from tests.client import NOW
from tests.doubles import FakeSubscriber, live_feed, take

CODE = "30000001"
HORIZON = float(HOUR)
ENVELOPE = "/GOVI/KV8passtimes/LIN"


class TickingClock(Clock):
    """A clock that goes on while work is done: a quarter of a slice each time that somebody looks at it."""

    ticks = False

    def seconds(self) -> float:
        """Tell the time."""
        if self.ticks:
            self.rightNow += SLICE_SECONDS / 4
        return super().seconds()


class FeedTestCase(SynchronousTestCase):
    """A feed that messages come to from the test."""

    def setUp(self) -> None:
        self.clock = TickingClock()
        self.clock.advance(NOW)
        self.feed = live_feed(self.clock)
        self.events = EventLoggingObserver()
        self.feed.incidents = ThrottledWarnings(Logger("feed", observer=self.events), self.clock)

    def receive(self, message: bytes, envelope: str = ENVELOPE) -> Deferred[None] | None:
        return self.feed.received(envelope, gzip.compress(message, 1))

    def passes(self, code: str = CODE) -> list[str]:
        """List the journeys that are shown."""
        return [one.journey_number for one in self.feed.boards.board(code, HORIZON).passtimes]

    def seen_until(self, done: Deferred[None]) -> list[int]:
        """Give how many passes others see, each time that it is their turn until something is done."""
        seen: list[int] = []

        def look() -> None:
            seen.append(len(self.passes()))
            if not done.called:
                self.clock.callLater(0, look)

        look()
        self.clock.ticks = True
        while not done.called:
            self.clock.advance(0.001)
        self.clock.ticks = False
        self.clock.advance(0)
        self.successResultOf(done)
        return seen


class TakingInTests(FeedTestCase):
    """What comes in."""

    def test_at_once(self) -> None:
        """A message of usual size is there when received() returns."""
        self.assertIsNone(self.receive(kv.passtimes({})))
        self.assertEqual(self.passes(), ["1001"])
        self.assertEqual((self.feed.n_records, dict(self.feed.incidents.counts)), (1, {}))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_tables_together(self) -> None:
        """A message may have tables of KV7 and KV8, in any order, and such as nobody knows."""
        whole = kv.message(
            "KV78turbo",
            kv.table("DATEDPASSTIME", [{}]),
            kv.table("LINE", [{}]),
            ("SOMETHING", ["A", "B"], [["a", "b"]]),
            kv.table("DATEDPASSTIME", [{"JourneyNumber": "1002"}]),
        )
        self.receive(whole)
        self.assertEqual(self.passes(), ["1001", "1002"])
        self.assertEqual(self.feed.timetable.lines["LIN", "L004"].public_number, "4")
        self.assertEqual(self.feed.n_records, 4)

    def test_in_slices(self) -> None:
        """A message of many rows is taken in bit by bit; the Deferred fires when all of it is there."""
        done = self.receive(kv.passtimes(*({"JourneyNumber": f"{n}"} for n in range(3000)), columns=49))
        assert done is not None
        self.assertNoResult(done)
        seen = self.seen_until(done)
        self.assertEqual((seen, seen[0], seen[-1]), (sorted(seen), 0, 3000))
        self.assertGreater(len(set(seen)), 5)

    def test_refused_in_slices(self) -> None:
        """So is one of which no row can be read."""
        message = kv.message("KV8turbo_passtimes", ("DATEDPASSTIME", ["A", "B"], [])) + b"x\r\n" * 90_000
        done = self.receive(message)
        assert done is not None
        self.assertGreater(len(self.seen_until(done)), 5)
        self.assertEqual(self.feed.incidents.counts, {"columns": 90_000})
        self.assertEqual(len(self.events), 1)

    def test_kept(self) -> None:
        """Boards that were made stay where a message changes nothing of the planning."""
        take(self.feed, kv.planning({}), kv.calendar("2026-01-01"))
        version = self.feed.timetable.version
        table: ctx.Table = ("DATEDPASSTIME", ["A", "B"], [])
        take(self.feed, kv.passtimes({}), kv.general_message({}), kv.message("KV8turbo_passtimes", table) + b"x\r\n")
        done = self.receive(kv.message("KV8turbo_passtimes", table) + b"x\r\n" * 90_000)
        assert done is not None
        self.seen_until(done)
        self.assertEqual(self.feed.timetable.version, version)

    def test_planning_at_once(self) -> None:
        """Planning that is taken in bit by bit takes effect as a whole."""
        take(self.feed, kv.planning({}), kv.calendar("2026-01-01"))
        newer = "2026-01-01T00:59:59+01:00"
        rows = kv.planning(*({"JourneyNumber": f"{n}"} for n in range(3000)), published=newer).splitlines(True)
        done = self.receive(b"".join([*rows[:1000], b"x\r\n" * 90_000, *rows[1000:]]))
        assert done is not None
        seen = self.seen_until(done)
        self.assertEqual(set(seen), {1, 3000})
        self.assertGreater(seen.count(1), 5)
        self.assertEqual(seen.index(3000), seen.count(1))

    def test_just_at_once(self) -> None:
        """The largest message that is taken in at one go is so, and one byte more is not."""
        message = kv.passtimes({})
        padding = b"\n" * (AT_ONCE - len(message))
        self.assertIsNone(self.receive(message + padding))
        done = self.receive(message + padding + b"\n")
        assert done is not None
        self.seen_until(done)

    def test_many_subscriptions(self) -> None:
        """However many subscriptions are made up, so many are remembered, and those stay up to date."""
        row = kv.table("DATEDPASSTIME", [{}])
        for name in [*range(SUBSCRIPTIONS + 5), 0]:
            take(
                self.feed, ctx.write("KV8turbo_passtimes", str(name), f"stamp {len(self.feed.subscriptions)}", [row])
            )
        self.assertEqual(len(self.feed.subscriptions), SUBSCRIPTIONS)
        self.assertEqual(self.feed.subscriptions["0"], f"stamp {SUBSCRIPTIONS}")

    def test_subscriptions(self) -> None:
        """It is told when each subscription and each data owner last said something."""
        self.receive(kv.passtimes({}, published="2026-01-01T00:59:00+01:00"))
        self.clock.advance(5)
        self.receive(kv.passtimes({"DataOwnerCode": "B", "LastUpdateTimeStamp": "2026-01-01T00:58:00+01:00"}))
        self.receive(kv.planning({}, published="2026-01-01T00:30:00+01:00"))
        self.assertEqual(self.feed.subscriptions, {"openOV LIN": kv.PUBLISHED})
        self.assertEqual(self.feed.passtimes.heard, {"LIN": NOW, "B": NOW + 5})
        self.assertEqual(self.feed.passtimes.updated, {"LIN": kv.PUBLISHED, "B": "2026-01-01T00:58:00+01:00"})


class BadInputTests(FeedTestCase):
    """What is refused: counted by kind, told once a minute, and nothing else."""

    def test_broken_messages(self) -> None:
        """A message that is no whole gzip file, or too large, is dropped, and the next one is taken."""
        whole = gzip.compress(kv.passtimes({}))
        self.feed.limits = FeedLimitSettings(message=100_000)
        broken = [b"", b"x", whole[:-1], whole[:20], whole + b"x", kv.passtimes({}), gzip.compress(bytes(100_001))]
        for n, payload in enumerate(broken, 1):
            self.assertIsNone(self.feed.received(ENVELOPE, payload))
            self.assertEqual(self.feed.incidents.counts, {"broken message": n})
        self.assertEqual(self.passes(), [])
        self.assertEqual(
            [formatEvent(event) for event in self.events], [f"A message of '{ENVELOPE}' is dropped: truncated gzip"]
        )
        self.assertIsNone(self.feed.received(ENVELOPE, whole))
        self.assertEqual(self.passes(), ["1001"])

    def test_nothing_in_it(self) -> None:
        """A message without records, or of another kind of text, is nothing."""
        for message in (b"", b"\r\n", b"\\G", b"\\T", b"\\L\r\n\r\n", b"\\", b"\xff" * 100, b"<xml/>", bytes(1000)):
            self.receive(message)
        self.receive(kv.passtimes({}))
        self.assertEqual(self.passes(), ["1001"])

    def test_refused_records(self) -> None:
        """A record that cannot be read is counted under its kind, and the message's others are taken."""
        table = kv.table("DATEDPASSTIME", [{}])
        labels, sound = len(table[1]), kv.passtimes({}).splitlines()[-1]
        rows = [
            ("columns", b"LIN|2026-01-01"),
            ("columns", sound + b"|"),
            ("escape", sound.replace(b"L004", b"L\\x")),
            ("encoding", sound.replace(b"L004", b"L\xff")),
            ("date", sound.replace(b"2026-01-01|", b"2026-02-01|", 1)),
            ("date", sound.replace(b"2026-01-01|", b"2026-99-99|", 1)),
            ("time", sound.replace(b"01:30:00", b"01:60:00", 1)),
            ("time", sound.replace(b"01:30:00", b"48:00:00", 1)),
            ("key", sound.replace(b"L004", b"")),
            ("key", sound.replace(b"L004", b"\\0")),
            ("TimingPointCode", sound.replace(CODE.encode(), b"+5")),
            ("TimingPointCode", sound.replace(CODE.encode(), "\u0665".encode())),
        ]
        self.assertEqual(labels, sound.count(b"|") + 1)
        for why, row in rows:
            self.setUp()
            other = kv.passtimes({"JourneyNumber": "2"}).splitlines()[-1]
            self.receive(b"\r\n".join([*kv.passtimes().splitlines(), row, other, b""]))
            self.assertEqual(self.feed.incidents.counts, {why: 1}, row)
            self.assertEqual(self.passes(), ["2"])
            said = f"A record of 'LIN' is refused: {REFUSED[why]} ({why})"
            self.assertEqual([formatEvent(event) for event in self.events], [said])

    def test_told_once_a_minute(self) -> None:
        """However many records are refused, the log has a line a minute of each kind."""
        message = kv.message("KV8turbo_passtimes", ("DATEDPASSTIME", ["A", "B"], [])) + b"x\r\n" * 1000
        for _ in range(7):
            self.receive(message)
            self.feed.received(ENVELOPE, b"")
            self.clock.advance(10)
        self.assertEqual(self.feed.incidents.counts, {"columns": 7000, "broken message": 7})
        self.assertEqual(len(self.events), 4)
        self.assertIn("(and 5999 more of this kind", formatEvent(list(self.events)[2]) or "")


class SweepTests(FeedTestCase):
    """What is over is forgotten."""

    def test_sweep(self) -> None:
        """A running feed forgets what is over, and a stopped one leaves nothing behind."""
        self.feed.startService()
        self.receive(kv.passtimes({}, {"JourneyNumber": "2", "TimingPointCode": "5"}))
        self.clock.pump([SWEEP_EVERY] * 30)
        self.assertEqual(self.feed.passtimes.n_passes, 2)
        self.clock.pump([SWEEP_EVERY, 0.01] * 4)
        self.assertEqual(self.feed.passtimes.n_passes, 0)
        self.successResultOf(cast(Deferred[None], self.feed.stopService()))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class FolderTests(SynchronousTestCase):
    """A feed with a folder of recorded KV7."""

    def test_folder(self) -> None:
        """What is in the folder is planned, once the feed has started."""
        with TemporaryDirectory() as path:
            for name, message in [("a.ctx", kv.planning({})), ("b.ctx", kv.calendar("2026-01-01"))]:
                with open(os.path.join(path, name), "wb") as file:
                    file.write(message)
            clock = Clock()
            clock.advance(NOW)
            feed = live_feed(clock, path)
            self.assertEqual(feed.timetable.n_planned, 0)
            feed.startService()
            clock.pump([0.01] * 5)
            (one,) = feed.boards.board(CODE, HORIZON).passtimes
            self.assertEqual((one.journey_number, one.trip_stop_status), ("1001", "PLANNED"))
            feed.stopService()
            self.assertEqual(clock.getDelayedCalls(), [])


class ConditionTests(FeedTestCase):
    """How far a board can be relied upon."""

    def up(self, state: State = "UP", last: float | None = None) -> None:
        self.feed.subscriber = cast(Subscriber, FakeSubscriber(state, last))

    def condition(self, code: str = CODE) -> tuple[Freshness, float]:
        return self.feed.freshness(self.feed.boards.board(code, HORIZON))

    def test_state(self) -> None:
        """The feed is as its subscriber says; without one it is unknown."""
        self.assertEqual((self.feed.state, self.feed.age), ("UNKNOWN", None))
        self.up("RECOVERING")
        self.assertEqual((self.feed.state, self.feed.age), ("RECOVERING", None))
        self.up("DOWN", NOW - 70)
        self.assertEqual((self.feed.state, self.feed.age), ("DOWN", 70))
        self.up("UP", NOW + 5)  # the clock was set back
        self.assertEqual(self.feed.age, 0)

    def test_ages(self) -> None:
        """A board with live passes is as old as the last word of their owner, in whatever state the feed is."""
        states: tuple[State, ...] = ("UP", "RECOVERING", "DOWN", "UNKNOWN")
        for state in states:
            self.setUp()
            self.up(state, NOW)
            self.receive(kv.passtimes({}))
            for wait, expected in [(0, "fresh"), (60, "fresh"), (0.5, "stale"), (239.5, "stale"), (0.5, "old")]:
                self.clock.advance(wait)
                self.assertEqual(self.condition(), (expected, self.clock.seconds() - NOW))

    def test_oldest(self) -> None:
        """Of several owners at a stop the one that was not heard the longest counts."""
        self.up()
        self.receive(kv.passtimes({"DataOwnerCode": "A"}))
        self.clock.advance(100)
        self.receive(kv.passtimes({"DataOwnerCode": "B"}))
        self.assertEqual(self.condition(), ("stale", 100))
        self.receive(kv.passtimes({"DataOwnerCode": "A"}))
        self.assertEqual(self.condition(), ("fresh", 0))

    def test_clock_set_back(self) -> None:
        """A clock that is set back makes nothing younger than now."""
        self.up()
        self.receive(kv.passtimes({}))
        self.clock.advance(-5)
        self.assertEqual(self.condition(), ("fresh", 0))

    def test_nothing_shown(self) -> None:
        """The kinds of an empty board: no service now, no such stop, nobody knows."""
        cases: tuple[tuple[State, bool, Freshness], ...] = (
            ("UP", True, "fresh"),
            ("UP", False, "unknown"),
            ("DOWN", False, "down"),
            ("RECOVERING", False, "down"),
            ("UNKNOWN", False, "down"),
            ("DOWN", True, "down"),
        )
        for state, known, condition in cases:
            self.setUp()
            self.up(state, NOW - 7)
            if known:
                self.receive(kv.planning())
            self.assertEqual(self.condition()[0], condition, state)

    def test_planned(self) -> None:
        """What is only planned is fresh while the feed would say if it were otherwise, and else stale."""
        for minutes in (30, 300):  # with a pass on the board, and without
            cases: tuple[tuple[State, tuple[Freshness, float]], ...] = (
                ("UP", ("fresh", 0)),
                ("RECOVERING", ("stale", 7)),
                ("DOWN", ("stale", 7)),
                ("UNKNOWN", ("stale", 7)),
            )
            for state, condition in cases:
                self.setUp()
                self.up(state, NOW - 7)
                time = f"{1 + minutes // 60:02}:{minutes % 60:02}:00"
                row = {"TargetArrivalTime": time, "TargetDepartureTime": time}
                take(self.feed, kv.planning(row), kv.calendar("2026-01-01"))
                self.assertEqual(self.condition(), condition, (state, minutes))

    def test_without_subscriber(self) -> None:
        """Who has only a timetable is told it as fresh, and what is no stop as unknown."""
        self.assertEqual(self.condition(), ("unknown", 0))
        take(self.feed, kv.planning({}))
        self.assertEqual(self.condition(), ("fresh", 0))
        take(self.feed, kv.calendar("2026-01-01"))
        self.assertEqual((self.condition(), self.passes()), (("fresh", 0), ["1001"]))


class MakingTests(SynchronousTestCase):
    """How a feed is put together."""

    def test_subscriber(self) -> None:
        """With an address there is a subscriber, that starts and stops with the feed; without one there is none."""
        self.assertIsNone(live_feed(Clock()).subscriber)
        feed = live_feed(Clock(), addresses=["tcp://localhost:7817"])
        self.assertIn(feed.subscriber, list(feed))
        self.assertEqual(feed.state, "UNKNOWN")
