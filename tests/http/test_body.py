"""Request bodies: framing, limits, and independence of how the bytes are divided."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.body import ChunkedBody, LengthBody, body_reader
from govi_server.http.request import CHUNKED, RequestError

LIMIT = 100

BAD = "400 Bad Request"
TOO_LARGE = "413 Content Too Large"

Outcome = tuple[bytes, bytes | None] | str
"""The body and the bytes after it, None if the body is incomplete; or the status of its rejection."""

# Parts of valid and invalid chunked bodies.
FRAGMENTS = (
    b"\r\n",
    b"\r",
    b"\n",
    b"0\r\n\r\n",
    b"0",
    b"1",
    b"1\r\nx",
    b"A",
    b"g",
    b";",
    b" ",
    b"a:b",
    b"\0",
    b"\xff",
)


chunked = partial(ChunkedBody, LIMIT)


def feed(make_reader: Callable[[], LengthBody | ChunkedBody], pieces: Iterable[bytes]) -> Outcome:
    """Feed a new reader until its body is complete; return the outcome."""
    remaining = iter(pieces)
    try:
        body = make_reader()
        for piece in remaining:
            rest = body.feed(piece)
            if rest is not None:
                return body.body, rest + b"".join(remaining)
    except RequestError as error:
        return error.status
    return body.body, None


def reason(pieces: Iterable[bytes]) -> str:
    """Feed a new reader of chunks; return the reason of its rejection, "" for none."""
    body = chunked()
    try:
        any(body.feed(piece) is not None for piece in pieces)
    except RequestError as error:
        return str(error)
    return ""


def single_bytes(data: bytes) -> list[bytes]:
    """Divide data into single bytes."""
    return [data[at : at + 1] for at in range(len(data))]


def divisions(data: bytes) -> Iterator[list[bytes]]:
    """Yield divisions of data: none, into single bytes, and in two at every index."""
    yield [data]
    yield single_bytes(data)
    for at in range(len(data) + 1):
        yield [data[:at], data[at:]]


def divide(data: bytes, indices: Iterable[int]) -> list[bytes]:
    """Divide data at these indices, except those beyond its end."""
    edges = [0, *sorted({index for index in indices if index < len(data)}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def outcomes(make_reader: Callable[[], LengthBody | ChunkedBody], data: bytes) -> set[Outcome]:
    """Return the outcomes of data over all its divisions."""
    return {feed(make_reader, pieces) for pieces in divisions(data)}


class LengthBodyTests(SynchronousTestCase):
    """Bodies with a known length."""

    def test_body_ends_at_its_length(self) -> None:
        """A body ends at its length, and the bytes after it are returned."""
        table: dict[tuple[int, bytes], Outcome] = {
            (5, b"hello"): (b"hello", b""),
            (5, b"helloGET /"): (b"hello", b"GET /"),
            (5, b"hell"): (b"hell", None),
            (5, b""): (b"", None),
            (5, b"\r\n\0\xff\r\n"): (b"\r\n\0\xff\r", b"\n"),
            (LIMIT, b"x" * LIMIT): (b"x" * LIMIT, b""),
        }
        for (length, data), expected in table.items():
            self.assertEqual(outcomes(partial(LengthBody, length, LIMIT), data), {expected}, data)

    def test_empty_body_is_complete(self) -> None:
        """An empty body is complete with the first bytes, and consumes none of them."""
        self.assertEqual(feed(partial(LengthBody, 0, LIMIT), [b"GET"]), (b"", b"GET"))

    def test_oversized_body_is_rejected(self) -> None:
        """A body over the limit is rejected before any of it is received."""
        self.assertEqual(self.assertRaises(RequestError, LengthBody, LIMIT + 1, LIMIT).status, TOO_LARGE)


class ChunkedBodyTests(SynchronousTestCase):
    """Bodies in chunks."""

    def assertOutcomes(self, table: dict[bytes, Outcome]) -> None:
        """Assert the outcome of each body, for any division."""
        self.assertEqual({data: outcomes(chunked, data) for data in table}, {d: {o} for d, o in table.items()})

    def test_line_limit_holds_for_any_division(self) -> None:
        """The limit of a framing line does not depend on how its bytes are divided."""
        for size, is_rejected in ((4096, False), (4097, True)):
            for data in (
                b"1;" + b"x" * (size - 2) + b"\r\na\r\n0\r\n\r\n",
                b"1\r\na\r\n0\r\nX:" + b"x" * (size - 2) + b"\r\n\r\n",
            ):
                for cut in (1, size - 1, size, size + 1, size + 8, len(data) - 1):
                    reader = ChunkedBody(100)
                    try:
                        rest = [reader.feed(data[:cut]), reader.feed(data[cut:])]
                    except RequestError:
                        self.assertTrue(is_rejected, (size, cut))
                    else:
                        self.assertEqual((rest[-1], reader.body, is_rejected), (b"", b"a", False), (size, cut))

    def test_incomplete_line_is_held(self) -> None:
        """The bytes that are held include those of an incomplete line, also of a body that is discarded."""
        for is_discarded, size in ((False, 2), (True, 0)):
            reader = ChunkedBody(100, is_discarded)
            reader.feed(b"2\r\nab\r\n1;x")
            self.assertEqual(reader.size, size + len(b"1;x"))

    def test_extensions_are_bounded(self) -> None:
        """Chunk extensions are bounded in total, not only per chunk."""
        chunk = b"1;" + b"x" * 1000 + b"\r\na\r\n"
        self.assertRaises(RequestError, ChunkedBody(1000).feed, chunk * 40)

    def test_chunks_are_joined(self) -> None:
        """The body is the content of the chunks, and the bytes after it are returned."""
        self.assertOutcomes(
            {
                b"0\r\n\r\n": (b"", b""),
                b"5\r\nhello\r\n0\r\n\r\n": (b"hello", b""),
                b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n": (b"hello!", b""),
                b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n": (b"hello", b"GET / HTTP/1.1\r\n"),
                b"5\r\n\r\n0\r\n\r\n0\r\n\r\n": (b"\r\n0\r\n", b""),
                b"1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n": (b"\r\n", b""),
                b"a\r\n0123456789\r\n0\r\n\r\n": (b"0123456789", b""),
                b"A\r\n0123456789\r\n0\r\n\r\n": (b"0123456789", b""),
                b"00000001\r\nx\r\n00000000\r\n\r\n": (b"x", b""),
            }
        )

    def test_body_without_its_end_is_incomplete(self) -> None:
        """A body is incomplete up to its last byte."""
        data = b"5\r\nhello\r\n0\r\na: b\r\n\r\n"
        for end in range(len(data)):
            self.assertEqual(outcomes(chunked, data[:end]), {(b"hello"[: max(end - 3, 0)], None)}, data[:end])

    def test_extensions_and_trailers_are_ignored(self) -> None:
        """Chunk extensions and trailer fields are ignored."""
        self.assertOutcomes(
            {
                b"1;a\r\nx\r\n0;b=c\r\n\r\n": (b"x", b""),
                b"1 \t; a = b;c\r\nx\r\n0\r\n\r\n": (b"x", b""),
                b'1;a="b;c\xff"\r\nx\r\n0\r\n\r\n': (b"x", b""),
                b"0\r\na: b\r\n\r\nGET": (b"", b"GET"),
                b"1\r\nx\r\n0\r\na: b\r\nc:\r\nd:\t\xff\r\n\r\n": (b"x", b""),
                b"0\r\nContent-Length: 3\r\n\r\nGET": (b"", b"GET"),
            }
        )

    def test_invalid_size_is_rejected(self) -> None:
        """A size consists of ASCII hexadecimal digits; int() accepts more."""
        sizes = (
            *(b"", b" ", b"x", b"-1", b"+1", b" 1", b"1 ", b"0x1", b"1_0", b"1.0", b"1,1", b"\xb2", b"\xa01", b"1\0"),
            *(b"1 1", b"1 a", b"1\t", b"1\r", b"1;\0", b"1;\r", b"1;\x7f", "\u0661".encode()),
        )
        self.assertOutcomes(dict.fromkeys((size + b"\r\nx\r\n0\r\n\r\n" for size in sizes), BAD))

    def test_invalid_framing_is_rejected(self) -> None:
        """Lines end in CRLF, and a chunk is as long as its size."""
        self.assertOutcomes(
            dict.fromkeys(
                (
                    b"1\nx\r\n0\r\n\r\n",
                    b"1\r\nx\n0\r\n\r\n",
                    b"1\r\nx0\r\n\r\n",
                    b"1\r\nxy\r\n0\r\n\r\n",
                    b"1\r\nxyz0\r\n\r\n",
                    b"1\r\nx\n\r0\r\n\r\n",
                    b"1\r\nx\r\r0\r\n\r\n",
                    b"2\r\nx\r\n0\r\n\r\n",
                    b"1\r\nx\r\r\n0\r\n\r\n",
                    b"1\r\nx\r\n0\n\r\n",
                    b"1;a\n2\r\nx\r\n0\r\n\r\n",
                    b"1\r\nx\r\n\r\n0\r\n\r\n",
                ),
                BAD,
            )
        )

    def test_invalid_trailer_is_rejected(self) -> None:
        """A trailer line is a field line."""
        lines = (
            b"a",
            b"a b",
            b"a : b",
            b" a: b",
            b": b",
            b"a: \0",
            b"a: b\rc",
            b"a: b\nc: d",
            b"a: b\n",
            b"\n",
            b"\r",
        )
        self.assertOutcomes(dict.fromkeys((b"0\r\n" + line + b"\r\n\r\n" for line in lines), BAD))

    def test_oversized_chunks_are_rejected(self) -> None:
        """The limit applies to all chunks together; the size line that exceeds it is rejected."""
        self.assertOutcomes(
            {
                b"64\r\n" + b"x" * LIMIT + b"\r\n0\r\n\r\n": (b"x" * LIMIT, b""),
                b"63\r\n" + b"x" * 99 + b"\r\n1\r\nx\r\n0\r\n\r\n": (b"x" * LIMIT, b""),
                b"65\r\n": TOO_LARGE,
                b"ffffffff\r\n": TOO_LARGE,
                b"64\r\n" + b"x" * LIMIT + b"\r\n1\r\n": TOO_LARGE,
            }
        )

    def test_long_line_is_rejected(self) -> None:
        """A framing line over its limit is rejected, with or without a line end."""
        for data in (b"1;" + b"a" * 5000, b"1;" + b"a" * 5000 + b"\r\nx\r\n0\r\n\r\n", b"0" * 5000):
            for pieces in ([data], single_bytes(data)):
                self.assertEqual(feed(chunked, pieces), BAD)

    def test_many_trailers_are_rejected(self) -> None:
        """Trailers are ignored up to a limit on their total size."""
        trailer = b"a: " + b"b" * 3997
        table: dict[int, Outcome] = {7: (b"", b""), 9: BAD, 20: BAD}
        for count, expected in table.items():
            data = b"0\r\n" + (trailer + b"\r\n") * count + b"\r\n"
            for pieces in ([data], single_bytes(data)):
                self.assertEqual(feed(chunked, pieces), expected, count)


class ReaderTests(SynchronousTestCase):
    """body_reader()."""

    def test_reader_of_each_framing(self) -> None:
        """A length and CHUNKED each have their reader, with the limit."""
        self.assertEqual(feed(partial(body_reader, 2, LIMIT), [b"abc"]), (b"ab", b"c"))
        self.assertEqual(feed(partial(body_reader, CHUNKED, LIMIT), [b"1\r\na\r\n0\r\n\r\nc"]), (b"a", b"c"))
        self.assertEqual(feed(partial(body_reader, 2, 1), [b"abc"]), TOO_LARGE)
        self.assertEqual(feed(partial(body_reader, CHUNKED, 1), [b"2\r\n"]), TOO_LARGE)


class AnyBodyTests(SynchronousTestCase):
    """Properties of every body."""

    @settings(max_examples=200, deadline=None)
    @given(body=st.binary(), rest=st.binary(), indices=st.lists(st.integers(1, 300)))
    def test_any_body_with_a_length(self, body: bytes, rest: bytes, indices: list[int]) -> None:
        """A body and the bytes after it are received unchanged, in any pieces."""
        pieces = divide(body + rest, indices)
        self.assertEqual(feed(partial(LengthBody, len(body), len(body)), pieces), (body, rest))

    @settings(max_examples=200, deadline=None)
    @given(
        chunks=st.lists(st.binary(min_size=1)),
        size_format=st.sampled_from(("%x", "%X", "%08x", "%X;a=b", "%x ;c")),
        trailers=st.lists(st.sampled_from((b"a: b", b"c:", b"d:\xff"))),
        rest=st.binary(),
        indices=st.lists(st.integers(1, 500)),
    )
    def test_any_chunked_body(
        self, chunks: list[bytes], size_format: str, trailers: list[bytes], rest: bytes, indices: list[int]
    ) -> None:
        """A body in any chunks and the bytes after it are received unchanged, in any pieces."""
        body = b"".join(chunks)
        lines = [line for chunk in chunks for line in ((size_format % len(chunk)).encode(), chunk)]
        data = b"\r\n".join([*lines, b"0", *trailers, b"", rest])
        for pieces in ([data], divide(data, indices), single_bytes(data)):
            self.assertEqual(feed(partial(ChunkedBody, len(body)), pieces), (body, rest))

    @settings(max_examples=200, deadline=None)
    @given(st.binary() | st.lists(st.sampled_from(FRAGMENTS)).map(b"".join), st.lists(st.integers(1, 60)))
    @example(b"\n", [])
    @example(b"\n\r\n", [])
    def test_any_bytes_have_one_outcome(self, data: bytes, indices: list[int]) -> None:
        """Any bytes are a complete body, an incomplete one, or rejected for one reason, however they are divided."""
        outcome = feed(chunked, [data])
        self.assertEqual(feed(chunked, divide(data, indices)), outcome)
        self.assertEqual(feed(chunked, single_bytes(data)), outcome)
        self.assertEqual(
            {reason(pieces) for pieces in ([data], divide(data, indices), single_bytes(data))}, {reason([data])}
        )
        self.assertTrue(outcome in (BAD, TOO_LARGE) or isinstance(outcome, tuple), outcome)
