"""Fast path for cached responses: maps a raw header section to its parsed meaning and its last response.

A display requests its stop twice a minute with the same bytes, and all copies of an app send the same bytes. The
response equals that of the slow path: parsing, RequestHandler.process() and the module.
"""

from collections.abc import Callable
from weakref import ReferenceType, ref

from msgspec import Struct

from govi_server.http.caching.cached_response import CachedResponse, Validator
from govi_server.http.caching.conditional import not_modified
from govi_server.http.caching.representation import Representation
from govi_server.http.dates import http_date_bytes
from govi_server.http.request import Environ
from govi_server.http.response import Fields
from govi_server.http.sender import MAX_COPIED_BYTES
from govi_server.runtime.bounded_memory import BoundedMemory
from govi_server.statistics.records import CacheResult, Exchange

MAX_HEADER_SECTION_BYTES = 2048
"""A browser's header section has half as many."""

MAX_BYTES = 32 << 20
"""The memory of all entries: 20,000 header sections of apps, 15,000 of browsers."""

ENTRY_BYTES = 1280
"""Memory of an entry besides its header section, about."""

MAX_SECONDS = 10.0
"""Seconds for which a serialized response is sent again at most, so that modules see which boards are in use."""


class SerializedResponse(Struct, frozen=True):
    """A response that may be sent again, except for its Date and its body, which belongs to the module's cache."""

    since: float
    until: float
    """Epoch seconds, exclusive; until then it may be sent again while the validator is current."""
    validator: Validator
    representation: "ReferenceType[Representation]"
    has_body: bool
    """False in a response to HEAD, and in a 304."""
    start: bytes
    """The head up to the value of Date."""
    rest: bytes
    """The head from there on."""
    exchange: Exchange
    """For statistics."""


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
    serialized: SerializedResponse | None = None
    """The last response, if it may be sent again."""
    latest: Exchange | None = None
    """The latest exchange, which the next one with the same response shares."""

    def response(self, now: float, server_headers: Fields) -> tuple[bytes, Exchange] | None:
        """Return the bytes of the response, and the exchange; None if no response is cached now, or it is large.

        now: epoch seconds.
        """
        serialized = self.serialized
        if serialized is not None and serialized.since <= now < serialized.until and serialized.validator.is_current:
            representation = serialized.representation()
            if representation is not None:
                body = representation.body if serialized.has_body else b""
                data = b"".join((serialized.start, http_date_bytes(now), serialized.rest, body))
                return data, serialized.exchange
        try:
            response = self.respond()
        except Exception:
            return None  # the slow path raises and reports it as well
        if not isinstance(response, CachedResponse) or len(response.representation) > MAX_COPIED_BYTES:
            return None
        return self._serialize(response, now, server_headers)

    def _serialize(self, response: CachedResponse, now: float, server_headers: Fields) -> tuple[bytes, Exchange]:
        """Return the bytes of a response, and the exchange; store the response if it may be sent again."""
        start, rest, body, status = response.serialize(
            self.method, self._is_unchanged(response, now), server_headers, self.connection
        )
        exchange = self._exchange(status, len(body), response.cache)
        self.serialized = None
        if response.validity is not None:
            since, until, validator = response.validity
            now = max(now, since)  # the validity has just begun: Date must not precede it
            until = min(until, now + MAX_SECONDS)
            representation = ref(response.representation)
            self.serialized = SerializedResponse(
                since, until, validator, representation, bool(body), start, rest, exchange
            )
        return b"".join((start, http_date_bytes(now), rest, body)), exchange

    def _exchange(self, status: int, size: int, cache: CacheResult) -> Exchange:
        """Return the request and a response for statistics. size: bytes of the body."""
        latest = self.latest
        if latest is None or latest.bytes != size or latest.status != status or latest.cache != cache:
            latest = self.latest = Exchange(self.method, self.path, status, size, cache, self.module, self.stop)
        return latest

    def _is_unchanged(self, response: CachedResponse, now: float) -> bool:
        """Return whether the client has the response's representation."""
        return self.condition is not None and not_modified(
            self.condition, response.representation.etag, response.representation.modified, now
        )


class RequestMemo:
    """Header sections whose response was cached before, with their parsed meaning and their last response.

    The parsed meaning saves parsing and dispatch: 9 us instead of 65 for a board of the gateway, in process. The
    serialized response saves the module's look-up and formatting the head: 2.2 us instead of 9. Entries need at most
    max_bytes; the least recently used is evicted. The parsed meaning depends on the header section, and on which
    proxies name clients: when these change, clear() removes all entries. A serialized response becomes invalid when
    its board is replaced or evicted, when its Age or ttl changes, and after MAX_SECONDS.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        """Remove all entries."""
        self._entries: BoundedMemory[MemoEntry] = BoundedMemory(self._max_bytes)
        self.get: Callable[[bytes], MemoEntry | None] = self._entries.get
        """Returns the entry of a header section; None if it is unknown. Not a method, for speed."""

    def __len__(self) -> int:
        return len(self._entries)

    def store(self, header_section: bytes, entry: MemoEntry) -> None:
        """Store a parsed header section, unless it is too long."""
        if len(header_section) <= MAX_HEADER_SECTION_BYTES:
            self._entries.put(header_section, entry, len(header_section) + ENTRY_BYTES)
