"""The parameters that URL modules share, and their parsing. Pure."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from msgspec import structs

from govi_server.departures.modes import MODES
from govi_server.departures.place_index import MAX_QUERY_CHARACTERS
from govi_server.departures.places import PLACE_ID_PATTERN, Place, is_place_id
from govi_server.departures.query import Query
from govi_server.departures.times import MINUTE
from govi_server.departures.timing_point import (
    MAX_TIMING_POINT_CODE,
    TIMING_POINT_CODE_FORMAT,
    TIMING_POINT_CODE_PATTERN,
    are_timing_point_codes,
    is_timing_point_code,
)
from govi_server.http.negotiation import best_language
from govi_server.http.parameters import Enum, Integer, InvalidParameter, Json, Parameter, String, parse_query
from govi_server.http.request import Environ
from govi_server.pages.assets import THEMES
from govi_server.pages.front_page import LinkedStop
from govi_server.pages.texts import LANGUAGES
from govi_server.runtime.text import printable
from govi_server.statistics.records import SEVERAL

MAX_CODES = 1000
"""Members of a list: stops, areas, lines or journeys. A client of OVapi requests 500 stops at once."""

CODES = Parameter(
    "TimingPointCodes",
    String(
        pattern=f",*{TIMING_POINT_CODE_PATTERN}(?:,+{TIMING_POINT_CODE_PATTERN}){{0,{MAX_CODES - 1}}},*",
        name=f"TimingPointCodes, {TIMING_POINT_CODE_FORMAT} each",
    ),
    f"Stops, {MAX_CODES} at most, separated by commas.",
    "57330430,57330080",
    "path",
    True,
)

STOP_PATTERN = f"(?:{TIMING_POINT_CODE_PATTERN}|{PLACE_ID_PATTERN})"
"""Of a TimingPointCode or the id of a place."""

STOPS = Parameter(
    "TimingPointCodes",
    String(
        pattern=f",*{STOP_PATTERN}(?:,+{STOP_PATTERN}){{0,{MAX_CODES - 1}}},*",
        name=f"TimingPointCodes, {TIMING_POINT_CODE_FORMAT} each, or ids of /places",
    ),
    f"Stops or places, {MAX_CODES} at most, separated by commas: TimingPointCodes, and ids of /places, whose board "
    "has the departures of all their stops in one list.",
    "57330430,p57330080",
    "path",
    True,
)


MAX_ROWS = 20
"""The default limit of departures per stop on a page. A wall shows those that fit."""

MAX_ECHO_LENGTH = 100
"""Characters of an invalid code that are echoed."""


def echoed(code: str) -> str:
    """Return an invalid code as it is echoed in a response, printable and truncated to MAX_ECHO_LENGTH.

    Paths are decoded as latin-1, while most clients send UTF-8.
    """
    return printable(code[:MAX_ECHO_LENGTH].encode("latin-1").decode("utf-8", "replace"), MAX_ECHO_LENGTH)


VIEW = Parameter("view", Enum(("wall",)), "For a large screen, read from a distance: as many departures as fit.")

ROTATE = Parameter(
    "rotate", Integer("seconds", 5, 120), "For a wall: show further departures as pages, each this long.", 10
)

SIZE = Parameter("size", Enum(("small", "large", "huge")), "For a wall: the type is 0.8, 1.25 or 1.6 times as large.")

THEME = Parameter(
    "theme",
    Enum(THEMES),
    "The colours of the page; by default those that the browser prefers. paper is for e-paper: black on white.",
)

LOOKS = (VIEW, ROTATE, SIZE, THEME)
"""The parameters of a page's appearance."""


def read_page(env: Environ, stops: int) -> tuple[Query, str]:
    """Return the query and the language of a page with this many stops. Raises InvalidParameter."""
    text = env.get("query_string", "")
    query, parameters = read_board_query(text, stops), parse_query(text)
    for look in LOOKS:
        look.parse(parameters)
    if query.limit is None:
        query = structs.replace(query, limit=MAX_ROWS)
    return query, language(env, parameters)


def read_list(text: str, name: str) -> list[str]:
    """Return the distinct members of a comma-separated list, in order; empty ones are ignored.

    name: of the list, for errors. Raises InvalidParameter for more than MAX_CODES.
    """
    members = split(text)
    if len(members) > MAX_CODES:
        raise InvalidParameter(f"{name} must be at most {MAX_CODES}, not {len(members)}")
    return members


def read_codes(text: str, are_valid: Callable[[Collection[str]], bool] = are_timing_point_codes) -> tuple[str, ...]:
    """Parse comma-separated TimingPointCodes; return () if one is invalid. Raises InvalidParameter for too many."""
    codes = tuple(read_list(text, "TimingPointCodes"))
    return codes if are_valid(codes) else ()


def require_stops(text: str, example: str) -> None:
    """Raise InvalidParameter for a list without members. example: a path with one."""
    if not split(text):
        raise InvalidParameter(f"The path has no stop (expected a path such as {example}; / and /places find stops)")


def are_stops(texts: Collection[str]) -> bool:
    """Return whether texts without commas are all TimingPointCodes or ids of places, at least one."""
    return are_timing_point_codes(texts) or (
        bool(texts) and all(is_timing_point_code(text) or is_place_id(text) for text in texts)
    )


LIMIT = Parameter("limit", Integer("departures", 1, 9999), "The maximum number of departures of each stop.", 5)

LINE = Parameter(
    "line", String(), "Only these LinePublicNumbers or LinePlanningNumbers, separated by commas.", "1,160"
)

DIRECTION = Parameter("direction", Enum(("1", "2")), "Only this LineDirection.")

HORIZON = Parameter("horizon", Integer("minutes", 1, 24 * 60), "Minutes to look ahead.", 30)

FILTERS = (LIMIT, LINE, DIRECTION, HORIZON)
"""The filters of responses with passtimes."""

MAX_AFTER = 12 * 60
"""Minutes until departure that may be required."""

_AFTER_PATTERN = "(?:[0-9]{1,2}|[1-6][0-9]{2}|7[01][0-9]|720)"  # numbers up to MAX_AFTER


class _Minutes:
    """A parameter type: one number of minutes, or one for each stop, separated by commas; "" for none."""

    schema: Json = {"type": "string", "pattern": f"^(?:{_AFTER_PATTERN}(?:,{_AFTER_PATTERN})*)?$"}

    def parse(self, text: str) -> tuple[int, ...] | None:
        """Parse the numbers; return None if one is invalid."""
        numbers = [_ONE_NUMBER.parse(part) for part in text.split(",")] if text else []
        valid = tuple([number for number in numbers if number is not None])
        return valid if len(valid) == len(numbers) else None

    def __str__(self) -> str:
        return f"numbers of minutes from 0 to {MAX_AFTER}, separated by commas"


_ONE_NUMBER = Integer("minutes", 0, MAX_AFTER)


@dataclass(frozen=True, slots=True)
class _Members:
    """A parameter type: members of a fixed set, separated by commas; "" for all."""

    values: tuple[str, ...]

    @property
    def schema(self) -> Json:
        """The JSON Schema of the values."""
        value = f"(?:{'|'.join(self.values)})"
        return {"type": "string", "pattern": f"^,*(?:{value}(?:,+{value})*,*)?$"}

    def parse(self, text: str) -> frozenset[str] | None:
        """Parse the members; return None if one is unknown."""
        members = frozenset(split(text))
        return members if members <= set(self.values) else None

    def __str__(self) -> str:
        return f"some of {', '.join(self.values)}"


AFTER = Parameter(
    "after",
    _Minutes(),
    "Only departures that leave in this many minutes or later, such as the time to walk to the stop: one number for "
    "all stops, or one for each, separated by commas.",
    "5",
)

TO = Parameter(
    "to",
    String(MAX_QUERY_CHARACTERS),
    "Only departures of journeys that call later at this place: an id of /places, a code, or words as for /places. "
    "If the call there is cancelled, the departure is marked as cancelled.",
    "linde markt",
)

MODE = Parameter("mode", _Members(MODES), "Only these modes of transport, separated by commas.", "bus,tram")

OPERATOR = Parameter("operator", String(), "Only these operators (DataOwnerCodes), separated by commas.", "GVB,CXX")

BOARD_FILTERS = (
    Parameter(
        LIMIT.name,
        LIMIT.type,
        "The maximum number of departures of each stop that can be taken; cancelled ones between them do not count.",
        LIMIT.example,
    ),
    *(LINE, DIRECTION, HORIZON, AFTER, TO, MODE, OPERATOR),
)
"""The filters of boards."""


def read_query(text: str) -> Query:
    """Parse the filters in a query string; unknown parameters are ignored. Raises InvalidParameter."""
    parameters = parse_query(text)
    limit, line, direction, horizon = (parameter.parse(parameters) for parameter in FILTERS)
    return Query(
        limit,
        frozenset(number for number in (line or "").split(",") if number),
        direction,
        None if horizon is None else horizon * MINUTE,
    )


def read_board_query(text: str, stops: int) -> Query:
    """Parse the filters of a board with this many stops in a query string. Raises InvalidParameter."""
    parameters = parse_query(text)
    after, to, modes, operators = (parameter.parse(parameters) for parameter in (AFTER, TO, MODE, OPERATOR))
    if after and len(after) not in (1, stops):
        raise InvalidParameter(f"after must be one number, or one for each of the {stops} stops, not {len(after)}")
    return structs.replace(
        read_query(text),
        after=tuple([minutes * MINUTE for minutes in after or ()]),
        to=(to or "").strip(),
        modes=modes or frozenset(),
        operators=frozenset(split(operators or "")),
    )


TIMING_POINT_CODE = String(
    MAX_TIMING_POINT_CODE, TIMING_POINT_CODE_PATTERN, 1, f"a TimingPointCode, {TIMING_POINT_CODE_FORMAT}"
)


def split(text: str) -> list[str]:
    """Return the distinct members of a comma-separated list, in order; empty ones are ignored."""
    return list(filter(None, dict.fromkeys(text.split(","))))


def stop_of(codes: Sequence[str]) -> str:
    """Return the stop of a request for these TimingPointCodes, for ResponseSender.set_stop()."""
    return "" if not codes else codes[0] if len(codes) == 1 else SEVERAL


LANG = Parameter("lang", Enum(LANGUAGES), "The language; by default the client's preferred one.", "nl")


QUERY = Parameter(
    "q", String(MAX_QUERY_CHARACTERS), "Words of a stop's name or town, or its code: the page lists the matches."
)

MAX_LISTED_CODES = 3
"""TimingPointCodes of a place that pages list."""


def linked_place(place: Place) -> LinkedStop:
    """Return a place for a list on a page."""
    codes = (*place.codes[:MAX_LISTED_CODES], *(["…"] if len(place.codes) > MAX_LISTED_CODES else []))
    return LinkedStop(place.id, place.name, place.town, ", ".join(codes), place.modes)


VARY = "Accept-Language, Accept-Encoding"
"""The request fields that select a response in the client's language."""


def language(env: Environ, parameters: Mapping[str, str]) -> str:
    """Return the language of the response: lang, else the best match of Accept-Language. Raises InvalidParameter."""
    lang: str | None = LANG.parse(parameters)
    return lang or best_language(",".join(env.get_all("accept-language", [])), LANGUAGES)
