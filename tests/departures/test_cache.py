"""The cache of boards: what it serves, who waits for what, and what it forgets."""

import gc

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from govi_server.departures.board import Board, Trip
from govi_server.departures.cache import CACHE_DEFAULTS, BoardCache, Entry
from govi_server.departures.source import IDepartureSource, NoBoard, SourceBroken, SourceSilent, SourceUnreachable
from govi_server.settings import CacheSettings
from tests.doubles import FakeSource

NOW = 1_000_000.0
CODE = "57330430"


class DoubleTests(SynchronousTestCase):
    """The source of these tests."""

    def test_provides(self) -> None:
        """The double has what a source has."""
        verifyObject(IDepartureSource, FakeSource())


class CacheTestCase(SynchronousTestCase):
    """A cache over a source that the test answers for."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.source = FakeSource()
        self.cache = BoardCache(self.source, self.clock)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def board(self, code: str = CODE, age: float = 0.0, trips: int = 1) -> Board:
        """Make a board of an age."""
        return Board(code, (Trip(),) * trips, self.clock.seconds() - age)

    def wait(self, result: str, code: str = CODE) -> Deferred[Entry]:
        """Ask for a stop that has to be waited for."""
        told, found = self.cache.board(code)
        self.assertEqual(told, result)
        assert isinstance(found, Deferred)
        return found

    def look(self, result: str, code: str = CODE) -> Entry:
        """Ask for a stop that is there."""
        told, found = self.cache.board(code)
        self.assertEqual(told, result)
        assert isinstance(found, Entry)
        return found


class LookUpTests(CacheTestCase):
    """Hit, stale, joined and miss."""

    def test_defaults(self) -> None:
        """A board is fresh for a minute, and served stale up to five."""
        self.assertEqual((CACHE_DEFAULTS.fresh, CACHE_DEFAULTS.stale), (60.0, 300.0))
        self.assertIs(self.cache.limits, CACHE_DEFAULTS)

    def test_miss(self) -> None:
        """A stop that is not there is asked for, and its board comes when the source has it."""
        waiting = self.wait("miss")
        self.assertNoResult(waiting)
        self.assertEqual(self.source.asked, [CODE])
        board = self.board()
        self.source.answers[0].callback(board)
        self.assertIs(self.successResultOf(waiting).board, board)

    def test_hit(self) -> None:
        """What has come once is served again and again without a question."""
        waiting = self.wait("miss")
        self.source.answers[0].callback(self.board())
        entry = self.successResultOf(waiting)
        for _ in range(3):
            self.assertIs(self.look("hit"), entry)
        self.assertEqual(self.source.asked, [CODE])

    def test_joined(self) -> None:
        """Who asks while the question is on its way waits for the same answer."""
        first, second = self.wait("miss"), self.wait("joined")
        self.assertIsNot(first, second)
        self.assertEqual(self.source.asked, [CODE])
        self.source.answers[0].callback(self.board())
        self.assertIs(self.successResultOf(first), self.successResultOf(second))

    def test_stale(self) -> None:
        """A stale board is served at once while exactly one question for a newer one is on its way."""
        old = self.cache.put(self.board(age=100))
        for _ in range(5):
            self.assertIs(self.look("stale"), old)
        self.assertEqual(self.source.asked, [CODE])
        new = self.board()
        self.source.answers[0].callback(new)
        self.assertIs(self.look("hit").board, new)
        self.assertEqual(self.source.asked, [CODE])

    def test_too_old_joins(self) -> None:
        """Who asks when the board has become too old joins the question that was asked while it was stale."""
        self.cache.put(self.board(age=299))
        self.look("stale")
        self.clock.advance(5)
        waiting = self.wait("joined")
        self.assertEqual(self.source.asked, [CODE])
        self.source.answers[0].callback(self.board())
        self.assertEqual(self.cache.age(self.successResultOf(waiting)), 0)

    def test_ages(self) -> None:
        """The limits belong to what they limit, and a board from the future is not served as fresh."""
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
            self.assertEqual(source.asked, [] if result == "hit" else [CODE], age)

    def test_fresh_is_all(self) -> None:
        """Where stale is as long as fresh nothing is served stale."""
        self.cache = BoardCache(self.source, self.clock, CacheSettings(fresh=60, stale=60))
        self.cache.put(self.board(age=60))
        self.look("hit")
        self.clock.advance(0.5)
        self.wait("miss")

    def test_clock_set_back(self) -> None:
        """After the clock was set back a stop is asked for anew, and the new board is served."""
        self.cache.put(self.board())
        self.clock.advance(-3600)
        waiting = self.wait("miss")
        self.source.answers[0].callback(self.board())
        self.assertIs(self.look("hit"), self.successResultOf(waiting))

    def test_stops_apart(self) -> None:
        """Stops do not share boards or questions, also where only leading zeros tell them apart."""
        codes = ("31102", "031102", "0031102")
        waiting = [self.wait("miss", code) for code in codes]
        self.assertEqual(self.source.asked, list(codes))
        for code, answer in zip(codes, self.source.answers, strict=True):
            answer.callback(self.board(code))
        self.assertEqual([self.successResultOf(each).board.code for each in waiting], list(codes))

    def test_at_once(self) -> None:
        """A source may answer before it has returned."""
        self.source.at_once = self.board()
        self.assertIs(self.successResultOf(self.wait("miss")).board, self.source.at_once)
        self.look("hit")

    def test_stale_answered_at_once(self) -> None:
        """A source that answers at once while a board is stale has answered the next one who asks."""
        old = self.cache.put(self.board(age=100))
        self.source.at_once = self.board()
        self.assertIs(self.look("stale"), old)
        self.assertIs(self.look("hit").board, self.source.at_once)

    def test_heard(self) -> None:
        """A board that comes when nobody waits for it is kept, and is a hit."""
        board = self.board()
        self.source.tell(board)
        self.assertIs(self.look("hit").board, board)
        self.assertEqual(self.source.asked, [])

    def test_heard_while_flying(self) -> None:
        """A board that is heard while another is on its way serves those who wait, and the next one who asks."""
        waiting = self.wait("miss")
        heard, asked = self.board(), self.board(trips=2)
        self.source.tell(heard)
        self.assertIs(self.successResultOf(waiting).board, heard)
        self.assertIs(self.look("hit").board, heard)
        self.source.answers[0].callback(asked)
        self.assertIs(self.look("hit").board, asked)


class WaitingTests(CacheTestCase):
    """Many who wait for one answer, and some who leave."""

    def test_two_hundred(self) -> None:
        """Two hundred who want a cold stop cause one question and get the same entry."""
        waiting = [self.wait("joined" if n else "miss") for n in range(200)]
        self.assertEqual(self.source.asked, [CODE])
        self.source.answers[0].callback(self.board())
        entry = self.look("hit")
        for each in waiting:
            self.assertIs(self.successResultOf(each), entry)

    def test_two_hundred_fail(self) -> None:
        """A failure reaches everybody who waits, once."""
        waiting = [self.wait("joined" if n else "miss") for n in range(200)]
        failure = SourceSilent("no answer within 10 s")
        self.source.answers[0].errback(failure)
        for each in waiting:
            self.assertIs(self.failureResultOf(each, SourceSilent).value, failure)

    def test_one_leaves(self) -> None:
        """One who leaves, the first or another, leaves the answer to the others."""
        for leaver in range(3):
            cache = self.cache = BoardCache(self.source, self.clock)
            waiting = [self.wait("joined" if n else "miss") for n in range(3)]
            waiting[leaver].cancel()
            self.failureResultOf(waiting.pop(leaver), CancelledError)
            waiting.append(self.wait("joined"))
            self.source.answers[-1].callback(self.board())
            for each in waiting:
                self.assertIs(self.successResultOf(each), cache.board(CODE)[1])
        self.assertEqual(self.source.asked, [CODE] * 3)

    def test_all_leave(self) -> None:
        """When the last one leaves the question goes on, and its board is kept."""
        for waiting in (self.wait("miss"), self.wait("joined")):
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
        self.assertFalse(self.source.answers[0].called)
        board = self.board()
        self.source.answers[0].callback(board)
        self.assertIs(self.look("hit").board, board)

    def test_joins_after_all_left(self) -> None:
        """Who comes after all have left joins the question that is still on its way."""
        waiting = self.wait("miss")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        waiting = self.wait("joined")
        self.source.answers[0].callback(self.board())
        self.assertIs(self.successResultOf(waiting), self.look("hit"))

    def test_all_leave_and_it_fails(self) -> None:
        """A failure that nobody waits for is nobody's error."""
        waiting = self.wait("miss")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.source.answers.pop().errback(SourceSilent("no answer within 10 s"))
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_leaves_after_the_answer(self) -> None:
        """Who leaves when the answer has come disturbs nothing."""
        waiting = self.wait("miss")
        self.source.answers[0].callback(self.board())
        waiting.cancel()
        self.assertIs(self.successResultOf(waiting), self.look("hit"))

    def test_one_makes_another_leave(self) -> None:
        """When what one does with the answer makes another leave, the others still get it."""
        first, second, third = self.wait("miss"), self.wait("joined"), self.wait("joined")
        first.addCallback(lambda _: second.cancel())
        self.source.answers[0].callback(self.board())
        self.failureResultOf(second, CancelledError)
        self.assertIs(self.successResultOf(third), self.look("hit"))

    def test_one_errs(self) -> None:
        """An error in what one does with the answer does not reach the others."""
        first, second = self.wait("miss"), self.wait("joined")
        first.addCallback(lambda _: 1 / 0)
        self.source.answers[0].callback(self.board())
        self.assertIs(self.successResultOf(second), self.look("hit"))
        self.failureResultOf(first, ZeroDivisionError)

    def test_asks_again_at_once(self) -> None:
        """Who asks again on getting the answer gets a hit, and on getting a failure a new question."""
        for fails, result, asked in ((False, "hit", 1), (True, "miss", 2)):
            self.source = FakeSource()
            self.cache = BoardCache(self.source, self.clock)
            again: list[str] = []

            def ask_again(_: object, again: list[str] = again) -> None:
                again.append(self.cache.board(CODE)[0])

            waiting = self.wait("miss").addBoth(ask_again)
            if fails:
                self.source.answers[0].errback(SourceSilent("no answer within 10 s"))
            else:
                self.source.answers[0].callback(self.board())
            self.successResultOf(waiting)
            self.assertEqual(again, [result])
            self.assertEqual(len(self.source.asked), asked)


class FailureTests(CacheTestCase):
    """When the source has no board."""

    def test_reasons(self) -> None:
        """Whatever the source says why there is no board is what who waits gets, and is no error of ours."""
        for failure in (SourceSilent("a"), SourceUnreachable("b"), SourceBroken("c"), NoBoard("d")):
            waiting = self.wait("miss")
            self.source.answers[-1].errback(failure)
            self.assertIs(self.failureResultOf(waiting, NoBoard).value, failure)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_asked_again(self) -> None:
        """After a failure the next one who wants the stop is asked for again."""
        waiting = self.wait("miss")
        self.source.answers[0].errback(SourceUnreachable("refused"))
        self.failureResultOf(waiting, SourceUnreachable)
        waiting = self.wait("miss")
        self.assertEqual(self.source.asked, [CODE, CODE])
        self.source.answers[1].callback(self.board())
        self.assertIs(self.successResultOf(waiting), self.look("hit"))

    def test_at_once(self) -> None:
        """A source may fail before it has returned, as an open circuit breaker does."""
        self.source.at_once = SourceUnreachable("refused")
        for asked in (1, 2):
            self.failureResultOf(self.wait("miss"), SourceUnreachable)
            self.assertEqual(len(self.source.asked), asked)

    def test_stale_goes_on(self) -> None:
        """While the source fails a stale board is served on, and each time a newer one is asked for."""
        old = self.cache.put(self.board(age=100))
        for asked in (1, 2, 3):
            self.assertIs(self.look("stale"), old)
            self.source.answers[-1].errback(SourceUnreachable("refused"))
            self.assertEqual(len(self.source.asked), asked)
        self.source.answers.clear()
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_stale_failing_at_once(self) -> None:
        """A stale board is served by a source that fails before it has returned."""
        old = self.cache.put(self.board(age=100))
        self.source.at_once = SourceUnreachable("refused")
        for _ in range(2):
            self.assertIs(self.look("stale"), old)

    def test_heard_board_serves(self) -> None:
        """When the source fails, a board that was heard meanwhile serves everybody who waited."""
        first, second = self.wait("miss"), self.wait("joined")
        self.source.tell(self.board())
        self.source.answers[0].errback(SourceSilent("no answer within 10 s"))
        entry = self.look("hit")
        self.assertIs(self.successResultOf(first), entry)
        self.assertIs(self.successResultOf(second), entry)

    def test_fallback_ages(self) -> None:
        """When the source fails, a board serves up to its stale limit, and none from the future does."""
        for age, serves in ((0, True), (60.5, True), (300, True), (300.5, False), (-0.5, False)):
            self.source = FakeSource()
            self.cache = BoardCache(self.source, self.clock)
            waiting = self.wait("miss")
            board = self.board(age=age)
            self.cache.put(board)
            self.source.answers[0].errback(SourceSilent("no answer within 10 s"))
            if serves:
                self.assertIs(self.successResultOf(waiting).board, board, age)
            else:
                self.failureResultOf(waiting, SourceSilent)

    def test_source_raises(self) -> None:
        """A source that raises instead of failing is asked again by the next who wants the stop."""

        def board(code: str) -> Deferred[Board]:
            raise ZeroDivisionError

        self.source.board = board  # type: ignore[method-assign]  # no other double raises
        for _ in range(2):
            self.failureResultOf(self.wait("miss"), ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_too_old_meanwhile(self) -> None:
        """A board that becomes too old while the question is on its way does not serve who joined."""
        self.cache.put(self.board(age=295))
        self.look("stale")
        self.clock.advance(6)
        waiting = self.wait("joined")
        self.source.answers[0].errback(SourceSilent("no answer within 10 s"))
        self.failureResultOf(waiting, SourceSilent)

    def test_other_error(self) -> None:
        """An error that is no NoBoard reaches everybody who waits, and is logged once."""
        for at_once in (False, True):
            self.source.at_once = ZeroDivisionError("a fault") if at_once else None
            waiting = [self.wait("miss")] if at_once else [self.wait("miss"), self.wait("joined")]
            if not at_once:
                self.source.answers[-1].errback(ZeroDivisionError("a fault"))
            for each in waiting:
                self.failureResultOf(each, ZeroDivisionError)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_other_error_while_stale(self) -> None:
        """An error that nobody waits for is logged once, and the stale board is served on."""
        self.cache.put(self.board(age=100))
        self.look("stale")
        self.source.answers.pop().errback(ZeroDivisionError("a fault"))
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.look("stale")

    def test_nothing_left_behind(self) -> None:
        """When every question has got its answer or failure, nothing of them is left."""
        answered, joined, failed = self.wait("miss", "1"), self.wait("joined", "1"), self.wait("miss", "2")
        left, left_and_failed = self.wait("miss", "3"), self.wait("miss", "4")
        for waiting in (left, left_and_failed):
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
        self.cache.put(self.board("5", age=100))
        self.look("stale", "5")
        for code, answer in zip("12345", self.source.answers, strict=True):
            if code in "135":
                answer.callback(self.board(code))
            else:
                answer.errback(SourceSilent("no answer within 10 s"))
        self.assertIs(self.successResultOf(answered), self.successResultOf(joined))
        self.failureResultOf(failed, SourceSilent)
        self.assertEqual(self.cache._pending, {})


class BoundsTests(CacheTestCase):
    """What the cache forgets: the least recently used."""

    def limit(self, **limits: int) -> None:
        self.cache = BoardCache(self.source, self.clock, CacheSettings(**limits))

    def kept(self, *codes: str) -> str:
        """Tell the first letter of what each stop is, oldest question first: hit, stale or miss."""
        return "".join(self.cache.board(code)[0][0] for code in codes)

    def render(self, entry: Entry, size: int, form: object = "form") -> None:
        """Render an entry in so many bytes."""
        made = self.cache.rendered(entry, form, lambda board: b"." * size)
        self.assertEqual(len(made), size)

    def test_entries(self) -> None:
        """There are no more boards than the limit, and the oldest goes first."""
        self.limit(entries=3)
        for code in "abcd":
            self.cache.put(self.board(code))
        self.assertEqual(self.kept(*"abcd"), "mhhh")

    def test_use_keeps(self) -> None:
        """A board that is served stays longer than one that is not, fresh or stale."""
        for age, result in ((0, "hit"), (100, "stale")):
            self.limit(entries=3)
            for code in "abc":
                self.cache.put(self.board(code, age))
            self.look(result, "a")
            self.cache.put(self.board("d", age))
            self.assertEqual(self.kept(*"bacd"), "m" + 3 * result[0])

    def test_put_keeps(self) -> None:
        """A board that is replaced is as good as used, and takes no second place."""
        self.limit(entries=3)
        for code in "abcaaad":
            self.cache.put(self.board(code))
        self.assertEqual(self.kept(*"bacd"), "mhhh")

    def test_bytes(self) -> None:
        """What is rendered counts, and the least recently used board goes first with all its forms."""
        self.limit(bytes=100)
        for code in "abc":
            self.render(self.cache.put(self.board(code)), 40)
        self.assertEqual(self.kept(*"abc"), "mhh")

    def test_bytes_use_keeps(self) -> None:
        """A board that is served keeps its renderings longer than one that is not."""
        self.limit(bytes=100)
        for code in "ab":
            self.render(self.cache.put(self.board(code)), 40)
        self.look("hit", "a")
        self.render(self.cache.put(self.board("c")), 40)
        self.assertEqual(self.kept(*"bac"), "mhh")

    def test_bytes_of_forms(self) -> None:
        """Every form of a board counts, once."""
        self.limit(bytes=100)
        self.render(self.cache.put(self.board("a")), 20)
        entry = self.cache.put(self.board("b"))
        for form in ("xml", "xml", "json", "xml"):
            self.render(entry, 40, form)
        self.assertEqual(self.kept(*"ab"), "hh")
        self.render(entry, 1, "text")
        self.assertEqual(self.kept(*"ab"), "mh")

    def test_bytes_come_back(self) -> None:
        """What was rendered of a board that is replaced or goes counts no more."""
        self.limit(bytes=100, entries=2)
        for _ in range(10):
            self.render(self.cache.put(self.board("a")), 50)
        self.render(self.cache.put(self.board("b")), 50)
        self.assertEqual(self.kept(*"ab"), "hh")
        self.cache.put(self.board("c"))  # for a
        self.render(self.cache.put(self.board("d")), 100)  # for b
        self.assertEqual(self.kept(*"abcd"), "mmhh")

    def test_gone_entry(self) -> None:
        """An entry that somebody still holds when it has gone or was replaced is rendered, and does not count."""
        self.limit(bytes=100, entries=2)
        gone = [self.cache.put(self.board("a")), self.cache.put(self.board("b"))]
        self.cache.put(self.board("b"))
        self.render(self.cache.put(self.board("c")), 100)
        for entry in gone:
            self.render(entry, 90)
        self.assertEqual(self.kept(*"abc"), "mhh")

    def test_larger_than_all(self) -> None:
        """A rendering that is larger than the limit is given and not kept, and the cache goes on."""
        self.limit(bytes=100)
        self.render(self.cache.put(self.board("b")), 100)
        self.render(self.cache.put(self.board("a")), 101)
        self.look("hit", "a")
        self.look("hit", "b")

    def test_too_old(self) -> None:
        """What is too old to be served is let go of when something newer comes."""
        for code in "123":
            self.cache.put(self.board(code))
        self.clock.advance(301)
        self.cache.put(self.board("4"))
        self.assertEqual(list(self.cache._entries), ["4"])

    def test_waiting_for_what_is_forgotten(self) -> None:
        """Everybody who waits gets the entry, though what one does with it throws it out."""
        self.limit(entries=1)
        first, second = self.wait("miss"), self.wait("joined")
        first.addCallback(lambda _: self.cache.put(self.board("1")))
        board = self.board()
        self.source.answers[0].callback(board)
        self.assertIs(self.successResultOf(second).board, board)
        self.wait("miss")


class RenderedTests(CacheTestCase):
    """The renderings beside a board."""

    def setUp(self) -> None:
        super().setUp()
        self.renders: list[Board] = []

    def render(self, board: Board) -> bytes:
        self.renders.append(board)
        return b"%d" % len(self.renders)

    def test_once_per_form(self) -> None:
        """A board is rendered once in each form, whatever a form is."""
        entry = self.cache.put(self.board())
        for _ in range(3):
            for form, made in (("xml", b"1"), (("xml", "gzip"), b"2"), (self, b"3")):
                self.assertEqual(self.cache.rendered(entry, form, self.render), made)
        self.assertEqual(self.renders, [entry.board] * 3)

    def test_empty(self) -> None:
        """A rendering without a byte is one too."""
        entry = self.cache.put(self.board())
        for _ in range(2):
            self.cache.rendered(entry, "empty", lambda board: self.render(board)[:0])
        self.assertEqual(len(self.renders), 1)

    def test_new_board(self) -> None:
        """A new board is rendered anew, and the old entry keeps what it has."""
        old = self.cache.put(self.board())
        self.assertEqual(self.cache.rendered(old, "xml", self.render), b"1")
        new = self.cache.put(self.board(trips=2))
        self.assertEqual(self.cache.rendered(new, "xml", self.render), b"2")
        self.assertEqual(self.cache.rendered(old, "xml", self.render), b"1")
        self.assertEqual(self.renders, [old.board, new.board])

    def test_fails(self) -> None:
        """A rendering that fails is not kept."""
        entry = self.cache.put(self.board())
        with self.assertRaises(ZeroDivisionError):
            self.cache.rendered(entry, "xml", lambda board: b"." * (1 // 0))
        self.assertEqual(self.cache.rendered(entry, "xml", self.render), b"1")


class OperatorTests(CacheTestCase):
    """What operators do by hand."""

    def test_peek(self) -> None:
        """Looking at what is kept asks for nothing, whatever its age."""
        self.assertIsNone(self.cache.peek(CODE))
        entry = self.cache.put(self.board(age=1000))
        self.cache.put(self.board(code="1"))
        self.assertIsNone(self.cache.peek(CODE))  # too old, and gone when another one came
        entry = self.cache.put(self.board())
        self.assertIs(self.cache.peek(CODE), entry)
        self.assertEqual(self.source.asked, [])

    def test_purge(self) -> None:
        """What is forgotten is asked for anew, and its renderings do not count any more."""
        entry = self.cache.put(self.board())
        self.cache.rendered(entry, "form", lambda board: b"12345")
        self.assertTrue(self.cache.purge(CODE))
        self.assertEqual((self.cache.entries, self.cache.bytes), (0, 0))
        self.assertFalse(self.cache.purge(CODE))
        self.wait("miss")
