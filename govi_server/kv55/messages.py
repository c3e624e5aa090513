"""Parses and writes KV55's messages: DRIS_55_REQ, DRIS_55 and DRIS_55_RES (docs/protocols.md, section 1.2).

The documents made of a message are bounded. The writer escapes all text. Unreadable messages raise BadMessage.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast
from xml.sax.saxutils import escape

from lxml import etree
from msgspec.structs import astuple

from govi_server.departures.board import Board, Trip
from govi_server.departures.times import local_timestamp, utc_timestamp
from govi_server.departures.timing_point import TIMING_POINT_CODE_PATTERN, is_timing_point_code
from govi_server.kv55.elements import DOCUMENT, REQUEST, TRIP
from govi_server.kv55.parsing import MAX_NAMESPACES, BadMessage, parse_document
from govi_server.kv55.plain_messages import read_plain_dris_55
from govi_server.runtime.text import nonblank
from govi_server.settings import SUBSCRIBER_ID

VERSION = "0.0.1"
DOSSIER = "KV55"
LICENSE = "http://openov.nl/license/GOVI-1.0-TravelInfo"
"""The licence of GOVI's travel information, which openOV places before Request (docs/protocols.md, section 1.1)."""

CONTENT_TYPE = "text/xml; charset=utf-8"

MAX_DOCUMENT_BYTES = 128 << 10
"""Size of the documents of all boards in a message: a board of 180 trips, where GOVI's have five (docs/protocols.md,
section 1.2). Parsing, rendering or compressing as much takes a few milliseconds, in which no client is served."""

MAX_TRIPS = 500
"""Trips of a message. Empty ones are small, but reading and writing each takes a few microseconds."""

MAX_UNKNOWN_ELEMENTS = 3_000
"""Unknown elements of the trips of a message, with their attributes: serializing each takes three microseconds."""

MAX_NAMESPACE_COMPARISONS = 1_000_000
"""Of the names in unknown elements with the namespaces in use there, each of a few nanoseconds."""

# The elements of a Trip, with the fields of Trip.
_FIELDS = dict(zip(TRIP, Trip.__struct_fields__, strict=False))
_NAMES = [TRIP.index(name) for name in ("LinePublicNumber", "DestinationName")]
"""The indices of the names. A blank one is omitted: clients read an empty element's text without a check."""

# The timestamps of the current second: formatting them takes a third of the time of a message.
_local_timestamp = lru_cache(maxsize=1)(local_timestamp)
_utc_timestamp = lru_cache(maxsize=1)(utc_timestamp)

_CODE_IN_BYTES = re.compile(f"<TimingPointCode>({TIMING_POINT_CODE_PATTERN})</TimingPointCode>".encode())
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Characters to replace or escape: those that XML cannot represent, and & < > CR. A search for one set takes a third
# of the time of a search for two.
_SPECIAL = re.compile("[^\t\n\x20-%'-;=?-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def code_in(data: bytes) -> str | None:
    """Return the first TimingPointCode in bytes that may be invalid XML; None without one."""
    match = _CODE_IN_BYTES.search(data)
    return match[1].decode("ascii") if match else None


def _texts(parent: etree._Element, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return the present children of these names, as (name, text)."""
    return tuple((name, parent.findtext(name, "")) for name in names if parent.find(name) is not None)


def _require(parent: etree._Element, path: str) -> etree._Element:
    element = parent.find(path)
    if element is None:
        raise BadMessage(f"no {path} in the document")
    return element


def _require_code(timing_point: etree._Element) -> str:
    element = timing_point.find("TimingPointCode")
    code = "" if element is None or len(element) else element.text or ""
    if not is_timing_point_code(code):
        raise BadMessage(f"invalid TimingPointCode: {code[:80]!r}")
    return code


def read_dris_55(data: bytes, now: float) -> list[Board]:
    """Parse a DRIS_55 response into a Board for each TimingPoint, received now (epoch seconds). Raises BadMessage."""
    plain = read_plain_dris_55(data, now)
    if plain is not None:
        return [plain]
    document = parse_document(data, "DRIS_55")
    request = _require(document, "Request")
    error = request.findtext("Error")
    if error is not None:
        raise BadMessage(f"the response is an error: {error[:80]!r}")
    reader = _BoardReader(now, _texts(document, DOCUMENT) + _texts(request, REQUEST))
    boards = [reader.board(point) for point in request.iterfind("TimingPoint")]
    if not boards:
        raise BadMessage("Request without TimingPoint")
    return boards


class _BoardReader:
    """Reads the boards of a message, up to the size of all their documents. Raises BadMessage beyond it."""

    def __init__(self, now: float, envelope: tuple[tuple[str, str], ...]) -> None:
        self._now = now
        self._envelope = envelope
        self._remaining = MAX_DOCUMENT_BYTES
        self._remaining_trips = MAX_TRIPS
        self._check(sum(len(text) for _, text in envelope))  # before it is escaped
        self._empty_size = len(write_dris_55([Board("", (), now, envelope)]))
        self._elsewhere = etree.Element("elsewhere")
        self._unknown_elements = self._comparisons = 0

    def board(self, point: etree._Element) -> Board:
        code = _require_code(point)
        self._count(self._empty_size + len(code))  # each document has its own envelope
        return Board(code, tuple(self._read_trip(trip) for trip in point.iterfind("Trip")), self._now, self._envelope)

    def _read_trip(self, element: etree._Element) -> Trip:
        known: dict[str, str] = {}
        extra: list[str] = []
        size = 0
        self._remaining_trips -= 1
        if self._remaining_trips < 0:
            raise BadMessage(f"more than {MAX_TRIPS} trips")
        for child in list(element):
            field = _FIELDS.get(cast(str, child.tag))  # only comments have other tags, and they are removed
            if field is None or field in known or len(child) or child.keys():
                extra.append(text := self._serialize(child))
            else:
                known[field] = text = child.text or ""
            size += len(text)
            self._check(size)
        trip = Trip(**known, extra=tuple(extra))
        self._count(len(write_trip(trip)))
        return trip

    def _serialize(self, element: etree._Element) -> str:
        """Return the XML of an unknown element, with only those namespaces of the message that it uses."""
        self._unknown_elements += 1 + len(element.keys())
        if self._unknown_elements > MAX_UNKNOWN_ELEMENTS:
            raise BadMessage(f"more than {MAX_UNKNOWN_ELEMENTS} unknown elements")
        if len(element) or element.keys():
            names = sum(1 + len(inner.keys()) for inner in element.iter())
            self._comparisons += names * min(names, MAX_NAMESPACES)
            if self._comparisons > MAX_NAMESPACE_COMPARISONS:
                raise BadMessage("too many names in unknown elements")
        # In its own document, an element gets all the declarations that are in scope; a moved one only those it uses.
        self._elsewhere.append(element)
        xml = etree.tostring(element, encoding="unicode", with_tail=False)
        self._elsewhere.clear()
        return xml

    def _count(self, size: int) -> None:
        self._check(size)
        self._remaining -= size

    def _check(self, size: int) -> None:
        if size > self._remaining:
            raise BadMessage(f"boards of more than {MAX_DOCUMENT_BYTES} bytes")


def write_dris_55(boards: Sequence[Board], license_url: str | None = LICENSE) -> bytes:
    """Return the DRIS_55 document of one or more boards; see dris_55_pieces()."""
    first = boards[0]
    points = ((board.code, map(write_trip, board.trips)) for board in boards)
    return b"".join(dris_55_pieces(points, first.envelope, first.received_at, license_url))


def dris_55_pieces(
    points: Iterable[tuple[str, Iterable[bytes]] | None],
    envelope: tuple[tuple[str, str], ...],
    received_at: float,
    license_url: str | None = LICENSE,
) -> Iterator[bytes]:
    """Write a DRIS_55 document in pieces.

    points: stops with their departures as written by write_trip(), in pieces; None for a step without a stop.
    envelope: the header of the message that it is made from, completed with the elements that the interface requires
    if it is empty. received_at: epoch seconds. license_url: the License of a header without one; None to omit it.
    """
    header = dict(envelope) or {
        "SubscriberID": SUBSCRIBER_ID,
        "Version": VERSION,
        "DossierName": DOSSIER,
        "SendTimestamp": local_timestamp(received_at),
        "RequestTimestamp": utc_timestamp(received_at),
        "SequenceNumber": "0",
    }
    if license_url is not None:
        header.setdefault("License", license_url)
    request = _lines(2, [(name, header[name]) for name in REQUEST if name in header])
    document = _document("DRIS_55", [(name, header[name]) for name in DOCUMENT if name in header], request, _CONTENT)
    begin, end = document.split(_CONTENT.encode())
    yield begin
    for point in points:
        if point is None:
            yield b""
            continue
        begin, end_of_point = _point(point[0], _CONTENT).encode().split(_CONTENT.encode())
        yield begin
        yield from point[1]
        yield end_of_point
    yield end


def write_error(code: str, error: str) -> bytes:
    """Return the DRIS_55 document of an error. code: the requested code, which may be invalid."""
    header = (("SubscriberID", SUBSCRIBER_ID), ("Version", VERSION), ("DossierName", DOSSIER))
    return _document("DRIS_55", header, _point(code), _lines(2, [("Error", error)]))


@dataclass(frozen=True, slots=True)
class GatewayRequest:
    """A DRIS_55_REQ: a request for the departures of one stop."""

    code: str
    sequence_number: str
    subscriber_id: str = SUBSCRIBER_ID
    request_timestamp: str = ""


def write_dris_55_req(request: GatewayRequest, now: float) -> bytes:
    """Return a DRIS_55_REQ sent now (epoch seconds)."""
    header = (
        ("SubscriberID", request.subscriber_id),
        ("Version", VERSION),
        ("DossierName", DOSSIER),
        ("SendTimestamp", _local_timestamp(int(now))),
    )
    elements = (
        ("RequestTimestamp", request.request_timestamp or _utc_timestamp(int(now))),
        ("SequenceNumber", request.sequence_number),
    )
    return _document("DRIS_55_REQ", header, _lines(2, elements), _point(request.code))


def read_dris_55_req(data: bytes) -> GatewayRequest:
    """Parse a DRIS_55_REQ. Raises BadMessage."""
    document = parse_document(data, "DRIS_55_REQ")
    request = _require(document, "Request")
    return GatewayRequest(
        _require_code(_require(request, "TimingPoint")),
        request.findtext("SequenceNumber", "0"),
        document.findtext("SubscriberID", SUBSCRIBER_ID),
        request.findtext("RequestTimestamp", ""),
    )


def write_dris_55_res(now: float, subscriber_id: str = SUBSCRIBER_ID) -> bytes:
    """Return the DRIS_55_RES that acknowledges a message, sent now (epoch seconds)."""
    header = (
        ("SubscriberID", subscriber_id),
        ("Version", VERSION),
        ("DossierName", DOSSIER),
        ("SendTimestamp", _utc_timestamp(int(now))),
        ("ResponseCode", "OK"),
    )
    return _document("DRIS_55_RES", header)


# Documents are written as text: building a tree of a board takes five times as long.


def _document(root: str, header: Iterable[tuple[str, str]], *request: str) -> bytes:
    """Return a document with header elements, and a Request if it has any content."""
    content = f"  <Request>\n{''.join(request)}  </Request>\n" if request else ""
    return f"<?xml version='1.0' encoding='UTF-8'?>\n<{root}>\n{_lines(1, header)}{content}</{root}>\n".encode()


_CONTENT = "<>"
"""Stands for content that is written in pieces; escaped text cannot contain it."""


def _point(code: str, *trips: str) -> str:
    return f"    <TimingPoint>\n{_lines(3, [('TimingPointCode', code)])}{''.join(trips)}    </TimingPoint>\n"


def write_trip(trip: Trip) -> bytes:
    """Return the Trip element of a departure."""
    *values, extra = astuple(trip)
    for i in _NAMES:
        text = values[i]
        if not text or not text[0].isalnum():
            values[i] = nonblank(text)
    if _SPECIAL.search("".join(filter(None, values))) is not None:  # a search per trip, not one per text
        values = [None if text is None else _escape(text) for text in values]
    content = "".join(
        [f"        <{name}>{text}</{name}>\n" for name, text in zip(TRIP, values, strict=True) if text is not None]
    )
    if extra:
        content += "".join([f"        {element}\n" for element in extra])  # as received
    return f"      <Trip>\n{content}      </Trip>\n".encode() if content else b"      <Trip/>\n"


def _lines(depth: int, elements: Iterable[tuple[str, str]]) -> str:
    """Format elements, (name, text), one per line."""
    indent = "  " * depth
    return "".join([f"{indent}<{name}>{_escape(text)}</{name}>\n" for name, text in elements])


def _escape(text: str) -> str:
    """Escape a text for XML; replace characters that XML cannot represent with U+FFFD."""
    if _SPECIAL.search(text) is None:
        return text
    return escape(_NOT_XML.sub("\ufffd", text), {"\r": "&#13;"})  # a parser reads a bare CR as a line end
