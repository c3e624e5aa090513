"""What a URL module says of itself: its paths, what may be asked there, and what is answered. Pure values.

A module declares its contract(): paths, their parameters and answers. What reads a query reads it with the same
parameters, and /openapi.json and /docs are written from them, so that what is promised is what is done.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl

Json = Mapping[str, Any]

MOST_FIELDS = 100
"""Fields of a query that are looked at: nobody has so many parameters."""


class BadQuery(ValueError):
    """A query that cannot be answered; the text names the parameter."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text of at most so many characters, of this form (a regular expression) if any.

    Without a most it is as long as a request line may be.
    """

    most: int | None = None
    form: str = ""
    least: int = 0
    says: str = ""
    """What it is, for who gets it wrong; without that it is told how long it may be."""

    @property
    def schema(self) -> Json:
        """Describe it as JSON Schema."""
        schema: dict[str, Any] = {"type": "string"}
        if self.most is not None:
            schema["maxLength"] = self.most
        if self.least:
            schema["minLength"] = self.least
        return {**schema, "pattern": f"^(?:{self.form})$"} if self.form else schema

    def read(self, text: str) -> str | None:
        """Read it; None for what is none."""
        fits = self.least <= len(text) and (self.most is None or len(text) <= self.most)
        return text if fits and (not self.form or re.fullmatch(self.form, text)) else None

    def __str__(self) -> str:
        return self.says or ("a text" if self.most is None else f"a text of {self.least} to {self.most} characters")


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    @property
    def schema(self) -> Json:
        """Describe it as JSON Schema."""
        return {"type": "string", "enum": list(self.words)}

    def read(self, text: str) -> str | None:
        """Read it; None for what is none."""
        return text if text in self.words else None

    def __str__(self) -> str:
        return " or ".join(filter(None, (", ".join(self.words[:-1]), self.words[-1])))


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number of something, from least to most."""

    of: str
    least: int
    most: int

    @property
    def schema(self) -> Json:
        """Describe it as JSON Schema."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}

    def read(self, text: str) -> int | None:
        """Read it; None for what is none."""
        digits = len(str(self.most))
        number = int(text) if re.fullmatch(rf"[0-9]{{1,{digits}}}", text) else -1
        return number if self.least <= number <= self.most else None

    def __str__(self) -> str:
        return f"a number of {self.of} from {self.least} to {self.most}"


@dataclass(frozen=True, slots=True)
class Degrees:
    """A decimal number of degrees, from least to most."""

    least: float
    most: float

    @property
    def schema(self) -> Json:
        """Describe it as JSON Schema."""
        return {"type": "number", "minimum": self.least, "maximum": self.most}

    def read(self, text: str) -> float | None:
        """Read it; None for what is none."""
        number = float(text) if re.fullmatch(r"-?[0-9]{1,3}(?:\.[0-9]{1,30})?(?:[eE]-?[0-9]{1,3})?", text) else None
        return number if number is not None and self.least <= number <= self.most else None

    def __str__(self) -> str:
        return f"a number of degrees from {self.least:g} to {self.most:g}"


class Kind(Protocol):
    """What a parameter is: reads texts, and says in words what they are."""

    @property
    def schema(self) -> Json:
        """Describe it as JSON Schema."""

    def read(self, text: str) -> Any:
        """Read it; None for what is none."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What may be said in a query, or is a part of a path."""

    name: str
    kind: Kind
    description: str
    example: str | float | None = None
    place: Literal["query", "path"] = "query"
    required: bool = False

    def of(self, said: Mapping[str, str]) -> Any:
        """Read it from what was said; None if nothing was. Raises BadQuery."""
        text = said.get(self.name)
        if text is None:
            if self.required:
                raise BadQuery(f"{self.name} is missing: it is {self.kind}")
            return None
        value = self.kind.read(text)
        if value is None:
            raise BadQuery(f"{self.name} is {self.kind}")
        return value


@dataclass(frozen=True, slots=True)
class Answer:
    """What may be answered: a status, the content type and the schema of the body (None: any text)."""

    status: int
    description: str
    content_type: str = "text/plain"
    schema: Json | None = None
    headers: tuple[str, ...] = ()
    """Names of header fields that are always there and tell more; see openapi.HEADERS."""
    perhaps: tuple[str, ...] = ()
    """Names of those that are there when there is something to tell."""


SECTIONS = ("Stops", "Departures", "OVapi", "Pages")
"""Where paths are told of, in the order in which who builds something needs them."""


@dataclass(frozen=True, slots=True)
class Example:
    """A request as somebody might make it: path and query, and what it asks for in Accept.

    What was answered to it is kept in pages/examples.json, which the tests ask for anew.
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
class Path:
    """A path, such as /tpc/{TimingPointCode}, that GET and HEAD may ask for."""

    template: str
    summary: str
    answers: tuple[Answer, ...]
    parameters: tuple[Parameter, ...] = ()
    description: str = ""
    examples: tuple[Example, ...] = ()
    section: str = field(default="Departures", kw_only=True)

    @property
    def query(self) -> tuple[Parameter, ...]:
        """What may be said in the query."""
        return tuple(one for one in self.parameters if one.place == "query")


def said_in(query: str) -> dict[str, str]:
    """Read a query string, the last of what is said twice. Raises BadQuery."""
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError as error:
        raise BadQuery(str(error)) from None


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
