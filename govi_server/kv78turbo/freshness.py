"""The freshness of operators' and stops' data, by its age and the state of the feed."""

from collections.abc import Iterable
from math import floor
from typing import Literal, Protocol

from govi_server.departures.display import Reliability
from govi_server.kv78turbo.passtime import Passtime
from govi_server.kv78turbo.stop_departures import StopDepartures
from govi_server.settings import FeedLimitSettings

Freshness = Literal["fresh", "stale", "old", "unknown", "down"]
"""How reliable data is. "old", "unknown" (no such stop) and "down" (no feed, hence no data) are not served."""

SERVABLE: tuple[Freshness, ...] = ("fresh", "stale")
"""The freshness of data that is served."""


class FeedStatus(Protocol):
    """The state of a feed that freshness depends on."""

    limits: FeedLimitSettings

    @property
    def is_complete(self) -> bool:
        """Whether the feed would have reported all changes."""

    @property
    def has_all_stops(self) -> bool:
        """Whether a timetable of all stops is known, even if the feed has not sent any yet."""

    @property
    def age(self) -> float | None:
        """Seconds since the feed's latest data; None before the first."""

    def ages(self, operators: Iterable[str]) -> Iterable[tuple[float | None, float]]:
        """Return the age of each operator's latest data, None without any, and the age up to which it is fresh."""

    def is_known_stop(self, code: str) -> bool:
        """Return whether a TimingPointCode exists."""


def stale_ttl(feed: FeedStatus, age: float) -> int:
    """Return the ttl of stale data for Cache-Status (RFC 9211): seconds since it stopped being fresh, negative."""
    return min(floor(feed.limits.fresh - age), -1)


def operator_freshness(feed: FeedStatus, operator: str) -> tuple[Freshness, float]:
    """Return how fresh an operator's latest data is, and its age in seconds."""
    ((age, fresh_seconds),) = feed.ages((operator,))
    if age is None:
        return ("fresh" if feed.is_complete else "stale"), 0.0
    if age > feed.limits.stale:
        return "old", age
    return ("fresh" if age <= fresh_seconds else "stale"), age


def outdated_operators(feed: FeedStatus, departures: StopDepartures) -> frozenset[str]:
    """Return the operators of a stop's departures whose latest data is not fresh."""
    return frozenset([name for name in departures.operators if operator_freshness(feed, name)[0] != "fresh"])


def reliability(passtime: Passtime, outdated: frozenset[str]) -> Reliability:
    """Return how far a passtime can be relied on: it is no more reliable than its operator's latest data.

    outdated: see outdated_operators().
    """
    if passtime.reliability == "current" and passtime.data_owner_code in outdated:
        return "last_known"
    return passtime.reliability


def seconds_fresh(feed: FeedStatus, departures: StopDepartures) -> float:
    """Return for how many seconds a stop's departures remain fresh without new data; negative if they are stale."""
    ages = feed.ages(departures.operators)
    return min([fresh_seconds - (age or 0.0) for age, fresh_seconds in ages], default=feed.limits.fresh)


def freshness(feed: FeedStatus, departures: StopDepartures) -> tuple[Freshness, float]:
    """Return how fresh a stop's departures are, and the age in seconds of the oldest data among them."""
    # Operators that have sent no data only have planned passtimes, which do not age.
    ages = feed.ages(departures.operators)
    age = max([age or 0.0 for age, _ in ages], default=0.0)
    if departures.stale_operators and not departures.has_passtimes:
        return "old", age
    if any((age or 0.0) > fresh_seconds for age, fresh_seconds in ages):
        return "stale", age
    if departures.realtime_operators or feed.is_complete:
        is_known = departures.has_passtimes or feed.is_known_stop(departures.code)
        return ("fresh" if is_known else "unknown"), age
    # Planned departures may be late or cancelled without a report.
    if departures.has_planning:
        return "stale", feed.age or 0.0
    if not feed.has_all_stops:
        return "down", feed.age or 0.0
    return ("stale" if feed.is_known_stop(departures.code) else "unknown"), feed.age or 0.0
