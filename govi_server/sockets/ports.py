"""Listening ports: how they accept connections, and their socket options. Needs no OpenSSL (workers/__main__.py)."""

from collections.abc import Callable
from functools import partial
from socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_NODELAY
from typing import Any, Protocol, cast

from twisted.application.internet import StreamServerEndpointService
from twisted.internet import tcp
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IProtocolFactory, IReactorTime, IStreamServerEndpoint
from twisted.python import log as legacy_log

from govi_server.sockets import poller
from govi_server.sockets.accepting import AcceptThrottle

BACKLOG = 4096
"""Connections that may wait to be accepted, if the kernel permits (net.core.somaxconn); clients of further ones retry
after a second. Twisted's default is 50."""

MAX_ACCEPT_DELAY = 0.02
"""Seconds that new connections wait while open ones are ready: under a sustained load, some always are."""

READ_BYTES = 12 << 10
"""Bytes that are read from a connection at once. Twisted's 64 kB, in chunks of one byte each, need 40 ms to parse."""


class ListeningFactory(Protocol):
    """A factory of accepted connections, which also provides IProtocolFactory."""

    name: str
    """The name in log lines and errors."""
    accepting: AcceptThrottle


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
        self._waitingForPort.addCallback(self.prepare)

    def prepare(self, port: tcp.Port) -> tcp.Port:
        """Prepare a port that listens; return it."""
        self._server.accepting.add(port)
        if isinstance(port, tcp.Port):
            _prepare(port, self._reactor, self._server.accepting)
        return port

    def stopService(self) -> Deferred[Any]:
        """Stop listening."""
        if self._waitingForPort is not None:
            self._waitingForPort.addCallback(self._stopped)
        return maybeDeferred(super().stopService)

    def _stopped(self, port: tcp.Port) -> tcp.Port:
        self._server.accepting.remove(port)
        return port


def quietly(listen: Callable[[], object]) -> None:
    """Listen without Twisted's log line for each port, which it writes even if the next one cannot listen."""
    legacy_log.callWithContext({"log_format": ""}, listen)  # an event without text is not written


def _prepare(port: tcp.Port, reactor: object, accepting: AcceptThrottle) -> None:
    """Set the throttle, the poller, the backlog and TCP_NODELAY."""
    accept: Callable[[], None] = partial(accepting.accept, port, port.doRead)
    if poller.IS_AVAILABLE:
        accept = _poll_connections(port, reactor, accept)
    port.doRead = accept  # type: ignore[method-assign]
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
