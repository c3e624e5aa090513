"""ZeroMQ sockets, read by the reactor."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import zmq
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IReactorPluggableNameResolver,
    IReadDescriptor,
    IResolutionReceiver,
)
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.errors import StartupError
from govi_server.runtime.outside import outside
from govi_server.settings import SubscriberSettings

FIRST_BACK_OFF = 1.0
"""Seconds between the first two attempts; doubled after each further one."""

KEEPALIVE_IDLE_SECONDS = 60
"""When TCP's keep-alive begins; the system's default is two hours."""

# The format that libzmq's connect() expects; libzmq itself accepts any number as a port.
_TCP_HOST = r"(?:\[[A-Za-z0-9.:%_-]+\]|[A-Za-z0-9:][A-Za-z0-9.:%_-]*)"
_TCP = re.compile(rf"{_TCP_HOST}:(\d{{1,5}})", re.ASCII)

# To listen on, * is any interface, or any port.
_LISTENING_TCP = re.compile(rf"(?:\*|{_TCP_HOST}):(\d{{1,5}}|\*)", re.ASCII)

Socket = zmq.Socket[bytes]


class SubscriberSockets:
    """Creates SUB sockets in a separate context. reactor: an IReactorThreads."""

    def __init__(self, reactor: Any, prefixes: Sequence[str], limits: SubscriberSettings) -> None:
        self._reactor = reactor
        self._prefixes = dict.fromkeys(prefix.encode() for prefix in prefixes)
        self._socket: Socket | None = None
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
        self._socket = socket
        return socket

    def subscribe(self, prefix: bytes) -> bool:
        """Subscribe to another prefix, now and in further sockets; return whether it was not subscribed to before."""
        if prefix in self._prefixes:
            return False
        self._prefixes[prefix] = None
        if self._socket is not None and not self._socket.closed:
            self._socket.subscribe(prefix)
        return True

    def unsubscribe(self, prefix: bytes) -> None:
        """End a subscription."""
        del self._prefixes[prefix]
        if self._socket is not None and not self._socket.closed:
            self._socket.unsubscribe(prefix)

    def close(self) -> Deferred[None]:
        """Terminate the context after its sockets were closed; fires when its threads have ended.

        Runs in the reactor's thread pool: libzmq resolves names in its I/O thread, and term() waits for a name
        server that does not respond.
        """
        context, self._context, self._socket = self._context, None, None
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
    return _is_valid(address, _TCP)


def is_listening_address(address: str) -> bool:
    """Return whether libzmq can listen on an address; a port of * is any free one."""
    return _is_valid(address, _LISTENING_TCP)


def _is_valid(address: str, tcp: re.Pattern[str]) -> bool:
    scheme, _, path = address.partition("://")
    if scheme == "tcp":
        match = tcp.fullmatch(path)
        return match is not None and (match[1] == "*" or 0 < int(match[1]) < 65536)
    return scheme in ("ipc", "inproc") and 0 < len(os.fsencode(path)) <= zmq.IPC_PATH_MAX_LEN


def host_of(address: str) -> str:
    """Return the host of a tcp address; "" for another one."""
    return address.removeprefix("tcp://").rpartition(":")[0].strip("[]") if address.startswith("tcp://") else ""


def can_resolve(reactor: Any, host: str) -> Deferred[bool]:
    """Return whether the reactor resolves a host name; also fires with True if it resolves none, or for "".

    libzmq resolves names itself, again and again, and does not report failures.
    """
    done: Deferred[bool] = Deferred()
    if host and IReactorPluggableNameResolver.providedBy(reactor):
        reactor.nameResolver.resolveHostName(_Resolution(done), host)
    else:
        done.callback(True)
    return done


@implementer(IResolutionReceiver)
class _Resolution:
    """Receives the addresses of a host name; fires done with whether there are any."""

    def __init__(self, done: Deferred[bool]) -> None:
        self._done = done
        self._has_address = False

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Do nothing."""

    def addressResolved(self, address: IAddress) -> None:
        """Note an address."""
        self._has_address = True

    def resolutionComplete(self) -> None:
        """Report the result."""
        self._done.callback(self._has_address)


def check_address(setting: str, address: str, is_valid: Callable[[str], bool] = is_address) -> None:
    """Raise StartupError if a setting's address is invalid."""
    if is_valid(address):
        return
    guess = f"tcp://{address.rpartition('://')[2]}"
    expected = f"; did you mean {guess!r}?" if is_valid(guess) else " (expected tcp://host:port)"
    raise StartupError(f"{setting}: invalid feed address {address!r}{expected}")


def bind(socket: Socket, address: str, setting: str) -> str:
    """Let a socket listen on an address; return it with its port. Raises StartupError, which names the setting."""
    socket.ipv6 = "[" in address
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        raise StartupError(f"{setting}: cannot listen on {address}: {zmq.strerror(error.errno or 0)}") from None
    return cast(bytes, socket.last_endpoint).decode().rstrip("\0")
