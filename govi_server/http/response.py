"""Status, headers and body to the bytes of an answer (RFC 9110, RFC 9112). Pure: no transport, no clock."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from govi_server.http.dates import format_http_date

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
"""Header fields, as a mapping or as pairs where a name comes more than once."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_FRAMING = ("content-length", "transfer-encoding", "connection")  # written here, and by nobody else
_STATUS = re.compile(r"[1-5][0-9]{2} [\t -~]*")


Fields = tuple[tuple[str, str], ...]
"""Header fields that can be compared."""


def pairs(headers: Headers) -> list[tuple[str, str]]:
    """List header fields as (name, value)."""
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def format_response(
    status: str,
    headers: Headers,
    body: bytes,
    *,
    now: float,
    connection: str = "",
    without_body: bool = False,
) -> bytes:
    """Write a whole answer; see head().

    without_body: as the answer to HEAD, which tells the length of the body and leaves it out.
    """
    written = format_head(status, pairs(headers), len(body), now=now, connection=connection)
    return written if without_body or is_bodiless(status) else written + body


def is_bodiless(status: str) -> bool:
    """Tell whether an answer of this status has no body, and so no length (RFC 9110 section 6.4.1) and no type."""
    return status.startswith(("1", "204", "304"))


def format_head(
    status: str, headers: Iterable[tuple[str, str]], length: int | None, *, now: float, connection: str = ""
) -> bytes:
    """Write the head of an answer, with the empty line that ends it.

    status: code and reason, such as '200 Ok'. length: of the body, None if it ends with the
    connection. now: epoch seconds, for Date. connection: the
    Connection field, where one is due. Raises ValueError for what would break the head, a line end in a value for
    example.
    """
    if not _STATUS.fullmatch(status):
        raise ValueError(f"not a status: {status!r}")
    lines = [f"HTTP/1.1 {status}", f"Date: {format_http_date(now)}"]
    bodiless = is_bodiless(status)
    for name, value in headers:
        line = _line(name, value)
        if not (bodiless and name.lower() == "content-type"):
            lines.append(line)
    if not bodiless and length is not None:
        lines.append(f"Content-Length: {length}")
    if connection:
        lines.append(f"Connection: {connection}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def format_lines(headers: Iterable[tuple[str, str]]) -> str:
    """Return header fields as lines of a response head. Raises ValueError for invalid ones."""
    return "".join([f"{_line(name, value)}\r\n" for name, value in headers])


@lru_cache(maxsize=1024)  # most fields are always the same
def _line(name: str, value: str) -> str:
    if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)) or name.lower() in _FRAMING:
        raise ValueError(f"not a header field: {name!r}: {value!r}")
    return f"{name}: {value}"
