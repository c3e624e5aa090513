"""Whatever a column of the feed contains: every path sends valid documents, and a bad value costs only itself."""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any
from urllib.parse import quote

from jsonschema_rs import ValidationError
from lxml import etree
from twisted.trial.unittest import SynchronousTestCase

from govi_server.kv78turbo.kv8_columns import COLUMNS, KEY_NAMES
from tests import feed as kv
from tests.client import NOW
from tests.doubles import ingest
from tests.examples import Program
from tests.feed import Row
from tests.openapi.test_document import parse_document

# Fields as bytes of CTX, by what is wrong with them.
VALUES: Mapping[str, bytes] = {
    "empty": b"",
    "null": b"\\0",
    "unknown": b"UNKNOWN",
    "space": b"  ",
    "no-break space": "\u00a0".encode(),
    "zero-width space": "\u200b\ufeff".encode(),
    "too long": b"x" * 300,
    "huge number": b"9" * 400,
    "large number": b"9999999999999999999",
    "negative": b"-1",
    "signed": b"+7",
    "zeros": b"007",
    "fraction": b"1.5",
    "exponent": b"1e400",
    "not a number": b"NaN",
    "boolean": b"true",
    "JSON": b"null",
    "other digits": "\u0661\u00b2".encode(),
    "non-ASCII": "\u00e9\U0001f68c".encode(),
    "control characters": b"a\x00\x01\x1b[31m\x7f\xc2\x85",
    "only control characters": b"\x01\x7f\xc2\x85",
    "direction": "\u202ea\u2028b\ufffe".encode(),
    "escaped": b"a\\pb\\ic\\r\\n",
    "markup": b"<b>&\"']]>",
    "not UTF-8": b"caf\xe9",
    "only not UTF-8": b"\xff",
    "unknown escape": b"a\\x",
    "null within": b"a\\0",
    "invalid time": b"99:99:99",
    "short time": b"1:00:00",
    "timestamp": b"2026-01-01T00:55:00+01:00",
    "end of time": b"9999-12-31T23:59:59+01:00",
    "beyond the end of time": b"9999-12-31T23:59:59-23:59",
    "begin of time": b"0001-01-01T00:00:00+23:59",
    "old timestamp": b"1900-01-01T00:00:00Z",
}
BLANK = ("empty", "null", "space", "no-break space", "zero-width space", "only control characters")
BROKEN = ("not UTF-8", "only not UTF-8", "unknown escape", "null within")

NUMBERS = (
    *("FortifyOrderNumber", "JourneyNumber", "JourneyPatternCode", "LocalServiceLevelCode", "LineDirection"),
    *("UserStopOrderNumber", "NumberOfCoaches"),
)
LEAF = re.compile(r"[0-9]{1,2}:[0-5][0-9]:[0-5][0-9]")
LABELS = [*kv.TABLES["DATEDPASSTIME"], "LinePublicNumber", "DestinationName"]
ROW_LIMIT = 100
"""Codes per request, and rows per message."""


Change = Mapping[str, bytes]
"""The fields of a row by column, as bytes of CTX."""


def message(table: str, rows: Sequence[tuple[Row, Change]]) -> bytes:
    """Return a message of a table; each row with its changes, which may be invalid."""
    labels = LABELS if table == "DATEDPASSTIME" else list(kv.TABLES[table])
    marked = [{**row, **{name: f"@{n}{name}@" for name in change}} for n, (row, change) in enumerate(rows)]
    text = kv.message("any", kv.table(table, marked, labels))
    for n, (_, change) in enumerate(rows):
        for name, value in change.items():
            text = text.replace(f"@{n}{name}@".encode(), value)
    return text


class FeedValuesTestCase(SynchronousTestCase):
    """All modules of the program over a feed with one row for each column and value."""

    def setUp(self) -> None:
        self.program = Program("feed", has_data=False, now=NOW)
        assert self.program.components.feed is not None
        self.feed = self.program.components.feed
        self.document = parse_document(self.program.request("/openapi.json").body)

    def ingest(self, table: str, *rows: tuple[Row, Change]) -> None:
        for begin in range(0, len(rows), ROW_LIMIT):  # larger messages are ingested in steps
            ingest(self.feed, message(table, rows[begin : begin + ROW_LIMIT]))

    def body(self, template: str, url: str, accept: str = "") -> Any:
        """Request a URL and validate the response against the template's schema; return the parsed body."""
        response = self.program.request(url, accept)
        self.assertEqual(response.status, 200, url)
        content_type = response.headers.get_content_type()
        described = self.document.content["paths"][template]["get"]["responses"]["200"]["content"][content_type]
        try:
            body = self.document.validate_body(described["schema"], content_type, response.body.decode())
        except ValidationError as error:
            raise AssertionError(f"{url}: {'/'.join(map(str, error.instance_path))}: {error.message}") from error
        return etree.fromstring(response.body) if content_type == "text/xml" else body

    def check_stops(self) -> dict[str, Any]:
        """Validate every document about the stops of KV8, and all lists; return OVapi's stops."""
        stops: dict[str, Any] = {}
        codes = [*self.feed.passtimes.stops]
        for begin in range(0, len(codes), ROW_LIMIT):
            listed = ",".join(codes[begin : begin + ROW_LIMIT])
            stops |= self.body("/tpc/{TimingPointCodes}", f"/tpc/{listed}?horizon=1440")
            self.check_kv55(self.body("/kv55/{TimingPointCodes}", f"/kv55/{listed}?horizon=1440"))
            for accept in ("application/json", "text/plain", "text/html"):
                self.body("/board/{TimingPointCodes}", f"/board/{listed}?horizon=1440", accept)
        for code in codes:
            path = "/siri/stop-monitoring.json"
            self.check_siri(self.body(path, f"{path}?MonitoringRef={code}"))
        self.body("/tpc/{TimingPointCodes}/departures", f"/tpc/{codes[0]}/departures")
        self.body("/events/{TimingPointCodes}", f"/events/{codes[0]}", "text/event-stream")
        for code, stop in stops.items():
            for passtime in stop["Passes"].values():
                self.check_pass(code, passtime)
        self.check_lists()
        return stops

    def check_lists(self) -> None:
        """Validate the documents about everything, and those of the journeys and lines in them."""
        self.body("/tpc/", "/tpc/")
        self.body("/lastupdate", "/lastupdate")
        for path, template in (("journey", "{Journeys}"), ("line", "{Lines}"), ("stopareacode", "{StopAreaCodes}")):
            response = self.program.request(f"/{path}/")
            if response.status == 404:
                continue
            keys = [
                key
                for key in self.body(f"/{path}/", f"/{path}/")
                if key.strip() and "," not in key and "/" not in key
            ]
            for begin in range(0, len(keys), ROW_LIMIT):
                listed = ",".join(quote(key, safe="") for key in keys[begin : begin + ROW_LIMIT] if len(key) < 100)
                self.body(f"/{path}/{template}", f"/{path}/{listed}")

    def check_pass(self, code: str, passtime: Mapping[str, Any]) -> None:
        """Check what the schema does not say: no text is blank, no boolean is a number, times have a form."""
        for name, value in passtime.items():
            if name in NUMBERS:
                self.assertIs(type(value), int, (code, name))
            elif isinstance(value, str):
                self.assertTrue(re.search(r"[^\W_]|[^\x00-\x7f]|[-<+]", value), (code, name, value))
            if name.endswith("Time") and isinstance(value, str):
                self.assertRegex(value, r"\A20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\Z", (code, name))

    def check_kv55(self, root: etree._Element) -> None:
        """Check that no element of a trip is blank, and that its times have KV55's form."""
        for trip in root.iter("Trip"):
            texts = {str(element.tag): element.text or "" for element in trip}
            for tag, text in texts.items():
                self.assertTrue(text.strip("\ufffd \u00a0\n\t"), (tag, texts))
            for tag in ("TargetDepartureTime", "ExpectedDepartureTime"):
                self.assertRegex(texts[tag], LEAF, texts)

    def check_siri(self, document: Any) -> None:
        """Check that no text is empty."""

        def walk(value: Any, path: str) -> None:
            if isinstance(value, dict):
                for name, member in value.items():
                    walk(member, f"{path}/{name}")
            elif isinstance(value, list):
                for member in value:
                    walk(member, path)
            else:
                self.assertNotEqual(value, "", path)

        walk(document, "")


class PasstimeTests(FeedValuesTestCase):
    """KV8's passing times."""

    def test_any_value_of_any_column(self) -> None:
        """Every document is valid, before and after KV7; a bad value costs only itself, that of a key its row."""
        columns = [label for label in LABELS if label in {column.name for column in COLUMNS}]
        variants = list(product(columns, VALUES))
        rows: list[tuple[Row, Change]] = [
            (
                {"TimingPointCode": f"400{columns.index(column)}", "UserStopCode": f"u{n}", "JourneyNumber": str(n)},
                {column: VALUES[name]},
            )
            for n, (column, name) in enumerate(variants)
        ]
        for planning in ((), (kv.planning({}), kv.calendar("2026-01-01"))):
            self.setUp()
            ingest(self.feed, *planning)
            self.ingest("DATEDPASSTIME", *rows)
            passtimes = [passtime for stop in self.check_stops().values() for passtime in stop["Passes"].values()]
            found = {passtime.get("JourneyNumber") for passtime in passtimes}
            lost = {variant for n, variant in enumerate(variants) if n not in found}
            self.assertEqual({column for column, _ in lost}, {*KEY_NAMES, "TimingPointCode"})

    def test_broken_key_costs_the_row(self) -> None:
        """A row with a blank or broken column of its key is rejected; the other rows of its message are stored."""
        for column in KEY_NAMES:
            broken: list[tuple[Row, Change]] = [({}, {column: VALUES[name]}) for name in (*BLANK, *BROKEN)]
            self.setUp()
            self.ingest("DATEDPASSTIME", ({}, {}), *broken, ({"JourneyNumber": "2"}, {}))
            self.assertEqual(self.feed.passtimes.n_passtimes, 2, column)

    def test_names_fall_back_to_codes(self) -> None:
        """A blank name is no name: every document has the code instead, and none a blank text."""
        for name in BLANK:
            self.setUp()
            for table, columns in (
                ("LINE", ("LinePublicNumber", "LineName", "TransportType")),
                ("DESTINATION", ("DestinationName50",)),
                ("TIMINGPOINT", ("TimingPointName", "TimingPointTown", "StopAreaCode")),
                ("DATEDPASSTIME", ("LinePublicNumber", "DestinationName")),
            ):
                self.ingest(table, ({}, dict.fromkeys(columns, VALUES[name])))
            ingest(self.feed, kv.calendar("2026-01-01"))
            self.ingest("LOCALSERVICEGROUPPASSTIME", ({"JourneyStopType": "FIRST", "JourneyNumber": "2"}, {}))
            self.ingest("USERTIMINGPOINT", ({}, {}))
            stop = self.check_stops()["30000001"]
            self.assertEqual(stop["Stop"]["TimingPointName"], "30000001")
            self.assertEqual((stop["Stop"]["TimingPointTown"], stop["Stop"]["StopAreaCode"]), ("unknown", None))
            passtimes = [*stop["Passes"].values()]
            lines = self.body("/line/{Lines}", "/line/LIN_L004_1")["LIN_L004_1"]
            passtimes += [lines["Line"], *lines["Actuals"].values()]
            self.assertEqual(len(passtimes), 5)
            codes = {
                "DestinationName50": "D1",
                "TransportType": "UNKNOWN",
                "TimingPointName": "30000001",
                "LineName": "L004",
                "LinePublicNumber": "L004",
                "TimingPointTown": "unknown",
            }
            for passtime in passtimes:
                self.assertEqual(
                    {member: passtime[member] for member in codes if member in passtime},
                    {member: code for member, code in codes.items() if member in passtime},
                )
            (pattern,) = lines["Network"].values()
            self.assertEqual([stop["TimingPointName"] for stop in pattern.values()], ["30000001"])
            for path, query in (("/places", "?q=30000001"), ("/near", "?lat=52.155&lon=5.387")):
                (found,) = self.body(path, path + query)["places"]
                self.assertEqual((found["name"], found["town"]), ("30000001", ""))
            board = self.body("/board/{TimingPointCodes}", "/board/30000001", "application/json")["stops"][0]
            self.assertEqual((board["name"], board["town"]), ("30000001", ""))
            departures = {(row["line"], row["destination"]) for row in board["departures"]}
            self.assertEqual(departures, {("L004", "D1")})
            trips = self.body("/kv55/{TimingPointCodes}", "/kv55/30000001").iter("Trip")
            texts = {(trip.findtext("LinePublicNumber"), trip.findtext("DestinationName")) for trip in trips}
            self.assertEqual(texts, {("L004", "D1")})

    def test_unknown_destination(self) -> None:
        """Without any destination, KV55 and SIRI omit the name."""
        for name in BLANK:
            self.setUp()
            self.ingest("DATEDPASSTIME", ({}, {"DestinationCode": VALUES[name]}))
            (passtime,) = self.check_stops()["30000001"]["Passes"].values()
            self.assertEqual((passtime["DestinationName50"], passtime["DestinationCode"]), ("unknown", "UNKNOWN"))
            (trip,) = self.body("/kv55/{TimingPointCodes}", "/kv55/30000001").iter("Trip")
            self.assertIsNone(trip.find("DestinationName"))
            path = "/siri/stop-monitoring.json"
            delivery = self.body(path, f"{path}?MonitoringRef=30000001")["Siri"]["ServiceDelivery"]
            (visit,) = delivery["StopMonitoringDelivery"][0]["MonitoredStopVisit"]
            self.assertNotIn("DestinationName", visit["MonitoredVehicleJourney"])
            self.assertNotIn("DestinationDisplay", visit["MonitoredVehicleJourney"]["MonitoredCall"])


class TimetableTests(FeedValuesTestCase):
    """KV7."""

    def test_any_value_of_any_column(self) -> None:
        """Every document is valid, and no row of KV8 is lost."""
        tables = ("DESTINATION", "TIMINGPOINT", "USERTIMINGPOINT", "STOPAREA", "LINE", "LOCALSERVICEGROUPPASSTIME")
        for table in tables:
            self.setUp()
            calendar = kv.calendar("2026-01-01")
            ingest(self.feed, kv.planning({"JourneyNumber": "5", "JourneyStopType": "FIRST"}), calendar)
            rows: list[tuple[Row, Change]] = []
            live: list[Row] = []
            for n, (column, name) in enumerate(product(kv.TABLES[table], VALUES)):
                keys = {
                    "TimingPointCode": f"4{n}" if table == "TIMINGPOINT" else f"4{n % 10}",
                    "LinePlanningNumber": f"L{n}",
                    "DestinationCode": f"E{n}",
                    "StopAreaCode": f"A{n}",
                    "UserStopCode": f"u{n}",
                    "JourneyNumber": "6",
                }
                row = {key: value for key, value in keys.items() if key in kv.TABLES[table]}
                rows.append((row, {column: VALUES[name]}))
                live.append({key: value for key, value in keys.items() if key in kv.TABLES["DATEDPASSTIME"]})
            self.ingest(table, *rows)
            self.ingest("DATEDPASSTIME", *((row, {}) for row in live))
            self.assertEqual(self.feed.passtimes.n_passtimes, len(live), table)
            self.check_stops()
            self.body("/places", "/places?q=4")
            self.body("/near", "/near?lat=52.155&lon=5.387")


class GeneralMessageTests(FeedValuesTestCase):
    """KV8's general messages."""

    def test_any_value_of_any_column(self) -> None:
        """Every document is valid; a bad value costs only itself, that of a key its row."""
        variants = list(product(kv.TABLES["GENERALMESSAGEUPDATE"], VALUES))
        rows: list[tuple[Row, Change]] = [
            ({"MessageCodeNumber": str(n), "TimingPointCode": str(n % 10)}, {column: VALUES[name]})
            for n, (column, name) in enumerate(variants)
        ]  # a stop has at most MAX_STOP_MESSAGES
        ingest(self.feed, kv.passtimes({}))
        self.ingest("GENERALMESSAGEUPDATE", *rows)
        self.check_stops()
        messages = self.body("/generalmessage", "/generalmessage")
        numbers = {message["MessageCodeNumber"] for message in messages.values()}
        lost = {variant for n, variant in enumerate(variants) if str(n) not in numbers}
        ended = {("MessageEndTime", name) for name in ("timestamp", "begin of time", "old timestamp")}
        ended |= {("MessageStartTime", name) for name in ("end of time", "beyond the end of time")}
        self.assertEqual({column for column, _ in lost - ended}, set(kv.TABLES["GENERALMESSAGEDELETE"]))
        self.assertLessEqual(ended, lost)
        form = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")
        for message_ in messages.values():
            for label in ("MessageStartTime", "MessageEndTime", "MessageTimeStamp"):
                if message_.get(label):
                    self.assertRegex(message_[label], form)
