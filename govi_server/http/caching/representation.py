"""Representations: bodies in a content coding, with their entity tag and Last-Modified. Pure."""

import zlib
from collections.abc import Generator, Iterable
from hashlib import sha256

from msgspec import Struct

from govi_server.http.dates import format_http_date
from govi_server.http.parameters import InvalidParameter
from govi_server.http.response import Fields, format_lines
from govi_server.runtime.cooperative import run_now

STEP_BYTES = 1 << 14
"""Bytes of a body that are compressed in one step, which takes a millisecond at most."""

MAX_BODY_BYTES = 32 << 20
"""Larger bodies, as sent, are not made. Boards of 1,000 stops with 30 departures each fit, or 500 with gzip."""

MAX_BYTES_TO_COMPRESS_WELL = 32 << 10
"""Larger bodies that are compressed in one step have the fastest level: 4 ms for 256 kB. At other levels the
time depends on the text: at level 9, 64 kB of two letters at random take 180 ms."""

_LEVEL, _FASTEST_LEVEL = 6, 1
_GZIP_WINDOW = zlib.MAX_WBITS | 16


class Representation(Struct, frozen=True, weakref=True):
    """A body in a content coding, with the entity tag of exactly these bytes."""

    body: bytes
    etag: str
    headers: Fields
    """Content-Type, Content-Encoding if coded, ETag, Vary, and Last-Modified if known."""
    type_line: str
    """Content-Type as a line of a response head."""
    lines: str
    """The other headers as lines of a response head."""
    modified: float | None = None
    """Last-Modified in epoch seconds, for conditional requests by date; None if unknown."""

    def __len__(self) -> int:
        return len(self.body)


def make_representation(
    body: bytes, content_type: str, compressed: bool, modified: float | None = None, vary: str = "Accept-Encoding"
) -> Representation:
    """Return a representation of a small body, in one step; see represent()."""
    level = _LEVEL if len(body) <= MAX_BYTES_TO_COMPRESS_WELL else _FASTEST_LEVEL
    return run_now(represent((body,), content_type, compressed, modified, vary, level))


def represent(
    pieces: Iterable[bytes],
    content_type: str,
    compressed: bool,
    modified: float | None = None,
    vary: str = "Accept-Encoding",
    level: int = _LEVEL,
) -> Generator[None, None, Representation]:
    """Return a representation of a body in pieces, with a strong entity tag (RFC 9110 section 8.8.3), in steps.

    pieces: of any size; each, even an empty one, ends a step. compressed: whether to compress the body with gzip.
    modified: epoch seconds, for Last-Modified. vary: the names of the request fields on which it depends. level: of
    the compression. Raises InvalidParameter for a body larger than MAX_BODY_BYTES.
    """
    size = 0
    digest = sha256(usedforsecurity=False)  # which processors have instructions for
    # The header has no time, so equal bodies compress to equal bytes.
    compressor = zlib.compressobj(level, wbits=_GZIP_WINDOW) if compressed else None
    coded: list[bytes] = []
    for piece in pieces:
        for start in range(0, max(len(piece), 1), STEP_BYTES):
            data = piece[start : start + STEP_BYTES]
            if compressor is not None:
                data = compressor.compress(data)
            if data:
                digest.update(data)
                coded.append(data)
                size += len(data)
            if size > MAX_BODY_BYTES:
                limit = f"{MAX_BODY_BYTES >> 20} MiB"
                raise InvalidParameter(f"The response would exceed {limit}; request less at once, or accept gzip")
            yield
    if compressor is not None:
        coded.append(compressor.flush())
        digest.update(coded[-1])
    body = b"".join(coded)
    etag = f'"{digest.hexdigest()[:16]}"'
    encoding = (("Content-Encoding", "gzip"),) if compressed else ()
    date = (("Last-Modified", format_http_date(modified)),) if modified is not None else ()
    type_field = (("Content-Type", content_type),)
    fields = (*encoding, ("ETag", etag), ("Vary", vary), *date)
    return Representation(
        body, etag, (*type_field, *fields), format_lines(type_field), format_lines(fields), modified
    )
