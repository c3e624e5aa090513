"""The parameters that URL modules share, and how they are read from a request. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from govi_server.departures.query import Query
from govi_server.departures.times import MINUTE
from govi_server.departures.timing_point import TIMING_POINT_CODE_PATTERN, is_timing_point_code
from govi_server.http.negotiation import best_language
from govi_server.http.parameters import Enum, Integer, InvalidParameter, Parameter, String, parse_query
from govi_server.http.request import Environ
from govi_server.pages.texts import LANGUAGES

MOST_CODES = 100
"""Stops in one request."""


CODES = Parameter(
    "TimingPointCodes",
    String(
        pattern=f",*{TIMING_POINT_CODE_PATTERN}(?:,+{TIMING_POINT_CODE_PATTERN}){{0,{MOST_CODES - 1}}},*",
        name="TimingPointCodes, 1 to 10 digits each",
    ),
    f"Stops, {MOST_CODES} at most, separated by commas.",
    "57330430,57330080",
    "path",
    True,
)


MAX_ROWS, MAX_WALL_ROWS, MAX_STACKED_ROWS = 20, 7, 2
"""Departures of each stop on a page without a limit; on a wall, where nobody scrolls; on a wall with more than two
stops, which stand below one another."""


MAX_ECHO_LENGTH = 100
"""Characters of an invalid code that are echoed."""


def echoed(code: str) -> str:
    """Return an invalid code as the response echoes it, cut to MAX_ECHO_LENGTH.

    A path is decoded as latin-1, while most clients mean its bytes as UTF-8.
    """
    return code[:MAX_ECHO_LENGTH].encode("latin-1").decode("utf-8", "replace")


VIEW = Parameter("view", Enum(("wall",)), "For a large screen that is read from a distance.")


def read_page(env: Environ, stops: int) -> tuple[Query, str]:
    """Return which departures a page of so many stops shows, and its language. Raises InvalidParameter."""
    text = env.get("query_string", "")
    query, parameters = read_query(text), parse_query(text)
    lang, view = language(env, parameters), VIEW.parse(parameters)
    if query.limit is None:
        query = replace(query, limit=MAX_ROWS if view is None else MAX_WALL_ROWS if stops <= 2 else MAX_STACKED_ROWS)
    return query, lang


def read_codes(text: str) -> tuple[str, ...]:
    """Parse comma-separated TimingPointCodes; return () if one is invalid. Raises InvalidParameter for too many."""
    codes = tuple(split(text))
    if len(codes) > MOST_CODES:
        raise InvalidParameter(f"TimingPointCodes must be at most {MOST_CODES}")
    return codes if all(map(is_timing_point_code, codes)) else ()


LIMIT = Parameter("limit", Integer("departures", 1, 9999), "The maximum number of departures of each stop.", 5)


LINE = Parameter(
    "line", String(), "Only these LinePublicNumbers or LinePlanningNumbers, separated by commas.", "1,160"
)


DIRECTION = Parameter("direction", Enum(("1", "2")), "Only this LineDirection.")


HORIZON = Parameter("horizon", Integer("minutes", 1, 24 * 60), "Minutes to look ahead.", 30)


PICKED = (LIMIT, LINE, DIRECTION, HORIZON)
"""The filters of everything that has passtimes."""


def read_query(text: str) -> Query:
    """Parse the filters in a query string; unknown parameters are ignored. Raises InvalidParameter."""
    parameters = parse_query(text)
    limit, line, direction, horizon = (parameter.parse(parameters) for parameter in PICKED)
    return Query(
        limit,
        frozenset(number for number in (line or "").split(",") if number),
        direction,
        None if horizon is None else horizon * MINUTE,
    )


TIMING_POINT_CODE = String(10, TIMING_POINT_CODE_PATTERN, 1, "a TimingPointCode, 1 to 10 digits")


def split(text: str) -> list[str]:
    """Return the distinct members of a comma-separated list, in order; empty ones are ignored."""
    return list(dict.fromkeys(code for code in text.split(",") if code))


def stop_of(codes: Sequence[str]) -> str:
    """Return the stop of a request for these TimingPointCodes, as ResponseSender.set_stop() takes it."""
    return "" if not codes else codes[0] if len(codes) == 1 else "several"


LANG = Parameter("lang", Enum(LANGUAGES), "The language; by default the client's preferred one.", "nl")


VARY = "Accept-Language, Accept-Encoding"
"""The request fields on which a response in the client's language depends."""


def language(env: Environ, parameters: Mapping[str, str]) -> str:
    """Return the language of the response: lang, or else the best of Accept-Language. Raises InvalidParameter."""
    lang: str | None = LANG.parse(parameters)
    return lang or best_language(",".join(env.get_all("accept-language", [])), LANGUAGES)
