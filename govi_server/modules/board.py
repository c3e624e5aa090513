"""GET /board/<TimingPointCode>[,...]: what a traveller sees, as a page, as lines of text, or as JSON."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

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
from govi_server.modules import declared
from govi_server.modules import feed_handler as govi_server_modules_feed_handler
from govi_server.modules import query_parameters as govi_server_modules_query_parameters
from govi_server.modules.display_source import IDisplaySource, StopsDisplay
from govi_server.modules.feed_handler import RETRY_AFTER
from govi_server.modules.query_parameters import (
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
from govi_server.openapi.schema import TEXT as WORDS
from govi_server.pages import board_page
from govi_server.pages.assets import policy
from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.web_handler import ICacheableModule, ResponseSender, WebHandler

HTML, TEXT, JSON = "text/html", "text/plain", "application/json"
FORMS = ((HTML, WORDS), (TEXT, WORDS), (JSON, declared.SIGN))


class _Fields:
    """Names of fields, commas between them."""

    _name = f"(?:{'|'.join(plain.FIELDS)})"
    schema = {"type": "string", "pattern": f"^,*{_name}(?:,+{_name})*,*$"}

    def read(self, text: str) -> tuple[str, ...] | None:
        """Read it; None for what is none."""
        names = tuple(split(text))
        return names if names and set(names) <= set(plain.FIELDS) else None

    def __str__(self) -> str:
        return f"some of {', '.join(plain.FIELDS)}"


# The longest word in place of a time fits.
CHARS = Parameter("chars", Integer("characters", 11, 500), "Of text: characters of a line, to fit a sign.", 40)
FIELDS = Parameter(
    "fields", _Fields(), "Of text and JSON: what of each departure is told, commas between them.", "line,time"
)

_ASK = "/board/57330430"
EXAMPLES = (
    Example("For an LED sign of four lines of 24 characters", f"{_ASK}?limit=4&chars=24&lang=en", TEXT),
    Example("Other columns", f"{_ASK}?limit=4&fields=time,line,destination,words", TEXT),
    Example("For a program", f"{_ASK}?limit=2", JSON),
    Example("A stop that nobody knows", "/board/1", JSON, 404),
    Example("A parameter that is wrong", f"{_ASK}?limit=many", JSON, 400),
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
        """Declare the one path."""
        about, perhaps = self.signs.headers, self.signs.optional_headers
        none = ("Cache-Control", "Content-Language", "ETag")
        found, failed = (*none, *about), (*none, "Retry-After", *about)
        answers = (
            *(
                ResponseSpec(200, "The board, in the form that Accept wants.", *form, found, perhaps)
                for form in FORMS
            ),
            govi_server_modules_feed_handler.INVALID_PARAMETER,
            *(ResponseSpec(404, "None of these stops is known.", *form, none, about) for form in FORMS),
            *(ResponseSpec(503, "Nothing recent is known.", *form, failed, perhaps) for form in FORMS),
        )
        parameters = (govi_server_modules_query_parameters.CODES, *self.signs.filters, LANG, VIEW, CHARS, FIELDS)
        return [
            Operation(
                f"/{self.name}/{{TimingPointCodes}}",
                "Departure boards, as a page, as lines of text or as JSON: say in Accept which",
                answers,
                parameters,
                "Of text there is a line for each departure, with chars exactly that long: minutes below ten, then "
                "the time on the clock. Where nothing leaves, a line says so. Of JSON, the state of a stop is live, "
                "planned, last_known (as_of says of when), none, unknown or down, that of a departure on_time, late, "
                "early, planned, unknown, cancelled, stopped or last_known; time is ready to be shown, words "
                "are for people, in the language asked for; minutes are what is left at least, null of what is "
                "cancelled or of unknown delay, and expected is null where nobody has said when.",
                EXAMPLES,
            )
        ]

    async def write(self, sign: DepartureDisplay, form: Form) -> bytes:
        """Write a sign in a form."""
        now = self.clock.seconds()
        if form.kind == TEXT:
            writing = plain.lines(sign, form.lang, now, form.fields or plain.LINE, form.chars)
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
        body = await self._module.write(told.display.delayed(MAX_AGE), form)
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
