"""The callback endpoint, in memory."""

import gzip
from ipaddress import ip_network

from lxml import etree
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from govi_server.departures.board import Board
from govi_server.kv55.gateway import Gateway
from govi_server.kv55.messages import write_dris_55
from govi_server.modules.callback import Callback
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from tests.client import Answer, Client, WireTestCase
from tests.doubles import FakePoster

LOCAL = IPv4Address("TCP", "127.0.0.1", 1)


class CallbackTests(WireTestCase):
    """What a gateway is told that calls back."""

    def setUp(self) -> None:
        super().setUp()
        self.gateway = Gateway(FakePoster(), self.clock, "gateway")
        receiver = Callback(
            self.gateway, [ip_network("127.0.0.0/8"), ip_network("::1/128")], self.clock.seconds, "openOV"
        )
        self.server = Server("", 0, RequestHandler, clock=self.clock, find_module=lambda segment: receiver)

    def post(self, body: bytes, path: str = "/", addr: IAddress = LOCAL, extra: str = "") -> Answer:
        client = Client(self.server, addr)
        client.send(f"POST {path} HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return client.answer()

    def answer(self, code: str = "031102") -> bytes:
        return write_dris_55([Board(code, (), self.clock.seconds())])

    def test_asked_for(self) -> None:
        """An answer that was asked for is taken under any path, and acknowledged with a DRIS_55_RES."""
        for path, extra, body in [
            ("/", "", self.answer()),
            ("/KV55/openOV?x", "Content-Type: application/octet-stream\r\n", gzip.compress(self.answer())),
            ("/a/b", "Content-Encoding: gzip\r\n", gzip.compress(self.answer())),
        ]:
            flight = self.gateway.board("031102")
            answer = self.post(body, path, extra=extra)
            self.assertEqual(self.successResultOf(flight).code, "031102")
            self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, "text/xml; charset=utf-8"))
            document = etree.fromstring(answer.body)
            self.assertEqual((document.tag, document.findtext("ResponseCode")), ("DRIS_55_RES", "OK"))
            self.assertEqual(document.findtext("SendTimestamp"), "2026-01-01T00:00:00")

    def test_not_asked_for(self) -> None:
        """An answer that nobody asked for is refused."""
        self.assertEqual(self.post(self.answer()).status, 403)

    def test_unreadable(self) -> None:
        """What cannot be read is refused, and said why."""
        answer = self.post(b"<DRIS_55>")
        self.assertEqual(answer.status, 400)
        self.assertIn(b"not well-formed XML", answer.body)

    def test_allowed(self) -> None:
        """Who may not send callbacks is refused before the body is looked at; who came over a unix socket may."""
        for addr, status in [
            (LOCAL, 200),
            (IPv6Address("TCP", "::1", 1), 200),
            (IPv6Address("TCP", "::ffff:127.0.0.1", 1), 200),
            (UNIXAddress(b"/run/x"), 200),
            (IPv4Address("TCP", "192.0.2.1", 1), 403),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 1), 403),
            (IPv6Address("TCP", "2001:db8::1", 1), 403),
        ]:
            flight = self.gateway.board("031102")
            self.assertEqual(self.post(self.answer(), addr=addr).status, status, addr)
            if status == 403:
                self.assertNoResult(flight)
        self.assertEqual(self.gateway.incidents.counts["refused"], 3)

    def test_get(self) -> None:
        """There is nothing to get here."""
        client = Client(self.server, LOCAL)
        client.get("/")
        answer = client.answer()
        self.assertEqual((answer.status, answer.headers["Allow"]), (405, "POST, OPTIONS"))
