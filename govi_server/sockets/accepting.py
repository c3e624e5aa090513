"""The limit of open files: raised at start, and accepting is paused near it."""

import os
import resource

from twisted.internet.interfaces import IReactorTime
from twisted.internet.tcp import Port
from twisted.logger import Logger

SPARE_FILES = 128
"""Files that can still be opened when accepting pauses: more than one turn of accepting opens."""

CONNECTIONS_PER_CHECK = 16
"""Connections that are accepted between two checks."""

PAUSE_SECONDS = 1.0
"""Between two checks while accepting is paused."""


def raise_limit(wanted: int) -> int:
    """Raise the limit of open files to the wanted number, or as far as allowed; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and soft != resource.RLIM_INFINITY:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft


class AcceptThrottle:
    """Pauses the ports of a server while almost no more files can be opened.

    Without it Twisted would accept and close each further connection, and log the client's address. Connections that
    are not accepted wait in the kernel's queue. name: the server's name in log lines.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, name: str) -> None:
        self._clock = clock
        self._name = name
        self._ports: list[Port] = []
        self._accepted = 0
        self.paused = False
        """Whether no connection is accepted now."""

    def add(self, port: Port) -> None:
        """Add a listening port."""
        self._ports.append(port)

    def remove(self, port: Port) -> None:
        """Remove a port that stops listening."""
        self._ports.remove(port)

    def check(self) -> None:
        """Pause if too few files are left; call it for each accepted connection."""
        self._accepted += 1
        if self._accepted % CONNECTIONS_PER_CHECK:
            return
        if not self.paused and self._ports and not self._files_left():
            self.paused = True
            self.log.warn("Accepting pauses for {name}: too many open files", name=self._name)
            for port in self._ports:
                port.stopReading()
            self._clock.callLater(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._ports and not self._files_left():
            self._clock.callLater(PAUSE_SECONDS, self._resume)
            return
        self.paused = False
        if self._ports:
            self.log.info("Accepting resumes for {name}", name=self._name)
        for port in self._ports:
            port.startReading()

    def _files_left(self) -> bool:
        """Return whether enough files are left: a new one gets the lowest free descriptor."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            lowest = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            return False
        os.close(lowest)
        return soft == resource.RLIM_INFINITY or lowest < soft - min(SPARE_FILES, soft // 2)
