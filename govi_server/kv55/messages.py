"""Parses and writes KV55's messages: DRIS_55_REQ, DRIS_55 and DRIS_55_RES (docs/protocols.md, section 1.2).

The parser allows no entities, DTD or network access; sizes are bounded before and after gunzip. The writer escapes
all text. Unreadable messages raise BadMessage.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import cast
from xml.sax.saxutils import escape

from lxml import etree

from govi_server.departures.board import Board, Trip
from govi_server.departures.times import local_timestamp, utc_timestamp
from govi_server.departures.timing_point import TIMING_POINT_CODE_PATTERN, is_timing_point_code
from govi_server.runtime.gunzip import GZIP_MAGIC, gunzip
from govi_server.runtime.text import nonblank
from govi_server.settings import SUBSCRIBER_ID

VERSION = "0.0.1"
DOSSIER = "KV55"
LICENSE = "http://openov.nl/license/GOVI-1.0-TravelInfo"
"""The licence of GOVI's travel information, which openOV places before Request (docs/protocols.md, section 1.1)."""

CONTENT_TYPE = "text/xml; charset=utf-8"

# The elements of a Trip in the interface's order, with the fields of Trip.
_TRIP = {
    "OperatingDate": "operating_date",
    "DataOwnerCode": "data_owner_code",
    "LinePlanningNumber": "line_planning_number",
    "LinePublicNumber": "line_public_number",
    "DestinationName": "destination_name",
    "JourneyNumber": "journey_number",
    "FortifyOrderNumber": "fortify_order_number",
    "TargetArrivalTime": "target_arrival_time",
    "ExpectedArrivalTime": "expected_arrival_time",
    "TargetDepartureTime": "target_departure_time",
    "ExpectedDepartureTime": "expected_departure_time",
    "TripStopStatus": "trip_stop_status",
}
_NAMES = ("LinePublicNumber", "DestinationName")
"""The names of a Trip. A blank one is omitted: clients read an empty element's text without a check."""
_values_of = attrgetter(*_TRIP.values())
# The elements around the TimingPoints: before Request, and at the start of Request.
_DOCUMENT = ("SubscriberID", "Version", "DossierName", "SendTimestamp", "License")
_REQUEST = ("RequestTimestamp", "SequenceNumber")

_CODE_IN_BYTES = re.compile(f"<TimingPointCode>({TIMING_POINT_CODE_PATTERN})</TimingPointCode>".encode())
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Characters to replace or escape: those that XML cannot represent, and & < > CR. A search for one set takes a third
# of the time of a search for two.
_SPECIAL = re.compile("[^\t\n\x20-%'-;=?-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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


def code_in(data: bytes) -> str | None:
    """Return the first TimingPointCode in bytes that may be invalid XML; None without one."""
    match = _CODE_IN_BYTES.search(data)
    return match[1].decode("ascii") if match else None


def _parse(data: bytes, root: str) -> etree._Element:
    """Parse an XML document with this root element. Raises BadMessage."""
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
    document = _parse(data, "DRIS_55")
    request = _require(document, "Request")
    error = request.findtext("Error")
    if error is not None:
        raise BadMessage(f"the response is an error: {error[:80]!r}")
    envelope = _texts(document, _DOCUMENT) + _texts(request, _REQUEST)
    boards = [
        Board(_require_code(point), tuple(_read_trip(trip) for trip in point.iterfind("Trip")), now, envelope)
        for point in request.iterfind("TimingPoint")
    ]
    if not boards:
        raise BadMessage("Request without TimingPoint")
    return boards


def _read_trip(element: etree._Element) -> Trip:
    known: dict[str, str] = {}
    extra: list[str] = []
    for child in element:
        value = _TRIP.get(cast(str, child.tag))  # only comments have other tags, and they are removed
        if value is None or value in known or len(child) or child.keys():
            extra.append(etree.tostring(child, encoding="unicode", with_tail=False))
        else:
            known[value] = child.text or ""
    return Trip(**known, extra=tuple(extra))


def write_dris_55(boards: Sequence[Board], license_url: str | None = LICENSE) -> bytes:
    """Return the DRIS_55 document of one or more boards.

    The header is a copy of the first board's; a board without a message gets the elements that the interface
    requires. license_url: the License of a header without one; None to omit it.
    """
    first = boards[0]
    header = dict(first.envelope) or {
        "SubscriberID": SUBSCRIBER_ID,
        "Version": VERSION,
        "DossierName": DOSSIER,
        "SendTimestamp": local_timestamp(first.received_at),
        "RequestTimestamp": utc_timestamp(first.received_at),
        "SequenceNumber": "0",
    }
    if license_url is not None:
        header.setdefault("License", license_url)
    request = _lines(2, [(name, header[name]) for name in _REQUEST if name in header])
    points = [_point(board.code, *map(_write_trip, board.trips)) for board in boards]
    return _document("DRIS_55", [(name, header[name]) for name in _DOCUMENT if name in header], request, *points)


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
        ("SendTimestamp", local_timestamp(now)),
    )
    elements = (
        ("RequestTimestamp", request.request_timestamp or utc_timestamp(now)),
        ("SequenceNumber", request.sequence_number),
    )
    return _document("DRIS_55_REQ", header, _lines(2, elements), _point(request.code))


def read_dris_55_req(data: bytes) -> GatewayRequest:
    """Parse a DRIS_55_REQ. Raises BadMessage."""
    document = _parse(data, "DRIS_55_REQ")
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
        ("SendTimestamp", utc_timestamp(now)),
        ("ResponseCode", "OK"),
    )
    return _document("DRIS_55_RES", header)


# Documents are written as text: building a tree of a board takes five times as long.


def _document(root: str, header: Iterable[tuple[str, str]], *request: str) -> bytes:
    """Return a document with header elements, and a Request if it has any content."""
    content = f"  <Request>\n{''.join(request)}  </Request>\n" if request else ""
    return f"<?xml version='1.0' encoding='UTF-8'?>\n<{root}>\n{_lines(1, header)}{content}</{root}>\n".encode()


def _point(code: str, *trips: str) -> str:
    return f"    <TimingPoint>\n{_lines(3, [('TimingPointCode', code)])}{''.join(trips)}    </TimingPoint>\n"


def _write_trip(trip: Trip) -> str:
    values = [
        (name, text)
        for name, text in zip(_TRIP, _values_of(trip), strict=True)
        if text is not None and (name not in _NAMES or nonblank(text) is not None)
    ]
    extra = "".join(f"        {element}\n" for element in trip.extra)  # as received
    content = _lines(4, values) + extra
    return f"      <Trip>\n{content}      </Trip>\n" if content else "      <Trip/>\n"


def _lines(depth: int, elements: Iterable[tuple[str, str]]) -> str:
    """Format elements, (name, text), one per line."""
    indent = "  " * depth
    return "".join([f"{indent}<{name}>{_escape(text)}</{name}>\n" for name, text in elements])


def _escape(text: str) -> str:
    """Escape a text for XML; replace characters that XML cannot represent with U+FFFD."""
    if _SPECIAL.search(text) is None:
        return text
    return escape(_NOT_XML.sub("\ufffd", text), {"\r": "&#13;"})  # a parser reads a bare CR as a line end
