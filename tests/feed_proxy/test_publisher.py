"""Tests of feed_proxy.publisher: what subscribers and their connections may cost."""

from collections import deque
from typing import Any

import zmq
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.feed_proxy.publisher import MAX_TOPICS, MAX_TURN_EVENTS, Publisher


class FakeSocket:
    """A socket in memory, from which messages can be read."""

    def __init__(self) -> None:
        self.messages: deque[list[bytes]] = deque()
        self.sent: list[list[bytes]] = []

    def get(self, option: int) -> int:
        assert option == zmq.EVENTS
        return zmq.POLLIN if self.messages else 0

    def recv_multipart(self, flags: int) -> list[bytes]:
        return self.messages.popleft()

    def send_multipart(self, frames: list[bytes], flags: int) -> None:
        self.sent.append(frames)

    def disable_monitor(self) -> None: ...

    def close(self) -> None: ...


class PublisherTests(SynchronousTestCase):
    """A publisher whose socket is in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.topics: list[bytes] = []
        self.publisher = Publisher(self.clock, "tcp://127.0.0.1:*", self.topics.append, self.topics.remove)
        self.socket: Any = FakeSocket()
        self.publisher._socket = self.socket

    def subscribe(self, *topics: bytes) -> None:
        self.socket.messages.extend([b"\1" + topic] for topic in topics)

    def test_topics(self) -> None:
        """A topic is reported once, and when its last subscription has ended; other messages are ignored."""
        self.subscribe(b"a", b"b", b"a")
        self.socket.messages.extend([[b"\0a"], [b"\0c"], [b""], [b"\1d", b"more"], [b"text"]])
        self.publisher.send([b"message"])
        self.assertEqual((self.topics, self.socket.sent), ([b"b", b"d"], [[b"message"]]))

    def test_flood_takes_several_turns(self) -> None:
        """However many topics a subscriber sends, one turn reads some; as many as the limit are reported."""
        self.subscribe(*(b"%d" % n for n in range(2 * MAX_TOPICS)))
        self.publisher.send([b"message"])
        self.assertEqual(len(self.socket.messages), 2 * MAX_TOPICS - MAX_TURN_EVENTS)
        self.clock.advance(0)
        self.assertEqual(len(self.topics), MAX_TOPICS)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_while_reading(self) -> None:
        """Nothing is read after the socket was closed."""
        self.subscribe(*(b"%d" % n for n in range(2 * MAX_TURN_EVENTS)))
        self.publisher.send([b"message"])
        self.publisher._close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
