"""Texts from outside as printable text."""

import json
from unicodedata import category

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.templates import environment
from govi_server.runtime.text import MAX_LINE_CHARACTERS, escape_json, printable

TEXTS = st.text(st.characters(), max_size=50)


def is_safe(text: str) -> bool:
    """Return whether nothing in a text controls a terminal, ends a line or changes its direction."""
    return all(
        not category(character).startswith("C") and category(character) not in ("Zl", "Zp") for character in text
    )


class PrintableTests(SynchronousTestCase):
    """Texts on one line."""

    def test_ordinary_text_is_unchanged(self) -> None:
        """Printable text of any script is unchanged, backslashes and no-break spaces included."""
        for text in ("", "/kv55/57330430", "Capelle a/d IJssel, Ré\\n", "Žižkov 東京 🚋", "a\N{NO-BREAK SPACE}b"):
            self.assertEqual(printable(text), text)

    def test_control_characters_are_escaped(self) -> None:
        """C0, DEL, C1, separators, direction controls, invisible characters and surrogates are escaped."""
        for text, escaped in {
            "\x1b[31m": r"\x1b[31m", "\0\t\r\n": r"\x00\t\r\n", "\x7f": r"\x7f", "\x85\x9b": r"\x85\x9b",
            "\u2028\u2029": r"\u2028\u2029", "\u202e\u2066": r"\u202e\u2066", "\ufeff\u200b": r"\ufeff\u200b",
            "\ud800\udcff": r"\ud800\udcff", "\U000e0001": r"\U000e0001",
        }.items():  # fmt: skip
            self.assertEqual(printable(text), escaped)

    def test_long_text_is_cut(self) -> None:
        """A text has at most so many characters, its escapes included, and ends with dots if it was cut."""
        self.assertEqual(printable("x" * 10, 10), "x" * 10)
        self.assertEqual(printable("x" * 11, 10), "x" * 7 + "...")
        self.assertEqual(printable("\x1b" * 10, 10), r"\x1b\x1" + "...")
        self.assertEqual(len(printable("\x1b" * 1_000_000)), MAX_LINE_CHARACTERS)

    @given(TEXTS, st.integers(4, 60))
    def test_any_text_is_safe_and_bounded(self, text: str, limit: int) -> None:
        """Any text becomes safe and is within the limit."""
        self.assertTrue(is_safe(printable(text, limit)))
        self.assertLessEqual(len(printable(text, limit)), limit)

    @given(st.recursive(TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=5))
    def test_json_keeps_its_meaning(self, value: object) -> None:
        """Escaped JSON is safe, and has the same meaning."""
        for indent in (None, 2):
            document = escape_json(json.dumps(value, indent=indent, ensure_ascii=False))
            self.assertTrue(is_safe(document.replace("\n", "")))
            self.assertEqual(json.loads(document), value)

    @given(TEXTS)
    def test_values_in_templates_are_safe(self, text: str) -> None:
        """A value in any template is safe, except for its line ends and tabs."""
        template = environment("govi_server.operations").from_string("<p title='{{ text }}'>{{ text }}</p>")
        self.assertTrue(is_safe(template.render(text=text).replace("\n", "").replace("\t", "")))
