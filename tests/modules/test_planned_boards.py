"""Boards from KV8, KV7 and GTFS equal those of a model, whatever arrives in whatever order."""

import json
import os
from collections.abc import Sequence
from datetime import date, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from govi_server.departures.times import HOUR, MINUTE, local_timestamp, moment, write_time
from govi_server.modules.board import BoardPages
from govi_server.modules.display_source import FeedDisplays
from govi_server.planning import layout
from govi_server.planning.builder import Builder, TripKey, TripValues
from govi_server.planning.planning import PlannedLine, Planning
from tests import feed as kv
from tests.doubles import ingest
from tests.modules.board_model import KV7_DESTINATION, Departure, Journey, LiveCall, Model
from tests.modules.test_kv55_feed import LiveTestCase

EXAMPLES = int(os.environ.get("GOVI_EXAMPLES", "25"))
"""Sequences of changes; more find more."""

STOPS = ("30000001", "30000002", "30000003")
TERMINUS = "30000009"
HORIZON = 5 * HOUR

DAYS = (date(2026, 1, 1), date(2026, 3, 29), date(2026, 10, 25))
"""A usual operating date, and those on which the clocks change."""

OPERATORS = {"LIN": ("L1", "L2", "L3"), "BUS": ("B1",)}
LINES = [(operator, line) for operator, lines in OPERATORS.items() for line in lines]


def journeys(day: date) -> st.SearchStrategy[Journey]:
    """Return journeys on a day, the day before and after, around midnight and around the change of the clocks."""
    near = [day + timedelta(n) for n in (-1, 0, 1)]
    return st.builds(
        lambda line, number, days, start, stops: Journey(
            line[0], line[1], f"7{line[1]}{number}", number, frozenset(days),
            (*((stop, start + n * 7 * MINUTE) for n, stop in enumerate(stops)), (TERMINUS, start + HOUR)),
        ),
        st.sampled_from(LINES),
        st.sampled_from("123"),
        st.lists(st.sampled_from(near), min_size=1, max_size=3),
        st.sampled_from([round(hour * HOUR) for hour in (0.2, 1.9, 2.5, 3.1, 22.8, 23.9, 24.4, 26.5)]),
        st.lists(st.sampled_from(STOPS), min_size=1, max_size=4),
    )  # fmt: skip


def unique(planned: Sequence[Journey]) -> list[Journey]:
    """Return the journeys without those whose number another one of their line has."""
    return list({(journey.operator, journey.line, journey.number): journey for journey in planned}.values())


@st.composite
def live_calls(draw: st.DrawFn, planned: Sequence[Journey], midnight: float) -> list[LiveCall]:
    """Return rows of KV8: of some planned journeys, each at some of its stops, or moved to another stop."""
    rows = {}
    for journey in draw(st.lists(st.sampled_from(planned), max_size=5)) if planned else ():
        day = draw(st.sampled_from(sorted(journey.days)))
        if abs(moment(day, journey.calls[0][1]) - midnight) > 6 * HOUR:  # KV8 has the next hours
            continue
        for order, (stop, _) in enumerate(journey.calls[:-1], 1):
            code = draw(st.sampled_from((stop, stop, stop, "30000004", None)))
            if code is not None:
                delay = draw(st.sampled_from((0, 20, 3 * MINUTE, 50 * MINUTE, -2 * MINUTE)))
                row = LiveCall(journey, day, order, code, delay, draw(st.sampled_from(("DRIVING", "CANCEL"))))
                rows[row.key] = row
    return list(rows.values())


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[date, Model, list[str], list[float]]:
    """Return a day, all data, the order in which it arrives, and the moments of requests."""
    day = draw(st.sampled_from(DAYS))
    gtfs = unique(draw(st.lists(journeys(day), max_size=8)))
    kv7 = unique(draw(st.lists(st.one_of(journeys(day), *([st.sampled_from(gtfs)] if gtfs else [])), max_size=5)))
    live = draw(live_calls([*gtfs, *(journey for journey in kv7 if journey not in gtfs)], moment(day, 0)))
    arrivals = draw(
        st.permutations(draw(st.sampled_from((["live", "gtfs"], ["live", "kv7"], ["live", "kv7", "gtfs"]))))
    )
    hours = draw(st.lists(st.sampled_from((-1.5, -0.2, 0.1, 1.4, 2.1, 2.6, 3.2)), min_size=1, max_size=3))
    return day, Model(live, kv7, gtfs), list(arrivals), [moment(day, 0) + hour * HOUR for hour in sorted(hours)]


def planning_of(planned: Sequence[Journey], first_day: date) -> Planning:
    """Return the planning of journeys."""
    builder = Builder(first_day)
    for stop, area in zip((*STOPS, TERMINUS), ("area:1", "area:1", "", ""), strict=True):
        builder.add_stop(stop, f"Lindedorp, {stop}", "Lindedorp", area, "", (155_000, 463_000))
    for journey in planned:
        builder.add_line(PlannedLine(journey.operator, journey.line, f"Lijn {journey.line}", "", 3, "", ""))
        days = sum(1 << (day - first_day).days for day in journey.days)
        key = TripKey((journey.operator, journey.line), journey.number, journey.level, "0")
        stops = [builder.add_stop(stop, "", "", "", "", (0, 0)) or 0 for stop, _ in journey.calls]
        times = [time for _, time in journey.calls]
        builder.add_trip(key, TripValues(builder.text(journey.direction), 0, 0, days), (stops, times, times))
    return Planning(memoryview(b"".join(layout.encode(*builder.columns()))))


class PlannedBoardTests(LiveTestCase):
    """Boards of a feed, in JSON."""

    def start(self, now: float) -> None:
        self.setUp()
        self.clock.advance(now - self.clock.seconds() if now > self.clock.seconds() else 0)
        self.clock.rightNow = now
        self.up()
        BoardPages(FeedDisplays(self.feed), self.clock).setServiceParent(self.modules)

    def board(self, code: str) -> list[Departure]:
        path = f"/board/{code}?horizon={HORIZON // MINUTE}&fields={','.join(Departure._fields)}"
        client = self.client()
        client.get(path, Accept="application/json")
        self.clock.pump([0.0] * 3)  # of a place, after the index of places has been built
        response = client.response()
        client.leave()
        (stop,) = json.loads(response.body)["stops"]
        return sorted((Departure(**departure) for departure in stop["departures"]), key=str)

    def receive(self, kind: str, model: Model, day: date) -> None:
        """Receive KV8, KV7 or GTFS."""
        if kind == "gtfs":
            self.feed.use_planning(planning_of(model.gtfs, day - timedelta(3)))
            self.clock.pump([0.0] * 50)
        elif kind == "kv7":
            self.receive_kv7(model.kv7)
        elif model.live:
            self.receive_live(model.live)

    def receive_kv7(self, planned: Sequence[Journey]) -> None:
        published = local_timestamp(self.clock.seconds())
        stops = {stop for journey in planned for stop, _ in journey.calls}
        operators = {journey.operator for journey in planned}
        rows = [
            {
                "DataOwnerCode": journey.operator,
                "LocalServiceLevelCode": journey.level,
                "LinePlanningNumber": journey.line,
                "JourneyNumber": journey.number,
                "UserStopCode": f"u{stop}",
                "UserStopOrderNumber": str(order),
                "DestinationCode": "D1",
                "TargetArrivalTime": write_time(time),
                "TargetDepartureTime": "00:00:00" if order == len(journey.calls) else write_time(time),
                "JourneyStopType": "LAST" if order == len(journey.calls) else "INTERMEDIATE",
            }
            for journey in planned
            for order, (stop, time) in enumerate(journey.calls, 1)
        ]
        lines = {(journey.operator, journey.line) for journey in planned}
        ingest(
            self.feed,
            kv.planning(
                *rows,
                lines=[
                    {"DataOwnerCode": operator, "LinePlanningNumber": line, "LinePublicNumber": f"Lijn {line}"}
                    for operator, line in lines
                ],
                destinations=[{"DataOwnerCode": name, "DestinationName50": KV7_DESTINATION} for name in operators],
                points=[{"TimingPointCode": stop} for stop in stops],
                user_stops=[
                    {"DataOwnerCode": operator, "TimingPointCode": stop, "UserStopCode": f"u{stop}"}
                    for operator in operators
                    for stop in stops
                ],
                published=published,
            ),
            *(
                kv.calendar(
                    *map(str, journey.days),
                    level={
                        "DataOwnerCode": journey.operator,
                        "LocalServiceLevelCode": journey.level,
                    },
                    published=published,
                )
                for journey in planned
            ),
        )

    def receive_live(self, live: Sequence[LiveCall]) -> None:
        rows = []
        for row in live:
            planned, expected = write_time(row.planned), write_time(row.planned + row.delay)
            rows.append(
                {
                    "DataOwnerCode": row.journey.operator,
                    "OperationDate": str(row.day),
                    "LinePlanningNumber": row.journey.line,
                    "JourneyNumber": row.journey.number,
                    "LocalServiceLevelCode": row.journey.level,
                    "UserStopOrderNumber": str(row.order),
                    "UserStopCode": f"u{row.code}",
                    "TimingPointCode": row.code,
                    "DestinationCode": "D1",
                    "TripStopStatus": row.status,
                    "LastUpdateTimeStamp": local_timestamp(self.clock.seconds()),
                    **dict.fromkeys(("TargetArrivalTime", "TargetDepartureTime"), planned),
                    **dict.fromkeys(("ExpectedArrivalTime", "ExpectedDepartureTime"), expected),
                }
            )
        ingest(self.feed, kv.passtimes(*rows))

    @settings(deadline=None, max_examples=EXAMPLES)
    @given(scenarios())
    def test_boards_equal_those_of_the_model(self, scenario: tuple[date, Model, list[str], list[float]]) -> None:
        """After each arrival, and at each later moment, every board is that of the model."""
        day, everything, arrivals, times = scenario
        self.start(times[0])
        received = Model()
        for kind in arrivals:
            self.receive(kind, everything, day)
            setattr(received, kind, getattr(everything, kind))
            self.check(received)
        for now in times[1:]:
            self.clock.rightNow = now
            self.receive_live(received.live)
            self.check(received)

    def check(self, model: Model) -> None:
        for code in (*STOPS, "30000004"):
            self.assertEqual(self.board(code), model.board(code, self.clock.seconds(), HORIZON), code)
            self.board(f"p{code}")  # lets the index of places follow
            board = self.board(f"p{code}")
            assert self.feed.places.latest is not None
            place = self.feed.places.latest.place(f"p{code}")
            codes = (code,) if place is None else place.codes
            self.assertEqual(board, model.place(codes, self.clock.seconds(), HORIZON), codes)
