"""How a URL module describes itself: its paths, their parameters and responses. Values.

Requests are parsed with the same parameters, and bodies are made from the same types, as /openapi.json and /docs are
made from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zope.interface import Interface

from govi_server.http.parameters import Parameter


class IDocumented(Interface):
    """Describes itself for /openapi.json and /docs."""

    def describe() -> "Sequence[Operation]":
        """Return the operations of all paths."""


class HeaderField(NamedTuple):
    """A header field of responses."""

    description: str
    type: Any
    """Of its value, as msgspec describes types."""


@dataclass(frozen=True, slots=True)
class ResponseSpec:
    """A possible response of an operation."""

    status: int
    description: str
    content_type: str = "text/plain"
    body: Any = str
    """The type of the body, as msgspec describes types: str for text, a Struct for JSON."""
    headers: tuple[str, ...] = ()
    """Names of header fields that are always present, beyond those of every HTTP response."""
    optional_headers: tuple[str, ...] = ()
    """Names of header fields that may be present."""


SECTIONS = ("Stops", "Departures", "OVapi", "Pages")
"""The sections of /docs, in order."""


@dataclass(frozen=True, slots=True)
class Example:
    """A request, with the status of its response.

    The response itself is in openapi/examples.json, which a test compares with what the modules send.
    """

    title: str
    url: str
    """Path and query."""
    accept: str = ""
    status: int = 200

    @property
    def key(self) -> str:
        """The key of its response in examples.json."""
        return f"{self.url} {self.accept}".rstrip()


@dataclass(frozen=True, slots=True)
class Operation:
    """What GET and HEAD do for a path, such as /tpc/{TimingPointCode}."""

    template: str
    summary: str
    responses: tuple[ResponseSpec, ...]
    parameters: tuple[Parameter, ...] = ()
    description: str = ""
    examples: tuple[Example, ...] = ()
    section: str = field(default="Departures", kw_only=True)

    @property
    def query(self) -> tuple[Parameter, ...]:
        """The parameters of the query string."""
        return tuple(parameter for parameter in self.parameters if parameter.place == "query")
