"""The file of a snapshot: a header that names the stored columns (kv78turbo/kv8_columns), records, and a checksum."""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO

import msgspec
from msgspec import Struct

from govi_server.departures.board import Trip
from govi_server.kv78turbo.ctx import NULL
from govi_server.kv78turbo.general_message import GeneralMessage
from govi_server.kv78turbo.kv7_reader import Update
from govi_server.kv78turbo.kv8_columns import KEY_NAMES, VALUE_NAMES
from govi_server.kv78turbo.stamps import Stamp

HEADER = b"govi-cache snapshot 2\n"
"""The first line of a snapshot, with the number of the format. The second line names the columns."""

HEADER_1 = b"govi-cache snapshot 1\n"
"""The first line of version 1, which does not name its columns."""

STEP_BYTES = 1 << 20
"""Bytes of which a step computes the checksum, which needs about a millisecond."""

_LENGTH = struct.Struct(">I")


class Columns(Struct, frozen=True):
    """The columns of KV8's stored passtimes, in order."""

    key: tuple[str, ...] = KEY_NAMES
    values: tuple[str, ...] = VALUE_NAMES


COLUMNS_1 = Columns(
    (
        *("DataOwnerCode", "LocalServiceLevelCode", "LinePlanningNumber", "JourneyNumber", "FortifyOrderNumber"),
        *("OperationDate", "UserStopOrderNumber", "UserStopCode"),
    ),
    (
        *("LastUpdateTimeStamp", "ExpectedArrivalTime", "ExpectedDepartureTime", "TargetArrivalTime"),
        *("TargetDepartureTime", "TripStopStatus", "WheelChairAccessible", "JourneyStopType", "DestinationCode"),
        *("LineDirection", "JourneyPatternCode", "IsTimingStop", "SideCode", "NumberOfCoaches", "OperatorCode"),
        *("TimingPointDataOwnerCode", "MessageContent", "MessageType", "ReasonType", "SubReasonType"),
        *("ReasonContent", "AdviceType", "SubAdviceType", "AdviceContent", "LinePublicNumber", "DestinationName"),
    ),
)
"""The columns of version 1."""


class StopRecord(Struct, tag="stop", array_like=True):
    """Live passtimes of a stop, and its general messages. Stops with many passtimes have several records."""

    code: str
    passtimes: dict[bytes, bytes]
    messages: list[GeneralMessage]
    states: list[tuple[Stamp | None, Stamp | None, float, bool]] = []
    """Of each passtime: stamp, access_stamp, last_heard and is_repeated (see StoredPasstime)."""
    messages_heard: list[float] = []
    """When each message was last received (epoch seconds)."""


class OperatorsRecord(Struct, tag="heard", array_like=True):
    """The times of the operators' last messages."""

    last_heard: dict[str, float]
    last_update: dict[str, str]
    passtime_tombstones: dict[bytes, tuple[Stamp, float]] = {}
    message_tombstones: dict[str, tuple[Stamp, float]] = {}
    """Of removed records: their stamp, and when it is dropped (epoch seconds)."""
    intervals: dict[str, float] = {}
    """Seconds between two repetitions of the operators' passtimes."""


class PlanningRecord(Struct, tag="planning", array_like=True):
    """Part of the timetable."""

    update: Update


class StoredBoard(Struct, rename={"received_at": "made"}):
    """A Board, with the field names of the file."""

    code: str
    trips: tuple[Trip, ...]
    received_at: float
    envelope: tuple[tuple[str, str], ...] = ()


class BoardRecord(Struct, tag="board", array_like=True):
    """A cached board of a gateway's module."""

    module: str
    board: StoredBoard


Record = StopRecord | OperatorsRecord | PlanningRecord | BoardRecord


class DamagedSnapshot(Exception):
    """A file is not a complete snapshot."""


def write(records: Iterator[Record], path: Path) -> Iterator[None]:
    """Write a snapshot step by step; replace the previous one when it is complete. Raises OSError."""
    encode = msgspec.msgpack.Encoder().encode
    columns = msgspec.json.encode(Columns()) + b"\n"
    checksum = zlib.crc32(columns)
    # A file of its own, in case another process writes a snapshot of the same name.
    number, temporary = mkstemp(".new", f"{path.name}.", path.parent)
    try:
        with open(number, "wb") as file:
            file.write(HEADER + columns)
            begun = 0
            for record in records:
                data = encode(record)
                data = _LENGTH.pack(len(data)) + data
                checksum = zlib.crc32(data, checksum)
                file.write(data)
                if file.tell() - begun > STEP_BYTES:
                    file.flush()
                    _begin_writeback(number)
                    begun = file.tell()
                yield
            file.write(_LENGTH.pack(0) + _LENGTH.pack(checksum))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _begin_writeback(descriptor: int) -> None:
    """Let the kernel write a file to disk from now on: otherwise fsync() waits for all of it, 50 ms for 100 MB."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # Linux writes pages before it drops them


def read(file: BinaryIO) -> Iterator[Record | None]:
    """Verify the checksum of a snapshot, yielding None after each step, then yield its records.

    Raises DamagedSnapshot.
    """
    header = file.readline(len(HEADER))
    if header not in (HEADER, HEADER_1):
        raise DamagedSnapshot("not a snapshot of this program")
    begin, end = file.tell(), os.fstat(file.fileno()).st_size - 2 * _LENGTH.size
    checksum = 0
    for start in range(begin, end, STEP_BYTES):
        checksum = zlib.crc32(file.read(min(STEP_BYTES, end - start)), checksum)
        yield None
    if end < begin or file.read() != _LENGTH.pack(0) + _LENGTH.pack(checksum):
        raise DamagedSnapshot("incomplete")
    file.seek(begin)
    columns = COLUMNS_1
    if header == HEADER:
        try:
            columns = msgspec.json.decode(file.readline(end - begin), type=Columns)
        except ValueError as error:
            raise DamagedSnapshot(f"invalid header: {error}") from None
    yield from _records(file, end, columns)


def _records(file: BinaryIO, end: int, columns: Columns) -> Iterator[Record]:
    decode = msgspec.msgpack.Decoder(Record).decode
    convert = _converter(columns)
    while file.tell() < end:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        try:
            record = decode(file.read(length))
        except ValueError as error:
            raise DamagedSnapshot(f"unreadable record: {error}") from None
        if isinstance(record, StopRecord):
            record.passtimes = dict(convert(key, values) for key, values in record.passtimes.items())
        yield record


def _converter(stored: Columns) -> Callable[[bytes, bytes], tuple[bytes, bytes]]:
    """Return a function that maps stored keys and values to the current columns by name; missing ones become null."""
    index = {name: i for i, name in enumerate(stored.key + stored.values)}
    key_of, values_of = (itemgetter(*(index.get(name, -1) for name in names)) for names in (KEY_NAMES, VALUE_NAMES))

    def convert(key: bytes, values: bytes) -> tuple[bytes, bytes]:
        if key.count(b"|") != len(stored.key) - 1 or values.count(b"|") != len(stored.values) - 1:
            raise DamagedSnapshot("the fields of a passtime do not match the columns")
        if stored == Columns():
            return key, values
        fields = [*key.split(b"|"), *values.split(b"|"), NULL]
        return b"|".join(key_of(fields)), b"|".join(values_of(fields))

    return convert
