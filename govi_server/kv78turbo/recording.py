"""Recordings of the live feed, as lines."""

from datetime import datetime

import msgspec
from msgspec import Struct


class Record(Struct, omit_defaults=True):
    """A message of a recording: its CTX, or what came in place of one."""

    time: str
    """When it came, ISO in UTC with milliseconds."""
    envelope: str
    ctx: str | None = None
    base64: str | None = None
    """The payload as it came, when it was no gzip of UTF-8."""


_read = msgspec.json.Decoder(Record).decode


_write = msgspec.json.Encoder().encode


def read_record(line: bytes) -> Record:
    """Read a line of a recording. Raises ValueError for what is none."""
    try:
        record = _read(line)
        datetime.fromisoformat(record.time)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    if (record.ctx is None) == (record.base64 is None):
        raise ValueError("neither ctx nor base64" if record.ctx is None else "both ctx and base64")
    return record


def write_record(record: Record) -> bytes:
    """Write a line of a recording."""
    return _write(record) + b"\n"
