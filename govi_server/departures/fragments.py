"""Parts of documents about one passtime, which are formatted once and joined into documents many times."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from msgspec import Struct

MAX_FORMS = 12
"""Forms of one passtime that are stored; requests may select any fields of a board, in any order."""

FORM_BYTES = 100
"""Memory of a stored part besides its text, about."""

OBJECT_BYTES = 200
"""Memory of what is stored besides texts, such as the row of a display, about."""

STEP_PARTS = 32
"""Stored parts that are joined in one step."""


class Fragments(Struct, gc=False, eq=False):
    """The parts of documents that were made of one passtime, by form.

    Saves formatting what did not change. MAX_FORMS bounds it, and the memory of its stop's joined passtimes
    (kv78turbo/stop_departures). Nothing invalidates a part: a changed passtime has new
    Fragments, and a form names everything else on which a part depends. Without gc: no part refers to Fragments.
    """

    parts: dict[str, Any]
    unused: dict[str, Any] | None = None
    """Parts that were not used since the last call of drop_unused()."""
    unused_size: int = 0
    """The memory of these in bytes."""
    size: int = 0
    """The memory of all parts in bytes."""

    def __eq__(self, other: object) -> bool:
        """Return True for any Fragments: what was made of a row makes no difference to it."""
        return isinstance(other, Fragments)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "Fragments()"

    def find(self, form: str) -> Any:
        """Return the stored part of a form; None if there is none."""
        part = self.parts.get(form)
        if part is None and self.unused is not None:
            part = self.unused.pop(form, None)
            if part is not None:
                self.parts[form] = part
                self.unused_size -= _size_of(form, part)
        return part

    def store(self, form: str, part: Any) -> None:
        """Store a part, always of the same type for a form: a text, or a tuple of texts and numbers."""
        if form in self.parts:
            self.size -= _size_of(form, self.parts[form])
        elif len(self.parts) + len(self.unused or ()) >= MAX_FORMS:
            self.parts.clear()
            self.unused = None
            self.size = self.unused_size = 0
        self.parts[form] = part
        self.size += _size_of(form, part)

    def drop_unused(self) -> None:
        """Drop the parts that were not used since the last call."""
        self.size -= self.unused_size
        self.unused, self.unused_size = self.parts or None, self.size
        self.parts = {}


def _size_of(form: str, part: Any) -> int:
    return FORM_BYTES + len(form) + _part_size(part)


def _part_size(part: Any) -> int:
    if isinstance(part, str | bytes):
        return len(part)
    return sum(map(_part_size, part)) if isinstance(part, tuple) else OBJECT_BYTES


_Part = TypeVar("_Part")


def make_part(
    fragments: Fragments | None, form: str, state: object, make: Callable[..., _Part], *arguments: Any
) -> tuple[_Part, bool]:
    """Return a part of a document, made with make(*arguments), and whether it was stored.

    fragments: None if nothing is stored. state: what else it depends on and changes with time, such as the remaining
    minutes; a stored part of another state is replaced. Always None for some forms.
    """
    stored = None if fragments is None else fragments.find(form)
    if stored is not None:
        if state is None:
            return stored, True
        if stored[0] == state:
            return stored[1], True
    part = make(*arguments)
    if fragments is not None:
        fragments.store(form, part if state is None else (state, part))
    return part, False


_Text = TypeVar("_Text", str, bytes)


def pieces(parts: Iterable[tuple[_Text, bool] | None], empty: _Text) -> Iterator[_Text]:
    """Join the parts of a document into pieces, each of which is the work of one step.

    parts: as returned by make_part(), or None for a step without one. empty: an empty text.
    """
    step: list[_Text] = []
    for part in parts:
        if part is not None:
            step.append(part[0])
            if part[1] and len(step) < STEP_PARTS:
                continue
        yield empty.join(step)
        step.clear()
    yield empty.join(step)
