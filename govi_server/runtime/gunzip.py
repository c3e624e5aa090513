"""Decompress gzip data from untrusted sources, up to a limit, in steps.

gzip.decompress() has no limit: it expands 97 kB to as much as 100 MB.
"""

import zlib
from collections.abc import Iterator

GZIP_MAGIC = b"\x1f\x8b"
"""The first bytes of gzip data."""

MAX_MEMBERS = 16
"""Members of a gzip file; files with more are rejected."""

INPUT_BYTES = 1 << 12
"""Compressed bytes passed to zlib at once: the rest of them is copied after each step."""

CHUNK_BYTES = 1 << 15
"""Maximum size of a chunk, which takes about 0.1 ms."""


def gunzip(data: bytes, limit: int) -> bytes:
    """Return the content of a gzip file. limit: its maximum size in bytes. Raises ValueError with the reason."""
    return b"".join(decompress(data, limit))


def decompress(data: bytes, limit: int) -> Iterator[bytes]:
    """Yield the content of a gzip file as gunzip() does, in chunks of up to CHUNK_BYTES, some of which are empty."""
    size = position = 0
    for _ in range(MAX_MEMBERS):
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while not member.eof:
            compressed = member.unconsumed_tail
            if not compressed:
                compressed = data[position : position + INPUT_BYTES]
                position += len(compressed)
            try:
                chunk = member.decompress(compressed, CHUNK_BYTES)
            except zlib.error as error:
                raise ValueError(f"broken gzip: {error}") from None
            if not (compressed or chunk):
                raise ValueError("truncated gzip")
            size += len(chunk)
            if size > limit:
                raise ValueError(f"more than {limit} bytes after gunzip")
            yield chunk
        position -= len(member.unused_data)
        if not data.startswith(GZIP_MAGIC, position):
            break
    if data[position:].strip(b"\0"):
        raise ValueError("bytes after the end of the gzip")
