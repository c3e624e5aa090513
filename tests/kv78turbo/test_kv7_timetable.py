"""Tests of kv78turbo.kv7_timetable and kv7_reader: reading, applying and looking up planning."""

import gc
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.times import HOUR
from govi_server.departures.timing_point import wgs84
from govi_server.kv78turbo import ctx
from govi_server.kv78turbo.kv7_reader import Update
from govi_server.kv78turbo.kv7_tables import STEP_ENTRIES, UNDATED_SECONDS
from govi_server.kv78turbo.kv7_timetable import Timetable
from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.runtime.cooperative import run_now
from govi_server.settings import PlanningSettings
from tests import feed
from tests.client import NOW

CODE = "30000001"
DAY = 86400.0


class TimetableTestCase(SynchronousTestCase):
    """A timetable at tests.client.NOW, which is 01:00 on 2026-01-01 in the Netherlands."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.rejected: Counter[str] = Counter()
        self.timetable = self.make_timetable()

    def make_timetable(self, limits: PlanningSettings = PlanningSettings()) -> Timetable:  # it is frozen
        return Timetable(self.clock.seconds, limits)

    def reject(self, kind: str) -> None:
        self.rejected[kind] += 1

    def ingest(self, *messages: bytes) -> None:
        for message in messages:
            for update in self.timetable.read(ctx.read([message], self.reject), self.reject):
                if update is not None:
                    self.apply(update)

    def apply(self, update: Update) -> None:
        for _ in self.timetable.apply(update, self.reject):
            pass

    def sweep(self) -> None:
        for _ in self.timetable.sweep():
            pass

    def departures(
        self, since: float = NOW, until: float = NOW + DAY, code: str = CODE
    ) -> list[tuple[str, str, str | None]]:
        """Return operating date, journey and departure of the planned passtimes."""
        return sorted(
            (passtime.operation_date.isoformat(), passtime.journey_number, passtime.target_departure_time)
            for passtime in (call.make() for call in self.timetable.passtimes(code, since, until) if call)
        )

    def journeys(self) -> list[str]:
        return [journey for _, journey, _ in self.departures()]

    def dates(self) -> list[str]:
        return [day for day, _, _ in self.departures(NOW, NOW + 3 * DAY)]


class LookUpTests(TimetableTestCase):
    """Looking up planned passtimes, patterns and journeys."""

    def test_passtime_on_each_date(self) -> None:
        """A planned passtime exists on each date of its service level, with the key that it has in KV8."""
        self.ingest(feed.planning({}), feed.calendar("2026-01-01", "2026-01-02", "2026-01-05"))
        call, *more = filter(None, self.timetable.passtimes(CODE, NOW, NOW + 2 * DAY))
        key, passtime = call.key, call.make()
        self.assertEqual(key, b"LIN|77|L004|1001|0|2026-01-01|3")
        self.assertEqual([other.day for other in more], [date(2026, 1, 2)])
        self.assertEqual(
            (passtime.trip_stop_status, passtime.target_departure, passtime.wheelchair),
            ("PLANNED", NOW + 1800, "ACCESSIBLE"),
        )
        self.assertEqual((passtime.expected_departure_time, passtime.product_formula_type), ("01:30:00", "18"))
        self.assertEqual(self.timetable.public_number(passtime), "4")
        self.assertEqual(self.timetable.destination(passtime), "Lindedorp via Brug")
        self.assertEqual(self.rejected, {})

    def test_window_bounds_passtimes(self) -> None:
        """Passtimes before or after the window are left out."""
        self.ingest(feed.planning({}), feed.calendar("2026-01-01"))
        for since, until, count in ((1799, 1801, 1), (1801, 9999, 0), (0, 1799, 0), (1800, 1800, 1)):
            self.assertEqual(len(self.departures(NOW + since, NOW + until)), count, (since, until))

    def test_calendar_after_planning(self) -> None:
        """Without dates there are no passtimes; the calendar may arrive after the planning."""
        self.ingest(feed.planning({}))
        self.assertEqual(self.departures(), [])
        self.ingest(feed.calendar("2026-01-01"))
        self.assertEqual(len(self.departures()), 1)

    def test_times_past_midnight(self) -> None:
        """Times past 24:00 are on the day after the operating date."""
        self.ingest(feed.planning({"TargetArrivalTime": "25:30:00", "TargetDepartureTime": "25:30:00"}))
        self.ingest(feed.calendar("2025-12-31"))
        self.assertEqual(self.departures(NOW, NOW + HOUR), [("2025-12-31", "1001", "25:30:00")])

    def test_times_are_local(self) -> None:
        """Times are local when daylight saving time begins or ends."""
        for day, hours in (("2026-03-28", 1), ("2026-10-24", 3)):
            self.setUp()
            midnight = datetime.fromisoformat(day).replace(tzinfo=LOCAL_ZONE).timestamp()
            self.clock.rightNow = midnight + 12 * HOUR
            rows = [
                {"TargetArrivalTime": t, "TargetDepartureTime": t, "JourneyNumber": t[:2]}
                for t in ("25:30:00", "27:30:00")
            ]
            self.ingest(feed.planning(*rows), feed.calendar(day))
            moments = [
                passtime.target_departure or 0
                for passtime in (
                    call.make() for call in self.timetable.passtimes(CODE, midnight, midnight + 2 * DAY) if call
                )
            ]
            self.assertEqual(max(moments) - min(moments), hours * HOUR)

    def test_last_has_no_departure(self) -> None:
        """A LAST stop has no departures, although its time is 00:00:00; an INFOPOINT has no passtimes."""
        last = {"JourneyStopType": "LAST", "TargetDepartureTime": "00:00:00"}
        self.ingest(
            feed.planning(last, {"JourneyStopType": "INFOPOINT", "JourneyNumber": "2"}), feed.calendar("2026-01-01")
        )
        (call,) = filter(None, self.timetable.passtimes(CODE, NOW - DAY, NOW + DAY))
        passtime = call.make()
        self.assertEqual((passtime.target_departure, passtime.target_arrival), (None, NOW + 1800))
        self.assertFalse(passtime.is_departure)

    def test_arrival_without_departure(self) -> None:
        """Without a departure time the arrival counts; rows without any time are not passtimes."""
        rows = (
            {"JourneyNumber": "2", "TargetArrivalTime": None, "TargetDepartureTime": ""},
            {"JourneyNumber": "3", "TargetDepartureTime": ""},
            {"JourneyNumber": "4", "TargetDepartureTime": None},
            {"JourneyNumber": "5", "TargetArrivalTime": None},
        )
        self.ingest(feed.planning(*rows), feed.calendar("2026-01-01"))
        self.assertEqual((self.journeys(), self.rejected), (["3", "4", "5"], {}))

    def test_user_stop_moves(self) -> None:
        """The passtimes of a user stop move with it to another TimingPoint."""
        self.ingest(feed.planning({}), feed.calendar("2026-01-01"))
        self.ingest(feed.planning(user_stops=[{"TimingPointCode": "30000002"}]))
        self.assertEqual((self.departures(), len(self.departures(code="30000002"))), ([], 1))

    def test_stop_changes_area(self) -> None:
        """A stop is in the area of its latest row."""
        self.ingest(feed.planning())
        self.assertEqual(self.timetable.points_of_area, {"LdBrug": {CODE: None}})
        self.ingest(feed.planning(points=[{"StopAreaCode": "Other"}]))
        self.assertEqual(
            {area: list(codes) for area, codes in self.timetable.points_of_area.items() if codes}, {"Other": [CODE]}
        )

    def test_patterns_and_journey(self) -> None:
        """Stops of a line are found by pattern and order, passtimes of a journey by its key."""
        rows = [{}, {"UserStopOrderNumber": "10", "UserStopCode": "u2", "IsTimingStop": "1"}]
        stops = [{}, {"UserStopCode": "u2", "TimingPointCode": "30000002"}]
        self.ingest(feed.planning(*rows, user_stops=stops), feed.calendar("2026-01-01"))
        self.assertEqual(
            run_now(self.timetable.patterns("LIN", "L004", "1")), {"900": {3: (CODE, False), 10: ("30000002", True)}}
        )
        self.assertEqual(run_now(self.timetable.patterns("LIN", "L004", "2")), {})
        self.assertEqual(len(list(self.timetable.journey(b"LIN|77|L004|1001|0|", NOW))), 2)
        self.assertEqual(list(self.timetable.journey(b"LIN|77|L004|1002|0|", NOW)), [])


class PublicationTests(TimetableTestCase):
    """The order in which publications supersede each other."""

    def test_newer_planning_supersedes(self) -> None:
        """A newer publication of a service level's line replaces all of it; an older one is ignored."""
        self.ingest(feed.planning({}, {"JourneyNumber": "2"}), feed.calendar("2026-01-01"))
        self.ingest(feed.planning({"JourneyNumber": "3"}, published="2025-12-30T03:00:00+01:00"))
        self.assertEqual(self.journeys(), ["1001", "2"])
        self.ingest(feed.planning({"JourneyNumber": "3"}, published="2026-01-01T01:00:00+01:00"))
        self.assertEqual(self.journeys(), ["3"])
        self.assertEqual(self.timetable.n_planned, 1)

    def test_future_publication_is_superseded(self) -> None:
        """A publication from the far future, or without a valid time, counts as published now."""
        for published in ("2099-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "soon", ""):
            self.setUp()
            self.ingest(feed.planning({}, published=published), feed.calendar("2026-01-01", published=published))
            self.assertEqual(self.journeys(), ["1001"], published)
            self.ingest(feed.planning({"JourneyNumber": "2"}, published="2026-01-01T01:00:01+01:00"))
            self.assertEqual(self.journeys(), ["2"], published)

    def test_parts_are_combined(self) -> None:
        """Parts of one publication are combined, and repeated ones count once."""
        for rows in ({}, {"JourneyNumber": "2"}, {"JourneyNumber": "2"}):
            self.ingest(feed.planning(rows))
        self.ingest(feed.calendar("2026-01-01"))
        self.assertEqual((self.journeys(), self.timetable.n_planned), (["1001", "2"], 2))

    def test_newer_calendar_supersedes(self) -> None:
        """The latest dates of a service level replace all earlier ones."""
        self.ingest(feed.planning({}), feed.calendar("2026-01-01"))
        self.ingest(feed.calendar("2026-01-02", published="2025-12-30T03:00:00+01:00"))
        self.assertEqual(self.dates(), ["2026-01-01"])
        self.ingest(feed.calendar("2026-01-03", published="2026-01-01T01:00:00+01:00"))
        self.assertEqual(self.dates(), ["2026-01-03"])

    def test_message_takes_effect_when_complete(self) -> None:
        """A message has no effect before it is complete."""
        self.ingest(feed.planning({}), feed.calendar("2026-01-01"))
        newer = feed.planning({"JourneyNumber": "3"}, published="2026-01-01T01:00:00+01:00")
        for update in self.timetable.read(ctx.read([newer], self.fail), self.fail):
            self.assertEqual(self.journeys(), ["1001"])
            if update is not None:
                self.apply(update)
        self.assertEqual(self.journeys(), ["3"])

    def test_sweep_removes_expired_levels(self) -> None:
        """Service levels are removed after their last date, and those without dates after a week."""
        self.ingest(feed.planning({}, {"LocalServiceLevelCode": "78"}), feed.calendar("2026-01-01"))
        self.clock.rightNow = datetime(2026, 1, 2, 22, tzinfo=UTC).timestamp()
        self.sweep()
        self.assertEqual(self.timetable.n_planned, 2)
        self.clock.rightNow = datetime(2026, 1, 2, 23, tzinfo=UTC).timestamp()
        self.sweep()
        self.assertEqual(self.timetable.n_planned, 1)
        self.clock.rightNow = NOW + UNDATED_SECONDS
        self.sweep()
        self.assertEqual((self.timetable.n_planned, self.timetable.has_planning(CODE)), (0, False))

    def test_updates_restore_timetable(self) -> None:
        """The updates of a timetable restore it in another one."""
        self.ingest(feed.planning({}), feed.calendar("2026-01-01"))
        before, other = self.departures(), self.make_timetable()
        for update in self.timetable.updates():
            for _ in other.apply(update, self.fail):
                pass
        self.timetable = other
        self.assertEqual((self.departures(), other.n_planned, other.directions), (before, 1, {}))
        self.assertTrue(other.is_known_stop(CODE))


class WorkTests(TimetableTestCase):
    """The work of each step, and of the garbage collector."""

    def removed(self, steps: Iterator[None]) -> list[int]:
        """Return how many planned passtimes each step removes."""
        removed = []
        before = self.timetable.n_planned
        for _ in steps:
            removed.append(before - self.timetable.n_planned)
            before = self.timetable.n_planned
        return removed

    def test_sweep_removes_a_group_per_step(self) -> None:
        """The passtimes of a night, which expire together, are removed in steps of one line each."""
        lines = [{"LinePlanningNumber": f"L{n}", "JourneyNumber": str(i)} for n in range(20) for i in range(3)]
        self.ingest(feed.planning(*lines), feed.calendar("2026-01-01"))
        self.clock.advance(3 * DAY)
        self.assertEqual(max(self.removed(self.timetable.sweep())), 3)
        self.assertEqual(self.timetable.n_planned, 0)

    def test_parts_are_combined_in_steps(self) -> None:
        """Passtimes that are added to a publication are merged in steps; what arrives meanwhile is not lost."""
        stops = [{"UserStopCode": f"u{n}", "UserStopOrderNumber": str(n)} for n in range(2 * STEP_ENTRIES)]
        self.ingest(feed.planning(*stops, published="2026-01-01T00:59:00+01:00"))
        updates: list[Update] = []
        for rows in ([{"JourneyNumber": "2", **stop} for stop in stops], [{"JourneyNumber": "3"}]):
            message = feed.planning(*rows, published="2026-01-01T00:59:00+01:00")
            updates += filter(None, self.timetable.read(ctx.read([message], self.fail), self.fail))
        merging = self.timetable.apply(updates[0], self.fail)
        for _ in range(3):
            next(merging)
        self.assertEqual(self.timetable.n_planned, len(stops))
        self.apply(updates[1])
        self.assertEqual(self.timetable.n_planned, len(stops) + 1)
        for _ in merging:
            pass
        self.assertEqual(self.timetable.n_planned, 2 * len(stops) + 1)

    def test_planned_passtimes_are_not_garbage_collected(self) -> None:
        """A full collection visits no objects of planned passtimes, of which a country has millions."""
        rows = [
            {"LinePlanningNumber": f"L{line}", "UserStopCode": f"u{n}", "UserStopOrderNumber": str(n)}
            for line in range(20)
            for n in range(50)
        ]
        points = [{"UserStopCode": f"u{n}", "TimingPointCode": str(n)} for n in range(50)]
        message = feed.planning(*rows, points=points, user_stops=points)
        gc.collect()
        before = len(gc.get_objects())
        self.ingest(message)
        gc.collect()
        self.assertEqual((self.timetable.n_planned, len(self.timetable.timing_points)), (1000, 50))
        self.assertLess(len(gc.get_objects()) - before, 100)  # tables that grew, and whatever else the process made


CODES = ("30000001", "30000002", "30000003")
OTHER = {"UserStopCode": "u2", "TimingPointCode": CODES[1]}
LATER = "2026-01-01T01:00:00+01:00"

MESSAGES = (
    *(feed.planning({"UserStopCode": f"u{n}"}, user_stops=[], points=[], destinations=[]) for n in (1, 2)),
    *(feed.planning({"UserStopCode": f"u{n}", "JourneyNumber": "2"}, published=LATER) for n in (1, 2)),
    feed.planning({"UserStopCode": "u2", "LocalServiceLevelCode": "78"}, user_stops=[OTHER], points=[OTHER]),
    feed.planning(user_stops=[{"TimingPointCode": CODES[2]}]),
    feed.planning(points=[{"TimingPointName": "New"}], destinations=[{"DestinationName50": "New"}]),
    feed.planning(lines=[{"LinePublicNumber": "5"}, {"LinePlanningNumber": "L005"}, {"LinePlanningNumber": "L006"}]),
    feed.planning(points=[{"TimingPointCode": code} for code in CODES]),
    feed.calendar("2026-01-01"),
    feed.calendar("2026-01-01", "2026-01-02"),
    feed.calendar("2026-01-02", published=LATER),
    *(feed.calendar("2026-01-01", level={"LocalServiceLevelCode": level}) for level in ("78", "79", "80")),
)
"""Messages that change each other's data."""


class VersionTests(TimetableTestCase):
    """The versions of stops, which validate cached boards."""

    def versions(self) -> list[tuple[int, int]]:
        return [self.timetable.version_of(code) for code in CODES]

    def changed(self, *messages: bytes) -> list[str]:
        """Ingest messages; return the codes whose version has changed."""
        before = self.versions()
        self.ingest(*messages)
        return [code for code, old, new in zip(CODES, before, self.versions(), strict=True) if old != new]

    def view(self, code: str) -> object:
        """Return what the board of a stop depends on."""
        timetable = self.timetable
        return timetable.timing_points.get(code), [
            (call.key, passtime, timetable.line_name(passtime), timetable.public_number(passtime), names)
            for call in filter(None, timetable.passtimes(code, NOW, NOW + 2 * DAY))
            for passtime in [call.make()]
            for names in [timetable.destination(passtime)]
        ]

    def test_changes_of_one_stop(self) -> None:
        """Planned passtimes, dates and the stop's own names change the version of that stop only."""
        one, other = {"UserStopCode": "u1"}, {"UserStopCode": "u2", "LocalServiceLevelCode": "78"}
        self.ingest(feed.planning(one, other, points=[{}, OTHER], user_stops=[{}, OTHER]))
        for changed, message in (
            (CODES[:1], feed.planning({"JourneyNumber": "2"}, points=(), user_stops=(), published=LATER)),
            (CODES[:1], feed.planning({"LinePlanningNumber": "L005"}, points=(), user_stops=(), published=LATER)),
            (CODES[1:2], feed.calendar("2026-01-01", level={"LocalServiceLevelCode": "78"})),
            (CODES[:1], feed.calendar("2026-01-01")),
            (CODES[1:2], feed.planning(points=[{**OTHER, "TimingPointName": "New"}])),
            (CODES[:2], feed.planning(user_stops=[{"TimingPointCode": CODES[1]}])),
        ):
            self.assertEqual(self.changed(message), [*changed])

    def test_repeated_names_and_dates_change_nothing(self) -> None:
        """Names and dates that are published again do not change versions; new and different names change all."""
        calendar = feed.calendar("2026-01-01")
        self.ingest(feed.planning({}), calendar)
        self.assertEqual(self.changed(feed.planning(published=LATER), feed.calendar("2026-01-01")), [])
        self.assertEqual(self.changed(feed.planning(destinations=[{"DestinationName50": "New"}])), [*CODES])
        line: feed.Row = {"LinePlanningNumber": "L005"}
        self.assertEqual(self.changed(feed.planning(lines=[line], destinations=())), [*CODES])
        self.assertEqual(self.changed(feed.planning(destinations=[{"DestinationCode": "D2"}])), [*CODES])

    def test_evicted_dates(self) -> None:
        """Dates that are evicted change versions."""
        self.timetable = self.make_timetable(PlanningSettings(names=2))
        self.ingest(feed.planning({}), feed.calendar("2026-01-01"))
        self.assertEqual(len(self.departures()), 1)
        levels: tuple[feed.Row, ...] = ({"LocalServiceLevelCode": "78"}, {"LocalServiceLevelCode": "79"})
        self.assertEqual(self.changed(*(feed.calendar("2026-01-01", level=level) for level in levels)), [*CODES])
        self.assertEqual(self.departures(), [])

    def test_stops_together(self) -> None:
        """The token of several stops changes with each of them."""
        tokens = [self.timetable.versions_of(CODES)]
        for message in (feed.planning({}), feed.planning(points=[OTHER]), feed.planning(lines=[{"LineName": "New"}])):
            self.ingest(message)
            tokens.append(self.timetable.versions_of(CODES))
        self.assertEqual(len({*tokens}), len(tokens))

    @settings(deadline=None)
    @given(st.lists(st.sampled_from([*MESSAGES, None]), max_size=12), st.sampled_from((2, 100)))
    def test_same_version_means_same_board(self, messages: list[bytes | None], limit: int) -> None:
        """A board that was made at any step is current as long as the version of its stop is the same."""
        self.setUp()
        self.timetable = self.make_timetable(PlanningSettings(names=limit, planned=2 * limit))
        seen: dict[tuple[str, tuple[int, int]], list[object]] = {}

        def look() -> None:
            for code in CODES:
                seen.setdefault((code, self.timetable.version_of(code)), []).append(self.view(code))

        for message in messages:
            if message is None:
                self.clock.rightNow += 4 * DAY
                steps = self.timetable.sweep()
            else:
                steps = (
                    None
                    for update in self.timetable.read(ctx.read([message], self.reject), self.reject)
                    for _ in (self.timetable.apply(update, self.reject) if update else ())
                )
            for _ in steps:
                look()
            for code in CODES:
                for view in seen.get((code, self.timetable.version_of(code)), ()):
                    self.assertEqual(view, self.view(code))
            look()


class RejectedTests(TimetableTestCase):
    """Rejected records, and limits."""

    def test_invalid_records_are_counted(self) -> None:
        """Invalid records are counted by kind; others are stored."""
        row: feed.Row
        for row, kind in (
            ({"JourneyNumber": None}, "key"),
            ({"UserStopOrderNumber": "x"}, "key"),
            ({"LinePlanningNumber": ""}, "key"),
        ):
            self.setUp()
            self.ingest(feed.planning({"JourneyNumber": "2"}, row), feed.calendar("2026-01-01"))
            self.assertEqual((self.rejected, self.timetable.n_planned), ({kind: 1}, 1), row)
        values: tuple[tuple[feed.Row, dict[str, int]], ...] = (
            ({"TargetDepartureTime": "99:99:99"}, {"value": 1}),
            ({"TargetArrivalTime": "1:00:00"}, {"value": 1}),
            ({"TargetArrivalTime": "1:00:00", "TargetDepartureTime": None}, {"value": 1, "time": 1}),
        )
        for row, counts in values:
            self.setUp()
            self.ingest(feed.planning({"JourneyNumber": "2"}, row), feed.calendar("2026-01-01"))
            self.assertEqual((self.rejected, self.timetable.n_planned), (counts, 2 - counts.get("time", 0)), row)
        self.setUp()
        self.ingest(feed.calendar("2026-13-01", "1970-01-01", "2026-01-01"))
        self.assertEqual(self.rejected, {"date": 2})

    def test_missing_key_column_rejects_rows(self) -> None:
        """Each row of a table without a key column is rejected; other columns may be missing."""
        columns = [label for label in feed.TABLES["LOCALSERVICEGROUPPASSTIME"] if label != "JourneyNumber"]
        self.ingest(feed.message("KV7turbo_planning", feed.table("LOCALSERVICEGROUPPASSTIME", [{}, {}], columns)))
        self.ingest(feed.message("KV7turbo_planning", feed.table("LINE", [{}], ["LineName"])))
        self.assertEqual(self.rejected, {"key column": 3})
        self.ingest(
            feed.message("KV7turbo_planning", feed.table("LINE", [{}], ["LinePlanningNumber", "DataOwnerCode"]))
        )
        self.assertIsNone(self.timetable.lines["LIN", "L004"].name)

    def test_names_are_limited(self) -> None:
        """The numbers of stops, lines and other names are limited; new ones replace those published once."""
        self.timetable = self.make_timetable(PlanningSettings(names=2))
        self.ingest(feed.planning(points=[{"TimingPointCode": str(n)} for n in range(5)]))
        self.assertEqual((list(self.timetable.timing_points), self.rejected), (["3", "4"], {}))
        self.ingest(feed.planning(points=[{"TimingPointCode": "4", "TimingPointName": "Other"}]))
        self.assertEqual(self.timetable.timing_points["4"].name, "Other")

    def test_planned_passtimes_are_limited(self) -> None:
        """Planned passtimes of a message beyond half the limit are rejected."""
        self.timetable = self.make_timetable(PlanningSettings(planned=4))
        self.ingest(feed.planning(*({"JourneyNumber": str(n)} for n in range(5))))
        self.assertEqual((self.rejected, self.timetable.n_planned), ({"too many planned passes": 3}, 2))

    @settings(deadline=None)
    @given(st.sampled_from(list(feed.TABLES)), st.text(max_size=8), st.data())
    def test_any_field_is_accepted_or_rejected(self, table: str, value: str, data: st.DataObject) -> None:
        """No field causes an exception, and passtimes stay available."""
        self.setUp()
        label = data.draw(st.sampled_from(list(feed.TABLES[table])))
        self.ingest(feed.planning({}), feed.calendar("2026-01-01"))
        self.ingest(feed.message("KV7turbo_planning", feed.table(table, [{label: value}])))
        for code in list(self.timetable.timing_points):
            list(self.timetable.passtimes(code, NOW, NOW + DAY))
        self.timetable.patterns("LIN", "L004", "1")
        self.sweep()


class PositionTests(TimetableTestCase):
    """RD coordinates."""

    def test_reference_points(self) -> None:
        """Amersfoort, the origin of RD, and the Westertoren of Amsterdam are within a few metres."""
        for x, y, longitude, latitude in (
            (155000, 463000, 5.387206, 52.155174),
            (120700, 487525, 4.883528, 52.374534),
        ):
            position = wgs84(x, y)
            self.assertLess(abs(position[0] - longitude), 3e-5)
            self.assertLess(abs(position[1] - latitude), 2e-5)

    def test_invalid_coordinates(self) -> None:
        """(0, 0) and invalid coordinates are not a position."""
        for x, y in (("0", "0"), (None, None), ("x", "463000"), ("155000", "-1"), ("99999999", "1")):
            self.ingest(feed.planning(points=[{"LocationX_EW": x, "LocationY_NS": y}]))
            self.assertIsNone(self.timetable.timing_points[CODE].position)
