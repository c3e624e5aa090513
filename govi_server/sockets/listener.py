"""Listen on an endpoint for a server."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from errno import EADDRINUSE
from functools import partial
from socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_NODELAY
from typing import Any, Protocol, cast

from twisted.application.internet import StreamServerEndpointService
from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python import log as legacy_log
from zope.interface import implementer

from govi_server.errors import StartupError
from govi_server.runtime.ordered_services import Drain, OrderedMultiService
from govi_server.runtime.program import IReloadable
from govi_server.sockets import poller
from govi_server.sockets.accepting import AcceptThrottle
from govi_server.sockets.endpoint_syntax import check_endpoint, parser_error
from govi_server.sockets.endpoints import ProxyEndpoint, certificates_of, parse_endpoint
from govi_server.sockets.tls import TLSTransport

BACKLOG = 4096
"""Connections that may wait to be accepted, if the kernel permits (net.core.somaxconn); clients of further ones retry
after a second. Twisted's default is 50."""

MAX_ACCEPT_DELAY = 0.02
"""Seconds that new connections wait while open ones are ready: under a sustained load, some always are."""

READ_BYTES = 12 << 10
"""Bytes that are read from a connection at once. Twisted's 64 kB, in chunks of one byte each, need 40 ms to parse."""

OnListening = Callable[[IAddress, str], str | None]
"""Called with the address of a listening endpoint and the scheme of its URL; returns a URL that people may open."""

log = Logger()


def _ignore(address: IAddress, scheme: str) -> None:
    pass


class ListeningFactory(Protocol):
    """A factory of accepted connections, which also provides IProtocolFactory."""

    name: str
    """The name in log lines and errors."""
    accepting: AcceptThrottle


class DrainingFactory(ListeningFactory, Protocol):
    """A factory whose connections can be drained."""

    def drain(self) -> Deferred[None]:
        """Finish the requests in flight and close all connections; return a Deferred that fires afterwards."""


@implementer(IReloadable)
class PortService(StreamServerEndpointService):
    """Listens on an endpoint, and accepts connections as the server's throttle permits.

    server: the factory of the connections.
    """

    def __init__(self, reactor: object, endpoint: IStreamServerEndpoint, server: ListeningFactory) -> None:
        super().__init__(endpoint, cast(IProtocolFactory, server))
        self._raiseSynchronously = True  # as in strports.service: a server that cannot listen must not stay up
        self._reactor = reactor
        self._server = server

    def privilegedStartService(self) -> None:
        """Start listening. Raises CannotListenError, OSError or OverflowError."""
        quietly(super().privilegedStartService)
        assert self._waitingForPort is not None
        self._waitingForPort.addCallback(self._prepare)

    def _prepare(self, port: tcp.Port) -> tcp.Port:
        self._server.accepting.add(port)
        if isinstance(port, tcp.Port):
            _prepare(port, self._reactor, self._server.accepting)
        return port

    def reload(self) -> None:
        """Load the certificate again if it has changed."""
        certificates = certificates_of(self.endpoint)
        if certificates is not None:
            certificates.reload()

    def stopService(self) -> Deferred[Any]:
        """Stop listening."""
        if self._waitingForPort is not None:
            self._waitingForPort.addCallback(self._stopped)
        return maybeDeferred(super().stopService)

    def _stopped(self, port: tcp.Port) -> tcp.Port:
        self._server.accepting.remove(port)
        return port


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


def quietly(listen: Callable[[], object]) -> None:
    """Listen without Twisted's log line for each port, which it writes even if the next one cannot listen."""
    legacy_log.callWithContext({"log_format": ""}, listen)  # an event without text is not written


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


def _prepare(port: tcp.Port, reactor: object, accepting: AcceptThrottle) -> None:
    """Set the throttle, the transport of TLS, the poller, the backlog and TCP_NODELAY."""
    accept: Callable[[], None] = partial(accepting.accept, port, port.doRead)
    if poller.IS_AVAILABLE:
        accept = _poll_connections(port, reactor, accept)
    port.doRead = accept  # type: ignore[method-assign]
    if isinstance(port.factory, TLSMemoryBIOFactory):  # of an ssl endpoint
        port.factory.protocol = TLSTransport
    if port.backlog is not None and port.backlog < BACKLOG:  # that of an adopted socket is set by systemd
        port.socket.listen(BACKLOG)  # changes the backlog of a listening socket (listen(2) of Linux)
    if port.addressFamily in (AF_INET, AF_INET6):
        # Connections inherit it. Otherwise the second of two small responses waits for the client's delayed
        # acknowledgement of the first: 42 ms for two pipelined requests instead of 0.65 ms (docs/performance.md).
        port.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)


def _poll_connections(port: tcp.Port, reactor: object, accept: Callable[[], None]) -> Callable[[], None]:
    """Let a poller serve the connections of a port; return a function that accepts them.

    It accepts few while the poller is behind, or thousands of new requests at once would delay those of connections
    that are open.
    """
    clock = cast(IReactorTime, reactor)
    accepted_at = clock.seconds()
    transport: Any = port.transport
    connections = poller.Poller(reactor)

    def accepted(*args: Any) -> tcp.Server:
        server: tcp.Server = transport(*args[:-1], connections)
        server.bufferSize = READ_BYTES
        return server

    # Declared as a class, but only called, with the reactor as its last argument.
    port.transport = cast(type[tcp.Server], accepted)

    def accept_in_time() -> None:
        nonlocal accepted_at
        now = clock.seconds()
        if not connections.is_behind or not 0 <= now - accepted_at < MAX_ACCEPT_DELAY:
            accepted_at = now
            accept()

    return accept_in_time


def _format_address(address: IAddress) -> str:
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    return os.fsdecode(getattr(address, "name", None) or str(address))
