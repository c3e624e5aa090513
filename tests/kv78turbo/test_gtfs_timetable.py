"""Tests of the feed with planning from GTFS."""

from datetime import timedelta

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.display import place_display
from govi_server.departures.times import HOUR, local_date
from govi_server.documents.siri import SiriDocuments, unknown_stop
from govi_server.kv78turbo import spread_version
from govi_server.kv78turbo.display import similar_stops, stop_display
from govi_server.kv78turbo.passtime import Passtime
from govi_server.kv78turbo.spread_version import MIN_SPREAD_SECONDS
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

    def name(self, code: str) -> str | None:
        point = self.feed.timetable.timing_point(code)
        return None if point is None else point.name

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
        self.assertEqual(self.name("30000002"), "Lindedorp, Dijk")
        line = timetable.line("LIN", "L004")
        self.assertEqual(line and line.color, "e00713")
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
        assert timetable is not None
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

    def test_call_moves_between_other_stops(self) -> None:
        """A stop is made anew when KV8 moves its call from another stop of the journey to one elsewhere, and back."""
        self.use()
        self.assertEqual(len(self.passtimes()), 1)
        version = self.feed.boards.version(CODE)
        for minute, (code, n_planned) in enumerate((("30000002", 1), ("30000003", 0), ("30000002", 1)), 10):
            moved = {"TimingPointCode": code, "LastUpdateTimeStamp": f"2026-01-01T00:{minute}:00+01:00"}
            ingest(self.feed, kv.passtimes(moved))
            if minute > 10:
                self.assertNotEqual(self.feed.boards.version(CODE), version, code)
            version = self.feed.boards.version(CODE)
            self.assertEqual(len(self.passtimes()), n_planned, code)

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

    def test_new_file(self) -> None:
        """A new file reaches the boards in memory: at once if they are few, else within MIN_SPREAD_SECONDS."""
        self.use()
        self.assertEqual([passtime.target_departure_time for passtime in self.passtimes()], ["01:30:00"])
        later = [call(TRIP, CODE, "01:35:00", 0), call(TRIP, "30000002", "01:45:00", 1)]
        self.use(calls=later)
        self.assertEqual([passtime.target_departure_time for passtime in self.passtimes()], ["01:35:00"])
        self.patch(spread_version, "MAX_STOPS_AT_ONCE", 0)
        self.use()
        self.assertEqual([passtime.target_departure_time for passtime in self.passtimes()], ["01:35:00"])
        self.clock.advance(MIN_SPREAD_SECONDS)
        self.assertEqual([passtime.target_departure_time for passtime in self.passtimes()], ["01:30:00"])

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
        self.assertEqual(self.name(CODE), "Lindedorp, Oude Brug")
        self.use([{"stop_name": "Lindedorp, Brug"}, {"stop_id": "30000002", "stop_name": "Lindedorp, Weg"}])
        self.assertEqual(self.name(CODE), "Lindedorp, Oude Brug")
        self.assertEqual(self.name("30000002"), "Lindedorp, Weg")

    def test_snapshots_have_no_names_of_gtfs(self) -> None:
        """Names of GTFS stay in its file: a snapshot has those of KV7 only, which precede them."""
        self.use()
        ingest(self.feed, kv.planning(points=[{"TimingPointName": "Lindedorp, Oude Brug"}], lines=[]))
        updates = list(self.feed.timetable.updates())
        self.assertEqual([code for update in updates for code in update.timing_points], [CODE])
        self.assertEqual([line for update in updates for line in update.lines], [])

    def test_stop_areas(self) -> None:
        """The stops of an area are those of KV7 and GTFS, each in the area that KV7 has for it."""
        stops: list[Row] = [
            {"stop_id": "area:1", "location_type": "1", "stop_name": "Lindedorp, Markt"},
            *({"stop_id": code, "parent_station": "area:1"} for code in (CODE, "30000002")),
        ]
        self.use(stops)
        timetable = self.feed.timetable
        self.assertEqual((list(timetable.areas()), timetable.area_stops("area:1")), (["area:1"], [CODE, "30000002"]))
        self.assertEqual((timetable.area_name("area:1"), timetable.area_name("2")), ("Lindedorp, Markt", None))
        ingest(self.feed, kv.planning(points=[{"StopAreaCode": "LdBrug"}]))
        self.assertEqual(sorted(timetable.areas()), ["LdBrug", "area:1"])
        self.assertEqual([timetable.area_stops(area) for area in timetable.areas()], [[CODE], ["30000002"]])
        self.assertEqual(sorted(self.feed.stop_codes), [CODE, "30000002"])

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

    def test_similar_stops_in_siri(self) -> None:
        """The error of SIRI names those stops, too."""
        self.use()
        documents = SiriDocuments(self.feed)
        body = documents.delivery([], unknown_stop(similar_stops(self.feed, "30000012")))
        self.assertIn(b'"Unknown MonitoringRef; similar: 30000002 Lindedorp, Dijk; ', body)

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
