"""GET /: a page to find a stop with, and what this server is, how old its data is, and whose."""

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

CHANGED = 12
"""Stops that are shown as those that changed last."""

CHANGED_EVERY = 5.0
"""Seconds after which it is looked anew which those are: that goes through all stops."""

CONTENT_TYPE = "text/html; charset=utf-8"


QUERY = Parameter(
    "q", String(MAX_QUERY_CHARACTERS), "Words of a stop's name or town, or its code: the page shows the results."
)


@implementer(IWebModule, IDocumented)
class Front(Service):
    """Answers the path /.

    feed and finder: None where there is but a gateway, which nobody can search. example: the code of a stop to try
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
        self._look_at = 0.0

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "FrontHandler":
        """Make the handler of one request."""
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

    def told(self, found: Iterable[str] | None = None) -> FrontPage:
        """Give what is to be told. found: codes of the stops that were looked for."""
        live = None if self._feed is None else self._live(self._feed, found)
        is_demo = any(source.kind == "demo" for source in self._sources)
        example = self._example or (live.changed[0].code if live and live.changed else "")
        return FrontPage(self._sources, live, is_demo, example, self._version)

    def _live(self, feed: Feed, found: Iterable[str] | None) -> FeedStatus:
        owners = [
            OperatorStatus(owner, age, condition)
            for owner in sorted(feed.passtimes.last_heard)
            for condition, age in (feed.operator_freshness(owner),)
        ]
        return FeedStatus(
            feed.state,
            feed.age,
            len(feed.timetable.timing_points),
            owners,
            [_stop(feed, code) for code in self._changes(feed)],
            None if found is None else [_stop(feed, code) for code in found],
        )

    def _changes(self, feed: Feed) -> list[str]:
        """List the codes of the stops that the feed changed last, as of some seconds ago."""
        now = feed.clock.seconds()
        if not self._look_at - CHANGED_EVERY <= now < self._look_at:
            self._look_at = now + CHANGED_EVERY
            stops = feed.passtimes.stops  # the later a change, the higher the version
            self._changed = nlargest(CHANGED, stops, key=lambda code: stops[code].version)
        return self._changed


def _stop(feed: Feed, code: str) -> LinkedStop:
    point = feed.timetable.timing_points.get(code)
    name, town = place(point.name, point.town) if point is not None else ("", "")
    return LinkedStop(code, name or code, town)


class FrontHandler(WebHandler):
    """Answers one question for the page."""

    def __init__(self, module: Front, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the page."""
        if self.env["path_info"] != "/":
            self.mark("lookup")
            self.request_handler.send_not_found()
            return
        said = parse_query(self.env.get("query_string", ""))
        lang = language(self.env, said)
        query = (QUERY.parse(said) or "") if self._module.finder is not None else ""
        finder, found = self._module.finder, None
        if finder is not None and query.strip():
            found = (await finder.index()).find(query)
        self.mark("lookup")
        asked = {name: said[name] for name in ("q", "lang") if said.get(name)}
        body = page(self._module.told(found), lang, asked).encode()
        made = make_representation(body, CONTENT_TYPE, prefers_gzip(self.env), vary=VARY)
        self.mark("render")
        headers = (*PAGE_HEADERS, ("Content-Language", lang), ("Cache-Control", "no-cache"))
        self.send_representation(CachedResponse(made, headers, "none"))
