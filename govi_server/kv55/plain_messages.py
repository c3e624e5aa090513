"""Reads the usual form of a DRIS_55 without an XML parser, in a third of the time.

A message is plain if it has one TimingPoint, the elements of its trips in the interface's order, and no attributes,
empty-element tags, comments or CDATA sections. All others are left to the XML parser.
"""

import re
from collections.abc import Iterable
from xml.sax.saxutils import unescape

from govi_server.departures.board import Board, Trip
from govi_server.departures.timing_point import TIMING_POINT_CODE_PATTERN
from govi_server.kv55.elements import DOCUMENT, REQUEST, TRIP

MAX_PLAIN_BYTES = 32 << 10
"""Bytes of a plain message: reading it takes less than a millisecond, however much markup it has, and its document,
at most twice as long, is within the limits of all documents."""

MAX_PLAIN_TRIPS = 200
"""Trips of a plain message."""

# Groups are repeated in atomic groups, since (...)*+ and (...)?+ match wrongly before CPython 3.11.5 (gh-106052).

# A text with no references but those of every document. A parser changes a CR, and rejects ]]>.
_TEXT = "(?>(?:[^&<>\r\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]++|&(?:amp|lt|gt|quot|apos);)*)"
_SPACE = "[ \t\r\n]*+"
_DECLARATION = (
    r"""<\?xml version=(?:'1\.0'|"1\.0")(?: encoding=(?:'(?i:utf-8)'|"(?i:utf-8)"))?"""
    r"""(?: standalone=(?:'(?:yes|no)'|"(?:yes|no)"))?\?>"""
)
_HEADER = (
    f"(?:{_DECLARATION})?{_SPACE}<DRIS_55>{_SPACE}"
    f"(?P<document>(?>(?:<(?!Request>)(?P<a>[A-Za-z]++)>{_TEXT}</(?P=a)>{_SPACE})*))"
    f"<Request>{_SPACE}"
    f"(?P<request>(?>(?:<(?!Error>|TimingPoint>)(?P<b>[A-Za-z]++)>{_TEXT}</(?P=b)>{_SPACE})*))"
    f"<TimingPoint>{_SPACE}<TimingPointCode>(?P<code>{TIMING_POINT_CODE_PATTERN})</TimingPointCode>{_SPACE}"
)
_read_header = re.compile(_HEADER).match
_find_elements = re.compile(f"<([A-Za-z]++)>({_TEXT})<").findall
_read_trip = re.compile(
    f"<Trip>{_SPACE}{''.join(f'(?>(?:<{name}>({_TEXT})</{name}>{_SPACE})?)' for name in TRIP)}</Trip>{_SPACE}"
).match
_is_end = re.compile(f"</TimingPoint>{_SPACE}</Request>{_SPACE}</DRIS_55>{_SPACE}").fullmatch

_QUOTES = {"&quot;": '"', "&apos;": "'"}


def read_plain_dris_55(data: bytes, now: float) -> Board | None:
    """Return the board of a plain message, received now (epoch seconds); None if it is not plain."""
    if len(data) > MAX_PLAIN_BYTES:
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    header = _read_header(text)
    if header is None:
        return None
    position = header.end()
    trips: list[Trip] = []
    has_references = "&" in text
    while len(trips) < MAX_PLAIN_TRIPS and (trip := _read_trip(text, position)):
        values: Iterable[str | None] = trip.groups()
        if has_references:
            values = [value and unescape(value, _QUOTES) for value in values]
        trips.append(Trip(*values))  # type: ignore[arg-type]  # without extra
        position = trip.end()
    if _is_end(text, position) is None:
        return None
    envelope = [*_texts(header["document"], DOCUMENT), *_texts(header["request"], REQUEST)]
    if has_references:
        envelope = [(name, unescape(value, _QUOTES)) for name, value in envelope]
    return Board(header["code"], tuple(trips), now, tuple(envelope))


def _texts(elements: str, names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the present elements of these names, the first of each name, as (name, text)."""
    texts = dict(reversed(_find_elements(elements)))
    return [(name, texts[name]) for name in names if name in texts]
