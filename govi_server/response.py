"""Status, headers and body to the bytes of an answer (RFC 9110, RFC 9112). Pure: no transport, no clock."""

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
_ENTITY_TAG = re.compile(r'(?:W/)?("[!#-~\x80-\xff]*")')


@dataclass(frozen=True, slots=True)
class Representation:
    """A body as a client gets it, with the entity tag that stands for exactly these bytes."""

    body: bytes
    content_type: str
    etag: str

    def __len__(self) -> int:
        return len(self.body)


def pairs(headers: Headers) -> list[tuple[str, str]]:
    """List header fields as (name, value)."""
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def represent(body: bytes, content_type: str) -> Representation:
    """Make the representation of a body, with a strong entity tag (RFC 9110 section 8.8.3)."""
    return Representation(body, content_type, f'"{blake2b(body, digest_size=8).hexdigest()}"')


def none_match(if_none_match: str | None, etag: str) -> bool:
    """Tell whether a client that sent this If-None-Match lacks the representation (RFC 9110 section 13.1.2)."""
    if if_none_match is None:
        return True
    if if_none_match == "*":
        return False
    return etag not in _ENTITY_TAG.findall(if_none_match)


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
    lines = [f"HTTP/1.1 {status}", f"Date: {formatdate(now, usegmt=True)}"]
    for name, value in pairs(headers):
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)) or name.lower() in _FRAMING:
            raise ValueError(f"not a header field: {name!r}: {value!r}")
        lines.append(f"{name}: {value}")
    if status.startswith(("1", "204", "304")):  # these have no body, and so no length (RFC 9110 section 6.4.1)
        body = b""
    else:
        lines.append(f"Content-Length: {len(body)}")
    if connection:
        lines.append(f"Connection: {connection}")
    head = "\r\n".join(lines) + "\r\n\r\n"
    return head.encode("latin-1") + (b"" if without_body else body)
