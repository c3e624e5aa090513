"""Tests of departures.stop_index: finding stops by name, town, code and position."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.stop_index import MAX_DISTANCE_METRES, MAX_STOPS, StopIndex, folded
from govi_server.departures.timing_point import TimingPoint, wgs84
from govi_server.runtime.cooperative import run_now


def point(name: str | None, town: str | None = None, x: int = 0, y: int = 0) -> TimingPoint:
    return TimingPoint(name, town, None, x, y)


def index(points: dict[str, TimingPoint], *codes: str) -> StopIndex:
    built: list[StopIndex] = []
    for _ in StopIndex.make(points, codes, built.append):
        assert not built  # it is passed on when it is complete
    return built[0]


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


class FindTests(SynchronousTestCase):
    """The matches of a query, and their order."""

    def setUp(self) -> None:
        self.index = index(STOPS, "800", "1")

    def find(self, query: str) -> str:
        return " ".join(run_now(self.index.find(query)))

    def test_order_of_matches(self) -> None:
        """Exact codes precede exact names, full words and prefixes; equal matches are sorted by name."""
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
            self.assertEqual(self.find(query), codes, query)

    def test_all_words_must_match(self) -> None:
        """Words may be prefixes, in any order, and of the town; all of them must match."""
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
            self.assertEqual(self.find(query), codes, query)

    def test_town_before_roads_to_it(self) -> None:
        """Stops of a town precede roads named after it; names that begin with the word precede both."""
        roads = {f"{n}": point(f"Dorp{n}, Utrechtseweg", f"Dorp{n}") for n in range(2 * MAX_STOPS)}
        town = {"91": point("Utrecht, Neude", "Utrecht"), "92": point("Amsterdam, Aan Utrecht", "Amsterdam")}
        stops = index({**roads, **town, "93": point("Utrecht Poort", "Ede")})
        self.assertEqual(run_now(stops.find("utrecht"))[:3], ("93", "92", "91"))
        self.assertEqual(len(run_now(stops.find("utrecht"))), MAX_STOPS)

    def test_matches_are_limited(self) -> None:
        """The number of matches is limited; each stop occurs once."""
        stops = index({f"{n:04}": point(f"Halte {n:04}", "Halte") for n in range(500)})
        self.assertEqual(run_now(stops.find("halte")), tuple(f"{n:04}" for n in range(MAX_STOPS)))
        self.assertEqual(len(run_now(stops.find("0"))), MAX_STOPS)

    def test_changes_during_build_are_ignored(self) -> None:
        """Changes of the stops during the build of an index are not in it."""
        points = dict(STOPS)
        built: list[StopIndex] = []
        steps = StopIndex.make(points, [], built.append)
        next(steps)
        points["9"] = point("Neude")
        points["1"] = point("Elders")
        for _ in steps:
            pass
        self.assertEqual(run_now(built[0].find("neude")), ("1",))

    @given(st.text() | st.text("utrech 123,é").map(lambda text: text * 50))
    def test_any_query(self, query: str) -> None:
        """Any query returns a limited number of known stops, each once."""
        matches = run_now(self.index.find(query))
        self.assertLessEqual({*matches}, {*STOPS, "800"})
        self.assertEqual(len({*matches}), len(matches))
        self.assertLessEqual(len(matches), MAX_STOPS)

    @given(st.dictionaries(st.text(max_size=5), st.tuples(st.none() | st.text(), st.none() | st.text()), max_size=9))
    def test_stop_matches_its_name(self, names: dict[str, tuple[str | None, str | None]]) -> None:
        """A stop matches its full name."""
        stops = index({code: point(name, town) for code, (name, town) in names.items()})
        for code, (name, _) in names.items():
            if folded((name or "")[:100]) and len(folded(name or "").split()) <= 6 and len(name or "") <= 100:
                self.assertIn(code, run_now(stops.find(name or "")))


class NearTests(SynchronousTestCase):
    """Finding stops near a position."""

    def test_nearest_first(self) -> None:
        """Stops are in order of distance, in metres; those without a position are left out."""
        stops = {
            "1": point("A", None, 155_000, 463_000),
            "2": point("B", None, 155_300, 463_400),
            "3": point("C", None, 154_990, 462_999),
            "4": point("D", None, 155_000, 463_000 + MAX_DISTANCE_METRES - 1),
            "5": point("E", None, 155_000, 463_000 + MAX_DISTANCE_METRES + 5),
            "6": point("F"),
        }
        longitude, latitude = wgs84(155_000, 463_000)
        near = index(stops).near
        distances = [("1", 0), ("3", 10), ("2", 500), ("4", MAX_DISTANCE_METRES - 1)]
        self.assertEqual(run_now(near(latitude, longitude)), distances)
        self.assertEqual(run_now(near(latitude, longitude, 2)), [("1", 0), ("3", 10)])

    def test_nearest_across_squares(self) -> None:
        """A stop in the next square precedes one that is further away in the same square."""
        stops = {"1": point("A", None, 155_990, 463_500), "2": point("B", None, 154_999, 463_500)}
        longitude, latitude = wgs84(155_001, 463_500)
        self.assertEqual(run_now(index(stops).near(latitude, longitude, 1)), [("2", 2)])

    @given(st.floats(-90, 90), st.floats(-180, 180))
    def test_any_position(self, latitude: float, longitude: float) -> None:
        """Any position on earth is valid."""
        stops = index({"1": point("A", None, 155_000, 463_000)})
        self.assertIn(len(run_now(stops.near(latitude, longitude))), (0, 1))
