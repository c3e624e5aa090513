"""GET /make: a page on which people put a display together, which is then a URL, a QR code or a snippet."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from twisted.application.service import Service
from zope.interface import implementer

from govi_server.departures.display import StopDisplay
from govi_server.departures.query import Query
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import represent
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import Enum, InvalidParameter, Parameter, String, parse_query_lists
from govi_server.http.request import Environ
from govi_server.http.response import NO_STORE
from govi_server.kv78turbo.feed import Feed
from govi_server.modules.display_source import IDisplaySource
from govi_server.modules.feed_responses import INVALID_PARAMETER
from govi_server.modules.query_parameters import AFTER, LANG, QUERY, STOP_PATTERN, THEME, VARY, language, linked_place
from govi_server.openapi.description import IDocumented, Operation, ResponseSpec
from govi_server.pages.assets import policy
from govi_server.pages.front_page import LinkedStop
from govi_server.pages.make_page import MAX_LINES, MAX_STOPS, SIZES, Display, page, walking_field
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

CONTENT_TYPE = "text/html; charset=utf-8"

STOP = Parameter(
    "stop",
    String(pattern=f"{STOP_PATTERN}?"),
    f"A TimingPointCode or an id of /places; up to {MAX_STOPS} times.",
    "p57330430",
)
SIZE = Parameter("size", Enum(tuple(SIZES)), "The kind of screen.")
LANGUAGE = Parameter("language", LANG.type, "The language of the display; by default that of each viewer.")
ORIGIN = Parameter("origin", String(300), "Scheme and host of this page, as the browser knows them.")

_HEADERS = policy("form-action 'self'; frame-ancestors 'none'; frame-src 'self'")


@implementer(IWebModule, IDocumented)
class Make(Service):
    """Serves the page.

    source: of the boards. feed: None without a live feed: a gateway's stops cannot be searched. address: the server's
    own, "" for that of the request.
    """

    name = "make"

    def __init__(self, source: IDisplaySource, feed: Feed | None, address: str = "") -> None:
        self.source = source
        self.feed = feed
        self.address = address.rstrip("/")

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "MakeHandler":
        """Return the handler of one request."""
        return MakeHandler(self, request_handler, env)

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        responses = (
            ResponseSpec(200, "The page.", "text/html", headers=("Cache-Control", "Content-Language", "ETag")),
            INVALID_PARAMETER,
        )
        parameters = (
            *([] if self.feed is None else [QUERY]),
            STOP,
            *self.source.filters,
            LANGUAGE,
            THEME,
            SIZE,
            ORIGIN,
            LANG,
        )
        summary = "Page to put a display together, with its URL, QR code and snippets"
        return [Operation("/make", summary, responses, parameters, section="Pages", noun="MakePage")]

    def origin(self, env: Environ, claimed: str) -> str:
        """Return the scheme and host in links: as configured, or as the request has them.

        claimed: by the page's script, which knows whether a proxy in front uses https. Only the scheme is believed.
        """
        host = env.get("http_host", "localhost")
        scheme = "https" if env.is_https or claimed.lower() == f"https://{host}".lower() else "http"
        return self.address or f"{scheme}://{host}"


def _parse_after(query: Mapping[str, str], codes: Sequence[str]) -> Sequence[int]:
    """Return the walking times of a query, in minutes: none, one for all of these stops, or one for each."""
    after: Sequence[int] = AFTER.parse(query) or ()
    if len(after) not in (0, 1, len(codes)):
        raise InvalidParameter(f"after must be one number, or one for each of the {len(codes)} stops")
    return after


def _walking(query: Mapping[str, str], codes: Sequence[str]) -> list[str]:
    """Return the text of each field for a walking time: one for each of these stops, or one in all.

    The field of a stop wins over its part of AFTER. Raises InvalidParameter.
    """
    texts = [str(minutes) for minutes in _parse_after(query, codes)] or [""]
    if not codes:
        return texts
    if len(texts) < len(codes):
        texts *= len(codes)
    return [query.get(walking_field(code), text) for code, text in zip(codes, texts, strict=True)]


class MakeHandler(WebHandler):
    """Handles a request for the page."""

    def __init__(self, module: Make, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the page."""
        if self.env["path_info"].removesuffix("/") != "/make":
            self.mark("lookup")
            self.request_handler.send_not_found()
            return
        module = self._module
        values = parse_query_lists(self.env.get("query_string", ""))  # an empty field of the form selects nothing
        lists = {name: [text for text in texts if text] for name, texts in values.items()}
        query = {name: texts[-1] for name, texts in lists.items() if texts}
        lang = language(self.env, query)
        for parameter in (*module.source.filters, LANGUAGE, THEME, SIZE, ORIGIN, QUERY):
            parameter.parse(query)
        codes = [*dict.fromkeys(lists.get(STOP.name, []))][:MAX_STOPS]
        if codes and not module.source.are_stops(codes):
            raise InvalidParameter(f"stop must be a TimingPointCode or an id of /places, at most {MAX_STOPS}")
        walking = _walking(query, codes)
        query[AFTER.name] = ",".join([text or "0" for text in walking] if len({*walking}) > 1 else {*walking})
        _parse_after(query, codes)
        stops: Sequence[StopDisplay] = ()
        if codes:
            self.request_handler.charge(module.source.cost(codes, Query()))
            stops = (await module.source.display(codes, Query())).display.stops
        matches = await self._matches(query.get(QUERY.name, ""), codes)
        self.mark("lookup")
        lines = dict.fromkeys(row.line for stop in stops for row in stop.rows)
        directions: defaultdict[str, dict[str, None]] = defaultdict(dict)  # destinations, in the order of departures
        for stop in stops:
            for row in stop.rows:
                directions[row.direction or ""][row.destination] = None
        display = Display(
            [LinkedStop(code, stop.name or code, stop.town, code) for code, stop in zip(codes, stops, strict=True)],
            matches,
            sorted(lines, key=lambda line: (len(line), line))[:MAX_LINES],
            {number: list(names) for number, names in directions.items()},
            module.feed is not None,
            module.origin(self.env, query.get(ORIGIN.name, "")),
            walking,
            [parameter.name for parameter in module.source.filters],
        )
        pieces = (piece.encode() for piece in page(display, lang, query, lists.get("line", [])[:MAX_LINES]))
        steps = represent(pieces, CONTENT_TYPE, prefers_gzip(self.env), vary=VARY)
        representation = await module.source.runner.run(steps)
        self.mark("render")
        self.send_representation(
            CachedResponse(representation, (*_HEADERS, ("Content-Language", lang), NO_STORE), "none")
        )

    async def _matches(self, text: str, codes: Sequence[str]) -> list[LinkedStop] | None:
        """Return the places that a search found, without those that are chosen; None without a search."""
        feed = self._module.feed
        if feed is None or not text.strip():
            return None
        index = await feed.places.index()
        self.request_handler.charge(index.cost(text))
        return [linked_place(place) for place in await feed.runner.run(index.find(text)) if place.id not in codes]
