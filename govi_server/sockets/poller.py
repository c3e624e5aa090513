"""Poll the connections of a server with an epoll object, which the reactor sees as one descriptor.

The reactor calls each descriptor that it polls within a new log context (callWithLogger of twisted.python.log), whose
only use is a prefix in the legacy log. Without them, a bare protocol needs 10.0 us per response instead of 13.7
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

from govi_server.runtime.outside import outside

IS_AVAILABLE = hasattr(select, "epoll")
"""Whether the platform has epoll: Linux. Elsewhere the reactor polls connections itself."""

MAX_EVENTS = 100
"""Connections that are served before the reactor continues with its delayed calls and other descriptors."""

MAX_TURN_SECONDS = 0.003
"""Time after which the other ready connections are served in the next turn of the reactor."""

_DONE = Failure(ConnectionDone())
_FAILURES: dict[type[BaseException], Failure] = {ConnectionDone: _DONE, ConnectionLost: Failure(ConnectionLost())}


@implementer(IReadDescriptor)
class Poller:
    """The subset of a reactor that transports use; to the reactor, one descriptor that is readable if any is ready.

    Calls transports as Twisted's own poll reactors do. reactor: an IReactorFDSet and IReactorTime.
    """

    log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = outside(reactor, "epoll", select.epoll)()
        self._watched: dict[int, tuple[Connection, int]] = {}
        self._postponed: dict[int, int] = {}
        """Descriptors that were ready, but not served in the last turn, with their order."""

    @property
    def is_behind(self) -> bool:
        """Whether transports that were ready were not served in the last turn."""
        return bool(self._postponed)

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

    def _watch(self, transport: Connection, added: int, removed: int) -> None:
        fd = transport.fileno()
        _, before = self._watched.get(fd, (None, 0))
        after = (before | added) & ~removed
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
        """Return the name in Twisted's own log lines."""
        return "connections"

    def connectionLost(self, reason: Failure) -> None:
        """Close the open connections, because the reactor stops."""
        for transport, _ in list(self._watched.values()):
            try:
                transport.connectionLost(reason)
            except Exception:
                self.log.failure("{transport}: closing failed", transport=transport.logPrefix())

    def doRead(self) -> None:
        """Serve the transports that are readable or writable, and those that become so meanwhile."""
        seconds = self._reactor.seconds
        began, n_served = seconds(), 0
        events = self._epoll.poll(0, MAX_EVENTS)
        if self._postponed:
            # First, or else they could wait forever.
            events.sort(key=lambda event: self._postponed.get(event[0], MAX_EVENTS))
            self._postponed = {}
        while events:
            for n, (fd, event) in enumerate(events):
                if n_served and not 0 <= seconds() - began < MAX_TURN_SECONDS:
                    self._postponed = {fd: order for order, (fd, _) in enumerate(events[n:])}
                    return
                n_served += 1
                transport, watched = self._watched.get(fd, (None, 0))
                if transport is None:
                    continue  # an earlier event has closed it
                try:
                    self._serve(transport, watched, event)
                except BaseException:  # as in the reactor's poll, so that other connections continue
                    self.log.failure("{transport}: closing failed", transport=transport.logPrefix())
            if n_served >= MAX_EVENTS:
                return
            events = self._epoll.poll(0, MAX_EVENTS - n_served)  # cheaper than in another turn of the reactor

    def _serve(self, transport: Connection, watched: int, event: int) -> None:
        reason: BaseException | None = None
        reading = False
        if event & (select.EPOLLHUP | select.EPOLLERR) and not event & select.EPOLLIN:
            reading = bool(watched & select.EPOLLIN)
            reason = CONNECTION_DONE if reading else CONNECTION_LOST
        else:
            try:
                if event & select.EPOLLIN:
                    reading = True
                    reason = transport.doRead()
                if reason is None and event & select.EPOLLOUT and transport.connected:
                    reading = False
                    reason = transport.doWrite()
            except BaseException as error:
                self.log.failure("{transport}: reading or writing failed", transport=transport.logPrefix())
                reason = error
        if reason is None:
            return
        transport.stopReading()
        if reading and isinstance(reason, ConnectionDone):  # the client closed only its sending side
            transport.readConnectionLost(_DONE)
        else:
            transport.connectionLost(_FAILURES.get(type(reason)) or Failure(reason))
