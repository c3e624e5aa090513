"""Tests of kv78turbo.ctx: parsing chunks of any size, rejecting records, and formatting."""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby, pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.kv78turbo.ctx import CHUNK_BYTES, MAX_LINE_BYTES, Group, Table, chunked, read, text, texts, write
from tests import feed

STAMP = "2026-01-01T00:59:50+01:00"
GROUP = Group("KV8turbo_passtimes", "openOV LIN", STAMP)
GROUP_LINE = f"\\GKV8turbo_passtimes|KV8turbo_passtimes|openOV LIN|||UTF-8|0.1|{STAMP}|\ufeff\n".encode()

# Fragments of valid and invalid messages.
FRAGMENTS = (
    *(b"\\G", b"\\T", b"\\L", b"A|B\n", b"\\LA|B\n", b"\\TLINE|LINE|start object\n", b"a|b\n", b"|", b"\n", b"\r\n"),
    *(b"\r", b"\\0", b"\\p", b"\\r", b"\\n", b"\\i", b"\\", b"\xff", b"\xc3\xa9", b"\xef\xbb\xbf", b"\0", b"a"),
)
BYTES = st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(FRAGMENTS), max_size=40).map(b"".join))

Tables = list[tuple[Group, str, tuple[str, ...], list[bytes]]]


def parse(*chunks: bytes) -> tuple[Tables, Counter[str]]:
    """Parse chunks; return consecutive records of a table together, and the counts of rejected ones."""
    rejected: list[str] = []
    parts = [records for records in read(chunks, rejected.append) if records.lines]
    joined = groupby(parts, lambda records: records[:3])
    return [(*table, [line for part in group for line in part.lines]) for table, group in joined], Counter(rejected)


def lines(*chunks: bytes) -> list[bytes]:
    """Return the records of valid chunks."""
    tables, rejected = parse(*chunks)
    assert not rejected, rejected
    return [line for *_, records in tables for line in records]


def rejected(record: bytes) -> Counter[str]:
    """Parse a record of a table of two columns between two valid records; return the counts of rejected ones."""
    tables, counts = parse(b"\\TLINE|LINE|start object\n\\LA|B\na|b\n" + record + b"\nc|d\n")
    (*_, records), *_ = tables
    assert (records[0], records[-1]) == (b"a|b", b"c|d")
    assert len(records) == 3 - counts["columns"] - counts["length"]
    return counts


def repaired(record: bytes) -> bytes:
    """Parse a record of a table of two columns that has invalid fields; return what is left of it."""
    ((*_, (line,)),), counts = parse(b"\\LA|B\n" + record)
    assert counts.total() == 1, counts
    return line


class ReadTests(SynchronousTestCase):
    """Parsing messages."""

    def test_tables_of_all_sizes(self) -> None:
        """Records of 35, 49 and 65 columns are parsed by label, with LF and CRLF, and with their group."""
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

    def test_groups(self) -> None:
        """Fields of a group are optional; a new group begins without a table."""
        table = {
            GROUP_LINE: GROUP,
            GROUP_LINE.replace("|\ufeff".encode(), b""): GROUP,
            b"\\GKV8\n": Group("KV8"),
            b"\\G\n": Group(),
            b"\\GKV8|x|y\n": Group("KV8", "y"),
            b"\\G\xff|x|y\n": Group("\ufffd", "y"),
        }
        for line, group in table.items():
            self.assertEqual(parse(line + b"\\TLINE\n\\LA|B\na|b\n"), ([(group, "LINE", ("A", "B"), [b"a|b"])], {}))
        again = GROUP_LINE + b"\\TLINE\n\\LA|B\na|b\n" + GROUP_LINE + b"c|d\n"
        self.assertEqual(parse(again), ([(GROUP, "LINE", ("A", "B"), [b"a|b"])], {"labels": 1}))

    def test_repeated_tables(self) -> None:
        """A table may occur any number of times, each time with its own labels."""
        message = b"".join(b"\\TT%d\n\\LA|B\na|%d\n\\TLINE\n\\LB|A|C\n%d|b|c\n" % (n, n, n) for n in range(100))
        tables, counts = parse(message)
        self.assertEqual([table for _, table, *_ in tables], [t for n in range(100) for t in (f"T{n}", "LINE")])
        self.assertEqual([records for *_, records in tables[::2]], [[b"a|%d" % n] for n in range(100)])
        self.assertEqual([records for *_, records in tables[1::2]], [[b"%d|b|c" % n] for n in range(100)])
        self.assertEqual({labels for _, _, labels, _ in tables}, {("A", "B"), ("B", "A", "C")})
        self.assertFalse(counts)

    def test_labels_end_with_the_table(self) -> None:
        """Labels are valid until the next table or labels."""
        message = b"\\TLINE\n\\LA|B\na|b\n\\LA\nc\n\\TLINE\nd|e\n"
        rows = [(Group(), "LINE", ("A", "B"), [b"a|b"]), (Group(), "LINE", ("A",), [b"c"])]
        self.assertEqual(parse(message), (rows, {"labels": 1}))

    def test_messages_without_records(self) -> None:
        """A message may be empty, have empty lines, or tables without records."""
        for message in (b"", b"\n", b"\r\n\r\n", GROUP_LINE, GROUP_LINE + b"\\TLINE\n\\LA|B\n\n\r\n"):
            self.assertEqual(parse(message), ([], {}), message)

    def test_other_line_ends(self) -> None:
        """Only LF and CRLF end a line: other line separators are text."""
        field = "a\x0b\x0c\x1c\x85\u2028\u2029\ra".encode()
        self.assertEqual(lines(b"\\LA|B\r\n" + field + b"|b\r\n"), [field + b"|b"])

    def test_last_line_without_end(self) -> None:
        """The last record needs no line end."""
        for end in (b"", b"\r", b"\n"):
            self.assertEqual(lines(b"\\LA|B\na|b\nc|d" + end), [b"a|b", b"c|d"])

    def test_invalid_records_are_rejected(self) -> None:
        """An invalid record is counted by kind; the records around it are parsed."""
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
        for record, kind in table.items():
            self.assertEqual(rejected(record), {kind: 1}, record[:20])

    def test_invalid_fields_are_null(self) -> None:
        """A field that is not UTF-8 or has an unknown escape is null; the other fields of its record stay."""
        invalid = (b"\xff", b"caf\xe9", b"\xed\xa0\x80", b"\\", b"\\x", b"\\P", b"\\\\", b"x\\0", b"\\0x", b"\\00")
        for field in invalid:
            for other in (b"b", b"", b"\\0", b"\\p\\i", "\u00e9".encode()):
                self.assertEqual(repaired(other + b"|" + field), other + b"|\\0")
                self.assertEqual(repaired(field + b"|" + other), b"\\0|" + other)
            self.assertEqual(repaired(field + b"|" + field), b"\\0|\\0")

    def test_unusual_records_are_valid(self) -> None:
        """Empty fields, escapes and control characters are valid."""
        for record in (b"|", b"\\0|\\0", b"\\0|", b"|\\0", b"\\p|\\i\\r\\n", b"\\0|\\p", b"\0|\xef\xbb\xbf", b" | "):
            self.assertEqual(rejected(record), {}, record)

    def test_line_length_is_limited(self) -> None:
        """A line up to the limit is parsed, and a longer one rejected, regardless of chunks."""
        for end in (b"\n", b"\r\n"):
            longest = MAX_LINE_BYTES - len(b"a|") - len(end) + 1
            for beyond, counts in ((0, {}), (1, {"length": 1}), (200_000, {"length": 1})):
                message = b"\\LA|B\na|" + b"b" * (longest + beyond) + end + b"c|d\n"
                for size in (len(message), CHUNK_BYTES, 1000, MAX_LINE_BYTES + 9, MAX_LINE_BYTES + 10):
                    cut = [message[at : at + size] for at in range(0, len(message), size)]
                    tables, rejected = parse(*cut)
                    self.assertEqual(rejected, counts, (beyond, size))
                    self.assertEqual(tables[0][3][-1], b"c|d")

    def test_long_labels(self) -> None:
        """Records after a too long line of labels are rejected, and not parsed with earlier labels."""
        message = b"\\TLINE\n\\LA|B\na|b\n\\TLINE\n\\LA|" + b"B" * MAX_LINE_BYTES + b"\nc|d\n"
        for chunks in ((message,), tuple(chunked(message))):
            self.assertEqual(parse(*chunks), ([(Group(), "LINE", ("A", "B"), [b"a|b"])], {"length": 1, "labels": 1}))

    def test_truncated_message(self) -> None:
        """The records before the end of a truncated message are parsed, and at most one more."""
        message = feed.passtimes({"JourneyNumber": "1"}, {"MessageContent": "café | \\"}, {"JourneyNumber": "3"})
        all_records = lines(message)
        starts = [message.index(line) for line in all_records]
        for at in range(0, len(message), 3):
            tables, counts = parse(message[:at])
            parsed = tables[0][3] if tables else []
            n_complete = sum(start + len(line) <= at for start, line in zip(starts, all_records, strict=True))
            self.assertEqual(parsed[:n_complete], all_records[:n_complete])
            self.assertLessEqual(len(parsed) + counts["columns"], n_complete + 1)

    def test_records_of_a_chunk_before_the_next(self) -> None:
        """The records of a chunk are yielded before the next chunk is read."""
        chunks_read = []

        def chunks() -> Iterator[bytes]:
            for chunk in (b"\\LA|B\na|b\nc|", b"d\n"):
                chunks_read.append(chunk)
                yield chunk

        parts = read(chunks(), self.fail)
        self.assertEqual(next(parts).lines, [b"a|b"])
        self.assertEqual(len(chunks_read), 1)
        self.assertEqual([part.lines for part in parts], [[b"c|d"]])

    def test_chunked_message(self) -> None:
        """A large message is split into chunks without loss."""
        message = b"\\LA|B\n" + b"".join(b"%d|b\n" % n for n in range(50_000))
        cut = list(chunked(message))
        self.assertEqual(b"".join(cut), message)
        self.assertGreater(len(cut), 10)
        self.assertEqual(lines(*cut), [b"%d|b" % n for n in range(50_000)])


class TextTests(SynchronousTestCase):
    """Decoding fields."""

    def test_escapes_and_null(self) -> None:
        """All five escapes are decoded in one pass; null is not an empty text."""
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
    """Formatting messages."""

    def test_form_of_the_feed(self) -> None:
        """A message has CRLF, U+FEFF as the last field of its group, and null as an escape, as in the feed."""
        tables: list[Table] = [("LINE", ["A", "B"], [["1", None], ["a|b\\", "\r\n"]]), ("STOPAREA", ["C"], [])]
        self.assertEqual(
            write("KV7turbo_planning", "openOV LIN", STAMP, tables),
            f"\\GKV7turbo_planning|KV7turbo_planning|openOV LIN|||UTF-8|0.1|{STAMP}|\ufeff\r\n".encode()
            + b"\\TLINE|LINE|start object\r\n\\LA|B\r\n1|\\0\r\na\\pb\\i|\\r\\n\r\n"
            b"\\TSTOPAREA|STOPAREA|start object\r\n\\LC\r\n",
        )


class PropertyTests(SynchronousTestCase):
    """Properties of any values and any bytes."""

    @settings(deadline=None)
    @given(
        st.lists(st.lists(st.none() | st.text() | st.text("\\0prni|\r\n\ufeffé"), min_size=3, max_size=3), max_size=5)
    )
    @example([["\\0", "\\G", "\\T"], ["\\G", None, ""], ["\\", "\\\\", "\\p"], ["\r", "\n", "|"]])
    def test_round_trip(self, rows: list[list[str | None]]) -> None:
        """Any values that are written are parsed again."""
        message = write("KV8", "LIN", STAMP, [("LINE", "ABC", rows)])
        parsed = [[text(field) for field in line.split(b"|")] for line in lines(message)]
        self.assertEqual(parsed, rows)
        self.assertEqual([texts(line) for line in lines(message)], rows)

    @settings(deadline=None)
    @given(BYTES, st.lists(st.integers(0, 200), max_size=5))
    @example(b"\\LA|B\r\n\xc3\xa9|\\p\r\n\xff|b\r\n", [7, 8, 9, 10])
    def test_result_is_independent_of_chunks(self, data: bytes, cuts: list[int]) -> None:
        """Parsed and rejected records do not depend on the chunks."""
        ends = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
        chunks = [data[a:b] for a, b in pairwise(ends)]
        bytewise = [data[at : at + 1] for at in range(len(data))]
        records = parse(data)
        self.assertEqual(parse(*chunks), records)
        self.assertEqual(parse(*bytewise), records)

    @settings(deadline=None)
    @given(BYTES)
    @example(b"\\LA|B\n\xff|\xff\\0\n\\0|\\0\n")
    def test_any_bytes_are_parsed_or_rejected(self, data: bytes) -> None:
        """Each record of any bytes has a valid field for each label, or is rejected once; fields may be null."""
        for chunks in ([data], [b"\\TLINE\n\\LA|B\n" + data]):
            tables, counts = parse(*chunks)
            records = [line.removesuffix(b"\r") for line in b"".join(chunks).split(b"\n")]
            controls = sum(line[:2] in (b"\\G", b"\\T", b"\\L") for line in records)
            n_parsed = sum(len(rows) for *_, rows in tables)
            n_rejected = counts.total() - counts["encoding"] - counts["escape"]
            self.assertEqual(n_parsed + n_rejected + controls + records.count(b""), len(records))
            for _, _, labels, rows in tables:
                for line in rows:
                    fields = [text(field) for field in line.split(b"|")]
                    self.assertEqual(len(fields), len(labels))
