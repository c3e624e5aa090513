"""Watches the connections of a server for the reactor, to which all of them together are one file to read.

The reactor calls whatever it watches within a log context that it makes each time (callWithLogger of
twisted.python.log), which takes a fifth of what an answer from memory costs. All that there is to it is the name that
the old way of logging puts in front of a line.
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

IS_HERE = hasattr(select, "epoll")
"""Whether there can be one: on Linux. Elsewhere the reactor watches connections as it always does."""

MOST_AT_ONCE = 100
"""Connections that are served before the reactor has its turn: its calls, its other files."""

_DONE = Failure(ConnectionDone())
_FAILURES: dict[type[BaseException], Failure] = {ConnectionDone: _DONE, ConnectionLost: Failure(ConnectionLost())}


@implementer(IReadDescriptor)
class Poller:
    """To transports, what they use of a reactor; to the reactor, a file that can be read when any of theirs can.

    It does with them what Twisted's own poll reactors do. reactor: an IReactorFDSet and IReactorTime.
    """

    log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[Connection, int]] = {}

    # To transports.

    def addReader(self, transport: Connection) -> None:
        """Tell a transport when it can be read."""
        self._watch(transport, select.EPOLLIN, 0)

    def addWriter(self, transport: Connection) -> None:
        """Tell a transport when it can be written to."""
        self._watch(transport, select.EPOLLOUT, 0)

    def removeReader(self, transport: Connection) -> None:
        """Tell it no more."""
        self._watch(transport, 0, select.EPOLLIN)

    def removeWriter(self, transport: Connection) -> None:
        """Tell it no more."""
        self._watch(transport, 0, select.EPOLLOUT)

    def callLater(self, *args: Any) -> IDelayedCall:
        """Have the reactor call something later."""
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

    # To the reactor.

    def fileno(self) -> int:
        """Give the file that the reactor is to watch."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """Say what it is, in Twisted's own log lines."""
        return "connections"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops: so do the connections that are open."""
        for transport, _ in list(self._watched.values()):
            try:
                transport.connectionLost(reason)
            except Exception:
                self.log.failure("{transport} failed at its end", transport=transport.logPrefix())

    def doRead(self) -> None:
        """Have the transports read and written that can be."""
        for fd, event in self._epoll.poll(0, MOST_AT_ONCE):
            transport, wanted = self._watched.get(fd, (None, 0))
            if transport is None:
                continue  # one of those before has closed it
            try:
                self._serve(transport, wanted, event)
            except BaseException:  # as the reactor's poll does: whatever one dies of, the others go on
                self.log.failure("{transport} failed at its end", transport=transport.logPrefix())

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
                self.log.failure("{transport} failed", transport=transport.logPrefix())
                why = error
        if why is None:
            return
        transport.stopReading()
        if reading and isinstance(why, ConnectionDone):  # the client has said its last, and may still listen
            transport.readConnectionLost(_DONE)
        else:
            transport.connectionLost(_FAILURES.get(type(why)) or Failure(why))
