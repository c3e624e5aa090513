"""Tests of departures.breaker."""

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

OPENED = "Source: circuit breaker opened after 3 failures; probing every 5 s (refused)"


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

    def request(self, result: Board | Exception) -> None:
        """Make a request that reaches the source, with this result."""
        before = len(self.source.requested)
        waiting = self.breaker.board(BOARD.code)
        self.assertEqual(len(self.source.requested), before + 1)
        self.assertNoResult(waiting)
        if isinstance(result, Board):
            self.source.results[-1].callback(result)
            self.assertIs(self.successResultOf(waiting), result)
        else:
            self.source.results[-1].errback(result)
            self.assertIs(self.failureResultOf(waiting).value, result)

    def open(self) -> None:
        """Open the breaker."""
        for _ in range(3):
            self.assertEqual(self.breaker.state, "closed")
            self.request(SourceUnreachable("refused"))
        self.assertEqual(self.breaker.state, "open")

    def assert_fails_fast(self, reason: str = "refused") -> None:
        """Assert that a request fails without reaching the source."""
        before = len(self.source.requested)
        failure = self.failureResultOf(self.breaker.board(BOARD.code), SourceUnreachable)
        self.assertEqual(failure.getErrorMessage(), reason)
        self.assertEqual(len(self.source.requested), before)

    def lines(self) -> list[tuple[Any, str]]:
        """Return the lines of the log with their levels."""
        return [(event["log_level"], formatEvent(event)) for event in self.events]

    def test_provides_interface(self) -> None:
        """A breaker provides IDepartureSource."""
        verifyObject(IDepartureSource, self.breaker)

    def test_defaults(self) -> None:
        """By default ten consecutive failures open it for five seconds."""
        self.assertEqual(BreakerSettings(), BreakerSettings(failures=10, pause=5.0))

    def test_closed_breaker_passes_on(self) -> None:
        """A closed breaker passes on requests, results and callbacks."""
        self.request(BOARD)
        self.assertEqual(self.source.requested, [BOARD.code])
        boards: list[Board] = []
        self.breaker.listen(boards.append)
        self.source.publish(BOARD)
        self.assertEqual(boards, [BOARD])
        self.assertEqual(self.lines(), [])

    def test_opens_after_failures(self) -> None:
        """It opens after consecutive failures, with one log line."""
        self.open()
        self.assertEqual(self.lines(), [(LogLevel.warn, OPENED)])

    def test_silent_probe_closes(self) -> None:
        """A source that accepts the probe without a response is reachable."""
        self.open()
        self.clock.advance(5)
        self.assertFalse(self.breaker.is_reachable)
        self.request(SourceSilent("no callback within 10 s"))
        self.assertEqual((self.breaker.state, self.breaker.is_reachable), ("closed", True))

    def test_open_breaker_fails_fast(self) -> None:
        """While it is open requests fail immediately, with the last error."""
        for reason in ("timeout", "reset", "no route to host"):
            self.request(SourceUnreachable(reason))
        for seconds in (0, 1, 3, 0.9375):
            self.clock.advance(seconds)
            self.assert_fails_fast("no route to host")
        self.assertEqual(self.breaker.state, "open")

    def test_accepted_request_resets_count(self) -> None:
        """Each request that the source accepts resets the count of failures."""
        for result in (BOARD, SourceSilent("no callback within 10 s"), SourceBroken("not well-formed XML")):
            for _ in range(3):
                self.request(SourceUnreachable("refused"))
                self.request(SourceUnreachable("refused"))
                self.request(result)
                self.assertEqual(self.breaker.state, "closed")
        self.assertEqual(self.lines(), [])

    def test_other_failures_do_not_count(self) -> None:
        """Silence and invalid responses do not open it."""
        for failure in (SourceSilent("no callback within 10 s"), SourceBroken("not well-formed XML")):
            for _ in range(20):
                self.request(failure)
        self.assertEqual(self.breaker.state, "closed")

    def test_one_probe_after_pause(self) -> None:
        """After the pause one request is a probe; others fail immediately until it has a result."""
        self.open()
        self.clock.advance(5)
        waiting = self.breaker.board(BOARD.code)
        self.assertEqual(len(self.source.requested), 4)
        self.assertEqual(self.breaker.state, "half-open")
        for seconds in (0, 4, 5, 60):
            self.clock.advance(seconds)
            self.assert_fails_fast()
        self.assertNoResult(waiting)
        self.source.results[-1].callback(BOARD)
        self.assertIs(self.successResultOf(waiting), BOARD)

    def test_failure_of_earlier_request_permits_no_probe(self) -> None:
        """The failure of a request that was sent before it opened neither extends the pause nor ends the probe."""
        earlier = [self.breaker.board(BOARD.code) for _ in range(2)]
        self.open()
        results = self.source.results[:2]
        self.clock.advance(4)
        results[0].errback(SourceUnreachable("refused"))
        self.failureResultOf(earlier[0], SourceUnreachable)
        self.clock.advance(1)
        probe = self.breaker.board(BOARD.code)
        self.assertNoResult(probe)
        results[1].errback(SourceUnreachable("refused"))
        self.failureResultOf(earlier[1], SourceUnreachable)
        self.clock.advance(5)
        self.assert_fails_fast()
        self.source.results[-1].callback(BOARD)
        self.assertIs(self.successResultOf(probe), BOARD)

    def test_successful_probe_closes(self) -> None:
        """A successful probe closes it."""
        self.open()
        self.clock.advance(5)
        self.request(BOARD)
        self.assertEqual(self.breaker.state, "closed")
        self.request(BOARD)

    def test_accepted_probe_closes(self) -> None:
        """A probe that is accepted closes it, even without a valid response."""
        for failure in (SourceSilent("no callback within 10 s"), SourceBroken("not well-formed XML")):
            self.open()
            self.clock.advance(5)
            self.request(failure)
            self.assertEqual(self.breaker.state, "closed")

    def test_acknowledged_probe_closes(self) -> None:
        """A probe closes it when it is acknowledged: its stop may not exist, and its response never arrive."""
        self.open()
        self.clock.advance(5)
        probe = self.breaker.board("99999999")
        self.assert_fails_fast()
        self.source.accept()
        self.assertEqual((self.breaker.state, self.breaker.is_reachable), ("closed", True))
        self.request(BOARD)
        self.assertNoResult(probe)

    def test_closed_breaker_counts_again(self) -> None:
        """Once closed it needs as many failures to open again, and is logged once a minute."""
        for _ in range(3):
            self.open()
            self.clock.advance(31)
            self.request(BOARD)
        more = " (and 1 more of this kind since the last such line)"
        self.assertEqual(self.lines(), [(LogLevel.warn, OPENED), (LogLevel.warn, OPENED + more)])

    def test_failed_probe_reopens(self) -> None:
        """A failed probe opens it for another pause, without a further log line."""
        self.open()
        for n in range(3):
            self.clock.advance(5)
            self.request(SourceUnreachable(f"refused again, {n}"))
            self.assertEqual(self.breaker.state, "open")
            self.clock.advance(4.9375)
            self.assert_fails_fast(f"refused again, {n}")
            self.clock.advance(0.0625)
        self.assertEqual(self.lines(), [(LogLevel.warn, OPENED)])

    def test_pause_counts_from_failure(self) -> None:
        """A pause counts from the failure, and not from the request."""
        self.open()
        self.clock.advance(5)
        waiting = self.breaker.board(BOARD.code)
        self.clock.advance(10)
        self.source.results[-1].errback(SourceUnreachable("not accepted within 10 s"))
        self.failureResultOf(waiting, SourceUnreachable)
        self.clock.advance(4)
        self.assert_fails_fast("not accepted within 10 s")

    def test_synchronous_failures_count(self) -> None:
        """Failures before board() has returned count like others."""
        self.source.immediate = SourceUnreachable("refused")
        for _ in range(20):
            self.failureResultOf(self.breaker.board(BOARD.code), SourceUnreachable)
        self.assertEqual(len(self.source.requested), 3)
        self.clock.advance(5)
        for _ in range(20):
            self.failureResultOf(self.breaker.board(BOARD.code), SourceUnreachable)
        self.assertEqual(len(self.source.requested), 4)

    def test_concurrent_failures_open_once(self) -> None:
        """Many concurrent failures open it once, and one probe follows."""
        waiting = [self.breaker.board(BOARD.code) for _ in range(50)]
        for result in self.source.results:
            result.errback(SourceUnreachable("refused"))
        for deferred in waiting:
            self.failureResultOf(deferred, SourceUnreachable)
        self.assert_fails_fast()
        self.assertEqual(self.lines(), [(LogLevel.warn, OPENED)])
        self.clock.advance(5)
        self.request(BOARD)

    def test_earlier_request_closes(self) -> None:
        """The result of a request from before it opened closes it."""
        waiting = self.breaker.board(BOARD.code)
        self.open()
        self.source.results[0].callback(BOARD)
        self.assertIs(self.successResultOf(waiting), BOARD)
        self.request(BOARD)

    def test_clock_set_back_ends_pause(self) -> None:
        """A clock that is set back does not prolong the pause."""
        for seconds in (10, 3600, 86400 * 365):
            self.open()
            self.clock.advance(-seconds)
            self.request(BOARD)

    def test_clock_set_back_less_than_pause(self) -> None:
        """After the clock was set back by less than the pause, it ends a pause later at most."""
        self.open()
        self.clock.advance(3)
        self.clock.advance(-3)
        self.assert_fails_fast()
        self.clock.advance(5)
        self.request(BOARD)

    def test_clock_set_forward_ends_pause(self) -> None:
        """A clock that is set forward ends the pause."""
        self.open()
        self.clock.advance(3600)
        self.request(BOARD)
