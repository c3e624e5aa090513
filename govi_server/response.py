"""Status, headers and body to the bytes of an answer (RFC 9110, RFC 9112). Pure: no transport, no clock."""

import gzip
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from govi_server.ready import Ready
from hashlib import blake2b

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
"""Header fields, as a mapping or as pairs where a name comes more than once."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_FRAMING = ("content-length", "transfer-encoding", "connection")  # written here, and by nobody else
_STATUS = re.compile(r"[1-5][0-9]{2} [\t -~]*")


Fields = tuple[tuple[str, str], ...]
"""Header fields that can be compared."""


@dataclass(slots=True)
class Representation:
    """A body as a client gets it, with the entity tag that stands for exactly these bytes."""

    body: bytes
    etag: str
    headers: Fields
    """Content-Type, Content-Encoding where there is one, ETag, Vary, and Last-Modified where it is told."""
    modified: float | None = None
    """When it was made (epoch seconds), where clients may ask by date."""
    last: "tuple[object, Ready] | None" = field(default=None, compare=False, repr=False)
    """What was said of it last, and the answer with that: see ready.at_hand()."""

    def __len__(self) -> int:
        return len(self.body)


def pairs(headers: Headers) -> list[tuple[str, str]]:
    """List header fields as (name, value)."""
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def represent(
    body: bytes, content_type: str, compressed: bool, modified: float | None = None, vary: str = "Accept-Encoding"
) -> Representation:
    """Make a representation of a body, gzip or plain, with its own strong entity tag (RFC 9110 section 8.8.3).

    vary: names of the request's fields that it depends on.
    """
    if compressed:
        body = gzip.compress(body, mtime=0)  # without the moment, the same body has the same bytes
    etag = f'"{blake2b(body, digest_size=8).hexdigest()}"'
    encoding = (("Content-Encoding", "gzip"),) if compressed else ()
    headers = (("Content-Type", content_type), *encoding, ("ETag", etag), ("Vary", vary))
    date = (("Last-Modified", http_date(modified)),) if modified is not None else ()
    return Representation(body, etag, (*headers, *date), modified)


def http_date(moment: float) -> str:
    """Write a moment (epoch seconds) as an HTTP date."""
    return _date(int(moment))


@lru_cache(maxsize=64)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def answer(
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
    written = head(status, pairs(headers), len(body), now=now, connection=connection)
    return written if without_body or is_bodiless(status) else written + body


def is_bodiless(status: str) -> bool:
    """Tell whether an answer of this status has no body, and so no length (RFC 9110 section 6.4.1) and no type."""
    return status.startswith(("1", "204", "304"))


def head(
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
    lines = [f"HTTP/1.1 {status}", f"Date: {http_date(now)}"]
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


@lru_cache(maxsize=1024)  # most fields are always the same
def _line(name: str, value: str) -> str:
    if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)) or name.lower() in _FRAMING:
        raise ValueError(f"not a header field: {name!r}: {value!r}")
    return f"{name}: {value}"
