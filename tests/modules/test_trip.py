"""Tests of the page of a journey."""

from typing import Any

from lxml import html

from govi_server.modules.board import BoardPages
from govi_server.modules.display_source import FeedDisplays
from govi_server.modules.trip import Trips
from govi_server.pages.texts import LANGUAGES, TEXTS, clock
from tests import feed as kv
from tests.doubles import ingest
from tests.modules.test_kv55_feed import CODE, LiveTestCase, row

NEXT = "30000002"
JOURNEY = "LIN_77_L004_1001_0"


class TripTests(LiveTestCase):
    """The module behind a server: a journey with two stops."""

    def setUp(self) -> None:
        super().setUp()
        self.up()
        Trips(self.feed).setServiceParent(self.modules)
        BoardPages(FeedDisplays(self.feed), self.clock).setServiceParent(self.modules)

    def send(self, first: str, second: str) -> None:
        """Send the calls with these states: in one minute, and at the last stop in four, a minute late."""
        calls = [
            row("1001", 1, UserStopOrderNumber="1", TripStopStatus=first),
            row(
                "1001",
                4,
                UserStopOrderNumber="2",
                TripStopStatus=second,
                TimingPointCode=NEXT,
                JourneyStopType="LAST",
                TargetArrivalTime="01:03:00",
            ),
        ]
        ingest(self.feed, kv.passtimes(*calls))

    def page(self, path: str = f"/trip/{JOURNEY}?lang=en", status: int = 200) -> Any:
        response = self.request(path)
        self.assertEqual((response.status, response.headers["Content-Type"]), (status, "text/html; charset=utf-8"))
        self.assertIn("script-src 'self'", response.headers["Content-Security-Policy"])
        return html.document_fromstring(response.body.decode())

    def test_calls_and_position(self) -> None:
        """The page lists the stops with their times and states, in order, and marks the next one."""
        self.send("PASSED", "DRIVING")
        page = self.page(f"/trip/{JOURNEY}?lang=en&at={NEXT}")
        self.assertEqual(page.xpath("//tbody//span[@class='state']/text()"), [TEXTS["en"]["passed"], "1 min late"])
        self.assertEqual(page.xpath("string(//p[contains(@class, 'notice')])"), f"On its way to Stop {NEXT}.")
        self.assertEqual(page.xpath("//tr[@aria-current='step']/th/a/@href"), [f"/board/{NEXT}?lang=en"])
        self.assertEqual(page.xpath("//tr[contains(@class, 'marked')]/th/a/@href"), [f"/board/{NEXT}?lang=en"])

    def test_script_finds_the_texts_as_it_writes_them(self) -> None:
        """The clock and the age are those of the whole seconds from which the script counts."""
        self.send("DRIVING", "DRIVING")
        self.clock.advance(29.6)
        for _ in range(3):
            self.clock.advance(10)  # responses are cached for nine seconds
            page = self.page()
            (shown,), (age,) = page.xpath("//@data-now"), page.xpath("//@data-age")
            self.assertEqual(page.xpath("string(//*[@class='clock'])"), clock(int(shown)))
            self.assertIn(clock(int(shown) - int(age)), page.xpath("string(//*[@class='age'])"))

    def test_cancelled_journey(self) -> None:
        """A cancelled journey is announced in every language; its times are struck through."""
        self.send("CANCEL", "CANCEL")
        for lang in LANGUAGES:
            page = self.page(f"/trip/{JOURNEY}?lang={lang}")
            self.assertEqual(page.xpath("string(//p[@data-news])"), TEXTS[lang]["journey_cancelled"])
            self.assertEqual(len(page.xpath("//td/span/s")), 2)

    def test_departures_link_to_their_journey(self) -> None:
        """The board of a stop links to the page, which marks the stop."""
        self.send("DRIVING", "DRIVING")
        (link,) = html.document_fromstring(self.request(f"/board/{CODE}?lang=en").body).xpath("//td//a/@href")
        self.assertEqual(link, f"/trip/{JOURNEY}?at={CODE}&lang=en")
        self.assertEqual(len(self.page(link).xpath("//tr[contains(@class, 'marked')]")), 1)

    def test_errors(self) -> None:
        """An unknown journey is a page with a way on; invalid parameters are named; old data is not shown."""
        self.send("DRIVING", "DRIVING")
        for path in ("/trip", "/trip/", "/trip/LIN_1_2_3_4", "/trip/%C3%A9_1_2_3_4", "/trip/LIN"):
            page = self.page(f"{path}?lang=en", 404)
            self.assertEqual(page.xpath("//main//a/@href"), ["/?lang=en"])
        self.assertEqual(self.request(f"/trip/{JOURNEY}?at=x").status, 400)
        self.assertEqual(self.request(f"/trip/{JOURNEY}?theme=x").body[:5], b"theme")
        self.clock.advance(self.feed.limits.stale + 1)
        response = self.request(f"/trip/{JOURNEY}?lang=en")
        self.assertEqual((response.status, response.headers["Retry-After"]), (503, "30"))

    def test_markup_is_escaped(self) -> None:
        """Markup in names of the source is escaped."""
        evil = "<script>alert(1)</script>"
        points = [{"TimingPointName": evil, "TimingPointTown": None}]
        ingest(self.feed, kv.planning({}, points=points), kv.calendar("2026-01-01"))
        self.send("DRIVING", "DRIVING")
        page = self.page()
        self.assertEqual(len(page.xpath("//script")), 1)
        self.assertIn(evil, page.text_content())
