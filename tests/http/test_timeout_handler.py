"""Deadlines of many connections."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.state import TimeoutHandler


class TimeoutHandlerTests(SynchronousTestCase):
    """Deadlines of many connections."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[tuple[float, str]] = []
        self.timeouts = TimeoutHandler(self.clock, 13, self._expire)

    def _expire(self, connection: str) -> None:
        self.expired.append((self.clock.seconds(), connection))

    def start(self, connection: str) -> None:
        self.timeouts.start(connection)

    def stop(self, connection: str) -> None:
        self.timeouts.stop(connection)

    def test_deadlines_expire_in_order(self) -> None:
        """Each deadline expires at its own time."""
        for connection in "abc":
            self.start(connection)
            self.clock.advance(1)
        self.clock.pump([1] * 20)
        self.assertEqual(self.expired, [(13, "a"), (14, "b"), (15, "c")])

    def test_stopped_deadline_does_not_expire(self) -> None:
        """A stopped deadline does not expire; the others do."""
        for connection in "abc":
            self.start(connection)
        self.stop("a")
        self.stop("b")
        self.stop("unknown")
        self.clock.advance(13)
        self.assertEqual(self.expired, [(13, "c")])

    def test_restarted_deadline_expires_later(self) -> None:
        """A restarted deadline counts from its restart."""
        self.start("a")
        self.clock.advance(10)
        self.start("a")
        self.clock.advance(12)
        self.assertEqual(self.expired, [])
        self.clock.advance(1)
        self.assertEqual(self.expired, [(23, "a")])

    def test_single_delayed_call(self) -> None:
        """A single call is scheduled for any number of connections, and none after all have expired."""
        for connection in range(1000):
            self.start(str(connection))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(13)
        self.assertEqual(len(self.expired), 1000)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_clock_set_back(self) -> None:
        """Deadlines started before and after the clock is set back expire in time, once ClockWatch has moved them."""
        self.start("a")
        self.clock.advance(10)
        self.clock.rightNow -= 3600
        self.start("b")
        for call in self.clock.getDelayedCalls():
            call.delay(-3600)
        self.clock.advance(3)
        self.assertEqual([connection for _, connection in self.expired], ["a"])
        self.clock.advance(10)
        self.assertEqual([connection for _, connection in self.expired], ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failing_callback_does_not_affect_others(self) -> None:
        """If the callback of a deadline fails, the others still expire."""

        def fail(connection: str) -> None:
            raise ZeroDivisionError(connection)

        failing = TimeoutHandler(self.clock, 13, fail)
        for _ in range(2):
            for connection in "ab":
                failing.start(connection)
            self.clock.advance(13)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_callback_may_start_deadlines(self) -> None:
        """The callback of a deadline may start deadlines."""
        timeouts = TimeoutHandler[str](self.clock, 60, lambda connection: timeouts.start(connection))
        timeouts.start("a")
        for _ in range(3):
            self.clock.advance(60)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        timeouts.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
