"""The simulated GOVI gateway: receives requests by POST, and posts its responses to a callback URL later."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from random import Random

from msgspec import Struct
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.departures.times import local_timestamp
from govi_server.http.request import Environ
from govi_server.kv55 import messages
from govi_server.kv55.gateway import IPoster
from govi_server.kv55.messages import GatewayRequest
from govi_server.kv55.parsing import BadMessage
from govi_server.kv55.post import Poster
from govi_server.request_handler import RequestHandler
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.server import Server
from govi_server.settings import ServerSettings
from govi_server.simulator.town import Town
from govi_server.simulator.town_gtfs import GtfsFiles
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

MAX_TRIPS = 10
"""Trips in a response: GOVI sent five (docs/protocols.md, section 1.2), other sources send more."""


class GatewayBehaviour(Struct, frozen=True):
    """How the simulated gateway responds."""

    delay: float = 0.3
    """Seconds from a request to its response."""
    loss: float = 0.0
    """Fraction of requests without a response, from 0 to 1."""
    gzip: bool = False
    """Whether responses are compressed."""
    seed: int = 55
    """Seed of timetable, delays, cancellations and lost responses."""


@implementer(IWebModule)
class SimulatedGateway(Service):
    """Responds for the stops of the town, and does not respond for others, as GOVI did (docs/protocols.md, section
    1.2).

    callback: posts the responses. clock: the town's time.
    """

    log = Logger()

    def __init__(self, behaviour: GatewayBehaviour, callback: IPoster, clock: IReactorTime) -> None:
        self._behaviour = behaviour
        self._callback = callback
        self.clock = clock
        self._town = Town(behaviour.seed)
        self._losses = Random(behaviour.seed)
        self._warnings = ThrottledWarnings(self.log, clock)

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "GatewayRequestHandler":
        """Return the handler of a request."""
        return GatewayRequestHandler(self, request_handler, env)

    def receive(self, request: GatewayRequest) -> None:
        """Schedule the response to a request, unless the stop is unknown or the response is lost."""
        if request.code not in self._town.stops:
            self.log.info("Stop {code}: unknown, no response", code=request.code)
        elif self._losses.random() < self._behaviour.loss:
            self.log.info("Stop {code}: response lost", code=request.code)
        else:
            self.log.info("Stop {code}: request received", code=request.code)
            self.clock.callLater(self._behaviour.delay, self._post_response, request)

    def _post_response(self, request: GatewayRequest) -> None:
        now = self.clock.seconds()
        board = self._town.board(request.code, now, max_trips=MAX_TRIPS)
        envelope = (
            ("SubscriberID", request.subscriber_id),
            ("Version", messages.VERSION),
            ("DossierName", messages.DOSSIER),
            ("SendTimestamp", local_timestamp(now)),
            ("RequestTimestamp", request.request_timestamp),
            ("SequenceNumber", request.sequence_number),
        )
        body = messages.write_dris_55([replace(board, envelope=envelope)], license_url=None)
        if self._behaviour.gzip:
            posted = self._callback.post(gzip.compress(body), "gzip")
        else:
            posted = self._callback.post(body)
        posted.addErrback(self._callback_failed, request.code)

    def _callback_failed(self, failure: Failure, code: str) -> None:
        text = "Stop {code}: callback failed ({reason})"
        self._warnings.add("callback failed", text, code=code, reason=failure.getErrorMessage())


class GatewayRequestHandler(WebHandler):
    """Acknowledges a DRIS_55_REQ with a DRIS_55_RES."""

    methods = ("POST",)

    def __init__(self, module: SimulatedGateway, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def post(self) -> None:
        """Acknowledge a request; respond 400 if it is invalid."""
        try:
            request = messages.read_dris_55_req(self.env.body)
        except BadMessage as error:
            self.send_response(f"{error}\n", "400 Bad Request")
            return
        self._module.receive(request)
        body = messages.write_dris_55_res(self._module.clock.seconds(), request.subscriber_id)
        self.send_response(body, headers={"Content-Type": messages.CONTENT_TYPE})


def make_gateway_server(
    reactor: IReactorTime, behaviour: GatewayBehaviour, callback_url: Callable[[], str]
) -> Server:
    """Return the server of a simulated gateway, which receives requests under any path, with GTFS under /govi/."""
    gateway = SimulatedGateway(behaviour, Poster(reactor, callback_url), reactor)
    files = GtfsFiles(Town(behaviour.seed), reactor)
    return Server(
        "",
        0,
        RequestHandler,
        clock=reactor,
        find_module=lambda segment: files if segment == files.name else gateway,
        limits=ServerSettings(drain=1.0),
        name="simulated gateway",
    )
