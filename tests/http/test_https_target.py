"""Tests of https URLs as request targets (RFC 9110 section 7.4): only TLS or a trusted gateway may send them."""

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IAddress, INegotiated
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from govi_server.http.client_limits import ClientLimits
from govi_server.settings import AccessSettings
from govi_server.sockets.proxy_protocol import ProxyFactory
from tests.client import Client
from tests.examples import Program

REQUEST = b"GET https://cache.example/kv55/57330430 HTTP/1.1\r\nHost: cache.example\r\n\r\n"
PEER = IPv4Address("TCP", "192.0.2.1", 1)


class HttpsTargetTests(SynchronousTestCase):
    """The demo, with a proxy."""

    def setUp(self) -> None:
        self.program = Program("demo")
        access = AccessSettings(proxies=("198.51.100.1/32",))
        self.program.server.access = ClientLimits(self.program.server.clock, access)

    def client(self, addr: IAddress = PEER, tls: bool = False) -> Client:
        client = Client(self.program.server, addr)
        if tls:
            alsoProvides(client.transport, INegotiated)
        return client

    def test_status_by_connection(self) -> None:
        """Without TLS the response is 421, unless a proxy or a peer on a unix socket forwards the request."""
        proxy, unix = IPv4Address("TCP", "198.51.100.1", 1), UNIXAddress("/run/x")
        for client, status in (
            (self.client(), 421), (self.client(tls=True), 200), (self.client(proxy), 200), (self.client(unix), 200),
        ):  # fmt: skip
            for _ in range(3):
                client.send(REQUEST)
                self.assertEqual(client.response().status, status)

    def test_proxy_protocol(self) -> None:
        """A proxy that sends a PROXY header is a trusted gateway: the client's connection to it may have had TLS."""
        server = self.program.server
        for header in (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"PROXY UNKNOWN\r\n"):
            transport = StringTransport(peerAddress=PEER)
            protocol = ProxyFactory(server, server.clock).buildProtocol(PEER)
            protocol.makeConnection(transport)
            protocol.dataReceived(header + REQUEST)
            self.assertRegex(transport.value(), b"^HTTP/1.1 200 ")

    def test_fast_path(self) -> None:
        """A request that was served with TLS gets a 421 without; http needs no TLS."""
        plain = self.client()
        for scheme, status in ((b"https", 421), (b"http", 200)):
            request = REQUEST.replace(b"https", scheme)
            for client, expected in ((self.client(tls=True), 200), (plain, status)):
                for _ in range(2):
                    client.send(request)
                    self.assertEqual(client.response().status, expected)
