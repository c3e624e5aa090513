"""Every response of every port has the header fields that keep a browser from running what is in it."""

from collections.abc import Iterator

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.board import Board
from govi_server.http.client_limits import ClientLimits
from govi_server.http.response import SAFETY_HEADERS
from govi_server.kv55.gateway import Gateway
from govi_server.kv55.messages import write_dris_55
from govi_server.modules.callback import Callback
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from govi_server.settings import AccessSettings
from tests.client import Client, Response
from tests.doubles import FakePoster
from tests.examples import SOURCES, Program
from tests.openapi.test_document import programs, requests

POLICY = dict(SAFETY_HEADERS)["Content-Security-Policy"]

MALFORMED = (
    b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nA\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nExpect: y\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nA: " + b"x" * 40_000 + b"\r\n",
    b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
)  # fmt: skip
"""Requests that are rejected before a module gets them, or whose response no module sends."""


def header_problem(response: Response) -> str | None:
    """Return what is wrong with the safety headers of a response; None if nothing is."""
    options = response.headers.get_all("X-Content-Type-Options", [])
    policies = response.headers.get_all("Content-Security-Policy", [])
    if options != ["nosniff"] or len(policies) != 1:
        return f"{options} {policies}"
    is_page = response.status != 304 and response.headers.get_content_type() == "text/html"
    if policies == [POLICY]:
        return "a page needs a policy of its own" if is_page else None
    own = policies[0].split("; ")
    is_strict = "default-src 'none'" in own and "base-uri 'none'" in own and "unsafe" not in policies[0]
    if not is_strict or not (is_page or response.status == 304):
        return f"{response.status} {response.headers.get_content_type()}: {policies[0]}"
    return None


class ModuleTests(SynchronousTestCase):
    """The responses of all modules, in all states of their sources."""

    def test_every_module(self) -> None:
        """Every path has them, with all parameters, methods and conditions: errors, 304, 412, streams, fast path."""
        statuses = set()
        for source in SOURCES:
            for program in programs(source):
                for operation in program.operations:
                    content_types = {type_ for spec in operation.responses for type_ in [spec.content_type] if type_}
                    (first, *others) = requests(operation, content_types)
                    responses = [*self.responses(program, *first), *(program.request(*other) for other in others)]
                    for response in responses:
                        statuses.add(response.status)
                        self.assertIsNone(header_problem(response), (source, operation.template, response.status))
        self.assertLessEqual({200, 204, 304, 400, 404, 405, 412, 501, 502, 503, 504}, statuses)

    def responses(self, program: Program, url: str, accept: str) -> Iterator[Response]:
        """Yield the responses to a URL with several methods and conditions."""
        for method in ("GET", "HEAD", "OPTIONS", "POST", "BREW"):
            yield program.request(url, accept, method)
        preflight = "Origin: http://a.example\r\nAccess-Control-Request-Method: GET\r\n"
        yield program.request(url, accept, "OPTIONS", preflight)
        for condition in ("If-None-Match: *", 'If-Match: "x"', "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"):
            yield program.request(url, accept, more=f"{condition}\r\n")


class RejectionTests(SynchronousTestCase):
    """Responses that no module sends."""

    def setUp(self) -> None:
        self.program = Program("demo", has_data=False)

    def check(self, response: Response) -> int:
        """Check the headers of a response; return its status."""
        self.assertIsNone(header_problem(response), response.status)
        return response.status

    def test_rejected_requests(self) -> None:
        """Rejected requests have them, as have those that no module gets."""
        statuses = set()
        for data in MALFORMED:
            client = Client(self.program.server)
            client.send(data)
            statuses.add(self.check(client.response()))
        self.assertEqual(statuses, {204, 400, 405, 413, 414, 417, 431, 501, 505})

    def test_callback_port(self) -> None:
        """So do all responses of the callback port: accepted, unsolicited, unreadable, not allowed, wrong host."""
        clock = self.program.clock
        gateway = Gateway(FakePoster(), clock, "gateway")
        module = Callback(gateway, ["127.0.0.0/8"], clock.seconds, "openOV")
        server = Server("", 0, RequestHandler, clock=clock, find_module=lambda segment: module)
        gateway.board("1")
        statuses = set()
        for host, address, body in (
            ("localhost", "127.0.0.1", write_dris_55([Board("1", (), clock.seconds())])),
            ("localhost", "127.0.0.1", write_dris_55([Board("2", (), clock.seconds())])),
            ("localhost", "127.0.0.1", b"<a/>"),
            ("localhost", "192.0.2.1", b"<a/>"),
            ("attacker.example", "127.0.0.1", b"<a/>"),
        ):
            client = Client(server, IPv4Address("TCP", address, 1))
            client.send(f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            statuses.add(self.check(client.response()))
        for data in MALFORMED:
            client = Client(server, IPv4Address("TCP", "127.0.0.1", 1))
            client.send(data)
            statuses.add(self.check(client.response()))
        self.assertLessEqual({200, 400, 403, 405, 421}, statuses)

    def test_rejected_connections(self) -> None:
        """So do the responses to connections over a limit, and the 406 of a request past its deadline."""
        server = self.program.server
        server.access = ClientLimits(self.program.clock, AccessSettings(per_client=1, unlimited=()))
        address = IPv4Address("TCP", "192.0.2.1", 1)
        first = Client(server, address)
        self.assertEqual(self.check(Client(server, address).response()), 429)
        server.access.limits = AccessSettings(connections=1)
        first.send(b"GET / HTTP/1.1\r\n")
        self.program.clock.advance(14)
        self.assertEqual(self.check(first.response()), 406)
