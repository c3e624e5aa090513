"""Tests of govi_server.runtime.text."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.text import pluralize


class PluralizeTests(SynchronousTestCase):
    """Numbers with their nouns."""

    def test_singular_and_plural(self) -> None:
        """Only 1 has the singular."""
        self.assertEqual([pluralize(n, "file") for n in (0, 1, 2)], ["0 files", "1 file", "2 files"])
