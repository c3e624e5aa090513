"""Tests of responses that a worker sends again."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.caching.cached_response import CachedResponse
from govi_server.web_handler import ErrorResponse
from govi_server.workers.response import Response
from govi_server.workers.upstream_connection import Message

NOW = 1_000.25


def response(status: str = "200 Ok", **fields: str) -> Response:
    """Return a response received at NOW; underscores in the names of fields are hyphens."""
    pairs = [(name.replace("_", "-"), value) for name, value in fields.items()]
    return Response(Message(status, (*pairs, ("ETag", '"a"'), ("Content-Type", "x/y")), b"body"), NOW)


def fields_of(sent: CachedResponse | ErrorResponse | None) -> dict[str, str]:
    assert isinstance(sent, CachedResponse)
    return dict(sent.headers)


class ResponseTests(SynchronousTestCase):
    """Which responses may be sent again, and how their fields change."""

    def test_cacheable(self) -> None:
        """A 200 with an entity tag may be sent again until max-age, less its age and a second for rounding."""
        for expected, fields in (
            (True, {"Cache_Control": "public, max-age=60"}),
            (True, {"Cache_Control": "max-age=60", "Age": "58"}),
            (False, {"Cache_Control": "max-age=60", "Age": "59"}),
            (False, {"Cache_Control": "public, max-age=10", "Age": "45"}),
            (False, {"Cache_Control": "max-age=0"}),
            (False, {"Cache_Control": "no-cache, max-age=60"}),
            (False, {"Cache_Control": "max-age=60,no-store"}),
            (False, {"Cache_Control": "private, max-age=60"}),
            (False, {"Cache_Control": "s-max-age=60"}),
            (False, {"Cache_Control": "max-age=sixty"}),
            (False, {}),
        ):
            self.assertEqual(response(**fields).is_cacheable, expected, fields)
        self.assertFalse(response("404 Not Found", Cache_Control="max-age=60").is_cacheable)

    def test_again(self) -> None:
        """Seconds are rounded up, and the bytes stay the same until the next one."""
        stored = response(Cache_Control="public, max-age=60", Age="7", Cache_Status="govi-cache; fwd=miss; ttl=53")
        for elapsed, age, until in ((0.0, "7", 0.0), (0.2, "8", 1.0), (1.0, "8", 1.0), (1.5, "9", 2.0)):
            sent = stored.again(NOW + elapsed)
            assert sent is not None
            assert sent.validity is not None
            self.assertEqual(fields_of(sent)["Age"], age)
            self.assertEqual(fields_of(sent)["Cache-Control"], "public, max-age=60")
            self.assertEqual(fields_of(sent)["Cache-Status"], f"govi-cache; hit; ttl={60 - int(age)}")
            self.assertEqual((sent.validity.since, sent.validity.until), (NOW + elapsed, NOW + until))
        self.assertIsNotNone(stored.again(NOW + 51.9))
        self.assertIsNone(stored.again(NOW + 52.0))
        self.assertIsNone(stored.again(NOW - 1))  # the clock was set back

    def test_max_age_decreases_without_age(self) -> None:
        """A response without Age states how long it stays fresh."""
        stored = response(Cache_Control="public, max-age=31536000, immutable")
        cache_control = fields_of(stored.again(NOW + 100.5))["Cache-Control"]
        self.assertEqual(cache_control, "public, max-age=31535899, immutable")

    def test_first(self) -> None:
        """A response to a client that joined a miss says so; other results are the main process's."""
        for result, status, expected in (
            ("miss", "govi-cache; fwd=miss; ttl=60", "govi-cache; fwd=miss; collapsed; ttl=60"),
            ("joined", "govi-cache; fwd=miss; collapsed", "govi-cache; fwd=miss; collapsed"),
            ("hit", "govi-cache; hit; ttl=9", "govi-cache; hit; ttl=9"),
            ("stale", "govi-cache; hit; ttl=-9", "govi-cache; hit; ttl=-9"),
        ):
            sent = response(Cache_Status=status, Govi_Result=f"{result} 57330430")
            self.assertEqual(fields_of(sent.first(False)), {"Cache-Status": status})
            self.assertEqual(fields_of(sent.first(True)), {"Cache-Status": expected})
            self.assertEqual((sent.first(False).cache, sent.stop), (result, "57330430"))
