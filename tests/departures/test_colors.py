"""Tests of departures.colors."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.colors import MIN_CONTRAST, contrast, read_color, text_color

colors = st.integers(0, 0xFFFFFF).map("#{:06x}".format)


class ColorTests(SynchronousTestCase):
    """Parsing colours, and text on them."""

    def test_valid_and_invalid_colors(self) -> None:
        """Only six hexadecimal digits are a colour."""
        for text, color in [
            ("B5121B", "#b5121b"), ("#00639a", "#00639a"), (None, None), ("", None), ("fff", None), ("red", None),
            ("00639a;", None), ("\uff10" * 6, None), ("00639a\n", None),
        ]:  # fmt: skip
            self.assertEqual(read_color(text), color)

    def test_contrast(self) -> None:
        """Contrast is that of WCAG: 21 for black on white, and 4.54 for the grey of its examples."""
        self.assertAlmostEqual(contrast("#000000", "#ffffff"), 21)
        self.assertEqual(round(contrast("#767676", "#ffffff"), 2), 4.54)
        self.assertEqual(contrast("#123456", "#123456"), 1)

    def test_preferred_text_color(self) -> None:
        """The preferred colour of text is used if it is legible; otherwise black or white."""
        for background, preferred, expected in [
            ("#b5121b", "#ffffff", "#ffffff"),
            ("#1d1d3b", "#ffe45c", "#ffe45c"),
            ("#f6c900", "#ffffff", "#000000"),
            ("#f6c900", None, "#000000"),
            ("#00639a", None, "#ffffff"),
        ]:
            self.assertEqual(text_color(background, preferred), expected)

    @given(colors, st.none() | colors)
    def test_text_is_legible(self, background: str, preferred: str | None) -> None:
        """Text is legible on any background."""
        self.assertGreaterEqual(contrast(background, text_color(background, preferred)), MIN_CONTRAST)
