"""Tests of govi_server.operations.admin and readiness."""

import gzip
import json
import re
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.testing import StringTransport
from twisted.logger import formatEvent
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request

from govi_server.departures.board import Board, Trip
from govi_server.departures.source import SourceSilent, SourceUnreachable
from govi_server.operations.admin import Admin
from govi_server.operations.readiness import Readiness
from tests import feed as kv
from tests.client import NOW, Response, read_responses
from tests.garbage import created_objects, without_collector
from tests.operations.case import CODE, OperationsTestCase


class AdminTests(OperationsTestCase):
    """The operators' endpoint."""

    def get(self, path: str, method: str = "GET", version: str = "1.0", accept: str = "") -> StringTransport:
        """Send a request; return the transport, which has the response."""
        fields = f"Host: localhost\r\nAccept: {accept}\r\n" if accept else "Host: localhost\r\n"
        return self.send(f"{method} {path} HTTP/{version}\r\n{fields}\r\n".encode())

    def send(self, data: bytes, hosts: tuple[str, ...] = ()) -> StringTransport:
        """Send bytes to an endpoint with these names; return the transport, which has the response."""
        readiness = Readiness(self.components, "", self.clock)
        admin = Admin(self.clock, self.metrics, self.status, readiness, self.monitor, hosts)
        protocol = admin.buildProtocol(cast(IAddress, None))
        transport = StringTransport()
        assert protocol is not None
        protocol.makeConnection(transport)
        protocol.dataReceived(data)
        return transport

    def response(self, data: bytes, hosts: tuple[str, ...] = ()) -> Response:
        """Return the response to bytes."""
        (response,) = read_responses(self.send(data, hosts).value(), [data.partition(b" ")[0].decode("latin-1")])
        return response

    def test_foreign_hosts_are_rejected(self) -> None:
        """A request for a host that may belong to another site gets 421, on every path, and is logged."""
        for path in ("/", "/health", "/ready", "/metrics", "/status", "/status.json", "/absent", "*"):
            for method in ("GET", "HEAD", "POST", "OPTIONS"):
                fields = b"Host: attacker.example:8081\r\n"
                response = self.response(f"{method} {path} HTTP/1.1\r\n".encode() + fields + b"\r\n")
                self.assertEqual(response.status, 421, (method, path))
                self.assertEqual(b"admin.hosts" in response.body, method != "HEAD")
        for data in (
            b"GET /status.json HTTP/1.1\r\nHost: localhost\r\nHost: attacker.example\r\n\r\n",
            b"GET /status.json HTTP/1.1\r\nHost: attacker.example\r\nHost: localhost\r\n\r\n",
            b"GET http://attacker.example/status.json HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /status.json HTTP/1.1\r\nHost: \xff\x9b\r\n\r\n",
            b"GET /status.json HTTP/1.0\r\nHost:\r\n\r\n",
        ):
            self.assertEqual(self.response(data).status, 421, data)
        lines = [formatEvent(event) for event in self._events]
        rejections = {line for line in lines if line.endswith("; admin.hosts lists the allowed names")}
        self.assertIn("operators: request for host 'attacker.example:8081' rejected", "".join(rejections))
        self.assertTrue(all(line.isprintable() for line in rejections), rejections)

    def test_own_hosts_are_served(self) -> None:
        """Addresses, localhost, the names of the setting and requests without a host are served."""
        for fields in (
            b"Host: localhost:8081",
            b"Host: 10.0.0.1:8081",
            b"Host: [::1]",
            b"Host: Govi.example.",
            b"X: y",
        ):
            data = b"GET /health HTTP/1.1\r\n" + fields + b"\r\n\r\n"
            self.assertEqual(self.response(data, ("govi.example",)).status, 200, fields)

    def test_every_response_has_the_safety_headers(self) -> None:
        """Every response has the headers that keep a browser from running what is in it; pages have their policy."""
        self.feed.received("/GOVI/KV7planning", gzip.compress(kv.planning({})))
        requests = [
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
            for path in ("/", "/health", "/ready", "/metrics", "/status", "/status.json", "/absent", "/a/b", "*")
            for method in ("GET", "HEAD", "POST", "OPTIONS", "BREW")
            for host in ("localhost", "attacker.example")
        ]
        malformed = [
            b"GET\r\n\r\n",
            b"\x16\x03\x01\r\n",
            b"GET / HTTP/1.1\r\nA\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + (b"A: " + b"x" * 5000 + b"\r\n") * 5,
            b"GET /" + b"x" * 16_400 + b" HTTP/1.1\r\n\r\n",
            b"GET /" + b"x" * 90_000,
            b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 16_400 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 90_000,
        ]
        statuses = set()
        for data in (*requests, *malformed):
            response = self.response(data)
            policy = response.headers.get_all("Content-Security-Policy")
            self.assertEqual(response.headers.get_all("X-Content-Type-Options"), ["nosniff"], data)
            is_page = response.status == 200 and response.headers.get_content_type() == "text/html"
            self.assertEqual(policy == ["default-src 'none'; sandbox"], not is_page, data)
            self.assertIn("default-src 'none'", (policy or [""])[0])
            statuses.add(response.status)
        self.assertLessEqual({200, 400, 404, 405, 414, 421, 431, 501}, statuses)
        self.flushWarnings()  # Twisted's responses to other methods use its own deprecated class

    def test_each_path_has_its_content_type(self) -> None:
        """Each path has its content type; other paths get 404."""
        self.feed.received("/GOVI/KV7planning", gzip.compress(kv.planning({})))
        for path, content_type in {
            "/health": b"text/plain", "/status": b"text/html", "/": b"text/html", "/status.json": b"application/json",
            "/metrics": b"text/plain", "/ready": b"text/plain",
        }.items():  # fmt: skip
            self.assertRegex(self.get(path).value(), b"(?s)^HTTP/1.[01] 200 .*Content-Type: " + content_type)
        self.assertRegex(self.get("/absent").value(), b"^HTTP/1.[01] 404 ")

    def test_reloading_can_be_stopped(self) -> None:
        """The status page reloads itself every ten seconds, unless the query says that it is still."""
        for path, seconds in (("/status", "10"), ("/", "10"), ("/status?still", None), ("/?still", None)):
            response = self.response(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            self.assertEqual((response.status, response.headers["Refresh"]), (200, seconds))
            self.assertEqual(b'<a href="?still">' in response.body, seconds is not None)

    def test_bodies_are_not_held(self) -> None:
        """A body is discarded; a connection that ends amid it leaves nothing to the garbage collector."""
        readiness = Readiness(self.components, "", self.clock)
        admin = Admin(self.clock, self.metrics, self.status, readiness, self.monitor)
        for field in (b"Content-Length: 1000000", b"Transfer-Encoding: chunked"):
            protocol = cast(HTTPChannel, admin.buildProtocol(cast(IAddress, None)))
            transport = StringTransport()
            with without_collector():
                protocol.makeConnection(transport)
                protocol.dataReceived(b"POST / HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\nfffff\r\n" % field)
                protocol.dataReceived(b"x" * 90_000)
                self.assertEqual(protocol.requests[0].content.getvalue(), b"")
                transport.unregisterProducer()
                protocol.connectionLost(Failure(ConnectionDone()))
                del protocol
                self.assertEqual(created_objects((HTTPChannel, Request)), {})

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
        self.assertNotIn("HEAD", "".join(str(formatEvent(event)) for event in self._events))

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

    def object(self, path: str) -> Any:
        """Return the JSON of a path."""
        response: bytes = self.get(path, accept="application/json").value()
        self.assertIn(b"Vary: Accept\r\n", response)
        self.assertIn(b"Content-Type: application/json\r\n", response)
        return json.loads(response.partition(b"\r\n\r\n")[2])

    def test_problems_as_json(self) -> None:
        """With Accept, /ready and /health have the problems with codes; /health is 200 nevertheless."""
        self.assertEqual(self.object("/health")["problems"], [])
        self.subscriber.state = "DOWN"
        self.server.accepting.paused = True
        ready = self.object("/ready")
        self.assertIs(ready["ready"], False)
        self.assertEqual(
            [(problem["code"], problem["source"]) for problem in ready["problems"]],
            [("too-many-files", "server"), ("feed-down", "feed")],
        )
        health = self.object("/health")
        self.assertEqual((health["alive"], health["status"]), (True, "DEGRADED"))
        self.assertEqual([problem["code"] for problem in health["problems"]], ["feed-down", "too-many-files"])
        self.assertRegex(self.get("/health", accept="application/json").value(), b"^HTTP/1.[01] 200 ")
        self.assertIn(b"\r\n\r\nalive\n", self.get("/health", accept="*/*").value())

    def test_openmetrics(self) -> None:
        """Metrics are in OpenMetrics if a client prefers it, as Prometheus does, and in text otherwise."""
        accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        response = self.get("/metrics", accept=accept).value()
        self.assertIn(b"Content-Type: application/openmetrics-text; version=", response)
        self.assertTrue(response.endswith(b"# EOF\n"))
        response = self.get("/metrics", accept="*/*").value()
        self.assertIn(b"Content-Type: text/plain; version=", response)
        self.assertNotIn(b"# EOF", response)

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
        self.feed.boards.lookup = None  # type: ignore[method-assign,assignment]
        self.assertRegex(self.ready(), "^/tpc: stop [0-9]+: 500 Internal Server Error\n$")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(list(self.history.minutes()), [])
