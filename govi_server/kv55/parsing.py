"""Parses XML from gateways, with bounded work.

No entities, DTD or network access; sizes are bounded before and after gunzip. Other documents raise BadMessage.
"""

import re

from lxml import etree

from govi_server.runtime.gunzip import GZIP_MAGIC, gunzip

MAX_MARKUP = 10_000
"""Tags and attributes of a message, namespace declarations included: those of 380 trips."""

MAX_NAMESPACES = 1_000
"""Namespace declarations of a message: the parser compares each with the others."""

MAX_DECLARATION_BYTES = 1_000
"""Bytes of the XML declaration."""

# The encodings in which markup has the bytes of ASCII, in UTF-16 with NUL bytes between, so that it can be counted.
_ENCODING = re.compile(
    rb"utf-?8|utf-?16(?:le|be)?|(?:us-)?ascii|iso[-_]?8859-[0-9]{1,2}|latin-?[0-9]|windows-125[0-9]", re.IGNORECASE
)
_DECLARED_ENCODING = re.compile(rb"""\sencoding\s*=\s*["']([^"']*)""")


class BadMessage(ValueError):
    """A message is malformed, of another type, or too large; the error's message states the reason."""


def unpack(data: bytes, limit: int) -> bytes:
    """Gunzip a message if it is gzip, regardless of its header fields (docs/protocols.md, section 1.1).

    limit: maximum bytes of the result. Raises BadMessage.
    """
    if data.startswith(GZIP_MAGIC):
        try:
            return gunzip(data, limit)
        except ValueError as error:
            raise BadMessage(str(error)) from None
    if len(data) > limit:
        raise BadMessage(f"more than {limit} bytes")
    return data


def parse_document(data: bytes, root: str) -> etree._Element:
    """Parse an XML document with this root element. Raises BadMessage."""
    _check_markup(data)
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        element = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise BadMessage(f"not well-formed XML: {ascii(str(error))[1:-1][:200]}") from None
    if element.getroottree().docinfo.doctype:
        raise BadMessage("a document type is not allowed")
    if element.tag != root:
        raise BadMessage(f"the document is {str(element.tag)[:80]!r}, not {root}")
    return element


def _check_markup(data: bytes) -> None:
    """Raise BadMessage if parsing a document would take long, or if its bytes do not show this."""
    start = data[:MAX_DECLARATION_BYTES].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xfe\xff \t\r\n")
    if not start.startswith(b"<") or b"\0\0" in data[:8]:  # empty, EBCDIC or UTF-32
        raise BadMessage("not well-formed XML: no markup at its start")
    if start.startswith(b"<?xml"):
        declaration, end, _ = start.partition(b"?>")
        encoding = _DECLARED_ENCODING.search(declaration)
        if not end or (encoding is not None and _ENCODING.fullmatch(encoding[1]) is None):
            raise BadMessage("not well-formed XML: unsupported encoding, or an invalid declaration")
    if data.count(b"<") + data.count(b"=") > MAX_MARKUP:
        raise BadMessage(f"more than {MAX_MARKUP} tags and attributes")
    if data.count(b"xmlns") + data.count(b"x\0m\0l\0n\0s") > MAX_NAMESPACES:
        raise BadMessage(f"more than {MAX_NAMESPACES} namespace declarations")
