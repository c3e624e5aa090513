"""The front page: a search for a stop, what the data is and how old, and where all the rest is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from re import sub
from string import Template
from urllib.parse import quote

from govi_server.departures.stop_index import MAX_QUERY_CHARACTERS, MAX_STOPS
from govi_server.departures.times import MINUTE
from govi_server.pages import links as languages
from govi_server.pages.assets import html
from govi_server.pages.texts import TEXTS

_Texts = Mapping[str, str]


def _written(text: str) -> str:
    """Write a text as HTML; a line does not break before the signs that French has a space before."""
    return sub(" (?=[:;?!])", "\N{NO-BREAK SPACE}", escape(text))


_TEXTS = {
    lang: {"lang": lang} | {key: _written(text) for key, text in texts.items()} for lang, texts in TEXTS.items()
}
_PAGE, _SEARCH = Template(html("front.html")), Template(html("search.html"))
_NDOV = '<a href="https://ndovloket.nl/" rel="external noreferrer" lang="nl">NDOV Loket</a>'
_LICENSES = {
    "http://creativecommons.org/publicdomain/zero/1.0/": "CC0 1.0",
    "http://openov.nl/license/GOVI-1.0-TravelInfo": "GOVI-1.0-TravelInfo",
}
# A colour goes with every word on how far the data can be relied upon.
_COLORS = {
    "UP": "good", "RECOVERING": "late", "DOWN": "bad", "UNKNOWN": "late",
    "fresh": "good", "stale": "late", "old": "bad",
}  # fmt: skip
_BOARD = {"/board/{code}": "link_board", "/events/{code}": "link_events"}
_LIVE = {
    "/tpc/{code}": "link_ovapi",
    "/siri/stop-monitoring.json?MonitoringRef={code}": "link_siri",
    "/stops?q=station": "link_stops",
    "/near?lat=52.22&lon=5.48": "link_near",
}
_DOCUMENTED = {"/docs": "link_docs", "/openapi.json": "link_openapi"}


@dataclass(frozen=True, slots=True)
class Source:
    """What a module answers from. kind: demo, govi or kv78turbo; license: the address of its data's licence."""

    module: str
    kind: str
    license: str


@dataclass(frozen=True, slots=True)
class LinkedStop:
    """A stop that is shown, its name without the town that it begins with."""

    code: str
    name: str
    town: str


@dataclass(frozen=True, slots=True)
class Owner:
    """A data owner, and how far what it said some seconds ago can be relied upon."""

    code: str
    age: float
    condition: str


@dataclass(frozen=True, slots=True)
class Live:
    """What the live feed tells."""

    state: str
    age: float | None
    """Seconds since it said something, if it did."""
    stops: int
    """How many it knows."""
    owners: Sequence[Owner]
    changed: Sequence[LinkedStop]
    """Those that it told of last, the latest first."""
    found: Sequence[LinkedStop] | None
    """None if none is looked for."""


@dataclass(frozen=True, slots=True)
class FrontPage:
    """What is told on the page."""

    sources: Sequence[Source]
    live: Live | None
    """None where there is but a gateway, in which nobody can search."""
    is_demo: bool
    """Whether all of it is made up."""
    example: str
    """The code of a stop to try things with, if one is known."""
    version: str


def page(told: FrontPage, lang: str, query: Mapping[str, str]) -> str:
    """Make the whole page. query: the parameters that it was asked for with, q and lang, all of them sound."""
    texts, asked = _TEXTS[lang], escape(query.get("q", ""))
    kept = f"?lang={lang}" if "lang" in query else ""  # of the query, for links to boards
    return _PAGE.substitute(
        texts,
        title=f"{asked} · {texts['front']}" if asked else texts["front"],
        notice=f'<p class="note">{texts["demo"]}</p>' if told.is_demo else "",
        finding="" if told.live is None else _search(told.live, asked, texts, kept),
        sources="\n".join(_source(source, texts) for source in told.sources),
        state="" if told.live is None else _state(told.live, texts),
        links=_links(told, texts, kept),
        other_languages=languages.links(lang, query),
        version=escape(told.version),
    )


def _search(live: Live, asked: str, texts: _Texts, kept: str) -> str:
    return _SEARCH.substitute(
        texts,
        query=asked,
        longest=MAX_QUERY_CHARACTERS,
        unsaid="" if kept else " disabled",
        most=MAX_STOPS,
        said="" if live.found is None else _counted(len(live.found), texts),
        stops=_stops(live.found or (), kept),
        changes=_stops(live.changed, kept) or f'<li class="soft">{texts["changed_none"]}</li>',
    )


def _counted(stops: int, texts: _Texts) -> str:
    if stops >= MAX_STOPS:
        return texts["found_most"].format(n=MAX_STOPS)
    return texts[{0: "found_none", 1: "found_one"}.get(stops, "found_some")].format(n=stops)


def _stops(stops: Iterable[LinkedStop], kept: str) -> str:
    return "".join(
        f'<li><a href="/board/{quote(stop.code)}{kept}" lang="nl"><b>{escape(stop.name)}</b> '
        f"<span>{escape(stop.town)}</span> <code>{escape(stop.code)}</code></a></li>\n"
        for stop in stops
    )


def _source(source: Source, texts: _Texts) -> str:
    address = escape(source.license)
    name = escape(_LICENSES.get(source.license, source.license))
    license_link = f'<a rel="license noreferrer" href="{address}">{name}</a>'
    return (
        f"<dt><code>/{escape(source.module)}</code></dt><dd>{texts[f'source_{source.kind}'].format(ndov=_NDOV)} "
        f"{texts['license'].format(license=license_link)}</dd>"
    )


def _state(live: Live, texts: _Texts) -> str:
    said = [f'<span class="state {_COLORS[live.state]}">{texts[f"feed_{live.state.lower()}"]}</span>']
    if live.age is not None:
        said.append(texts["feed_age"].format(ago=_ago(live.age, texts)))
    said.append(texts["feed_stops"].format(n=_number(live.stops)))
    return f"<p>{' '.join(said)}</p>" + (_owners(live.owners, texts) if live.owners else "")


def _owners(owners: Iterable[Owner], texts: _Texts) -> str:
    head = "".join(f'<th scope="col">{texts[key]}</th>' for key in ("owner", "owner_heard", "owner_data"))
    rows = "".join(
        f'<tr><th scope="row">{escape(owner.code)}</th><td>{_ago(owner.age, texts)}</td>'
        f'<td class="state {_COLORS[owner.condition]}">{texts[f"owner_{owner.condition}"]}</td></tr>\n'
        for owner in owners
    )
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table>"
    return f'<div class="wide" tabindex="0">{table}</div>'


def _ago(seconds: float, texts: _Texts) -> str:
    """Say how long ago something was: in seconds as long as they matter."""
    minutes = texts["minutes"].format(n=_number(seconds // MINUTE))
    return texts["ago"].format(time=minutes if seconds >= 10 * MINUTE else f"{seconds:.0f} s")


def _number(number: float) -> str:
    """Write a large number as all languages may (ISO 80000-1): with a narrow space between its thousands."""
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _links(told: FrontPage, texts: _Texts, kept: str) -> str:
    dris = {f"/{source.module}/{{code}}": "link_dris" for source in told.sources}
    links = []
    for path, key in (_BOARD | dris | (_LIVE if told.live else {}) | _DOCUMENTED).items():
        address = escape(path.replace("{code}", told.example or "<TimingPointCode>"))
        link = f"<code>{address}</code>"
        if told.example or "{code}" not in path:
            link = f'<a href="{address}{kept if key == "link_board" else ""}">{link}</a>'
        links.append(f"<dt>{link}</dt><dd>{texts[key]}</dd>")
    return "\n".join(links)
