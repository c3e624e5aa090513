"""Colours of lines."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.colors import READABLE, contrast, read_color, text_color

colors = st.integers(0, 0xFFFFFF).map("#{:06x}".format)


class ColorTests(SynchronousTestCase):
    """Reading colours, and text on them."""

    def test_read(self) -> None:
        """Six hexadecimal digits are a colour, and nothing else is."""
        for text, color in [
            ("B5121B", "#b5121b"), ("#00639a", "#00639a"), (None, None), ("", None), ("fff", None), ("red", None),
            ("00639a;", None), ("\uff10" * 6, None), ("00639a\n", None),
        ]:  # fmt: skip
            self.assertEqual(read_color(text), color)

    def test_contrast(self) -> None:
        """It is that of WCAG: 21 for black on white, and 4.54 for the grey that its authors give."""
        self.assertAlmostEqual(contrast("#000000", "#ffffff"), 21)
        self.assertEqual(round(contrast("#767676", "#ffffff"), 2), 4.54)
        self.assertEqual(contrast("#123456", "#123456"), 1)

    def test_text(self) -> None:
        """The text's colour is the one that is wanted where that can be read, and else black or white."""
        for ground, wanted, chosen in [
            ("#b5121b", "#ffffff", "#ffffff"),
            ("#1d1d3b", "#ffe45c", "#ffe45c"),
            ("#f6c900", "#ffffff", "#000000"),
            ("#f6c900", None, "#000000"),
            ("#00639a", None, "#ffffff"),
        ]:
            self.assertEqual(text_color(ground, wanted), chosen)

    @given(colors, st.none() | colors)
    def test_readable(self, ground: str, wanted: str | None) -> None:
        """Whatever colours an operator gives, the text can be read."""
        self.assertGreaterEqual(contrast(ground, text_color(ground, wanted)), READABLE)
