"""Server endpoints: those of Twisted, except systemd:, which adopts any listening socket, and haproxy:."""

from functools import partial
from typing import Any

from twisted.internet.endpoints import SSL4ServerEndpoint, serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.ssl import CertificateOptions

from govi_server.sockets.certificates import CertificateFiles
from govi_server.sockets.proxy_protocol import ProxyEndpoint
from govi_server.sockets.systemd import AdoptedEndpoint, find_socket, inherited_sockets


def parse_endpoint(reactor: Any, text: str) -> IStreamServerEndpoint:
    """Parse an endpoint such as tcp:8080. Raises ValueError, or other errors of Twisted's parsers."""
    kind, _, arguments = text.partition(":")
    if kind == "haproxy":
        return ProxyEndpoint(reactor, parse_endpoint(reactor, arguments))
    if kind == "systemd":
        return AdoptedEndpoint(reactor, find_socket(arguments, inherited_sockets()))
    endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    if isinstance(endpoint, SSL4ServerEndpoint):
        options: CertificateOptions = endpoint._sslContextFactory
        load = partial(_load_certificate, reactor, text)
        endpoint._sslContextFactory = CertificateFiles(text, options, load, reactor)
    return endpoint


def _load_certificate(reactor: Any, text: str) -> CertificateOptions:
    options: CertificateOptions = serverFromString(reactor, text)._sslContextFactory
    return options


def certificates_of(endpoint: IStreamServerEndpoint) -> CertificateFiles | None:
    """Return the certificate of an endpoint; None if it has none."""
    if isinstance(endpoint, ProxyEndpoint):
        return certificates_of(endpoint.endpoint)
    return endpoint._sslContextFactory if isinstance(endpoint, SSL4ServerEndpoint) else None
