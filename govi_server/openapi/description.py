"""What a URL module says of itself: its paths, what may be asked there, and what is answered. Pure values.

A module declares its contract(): paths, their parameters and answers. What reads a query reads it with the same
parameters, and /openapi.json and /docs are written from them, so that what is promised is what is done.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from zope.interface import Interface

from govi_server.http.parameters import Json, Parameter


class IDocumented(Interface):
    """What a module provides that says of itself what may be asked of it: /openapi.json and /docs tell it."""

    def describe() -> "Sequence[Operation]":
        """List its paths."""


@dataclass(frozen=True, slots=True)
class ResponseSpec:
    """What may be answered: a status, the content type and the schema of the body (None: any text)."""

    status: int
    description: str
    content_type: str = "text/plain"
    schema: Json | None = None
    headers: tuple[str, ...] = ()
    """Names of header fields that are always there and tell more; see openapi.HEADERS."""
    optional_headers: tuple[str, ...] = ()
    """Names of those that are there when there is something to tell."""


SECTIONS = ("Stops", "Departures", "OVapi", "Pages")
"""Where paths are told of, in the order in which who builds something needs them."""


@dataclass(frozen=True, slots=True)
class Example:
    """A request as somebody might make it: path and query, and what it asks for in Accept.

    What was answered to it is kept in openapi/examples.json, which the tests ask for anew.
    """

    says: str
    ask: str
    accept: str = ""
    status: int = 200

    @property
    def key(self) -> str:
        """Stand for the request."""
        return f"{self.ask} {self.accept}".rstrip()


@dataclass(frozen=True, slots=True)
class Operation:
    """A path, such as /tpc/{TimingPointCode}, that GET and HEAD may ask for."""

    template: str
    summary: str
    answers: tuple[ResponseSpec, ...]
    parameters: tuple[Parameter, ...] = ()
    description: str = ""
    examples: tuple[Example, ...] = ()
    section: str = field(default="Departures", kw_only=True)

    @property
    def query(self) -> tuple[Parameter, ...]:
        """What may be said in the query."""
        return tuple(one for one in self.parameters if one.place == "query")
