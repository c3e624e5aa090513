"""GET /board/<TimingPointCode>[,...]: what a traveller sees, as a page, as lines of text, or as JSON."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from govi_server.conditional import prefers_gzip
from govi_server.contract import TEXT as WORDS
from govi_server.contract import Answer, BadQuery, Choice, Example, Parameter, Path, Whole, said_in
from govi_server.departures.sign import Sign, StopSign
from govi_server.environ import Environ
from govi_server.interfaces import IDeclared, IDepartureSigns, IReadyModule
from govi_server.kv55.messages import is_timing_point_code
from govi_server.modules import declared
from govi_server.modules.kept import Kept
from govi_server.modules.kv55 import echoed
from govi_server.modules.languages import LANG, VARY, language
from govi_server.modules.live import LIMIT, MAX_AGE, MOST_CODES, RETRY_AFTER, Query, read_query, split
from govi_server.modules.signs import HORIZON, Told
from govi_server.negotiation import best_type
from govi_server.pages import board, plain
from govi_server.pages.assets import policy
from govi_server.ready import Ready
from govi_server.request_handler import RequestHandler
from govi_server.response import represent
from govi_server.slices import Turns
from govi_server.web_handler import WebHandler

HTML, TEXT, JSON = "text/html", "text/plain", "application/json"
FORMS = ((HTML, WORDS), (TEXT, WORDS), (JSON, declared.SIGN))

MOST_ROWS, MOST_ON_WALL, MOST_BELOW = 20, 7, 2
"""Departures of each stop on a page if nothing else is asked for; on a wall, where nobody scrolls; and there with
more than two stops, of which the others are below."""


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


VIEW = Parameter("view", Choice(("wall",)), "For a large screen that is read from afar.")
# The longest word in place of a time fits.
CHARS = Parameter("chars", Whole("characters", 11, 500), "Of text: characters of a line, to fit a sign.", 40)
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


def read_page(env: Environ, stops: int) -> tuple[Query, str]:
    """Read which departures a page of so many stops is wanted to have, and in which language. Raises BadQuery."""
    text = env.get("query_string", "")
    query, said = read_query(text), said_in(text)
    lang, view = language(env, said), VIEW.of(said)
    if query.limit is None:
        query = replace(query, limit=MOST_ROWS if view is None else MOST_ON_WALL if stops <= 2 else MOST_BELOW)
    return query, lang


def read_form(env: Environ, stops: int) -> tuple[Query, Form]:
    """Read what is wanted of so many stops, from a request's query and header. Raises BadQuery."""
    query, lang = read_page(env, stops)
    said = said_in(env.get("query_string", ""))
    kind = best_type(",".join(env.get_all("accept", [])), (HTML, TEXT, JSON))
    if kind != HTML and LIMIT.name not in said:
        query = replace(query, limit=None)
    passed_on = tuple((name, said[name]) for name in _PASSED_ON if said.get(name))
    return query, Form(kind, lang, passed_on, FIELDS.of(said), CHARS.of(said))


class Asked(NamedTuple):
    """What is asked for: all that an answer depends on, beside what is known of the stops."""

    codes: tuple[str, ...]
    query: Query
    form: Form
    compressed: bool


def read_asked(env: Environ) -> Asked:
    """Read what a request asks for; no codes if its path has none, or what is none. Raises BadQuery."""
    codes = read_codes(_text(env))
    return Asked(codes, *read_form(env, len(codes)), prefers_gzip(env))


def read_codes(text: str) -> tuple[str, ...]:
    """Read TimingPointCodes, commas between them; none if one of them is none. Raises BadQuery for too many."""
    codes = tuple(split(text))
    if len(codes) > MOST_CODES:
        raise BadQuery(f"these are more than {MOST_CODES} stops")
    return codes if all(map(is_timing_point_code, codes)) else ()


def _text(env: Environ) -> str:
    return env["path_info"].removeprefix("/board").removeprefix("/").removesuffix("/")


@implementer(IReadyModule, IDeclared)
class BoardPages(Service):
    """Answers under its name with the signs of a source."""

    name = "board"

    def __init__(self, signs: IDepartureSigns, clock: IReactorTime) -> None:
        self.signs = signs
        self.clock = clock
        self.kept = Kept(clock)
        self._turns = Turns(clock)

    def web_handler(self, request_handler: RequestHandler, env: Environ) -> "BoardHandler":
        """Make the handler of one request."""
        return BoardHandler(self, request_handler, env)

    def ready(self, env: Environ) -> Callable[[], Ready | None] | None:
        """Give what answers with the board for as long as it is kept."""
        try:
            asked = read_asked(env)
        except BadQuery:
            return None
        return partial(self.at_hand, asked) if asked.codes else None

    def at_hand(self, asked: Asked) -> Ready | None:
        """Give the answer that is kept, if it holds."""
        return self.kept.get(asked, self.signs.version(asked.codes))

    def contract(self) -> list[Path]:
        """Declare the one path."""
        about, perhaps = self.signs.about, self.signs.perhaps
        none = ("Cache-Control", "Content-Language", "ETag")
        found, failed = (*none, *about), (*none, "Retry-After", *about)
        answers = (
            *(Answer(200, "The board, in the form that Accept wants.", *form, found, perhaps) for form in FORMS),
            declared.WRONG,
            *(Answer(404, "None of these stops is known.", *form, none, about) for form in FORMS),
            *(Answer(503, "Nothing recent is known.", *form, failed, perhaps) for form in FORMS),
        )
        parameters = (declared.CODES, *self.signs.picked, LANG, VIEW, CHARS, FIELDS)
        return [
            Path(
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

    async def write(self, sign: Sign, form: Form) -> bytes:
        """Write a sign in a form."""
        now = self.clock.seconds()
        if form.kind == TEXT:
            writing = plain.lines(sign, form.lang, now, form.fields or plain.LINE, form.chars)
        elif form.kind == JSON:
            writing = plain.document(sign, form.lang, now, form.fields or plain.FIELDS)
        else:
            writing = board.page(sign, form.lang, now, dict(form.query))
        return (await self._turns.of(writing)).encode()


class BoardHandler(WebHandler):
    """Answers one question about one stop or some."""

    def __init__(self, module: BoardPages, request_handler: RequestHandler, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the board, or say why there is none."""
        signs = self._module.signs
        asked = read_asked(self.env)
        ready = self._module.at_hand(asked)
        if ready is not None:
            self.mark("lookup", ready.cache)
            self.send_representation(ready)
            return
        version = signs.version(asked.codes)
        if asked.codes:
            told = await signs.sign(list(asked.codes), asked.query)
        else:
            told = Told(Sign((StopSign(echoed(_text(self.env)) or "?", "unknown"),), HORIZON), "none", ())
        self.mark("wait" if told.result in ("miss", "joined") else "lookup", told.result)
        await self._send(told, asked, version)

    async def _send(self, told: Told, asked: Asked, version: object) -> None:
        form = asked.form
        # Whoever keeps it for so long is still not told of more time than there is.
        body = await self._module.write(told.sign.kept(MAX_AGE), form)
        made = represent(body, f"{form.kind}; charset=utf-8", asked.compressed, vary=f"Accept, {VARY}")
        headers = [*told.headers, ("Content-Language", form.lang), *(_HEADERS if form.kind == HTML else ())]
        if form.kind != HTML:
            headers.append(("X-Content-Type-Options", "nosniff"))
        if any(stop.shown for stop in told.sign.stops):
            result = told.result

            def say(max_age: int) -> Ready:
                return Ready(made, (*headers, ("Cache-Control", f"public, max-age={max_age}")), result)

            self.send_representation(self._module.kept.put(asked, version, say))
            return
        self.mark("render", told.result)
        if all(stop.state == "unknown" for stop in told.sign.stops):
            status = "404 Not Found"
        else:
            status = "503 Service Unavailable"
            headers.append(("Retry-After", f"{RETRY_AFTER}"))
        self.send_response(made.body, status, [*made.headers, ("Cache-Control", "no-store"), *headers])
