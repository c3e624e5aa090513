"""A made-up Dutch town and its buses: timetable and delays follow from a seed, a date and a moment alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import count, pairwise
from operator import itemgetter
from random import Random
from zoneinfo import ZoneInfo

from govi_server.departures.board import Board, Trip

MINUTES = 60
HOURS = 60 * MINUTES
AMSTERDAM = ZoneInfo("Europe/Amsterdam")

# Stops by town. A TimingPointCode is 57330, the two digits here, and 0.
_STOPS = {
    "Lindewaard": """
        04 Lindenhof, 05 Wilgenpad, 06 Kastanjehof, 07 Molenwiek, 08 Marktveld, 09 Spoorsingel,
        10 Ziekenhuis, 11 Waardkade, 12 Zuiderwaard, 13 Noorderbrink, 14 Brinkpad, 15 Vlierhof, 16 Stadhuis,
        17 Havenkade, 18 Werf, 19 Sluisplein, 20 Veerstoep, 21 Theaterplein, 22 Schoolpad, 23 Sportpark,
        24 Meerzicht, 25 Rietlanden, 26 Strand, 27 Campus, 28 Lyceum, 29 Leeszaal, 30 Korenbeurs, 31 Tuinwijk,
        32 Appelgaard, 33 Perengaard, 34 Nijverheid, 35 Transferium, 42 Muziekzaal, 43 Station""",
    "Hogerdijk": "36 Dijkhuis, 37 Dorpsplein, 38 Polderhoek",
    "Elzenveen": "39 Turfkade, 40 Kerkbrink, 41 Eindpunt",
}
STATION = "57330430"
_OWNER = "LINDEBUS"  # the DataOwnerCode of no operator

# From which hour of the operating day a bus leaves every how many minutes; the last row is the end.
_Headways = tuple[tuple[float, int], ...]
_BUSY: _Headways = ((5, 30), (7, 10), (9, 15), (16, 10), (18.5, 15), (20, 30), (24.5, 0))
_BUSY_WEEKEND: _Headways = ((5, 30), (9, 15), (18, 30), (24.5, 0))
_QUIET: _Headways = ((5.5, 30), (7, 15), (9, 30), (15.5, 15), (18.5, 30), (23.5, 0))
_QUIET_WEEKEND: _Headways = ((6, 60), (9, 30), (18, 60), (23, 0))
_NIGHT: _Headways = ((23.5, 60), (29, 0))
_NIGHT_WEEKEND: _Headways = ((23.5, 30), (29.5, 0))

# Planning and public number, name, destinations, route (stops as above), shortest and longest leg in seconds,
# headways from Monday to Friday and in the weekend. Direction 2 runs the route backwards.
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
_RUSH = range(8 * HOURS, 8 * HOURS + 15 * MINUTES)  # who starts now on a weekday has a second bus with it
_NOTICE = 15 * MINUTES  # before its start a journey is not seen to be late
_EARLIEST, _LATEST = -30, 12 * MINUTES
_CANCELLED = 0.02


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop, for both directions; code is its TimingPointCode, eight ASCII digits."""

    code: str
    name: str
    town: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line; destinations and route (stop codes) are those of direction 1, then 2 and backwards."""

    data_owner_code: str
    line_planning_number: str
    line_public_number: str
    name: str
    destinations: tuple[str, str]
    route: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A planned stop of a journey; times are seconds since the start of the operating day (see epoch)."""

    code: str
    arrival: int
    departure: int


@dataclass(frozen=True, slots=True)
class Journey:
    """One ride of one bus along a line on an operating date; direction is 1 or 2, as in KV7."""

    line: Line
    direction: int
    operating_date: date
    number: int
    fortify_order: int
    destination: str
    calls: tuple[Call, ...]


def epoch(operating_date: date, seconds: int) -> int:
    """Give the epoch seconds of a moment that is so many seconds after the start of an operating date."""
    # The day starts at "noon minus 12h", as in GTFS: at midnight, except on the two days on which the clock
    # changes, where only so the times after the change are those of the clock on the wall.
    noon = datetime(operating_date.year, operating_date.month, operating_date.day, 12, tzinfo=AMSTERDAM)
    return int(noon.timestamp()) - 12 * HOURS + seconds


def clock(seconds: int) -> str:
    """Write seconds since the start of an operating day as HH:MM:SS, running on past 24:00:00."""
    return f"{seconds // HOURS:02}:{seconds // MINUTES % 60:02}:{seconds % 60:02}"


@lru_cache(maxsize=4096)  # three operating dates, and some
def _draw(journey: str) -> tuple[bool, int, int]:
    """Draw whether a journey is cancelled, and its seconds late at the start and at the end."""
    random = Random(journey)
    worst = min(_LATEST, _EARLIEST + random.expovariate(1 / (2.5 * MINUTES)))
    first, last = (int(worst * random.uniform(0.5, 1)) for _ in range(2))
    return random.random() < _CANCELLED, first, last


class Town:
    """Lindewaard: forty stops, six lines, buses by day and night; the same seed is the same town."""

    def __init__(self, seed: int = 55) -> None:
        self.seed = seed
        stops = ((town, *stop.split()) for town, stops in _STOPS.items() for stop in stops.split(","))
        self.stops = {_code(digits): Stop(_code(digits), name, town) for town, digits, name in stops}
        self.lines = tuple(
            Line(_OWNER, planning, public, name, destinations, tuple(map(_code, route.split())))
            for planning, public, name, destinations, route, *_ in _LINES
        )
        self._day = lru_cache(maxsize=8)(self._plan)  # a board takes three dates

    def journeys(self, operating_date: date) -> tuple[Journey, ...]:
        """Give all journeys of an operating date, line by line."""
        return self._day(operating_date)[0]

    def cancelled(self, journey: Journey) -> bool:
        """Tell whether a journey does not run."""
        return self._fate(journey)[0]

    def delay(self, journey: Journey, now: float) -> int:
        """Give the seconds that a journey is late (early: negative) at every stop, now (epoch seconds)."""
        cancelled, first, last = self._fate(journey)
        start, end = journey.calls[0].departure, journey.calls[-1].arrival
        ridden = int(now) - epoch(journey.operating_date, start)
        if cancelled or ridden < -_NOTICE:
            return 0
        # It changes by less than a second per second, so a bus that has left does not come back.
        return first + (last - first) * min(max(ridden, 0), end - start) // (end - start)

    def status(self, journey: Journey, call: Call, now: float) -> str:
        """Give the TripStopStatus of a call now (epoch seconds)."""
        if self.cancelled(journey):
            return "CANCEL"
        moment = int(now) - epoch(journey.operating_date, 0)
        if moment < journey.calls[0].departure - _NOTICE:
            return "PLANNED"
        moment -= self.delay(journey, now)
        if moment < call.arrival:
            return "DRIVING"
        return "ARRIVED" if moment <= call.departure else "PASSED"

    def board(self, code: str, now: float, horizon: int = 2 * HOURS, most: int = 20) -> Board:
        """Give the first so many trips that leave from a stop between now (epoch seconds) and the horizon.

        horizon: seconds, up to a day. Raises KeyError for a stop that is not there.
        """
        moment = int(now)  # a bus is shown to the end of the second in which it leaves
        today = datetime.fromtimestamp(now, AMSTERDAM).date()
        leaving: list[tuple[int, Journey, Call]] = []
        # Yesterday's buses ride on after midnight, and tomorrow's are within the horizon before it.
        for day in (today + timedelta(days) for days in (-1, 0, 1)):
            start = epoch(day, 0)
            for journey, call in self._day(day)[1][code]:
                target = start + call.departure
                if moment - _LATEST <= target <= moment + horizon - _EARLIEST:
                    expected = target + self.delay(journey, now)
                    if moment <= expected <= moment + horizon:
                        leaving.append((expected, journey, call))
        first = sorted(leaving, key=itemgetter(0))[:most]
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
            target_arrival_time=clock(call.arrival),
            expected_arrival_time=clock(call.arrival + delay),
            target_departure_time=clock(call.departure),
            expected_departure_time=clock(call.departure + delay),
            trip_stop_status=self.status(journey, call, now),
        )

    def _fate(self, journey: Journey) -> tuple[bool, int, int]:
        number = f"{journey.line.line_planning_number}/{journey.number}/{journey.fortify_order}"
        return _draw(f"{self.seed}/{journey.operating_date}/{number}")

    def _plan(self, day: date) -> tuple[tuple[Journey, ...], dict[str, list[tuple[Journey, Call]]]]:
        """Make the journeys of an operating date, and by stop code those that leave there with their call."""
        journeys = tuple(self._ride(day))
        leaving: dict[str, list[tuple[Journey, Call]]] = {code: [] for code in self.stops}
        for journey in journeys:
            for call in journey.calls[:-1]:  # at its last stop it only arrives
                leaving[call.code].append((journey, call))
        return journeys, leaving

    def _ride(self, day: date) -> Iterator[Journey]:
        weekend = day.weekday() >= 5
        for line, (*_, pace, weekday_headways, weekend_headways) in zip(self.lines, _LINES, strict=True):
            random = Random(f"{self.seed}/{line.line_planning_number}")
            legs = [random.randrange(*pace, 15) for _ in line.route[1:]]
            for direction, step, destination in zip((1, 2), (1, -1), line.destinations, strict=True):
                shift = random.randrange(15) * MINUTES
                starts = _starts(weekend_headways if weekend else weekday_headways, shift)
                for number, start in zip(count(1000 + direction, 2), starts):  # odd there, even back
                    calls = tuple(_calls(line.route[::step], legs[::step], start))
                    for order in (0, 1) if start in _RUSH and not weekend else (0,):
                        yield Journey(line, direction, day, number, order, destination, calls)


def _code(digits: str) -> str:
    return f"57330{digits}0"


def _starts(headways: _Headways, shift: int) -> Iterator[int]:
    for (start, minutes), (end, _) in pairwise(headways):
        yield from range(int(start * HOURS) + shift, int(end * HOURS) + shift, minutes * MINUTES)


def _calls(route: tuple[str, ...], legs: list[int], departure: int) -> Iterator[Call]:
    yield Call(route[0], departure, departure)
    for code, leg in zip(route[1:], legs, strict=True):
        arrival = departure + leg
        # At the station buses wait for the trains; at the last stop there is nothing to wait for.
        departure = arrival + (0 if code == route[-1] else 90 if code == STATION else 15)
        yield Call(code, arrival, departure)
