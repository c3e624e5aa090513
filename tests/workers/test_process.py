"""Tests of the services and the endpoints of a worker process."""

import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from unittest import mock

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.clock import ClockWatch
from govi_server.runtime.ordered_services import OrderedMultiService
from govi_server.settings import AccessSettings, ServerSettings
from govi_server.sockets.ports import PortService
from govi_server.sockets.proxy_protocol import ProxyEndpoint
from govi_server.sockets.systemd import AdoptedEndpoint
from govi_server.workers.listening import SharedEndpoint
from govi_server.workers.messages import Assignment
from govi_server.workers.process import make_worker, server_endpoint
from govi_server.workers.tls import TLSEndpoint, certificate_options, renew_certificates
from tests.integration.test_kv55 import make_certificate


class ServiceTests(SynchronousTestCase):
    """Tests of the services of a worker."""

    def test_clock_set_back(self) -> None:
        """After the clock was set back, a worker has none of the times that it remembered."""
        clock = Clock()
        clock.advance(1_000_000)
        access = AccessSettings(rate=1, burst=2)
        services, server = make_worker(
            clock, Assignment(1, "", [], "/nonexistent", ["kv55"], ServerSettings(), access, []), mock.Mock()
        )
        watch = next(service for service in services if isinstance(service, ClockWatch))
        proxy = cast(Any, server.find_module("kv55"))
        limits = server.access
        proxy._memory.put("target", (), 1)
        server.request_memo.store(b"GET / HTTP/1.1\r\n\r\n", mock.Mock())
        self.assertEqual([limits.seconds_to_wait("192.0.2.1") > 0 for _ in range(3)], [False, False, True])
        watch.check()
        watch.running = True  # without its thread
        clock.rightNow -= 60
        watch.check()
        clock.advance(60)
        self.assertEqual(limits.seconds_to_wait("192.0.2.1"), 0)
        self.assertEqual((len(proxy._memory), len(server.request_memo)), (0, 0))


class EndpointTests(SynchronousTestCase):
    """Tests of the endpoints of a worker, with the sockets of the main process."""

    def test_layers(self) -> None:
        """A worker accepts from the main process's socket, with the layers of the endpoint."""
        with TemporaryDirectory() as folder:
            key, chain = Path(folder) / "key.pem", Path(folder) / "chain.pem"
            make_certificate(key, chain)
            text = f"haproxy:ssl:0:interface=127.0.0.1:privateKey={key}:certKey={chain}:extraCertChain={chain}"
            shared = SharedEndpoint(reactor, "listen", text, 1)
        shared.open()
        self.addCleanup(shared.close)
        with socket.socket(fileno=os.dup(shared.socket(1))) as expected:
            name = expected.getsockname()
        fd = os.dup(shared.socket(1))
        endpoint = server_endpoint(reactor, shared.assigned(fd))
        self.assertRaises(OSError, os.fstat, fd)
        assert isinstance(endpoint, ProxyEndpoint)
        assert isinstance(endpoint.endpoint, TLSEndpoint)
        adopted = endpoint.endpoint.endpoint
        assert isinstance(adopted, AdoptedEndpoint)
        self.addCleanup(adopted.socket.close)
        self.assertEqual(adopted.socket.getsockname(), name)
        certificate = shared.assigned(fd).certificate
        assert certificate is not None
        worker = OrderedMultiService()
        worker.addService(PortService(reactor, endpoint, cast(Any, None)))
        previous = endpoint.endpoint.options
        assigned = [shared.assigned(fd)]
        renew_certificates(worker, Assignment(1, "", assigned, "", [], ServerSettings(), AccessSettings(), []))
        self.assertIsNot(endpoint.endpoint.options, previous)
        options = certificate_options(certificate)
        self.assertEqual(len(options.extraCertChain), 1)
        options.getContext().check_privatekey()
