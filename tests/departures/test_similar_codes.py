"""Tests of codes that may be meant by an unknown one."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.similar_codes import similar_codes


class SimilarCodesTests(SynchronousTestCase):
    """similar_codes()."""

    def test_one_mistake(self) -> None:
        """A code with one digit mistyped, missing, too many, or swapped with the next is found."""
        for code in ("30000011", "3000012", "300000012", "30000102"):
            self.assertIn("30000012", similar_codes(code, {"30000012", "4"}.__contains__), code)
        self.assertEqual(similar_codes("30000099", {"30000012"}.__contains__), ())

    def test_several_variants(self) -> None:
        """A code that is a variant in several ways counts once."""
        known = {"60000100", "60001002", "60001003"}
        self.assertEqual({*similar_codes("6000100", known.__contains__)}, known)

    def test_leading_zeros(self) -> None:
        """Leading zeros are digits."""
        self.assertEqual(similar_codes("31102", {"031102"}.__contains__), ("031102",))

    def test_neighbours(self) -> None:
        """Neighbours follow, up to three codes, each once."""
        known = {"11", "12"}
        self.assertEqual(similar_codes("13", known.__contains__, ["12", "14", "15"]), ("11", "12", "14"))
