"""The body of a request: the same however it is cut, and within its limit."""

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
"""The body and what follows it, None where the body is not whole yet; or the status of a refusal."""

# What a chunked body is made of, and what breaks one.
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


def fed(make: Callable[[], LengthBody | ChunkedBody], pieces: Iterable[bytes]) -> Outcome:
    """Feed a reader until its body is whole."""
    remaining = iter(pieces)
    try:
        body = make()
        for piece in remaining:
            rest = body.feed(piece)
            if rest is not None:
                return body.body, rest + b"".join(remaining)
    except RequestError as error:
        return error.status
    return body.body, None


def one_by_one(data: bytes) -> list[bytes]:
    """Cut into single bytes."""
    return [data[at : at + 1] for at in range(len(data))]


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Cut in many ways: not at all, into single bytes, and in two at every place."""
    yield [data]
    yield one_by_one(data)
    for at in range(len(data) + 1):
        yield [data[:at], data[at:]]


def cut_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut at these places, those that data has."""
    edges = [0, *sorted({place for place in places if place < len(data)}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def outcomes(make: Callable[[], LengthBody | ChunkedBody], data: bytes) -> set[Outcome]:
    """Collect what comes of data over all its cuts."""
    return {fed(make, pieces) for pieces in cuts(data)}


class LengthBodyTests(SynchronousTestCase):
    """A body of a length that was told."""

    def test_bodies(self) -> None:
        """The body is what was told of it, and the bytes after it are given back."""
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

    def test_empty(self) -> None:
        """A body of no bytes is whole at the first feeding, and takes nothing."""
        self.assertEqual(fed(partial(LengthBody, 0, LIMIT), [b"GET"]), (b"", b"GET"))

    def test_limit(self) -> None:
        """A body that will be too large is refused before any of it is read."""
        self.assertEqual(self.assertRaises(RequestError, LengthBody, LIMIT + 1, LIMIT).status, TOO_LARGE)


class ChunkedBodyTests(SynchronousTestCase):
    """A body in chunks."""

    def assertOutcomes(self, table: dict[bytes, Outcome]) -> None:
        """Check what comes of each body, however it is cut."""
        self.assertEqual({data: outcomes(chunked, data) for data in table}, {d: {o} for d, o in table.items()})

    def test_line_limit(self) -> None:
        """Whether a line is too long does not depend on how it is cut."""
        for size, refused in ((4096, False), (4097, True)):
            for data in (
                b"1;" + b"x" * (size - 2) + b"\r\na\r\n0\r\n\r\n",
                b"1\r\na\r\n0\r\nX:" + b"x" * (size - 2) + b"\r\n\r\n",
            ):
                for cut in (1, size - 1, size, size + 1, size + 8, len(data) - 1):
                    reader = ChunkedBody(100)
                    try:
                        rest = [reader.feed(data[:cut]), reader.feed(data[cut:])]
                    except RequestError:
                        self.assertTrue(refused, (size, cut))
                    else:
                        self.assertEqual((rest[-1], reader.body, refused), (b"", b"a", False), (size, cut))

    def test_extensions_without_end(self) -> None:
        """Extensions and trailers are bounded in all, not only each of them."""
        chunk = b"1;" + b"x" * 1000 + b"\r\na\r\n"
        self.assertRaises(RequestError, ChunkedBody(1000).feed, chunk * 40)

    def test_bodies(self) -> None:
        """The body is what is in the chunks, and the bytes after it are given back."""
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

    def test_not_whole(self) -> None:
        """A body that stops on its way is waited for."""
        whole = b"5\r\nhello\r\n0\r\na: b\r\n\r\n"
        for end in range(len(whole)):
            self.assertEqual(outcomes(chunked, whole[:end]), {(b"hello"[: max(end - 3, 0)], None)}, whole[:end])

    def test_extensions_and_trailers(self) -> None:
        """Chunk extensions and trailer fields are read over."""
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

    def test_broken_sizes(self) -> None:
        """A size is hexadecimal digits of ASCII, and int() is no judge of that."""
        sizes = (
            *(b"", b" ", b"x", b"-1", b"+1", b" 1", b"1 ", b"0x1", b"1_0", b"1.0", b"1,1", b"\xb2", b"\xa01", b"1\0"),
            *(b"1 1", b"1 a", b"1\t", b"1\r", b"1;\0", b"1;\r", b"1;\x7f", "\u0661".encode()),
        )
        self.assertOutcomes(dict.fromkeys((size + b"\r\nx\r\n0\r\n\r\n" for size in sizes), BAD))

    def test_broken_framing(self) -> None:
        """Lines end in CRLF, and a chunk is as long as it says."""
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

    def test_broken_trailers(self) -> None:
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

    def test_limit(self) -> None:
        """The chunks together may have as many bytes as the limit; one more is refused when it is announced."""
        self.assertOutcomes(
            {
                b"64\r\n" + b"x" * LIMIT + b"\r\n0\r\n\r\n": (b"x" * LIMIT, b""),
                b"63\r\n" + b"x" * 99 + b"\r\n1\r\nx\r\n0\r\n\r\n": (b"x" * LIMIT, b""),
                b"65\r\n": TOO_LARGE,
                b"ffffffff\r\n": TOO_LARGE,
                b"64\r\n" + b"x" * LIMIT + b"\r\n1\r\n": TOO_LARGE,
            }
        )

    def test_long_lines(self) -> None:
        """A line of the framing has its limit too, with an end or without."""
        for data in (b"1;" + b"a" * 5000, b"1;" + b"a" * 5000 + b"\r\nx\r\n0\r\n\r\n", b"0" * 5000):
            for pieces in ([data], one_by_one(data)):
                self.assertEqual(fed(chunked, pieces), BAD)

    def test_many_trailers(self) -> None:
        """Trailers are read over up to a limit for all of them."""
        trailer = b"a: " + b"b" * 3997
        table: dict[int, Outcome] = {7: (b"", b""), 9: BAD, 20: BAD}
        for count, expected in table.items():
            data = b"0\r\n" + (trailer + b"\r\n") * count + b"\r\n"
            for pieces in ([data], one_by_one(data)):
                self.assertEqual(fed(chunked, pieces), expected, count)


class ReaderTests(SynchronousTestCase):
    """The choice of a reader."""

    def test_reader(self) -> None:
        """A length gets the reader of lengths, chunks get that of chunks, each with the limit."""
        self.assertEqual(fed(partial(body_reader, 2, LIMIT), [b"abc"]), (b"ab", b"c"))
        self.assertEqual(fed(partial(body_reader, CHUNKED, LIMIT), [b"1\r\na\r\n0\r\n\r\nc"]), (b"a", b"c"))
        self.assertEqual(fed(partial(body_reader, 2, 1), [b"abc"]), TOO_LARGE)
        self.assertEqual(fed(partial(body_reader, CHUNKED, 1), [b"2\r\n"]), TOO_LARGE)


class AnyBodyTests(SynchronousTestCase):
    """What holds of every body."""

    @settings(max_examples=200, deadline=None)
    @given(body=st.binary(), rest=st.binary(), places=st.lists(st.integers(1, 300)))
    def test_length_body(self, body: bytes, rest: bytes, places: list[int]) -> None:
        """A body comes out as it went in, in whatever pieces, and so does what follows."""
        pieces = cut_at(body + rest, places)
        self.assertEqual(fed(partial(LengthBody, len(body), len(body)), pieces), (body, rest))

    @settings(max_examples=200, deadline=None)
    @given(
        chunks=st.lists(st.binary(min_size=1)),
        size_format=st.sampled_from(("%x", "%X", "%08x", "%X;a=b", "%x ;c")),
        trailers=st.lists(st.sampled_from((b"a: b", b"c:", b"d:\xff"))),
        rest=st.binary(),
        places=st.lists(st.integers(1, 500)),
    )
    def test_chunked_body(
        self, chunks: list[bytes], size_format: str, trailers: list[bytes], rest: bytes, places: list[int]
    ) -> None:
        """A body in whatever chunks comes out as it went in, in whatever pieces, and so does what follows."""
        body = b"".join(chunks)
        lines = [line for chunk in chunks for line in ((size_format % len(chunk)).encode(), chunk)]
        data = b"\r\n".join([*lines, b"0", *trailers, b"", rest])
        for pieces in ([data], cut_at(data, places), one_by_one(data)):
            self.assertEqual(fed(partial(ChunkedBody, len(body)), pieces), (body, rest))

    @settings(max_examples=200, deadline=None)
    @given(st.binary() | st.lists(st.sampled_from(FRAGMENTS)).map(b"".join), st.lists(st.integers(1, 60)))
    @example(b"\n", [])
    def test_any_bytes(self, data: bytes, places: list[int]) -> None:
        """Any bytes are a chunked body, the begin of one, or are refused; the cuts make no difference."""
        outcome = fed(chunked, [data])
        self.assertEqual(fed(chunked, cut_at(data, places)), outcome)
        self.assertEqual(fed(chunked, one_by_one(data)), outcome)
        self.assertTrue(outcome in (BAD, TOO_LARGE) or isinstance(outcome, tuple), outcome)
