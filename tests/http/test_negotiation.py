"""Content negotiation."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.negotiation import best_language, best_type, prefers_gzip, weights
from govi_server.http.request import Environ, parse

TYPES = ("text/html", "text/plain", "application/json")
LANGUAGES = ("nl", "en", "de", "fr")


class NegotiationTests(SynchronousTestCase):
    """Weights, media types and languages."""

    def test_weights_of_members(self) -> None:
        """A member has its weight, or 1; invalid members, and those with an invalid weight, are ignored."""
        self.assertEqual(
            weights("a/b;q=0.5, C/D ; level=1;Q=0.25 ,e/f;v=2,*/*;q=0,g/h;q=2, ,;q=1"),
            {"a/b": 0.5, "c/d": 0.25, "e/f": 1, "*/*": 0},
        )

    def test_type_with_greatest_weight_is_chosen(self) -> None:
        """The type with the greatest weight, that of its most specific range, is chosen; the first of equals."""
        for accept, media_type in [
            ("", "text/html"),
            ("*/*", "text/html"),
            ("text/plain", "text/plain"),
            ("application/json", "application/json"),
            ("application/*", "application/json"),
            ("text/*", "text/html"),
            ("text/html;q=0.5,text/*", "text/plain"),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
            ("application/json;q=0.9, text/plain", "text/plain"),
            ("text/html;q=0, */*;q=0.1", "text/plain"),
            ("image/png", "text/html"),
            ("application/json, text/plain, */*", "application/json"),
            ("text/plain, application/json, */*", "text/plain"),
            ("application/json, */*;q=0.9", "application/json"),
            ("application/json;q=0.9, */*", "text/html"),
        ]:
            self.assertEqual(best_type(accept, TYPES), media_type, accept)

    def test_language_with_greatest_weight_is_chosen(self) -> None:
        """The language with the greatest weight is chosen, regardless of its region; Dutch by default."""
        for accept, language in [
            ("", "nl"),
            ("*", "nl"),
            ("en", "en"),
            ("en-GB,en;q=0.9", "en"),
            ("fr;q=0.5,de;q=0.8,nl;q=0.1", "de"),
            ("fr-CA;q=0.3, fr-FR;q=0.9, en;q=0.5", "fr"),
            ("pl,uk;q=0.9", "nl"),
            ("pl, de;q=0.1", "de"),
            ("nl;q=0, *", "en"),
            ("EN-us", "en"),
        ]:
            self.assertEqual(best_language(accept, LANGUAGES), language, accept)


def request(*fields: str) -> Environ:
    return parse("GET / HTTP/1.0\n" + "".join(f"{field}\n" for field in fields) + "\n")


class PrefersGzipTests(SynchronousTestCase):
    """Accept-Encoding."""

    def test_gzip_is_preferred_by_weight(self) -> None:
        """gzip is preferred if its weight is above 0, and at least that of identity."""
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
            "gzip;q =0": False,
            "gzip; q = 0": False,
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
            # A member with an invalid weight is ignored.
            "gzip;q=2": False,
            "gzip;q=-1": False,
            "gzip;q=1.1": False,
            "gzip;q=0.0001": False,
            "gzip;q=x": False,
            "gzip;q=\u00b2": False,
            "gzip;level=1": True,
            "gzi": False,
            "gzipp": False,
            "g\u00f8zip": False,
        }
        self.assertEqual({value: prefers_gzip(request(f"Accept-Encoding: {value}")) for value in table}, table)

    def test_repeated_field_is_one_list(self) -> None:
        """Without the field gzip is not preferred; repeated fields are one list."""
        self.assertFalse(prefers_gzip(request()))
        self.assertTrue(prefers_gzip(request("Accept-Encoding: br", "accept-encoding: gzip")))
