"""KV7: what was planned."""

from collections import Counter
from datetime import UTC, date, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.times import HOUR
from govi_server.departures.timing_point import wgs84
from govi_server.kv78turbo import ctx
from govi_server.kv78turbo.kv7_timetable import KEPT_UNDATED, Timetable
from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.settings import PlanningSettings
from tests import feed
from tests.client import NOW

CODE = "30000001"
DAY = 86400.0


class TimetableTestCase(SynchronousTestCase):
    """Has a timetable at tests.client.NOW, which is 01:00 on 2026-01-01."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.refused: Counter[str] = Counter()
        self.kept = self.make()

    def make(self, limits: PlanningSettings = PlanningSettings()) -> Timetable:
        return Timetable(self.clock.seconds, lambda why: self.refused.update([why]), limits)

    def take(self, *messages: bytes) -> None:
        for message in messages:
            for update in self.kept.read(ctx.read([message], lambda why: self.refused.update([why]))):
                if update is not None:
                    self.kept.apply(update)

    def departures(
        self, since: float = NOW, until: float = NOW + DAY, code: str = CODE
    ) -> list[tuple[str, str, str | None]]:
        """List operating date, journey and departure of what is planned."""
        found = (one for _, one in self.kept.passes(code, since, until))
        return sorted(
            (one.operation_date.isoformat(), one.journey_number, one.target_departure_time) for one in found
        )


class PlanningTests(TimetableTestCase):
    """Lines, stops and planned passes."""

    def test_pass(self) -> None:
        """A planned pass is one of each date on which its service level runs, with the key that KV8 has for it."""
        self.take(feed.planning({}), feed.calendar("2026-01-01", "2026-01-02", "2026-01-05"))
        (key, one), *more = self.kept.passes(CODE, NOW, NOW + 2 * DAY)
        self.assertEqual(key, b"LIN|77|L004|1001|0|2026-01-01|3|u1")
        self.assertEqual([other.operation_date for _, other in more], [date(2026, 1, 2)])
        self.assertEqual(
            (one.trip_stop_status, one.target_departure, one.wheelchair), ("PLANNED", NOW + 1800, "ACCESSIBLE")
        )
        self.assertEqual((one.expected_departure_time, one.product_formula_type), ("01:30:00", "18"))
        self.assertEqual((self.kept.public_number(one), self.kept.destination(one)), ("4", "Lindedorp via Brug"))
        self.assertEqual(self.refused, {})

    def test_window(self) -> None:
        """What is planned before or after is not given."""
        self.take(feed.planning({}), feed.calendar("2026-01-01"))
        for since, until, count in ((1799, 1801, 1), (1801, 9999, 0), (0, 1799, 0), (1800, 1800, 1)):
            self.assertEqual(len(self.departures(NOW + since, NOW + until)), count, (since, until))

    def test_no_calendar(self) -> None:
        """Without a date nothing runs; the calendar may come after the planning."""
        self.take(feed.planning({}))
        self.assertEqual(self.departures(), [])
        self.take(feed.calendar("2026-01-01"))
        self.assertEqual(len(self.departures()), 1)

    def test_past_midnight(self) -> None:
        """Yesterday's journeys run on past 24:00."""
        self.take(feed.planning({"TargetArrivalTime": "25:30:00", "TargetDepartureTime": "25:30:00"}))
        self.take(feed.calendar("2025-12-31"))
        self.assertEqual(self.departures(NOW, NOW + HOUR), [("2025-12-31", "1001", "25:30:00")])

    def test_clocks_change(self) -> None:
        """On the nights in which the clocks change a time is the one on the wall."""
        for day, hours in (("2026-03-28", 1), ("2026-10-24", 3)):
            self.setUp()
            midnight = datetime.fromisoformat(day).replace(tzinfo=LOCAL_ZONE).timestamp()
            self.clock.rightNow = midnight + 12 * HOUR
            rows = [
                {"TargetArrivalTime": t, "TargetDepartureTime": t, "JourneyNumber": t[:2]}
                for t in ("25:30:00", "27:30:00")
            ]
            self.take(feed.planning(*rows), feed.calendar(day))
            moments = [one.target_departure or 0 for _, one in self.kept.passes(CODE, midnight, midnight + 2 * DAY)]
            self.assertEqual(max(moments) - min(moments), hours * HOUR)

    def test_last_and_infopoint(self) -> None:
        """At LAST nothing departs, at midnight least of all; an INFOPOINT is no stop."""
        last = {"JourneyStopType": "LAST", "TargetDepartureTime": "00:00:00"}
        self.take(
            feed.planning(last, {"JourneyStopType": "INFOPOINT", "JourneyNumber": "2"}), feed.calendar("2026-01-01")
        )
        ((_, one),) = self.kept.passes(CODE, NOW - DAY, NOW + DAY)
        self.assertEqual((one.target_departure, one.target_arrival, one.is_departure), (None, NOW + 1800, False))

    def test_not_shown(self) -> None:
        """Without a departure the arrival counts; what has no time at all is not planned."""
        rows = (
            {"JourneyNumber": "2", "TargetArrivalTime": None, "TargetDepartureTime": ""},
            {"JourneyNumber": "3", "TargetDepartureTime": ""},
            {"JourneyNumber": "4", "TargetDepartureTime": None},
            {"JourneyNumber": "5", "TargetArrivalTime": None},
        )
        self.take(feed.planning(*rows), feed.calendar("2026-01-01"))
        self.assertEqual(([journey for _, journey, _ in self.departures()], self.refused), (["3", "4", "5"], {}))

    def test_codes_move(self) -> None:
        """A user stop that moves to another TimingPoint takes its passes along."""
        self.take(feed.planning({}), feed.calendar("2026-01-01"))
        self.take(feed.planning(user_stops=[{"TimingPointCode": "30000002"}]))
        self.assertEqual((self.departures(), len(self.departures(code="30000002"))), ([], 1))

    def test_areas(self) -> None:
        """A stop is in the area that it was last said to be in."""
        self.take(feed.planning())
        self.assertEqual(self.kept.points_of_area, {"LdBrug": {CODE: None}})
        self.take(feed.planning(points=[{"StopAreaCode": "Other"}]))
        self.assertEqual(
            {area: list(codes) for area, codes in self.kept.points_of_area.items() if codes}, {"Other": [CODE]}
        )

    def test_patterns_and_journey(self) -> None:
        """A line's stops by pattern and order, and a journey's by its key."""
        rows = [{}, {"UserStopOrderNumber": "10", "UserStopCode": "u2", "IsTimingStop": "1"}]
        stops = [{}, {"UserStopCode": "u2", "TimingPointCode": "30000002"}]
        self.take(feed.planning(*rows, user_stops=stops), feed.calendar("2026-01-01"))
        self.assertEqual(self.kept.patterns("LIN", "L004", "1"), {"900": {3: (CODE, False), 10: ("30000002", True)}})
        self.assertEqual(self.kept.patterns("LIN", "L004", "2"), {})
        self.assertEqual(len(self.kept.journey(b"LIN|77|L004|1001|0|", NOW)), 2)
        self.assertEqual(self.kept.journey(b"LIN|77|L004|1002|0|", NOW), {})


class PublicationTests(TimetableTestCase):
    """What replaces what."""

    def test_newest_wins(self) -> None:
        """A newer publication of a service level's line replaces it whole, an older one changes nothing."""
        self.take(feed.planning({}, {"JourneyNumber": "2"}), feed.calendar("2026-01-01"))
        self.take(feed.planning({"JourneyNumber": "3"}, published="2025-12-30T03:00:00+01:00"))
        self.assertEqual([journey for _, journey, _ in self.departures()], ["1001", "2"])
        self.take(feed.planning({"JourneyNumber": "3"}, published="2026-01-01T01:00:00+01:00"))
        self.assertEqual([journey for _, journey, _ in self.departures()], ["3"])
        self.assertEqual(self.kept.n_planned, 1)

    def test_far_future(self) -> None:
        """A publication from a far future, or of no moment, is one of now, and the next replaces it."""
        for published in ("2099-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "soon", ""):
            self.setUp()
            self.take(feed.planning({}, published=published), feed.calendar("2026-01-01", published=published))
            self.assertEqual([journey for _, journey, _ in self.departures()], ["1001"], published)
            self.take(feed.planning({"JourneyNumber": "2"}, published="2026-01-01T01:00:01+01:00"))
            self.assertEqual([journey for _, journey, _ in self.departures()], ["2"], published)

    def test_pieces(self) -> None:
        """Pieces of one publication come together, and the same one twice is one."""
        for rows in ({}, {"JourneyNumber": "2"}, {"JourneyNumber": "2"}):
            self.take(feed.planning(rows))
        self.take(feed.calendar("2026-01-01"))
        self.assertEqual(([journey for _, journey, _ in self.departures()], self.kept.n_planned), (["1001", "2"], 2))

    def test_calendar(self) -> None:
        """The newest dates of a service level win, whole."""
        self.take(feed.planning({}), feed.calendar("2026-01-01"))
        self.take(feed.calendar("2026-01-02", published="2025-12-30T03:00:00+01:00"))
        self.assertEqual([day for day, _, _ in self.departures(NOW, NOW + 3 * DAY)], ["2026-01-01"])
        self.take(feed.calendar("2026-01-03", published="2026-01-01T01:00:00+01:00"))
        self.assertEqual([day for day, _, _ in self.departures(NOW, NOW + 3 * DAY)], ["2026-01-03"])

    def test_at_once(self) -> None:
        """Until a message is whole nothing of it is seen."""
        self.take(feed.planning({}), feed.calendar("2026-01-01"))
        newer = feed.planning({"JourneyNumber": "3"}, published="2026-01-01T01:00:00+01:00")
        for update in self.kept.read(ctx.read([newer], self.fail)):
            self.assertEqual([journey for _, journey, _ in self.departures()], ["1001"])
            if update is not None:
                self.kept.apply(update)
        self.assertEqual([journey for _, journey, _ in self.departures()], ["3"])

    def test_sweep(self) -> None:
        """Service levels go the day after their last, and those without a date after a week; then nothing is left."""
        self.take(feed.planning({}, {"LocalServiceLevelCode": "78"}), feed.calendar("2026-01-01"))
        self.clock.rightNow = datetime(2026, 1, 2, 22, tzinfo=UTC).timestamp()
        self.kept.sweep()
        self.assertEqual(self.kept.n_planned, 2)
        self.clock.rightNow = datetime(2026, 1, 2, 23, tzinfo=UTC).timestamp()
        self.kept.sweep()
        self.assertEqual(self.kept.n_planned, 1)
        self.clock.rightNow = NOW + KEPT_UNDATED
        self.kept.sweep()
        self.assertEqual((self.kept.n_planned, self.kept.plans(CODE)), (0, False))

    def test_updates(self) -> None:
        """What is known can be told again to another timetable."""
        self.take(feed.planning({}), feed.calendar("2026-01-01"))
        before, other = self.departures(), self.make()
        for update in self.kept.updates():
            other.apply(update)
        self.kept = other
        self.assertEqual((self.departures(), other.n_planned, other.directions), (before, 1, {}))
        self.assertTrue(other.knows(CODE))


class BadInputTests(TimetableTestCase):
    """What is refused, while the rest is kept."""

    def test_refused(self) -> None:
        """Bad records are counted by kind."""
        for row, why in (
            ({"TargetDepartureTime": "99:99:99"}, "time"),
            ({"TargetArrivalTime": "1:00:00"}, "time"),
            ({"JourneyNumber": None}, "key"),
            ({"UserStopOrderNumber": "x"}, "key"),
            ({"LinePlanningNumber": ""}, "key"),
        ):
            self.setUp()
            self.take(feed.planning({"JourneyNumber": "2"}, row), feed.calendar("2026-01-01"))
            self.assertEqual((self.refused, self.kept.n_planned), ({why: 1}, 1), row)
        self.setUp()
        self.take(feed.calendar("2026-13-01", "1970-01-01", "2026-01-01"))
        self.assertEqual(self.refused, {"date": 2})

    def test_columns(self) -> None:
        """A table without a key column is refused, row by row; one without others is read."""
        columns = [label for label in feed.TABLES["LOCALSERVICEGROUPPASSTIME"] if label != "JourneyNumber"]
        self.take(feed.message("KV7turbo_planning", feed.table("LOCALSERVICEGROUPPASSTIME", [{}, {}], columns)))
        self.take(feed.message("KV7turbo_planning", feed.table("LINE", [{}], ["LineName"])))
        self.assertEqual(self.refused, {"key column": 3})
        self.take(
            feed.message("KV7turbo_planning", feed.table("LINE", [{}], ["LinePlanningNumber", "DataOwnerCode"]))
        )
        self.assertIsNone(self.kept.lines["LIN", "L004"].name)

    def test_names(self) -> None:
        """Of stops, lines and the like there are so many and no more; those that are known may change."""
        self.kept = self.make(PlanningSettings(names=2))
        self.take(feed.planning(points=[{"TimingPointCode": str(n)} for n in range(5)]))
        self.assertEqual((list(self.kept.timing_points), self.refused), (["0", "1"], {"too many names": 3}))
        self.take(feed.planning(points=[{"TimingPointCode": "1", "TimingPointName": "Other"}]))
        self.assertEqual(self.kept.timing_points["1"].name, "Other")

    def test_limit(self) -> None:
        """What is more than may be kept is refused."""
        self.kept = self.make(PlanningSettings(planned=2))
        self.take(feed.planning(*({"JourneyNumber": str(n)} for n in range(5))))
        self.assertEqual((self.refused, self.kept.n_planned), ({"too many planned passes": 3}, 2))

    @settings(deadline=None)
    @given(st.sampled_from(list(feed.TABLES)), st.text(max_size=8), st.data())
    def test_anything(self, table: str, value: str, data: st.DataObject) -> None:
        """Whatever is in a field, nothing is raised, and what is planned can be asked for."""
        self.setUp()
        label = data.draw(st.sampled_from(list(feed.TABLES[table])))
        self.take(feed.planning({}), feed.calendar("2026-01-01"))
        self.take(feed.message("KV7turbo_planning", feed.table(table, [{label: value}])))
        for code in list(self.kept.timing_points):
            list(self.kept.passes(code, NOW, NOW + DAY))
        self.kept.patterns("LIN", "L004", "1")
        self.kept.sweep()


class PositionTests(TimetableTestCase):
    """RD coordinates."""

    def test_reference(self) -> None:
        """Amersfoort, the origin of RD, and the Westertoren of Amsterdam, to a metre."""
        for x, y, longitude, latitude in (
            (155000, 463000, 5.387206, 52.155174),
            (120700, 487525, 4.883528, 52.374534),
        ):
            found = wgs84(x, y)
            self.assertLess(abs(found[0] - longitude), 3e-5)
            self.assertLess(abs(found[1] - latitude), 2e-5)

    def test_none(self) -> None:
        """(0, 0), and what is no coordinate, is no position."""
        for x, y in (("0", "0"), (None, None), ("x", "463000"), ("155000", "-1"), ("99999999", "1")):
            self.take(feed.planning(points=[{"LocationX_EW": x, "LocationY_NS": y}]))
            self.assertIsNone(self.kept.timing_points[CODE].position)
