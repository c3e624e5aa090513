"""TLS of a worker's endpoints; loaded only in workers with such endpoints (__main__.py)."""

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.ssl import Certificate as X509
from twisted.internet.ssl import CertificateOptions, DiffieHellmanParameters, PrivateCertificate
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.filepath import FilePath
from zope.interface import implementer

from govi_server.runtime.ordered_services import OrderedMultiService
from govi_server.sockets.ports import PortService
from govi_server.sockets.proxy_protocol import ProxyEndpoint
from govi_server.sockets.tls import TLSTransport
from govi_server.workers.messages import Assignment, Certificate


@implementer(IStreamServerEndpoint, IOpenSSLServerConnectionCreator)
class TLSEndpoint:
    """Listens on another endpoint for connections with TLS, as an ssl endpoint does.

    options: those of new connections, which may be replaced.
    """

    def __init__(self, endpoint: IStreamServerEndpoint, options: CertificateOptions) -> None:
        self.endpoint = endpoint
        self.options = options

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return the OpenSSL connection of a new client."""
        return self.options.serverConnectionForTLS(protocol)

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen on the other endpoint."""
        factory = TLSMemoryBIOFactory(self, False, protocolFactory)
        factory.protocol = TLSTransport
        return self.endpoint.listen(factory)


def renew_certificates(worker: OrderedMultiService, assignment: Assignment) -> None:
    """Use the certificates of a later assignment for the new connections of a worker."""
    ports = [service for service in worker if isinstance(service, PortService)]
    for port, assigned in zip(ports, assignment.endpoints, strict=True):
        endpoint = port.endpoint.endpoint if isinstance(port.endpoint, ProxyEndpoint) else port.endpoint
        if isinstance(endpoint, TLSEndpoint) and assigned.certificate is not None:
            endpoint.options = certificate_options(assigned.certificate)


def certificate_options(certificate: Certificate) -> CertificateOptions:
    """Return the options of an ssl endpoint's certificate, as Twisted makes them of its text."""
    path = certificate.dh_parameters
    loaded = PrivateCertificate.loadPEM(certificate.certificate + certificate.key)
    return CertificateOptions(
        privateKey=loaded.privateKey.original,
        certificate=loaded.original,
        extraCertChain=[X509.loadPEM(pem).original for pem in certificate.chain],
        dhParameters=DiffieHellmanParameters.fromFile(FilePath(path)) if path else None,
        **({"method": getattr(SSL, certificate.method)} if certificate.method else {}),
    )
