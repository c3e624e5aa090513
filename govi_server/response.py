"""Status, headers and body to the bytes of an answer (RFC 9110, RFC 9112). Pure: no transport, no clock."""

import gzip
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import blake2b

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
"""Header fields, as a mapping or as pairs where a name comes more than once."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_FRAMING = ("content-length", "transfer-encoding", "connection")  # written here, and by nobody else
_STATUS = re.compile(r"[1-5][0-9]{2} [\t -~]*")


@dataclass(frozen=True, slots=True)
class Representation:
    """A body as a client gets it, with the entity tag that stands for exactly these bytes."""

    body: bytes
    etag: str
    headers: tuple[tuple[str, str], ...]
    """Content-Type, Content-Encoding where there is one, ETag and Vary."""

    def __len__(self) -> int:
        return len(self.body)


def pairs(headers: Headers) -> list[tuple[str, str]]:
    """List header fields as (name, value)."""
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def represent(body: bytes, content_type: str, compressed: bool) -> Representation:
    """Make a representation of a body, gzip or plain, with its own strong entity tag (RFC 9110 section 8.8.3)."""
    if compressed:
        body = gzip.compress(body, mtime=0)  # without the moment, the same body has the same bytes
    etag = f'"{blake2b(body, digest_size=8).hexdigest()}"'
    encoding = (("Content-Encoding", "gzip"),) if compressed else ()
    headers = (("Content-Type", content_type), *encoding, ("ETag", etag), ("Vary", "Accept-Encoding"))
    return Representation(body, etag, headers)


def http_date(moment: float) -> str:
    """Write a moment (epoch seconds) as an HTTP date."""
    return formatdate(moment, usegmt=True)


def answer(
    status: str,
    headers: Headers,
    body: bytes,
    *,
    now: float,
    connection: str = "",
    without_body: bool = False,
) -> bytes:
    """Write a whole answer.

    status: code and reason, such as '200 Ok'. now: epoch seconds, for Date. connection: the Connection field,
    where one is due. without_body: as the answer to HEAD, which tells the length of the body and leaves it out.
    Raises ValueError for what would break the head, a line end in a value for example.
    """
    if not _STATUS.fullmatch(status):
        raise ValueError(f"not a status: {status!r}")
    lines = [f"HTTP/1.1 {status}", f"Date: {http_date(now)}"]
    bodiless = status.startswith(("1", "204", "304"))  # and so without a length (RFC 9110 section 6.4.1) and a type
    for name, value in pairs(headers):
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)) or name.lower() in _FRAMING:
            raise ValueError(f"not a header field: {name!r}: {value!r}")
        if not (bodiless and name.lower() == "content-type"):
            lines.append(f"{name}: {value}")
    if bodiless:
        body = b""
    else:
        lines.append(f"Content-Length: {len(body)}")
    if connection:
        lines.append(f"Connection: {connection}")
    head = "\r\n".join(lines) + "\r\n\r\n"
    return head.encode("latin-1") + (b"" if without_body else body)
