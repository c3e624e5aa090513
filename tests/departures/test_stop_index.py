"""Finding stops: by name, town or code, and by where they are."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.stop_index import FARTHEST, MOST, StopIndex, folded
from govi_server.departures.timing_point import TimingPoint, wgs84


def point(name: str | None, town: str | None = None, x: int = 0, y: int = 0) -> TimingPoint:
    return TimingPoint(name, town, None, x, y)


def index(points: dict[str, TimingPoint], *codes: str) -> StopIndex:
    made: list[StopIndex] = []
    for _ in StopIndex.make(points, codes, made.append):
        assert not made  # it is handed over when it is whole
    return made[0]


STOPS = {
    "1": point("Utrecht, Neude", "Utrecht"),
    "2": point("Utrecht, Centraal Station", "Utrecht"),
    "3": point("Amsterdam, Centraal Station", "Amsterdam"),
    "4": point("Zeist, Utrechtseweg", "Zeist"),
    "5": point("'s-Gravenhage, Háagse Poort", "'s-Gravenhage"),
    "6": point("Centraal", "Ede"),
    "700": point(None),
}


class FoldTests(SynchronousTestCase):
    """How texts are compared."""

    def test_folded(self) -> None:
        """Case, accents, ligatures and what is no letter or digit make no difference."""
        for text, plain in [
            ("Coevorden, Škoda-ÉÉN", "coevorden skoda een"),
            ("'s-Gravenhage", "s gravenhage"),
            ("STRASSE Straße", "strasse strasse"),
            ("Ærø \ufb01n \u0130", "aero fin i"),
            ("a_b", "a b"),
            ("\x00 ,.-", ""),
        ]:
            self.assertEqual(folded(text), plain, text)

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """What is folded stays as it is when it is folded again, so queries and names meet."""
        self.assertEqual(folded(folded(text)), folded(text))


class FindTests(SynchronousTestCase):
    """What a query finds, and in which order."""

    def setUp(self) -> None:
        self.index = index(STOPS, "800", "1")

    def found(self, query: str) -> str:
        return " ".join(self.index.find(query))

    def test_order(self) -> None:
        """An exact code, an exact name, whole words, a beginning: in this order, then by name."""
        for query, codes in [
            ("neude", "1"),
            ("centraal station", "3 2"),
            ("centraal", "6 3 2"),
            ("station", "3 2"),
            ("utrecht", "2 1 4"),
            ("7", "700"),
            ("2", "2"),
            ("80", "800"),
        ]:
            self.assertEqual(self.found(query), codes, query)

    def test_words(self) -> None:
        """Words may be beginnings, come in any order and be of the town; all of them must be there."""
        for query, codes in [
            ("utr cen", "2"),
            ("STATION utrecht", "2"),
            ("utrecht, centraal station", "2"),
            ("haagse", "5"),
            ("gravenhage poort", "5"),
            ("zeist neude", ""),
            ("", ""),
            ("...", ""),
        ]:
            self.assertEqual(self.found(query), codes, query)

    def test_town_before_roads_to_it(self) -> None:
        """A town is found by its name, however many roads elsewhere are named after it; a name that is the word's
        own beginning goes first."""
        roads = {f"{n}": point(f"Dorp{n}, Utrechtseweg", f"Dorp{n}") for n in range(2 * MOST)}
        town = {"91": point("Utrecht, Neude", "Utrecht"), "92": point("Amsterdam, Aan Utrecht", "Amsterdam")}
        made = index({**roads, **town, "93": point("Utrecht Poort", "Ede")})
        self.assertEqual(made.find("utrecht")[:3], ("93", "92", "91"))
        self.assertEqual(len(made.find("utrecht")), MOST)

    def test_most(self) -> None:
        """So many are found, the first by name, once each."""
        many = index({f"{n:04}": point(f"Halte {n:04}", "Halte") for n in range(500)})
        self.assertEqual(many.find("halte"), tuple(f"{n:04}" for n in range(MOST)))
        self.assertEqual(len(many.find("0")), MOST)

    def test_does_not_change(self) -> None:
        """What is taken in while an index is made is not half in it."""
        points = dict(STOPS)
        made: list[StopIndex] = []
        making = StopIndex.make(points, [], made.append)
        next(making)
        points["9"] = point("Neude")
        points["1"] = point("Elders")
        for _ in making:
            pass
        self.assertEqual(made[0].find("neude"), ("1",))

    @given(st.text() | st.text("utrech 123,é").map(lambda text: text * 50))
    def test_hostile(self, query: str) -> None:
        """Whatever is asked, known stops are found, once each, and no more than so many."""
        found = self.index.find(query)
        self.assertLessEqual({*found}, {*STOPS, "800"})
        self.assertEqual(len({*found}), len(found))
        self.assertLessEqual(len(found), MOST)

    @given(st.dictionaries(st.text(max_size=5), st.tuples(st.none() | st.text(), st.none() | st.text()), max_size=9))
    def test_finds_itself(self, names: dict[str, tuple[str | None, str | None]]) -> None:
        """A stop is found by its whole name, whatever that is."""
        made = index({code: point(name, town) for code, (name, town) in names.items()})
        for code, (name, _) in names.items():
            if folded((name or "")[:100]) and len(folded(name or "").split()) <= 6 and len(name or "") <= 100:
                self.assertIn(code, made.find(name or ""))


class NearTests(SynchronousTestCase):
    """Which stops are near."""

    def test_nearest(self) -> None:
        """They come with their distance in metres, the nearest first; who has no place is nowhere."""
        stops = {
            "1": point("A", None, 155_000, 463_000),
            "2": point("B", None, 155_300, 463_400),
            "3": point("C", None, 154_990, 462_999),
            "4": point("D", None, 155_000, 463_000 + FARTHEST - 1),
            "5": point("E", None, 155_000, 463_000 + FARTHEST + 5),
            "6": point("F"),
        }
        longitude, latitude = wgs84(155_000, 463_000)
        made = index(stops)
        self.assertEqual(made.near(latitude, longitude), [("1", 0), ("3", 10), ("2", 500), ("4", FARTHEST - 1)])
        self.assertEqual(made.near(latitude, longitude, 2), [("1", 0), ("3", 10)])

    def test_across_squares(self) -> None:
        """A stop in the next square goes before one that is further away in the same."""
        stops = {"1": point("A", None, 155_990, 463_500), "2": point("B", None, 154_999, 463_500)}
        longitude, latitude = wgs84(155_001, 463_500)
        self.assertEqual(index(stops).near(latitude, longitude, 1), [("2", 2)])

    @given(st.floats(-90, 90), st.floats(-180, 180))
    def test_anywhere(self, latitude: float, longitude: float) -> None:
        """Anywhere on earth may be asked for."""
        made = index({"1": point("A", None, 155_000, 463_000)})
        self.assertIn(len(made.near(latitude, longitude)), (0, 1))
