"""Keeps the index of the stops up to date with what the feed tells, while others have their turns."""

from twisted.internet.defer import Deferred, succeed

from govi_server.departures.stop_index import StopIndex
from govi_server.kv78turbo.feed import Feed
from govi_server.runtime.cooperative import make_cooperator

REST = 10
"""How many times as long as it took to make an index there is none made anew: at night KV7 changes by the second."""


class StopIndexCache:
    """Gives an index of the stops that a feed knows. It is made when somebody asks and the stops have changed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._clock = feed.clock
        self._cooperator = make_cooperator(feed.clock)
        self._index: StopIndex | None = None
        self._of: tuple[int, int] | None = None
        self._not_before = 0.0
        self._waiting: list[Deferred[StopIndex]] | None = None

    def index(self) -> Deferred[StopIndex]:
        """Give the index: the one that there is, while a new one is made; who comes first waits for the first."""
        feed, now = self._feed, self._clock.seconds()
        of = (feed.timetable.version, len(feed.passtimes.stops))
        if of != self._of and self._waiting is None and now >= self._not_before:
            self._of, self._waiting = of, []
            making = StopIndex.make(feed.timetable.timing_points, feed.passtimes.stops, self._made)
            self._cooperator.coiterate(making).addBoth(self._ended, now)
        if self._waiting is not None and not self._index:
            waiting = self._waiting
            waits: Deferred[StopIndex] = Deferred(lambda gone: waiting.remove(gone))
            waiting.append(waits)
            return waits
        assert self._index is not None
        return succeed(self._index)

    def _made(self, index: StopIndex) -> None:
        self._index = index

    def _ended(self, result: object, begun: float) -> object:
        waiting, self._waiting = self._waiting or [], None
        if self._index is None:
            self._of = None
        now = self._clock.seconds()
        self._not_before = now + REST * max(now - begun, 0.0)
        for waits in list(waiting):
            if self._index is not None:
                waits.callback(self._index)
            else:
                waits.errback(RuntimeError("no index of the stops could be made"))
        return result
