"""Requests that wait while a snapshot is restored."""

from collections.abc import Callable, Collection
from contextlib import suppress

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from govi_server.runtime.cooperative import CooperativeRunner

MAX_WAIT_SECONDS = 8.0
"""How long a request waits. Connections without a response are closed after 13 s."""


class Restoration:
    """Lets the requests of stops wait of which nothing is known yet: a large snapshot takes half a minute.

    has_data: returns whether departures of a stop are known.
    """

    def __init__(self, clock: IReactorTime, runner: CooperativeRunner, has_data: Callable[[str], bool]) -> None:
        self._clock = clock
        self._runner = runner
        self._has_data = has_data
        self.is_running = False
        self._waiters: dict[Deferred[None], None] = {}

    def begin(self) -> None:
        """Let requests wait from now on."""
        self.is_running = True

    def end(self) -> None:
        """Let no more requests wait."""
        self.is_running = False
        self._runner.resume(self._waiters, None)

    async def wait(self, codes: Collection[str]) -> None:
        """Wait until the snapshot is restored if nothing is known of one of these stops, or for MAX_WAIT_SECONDS."""
        if not self.is_running or all(map(self._has_data, codes)):
            return
        waiter: Deferred[None] = Deferred(lambda cancelled: self._waiters.pop(cancelled, None))
        self._waiters[waiter] = None
        try:
            with suppress(TimeoutError):
                await waiter.addTimeout(MAX_WAIT_SECONDS, self._clock)
        finally:
            if not waiter.called:  # the caller does not wait any more (CooperativeRunner.result_now())
                waiter.addErrback(lambda failure: None)
                waiter.cancel()
