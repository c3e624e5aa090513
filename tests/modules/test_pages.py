"""Tests of /places, /near, /, /assets and /siri, in memory."""

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any, get_args
from unittest import mock

from lxml import html

from govi_server.departures.places import Place
from govi_server.departures.timing_point import wgs84
from govi_server.kv78turbo.subscriber import State
from govi_server.modules import front
from govi_server.modules.assets import Assets
from govi_server.modules.board import BoardPages
from govi_server.modules.display_source import FeedDisplays
from govi_server.modules.docs import Documentation, openapi_modules
from govi_server.modules.front import CHANGES_INTERVAL, MAX_CHANGED_STOPS, Front, latest_changes
from govi_server.modules.kv55_feed import LICENSE, Kv55Feed
from govi_server.modules.ovapi import ovapi_modules
from govi_server.modules.places import Near, Places
from govi_server.modules.siri import PATH, Duration, Siri
from govi_server.pages import front_page
from govi_server.pages.front_page import SourceDescription
from govi_server.pages.texts import LANGUAGES, TEXTS
from tests import feed as kv
from tests.client import Response
from tests.doubles import ingest
from tests.modules.test_kv55_feed import CODE, MINUTE, LiveTestCase, row

OTHER = "30000002"


class PagesTestCase(LiveTestCase):
    """All modules of a live feed behind a server."""

    def setUp(self) -> None:
        super().setUp()
        documentation = Documentation(lambda: self.modules, "1")
        self.front = Front([SourceDescription("kv55", "kv78turbo", LICENSE)], self.feed, "1", self.clock)
        modules: list[Any] = [
            *ovapi_modules(self.feed),
            *(Kv55Feed("kv55", self.feed), Places(self.feed), Near(self.feed), Siri(self.feed)),
            *(self.front, BoardPages(FeedDisplays(self.feed), self.clock), Assets(), *openapi_modules(documentation)),
        ]
        for module in modules:
            module.setServiceParent(self.modules)
        self.up()

    def request(self, path: str, **headers: str) -> Response:
        """Return the response to a request, after the index has been built."""
        client = self.client()
        client.get(path, **headers)
        self.clock.pump([0.001] * 30)
        response = client.response()
        client.leave()
        return response

    def json(self, path: str, status: int = 200) -> Any:
        response = self.request(path)
        self.assertEqual((response.status, response.headers.get_content_type()), (status, "application/json"), path)
        return json.loads(response.body)

    def page(self, path: str) -> Any:
        response = self.request(path)
        self.assertEqual((response.status, response.headers["Content-Type"]), (200, "text/html; charset=utf-8"))
        self.assertIn("default-src 'none'", response.headers["Content-Security-Policy"])
        return html.document_fromstring(response.body.decode())

    def plan(self) -> None:
        points = [
            {},
            {
                "TimingPointCode": OTHER,
                "TimingPointName": "<b>Elders",
                "LocationX_EW": "155300",
                "StopAreaCode": None,
            },
        ]
        ingest(self.feed, kv.planning({}, points=points), kv.calendar("2026-01-01"))


class PlacesTests(PagesTestCase):
    """GET /places and /near."""

    def ids(self, path: str) -> list[str]:
        return [place["id"] for place in self.json(path)["places"]]

    def test_places_are_found(self) -> None:
        """Places are found by name, with the members that are promised; stops of KV8 alone by their code."""
        self.plan()
        ingest(self.feed, kv.passtimes(row("1", 5, TimingPointCode="555")))
        longitude, latitude = wgs84(155_000, 463_000)
        brug = {
            "id": f"p{CODE}",
            "name": "Brug",
            "town": "Lindedorp",
            "codes": [CODE],
            "modes": ["bus"],
            "latitude": latitude,
            "longitude": longitude,
        }
        self.assertEqual(self.json("/places?q=BRUG%20l%C3%AFnde"), {"places": [brug]})
        (unnamed,) = self.json("/places?q=55")["places"]
        self.assertEqual((unnamed["name"], unnamed["town"], unnamed["latitude"]), ("555", "", None))
        self.assertEqual(self.ids("/places?q=30000"), [f"p{CODE}", f"p{OTHER}"])
        self.assertEqual(self.ids("/places?q=ldbrug"), [f"p{CODE}"])
        self.assertEqual(self.ids("/places?q=nothing"), [])

    def test_unknown_code_has_suggestions(self) -> None:
        """The board of a code that does not exist links to similar ones, and says so in text and JSON."""
        self.plan()
        wrong = f"{CODE[:-1]}9"
        page = html.document_fromstring(self.request(f"/board/{wrong}?lang=en", Accept="text/html").body.decode())
        (link,) = page.xpath(f"//nav//a[starts-with(@href, '/board/{CODE}')]")
        self.assertEqual((link.get("href"), link.text), (f"/board/{CODE}", f"{CODE} Lindedorp, Brug"))
        response = self.request(f"/board/{wrong}?lang=en", Accept="application/json")
        self.assertEqual(response.headers["Content-Type"], "application/problem+json")
        problem = json.loads(response.body)
        self.assertEqual((problem["status"], problem["stops"][0]["state"]), (404, "unknown"))
        self.assertIn(f"Did you mean: {CODE} ", problem["detail"])

    def test_board_without_a_stop(self) -> None:
        """A board without a stop is a 400 that says what is missing."""
        for path in ("/board", "/board/", "/board/,"):
            response = self.request(path)
            self.assertEqual(response.status, 400, path)
            self.assertIn(b"The path has no stop", response.body)

    def test_new_stops_are_found_later(self) -> None:
        """New stops are found once a new index has been built, for which no request waits."""
        self.plan()
        self.assertEqual(self.ids("/places?q=nieuw"), [])
        point = {"TimingPointCode": "9", "TimingPointName": "Nieuw", "StopAreaCode": None}
        ingest(self.feed, kv.planning(points=[point]))
        self.clock.advance(10)
        self.ids("/places?q=nieuw")
        self.assertEqual(self.ids("/places?q=nieuw"), ["p9"])

    def test_no_stops_known_yet(self) -> None:
        """Before any stop is known the response is a 503 with Retry-After, which is not cached."""
        paths = ("/places?q=brug", "/near?lat=52&lon=5")
        for path in paths:
            response = self.request(path)
            self.assertEqual((response.status, response.headers["Cache-Control"]), (503, "no-store"), path)
            self.assertEqual(response.headers["Retry-After"], "30", path)
            declared = self.json("/openapi.json")["paths"][path.partition("?")[0]]["get"]["responses"]["503"]
            self.assertIn("No stops are known yet.", declared["description"], path)
        self.plan()
        self.clock.advance(10)
        for path in paths:
            self.request(path)
            self.assertEqual(self.request(path).status, 200, path)

    def test_client_leaves_before_the_index_is_built(self) -> None:
        """A client that leaves before the first index is built does not affect the others."""
        self.plan()
        leaving, remaining = self.client(), self.client()
        leaving.get("/places?q=brug")
        remaining.get("/places?q=brug")
        leaving.leave()
        self.clock.pump([0.001] * 30)
        self.assertEqual(len(json.loads(remaining.response().body)["places"]), 1)

    def test_nearest_places(self) -> None:
        """The nearest places come first, with their distances."""
        self.plan()
        longitude, latitude = wgs84(155_000, 463_000)
        places = self.json(f"/near?lat={latitude}&lon={longitude}")["places"]
        distances = [(place["id"], place["distance"]) for place in places]
        self.assertEqual(distances, [(f"p{CODE}", 0), (f"p{OTHER}", 300)])
        self.assertEqual(self.ids("/near?lat=-90&lon=180"), [])

    def test_invalid_requests(self) -> None:
        """A missing or invalid parameter is a 400 that names it; a longer path is a 404."""
        for path, name in [
            ("/places", "q"),
            ("/places?q=", "q"),
            ("/places?q=" + "x" * 101, "q"),
            ("/near?lat=52", "lon"),
            ("/near?lat=91&lon=5", "lat"),
            ("/?lang=pl", "lang"),
            ("/?q=" + "x" * 101, "q"),
            ("/near?lat=nan&lon=5", "lat"),
            ("/near?lat=52&lon=1e9", "lon"),
            (f"/board/{CODE}?view=x", "view"),
            (f"/board/{','.join(map(str, range(1001)))}", "TimingPointCodes"),
        ]:
            response = self.request(path)
            self.assertEqual((response.status, response.body.split()[0].decode()), (400, name), path)
        self.assertEqual(self.request(f"/board/{CODE}?view=x").body, b"view must be wall\n")
        for path in (
            "/places/",
            "/places/x?q=a",
            "/stops",
            "/near/",
            "//",
            "/openapi.json/x",
            "/siri",
            "/assets/",
        ):
            self.assertEqual(self.request(path).status, 404, path)


class FrontTests(PagesTestCase):
    """GET /."""

    def test_form_finds_stops(self) -> None:
        """The form finds stops without scripts, and shows the query as text."""
        self.plan()
        page = self.page("/?lang=en&q=%22%3E%3Cscript%3E%20nowhere")
        self.assertEqual(page.xpath("string(//input/@value)"), '"><script> nowhere')
        self.assertEqual(page.xpath("string(//p[@role='status'])"), "No stop found")
        page = self.page("/?q=elders")
        self.assertEqual(page.xpath("string(//p[@role='status'])"), "1 halte")
        self.assertEqual(page.xpath("//ul[@id='found']//a/@href"), [f"/board/p{OTHER}"])
        self.assertEqual(page.xpath("string(//ul[@id='found']//b)"), "<b>Elders")
        self.assertEqual(page.xpath("//form/@action"), ["/"])

    def test_names_are_those_of_the_board(self) -> None:
        """A stop has the same name as on its board: without control characters, and without the town "unknown"."""
        names = {"TimingPointName": "Kerkplein \u202eevil\x07", "TimingPointTown": "unknown"}
        points = [{**names, "StopAreaCode": None}]
        ingest(self.feed, kv.planning({}, points=points), kv.calendar("2026-01-01"))
        (link,) = self.page("/?q=kerkplein").xpath("//ul[@id='found']//a")
        self.assertEqual([link.xpath(f"string({tag})") for tag in ("b", "span")], ["Kerkplein evil", ""])
        self.assertEqual(self.page(f"/board/{CODE}").xpath("string(//h1)"), "Kerkplein evil")

    def test_number_of_results(self) -> None:
        """The number of results has a text for zero, one, several and the maximum."""
        place = Place("p1", "A", "", ("1",), (), 0, 0, 0)
        for count, words in [
            (0, "Aucun arrêt trouvé"),
            (1, "1 arrêt"),
            (2, "2 arrêts"),
            (20, "Les 20 premiers arrêts"),
        ]:
            page = html.document_fromstring(
                "".join(front_page.page(self.front.content([place] * count), "fr", {"q": "x"}, 0.0))
            )
            self.assertIn(words, page.xpath("string(//p[@role='status'])"))
            self.assertEqual(len(page.xpath("//ul[@id='found']/li")), count)

    def test_language(self) -> None:
        """The page is in the requested language, otherwise in the browser's, otherwise in Dutch."""
        for query, accept, lang in [
            ("", "", "nl"),
            ("", "pl", "nl"),
            ("", "fr-BE, nl;q=0.5", "fr"),
            ("?lang=de", "fr", "de"),
        ]:
            response = self.request(f"/{query}", **{"Accept-Language": accept})
            self.assertEqual(response.headers["Content-Language"], lang, (query, accept))
            self.assertEqual(response.headers["Vary"], "Accept-Language, Accept-Encoding")
            page = html.document_fromstring(response.body.decode())
            self.assertEqual((page.get("lang"), page.findtext(".//title")), (lang, TEXTS[lang]["front"]))
            self.assertEqual(page.xpath("//footer//a[@aria-current]/@lang"), [lang])

    def test_every_text_is_translated(self) -> None:
        """No text is the same in two languages, apart from names and code."""
        self.plan()
        ingest(self.feed, kv.passtimes({}, row("2", 9)))

        def words(lang: str, state: State) -> Iterator[str]:
            self.up(state)
            page = self.page(f"/?q=brug&lang={lang}")
            visible = page.xpath("//title/text() | //body//text() | //@placeholder | //@aria-label | //@title")
            data = page.xpath("//@*[starts-with(name(), 'data-')]")
            for text in (*visible, *data):
                element = text.getparent()
                if element.tag != "code" and not element.xpath("ancestor-or-self::*[@lang][not(self::html)]"):
                    yield " ".join(text.split())

        for state in get_args(State):
            texts = [set(words(lang, state)) for lang in LANGUAGES]
            for first, second in combinations(texts, 2):
                same = first & second - {"bus", "tram", "metro", "train"}
                self.assertEqual(same, {"", "LIN", "20", "CC0 1.0", ".", "govi-cache 1"})

    def test_requested_language_is_preserved(self) -> None:
        """The form and links to boards preserve a requested language, but not the browser's."""
        self.plan()
        ingest(self.feed, kv.passtimes({}))
        names = ["q", "after", "to", "view"]
        for query, suffix in [("?q=brug&lang=de", "?lang=de"), ("?q=brug", "")]:
            page = self.page(f"/{query}")
            boards = page.xpath("//a[starts-with(@href, '/board/')]/@href")
            self.assertEqual(
                boards, [f"/board/p{CODE}{suffix}", *[f"/board/{CODE}{suffix}"] * 2]
            )  # found, changed, and the example
            self.assertEqual(page.xpath("//form//input[not(@disabled)]/@name"), [*names, "lang"] if suffix else names)
            self.assertEqual(
                page.xpath("//footer//a[@hreflang]/@href"), [f"?q=brug&lang={lang}" for lang in LANGUAGES]
            )

    def test_options_of_boards(self) -> None:
        """The form offers options of boards, which the links to boards pass on; invalid ones are an error."""
        self.plan()
        page = self.page("/?q=brug&after=5&to=Linde+Markt&mode=tram&view=wall&lang=nl")
        (board,) = page.xpath("//ul[@id='found']//a/@href")
        self.assertEqual(board, f"/board/p{CODE}?lang=nl&after=5&to=Linde+Markt&mode=tram&view=wall")
        self.assertEqual(page.xpath("//select[@name='mode']/option[@selected]/@value"), ["tram"])
        self.assertEqual(page.xpath("//form//input[@name='after' or @name='to']/@value"), ["5", "Linde Markt"])
        self.assertEqual(page.xpath("count(//details[@open])"), 1)
        self.assertEqual(self.page("/?q=brug&after=&to=&mode=").xpath("//details/@open"), [])
        self.assertEqual(self.request("/?q=brug&after=x").status, 400)

    def test_names_are_marked_as_dutch(self) -> None:
        """Names of stops and towns are not translated, and are marked as Dutch."""
        self.plan()
        for lang in LANGUAGES:
            (stop,) = self.page(f"/?q=brug&lang={lang}").xpath("//ul[@id='found']//a")
            self.assertEqual((stop.get("lang"), stop.text_content()), ("nl", f"Brug Lindedorp {CODE}"))

    def test_pages_load_only_own_files(self) -> None:
        """All files that a page loads are served under /assets."""
        for path in ("/", "/docs"):
            page = self.page(path)
            loaded = page.xpath("//script/@src | //link/@href | //img/@src")
            self.assertTrue(loaded)
            for address in loaded:
                self.assertEqual(self.request(address).status, 200, address)
            self.assertEqual(page.xpath("//@style | //style | //script[not(@src)] | //@onclick"), [])

    def test_changed_stops(self) -> None:
        """The stops that changed last are listed, the latest first; the list is refreshed every few seconds."""
        ingest(self.feed, kv.passtimes(row("1", 5, TimingPointCode="1"), row("2", 5, TimingPointCode="2")))
        links = "//section[@aria-labelledby='changed']//a/@href"
        self.assertEqual(self.page("/").xpath(links), ["/board/2", "/board/1"])
        ingest(self.feed, kv.passtimes(row("1", 6, TimingPointCode="1")))
        self.assertEqual(self.page("/").xpath(links), ["/board/2", "/board/1"])
        self.clock.advance(CHANGES_INTERVAL)
        self.assertEqual(self.page("/").xpath(links), ["/board/1", "/board/2"])

    def test_changed_stops_are_found_in_steps(self) -> None:
        """The stops that changed last are the same, however many steps it takes to find them."""
        codes = [f"{n}" for n in range(10, 60)]
        ingest(self.feed, kv.passtimes(*(row("1", 5, JourneyNumber=code, TimingPointCode=code) for code in codes)))
        ingest(self.feed, kv.passtimes(row("1", 6, JourneyNumber="20", TimingPointCode="20")))
        with mock.patch.object(front, "STEP_ITEMS", 7):
            steps = latest_changes(self.feed)
            for _ in range(8):
                next(steps)
            with self.assertRaises(StopIteration) as end:
                next(steps)
        self.assertEqual(end.exception.value, ["20", *codes[:-MAX_CHANGED_STOPS:-1]])

    def test_age_and_licence(self) -> None:
        """The page has the age of each operator's data, and the licence of the data."""
        ingest(self.feed, kv.passtimes({}, {"DataOwnerCode": "B"}))
        self.clock.advance(90)
        ingest(self.feed, kv.passtimes({"JourneyNumber": "2"}))
        page = self.page("/?lang=en")
        rows = [" ".join(line.itertext()) for line in page.xpath("//tbody/tr")]
        self.assertEqual(rows, ["B 90 s ago outdated", "LIN 0 s ago up to date"])
        (silent,) = page.xpath("//section[@aria-labelledby='disruptions']//li/text()")
        self.assertTrue(silent.startswith("B: no live data since "), silent)
        self.assertEqual(page.xpath("//a[contains(@rel, 'license')]/@href"), [LICENSE])
        self.assertEqual(page.xpath("string(//span[@class='state good'])"), "Live data is coming in.")
        self.up("DOWN", last=self.clock.seconds() - 3 * 3600 - 1)
        page = self.page("/?lang=fr")
        self.assertIn("Dernier message\N{NO-BREAK SPACE}: il y a 180 minutes.", page.text_content())
        self.assertEqual(
            page.xpath("string(//span[@class='state bad'])"),
            TEXTS["fr"]["feed_down"].replace(" ;", "\N{NO-BREAK SPACE};"),
        )

    def test_without_a_feed(self) -> None:
        """With only a gateway there is no search, and the paths have a placeholder."""
        module = Front([SourceDescription("kv55", "govi", "http://licence/")], None, "1", self.clock)
        page = html.document_fromstring("".join(front_page.page(module.content(), "nl", {}, 0.0)))
        self.assertEqual(page.xpath("//form"), [])
        self.assertIn("/kv55/<TimingPointCode>", page.text_content())
        self.assertEqual(page.xpath("//main//a/@href"), ["http://licence/", "/docs", "/openapi.json"])
        self.assertEqual(page.xpath("//span[@class='state bad']"), [])

    def test_unreachable_gateway(self) -> None:
        """A gateway that could not be reached is marked, in every language, and others are not."""
        sources = [SourceDescription(name, "govi", "http://licence/") for name in ("kv55", "other")]
        module = Front(sources, None, "1", self.clock, lambda: ["other"])
        for lang in LANGUAGES:
            page = html.document_fromstring("".join(front_page.page(module.content(), lang, {}, 0.0)))
            (dd,) = page.xpath("//span[@class='state bad']/..")
            self.assertEqual(dd.getprevious().text_content(), "/other")
            self.assertIn("504", dd.text_content())


class SiriTests(PagesTestCase):
    """GET /siri/stop-monitoring.json."""

    def delivery(self, query: str = f"MonitoringRef={CODE}", status: int = 200) -> Any:
        (delivery,) = self.json(f"{PATH}?{query}", status)["Siri"]["ServiceDelivery"]["StopMonitoringDelivery"]
        return delivery

    def journeys(self, query: str) -> list[str]:
        visits = self.delivery(f"MonitoringRef={CODE}&{query}")["MonitoredStopVisit"]
        return [visit["ItemIdentifier"].split(":")[3] for visit in visits]

    def test_visit(self) -> None:
        """A visit has SIRI's names, timestamps with offsets, and texts in arrays."""
        ingest(self.feed, kv.planning())
        ingest(self.feed, kv.passtimes({"ExpectedDepartureTime": "01:32:00", "SideCode": "P5"}))
        self.clock.advance(0.5)
        (visit,) = self.delivery()["MonitoredStopVisit"]
        self.assertEqual(
            visit,
            {
                "RecordedAtTime": "2026-01-01T00:59:50+01:00",
                "ItemIdentifier": "LIN:77:L004:1001:0:2026-01-01:3",
                "MonitoringRef": {"value": CODE},
                "MonitoredVehicleJourney": {
                    "LineRef": {"value": "LIN:L004"},
                    "DirectionRef": {"value": "1"},
                    "FramedVehicleJourneyRef": {
                        "DataFrameRef": {"value": "2026-01-01"},
                        "DatedVehicleJourneyRef": "LIN:77:L004:1001:0",
                    },
                    "JourneyPatternRef": {"value": "900"},
                    "VehicleMode": ["bus"],
                    "PublishedLineName": [{"value": "4"}],
                    "OperatorRef": {"value": "LIN"},
                    "DestinationRef": {"value": "D1"},
                    "DestinationName": [{"value": "Lindedorp via Brug"}],
                    "Monitored": True,
                    "MonitoredCall": {
                        "StopPointRef": {"value": CODE},
                        "Order": 3,
                        "StopPointName": [{"value": "Lindedorp, Brug"}],
                        "VehicleAtStop": False,
                        "DestinationDisplay": [{"value": "Lindedorp via Brug"}],
                        "AimedArrivalTime": "2026-01-01T01:30:00+01:00",
                        "ExpectedArrivalTime": "2026-01-01T01:30:00+01:00",
                        "ArrivalStatus": "onTime",
                        "ArrivalPlatformName": {"value": "P5"},
                        "AimedDepartureTime": "2026-01-01T01:30:00+01:00",
                        "ExpectedDepartureTime": "2026-01-01T01:32:00+01:00",
                        "DepartureStatus": "delayed",
                        "DeparturePlatformName": {"value": "P5"},
                    },
                },
            },
        )

    def statuses(self) -> list[tuple[Any, ...]]:
        statuses: list[tuple[Any, ...]] = []
        for visit in self.delivery()["MonitoredStopVisit"]:
            journey = visit["MonitoredVehicleJourney"]
            call = journey["MonitoredCall"]
            of_call = (call.get("ArrivalStatus"), call.get("DepartureStatus"))
            statuses.append((journey["Monitored"], *of_call, "ExpectedDepartureTime" in call))
        return statuses

    def test_statuses(self) -> None:
        """States are those of the board: departures planned or of unknown delay are neither on time nor expected."""
        ingest(
            self.feed,
            kv.passtimes(
                row("1", 1, TripStopStatus="ARRIVED"),
                row("2", 2, TripStopStatus="PLANNED"),
                row("3", 3, TripStopStatus="CANCEL"),
                row("4", 4, TripStopStatus="DRIVING", TargetDepartureTime="01:06:00", JourneyStopType="FIRST"),
                row("5", 5, TripStopStatus="UNKNOWN"),
                row("6", 6, JourneyStopType="LAST"),
                row("7", 7, TripStopStatus="OFFROUTE"),
                row("8", 8, TripStopStatus="WEIRD"),
                row("9", 9, TripStopStatus="PLANNED", TargetDepartureTime="01:05:00"),
                row("10", 10, TargetDepartureTime="01:11:00", ExpectedDepartureTime="01:10:34"),
                row("11", 11, TripStopStatus="PASSED"),
            ),
        )
        self.assertEqual(
            self.statuses(),
            [
                (True, "arrived", "onTime", True),
                (False, "noReport", "noReport", False),
                (True, "cancelled", "cancelled", False),
                (True, "onTime", "early", True),
                (False, "noReport", "noReport", False),
                (True, "onTime", None, False),
                (False, "noReport", "noReport", False),
                (False, "noReport", "noReport", False),
                (True, "noReport", "delayed", True),
                (True, "onTime", "early", True),
                (True, "arrived", "departed", True),
            ],
        )

    def test_silent_operator(self) -> None:
        """Departures of a silent operator are neither monitored nor at the stop."""
        ingest(self.feed, kv.passtimes(row("1", 3), row("2", 4, TripStopStatus="ARRIVED")))
        self.clock.advance(61)
        self.assertEqual(self.statuses(), [(False, "noReport", "noReport", False)] * 2)
        (_, arrived) = self.delivery()["MonitoredStopVisit"]
        self.assertFalse(arrived["MonitoredVehicleJourney"]["MonitoredCall"]["VehicleAtStop"])

    def test_platforms_and_modes(self) -> None:
        """Platforms are those of the board, and modes of transport those of SIRI; unknown ones are left out."""
        for side, platform in [("-", None), (" 2", "2"), ("Left", "Left")]:
            ingest(self.feed, kv.passtimes(row("1", 3, SideCode=side)))
            (visit,) = self.delivery()["MonitoredStopVisit"]
            name = visit["MonitoredVehicleJourney"]["MonitoredCall"].get("DeparturePlatformName")
            self.assertEqual(name, platform and {"value": platform}, side)
            self.clock.advance(1)
        for mode, siri_mode in [
            ("BUS", "bus"), ("METRO", "metro"), ("TRAM", "tram"), ("TRAIN", "rail"), ("BOAT", "ferry"), ("ZEP", None),
        ]:  # fmt: skip
            ingest(self.feed, kv.planning(lines=[{"TransportType": mode}]))
            (visit,) = self.delivery()["MonitoredStopVisit"]
            self.assertEqual(visit["MonitoredVehicleJourney"].get("VehicleMode"), siri_mode and [siri_mode], mode)

    def test_filters(self) -> None:
        """Visits are filtered by number, line and time."""
        ingest(self.feed, kv.planning())
        ingest(
            self.feed, kv.passtimes(row("1", 5), row("2", 20, LinePlanningNumber="N5"), row("3", 90), row("4", 150))
        )
        for query, journeys in [
            ("", ["1", "2", "3"]),
            ("MaximumStopVisits=2", ["1", "2"]),
            ("LineRef=LIN:N5", ["2"]),
            ("LineRef=4", ["1", "3"]),
            ("PreviewInterval=PT10M", ["1"]),
            ("PreviewInterval=PT2H40M", ["1", "2", "3", "4"]),
        ]:
            self.assertEqual(self.journeys(query), journeys, query)

    def test_errors(self) -> None:
        """An error is an ErrorCondition with its status."""
        for query, status, error in [
            ("", 400, "OtherError"),
            ("MonitoringRef=x", 400, "OtherError"),
            (f"MonitoringRef={CODE}&MaximumStopVisits=0", 400, "OtherError"),
            (f"MonitoringRef={CODE}&PreviewInterval=30", 400, "OtherError"),
            ("MonitoringRef=999", 404, "InvalidDataReferencesError"),
        ]:
            delivery = self.delivery(query, status)
            self.assertEqual((delivery["Status"], [*delivery["ErrorCondition"]]), (False, [error]), query)
        ingest(self.feed, kv.passtimes({}))
        self.clock.advance(6 * MINUTE)
        self.assertEqual([*self.delivery(status=503)["ErrorCondition"]], ["NoInfoForTopicError"])
        self.up("DOWN")
        condition = self.delivery("MonitoringRef=999", 503)["ErrorCondition"]
        self.assertEqual([*condition], ["ServiceNotAvailableError"])

    def test_durations(self) -> None:
        """Durations are those of ISO 8601, limited to a day."""
        for text, seconds in [
            ("PT30M", 1800), ("PT1H30M", 5400), ("P1D", 86400), ("PT90S", 90), ("P0DT1S", 1),
            ("PT0S", 0), ("P999D", 86400),
            ("P", None), ("PT", None), ("P1M", None), ("30", None), ("P1DT", None), ("PT30M\n", None),
        ]:  # fmt: skip
            self.assertEqual(Duration().parse(text), seconds, text)
