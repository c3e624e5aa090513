"""The server: its documented names, and draining."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server import server
from govi_server.http.state import MAX_EXPIRED_IN_TURN
from tests.client import WireTestCase


class DocumentedNamesTests(SynchronousTestCase):
    """The documented interface."""

    def test_documented_names_are_importable(self) -> None:
        """The documented classes have their documented import path."""
        for name in ("Server", "Connection", "TimeoutHandler"):
            self.assertTrue(isinstance(getattr(server, name), type), name)


class DrainTests(WireTestCase):
    """Draining: requests in flight are finished."""

    def test_draining_without_connections(self) -> None:
        """Without connections draining finishes immediately."""
        self.successResultOf(self.server.drain())

    def test_idle_connections_close(self) -> None:
        """Connections without a request are closed after a second: new ones, and those between requests."""
        new, idle = self.client(), self.client()
        idle.get("/parrot/text/a")
        idle.received()
        drained = self.server.drain()
        self.assertFalse(new.closed or idle.closed)
        self.clock.advance(1)
        for client in (new, idle):
            self.assertTrue(client.closed)
            self.assertEqual(client.received(), b"")
        self.assertNoResult(drained)
        new.leave()
        idle.leave()
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_requests_on_their_way_are_answered(self) -> None:
        """The first request of an accepted connection, and the next of an idle one, are answered shortly after."""
        new, idle = self.client(), self.client()
        idle.get("/parrot/text/a")
        idle.received()
        self.server.drain()
        self.clock.advance(0.5)
        for client in (new, idle):
            client.get("/parrot/text/b")
            response = client.response()
            self.assertEqual((response.body, response.headers["Connection"]), (b"b", "close"))
            self.assertTrue(client.closed)

    def test_requests_in_flight_finish(self) -> None:
        """A request in flight gets its response with Connection: close; requests after it get no response."""
        client = self.client()
        client.get("/parrot/defer")
        client.get("/parrot/text/b")
        drained = self.server.drain()
        self.assertFalse(client.closed)
        self.parrot.waiting.pop().callback("a")
        response = client.response()
        self.assertEqual((response.body, response.headers["Connection"]), (b"a", "close"))
        client.leave()
        self.successResultOf(drained)

    def test_lingering_connection_is_unaffected(self) -> None:
        """Draining does not affect a lingering connection or its recorded end."""
        client = self.client()
        self.clock.advance(13)
        drained = self.server.drain()
        client.leave()
        self.successResultOf(drained)
        self.assertEqual(self.statistics[0].end, "timeout")

    def test_partial_request_is_completed(self) -> None:
        """The rest of a partially received request is awaited, and it gets its response."""
        client = self.client()
        client.send(b"GET /parrot/text/a HTT")
        self.server.drain()
        client.send(b"P/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(client.response().body, b"a")
        self.assertTrue(client.closed)

    def test_connections_end_in_several_turns(self) -> None:
        """Many connections are not all ended in the same turn of the reactor."""
        clients = [self.client() for _ in range(3 * MAX_EXPIRED_IN_TURN)]
        drained = self.server.drain()
        self.clock.advance(0)
        self.clock.rightNow += 1
        most = 0
        while not all(client.closed for client in clients):
            before = sum(client.closed for client in clients)
            call = self.clock.calls.pop(0)
            call.func(*call.args, **call.kw)
            most = max(most, sum(client.closed for client in clients) - before)
        self.assertEqual(most, MAX_EXPIRED_IN_TURN)
        for client in clients:
            client.leave()
        self.successResultOf(drained)

    def test_draining_is_bounded(self) -> None:
        """After 13 s a request in flight gets its 406, and connections that remain open are aborted."""
        client = self.client()
        self.clock.advance(1)
        client.get("/parrot/defer")
        lingering = self.client()
        drained = self.server.drain()
        self.clock.advance(1)
        self.assertTrue(lingering.closed)
        self.clock.pump([11, 1])
        self.assertEqual(client.response().status, 406)
        self.clock.advance(2)
        self.assertTrue(client.transport.disconnected)
        self.assertTrue(lingering.transport.disconnected)
        client.leave()
        lingering.leave()
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])
