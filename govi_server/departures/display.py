"""A departure sign: what a traveller is told of a stop, from whatever source and in whatever form it is shown.

Pure: time is given. Nobody is told that a bus is on time unless the source has just said when it is expected.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import floor
from typing import Literal
from unicodedata import normalize

from govi_server.departures.board import Board, Trip
from govi_server.departures.colors import text_color
from govi_server.departures.times import HOUR, MINUTE, moments, read_date, read_time

COUNTED = 10 * MINUTE
"""Seconds below which the minutes that are left are shown in place of a time."""

HIDDEN_AFTER_SECONDS = MINUTE
"""How long after its expected time a departure without further data is hidden."""

RowState = Literal["on_time", "late", "early", "planned", "unknown", "cancelled", "stopped", "last_known"]
"""What is known of a departure: "planned" is the timetable's word alone, "unknown" a delay that nobody knows,
"stopped" a vehicle that is at the stop, "last_known" the word of a source that has fallen silent."""

StopState = Literal["live", "planned", "last_known", "none", "unknown", "down"]
"""What is known of a stop: "planned" is the timetable's word alone, "none" that nothing leaves for a while,
"unknown" that there is no such stop, "down" that nobody can tell now."""

_UNDER_WAY = (
    "DRIVING",
    "PLANNED",
    "ARRIVED",
)  # statuses that are said of who is still to leave (docs/protocols.md 2.6)


@dataclass(frozen=True, slots=True)
class DisplayRow:
    """One departure. Moments are epoch seconds."""

    line: str
    destination: str
    planned: float
    expected: float
    """As far as anybody knows: the planned one if nothing else was said."""
    state: RowState
    platform: str | None = None
    color: str | None = None
    """Of the line, #rrggbb."""
    text_color: str | None = None
    """Of text on it, that can be read; None without a colour."""
    note: str = ""
    """What is said of this departure alone."""

    @property
    def delay(self) -> int:
        """Minutes between the times on the clock, planned and expected; below 0 is early."""
        return floor(self.expected / MINUTE) - floor(self.planned / MINUTE)

    @property
    def is_expected(self) -> bool:
        """Whether anybody but the timetable says when it leaves."""
        return self.state not in ("planned", "unknown", "cancelled")

    @property
    def moved(self) -> bool:
        """Whether it leaves at another time than planned, as far as anybody knows."""
        return self.delay != 0 and self.is_expected


@dataclass(frozen=True, slots=True)
class StopDisplay:
    """The sign of one stop."""

    code: str
    state: StopState
    rows: tuple[DisplayRow, ...] = ()
    name: str = ""
    """"" where nobody says: the code stands for it."""
    town: str = ""
    messages: tuple[str, ...] = ()
    as_of: float | None = None
    """When what is shown was said (epoch seconds), where that counts."""
    age: float = 0.0
    """Seconds by which what is said is old: they are taken off what is left."""
    late: float = 0.0
    """Seconds by which it may be read later than it was made: they are taken off, too."""

    @property
    def shown(self) -> bool:
        """Whether there is anything to tell of it, if only that nothing leaves."""
        return self.state not in ("unknown", "down")

    def left(self, row: DisplayRow, now: float) -> float:
        """Tell how many seconds are left, at least. The timetable's word does not age."""
        return row.expected - now - self.late - (0.0 if row.state == "planned" else self.age)

    def minutes(self, row: DisplayRow, now: float) -> int | None:
        """Tell how many whole minutes are left, at least; None where nobody should count on them."""
        if row.state in ("cancelled", "unknown"):
            return None
        return max(floor(self.left(row, now) / MINUTE), 0)


@dataclass(frozen=True, slots=True)
class DepartureDisplay:
    """The signs of some stops."""

    stops: tuple[StopDisplay, ...]
    horizon: float
    """Seconds that it looks ahead."""

    def kept(self, seconds: float) -> "DepartureDisplay":
        """Give the sign for those who may read it so many seconds later."""
        return replace(self, stops=tuple(replace(stop, late=stop.late + seconds) for stop in self.stops))

    def first(self, most: int | None) -> "DepartureDisplay":
        """Give the sign with at most so many rows of each stop."""
        return replace(self, stops=tuple(replace(stop, rows=stop.rows[:most]) for stop in self.stops))


def clean(text: str | None) -> str:
    """Give a source's text as one line of what can be seen: nothing that moves a cursor or turns text around."""
    composed = normalize("NFC", text or "")  # a letter with its accent is one character, wherever they are counted
    return " ".join("".join(c if c.isprintable() else " " for c in composed).split())


def place(name: str | None, town: str | None) -> tuple[str, str]:
    """Read a stop's name and town: most names begin with the town, which then need not be said twice."""
    own, where = clean(name), clean(town)
    if where == "unknown":  # as some say (docs/protocols.md 3.4)
        where = ""
    return own.removeprefix(f"{where}, ") if where else own, where


def platform(text: str | None) -> str | None:
    """Read a SideCode or quay; None where there is none, which is also written as a dash."""
    read = clean(text)
    return None if read in ("", "-") else read


def badge(color: str | None, wanted: str | None) -> tuple[str | None, str | None]:
    """Give a line's colour and that of the text on it, both as read_color() reads them."""
    return color, None if color is None else text_color(color, wanted)


def row_state(status: str, planned: float | None, expected: float | None, silent: bool = False) -> RowState | None:
    """Tell what is known of a departure from its status; None if it has left.

    planned, expected: None where nothing is said. silent: whether the source has said nothing for too long.
    """
    minutes = None
    if planned is not None and expected is not None:
        minutes = floor(expected / MINUTE) - floor(planned / MINUTE)
    if status == "PASSED":
        return None
    if status == "CANCEL":
        return "cancelled"
    if status == "PLANNED" and not minutes:
        return "planned"
    if status == "ARRIVED" and not silent:
        return "stopped"
    if minutes is None or status not in _UNDER_WAY:
        return "unknown"
    if silent:
        return "last_known"
    return "late" if minutes > 0 else "early" if minutes < 0 else "on_time"


def stop_state(rows: Iterable[DisplayRow], stale: bool) -> StopState:
    """Tell what is known of a stop from its rows; stale: what was said of it is not fresh."""
    states = {row.state for row in rows}
    if not states:
        return "none"
    if states <= {"planned"}:
        return "planned"
    return "last_known" if stale else "live"


def of_board(board: Board, now: float, stale: bool, lines: frozenset[str], ahead: float) -> StopDisplay:
    """Make the sign of a gateway's board, which knows no name of the stop.

    lines: the LinePublicNumbers or LinePlanningNumbers that are wanted; none is any. ahead: seconds.
    """
    wanted = (t for t in board.trips if not lines or {t.line_public_number, t.line_planning_number} & lines)
    rows = [row for trip in wanted if (row := _row(trip, board.received_at, stale)) is not None]
    shown = sorted(
        (row for row in rows if now - HIDDEN_AFTER_SECONDS < row.expected <= now + ahead), key=lambda r: r.expected
    )
    return StopDisplay(
        board.code,
        stop_state(shown, stale),
        tuple(shown),
        as_of=board.received_at if stale else None,
        age=max(now - board.received_at, 0.0),
    )


def _row(trip: Trip, made: float, stale: bool) -> DisplayRow | None:
    """Make the row of a trip; None if it does not leave from here, or has left."""
    day = read_date(trip.operating_date or "")
    target, told = (read_time(text or "") for text in (trip.target_departure_time, trip.expected_departure_time))
    if day is None or (target is None and told is None):
        return None
    # In the hour that comes twice, what was told half an hour ago at most is still to come.
    planned, expected = moments(day, target, told, made - HOUR / 2)
    best = expected if expected is not None else planned
    assert best is not None  # or there was no time
    status = trip.trip_stop_status or "DRIVING"  # GOVI's own answers did not always say one (docs/protocols.md 1.2)
    state = row_state(status, planned, expected, stale)
    if state is None:
        return None
    return DisplayRow(
        clean(trip.line_public_number or trip.line_planning_number),
        clean(trip.destination_name),
        best if planned is None else planned,
        best,
        state,
    )
