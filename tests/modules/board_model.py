"""A slow and obvious model of boards from KV8, KV7 and GTFS: each board is made from all rows. No caches."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from govi_server.departures.times import MINUTE, local_timestamp, moment, moments

KV7_DESTINATION = "Oost via Noord"


@dataclass(frozen=True)
class Journey:
    """A planned journey. calls: stops and times, in seconds on its operating dates."""

    operator: str
    line: str
    level: str
    number: str
    days: frozenset[date]
    calls: tuple[tuple[str, int], ...]
    direction: str = "Oost"
    """Name of its destination."""


@dataclass(frozen=True)
class LiveCall:
    """A row of KV8. order: UserStopOrderNumber, from 1. code: its stop, which may not be the planned one."""

    journey: Journey
    day: date
    order: int
    code: str
    delay: int
    status: str

    @property
    def planned(self) -> int:
        """The planned time in seconds."""
        return self.journey.calls[self.order - 1][1]

    @property
    def key(self) -> tuple[str, str, str, str, date, int]:
        """What identifies it in KV8."""
        journey = self.journey
        return journey.operator, journey.level, journey.line, journey.number, self.day, self.order


class Call(NamedTuple):
    """What identifies a call: GTFS numbers the stops of a journey otherwise than KV8 and KV7."""

    is_gtfs: bool
    journey: tuple[str, str, str, str]
    day: date
    order: int


class Row(NamedTuple):
    """A departure or a last arrival. time: epoch seconds."""

    time: float
    call: Call
    is_last: bool
    departure: "Departure"


class Departure(NamedTuple):
    """A departure as displayed."""

    line: str
    destination: str
    planned: str
    expected: str | None
    state: str
    provenance: str


@dataclass
class Model:
    """All that was received."""

    live: list[LiveCall] = field(default_factory=list)
    kv7: list[Journey] = field(default_factory=list)
    gtfs: list[Journey] = field(default_factory=list)

    def is_planned(self, journey: Journey, day: date) -> bool:
        """Return whether KV7 applies to a journey of GTFS: it has the line, or half of the operator's lines."""
        kv7, gtfs = (
            {other.line for other in planning if other.operator == journey.operator and day in other.days}
            for planning in (self.kv7, self.gtfs)
        )
        return journey.line in kv7 or (bool(kv7) and 2 * len(kv7) >= len(gtfs))

    def is_live(self, journey: Journey, day: date, code: str, order: int) -> bool:
        """Return whether KV8 has a call of a journey of GTFS: at its stop, or at its time elsewhere."""
        time = journey.calls[order - 1][1]
        codes = [stop for stop, _ in journey.calls]
        times = [at for stop, at in journey.calls[:-1] if stop == code]
        for row in self.live:
            other = row.journey
            if (other.operator, other.line, other.number, row.day) == (*_names(journey), journey.number, day):
                if row.code == code and min(times, key=lambda at: abs(at - row.planned)) == time:
                    return True
                if row.code not in codes and row.planned == time and other.level == journey.level:
                    return True
        return False

    def board(self, code: str, now: float, horizon: float) -> list[Departure]:
        """Return the departures from a stop between now (epoch seconds) and the horizon (seconds)."""
        return sorted((row.departure for row in self.rows(code, now, horizon) if not row.is_last), key=str)

    def place(self, codes: Sequence[str], now: float, horizon: float) -> list[Departure]:
        """Return the departures from a place: a vehicle that calls at it twice in a row leaves at the second call."""
        rows = [row for code in codes for row in self.rows(code, now, horizon)]
        calls = {row.call for row in rows if row.departure.state != "cancelled"}
        departures = [
            row.departure
            for row in rows
            if not row.is_last and row.call._replace(order=row.call.order + 1) not in calls
        ]
        return sorted(departures, key=str)

    def rows(self, code: str, now: float, horizon: float) -> list[Row]:
        """Return the calls at a stop between now (epoch seconds) and the horizon (seconds)."""
        rows = [self._live_row(row, now) for row in self.live if row.code == code]
        known = {row.key for row in self.live}
        for journey in self.kv7:
            for day in journey.days:
                for order, (stop, _) in enumerate(journey.calls, 1):
                    if stop == code and LiveCall(journey, day, order, code, 0, "").key not in known:
                        rows.append(self._planned_row(journey, day, order, "kv7"))
        for journey in self.gtfs:
            for day in journey.days:
                for order, (stop, _) in enumerate(journey.calls, 1):
                    is_here = stop == code and not self.is_planned(journey, day)
                    if is_here and not self.is_live(journey, day, code, order):
                        rows.append(self._planned_row(journey, day, order, "gtfs"))
        return [row for row in rows if now - MINUTE < row.time <= now + horizon]

    def _planned_row(self, journey: Journey, day: date, order: int, provenance: str) -> Row:
        at = moment(day, journey.calls[order - 1][1])
        names = f"Lijn {journey.line}", KV7_DESTINATION if provenance == "kv7" else journey.direction
        departure = Departure(*names, local_timestamp(at), None, "planned", provenance)
        return Row(at, _call(journey, day, order, provenance == "gtfs"), order == len(journey.calls), departure)

    def _names_of(self, row: LiveCall) -> tuple[str, str]:
        """Return the names of the line and the destination of a row of KV8, or its codes."""
        journey = row.journey
        is_named = any(_names(other) == _names(journey) for other in (*self.kv7, *self.gtfs))
        line = f"Lijn {journey.line}" if is_named else journey.line
        if any(other.operator == journey.operator for other in self.kv7):
            return line, KV7_DESTINATION
        for other in self.gtfs:
            is_same = (_names(other), other.number) == (_names(journey), journey.number) and row.day in other.days
            if is_same and row.code in dict(other.calls) and not self.is_planned(other, row.day):
                return line, other.direction
        return line, "D1"

    def _live_row(self, row: LiveCall, now: float) -> Row:
        planned, expected = moments(row.day, row.planned, row.planned + row.delay, now - MINUTE)
        assert planned is not None
        assert expected is not None
        late = expected // MINUTE - planned // MINUTE
        state = "late" if late > 0 else "early" if late < 0 else "on_time"
        if row.status == "CANCEL":
            state = "cancelled"
        names = self._names_of(row)
        expected_text = None if state == "cancelled" else local_timestamp(expected)
        departure = Departure(*names, local_timestamp(planned), expected_text, state, "kv8")
        call = _call(row.journey, row.day, row.order, is_gtfs=False)
        return Row(expected, call, row.order == len(row.journey.calls), departure)


def _names(journey: Journey) -> tuple[str, str]:
    return journey.operator, journey.line


def _call(journey: Journey, day: date, order: int, is_gtfs: bool) -> Call:
    return Call(is_gtfs, (journey.operator, journey.level, journey.line, journey.number), day, order)
