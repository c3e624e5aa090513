"""The wire format of server-sent events."""

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.event_stream import data_field
from govi_server.runtime.cooperative import run_now


class DataFieldTests(SynchronousTestCase):
    """Data in pieces."""

    def test_each_line_is_a_field(self) -> None:
        """Each line, with any line end and over any pieces, is a field of its own; a last line end is not one."""
        for pieces in (["a\nb\n"], ["a", "\n", "b", "\n"], ["a\rb"], ["a\r\nb\n"]):
            self.assertEqual(run_now(data_field(pieces)), b"data: a\ndata: b\n", pieces)
        self.assertEqual(run_now(data_field([])), b"")

    @given(st.lists(st.text("ab\r\n")))
    def test_pieces_do_not_matter(self, pieces: list[str]) -> None:
        """The field of a text is the same however the text is divided."""
        lines = re.split("\r\n|\r|\n", "".join(pieces))
        field = "".join(f"data: {line}\n" for line in (lines if lines[-1] else lines[:-1]))
        self.assertEqual(run_now(data_field(pieces)), field.encode())
