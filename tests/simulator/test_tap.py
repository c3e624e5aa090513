"""Tests of the command `twistd govi-simulator`."""

from typing import cast

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.server import Server
from govi_server.simulator import tap


class SimulatorTests(SynchronousTestCase):
    """Tests of the simulator's service."""

    def test_default_endpoint(self) -> None:
        """It listens on loopback by default."""
        reactor = MemoryReactorClock()
        options = tap.Options()
        options.parseOptions([])
        service = tap.makeService(options, reactor)
        service.startService()
        ((port, factory, _, interface),) = reactor.tcpServers
        self.assertEqual((port, interface), (8083, "127.0.0.1"))
        self.assertEqual(cast(Server, factory).logPrefix(), "simulated gateway")

    def test_invalid_endpoint(self) -> None:
        """An invalid endpoint ends the command with one line."""
        options = tap.Options()
        options.parseOptions(["--listen", "foo:1"])
        with self.assertRaises(SystemExit) as caught:
            tap.makeService(options, MemoryReactorClock())
        self.assertIn("govi-simulator: 'foo:1' is no endpoint", str(caught.exception))
