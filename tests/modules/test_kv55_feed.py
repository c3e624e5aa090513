"""Tests of GET /kv55/<TimingPointCode>[,...] from the live feed, in memory."""

import gzip
from collections.abc import Iterator
from typing import Any, cast

from lxml import etree
from twisted.application.service import MultiService
from zope.interface.verify import verifyObject

from govi_server.departures.query import Query
from govi_server.http.caching.representation import make_representation
from govi_server.http.parameters import InvalidParameter
from govi_server.kv55 import messages
from govi_server.kv78turbo.subscriber import State, Subscriber
from govi_server.modules.kv55_feed import Kv55Feed
from govi_server.modules.query_parameters import read_query
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from govi_server.web_handler import ICacheableModule
from tests import feed as kv
from tests.client import NOW, Response, WireTestCase
from tests.doubles import FakeSubscriber, ingest, live_feed

CODE = "30000001"
MINUTE = 60


def row(journey: str, minutes: int, **columns: str | None) -> dict[str, str | None]:
    """Return a row of KV8: a journey planned and expected this many minutes after 01:00, which is NOW."""
    time = f"{1 + minutes // 60:02}:{minutes % 60:02}:00"
    names = ("ExpectedArrivalTime", "ExpectedDepartureTime", "TargetArrivalTime", "TargetDepartureTime")
    return {"JourneyNumber": journey, **dict.fromkeys(names, time), **columns}


class LiveTestCase(WireTestCase):
    """A live feed whose messages the test sends, behind a server."""

    def setUp(self) -> None:
        super().setUp()
        self.feed = live_feed(self.clock)
        self.modules = MultiService()
        self.server = Server("", 0, RequestHandler, clock=self.clock, find_module=self.modules.getServiceNamed)

    def up(self, state: State = "UP", last: float | None = None) -> None:
        self.feed.subscriber = cast(Subscriber, FakeSubscriber(state, last))

    def request(self, path: str, **headers: str) -> Response:
        client = self.client()
        client.get(path, **headers)
        response = client.response()
        client.leave()
        return response


class Kv55LiveTestCase(LiveTestCase):
    """The module behind a server."""

    def setUp(self) -> None:
        super().setUp()
        self.module = Kv55Feed("kv55", self.feed)
        self.module.setServiceParent(self.modules)

    def document(self, path: str = f"/kv55/{CODE}") -> etree._Element:
        response = self.request(path)
        self.assertEqual((response.status, response.headers["Content-Type"]), (200, "text/xml; charset=utf-8"))
        return etree.fromstring(response.body)

    def journeys(self, path: str = f"/kv55/{CODE}") -> dict[str, list[str]]:
        """Return the journeys of each stop of a document."""
        return {
            stop.findtext("TimingPointCode", ""): [trip.findtext("JourneyNumber", "") for trip in stop.iter("Trip")]
            for stop in self.document(path).iter("TimingPoint")
        }


class DocumentTests(Kv55LiveTestCase):
    """The contents of a document."""

    def test_interface(self) -> None:
        """The module is cacheable."""
        verifyObject(ICacheableModule, self.module)

    def test_trip(self) -> None:
        """A trip has the values of KV8, with the names of its line and destination from KV7."""
        times = {
            "TargetArrivalTime": "25:09:00",
            "ExpectedArrivalTime": "25:10:30",
            "TargetDepartureTime": "25:10:00",
            "ExpectedDepartureTime": "25:11:00",
        }
        ingest(self.feed, kv.planning())
        ingest(self.feed, kv.passtimes({**times, "OperationDate": "2025-12-31", "FortifyOrderNumber": "1"}))
        trip = self.document().find("Request/TimingPoint/Trip")
        assert trip is not None
        self.assertEqual(
            [(element.tag, element.text) for element in trip],
            [
                ("OperatingDate", "2025-12-31"),
                ("DataOwnerCode", "LIN"),
                ("LinePlanningNumber", "L004"),
                ("LinePublicNumber", "4"),
                ("DestinationName", "Lindedorp via Brug"),
                ("JourneyNumber", "1001"),
                ("FortifyOrderNumber", "1"),
                ("TargetArrivalTime", "25:09:00"),
                ("ExpectedArrivalTime", "25:10:30"),
                ("TargetDepartureTime", "25:10:00"),
                ("ExpectedDepartureTime", "25:11:00"),
                ("TripStopStatus", "DRIVING"),
            ],
        )

    def test_without_planning(self) -> None:
        """Without KV7 a line has its planning number and a destination its code; expected times may be absent."""
        missing: dict[str, str | None] = {"ExpectedArrivalTime": None, "ExpectedDepartureTime": None}
        ingest(self.feed, kv.passtimes(row("1", 10, **missing)))
        trip = self.document().find("Request/TimingPoint/Trip")
        assert trip is not None
        for tag, text in [
            ("LinePublicNumber", "L004"),
            ("DestinationName", "D1"),
            ("ExpectedDepartureTime", "01:10:00"),
        ]:
            self.assertEqual(trip.findtext(tag), text)

    def test_escaped(self) -> None:
        """Every text of an operator is escaped."""
        name = 'Brug & <Station> "x" \u0001\U0001f68c'
        ingest(self.feed, kv.planning(destinations=[{"DestinationName50": name}]), kv.passtimes({}))
        self.assertEqual(
            self.document().findtext("Request/TimingPoint/Trip/DestinationName"), name.replace("\u0001", "\ufffd")
        )

    def test_statuses(self) -> None:
        """A trip has KV8's status, or PLANNED if it is only planned."""
        statuses = ["DRIVING", "ARRIVED", "PASSED", "CANCEL", "UNKNOWN", "OFFROUTE", "SOMETHING"]
        ingest(self.feed, kv.passtimes(*(row(f"{n}", n, TripStopStatus=status) for n, status in enumerate(statuses))))
        times = {"TargetArrivalTime": "01:30:00", "TargetDepartureTime": "01:30:00"}
        ingest(self.feed, kv.planning({"JourneyNumber": "99", **times}), kv.calendar("2026-01-01"))
        statuses_of_trips = [trip.findtext("TripStopStatus") for trip in self.document().iter("Trip")]
        self.assertEqual(statuses_of_trips, [*statuses, "PLANNED"])

    def test_order(self) -> None:
        """Trips are in order of expected time, without arrivals at a last stop."""
        late = {"ExpectedArrivalTime": "01:40:00", "ExpectedDepartureTime": "01:40:00"}
        last = row("4", 7, JourneyStopType="LAST", TargetDepartureTime="00:00:00", ExpectedDepartureTime="00:00:00")
        ingest(self.feed, kv.passtimes(row("1", 30), row("2", 10, **late), row("3", 20), last))
        self.assertEqual(self.journeys(), {CODE: ["3", "1", "2"]})

    def test_horizon(self) -> None:
        """The horizon is two hours."""
        ingest(self.feed, kv.passtimes(row("1", 119), row("2", 121)))
        self.assertEqual(self.journeys(), {CODE: ["1"]})
        self.assertEqual(self.journeys(f"/kv55/{CODE}?horizon=122"), {CODE: ["1", "2"]})

    def test_license(self) -> None:
        """A document names the licence of its module."""
        Kv55Feed("other", self.feed, "http://x.invalid/licence").setServiceParent(self.modules)
        ingest(self.feed, kv.passtimes({}))
        for name, license_url in [
            ("kv55", "http://creativecommons.org/publicdomain/zero/1.0/"),
            ("other", "http://x.invalid/licence"),
        ]:
            self.assertEqual(self.document(f"/{name}/{CODE}").findtext("License"), license_url)


class StopsTests(Kv55LiveTestCase):
    """The stops of a request."""

    def test_several(self) -> None:
        """Several stops are in one document, each once, in the order of the request."""
        ingest(self.feed, kv.passtimes(row("1", 10), row("2", 5, TimingPointCode="31000002")))
        for path, codes in [
            (f"/kv55/{CODE},31000002", [CODE, "31000002"]),
            (f"/kv55/31000002,{CODE}", ["31000002", CODE]),
            (f"/kv55/31000002,{CODE},31000002", ["31000002", CODE]),
            (f"/kv55/{CODE},31000002,", [CODE, "31000002"]),
            (f"/kv55/{CODE},/", [CODE]),
            (f"/kv55/{CODE}/", [CODE]),
        ]:
            self.assertEqual(list(self.journeys(path)), codes)
        self.assertEqual(self.journeys(f"/kv55/{CODE},31000002"), {CODE: ["1"], "31000002": ["2"]})

    def test_some_unknown(self) -> None:
        """Unknown stops are left out if others are known."""
        self.up()
        ingest(self.feed, kv.passtimes(row("1", 10)))
        self.assertEqual(self.journeys(f"/kv55/5,{CODE},6"), {CODE: ["1"]})

    def test_leading_zero(self) -> None:
        """A code is text: leading zeros are significant."""
        ingest(self.feed, kv.passtimes(row("1", 10, TimingPointCode="031102"), row("2", 10, TimingPointCode="31102")))
        self.assertEqual(self.journeys("/kv55/031102"), {"031102": ["1"]})

    def test_invalid_codes(self) -> None:
        """An invalid TimingPointCode is a 404 with the Error of the interface."""
        for path in (
            "/kv55", "/kv55/", "/kv55/,", "/kv55/x", "/kv55/+5", "/kv55/5/6", "/kv55/1_000", "/kv55/12345678901",
            "/kv55/5,x", "/kv55/%20", "/kv55/5%0a", "/kv55/%D9%A1", "/kv55/%3CError%3E", "/kv55/%00", "/kv55/%FF",
            "/kv55//5",
        ):  # fmt: skip
            response = self.request(path)
            self.assertEqual((response.status, response.headers["Cache-Control"]), (404, "no-store"), path)
            document = etree.fromstring(response.body)
            self.assertEqual(document.findtext("Request/Error"), "Invalid TimingPointCode")
            self.assertEqual(len(document.findall(".//Error")), 1)


class FreshnessTests(Kv55LiveTestCase):
    """The freshness of boards, and the reasons for having none."""

    def error(self, code: str = CODE) -> tuple[int, str | None, str | None, str | None]:
        response = self.request(f"/kv55/{code}")
        self.assertEqual(response.headers["Cache-Control"], "no-store")
        text = etree.fromstring(response.body).findtext("Request/Error")
        return response.status, response.headers["Retry-After"], response.headers["Feed-State"], text

    def test_fresh(self) -> None:
        """A fresh board has its max-age and the feed's state."""
        self.up("UP", NOW)
        ingest(self.feed, kv.passtimes({}))
        response = self.request(f"/kv55/{CODE}")
        for name, value in [
            ("Cache-Control", "public, max-age=10"),
            ("Cache-Status", "govi-cache; hit; ttl=10"),
            ("Feed-State", "UP"),
            ("Age", None),
            ("Retry-After", None),
        ]:
            self.assertEqual(response.headers[name], value)

    def test_no_service(self) -> None:
        """A stop without departures is a board without trips."""
        self.up()
        ingest(self.feed, kv.planning())
        self.assertEqual(self.journeys(), {CODE: []})

    def test_unknown(self) -> None:
        """An unknown stop is a 404."""
        self.up()
        self.assertEqual(self.error(), (404, None, "UP", "Unknown TimingPointCode"))

    def test_down(self) -> None:
        """Without a feed an unknown stop is a 503 with Retry-After."""
        for state in ("DOWN", "RECOVERING", "UNKNOWN"):
            self.up(state)
            self.assertEqual(self.error(), (503, "30", state, f"Feed {state}"))

    def test_stale(self) -> None:
        """Boards of a silent operator are served as stale, live or only planned."""
        self.up("DOWN", NOW)
        ingest(self.feed, kv.passtimes(row("1", 30)))
        self.clock.advance(60.5)
        response = self.request(f"/kv55/{CODE}")
        self.assertEqual((response.status, response.headers["Age"]), (200, "61"))
        self.assertEqual(response.headers["Cache-Status"], "govi-cache; hit; ttl=-1")
        self.clock.advance(40)
        self.assertEqual(self.request(f"/kv55/{CODE}").headers["Cache-Status"], "govi-cache; hit; ttl=-41")
        times = {"TargetArrivalTime": "01:30:00", "TargetDepartureTime": "01:30:00", "UserStopCode": "u9"}
        stop = {"UserStopCode": "u9", "TimingPointCode": "9"}
        ingest(self.feed, kv.planning(times, user_stops=[stop]), kv.calendar("2026-01-01"))
        response = self.request("/kv55/9")
        self.assertEqual(
            (response.status, response.headers["Age"], response.headers["Feed-State"]), (200, "101", "DOWN")
        )
        self.assertEqual(self.statistics[-1].requests[0].exchange.cache, "stale")

    def test_old(self) -> None:
        """A board that is too old is not served."""
        self.up("DOWN", NOW)
        ingest(self.feed, kv.passtimes(row("1", 30)))
        self.clock.advance(301)
        self.assertEqual(self.error(), (503, "30", "DOWN", "Too old"))

    def test_several(self) -> None:
        """Only servable stops are served; if there are none, old data takes precedence over an unknown stop."""
        self.up("UP", NOW)
        ingest(
            self.feed, kv.passtimes(row("1", 30)), kv.passtimes(row("2", 30, DataOwnerCode="B", TimingPointCode="2"))
        )
        self.clock.advance(301)
        self.assertEqual(self.error(f"7,{CODE}"), (503, "30", "UP", "Too old"))
        ingest(self.feed, kv.passtimes(row("2", 30, DataOwnerCode="B", TimingPointCode="2")))
        self.assertEqual(self.journeys(f"/kv55/7,2,{CODE}"), {"2": ["2"]})


class RepresentationTests(Kv55LiveTestCase):
    """The bytes of a response."""

    def test_rendered_once(self) -> None:
        """A document is rendered once, until the stop changes or a departure leaves, and once per query."""
        renderings = []
        write = messages.dris_55_pieces

        def count(*arguments: Any) -> Iterator[bytes]:
            renderings.append(arguments)
            return write(*arguments)

        self.patch(messages, "dris_55_pieces", count)
        ingest(self.feed, kv.passtimes(row("1", 3), row("2", 60)))
        first = self.request(f"/kv55/{CODE}")
        for _ in range(10):
            self.clock.advance(20)
            self.assertEqual(self.request(f"/kv55/{CODE}?_=1").body, first.body)
        self.assertEqual(len(renderings), 1)
        self.request(f"/kv55/{CODE}", Accept_Encoding="gzip")
        self.assertEqual(len(renderings), 2)
        ingest(self.feed, kv.passtimes(row("2", 61, LastUpdateTimeStamp="2026-01-01T01:00:00+01:00")))
        self.assertNotEqual(self.request(f"/kv55/{CODE}").body, first.body)
        self.assertEqual(len(renderings), 3)
        self.clock.advance(41)
        self.assertEqual(self.journeys(), {CODE: ["2"]})
        self.assertEqual(len(renderings), 4)
        self.assertEqual(self.journeys(f"/kv55/{CODE}?limit=1"), {CODE: ["2"]})
        self.assertEqual(len(renderings), 5)

    def test_gzip(self) -> None:
        """Clients that accept gzip get the same document with gzip, under another entity tag."""
        ingest(self.feed, kv.passtimes({}))
        for path in (f"/kv55/{CODE}", f"/kv55/{CODE}?limit=5"):
            plain = self.request(path)
            compressed = self.request(path, Accept_Encoding="gzip")
            self.assertEqual(
                (plain.headers["Content-Encoding"], compressed.headers["Content-Encoding"]), (None, "gzip")
            )
            self.assertEqual(gzip.decompress(compressed.body), plain.body)
            self.assertNotEqual(compressed.headers["ETag"], plain.headers["ETag"])
            self.assertEqual({plain.headers["Vary"], compressed.headers["Vary"]}, {"Accept-Encoding"})

    def test_conditional(self) -> None:
        """A client with the current representation gets 304; a failed precondition is a 412."""
        ingest(self.feed, kv.passtimes({}))
        etag = self.request(f"/kv55/{CODE}").headers["ETag"]
        self.assertEqual(etag, make_representation(self.request(f"/kv55/{CODE}").body, "", False).etag)
        for headers, status in [
            ({"If_None_Match": etag}, 304),
            ({"If_None_Match": f'"x", W/{etag}'}, 304),
            ({"If_None_Match": '"x"'}, 200),
            ({"If_Match": etag}, 200),
            ({"If_Match": '"x"'}, 412),
            ({"If_Match": '"x"', "If_None_Match": etag}, 412),
            ({"If_Modified_Since": "Thu, 01 Jan 2026 00:00:00 GMT"}, 200),
        ]:
            response = self.request(f"/kv55/{CODE}", **headers)
            self.assertEqual((response.status, response.headers["Vary"]), (status, "Accept-Encoding"), headers)
            self.assertEqual(response.headers["Last-Modified"], None)
            if status == 304:
                self.assertEqual((response.headers["ETag"], response.body), (etag, b""))
                self.assertEqual(response.headers["Cache-Control"], "public, max-age=10")
            if status == 412:
                self.assertEqual(response.headers["ETag"], None)

    def test_head(self) -> None:
        """HEAD gets the header fields of GET, without the body."""
        ingest(self.feed, kv.passtimes({}))
        full = self.request(f"/kv55/{CODE}")
        client = self.client()
        client.send(f"HEAD /kv55/{CODE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = client.response("HEAD")
        self.assertEqual((head.headers["Content-Length"], head.body), (str(len(full.body)), b""))

    def test_statistics(self) -> None:
        """A hit has all phases but the wait."""
        ingest(self.feed, kv.passtimes({}))
        self.request(f"/kv55/{CODE}")
        (hit,) = self.statistics[-1].requests
        self.assertEqual(
            (set(hit.phases), hit.exchange.cache), ({"receive", "parse", "lookup", "render", "send"}, "hit")
        )


class QueryTests(Kv55LiveTestCase):
    """The filters."""

    def test_parse(self) -> None:
        """Filters are parsed; unknown parameters are ignored."""
        for text, query in [
            ("", Query()),
            ("_=123&x", Query()),
            ("limit=1", Query(limit=1)),
            ("limit=9999&limit=2", Query(limit=2)),
            ("line=4", Query(lines=frozenset(["4"]))),
            ("line=4,,N%2F5,", Query(lines=frozenset(["4", "N/5"]))),
            ("line=", Query()),
            ("direction=2", Query(direction="2")),
            ("horizon=1", Query(horizon=60.0)),
            ("horizon=1440", Query(horizon=86400.0)),
        ]:
            self.assertEqual(read_query(text), query, text)

    def test_invalid_values(self) -> None:
        """An invalid value is a 400 that names the parameter, even for an unknown stop."""
        digit = "%D9%A1"  # the digit 1 of another script
        for name, values in [
            ("limit", ["", "0", "00", "-1", "+1", "1.5", "10000", "x", "%201", digit]),
            ("horizon", ["", "0", "-5", "1441", "9999", "1e2", digit]),
            ("direction", ["", "0", "3", "x", "11", digit]),
        ]:
            for value in values:
                self.assertRaises(InvalidParameter, read_query, f"{name}={value}")
                response = self.request(f"/kv55/{CODE}?{name}={value}")
                self.assertEqual(
                    (response.status, response.headers["Cache-Control"]), (400, "no-store"), (name, value)
                )
                self.assertIn(name, response.body.decode())
        self.assertEqual(self.request(f"/kv55/{CODE}?" + "a=b&" * 200).status, 400)

    def test_filters(self) -> None:
        """A limit counts after the other filters; a line matches by either of its numbers."""
        ingest(
            self.feed,
            kv.planning(),
            kv.passtimes(
                row("1", 5),
                row("2", 10, LineDirection="2"),
                row("3", 15, LinePlanningNumber="L005"),
                row("4", 20, LineDirection="2"),
                row("5", 25, LinePlanningNumber="L005", LineDirection="2"),
                row("6", 3, JourneyStopType="LAST"),
            ),
        )
        for query, journeys in [
            ("limit=2", "12"),
            ("limit=100", "12345"),
            ("line=4", "124"),
            ("line=L004", "124"),
            ("line=L005", "35"),
            ("line=L005,4", "12345"),
            ("line=l004", ""),
            ("direction=2", "245"),
            ("direction=1&line=4", "1"),
            ("direction=2&limit=2", "24"),
            ("horizon=15", "123"),
            ("horizon=14&direction=1", "1"),
        ]:
            self.assertEqual(self.journeys(f"/kv55/{CODE}?{query}"), {CODE: list(journeys)}, query)
        self.assertEqual(self.journeys(f"/kv55/{CODE}"), {CODE: list("12345")})
