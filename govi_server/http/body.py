"""Read the body of a request, with Content-Length or chunked. Pure: no transport, no clock.

``feed(data)`` accepts bytes in pieces of any size. It returns None until the body is complete, and then the bytes
that follow it; it raises RequestError. ``body`` is the body so far, empty if it is discarded; ``size`` the bytes that
are held.
"""

import re
from io import BytesIO

from govi_server.http.request import CHUNKED, TOKEN, RequestError

# A line of the chunked framing, without CRLF: a chunk size with its extensions, or a trailer field.
_MAX_LINE_BYTES = 4096
# Bytes of a line that are attributed to the chunk size, which some clients pad with zeros.
_SIZE_BYTES = 8
# Total bytes of extensions and trailers, which are ignored.
_MAX_EXTRA_BYTES = 8 * _MAX_LINE_BYTES
# Extensions are ignored, but must be well-formed (RFC 9112 section 7.1.1).
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (TOKEN, TOKEN, _QUOTED)
_CHUNK = re.compile(rb"0*([0-9A-Fa-f]+)(?:%b)*" % _EXTENSION)
_TRAILER = re.compile(rb"%b:[\t -~\x80-\xff]*" % TOKEN)


def _bad_request(reason: str) -> RequestError:
    return RequestError("400 Bad Request", reason)


def too_large(limit: int) -> RequestError:
    """Return the error of a body that exceeds a limit, in bytes."""
    return RequestError("413 Content Too Large", f"The body exceeds {limit} bytes")


class _Content:
    """The content of a body, in one buffer: a list of small pieces would need many times their bytes."""

    def __init__(self, is_discarded: bool) -> None:
        self._content = None if is_discarded else BytesIO()

    @property
    def body(self) -> bytes:
        """The bytes received so far; not a copy."""
        return b"" if self._content is None else self._content.getvalue()

    @property
    def size(self) -> int:
        """The bytes that are held."""
        return 0 if self._content is None else self._content.tell()

    def _append(self, piece: bytes) -> None:
        if self._content is not None:
            self._content.write(piece)


class LengthBody(_Content):
    """A body of a known length (Content-Length)."""

    def __init__(self, length: int, limit: int, is_discarded: bool = False) -> None:
        super().__init__(is_discarded)
        if length > limit:
            raise too_large(limit)
        self._missing = length

    def feed(self, data: bytes) -> bytes | None:
        """Receive bytes; return those that follow the body, or None until it is complete."""
        piece, rest = data[: self._missing], data[self._missing :]
        self._append(piece)
        self._missing -= len(piece)
        return None if self._missing else rest


class ChunkedBody(_Content):
    """A chunked body (RFC 9112 section 7.1). A bare LF does not end a line."""

    def __init__(self, limit: int, is_discarded: bool = False) -> None:
        super().__init__(is_discarded)
        self._limit = limit
        self._announced = 0  # the sizes of all chunks so far
        self._pending = b""
        self._missing = 0  # bytes of the current chunk, including its CRLF, that are still to be received
        self._extras = 0
        self._in_trailer = False

    @property
    def size(self) -> int:
        """The bytes that are held, also of an incomplete line."""
        return super().size + len(self._pending)

    def feed(self, data: bytes) -> bytes | None:
        """Receive bytes; return those that follow the body, or None until it is complete."""
        data = self._pending + data
        position = 0
        while True:
            if self._missing:
                position += self._receive_chunk(data, position)
                if self._missing:
                    break
            end = data.find(b"\r\n", position)
            line = data[position : end if end >= 0 else None]
            if end < 0 and len(line) <= _MAX_LINE_BYTES + 1 and b"\n" not in line:
                break  # the line may be incomplete; the extra byte may be the CR of its CRLF
            if end < 0 or len(line) > _MAX_LINE_BYTES or b"\n" in line:
                raise _bad_request("A line of the chunked body is too long or does not end in CRLF")
            position = end + 2
            if not self._in_trailer:
                self._begin_chunk(line)
            elif line:
                self._skip_trailer(line)
            else:
                return data[position:]
        self._pending = data[position:]
        return None

    def _receive_chunk(self, data: bytes, start: int) -> int:
        """Receive the part of the current chunk that begins at an index; return its length in bytes."""
        content = data[start : start + max(self._missing - 2, 0)]
        self._append(content)
        self._missing -= len(content)
        if self._missing > 2:
            return len(content)
        position = start + len(content)
        line_end = data[position : position + self._missing]
        if not b"\r\n"[2 - self._missing :].startswith(line_end):
            raise _bad_request("A chunk is longer than its size")
        self._missing -= len(line_end)
        return len(content) + len(line_end)

    def _begin_chunk(self, line: bytes) -> None:
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise _bad_request("Invalid chunk size (expected a hexadecimal number)")
        self._count_extra(max(len(line) - _SIZE_BYTES, 0))
        size = int(match[1], 16)
        self._announced += size
        if self._announced > self._limit:
            raise too_large(self._limit)
        self._missing = size + 2 if size else 0
        self._in_trailer = not size

    def _skip_trailer(self, line: bytes) -> None:
        self._count_extra(len(line))
        if not _TRAILER.fullmatch(line):
            raise _bad_request("Invalid trailer field (expected 'name: value')")

    def _count_extra(self, size: int) -> None:
        self._extras += size
        if self._extras > _MAX_EXTRA_BYTES:
            raise _bad_request("Too many chunk extensions or trailers")


def body_reader(length: int, limit: int, is_discarded: bool = False) -> LengthBody | ChunkedBody:
    """Return the reader of a body.

    length: in bytes, or CHUNKED. limit: the largest body accepted, in bytes. is_discarded: whether to drop its bytes.
    """
    return ChunkedBody(limit, is_discarded) if length == CHUNKED else LengthBody(length, limit, is_discarded)
