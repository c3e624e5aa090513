"""Listening on endpoints."""

from errno import EADDRINUSE
from socket import socket, socketpair
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent

from govi_server.errors import StartupError
from govi_server.sockets.listener import Listener, report_address, server_service
from govi_server.sockets.poller import Poller
from govi_server.sockets.ports import MAX_ACCEPT_DELAY, READ_BYTES
from tests.client import WireTestCase


class _PortInUse(MemoryReactorClock):
    def listenTCP(self, port, factory, backlog=50, interface=""):  # type: ignore[no-untyped-def]  # as in its base
        raise CannotListenError(interface, port, OSError(EADDRINUSE, "Address already in use"))


class ListenerTests(WireTestCase):
    """Listener, and the services of a server."""

    def test_listens_on_every_endpoint(self) -> None:
        """The server listens on every endpoint, and each address is reported."""
        reactor = MemoryReactorClock()
        schemes: list[str] = []
        services = server_service(
            reactor,
            "--listen",
            ["tcp:8080", "tcp:8443:interface=127.0.0.1"],
            self.server,
            lambda address, scheme: schemes.append(scheme),
        )
        services.privilegedStartService()
        services.startService()
        self.assertEqual(
            [(port, factory) for port, factory, _, _ in reactor.tcpServers],
            [(8080, self.server), (8443, self.server)],
        )
        self.assertEqual(schemes, ["http", "http"])

    def test_addresses_are_reported_when_all_endpoints_listen(self) -> None:
        """No address is logged or reported before the services start, and that of a proxy's endpoint is not a URL."""
        schemes: list[str] = []
        endpoints = ["tcp:8080", "haproxy:tcp:8081"]
        with capturedLogs() as events:
            services = server_service(
                MemoryReactorClock(),
                "--listen",
                endpoints,
                self.server,
                lambda address, scheme: schemes.append(scheme),
            )
            services.privilegedStartService()
            self.assertEqual((schemes, list(events)), ([], []))
            services.startService()
        self.assertEqual(schemes, ["http"])
        self.assertEqual([formatEvent(event).partition(" on ")[0] for event in events], ["Listening", "Listening"])

    def test_each_address_is_logged_once(self) -> None:
        """The line of an address has its scheme, if it is https, and the URL that people may open."""
        address = IPv4Address("TCP", "0.0.0.0", 8443)
        tls = SSL4ServerEndpoint(MemoryReactorClock(), 8443, None)
        with capturedLogs() as events:
            report_address(address, tls, "test", lambda address, scheme: f"{scheme}://localhost:8443/")
            report_address(address, tls, "test", lambda address, scheme: None)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "Listening on https://0.0.0.0:8443 for test: https://localhost:8443/",
                "Listening on https://0.0.0.0:8443 for test",
            ],
        )

    def test_stops_listening_before_draining(self) -> None:
        """The services stop listening first, and have stopped when the last connection is closed."""
        services = server_service(MemoryReactorClock(), "--listen", ["tcp:8080"], self.server)
        services.startService()
        client = self.client()
        client.get("/parrot/defer")
        stopped = services.stopService()
        self.assertNoResult(stopped)
        self.assertTrue(self.server.draining)
        self.parrot.waiting.pop().callback("a")
        self.assertEqual(client.response().body, b"a")
        client.leave()
        self.successResultOf(stopped)

    def prepared_port(self) -> Port:
        reactor = MemoryReactorClock()
        listener = Listener(reactor, "--listen", "tcp:8080", self.server)
        port = Port(8080, ServerFactory(), reactor=reactor)
        port.socket = socket()
        self.addCleanup(port.socket.close)
        listener.prepare(port)
        return port

    def test_connections_wait_for_those_that_are_ready(self) -> None:
        """While open connections are ready that were not served in the last turn, new ones wait MAX_ACCEPT_DELAY."""
        accepted: list[object] = []
        self.patch(self.server.accepting, "accept", lambda port, accept: accepted.append(port))
        port = self.prepared_port()
        self.patch(Poller, "is_behind", True)
        port.doRead()
        self.assertEqual(accepted, [])
        cast(Clock, port.reactor).advance(MAX_ACCEPT_DELAY)
        for _ in range(2):
            port.doRead()
            self.assertEqual(accepted, [port])
        self.patch(Poller, "is_behind", False)
        port.doRead()
        self.assertEqual(accepted, [port, port])

    def test_little_is_read_at_once(self) -> None:
        """A connection reads few bytes at once: a body in chunks of a byte each is slow to parse."""
        port = self.prepared_port()
        ours, theirs = socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        transport: Any = port.transport
        address = ("127.0.0.1", 50000)
        connection = transport(ours, Protocol(), address, port, 1, MemoryReactorClock())
        self.assertEqual(connection.bufferSize, READ_BYTES)

    def test_port_in_use_is_reported(self) -> None:
        """The error of a port in use names the setting and the endpoint, and the probable cause."""
        listener = Listener(_PortInUse(), "--listen", "tcp:8080", self.server)
        with self.assertRaises(StartupError) as caught:
            listener.privilegedStartService()
        self.assertEqual(
            str(caught.exception),
            "--listen: cannot listen on tcp:8080: address already in use, perhaps by another govi-cache "
            "(`ss -ltnp` lists the processes that listen); choose another with --listen",
        )

    def test_invalid_endpoint_is_reported(self) -> None:
        """The error of an invalid endpoint names the setting and the endpoint."""
        for text in ("", "foo:1", "tcp", "tcp:x", "tcp:1:foo=2", "ssl:1:privateKey=/nonexistent"):
            with self.assertRaises(StartupError) as caught:
                Listener(MemoryReactorClock(), "--listen", text, self.server)
            self.assertIn(f"--listen: invalid endpoint {text!r}: ", str(caught.exception))
