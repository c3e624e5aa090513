"""The wire format of server-sent events (WHATWG HTML 9.2.5)."""

import re
from collections.abc import Generator, Iterable

_LINE_END = re.compile(r"\r\n|\r|\n")  # a lone CR in the data would begin another field


def data_field(pieces: Iterable[str]) -> Generator[None, None, bytes]:
    """Return the data field of an event with a text in pieces, one line for each of its lines, in steps."""
    lines: list[bytes] = []
    line = ""
    for piece in pieces:
        *complete, line = _LINE_END.split(line + piece)
        lines.extend(f"data: {text}\n".encode() for text in complete)
        yield
    if line:  # a line end at the end of the text is not part of the data
        lines.append(f"data: {line}\n".encode())
    return b"".join(lines)
