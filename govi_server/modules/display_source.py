"""Where boards for people get their signs from: the live feed, or the cache in front of a gateway."""

from collections.abc import Awaitable, Generator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from govi_server.departures.cache import BoardCache, Entry, Result
from govi_server.departures.display import DepartureDisplay, StopDisplay, board_display
from govi_server.departures.query import DEFAULT_HORIZON, Query
from govi_server.departures.source import NoBoard
from govi_server.http.caching.cached_response import cache_status
from govi_server.http.parameters import InvalidParameter, Parameter
from govi_server.kv78turbo.display import stop_display
from govi_server.kv78turbo.feed import Feed
from govi_server.modules.query_parameters import HORIZON, LIMIT, LINE, PICKED
from govi_server.statistics.records import CacheResult


class IDisplaySource(Interface):
    """Where the signs of stops come from."""

    filters: "tuple[Parameter, ...]" = Attribute("The parameters of a query that it can tell.")
    headers: "tuple[str, ...]" = Attribute("Names of the header fields that it always says of a sign.")
    optional_headers: "tuple[str, ...]" = Attribute("Names of those that it says at times.")

    def display(codes: "list[str]", query: "Query") -> "Awaitable[StopsDisplay]":
        """Give the sign of some stops, whatever is known of them. Raises BadQuery for what cannot be told here."""

    def version(codes: "Sequence[str]") -> object:
        """Give what is another thing when there may be something new of some stops."""


@dataclass(frozen=True, slots=True)
class StopsDisplay:
    """A sign, how it was had, and what is said of that in header fields."""

    display: DepartureDisplay
    result: CacheResult
    headers: tuple[tuple[str, str], ...]


@implementer(IDisplaySource)
class FeedDisplays:
    """Gives the signs of the live feed."""

    filters = PICKED
    headers = ("Feed-State",)
    optional_headers = ("Age", "Cache-Status")

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def version(self, codes: Sequence[str]) -> object:
        """Give what is another thing when the feed has said something of some stops."""
        return (self.feed.state, *map(self.feed.boards.version, codes))

    async def display(self, codes: list[str], query: Query) -> StopsDisplay:
        """Give the sign of some stops."""
        sign = await self.feed.runner.run(self._sign(codes, query))
        ages = [stop.age for stop in sign.stops if stop.as_of is not None]
        headers: list[tuple[str, str]] = [("Feed-State", self.feed.state)]
        if ages:
            ttl = min(floor(self.feed.limits.fresh - max(ages)), -1)
            headers += [("Age", f"{ceil(max(ages))}"), ("Cache-Status", cache_status("stale", ttl))]
        return StopsDisplay(sign, "stale" if ages else "hit", tuple(headers))

    def _sign(self, codes: list[str], query: Query) -> Generator[None, None, DepartureDisplay]:
        horizon = query.horizon or DEFAULT_HORIZON
        stops = []
        for code in codes:
            board = self.feed.boards.board(code, horizon)
            passes = replace(query, limit=None).select(board.passtimes, self.feed.timetable.public_number)
            stops.append(stop_display(self.feed, board, passes))
            yield
        return DepartureDisplay(tuple(stops), horizon).first(query.limit)


@implementer(IDisplaySource)
class CacheDisplays:
    """Gives the signs of a gateway's boards, which tell no names of stops, no colours and no messages."""

    filters = (LIMIT, LINE, HORIZON)
    headers = ()
    optional_headers = ()

    def __init__(self, cache: BoardCache, clock: IReactorTime) -> None:
        self._cache = cache
        self._clock = clock

    def version(self, codes: Sequence[str]) -> object:
        """Give what is another thing when another board of some stops has come."""
        return tuple(entry and entry.board.received_at for entry in map(self._cache.peek, codes))

    async def display(self, codes: list[str], query: Query) -> StopsDisplay:
        """Give the sign of some stops; all are asked for before the first is waited for."""
        if query.direction is not None:
            raise InvalidParameter("direction is not supported by this source")
        horizon = query.horizon or DEFAULT_HORIZON
        asked = [self._cache.board(code) for code in codes]
        # Together, so that one that fails while another is waited for is heard, and all end with the connection.
        found = await DeferredList(
            [one if isinstance(one, Deferred) else succeed(one) for _, one in asked], consumeErrors=True
        )
        stops = [self._stop(code, entry, query.lines, horizon) for code, (_, entry) in zip(codes, found, strict=True)]
        results = {result for result, _ in asked}
        orders: tuple[Result, ...] = ("miss", "joined", "stale", "hit")
        result = next(one for one in orders if one in results)
        return StopsDisplay(DepartureDisplay(tuple(stops), horizon).first(query.limit), result, ())

    def _stop(self, code: str, found: Entry | Failure, lines: frozenset[str], horizon: float) -> StopDisplay:
        if isinstance(found, Failure):
            if not found.check(NoBoard):
                found.raiseException()
            return StopDisplay(code, "down")
        stale = self._cache.age(found) > self._cache.limits.fresh
        return board_display(found.board, self._clock.seconds(), stale, lines, horizon)
