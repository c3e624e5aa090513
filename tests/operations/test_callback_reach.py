"""Tests of govi_server.operations.callback_reach."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.addresses import parse_ip
from govi_server.operations.callback_reach import find_obstacle, gateway_host, known_addresses
from govi_server.settings import ModuleSettings


class CallbackReachTests(SynchronousTestCase):
    """What keeps callbacks from arriving."""

    def obstacle(self, url: str, *addresses: str, **settings: object) -> str | None:
        """Return the setting to correct; addresses: of the gateway, by default those known from its URL."""
        module = ModuleSettings("govi", url, **settings)  # type: ignore[arg-type]
        obstacle = find_obstacle(module, list(map(parse_ip, addresses)) or known_addresses(gateway_host(url)))
        return obstacle and obstacle.setting

    def test_gateway_on_another_machine(self) -> None:
        """Its callbacks need an endpoint that it can reach, in any form, and its network in allow."""
        networks = {"allow": ("192.0.2.0/24", "2001:db8::/32")}
        for url in ("http://gateway.example/x", "http://192.0.2.7:80/", "https://[2001:db8::1]/"):
            for loopback in (
                "tcp:8082:interface=127.0.0.1",
                r"tcp6:8082:interface=\:\:1",
                "tcp:8082:interface=localhost",
            ):
                self.assertEqual(self.obstacle(url, callback=loopback, **networks), "callback", (url, loopback))
            for public in ("tcp:8082", "haproxy:tcp:8082", "systemd:index=1"):
                self.assertEqual(self.obstacle(url, callback=public), "allow", (url, public))
                self.assertIsNone(self.obstacle(url, callback=public, **networks), (url, public))
            self.assertIsNone(self.obstacle(url, callback="unix:/run/x"))

    def test_addresses_of_a_name(self) -> None:
        """Of the addresses of a gateway, one in allow is enough."""
        networks = {"callback": "tcp:8082", "allow": ("192.0.2.0/24",)}
        self.assertIsNone(self.obstacle("http://gateway.example/", "192.0.2.1", "2001:db8::1", **networks))
        self.assertEqual(self.obstacle("http://gateway.example/", "198.51.100.1", **networks), "allow")

    def test_gateway_on_this_machine(self) -> None:
        """It reaches the default endpoint, unless allow omits loopback."""
        for url in ("http://127.0.0.1:8083/", "http://localhost/", "http://[::1]/"):
            self.assertIsNone(self.obstacle(url))
            self.assertEqual(self.obstacle(url, allow=("192.0.2.0/24",)), "allow")
            self.assertEqual(self.obstacle(url, allow=()), "allow")
