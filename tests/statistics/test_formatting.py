"""Tests of govi_server.statistics.formatting."""

from datetime import UTC, datetime, timedelta

from twisted.trial.unittest import SynchronousTestCase

from govi_server.statistics.formatting import milliseconds, read_moment, share
from tests.statistics.logs import NOW


class ReadMomentTests(SynchronousTestCase):
    """Parsing the moments of --since and --until."""

    def test_forms_of_moments(self) -> None:
        """ISO 8601 is Dutch time unless it has an offset; a date is its midnight; an age is relative to now."""
        for text, expected in (
            ("2026-11-22", datetime(2026, 11, 21, 23, tzinfo=UTC)),
            ("2026-07-01T12:00", datetime(2026, 7, 1, 10, tzinfo=UTC)),
            ("2026-11-22T12:00:00+00:00", datetime(2026, 11, 22, 12, tzinfo=UTC)),
            ("2026-11-22T12:00:00Z", datetime(2026, 11, 22, 12, tzinfo=UTC)),
            ("2h", NOW - timedelta(hours=2)),
            ("3d", NOW - timedelta(days=3)),
            ("90s", NOW - timedelta(seconds=90)),
        ):
            self.assertEqual(read_moment(text, NOW).timestamp(), expected.timestamp(), text)

    def test_invalid_moment_raises_value_error(self) -> None:
        """An invalid moment raises ValueError."""
        for text in ("", "2x", "-2h", "h", "yesterday", "2026-13-01", "999999w", "\u0662h"):
            self.assertRaises(ValueError, read_moment, text, NOW)


class NumberTests(SynchronousTestCase):
    """Times and shares."""

    def test_milliseconds_have_three_digits(self) -> None:
        """Times have at least three significant digits."""
        self.assertEqual(
            [milliseconds(time) for time in (None, 0.0, 0.0314, 3.14159, 31.4, 314.2, 12345.6)],
            ["-", "0.000", "0.031", "3.14", "31.4", "314", "12,346"],
        )

    def test_share_is_rounded_to_0_or_100_only_if_exact(self) -> None:
        """A small share is not rounded to 0 %, nor a large one to 100 %."""
        self.assertEqual(
            [share(part, total) for part, total in ((0, 0), (0, 9), (1, 10**6), (1, 3), (10**6 - 1, 10**6), (9, 9))],
            ["-", "0.0%", "0.1%", "33.3%", "99.9%", "100.0%"],
        )
