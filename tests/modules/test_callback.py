"""Tests of modules.callback, in memory."""

import gzip

from lxml import etree
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from govi_server.departures.board import Board
from govi_server.kv55.gateway import PEER_PATH, Gateway, IPeers, OfferResult
from govi_server.kv55.messages import write_dris_55
from govi_server.modules.callback import Callback
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from tests.client import Client, Response, WireTestCase
from tests.doubles import FakePoster

LOCAL = IPv4Address("TCP", "127.0.0.1", 1)


class CallbackTests(WireTestCase):
    """The responses to callbacks."""

    def setUp(self) -> None:
        super().setUp()
        self.gateway = Gateway(FakePoster(), self.clock, "gateway")
        receiver = Callback(self.gateway, ["127.0.0.0/8", "::1/128"], self.clock.seconds, "openOV")
        self.server = Server("", 0, RequestHandler, clock=self.clock, find_module=lambda segment: receiver)

    def post(self, body: bytes, path: str = "/", addr: IAddress = LOCAL, extra: str = "") -> Response:
        client = Client(self.server, addr)
        client.send(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body
        )
        return client.response()

    def callback(self, code: str = "031102") -> bytes:
        return write_dris_55([Board(code, (), self.clock.seconds())])

    def test_acknowledged(self) -> None:
        """A requested board is accepted under any path, and acknowledged with a DRIS_55_RES."""
        for path, extra, body in [
            ("/", "", self.callback()),
            ("/KV55/openOV?x", "Content-Type: application/octet-stream\r\n", gzip.compress(self.callback())),
            ("/a/b", "Content-Encoding: gzip\r\n", gzip.compress(self.callback())),
        ]:
            board = self.gateway.board("031102")
            response = self.post(body, path, extra=extra)
            self.assertEqual(self.successResultOf(board).code, "031102")
            self.assertEqual((response.status, response.headers["Content-Type"]), (200, "text/xml; charset=utf-8"))
            document = etree.fromstring(response.body)
            self.assertEqual((document.tag, document.findtext("ResponseCode")), ("DRIS_55_RES", "OK"))
            self.assertEqual(document.findtext("SendTimestamp"), "2026-01-01T00:00:00")

    def test_callback_for_another_node(self) -> None:
        """A callback is acknowledged if another node has requested its board; one that was passed on is not again."""
        offered: list[str] = []

        @implementer(IPeers)
        class Peers:
            def offer(self, board: Board) -> Deferred[OfferResult]:
                offered.append(board.code)
                return succeed("stored")

        self.gateway = Gateway(FakePoster(), self.clock, "gateway", peers=Peers())
        receiver = Callback(self.gateway, ["127.0.0.0/8"], self.clock.seconds, "openOV")
        self.server = Server("", 0, RequestHandler, clock=self.clock, find_module=lambda segment: receiver)
        self.assertEqual(self.post(self.callback()).status, 200)
        self.assertEqual(self.post(self.callback("1"), PEER_PATH).status, 403)
        self.assertEqual(offered, ["031102"])

    def test_gateway_leaves_while_a_board_is_offered(self) -> None:
        """A requested board is served, although the gateway closes its connection while another one is offered."""

        @implementer(IPeers)
        class SlowPeers:
            def offer(self, board: Board) -> Deferred[OfferResult]:
                return offer

        offer: Deferred[OfferResult] = Deferred(lambda cancelled: self.fail("the offer was cancelled"))
        self.gateway = Gateway(FakePoster(), self.clock, "gateway", peers=SlowPeers())
        receiver = Callback(self.gateway, ["127.0.0.0/8"], self.clock.seconds, "openOV")
        self.server = Server("", 0, RequestHandler, clock=self.clock, find_module=lambda segment: receiver)
        board = self.gateway.board("031102")
        body = write_dris_55([Board(code, (), self.clock.seconds()) for code in ("1", "031102")])
        client = Client(self.server, LOCAL)
        client.send(f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        self.assertNoResult(board)
        client.leave()
        self.assertEqual(self.successResultOf(board).code, "031102")

    def test_unsolicited(self) -> None:
        """A callback without a requested board is rejected with 403."""
        self.assertEqual(self.post(self.callback()).status, 403)

    def test_refused_before_its_body(self) -> None:
        """A callback from another network, or for another host, is rejected before its body, which is not held."""
        for field in ("Content-Length: 900000", "Transfer-Encoding: chunked"):
            for host, status in (("192.0.2.1", 403), ("127.0.0.1", 421)):
                client = Client(self.server, IPv4Address("TCP", host, 1))
                client.send(f"POST / HTTP/1.1\r\nHost: attacker.example\r\n{field}\r\n\r\n".encode())
                self.assertEqual(client.response().status, status)
                client.send(b"9\r\n" + b"x" * 60_000)
                self.assertEqual(self.server.unfinished.bytes, 0)

    def test_unreadable(self) -> None:
        """An unreadable callback is rejected with 400 and the reason."""
        response = self.post(b"<DRIS_55>")
        self.assertEqual(response.status, 400)
        self.assertIn(b"not well-formed XML", response.body)

    def test_allowed(self) -> None:
        """Other addresses are rejected before the body is parsed; a peer on a unix socket is allowed."""
        for addr, status in [
            (LOCAL, 200),
            (IPv6Address("TCP", "::1", 1), 200),
            (IPv6Address("TCP", "::ffff:127.0.0.1", 1), 200),
            (UNIXAddress(b"/run/x"), 200),
            (IPv4Address("TCP", "192.0.2.1", 1), 403),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 1), 403),
            (IPv6Address("TCP", "2001:db8::1", 1), 403),
        ]:
            board = self.gateway.board("031102")
            self.assertEqual(self.post(self.callback(), addr=addr).status, status, addr)
            if status == 403:
                self.assertNoResult(board)
        self.assertEqual(self.gateway.incidents.counts["refused"], 3)

    def received_when_served(self, body: bytes) -> bytes:
        """Post a callback; return what its client had received when the waiting request got its result."""
        received: list[bytes] = []
        client = Client(self.server, LOCAL)
        self.gateway.board("031102").addBoth(lambda _: received.append(client.received()))
        client.send(f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        (data,) = received
        return data

    def test_acknowledged_before_waiters_are_served(self) -> None:
        """The response to a callback is sent before the requests that wait for its board are served."""
        data = self.received_when_served(self.callback())
        self.assertTrue(data.startswith(b"HTTP/1.1 200 "), data)
        self.assertIn(b"DRIS_55_RES", data)

    def test_rejected_before_waiters_are_served(self) -> None:
        """The 400 to an unreadable callback is sent before the requests of its stop fail."""
        data = self.received_when_served(self.callback()[:-20])
        self.assertTrue(data.startswith(b"HTTP/1.1 400 "), data)

    def test_failing_waiter(self) -> None:
        """An exception while the boards are served does not change the response to the callback."""
        self.gateway.listen(lambda board: 1 / 0)
        self.gateway.board("031102").addErrback(lambda failure: None)
        self.clock.advance(10)
        self.assertEqual(self.post(self.callback()).status, 200)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_get(self) -> None:
        """GET is a 405."""
        client = Client(self.server, LOCAL)
        client.get("/")
        response = client.response()
        self.assertEqual((response.status, response.headers["Allow"]), (405, "POST, OPTIONS"))
