"""Responses that may be sent more than once, with the header fields about their age. Pure."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol

from govi_server.http.caching.representation import Representation
from govi_server.http.response import POLICY, SAFETY_HEADERS, Fields, format_lines
from govi_server.statistics.records import CacheResult

_CACHE_STATUS: dict[CacheResult, str] = {
    "hit": "hit",
    "stale": "hit",  # a stale hit is a hit with a negative ttl
    "joined": "fwd=miss; collapsed",
    "miss": "fwd=miss",
}


def cache_status(result: CacheResult, ttl: int | None = None) -> str:
    """Return the value of Cache-Status (RFC 9211).

    ttl: seconds for which the response stays fresh, negative if it is stale; omitted if None.
    """
    status = f"govi-cache; {_CACHE_STATUS[result]}"
    return status if ttl is None else f"{status}; ttl={ttl}"


class Validator(Protocol):
    """The data from which a cached response was rendered."""

    @property
    def is_current(self) -> bool:
        """Whether the data is still the latest."""


class VersionValidator:
    """A validator that is current until a version changes.

    read_version: returns the version, a token that is compared by equality.
    """

    __slots__ = ("_read_version", "_version")

    def __init__(self, read_version: Callable[[], object]) -> None:
        self._read_version = read_version
        self._version = read_version()

    @property
    def is_current(self) -> bool:
        """Whether the version is unchanged."""
        return self._read_version() == self._version


class Validity(NamedTuple):
    """How long a response stays the same, byte for byte, except for its Date."""

    since: float
    """Epoch seconds."""
    until: float
    """Epoch seconds, exclusive."""
    validator: Validator


class CachedResponse(NamedTuple):
    """A response to GET or HEAD."""

    representation: Representation
    headers: Fields
    """Header fields in addition to those of the representation."""
    cache: CacheResult
    validity: Validity | None = None
    """None if the response must be rendered for each request."""

    def serialize(
        self, method: str, unchanged: bool, server_headers: Fields, connection: str
    ) -> tuple[bytes, bytes, bytes, int]:
        """Return the response head before and after the value of Date, the body to send with it, and the status.

        unchanged: whether the client has the representation. connection: the Connection field, '' for none.
        """
        # Equivalent to response.format_head(), but 2 us faster: most lines are already formatted.
        representation = self.representation
        fields = format_lines(self.headers)
        safety = _PAGE_SAFETY_LINES if POLICY in fields else _SAFETY_LINES
        lines = f"{representation.lines}{fields}{_server_lines(server_headers)}{safety}"
        end = f"Connection: {connection}\r\n\r\n" if connection else "\r\n"
        if unchanged:
            return b"HTTP/1.1 304 Not Modified\r\nDate: ", f"\r\n{lines}{end}".encode("latin-1"), b"", 304
        body = representation.body
        rest = f"\r\n{representation.type_line}{lines}Content-Length: {len(body)}\r\n{end}".encode("latin-1")
        return b"HTTP/1.1 200 Ok\r\nDate: ", rest, b"" if method == "HEAD" else body, 200


_SAFETY_LINES = format_lines(SAFETY_HEADERS)
_PAGE_SAFETY_LINES = format_lines(field for field in SAFETY_HEADERS if field[0] != POLICY)  # a page has its own
_server_lines = lru_cache(maxsize=16)(format_lines)  # one entry per server


def cached_response(
    representation: Representation,
    cache: CacheResult,
    max_age: int,
    ttl: int,
    age: int | None = None,
    headers: Fields = (),
    validity: Validity | None = None,
) -> CachedResponse:
    """Return a response with Cache-Control, Cache-Status and, if an age is passed, Age.

    max_age: seconds for which clients may cache it. ttl: see cache_status(). age: seconds.
    """
    headers = (
        *headers,
        ("Cache-Control", f"public, max-age={max_age}"),
        ("Cache-Status", cache_status(cache, ttl)),
        *((("Age", f"{age}"),) if age is not None else ()),
    )
    return CachedResponse(representation, headers, cache, validity)
