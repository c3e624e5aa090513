"""Tests of govi_server.statistics.log_lines."""

import itertools
from typing import get_args
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.statistics import log_lines
from govi_server.statistics.log_lines import Phases, parse_line, split_lines
from govi_server.statistics.records import Phase
from tests.statistics.logs import line


class ParseLineTests(SynchronousTestCase):
    """Parsing a line."""

    def test_phases_are_those_of_the_server(self) -> None:
        """The phases of a line are those that the server records."""
        self.assertEqual(Phases.__struct_fields__, get_args(Phase))

    def test_invalid_lines_are_none(self) -> None:
        """Truncated lines, lines of other programs and impossible values are invalid."""
        valid = line()
        self.assertIsNotNone(parse_line(valid))
        for invalid in (
            valid[:-10],
            b"\x00\xff",
            b"2026-11-22T17:29:05+0000 [-] hello",
            b"{}",
            b"[]",
            b"null",
            valid.replace(b'"client", "requests"', b'"unknown", "requests"'),
            valid.replace(b'"hit"', b'"hits"'),
            valid.replace(b"50.0", b'"50"'),
            valid.replace(b"50.0", b"1e300"),
            valid.replace(b"50.0", b"1e999"),
            valid.replace(b": 200", b": 99999"),
            valid.replace(b'"kv55"', b'"' + b"x" * 1000 + b'"'),
            valid.replace(b"+00:00", b""),
            valid.replace(b"2026", b"1969"),
            valid.replace(b"2026", b"9999"),
            valid.replace(b"2026-11-23T12:30:00.000+00:00", b"0001-01-01T00:00:00+10:00"),
            b"[" * 100_000,
        ):
            self.assertNotEqual(invalid, valid)
            self.assertIsNone(parse_line(invalid), invalid[:200])

    @given(st.binary(max_size=300))
    def test_no_data_raises(self, data: bytes) -> None:
        """Arbitrary data is invalid, and raises no exception."""
        self.assertIsNone(parse_line(data))

    def test_unknown_members_are_ignored(self) -> None:
        """Unknown members are ignored, including unknown phases."""
        newer = line().replace(b'"end"', b'"a": {"b": 1}, "end"').replace(b'"parse"', b'"new": 1, "parse"')
        self.assertEqual(parse_line(newer), parse_line(line()))


class SplitLinesTests(SynchronousTestCase):
    """Splitting chunks into lines."""

    @given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
    def test_lines_do_not_depend_on_chunks(self, text: bytes, cuts: list[int]) -> None:
        """The lines do not depend on the chunks; blank lines are skipped."""
        bounds = [0, *sorted(cuts), len(text)]
        chunks = [text[start:end] for start, end in itertools.pairwise(bounds)]
        self.assertEqual(list(split_lines(chunks)), [line for line in text.split(b"\n") if line.strip()])

    def test_long_line_is_truncated(self) -> None:
        """A long line is truncated, so that memory is bounded, and remains one line."""
        with patch.object(log_lines, "MAX_LINE_BYTES", 10):
            lines = list(split_lines([b"a\n", *[b"xxxxxx"] * 9, b"x\nb\nc"]))
        self.assertEqual(lines, [b"a", b"x" * 10, b"b", b"c"])
