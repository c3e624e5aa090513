"""Tests of OVapi's paths with planning from GTFS and no KV7."""

from tests import feed as kv
from tests.doubles import ingest
from tests.modules.test_ovapi import OvapiTestCase
from tests.planning.files import Row, call, planning, temporary_directory

CODE, OTHER = "30000001", "30000002"
TRIPS: list[Row] = [
    {},
    {"trip_id": "LIN|L004|77|1002|0", "direction_id": "1", "trip_headsign": "Lindedorp Station"},
    {"trip_id": "LIN|L004|77|1003|0"},
]
LINE = "LIN_L004_1"
JOURNEY = "LIN_77_L004_1001_0"


class GtfsTests(OvapiTestCase):
    """A line with two journeys in one direction, one of them outside of the horizon, and one in the other."""

    def setUp(self) -> None:
        super().setUp()
        stops: list[Row] = [
            {"stop_id": "area:1", "location_type": "1"},
            {"parent_station": "area:1"},
            {"stop_id": OTHER, "stop_name": "Lindedorp, Dijk"},
        ]
        calls = [
            call(f"LIN|L004|77|{journey}|0", stop, time, n)
            for journey, *times in (("1001", "01:20:00", "01:30:00"), ("1002", "01:40:00", "01:50:00"),
                                    ("1003", "09:20:00", "09:30:00"))
            for n, (stop, time) in enumerate(zip((CODE, OTHER), times, strict=True))
        ]  # fmt: skip
        self.feed.use_planning(planning(temporary_directory(self), stops=stops, trips=TRIPS, stop_times=calls))

    def live(self, level: str, code: str = CODE) -> None:
        """Receive the first call of a journey."""
        times = ("ExpectedArrivalTime", "ExpectedDepartureTime", "TargetArrivalTime", "TargetDepartureTime")
        ingest(
            self.feed,
            kv.passtimes(
                {"LocalServiceLevelCode": level, "TimingPointCode": code, **dict.fromkeys(times, "01:20:00")}
            ),
        )

    def test_lists(self) -> None:
        """The lists have the stops, areas and lines of GTFS."""
        self.assertEqual(self.json("/tpc/"), {CODE: 0, OTHER: 0})
        self.assertEqual(list(self.json("/stopareacode/")), ["area:1"])
        lines = self.json("/line/")
        self.assertEqual(list(lines), [LINE, "LIN_L004_2"])
        names = [
            (line["LinePublicNumber"], line["DestinationName50"], line["LineDirection"]) for line in lines.values()
        ]
        self.assertEqual(names, [("4", "Lindedorp via Brug", 1), ("4", "Lindedorp Station", 2)])

    def test_line(self) -> None:
        """A line has its planned journeys and the order of its stops."""
        document = self.json(f"/line/{LINE}")[LINE]
        actuals = document["Actuals"]
        self.assertEqual([(key, call["TripStopStatus"]) for key, call in actuals.items()], [(JOURNEY, "PLANNED")])
        self.assertEqual({n: stop["TimingPointCode"] for n, stop in document["Network"]["1"].items()},
                         {"1": CODE, "2": OTHER})  # fmt: skip
        self.nothing("/line/LIN_L004_3")

    def test_paths_agree(self) -> None:
        """A planned journey has the same passes on all paths."""
        at_stop = self.json(f"/tpc/{CODE}")[CODE]["Passes"][JOURNEY]
        self.assertEqual(self.json("/stopareacode/area:1")["area:1"][CODE]["Passes"][JOURNEY], at_stop)
        self.assertEqual(self.json(f"/journey/{JOURNEY}")[JOURNEY]["Stops"]["1"], at_stop)
        self.assertEqual(self.json(f"/line/{LINE}/actuals")[LINE]["Actuals"][JOURNEY], at_stop)

    def test_live_journey(self) -> None:
        """A live journey replaces the planned one, also one of another service level."""
        for level in ("77", "20260101"):
            self.setUp()
            self.live(level)
            actuals = self.json(f"/line/{LINE}/actuals")[LINE]["Actuals"]
            self.assertEqual([call["TripStopStatus"] for call in actuals.values()], ["DRIVING"], level)
            for key in (JOURNEY, f"LIN_{level}_L004_1001_0"):
                stops = self.json(f"/journey/{key}")[key]["Stops"].values()
                names = ("UserStopOrderNumber", "TimingPointCode", "TripStopStatus")
                calls = [tuple(call[name] for name in names) for call in stops]
                self.assertEqual(calls, [(3, CODE, "DRIVING"), (4, OTHER, "PLANNED")], key)

    def test_moved_call(self) -> None:
        """A call that KV8 has moved to another stop is not planned at its own stop any more."""
        moved = "30000009"
        self.live("77", moved)
        calls = self.json(f"/line/{LINE}/actuals")[LINE]["Actuals"].values()
        self.assertEqual([call["TimingPointCode"] for call in calls], [moved])
        stops = self.json(f"/journey/{JOURNEY}")[JOURNEY]["Stops"].values()
        self.assertEqual(sorted(call["TimingPointCode"] for call in stops), [OTHER, moved])
        self.assertNotIn(JOURNEY, self.json(f"/tpc/{CODE}")[CODE]["Passes"])

    def test_kv7_replaces_gtfs(self) -> None:
        """A line that KV7 has planned is not taken from GTFS."""
        first = {"JourneyStopType": "FIRST", "TargetArrivalTime": "01:20:00", "TargetDepartureTime": "01:20:00"}
        ingest(self.feed, kv.planning(first), kv.calendar("2026-01-01"))
        self.assertEqual(list(self.json("/line/")), [LINE])
        self.assertEqual(list(self.json(f"/line/{LINE}")[LINE]["Network"]), ["900"])
