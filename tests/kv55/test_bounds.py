"""What is made of a message from a gateway is bounded, whatever is in it."""

import contextlib
import gzip
from collections import Counter
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.board import Trip
from govi_server.departures.source import SourceBroken
from govi_server.kv55 import elements, messages
from govi_server.kv55.gateway import Gateway
from govi_server.kv55.messages import MAX_DOCUMENT_BYTES, read_dris_55, write_dris_55
from govi_server.kv55.parsing import BadMessage
from tests.client import NOW
from tests.doubles import FakePoster

CODE = "57330430"
TRIP = "<Trip>" + "".join(f"<{name}>1234567890</{name}>" for name in elements.TRIP) + "</Trip>"


def message(content: str = "", attributes: str = "", points: int = 1, envelope: str = "openOV") -> bytes:
    """Return a DRIS_55 whose TimingPoints have some content."""
    point = "".join(
        f"<TimingPoint><TimingPointCode>{CODE if n == 0 else n}</TimingPointCode>{content}</TimingPoint>"
        for n in range(points)
    )
    header = f"<SubscriberID>{envelope}</SubscriberID><Version>1</Version>"
    return f"<DRIS_55{attributes}>{header}<Request>{point}</Request></DRIS_55>".encode()


def namespaces(n: int, uri: str = "urn:{}") -> str:
    """Return n namespace declarations."""
    return "".join(f" xmlns:a{i}='{uri.format(i)}'" for i in range(n))


def unknown(xml: str) -> str:
    return f"<Trip>{xml}</Trip>"


def hostile() -> Iterator[tuple[str, bytes]]:
    """Yield messages from which much could be made, each in several sizes."""
    for n in (10, 100, 900, 2_000, 5_000, 20_000):
        names = "".join(f"<a{i % 900}:q/>" for i in range(n))
        yield "namespaces that nothing uses", message(unknown("<q/>" * 2_000), namespaces(n))
        yield "elements beside namespaces", message(unknown("<q/>" * n), namespaces(1_000))
        yield "elements in namespaces", message(unknown(names), namespaces(900))
        yield "elements in namespaces, nested", message(unknown(f"<z>{names}</z>"), namespaces(900))
        yield "a long namespace", message(unknown("<a0:q/>" * n), namespaces(1, "u" * 10_000))
        yield "a long namespace, attributes", message(unknown("<q a0:b=''/>" * n), namespaces(1, "u" * 10_000))
        yield "namespaces of each element", message(unknown("".join(f"<q xmlns='urn:{i}'/>" for i in range(n))))
        yield "attributes", message(unknown("<q" + "".join(f" a{i}=''" for i in range(n)) + "/>"))
        yield (
            "attributes in namespaces",
            message(
                unknown(("<q" + "".join(f" a{i}:b=''" for i in range(900)) + "/>") * (n // 900)), namespaces(900)
            ),
        )
        yield "quotes in an attribute", message(unknown(f"<q a='{chr(34) * n}'/>"))
        yield "greater-than signs", message(unknown(f"<DestinationName>{'>' * n}</DestinationName>"))
        yield "ampersands", message(unknown(f"<DestinationName>{'&amp;' * n}</DestinationName>"))
        yield "ampersands in CDATA", message(unknown(f"<q><![CDATA[{'&' * n}]]></q>"))
        yield "carriage returns", message(unknown(f"<DestinationName>{'&#13;' * n}</DestinationName>"))
        yield "unknown carriage returns", message(unknown(f"<q>{'&#13;' * n}</q>"))
        yield "wide characters", message(unknown(f"<DestinationName>{chr(0x1F68B) * n}</DestinationName>"))
        latin = message(unknown(f"<q>{'~' * n}</q>")).replace(b"~", b"\xe9")
        yield "in Latin-1", b"<?xml version='1.0' encoding='iso-8859-1'?>" + latin
        yield "in UTF-16", message(unknown("<q/>" * n), namespaces(n)).decode().encode("utf-16")
        yield "in UTF-16 without a mark", message(unknown("<q/>" * n), namespaces(n)).decode().encode("utf-16-be")
        yield "empty trips", message("<Trip/>" * n)
        yield "trips", message(TRIP * n)
        yield "trips of unknown elements", message("<Trip><q/><r/><s/></Trip>" * n)
        yield "stops", message(points=n)
        yield "stops with a long envelope", message(points=n, envelope="x" * 10_000)
        yield "an envelope", message(envelope="x" * n * 10)
        yield "an envelope to escape", message(envelope=">" * n * 10)
        yield "nested elements", message(unknown("<q>" * n + "</q>" * n))
        yield "comments and instructions", message(unknown("<!----><?a?>" * n))
        yield "entities", b"<!DOCTYPE DRIS_55 [<!ENTITY a '" + b"x" * n + b"'>]>" + message(unknown("<q>&a;&a;</q>"))
        for encoding in ("utf-7", "utf-32", "utf-32-be", "cp037"):
            declaration = f"<?xml version='1.0'{' ' * 300}encoding='{encoding}'?>"
            yield encoding, (declaration + message(unknown("<q/>" * n), namespaces(n)).decode()).encode(encoding)
            yield encoding, message(unknown("<q/>" * n), namespaces(n)).decode().encode(encoding)


class BoundsTests(SynchronousTestCase):
    """The boards of hostile messages."""

    def test_documents_are_bounded(self) -> None:
        """The documents of all boards of a message are bounded, or else the message is rejected."""
        read = 0
        for name, data in hostile():
            try:
                boards = read_dris_55(data, NOW)
            except BadMessage as error:
                self.assertTrue(str(error).isprintable() and len(str(error)) < 300, name)
                continue
            read += 1
            documents = [write_dris_55([board]) for board in boards]
            self.assertLessEqual(sum(map(len, documents)), MAX_DOCUMENT_BYTES, name)
            for document, board in zip(documents, boards, strict=True):
                self.assertEqual(
                    len(etree.fromstring(document).findall("Request/TimingPoint/Trip")), len(board.trips)
                )
        self.assertGreater(read, 50)

    def test_work_is_bounded(self) -> None:
        """A rejected message costs no more than one that is read: few elements are serialized or made into trips."""
        calls: Counter[str] = Counter()
        tostring = etree.tostring

        def count_serialized(*arguments: Any, **options: Any) -> object:
            calls["serialized"] += 1
            return tostring(*arguments, **options)

        def count_trips(**values: Any) -> object:
            calls["trips"] += 1
            return Trip(**values)

        self.patch(etree, "tostring", count_serialized)
        self.patch(messages, "Trip", count_trips)
        for name, data in hostile():
            calls.clear()
            with contextlib.suppress(BadMessage):
                read_dris_55(data, NOW)
            self.assertLessEqual(calls["serialized"], messages.MAX_UNKNOWN_ELEMENTS, name)
            self.assertLessEqual(calls["trips"], messages.MAX_TRIPS, name)

    def test_unused_namespaces_are_omitted(self) -> None:
        """Unknown elements go through with the namespaces that they use, and no others of the message."""
        data = message(unknown("<q/>" * 2_000 + "<a7:r a9:s='t'><a7:u/></a7:r>"), namespaces(1_000))
        [board] = read_dris_55(data, NOW)
        *empty, last = board.trips[0].extra
        self.assertEqual(empty, ["<q/>"] * 2_000)
        self.assertEqual(
            etree.tostring(etree.fromstring(last), method="c14n"),
            b'<a7:r xmlns:a7="urn:7" xmlns:a9="urn:9" a9:s="t"><a7:u></a7:u></a7:r>',
        )
        self.assertLess(len(write_dris_55([board])), 2 * len(data))

    def test_attributes_of_unknown_elements_are_bounded(self) -> None:
        """The attributes of unknown elements count as much as the elements."""
        self.assertRaises(BadMessage, read_dris_55, message(unknown("<q a='b' c='d'/>" * 1_500)), NOW)
        self.assertEqual(len(read_dris_55(message(unknown("<q a='b' c='d'/>" * 1_000)), NOW)), 1)

    def test_ordinary_boards_are_read(self) -> None:
        """Boards many times as long as GOVI's are read, with a few unknown elements in each trip."""
        extended = TRIP.replace("</Trip>", "<x:Platform xmlns:x='urn:x'>1</x:Platform><Color>red</Color></Trip>")
        for data in (message(TRIP * 180), message(extended * 140), message(TRIP, points=100)):
            trips = [len(board.trips) for board in read_dris_55(data, NOW)]
            self.assertEqual(sum(trips), data.count(b"<Trip>"))

    @given(st.text(max_size=200), st.integers(1, 400), st.sampled_from(["Trip", "q", "DestinationName"]))
    def test_any_text_is_bounded(self, text: str, times: int, name: str) -> None:
        """Any text, as often as the message has room for, is bounded."""
        self.patch(messages, "MAX_DOCUMENT_BYTES", 5_000)
        element = etree.Element(name)
        try:
            element.text = text
        except ValueError:
            return  # not XML
        xml = etree.tostring(element, encoding="unicode") * times
        try:
            boards = read_dris_55(message(unknown(xml)), NOW)
        except BadMessage:
            return
        self.assertLessEqual(len(write_dris_55(boards)), 5_000)


class WaitingClientTests(SynchronousTestCase):
    """The requests that wait for a board which is too large."""

    def test_waiting_request_fails(self) -> None:
        """A request whose board is too large fails at once, and the callback is counted."""
        for body in (message("<Trip/>" * 20_000), gzip.compress(message(unknown("<q/>" * 100_000)))):
            gateway = Gateway(FakePoster(), Clock(), "gateway")
            board = gateway.board(CODE)
            delivery = gateway.deliver(body)
            delivery.serve()
            self.assertIsInstance(delivery.error, BadMessage)
            self.assertEqual(gateway.incidents.counts["broken"], 1)
            self.failureResultOf(board, SourceBroken)
