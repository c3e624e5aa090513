"""The watch over the reactor's turns."""

import gc
import sys
from collections.abc import Callable, Iterator
from unittest import mock

from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime import turn_watch
from govi_server.runtime.cooperative import named, run_now, work_names
from govi_server.runtime.turn_watch import MAX_LOGGED, SLOW_TURN_SECONDS, TurnWatch, describe


class FakeReactor:
    """A reactor whose turns use the processor time that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.cpu = 0.0
        self.work: Callable[[], object] = lambda: None

    def seconds(self) -> float:
        return self.now

    def runUntilCurrent(self) -> None:
        self.work()


class TurnWatchTests(SynchronousTestCase):
    """Turns, their histogram, and log lines about slow ones."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.watch = TurnWatch(self.reactor, lambda: self.reactor.cpu)
        self.observer = EventLoggingObserver()
        globalLogPublisher.addObserver(self.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.observer)
        self.watch.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        if self.watch.running:
            self.watch.stopService()

    def turn(self, seconds: float, work: Callable[[], object] = lambda: None) -> None:
        """Make a turn of this much processor time, and begin the next one."""
        self.reactor.work = work
        self.reactor.runUntilCurrent()
        self.reactor.cpu += seconds
        self.reactor.work = lambda: None
        self.reactor.runUntilCurrent()

    def lines(self) -> list[str]:
        return [event["work"] for event in self.observer if event["log_namespace"].endswith("TurnWatch")]

    def test_objects_are_collected_after_a_turn_that_works(self) -> None:
        """After a turn of more than a millisecond, and only then, the youngest generation is collected.

        After a number of these collections, the middle generation is collected as well, as the interpreter does.
        """
        collected: list[int] = []

        def observe(phase: str, info: dict[str, int]) -> None:
            if phase == "start":
                collected.append(info["generation"])

        gc.collect()
        gc.disable()  # only what the watch collects
        self.addCleanup(gc.enable)
        gc.callbacks.append(observe)
        self.addCleanup(gc.callbacks.remove, observe)
        self.turn(0.0005)
        self.assertEqual(collected, [])
        threshold = gc.get_threshold()[1]
        for _ in range(threshold + 2):
            self.turn(0.002)
        self.assertEqual(collected, [0] * (threshold + 1) + [1])

    def test_slow_turn_is_logged_once(self) -> None:
        """A slow turn is counted and logged once with its work; others are only counted."""
        self.turn(SLOW_TURN_SECONDS * 0.99)
        self.assertEqual((self.watch.slow_turns, self.lines()), (0, []))
        self.turn(SLOW_TURN_SECONDS, lambda: setattr(self.watch, "_sample", (self.watch.turns, "sums")))
        self.turn(0.001)
        self.assertEqual((self.watch.slow_turns, self.lines()), (1, ["sums"]))

    def test_work_of_an_earlier_turn_is_not_named(self) -> None:
        """The work of an earlier turn does not explain a slow one."""
        self.watch._sample = (self.watch.turns, "sums")
        self.turn(0.001)
        self.turn(1.0)
        self.assertEqual(self.lines(), ["unknown work"])

    def test_garbage_collection_is_named(self) -> None:
        """A full collection that takes most of a turn is named."""

        def collect() -> None:
            for callback in gc.callbacks:
                callback("start", {"generation": 2})
            self.reactor.cpu += 0.2
            for callback in gc.callbacks:
                callback("stop", {"generation": 2})

        self.turn(0.1, collect)
        self.assertEqual(self.lines(), ["garbage collection"])

    def test_log_lines_are_bounded(self) -> None:
        """At most MAX_LOGGED slow turns are logged in a minute."""
        for _ in range(2):
            for _ in range(MAX_LOGGED + 5):
                self.turn(0.2)
            self.reactor.now += 60
        self.assertEqual((self.watch.slow_turns, len(self.lines())), (2 * MAX_LOGGED + 10, 2 * MAX_LOGGED))

    def test_histogram_has_every_turn(self) -> None:
        """The histogram is cumulative, and counts every turn."""
        for seconds in (0.0, 0.0005, 0.003, 0.2, 60.0):
            self.turn(seconds)
        counts = dict(self.watch.histogram)
        self.assertEqual(counts["+Inf"], self.watch.turns)
        below = self.watch.turns - counts["0.001"]
        self.assertEqual((below, counts["+Inf"] - counts["10.0"], counts["0.1"] - counts["0.0025"]), (3, 1, 1))
        self.assertAlmostEqual(self.watch.seconds, 60.2035)

    def test_reactor_is_restored(self) -> None:
        """When the service stops, the reactor and the garbage collector are as before."""
        self.watch.stopService()
        self.assertEqual(self.reactor.runUntilCurrent, FakeReactor.runUntilCurrent.__get__(self.reactor))
        self.assertNotIn(self.watch._on_collection, gc.callbacks)


class DescribeTests(SynchronousTestCase):
    """Names of what runs."""

    def test_work_is_printable_and_bounded(self) -> None:
        """The work is named, escaped and truncated."""
        described: list[str] = []

        def steps() -> Iterator[None]:
            described.append(describe(sys._getframe()))
            yield

        steps.__code__ = steps.__code__.replace(co_filename=turn_watch.__file__)
        run_now(named(steps(), "/kv55/\x1b]0;\x9b\n" + "5" * 1000))
        (text,) = described
        self.assertTrue(text.isprintable(), text)
        self.assertLess(len(text), 400)
        self.assertIn("for '/kv55/\\x1b]0;\\x9b\\n555", text)
        self.assertIn("(runtime/turn_watch.py:", text)
        self.assertEqual(work_names, {})

    def test_variables_are_not_read(self) -> None:
        """The variables of another thread's frames are not read, which would crash the interpreter."""
        frame = mock.Mock(spec=["f_code", "f_lineno", "f_back"], f_code=describe.__code__, f_lineno=5, f_back=None)
        self.assertEqual(describe(frame), "describe (runtime/turn_watch.py:5)")

    def test_other_libraries(self) -> None:
        """Without a frame of the program, no function is named."""
        self.assertEqual(describe(None), "another library")
