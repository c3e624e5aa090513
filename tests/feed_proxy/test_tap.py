"""Tests of the command `twistd govi-feed-proxy`."""

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.feed_proxy import tap
from govi_server.feed_proxy.proxy import FeedProxy
from govi_server.feed_proxy.site import ProxySite
from govi_server.runtime.ordered_services import OrderedMultiService

FEED = "tcp://feed.example:7817"


class FeedProxyCommandTests(SynchronousTestCase):
    """The options, and the service that they make."""

    def service(self, *arguments: str) -> OrderedMultiService:
        options = tap.Options()
        options.parseOptions(arguments)
        service = tap.makeService(options, MemoryReactorClock())
        assert isinstance(service, OrderedMultiService)
        return service

    def test_options(self) -> None:
        """The proxy has the addresses of the options; /health is on loopback by default."""
        listener, proxy = self.service("--feed", FEED, "-f", "ipc:///run/feed", "--publish", "tcp://*:7817")
        assert isinstance(proxy, FeedProxy)
        self.assertEqual(proxy.publisher.address, "tcp://*:7817")
        reactor = proxy.reactor
        listener.privilegedStartService()
        ((port, site, _, interface),) = reactor.tcpServers
        self.assertEqual((port, interface), (8084, "127.0.0.1"))
        self.assertIsInstance(site, ProxySite)

    def test_without_endpoint(self) -> None:
        """An empty --admin disables the endpoint."""
        (proxy,) = self.service("--feed", FEED, "--publish", "ipc:///run/proxy", "--admin", "")
        self.assertIsInstance(proxy, FeedProxy)

    def test_required_options(self) -> None:
        """A missing option is an error that names it."""
        for arguments, option in (((), "--feed"), (("--feed", FEED), "--publish"), (("--publish", FEED), "--feed")):
            error = self.assertRaises(SystemExit, tap.Options().parseOptions, arguments)
            self.assertEqual(
                str(error), f"govi-feed-proxy: {option}: required, a ZeroMQ address such as tcp://127.0.0.1:7817"
            )

    def test_invalid_options(self) -> None:
        """The error of an invalid option is one line that names it, the value and what was expected."""
        for option, value, text in (
            ("--feed", "feed.example:7817", "invalid feed address 'feed.example:7817'; did you mean '" + FEED + "'?"),
            ("--feed", "tcp://feed.example", "invalid feed address 'tcp://feed.example' (expected tcp://host:port)"),
            ("--feed", "tcp://*:7817", "invalid feed address 'tcp://*:7817' (expected tcp://host:port)"),
            ("--publish", "*:7817", "invalid feed address '*:7817'; did you mean 'tcp://*:7817'?"),
            ("--publish", "http://x:1", "invalid feed address 'http://x:1'; did you mean 'tcp://x:1'?"),
            ("--publish", "tcp://x:99999", "invalid feed address 'tcp://x:99999' (expected tcp://host:port)"),
            ("--admin", "8084", "invalid endpoint '8084'"),
        ):
            options = {"--feed": FEED, "--publish": "tcp://127.0.0.1:7817", option: value}
            arguments = [word for item in options.items() for word in item]
            error = self.assertRaises(SystemExit, self.service, *arguments)
            self.assertTrue(str(error).startswith(f"govi-feed-proxy: {option}: {text}"), error)
            self.assertNotIn("\n", str(error))
