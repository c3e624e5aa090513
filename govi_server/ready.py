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

    headers: what is to be said beside what the representation says itself. cache: what the cache had.
    """

    __slots__ = ("_head", "_of", "cache", "headers", "made")

    def __init__(self, made: Representation, headers: Fields, cache: CacheResult) -> None:
        self.made = made
        self.headers = headers
        self.cache = cache
        self._of: object = None
        self._head = b""

    def head(self, status: str, more: Fields, now: float, connection: str) -> bytes:
        """Write the head that it goes out with, the server's header fields at its end; see response.head()."""
        of = (status, int(now), connection, more)
        if of != self._of:
            fields = (*self.made.headers, *self.headers, *more)
            self._head = head(status, fields, len(self.made), now=now, connection=connection)
            self._of = of
        return self._head


def at_hand(
    made: Representation, cache: CacheResult, max_age: int, ttl: int, age: int | None = None, headers: Fields = ()
) -> Ready:
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
        made.last = (said, Ready(made, headers, cache))
    return made.last[1]
