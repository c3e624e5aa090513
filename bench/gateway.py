"""A GOVI gateway for measurements: responds for any stop after a delay, with the departures that its code encodes.

    python bench/gateway.py PORT CALLBACK-URL DELAY

The last three digits of a TimingPointCode are the number of its departures. GET / returns JSON: the number of
requests, and the time of the last response (epoch seconds).
"""

import json
import sys

from twisted.application.service import Service
from twisted.internet import endpoints, reactor
from zope.interface import implementer

from govi_server.departures.board import Board, Trip
from govi_server.http.request import Environ
from govi_server.kv55 import messages
from govi_server.kv55.post import Poster
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

TRIP = Trip(
    operating_date="2026-01-01",
    data_owner_code="LINDEBUS",
    line_planning_number="1101",
    line_public_number="1",
    destination_name="Zuiderwaard via Station",
    journey_number="4711",
    fortify_order_number="0",
    target_arrival_time="12:00:00",
    expected_arrival_time="12:01:30",
    target_departure_time="12:00:00",
    expected_departure_time="12:01:30",
    trip_stop_status="DRIVING",
)


@implementer(IWebModule)
class Gateway(Service):
    """Acknowledges requests, and posts the responses after the delay."""

    def __init__(self, callback: str, delay: float) -> None:
        self.poster = Poster(reactor, lambda: callback)
        self.delay = delay
        self.requests = 0
        self.last_response = 0.0

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> WebHandler:
        """Return the handler of a request."""
        handler = Handler(request_handler, env)
        handler.gateway = self
        return handler

    def respond(self, request: messages.GatewayRequest) -> None:
        """Post a response."""
        envelope = (
            ("SubscriberID", request.subscriber_id),
            ("Version", messages.VERSION),
            ("DossierName", messages.DOSSIER),
            ("RequestTimestamp", request.request_timestamp),
            ("SequenceNumber", request.sequence_number),
        )
        self.last_response = reactor.seconds()
        board = Board(request.code, (TRIP,) * int(request.code[-3:]), self.last_response, envelope)
        self.poster.post(messages.write_dris_55([board], None)).addErrback(lambda failure: print(failure.value))


class Handler(WebHandler):
    """Acknowledges a request, or returns the counts."""

    methods = ("GET", "POST")
    gateway: Gateway

    async def get(self) -> None:
        """Return the counts."""
        self.send_response(
            json.dumps({"requests": self.gateway.requests, "last_response": self.gateway.last_response})
        )

    async def post(self) -> None:
        """Acknowledge a request."""
        request = messages.read_dris_55_req(self.env.body)
        self.gateway.requests += 1
        reactor.callLater(self.gateway.delay, self.gateway.respond, request)
        self.send_response(messages.write_dris_55_res(reactor.seconds(), request.subscriber_id))


if __name__ == "__main__":
    port, callback, delay = sys.argv[1:]
    gateway = Gateway(callback, float(delay))
    server = Server("", 0, RequestHandler, clock=reactor, find_module=lambda segment: gateway)
    endpoints.serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1:backlog=1024").listen(server)
    reactor.run()
