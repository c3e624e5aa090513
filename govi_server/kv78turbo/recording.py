"""Recordings of the live feed: one JSON object per line, with a message's time, envelope and CTX."""

import base64
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from govi_server.runtime.gunzip import gunzip
from govi_server.runtime.text import escape_json

VERSION = 1

MAX_CTX_BYTES = 64 << 20
"""Larger messages are recorded as received, compressed."""


class RecordedMessage(Struct, omit_defaults=True):
    """One message of a recording, with either ctx or base64."""

    time: str
    """When it arrived: ISO 8601 in UTC, with milliseconds."""
    envelope: str
    ctx: str | None = None
    base64: str | None = None
    """The payload as received, if it is not gzip of UTF-8."""
    version: int = 0
    """The version of the format; recordings of version 0.1.0 have none."""


_decode = msgspec.json.Decoder(RecordedMessage).decode
_encode = msgspec.json.Encoder().encode


def make_record(envelope: str, payload: bytes, now: float) -> RecordedMessage:
    """Return the record of a message received now (epoch seconds)."""
    time = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    try:
        return RecordedMessage(time, envelope, ctx=gunzip(payload, MAX_CTX_BYTES).decode(), version=VERSION)
    except ValueError:
        return RecordedMessage(time, envelope, base64=base64.b64encode(payload).decode(), version=VERSION)


def read_record(line: bytes) -> RecordedMessage:
    """Parse a line of a recording. Raises ValueError if it is invalid."""
    try:
        record = _decode(line)
        datetime.fromisoformat(record.time)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    if record.version > VERSION:
        raise ValueError(f"version {record.version} of the format (expected at most {VERSION})")
    if (record.ctx is None) == (record.base64 is None):
        raise ValueError("neither ctx nor base64" if record.ctx is None else "both ctx and base64")
    return record


def write_record(record: RecordedMessage) -> bytes:
    """Format a line of a recording."""
    return f"{escape_json(_encode(record).decode())}\n".encode()
