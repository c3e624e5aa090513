"""Test doubles: a source of boards, a poster of messages, a feed without a connection."""

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
    """A source whose results the test determines.

    immediate: the result of every request, available when board() returns; None for a Deferred that the test fires.
    """

    def __init__(self, immediate: Board | Exception | None = None) -> None:
        self.immediate = immediate
        self.requested: list[str] = []
        self.results: list[Deferred[Board]] = []
        self.listeners: list[Callable[[Board], object]] = []

    def board(self, code: str) -> Deferred[Board]:
        result: Deferred[Board] = Deferred()
        self.requested.append(code)
        self.results.append(result)
        if isinstance(self.immediate, Board):
            result.callback(self.immediate)
        elif self.immediate is not None:
            result.errback(self.immediate)
        return result

    def listen(self, on_board: Callable[[Board], object]) -> None:
        self.listeners.append(on_board)

    def publish(self, board: Board) -> None:
        """Pass a board that was not requested to the listeners."""
        for on_board in self.listeners:
            on_board(board)


@implementer(IPoster)
class FakePoster:
    """Stores messages; the test fires the Deferreds of their results.

    immediate: the error of every message, available when post() returns; None for a Deferred that the test fires.
    """

    def __init__(self, immediate: Exception | None = None) -> None:
        self.immediate = immediate
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
        if self.immediate is not None:
            post.errback(self.immediate)
        return post

    def close(self) -> Deferred[None]:
        self.closed = True
        return succeed(None)


class FakeSubscriber:
    """The state that a Feed reads from its Subscriber, set by the test."""

    def __init__(self, state: State = "UP", last: float | None = None) -> None:
        self.state = state
        self.last = last


def live_feed(
    clock: Clock,
    directory: str = "",
    *,
    addresses: Sequence[str] = (),
    limits: FeedLimitSettings = FeedLimitSettings(),
    passtimes: PasstimeSettings = PasstimeSettings(),
    timetable: PlanningSettings = PlanningSettings(),
    cache_bytes: int = 1 << 20,
) -> Feed:
    """Return a Feed that, without addresses, has only the messages that a test ingests."""
    return Feed(
        clock,
        addresses,
        directory,
        limits,
        subscriber=SubscriberSettings(),
        passtimes=passtimes,
        timetable=timetable,
        cache_bytes=cache_bytes,
    )


def ingest(feed: Feed, *messages: bytes, envelope: str = "/GOVI/KV8passtimes/LIN") -> None:
    """Pass messages to a Feed, which must process each of them immediately."""
    for message in messages:
        assert feed.received(envelope, gzip.compress(message, 1)) is None
