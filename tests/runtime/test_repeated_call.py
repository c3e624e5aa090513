"""Tests of govi_server.runtime.repeated_call."""

import re
from pathlib import Path

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

import govi_server
from govi_server.runtime import repeated_call
from govi_server.runtime.repeated_call import RepeatedCall

PACKAGE = Path(govi_server.__file__).parent


class RepeatedCallTests(SynchronousTestCase):
    """Calls at an interval."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.times: list[float] = []

    def call(self) -> object:
        """Record the time of a call."""
        self.times.append(self.clock.seconds())
        return None

    def start(self, now: bool = True) -> RepeatedCall:
        repeated = RepeatedCall("Work", self.clock, 10.0, lambda: self.call(), now)
        repeated.startService()
        return repeated

    def test_interval(self) -> None:
        """The first call is made at the start or after the interval; none is made after the end."""
        for now, expected in ((True, [0, 10, 20]), (False, [10, 20])):
            self.clock, self.times = Clock(), []
            repeated = self.start(now)
            self.clock.pump([10, 10])
            repeated.stopService()
            self.assertIsNone(repeated.stopService())
            self.clock.pump([10, 10])
            self.assertEqual(self.times, expected)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failure_does_not_end_calls(self) -> None:
        """A function that raises or returns a failure is called again; one line a minute has the traceback."""

        def raise_error() -> object:
            raise ZeroDivisionError

        for failing in (raise_error, lambda: fail(ZeroDivisionError())):
            self.call = failing  # type: ignore[method-assign]  # what fails
            with capturedLogs() as events:
                repeated = self.start()
                self.clock.pump([10] * 6)
            self.assertEqual(
                [formatEvent(event) for event in events],
                [
                    "Work failed; repeated in 10 s",
                    "Work failed; repeated in 10 s (and 5 more of this kind since the last such line)",
                ],
            )
            self.assertEqual({event["log_level"] for event in events}, {LogLevel.critical})
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
            del self.call
            self.times.clear()
            self.clock.pump([10] * 2)
            self.assertEqual(len(self.times), 2)
            repeated.stopService()

    def test_stopping_waits_for_the_last_call(self) -> None:
        """Stopping returns a Deferred that fires when the last call is done; its cancellation is not logged."""
        work: Deferred[None] = Deferred()
        self.call = lambda: work  # type: ignore[method-assign]  # what takes time
        ended = self.start().stopService()
        assert ended is not None
        self.assertNoResult(ended)
        work.cancel()
        self.successResultOf(ended)

    def test_only_home(self) -> None:
        """No other module repeats calls with Twisted's classes, which a failure ends for good."""
        users = {
            path.relative_to(PACKAGE).as_posix()
            for path in PACKAGE.rglob("*.py")
            if re.search(r"\b(TimerService|LoopingCall)\b", path.read_text())
        }
        self.assertEqual(users, {Path(repeated_call.__file__).relative_to(PACKAGE).as_posix()})
