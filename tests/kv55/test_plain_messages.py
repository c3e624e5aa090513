"""The reader of plain messages reads them as the XML parser does."""

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.board import Board
from govi_server.kv55 import messages
from govi_server.kv55.elements import DOCUMENT, REQUEST, TRIP
from govi_server.kv55.messages import MAX_DOCUMENT_BYTES, read_dris_55, write_dris_55
from govi_server.kv55.parsing import BadMessage
from govi_server.kv55.plain_messages import MAX_PLAIN_BYTES, MAX_PLAIN_TRIPS, read_plain_dris_55
from tests.client import NOW

TEXT = st.lists(
    st.sampled_from(["a", "1", " ", "\n", "\t", "é", "\x85", "\u2028", "🚋", '"', "'", "=", "&amp;", "&lt;", "&gt;",
                     "&quot;", "&apos;", "&amp;lt;", ":", "-"])
).map("".join)  # fmt: skip
SPACE = st.sampled_from(["", " ", "\n", "\r\n\t", "\n    "])
DECLARATION = st.sampled_from(
    [
        "", "\n", "<?xml version='1.0'?>", '<?xml version="1.0" encoding="UTF-8"?>\n',
        "<?xml version='1.0' encoding='utf-8'?>", '<?xml version="1.0" encoding="utf-8" standalone="yes"?>\r\n',
    ]
)  # fmt: skip
UNUSUAL = [
    "<", ">", "&", "]]>", "&#13;", "&nope;", "\r", "\0", "\x1f", "\x7f", "\ufffe", "<!-- -->", "<?a b?>", "<a/>", "/",
    "<![CDATA[x]]>", "<Trip>", "</Trip>", "<Trip/>", "<Error>x</Error>", "<Request>x</Request>", " a='b'", "\ufeff",
    "<TimingPoint>x</TimingPoint>", "<TimingPointCode>7</TimingPointCode>", "<!DOCTYPE DRIS_55>",
    "<n:q xmlns:n='u'/>",
    "<OperatingDate>x</OperatingDate>", "<TripStopStatus>x</TripStopStatus>", "<Version>2</Version>", "x", " ",
]  # fmt: skip


@st.composite
def plain(draw: st.DrawFn) -> str:
    """Draw a plain message."""

    def elements(names: tuple[str, ...]) -> str:
        present = [name for name in names if draw(st.booleans())]
        return "".join(f"<{name}>{draw(TEXT)}</{name}>{draw(SPACE)}" for name in present)

    trips = "".join(
        f"<Trip>{draw(SPACE)}{elements(TRIP)}</Trip>{draw(SPACE)}" for _ in range(draw(st.integers(0, 3)))
    )
    code = f"<TimingPointCode>{draw(st.from_regex('[0-9]{1,10}', fullmatch=True))}</TimingPointCode>{draw(SPACE)}"
    point = f"<TimingPoint>{draw(SPACE)}{code}{trips}</TimingPoint>{draw(SPACE)}"
    request = f"<Request>{draw(SPACE)}{elements((*REQUEST, 'Other'))}{point}</Request>{draw(SPACE)}"
    root = f"<DRIS_55>{draw(SPACE)}{elements((*DOCUMENT, 'Other'))}{request}</DRIS_55>{draw(SPACE)}"
    return f"{draw(DECLARATION)}{root}"


def message(trips: str) -> bytes:
    code = "<TimingPointCode>031102</TimingPointCode>"
    return f"<DRIS_55><Request><TimingPoint>{code}{trips}</TimingPoint></Request></DRIS_55>".encode()


class PlainMessageTests(SynchronousTestCase):
    """Messages that are read without an XML parser."""

    def setUp(self) -> None:
        self.patch(messages, "read_plain_dris_55", lambda data, now: None)

    def by_parser(self, data: bytes) -> list[Board]:
        """Return the boards that the XML parser reads; none if it rejects the message."""
        try:
            return read_dris_55(data, NOW)
        except BadMessage:
            return []

    @given(plain())
    def test_plain_messages(self, text: str) -> None:
        """A plain message is read as by the XML parser."""
        data = text.encode()
        self.assertEqual([read_plain_dris_55(data, NOW)], read_dris_55(data, NOW))

    @given(plain(), st.sampled_from(UNUSUAL), st.floats(0, 1), st.integers(0, 3))
    def test_unusual_messages(self, text: str, unusual: str, place: float, n_removed: int) -> None:
        """A message with anything unusual anywhere is read as by the XML parser, or left to it."""
        position = int(place * len(text))
        data = f"{text[:position]}{unusual}{text[position + n_removed :]}".encode()
        board = read_plain_dris_55(data, NOW)
        if board is not None:
            self.assertEqual([board], self.by_parser(data))

    @given(plain(), st.integers(0, 10), st.data())
    def test_markup_in_unusual_places(self, text: str, n: int, data: st.DataObject) -> None:
        """Markup in another order is read as by the XML parser, or left to it."""
        pieces = re.split("(?=<)", text)
        for _ in range(n):
            piece = pieces.pop(data.draw(st.integers(0, len(pieces) - 1)))
            pieces.insert(data.draw(st.integers(0, len(pieces))), piece)
        message = "".join(pieces).encode()
        board = read_plain_dris_55(message, NOW)
        if board is not None:
            self.assertEqual([board], self.by_parser(message))

    def test_usual_gateway(self) -> None:
        """A document as this program writes it is plain."""
        board = Board("031102", (), NOW, (("SubscriberID", "a & b"),))
        self.assertEqual(read_plain_dris_55(write_dris_55([board], None), NOW), board)

    def test_encodings(self) -> None:
        """Messages in other encodings are left to the XML parser, which detects the encoding."""
        text = message("<Trip><DestinationName>é</DestinationName></Trip>").decode()
        for data in (
            text.encode("utf-16"),
            text.encode("latin-1"),
            b"<?xml version='1.0' encoding='iso-8859-1'?>" + text.encode(),
        ):
            self.assertIsNone(read_plain_dris_55(data, NOW))

    def test_documents_are_bounded(self) -> None:
        """The document of a plain message is within the limit of all documents."""
        largest = 0
        for content in ("", *(f"<{name}></{name}>" for name in TRIP), f"<DataOwnerCode>{'x' * 100}</DataOwnerCode>"):
            trip = f"<Trip>{content}</Trip>"
            n = min(MAX_PLAIN_TRIPS, (MAX_PLAIN_BYTES - 200) // len(trip))
            board = read_plain_dris_55(message(trip * n), NOW)
            assert board is not None
            largest = max(largest, len(write_dris_55([board])))
            self.assertIsNone(read_plain_dris_55(message(trip * (MAX_PLAIN_TRIPS + 1)), NOW))
        self.assertLessEqual(largest, MAX_DOCUMENT_BYTES // 2)
        self.assertIsNone(read_plain_dris_55(message(f"<Trip>{' ' * MAX_PLAIN_BYTES}</Trip>"), NOW))
