"""GET /: a page to find a stop with, and what this server is, how old its data is, and whose."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from html import escape
from string import Template
from urllib.parse import quote

from twisted.application.service import Service
from zope.interface import implementer

from govi_server.conditional import prefers_gzip
from govi_server.contract import TEXT, Answer, BadQuery, Parameter, Path, Text, said_in
from govi_server.environ import Environ
from govi_server.interfaces import IDeclared, IWebModule
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.finder import Finder
from govi_server.kv78turbo.search import LONGEST, MOST, Index
from govi_server.modules.live import LiveHandler
from govi_server.pages.assets import html
from govi_server.ready import Ready
from govi_server.request_handler import RequestHandler
from govi_server.response import represent
from govi_server.simulator.town import STATION

CHANGED = 12
"""Stops that are shown as those that changed last."""

CHANGED_EVERY = 5.0
"""Seconds after which it is looked anew which those are: that goes through all stops."""

CONTENT_TYPE = "text/html; charset=utf-8"

HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)
"""What every page says: nothing of it comes from elsewhere."""

QUERY = Parameter("q", Text(LONGEST), "Words of a stop's name or town, or its code: the page tells what is found.")

_PAGE = Template(html("front.html"))

_SOURCES = {
    "demo": "a made-up town, Lindewaard, from a simulator inside this server. No real bus leaves there",
    "govi": "the boards of the GOVI gateway (KV55), of the transport operators who report to it",
    "kv78turbo": "the KV78turbo feed of the Dutch transport operators, by way of the "
    '<a href="https://ndovloket.nl/" rel="external noreferrer">NDOV Loket</a>',
}
_LICENSES = {
    "http://creativecommons.org/publicdomain/zero/1.0/": "CC0 1.0: it is in the public domain",
    "http://openov.nl/license/GOVI-1.0-TravelInfo": "GOVI-1.0-TravelInfo",
}
_STATES = {"UP": "good", "RECOVERING": "late", "DOWN": "bad", "UNKNOWN": "late"}
_STATE_WORDS = {
    "UP": "everything is told",
    "RECOVERING": "data comes again; for a minute some of it may be missing",
    "DOWN": "nothing comes; boards show what was known last",
    "UNKNOWN": "nothing has come yet",
}


@dataclass(frozen=True, slots=True)
class Source:
    """What a module answers from. kind: demo, govi or kv78turbo; license: the address of its data's licence."""

    module: str
    kind: str
    license: str


@implementer(IWebModule, IDeclared)
class Front(Service):
    """Answers the path /. feed and finder: None where there is but a gateway, which nobody can search."""

    name = ""

    def __init__(self, sources: Sequence[Source], feed: Feed | None, finder: Finder | None, version: str) -> None:
        self.feed = feed
        self.finder = finder
        self.parameters = (QUERY,) if finder is not None else ()
        self._sources = sources
        self._version = version
        self._changed: list[str] = []
        self._look_at = 0.0

    def web_handler(self, request_handler: RequestHandler, env: Environ) -> "FrontHandler":
        """Make the handler of one request."""
        return FrontHandler(self, request_handler, env)

    def contract(self) -> list[Path]:
        """Declare the one path."""
        answers = (
            Answer(200, "The page.", "text/html", TEXT, ("Cache-Control", "ETag")),
            *([Answer(400, "The query is too long.", headers=("Cache-Control",))] if self.parameters else ()),
        )
        summary = "Find a stop; the state and the licence of the data"
        return [Path("/", summary, answers, self.parameters, section="Pages")]

    def page(self, query: str, index: Index | None) -> str:
        """Write the page. index: of the stops, if the query is to be answered."""
        found = index.find(query) if index is not None and query.strip() else None
        is_demo = any(source.kind == "demo" for source in self._sources)
        return _PAGE.substitute(
            title=escape(f"{query} · Departures" if query else "Departures"),
            notice=f'<p class="note">This is a demo: {_SOURCES["demo"]}.</p>' if is_demo else "",
            search="" if self.feed is None else self._search(query, found),
            changed="" if self.feed is None else self._recently(self.feed),
            data=self._data(),
            links=self._links(),
            version=escape(f"govi-cache {self._version}"),
        )

    def _search(self, query: str, found: Sequence[str] | None) -> str:
        count = "" if found is None else _counted(len(found))
        items = "".join(f"<li>{self._stop(code)}</li>\n" for code in found or ())
        return f"""<section aria-label="Find a stop">
<form class="find" role="search" action="/" method="get">
<label for="q">Stop, town or code</label>
<div><input id="q" name="q" type="search" value="{escape(query)}" maxlength="{LONGEST}" autocomplete="off"
 autocapitalize="none" spellcheck="false" enterkeyhint="search" aria-describedby="said">
<button>Find</button> <button type="button" class="second" hidden>Near me</button></div>
</form>
<p id="said" class="soft" role="status">{count}</p>
<ul id="found" class="stops" aria-label="Stops found" lang="nl">
{items}</ul>
</section>"""

    def _named(self, code: str) -> tuple[str, str]:
        """Give the name of a stop, without the town that most begin with, and the town."""
        point = self.feed.timetable.timing_points.get(code) if self.feed is not None else None
        name, town = (point and point.name) or code, (point and point.town) or ""
        return name.removeprefix(f"{town}, "), town

    def _stop(self, code: str) -> str:
        name, town = map(escape, self._named(code))
        return f'<a href="/board/{quote(code)}"><b>{name}</b> <span>{town}</span> <code>{escape(code)}</code></a>'

    def _recently(self, feed: Feed) -> str:
        items = []
        for code in self.changed(feed):
            name, town = map(escape, self._named(code))
            items.append(f'<li><a href="/board/{quote(code)}">{name} <span>{town}</span></a></li>')
        listed = f'<ul class="changed" lang="nl">{"".join(items)}</ul>' if items else '<p class="soft">None yet.</p>'
        return f'<section aria-labelledby="changed"><h2 id="changed">Just changed</h2>{listed}</section>'

    def changed(self, feed: Feed) -> list[str]:
        """List the codes of the stops that the feed changed last, as of some seconds ago."""
        now = feed.clock.seconds()
        if not self._look_at - CHANGED_EVERY <= now < self._look_at:
            self._look_at = now + CHANGED_EVERY
            stops = feed.passtimes.stops  # the later a change, the higher the version
            self._changed = nlargest(CHANGED, stops, key=lambda code: stops[code].version)
        return self._changed

    def _data(self) -> str:
        told = []
        for source in self._sources:
            words, license_url = escape(_LICENSES.get(source.license, source.license)), escape(source.license)
            told.append(
                f"<dt><code>/{escape(source.module)}</code></dt><dd>It tells of {_SOURCES[source.kind]}."
                f' Licence of the data: <a rel="license noreferrer" href="{license_url}">{words}</a>.'
                "</dd>"
            )
        return f"<dl>{''.join(told)}</dl>" + ("" if self.feed is None else self._ages(self.feed))

    def _ages(self, feed: Feed) -> str:
        state = feed.state
        last = "" if feed.age is None else f" Last data: {feed.age:.0f} s ago."
        rows = "".join(
            f'<tr><th scope="row">{escape(owner)}</th><td>{age:,.0f} s ago</td>'
            f'<td class="state {_OWNER_STATES[condition]}">{condition}</td></tr>'
            for owner in sorted(feed.passtimes.heard)
            for condition, age in (feed.word_of(owner),)
        )
        table = (
            '<div class="wide"><table><thead><tr><th scope="col">Data owner</th><th scope="col">Last heard</th>'
            f'<th scope="col">Its word is</th></tr></thead><tbody>{rows}</tbody></table></div>'
        )
        return (
            f'<p>The live feed is <span class="state {_STATES[state]}">{state}</span>: {_STATE_WORDS[state]}.{last} '
            f"{len(feed.timetable.timing_points):,} stops are known.</p>{table if rows else ''}"
        )

    def _links(self) -> str:
        demo = any(source.kind == "demo" for source in self._sources)
        code = STATION if demo else next(iter(self.changed(self.feed) if self.feed is not None else ()), "")
        shown = code or "<TimingPointCode>"
        links = [(f"/{source.module}/{{}}", "departures as DRIS_55 (XML)") for source in self._sources]
        if self.feed is not None:
            links = [
                ("/board/{}", "a departure board, for people"),
                *links,
                ("/tpc/{}", "OVapi's JSON"),
                ("/siri/stop-monitoring.json?MonitoringRef={}", "SIRI Lite"),
                ("/stops?q=station", "stops by name, town or code"),
                ("/near?lat=52.22&amp;lon=5.48", "the nearest stops"),
            ]
        told = []
        for path, words in links:
            address = path.format(escape(shown))
            link = f'<a href="{address}"><code>{address}</code></a>' if code else f"<code>{address}</code>"
            told.append(f"<dt>{link}</dt><dd>{words}</dd>")
        return "\n".join(told)


def _counted(stops: int) -> str:
    if stops < MOST:
        return "No stop found" if stops == 0 else "1 stop" if stops == 1 else f"{stops} stops"
    return f"The first {MOST} stops: more words find fewer"


_OWNER_STATES = {"fresh": "good", "stale": "late", "old": "bad"}


class FrontHandler(LiveHandler):
    """Answers one question for the page."""

    def __init__(self, module: Front, request_handler: RequestHandler, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the page."""
        if self.env["path_info"] != "/":
            self.mark("lookup")
            self.request_handler.send_not_found()
            return
        try:
            said = said_in(self.env.get("query_string", ""))
            query = next((parameter.of(said) or "" for parameter in self._module.parameters), "")
        except BadQuery as error:
            self.refuse(error)
            return
        finder = self._module.finder
        index = await finder.index() if finder is not None and query else None
        self.mark("lookup")
        made = represent(self._module.page(query, index).encode(), CONTENT_TYPE, prefers_gzip(self.env))
        self.mark("render")
        self.send_representation(Ready(made, (*HEADERS, ("Cache-Control", "no-cache")), "none"))
