"""Tests of govi_server.operations.admin and readiness."""

import gzip
import re
from typing import cast

from twisted.internet.interfaces import IAddress
from twisted.internet.testing import StringTransport

from govi_server.departures.board import Board, Trip
from govi_server.departures.source import SourceSilent, SourceUnreachable
from govi_server.operations.admin import Admin
from govi_server.operations.readiness import Readiness
from tests import feed as kv
from tests.client import NOW
from tests.operations.case import CODE, OperationsTestCase


class AdminTests(OperationsTestCase):
    """The operators' endpoint."""

    def get(self, path: str, method: str = "GET", version: str = "1.0") -> StringTransport:
        """Send a request; return the transport, which has the response."""
        admin = Admin(self.clock, self.metrics, self.status, Readiness(self.components, "", self.clock))
        protocol = admin.buildProtocol(cast(IAddress, None))
        transport = StringTransport()
        assert protocol is not None
        protocol.makeConnection(transport)
        protocol.dataReceived(f"{method} {path} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode())
        return transport

    def test_each_path_has_its_content_type(self) -> None:
        """Each path has its content type; other paths get 404."""
        self.feed.received("/GOVI/KV7planning", gzip.compress(kv.planning({})))
        for path, content_type in {
            "/health": b"text/plain", "/status": b"text/html", "/": b"text/html", "/status.json": b"application/json",
            "/metrics": b"text/plain", "/ready": b"text/plain",
        }.items():  # fmt: skip
            self.assertRegex(self.get(path).value(), b"(?s)^HTTP/1.[01] 200 .*Content-Type: " + content_type)
        self.assertRegex(self.get("/absent").value(), b"^HTTP/1.[01] 404 ")

    def test_head(self) -> None:
        """HEAD has the head of GET, on every path and in every version, and no body."""
        for path in ("/", "/health", "/ready", "/metrics", "/status", "/status.json", "/absent", "/ready/x"):
            # The values of /metrics differ by the time of their processing.
            varying = rb"\r\n(?:Date|Content-Length): [^\r]*" if path == "/metrics" else rb"\r\nDate: [^\r]*"
            for version in ("1.0", "1.1"):
                (got, body), (head, nothing) = (
                    re.sub(varying, b"", self.get(path, method, version).value()).split(b"\r\n\r\n", 1)
                    for method in ("GET", "HEAD")
                )
                self.assertEqual((sorted(head.split(b"\r\n")), nothing), (sorted(got.split(b"\r\n")), b""), path)
                if path != "/metrics":
                    self.assertIn(f"Content-Length: {len(body)}".encode(), head, path)

    def test_not_ready_states_reasons(self) -> None:
        """If the gateway does not respond and the feed is down, the response is 503 with the reasons."""
        self.cache.put(Board(CODE, (Trip(),), NOW))
        self.subscriber.state = "DOWN"
        transport = self.get("/ready")
        self.assertEqual(transport.value(), b"")
        self.source.results[-1].errback(SourceSilent("no answer within 10 s"))
        self.assertRegex(transport.value(), b"^HTTP/1.[01] 503 ")
        self.assertIn(
            f"/kv55: stop {CODE}: no answer within 10 s\nLive feed DOWN: last".encode(),
            transport.value(),
        )

    def ready(self) -> str:
        """Return the body of /ready."""
        response: bytes = self.get("/ready").value()
        return response.partition(b"\r\n\r\n")[2].decode()

    def test_not_ready_despite_cached_board(self) -> None:
        """If the server or its gateway accepts nothing, the program is not ready, despite cached boards."""
        self.feed.received("/GOVI/KV7planning", gzip.compress(kv.planning({})))
        self.source.immediate = Board(CODE, (Trip(),), NOW)
        self.cache.put(self.source.immediate)
        self.assertEqual(self.ready(), "ready\n")
        self.server.accepting.paused = True
        self.components.gateways["kv55"].breaker.state = "open"
        self.source.immediate = SourceUnreachable("connection refused")
        self.assertEqual(
            self.ready(),
            "not accepting connections: too many open files\n"
            "/kv55: gateway not accepting requests (connection refused)\n",
        )
        self.server.draining = True
        self.assertIn("server is stopping\n", self.ready())

    def test_failing_module_is_not_ready(self) -> None:
        """A failing module is not ready: it gets a real request, which appears in no statistics."""
        self.feed.received("/GOVI/KV7planning", gzip.compress(kv.planning({})))
        self.feed.boards.rendered = None  # type: ignore[method-assign,assignment]
        self.assertRegex(self.ready(), "^/tpc: stop [0-9]+: 500 Internal Server Error\n$")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(list(self.history.minutes()), [])
