"""Representations: bodies in a content coding, with their entity tag and Last-Modified. Pure."""

import gzip
from dataclasses import dataclass
from hashlib import blake2b

from govi_server.http.dates import format_http_date
from govi_server.http.response import Fields, format_lines

MAX_BYTES_TO_COMPRESS_WELL = 32 << 10
"""Larger bodies are compressed at the fastest level, in 4 ms for 256 kB. At others the time depends on the text: at
level 9, 64 kB of two letters at random take 180 ms."""


@dataclass(frozen=True, slots=True)
class Representation:
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
    """Return a representation of a body, with a strong entity tag (RFC 9110 section 8.8.3).

    compressed: whether to compress it with gzip. modified: epoch seconds, for Last-Modified. vary: the names of the
    request fields on which it depends.
    """
    if compressed:
        level = 6 if len(body) <= MAX_BYTES_TO_COMPRESS_WELL else 1
        body = gzip.compress(body, level, mtime=0)  # without a time, equal bodies compress to equal bytes
    etag = f'"{blake2b(body, digest_size=8).hexdigest()}"'
    encoding = (("Content-Encoding", "gzip"),) if compressed else ()
    date = (("Last-Modified", format_http_date(modified)),) if modified is not None else ()
    type_field = (("Content-Type", content_type),)
    fields = (*encoding, ("ETag", etag), ("Vary", vary), *date)
    return Representation(
        body, etag, (*type_field, *fields), format_lines(type_field), format_lines(fields), modified
    )
