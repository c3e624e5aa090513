"""In which language an answer is: the one that its address names, or else the one that the client prefers."""

from collections.abc import Mapping

from govi_server.contract import Choice, Parameter
from govi_server.environ import Environ
from govi_server.negotiation import best_language
from govi_server.pages.texts import LANGUAGES

LANG = Parameter("lang", Choice(LANGUAGES), "The language; without it, the one that the client prefers.", "nl")

VARY = "Accept-Language, Accept-Encoding"
"""What an answer depends on that is in somebody's language."""


def language(env: Environ, said: Mapping[str, str]) -> str:
    """Choose the language of the answer to a request with these parameters. Raises BadQuery."""
    named: str | None = LANG.of(said)
    return named or best_language(",".join(env.get_all("accept-language", [])), LANGUAGES)
