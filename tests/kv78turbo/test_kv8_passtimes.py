"""Tests of kv78turbo.kv8_passtimes: storing, superseding, rejecting and removing passtimes and general messages."""

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
from govi_server.kv78turbo.general_message import GeneralMessage
from govi_server.kv78turbo.kv8_columns import parse_passtime
from govi_server.kv78turbo.kv8_passtimes import Passtimes
from govi_server.kv78turbo.operators import MAX_OPERATORS
from govi_server.kv78turbo.passtime import Passtime
from govi_server.runtime.cooperative import run_now
from govi_server.settings import PasstimeSettings
from tests import feed
from tests.client import NOW

CODE = "30000001"
TIMES = ("TargetArrivalTime", "TargetDepartureTime", "ExpectedArrivalTime", "ExpectedDepartureTime")
TIME_FIELDS = {
    "TargetArrivalTime": "target_arrival_time",
    "TargetDepartureTime": "target_departure_time",
    "ExpectedArrivalTime": "expected_arrival_time",
    "ExpectedDepartureTime": "expected_departure_time",
}
KEY = (
    *("DataOwnerCode", "LocalServiceLevelCode", "LinePlanningNumber", "JourneyNumber", "FortifyOrderNumber"),
    *("OperationDate", "UserStopOrderNumber"),
)

# Valid and invalid contents of a field.
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
    """Return a row with four equal times."""
    return dict.fromkeys(TIMES, time)


def stamped(second: int, **columns: str | None) -> dict[str, str | None]:
    """Return a row that was updated some seconds after 00:59."""
    return {"LastUpdateTimeStamp": f"2026-01-01T00:59:{second:02}+01:00", **columns}


class PasstimesTestCase(SynchronousTestCase):
    """Passtimes on a stepped clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.reset()

    def reset(self, **limits: int) -> None:
        self.rejected: Counter[str] = Counter()
        self.passtimes = Passtimes(self.clock.seconds, PasstimeSettings(**limits))

    def reject(self, kind: str) -> None:
        self.rejected[kind] += 1

    def ingest(self, *messages: bytes) -> None:
        for message in messages:
            for records in read([message], self.reject):
                self.assertEqual(run_now(self.passtimes.ingest(records, self.reject)), len(records.lines))

    def ingest_rows(self, *rows: feed.Row, columns: int | None = None) -> None:
        """Ingest messages of one row each."""
        for row in rows:
            self.ingest(feed.passtimes(row, columns=columns))

    def stored(self, code: str = CODE) -> list[Passtime]:
        stop = self.passtimes.stops.get(code)
        passtimes = stop.passtimes.items() if stop is not None else ()
        return [parse_passtime(key, stored.values, stored.code, stored.updated_by) for key, stored in passtimes]

    def only(self) -> Passtime:
        (passtime,) = self.stored()
        return passtime

    def sweep(self) -> None:
        for _ in self.passtimes.sweep():
            pass

    def go_to(self, moment: str) -> None:
        """Set the clock to a moment such as 2026-10-25T02:30:00+02:00."""
        self.clock.advance(datetime.fromisoformat(moment).timestamp() - self.clock.seconds())

    def assert_empty(self) -> None:
        """Assert that nothing refers to a passtime."""
        index = self.passtimes._index
        self.assertEqual((index.n_passtimes, index.journeys, index.lines, index._line_of), (0, {}, {}, {}))

    def assert_consistent(self) -> None:
        """Assert that counts, journeys and lines are those of the stored passtimes and messages."""
        stored = {
            (b"|".join(key.split(b"|")[:5]), key, code): passtime
            for code, stop in self.passtimes.stops.items()
            for key, passtime in stop.passtimes.items()
        }
        self.assertEqual(self.passtimes.n_passtimes, len(stored))
        of_journeys = {
            (journey, key, passtime.code): passtime
            for journey, passtimes in self.passtimes.journeys.items()
            for key, passtime in passtimes.items()
        }
        self.assertEqual(stored, of_journeys)
        self.assertTrue(all(self.passtimes.journeys.values()))
        journeys_of_lines = [journey for journeys in self.passtimes.lines.values() for journey in journeys]
        self.assertEqual(sorted(journeys_of_lines), sorted(self.passtimes.journeys))
        self.assertTrue(all(self.passtimes.lines.values()))
        messages = [key for stop in self.passtimes.stops.values() for key in stop.messages or ()]
        self.assertEqual(self.passtimes.n_messages, len(messages))


class ParseTests(PasstimesTestCase):
    """Parsing rows."""

    def test_tables_of_all_sizes(self) -> None:
        """A passtime is the same from tables of 35, 49 and 65 columns."""
        for columns in (35, 49, 65):
            self.reset()
            self.ingest_rows({}, columns=columns)
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
            self.assertEqual((self.rejected, self.passtimes.n_passtimes), ({}, 1))
            self.assertEqual(list(self.passtimes.journeys), [b"LIN|77|L004|1001|0"])
            self.assertEqual(self.passtimes.lines, {("LIN", "L004", "1"): {b"LIN|77|L004|1001|0": None}})
            self.assertEqual(
                (self.passtimes.last_heard, self.passtimes.last_update), ({"LIN": NOW}, {"LIN": feed.PUBLISHED})
            )

    def test_columns_by_label(self) -> None:
        """Columns are found by label, in any order and among others."""
        labels = [*reversed(list(feed.TABLES["DATEDPASSTIME"])), "LinePublicNumber", "Other", "DestinationName"]
        row = {"LinePublicNumber": "N4", "DestinationName": "Dorp", "Other": "x", "NumberOfCoaches": "2"}
        self.ingest(feed.passtimes(row, columns=labels))
        passtime = self.only()
        self.assertEqual(
            (passtime.line_public_number, passtime.destination_name, passtime.number_of_coaches), ("N4", "Dorp", "2")
        )
        self.assertEqual(
            (passtime.trip_stop_status, passtime.timing_point_code, passtime.user_stop_code), ("DRIVING", CODE, "u1")
        )

    def test_escapes_and_null(self) -> None:
        """Escapes are decoded, and an empty text is unknown, like null."""
        content = "Lift | at Brug\r\nbroken \\ é"
        self.ingest_rows(
            {"MessageContent": content, "AdviceContent": "", "ReasonType": "1", "SideCode": "", "OperatorCode": None}
        )
        passtime = self.only()
        self.assertEqual(passtime.extra, (("MessageContent", content), ("ReasonType", "1")))
        self.assertEqual((passtime.side_code, passtime.operator_code), (None, None))

    def test_open_enumerations(self) -> None:
        """Unknown values of enumerations are stored unchanged; missing ones are UNKNOWN."""
        for value, stored in (
            ("SOMETHING NEW", "SOMETHING NEW"),
            ("", "UNKNOWN"),
            (None, "UNKNOWN"),
            ("a|\\b", "a|\\b"),
        ):
            self.reset()
            self.ingest_rows(dict.fromkeys(("TripStopStatus", "JourneyStopType", "WheelChairAccessible"), value))
            passtime = self.only()
            self.assertEqual(
                (passtime.trip_stop_status, passtime.journey_stop_type, passtime.wheelchair), (stored,) * 3
            )
            self.assertEqual(self.rejected, {})

    def test_statuses(self) -> None:
        """A newer row may change any status to any other."""
        statuses = ("PLANNED", "DRIVING", "ARRIVED", "PASSED", "CANCEL", "UNKNOWN", "OFFROUTE")
        for n, (first, second) in enumerate(permutations(statuses, 2)):
            journey = str(n)
            self.ingest_rows(stamped(1, JourneyNumber=journey, TripStopStatus=first))
            self.ingest_rows(stamped(2, JourneyNumber=journey, TripStopStatus=second))
            self.assertEqual(self.stored()[-1].trip_stop_status, second)

    def test_infopoint(self) -> None:
        """Rows of an INFOPOINT are ignored."""
        self.ingest_rows({"JourneyStopType": "INFOPOINT"})
        self.assertEqual((self.stored(), self.rejected, self.passtimes.n_passtimes), ([], {}, 0))

    def test_last_has_no_departure(self) -> None:
        """At a LAST stop a journey only arrives: its departure at 00:00:00 is ignored."""
        self.ingest_rows(
            {"JourneyStopType": "LAST", "TargetDepartureTime": "00:00:00", "ExpectedDepartureTime": "00:00:00"}
        )
        passtime = self.only()
        self.assertFalse(passtime.is_departure)
        self.assertEqual((passtime.target_departure_time, passtime.expected_departure_time), (None, None))
        self.assertEqual((passtime.target_departure, passtime.expected_departure), (None, None))
        self.assertEqual((passtime.expected, passtime.hidden_after), (NOW + 30 * MINUTE, NOW + 31 * MINUTE))

    def test_other_tables(self) -> None:
        """Tables of KV7 are not ingested."""
        for records in feed.records(feed.planning({})):
            self.assertEqual(run_now(self.passtimes.ingest(records, self.reject)), 0)
        self.assertEqual((self.passtimes.stops, self.rejected), ({}, {}))

    def test_dates_and_levels_are_distinct(self) -> None:
        """Passtimes of two operating dates or service levels do not collide."""
        days = ("2025-12-31", "2026-01-01", "2026-01-02")
        self.ingest_rows(*({"OperationDate": day, "LocalServiceLevelCode": level} for day in days for level in "12"))
        self.assertEqual({passtime.operation_date.isoformat() for passtime in self.stored()}, set(days))
        self.assertEqual(len(self.stored()), 6)
        self.assert_consistent()

    def test_expected_time_falls_back(self) -> None:
        """The expected time is that of the departure, otherwise the best known time."""
        table = (
            (("01:31:00", "01:32:00", "01:33:00", "01:34:00"), 34, 35),
            ((None, None, "01:33:00", None), 33, 34),
            (("01:31:00", None, None, None), 31, 32),
            ((None, "01:32:00", None, ""), 32, 33),
            (("01:31:00", "01:32:00", "01:40:00", "01:34:00"), 34, 41),
        )
        for times, expected, hidden_after in table:
            self.reset()
            self.ingest_rows(dict(zip(TIMES, times, strict=True)))
            passtime = self.only()
            self.assertEqual(
                (passtime.expected - NOW, passtime.hidden_after - NOW),
                (expected * MINUTE, hidden_after * MINUTE),
                times,
            )


class RejectedTests(PasstimesTestCase):
    """Rejected rows, and limits."""

    def assert_rejected(self, row: feed.Row, kind: str) -> None:
        self.reset()
        self.ingest(feed.passtimes({"JourneyNumber": "1"}, row, {"JourneyNumber": "2"}))
        self.assertEqual(self.rejected, {kind: 1}, row)
        self.assertEqual([passtime.journey_number for passtime in self.stored()], ["1", "2"], row)
        self.assert_consistent()

    def assert_value_rejected(self, row: feed.Row, field: str) -> None:
        self.reset()
        self.ingest_rows(row)
        self.assertEqual((self.rejected, getattr(self.only(), field)), ({"value": 1}, None), row)

    def test_invalid_and_distant_dates(self) -> None:
        """Invalid operating dates are rejected, as are those that are not near today."""
        for day in ("1970-01-01", "2025-12-29", "2026-01-09", "2027-01-01", "2026-01-32", "01-01-2026", "tomorrow"):
            self.assert_rejected({"OperationDate": day}, "date")
        self.reset()
        self.ingest_rows({"OperationDate": "2025-12-30"}, {"OperationDate": "2026-01-08"})
        self.assertEqual((len(self.stored()), self.rejected), (2, {}))

    def test_accepted_dates_move_at_midnight(self) -> None:
        """The accepted dates move at midnight, local time."""
        self.ingest_rows({})
        self.go_to("2026-01-01T23:59:59+01:00")
        self.ingest_rows({"OperationDate": "2026-01-09"})
        self.clock.advance(1)
        self.ingest_rows({"OperationDate": "2026-01-09"}, {"OperationDate": "2025-12-30"})
        self.assertEqual((len(self.stored()), self.rejected), (2, {"date": 2}))

    def test_invalid_times(self) -> None:
        """An invalid time is unknown; rows without any valid time are rejected."""
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
            for column, field in TIME_FIELDS.items():
                self.assert_value_rejected({column: time}, field)
            self.reset()
            self.ingest_rows(dict.fromkeys(TIMES, time))
            self.assertEqual((self.rejected, self.passtimes.n_passtimes), ({"value": 4, "time": 1}, 0))
        for unknown in (None, ""):
            self.assert_rejected(dict.fromkeys(TIMES, unknown), "time")
            for departure in (unknown, "00:00:00"):
                departures = dict.fromkeys(("ExpectedDepartureTime", "TargetDepartureTime"), departure)
                last = {**dict.fromkeys(TIMES, unknown), **departures, "JourneyStopType": "LAST"}
                self.assert_rejected(last, "time")

    def test_invalid_timestamps(self) -> None:
        """Invalid timestamps are unknown."""
        for stamp in (
            *("now", "1970-01-01T00:00:00Z", "2026-01-01", "2026-01-01T29:59:59+01:00", "2026-13-01T00:00:00Z"),
            *("2026-01-32T00:00:00Z", "2026-01-01T00:59:00é"),
        ):
            self.assert_value_rejected({"LastUpdateTimeStamp": stamp}, "last_update")

    def test_invalid_keys(self) -> None:
        """Null, empty and invalid fields of the key are rejected."""
        for column in KEY:
            for value in (None, "", "a|b", "\\", " ", "   "):
                self.assert_rejected({column: value}, "date" if column == "OperationDate" else "key")
        for order in ("x", "²", "-1", "+1", " 1", "1_0", "1.5", "123456"):
            self.assert_rejected({"UserStopOrderNumber": order}, "key")

    def test_missing_user_stop(self) -> None:
        """A row without a UserStopCode is at the user stop of its TimingPointCode."""
        for unknown in (None, "", " "):
            self.reset()
            self.ingest_rows({"UserStopCode": unknown})
            self.assertEqual((self.only().user_stop_code, self.rejected), (CODE, {}))

    def test_timestamp_after_receipt(self) -> None:
        """A timestamp after the receipt counts as received: the publisher's correction, received later, is newer."""
        for stamp in ("2026-01-01T01:15:00+01:00", "2026-01-03T00:00:00+01:00", "2099-01-01T00:00:00Z"):
            for correction in ("2026-01-01T01:00:01+01:00", "2026-01-01T01:05:00+01:00"):
                self.setUp()
                self.ingest_rows({"LastUpdateTimeStamp": stamp})
                self.assertEqual((self.only().last_update, self.only().expected), (NOW, NOW + 30 * MINUTE))
                self.clock.advance(1)
                self.ingest_rows({"LastUpdateTimeStamp": correction, "TripStopStatus": "CANCEL"})
                self.ingest_rows(stamped(59))
                self.assertEqual((self.only().trip_stop_status, self.rejected), ("CANCEL", {"older": 1}))
                self.clock.advance(32 * MINUTE)
                self.sweep()
                self.assertEqual(self.stored(), [])

    def test_repeat_with_a_timestamp_after_receipt(self) -> None:
        """A repeated row counts as first received: it undoes no correction, neither soon nor after its timestamp."""
        row = {"LastUpdateTimeStamp": "2026-01-01T01:10:00+01:00", "WheelChairAccessible": "UNKNOWN"}
        for correction in ("2026-01-01T01:00:01+01:00", "2026-01-01T01:05:00+01:00", "2026-01-01T01:10:01+01:00"):
            for seconds in (1, 5 * MINUTE, 11 * MINUTE):
                self.setUp()
                self.ingest_rows(row)
                self.clock.advance(1)
                self.ingest_rows({"LastUpdateTimeStamp": correction, "TripStopStatus": "CANCEL"})
                self.clock.advance(seconds)
                self.ingest_rows(row)
                self.assertEqual((self.only().trip_stop_status, self.rejected), ("CANCEL", {"older": 1}))
                later = {"LastUpdateTimeStamp": "2026-01-01T01:15:00+01:00", "TripStopStatus": "ARRIVED"}
                self.ingest_rows(later)
                self.assertEqual(self.only().trip_stop_status, "ARRIVED")
                self.ingest_rows({**later, "TripStopStatus": "DRIVING"})
                self.assertEqual(self.only().trip_stop_status, "DRIVING")
        self.clock.advance(HOUR)
        self.sweep()
        self.assertFalse(self.passtimes._receipts._receipts)

    def test_repeated_message_with_a_timestamp_after_receipt(self) -> None:
        """A repeated message or deletion counts as first received."""
        ahead = "2026-01-01T01:10:00+01:00"
        update = feed.general_message({"MessageTimeStamp": ahead})
        deletion = feed.general_message_delete({}, published=ahead)
        later = feed.general_message({"MessageTimeStamp": "2026-01-01T01:00:20+01:00"})
        for messages, n_messages in (
            ((update, feed.general_message_delete({}, published="2026-01-01T01:00:20+01:00"), update), 0),
            ((update, later, update), 1),
            ((deletion, later, deletion), 1),
        ):
            self.setUp()
            for message in messages:
                self.ingest(message)
                self.clock.advance(30)
            self.assertEqual((self.passtimes.n_messages, self.rejected), (n_messages, {"older": 1}))

    def test_fractions_of_a_second(self) -> None:
        """Up to seven fractional digits are read, and compared as numbers."""
        for older, newer in (
            (".9", ".95"),
            (".1234567", ".1234568"),
            ("", ".0000001"),
            (".12", ".123"),
            (".5", ".50001"),
        ):
            for first, second in ((older, newer), (newer, older)):
                self.reset()
                for fraction in (first, second):
                    stamp = f"2026-01-01T00:59:50{fraction}+01:00"
                    self.ingest_rows({"LastUpdateTimeStamp": stamp, "MessageContent": fraction or "none"})
                self.assertEqual(self.only().extra, (("MessageContent", newer),))
                self.assertEqual(self.rejected, {"older": 1} if first == newer else {})

    def test_timestamp_without_offset_in_repeated_hour(self) -> None:
        """A timestamp without an offset is in the second occurrence of the repeated hour, once that has begun."""
        day = {"OperationDate": "2026-10-25", **at("03:30:00")}
        self.go_to("2026-10-25T02:58:00+02:00")
        self.ingest_rows({**day, "LastUpdateTimeStamp": "2026-10-25T02:58:00"})
        self.go_to("2026-10-25T02:05:00+01:00")
        self.ingest_rows({**day, "LastUpdateTimeStamp": "2026-10-25T02:05:00", "TripStopStatus": "CANCEL"})
        self.ingest_rows({**day, "LastUpdateTimeStamp": "2026-10-25T02:57:00"})
        self.assertEqual((self.only().trip_stop_status, self.rejected), ("CANCEL", {"older": 1}))

    def test_invalid_timing_point_codes(self) -> None:
        """A TimingPointCode is 1 to 10 digits."""
        for code in (None, "", "x", "-1", "+3", " 3", "3 ", "\u0663", "²", "1_0", "3.0", "12345678901", "a|b"):
            self.assert_rejected({"TimingPointCode": code}, "TimingPointCode")
        self.ingest_rows({"TimingPointCode": "0012"})
        self.assertEqual(len(self.stored("0012")), 1)

    def test_missing_columns(self) -> None:
        """Without a required column every row is rejected; other columns may be missing."""
        required = {*KEY, *TIMES, "TimingPointCode", "UserStopCode", "JourneyStopType", "TripStopStatus"}
        for missing in feed.TABLES["DATEDPASSTIME"]:
            self.reset()
            labels = [label for label in feed.TABLES["DATEDPASSTIME"] if label != missing]
            self.ingest(feed.passtimes({}, {"JourneyNumber": "2"}, columns=labels))
            counts = {"key column": 2} if missing in required else {}
            self.assertEqual((self.rejected, len(self.stored())), (counts, 2 - counts.get("key column", 0)), missing)

    def test_layouts_are_limited(self) -> None:
        """Tables with ever-changing labels are read, and the number of cached layouts is limited."""
        labels = list(feed.TABLES["DATEDPASSTIME"])
        for n in range(300):
            self.ingest(feed.passtimes({"JourneyNumber": str(n)}, columns=[*labels, f"More{n}"]))
        self.assertEqual(len(self.stored()), 300)
        self.assertLess(len(self.passtimes._layouts), 150)

    def test_limits(self) -> None:
        """Beyond a limit new passtimes and stops replace unconfirmed ones; others are still updated."""
        self.reset(passes=3, stops=2)
        self.ingest_rows(*({"JourneyNumber": str(n)} for n in range(5)))
        self.assertEqual([passtime.journey_number for passtime in self.stored()], ["2", "3", "4"])
        self.ingest_rows(stamped(59, JourneyNumber="4", TripStopStatus="ARRIVED"))
        self.assertEqual(self.stored()[-1].trip_stop_status, "ARRIVED")
        self.ingest_rows(*(stamped(59, JourneyNumber="4", TimingPointCode=code) for code in ("2", "3", "4")))
        self.assertEqual((list(self.passtimes.stops), len(self.stored("4"))), (["3", "4"], 1))
        self.assertEqual(self.rejected, {})
        self.assert_consistent()

    def test_operators_are_limited(self) -> None:
        """The number of stored operators is limited."""
        self.ingest_rows({})
        self.clock.advance(5)
        for n in range(MAX_OPERATORS + 10):
            self.ingest_rows({"DataOwnerCode": f"O{n}"})
        self.assertEqual(
            (len(self.passtimes.last_heard), len(self.passtimes.last_update)), (MAX_OPERATORS, MAX_OPERATORS)
        )
        self.assertEqual(self.passtimes.last_heard["LIN"], NOW)

    def test_invalid_rows_are_not_stored(self) -> None:
        """Many invalid rows are counted, and nothing is stored."""
        self.ingest(feed.passtimes(*({"UserStopOrderNumber": "x"} for _ in range(5_000))))
        self.assertEqual((self.rejected, self.passtimes.stops, self.passtimes.last_heard), ({"key": 5_000}, {}, {}))

    @settings(deadline=None)
    @given(
        st.lists(
            st.dictionaries(st.sampled_from(list(feed.TABLES["DATEDPASSTIME"])), GARBAGE, max_size=6), max_size=4
        ),
        st.lists(st.dictionaries(st.sampled_from(list(feed.TABLES["GENERALMESSAGEUPDATE"])), GARBAGE), max_size=3),
    )
    @example([{"LastUpdateTimeStamp": "2026-01-01T01:00:00+99:99"}, {}], [{"MessageTimeStamp": "²"}])
    def test_any_fields_are_stored_or_rejected(self, rows: list[feed.Row], messages: list[feed.Row]) -> None:
        """Any row is stored or rejected; stored ones can be parsed, and are removed once they are past."""
        self.reset()
        clock = Clock()
        clock.advance(NOW)
        self.passtimes = Passtimes(clock.seconds)
        self.ingest(
            feed.passtimes(*rows), feed.general_message(*messages), feed.general_message_delete(*messages[1:])
        )
        self.assert_consistent()
        for code in self.passtimes.stops:
            for passtime in self.stored(code):
                self.assertLess(passtime.expected, NOW + 10 * 24 * HOUR)
                int(passtime.user_stop_order_number)
        for message in self.messages_of(self.passtimes):
            message.is_current(NOW)
        clock.advance(10 * 24 * HOUR)
        self.sweep()
        self.assert_empty()
        self.assert_consistent()

    def messages_of(self, passtimes: Passtimes) -> list[GeneralMessage]:
        return [message for stop in passtimes.stops.values() for message in (stop.messages or {}).values()]


class SupersedeTests(PasstimesTestCase):
    """The order in which rows supersede each other."""

    def test_newer_row_supersedes(self) -> None:
        """A newer row replaces an older one; an older one is rejected."""
        self.ingest_rows(stamped(2, ExpectedDepartureTime="01:32:00"), stamped(1, ExpectedDepartureTime="01:31:00"))
        self.assertEqual((self.only().expected_departure_time, self.rejected), ("01:32:00", {"older": 1}))
        self.ingest_rows(stamped(3, ExpectedDepartureTime="01:33:00"))
        self.assertEqual(self.only().expected_departure_time, "01:33:00")
        self.assertEqual(self.passtimes.n_passtimes, 1)

    def test_timestamps_of_other_forms(self) -> None:
        """Timestamps with any offsets and fractions are compared as moments."""
        table = (
            ("2026-01-01T00:59:50+01:00", "2025-12-31T23:59:51Z", True),
            ("2026-01-01T00:59:50+01:00", "2025-12-31T23:59:49+00:00", False),
            ("2026-01-01T00:59:50+01:00", "2026-01-01T01:59:49+02:00", False),
            ("2026-01-01T00:59:50+01:00", "2026-01-01T00:59:50.001+01:00", True),
            ("2026-01-01T00:59:50.001+01:00", "2026-01-01T00:59:50+01:00", False),
            ("2026-01-01T00:59:50", "2025-12-31T23:59:51Z", True),
        )
        for first, second, is_newer in table:
            self.reset()
            self.ingest_rows(
                {"LastUpdateTimeStamp": first}, {"LastUpdateTimeStamp": second, "TripStopStatus": "ARRIVED"}
            )
            self.assertEqual(self.only().trip_stop_status == "ARRIVED", is_newer, (first, second))

    def test_timestamps_in_repeated_hour(self) -> None:
        """In the repeated hour, its second occurrence is newer."""
        self.go_to("2026-10-25T02:10:00+01:00")
        day = {"OperationDate": "2026-10-25", **at("03:30:00")}
        self.ingest_rows({**day, "LastUpdateTimeStamp": "2026-10-25T02:50:00+02:00"})
        self.ingest_rows({**day, "LastUpdateTimeStamp": "2026-10-25T02:10:00+01:00", "TripStopStatus": "ARRIVED"})
        self.ingest_rows({**day, "LastUpdateTimeStamp": "2026-10-25T02:55:00+02:00"})
        self.assertEqual((self.only().trip_stop_status, self.rejected), ("ARRIVED", {"older": 1}))

    def test_only_newer_row_revokes_cancellation(self) -> None:
        """A row of the same moment or without a timestamp does not revoke a cancellation."""
        cancel = stamped(5, TripStopStatus="CANCEL")
        for stamp in (feed.PUBLISHED.replace("50", "05"), feed.PUBLISHED.replace("50", "04"), None, ""):
            self.reset()
            self.ingest_rows(cancel, {"LastUpdateTimeStamp": stamp, "TripStopStatus": "DRIVING"})
            self.assertEqual(self.only().trip_stop_status, "CANCEL", stamp)
        self.ingest_rows(stamped(6))
        self.assertEqual(self.only().trip_stop_status, "DRIVING")

    def test_repeat_without_timestamp_keeps_cancellation(self) -> None:
        """An older row does not revoke a cancellation that was repeated without a timestamp."""
        self.ingest_rows(
            stamped(5, TripStopStatus="CANCEL"), {"LastUpdateTimeStamp": None, "TripStopStatus": "CANCEL"}
        )
        self.ingest_rows(stamped(4))
        self.assertEqual((self.only().trip_stop_status, self.rejected), ("CANCEL", {"older": 1}))

    def test_cancellation_and_row_of_same_moment(self) -> None:
        """A cancellation and a row of the same moment result in a cancellation, in any order."""
        for order in ((0, 1), (1, 0)):
            self.reset()
            rows: tuple[feed.Row, ...] = ({"TripStopStatus": "CANCEL"}, {})
            self.ingest(feed.passtimes(*(rows[n] for n in order)))
            self.assertEqual(self.only().trip_stop_status, "CANCEL")

    def test_known_wheelchair_access_stays(self) -> None:
        """UNKNOWN does not replace known wheelchair accessibility; a known value does."""
        self.ingest_rows(stamped(1, WheelChairAccessible="UNKNOWN"))
        self.assertEqual(self.only().wheelchair, "UNKNOWN")
        for n, (value, stored) in enumerate(
            (
                *(("ACCESSIBLE", "ACCESSIBLE"), ("UNKNOWN", "ACCESSIBLE"), (None, "ACCESSIBLE"), ("", "ACCESSIBLE")),
                *(("NOTACCESSIBLE", "NOTACCESSIBLE"), ("UNKNOWN", "NOTACCESSIBLE")),
            )
        ):
            self.ingest_rows(stamped(2 + n, WheelChairAccessible=value, NumberOfCoaches=str(n)))
            self.assertEqual((self.only().wheelchair, self.only().number_of_coaches), (stored, str(n)))

    def test_version_changes_with_data(self) -> None:
        """A stop's version changes only with its data."""
        self.ingest_rows({}, {"TimingPointCode": "2", "UserStopOrderNumber": "4"})
        stop, other = self.passtimes.stops[CODE], self.passtimes.stops["2"]
        before, other_before = stop.version, other.version
        self.ingest_rows({}, {"WheelChairAccessible": "UNKNOWN"}, {"LastUpdateTimeStamp": None}, stamped(1))
        self.assertEqual(stop.version, before)
        self.ingest_rows(stamped(51))
        self.assertNotEqual(stop.version, before)
        self.assertEqual(other.version, other_before)

    def test_last_update_and_last_heard(self) -> None:
        """The last update of an operator is its latest timestamp; any row updates last_heard."""
        self.ingest_rows(stamped(1))
        self.clock.advance(3)
        self.ingest_rows({"LastUpdateTimeStamp": None})
        self.assertEqual(self.passtimes.last_update, {"LIN": "2026-01-01T00:59:01+01:00"})
        self.assertEqual(self.passtimes.last_heard, {"LIN": NOW + 3})

    def test_same_passtime_at_another_stop(self) -> None:
        """A newer row with another UserStopCode or TimingPointCode moves a passtime; a late one changes nothing."""
        for column, value in (("UserStopCode", "u2"), ("TimingPointCode", "2")):
            self.reset()
            self.ingest_rows(stamped(1), stamped(6, **{column: value}), stamped(3))
            codes = [passtime.timing_point_code for code in (CODE, "2") for passtime in self.stored(code)]
            stops = [passtime.user_stop_code for code in (CODE, "2") for passtime in self.stored(code)]
            self.assertIn(value, codes + stops)
            self.assertEqual((len(codes), self.rejected), (1, {"older": 1}))
            self.assert_consistent()

    def test_move_keeps_cancellation_and_access(self) -> None:
        """A passtime that moves to another stop stays accessible, and cancelled unless the row is newer."""
        self.ingest_rows(stamped(5, TripStopStatus="CANCEL"))
        other = {"TimingPointCode": "2", "UserStopCode": "u2", "WheelChairAccessible": "UNKNOWN"}
        self.ingest_rows(stamped(4, **other), stamped(5, **other))
        self.assertEqual((self.only().trip_stop_status, self.only().wheelchair), ("CANCEL", "ACCESSIBLE"))
        self.ingest_rows(stamped(6, **other))
        (passtime,) = self.stored("2")
        self.assertEqual((passtime.trip_stop_status, passtime.wheelchair), ("DRIVING", "ACCESSIBLE"))

    @settings(deadline=None)
    @given(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.integers(0, 59), st.sampled_from(("DRIVING", "CANCEL", "PASSED"))),
            unique_by=lambda row: row[:2],
            max_size=12,
        )
    )
    def test_newest_row_in_any_order(self, rows: list[tuple[str, int, str]]) -> None:
        """The newest row of each passtime is stored, in any order of arrival."""
        self.reset()
        self.ingest_rows(*(stamped(s, JourneyNumber=journey, TripStopStatus=status) for journey, s, status in rows))
        newest = {journey: (s, status) for journey, s, status in sorted(rows)}
        stored = {
            passtime.journey_number: (round(cast(float, passtime.last_update) - NOW + 60), passtime.trip_stop_status)
            for passtime in self.stored()
        }
        self.assertEqual(stored, newest)


class SweepTests(PasstimesTestCase):
    """Removing past passtimes and messages."""

    def test_removed_after_all_times(self) -> None:
        """A passtime is hidden 60 s after its expected times, and removed once its planned times are also past."""
        table = (
            (("01:10:00", "01:10:00", "01:05:00", "01:06:00"), 7, 11),
            (("01:10:00", "01:10:00", "01:20:00", "01:15:00"), 21, 21),
            (("01:10:00", "01:11:00", None, None), 12, 12),
        )
        for times, hidden_after, removed in table:
            self.setUp()
            self.ingest_rows(dict(zip(TIMES, times, strict=True)))
            passtime = self.only()
            self.assertEqual(passtime.hidden_after, NOW + hidden_after * MINUTE, times)
            self.clock.advance(removed * MINUTE - 1)
            self.sweep()
            self.assertEqual(self.stored(), [passtime])
            self.clock.advance(1)
            self.sweep()
            self.assertEqual(
                (self.stored(), self.passtimes.n_passtimes, self.passtimes.journeys, self.passtimes.lines),
                ([], 0, {}, {}),
            )

    def test_time_past_midnight(self) -> None:
        """A time past 24:00 on yesterday's operating date is today."""
        self.ingest_rows(
            {"OperationDate": "2025-12-31", **at("25:10:00")},
            {"OperationDate": "2025-12-31", **at("23:10:00"), "JourneyNumber": "2"},
        )
        self.assertEqual(self.stored()[0].expected, NOW + 10 * MINUTE)
        self.sweep()
        self.assertEqual([passtime.journey_number for passtime in self.stored()], ["1001"])

    def test_last_is_removed_after_arrival(self) -> None:
        """A passtime of a LAST stop is removed after its arrival, although its departure is 00:00:00."""
        self.ingest_rows(
            {"JourneyStopType": "LAST", "TargetDepartureTime": "00:00:00", "ExpectedDepartureTime": "00:00:00"}
        )
        self.clock.advance(31 * MINUTE - 1)
        self.sweep()
        self.assertEqual(len(self.stored()), 1)
        self.clock.advance(1)
        self.sweep()
        self.assertEqual(self.stored(), [])

    def test_direction_changes(self) -> None:
        """A journey whose direction changes, or differs between stops, is removed completely."""
        for direction in ("1", "2", None):
            self.ingest_rows({"LineDirection": direction, "UserStopOrderNumber": "4", "LastUpdateTimeStamp": None})
            self.ingest_rows({"LineDirection": direction, "LastUpdateTimeStamp": None})
        self.assert_consistent()
        self.clock.advance(HOUR)
        self.sweep()
        self.assert_empty()

    def test_ingestion_during_sweep(self) -> None:
        """Rows may arrive between two steps of a sweep."""
        self.ingest_rows(*({"TimingPointCode": str(n), "UserStopOrderNumber": str(n)} for n in range(5)))
        self.clock.advance(HOUR)
        for n, _ in enumerate(self.passtimes.sweep()):
            self.assertEqual(len(self.passtimes.stops), 5 + n)
            self.assertEqual(self.stored(str(n)), [])
            row = {"TimingPointCode": str(100 + n), "UserStopOrderNumber": str(100 + n), **at("02:30:00")}
            self.ingest_rows(row)
            self.assert_consistent()
        self.assertEqual(self.passtimes.n_passtimes, 5)

    def test_memory_does_not_grow(self) -> None:
        """New journeys every day do not accumulate."""
        for _ in range(30):
            day = local_timestamp(self.clock.seconds())[:10]
            columns = {"OperationDate": day, "LastUpdateTimeStamp": None}
            self.ingest_rows(*({**columns, "JourneyNumber": f"{day}-{n}"} for n in range(5)))
            self.assertEqual(self.passtimes.n_passtimes, 5)
            self.clock.advance(24 * HOUR)
            self.sweep()
        self.assert_empty()
        self.assertEqual((list(self.passtimes.stops), list(self.passtimes.last_heard)), ([CODE], ["LIN"]))


class ClockChangeTests(PasstimesTestCase):
    """The nights in which daylight saving time begins and ends."""

    def expected(self, updated: str, time: str, status: str = "DRIVING") -> str:
        """Return the expected time of a passtime that was updated at a moment."""
        self.reset()
        self.go_to(updated)
        row = {"OperationDate": updated[:10], "LastUpdateTimeStamp": updated, "TripStopStatus": status, **at(time)}
        self.ingest_rows(row)
        return local_timestamp(self.only().expected)[11:]

    def test_repeated_hour(self) -> None:
        """In the repeated hour, a passtime is in the occurrence that was in the future when it was updated."""
        for updated, time, expected in (
            ("2026-10-25T01:50:00+02:00", "02:10:00", "02:10:00+02:00"),
            ("2026-10-25T02:05:00+02:00", "02:10:00", "02:10:00+02:00"),
            ("2026-10-25T02:55:00+02:00", "02:10:00", "02:10:00+01:00"),
            ("2026-10-25T02:05:00+01:00", "02:10:00", "02:10:00+01:00"),
            ("2026-10-25T02:55:00+01:00", "03:10:00", "03:10:00+01:00"),
        ):
            self.assertEqual(self.expected(updated, time), expected, updated)

    def test_late_in_repeated_hour(self) -> None:
        """In the repeated hour, planned and expected times are in the same occurrence."""
        updated = "2026-10-25T02:30:00+02:00"
        self.go_to(updated)
        target = {"TargetArrivalTime": "02:24:00", "TargetDepartureTime": "02:25:00"}
        self.ingest_rows({"OperationDate": updated[:10], "LastUpdateTimeStamp": updated, **at("02:35:00"), **target})
        passtime = self.only()
        for planned, expected, late in (
            (passtime.target_arrival, passtime.expected_arrival, 11),
            (passtime.target_departure, passtime.expected_departure, 10),
        ):
            assert planned is not None
            assert expected is not None
            self.assertEqual(expected - planned, late * MINUTE)

    def test_just_passed_in_repeated_hour(self) -> None:
        """In the repeated hour, a passtime that has just passed is not expected an hour later."""
        for updated, status, expected in (
            ("2026-10-25T02:10:20+02:00", "DRIVING", "02:10:00+02:00"),
            ("2026-10-25T02:12:00+02:00", "PASSED", "02:10:00+02:00"),
            ("2026-10-25T02:12:00+02:00", "ARRIVED", "02:10:00+02:00"),
            ("2026-10-25T02:12:00+01:00", "PASSED", "02:10:00+01:00"),
        ):
            self.assertEqual(self.expected(updated, "02:10:00", status), expected, (updated, status))

    def test_sweep_in_repeated_hour(self) -> None:
        """In the repeated hour, no passtime is removed early."""
        for updated in ("2026-10-25T02:29:00+02:00", "2026-10-25T02:29:00+01:00"):
            self.expected(updated, "02:30:00")
            self.clock.advance(2 * MINUTE - 1)
            self.sweep()
            self.assertEqual(len(self.stored()), 1, updated)
            self.clock.advance(HOUR + 1)
            self.sweep()
            self.assertEqual(self.stored(), [])

    def test_skipped_hour(self) -> None:
        """In the night with a skipped hour times are local, also past 24:00 on the day before."""
        self.assertEqual(self.expected("2026-03-29T01:50:00+01:00", "01:59:00"), "01:59:00+01:00")
        self.assertEqual(self.expected("2026-03-29T01:50:00+01:00", "03:05:00"), "03:05:00+02:00")
        self.assertEqual(self.only().hidden_after - self.clock.seconds(), 16 * MINUTE)
        self.ingest_rows({"OperationDate": "2026-03-28", **at("27:05:00"), "LastUpdateTimeStamp": None})
        self.assertEqual(self.stored()[0].expected, self.stored()[1].expected)
        self.clock.advance(16 * MINUTE)
        self.sweep()
        self.assertEqual(self.stored(), [])


class MessageTests(PasstimesTestCase):
    """General messages."""

    def message(self) -> GeneralMessage:
        (message,) = (self.passtimes.stops[CODE].messages or {}).values()
        return message

    def is_current(self) -> bool:
        return self.message().is_current(self.clock.seconds())

    def test_message_is_current_until_deleted(self) -> None:
        """A message is stored with its columns under OVapi's key, and is current until it is deleted."""
        self.ingest(feed.general_message({"MessageContent": "a|b", "ReasonContent": ""}))
        message = self.message()
        self.assertEqual(message.key, "LIN_2026-01-01_27_ALGEMEEN_30000001")
        fields = {**feed.TABLES["GENERALMESSAGEUPDATE"], "MessageContent": "a|b", "ReasonContent": ""}
        self.assertEqual(dict(message.fields), fields)
        self.assertEqual((message.starts, message.ends, self.is_current()), (NOW - 10 * MINUTE, None, True))
        version = self.passtimes.stops[CODE].version
        self.ingest(feed.general_message_delete({}))
        self.assertEqual((self.passtimes.stops[CODE].messages, self.passtimes.n_messages), ({}, 0))
        self.assertNotEqual(self.passtimes.stops[CODE].version, version)

    def test_message_with_start_and_end(self) -> None:
        """A message is current from its start to its end, and then removed."""
        span = {"MessageStartTime": "2026-01-01T01:01:00+01:00", "MessageEndTime": "2026-01-01T00:02:00Z"}
        self.ingest(feed.general_message(span))
        for wait, is_current in ((0, False), (59, False), (1, True), (59, True), (1, False)):
            self.clock.advance(wait)
            self.assertEqual(self.is_current(), is_current)
            self.assertEqual(self.passtimes.n_messages, 1)
        self.sweep()
        self.assertEqual((self.passtimes.stops[CODE].messages, self.passtimes.n_messages), ({}, 0))

    def test_message_without_times(self) -> None:
        """A message without start and end is current while the feed repeats it, and for a day afterwards."""
        for start, end in ((None, None), ("", ""), ("", "9999-12-31T23:59:59+01:00")):
            self.reset()
            for _ in range(3):
                self.ingest(feed.general_message({"MessageStartTime": start, "MessageEndTime": end}))
                self.clock.advance(24 * HOUR)
                self.sweep()
                self.assertTrue(self.is_current())
            self.clock.advance(1)
            self.sweep()
            self.assertEqual(self.passtimes.n_messages, 0)
            self.ingest(feed.general_message({"MessageStartTime": start, "MessageEndTime": end}))
            self.assertTrue(self.is_current())  # it is not taken for a late repeat of a deleted one

    def test_newer_message_supersedes(self) -> None:
        """A newer message with the same key replaces an older one, which is rejected when it arrives later."""
        newer = {"MessageContent": "newer", "MessageTimeStamp": "2026-01-01T00:59:51+01:00"}
        self.ingest(feed.general_message(newer), feed.general_message({}))
        self.assertEqual((dict(self.message().fields)["MessageContent"], self.rejected), ("newer", {"older": 1}))
        version = self.passtimes.stops[CODE].version
        self.ingest(feed.general_message(newer))
        self.assertEqual(self.passtimes.stops[CODE].version, version)
        self.ingest(feed.general_message({**newer, "MessageContent": "same moment"}))
        self.assertEqual(dict(self.message().fields)["MessageContent"], "same moment")
        self.assertEqual(self.passtimes.n_messages, 1)

    def test_invalid_messages_are_rejected(self) -> None:
        """Messages with an incomplete key or an invalid stop are rejected; of an invalid time, only the time."""
        for column in tuple(feed.TABLES["GENERALMESSAGEDELETE"]):
            for unknown in (None, ""):
                self.reset()
                self.ingest(feed.general_message({column: unknown}), feed.general_message_delete({column: unknown}))
                self.assertEqual((self.rejected, self.passtimes.n_messages), ({"key": 2}, 0))
        self.reset()
        self.ingest(feed.general_message({"TimingPointCode": "x"}, {"MessageCodeNumber": "28"}))
        self.assertEqual((self.rejected, self.passtimes.n_messages), ({"TimingPointCode": 1}, 1))
        for label in ("MessageStartTime", "MessageEndTime", "MessageTimeStamp"):
            for value in ("99:99:99", "soon", "2026-01-01T24:60:00+01:00", "2026-01-01T00:00:00+99:99"):
                self.reset()
                self.ingest(feed.general_message({label: value}))
                self.assertEqual((self.rejected, self.is_current()), ({"value": 1}, True), (label, value))
                self.assertIsNone(dict(self.message().fields)[label])

    def test_dates_at_the_ends_of_time(self) -> None:
        """The years 1 to 9999 are valid: a message may have begun long ago, and have no end in sight."""
        for start in ("0001-01-01T00:00:00", "0001-01-01T00:00:00+23:59", "1900-01-01T00:00:00+01:00", "1970-01-01"):
            for end in (
                "9999-12-31T23:59:59+01:00",
                "9999-12-31T23:59:59-23:59",
                "2999-01-01T00:00:00",
                "9999-12-31",
            ):
                self.reset()
                self.ingest(feed.general_message({"MessageStartTime": start, "MessageEndTime": end}))
                self.assertEqual((self.rejected, self.is_current()), ({}, True), (start, end))
                self.sweep()
                self.assertEqual(self.passtimes.n_messages, 1)
        self.reset()
        self.ingest(feed.general_message({"MessageEndTime": "1900-01-01T00:00:00"}))
        self.assertEqual((self.rejected, self.is_current()), ({}, False))

    def test_missing_columns(self) -> None:
        """Messages without a column of the key are rejected; other columns may be missing."""
        for missing in feed.TABLES["GENERALMESSAGEUPDATE"]:
            self.reset()
            labels = [label for label in feed.TABLES["GENERALMESSAGEUPDATE"] if label != missing]
            table = feed.table("GENERALMESSAGEUPDATE", [{}], labels)
            self.ingest(feed.message("KV8turbo_generalmessages", table))
            self.assertEqual(self.passtimes.n_messages, missing not in feed.TABLES["GENERALMESSAGEDELETE"], missing)

    def test_unknown_message_is_deleted(self) -> None:
        """Deleting an unknown message is ignored."""
        self.ingest(feed.general_message_delete({}))
        self.ingest_rows({})
        self.ingest(feed.general_message_delete({}))
        self.assertEqual((self.rejected, self.passtimes.n_messages), ({}, 0))

    def test_messages_are_limited(self) -> None:
        """New messages beyond the limit replace unconfirmed ones; others are still updated."""
        self.reset(messages=2)
        self.ingest(feed.general_message(*({"MessageCodeNumber": str(n)} for n in range(4))))
        self.ingest(feed.general_message({"MessageCodeNumber": "2", "MessageContent": "other"}))
        self.assertEqual((self.rejected, self.passtimes.n_messages), ({}, 2))
        messages = (self.passtimes.stops[CODE].messages or {}).values()
        texts = [dict(message.fields)["MessageContent"] for message in messages]
        self.assertEqual(texts, ["other", "Line 4 does not call at Brug."])
