"""Tests of OVapi's paths, in memory: names, order and forms of values are those of its responses of 2026."""

import gzip
import json
from typing import Any

from zope.interface.verify import verifyObject

from govi_server.departures.times import local_timestamp
from govi_server.departures.timing_point import wgs84
from govi_server.documents.ovapi import UNKNOWN_POSITION, OvapiDocuments, current_passtime
from govi_server.modules.ovapi import PATHS, ovapi_modules
from govi_server.web_handler import ICacheableModule
from tests import feed as kv
from tests.client import NOW, Response
from tests.doubles import ingest
from tests.modules.test_kv55_feed import CODE, LiveTestCase, row

OTHER = "30000002"
POINT = wgs84(155000, 463000)
JOURNEY = "LIN_77_L004_1001_0"
LINE = "LIN_L004_1"

STOP = {
    "Longitude": POINT[0],
    "Latitude": POINT[1],
    "TimingPointTown": "Lindedorp",
    "TimingPointName": "Lindedorp, Brug",
    "TimingPointCode": CODE,
    "StopAreaCode": "LdBrug",
    "TimingPointWheelChairAccessible": "UNKNOWN",
    "TimingPointVisualAccessible": "UNKNOWN",
}
PASS = {
    "IsTimingStop": True,
    "DestinationName50": "Lindedorp via Brug",
    "DataOwnerCode": "LIN",
    "OperatorCode": "LINX",
    "FortifyOrderNumber": 0,
    "TransportType": "BUS",
    "Latitude": POINT[1],
    "Longitude": POINT[0],
    "JourneyNumber": 1001,
    "JourneyPatternCode": 900,
    "LocalServiceLevelCode": 77,
    "LineDirection": 1,
    "OperationDate": "2025-12-31",
    "TimingPointCode": CODE,
    "WheelChairAccessible": "ACCESSIBLE",
    "LineName": "Lindedorp - Station",
    "LinePublicNumber": "4",
    "LastUpdateTimeStamp": "2026-01-01T00:59:50+0100",
    "DestinationCode": "D1",
    "ExpectedDepartureTime": "2026-01-01T01:10:40",
    "UserStopOrderNumber": 3,
    "ProductFormulaType": "EMPTY",
    "TimingPointName": "Lindedorp, Brug",
    "LinePlanningNumber": "L004",
    "SideCode": "P5",
    "TimingPointDataOwnerCode": "ALGEMEEN",
    "TimingPointTown": "Lindedorp",
    "TripStopStatus": "DRIVING",
    "UserStopCode": "u1",
    "JourneyStopType": "INTERMEDIATE",
    "TargetArrivalTime": "2026-01-01T01:09:00",
    "TargetDepartureTime": "2026-01-01T01:09:30",
    "ExpectedArrivalTime": "2026-01-01T01:10:20",
    "NumberOfCoaches": 2,
    "StopAreaCode": "LdBrug",
    "TimingPointWheelChairAccessible": "UNKNOWN",
    "TimingPointVisualAccessible": "UNKNOWN",
    "MessageContent": "short train",
}
ROW = {
    "OperationDate": "2025-12-31",
    "TargetArrivalTime": "25:09:00",
    "TargetDepartureTime": "25:09:30",
    "ExpectedArrivalTime": "25:10:20",
    "ExpectedDepartureTime": "25:10:40",
    "IsTimingStop": "1",
    "OperatorCode": "LINX",
    "SideCode": "P5",
    "NumberOfCoaches": "2",
    "MessageContent": "short train",
}


class OvapiTestCase(LiveTestCase):
    """All of OVapi's paths behind a server."""

    def setUp(self) -> None:
        super().setUp()
        for module in ovapi_modules(self.feed):
            module.setServiceParent(self.modules)

    def json(self, path: str) -> Any:
        response = self.request(path)
        self.assertEqual(response.status, 200, path)
        self.assertEqual(response.headers["Content-Type"], "application/json;charset=utf-8")
        self.assertEqual(response.headers["Access-Control-Allow-Headers"], "X-Requested-With,Content-Type")
        return json.loads(response.body)

    def nothing(self, path: str, status: int = 404) -> Response:
        response = self.request(path)
        self.assertEqual((response.status, response.body), (status, b"[]"), path)
        self.assertEqual(response.headers["Content-Type"], "application/json;charset=utf-8")
        self.assertEqual(response.headers["Cache-Control"], "no-store")
        return response

    def assertSameJson(self, document: Any, expected: Any) -> None:
        """Compare JSON by its bytes: the order of names and the types of values matter."""
        self.assertEqual(json.dumps(document, indent=1), json.dumps(expected, indent=1))


class FormTests(OvapiTestCase):
    """The forms of values."""

    def test_interface(self) -> None:
        """Each path is a cacheable module."""
        modules = ovapi_modules(self.feed)
        self.assertEqual({module.name for module in modules}, set(PATHS))
        for module in modules:
            verifyObject(ICacheableModule, module)

    def test_bytes(self) -> None:
        """JSON has no spaces, is UTF-8, and its times have no offset."""
        ingest(self.feed, kv.planning(destinations=[{"DestinationName50": "'s-Gravenhage/\u00c9 \u2028"}]))
        ingest(self.feed, kv.passtimes({}))
        body = self.request(f"/tpc/{CODE}").body
        self.assertIn('"DestinationName50":"\'s-Gravenhage/\u00c9 \u2028","DataOwnerCode":"LIN"'.encode(), body)
        self.assertIn(b'"ExpectedDepartureTime":"2026-01-01T01:30:00",', body)
        self.assertTrue(body.startswith(b'{"30000001":{"Stop":{"Longitude":5.38'), body[:100])

    def test_pass(self) -> None:
        """A pass has the names, order and forms of OVapi; its times have calendar dates."""
        ingest(self.feed, kv.planning(), kv.passtimes(ROW))
        passes = self.json(f"/tpc/{CODE}")[CODE]["Passes"]
        self.assertSameJson(passes, {JOURNEY: PASS})

    def test_absent_values(self) -> None:
        """Absent values are left out, as OVapi does, except those that its clients require."""
        absent = ("OperatorCode", "SideCode", "NumberOfCoaches", "MessageContent")
        ingest(
            self.feed, kv.passtimes({**ROW, **dict.fromkeys(absent), "LineDirection": None, "DestinationCode": None})
        )
        (passtime,) = self.json(f"/tpc/{CODE}")[CODE]["Passes"].values()
        self.assertEqual(
            [name for name in PASS if name not in passtime],
            ["LineDirection", "SideCode", "NumberOfCoaches", "StopAreaCode", "MessageContent"],
        )
        for name, value in [
            *zip(("Longitude", "Latitude"), UNKNOWN_POSITION, strict=True),
            *((name, "UNKNOWN") for name in ("TransportType", "DestinationCode")),
            ("OperatorCode", "LIN"),
            ("TimingPointName", CODE),
            ("TimingPointTown", "unknown"),
            ("DestinationName50", "unknown"),
            ("LinePublicNumber", "L004"),
            ("LineName", "L004"),
        ]:
            self.assertEqual(passtime[name], value, name)

    def test_values(self) -> None:
        """Numbers are JSON numbers; a text that is not a number, or too large for JSON, is absent."""
        for column, written, value in [
            ("JourneyNumber", "007", 7),
            ("JourneyNumber", "7a", None),
            ("JourneyNumber", "+7", None),
            ("JourneyNumber", "-7", None),
            ("JourneyPatternCode", "\u0667", None),
            ("JourneyPatternCode", "\u00b2", None),
            ("JourneyPatternCode", "999999999999999", 999999999999999),
            ("JourneyPatternCode", "9" * 30, None),
            ("NumberOfCoaches", "9" * 5000, None),
            ("NumberOfCoaches", "UNKNOWN", None),
            ("LineDirection", "2", 2),
            ("IsTimingStop", "0", False),
            ("IsTimingStop", None, False),
            ("SideCode", " 2", " 2"),
        ]:
            self.setUp()
            ingest(self.feed, kv.passtimes({column: written}))
            (passtime,) = self.json(f"/tpc/{CODE}")[CODE]["Passes"].values()
            self.assertEqual(column in passtime, value is not None, (column, written))
            self.assertEqual((passtime.get(column), type(passtime.get(column))), (value, type(value)), column)
        for side in ("-", None):
            self.setUp()
            ingest(self.feed, kv.passtimes({"SideCode": side}))
            (passtime,) = self.json(f"/tpc/{CODE}")[CODE]["Passes"].values()
            self.assertNotIn("SideCode", passtime)

    def test_times(self) -> None:
        """A missing time gets the value of the other; at LAST the departure is not midnight."""
        cases: list[tuple[dict[str, str | None], list[str]]] = [
            ({}, ["01:09:00", "01:09:30", "01:10:20", "01:10:40"]),
            (
                {"ExpectedArrivalTime": None, "ExpectedDepartureTime": None},
                ["01:09:00", "01:09:30", "01:09:00", "01:09:30"],
            ),
            (
                {"JourneyStopType": "LAST", "TargetDepartureTime": "00:00:00", "ExpectedDepartureTime": "00:00:00"},
                ["01:09:00", "01:09:00", "01:10:20", "01:10:20"],
            ),
        ]
        names = ("TargetArrivalTime", "TargetDepartureTime", "ExpectedArrivalTime", "ExpectedDepartureTime")
        for columns, times in cases:
            self.setUp()
            ingest(self.feed, kv.passtimes({**ROW, **columns}))
            (passtime,) = self.json(f"/tpc/{CODE}")[CODE]["Passes"].values()
            self.assertEqual([passtime[name] for name in names], [f"2026-01-01T{time}" for time in times])

    def test_summer(self) -> None:
        """In summer the offset is +0200."""
        self.clock.advance(180 * 86400)
        day = "2026-06-30"
        ingest(
            self.feed,
            kv.passtimes(row("1", 90, OperationDate=day, LastUpdateTimeStamp=f"{day}T01:59:50+02:00")),
        )
        (passtime,) = self.json(f"/tpc/{CODE}")[CODE]["Passes"].values()
        self.assertEqual(passtime["LastUpdateTimeStamp"], "2026-06-30T01:59:50+0200")
        self.assertEqual(passtime["ExpectedDepartureTime"], "2026-06-30T02:30:00")


class TpcTests(OvapiTestCase):
    """/tpc/."""

    def test_all(self) -> None:
        """The index has the number of live passtimes of each stop; stops of KV7 alone have 0."""
        ingest(self.feed, kv.planning({}, points=[{}, {"TimingPointCode": "5"}]), kv.calendar("2026-01-01"))
        ingest(
            self.feed,
            kv.passtimes({}, {"JourneyNumber": "2"}, {"TimingPointCode": OTHER, "UserStopOrderNumber": "4"}),
        )
        for path in ("/tpc", "/tpc/"):
            self.assertEqual(self.json(path), {CODE: 2, "5": 0, OTHER: 1})

    def test_stop(self) -> None:
        """A stop has its position, its passes and its messages, in this order."""
        ingest(
            self.feed, kv.planning(), kv.passtimes(row("2", 20), row("1", 10), row("3", 5, JourneyStopType="LAST"))
        )
        document = self.json(f"/tpc/{CODE}")
        self.assertEqual(list(document), [CODE])
        self.assertEqual(list(document[CODE]), ["Stop", "Passes", "GeneralMessages"])
        self.assertSameJson(document[CODE]["Stop"], STOP)
        self.assertEqual([passtime["JourneyNumber"] for passtime in document[CODE]["Passes"].values()], [3, 1, 2])
        self.assertEqual(document[CODE]["GeneralMessages"], {})

    def test_departures(self) -> None:
        """/departures omits arrivals at a last stop."""
        ingest(self.feed, kv.passtimes(row("1", 10), row("3", 5, JourneyStopType="LAST")))
        for path in (f"/tpc/{CODE}/departures", f"/tpc/{CODE},/departures/", f"/tpc/{CODE},{CODE}/departures"):
            self.assertEqual(list(self.json(path)[CODE]["Passes"]), ["LIN_77_L004_1_0"])

    def test_twice(self) -> None:
        """Of a journey that calls twice, or runs on two days, the earlier pass is returned."""
        ingest(
            self.feed,
            kv.passtimes(row("1", 20, UserStopOrderNumber="9"), row("1", 10), row("1", 30, FortifyOrderNumber="1")),
        )
        passes = self.json(f"/tpc/{CODE}")[CODE]["Passes"]
        self.assertEqual(list(passes), ["LIN_77_L004_1_0", "LIN_77_L004_1_1"])
        self.assertEqual(passes["LIN_77_L004_1_0"]["UserStopOrderNumber"], 3)

    def test_horizon(self) -> None:
        """The horizon is an hour and a half, planned passes included."""
        ingest(self.feed, kv.passtimes(row("1", 89), row("2", 91)))
        times = {"TargetArrivalTime": "02:00:00", "TargetDepartureTime": "02:00:00"}
        ingest(self.feed, kv.planning({"JourneyNumber": "3", **times}), kv.calendar("2026-01-01"))
        passes = self.json(f"/tpc/{CODE}")[CODE]["Passes"]
        self.assertEqual(
            [(p["JourneyNumber"], p["TripStopStatus"], p["ProductFormulaType"]) for p in passes.values()],
            [(3, "PLANNED", "18"), (1, "DRIVING", "EMPTY")],
        )
        self.assertEqual(list(self.json(f"/tpc/{CODE}?horizon=60")[CODE]["Passes"]), ["LIN_77_L004_3_0"])

    def test_several(self) -> None:
        """Several stops are in one response, which omits unknown ones; trailing commas and slashes are ignored."""
        self.up()
        ingest(self.feed, kv.passtimes({}, {"TimingPointCode": OTHER, "UserStopCode": "u2"}))
        for path, codes in [
            (f"/tpc/{CODE},{OTHER}", [CODE, OTHER]),
            (f"/tpc/{CODE},{OTHER},", [CODE, OTHER]),
            (f"/tpc/{OTHER},{CODE},/departures/", [OTHER, CODE]),
            (f"/tpc/,{OTHER},5,x/", [OTHER]),
        ]:
            self.assertEqual(list(self.json(path)), codes)

    def test_query(self) -> None:
        """Filters select passes; an invalid one is a 400."""
        ingest(self.feed, kv.planning(), kv.passtimes(row("1", 10), row("2", 20, LineDirection="2"), row("3", 30)))
        for query, journeys in [("limit=2", [1, 2]), ("direction=1&line=4", [1, 3]), ("horizon=20", [1, 2])]:
            passes = self.json(f"/tpc/{CODE}/departures?{query}")[CODE]["Passes"]
            self.assertEqual([passtime["JourneyNumber"] for passtime in passes.values()], journeys)
        self.assertEqual(self.request(f"/tpc/{CODE}?limit=0").status, 400)

    def test_nothing(self) -> None:
        """An invalid suffix, a too long path, no code and an unknown code are a 404 with []."""
        self.up()
        ingest(self.feed, kv.passtimes({}))
        for path in (
            "/tpc/5", "/tpc/x", "/tpc/,", "/tpc//", "/tpc//departures", f"/tpc/{CODE}/arrivals",
            f"/tpc/{CODE}/departures/5",
            f"/tpc/{CODE}/departures//", "/tpc/%D9%A1", "/tpc/%00",
        ):  # fmt: skip
            self.nothing(path)

    def test_message(self) -> None:
        """A message has its values, its times as local time."""
        columns = {"MessageEndTime": "2026-01-01T06:00:00+00:00", "ReasonContent": ""}
        ingest(self.feed, kv.general_message(columns))
        expected = {
            "DataOwnerCode": "LIN",
            "MessageCodeDate": "2026-01-01",
            "MessageCodeNumber": "27",
            "TimingPointDataOwnerCode": "ALGEMEEN",
            "TimingPointCode": CODE,
            "MessageType": "GENERAL",
            "MessageDurationType": "REMOVE",
            "MessageStartTime": "2026-01-01T00:50:00",
            "MessageEndTime": "2026-01-01T07:00:00",
            "MessageContent": "Line 4 does not call at Brug.",
            "ReasonType": "0",
            "SubReasonType": "0",
            "ReasonContent": "",
            "EffectType": "0",
            "SubEffectType": "0",
            "MeasureType": "0",
            "SubMeasureType": "6",
            "AdviceType": "0",
            "SubAdviceType": "0",
            "MessageTimeStamp": "2026-01-01T00:59:50",
        }
        key = "LIN_2026-01-01_27_ALGEMEEN_30000001"
        self.assertSameJson(self.json(f"/tpc/{CODE}")[CODE]["GeneralMessages"], {key: expected})
        self.assertSameJson(self.json("/generalmessage"), {key: expected})

    def test_rendered_once_per_form(self) -> None:
        """A stop's board is rendered once per form and place in a response, until it changes."""
        codes: list[str] = []
        board = OvapiDocuments.board

        def count(*arguments: Any) -> Any:
            codes.append(arguments[1].code)
            return board(*arguments)

        self.patch(OvapiDocuments, "board", count)
        ingest(self.feed, kv.planning(), kv.passtimes(row("1", 10)))
        for _ in range(3):
            for path in (f"/tpc/{CODE}", f"/tpc/{CODE}/departures", "/stopareacode/LdBrug"):
                self.json(path)
            compressed = self.request(f"/tpc/{CODE}", Accept_Encoding="gzip")
            self.assertEqual(gzip.decompress(compressed.body), self.request(f"/tpc/{CODE}").body)
        self.assertEqual(len(codes), 4)
        ingest(self.feed, kv.passtimes(row("2", 20)))
        self.assertEqual(len(self.json(f"/tpc/{CODE}")[CODE]["Passes"]), 2)
        self.assertEqual(len(codes), 5)

    def test_conditional(self) -> None:
        """A client with the current representation gets 304."""
        ingest(self.feed, kv.passtimes({}))
        etag = self.request(f"/tpc/{CODE}").headers["ETag"]
        self.assertEqual(self.request(f"/tpc/{CODE}", If_None_Match=etag).status, 304)
        self.assertEqual(self.request(f"/tpc/{CODE}", If_Match='"x"').status, 412)


class FreshnessTests(OvapiTestCase):
    """The freshness of boards, and the reasons for having none."""

    def test_kinds(self) -> None:
        """No service, an unknown stop, no feed, stale and too old data are distinguishable."""
        self.up()
        ingest(self.feed, kv.planning())
        self.assertEqual(self.json(f"/tpc/{CODE}")[CODE]["Passes"], {})
        self.assertEqual(self.nothing("/tpc/5").headers["Feed-State"], "UP")
        self.up("DOWN")
        self.assertEqual(self.nothing("/tpc/5", 503).headers["Retry-After"], "30")
        ingest(self.feed, kv.passtimes({}))
        self.clock.advance(61)
        response = self.request(f"/tpc/{CODE}")
        self.assertEqual(
            (response.status, response.headers["Age"], response.headers["Feed-State"]), (200, "61", "DOWN")
        )
        self.assertEqual(response.headers["Cache-Status"], "govi-cache; hit; ttl=-1")
        self.clock.advance(240)
        self.assertEqual(self.nothing(f"/tpc/{CODE}", 503).headers["Retry-After"], "30")

    def test_others(self) -> None:
        """Areas, lines and journeys have the same statuses; without a feed, missing ones are unknown."""
        paths = ("/stopareacode/x", "/line/LIN_x_1", "/journey/LIN_1_1_1_1")
        for path in paths:
            self.nothing(path, 404)
        self.up("RECOVERING")
        for path in paths:
            self.assertEqual(self.nothing(path, 503).headers["Retry-After"], "30")
        self.up("UP")
        for path in paths:
            self.nothing(path, 404)


class UnknownUpdateTests(OvapiTestCase):
    """Passtimes without a LastUpdateTimeStamp."""

    def test_time_of_latest_data(self) -> None:
        """The time at which the operator's latest data arrived takes its place, also in repeated responses."""
        for seconds in range(0, 90, 30):
            ingest(self.feed, kv.passtimes({"LastUpdateTimeStamp": None}))
            (document,) = self.json(f"/tpc/{CODE}")[CODE]["Passes"].values()
            self.assertEqual(
                document["LastUpdateTimeStamp"], f"2026-01-01T01:{seconds // 60:02}:{seconds % 60:02}+0100"
            )
            self.clock.advance(30)


class StopAreaTests(OvapiTestCase):
    """/stopareacode/."""

    def setUp(self) -> None:
        super().setUp()
        points = [{}, {"TimingPointCode": OTHER}, {"TimingPointCode": "5", "StopAreaCode": "x"}]
        ingest(self.feed, kv.planning(points=[*points, {"TimingPointCode": "6", "StopAreaCode": None}]))

    def test_all(self) -> None:
        """The index describes every area."""
        names = ("TimingPointTown", "TimingPointName", "StopAreaCode", "Longitude", "Latitude")
        area = {name: STOP[name] for name in names}
        self.assertSameJson(self.json("/stopareacode/"), {"LdBrug": area, "x": {**area, "StopAreaCode": "x"}})

    def test_areas(self) -> None:
        """The stops of an area are under its code, without a ServerTime."""
        rows = {"TimingPointCode": OTHER}, {"JourneyStopType": "LAST", "UserStopOrderNumber": "4"}
        ingest(self.feed, kv.passtimes(*rows))
        document = self.json("/stopareacode/x,LdBrug,y/departures/")
        self.assertEqual(
            {area: list(stops) for area, stops in document.items()}, {"x": ["5"], "LdBrug": [CODE, OTHER]}
        )
        self.assertSameJson(document["LdBrug"][CODE], {"Stop": STOP, "Passes": {}, "GeneralMessages": {}})
        self.assertEqual(list(document["LdBrug"][OTHER]["Passes"]), [JOURNEY])
        self.assertEqual(list(self.json("/stopareacode/x")["x"]), ["5"])
        self.nothing("/stopareacode/y")

    def test_stop_that_joins_an_area(self) -> None:
        """A stop that joins an area of one stop is added to responses to repeated requests."""
        for path in ("/stopareacode/x", "/stopareacode/x,z"):
            self.setUp()
            for _ in range(3):
                self.assertEqual({*self.json(path)}, {"x"})
            area = path[-1]
            self.clock.advance(1)
            published = local_timestamp(self.clock.seconds())
            ingest(
                self.feed,
                kv.planning(points=[{"TimingPointCode": "7", "StopAreaCode": area}], published=published),
            )
            stops = [stop for stops in self.json(path).values() for stop in stops]
            self.assertEqual(stops, ["5", "7"], path)

    def test_area_with_the_code_of_its_stop(self) -> None:
        """An area may have the code of its only stop, whose own document is another one."""
        ingest(self.feed, kv.planning(points=[{"TimingPointCode": "8", "StopAreaCode": "8"}]))
        for _ in range(2):
            self.assertEqual(list(self.json("/tpc/8")["8"]), ["Stop", "Passes", "GeneralMessages"])
            self.assertEqual(list(self.json("/stopareacode/8")["8"]), ["8"])


class LineTests(OvapiTestCase):
    """/line/."""

    SHAPE = {
        "LineWheelchairAccessible": "UNKNOWN",
        "TransportType": "BUS",
        "DestinationName50": "Lindedorp via Brug",
        "DataOwnerCode": "LIN",
        "DestinationCode": "D1",
        "LinePublicNumber": "4",
        "LinePlanningNumber": "L004",
        "LineName": "Lindedorp - Station",
        "LineDirection": 1,
    }

    def setUp(self) -> None:
        super().setUp()
        stops: list[dict[str, str | None]] = [{}, {"UserStopCode": "u2", "TimingPointCode": OTHER}]
        self.second: dict[str, str | None] = {"UserStopCode": "u2", "UserStopOrderNumber": "10"}
        times = {"TargetArrivalTime": "01:20:00", "TargetDepartureTime": "01:20:00", "IsTimingStop": "1"}
        message = kv.planning(
            {"JourneyStopType": "FIRST", **times},
            {"JourneyStopType": "LAST", "TargetDepartureTime": "00:00:00", **self.second},
            user_stops=stops,
        )
        ingest(self.feed, message, kv.calendar("2026-01-01"))

    def actuals(self) -> dict[str, tuple[int, str]]:
        document = self.json(f"/line/{LINE}/actuals")[LINE]["Actuals"]
        return {key: (call["UserStopOrderNumber"], call["TripStopStatus"]) for key, call in document.items()}

    def test_all(self) -> None:
        """The index describes every line in each direction, including those known only from KV8."""
        ingest(self.feed, kv.passtimes({"LinePlanningNumber": "L_5", "LineDirection": "2"}))
        document = self.json("/line/")
        self.assertSameJson(document[LINE], self.SHAPE)
        self.assertEqual(list(document), [LINE, "LIN_L_5_2"])
        self.assertEqual(document["LIN_L_5_2"]["LinePublicNumber"], "L_5")

    def test_line(self) -> None:
        """A line has its description, the positions of its journeys, the time in UTC, and its stops by pattern."""
        self.clock.advance(0.9)
        lines = self.json(f"/line/{LINE},")
        self.assertEqual(list(lines), [LINE])
        document = lines[LINE]
        self.assertEqual(list(document), ["Line", "Actuals", "ServerTime", "Network"])
        self.assertSameJson(document["Line"], self.SHAPE)
        self.assertEqual(document["ServerTime"], "2026-01-01T00:00:00Z")
        self.assertEqual(list(document["Network"]), ["900"])
        self.assertEqual(list(document["Network"]["900"]), ["3", "10"])
        self.assertSameJson(document["Network"]["900"]["3"], {**STOP, "IsTimingStop": True, "UserStopOrderNumber": 3})
        self.assertEqual(document["Network"]["900"]["10"]["TimingPointCode"], OTHER)
        self.assertEqual(list(self.json(f"/line/{LINE}/actuals")[LINE]), ["Line", "Actuals", "ServerTime"])
        for path in ("/line/LIN_L004_2", "/line/LIN_L004", "/line/x", f"/line/{LINE}/departures"):
            self.nothing(path)

    def test_actuals(self) -> None:
        """A journey is at its first stop while planned, then at its last call, and absent after its end."""
        self.assertEqual(self.actuals(), {JOURNEY: (3, "PLANNED")})
        second = {**self.second, "TimingPointCode": OTHER, "JourneyStopType": "LAST"}
        for first, last, expected in [
            ("DRIVING", "DRIVING", {JOURNEY: (3, "DRIVING")}),
            ("ARRIVED", "DRIVING", {JOURNEY: (3, "ARRIVED")}),
            ("PASSED", "DRIVING", {JOURNEY: (3, "PASSED")}),
            ("PASSED", "ARRIVED", {}),
            ("CANCEL", "CANCEL", {}),
            ("UNKNOWN", "UNKNOWN", {}),
        ]:
            self.setUp()
            ingest(
                self.feed,
                kv.passtimes(
                    {"TripStopStatus": first, "JourneyStopType": "FIRST"}, {**second, "TripStopStatus": last}
                ),
            )
            self.assertEqual(self.actuals(), expected, (first, last))

    def test_order_of_stops(self) -> None:
        """The stops of a journey are in the order of their numbers."""
        rows = [
            {
                "JourneyNumber": "7",
                "UserStopOrderNumber": order,
                "TripStopStatus": "PASSED",
                "UserStopCode": f"u{order}",
            }
            for order in ("10", "9")
        ]
        ingest(self.feed, kv.passtimes(*rows))
        self.assertEqual(self.actuals()["LIN_77_L004_7_0"], (10, "PASSED"))
        self.assertIsNone(current_passtime([], NOW))


class JourneyTests(OvapiTestCase):
    """/journey/."""

    def test_all(self) -> None:
        """The index has the number of stops of each live journey."""
        ingest(self.feed, kv.passtimes({}, {"UserStopOrderNumber": "4"}, {"JourneyNumber": "2"}))
        self.assertEqual(self.json("/journey/"), {JOURNEY: 2, "LIN_77_L004_2_0": 1})

    def test_journey(self) -> None:
        """A journey has the time in UTC and its passes by the number of the stop, in order."""
        ingest(self.feed, kv.planning(), kv.passtimes({**ROW, "UserStopOrderNumber": "10"}, ROW))
        document = self.json(f"/journey/{JOURNEY},x")
        self.assertEqual(list(document), [JOURNEY])
        self.assertEqual(list(document[JOURNEY]), ["ServerTime", "Stops"])
        self.assertEqual(document[JOURNEY]["ServerTime"], "2026-01-01T00:00:00Z")
        self.assertSameJson(document[JOURNEY]["Stops"], {"3": PASS, "10": {**PASS, "UserStopOrderNumber": 10}})
        for path in (f"/journey/{JOURNEY}/actuals", "/journey/x", "/journey/LIN_77_L004_1001_1"):
            self.nothing(path)

    def test_old(self) -> None:
        """A journey of a silent operator becomes stale, and finally is not served."""
        ingest(self.feed, kv.passtimes(ROW))
        self.clock.advance(100)
        self.assertEqual(self.request(f"/journey/{JOURNEY}").headers["Cache-Status"], "govi-cache; hit; ttl=-40")
        self.clock.advance(201)
        self.nothing(f"/journey/{JOURNEY}", 503)


class OtherTests(OvapiTestCase):
    """/generalmessage and /lastupdate."""

    def test_messages(self) -> None:
        """Messages are returned while they are current."""
        self.nothing("/generalmessage")
        start = "2026-01-01T01:01:00+01:00"
        end = "2026-01-01T01:02:00+01:00"
        ingest(self.feed, kv.general_message({"MessageStartTime": start, "MessageEndTime": end}))
        self.nothing("/generalmessage")
        self.clock.advance(60)
        self.assertEqual(list(self.json("/generalmessage/")), ["LIN_2026-01-01_27_ALGEMEEN_30000001"])
        self.clock.advance(60)
        self.nothing("/generalmessage")
        self.nothing("/generalmessage/x")

    def test_last_update(self) -> None:
        """The response has the latest timestamp of each data owner and subscription."""
        ingest(self.feed, kv.passtimes({"DataOwnerCode": "B"}), kv.passtimes({"LastUpdateTimeStamp": None}))
        document = self.json("/lastupdate")
        self.assertSameJson(
            document,
            {
                "LastUpdateTimeStamps": {
                    "DataOwner": {"B": "2026-01-01T00:59:50+0100"},
                    "Subscription": {"openOV LIN": "2026-01-01T00:59:50+0100"},
                },
                "ServerTime": "2026-01-01T00:00:00Z",
            },
        )
