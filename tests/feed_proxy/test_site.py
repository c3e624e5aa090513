"""Tests of the operators' port of the feed proxy."""

import json
import re
from pathlib import Path
from typing import cast

from twisted.internet.interfaces import IAddress
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from govi_server.feed_proxy.proxy import FeedProxy
from govi_server.feed_proxy.site import ProxySite
from tests.client import Response, read_responses

FEED = "tcp://feed.example:7817"
SCALING = Path(__file__).parents[2] / "docs" / "scaling.md"


class SiteTests(SynchronousTestCase):
    """The pages of a proxy that has received a message ten seconds ago."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.clock.advance(1_000_000)
        self.proxy = FeedProxy(self.clock, [FEED], "tcp://127.0.0.1:*")
        self.proxy.subscriber.address = FEED

    def receive(self, *frames: bytes) -> None:
        self.proxy.subscriber._ingest(list(frames))
        self.clock.advance(10)

    def get(self, path: str, host: str = "localhost") -> Response:
        protocol = ProxySite(self.proxy, ["proxy.example"]).buildProtocol(cast(IAddress, None))
        transport = StringTransport()
        assert protocol is not None
        protocol.makeConnection(transport)
        protocol.dataReceived(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        (response,) = read_responses(transport.value(), ["GET"])
        return response

    def test_health_without_data(self) -> None:
        """Without data the health is 503, also with heartbeats."""
        for messages in range(2):
            response = self.get("/health")
            report = json.loads(response.body)
            self.assertEqual((response.status, report["status"], report["data_age"]), (503, "UNKNOWN", None))
            self.assertEqual(report["messages"], messages)
            self.receive(b"/GOVI/KV8heartbeat")

    def test_health_with_data(self) -> None:
        """With data the health is 200 and a JSON document."""
        self.receive(b"/GOVI/KV8passtimes/LIN", b"x" * 78)
        response = self.get("/health", "proxy.example:8084")
        self.assertEqual((response.status, response.headers["content-type"]), (200, "application/json"))
        self.assertEqual(
            json.loads(response.body),
            {
                "status": "RECOVERING", "feed": FEED, "data_age": 10.0, "message_age": 10.0, "messages": 1,
                "bytes": 100, "reconnects": 0, "subscribers": 0, "topics": 0,
            },
        )  # fmt: skip

    def test_foreign_hosts_are_rejected(self) -> None:
        """A request for another host gets 421, which names the option."""
        response = self.get("/health", "attacker.example")
        self.assertEqual(response.status, 421)
        self.assertIn(b"a name in --admin-host", response.body)

    def test_metrics_are_documented(self) -> None:
        """Every metric has its value, and is documented."""
        self.receive(b"/GOVI/KV8passtimes/LIN", b"x" * 78)
        text = self.get("/metrics").body.decode()
        self.assertIn('govi_feed_state{state="RECOVERING"} 1.0', text)
        self.assertIn("govi_feed_proxy_bytes_total 100.0", text)
        names = {name for name in re.findall(r"^(govi_\w+)", text, re.MULTILINE) if not name.endswith("_created")}
        self.assertEqual(names - set(re.findall(r"`(govi_\w+)", SCALING.read_text("utf-8"))), set())
