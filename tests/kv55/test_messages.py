"""Tests of kv55.messages: valid messages are preserved, invalid ones are rejected."""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.board import Board, Trip
from govi_server.departures.times import local_timestamp, utc_timestamp
from govi_server.departures.timing_point import is_timing_point_code
from govi_server.kv55.messages import (
    LICENSE,
    GatewayRequest,
    code_in,
    read_dris_55,
    read_dris_55_req,
    write_dris_55,
    write_dris_55_req,
    write_dris_55_res,
    write_error,
)
from govi_server.kv55.parsing import BadMessage, unpack
from govi_server.runtime.text import nonblank

MANY = 1 << 20
"""Bytes: a limit beyond all messages of these tests."""

# In the form of GOVI's messages: no namespace, hours above 24, a line in brackets, a code with a leading zero.
GOVI = b"""<?xml version="1.0"?>

<DRIS_55>
        <SubscriberID>openOV</SubscriberID>
        <Version>0.0.1</Version>
        <DossierName>KV55</DossierName>
        <SendTimestamp>2012-01-22T23:45:49+01:00</SendTimestamp>
        <Request>
                <RequestTimestamp>2012-01-22T22:45:49</RequestTimestamp>
                <SequenceNumber>56</SequenceNumber>
                <TimingPoint>
                        <TimingPointCode>031102</TimingPointCode>
                        <Trip>
                                <OperatingDate>2012-01-22</OperatingDate>
                                <DataOwnerCode>GVB</DataOwnerCode>
                                <LinePlanningNumber>69</LinePlanningNumber>
                                <DestinationName>(69) Station Sloterdijk</DestinationName>
                                <JourneyNumber>143</JourneyNumber>
                                <FortifyOrderNumber>0</FortifyOrderNumber>
                                <TargetDepartureTime>24:02:46</TargetDepartureTime>
                                <ExpectedDepartureTime>24:04:10</ExpectedDepartureTime>
                        </Trip>
                        <Trip>
                                <OperatingDate>2012-01-22</OperatingDate>
                                <DataOwnerCode>GVB</DataOwnerCode>
                                <LinePlanningNumber>69</LinePlanningNumber>
                                <DestinationName>(69) Station Sloterdijk</DestinationName>
                                <JourneyNumber>148</JourneyNumber>
                                <FortifyOrderNumber>0</FortifyOrderNumber>
                                <TargetDepartureTime>25:32:46</TargetDepartureTime>
                                <ExpectedDepartureTime></ExpectedDepartureTime>
                        </Trip>
                </TimingPoint>
        </Request>
</DRIS_55>
"""

ENVELOPE = (
    ("SubscriberID", "openOV"),
    ("Version", "0.0.1"),
    ("DossierName", "KV55"),
    ("SendTimestamp", "2012-01-22T23:45:49+01:00"),
    ("RequestTimestamp", "2012-01-22T22:45:49"),
    ("SequenceNumber", "56"),
)

# Every element of a Trip, in the order of the interface, with a value.
ELEMENTS = (
    ("OperatingDate", "operating_date"),
    ("DataOwnerCode", "data_owner_code"),
    ("LinePlanningNumber", "line_planning_number"),
    ("LinePublicNumber", "line_public_number"),
    ("DestinationName", "destination_name"),
    ("JourneyNumber", "journey_number"),
    ("FortifyOrderNumber", "fortify_order_number"),
    ("TargetArrivalTime", "target_arrival_time"),
    ("ExpectedArrivalTime", "expected_arrival_time"),
    ("TargetDepartureTime", "target_departure_time"),
    ("ExpectedDepartureTime", "expected_departure_time"),
    ("TripStopStatus", "trip_stop_status"),
)

BLANK_IS_ABSENT = {"LinePublicNumber": "line_public_number", "DestinationName": "destination_name"}

# The characters that XML 1.0 can represent (its section 2.2), and therefore any text of a message.
NOT_XML = [chr(code) for code in range(0x20) if chr(code) not in "\t\n\r"] + ["\ufffe", "\uffff"]
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters=NOT_XML))
TRIPS = st.builds(Trip, **{name: st.none() | TEXTS for _, name in ELEMENTS})

# Elements of any form with known names, for documents that are almost valid.
NAMES = st.sampled_from(("Request", "TimingPoint", "TimingPointCode", "Trip", "JourneyNumber", "Error", "A"))
LEAVES = st.builds("<{0}>{1}</{0}>".format, NAMES, st.sampled_from(("", " ", "031102", "a", "&#13;")))
TREES = st.recursive(
    LEAVES, lambda trees: st.builds("<{0}>{1}</{0}>".format, NAMES, st.lists(trees, max_size=4).map("".join))
)


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> float:
    """Return the epoch seconds of a time in UTC."""
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()


WINTER = at(2012, 1, 22, 22, 45, 49)
SUMMER = at(2012, 7, 1, 10)


def dris_55(trips: str = "", code: str = "031102", head: str = "") -> bytes:
    """Return a DRIS_55 of a gateway: one stop with these trips, after the header elements."""
    point = f"<TimingPoint><TimingPointCode>{code}</TimingPointCode>{trips}</TimingPoint>"
    return f"{head}<DRIS_55><Version>0.0.1</Version><Request>{point}</Request></DRIS_55>".encode()


def read_trip(elements: str) -> Trip:
    """Return the Trip of these elements."""
    [board] = read_dris_55(dris_55(f"<Trip>{elements}</Trip>"), WINTER)
    [trip] = board.trips
    return trip


def trip_of(values: Mapping[str, Any]) -> Trip:
    """Return a Trip of fields by name."""
    return Trip(**values)


def written(*trips: Trip) -> bytes:
    """Return the document of a board with these trips."""
    return write_dris_55([Board("031102", trips, WINTER)])


def leaves(document: bytes) -> list[tuple[str, str]]:
    """Return the path and the text of each leaf element, in order."""

    def walk(element: ElementTree.Element, path: str) -> Iterator[tuple[str, str]]:
        for child in element:
            if len(child):
                yield from walk(child, f"{path}{child.tag}/")
            else:
                yield path + child.tag, child.text or ""

    return list(walk(ElementTree.fromstring(document), ""))


def trips_in(document: bytes) -> list[list[tuple[str, str]]]:
    """Return the elements and texts of each Trip, in order."""
    trips = ElementTree.fromstring(document).iter("Trip")
    return [[(child.tag, child.text or "") for child in trip] for trip in trips]


def canonical(xml: bytes | str) -> str:
    """Return XML in canonical form, without whitespace around texts."""
    return ElementTree.canonicalize(xml.decode() if isinstance(xml, bytes) else xml, strip_text=True)


class GoviTests(SynchronousTestCase):
    """A message as GOVI sends it."""

    def test_message_becomes_a_board(self) -> None:
        """The message becomes the board of its stop, received at the moment of parsing, with its header."""
        [board] = read_dris_55(GOVI, WINTER)
        self.assertEqual((board.code, board.received_at, board.envelope), ("031102", WINTER, ENVELOPE))
        self.assertEqual(
            board.trips[0],
            Trip(
                operating_date="2012-01-22",
                data_owner_code="GVB",
                line_planning_number="69",
                destination_name="(69) Station Sloterdijk",
                journey_number="143",
                fortify_order_number="0",
                target_departure_time="24:02:46",
                expected_departure_time="24:04:10",
            ),
        )
        self.assertEqual([trip.journey_number for trip in board.trips], ["143", "148"])

    def test_trips_are_preserved(self) -> None:
        """Every trip is written with its elements and texts unchanged and in order."""
        document = write_dris_55(read_dris_55(GOVI, WINTER))
        self.assertEqual(len(trips_in(document)), 2)
        self.assertEqual(trips_in(document), trips_in(GOVI))

    def test_only_the_license_is_added(self) -> None:
        """The document is the message with a License before Request, otherwise unchanged."""
        license_element = f"<License>{LICENSE}</License>".encode()
        expected = GOVI.replace(b"<Request>", license_element + b"<Request>")
        self.assertEqual(canonical(write_dris_55(read_dris_55(GOVI, WINTER))), canonical(expected))

    def test_write_is_idempotent(self) -> None:
        """A document that is read and written again is the same, byte by byte."""
        document = write_dris_55(read_dris_55(GOVI, WINTER))
        self.assertEqual(write_dris_55(read_dris_55(document, SUMMER)), document)

    def test_gzip(self) -> None:
        """A message is parsed into the same board with and without gzip."""
        self.assertEqual(unpack(gzip.compress(GOVI), MANY), GOVI)
        self.assertEqual(unpack(GOVI, MANY), GOVI)


class HeaderTests(SynchronousTestCase):
    """The elements around the stops."""

    def test_board_without_a_message(self) -> None:
        """A board without a message gets the header that the interface requires."""
        table = {WINTER: ("2012-01-22T23:45:49+01:00", "2012-01-22T22:45:49")}
        table[SUMMER] = ("2012-07-01T12:00:00+02:00", "2012-07-01T10:00:00")
        for made, (sent, requested) in table.items():
            self.assertEqual(
                leaves(write_dris_55([Board("031102", (), made)])),
                [
                    ("SubscriberID", "openOV"),
                    ("Version", "0.0.1"),
                    ("DossierName", "KV55"),
                    ("SendTimestamp", sent),
                    ("License", "http://openov.nl/license/GOVI-1.0-TravelInfo"),
                    ("Request/RequestTimestamp", requested),
                    ("Request/SequenceNumber", "0"),
                    ("Request/TimingPoint/TimingPointCode", "031102"),
                ],
            )

    def test_absent_elements_are_not_added(self) -> None:
        """Elements that are absent in the message's header are absent in the document."""
        self.assertEqual(
            leaves(write_dris_55(read_dris_55(dris_55(), WINTER))),
            [("Version", "0.0.1"), ("License", LICENSE), ("Request/TimingPoint/TimingPointCode", "031102")],
        )

    def test_order(self) -> None:
        """The header is written in the order of the interface, regardless of the order in the message."""
        parts = GOVI.split(b"        <Request>")
        head = b"".join(reversed(parts[0].splitlines(keepends=True)[3:]))
        mixed = b"<DRIS_55><Request>" + parts[1].replace(b"</DRIS_55>", head + b"</DRIS_55>")
        self.assertEqual(write_dris_55(read_dris_55(mixed, WINTER)), write_dris_55(read_dris_55(GOVI, WINTER)))

    def test_empty_elements(self) -> None:
        """An empty header element stays empty."""
        message = dris_55().replace(b"<Version>0.0.1</Version>", b"<SubscriberID/>")
        self.assertIn(("SubscriberID", ""), leaves(write_dris_55(read_dris_55(message, WINTER))))

    def test_licenses(self) -> None:
        """The license of the message is preserved; without one, the argument is used, if any."""
        configured, received = "http://example.org/configured", "http://example.org/received"
        licensed = dris_55().replace(b"<Request>", f"<License>{received}</License><Request>".encode())
        table: dict[tuple[bytes, str | None], list[str]] = {
            (dris_55(), configured): [configured],
            (dris_55(), None): [],
            (licensed, configured): [received],
            (licensed, None): [received],
        }
        for (message, given_license), expected in table.items():
            document = write_dris_55(read_dris_55(message, WINTER), given_license)
            self.assertEqual([text for name, text in leaves(document) if name == "License"], expected)

    def test_several_stops(self) -> None:
        """A document has the boards in their order, under the header of the first."""
        first, second = Trip(journey_number="1"), Trip(journey_number="2")
        boards = [
            Board("031102", (first, second), WINTER, ENVELOPE),
            Board("0001", (), SUMMER),
            Board("2", (first,), 0),
        ]
        document = write_dris_55(boards)
        self.assertEqual(
            leaves(document)[5:],
            [
                ("Request/RequestTimestamp", "2012-01-22T22:45:49"),
                ("Request/SequenceNumber", "56"),
                ("Request/TimingPoint/TimingPointCode", "031102"),
                ("Request/TimingPoint/Trip/JourneyNumber", "1"),
                ("Request/TimingPoint/Trip/JourneyNumber", "2"),
                ("Request/TimingPoint/TimingPointCode", "0001"),
                ("Request/TimingPoint/TimingPointCode", "2"),
                ("Request/TimingPoint/Trip/JourneyNumber", "1"),
            ],
        )
        again = read_dris_55(document, SUMMER)
        self.assertEqual(
            [(board.code, board.trips) for board in again], [(board.code, board.trips) for board in boards]
        )
        self.assertEqual({(board.received_at, board.envelope) for board in again}, {(SUMMER, again[0].envelope)})


class TripTests(SynchronousTestCase):
    """The elements of a Trip."""

    def test_all_elements(self) -> None:
        """Every element of the interface is read into its field and written in its place."""
        self.assertEqual([name for _, name in ELEMENTS], list(Trip.__struct_fields__)[:-1])
        texts = [(element, f"{number}") for number, (element, _) in enumerate(ELEMENTS)]
        trip = read_trip("".join(f"<{element}>{text}</{element}>" for element, text in reversed(texts)))
        self.assertEqual([getattr(trip, name) for _, name in ELEMENTS], [text for _, text in texts])
        self.assertEqual(trip.extra, ())
        self.assertEqual(trips_in(written(trip)), [texts])

    def test_absent_and_empty(self) -> None:
        """An absent element is None and stays absent; an empty one is "" and stays empty, except names."""
        for element, name in ELEMENTS:
            for empty in (f"<{element}/>", f"<{element}></{element}>"):
                trip = read_trip(empty)
                self.assertEqual(trip, trip_of({name: ""}))
                self.assertEqual(trips_in(written(trip)), [[] if element in BLANK_IS_ABSENT else [(element, "")]])
        self.assertEqual(read_trip(""), Trip())
        self.assertEqual(trips_in(written(Trip())), [[]])

    def test_texts_are_unchanged(self) -> None:
        """No text is trimmed, rounded or translated."""
        for text in (
            "  a ",
            "\ta\u00a0",
            "24:02:46",
            "007",
            "-1",
            "PLANNED?",
            "\u2019s-Gravenhage",
            "\U0001f68b",
        ):
            trip = read_trip(f"<DestinationName>{text}</DestinationName>")
            self.assertEqual(trip, Trip(destination_name=text))
            self.assertEqual(trips_in(written(trip)), [[("DestinationName", text)]])

    def test_text_around_comments(self) -> None:
        """Comments, instructions and CDATA do not truncate a text."""
        for xml in ("a&amp;b", "a<!-- c -->&amp;b", "<?d e?>a&#38;b", "<![CDATA[a&b]]>", "a<![CDATA[&]]>b"):
            self.assertEqual(read_trip(f"<DestinationName>{xml}</DestinationName>"), Trip(destination_name="a&b"))

    def test_unknown_elements(self) -> None:
        """Unknown elements are written with their contents, after those of the interface."""
        table = [
            "<Platform>2b</Platform>",
            "<Platform/>",
            '<Vehicle number="1 &amp; &quot;2&quot; &lt;">3</Vehicle>',
            '<Vehicle><Doors side="left"><Door>1</Door><Door/></Doors>a &amp; b<Doors/></Vehicle>',
            '<p:Vehicle xmlns:p="urn:p" p:a="b"><p:Door/></p:Vehicle>',
            '<Vehicle xmlns="urn:p"><Door/></Vehicle>',
            "<operatingdate>2012-01-22</operatingdate>",
        ]
        for xml in table:
            trip = read_trip(f"{xml}<JourneyNumber>1</JourneyNumber>")
            self.assertEqual(trip.journey_number, "1")
            self.assertEqual([canonical(extra) for extra in trip.extra], [canonical(xml)])
            document = written(trip)
            self.assertIn(canonical(f"<Trip><JourneyNumber>1</JourneyNumber>{xml}</Trip>"), canonical(document))
            [board] = read_dris_55(document, WINTER)
            self.assertEqual([canonical(extra) for extra in board.trips[0].extra], [canonical(xml)])

    def test_unknown_elements_in_order(self) -> None:
        """Unknown elements are written in their order, repetitions included."""
        trip = read_trip("<B>1</B><JourneyNumber>1</JourneyNumber><A>2</A>\n <B>3</B>")
        self.assertEqual(trip, Trip(journey_number="1", extra=("<B>1</B>", "<A>2</A>", "<B>3</B>")))
        expected = [("JourneyNumber", "1"), ("B", "1"), ("A", "2"), ("B", "3")]
        self.assertEqual(trips_in(written(trip)), [expected])

    def test_known_elements_in_unknown_form(self) -> None:
        """A known element with attributes or child elements, or a repeated one, is written unchanged."""
        table = [
            '<DestinationName lang="nl">a</DestinationName>',
            "<DestinationName>a<Short>b</Short></DestinationName>",
        ]
        for xml in table:
            trip = read_trip(xml)
            self.assertEqual(trip.destination_name, None)
            self.assertIn(canonical(f"<Trip>{xml}</Trip>"), canonical(written(trip)))
        twice = read_trip("<DestinationName/><DestinationName>b</DestinationName>")
        self.assertEqual(twice, Trip(destination_name="", extra=("<DestinationName>b</DestinationName>",)))
        self.assertEqual(trips_in(written(twice)), [[("DestinationName", "b")]])

    def test_blank_names_are_absent(self) -> None:
        """A blank name is no name: clients that read the text of an empty element fail."""
        for element, name in BLANK_IS_ABSENT.items():
            for blank in ("", " ", "\n", "\u00a0", "\u2003", "\u200b", "\ufeff", " \u00a0\t"):
                self.assertEqual(
                    trips_in(written(trip_of({name: blank, "journey_number": "1"}))), [[("JourneyNumber", "1")]]
                )
            self.assertEqual(trips_in(written(trip_of({name: "\u00a0a"}))), [[(element, "\u00a0a")]])

    def test_escaping(self) -> None:
        """Characters with a meaning in XML are escaped, and read back unchanged."""
        text = """<b>&amp; "a" 'b' ]]> <!-- --> <?c?> \r\n"""
        document = written(trip_of(dict.fromkeys((name for _, name in ELEMENTS), text)))
        self.assertEqual(trips_in(document), [[(element, text) for element, _ in ELEMENTS]])
        for raw in (b"<b>", b"]]>", b"<!--", b"<?c", b"\r"):
            self.assertNotIn(raw, document)

    def test_characters(self) -> None:
        """Characters that XML cannot represent are replaced; all others are preserved."""
        bad = "".join(NOT_XML) + "\ud800\udfff"
        self.assertEqual(
            trips_in(written(Trip(destination_name=f"a{bad}b"))),
            [[("DestinationName", f"a{chr(0xFFFD) * len(bad)}b")]],
        )
        good = "\t\n\r\x7f\x85\xa0\u2028\ud7ff\ue000\ufffd\U0001fffe\U0010ffff"
        self.assertEqual(trips_in(written(Trip(destination_name=good))), [[("DestinationName", good)]])

    @settings(max_examples=150, deadline=None)
    @given(st.lists(TRIPS, max_size=3))
    @example([Trip(destination_name="\r\n \r")])
    def test_any_trips(self, trips: list[Trip]) -> None:
        """Any trips of texts that XML can represent are the same after writing and reading, without blank names."""
        [board] = read_dris_55(written(*trips), WINTER)
        names = BLANK_IS_ABSENT.values()
        expected = (replace(trip, **{name: nonblank(getattr(trip, name)) for name in names}) for trip in trips)
        self.assertEqual(board.trips, tuple(expected))


class EncodingTests(SynchronousTestCase):
    """The encodings of messages."""

    def test_encodings(self) -> None:
        """A message may declare any encoding; documents are written in UTF-8."""
        name = "Sint Ji\u00e9"
        for encoding in ("utf-8", "iso-8859-1", "utf-16"):
            head = f'<?xml version="1.0" encoding="{encoding}"?>'
            text = dris_55(f"<Trip><DestinationName>{name}</DestinationName></Trip>", head=head).decode()
            boards = read_dris_55(text.encode(encoding), WINTER)
            self.assertEqual(boards[0].trips, (Trip(destination_name=name),))
            document = write_dris_55(boards)
            self.assertTrue(document.startswith(b"<?xml version='1.0' encoding='UTF-8'?>\n<DRIS_55>"))
            self.assertIn(f"<DestinationName>{name}</DestinationName>".encode(), document)

    def test_byte_order_mark(self) -> None:
        """A byte order mark is ignored."""
        self.assertEqual(
            read_dris_55(b"\xef\xbb\xbf" + GOVI[GOVI.index(b"<DRIS") :], WINTER), read_dris_55(GOVI, WINTER)
        )


class BadMessageTests(SynchronousTestCase):
    """Messages that are rejected."""

    def assertBad(self, table: dict[str, bytes]) -> None:
        """Assert that each of these messages is rejected with a text that can be sent."""
        for name, message in table.items():
            try:
                boards = read_dris_55(message, WINTER)
            except BadMessage as error:
                self.assertTrue(str(error).encode(), name)
            else:
                self.fail(f"{name} was taken for {boards}")

    def test_not_well_formed(self) -> None:
        """Malformed XML is rejected."""
        self.assertBad(
            {
                "nothing": b"",
                "blanks": b" \n",
                "text": b"Internal Server Error",
                "binary": bytes(range(256)),
                "packed": gzip.compress(GOVI),
                "cut off": GOVI[:-5],
                "something behind it": GOVI + b"<DRIS_55/>",
                "crossed tags": dris_55("<Trip><JourneyNumber></Trip></JourneyNumber>"),
                "not UTF-8": dris_55("<Trip><A>\x7f</A></Trip>").replace(b"\x7f", b"\xff"),
                "a bare ampersand": dris_55("<Trip><A>a & b</A></Trip>"),
                "a control character": dris_55("<Trip><A>\x00</A></Trip>"),
                "a reference to one": dris_55("<Trip><A>&#1;</A></Trip>"),
                "an unknown entity": dris_55("<Trip><A>&euro;</A></Trip>"),
                "an unknown prefix": dris_55("<Trip><p:A/></Trip>"),
                "an unknown encoding": dris_55(head='<?xml version="1.0" encoding="klingon"?>'),
                "very deep": dris_55("<A>" * 1000 + "</A>" * 1000),
            }
        )

    def test_document_types(self) -> None:
        """Any document type is rejected."""
        entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
        self.assertBad(
            {
                "a name": dris_55(head="<!DOCTYPE DRIS_55>"),
                "an address": dris_55(head='<!DOCTYPE DRIS_55 SYSTEM "http://localhost:1/kv55.dtd">'),
                "a public name": dris_55(head='<!DOCTYPE DRIS_55 PUBLIC "kv55" "http://localhost:1/kv55.dtd">'),
                "an entity": dris_55("<Trip><A>&a;</A></Trip>", head='<!DOCTYPE DRIS_55 [<!ENTITY a "b">]>'),
                "an unused entity": dris_55(head='<!DOCTYPE DRIS_55 [<!ENTITY a "b">]>'),
                "a file": dris_55(
                    "<Trip><DestinationName>&a;</DestinationName></Trip>",
                    head=f'<!DOCTYPE DRIS_55 [<!ENTITY a SYSTEM "file://{__file__}">]>',
                ),
                "a parameter entity": dris_55(
                    head=f'<!DOCTYPE DRIS_55 [<!ENTITY % a SYSTEM "file://{__file__}"> %a;]>'
                ),
                "a default attribute": dris_55(head='<!DOCTYPE DRIS_55 [<!ATTLIST DRIS_55 a CDATA "b">]>'),
                "a billion laughs": dris_55(
                    "<Trip><DestinationName>&a9;</DestinationName></Trip>",
                    head=f'<!DOCTYPE DRIS_55 [<!ENTITY a0 "ha">{entities}]>',
                ),
                "a billion laughs in an attribute": dris_55(
                    '<Trip><A b="&a9;"/></Trip>', head=f'<!DOCTYPE DRIS_55 [<!ENTITY a0 "ha">{entities}]>'
                ),
            }
        )

    def test_other_documents(self) -> None:
        """Well-formed XML without a board is rejected."""
        self.assertBad(
            {
                "another root": b"<html/>",
                "a request": write_dris_55_req(GatewayRequest("031102", "1"), WINTER),
                "an acknowledgement": write_dris_55_res(WINTER),
                "a namespace": GOVI.replace(b"<DRIS_55>", b'<DRIS_55 xmlns="urn:kv55">'),
                "the root of K55's errors": b"<DRIS_55 />",
                "no stop": b"<DRIS_55><Request/></DRIS_55>",
                "a stop outside of Request": b"<DRIS_55><TimingPoint/><Request/></DRIS_55>",
                "a stop without a code": dris_55().replace(b"<TimingPointCode>031102</TimingPointCode>", b""),
                "a second stop without a code": dris_55().replace(b"</Request>", b"<TimingPoint/></Request>"),
            }
        )

    def test_errors(self) -> None:
        """A message with Error is rejected, with or without a text."""
        self.assertBad(
            {"ours": write_error("031102", "Timeout"), "empty": dris_55("</TimingPoint><Error/><TimingPoint>")}
        )
        with self.assertRaisesRegex(BadMessage, "Timeout"):
            read_dris_55(write_error("031102", "Timeout"), WINTER)

    def test_invalid_codes(self) -> None:
        """An invalid code is rejected, not repaired."""
        codes = ("", " 031102", "031102\n", "+031102", "-1", "3.1", "1_000", "0x1", "31102a", "1" * 11)
        more = ("\u0663\u0661", "\uff13\uff11", "&lt;b&gt;", "<!-- 031102 -->", "<b>031102</b>")
        self.assertBad({code: dris_55(code=code) for code in (*codes, *more)})

    @settings(max_examples=200, deadline=None)
    @given(
        st.binary(),
        st.integers(0, len(GOVI)),
        st.integers(0, 40),
        st.sampled_from((0, 1, 5, 20)),
        st.booleans(),
    )
    @example(b"", 0, 0, 0, False)
    @example(b"\x1f\x8b", 0, 0, 0, False)
    def test_any_bytes(self, junk: bytes, place: int, n_removed: int, flip: int, packed: bool) -> None:
        """Any bytes and any damaged message result in boards, or in a BadMessage whose text can be sent."""
        damaged = GOVI[:place] + junk + GOVI[place + n_removed :]
        if packed:
            damaged = gzip.compress(damaged, mtime=0)
            damaged = damaged[:flip] + junk[:1] + damaged[flip + 1 :]
        for data in (junk, damaged):
            try:
                boards = read_dris_55(unpack(data, MANY), WINTER)
            except BadMessage as error:
                self.assertTrue(str(error).encode())
            else:
                self.assertTrue(boards)
                self.assertTrue(write_dris_55(boards))

    @settings(max_examples=150, deadline=None)
    @given(st.lists(TREES, max_size=5).map("".join))
    def test_any_elements(self, elements: str) -> None:
        """Any elements result in boards that are preserved, or in a BadMessage whose text can be sent."""
        documents = (dris_55().replace(b"<Request>", b"<Request>" + elements.encode()), dris_55(elements))
        for data in (*documents, dris_55(f"<Trip>{elements}</Trip>")):
            try:
                boards = read_dris_55(data, WINTER)
            except BadMessage as error:
                self.assertTrue(str(error).encode())
                continue
            document = write_dris_55(boards)
            again = read_dris_55(document, WINTER)
            self.assertEqual([board.code for board in again], [board.code for board in boards])
            self.assertEqual([len(board.trips) for board in again], [len(board.trips) for board in boards])
            self.assertEqual(canonical(write_dris_55(again)), canonical(document))


class ErrorTests(SynchronousTestCase):
    """The document of a request without a board."""

    def test_structure(self) -> None:
        """Error follows TimingPoint; the document has no timestamps, number or license."""
        self.assertEqual(
            write_error("031102", "Timeout"),
            b"""<?xml version='1.0' encoding='UTF-8'?>
<DRIS_55>
  <SubscriberID>openOV</SubscriberID>
  <Version>0.0.1</Version>
  <DossierName>KV55</DossierName>
  <Request>
    <TimingPoint>
      <TimingPointCode>031102</TimingPointCode>
    </TimingPoint>
    <Error>Timeout</Error>
  </Request>
</DRIS_55>
""",
        )

    def test_echo(self) -> None:
        """Any text of the client is echoed, escaped."""
        table = {
            "": "",
            "31102a": "31102a",
            "a/b": "a/b",
            "<script>&\"'</script>": "<script>&\"'</script>",
            "</TimingPointCode><Trip/>": "</TimingPointCode><Trip/>",
            "]]>": "]]>",
            "\xe9\xff": "\xe9\xff",
            "\0\x08\x1b": "\ufffd\ufffd\ufffd",
            "\ud800": "\ufffd",
        }
        for code, expected in table.items():
            document = write_error(code, "Invalid TimingPointCode")
            self.assertEqual(
                leaves(document)[3:],
                [("Request/TimingPoint/TimingPointCode", expected), ("Request/Error", "Invalid TimingPointCode")],
            )


class GatewayRequestTests(SynchronousTestCase):
    """DRIS_55_REQ."""

    def test_structure(self) -> None:
        """A gateway request has all elements of the interface in its order."""
        document = write_dris_55_req(GatewayRequest("031102", "56"), WINTER)
        self.assertEqual(ElementTree.fromstring(document).tag, "DRIS_55_REQ")
        self.assertEqual(
            leaves(document),
            [
                ("SubscriberID", "openOV"),
                ("Version", "0.0.1"),
                ("DossierName", "KV55"),
                ("SendTimestamp", "2012-01-22T23:45:49+01:00"),
                ("Request/RequestTimestamp", "2012-01-22T22:45:49"),
                ("Request/SequenceNumber", "56"),
                ("Request/TimingPoint/TimingPointCode", "031102"),
            ],
        )

    def test_round_trip(self) -> None:
        """A gateway request is the same after writing and reading."""
        for request in (
            GatewayRequest("031102", "56", "openOV", "2012-01-22T22:45:49"),
            GatewayRequest("0", "", "", "now"),
            GatewayRequest("1234567890", "1", "<you & me>", "2012"),
        ):
            self.assertEqual(read_dris_55_req(write_dris_55_req(request, SUMMER)), request)

    def test_request_timestamp(self) -> None:
        """A gateway request without a RequestTimestamp gets its time of sending."""
        request = read_dris_55_req(write_dris_55_req(GatewayRequest("1", "2"), SUMMER))
        self.assertEqual(request, GatewayRequest("1", "2", "openOV", "2012-07-01T10:00:00"))

    def test_only_the_stop_is_required(self) -> None:
        """Only the stop is required."""
        point = "<TimingPoint><TimingPointCode>031102</TimingPointCode></TimingPoint>"
        message = f"<DRIS_55_REQ><Request>{point}</Request></DRIS_55_REQ>".encode()
        self.assertEqual(read_dris_55_req(message), GatewayRequest("031102", "0", "openOV", ""))

    def test_other_documents_are_rejected(self) -> None:
        """A document without a request for a stop is rejected."""
        good = write_dris_55_req(GatewayRequest("031102", "56"), WINTER)
        table = {
            "nothing": b"",
            "cut off": good[:-5],
            "a response": GOVI,
            "no Request": b"<DRIS_55_REQ/>",
            "no stop": b"<DRIS_55_REQ><Request/></DRIS_55_REQ>",
            "no code": good.replace(b"031102", b""),
            "a bad code": good.replace(b"031102", b"+31102"),
            "a document type": good.replace(b"<DRIS_55_REQ>", b"<!DOCTYPE DRIS_55_REQ><DRIS_55_REQ>", 1),
        }
        for name, message in table.items():
            self.assertNotEqual(message, good, name)
            self.assertRaises(BadMessage, read_dris_55_req, message)


class AcknowledgementTests(SynchronousTestCase):
    """DRIS_55_RES."""

    def test_structure(self) -> None:
        """An acknowledgement has the code OK, and a time in UTC without a zone."""
        table = {WINTER: "2012-01-22T22:45:49", SUMMER: "2012-07-01T10:00:00"}
        for now, sent in table.items():
            document = write_dris_55_res(now)
            self.assertEqual(ElementTree.fromstring(document).tag, "DRIS_55_RES")
            self.assertEqual(
                leaves(document),
                [
                    ("SubscriberID", "openOV"),
                    ("Version", "0.0.1"),
                    ("DossierName", "KV55"),
                    ("SendTimestamp", sent),
                    ("ResponseCode", "OK"),
                ],
            )

    def test_subscriber(self) -> None:
        """An acknowledgement names its subscriber, escaped."""
        self.assertEqual(leaves(write_dris_55_res(WINTER, "<me>"))[0], ("SubscriberID", "<me>"))


class TimestampTests(SynchronousTestCase):
    """Times as texts."""

    def test_local(self) -> None:
        """Local time has the offset of the season, exact to the second of the change."""
        table = {
            WINTER: "2012-01-22T23:45:49+01:00",
            WINTER + 0.9: "2012-01-22T23:45:49+01:00",
            SUMMER: "2012-07-01T12:00:00+02:00",
            at(2012, 12, 31, 23): "2013-01-01T00:00:00+01:00",
            at(2012, 3, 25, 0, 59, 59): "2012-03-25T01:59:59+01:00",
            at(2012, 3, 25, 1): "2012-03-25T03:00:00+02:00",
            at(2012, 10, 28, 0, 59, 59): "2012-10-28T02:59:59+02:00",
            at(2012, 10, 28, 1): "2012-10-28T02:00:00+01:00",
        }
        self.assertEqual({now: local_timestamp(now) for now in table}, table)

    def test_utc(self) -> None:
        """UTC has no offset and no season."""
        table = {
            WINTER: "2012-01-22T22:45:49",
            WINTER + 0.9: "2012-01-22T22:45:49",
            SUMMER: "2012-07-01T10:00:00",
            0.0: "1970-01-01T00:00:00",
        }
        self.assertEqual({now: utc_timestamp(now) for now in table}, table)


class UnpackTests(SynchronousTestCase):
    """Messages that may be gzip."""

    def assertBad(self, data: bytes, limit: int = MANY) -> None:
        """Assert that bytes are rejected with a reason."""
        self.assertTrue(str(self.assertRaises(BadMessage, unpack, data, limit)))

    def test_plain(self) -> None:
        """Bytes without gzip are unchanged."""
        for data in (b"", b"\x1f", GOVI, b"\0\xff", zlib.compress(GOVI)):
            self.assertEqual(unpack(data, MANY), data)

    def test_empty_gzip(self) -> None:
        """Only padding with zeros may follow an empty gzip file."""
        self.assertBad(gzip.compress(b"") + b"garbage")
        self.assertEqual(unpack(gzip.compress(b"") + b"\0\0", MANY), b"")

    def test_many_members(self) -> None:
        """A gzip file with too many members is rejected."""
        self.assertBad(gzip.compress(b"") * 17)

    def test_gzip(self) -> None:
        """A gzip file is unpacked, regardless of the optional fields of its header."""
        flags = (
            gzip.compress(GOVI)[:3] + b"\x08" + gzip.compress(GOVI)[4:10] + b"kv55.xml\0" + gzip.compress(GOVI)[10:]
        )
        for data in (*(gzip.compress(GOVI, level) for level in (0, 1, 9)), flags):
            self.assertEqual(unpack(data, MANY), GOVI)
        self.assertEqual(unpack(gzip.compress(b""), MANY), b"")

    def test_members(self) -> None:
        """All members of a gzip file are unpacked; only zeros may follow."""
        data = gzip.compress(b"a") + gzip.compress(b"") + gzip.compress(b"bc")
        self.assertEqual(unpack(data, MANY), b"abc")
        self.assertEqual(unpack(data + b"\0" * 100, MANY), b"abc")

    def test_truncated(self) -> None:
        """A truncated gzip file is rejected, in any member."""
        for first in (b"", gzip.compress(b"a")):
            data = first + gzip.compress(GOVI)
            for end in range(len(first) + 2, len(data)):
                self.assertBad(data[:end])

    def test_corrupt(self) -> None:
        """A corrupt gzip file is rejected."""
        data = gzip.compress(GOVI, mtime=0)
        for place in (2, 20, len(data) // 2, len(data) - 8, len(data) - 1):
            self.assertBad(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])

    def test_trailing_bytes(self) -> None:
        """Trailing bytes are rejected, including a corrupt member."""
        for garbage in (b"x", b"\0x", GOVI, b"\x1f", b"\x1f\x8b", b"\0" + gzip.compress(b"a")):
            self.assertBad(gzip.compress(GOVI) + garbage)

    def test_limit(self) -> None:
        """The limit applies to the unpacked bytes of all members together."""
        for data in (b"x" * 100, gzip.compress(b"x" * 100), gzip.compress(b"x" * 50) * 2):
            self.assertEqual(unpack(data, 100), b"x" * 100)
            self.assertBad(data, 99)
        self.assertEqual(unpack(gzip.compress(b""), 0), b"")

    def test_bomb(self) -> None:
        """A decompression bomb is rejected when the limit is reached, not after it was unpacked."""
        packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        megabyte = bytes(MANY)
        bomb = b"".join(packer.compress(megabyte) for _ in range(64)) + packer.flush()
        self.assertLess(len(bomb), MANY)
        with self.assertRaisesRegex(BadMessage, "1000 bytes"):
            unpack(bomb, 1000)
        self.assertBad(gzip.compress(bytes(999)) + bomb, 1000)


class CodeTests(SynchronousTestCase):
    """TimingPointCodes."""

    def test_codes(self) -> None:
        """A code is one to ten ASCII digits, stricter than int()."""
        table = {
            "0": True,
            "031102": True,
            "57330430": True,
            "1234567890": True,
            "": False,
            "12345678901": False,
            "+5": False,
            "-5": False,
            " 5": False,
            "5 ": False,
            "5\n": False,
            "\n5": False,
            "1_000": False,
            "0x5": False,
            "5.0": False,
            "5,6": False,
            "5a": False,
            "\u0665": False,
            "5\u0665": False,
            "\uff15": False,
            "\u00b2": False,
            "5\0": False,
            "57330430/": False,
        }
        self.assertEqual({code: is_timing_point_code(code) for code in table}, table)

    def test_code_in(self) -> None:
        """The first code of a message is returned, even of a malformed one."""
        table = {
            GOVI: "031102",
            GOVI[:500]: "031102",
            b"\0\xff<TimingPointCode>1</TimingPointCode><TimingPointCode>2</TimingPointCode>": "1",
            b"<TimingPointCode>a</TimingPointCode><TimingPointCode>02</TimingPointCode>": "02",
            write_dris_55_req(GatewayRequest("0042", "1"), WINTER): "0042",
            b"": None,
            b"<TimingPointCode></TimingPointCode>": None,
            b"<TimingPointCode>12345678901</TimingPointCode>": None,
            b"<TimingPointCode> 1</TimingPointCode>": None,
            b"<TimingPointCode>1": None,
            gzip.compress(GOVI): None,
        }
        self.assertEqual({data: code_in(data) for data in table}, table)
