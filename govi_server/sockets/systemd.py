"""Endpoints on sockets that another process has opened: systemd: adopts any listening socket (sd_listen_fds(3))."""

import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet import unix
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

FIRST_SYSTEMD_FILE = 3
"""The descriptor of the first socket from systemd (sd_listen_fds(3))."""


@implementer(IStreamServerEndpoint)
class AdoptedEndpoint:
    """Listens on a socket that systemd holds. fd: its descriptor. Raises ValueError if it is no listening socket.

    The address family is the socket's own. The descriptor stays open, so that several endpoints can use it.
    """

    def __init__(self, reactor: Any, fd: int) -> None:
        self._reactor = reactor
        try:
            self.socket = socket.socket(fileno=os.dup(fd))
        except OSError as error:
            raise ValueError(f"descriptor {fd} is not a socket ({error.strerror})") from None
        is_listening = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if not is_listening or self.socket.type != socket.SOCK_STREAM or self.socket.family not in _FAMILIES:
            self.socket.close()
            raise ValueError(
                f"descriptor {fd} is not a listening TCP or UNIX socket (expected ListenStream= and Accept=no in its "
                ".socket unit)"
            )

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept connections of the socket."""
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        self.socket.setblocking(False)
        with self.socket:  # the port duplicates the descriptor
            if self.socket.family == socket.AF_UNIX:
                return _AdoptedUNIXPort.adopt(self._reactor, self.socket.fileno(), factory)
            port: IListeningPort = self._reactor.adoptStreamPort(self.socket.fileno(), self.socket.family, factory)
            return port


_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class _AdoptedUNIXPort(unix.Port):
    """A UNIX socket that systemd holds: unlike its base, it neither changes the mode of its file, nor removes it or
    shuts the socket down at the end.
    """

    _shouldShutdown = False

    @classmethod
    def adopt(cls, reactor: Any, fd: int, factory: IProtocolFactory) -> "_AdoptedUNIXPort":
        """Return the port of a listening socket."""
        port: _AdoptedUNIXPort = cls._fromListeningDescriptor(reactor, fd, factory)
        port._bindPath = b"\0"  # an abstract name, as of a socket without a file
        port.backlog = socket.SOMAXCONN  # the base calls listen() again
        port.startListening()
        return port

    def _logConnectionLostMsg(self) -> None:
        """Log nothing: the base logs the name."""


class InheritedSocket(NamedTuple):
    """A socket that was passed to this process."""

    fd: int
    name: str
    """FileDescriptorName= of its .socket unit, by default the unit's name; "" if unknown."""


def inherited_sockets() -> list[InheritedSocket]:
    """Return the sockets from systemd (sd_listen_fds(3)).

    They are read from the environment at the start of the process: Twisted removes the variables from os.environ, and
    ignores all sockets if their names are missing.
    """
    try:
        variables = os.fsdecode(Path("/proc/self/environ").read_bytes()).split("\0")
        environ = dict(variable.split("=", 1) for variable in variables if "=" in variable)
    except OSError:
        environ = dict(os.environ)
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":") + [""] * int(count)
    return [InheritedSocket(FIRST_SYSTEMD_FILE + i, names[i]) for i in range(int(count))]


def socket_selector(arguments: str) -> dict[str, str]:
    """Return the index or name by which a systemd endpoint selects its socket. Raises ValueError.

    The domain, which Twisted's endpoint requires, is ignored.
    """
    values = {}
    for argument in arguments.split(":"):
        key, separator, value = argument.partition("=")
        values[key if separator else "domain"] = value
    if unknown := values.keys() - {"domain", "index", "name"}:
        raise ValueError(f"unknown argument {min(unknown)!r} (expected index or name)")
    if ("index" in values) == ("name" in values):
        raise ValueError("expected an index or a name, as in systemd:index=0 or systemd:name=govi-cache.socket")
    return values


def find_socket(arguments: str, sockets: list[InheritedSocket]) -> int:
    """Return the descriptor of the socket that a systemd endpoint selects. Raises ValueError."""
    values = socket_selector(arguments)
    if not sockets:
        raise ValueError("no socket was passed to this process (LISTEN_FDS); was it started by a .socket unit?")
    matches = [
        fd
        for index, (fd, name) in enumerate(sockets)
        if str(index) == values.get("index") or name == values.get("name")
    ]
    if len(matches) != 1:
        passed = ", ".join(f"{index} {name!r}" for index, (_, name) in enumerate(sockets))
        raise ValueError(f"{'several sockets match' if matches else 'no such socket'}; passed: {passed}")
    return matches[0]
