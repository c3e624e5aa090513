"""The clock of the system, set back under a reactor that sleeps."""

import time

import pytest_twisted
from twisted.internet.defer import Deferred

from govi_server.runtime.clock import ClockWatch
from tests.integration.conftest import reactor, until


@pytest_twisted.ensureDeferred
async def test_set_back() -> None:
    """What was to come in a second before the clock was set back by an hour does not come an hour late."""
    ahead = 0.0
    watch = ClockWatch(reactor, lambda: time.monotonic() + ahead, every=0.01)
    watch.startService()
    came: Deferred[None] = Deferred()
    call = reactor.callLater(3601, came.callback, None)
    other = reactor.callLater(10, came.errback, AssertionError("what was scheduled since was brought along"))
    ahead = 3600.0  # as it looks when the other clock is set back
    await until(lambda: call.getTime() - reactor.seconds() < 2)
    await came
    watch.stopService()
    other.cancel()
