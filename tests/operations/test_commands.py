"""Tests of govi_server.operations.commands."""

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
from govi_server.operations.commands import DRAIN_DELAY_SECONDS, CommandOutput, ManholeCommands
from govi_server.operations.components import Components, GatewayComponents
from govi_server.operations.health import HealthMonitor
from govi_server.operations.history import RecentHistory
from govi_server.operations.log_levels import LogLevels
from govi_server.operations.status import Status
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from govi_server.settings import Config
from govi_server.statistics.batches import StatisticsBatcher
from tests.doubles import FakePoster, FakeSource

CODE = "57330430"


class ManholeCommandsTests(SynchronousTestCase):
    """The commands' texts and effects."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.source = FakeSource()
        breaker = CircuitBreaker(self.source, self.clock)
        self.cache = BoardCache(breaker, self.clock)
        server = Server("", 0, RequestHandler, clock=self.clock, find_module=lambda name: None)
        components = Components(server)
        components.gateways["kv55"] = GatewayComponents(
            Gateway(FakePoster(), self.clock, "govi"), breaker, self.cache, breaker.board
        )
        history = RecentHistory(self.clock, StatisticsBatcher("govi-cache"))
        monitor = HealthMonitor(components, history, self.clock)
        status = Status(components, history, monitor, self.clock, "1.0", Config)
        self.shut_downs: list[bool] = []
        self.levels = LogLevels((), LogPublisher())
        self.commands = ManholeCommands(
            components, status, self.levels, self.clock, lambda: self.shut_downs.append(True)
        )

    def board(self, destination: str = "Station") -> Board:
        return Board(CODE, (Trip(destination_name=destination),), self.clock.seconds())

    def test_help_lists_all_commands(self) -> None:
        """Each command is listed in one line, and help(command) explains it."""
        text = self.commands.help()
        for name in self.commands.all():
            self.assertIn(f"  {name}(", text)
        self.assertEqual(len(text.splitlines()), len(self.commands.all()))
        self.assertIn("Restart=always", self.commands.help(self.commands.drain))

    def test_text_is_shown_unchanged(self) -> None:
        """The prompt shows texts without quotes and escapes."""
        self.assertEqual(repr(CommandOutput("a\nb")), "a\nb")

    def test_stop_sends_no_request(self) -> None:
        """stop() shows a cached board with its age, without control characters, and sends no request."""
        self.assertEqual(self.commands.stop(CODE), f"/kv55: {CODE} is not cached")
        self.cache.put(self.board("Sta\x1b[2Jtion"))
        self.clock.advance(7)
        self.assertIn("1 departures, 7 s old\n  -  Sta\\x1b[2Jtion", self.commands.stop(CODE))
        self.assertEqual(self.source.requested, [])

    def test_invalid_code_is_rejected(self) -> None:
        """Commands with a stop reject anything but a TimingPointCode."""
        for command in (self.commands.stop, self.commands.purge, self.commands.refresh):
            for invalid in ("x", "", 57330430):
                self.assertIn("invalid TimingPointCode", cast(str, command(cast(str, invalid))))

    def test_purge_removes_a_board(self) -> None:
        """purge() removes a board, and reports whether it was cached."""
        self.cache.put(self.board())
        self.assertEqual(self.commands.purge(CODE), f"{CODE}: removed from /kv55")
        self.assertEqual(self.commands.purge(CODE), f"{CODE}: not cached")

    def test_refresh_bypasses_the_cache(self) -> None:
        """refresh() requests a board even if it is cached; the new board is shown and cached."""
        self.cache.put(self.board())
        refreshed = self.commands.refresh(CODE)
        assert isinstance(refreshed, Deferred)
        self.clock.advance(2)
        self.source.results[0].callback(self.board("Elsewhere"))
        text = self.successResultOf(refreshed)
        self.assertIn("received after 2.0 s", text)
        self.assertIn("Elsewhere", text)
        self.assertIn("Elsewhere", self.commands.stop(CODE))

    def test_immediate_failure_of_refresh_is_returned(self) -> None:
        """An immediate failure of refresh() is returned, not deferred."""
        self.source.immediate = SourceSilent("no response")
        self.assertEqual(self.commands.refresh(CODE), f"/kv55: {CODE}: no board (no response)")
        for board in self.source.results:
            board.addErrback(lambda failure: None)

    def test_commands_that_show_the_state(self) -> None:
        """The commands that show the state of the program have a text for empty lists."""
        self.assertIn("UP since", self.commands.status())
        self.assertEqual(self.commands.breaker(), "  /kv55  closed")
        self.assertEqual(self.commands.flights(), "no gateway requests in flight")
        self.assertIn("no waits", self.commands.slow())
        self.cache.board(CODE)
        self.cache.board(CODE)
        self.assertEqual(self.commands.flights(), f"  /kv55  {CODE}  2 waiting")

    def test_drain_starts_after_the_response(self) -> None:
        """Draining starts once, after the response is sent."""
        self.assertIn("draining 0 connections", self.commands.drain())
        self.assertIn("already draining", self.commands.drain())
        self.assertEqual(self.shut_downs, [])
        self.clock.advance(DRAIN_DELAY_SECONDS)
        self.assertEqual(self.shut_downs, [True])

    def test_log_level_is_set_for_a_namespace(self) -> None:
        """A level is set for a namespace; an invalid level is rejected."""
        self.assertIn("invalid log level 'loud' (expected debug, ", self.commands.log_level("a", "loud"))
        self.assertIn("a.b           warn", self.commands.log_level("a.b", "warn"))
