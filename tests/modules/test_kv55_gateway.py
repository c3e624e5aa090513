"""Tests of GET /kv55/<TimingPointCode> from a gateway, in memory."""

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
from tests.client import Client, Response, WireTestCase
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

    def request(self, path: str = f"/kv55/{CODE}", **headers: str) -> Client:
        client = self.client()
        client.get(path, **headers)
        return client

    def fill(self) -> Response:
        client = self.request()
        self.source.results[-1].callback(self.board())
        return client.response()

    def test_interface(self) -> None:
        """The module is cacheable."""
        verifyObject(ICacheableModule, self.module)

    def test_miss_and_hit(self) -> None:
        """The first request waits for the source, the next is a hit; both get the same document."""
        first = self.fill()
        self.clock.advance(20.4)
        second = self.request().response()
        self.assertEqual(first.body, second.body)
        self.assertEqual((first.status, first.reason), (200, "Ok"))
        self.assertEqual(
            etree.fromstring(first.body).findtext("Request/TimingPoint/Trip/DestinationName"), "Zuiderwaard"
        )
        for response, cache_status, age in [
            (first, "govi-cache; fwd=miss; ttl=60", "0"),
            (second, "govi-cache; hit; ttl=39", "20"),
        ]:
            self.assertEqual(response.headers["Cache-Status"], cache_status)
            self.assertEqual(response.headers["Age"], age)
            self.assertEqual(response.headers["Cache-Control"], "public, max-age=60")
            self.assertEqual(response.headers["Content-Type"], "text/xml; charset=utf-8")
        self.assertEqual(len(self.source.requested), 1)

    def test_joined(self) -> None:
        """Two hundred requests for one cold stop are one request to the source, and all get a response."""
        clients = [self.request() for _ in range(200)]
        self.assertEqual(len(self.source.requested), 1)
        self.source.results[0].callback(self.board())
        responses = [client.response() for client in clients]
        self.assertEqual({response.status for response in responses}, {200})
        self.assertEqual(responses[0].headers["Cache-Status"], "govi-cache; fwd=miss; ttl=60")
        self.assertEqual(responses[199].headers["Cache-Status"], "govi-cache; fwd=miss; collapsed; ttl=60")
        for client in clients:
            client.leave()
        results = [connection.requests[0].exchange.cache for connection in self.statistics]
        self.assertEqual(results, ["miss"] + ["joined"] * 199)

    def test_stale(self) -> None:
        """A stale board is served immediately while it is refreshed."""
        self.fill()
        self.clock.advance(61)
        response = self.request().response()
        self.assertEqual(response.headers["Cache-Status"], "govi-cache; hit; ttl=-1")
        self.assertEqual(len(self.source.requested), 2)
        self.source.results[1].callback(self.board("Veerstoep"))
        self.assertIn(b"Veerstoep", self.request().response().body)

    def test_failures(self) -> None:
        """A missing callback is a 504, an unreadable one a 502; the next request queries the source again."""
        for failure, status, error in [
            (SourceSilent("no callback within 10 s"), 504, "Timeout"),
            (SourceUnreachable("refused"), 504, "Gateway unreachable"),
            (SourceBroken("not XML"), 502, "Unreadable answer"),
        ]:
            client = self.request()
            self.source.results[-1].errback(failure)
            response = client.response()
            self.assertEqual(response.status, status)
            self.assertEqual(response.headers["Retry-After"], "10")
            self.assertEqual(response.headers["Cache-Control"], "no-store")
            self.assertEqual(response.headers["Cache-Status"], "govi-cache; fwd=miss")
            document = etree.fromstring(response.body)
            self.assertEqual(document.findtext("Request/TimingPoint/TimingPointCode"), CODE)
            self.assertEqual(document.findtext("Request/Error"), error)
        self.assertEqual(len(self.source.requested), 3)

    def test_stale_board_after_a_failure(self) -> None:
        """When the source fails, a board that arrived meanwhile is served with its age."""
        client = self.request()
        self.module.cache.put(replace(self.board(), received_at=self.clock.seconds() - 70))
        self.source.results[0].errback(SourceSilent("no callback within 10 s"))
        response = client.response()
        self.assertEqual((response.status, response.headers["Cache-Status"]), (200, "govi-cache; hit; ttl=-10"))
        client.leave()
        self.assertEqual(self.statistics[0].requests[0].exchange.cache, "stale")

    def test_invalid_codes(self) -> None:
        """An invalid TimingPointCode is a 404 with the Error of the interface, and no request to the source."""
        for path in (
            "/kv55", "/kv55/", "/kv55/x", "/kv55/+5", "/kv55/5/", "/kv55/5/6", "/kv55/1_000", "/kv55/12345678901",
            "/kv55/%20", "/kv55/5%0a", "/kv55/%D9%A1", "/kv55/%3CError%3E", "/kv55/%00",
        ):  # fmt: skip
            response = self.request(path).response()
            self.assertEqual(response.status, 404, path)
            document = etree.fromstring(response.body)
            self.assertEqual(document.findtext("Request/Error"), "Invalid TimingPointCode")
            self.assertEqual(len(document.findall(".//Error")), 1)
        self.assertEqual(self.source.requested, [])

    def test_leading_zero(self) -> None:
        """A code is text: leading zeros are significant."""
        self.request("/kv55/031102")
        self.assertEqual(self.source.requested[0], "031102")

    def test_conditional(self) -> None:
        """A client with the current representation gets 304, with the header fields of a cache."""
        etag = self.fill().headers["ETag"]
        for value, status in [(etag, 304), (f'"x", W/{etag}', 304), ("*", 304), ('"x"', 200)]:
            response = self.request(If_None_Match=value).response()
            self.assertEqual((response.status, response.headers["ETag"]), (status, etag))
            self.assertIsNotNone(response.headers["Cache-Control"])

    def test_gzip(self) -> None:
        """Clients that accept gzip get the same document with gzip, under another entity tag."""
        plain = self.fill()
        compressed = self.request(Accept_Encoding="br, gzip;q=0.8").response()
        self.assertEqual(compressed.headers["Content-Encoding"], "gzip")
        self.assertEqual(gzip.decompress(compressed.body), plain.body)
        self.assertNotEqual(compressed.headers["ETag"], plain.headers["ETag"])
        self.assertEqual({plain.headers["Vary"], compressed.headers["Vary"]}, {"Accept-Encoding"})
        identity = self.request(Accept_Encoding="gzip;q=0").response()
        self.assertEqual((identity.headers["Content-Encoding"], identity.body), (None, plain.body))
        etag = compressed.headers["ETag"]
        self.assertEqual(self.request(Accept_Encoding="gzip", If_None_Match=etag).response().status, 304)
        self.assertEqual(self.request(If_None_Match=etag).response().status, 200)

    def test_modified_since(self) -> None:
        """If-Modified-Since with the board's time is a 304 until there is a new board."""
        modified = self.fill().headers["Last-Modified"]
        self.assertEqual(modified, "Thu, 01 Jan 2026 00:00:00 GMT")
        unchanged = self.request(If_Modified_Since=modified).response()
        self.assertEqual((unchanged.status, unchanged.headers["Last-Modified"]), (304, modified))
        self.clock.advance(70)
        self.request()
        self.source.results[-1].callback(self.board())
        self.assertEqual(self.request(If_Modified_Since=modified).response().status, 200)

    def test_precondition(self) -> None:
        """If-Match and If-Unmodified-Since fail with 412 once the board has changed."""
        etag = self.fill().headers["ETag"]
        self.assertEqual(self.request(If_Match=etag).response().status, 200)
        self.assertEqual(self.request(If_Match='"x"').response().status, 412)

    def test_busy(self) -> None:
        """While too many requests are pending, a request for another stop is a 503; one for a pending stop joins."""
        self.source = FakeSource()
        module = Kv55Gateway("kv55", BoardCache(self.source, self.clock, CacheSettings(flights=1)))
        self.server.find_module = lambda segment: module
        first, joined, busy = self.request(), self.request(), self.request("/kv55/5")
        response = busy.response()
        self.assertEqual((response.status, response.headers["Retry-After"]), (503, "10"))
        self.assertEqual(etree.fromstring(response.body).findtext("Request/Error"), "Busy")
        self.source.results[0].callback(self.board())
        self.assertEqual((first.response().status, joined.response().status), (200, 200))
        self.request("/kv55/5")
        self.assertEqual(self.source.requested, [CODE, "5"])

    def test_head(self) -> None:
        """HEAD gets the header fields of GET, without the body."""
        full = self.fill()
        client = self.client()
        client.send(b"HEAD /kv55/57330430 HTTP/1.1\r\nHost: x\r\n\r\n")
        head = client.response("HEAD")
        self.assertEqual((head.headers["Content-Length"], head.body), (str(len(full.body)), b""))
        self.assertEqual(head.headers["ETag"], full.headers["ETag"])

    def test_query_is_ignored(self) -> None:
        """A query string, which some clients send to bypass caches, does not change the response."""
        self.fill()
        self.assertEqual(self.request(f"/kv55/{CODE}?_=123").response().status, 200)

    def test_post(self) -> None:
        """POST is a 405."""
        client = self.client()
        client.send(b"POST /kv55/5 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        response = client.response()
        self.assertEqual((response.status, response.headers["Allow"]), (405, "GET, HEAD, OPTIONS"))

    def test_second_instance(self) -> None:
        """A module of another name has its own cache."""
        self.fill()
        self.request(f"/arriva/{CODE}")
        self.assertEqual(len(self.source.requested), 2)

    def test_one_client_leaves(self) -> None:
        """A client that leaves does not affect the others' request."""
        leaving, remaining = self.request(), self.request()
        leaving.leave()
        self.source.results[0].callback(self.board())
        self.assertEqual(remaining.response().status, 200)

    def test_phases(self) -> None:
        """A miss has all six phases; a hit has all but the wait."""
        client = self.request()
        self.clock.advance(2)
        self.source.results[0].callback(self.board())
        client.get(f"/kv55/{CODE}")
        client.leave()
        miss, hit = self.statistics[0].requests
        self.assertEqual(set(miss.phases), {"receive", "parse", "lookup", "wait", "render", "send"})
        self.assertEqual((miss.phases["wait"], miss.exchange.cache), (2, "miss"))
        self.assertEqual((set(hit.phases), hit.exchange.cache), (set(miss.phases) - {"wait"}, "hit"))
