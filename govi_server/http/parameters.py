"""Query parameters: their types, and reading them from a request. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl

Json = Mapping[str, Any]


MOST_FIELDS = 100
"""Fields of a query that are looked at: nobody has so many parameters."""


class InvalidParameter(ValueError):
    """A query that cannot be answered; the text names the parameter."""


@dataclass(frozen=True, slots=True)
class String:
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
class Enum:
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
class Integer:
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
class Number:
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


class ParameterType(Protocol):
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
    kind: ParameterType
    description: str
    example: str | float | None = None
    place: Literal["query", "path"] = "query"
    required: bool = False

    def parse(self, said: Mapping[str, str]) -> Any:
        """Read it from what was said; None if nothing was. Raises BadQuery."""
        text = said.get(self.name)
        if text is None:
            if self.required:
                raise InvalidParameter(f"{self.name} is missing: it is {self.kind}")
            return None
        value = self.kind.read(text)
        if value is None:
            raise InvalidParameter(f"{self.name} is {self.kind}")
        return value


def parse_query(query: str) -> dict[str, str]:
    """Read a query string, the last of what is said twice. Raises BadQuery."""
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError as error:
        raise InvalidParameter(str(error)) from None
