"""KV8: which word about a pass holds, what is refused, and what is forgotten when."""

from collections import Counter
from datetime import date, datetime
from itertools import permutations
from typing import cast

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.times import HOUR, MINUTE, local_timestamp
from govi_server.kv78turbo.ctx import read
from govi_server.kv78turbo.kv8_passtimes import OWNERS, Passtimes, parse_passtime
from govi_server.kv78turbo.passtime import GeneralMessage, Passtime
from govi_server.settings import PasstimeSettings
from tests import feed
from tests.client import NOW

CODE = "30000001"
TIMES = ("TargetArrivalTime", "TargetDepartureTime", "ExpectedArrivalTime", "ExpectedDepartureTime")
KEY = (
    *("DataOwnerCode", "LocalServiceLevelCode", "LinePlanningNumber", "JourneyNumber", "FortifyOrderNumber"),
    *("OperationDate", "UserStopOrderNumber", "UserStopCode"),
)

# What a field may hold, sound or not.
GARBAGE = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.sampled_from(
        (
            *(
                "",
                "0",
                "-1",
                "99:99:99",
                "24:00:00",
                "47:59:59",
                "00:00:00",
                "1970-01-01",
                "2026-01-01",
                "2026-02-30",
            ),
            *("9999-12-31", "LAST", "INFOPOINT", "FIRST", "CANCEL", "UNKNOWN", "2026-01-01T01:00:00+99:99", "²", "|"),
            *("2026-01-01T23:59:59+01:00", "2026-01-01T01:00:00", "2099-01-01T00:00:00Z", "\\0", "\\", "9" * 99),
        )
    ),
)


def at(time: str) -> dict[str, str | None]:
    """Make a row with all four times the same."""
    return dict.fromkeys(TIMES, time)


def stamped(second: int, **columns: str | None) -> dict[str, str | None]:
    """Make a row that was updated some seconds after 00:59."""
    return {"LastUpdateTimeStamp": f"2026-01-01T00:59:{second:02}+01:00", **columns}


class PasstimesTestCase(SynchronousTestCase):
    """Passtimes on a stepped clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.begin()

    def begin(self, **limits: int) -> None:
        self.refused: Counter[str] = Counter()
        self.kept = Passtimes(self.clock.seconds, self.refuse, PasstimeSettings(**limits))

    def refuse(self, why: str) -> None:
        self.refused[why] += 1

    def take(self, *messages: bytes) -> None:
        for message in messages:
            for records in read([message], self.refuse):
                self.assertEqual(self.kept.ingest(records), len(records.lines))

    def tell(self, *rows: feed.Row, columns: int | None = None) -> None:
        """Take messages of one row each."""
        for row in rows:
            self.take(feed.passtimes(row, columns=columns))

    def passes(self, code: str = CODE) -> list[Passtime]:
        stop = self.kept.stops.get(code)
        return [] if stop is None else [parse_passtime(key, values, code) for key, values in stop.passes.items()]

    def only(self) -> Passtime:
        (one,) = self.passes()
        return one

    def sweep(self) -> None:
        for _ in self.kept.sweep():
            pass

    def go_to(self, moment: str) -> None:
        """Set the clock: 2026-10-25T02:30:00+02:00."""
        self.clock.advance(datetime.fromisoformat(moment).timestamp() - self.clock.seconds())

    def assert_consistent(self) -> None:
        """Everything that is counted or found by journey or line is there, and nothing else."""
        keys = [(key, code) for code, stop in self.kept.stops.items() for key in stop.passes]
        self.assertEqual(self.kept.n_passes, len(keys))
        of = Counter((b"|".join(key.split(b"|")[:5]), code) for key, code in keys)
        self.assertEqual(of, Counter((j, code) for j, codes in self.kept.journeys.items() for code in codes))
        of_lines = [journey for journeys in self.kept.lines.values() for journey in journeys]
        self.assertEqual(sorted(of_lines), sorted(self.kept.journeys))
        self.assertTrue(all(self.kept.lines.values()))
        messages = [key for stop in self.kept.stops.values() for key in stop.messages or ()]
        self.assertEqual(self.kept.n_messages, len(messages))


class ReadTests(PasstimesTestCase):
    """What a row says."""

    def test_pass(self) -> None:
        """A pass is read from tables of 35, 49 and 65 columns, and is the same."""
        for columns in (35, 49, 65):
            self.begin()
            self.tell({}, columns=columns)
            half_past = NOW + 30 * MINUTE
            expected = Passtime(
                data_owner_code="LIN",
                local_service_level_code="77",
                line_planning_number="L004",
                journey_number="1001",
                fortify_order_number="0",
                operation_date=date(2026, 1, 1),
                user_stop_order_number="3",
                user_stop_code="u1",
                timing_point_code=CODE,
                timing_point_data_owner_code="ALGEMEEN",
                last_update=NOW - 10,
                target_arrival_time="01:30:00",
                expected_arrival_time="01:30:00",
                target_departure_time="01:30:00",
                expected_departure_time="01:30:00",
                target_arrival=half_past,
                expected_arrival=half_past,
                target_departure=half_past,
                expected_departure=half_past,
                trip_stop_status="DRIVING",
                journey_stop_type="INTERMEDIATE",
                wheelchair="ACCESSIBLE",
                destination_code="D1",
                line_direction="1",
                journey_pattern_code="900",
                is_timing_stop=False,
                side_code="-",
            )
            self.assertEqual(self.only(), expected)
            self.assertEqual(expected.journey, "LIN_77_L004_1001_0")
            self.assertEqual((self.refused, self.kept.n_passes), ({}, 1))
            self.assertEqual(self.kept.journeys, {b"LIN|77|L004|1001|0": [CODE]})
            self.assertEqual(self.kept.lines, {("LIN", "L004", "1"): {b"LIN|77|L004|1001|0": None}})
            self.assertEqual((self.kept.heard, self.kept.updated), ({"LIN": NOW}, {"LIN": feed.PUBLISHED}))

    def test_by_label(self) -> None:
        """Columns are found by their labels, in any order and among others."""
        labels = [*reversed(list(feed.TABLES["DATEDPASSTIME"])), "LinePublicNumber", "Other", "DestinationName"]
        row = {"LinePublicNumber": "N4", "DestinationName": "Dorp", "Other": "x", "NumberOfCoaches": "2"}
        self.take(feed.passtimes(row, columns=labels))
        one = self.only()
        self.assertEqual((one.line_public_number, one.destination_name, one.number_of_coaches), ("N4", "Dorp", "2"))
        self.assertEqual((one.trip_stop_status, one.timing_point_code, one.user_stop_code), ("DRIVING", CODE, "u1"))

    def test_texts(self) -> None:
        """Texts are read with their escapes, what is said of a trip by its column, and null is not empty."""
        content = "Lift | at Brug\r\nbroken \\ é"
        self.tell(
            {"MessageContent": content, "AdviceContent": "", "ReasonType": "1", "SideCode": "", "OperatorCode": None}
        )
        one = self.only()
        self.assertEqual(one.remarks, (("MessageContent", content), ("ReasonType", "1")))
        self.assertEqual((one.side_code, one.operator_code), ("", None))

    def test_open_enumerations(self) -> None:
        """A value that nobody knows is kept as it is, and one that is not said is UNKNOWN."""
        for said, kept in (
            ("SOMETHING NEW", "SOMETHING NEW"),
            ("", "UNKNOWN"),
            (None, "UNKNOWN"),
            ("a|\\b", "a|\\b"),
        ):
            self.begin()
            self.tell(dict.fromkeys(("TripStopStatus", "JourneyStopType", "WheelChairAccessible"), said))
            one = self.only()
            self.assertEqual((one.trip_stop_status, one.journey_stop_type, one.wheelchair), (kept,) * 3)
            self.assertEqual(self.refused, {})

    def test_statuses(self) -> None:
        """Every status is kept, and each may follow each when it is newer."""
        statuses = ("PLANNED", "DRIVING", "ARRIVED", "PASSED", "CANCEL", "UNKNOWN", "OFFROUTE")
        for n, (first, second) in enumerate(permutations(statuses, 2)):
            journey = str(n)
            self.tell(stamped(1, JourneyNumber=journey, TripStopStatus=first))
            self.tell(stamped(2, JourneyNumber=journey, TripStopStatus=second))
            self.assertEqual(self.passes()[-1].trip_stop_status, second)

    def test_infopoint(self) -> None:
        """What is only passed by is not kept."""
        self.tell({"JourneyStopType": "INFOPOINT"})
        self.assertEqual((self.passes(), self.refused, self.kept.n_passes), ([], {}, 0))

    def test_last(self) -> None:
        """At its last stop a journey only arrives: its departure at 00:00:00 is none."""
        self.tell({"JourneyStopType": "LAST", "TargetDepartureTime": "00:00:00", "ExpectedDepartureTime": "00:00:00"})
        one = self.only()
        self.assertFalse(one.is_departure)
        self.assertEqual((one.target_departure_time, one.expected_departure_time), (None, None))
        self.assertEqual((one.target_departure, one.expected_departure), (None, None))
        self.assertEqual((one.expected, one.hidden_after), (NOW + 30 * MINUTE, NOW + 31 * MINUTE))

    def test_other_tables(self) -> None:
        """What is not of KV8 is left to others."""
        for records in feed.records(feed.planning({})):
            self.assertEqual(self.kept.ingest(records), 0)
        self.assertEqual((self.kept.stops, self.refused), ({}, {}))

    def test_two_days(self) -> None:
        """Neither two operating dates nor two service levels collide."""
        days = ("2025-12-31", "2026-01-01", "2026-01-02")
        self.tell(*({"OperationDate": day, "LocalServiceLevelCode": level} for day in days for level in "12"))
        self.assertEqual({one.operation_date.isoformat() for one in self.passes()}, set(days))
        self.assertEqual(len(self.passes()), 6)
        self.assert_consistent()

    def test_expected(self) -> None:
        """A pass is sorted by when it leaves, or the best that is said of that."""
        table = (
            (("01:31:00", "01:32:00", "01:33:00", "01:34:00"), 34, 35),
            ((None, None, "01:33:00", None), 33, 34),
            (("01:31:00", None, None, None), 31, 32),
            ((None, "01:32:00", None, ""), 32, 33),
            (("01:31:00", "01:32:00", "01:40:00", "01:34:00"), 34, 41),
        )
        for times, expected, gone in table:
            self.begin()
            self.tell(dict(zip(TIMES, times, strict=True)))
            one = self.only()
            self.assertEqual((one.expected - NOW, one.hidden_after - NOW), (expected * MINUTE, gone * MINUTE), times)


class RefusedTests(PasstimesTestCase):
    """Rows that nothing can be made of."""

    def assert_refused(self, row: feed.Row, why: str) -> None:
        self.begin()
        self.take(feed.passtimes({"JourneyNumber": "1"}, row, {"JourneyNumber": "2"}))
        self.assertEqual(self.refused, {why: 1}, row)
        self.assertEqual([one.journey_number for one in self.passes()], ["1", "2"], row)
        self.assert_consistent()

    def test_dates(self) -> None:
        """Operating dates that are not about now are refused, and so is what is no date."""
        for day in ("1970-01-01", "2025-12-29", "2026-01-09", "2027-01-01", "2026-01-32", "01-01-2026", "tomorrow"):
            self.assert_refused({"OperationDate": day}, "date")
        self.begin()
        self.tell({"OperationDate": "2025-12-30"}, {"OperationDate": "2026-01-08"})
        self.assertEqual((len(self.passes()), self.refused), (2, {}))

    def test_midnight(self) -> None:
        """The dates that are taken move on at midnight on the wall."""
        self.tell({})
        self.go_to("2026-01-01T23:59:59+01:00")
        self.tell({"OperationDate": "2026-01-09"})
        self.clock.advance(1)
        self.tell({"OperationDate": "2026-01-09"}, {"OperationDate": "2025-12-30"})
        self.assertEqual((len(self.passes()), self.refused), (2, {"date": 2}))

    def test_times(self) -> None:
        """Times that are none are refused, and so is a pass without any."""
        for time in (
            "99:99:99",
            "48:00:00",
            "24:60:00",
            "1:00:00",
            "01:00",
            "soon",
            "-1:00:00",
            "01:00:00Z",
            "é",
            "a|b",
        ):
            for column in TIMES:
                self.assert_refused({column: time}, "time")
        for unsaid in (None, ""):
            self.assert_refused(dict.fromkeys(TIMES, unsaid), "time")

    def test_stamps(self) -> None:
        """Timestamps that are none are refused, and those of a time to come, which would outlast all others."""
        for stamp in (
            *("now", "1970-01-01T00:00:00Z", "2026-01-01", "2026-01-01T29:59:59+01:00", "2026-13-01T00:00:00Z"),
            *("2026-01-32T00:00:00Z", "2026-01-01T00:59:00é"),
        ):
            self.assert_refused({"LastUpdateTimeStamp": stamp}, "time")
        for stamp in ("2026-01-01T01:15:01+01:00", "2026-01-03T00:00:00+01:00", "2099-01-01T00:00:00Z"):
            self.assert_refused({"LastUpdateTimeStamp": stamp}, "future")
        self.begin()
        self.tell({"LastUpdateTimeStamp": "2026-01-01T01:15:00+01:00"})
        self.assertEqual((self.kept.n_passes, self.refused), (1, {}))

    def test_keys(self) -> None:
        """A field of the key that is null, empty or strange is refused, whichever it is."""
        for column in KEY:
            for value in (None, "", "a|b", "\\"):
                self.assert_refused({column: value}, "date" if column == "OperationDate" else "key")
        for order in ("x", "²", "-1", "+1", " 1", "1_0", "1.5", "123456"):
            self.assert_refused({"UserStopOrderNumber": order}, "key")

    def test_codes(self) -> None:
        """A TimingPointCode is some digits."""
        for code in (None, "", "x", "-1", "+3", " 3", "3 ", "\u0663", "²", "1_0", "3.0", "12345678901", "a|b"):
            self.assert_refused({"TimingPointCode": code}, "TimingPointCode")
        self.tell({"TimingPointCode": "0012"})
        self.assertEqual(len(self.passes("0012")), 1)

    def test_missing_columns(self) -> None:
        """Without a column that is needed every row is refused; any other may be missing."""
        needed = {*KEY, *TIMES, "TimingPointCode", "JourneyStopType", "TripStopStatus"}
        for missing in feed.TABLES["DATEDPASSTIME"]:
            self.begin()
            labels = [label for label in feed.TABLES["DATEDPASSTIME"] if label != missing]
            self.take(feed.passtimes({}, {"JourneyNumber": "2"}, columns=labels))
            counts = {"key column": 2} if missing in needed else {}
            self.assertEqual((self.refused, len(self.passes())), (counts, 2 - counts.get("key column", 0)), missing)

    def test_many_forms(self) -> None:
        """A feed whose labels are always others is read, and they are not all remembered."""
        labels = list(feed.TABLES["DATEDPASSTIME"])
        for n in range(300):
            self.take(feed.passtimes({"JourneyNumber": str(n)}, columns=[*labels, f"More{n}"]))
        self.assertEqual(len(self.passes()), 300)
        self.assertLess(len(self.kept._columns), 150)

    def test_limits(self) -> None:
        """Beyond a limit what is new is refused, and what is known is still updated."""
        self.begin(passes=3, stops=2)
        self.tell(*({"JourneyNumber": str(n)} for n in range(5)))
        self.assertEqual((self.refused, self.kept.n_passes), ({"too many passes": 2}, 3))
        self.tell(stamped(59, JourneyNumber="0", TripStopStatus="ARRIVED"))
        self.assertEqual(self.passes()[0].trip_stop_status, "ARRIVED")
        self.tell({"TimingPointCode": "2"}, {"TimingPointCode": "3"}, {"TimingPointCode": "4"})
        self.assertEqual((self.refused["too many stops"], len(self.kept.stops)), (2, 2))
        self.assert_consistent()

    def test_owners(self) -> None:
        """No more data owners are remembered than there could be."""
        self.tell({})
        for n in range(OWNERS):
            self.tell({"DataOwnerCode": f"O{n}"})
        self.assertEqual((len(self.kept.heard), len(self.kept.updated)), (OWNERS, OWNERS))
        self.assertEqual(self.refused, {"too many owners": 1})
        self.clock.advance(5)
        self.tell(stamped(55))
        self.assertEqual(self.kept.heard["LIN"], NOW + 5)

    def test_many_rows(self) -> None:
        """A message of many rows, of which none is sound, leaves nothing but counts."""
        self.take(feed.passtimes(*({"ExpectedArrivalTime": "99:99:99"} for _ in range(5_000))))
        self.assertEqual((self.refused, self.kept.stops, self.kept.heard), ({"time": 5_000}, {}, {}))

    @settings(deadline=None)
    @given(
        st.lists(
            st.dictionaries(st.sampled_from(list(feed.TABLES["DATEDPASSTIME"])), GARBAGE, max_size=6), max_size=4
        ),
        st.lists(st.dictionaries(st.sampled_from(list(feed.TABLES["GENERALMESSAGEUPDATE"])), GARBAGE), max_size=3),
    )
    @example([{"LastUpdateTimeStamp": "2026-01-01T01:00:00+99:99"}, {}], [{"MessageTimeStamp": "²"}])
    def test_any_fields(self, rows: list[feed.Row], messages: list[feed.Row]) -> None:
        """Whatever fields hold is taken or counted, can be read if it was taken, and goes when its time is over."""
        self.begin()
        clock = Clock()
        clock.advance(NOW)
        self.kept = Passtimes(clock.seconds, self.refuse)
        self.take(feed.passtimes(*rows), feed.general_message(*messages), feed.general_message_delete(*messages[1:]))
        self.assert_consistent()
        for code in self.kept.stops:
            for one in self.passes(code):
                self.assertLess(one.expected, NOW + 10 * 24 * HOUR)
                int(one.user_stop_order_number)
        for message in self.messages_of(self.kept):
            message.shown(NOW)
        clock.advance(10 * 24 * HOUR)
        self.sweep()
        self.assertEqual((self.kept.n_passes, self.kept.journeys, self.kept.lines), (0, {}, {}))
        self.assertEqual(self.kept._line_of, {})
        self.assert_consistent()

    def messages_of(self, kept: Passtimes) -> list[GeneralMessage]:
        return [message for stop in kept.stops.values() for message in (stop.messages or {}).values()]


class NewestTests(PasstimesTestCase):
    """Which word about a pass holds."""

    def test_newer(self) -> None:
        """A newer row replaces an older one, and an older one is refused and counted."""
        self.tell(stamped(2, ExpectedDepartureTime="01:32:00"), stamped(1, ExpectedDepartureTime="01:31:00"))
        self.assertEqual((self.only().expected_departure_time, self.refused), ("01:32:00", {"older": 1}))
        self.tell(stamped(3, ExpectedDepartureTime="01:33:00"))
        self.assertEqual(self.only().expected_departure_time, "01:33:00")
        self.assertEqual(self.kept.n_passes, 1)

    def test_other_forms(self) -> None:
        """Timestamps are compared as moments, whatever their offsets and fractions are."""
        table = (
            ("2026-01-01T00:59:50+01:00", "2025-12-31T23:59:51Z", True),
            ("2026-01-01T00:59:50+01:00", "2025-12-31T23:59:49+00:00", False),
            ("2026-01-01T00:59:50+01:00", "2026-01-01T01:59:49+02:00", False),
            ("2026-01-01T00:59:50+01:00", "2026-01-01T00:59:50.001+01:00", True),
            ("2026-01-01T00:59:50.001+01:00", "2026-01-01T00:59:50+01:00", False),
            ("2026-01-01T00:59:50", "2025-12-31T23:59:51Z", True),
        )
        for first, second, is_newer in table:
            self.begin()
            self.tell({"LastUpdateTimeStamp": first}, {"LastUpdateTimeStamp": second, "TripStopStatus": "ARRIVED"})
            self.assertEqual(self.only().trip_stop_status == "ARRIVED", is_newer, (first, second))

    def test_autumn_stamps(self) -> None:
        """In the hour that comes twice the second turn is newer than the first."""
        self.go_to("2026-10-25T02:10:00+01:00")
        day = {"OperationDate": "2026-10-25", **at("03:30:00")}
        self.tell({**day, "LastUpdateTimeStamp": "2026-10-25T02:50:00+02:00"})
        self.tell({**day, "LastUpdateTimeStamp": "2026-10-25T02:10:00+01:00", "TripStopStatus": "ARRIVED"})
        self.tell({**day, "LastUpdateTimeStamp": "2026-10-25T02:55:00+02:00"})
        self.assertEqual((self.only().trip_stop_status, self.refused), ("ARRIVED", {"older": 1}))

    def test_cancelled(self) -> None:
        """A cancellation is taken back by a newer row only: not by one of the same moment, nor by one without."""
        cancel = stamped(5, TripStopStatus="CANCEL")
        for stamp in (feed.PUBLISHED.replace("50", "05"), feed.PUBLISHED.replace("50", "04"), None, ""):
            self.begin()
            self.tell(cancel, {"LastUpdateTimeStamp": stamp, "TripStopStatus": "DRIVING"})
            self.assertEqual(self.only().trip_stop_status, "CANCEL", stamp)
        self.tell(stamped(6))
        self.assertEqual(self.only().trip_stop_status, "DRIVING")

    def test_cancelled_without_moment(self) -> None:
        """A cancellation repeated without its moment does not let an older row take it back."""
        self.tell(stamped(5, TripStopStatus="CANCEL"), {"LastUpdateTimeStamp": None, "TripStopStatus": "CANCEL"})
        self.tell(stamped(4))
        self.assertEqual((self.only().trip_stop_status, self.refused), ("CANCEL", {"older": 1}))

    def test_cancelled_later_in_message(self) -> None:
        """A cancellation and a row of the same moment end cancelled, whichever comes first."""
        for order in ((0, 1), (1, 0)):
            self.begin()
            rows: tuple[feed.Row, ...] = ({"TripStopStatus": "CANCEL"}, {})
            self.take(feed.passtimes(*(rows[n] for n in order)))
            self.assertEqual(self.only().trip_stop_status, "CANCEL")

    def test_wheelchair(self) -> None:
        """What is known of wheelchairs is not unlearned, and may be corrected."""
        self.tell(stamped(1, WheelChairAccessible="UNKNOWN"))
        self.assertEqual(self.only().wheelchair, "UNKNOWN")
        for n, (said, kept) in enumerate(
            (
                *(("ACCESSIBLE", "ACCESSIBLE"), ("UNKNOWN", "ACCESSIBLE"), (None, "ACCESSIBLE"), ("", "ACCESSIBLE")),
                *(("NOTACCESSIBLE", "NOTACCESSIBLE"), ("UNKNOWN", "NOTACCESSIBLE")),
            )
        ):
            self.tell(stamped(2 + n, WheelChairAccessible=said, NumberOfCoaches=str(n)))
            self.assertEqual((self.only().wheelchair, self.only().number_of_coaches), (kept, str(n)))

    def test_version(self) -> None:
        """A stop's version changes with what is known of it, and only then."""
        self.tell({}, {"TimingPointCode": "2", "UserStopCode": "u2"})
        stop, other = self.kept.stops[CODE], self.kept.stops["2"]
        before, of_other = stop.version, other.version
        self.tell({}, {"WheelChairAccessible": "UNKNOWN"}, {"LastUpdateTimeStamp": None}, stamped(1))
        self.assertEqual(stop.version, before)
        self.tell(stamped(51))
        self.assertNotEqual(stop.version, before)
        self.assertEqual(other.version, of_other)

    def test_updated(self) -> None:
        """When an owner last spoke is what its last row with a moment says; when it was heard, any row."""
        self.tell(stamped(1))
        self.clock.advance(3)
        self.tell({"LastUpdateTimeStamp": None})
        self.assertEqual(self.kept.updated, {"LIN": "2026-01-01T00:59:01+01:00"})
        self.assertEqual(self.kept.heard, {"LIN": NOW + 3})

    @settings(deadline=None)
    @given(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.integers(0, 59), st.sampled_from(("DRIVING", "CANCEL", "PASSED"))),
            unique_by=lambda one: one[:2],
            max_size=12,
        )
    )
    def test_any_order(self, rows: list[tuple[str, int, str]]) -> None:
        """In whatever order they come, the newest row of each pass holds."""
        self.begin()
        self.tell(*(stamped(s, JourneyNumber=journey, TripStopStatus=status) for journey, s, status in rows))
        newest = {journey: (s, status) for journey, s, status in sorted(rows)}
        kept = {
            one.journey_number: (round(cast(float, one.last_update) - NOW + 60), one.trip_stop_status)
            for one in self.passes()
        }
        self.assertEqual(kept, newest)


class SweepTests(PasstimesTestCase):
    """What is forgotten when."""

    def test_gone(self) -> None:
        """A pass goes 60 s after both its expected times, and is kept until its planned times are over, too."""
        table = (
            (("01:10:00", "01:10:00", "01:05:00", "01:06:00"), 7, 11),
            (("01:10:00", "01:10:00", "01:20:00", "01:15:00"), 21, 21),
            (("01:10:00", "01:11:00", None, None), 12, 12),
        )
        for times, gone, forgotten in table:
            self.setUp()
            self.tell(dict(zip(TIMES, times, strict=True)))
            one = self.only()
            self.assertEqual(one.hidden_after, NOW + gone * MINUTE, times)
            self.clock.advance(forgotten * MINUTE - 1)
            self.sweep()
            self.assertEqual(self.passes(), [one])
            self.clock.advance(1)
            self.sweep()
            self.assertEqual(
                (self.passes(), self.kept.n_passes, self.kept.journeys, self.kept.lines), ([], 0, {}, {})
            )

    def test_beyond_midnight(self) -> None:
        """A pass of yesterday's date beyond 24:00 is of this night."""
        self.tell(
            {"OperationDate": "2025-12-31", **at("25:10:00")},
            {"OperationDate": "2025-12-31", **at("23:10:00"), "JourneyNumber": "2"},
        )
        self.assertEqual(self.passes()[0].expected, NOW + 10 * MINUTE)
        self.sweep()
        self.assertEqual([one.journey_number for one in self.passes()], ["1001"])

    def test_last(self) -> None:
        """The last stop of a journey goes when it has arrived, though its departure is midnight's."""
        self.tell({"JourneyStopType": "LAST", "TargetDepartureTime": "00:00:00", "ExpectedDepartureTime": "00:00:00"})
        self.clock.advance(31 * MINUTE - 1)
        self.sweep()
        self.assertEqual(len(self.passes()), 1)
        self.clock.advance(1)
        self.sweep()
        self.assertEqual(self.passes(), [])

    def test_direction_changes(self) -> None:
        """A journey whose direction changes, or differs between stops, leaves nothing behind."""
        for direction in ("1", "2", None):
            self.tell({"LineDirection": direction, "UserStopOrderNumber": "4", "LastUpdateTimeStamp": None})
            self.tell({"LineDirection": direction, "LastUpdateTimeStamp": None})
        self.assert_consistent()
        self.clock.advance(HOUR)
        self.sweep()
        self.assertEqual((self.kept.journeys, self.kept.lines, self.kept._line_of), ({}, {}, {}))

    def test_bit_by_bit(self) -> None:
        """Between two stops of a sweep rows may come, and everything is there that should be."""
        self.tell(*({"TimingPointCode": str(n), "UserStopCode": str(n)} for n in range(5)))
        self.clock.advance(HOUR)
        for n, _ in enumerate(self.kept.sweep()):
            self.assertEqual(len(self.kept.stops), 5 + n)
            self.assertEqual(self.passes(str(n)), [])
            row = {"TimingPointCode": str(100 + n), "UserStopCode": str(100 + n), **at("02:30:00")}
            self.tell(row)
            self.assert_consistent()
        self.assertEqual(self.kept.n_passes, 5)

    def test_nothing_grows(self) -> None:
        """Day after day of other journeys leaves no more behind than the first."""
        for _ in range(30):
            day = local_timestamp(self.clock.seconds())[:10]
            stamp = {"OperationDate": day, "LastUpdateTimeStamp": None}
            self.tell(*({**stamp, "JourneyNumber": f"{day}-{n}"} for n in range(5)))
            self.assertEqual(self.kept.n_passes, 5)
            self.clock.advance(24 * HOUR)
            self.sweep()
        self.assertEqual(
            (self.kept.n_passes, self.kept.journeys, self.kept.lines, self.kept._line_of), (0, {}, {}, {})
        )
        self.assertEqual((list(self.kept.stops), list(self.kept.heard)), ([CODE], ["LIN"]))


class ClockChangeTests(PasstimesTestCase):
    """The two nights in which clocks change."""

    def expected(self, updated: str, time: str, status: str = "DRIVING") -> str:
        """Tell when a pass of the night of 2026-10-25 is expected, as was said at a moment."""
        self.begin()
        self.go_to(updated)
        row = {"OperationDate": updated[:10], "LastUpdateTimeStamp": updated, "TripStopStatus": status, **at(time)}
        self.tell(row)
        return local_timestamp(self.only().expected)[11:]

    def test_autumn(self) -> None:
        """In the hour that comes twice a pass is of the turn in which it was still to come."""
        for updated, time, expected in (
            ("2026-10-25T01:50:00+02:00", "02:10:00", "02:10:00+02:00"),
            ("2026-10-25T02:05:00+02:00", "02:10:00", "02:10:00+02:00"),
            ("2026-10-25T02:55:00+02:00", "02:10:00", "02:10:00+01:00"),
            ("2026-10-25T02:05:00+01:00", "02:10:00", "02:10:00+01:00"),
            ("2026-10-25T02:55:00+01:00", "03:10:00", "03:10:00+01:00"),
        ):
            self.assertEqual(self.expected(updated, time), expected, updated)

    def test_autumn_late(self) -> None:
        """Who is late in that hour was not planned for its other turn."""
        stamp = "2026-10-25T02:30:00+02:00"
        self.go_to(stamp)
        target = {"TargetArrivalTime": "02:24:00", "TargetDepartureTime": "02:25:00"}
        self.tell({"OperationDate": stamp[:10], "LastUpdateTimeStamp": stamp, **at("02:35:00"), **target})
        one = self.only()
        for planned, expected, late in (
            (one.target_arrival, one.expected_arrival, 11), (one.target_departure, one.expected_departure, 10)
        ):  # fmt: skip
            assert planned is not None
            assert expected is not None
            self.assertEqual(expected - planned, late * MINUTE)

    def test_autumn_just_gone(self) -> None:
        """A pass that has just gone in that hour does not come again an hour later."""
        for updated, status, expected in (
            ("2026-10-25T02:10:20+02:00", "DRIVING", "02:10:00+02:00"),
            ("2026-10-25T02:12:00+02:00", "PASSED", "02:10:00+02:00"),
            ("2026-10-25T02:12:00+02:00", "ARRIVED", "02:10:00+02:00"),
            ("2026-10-25T02:12:00+01:00", "PASSED", "02:10:00+01:00"),
        ):
            self.assertEqual(self.expected(updated, "02:10:00", status), expected, (updated, status))

    def test_autumn_sweep(self) -> None:
        """In that hour nothing is forgotten before it is gone."""
        for updated in ("2026-10-25T02:29:00+02:00", "2026-10-25T02:29:00+01:00"):
            self.expected(updated, "02:30:00")
            self.clock.advance(2 * MINUTE - 1)
            self.sweep()
            self.assertEqual(len(self.passes()), 1, updated)
            self.clock.advance(HOUR + 1)
            self.sweep()
            self.assertEqual(self.passes(), [])

    def test_spring(self) -> None:
        """In the night that lacks an hour times go on on the wall, also those beyond 24:00 of the eve."""
        self.assertEqual(self.expected("2026-03-29T01:50:00+01:00", "01:59:00"), "01:59:00+01:00")
        self.assertEqual(self.expected("2026-03-29T01:50:00+01:00", "03:05:00"), "03:05:00+02:00")
        self.assertEqual(self.only().hidden_after - self.clock.seconds(), 16 * MINUTE)
        self.tell({"OperationDate": "2026-03-28", **at("27:05:00"), "LastUpdateTimeStamp": None})
        self.assertEqual(self.passes()[0].expected, self.passes()[1].expected)
        self.clock.advance(16 * MINUTE)
        self.sweep()
        self.assertEqual(self.passes(), [])


class MessageTests(PasstimesTestCase):
    """General messages."""

    def message(self) -> GeneralMessage:
        (message,) = (self.kept.stops[CODE].messages or {}).values()
        return message

    def shown(self) -> bool:
        return self.message().shown(self.clock.seconds())

    def test_message(self) -> None:
        """A message is kept with its columns under OVapi's key, and shown from its start until it is taken back."""
        self.take(feed.general_message({"MessageContent": "a|b", "ReasonContent": ""}))
        message = self.message()
        self.assertEqual(message.key, "LIN_2026-01-01_27_ALGEMEEN_30000001")
        fields = {**feed.TABLES["GENERALMESSAGEUPDATE"], "MessageContent": "a|b", "ReasonContent": ""}
        self.assertEqual(dict(message.fields), fields)
        self.assertEqual((message.starts, message.ends, self.shown()), (NOW - 10 * MINUTE, None, True))
        version = self.kept.stops[CODE].version
        self.take(feed.general_message_delete({}))
        self.assertEqual((self.kept.stops[CODE].messages, self.kept.n_messages), ({}, 0))
        self.assertNotEqual(self.kept.stops[CODE].version, version)

    def test_span(self) -> None:
        """A message is shown from its start to its end, and then forgotten."""
        span = {"MessageStartTime": "2026-01-01T01:01:00+01:00", "MessageEndTime": "2026-01-01T00:02:00Z"}
        self.take(feed.general_message(span))
        for wait, shown in ((0, False), (59, False), (1, True), (59, True), (1, False)):
            self.clock.advance(wait)
            self.assertEqual(self.shown(), shown)
            self.assertEqual(self.kept.n_messages, 1)
        self.sweep()
        self.assertEqual((self.kept.stops[CODE].messages, self.kept.n_messages), ({}, 0))

    def test_no_span(self) -> None:
        """A message that does not say from when or until when is shown, until it is taken back."""
        for said in (None, ""):
            self.take(feed.general_message({"MessageStartTime": said, "MessageEndTime": said}))
            self.clock.advance(365 * 24 * HOUR)
            self.sweep()
            self.assertTrue(self.shown())

    def test_replaced(self) -> None:
        """A newer message of the same key replaces an older one, which is refused when it comes later."""
        newer = {"MessageContent": "newer", "MessageTimeStamp": "2026-01-01T00:59:51+01:00"}
        self.take(feed.general_message(newer), feed.general_message({}))
        self.assertEqual((dict(self.message().fields)["MessageContent"], self.refused), ("newer", {"older": 1}))
        version = self.kept.stops[CODE].version
        self.take(feed.general_message(newer))
        self.assertEqual(self.kept.stops[CODE].version, version)
        self.take(feed.general_message({**newer, "MessageContent": "same moment"}))
        self.assertEqual(dict(self.message().fields)["MessageContent"], "same moment")
        self.assertEqual(self.kept.n_messages, 1)

    def test_refused(self) -> None:
        """A message without its key, of no stop, or with a time that is none is refused and counted."""
        for column in tuple(feed.TABLES["GENERALMESSAGEDELETE"]):
            for said in (None, ""):
                self.begin()
                self.take(feed.general_message({column: said}), feed.general_message_delete({column: said}))
                self.assertEqual((self.refused, self.kept.n_messages), ({"key": 2}, 0))
        for why, row in (
            ("TimingPointCode", {"TimingPointCode": "x"}),
            ("time", {"MessageEndTime": "99:99:99"}),
            ("time", {"MessageStartTime": "1970-01-01T00:00:00Z"}),
            ("time", {"MessageStartTime": "soon"}),
        ):
            self.begin()
            self.take(feed.general_message(row, {"MessageCodeNumber": "28"}))
            self.assertEqual((self.refused, self.kept.n_messages), ({why: 1}, 1), row)

    def test_missing_columns(self) -> None:
        """A message whose key lacks a column is refused; any other may be missing."""
        for missing in feed.TABLES["GENERALMESSAGEUPDATE"]:
            self.begin()
            labels = [label for label in feed.TABLES["GENERALMESSAGEUPDATE"] if label != missing]
            table = feed.table("GENERALMESSAGEUPDATE", [{}], labels)
            self.take(feed.message("KV8turbo_generalmessages", table))
            self.assertEqual(self.kept.n_messages, missing not in feed.TABLES["GENERALMESSAGEDELETE"], missing)

    def test_unknown_deleted(self) -> None:
        """A message that nobody knows may be taken back."""
        self.take(feed.general_message_delete({}))
        self.tell({})
        self.take(feed.general_message_delete({}))
        self.assertEqual((self.refused, self.kept.n_messages), ({}, 0))

    def test_limit(self) -> None:
        """There are no more messages than the limit, and a known one is still replaced."""
        self.begin(messages=2)
        self.take(feed.general_message(*({"MessageCodeNumber": str(n)} for n in range(4))))
        self.take(feed.general_message({"MessageCodeNumber": "0", "MessageContent": "other"}))
        self.assertEqual((self.refused, self.kept.n_messages), ({"too many messages": 2}, 2))
        first = next(iter((self.kept.stops[CODE].messages or {}).values()))
        self.assertEqual(dict(first.fields)["MessageContent"], "other")
