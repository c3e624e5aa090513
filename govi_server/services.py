"""How the parts of the program start and end: in order, with one clear line when one of them cannot."""

import os
from collections.abc import Callable, Generator, Sequence
from socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_NODELAY
from typing import TYPE_CHECKING, Any, cast

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import IService, MultiService, Service
from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.logger import ILogObserver, LogEvent, Logger, LogPublisher, globalLogPublisher

from govi_server import poller

if TYPE_CHECKING:
    from govi_server.operations.admin import Admin
    from govi_server.server import Server


BACKLOG = 1024
"""Connections that may wait to be accepted: one too many is tried again after a second, and Twisted has 50."""


class CannotStart(Exception):
    """A part of the program cannot start; the text is the one line that an operator gets to see."""


class _Exit(SystemExit, Exception):
    """Ends the program with status 1 and no traceback.

    It is an Exception, too, so that a twistd that runs as a daemon tells the one that waits for it to start.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = 1  # or Python would write the text to stderr, where it is already, from the log


class InOrder(MultiService):
    """Starts its services in their order and stops them in the reverse one, each when the next has stopped.

    MultiService stops all at once, which would close the statistics log before the last answers are in it. A service
    that cannot start ends the program: one line in the log, exit status 1.
    """

    log = Logger()

    def privilegedStartService(self) -> None:
        """Let the services open what needs privileges."""
        self._or_exit(super().privilegedStartService)

    def startService(self) -> None:
        """Start the services."""
        self._or_exit(super().startService)

    def _or_exit(self, start: Callable[[], None]) -> None:
        try:
            start()
        except CannotStart as error:
            self.log.critical("{error}", error=error)
            raise _Exit(str(error)) from None

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Stop the services, the last first."""
        self.running = False
        for service in reversed(self.services):
            try:
                yield maybeDeferred(IService(service).stopService)
            except Exception:
                self.log.failure("{service} did not stop", service=service)


class Drain(Service):
    """Stops when a server's connections have been answered and closed: goes before its listeners in an InOrder."""

    def __init__(self, drain: Callable[[], Deferred[None]]) -> None:
        self._drain = drain

    def stopService(self) -> Deferred[None]:
        """Wait for the connections."""
        super().stopService()
        return self._drain()


class Observers(Service):
    """Has observers see the log, or what else is published, while it runs."""

    def __init__(
        self, observers: Sequence[Callable[[LogEvent], None]], publisher: LogPublisher = globalLogPublisher
    ) -> None:
        self._publisher = publisher
        self._observers = [cast(ILogObserver, observer) for observer in observers]

    def startService(self) -> None:
        """Begin to observe."""
        super().startService()
        for observer in self._observers:
            self._publisher.addObserver(observer)

    def stopService(self) -> None:
        """Observe no more."""
        super().stopService()
        for observer in self._observers:
            self._publisher.removeObserver(observer)


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
        server: "Server | Admin",
        listening: Callable[[IAddress], None] = lambda address: None,
    ) -> None:
        try:
            super().__init__(serverFromString(reactor, description), server)
        except Exception as error:  # each kind of endpoint has its own ways to complain
            raise CannotStart(f"{description!r} is no endpoint to listen on: {error}") from None
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
            raise CannotStart(f"cannot listen on {self._description} for {self._server.what}: {reason}") from None
        except (OSError, OverflowError) as error:  # of a unix or systemd endpoint, of a port beyond 65535
            raise CannotStart(f"cannot listen on {self._description} for {self._server.what}: {error}") from None
        assert self._waitingForPort is not None
        self._waitingForPort.addCallback(self._listens)

    def _listens(self, port: tcp.Port) -> tcp.Port:
        address = port.getHost()
        self.log.info("Listening on {address} for {what}", address=_readable(address), what=self._server.what)
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


def serving(
    reactor: object,
    server: "Server",
    endpoints: Sequence[str],
    listening: Callable[[IAddress], None] = lambda address: None,
) -> InOrder:
    """Have a server listen on endpoints; when it stops, it listens no more and then drains."""
    services = InOrder()
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
