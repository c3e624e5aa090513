"""JSON Schemas of the types of bodies and header fields, as OpenAPI's components."""

from typing import Any

import msgspec

_REFERENCE = "#/components/schemas/{name}"


class Schemas:
    """Makes schemas and collects the Structs that they refer to."""

    def __init__(self) -> None:
        self.components: dict[str, Any] = {}
        """The schemas of the Structs by name."""
        self._schemas: dict[Any, Any] = {}
        """By type: most operations have the same errors."""

    def of(self, body: Any) -> Any:
        """Return the schema of a type; a Struct's is a reference to the components."""
        if body not in self._schemas:
            (self._schemas[body],), components = msgspec.json.schema_components([body], ref_template=_REFERENCE)
            self.components.update(components)
        return self._schemas[body]


def reference(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the reference to a Struct among the components."""
    return {"$ref": _REFERENCE.format(name=struct.__name__)}
