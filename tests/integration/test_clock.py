"""Tests of a system clock that is set back under a sleeping reactor."""

import time

import pytest_twisted
from twisted.internet.defer import Deferred

from govi_server.runtime.clock import ClockWatch
from tests.integration.conftest import reactor, until


@pytest_twisted.ensureDeferred
async def test_clock_set_back() -> None:
    """A call that is due in a second remains so when the clock is set back by an hour."""
    ahead = 0.0
    watch = ClockWatch(reactor, lambda: time.monotonic() + ahead, every=0.01)
    watch.startService()
    fired: Deferred[None] = Deferred()
    call = reactor.callLater(3601, fired.callback, None)
    other = reactor.callLater(10, fired.errback, AssertionError("a later call was moved, too"))
    ahead = 3600.0  # as if the system clock had been set back
    await until(lambda: call.getTime() - reactor.seconds() < 2)
    await fired
    watch.stopService()
    other.cancel()
