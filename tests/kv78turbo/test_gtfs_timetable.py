"""Tests of the feed with planning from GTFS."""

from datetime import timedelta

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.display import place_display
from govi_server.departures.times import HOUR, local_date
from govi_server.departures.timing_point import TimingPoint
from govi_server.kv78turbo.display import stop_display
from govi_server.kv78turbo.passtime import Passtime
from govi_server.runtime.cooperative import run_now
from tests import feed as kv
from tests.client import NOW
from tests.doubles import FakeSubscriber, ingest, live_feed
from tests.planning.files import Row, call, planning, temporary_directory

HORIZON = 2 * HOUR
CODE = "30000001"
TRIP = "LIN|L004|77|1001|0"
STOPS: list[Row] = [{}, {"stop_id": "30000002", "stop_name": "Lindedorp, Dijk"}, {"stop_id": "30000003"}]
CALLS = [call(TRIP, CODE, "01:30:00", 0), call(TRIP, "30000002", "01:40:00", 1)]


class GtfsTimetableTests(SynchronousTestCase):
    """A feed with a GTFS file."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.feed = live_feed(self.clock)

    def use(self, stops: list[Row] = STOPS, calls: list[Row] = CALLS, **rows: list[Row]) -> None:
        directory = temporary_directory(self)
        self.feed.use_planning(planning(directory, stops=stops, stop_times=calls, **rows))
        self.clock.pump([0.0] * 20)

    def passtimes(self, code: str = CODE) -> list[Passtime]:
        return list(self.feed.boards.board(code, HORIZON).passtimes)

    def test_names(self) -> None:
        """A planned passtime has its line and destination, and its stop a name, without any KV7."""
        self.use()
        (passtime,) = self.passtimes()
        timetable = self.feed.timetable
        self.assertEqual((passtime.provenance, passtime.trip_stop_status), ("gtfs", "PLANNED"))
        self.assertEqual(timetable.public_number(passtime), "4")
        self.assertEqual(timetable.destination(passtime), "Lindedorp via Brug")
        self.assertEqual(self.feed.timetable.timing_points["30000002"].name, "Lindedorp, Dijk")
        self.assertEqual(timetable.lines["LIN", "L004"].color, "e00713")
        self.assertEqual(self.feed.provenance, {"LIN": ("gtfs",)})

    def test_invalid_journey_key(self) -> None:
        """A key with the separator of the columns is that of no journey."""
        self.use()
        for key, n in (("LIN_77_L004_1001_0", 2), ("LIN|_77_L004_1001_0", 0), ("LIN_77_L004|1001_0_0", 0)):
            self.assertEqual(len(run_now(self.feed.journeys.passtimes(key))), n, key)
            self.assertEqual(self.feed.journeys.cost(key), 1)

    def test_lines_of_a_date(self) -> None:
        """The lines of an operator are counted by date; nothing is stored of operators and dates without any."""
        self.use()
        timetable, today = self.feed.timetable.gtfs, local_date(NOW)
        for _ in range(2):
            self.assertEqual(timetable.n_lines_on("LIN", today), 1)
            self.assertEqual(timetable.n_lines_on("LIN", today + timedelta(300)), 0)
            self.assertEqual(timetable.n_lines_on("OTHER", today), 0)
        self.assertEqual(list(timetable._n_lines), [("LIN", today)])

    def test_kv8_makes_it_live(self) -> None:
        """A row of KV8 replaces the planned passtime, whatever its service level and order, and gets its names."""
        self.use()
        self.assertEqual(len(self.passtimes()), 1)
        row = {"DestinationCode": "X", "LocalServiceLevelCode": "20260101", "UserStopOrderNumber": "17"}
        ingest(self.feed, kv.passtimes({**row, "WheelChairAccessible": None}))
        (passtime,) = self.passtimes()
        self.assertEqual((passtime.provenance, passtime.user_stop_order_number), ("kv8", "17"))
        self.assertEqual(self.feed.timetable.destination(passtime), "Lindedorp via Brug")
        self.assertEqual(passtime.line_direction, "1")

    def test_later_calls(self) -> None:
        """The stops at which a journey calls later are known for planned and for live passtimes."""
        self.use()
        timetable = self.feed.timetable

        def calls_later(code: str, *codes: str) -> bool:
            (entry,) = self.feed.boards.board(code, HORIZON).entries
            return timetable.calls_later(entry.key, entry.passtime, codes)

        for _ in ("planned", "live"):
            self.assertTrue(calls_later(CODE, "30000002"))
            self.assertFalse(calls_later(CODE, "30000003", CODE))
            self.assertFalse(calls_later("30000002", CODE))
            ingest(self.feed, kv.passtimes({"LocalServiceLevelCode": "20260101", "UserStopOrderNumber": "17"}))

    def test_usage(self) -> None:
        """Places have the modes and the departures of GTFS."""
        self.use()
        modes, n_departures = self.feed.timetable.usage(CODE)
        self.assertEqual(modes, {"bus"})
        self.assertGreater(n_departures, 0)
        self.assertEqual(self.feed.timetable.usage("30000003"), (frozenset(), 0))

    def test_fortified_journey(self) -> None:
        """A second vehicle of a journey, which GTFS does not have, is a departure of its own."""
        self.use()
        ingest(self.feed, kv.passtimes({}, {"FortifyOrderNumber": "1"}))
        self.assertEqual([passtime.provenance for passtime in self.passtimes()], ["kv8", "kv8"])

    def test_kv7_names_are_not_replaced(self) -> None:
        """Names of KV7 replace those of GTFS, and are not replaced by those of a later file; other names are."""
        self.use()
        ingest(self.feed, kv.planning(points=[{"TimingPointName": "Lindedorp, Oude Brug"}]))
        self.assertEqual(self.feed.timetable.timing_points[CODE].name, "Lindedorp, Oude Brug")
        self.use([{"stop_name": "Lindedorp, Brug"}, {"stop_id": "30000002", "stop_name": "Lindedorp, Weg"}])
        self.assertEqual(self.feed.timetable.timing_points[CODE].name, "Lindedorp, Oude Brug")
        self.assertEqual(self.feed.timetable.timing_points["30000002"].name, "Lindedorp, Weg")

    def test_snapshot_replaces_names(self) -> None:
        """The names of a snapshot replace those of GTFS, which are known already when it is restored."""
        ingest(self.feed, kv.planning(points=[{"TimingPointName": "Lindedorp, Oude Brug"}]))
        updates = list(self.feed.timetable.updates())
        self.feed = live_feed(self.clock)
        self.use()
        for update in updates:
            for _ in self.feed.timetable.restore(update, self.fail):
                pass
        self.assertEqual(self.feed.timetable.timing_points[CODE].name, "Lindedorp, Oude Brug")

    def test_names_stay(self) -> None:
        """The names of planning that is in use are not removed."""
        self.use()
        self.clock.advance(30 * 86400)
        for _ in self.feed.timetable.sweep():
            pass
        self.assertIsInstance(self.feed.timetable.timing_points.get(CODE), TimingPoint)
        self.assertIn(("LIN", "L004"), self.feed.timetable.lines)

    def test_two_calls_in_a_row(self) -> None:
        """Two calls in a row at one stop are one, so that none stays planned beside a live one."""
        turning = [call(TRIP, CODE, "01:30:00", 1), call(TRIP, CODE, "01:33:00", 2)]
        self.use(calls=[call(TRIP, "30000003", "01:20:00", 0), *turning, call(TRIP, "30000002", "01:40:00", 3)])
        (passtime,) = self.passtimes()
        self.assertEqual((passtime.target_arrival_time, passtime.target_departure_time), ("01:30:00", "01:33:00"))
        for order in ("5", "6"):
            ingest(self.feed, kv.passtimes({"UserStopOrderNumber": order}))
            self.assertEqual({passtime.provenance for passtime in self.passtimes()}, {"kv8"})

    def test_journey(self) -> None:
        """A journey has its planned passtimes, each live one in place of a planned one."""
        self.use()
        ingest(self.feed, kv.passtimes({"UserStopOrderNumber": "17"}))
        steps = self.feed.journeys.passtimes("LIN_77_L004_1001_0")
        try:
            while True:
                next(steps)
        except StopIteration as end:
            passtimes = sorted(end.value, key=lambda passtime: passtime.expected)
        self.assertEqual(
            [(passtime.timing_point_code, passtime.provenance) for passtime in passtimes],
            [(CODE, "kv8"), ("30000002", "gtfs")],
        )

    def test_before_the_feed_has_data(self) -> None:
        """Before any data, planned boards are served, a stop without departures is empty, other codes are unknown."""
        subscriber: object = FakeSubscriber("UNKNOWN")
        self.feed.subscriber = subscriber  # type: ignore[assignment]  # a double
        states = [self.freshness(code) for code in (CODE, "30000003", "30000004")]
        self.assertEqual(states, ["down", "down", "down"])
        self.use()
        states = [self.freshness(code) for code in (CODE, "30000003", "30000004")]
        self.assertEqual(states, ["stale", "stale", "unknown"])
        for code, state in ((CODE, "planned"), ("30000003", "none")):
            departures = self.feed.boards.board(code, HORIZON)
            display = run_now(stop_display(self.feed, departures, departures.entries))
            self.assertEqual((display.state, display.as_of), (state, None))  # no data that would have a time

    def test_similar_stops(self) -> None:
        """The display of a stop that does not exist names those that may be meant."""
        self.use()
        display = run_now(stop_display(self.feed, self.feed.boards.board("30000012", HORIZON), ()))
        self.assertEqual(display.state, "unknown")
        self.assertEqual(display.similar[:1], ("30000002 Lindedorp, Dijk",))
        self.assertEqual(len(display.similar), 3)
        for code in ("3", "3000000", "3000000123", "0"):  # no stop has as many digits
            display = run_now(stop_display(self.feed, self.feed.boards.board(code, HORIZON), ()))
            self.assertEqual(len(display.similar), 3, code)
        place = run_now(place_display("p3", "", "", [display]))
        self.assertEqual((place.state, place.similar), ("unknown", display.similar))

    def freshness(self, code: str) -> str:
        return self.feed.freshness(self.feed.boards.board(code, HORIZON))[0]
