"""GET /: the front page, with a search for stops and the sources of the data and their age."""

from collections.abc import Iterable, Sequence
from heapq import nlargest

from twisted.application.service import Service
from zope.interface import implementer

from govi_server.departures.display import place
from govi_server.departures.stop_index import MAX_QUERY_CHARACTERS
from govi_server.departures.stop_index_cache import StopIndexCache
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import make_representation
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import Parameter, String, parse_query
from govi_server.http.request import Environ
from govi_server.kv78turbo.feed import Feed
from govi_server.modules.feed_handler import INVALID_PARAMETER
from govi_server.modules.query_parameters import LANG, VARY, language
from govi_server.openapi.description import IDocumented, Operation, ResponseSpec
from govi_server.pages.assets import PAGE_HEADERS
from govi_server.pages.front_page import FeedStatus, FrontPage, LinkedStop, OperatorStatus, Source, page
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

N_CHANGED = 12
"""Stops in the list of those that changed last."""

CHANGED_EVERY = 5.0
"""Seconds for which that list is kept, since making it takes all stops."""

CONTENT_TYPE = "text/html; charset=utf-8"


QUERY = Parameter(
    "q", String(MAX_QUERY_CHARACTERS), "Words of a stop's name or town, or its code: the page lists the matches."
)


@implementer(IWebModule, IDocumented)
class Front(Service):
    """Serves the path /.

    feed and finder: None if there is only a gateway, which cannot be searched. example: the code of a stop to try
    things with, "" if none is known beforehand.
    """

    name = ""

    def __init__(
        self,
        sources: Sequence[Source],
        feed: Feed | None,
        finder: StopIndexCache | None,
        version: str,
        example: str = "",
    ) -> None:
        self.finder = finder
        self._feed = feed
        self._sources = sources
        self._version = f"govi-cache {version}"
        self._example = example
        self._changed: list[str] = []
        self._changed_until = 0.0

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "FrontHandler":
        """Return the handler of one request."""
        return FrontHandler(self, request_handler, env)

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        responses = (
            ResponseSpec(200, "The page.", "text/html", headers=("Cache-Control", "Content-Language", "ETag")),
            INVALID_PARAMETER,
        )
        parameters = (QUERY, LANG) if self.finder is not None else (LANG,)
        summary = "Find a stop; the state and the licence of the data"
        return [Operation("/", summary, responses, parameters, section="Pages")]

    def content(self, matches: Iterable[str] | None = None) -> FrontPage:
        """Return the content of the page. matches: codes of the stops that match the search, None without one."""
        status = None if self._feed is None else self._feed_status(self._feed, matches)
        is_demo = any(source.kind == "demo" for source in self._sources)
        example = self._example or (status.changed[0].code if status and status.changed else "")
        return FrontPage(self._sources, status, is_demo, example, self._version)

    def _feed_status(self, feed: Feed, matches: Iterable[str] | None) -> FeedStatus:
        operators = [
            OperatorStatus(operator, age, freshness)
            for operator in sorted(feed.passtimes.last_heard)
            for freshness, age in (feed.operator_freshness(operator),)
        ]
        return FeedStatus(
            feed.state,
            feed.age,
            len(feed.timetable.timing_points),
            operators,
            [_stop(feed, code) for code in self._changes(feed)],
            None if matches is None else [_stop(feed, code) for code in matches],
        )

    def _changes(self, feed: Feed) -> list[str]:
        """Return the codes of the stops that changed last, as of some seconds ago."""
        now = feed.clock.seconds()
        if not self._changed_until - CHANGED_EVERY <= now < self._changed_until:
            self._changed_until = now + CHANGED_EVERY
            stops = feed.passtimes.stops  # the later a change, the higher the version
            self._changed = nlargest(N_CHANGED, stops, key=lambda code: stops[code].version)
        return self._changed


def _stop(feed: Feed, code: str) -> LinkedStop:
    point = feed.timetable.timing_points.get(code)
    name, town = place(point.name, point.town) if point is not None else ("", "")
    return LinkedStop(code, name or code, town)


class FrontHandler(WebHandler):
    """Handles one request for the page."""

    def __init__(self, module: Front, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the page."""
        if self.env["path_info"] != "/":
            self.mark("lookup")
            self.request_handler.send_not_found()
            return
        parameters = parse_query(self.env.get("query_string", ""))
        lang = language(self.env, parameters)
        finder, matches = self._module.finder, None
        query = (QUERY.parse(parameters) or "") if finder is not None else ""
        if finder is not None and query.strip():
            matches = (await finder.index()).find(query)
        self.mark("lookup")
        kept = {name: parameters[name] for name in ("q", "lang") if parameters.get(name)}
        body = page(self._module.content(matches), lang, kept).encode()
        representation = make_representation(body, CONTENT_TYPE, prefers_gzip(self.env), vary=VARY)
        self.mark("render")
        headers = (*PAGE_HEADERS, ("Content-Language", lang), ("Cache-Control", "no-cache"))
        self.send_representation(CachedResponse(representation, headers, "none"))
