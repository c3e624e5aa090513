"""The order of records: which of two is newer (docs/protocols.md, section 2.9).

Each record of the feed is stamped with the time at which it was true. Records may arrive late, twice or out of order;
is_older() is the only rule that decides whether one may change another.
"""

import re

from govi_server.departures.times import HOUR, local_timestamp, read_timestamp

TICKS = 10_000_000
"""Ticks per second: some publishers write seven fractional digits. A float of the epoch seconds has six."""

Stamp = int
"""Ticks since the epoch."""

_FRACTION = re.compile(r"[.,]([0-9]+)")
_LOCAL_LENGTH = len("2021-06-06T18:26:05")


def stamp_of(moment: float) -> Stamp:
    """Return the stamp of a moment (epoch seconds)."""
    return int(moment * TICKS)


def read_stamp(text: str, received: Stamp) -> Stamp | None:
    """Parse an ISO 8601 timestamp; return None if it is invalid.

    received: the time of receipt. A later timestamp counts as received: while a publisher's clock is ahead, its
    corrections would otherwise be older than what they correct. A timestamp without an offset is local time, in the
    repeated hour its second occurrence, unless that is later than the receipt.
    """
    match = _FRACTION.search(text)
    whole, fraction = text, 0
    if match is not None:
        whole = text[: match.start()] + text[match.end() :]
        fraction = int(match[1][:7].ljust(7, "0"))
    seconds = read_timestamp(whole)
    if seconds is None:
        return None
    stamp = int(seconds) * TICKS + fraction
    later = stamp + HOUR * TICKS
    if len(whole) == _LOCAL_LENGTH and later <= received and local_timestamp(seconds + HOUR).startswith(whole):
        return later
    return min(stamp, received)


def is_older(stamp: Stamp | None, stored: Stamp | None) -> bool:
    """Return whether a record is older than the stored one, and must not change it.

    Records with equal stamps complete each other. A record without a stamp has an unknown age, and is not older.
    """
    return stamp is not None and stored is not None and stamp < stored
