"""Deadlines, and the end of a server."""

from tests.client import WireTestCase


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
