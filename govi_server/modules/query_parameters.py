"""In which language an answer is: the one that its address names, or else the one that the client prefers."""

from collections.abc import Mapping
from dataclasses import replace

from govi_server.departures.query import Query
from govi_server.departures.times import MINUTE
from govi_server.departures.timing_point import is_timing_point_code
from govi_server.http.negotiation import best_language
from govi_server.http.parameters import Enum, Integer, InvalidParameter, Parameter, String, parse_query
from govi_server.http.request import Environ
from govi_server.pages.texts import LANGUAGES

MOST_CODES = 100
"""Stops that may be asked for at once."""


CODES = Parameter(
    "TimingPointCodes",
    String(
        pattern=f",*[0-9]{{1,10}}(?:,+[0-9]{{1,10}}){{0,{MOST_CODES - 1}}},*",
        name="TimingPointCodes, 1 to 10 digits each",
    ),
    f"Stops, {MOST_CODES} at most, separated by commas.",
    "57330430,57330080",
    "path",
    True,
)


MOST_ROWS, MOST_ON_WALL, MOST_BELOW = 20, 7, 2
"""Departures of each stop on a page if nothing else is asked for; on a wall, where nobody scrolls; and there with
more than two stops, of which the others are below."""


MOST_ECHOED = 100
"""Characters of a wrong code that are echoed."""


def echoed(code: str) -> str:
    """Give what a client wrote for a code, as far as it is told again.

    A path is latin-1 for the bytes that it came in, which most clients mean as UTF-8.
    """
    return code[:MOST_ECHOED].encode("latin-1").decode("utf-8", "replace")


VIEW = Parameter("view", Enum(("wall",)), "For a large screen that is read from a distance.")


def read_page(env: Environ, stops: int) -> tuple[Query, str]:
    """Read which departures a page of so many stops is wanted to have, and in which language. Raises BadQuery."""
    text = env.get("query_string", "")
    query, said = read_query(text), parse_query(text)
    lang, view = language(env, said), VIEW.parse(said)
    if query.limit is None:
        query = replace(query, limit=MOST_ROWS if view is None else MOST_ON_WALL if stops <= 2 else MOST_BELOW)
    return query, lang


def read_codes(text: str) -> tuple[str, ...]:
    """Read TimingPointCodes, commas between them; none if one of them is none. Raises BadQuery for too many."""
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
"""What may be said in the query of anything that has passes."""


def read_query(text: str) -> Query:
    """Read a query string; parameters that are not ours are passed over. Raises BadQuery."""
    said = parse_query(text)
    limit, line, direction, horizon = (parameter.parse(said) for parameter in PICKED)
    return Query(
        limit,
        frozenset(number for number in (line or "").split(",") if number),
        direction,
        None if horizon is None else horizon * MINUTE,
    )


TIMING_POINT_CODE = String(10, "[0-9]{1,10}", 1, "a TimingPointCode, 1 to 10 digits")


def split(text: str) -> list[str]:
    """List the members of a comma list once each, in order; a comma at its end is nothing."""
    return list(dict.fromkeys(code for code in text.split(",") if code))


LANG = Parameter("lang", Enum(LANGUAGES), "The language; by default the client's preferred one.", "nl")


VARY = "Accept-Language, Accept-Encoding"
"""What an answer depends on that is in somebody's language."""


def language(env: Environ, said: Mapping[str, str]) -> str:
    """Choose the language of the answer to a request with these parameters. Raises BadQuery."""
    named: str | None = LANG.parse(said)
    return named or best_language(",".join(env.get_all("accept-language", [])), LANGUAGES)
