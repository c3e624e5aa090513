"""Responses of the main process, as a worker sends them: once, or again for as long as they are fresh. Pure."""

import re
from math import ceil

from govi_server.http.caching.cached_response import CachedResponse, Validity, cache_status
from govi_server.http.caching.representation import Representation
from govi_server.http.caching.response_cache import STALE_SECONDS
from govi_server.http.dates import parse_http_date
from govi_server.http.response import SAFETY_HEADERS, Fields, format_lines
from govi_server.statistics.records import CACHE_RESULTS, CacheResult
from govi_server.web_handler import ErrorResponse
from govi_server.workers.fields import COST, RESULT
from govi_server.workers.upstream_connection import Message

_REPRESENTATION = frozenset(("Content-Type", "Content-Encoding", "ETag", "Vary", "Last-Modified"))
_OWN = frozenset(("Date", "Content-Length", "Connection", RESULT))
"""Fields that the worker's server sets itself, or that no client receives."""

_MAX_AGE = re.compile(r"(?<![^ ,])max-age=([0-9]{1,9})(?![^ ,])")
_NOT_STORED = re.compile(r"(?<![^ ,])(?:no-store|no-cache|private)(?![^ ,])")
_TTL = re.compile(r"ttl=-?[0-9]+")


class _Fresh:
    """The validator of all responses, which stay the same for as long as they are fresh.

    A validator that referred to its response would keep the body of an evicted one in memory.
    """

    is_current = True


_FRESH = _Fresh()


class Response:
    """A response of the main process, received at a time (epoch seconds)."""

    def __init__(self, message: Message, now: float) -> None:
        fields = dict(message.fields)
        cache, _, self.stop = fields.get(RESULT, "none").partition(" ")
        self.cache: CacheResult = next((result for result in CACHE_RESULTS if result == cache), "none")
        cost = fields.get(COST, "")
        self.cost = int(cost) if cost.isdecimal() else None
        """The cost to charge before the request is repeated; None if this is the response."""
        self.vary = tuple(sorted(name.strip().lower() for name in fields.get("Vary", "").split(",") if name.strip()))
        self._status = message.status
        self._fields = client_fields(message.fields)
        self._body = message.body
        self._representation: Representation | None = None
        if message.status.startswith("200 ") and "ETag" in fields:
            self._representation = _representation(message.body, self._fields)
            self._fields = tuple(field for field in self._fields if field[0] not in _REPRESENTATION)
        self._received_at = now
        age = fields.get("Age", "")
        self._age = int(age) if age.isdecimal() else None
        self._lifetime = self._seconds_fresh(fields.get("Cache-Control", ""))

    def __len__(self) -> int:
        return len(self._body)

    @property
    def is_cacheable(self) -> bool:
        """Whether it may be sent again."""
        return self._lifetime > 0

    def first(self, is_joined: bool) -> CachedResponse | ErrorResponse:
        """Return the response for a client that waited for it. is_joined: whether another client requested it."""
        cache, fields = self.cache, self._fields
        if is_joined and cache == "miss":
            cache = "joined"
            fields = tuple((name, _collapsed(value) if name == "Cache-Status" else value) for name, value in fields)
        if self._representation is None:
            return ErrorResponse(self._status, fields, self._body, cache)
        return CachedResponse(self._representation, fields, cache)

    def again(self, now: float) -> CachedResponse | None:
        """Return the response at a later time (epoch seconds); None if it is no longer fresh.

        Age and ttl continue. Without Age it is max-age that decreases, as in ResponseCache. The seconds since it was
        received are rounded up, so it never seems younger than it is.
        """
        elapsed = now - self._received_at
        if self._representation is None or not 0 <= elapsed < self._lifetime:
            return None
        seconds = ceil(elapsed)
        fields = tuple((name, self._later(name, value, seconds)) for name, value in self._fields)
        until = self._received_at + min(seconds, self._lifetime)
        cache: CacheResult = "none" if self.cache == "none" else "hit"
        return CachedResponse(self._representation, fields, cache, Validity(now, until, _FRESH))

    def _seconds_fresh(self, cache_control: str) -> int:
        """Return for how many seconds it may be sent again; 0 if it must not be stored (RFC 9111 section 4.2)."""
        match = _MAX_AGE.search(cache_control)
        if self._representation is None or match is None or _NOT_STORED.search(cache_control):
            return 0
        # Age was rounded down by up to a second.
        seconds = int(match[1]) if self._age is None else int(match[1]) - self._age - 1
        return min(seconds, STALE_SECONDS) if self.cache == "stale" else seconds

    def _later(self, name: str, value: str, seconds: int) -> str:
        """Return the value of a field after some seconds."""
        if name == "Age" and self._age is not None:
            return f"{self._age + seconds}"
        if name == "Cache-Control" and self._age is None:
            return _MAX_AGE.sub(lambda match: f"max-age={int(match[1]) - seconds}", value)
        if name == "Cache-Status":
            match = _TTL.search(value)
            return cache_status("hit", int(match[0][4:]) - seconds if match else None)
        return value


def client_fields(fields: Fields) -> Fields:
    """Return the fields of a response that a client receives, except for those that the worker's server sets."""
    return tuple(field for field in fields if field[0] not in _OWN and field not in SAFETY_HEADERS)


def _representation(body: bytes, fields: Fields) -> Representation:
    own = tuple(field for field in fields if field[0] in _REPRESENTATION)
    values = dict(own)
    modified = parse_http_date(values.get("Last-Modified", ""), 0)
    type_line = format_lines(field for field in own if field[0] == "Content-Type")
    lines = format_lines(field for field in own if field[0] != "Content-Type")
    return Representation(body, values["ETag"], own, type_line, lines, modified)


def _collapsed(value: str) -> str:
    return value.replace(cache_status("miss"), cache_status("joined"), 1)
