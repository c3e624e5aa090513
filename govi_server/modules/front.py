"""GET /: a page to find a stop, with the state and the licence of the data."""

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from functools import partial
from heapq import nlargest
from itertools import islice

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from govi_server.departures.display import place
from govi_server.departures.places import Place
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import represent
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import parse_query
from govi_server.http.request import Environ
from govi_server.kv78turbo.disruptions import CurrentDisruptions, Disruption
from govi_server.kv78turbo.feed import Feed
from govi_server.modules.feed_responses import INVALID_PARAMETER
from govi_server.modules.query_parameters import AFTER, LANG, MODE, QUERY, TO, VARY, VIEW, language, linked_place
from govi_server.openapi.description import IDocumented, Operation, ResponseSpec
from govi_server.pages.assets import PAGE_HEADERS
from govi_server.pages.front_page import FeedStatus, FrontPage, LinkedStop, OperatorStatus, SourceDescription, page
from govi_server.runtime.cooperative import STEP_ITEMS, CooperativeRunner
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

MAX_CHANGED_STOPS = 12
"""Stops in the list of the latest changes."""

CHANGES_INTERVAL = 5.0
"""Seconds between updates of the list, each of which reads all stops."""

CONTENT_TYPE = "text/html; charset=utf-8"


OPTIONS = (AFTER, TO, MODE, VIEW)
"""Parameters of boards, which the links to them pass on."""


@implementer(IWebModule, IDocumented)
class Front(Service):
    """Serves the page.

    feed: None without a live feed: a gateway's stops cannot be searched. unreachable: returns the modules whose
    gateway could not be reached at the last attempt. example: the TimingPointCode in the page's examples, "" to
    select one from the feed.
    """

    name = ""

    def __init__(
        self,
        sources: Sequence[SourceDescription],
        feed: Feed | None,
        version: str,
        clock: IReactorTime,
        unreachable: Callable[[], Collection[str]] = tuple,
        example: str = "",
    ) -> None:
        self.feed = feed
        self.clock = clock
        self.runner = CooperativeRunner(clock) if feed is None else feed.runner
        self._sources = sources
        self._version = f"govi-cache {version}"
        self._unreachable = unreachable
        self._example = example
        self._changed: list[str] = []
        self._next_update = 0.0
        self.disruptions = None if feed is None else CurrentDisruptions(feed)

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "FrontHandler":
        """Return the handler of one request."""
        return FrontHandler(self, request_handler, env)

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        responses = (
            ResponseSpec(200, "The page.", "text/html", headers=("Cache-Control", "Content-Language", "ETag")),
            INVALID_PARAMETER,
        )
        parameters = (QUERY, LANG, *OPTIONS) if self.feed is not None else (LANG,)
        summary = "Page to find a stop, with the state and the licence of the data"
        return [Operation("/", summary, responses, parameters, section="Pages", noun="FrontPage")]

    def content(self, results: Iterable[Place] | None = None, disruptions: Iterable[Disruption] = ()) -> FrontPage:
        """Return the page's content. results: the places that a search returned."""
        status = None if self.feed is None else self._feed_status(self.feed, results, disruptions)
        is_demo = any(source.kind == "demo" for source in self._sources)
        example = self._example or (status.changed[0].id if status and status.changed else "")
        return FrontPage(self._sources, status, is_demo, self._unreachable(), example, self._version)

    def _feed_status(
        self, feed: Feed, results: Iterable[Place] | None, disruptions: Iterable[Disruption]
    ) -> FeedStatus:
        operators = [
            OperatorStatus(operator, age, freshness)
            for operator in sorted(feed.passtimes.last_heard)
            for freshness, age in (feed.operator_freshness(operator),)
        ]
        return FeedStatus(
            feed.state,
            feed.age,
            feed.timetable.n_stops,
            operators,
            [_stop(feed, code) for code in self._changed],
            None if results is None else [*map(linked_place, results)],
            [(disruption.text, disruption.code, disruption.n_stops) for disruption in disruptions],
        )

    async def update_changes(self) -> None:
        """Update the list of the stops that changed last, unless it is newer than CHANGES_INTERVAL.

        Concurrent requests share the update, which is cancelled when all of them are.
        """
        feed, now = self.feed, self.clock.seconds()
        if feed is not None and not self._next_update - CHANGES_INTERVAL <= now < self._next_update:
            self._changed = await feed.runner.run_shared(latest_changes, partial(latest_changes, feed))
            self._next_update = now + CHANGES_INTERVAL


def latest_changes(feed: Feed) -> Generator[None, None, list[str]]:
    """Return the codes of the MAX_CHANGED_STOPS stops that changed last, latest first, in steps."""
    stops = feed.passtimes.stops
    latest: list[tuple[int, str]] = []  # a later change has a higher version
    codes = iter([*stops])
    while step := list(islice(codes, STEP_ITEMS)):
        versions = ((stops[code].version, code) for code in step if code in stops)
        latest = nlargest(MAX_CHANGED_STOPS, (*latest, *versions))
        yield
    return [code for _, code in latest]


def _stop(feed: Feed, code: str) -> LinkedStop:
    point = feed.timetable.timing_point(code)
    name, town = place(point.name, point.town) if point is not None else ("", "")
    return LinkedStop(code, name or code, town, code)


class FrontHandler(WebHandler):
    """Handles a request for the page."""

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
        feed, results = self._module.feed, None
        query = (QUERY.parse(parameters) or "") if feed is not None else ""
        if feed is not None and query.strip():
            index = await feed.places.index()
            self.request_handler.charge(index.cost(query))
            results = await feed.runner.run(index.find(query))
        disruptions = self._module.disruptions
        current = [] if disruptions is None else await disruptions.latest()
        await self._module.update_changes()
        self.mark("lookup")
        for parameter in OPTIONS:
            parameter.parse(parameters)
        names = ("q", "lang", *(parameter.name for parameter in OPTIONS))
        passed_on = {name: parameters[name] for name in names if parameters.get(name)}
        content = page(self._module.content(results, current), lang, passed_on, self._module.clock.seconds())
        pieces = (piece.encode() for piece in content)
        steps = represent(pieces, CONTENT_TYPE, prefers_gzip(self.env), vary=VARY)
        representation = await self._module.runner.run(steps)
        self.mark("render")
        headers = (*PAGE_HEADERS, ("Content-Language", lang), ("Cache-Control", "no-cache"))
        self.send_representation(CachedResponse(representation, headers, "none"))
