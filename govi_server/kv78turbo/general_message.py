"""General messages: KV8's texts for a stop (docs/protocols.md, section 2.5)."""

from collections.abc import Mapping
from dataclasses import dataclass

from govi_server.departures.times import read_timestamp
from govi_server.kv78turbo.ctx import Reject
from govi_server.kv78turbo.stamps import Stamp
from govi_server.runtime.text import nonblank

Row = Mapping[str, str | None]
"""A row of GENERALMESSAGEUPDATE or GENERALMESSAGEDELETE, by label."""

_KEY = (
    "DataOwnerCode",
    "MessageCodeDate",
    "MessageCodeNumber",
    "TimingPointDataOwnerCode",
    "TimingPointCode",
)

_TIME_LABELS = ("MessageStartTime", "MessageEndTime", "MessageTimeStamp")


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
    """Return OVapi's key of a row's message; None if a part is missing or blank."""
    parts = [nonblank(row.get(label)) for label in _KEY]
    return "_".join(map(str, parts)) if all(parts) else None


def parse_message(key: str, row: Row, stamp: Stamp, reject: Reject) -> GeneralMessage:
    """Parse a row of GENERALMESSAGEUPDATE. Invalid times are rejected as "value", and unknown."""
    fields = dict(row)
    for label in _TIME_LABELS:
        value = fields.get(label)
        if value and read_timestamp(value) is None:
            fields[label] = None
            reject("value")
    start, end = fields.get("MessageStartTime"), fields.get("MessageEndTime")
    starts, ends = read_timestamp(start or ""), read_timestamp(end or "")
    return GeneralMessage(key, tuple(fields.items()), starts or 0.0, ends, stamp)
