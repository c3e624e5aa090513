"""The circuit breaker: when it opens, what it lets through, and when it closes."""

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from govi_server.departures.board import Board
from govi_server.departures.breaker import CircuitBreaker
from govi_server.departures.source import IDepartureSource, SourceBroken, SourceSilent, SourceUnreachable
from govi_server.settings import BreakerSettings
from tests.doubles import FakeSource

BOARD = Board("57330430", (), 1_000_000.0)

OPENED = "the source failed 3 times in a row, now it is asked once in 5 s: refused"


class BreakerTests(SynchronousTestCase):
    """A breaker that opens after three failures for five seconds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000.0)
        self.source = FakeSource()
        self.breaker = CircuitBreaker(self.source, self.clock, BreakerSettings(failures=3, pause=5))
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def ask(self, result: Board | Exception) -> None:
        """Have a question asked of the source, and answer it."""
        asked = len(self.source.asked)
        waiting = self.breaker.board(BOARD.code)
        self.assertEqual(len(self.source.asked), asked + 1)
        self.assertNoResult(waiting)
        if isinstance(result, Board):
            self.source.answers[-1].callback(result)
            self.assertIs(self.successResultOf(waiting), result)
        else:
            self.source.answers[-1].errback(result)
            self.assertIs(self.failureResultOf(waiting).value, result)

    def open(self) -> None:
        """Have the breaker open."""
        for _ in range(3):
            self.assertEqual(self.breaker.state, "closed")
            self.ask(SourceUnreachable("refused"))
        self.assertEqual(self.breaker.state, "open")

    def assertFailsAtOnce(self, reason: str = "refused") -> None:
        """Check that a question fails without being asked of the source."""
        asked = len(self.source.asked)
        failure = self.failureResultOf(self.breaker.board(BOARD.code), SourceUnreachable)
        self.assertEqual(failure.getErrorMessage(), reason)
        self.assertEqual(len(self.source.asked), asked)

    def lines(self) -> list[tuple[Any, str]]:
        """Give what the log says, with the levels."""
        return [(event["log_level"], formatEvent(event)) for event in self.events]

    def test_provides(self) -> None:
        """A breaker is a source."""
        verifyObject(IDepartureSource, self.breaker)

    def test_defaults(self) -> None:
        """Ten failures in a row open it, for five seconds."""
        self.assertEqual(BreakerSettings(), BreakerSettings(failures=10, pause=5.0))

    def test_passes_on(self) -> None:
        """Questions and answers go through, and who listens is heard of by the source."""
        self.ask(BOARD)
        self.assertEqual(self.source.asked, [BOARD.code])
        heard: list[Board] = []
        self.breaker.listen(heard.append)
        self.source.tell(BOARD)
        self.assertEqual(heard, [BOARD])
        self.assertEqual(self.lines(), [])

    def test_opens(self) -> None:
        """After so many questions in a row that were not taken it opens, and says so once."""
        self.open()
        self.assertEqual(self.lines(), [(LogLevel.warn, OPENED)])

    def test_silence_closes(self) -> None:
        """A source that takes the one question again and says nothing is not dead."""
        self.open()
        self.clock.advance(5)
        self.ask(SourceSilent("no answer within 10 s"))
        self.assertEqual(self.breaker.state, "closed")

    def test_fails_at_once(self) -> None:
        """While it is open every question fails at once, with what the last one failed with."""
        for reason in ("timeout", "reset", "no route to host"):
            self.ask(SourceUnreachable(reason))
        for seconds in (0, 1, 3, 0.9375):
            self.clock.advance(seconds)
            self.assertFailsAtOnce("no route to host")
        self.assertEqual(self.breaker.state, "open")

    def test_not_in_a_row(self) -> None:
        """Whatever shows that the source takes questions begins the count anew."""
        for result in (BOARD, SourceSilent("no answer within 10 s"), SourceBroken("not well-formed XML")):
            for _ in range(3):
                self.ask(SourceUnreachable("refused"))
                self.ask(SourceUnreachable("refused"))
                self.ask(result)
                self.assertEqual(self.breaker.state, "closed")
        self.assertEqual(self.lines(), [])

    def test_does_not_count(self) -> None:
        """A source that takes questions is asked on, however often it is silent or broken."""
        for failure in (SourceSilent("no answer within 10 s"), SourceBroken("not well-formed XML")):
            for _ in range(20):
                self.ask(failure)
        self.assertEqual(self.breaker.state, "closed")

    def test_half_open(self) -> None:
        """When its pause is over one question is let through, the others fail at once until that is answered."""
        self.open()
        self.clock.advance(5)
        waiting = self.breaker.board(BOARD.code)
        self.assertEqual(len(self.source.asked), 4)
        self.assertEqual(self.breaker.state, "half-open")
        for seconds in (0, 4, 5, 60):
            self.clock.advance(seconds)
            self.assertFailsAtOnce()
        self.assertNoResult(waiting)
        self.source.answers[-1].callback(BOARD)
        self.assertIs(self.successResultOf(waiting), BOARD)

    def test_success_closes(self) -> None:
        """When the question that was let through is answered, everything is asked again."""
        self.open()
        self.clock.advance(5)
        self.ask(BOARD)
        self.assertEqual(self.breaker.state, "closed")
        self.ask(BOARD)

    def test_taken_closes(self) -> None:
        """When the question that was let through is taken, silence or nonsense as its answer closes too."""
        for failure in (SourceSilent("no answer within 10 s"), SourceBroken("not well-formed XML")):
            self.open()
            self.clock.advance(5)
            self.ask(failure)
            self.assertEqual(self.breaker.state, "closed")

    def test_counts_anew(self) -> None:
        """Once closed it takes as many failures as ever to open it again, and the log tells once a minute."""
        for _ in range(3):
            self.open()
            self.clock.advance(31)
            self.ask(BOARD)
        more = " (and 1 more of this kind since the last such line)"
        self.assertEqual(self.lines(), [(LogLevel.warn, OPENED), (LogLevel.warn, OPENED + more)])

    def test_failure_reopens(self) -> None:
        """When the question that was let through fails, it is open for another pause, and says nothing more."""
        self.open()
        for n in range(3):
            self.clock.advance(5)
            self.ask(SourceUnreachable(f"refused again, {n}"))
            self.assertEqual(self.breaker.state, "open")
            self.clock.advance(4.9375)
            self.assertFailsAtOnce(f"refused again, {n}")
            self.clock.advance(0.0625)
        self.assertEqual(self.lines(), [(LogLevel.warn, OPENED)])

    def test_pause_from_the_failure(self) -> None:
        """A pause is counted from when the question failed, not from when it was asked."""
        self.open()
        self.clock.advance(5)
        waiting = self.breaker.board(BOARD.code)
        self.clock.advance(10)
        self.source.answers[-1].errback(SourceUnreachable("not taken within 10 s"))
        self.failureResultOf(waiting, SourceUnreachable)
        self.clock.advance(4)
        self.assertFailsAtOnce("not taken within 10 s")

    def test_fails_before_it_returns(self) -> None:
        """A source that fails before it has returned counts as any other."""
        self.source.at_once = SourceUnreachable("refused")
        for _ in range(20):
            self.failureResultOf(self.breaker.board(BOARD.code), SourceUnreachable)
        self.assertEqual(len(self.source.asked), 3)
        self.clock.advance(5)
        for _ in range(20):
            self.failureResultOf(self.breaker.board(BOARD.code), SourceUnreachable)
        self.assertEqual(len(self.source.asked), 4)

    def test_many_on_their_way(self) -> None:
        """When many that are on their way fail together it opens once, and one question is let through after."""
        waiting = [self.breaker.board(BOARD.code) for _ in range(50)]
        for answer in self.source.answers:
            answer.errback(SourceUnreachable("refused"))
        for each in waiting:
            self.failureResultOf(each, SourceUnreachable)
        self.assertFailsAtOnce()
        self.assertEqual(self.lines(), [(LogLevel.warn, OPENED)])
        self.clock.advance(5)
        self.ask(BOARD)

    def test_old_question_answered(self) -> None:
        """The answer to a question that was on its way when it opened closes it."""
        waiting = self.breaker.board(BOARD.code)
        self.open()
        self.source.answers[0].callback(BOARD)
        self.assertIs(self.successResultOf(waiting), BOARD)
        self.ask(BOARD)

    def test_clock_set_back(self) -> None:
        """A clock that is set back does not keep it open for longer than its pause."""
        for seconds in (10, 3600, 86400 * 365):
            self.open()
            self.clock.advance(-seconds)
            self.ask(BOARD)

    def test_clock_set_back_a_little(self) -> None:
        """When the clock is set back by less than the pause, it is over a pause later at the latest."""
        self.open()
        self.clock.advance(3)
        self.clock.advance(-3)
        self.assertFailsAtOnce()
        self.clock.advance(5)
        self.ask(BOARD)

    def test_clock_set_forward(self) -> None:
        """A clock that is set forward ends the pause."""
        self.open()
        self.clock.advance(3600)
        self.ask(BOARD)
