"""Bodies of error responses: text, problem details (RFC 9457) or a page for browsers, as Accept selects. Pure."""

from collections.abc import Mapping
from contextlib import suppress
from html import escape
from typing import Literal

import msgspec
from msgspec import Struct

from govi_server.http.negotiation import best_language, best_type
from govi_server.http.parameters import InvalidParameter, parse_query
from govi_server.http.request import Environ
from govi_server.http.response import Fields
from govi_server.runtime.text import escape_unprintable

TEXT, HTML, JSON, PROBLEM = "text/plain", "text/html", "application/json", "application/problem+json"

ErrorKind = Literal["invalid", "not_found", "not_allowed", "too_many", "timeout", "unavailable", "internal"]

_KINDS: Mapping[int, ErrorKind] = {
    404: "not_found", 405: "not_allowed", 406: "timeout", 429: "too_many", 500: "internal", 501: "not_allowed",
    502: "unavailable", 503: "unavailable", 504: "timeout",
}  # fmt: skip

DETAIL, QUERY = "<!-- detail -->", "<!-- query -->"
"""Stand in pages for the text of the error, and for what the path seems to search for."""

MAX_QUERY_CHARACTERS = 100


class Problem(Struct):
    """An error (RFC 9457). Its type is about:blank: the status identifies it."""

    title: str
    """The reason phrase of the status."""
    status: int
    detail: str
    """What happened, for human readers."""
    type: str = "about:blank"


class ErrorFormats(Struct, frozen=True):
    """What errors of a server look like.

    pages: by language, then by ErrorKind, with DETAIL and QUERY. headers: of pages. texts: modules whose clients
    expect text if they accept no page. problems: modules whose clients expect JSON if they accept anything.
    """

    pages: dict[str, dict[str, str]]
    headers: list[tuple[str, str]]
    texts: list[str]
    problems: list[str]

    def format(self, env: Environ, status: str, text: str) -> tuple[str, Fields]:
        """Return the body of an error and its header fields. text: what happened, for human readers."""
        module = env.segment
        offered: tuple[str, ...] = (TEXT, HTML) if module in self.texts else (TEXT, HTML, PROBLEM, JSON)
        if module in self.problems:
            offered = (PROBLEM, JSON, HTML, TEXT)
        content_type = best_type(",".join(env.get_all("accept", [])), offered)
        if content_type == HTML:
            lang, page = self._page(env, int(status[:3]))
            detail = escape(escape_unprintable(text.strip(), allowed="\n\t"))
            body = page.replace(DETAIL, detail).replace(QUERY, escape(_words(env["path_info"])))
            fields = (("Content-Language", lang), ("Vary", "Accept, Accept-Language"), *self.headers)
            return body, (("Content-Type", f"{HTML}; charset=utf-8"), *fields)
        if content_type == TEXT:
            return text, (("Content-Type", f"{TEXT}; charset=utf-8"), ("Vary", "Accept"))
        return problem(status, text), (("Content-Type", PROBLEM), ("Vary", "Accept"))

    def _page(self, env: Environ, status: int) -> tuple[str, str]:
        """Return the language of the page about a status, and the page."""
        languages, lang = tuple(self.pages), ""
        with suppress(InvalidParameter):
            lang = parse_query(env.get("query_string", "")).get("lang", "")
        if lang not in languages:
            lang = best_language(",".join(env.get_all("accept-language", [])), languages)
        return lang, self.pages[lang][_KINDS.get(status, "invalid")]


def problem(status: str, text: str) -> str:
    """Return problem details as JSON."""
    details = Problem(status[4:], int(status[:3]), escape_unprintable(text.strip(), allowed="\n\t"))
    return msgspec.json.encode(details).decode() + "\n"


def _words(path: str) -> str:
    """Return what a path seems to search for: the last segment of /board/utrecht centraal."""
    first, _, rest = path[1:].partition("/")
    words = rest.rstrip("/").rpartition("/")[2] if first in ("board", "events") else ""
    text = words[:MAX_QUERY_CHARACTERS].encode("latin-1").decode("utf-8", "replace")
    return escape_unprintable(text).replace("\N{REPLACEMENT CHARACTER}", "")
