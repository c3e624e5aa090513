"""Parse and validate the lines of a statistics log."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from govi_server.statistics.records import MAX_PATH, CacheResult, End

MAX_PHASE_MS = 1e9
"""11 days: a line with a longer phase is invalid. Bounds the size of the sketches."""

MAX_EPOCH_SECONDS = 1 << 33
"""A moment in 2242: a line that is not older, or from before 1970, is invalid. Bounds the number of periods."""

MAX_LINE_BYTES = 16 << 20
"""Longer lines are invalid. The server logs at most MAX_REQUESTS requests per line, which is far less."""

_Milliseconds = Annotated[float, Meta(le=MAX_PHASE_MS)]
_Count = Annotated[int, Meta(ge=0, lt=1 << 53)]
_Name = Annotated[str, Meta(max_length=MAX_PATH)]


class Phases(Struct, omit_defaults=True, gc=False):
    """The phases of a request in milliseconds; None, which is not written, for a phase that it did not reach."""

    receive: _Milliseconds | None = None
    parse: _Milliseconds | None = None
    lookup: _Milliseconds | None = None
    wait: _Milliseconds | None = None
    render: _Milliseconds | None = None
    send: _Milliseconds | None = None


class Request(Struct):
    """A request in a line; see RequestStatistics for the meaning of module and stop."""

    status: Annotated[int, Meta(ge=100, le=999)] | None
    cache: CacheResult
    phases: Phases
    module: _Name | None = None
    stop: _Name | None = None
    bytes: _Count = 0


class Line(Struct):
    """A line of the log. Unknown members, which newer versions may add, are ignored."""

    time: Annotated[datetime, Meta(tz=True)]
    end: End
    requests: list[Request]


_decode = msgspec.json.Decoder(Line).decode


def parse_line(data: bytes) -> tuple[Line, float] | None:
    """Parse a line; return it with its time in epoch seconds, or None if it is invalid."""
    try:
        line = _decode(data)
        seconds = line.time.timestamp()
    except (msgspec.MsgspecError, UnicodeError, ValueError, OverflowError, RecursionError):
        return None
    return (line, seconds) if 0 <= seconds < MAX_EPOCH_SECONDS else None


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the nonblank lines of a text from its chunks; cut lines at MAX_LINE_BYTES."""
    incomplete = b""
    is_cut = False
    for chunk in chunks:
        *complete, last = chunk.split(b"\n")
        if complete:
            if not is_cut and (incomplete + complete[0]).strip():
                yield incomplete + complete[0]
            yield from filter(bytes.strip, complete[1:])
            incomplete, is_cut = b"", False
        if not is_cut:
            incomplete += last
            if len(incomplete) > MAX_LINE_BYTES:
                yield incomplete[:MAX_LINE_BYTES]
                incomplete, is_cut = b"", True
    if incomplete.strip():
        yield incomplete
