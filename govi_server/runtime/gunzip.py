"""Decompress gzip data from untrusted sources, up to a limit.

gzip.decompress() has no limit: it expands 97 kB to as much as 100 MB.
"""

import zlib

GZIP_MAGIC = b"\x1f\x8b"
"""The first bytes of gzip data."""

MAX_MEMBERS = 16
"""Members of a gzip file; files with more are rejected."""


def gunzip(data: bytes, limit: int) -> bytes:
    """Return the content of a gzip file. limit: its maximum size in bytes. Raises ValueError with the reason."""
    plain = b""
    for _ in range(MAX_MEMBERS):
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            plain += member.decompress(data, limit + 1 - len(plain))
        except zlib.error as error:
            raise ValueError(f"broken gzip: {error}") from None
        if len(plain) > limit:
            raise ValueError(f"more than {limit} bytes after gunzip")
        if not member.eof:
            raise ValueError("truncated gzip")
        data = member.unused_data
        if not data.startswith(GZIP_MAGIC):
            break
    if data.strip(b"\0"):
        raise ValueError("bytes after the end of the gzip")
    return plain
