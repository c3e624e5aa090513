"""GET /board/<stop or place>[,...]: a departure board for travellers, as a page, as lines of text, or as JSON."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from msgspec import Struct, structs
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from govi_server.departures.display import DepartureDisplay, StopDisplay
from govi_server.departures.query import DEFAULT_HORIZON, Query
from govi_server.documents import board as board_documents
from govi_server.http.caching.cached_response import CachedResponse, Validity, VersionValidator
from govi_server.http.caching.representation import Representation, represent
from govi_server.http.caching.response_cache import MAX_AGE, ResponseCache
from govi_server.http.error_responses import HTML, JSON, PROBLEM, TEXT
from govi_server.http.negotiation import best_type, prefers_gzip
from govi_server.http.parameters import Integer, Parameter, parse_query
from govi_server.http.request import Environ
from govi_server.http.response import NO_STORE, Fields
from govi_server.modules.display_source import DisplayResult, IDisplaySource
from govi_server.modules.feed_responses import INVALID_PARAMETER, RETRY_AFTER
from govi_server.modules.query_parameters import (
    LANG,
    LIMIT,
    LOOKS,
    VARY,
    echoed,
    read_codes,
    read_page,
    require_stops,
    split,
    stop_of,
)
from govi_server.openapi.description import Example, IDocumented, Operation, ResponseSpec
from govi_server.pages import board_page
from govi_server.pages.assets import policy
from govi_server.pages.texts import stop_words
from govi_server.web_handler import ErrorResponse, Fetch, ICacheableModule, Mark, Responder

FORMATS: tuple[tuple[str, Any], ...] = ((HTML, str), (TEXT, str), (JSON, board_documents.Board))
"""The content types of a board, each with the type of its body."""

ERROR_FORMATS = (*FORMATS[:2], (PROBLEM, board_documents.BoardProblem))


class _Fields:
    """A parameter type: names of fields, separated by commas."""

    _name = f"(?:{'|'.join(board_documents.FIELDS)})"
    schema = {"type": "string", "pattern": f"^,*{_name}(?:,+{_name})*,*$"}

    def parse(self, text: str) -> tuple[str, ...] | None:
        """Parse the names; return None if one is unknown."""
        names = tuple(split(text))
        return names if names and set(names) <= set(board_documents.FIELDS) else None

    def __str__(self) -> str:
        return f"some of {', '.join(board_documents.FIELDS)}"


# The minimum fits the longest word that replaces a time.
CHARS = Parameter("chars", Integer("characters", 11, 500), "For text: the exact length of a line, to fit a sign.", 40)
FIELDS = Parameter(
    "fields", _Fields(), "For text and JSON: the fields of each departure, separated by commas.", "line,time"
)

_URL = "/board/57330430"
EXAMPLES = (
    Example("For an LED sign of four lines of 24 characters", f"{_URL}?limit=4&chars=24&lang=en", TEXT),
    Example("Other columns", f"{_URL}?limit=4&fields=time,line,destination,words", TEXT),
    Example("For a program", f"{_URL}?limit=2", JSON),
    Example("An unknown stop", "/board/1", JSON, 404),
    Example("An invalid parameter", f"{_URL}?limit=many", JSON, 400),
)

SELF = ("'self'",)  # /make shows the page in a frame
_PASSED_ON = (
    "limit",
    "line",
    "direction",
    "horizon",
    "after",
    "to",
    "mode",
    "operator",
    *(look.name for look in LOOKS),
)


class BoardFormat(Struct, frozen=True):
    """The format of a board: its content type and options."""

    content_type: str
    lang: str
    query: tuple[tuple[str, str], ...]
    """The parameters that the page's links pass on."""
    fields: tuple[str, ...] | None = None
    chars: int | None = None


class BoardRequest(NamedTuple):
    """The inputs of a response, besides the departures of the stops."""

    codes: tuple[str, ...]
    """() if the path has no stops, or an invalid one."""
    query: Query
    format: BoardFormat
    compressed: bool


def parse_board_request(env: Environ, codes: tuple[str, ...]) -> BoardRequest:
    """Parse the query and the header fields of a request for these stops. Raises InvalidParameter."""
    query, lang = read_page(env, len(codes))
    parameters = parse_query(env.get("query_string", ""))
    content_type = best_type(",".join(env.get_all("accept", [])), (HTML, TEXT, JSON, PROBLEM))
    content_type = JSON if content_type == PROBLEM else content_type
    if content_type != HTML and LIMIT.name not in parameters:
        query = structs.replace(query, limit=None)
    passed_on = tuple((name, parameters[name]) for name in _PASSED_ON if parameters.get(name))
    board_format = BoardFormat(content_type, lang, passed_on, FIELDS.parse(parameters), CHARS.parse(parameters))
    return BoardRequest(codes, query, board_format, prefers_gzip(env))


@implementer(ICacheableModule, IDocumented)
class BoardPages(Service):
    """Serves the departure displays of a source.

    is_demo: whether pages say that all departures are fictional. embed: the sites that may show them in a frame,
    besides /make.
    """

    name = "board"

    def __init__(
        self, source: IDisplaySource, clock: IReactorTime, is_demo: bool = False, embed: Sequence[str] = ("*",)
    ) -> None:
        self.source = source
        self._is_demo = is_demo
        # Other sites may show the page in a frame: its form only selects departures. "*" would exclude local files.
        ancestors = "" if "*" in embed else f"; frame-ancestors {' '.join(SELF + tuple(embed))}"
        self._headers = policy(f"form-action 'self'{ancestors}")
        self.clock = clock
        self.responses = ResponseCache(clock, source.memory)
        self._runner = source.runner
        self._filters = tuple([parameter.name for parameter in source.filters])

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        always, optional = self.source.headers, self.source.optional_headers
        common = ("Cache-Control", "Content-Language", "ETag")
        success, failure = (*common, *always), (*common, "Retry-After", *always)
        responses = (
            *(
                ResponseSpec(200, "The board, in the format that Accept selects.", *body, success, optional)
                for body in FORMATS
            ),
            INVALID_PARAMETER,
            *(
                ResponseSpec(404, "None of the stops is known.", *body, ("Cache-Control",), (*common[1:], *always))
                for body in ERROR_FORMATS
            ),
            *(ResponseSpec(503, "No recent data is available.", *body, failure, optional) for body in ERROR_FORMATS),
        )
        return [
            Operation(
                f"/{self.name}/{{TimingPointCodes}}",
                "Departure boards as a page, as lines of text or as JSON, depending on Accept",
                responses,
                (self.source.stops, *self.source.filters, LANG, *LOOKS, CHARS, FIELDS),
                "Text has a line for each departure, exactly chars long, with the remaining minutes if below ten, "
                "else the time. A stop without departures has a line with a message. In JSON, the state of a stop is "
                "live, planned, last_known (as_of is the time of its data), none, unknown or down; that of a "
                "departure is on_time, late, early, planned, unknown, cancelled, stopped or last_known. time is "
                "ready for display, words is a text in the language of the response. minutes is a lower bound of the "
                "remaining minutes, null if the departure is cancelled or its delay is unknown; expected is null "
                "without an expected time.",
                EXAMPLES,
                noun="Board",
            )
        ]

    def responder(self, env: Environ) -> Responder:
        """Parse the stops, the filters and the format of the board. Raises InvalidParameter."""
        text = env["path_info"].removeprefix("/board").removeprefix("/").removesuffix("/")
        codes = read_codes(text, self.source.are_stops)
        request = parse_board_request(env, codes)
        if codes:
            cost = self.source.cost(codes, request.query)
            return Responder(partial(self._respond, request), stop_of(codes), cost)
        require_stops(text, "/board/57330430")
        fetch = partial(self._not_found, request, echoed(text))
        return Responder(lambda: fetch, cost=self.source.similar_cost(echoed(text)))

    def _respond(self, request: BoardRequest) -> CachedResponse | ErrorResponse | Fetch:
        cached = self.responses.lookup(request)
        if cached is not None:
            return cached
        response: CachedResponse | ErrorResponse | Fetch = self.source.respond_now(
            request.codes, request.query, partial(self._fetch, request)
        )
        return response

    async def _fetch(self, request: BoardRequest, mark: Mark) -> CachedResponse | ErrorResponse:
        """Fetch and render the board; return it, or an error."""
        validator = VersionValidator(partial(self.source.version, request.codes, request.query))
        displays = await self.source.display(list(request.codes), request.query)
        mark("wait" if displays.result in ("miss", "joined") else "lookup", displays.result)
        if not any(stop.has_data for stop in displays.display.stops):
            return await self._error(displays, request)
        representation, headers = await self._represent(displays, request)
        result = displays.result  # the displays are larger, and must not be stored with the response

        def make(max_age: int, validity: Validity | None) -> CachedResponse:
            cache_control = ("Cache-Control", f"public, max-age={max_age}")
            return CachedResponse(representation, (*headers, cache_control), result, validity)

        return self.responses.store(request, validator, make)

    async def _not_found(self, request: BoardRequest, text: str, mark: Mark) -> ErrorResponse:
        """Return the error response for a path that is no list of codes, with places of which it may be the name."""
        similar = await self.source.similar(text)
        mark("lookup", "none")
        if request.format.content_type == HTML and not similar:  # a page with a search
            return ErrorResponse("404 Not Found", (NO_STORE,), f"No stop with the code '{text}'\n")
        unknown = StopDisplay(text, "unknown", similar=similar)
        displays = DisplayResult(DepartureDisplay((unknown,), DEFAULT_HORIZON), "none", ())
        return await self._error(displays, request)

    async def _error(self, displays: DisplayResult, request: BoardRequest) -> ErrorResponse:
        """Return the error response of stops without data."""
        status = "404 Not Found"
        retry_after: Fields = ()
        if any(stop.state != "unknown" for stop in displays.display.stops):
            status, retry_after = "503 Service Unavailable", (("Retry-After", f"{RETRY_AFTER}"),)
        representation, headers = await self._represent(displays, request, status)
        headers = (*representation.headers, NO_STORE, *headers, *retry_after)
        return ErrorResponse(status, headers, representation.body, displays.result)

    async def _represent(
        self, displays: DisplayResult, request: BoardRequest, error: str = ""
    ) -> tuple[Representation, Fields]:
        """Render a board; return it with its header fields. error: the status of an error, "" without one."""
        board_format = request.format
        # Clients that cache it for MAX_AGE must not overstate the remaining time.
        display = displays.display.delayed(MAX_AGE)
        pieces = self.write(display, board_format)
        content_type, vary = f"{board_format.content_type}; charset=utf-8", f"Accept, {VARY}"
        if error and board_format.content_type == JSON:
            detail = stop_words(display.stops[0], display.horizon, board_format.lang)
            pieces = board_documents.problem(pieces, error[4:], int(error[:3]), detail)
            content_type = PROBLEM
        encoded = (piece.encode() for piece in pieces)
        representation = await self._runner.run(represent(encoded, content_type, request.compressed, vary=vary))
        type_headers = self._headers if board_format.content_type == HTML else ()
        return representation, (*displays.headers, ("Content-Language", board_format.lang), *type_headers)

    def write(self, display: DepartureDisplay, board_format: BoardFormat) -> Iterator[str]:
        """Format a display, in pieces."""
        now, lang, fields = self.clock.seconds(), board_format.lang, board_format.fields
        if board_format.content_type == TEXT:
            fields = fields or board_documents.LINE_FIELDS
            return board_documents.lines(display, lang, now, fields, board_format.chars)
        if board_format.content_type == JSON:
            return board_documents.document(display, lang, now, fields or board_documents.FIELDS)
        query, filters = dict(board_format.query), self._filters
        return board_page.page(display, lang, now, query, filters, self._is_demo)
