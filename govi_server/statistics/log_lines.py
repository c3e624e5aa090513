"""The lines of a statistics log, parsed and checked."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from govi_server.statistics.records import MAX_PATH, CacheResult, End

MAX_PHASE_MS = 1e9
"""Milliseconds, 11 days: a line with a longer phase is invalid. Bounds the size of the sketches."""

MAX_EPOCH_SECONDS = 1 << 33
"""In the year 2242: a line from that moment on, or from before 1970, is invalid. Bounds the number of periods."""

MAX_LINE_BYTES = 16 << 20
"""A line of the log has at most a thousand requests, which is far less."""

_Milliseconds = Annotated[float, Meta(le=MAX_PHASE_MS)]
_Count = Annotated[int, Meta(ge=0, lt=1 << 53)]
_Name = Annotated[str, Meta(max_length=MAX_PATH)]


class Phases(Struct, gc=False):
    """The phases of a request in milliseconds; None for a phase that it did not reach."""

    receive: _Milliseconds | None = None
    parse: _Milliseconds | None = None
    lookup: _Milliseconds | None = None
    wait: _Milliseconds | None = None
    render: _Milliseconds | None = None
    send: _Milliseconds | None = None


class Request(Struct):
    """A request of a line; see RequestStatistics for the meaning of module and stop."""

    status: Annotated[int, Meta(ge=100, le=999)] | None
    cache: CacheResult
    phases: Phases
    module: _Name | None = None
    stop: _Name | None = None
    bytes: _Count = 0


class Line(Struct):
    """A line of the log. Unknown members are ignored: newer versions may add some."""

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
    """Yield the lines of a text that comes in chunks, without blank ones; cut lines at MAX_LINE_BYTES."""
    rest = b""
    is_cut = False
    for chunk in chunks:
        *complete, last = chunk.split(b"\n")
        if complete:
            if not is_cut and (rest + complete[0]).strip():
                yield rest + complete[0]
            yield from filter(bytes.strip, complete[1:])
            rest, is_cut = b"", False
        if not is_cut:
            rest += last
            if len(rest) > MAX_LINE_BYTES:
                yield rest[:MAX_LINE_BYTES]
                rest, is_cut = b"", True
    if rest.strip():
        yield rest
