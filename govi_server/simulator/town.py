"""A fictional Dutch town and its buses. Pure: timetable and delays are functions of a seed, a date and a time."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from itertools import count, pairwise
from operator import itemgetter
from random import Random
from typing import NamedTuple

from govi_server.departures.board import Board, Trip
from govi_server.departures.times import HOUR, MINUTE, local_date, moment, write_time

# Stops by town, each with its position east and north of the station, in 100 m. A TimingPointCode is 57330, the two
# digits here, and 0.
_STOPS = {
    "Lindewaard": """
        04 Lindenhof -17 9, 05 Wilgenpad -14 7, 06 Kastanjehof -11 4, 07 Molenwiek -8 2, 08 Marktveld -4 1,
        09 Spoorsingel 4 -1, 10 Ziekenhuis 8 -2, 11 Waardkade 11 -5, 12 Zuiderwaard 13 -9, 13 Noorderbrink -5 17,
        14 Brinkpad -6 13, 15 Vlierhof -4 9, 16 Stadhuis -5 5, 17 Havenkade -1 -4, 18 Werf -3 -8,
        19 Sluisplein -2 -12, 20 Veerstoep -4 -16, 21 Theaterplein -1 4, 22 Schoolpad -9 7, 23 Sportpark -12 11,
        24 Meerzicht -15 15, 25 Rietlanden -18 19, 26 Strand -21 23, 27 Campus 12 6, 28 Lyceum 8 5,
        29 Leeszaal 4 3, 30 Korenbeurs -7 -2, 31 Tuinwijk -10 -5, 32 Appelgaard -13 -8, 33 Perengaard -17 -9,
        34 Nijverheid 11 2, 35 Transferium 19 3, 42 Muziekzaal -6 -4, 43 Station 0 0""",
    "Hogerdijk": "36 Dijkhuis 30 5, 37 Dorpsplein 36 7, 38 Polderhoek 46 6",
    "Elzenveen": "39 Turfkade 58 9, 40 Kerkbrink 63 10, 41 Eindpunt 68 12",
}
STATION = "57330430"
STATION_AREA = "LwdSta"
"""The StopAreaCode of the stops around the station."""
_AT_STATION = ("57330430", "57330090")
_STATION_X, _STATION_Y = 161_400, 470_300  # RD: in the middle of the country
_OPERATOR = "LINDEBUS"  # a DataOwnerCode that no operator uses

# Pairs of an hour of the operating day and the minutes between departures from then on; the last one is the end.
_Headways = tuple[tuple[float, int], ...]
_BUSY: _Headways = ((5, 30), (7, 10), (9, 15), (16, 10), (18.5, 15), (20, 30), (24.5, 0))
_BUSY_WEEKEND: _Headways = ((5, 30), (9, 15), (18, 30), (24.5, 0))
_QUIET: _Headways = ((5.5, 30), (7, 15), (9, 30), (15.5, 15), (18.5, 30), (23.5, 0))
_QUIET_WEEKEND: _Headways = ((6, 60), (9, 30), (18, 60), (23, 0))
_NIGHT: _Headways = ((23.5, 60), (29, 0))
_NIGHT_WEEKEND: _Headways = ((23.5, 30), (29.5, 0))

# Planning and public number, name, destinations, route (stops as above), shortest and longest leg in seconds,
# headways from Monday to Friday and at weekends. Direction 2 has the reversed route.
_LINES: tuple[tuple[str, str, str, tuple[str, str], str, tuple[int, int], _Headways, _Headways], ...] = (
    ("1101", "1", "Lindenhof - Zuiderwaard", ("Zuiderwaard", "Lindenhof"),
     "04 05 06 07 08 43 09 10 11 12", (60, 150), _BUSY, _BUSY_WEEKEND),
    ("1102", "2", "Noorderbrink - Veerstoep", ("Veerstoep via Haven", "Noorderbrink"),
     "13 14 15 16 08 43 17 18 19 20", (60, 150), _BUSY, _BUSY_WEEKEND),
    ("1103", "3", "Station - Strand", ("Strand", "Station"),
     "43 21 16 22 23 24 25 26", (60, 180), _QUIET, _QUIET_WEEKEND),
    ("1104", "4", "Campus - Perengaard", ("Perengaard", "Campus"),
     "27 28 29 43 08 30 31 32 33", (60, 150), _QUIET, _QUIET_WEEKEND),
    ("1160", "160", "Lindewaard - Elzenveen", ("Elzenveen via Hogerdijk", "Lindewaard Station"),
     "43 09 34 35 36 37 38 39 40 41", (120, 360), _QUIET, _QUIET_WEEKEND),
    ("1901", "N1", "Nachtbus", ("Zuiderwaard", "Noorderbrink"),
     "13 15 31 42 08 43 10 12", (90, 180), _NIGHT, _NIGHT_WEEKEND),
)  # fmt: skip
# LineColor and LineTextColor by planning number; some operators publish only the first, or none.
_COLORS: dict[str, tuple[str, str | None]] = {
    "1101": ("B5121B", "FFFFFF"),
    "1102": ("00639A", "FFFFFF"),
    "1103": ("F6C900", None),
    "1104": ("3F7D20", "FFFFFF"),
    "1901": ("1D1D3B", "FFE45C"),
}
_RUSH = range(8 * HOUR, 8 * HOUR + 15 * MINUTE)  # journeys that start then on a weekday have a second bus
_NOTICE_SECONDS = 15 * MINUTE  # before its start, when a journey gets its delay
_MIN_DELAY, _MAX_DELAY = -30, 12 * MINUTE
_CANCELLED_FRACTION = 0.02


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop of both directions. code: its TimingPointCode, eight ASCII digits. x, y: RD coordinates in metres."""

    code: str
    name: str
    town: str
    x: int
    y: int
    area: str | None
    """The StopAreaCode, if it is in a stop area."""

    @property
    def user_stop_code(self) -> str:
        """The operator's own code for the stop."""
        return self.code[3:]


@dataclass(frozen=True, slots=True)
class Line:
    """A line. destinations: of direction 1 and 2. route: the stops of direction 1; direction 2 has them reversed."""

    data_owner_code: str
    line_planning_number: str
    line_public_number: str
    name: str
    destinations: tuple[str, str]
    route: tuple[str, ...]
    colors: tuple[str | None, str | None] = (None, None)
    """LineColor and LineTextColor."""

    def destination_code(self, direction: int) -> str:
        """Return the DestinationCode of a direction, 1 or 2."""
        return f"LB{self.line_planning_number}{direction}"

    def journey_pattern_code(self, direction: int) -> str:
        """Return the JourneyPatternCode of a direction, 1 or 2: all its journeys have the same stops."""
        return f"{self.line_planning_number}0{direction}"

    def service_level(self, day: date) -> str:
        """Return the LocalServiceLevelCode of a date: one for weekdays, one for weekends."""
        return f"{self.line_planning_number}{'72' if is_weekend(day) else '71'}"


class Call(NamedTuple):  # cheaper than a dataclass: a day has tens of thousands
    """A call of a journey at a stop, as planned; times are seconds of the operating date (see times.moment)."""

    code: str
    arrival: int
    departure: int


@dataclass(frozen=True, slots=True)
class Journey:
    """A journey of one bus along a line on an operating date; direction is 1 or 2, as in KV7."""

    line: Line
    direction: int
    operating_date: date
    number: int
    fortify_order: int
    destination: str
    calls: tuple[Call, ...]


_Departure = tuple[float, Journey, Call]  # with its time (epoch seconds)
_time = itemgetter(0)


def is_weekend(day: date) -> bool:
    """Return whether a date has the weekend timetable."""
    return day.weekday() >= 5


@lru_cache(maxsize=4096)  # the journeys of three operating dates
def _draw_outcome(journey: str) -> tuple[bool, int, int]:
    """Return whether a journey is cancelled, and its delay in seconds at its start and its end."""
    random = Random(journey)
    largest = min(_MAX_DELAY, _MIN_DELAY + random.expovariate(1 / (2.5 * MINUTE)))
    at_start, at_end = (int(largest * random.uniform(0.5, 1)) for _ in range(2))
    return random.random() < _CANCELLED_FRACTION, at_start, at_end


class Town:
    """Lindewaard: forty stops, six lines, buses by day and night. The same seed produces the same town."""

    def __init__(self, seed: int = 55) -> None:
        self.seed = seed
        stops = ((town, *stop.split()) for town, stops in _STOPS.items() for stop in stops.split(","))
        self.stops = {
            _code(digits): _stop(_code(digits), name, town, *map(int, place)) for town, digits, name, *place in stops
        }
        self.lines = tuple(
            Line(
                *(_OPERATOR, planning, public, name, destinations, tuple(map(_code, route.split()))),
                colors=_COLORS.get(planning, (None, None)),
            )
            for planning, public, name, destinations, route, *_ in _LINES
        )
        self._plan = lru_cache(maxsize=8)(self._make_plan)  # a board needs three dates

    def journeys(self, operating_date: date) -> tuple[Journey, ...]:
        """Return all journeys of an operating date, line by line."""
        return self._plan(operating_date)[0]

    def cancelled(self, journey: Journey) -> bool:
        """Return whether a journey is cancelled."""
        return self._outcome(journey)[0]

    def delay(self, journey: Journey, now: float) -> int:
        """Return the delay of a journey now (epoch seconds), in seconds, at every stop; negative if it is early."""
        cancelled, delay_at_start, delay_at_end = self._outcome(journey)
        day, start, end = journey.operating_date, journey.calls[0].departure, journey.calls[-1].arrival
        elapsed = int(now - moment(day, start))
        if cancelled or elapsed < -_NOTICE_SECONDS:
            return 0
        # The delay changes by less than a second per second, so a bus that has left does not return. If the clocks
        # change meanwhile, it is constant: another second could then add an hour.
        if (
            moment(day, end + _MAX_DELAY) - moment(day, start - _NOTICE_SECONDS)
            != end + _MAX_DELAY - start + _NOTICE_SECONDS
        ):
            return delay_at_start
        progress = min(max(elapsed, 0), end - start)
        return delay_at_start + (delay_at_end - delay_at_start) * progress // (end - start)

    def status(self, journey: Journey, call: Call, now: float) -> str:
        """Return the TripStopStatus of a call now (epoch seconds)."""
        if self.cancelled(journey):
            return "CANCEL"
        day, now = journey.operating_date, int(now)
        if now < moment(day, journey.calls[0].departure) - _NOTICE_SECONDS:
            return "PLANNED"
        delay = self.delay(journey, now)
        if now < moment(day, call.arrival + delay):
            return "DRIVING"
        return "ARRIVED" if now <= moment(day, call.departure + delay) else "PASSED"

    def board(self, code: str, now: float, horizon: int = 2 * HOUR, max_trips: int = 20) -> Board:
        """Return the first departures from a stop between now (epoch seconds) and the horizon.

        horizon: seconds, up to a day. Raises KeyError if the stop is unknown.
        """
        second = int(now)  # a departure is shown to the end of its second
        today = local_date(now)
        departures: list[_Departure] = []
        # Yesterday's journeys continue after midnight, and tomorrow's are within the horizon before it.
        for day in (today + timedelta(days) for days in (-1, 0, 1)):
            planned = self._plan(day)[1][code]
            # An hour more on both sides, which a change of the clocks may add to a delay.
            begin = bisect_left(planned, second - _MAX_DELAY - HOUR, key=_time)
            end = bisect_right(planned, second + horizon - _MIN_DELAY + HOUR, key=_time)
            for _, journey, call in planned[begin:end]:
                expected = moment(day, call.departure + self.delay(journey, now))
                if second <= expected <= second + horizon:
                    departures.append((expected, journey, call))
        first = sorted(departures, key=_time)[:max_trips]
        return Board(code, tuple(self._trip(journey, call, now) for _, journey, call in first), now)

    def _trip(self, journey: Journey, call: Call, now: float) -> Trip:
        line, delay = journey.line, self.delay(journey, now)
        return Trip(
            operating_date=journey.operating_date.isoformat(),
            data_owner_code=line.data_owner_code,
            line_planning_number=line.line_planning_number,
            line_public_number=line.line_public_number,
            destination_name=journey.destination,
            journey_number=str(journey.number),
            fortify_order_number=str(journey.fortify_order),
            target_arrival_time=write_time(call.arrival),
            expected_arrival_time=write_time(call.arrival + delay),
            target_departure_time=write_time(call.departure),
            expected_departure_time=write_time(call.departure + delay),
            trip_stop_status=self.status(journey, call, now),
        )

    def _outcome(self, journey: Journey) -> tuple[bool, int, int]:
        number = f"{journey.line.line_planning_number}/{journey.number}/{journey.fortify_order}"
        return _draw_outcome(f"{self.seed}/{journey.operating_date}/{number}")

    def _make_plan(self, day: date) -> tuple[tuple[Journey, ...], dict[str, list[_Departure]]]:
        """Return the journeys of an operating date, and by stop code the planned departures, in order."""
        journeys = tuple(self._make_journeys(day))
        departures: dict[str, list[_Departure]] = {code: [] for code in self.stops}
        for journey in journeys:
            for call in journey.calls[:-1]:  # nothing departs from the last stop
                departures[call.code].append((moment(day, call.departure), journey, call))
        for planned in departures.values():
            planned.sort(key=_time)
        return journeys, departures

    def _make_journeys(self, day: date) -> Iterator[Journey]:
        weekend = is_weekend(day)
        for line, (*_, leg_seconds, weekday_headways, weekend_headways) in zip(self.lines, _LINES, strict=True):
            random = Random(f"{self.seed}/{line.line_planning_number}")
            legs = [random.randrange(*leg_seconds, 15) for _ in line.route[1:]]
            for direction, step, destination in zip((1, 2), (1, -1), line.destinations, strict=True):
                shift = random.randrange(15) * MINUTE
                starts = _starts(weekend_headways if weekend else weekday_headways, shift)
                course = tuple(_calls(line.route[::step], legs[::step], 0))
                for number, start in zip(count(1000 + direction, 2), starts):  # odd in direction 1, even in 2
                    calls = tuple(
                        Call(code, start + arrival, start + departure) for code, arrival, departure in course
                    )
                    for fortify_order in (0, 1) if start in _RUSH and not weekend else (0,):
                        yield Journey(line, direction, day, number, fortify_order, destination, calls)


def _code(digits: str) -> str:
    return f"57330{digits}0"


def _stop(code: str, name: str, town: str, east: int, north: int) -> Stop:
    area = STATION_AREA if code in _AT_STATION else None
    return Stop(code, name, town, _STATION_X + 100 * east, _STATION_Y + 100 * north, area)


def _starts(headways: _Headways, shift: int) -> Iterator[int]:
    for (start, minutes), (end, _) in pairwise(headways):
        yield from range(int(start * HOUR) + shift, int(end * HOUR) + shift, minutes * MINUTE)


def _calls(route: tuple[str, ...], legs: list[int], departure: int) -> Iterator[Call]:
    yield Call(route[0], departure, departure)
    for code, leg in zip(route[1:], legs, strict=True):
        arrival = departure + leg
        # Buses wait for trains at the station, but not at their last stop.
        departure = arrival + (0 if code == route[-1] else 90 if code == STATION else 15)
        yield Call(code, arrival, departure)
