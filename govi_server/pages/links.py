"""Links from a page to the same in other languages."""

from collections.abc import Mapping
from html import escape
from urllib.parse import urlencode

from govi_server.pages.texts import LANGUAGES, TEXTS


def links(lang: str, query: Mapping[str, str]) -> str:
    """Make the links of a page in a language, in HTML. query: the parameters that they keep."""
    return " ".join(_link(other, lang, query) for other in LANGUAGES)


def _link(other: str, lang: str, query: Mapping[str, str]) -> str:
    target = escape("?" + urlencode({**query, "lang": other}))
    current = ' aria-current="true"' if other == lang else ""
    return f'<a href="{target}" lang="{other}" hreflang="{other}"{current}>{escape(TEXTS[other]["name"])}</a>'
