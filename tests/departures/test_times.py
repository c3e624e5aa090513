"""Tests of departures.times: parsing times, and the moments they denote, including clock changes."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.times import (
    DAY,
    HOUR,
    MINUTE,
    PassingTimes,
    local_date,
    local_timestamp,
    moment,
    moments,
    read_date,
    read_time,
    read_timestamp,
    resolve,
    utc_timestamp,
    write_time,
)
from govi_server.runtime.clock import LOCAL_ZONE
from tests.client import NOW

SPRING = date(2026, 3, 29)  # 02:00 becomes 03:00
AUTUMN = date(2026, 10, 25)  # 03:00 becomes 02:00


def utc(text: str) -> float:
    """Return the epoch seconds of a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def moment_of(operating_date: date, time: str, after: float = 0.0) -> str:
    """Return the moment of a time on an operating date, in UTC."""
    seconds = read_time(time)
    assert seconds is not None
    return utc_timestamp(moment(operating_date, seconds, after))[5:16]


class ParseTests(SynchronousTestCase):
    """Parsing times, dates and timestamps."""

    def test_valid_and_invalid_times(self) -> None:
        """A time is HH:MM:SS, up to 47:59:59."""
        table = {
            "00:00:00": 0,
            "18:24:51": 18 * HOUR + 24 * MINUTE + 51,
            "23:59:59": DAY - 1,
            "24:00:00": DAY,
            "25:14:00": 25 * HOUR + 14 * MINUTE,
            "39:00:00": 39 * HOUR,
            "47:59:59": 2 * DAY - 1,
            **dict.fromkeys(("48:00:00", "99:99:99", "23:60:00", "23:59:60", "1:00:00", "01:00", "010:00:00")),
            **dict.fromkeys(("", " 1:00:00", "+1:00:00", "-1:00:00", "01:00:00 ", "01:00:00\n", "\\0", "01-00-00")),
            **dict.fromkeys(("01:00:00.5", "01:00:00Z", "0\u0661:00:00", "01:00:0²", "0_:00:00")),
        }
        for text, seconds in table.items():
            self.assertEqual(read_time(text), seconds, text)

    @settings(deadline=None)
    @given(st.integers(0, 2 * DAY - 1))
    def test_time_round_trip(self, seconds: int) -> None:
        """Each valid time is formatted as it was parsed."""
        self.assertEqual(read_time(write_time(seconds)), seconds)

    def test_valid_and_invalid_dates(self) -> None:
        """A date is YYYY-MM-DD, of a plausible year."""
        self.assertEqual(read_date("2026-01-01"), date(2026, 1, 1))
        self.assertEqual(read_date("2028-02-29"), date(2028, 2, 29))
        for text in (
            *("", "2026-02-29", "2026-13-01", "2026-00-01", "2026-01-00", "20260101", "2026-1-1", "2026-W01-1"),
            *(" 2026-01-01", "2026-01-01\n", "2026-01-01T00:00:00", "2026-01-0\u0661", "0000-01-01", "99999-01-01"),
            *("1970-01-01", "0001-01-01", "9999-12-31"),
        ):
            self.assertIsNone(read_date(text), text)

    def test_valid_and_invalid_timestamps(self) -> None:
        """A timestamp is a moment with its offset, or local time of the Netherlands without one, of any year."""
        table = {
            "2026-01-01T01:00:00+01:00": NOW,
            "2026-01-01T00:00:00Z": NOW,
            "2026-01-01T00:00:00+00:00": NOW,
            "2026-01-01T01:00:00": NOW,
            "2026-01-01T01:00:00.250+01:00": NOW + 0.25,
            "2025-12-31T12:00:00-12:00": NOW,
            "2021-06-06T18:26:05+02:00": utc("2021-06-06T16:26:05"),
            "2021-06-06T18:26:05": utc("2021-06-06T16:26:05"),
            "1970-01-01T00:00:00Z": 0.0,
            "9999-12-31T23:59:59+01:00": 253402297199.0,
            "9999-12-31T23:59:59": 253402297199.0,
            "9999-12-31T23:59:59-23:59": 253402300799.0 + 86340,
            "0001-01-01T00:00:00Z": -62135596800.0,
            "0001-01-01T00:00:00+23:59": -62135596800.0 - 86340,
            "1900-01-01T00:00:00Z": -2208988800.0,
            **dict.fromkeys(("", "\\0", "x", "0000-01-01T00:00:00", "10000-01-01T00:00:00")),
            **dict.fromkeys(("2026-13-01T00:00:00Z", "2026-01-01T99:99:99+01:00", "2026-01-01T01:00:00+99:99")),
            **dict.fromkeys(("2026-01-0\u0661T00:00:00Z", " 2026-01-01T00:00:00Z", "2026-01-01\u202801:00:00")),
        }
        for text, seconds in table.items():
            self.assertEqual(read_timestamp(text), seconds, text)

    @settings(deadline=None)
    @given(st.text() | st.text("0123456789-:TZ+. W", max_size=32))
    @example("\ud800")
    @example("9999-12-31T23:59:59-23:59")
    @example("0001-01-01T00:00:00+23:59")
    def test_any_text_is_parsed(self, text: str) -> None:
        """No text raises an exception."""
        read_time(text)
        day, time = read_date(text), read_timestamp(text)
        if day is not None:
            self.assertEqual(day.isoformat(), text)
            moment(day, 2 * DAY - 1, NOW)
        if time is not None:
            # The only years that local time cannot represent are before 1 and after 9999.
            first, last = read_timestamp("0001-01-01T00:00:00Z"), read_timestamp("9999-12-31T23:59:59")
            assert first is not None
            assert last is not None
            self.assertEqual(read_timestamp(local_timestamp(time)), min(max(time // 1, first), last))


class FormatTests(SynchronousTestCase):
    """Formatting moments."""

    def test_local_and_utc(self) -> None:
        """A moment is formatted as local time of the Netherlands, and in UTC."""
        table = {
            NOW: ("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00"),
            NOW + 0.9: ("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00"),
            utc("2026-07-01T22:30:00"): ("2026-07-02T00:30:00+02:00", "2026-07-01T22:30:00"),
            utc("2026-10-25T00:30:00"): ("2026-10-25T02:30:00+02:00", "2026-10-25T00:30:00"),
            utc("2026-10-25T01:30:00"): ("2026-10-25T02:30:00+01:00", "2026-10-25T01:30:00"),
        }
        for at, (local, universal) in table.items():
            self.assertEqual((local_timestamp(at), utc_timestamp(at)), (local, universal))

    def test_local_date(self) -> None:
        """The local date changes at local midnight, in winter and in summer, and is always one of the calendar."""
        self.assertEqual((local_date(-1e12), local_date(1e12)), (date(1, 1, 1), date(9999, 12, 31)))
        for midnight, after in (("2026-01-01T23:00:00", date(2026, 1, 2)), ("2026-07-01T22:00:00", date(2026, 7, 2))):
            self.assertEqual(local_date(utc(midnight)), after)
            self.assertEqual(local_date(utc(midnight) - 0.001), after - timedelta(1))


class MomentTests(SynchronousTestCase):
    """The moments of times."""

    def test_times_are_local(self) -> None:
        """A time is local, in winter and in summer, and past 24:00."""
        table = {
            (date(2026, 1, 1), "01:00:00"): "01-01T00:00",
            (date(2025, 12, 31), "25:00:00"): "01-01T00:00",
            (date(2025, 12, 31), "24:00:00"): "12-31T23:00",
            (date(2026, 7, 1), "00:00:00"): "06-30T22:00",
            (date(2026, 7, 1), "47:59:00"): "07-02T21:59",
            (date(2028, 2, 28), "24:30:00"): "02-28T23:30",
        }
        for (day, time), expected in table.items():
            self.assertEqual(moment_of(day, time), expected, (day, time))
        self.assertEqual(moment(date(2025, 12, 31), 25 * HOUR), NOW)

    def test_skipped_hour(self) -> None:
        """In the night with a skipped hour times are local; within that hour, the offset of winter applies."""
        for time, expected in {
            "00:00:00": "03-28T23:00",
            "01:59:00": "03-29T00:59",
            "02:00:00": "03-29T01:00",
            "02:30:00": "03-29T01:30",
            "03:00:00": "03-29T01:00",
            "03:30:00": "03-29T01:30",
            "12:00:00": "03-29T10:00",
            "23:59:00": "03-29T21:59",
            "24:30:00": "03-29T22:30",
        }.items():
            self.assertEqual(moment_of(SPRING, time), expected, time)
            day_before = write_time((read_time(time) or 0) + DAY)
            if day_before < "48":
                self.assertEqual(moment_of(SPRING - timedelta(1), day_before), expected, day_before)

    def test_repeated_hour(self) -> None:
        """In the night with a repeated hour times are local; within that hour, the first occurrence counts."""
        for time, expected in {
            "00:00:00": "10-24T22:00",
            "01:59:00": "10-24T23:59",
            "02:00:00": "10-25T00:00",
            "02:59:00": "10-25T00:59",
            "03:00:00": "10-25T02:00",
            "12:00:00": "10-25T11:00",
            "24:30:00": "10-25T23:30",
        }.items():
            self.assertEqual(moment_of(AUTUMN, time), expected, time)
            day_before = write_time((read_time(time) or 0) + DAY)
            if day_before < "48":
                self.assertEqual(moment_of(AUTUMN - timedelta(1), day_before), expected, day_before)

    def test_second_of_repeated_hour(self) -> None:
        """Within the repeated hour, a time that is in the future when it is sent may be in the second occurrence."""
        for after, expected in {
            "2026-10-25T00:29:00": "10-25T00:30",
            "2026-10-25T00:30:00": "10-25T00:30",
            "2026-10-25T00:31:00": "10-25T01:30",
            "2026-10-25T01:20:00": "10-25T01:30",
        }.items():
            self.assertEqual(moment_of(AUTUMN, "02:30:00", utc(after)), expected, after)
            self.assertEqual(moment_of(AUTUMN - timedelta(1), "26:30:00", utc(after)), expected, after)

    def test_planned_and_expected_in_repeated_hour(self) -> None:
        """In the repeated hour planned and expected times are not an hour apart."""
        for updated, planned, expected, utc_moments in (
            ("2026-10-25T00:30", "02:25:00", "02:35:00", ("10-25T00:25", "10-25T00:35")),
            ("2026-10-25T00:40", "02:58:00", "03:03:00", ("10-25T01:58", "10-25T02:03")),
            ("2026-10-25T01:30", "02:25:00", "02:35:00", ("10-25T01:25", "10-25T01:35")),
            ("2026-10-25T01:30", "02:40:00", "02:35:00", ("10-25T01:40", "10-25T01:35")),
            ("2026-10-25T00:30", "02:40:00", "02:35:00", ("10-25T00:40", "10-25T00:35")),
            ("2026-10-25T00:50", "02:55:00", "02:05:00", ("10-25T00:55", "10-25T01:05")),
            ("2026-10-25T01:30", "02:25:00", "03:05:00", ("10-25T01:25", "10-25T02:05")),
        ):
            times = moments(AUTUMN, read_time(planned), read_time(expected), utc(updated))
            formatted = tuple(None if time is None else utc_timestamp(time)[5:16] for time in times)
            self.assertEqual(formatted, utc_moments, (updated, planned, expected))
        alone = moment(AUTUMN, 9000, NOW)
        self.assertEqual(moments(AUTUMN, 9000, None, NOW), (alone, None))
        self.assertEqual(moments(AUTUMN, None, 9000, NOW), (None, alone))
        self.assertEqual(moments(AUTUMN, None, None, NOW), (None, None))

    def test_after_matters_in_repeated_hour_only(self) -> None:
        """Outside the repeated hour, `after` has no effect."""
        late = utc("2027-01-01T00:00:00")
        for day in (SPRING, AUTUMN, date(2026, 7, 1)):
            for hour in range(48):
                time = f"{hour:02}:30:00"
                if (day, hour) not in ((AUTUMN, 2), (AUTUMN - timedelta(1), 26)):
                    self.assertEqual(moment_of(day, time, late), moment_of(day, time), (day, time))

    @settings(deadline=None)
    @given(st.dates(date(2000, 1, 1), date(2099, 12, 31)), st.integers(0, 2 * DAY - 1), st.floats(0, 2**32))
    @example(SPRING, 2 * HOUR + 1, 0.0)
    @example(AUTUMN, 2 * HOUR + 1, 2.0**32)
    def test_local_time_of_any_moment(self, day: date, seconds: int, after: float) -> None:
        """The moment of a time has that local time, or one an hour later in the skipped hour."""
        local = datetime.fromtimestamp(moment(day, seconds, after), LOCAL_ZONE).replace(tzinfo=None)
        time = datetime(day.year, day.month, day.day) + timedelta(seconds=seconds)
        self.assertIn(local - time, (timedelta(0), timedelta(hours=1)))
        if local != time:
            self.assertEqual((time.hour, time.month, time.isoweekday()), (2, 3, 7))


TIMES = ("target_arrival", "target_departure", "expected_arrival", "expected_departure")
NIGHTS = (date(2026, 11, 30), SPRING, AUTUMN, date(2026, 1, 1), date(2028, 2, 29), date(2028, 3, 1))


def local(day: date, time: str) -> float:
    """Return the moment of a time on an operating date."""
    seconds = read_time(time)
    assert seconds is not None
    return moment(day, seconds)


def resolved(day: date, updated: float | None, times: Mapping[str, str], recorded: bool = False) -> dict[str, str]:
    """Return the resolved times of texts, by their names."""
    literal = PassingTimes(**{name: read_time(text) for name, text in times.items()})
    result = resolve(day, literal, updated, recorded)
    return {name: write_time(time) for name, time in result._asdict().items() if time is not None}


class ResolveTests(SynchronousTestCase):
    """The days of times that do not count hours past 24."""

    def assert_resolved(
        self, times: tuple[str, str], expected: tuple[str, str], updated: str | None = None, recorded: bool = False
    ) -> None:
        """Compare a target and an expected time with the resolved ones: as departures, as arrivals and as both."""
        for night in NIGHTS:
            day = night - timedelta(1)
            at = None if updated is None else local(day, updated)
            for kinds in (("departure",), ("arrival",), ("arrival", "departure")):
                names = [f"{when}_{kind}" for kind in kinds for when in ("target", "expected")]
                written = dict(zip(names, times * len(kinds), strict=True))
                table = dict(zip(names, expected * len(kinds), strict=True))
                self.assertEqual(resolved(day, at, written, recorded), table, (night, kinds, times))

    def test_late_and_early_over_midnight(self) -> None:
        """A time is of the day on which it is nearest to the other; a time from 24:00 on is certain."""
        table = {
            ("23:58:00", "00:03:00"): ("23:58:00", "24:03:00"),
            ("23:58:00", "24:03:00"): ("23:58:00", "24:03:00"),
            ("24:10:00", "00:11:00"): ("24:10:00", "24:11:00"),
            ("24:10:00", "24:11:00"): ("24:10:00", "24:11:00"),
            ("24:01:00", "23:59:00"): ("24:01:00", "23:59:00"),
            ("00:02:00", "23:58:00"): ("00:02:00", "-00:02:00"),
            ("00:10:00", "24:11:00"): ("24:10:00", "24:11:00"),
            ("20:00:00", "07:59:59"): ("20:00:00", "31:59:59"),
            ("25:14:00", "13:14:01"): ("25:14:00", "13:14:01"),
            ("12:00:00", "00:00:00"): ("12:00:00", "00:00:00"),
            ("12:00:00", "24:00:00"): ("12:00:00", "24:00:00"),
            ("12:00:01", "00:00:00"): ("12:00:01", "24:00:00"),
            ("47:59:00", "00:01:00"): ("47:59:00", "48:01:00"),
        }
        for times, expected in table.items():
            self.assert_resolved(times, expected)

    def test_next_day_without_hours_past_24(self) -> None:
        """A time before noon that is more than twelve hours before its update is of the next day."""
        for times, updated, expected in (
            (("00:05:00", "00:06:00"), "23:50:00", ("24:05:00", "24:06:00")),
            (("00:05:00", "00:06:00"), "24:05:30", ("24:05:00", "24:06:00")),
            (("00:02:00", "23:58:00"), "23:50:00", ("24:02:00", "23:58:00")),
            (("01:30:00", "01:30:00"), "13:30:01", ("25:30:00", "25:30:00")),
            (("01:30:00", "01:30:00"), "13:29:59", ("01:30:00", "01:30:00")),
            (("23:58:00", "00:03:00"), "24:02:00", ("23:58:00", "24:03:00")),
            (("24:05:00", "24:06:00"), "23:50:00", ("24:05:00", "24:06:00")),
            (("13:00:00", "13:01:00"), "33:00:00", ("13:00:00", "13:01:00")),
            (("20:00:00", "20:00:00"), "00:10:00", ("20:00:00", "20:00:00")),
            (("00:03:00", "00:04:00"), "00:01:00", ("00:03:00", "00:04:00")),
        ):
            if times[0] != "01:30:00":
                self.assert_resolved(times, expected, updated)
            else:  # on a night in which the clock changes, the bound is an hour earlier or later
                day = date(2026, 11, 29)
                names = {"target_departure": times[0], "expected_departure": times[1]}
                self.assertEqual(tuple(resolved(day, local(day, updated), names).values()), expected)

    def test_recorded_without_target(self) -> None:
        """A recorded time without a target is of the day nearest to its update."""
        for time, updated, expected in (
            ("00:03:00", "24:03:10", "24:03:00"),
            ("23:58:00", "23:58:10", "23:58:00"),
            ("23:58:00", "24:00:10", "23:58:00"),
            ("24:03:00", "24:03:10", "24:03:00"),
            ("00:03:00", "00:03:10", "00:03:00"),
        ):
            for day in (night - timedelta(1) for night in NIGHTS):
                for name in ("expected_departure", "expected_arrival"):
                    at = local(day, updated)
                    self.assertEqual(resolved(day, at, {name: time}, True), {name: expected}, (day, updated))
        for day in NIGHTS:  # the operating date is that of a target past midnight
            before = local(day - timedelta(1), "23:58:10")
            self.assertEqual(
                resolved(day, before, {"expected_arrival": "23:58:00"}, True), {"expected_arrival": "-00:02:00"}
            )

    def test_stay_over_midnight(self) -> None:
        """A vehicle may arrive before midnight and depart after it."""
        times = dict(zip(TIMES, ("23:59:00", "00:01:00", "00:02:00", "00:03:00"), strict=True))
        expected = dict(zip(TIMES, ("23:59:00", "24:01:00", "24:02:00", "24:03:00"), strict=True))
        self.assertEqual(resolved(AUTUMN, None, times), expected)
        self.assertEqual(resolved(AUTUMN, local(AUTUMN, "23:50:00"), times), expected)

    def test_unknown_times(self) -> None:
        """Unknown times stay unknown."""
        self.assertEqual(resolve(AUTUMN, PassingTimes(), NOW), PassingTimes())
        self.assertEqual(resolve(AUTUMN, PassingTimes(), None, True), PassingTimes())

    def test_first_and_last_stop(self) -> None:
        """Midnight is no departure from a LAST stop, and no arrival at a FIRST one; other departures are arrivals."""
        for stop_type, literal, expected in (
            ("LAST", (100, 0, 200, 0), (100, None, 200, None)),
            ("LAST", (100, 300, 200, 400), (100, None, 200, None)),
            ("LAST", (None, 300, None, 400), (300, None, 400, None)),
            ("LAST", (None, 0, 200, None), (None, None, 200, None)),
            ("LAST", (0, 0, 0, 0), (0, None, 0, None)),
            ("FIRST", (0, 300, 0, 400), (None, 300, None, 400)),
            ("FIRST", (0, 0, 0, 0), (0, 0, 0, 0)),
            ("FIRST", (300, 300, 400, 400), (300, 300, 400, 400)),
            ("INTERMEDIATE", (0, 300, 0, 400), (0, 300, 0, 400)),
            ("", (None, None, None, None), (None, None, None, None)),
        ):
            self.assertEqual(PassingTimes(*literal).at_stop(stop_type), expected, (stop_type, literal))

    @settings(deadline=None, max_examples=400)
    @given(st.tuples(*[st.none() | st.integers(0, 2 * DAY - 1)] * 4), st.integers(-DAY, 2 * DAY), st.booleans())
    @example((10 * HOUR, 21 * HOUR, 10 * HOUR, 23 * HOUR), 10 * HOUR, False)
    def test_any_times(
        self, times: tuple[int | None, int | None, int | None, int | None], updated: int, is_recorded: bool
    ) -> None:
        """The target and the expected time of an event are never more than twelve hours apart."""
        result = resolve(SPRING, PassingTimes(*times), moment(SPRING, updated), is_recorded)
        for before, after in zip(times, result, strict=True):
            self.assertTrue(before is after is None or (before is not None and after is not None))
            self.assertEqual((before or 0) % DAY, (after or 0) % DAY)
        for target, expected in zip(result[:2], result[2:], strict=True):
            if target is not None and expected is not None:
                self.assertLessEqual(abs(target - expected), 12 * HOUR)

    @settings(deadline=None, max_examples=400)
    @given(
        st.sampled_from(NIGHTS),
        st.integers(-12 * HOUR, 12 * HOUR - 1),
        st.integers(1 - 12 * HOUR, 12 * HOUR - 1),
        st.booleans(),
        st.booleans(),
        st.integers(0, 10 * HOUR),
    )
    @example(SPRING, 2 * HOUR, -4 * HOUR, True, True, 0)
    @example(AUTUMN, 2 * HOUR, -4 * HOUR, True, True, 0)
    def test_intended_times(
        self, night: date, target: int, delay: int, counts_hours: bool, is_next_day: bool, ahead: int
    ) -> None:
        """Around midnight any target and expected time are those intended, however the publisher writes them.

        target: seconds after the midnight. counts_hours: whether hours past 24 are counted. is_next_day: whether the
        operating date of a target after midnight is the day of that midnight. ahead: seconds from update to event.
        """
        is_before = target < 0 or not is_next_day
        day = night - timedelta(1) if is_before else night
        intended = (target + DAY * is_before, target + delay + DAY * is_before)
        written = [time if counts_hours and time >= 0 else time % DAY for time in intended]
        updated = moment(day, max(intended)) - ahead
        for names in (TIMES[::2], TIMES[1::2]):
            times = PassingTimes(**dict(zip(names, written, strict=True)))
            result = resolve(day, times, updated)
            self.assertEqual(tuple(time for time in result if time is not None), intended)
            first, second = (moment(day, time) for time in intended)
            self.assertLessEqual(abs(first - second), 13 * HOUR)  # an hour more in the night with a repeated hour
