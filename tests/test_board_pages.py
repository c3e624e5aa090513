"""GET /board/<code> and /assets/<file>, in memory."""

import gzip
import json

from twisted.application.service import MultiService
from zope.interface.verify import verifyObject

from govi_server.departures.board import Board, SourceSilent, Trip
from govi_server.departures.cache import BoardCache
from govi_server.departures.sign import StopSign
from govi_server.environ import parse
from govi_server.interfaces import IDepartureSigns, IWebModule
from govi_server.kv78turbo.signs import stop_sign
from govi_server.modules.assets import Assets
from govi_server.modules.board import MOST_ROWS, BoardPages, read_form
from govi_server.modules.live import MAX_AGE
from govi_server.modules.signs import CacheSigns, FeedSigns
from govi_server.pages.assets import TYPES, address
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from tests import feed as kv
from tests.client import NOW, Answer, WireTestCase
from tests.doubles import FakeSource, take
from tests.test_kv55_live import CODE, LiveTestCase, row

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)


class FeedSignTests(LiveTestCase):
    """The signs of the live feed."""

    def sign(self, code: str = CODE) -> StopSign:
        board = self.feed.boards.board(code, 7200.0)
        return stop_sign(self.feed, board, list(board.passes))

    def test_row(self) -> None:
        """A pass is a row, with the names and colours of KV7."""
        line = {"LineColor": "F6C900", "LineTextColor": "FFFFFF"}
        late = {"ExpectedDepartureTime": "01:12:10", "SideCode": " 2", "MessageContent": "Kleinere\\nbus"}
        take(self.feed, self.lines(line), kv.passtimes(row("1", 10, **late)))
        stop = self.sign()
        (one,) = stop.rows
        self.assertEqual((stop.state, stop.name, stop.town, stop.as_of), ("live", "Brug", "Lindedorp", None))
        self.assertEqual(
            (one.line, one.destination, one.platform, one.color, one.text_color, one.state),
            ("4", "Lindedorp via Brug", "2", "#f6c900", "#000000", "late"),
        )
        self.assertEqual((one.planned, one.expected), (NOW + 600, NOW + 730))

    def lines(self, line: kv.Row) -> bytes:
        columns = [*kv.TABLES["LINE"], "LineIcon", "LineColor", "LineTextColor"]
        points, names = kv.table("TIMINGPOINT", [{}]), kv.table("DESTINATION", [{}])
        return kv.message("KV7turbo_planning", kv.table("LINE", [line], columns), points, names)

    def test_no_colors(self) -> None:
        """A line whose colours nobody tells, or that are none, has none."""
        take(self.feed, kv.passtimes(row("1", 10)))
        self.assertEqual((self.sign().rows[0].color, self.sign().rows[0].text_color), (None, None))
        take(self.feed, self.lines({"LineColor": "red", "LineTextColor": "FFFFFF"}))
        self.assertEqual((self.sign().rows[0].color, self.sign().rows[0].text_color), (None, None))

    def test_states(self) -> None:
        """What KV8 says of a pass; what has left or only arrives is not there."""
        statuses = ("DRIVING", "ARRIVED", "PLANNED", "CANCEL", "UNKNOWN", "PASSED")
        unsaid = {"ExpectedArrivalTime": None, "ExpectedDepartureTime": None}
        last = {"JourneyStopType": "LAST", "TargetDepartureTime": "00:00:00", "ExpectedDepartureTime": "00:00:00"}
        rows = [row(f"{n}", n + 1, TripStopStatus=status) for n, status in enumerate(statuses)]
        take(self.feed, kv.passtimes(*rows, row("8", 8, **unsaid), row("9", 9, **last)))
        self.assertEqual(
            [one.state for one in self.sign().rows],
            ["on_time", "stopped", "planned", "cancelled", "unknown", "unknown"],
        )

    def test_silent(self) -> None:
        """What an operator said more than a minute ago is last known; of whom it is not, that is told apart."""
        self.up("UP", NOW)
        take(self.feed, kv.passtimes(row("1", 10)))
        self.clock.advance(30)
        self.assertEqual((self.sign().state, self.sign().age, self.sign().as_of), ("live", 30.0, None))
        self.clock.advance(31)
        take(self.feed, kv.passtimes(row("2", 12, DataOwnerCode="B")))
        stop = self.sign()
        self.assertEqual([one.state for one in stop.rows], ["last_known", "on_time"])
        self.assertEqual((stop.state, stop.age, stop.as_of), ("last_known", 61.0, NOW))

    def test_stops(self) -> None:
        """A stop is live, planned only, without departures, unknown, or nobody can tell."""
        self.up("UP", NOW)
        self.assertEqual(self.sign("9").state, "unknown")
        self.up("DOWN", NOW)
        self.assertEqual(self.sign("9").state, "down")
        self.up("UP", NOW)
        take(self.feed, kv.planning({}))
        self.assertEqual(self.sign().state, "none")
        take(self.feed, kv.calendar("2026-01-01"))
        self.assertEqual(self.sign().state, "planned")
        self.up("DOWN", NOW - 3600)
        (one,) = self.sign().rows
        self.assertEqual((self.sign().state, one.state), ("planned", "planned"))
        self.assertEqual(self.sign().minutes(one, NOW), 30)  # however long the feed has been silent

    def test_old(self) -> None:
        """What was said more than five minutes ago is not told."""
        self.up("UP", NOW)
        take(self.feed, kv.planning({}), kv.passtimes(row("1", 30)))
        self.clock.advance(301)
        stop = self.sign()
        self.assertEqual((stop.state, stop.rows, stop.name), ("down", (), "Brug"))

    def test_names(self) -> None:
        """A town that is no part of the name is told beside it; one that nobody knows is not."""
        for name, town, told in [
            ("Lindedorp, Brug", "Lindedorp", ("Brug", "Lindedorp")),
            ("Brug", "Lindedorp", ("Brug", "Lindedorp")),
            ("Lindedorp", "Lindedorp", ("Lindedorp", "Lindedorp")),
            ("Brug", "unknown", ("Brug", "")),
        ]:
            take(self.feed, kv.planning(points=[{"TimingPointName": name, "TimingPointTown": town}]))
            self.assertEqual((self.sign().name, self.sign().town), told)

    def test_messages(self) -> None:
        """Messages are told once each, as text."""
        number = {"MessageCodeNumber": "28"}
        take(self.feed, kv.general_message({}, number, {"MessageCodeNumber": "29", "MessageContent": None}))
        take(self.feed, kv.planning())
        self.assertEqual(self.sign().messages, ("Line 4 does not call at Brug.",))


class BoardLiveTests(LiveTestCase):
    """The module before the live feed."""

    def setUp(self) -> None:
        super().setUp()
        self.module = BoardPages(FeedSigns(self.feed), self.clock)
        self.module.setServiceParent(self.modules)
        self.up("UP", NOW)
        take(self.feed, kv.planning(), kv.passtimes(row("1", 5), row("2", 30)))

    def test_interfaces(self) -> None:
        """It is a web module, and answers from signs."""
        verifyObject(IWebModule, self.module)
        verifyObject(IDepartureSigns, self.module.signs)
        verifyObject(IDepartureSigns, CacheSigns(BoardCache(FakeSource(), self.clock), self.clock))

    def test_page(self) -> None:
        """A page, with all that a cache and a browser should know."""
        answer = self.ask(f"/board/{CODE}")
        self.assertEqual(answer.status, 200)
        for name, value in [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Language", "nl"),
            ("Content-Security-Policy", POLICY),
            ("Vary", "Accept, Accept-Language, Accept-Encoding"),
            ("Cache-Control", "public, max-age=10"),
            ("Feed-State", "UP"),
            ("X-Content-Type-Options", "nosniff"),
            ("Age", None),
        ]:
            self.assertEqual(answer.headers[name], value)
        self.assertIn("<h1>Brug</h1>", answer.body.decode())

    def test_never_optimistic(self) -> None:
        """What caches may keep for ten seconds tells of no more time than there is then."""
        self.assertEqual(MAX_AGE, 10)
        self.assertEqual(self.departures(f"/board/{CODE}")[0]["minutes"], 4)
        take(self.feed, kv.passtimes(row("3", 3, ExpectedDepartureTime="01:03:10")))
        self.assertEqual(self.departures(f"/board/{CODE}")[0]["minutes"], 3)
        self.clock.advance(1)
        self.assertEqual(self.departures(f"/board/{CODE}")[0]["minutes"], 2)

    def departures(self, path: str, **headers: str) -> list[dict[str, object]]:
        answer = self.ask(path, Accept="application/json", **headers)
        self.assertEqual(answer.headers["Content-Type"], "application/json; charset=utf-8")
        return [row for stop in json.loads(answer.body)["stops"] for row in stop["departures"]]

    def test_languages(self) -> None:
        """?lang= goes before the browser's language, and that before Dutch."""
        for path, accept, lang, word in [
            ("", "", "nl", "op tijd"),
            ("", "fr, en;q=0.5", "fr", "à l\u2019heure"),
            ("?lang=en", "fr", "en", "on time"),
            ("?lang=de", "", "de", "pünktlich"),
            ("", "pl", "nl", "op tijd"),
        ]:
            answer = self.ask(f"/board/{CODE}{path}", Accept_Language=accept)
            self.assertEqual(answer.headers["Content-Language"], lang)
            self.assertIn(word, answer.body.decode())
            self.assertIn(f'<html lang="{lang}">', answer.body.decode())

    def test_text(self) -> None:
        """Lines of text for who wants those."""
        answer = self.ask(f"/board/{CODE}?chars=20&limit=1&fields=line,destination,time", Accept="text/plain")
        self.assertEqual(answer.headers["Content-Type"], "text/plain; charset=utf-8")
        self.assertEqual(answer.headers["Content-Security-Policy"], None)
        self.assertEqual(answer.body, b"4 Lindedorp    4 min\n")

    def test_json(self) -> None:
        """Rows for programs, as few and as small as they want them."""
        self.assertEqual(
            self.departures(f"/board/{CODE}?limit=1&fields=line,state"), [{"line": "4", "state": "on_time"}]
        )
        self.assertEqual(len(self.departures(f"/board/{CODE}?horizon=20")), 1)
        self.assertEqual(len(self.departures(f"/board/{CODE}?direction=2")), 0)
        self.assertEqual(len(self.departures(f"/board/{CODE}?line=4")), 2)

    def test_rows(self) -> None:
        """A page has so many rows, by its view, and as many as are asked for."""
        take(self.feed, kv.passtimes(*(row(f"{n}", n) for n in range(3, 40))))
        for query, count in [("", MOST_ROWS[""]), ("?view=wall", MOST_ROWS["wall"]), ("?limit=30", 30)]:
            self.assertEqual(self.ask(f"/board/{CODE}{query}").body.count(b'<th scope="row"'), count)

    def test_form(self) -> None:
        """Who asks for a stream of what the page has gets as many rows, in the language of the page."""
        head = f"GET /events/{CODE}?view=wall&lang=de HTTP/1.1\nHost: x\nAccept: text/event-stream\n"
        query, form = read_form(parse(head))
        self.assertEqual((query.limit, form.lang, form.query), (MOST_ROWS["wall"], "de", {"view": "wall"}))
        query, form = read_form(parse(head.replace("text/event-stream", "text/plain")))
        self.assertEqual((query.limit, form.kind), (None, "text/plain"))

    def test_bad_query(self) -> None:
        """What cannot be answered is a 400 that names the parameter."""
        for query in (
            "limit=0", "horizon=x", "direction=3", "lang=pl", "lang=", "view=tv", "chars=9", "chars=501", "chars=-20",
            "chars=%D9%A1%D9%A2", "fields=", "fields=line,nothing",
        ):  # fmt: skip
            answer = self.ask(f"/board/{CODE}?{query}")
            self.assertEqual(
                (answer.status, answer.headers["Content-Type"]), (400, "text/plain; charset=utf-8"), query
            )
            self.assertTrue(answer.body.decode().startswith(query.partition("=")[0]), answer.body)
        self.assertEqual(self.ask(f"/board/{CODE}?{'a&' * 200}").status, 400)

    def test_stops(self) -> None:
        """Several stops, in order; one that there is not has its words among them."""
        page = self.ask(f"/board/9,{CODE},{CODE}").body.decode()
        self.assertEqual(page.count("<h1>"), 2)
        self.assertLess(page.index("code 9 is hier niet bekend"), page.index("<h1>Brug</h1>"))

    def test_unknown(self) -> None:
        """A stop that there is not is a 404, in each form and with its words."""
        for path in ("9", "", "x", "9/8", "%3Cscript%3E", ",".join(map(str, range(1, 102)))):
            answer = self.ask(f"/board/{path}")
            self.assertEqual((answer.status, answer.headers["Cache-Control"]), (404, "no-store"), path)
            self.assertIn("is hier niet bekend", answer.body.decode())
            self.assertEqual(answer.headers["Content-Security-Policy"], POLICY)
            self.assertEqual(answer.body.count(b"<script"), 1)
        answer = self.ask("/board/9?lang=en", Accept="text/plain")
        self.assertEqual((answer.status, answer.body), (404, b"There is no stop with code 9 here.\n"))

    def test_down(self) -> None:
        """Without a feed nobody knows: 503 with its words, and when to ask again."""
        self.up("DOWN", NOW)
        answer = self.ask("/board/9?lang=en")
        self.assertEqual(
            (answer.status, answer.headers["Retry-After"], answer.headers["Cache-Control"]), (503, "30", "no-store")
        )
        self.assertIn("not available right now", answer.body.decode())
        self.assertEqual(answer.headers["Feed-State"], "DOWN")

    def test_stale(self) -> None:
        """What was last said a while ago is served, with its time."""
        self.clock.advance(90)
        answer = self.ask(f"/board/{CODE}")
        self.assertEqual((answer.status, answer.headers["Age"]), (200, "90"))
        self.assertEqual(answer.headers["Cache-Status"], "govi-cache; hit; ttl=-30")
        self.assertIn("gegevens van 01:00", answer.body.decode())
        self.assertEqual(self.statistics[-1].requests[0].cache, "stale")

    def test_conditional(self) -> None:
        """Who has it gets no more than that said; with another minute it is another one."""
        first = self.ask(f"/board/{CODE}", Accept="application/json")
        tag = str(first.headers["ETag"])
        self.clock.advance(20)
        again = self.ask(f"/board/{CODE}", Accept="application/json", If_None_Match=tag)
        self.assertEqual((again.status, again.body), (304, b""))
        self.assertEqual(again.headers["Vary"], "Accept, Accept-Language, Accept-Encoding")
        self.clock.advance(40)
        self.assertEqual(self.ask(f"/board/{CODE}", Accept="application/json", If_None_Match=tag).status, 200)

    def test_gzip(self) -> None:
        """Who takes gzip gets the same page packed."""
        plain, packed = self.ask(f"/board/{CODE}"), self.ask(f"/board/{CODE}", Accept_Encoding="gzip")
        self.assertEqual(packed.headers["Content-Encoding"], "gzip")
        self.assertEqual(gzip.decompress(packed.body), plain.body)

    def test_hostile(self) -> None:
        """Whatever a client asks for is not part of the page as it came."""
        answer = self.ask(f"/board/{CODE}?line=%22%3E%3Cscript%3E&limit=5")
        self.assertEqual((answer.status, answer.body.count(b"<script")), (200, 1))
        self.assertIn(b"?limit=5&amp;line=%22%3E%3Cscript%3E&amp;lang=en", answer.body)


class BoardGatewayTests(WireTestCase):
    """The module before a gateway's cache."""

    def setUp(self) -> None:
        super().setUp()
        self.source = FakeSource()
        modules = MultiService()
        BoardPages(CacheSigns(BoardCache(self.source, self.clock), self.clock), self.clock).setServiceParent(modules)
        self.server = Server("", 0, RequestHandler, clock=self.clock, find_module=modules.getServiceNamed)

    def board(self, code: str = CODE, line: str = "4") -> Board:
        trip = Trip(
            "2026-01-01", "LIN", "L004", line, "Strand", "1", "0", None, None, "01:10:00", "01:12:00", "DRIVING"
        )
        return Board(code, (trip,), self.clock.seconds())

    def ask(self, path: str = f"/board/{CODE}", accept: str = "text/plain") -> Answer | None:
        client = self.client()
        client.get(path, Accept=accept)
        answers = client.answers()
        return answers[0] if answers else None

    def test_waits(self) -> None:
        """The first client waits for the source with all others of the stop, and the next one does not."""
        first, second = self.client(), self.client()
        for client in (first, second):
            client.get(f"/board/{CODE}", Accept="text/plain")
        self.assertEqual((first.received(), self.source.asked), (b"", [CODE]))
        self.source.answers[0].callback(self.board())
        for client in (first, second):
            self.assertEqual(client.answer().body, b"4 Strand 01:12\n")
        answer = self.ask()
        assert answer is not None
        self.assertEqual((answer.status, answer.body, self.source.asked), (200, b"4 Strand 01:12\n", [CODE]))
        self.assertEqual(answer.headers["Cache-Control"], "public, max-age=10")

    def test_age(self) -> None:
        """The age of the gateway's answer is taken off; one that is not fresh any more is last known."""
        self.source.at_once = self.board()
        for seconds, words, time in [
            (0, "2 min late", b"01:12"),
            (55, "2 min late", b"01:12"),
            (56, "2 min late", b"9 min"),
            (65, "last known", b"9 min"),
            (100, "last known", b"8 min"),
        ]:
            self.clock.rightNow = NOW + seconds
            answer = self.ask(f"/board/{CODE}?fields=time,words&lang=en")
            assert answer is not None
            self.assertEqual(answer.body, time + f" {words}\n".encode())
            self.source.at_once = SourceSilent("as asked")

    def test_failed(self) -> None:
        """A source that tells nothing is a 503 with its words."""
        self.source.at_once = SourceSilent("as asked")
        answer = self.ask(f"/board/{CODE}?lang=en")
        assert answer is not None
        self.assertEqual((answer.status, answer.headers["Retry-After"]), (503, "30"))
        self.assertIn(b"not available right now", answer.body)

    def test_several(self) -> None:
        """Stops are asked for together; one that fails does not keep the others back."""
        client = self.client()
        client.get(f"/board/{CODE},9", Accept="text/plain")
        self.assertEqual(self.source.asked, [CODE, "9"])
        self.source.answers[1].errback(SourceSilent("as asked"))
        self.source.answers[0].callback(self.board())
        lines = client.answer().body.decode().splitlines()
        self.assertEqual(lines[0], "4 Strand 01:12")
        self.assertIn("nu even niet", lines[1])

    def test_leaves(self) -> None:
        """A client that leaves leaves its flights to others."""
        client = self.client()
        client.get(f"/board/{CODE},9")
        client.leave()
        for answer in self.source.answers:
            answer.errback(SourceSilent("as asked"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_broken(self) -> None:
        """What is no answer of a source is a 500, and told to the log."""
        self.source.at_once = ZeroDivisionError("as asked")
        answer = self.ask()
        assert answer is not None
        self.assertEqual(answer.status, 500)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    def test_query(self) -> None:
        """Lines may be picked; directions are not known here."""
        self.source.at_once = self.board()
        for query, status, body in [
            ("line=4", 200, b"4 Strand 01:12\n"),
            ("direction=1", 400, b"direction is not known here\n"),
        ]:
            answer = self.ask(f"/board/{CODE}?{query}")
            assert answer is not None
            self.assertEqual((answer.status, answer.body), (status, body))
        answer = self.ask(f"/board/{CODE}?line=5&lang=en")
        assert answer is not None
        self.assertEqual(answer.body, b"No departures in the next 120 minutes.\n")


class AssetsTests(WireTestCase):
    """The files of pages."""

    def setUp(self) -> None:
        super().setUp()
        modules = MultiService()
        self.module = Assets()
        self.module.setServiceParent(modules)
        self.server = Server("", 0, RequestHandler, clock=self.clock, find_module=modules.getServiceNamed)

    def ask(self, path: str, **headers: str) -> Answer:
        client = self.client()
        client.get(path, **headers)
        return client.answer()

    def test_interface(self) -> None:
        """It is a web module."""
        verifyObject(IWebModule, self.module)

    def test_files(self) -> None:
        """Under its address a file is there for good; under its name alone it is asked for anew each time."""
        for name, kind in TYPES.items():
            answer = self.ask(address(name))
            self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, kind))
            self.assertEqual(answer.headers["Cache-Control"], "public, max-age=31536000, immutable")
            tag = str(answer.headers["ETag"])
            for query in ("", "?v=other"):
                again = self.ask(f"/assets/{name}{query}", If_None_Match=tag)
                self.assertEqual((again.status, again.headers["Cache-Control"]), (304, "public, no-cache"))
            packed = self.ask(address(name), Accept_Encoding="gzip")
            self.assertEqual(gzip.decompress(packed.body), answer.body)

    def test_others(self) -> None:
        """No other file is there."""
        for path in ("", "board.html", "texts.toml", "../tap.py", "%2e%2e/tap.py", "board.css/"):
            self.assertEqual(self.ask(f"/assets/{path}").status, 404)
