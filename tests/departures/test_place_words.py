"""Tests of departures.place_words."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.place_words import folded, normalized, town_forms


class FoldTests(SynchronousTestCase):
    """Folding texts for comparison."""

    def test_case_and_accents_are_ignored(self) -> None:
        """Case, accents, ligatures and punctuation make no difference."""
        for text, expected in [
            ("Coevorden, Škoda-ÉÉN", "coevorden skoda een"),
            ("'s-Gravenhage", "s gravenhage"),
            ("STRASSE Straße", "strasse strasse"),
            ("Ærø \ufb01n \u0130", "aero fin i"),
            ("a_b", "a b"),
            ("\x00 ,.-", ""),
        ]:
            self.assertEqual(folded(text), expected, text)

    @given(st.text())
    def test_folding_is_idempotent(self, text: str) -> None:
        """A folded text stays the same when it is folded again."""
        self.assertEqual(folded(folded(text)), folded(text))

    def test_abbreviations_are_one_word(self) -> None:
        """Abbreviations are the same with and without their punctuation."""
        for text, expected in [
            ("Utrecht C.S.", "utrecht cs"),
            ("A'dam", "amsterdam"),
            ("R'DAM", "rotterdam"),
            ("'s dam", "s dam"),
        ]:
            self.assertEqual(normalized(text), expected, text)

    def test_towns_with_two_names(self) -> None:
        """A town with two names is found by both."""
        self.assertEqual({*town_forms("den haag")}, {*town_forms("s gravenhage")})
        self.assertEqual(town_forms("utrecht"), ("utrecht",))
