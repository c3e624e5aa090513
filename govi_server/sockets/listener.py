"""Listening for a server on an endpoint."""

import os
from collections.abc import Callable, Sequence
from socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_NODELAY
from typing import Any, Protocol, cast

from twisted.application.internet import StreamServerEndpointService
from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.logger import Logger

from govi_server.errors import StartupError
from govi_server.runtime.services import Drain, OrderedMultiService
from govi_server.sockets import poller
from govi_server.sockets.accepting import AcceptThrottle

BACKLOG = 1024
"""Connections that may wait to be accepted: one too many is tried again after a second, and Twisted has 50."""


class ListeningFactory(Protocol):
    """A factory that is listened for; it provides IProtocolFactory, too."""

    name: str
    """Its name in log lines and errors."""
    accepting: AcceptThrottle
    """Pauses its ports."""


class DrainingFactory(ListeningFactory, Protocol):
    """A factory whose connections end in order."""

    def drain(self) -> Deferred[None]:
        """Finish the requests in flight and close all connections; return a Deferred that fires afterwards."""


class Listener(StreamServerEndpointService):
    """Listens for a factory on an endpoint described by a string, such as tcp:8080 or unix:/run/govi.

    reactor: what the endpoint is made with. listening: called with each address once it listens there. Raises
    CannotStart for what is no endpoint.
    """

    log = Logger()

    def __init__(
        self,
        reactor: object,
        description: str,
        server: ListeningFactory,
        listening: Callable[[IAddress], None] = lambda address: None,
    ) -> None:
        try:
            super().__init__(serverFromString(reactor, description), cast(IProtocolFactory, server))
        except Exception as error:  # each kind of endpoint has its own ways to complain
            raise StartupError(f"{description!r} is no endpoint to listen on: {error}") from None
        self._raiseSynchronously = True  # as strports.service does: or a deaf server would stay up
        self._reactor = reactor
        self._description = description
        self._server = server
        self._listening = listening

    def privilegedStartService(self) -> None:
        """Listen. Raises CannotStart, for example when the port is taken."""
        try:
            super().privilegedStartService()
        except CannotListenError as error:
            reason = getattr(error.socketError, "strerror", None) or error.socketError
            raise StartupError(f"cannot listen on {self._description} for {self._server.name}: {reason}") from None
        except (OSError, OverflowError) as error:  # of a unix or systemd endpoint, of a port beyond 65535
            raise StartupError(f"cannot listen on {self._description} for {self._server.name}: {error}") from None
        assert self._waitingForPort is not None
        self._waitingForPort.addCallback(self._listens)

    def _listens(self, port: tcp.Port) -> tcp.Port:
        address = port.getHost()
        self.log.info("Listening on {address} for {what}", address=_readable(address), what=self._server.name)
        self._server.accepting.add(port)
        if isinstance(port, tcp.Port):
            _prepare(port, self._reactor)
        self._listening(address)
        return port

    def stopService(self) -> Deferred[Any]:
        """Listen no more."""
        if self._waitingForPort is not None:
            self._waitingForPort.addCallback(self._listens_no_more)
        return maybeDeferred(super().stopService)

    def _listens_no_more(self, port: tcp.Port) -> tcp.Port:
        self._server.accepting.remove(port)
        return port


def server_service(
    reactor: object,
    server: DrainingFactory,
    endpoints: Sequence[str],
    listening: Callable[[IAddress], None] = lambda address: None,
) -> OrderedMultiService:
    """Have a server listen on endpoints; when it stops, it listens no more and then drains."""
    services = OrderedMultiService()
    services.addService(Drain(server.drain))
    for endpoint in endpoints:
        services.addService(Listener(reactor, endpoint, server, listening))
    return services


def _prepare(port: tcp.Port, reactor: object) -> None:
    """Set what Twisted does not: who watches connections, how many may wait, and that answers wait for no other."""
    if poller.IS_HERE:
        transport: Any = port.transport
        watching = poller.Poller(reactor)
        # Twisted says that it is a class; it calls it, and hands it the reactor last.
        port.transport = cast(type[tcp.Server], lambda *args: transport(*args[:-1], watching))
    if port.backlog < BACKLOG:
        port.socket.listen(BACKLOG)  # which may be said again (listen(2) of Linux)
    if port.addressFamily in (AF_INET, AF_INET6):
        # The connections inherit it. Without it the second of two small answers waits for the client's delayed
        # acknowledgement of the first, which takes 40 ms.
        port.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)


def _readable(address: IAddress) -> str:
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    return os.fsdecode(getattr(address, "name", None) or str(address))
