"""The front page: a search for stops, the sources of the data and their age, and links to everything else."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from govi_server.departures.modes import MODES, Mode
from govi_server.departures.place_index import MAX_PLACES, MAX_QUERY_CHARACTERS
from govi_server.departures.times import MINUTE
from govi_server.pages.assets import TEMPLATES
from govi_server.pages.links import language_links
from govi_server.pages.texts import SPACED_TEXTS, clock
from govi_server.runtime.templates import render

_Texts = Mapping[str, str]

_PAGE = TEMPLATES.get_template("front.html")
_LICENSES = {
    "http://creativecommons.org/publicdomain/zero/1.0/": "CC0 1.0",
    "http://openov.nl/license/GOVI-1.0-TravelInfo": "GOVI-1.0-TravelInfo",
}
"""Names of licences, by URL."""
_COLORS = {
    "UP": "good", "RECOVERING": "late", "DOWN": "bad", "UNKNOWN": "late",
    "fresh": "good", "stale": "late", "old": "bad",
}  # fmt: skip
"""CSS classes of the feed's states and of the freshness of an operator's data."""
_BOARD = {"/board/{code}": "link_board", "/events/{code}": "link_events"}
_LIVE = {
    "/tpc/{code}": "link_ovapi",
    "/siri/stop-monitoring.json?MonitoringRef={code}": "link_siri",
    "/places?q=station": "link_places",
    "/near?lat=52.22&lon=5.48": "link_near",
}
OPTIONS = ("after", "to", "mode", "view")
"""Parameters of boards that the form offers, and that the links to boards pass on."""
_DOCUMENTED = {"/docs": "link_docs", "/openapi.json": "link_openapi"}


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """The source of a module's departures. kind: demo, govi or kv78turbo; license: the URL of its data's licence."""

    module: str
    kind: str
    license: str


@dataclass(frozen=True, slots=True)
class LinkedStop:
    """A stop or a place in a list; its name without the town that it begins with."""

    id: str
    """As in the path of its board."""
    name: str
    town: str
    codes: str
    """TimingPointCodes, as text."""
    modes: Sequence[Mode] = ()


@dataclass(frozen=True, slots=True)
class OperatorStatus:
    """An operator, the seconds since its last message, and the freshness of its data (fresh, stale or old)."""

    code: str
    age: float
    freshness: str


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """The live feed, with results of the search."""

    state: str
    age: float | None
    """Seconds since its last message; None before the first."""
    n_stops: int
    operators: Sequence[OperatorStatus]
    changed: Sequence[LinkedStop]
    """The stops that changed last, latest first."""
    matches: Sequence[LinkedStop] | None
    """None without a search."""
    disruptions: Sequence[tuple[str, str, int]]
    """The messages that apply now: text, the code of a stop, and the number of stops."""


@dataclass(frozen=True, slots=True)
class FrontPage:
    """The content of the page."""

    sources: Sequence[SourceDescription]
    feed: FeedStatus | None
    """None without a live feed: a gateway's stops cannot be searched."""
    is_demo: bool
    """Whether all data is fictional."""
    unreachable: Collection[str]
    """The modules whose gateway could not be reached at the last attempt."""
    example: str
    """The TimingPointCode in the links, "" if none is known."""
    version: str


@dataclass(frozen=True, slots=True)
class ApiLink:
    """A path, its address ("" if it needs the code of a stop and none is known), and a description."""

    path: str
    address: str
    description: str


def page(content: FrontPage, lang: str, query: Mapping[str, str], now: float) -> Iterator[str]:
    """Render the page, in pieces.

    query: the request's valid parameters, if present: q, lang and OPTIONS. now: epoch seconds.
    """
    texts, feed = SPACED_TEXTS[lang], content.feed
    parameters = urlencode([(name, value) for name, value in query.items() if name != "q"])
    board_query = f"?{parameters}" if parameters else ""
    return render(
        _PAGE,
        lang=lang,
        texts=texts,
        languages=language_links(query),
        content=content,
        feed=feed,
        query=query.get("q", ""),
        values=query,
        has_options=not query.keys().isdisjoint(OPTIONS),
        filters=OPTIONS,
        modes=MODES,
        max_length=MAX_QUERY_CHARACTERS,
        max_stops=MAX_PLACES,
        board_query=board_query,
        n_found="" if feed is None or feed.matches is None else _n_found(len(feed.matches), texts),
        licenses=_LICENSES,
        colors=_COLORS,
        feed_age="" if feed is None or feed.age is None else _ago(feed.age, texts),
        feed_stops="" if feed is None else _number(feed.n_stops),
        outdated=_outdated(feed, now, lang),
        operators=[] if feed is None else [(operator, _ago(operator.age, texts)) for operator in feed.operators],
        links=_links(content, texts, board_query),
    )


def _outdated(feed: FeedStatus | None, now: float, lang: str) -> list[str]:
    text = SPACED_TEXTS[lang]["out_stale"]
    outdated = [] if feed is None else [operator for operator in feed.operators if operator.freshness != "fresh"]
    return [text.format(operator=operator.code, time=clock(now - operator.age)) for operator in outdated]


def _n_found(n_stops: int, texts: _Texts) -> str:
    if n_stops >= MAX_PLACES:
        return texts["found_most"].format(n=MAX_PLACES)
    return texts[{0: "found_none", 1: "found_one"}.get(n_stops, "found_some")].format(n=n_stops)


def _ago(seconds: float, texts: _Texts) -> str:
    """Format an age: in seconds up to ten minutes, then in minutes."""
    minutes = texts["n_minutes"].format(n=_number(seconds // MINUTE))
    return texts["ago"].format(time=minutes if seconds >= 10 * MINUTE else f"{seconds:.0f} s")


def _number(number: float) -> str:
    """Format a number with a narrow space between thousands, as ISO 80000-1 allows in all languages."""
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _links(content: FrontPage, texts: _Texts, board_query: str) -> list[ApiLink]:
    dris = {f"/{source.module}/{{code}}": "link_dris" for source in content.sources}
    links = []
    for template, key in (_BOARD | dris | (_LIVE if content.feed else {}) | _DOCUMENTED).items():
        path = template.replace("{code}", content.example or "<TimingPointCode>")
        is_complete = content.example or "{code}" not in template
        address = path + (board_query if key == "link_board" else "") if is_complete else ""
        links.append(ApiLink(path, address, texts[key]))
    return links
