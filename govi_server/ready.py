"""Answers that are at hand: a representation with what is to be said of its age. Pure: no transport, no clock."""

from govi_server.response import Fields, Representation, head
from govi_server.statistics import CacheResult

# What the cache did, in the words of RFC 9211.
CACHE_STATUS: dict[CacheResult, str] = {
    "hit": "govi-cache; hit",
    "stale": "govi-cache; hit",  # with a negative ttl, which is how a stale hit is told
    "joined": "govi-cache; fwd=miss; collapsed",
    "miss": "govi-cache; fwd=miss",
}


class Ready:
    """An answer to GET or HEAD. It keeps the head that it was sent with last: in a second it is mostly the same.

    cache: what the cache had. max_age: seconds for which clients may keep it. ttl: seconds that are left of its being
    fresh, below 0 when it is stale. age: its age in seconds, None if that is not told. headers: more to say.
    """

    __slots__ = ("_head", "_of", "cache", "headers", "made", "said")

    def __init__(
        self, made: Representation, cache: CacheResult, max_age: int, ttl: int, age: int | None, headers: Fields
    ) -> None:
        self.made = made
        self.cache = cache
        self.said = (cache, max_age, ttl, age, headers)
        self.headers = (
            *made.headers,
            *headers,
            ("Cache-Control", f"public, max-age={max_age}"),
            ("Cache-Status", f"{CACHE_STATUS[cache]}; ttl={ttl}"),
            *((("Age", f"{age}"),) if age is not None else ()),
        )
        self._of: object = None
        self._head = b""

    def head(self, status: str, more: Fields, now: float, connection: str) -> bytes:
        """Write the head that it goes out with, the server's header fields at its end; see response.head()."""
        of = (status, int(now), connection, more)
        if of != self._of:
            self._head = head(status, (*self.headers, *more), len(self.made), now=now, connection=connection)
            self._of = of
        return self._head


def at_hand(
    made: Representation, cache: CacheResult, max_age: int, ttl: int, age: int | None = None, headers: Fields = ()
) -> Ready:
    """Answer with a representation: as the last time, if there is nothing else to say of it; see Ready."""
    last = made.last
    if isinstance(last, Ready) and last.said == (cache, max_age, ttl, age, headers):
        return last
    made.last = ready = Ready(made, cache, max_age, ttl, age, headers)
    return ready
