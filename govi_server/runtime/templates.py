"""HTML templates with Jinja2: every value and control character is escaped, and undefined names fail."""

from collections.abc import Iterator

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from govi_server.runtime.text import escape_unprintable

PIECE_PARTS = 64
"""Texts and values of a template in a piece, which takes some tenths of a millisecond."""


def environment(package: str) -> Environment:
    """Return an environment of the templates in a package's directory ``templates``."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
        finalize=_printable,
    )


def render(template: Template, **values: object) -> Iterator[str]:
    """Render a template in pieces, between which other work may be done."""
    stream = template.stream(values)
    stream.enable_buffering(PIECE_PARTS)
    return stream


def _printable(value: object) -> object:
    """Return a value of a template, a text with its control characters escaped.

    Markup is returned as it is, since it was made from such values.
    """
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return escape_unprintable(value, allowed="\n\t")
    return value
