"""GET /kv55/<TimingPointCode>, in memory."""

import gzip
from dataclasses import replace

from lxml import etree
from twisted.application.service import MultiService
from zope.interface.verify import verifyObject

from govi_server.departures.board import Board, Trip
from govi_server.departures.cache import BoardCache
from govi_server.departures.source import SourceBroken, SourceSilent, SourceUnreachable
from govi_server.modules.kv55_gateway import Kv55Gateway
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from govi_server.settings import CacheSettings
from govi_server.web_handler import ICacheableModule
from tests.client import Answer, Client, WireTestCase
from tests.doubles import FakeSource

CODE = "57330430"


class Kv55Tests(WireTestCase):
    """The module behind a server."""

    def setUp(self) -> None:
        super().setUp()
        self.source = FakeSource()
        cache = BoardCache(self.source, self.clock)
        modules = MultiService()
        self.module = Kv55Gateway("kv55", cache)
        self.module.setServiceParent(modules)
        Kv55Gateway("arriva", BoardCache(self.source, self.clock)).setServiceParent(modules)
        self.server = Server("", 0, RequestHandler, clock=self.clock, find_module=modules.getServiceNamed)

    def board(self, destination: str = "Zuiderwaard") -> Board:
        return Board(CODE, (Trip(destination_name=destination),), self.clock.seconds())

    def ask(self, path: str = f"/kv55/{CODE}", **headers: str) -> Client:
        client = self.client()
        client.get(path, **headers)
        return client

    def fill(self) -> Answer:
        client = self.ask()
        self.source.answers[-1].callback(self.board())
        return client.answer()

    def test_interface(self) -> None:
        """It is a cacheable module."""
        verifyObject(ICacheableModule, self.module)

    def test_miss_and_hit(self) -> None:
        """The first client waits for the source, the next one does not; both get the same document."""
        first = self.fill()
        self.clock.advance(20.4)
        second = self.ask().answer()
        self.assertEqual(first.body, second.body)
        self.assertEqual((first.status, first.reason), (200, "Ok"))
        self.assertEqual(
            etree.fromstring(first.body).findtext("Request/TimingPoint/Trip/DestinationName"), "Zuiderwaard"
        )
        for answer, cache_status, age in [
            (first, "govi-cache; fwd=miss; ttl=60", "0"),
            (second, "govi-cache; hit; ttl=39", "20"),
        ]:
            self.assertEqual(answer.headers["Cache-Status"], cache_status)
            self.assertEqual(answer.headers["Age"], age)
            self.assertEqual(answer.headers["Cache-Control"], "public, max-age=60")
            self.assertEqual(answer.headers["Content-Type"], "text/xml; charset=utf-8")
        self.assertEqual(len(self.source.asked), 1)

    def test_joined(self) -> None:
        """Two hundred clients on one cold stop are one question, and all are answered."""
        clients = [self.ask() for _ in range(200)]
        self.assertEqual(len(self.source.asked), 1)
        self.source.answers[0].callback(self.board())
        answers = [client.answer() for client in clients]
        self.assertEqual({answer.status for answer in answers}, {200})
        self.assertEqual(answers[0].headers["Cache-Status"], "govi-cache; fwd=miss; ttl=60")
        self.assertEqual(answers[199].headers["Cache-Status"], "govi-cache; fwd=miss; collapsed; ttl=60")
        for client in clients:
            client.leave()
        results = [connection.requests[0].cache for connection in self.statistics]
        self.assertEqual(results, ["miss"] + ["joined"] * 199)

    def test_stale(self) -> None:
        """An older board is served at once while a newer one is asked for."""
        self.fill()
        self.clock.advance(61)
        answer = self.ask().answer()
        self.assertEqual(answer.headers["Cache-Status"], "govi-cache; hit; ttl=-1")
        self.assertEqual(len(self.source.asked), 2)
        self.source.answers[1].callback(self.board("Veerstoep"))
        self.assertIn(b"Veerstoep", self.ask().answer().body)

    def test_failures(self) -> None:
        """A source that fails is a 504, one that answers nonsense a 502; the next client asks again."""
        for failure, status, error in [
            (SourceSilent("no answer within 10 s"), 504, "Timeout"),
            (SourceUnreachable("refused"), 504, "Gateway unreachable"),
            (SourceBroken("not XML"), 502, "Unreadable answer"),
        ]:
            client = self.ask()
            self.source.answers[-1].errback(failure)
            answer = client.answer()
            self.assertEqual(answer.status, status)
            self.assertEqual(answer.headers["Retry-After"], "10")
            self.assertEqual(answer.headers["Cache-Control"], "no-store")
            self.assertEqual(answer.headers["Cache-Status"], "govi-cache; fwd=miss")
            document = etree.fromstring(answer.body)
            self.assertEqual(document.findtext("Request/TimingPoint/TimingPointCode"), CODE)
            self.assertEqual(document.findtext("Request/Error"), error)
        self.assertEqual(len(self.source.asked), 3)

    def test_stale_when_the_flight_fails(self) -> None:
        """Who waits for a flight that fails gets a board that came meanwhile, as stale as it is."""
        client = self.ask()
        self.module.cache.put(replace(self.board(), received_at=self.clock.seconds() - 70))
        self.source.answers[0].errback(SourceSilent("no answer within 10 s"))
        answer = client.answer()
        self.assertEqual((answer.status, answer.headers["Cache-Status"]), (200, "govi-cache; hit; ttl=-10"))
        client.leave()
        self.assertEqual(self.statistics[0].requests[0].cache, "stale")

    def test_wrong_codes(self) -> None:
        """What is no TimingPointCode is a 404 with the Error of the interface, and asks nobody."""
        for path in (
            "/kv55", "/kv55/", "/kv55/x", "/kv55/+5", "/kv55/5/", "/kv55/5/6", "/kv55/1_000", "/kv55/12345678901",
            "/kv55/%20", "/kv55/5%0a", "/kv55/%D9%A1", "/kv55/%3CError%3E", "/kv55/%00",
        ):  # fmt: skip
            answer = self.ask(path).answer()
            self.assertEqual(answer.status, 404, path)
            document = etree.fromstring(answer.body)
            self.assertEqual(document.findtext("Request/Error"), "Invalid TimingPointCode")
            self.assertEqual(len(document.findall(".//Error")), 1)
        self.assertEqual(self.source.asked, [])

    def test_leading_zero(self) -> None:
        """A code is a text: its leading zero is asked for."""
        self.ask("/kv55/031102")
        self.assertEqual(self.source.asked[0], "031102")

    def test_conditional(self) -> None:
        """A client that has these bytes gets 304, with the fields that it needs to go on using them."""
        etag = self.fill().headers["ETag"]
        for value, status in [(etag, 304), (f'"x", W/{etag}', 304), ("*", 304), ('"x"', 200)]:
            answer = self.ask(If_None_Match=value).answer()
            self.assertEqual((answer.status, answer.headers["ETag"]), (status, etag))
            self.assertIsNotNone(answer.headers["Cache-Control"])

    def test_gzip(self) -> None:
        """Who takes gzip gets it, of the same document, and the plain one is told apart by its tag."""
        plain = self.fill()
        compressed = self.ask(Accept_Encoding="br, gzip;q=0.8").answer()
        self.assertEqual(compressed.headers["Content-Encoding"], "gzip")
        self.assertEqual(gzip.decompress(compressed.body), plain.body)
        self.assertNotEqual(compressed.headers["ETag"], plain.headers["ETag"])
        self.assertEqual({plain.headers["Vary"], compressed.headers["Vary"]}, {"Accept-Encoding"})
        refused = self.ask(Accept_Encoding="gzip;q=0").answer()
        self.assertEqual((refused.headers["Content-Encoding"], refused.body), (None, plain.body))
        etag = compressed.headers["ETag"]
        self.assertEqual(self.ask(Accept_Encoding="gzip", If_None_Match=etag).answer().status, 304)
        self.assertEqual(self.ask(If_None_Match=etag).answer().status, 200)

    def test_modified_since(self) -> None:
        """Who has the board of that moment is told so, until there is another."""
        modified = self.fill().headers["Last-Modified"]
        self.assertEqual(modified, "Thu, 01 Jan 2026 00:00:00 GMT")
        unchanged = self.ask(If_Modified_Since=modified).answer()
        self.assertEqual((unchanged.status, unchanged.headers["Last-Modified"]), (304, modified))
        self.clock.advance(70)
        self.ask()
        self.source.answers[-1].callback(self.board())
        self.assertEqual(self.ask(If_Modified_Since=modified).answer().status, 200)

    def test_precondition(self) -> None:
        """Who wants the board only as it was gets a 412 once it is another."""
        etag = self.fill().headers["ETag"]
        self.assertEqual(self.ask(If_Match=etag).answer().status, 200)
        self.assertEqual(self.ask(If_Match='"x"').answer().status, 412)

    def test_busy(self) -> None:
        """While too many questions are on their way, another stop is a 503; the same stop is joined."""
        self.source = FakeSource()
        module = Kv55Gateway("kv55", BoardCache(self.source, self.clock, CacheSettings(flights=1)))
        self.server.find_module = lambda segment: module
        first, joined, busy = self.ask(), self.ask(), self.ask("/kv55/5")
        answer = busy.answer()
        self.assertEqual((answer.status, answer.headers["Retry-After"]), (503, "10"))
        self.assertEqual(etree.fromstring(answer.body).findtext("Request/Error"), "Busy")
        self.source.answers[0].callback(self.board())
        self.assertEqual((first.answer().status, joined.answer().status), (200, 200))
        self.ask("/kv55/5")
        self.assertEqual(self.source.asked, [CODE, "5"])

    def test_head(self) -> None:
        """HEAD says what GET would, without the body."""
        whole = self.fill()
        client = self.client()
        client.send(b"HEAD /kv55/57330430 HTTP/1.1\r\nHost: x\r\n\r\n")
        head = client.answer("HEAD")
        self.assertEqual((head.headers["Content-Length"], head.body), (str(len(whole.body)), b""))
        self.assertEqual(head.headers["ETag"], whole.headers["ETag"])

    def test_query_is_passed_over(self) -> None:
        """A query string, with which some clients shun caches, does not change the answer."""
        self.fill()
        self.assertEqual(self.ask(f"/kv55/{CODE}?_=123").answer().status, 200)

    def test_post(self) -> None:
        """A POST is not for here."""
        client = self.client()
        client.send(b"POST /kv55/5 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        answer = client.answer()
        self.assertEqual((answer.status, answer.headers["Allow"]), (405, "GET, HEAD, OPTIONS"))

    def test_second_instance(self) -> None:
        """Under another name there is another cache."""
        self.fill()
        self.ask(f"/arriva/{CODE}")
        self.assertEqual(len(self.source.asked), 2)

    def test_one_client_leaves(self) -> None:
        """A client that leaves does not take the flight away from the others."""
        leaver, stayer = self.ask(), self.ask()
        leaver.leave()
        self.source.answers[0].callback(self.board())
        self.assertEqual(stayer.answer().status, 200)

    def test_phases(self) -> None:
        """A miss has all six phases, a hit all but the wait."""
        client = self.ask()
        self.clock.advance(2)
        self.source.answers[0].callback(self.board())
        client.get(f"/kv55/{CODE}")
        client.leave()
        miss, hit = self.statistics[0].requests
        self.assertEqual(set(miss.phases), {"receive", "parse", "lookup", "wait", "render", "send"})
        self.assertEqual((miss.phases["wait"], miss.cache), (2, "miss"))
        self.assertEqual((set(hit.phases), hit.cache), (set(miss.phases) - {"wait"}, "hit"))
