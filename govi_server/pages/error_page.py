"""Pages about errors: what happened, what to try, and the search."""

from collections.abc import Iterable

from markupsafe import Markup

from govi_server.departures.place_index import MAX_PLACES, MAX_QUERY_CHARACTERS
from govi_server.pages.assets import TEMPLATES
from govi_server.pages.links import language_links
from govi_server.pages.texts import LANGUAGES, SPACED_TEXTS

_PAGE = TEMPLATES.get_template("error.html")


def error_pages(kinds: Iterable[str], detail: str, query: str, has_search: bool) -> dict[str, dict[str, str]]:
    """Return a page for each kind of error, by language and kind.

    detail, query: stand for the text of the error, and for what the search contains. has_search: whether stops can be
    searched.
    """
    kinds = [*kinds]
    return {
        lang: {
            kind: _PAGE.render(
                lang=lang,
                texts=SPACED_TEXTS[lang],
                kind=kind,
                detail=Markup(detail),
                query=Markup(query),
                languages=language_links({}),
                has_search=has_search,
                max_length=MAX_QUERY_CHARACTERS,
                max_stops=MAX_PLACES,
                n_found="",
            )
            for kind in kinds
        }
        for lang in LANGUAGES
    }
