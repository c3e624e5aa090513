"""What the modules that answer from the live feed share: what may be asked, and what is said with a board."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor
from urllib.parse import parse_qsl

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

SHOWN: tuple[Condition, ...] = ("fresh", "stale")
"""The conditions of a board in which it is shown."""

MOST_CODES = 100
"""Stops that may be asked for at once."""

_NUMBER = re.compile(r"[0-9]{1,4}")
_HORIZON = range(1, 24 * 60 + 1)


class BadQuery(ValueError):
    """A query that cannot be answered; the text names the parameter."""


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
    said = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=100))
    limit, horizon, direction = (said.get(name) for name in ("limit", "horizon", "direction"))
    if limit is not None and (not _NUMBER.fullmatch(limit) or not int(limit)):
        raise BadQuery("limit is a number of departures from 1 to 9999")
    if horizon is not None and (not _NUMBER.fullmatch(horizon) or int(horizon) not in _HORIZON):
        raise BadQuery(f"horizon is a number of minutes from {_HORIZON[0]} to {_HORIZON[-1]}")
    if direction is not None and direction not in ("1", "2"):
        raise BadQuery("direction is 1 or 2")
    return Query(
        None if limit is None else int(limit),
        frozenset(line for line in said.get("line", "").split(",") if line),
        direction,
        None if horizon is None else int(horizon) * MINUTE,
    )


def answer(
    feed: Feed, made: Representation, conditions: Sequence[tuple[Condition, float]], headers: Fields = ()
) -> Ready:
    """Answer with what was made of some boards, and with how far they can be relied upon."""
    age = max((age for _, age in conditions), default=0.0)
    stale = any(condition == "stale" for condition, _ in conditions)
    more = (*headers, ("Feed-State", feed.state))
    if not stale:
        return at_hand(made, "hit", MAX_AGE, MAX_AGE, headers=more)
    return at_hand(made, "stale", MAX_AGE, min(floor(feed.limits.fresh - age), -1), ceil(age), more)


class LiveHandler(WebHandler):
    """Answers one question from the live feed."""

    feed: Feed

    def query(self) -> Query | None:
        """Read the request's query; None after a 400 if it is none."""
        try:
            return read_query(self.env.get("query_string", ""))
        except ValueError as error:
            self.mark("lookup")
            self.send_response(f"{error}\n", "400 Bad Request", {"Cache-Control": "no-store"})
            return None

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
