"""The limits of clients: connections and the rate of requests."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, INegotiated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from govi_server.http import client_limits
from govi_server.http.client_limits import ClientLimits
from govi_server.http.request import Environ, parse
from govi_server.server import RejectConnection
from govi_server.settings import AccessSettings
from tests.client import NOW, Client, WireTestCase

LOCAL = ("127.0.0.0/8",)


def at(host: str) -> IAddress:
    """Return the address of a peer."""
    return IPv6Address("TCP", host, 1) if ":" in host else IPv4Address("TCP", host, 1)


def request(*fields: str) -> Environ:
    return parse("GET / HTTP/1.0\n" + "".join(f"{field}\n" for field in fields) + "\n")


class ClientLimitsTestCase(SynchronousTestCase):
    """A test case that has ClientLimits with small limits."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        settings = AccessSettings(
            per_client=2, rate=2, burst=4, unlimited=("127.0.0.0/8", "2001:db8:ffff::/48"), proxies=("192.0.2.0/28",)
        )
        self.limits = ClientLimits(self.clock, settings)

    def wait(self, host: str = "198.51.100.1") -> float:
        """Charge a request of a client; return the seconds to wait."""
        return self.limits.seconds_to_wait(self.limits.peer(at(host)).rate_key)


class ConnectionTests(ClientLimitsTestCase):
    """Connections of one client."""

    def acquire_connection(self, addr: IAddress | None) -> bool:
        return self.limits.acquire_connection(self.limits.peer(addr))

    def release_connection(self, addr: IAddress) -> None:
        self.limits.release_connection(self.limits.peer(addr))

    def test_connections_per_client_are_limited(self) -> None:
        """The connections of a client are limited, independently of other clients."""
        self.assertEqual([self.acquire_connection(at("198.51.100.1")) for _ in range(3)], [True, True, False])
        self.assertTrue(self.acquire_connection(at("198.51.100.2")))
        self.release_connection(at("198.51.100.1"))
        self.release_connection(at("198.51.100.1"))
        self.assertTrue(self.acquire_connection(at("198.51.100.1")))

    def test_ipv6_client_is_a_network(self) -> None:
        """An IPv6 client is a /64; an IPv4 address mapped into IPv6 is the same client as the address itself."""
        hosts = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"]
        self.assertEqual([self.acquire_connection(at(host)) for host in hosts], [True, True, False, True])
        hosts = ["198.51.100.1", "::ffff:198.51.100.1", "198.51.100.1"]
        self.assertEqual([self.acquire_connection(at(host)) for host in hosts], [True, True, False])

    def test_configured_networks_are_unlimited(self) -> None:
        """The configured networks and unix sockets are unlimited."""
        for addr in (at("127.0.0.1"), at("2001:db8:ffff::1"), UNIXAddress(b"/x"), None):
            self.assertTrue(all(self.acquire_connection(addr) for _ in range(9)))

    def test_trusted_proxies_are_unlimited(self) -> None:
        """The connections of a trusted proxy, which has many clients, are unlimited."""
        self.assertTrue(all(self.acquire_connection(at("192.0.2.9")) for _ in range(9)))

    def test_client_without_connections_is_dropped(self) -> None:
        """A client without connections is no longer tracked."""
        for n in range(100):
            self.acquire_connection(at(f"198.51.100.{n}"))
            self.release_connection(at(f"198.51.100.{n}"))
        self.assertEqual(len(self.limits._connections), 0)


class RateTests(ClientLimitsTestCase):
    """Requests of one client."""

    def test_burst_and_rate(self) -> None:
        """A client may send a burst of requests, and then as many as the rate allows."""
        self.assertEqual([self.wait() for _ in range(6)], [0, 0, 0, 0, 0.5, 0.5])
        self.clock.advance(0.5)
        self.assertEqual([self.wait(), self.wait()], [0, 0.5])
        self.clock.advance(1)
        self.assertEqual([self.wait(), self.wait(), self.wait()], [0, 0, 0.5])

    def test_burst_is_exact_at_any_rate(self) -> None:
        """The burst is exact at any rate."""
        for rate in (1, 3, 7, 10, 30, 50, 60, 70, 90):
            for burst in (2, 3, 10, 500):
                limits = ClientLimits(self.clock, AccessSettings(rate=rate, burst=burst))
                waits = [limits.seconds_to_wait(limits.peer(at("198.51.100.1")).rate_key) for _ in range(burst + 5)]
                self.assertEqual([wait == 0 for wait in waits], [True] * burst + [False] * 5, (rate, burst))

    def test_request_is_charged_its_cost(self) -> None:
        """A request is charged its cost, at most the burst."""
        limits = ClientLimits(self.clock, AccessSettings(rate=2, burst=10))
        self.assertEqual([limits.seconds_to_wait("a", 4) for _ in range(3)], [0, 0, 1])
        self.clock.advance(1)
        self.assertEqual([limits.seconds_to_wait("a", 4), limits.seconds_to_wait("a")], [0, 0.5])
        self.assertEqual([limits.seconds_to_wait("b", 100) for _ in range(2)], [0, 5])

    def test_burst_is_restored(self) -> None:
        """After a pause the client has its full burst, and no more."""
        for _ in range(4):
            self.wait()
        self.clock.advance(1000)
        self.assertEqual([self.wait() for _ in range(5)], [0, 0, 0, 0, 0.5])

    def test_clients_are_separate(self) -> None:
        """Each client has its own rate; unlimited clients have none."""
        for _ in range(9):
            self.wait()
        self.assertEqual(self.wait("198.51.100.2"), 0)
        self.assertEqual({self.wait("127.0.0.1") for _ in range(99)}, {0})

    def test_clock_set_back(self) -> None:
        """A clock that is set back does not lock a client out."""
        for _ in range(9):
            self.wait()
        self.clock.rightNow -= 86400
        self.assertEqual(self.wait(), 0)

    def test_clock_set_back_by_less(self) -> None:
        """Requests before the clock was set back do not count again when it has nearly caught up."""
        for _ in range(9):
            self.wait()
        self.clock.rightNow -= 60
        self.limits.clock_set_back()
        self.clock.advance(59.5)
        self.assertEqual(self.wait(), 0)

    def test_tracked_clients_are_bounded(self) -> None:
        """At most MAX_CLIENTS clients are tracked."""
        self.patch(client_limits, "MAX_CLIENTS", 10)
        for n in range(100):
            self.wait(f"198.51.100.{n}")
        self.assertEqual(len(self.limits._busy_until), 10)

    def test_inactive_clients_are_evicted(self) -> None:
        """Clients whose requests do not count any more make room for new ones."""
        for i in range(10):
            self.limits.seconds_to_wait(f"192.0.2.{i}")
        self.clock.advance(60)
        for i in range(10):
            self.limits.seconds_to_wait(f"198.51.100.{i}")
        self.assertEqual(list(self.limits._busy_until), [f"198.51.100.{i}" for i in range(10)])


class ForwardedTests(ClientLimitsTestCase):
    """The client of a request that proxies forward."""

    def address(self, peer: str, *fields: str) -> str:
        return str(self.limits.address(at(peer), request(*fields)))

    def test_fields_of_untrusted_peer_are_ignored(self) -> None:
        """The fields of an untrusted peer are ignored."""
        for field in ("X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9"):
            self.assertEqual(self.address("198.51.100.1", field), "198.51.100.1")

    def test_field_of_trusted_proxy(self) -> None:
        """Every form of a trusted proxy's field is parsed; the last address that is not a proxy is the client."""
        for header, value, client in [
            ("X-Forwarded-For", "203.0.113.9", "203.0.113.9"),
            ("X-Forwarded-For", "10.0.0.1, 203.0.113.9", "203.0.113.9"),
            ("X-Forwarded-For", "203.0.113.9, 192.0.2.2", "203.0.113.9"),
            ("X-Forwarded-For", "203.0.113.9:4711", "203.0.113.9"),
            ("X-Forwarded-For", "2001:db8::9", "2001:db8::9"),
            ("X-Forwarded-For", "[2001:db8::9]:4711", "2001:db8::9"),
            ("X-Forwarded-For", "::ffff:203.0.113.9", "203.0.113.9"),
            ("Forwarded", "for=203.0.113.9;proto=http;by=192.0.2.1", "203.0.113.9"),
            ("Forwarded", 'proto=http; FOR="203.0.113.9:4711"', "203.0.113.9"),
            ("Forwarded", 'for="[2001:db8::9]:4711"', "2001:db8::9"),
            ("Forwarded", "for=10.0.0.1, for=203.0.113.9", "203.0.113.9"),
            # An element without an address ends the search: the sender of those before it is unknown.
            ("Forwarded", "for=203.0.113.9, for=unknown", "192.0.2.1"),
            ("Forwarded", "for=203.0.113.9, for=_hidden", "192.0.2.1"),
            ("Forwarded", "for=203.0.113.9, proto=http", "192.0.2.1"),
            ("X-Forwarded-For", "203.0.113.9, 999.1.1.1", "192.0.2.1"),
            ("X-Forwarded-For", "203.0.113.9, unknown", "192.0.2.1"),
        ]:
            self.limits = self.limits_of(header)
            self.assertEqual(self.address("192.0.2.1", f"{header}: {value}"), client, value)

    def test_empty_elements_are_ignored(self) -> None:
        """Empty list elements are legal, and ignored, wherever they are (RFC 9110 section 5.6.1.2)."""
        for header, first, last in (
            ("X-Forwarded-For", "10.0.0.1", "203.0.113.9"),
            ("Forwarded", "for=10.0.0.1", "for=203.0.113.9"),
        ):
            self.limits = self.limits_of(header)
            for template in (
                "{0},{1},",
                "{0},{1} ,\t,",
                ",{1}",
                " , ,{1}",
                "{0},,{1}",
                "{0},{1},\n{name}: ",
                "{0},\n{name}:{1}",
            ):
                value = template.format(first, last, name=header)
                self.assertEqual(self.address("192.0.2.1", f"{header}: {value}"), "203.0.113.9", value)
            for value in ("", ",", " ,, "):
                self.assertEqual(self.address("192.0.2.1", f"{header}: {value}"), "192.0.2.1", value)

    def test_only_the_configured_field_is_read(self) -> None:
        """A field that the proxy does not set comes from the client, and is not read."""
        fields = {"X-Forwarded-For": "X-Forwarded-For: 203.0.113.1", "Forwarded": "Forwarded: for=203.0.113.2"}
        others = ("X-Real-IP: 203.0.113.3", "Via: 203.0.113.4", "X_Forwarded_For: 203.0.113.5")
        for header, clients in {
            "X-Forwarded-For": ("203.0.113.1", "192.0.2.1"),
            "Forwarded": ("192.0.2.1", "203.0.113.2"),
            "": ("192.0.2.1", "192.0.2.1"),
        }.items():
            self.limits = self.limits_of(header)
            for field, client in zip(fields.values(), clients, strict=True):
                self.assertEqual(self.address("192.0.2.1", field, *others), client, (header, field))
                is_forwarded = self.limits.is_forwarded(request(field, *others))
                self.assertEqual(is_forwarded, client != "192.0.2.1", (header, field))
            both = self.address("192.0.2.1", *fields.values())
            self.assertEqual(both, max(clients, key=lambda client: client != "192.0.2.1"))

    def limits_of(self, header: str) -> ClientLimits:
        """Return the limits behind proxies that set a header field."""
        return ClientLimits(self.clock, AccessSettings(proxies=("192.0.2.0/28",), header=header))

    @settings(deadline=None)
    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
    def test_any_field_value_has_an_address(self, value: str) -> None:
        """Any value of the fields results in an address."""
        for name in ("Forwarded", "X-Forwarded-For"):
            self.limits = self.limits_of(name)
            self.address("192.0.2.1", f"{name}: {value}")


class ServerTests(WireTestCase):
    """The connections of a server."""

    def setUp(self) -> None:
        super().setUp()
        settings = AccessSettings(
            connections=3, per_client=2, rate=1, burst=2, unlimited=("127.0.0.0/8",), proxies=("127.0.0.0/8",)
        )
        self.server.access = ClientLimits(self.clock, settings)

    def connect(self, host: str = "127.0.0.1") -> Client:
        return Client(self.server, at(host))

    def rejection(self, host: str) -> bytes:
        """Return the response to a rejected connection."""
        client = self.connect(host)
        self.assertTrue(client.closed)
        return client.received()

    def test_connection_over_the_limit_is_rejected(self) -> None:
        """A connection over the limit of its client is rejected; once another has closed, the next is accepted."""
        first, _ = self.connect("198.51.100.1"), self.connect("198.51.100.1")
        response = self.rejection("198.51.100.1")
        self.assertTrue(response.startswith(b"HTTP/1.1 429 Too Many Requests\r\n"))
        for line in (b"Retry-After: 5", b"Connection: close", b"Access-Control-Allow-Origin: *", b"Date: "):
            self.assertIn(b"\r\n" + line, response)
        first.leave()
        self.assertFalse(self.connect("198.51.100.1").closed)

    def test_oldest_idle_connection_is_dropped(self) -> None:
        """At the limit the connection that has been idle longest makes room."""
        clients = [self.connect() for _ in range(3)]
        for client in (clients[1], clients[0]):
            self.clock.advance(1)
            client.get("/parrot/text/a")
        newcomer = self.connect()
        self.assertEqual([client.closed for client in clients], [False, True, False])
        clients[1].leave()
        newcomer.get("/parrot/text/b")
        self.assertEqual(newcomer.response().body, b"b")

    def test_idle_connection_is_dropped_while_files_are_scarce(self) -> None:
        """While only spare files are left, an idle connection makes room; without one, the new one is accepted."""
        self.server.accepting.scarce = True
        idle = self.connect()
        idle.get("/parrot/text/a")
        busy = self.connect()
        self.assertTrue(idle.closed)
        idle.leave()
        busy.get("/parrot/defer")
        newcomer = self.connect()
        newcomer.get("/parrot/text/a")
        self.assertEqual(newcomer.response().body, b"a")

    def test_lingering_connection_is_dropped_first(self) -> None:
        """A lingering connection makes room before an idle one, and each only once."""
        idle, *lingering = (self.connect() for _ in range(3))
        idle.get("/parrot/text/a")
        for client in lingering:
            client.get("/parrot/text/a", Connection="close")
        for n in (1, 2):
            self.connect()
            self.assertEqual([client.transport.disconnected for client in lingering], [True, n == 2])
            self.assertFalse(idle.closed)
        self.connect()
        self.assertTrue(idle.closed)

    def test_unfinished_request_is_dropped(self) -> None:
        """If no connection is idle, the oldest with an incomplete request makes room."""
        waiting, slow, slower = (self.connect() for _ in range(3))
        waiting.get("/parrot/defer")
        slow.send(b"GET /")
        self.connect()
        self.assertEqual([client.closed for client in (waiting, slow, slower)], [False, True, False])

    def test_connection_without_room_is_rejected(self) -> None:
        """If all connections have a request in flight, a new one is rejected."""
        clients = [self.connect() for _ in range(3)]
        for client in clients:
            client.get("/parrot/defer")
        self.assertTrue(self.rejection("127.0.0.1").startswith(b"HTTP/1.1 503 Service Unavailable\r\n"))
        self.assertFalse(any(client.closed for client in clients))

    def test_request_over_the_rate_is_rejected(self) -> None:
        """A request over the rate gets 429 with Retry-After, and pipelined requests after it get no response."""
        self.server.access = ClientLimits(self.clock, AccessSettings(rate=1, burst=2))
        client = self.connect("198.51.100.1")
        client.send(b"GET /parrot/text/a HTTP/1.1\r\nHost: x\r\n\r\n" * 9)
        *_, rejection = client.responses()
        self.assertEqual(
            (rejection.status, rejection.headers["Retry-After"], rejection.headers["Connection"]), (429, "1", "close")
        )
        self.assertEqual(len(self.parrot.handlers), 2)
        self.clock.advance(1)
        client = self.connect("198.51.100.1")
        client.get("/parrot/text/a")
        self.assertEqual(client.response().status, 200)

    def test_unknown_methods_are_charged(self) -> None:
        """Requests with unknown methods are charged, too."""
        self.server.access = ClientLimits(self.clock, AccessSettings(rate=1, burst=2))
        client = self.connect("198.51.100.1")
        client.send(b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n" * 4)
        self.assertEqual([response.status for response in client.responses()], [501, 501, 429])

    def test_rejection_over_tls_aborts(self) -> None:
        """A rejected TLS connection is aborted: its client could hold the handshake open."""
        protocol = RejectConnection(self.server, "429 Too Many Requests", "")
        transport = StringTransport()
        directlyProvides(transport, INegotiated)
        protocol.makeConnection(transport)
        self.assertEqual((transport.value(), transport.disconnected), (b"", True))

    def test_field_of_the_client_does_not_lift_its_limit(self) -> None:
        """Behind a proxy that sets X-Forwarded-For, a client's own Forwarded does not lift its limit or rename it."""
        client = self.connect()
        for n in range(4):
            client.get("/parrot/text/a", X_Forwarded_For="203.0.113.9", Forwarded=f"for=198.51.{n}.1")
        self.assertEqual([response.status for response in client.responses()], [200, 200, 429, 429])
        client.leave()
        self.assertEqual({line.client for line in self.statistics}, {"203.0.113.0/24"})

    def test_rate_behind_a_proxy(self) -> None:
        """Behind a proxy each client has its own rate, and its own lines in the statistics."""
        client = self.connect()
        for host in ("203.0.113.9", "203.0.113.9", "203.0.113.9", "198.51.100.1"):
            client.get("/parrot/text/a", X_Forwarded_For=host)
        self.assertEqual([response.status for response in client.responses()], [200, 200, 429, 200])
        client.leave()
        lines = [(line.client, line.end, len(line.requests)) for line in self.statistics]
        self.assertEqual(lines, [("203.0.113.0/24", "open", 3), ("198.51.100.0/24", "client", 1)])

    def test_closed_connections_are_released(self) -> None:
        """Closed connections are not counted, however they ended."""
        for n in range(20):
            client = self.connect(f"198.51.100.{n % 3}")
            if not client.closed and n % 4:
                client.get("/parrot/defer")
        for connection in list(self.server.connections):
            connection.connectionLost()
        self.assertEqual(len(self.server.access._connections), 0)
