"""Doubles of the source of boards, the poster, and the feed's connection."""

import gzip
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from govi_server.departures.board import Board
from govi_server.departures.source import IAcknowledgingSource
from govi_server.kv55.gateway import IPoster
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.subscriber import State
from govi_server.settings import FeedLimitSettings, PasstimeSettings, PlanningSettings, SubscriberSettings


@implementer(IAcknowledgingSource)
class FakeSource:
    """A source of boards that the test controls.

    immediate: the outcome that a request has before board() returns, or None for a Deferred that the test fires.
    requested: the codes of the requests. results: their Deferreds.
    """

    def __init__(self) -> None:
        self.immediate: Board | Exception | None = None
        self.requested: list[str] = []
        self.results: list[Deferred[Board]] = []
        self._listeners: list[Callable[[Board], object]] = []
        self._acceptance_listeners: list[Callable[[], object]] = []

    def board(self, code: str) -> Deferred[Board]:
        board: Deferred[Board] = Deferred()
        self.requested.append(code)
        self.results.append(board)
        if isinstance(self.immediate, Board):
            board.callback(self.immediate)
        elif self.immediate is not None:
            board.errback(self.immediate)
        return board

    def listen(self, on_board: Callable[[Board], object]) -> None:
        self._listeners.append(on_board)

    def listen_accepted(self, on_accepted: Callable[[], object]) -> None:
        self._acceptance_listeners.append(on_accepted)

    def accept(self) -> None:
        """Acknowledge a request."""
        for on_accepted in self._acceptance_listeners:
            on_accepted()

    def publish(self, board: Board) -> None:
        """Pass a board that no request waits for to the listeners."""
        for on_board in self._listeners:
            on_board(board)


@implementer(IPoster)
class FakePoster:
    """A poster that records its messages.

    immediate: the failure of every message before post() returns, or None for a Deferred that the test fires.
    posts: the Deferreds of the messages. cancelled: those that were cancelled.
    """

    def __init__(self) -> None:
        self.immediate: Exception | None = None
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
    """The state of a feed's connection, which the test sets, and the time of its last message."""

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
    """Return a Feed that, without addresses, receives only the messages of the test."""
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
    """Pass messages to a Feed, which ingests each before the call returns."""
    for message in messages:
        assert feed.received(envelope, gzip.compress(message, 1)) is None
