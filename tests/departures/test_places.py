"""Tests of departures.places: which TimingPoints are one place."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.modes import Mode
from govi_server.departures.places import MAX_PLACE_STOPS, Place, StopRecord, is_place_id, make_places
from govi_server.departures.timing_point import TimingPoint, is_timing_point_code
from govi_server.runtime.cooperative import run_now

X, Y = 155_000, 463_000


def stop(
    code: str,
    name: str = "Lindedorp, Brug",
    x: int = X,
    area: str | None = None,
    area_name: str | None = None,
    modes: tuple[Mode, ...] = (),
    departures: int = 0,
) -> StopRecord:
    return StopRecord(code, TimingPoint(name, "Lindedorp", area, x, Y), area_name, frozenset(modes), departures)


def places(*records: StopRecord) -> list[Place]:
    return sorted(run_now(make_places(sorted(records, key=lambda record: record.code))), key=lambda place: place.id)


def members(*records: StopRecord) -> list[tuple[str, ...]]:
    return [place.codes for place in places(*records)]


class PlaceTests(SynchronousTestCase):
    """Grouping, and what is known of a place."""

    def test_areas(self) -> None:
        """All stops of an area are a place, wherever they are and whatever they are called."""
        stops = (
            stop("1", area="A"),
            stop("2", "Elders", X + 5000, "A"),
            stop("3", "Markt", area="B"),
            stop("4", "Markt", X + 200),
        )
        self.assertEqual(members(*stops), [("1", "2"), ("3",), ("4",)])

    def test_areas_of_one_name_nearby(self) -> None:
        """Areas of two operators at one stop are one place, as are two directions of which one has an area."""
        stops = (stop("1", area="A"), stop("2", x=X + 100, area="B"), stop("3", x=X - 100), stop("4", x=X + 900))
        joined, other = places(*stops)
        self.assertEqual((joined.codes, joined.areas, other.codes), (("1", "2", "3"), ("A", "B"), ("4",)))
        # Through their areas, stops of different names are one place as well.
        stops = (stop("1", "Brug", area="A"), stop("2", "Kade", area="A"), stop("3", "Kade"), stop("4", "Brug"))
        self.assertEqual(members(*stops), [("1", "2", "3", "4")])
        (place,) = places(stop("1"), stop("2", area="A", area_name="Lindedorp, Station"))
        self.assertEqual(place.name, "Station")

    def test_same_name_nearby(self) -> None:
        """Stops of one name are a place if they are within 150 m of one another."""
        stops = (stop("1"), stop("2", x=X + 150), stop("3", x=X + 301), stop("4", "Lindedorp, Markt"))
        self.assertEqual(members(*stops), [("1", "2"), ("3",), ("4",)])
        self.assertEqual(members(stop("1"), stop("2", x=X + 140), stop("3", x=X + 280)), [("1", "2", "3")])
        self.assertEqual(members(stop("1", x=0), stop("2", x=0)), [("1",), ("2",)])
        self.assertEqual(members(stop("1", "Brug"), stop("2", "BRÜG")), [("1", "2")])

    def test_members_of_a_place(self) -> None:
        """A place has the name of its area, else the most frequent one, and what its stops have together."""
        (place,) = places(
            stop("12", "Lindedorp, Kade", X + 100, "A", None, ("tram",), 2),
            stop("11", "Lindedorp, Brug", X, "A", None, ("bus",), 3),
            stop("13", "Lindedorp, Brug", 0, "A", None, ("bus",), 4),
        )
        self.assertEqual(
            place,
            Place("p11", "Brug", "Lindedorp", ("11", "12", "13"), ("bus", "tram"), 9, X + 50, Y, ("A",), ("Kade",)),
        )
        (place,) = places(stop("1", area="A", area_name="Lindedorp, Station"))
        self.assertEqual((place.name, place.other_names), ("Station", ("Brug",)))
        (place,) = places(StopRecord("1", None, None, frozenset(), 0))
        self.assertEqual((place.name, place.town, place.position), ("1", "", None))

    def test_ids(self) -> None:
        """An id is no TimingPointCode, and contains no names."""
        (place,) = places(stop("57330430"))
        self.assertEqual(place.id, "p57330430")
        self.assertTrue(is_place_id(place.id))
        self.assertFalse(is_timing_point_code(place.id))
        for text in ("", "p", "57330430", "p57330430x", "p12345678901", "P1"):
            self.assertFalse(is_place_id(text), text)

    def test_large_areas_are_divided(self) -> None:
        """A place has a limited number of stops; each stop is in one place."""
        groups = members(*(stop(f"{n:04}", area="A") for n in range(2 * MAX_PLACE_STOPS + 1)))
        self.assertEqual([len(group) for group in groups], [MAX_PLACE_STOPS, MAX_PLACE_STOPS, 1])
        groups = members(*(stop(f"{n:04}", x=X + n) for n in range(500)))
        self.assertEqual(sorted(code for group in groups for code in group), [f"{n:04}" for n in range(500)])

    @given(st.lists(st.tuples(st.integers(0, 900), st.sampled_from("AB")), max_size=12))
    def test_equal_to_pairwise_comparison(self, stops: list[tuple[int, str]]) -> None:
        """The places are the connected groups of stops of one name with at most 150 m between neighbours."""
        records = [stop(f"{n:02}", name, X + x) for n, (x, name) in enumerate(stops)]
        group = {record.code: {record.code} for record in records}
        for (first, (x, name)), (second, (other_x, other)) in combinations(zip(group, stops, strict=True), 2):
            if name == other and abs(x - other_x) <= 150:
                joined = group[first] | group[second]
                group.update(dict.fromkeys(joined, joined))
        self.assertEqual(
            {frozenset(codes) for codes in members(*records)}, {frozenset(codes) for codes in group.values()}
        )
