"""General messages: KV8's texts for a stop (docs/protocols.md, section 2.5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from sys import getsizeof

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


MAX_CODE_CHARACTERS = 32
"""Maximum length of a part of the key; the longest in the captures has 10 characters."""

MAX_TEXT_CHARACTERS = 1024
"""Maximum length of a text; longer ones are omitted. Those of KV15 have up to 255 characters."""

MAX_MESSAGE_BYTES = 16 << 10
"""Maximum size of a message: the captures have up to 23 columns, at most five of them texts."""

FIELD_BYTES = 72
"""Memory of a field besides its value: a tuple and a reference; labels are shared."""

TEXT_BYTES = getsizeof("")
"""Memory of a text besides its characters."""

OVERHEAD_BYTES = 800
"""Memory of a message besides its fields, in the tables of its stop and of all messages."""


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

    @property
    def size(self) -> int:
        """The memory of its texts and of the tables that refer to it, in bytes."""
        texts = sum(_size(value) + FIELD_BYTES for _, value in self.fields if value is not None)
        return OVERHEAD_BYTES + 2 * len(self.key) + texts

    def is_current(self, now: float) -> bool:
        """Return whether it applies at a moment (epoch seconds)."""
        return self.starts <= now and (self.ends is None or now < self.ends)


def _size(text: str) -> int:
    """Return the bytes of a text; not by getsizeof(), which grows when a text that is not ASCII is first encoded."""
    if text.isascii():
        return TEXT_BYTES + len(text)
    largest = max(text)
    width = 1 if largest < "\u0100" else 2 if largest < "\U00010000" else 4  # bytes of each character (PEP 393)
    return (
        TEXT_BYTES + len(text) * width + len(text.encode("utf-8", "surrogatepass"))
    )  # which Python may store as well


def message_key(row: Row) -> str | None:
    """Return OVapi's key of a row's message; None if a part is missing, blank or too long."""
    parts = [nonblank(row.get(label)) for label in _KEY]
    return "_".join(map(str, parts)) if all(part and len(part) <= MAX_CODE_CHARACTERS for part in parts) else None


def parse_message(key: str, row: Row, stamp: Stamp, reject: Reject) -> GeneralMessage:
    """Parse a row of GENERALMESSAGEUPDATE. Invalid times are rejected as "value", and unknown."""
    fields = dict(row)
    for label, value in row.items():
        if value is not None and len(value) > MAX_TEXT_CHARACTERS:
            fields[label] = None
            reject("long value")
    for label in _TIME_LABELS:
        value = fields.get(label)
        if value and read_timestamp(value) is None:
            fields[label] = None
            reject("value")
    start, end = fields.get("MessageStartTime"), fields.get("MessageEndTime")
    starts, ends = read_timestamp(start or ""), read_timestamp(end or "")
    return GeneralMessage(key, tuple(fields.items()), starts or 0.0, ends, stamp)
