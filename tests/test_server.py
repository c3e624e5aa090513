"""Deadlines, and the end of a server."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.server import TimeoutHandler
from tests.client import WireTestCase


class TimeoutHandlerTests(SynchronousTestCase):
    """Deadlines of many connections."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[tuple[float, str]] = []
        self.timeouts = TimeoutHandler(self.clock, 13, self._expire)  # type: ignore[arg-type]

    def _expire(self, connection: str) -> None:  # to the deadlines a connection is but a key
        self.expired.append((self.clock.seconds(), connection))

    def start(self, connection: str) -> None:
        self.timeouts.start(connection)  # type: ignore[arg-type]

    def stop(self, connection: str) -> None:
        self.timeouts.stop(connection)  # type: ignore[arg-type]

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
        failing = TimeoutHandler(self.clock, 13, lambda connection: self.expired.append(1 / 0))  # type: ignore[arg-type]
        for _ in range(2):
            for connection in "ab":
                failing.start(connection)  # type: ignore[arg-type]
            self.clock.advance(13)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_expiring_sets_another(self) -> None:
        """What is called at the deadline may set deadlines itself."""
        timeouts = TimeoutHandler(self.clock, 60, lambda connection: timeouts.start(connection))
        timeouts.start("a")  # type: ignore[arg-type]
        for _ in range(3):
            self.clock.advance(60)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        timeouts.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class DrainTests(WireTestCase):
    """The end of a server."""

    def test_nobody(self) -> None:
        """With no connections it is over at once."""
        self.successResultOf(self.server.drain())

    def test_idle(self) -> None:
        """Connections with nothing in flight are closed at once: silent ones, and those between requests."""
        silent, between = self.client(), self.client()
        between.get("/parrot/says/a")
        between.received()
        drained = self.server.drain()
        for client in (silent, between):
            self.assertTrue(client.closed)
            self.assertEqual(client.received(), b"")
        self.assertNoResult(drained)
        silent.leave()
        between.leave()
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_in_flight(self) -> None:
        """A request in flight is answered, with Connection: close, and what was sent behind it is not."""
        client = self.client()
        client.get("/parrot/waits")
        client.get("/parrot/says/b")
        drained = self.server.drain()
        self.assertFalse(client.closed)
        self.parrot.waiting.pop().callback("a")
        answer = client.answer()
        self.assertEqual((answer.body, answer.headers["Connection"]), (b"a", "close"))
        client.leave()
        self.successResultOf(drained)

    def test_lingering(self) -> None:
        """A connection that was closed already is left to it, and stays who ended it."""
        client = self.client()
        self.clock.advance(13)
        drained = self.server.drain()
        client.leave()
        self.successResultOf(drained)
        self.assertEqual(self.statistics[0].end, "timeout")

    def test_half_a_head(self) -> None:
        """A request that has begun to come is waited for."""
        client = self.client()
        client.send(b"GET /parrot/says/a HTT")
        self.server.drain()
        client.send(b"P/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(client.answer().body, b"a")
        self.assertTrue(client.closed)

    def test_limit(self) -> None:
        """After 13 s a request in flight gets its 406, and a client that stays is dropped."""
        client = self.client()
        self.clock.advance(1)
        client.get("/parrot/waits")
        lingering = self.client()
        drained = self.server.drain()
        self.assertTrue(lingering.closed)
        self.clock.pump([12, 1])
        self.assertEqual(client.answer().status, 406)
        self.clock.advance(2)
        self.assertTrue(client.transport.disconnected)
        self.assertTrue(lingering.transport.disconnected)
        client.leave()
        lingering.leave()
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])
