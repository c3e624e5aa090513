"""Poll the connections of a server for the reactor, which sees all of them as one readable file.

The reactor calls each file that it polls within a new log context (callWithLogger of twisted.python.log), whose only
use is a prefix in the legacy log. Without it a bare protocol takes 10.0 us a response instead of 13.7
(docs/performance.md).
"""

import select
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

IS_AVAILABLE = hasattr(select, "epoll")
"""Whether the platform has epoll: Linux. Elsewhere the reactor polls connections itself."""

MAX_EVENTS = 100
"""Connections that are served before the reactor goes on with its delayed calls and other files."""

_DONE = Failure(ConnectionDone())
_FAILURES: dict[type[BaseException], Failure] = {ConnectionDone: _DONE, ConnectionLost: Failure(ConnectionLost())}


@implementer(IReadDescriptor)
class Poller:
    """To transports, the part of a reactor that they use; to the reactor, a file, readable if any of theirs is.

    It calls them as Twisted's own poll reactors do. reactor: an IReactorFDSet and IReactorTime.
    """

    log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[Connection, int]] = {}

    # The interface to transports.

    def addReader(self, transport: Connection) -> None:
        """Start watching a transport for readability."""
        self._watch(transport, select.EPOLLIN, 0)

    def addWriter(self, transport: Connection) -> None:
        """Start watching a transport for writability."""
        self._watch(transport, select.EPOLLOUT, 0)

    def removeReader(self, transport: Connection) -> None:
        """Stop watching a transport for readability."""
        self._watch(transport, 0, select.EPOLLIN)

    def removeWriter(self, transport: Connection) -> None:
        """Stop watching a transport for writability."""
        self._watch(transport, 0, select.EPOLLOUT)

    def callLater(self, *args: Any) -> IDelayedCall:
        """Schedule a call with the reactor."""
        call: IDelayedCall = self._reactor.callLater(*args)
        return call

    def _watch(self, transport: Connection, more: int, less: int) -> None:
        fd = transport.fileno()
        _, before = self._watched.get(fd, (None, 0))
        after = (before | more) & ~less
        if after == before:
            return
        if after:
            (self._epoll.modify if before else self._epoll.register)(fd, after)
            self._watched[fd] = (transport, after)
            if not before and len(self._watched) == 1:
                self._reactor.addReader(self)
        else:
            self._epoll.unregister(fd)
            del self._watched[fd]
            if not self._watched:
                self._reactor.removeReader(self)

    # The interface to the reactor.

    def fileno(self) -> int:
        """Return the file descriptor for the reactor."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """Return the name for Twisted's own log lines."""
        return "connections"

    def connectionLost(self, reason: Failure) -> None:
        """Close the open connections: the reactor stops."""
        for transport, _ in list(self._watched.values()):
            try:
                transport.connectionLost(reason)
            except Exception:
                self.log.failure("{transport}: closing failed", transport=transport.logPrefix())

    def doRead(self) -> None:
        """Serve the transports that are readable or writable."""
        for fd, event in self._epoll.poll(0, MAX_EVENTS):
            transport, wanted = self._watched.get(fd, (None, 0))
            if transport is None:
                continue  # an earlier one has closed it
            try:
                self._serve(transport, wanted, event)
            except BaseException:  # as in the reactor's poll, so that the other connections go on
                self.log.failure("{transport}: closing failed", transport=transport.logPrefix())

    def _serve(self, transport: Connection, wanted: int, event: int) -> None:
        why: BaseException | None = None
        reading = False
        if event & (select.EPOLLHUP | select.EPOLLERR) and not event & select.EPOLLIN:
            reading = bool(wanted & select.EPOLLIN)
            why = CONNECTION_DONE if reading else CONNECTION_LOST
        else:
            try:
                if event & select.EPOLLIN:
                    reading = True
                    why = transport.doRead()
                if why is None and event & select.EPOLLOUT and transport.connected:
                    reading = False
                    why = transport.doWrite()
            except BaseException as error:
                self.log.failure("{transport}: reading or writing failed", transport=transport.logPrefix())
                why = error
        if why is None:
            return
        transport.stopReading()
        if reading and isinstance(why, ConnectionDone):  # the client closed its sending side alone
            transport.readConnectionLost(_DONE)
        else:
            transport.connectionLost(_FAILURES.get(type(why)) or Failure(why))
