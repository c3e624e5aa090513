"""The GOVI gateway as a source of boards: asks by POST, and is answered later by a callback (docs/protocols.md 1.1)."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from govi_server.departures.board import Board
from govi_server.departures.source import IDepartureSource, NoBoard, SourceBroken, SourceSilent, SourceUnreachable
from govi_server.kv55 import messages
from govi_server.kv55.messages import BadMessage, Question
from govi_server.runtime.throttled_warnings import WARNING_INTERVAL, ThrottledWarnings
from govi_server.settings import SUBSCRIBER, GatewaySettings


@dataclass(frozen=True, slots=True)
class GatewayEvent:
    """One thing that happened to a question. Written to the log under the key ``flight``, with no text."""

    module: str
    """The module that asked."""
    name: Literal["taken", "answered", "late"]
    """Taken is the acknowledgement; late is an answer after the deadline."""
    seconds: float
    """Since the question."""


class IPoster(Interface):
    """What sends messages to a gateway."""

    def post(body: bytes, encoding: str | None = None) -> Deferred[None]:
        """Send a message; fires when it was taken, fails with an error whose text says why not."""

    def close() -> Deferred[None]:
        """Close the connections that are kept."""


LATE = 300.0
"""Seconds after a question in which its answer is still one that somebody asked for."""


GATEWAY_DEFAULTS = GatewaySettings()


class Unsolicited(Exception):
    """A callback that answers no question."""


@dataclass(slots=True, eq=False)
class PendingQuestion:
    """A question that is on its way, or was."""

    code: str
    number: str
    asked: float
    board: Deferred[Board] | None
    """Who waits; None once the flight has landed or its time is over."""
    deadline: IDelayedCall | None = None
    taken: bool = False
    """Whether the gateway has taken the question."""
    answered: bool = False
    broken: str = ""
    """What could not be read of a callback that may have been this flight's."""

    def land(self, result: Board | NoBoard) -> None:
        """Hand the result to who waits."""
        waiting, self.board = self.board, None
        if self.deadline is not None and self.deadline.active():
            self.deadline.cancel()
        self.deadline = None
        if waiting is None:
            return
        if isinstance(result, Board):
            self.answered = True
            waiting.callback(result)
        else:
            waiting.errback(result)


@dataclass(slots=True)
class _AnsweredQuestions:
    """The questions that are remembered: by code, and in the order in which they were asked."""

    by_code: dict[str, list[PendingQuestion]] = field(default_factory=dict)
    in_order: deque[PendingQuestion] = field(default_factory=deque)

    def add(self, flight: PendingQuestion) -> None:
        self.by_code.setdefault(flight.code, []).append(flight)
        self.in_order.append(flight)

    def forget(self, before: float, most: int) -> None:
        """Forget what was asked before a moment, and the oldest of more than most; not what still flies."""
        while self.in_order and (self.in_order[0].asked < before or len(self.in_order) > most):
            if self.in_order[0].board is not None:
                return
            flight = self.in_order.popleft()
            flights = self.by_code[flight.code]
            flights.remove(flight)
            if not flights:
                del self.by_code[flight.code]

    def find(self, code: str, number: str | None) -> PendingQuestion | None:
        """Find the flight that an answer belongs to.

        By code, and by sequence number where the gateway echoes it; it may as well always send the same one
        (docs/protocols.md 1.2). Else the one that waits, else the last that was not answered, else the last.
        """
        flights = self.by_code.get(code, [])
        unanswered = [flight for flight in flights if not flight.answered]
        by_number = [flight for flight in unanswered if flight.number == number]
        waiting = [flight for flight in unanswered if flight.board is not None]
        return next((some[-1] for some in (by_number, waiting, unanswered, flights) if some), None)


@implementer(IDepartureSource)
class Gateway(Service):
    """Asks the gateway for one stop at a time, and matches its callbacks to the questions.

    poster: sends its messages. description: its name in the log. module: what answers from it, for figures.
    """

    log = Logger()

    def __init__(
        self,
        poster: IPoster,
        clock: IReactorTime,
        description: str,
        subscriber_id: str = SUBSCRIBER,
        limits: GatewaySettings = GATEWAY_DEFAULTS,
        module: str = "kv55",
    ) -> None:
        self._poster = poster
        self._clock = clock
        self.description = description
        self._module = module
        self._subscriber_id = subscriber_id
        self._limits = limits
        self._number = 0
        self._asked = _AnsweredQuestions()
        self._posts: set[Deferred[None]] = set()
        self._heard: list[Callable[[Board], object]] = []
        self._failing_since: float | None = None
        self._told: float | None = None  # when that it fails was told last
        self._is_told = False  # that it fails now
        self.incidents = ThrottledWarnings(self.log, clock)

    def listen(self, heard: Callable[[Board], object]) -> None:
        """Have late answers told to heard."""
        self._heard.append(heard)

    def board(self, code: str) -> Deferred[Board]:
        """Ask for a stop; fails with a NoBoard within the limit."""
        now = self._clock.seconds()
        self._number += 1
        board: Deferred[Board] = Deferred()
        flight = PendingQuestion(code, str(self._number), now, board)
        self._asked.add(flight)
        self._asked.forget(now - LATE, self._limits.remembered)
        question = Question(code, flight.number, self._subscriber_id)
        posted = maybeDeferred(self._poster.post, messages.write_dris_55_req(question, now))
        # The callback may overtake the acknowledgement, which then may never come: the POST has its own deadline.
        posted.addTimeout(self._limits.answer, self._clock)
        self._posts.add(posted)
        posted.addBoth(self._posted, posted)
        flight.deadline = self._clock.callLater(self._limits.answer, self._time_over, flight)
        posted.addCallbacks(self._taken, self._not_taken, callbackArgs=(flight,), errbackArgs=(flight,))
        posted.addErrback(
            lambda failure: self.log.failure("Asking {gateway} failed", failure, gateway=self.description)
        )
        return board

    def deliver(self, data: bytes) -> None:
        """Take a callback's body, gzip or plain.

        Raises BadMessage, or Unsolicited when no board in it was asked for.
        """
        try:
            data = messages.unpack(data, self._limits.message)
            boards = messages.read_dris_55(data, self._clock.seconds())
        except BadMessage as error:
            self._broken(data, str(error))
            raise
        asked_for = [self._deliver_board(board) for board in boards]
        if not any(asked_for):
            codes = ", ".join(board.code for board in boards[:5])
            self.incidents.add(
                "unsolicited",
                "{gateway} sent stop {codes}, which nobody asked for: refused",
                gateway=self.description,
                codes=codes,
            )
            raise Unsolicited(f"nobody asked for stop {codes}")

    def refuse(self, client: str) -> None:
        """Take note of a callback from somebody who may not send any."""
        self.incidents.add(
            "refused",
            "A callback for {gateway} from {client}, who may not send any: refused",
            gateway=self.description,
            client=client,
        )

    def stopService(self) -> Deferred[None]:
        """Give up what is still on its way, and the connections to the gateway."""
        super().stopService()
        for flight in list(self._asked.in_order):
            flight.land(SourceSilent("the server stops"))
        for posted in list(self._posts):
            posted.cancel()
        return self._poster.close()

    def _deliver_board(self, board: Board) -> bool:
        """Give a board to who waits for it; tell whether it was asked for."""
        flight = self._asked.find(board.code, dict(board.envelope).get("SequenceNumber"))
        if flight is None or self._clock.seconds() - flight.asked > LATE:
            return False
        if flight.board is not None:
            self._recovered()
            self._tell(flight, "answered")
            flight.land(board)
        elif flight.answered:
            self.incidents.add(
                "repeated", "{gateway} repeated its answer for stop {code}", gateway=self.description, code=board.code
            )
        else:
            flight.answered = True
            self._tell(flight, "late")
            seconds = round(self._since(flight), 1)
            self.incidents.add(
                "late",
                "{gateway} answered for stop {code} late, after {seconds} s: kept",
                gateway=self.description,
                code=board.code,
                seconds=seconds,
            )
            for heard in self._heard:
                heard(board)
        return True

    def _broken(self, data: bytes, why: str) -> None:
        """Fail the flight that an unreadable callback was for; if it names no stop, it may have been anyone's."""
        self.incidents.add("broken", "{gateway} sent what cannot be read: {why}", gateway=self.description, why=why)
        code = messages.code_in(data[: self._limits.message])
        if code is None:
            for flight in self._asked.in_order:
                if flight.board is not None:
                    flight.broken = why
        elif asked := self._asked.find(code, None):
            asked.land(SourceBroken(why))

    def _since(self, flight: PendingQuestion) -> float:
        """Give the seconds since a question; none after the clock was set back."""
        return max(self._clock.seconds() - flight.asked, 0.0)

    def _tell(self, flight: PendingQuestion, what: Literal["taken", "answered", "late"]) -> None:
        self.log.info(flight=GatewayEvent(self._module, what, self._since(flight)))

    def _taken(self, _: None, flight: PendingQuestion) -> None:
        flight.taken = True
        self._tell(flight, "taken")
        self._recovered()

    def _posted(self, result: Failure | None, posted: Deferred[None]) -> Failure | None:
        self._posts.discard(posted)
        return result

    def _not_taken(self, failure: Failure, flight: PendingQuestion) -> None:
        if failure.check(TimeoutError):
            self._time_over(flight)
        elif flight.board is not None:
            self._fails(failure.getErrorMessage())
            flight.land(SourceUnreachable(failure.getErrorMessage()))

    def _time_over(self, flight: PendingQuestion) -> None:
        """End a flight that has had its time; what for, depends on how far it came."""
        seconds = f"{self._limits.answer:g} s"
        if flight.board is None:
            return
        if flight.broken:
            flight.land(SourceBroken(flight.broken))
        elif flight.taken:
            self.incidents.add(
                "silent",
                "{gateway} took the question for stop {code}, no answer came within {seconds}",
                gateway=self.description,
                code=flight.code,
                seconds=seconds,
            )
            flight.land(SourceSilent(f"no answer within {seconds}"))
        else:
            self._fails(f"the question was not taken within {seconds}")
            flight.land(SourceUnreachable(f"the question was not taken within {seconds}"))

    def _fails(self, why: str) -> None:
        if self._failing_since is None:
            self._failing_since = now = self._clock.seconds()
            if self._told is not None and 0 <= now - self._told < WARNING_INTERVAL:
                return  # one that comes and goes with every question is told of once a minute, too
            self._told, self._is_told = now, True
            self.log.warn("{gateway} fails: {why}", gateway=self.description, why=why)

    def _recovered(self) -> None:
        if self._failing_since is not None:
            seconds = round(max(self._clock.seconds() - self._failing_since, 0.0), 1)
            self._failing_since = None
            if not self._is_told:
                return
            self._is_told = False
            self.log.info(
                "{gateway} takes questions again, after {seconds} s", gateway=self.description, seconds=seconds
            )
