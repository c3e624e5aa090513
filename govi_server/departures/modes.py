"""Modes of transport: KV7's TransportType and GTFS's route_type in the words of SIRI 2.0. Pure."""

from typing import Literal, get_args

Mode = Literal["bus", "tram", "metro", "ferry", "rail"]
"""VehicleModesEnumeration of SIRI 2.0, as far as KV7 has it."""

MODES: tuple[Mode, ...] = get_args(Mode)

_OF_TRANSPORT_TYPE: dict[str, Mode] = {
    "BUS": "bus",
    "METRO": "metro",
    "TRAM": "tram",
    "TRAIN": "rail",
    "BOAT": "ferry",
}


def mode_of(transport_type: str | None) -> Mode | None:
    """Return the mode of a TransportType (docs/protocols.md, section 2.6); None if it is unknown."""
    return _OF_TRANSPORT_TYPE.get(transport_type or "")
