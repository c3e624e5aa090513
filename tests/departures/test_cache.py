"""The cache of boards: results, waiters, failures and bounds."""

import gc
from collections import OrderedDict

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from govi_server.departures.board import Board, Trip
from govi_server.departures.cache import BoardCache, Entry
from govi_server.departures.source import IDepartureSource, NoBoard, SourceBroken, SourceSilent, SourceUnreachable
from govi_server.settings import CacheSettings
from tests.doubles import FakeSource

NOW = 1_000_000.0
CODE = "57330430"


class DoubleTests(SynchronousTestCase):
    """The source of these tests."""

    def test_provides(self) -> None:
        """The double provides IDepartureSource."""
        verifyObject(IDepartureSource, FakeSource())


class CacheTestCase(SynchronousTestCase):
    """A cache in front of a source whose boards the test supplies."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.source = FakeSource()
        self.cache = BoardCache(self.source, self.clock)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def board(self, code: str = CODE, age: float = 0.0, trips: int = 1) -> Board:
        """Return a board of an age."""
        return Board(code, (Trip(),) * trips, self.clock.seconds() - age)

    def wait(self, result: str, code: str = CODE) -> Deferred[Entry]:
        """Request a stop whose board is not in the cache."""
        actual, entry = self.cache.board(code)
        self.assertEqual(actual, result)
        assert isinstance(entry, Deferred)
        return entry

    def cached(self, result: str, code: str = CODE) -> Entry:
        """Request a stop whose board is in the cache."""
        actual, entry = self.cache.board(code)
        self.assertEqual(actual, result)
        assert isinstance(entry, Entry)
        return entry


class LookUpTests(CacheTestCase):
    """Hit, stale, joined and miss."""

    def test_defaults(self) -> None:
        """A board is fresh for a minute, and served stale up to five."""
        self.assertEqual((CacheSettings().fresh, CacheSettings().stale), (60.0, 300.0))
        self.assertEqual(self.cache.limits, CacheSettings())

    def test_miss(self) -> None:
        """A miss is one request to the source, whose board is the result."""
        waiting = self.wait("miss")
        self.assertNoResult(waiting)
        self.assertEqual(self.source.requested, [CODE])
        board = self.board()
        self.source.results[0].callback(board)
        self.assertIs(self.successResultOf(waiting).board, board)

    def test_hit(self) -> None:
        """A fresh board is served without a request."""
        waiting = self.wait("miss")
        self.source.results[0].callback(self.board())
        entry = self.successResultOf(waiting)
        for _ in range(3):
            self.assertIs(self.cached("hit"), entry)
        self.assertEqual(self.source.requested, [CODE])

    def test_joined(self) -> None:
        """Concurrent misses share one request."""
        first, second = self.wait("miss"), self.wait("joined")
        self.assertIsNot(first, second)
        self.assertEqual(self.source.requested, [CODE])
        self.source.results[0].callback(self.board())
        self.assertIs(self.successResultOf(first), self.successResultOf(second))

    def test_refresh_joins_the_pending_request(self) -> None:
        """A refresh shares a pending request, or starts one that clients share; it is no request of a client."""
        waiting, refresh = self.wait("miss"), self.cache.refresh(CODE, self.source.board)
        self.source.results[0].callback(self.board())
        entry = self.successResultOf(refresh)
        self.assertIs(self.successResultOf(waiting), entry)
        self.clock.advance(100)
        last = self.cache.last_request
        refresh = self.cache.refresh(CODE, self.source.board)
        self.assertIs(self.cached("stale"), entry)
        self.assertEqual((self.source.requested, self.cache.last_request), ([CODE] * 2, last))
        self.source.results[1].callback(self.board())
        self.assertIs(self.successResultOf(refresh), self.cached("hit"))

    def test_refresh_fails_despite_a_stale_board(self) -> None:
        """A refresh reports that the source failed, also if clients have a stale board."""
        self.cache.put(self.board(age=100))
        refresh = self.cache.refresh(CODE, self.source.board)
        self.source.results[0].errback(SourceSilent("no response"))
        self.failureResultOf(refresh, SourceSilent)
        self.assertEqual(self.cache.pending, {})

    def test_stale(self) -> None:
        """A stale board is served immediately and refreshed by exactly one request."""
        old = self.cache.put(self.board(age=100))
        for _ in range(5):
            self.assertIs(self.cached("stale"), old)
        self.assertEqual(self.source.requested, [CODE])
        new = self.board()
        self.source.results[0].callback(new)
        self.assertIs(self.cached("hit").board, new)
        self.assertEqual(self.source.requested, [CODE])

    def test_miss_joins_a_refresh(self) -> None:
        """A miss joins the request that was started while the board was stale."""
        self.cache.put(self.board(age=299))
        self.cached("stale")
        self.clock.advance(5)
        waiting = self.wait("joined")
        self.assertEqual(self.source.requested, [CODE])
        self.source.results[0].callback(self.board())
        self.assertEqual(self.cache.age(self.successResultOf(waiting)), 0)

    def test_ages(self) -> None:
        """The limits are inclusive, and a board from the future is not served."""
        for age, result in (
            (0, "hit"),
            (59.5, "hit"),
            (60, "hit"),
            (60.5, "stale"),
            (300, "stale"),
            (300.5, "miss"),
            (86400, "miss"),
            (-0.5, "miss"),
            (-3600, "miss"),
        ):
            source = FakeSource()
            cache = BoardCache(source, self.clock)
            entry = cache.put(self.board(age=age))
            self.assertEqual(cache.age(entry), age)
            self.assertEqual(cache.board(CODE)[0], result, age)
            self.assertEqual(source.requested, [] if result == "hit" else [CODE], age)

    def test_stale_limit_equals_fresh_limit(self) -> None:
        """Nothing is served stale if the stale limit equals the fresh limit."""
        self.cache = BoardCache(self.source, self.clock, CacheSettings(fresh=60, stale=60))
        self.cache.put(self.board(age=60))
        self.cached("hit")
        self.clock.advance(0.5)
        self.wait("miss")

    def test_clock_set_back(self) -> None:
        """After the clock is set back, a stop is requested again, and the new board is served."""
        self.cache.put(self.board())
        self.clock.advance(-3600)
        waiting = self.wait("miss")
        self.source.results[0].callback(self.board())
        self.assertIs(self.cached("hit"), self.successResultOf(waiting))

    def test_stops_are_independent(self) -> None:
        """Stops share neither boards nor requests, even if only leading zeros differ."""
        codes = ("31102", "031102", "0031102")
        waiting = [self.wait("miss", code) for code in codes]
        self.assertEqual(self.source.requested, list(codes))
        for code, result in zip(codes, self.source.results, strict=True):
            result.callback(self.board(code))
        self.assertEqual([self.successResultOf(each).board.code for each in waiting], list(codes))

    def test_immediate_board(self) -> None:
        """A source may return a board immediately."""
        self.source.immediate = self.board()
        self.assertIs(self.successResultOf(self.wait("miss")).board, self.source.immediate)
        self.cached("hit")

    def test_immediate_refresh(self) -> None:
        """An immediate refresh of a stale board serves the next request."""
        old = self.cache.put(self.board(age=100))
        self.source.immediate = self.board()
        self.assertIs(self.cached("stale"), old)
        self.assertIs(self.cached("hit").board, self.source.immediate)

    def test_late_board_is_stored(self) -> None:
        """A board that arrives without a waiter is stored, and is a hit."""
        board = self.board()
        self.source.publish(board)
        self.assertIs(self.cached("hit").board, board)
        self.assertEqual(self.source.requested, [])

    def test_older_board_does_not_replace_a_newer_one(self) -> None:
        """A board that was received before the stored one is not stored, and its waiters have that one."""
        waiting = self.wait("miss")
        newer = self.cache.put(self.board(age=1))
        self.source.results[0].callback(self.board(age=2))
        self.assertIs(self.successResultOf(waiting), newer)
        self.assertIs(self.cached("hit"), newer)
        self.cache.clock_set_back()
        older = self.cache.put(self.board(age=2))  # the age of what was received before is unknown
        self.assertIs(self.cached("hit"), older)

    def test_late_board_serves_waiters(self) -> None:
        """A late board serves the waiters of the pending request, and the next request is a hit."""
        waiting = self.wait("miss")
        late, requested = self.board(), self.board(trips=2)
        self.source.publish(late)
        self.assertIs(self.successResultOf(waiting).board, late)
        self.assertIs(self.cached("hit").board, late)
        self.source.results[0].callback(requested)
        self.assertIs(self.cached("hit").board, requested)


class WaitingTests(CacheTestCase):
    """Many waiters of one request, some of which leave."""

    def test_two_hundred_waiters(self) -> None:
        """Two hundred misses of a stop are one request and get the same entry."""
        waiting = [self.wait("joined" if n else "miss") for n in range(200)]
        self.assertEqual(self.source.requested, [CODE])
        self.source.results[0].callback(self.board())
        entry = self.cached("hit")
        for each in waiting:
            self.assertIs(self.successResultOf(each), entry)

    def test_failure_of_two_hundred_waiters(self) -> None:
        """A failure reaches each waiter once."""
        waiting = [self.wait("joined" if n else "miss") for n in range(200)]
        failure = SourceSilent("no callback within 10 s")
        self.source.results[0].errback(failure)
        for each in waiting:
            self.assertIs(self.failureResultOf(each, SourceSilent).value, failure)

    def test_waiter_leaves(self) -> None:
        """A waiter that leaves, the first or another, does not affect the others."""
        for leaver in range(3):
            cache = self.cache = BoardCache(self.source, self.clock)
            waiting = [self.wait("joined" if n else "miss") for n in range(3)]
            waiting[leaver].cancel()
            self.failureResultOf(waiting.pop(leaver), CancelledError)
            waiting.append(self.wait("joined"))
            self.source.results[-1].callback(self.board())
            for each in waiting:
                self.assertIs(self.successResultOf(each), cache.board(CODE)[1])
        self.assertEqual(self.source.requested, [CODE] * 3)

    def test_all_waiters_leave(self) -> None:
        """The request continues without waiters, and its board is stored."""
        for waiting in (self.wait("miss"), self.wait("joined")):
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
        self.assertFalse(self.source.results[0].called)
        board = self.board()
        self.source.results[0].callback(board)
        self.assertIs(self.cached("hit").board, board)

    def test_join_after_all_waiters_left(self) -> None:
        """A miss joins a pending request without waiters."""
        waiting = self.wait("miss")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        waiting = self.wait("joined")
        self.source.results[0].callback(self.board())
        self.assertIs(self.successResultOf(waiting), self.cached("hit"))

    def test_failure_without_waiters(self) -> None:
        """A failure without waiters is not logged as an error."""
        waiting = self.wait("miss")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.source.results.pop().errback(SourceSilent("no callback within 10 s"))
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_cancel_after_the_board(self) -> None:
        """Cancelling a wait after the board has no effect."""
        waiting = self.wait("miss")
        self.source.results[0].callback(self.board())
        waiting.cancel()
        self.assertIs(self.successResultOf(waiting), self.cached("hit"))

    def test_waiter_cancels_another(self) -> None:
        """A waiter that cancels another does not affect the rest."""
        first, second, third = self.wait("miss"), self.wait("joined"), self.wait("joined")
        first.addCallback(lambda _: second.cancel())
        self.source.results[0].callback(self.board())
        self.failureResultOf(second, CancelledError)
        self.assertIs(self.successResultOf(third), self.cached("hit"))

    def test_failing_waiter(self) -> None:
        """An exception of a waiter does not reach the others."""
        first, second = self.wait("miss"), self.wait("joined")
        first.addCallback(lambda _: 1 / 0)
        self.source.results[0].callback(self.board())
        self.assertIs(self.successResultOf(second), self.cached("hit"))
        self.failureResultOf(first, ZeroDivisionError)

    def test_request_from_a_waiter(self) -> None:
        """A request from a waiter is a hit after a board, and a new request after a failure."""
        for fails, result, requests in ((False, "hit", 1), (True, "miss", 2)):
            self.source = FakeSource()
            self.cache = BoardCache(self.source, self.clock)
            again: list[str] = []

            def request_again(_: object, again: list[str] = again) -> None:
                again.append(self.cache.board(CODE)[0])

            waiting = self.wait("miss").addBoth(request_again)
            if fails:
                self.source.results[0].errback(SourceSilent("no callback within 10 s"))
            else:
                self.source.results[0].callback(self.board())
            self.successResultOf(waiting)
            self.assertEqual(again, [result])
            self.assertEqual(len(self.source.requested), requests)


class FailureTests(CacheTestCase):
    """Failures of the source."""

    def test_errors_reach_the_waiters(self) -> None:
        """The error of the source reaches the waiter, and is not logged."""
        for failure in (SourceSilent("a"), SourceUnreachable("b"), SourceBroken("c"), NoBoard("d")):
            waiting = self.wait("miss")
            self.source.results[-1].errback(failure)
            self.assertIs(self.failureResultOf(waiting, NoBoard).value, failure)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_request_after_a_failure(self) -> None:
        """After a failure the next miss is a new request."""
        waiting = self.wait("miss")
        self.source.results[0].errback(SourceUnreachable("refused"))
        self.failureResultOf(waiting, SourceUnreachable)
        waiting = self.wait("miss")
        self.assertEqual(self.source.requested, [CODE, CODE])
        self.source.results[1].callback(self.board())
        self.assertIs(self.successResultOf(waiting), self.cached("hit"))

    def test_immediate_failure(self) -> None:
        """A source may fail immediately, as an open circuit breaker does."""
        self.source.immediate = SourceUnreachable("refused")
        for requests in (1, 2):
            self.failureResultOf(self.wait("miss"), SourceUnreachable)
            self.assertEqual(len(self.source.requested), requests)

    def test_stale_board_of_a_failing_source(self) -> None:
        """While the source fails a stale board is served, and each time a refresh is requested."""
        old = self.cache.put(self.board(age=100))
        for requests in (1, 2, 3):
            self.assertIs(self.cached("stale"), old)
            self.source.results[-1].errback(SourceUnreachable("refused"))
            self.assertEqual(len(self.source.requested), requests)
        self.source.results.clear()
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_stale_board_with_immediate_failure(self) -> None:
        """A stale board is served while the refresh fails immediately."""
        old = self.cache.put(self.board(age=100))
        self.source.immediate = SourceUnreachable("refused")
        for _ in range(2):
            self.assertIs(self.cached("stale"), old)

    def test_late_board_after_a_failure(self) -> None:
        """When the source fails, a board that arrived meanwhile serves all waiters."""
        first, second = self.wait("miss"), self.wait("joined")
        self.source.publish(self.board())
        self.source.results[0].errback(SourceSilent("no callback within 10 s"))
        entry = self.cached("hit")
        self.assertIs(self.successResultOf(first), entry)
        self.assertIs(self.successResultOf(second), entry)

    def test_fallback_ages(self) -> None:
        """When the source fails, a board is served up to its stale limit; one from the future is not."""
        for age, serves in ((0, True), (60.5, True), (300, True), (300.5, False), (-0.5, False)):
            self.source = FakeSource()
            self.cache = BoardCache(self.source, self.clock)
            waiting = self.wait("miss")
            board = self.board(age=age)
            self.cache.put(board)
            self.source.results[0].errback(SourceSilent("no callback within 10 s"))
            if serves:
                self.assertIs(self.successResultOf(waiting).board, board, age)
            else:
                self.failureResultOf(waiting, SourceSilent)

    def test_source_raises(self) -> None:
        """A source that raises an exception is called again by the next miss."""

        def board(code: str) -> Deferred[Board]:
            raise ZeroDivisionError

        self.source.board = board  # type: ignore[method-assign]  # no other double raises
        for _ in range(2):
            self.failureResultOf(self.wait("miss"), ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_board_expires_while_waiting(self) -> None:
        """A board that becomes too old during a request does not serve the waiters."""
        self.cache.put(self.board(age=295))
        self.cached("stale")
        self.clock.advance(6)
        waiting = self.wait("joined")
        self.source.results[0].errback(SourceSilent("no callback within 10 s"))
        self.failureResultOf(waiting, SourceSilent)

    def test_unexpected_error(self) -> None:
        """An exception other than NoBoard reaches each waiter, and is logged once."""
        for immediate in (False, True):
            self.source.immediate = ZeroDivisionError("a fault") if immediate else None
            waiting = [self.wait("miss")] if immediate else [self.wait("miss"), self.wait("joined")]
            if not immediate:
                self.source.results[-1].errback(ZeroDivisionError("a fault"))
            for each in waiting:
                self.failureResultOf(each, ZeroDivisionError)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unexpected_error_while_stale(self) -> None:
        """An exception without waiters is logged once, and the stale board is served."""
        self.cache.put(self.board(age=100))
        self.cached("stale")
        self.source.results.pop().errback(ZeroDivisionError("a fault"))
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.cached("stale")

    def test_no_pending_entries_remain(self) -> None:
        """Completed requests leave no pending entries."""
        served, joined, failed = self.wait("miss", "1"), self.wait("joined", "1"), self.wait("miss", "2")
        abandoned, abandoned_and_failed = self.wait("miss", "3"), self.wait("miss", "4")
        for waiting in (abandoned, abandoned_and_failed):
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
        self.cache.put(self.board("5", age=100))
        self.cached("stale", "5")
        for code, result in zip("12345", self.source.results, strict=True):
            if code in "135":
                result.callback(self.board(code))
            else:
                result.errback(SourceSilent("no callback within 10 s"))
        self.assertIs(self.successResultOf(served), self.successResultOf(joined))
        self.failureResultOf(failed, SourceSilent)
        self.assertEqual(self.cache._pending, {})


class BoundsTests(CacheTestCase):
    """The bounds of the cache: the least recently used board is evicted."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(Board, "size", 0)  # so that only forms count: see BoardSizeTests

    def limit(self, **limits: int) -> None:
        self.cache = BoardCache(self.source, self.clock, CacheSettings(**limits))

    def results(self, *codes: str) -> str:
        """Return the first letter of each stop's result, in order: hit, stale or miss."""
        return "".join(self.cache.board(code)[0][0] for code in codes)

    def render(self, entry: Entry, size: int, form: object = "form") -> None:
        """Render an entry as a body of this many bytes."""
        body = self.cache.rendered(entry, form, lambda board: b"." * size)
        self.assertEqual(len(body), size)

    def test_entries_are_bounded(self) -> None:
        """The number of boards is bounded, and the oldest is evicted."""
        self.limit(entries=3)
        for code in "abcd":
            self.cache.put(self.board(code))
        self.assertEqual(self.results(*"abcd"), "mhhh")

    def test_used_board_is_not_evicted(self) -> None:
        """A board that was served is evicted later, fresh or stale."""
        for age, result in ((0, "hit"), (100, "stale")):
            self.limit(entries=3)
            for code in "abc":
                self.cache.put(self.board(code, age))
            self.cached(result, "a")
            self.cache.put(self.board("d", age))
            self.assertEqual(self.results(*"bacd"), "m" + 3 * result[0])

    def test_replaced_board_is_used(self) -> None:
        """A board that is replaced counts as used, and is one entry."""
        self.limit(entries=3)
        for code in "abcaaad":
            self.cache.put(self.board(code))
        self.assertEqual(self.results(*"bacd"), "mhhh")

    def test_bytes_are_bounded(self) -> None:
        """The bytes of rendered forms are bounded; the least recently used board is evicted with all its forms."""
        self.limit(bytes=100)
        for code in "abc":
            self.render(self.cache.put(self.board(code)), 40)
        self.assertEqual(self.results(*"abc"), "mhh")

    def test_used_forms_are_not_evicted(self) -> None:
        """The forms of a board that was served are evicted later."""
        self.limit(bytes=100)
        for code in "ab":
            self.render(self.cache.put(self.board(code)), 40)
        self.cached("hit", "a")
        self.render(self.cache.put(self.board("c")), 40)
        self.assertEqual(self.results(*"bac"), "mhh")

    def test_each_form_counts_once(self) -> None:
        """Each form of a board counts once."""
        self.limit(bytes=100)
        self.render(self.cache.put(self.board("a")), 20)
        entry = self.cache.put(self.board("b"))
        for form in ("xml", "xml", "json", "xml"):
            self.render(entry, 40, form)
        self.assertEqual(self.results(*"ab"), "hh")
        self.render(entry, 1, "text")
        self.assertEqual(self.results(*"ab"), "mh")

    def test_bytes_of_removed_boards(self) -> None:
        """The forms of a board that was replaced or removed no longer count."""
        self.limit(bytes=100, entries=2)
        for _ in range(10):
            self.render(self.cache.put(self.board("a")), 50)
        self.render(self.cache.put(self.board("b")), 50)
        self.assertEqual(self.results(*"ab"), "hh")
        self.cache.put(self.board("c"))  # for a
        self.render(self.cache.put(self.board("d")), 100)  # for b
        self.assertEqual(self.results(*"abcd"), "mmhh")

    def test_removed_entry_does_not_count(self) -> None:
        """An entry that was removed or replaced can be rendered, and does not count."""
        self.limit(bytes=100, entries=2)
        removed = [self.cache.put(self.board("a")), self.cache.put(self.board("b"))]
        self.cache.put(self.board("b"))
        self.render(self.cache.put(self.board("c")), 100)
        for entry in removed:
            self.render(entry, 90)
        self.assertEqual(self.results(*"abc"), "mhh")

    def test_too_large_form(self) -> None:
        """A form that is larger than the limit is returned and not stored."""
        self.limit(bytes=100)
        self.render(self.cache.put(self.board("b")), 100)
        self.render(self.cache.put(self.board("a")), 101)
        self.cached("hit", "a")
        self.cached("hit", "b")

    def test_expired_boards_are_removed(self) -> None:
        """A board that is too old is removed when a newer one is stored."""
        for code in "123":
            self.cache.put(self.board(code))
        self.clock.advance(301)
        self.cache.put(self.board("4"))
        self.assertEqual(list(self.cache._entries), ["4"])

    def test_entry_is_evicted_while_waiters_are_served(self) -> None:
        """All waiters get the entry, even if the first evicts it."""
        self.limit(entries=1)
        first, second = self.wait("miss"), self.wait("joined")
        first.addCallback(lambda _: self.cache.put(self.board("1")))
        board = self.board()
        self.source.results[0].callback(board)
        self.assertIs(self.successResultOf(second).board, board)
        self.wait("miss")


class BoardSizeTests(CacheTestCase):
    """The bytes of boards, which count as those of their renderings do."""

    def long_board(self, code: str, characters: int = 10_000) -> Board:
        return Board(code, (Trip(destination_name="x" * characters, extra=("<y/>" * 10,)),), self.clock.seconds())

    def test_size_is_that_in_memory(self) -> None:
        """The size of a board includes every text of its trips and its envelope, and each trip."""
        size = self.long_board("1").size
        for larger in (
            Board("1", self.long_board("1").trips, NOW, (("SequenceNumber", "x" * 1000),)),
            Board("1", (*self.long_board("1").trips, *[Trip()] * 10), NOW),
            Board("1", (Trip(destination_name="x" * 10_000, extra=("<y/>" * 300,)),), NOW),
            Board("1", (Trip(destination_name="\u0416" + "x" * 10_000, extra=("<y/>" * 10,)),), NOW),
        ):
            self.assertGreater(larger.size, size + 1000)

    def test_limits_hold_before_insertion(self) -> None:
        """At no time are there more bytes or entries than the limits, whatever is stored or rendered."""
        self.cache = BoardCache(self.source, self.clock, CacheSettings(bytes=50_000, entries=6))
        seen: list[tuple[int, int]] = []

        class Entries(OrderedDict[str, Entry]):
            def __setitem__(inner, code: str, entry: Entry) -> None:
                seen.append((self.cache.bytes + entry.size, len(inner) + 1))
                super().__setitem__(code, entry)

        self.cache._entries = Entries()
        for n in range(50):
            entry = self.cache.put(self.long_board(str(n), n * 1000))
            self.cache.rendered(entry, "form", lambda board: b"." * board.size)
            total = sum(entry.size for entry in self.cache._entries.values())
            self.assertEqual(self.cache.bytes, total)
            seen.append((total, len(self.cache._entries)))
            self.assertEqual(entry.is_current, str(n) in self.cache._entries)
        self.assertLessEqual(max(size for size, _ in seen), 50_000)
        self.assertEqual(max(entries for _, entries in seen), 6)

    def test_too_large_board_is_served_and_not_stored(self) -> None:
        """A board larger than the cache is served to those that wait for it, and evicts no others."""
        self.cache = BoardCache(self.source, self.clock, CacheSettings(bytes=20_000))
        self.cache.put(self.long_board("2"))
        waiting = self.wait("miss")
        board = self.long_board(CODE, 30_000)
        self.source.results[0].callback(board)
        entry = self.successResultOf(waiting)
        self.assertIs(entry.board, board)
        self.assertEqual(self.cache.rendered(entry, "form", lambda board: b"x"), b"x")
        self.assertEqual((list(self.cache._entries), entry.is_current), (["2"], False))

    def test_expired_entry_is_rendered(self) -> None:
        """Rendering an entry that has expired removes it, and counts nothing."""
        entry = self.cache.put(self.long_board("1"))
        self.clock.advance(301)
        self.cache.rendered(entry, "form", lambda board: b"x")
        self.assertEqual((self.cache.entries, self.cache.bytes), (0, 0))


class RenderedTests(CacheTestCase):
    """The rendered forms of a board."""

    def setUp(self) -> None:
        super().setUp()
        self.renders: list[Board] = []

    def render(self, board: Board) -> bytes:
        self.renders.append(board)
        return b"%d" % len(self.renders)

    def test_rendered_once_per_form(self) -> None:
        """A board is rendered once in each form; keys may be of any type."""
        entry = self.cache.put(self.board())
        for _ in range(3):
            for form, body in (("xml", b"1"), (("xml", "gzip"), b"2"), (self, b"3")):
                self.assertEqual(self.cache.rendered(entry, form, self.render), body)
        self.assertEqual(self.renders, [entry.board] * 3)

    def test_empty_form(self) -> None:
        """An empty form is stored as well."""
        entry = self.cache.put(self.board())
        for _ in range(2):
            self.cache.rendered(entry, "empty", lambda board: self.render(board)[:0])
        self.assertEqual(len(self.renders), 1)

    def test_new_board(self) -> None:
        """A new board is rendered again; the old entry retains its forms."""
        old = self.cache.put(self.board())
        self.assertEqual(self.cache.rendered(old, "xml", self.render), b"1")
        new = self.cache.put(self.board(trips=2))
        self.assertEqual(self.cache.rendered(new, "xml", self.render), b"2")
        self.assertEqual(self.cache.rendered(old, "xml", self.render), b"1")
        self.assertEqual(self.renders, [old.board, new.board])

    def test_failing_render(self) -> None:
        """A rendering that fails is not stored."""
        entry = self.cache.put(self.board())
        with self.assertRaises(ZeroDivisionError):
            self.cache.rendered(entry, "xml", lambda board: b"." * (1 // 0))
        self.assertEqual(self.cache.rendered(entry, "xml", self.render), b"1")


class OperatorTests(CacheTestCase):
    """The commands of operators."""

    def test_peek(self) -> None:
        """peek() never sends a request, regardless of the board's age."""
        self.assertIsNone(self.cache.peek(CODE))
        entry = self.cache.put(self.board(age=1000))
        self.cache.put(self.board(code="1"))
        self.assertIsNone(self.cache.peek(CODE))  # too old: removed when another board was stored
        entry = self.cache.put(self.board())
        self.assertIs(self.cache.peek(CODE), entry)
        self.assertEqual(self.source.requested, [])

    def test_purge(self) -> None:
        """A purged stop is requested again, and its forms no longer count."""
        entry = self.cache.put(self.board())
        self.cache.rendered(entry, "form", lambda board: b"12345")
        self.assertTrue(self.cache.purge(CODE))
        self.assertEqual((self.cache.entries, self.cache.bytes), (0, 0))
        self.assertFalse(self.cache.purge(CODE))
        self.wait("miss")
