"""The sources of departure displays: the live feed, or the cache in front of a gateway."""

from collections.abc import Awaitable, Generator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from msgspec import structs
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from govi_server.departures.cache import BoardCache, Entry, Result
from govi_server.departures.display import DepartureDisplay, StopDisplay, board_display
from govi_server.departures.query import DEFAULT_HORIZON, Query
from govi_server.departures.source import NoBoard
from govi_server.http.caching.cached_response import CachedResponse, cache_status
from govi_server.http.parameters import InvalidParameter, Parameter
from govi_server.kv78turbo.display import stop_display
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import stale_ttl
from govi_server.kv78turbo.joined_stop import JoinedPasstime
from govi_server.modules.feed_responses import respond_now
from govi_server.modules.query_parameters import FILTERS, HORIZON, LIMIT, LINE
from govi_server.runtime.bounded_memory import BoundedMemory
from govi_server.runtime.cooperative import CooperativeRunner, map_in_steps
from govi_server.statistics.records import CacheResult
from govi_server.web_handler import ErrorResponse, Fetch

MAX_RESPONSE_BYTES = 32 << 20
"""Maximum size of the stored responses with displays of gateways' boards."""


class IDisplaySource(Interface):
    """A source of departure displays."""

    runner: "CooperativeRunner" = Attribute("Runs the work on displays.")
    memory: "BoundedMemory[Any]" = Attribute("Stores responses with displays.")
    filters: "tuple[Parameter, ...]" = Attribute("The supported filters.")
    headers: "tuple[str, ...]" = Attribute("Names of the header fields of every display.")
    optional_headers: "tuple[str, ...]" = Attribute("Names of the header fields of some displays.")

    def display(codes: "list[str]", query: "Query") -> "Awaitable[DisplayResult]":
        """Return the display of stops, known or unknown. Raises InvalidParameter for an unsupported filter."""

    def version(codes: "Sequence[str]") -> object:
        """Return a token that changes whenever these stops' displays may have changed."""

    def cost(codes: "Sequence[str]", query: "Query") -> int:
        """Return the cost of the display of stops; see web_handler.Responder."""

    def respond_now(codes: "Sequence[str]", query: "Query", fetch: "Fetch") -> "Any":
        """Return the response that fetch returns if it is made from memory with little work, else fetch."""


@dataclass(frozen=True, slots=True)
class DisplayResult:
    """A display, with its cache result and the header fields about its freshness."""

    display: DepartureDisplay
    result: CacheResult
    headers: tuple[tuple[str, str], ...]


@implementer(IDisplaySource)
class FeedDisplays:
    """Displays of the live feed."""

    filters = FILTERS
    headers = ("Feed-State",)
    optional_headers = ("Age", "Cache-Status")

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.runner = feed.runner
        self.memory = feed.boards.documents

    def version(self, codes: Sequence[str]) -> object:
        """Return a token that changes with the feed's state and with data about these stops."""
        if len(codes) == 1:  # for speed
            return self.feed.state, self.feed.boards.version(codes[0])
        return self.feed.state, *self.feed.boards.versions(codes)

    def cost(self, codes: Sequence[str], query: Query) -> int:
        """Return the cost of the display of stops; see web_handler.Responder."""
        horizon = query.horizon_or(DEFAULT_HORIZON)
        return self.feed.boards.cost(codes, horizon)

    def respond_now(self, codes: Sequence[str], query: Query, fetch: Fetch) -> CachedResponse | ErrorResponse | Fetch:
        """Return the response that fetch returns if it is made from memory with little work, else fetch."""
        if len(codes) > 1:
            return fetch
        return respond_now(self.feed, codes[0], query.horizon_or(DEFAULT_HORIZON), fetch)

    async def display(self, codes: list[str], query: Query) -> DisplayResult:
        """Return the display of the stops."""
        display = await self.runner.run(self._display(codes, query))
        ages = [stop.age for stop in display.stops if stop.as_of is not None]
        headers: list[tuple[str, str]] = [("Feed-State", self.feed.state)]
        if ages:
            status = cache_status("stale", stale_ttl(self.feed, max(ages)))
            headers += [("Age", f"{ceil(max(ages))}"), ("Cache-Status", status)]
        return DisplayResult(display, "stale" if ages else "hit", tuple(headers))

    def _public_number(self, entry: JoinedPasstime) -> str:
        return self.feed.timetable.public_number(entry.passtime)

    def _display(self, codes: list[str], query: Query) -> Generator[None, None, DepartureDisplay]:
        horizon = query.horizon_or(DEFAULT_HORIZON)
        stops = []
        unlimited = replace(query, limit=None)
        for code in codes:
            board = yield from self.feed.boards.board_steps(code, horizon)
            entries = unlimited.select(board.entries, self._public_number)
            stop = yield from stop_display(self.feed, board, entries)
            stops.append(structs.replace(stop, rows=stop.rows[: query.limit]))
        return DepartureDisplay(tuple(stops), horizon)


@implementer(IDisplaySource)
class CacheDisplays:
    """Displays of a gateway's boards, without stop names, colours and messages."""

    filters = (LIMIT, LINE, HORIZON)
    headers = ()
    optional_headers = ()

    def __init__(self, cache: BoardCache, clock: IReactorTime) -> None:
        self._cache = cache
        self._clock = clock
        self.runner = cache.runner
        self.memory: BoundedMemory[Any] = BoundedMemory(MAX_RESPONSE_BYTES)

    def version(self, codes: Sequence[str]) -> object:
        """Return a token that changes with the boards of these stops."""
        return tuple(entry and entry.board.received_at for entry in map(self._cache.peek, codes))

    def cost(self, codes: Sequence[str], query: Query) -> int:
        """Return the cost of the display of stops; see web_handler.Responder."""
        return len(codes)

    def respond_now(self, codes: Sequence[str], query: Query, fetch: Fetch) -> CachedResponse | ErrorResponse | Fetch:
        """Return fetch: it may need a gateway request."""
        return fetch

    async def display(self, codes: list[str], query: Query) -> DisplayResult:
        """Return the display of the stops, which are requested concurrently."""
        if query.direction is not None:
            raise InvalidParameter("direction is not supported by this source")
        horizon = query.horizon_or(DEFAULT_HORIZON)
        boards = await self.runner.run(self._boards(codes))
        # A DeferredList leaves no failure unhandled while other boards are awaited; cancelling it ends all waits.
        entries = await DeferredList(
            [entry if isinstance(entry, Deferred) else succeed(entry) for _, entry in boards], consumeErrors=True
        )
        received = [(code, entry) for code, (_, entry) in zip(codes, entries, strict=True)]
        stops = await self.runner.run(
            map_in_steps(lambda stop: self._stop(*stop, query.lines, horizon), received, size=1)
        )
        results = {result for result, _ in boards}
        order: tuple[Result, ...] = ("miss", "joined", "stale", "hit")
        worst = next(result for result in order if result in results)
        return DisplayResult(DepartureDisplay(tuple(stops), horizon).first(query.limit), worst, ())

    def _boards(self, codes: list[str]) -> Generator[None, None, list[tuple[Result, Entry | Deferred[Entry]]]]:
        """Look the stops up, in steps: for each that is missing, a request to the gateway is sent."""
        boards: list[tuple[Result, Entry | Deferred[Entry]]] = []
        try:
            for code in codes:
                boards.append(self._cache.board(code))
                yield
        except GeneratorExit:  # the request was cancelled
            for _, entry in boards:
                if isinstance(entry, Deferred):
                    entry.addErrback(lambda failure: None)
                    entry.cancel()
            raise
        return boards

    def _stop(self, code: str, entry: Entry | Failure, lines: frozenset[str], horizon: float) -> StopDisplay:
        if isinstance(entry, Failure):
            if not entry.check(NoBoard):
                entry.raiseException()
            return StopDisplay(code, "down")
        stale = self._cache.age(entry) > self._cache.limits.fresh
        return board_display(entry.board, self._clock.seconds(), stale, lines, horizon)
