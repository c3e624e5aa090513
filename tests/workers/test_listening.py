"""Tests of the listening sockets that the main process holds for its workers."""

import contextlib
import gc
import os
import socket
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from twisted.internet import unix
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import StartupError
from govi_server.sockets.systemd import AdoptedEndpoint
from govi_server.workers import listening
from govi_server.workers.listening import SharedEndpoint
from govi_server.workers.process import server_endpoint
from tests.integration.test_kv55 import make_certificate


class Reactor(MemoryReactorClock):
    """A reactor with real UNIX ports. Ports of the global one would be closed in a later test that runs it."""

    def listenUNIX(
        self, address: str, factory: Factory, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> unix.Port:
        port = unix.Port(address.encode(), factory, backlog, mode=mode, reactor=self)
        port.startListening()
        return port


class SharedEndpointTests(SynchronousTestCase):
    """Tests of SharedEndpoint, with real sockets."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = Path(directory.name)

    def open(self, text: str, workers: int = 2) -> SharedEndpoint:
        """Return an open endpoint."""
        endpoint = SharedEndpoint(self.reactor, "listen (--listen)", text, workers)
        endpoint.open()
        self.addCleanup(self.close, endpoint)
        return endpoint

    def close(self, endpoint: SharedEndpoint) -> None:
        closed = endpoint.close()
        self.reactor.advance(0)
        self.successResultOf(closed)

    def sockets(self, endpoint: SharedEndpoint) -> list[socket.socket]:
        """Return duplicates of the sockets of two workers."""
        sockets = [socket.socket(fileno=os.dup(endpoint.socket(worker))) for worker in (1, 2)]
        for each in sockets:
            self.addCleanup(each.close)
        return sockets

    def test_workers_have_sockets_of_their_own_on_a_port(self) -> None:
        """Each worker has a listening socket on the same port, also if the kernel selects it."""
        for text in ("tcp:0:interface=127.0.0.1", r"tcp:0:interface=\:\:1", "haproxy:tcp:0:interface=127.0.0.1"):
            first, second = self.sockets(self.open(text))
            self.assertEqual(first.getsockname(), second.getsockname())
            self.assertNotEqual(os.fstat(first.fileno()).st_ino, os.fstat(second.fileno()).st_ino)
            self.assertTrue(first.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    def test_port_in_use(self) -> None:
        """A port of another program is an error, also if that program uses SO_REUSEPORT as well."""
        port = self.sockets(self.open("tcp:0:interface=127.0.0.1"))[0].getsockname()[1]
        text = f"tcp:{port}:interface=127.0.0.1"
        error = self.assertRaises(StartupError, SharedEndpoint(self.reactor, "listen (--listen)", text, 2).open)
        self.assertEqual(
            str(error),
            f"listen (--listen): cannot listen on {text}: address already in use, perhaps by another govi-cache "
            "(`ss -ltnp` lists the processes that listen); choose another with --listen",
        )

    def test_closed_port_can_be_opened_again(self) -> None:
        """After close() the port is free."""
        endpoint = self.open("tcp:0:interface=127.0.0.1")
        port = self.sockets(endpoint)[0].getsockname()[1]
        self.doCleanups()
        self.setUp()
        self.open(f"tcp:{port}:interface=127.0.0.1")

    def test_unix_socket_is_shared(self) -> None:
        """All workers share a unix socket, whose file has its mode."""
        path = self.folder / "http.sock"
        endpoint = self.open(f"unix:{path}:mode=660")
        first, second = self.sockets(endpoint)
        self.assertEqual(os.fstat(first.fileno()).st_ino, os.fstat(second.fileno()).st_ino)
        self.assertEqual(path.stat().st_mode & 0o777, 0o660)

    def test_socket_of_a_missing_worker_gets_no_connections(self) -> None:
        """A closed socket's connections go to the other workers, until its next worker listens again."""
        endpoint = self.open("tcp:0:interface=127.0.0.1")
        first, second = self.sockets(endpoint)
        endpoint.stop_listening(1)
        endpoint.stop_listening(1)  # of a worker that has not served since
        self.assertEqual(self.connections(first, second), (0, 40))
        adopted = cast(AdoptedEndpoint, server_endpoint(self.reactor, endpoint.assigned(os.dup(endpoint.socket(1)))))
        self.addCleanup(adopted.socket.close)
        n_first, n_second = self.connections(first, second)
        self.assertEqual(n_first + n_second, 40)
        self.assertTrue(n_first)  # one of 2 ** 40 times it is 0

    def test_shared_socket_stays_open(self) -> None:
        """The socket of all workers listens also without one of them."""
        endpoint = self.open(f"unix:{self.folder / 'http.sock'}")
        endpoint.stop_listening(1)
        first, _ = self.sockets(endpoint)
        self.assertTrue(first.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    def test_renewed_certificate(self) -> None:
        """A certificate whose files have changed is loaded again, and assigned."""
        key, chain = self.folder / "key.pem", self.folder / "chain.pem"
        make_certificate(key, chain)
        endpoint = self.open(f"ssl:0:privateKey={key}:certKey={chain}:interface=127.0.0.1")
        self.assertFalse(endpoint.reload())
        make_certificate(key, chain)
        self.assertTrue(endpoint.reload())
        self.assertFalse(endpoint.reload())
        certificate = endpoint.assigned(3).certificate
        assert certificate is not None
        self.assertEqual((certificate.key, certificate.certificate), (key.read_bytes(), chain.read_bytes()))
        self.assertFalse(self.open("tcp:0:interface=127.0.0.1").reload())

    def connections(self, *listening: socket.socket) -> tuple[int, ...]:
        """Make 40 connections to sockets on the same port; return how many each has received."""
        accepted = [0] * len(listening)
        for _ in range(40):
            with socket.create_connection(listening[0].getsockname()):
                for i, each in enumerate(listening):
                    with contextlib.suppress(OSError):  # it is not connected to this one, or this one does not listen
                        each.accept()[0].close()
                        accepted[i] += 1
        return tuple(accepted)

    def test_errors(self) -> None:
        """Endpoints that cannot be opened are errors that name the setting."""
        for text in ("tcp:1:interface=192.0.2.1", f"unix:{self.folder}/missing/http.sock"):
            error = self.assertRaises(StartupError, SharedEndpoint(self.reactor, "listen", text, 2).open)
            self.assertIn(f"listen: cannot listen on {text}: ", str(error))
            del error
        # Twisted's unix.Port leaves a socket that it cannot bind open, in a cycle with the traceback of the error.
        # Without this, the collector would warn of it in any later test.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()

    def test_endpoints_that_cannot_be_shared(self) -> None:
        """Endpoints that are invalid, or of another kind, are errors that name the setting."""
        error = self.assertRaises(StartupError, SharedEndpoint, self.reactor, "listen", "9000", 2)
        self.assertIn("listen: invalid endpoint '9000'", str(error))
        self.patch(listening, "checked_endpoint", lambda *arguments: object())  # of a plugin
        error = self.assertRaises(StartupError, SharedEndpoint, self.reactor, "listen", "onion:80", 2)
        expected = "listen: 'onion:80' cannot be used with workers (expected tcp, ssl, unix, systemd or haproxy)"
        self.assertEqual(str(error), expected)

    def test_certificate(self) -> None:
        """A worker gets the key and the certificates themselves, and the file of the parameters."""
        key, chain, dh = (self.folder / name for name in ("key.pem", "chain.pem", "dh.pem"))
        make_certificate(key, chain)
        dh.write_text("")
        text = f"ssl:0:privateKey={key}:certKey={chain}:extraCertChain={chain}:dhParameters={dh}"
        endpoint = self.open(f"haproxy:{text}:interface=127.0.0.1").assigned(3)
        self.assertTrue(endpoint.expects_proxy_header)
        assert endpoint.certificate is not None
        self.assertEqual(endpoint.certificate.key, key.read_bytes())
        self.assertEqual(endpoint.certificate.certificate, chain.read_bytes())
        self.assertEqual(endpoint.certificate.chain, [chain.read_bytes()])
        self.assertEqual(endpoint.certificate.dh_parameters, str(dh))
