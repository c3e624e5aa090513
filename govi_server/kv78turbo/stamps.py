"""The order of records: which of two is newer (docs/protocols.md, section 2.9).

Each record of the feed is stamped with the time at which it was true. Records may arrive late, twice or out of order;
is_older() is the only rule that decides whether one may change another. A removed record leaves a tombstone with its
stamp, so that an older one does not bring it back.
"""

import re
from collections import OrderedDict
from functools import lru_cache
from typing import Generic, TypeVar

from govi_server.departures.times import HOUR, MINUTE, local_timestamp, read_timestamp

TICKS = 10_000_000
"""Ticks per second: some publishers write seven fractional digits. A float of the epoch seconds has six."""

Stamp = int
"""Ticks since the epoch."""

MAX_TIMESTAMP_CHARACTERS = 64
"""Longer timestamps are invalid: those of the captures have 25 characters."""

TOMBSTONE_SECONDS = 30 * MINUTE
"""How long an older repeat of a removed record may arrive: longer than it can be queued on its way."""

MAX_TOMBSTONE_BYTES = 8 << 20
"""About an hour's passtimes of a country."""

TOMBSTONE_BYTES = 200
"""Memory of a tombstone beside its key."""

_Key = TypeVar("_Key", bytes, str)
_FRACTION = re.compile(r"[.,]([0-9]+)")
_LOCAL_LENGTH = len("2021-06-06T18:26:05")


# Rows of many messages, and the operators' latest ones, have the same timestamps.
_seconds = lru_cache(maxsize=1 << 12)(read_timestamp)


def stamp_of(moment: float) -> Stamp:
    """Return the stamp of a moment (epoch seconds)."""
    return int(moment * TICKS)


def read_stamp(text: str, received: Stamp) -> Stamp | None:
    """Parse an ISO 8601 timestamp; return None if it is invalid.

    received: the time of receipt. A later timestamp counts as received: while a publisher's clock is ahead, its
    corrections would otherwise be older than what they correct. A timestamp without an offset is local time, in the
    repeated hour its second occurrence, unless that is later than the receipt.
    """
    if len(text) > MAX_TIMESTAMP_CHARACTERS:  # a longer text would stay in the cache
        return None
    match = _FRACTION.search(text)
    whole, fraction = text, 0
    if match is not None:
        whole = text[: match.start()] + text[match.end() :]
        fraction = int(match[1][:7].ljust(7, "0"))
    seconds = _seconds(whole)
    if seconds is None:
        return None
    stamp = int(seconds) * TICKS + fraction
    later = stamp + HOUR * TICKS
    if len(whole) == _LOCAL_LENGTH and later <= received and local_timestamp(seconds + HOUR).startswith(whole):
        return later
    return min(stamp, received)


class ReceivedStamps(dict[bytes, Stamp | None]):
    """The stamps of a message's timestamps, each parsed once. now: when it was received (epoch seconds)."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.received = stamp_of(now)

    def __missing__(self, text: bytes) -> Stamp | None:
        self[text] = stamp = read_stamp(text.decode(), self.received)
        return stamp


def is_older(stamp: Stamp | None, stored: Stamp | None) -> bool:
    """Return whether a record is older than the stored one, and must not change it.

    Records with equal stamps complete each other. A record without a stamp has an unknown age, and is not older.
    """
    return stamp is not None and stored is not None and stamp < stored


def latest_timestamp(stored: str | None, text: str, received: float) -> str | None:
    """Return the later of two timestamps. received: as in read_stamp(), but in epoch seconds.

    stored: None before the first. A timestamp after the receipt is replaced by the receipt; invalid ones are ignored.
    """
    stamp = read_stamp(text, stamp_of(received))
    if stamp is None or (stored is not None and is_older(stamp, read_stamp(stored, stamp_of(received)))):
        return stored
    return local_timestamp(received) if stamp == stamp_of(received) else text


class Tombstones(Generic[_Key]):
    """The stamps of removed records, by key. The oldest are dropped when they exceed MAX_TOMBSTONE_BYTES."""

    def __init__(self) -> None:
        self._removed: OrderedDict[_Key, tuple[Stamp, float]] = OrderedDict()  # stamp, and when it is dropped
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._removed)

    def put(self, key: _Key, stamp: Stamp, until: float) -> None:
        """Add a removed record, or a newer stamp of one. until: when to drop it (epoch seconds)."""
        previous = self._removed.pop(key, None)
        if previous is None:
            self._bytes += TOMBSTONE_BYTES + len(key)
        self._removed[key] = (stamp if previous is None else max(stamp, previous[0]), until)
        while self._bytes > MAX_TOMBSTONE_BYTES:
            self._drop_oldest()

    def stamp(self, key: _Key) -> Stamp | None:
        """Return the stamp of a removed record; None if it was not removed."""
        removed = self._removed.get(key)
        return None if removed is None else removed[0]

    def sweep(self, now: float) -> None:
        """Drop the tombstones that are no longer needed."""
        while self._removed and next(iter(self._removed.values()))[1] <= now:
            self._drop_oldest()

    def items(self) -> list[tuple[_Key, tuple[Stamp, float]]]:
        """Return the key of each removed record, its stamp, and when it is dropped (epoch seconds)."""
        return list(self._removed.items())

    def _drop_oldest(self) -> None:
        key, _ = self._removed.popitem(last=False)
        self._bytes -= TOMBSTONE_BYTES + len(key)


class FirstReceipts:
    """When records stamped after their receipt were first received.

    Such a record counts as received then, also when it is repeated: it would otherwise undo its own corrections.
    Records with the same timestamp are the same version.
    """

    def __init__(self) -> None:
        self._receipts: Tombstones[bytes] = Tombstones()

    def stamp(self, key: bytes, text: bytes, stamp: Stamp | None, received: Stamp) -> Stamp | None:
        """Return the stamp of a record, or the one of its first receipt. text, stamp: of and from read_stamp()."""
        is_ahead = stamp == received
        if not (is_ahead or self._receipts):
            return stamp
        key = b"%b|%b" % (key, text)
        first = self._receipts.stamp(key)
        if first is None and is_ahead and stamp is not None:
            self._receipts.put(key, stamp, received / TICKS + TOMBSTONE_SECONDS)
        return stamp if first is None else first

    def sweep(self, now: float) -> None:
        """Drop the receipts that are too old to be repeated."""
        self._receipts.sweep(now)
