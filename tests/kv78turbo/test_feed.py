"""The simulated KV78turbo feed: what it says of the town, what goes wrong on the way, and recordings."""

import base64
import gzip
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.times import HOUR, MINUTE, moment, read_time
from govi_server.errors import StartupError
from govi_server.kv78turbo import ctx
from govi_server.kv78turbo.recording import make_record, write_record
from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.runtime.gunzip import gunzip
from govi_server.runtime.services import OrderedMultiService
from govi_server.simulator import tap
from govi_server.simulator.faults import Faults, Way
from govi_server.simulator.feed import HEARTBEAT, SILENCE_EVERY, Publisher, SimulatedFeed
from govi_server.simulator.replay import Replay, shift
from govi_server.simulator.town import STATION, Town
from govi_server.simulator.town_feed import (
    COLUMNS,
    CYCLE,
    TIMETABLE_CYCLE,
    Message,
    TownFeed,
    general_message,
    passtimes,
    timetable,
    under_way,
)

FRIDAY = date(2026, 5, 8)
SPRING, AUTUMN = date(2026, 3, 29), date(2026, 10, 25)  # the clocks change
TOWN = Town()

Row = dict[str, str | None]


def at(day: date, hour: int, minute: int = 0) -> float:
    """Give the epoch seconds of a time on the wall in the Netherlands."""
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=LOCAL_ZONE).timestamp()


def read(messages: Iterable[Message]) -> dict[str, list[Row]]:
    """Read the rows of messages by table; fails for what cannot be read."""
    refused: list[str] = []
    tables: dict[str, list[Row]] = {}
    for message in messages:
        for records in ctx.read([message.ctx], refused.append):
            for line in records.lines:
                values = map(ctx.text, line.split(b"|"))
                tables.setdefault(records.table, []).append(dict(zip(records.labels, values, strict=True)))
    assert not refused, refused
    return tables


def key(row: Row, *labels: str) -> tuple[str | None, ...]:
    return tuple(row[label] for label in labels)


PASS_KEY = (
    "DataOwnerCode", "LocalServiceLevelCode", "LinePlanningNumber", "JourneyNumber", "FortifyOrderNumber",
    "UserStopCode", "UserStopOrderNumber",
)  # fmt: skip
DATED_KEY = (*PASS_KEY, "OperationDate")


class Told:
    """What a town feed says second by second from a moment on; at more than one second a second if speed says so."""

    def __init__(self, began: float, speed: float = 1) -> None:
        self.began = began
        self.speed = speed
        self.second = -1
        self.feed = TownFeed(TOWN, lambda: self.now)

    @property
    def now(self) -> float:
        return self.began + self.second * self.speed

    def next(self) -> list[Message]:
        self.second += 1
        return list(self.feed.say(self.second))

    def rows(self) -> list[Row]:
        passes = (message for message in self.next() if "passtimes" in message.envelope)
        return read(passes).get("DATEDPASSTIME", [])


@cache
def tables() -> dict[str, list[Row]]:
    """Give the timetable of a Friday."""
    return read(timetable(TOWN, at(FRIDAY, 12)))


class TimetableTests(SynchronousTestCase):
    """KV7."""

    def test_columns(self) -> None:
        """There are as many columns as in 2021."""
        counts = {table: len(columns) for table, columns in COLUMNS.items()}
        expected = {
            "DATAOWNER": 4, "DESTINATION": 17, "TIMINGPOINT": 8, "USERTIMINGPOINT": 6, "STOPAREA": 3, "LINE": 9,
            "LOCALSERVICEGROUPPASSTIME": 26, "LOCALSERVICEGROUP": 2, "LOCALSERVICEGROUPVALIDITY": 3,
            "DATEDPASSTIME": 65, "GENERALMESSAGEUPDATE": 23, "GENERALMESSAGEDELETE": 5,
        }  # fmt: skip
        self.assertEqual(counts, expected)

    def test_envelopes(self) -> None:
        """The calendar comes first, then the planning of each line; the group says what it is."""
        calendar, *planning = timetable(TOWN, at(FRIDAY, 12))
        self.assertEqual(calendar.envelope, "/GOVI/KV7calendar/LINDEBUS")
        self.assertEqual({message.envelope for message in planning}, {"/GOVI/KV7planning/LINDEBUS"})
        self.assertEqual(len(planning), len(TOWN.lines))
        first, _, _ = planning[0].ctx.decode().partition("\r\n")
        self.assertEqual(
            first,
            "\\GKV7turbo_planning|KV7turbo_planning|LINDEBUS|||UTF-8|0.1|2026-05-08T12:00:00+02:00|\ufeff",
        )

    def test_passes(self) -> None:
        """A journey has one first and one last stop; at the last one nothing leaves, at midnight."""
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
        """Some lines have colours, not all of them one for the text, and one has none."""
        lines = {row["LinePublicNumber"]: (row["LineColor"], row["LineTextColor"]) for row in tables()["LINE"]}
        self.assertEqual(
            (lines["1"], lines["3"], lines["160"]), (("B5121B", "FFFFFF"), ("F6C900", None), (None, None))
        )

    def test_references(self) -> None:
        """Everything that is referred to is there."""
        there = tables()
        lines = {key(row, "DataOwnerCode", "LinePlanningNumber") for row in there["LINE"]}
        destinations = {key(row, "DataOwnerCode", "DestinationCode") for row in there["DESTINATION"]}
        own = {key(row, "DataOwnerCode", "UserStopCode") for row in there["USERTIMINGPOINT"]}
        levels = {key(row, "DataOwnerCode", "LocalServiceLevelCode") for row in there["LOCALSERVICEGROUP"]}
        areas = {row["StopAreaCode"] for row in there["STOPAREA"]}
        for row in there["LOCALSERVICEGROUPPASSTIME"]:
            self.assertIn(key(row, "DataOwnerCode", "LinePlanningNumber"), lines)
            self.assertIn(key(row, "DataOwnerCode", "DestinationCode"), destinations)
            self.assertIn(key(row, "DataOwnerCode", "UserStopCode"), own)
            self.assertIn(key(row, "DataOwnerCode", "LocalServiceLevelCode"), levels)
        self.assertEqual({row["TimingPointCode"] for row in there["USERTIMINGPOINT"]}, set(TOWN.stops))
        self.assertEqual({row["TimingPointCode"] for row in there["TIMINGPOINT"]}, set(TOWN.stops))
        self.assertEqual({row["StopAreaCode"] for row in there["TIMINGPOINT"]} - {None}, areas)

    def test_days(self) -> None:
        """Every line has one service level on each of eight days from yesterday on."""
        rows = tables()["LOCALSERVICEGROUPVALIDITY"]
        self.assertEqual(len(rows), 8 * len(TOWN.lines))
        days = sorted({row["OperationDate"] or "" for row in rows})
        self.assertEqual((len(days), days[0], days[-1]), (8, "2026-05-07", "2026-05-14"))

    def test_names(self) -> None:
        """Names are cut to the length of their columns, and what is on the way stands apart."""
        names = tables()["DESTINATION"]
        (row,) = (row for row in names if row["DestinationName50"] == "Elzenveen via Hogerdijk")
        self.assertEqual((row["DestinationName16"], row["DestinationDetail16"]), ("Elzenveen", "via Hogerdijk"))
        for row in names:
            for label, value in row.items():
                if label[-2:].isdigit() and value is not None:
                    self.assertLessEqual(len(value), int(label[-2:]))


class PasstimeTests(SynchronousTestCase):
    """KV8."""

    def rows(self, now: float) -> list[Row]:
        """Give the rows of now."""
        columns = COLUMNS["DATEDPASSTIME"]
        journeys = under_way(TOWN, now)
        return [dict(zip(columns, row, strict=True)) for journey in journeys for row in passtimes(TOWN, journey, now)]

    def assertJoins(self, timetable: dict[str, list[Row]], now: float) -> None:
        """Check that each row of now is a planned one, valid on its date."""
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

    def test_joins(self) -> None:
        """KV8 joins with KV7 on weekdays and in the weekend, around midnight, and when the clocks change."""
        for days, hour, minute in ((0, 0, 20), (0, 4, 40), (0, 17, 0), (1, 0, 10), (3, 9, 0)):
            self.assertJoins(tables(), at(FRIDAY + timedelta(days=days), hour, minute))
        for day in (SPRING, AUTUMN):
            of_the_day = read(timetable(TOWN, at(day, 12)))
            self.assertJoins(of_the_day, at(day, 1, 50))
            self.assertJoins(of_the_day, at(day, 4))

    def test_midnight(self) -> None:
        """After midnight the rows of the day before go on, with hours from 24, and there is a new calendar."""
        told = Told(at(FRIDAY, 23, 59) + 58)
        told.next()
        self.assertFalse([message for message in told.next() if "/KV7" in message.envelope])
        calendar, *_ = told.next()
        days = [row["OperationDate"] or "" for row in read([calendar])["LOCALSERVICEGROUPVALIDITY"]]
        self.assertEqual(max(days), "2026-05-15")
        midnight = at(FRIDAY + timedelta(days=1), 0)
        before, after = ({key(row, *DATED_KEY) for row in self.rows(midnight + second)} for second in (-1, 0))
        self.assertLess(len(before - after), 20)  # one may have ended, and one come an hour ahead
        self.assertLess(len(after - before), 20)
        late = [row for row in self.rows(midnight) if (row["TargetArrivalTime"] or "") >= "24:00:00"]
        self.assertTrue(late)
        self.assertEqual({row["OperationDate"] for row in late}, {"2026-05-08"})

    def test_timetable_again(self) -> None:
        """KV7 comes at the start, and once a minute for who comes late."""
        told = Told(at(FRIDAY, 3))
        seconds = [
            second
            for second in range(2 * TIMETABLE_CYCLE + 1)
            if any("/KV7" in message.envelope for message in told.next())
        ]
        self.assertEqual(seconds, [0, TIMETABLE_CYCLE, 2 * TIMETABLE_CYCLE])

    def test_boards(self) -> None:
        """Whoever reads KV8 sees what the town shows over KV55, when the clocks change, too."""
        for day in (FRIDAY, SPRING, AUTUMN):
            for hours in (0, 0.8, 1.5, 1.9, 2.2, 2.9, 3.4, 3.9, 4.6, 8):
                now = at(day, 0) + int(hours * HOUR)
                rows = [row for row in self.rows(now) if row["TimingPointCode"] == STATION]
                seen = {
                    (row["OperationDate"], row["LinePlanningNumber"], row["JourneyNumber"], row["FortifyOrderNumber"],
                     row["ExpectedDepartureTime"], row["TripStopStatus"])
                    for row in rows
                    if row["JourneyStopType"] != "LAST" and now <= self.expected(row) <= now + 40 * MINUTE
                }  # fmt: skip
                shown = {
                    (trip.operating_date, trip.line_planning_number, trip.journey_number, trip.fortify_order_number,
                     trip.expected_departure_time, trip.trip_stop_status)
                    for trip in TOWN.board(STATION, now, horizon=40 * MINUTE, most=1000).trips
                }  # fmt: skip
                self.assertEqual(seen, shown, (day, hours))

    def expected(self, row: Row) -> float:
        seconds = read_time(row["ExpectedDepartureTime"] or "")
        assert seconds is not None
        return moment(date.fromisoformat(row["OperationDate"] or ""), seconds)

    def test_times(self) -> None:
        """What was recorded is there when it has happened; a cancelled journey is not late."""
        seen = set()
        for row in self.rows(at(FRIDAY, 8, 20)):
            status, last = row["TripStopStatus"], row["JourneyStopType"] == "LAST"
            seen.add(status)
            self.assertEqual(row["RecordedArrivalTime"] is not None, status in ("ARRIVED", "PASSED"))
            self.assertEqual(row["RecordedDepartureTime"] is not None, status == "PASSED" and not last)
            if status == "PASSED":
                self.assertEqual(row["RecordedArrivalTime"], row["ExpectedArrivalTime"])
            if status == "CANCEL":
                self.assertEqual(row["ExpectedArrivalTime"], row["TargetArrivalTime"])
            if last:
                departures = row["TargetDepartureTime"], row["ExpectedDepartureTime"]
                self.assertEqual(departures, ("00:00:00", "00:00:00"))
        self.assertEqual(seen, {"PLANNED", "DRIVING", "ARRIVED", "PASSED", "CANCEL"})

    def test_passed_stays(self) -> None:
        """When a bus has passed does not change any more, though the bus may become later."""
        for journey in TOWN.journeys(FRIDAY)[::100]:
            passed: dict[int, tuple[str | None, ...]] = {}
            start = moment(FRIDAY, journey.calls[0].departure)
            for now in range(int(start), int(start) + HOUR, 11):
                for order, row in enumerate(passtimes(TOWN, journey, now)):
                    if "PASSED" in row:
                        self.assertEqual(passed.setdefault(order, row), row)

    def test_cycle(self) -> None:
        """In every 25 seconds each row comes at least once, the same as before unless it has changed."""
        told = Told(at(FRIDAY, 21))
        last = {key(row, *DATED_KEY): row for row in told.rows()}
        again = 0
        for _ in range(2):
            cycle: dict[tuple[str | None, ...], Row] = {}
            for _ in range(CYCLE):
                for row in told.rows():
                    cycle[key(row, *DATED_KEY)] = row
                    before = last.get(key(row, *DATED_KEY))
                    if before is not None and before != row:
                        self.assertLess(before["LastUpdateTimeStamp"] or "", row["LastUpdateTimeStamp"] or "")
                        self.assertNotEqual({**before, "LastUpdateTimeStamp": row["LastUpdateTimeStamp"]}, row)
                    again += before == row
                    last[key(row, *DATED_KEY)] = row
            there = {
                (journey.line.line_planning_number, str(journey.number), str(journey.fortify_order))
                for journey in under_way(TOWN, told.now)
            }
            came = {key(row, "LinePlanningNumber", "JourneyNumber", "FortifyOrderNumber") for row in cycle.values()}
            self.assertLessEqual(there, came)
        self.assertGreater(again, 300)

    def test_changes_at_once(self) -> None:
        """What was said last is what is so now, every second."""
        told = Told(at(FRIDAY, 21), speed=10)
        known: dict[tuple[str | None, ...], Row] = {}
        stamp = COLUMNS["DATEDPASSTIME"].index("LastUpdateTimeStamp")
        for _ in range(10):
            for row in told.rows():
                known[key(row, *DATED_KEY)] = row
            for journey in under_way(TOWN, told.now):
                for values in passtimes(TOWN, journey, told.now):
                    row = dict(zip(COLUMNS["DATEDPASSTIME"], values, strict=True))
                    was = tuple(known[key(row, *DATED_KEY)].values())
                    self.assertEqual((*was[:stamp], "", *was[stamp + 1 :]), values)

    def test_small_messages(self) -> None:
        """A message has fifty rows at most."""
        counts = [len(read([m])["DATEDPASSTIME"]) for m in Told(at(FRIDAY, 8)).next() if "passtimes" in m.envelope]
        self.assertEqual(set(counts[:-1]), {50})
        self.assertLessEqual(counts[-1], 50)

    def test_general_message(self) -> None:
        """A message at the station comes at once, is repeated, and is deleted by its key."""
        told = Told(at(FRIDAY, 3), speed=10)
        seen: list[tuple[int, str]] = []
        for second in range(61):
            for table, rows in read(m for m in told.next() if "generalmessages" in m.envelope).items():
                self.assertEqual(key(rows[0], "TimingPointDataOwnerCode", "TimingPointCode"), ("ALGEMEEN", STATION))
                seen.append((second, table))
        added = [second for second, table in seen if table == "GENERALMESSAGEUPDATE"]
        deleted = [second for second, table in seen if table == "GENERALMESSAGEDELETE"]
        self.assertEqual(added, [0, 25, 60])
        self.assertEqual(deleted, [48, 50])
        (shown,) = read([general_message(at(FRIDAY, 12))])["GENERALMESSAGEUPDATE"]
        (gone,) = read([general_message(at(FRIDAY, 12, 8))])["GENERALMESSAGEDELETE"]
        self.assertEqual(key(shown, *gone), tuple(gone.values()))
        (later,) = read([general_message(at(FRIDAY, 12, 10))])["GENERALMESSAGEUPDATE"]
        self.assertNotEqual(key(later, *gone), tuple(gone.values()))


_told = Told(at(FRIDAY, 17), speed=5 * MINUTE)  # in which nearly every row changes
MESSAGES = [message for _ in range(4) for message in _told.next()]


def payload(frames: Sequence[bytes]) -> bytes:
    return b"".join(frames[1:])


class FaultsTests(SynchronousTestCase):
    """What goes wrong on the way."""

    def test_none(self) -> None:
        """Without faults each message goes once, in its order, a large one in two frames."""
        way = Way(Faults(), Random(1))
        counts = set()
        for message in MESSAGES:
            (frames,) = way.frames(message)
            counts.add(len(frames))
            self.assertEqual(frames[0].decode(), message.envelope)
            self.assertEqual(gunzip(payload(frames), 1 << 24), message.ctx)
        self.assertEqual(counts, {2, 3})
        self.assertEqual(way.rest(), [])

    def test_same_seed(self) -> None:
        """The same seed has the same faults, another one others."""
        faults = Faults(garbage=0.3, duplicate=0.2, out_of_order=0.2)
        one, same, other = (
            [frames for message in MESSAGES for frames in way.frames(message)]
            for way in (Way(faults, Random(seed)) for seed in (1, 1, 2))
        )
        self.assertEqual(one, same)
        self.assertNotEqual(one, other)

    def test_garbage(self) -> None:
        """In the place of some messages comes nonsense of all kinds, of which no row can be read as good."""
        way = Way(Faults(garbage=0.5), Random(1))
        good = 0
        wrong: list[str] = []
        for message in MESSAGES:
            (frames,) = way.frames(message)
            try:
                data = gunzip(payload(frames), 1 << 24)
            except ValueError as error:
                wrong.append(str(error).partition(":")[0])
                continue
            if data == message.ctx:
                good += 1
            elif b"99:99:99" in data:
                wrong.append("time")
            else:
                self.assertFalse([records.lines for records in ctx.read([data], wrong.append) if records.lines])
        self.assertTrue(0.4 < good / len(MESSAGES) < 0.6)
        self.assertLessEqual({"broken gzip", "truncated gzip", "time", "columns", "encoding"}, set(wrong))

    def test_garbage_passes(self) -> None:
        """After a few cycles nearly every row has come in a good message."""
        told = Told(at(FRIDAY, 21))
        way = Way(Faults(garbage=0.2), Random(1))
        known: dict[tuple[str | None, ...], Row] = {}
        for _ in range(3 * CYCLE):
            for message in told.next():
                (frames,) = way.frames(message)
                good = Way(Faults(), Random(1)).frames(message)
                if "passtimes" in message.envelope and [frames] == good:
                    for row in read([message])["DATEDPASSTIME"]:
                        known[key(row, *DATED_KEY)] = row
        rows = {
            key(dict(zip(COLUMNS["DATEDPASSTIME"], row, strict=True)), *DATED_KEY)
            for journey in under_way(TOWN, told.now)
            for row in passtimes(TOWN, journey, told.now)
        }
        self.assertLess(len(rows - set(known)), 0.05 * len(rows))  # one that has come now may have gone wrong

    def test_duplicate(self) -> None:
        """Some messages come twice."""
        way = Way(Faults(duplicate=0.5), Random(1))
        counts = [len(way.frames(message)) for message in MESSAGES]
        self.assertEqual(set(counts), {1, 2})
        self.assertTrue(0.4 < counts.count(2) / len(counts) < 0.6)

    def test_out_of_order(self) -> None:
        """Some messages come after later ones, and none is lost."""
        way = Way(Faults(out_of_order=0.3), Random(1))
        sent = [payload(frames) for message in MESSAGES for frames in way.frames(message)]
        sent += [payload(frames) for frames in way.rest()]
        order = [payload(Way(Faults(), Random(1)).frames(message)[0]) for message in MESSAGES]
        self.assertNotEqual(sent, order)
        self.assertEqual(sorted(sent), sorted(order))


class ShiftTests(SynchronousTestCase):
    """Dates that are put later."""

    def test_dates(self) -> None:
        """Dates and moments are put later, with the offset of their new date; nothing else is touched."""
        data = (
            "\\GKV8turbo_passtimes|KV8turbo_passtimes|x|||UTF-8|0.1|2021-06-06T18:26:05+02:00|\ufeff\r\n"
            "\\LA|B|C|D|E\r\n"
            "X|2021-06-06|18:24:55|2021-06-06T00:10:00+02:00|op 2021-06-06 niet\r\n"
            "X|\\0|2021-06-0|2021-06-31|2021-06-06T18:26:05Z\r\n"
            "X|9999-12-31|2021-06-06T18:26:05|a|2021-12-31"
        )
        expected = (
            "\\GKV8turbo_passtimes|KV8turbo_passtimes|x|||UTF-8|0.1|2021-12-06T18:26:05+01:00|\ufeff\r\n"
            "\\LA|B|C|D|E\r\n"
            "X|2021-12-06|18:24:55|2021-12-06T00:10:00+01:00|op 2021-06-06 niet\r\n"
            "X|\\0|2021-06-0|2021-06-31|2021-12-06T20:26:05+01:00\r\n"
            "X|9999-12-31|2021-12-06T18:26:05|a|2022-07-02"
        )
        self.assertEqual(shift(data.encode(), 183).decode(), expected)

    def test_nothing(self) -> None:
        """No days, no change."""
        self.assertEqual(shift(MESSAGES[0].ctx, 0), MESSAGES[0].ctx)

    def test_there_and_back(self) -> None:
        """What is put later and back is what it was, and still joins."""
        there = shift(MESSAGES[0].ctx, 100)
        self.assertNotEqual(there, MESSAGES[0].ctx)
        self.assertEqual(shift(there, -100), MESSAGES[0].ctx)


class RecordingsTests(SynchronousTestCase):
    """Recordings that are said again."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def save(self, name: str, data: bytes) -> None:
        (self.directory / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    def line(self, message: Message, time: float) -> bytes:
        return write_record(make_record(message.envelope, gzip.compress(message.ctx), time))

    def recordings(self, today: date, speed: float = 1) -> Replay:
        return Replay(self.directory, today, speed)

    def test_captures(self) -> None:
        """Files of CTX are a message a second; the envelope is as the group says; bad ones are passed over."""
        said = TownFeed(TOWN, lambda: at(FRIDAY, 12)).say(0)
        calendar, planning, *_ = said
        general, passes = general_message(at(FRIDAY, 12)), MESSAGES[-1]
        self.save("1.ctx", general.ctx)
        self.save("2.ctx.gz", calendar.ctx)
        self.save("3.ctx.gz", planning.ctx)
        self.save("4.ctx", passes.ctx)
        self.save("5.ctx", b"nonsense")
        (self.directory / "6.ctx.gz").write_bytes(gzip.compress(passes.ctx)[:100])
        self.save("7.txt", passes.ctx)
        recordings = self.recordings(FRIDAY, speed=4)
        self.assertEqual(list(recordings), [
            ([general], 0.25), ([calendar], 0.25), ([planning], 0.25), ([passes], 0.0)
        ])  # fmt: skip
        self.assertEqual(
            str(recordings), f"4 messages in 4 files of {self.directory}, with 2026-05-08 as today (dates +0 days)"
        )

    def test_pace(self) -> None:
        """Recordings with times keep their pace; a clock that was set back meanwhile costs nothing."""
        message, now = MESSAGES[-1], at(FRIDAY, 12)
        lines = [self.line(message, now + seconds) for seconds in (0, 0.5, 30.5, 20)]
        self.save("1.jsonl", b"".join([*lines[:2], b"{}\n", b"nonsense\n", *lines[2:]]))
        self.save("2.jsonl.gz", self.line(message, now + 1e6))
        pauses = [pause for _, pause in self.recordings(FRIDAY, speed=10)]
        self.assertEqual(pauses, [0.05, 3.0, 0.0, 0.1, 0.0])

    def test_no_ctx(self) -> None:
        """What was recorded as it came is said as it came."""
        self.save("1.jsonl", write_record(make_record("/GOVI/x", b"\x1f\x8bnonsense", 0)))
        ((messages, _),) = self.recordings(FRIDAY)
        ((envelope, sent),) = Way(Faults(garbage=1), Random(1)).frames(messages[0])
        self.assertEqual((envelope, sent), (b"/GOVI/x", b"\x1f\x8bnonsense"))
        line = b'{"time":"2026-05-08T10:00:00.000Z","envelope":"x","base64":"%b"}\n'
        self.save("1.jsonl", line % b"!" + line % base64.b64encode(b"y"))
        ((messages, _),) = self.recordings(FRIDAY)
        self.assertEqual(messages, [Message("x", b"", b"y")])

    def test_day_of_kv8(self) -> None:
        """The day on which the earliest KV8 was sent becomes today, whatever the timetable says."""
        self.save("1.ctx", general_message(at(FRIDAY, 12)).ctx)
        self.save("2.ctx", general_message(at(FRIDAY - timedelta(days=2), 23)).ctx)
        for number, message in enumerate(timetable(TOWN, at(FRIDAY - timedelta(days=30), 12))):
            self.save(f"3-{number}.ctx", message.ctx)
        recordings = self.recordings(date(2026, 12, 1))
        self.assertEqual((recordings.day, recordings.days), (FRIDAY - timedelta(days=2), 209))
        (row,) = read([next(iter(recordings))[0][0]])["GENERALMESSAGEUPDATE"]
        self.assertEqual(key(row, "MessageCodeDate", "MessageStartTime"), ("2026-12-03", "2026-12-03T12:00:00+01:00"))

    def test_day_of_kv7(self) -> None:
        """Without KV8 the day on which most is planned becomes today, the first of them."""
        saturday = FRIDAY + timedelta(days=1)
        for number, message in enumerate(timetable(TOWN, at(saturday + timedelta(days=1), 12))):
            self.save(f"{number}.ctx.gz", message.ctx)
        self.assertEqual(self.recordings(FRIDAY).day, saturday + timedelta(days=2))  # a Monday

    def test_day_without_calendar(self) -> None:
        """With planning alone it is the day on which that was sent."""
        self.save("1.ctx", timetable(TOWN, at(FRIDAY, 12))[1].ctx)
        self.assertEqual(self.recordings(FRIDAY).day, FRIDAY)

    def test_nothing_there(self) -> None:
        """A directory that is not there, or in which nothing can be read, is an error."""
        self.assertRaises(StartupError, self.recordings, FRIDAY)
        self.save("1.ctx", b"nonsense")
        self.assertRaises(StartupError, self.recordings, FRIDAY)
        self.assertRaises(StartupError, Replay, self.directory / "none", FRIDAY, 1)


class FakePublisher(Publisher):
    """Keeps what it is to send; the test says when somebody subscribes."""

    def __init__(self) -> None:
        self.sent: list[Sequence[bytes]] = []
        self.is_open = self.has_subscriber = False

    def open(self) -> str:
        self.is_open = True
        return "tcp://fake:1"

    def subscribed(self) -> bool:
        return self.has_subscriber

    def send(self, frames: Sequence[bytes]) -> None:
        self.sent.append(frames)

    def close(self) -> None:
        self.is_open = False

    def heartbeats(self) -> int:
        return sum(len(frames) == 1 for frames in self.sent)


class SomeRecordings(Replay):
    """Recordings of three messages, one every two seconds."""

    def __init__(self) -> None:
        pass

    def __str__(self) -> str:
        return "three messages"

    def __iter__(self) -> Iterator[tuple[list[Message], float]]:
        yield [MESSAGES[0]], 2.0
        yield [MESSAGES[1]], 2.0
        yield [MESSAGES[2]], 0.0


class FeedTests(SynchronousTestCase):
    """The service, in memory."""

    def start(self, source: TownFeed | Replay, faults: Faults | None = None, silence: float = 0) -> None:
        self.clock = Clock()
        self.clock.rightNow = at(FRIDAY, 3)  # when few buses run
        self.publisher = FakePublisher()
        self.feed = SimulatedFeed(self.clock, self.publisher, source, Way(faults or Faults(), Random(1)), silence)
        self.feed.privilegedStartService()
        self.feed.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        self.feed.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.publisher.is_open)

    def town(self) -> TownFeed:
        return TownFeed(TOWN, lambda: self.clock.seconds())

    def test_town(self) -> None:
        """The town is told of at once, and every second; heartbeats come every ten seconds."""
        self.start(self.town())
        self.assertEqual(self.publisher.heartbeats(), 2)
        self.clock.advance(0)
        first = len(self.publisher.sent)
        self.assertGreater(first, 10)
        self.clock.pump([0.5] * 2 * HEARTBEAT)
        self.assertEqual(self.publisher.heartbeats(), 4)
        self.assertGreater(len(self.publisher.sent), first + 2)

    def test_silence(self) -> None:
        """During a silence nothing is sent, heartbeats neither; then everything goes on."""
        self.start(SomeRecordings(), silence=30)
        self.publisher.has_subscriber = True
        self.clock.pump([1] * SILENCE_EVERY)
        count = len(self.publisher.sent)
        self.assertGreater(count, 2 * SILENCE_EVERY / HEARTBEAT)
        self.clock.pump([1] * 29)
        self.assertEqual(len(self.publisher.sent), count)
        self.clock.pump([1] * (1 + HEARTBEAT))
        self.assertGreater(len(self.publisher.sent), count)

    def test_replay(self) -> None:
        """Recordings wait for a subscriber, and then go at their pace."""
        self.start(SomeRecordings(), Faults(out_of_order=1))
        self.clock.pump([1] * 9)
        self.assertEqual(len(self.publisher.sent), 2)  # heartbeats
        self.publisher.has_subscriber = True
        self.clock.pump([0.1] * 60)
        messages = [frames for frames in self.publisher.sent if len(frames) > 1]
        self.assertEqual(len(messages), 3)


class OptionsTests(SynchronousTestCase):
    """What can be said on the command line of the feed."""

    def parse(self, *arguments: str) -> tap.Options:
        options = tap.Options()
        options.parseOptions(["--listen", "tcp:0", *arguments])
        return options

    def test_values(self) -> None:
        """Without --feed there is no feed; with it there is one, started with what was said."""
        reactor = MemoryReactorClock()
        without = tap.makeService(self.parse(), reactor)
        options = self.parse("--feed", "tcp://127.0.0.1:1", "--speed", "60", "--garbage", "0.1", "--silence", "5")
        service = tap.makeService(options, reactor)
        assert isinstance(without, OrderedMultiService)
        assert isinstance(service, OrderedMultiService)
        *services, feed = service
        self.assertEqual(len(services), len(list(without)))
        self.assertIsInstance(feed, SimulatedFeed)

    def test_wrong_values(self) -> None:
        """A wrong value is refused."""
        for option, value in (
            ("--speed", "0"),
            ("--speed", "fast"),
            ("--garbage", "1.5"),
            ("--duplicate", "-1"),
            ("--out-of-order", "nan"),
            ("--silence", "-1"),
        ):
            self.assertRaises(usage.UsageError, self.parse, "--feed", "tcp://127.0.0.1:1", option, value)

    def test_replay(self) -> None:
        """A replay needs an address that is one, and a directory."""
        for arguments in (
            ["--replay", "."],
            ["--speed", "2"],
            ["--garbage", "0.1"],
            ["--feed", "tcp://127.0.0.1:1", "--replay", "/nonexistent"],
            ["--feed", "nonsense"],
            ["--feed", "tcp://127.0.0.1:65536"],
        ):
            error = self.assertRaises(SystemExit, tap.makeService, self.parse(*arguments), MemoryReactorClock())
            self.assertNotIn("\n", str(error))
