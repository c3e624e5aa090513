"""Fast path for cached responses: maps a raw header section to its parsed meaning and its last response.

A display requests its stop twice a minute with the same bytes, and all copies of an app send the same bytes. The
response equals that of the slow path: parsing, RequestHandler.process() and the module.
"""

from collections.abc import Callable

from msgspec import Struct

from govi_server.http.caching.cached_response import CachedResponse, Validator
from govi_server.http.caching.conditional import not_modified
from govi_server.http.dates import http_date_bytes
from govi_server.http.request import Environ
from govi_server.http.response import Fields
from govi_server.runtime.bounded_memory import BoundedMemory
from govi_server.statistics.records import CacheResult, Exchange

MAX_HEADER_SECTION_BYTES = 2048
"""A browser's header section has half as many."""

MAX_ENTRY_BYTES = 24 << 20
"""The memory of all entries: some 20,000 header sections of apps, 10,000 of browsers."""

ENTRY_BYTES = 1 << 10
"""Memory of an entry besides its header section, about."""

MAX_SERIALIZED_BYTES = 64 << 20
"""The memory of all serialized responses with their bodies, which the modules may have discarded."""

SERIALIZED_BYTES = 512
"""Memory of a serialized response besides its bytes, about."""

SERIALIZED_SECONDS = 10.0
"""Seconds after which all serialized responses are removed, so that the modules see which boards are in use."""


class MemoEntry(Struct):
    """A parsed header section."""

    method: str
    path: str
    respond: Callable[[], object]
    """Returns the CachedResponse, or anything else if none is available now: see web_handler.Responder."""
    condition: Environ | None
    """The conditional fields, such as If-None-Match; None if there are none."""
    closes: bool
    """Whether the connection closes after the response."""
    connection: str
    """The response's Connection field, '' for none."""
    module: str
    """The first segment of the path, for statistics."""
    stop: str
    """The stop, for statistics: see ResponseSender.set_stop()."""
    latest: Exchange | None = None
    """The latest exchange, which the next one with the same response shares."""

    def exchange(self, status: int, size: int, cache: CacheResult) -> Exchange:
        """Return the request and a response for statistics. size: bytes of the body."""
        latest = self.latest
        if latest is None or latest.bytes != size or latest.status != status or latest.cache != cache:
            latest = self.latest = Exchange(self.method, self.path, status, size, cache, self.module, self.stop)
        return latest

    def unchanged(self, response: CachedResponse) -> bool:
        """Return whether the client has the response's representation."""
        return self.condition is not None and not_modified(
            self.condition, response.representation.etag, response.representation.modified
        )


class SerializedResponse(Struct, frozen=True):
    """The bytes of a response to a header section, except for its Date."""

    entry: MemoEntry
    since: float
    until: float
    """Epoch seconds, exclusive; until then the bytes may be sent again while the validator is current."""
    validator: Validator | None
    start: bytes
    """The head up to the value of Date."""
    rest: bytes
    """The head from there on."""
    body: bytes
    """Empty in a response to HEAD, and in a 304."""
    exchange: Exchange
    """For statistics."""

    def to_bytes(self, now: float) -> bytes:
        """Return the response as it is sent now (epoch seconds)."""
        # If its validity began a moment later, Date must not precede it.
        return b"".join((self.start, http_date_bytes(max(now, self.since)), self.rest, self.body))


class RequestMemo:
    """Header sections whose response was cached before, in two layers.

    Entries map a header section to its parsed meaning. They save parsing and dispatch: 9 us instead of 65 for a board
    of the gateway, in process. They need at most MAX_ENTRY_BYTES; the least recently used is evicted. Nothing
    invalidates them, because they depend on the header section alone.

    Serialized responses map a header section to the bytes of its last response. They save the module's look-up and
    formatting the head: 2.2 us instead of 9. They need at most MAX_SERIALIZED_BYTES. All are removed when they need
    more, and every SERIALIZED_SECONDS; a response becomes invalid earlier if its board is replaced, or its Age or ttl
    changes.
    """

    def __init__(self) -> None:
        self._entries: BoundedMemory[MemoEntry] = BoundedMemory(MAX_ENTRY_BYTES)
        self._serialized: dict[bytes, SerializedResponse] = {}
        self._serialized_bytes = 0
        self._cleared_at = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, header_section: bytes) -> bool:
        return header_section in self._entries

    def lookup(self, header_section: bytes, now: float, server_headers: Fields) -> SerializedResponse | None:
        """Return the response to a header section; None if it is unknown or its response is not cached now.

        now: epoch seconds.
        """
        serialized = self._serialized.get(header_section)
        if serialized is not None and serialized.since <= now < serialized.until:
            validator = serialized.validator
            if validator is not None and validator.is_current:
                return serialized
        entry = self._entries.get(header_section)
        if entry is None:
            return None
        try:
            response = entry.respond()
        except Exception:
            return None  # the slow path raises and reports it as well
        if not isinstance(response, CachedResponse):
            return None
        return self._serialize(header_section, entry, response, now, server_headers)

    def _serialize(
        self, header_section: bytes, entry: MemoEntry, response: CachedResponse, now: float, server_headers: Fields
    ) -> SerializedResponse:
        """Return the bytes of a response, and store them if they may be sent again."""
        start, rest, body, status = response.serialize(
            entry.method, entry.unchanged(response), server_headers, entry.connection
        )
        exchange = entry.exchange(status, len(body), response.cache)
        if response.validity is None:
            return SerializedResponse(entry, now, now, None, start, rest, body, exchange)
        since, until, validator = response.validity
        serialized = SerializedResponse(entry, since, until, validator, start, rest, body, exchange)
        if max(now, since) < until:
            self._store_serialized(header_section, serialized, now)
        return serialized

    def _store_serialized(self, header_section: bytes, serialized: SerializedResponse, now: float) -> None:
        if self._serialized_bytes > MAX_SERIALIZED_BYTES or not 0 <= now - self._cleared_at < SERIALIZED_SECONDS:
            self._serialized.clear()
            self._serialized_bytes, self._cleared_at = 0, now
        previous = self._serialized.get(header_section)
        self._serialized[header_section] = serialized
        self._serialized_bytes += _size(serialized) - (0 if previous is None else _size(previous))

    def store(self, header_section: bytes, entry: MemoEntry) -> None:
        """Store a parsed header section, unless it is too long."""
        if len(header_section) <= MAX_HEADER_SECTION_BYTES:
            self._entries.put(header_section, entry, len(header_section) + ENTRY_BYTES)


def _size(serialized: SerializedResponse) -> int:
    return SERIALIZED_BYTES + len(serialized.rest) + len(serialized.body)
