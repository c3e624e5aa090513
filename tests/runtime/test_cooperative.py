"""Long work in slices."""

from collections.abc import Generator

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.cooperative import PAUSE_SECONDS, SLICE_SECONDS, CooperativeRunner, run_now


class CooperativeRunnerTests(SynchronousTestCase):
    """Work of many, each step of which takes some time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.runner = CooperativeRunner(self.clock)
        self.done: list[str] = []

    def work(self, name: str, steps: int, takes: float = SLICE_SECONDS) -> Generator[None, None, str]:
        for _ in range(steps):
            self.clock.rightNow += takes
            self.done.append(name)
            yield
        return name

    def begin(self, name: str, steps: int, takes: float = SLICE_SECONDS) -> Deferred[str]:
        return Deferred.fromCoroutine(self.runner.run(self.work(name, steps, takes)))

    def test_short(self) -> None:
        """Work that fits into a slice is done at once."""
        self.assertEqual(self.successResultOf(self.begin("a", 10, SLICE_SECONDS / 20)), "a")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_long(self) -> None:
        """Longer work yields after each slice, and later work does not precede it."""
        begun = [self.begin(name, 3) for name in "ab"]
        self.assertEqual(self.done, ["a"])
        for n in range(1, 7):
            self.assertLessEqual(len(self.done), n)
            self.clock.advance(PAUSE_SECONDS)
        self.clock.pump([PAUSE_SECONDS] * 4)
        self.assertEqual([self.successResultOf(one) for one in begun], ["a", "b"])
        self.assertEqual(sorted(self.done), ["a"] * 3 + ["b"] * 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """Cancelled work stops."""
        waits = self.begin("a", 9)
        self.clock.advance(PAUSE_SECONDS)
        waits.cancel()
        self.failureResultOf(waits, CancelledError)
        done = len(self.done)
        self.clock.pump([PAUSE_SECONDS] * 10)
        self.assertEqual((len(self.done), self.clock.getDelayedCalls()), (done, []))
        self.assertEqual(self.successResultOf(self.begin("b", 1, 0)), "b")

    def test_fails(self) -> None:
        """A failure is that of the result, in the first slice and later."""

        def fails(steps: int) -> Generator[None, None, str]:
            yield from self.work("a", steps)
            raise ValueError

        for steps in (0, 3):
            wanted = Deferred.fromCoroutine(self.runner.run(fails(steps)))
            self.clock.pump([PAUSE_SECONDS] * 5)
            self.failureResultOf(wanted, ValueError)
        self.assertEqual(self.successResultOf(self.begin("b", 1, 0)), "b")

    def test_run_now(self) -> None:
        """Work can be done without a pause."""
        self.assertEqual(run_now(self.work("a", 3)), "a")
