"""A GOVI gateway for measurements: answers for any stop, after a time, with as many departures as its code says.

    python bench/gateway.py PORT CALLBACK-URL DELAY

A TimingPointCode ends in the number of its departures, three digits. GET / tells in JSON how many questions came, and
when the last answer was sent (epoch seconds).
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
from govi_server.web_handler import IWebModule, WebHandler

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
    """Takes questions, and posts their answers later."""

    def __init__(self, callback: str, delay: float) -> None:
        self.poster = Poster(reactor, lambda: callback)
        self.delay = delay
        self.asked = 0
        self.answered = 0.0

    def web_handler(self, request_handler: RequestHandler, env: Environ) -> WebHandler:
        """Make the handler of one question."""
        handler = Handler(request_handler, env)
        handler.gateway = self
        return handler

    def answer(self, question: messages.Question) -> None:
        """Post an answer."""
        envelope = (
            ("SubscriberID", question.subscriber_id),
            ("Version", messages.VERSION),
            ("DossierName", messages.DOSSIER),
            ("RequestTimestamp", question.request_timestamp),
            ("SequenceNumber", question.sequence_number),
        )
        self.answered = reactor.seconds()
        board = Board(question.code, (TRIP,) * int(question.code[-3:]), self.answered, envelope)
        self.poster.post(messages.write_dris_55([board], None)).addErrback(lambda failure: print(failure.value))


class Handler(WebHandler):
    """Answers one question, or says how many there were."""

    methods = ("GET", "POST")
    gateway: Gateway

    async def get(self) -> None:
        """Tell what happened."""
        self.send_response(json.dumps({"asked": self.gateway.asked, "answered": self.gateway.answered}))

    async def post(self) -> None:
        """Take a question."""
        question = messages.read_dris_55_req(self.env.body)
        self.gateway.asked += 1
        reactor.callLater(self.gateway.delay, self.gateway.answer, question)
        self.send_response(messages.write_dris_55_res(reactor.seconds(), question.subscriber_id))


if __name__ == "__main__":
    port, callback, delay = sys.argv[1:]
    gateway = Gateway(callback, float(delay))
    server = Server("", 0, RequestHandler, clock=reactor, find_module=lambda segment: gateway)
    endpoints.serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1:backlog=1024").listen(server)
    reactor.run()
