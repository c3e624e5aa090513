"""Tests of GET /make, in memory."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from lxml import html
from twisted.trial.unittest import SynchronousTestCase

from govi_server.pages.make_page import BOARD_PARAMETERS
from govi_server.pages.texts import LANGUAGES
from tests.client import Response
from tests.examples import Program

STATION = "57330430"


class MakeTests(SynchronousTestCase):
    """The page, over the demo's town."""

    def setUp(self) -> None:
        self.program = Program("demo")

    def request(self, query: str, more: str = "") -> Response:
        return self.program.request(f"/make?{query}", "text/html", more=more)

    def page(self, query: str) -> Any:
        response = self.request(query)
        self.assertEqual(response.status, 200, response)
        return html.document_fromstring(response.body.decode())

    def test_search_then_choose(self) -> None:
        """A search lists places to tick; a ticked one has a board, a QR code, snippets, and lines to choose."""
        page = self.page("q=station&lang=en")
        (place, *_) = page.xpath("//input[@name='stop'][not(@checked)]/@value")
        self.assertEqual(page.xpath("//iframe"), [])
        page = self.page(f"q=station&stop={place}&lang=en")
        self.assertEqual(page.xpath("//input[@name='stop'][@checked]/@value"), [place])
        self.assertEqual(page.xpath("//iframe/@src"), [f"/board/{place}"])
        self.assertTrue(page.xpath("//*[name()='svg']"))
        self.assertIn("1", page.xpath("//input[@name='line']/@value"))
        self.assertEqual(page.xpath("//figure//@style"), [])

    def test_board_has_the_chosen_options(self) -> None:
        """The address of the board has what the form selects, without its empty fields, and the board accepts it."""
        page = self.page(
            f"stop={STATION}&stop=57330080&line=1&line=2&direction=&to=&after=4,0&limit=3&language=de&theme=paper&size=wall&lang=en"
        )
        (address,) = page.xpath("//iframe/@src")
        url = urlsplit(address)
        self.assertEqual(url.path, f"/board/{STATION},57330080")
        expected = {"after": "4,0", "line": "1,2", "limit": "3", "lang": "de", "theme": "paper", "view": "wall"}
        self.assertEqual(dict(parse_qsl(url.query)), expected)
        self.assertLessEqual(expected.keys(), set(BOARD_PARAMETERS))
        self.assertEqual(self.program.request(address, "text/html").status, 200)
        self.assertEqual(page.xpath("//input[@name='line'][@checked]/@value"), ["1", "2"])

    def test_address_of_this_computer(self) -> None:
        """An address that only this computer reaches is marked as such, with the setting to change."""
        for host, is_marked in (("localhost", True), ("127.0.0.1", True), ("[::1]", True), ("10.0.0.5", False)):
            response = self.program.request(f"/make?stop={STATION}&lang=en", "text/html", host=f"{host}:8080")
            self.assertEqual("pages.address" in response.body.decode(), is_marked, host)

    def test_directions_are_named(self) -> None:
        """A direction is named by its destinations, where stops are chosen."""
        options = self.page("lang=en").xpath("//select[@name='direction']/option/text()")
        self.assertEqual(options, ["both", "1", "2"])
        both, first, second = self.page(f"stop={STATION}&lang=en").xpath("//select[@name='direction']/option/text()")
        self.assertEqual((both, first[:3], second[:3]), ("both", "1: ", "2: "))
        self.assertFalse({*first[3:].split(", ")} & {*second[3:].split(", ")} - {"…"})

    def test_walking_times(self) -> None:
        """Each of several stops has a field for its walking time; one that is given for all is in each of them."""
        two = f"stop={STATION}&stop=57330080"
        keys = f"after%20{STATION}", "after%2057330080"
        for query, fields, expected in (
            (f"stop={STATION}&after=4", ["4"], {"after": "4"}),
            (two, ["", ""], {}),
            (f"{two}&after=4", ["4", "4"], {"after": "4"}),
            (f"{two}&after=4,6", ["4", "6"], {"after": "4,6"}),
            (f"{two}&{keys[0]}=&{keys[1]}=6", ["", "6"], {"after": "0,6"}),
            (f"stop=57330080&{keys[0]}=4&{keys[1]}=6", ["6"], {"after": "6"}),
        ):
            page = self.page(query)
            self.assertEqual(page.xpath("//div[@id='walking']//input/@value"), fields, query)
            (address,) = page.xpath("//iframe/@src")
            self.assertEqual(dict(parse_qsl(urlsplit(address).query)), expected, query)
        self.assertEqual(self.request(f"{two}&{keys[0]}=4,5").status, 400)

    def test_snippets_work(self) -> None:
        """The address of the text has lines that fit the sign; the one for Home Assistant has JSON."""
        text = self.page(f"stop={STATION}&lang=en").xpath("//pre/code/text()")
        frame, led, home_assistant = text
        self.assertEqual(html.fromstring(frame).get("src"), f"http://x/board/{STATION}")
        address = led.rpartition("'http://x")[2].rstrip("'")
        lines = self.program.request(address, "text/plain").body.decode().splitlines()
        self.assertEqual({len(line) for line in lines}, {24})
        address = home_assistant.partition("http://x")[2].partition('"')[0]
        self.assertEqual(self.program.request(address, "application/json").status, 200)

    def test_origin(self) -> None:
        """Of the origin that the page's script sends, only https for the same host is believed."""
        for origin, expected in (
            ("", "http://x"),
            ("https://x", "https://x"),
            ("https://other", "http://x"),
            ("javascript:x", "http://x"),
        ):
            page = self.page(f"stop={STATION}&origin={origin}")
            self.assertEqual(page.xpath("//section[@id='result']//p/a/text()"), [f"{expected}/board/{STATION}"])

    def test_long_address_has_no_qr_code(self) -> None:
        """A long address has no QR code, which would be unreadable, or impossible."""
        for length, has_code in ((10, True), (500, False), (3000, False)):
            page = self.page(f"stop={STATION}&line={'x' * length}")
            self.assertEqual(bool(page.xpath("//figure//*[name()='svg']")), has_code, length)

    def test_invalid_requests(self) -> None:
        """Invalid fields are a 400 with a page; a longer path is a 404."""
        for query in (
            "stop=x",
            "stop=1%22%3E",
            "after=x",
            f"stop={STATION}&after=1,2",
            "size=huge",
            "theme=x",
            "language=xx",
        ):
            response = self.request(query)
            self.assertEqual((response.status, response.headers.get_content_type()), (400, "text/html"), query)
        self.assertEqual(self.program.request("/make/x").status, 404)

    def test_every_language(self) -> None:
        """The page exists in every language, and names no unknown text."""
        for lang in LANGUAGES:
            self.assertEqual(self.page(f"stop={STATION}&lang={lang}").get("lang"), lang)

    def test_without_a_feed(self) -> None:
        """A gateway's stops are entered by their codes."""
        self.program = Program("gateway")
        page = self.page("lang=en")
        self.assertEqual((page.xpath("//input[@name='q']"), len(page.xpath("//input[@name='stop']"))), ([], 1))
