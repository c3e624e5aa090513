"""The commands: plugins, options and the tree of services."""

import gc
import os
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import cast
from unittest.mock import patch

from twisted.application.service import IServiceMaker, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from govi_server import application, tap
from govi_server.modules.board import BoardPages
from govi_server.modules.display_source import CacheDisplays, FeedDisplays
from govi_server.modules.front import Front
from govi_server.modules.ovapi import PATHS
from govi_server.server import Server
from govi_server.simulator import tap as simulator_tap
from govi_server.simulator.town import STATION
from govi_server.tap import Options


class PluginTests(SynchronousTestCase):
    """What twistd finds."""

    def test_plugins(self) -> None:
        """Both commands are there, and lead to our tap modules."""
        makers = {maker.tapname: maker for maker in getPlugins(IServiceMaker)}
        for name, module in [("govi-cache", tap), ("govi-simulator", simulator_tap)]:
            self.assertIs(makers[name].makeService, module.makeService)
            self.assertIs(makers[name].options, module.Options)


class OptionsTests(SynchronousTestCase):
    """What was said, in the shape of the configuration."""

    def settings(self, *arguments: str) -> dict[str, object]:
        options = Options()
        options.parseOptions(arguments)
        return options.settings()

    def test_nothing(self) -> None:
        """What was not said is not there."""
        self.assertEqual(self.settings(), {})

    def test_everything(self) -> None:
        """Every option has its place."""
        self.assertEqual(
            self.settings(
                "--listen", "tcp:1", "-l", "unix:/x", "--callback", "tcp:2", "--source", "govi",
                "--gateway-url", "http://x/", "--statistics", "f",
            ),
            {
                "listen": ["tcp:1", "unix:/x"],
                "modules": {"kv55": {"callback": "tcp:2", "source": "govi", "gateway_url": "http://x/"}},
                "statistics": {"file": "f"},
            },
        )  # fmt: skip

    def test_gateway_url_means_govi(self) -> None:
        """Who names a gateway wants it asked."""
        self.assertEqual(
            self.settings("--gateway-url", "http://x/"),
            {"modules": {"kv55": {"source": "govi", "gateway_url": "http://x/"}}},
        )

    def test_feed(self) -> None:
        """Who names a feed or a timetable wants it told; a source that is named wins."""
        live = {"modules": {"kv55": {"source": "kv78turbo"}}}
        for arguments, settings in [
            (["--feed", "tcp://a:1", "-f", "tcp://b:2"], {**live, "feed": {"addresses": ["tcp://a:1", "tcp://b:2"]}}),
            (["--timetable", "kv7"], {**live, "feed": {"timetable": "kv7"}}),
            (
                ["--source", "govi", "-t", "kv7"],
                {"modules": {"kv55": {"source": "govi"}}, "feed": {"timetable": "kv7"}},
            ),
        ]:
            self.assertEqual(self.settings(*arguments), settings)


class Reactor(MemoryReactorClock):
    """A reactor whose one thread is the test's."""

    def getThreadPool(self) -> "Reactor":
        return self

    def callInThreadWithCallback(self, done: Callable[[bool, object], object], call: Callable[[], object]) -> None:
        done(True, call())

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        call(*arguments)


class GarbageTests(SynchronousTestCase):
    """The garbage collector."""

    def test_seldom(self) -> None:
        """It looks through everything less often than Python has it, and through what is young as often."""
        before = gc.get_threshold()
        self.addCleanup(gc.set_threshold, *before)
        gc.set_threshold(700, 10, 10)
        tap.makeService(Options(), MemoryReactorClock())
        self.assertEqual(gc.get_threshold(), (700, 10, application.SELDOM))


class ServiceTests(SynchronousTestCase):
    """The tree of services."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.reactor = Reactor()
        thread = patch("govi_server.runtime.clock.Thread")  # which would call a reactor that is none
        thread.start()
        self.addCleanup(thread.stop)

    def ports(self, toml: str, *arguments: str) -> list[tuple[int, str]]:
        """Start the service of a configuration; list what is listened on, and for what."""
        path = os.path.join(self.folder, "config.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(toml)
        options = Options()
        options.parseOptions(["--config", path, *arguments])
        self.service = tap.makeService(options, self.reactor)
        self.service.privilegedStartService()
        self.service.startService()
        return [(port, cast(Server, factory).logPrefix()) for port, factory, _, _ in self.reactor.tcpServers]

    def stop(self) -> None:
        """Stop the service, or contexts of ZeroMQ with open sockets stay, which whoever collects them waits for."""
        stopped = cast(Deferred[None], self.service.stopService())
        self.reactor.pump([0.01] * 10)  # the first sweep is still to be done
        self.successResultOf(stopped)

    def test_configurations_that_the_domain_rejects(self) -> None:
        """A path segment that is taken, or a probe that is no TimingPointCode, is one line of error."""
        for toml, error in (
            ("[modules.tpc]\nsource = 'kv78turbo'", "modules: 'tpc' is a path that is answered already"),
            (
                "[modules.line]\nsource = 'govi'\n[modules.kv55]\nsource = 'kv78turbo'",
                "modules: 'line' is a path that is answered already",
            ),
            ("[modules.board]", "modules: 'board' is a path that is answered already"),
            ("[admin]\nprobe = 'x'", "admin.probe is not a TimingPointCode: 'x'"),
        ):
            with self.assertRaises(SystemExit) as caught:
                self.ports(toml)
            self.assertEqual(str(caught.exception), f"govi-cache: {error}")

    def test_demo(self) -> None:
        """The demo has its simulator inside, both kinds, and starts it before clients can come."""
        self.addCleanup(self.stop)
        self.assertEqual(
            self.ports(""),
            [(8082, "kv55 callbacks"), (0, "simulated gateway"), (8081, "operators"), (8080, "govi-cache")],
        )
        server = cast(Server, self.reactor.tcpServers[-1][1])
        self.assertEqual(cast(Front, server.find_module("")).content().example, STATION)

    def test_govi(self) -> None:
        """With a gateway there is no simulator."""
        self.assertEqual(
            self.ports("", "--gateway-url", "http://gateway.invalid/"),
            [(8082, "kv55 callbacks"), (8081, "operators"), (8080, "govi-cache")],
        )

    def test_second_module(self) -> None:
        """A second module has a callback endpoint of its own, and answers under its name."""
        ports = self.ports(
            "[modules.arriva]\nsource = 'govi'\ncallback = 'tcp:9082'\n[modules.kv55]\nsource = 'govi'\n"
        )
        self.assertEqual(
            ports, [(9082, "arriva callbacks"), (8082, "kv55 callbacks"), (8081, "operators"), (8080, "govi-cache")]
        )
        self.assertIsInstance(self.service, MultiService)
        server = cast(Server, self.reactor.tcpServers[-1][1])
        for name in ("kv55", "arriva", "", "board", "assets", "docs", "openapi.json"):
            self.assertEqual(cast(Service, server.find_module(name)).name, name)
        with self.assertRaises(KeyError):  # there is nothing to search in
            server.find_module("stops")
        self.assertIsInstance(cast(BoardPages, server.find_module("board")).source, CacheDisplays)

    def test_live(self) -> None:
        """With a timetable alone there are no callbacks, and OVapi's paths are answered beside /kv55."""
        ports = self.ports(f"[feed]\naddresses = []\ntimetable = '{self.folder}'", "--source", "kv78turbo")
        self.addCleanup(self.service.stopService)
        self.assertNotIn((8082, "kv55 callbacks"), ports)
        self.assertEqual(ports[-1], (8080, "govi-cache"))
        server = cast(Server, self.reactor.tcpServers[-1][1])
        for name in ("kv55", "board", "stops", "near", "siri", *PATHS):
            self.assertEqual(cast(Service, server.find_module(name)).name, name)
        self.assertIsInstance(cast(BoardPages, server.find_module("board")).source, FeedDisplays)

    def test_mistakes(self) -> None:
        """What cannot be used is one line that names it, and the end."""
        for toml, arguments, expected in [
            ("cache.fresh = -1", [], "config.toml: cache.fresh: "),
            ("", ["--listen", "foo:1"], "govi-cache: invalid endpoint 'foo:1': "),
            ("", ["--source", "magic"], "govi-cache: options: modules.kv55: source is none of demo, govi"),
            ("", ["--feed", "foo"], "govi-cache: 'foo' is no address of a KV78turbo feed"),
            (
                "",
                ["--manhole", "tcp:1"],
                "govi-cache: the manhole needs --manhole-keys, the file of ",
            ),
        ]:
            with self.assertRaises(SystemExit) as caught:
                self.ports(toml, *arguments)
            self.assertIn(expected, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))


class SimulatorTests(SynchronousTestCase):
    """The simulator's command."""

    def test_listens(self) -> None:
        """It listens on loopback where nobody says otherwise."""
        reactor = MemoryReactorClock()
        options = simulator_tap.Options()
        options.parseOptions([])
        service = simulator_tap.makeService(options, reactor)
        service.startService()
        ((port, factory, _, interface),) = reactor.tcpServers
        self.assertEqual((port, interface), (8083, "127.0.0.1"))
        self.assertEqual(cast(Server, factory).logPrefix(), "simulated gateway")

    def test_mistakes(self) -> None:
        """An endpoint that is none is one line, and the end."""
        options = simulator_tap.Options()
        options.parseOptions(["--listen", "foo:1"])
        with self.assertRaises(SystemExit) as caught:
            simulator_tap.makeService(options, MemoryReactorClock())
        self.assertIn("govi-simulator: invalid endpoint 'foo:1'", str(caught.exception))
