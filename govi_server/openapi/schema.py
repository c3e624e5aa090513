"""JSON Schema in short."""

from collections.abc import Iterable, Mapping
from typing import Any

from govi_server.http.parameters import Json


def objects(properties: Mapping[str, Json], required: Iterable[str] | None = None) -> dict[str, Any]:
    """Write the schema of an object; required: the names that are always there, if not all."""
    names = list(properties if required is None else required)
    return {"type": "object", "properties": dict(properties), **({"required": names} if names else {})}


def arrays(items: Json) -> dict[str, Any]:
    """Write the schema of an array."""
    return {"type": "array", "items": items}


def mappings(values: Json) -> dict[str, Any]:
    """Write the schema of an object whose names are codes or keys."""
    return {"type": "object", "additionalProperties": values}


def words(among: Iterable[str]) -> dict[str, Any]:
    """Write the schema of a text that is one of some words."""
    return {"type": "string", "enum": list(among)}


TEXT: Json = {"type": "string"}


NOTHING: Json = {"type": "string", "maxLength": 0}


MOMENT: Json = {"type": "string", "format": "date-time"}


MOMENT_OR_NULL: Json = {"type": ["string", "null"], "format": "date-time"}


TEXT_OR_NULL: Json = {"type": ["string", "null"]}


NUMBER: Json = {"type": "integer"}


NUMBER_OR_NULL: Json = {"type": ["integer", "null"]}


DEGREES_OR_NULL: Json = {"type": ["number", "null"]}


FLAG: Json = {"type": "boolean"}
