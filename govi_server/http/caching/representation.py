"""Bodies as clients get them: encoding, entity tag, validators. Pure."""

import gzip
from dataclasses import dataclass, field
from hashlib import blake2b

from govi_server.http.dates import format_http_date
from govi_server.http.response import Fields


@dataclass(slots=True)
class Representation:
    """A body as a client gets it, with the entity tag that stands for exactly these bytes."""

    body: bytes
    etag: str
    headers: Fields
    """Content-Type, Content-Encoding where there is one, ETag, Vary, and Last-Modified where it is told."""
    modified: float | None = None
    """When it was made (epoch seconds), where clients may ask by date."""
    last: tuple[object, object] | None = field(default=None, compare=False, repr=False)
    """What was said of it last, and the answer with that: see ready.at_hand()."""

    def __len__(self) -> int:
        return len(self.body)


def make_representation(
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
    date = (("Last-Modified", format_http_date(modified)),) if modified is not None else ()
    return Representation(body, etag, (*headers, *date), modified)
