"""Descriptions of URL modules: their paths, with parameters and responses, for /openapi.json and /docs.

The modules parse requests with the same parameters, and make bodies from the same types.
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
    """The type of its value, for msgspec."""


@dataclass(frozen=True, slots=True)
class ResponseSpec:
    """A possible response of an operation."""

    status: int
    description: str
    content_type: str = "text/plain"
    body: Any = str
    """The type of the body, for msgspec: str for text, a Struct for JSON."""
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
    """GET and HEAD of a path, such as /tpc/{TimingPointCode}."""

    template: str
    summary: str
    responses: tuple[ResponseSpec, ...]
    parameters: tuple[Parameter, ...] = ()
    description: str = ""
    examples: tuple[Example, ...] = ()
    section: str = field(default="Departures", kw_only=True)
    has_problems: bool = field(default=True, kw_only=True)
    """Whether errors are problem details for clients that accept JSON; otherwise they are text."""
    noun: str = field(kw_only=True)
    """What it returns, in camel case: getBoard and headBoard are the operationIds of the noun Board."""

    @property
    def query(self) -> tuple[Parameter, ...]:
        """The parameters of the query string."""
        return tuple(parameter for parameter in self.parameters if parameter.place == "query")
