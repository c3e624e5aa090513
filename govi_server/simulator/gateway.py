"""The simulated GOVI gateway: takes questions by POST, and posts the answers to a callback address later."""

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
from govi_server.kv55.messages import BadMessage, Question
from govi_server.kv55.post import Poster
from govi_server.request_handler import RequestHandler
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.server import Server
from govi_server.settings import ServerSettings
from govi_server.simulator.town import Town
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

TRIPS = 10
"""Trips of an answer: GOVI sent five (docs/protocols.md 1.2), other sources send more."""


class Behaviour(Struct, frozen=True):
    """How the gateway behaves."""

    delay: float = 0.3
    """Seconds from a question to its answer."""
    drop: float = 0.0
    """The fraction of questions that get no answer, from 0 to 1."""
    gzip: bool = False
    """Whether answers are compressed."""
    seed: int = 55
    """What timetable, delays, cancellations and drops follow from."""


@implementer(IWebModule)
class SimulatedGateway(Service):
    """Answers for the stops of the town, and is silent about any other, as GOVI was (docs/protocols.md 1.2).

    callback: posts the answers. clock: the town's time.
    """

    log = Logger()

    def __init__(self, behaviour: Behaviour, callback: IPoster, clock: IReactorTime) -> None:
        self._behaviour = behaviour
        self._callback = callback
        self.clock = clock
        self._town = Town(behaviour.seed)
        self._drops = Random(behaviour.seed)
        self._incidents = ThrottledWarnings(self.log, clock)

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "QuestionHandler":
        """Make the handler of one question."""
        return QuestionHandler(self, request_handler, env)

    def ask(self, question: Question) -> None:
        """Answer a question, later and elsewhere."""
        if question.code not in self._town.stops:
            self.log.info("Stop {code} is not in town: no answer", code=question.code)
        elif self._drops.random() < self._behaviour.drop:
            self.log.info("The question for stop {code} is dropped", code=question.code)
        else:
            self.log.info("Stop {code} is asked for", code=question.code)
            self.clock.callLater(self._behaviour.delay, self._answer, question)

    def _answer(self, question: Question) -> None:
        now = self.clock.seconds()
        board = self._town.board(question.code, now, most=TRIPS)
        envelope = (
            ("SubscriberID", question.subscriber_id),
            ("Version", messages.VERSION),
            ("DossierName", messages.DOSSIER),
            ("SendTimestamp", local_timestamp(now)),
            ("RequestTimestamp", question.request_timestamp),
            ("SequenceNumber", question.sequence_number),
        )
        body = messages.write_dris_55([replace(board, envelope=envelope)], license_url=None)
        if self._behaviour.gzip:
            posted = self._callback.post(gzip.compress(body), "gzip")
        else:
            posted = self._callback.post(body)
        posted.addErrback(self._not_taken, question.code)

    def _not_taken(self, failure: Failure, code: str) -> None:
        text = "The answer for stop {code} was not taken: {why}"
        self._incidents.add("not taken", text, code=code, why=failure.getErrorMessage())


class QuestionHandler(WebHandler):
    """Answers one DRIS_55_REQ with a DRIS_55_RES."""

    methods = ("POST",)

    def __init__(self, module: SimulatedGateway, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def post(self) -> None:
        """Take a question; 400 for what is none."""
        try:
            question = messages.read_dris_55_req(self.env.body)
        except BadMessage as error:
            self.send_response(f"{error}\n", "400 Bad Request")
            return
        self._module.ask(question)
        body = messages.write_dris_55_res(self._module.clock.seconds(), question.subscriber_id)
        self.send_response(body, headers={"Content-Type": messages.CONTENT_TYPE})


def simulation(reactor: IReactorTime, behaviour: Behaviour, callback_url: Callable[[], str]) -> Server:
    """Make the server of a simulated gateway, which takes questions under any path."""
    gateway = SimulatedGateway(behaviour, Poster(reactor, callback_url), reactor)
    return Server(
        "",
        0,
        RequestHandler,
        clock=reactor,
        find_module=lambda segment: gateway,
        limits=ServerSettings(drain=1.0),
        name="simulated gateway",
    )
