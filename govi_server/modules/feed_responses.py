"""Responses of the live feed's URL modules: header fields about freshness, and errors."""

from math import ceil

from govi_server.http.caching.cached_response import CachedResponse, Validator, Validity, cached_response
from govi_server.http.caching.representation import Representation
from govi_server.http.caching.response_cache import MAX_AGE
from govi_server.http.response import NO_STORE, Fields
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import SERVABLE, Freshness, seconds_fresh, stale_ttl
from govi_server.kv78turbo.stop_departures import StopDepartures
from govi_server.openapi.description import ResponseSpec
from govi_server.statistics.records import CacheResult, Phase
from govi_server.web_handler import ErrorResponse, Fetch

FEED_HEADERS = ("Cache-Control", "Cache-Status", "ETag", "Feed-State")
NOT_FOUND_HEADERS = ("Cache-Control", "Feed-State")
UNAVAILABLE_HEADERS = ("Cache-Control", "Feed-State", "Retry-After")

DRIS_55 = (
    "Each stop has a TimingPoint, with a Trip for each departure, or Error instead of a board. Times are "
    "local times of OperatingDate; after midnight their hours continue from 24. Ignore unknown elements; any element "
    "of a Trip may be missing."
)


def dris_55_noun(module: str) -> str:
    """Return the noun of the operation of a module that serves DRIS_55: Kv55Document for kv55."""
    return "".join(f"{part[:1].upper()}{part[1:]}" for part in module.split("-")) + "Document"


INVALID_PARAMETER = ResponseSpec(400, "A parameter is invalid; the body names it.", headers=("Cache-Control",))

RETRY_AFTER = 30
"""Seconds after which a client may retry: about the time in which the feed repeats its data (docs/protocols.md,
section 2.2)."""


class StopValidator:
    """Current until the departures of a stop, or the feed's state, may have changed."""

    __slots__ = ("_code", "_feed", "_state", "_version")

    def __init__(self, feed: Feed, code: str) -> None:
        self._feed = feed
        self._code = code
        self._state = feed.state
        self._version = feed.boards.version(code)

    @property
    def is_current(self) -> bool:
        """Whether neither has changed."""
        return self._feed.boards.version(self._code) == self._version and self._feed.state == self._state


class ServedData:
    """The freshness of the data that a response serves, and the reasons why other data is omitted."""

    def __init__(self) -> None:
        self._ages: list[float] = []
        self._is_stale = False
        self._reasons: set[Freshness] = set()

    def add(self, freshness: tuple[Freshness, float]) -> bool:
        """Add data with its freshness and age in seconds; return whether it is served."""
        state, age = freshness
        if state not in SERVABLE:
            self._reasons.add(state)
            return False
        self._ages.append(age)
        self._is_stale = self._is_stale or state == "stale"
        return True

    def __bool__(self) -> bool:
        return bool(self._ages)

    @property
    def freshness(self) -> tuple[Freshness, float]:
        """The overall freshness, "fresh" or "stale", and the age of the oldest data in seconds."""
        return "stale" if self._is_stale else "fresh", max(self._ages, default=0.0)

    @property
    def reason(self) -> Freshness:
        """Why nothing is served: "old" before "down" before "unknown"."""
        order: tuple[Freshness, ...] = ("old", "down", "unknown")
        return next((reason for reason in order if reason in self._reasons), "unknown")


def feed_response(
    feed: Feed,
    representation: Representation,
    freshness: tuple[Freshness, float],
    headers: Fields = (),
    max_age: int = MAX_AGE,
    validity: Validity | None = None,
) -> CachedResponse:
    """Return a response with a representation of stops, and the header fields about their freshness.

    freshness: see ServedData. max_age: seconds for which clients may cache it.
    """
    state, age = freshness
    headers = (*headers, ("Feed-State", feed.state))
    if state == "stale":
        return cached_response(representation, "stale", max_age, stale_ttl(feed, age), ceil(age), headers)
    return cached_response(representation, "hit", max_age, max_age, None, headers, validity)


def board_response(
    feed: Feed,
    board: StopDepartures,
    representation: Representation,
    headers: Fields = (),
    validator: Validator | None = None,
) -> CachedResponse | None:
    """Return a response with a representation of a stop's departures; None if they are not servable.

    validator: of what the response depends on; only the stop's departures by default.
    """
    freshness = feed.freshness(board)
    if freshness[0] not in SERVABLE:
        return None
    validity = None
    if freshness[0] == "fresh":
        now = feed.clock.seconds()
        until = min(board.valid_until, now + seconds_fresh(feed, board))
        validity = Validity(now, until, validator or StopValidator(feed, board.code))
    return feed_response(feed, representation, freshness, headers, validity=validity)


def respond_now(feed: Feed, code: str, horizon: float, fetch: Fetch) -> CachedResponse | ErrorResponse | Fetch:
    """Return the response with a stop's departures if they are made from memory with little work, else fetch."""
    if not feed.boards.is_cheap(code, horizon):
        return fetch
    return feed.runner.result_now(fetch(_ignore_mark)) or fetch


def _ignore_mark(phase: Phase, cache: CacheResult | None = None) -> None:
    """Do nothing: all of it is the look-up."""


def no_departures(feed: Feed, reason: Freshness) -> tuple[str, Fields]:
    """Return the status and header fields of an error response for a reason."""
    headers = (NO_STORE, ("Feed-State", feed.state))
    if reason == "unknown":
        return "404 Not Found", headers
    return "503 Service Unavailable", (*headers, ("Retry-After", f"{RETRY_AFTER}"))
