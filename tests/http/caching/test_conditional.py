"""Conditional requests."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.caching.conditional import not_modified, precondition_failed
from govi_server.http.request import Environ, parse


def request(*fields: str) -> Environ:
    return parse("GET / HTTP/1.0\n" + "".join(f"{field}\n" for field in fields) + "\n")


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
        """A client of the same date or a later one has the representation; an invalid date is ignored."""
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
        """With a tag the date is ignored."""
        late = "If-Modified-Since: Sun, 06 Nov 2033 08:49:37 GMT"
        self.assertFalse(not_modified(request('If-None-Match: "b"', late), '"a"', 0))

    def test_neither(self) -> None:
        """Without conditions the representation is sent."""
        self.assertFalse(not_modified(request(), '"a"', 0))


class PreconditionTests(SynchronousTestCase):
    """If-Match and If-Unmodified-Since."""

    def test_match(self) -> None:
        """The precondition holds if the tag is in the list, strong, or the list is a star."""
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
        """A date counts where there is no tag; an invalid one is ignored."""
        for fields, expected in [
            (["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"], False),
            (["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT"], True),
            (["If-Unmodified-Since: yesterday"], False),
            (["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT", 'If-Match: "a"'], False),
            ([], False),
        ]:
            self.assertEqual(precondition_failed(request(*fields), '"a"', 784111777.9), expected, fields)
