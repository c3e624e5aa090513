"""Fast path for cached responses: maps a raw header section to its parsed meaning and its last response.

A display requests its stop twice a minute with the same bytes, and all copies of an app send the same bytes. The
response equals that of the slow path: parsing, RequestHandler.process() and the module.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from govi_server.http.caching.cached_response import CachedResponse, Validator
from govi_server.http.caching.conditional import not_modified
from govi_server.http.request import Environ
from govi_server.http.response import Fields
from govi_server.statistics.records import CacheResult, Exchange

MAX_ENTRIES = 10_000

MAX_HEADER_SECTION_BYTES = 2048
"""A browser's header section has half as many. Entries and serialized heads need at most 60 MB."""


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


class SerializedResponse(NamedTuple):
    """The bytes of a response to a header section."""

    entry: MemoEntry
    since: float
    until: float
    """Epoch seconds, exclusive; until then the bytes may be sent again while the validator is current."""
    validator: Validator | None
    head: bytes
    body: bytes
    """Empty in a response to HEAD, and in a 304."""
    exchange: Exchange
    """For statistics."""


class RequestMemo:
    """Header sections whose response was cached before, in two layers.

    Entries map a header section to its parsed meaning. They save parsing and dispatch: 9 us instead of 65 for a board
    of the gateway, in process. At most MAX_ENTRIES are stored; the least recently used is evicted. Nothing
    invalidates them, because they depend on the header section alone.

    Serialized responses map a header section to the bytes of its last response. They save the module's look-up and
    formatting the head: 2.2 us instead of 9. At most MAX_ENTRIES are stored. All are removed after the second of
    their Date; a response becomes invalid earlier if its board is replaced, or its Age or ttl changes.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[bytes, MemoEntry] = OrderedDict()
        self._serialized: dict[bytes, SerializedResponse] = {}
        self._second = 0  # epoch second of Date in the serialized responses

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
        self._entries.move_to_end(header_section)
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
        validity = response.validity
        if validity is not None and validity.since > now:
            now = validity.since  # the validity has just begun: Date must not precede it
        head, body, status = response.serialize(
            entry.method, entry.unchanged(response), server_headers, now, entry.connection
        )
        exchange = entry.exchange(status, len(body), response.cache)
        if validity is None:
            return SerializedResponse(entry, now, now, None, head, body, exchange)
        since, until, validator = validity
        second = int(now)
        until = min(until, second + 1)
        serialized = SerializedResponse(entry, since, until, validator, head, body, exchange)
        if now < until:
            if second != self._second or len(self._serialized) >= MAX_ENTRIES:
                self._second = second
                self._serialized.clear()
            self._serialized[header_section] = serialized
        return serialized

    def store(self, header_section: bytes, entry: MemoEntry) -> None:
        """Store a parsed header section, unless it is too long."""
        if len(header_section) <= MAX_HEADER_SECTION_BYTES:
            self._entries[header_section] = entry
            if len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)
