"""Answers that are at hand: a representation with what is to be said of its age. Pure: no transport, no clock."""

from typing import Protocol, cast

from govi_server.http.caching.representation import Representation
from govi_server.http.response import Fields, format_head
from govi_server.statistics.records import CacheResult

# What the cache did, in the words of RFC 9211.
CACHE_STATUS: dict[CacheResult, str] = {
    "hit": "govi-cache; hit",
    "stale": "govi-cache; hit",  # with a negative ttl, which is how a stale hit is told
    "joined": "govi-cache; fwd=miss; collapsed",
    "miss": "govi-cache; fwd=miss",
}


class Validator(Protocol):
    """What an answer is made of."""

    is_current: bool
    """Whether there is still nothing newer."""


class _Gone:
    """The source of an answer of which nobody has said that it lasts."""

    is_current = False


_GONE = _Gone()


class CachedResponse:
    """An answer to GET or HEAD. It keeps the head that it was sent with last: in a second it is mostly the same.

    headers: what is to be said beside what the representation says itself. cache: what the cache had.
    """

    __slots__ = ("_head", "_of", "cache", "headers", "representation", "since", "source", "until")

    def __init__(self, made: Representation, headers: Fields, cache: CacheResult) -> None:
        self.representation = made
        self.headers = headers
        self.cache = cache
        self.since = self.until = 0.0
        self.source: Validator = _GONE
        self._of: object = None
        self._head = b""

    def set_validity(self, since: float, until: float, source: Validator) -> None:
        """Say that not a byte of it changes between these moments (epoch seconds), while its source is current."""
        self.since, self.until, self.source = since, until, source

    def write(
        self, method: str, unchanged: bool, more: Fields, now: float, connection: str
    ) -> tuple[bytes, bytes, int]:
        """Write it: give its head, the body that goes with it, and its status.

        unchanged: whether the client has it already. more: the server's header fields. The rest is as for head().
        """
        of = (unchanged, int(now), connection, more)
        if of != self._of:
            status = "304 Not Modified" if unchanged else "200 Ok"
            fields = (*self.representation.headers, *self.headers, *more)
            self._head = format_head(status, fields, len(self.representation.body), now=now, connection=connection)
            self._of = of
        if unchanged:
            return self._head, b"", 304
        return self._head, b"" if method == "HEAD" else self.representation.body, 200


def cached_response(
    made: Representation, cache: CacheResult, max_age: int, ttl: int, age: int | None = None, headers: Fields = ()
) -> CachedResponse:
    """Answer with a representation, and with how old it is: as the last time, if there is nothing else to say of it.

    max_age: seconds for which clients may keep it. ttl: seconds that are left of its being fresh, below 0 when it is
    stale. age: its age in seconds, None if that is not told. headers: more to say.
    """
    said = (cache, max_age, ttl, age, headers)
    if made.last is None or made.last[0] != said:
        headers = (
            *headers,
            ("Cache-Control", f"public, max-age={max_age}"),
            ("Cache-Status", f"{CACHE_STATUS[cache]}; ttl={ttl}"),
            *((("Age", f"{age}"),) if age is not None else ()),
        )
        made.last = (said, CachedResponse(made, headers, cache))
    return cast(CachedResponse, made.last[1])
