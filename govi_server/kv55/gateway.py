"""The GOVI gateway as a source of boards: a request by POST, a response by callback (docs/protocols.md 1.1)."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
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
from govi_server.runtime.throttled_warnings import QUIET, ThrottledWarnings
from govi_server.settings import SUBSCRIBER_ID, GatewaySettings


@dataclass(frozen=True, slots=True)
class GatewayEvent:
    """An event of a question. Logged under the key ``flight``, with no text."""

    module: str
    """The module whose gateway it is."""
    name: Literal["taken", "answered", "late"]
    """Taken is the acknowledgement; late is a response after the deadline."""
    seconds: float
    """Since the question."""


class IPoster(Interface):
    """Sends messages to a gateway."""

    def post(body: bytes, encoding: str | None = None) -> Deferred[None]:
        """Send a message; fires when it was accepted, fails with an error whose text says why not."""

    def close() -> Deferred[None]:
        """Close the idle connections."""


MAX_LATE_SECONDS = 300.0
"""After a question; a callback for an older one is unsolicited."""


class Unsolicited(Exception):
    """A callback without a board that was requested."""


@dataclass(slots=True, eq=False)
class PendingQuestion:
    """A question to the gateway, pending or not any more."""

    code: str
    number: str
    asked_at: float
    """Epoch seconds."""
    board: Deferred[Board] | None
    """Of the caller; None once the question was resolved."""
    deadline: IDelayedCall | None = None
    accepted: bool = False
    """Whether the gateway has acknowledged the question."""
    answered: bool = False
    error: str = ""
    """Why a callback that may have been for this question was unreadable."""

    def claim(self) -> Callable[[Board | NoBoard], None]:
        """End the question; return the function that hands its result to the caller."""
        board, self.board = self.board, None
        if self.deadline is not None and self.deadline.active():
            self.deadline.cancel()
        self.deadline = None
        return partial(_fire, board)

    def resolve(self, result: Board | NoBoard) -> None:
        """End the question with a result."""
        self.claim()(result)


def _fire(board: Deferred[Board] | None, result: Board | NoBoard) -> None:
    if board is None:
        return
    if isinstance(result, Board):
        board.callback(result)
    else:
        board.errback(result)


@dataclass(slots=True)
class _Questions:
    """The questions to which a callback may respond, by code and in their order."""

    by_code: dict[str, list[PendingQuestion]] = field(default_factory=dict)
    in_order: deque[PendingQuestion] = field(default_factory=deque)

    def add(self, question: PendingQuestion) -> None:
        self.by_code.setdefault(question.code, []).append(question)
        self.in_order.append(question)

    def remove_old(self, before: float, most: int) -> None:
        """Remove the questions before a moment, and the oldest of more than most; not those that are pending."""
        while self.in_order and (self.in_order[0].asked_at < before or len(self.in_order) > most):
            if self.in_order[0].board is not None:
                return
            question = self.in_order.popleft()
            questions = self.by_code[question.code]
            questions.remove(question)
            if not questions:
                del self.by_code[question.code]

    def find(self, code: str, number: str | None) -> PendingQuestion | None:
        """Return the question to which a callback responds.

        By code, and by sequence number if the gateway echoes it; it may as well send the same number always
        (docs/protocols.md 1.2). Otherwise the pending one, the last without a response, or the last.
        """
        questions = self.by_code.get(code, [])
        unanswered = [question for question in questions if not question.answered]
        by_number = [question for question in unanswered if question.number == number]
        pending = [question for question in unanswered if question.board is not None]
        return next((found[-1] for found in (by_number, pending, unanswered, questions) if found), None)


@dataclass(slots=True)
class Delivery:
    """A callback that was matched with the questions, and is to be acknowledged before it is served."""

    log: Logger
    error: BadMessage | Unsolicited | None = None
    """Why the callback is rejected."""
    results: list[Callable[[], object]] = field(default_factory=list)

    def serve(self) -> None:
        """Hand the results to the callers that wait for them; an exception is logged."""
        for hand_over in self.results:
            try:
                hand_over()
            except Exception:
                self.log.failure("Serving a callback failed")


@implementer(IDepartureSource)
class Gateway(Service):
    """Requests one stop at a time from the gateway, and matches its callbacks with the questions.

    poster: sends its messages. description: its name in the log. module: its name in figures.
    """

    log = Logger()

    def __init__(
        self,
        poster: IPoster,
        clock: IReactorTime,
        description: str,
        subscriber_id: str = SUBSCRIBER_ID,
        limits: GatewaySettings = GatewaySettings(),
        module: str = "kv55",
    ) -> None:
        self._poster = poster
        self._clock = clock
        self.description = description
        self._module = module
        self._subscriber_id = subscriber_id
        self._limits = limits
        self._number = 0
        self._questions = _Questions()
        self._posts: set[Deferred[None]] = set()
        self._listeners: list[Callable[[Board], object]] = []
        self._failing_since: float | None = None
        self._warned_at: float | None = None
        self._is_warned = False  # of the current failure
        self.incidents = ThrottledWarnings(self.log, clock)

    def listen(self, on_board: Callable[[Board], object]) -> None:
        """Call a function with each board that arrives after its deadline."""
        self._listeners.append(on_board)

    def board(self, code: str) -> Deferred[Board]:
        """Request a stop; fails with a NoBoard within the limit."""
        now = self._clock.seconds()
        self._number += 1
        board: Deferred[Board] = Deferred()
        question = PendingQuestion(code, str(self._number), now, board)
        self._questions.add(question)
        self._questions.remove_old(now - MAX_LATE_SECONDS, self._limits.remembered)
        request = messages.write_dris_55_req(Question(code, question.number, self._subscriber_id), now)
        posted = maybeDeferred(self._poster.post, request)
        # The callback may overtake the acknowledgement, which then may never come: the POST has its own deadline.
        posted.addTimeout(self._limits.answer, self._clock)
        self._posts.add(posted)
        posted.addBoth(self._posted, posted)
        question.deadline = self._clock.callLater(self._limits.answer, self._expire, question)
        posted.addCallbacks(self._on_accepted, self._on_rejected, callbackArgs=(question,), errbackArgs=(question,))
        posted.addErrback(
            lambda failure: self.log.failure("Requesting {gateway} failed", failure, gateway=self.description)
        )
        return board

    def deliver(self, data: bytes) -> Delivery:
        """Match a callback's body, gzip or plain, with the questions.

        Its boards reach the callers when the Delivery is served: after the response to the callback, which would
        otherwise wait for a thousand clients of the same stop.
        """
        delivery = Delivery(self.log)
        try:
            data = messages.unpack(data, self._limits.message)
            boards = messages.read_dris_55(data, self._clock.seconds())
        except BadMessage as error:
            self._deliver_error(data, str(error), delivery)
            delivery.error = error
            return delivery
        requested = [self._deliver_board(board, delivery) for board in boards]
        if not any(requested):
            codes = ", ".join(board.code for board in boards[:5])
            text = "{gateway}: callback for stop {codes} without a question, rejected"
            self.incidents.add("unsolicited", text, gateway=self.description, codes=codes)
            delivery.error = Unsolicited(f"stop {codes} was not requested")
        return delivery

    def refuse(self, client: str) -> None:
        """Count a callback from a client that may not send any."""
        text = "{gateway}: callback from {client}, which is not in the module's `allow`, rejected"
        self.incidents.add("refused", text, gateway=self.description, client=client)

    def stopService(self) -> Deferred[None]:
        """End the pending questions and the connections to the gateway."""
        super().stopService()
        for question in list(self._questions.in_order):
            question.resolve(SourceSilent("the server stops"))
        for posted in list(self._posts):
            posted.cancel()
        return self._poster.close()

    def _deliver_board(self, board: Board, delivery: Delivery) -> bool:
        """Match a board with a question; return whether it was requested."""
        question = self._questions.find(board.code, dict(board.envelope).get("SequenceNumber"))
        if question is None or self._clock.seconds() - question.asked_at > MAX_LATE_SECONDS:
            return False
        if question.board is not None:
            question.answered = True
            self._on_recovery()
            self._publish(question, "answered")
            delivery.results.append(partial(question.claim(), board))
        elif question.answered:
            text = "{gateway}: repeated response for stop {code}"
            self.incidents.add("repeated", text, gateway=self.description, code=board.code)
        else:
            question.answered = True
            self._publish(question, "late")
            seconds = round(self._since(question), 1)
            text = "{gateway}: response for stop {code} after {seconds} s, stored"
            self.incidents.add("late", text, gateway=self.description, code=board.code, seconds=seconds)
            delivery.results.extend(partial(on_board, board) for on_board in self._listeners)
        return True

    def _deliver_error(self, data: bytes, reason: str, delivery: Delivery) -> None:
        """Fail the question of an unreadable callback; without a code it may have been for any pending one."""
        text = "{gateway}: unreadable callback ({reason})"
        self.incidents.add("broken", text, gateway=self.description, reason=reason)
        code = messages.code_in(data[: self._limits.message])
        if code is None:
            for question in self._questions.in_order:
                if question.board is not None:
                    question.error = reason
        elif question_of := self._questions.find(code, None):
            delivery.results.append(partial(question_of.claim(), SourceBroken(reason)))

    def _since(self, question: PendingQuestion) -> float:
        """Return the seconds since a question; 0 after the clock was set back."""
        return max(self._clock.seconds() - question.asked_at, 0.0)

    def _publish(self, question: PendingQuestion, name: Literal["taken", "answered", "late"]) -> None:
        self.log.info(flight=GatewayEvent(self._module, name, self._since(question)))

    def _posted(self, result: Failure | None, posted: Deferred[None]) -> Failure | None:
        self._posts.discard(posted)
        return result

    def _on_accepted(self, _: None, question: PendingQuestion) -> None:
        question.accepted = True
        self._publish(question, "taken")
        self._on_recovery()

    def _on_rejected(self, failure: Failure, question: PendingQuestion) -> None:
        if failure.check(TimeoutError):
            self._expire(question)
        elif question.board is not None:
            self._on_failure(failure.getErrorMessage())
            question.resolve(SourceUnreachable(failure.getErrorMessage()))

    def _expire(self, question: PendingQuestion) -> None:
        """End a question at its deadline, with the error of how far it came."""
        limit = f"{self._limits.answer:g} s"
        if question.board is None:
            return
        if question.error:
            question.resolve(SourceBroken(question.error))
        elif question.accepted:
            text = "{gateway}: accepted the question for stop {code}, no response within {limit}"
            self.incidents.add("silent", text, gateway=self.description, code=question.code, limit=limit)
            question.resolve(SourceSilent(f"no response within {limit}"))
        else:
            self._on_failure(f"question not accepted within {limit}")
            question.resolve(SourceUnreachable(f"question not accepted within {limit}"))

    def _on_failure(self, reason: str) -> None:
        if self._failing_since is None:
            self._failing_since = now = self._clock.seconds()
            if self._warned_at is not None and 0 <= now - self._warned_at < QUIET:
                return  # a gateway that fails with every other question is logged once a minute, too
            self._warned_at, self._is_warned = now, True
            self.log.warn("{gateway}: failing ({reason})", gateway=self.description, reason=reason)

    def _on_recovery(self) -> None:
        if self._failing_since is not None:
            seconds = round(max(self._clock.seconds() - self._failing_since, 0.0), 1)
            self._failing_since = None
            if self._is_warned:
                self._is_warned = False
                text = "{gateway}: accepts questions again, after {seconds} s"
                self.log.info(text, gateway=self.description, seconds=seconds)
