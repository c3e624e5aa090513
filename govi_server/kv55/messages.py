"""The KV55 messages, DRIS_55_REQ, DRIS_55 and DRIS_55_RES, between XML bytes and values (docs/protocols.md 1.2).

Reading trusts nobody: no entities, no DTD, no network, sizes bounded before and after gunzip. Writing escapes
everything. Whatever cannot be read is a BadMessage.
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
from govi_server.settings import SUBSCRIBER

VERSION = "0.0.1"
DOSSIER = "KV55"
LICENSE = "http://openov.nl/license/GOVI-1.0-TravelInfo"
"""The licence of GOVI's travel information, which openOV puts in front of Request (docs/protocols.md 1.1, step 6)."""

CONTENT_TYPE = "text/xml; charset=utf-8"

# The elements of a Trip in the order of the interface, with the values they become.
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
_values_of = attrgetter(*_TRIP.values())
# What stands around the TimingPoints: in front of Request, and at the head of Request.
_DOCUMENT = ("SubscriberID", "Version", "DossierName", "SendTimestamp", "License")
_REQUEST = ("RequestTimestamp", "SequenceNumber")

_CODE_IN_BYTES = re.compile(f"<TimingPointCode>({TIMING_POINT_CODE_PATTERN})</TimingPointCode>".encode())
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What is not written as it is: what XML cannot hold, and & < > CR. (As one set it is found three times as fast.)
_SPECIAL = re.compile("[^\t\n\x20-%'-;=?-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class BadMessage(ValueError):
    """A message that is not well formed, not what it should be, or too large; the text says which."""


def unpack(data: bytes, limit: int) -> bytes:
    """Give the plain bytes of a message that may be gzip, which no header tells reliably (docs/protocols.md 1.1, step 4).

    limit: the most bytes that may come out. Raises BadMessage.
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
    """Find the first TimingPointCode in bytes that may be no XML at all, as the first receivers did."""
    found = _CODE_IN_BYTES.search(data)
    return found[1].decode("ascii") if found else None


def _parse(data: bytes, root: str) -> etree._Element:
    """Read bytes as an XML document whose root has this name. Raises BadMessage."""
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
    """Collect the children of these names that are there, as (name, text)."""
    return tuple((name, parent.findtext(name, "")) for name in names if parent.find(name) is not None)


def _need(parent: etree._Element, path: str) -> etree._Element:
    element = parent.find(path)
    if element is None:
        raise BadMessage(f"no {path} in the document")
    return element


def _need_code(timing_point: etree._Element) -> str:
    element = timing_point.find("TimingPointCode")
    code = "" if element is None or len(element) else element.text or ""
    if not is_timing_point_code(code):
        raise BadMessage(f"no TimingPointCode: {code[:80]!r}")
    return code


def read_dris_55(data: bytes, now: float) -> list[Board]:
    """Read a DRIS_55 answer: a Board of each TimingPoint, made now (epoch seconds). Raises BadMessage."""
    document = _parse(data, "DRIS_55")
    request = _need(document, "Request")
    error = request.findtext("Error")
    if error is not None:
        raise BadMessage(f"the answer is an error: {error[:80]!r}")
    envelope = _texts(document, _DOCUMENT) + _texts(request, _REQUEST)
    boards = [
        Board(_need_code(point), tuple(_read_trip(trip) for trip in point.iterfind("Trip")), now, envelope)
        for point in request.iterfind("TimingPoint")
    ]
    if not boards:
        raise BadMessage("Request without TimingPoint")
    return boards


def _read_trip(element: etree._Element) -> Trip:
    known: dict[str, str] = {}
    extra: list[str] = []
    for child in element:
        value = _TRIP.get(cast(str, child.tag))  # only comments, which are not read, have another
        if value is None or value in known or len(child) or child.keys():
            extra.append(etree.tostring(child, encoding="unicode", with_tail=False))
        else:
            known[value] = child.text or ""
    return Trip(**known, extra=tuple(extra))


def write_dris_55(boards: Sequence[Board], license_url: str | None = LICENSE) -> bytes:
    """Write the DRIS_55 document of one or more boards, with the License that they came under or else this one.

    The header is the one of the first board's message: what that did not say is not made up. A board that came in
    none gets what the interface asks for.
    """
    first = boards[0]
    given = dict(first.envelope) or {
        "SubscriberID": SUBSCRIBER,
        "Version": VERSION,
        "DossierName": DOSSIER,
        "SendTimestamp": local_timestamp(first.received_at),
        "RequestTimestamp": utc_timestamp(first.received_at),
        "SequenceNumber": "0",
    }
    if license_url is not None:
        given.setdefault("License", license_url)
    request = _lines(2, [(name, given[name]) for name in _REQUEST if name in given])
    points = [_point(board.code, *map(_write_trip, board.trips)) for board in boards]
    return _document("DRIS_55", [(name, given[name]) for name in _DOCUMENT if name in given], request, *points)


def write_error(code: str, error: str) -> bytes:
    """Write the DRIS_55 of a question that gets no board; code is what the client wrote, of any form."""
    head = (("SubscriberID", SUBSCRIBER), ("Version", VERSION), ("DossierName", DOSSIER))
    return _document("DRIS_55", head, _point(code), _lines(2, [("Error", error)]))


@dataclass(frozen=True, slots=True)
class Question:
    """A DRIS_55_REQ: who asks for the departures of which stop, and the number of the question."""

    code: str
    sequence_number: str
    subscriber_id: str = SUBSCRIBER
    request_timestamp: str = ""


def write_dris_55_req(question: Question, now: float) -> bytes:
    """Write a DRIS_55_REQ sent now (epoch seconds)."""
    head = (
        ("SubscriberID", question.subscriber_id),
        ("Version", VERSION),
        ("DossierName", DOSSIER),
        ("SendTimestamp", local_timestamp(now)),
    )
    request = (
        ("RequestTimestamp", question.request_timestamp or utc_timestamp(now)),
        ("SequenceNumber", question.sequence_number),
    )
    return _document("DRIS_55_REQ", head, _lines(2, request), _point(question.code))


def read_dris_55_req(data: bytes) -> Question:
    """Read a DRIS_55_REQ. Raises BadMessage."""
    document = _parse(data, "DRIS_55_REQ")
    request = _need(document, "Request")
    return Question(
        _need_code(_need(request, "TimingPoint")),
        request.findtext("SequenceNumber", "0"),
        document.findtext("SubscriberID", SUBSCRIBER),
        request.findtext("RequestTimestamp", ""),
    )


def write_dris_55_res(now: float, subscriber_id: str = SUBSCRIBER) -> bytes:
    """Write the DRIS_55_RES that acknowledges a message, sent now (epoch seconds)."""
    head = (
        ("SubscriberID", subscriber_id),
        ("Version", VERSION),
        ("DossierName", DOSSIER),
        ("SendTimestamp", utc_timestamp(now)),
        ("ResponseCode", "OK"),
    )
    return _document("DRIS_55_RES", head)


# Text is written as text: to make a tree of a board first would take five times as long.


def _document(root: str, head: Iterable[tuple[str, str]], *request: str) -> bytes:
    """Write a document of its head and what is in its Request, if it has one."""
    inside = f"  <Request>\n{''.join(request)}  </Request>\n" if request else ""
    return f"<?xml version='1.0' encoding='UTF-8'?>\n<{root}>\n{_lines(1, head)}{inside}</{root}>\n".encode()


def _point(code: str, *trips: str) -> str:
    return f"    <TimingPoint>\n{_lines(3, [('TimingPointCode', code)])}{''.join(trips)}    </TimingPoint>\n"


def _write_trip(trip: Trip) -> str:
    values = [(name, text) for name, text in zip(_TRIP, _values_of(trip), strict=True) if text is not None]
    extra = "".join(f"        {element}\n" for element in trip.extra)  # as they came
    inside = _lines(4, values) + extra
    return f"      <Trip>\n{inside}      </Trip>\n" if inside else "      <Trip/>\n"


def _lines(depth: int, elements: Iterable[tuple[str, str]]) -> str:
    """Write elements of a name and a text, a line each."""
    indent = "  " * depth
    return "".join([f"{indent}<{name}>{_escape(text)}</{name}>\n" for name, text in elements])


def _escape(text: str) -> str:
    """Write a text as XML; what XML cannot hold becomes U+FFFD."""
    if _SPECIAL.search(text) is None:
        return text
    return escape(_NOT_XML.sub("\ufffd", text), {"\r": "&#13;"})  # a CR as such would be read as a line end
