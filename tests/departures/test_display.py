"""Tests of departures.display: states, remaining minutes, texts, and the display of a gateway's board."""

from datetime import datetime

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.board import Board, Trip
from govi_server.departures.display import (
    DepartureDisplay,
    DisplayRow,
    Reliability,
    RowState,
    StopDisplay,
    board_display,
    clean,
    place,
    platform,
    row_state,
    stop_state,
)
from tests.client import NOW

CODE = "57330430"
MINUTE = 60


def row(planned: float = 10, expected: float = 10, state: RowState = "on_time", **values: str) -> DisplayRow:
    """Return a row that is planned and expected some minutes after NOW."""
    return DisplayRow("1", "Strand", NOW + planned * MINUTE, NOW + expected * MINUTE, state, **values)  # type: ignore[arg-type]  # values are texts


class StateTests(SynchronousTestCase):
    """States of departures and stops."""

    def test_row_states(self) -> None:
        """The state follows from status and times; a departure without an expected time is never on time."""
        cases: list[tuple[str, float | None, Reliability, RowState | None]] = [
            ("DRIVING", 600.0, "current", "on_time"),
            ("DRIVING", 659.0, "current", "on_time"),
            ("DRIVING", 660.0, "current", "late"),
            ("DRIVING", 599.0, "current", "early"),
            ("DRIVING", None, "current", "unknown"),
            ("DRIVING", 660.0, "last_known", "last_known"),
            ("ARRIVED", 600.0, "current", "stopped"),
            ("ARRIVED", 600.0, "last_known", "last_known"),
            ("PLANNED", 600.0, "current", "planned"),
            ("PLANNED", None, "last_known", "planned"),
            ("PLANNED", 700.0, "current", "late"),
            ("CANCEL", 600.0, "current", "cancelled"),
            ("CANCEL", None, "last_known", "cancelled"),
            ("UNKNOWN", 600.0, "current", "unknown"),
            ("OFFROUTE", 600.0, "current", "unknown"),
            ("SOMETHING", 600.0, "last_known", "unknown"),
            ("PASSED", 600.0, "current", None),
            ("DRIVING", 660.0, "unknown", "unknown"),
            ("ARRIVED", 600.0, "unknown", "unknown"),
            ("PLANNED", 600.0, "unknown", "planned"),
            ("CANCEL", 600.0, "unknown", "cancelled"),
            ("CANCEL", 600.0, "last_known", "cancelled"),
            ("PASSED", 600.0, "unknown", None),
        ]
        for status, expected, reliability, state in cases:
            self.assertEqual(row_state(status, 600.0, expected, reliability), state, (status, expected, reliability))

    def test_stop_states(self) -> None:
        """A stop is live if one of its departures is, unless its data is stale."""
        live, planned = row(), row(state="planned")
        for rows, is_stale, state in [
            ([], False, "none"), ([], True, "none"), ([planned], False, "planned"), ([planned], True, "planned"),
            ([live, planned], False, "live"), ([live, planned], True, "last_known"),
        ]:  # fmt: skip
            self.assertEqual(stop_state(rows, is_stale), state)

    def test_moved_departure(self) -> None:
        """A departure is moved if its displayed time differs from the planned one and was reported."""
        self.assertEqual([row(10, expected).moved for expected in (9.9, 10, 10.9, 11)], [True, False, False, True])
        self.assertEqual(row(10, 7).delay, -3)
        for state in ("planned", "unknown", "cancelled"):
            self.assertFalse(row(10, 13, state).moved)


class MinutesTests(SynchronousTestCase):
    """Remaining minutes, which are never overstated."""

    def test_whole_minutes(self) -> None:
        """Minutes are rounded down, and never negative."""
        stop = StopDisplay(CODE, "live")
        minutes = [stop.minutes(row(10, m), NOW) for m in (-1, 0, 0.99, 1, 1.99, 2, 60)]
        self.assertEqual(minutes, [0, 0, 0, 1, 1, 2, 60])

    def test_age_is_subtracted(self) -> None:
        """The age of the data and the delay of display are subtracted, except from planned departures."""
        stop = StopDisplay(CODE, "live", age=61.0)
        self.assertEqual(stop.minutes(row(10, 5), NOW), 3)
        self.assertEqual(stop.minutes(row(10, 5, "last_known"), NOW), 3)
        self.assertEqual(stop.minutes(row(10, 5, "planned"), NOW), 5)
        (delayed,) = DepartureDisplay((stop,), 3600).delayed(60).stops
        self.assertEqual(delayed.minutes(row(10, 5), NOW), 2)

    def test_unreliable_minutes(self) -> None:
        """Cancelled departures and those with unknown delay have no remaining minutes."""
        for state in ("cancelled", "unknown"):
            self.assertIsNone(StopDisplay(CODE, "live").minutes(row(10, 5, state), NOW))


class TextTests(SynchronousTestCase):
    """Texts of sources."""

    def test_clean_text(self) -> None:
        """A text is one line of printable characters."""
        for text, expected in [
            (None, ""), ("  a \t b\r\nc ", "a b c"), ("a\x1b[2Jb", "a [2Jb"), ("a\u202eb", "a b"), ("éß", "éß"),
            ("Zu\u0308rich", "Z\u00fcrich"),
        ]:  # fmt: skip
            self.assertEqual(clean(text), expected)

    def test_town_is_not_repeated(self) -> None:
        """The town is removed from the name, and "unknown" is not a town."""
        for name, town, expected in [
            ("Waterdorp, Haven", "Waterdorp", ("Haven", "Waterdorp")), ("Haven", "unknown", ("Haven", "")),
            ("Waterdorp", "Waterdorp", ("Waterdorp", "Waterdorp")), (", Haven", "", (", Haven", "")),
            ("a\u202eb\x07", "c\nd", ("a b", "c d")), (None, None, ("", "")),
        ]:  # fmt: skip
            self.assertEqual(place(name, town), expected)

    def test_platform(self) -> None:
        """A dash is not a platform, and spaces are removed."""
        self.assertEqual(
            [platform(text) for text in ("-", "", None, " 2", "B5 - B7")], [None, None, None, "2", "B5 - B7"]
        )


class BoardDisplayTests(SynchronousTestCase):
    """The display of a gateway's board."""

    trip = Trip(
        operating_date="2026-01-01",
        line_planning_number="L004",
        line_public_number="4",
        destination_name="Lindedorp via Brug",
        target_departure_time="01:30:00",
        expected_departure_time="01:33:20",
        trip_stop_status="DRIVING",
    )

    def display(self, *trips: Trip, age: float = 0.0, is_stale: bool = False, lines: str = "") -> StopDisplay:
        return board_display(Board(CODE, trips, NOW - age), NOW, is_stale, frozenset(lines.split()), 7200.0)

    def test_trip_is_a_row(self) -> None:
        """A trip becomes a row."""
        stop = self.display(self.trip, age=20.0)
        self.assertEqual((stop.code, stop.state, stop.age, stop.as_of, stop.name), (CODE, "live", 20.0, None, ""))
        self.assertEqual(stop.rows, (DisplayRow("4", "Lindedorp via Brug", NOW + 1800, NOW + 2000, "late"),))

    def test_stale_board_states_its_time(self) -> None:
        """A stale board is displayed with the time of its data."""
        stop = self.display(self.trip, age=100.0, is_stale=True)
        self.assertEqual((stop.state, stop.as_of), ("last_known", NOW - 100))
        self.assertEqual(stop.rows[0].state, "last_known")

    def test_missing_values(self) -> None:
        """A departure without both times is never on time; one without any time has no row."""
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
            stop = self.display(replace(self.trip, **values))  # type: ignore[arg-type]
            self.assertEqual([row.state for row in stop.rows], states, values)

    def test_rows_in_order_of_expected_time(self) -> None:
        """Rows are in order of expected time; past departures and those beyond the horizon are left out."""
        trips = [
            replace(self.trip, line_public_number=line, expected_departure_time=time)
            for line, time in [("5", "01:20:00"), ("4", "01:10:00"), ("3", "00:58:00"), ("2", "03:01:00")]
        ]
        self.assertEqual([row.line for row in self.display(*trips).rows], ["4", "5"])
        self.assertEqual([row.line for row in self.display(*trips, lines="5 9").rows], ["5"])
        self.assertEqual([row.line for row in self.display(*trips, lines="L004").rows], ["4", "5"])

    def test_late_in_repeated_hour(self) -> None:
        """In the repeated hour, a late departure is not shown as early by most of an hour."""
        received_at = datetime.fromisoformat("2026-10-25T02:55:00+02:00").timestamp()
        trip = replace(
            self.trip,
            operating_date="2026-10-24",
            target_departure_time="26:20:00",
            expected_departure_time="26:58:00",
        )
        (row,) = board_display(Board(CODE, (trip,), received_at), received_at, False, frozenset(), 7200.0).rows
        self.assertEqual((row.state, row.delay, row.expected - received_at), ("late", 38, 180))

    def test_times_past_midnight(self) -> None:
        """Times past 24:00 are on the day after the operating date."""
        trip = replace(
            self.trip,
            operating_date="2025-12-31",
            target_departure_time="25:30:00",
            expected_departure_time="25:30:00",
        )
        self.assertEqual(self.display(trip).rows[0].expected, NOW + 1800)

    def test_hours_from_0_past_midnight(self) -> None:
        """A time past midnight may count its hours from 0 again: a late departure does not vanish."""
        for day, target, expected, received, minutes, delay in (
            ("2025-12-31", "23:58:00", "00:03:00", "2025-12-31T23:50:00+01:00", 13, 5),
            ("2025-12-31", "24:10:00", "00:11:00", "2025-12-31T23:50:00+01:00", 21, 1),
            ("2025-12-31", "00:05:00", "00:06:00", "2025-12-31T23:50:00+01:00", 16, 1),
            ("2026-01-01", "00:02:00", "23:58:00", "2025-12-31T23:50:00+01:00", 8, -4),
            ("2025-12-31", "23:58:00", "00:03:00", "2026-01-01T00:01:00+01:00", 2, 5),
        ):
            received_at = datetime.fromisoformat(received).timestamp()
            trip = replace(
                self.trip, operating_date=day, target_departure_time=target, expected_departure_time=expected
            )
            (row,) = board_display(Board(CODE, (trip,), received_at), received_at, False, frozenset(), 7200.0).rows
            self.assertEqual((row.expected - received_at, row.delay), (minutes * 60, delay), (target, expected))

    def test_blank_line_number(self) -> None:
        """A blank LinePublicNumber is no number."""
        for blank in ("", " ", "\u00a0", "\u200b"):
            self.assertEqual(self.display(replace(self.trip, line_public_number=blank)).rows[0].line, "L004")
