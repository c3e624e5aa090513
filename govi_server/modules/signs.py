"""Where boards for people get their signs from: the live feed, or the cache in front of a gateway."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.contract import BadQuery
from govi_server.departures.board import NoBoard
from govi_server.departures.cache import BoardCache, Entry, Result
from govi_server.departures.sign import Sign, StopSign, of_board
from govi_server.departures.times import HOUR
from govi_server.interfaces import IDepartureSigns
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.signs import stop_sign
from govi_server.modules import live
from govi_server.modules.live import LIMIT, LINE, PICKED, Query
from govi_server.statistics import CacheResult

HORIZON = 2 * HOUR
"""Seconds that a sign looks ahead, if nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Told:
    """A sign, how it was had, and what is said of that in header fields."""

    sign: Sign
    result: CacheResult
    headers: tuple[tuple[str, str], ...]


@implementer(IDepartureSigns)
class FeedSigns:
    """Gives the signs of the live feed."""

    picked = PICKED
    about = ("Feed-State",)
    perhaps = ("Age", "Cache-Status")

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def version(self, codes: Sequence[str]) -> object:
        """Give what is another thing when the feed has said something of some stops."""
        return (self.feed.state, *map(self.feed.boards.version, codes))

    async def sign(self, codes: list[str], query: Query) -> Told:
        """Give the sign of some stops."""
        sign = await self.feed.turns.of(self._sign(codes, query))
        ages = [stop.age for stop in sign.stops if stop.as_of is not None]
        headers: list[tuple[str, str]] = [("Feed-State", self.feed.state)]
        if ages:
            ttl = min(floor(self.feed.limits.fresh - max(ages)), -1)
            headers += [("Age", f"{ceil(max(ages))}"), ("Cache-Status", f"govi-cache; hit; ttl={ttl}")]
        return Told(sign, "stale" if ages else "hit", tuple(headers))

    def _sign(self, codes: list[str], query: Query) -> Generator[None, None, Sign]:
        horizon = query.horizon or HORIZON
        stops = []
        for code in codes:
            board = self.feed.boards.board(code, horizon)
            passes = replace(query, limit=None).of(board.passes, self.feed.timetable.public_number)
            stops.append(stop_sign(self.feed, board, passes))
            yield
        return Sign(tuple(stops), horizon).first(query.limit)


@implementer(IDepartureSigns)
class CacheSigns:
    """Gives the signs of a gateway's boards, which tell no names of stops, no colours and no messages."""

    picked = (LIMIT, LINE, live.HORIZON)
    about = ()
    perhaps = ()

    def __init__(self, cache: BoardCache, clock: IReactorTime) -> None:
        self._cache = cache
        self._clock = clock

    def version(self, codes: Sequence[str]) -> object:
        """Give what is another thing when another board of some stops has come."""
        return tuple(entry and entry.board.made for entry in map(self._cache.peek, codes))

    async def sign(self, codes: list[str], query: Query) -> Told:
        """Give the sign of some stops; all are asked for before the first is waited for."""
        if query.direction is not None:
            raise BadQuery("direction is not known here")
        horizon = query.horizon or HORIZON
        asked = [self._cache.board(code) for code in codes]
        # Together, so that one that fails while another is waited for is heard, and all end with the connection.
        found = await DeferredList(
            [one if isinstance(one, Deferred) else succeed(one) for _, one in asked], consumeErrors=True
        )
        stops = [self._stop(code, entry, query.lines, horizon) for code, (_, entry) in zip(codes, found, strict=True)]
        results = {result for result, _ in asked}
        orders: tuple[Result, ...] = ("miss", "joined", "stale", "hit")
        result = next(one for one in orders if one in results)
        return Told(Sign(tuple(stops), horizon).first(query.limit), result, ())

    def _stop(self, code: str, found: Entry | Failure, lines: frozenset[str], horizon: float) -> StopSign:
        if isinstance(found, Failure):
            if not found.check(NoBoard):
                found.raiseException()
            return StopSign(code, "down")
        stale = self._cache.age(found) > self._cache.limits.fresh
        return of_board(found.board, self._clock.seconds(), stale, lines, horizon)
