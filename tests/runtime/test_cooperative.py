"""Cooperative work in slices."""

from collections.abc import Generator

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.cooperative import (
    IMMEDIATE_SECONDS,
    SLICE_SECONDS,
    CooperativeRunner,
    is_background,
    map_in_steps,
    run_now,
    sort_in_steps,
)


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

    def test_work_in_one_turn_is_limited(self) -> None:
        """Of many requests in one turn, only as many are worked on immediately as fit into one slice."""
        results = [self.begin(str(n), 4, SLICE_SECONDS / 5) for n in range(20)]
        self.assertEqual(len(self.done), 5)
        for n in range(1, 30):
            self.clock.turn()
            self.assertLessEqual(len(self.done), 4 + n * 6)
        self.assertEqual([self.successResultOf(result) for result in results], [str(n) for n in range(20)])

    def test_work_takes_turns(self) -> None:
        """Short work does not wait for the end of long work that began earlier."""
        long = self.begin("long", 1000, SLICE_SECONDS / 4)
        short = self.begin("short", 2, SLICE_SECONDS / 4)
        self.clock.turn(3)
        self.assertEqual(self.successResultOf(short), "short")
        self.assertNoResult(long)
        long.cancel()
        self.failureResultOf(long, CancelledError)

    def test_long_work_leaves_time_to_short_work(self) -> None:
        """While short work waits, long work of this runner or another one gets a fifth of the time; otherwise all."""
        other = CooperativeRunner(self.clock, self.runner)
        for runner in (self.runner, other):
            self.done.clear()
            long = runner.cooperator.cooperate(self.work("long", 10_000))
            self.clock.turn(100)
            self.assertGreaterEqual(len(self.done), 100)
            self.done.clear()
            short = self.begin("short", 100)
            self.clock.turn(101)
            self.successResultOf(short)
            self.assertEqual(self.done.count("short"), 100)
            self.assertAlmostEqual(self.done.count("long"), 25, delta=2)
            long.stop()

    def test_little_work_is_done_at_once(self) -> None:
        """Little work is done at once, and longer work is not: it is left to run()."""
        self.assertEqual(self.runner.result_now(self.runner.run(self.work("a", 3, SLICE_SECONDS / 4))), "a")
        self.done.clear()
        self.assertIsNone(self.runner.result_now(self.runner.run(self.work("b", 1000, SLICE_SECONDS / 4))))
        self.assertLessEqual(len(self.done) * SLICE_SECONDS / 4, IMMEDIATE_SECONDS)
        self.clock.turn()
        self.assertEqual(self.runner.result_now(self.runner.run(self.work("c", 3, SLICE_SECONDS / 4))), "c")

    def test_work_done_at_once_in_one_turn_is_limited(self) -> None:
        """Of many requests with little work in one turn, as many are worked on at once as fit into its limit."""

        def results() -> list[str | None]:
            steps = (self.work("a", 1, 0.3 * IMMEDIATE_SECONDS) for _ in range(20))
            return [self.runner.result_now(self.runner.run(work)) for work in steps]

        for _ in range(3):
            self.assertEqual(results(), ["a"] * 3 + [None] * 17)
            self.clock.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shared_work_is_not_awaited_by_work_done_at_once(self) -> None:
        """Work that others wait for is cancelled with them, although its result was wanted at once meanwhile."""

        async def shared() -> str:
            return await self.runner.run_shared("key", lambda: self.work("a", 9))

        waiting = Deferred.fromCoroutine(shared())
        self.assertIsNone(self.runner.result_now(shared()))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        done = len(self.done)
        self.clock.turn(20)
        self.assertEqual(len(self.done), done)

    def test_requests_do_not_wait_for_background_work(self) -> None:
        """However much background work there is, other work is done immediately."""

        async def run_in_background(name: str) -> str:
            is_background.set(True)
            return await self.runner.run(self.work(name, 2))

        background = [Deferred.fromCoroutine(run_in_background(str(n))) for n in range(100)]
        self.clock.turn(2)
        self.clock.rightNow += SLICE_SECONDS
        self.assertEqual(self.successResultOf(self.begin("request", 1, SLICE_SECONDS / 2)), "request")
        self.clock.turn(200)
        self.assertEqual([self.successResultOf(result) for result in background], [str(n) for n in range(100)])

    def test_shared_work_is_done_once(self) -> None:
        """Callers with the same key at the same time share work; cancelled ones do not stop it for the others."""

        def begin() -> Deferred[str]:
            return Deferred.fromCoroutine(self.runner.run_shared("key", lambda: self.work("a", 5)))

        results = [begin() for _ in range(3)]
        results[0].cancel()
        self.failureResultOf(results[0], CancelledError)
        self.clock.turn(10)
        self.assertEqual([self.successResultOf(result) for result in results[1:]], ["a", "a"])
        self.assertEqual(len(self.done), 5)
        again = begin()
        self.clock.turn(10)
        self.assertEqual((self.successResultOf(again), len(self.done)), ("a", 10))

    def test_abandoned_shared_work_stops(self) -> None:
        """Shared work stops when all of its callers are cancelled."""
        results = [Deferred.fromCoroutine(self.runner.run_shared("key", lambda: self.work("a", 9))) for _ in range(2)]
        for result in results:
            result.cancel()
            self.failureResultOf(result, CancelledError)
        done = len(self.done)
        self.clock.turn(10)
        self.assertEqual((len(self.done), self.clock.getDelayedCalls()), (done, []))

    def test_waiters_are_resumed_in_slices(self) -> None:
        """A thousand waiters are resumed in several turns, except those that are cancelled meanwhile."""
        resumed: list[int] = []

        def resume(result: str, n: int) -> None:
            self.clock.rightNow += SLICE_SECONDS / 10
            resumed.append(n)

        waiters: list[Deferred[str]] = [Deferred() for _ in range(1000)]
        for n, waiter in enumerate(waiters):
            waiter.addCallbacks(resume, lambda failure: None, callbackArgs=(n,))
        self.runner.resume(dict.fromkeys(waiters), "a")
        self.assertLess(len(resumed), 20)
        waiters[-1].cancel()
        self.clock.turn(200)
        self.assertEqual(resumed, [*range(999)])

    def test_sorting_and_mapping_in_steps(self) -> None:
        """Items are sorted and mapped as by sorted() and map(), in steps."""
        items = [n * 7919 % 10_007 for n in range(10_007)]
        for key in (None, lambda n: -n):
            steps = sort_in_steps(items, key)
            self.assertGreater(sum(1 for _ in sort_in_steps(items, key)), 50)
            self.assertEqual(run_now(steps), sorted(items, key=key))
        self.assertEqual(run_now(map_in_steps(str, items)), [*map(str, items)])
        self.assertEqual(sum(1 for _ in map_in_steps(str, items, 1000)), 11)
