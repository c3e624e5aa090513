"""GET /trip/<journey>: a journey for travellers, as a page. /journey is OVapi's, with JSON."""

from twisted.application.service import Service
from zope.interface import implementer

from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import represent
from govi_server.http.caching.response_cache import MAX_AGE
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import Parameter, String, parse_query
from govi_server.http.request import Environ
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import SERVABLE
from govi_server.kv78turbo.journey_display import journey_display
from govi_server.modules.feed_responses import (
    INVALID_PARAMETER,
    NOT_FOUND_HEADERS,
    UNAVAILABLE_HEADERS,
    no_departures,
)
from govi_server.modules.query_parameters import LANG, THEME, TIMING_POINT_CODE, VARY, language
from govi_server.openapi.description import IDocumented, Operation, ResponseSpec
from govi_server.pages import journey_page
from govi_server.pages.assets import policy
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

CONTENT_TYPE = "text/html"

JOURNEY = Parameter(
    "Journey",
    String(min_length=1),
    "DataOwnerCode_LocalServiceLevelCode_LinePlanningNumber_JourneyNumber_FortifyOrderNumber, a key of /journey.",
    "LINDEBUS_110171_1101_1001_0",
    "path",
    True,
)
AT = Parameter("at", TIMING_POINT_CODE, "The TimingPointCode of a stop that is marked.", "57330430")

_HEADERS = policy("form-action 'none'")


@implementer(IWebModule, IDocumented)
class Trips(Service):
    """Serves /trip."""

    name = "trip"

    def __init__(self, feed: Feed, is_demo: bool = False) -> None:
        self.feed = feed
        self.is_demo = is_demo

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "TripHandler":
        """Return the handler of one request."""
        return TripHandler(self, request_handler, env)

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        page = ("Content-Language", "ETag")
        responses = (
            ResponseSpec(200, "The page.", CONTENT_TYPE, str, ("Cache-Control", "Feed-State", *page)),
            INVALID_PARAMETER,
            ResponseSpec(404, "The journey is unknown.", CONTENT_TYPE, str, (*NOT_FOUND_HEADERS, *page)),
            ResponseSpec(503, "No recent data is available.", CONTENT_TYPE, str, (*UNAVAILABLE_HEADERS, *page)),
        )
        return [
            Operation(
                f"/{self.name}/{{Journey}}",
                "A journey as a page: its stops, and where it is",
                responses,
                (JOURNEY, AT, LANG, THEME),
                section="Pages",
                noun="Trip",
            )
        ]


class TripHandler(WebHandler):
    """Sends the page of a journey."""

    def __init__(self, module: Trips, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the page."""
        feed = self._module.feed
        key = self.env["path_info"].removeprefix("/trip").strip("/").encode("latin-1").decode("utf-8", "replace")
        parameters = parse_query(self.env.get("query_string", ""))
        lang = language(self.env, parameters)
        for parameter in (AT, THEME):
            parameter.parse(parameters)
        query = {name: parameters[name] for name in (AT.name, THEME.name) if parameters.get(name)}
        self.request_handler.charge(feed.journeys.cost(key))
        freshness = feed.operator_freshness(key.partition("_")[0])
        journey = await feed.runner.run(journey_display(feed, key, freshness))
        self.mark("lookup")
        reason = "unknown" if journey is None and feed.is_complete else "down" if journey is None else freshness[0]
        if reason not in SERVABLE:
            journey = None
        page = journey_page.page(journey, lang, feed.clock.seconds(), query, self._module.is_demo)
        pieces = (piece.encode() for piece in page)
        content_type = f"{CONTENT_TYPE}; charset=utf-8"
        representation = await feed.runner.run(represent(pieces, content_type, prefers_gzip(self.env), vary=VARY))
        headers = (("Content-Language", lang), *_HEADERS)
        if journey is None:
            status, more = no_departures(feed, reason)
            self.send_response(representation.body, status, [*representation.headers, *more, *headers])
            return
        cached = (("Feed-State", feed.state), ("Cache-Control", f"public, max-age={MAX_AGE}"))
        self.send_representation(CachedResponse(representation, (*headers, *cached), "hit"))
