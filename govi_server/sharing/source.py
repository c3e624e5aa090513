"""A source that shares boards and gateway requests with other nodes."""

from collections.abc import Callable, Generator

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.departures.board import Board
from govi_server.departures.source import IDepartureSource, NoBoard, SourceBroken, SourceSilent
from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.sharing.boards import RENEW_SECONDS, Claim, Outcome, SharedBoards
from govi_server.sharing.engine import EngineError, EngineUnavailable
from govi_server.sharing.status import ShareResult


class _Request:
    """A request for a board, which waits for the engine, for another node or for this node's source."""

    __slots__ = (
        "claimed_at",
        "code",
        "has_engine_failed",
        "has_waited",
        "is_new",
        "requested_at",
        "source_request",
        "started_at",
        "waiting",
    )

    def __init__(self, code: str, now: float, is_new: bool) -> None:
        self.code = code
        self.started_at = now
        self.claimed_at = now
        """The time of the last claim."""
        self.is_new = is_new
        """Whether only a board that is newer than the request will do."""
        self.waiting: dict[Deferred[Board], float] = {}
        """The results of the callers, each with the time from which its deadline counts."""
        self.source_request: Deferred[Board] | None = None
        """The request to this node's source, if it was sent."""
        self.requested_at = now
        """When it was sent."""
        self.has_waited = False
        self.has_engine_failed = False
        """Whether the request was sent to the source because the engine had failed."""


@implementer(IDepartureSource)
class SharedSource(Service):
    """Requests a board from its source only if the engine does not have it and no other node requests it.

    A request that waits for another node claims the board again every RENEW_SECONDS, and whenever the engine reports
    that the other request has ended; so it takes over from a node that has died. Without the engine, and whenever it
    fails, each request goes to the source. fresh: the age in seconds up to which the engine's boards are used.
    deadline: of a caller, in seconds, at least RENEW_SECONDS above that of the source; callers fail up to
    RENEW_SECONDS before it. After a takeover the source may take longer: then it keeps its request, and the node its
    claim, and later callers wait for it as well.
    """

    log = Logger()

    def __init__(
        self,
        source: IDepartureSource,
        boards: SharedBoards,
        clock: IReactorTime,
        runner: CooperativeRunner,
        fresh: float,
        deadline: float,
    ) -> None:
        self._source = source
        self._boards = boards
        self._clock = clock
        self._runner = runner
        self._fresh = fresh
        self._deadline = deadline
        self._requests: dict[str, _Request] = {}
        self._renewal: IDelayedCall | None = None
        self._listeners: list[Callable[[Board], object]] = []
        boards.listen(self._on_end)
        source.listen(self._on_late_board)

    def listen(self, on_board: Callable[[Board], object]) -> None:
        """Call a function with each board that arrives after its request has failed."""
        self._listeners.append(on_board)

    def board(self, code: str) -> Deferred[Board]:
        """Request a board from the engine, another node or the source. Fails with NoBoard."""
        return self._start(code, is_new=False)

    def new_board(self, code: str) -> Deferred[Board]:
        """Request a board from the source itself, whose response may arrive at another node. Fails with NoBoard."""
        return self._start(code, is_new=True)

    def stopService(self) -> None:
        """Release this node's claims, so that others do not wait for its lease; end requests that wait for others."""
        super().stopService()
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        for request in list(self._requests.values()):
            self._boards.release(request.code, "unreachable")  # also a claim whose reply has not arrived
            if request.source_request is None:  # or else the source ends it
                self._finish(request, _stopping())

    def _start(self, code: str, is_new: bool) -> Deferred[Board]:
        if not self.running:
            return fail(_stopping())
        now = self._clock.seconds()
        result: Deferred[Board] = Deferred()
        request = self._requests.get(code)
        if request is not None:
            request.waiting[result] = now
            return result
        self._requests[code] = request = _Request(code, now, is_new)
        request.waiting[result] = now
        self._claim(request)
        if self._renewal is None:
            self._renewal = self._clock.callLater(RENEW_SECONDS, self._renew)
        return result

    # The engine.

    def _claim(self, request: _Request) -> None:
        now = request.claimed_at = self._clock.seconds()
        max_age = min(max(now - request.started_at, 0.0), self._fresh) if request.is_new else self._fresh
        claim = self._boards.claim(request.code, max_age, request.has_waited)
        claim.addCallbacks(self._claimed, self._not_claimed, callbackArgs=(request,), errbackArgs=(request,))
        claim.addErrback(lambda failure: self.log.failure("Claiming a request failed", failure))

    def _claimed(self, claim: Claim, request: _Request) -> None:
        if self._is_over(request):
            # If there is a later request, the claim is that of it as well.
            if claim.state == "claimed" and request.code not in self._requests:
                self._boards.release(request.code, "unreachable")
        elif claim.board is not None:
            if request.source_request is not None and claim.board.received_at < request.requested_at:
                self._resolve(request, claim.board)  # it is older than what the source will send
            else:
                self._finish(request, claim.board)
        elif request.source_request is not None:
            return  # the claim was renewed, or another node has taken it over and sends a request as well
        elif claim.state == "wait" and not request.is_new:
            request.has_waited = True
        elif claim.state == "silent":
            self._finish(request, SourceSilent("no response to the request of another node"))
        elif claim.state == "broken":
            self._finish(request, SourceBroken("unreadable response to the request of another node"))
        else:
            self._request_from_source(request)

    def _not_claimed(self, failure: Failure, request: _Request) -> None:
        failure.trap(EngineUnavailable, EngineError)
        if request.source_request is None and not self._is_over(request):
            request.has_engine_failed = True
            self._request_from_source(request)

    def _on_end(self, code: str) -> None:
        """Claim a board whose request has ended on any node."""
        request = self._requests.get(code)
        if request is not None and (request.has_waited or request.source_request is not None):
            self._claim(request)

    def _renew(self) -> None:
        """Claim the boards of all requests again, in steps, which renews the claims of this node."""
        self._renewal = None
        steps = self._renew_in_steps(list(self._requests.values()))
        renewal = Deferred.fromCoroutine(self._runner.run(steps))
        renewal.addErrback(lambda failure: self.log.failure("Renewing claims failed", failure))
        renewal.addCallback(self._renewed)

    def _renewed(self, _: object) -> None:
        if self._requests and self.running and self._renewal is None:  # no request has begun meanwhile
            self._renewal = self._clock.callLater(RENEW_SECONDS, self._renew)

    def _renew_in_steps(self, requests: list[_Request]) -> Generator[None, None, None]:
        for request in requests:
            now = self._clock.seconds()
            if self._is_over(request):
                continue
            self._check_deadlines(request, now)
            if not request.waiting and request.source_request is None:
                self._boards.release(request.code, "silent")
                del self._requests[request.code]
            elif not 0 <= now - request.claimed_at < RENEW_SECONDS / 2:
                self._claim(request)
            yield

    def _check_deadlines(self, request: _Request, now: float) -> None:
        """Fail the callers whose deadline is before the next check."""
        request.started_at = min(request.started_at, now)  # the clock may be set back
        for result, started_at in list(request.waiting.items()):
            request.waiting[result] = min(started_at, now)
            if now + RENEW_SECONDS - started_at > self._deadline:
                del request.waiting[result]
                self._count(request)
                result.errback(SourceSilent(f"no response within {self._deadline:g} s"))

    # The source.

    def _request_from_source(self, request: _Request) -> None:
        request.requested_at = self._clock.seconds()
        request.source_request = maybeDeferred(self._source.board, request.code)
        request.source_request.addCallbacks(
            self._board_received, self._no_board_received, callbackArgs=(request,), errbackArgs=(request,)
        )
        request.source_request.addErrback(lambda failure: self.log.failure("Ending a request failed", failure))

    def _board_received(self, board: Board, request: _Request) -> None:
        self._finish(request, board)
        self._boards.store(board)

    def _no_board_received(self, failure: Failure, request: _Request) -> None:
        if self._is_over(request):
            failure.trap(CancelledError, NoBoard)
            return
        # In this order, since a caller may request the board again.
        self._boards.release(request.code, _outcome(failure) if self.running else "unreachable")
        self._finish(request, failure)

    def _on_late_board(self, board: Board) -> None:
        self._boards.store(board)
        for on_board in self._listeners:
            on_board(board)

    # The end of a request.

    def _is_over(self, request: _Request) -> bool:
        return self._requests.get(request.code) is not request

    def _finish(self, request: _Request, result: Board | NoBoard | Failure) -> None:
        """End a request with a result."""
        del self._requests[request.code]
        if request.source_request is not None and not request.source_request.called:
            request.source_request.cancel()  # the response has arrived at another node
        if isinstance(result, Board) and not request.waiting:
            for on_board in self._listeners:
                on_board(result)
        self._resolve(request, result)

    def _resolve(self, request: _Request, result: Board | NoBoard | Failure) -> None:
        """Give the callers of a request its result."""
        waiting, request.waiting = request.waiting, {}
        for caller in waiting:
            self._count(request)
            if isinstance(result, NoBoard):
                caller.errback(result)
            else:
                caller.callback(result)

    def _count(self, request: _Request) -> None:
        self._boards.status.results[self._boards.module, _origin(request)] += 1


def _origin(request: _Request) -> ShareResult:
    """Return where a result came from. A request to the source counts, wherever its response arrived."""
    if request.source_request is not None:
        return "alone" if request.has_engine_failed else "asked"
    return "waited" if request.has_waited else "shared"


def _stopping() -> SourceSilent:
    return SourceSilent("the server is stopping")


def _outcome(failure: Failure) -> Outcome:
    """Return how a request has failed: another node's attempt is useful only if the gateway was not reached."""
    if failure.check(SourceBroken):
        return "broken"
    return "silent" if failure.check(SourceSilent) else "unreachable"
