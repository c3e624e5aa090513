"""Tests of govi_server.operations.readiness."""

from itertools import count
from unittest import mock

from twisted.internet.defer import Deferred

from govi_server.departures.board import Board, Trip
from govi_server.departures.breaker import CircuitBreaker
from govi_server.departures.cache import BoardCache
from govi_server.departures.source import SourceBroken, SourceSilent, SourceUnreachable
from govi_server.operations.components import GatewayComponents
from govi_server.operations.readiness import CHECK_INTERVAL, MAX_PROBE_SECONDS, UNKNOWN_STOP_SECONDS, Readiness
from govi_server.server import ServerFigures
from govi_server.workers.messages import Figures
from tests.client import NOW
from tests.doubles import FakeSource
from tests.operations.case import CODE, OperationsTestCase

MAX_DELAY = 15
"""Seconds within which a failure ends the readiness."""

REFUSED = SourceUnreachable("connection refused")


class ReadinessTests(OperationsTestCase):
    """The readiness with one gateway that the test controls."""

    def setUp(self) -> None:
        super().setUp()
        self.components.feed = None
        self.readiness = Readiness(self.components, "", self.clock)

    def fetch(self) -> "Deferred[list[str]]":
        """Fetch the texts of the problems."""
        problems = Deferred.fromCoroutine(self.readiness.problems())
        return problems.addCallback(lambda problems: [problem.text for problem in problems])

    def board(self, code: str = CODE) -> Board:
        return Board(code, (Trip(),), self.clock.seconds())

    def end_requests(self) -> None:
        """End the requests without a response, as the gateway's deadline does."""
        for result in self.source.results:
            if not result.called:
                result.errback(SourceSilent("no response within 10 s"))

    def seconds_until(self, is_ready: bool, period: float) -> float:
        """Fetch the readiness in a period, as a load balancer does; return the time until it has this value."""
        started = self.clock.seconds()
        for _ in range(int(120 / period)):
            problems = self.fetch()
            for _ in range(20):
                if problems.called:
                    break
                self.clock.advance(MAX_PROBE_SECONDS / 10)
            if self.successResultOf(problems) == [] if is_ready else self.successResultOf(problems):
                return self.clock.seconds() - started
            self.clock.advance(period)
        raise AssertionError("the readiness did not change")

    def test_dead_gateway_is_not_ready(self) -> None:
        """Within 15 s after the only gateway has died the program is not ready, despite fresh boards in memory."""
        for outcome in (REFUSED, None, SourceBroken("not XML")):
            for period in (0.2, 1, 5):
                for offset in (0.0, 2.5, 4.9):
                    self.setUp()
                    self.source.immediate = self.board()
                    self.cache.put(self.source.immediate)
                    self.assertEqual(self.seconds_until(True, period), 0)
                    self.clock.advance(offset)
                    self.source.immediate = outcome
                    self.assertLess(self.seconds_until(False, period), MAX_DELAY, (outcome, period, offset))
                    self.assertIsNotNone(self.cache.fresh(CODE))
                    self.clock.advance(20)
                    self.end_requests()
                    self.source.immediate = self.board()
                    self.assertLess(self.seconds_until(True, period), MAX_DELAY, (outcome, period, offset))

    def test_gateway_that_never_responded_is_not_ready(self) -> None:
        """Within 15 s after the first request, to a gateway that has been dead since the start, it is not ready."""
        for outcome in (REFUSED, None):
            for period in (0.2, 1, 5):
                self.setUp()
                self.source.immediate = outcome
                self.assertEqual(self.seconds_until(True, period), 0)
                self.cache.board("1")[1].addErrback(lambda _: None)  # type: ignore[union-attr]
                self.assertLess(self.seconds_until(False, period), MAX_DELAY, (outcome, period))
                self.end_requests()
                self.source.immediate = self.board("1")
                self.assertLess(self.seconds_until(True, period), MAX_DELAY)

    def test_unknown_stop_does_not_end_the_readiness_for_good(self) -> None:
        """A missing response for a stop that may not exist counts for a minute, and never after the first board."""
        self.cache.board("1")
        self.assertLess(self.seconds_until(False, 1), MAX_DELAY)
        self.assertLess(self.seconds_until(True, 1), UNKNOWN_STOP_SECONDS + MAX_DELAY)
        self.source.immediate = self.board()
        self.cache.put(self.source.immediate)
        self.source.immediate = None
        self.cache.board("2")
        self.source.immediate = self.board()
        self.assertEqual(self.seconds_until(True, 1), 0)

    def test_gateway_recovers_without_clients(self) -> None:
        """With an open breaker and no board, the program is ready again once the gateway accepts requests."""
        self.source.immediate = REFUSED
        for _ in range(20):
            self.cache.board("1")[1].addErrback(lambda _: None)  # type: ignore[union-attr]
        self.assertEqual(self.components.gateways["kv55"].breaker.state, "open")
        self.clock.advance(3600)
        self.seconds_until(False, 1)
        self.source.immediate = SourceSilent("no response")
        self.assertLess(self.seconds_until(True, 1), MAX_DELAY)

    def test_removed_stop_is_not_probed_forever(self) -> None:
        """If a stop is removed from the gateway, another one is requested."""
        for code in ("1", "2", "3"):
            self.cache.put(self.board(code))
        for code in ("3", "2", "1"):
            problems = self.fetch()
            self.assertEqual(self.source.requested.pop(), code)
            self.clock.advance(MAX_PROBE_SECONDS)
            expected = [f"/kv55: stop {code}: no response within 5 s"]
            self.assertEqual(self.successResultOf(problems), expected)

    def test_configured_stop(self) -> None:
        """The stop of admin.probe is requested even if no board was received."""
        self.readiness = Readiness(self.components, "7", self.clock)
        problems = self.fetch()
        self.assertEqual(self.source.requested, ["7"])
        self.source.results[0].callback(self.board("7"))
        self.assertEqual(self.successResultOf(problems), [])

    def test_fetches_share_requests(self) -> None:
        """However often the readiness is fetched, a gateway gets a request in CHECK_INTERVAL at most."""
        self.cache.put(self.board())
        for responds in (True, False):
            self.clock.advance(CHECK_INTERVAL)
            self.source.immediate = self.board() if responds else None
            before, fetches = len(self.source.requested), []
            for _ in count():
                fetches += [self.fetch() for _ in range(5)]
                if len(fetches) >= 100 * 60:
                    break
                self.clock.advance(0.05)
            self.assertLessEqual(len(self.source.requested) - before, 60 / CHECK_INTERVAL + 1)
            self.clock.advance(MAX_PROBE_SECONDS)
            self.assertEqual({not self.successResultOf(fetch) for fetch in fetches[500:]}, {responds})

    def test_disconnected_fetch_does_not_end_the_check(self) -> None:
        """A fetch that is cancelled leaves the check to the others."""
        self.cache.put(self.board())
        first, second = self.fetch(), self.fetch()
        first.cancel()
        self.failureResultOf(first)
        self.source.results[0].callback(self.board())
        self.assertEqual(self.successResultOf(second), [])
        last = self.fetch()
        last.cancel()
        self.assertEqual(self.successResultOf(last), [])

    def test_unexpected_exception_is_never_ready(self) -> None:
        """An exception in a check is raised for each fetch until the next check, whether or not it waits."""
        self.cache.put(self.board())
        self.source.board = mock.Mock(side_effect=ZeroDivisionError)  # type: ignore[method-assign]
        for _ in range(2):
            self.failureResultOf(self.fetch(), ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        del self.source.board
        self.source.immediate = self.board()
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(self.successResultOf(self.fetch()), [])

    def test_each_gateway_must_work(self) -> None:
        """With several gateways, the reasons name those that fail; they are requested at the same time."""
        gateways = self.components.gateways
        source = FakeSource()
        breaker = CircuitBreaker(source, self.clock)
        cache = BoardCache(breaker, self.clock)
        gateways["other"] = GatewayComponents(gateways["kv55"].gateway, breaker, cache, breaker.board)
        gateways["other"].cache.put(self.board())
        self.cache.put(self.board())
        for outcomes, failing in (((REFUSED, None), ["kv55", "other"]), ((self.board(), REFUSED), ["other"])):
            self.source.immediate, source.immediate = outcomes
            problems = self.fetch()
            self.clock.advance(MAX_PROBE_SECONDS)
            self.assertEqual([p.split(":")[0] for p in self.successResultOf(problems)], [f"/{n}" for n in failing])
            self.clock.advance(CHECK_INTERVAL)

    def test_late_response_is_stored(self) -> None:
        """A response after the time of a check is stored, and no error is logged."""
        self.cache.put(self.board())
        problems = self.fetch()
        self.clock.advance(MAX_PROBE_SECONDS)
        self.assertEqual(len(self.successResultOf(problems)), 1)
        self.source.results[0].callback(self.board())
        entry = self.cache.fresh(CODE)
        assert entry is not None
        self.assertEqual(entry.board.received_at, NOW + MAX_PROBE_SECONDS)
        problems = self.fetch()
        self.clock.advance(MAX_PROBE_SECONDS)
        self.source.results[1].errback(SourceSilent("late"))
        self.assertEqual(len(self.successResultOf(problems)), 1)

    def test_state_is_never_reused(self) -> None:
        """The states of the server and the circuit breaker are current in every response."""
        self.source.immediate = self.board()
        self.cache.put(self.source.immediate)
        self.assertEqual(self.successResultOf(self.fetch()), [])
        self.components.gateways["kv55"].breaker.state = "open"
        self.assertEqual(self.successResultOf(self.fetch()), ["/kv55: gateway not accepting requests"])
        self.components.gateways["kv55"].breaker.state = "closed"
        self.server.draining = True
        self.assertEqual(self.successResultOf(self.fetch()), ["server is stopping"])

    def test_workers(self) -> None:
        """The program is ready while a worker serves clients, until the workers are stopped."""
        self.add_workers(None, None)
        self.assertEqual(self.successResultOf(self.fetch()), ["no worker is running"])
        self.add_workers(None, Figures(ServerFigures(), 0.0, 0))
        self.assertEqual(self.successResultOf(self.fetch()), [])
        assert self.components.workers is not None
        self.components.workers.is_draining = True
        self.assertEqual(self.successResultOf(self.fetch()), ["server is stopping"])
