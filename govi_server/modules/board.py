"""GET /board/<TimingPointCode>[,...]: what a traveller sees, as a page, as lines of text, or as JSON."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from govi_server.departures.display import DepartureDisplay, StopDisplay
from govi_server.departures.query import DEFAULT_HORIZON, Query
from govi_server.documents import board as plain
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import make_representation
from govi_server.http.caching.response_cache import MAX_AGE, ResponseCache
from govi_server.http.negotiation import best_type, prefers_gzip
from govi_server.http.parameters import Integer, InvalidParameter, Parameter, parse_query
from govi_server.http.request import Environ
from govi_server.modules.display_source import IDisplaySource, StopsDisplay
from govi_server.modules.feed_handler import INVALID_PARAMETER, RETRY_AFTER
from govi_server.modules.query_parameters import (
    CODES,
    LANG,
    LIMIT,
    VARY,
    VIEW,
    echoed,
    read_codes,
    read_page,
    split,
)
from govi_server.openapi.description import Example, IDocumented, Operation, ResponseSpec
from govi_server.pages import board_page
from govi_server.pages.assets import policy
from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.web_handler import ICacheableModule, ResponseSender, WebHandler

HTML, TEXT, JSON = "text/html", "text/plain", "application/json"
FORMS: tuple[tuple[str, Any], ...] = ((HTML, str), (TEXT, str), (JSON, plain.Board))
"""The content types of a board, each with the type of its body."""


class _Fields:
    """Names of fields, separated by commas."""

    _name = f"(?:{'|'.join(plain.FIELDS)})"
    schema = {"type": "string", "pattern": f"^,*{_name}(?:,+{_name})*,*$"}

    def parse(self, text: str) -> tuple[str, ...] | None:
        """Return the names; None if one is unknown."""
        names = tuple(split(text))
        return names if names and set(names) <= set(plain.FIELDS) else None

    def __str__(self) -> str:
        return f"some of {', '.join(plain.FIELDS)}"


# Long enough for the longest word in place of a time.
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

# That others show the page in a frame is wanted: there is nothing on it to be clicked on by mistake.
_HEADERS = policy("form-action 'none'")
_PASSED_ON = ("limit", "line", "direction", "horizon", "view")


@dataclass(frozen=True, slots=True)
class Form:
    """In what form a board is wanted."""

    kind: str
    lang: str
    query: tuple[tuple[str, str], ...]
    """The parameters that the page's links keep."""
    fields: tuple[str, ...] | None = None
    chars: int | None = None


def read_form(env: Environ, stops: int) -> tuple[Query, Form]:
    """Read what is wanted of so many stops, from a request's query and header. Raises BadQuery."""
    query, lang = read_page(env, stops)
    said = parse_query(env.get("query_string", ""))
    kind = best_type(",".join(env.get_all("accept", [])), (HTML, TEXT, JSON))
    if kind != HTML and LIMIT.name not in said:
        query = replace(query, limit=None)
    passed_on = tuple((name, said[name]) for name in _PASSED_ON if said.get(name))
    return query, Form(kind, lang, passed_on, FIELDS.parse(said), CHARS.parse(said))


class BoardRequest(NamedTuple):
    """What is asked for: all that an answer depends on, beside what is known of the stops."""

    codes: tuple[str, ...]
    query: Query
    form: Form
    compressed: bool


def parse_board_request(env: Environ) -> BoardRequest:
    """Read what a request asks for; no codes if its path has none, or what is none. Raises BadQuery."""
    codes = read_codes(_text(env))
    return BoardRequest(codes, *read_form(env, len(codes)), prefers_gzip(env))


def _text(env: Environ) -> str:
    return env["path_info"].removeprefix("/board").removeprefix("/").removesuffix("/")


@implementer(ICacheableModule, IDocumented)
class BoardPages(Service):
    """Answers under its name with the signs of a source."""

    name = "board"

    def __init__(self, signs: IDisplaySource, clock: IReactorTime) -> None:
        self.signs = signs
        self.clock = clock
        self.kept = ResponseCache(clock)
        self._turns = CooperativeRunner(clock)

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "BoardHandler":
        """Make the handler of one request."""
        return BoardHandler(self, request_handler, env)

    def ready(self, env: Environ) -> Callable[[], CachedResponse | None] | None:
        """Give what answers with the board for as long as it is kept."""
        try:
            asked = parse_board_request(env)
        except InvalidParameter:
            return None
        return partial(self.at_hand, asked) if asked.codes else None

    def at_hand(self, asked: BoardRequest) -> CachedResponse | None:
        """Give the answer that is kept, if it holds."""
        return self.kept.get(asked, self.signs.version(asked.codes))

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        always, optional = self.signs.headers, self.signs.optional_headers
        common = ("Cache-Control", "Content-Language", "ETag")
        success, failure = (*common, *always), (*common, "Retry-After", *always)
        responses = (
            *(ResponseSpec(200, "The board, in the form of Accept.", *form, success, optional) for form in FORMS),
            INVALID_PARAMETER,
            *(ResponseSpec(404, "None of the stops is known.", *form, common, always) for form in FORMS),
            *(ResponseSpec(503, "There is no recent data.", *form, failure, optional) for form in FORMS),
        )
        return [
            Operation(
                f"/{self.name}/{{TimingPointCodes}}",
                "Departure boards as a page, as lines of text or as JSON, depending on Accept",
                responses,
                (CODES, *self.signs.filters, LANG, VIEW, CHARS, FIELDS),
                "Text has a line for each departure, exactly chars long: the minutes left below ten, the time from "
                "then on. A stop without departures has a line that says so. In JSON, the state of a stop is live, "
                "planned, last_known (as_of is the time of its data), none, unknown or down; that of a departure is "
                "on_time, late, early, planned, unknown, cancelled, stopped or last_known. time is ready for "
                "display, words is a text in the language of the response. minutes is the least time that is left, "
                "null if the departure is cancelled or its delay is unknown; expected is null without an expected "
                "time.",
                EXAMPLES,
            )
        ]

    async def write(self, sign: DepartureDisplay, form: Form) -> bytes:
        """Write a sign in a form."""
        now = self.clock.seconds()
        if form.kind == TEXT:
            writing = plain.lines(sign, form.lang, now, form.fields or plain.LINE_FIELDS, form.chars)
        elif form.kind == JSON:
            writing = plain.document(sign, form.lang, now, form.fields or plain.FIELDS)
        else:
            writing = board_page.page(sign, form.lang, now, dict(form.query))
        return (await self._turns.run(writing)).encode()


class BoardHandler(WebHandler):
    """Answers one question about one stop or some."""

    def __init__(self, module: BoardPages, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the board, or say why there is none."""
        signs = self._module.signs
        asked = parse_board_request(self.env)
        ready = self._module.at_hand(asked)
        if ready is not None:
            self.mark("lookup", ready.cache)
            self.send_representation(ready)
            return
        version = signs.version(asked.codes)
        if asked.codes:
            told = await signs.display(list(asked.codes), asked.query)
        else:
            told = StopsDisplay(
                DepartureDisplay((StopDisplay(echoed(_text(self.env)) or "?", "unknown"),), DEFAULT_HORIZON),
                "none",
                (),
            )
        self.mark("wait" if told.result in ("miss", "joined") else "lookup", told.result)
        await self._send(told, asked, version)

    async def _send(self, told: StopsDisplay, asked: BoardRequest, version: object) -> None:
        form = asked.form
        # Whoever keeps it for so long is still not told of more time than there is.
        body = await self._module.write(told.display.kept(MAX_AGE), form)
        made = make_representation(body, f"{form.kind}; charset=utf-8", asked.compressed, vary=f"Accept, {VARY}")
        headers = [*told.headers, ("Content-Language", form.lang), *(_HEADERS if form.kind == HTML else ())]
        if form.kind != HTML:
            headers.append(("X-Content-Type-Options", "nosniff"))
        if any(stop.shown for stop in told.display.stops):
            result = told.result

            def say(max_age: int) -> CachedResponse:
                return CachedResponse(made, (*headers, ("Cache-Control", f"public, max-age={max_age}")), result)

            self.send_representation(self._module.kept.put(asked, version, say))
            return
        self.mark("render", told.result)
        if all(stop.state == "unknown" for stop in told.display.stops):
            status = "404 Not Found"
        else:
            status = "503 Service Unavailable"
            headers.append(("Retry-After", f"{RETRY_AFTER}"))
        self.send_response(made.body, status, [*made.headers, ("Cache-Control", "no-store"), *headers])
