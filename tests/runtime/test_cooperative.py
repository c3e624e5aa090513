"""Cooperative work in slices."""

from collections.abc import Generator

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.cooperative import SLICE_SECONDS, CooperativeRunner, run_now


class TurnClock(Clock):
    """A clock that makes calls without a delay in the next turn, as the reactor does."""

    def turn(self, turns: int = 1) -> None:
        """Make the calls that are due, but not those that they schedule."""
        for _ in range(turns):
            due = [call for call in self.calls if call.getTime() <= self.seconds()]
            for call in due:
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)


class CooperativeRunnerTests(SynchronousTestCase):
    """Work whose steps each last some time."""

    def setUp(self) -> None:
        self.clock = TurnClock()
        self.runner = CooperativeRunner(self.clock)
        self.done: list[str] = []

    def work(self, name: str, steps: int, step_seconds: float = SLICE_SECONDS) -> Generator[None, None, str]:
        for _ in range(steps):
            self.clock.rightNow += step_seconds
            self.done.append(name)
            yield
        return name

    def begin(self, name: str, steps: int, step_seconds: float = SLICE_SECONDS) -> Deferred[str]:
        return Deferred.fromCoroutine(self.runner.run(self.work(name, steps, step_seconds)))

    def test_short_work_is_done_immediately(self) -> None:
        """Work that fits into a slice is done immediately."""
        self.assertEqual(self.successResultOf(self.begin("a", 10, SLICE_SECONDS / 20)), "a")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_long_work_yields(self) -> None:
        """Longer work yields after each slice, and later work does not overtake it."""
        results = [self.begin(name, 3) for name in "ab"]
        self.assertEqual(self.done, ["a"])
        for n in range(1, 7):
            self.assertLessEqual(len(self.done), n)
            self.clock.turn()
        self.clock.turn(4)
        self.assertEqual([self.successResultOf(result) for result in results], ["a", "b"])
        self.assertEqual(sorted(self.done), ["a"] * 3 + ["b"] * 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled_work_stops(self) -> None:
        """Cancelled work stops."""
        result = self.begin("a", 9)
        self.clock.turn()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        done = len(self.done)
        self.clock.turn(10)
        self.assertEqual((len(self.done), self.clock.getDelayedCalls()), (done, []))
        self.assertEqual(self.successResultOf(self.begin("b", 1, 0)), "b")

    def test_failure_is_the_result(self) -> None:
        """An exception of the work, in the first slice or later, is the failure of its result."""

        def fail_after(steps: int) -> Generator[None, None, str]:
            yield from self.work("a", steps)
            raise ValueError

        for steps in (0, 3):
            result = Deferred.fromCoroutine(self.runner.run(fail_after(steps)))
            self.clock.turn(5)
            self.failureResultOf(result, ValueError)
        self.assertEqual(self.successResultOf(self.begin("b", 1, 0)), "b")

    def test_run_now_does_not_pause(self) -> None:
        """run_now() does all work without a pause."""
        self.assertEqual(run_now(self.work("a", 3)), "a")
