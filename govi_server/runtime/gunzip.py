"""Gzip from somebody else: bounded, and never trusted to say how long it is."""

import zlib

GZIP = b"\x1f\x8b"
"""How gzip begins."""

_MEMBERS = 16
"""A gzip file may have several members; one with more of them is none."""


def gunzip(data: bytes, limit: int) -> bytes:
    """Give what is in a gzip file, at most so many bytes. Raises ValueError, whose text says what is wrong."""
    plain = b""
    for _ in range(_MEMBERS):
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
        if not data.startswith(GZIP):
            break
    if data.strip(b"\0"):
        raise ValueError("bytes after the end of the gzip")
    return plain
