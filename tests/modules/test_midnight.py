"""Times around midnight and the changes of the clock, in every document and until they are removed."""

import json
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from lxml import etree
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.times import read_timestamp
from tests import feed as kv
from tests.doubles import ingest
from tests.examples import Program

CODE = "30000001"
TARGETS = ("TargetArrivalTime", "TargetDepartureTime")
EXPECTED = ("ExpectedArrivalTime", "ExpectedDepartureTime")


class Case(NamedTuple):
    """A row at a moment, and its times in the documents."""

    name: str
    now: str
    """Local time with offset."""
    day: str
    target: str | None
    expected: str | None
    moment: str
    """The expected time with offset, as in board and SIRI."""
    kv55: tuple[str, str]
    """Target and expected time in KV55."""
    columns: tuple[tuple[str, str], ...] = ()


WINTER = "2026-11-29T23:50:00+01:00"
CASES = (
    Case("late over midnight", WINTER, "2026-11-29", "23:58:00", "00:03:00", "2026-11-30T00:03:00+01:00",
         ("23:58:00", "24:03:00")),
    Case("the same, counting hours", WINTER, "2026-11-29", "23:58:00", "24:03:00", "2026-11-30T00:03:00+01:00",
         ("23:58:00", "24:03:00")),
    Case("only the target counts hours", WINTER, "2026-11-29", "24:10:00", "00:11:00", "2026-11-30T00:11:00+01:00",
         ("24:10:00", "24:11:00")),
    Case("only the expected time counts hours", WINTER, "2026-11-29", "00:10:00", "24:11:00",
         "2026-11-30T00:11:00+01:00", ("24:10:00", "24:11:00")),
    Case("neither counts hours", WINTER, "2026-11-29", "00:05:00", "00:06:00", "2026-11-30T00:06:00+01:00",
         ("24:05:00", "24:06:00")),
    Case("early over midnight", WINTER, "2026-11-29", "24:01:00", "23:59:00", "2026-11-29T23:59:00+01:00",
         ("24:01:00", "23:59:00")),
    Case("early, on the next operating date", WINTER, "2026-11-30", "00:02:00", "23:58:00",
         "2026-11-29T23:58:00+01:00", ("00:02:00", "23:58:00")),
    Case("early, not counting hours", WINTER, "2026-11-29", "00:02:00", "23:58:00", "2026-11-29T23:58:00+01:00",
         ("24:02:00", "23:58:00")),
    Case("operating date of the calendar", WINTER, "2026-11-30", "00:03:00", "00:04:00", "2026-11-30T00:04:00+01:00",
         ("00:03:00", "00:04:00")),
    Case("target only", WINTER, "2026-11-29", "00:03:00", None, "2026-11-30T00:03:00+01:00",
         ("24:03:00", "24:03:00")),
    Case("expected only", WINTER, "2026-11-29", None, "00:03:00", "2026-11-30T00:03:00+01:00",
         ("24:03:00", "24:03:00")),
    Case("after midnight", "2026-11-30T00:01:00+01:00", "2026-11-29", "23:58:00", "00:03:00",
         "2026-11-30T00:03:00+01:00", ("23:58:00", "24:03:00")),
    Case("long after midnight", "2026-11-30T01:30:00+01:00", "2026-11-29", "23:58:00", "01:40:00",
         "2026-11-30T01:40:00+01:00", ("23:58:00", "25:40:00")),
    Case("first stop", WINTER, "2026-11-29", "23:58:00", "00:03:00", "2026-11-30T00:03:00+01:00",
         ("23:58:00", "24:03:00"), (("JourneyStopType", "FIRST"),)),
    Case("at the stop", "2026-11-30T00:02:30+01:00", "2026-11-29", "23:58:00", "00:03:00",
         "2026-11-30T00:03:00+01:00", ("23:58:00", "24:03:00"), (("TripStopStatus", "ARRIVED"),)),
    Case("before the skipped hour", "2026-03-28T23:50:00+01:00", "2026-03-28", "23:58:00", "00:03:00",
         "2026-03-29T00:03:00+01:00", ("23:58:00", "24:03:00")),
    Case("over the skipped hour", "2026-03-29T03:00:00+02:00", "2026-03-28", "25:58:00", "03:03:00",
         "2026-03-29T03:03:00+02:00", ("25:58:00", "27:03:00")),
    Case("over the repeated hour", "2026-10-25T02:50:00+01:00", "2026-10-24", "26:58:00", "03:03:00",
         "2026-10-25T03:03:00+01:00", ("26:58:00", "27:03:00")),
    Case("in the repeated hour", "2026-10-25T02:01:00+01:00", "2026-10-24", "25:58:00", "02:03:00",
         "2026-10-25T02:03:00+01:00", ("25:58:00", "26:03:00")),
    Case("over the end of the year", "2026-12-31T23:50:00+01:00", "2026-12-31", "23:58:00", "00:03:00",
         "2027-01-01T00:03:00+01:00", ("23:58:00", "24:03:00")),
)  # fmt: skip


class MidnightTests(SynchronousTestCase):
    """All modules over a feed with one row."""

    def ingest(self, case: Case, **times: str | None) -> None:
        self.program = Program("feed", has_data=False, now=read_timestamp(case.now) or 0.0)
        feed = self.program.components.feed
        assert feed is not None
        self.feed = feed
        row = {"OperationDate": case.day, "LastUpdateTimeStamp": case.now, **dict(case.columns), **times}
        ingest(feed, kv.passtimes(row))

    def json(self, path: str) -> Any:
        return json.loads(self.program.request(path, "application/json").body)

    def assert_everywhere(self, case: Case, *, is_arrival: bool = False) -> None:
        """Check the times in every document."""
        local = case.moment[:19]
        (passtime,) = self.json(f"/tpc/{CODE}")[CODE]["Passes"].values()
        for name in EXPECTED:
            self.assertEqual(passtime[name], local, case)
        for name in TARGETS:
            difference = datetime.fromisoformat(passtime[name]) - datetime.fromisoformat(local)
            self.assertLessEqual(abs(difference), timedelta(hours=12), case)
        self.assertEqual(passtime["OperationDate"], case.day, case)
        visits = self.json(f"/siri/stop-monitoring.json?MonitoringRef={CODE}")["Siri"]["ServiceDelivery"]
        (visit,) = visits["StopMonitoringDelivery"][0]["MonitoredStopVisit"]
        call = visit["MonitoredVehicleJourney"]["MonitoredCall"]
        kind = "Arrival" if is_arrival else "Departure"
        if case.expected is not None and case.target is not None:
            self.assertEqual(call[f"Expected{kind}Time"], case.moment, case)
        if is_arrival:
            return
        (row,) = self.json(f"/board/{CODE}")["stops"][0]["departures"]
        self.assertEqual(row["expected"] or row["planned"], case.moment, case)
        document = etree.fromstring(self.program.request(f"/kv55/{CODE}").body)
        (trip,) = document.iter("Trip")
        times = trip.findtext("TargetDepartureTime"), trip.findtext("ExpectedDepartureTime")
        self.assertEqual((trip.findtext("OperatingDate"), times), (case.day, case.kv55), case)
        event = self.program.request(f"/events/{CODE}", "application/json").body.decode()
        self.assertIn(case.moment, event, case)

    def assert_kept(self, case: Case) -> None:
        """Check that the passtime is stored until a minute after its expected time, and then removed."""
        expires = (read_timestamp(case.moment) or 0.0) + 60
        self.program.clock.advance(expires - 1 - self.program.clock.seconds())
        for _ in self.feed.passtimes.sweep():
            pass
        self.assertEqual(self.feed.passtimes.n_passtimes, 1, case)
        self.program.clock.advance(2 * 3600)  # its target may be later, or its second moment in the repeated hour
        for _ in self.feed.passtimes.sweep():
            pass
        self.assertEqual(self.feed.passtimes.n_passtimes, 0, case)

    def test_every_document(self) -> None:
        """A departure is on the day that makes sense in every document, until it has passed."""
        for case in CASES:
            departure_only = {
                TARGETS[0]: None,
                TARGETS[1]: case.target,
                EXPECTED[0]: None,
                EXPECTED[1]: case.expected,
            }
            for times in (
                {**dict.fromkeys(TARGETS, case.target), **dict.fromkeys(EXPECTED, case.expected)},
                departure_only,
            ):
                self.ingest(case, **times)
                self.assert_everywhere(case)
                self.assert_kept(case)

    def test_arrivals(self) -> None:
        """An arrival is, too: where nothing else is known, and at a last stop with departures at midnight."""
        for case in CASES:
            arrivals = {TARGETS[0]: case.target, EXPECTED[0]: case.expected}
            departures = (TARGETS[1], EXPECTED[1])
            self.ingest(case, **arrivals, **dict.fromkeys(departures))
            self.assert_everywhere(case, is_arrival=True)
            self.assert_kept(case)
            if not case.columns:
                self.ingest(case, **arrivals, **dict.fromkeys(departures, "00:00:00"), JourneyStopType="LAST")
                self.assert_everywhere(case, is_arrival=True)
                self.assert_kept(case)

    def test_recorded_times(self) -> None:
        """The time of a vehicle that has passed is near its update."""
        for now, target, recorded, moment in (
            ("2026-11-30T00:03:10+01:00", "23:58:00", "00:03:00", "2026-11-30T00:03:00"),
            ("2026-11-30T00:03:10+01:00", None, "00:03:00", "2026-11-30T00:03:00"),
            ("2026-11-29T23:59:10+01:00", "24:01:00", "23:59:00", "2026-11-29T23:59:00"),
            ("2026-11-29T23:59:10+01:00", "00:01:00", "23:59:00", "2026-11-29T23:59:00"),
            ("2026-11-29T23:59:10+01:00", None, "23:59:00", "2026-11-29T23:59:00"),
        ):
            case = Case(
                "recorded", now, "2026-11-29", target, recorded, "", ("", ""), (("TripStopStatus", "PASSED"),)
            )
            self.ingest(case, **dict.fromkeys(TARGETS, target), **dict.fromkeys(EXPECTED, recorded))
            (passtime,) = self.json(f"/tpc/{CODE}")[CODE]["Passes"].values()
            self.assertEqual([passtime[name] for name in EXPECTED], [moment] * 2, case)

    def test_planned(self) -> None:
        """A planned stay over midnight departs on the day after, however its hours are counted."""
        for departure in ("00:05:00", "24:05:00"):
            self.program = Program("feed", has_data=False, now=read_timestamp(WINTER) or 0.0)
            feed = self.program.components.feed
            assert feed is not None
            planned = {"TargetArrivalTime": "23:59:00", "TargetDepartureTime": departure}
            ingest(feed, kv.planning(planned), kv.calendar("2026-11-29"))
            (passtime,) = self.json(f"/tpc/{CODE}")[CODE]["Passes"].values()
            self.assertEqual(passtime["TargetArrivalTime"], "2026-11-29T23:59:00")
            self.assertEqual(passtime["TargetDepartureTime"], "2026-11-30T00:05:00")
            ingest(feed, kv.passtimes({"OperationDate": "2026-11-29", "LastUpdateTimeStamp": WINTER, **planned,
                                       **dict(zip(EXPECTED, ("00:01:00", "00:06:00"), strict=True))}))  # fmt: skip
            (passtime,) = self.json(f"/tpc/{CODE}")[CODE]["Passes"].values()
            self.assertEqual(passtime["ExpectedDepartureTime"], "2026-11-30T00:06:00")
