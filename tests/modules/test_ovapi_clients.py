"""What public clients of OVapi and KV55 do with the responses (docs/protocols.md, sections 1.4 and 3.3).

Each client is reduced to how it parses: its types, its formats of times, and the members that it requires.
"""

import re
from datetime import datetime
from typing import Any
from xml.dom import minidom

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tests import feed as kv
from tests.doubles import ingest
from tests.modules.test_feed_values import VALUES, Change, FeedValuesTestCase

CODE, OTHER = "30000001", "30000002"

# The types of members in the real responses of April 2026; of those with a "?" some passes lack them.
REAL: dict[str, dict[str, str]] = {
    "PassDocument": {
        "IsTimingStop": "boolean", "DestinationName50": "string", "DataOwnerCode": "string", "OperatorCode": "string",
        "FortifyOrderNumber": "integer", "TransportType": "string", "Latitude": "number", "Longitude": "number",
        "JourneyNumber": "integer", "JourneyPatternCode": "integer", "LocalServiceLevelCode": "integer",
        "LineDirection": "integer", "OperationDate": "string", "TimingPointCode": "string",
        "WheelChairAccessible": "string", "LineName": "string", "LinePublicNumber": "string",
        "LastUpdateTimeStamp": "string", "DestinationCode": "string", "ExpectedDepartureTime": "string",
        "UserStopOrderNumber": "integer", "ProductFormulaType": "string", "TimingPointName": "string",
        "LinePlanningNumber": "string", "TimingPointDataOwnerCode": "string", "TimingPointTown": "string",
        "TripStopStatus": "string", "UserStopCode": "string", "JourneyStopType": "string",
        "TargetArrivalTime": "string", "TargetDepartureTime": "string", "ExpectedArrivalTime": "string",
        "NumberOfCoaches": "integer?", "SideCode": "string?", "TimingPointWheelChairAccessible": "string",
        "TimingPointVisualAccessible": "string",
    },
    "Stop": {
        "Longitude": "number", "Latitude": "number", "TimingPointTown": "string", "TimingPointName": "string",
        "TimingPointCode": "string", "TimingPointWheelChairAccessible": "string",
        "TimingPointVisualAccessible": "string",
    },
    "Line": {
        "LineWheelchairAccessible": "string", "TransportType": "string", "DestinationName50": "string",
        "DataOwnerCode": "string", "DestinationCode": "string", "LinePublicNumber": "string",
        "LinePlanningNumber": "string", "LineName": "string", "LineDirection": "integer",
    },
    "StopOfLine": {"IsTimingStop": "boolean", "UserStopOrderNumber": "integer"},
    "StopArea": {
        "TimingPointTown": "string", "TimingPointName": "string", "StopAreaCode": "string",
        "Longitude": "number", "Latitude": "number",
    },
}  # fmt: skip


class ZodStop(Struct):
    """The stop of a web client with a zod schema."""

    Longitude: float
    Latitude: float
    TimingPointTown: str
    TimingPointName: str
    TimingPointCode: str
    StopAreaCode: str | None
    TimingPointWheelChairAccessible: str
    TimingPointVisualAccessible: str


class ZodPass(Struct):
    """Its pass: only NumberOfCoaches is optional."""

    IsTimingStop: bool
    DestinationName50: str
    DataOwnerCode: str
    OperatorCode: str
    FortifyOrderNumber: int
    TransportType: str
    Latitude: float
    Longitude: float
    JourneyNumber: int
    JourneyPatternCode: int
    LocalServiceLevelCode: int
    LineDirection: int
    OperationDate: str
    TimingPointCode: str
    WheelChairAccessible: str
    LineName: str
    LinePublicNumber: str
    LastUpdateTimeStamp: str
    DestinationCode: str
    ExpectedDepartureTime: str
    UserStopOrderNumber: int
    ProductFormulaType: str
    TimingPointName: str
    LinePlanningNumber: str
    TimingPointDataOwnerCode: str
    TimingPointTown: str
    TripStopStatus: str
    UserStopCode: str
    JourneyStopType: str
    TargetArrivalTime: str
    TargetDepartureTime: str
    ExpectedArrivalTime: str
    TimingPointWheelChairAccessible: str
    TimingPointVisualAccessible: str
    NumberOfCoaches: int | UnsetType = UNSET


class ZodDocument(Struct):
    """Its stop with passes."""

    Stop: ZodStop
    Passes: dict[str, ZodPass]
    GeneralMessages: dict[str, Any]


class GoPass(Struct):
    """The pass of henrrrik/ovapi-mcp-server: absent members are zero values, others have Go's types."""

    LinePublicNumber: str = ""
    LineName: str = ""
    DestinationName50: str = ""
    TransportType: str = ""
    TargetDepartureTime: str = ""
    ExpectedDepartureTime: str = ""
    TripStopStatus: str = ""
    LastUpdateTimeStamp: str = ""
    SideCode: str = ""
    WheelChairAccessible: str = ""
    NumberOfCoaches: int = 0
    JourneyNumber: int = 0
    LineDirection: int = 0


class GoMessage(Struct):
    """Its general message."""

    MessageContent: str = ""


class GoDocument(Struct):
    """Its stop with passes; json.Unmarshal accepts null for a position."""

    Stop: dict[str, Any]
    Passes: dict[str, GoPass]
    GeneralMessages: dict[str, GoMessage]


def home_assistant(passtime: dict[str, Any]) -> tuple[str, ...]:
    """Return what Paul-dH's sensor shows of a pass."""
    target, expected = (
        datetime.strptime(passtime[name], "%Y-%m-%dT%H:%M:%S")
        for name in ("TargetDepartureTime", "ExpectedDepartureTime")
    )
    delay = round((expected - target).seconds / 60)
    return (
        passtime["TransportType"].title(),
        passtime["DataOwnerCode"] + " " + passtime["LinePublicNumber"],
        passtime["DestinationName50"].strip(),
        passtime["TimingPointName"].strip(),
        f"{target:%H:%M} + {delay}",
    )


def dashticz(passtime: dict[str, Any]) -> str:
    """Return the row that Dashticz shows of a pass."""
    assert all(datetime.fromisoformat(passtime[name]) for name in ("TargetDepartureTime", "ExpectedDepartureTime"))
    line = passtime["LinePublicNumber"] if len(passtime["LineName"]) > 20 else passtime["LineName"]
    return f"{line} - {passtime['DestinationName50']} ({passtime.get('LineDirection')})"


def render_kv55(xml: bytes) -> list[tuple[str, str]]:
    """Return the departures of renderKV55, which reads the first child of each element without a check."""
    document = minidom.parseString(xml)  # our own response

    def text(trip: minidom.Element, name: str) -> str:
        node = trip.getElementsByTagName(name)[0].firstChild
        assert isinstance(node, minidom.Text)
        return str(node.nodeValue)

    rows = []
    for trip in document.getElementsByTagName("Trip"):
        expected, target = text(trip, "ExpectedDepartureTime"), text(trip, "TargetDepartureTime")
        assert text(trip, "DataOwnerCode")
        hours, minutes = (int(part) for part in (expected or target).split(":")[:2])
        names = trip.getElementsByTagName("DestinationName")
        rows.append((f"{hours % 24:02}:{minutes:02}", text(trip, "DestinationName") if names else ""))
    return rows


class TypeTests(FeedValuesTestCase):
    """The declared types."""

    def test_types_are_those_of_real_responses(self) -> None:
        """Each member has the type of real responses and is never null, unless it may be null or absent there."""
        for struct, members in REAL.items():
            properties = self.document.content["components"]["schemas"][struct]["properties"]
            for name, real in members.items():
                declared = properties[name].get("type") or {kind["type"] for kind in properties[name]["anyOf"]}
                kind = real.removesuffix("?")
                self.assertEqual(declared, kind, (struct, name))

    def test_only_numbers_may_be_absent(self) -> None:
        """A text that is never absent in real responses is required; a number may be absent."""
        for struct, members in REAL.items():
            required = {*self.document.content["components"]["schemas"][struct]["required"]}
            absent = {name for name in members if name not in required}
            optional = {name for name, real in members.items() if real.endswith("?") or real == "integer"}
            self.assertLessEqual(absent, optional, struct)

    def test_no_type_is_ambiguous(self) -> None:
        """No member is of more than one type, except null."""
        for struct in REAL:
            for name, schema in self.document.content["components"]["schemas"][struct]["properties"].items():
                self.assertLessEqual(len({kind["type"] for kind in schema.get("anyOf", ())} - {"null"}), 1, name)


class ClientTests(FeedValuesTestCase):
    """Clients, before and after KV7."""

    def responses(self, *rows: tuple[kv.Row, Change], planning: bool) -> None:
        """Start a feed with these passing times."""
        self.setUp()
        if planning:
            points = [{}, {"TimingPointCode": OTHER}]
            ingest(self.feed, kv.planning({"JourneyNumber": "99"}, points=points), kv.calendar("2026-01-01"))
        self.ingest("DATEDPASSTIME", *rows)
        ingest(
            self.feed,
            kv.passtimes({"JourneyNumber": "9", "TimingPointCode": OTHER, "UserStopCode": "u2"}),
            kv.general_message({}),
        )

    def get(self, path: str) -> bytes:
        response = self.program.request(path)
        self.assertEqual(response.status, 200, path)
        return response.body

    def read(self, has_numbers: bool) -> None:
        """Parse the responses as the clients do."""
        body = self.get(f"/tpc/{CODE}")
        passes = msgspec.json.decode(body)[CODE]["Passes"]
        self.assertTrue(passes)
        for passtime in passes.values():
            self.assertNotIn("", home_assistant(passtime))
            self.assertNotIn("None", dashticz(passtime) if has_numbers else "")
        msgspec.json.decode(body, type=dict[str, GoDocument])
        # MMM-NLDepartureTimes: with a trailing comma and slash.
        stops = msgspec.json.decode(self.get(f"/tpc/{CODE},{OTHER},/departures/"))
        self.assertEqual(list(stops), [CODE, OTHER])
        for stop in stops.values():
            for passtime in stop["Passes"].values():
                self.assertTrue(passtime["LinePublicNumber"] and passtime["DestinationName50"])
                datetime.fromisoformat(passtime["ExpectedDepartureTime"] or passtime["TargetDepartureTime"])
        for time, _ in render_kv55(self.get(f"/kv55/{CODE}")):
            self.assertRegex(time, re.compile(r"\A[0-2][0-9]:[0-5][0-9]\Z"))

    def test_clients(self) -> None:
        """Every client shows every departure, before the first KV7 and after it."""
        for planning in (False, True):
            self.responses(({}, {}), planning=planning)
            self.read(has_numbers=True)
            body = self.get(f"/tpc/{CODE},{OTHER}")
            self.assertEqual(len(msgspec.json.decode(body, type=dict[str, ZodDocument])[CODE].Passes), 1 + planning)

    def test_any_value(self) -> None:
        """Every client shows every departure, whatever a column that is no key contains."""
        texts = (
            *("NumberOfCoaches", "LineDirection", "JourneyPatternCode", "DestinationCode", "LastUpdateTimeStamp"),
            *("OperatorCode", "SideCode", "TripStopStatus", "JourneyStopType", "WheelChairAccessible"),
            *("TimingPointDataOwnerCode", "LinePublicNumber", "DestinationName", "MessageContent", "IsTimingStop"),
        )
        times = ("TargetDepartureTime", "ExpectedDepartureTime", "TargetArrivalTime", "ExpectedArrivalTime")
        rows: list[tuple[kv.Row, Change]] = [
            *(
                ({"JourneyNumber": f"{100 + n}"}, dict.fromkeys(texts, value))
                for n, value in enumerate(VALUES.values())
            ),
            *(({"JourneyNumber": f"{200 + n}"}, {time: VALUES["invalid time"]}) for n, time in enumerate(times)),
        ]
        for planning in (False, True):
            self.responses(*rows, planning=planning)
            self.read(has_numbers=False)
            self.assertEqual(self.feed.passtimes.n_passtimes, len(rows) + 1)

    def test_only_arrivals(self) -> None:
        """A pass of which only the arrival is known has all times."""
        times: Change = dict.fromkeys(("TargetDepartureTime", "ExpectedDepartureTime"), b"\\0")
        self.responses(({}, times), planning=True)
        self.read(has_numbers=True)
