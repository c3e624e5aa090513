"""The files that pages need, each under an address that changes with its content."""

from functools import lru_cache
from hashlib import blake2b
from importlib.resources import files

from govi_server.runtime.templates import environment


def policy(more: str) -> tuple[tuple[str, str], ...]:
    """Give the header fields of a page: nothing but our own files, and what more is said of its content's security.

    There is no style or script within a page, so that no name of a stop ever is one.
    """
    ours = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"
    return (
        ("Content-Security-Policy", f"{ours}; base-uri 'none'; {more}"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
    )


PAGE_HEADERS = policy("form-action 'self'; frame-ancestors 'none'")
"""What every page says: nothing of it comes from elsewhere."""


TYPES = {
    "board.css": "text/css; charset=utf-8",
    "board.js": "text/javascript; charset=utf-8",
    "front.css": "text/css; charset=utf-8",
    "front.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The files that are served, with their types."""


@lru_cache
def content(name: str) -> bytes:
    """Read a file."""
    return files("govi_server.pages").joinpath("static", name).read_bytes()


@lru_cache
def version(name: str) -> str:
    """Give what stands for the content of a file."""
    return blake2b(content(name), digest_size=6).hexdigest()


def address(name: str) -> str:
    """Give the path under which a file is to be had for good."""
    return f"/assets/{name}?v={version(name)}"


TEMPLATES = environment("govi_server.pages")
"""The pages, in which asset("board.css") is the address of a file."""
TEMPLATES.globals["asset"] = address
