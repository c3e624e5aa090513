"""Conditional requests."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.caching.conditional import not_modified, precondition_failed
from govi_server.http.request import Environ, parse

NOW = 784116000.0
"""Sun, 06 Nov 1994 10:00:00 GMT."""


def request(*fields: str) -> Environ:
    return parse("GET / HTTP/1.0\n" + "".join(f"{field}\n" for field in fields) + "\n")


class NotModifiedTests(SynchronousTestCase):
    """If-None-Match and If-Modified-Since."""

    def test_if_none_match(self) -> None:
        """The representation is not modified if the list has its tag, weak or strong, or is `*`."""
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
        self.assertEqual({v: not_modified(request(f"If-None-Match: {v}"), '"a"', 0, NOW) for v in table}, table)

    def test_repeated_field_is_one_list(self) -> None:
        """Repeated fields are one list."""
        self.assertTrue(not_modified(request('If-None-Match: "b"', 'If-None-Match: "a"'), '"a"', 0, NOW))

    def test_if_modified_since(self) -> None:
        """It is not modified since its own date or a later one; an invalid or future date is ignored."""
        modified = 784111777.9  # Last-Modified is its second
        for value, expected in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", True),
            ("Sun, 06 Nov 1994 08:49:38 GMT", True),
            ("Sun, 06 Nov 1994 08:49:36 GMT", False),
            ("Sun, 06 Nov 1994 10:00:00 GMT", True),
            ("Sun, 06 Nov 1994 10:00:01 GMT", False),
            ("yesterday", False),
            ("Sun, 06 Nov 1994 08:49:38 GMT\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:38 GMT", False),
        ]:
            self.assertEqual(
                not_modified(request(f"If-Modified-Since: {value}"), '"a"', modified, NOW), expected, value
            )

    def test_tag_takes_precedence(self) -> None:
        """With If-None-Match the date is ignored."""
        late = "If-Modified-Since: Sun, 06 Nov 2033 08:49:37 GMT"
        self.assertFalse(not_modified(request('If-None-Match: "b"', late), '"a"', 0, NOW))

    def test_unconditional_request_gets_the_representation(self) -> None:
        """Without a condition the representation is sent."""
        self.assertFalse(not_modified(request(), '"a"', 0, NOW))


class PreconditionTests(SynchronousTestCase):
    """If-Match and If-Unmodified-Since."""

    def test_if_match(self) -> None:
        """The precondition holds if the list has the tag, strong, or is `*`."""
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

    def test_if_unmodified_since(self) -> None:
        """The date is compared if there is no If-Match; an invalid date is ignored."""
        for fields, expected in [
            (["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"], False),
            (["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT"], True),
            (["If-Unmodified-Since: yesterday"], False),
            (["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT", 'If-Match: "a"'], False),
            ([], False),
        ]:
            self.assertEqual(precondition_failed(request(*fields), '"a"', 784111777.9), expected, fields)
