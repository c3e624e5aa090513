"""ZeroMQ SUB sockets, read by the reactor."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import zmq
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.runtime.outside import outside
from govi_server.settings import SubscriberSettings

FIRST_BACK_OFF = 1.0
"""Seconds between the first two attempts; doubled after each further one."""

KEEPALIVE_IDLE_SECONDS = 60
"""When TCP's keep-alive begins; the system's default is two hours."""

# The format that libzmq's connect() expects; libzmq itself accepts any number as a port.
_TCP = re.compile(r"(?:\[[A-Za-z0-9.:%_-]+\]|[A-Za-z0-9:][A-Za-z0-9.:%_-]*):(\d{1,5})", re.ASCII)

Socket = zmq.Socket[bytes]


class SubscriberSockets:
    """Creates SUB sockets in a separate context. reactor: an IReactorThreads."""

    def __init__(self, reactor: Any, prefixes: Sequence[str], limits: SubscriberSettings) -> None:
        self._reactor = reactor
        self._prefixes = prefixes
        self._limits = limits
        self._context: zmq.Context[Socket] | None = None

    def connect(self, address: str, ipv6: bool) -> Socket:
        """Return a socket that is connecting to an address. Raises ZMQError if libzmq rejects it."""
        if self._context is None:  # not earlier: its threads would not survive twistd's fork
            self._context = outside(self._reactor, "zmq_context", zmq.Context[Socket])()
        socket = self._context.socket(zmq.SUB)
        try:
            socket.linger = 0
            socket.rcvhwm = self._limits.queue
            socket.maxmsgsize = self._limits.message
            socket.ipv6 = ipv6
            socket.tcp_keepalive = 1
            socket.tcp_keepalive_idle = KEEPALIVE_IDLE_SECONDS
            # ZMTP's own heartbeats stay off: older publishers speak ZMTP 3.0, which lacks them, and silence is
            # detected without them.
            socket.reconnect_ivl = round(1000 * min(FIRST_BACK_OFF, self._limits.back_off))
            socket.reconnect_ivl_max = round(1000 * self._limits.back_off)
            for prefix in self._prefixes:
                socket.subscribe(prefix)
            socket.connect(address)
        except zmq.ZMQError:
            socket.close()
            raise
        return socket

    def close(self) -> Deferred[None]:
        """Terminate the context after its sockets were closed; fires when its threads have ended.

        Runs in the reactor's thread pool: libzmq resolves names in its I/O thread, and term() waits for a name
        server that does not respond.
        """
        context, self._context = self._context, None
        if context is None:
            return succeed(None)
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), context.term)


@implementer(IReadDescriptor)
class SocketDescriptor:
    """The file descriptor of a socket, readable when the socket may have changed."""

    def __init__(self, socket: Socket, ready: Callable[[], None]) -> None:
        self._number = socket.FD
        self._ready = ready

    def fileno(self) -> int:
        """Return its number, the same until the socket is closed."""
        return self._number

    def doRead(self) -> None:
        """Report that the socket may have changed."""
        self._ready()

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the reactor is stopping, and stopService() closes the socket."""

    def logPrefix(self) -> str:
        """Return its name in Twisted's own log lines."""
        return "kv78turbo"


def has_message(socket: Socket) -> bool:
    """Return whether a message is waiting; makes the descriptor unreadable until the socket changes again."""
    return bool(cast(int, socket.get(zmq.EVENTS)) & zmq.POLLIN)


def is_address(address: str) -> bool:
    """Return whether libzmq accepts an address and can reach it."""
    scheme, _, path = address.partition("://")
    if scheme == "tcp":
        tcp = _TCP.fullmatch(path)
        return tcp is not None and 0 < int(tcp[1]) < 65536
    return scheme in ("ipc", "inproc") and 0 < len(os.fsencode(path)) <= zmq.IPC_PATH_MAX_LEN
