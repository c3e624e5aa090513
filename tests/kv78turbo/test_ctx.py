"""CTX: what is read whatever the chunks, what is refused, and what is written."""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby, pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.kv78turbo.ctx import CHUNK_BYTES, MAX_LINE_BYTES, Group, Table, chunked, read, text, write
from tests import feed

STAMP = "2026-01-01T00:59:50+01:00"
GROUP = Group("KV8turbo_passtimes", "openOV LIN", STAMP)
GROUP_LINE = f"\\GKV8turbo_passtimes|KV8turbo_passtimes|openOV LIN|||UTF-8|0.1|{STAMP}|\ufeff\n".encode()

# What messages are made of, and what breaks one.
FRAGMENTS = (
    *(b"\\G", b"\\T", b"\\L", b"A|B\n", b"\\LA|B\n", b"\\TLINE|LINE|start object\n", b"a|b\n", b"|", b"\n", b"\r\n"),
    *(b"\r", b"\\0", b"\\p", b"\\r", b"\\n", b"\\i", b"\\", b"\xff", b"\xc3\xa9", b"\xef\xbb\xbf", b"\0", b"a"),
)
BYTES = st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(FRAGMENTS), max_size=40).map(b"".join))

Found = list[tuple[Group, str, tuple[str, ...], list[bytes]]]


def found(*chunks: bytes) -> tuple[Found, Counter[str]]:
    """Read chunks: what there is, with the records of a table that stand together in one, and what is refused."""
    refused: list[str] = []
    parts = [records for records in read(chunks, refused.append) if records.lines]
    joined = groupby(parts, lambda records: records[:3])
    return [(*about, [line for one in of for line in one.lines]) for about, of in joined], Counter(refused)


def lines(*chunks: bytes) -> list[bytes]:
    """Read chunks with nothing to refuse: their records."""
    tables, refused = found(*chunks)
    assert not refused, refused
    return [line for *_, of in tables for line in of]


def refused(record: bytes) -> Counter[str]:
    """Tell what is refused of a record of two columns that stands between two sound ones."""
    tables, counts = found(b"\\TLINE|LINE|start object\n\\LA|B\na|b\n" + record + b"\nc|d\n")
    (*_, kept), *_ = tables
    assert (kept[0], kept[-1]) == (b"a|b", b"c|d")
    assert len(kept) == 3 - counts.total()
    return counts


class ReadTests(SynchronousTestCase):
    """What a message says."""

    def test_columns(self) -> None:
        """Records of 35, 49 and 65 columns are read by their labels, from LF and from CRLF, with their group."""
        for columns in (35, 49, 65):
            message = feed.passtimes({"SideCode": "P5"}, {"SideCode": None}, columns=columns)
            for form in (message, message.replace(b"\r\n", b"\n")):
                (records,) = feed.records(form)
                self.assertEqual(records.group, GROUP)
                self.assertEqual(records.table, "DATEDPASSTIME")
                self.assertEqual(records.labels, tuple(feed.TABLES["DATEDPASSTIME"])[:columns])
                rows = [dict(zip(records.labels, line.split(b"|"), strict=True)) for line in records.lines]
                self.assertEqual([row["SideCode"] for row in rows], [b"P5", b"\\0"])
                last = feed.TABLES["DATEDPASSTIME"][records.labels[-1]]
                self.assertEqual(text(rows[0][records.labels[-1]]), last)

    def test_group(self) -> None:
        """A group says who published when, as far as it says it; a new one begins without a table."""
        table = {
            GROUP_LINE: GROUP,
            GROUP_LINE.replace("|\ufeff".encode(), b""): GROUP,
            b"\\GKV8\n": Group("KV8"),
            b"\\G\n": Group(),
            b"\\GKV8|x|y\n": Group("KV8", "y"),
            b"\\G\xff|x|y\n": Group("\ufffd", "y"),
        }
        for line, group in table.items():
            self.assertEqual(found(line + b"\\TLINE\n\\LA|B\na|b\n"), ([(group, "LINE", ("A", "B"), [b"a|b"])], {}))
        again = GROUP_LINE + b"\\TLINE\n\\LA|B\na|b\n" + GROUP_LINE + b"c|d\n"
        self.assertEqual(found(again), ([(GROUP, "LINE", ("A", "B"), [b"a|b"])], {"labels": 1}))

    def test_table_again(self) -> None:
        """A table may come any number of times, each time with its own labels."""
        message = b"".join(b"\\TT%d\n\\LA|B\na|%d\n\\TLINE\n\\LB|A|C\n%d|b|c\n" % (n, n, n) for n in range(100))
        tables, counts = found(message)
        self.assertEqual([table for _, table, *_ in tables], [t for n in range(100) for t in (f"T{n}", "LINE")])
        self.assertEqual([of for *_, of in tables[::2]], [[b"a|%d" % n] for n in range(100)])
        self.assertEqual([of for *_, of in tables[1::2]], [[b"%d|b|c" % n] for n in range(100)])
        self.assertEqual({labels for _, _, labels, _ in tables}, {("A", "B"), ("B", "A", "C")})
        self.assertFalse(counts)

    def test_labels_again(self) -> None:
        """Labels hold until a table begins, or others are said."""
        message = b"\\TLINE\n\\LA|B\na|b\n\\LA\nc\n\\TLINE\nd|e\n"
        rows = [(Group(), "LINE", ("A", "B"), [b"a|b"]), (Group(), "LINE", ("A",), [b"c"])]
        self.assertEqual(found(message), (rows, {"labels": 1}))

    def test_nothing(self) -> None:
        """A message may be empty, have empty lines, or tables without records."""
        for message in (b"", b"\n", b"\r\n\r\n", GROUP_LINE, GROUP_LINE + b"\\TLINE\n\\LA|B\n\n\r\n"):
            self.assertEqual(found(message), ([], {}), message)

    def test_other_line_ends(self) -> None:
        """Only LF ends a line, with a CR before it or not: other characters that look like ends are text."""
        field = "a\x0b\x0c\x1c\x85\u2028\u2029\ra".encode()
        self.assertEqual(lines(b"\\LA|B\r\n" + field + b"|b\r\n"), [field + b"|b"])

    def test_no_end(self) -> None:
        """The last record needs no end of line."""
        for end in (b"", b"\r", b"\n"):
            self.assertEqual(lines(b"\\LA|B\na|b\nc|d" + end), [b"a|b", b"c|d"])

    def test_refused(self) -> None:
        """A record that cannot be read is counted by kind, and those around it are kept."""
        table = {
            b"a": "columns",
            b"a|b|c": "columns",
            b"\xff|b": "encoding",
            b"a|\xc3": "encoding",
            b"a|\xed\xa0\x80": "encoding",
            b"caf\xe9|b": "encoding",
            b"a|\\": "escape",
            b"\\|b": "escape",
            b"a|\\x": "escape",
            b"a|\\P": "escape",
            b"a|\\\\": "escape",
            b"a|\\ip\\": "escape",
            b"a|x\\0": "escape",
            b"a|\\0x": "escape",
            b"a|\\0\\0": "escape",
            b"a\\0|\\0b": "escape",
            b"\\00|\\0": "escape",
            b"\\i\\0|\\0": "escape",
            b"a|" + b"b" * MAX_LINE_BYTES: "length",
        }
        for record, why in table.items():
            self.assertEqual(refused(record), {why: 1}, record[:20])

    def test_taken(self) -> None:
        """What is strange but sound is taken."""
        for record in (b"|", b"\\0|\\0", b"\\0|", b"|\\0", b"\\p|\\i\\r\\n", b"\\0|\\p", b"\0|\xef\xbb\xbf", b" | "):
            self.assertEqual(refused(record), {}, record)

    def test_length(self) -> None:
        """A line of the limit is taken, one beyond it is not, whether it comes at once or in chunked."""
        for end in (b"\n", b"\r\n"):
            longest = MAX_LINE_BYTES - len(b"a|") - len(end) + 1
            for beyond, counts in ((0, {}), (1, {"length": 1}), (200_000, {"length": 1})):
                message = b"\\LA|B\na|" + b"b" * (longest + beyond) + end + b"c|d\n"
                for size in (len(message), CHUNK_BYTES, 1000, MAX_LINE_BYTES + 9, MAX_LINE_BYTES + 10):
                    cut = [message[at : at + size] for at in range(0, len(message), size)]
                    tables, refused = found(*cut)
                    self.assertEqual(refused, counts, (beyond, size))
                    self.assertEqual(tables[0][3][-1], b"c|d")

    def test_long_control(self) -> None:
        """Records whose labels were too long are not read by others."""
        message = b"\\TLINE\n\\LA|B\na|b\n\\TLINE\n\\LA|" + b"B" * MAX_LINE_BYTES + b"\nc|d\n"
        for chunks in ((message,), tuple(chunked(message))):
            self.assertEqual(found(*chunks), ([(Group(), "LINE", ("A", "B"), [b"a|b"])], {"length": 1, "labels": 1}))

    def test_truncated(self) -> None:
        """Wherever a message is cut off, the records before the cut are read, and at most one is refused."""
        message = feed.passtimes({"JourneyNumber": "1"}, {"MessageContent": "café | \\"}, {"JourneyNumber": "3"})
        whole = lines(message)
        starts = [message.index(line) for line in whole]
        for at in range(0, len(message), 3):
            tables, counts = found(message[:at])
            kept = tables[0][3] if tables else []
            certain = sum(start + len(line) <= at for start, line in zip(starts, whole, strict=True))
            self.assertEqual(kept[:certain], whole[:certain])
            self.assertLessEqual(len(kept) + counts.total(), certain + 1)

    def test_bit_by_bit(self) -> None:
        """What was read is told before the rest of the message is asked for."""
        asked = []

        def chunks() -> Iterator[bytes]:
            for chunk in (b"\\LA|B\na|b\nc|", b"d\n"):
                asked.append(chunk)
                yield chunk

        parts = read(chunks(), self.fail)
        self.assertEqual(next(parts).lines, [b"a|b"])
        self.assertEqual(len(asked), 1)
        self.assertEqual([part.lines for part in parts], [[b"c|d"]])

    def test_many(self) -> None:
        """A large message is cut into chunked that lose nothing."""
        message = b"\\LA|B\n" + b"".join(b"%d|b\n" % n for n in range(50_000))
        cut = list(chunked(message))
        self.assertEqual(b"".join(cut), message)
        self.assertGreater(len(cut), 10)
        self.assertEqual(lines(*cut), [b"%d|b" % n for n in range(50_000)])


class TextTests(SynchronousTestCase):
    """Fields."""

    def test_text(self) -> None:
        """All five escapes are read, in one pass, and null is not the same as empty."""
        table = {
            b"\\0": None,
            b"": "",
            b"0": "0",
            b"\\p": "|",
            b"\\r": "\r",
            b"\\n": "\n",
            b"\\i": "\\",
            b"\\ip": "\\p",
            b"\\i0": "\\0",
            b"\\ii": "\\i",
            b"\\i\\p": "\\|",
            b"a\\pb\\r\\nc": "a|b\r\nc",
            b"caf\xc3\xa9\\i": "café\\",
            b" 2": " 2",
        }
        for field, expected in table.items():
            self.assertEqual(text(field), expected, field)


class WriteTests(SynchronousTestCase):
    """Messages as they are written."""

    def test_form(self) -> None:
        """A message has the form of the feed's: CRLF, U+FEFF as the last field of its group, null as an escape."""
        tables: list[Table] = [("LINE", ["A", "B"], [["1", None], ["a|b\\", "\r\n"]]), ("STOPAREA", ["C"], [])]
        self.assertEqual(
            write("KV7turbo_planning", "openOV LIN", STAMP, tables),
            f"\\GKV7turbo_planning|KV7turbo_planning|openOV LIN|||UTF-8|0.1|{STAMP}|\ufeff\r\n".encode()
            + b"\\TLINE|LINE|start object\r\n\\LA|B\r\n1|\\0\r\na\\pb\\i|\\r\\n\r\n"
            b"\\TSTOPAREA|STOPAREA|start object\r\n\\LC\r\n",
        )


class PropertyTests(SynchronousTestCase):
    """What holds of any values and any bytes."""

    @settings(deadline=None)
    @given(
        st.lists(st.lists(st.none() | st.text() | st.text("\\0prni|\r\n\ufeffé"), min_size=3, max_size=3), max_size=5)
    )
    @example([["\\0", "\\G", "\\T"], ["\\G", None, ""], ["\\", "\\\\", "\\p"], ["\r", "\n", "|"]])
    def test_round_trip(self, rows: list[list[str | None]]) -> None:
        """Whatever values are written are read again."""
        message = write("KV8", "LIN", STAMP, [("LINE", "ABC", rows)])
        read_again = [[text(field) for field in line.split(b"|")] for line in lines(message)]
        self.assertEqual(read_again, rows)

    @settings(deadline=None)
    @given(BYTES, st.lists(st.integers(0, 200), max_size=5))
    @example(b"\\LA|B\r\n\xc3\xa9|\\p\r\n\xff|b\r\n", [7, 8, 9, 10])
    def test_chunks(self, data: bytes, cuts: list[int]) -> None:
        """What is read and refused is the same whatever the chunks are."""
        ends = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
        chunks = [data[a:b] for a, b in pairwise(ends)]
        bytewise = [data[at : at + 1] for at in range(len(data))]
        whole = found(data)
        self.assertEqual(found(*chunks), whole)
        self.assertEqual(found(*bytewise), whole)

    @settings(deadline=None)
    @given(BYTES)
    @example(b"\\LA|B\n\xff|\xff\\0\n\\0|\\0\n")
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes are read: a record is kept, with a readable field for each label, or it is counted once."""
        for chunks in ([data], [b"\\TLINE\n\\LA|B\n" + data]):
            tables, counts = found(*chunks)
            records = [line.removesuffix(b"\r") for line in b"".join(chunks).split(b"\n")]
            controls = sum(line[:2] in (b"\\G", b"\\T", b"\\L") for line in records)
            kept = sum(len(of) for *_, of in tables)
            self.assertEqual(kept + counts.total() + controls + records.count(b""), len(records))
            for _, _, labels, of in tables:
                for line in of:
                    fields = [text(field) for field in line.split(b"|")]
                    self.assertEqual(len(fields), len(labels))
