"""GET /stops?q= and GET /near?lat=&lon=: stops by name, town or code, and by where they are, as JSON."""

from typing import Any

import msgspec
from twisted.application.service import Service
from zope.interface import implementer

from govi_server.departures.stop_index import LONGEST, MOST, StopIndex
from govi_server.departures.stop_index_cache import StopIndexCache
from govi_server.documents.ovapi import OvapiDocuments
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import make_representation
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import Number, Parameter, String, parse_query
from govi_server.http.request import Environ
from govi_server.kv78turbo.feed import Feed
from govi_server.modules.declared import STOP
from govi_server.modules.feed_handler import UNAVAILABLE_HEADERS, no_departures
from govi_server.openapi.description import Example, IDocumented, Operation, ResponseSpec
from govi_server.openapi.schema import NUMBER, arrays, objects
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

CONTENT_TYPE = "application/json"

MAX_AGE = 60
"""Seconds for which a client may keep what was found: stops change once a night."""

QUERY = Parameter(
    "q",
    String(LONGEST, least=1),
    "Words of the stop's name or town, or beginnings of them, in any order and without accents; or its code.",
    "linde markt",
    required=True,
)
LATITUDE = Parameter("lat", Number(-90, 90), "Latitude (WGS 84).", 52.22, required=True)
LONGITUDE = Parameter("lon", Number(-180, 180), "Longitude (WGS 84).", 5.48, required=True)

_WRONG = ResponseSpec(400, "A parameter is missing or wrong; the text names it.", headers=("Cache-Control",))
_NOTHING = ResponseSpec(503, "No stops are known yet.", headers=UNAVAILABLE_HEADERS)


@implementer(IWebModule, IDocumented)
class Stops(Service):
    """Answers /stops."""

    name = "stops"
    parameters: tuple[Parameter, ...] = (QUERY,)
    summary = "Find stops by name, town or code"
    found = f"The stops, the best first, at most {MOST}; none if nothing is found."
    stop = STOP
    examples: tuple[Example, ...] = (
        Example("Find a stop; its TimingPointCode is what everything else asks for", "/stops?q=linde%20markt"),
        Example("What is missing is named", "/stops", status=400),
    )

    def __init__(self, feed: Feed, finder: StopIndexCache) -> None:
        self.feed = feed
        self.finder = finder
        self.shapes = OvapiDocuments(feed)

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "StopsHandler":
        """Make the handler of one request."""
        return StopsHandler(self, request_handler, env)

    def describe(self) -> list[Operation]:
        """Declare the one path."""
        schema = objects({"Stops": {**arrays(objects(self.stop)), "maxItems": MOST}})
        answers = (ResponseSpec(200, self.found, CONTENT_TYPE, schema, ("Cache-Control", "ETag")), _WRONG, _NOTHING)
        return [
            Operation(
                f"/{self.name}", self.summary, answers, self.parameters, examples=self.examples, section="Stops"
            )
        ]

    def stops(self, index: StopIndex, query: str) -> list[dict[str, Any]]:
        """Describe the stops that are found."""
        return [self.shapes.stop(code) for code in index.find(query)]


class Near(Stops):
    """Answers /near."""

    name = "near"
    parameters = (LATITUDE, LONGITUDE)
    summary = "Find the nearest stops"
    found = f"The stops within ten kilometres, the nearest first, at most {MOST}; Distance is in metres."
    stop = {**STOP, "Distance": NUMBER}
    examples = (Example("Near the middle of town", "/near?lat=52.2203&lon=5.4801"),)

    def stops(self, index: StopIndex, *place: Any) -> list[dict[str, Any]]:
        """Describe the stops that are near."""
        return [{**self.shapes.stop(code), "Distance": metres} for code, metres in index.near(*place)]


class StopsHandler(WebHandler):
    """Responds to one search for stops."""

    def __init__(self, module: Stops, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the stops."""
        if self.env["path_info"] != f"/{self._module.name}":
            self.mark("lookup")
            self.request_handler.send_not_found()
            return
        query = parse_query(self.env.get("query_string", ""))
        arguments = [parameter.parse(query) for parameter in self._module.parameters]
        index = await self._module.finder.index()
        self.mark("lookup")
        if not len(index):
            self.send_response("No stops are known yet\n", *no_departures(self._module.feed, "down"))
            return
        body = msgspec.json.encode({"Stops": self._module.stops(index, *arguments)})
        representation = make_representation(body, CONTENT_TYPE, prefers_gzip(self.env))
        headers = (("Cache-Control", f"public, max-age={MAX_AGE}"),)
        self.send_representation(CachedResponse(representation, headers, "none"))
