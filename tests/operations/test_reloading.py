"""Tests of govi_server.operations.reloading, and of what the program reloads."""

from ipaddress import ip_address
from typing import Any, cast

import msgspec
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from govi_server.application import make_service
from govi_server.errors import ConfigError
from govi_server.operations.reloading import Reloading
from govi_server.runtime.program import Program
from govi_server.server import Server
from govi_server.settings import AccessSettings, AdminSettings, Config, LogSettings, ModuleSettings

BASE = Config(modules={"kv55": ModuleSettings(source="govi", gateway_url="http://gateway.invalid/")})


class ReloadingTests(SynchronousTestCase):
    """Reloading a configuration."""

    def setUp(self) -> None:
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)

    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events if event["log_namespace"].endswith("Reloading")]

    def test_changed_settings(self) -> None:
        """Changed settings are applied once, or reported to need a restart, every time."""
        current, applied = [BASE], []
        reloading = Reloading(
            BASE, lambda: current[0], {"admin.hosts": [lambda config: applied.append(config.admin)]}
        )
        reloading.reload()
        self.assertEqual((self.lines(), applied), ([], []))
        current[0] = msgspec.structs.replace(BASE, admin=AdminSettings(hosts=("a",)), listen=("tcp:1",))
        restart = "listen: has changed; needs a restart"
        reloading.reload()
        self.assertEqual((self.lines(), applied), ([restart, "admin.hosts: reloaded"], [current[0].admin]))
        reloading.reload()
        self.assertEqual((self.lines()[2:], len(applied)), ([restart], 1))
        current[0] = BASE
        reloading.reload()
        self.assertEqual((self.lines()[3:], len(applied)), (["admin.hosts: reloaded"], 2))

    def test_configuration_in_force(self) -> None:
        """The configuration in force has the settings that were reloaded, and the previous values of the others."""
        current = [msgspec.structs.replace(BASE, admin=AdminSettings(hosts=("a",), probe="1"), listen=("tcp:1",))]
        reloading = Reloading(BASE, lambda: current[0], {"admin.hosts": []})
        reloading.reload()
        self.assertEqual(reloading.config, msgspec.structs.replace(BASE, admin=AdminSettings(hosts=("a",))))

    def test_removed_module(self) -> None:
        """A module that was removed needs a restart, and does not prevent other settings from being applied."""
        two = msgspec.structs.replace(BASE, modules={**BASE.modules, "other": BASE.modules["kv55"]})
        changed = msgspec.structs.replace(BASE, admin=AdminSettings(hosts=("a",)))
        appliers = {
            "admin.hosts": [lambda config: config.admin],
            "modules.other.allow": [lambda config: config.modules["other"]],
        }
        Reloading(two, lambda: changed, appliers).reload()
        self.assertIn("modules.other.allow: has changed; needs a restart", self.lines())
        self.assertIn("admin.hosts: reloaded", self.lines())

    def test_invalid_configuration(self) -> None:
        """An invalid configuration changes nothing, and is logged."""

        def load() -> Config:
            raise ConfigError("x.toml: listen: invalid")

        Reloading(BASE, load, {}).reload()
        self.assertEqual(self.lines(), ["Configuration not reloaded: x.toml: listen: invalid"])

    def test_program(self) -> None:
        """The program applies limits of clients, networks, hosts and log levels; other settings need a restart."""
        current = [BASE]
        reactor = MemoryReactorClock()
        program = cast(Program, make_service(BASE, reactor, None, lambda: current[0]))
        program.privilegedStartService()
        access = AccessSettings(rate=1, burst=2, unlimited=("192.0.2.0/24",), connections=5)
        modules = {"kv55": msgspec.structs.replace(BASE.modules["kv55"], allow=("198.51.100.0/24",))}
        current[0] = msgspec.structs.replace(
            BASE,
            access=access,
            modules=modules,
            log=LogSettings(levels=("a=debug",)),
            admin=AdminSettings(hosts=("x",)),
        )
        program.reload()
        needing_restart = [line for line in self.lines() if "restart" in line]
        self.assertEqual(needing_restart, ["access.connections: has changed; needs a restart"])
        servers: dict[str, Any] = {cast(Server, server).logPrefix(): server for _, server, _, _ in reactor.tcpServers}
        self.assertEqual(servers["govi-cache"].access.limits.rate, 1)
        self.assertGreater(servers["govi-cache"].access.limits.connections, 5)
        self.assertEqual([servers["operators"].rejected_host([host]) for host in ("x", "y")], [None, "y"])
        callback = servers["kv55 callbacks"].find_module("")
        self.assertTrue(callback.allows(ip_address("198.51.100.1")))
        loopback = ip_address("127.0.0.1")
        self.assertEqual([callback.rejected_host(loopback, {"http_host": host}) for host in ("x", "y")], [None, "y"])
