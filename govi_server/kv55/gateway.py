"""The GOVI gateway as a source of boards: POSTs and their callbacks (docs/protocols.md, section 1.1).

Longer than other modules: request, callback and deadline may end each other, so their rules stand together.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import ILogObserver, Logger, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from govi_server.departures.board import Board
from govi_server.departures.source import IAcknowledgingSource, NoBoard, SourceBroken, SourceSilent, SourceUnreachable
from govi_server.kv55 import messages
from govi_server.kv55.messages import GatewayRequest
from govi_server.kv55.parsing import BadMessage, unpack
from govi_server.runtime.outage import Outage
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.settings import SUBSCRIBER_ID, GatewaySettings


@dataclass(frozen=True, slots=True)
class GatewayEvent:
    """An event in the life of a gateway request, published under the key ``flight`` without a text."""

    module: str
    """The gateway's module."""
    name: Literal["taken", "answered", "late"]
    """Acknowledged, responded to in time, or responded to after the deadline."""
    seconds: float
    """Since the request was sent."""


class IPoster(Interface):
    """Sends messages to a gateway."""

    def post(body: bytes, encoding: str | None = None) -> Deferred[None]:
        """Send a message. Fires when it is accepted; fails with an error whose message is the reason."""

    def close() -> Deferred[None]:
        """Close the idle connections."""


OfferResult = Literal["stored", "repeated", "unknown"]
"""Another node had requested the board; it had, and has its response; no node has requested it."""


PEER_PATH = "/govi-cache-peer"
"""The path of callbacks that another node passes on; they are not passed on again."""


class IPeers(Interface):
    """Other nodes with the same gateway, whose requests the callbacks of this node may answer."""

    def offer(board: Board) -> "Deferred[OfferResult]":
        """Pass a board on to the node that has requested it. Never fails."""


MAX_LATE_SECONDS = 300.0
"""Time after its request up to which a callback is late rather than unsolicited."""


class Unsolicited(Exception):
    """A callback none of whose boards was requested."""


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A gateway request, pending or resolved."""

    code: str
    number: str
    sent_at: float
    """Epoch seconds."""
    board: Deferred[Board] | None
    """The caller's; None once the request is resolved."""
    deadline: IDelayedCall | None = None
    """Of the POST and of the board."""
    post: Deferred[None] | None = None
    """The POST; None once it is acknowledged or has failed."""
    accepted: bool = False
    """Whether the gateway has acknowledged the request."""
    answered: bool = False
    """Whether its own response has arrived, as far as the number tells."""
    abandoned: bool = False
    error: str = ""
    """Why a callback that may have been for this request was unreadable."""

    def claim(self) -> Callable[[Board | NoBoard], None]:
        """End the request; return a function that passes its result to the caller."""
        board, self.board = self.board, None
        self.stop_deadline()
        return partial(_fire, board)

    def stop_deadline(self) -> None:
        """Cancel the deadline, unless the POST or the board is pending.

        The callback may overtake the acknowledgement, which then may never arrive.
        """
        if self.deadline is not None and self.post is None and self.board is None:
            if self.deadline.active():
                self.deadline.cancel()
            self.deadline = None

    def abandon(self) -> None:
        """End the request without a result: its caller has the board from elsewhere."""
        self.abandoned = True
        self.claim()

    def resolve(self, result: Board | NoBoard) -> None:
        """End the request with a result."""
        self.claim()(result)


def _number(board: Board) -> str | None:
    """Return the sequence number of the request that a callback says to respond to; None if it does not say that.

    Some gateways always send 0 (docs/protocols.md, section 1.2).
    """
    number = dict(board.envelope).get("SequenceNumber")
    return None if number == "0" else number


def _fire(board: Deferred[Board] | None, result: Board | NoBoard) -> None:
    if board is None:
        return
    if isinstance(result, Board):
        board.callback(result)
    else:
        board.errback(result)


@dataclass(slots=True)
class _SentRequests:
    """The requests to which a callback may respond, by code and in order."""

    by_code: dict[str, list[PendingRequest]] = field(default_factory=dict)
    in_order: deque[PendingRequest] = field(default_factory=deque)
    echoed: set[str] = field(default_factory=set)
    """Up to two numbers with which callbacks matched requests. One may be that of a gateway that always sends it."""

    def add(self, request: PendingRequest) -> None:
        self.by_code.setdefault(request.code, []).append(request)
        self.in_order.append(request)

    def remove_old(self, before: float, limit: int) -> None:
        """Remove requests sent before a moment or beyond a number, oldest first, up to one that is pending."""
        while self.in_order and (self.in_order[0].sent_at < before or len(self.in_order) > limit):
            if self.in_order[0].board is not None:
                return
            request = self.in_order.popleft()
            requests = self.by_code[request.code]
            requests.remove(request)
            if not requests:
                del self.by_code[request.code]

    def find(self, code: str, number: str | None, after: float) -> PendingRequest | None:
        """Return the request, sent after a moment, to which a callback responds; None if it has none.

        Callbacks match by code, and by sequence number if the gateway echoes it; some always send the same one
        (docs/protocols.md, section 1.2). Otherwise return the latest one that is pending, or unanswered, or any. It
        may be answered already.
        """
        requests = [request for request in self.by_code.get(code, ()) if request.sent_at >= after]
        unanswered = [request for request in requests if not request.answered]
        # With a gateway that echoes numbers, the number of an answered request marks a repeated response.
        numbered = requests if len(self.echoed) > 1 else unanswered
        by_number = [request for request in numbered if request.number == number]
        pending = [request for request in unanswered if request.board is not None]
        return next((group[-1] for group in (by_number, pending, unanswered, requests) if group), None)

    def set_back(self, now: float) -> None:
        """Let no request have been sent after now: the clock was set back."""
        for request in self.in_order:
            request.sent_at = min(request.sent_at, now)

    def record_echo(self, request: PendingRequest, number: str | None) -> None:
        """Record the number of a callback that was matched with a request, if it is the request's."""
        if number == request.number and len(self.echoed) < 2:
            self.echoed.add(number)

    def is_superseded(self, request: PendingRequest) -> bool:
        """Return whether a later request for the same stop was answered, here or on another node."""
        requests = self.by_code[request.code]
        return any(later.answered or later.abandoned for later in requests[requests.index(request) + 1 :])


@dataclass(slots=True)
class Delivery:
    """A callback, matched with its requests. To be acknowledged before serve() is called."""

    log: Logger
    peers: IPeers | None
    unmatched: list[Board] = field(default_factory=list)
    """Boards that no request of this node waits for, to be offered to the peers before the callback is acknowledged.
    """
    is_matched: bool = False
    """Whether any board was requested."""
    error: BadMessage | Unsolicited | None = None
    """Why the callback is rejected; None if it is accepted."""
    results: list[Callable[[], object]] = field(default_factory=list)

    def serve(self) -> None:
        """Pass the results to the waiting callers; log exceptions."""
        for deliver in self.results:
            try:
                deliver()
            except Exception:
                self.log.failure("Serving a callback failed")


@implementer(IAcknowledgingSource)
class Gateway(Service):
    """Sends a gateway request for each requested stop, and matches the callbacks with the requests.

    poster: sends the messages. description: the gateway's name in the log. module: its label in metrics. observer:
    receives the GatewayEvents; the global log by default. peers: other nodes, if there are any.
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
        observer: ILogObserver = globalLogPublisher,
        peers: IPeers | None = None,
    ) -> None:
        self._peers = peers
        self._poster = poster
        self._clock = clock
        self.description = description
        self._module = module
        self._observer = observer
        self._subscriber_id = subscriber_id
        self._limits = limits
        self._number = 0
        self._requests = _SentRequests()
        self._listeners: list[Callable[[Board], object]] = []
        self._acceptance_listeners: list[Callable[[], object]] = []
        self._outage = Outage(self.log, clock)
        self.incidents = ThrottledWarnings(self.log, clock)

    def listen(self, on_board: Callable[[Board], object]) -> None:
        """Call a function with each board that arrives after its deadline."""
        self._listeners.append(on_board)

    def listen_accepted(self, on_accepted: Callable[[], object]) -> None:
        """Call a function whenever the gateway has acknowledged a request."""
        self._acceptance_listeners.append(on_accepted)

    def clock_set_back(self) -> None:
        """Match callbacks with the requests sent until now for MAX_LATE_SECONDS, and no longer."""
        self._requests.set_back(self._clock.seconds())

    def board(self, code: str) -> Deferred[Board]:
        """Request a stop's board. Fails with NoBoard, within the limit for answers.

        Cancelling it ends the request, but not its POST; its response is then a late one.
        """
        now = self._clock.seconds()
        self._number += 1
        board: Deferred[Board] = Deferred(lambda _: request.abandon())
        request = PendingRequest(code, str(self._number), now, board)
        self._requests.add(request)
        self._requests.remove_old(now - MAX_LATE_SECONDS, self._limits.remembered)
        document = messages.write_dris_55_req(GatewayRequest(code, request.number, self._subscriber_id), now)
        request.deadline = self._clock.callLater(self._limits.answer, self._on_deadline, request)
        request.post = posted = maybeDeferred(self._poster.post, document)
        posted.addBoth(self._posted, request)
        posted.addCallbacks(self._on_accepted, self._on_rejected, callbackArgs=(request,), errbackArgs=(request,))
        posted.addErrback(
            lambda failure: self.log.failure("Requesting {gateway} failed", failure, gateway=self.description)
        )
        return board

    def deliver(self, data: bytes, is_passed_on: bool = False) -> Delivery:
        """Match a callback's body, gzip or plain, with the requests. is_passed_on: by another node.

        Its unmatched boards are then offered to the peers. Serve the Delivery after responding to the callback: that
        response must not wait for a thousand clients of the stop.
        """
        peers = None if is_passed_on else self._peers
        delivery = Delivery(self.log, peers)
        try:
            data = unpack(data, self._limits.message)
            boards = messages.read_dris_55(data, self._clock.seconds())
        except BadMessage as error:
            self._deliver_error(data, str(error), delivery)
            delivery.error = error
            return delivery
        for board in boards:
            self._deliver_board(board, delivery)
        if not delivery.is_matched and not delivery.unmatched:
            self._reject(boards, delivery)
        return delivery

    async def offer(self, delivery: Delivery) -> None:
        """Offer the unmatched boards of a callback to the peers; reject it if none of its boards was requested.

        The offers continue if this is cancelled: clients of the other nodes wait for the boards.
        """
        assert delivery.peers is not None
        offers = [delivery.peers.offer(board) for board in delivery.unmatched]
        offered: Deferred[list[OfferResult]] = Deferred()
        gatherResults(offers, consumeErrors=True).chainDeferred(offered)
        results = await offered
        for board, result in zip(delivery.unmatched, results, strict=True):
            if result == "stored":
                delivery.is_matched = True
            elif result == "repeated" or self._find(board.code, _number(board)) is not None:
                self._count_repeated(board, delivery)
        if not delivery.is_matched:
            self._reject(delivery.unmatched, delivery)

    def _reject(self, boards: list[Board], delivery: Delivery) -> None:
        codes = ", ".join(board.code for board in boards[:5])
        text = "{gateway}: unsolicited callback for stop {codes} rejected"
        self.incidents.add("unsolicited", text, gateway=self.description, codes=codes)
        delivery.error = Unsolicited(f"stop {codes} was not requested")

    def refuse(self, origin: str, setting: str) -> None:
        """Count and log a callback that is not allowed. setting: the one that does not name its origin."""
        text = "{gateway}: callback from {origin}, which is not in {setting}, rejected"
        self.incidents.add("refused", text, gateway=self.description, origin=origin, setting=setting)

    def stopService(self) -> Deferred[None]:
        """End the pending requests and the connections to the gateway."""
        super().stopService()
        for request in list(self._requests.in_order):
            request.resolve(SourceSilent("the server is stopping"))
            if request.post is not None:
                request.post.cancel()
        return self._poster.close()

    def _deliver_board(self, board: Board, delivery: Delivery) -> None:
        """Match a board with a request."""
        number = _number(board)
        request = self._find(board.code, number)
        is_others = request is not None and self._peers is not None and number not in (None, request.number)
        if request is None or (request.board is None and (request.answered or is_others)):
            if delivery.peers is not None:  # which may have requested the board since then
                delivery.unmatched.append(board)
            elif request is not None:
                self._count_repeated(board, delivery)
            return
        delivery.is_matched = True
        is_late = request.board is None
        request.answered = not is_others
        self._requests.record_echo(request, number)
        if not is_late:
            self._on_recovery()
            self._publish(request, "answered")
            delivery.results.append(partial(request.claim(), board))
        else:
            self._publish(request, "late")
            seconds = round(self._since(request), 1)
            is_superseded = self._requests.is_superseded(request)
            use = "superseded by that of a later request" if is_superseded else "stored"
            text = "{gateway}: response for stop {code} after {seconds} s, {use}"
            self.incidents.add("late", text, gateway=self.description, code=board.code, seconds=seconds, use=use)
            if not is_superseded:
                delivery.results.extend(partial(on_board, board) for on_board in self._listeners)
        if delivery.peers is not None and (is_late or is_others):  # nodes may use the same numbers
            delivery.results.append(partial(delivery.peers.offer, board))

    def _count_repeated(self, board: Board, delivery: Delivery) -> None:
        delivery.is_matched = True
        text = "{gateway}: repeated response for stop {code}"
        self.incidents.add("repeated", text, gateway=self.description, code=board.code)

    def _deliver_error(self, data: bytes, reason: str, delivery: Delivery) -> None:
        """Fail the request of an unreadable callback, which without a code may be any pending one."""
        text = "{gateway}: unreadable callback ({reason})"
        self.incidents.add("broken", text, gateway=self.description, reason=reason)
        code = messages.code_in(data[: self._limits.message])
        if code is None:
            for request in self._requests.in_order:
                if request.board is not None:
                    request.error = reason
        elif match := self._find(code, None):
            delivery.results.append(partial(match.claim(), SourceBroken(reason)))

    def _find(self, code: str, number: str | None) -> PendingRequest | None:
        """Return the request to which a callback responds; None if it is unsolicited."""
        return self._requests.find(code, number, self._clock.seconds() - MAX_LATE_SECONDS)

    def _since(self, request: PendingRequest) -> float:
        """Return the seconds since a request was sent; 0 if the clock was set back."""
        return max(self._clock.seconds() - request.sent_at, 0.0)

    def _publish(self, request: PendingRequest, name: Literal["taken", "answered", "late"]) -> None:
        # Creating the event with a Logger would cost more than all its observers together.
        event = GatewayEvent(self._module, name, self._since(request))
        self._observer(
            {
                "log_level": LogLevel.info,
                "log_namespace": __name__,
                "log_time": self._clock.seconds(),
                "flight": event,
            }
        )

    def _posted(self, result: Failure | None, request: PendingRequest) -> Failure | None:
        request.post = None
        request.stop_deadline()
        return result

    def _on_accepted(self, _: None, request: PendingRequest) -> None:
        request.accepted = True
        self._publish(request, "taken")
        self._on_recovery()
        for on_accepted in self._acceptance_listeners:
            on_accepted()

    def _on_rejected(self, failure: Failure, request: PendingRequest) -> None:
        if failure.check(CancelledError):
            self._expire(request)
        elif request.board is not None:
            self._on_failure(failure.getErrorMessage())
            request.resolve(SourceUnreachable(failure.getErrorMessage()))

    def _on_deadline(self, request: PendingRequest) -> None:
        if request.post is not None:
            request.post.cancel()
        self._expire(request)

    def _expire(self, request: PendingRequest) -> None:
        """End a request at its deadline, with the error for the stage that it has reached."""
        limit = f"{self._limits.answer:g} s"
        if request.board is None:
            return
        if request.error:
            request.resolve(SourceBroken(request.error))
        elif request.accepted:
            text = "{gateway}: no response for stop {code} within {limit} (request was accepted)"
            self.incidents.add("silent", text, gateway=self.description, code=request.code, limit=limit)
            request.resolve(SourceSilent(f"no response within {limit}"))
        else:
            self._on_failure(f"request not accepted within {limit}")
            request.resolve(SourceUnreachable(f"request not accepted within {limit}"))

    def _on_failure(self, reason: str) -> None:
        self._outage.begin("{gateway}: failing ({reason})", gateway=self.description, reason=reason)

    def _on_recovery(self) -> None:
        self._outage.end("{gateway}: accepting requests again after {seconds} s", gateway=self.description)
