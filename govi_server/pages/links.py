"""Links from a page to the same page in other languages."""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode

from govi_server.pages.texts import LANGUAGES, TEXTS


class LanguageLink(NamedTuple):
    """A link to the page in one language (two letters). name: the language's own name."""

    lang: str
    name: str
    address: str


def language_links(query: Mapping[str, str]) -> list[LanguageLink]:
    """Return the links of a page. query: the parameters to pass on, except lang."""
    parameters = urlencode([(name, value) for name, value in query.items() if name != "lang"])
    address = f"?{parameters}&lang=" if parameters else "?lang="
    return [LanguageLink(lang, TEXTS[lang]["name"], address + lang) for lang in LANGUAGES]
