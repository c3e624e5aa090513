"""Sockets that systemd holds."""

import os
import socket
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from twisted.internet.address import UNIXAddress
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.sockets import endpoints
from govi_server.sockets.endpoints import parse_endpoint
from govi_server.sockets.proxy_protocol import ProxyEndpoint, ProxyFactory
from govi_server.sockets.systemd import AdoptedEndpoint, InheritedSocket, inherited_sockets


class InheritedSocketsTests(SynchronousTestCase):
    """The sockets of the environment."""

    def sockets(self, **environ: str) -> list[InheritedSocket]:
        data = "\0".join(f"{name}={value}" for name, value in environ.items()).encode()
        with patch.object(Path, "read_bytes", lambda path: data):
            return inherited_sockets()

    def test_names_are_optional(self) -> None:
        """Sockets are found with their names, also if names are missing."""
        pid = str(os.getpid())
        for names, expected in [
            ({}, ["", ""]),
            ({"LISTEN_FDNAMES": "a"}, ["a", ""]),
            ({"LISTEN_FDNAMES": "a:b"}, ["a", "b"]),
            ({"LISTEN_FDNAMES": "a:b:c"}, ["a", "b"]),
        ]:
            self.assertEqual(
                self.sockets(LISTEN_PID=pid, LISTEN_FDS="2", **names), list(zip((3, 4), expected, strict=True))
            )

    def test_sockets_of_another_process_are_ignored(self) -> None:
        """Without sockets, or with those of another process, none are found."""
        for environ in (
            {},
            {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
            {"LISTEN_PID": str(os.getpid())},
            {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"},
        ):
            self.assertEqual(self.sockets(**environ), [])


class SystemdTests(SynchronousTestCase):
    """The endpoint systemd:."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = f"{directory.name}/socket"
        self.inherited: list[InheritedSocket] = []
        patched = patch.object(endpoints, "inherited_sockets", lambda: self.inherited)
        patched.start()
        self.addCleanup(patched.stop)

    def inherit(self, sock: socket.socket, name: str = "") -> int:
        self.addCleanup(sock.close)
        self.inherited.append(InheritedSocket(sock.fileno(), name))
        return sock.fileno()

    def test_socket_is_found_by_index_or_name(self) -> None:
        """A socket is found by its index or name, with or without a domain, whatever its address family."""
        first = self.inherit(socket.create_server(("127.0.0.1", 0)), "a")
        self.inherit(socket.create_server(("::1", 0), family=socket.AF_INET6), "b")
        for text, address in [
            ("systemd:index=0", socket.AF_INET),
            ("systemd:name=a", socket.AF_INET),
            ("systemd:domain=INET:index=0", socket.AF_INET),
            ("systemd:INET:index=0", socket.AF_INET),
            ("systemd:domain=UNIX:index=0", socket.AF_INET),
            ("systemd:domain=INET:name=b", socket.AF_INET6),
            ("systemd:index=1", socket.AF_INET6),
        ]:
            reactor = MemoryReactorClock()
            self.successResultOf(parse_endpoint(reactor, text).listen(Factory()))
            ((_, family, _),) = reactor.adoptedPorts
            self.assertEqual(family, address, text)
        os.fstat(first)  # is still open

    def test_socket_behind_a_proxy(self) -> None:
        """A socket may be that of a proxy."""
        self.inherit(socket.create_server(("127.0.0.1", 0)))
        reactor = MemoryReactorClock()
        endpoint = parse_endpoint(reactor, "haproxy:systemd:index=0")
        self.assertIsInstance(endpoint, ProxyEndpoint)
        self.successResultOf(endpoint.listen(Factory()))
        ((_, _, factory),) = reactor.adoptedPorts
        self.assertIsInstance(factory, ProxyFactory)

    def test_missing_sockets_are_reported(self) -> None:
        """The error names what is missing, and what there is."""
        for text in ("systemd:index=0", "systemd:name=a", "haproxy:systemd:index=0"):
            with self.assertRaisesRegex(ValueError, "no socket was passed to this process"):
                parse_endpoint(MemoryReactorClock(), text)
        for name in ("a", "a", "b"):
            self.inherit(socket.create_server(("127.0.0.1", 0)), name)
        for text, error in [
            ("systemd:index=3", "no such socket; passed: 0 'a', 1 'a', 2 'b'"),
            ("systemd:index=-1", "no such socket"),
            ("systemd:index=x", "no such socket"),
            ("systemd:name=c", "no such socket"),
            ("systemd:name=a", "several sockets match"),
            ("systemd:", "expected an index or a name"),
            ("systemd", "expected an index or a name"),
            ("systemd:domain=INET", "expected an index or a name"),
            ("systemd:index=0:name=a", "expected an index or a name"),
            ("systemd:index=0:backlog=5", "unknown argument 'backlog'"),
        ]:
            with self.assertRaisesRegex(ValueError, error, msg=text):
                parse_endpoint(MemoryReactorClock(), text)

    def test_other_descriptors_are_rejected(self) -> None:
        """A descriptor that is no listening stream socket is rejected: ListenDatagram=, ListenFIFO=, Accept=yes."""
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        pair = socket.socketpair()
        others = (socket.socket(), socket.socket(type=socket.SOCK_DGRAM), *pair)
        for sock in others:
            self.addCleanup(sock.close)
        for fd in (read, *(sock.fileno() for sock in others)):
            with self.assertRaisesRegex(ValueError, f"descriptor {fd} is not a "):
                AdoptedEndpoint(MemoryReactorClock(), fd)
        with self.assertRaisesRegex(ValueError, "descriptor 100000 is not a socket"):
            AdoptedEndpoint(MemoryReactorClock(), 100_000)

    def test_unix_socket_is_left_as_it_is(self) -> None:
        """The file of a UNIX socket keeps its mode, and the socket accepts connections after its port was closed."""
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(self.path)
        os.chmod(self.path, 0o660)
        sock.listen()
        self.inherit(sock)
        reactor = MemoryReactorClock()
        port = self.successResultOf(parse_endpoint(reactor, "systemd:domain=INET:index=0").listen(Factory()))
        self.assertEqual(port.getHost(), UNIXAddress(self.path))
        port.stopListening()
        reactor.advance(1)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o660)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)
            accepted, _ = sock.accept()
            accepted.close()
