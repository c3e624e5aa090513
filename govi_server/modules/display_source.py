"""The sources of departure displays: the live feed, or the cache in front of a gateway."""

from collections.abc import Awaitable, Collection, Generator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from govi_server.departures.cache import BoardCache, Entry, Result
from govi_server.departures.display import DepartureDisplay, StopDisplay, board_display, place_display
from govi_server.departures.place_index import PlaceIndex
from govi_server.departures.places import Place, code_of, is_place_id
from govi_server.departures.query import DEFAULT_HORIZON, Query
from govi_server.departures.similar_codes import MAX_SIMILAR
from govi_server.departures.source import NoBoard
from govi_server.departures.timing_point import are_timing_point_codes, is_timing_point_code
from govi_server.http.caching.cached_response import CachedResponse, cache_status
from govi_server.http.caching.response_cache import MAX_AGE
from govi_server.http.parameters import InvalidParameter, Parameter
from govi_server.kv78turbo.display import stop_display
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import stale_ttl
from govi_server.kv78turbo.selection import Selection, calls_before_others
from govi_server.modules.feed_responses import respond_now
from govi_server.modules.query_parameters import AFTER, BOARD_FILTERS, CODES, HORIZON, LINE, STOPS, are_stops
from govi_server.runtime.bounded_memory import BoundedMemory
from govi_server.runtime.cooperative import CooperativeRunner, map_in_steps
from govi_server.statistics.records import CacheResult
from govi_server.web_handler import ErrorResponse, Fetch

MAX_RESPONSE_BYTES = 32 << 20
"""Maximum size of the stored responses with displays of gateways' boards."""

MAX_CHEAP_STOPS = 4
"""Stops of a place whose board is made at once, if those of all of them are."""


class IDisplaySource(Interface):
    """A source of departure displays."""

    runner: "CooperativeRunner" = Attribute("Runs the work on displays.")
    memory: "BoundedMemory[Any]" = Attribute("Stores responses with displays.")
    stops: "Parameter" = Attribute("Describes the stops in a path.")
    filters: "tuple[Parameter, ...]" = Attribute("The supported filters.")
    headers: "tuple[str, ...]" = Attribute("Names of the header fields of every display.")
    optional_headers: "tuple[str, ...]" = Attribute("Names of the header fields of some displays.")

    def are_stops(codes: "Collection[str]") -> bool:
        """Return whether these are valid stops of a path."""

    def display(codes: "list[str]", query: "Query") -> "Awaitable[DisplayResult]":
        """Return the display of stops, known or unknown. Raises InvalidParameter for an unsupported filter."""

    def version(codes: "Sequence[str]", query: "Query") -> object:
        """Return a token that changes whenever these stops' displays may have changed."""

    def cost(codes: "Sequence[str]", query: "Query") -> int:
        """Return the cost of the display of stops; see web_handler.Responder."""

    def similar(text: str) -> "Awaitable[tuple[str, ...]]":
        """Return the ids and names of places that may be meant by a text that is no code, three at most."""

    def similar_cost(text: str) -> int:
        """Return the cost of similar(); see web_handler.Responder."""

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

    stops = STOPS
    filters = BOARD_FILTERS
    headers = ("Feed-State",)
    optional_headers = ("Age", "Cache-Status")

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.runner = feed.runner
        self.memory = feed.boards.documents

    def are_stops(self, codes: Collection[str]) -> bool:
        """Return whether these are all TimingPointCodes or ids of places."""
        return are_stops(codes)

    def version(self, codes: Sequence[str], query: Query) -> object:
        """Return a token that changes with the feed's state and with data about these stops."""
        boards = self.feed.boards
        if len(codes) == 1 and not query.to and codes[0].isdigit():  # for speed
            return self.feed.state, boards.version(codes[0])
        index = self.feed.places.latest
        members = [member for code in codes for member in _members(code, index)]
        if not query.to:
            return self.feed.state, tuple(members), *boards.versions(members)
        destination = _destination(query.to, index)
        # Words are not looked up for this; the timetable's version changes with each publication.
        return (
            self.feed.state,
            tuple(members),
            *boards.versions([*members, *destination]),
            self.feed.timetable.version,
        )

    def cost(self, codes: Sequence[str], query: Query) -> int:
        """Return the cost of the display of stops; see web_handler.Responder."""
        horizon = query.horizon_or(DEFAULT_HORIZON)
        index = self.feed.places.latest
        cost = self.feed.boards.cost([member for code in codes for member in _members(code, index)], horizon)
        return 2 * cost if query.to else cost

    def respond_now(self, codes: Sequence[str], query: Query, fetch: Fetch) -> CachedResponse | ErrorResponse | Fetch:
        """Return the response that fetch returns if it is made from memory with little work, else fetch."""
        if len(codes) > 1 or query.to:
            return fetch
        index = self.feed.places.latest
        if index is None and is_place_id(codes[0]):
            return fetch
        horizon = query.horizon_or(DEFAULT_HORIZON)
        first, *others = _members(codes[0], index)
        if len(others) >= MAX_CHEAP_STOPS or not all(self.feed.boards.is_cheap(code, horizon) for code in others):
            return fetch
        return respond_now(self.feed, first, horizon, fetch)

    async def display(self, codes: list[str], query: Query) -> DisplayResult:
        """Return the display of the stops. Raises InvalidParameter if no place has the words of a destination."""
        await self.feed.restoration.wait(codes)
        index = None
        if query.to or any(map(is_place_id, codes)):
            index = await self.feed.places.index()
        display = await self.runner.run(self._display(codes, query, index))
        ages = [stop.age for stop in display.stops if stop.as_of is not None]
        headers: list[tuple[str, str]] = [("Feed-State", self.feed.state)]
        if ages:
            status = cache_status("stale", stale_ttl(self.feed, max(ages)))
            headers += [("Age", f"{ceil(max(ages))}"), ("Cache-Status", status)]
        return DisplayResult(display, "stale" if ages else "hit", tuple(headers))

    async def similar(self, text: str) -> tuple[str, ...]:
        """Return the ids and names of places that may be meant by a text that is no code, three at most."""
        index = await self.feed.places.index()
        places = await self.runner.run(index.find(text))
        return tuple([f"{place.id} {_full_name(place)}" for place in places[:MAX_SIMILAR]])

    def similar_cost(self, text: str) -> int:
        """Return the cost of similar(); see web_handler.Responder."""
        index = self.feed.places.latest
        return 1 if index is None else index.cost(text)

    def _display(
        self, codes: list[str], query: Query, index: PlaceIndex | None
    ) -> Generator[None, None, DepartureDisplay]:
        horizon = query.horizon_or(DEFAULT_HORIZON)
        destination = None
        if query.to:
            assert index is not None
            destination = _destination(query.to, index) or (yield from _destination_by_words(query.to, index))
        selection = Selection(self.feed, query, destination)
        now = self.feed.clock.seconds()
        stops = []
        for number, code in enumerate(codes):
            boards, displays = [], []
            for member in _members(code, index):
                boards.append((yield from self.feed.boards.board_steps(member, horizon)))
            omitted: Collection[bytes] = ()
            if is_place_id(code):
                omitted = yield from calls_before_others(boards)
            for board in boards:
                entries = (entry for entry in board.entries if entry.key not in omitted) if omitted else board.entries
                displays.append((yield from stop_display(self.feed, board, selection.select(entries))))
            stop = displays[0]
            if is_place_id(code):
                assert index is not None
                place = index.place(code)
                name, town = (stop.name, stop.town) if place is None else (place.name, place.town)
                stop = yield from place_display(code, name, town, displays)
            # Boards are displayed up to MAX_AGE later.
            after = query.after_at(number)
            stops.append(stop.leaving(after and after + MAX_AGE, now).first(query.limit))
        return DepartureDisplay(tuple(stops), horizon, self.feed.is_fictional)


def _full_name(place: Place) -> str:
    return f"{place.town}, {place.name}" if place.town else place.name


def _members(code: str, index: PlaceIndex | None) -> tuple[str, ...]:
    """Return the TimingPointCodes of a stop or a place; that in its id if the place is unknown."""
    if not is_place_id(code):
        return (code,)
    place = None if index is None else index.place(code)
    return (code_of(code),) if place is None else place.codes


def _destination(text: str, index: PlaceIndex | None) -> tuple[str, ...]:
    """Return the TimingPointCodes of the place with an id or a TimingPointCode; () for words."""
    if is_place_id(text):
        return _members(text, index)
    if not is_timing_point_code(text):
        return ()
    place = None if index is None else index.place_of(text)
    return (text,) if place is None else place.codes


def _destination_by_words(text: str, index: PlaceIndex) -> Generator[None, None, tuple[str, ...]]:
    """Return the TimingPointCodes of the place that matches best, in steps. Raises InvalidParameter without any."""
    places = yield from index.find(text)
    if not places:
        raise InvalidParameter("to must be the id, the code or the name of a place")
    return places[0].codes


@implementer(IDisplaySource)
class CacheDisplays:
    """Displays of a gateway's boards, without stop names, colours and messages."""

    stops = CODES
    filters = (BOARD_FILTERS[0], LINE, HORIZON, AFTER)
    headers = ()
    optional_headers = ()

    def __init__(self, cache: BoardCache, clock: IReactorTime) -> None:
        self._cache = cache
        self._clock = clock
        self.runner = cache.runner
        self.memory: BoundedMemory[Any] = BoundedMemory(MAX_RESPONSE_BYTES)

    def are_stops(self, codes: Collection[str]) -> bool:
        """Return whether these are all TimingPointCodes: a gateway has no places."""
        return are_timing_point_codes(codes)

    def version(self, codes: Sequence[str], query: Query) -> object:
        """Return a token that changes with the boards of these stops."""
        return self._cache.era, *(entry and entry.board.received_at for entry in map(self._cache.peek, codes))

    def cost(self, codes: Sequence[str], query: Query) -> int:
        """Return the cost of the display of stops; see web_handler.Responder."""
        return len(codes)

    async def similar(self, text: str) -> tuple[str, ...]:
        """Return nothing: the names of stops are unknown."""
        return ()

    def similar_cost(self, text: str) -> int:
        """Return the cost of similar(); see web_handler.Responder."""
        return 1

    def respond_now(self, codes: Sequence[str], query: Query, fetch: Fetch) -> CachedResponse | ErrorResponse | Fetch:
        """Return fetch: it may need a gateway request."""
        return fetch

    async def display(self, codes: list[str], query: Query) -> DisplayResult:
        """Return the display of the stops, which are requested concurrently.

        Raises InvalidParameter for an unsupported filter.
        """
        unsupported = {"direction": query.direction, "to": query.to, "mode": query.modes, "operator": query.operators}
        if name := next((name for name, value in unsupported.items() if value), None):
            raise InvalidParameter(f"{name} is not supported by this source")
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
        now = self._clock.seconds()
        leaving = [
            stop.leaving(after and after + MAX_AGE, now)
            for stop, after in ((stop, query.after_at(number)) for number, stop in enumerate(stops))
        ]
        return DisplayResult(DepartureDisplay(tuple(leaving), horizon).first(query.limit), worst, ())

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
