"""Tests of the simulated gateway, in memory."""

import gzip

from lxml import etree
from twisted.logger import LogLevel, capturedLogs

from govi_server.kv55.messages import GatewayRequest, read_dris_55, write_dris_55_req
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from govi_server.simulator.gateway import GatewayBehaviour, SimulatedGateway
from govi_server.simulator.town import STATION
from tests.client import NOW, Client, Response, WireTestCase
from tests.doubles import FakePoster


class SimulatedGatewayTests(WireTestCase):
    """The responses of the simulated gateway."""

    def simulate(self, behaviour: GatewayBehaviour) -> None:
        self.poster = FakePoster()
        gateway = SimulatedGateway(behaviour, self.poster, self.clock)
        self.server = Server("", 0, RequestHandler, clock=self.clock, find_module=lambda segment: gateway)

    def request(self, code: str = STATION, number: int = 7) -> Response:
        return self.post(write_dris_55_req(GatewayRequest(code, str(number), "us"), NOW))

    def post(self, body: bytes) -> Response:
        client = Client(self.server)
        head = b"POST /TMI_Post/KV55/openOV HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        client.send(head + body)
        return client.response()

    def test_response(self) -> None:
        """A request is acknowledged immediately; its callback follows after the delay, with the same number."""
        self.simulate(GatewayBehaviour(delay=2))
        response = self.request()
        self.assertEqual((response.status, etree.fromstring(response.body).tag), (200, "DRIS_55_RES"))
        self.clock.advance(1.9)
        self.assertEqual(self.poster.bodies, [])
        self.clock.advance(0.1)
        (body,) = self.poster.bodies
        (board,) = read_dris_55(body, NOW)
        self.assertEqual(board.code, STATION)
        self.assertGreater(len(board.trips), 3)
        envelope = dict(board.envelope)
        self.assertEqual((envelope["SequenceNumber"], envelope["SubscriberID"]), ("7", "us"))
        self.assertNotIn("License", envelope)

    def test_gzip(self) -> None:
        """With --gzip callbacks are compressed, with a Content-Encoding."""
        self.simulate(GatewayBehaviour(gzip=True))
        self.request()
        self.clock.advance(1)
        self.assertEqual(read_dris_55(gzip.decompress(self.poster.bodies[0]), NOW)[0].code, STATION)
        self.assertEqual(self.poster.encodings, ["gzip"])

    def test_unknown_stop(self) -> None:
        """A request for an unknown stop has no callback."""
        self.simulate(GatewayBehaviour())
        self.assertEqual(self.request("1").status, 200)
        self.clock.advance(60)
        self.assertEqual(self.poster.bodies, [])

    def test_loss(self) -> None:
        """The configured fraction of callbacks is lost, the same ones with the same seed."""
        counts = []
        for _ in range(2):
            self.simulate(GatewayBehaviour(loss=0.5))
            for number in range(200):
                self.request(number=number)
            self.clock.advance(1)
            counts.append(len(self.poster.bodies))
        self.assertEqual(counts[0], counts[1])
        self.assertGreater(counts[0], 70)
        self.assertLess(counts[0], 130)

    def test_invalid_request(self) -> None:
        """An invalid request gets a 400."""
        self.simulate(GatewayBehaviour())
        self.assertEqual(self.post(b"<DRIS_55/>").status, 400)

    def test_failed_callback(self) -> None:
        """Failed callbacks are logged once a minute and have no other effect."""
        self.simulate(GatewayBehaviour())
        for _ in range(3):
            self.request()
        self.clock.advance(1)
        with capturedLogs() as events:
            for post in self.poster.posts:
                post.errback(ConnectionError("refused"))
        self.assertEqual(len([event for event in events if event["log_level"] is LogLevel.warn]), 1)
        self.assertEqual(self.request().status, 200)
