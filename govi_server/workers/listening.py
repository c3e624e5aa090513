"""The listening sockets of worker processes, which the main process opens and holds.

So a port needs no privileges in a worker, and its connections wait in the kernel while a worker is replaced. A worker
has a socket of its own on each TCP port (SO_REUSEPORT, socket(7)), among which the kernel distributes connections
evenly; all workers share the socket of a unix or systemd endpoint. While a worker is missing for long, its sockets do
not listen, so that the kernel gives their connections to the others.
"""

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from socket import AF_INET, AF_INET6, SHUT_RD, SO_REUSEADDR, SO_REUSEPORT, SOL_SOCKET, socket
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL.crypto import X509
from twisted.internet.abstract import isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.internet.tcp import _resolveIPv6
from twisted.internet.unix import Port as UNIXPort

from govi_server.errors import StartupError
from govi_server.sockets.endpoints import certificates_of
from govi_server.sockets.listener import OnListening, checked_endpoint, listening_errors, report_address
from govi_server.sockets.ports import BACKLOG, quietly
from govi_server.sockets.proxy_protocol import ProxyEndpoint
from govi_server.sockets.systemd import AdoptedEndpoint
from govi_server.workers.messages import Certificate, Endpoint

_ARGUMENT = re.compile(r"(?<!\\):(sslmethod|dhParameters)=((?:\\.|[^:\\])*)")


class SharedEndpoint:
    """An endpoint whose sockets the main process holds for its workers.

    setting: the name of the endpoint in errors. text: of the endpoint, such as tcp:8080. workers: their number.
    Raises StartupError for an invalid endpoint.
    """

    def __init__(self, reactor: Any, setting: str, text: str, workers: int) -> None:
        self._setting = setting
        self._text = text
        self._workers = workers
        self._whole = checked_endpoint(reactor, setting, text)
        self._expects_proxy_header = isinstance(self._whole, ProxyEndpoint)
        self._endpoint: Any = self._whole.endpoint if isinstance(self._whole, ProxyEndpoint) else self._whole
        self._certificate: Certificate | None = None
        if isinstance(self._endpoint, SSL4ServerEndpoint):
            self._certificate = _certificate(self._endpoint._sslContextFactory.options, text)
        elif not isinstance(
            self._endpoint, TCP4ServerEndpoint | TCP6ServerEndpoint | UNIXServerEndpoint | AdoptedEndpoint
        ):
            expected = "expected tcp, ssl, unix, systemd or haproxy"
            raise StartupError(f"{setting}: {text!r} cannot be used with workers ({expected})")
        self._sockets: Sequence[socket] = ()
        self._unix_port: UNIXPort | None = None

    @property
    def uses_tls(self) -> bool:
        """Whether its clients use TLS."""
        return self._certificate is not None

    def open(self) -> None:
        """Open the sockets. Raises StartupError, for example if the port is in use."""
        endpoint = self._endpoint
        with listening_errors(self._setting, self._text):
            if isinstance(endpoint, AdoptedEndpoint):
                self._sockets = [endpoint.socket]
            elif isinstance(endpoint, UNIXServerEndpoint):
                quietly(self._open_unix)
            else:
                self._sockets = _open_tcp(endpoint._interface, endpoint._port, self._workers)

    def _open_unix(self) -> None:
        # Twisted's port replaces a socket file that is left over, sets its mode, and removes it at the end.
        results: list[Any] = []
        self._endpoint.listen(Factory()).addBoth(results.append)
        port = results[0]
        if not isinstance(port, UNIXPort):  # a Failure
            port.raiseException()
        port.stopReading()
        port.socket.listen(BACKLOG)
        self._unix_port = port
        self._sockets = [port.socket]

    def report(self, name: str, listening: OnListening) -> None:
        """Log the address as that of a server, and call listening as a Listener does."""
        report_address(_address(self._sockets[0]), self._whole, name, listening)

    def socket(self, worker: int) -> int:
        """Return the descriptor of a worker's socket. worker: its number, from 1."""
        return self._sockets[(worker - 1) % len(self._sockets)].fileno()

    def stop_listening(self, worker: int) -> None:
        """Let the kernel give the connections of a worker's socket to the others, until the worker listens again.

        Those that wait are reset. The port stays bound, as it may need privileges. A socket that all workers share is
        left alone.
        """
        if isinstance(self._endpoint, UNIXServerEndpoint | AdoptedEndpoint):
            return
        with suppress(OSError):  # it does not listen
            self._sockets[worker - 1].shutdown(SHUT_RD)

    def reload(self) -> bool:
        """Load the certificate again if its files have changed; return whether workers need the new one."""
        certificates = certificates_of(self._endpoint)
        if certificates is None:
            return False
        previous = certificates.options
        certificates.reload()
        if certificates.options is previous:
            return False
        self._certificate = _certificate(certificates.options, self._text)
        return True

    def assigned(self, fd: int) -> Endpoint:
        """Return the endpoint of a worker. fd: the descriptor of its socket in the worker."""
        return Endpoint(fd, self._certificate, self._expects_proxy_header)

    def close(self) -> Deferred[None]:
        """Close the sockets of the main process; return a Deferred that fires afterwards."""
        port, self._unix_port = self._unix_port, None
        sockets, self._sockets = self._sockets, ()
        if port is not None:
            port._shouldShutdown = False  # workers still accept from this socket
            stopped: Deferred[None] = port.stopListening()
            return stopped
        for each in sockets:
            each.close()
        return succeed(None)


def _open_tcp(interface: str, port: int, n: int) -> list[socket]:
    """Return sockets that listen on the same address. Raises OSError or OverflowError."""
    family = AF_INET6 if isIPv6Address(interface) else AF_INET
    address: Any = _resolveIPv6(interface, port) if family == AF_INET6 else (interface, port)
    with ExitStack() as opened:
        # Another program of the same user may share a port with SO_REUSEPORT, and would be given half of the
        # connections: so without it, this socket detects a port that is in use, and selects one if it is 0.
        with socket(family) as probe:
            probe.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            probe.bind(address)
            address = probe.getsockname()
        sockets = [opened.enter_context(socket(family)) for _ in range(n)]
        for each in sockets:
            each.setblocking(False)
            each.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            each.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
            each.bind(address)
        for each in sockets:
            each.listen(BACKLOG)
        opened.pop_all()
    return sockets


def _address(listening: socket) -> IAddress:
    name = listening.getsockname()
    if listening.family == AF_INET:
        return IPv4Address("TCP", *name)
    if listening.family == AF_INET6:
        return IPv6Address("TCP", *name)
    return UNIXAddress(os.fsencode(name))


def _certificate(options: CertificateOptions, text: str) -> Certificate:
    """Return the certificate of an ssl endpoint. text: of the endpoint."""
    assert options.privateKey is not None
    assert options.certificate is not None
    arguments = {name: re.sub(r"\\(.)", r"\1", value) for name, value in _ARGUMENT.findall(text)}
    key: Any = options.privateKey.to_cryptography_key()
    dh_parameters = arguments.get("dhParameters", "")
    return Certificate(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        _pem(options.certificate),
        [_pem(certificate) for certificate in options.extraCertChain],
        arguments.get("sslmethod", ""),
        dh_parameters and os.path.abspath(dh_parameters),
    )


def _pem(certificate: X509) -> bytes:
    return certificate.to_cryptography().public_bytes(Encoding.PEM)
