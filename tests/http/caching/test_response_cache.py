"""Boards that are rendered once for all who ask: /board and /siri, in memory, on a stepped clock."""

import json
from typing import Any, cast
from unittest import mock

from zope.interface.verify import verifyObject

from govi_server.departures.board import Board
from govi_server.departures.cache import BoardCache
from govi_server.departures.display import DepartureDisplay
from govi_server.departures.times import read_timestamp
from govi_server.http.caching import response_cache
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import make_representation
from govi_server.http.caching.response_cache import MAX_AGE, ResponseCache
from govi_server.modules import board as board_module
from govi_server.modules.board import BoardPages
from govi_server.modules.display_source import CacheDisplays, FeedDisplays, StopsDisplay
from govi_server.modules.siri import PATH, Siri
from govi_server.statistics.records import CacheResult
from govi_server.web_handler import ICacheableModule
from tests import feed as kv
from tests.client import NOW
from tests.doubles import FakeSource, take
from tests.modules.test_kv55_feed import CODE, LiveTestCase, row

PAGE = f"/board/{CODE}"
JSON = {"Accept": "application/json"}


class KeptTests(LiveTestCase):
    """The answers themselves."""

    def setUp(self) -> None:
        super().setUp()
        self.kept = ResponseCache(self.clock, 100)

    def put(self, asked: str, cache: CacheResult = "hit", size: int = 10, version: object = 1) -> None:
        made = make_representation(b"x" * size, "text/plain", False)
        self.kept.put(asked, version, lambda max_age: CachedResponse(made, (("Max-Age", f"{max_age}"),), cache))

    def max_age(self, asked: str, version: object = 1) -> str | None:
        ready = self.kept.get(asked, version)
        return None if ready is None else dict(ready.headers)["Max-Age"]

    def test_lasts(self) -> None:
        """An answer lasts as long as caches on the way may keep it, and they have what is left of that."""
        self.put("a")
        self.assertEqual(self.max_age("a"), "10")
        self.clock.advance(0.5)
        self.assertEqual(self.max_age("a"), "9")
        self.clock.advance(MAX_AGE - 1)
        self.assertEqual(self.max_age("a"), "0")
        self.clock.advance(0.5)
        self.assertIsNone(self.max_age("a"))

    def test_version(self) -> None:
        """It holds until there is something new."""
        self.put("a")
        self.assertIsNone(self.max_age("a", version=2))
        self.put("a", version=2)
        self.assertEqual((self.max_age("a", version=2), len(self.kept), self.kept.bytes), ("10", 1, 10))

    def test_results(self) -> None:
        """One that tells its age is kept for a second, one that was waited for not at all."""
        for cache in ("stale", "miss", "joined"):
            self.put(cache, cache)
        self.assertEqual([self.max_age(cache) for cache in ("stale", "miss", "joined")], ["10", None, None])
        self.clock.advance(1)
        self.assertIsNone(self.max_age("stale"))

    def test_set_back(self) -> None:
        """What was made before the clock was set back does not hold."""
        self.put("a")
        self.clock.rightNow -= 1
        self.assertIsNone(self.max_age("a"))

    def test_bounded(self) -> None:
        """The oldest goes when there are too many or too large ones, and all that is over."""
        for asked in "abc":
            self.put(asked, size=40)
        self.assertEqual([self.max_age(asked) for asked in "abc"], [None, "10", "10"])
        self.put("d", size=101)
        self.assertEqual((len(self.kept), self.kept.bytes), (0, 0))
        with mock.patch.object(response_cache, "MOST_ANSWERS", 2):
            for asked in "abc":
                self.put(asked)
        self.assertEqual([self.max_age(asked) for asked in "abc"], [None, "10", "10"])
        self.clock.advance(MAX_AGE)
        self.put("e")
        self.assertEqual((len(self.kept), self.kept.bytes), (1, 10))


class BoardsTestCase(LiveTestCase):
    """The modules behind a server."""

    def setUp(self) -> None:
        super().setUp()
        self.up()
        self.signs = FeedDisplays(self.feed)
        self.boards = BoardPages(self.signs, self.clock)
        self.siri = Siri(self.feed)
        for module in (self.boards, self.siri):
            module.setServiceParent(self.modules)
        take(self.feed, kv.passtimes(row("1", 5)))

    def say(self, minutes: int) -> None:
        take(self.feed, kv.passtimes(row("1", 5, ExpectedDepartureTime=f"01:{minutes:02}:00")))

    def rendered(self, path: str, times: int, **headers: str) -> int:
        """Ask so often; tell how often a body was made."""
        with (
            mock.patch.object(board_module, "make_representation", wraps=make_representation) as of_board,
            mock.patch("govi_server.modules.siri.make_representation", wraps=make_representation) as of_siri,
        ):
            for _ in range(times):
                self.assertEqual(self.ask(path, **headers).status, 200)
        return of_board.call_count + of_siri.call_count


class RenderedOnceTests(BoardsTestCase):
    """How often anything is made."""

    def test_interfaces(self) -> None:
        """Both have answers at hand."""
        verifyObject(ICacheableModule, self.boards)
        verifyObject(ICacheableModule, self.siri)

    def test_once(self) -> None:
        """A board is rendered once in each form, language and coding, however many ask, until there is news."""
        siri = f"{PATH}?MonitoringRef={CODE}"
        forms: list[tuple[str, dict[str, str]]] = [
            (PAGE, {}), (PAGE, JSON), (PAGE, {"Accept": "text/plain"}), (f"{PAGE}?lang=en", {}),
            (PAGE, {"Accept_Encoding": "gzip"}), (f"{PAGE}?limit=1", {}), (f"{PAGE}?view=wall", {}),
            (f"{PAGE}?fields=line", JSON), (f"{PAGE}?chars=20", {"Accept": "text/plain"}),
            (siri, {}), (siri, {"Accept_Encoding": "gzip"}), (f"{siri}&MaximumStopVisits=1", {}),
        ]  # fmt: skip
        for told in range(2):
            self.say(8 + told)
            for path, headers in forms:
                self.assertEqual(self.rendered(path, 5, **headers), 1, (path, headers))
        self.clock.advance(MAX_AGE)
        self.assertEqual(self.rendered(PAGE, 5), 1)

    def test_others(self) -> None:
        """What is said of another stop changes nothing; what the feed is, does."""
        self.rendered(PAGE, 1)
        take(self.feed, kv.passtimes(row("2", 5, TimingPointCode="555")))
        self.assertEqual(self.rendered(PAGE, 1), 0)
        self.up("RECOVERING")
        self.assertEqual(self.rendered(PAGE, 1), 1)
        self.assertEqual(self.ask(PAGE).headers["Feed-State"], "RECOVERING")

    def test_not_kept(self) -> None:
        """Nothing is kept of stops that there are not, nor while nothing is known."""
        for path in ("/board/999", "/board/x", "/board/"):
            self.assertEqual(self.ask(path).status, 404)
        take(self.feed, kv.passtimes(row("1", 15)))
        self.clock.advance(6 * 60)
        self.assertEqual(self.ask(PAGE).status, 503)
        self.assertEqual(len(self.boards.kept), 0)

    def test_gateway(self) -> None:
        """Of a gateway's board the first answer was waited for, the others are hits of one rendering."""
        source = FakeSource()
        module = BoardPages(CacheDisplays(BoardCache(source, self.clock), self.clock), self.clock)
        self.modules.removeService(self.boards)
        module.setServiceParent(self.modules)
        waits = self.client()
        waits.get(PAGE)
        source.answers[0].callback(Board(CODE, (), NOW))
        self.assertEqual(waits.answer().status, 200)
        self.assertEqual(self.rendered(PAGE, 5), 1)
        waits.leave()
        caches = [request.cache for said in self.statistics for request in said.requests]
        self.assertEqual(sorted(caches), ["hit"] * 5 + ["miss"])


class TrueTests(BoardsTestCase):
    """What is kept is never more than there is."""

    def test_never_optimistic(self) -> None:
        """However long it is kept, here and by the client, the minutes are never more than are left."""
        take(self.feed, kv.planning({"TargetDepartureTime": "01:07:00"}), kv.calendar("2026-01-01"))
        for _ in range(60):
            answer = self.ask(PAGE, **JSON)
            max_age = int(answer.headers["Cache-Control"].removeprefix("public, max-age="))
            for departure in json.loads(answer.body)["stops"][0]["departures"]:
                expected = read_timestamp(departure["expected"] or departure["planned"])
                assert expected is not None
                left = expected - (self.clock.seconds() + max_age)
                self.assertLessEqual(departure["minutes"] * 60, max(left, 0), departure)
            self.clock.advance(3.7)

    def test_age(self) -> None:
        """The age that is told of old data is that of this second."""
        take(self.feed, kv.passtimes(row("1", 15)))
        self.clock.advance(61)
        self.ask(PAGE)
        self.clock.advance(5)
        self.assertEqual(self.ask(PAGE).headers["Age"], "66")

    def test_conditional(self) -> None:
        """Who has it is told so, with what is left of its time."""
        tag = self.ask(PAGE).headers["ETag"]
        self.clock.advance(4)
        answer = self.ask(PAGE, If_None_Match=tag)
        self.assertEqual((answer.status, answer.headers["Cache-Control"]), (304, "public, max-age=6"))

    def test_fails(self) -> None:
        """A source that fails is a 500, and is asked again."""
        with mock.patch.object(self.signs, "_sign", side_effect=ZeroDivisionError):
            self.assertEqual(self.ask(PAGE).status, 500)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(self.ask(PAGE).status, 200)

    def test_bodies_alone(self) -> None:
        """What a body was made of, which is larger, is not kept with it."""
        self.rendered(PAGE, 1)
        (answer,) = self.boards.kept._answers.values()
        holds = [cell.cell_contents for cell in cast(Any, answer.say).__closure__]
        self.assertFalse([one for one in holds if isinstance(one, (DepartureDisplay, StopsDisplay))])
