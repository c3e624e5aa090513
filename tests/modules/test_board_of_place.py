"""Tests of /board and /events for places, and of the filters by time, destination, mode and operator."""

import json
import re
from typing import Any

from lxml import html

from govi_server.modules.board import BoardPages
from govi_server.modules.display_source import FeedDisplays
from govi_server.modules.events import Events
from govi_server.modules.query_parameters import AFTER
from tests import feed as kv
from tests.client import Response
from tests.doubles import ingest
from tests.modules.test_kv55_feed import LiveTestCase, row

BRUG, OVERZIJDE, MARKT = "30000001", "30000002", "30000003"
"""Two stops of a place, and a stop at which journeys call later."""
PLACE = f"p{BRUG}"


class PlaceTestCase(LiveTestCase):
    """A timetable of three stops."""

    def setUp(self) -> None:
        super().setUp()
        self.board = BoardPages(FeedDisplays(self.feed), self.clock)
        self.board.setServiceParent(self.modules)
        self.up()
        self.plan()

    def plan(self, *planned: kv.Row, **columns: str | None) -> None:
        points: list[kv.Row] = [
            {"TimingPointCode": BRUG, "TimingPointName": "Lindedorp, Brug", **columns},
            {"TimingPointCode": OVERZIJDE, "TimingPointName": "Lindedorp, Brug (overzijde)", **columns},
            {"TimingPointCode": MARKT, "TimingPointName": "Lindedorp, Linde Markt", "StopAreaCode": None},
        ]
        user_stops = [
            {"UserStopCode": f"u{n}", "TimingPointCode": code} for n, code in enumerate((BRUG, OVERZIJDE, MARKT), 1)
        ]
        lines = [{}, {"LinePlanningNumber": "T1", "LinePublicNumber": "1", "TransportType": "TRAM"}]
        ingest(self.feed, kv.planning(*planned, points=points, user_stops=user_stops, lines=lines))
        ingest(self.feed, kv.calendar("2026-01-01"))

    def live(self, journey: str, minutes: int, code: str = BRUG, **columns: str | None) -> None:
        stop = {BRUG: "u1", OVERZIJDE: "u2", MARKT: "u3"}[code]
        ingest(self.feed, kv.passtimes(row(journey, minutes, TimingPointCode=code, UserStopCode=stop, **columns)))

    def request(self, path: str, **headers: str) -> Response:
        """Return the response to a request, after the index of places has been built."""
        client = self.client()
        client.get(path, **headers)
        self.clock.pump([0.0] * 30)
        response = client.response()
        client.leave()
        return response

    def stops(self, path: str, status: int = 200) -> Any:
        response = self.request(path, Accept="application/json")
        self.assertEqual(response.status, status, response.body)
        return json.loads(response.body)["stops"]

    def rows(self, path: str, *members: str) -> list[Any]:
        """Return members of the departures of the only stop."""
        (stop,) = self.stops(path)
        values = [tuple(departure[member] for member in members or ("planned",)) for departure in stop["departures"]]
        return values if len(members) > 1 else [value[0] for value in values]

    def minutes(self, path: str) -> list[int]:
        """Return the minutes after 01:00 at which departures are planned."""
        return [int(planned[14:16]) for planned in self.rows(path)]


class BoardOfPlaceTests(PlaceTestCase):
    """The board of a place."""

    def test_one_list(self) -> None:
        """The departures of all stops of a place are one list in order of time, with platform and direction."""
        self.live("1", 9, SideCode="A")
        self.live("2", 5, OVERZIJDE, LineDirection="2", SideCode="B")
        self.live("3", 7)
        (place,) = self.stops(f"/board/{PLACE}")
        self.assertEqual([*place.items()][:3], [("code", PLACE), ("name", "Brug"), ("town", "Lindedorp")])
        departures = [
            tuple(departure[name] for name in ("planned", "stop", "platform", "direction", "mode", "operator"))
            for departure in place["departures"]
        ]
        self.assertEqual(
            departures,
            [
                ("2026-01-01T01:05:00+01:00", OVERZIJDE, "B", "2", "bus", "LIN"),
                ("2026-01-01T01:07:00+01:00", BRUG, None, "1", "bus", "LIN"),
                ("2026-01-01T01:09:00+01:00", BRUG, "A", "1", "bus", "LIN"),
            ],
        )

    def test_two_calls_in_a_row(self) -> None:
        """A vehicle that calls at two stops in a row departs from the second, unless that call is cancelled."""
        for journey, minutes in (("1", 5), ("2", 15), ("3", 25), ("4", 35)):
            self.live(journey, minutes, UserStopOrderNumber="9", SideCode="A")
        self.live("1", 7, OVERZIJDE, UserStopOrderNumber="10", SideCode="B")
        self.live("2", 18, OVERZIJDE, UserStopOrderNumber="11")  # it calls elsewhere in between
        self.live("3", 27, OVERZIJDE, UserStopOrderNumber="10", JourneyStopType="LAST")
        self.live("4", 37, OVERZIJDE, UserStopOrderNumber="10", TripStopStatus="CANCEL")
        self.assertEqual(self.minutes(f"/board/{PLACE}"), [7, 15, 18, 35, 37])
        self.assertEqual(self.minutes(f"/board/{BRUG}"), [5, 15, 25, 35])
        self.assertEqual(self.rows(f"/board/{PLACE}?limit=1", "platform"), ["B"])

    def test_direction(self) -> None:
        """The direction is named where a line has the same destination in both directions."""
        self.live("1", 5)
        self.live("2", 6, OVERZIJDE)
        path = f"/board/{PLACE}?lang=en"
        self.assertNotIn(b"direction 1", self.request(path, Accept="text/html").body)
        self.live("3", 17, OVERZIJDE, LineDirection="2")
        self.live("4", 18, OVERZIJDE, LineDirection="2", DestinationCode="D9")
        page = html.document_fromstring(self.request(path, Accept="text/html").body.decode())
        notes = [row.xpath("string(.//span[@class='note'])") for row in page.xpath("//tbody/tr")]
        self.assertEqual(notes, ["direction 1", "direction 1", "direction 2", ""])
        text = self.request(f"{path}&fields=destination", Accept="text/plain").body.decode().splitlines()
        self.assertEqual(text[2:], ["Lindedorp via Brug (direction 2)", "D9"])
        page = html.document_fromstring(self.request(f"/board/{OVERZIJDE}", Accept="text/html").body.decode())
        self.assertEqual(page.xpath("//span[@class='note']"), [])  # the same departures, on the board of the stop

    def test_departures_equal_those_of_the_stops(self) -> None:
        """A departure has the same members as on the board of its stop, however old the data of other stops is."""
        self.live("1", 9)
        self.live("2", 5, OVERZIJDE, DataOwnerCode="BUS")
        self.clock.advance(100)
        self.live("3", 8)
        places = self.stops(f"/board/{PLACE}")[0]["departures"]
        stops = [departure for stop in self.stops(f"/board/{BRUG},{OVERZIJDE}") for departure in stop["departures"]]
        self.assertEqual(places, sorted(stops, key=lambda departure: str(departure["expected"])))

    def test_any_member_and_lists(self) -> None:
        """Any stop of a place identifies it; places and stops may be mixed in a list; each is one element."""
        self.live("1", 5)
        self.assertEqual(self.minutes(f"/board/p{OVERZIJDE}"), [5])
        codes = [stop["code"] for stop in self.stops(f"/board/{PLACE},{OVERZIJDE},p{MARKT}")]
        self.assertEqual(codes, [PLACE, OVERZIJDE, f"p{MARKT}"])

    def test_changes_are_seen_at_once(self) -> None:
        """A stored board is replaced when the departures of any of its stops change."""
        self.live("1", 5)
        self.assertEqual(self.minutes(f"/board/{PLACE}"), [5])
        self.live("2", 3, OVERZIJDE)
        self.assertEqual(self.minutes(f"/board/{PLACE}"), [3, 5])

    def test_ids_survive_changes_of_the_timetable(self) -> None:
        """After stops are renamed, and leave their area, an id is that of the same stop."""
        self.live("1", 5)
        self.request(f"/board/{PLACE}")
        self.plan(StopAreaCode=None)
        self.clock.advance(60)
        self.request(f"/board/{PLACE}")
        (place,) = self.stops(f"/board/{PLACE}")
        self.assertEqual((place["code"], len(place["departures"])), (PLACE, 1))

    def test_states(self) -> None:
        """A place is unknown if all its stops are, and none of its stops hides what is known of others."""
        self.assertEqual(self.stops("/board/p9", 404)[0]["state"], "unknown")
        self.assertEqual(self.stops(f"/board/{PLACE}")[0]["state"], "none")
        self.live("1", 5)
        self.assertEqual(self.stops(f"/board/{PLACE}")[0]["state"], "live")
        for path in ("/board/p", "/board/px", "/board/P30000001", f"/board/{PLACE},x"):
            self.assertEqual(self.request(path).status, 404, path)

    def test_names_instead_of_codes(self) -> None:
        """A path with words, which is a 404, names the places that may be meant, on a page as links."""
        for words in ("linde%20markt", "lindemarkt", "Linde+Markt"):
            (stop,) = self.stops(f"/board/{words}", 404)
            self.assertIn(f"Bedoelde u: p{MARKT} Lindedorp, Linde Markt?", stop["words"], words)
        response = self.request("/board/linde%20markt", Accept="text/html")
        page = html.document_fromstring(response.body.decode())
        self.assertEqual((response.status, page.xpath("//nav/a/@href")[0]), (404, f"/board/p{MARKT}"))
        self.assertIn(b"Linde Markt", self.request("/board/lindemarkt", Accept="text/plain").body)
        self.assertIn(b"No stop with the code 'xyzzy'", self.request("/board/xyzzy", Accept="text/html").body)

    def test_page_and_text(self) -> None:
        """A place has a page and lines of text, too."""
        self.live("1", 15)
        self.assertIn(b"<h1>Brug</h1>", self.request(f"/board/{PLACE}", Accept="text/html").body)
        self.assertEqual(
            self.request(f"/board/{PLACE}?fields=line,time,stop", Accept="text/plain").body, b"4 01:15 30000001\n"
        )

    def test_options_of_the_page(self) -> None:
        """The page offers the filters that it has, and passes the others on."""
        self.live("1", 15)
        path = f"/board/{PLACE}?after=5&to=&mode=bus&line=4&view=wall"
        page = html.document_fromstring(self.request(path, Accept="text/html").body.decode())
        (form,) = page.forms
        self.assertEqual((form.action, form.method), (None, "GET"))
        fields = {"after": "5", "to": "", "mode": "bus", "view": "wall", "line": "4"}
        self.assertEqual(dict(form.form_values()), fields)
        (stream,) = page.xpath("//main/@data-events")
        self.assertEqual(stream, f"/events/{PLACE}?line=4&after=5&mode=bus&view=wall&lang=nl")

    def test_modes_have_icons(self) -> None:
        """A mode of transport is an icon and a text; an unknown one is neither."""
        self.live("1", 5)
        self.live("2", 6, LinePlanningNumber="T1")
        self.live("3", 7, LinePlanningNumber="X")
        page = html.document_fromstring(self.request(f"/board/{PLACE}?lang=de", Accept="text/html").body.decode())
        heads = page.xpath("//tbody//th")
        self.assertEqual(
            [head.xpath("count(svg[@class='mode'][@aria-hidden='true']/path)") for head in heads], [1, 1, 0]
        )
        words = [" ".join(head.xpath("span[@class='unseen']/text()")).split() for head in heads]
        self.assertEqual(words, [["Bus", "4"], ["Straßenbahn", "1"], ["X"]])

    def test_stream(self) -> None:
        """A stream has the board of a place, and an event when one of its stops changes."""
        events = Events(FeedDisplays(self.feed), self.clock)
        events.setServiceParent(self.modules)
        events.startService()
        self.addCleanup(events.stopService)
        client = self.client()
        client.get(f"/events/{PLACE}?as=json&after=2")
        self.clock.pump([0.0] * 30)
        self.live("1", 5, OVERZIJDE)
        self.clock.pump([0.5] * 4)
        self.assertIn(b"01:05:00", client.transport.value())
        self.assertIn(f'"code": "{PLACE}"'.encode(), client.transport.value())


class FilterTests(PlaceTestCase):
    """Which departures a board has."""

    def test_schema_of_after(self) -> None:
        """The pattern in /openapi.json matches exactly the valid numbers."""
        for text in (*map(str, range(1000)), "", "5,", "5,720", "5,721", "-1"):
            matches = re.match(AFTER.type.schema["pattern"], text) is not None
            self.assertEqual(matches, not text or AFTER.type.parse(text) is not None, text)

    def test_after(self) -> None:
        """Departures that leave too early are left out, by the minutes that are shown; one number for each stop."""
        for journey, minutes in enumerate((2, 5, 6, 30)):
            self.live(str(journey), minutes)
            self.live(str(journey + 10), minutes, MARKT)
        self.assertEqual(self.minutes(f"/board/{BRUG}?after=5"), [6, 30])
        self.assertEqual(self.minutes(f"/board/{BRUG}?after=0"), [2, 5, 6, 30])
        self.assertEqual(self.minutes(f"/board/{BRUG}?after="), [2, 5, 6, 30])
        numbers = [len(stop["departures"]) for stop in self.stops(f"/board/{BRUG},{MARKT}?after=5,20")]
        self.assertEqual(numbers, [2, 1])
        self.assertTrue(all(minutes >= 5 for minutes in self.rows(f"/board/{BRUG}?after=5", "minutes")))
        for after in ("x", "-1", "1,2", "721", "1,,2"):
            self.assertEqual(self.request(f"/board/{BRUG}?after={after}").status, 400, after)

    def test_none_left(self) -> None:
        """A board without a departure that can be reached has none."""
        self.live("1", 2)
        (stop,) = self.stops(f"/board/{BRUG}?after=30")
        self.assertEqual((stop["state"], stop["departures"]), ("none", []))

    def test_horizon_begins_after_the_walk(self) -> None:
        """The default horizon begins with the first departure that can be reached."""
        self.live("1", 150)
        self.assertEqual(self.rows(f"/board/{BRUG}?after=40"), ["2026-01-01T03:30:00+01:00"])
        self.assertEqual(self.rows(f"/board/{BRUG}?after=40&horizon=120"), [])

    def test_limit_counts_what_can_be_taken(self) -> None:
        """Cancelled departures are shown besides, so that the alternatives stay visible."""
        for journey, minutes in enumerate((2, 3, 4, 5, 6)):
            self.live(str(journey), minutes, TripStopStatus="CANCEL" if minutes in (2, 4) else "DRIVING")
        for limit, expected in [(1, [2, 3]), (2, [2, 3, 4, 5]), (3, [2, 3, 4, 5, 6]), (4, [2, 3, 4, 5, 6])]:
            self.assertEqual(self.minutes(f"/board/{BRUG}?limit={limit}"), expected, limit)
            self.assertEqual(self.minutes(f"/board/{PLACE}?limit={limit}"), expected, limit)

    def test_mode_and_operator(self) -> None:
        """Departures are selected by the mode of their line, and by operator; lines of unknown mode by neither."""
        self.live("1", 1)
        self.live("2", 2, LinePlanningNumber="T1")
        self.live("3", 3, LinePlanningNumber="X")
        self.live("4", 4, DataOwnerCode="BUS")
        for query, expected in [
            ("mode=tram", [2]),
            ("mode=bus,tram", [1, 2]),
            ("mode=", [1, 2, 3, 4]),
            ("operator=BUS", [4]),
            ("operator=LIN&mode=bus", [1]),
            ("operator=LIN,BUS&line=L004,X", [1, 3, 4]),
        ]:
            self.assertEqual(self.minutes(f"/board/{PLACE}?{query}"), expected, query)
        self.assertEqual(self.request(f"/board/{BRUG}?mode=boat").status, 400)


class DestinationTests(PlaceTestCase):
    """Departures of journeys that call at a place later."""

    def plan_journey(self, journey: str, *codes: str) -> list[kv.Row]:
        """Return the order of stops of a journey, planned a minute from each other from 01:10 on."""
        names = ("TargetArrivalTime", "TargetDepartureTime")
        return [
            {
                "JourneyNumber": journey, "UserStopOrderNumber": str(n), **dict.fromkeys(names, f"01:{10 + n}:00"),
                "UserStopCode": {BRUG: "u1", OVERZIJDE: "u2", MARKT: "u3"}[code],
            }
            for n, code in enumerate(codes, 1)
        ]  # fmt: skip

    def setUp(self) -> None:
        super().setUp()
        self.plan(
            *self.plan_journey("1", BRUG, MARKT),
            *self.plan_journey("2", MARKT, BRUG),
            *self.plan_journey("3", BRUG, OVERZIJDE),
        )

    def journeys(self, path: str) -> list[Any]:
        return self.rows(path, "planned", "state")

    def test_destination(self) -> None:
        """A place, any of its stops, and words select the departures that call there later."""
        expected = [("2026-01-01T01:11:00+01:00", "planned")]
        for to in (MARKT, f"p{MARKT}", "linde%20markt", "LINDEMARKT%20lindedorp"):
            self.assertEqual(self.journeys(f"/board/{BRUG}?to={to}"), expected, to)
        self.assertEqual(self.minutes(f"/board/{MARKT}?to={OVERZIJDE}"), [11])  # another stop of the place
        self.assertEqual(self.minutes(f"/board/{PLACE}?to={PLACE}"), [])  # a journey within the place
        self.assertEqual(self.minutes(f"/board/{BRUG}?to=99"), [])

    def test_unknown_words(self) -> None:
        """Words that no place has are an error, which names the parameter."""
        response = self.request(f"/board/{BRUG}?to=xyzzy")
        self.assertEqual((response.status, response.body.split()[0]), (400, b"to"))

    def test_live_departure(self) -> None:
        """A live departure is selected by its planned journey, and by its later passtimes."""
        self.live("1", 14, UserStopOrderNumber="1")
        self.assertEqual(self.journeys(f"/board/{BRUG}?to={MARKT}"), [("2026-01-01T01:14:00+01:00", "on_time")])
        self.live("9", 15, UserStopOrderNumber="1")
        self.live("9", 17, MARKT, UserStopOrderNumber="2")
        self.live("8", 12, MARKT, UserStopOrderNumber="1")
        self.live("8", 16, UserStopOrderNumber="2")
        self.assertEqual(self.minutes(f"/board/{BRUG}?to={MARKT}"), [14, 15])

    def test_cancelled_at_the_destination(self) -> None:
        """A cancelled departure is shown; one whose call at the destination is cancelled is marked as cancelled."""
        self.live("1", 14, UserStopOrderNumber="1")
        self.assertEqual(self.rows(f"/board/{BRUG}?to={MARKT}", "state"), ["on_time"])
        self.live("1", 15, MARKT, UserStopOrderNumber="2", TripStopStatus="CANCEL")
        self.assertEqual(self.rows(f"/board/{BRUG}?to={MARKT}", "state"), ["cancelled"])
        self.assertEqual(self.rows(f"/board/{BRUG}?line=4", "state"), ["planned", "planned", "on_time"])
        self.live("1", 14, UserStopOrderNumber="1", TripStopStatus="CANCEL")
        self.assertEqual(self.rows(f"/board/{BRUG}?to={MARKT}", "state"), ["cancelled"])
