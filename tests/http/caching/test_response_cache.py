"""ResponseCache, and /board and /siri, which render a board once for all clients."""

import json
from math import ceil
from typing import Any, cast
from unittest import mock

from zope.interface.verify import verifyObject

from govi_server.departures.board import Board
from govi_server.departures.cache import BoardCache
from govi_server.departures.display import DepartureDisplay
from govi_server.departures.times import read_timestamp
from govi_server.http.caching import response_cache
from govi_server.http.caching.cached_response import CachedResponse, Validity, VersionValidator
from govi_server.http.caching.representation import make_representation, represent
from govi_server.http.caching.response_cache import AGE_STEP, MAX_AGE, ResponseCache
from govi_server.modules import board as board_module
from govi_server.modules.board import BoardPages
from govi_server.modules.display_source import CacheDisplays, DisplayResult, FeedDisplays
from govi_server.modules.siri import PATH, Siri
from govi_server.runtime.bounded_memory import BoundedMemory
from govi_server.statistics.records import CacheResult
from govi_server.web_handler import ICacheableModule
from tests import feed as kv
from tests.client import NOW
from tests.doubles import FakeSource, ingest
from tests.modules.test_kv55_feed import CODE, LiveTestCase, row

PAGE = f"/board/{CODE}"
JSON = {"Accept": "application/json"}


class ResponseCacheTests(LiveTestCase):
    """ResponseCache without a module."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(response_cache, "MIN_ENTRY_BYTES", 1)
        self.memory: BoundedMemory[Any] = BoundedMemory(100)
        self.responses = ResponseCache(self.clock, self.memory)
        self.version = 1

    def store(self, request: str, cache: CacheResult = "hit", size: int = 10) -> None:
        representation = make_representation(b"x" * size, "text/plain", False)

        def make(max_age: int, validity: Validity | None) -> CachedResponse:
            return CachedResponse(representation, (("Max-Age", f"{max_age}"),), cache, validity)

        self.responses.store(request, VersionValidator(lambda: self.version), make)

    def max_age(self, request: str) -> str | None:
        response = self.responses.lookup(request)
        return None if response is None else dict(response.headers)["Max-Age"]

    def test_max_age_decreases(self) -> None:
        """A response expires with its max-age, which decreases in steps, and is what remains of MAX_AGE or less."""
        self.store("a")
        self.assertEqual(self.max_age("a"), "7")
        for seconds, max_age in ((2.75, "7"), (0.25, "4"), (2.75, "4"), (0.25, "1"), (2.75, "1"), (0.25, None)):
            self.clock.advance(seconds)
            self.assertEqual(self.max_age("a"), max_age)
            age = self.clock.seconds() - NOW
            self.assertLessEqual(age + int(max_age or "0"), MAX_AGE)

    def test_validity_ends_with_the_max_age(self) -> None:
        """A serialized response is valid until its max-age decreases, while its source is current."""
        self.store("a")
        for seconds in (0.25, 0.5, 0.5, 4.5, 3.0):
            self.clock.advance(seconds)
            response = self.responses.lookup("a")
            assert response is not None
            assert response.validity is not None
            since, until, validator = response.validity
            now, remaining = self.clock.seconds(), until - self.clock.seconds()
            self.assertEqual(
                (since, until, validator.is_current), (now, NOW + ceil((now - NOW) / AGE_STEP) * AGE_STEP, True)
            )
            self.clock.advance(remaining - 2**-10)
            self.assertEqual(self.responses.lookup("a").headers, response.headers)  # type: ignore[union-attr]
            self.clock.rightNow = now
        self.version = 2
        self.assertFalse(validator.is_current)

    def test_new_version_invalidates(self) -> None:
        """A response is valid until the version of its source changes."""
        self.store("a")
        self.version = 2
        self.assertIsNone(self.max_age("a"))
        self.store("a")
        self.assertEqual((self.max_age("a"), len(self.memory)), ("7", 1))

    def test_lifetime_by_cache_result(self) -> None:
        """A stale response, which states its age, is stored for a second; one that waited is not stored."""
        for cache in ("stale", "miss", "joined"):
            self.store(cache, cache)
        self.assertEqual([self.max_age(cache) for cache in ("stale", "miss", "joined")], ["7", None, None])
        self.clock.advance(1)
        self.assertIsNone(self.max_age("stale"))

    def test_clock_set_back(self) -> None:
        """A response stored before the clock was set back is invalid."""
        self.store("a")
        self.clock.rightNow -= 1
        self.assertIsNone(self.max_age("a"))

    def test_oldest_is_evicted(self) -> None:
        """The least recently used responses are evicted; a response over the size limit is not stored."""
        for request in "abc":
            self.store(request, size=40)
        self.assertEqual([self.max_age(request) for request in "abc"], [None, "7", "7"])
        self.store("d", size=101)
        self.assertEqual([self.max_age(request) for request in "bcd"], ["7", "7", None])

    def test_number_of_entries_is_bounded(self) -> None:
        """A small response counts as MIN_ENTRY_BYTES."""
        self.patch(response_cache, "MIN_ENTRY_BYTES", 50)
        for request in "abc":
            self.store(request)
        self.assertEqual([self.max_age(request) for request in "abc"], [None, "7", "7"])


class BoardsTestCase(LiveTestCase):
    """A test case that has the modules behind a server."""

    def stored_responses(self) -> list[Any]:
        return [entry for entry, _ in self.displays.memory._values.values() if hasattr(entry, "validator")]

    def setUp(self) -> None:
        super().setUp()
        self.up()
        self.displays = FeedDisplays(self.feed)
        self.boards = BoardPages(self.displays, self.clock)
        self.siri = Siri(self.feed)
        for module in (self.boards, self.siri):
            module.setServiceParent(self.modules)
        ingest(self.feed, kv.passtimes(row("1", 5)))

    def set_expected(self, minutes: int) -> None:
        ingest(self.feed, kv.passtimes(row("1", 5, ExpectedDepartureTime=f"01:{minutes:02}:00")))

    def count_rendered(self, path: str, times: int, **headers: str) -> int:
        """Send so many requests; return the number of rendered bodies."""
        with (
            mock.patch.object(board_module, "represent", wraps=represent) as rendered_board,
            mock.patch("govi_server.modules.siri.represent", wraps=represent) as rendered_siri,
        ):
            for _ in range(times):
                self.assertEqual(self.request(path, **headers).status, 200)
        return rendered_board.call_count + rendered_siri.call_count


class RenderedOnceTests(BoardsTestCase):
    """The number of times a body is rendered."""

    def test_modules_are_cacheable(self) -> None:
        """Both are cacheable modules."""
        verifyObject(ICacheableModule, self.boards)
        verifyObject(ICacheableModule, self.siri)

    def test_rendered_once_per_form(self) -> None:
        """A board is rendered once in each form, language and coding, until it changes."""
        siri = f"{PATH}?MonitoringRef={CODE}"
        forms: list[tuple[str, dict[str, str]]] = [
            (PAGE, {}), (PAGE, JSON), (PAGE, {"Accept": "text/plain"}), (f"{PAGE}?lang=en", {}),
            (PAGE, {"Accept_Encoding": "gzip"}), (f"{PAGE}?limit=1", {}), (f"{PAGE}?view=wall", {}),
            (f"{PAGE}?fields=line", JSON), (f"{PAGE}?chars=20", {"Accept": "text/plain"}),
            (siri, {}), (siri, {"Accept_Encoding": "gzip"}), (f"{siri}&MaximumStopVisits=1", {}),
        ]  # fmt: skip
        self.feed.boards.documents.max_bytes = 1 << 30  # whatever is requested once is stored
        for minutes in (8, 9):
            self.set_expected(minutes)
            for path, headers in forms:
                self.assertEqual(self.count_rendered(path, 5, **headers), 1, (path, headers))
        self.clock.advance(MAX_AGE)
        self.assertEqual(self.count_rendered(PAGE, 5), 1)

    def test_other_stops_do_not_invalidate(self) -> None:
        """Changes of other stops do not invalidate a board; a change of the feed's state does."""
        self.count_rendered(PAGE, 1)
        ingest(self.feed, kv.passtimes(row("2", 5, TimingPointCode="555")))
        self.assertEqual(self.count_rendered(PAGE, 1), 0)
        self.up("RECOVERING")
        self.assertEqual(self.count_rendered(PAGE, 1), 1)
        self.assertEqual(self.request(PAGE).headers["Feed-State"], "RECOVERING")

    def test_errors_are_not_stored(self) -> None:
        """Errors are not stored: those for unknown stops, and those for old data."""
        self.feed.places.index()  # whose places the page of an unknown stop suggests
        self.clock.pump([0.0] * 20)
        for path in ("/board/999", "/board/x"):
            self.assertEqual(self.request(path).status, 404)
        ingest(self.feed, kv.passtimes(row("1", 15)))
        self.clock.advance(6 * 60)
        self.assertEqual(self.request(PAGE).status, 503)
        self.assertEqual(self.stored_responses(), [])

    def test_board_of_a_gateway_is_rendered_twice(self) -> None:
        """The response to a miss is not stored; the hits after it share one rendering."""
        source = FakeSource()
        module = BoardPages(CacheDisplays(BoardCache(source, self.clock), self.clock), self.clock)
        self.modules.removeService(self.boards)
        module.setServiceParent(self.modules)
        waiting = self.client()
        waiting.get(PAGE)
        source.results[0].callback(Board(CODE, (), NOW))
        self.assertEqual(waiting.response().status, 200)
        self.assertEqual(self.count_rendered(PAGE, 5), 1)
        waiting.leave()
        caches = [request.exchange.cache for connection in self.statistics for request in connection.requests]
        self.assertEqual(sorted(caches), ["hit"] * 5 + ["miss"])


class FreshnessTests(BoardsTestCase):
    """The age of stored responses."""

    def test_minutes_are_never_overstated(self) -> None:
        """The minutes are right for as long as the response may be stored, here and by the client."""
        ingest(self.feed, kv.planning({"TargetDepartureTime": "01:07:00"}), kv.calendar("2026-01-01"))
        for _ in range(60):
            response = self.request(PAGE, **JSON)
            max_age = int(response.headers["Cache-Control"].removeprefix("public, max-age="))
            for departure in json.loads(response.body)["stops"][0]["departures"]:
                expected = read_timestamp(departure["expected"] or departure["planned"])
                assert expected is not None
                remaining = expected - (self.clock.seconds() + max_age)
                self.assertLessEqual(departure["minutes"] * 60, max(remaining, 0), departure)
            self.clock.advance(3.7)

    def test_age_is_current(self) -> None:
        """The Age of stale data is that of the current second."""
        ingest(self.feed, kv.passtimes(row("1", 15)))
        self.clock.advance(61)
        self.request(PAGE)
        self.clock.advance(5)
        self.assertEqual(self.request(PAGE).headers["Age"], "66")

    def test_not_modified_has_the_current_max_age(self) -> None:
        """A 304 has the current max-age."""
        tag = self.request(PAGE).headers["ETag"]
        self.clock.advance(4)
        response = self.request(PAGE, If_None_Match=tag)
        self.assertEqual((response.status, response.headers["Cache-Control"]), (304, "public, max-age=4"))

    def test_failure_is_not_stored(self) -> None:
        """A failing source causes a 500, and is called again for the next request."""
        with mock.patch.object(self.displays, "_display", side_effect=ZeroDivisionError):
            self.assertEqual(self.request(PAGE).status, 500)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(self.request(PAGE).status, 200)

    def test_displays_are_not_stored(self) -> None:
        """The displays from which a body was rendered, which are larger than it, are not stored."""
        self.count_rendered(PAGE, 1)
        (entry,) = self.stored_responses()
        stored = [cell.cell_contents for cell in cast(Any, entry.make).__closure__]
        self.assertFalse([value for value in stored if isinstance(value, (DepartureDisplay, DisplayResult))])
