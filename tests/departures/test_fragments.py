"""Tests of the parts of documents that are stored with a passtime."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.fragments import FORM_BYTES, MAX_FORMS, Fragments, make_part


class FragmentsTests(SynchronousTestCase):
    """Parts, their states and their memory."""

    def setUp(self) -> None:
        self.fragments = Fragments({})
        self.made = 0

    def part(self, form: str, state: object = None) -> bool:
        """Request a part of 100 bytes; return whether it was stored."""

        def make(text: str) -> str:
            self.made += 1
            return text

        part, was_stored = make_part(self.fragments, form, state, make, "x" * 100)
        self.assertEqual(part, "x" * 100)
        return was_stored

    def test_state(self) -> None:
        """A part is made once for each state, and replaces that of the previous one."""
        self.assertEqual([self.part("a", state) for state in (1, 1, 2, 2, 1)], [False, True, False, True, False])
        self.assertEqual([self.part("b"), self.part("b")], [False, True])
        self.assertEqual((self.made, len(self.fragments.parts)), (4, 2))

    def test_without_fragments(self) -> None:
        """Without a place for it, a part is made each time."""
        self.assertEqual(make_part(None, "a", None, str, 1), ("1", False))

    def test_unused_parts_are_dropped(self) -> None:
        """Parts that were not used between two calls are dropped; those that were remain stored."""
        self.part("used")
        self.part("unused")
        self.fragments.drop_unused()
        self.assertTrue(self.part("used"))
        self.assertEqual(self.fragments.size, 2 * (FORM_BYTES + 100) + len("used") + len("unused"))
        self.fragments.drop_unused()
        self.assertTrue(self.part("used"))
        self.assertEqual(self.fragments.size, FORM_BYTES + 100 + len("used"))
        self.assertFalse(self.part("unused"))
        for _ in range(2):
            self.fragments.drop_unused()
        self.assertEqual(self.fragments.size, 0)

    def test_forms_are_bounded(self) -> None:
        """With more than MAX_FORMS, all are made again; what is counted is what is stored."""
        for number in range(MAX_FORMS):
            self.part(f"{number:2}")
        self.fragments.drop_unused()
        for number in range(MAX_FORMS + 1):
            self.part(f"new {number:2}")
        self.assertEqual(len(self.fragments.parts), 1)
        self.assertEqual(self.fragments.size, FORM_BYTES + 100 + len("new 12"))
