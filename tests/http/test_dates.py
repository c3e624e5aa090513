"""Dates in header fields."""

from datetime import UTC, datetime

from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.dates import format_http_date, parse_http_date
from tests.client import NOW


class HttpDateTests(SynchronousTestCase):
    """Parsing and formatting."""

    def test_all_forms_are_parsed(self) -> None:
        """All three forms of RFC 9110, section 5.6.7, are parsed."""
        for text in (
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ):
            self.assertEqual(parse_http_date(text, NOW), 784111777, text)

    def test_year_of_two_digits(self) -> None:
        """A two-digit year of this century is in the previous century if it is more than 50 years ahead."""
        for current_year, year, expected in (
            (2026, 76, 2076),
            (2026, 77, 1977),
            (2026, 26, 2026),
            (2060, 9, 2009),
            (2099, 99, 2099),
        ):
            moment = datetime(current_year, 6, 1, tzinfo=UTC).timestamp()
            parsed = parse_http_date(f"Sunday, 06-Nov-{year:02} 08:49:37 GMT", moment)
            self.assertEqual(datetime.fromtimestamp(parsed or 0, UTC).year, expected)

    def test_formatted_date_is_parsed(self) -> None:
        """A formatted date is parsed to the same moment."""
        for moment in (0, 951782400, 1767225600, 4102444799):
            self.assertEqual(parse_http_date(format_http_date(moment), NOW), moment)

    def test_leap_second_is_valid(self) -> None:
        """A leap second is valid."""
        self.assertEqual(parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT", NOW), 1483228800)

    def test_invalid_date_is_none(self) -> None:
        """An invalid date is None, not an exception."""
        for text in (
            "",
            "now",
            "784111777",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Abc, 06 Nov 1994 08:49:37 GMT",
            "Funday, 06-Nov-94 08:49:37 GMT",
            "Abc Nov  6 08:49:37 1994",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 0000 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT\n",
        ):
            self.assertIsNone(parse_http_date(text, NOW), text)
