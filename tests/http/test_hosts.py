"""The hosts of requests to private ports."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.hosts import rejected_host, rejection

OWN = (
    "localhost", "localhost:8081", "LOCALHOST", "localhost.", "localhost.:8081", "govi.localhost", "a.b.localhost:1",
    "127.0.0.1", "127.0.0.1:8081", "127.0.0.1.", "192.168.1.10:8081", "8.8.8.8", "[::1]", "[::1]:8081",
    "[fd00::1]:80", "[::ffff:127.0.0.1]", "localhost:",
)  # fmt: skip
FOREIGN = (
    "attacker.example", "attacker.example:8081", "localhost.attacker.example", "notlocalhost", "localhost.example",
    "127.0.0.1.attacker.example", "127.0.0.1.nip.io", "attacker.example.", "", ":8081", "127.1", "0x7f000001",
    "2130706433", "localhost@attacker.example", "localhost:80@attacker.example", "attacker.example:127.0.0.1",
    "[attacker.example]", "[::1].attacker.example", "[::1]attacker.example", "localhost attacker.example",
    "localhost,attacker.example", "attacker.example#localhost", "127.0.0.1%attacker.example", "xn--localhost-",
)  # fmt: skip


class HostTests(SynchronousTestCase):
    """Which hosts may belong to another site."""

    def test_addresses_and_localhost_are_accepted(self) -> None:
        """An IP address and localhost are accepted, with any port, case and final dot."""
        for host in OWN:
            self.assertIsNone(rejected_host([host], ()), host)

    def test_other_names_are_rejected(self) -> None:
        """Any other name is rejected, also one that contains an address or localhost."""
        for host in FOREIGN:
            self.assertEqual(rejected_host([host], ()), host)

    def test_allowed_names(self) -> None:
        """The names of the setting are accepted with any port, case and final dot, but not names below them."""
        allowed = ("Status.example.org", "govi")
        for host in ("status.example.org", "STATUS.example.org:8081", "status.example.org.", "govi:8081"):
            self.assertIsNone(rejected_host([host], allowed), host)
        for host in ("a.status.example.org", "example.org", "govi.example"):
            self.assertEqual(rejected_host([host], allowed), host)

    def test_every_host_counts(self) -> None:
        """Of several hosts all must be accepted; a request without a host is, since no browser sends one."""
        self.assertEqual(rejected_host(["localhost", "attacker.example"], ()), "attacker.example")
        self.assertEqual(rejected_host(["attacker.example", "localhost"], ()), "attacker.example")
        self.assertIsNone(rejected_host([], ()))

    def test_rejection_names_the_setting(self) -> None:
        """The text names the setting, and the host without control characters and cut."""
        text = rejection("\x1b[2J\u202e" + "x" * 1000)
        self.assertIn("admin.hosts", text)
        self.assertTrue(text.removesuffix("\n").isprintable())
        self.assertLess(len(text), 250)
