"""Request parameters: their types and JSON Schemas, and how they are parsed. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl

Json = Mapping[str, Any]

MAX_QUERY_FIELDS = 100
"""Parameters of a query string; those with more are rejected."""


class InvalidParameter(ValueError):
    """A parameter is missing or invalid; the text names the parameter and the expected value."""


@dataclass(frozen=True, slots=True)
class String:
    """A string. Without max_length, only the limit of the request line bounds it."""

    max_length: int | None = None
    pattern: str = ""
    """A regular expression that the entire text must match; "" for any text."""
    min_length: int = 0
    name: str = ""
    """A noun phrase with its article that replaces the length in error messages."""

    @property
    def schema(self) -> Json:
        """The JSON Schema of the values."""
        schema: dict[str, Any] = {"type": "string"}
        if self.max_length is not None:
            schema["maxLength"] = self.max_length
        if self.min_length:
            schema["minLength"] = self.min_length
        return {**schema, "pattern": f"^(?:{self.pattern})$"} if self.pattern else schema

    def parse(self, text: str) -> str | None:
        """Return the text; None if it is invalid."""
        fits = self.min_length <= len(text) and (self.max_length is None or len(text) <= self.max_length)
        return text if fits and (not self.pattern or re.fullmatch(self.pattern, text)) else None

    def __str__(self) -> str:
        if self.name or self.max_length is None:
            return self.name or "text"
        return f"text of {self.min_length} to {self.max_length} characters"


@dataclass(frozen=True, slots=True)
class Enum:
    """One of a fixed set of strings."""

    values: tuple[str, ...]

    @property
    def schema(self) -> Json:
        """The JSON Schema of the values."""
        return {"type": "string", "enum": list(self.values)}

    def parse(self, text: str) -> str | None:
        """Return the value; None if it is invalid."""
        return text if text in self.values else None

    def __str__(self) -> str:
        return " or ".join(filter(None, (", ".join(self.values[:-1]), self.values[-1])))


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number of a unit, such as minutes."""

    unit: str
    minimum: int
    maximum: int

    @property
    def schema(self) -> Json:
        """The JSON Schema of the values."""
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}

    def parse(self, text: str) -> int | None:
        """Return the number; None if it is invalid."""
        digits = len(str(self.maximum))
        number = int(text) if re.fullmatch(rf"[0-9]{{1,{digits}}}", text) else -1
        return number if self.minimum <= number <= self.maximum else None

    def __str__(self) -> str:
        return f"a number of {self.unit} from {self.minimum} to {self.maximum}"


@dataclass(frozen=True, slots=True)
class Number:
    """A decimal number of degrees."""

    minimum: float
    maximum: float

    @property
    def schema(self) -> Json:
        """The JSON Schema of the values."""
        return {"type": "number", "minimum": self.minimum, "maximum": self.maximum}

    def parse(self, text: str) -> float | None:
        """Return the number; None if it is invalid."""
        number = float(text) if re.fullmatch(r"-?[0-9]{1,3}(?:\.[0-9]{1,30})?(?:[eE]-?[0-9]{1,3})?", text) else None
        return number if number is not None and self.minimum <= number <= self.maximum else None

    def __str__(self) -> str:
        return f"a number of degrees from {self.minimum:g} to {self.maximum:g}"


class ParameterType(Protocol):
    """Parses the values of a parameter, and describes them: str() follows "must be" in error messages."""

    @property
    def schema(self) -> Json:
        """The JSON Schema of the values."""

    def parse(self, text: str) -> Any:
        """Return the value; None if it is invalid."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the query string, or a segment of the path."""

    name: str
    type: ParameterType
    description: str
    example: str | float | None = None
    place: Literal["query", "path"] = "query"
    required: bool = False

    def parse(self, query: Mapping[str, str]) -> Any:
        """Return the parameter's value in a parsed query; None if it is absent. Raises InvalidParameter."""
        text = query.get(self.name)
        if text is None:
            if self.required:
                raise InvalidParameter(f"{self.name} is missing: it must be {self.type}")
            return None
        value = self.type.parse(text)
        if value is None:
            raise InvalidParameter(f"{self.name} must be {self.type}")
        return value


def parse_query_lists(query: str) -> dict[str, list[str]]:
    """Parse a query string; return all values of each name. Raises InvalidParameter."""
    values: dict[str, list[str]] = {}
    for name, value in _pairs(query):
        values.setdefault(name, []).append(value)
    return values


def parse_query(query: str) -> dict[str, str]:
    """Parse a query string; the last value applies if a name is repeated. Raises InvalidParameter."""
    return dict(_pairs(query))


def _pairs(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise InvalidParameter(f"The query string must have at most {MAX_QUERY_FIELDS} parameters") from None
