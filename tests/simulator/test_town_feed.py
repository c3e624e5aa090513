"""Tests of the messages of KV7 and KV8 about the town."""

from datetime import date, timedelta
from functools import cache
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.times import HOUR, MINUTE, moment, read_time
from govi_server.simulator import town_feed
from govi_server.simulator.kv78_rows import COLUMNS, journeys_in_kv8, passtime_rows
from govi_server.simulator.town import STATION
from govi_server.simulator.town_feed import (
    CYCLE_SECONDS,
    JOURNEYS_PER_STEP,
    TIMETABLE_CYCLE_SECONDS,
    general_message,
    timetable_messages,
)
from tests.simulator.messages import (
    AUTUMN,
    DATED_KEY,
    FRIDAY,
    PASS_KEY,
    SPRING,
    TOWN,
    Row,
    TownMessages,
    at,
    key,
    read,
)


@cache
def tables() -> dict[str, list[Row]]:
    """Return the rows of a Friday's timetable, by table."""
    return read(timetable_messages(TOWN, at(FRIDAY, 12)))


class TimetableTests(SynchronousTestCase):
    """The messages of KV7."""

    def test_columns(self) -> None:
        """Tables have the number of columns of 2021."""
        counts = {table: len(columns) for table, columns in COLUMNS.items()}
        expected = {
            "DATAOWNER": 4, "DESTINATION": 17, "TIMINGPOINT": 8, "USERTIMINGPOINT": 6, "STOPAREA": 3, "LINE": 9,
            "LOCALSERVICEGROUPPASSTIME": 26, "LOCALSERVICEGROUP": 2, "LOCALSERVICEGROUPVALIDITY": 3,
            "DATEDPASSTIME": 65, "GENERALMESSAGEUPDATE": 23, "GENERALMESSAGEDELETE": 5,
        }  # fmt: skip
        self.assertEqual(counts, expected)

    def test_envelopes(self) -> None:
        """The calendar comes first, then the planning of each line; the group's label is the kind of message."""
        calendar, *planning = timetable_messages(TOWN, at(FRIDAY, 12))
        self.assertEqual(calendar.envelope, "/GOVI/KV7calendar/LINDEBUS")
        self.assertEqual({message.envelope for message in planning}, {"/GOVI/KV7planning/LINDEBUS"})
        self.assertEqual(len(planning), len(TOWN.lines))
        first, _, _ = planning[0].ctx.decode().partition("\r\n")
        self.assertEqual(
            first,
            "\\GKV7turbo_planning|FICTIONAL|LINDEBUS|||UTF-8|0.1|2026-05-08T12:00:00+02:00|\ufeff",
        )

    def test_planned_passtimes(self) -> None:
        """A journey has one first and one last stop, where the departure time is midnight."""
        rows = tables()["LOCALSERVICEGROUPPASSTIME"]
        self.assertEqual(len({key(row, *PASS_KEY) for row in rows}), len(rows))
        for row in rows:
            if row["JourneyStopType"] == "LAST":
                self.assertEqual(row["TargetDepartureTime"], "00:00:00")
            elif row["JourneyStopType"] == "FIRST":
                self.assertEqual(row["TargetArrivalTime"], row["TargetDepartureTime"])
                self.assertEqual(row["UserStopOrderNumber"], "1")
            else:
                self.assertEqual(row["JourneyStopType"], "INTERMEDIATE")
                self.assertLess(row["TargetArrivalTime"] or "", row["TargetDepartureTime"] or "")
        kinds = [row["JourneyStopType"] for row in rows]
        self.assertEqual(kinds.count("FIRST"), kinds.count("LAST"))

    def test_colors(self) -> None:
        """Some lines have colours, one of them without a text colour, and one line has none."""
        lines = {row["LinePublicNumber"]: (row["LineColor"], row["LineTextColor"]) for row in tables()["LINE"]}
        self.assertEqual(
            (lines["1"], lines["3"], lines["160"]), (("B5121B", "FFFFFF"), ("F6C900", None), (None, None))
        )

    def test_references(self) -> None:
        """Every reference is to an existing row."""
        existing = tables()
        lines = {key(row, "DataOwnerCode", "LinePlanningNumber") for row in existing["LINE"]}
        destinations = {key(row, "DataOwnerCode", "DestinationCode") for row in existing["DESTINATION"]}
        user_stops = {key(row, "DataOwnerCode", "UserStopCode") for row in existing["USERTIMINGPOINT"]}
        levels = {key(row, "DataOwnerCode", "LocalServiceLevelCode") for row in existing["LOCALSERVICEGROUP"]}
        areas = {row["StopAreaCode"] for row in existing["STOPAREA"]}
        for row in existing["LOCALSERVICEGROUPPASSTIME"]:
            self.assertIn(key(row, "DataOwnerCode", "LinePlanningNumber"), lines)
            self.assertIn(key(row, "DataOwnerCode", "DestinationCode"), destinations)
            self.assertIn(key(row, "DataOwnerCode", "UserStopCode"), user_stops)
            self.assertIn(key(row, "DataOwnerCode", "LocalServiceLevelCode"), levels)
        self.assertEqual({row["TimingPointCode"] for row in existing["USERTIMINGPOINT"]}, set(TOWN.stops))
        self.assertEqual({row["TimingPointCode"] for row in existing["TIMINGPOINT"]}, set(TOWN.stops))
        self.assertEqual({row["StopAreaCode"] for row in existing["TIMINGPOINT"]} - {None}, areas)

    def test_calendar(self) -> None:
        """Every line has one service level on each of eight days from yesterday on."""
        rows = tables()["LOCALSERVICEGROUPVALIDITY"]
        self.assertEqual(len(rows), 8 * len(TOWN.lines))
        days = sorted({row["OperationDate"] or "" for row in rows})
        self.assertEqual((len(days), days[0], days[-1]), (8, "2026-05-07", "2026-05-14"))

    def test_names(self) -> None:
        """Names are truncated to the length of their columns; vias have columns of their own."""
        names = tables()["DESTINATION"]
        (row,) = (row for row in names if row["DestinationName50"] == "Elzenveen via Hogerdijk")
        self.assertEqual((row["DestinationName16"], row["DestinationDetail16"]), ("Elzenveen", "via Hogerdijk"))
        for row in names:
            for label, value in row.items():
                if label[-2:].isdigit() and value is not None:
                    self.assertLessEqual(len(value), int(label[-2:]))


class PasstimeTests(SynchronousTestCase):
    """The messages of KV8."""

    def rows(self, now: float) -> list[Row]:
        """Return the rows of a moment."""
        columns = COLUMNS["DATEDPASSTIME"]
        journeys = journeys_in_kv8(TOWN, now)
        return [
            dict(zip(columns, row, strict=True)) for journey in journeys for row in passtime_rows(TOWN, journey, now)
        ]

    def assertJoins(self, timetable: dict[str, list[Row]], now: float) -> None:
        """Assert that each row of a moment is planned, and valid on its date."""
        planned = {key(row, *PASS_KEY): row for row in timetable["LOCALSERVICEGROUPPASSTIME"]}
        valid = {key(row, "LocalServiceLevelCode", "OperationDate") for row in timetable["LOCALSERVICEGROUPVALIDITY"]}
        points = {row["UserStopCode"]: row["TimingPointCode"] for row in timetable["USERTIMINGPOINT"]}
        rows = self.rows(now)
        self.assertTrue(rows)
        same = (
            "JourneyPatternCode", "LineDirection", "DestinationCode", "TargetArrivalTime", "TargetDepartureTime",
            "JourneyStopType", "IsTimingStop", "SideCode", "WheelChairAccessible", "VehicleJourneyType",
        )  # fmt: skip
        for row in rows:
            self.assertEqual(key(planned[key(row, *PASS_KEY)], *same), key(row, *same))
            self.assertIn(key(row, "LocalServiceLevelCode", "OperationDate"), valid)
            self.assertEqual(points[row["UserStopCode"]], row["TimingPointCode"])

    def test_kv8_joins_kv7(self) -> None:
        """KV8 joins with KV7 on weekdays and at weekends, around midnight, and when the clocks change."""
        for days, hour, minute in ((0, 0, 20), (0, 4, 40), (0, 17, 0), (1, 0, 10), (3, 9, 0)):
            self.assertJoins(tables(), at(FRIDAY + timedelta(days=days), hour, minute))
        for day in (SPRING, AUTUMN):
            timetable_of_day = read(timetable_messages(TOWN, at(day, 12)))
            self.assertJoins(timetable_of_day, at(day, 1, 50))
            self.assertJoins(timetable_of_day, at(day, 4))

    def test_midnight(self) -> None:
        """After midnight the rows of the previous day continue, with hours from 24, and there is a new calendar."""
        town = TownMessages(at(FRIDAY, 23, 59) + 58)
        town.next_second()
        self.assertFalse([message for message in town.next_second() if "/KV7" in message.envelope])
        calendar, *_ = town.next_second()
        days = [row["OperationDate"] or "" for row in read([calendar])["LOCALSERVICEGROUPVALIDITY"]]
        self.assertEqual(max(days), "2026-05-15")
        midnight = at(FRIDAY + timedelta(days=1), 0)
        before, after = ({key(row, *DATED_KEY) for row in self.rows(midnight + second)} for second in (-1, 0))
        self.assertLess(len(before - after), 20)  # a journey may have ended, and another one started
        self.assertLess(len(after - before), 20)
        late = [row for row in self.rows(midnight) if (row["TargetArrivalTime"] or "") >= "24:00:00"]
        self.assertTrue(late)
        self.assertEqual({row["OperationDate"] for row in late}, {"2026-05-08"})

    def test_timetable_is_repeated(self) -> None:
        """KV7 is sent at the start, and every minute for later subscribers."""
        town = TownMessages(at(FRIDAY, 3))
        seconds = [
            second
            for second in range(2 * TIMETABLE_CYCLE_SECONDS + 1)
            if any("/KV7" in message.envelope for message in town.next_second())
        ]
        self.assertEqual(seconds, [0, TIMETABLE_CYCLE_SECONDS, 2 * TIMETABLE_CYCLE_SECONDS])

    def test_same_boards_as_kv55(self) -> None:
        """KV8 has the same departures as KV55, also when the clocks change."""
        for day in (FRIDAY, SPRING, AUTUMN):
            for hours in (0, 0.8, 1.5, 1.9, 2.2, 2.9, 3.4, 3.9, 4.6, 8):
                now = at(day, 0) + int(hours * HOUR)
                rows = [row for row in self.rows(now) if row["TimingPointCode"] == STATION]
                kv8 = {
                    (row["OperationDate"], row["LinePlanningNumber"], row["JourneyNumber"], row["FortifyOrderNumber"],
                     row["ExpectedDepartureTime"], row["TripStopStatus"])
                    for row in rows
                    if row["JourneyStopType"] != "LAST" and now <= self.expected(row) <= now + 40 * MINUTE
                }  # fmt: skip
                kv55 = {
                    (trip.operating_date, trip.line_planning_number, trip.journey_number, trip.fortify_order_number,
                     trip.expected_departure_time, trip.trip_stop_status)
                    for trip in TOWN.board(STATION, now, horizon=40 * MINUTE, max_trips=1000).trips
                }  # fmt: skip
                self.assertEqual(kv8, kv55, (day, hours))

    def expected(self, row: Row) -> float:
        seconds = read_time(row["ExpectedDepartureTime"] or "")
        assert seconds is not None
        return moment(date.fromisoformat(row["OperationDate"] or ""), seconds)

    def test_recorded_times(self) -> None:
        """Arrivals and departures have a recorded time once they have happened; cancelled journeys have no delay."""
        statuses = set()
        for row in self.rows(at(FRIDAY, 8, 20)):
            status, last = row["TripStopStatus"], row["JourneyStopType"] == "LAST"
            statuses.add(status)
            self.assertEqual(row["RecordedArrivalTime"] is not None, status in ("ARRIVED", "PASSED"))
            self.assertEqual(row["RecordedDepartureTime"] is not None, status == "PASSED" and not last)
            if status == "PASSED":
                self.assertEqual(row["RecordedArrivalTime"], row["ExpectedArrivalTime"])
            if status == "CANCEL":
                self.assertEqual(row["ExpectedArrivalTime"], row["TargetArrivalTime"])
            if last:
                departures = row["TargetDepartureTime"], row["ExpectedDepartureTime"]
                self.assertEqual(departures, ("00:00:00", "00:00:00"))
        self.assertEqual(statuses, {"PLANNED", "DRIVING", "ARRIVED", "PASSED", "CANCEL"})

    def test_passed_row_is_final(self) -> None:
        """The times of a passed stop no longer change, although the delay does."""
        for journey in TOWN.journeys(FRIDAY)[::100]:
            passed: dict[int, tuple[str | None, ...]] = {}
            start = moment(FRIDAY, journey.calls[0].departure)
            for now in range(int(start), int(start) + HOUR, 11):
                for order, row in enumerate(passtime_rows(TOWN, journey, now)):
                    if "PASSED" in row:
                        self.assertEqual(passed.setdefault(order, row), row)

    def test_rows_are_repeated(self) -> None:
        """Each row is sent at least once in 25 seconds, with the same timestamp unless it has changed."""
        town = TownMessages(at(FRIDAY, 21))
        last = {key(row, *DATED_KEY): row for row in town.rows()}
        repetitions = 0
        for _ in range(2):
            cycle: dict[tuple[str | None, ...], Row] = {}
            for _ in range(CYCLE_SECONDS):
                for row in town.rows():
                    cycle[key(row, *DATED_KEY)] = row
                    before = last.get(key(row, *DATED_KEY))
                    if before is not None and before != row:
                        self.assertLess(before["LastUpdateTimeStamp"] or "", row["LastUpdateTimeStamp"] or "")
                        self.assertNotEqual({**before, "LastUpdateTimeStamp": row["LastUpdateTimeStamp"]}, row)
                    repetitions += before == row
                    last[key(row, *DATED_KEY)] = row
            expected = {
                (journey.line.line_planning_number, str(journey.number), str(journey.fortify_order))
                for journey in journeys_in_kv8(TOWN, town.now)
            }
            sent = {key(row, "LinePlanningNumber", "JourneyNumber", "FortifyOrderNumber") for row in cycle.values()}
            self.assertLessEqual(expected, sent)
        self.assertGreater(repetitions, 300)

    def test_changes_are_sent_within_a_second(self) -> None:
        """Every second, the last rows sent are the current ones."""
        town = TownMessages(at(FRIDAY, 21), speed=10)
        known: dict[tuple[str | None, ...], Row] = {}
        column = COLUMNS["DATEDPASSTIME"].index("LastUpdateTimeStamp")
        for _ in range(10):
            for row in town.rows():
                known[key(row, *DATED_KEY)] = row
            for journey in journeys_in_kv8(TOWN, town.now):
                for values in passtime_rows(TOWN, journey, town.now):
                    row = dict(zip(COLUMNS["DATEDPASSTIME"], values, strict=True))
                    last = tuple(known[key(row, *DATED_KEY)].values())
                    self.assertEqual((*last[:column], "", *last[column + 1 :]), values)

    def test_rows_per_message(self) -> None:
        """A message has at most fifty rows."""
        counts = [
            len(read([m])["DATEDPASSTIME"])
            for m in TownMessages(at(FRIDAY, 8)).next_second()
            if "passtimes" in m.envelope
        ]
        self.assertEqual(set(counts[:-1]), {50})
        self.assertLessEqual(counts[-1], 50)

    def test_steps_are_short(self) -> None:
        """A step makes one message at most, and the rows of a few journeys: the demo's clients wait meanwhile."""
        for start in (at(FRIDAY, 8), at(FRIDAY, 23, 59) + 59):
            town = TownMessages(start)
            for second in range(3):
                town.second = second
                with patch.object(town_feed, "passtime_rows", wraps=passtime_rows) as made:
                    before, steps = 0, 0
                    for messages in town.feed.steps(second):
                        self.assertLessEqual(len(messages), 1)
                        self.assertLessEqual(made.call_count - before, JOURNEYS_PER_STEP)
                        before, steps = made.call_count, steps + 1
                self.assertGreater(steps, made.call_count / JOURNEYS_PER_STEP)

    def test_general_message(self) -> None:
        """A general message at the station is sent immediately, repeated, and deleted by its key."""
        town = TownMessages(at(FRIDAY, 3), speed=10)
        sent: list[tuple[int, str]] = []
        for second in range(61):
            for table, rows in read(m for m in town.next_second() if "generalmessages" in m.envelope).items():
                self.assertEqual(key(rows[0], "TimingPointDataOwnerCode", "TimingPointCode"), ("ALGEMEEN", STATION))
                sent.append((second, table))
        added = [second for second, table in sent if table == "GENERALMESSAGEUPDATE"]
        deleted = [second for second, table in sent if table == "GENERALMESSAGEDELETE"]
        self.assertEqual(added, [0, 25, 60])
        self.assertEqual(deleted, [48, 50])
        (message,) = read([general_message(at(FRIDAY, 12))])["GENERALMESSAGEUPDATE"]
        (deletion,) = read([general_message(at(FRIDAY, 12, 8))])["GENERALMESSAGEDELETE"]
        self.assertEqual(key(message, *deletion), tuple(deletion.values()))
        (later,) = read([general_message(at(FRIDAY, 12, 10))])["GENERALMESSAGEUPDATE"]
        self.assertNotEqual(key(later, *deletion), tuple(deletion.values()))
