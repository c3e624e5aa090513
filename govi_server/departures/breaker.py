"""A circuit breaker that stops requests to an unreachable source."""

from collections.abc import Callable
from typing import Literal

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.departures.board import Board
from govi_server.departures.source import IAcknowledgingSource, IDepartureSource, SourceUnreachable
from govi_server.runtime.text import pluralize
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.settings import BreakerSettings

State = Literal["closed", "open", "half-open"]


@implementer(IDepartureSource)
class CircuitBreaker:
    """Wraps a source; while that is unreachable, requests fail immediately.

    A source counts as reachable as soon as it accepts a request, even if it does not respond: the stop may not exist,
    and requests for nonexistent stops must not affect others. name: the source's name in the log. The source logs its
    own recovery.
    """

    log = Logger()

    def __init__(
        self,
        source: IAcknowledgingSource,
        clock: IReactorTime,
        limits: BreakerSettings = BreakerSettings(),
        name: str = "Source",
    ) -> None:
        self._source = source
        self._clock = clock
        self._limits = limits
        self._name = name
        self.incidents = ThrottledWarnings(self.log, clock)
        self._failures = 0
        self._last_error = ""
        self._open_until = 0.0
        self.state: State = "closed"
        source.listen_accepted(self._close)

    @property
    def is_reachable(self) -> bool:
        """Whether the source accepted the last request, if there was one."""
        return not self._failures

    def listen(self, on_board: Callable[[Board], object]) -> None:
        """Pass the callback on to the source."""
        self._source.listen(on_board)

    def board(self, code: str) -> Deferred[Board]:
        """Request a board from the source; fails with SourceUnreachable while the breaker is open."""
        is_probe = self.state == "open" and not 0 < self._open_until - self._clock.seconds() <= self._limits.pause
        if is_probe:
            self.state = "half-open"
        elif self.state != "closed":
            return fail(SourceUnreachable(self._last_error))
        return self._source.board(code).addCallbacks(self._succeeded, self._failed, errbackArgs=(is_probe,))

    def _succeeded(self, board: Board) -> Board:
        self._close()
        return board

    def _close(self) -> None:
        self._failures = 0
        self.state = "closed"

    def _failed(self, failure: Failure, is_probe: bool) -> Failure:
        if not failure.check(SourceUnreachable):  # or cancelled since the board has arrived at another node
            self._close()
            return failure
        self._failures += 1
        self._last_error = failure.getErrorMessage()
        if self.state == "closed" and self._failures >= self._limits.failures:
            self.incidents.add(
                "opened",
                "{source}: circuit breaker opened after {failures}; probing every {pause:g} s ({reason})",
                source=self._name,
                failures=pluralize(self._failures, "failure"),
                pause=self._limits.pause,
                reason=self._last_error,
            )
            self._open()
        elif self.state == "half-open" and is_probe:  # not a request of before, or there would be a second probe
            self._open()
        return failure

    def _open(self) -> None:
        self.state = "open"
        self._open_until = self._clock.seconds() + self._limits.pause
