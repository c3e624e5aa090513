"""GET /stops?q= and GET /near?lat=&lon=: stops by name, town or code, or near a position, as JSON."""

from collections.abc import Generator
from typing import Any

import msgspec
from twisted.application.service import Service
from zope.interface import implementer

from govi_server.departures.stop_index import MAX_QUERY_CHARACTERS, MAX_STOPS, StopIndex
from govi_server.departures.stop_index_cache import StopIndexCache
from govi_server.documents import ovapi_structs as documents
from govi_server.documents.ovapi import OvapiDocuments
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import make_representation
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.parameters import Number, Parameter, String, parse_query
from govi_server.http.request import Environ
from govi_server.kv78turbo.feed import Feed
from govi_server.modules.feed_responses import UNAVAILABLE_HEADERS, no_departures
from govi_server.openapi.description import Example, IDocumented, Operation, ResponseSpec
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

CONTENT_TYPE = "application/json"

MAX_AGE = 60
"""Seconds for which clients may cache a response: stops change once a night."""

QUERY = Parameter(
    "q",
    String(MAX_QUERY_CHARACTERS, min_length=1),
    "Words of the stop's name or town, or prefixes of them, in any order and without accents; or its code.",
    "linde markt",
    required=True,
)
LATITUDE = Parameter("lat", Number(-90, 90), "Latitude (WGS 84).", 52.22, required=True)
LONGITUDE = Parameter("lon", Number(-180, 180), "Longitude (WGS 84).", 5.48, required=True)

_INVALID = ResponseSpec(400, "A parameter is missing or invalid; the body names it.", headers=("Cache-Control",))
_UNAVAILABLE = ResponseSpec(503, "No stops are known yet.", headers=UNAVAILABLE_HEADERS)


@implementer(IWebModule, IDocumented)
class Stops(Service):
    """Serves /stops."""

    name = "stops"
    noun = "Stops"
    parameters: tuple[Parameter, ...] = (QUERY,)
    summary = "Find stops by name, town or code"
    results = f"The matching stops, best match first, at most {MAX_STOPS}."
    body: type[documents.Stops | documents.StopsNearby] = documents.Stops
    examples: tuple[Example, ...] = (
        Example("A search for a stop, whose TimingPointCode other requests use", "/stops?q=linde%20markt"),
        Example("A missing parameter", "/stops", status=400),
    )

    def __init__(self, feed: Feed, index_cache: StopIndexCache) -> None:
        self.feed = feed
        self.index_cache = index_cache
        self.documents = OvapiDocuments(feed)

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "StopsHandler":
        """Return the handler of one request."""
        return StopsHandler(self, request_handler, env)

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        success = ResponseSpec(200, self.results, CONTENT_TYPE, self.body, ("Cache-Control", "ETag"))
        return [
            Operation(
                f"/{self.name}",
                self.summary,
                (success, _INVALID, _UNAVAILABLE),
                self.parameters,
                examples=self.examples,
                section="Stops",
                noun=self.noun,
            )
        ]

    def cost(self, index: StopIndex, query: str) -> int:
        """Return the cost of a search; see web_handler.Responder."""
        return index.cost(query)

    def stops(self, index: StopIndex, query: str) -> Generator[None, None, documents.Stops | documents.StopsNearby]:
        """Return the stops that match a query, in steps."""
        codes = yield from index.find(query)
        return documents.Stops([self.documents.stop(code) for code in codes])


class Near(Stops):
    """Serves /near."""

    name = "near"
    noun = "NearestStops"
    parameters = (LATITUDE, LONGITUDE)
    summary = "Find the nearest stops"
    results = f"The stops within ten kilometres, nearest first, at most {MAX_STOPS}."
    body = documents.StopsNearby
    examples = (Example("Near the town centre", "/near?lat=52.2203&lon=5.4801"),)

    def cost(self, index: StopIndex, *position: Any) -> int:
        """Return the cost of a search; see web_handler.Responder."""
        return 1

    def stops(self, index: StopIndex, *position: Any) -> Generator[None, None, documents.StopsNearby]:
        """Return the stops near a position, latitude and longitude, in steps."""
        nearest = yield from index.near(*position)
        return documents.StopsNearby([self.documents.stop_nearby(code, metres) for code, metres in nearest])


class StopsHandler(WebHandler):
    """Handles a search for stops."""

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
        index = await self._module.index_cache.index()
        self.mark("lookup")
        if not len(index):
            self.send_response("No stops are known yet\n", *no_departures(self._module.feed, "down"))
            return
        self.request_handler.charge(self._module.cost(index, *arguments))
        stops = await self._module.feed.runner.run(self._module.stops(index, *arguments))
        body = msgspec.json.encode(stops)
        representation = make_representation(body, CONTENT_TYPE, prefers_gzip(self.env))
        headers = (("Cache-Control", f"public, max-age={MAX_AGE}"),)
        self.send_representation(CachedResponse(representation, headers, "none"))
