"""Deadlines of many connections."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.timeouts import TimeoutHandler


class TimeoutHandlerTests(SynchronousTestCase):
    """Deadlines of many connections."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[tuple[float, str]] = []
        self.timeouts = TimeoutHandler(self.clock, 13, self._expire)

    def _expire(self, connection: str) -> None:  # to the deadlines a connection is but a key
        self.expired.append((self.clock.seconds(), connection))

    def start(self, connection: str) -> None:
        self.timeouts.start(connection)

    def stop(self, connection: str) -> None:
        self.timeouts.stop(connection)

    def test_order(self) -> None:
        """Each expires at its own time."""
        for connection in "abc":
            self.start(connection)
            self.clock.advance(1)
        self.clock.pump([1] * 20)
        self.assertEqual(self.expired, [(13, "a"), (14, "b"), (15, "c")])

    def test_stop(self) -> None:
        """One that is lifted does not expire, and does not keep the others from it."""
        for connection in "abc":
            self.start(connection)
        self.stop("a")
        self.stop("b")
        self.stop("nobody")
        self.clock.advance(13)
        self.assertEqual(self.expired, [(13, "c")])

    def test_start_again(self) -> None:
        """Setting it again counts from then."""
        self.start("a")
        self.clock.advance(10)
        self.start("a")
        self.clock.advance(12)
        self.assertEqual(self.expired, [])
        self.clock.advance(1)
        self.assertEqual(self.expired, [(23, "a")])

    def test_one_call(self) -> None:
        """However many connections there are, one call is scheduled, and none when all is done."""
        for connection in range(1000):
            self.start(str(connection))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(13)
        self.assertEqual(len(self.expired), 1000)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_clock_is_set_back(self) -> None:
        """After the clock was set back, what is set then expires in its time, and so does what was set before."""
        self.start("a")
        self.clock.rightNow -= 3600
        self.start("b")
        self.clock.advance(13)
        self.assertEqual(sorted(connection for _, connection in self.expired), ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_expiring_fails(self) -> None:
        """One that fails when its time is over does not keep the others from it."""

        def fail(connection: str) -> None:
            raise ZeroDivisionError(connection)

        failing = TimeoutHandler(self.clock, 13, fail)
        for _ in range(2):
            for connection in "ab":
                failing.start(connection)
            self.clock.advance(13)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_expiring_sets_another(self) -> None:
        """What is called at the deadline may set deadlines itself."""
        timeouts = TimeoutHandler[str](self.clock, 60, lambda connection: timeouts.start(connection))
        timeouts.start("a")
        for _ in range(3):
            self.clock.advance(60)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        timeouts.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
