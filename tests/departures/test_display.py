"""What a traveller is told: rows, states and what is left."""

from datetime import datetime

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.board import Board, Trip
from govi_server.departures.display import (
    DepartureDisplay,
    DisplayRow,
    RowState,
    StopDisplay,
    clean,
    of_board,
    place,
    platform,
    row_state,
    stop_state,
)
from tests.client import NOW

CODE = "57330430"
MINUTE = 60


def row(planned: float = 10, expected: float = 10, state: RowState = "on_time", **values: str) -> DisplayRow:
    """Make a row that is planned and expected so many minutes after NOW."""
    return DisplayRow("1", "Strand", NOW + planned * MINUTE, NOW + expected * MINUTE, state, **values)


class StateTests(SynchronousTestCase):
    """What is known of a departure and of a stop."""

    def test_rows(self) -> None:
        """A status, and what is expected, make a state; nobody who says nothing is on time."""
        for status, expected, silent, state in [
            ("DRIVING", 600.0, False, "on_time"),
            ("DRIVING", 659.0, False, "on_time"),
            ("DRIVING", 660.0, False, "late"),
            ("DRIVING", 599.0, False, "early"),
            ("DRIVING", None, False, "unknown"),
            ("DRIVING", 660.0, True, "last_known"),
            ("ARRIVED", 600.0, False, "stopped"),
            ("ARRIVED", 600.0, True, "last_known"),
            ("PLANNED", 600.0, False, "planned"),
            ("PLANNED", None, True, "planned"),
            ("PLANNED", 700.0, False, "late"),
            ("CANCEL", 600.0, False, "cancelled"),
            ("CANCEL", None, True, "cancelled"),
            ("UNKNOWN", 600.0, False, "unknown"),
            ("OFFROUTE", 600.0, False, "unknown"),
            ("SOMETHING", 600.0, True, "unknown"),
            ("PASSED", 600.0, False, None),
        ]:
            self.assertEqual(row_state(status, 600.0, expected, silent), state, (status, expected, silent))

    def test_stops(self) -> None:
        """A stop is live as soon as one departure is, unless what was said is not fresh."""
        live, planned = row(), row(state="planned")
        for rows, stale, state in [
            ([], False, "none"), ([], True, "none"), ([planned], False, "planned"), ([planned], True, "planned"),
            ([live, planned], False, "live"), ([live, planned], True, "last_known"),
        ]:  # fmt: skip
            self.assertEqual(stop_state(rows, stale), state)

    def test_moved(self) -> None:
        """A departure has another time than planned when the clocks show one, and somebody has said so."""
        self.assertEqual([row(10, expected).moved for expected in (9.9, 10, 10.9, 11)], [True, False, False, True])
        self.assertEqual(row(10, 7).delay, -3)
        for state in ("planned", "unknown", "cancelled"):
            self.assertFalse(row(10, 13, state).moved)


class LeftTests(SynchronousTestCase):
    """How many minutes are left: never more than there are."""

    def test_whole_minutes(self) -> None:
        """Only whole minutes count, and none are below 0."""
        stop = StopDisplay(CODE, "live")
        minutes = [stop.minutes(row(10, m), NOW) for m in (-1, 0, 0.99, 1, 1.99, 2, 60)]
        self.assertEqual(minutes, [0, 0, 0, 1, 1, 2, 60])

    def test_age(self) -> None:
        """The age of what is said is taken off, and that for which it is kept; the timetable has none."""
        stop = StopDisplay(CODE, "live", age=61.0)
        self.assertEqual(stop.minutes(row(10, 5), NOW), 3)
        self.assertEqual(stop.minutes(row(10, 5, "last_known"), NOW), 3)
        self.assertEqual(stop.minutes(row(10, 5, "planned"), NOW), 5)
        (kept,) = DepartureDisplay((stop,), 3600).kept(60).stops
        self.assertEqual(kept.minutes(row(10, 5), NOW), 2)

    def test_not_counted(self) -> None:
        """Nobody counts on what is cancelled, or comes nobody knows when."""
        for state in ("cancelled", "unknown"):
            self.assertIsNone(StopDisplay(CODE, "live").minutes(row(10, 5, state), NOW))


class TextTests(SynchronousTestCase):
    """Texts of sources."""

    def test_clean(self) -> None:
        """A text is one line of what can be seen."""
        for text, cleaned in [
            (None, ""), ("  a \t b\r\nc ", "a b c"), ("a\x1b[2Jb", "a [2Jb"), ("a\u202eb", "a b"), ("éß", "éß"),
            ("Zu\u0308rich", "Z\u00fcrich"),
        ]:  # fmt: skip
            self.assertEqual(clean(text), cleaned)

    def test_place(self) -> None:
        """A name has its town once, and what nobody knows is no town."""
        for name, town, read in [
            ("Waterdorp, Haven", "Waterdorp", ("Haven", "Waterdorp")), ("Haven", "unknown", ("Haven", "")),
            ("Waterdorp", "Waterdorp", ("Waterdorp", "Waterdorp")), (", Haven", "", (", Haven", "")),
            ("a\u202eb\x07", "c\nd", ("a b", "c d")), (None, None, ("", "")),
        ]:  # fmt: skip
            self.assertEqual(place(name, town), read)

    def test_platform(self) -> None:
        """A dash is no platform; a space before it is none of it."""
        self.assertEqual(
            [platform(text) for text in ("-", "", None, " 2", "B5 - B7")], [None, None, None, "2", "B5 - B7"]
        )


class BoardTests(SynchronousTestCase):
    """The sign of a gateway's board."""

    trip = Trip(
        operating_date="2026-01-01",
        line_planning_number="L004",
        line_public_number="4",
        destination_name="Lindedorp via Brug",
        target_departure_time="01:30:00",
        expected_departure_time="01:33:20",
        trip_stop_status="DRIVING",
    )

    def sign(self, *trips: Trip, age: float = 0.0, stale: bool = False, lines: str = "") -> StopDisplay:
        return of_board(Board(CODE, trips, NOW - age), NOW, stale, frozenset(lines.split()), 7200.0)

    def test_row(self) -> None:
        """A trip is a row."""
        stop = self.sign(self.trip, age=20.0)
        self.assertEqual((stop.code, stop.state, stop.age, stop.as_of, stop.name), (CODE, "live", 20.0, None, ""))
        self.assertEqual(stop.rows, (DisplayRow("4", "Lindedorp via Brug", NOW + 1800, NOW + 2000, "late"),))

    def test_stale(self) -> None:
        """Of an old board it is said when it was made."""
        stop = self.sign(self.trip, age=100.0, stale=True)
        self.assertEqual((stop.state, stop.as_of), ("last_known", NOW - 100))
        self.assertEqual(stop.rows[0].state, "last_known")

    def test_without(self) -> None:
        """What is not told is not made up: without both times nobody is on time, without any there is no row."""
        for values, states in [
            ({"expected_departure_time": None}, ["unknown"]),
            ({"expected_departure_time": "nonsense"}, ["unknown"]),
            ({"trip_stop_status": None}, ["late"]),
            ({"trip_stop_status": None, "expected_departure_time": None}, ["unknown"]),
            ({"target_departure_time": None}, ["unknown"]),
            ({"target_departure_time": None, "expected_departure_time": None}, []),
            ({"operating_date": None}, []),
            ({"trip_stop_status": "PASSED"}, []),
            ({"line_public_number": None, "destination_name": None}, ["late"]),
        ]:
            stop = self.sign(replace(self.trip, **values))  # type: ignore[arg-type]
            self.assertEqual([one.state for one in stop.rows], states, values)

    def test_order(self) -> None:
        """Rows are in order of what is expected; what has gone or comes much later is left out."""
        trips = [
            replace(self.trip, line_public_number=line, expected_departure_time=time)
            for line, time in [("5", "01:20:00"), ("4", "01:10:00"), ("3", "00:58:00"), ("2", "03:01:00")]
        ]
        self.assertEqual([one.line for one in self.sign(*trips).rows], ["4", "5"])
        self.assertEqual([one.line for one in self.sign(*trips, lines="5 9").rows], ["5"])
        self.assertEqual([one.line for one in self.sign(*trips, lines="L004").rows], ["4", "5"])

    def test_autumn(self) -> None:
        """In the hour that comes twice who is late is not early by most of it."""
        began = datetime.fromisoformat("2026-10-25T02:55:00+02:00").timestamp()
        trip = replace(
            self.trip,
            operating_date="2026-10-24",
            target_departure_time="26:20:00",
            expected_departure_time="26:58:00",
        )
        (row,) = of_board(Board(CODE, (trip,), began), began, False, frozenset(), 7200.0).rows
        self.assertEqual((row.state, row.delay, row.expected - began), ("late", 38, 180))

    def test_past_midnight(self) -> None:
        """Yesterday's trips run on past 24:00."""
        trip = replace(
            self.trip,
            operating_date="2025-12-31",
            target_departure_time="25:30:00",
            expected_departure_time="25:30:00",
        )
        self.assertEqual(self.sign(trip).rows[0].expected, NOW + 1800)
