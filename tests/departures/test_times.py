"""Times: what is one, and the moments that they stand for, when clocks change too."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.times import (
    DAY,
    HOUR,
    MINUTE,
    local_date,
    local_timestamp,
    moment,
    moments,
    read_date,
    read_time,
    read_timestamp,
    utc_timestamp,
    write_time,
)
from govi_server.runtime.clock import LOCAL_ZONE
from tests.client import NOW

SPRING = date(2026, 3, 29)  # 02:00 becomes 03:00
AUTUMN = date(2026, 10, 25)  # 03:00 becomes 02:00


def utc(text: str) -> float:
    """Give the epoch seconds of a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def wall(operating_date: date, time: str, after: float = 0.0) -> str:
    """Tell in UTC what moment a time of an operating date stands for."""
    seconds = read_time(time)
    assert seconds is not None
    return utc_timestamp(moment(operating_date, seconds, after))[5:16]


class ReadTests(SynchronousTestCase):
    """Times and dates of records."""

    def test_time(self) -> None:
        """A time is HH:MM:SS, up to the end of the day after; anything else is none."""
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
        """Every time that can be read is written as it was."""
        self.assertEqual(read_time(write_time(seconds)), seconds)

    def test_date(self) -> None:
        """A date is YYYY-MM-DD, of years in which something may run; anything else is none."""
        self.assertEqual(read_date("2026-01-01"), date(2026, 1, 1))
        self.assertEqual(read_date("2028-02-29"), date(2028, 2, 29))
        for text in (
            *("", "2026-02-29", "2026-13-01", "2026-00-01", "2026-01-00", "20260101", "2026-1-1", "2026-W01-1"),
            *(" 2026-01-01", "2026-01-01\n", "2026-01-01T00:00:00", "2026-01-0\u0661", "0000-01-01", "99999-01-01"),
            *("1970-01-01", "0001-01-01", "9999-12-31"),
        ):
            self.assertIsNone(read_date(text), text)

    def test_timestamp(self) -> None:
        """A timestamp is a moment with its offset, or one of the Netherlands if it has none."""
        table = {
            "2026-01-01T01:00:00+01:00": NOW,
            "2026-01-01T00:00:00Z": NOW,
            "2026-01-01T00:00:00+00:00": NOW,
            "2026-01-01T01:00:00": NOW,
            "2026-01-01T01:00:00.250+01:00": NOW + 0.25,
            "2025-12-31T12:00:00-12:00": NOW,
            "2021-06-06T18:26:05+02:00": utc("2021-06-06T16:26:05"),
            "2021-06-06T18:26:05": utc("2021-06-06T16:26:05"),
            **dict.fromkeys(("", "\\0", "x", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00", "9999-12-31T23:59:59")),
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
    def test_any_text(self, text: str) -> None:
        """Any text is a time, a date, a timestamp or none, and never an error."""
        read_time(text)
        on, at = read_date(text), read_timestamp(text)
        if on is not None:
            self.assertEqual(on.isoformat(), text)
            moment(on, 2 * DAY - 1, NOW)
        if at is not None:
            self.assertEqual(read_timestamp(local_timestamp(at)), at // 1)


class WriteTests(SynchronousTestCase):
    """Moments as they are written."""

    def test_written(self) -> None:
        """A moment is written as the Netherlands' clocks show it, and in UTC."""
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
        """The date changes at midnight on the wall, in winter and in summer."""
        for midnight, after in (("2026-01-01T23:00:00", date(2026, 1, 2)), ("2026-07-01T22:00:00", date(2026, 7, 2))):
            self.assertEqual(local_date(utc(midnight)), after)
            self.assertEqual(local_date(utc(midnight) - 0.001), after - timedelta(1))


class MomentTests(SynchronousTestCase):
    """The moments that times stand for."""

    def test_plain(self) -> None:
        """A time is the one on the wall, in winter and in summer, also beyond 24:00."""
        table = {
            (date(2026, 1, 1), "01:00:00"): "01-01T00:00",
            (date(2025, 12, 31), "25:00:00"): "01-01T00:00",
            (date(2025, 12, 31), "24:00:00"): "12-31T23:00",
            (date(2026, 7, 1), "00:00:00"): "06-30T22:00",
            (date(2026, 7, 1), "47:59:00"): "07-02T21:59",
            (date(2028, 2, 28), "24:30:00"): "02-28T23:30",
        }
        for (day, time), expected in table.items():
            self.assertEqual(wall(day, time), expected, (day, time))
        self.assertEqual(moment(date(2025, 12, 31), 25 * HOUR), NOW)

    def test_spring(self) -> None:
        """In the night that lacks an hour, times are those of the wall, and in that hour clocks were not set yet."""
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
            self.assertEqual(wall(SPRING, time), expected, time)
            on_eve = write_time((read_time(time) or 0) + DAY)
            if on_eve < "48":
                self.assertEqual(wall(SPRING - timedelta(1), on_eve), expected, on_eve)

    def test_autumn(self) -> None:
        """In the night with an hour twice, times are those of the wall, in that hour the first."""
        for time, expected in {
            "00:00:00": "10-24T22:00",
            "01:59:00": "10-24T23:59",
            "02:00:00": "10-25T00:00",
            "02:59:00": "10-25T00:59",
            "03:00:00": "10-25T02:00",
            "12:00:00": "10-25T11:00",
            "24:30:00": "10-25T23:30",
        }.items():
            self.assertEqual(wall(AUTUMN, time), expected, time)
            on_eve = write_time((read_time(time) or 0) + DAY)
            if on_eve < "48":
                self.assertEqual(wall(AUTUMN - timedelta(1), on_eve), expected, on_eve)

    def test_autumn_again(self) -> None:
        """What was still to come when the hour's first turn of it was over is of the second."""
        for after, expected in {
            "2026-10-25T00:29:00": "10-25T00:30",
            "2026-10-25T00:30:00": "10-25T00:30",
            "2026-10-25T00:31:00": "10-25T01:30",
            "2026-10-25T01:20:00": "10-25T01:30",
        }.items():
            self.assertEqual(wall(AUTUMN, "02:30:00", utc(after)), expected, after)
            self.assertEqual(wall(AUTUMN - timedelta(1), "26:30:00", utc(after)), expected, after)

    def test_autumn_planned(self) -> None:
        """In that hour who is late was to come before he does, and who is early hardly so: not an hour off."""
        for said, planned, expected, moments_of in (
            ("2026-10-25T00:30", "02:25:00", "02:35:00", ("10-25T00:25", "10-25T00:35")),
            ("2026-10-25T00:40", "02:58:00", "03:03:00", ("10-25T01:58", "10-25T02:03")),
            ("2026-10-25T01:30", "02:25:00", "02:35:00", ("10-25T01:25", "10-25T01:35")),
            ("2026-10-25T01:30", "02:40:00", "02:35:00", ("10-25T01:40", "10-25T01:35")),
            ("2026-10-25T00:30", "02:40:00", "02:35:00", ("10-25T00:40", "10-25T00:35")),
            ("2026-10-25T00:50", "02:55:00", "02:05:00", ("10-25T00:55", "10-25T01:05")),
            ("2026-10-25T01:30", "02:25:00", "03:05:00", ("10-25T01:25", "10-25T02:05")),
        ):
            at = moments(AUTUMN, read_time(planned), read_time(expected), utc(said))
            written = tuple(None if one is None else utc_timestamp(one)[5:16] for one in at)
            self.assertEqual(written, moments_of, (said, planned, expected))
        alone = moment(AUTUMN, 9000, NOW)
        self.assertEqual(moments(AUTUMN, 9000, None, NOW), (alone, None))
        self.assertEqual(moments(AUTUMN, None, 9000, NOW), (None, alone))
        self.assertEqual(moments(AUTUMN, None, None, NOW), (None, None))

    def test_only_that_hour(self) -> None:
        """Any other time does not depend on what was still to come."""
        late = utc("2027-01-01T00:00:00")
        for day in (SPRING, AUTUMN, date(2026, 7, 1)):
            for hour in range(48):
                time = f"{hour:02}:30:00"
                if (day, hour) not in ((AUTUMN, 2), (AUTUMN - timedelta(1), 26)):
                    self.assertEqual(wall(day, time, late), wall(day, time), (day, time))

    @settings(deadline=None)
    @given(st.dates(date(2000, 1, 1), date(2099, 12, 31)), st.integers(0, 2 * DAY - 1), st.floats(0, 2**32))
    @example(SPRING, 2 * HOUR + 1, 0.0)
    @example(AUTUMN, 2 * HOUR + 1, 2.0**32)
    def test_wall(self, day: date, seconds: int, after: float) -> None:
        """A moment is shown on the wall as its time says, or an hour later where there is no such hour."""
        shown = datetime.fromtimestamp(moment(day, seconds, after), LOCAL_ZONE).replace(tzinfo=None)
        said = datetime(day.year, day.month, day.day) + timedelta(seconds=seconds)
        self.assertIn(shown - said, (timedelta(0), timedelta(hours=1)))
        if shown != said:
            self.assertEqual((said.hour, said.month, said.isoweekday()), (2, 3, 7))
