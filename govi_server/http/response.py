"""Format responses: status, header fields and body as bytes (RFC 9110, RFC 9112). Pure: no transport, no clock."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from govi_server.http.dates import format_http_date
from govi_server.http.request import TOKEN

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
"""Header fields: a mapping, or pairs if a name occurs more than once."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_NAME = re.compile(TOKEN.decode())
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_FRAMING = ("content-length", "transfer-encoding", "connection")  # reserved to this module
_STATUS = re.compile(r"[1-5][0-9]{2} [\t -~]*")


NO_STORE = ("Cache-Control", "no-store")
"""The header field of responses that caches must not store."""

RETRY_AFTER = ("Retry-After", "5")
"""The header field of a response to a request that the server has no room for, in seconds."""

Fields = tuple[tuple[str, str], ...]
"""Header fields as a hashable value."""

POLICY = "Content-Security-Policy"

SAFETY_HEADERS: Fields = (("X-Content-Type-Options", "nosniff"), (POLICY, "default-src 'none'; sandbox"))
"""Header fields of every response of every port: a browser runs and loads nothing, whatever a source sent.

Pages replace the policy with their own: see pages/assets.py.
"""


def pairs(headers: Headers) -> list[tuple[str, str]]:
    """Return header fields as (name, value) pairs."""
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
    """Return a complete response; see format_head().

    without_body: True for HEAD: the response states the length of the body but omits it.
    """
    head = format_head(status, pairs(headers), len(body), now=now, connection=connection)
    return head if without_body or is_bodiless(status) else head + body


def is_bodiless(status: str) -> bool:
    """Return whether a response with this status has no body (RFC 9110 section 6.4.1), hence no length or type."""
    return status.startswith(("1", "204", "304"))


def format_head(
    status: str, headers: Iterable[tuple[str, str]], length: int | None, *, now: float, connection: str = ""
) -> bytes:
    """Return the head of a response, including SAFETY_HEADERS and the final empty line.

    status: code and reason, such as '200 Ok'. length: bytes of the body; None for a body that ends with the
    connection. now: epoch seconds, for Date. connection: the Connection field, '' for none. Raises ValueError for an
    invalid status or field, such as a value with a line break.
    """
    if not _STATUS.fullmatch(status):
        raise ValueError(f"invalid status {status!r}")
    lines = [f"HTTP/1.1 {status}", f"Date: {format_http_date(now)}"]
    bodiless = is_bodiless(status)
    for name, value in with_safety_headers(headers):
        line = _line(name, value)
        if not (bodiless and name.lower() == "content-type"):
            lines.append(line)
    if not bodiless and length is not None:
        lines.append(f"Content-Length: {length}")
    if connection:
        lines.append(f"Connection: {connection}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def with_safety_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the header fields of a response with those of SAFETY_HEADERS that it does not have."""
    fields = list(headers)
    names = {name.lower() for name, _ in fields}
    return [*fields, *(field for field in SAFETY_HEADERS if field[0].lower() not in names)]


def format_lines(headers: Iterable[tuple[str, str]]) -> str:
    """Return header fields as lines of a response head. Raises ValueError for an invalid field."""
    return "".join([f"{_line(name, value)}\r\n" for name, value in headers])


@lru_cache(maxsize=1024)  # most fields are the same in every response
def _line(name: str, value: str) -> str:
    if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)) or name.lower() in _FRAMING:
        raise ValueError(f"invalid header field {name!r}: {value!r}")
    return f"{name}: {value}"
