"""Tests of kv78turbo.repetition: learning how often an operator repeats, and passtimes that it no longer repeats."""

import json
from collections.abc import Generator, Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.display import Reliability
from govi_server.departures.times import HOUR, MINUTE
from govi_server.documents.ovapi import OvapiDocuments
from govi_server.documents.siri import SiriDocuments
from govi_server.kv78turbo.display import stop_display
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import reliability, seconds_fresh
from govi_server.kv78turbo.operators import Operators
from govi_server.kv78turbo.repetition import MIN_CENSUS, Repetition
from govi_server.kv78turbo.stamps import stamp_of
from govi_server.kv78turbo.stop_departures import StopDepartures
from govi_server.modules.kv55_feed import Kv55Feed
from govi_server.operations.snapshot import records_of, restore
from govi_server.runtime.cooperative import run_now
from tests import feed as kv
from tests.client import NOW
from tests.doubles import ingest, live_feed

CODE = "30000001"
HORIZON = 6.0 * HOUR


def row(journey: str, **columns: str | None) -> kv.Row:
    """Return a row of a journey that is expected at 03:00, updated before the test."""
    times = ("TargetArrivalTime", "TargetDepartureTime", "ExpectedArrivalTime", "ExpectedDepartureTime")
    return {"JourneyNumber": journey, **dict.fromkeys(times, "03:00:00"), **columns}


class RepetitionTestCase(SynchronousTestCase):
    """A feed without a connection, on a stepped clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.feed = live_feed(self.clock)

    def send(self, journeys: Iterable[str] = "AB", **columns: str | None) -> None:
        ingest(self.feed, kv.passtimes(*(row(journey, **columns) for journey in journeys)))

    def repeat(self, journeys: Iterable[str], interval: float, seconds: float, **columns: str | None) -> None:
        """Send journeys every so many seconds, for some seconds, and sweep every minute."""
        swept = self.clock.seconds()
        for _ in range(int(seconds / interval)):
            self.clock.advance(interval)
            self.send(journeys, **columns)
            if self.clock.seconds() >= swept + MINUTE:
                swept = self.clock.seconds()
                self.sweep()

    def sweep(self) -> None:
        for _ in self.feed.passtimes.sweep():
            pass

    def board(self, feed: Feed | None = None) -> StopDepartures:
        return (feed or self.feed).boards.board(CODE, HORIZON)

    def states(self, feed: Feed | None = None) -> dict[str, Reliability]:
        """Return the reliability of each journey."""
        return {passtime.journey_number: passtime.reliability for passtime in self.board(feed).passtimes}

    def assert_states(self, a: Reliability, b: Reliability = "current") -> None:
        self.assertEqual(self.states(), {"A": a, "B": b})


class IntervalTests(SynchronousTestCase):
    """Learning the interval."""

    def learn(self, *gaps: float) -> float | None:
        """Return the interval that is learned from gaps."""
        repetition, now = Repetition(), NOW
        for gap in gaps:
            repetition.data_received(now)
            repetition.add_gap(now - gap, now)
        return repetition.interval

    def test_unknown_before_some_gaps(self) -> None:
        """The interval is unknown before three gaps."""
        self.assertEqual([self.learn(), self.learn(9), self.learn(9, 9), self.learn(9, 9, 9)], [None, None, None, 9])

    def test_most_of_the_time_counts(self) -> None:
        """Frequent updates of a few passtimes do not shorten the interval, and long absences do not extend it."""
        for gaps in ([5.0] * 4 + [30.0], [30.0] * 20 + [900.0], [1.0, 2.0, 3.0] * 5 + [30.0] * 10):
            self.assertEqual(self.learn(*gaps * 5), 30)

    def test_interval_follows_the_operator(self) -> None:
        """An operator that begins to repeat more slowly or faster has a new interval."""
        for first, second in ((5.0, 120.0), (120.0, 5.0), (30.0, 600.0)):
            self.assertEqual(self.learn(*[first] * 300, *[second] * 300), second)

    def test_rows_weigh(self) -> None:
        """Many messages with updates of a few passtimes do not hide the repetitions of all."""
        for often, n, interval, rows in ((5, 4, 40, 30), (10, 11, 60, 30), (15, 11, 90, 20), (5, 4, 31, 20)):
            repetition, now = Repetition(), NOW
            for _ in range(60):
                for gap, n_rows in (*[(often, 1)] * n, *[(interval, rows)] * (20 - n if n > 10 else 1)):
                    now += 5
                    repetition.data_received(now)
                    repetition.add_gap(now - gap, now, n_rows)
            self.assertEqual(repetition.interval, interval)

    def test_a_restart_is_no_gap(self) -> None:
        """However short it was: passtimes could not be repeated meanwhile, and are no older by it."""
        for interval in (None, 30.0):
            for pause in (40.0, 70.0, 1000.0):
                for is_late in (False, True):  # the operators are restored after their first data
                    repetition = Repetition()
                    if is_late:
                        repetition.data_received(NOW)
                    repetition.restore(NOW - pause, interval)
                    self.assertEqual(repetition.age(NOW - pause - 10, NOW), 10)
                    for _ in range(3):
                        repetition.data_received(NOW)
                        repetition.add_gap(NOW - pause - 10, NOW, 100)
                    self.assertEqual(repetition.age(NOW - pause - 10, NOW + 5), 15)
                    self.assertEqual(repetition.interval, interval)

    def test_a_restored_interval_has_weight(self) -> None:
        """After a restart, the gap of a message that was lost does not outweigh what was learned before."""
        for rows in ([1] * 6, [50] * 6, [9, 1, 50, 50, 50, 50], [9, 2, 20, 20, 20, 20]):
            repetition, now = Repetition(), NOW
            repetition.restore(NOW - 10, 30.0)
            for gap, n_rows in zip((30.0, 30.0, 60.0, 30.0, 30.0, 30.0), rows, strict=True):
                now += gap
                repetition.data_received(now)
                repetition.add_gap(now - gap, now, n_rows)
                self.assertEqual(repetition.interval, 30, (rows, now - NOW))

    def test_failures_one_after_another(self) -> None:
        """A feed that fails again after one message has two outages, though that was ingested a moment later."""
        repetition = Repetition()
        repetition.data_received(NOW)
        for received in (NOW + 400, NOW + 530):
            repetition.add_outage(received - 130, received)
            repetition.data_received(received + 0.005)
        self.assertLess(repetition.age(NOW + 270, NOW + 530.005), 0.02)

    def test_few_long_gaps_are_no_interval(self) -> None:
        """Long gaps count only if most of the latest rows have them, unlike those of old messages."""
        self.assertEqual(self.learn(*([30.0] * 12 + [90.0, 330.0, 700.0, 700.0]) * 16), 30)

    def test_messages_sent_twice(self) -> None:
        """The two copies of a message are not a repetition."""
        self.assertIsNone(self.learn(*[0.0, 0.1] * 20))

    @settings(deadline=None, max_examples=50)
    @given(st.floats(1, 600), st.lists(st.floats(0.9, 1.1), min_size=20, max_size=60))
    def test_any_interval(self, interval: float, jitter: list[float]) -> None:
        """The interval is learned, whatever it is."""
        learned = self.learn(*(interval * factor for factor in jitter))
        assert learned is not None
        self.assertTrue(0.85 * interval <= learned <= 1.15 * interval)


class SilentFeedTests(SynchronousTestCase):
    """A silence of all operators."""

    def operators(self, *names: str, interval: float) -> Operators:
        """Return operators that have sent data at intervals until NOW."""
        operators, begin = Operators(), NOW - 10 * interval
        operators.restore(dict.fromkeys(names, begin), {}, dict.fromkeys(names, interval), begin)
        for n in range(-10, 1):
            for name in names:
                time = NOW + n * interval
                operators.data_received(name, time, self.fail)
                operators.add_gap(name, time - interval, time, 1)
        return operators

    def age(self, operators: Operators, silence: float) -> float:
        """Return the age of a passtime of A when A sends data again after a silence."""
        operators.data_received("A", NOW + silence, self.fail)
        return operators.repetitions["A"].age(NOW, NOW + silence)

    def test_silence_of_several_operators(self) -> None:
        """Passtimes are no older by a minute without data, which is no gap either."""
        operators = self.operators("A", "B", interval=30)
        self.assertEqual(self.age(operators, 59), 59)
        operators = self.operators("A", "B", interval=30)
        self.assertEqual(self.age(operators, 71), 0)
        operators.add_gap("A", NOW, NOW + 71, 1000)
        self.assertEqual(operators.repetitions["A"].interval, 30)

    def test_pauses_are_no_silence(self) -> None:
        """A pause of the only operator that is active, or of those that repeat slowly, is none of the feed."""
        self.assertEqual(self.age(self.operators("A", interval=30), 71), 71)
        self.assertEqual(self.age(self.operators("A", "B", interval=90), 100), 100)
        operators = self.operators("A", interval=30)
        operators.restore({"B": NOW - 1000}, {}, {}, NOW)
        self.assertEqual(self.age(operators, 71), 71)

    def test_overdue_passtimes_become_current(self) -> None:
        """What was displayed as overdue is rendered again."""
        operators = self.operators("A", "B", interval=4)
        self.assertEqual(operators.repetitions["A"].reliability(NOW - 50, NOW + 65, 300)[0], "unknown")
        version = operators.reliability_version
        self.assertEqual(self.age(operators, 71), 0)
        self.assertNotEqual(operators.reliability_version, version)

    def test_old_messages(self) -> None:
        """Messages that were published long before the latest one are sent again: their gaps are not counted."""
        operators = self.operators("A", interval=30)
        for seconds, interval in ((200, 30), (10, 250)):
            for n in range(50):
                operators.data_received("A", NOW + 30, self.fail)
                published = NOW + 30 - seconds * (n % 2)
                operators.add_gap("A", NOW - 220 * (n % 2), NOW + 30, 100, stamp_of(published))
            self.assertEqual(operators.repetitions["A"].interval, interval)

    def test_clock_set_back(self) -> None:
        """A silence that ends in the future is forgotten: nothing would age until then."""
        operators = self.operators("A", "B", interval=30)
        operators.data_received("B", NOW + 1000, self.fail)
        operators.data_received("A", NOW + 500, self.fail)
        self.assertEqual(operators.repetitions["A"].age(NOW + 500, NOW + 520), 20)


class OverdueTests(RepetitionTestCase):
    """Passtimes that are no longer repeated."""

    def test_overdue_after_five_intervals(self) -> None:
        """A passtime is unknown after five intervals, at least a minute, and last known after the stale limit."""
        for interval, overdue in ((4, 60), (20, 100), (40, 200)):
            self.setUp()
            self.send()
            self.repeat("AB", interval, 10 * interval)
            self.repeat("B", interval, overdue)
            self.assert_states("current")
            self.repeat("B", interval, interval)
            self.assert_states("unknown")
            self.repeat("B", interval, 300 - overdue)
            self.assert_states("last_known")
            self.send("A")
            self.assert_states("current")

    def test_slow_operator(self) -> None:
        """An operator is fresh between its repetitions, and its overdue passtimes are unknown before last known."""
        for interval, unknown_after, last_known_after in ((70, 350, 410), (90, 450, 510), (120, 600, 660)):
            self.setUp()
            self.send()
            self.repeat("AB", interval, 10 * interval)
            self.clock.advance(interval - 1)
            board = self.board()
            outdated = self.feed.outdated_operators(board)
            self.assertEqual(
                (self.feed.freshness(board)[0], seconds_fresh(self.feed, board)), ("fresh", interval + 1)
            )
            self.assertEqual(
                {reliability(passtime, outdated) for passtime in board.passtimes},
                {"current"},
            )
            self.clock.advance(interval + 2)
            self.assertEqual(self.feed.freshness(self.board())[0], "stale")
            self.setUp()
            self.send()
            self.repeat("AB", interval, 10 * interval)
            for second in range(10, last_known_after + 20, 10):
                self.clock.advance(10)
                self.send("B")
                self.assert_states(
                    "current"
                    if second <= unknown_after
                    else "unknown"
                    if second <= last_known_after
                    else "last_known"
                )

    def test_operators_are_independent(self) -> None:
        """The interval of one operator does not apply to another."""
        self.send("A", DataOwnerCode="SLOW")
        self.send("B")
        self.repeat("B", 5, 20 * MINUTE)
        # Its operator is stale, and so it is omitted.
        self.assertEqual(self.states(), {"B": "current"})

    def test_sent_once(self) -> None:
        """An operator that never repeats has no overdue passtimes."""
        self.send()
        for n in range(100):
            self.clock.advance(10)
            self.send([f"C{n}"])
        self.assertEqual(set(self.states().values()), {"current"})

    def test_few_are_repeated(self) -> None:
        """No passtime is overdue if the operator sends most of its passtimes only once."""
        once = [f"once{n}" for n in range(MIN_CENSUS)]
        self.send(["A", "B", *once])
        self.repeat("B", 10, 10 * MINUTE)
        self.assertEqual(set(self.states().values()), {"current"})
        # Passtimes that were repeated before are overdue, however many.
        self.repeat(["A", "B", *once], 10, MINUTE)
        self.repeat("B", 10, 2 * MINUTE)
        self.assertEqual(self.states(), {"A": "unknown", "B": "current", **dict.fromkeys(once, "unknown")})

    def test_outage(self) -> None:
        """When all data fails, no passtime is overdue, neither during the outage nor in the repetition after it."""
        for outage in (45, 2 * MINUTE, 4 * MINUTE):
            self.setUp()
            self.send()
            self.repeat("AB", 10, 2 * MINUTE)
            for _ in range(outage // 5):
                self.clock.advance(5)
                self.assert_states("current", "current")
            self.send("B")
            self.repeat("B", 5, 25)
            self.assert_states("current")
            self.repeat("B", 5, MINUTE)
            self.assert_states("unknown")

    def test_failure_of_the_feed(self) -> None:
        """The failure of a feed is no gap, even if it has only one operator, whose interval is unknown yet."""
        for failed in (False, True):
            self.setUp()
            self.send("ABC")
            since = self.clock.seconds()
            self.clock.advance(150)
            if failed:
                self.feed.passtimes.add_outage(since)
            for journey in "ABC":
                self.send(journey)
            (repetition,) = self.feed.passtimes.repetitions.values()
            self.assertEqual(repetition.interval, None if failed else 150)

    def test_overdue_before_an_outage(self) -> None:
        """An outage does not make an overdue passtime reliable."""
        self.send()
        self.repeat("AB", 10, 2 * MINUTE)
        self.repeat("B", 10, 70)
        self.clock.advance(3 * MINUTE)
        self.assert_states("unknown")
        self.send("B")
        self.assert_states("unknown")

    def test_clock_set(self) -> None:
        """After the clock was set, a passtime that is still repeated is reliable; one that is not becomes overdue."""
        for step in (-HOUR, -20, 20, 4 * MINUTE):
            self.setUp()
            self.send()
            self.repeat("AB", 10, 2 * MINUTE)
            self.clock.rightNow += step
            self.repeat("AB", 10, 10)
            self.assert_states("current")
            self.repeat("AB", 10, 2 * MINUTE)
            self.repeat("B", 10, 2 * MINUTE)
            self.assert_states("unknown")

    def test_restart(self) -> None:
        """After a restart passtimes are as reliable as before, and the interval is known."""
        self.send()
        self.repeat("AB", 10, 2 * MINUTE)
        self.repeat("B", 10, 80)
        saved = list(records_of({}, self.feed))
        self.clock.advance(2 * MINUTE)
        restarted = live_feed(self.clock)
        for record in saved:
            for _ in restore(record, {}, restarted, self.clock.seconds(), self.fail):
                pass
        self.feed = restarted
        self.assert_states("unknown")
        self.send("B")
        self.assert_states("unknown")
        self.repeat("B", 10, 70)
        self.repeat("AB", 10, 10)
        self.assert_states("current")
        self.repeat("A", 10, 70)
        self.assert_states("current", "unknown")

    def test_operator_that_only_sends_messages(self) -> None:
        """General messages and new journeys of an operator do not make its other passtimes reliable."""
        for sent in (kv.general_message({}), kv.passtimes(row("new"))):
            self.setUp()
            self.send()
            self.repeat("AB", 10, MINUTE)
            for _ in range(8):
                self.clock.advance(10)
                ingest(self.feed, sent)
            states = self.states()
            self.assertEqual((states["A"], states["B"]), ("unknown", "unknown"))

    def test_return_after_an_absence(self) -> None:
        """A journey that returns does not extend the interval."""
        self.send()
        self.repeat("AB", 10, MINUTE)
        self.repeat("B", 10, 4 * MINUTE)
        self.repeat("AB", 10, 20)
        self.repeat("A", 10, 70)
        self.assert_states("current", "unknown")

    def test_final_states_stay(self) -> None:
        """What has passed or is cancelled stays so when it is no longer repeated."""
        self.send("AB")
        self.repeat("AB", 10, MINUTE)
        self.send("A", TripStopStatus="CANCEL", LastUpdateTimeStamp="2026-01-01T00:59:59+01:00")
        self.repeat("B", 10, 2 * MINUTE)
        status = {passtime.journey_number: passtime.reported_status for passtime in self.board().passtimes}
        self.assertEqual(status, {"A": "CANCEL", "B": "DRIVING"})
        (state,) = (
            row.state for row in run_now(stop_display(self.feed, self.board(), self.board().entries)).rows[:1]
        )
        self.assertEqual(state, "cancelled")

    def test_all_outputs(self) -> None:
        """Board, OVapi, KV55 and SIRI report an overdue passtime as unknown, and cached responses are renewed."""
        rendered: list[StopDepartures] = []

        def render_board(board: StopDepartures) -> Generator[None, None, bytes]:
            rendered.append(board)
            yield
            return b""

        def render() -> tuple[dict[str, str], ...]:
            boards = self.feed.boards
            boards.lookup(CODE, "test") or run_now(boards.render(CODE, HORIZON, "test", render_board))
            return tuple(outputs(self.feed, rendered[-1]))

        self.send()
        self.repeat("AB", 10, 2 * MINUTE)
        live = dict.fromkeys("AB", "DRIVING")
        self.assertEqual(render(), (dict.fromkeys("AB", "on_time"), live, live, live, dict.fromkeys("AB", "onTime")))
        self.repeat("B", 10, 70)
        unknown = {"A": "UNKNOWN", "B": "DRIVING"}
        self.assertEqual(
            render(), ({"A": "unknown", "B": "on_time"}, unknown, unknown, unknown, {"A": "noReport", "B": "onTime"})
        )
        self.send("A")
        self.assertEqual(render()[1], live)
        self.repeat("B", 10, 5 * MINUTE + 10)
        self.assertEqual(render()[0], {"A": "last_known", "B": "on_time"})

    def test_stop_without_repeated_departures(self) -> None:
        """The display of a stop is that of stale data if none of its departures is repeated."""
        self.send()
        self.send("C", TimingPointCode="2")
        self.repeat("AB", 10, MINUTE)
        self.repeat("C", 10, 2 * MINUTE, TimingPointCode="2")
        board = self.board()
        display = run_now(stop_display(self.feed, board, board.entries))
        self.assertEqual((display.state, display.as_of), ("last_known", NOW + MINUTE))


class VersionTests(RepetitionTestCase):
    """What a repetition invalidates."""

    def versions(self) -> tuple[object, ...]:
        """Return what cached departures of the stop depend on."""
        return self.feed.boards.version(CODE)

    def test_repetition_of_reliable_passtimes(self) -> None:
        """A repetition invalidates nothing, however long its interval is and whatever the row does not know."""
        for interval in (4, 40, 100):
            for columns in ({}, {"WheelChairAccessible": "UNKNOWN"}):
                self.setUp()
                self.send()
                self.repeat("AB", interval, 20 * interval)
                versions = self.versions()
                self.repeat("AB", interval, 20 * interval, **columns)
                self.assertEqual(self.versions(), versions)

    def test_repetition_of_an_overdue_passtime(self) -> None:
        """A passtime that was overdue changes its stop when it is repeated, and not before."""
        for columns in ({}, {"WheelChairAccessible": "UNKNOWN"}):
            self.setUp()
            self.send()
            self.repeat("AB", 10, 2 * MINUTE)
            versions = self.versions()
            self.repeat("B", 10, 70)
            self.assert_states("unknown")
            self.assertEqual(self.versions(), versions)
            self.send("A", **columns)
            self.assertEqual(self.feed.passtimes.reliability_version, versions[2])
            self.assertNotEqual(self.versions(), versions)
            self.assert_states("current")

    def test_repeated_values_stay_the_same_object(self) -> None:
        """What a row does not change is the same object, by which parsed values are cached."""
        self.send("A")
        (stored,) = self.feed.passtimes.stops[CODE].passtimes.values()
        values = stored.values
        for columns in ({}, {"WheelChairAccessible": "UNKNOWN"}):
            self.clock.advance(10)
            self.send("A", **columns)
            self.assertIs(stored.values, values)
        self.send("A", TripStopStatus="ARRIVED")
        self.assertIsNot(stored.values, values)

    def test_fluctuating_interval(self) -> None:
        """An interval that fluctuates invalidates nothing; one that differs by more than a fifth does."""
        self.send()
        self.repeat("AB", 30, 300)
        versions = self.versions()
        for interval in (31, 28, 33, 27, 34) * 4:
            self.repeat("AB", interval, 5 * interval)
        self.assertEqual(self.versions(), versions)
        self.repeat("B", 10, 140)
        self.assert_states("current")
        self.repeat("B", 10, 20)
        self.assert_states("unknown")
        self.repeat("AB", 60, HOUR)
        self.assertNotEqual(self.feed.passtimes.reliability_version, versions[2])

    def test_growing_interval(self) -> None:
        """An interval that grows invalidates nothing, unless a passtime was displayed as overdue before."""
        self.send()
        self.repeat("AB", 5, MINUTE)
        version = self.feed.passtimes.reliability_version
        for interval in (15, 25):
            self.repeat("AB", interval, 20 * interval)
            self.assert_states("current")
        self.assertEqual(self.feed.passtimes.reliability_version, version)
        self.repeat("B", 25, 200)
        self.assert_states("unknown")
        self.repeat("B", 60, 20 * 60)
        self.assertEqual(self.feed.passtimes.reliability_version, version + 1)

    def test_clock_set_back(self) -> None:
        """A clock that is set back invalidates everything: what was overdue may be current again."""
        self.send()
        self.repeat("AB", 10, 2 * MINUTE)
        version = self.feed.passtimes.reliability_version
        self.clock.rightNow -= 20
        self.send("B")
        self.assertNotEqual(self.feed.passtimes.reliability_version, version)


def outputs(feed: Feed, board: StopDepartures) -> list[dict[str, str]]:
    """Return the state of each journey in each kind of output."""
    rows = run_now(stop_display(feed, board, board.entries)).rows
    documents = OvapiDocuments(feed)
    journeys = (run_now(documents.journey(passtime.journey)) for passtime in board.passtimes)
    trips = [Kv55Feed("kv55", feed)._trip(passtime) for passtime in board.passtimes]
    visits = json.loads(SiriDocuments(feed).delivery(run_now(SiriDocuments(feed).visits(board, None, None))))
    calls = visits["Siri"]["ServiceDelivery"]["StopMonitoringDelivery"][0]["MonitoredStopVisit"]
    names = [passtime.journey_number for passtime in board.passtimes]
    return [
        {name: row.state for name, row in zip(names, rows, strict=True)},
        {passtime.journey_number: documents.passtime(passtime).TripStopStatus for passtime in board.passtimes},
        {
            name: json.loads(journey)["Stops"]["3"]["TripStopStatus"]
            for name, journey in zip(names, journeys, strict=True)
            if journey
        },
        {trip.journey_number or "": trip.trip_stop_status or "" for trip in trips},
        {
            name: call["MonitoredVehicleJourney"]["MonitoredCall"]["DepartureStatus"]
            for name, call in zip(names, calls, strict=True)
        },
    ]
