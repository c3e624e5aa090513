"""/events: boards as they change, and what a stream is to its connection."""

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator

from govi_server.departures.board import Board
from govi_server.departures.cache import BoardCache
from govi_server.departures.times import read_timestamp
from govi_server.modules.display_source import CacheDisplays, FeedDisplays
from govi_server.modules.events import BEAT_EVERY, LOOK_EVERY, MAKE_EVERY, OLDER, Events
from govi_server.pages import board_page
from tests import feed as kv
from tests.client import NOW, Client
from tests.doubles import FakeSource, take
from tests.modules.test_kv55_feed import CODE, LiveTestCase, row


class EventsTests(LiveTestCase):
    """The module behind a server, on a stepped clock."""

    def setUp(self) -> None:
        super().setUp()
        self.up()
        self.at_a_time, self.pause = 10_000, 0.0
        self.cooperator = Cooperator(self._slice, cast(Any, self._soon))
        self.events = Events(FeedDisplays(self.feed), self.clock, self.cooperator)
        self.serve()
        self.say(5)

    def serve(self) -> None:
        self.events.setServiceParent(self.modules)
        self.events.startService()
        self.addCleanup(self.events.stopService)

    def say(self, minutes: int) -> None:
        """Have the feed say that the bus of 01:05 leaves so many minutes after 01:00."""
        take(self.feed, kv.passtimes(row("1", 5, ExpectedDepartureTime=f"01:{minutes:02}:00")))

    def _slice(self) -> Callable[[], bool]:
        steps = iter(range(self.at_a_time - 1))
        return lambda: next(steps, None) is None

    def _soon(self, call: Callable[[], object]) -> object:
        return self.clock.callLater(self.pause, call)

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
        with mock.patch.object(board_page, "fragment", wraps=board_page.fragment) as fragment:
            for client in clients:
                self.heard(client)
            self.clock.advance(LOOK_EVERY)
            self.assertEqual([self.heard(client) for client in clients], [[], [], []])
            self.say(9)
            self.clock.advance(LOOK_EVERY)
            self.assertEqual([self.heard(client) for client in clients], [["board"]] * 3)
        self.assertEqual(fragment.call_count, 1)

    def test_rendered_once(self) -> None:
        """A thousand listeners cost one rendering when they come, and one at every change."""
        with mock.patch.object(board_page, "fragment", wraps=board_page.fragment) as fragment:
            clients = [self.listen() for _ in range(1000)]
            self.assertEqual({(*self.heard(client),) for client in clients}, {("board",)})
            self.assertEqual(fragment.call_count, 1)
            for told in range(1, 4):
                self.say(5 + told)
                self.clock.advance(LOOK_EVERY)
                self.assertEqual({(*self.heard(client),) for client in clients}, {("board",)})
                self.assertEqual(fragment.call_count, 1 + told)

    def test_rendered_once_for_who_waited(self) -> None:
        """A thousand who wait for a gateway's board cost one question and one rendering."""
        self.modules.removeService(self.events)
        source = FakeSource()
        signs = CacheDisplays(BoardCache(source, self.clock), self.clock)
        self.events = Events(signs, self.clock, self.cooperator)
        self.serve()
        with mock.patch.object(board_page, "fragment", wraps=board_page.fragment) as fragment:
            clients = [self.listen() for _ in range(1000)]
            self.clock.advance(5)
            source.answers[0].callback(Board(CODE, (), NOW))
            self.assertEqual({(*self.heard(client),) for client in clients}, {("board",)})
        self.assertEqual((len(source.asked), fragment.call_count), (1, 1))

    def test_first_leaves(self) -> None:
        """Who joins while the board of the first listener is being made gets it, though that one leaves."""

        class Turns:
            async def run(self, bits: object) -> str:
                await Deferred()
                return ""

        with mock.patch.object(self.events, "_turns", Turns()):
            first = self.listen()
        second = self.listen()
        first.leave()
        self.clock.advance(LOOK_EVERY)
        self.assertEqual(self.heard(second), ["board"])

    def test_late_comer(self) -> None:
        """Who comes while nothing changes gets the clock and the minutes of now, and never more than are left."""
        take(self.feed, kv.planning({"TargetDepartureTime": "01:09:30"}), kv.calendar("2026-01-01"))
        stays = self.listen()
        as_json = self.listen(f"/events/{CODE}?as=json")
        for _ in range(50):
            self.clock.pump([LOOK_EVERY] * 13)
            now = self.clock.seconds()
            (clock,) = re.findall(rb'data-now="(\d+)"', self.listen().received())
            self.assertTrue(now - MAKE_EVERY <= int(clock) <= now, now - int(clock))
            (data,) = re.findall(rb"data: (.+)", self.listen(f"/events/{CODE}?as=json").received())
            for departure in json.loads(data)["stops"][0]["departures"]:
                left = (read_timestamp(departure["expected"] or departure["planned"]) or 0) - now
                self.assertLessEqual(departure["minutes"] * 60, max(left, 0))
        self.assertFalse(stays.closed or as_json.closed)

    def test_ages(self) -> None:
        """While nobody says anything new a board is told again as it grows old, to who comes later as to all."""
        self.say(30)
        client = self.listen()
        comes = NOW + 30 * 60
        for age in range(1, 240):
            self.clock.pump([LOOK_EVERY] * 2)
            for moment in re.findall(rb'data-at="(\d+)"', client.received()):
                self.assertLess(int(moment), comes)
                comes = int(moment)
            server = NOW + 30 * 60 - age - MAKE_EVERY
            self.assertTrue(server <= comes <= server + 15, comes - server)
            if age % 40 == 0:
                (moment,) = re.findall(rb'data-at="(\d+)"', self.listen().received())
                self.assertTrue(server <= int(moment) <= comes, (server, moment, comes))

    def test_younger(self) -> None:
        """That the feed repeats itself wakes nobody, and who comes then is told no more than those who are there."""
        self.say(30)
        self.clock.advance(14)
        client = self.listen()
        (told,) = re.findall(rb'data-at="(\d+)"', client.received())
        for _ in range(4):
            self.say(30)
            self.clock.pump([LOOK_EVERY] * 4)
            self.assertEqual(re.findall(rb'data-at="(\d+)"', self.listen().received()), [told])
            self.clock.pump([LOOK_EVERY] * int((14 + OLDER - 3) / LOOK_EVERY))
            self.assertNotIn("board", self.heard(client))

    def test_zone(self) -> None:
        """When clocks change the page is told, though nothing leaves in that night."""
        self.clock.rightNow = datetime.fromisoformat("2026-10-25T02:59:50+02:00").timestamp()
        client = self.listen("/events/57330499?horizon=10")
        self.assertEqual(re.findall(rb'data-offset="(\d+)"', client.received()), [b"7200"])
        self.clock.pump([LOOK_EVERY] * int(2 * MAKE_EVERY / LOOK_EVERY))
        self.assertEqual(re.findall(rb'data-offset="(\d+)"', client.received()), [b"3600"])

    def test_newest_last(self) -> None:
        """However slowly they are told, and whoever leaves meanwhile, all have the newest in the end, and last."""
        clients = [self.listen() for _ in range(60)]
        for client in clients:
            self.heard(client)
        self.at_a_time, self.pause = 1, 0.02
        self.say(6)
        self.clock.pump([LOOK_EVERY, *[self.pause] * 30])
        for client in clients[10:50:2]:
            client.leave()
        self.say(7)
        self.clock.pump([self.pause] * 200)
        told = {(*re.findall(rb"(\d) min later", client.received()),) for client in clients[:10] + clients[50:]}
        self.assertEqual(told, {(b"1", b"2"), (b"2",)})
        told = {(*re.findall(rb"(\d) min later", client.received())[-1:],) for client in clients[11:50:2]}
        self.assertEqual(told, {(b"2",)})

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
        """A silence is broken by a comment, which scripts hear as an event; a stream has no deadline."""
        client = self.listen("/events/57330499")
        self.heard(client)
        self.clock.pump([LOOK_EVERY] * int(BEAT_EVERY / LOOK_EVERY - 1))
        self.assertEqual(client.received(), b"")
        self.clock.pump([LOOK_EVERY] * 2)
        self.assertEqual(client.received(), b":\nevent: beat\ndata:\n\n")
        self.assertEqual((client.closed, self.server.streams), (False, 1))

    def test_beat_beside_one_who_is_behind(self) -> None:
        """That one listener takes nothing keeps no sign of life from the others."""
        slow, client = (self.listen("/events/57330499") for _ in range(2))
        slow.handler.pauseProducing()
        take(self.feed, kv.passtimes(row("1", 30, TimingPointCode="57330499", TripStopStatus="PLANNED")))
        self.clock.advance(LOOK_EVERY)
        self.heard(client)
        self.clock.pump([LOOK_EVERY] * int(BEAT_EVERY / LOOK_EVERY + 1))
        self.assertEqual(self.heard(client), ["beat"])

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
        for minutes in range(6, 10):
            self.say(minutes)
            self.clock.advance(LOOK_EVERY)
            self.assertEqual(client.received(), b"")
        client.handler.resumeProducing()
        self.clock.advance(LOOK_EVERY)
        text = client.received().decode()
        self.assertEqual(text.count("event: board"), 1)
        self.assertIn("4 min later", text)
        self.clock.advance(LOOK_EVERY)
        self.assertEqual(self.heard(client), [])
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
        self.assertEqual((self.events.channels, self.server.streams, self.server.connections), ({}, 0, {}))
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

    def test_drain_while_waiting(self) -> None:
        """Who waits for a first board while the server ends gets it, and the farewell."""
        self.modules.removeService(self.events)
        source = FakeSource()
        self.events = Events(CacheDisplays(BoardCache(source, self.clock), self.clock), self.clock, self.cooperator)
        self.serve()
        client = self.listen()
        drained = self.server.drain()
        source.answers[0].callback(Board(CODE, (), NOW))
        self.clock.advance(0)
        self.assertEqual(self.heard(client), ["board", "bye"])
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
        self.assertEqual((client.answer("HEAD").status, self.server.streams), (200, 0))
