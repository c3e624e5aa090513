"""General messages: KV8's texts for a stop (docs/protocols.md, section 2.5)."""

from collections.abc import Mapping
from dataclasses import dataclass

from govi_server.departures.times import read_timestamp
from govi_server.kv78turbo.stamps import Stamp

Row = Mapping[str, str | None]
"""A row of GENERALMESSAGEUPDATE or GENERALMESSAGEDELETE, by label."""

_KEY = (
    "DataOwnerCode",
    "MessageCodeDate",
    "MessageCodeNumber",
    "TimingPointDataOwnerCode",
    "TimingPointCode",
)


@dataclass(frozen=True, slots=True)
class GeneralMessage:
    """A text for a stop."""

    key: str
    """OVapi's key: RET_2017-04-11_27_ALGEMEEN_31001347."""
    fields: tuple[tuple[str, str | None], ...]
    """All columns of its row: (label, value)."""
    starts: float
    ends: float | None
    """Epoch seconds; None if it ends by deletion."""
    stamp: Stamp = 0
    """When it was true; 0 if it is from a snapshot without stamps and has no MessageTimeStamp."""

    def is_current(self, now: float) -> bool:
        """Return whether it applies at a moment (epoch seconds)."""
        return self.starts <= now and (self.ends is None or now < self.ends)


def message_key(row: Row) -> str | None:
    """Return OVapi's key of a row's message; None if a part is missing."""
    parts = [row.get(label) for label in _KEY]
    return "_".join(map(str, parts)) if all(parts) else None


def parse_message(key: str, row: Row, stamp: Stamp) -> GeneralMessage | None:
    """Parse a row of GENERALMESSAGEUPDATE; return None if one of its times is invalid."""
    start, end = row.get("MessageStartTime"), row.get("MessageEndTime")
    starts = read_timestamp(start) if start else 0.0
    ends = read_timestamp(end) if end else None
    if starts is None or (end and ends is None):
        return None
    return GeneralMessage(key, tuple(row.items()), starts, ends, stamp)
