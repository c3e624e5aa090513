"""The circuit breaker: a dead source is not asked again and again."""

from collections.abc import Callable
from typing import Literal

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.departures.board import Board
from govi_server.departures.source import IDepartureSource, SourceUnreachable
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.settings import BreakerSettings

State = Literal["closed", "open", "half-open"]


@implementer(IDepartureSource)
class CircuitBreaker:
    """A source before another one: while that one is dead, every question fails at once, as the last one did.

    Dead is a source that does not take questions. One that takes them and says nothing may not know the stop, and
    whoever asks for stops that do not exist must not shut out the others. called: the source's name in the log, which
    itself says there when it takes questions again.
    """

    log = Logger()

    def __init__(
        self,
        source: IDepartureSource,
        clock: IReactorTime,
        limits: BreakerSettings = BreakerSettings(),
        called: str = "the source",
    ) -> None:
        self._source = source
        self._clock = clock
        self._limits = limits
        self._called = called
        self.incidents = ThrottledWarnings(self.log, clock)
        self._failures = 0
        self._last = ""
        self._until = 0.0
        self.state: State = "closed"

    def listen(self, heard: Callable[[Board], object]) -> None:
        """Pass on who hears of boards that nobody waits for."""
        self._source.listen(heard)

    def board(self, code: str) -> Deferred[Board]:
        """Ask the source, unless it is dead."""
        if self.state == "open" and not 0 < self._until - self._clock.seconds() <= self._limits.pause:
            self.state = "half-open"
        elif self.state != "closed":
            return fail(SourceUnreachable(self._last))
        return self._source.board(code).addCallbacks(self._answered, self._failed)

    def _answered(self, board: Board) -> Board:
        self._close()
        return board

    def _close(self) -> None:
        self._failures = 0
        self.state = "closed"

    def _failed(self, failure: Failure) -> Failure:
        if not failure.check(SourceUnreachable):
            self._close()
            return failure
        self._failures += 1
        self._last = failure.getErrorMessage()
        if self._failures >= self._limits.failures:
            if self.state == "closed":
                self.incidents.add(
                    "opened",
                    "{source} failed {n} times in a row, now it is asked once in {pause:g} s: {reason}",
                    source=self._called,
                    n=self._failures,
                    pause=self._limits.pause,
                    reason=self._last,
                )
            self.state = "open"
            self._until = self._clock.seconds() + self._limits.pause
        return failure
