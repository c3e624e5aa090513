"""Tests of the made-up town: timetable, delays and boards."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import pairwise
from math import dist

from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.board import Trip
from govi_server.departures.times import HOUR, MINUTE, moment, read_time
from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.simulator.town import STATION, STATION_AREA, Call, Journey, Town
from tests.simulator.messages import TOWN

FRIDAY = date(2026, 5, 8)
SATURDAY = date(2026, 5, 9)
SPRING, AUTUMN = date(2026, 3, 29), date(2026, 10, 25)  # the clock changes


def at(day: date, hour: int, minute: int = 0) -> int:
    """Return the epoch seconds of a local time in the Netherlands."""
    return int(datetime(day.year, day.month, day.day, hour, minute, tzinfo=LOCAL_ZONE).timestamp())


def time_of(trip: Trip, time: str | None) -> float:
    """Return the epoch seconds of one of a trip's times."""
    assert trip.operating_date is not None
    seconds = read_time(time or "")
    assert seconds is not None
    return moment(date.fromisoformat(trip.operating_date), seconds)


def expected(trip: Trip) -> float:
    """Return the expected departure of a trip, in epoch seconds."""
    return time_of(trip, trip.expected_departure_time)


class TimetableTests(SynchronousTestCase):
    """The town's timetable."""

    town = TOWN

    def test_size(self) -> None:
        """The town has forty stops with codes of eight digits, and six lines with short public numbers."""
        self.assertEqual(len(self.town.stops), 40)
        for code, stop in self.town.stops.items():
            self.assertRegex(code, r"\A[0-9]{8}\Z")
            self.assertEqual(stop.code, code)
        self.assertEqual(len(self.town.lines), 6)
        for line in self.town.lines:
            self.assertTrue(0 < len(line.line_public_number) <= 4)
            self.assertTrue(0 < len(line.data_owner_code) <= 10)

    def test_routes(self) -> None:
        """Every stop is served, no line calls at a stop twice, and every line calls at the station."""
        routes = [line.route for line in self.town.lines]
        self.assertEqual({code for route in routes for code in route}, set(self.town.stops))
        for route in routes:
            self.assertEqual(len(set(route)), len(route))
            self.assertIn(STATION, route)

    def test_places(self) -> None:
        """Stops are in the Netherlands, and near each other on a route; two of them are in the station's area."""
        stops = self.town.stops
        for stop in stops.values():
            self.assertTrue(7_000 < stop.x < 300_000)
            self.assertTrue(289_000 < stop.y < 629_000)
        for line in self.town.lines:
            for stop, following in pairwise(stops[code] for code in line.route):
                self.assertTrue(200 < dist((stop.x, stop.y), (following.x, following.y)) < 1600, (stop, following))
        area = [code for code, stop in stops.items() if stop.area == STATION_AREA]
        self.assertEqual(len(area), 2)
        self.assertIn(STATION, area)
        self.assertEqual(len({stop.user_stop_code for stop in stops.values()}), len(stops))

    def test_every_stop_served_every_day(self) -> None:
        """Every stop has a departure on a weekday and at the weekend."""
        for day in (FRIDAY, SATURDAY):
            served = {call.code for journey in self.town.journeys(day) for call in journey.calls[:-1]}
            self.assertEqual(served, set(self.town.stops))

    def test_journeys(self) -> None:
        """A journey has a unique line, number and order, and its calls are in the order of its direction."""
        for day in (FRIDAY, SATURDAY):
            journeys = self.town.journeys(day)
            keys = {(journey.line, journey.number, journey.fortify_order) for journey in journeys}
            self.assertEqual(len(keys), len(journeys))
            for journey in journeys:
                self.assertEqual(journey.operating_date, day)
                self.assertTrue(0 < journey.number < 1_000_000)
                self.assertEqual(journey.destination, journey.line.destinations[journey.direction - 1])
                route = journey.line.route if journey.direction == 1 else journey.line.route[::-1]
                self.assertEqual(tuple(call.code for call in journey.calls), route)
                times = [time for call in journey.calls for time in (call.arrival, call.departure)]
                self.assertEqual(times, sorted(times))

    def test_fortified_journeys(self) -> None:
        """A few journeys of the rush hour have a second bus with the same number."""
        journeys = self.town.journeys(FRIDAY)
        numbers = {(journey.line, journey.number) for journey in journeys if journey.fortify_order == 0}
        second = [journey for journey in journeys if journey.fortify_order == 1]
        self.assertTrue(0 < len(second) < 20)
        for journey in second:
            self.assertIn((journey.line, journey.number), numbers)

    def test_headways(self) -> None:
        """Journeys are more frequent on weekdays than at weekends, most in the peak and least at night."""
        friday = self.town.journeys(FRIDAY)
        self.assertGreater(len(friday), len(self.town.journeys(SATURDAY)))
        hours = [journey.calls[0].departure // HOUR for journey in friday]
        self.assertGreater(hours.count(8), hours.count(12))
        self.assertGreater(hours.count(12), hours.count(21))
        self.assertGreater(hours.count(21), hours.count(26))

    def test_no_gap_at_the_station(self) -> None:
        """In a week without a clock change, the station has a departure at least every 65 minutes."""
        for town in (self.town, Town(20)):
            departures = sorted(
                moment(day, call.departure)
                for day in (FRIDAY + timedelta(days) for days in range(8))
                for journey in town.journeys(day)
                for call in journey.calls[:-1]
                if call.code == STATION
            )
            self.assertLessEqual(max(later - earlier for earlier, later in pairwise(departures)), 65 * MINUTE)


class RealTimeTests(SynchronousTestCase):
    """Delays and cancellations, a pure function of seed, journey and time."""

    town = TOWN

    def journeys(self) -> Iterator[Journey]:
        for days in range(7):
            yield from self.town.journeys(FRIDAY + timedelta(days))

    def test_cancelled(self) -> None:
        """About one journey in fifty is cancelled, and has no delay."""
        journeys = list(self.journeys())
        cancelled = [journey for journey in journeys if self.town.cancelled(journey)]
        self.assertTrue(0.01 < len(cancelled) / len(journeys) < 0.03)
        for journey in cancelled:
            now = moment(journey.operating_date, journey.calls[0].departure)
            self.assertEqual(self.town.delay(journey, now), 0)
            self.assertEqual(self.town.status(journey, journey.calls[0], now), "CANCEL")

    def test_delays(self) -> None:
        """Most journeys are up to five minutes late, some up to twelve, and none over half a minute early."""
        delays = [
            self.town.delay(journey, moment(journey.operating_date, journey.calls[-1].arrival))
            for journey in self.journeys()
        ]
        self.assertGreaterEqual(min(delays), -30)
        self.assertTrue(8 * MINUTE < max(delays) <= 12 * MINUTE)
        self.assertGreater(sum(0 <= delay < 5 * MINUTE for delay in delays), 0.6 * len(delays))

    def test_seed(self) -> None:
        """Another seed produces other times, and other delays of the same journey."""
        other = Town(56)
        self.assertNotEqual(other.journeys(FRIDAY), self.town.journeys(FRIDAY))
        now, journeys = at(FRIDAY, 12), self.town.journeys(FRIDAY)[:10]
        delays = [self.town.delay(journey, now) for journey in journeys]
        self.assertNotEqual([other.delay(journey, now) for journey in journeys], delays)

    def test_departed_bus_does_not_return(self) -> None:
        """A delay never grows faster than time, so a departed bus does not reappear."""
        for journey in self.town.journeys(FRIDAY)[::25]:
            start = int(moment(FRIDAY, journey.calls[0].departure))
            progress = [now - self.town.delay(journey, now) for now in range(start, start + HOUR)]
            self.assertEqual(progress, sorted(progress))

    def test_departed_bus_does_not_return_when_clocks_change(self) -> None:
        """A departed bus does not reappear when the clocks change during the journey."""
        for day in (SPRING, AUTUMN):
            changed = 0
            for journey in self.town.journeys(day - timedelta(days=1)):
                if not 25 * HOUR <= journey.calls[0].departure < 27 * HOUR:
                    continue
                for call in journey.calls[:-1:3]:
                    start = at(day, 1)
                    statuses = [self.status_of(journey, call, now) for now in range(start, start + 5 * HOUR, 40)]
                    self.assertEqual(statuses, sorted(statuses))
                changed += 1
            self.assertGreater(changed, 0)

    def status_of(self, journey: Journey, call: Call, now: int) -> int:
        order = ("PLANNED", "DRIVING", "ARRIVED", "PASSED")
        return -1 if self.town.cancelled(journey) else order.index(self.town.status(journey, call, now))

    def test_status_of_a_journey(self) -> None:
        """A call is PLANNED until a quarter of an hour before the start, then DRIVING, ARRIVED and PASSED."""
        late = (j for j in self.town.journeys(FRIDAY) if self.town.delay(j, at(SATURDAY, 12)) > MINUTE)
        journey = next(late)
        call = next(call for call in journey.calls if call.code == STATION)
        start = int(moment(FRIDAY, journey.calls[0].departure))
        statuses: list[str] = []
        for now in range(start - 20 * MINUTE, start + HOUR):
            status = self.town.status(journey, call, now)
            if status not in statuses[-1:]:
                statuses.append(status)
        self.assertEqual(statuses, ["PLANNED", "DRIVING", "ARRIVED", "PASSED"])
        self.assertEqual(self.town.status(journey, call, start - 15 * MINUTE - 1), "PLANNED")
        self.assertEqual(self.town.delay(journey, start - 15 * MINUTE - 1), 0)
        self.assertEqual(self.town.status(journey, call, start - 15 * MINUTE), "DRIVING")
        self.assertGreater(self.town.delay(journey, start - 15 * MINUTE), 0)


class BoardTests(SynchronousTestCase):
    """The departures from a stop."""

    town = TOWN

    def assertInOrder(self, code: str, now: int) -> None:
        """Assert that a board is not empty, is sorted, and has only departures in the future."""
        times = [expected(trip) for trip in self.town.board(code, now).trips]
        self.assertTrue(times)
        self.assertEqual(times, sorted(times))
        self.assertGreaterEqual(times[0], now)
        self.assertLessEqual(times[-1], now + 2 * HOUR)

    def test_seed(self) -> None:
        """The same seed produces the same boards; another seed produces others."""
        now = at(FRIDAY, 8)
        same = Town()
        for code in self.town.stops:
            self.assertEqual(same.board(code, now), self.town.board(code, now))
        self.assertNotEqual(Town(56).board(STATION, now), self.town.board(STATION, now))

    def test_unknown_stop(self) -> None:
        """An unknown stop raises KeyError."""
        self.assertRaises(KeyError, self.town.board, "57330000", at(FRIDAY, 8))

    def test_trip(self) -> None:
        """A board has the time and no envelope; a trip has all its texts."""
        now = at(FRIDAY, 12) + 0.5
        board = self.town.board(STATION, now)
        self.assertEqual((board.code, board.received_at, board.envelope), (STATION, now, ()))
        for trip in board.trips:
            self.assertEqual(trip.operating_date, "2026-05-08")
            self.assertEqual(trip.data_owner_code, self.town.lines[0].data_owner_code)
            self.assertRegex(trip.journey_number or "", r"\A[0-9]{1,6}\Z")
            self.assertEqual(trip.fortify_order_number, "0")
            self.assertRegex(trip.target_arrival_time or "", r"\A1[1-4](:[0-5][0-9]){2}\Z")
            self.assertLessEqual(trip.target_arrival_time or "", trip.target_departure_time or "")
            self.assertLessEqual(trip.expected_arrival_time or "", trip.expected_departure_time or "")
            self.assertIn(trip.trip_stop_status, ("PLANNED", "DRIVING", "ARRIVED", "CANCEL"))
            if trip.trip_stop_status in ("PLANNED", "CANCEL"):
                self.assertEqual(trip.expected_departure_time, trip.target_departure_time)

    def test_no_arrivals(self) -> None:
        """At the end of a line the board has only departures."""
        trips = self.town.board("57330410", at(FRIDAY, 12)).trips
        self.assertEqual({trip.destination_name for trip in trips}, {"Lindewaard Station"})

    def test_max_trips_and_horizon(self) -> None:
        """A board has at most the requested trips, up to the horizon."""
        now = at(FRIDAY, 8)
        all_trips = self.town.board(STATION, now, horizon=HOUR, max_trips=1000).trips
        self.assertGreater(len(all_trips), 20)
        self.assertLessEqual(expected(all_trips[-1]), now + HOUR)
        self.assertEqual(self.town.board(STATION, now, max_trips=5).trips, all_trips[:5])

    def test_station_always_has_departures(self) -> None:
        """The station has departures at all times of a week, including nights."""
        for now in range(at(FRIDAY, 0), at(FRIDAY + timedelta(days=7), 0), 10 * MINUTE):
            self.assertInOrder(STATION, now)

    def test_past_midnight(self) -> None:
        """At half past midnight the trips are those of the previous day, with hours from 24."""
        for day in (FRIDAY, SATURDAY):
            trips = self.town.board(STATION, at(day + timedelta(days=1), 0, 30)).trips
            self.assertTrue(trips)
            for trip in trips:
                self.assertEqual(trip.operating_date, day.isoformat())
                self.assertGreaterEqual(trip.target_departure_time or "", "24:00:00")

    def test_both_dates_in_the_morning(self) -> None:
        """Before dawn the last departures of the previous day precede the first ones of today."""
        dates = [trip.operating_date for trip in self.town.board(STATION, at(SATURDAY, 4, 20)).trips]
        self.assertEqual(set(dates), {"2026-05-08", "2026-05-09"})
        self.assertEqual(dates, sorted(dates, key=str))

    def test_clock_changes(self) -> None:
        """Around both changes of the clocks the board is in order and not empty."""
        for day in (SPRING, AUTUMN):
            for now in range(at(day, 0) - 4 * HOUR, at(day, 12), 10 * MINUTE):
                self.assertInOrder(STATION, now)

    def test_wall_clock(self) -> None:
        """On days with a clock change, times after the change are local times."""
        for day, hour in ((SPRING, 1), (SPRING, 4), (AUTUMN, 1), (AUTUMN, 3), (SPRING, 8), (AUTUMN, 8)):
            (trip, *_) = self.town.board(STATION, at(day, hour)).trips
            hours = hour if trip.operating_date == day.isoformat() else hour + 24
            self.assertIn(int((trip.expected_departure_time or "")[:2]), (hours, hours + 1))

    def test_departed_trips_are_removed(self) -> None:
        """A trip leaves the board at its departure, late or not, and a cancelled one at its target time."""
        statuses: set[str | None] = set()
        late = 0
        for now in range(at(FRIDAY, 7), at(FRIDAY, 19), 5 * MINUTE):
            for trip in self.town.board(STATION, now).trips:
                statuses.add(trip.trip_stop_status)
                target = time_of(trip, trip.target_departure_time)
                late += target < now <= expected(trip)
                if trip.trip_stop_status == "CANCEL":
                    self.assertGreaterEqual(target, now)
        self.assertEqual(statuses, {"PLANNED", "DRIVING", "ARRIVED", "CANCEL"})
        self.assertGreater(late, 0)
