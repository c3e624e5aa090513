"""Doubles of what a unit test does not want in earnest: where boards come from, what posts messages, what feeds."""

import gzip
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from govi_server.departures.board import Board
from govi_server.departures.source import IDepartureSource
from govi_server.kv55.gateway import IPoster
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.subscriber import State
from govi_server.settings import FeedLimitSettings, PasstimeSettings, PlanningSettings, SubscriberSettings


@implementer(IDepartureSource)
class FakeSource:
    """A source whose answers the test gives.

    at_once: what a question gets before board() has returned; None for a Deferred that the test fires.
    """

    def __init__(self, at_once: Board | Exception | None = None) -> None:
        self.at_once = at_once
        self.asked: list[str] = []
        self.answers: list[Deferred[Board]] = []
        self.heard: list[Callable[[Board], object]] = []

    def board(self, code: str) -> Deferred[Board]:
        answer: Deferred[Board] = Deferred()
        self.asked.append(code)
        self.answers.append(answer)
        if isinstance(self.at_once, Board):
            answer.callback(self.at_once)
        elif self.at_once is not None:
            answer.errback(self.at_once)
        return answer

    def listen(self, heard: Callable[[Board], object]) -> None:
        self.heard.append(heard)

    def tell(self, board: Board) -> None:
        """Tell whoever listens of a board that nobody waits for."""
        for heard in self.heard:
            heard(board)


@implementer(IPoster)
class FakePoster:
    """Keeps the messages it is given; the test fires the Deferreds of what becomes of them.

    at_once: why every message is refused before post() has returned; None for a Deferred that the test fires.
    """

    def __init__(self, at_once: Exception | None = None) -> None:
        self.at_once = at_once
        self.bodies: list[bytes] = []
        self.encodings: list[str | None] = []
        self.posts: list[Deferred[None]] = []
        self.cancelled: list[Deferred[None]] = []
        self.closed = False

    def post(self, body: bytes, encoding: str | None = None) -> Deferred[None]:
        post: Deferred[None] = Deferred(self.cancelled.append)
        self.bodies.append(body)
        self.encodings.append(encoding)
        self.posts.append(post)
        if self.at_once is not None:
            post.errback(self.at_once)
        return post

    def close(self) -> Deferred[None]:
        self.closed = True
        return succeed(None)


class FakeSubscriber:
    """What a Feed asks its Subscriber; the test says how the feed is doing."""

    def __init__(self, state: State = "UP", last: float | None = None) -> None:
        self.state = state
        self.last = last


def live_feed(
    clock: Clock,
    folder: str = "",
    *,
    addresses: Sequence[str] = (),
    limits: FeedLimitSettings = FeedLimitSettings(),
    passtimes: PasstimeSettings = PasstimeSettings(),
    timetable: PlanningSettings = PlanningSettings(),
    kept: int = 1 << 20,
) -> Feed:
    """Make a Feed that, without addresses, nothing comes to but what the test gives it."""
    return Feed(
        clock,
        addresses,
        folder,
        limits,
        subscriber=SubscriberSettings(),
        passtimes=passtimes,
        timetable=timetable,
        cache_bytes=kept,
    )


def take(feed: Feed, *messages: bytes, envelope: str = "/GOVI/KV8passtimes/LIN") -> None:
    """Give a Feed messages that it takes in at once."""
    for message in messages:
        assert feed.received(envelope, gzip.compress(message, 1)) is None
