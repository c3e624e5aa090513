"""Tests of /events: boards as they change, and the streams that carry them."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, cast
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator

from govi_server.departures.board import Board, Trip
from govi_server.departures.cache import BoardCache
from govi_server.departures.times import read_timestamp
from govi_server.http.parameters import InvalidParameter
from govi_server.modules.display_source import CacheDisplays, FeedDisplays
from govi_server.modules.event_channel import AGE_TOLERANCE, RENDER_INTERVAL
from govi_server.modules.events import BEAT_INTERVAL, CHANNELS_AT_ONCE, CHECK_INTERVAL, Events
from govi_server.pages import board_page
from govi_server.runtime.cooperative import CooperativeRunner
from tests import feed as kv
from tests.client import NOW, Client
from tests.doubles import FakeSource, ingest
from tests.event_stream import parse_event_stream
from tests.modules.test_kv55_feed import CODE, LiveTestCase, row


def trip(departs: str) -> Trip:
    """Return a trip of a gateway's board."""
    return Trip(
        operating_date="2026-01-01",
        line_public_number="1",
        target_departure_time=departs,
        expected_departure_time=departs,
        trip_stop_status="DRIVING",
    )


class EventsTests(LiveTestCase):
    """The module behind a server, on a stepped clock."""

    def setUp(self) -> None:
        super().setUp()
        self.up()
        self.at_a_time, self.pause = 10_000, 0.0
        self.cooperator = Cooperator(self._slice, cast(Any, self._call_later))
        self.feed.runner.cooperator = self.cooperator
        self.events = Events(FeedDisplays(self.feed), self.clock)
        self.serve()
        self.set_expected(5)

    def serve(self) -> None:
        self.events.setServiceParent(self.modules)
        self.events.startService()
        self.addCleanup(self.events.stopService)

    def set_expected(self, minutes: int) -> None:
        """Have the feed report that the bus of 01:05 departs at this minute after 01:00."""
        ingest(self.feed, kv.passtimes(row("1", 5, ExpectedDepartureTime=f"01:{minutes:02}:00")))

    def _slice(self) -> Callable[[], bool]:
        steps = iter(range(self.at_a_time - 1))
        return lambda: next(steps, None) is None

    def _call_later(self, call: Callable[[], object]) -> object:
        return self.clock.callLater(self.pause, call)

    def listen(self, path: str = f"/events/{CODE}", **headers: str) -> Client:
        client = self.client()
        client.get(path, **headers)
        return client

    def events_of(self, client: Client) -> list[str]:
        """Return the names of the events received since the last call."""
        lines = client.received().decode().splitlines()
        return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]

    def test_begin_of_a_stream(self) -> None:
        """A stream begins with the retry time and the board."""
        text = self.listen().received().decode()
        self.assertIn("Content-Type: text/event-stream", text)
        self.assertIn("Connection: close", text)
        self.assertNotIn("Content-Length", text)
        self.assertRegex(text, r"\r\n\r\nretry: \d{4}\nid: \w+\nevent: board\ndata: <div ")

    def test_change_is_sent_once(self) -> None:
        """A change is rendered once and sent to all listeners at the next check; without a change nothing is sent."""
        clients = [self.listen() for _ in range(3)]
        with mock.patch.object(board_page, "fragment", wraps=board_page.fragment) as fragment:
            for client in clients:
                self.events_of(client)
            self.clock.advance(CHECK_INTERVAL)
            self.assertEqual([self.events_of(client) for client in clients], [[], [], []])
            self.set_expected(9)
            self.clock.advance(CHECK_INTERVAL)
            self.assertEqual([self.events_of(client) for client in clients], [["board"]] * 3)
        self.assertEqual(fragment.call_count, 1)

    def test_many_boards_are_checked_in_groups(self) -> None:
        """The boards of many streams are rendered over the interval, each within two intervals of its change."""
        n_groups = 3
        clients = [self.listen(f"/events/{CODE}?limit={n}") for n in range(1, n_groups * CHANNELS_AT_ONCE + 1)]
        self.clock.pump([CHECK_INTERVAL / 20] * 40)
        for client in clients:
            self.events_of(client)
        self.set_expected(9)
        numbers = []
        for _ in range(40):
            self.clock.advance(CHECK_INTERVAL / 20)
            numbers.append(sum(len(self.events_of(client)) for client in clients))
        self.assertEqual([n for n in numbers if n], [CHANNELS_AT_ONCE] * n_groups)

    def test_refresh_does_not_delay_requests(self) -> None:
        """A board that is rendered again waits in the background; the first board of a client does not."""
        client = self.listen()
        self.events_of(client)
        self.pause = 0.1
        self.set_expected(9)
        self.patch(CooperativeRunner, "_fits", lambda runner, steps: False)
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(self.events_of(client), [])
        other = self.listen(f"/events/{CODE}?limit=1")
        self.clock.advance(0)
        self.assertEqual((self.events_of(other), self.events_of(client)), (["board"], []))
        self.clock.pump([self.pause] * 9)
        self.assertEqual(self.events_of(client), ["board"])

    def test_rendered_once_for_all_listeners(self) -> None:
        """A thousand listeners cost one rendering when they join, and one per change."""
        with mock.patch.object(board_page, "fragment", wraps=board_page.fragment) as fragment:
            clients = [self.listen() for _ in range(1000)]
            self.assertEqual({(*self.events_of(client),) for client in clients}, {("board",)})
            self.assertEqual(fragment.call_count, 1)
            for change in range(1, 4):
                self.set_expected(5 + change)
                self.clock.advance(CHECK_INTERVAL)
                self.assertEqual({(*self.events_of(client),) for client in clients}, {("board",)})
                self.assertEqual(fragment.call_count, 1 + change)

    def test_gateway_board_is_requested_and_rendered_once(self) -> None:
        """A thousand waiting listeners cost one request to the gateway and one rendering."""
        self.modules.removeService(self.events)
        source = FakeSource()
        displays = CacheDisplays(BoardCache(source, self.clock), self.clock)
        self.events = Events(displays, self.clock)
        self.serve()
        with mock.patch.object(board_page, "fragment", wraps=board_page.fragment) as fragment:
            clients = [self.listen() for _ in range(1000)]
            self.clock.advance(5)
            source.results[0].callback(Board(CODE, (), NOW))
            self.assertEqual({(*self.events_of(client),) for client in clients}, {("board",)})
        self.assertEqual((len(source.requested), fragment.call_count), (1, 1))

    def test_first_listener_leaves(self) -> None:
        """A listener that joins while the first board is rendered gets it, although the first listener leaves."""
        blocked: Deferred[None] = Deferred()
        display = self.events._source.display

        async def blocked_display(*args: Any) -> object:
            await blocked
            return await display(*args)

        with mock.patch.object(self.events._source, "display", blocked_display):
            first = self.listen()
            self.clock.advance(5 * CHECK_INTERVAL)
            second = self.listen()
            first.leave()
            self.clock.advance(CHECK_INTERVAL)
            self.assertEqual(self.events_of(second), [])
            blocked.callback(None)
            self.assertEqual(self.events_of(second), ["board"])

    def test_board_fails_while_boards_are_checked(self) -> None:
        """A first board that fails between two steps of a check does not end the checks."""
        listener = self.listen()
        self.events_of(listener)
        self.at_a_time, self.pause = 1, 0.02
        self.feed.runner._short = self.cooperator
        self.patch(CooperativeRunner, "_fits", lambda runner, steps: False)
        blocked: Deferred[None] = Deferred()

        async def failing_display(*args: Any) -> None:
            await blocked

        with mock.patch.object(self.events._source, "display", failing_display):
            failing = self.listen(f"/events/{CODE}?limit=1")
        self.clock.advance(CHECK_INTERVAL)
        self.clock.advance(self.pause)
        blocked.errback(InvalidParameter("to must be a place"))
        self.clock.pump([0.02] * 20)
        self.assertEqual(failing.response().status, 400)
        self.clock.pump([0.1] * round(2 * BEAT_INTERVAL / 0.1))
        self.assertIn("beat", self.events_of(listener))

    def test_listener_joins_later(self) -> None:
        """A listener that joins later gets the current time and minutes, which never exceed what remains."""
        ingest(self.feed, kv.planning({"TargetDepartureTime": "01:09:30"}), kv.calendar("2026-01-01"))
        stream = self.listen()
        as_json = self.listen(f"/events/{CODE}?as=json")
        for _ in range(50):
            self.clock.pump([CHECK_INTERVAL] * 13)
            now = self.clock.seconds()
            (clock,) = re.findall(rb'data-now="(\d+)"', self.listen().received())
            self.assertTrue(now - RENDER_INTERVAL <= int(clock) <= now, now - int(clock))
            (data,) = re.findall(rb"data: (.+)", self.listen(f"/events/{CODE}?as=json").received())
            for departure in json.loads(data)["stops"][0]["departures"]:
                left = (read_timestamp(departure["expected"] or departure["planned"]) or 0) - now
                self.assertLessEqual(departure["minutes"] * 60, max(left, 0))
        self.assertFalse(stream.closed or as_json.closed)

    def test_aging_board_is_sent_again(self) -> None:
        """A board is sent again as its data ages, with the same ages to all listeners."""
        self.set_expected(30)
        client = self.listen()
        departs = NOW + 30 * 60
        for age in range(1, 240):
            self.clock.pump([CHECK_INTERVAL] * 2)
            for moment in re.findall(rb'data-at="(\d+)"', client.received()):
                self.assertLess(int(moment), departs)
                departs = int(moment)
            server = NOW + 30 * 60 - age - RENDER_INTERVAL
            self.assertTrue(server <= departs <= server + 15, departs - server)
            if age % 40 == 0:
                (moment,) = re.findall(rb'data-at="(\d+)"', self.listen().received())
                self.assertTrue(server <= int(moment) <= departs, (server, moment, departs))

    def test_repeated_data_is_no_event(self) -> None:
        """A repetition of the feed is not an event; a listener that joins later gets the same age."""
        self.set_expected(30)
        self.clock.advance(14)
        client = self.listen()
        (stated,) = re.findall(rb'data-at="(\d+)"', client.received())
        for _ in range(4):
            self.set_expected(30)
            self.clock.pump([CHECK_INTERVAL] * 4)
            self.assertEqual(re.findall(rb'data-at="(\d+)"', self.listen().received()), [stated])
            self.clock.pump([CHECK_INTERVAL] * int((14 + AGE_TOLERANCE - 3) / CHECK_INTERVAL))
            self.assertNotIn("board", self.events_of(client))

    def test_json_is_sent_if_it_differs(self) -> None:
        """As JSON, a board of a gateway is an event with a new id only if its bytes differ, as minutes do."""
        self.modules.removeService(self.events)
        source = FakeSource()
        source.immediate = Board(CODE, (trip("01:30:00"), trip("01:31:30")), NOW)
        self.events = Events(CacheDisplays(BoardCache(source, self.clock), self.clock), self.clock)
        self.serve()
        client = self.listen(f"/events/{CODE}?as=json&limit=1")
        sent = [client.received().partition(b"\r\n\r\n")[2]]
        for _ in range(int(50 / CHECK_INTERVAL)):
            self.clock.advance(CHECK_INTERVAL)
            sent.append(client.received())
        events = parse_event_stream(b"".join(sent))
        boards = [event for event in events if event.type == "board"]
        minutes = [json.loads(event.data)["stops"][0]["departures"][0]["minutes"] for event in boards]
        self.assertEqual(minutes, [29, 28])
        self.assertEqual(len({event.last_event_id for event in boards}), 2)
        self.assertGreaterEqual(sum(event.type == "beat" for event in events), 3)

    def test_json_counts_down(self) -> None:
        """While the feed repeats the same data, the minutes of the last event never exceed what remains."""
        self.set_expected(15)
        client = self.listen(f"/events/{CODE}?as=json&limit=1")
        minutes = 15
        for second in range(14 * 60):
            if second % 10 == 0:
                self.set_expected(15)
            for number in re.findall(rb'"minutes": (\d+)', client.received()):
                minutes = int(number)
            self.assertLessEqual(minutes * 60, 15 * 60 - second)
            self.clock.pump([CHECK_INTERVAL] * 2)
        self.assertEqual(minutes, 0)

    def test_daylight_saving_change_is_sent(self) -> None:
        """The change of daylight saving time is an event, even without departures."""
        self.clock.rightNow = datetime.fromisoformat("2026-10-25T02:59:50+02:00").timestamp()
        client = self.listen("/events/57330499?horizon=10")
        self.assertEqual(re.findall(rb'data-offset="(\d+)"', client.received()), [b"7200"])
        self.clock.pump([CHECK_INTERVAL] * int(2 * RENDER_INTERVAL / CHECK_INTERVAL))
        self.assertEqual(re.findall(rb'data-offset="(\d+)"', client.received()), [b"3600"])

    def test_slow_sending_ends_with_the_newest(self) -> None:
        """Even with slow sending and leaving listeners, the last event of each listener is the newest."""
        clients = [self.listen() for _ in range(60)]
        for client in clients:
            self.events_of(client)
        self.at_a_time, self.pause = 1, 0.02
        self.set_expected(6)
        self.clock.pump([CHECK_INTERVAL, *[self.pause] * 30])
        for client in clients[10:50:2]:
            client.leave()
        self.set_expected(7)
        self.clock.pump([self.pause] * 200)
        minutes = {(*re.findall(rb"(\d) min later", client.received()),) for client in clients[:10] + clients[50:]}
        self.assertEqual(minutes, {(b"1", b"2"), (b"2",)})
        minutes = {(*re.findall(rb"(\d) min later", client.received())[-1:],) for client in clients[11:50:2]}
        self.assertEqual(minutes, {(b"2",)})

    def test_departure_leaves_without_new_data(self) -> None:
        """A departure that leaves is an event, even without new data of the feed."""
        client = self.listen()
        self.events_of(client)
        events = []
        for _ in range(int((7 * 60 + RENDER_INTERVAL) / CHECK_INTERVAL)):
            self.clock.advance(CHECK_INTERVAL)
            events += self.events_of(client)
        self.assertIn("board", events)

    def test_beat(self) -> None:
        """Without other events, a comment and a beat are sent; a stream has no deadline."""
        client = self.listen("/events/57330499")
        self.events_of(client)
        self.clock.pump([CHECK_INTERVAL] * int(BEAT_INTERVAL / CHECK_INTERVAL - 1))
        self.assertEqual(client.received(), b"")
        self.clock.pump([CHECK_INTERVAL] * 2)
        self.assertEqual(client.received(), b":\nevent: beat\ndata:\n\n")
        self.assertEqual((client.closed, self.server.streams), (False, 1))

    def test_beat_with_a_slow_listener(self) -> None:
        """A listener that does not read does not delay the beats of the others."""
        slow, client = (self.listen("/events/57330499") for _ in range(2))
        slow.handler.pauseProducing()
        ingest(self.feed, kv.passtimes(row("1", 30, TimingPointCode="57330499", TripStopStatus="PLANNED")))
        self.clock.advance(CHECK_INTERVAL)
        self.events_of(client)
        self.clock.pump([CHECK_INTERVAL] * int(BEAT_INTERVAL / CHECK_INTERVAL + 1))
        self.assertEqual(self.events_of(client), ["beat"])

    def test_last_event_id(self) -> None:
        """A client that reconnects with the id of the last board gets a beat with the retry time instead."""
        text = self.listen().received().decode()
        (number,) = [line.removeprefix("id: ") for line in text.splitlines() if line.startswith("id: ")]
        client = self.listen(Last_Event_ID=number)
        self.assertRegex(client.received(), rb"\r\n\r\nretry: \d{4}\n:\nevent: beat\ndata:\n\n$")
        self.set_expected(9)
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(self.events_of(client), ["board"])
        self.assertEqual(self.events_of(self.listen(Last_Event_ID="another")), ["board"])

    def test_slow_listener_gets_the_newest(self) -> None:
        """A slow listener gets complete events, the newest once it reads, unless its deadline passes."""
        client = self.listen()
        self.events_of(client)
        client.handler.pauseProducing()
        for minutes in range(6, 10):
            self.set_expected(minutes)
            self.clock.advance(CHECK_INTERVAL)
            self.assertEqual(client.received(), b"")
        client.handler.resumeProducing()
        self.clock.advance(CHECK_INTERVAL)
        text = client.received().decode()
        self.assertEqual(text.count("event: board"), 1)
        self.assertIn("4 min later", text)
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(self.events_of(client), [])
        self.clock.advance(20)
        self.assertFalse(client.closed)
        client.handler.pauseProducing()
        self.clock.advance(13)
        self.assertTrue(client.closed)

    def test_listeners_leave(self) -> None:
        """A listener that leaves or closes its side is removed, as is a channel without listeners."""
        left, closed = self.listen(), self.listen()
        left.leave()
        closed.half_close()
        self.assertTrue(closed.closed)
        closed.leave()
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual((self.events.channels, self.server.streams, self.server.connections), ({}, 0, {}))
        (request,) = self.statistics[0].requests
        self.assertEqual(
            (request.exchange.path, request.exchange.status, request.send), (f"/events/{CODE}", 200, None)
        )
        self.assertGreater(request.exchange.bytes, 100)

    def test_drain(self) -> None:
        """When the server stops, the last event is bye."""
        client = self.listen()
        self.events_of(client)
        drained = self.server.drain()
        self.clock.advance(0)
        self.assertEqual(self.events_of(client), ["bye"])
        self.assertTrue(client.closed)
        client.leave()
        self.successResultOf(drained)

    def test_drain_while_waiting_for_the_first_board(self) -> None:
        """A client that waits for the first board while the server stops gets it, and bye."""
        self.modules.removeService(self.events)
        source = FakeSource()
        self.events = Events(CacheDisplays(BoardCache(source, self.clock), self.clock), self.clock)
        self.serve()
        client = self.listen()
        drained = self.server.drain()
        source.results[0].callback(Board(CODE, (), NOW))
        self.clock.advance(0)
        self.assertEqual(self.events_of(client), ["board", "bye"])
        self.assertTrue(client.closed)
        client.leave()
        self.successResultOf(drained)

    def test_channels(self) -> None:
        """The data may be JSON; each form, language and query has its own channel."""
        for query in ("as=json", "as=json&limit=1", "lang=en", "lang=fr"):
            self.assertEqual(self.events_of(self.listen(f"/events/{CODE}?{query}")), ["board"])
        self.assertEqual(len(self.events.channels), 4)

    def test_stream_of_every_kind_has_no_block_without_data(self) -> None:
        """From the first byte to the bye, each block of each stream is an event, and retry is part of the first."""
        (number,) = re.findall(r"id: (\w+)", self.listen().received().decode())
        headers: list[dict[str, str]] = [{}, *({"Last_Event_ID": last} for last in (number, "another", ""))]
        queries = ("", "?as=json", "?as=html&view=wall", "?lang=fr")
        clients = [self.listen(f"/events/{CODE}{query}", **fields) for query in queries for fields in headers]
        clients.append(self.listen("/events/57330499"))
        self.clock.pump([CHECK_INTERVAL] * int(3 * BEAT_INTERVAL / CHECK_INTERVAL))
        self.set_expected(8)
        self.clock.advance(CHECK_INTERVAL)
        self.server.drain()
        self.clock.advance(0)
        for client in clients:
            first, *events = parse_event_stream(client.received().partition(b"\r\n\r\n")[2])
            self.assertEqual(first.fields[0], "retry")
            self.assertIn(first.type, ("board", "beat"))
            self.assertEqual({event.fields[0] for event in events[:-1]} - {"id", "event"}, set())
            self.assertEqual((events[-1].type, events[-1].fields[0]), ("bye", "retry"))

    def test_line_ends_in_texts_of_the_feed(self) -> None:
        """No line end in a text begins a field of the stream."""

        def fragment(*_: object) -> Iterator[str]:
            yield "a\rid: x\r\ndata: b"
            yield "\n\revent: c\u2028d"

        with mock.patch.object(board_page, "fragment", fragment):
            stream = self.listen().received().partition(b"\r\n\r\n")[2]
        (event,) = parse_event_stream(stream)
        self.assertEqual((event.type, event.data), ("board", "a\nid: x\ndata: b\n\nevent: c\u2028d"))
        self.assertNotEqual(event.last_event_id, "x")

    def test_invalid_requests(self) -> None:
        """An invalid stop is 404, an invalid parameter 400; HEAD has no stream."""
        for path, status in (("/events/x", 404), ("/events/", 400), (f"/events/{CODE}?as=xml", 400)):
            self.assertEqual(self.listen(path).response().status, status, path)
        client = self.client()
        client.send(f"HEAD /events/{CODE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.assertEqual((client.response("HEAD").status, self.server.streams), (200, 0))
