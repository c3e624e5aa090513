"""Tests of departures.place_index: finding places by name, town, code and position."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.place_index import MAX_DISTANCE_METRES, MAX_PLACES, PlaceIndex
from govi_server.departures.place_words import folded
from govi_server.departures.places import StopRecord
from govi_server.departures.timing_point import TimingPoint, wgs84
from govi_server.runtime.cooperative import run_now
from tests.departures.dutch_stops import QUERIES, stop_records


def stop(
    code: str, name: str | None = None, town: str | None = None, x: int = 0, y: int = 0, departures: int = 0
) -> StopRecord:
    point = None if name is None else TimingPoint(name, town, None, x, y)
    return StopRecord(code, point, None, frozenset(), departures)


def index(*stops: StopRecord) -> PlaceIndex:
    records = {record.code: record for record in stops}
    built: list[PlaceIndex] = []
    for _ in PlaceIndex.make(records, records.__getitem__, built.append):
        assert not built  # it is passed on when it is complete
    return built[0]


def codes(index: PlaceIndex, query: str) -> str:
    return " ".join(place.codes[0] for place in run_now(index.find(query)))


STOPS = (
    stop("1", "Utrecht, Neude", "Utrecht", departures=9),
    stop("2", "Utrecht, Centraal Station", "Utrecht", departures=90),
    stop("3", "Amsterdam, Centraal Station", "Amsterdam", departures=100),
    stop("4", "Zeist, Utrechtseweg", "Zeist", departures=500),
    stop("5", "'s-Gravenhage, Háagse Poort", "'s-Gravenhage", departures=8),
    stop("6", "Centraal", "Ede", departures=7),
    stop("700"),
    stop("800"),
)


class DutchStopsTests(SynchronousTestCase):
    """What people type, among the stops of many towns."""

    def test_first_place(self) -> None:
        """The first place is that which is meant."""
        self.assertGreaterEqual(len(QUERIES), 100)
        places = index(*stop_records(12_000))
        self.assertGreater(len(places), 4000)
        for query, expected in QUERIES.items():
            first = next(iter(run_now(places.find(query))), None)
            self.assertEqual(first and (first.town, first.name), expected, query)

    def test_steps_are_short(self) -> None:
        """Building and searching have many steps: none of them handles all stops, or all words."""
        records = {record.code: record for record in stop_records(2000)}
        built: list[PlaceIndex] = []
        self.assertGreater(sum(1 for _ in PlaceIndex.make(records, records.__getitem__, built.append)), 150)
        self.assertGreater(sum(1 for _ in built[0].find("amstredam roterdam utrehct")), 20)


class FindTests(SynchronousTestCase):
    """The matches of a query, and their order."""

    def setUp(self) -> None:
        self.index = index(*STOPS)

    def test_order_of_matches(self) -> None:
        """Codes precede equal words, and those precede words that begin equally; then departures decide."""
        for query, expected in [
            ("neude", "1"),
            ("centraal station", "3 2"),
            ("centraal", "3 2 6"),
            ("station", "3 2"),
            ("utrecht", "2 1 4"),
            ("7", "700"),
            ("p700", "700"),
            ("2", "2"),
            ("80", "800"),
            ("zeist neude", "1 4"),  # none has both
            ("", ""),
            ("...", ""),
            ("xyzzy", ""),
        ]:
            self.assertEqual(codes(self.index, query), expected, query)

    def test_complete_names_precede_longer_ones(self) -> None:
        """A name that is typed in full precedes one with more words and more departures."""
        places = index(
            stop("1", "Bussum, Kerkstraat", "Bussum", departures=1),
            stop("2", "Bussum, Kerkstraat/Brinklaan", "Bussum", departures=50),
        )
        self.assertEqual(codes(places, "kerkstraat bussum"), "1 2")

    def test_matches_are_limited(self) -> None:
        """The number of matches is limited; each place occurs once."""
        places = index(*(stop(f"{n:04}", f"Halte {n:04}", "Halte") for n in range(500)))
        self.assertEqual(codes(places, "halte"), " ".join(f"{n:04}" for n in range(MAX_PLACES)))
        self.assertEqual(len(run_now(places.find("0"))), MAX_PLACES)

    def test_any_member_identifies_a_place(self) -> None:
        """A place has one id for each of its stops, so that an id survives new and renumbered stops."""
        places = index(stop("12", "A", None, 155_000, 463_000), stop("11", "A", None, 155_040, 463_000))
        for identifier in ("p11", "p12"):
            place = places.place(identifier)
            assert place is not None
            self.assertEqual((place.id, place.codes), ("p11", ("11", "12")))
        self.assertIsNone(places.place("p13"))

    def test_number_and_station(self) -> None:
        """If no place has all words, numbers of houses are omitted first; a station need not be called central."""
        places = index(
            stop("1", "Bussum, Kerkstraat", "Bussum"), stop("2", "Bussum, Flat 12", "Bussum", departures=9),
            stop("3", "Utrecht, Centraal", "Utrecht", departures=99), stop("4", "Bussum, Station", "Bussum"),
        )  # fmt: skip
        for query, code in (("kerkstraat 12 bussum", "1"), ("bussum centraal", "4"), ("bussum cs", "4")):
            self.assertEqual(codes(places, query)[:1], code, query)

    def test_spellings_of_a_name(self) -> None:
        """Abbreviations, and words that are written as one or several, are found in names of any spelling."""
        places = index(
            stop("1", "Hoorn, P+R Transferium", "Hoorn"), stop("2", "Hoorn, Prins Willemlaan", "Hoorn", departures=9),
            stop("3", "Breda, Sint Jansstraat", "Breda"), stop("4", "Ede, St.-Jansstraat", "Ede"),
            stop("5", "Goes, Sint-Janstraat", "Goes"), stop("6", "Breda, Station", "Breda", departures=99),
            stop("7", "Katwijk aan Zee, Sportpark de Krom", "Katwijk aan Zee"),
        )  # fmt: skip
        for query, code in (
            ("p+r hoorn", "1"),
            ("hoorn P&R", "1"),
            ("transferium", "1"),
            ("st jansstraat breda", "3"),
            ("st jansstraat ede", "4"),
            ("st jansstraat goes", "5"),
            ("sint jansstraat", "3"),
            ("katwijkaanzee", "7"),
            ("katwijk a/d zee", "7"),
            ("katwijk de krom", "7"),
        ):
            self.assertEqual(codes(places, query)[:1], code, query)

    @given(st.text() | st.text("utrech 123,é").map(lambda text: text * 50))
    def test_any_query(self, query: str) -> None:
        """Any query returns a limited number of places, each once."""
        matches = [place.id for place in run_now(self.index.find(query))]
        self.assertEqual(len({*matches}), len(matches))
        self.assertLessEqual(len(matches), MAX_PLACES)

    @given(
        st.dictionaries(st.text("0123456789", min_size=1, max_size=5), st.tuples(st.text(), st.none() | st.text()))
    )
    def test_place_matches_its_name(self, names: dict[str, tuple[str, str | None]]) -> None:
        """A place matches its full name."""
        places = index(*(stop(code, name, town) for code, (name, town) in names.items()))
        for code, (name, _) in list(names.items())[:9]:
            if (
                folded(name)
                and len(folded(name).split()) <= 6
                and len(folded(name)) <= 100
                and len(names) <= MAX_PLACES
            ):
                self.assertIn(code, codes(places, name).split(), name)


class NearTests(SynchronousTestCase):
    """Finding places near a position."""

    def near(self, places: PlaceIndex, x: int, y: int, *limit: int) -> list[tuple[str, int]]:
        longitude, latitude = wgs84(x, y)
        return [(place.id, metres) for place, metres in run_now(places.near(latitude, longitude, *limit))]

    def test_nearest_first(self) -> None:
        """Places are in order of distance, in metres; those without a position are left out."""
        places = index(
            stop("1", "A", None, 155_000, 463_000),
            stop("2", "B", None, 155_300, 463_400),
            stop("3", "C", None, 154_990, 462_999),
            stop("4", "D", None, 155_000, 463_000 + MAX_DISTANCE_METRES - 1),
            stop("5", "E", None, 155_000, 463_000 + MAX_DISTANCE_METRES + 5),
            stop("6", "F"),
        )
        distances = [("p1", 0), ("p3", 10), ("p2", 500), ("p4", MAX_DISTANCE_METRES - 1)]
        self.assertEqual(self.near(places, 155_000, 463_000), distances)
        self.assertEqual(self.near(places, 155_000, 463_000, 2), [("p1", 0), ("p3", 10)])

    def test_nearest_across_squares(self) -> None:
        """A place in the next square precedes one that is further away in the same square."""
        places = index(stop("1", "A", None, 155_990, 463_500), stop("2", "B", None, 154_999, 463_500))
        self.assertEqual(self.near(places, 155_001, 463_500, 1), [("p2", 2)])

    @given(st.floats(-90, 90), st.floats(-180, 180))
    def test_any_position(self, latitude: float, longitude: float) -> None:
        """Any position on earth is valid."""
        places = index(stop("1", "A", None, 155_000, 463_000))
        self.assertIn(len(run_now(places.near(latitude, longitude))), (0, 1))
