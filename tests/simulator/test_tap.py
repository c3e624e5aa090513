"""Tests of the command `twistd govi-simulator`."""

from typing import cast

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.ordered_services import OrderedMultiService
from govi_server.server import Server
from govi_server.simulator import tap
from govi_server.simulator.feed import SimulatedFeed
from govi_server.simulator.gateway import GatewayBehaviour


class SimulatorTests(SynchronousTestCase):
    """The simulator's service."""

    def test_default_endpoint(self) -> None:
        """The gateway listens on loopback by default."""
        reactor = MemoryReactorClock()
        options = tap.Options()
        options.parseOptions([])
        service = tap.makeService(options, reactor)
        service.startService()
        ((port, factory, _, interface),) = reactor.tcpServers
        self.assertEqual((port, interface), (8083, "127.0.0.1"))
        self.assertEqual(cast(Server, factory).logPrefix(), "simulated gateway")

    def test_invalid_endpoint(self) -> None:
        """An invalid endpoint ends the command with one line of error."""
        options = tap.Options()
        options.parseOptions(["--listen", "foo:1"])
        with self.assertRaises(SystemExit) as caught:
            tap.makeService(options, MemoryReactorClock())
        self.assertIn("govi-simulator: --listen: invalid endpoint 'foo:1': ", str(caught.exception))


class OptionsTests(SynchronousTestCase):
    """The options of the feed."""

    def parse(self, *arguments: str) -> tap.Options:
        options = tap.Options()
        options.parseOptions(["--listen", "tcp:0", *arguments])
        return options

    def test_feed_option(self) -> None:
        """The feed is enabled only by --feed."""
        reactor = MemoryReactorClock()
        without = tap.makeService(self.parse(), reactor)
        options = self.parse("--feed", "tcp://127.0.0.1:1", "--speed", "60", "--garbage", "0.1", "--silence", "5")
        service = tap.makeService(options, reactor)
        assert isinstance(without, OrderedMultiService)
        assert isinstance(service, OrderedMultiService)
        *services, feed = service
        self.assertEqual(len(services), len(list(without)))
        self.assertIsInstance(feed, SimulatedFeed)

    def test_invalid_numbers(self) -> None:
        """A number out of bounds is an error."""
        for option, value in (
            ("--speed", "0"),
            ("--speed", "fast"),
            ("--garbage", "1.5"),
            ("--duplicate", "-1"),
            ("--out-of-order", "nan"),
            ("--silence", "-1"),
            ("--seed", "x"),
        ):
            error = self.assertRaises(SystemExit, self.parse, "--feed", "tcp://127.0.0.1:1", option, value)
            self.assertTrue(
                str(error).startswith(f"govi-simulator: {option}: invalid value {value!r} (expected "), error
            )

    def test_invalid_fraction(self) -> None:
        """The error of an invalid number names the option and the expected values."""
        error = self.assertRaises(SystemExit, self.parse, "--drop", "3")
        self.assertEqual(str(error), "govi-simulator: --drop: invalid value '3' (expected a fraction from 0 to 1)")

    def test_defaults_are_those_of_the_demo(self) -> None:
        """Without options the gateway behaves as in the demo."""
        options = self.parse()
        defaults = GatewayBehaviour()
        self.assertEqual(
            (options["delay"], options["drop"], options["seed"]), (defaults.delay, defaults.loss, defaults.seed)
        )

    def test_unusable_options(self) -> None:
        """Options of the feed require --feed with a valid address, and a replay requires a directory."""
        for arguments in (
            ["--replay", "."],
            ["--speed", "2"],
            ["--garbage", "0.1"],
            ["--feed", "tcp://127.0.0.1:1", "--replay", "/nonexistent"],
            ["--feed", "nonsense"],
            ["--feed", "tcp://127.0.0.1:65536"],
        ):
            error = self.assertRaises(SystemExit, tap.makeService, self.parse(*arguments), MemoryReactorClock())
            self.assertNotIn("\n", str(error))
