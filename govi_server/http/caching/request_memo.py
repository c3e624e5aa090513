"""Requests that come again, byte for byte: what they mean is known without reading them.

A display asks for its stop twice a minute in the same words, and thousands of apps use the words of one another. A
header block that was answered from what is at hand is kept with its meaning; whoever sends it again has an answer for
two look-ups and one system call, and for one look-up in the second in which it was said already. What such an answer
is, and all that goes with it, is what the way through RequestReceiver, process() and a WebHandler would have made of
it.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from govi_server.http.caching.cached_response import CachedResponse, Validator
from govi_server.http.caching.conditional import not_modified
from govi_server.http.request import Environ
from govi_server.http.response import Fields
from govi_server.statistics.records import CacheResult

MOST = 10_000
"""Header blocks that are kept; the one that was not seen longest goes first, by the second."""

LONGEST = 2048
"""Bytes of a header block that is kept: a browser's have half as many. So all of them, with what they mean and with
the heads of their answers in one second, are 60 MB at most."""


class MemoEntry(NamedTuple):
    """What a header block means."""

    method: str
    path: str
    asked: int
    """For how many things it asks: see access.asked()."""
    ready: Callable[[], CachedResponse | None]
    """Gives the answer; None if it is not at hand now."""
    condition: Environ | None
    """The environ, if it makes the answer depend on what the client has."""
    is_last: bool
    """Whether the client wants the connection closed."""
    connection: str
    """The answer's Connection field, '' for none."""
    module: str
    """The first segment of the path, for statistics."""
    stop: str
    """The stop, for statistics: see ResponseSender.set_stop()."""

    def unchanged(self, ready: CachedResponse) -> bool:
        """Tell whether the client has the answer already."""
        return self.condition is not None and not_modified(
            self.condition, ready.representation.etag, ready.representation.modified
        )


class SerializedResponse(NamedTuple):
    """An answer to a header block as it was said, which is as it is said again: see Ready.lasts()."""

    repeat: MemoEntry
    since: float
    until: float
    source: Validator
    head: bytes
    body: bytes
    """Empty in an answer to HEAD, and where the client has it already."""
    status: int
    cache: CacheResult


class RequestMemo:
    """Header blocks that have come before, with what they mean."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, MemoEntry] = OrderedDict()
        self.said: dict[bytes, SerializedResponse] = {}
        """What was answered in one second and may be said again in it; it goes when there is something of another."""
        self._second = 0

    def __len__(self) -> int:
        return len(self._known)

    def lookup(self, block: bytes, now: float, more: Fields) -> SerializedResponse | None:
        """Give the answer to bytes, if they are a header block that is known and its answer is at hand.

        now: the moment, epoch seconds. more: the server's header fields.
        """
        repeat = self._known.get(block)
        if repeat is None:
            return None
        self._known.move_to_end(block)
        try:
            ready = repeat.ready()
        except Exception:
            return None  # the long way meets it, too, and says so
        if ready is None:
            return None
        # Its Date is of the second in which it lasts, should that have begun only now.
        moment = max(now, ready.since)
        written = ready.write(repeat.method, repeat.unchanged(ready), more, moment, repeat.connection)
        said = SerializedResponse(repeat, ready.since, ready.until, ready.source, *written, ready.cache)
        if moment < said.until:
            if int(moment) != self._second or len(self.said) >= MOST:
                self._second = int(moment)
                self.said.clear()
            self.said[block] = said
        return said

    def store(self, block: bytes, repeat: MemoEntry) -> None:
        """Keep what a header block means."""
        if len(block) <= LONGEST:
            self._known[block] = repeat
            if len(self._known) > MOST:
                self._known.popitem(last=False)
