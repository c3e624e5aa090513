"""The limit of open files: it is raised at startup, and accepting pauses near it."""

import os
import resource

from twisted.internet.interfaces import IReactorTime
from twisted.internet.tcp import Port
from twisted.logger import Logger

SPARE_FILES = 128
"""Files that can still be opened when accepting pauses: more than the reactor accepts in one turn."""

CONNECTIONS_PER_CHECK = 16
"""Connections accepted between checks."""

PAUSE_SECONDS = 1.0
"""Interval of the checks while accepting is paused."""


def raise_limit(target: int) -> int:
    """Raise the limit of open files to a target, or as far as allowed; return the smaller of limit and target."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < target and soft != resource.RLIM_INFINITY:
        soft = target if hard == resource.RLIM_INFINITY else min(target, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return target if soft == resource.RLIM_INFINITY else soft


class AcceptThrottle:
    """Pauses the ports of a server while hardly any more files can be opened.

    Otherwise Twisted would accept and close each further connection, and log the client's address. Connections that
    are not accepted wait in the kernel's queue. name: the server's name in log lines.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, name: str) -> None:
        self._clock = clock
        self._name = name
        self._ports: list[Port] = []
        self._accepted = 0
        self.paused = False
        """Whether accepting is paused."""

    def add(self, port: Port) -> None:
        """Add a listening port."""
        self._ports.append(port)

    def remove(self, port: Port) -> None:
        """Remove a port that stops listening."""
        self._ports.remove(port)

    def check(self) -> None:
        """Pause if too few files are left; must be called for each accepted connection."""
        self._accepted += 1
        if self._accepted % CONNECTIONS_PER_CHECK:
            return
        if not self.paused and self._ports and not self._files_left():
            self.paused = True
            self.log.warn("{name}: accepting paused (too many open files)", name=self._name)
            for port in self._ports:
                port.stopReading()
            self._clock.callLater(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._ports and not self._files_left():
            self._clock.callLater(PAUSE_SECONDS, self._resume)
            return
        self.paused = False
        if self._ports:
            self.log.info("{name}: accepting resumed", name=self._name)
        for port in self._ports:
            port.startReading()

    def _files_left(self) -> bool:
        """Return whether enough files are left: a new file has the lowest free descriptor."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            lowest = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            return False
        os.close(lowest)
        return soft == resource.RLIM_INFINITY or lowest < soft - min(SPARE_FILES, soft // 2)
