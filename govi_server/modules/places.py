"""GET /places?q= and GET /near?lat=&lon=: places by name, town or code, or near a position, as JSON."""

from collections.abc import Generator
from typing import Any

import msgspec
from twisted.application.service import Service
from zope.interface import implementer

from govi_server.departures.place_index import MAX_PLACES, MAX_QUERY_CHARACTERS, PlaceIndex
from govi_server.documents import places as documents
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import make_representation
from govi_server.http.error_responses import PROBLEM, Problem
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
    "Words of the stop's name or town, or prefixes of them, in any order, without accents, and with typos; or the "
    "code of a TimingPoint or a stop area.",
    "linde markt",
    required=True,
)
LATITUDE = Parameter("lat", Number(-90, 90), "Latitude (WGS 84).", 52.22, required=True)
LONGITUDE = Parameter("lon", Number(-180, 180), "Longitude (WGS 84).", 5.48, required=True)

_INVALID = ResponseSpec(
    400, "A parameter is missing or invalid; the body names it.", PROBLEM, Problem, headers=("Cache-Control",)
)
_UNAVAILABLE = ResponseSpec(503, "No stops are known yet.", PROBLEM, Problem, headers=UNAVAILABLE_HEADERS)


@implementer(IWebModule, IDocumented)
class Places(Service):
    """Serves /places."""

    name = "places"
    noun = "Places"
    parameters: tuple[Parameter, ...] = (QUERY,)
    summary = "Find places by name, town or code"
    results = f"The matching places, best match first, at most {MAX_PLACES}."
    body: type[documents.Places | documents.NearbyPlaces] = documents.Places
    examples: tuple[Example, ...] = (
        Example("A search for a place, whose id /board and /events accept", "/places?q=linde%20markt"),
        Example("A missing parameter", "/places", status=400),
    )

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "PlacesHandler":
        """Return the handler of one request."""
        return PlacesHandler(self, request_handler, env)

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

    def cost(self, index: PlaceIndex, query: str) -> int:
        """Return the cost of a search; see web_handler.Responder."""
        return index.cost(query)

    def find(self, index: PlaceIndex, query: str) -> Generator[None, None, documents.Places | documents.NearbyPlaces]:
        """Return the places that match a query, in steps."""
        places = yield from index.find(query)
        return documents.Places([*map(documents.place_document, places)])


class Near(Places):
    """Serves /near."""

    name = "near"
    noun = "NearbyPlaces"
    parameters = (LATITUDE, LONGITUDE)
    summary = "Find the nearest places"
    results = f"The places within ten kilometres, nearest first, at most {MAX_PLACES}."
    body = documents.NearbyPlaces
    examples = (Example("Near the town centre", "/near?lat=52.2203&lon=5.4801"),)

    def cost(self, index: PlaceIndex, *position: Any) -> int:
        """Return the cost of a search; see web_handler.Responder."""
        return 1

    def find(self, index: PlaceIndex, *position: Any) -> Generator[None, None, documents.NearbyPlaces]:
        """Return the places near a position, latitude and longitude, in steps."""
        nearest = yield from index.near(*position)
        return documents.NearbyPlaces([documents.nearby_document(place, metres) for place, metres in nearest])


class PlacesHandler(WebHandler):
    """Handles a search for places."""

    def __init__(self, module: Places, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Send the places."""
        if self.env["path_info"] != f"/{self._module.name}":
            self.mark("lookup")
            self.request_handler.send_not_found()
            return
        query = parse_query(self.env.get("query_string", ""))
        arguments = [parameter.parse(query) for parameter in self._module.parameters]
        index = await self._module.feed.places.index()
        self.mark("lookup")
        if not len(index):
            self.send_response("No stops are known yet\n", *no_departures(self._module.feed, "down"))
            return
        self.request_handler.charge(self._module.cost(index, *arguments))
        places = await self._module.feed.runner.run(self._module.find(index, *arguments))
        body = msgspec.json.encode(places)
        representation = make_representation(body, CONTENT_TYPE, prefers_gzip(self.env))
        headers = (("Cache-Control", f"public, max-age={MAX_AGE}"),)
        self.send_representation(CachedResponse(representation, headers, "none"))
