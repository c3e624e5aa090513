"""Tests of the service tree of a configuration."""

import os
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any, cast
from unittest.mock import patch

from twisted.application.service import IService, MultiService, Service
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from govi_server.application import make_service
from govi_server.errors import ConfigError
from govi_server.modules.board import BoardPages
from govi_server.modules.display_source import CacheDisplays, FeedDisplays
from govi_server.modules.front import Front
from govi_server.modules.ovapi import PATHS
from govi_server.server import Server
from govi_server.settings import (
    AdminSettings,
    Config,
    FeedSettings,
    ModuleSettings,
    SnapshotSettings,
    StatisticsSettings,
)
from govi_server.simulator.town import STATION

GATEWAY = ModuleSettings(source="govi", gateway_url="http://gateway.invalid/")
DEMO = ModuleSettings(source="demo")
LIVE = ModuleSettings(source="kv78turbo")


class Reactor(MemoryReactorClock):
    """A reactor whose thread pool runs calls immediately, in the test's thread."""

    def getThreadPool(self) -> "Reactor":
        return self

    def callInThreadWithCallback(self, done: Callable[[bool, object], object], call: Callable[[], object]) -> None:
        done(True, call())

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        call(*arguments)


class ServiceTests(SynchronousTestCase):
    """Tests of the service tree."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.reactor = Reactor()
        thread = patch("govi_server.runtime.clock.Thread")  # which would need a real reactor
        thread.start()
        self.addCleanup(thread.stop)

    def start(self, **settings: Any) -> list[tuple[int, str]]:
        """Start the service of a configuration; return its ports with the names of their servers."""
        self.service = make_service(Config(**{"modules": {"kv55": DEMO}, **settings}), self.reactor)
        self.service.privilegedStartService()
        self.service.startService()
        return [(port, cast(Server, factory).logPrefix()) for port, factory, _, _ in self.reactor.tcpServers]

    def stop(self) -> None:
        """Stop the service. ZeroMQ contexts with open sockets would block the garbage collector."""
        stopped = self.service.stopService()
        self.reactor.pump([0.01] * 10)  # for the first sweep of the feed
        self.successResultOf(stopped)

    def test_name_in_use_is_rejected(self) -> None:
        """A module cannot have the name of another path of the program."""
        for name, modules in (
            ("tpc", {"tpc": LIVE}),
            ("line", {"line": GATEWAY, "kv55": LIVE}),
            ("board", {"board": ModuleSettings()}),
        ):
            with self.assertRaises(ConfigError) as caught:
                self.start(modules=modules)
            error = f"modules.{name}: invalid name (/{name} is a path of the program)"
            self.assertEqual(str(caught.exception), error)

    def test_invalid_probe_is_rejected(self) -> None:
        """The stop of the readiness check must be a TimingPointCode."""
        with self.assertRaises(ConfigError) as caught:
            self.start(admin=AdminSettings(probe="x"))
        self.assertEqual(str(caught.exception), "admin.probe: invalid TimingPointCode 'x' (expected 1 to 10 digits)")

    def test_demo_starts_its_simulators(self) -> None:
        """The demo runs both simulators, and starts them before clients can connect."""
        self.addCleanup(self.stop)
        self.assertEqual(
            self.start(),
            [(8082, "kv55 callbacks"), (0, "simulated gateway"), (8081, "operators"), (8080, "govi-cache")],
        )
        server = cast(Server, self.reactor.tcpServers[-1][1])
        self.assertEqual(cast(Front, server.find_module("")).content().example, STATION)

    def test_gateway_has_no_simulator(self) -> None:
        """A module with a gateway starts no simulator."""
        self.assertEqual(
            self.start(modules={"kv55": GATEWAY}),
            [(8082, "kv55 callbacks"), (8081, "operators"), (8080, "govi-cache")],
        )

    def test_second_module_has_its_own_endpoint(self) -> None:
        """A second module has its own callback endpoint and its own path."""
        arriva = ModuleSettings(source="govi", callback="tcp:9082")
        ports = self.start(modules={"arriva": arriva, "kv55": ModuleSettings(source="govi")})
        self.assertEqual(
            ports, [(9082, "arriva callbacks"), (8082, "kv55 callbacks"), (8081, "operators"), (8080, "govi-cache")]
        )
        self.assertIsInstance(self.service, MultiService)
        server = cast(Server, self.reactor.tcpServers[-1][1])
        for name in ("kv55", "arriva", "", "board", "assets", "docs", "openapi.json"):
            self.assertEqual(cast(Service, server.find_module(name)).name, name)
        with self.assertRaises(KeyError):  # gateways have no list of stops
            server.find_module("places")
        self.assertIsInstance(cast(BoardPages, server.find_module("board")).source, CacheDisplays)

    def test_timetable_needs_no_callbacks(self) -> None:
        """With only a timetable there is no callback endpoint, and OVapi's paths are served next to /kv55."""
        feed = FeedSettings(addresses=(), timetable=self.directory, gtfs="")
        ports = self.start(modules={"kv55": LIVE}, feed=feed)
        self.addCleanup(self.service.stopService)
        self.assertNotIn((8082, "kv55 callbacks"), ports)
        self.assertEqual(ports[-1], (8080, "govi-cache"))
        server = cast(Server, self.reactor.tcpServers[-1][1])
        for name in ("kv55", "board", "places", "near", "siri", *PATHS):
            self.assertEqual(cast(Service, server.find_module(name)).name, name)
        self.assertIsInstance(cast(BoardPages, server.find_module("board")).source, FeedDisplays)

    def test_useless_callback_endpoint_is_logged(self) -> None:
        """A callback endpoint that is not used, or that the gateway cannot reach, is a warning."""
        events = EventLoggingObserver()
        globalLogPublisher.addObserver(events)
        self.addCleanup(globalLogPublisher.removeObserver, events)
        timetable = FeedSettings(timetable=self.directory, gtfs="")
        local = ModuleSettings(source="govi", gateway_url="http://127.0.0.1:8083/")
        for module in (LIVE, ModuleSettings(source="kv78turbo", callback="tcp:9"), local, GATEWAY):
            make_service(Config(modules={"kv55": module}, feed=timetable), self.reactor)
        warnings = [formatEvent(event) for event in events if event["log_level"] == LogLevel.warn]
        self.assertEqual(
            [warning.partition(";")[0] for warning in warnings],
            [
                "modules.kv55.callback (--callback): not used by source 'kv78turbo'",
                "modules.kv55.callback (--callback): tcp:8082:interface=127.0.0.1: only reachable from this machine, "
                "but the gateway is gateway.invalid",
            ],
        )

    def test_no_operators_endpoint(self) -> None:
        """Without an admin endpoint the program listens only for clients and callbacks."""
        self.assertEqual(
            self.start(modules={"kv55": GATEWAY}, admin=AdminSettings(listen="")),
            [(8082, "kv55 callbacks"), (8080, "govi-cache")],
        )

    def test_services_stop_in_order(self) -> None:
        """On SIGTERM the public server stops first, then the sources, the snapshots and the statistics log."""
        statistics = StatisticsSettings(file=os.path.join(self.directory, "statistics.log"))
        snapshot = SnapshotSettings(file=os.path.join(self.directory, "snapshot"))
        self.start(modules={"kv55": GATEWAY}, statistics=statistics, snapshot=snapshot)
        stopped: list[str] = []

        def recording(service: IService) -> Callable[[], object]:
            stop = service.stopService

            def stop_service() -> object:
                stopped.append(type(service).__name__)
                return stop()

            return stop_service

        for service in self.service:
            self.patch(service, "stopService", recording(service))
        self.stop()
        public, operations, sources = ["OrderedMultiService"] * 3
        self.assertEqual(
            stopped, [public, operations, "MultiService", sources, "Snapshots", "StatisticsLog", "ClockWatch"]
        )
