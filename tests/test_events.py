"""/events: boards as they change, and what a stream is to its connection."""

from collections.abc import Callable
from typing import Any, cast
from unittest import mock

from twisted.internet.task import Cooperator

from govi_server.modules.events import BEAT_EVERY, LOOK_EVERY, MAKE_EVERY, Events
from govi_server.modules.signs import FeedSigns
from govi_server.pages import board
from tests import feed as kv
from tests.client import Client
from tests.doubles import take
from tests.test_kv55_live import CODE, LiveTestCase, row


class EventsTests(LiveTestCase):
    """The module behind a server, on a stepped clock."""

    def setUp(self) -> None:
        super().setUp()
        self.up()
        cooperator = Cooperator(lambda: lambda: False, cast(Any, self._soon))
        self.events = Events(FeedSigns(self.feed), self.clock, cooperator)
        self.events.setServiceParent(self.modules)
        self.events.startService()
        self.addCleanup(self.events.stopService)
        take(self.feed, kv.passtimes(row("1", 5)))

    def _soon(self, call: Callable[[], object]) -> object:
        return self.clock.callLater(0, call)

    def listen(self, path: str = f"/events/{CODE}", **headers: str) -> Client:
        client = self.client()
        client.get(path, **headers)
        return client

    def heard(self, client: Client) -> list[str]:
        """List the names of the events that came since this was last asked."""
        lines = client.received().decode().splitlines()
        return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]

    def test_begin(self) -> None:
        """A stream begins with when to come back, and the board."""
        text = self.listen().received().decode()
        self.assertIn("Content-Type: text/event-stream", text)
        self.assertIn("Connection: close", text)
        self.assertNotIn("Content-Length", text)
        self.assertRegex(text, r"\r\n\r\nretry: \d{4}\n\nid: \w+\nevent: board\ndata: <time ")

    def test_change(self) -> None:
        """A change is told to all at the next look, rendered once; nothing new is nothing told."""
        clients = [self.listen() for _ in range(3)]
        with mock.patch.object(board, "fragment", wraps=board.fragment) as fragment:
            for client in clients:
                self.heard(client)
            self.clock.advance(LOOK_EVERY)
            self.assertEqual([self.heard(client) for client in clients], [[], [], []])
            take(self.feed, kv.passtimes(row("1", 5, ExpectedDepartureTime="01:09:00")))
            self.clock.advance(LOOK_EVERY)
            self.assertEqual([self.heard(client) for client in clients], [["board"]] * 3)
        self.assertEqual(fragment.call_count, 1)

    def test_leaves_by_itself(self) -> None:
        """A departure that has left is told without a word of the feed."""
        client = self.listen()
        self.heard(client)
        heard = []
        for _ in range(int((7 * 60 + MAKE_EVERY) / LOOK_EVERY)):
            self.clock.advance(LOOK_EVERY)
            heard += self.heard(client)
        self.assertIn("board", heard)

    def test_beat(self) -> None:
        """A silence is broken by a sign of life; a stream has no deadline."""
        client = self.listen()
        self.heard(client)
        self.clock.pump([LOOK_EVERY] * int(BEAT_EVERY / LOOK_EVERY + 1))
        self.assertEqual(self.heard(client), ["beat"])
        self.assertEqual((client.closed, len(self.server.streams)), (False, 1))

    def test_last_event_id(self) -> None:
        """Who has the board that there is does not get it again."""
        text = self.listen().received().decode()
        (number,) = [line.removeprefix("id: ") for line in text.splitlines() if line.startswith("id: ")]
        self.assertEqual(self.heard(self.listen(Last_Event_ID=number)), [])
        self.assertEqual(self.heard(self.listen(Last_Event_ID="another")), ["board"])

    def test_behind(self) -> None:
        """Who does not take his events gets none in half, and the newest when he does; else his time is over."""
        client = self.listen()
        self.heard(client)
        client.handler.pauseProducing()
        take(self.feed, kv.passtimes(row("1", 5, ExpectedDepartureTime="01:09:00")))
        self.clock.advance(LOOK_EVERY)
        self.assertEqual(client.received(), b"")
        client.handler.resumeProducing()
        self.clock.advance(LOOK_EVERY)
        self.assertEqual(self.heard(client), ["board"])
        self.clock.advance(20)
        self.assertFalse(client.closed)
        client.handler.pauseProducing()
        self.clock.advance(13)
        self.assertTrue(client.closed)

    def test_leaving(self) -> None:
        """Who leaves, or closes his side, is let go, and what nobody listens to is not looked at."""
        left, closed = self.listen(), self.listen()
        left.leave()
        closed.half_close()
        self.assertTrue(closed.closed)
        closed.leave()
        self.clock.advance(LOOK_EVERY)
        self.assertEqual((self.events.channels, self.server.streams, self.server.connections), ({}, set(), {}))
        (request,) = self.statistics[0].requests
        self.assertEqual((request.path, request.status, request.send), (f"/events/{CODE}", 200, None))
        self.assertGreater(request.bytes, 100)

    def test_drain(self) -> None:
        """When the server ends it says farewell, and closes."""
        client = self.listen()
        self.heard(client)
        drained = self.server.drain()
        self.assertEqual(self.heard(client), ["bye"])
        self.assertTrue(client.closed)
        client.leave()
        self.successResultOf(drained)

    def test_json(self) -> None:
        """The data may be JSON; each form, language and choice has a channel of its own."""
        for query in ("as=json", "as=json&limit=1", "lang=en", "lang=fr"):
            self.assertEqual(self.heard(self.listen(f"/events/{CODE}?{query}")), ["board"])
        self.assertEqual(len(self.events.channels), 4)

    def test_wrong(self) -> None:
        """What is no stop is 404, what is no parameter 400; HEAD has no stream."""
        for path, status in (("/events/x", 404), ("/events/", 404), (f"/events/{CODE}?as=xml", 400)):
            self.assertEqual(self.listen(path).answer().status, status, path)
        client = self.client()
        client.send(f"HEAD /events/{CODE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.assertEqual((client.answer("HEAD").status, len(self.server.streams)), (200, 0))
