"""Listen on an endpoint for a server."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from errno import EADDRINUSE
from typing import Protocol

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from govi_server.errors import StartupError
from govi_server.runtime.ordered_services import Drain, OrderedMultiService
from govi_server.runtime.program import IReloadable
from govi_server.sockets.endpoint_syntax import check_endpoint, parser_error
from govi_server.sockets.endpoints import certificates_of, parse_endpoint
from govi_server.sockets.ports import ListeningFactory, PortService
from govi_server.sockets.proxy_protocol import ProxyEndpoint
from govi_server.sockets.tls import TLSTransport

OnListening = Callable[[IAddress, str], str | None]
"""Called with the address of a listening endpoint and the scheme of its URL; returns a URL that people may open."""

log = Logger()


def _ignore(address: IAddress, scheme: str) -> None:
    pass


class DrainingFactory(ListeningFactory, Protocol):
    """A factory whose connections can be drained."""

    def drain(self) -> Deferred[None]:
        """Finish the requests in flight and close all connections; return a Deferred that fires afterwards."""


@implementer(IReloadable)
class Listener(PortService):
    """Listens on an endpoint described by a string such as tcp:8080 or unix:/run/govi.

    reactor: the reactor of the endpoint. setting: the name of the endpoint in errors. server: the factory of its
    connections. listening: called at the start of the service, when all endpoints of the program listen, unless
    clients must send a PROXY header. Raises StartupError for an invalid endpoint.
    """

    def __init__(
        self,
        reactor: object,
        setting: str,
        endpoint: str,
        server: ListeningFactory,
        listening: OnListening = _ignore,
    ) -> None:
        super().__init__(reactor, checked_endpoint(reactor, setting, endpoint), server)
        self._setting = setting
        self._text = endpoint
        self._listening = listening

    def privilegedStartService(self) -> None:
        """Start listening. Raises StartupError, for example if the port is in use."""
        with listening_errors(self._setting, self._text):
            super().privilegedStartService()

    def prepare(self, port: tcp.Port) -> tcp.Port:
        """Prepare a port that listens, also for TLS; return it."""
        if isinstance(port, tcp.Port) and isinstance(port.factory, TLSMemoryBIOFactory):  # of an ssl endpoint
            port.factory.protocol = TLSTransport
        return super().prepare(port)

    def reload(self) -> None:
        """Load the certificate again if it has changed."""
        certificates = certificates_of(self.endpoint)
        if certificates is not None:
            certificates.reload()

    def startService(self) -> None:
        """Start listening, unless privilegedStartService() did, and report the address."""
        super().startService()
        assert self._waitingForPort is not None
        self._waitingForPort.addCallback(self._report)

    def _report(self, port: tcp.Port) -> tcp.Port:
        report_address(port.getHost(), self.endpoint, self._server.name, self._listening)
        return port


def checked_endpoint(reactor: object, setting: str, text: str) -> IStreamServerEndpoint:
    """Return the endpoint of a text. setting: its name in the error. Raises StartupError."""
    try:
        check_endpoint(text)
        return parse_endpoint(reactor, text)
    except Exception as error:  # the exceptions differ by the kind of endpoint
        raise StartupError(f"{setting}: invalid endpoint {text[:120]!r}: {parser_error(error)}") from None


@contextmanager
def listening_errors(setting: str, text: str) -> Iterator[None]:
    """Raise StartupError for the errors of listening on an endpoint with this text. setting: its name."""
    try:
        yield
    except (CannotListenError, OSError, OverflowError) as caught:  # OverflowError: a port above 65535
        error = caught.socketError if isinstance(caught, CannotListenError) else caught
        if getattr(error, "errno", None) == EADDRINUSE:
            option = setting.partition("(")[2].rstrip(")") or setting
            reason = (
                "address already in use, perhaps by another govi-cache (`ss -ltnp` lists the processes that listen); "
                f"choose another with {option}"
            )
        else:
            reason = getattr(error, "strerror", None) or str(error)
        raise StartupError(f"{setting}: cannot listen on {text}: {reason}") from None


def report_address(address: IAddress, endpoint: IStreamServerEndpoint, name: str, listening: OnListening) -> None:
    """Log an address that listens for a server, and pass it on unless clients must send a PROXY header."""
    scheme = "https" if isinstance(endpoint, SSL4ServerEndpoint) else "http"
    url = None if isinstance(endpoint, ProxyEndpoint) else listening(address, scheme)
    log.info(
        "Listening on {address} for {name}{url}",
        address=("https://" if scheme == "https" else "") + _format_address(address),
        name=name,
        url=f": {url}" if url else "",
    )


def server_service(
    reactor: object,
    setting: str,
    endpoints: Sequence[str],
    server: DrainingFactory,
    listening: OnListening = _ignore,
) -> OrderedMultiService:
    """Return the service of a server that listens on endpoints; at the end it stops listening and then drains.

    setting: the name of the endpoints in errors.
    """
    services = OrderedMultiService()
    services.addService(Drain(server.drain))
    for endpoint in endpoints:
        services.addService(Listener(reactor, setting, endpoint, server, listening))
    return services


def _format_address(address: IAddress) -> str:
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    return os.fsdecode(getattr(address, "name", None) or str(address))
