"""What a client can take, and what it has."""

from datetime import UTC, datetime

from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.caching.conditional import not_modified, precondition_failed
from govi_server.http.dates import format_http_date, parse_http_date
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.request import Environ, parse
from tests.client import NOW


def request(*fields: str) -> Environ:
    return parse("GET / HTTP/1.0\n" + "".join(f"{field}\n" for field in fields) + "\n")


class PrefersGzipTests(SynchronousTestCase):
    """Accept-Encoding."""

    def test_weights(self) -> None:
        """gzip is for whom it is worth more than nothing, and no less than the plain bytes."""
        table = {
            "gzip": True,
            "GZip": True,
            "x-gzip": True,
            "gzip, deflate, br": True,
            "br;q=1.0, gzip;q=0.8, *;q=0.1": True,
            "*": True,
            "*;q=0": False,
            "*;q=0, gzip": True,
            "gzip;q=0": False,
            "gzip;q=0.000": False,
            "gzip;q=0.001": True,
            "gzip ; q=0.3": True,
            "gzip;Q=1.000": True,
            "gzip;q=0, *": False,
            "identity": False,
            "identity, gzip;q=0.5": False,
            "identity;q=0.5, gzip": True,
            "identity;q=0.5, gzip;q=0.5": True,
            "deflate": False,
            "": False,
            # What is no weight makes its member none.
            "gzip;q=2": False,
            "gzip;q=-1": False,
            "gzip;q=1.1": False,
            "gzip;q=0.0001": False,
            "gzip;q=x": False,
            "gzip;q=\u00b2": False,
            "gzip;level=1": False,
            "gzi": False,
            "gzipp": False,
            "g\u00f8zip": False,
        }
        self.assertEqual({value: prefers_gzip(request(f"Accept-Encoding: {value}")) for value in table}, table)

    def test_fields(self) -> None:
        """Without the field there is none; two fields are one list."""
        self.assertFalse(prefers_gzip(request()))
        self.assertTrue(prefers_gzip(request("Accept-Encoding: br", "accept-encoding: gzip")))


class NotModifiedTests(SynchronousTestCase):
    """If-None-Match and If-Modified-Since."""

    def test_none_match(self) -> None:
        """A client has the representation if its tag is in the list, weak or not, or the list is a star."""
        table = {
            "": False,
            '"a"': True,
            'W/"a"': True,
            '"b"': False,
            'W/"b"': False,
            '"b", "a"': True,
            '"b","a"': True,
            '"b",W/"a","c"': True,
            ', ,"a",': True,
            '"b", "c"': False,
            "*": True,
            '"*"': False,
            "a": False,
            '"A"': False,
            '"a b"': False,
            '"ab"': False,
            '"b,a"': False,
            '"a': False,
            '"\u00e9", "a"': True,
        }
        self.assertEqual({v: not_modified(request(f"If-None-Match: {v}"), '"a"', 0) for v in table}, table)

    def test_two_fields(self) -> None:
        """Two fields are one list."""
        self.assertTrue(not_modified(request('If-None-Match: "b"', 'If-None-Match: "a"'), '"a"', 0))

    def test_modified_since(self) -> None:
        """A client that has what was made by then has it; what is no date says nothing."""
        made = 784111777.9  # its second is the one that Last-Modified tells
        for value, expected in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", True),
            ("Sun, 06 Nov 1994 08:49:38 GMT", True),
            ("Sun, 06 Nov 1994 08:49:36 GMT", False),
            ("yesterday", False),
            ("Sun, 06 Nov 1994 08:49:38 GMT\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:38 GMT", False),
        ]:
            self.assertEqual(not_modified(request(f"If-Modified-Since: {value}"), '"a"', made), expected, value)

    def test_tag_goes_before_date(self) -> None:
        """With a tag the date does not matter."""
        late = "If-Modified-Since: Sun, 06 Nov 2033 08:49:37 GMT"
        self.assertFalse(not_modified(request('If-None-Match: "b"', late), '"a"', 0))

    def test_neither(self) -> None:
        """Who has nothing gets it."""
        self.assertFalse(not_modified(request(), '"a"', 0))


class HasChangedTests(SynchronousTestCase):
    """If-Match and If-Unmodified-Since."""

    def test_match(self) -> None:
        """A client that wants it only as it was gets it if its tag is in the list, strong, or the list is a star."""
        table = {
            '"a"': False,
            '"b", "a"': False,
            '"b","a"': False,
            "*": False,
            'W/"a"': True,
            '"b"': True,
            '"b", W/"a"': True,
            "": True,
            "a": True,
        }
        self.assertEqual({v: precondition_failed(request(f"If-Match: {v}"), '"a"', 0) for v in table}, table)

    def test_unmodified_since(self) -> None:
        """By date, where there is no tag; what is no date says nothing."""
        for fields, expected in [
            (["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"], False),
            (["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT"], True),
            (["If-Unmodified-Since: yesterday"], False),
            (["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT", 'If-Match: "a"'], False),
            ([], False),
        ]:
            self.assertEqual(precondition_failed(request(*fields), '"a"', 784111777.9), expected, fields)


class HttpDateTests(SynchronousTestCase):
    """Dates of HTTP."""

    def test_forms(self) -> None:
        """All three forms are read."""
        for text in (
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ):
            self.assertEqual(parse_http_date(text, NOW), 784111777, text)

    def test_two_digits(self) -> None:
        """A year of two digits is the next one that ends in them, if that is within 50 years, or else the last."""
        for today, year, meant in (
            (2026, 76, 2076),
            (2026, 77, 1977),
            (2026, 26, 2026),
            (2060, 9, 2009),
            (2099, 99, 2099),
        ):
            moment = datetime(today, 6, 1, tzinfo=UTC).timestamp()
            read = parse_http_date(f"Sunday, 06-Nov-{year:02} 08:49:37 GMT", moment)
            self.assertEqual(datetime.fromtimestamp(read or 0, UTC).year, meant)

    def test_round_trip(self) -> None:
        """What we write we read."""
        for moment in (0, 951782400, 1767225600, 4102444799):
            self.assertEqual(parse_http_date(format_http_date(moment), NOW), moment)

    def test_leap_second(self) -> None:
        """A leap second is one."""
        self.assertEqual(parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT", NOW), 1483228800)

    def test_none(self) -> None:
        """What is no date is none, and never an error."""
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
