"""The static files of the pages, each at an address that changes with its content, and the templates."""

from functools import lru_cache
from hashlib import blake2b
from importlib.resources import files

from govi_server.runtime.templates import environment


def policy(directives: str) -> tuple[tuple[str, str], ...]:
    """Return a page's own security header fields. directives: additions to the Content-Security-Policy.

    Pages only load files of this server. Inline styles and scripts are forbidden, so no name can inject them. The
    policy replaces that of other responses: http/response.py, SAFETY_HEADERS.
    """
    kinds = ("script", "style", "img", "connect", "manifest")
    sources = "; ".join(("default-src 'none'", *(f"{kind}-src 'self'" for kind in kinds)))
    return (
        ("Content-Security-Policy", f"{sources}; base-uri 'none'; {directives}"),
        ("Referrer-Policy", "no-referrer"),
    )


PAGE_HEADERS = policy("form-action 'self'; frame-ancestors 'none'")
"""The header fields of a page that may not be framed."""

THEMES = ("light", "dark", "contrast", "paper")
"""The themes of pages, besides what the browser prefers: see templates/styles.html."""

TYPES = {
    "board.css": "text/css; charset=utf-8",
    "board.js": "text/javascript; charset=utf-8",
    "contrast.css": "text/css; charset=utf-8",
    "dark.css": "text/css; charset=utf-8",
    "docs.css": "text/css; charset=utf-8",
    "docs.js": "text/javascript; charset=utf-8",
    "front.css": "text/css; charset=utf-8",
    "front.js": "text/javascript; charset=utf-8",
    "make.css": "text/css; charset=utf-8",
    "make.js": "text/javascript; charset=utf-8",
    "recent.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "icon-192.png": "image/png",
    "icon-512.png": "image/png",
    "favicon.ico": "image/vnd.microsoft.icon",
    "site.webmanifest": "application/manifest+json",
    "paper.css": "text/css; charset=utf-8",
    "tokens.css": "text/css; charset=utf-8",
}
"""Content types of the files, by name."""


@lru_cache
def content(name: str) -> bytes:
    """Return the content of a file."""
    return files("govi_server.pages").joinpath("static", name).read_bytes()


@lru_cache
def version(name: str) -> str:
    """Return a digest of a file's content."""
    return blake2b(content(name), digest_size=6).hexdigest()


def address(name: str) -> str:
    """Return the path of a file in its current version."""
    return f"/assets/{name}?v={version(name)}"


VERSION = blake2b(
    b"".join(
        part.read_bytes()
        for folder in ("static", "templates")
        for part in sorted(files("govi_server.pages").joinpath(folder).iterdir(), key=lambda part: part.name)
    ),
    digest_size=6,
).hexdigest()
"""A digest of the pages' files: an open page reloads itself if that of its server has changed."""

TEMPLATES = environment("govi_server.pages")
"""The templates of the pages; in them, asset("board.css") is the address of a file."""
TEMPLATES.globals["asset"] = address
# Imported once: an import in the template would take 10 us per page.
for _file, _macro in (
    ("languages.html", "navigation"),
    ("options.html", "options"),
    ("styles.html", "styles"),
    ("head.html", "head"),
    ("about.html", "about"),
):
    TEMPLATES.globals[_macro] = vars(TEMPLATES.get_template(_file).module)[_macro]
