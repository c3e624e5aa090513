"""The file format of compiled planning: a header, and columns of numbers that are looked up where they are.

The file is the program's own, in its cache directory. It is mapped into memory, so opening it costs nothing however
large it is, its pages are shared with the kernel's cache, and the garbage collector never sees it: 20 bytes for each
planned passtime, where the tables of KV7 need about 250.
"""

import os
import sys
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

MAGIC = b"govi-planning 2\n"
"""Begins each file; the number changes with the format."""

MAX_HEADER_BYTES = 1 << 20

COLUMNS = {
    # Texts, of which the first is "": where each ends in the texts together.
    "text_ends": "I", "texts": "B",
    # Stops, sorted by key. Names are numbers of texts; stop_calls is where its calls begin in stop_call.
    "stop_key": "Q", "stop_name": "I", "stop_town": "I", "stop_area": "I", "stop_platform": "I", "stop_x": "I",
    "stop_y": "I", "stop_modes": "B", "stop_departures": "I", "stop_calls": "I",
    # Stop areas, sorted by code: where their stops begin in area_stop.
    "area_code": "I", "area_name": "I", "area_stops": "I", "area_stop": "I",
    # Lines, sorted by operator and number: where their trips begin, and their stops in line_stop.
    "line_operator": "I", "line_number": "I", "line_public": "I", "line_name": "I", "line_color": "I",
    "line_text_color": "I", "line_type": "H", "line_days": "Q", "line_trips": "I", "line_stops": "I",
    "line_stop": "I",
    # Trips, sorted by line, journey number, service level and fortify number. trip_calls is where its calls begin.
    "trip_line": "I", "trip_journey": "I", "trip_level": "I", "trip_fortify": "I", "trip_headsign": "I",
    "trip_direction": "B", "trip_wheelchair": "B", "trip_days": "Q", "trip_calls": "I",
    # Calls, in the order of their trip. Times are seconds on the operating date.
    "call_stop": "I", "call_arrival": "I", "call_departure": "I",
    # Calls by stop and time: their numbers, and their times.
    "stop_call": "I", "stop_time": "I",
}  # fmt: skip
"""The columns of a file and their types, as of the array module."""

DAYS = 64
"""Days from the first one of a file; the operating dates of a trip are bits of trip_days."""


class Operator(Struct):
    """An operator of a file."""

    n_trips: int
    n_stops: int
    source: str
    """Name of the GTFS file that it is from: a smaller file does not replace all operators."""


class Header(Struct):
    """Describes a file."""

    name: str
    """Name of the latest GTFS file in it."""
    published: float
    """When that was published (epoch seconds)."""
    first_day: int
    """The first day that trip_days counts from, as of date.toordinal()."""
    operators: dict[str, Operator]
    columns: dict[str, tuple[int, int]] = {}
    """Offset from the end of the header, and number of values, of each column."""


class BrokenFile(Exception):
    """A file is not of this format, or not complete."""


def encode(header: Header, columns: "Mapping[str, array[int]]") -> Iterator[bytes]:
    """Yield the content of a file."""
    offset = 0
    for name in COLUMNS:
        column = columns[name]
        header.columns[name] = offset, len(column)
        offset += _aligned(len(column) * column.itemsize)
    text = msgspec.json.encode(header)
    text = text.ljust(_aligned(len(text)))
    yield MAGIC + len(text).to_bytes(8, sys.byteorder) + text
    for name in COLUMNS:
        content = columns[name].tobytes()
        yield content.ljust(_aligned(len(content)), b"\0")


def _aligned(size: int) -> int:
    return -(-size // 8) * 8


def write(path: Path, header: Header, columns: "Mapping[str, array[int]]") -> None:
    """Write a file; it exists under its name only when it is complete."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.writelines(encode(header, columns))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def read(content: memoryview) -> tuple[Header, dict[str, memoryview]]:
    """Return the header and the columns of a file. Raises BrokenFile."""
    begin = len(MAGIC) + 8
    if content[: len(MAGIC)] != MAGIC:
        raise BrokenFile("not a planning file of this version")
    size = int.from_bytes(content[len(MAGIC) : begin], sys.byteorder)
    if not 0 < size <= MAX_HEADER_BYTES:
        raise BrokenFile("invalid header")
    try:
        header = msgspec.json.decode(bytes(content[begin : begin + size]), type=Header)
    except ValueError as error:
        raise BrokenFile(f"invalid header ({error})") from None
    columns = {}
    for name, code in COLUMNS.items():
        offset, number = header.columns.get(name, (0, -1))
        offset += begin + size
        column = content[offset : offset + max(number, 0) * array(code).itemsize]
        if number < 0 or offset % 8 or len(column) != number * array(code).itemsize:
            raise BrokenFile(f"column {name} is not complete")
        columns[name] = column.cast(code)  # type: ignore[call-overload]  # one of the codes above
    return header, columns
