"""Departure displays, independent of the source and the output format. Pure: the time is an argument.

A departure is on time only if fresh data of its source includes an expected time.
"""

from collections.abc import Generator, Iterable, Sequence
from math import floor
from typing import Literal
from unicodedata import normalize

from msgspec import Struct, structs

from govi_server.departures.board import Board, Trip
from govi_server.departures.colors import text_color
from govi_server.departures.fragments import STEP_PARTS, Fragments
from govi_server.departures.modes import Mode
from govi_server.departures.times import HOUR, MINUTE, PassingTimes, moments, read_date, read_time, resolve
from govi_server.runtime.cooperative import sort_in_steps

COUNTDOWN_SECONDS = 10 * MINUTE
"""Remaining time below which minutes are displayed instead of a time."""

HIDDEN_AFTER_SECONDS = MINUTE
"""How long after its expected time a departure without newer data is hidden."""

RowState = Literal["on_time", "late", "early", "planned", "unknown", "cancelled", "stopped", "last_known"]
"""The state of a departure. "planned": known from the timetable only; "unknown": its delay is unknown; "stopped": the
vehicle is at the stop; "last_known": its source has become stale."""

Reliability = Literal["current", "unknown", "last_known"]
"""How far a departure's latest data can be relied on: "unknown": it should have been sent again since; "last_known":
the same for long, or its source has become stale."""

Provenance = Literal["kv8", "kv7", "gtfs"]
"""The source of a departure: the live feed, its timetable, or the timetable of a GTFS file."""

StopState = Literal["live", "planned", "last_known", "none", "unknown", "down"]
"""The state of a stop. "planned": known from the timetable only; "none": no departures at present; "unknown": the
stop does not exist; "down": no data is available."""

_BEFORE_DEPARTURE = ("DRIVING", "PLANNED", "ARRIVED")
"""TripStopStatuses of upcoming departures (docs/protocols.md, section 2.6)."""


class DisplayRow(Struct, frozen=True, gc=False):
    """One departure. Moments are epoch seconds.

    A struct that the garbage collector does not visit: requests for many stops make a hundred thousand at once.
    """

    line: str
    destination: str
    planned: float
    expected: float
    """The planned time if unknown."""
    state: RowState
    platform: str | None = None
    color: str | None = None
    """The line's colour, #rrggbb."""
    text_color: str | None = None
    """The colour of legible text on it; None without a line colour."""
    note: str = ""
    """A remark on this departure."""
    mode: Mode | None = None
    direction: str | None = None
    """LineDirection, 1 or 2."""
    operator: str = ""
    """DataOwnerCode; "" if unknown."""
    code: str = ""
    """The TimingPointCode on the board of a place; "" on that of a stop."""
    journey: str = ""
    """OVapi's key of its journey (GVB_20260421_7_7189_0); "" if its other stops are unknown."""
    age_difference: float = 0.0
    """Seconds by which its data is older than the display's; negative if it is newer."""
    shows_direction: bool = False
    """Whether its line has the same destination in the other direction, on the board of a place."""
    provenance: Provenance | None = None
    """None for a gateway's."""
    fragments: Fragments | None = None
    """What was made of it, if it is stored."""

    @property
    def delay(self) -> int:
        """Minutes from the planned to the expected time, as displayed; negative if early."""
        return floor(self.expected / MINUTE) - floor(self.planned / MINUTE)

    @property
    def is_expected(self) -> bool:
        """Whether the expected time was reported, rather than taken from the timetable."""
        return self.state not in ("planned", "unknown", "cancelled")

    @property
    def counts_down(self) -> bool:
        """Whether its remaining time is reliable."""
        return self.state not in ("cancelled", "unknown")

    @property
    def moved(self) -> bool:
        """Whether it is known to depart earlier or later than planned."""
        return self.delay != 0 and self.is_expected


def whole_minutes(seconds: float) -> int:
    """Return the remaining whole minutes of remaining seconds; 0 if they are over."""
    return int(seconds // MINUTE) if seconds > 0 else 0


def displays_minutes(minutes: int | None) -> bool:
    """Return whether a departure is displayed with its remaining minutes, rather than with a time."""
    return minutes is not None and minutes * MINUTE < COUNTDOWN_SECONDS


class StopDisplay(Struct, frozen=True):
    """The display of one stop."""

    code: str
    state: StopState
    rows: tuple[DisplayRow, ...] = ()
    name: str = ""
    """"" if unknown."""
    town: str = ""
    messages: tuple[str, ...] = ()
    as_of: float | None = None
    """The time of the data (epoch seconds), if it is stale."""
    age: float = 0.0
    """The age of the data in seconds, subtracted from the remaining time."""
    lag: float = 0.0
    """Seconds by which the display may lag, also subtracted."""
    similar: tuple[str, ...] = ()
    """Of a stop that does not exist, stops that may be meant: their codes and names."""
    awaits_data: bool = False
    """Whether it is down because its source has not sent any data yet."""

    @property
    def has_data(self) -> bool:
        """Whether its departures are known, even if it has none."""
        return self.state not in ("unknown", "down")

    def seconds_left(self, row: DisplayRow, now: float) -> float:
        """Return the minimum remaining time in seconds. Planned times do not age."""
        return row.expected - now - self.lag - (0.0 if row.state == "planned" else self.age + row.age_difference)

    def minutes(self, row: DisplayRow, now: float) -> int | None:
        """Return the minimum remaining whole minutes; None if they are unreliable."""
        if not row.counts_down:
            return None
        return whole_minutes(self.seconds_left(row, now))

    def leaving(self, seconds: float, now: float) -> "StopDisplay":
        """Return a copy with only the departures that leave in this many seconds or later."""
        if not seconds:
            return self
        return self._with_rows(tuple([row for row in self.rows if self.seconds_left(row, now) >= seconds]))

    def first(self, limit: int | None) -> "StopDisplay":
        """Return a copy with at most this many departures that can be taken, and the cancelled ones between them."""
        if limit is None or len(self.rows) <= limit:
            return self
        n = 0
        for number, row in enumerate(self.rows, 1):
            n += row.state != "cancelled"
            if n == limit:
                return self._with_rows(self.rows[:number])
        return self

    def _with_rows(self, rows: tuple[DisplayRow, ...]) -> "StopDisplay":
        return structs.replace(self, rows=rows, state=self.state if rows or not self.has_data else "none")


class DepartureDisplay(Struct, frozen=True):
    """The display of one or more stops."""

    stops: tuple[StopDisplay, ...]
    horizon: float
    """Seconds ahead for which departures are displayed."""
    is_fictional: bool = False
    """Whether its source has marked its data as fictional."""

    def delayed(self, seconds: float) -> "DepartureDisplay":
        """Return a copy for display up to this many seconds later."""
        stops = [structs.replace(stop, lag=stop.lag + seconds) for stop in self.stops]
        return structs.replace(self, stops=tuple(stops))

    def first(self, limit: int | None) -> "DepartureDisplay":
        """Return a copy with at most this many departures per stop; see StopDisplay.first()."""
        return structs.replace(self, stops=tuple([stop.first(limit) for stop in self.stops]))


def clean(text: str | None) -> str:
    """Return a source's text as one line of printable characters, without control and direction characters."""
    composed = normalize("NFC", text or "")  # columns are counted in characters, so an accented letter must be one
    return " ".join("".join(c if c.isprintable() else " " for c in composed).split())


def place(name: str | None, town: str | None) -> tuple[str, str]:
    """Return a stop's name, without the town that most names begin with, and its town."""
    clean_name, clean_town = clean(name), clean(town)
    if clean_town == "unknown":  # in some data (docs/protocols.md, section 3.4)
        clean_town = ""
    return clean_name.removeprefix(f"{clean_town}, ") if clean_town else clean_name, clean_town


def platform(text: str | None) -> str | None:
    """Parse a SideCode or quay; return None for an empty one or a dash."""
    name = clean(text)
    return None if name in ("", "-") else name


def badge(color: str | None, preferred: str | None) -> tuple[str | None, str | None]:
    """Return a line's colour and the colour of text on it. preferred: the line's own text colour."""
    return color, None if color is None else text_color(color, preferred)


def row_state(
    status: str, planned: float | None, expected: float | None, reliability: Reliability = "current"
) -> RowState | None:
    """Return the state of a departure with a TripStopStatus; None if it has departed.

    planned, expected: epoch seconds, None if unknown.
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
    if status == "ARRIVED" and reliability == "current":
        return "stopped"
    if minutes is None or status not in _BEFORE_DEPARTURE or reliability == "unknown":
        return "unknown"
    if reliability == "last_known":
        return "last_known"
    return "late" if minutes > 0 else "early" if minutes < 0 else "on_time"


def stop_state(rows: Iterable[DisplayRow], is_stale: bool) -> StopState:
    """Return the state of a stop with these rows."""
    states = {row.state for row in rows}
    if not states:
        return "none"
    if states <= {"planned"}:
        return "planned"
    return "last_known" if is_stale else "live"


_STATES: tuple[StopState, ...] = ("live", "last_known", "planned", "none", "down", "unknown")
"""The states of stops: the first of those of its stops is that of a place."""


def place_display(
    code: str, name: str, town: str, stops: Sequence[StopDisplay]
) -> Generator[None, None, StopDisplay]:
    """Return the display of a place, in steps: the departures of its stops in one list. code: its id."""
    age = max([stop.age for stop in stops if stop.has_data], default=0.0)
    rows: list[DisplayRow] = []
    for stop in stops:
        for row in stop.rows:
            rows.append(structs.replace(row, code=stop.code, age_difference=stop.age - age))
            if not len(rows) % STEP_PARTS:
                yield
    yield from _show_directions(rows)
    rows = yield from sort_in_steps(rows, lambda row: (row.expected, row.line, row.destination, row.code))
    state = min((stop.state for stop in stops), key=_STATES.index)
    times = [stop.as_of for stop in stops if stop.as_of is not None]
    return StopDisplay(
        code,
        state,
        tuple(rows),
        name,
        town,
        tuple(dict.fromkeys(message for stop in stops for message in stop.messages)),
        min(times) if times and state == "last_known" else None,
        age,
        similar=tuple(dict.fromkeys(code for stop in stops for code in stop.similar)) if state == "unknown" else (),
        awaits_data=state == "down" and all(stop.awaits_data for stop in stops),
    )


def _show_directions(rows: list[DisplayRow]) -> Generator[None, None, None]:
    """Mark the rows whose destination does not tell their direction, in steps."""
    directions: dict[tuple[str, str, str], set[str]] = {}
    for n, row in enumerate(rows, 1):
        if row.direction is not None:
            directions.setdefault((row.operator, row.line, row.destination), set()).add(row.direction)
        if not n % STEP_PARTS:
            yield
    for n, row in enumerate(rows):
        if row.direction is not None and len(directions[row.operator, row.line, row.destination]) > 1:
            rows[n] = structs.replace(row, shows_direction=True)
            yield


def board_display(board: Board, now: float, is_stale: bool, lines: frozenset[str], horizon: float) -> StopDisplay:
    """Return the display of a gateway's board, which lacks the stop's name.

    lines: the selected LinePublicNumbers or LinePlanningNumbers; empty selects all. horizon: seconds.
    """
    selected = (
        trip for trip in board.trips if not lines or {trip.line_public_number, trip.line_planning_number} & lines
    )
    rows = [row for trip in selected if (row := _row(trip, board.received_at, is_stale)) is not None]
    visible = [row for row in rows if now - HIDDEN_AFTER_SECONDS < row.expected <= now + horizon]
    visible.sort(key=lambda row: row.expected)
    return StopDisplay(
        board.code,
        stop_state(visible, is_stale),
        tuple(visible),
        as_of=board.received_at if is_stale else None,
        age=max(now - board.received_at, 0.0),
    )


def _row(trip: Trip, received_at: float, is_stale: bool) -> DisplayRow | None:
    """Return the row of a trip; None if it does not depart from this stop, or has departed."""
    day = read_date(trip.operating_date or "")
    target, reported = (read_time(text or "") for text in (trip.target_departure_time, trip.expected_departure_time))
    if day is None or (target is None and reported is None):
        return None
    times = resolve(day, PassingTimes(target_departure=target, expected_departure=reported), received_at)
    # In the repeated hour, a time is the first of the two unless that was more than half an hour ago.
    planned, expected = moments(day, times.target_departure, times.expected_departure, received_at - HOUR / 2)
    best = expected if expected is not None else planned
    assert best is not None  # one of the times is known
    status = trip.trip_stop_status or "DRIVING"  # GOVI's responses may lack it (docs/protocols.md, section 1.2)
    state = row_state(status, planned, expected, "last_known" if is_stale else "current")
    if state is None:
        return None
    return DisplayRow(
        clean(trip.line_public_number) or clean(trip.line_planning_number),
        clean(trip.destination_name),
        best if planned is None else planned,
        best,
        state,
    )
