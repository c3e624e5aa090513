"""The wire format of server-sent events (WHATWG HTML 9.2.5)."""

import re
from collections.abc import Generator, Iterable

_LINE_END = re.compile(r"\r\n|\r|\n")  # a lone CR in the data would begin another field


def data_field(pieces: Iterable[str]) -> Generator[None, None, bytes]:
    """Return the data field of an event with a text in pieces, one line for each of its lines, in steps."""
    field: list[str] = []
    is_in_line = ends_in_cr = False
    for piece in filter(None, pieces):
        if ends_in_cr:
            piece = piece.removeprefix("\n")  # the rest of a CRLF
        ends_in_cr = piece.endswith("\r")
        *complete, last = _LINE_END.split(piece)
        for line in complete:
            field += (line, "\n") if is_in_line else ("data: ", line, "\n")
            is_in_line = False
        if last:
            field += (last,) if is_in_line else ("data: ", last)
            is_in_line = True
        yield
    if is_in_line:  # a line end at the end of the text is not part of the data
        field.append("\n")
    return "".join(field).encode()
