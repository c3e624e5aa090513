"""What the modules that answer from the live feed share: what may be asked, and what is said with a board."""

from collections.abc import Iterable, Sequence
from math import ceil, floor

from govi_server.http.caching.cached_response import CachedResponse, cached_response
from govi_server.http.caching.representation import Representation
from govi_server.http.caching.response_cache import MAX_AGE
from govi_server.http.response import Fields
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import Freshness
from govi_server.kv78turbo.stop_departures import StopDepartures
from govi_server.openapi.description import ResponseSpec
from govi_server.web_handler import WebHandler

FEED_HEADERS = ("Cache-Control", "Cache-Status", "ETag", "Feed-State")


NOT_FOUND_HEADERS = ("Cache-Control", "Feed-State")


UNAVAILABLE_HEADERS = ("Cache-Control", "Feed-State", "Retry-After")


DRIS_55 = (
    "There is a TimingPoint for each stop, with a Trip for each departure, or Error in place of a board. Times are "
    "local times of OperatingDate; after midnight their hours continue from 24. Ignore unknown elements; any element "
    "of a Trip may be missing."
)


INVALID_PARAMETER = ResponseSpec(400, "A parameter is invalid; the text names it.", headers=("Cache-Control",))


RETRY_AFTER = 30
"""Seconds after which a board may be there that is not now: the feed repeats itself in as many (docs/protocols.md 2.2)."""


def answer(
    feed: Feed,
    made: Representation,
    conditions: Sequence[tuple[Freshness, float]],
    headers: Fields = (),
    max_age: int = MAX_AGE,
) -> CachedResponse:
    """Answer with what was made of some boards, and with how far they can be relied upon.

    max_age: seconds for which a client may keep it.
    """
    age = max((age for _, age in conditions), default=0.0)
    stale = any(condition == "stale" for condition, _ in conditions)
    more = (*headers, ("Feed-State", feed.state))
    if not stale:
        return cached_response(made, "hit", max_age, max_age, headers=more)
    return cached_response(made, "stale", max_age, min(floor(feed.limits.fresh - age), -1), ceil(age), more)


class FeedHandler(WebHandler):
    """Answers one question from the live feed."""

    feed: Feed

    def without(self, condition: Freshness) -> tuple[str, dict[str, str]]:
        """Give the status and header fields of an answer that has no board, for this reason."""
        headers = {"Cache-Control": "no-store", "Feed-State": self.feed.state}
        if condition == "unknown":
            return "404 Not Found", headers
        return "503 Service Unavailable", {**headers, "Retry-After": f"{RETRY_AFTER}"}


def condition_of(feed: Feed, boards: Iterable[StopDepartures]) -> Freshness:
    """Tell why there is none of these boards: that one is not there now goes before that there never was one."""
    reasons = {feed.freshness(board)[0] for board in boards}
    order: tuple[Freshness, ...] = ("old", "down", "unknown")
    return next((reason for reason in order if reason in reasons), "unknown")
