"""Places as JSON. The Structs define it and its schema in /openapi.json, with their docstrings as descriptions."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from govi_server.departures import places
from govi_server.departures.modes import Mode
from govi_server.departures.place_index import MAX_PLACES


class Place(Struct):
    """A place: what people call a stop. codes: its TimingPointCodes. Degrees are WGS 84, null if unknown."""

    id: Annotated[str, Meta(pattern=f"^{places.PLACE_ID_PATTERN}$")]
    name: str
    town: str
    codes: Sequence[str]
    modes: Sequence[Mode]
    latitude: float | None
    longitude: float | None


class NearbyPlace(Place):
    """A place and its distance in metres."""

    distance: int


class Places(Struct):
    """The matching places, best match first."""

    places: Annotated[list[Place], Meta(max_length=MAX_PLACES)]


class NearbyPlaces(Struct):
    """The places near a position, nearest first."""

    places: Annotated[list[NearbyPlace], Meta(max_length=MAX_PLACES)]


def place_document(place: places.Place) -> Place:
    """Return the document of a place."""
    return Place(*_members(place))


def nearby_document(place: places.Place, metres: int) -> NearbyPlace:
    """Return the document of a place at a distance in metres."""
    return NearbyPlace(*_members(place), metres)


def _members(
    place: places.Place,
) -> tuple[str, str, str, Sequence[str], Sequence[Mode], float | None, float | None]:
    longitude, latitude = place.position or (None, None)
    return place.id, place.name, place.town, place.codes, place.modes, latitude, longitude
