"""The verbs of the manhole."""

from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.board import Board, Trip
from govi_server.departures.breaker import CircuitBreaker
from govi_server.departures.cache import BoardCache
from govi_server.departures.source import SourceSilent
from govi_server.kv55.gateway import Gateway
from govi_server.operations.commands import TO_SAY, ManholeCommands, Text
from govi_server.operations.components import Components, GatewayComponents
from govi_server.operations.health import HealthMonitor
from govi_server.operations.history import RecentHistory
from govi_server.operations.log_levels import LogLevels
from govi_server.operations.status import Status
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from govi_server.statistics.batches import StatisticsBatcher
from tests.doubles import FakePoster, FakeSource

CODE = "57330430"


class VerbsTests(SynchronousTestCase):
    """What the verbs say."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.source = FakeSource()
        breaker = CircuitBreaker(self.source, self.clock)
        self.cache = BoardCache(breaker, self.clock)
        server = Server("", 0, RequestHandler, clock=self.clock, find_module=lambda name: None)
        parts = Components(server)
        parts.gateways["kv55"] = GatewayComponents(Gateway(FakePoster(), self.clock, "govi"), breaker, self.cache)
        hour = RecentHistory(self.clock, StatisticsBatcher("govi-cache"))
        status = Status(parts, hour, HealthMonitor(parts, hour, self.clock), self.clock, "1.0")
        self.ended: list[bool] = []
        self.levels = LogLevels(LogPublisher())
        self.verbs = ManholeCommands(parts, status, self.levels, self.clock, lambda: self.ended.append(True))

    def board(self, destination: str = "Station") -> Board:
        return Board(CODE, (Trip(destination_name=destination),), self.clock.seconds())

    def test_help(self) -> None:
        """Every verb is in the list with a line of its own, and more is told of one."""
        said = self.verbs.help()
        for name in self.verbs.all():
            self.assertIn(f"  {name}(", said)
        self.assertEqual(len(said.splitlines()), len(self.verbs.all()))
        self.assertIn("Restart=always", self.verbs.help(self.verbs.drain))

    def test_text(self) -> None:
        """A prompt shows texts as they are."""
        self.assertEqual(repr(Text("a\nb")), "a\nb")

    def test_stop(self) -> None:
        """A cached board is shown with its age, and nothing is asked for."""
        self.assertEqual(self.verbs.stop(CODE), f"/kv55: {CODE} is not in the cache")
        self.cache.put(self.board("Sta\x1b[2Jtion"))
        self.clock.advance(7)
        self.assertIn("1 departures, 7 s old\n  -  Sta?[2Jtion", self.verbs.stop(CODE))
        self.assertEqual(self.source.asked, [])

    def test_no_stop(self) -> None:
        """What is no stop is said to be none, by every verb that takes one."""
        for verb in (self.verbs.stop, self.verbs.purge, self.verbs.refresh):
            for wrong in ("x", "", 57330430):
                self.assertIn("is no TimingPointCode", cast(str, verb(cast(str, wrong))))

    def test_purge(self) -> None:
        """A board is forgotten once."""
        self.cache.put(self.board())
        self.assertEqual(self.verbs.purge(CODE), f"{CODE}: forgotten by /kv55")
        self.assertEqual(self.verbs.purge(CODE), f"{CODE}: in no cache")

    def test_refresh(self) -> None:
        """The source is asked past the cache, and what comes is shown and kept."""
        self.cache.put(self.board())
        said = self.verbs.refresh(CODE)
        assert isinstance(said, Deferred)
        self.clock.advance(2)
        self.source.answers[0].callback(self.board("Elsewhere"))
        self.assertIn("answered after 2.0 s", text := self.successResultOf(said))
        self.assertIn("Elsewhere", text)
        self.assertIn("Elsewhere", self.verbs.stop(CODE))

    def test_refresh_fails(self) -> None:
        """Why there is no board is said at once if it is known at once."""
        self.source.at_once = SourceSilent("no answer")
        self.assertEqual(self.verbs.refresh(CODE), f"/kv55: {CODE}: no board: no answer")
        for answer in self.source.answers:
            answer.addErrback(lambda failure: None)

    def test_figures(self) -> None:
        """Status, flights, breaker and slow stops say what there is."""
        self.assertIn("UP since", self.verbs.status())
        self.assertEqual(self.verbs.breaker(), "  /kv55  closed")
        self.assertEqual(self.verbs.flights(), "nothing is being asked for")
        self.assertIn("nobody waited", self.verbs.slow())
        self.cache.board(CODE)
        self.cache.board(CODE)
        self.assertEqual(self.verbs.flights(), f"  /kv55  {CODE}  2 waiting")

    def test_drain(self) -> None:
        """The end begins when the answer has gone out, and once."""
        self.assertIn("it ends; 0 connections", self.verbs.drain())
        self.assertIn("it ends already", self.verbs.drain())
        self.assertEqual(self.ended, [])
        self.clock.advance(TO_SAY)
        self.assertEqual(self.ended, [True])

    def test_log_level(self) -> None:
        """A level is set for a namespace; what is no level is said to be none."""
        self.assertIn("'loud' is no level; there are debug, ", self.verbs.log_level("a", "loud"))
        self.assertIn("a.b           warn", self.verbs.log_level("a.b", "warn"))
