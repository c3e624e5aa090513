"""JSON documents in pieces, so that a large one is written in steps."""

from collections.abc import Iterable, Iterator

import msgspec

PIECE_BYTES = 1 << 12
"""Smaller members are joined."""

_encode = msgspec.json.Encoder().encode


def json_object(members: Iterable[tuple[str, bytes] | None]) -> Iterator[bytes]:
    """Write an object. members: names with their encoded values, or None for a step without a member."""
    piece, begin = b"", b"{"
    for member in members:
        if member is None:
            yield b""
            continue
        piece += b"%b%b:%b" % (begin, _encode(member[0]), member[1])
        begin = b","
        if len(piece) >= PIECE_BYTES:
            yield piece
            piece = b""
    yield piece + (b"}" if begin == b"," else b"{}")
