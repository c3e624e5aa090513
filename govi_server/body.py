"""The body of a request, by Content-Length or chunked, from bytes as they come. Pure: no transport, no clock.

A reader is fed whatever came, in pieces of any size. ``feed(data)`` gives None while the body is not whole, and
then the bytes that follow it; the body is in ``body``. Raises RequestError.
"""

import re

from govi_server.environ import CHUNKED, RequestError

# A line of the chunked framing: a size with its extensions, or a trailer field. All trailers together may be
# eight such lines: nobody needs more, and nobody reads them here.
_LINE_LIMIT = 4096
_TRAILER_LIMIT = 8 * _LINE_LIMIT
# Extensions are skipped, but only well-formed ones: a token or quoted text, no control characters.
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*")


def _too_large(limit: int) -> RequestError:
    return RequestError("413 Content Too Large", f"a body may have {limit} bytes")


class LengthBody:
    """A body of a length that was told."""

    def __init__(self, length: int, limit: int) -> None:
        if length > limit:
            raise _too_large(limit)
        self._missing = length
        self._pieces: list[bytes] = []

    @property
    def body(self) -> bytes:
        """The bytes so far."""
        return b"".join(self._pieces)

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; give those that follow the body once it is whole."""
        mine, rest = data[: self._missing], data[self._missing :]
        self._pieces.append(mine)
        self._missing -= len(mine)
        return None if self._missing else rest


class ChunkedBody:
    """A body in chunks (RFC 9112 section 7.1), whose lines end in CRLF and in nothing else."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._pieces: list[bytes] = []
        self._pending = b""
        self._chunk_missing = 0  # bytes of the current chunk and its CRLF that have not come
        self._trailer_room = _TRAILER_LIMIT
        self._in_trailer = False

    @property
    def body(self) -> bytes:
        """The bytes so far."""
        return b"".join(self._pieces)

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; give those that follow the body once it is whole."""
        self._pending += data
        while True:
            if self._chunk_missing:
                if not self._take_chunk():
                    return None
                continue
            line, end, rest = self._pending.partition(b"\r\n")
            if not end:
                if len(line) > _LINE_LIMIT or b"\n" in line:
                    raise RequestError("400 Bad Request", "a chunk line does not end in CRLF")
                return None
            self._pending = rest
            if not self._in_trailer:
                self._begin_chunk(line)
            elif not line:
                return rest
            else:
                self._trailer_room -= len(line)
                if self._trailer_room < 0 or not _TRAILER.fullmatch(line):
                    raise RequestError("400 Bad Request", "a trailer line is not 'name: value', or too many")

    def _begin_chunk(self, line: bytes) -> None:
        found = _CHUNK.fullmatch(line) if len(line) <= _LINE_LIMIT else None
        if found is None:
            raise RequestError("400 Bad Request", "a chunk size is not a hexadecimal number")
        size = int(found[1], 16)
        self._size += size
        if self._size > self._limit:
            raise _too_large(self._limit)
        if size:
            self._chunk_missing = size + len(b"\r\n")
        else:
            self._in_trailer = True

    def _take_chunk(self) -> bool:
        """Move what came of the current chunk into the body; tell whether the chunk and its CRLF are whole."""
        content = self._pending[: max(self._chunk_missing - 2, 0)]
        self._pieces.append(content)
        self._pending = self._pending[len(content) :]
        self._chunk_missing -= len(content)
        if self._chunk_missing > 2 or not self._pending:
            return False
        if not b"\r\n".startswith(self._pending[:2]):
            raise RequestError("400 Bad Request", "a chunk is longer than its size")
        if len(self._pending) < 2:
            return False
        self._pending = self._pending[2:]
        self._chunk_missing = 0
        return True


def reader(length: int, limit: int) -> LengthBody | ChunkedBody:
    """Make the reader of a body of this length, or CHUNKED, and of ``limit`` bytes at most."""
    return ChunkedBody(limit) if length == CHUNKED else LengthBody(length, limit)
