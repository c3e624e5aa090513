"""What the modules that answer from the live feed share: what may be asked, and what is said with a board."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor

from govi_server.contract import Choice, Parameter, Text, Whole, said_in
from govi_server.departures.times import MINUTE
from govi_server.kv78turbo.boards import StopBoard
from govi_server.kv78turbo.feed import Condition, Feed
from govi_server.kv78turbo.passes import Pass
from govi_server.ready import Ready, at_hand
from govi_server.response import Fields, Representation
from govi_server.web_handler import WebHandler

MAX_AGE = 10
"""Seconds for which a client may keep a board: the feed changes it by the second, displays ask twice a minute."""

RETRY_AFTER = 30
"""Seconds after which a board may be there that is not now: the feed repeats itself in as many (DOMAIN.md 2.2)."""

MOST_CODES = 100
"""Stops that may be asked for at once."""

LIMIT = Parameter("limit", Whole("departures", 1, 9999), "The most departures that are wanted of each stop.", 5)
LINE = Parameter("line", Text(), "Only these LinePublicNumbers or LinePlanningNumbers, commas between them.", "1,160")
DIRECTION = Parameter("direction", Choice(("1", "2")), "Only this LineDirection.")
HORIZON = Parameter("horizon", Whole("minutes", 1, 24 * 60), "How many minutes to look ahead.", 30)
PICKED = (LIMIT, LINE, DIRECTION, HORIZON)
"""What may be said in the query of anything that has passes."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which passes are wanted. The parameters are our own: limit, line, direction, horizon."""

    limit: int | None = None
    lines: frozenset[str] = frozenset()
    """LinePublicNumbers or LinePlanningNumbers; none is any."""
    direction: str | None = None
    horizon: float | None = None
    """Seconds; None is what the module gives by itself."""

    def of(self, passes: Iterable[Pass], public_number: Callable[[Pass], str]) -> list[Pass]:
        """Pick the passes that are wanted. public_number: gives the LinePublicNumber of a pass."""
        wanted = []
        for one in passes:
            if self.lines and not {one.line_planning_number, public_number(one)} & self.lines:
                continue
            if self.direction is not None and one.line_direction != self.direction:
                continue
            wanted.append(one)
        return wanted[: self.limit]


def read_query(text: str) -> Query:
    """Read a query string; parameters that are not ours are passed over. Raises BadQuery."""
    said = said_in(text)
    limit, line, direction, horizon = (parameter.of(said) for parameter in PICKED)
    return Query(
        limit,
        frozenset(number for number in (line or "").split(",") if number),
        direction,
        None if horizon is None else horizon * MINUTE,
    )


TIMING_POINT_CODE = Text(10, "[0-9]{1,10}", 1, "a TimingPointCode, 1 to 10 digits")


def answer(
    feed: Feed,
    made: Representation,
    conditions: Sequence[tuple[Condition, float]],
    headers: Fields = (),
    max_age: int = MAX_AGE,
) -> Ready:
    """Answer with what was made of some boards, and with how far they can be relied upon.

    max_age: seconds for which a client may keep it.
    """
    age = max((age for _, age in conditions), default=0.0)
    stale = any(condition == "stale" for condition, _ in conditions)
    more = (*headers, ("Feed-State", feed.state))
    if not stale:
        return at_hand(made, "hit", max_age, max_age, headers=more)
    return at_hand(made, "stale", max_age, min(floor(feed.limits.fresh - age), -1), ceil(age), more)


class LiveHandler(WebHandler):
    """Answers one question from the live feed."""

    feed: Feed

    def without(self, condition: Condition) -> tuple[str, dict[str, str]]:
        """Give the status and header fields of an answer that has no board, for this reason."""
        headers = {"Cache-Control": "no-store", "Feed-State": self.feed.state}
        if condition == "unknown":
            return "404 Not Found", headers
        return "503 Service Unavailable", {**headers, "Retry-After": f"{RETRY_AFTER}"}


def split(text: str) -> list[str]:
    """List the members of a comma list once each, in order; a comma at its end is nothing."""
    return list(dict.fromkeys(code for code in text.split(",") if code))


def condition_of(feed: Feed, boards: Iterable[StopBoard]) -> Condition:
    """Tell why there is none of these boards: that one is not there now goes before that there never was one."""
    reasons = {feed.condition(board)[0] for board in boards}
    order: tuple[Condition, ...] = ("old", "down", "unknown")
    return next((reason for reason in order if reason in reasons), "unknown")
