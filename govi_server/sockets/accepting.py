"""The limit of open files: how many there may be, and what happens when there are too many."""

import os
import resource

from twisted.internet.interfaces import IReactorTime
from twisted.internet.tcp import Port
from twisted.logger import Logger

SPARED = 128
"""Files that can still be opened when accepting pauses: more than one turn of accepting takes."""

LOOK_EVERY = 16
"""Connections that are accepted between two looks."""

LOOK_AGAIN = 1.0
"""Seconds after which a pause may end."""


def raise_limit(wanted: int) -> int:
    """Raise the limit of open files to what is wanted, or as far as may be; tell what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and soft != resource.RLIM_INFINITY:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft


class AcceptThrottle:
    """Lets the ports of a server accept while there are files left to open, and pauses them otherwise.

    Without it Twisted would accept and close every further client, with its address in the log each time. What is
    paused waits in the kernel's queue. what: the name that logs call the server by.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, what: str) -> None:
        self._clock = clock
        self._what = what
        self._ports: list[Port] = []
        self._accepted = 0
        self.paused = False
        """Whether nobody is accepted now."""

    def add(self, port: Port) -> None:
        """Take charge of a port that listens."""
        self._ports.append(port)

    def remove(self, port: Port) -> None:
        """Leave a port alone that is to listen no more."""
        self._ports.remove(port)

    def check(self) -> None:
        """Pause if there are too few files left; to be called for every connection that was accepted."""
        self._accepted += 1
        if self._accepted % LOOK_EVERY:
            return
        if not self.paused and self._ports and not self._files_left():
            self.paused = True
            self.log.warn("Accepting pauses for {what}: too many open files", what=self._what)
            for port in self._ports:
                port.stopReading()
            self._clock.callLater(LOOK_AGAIN, self._look_again)

    def _look_again(self) -> None:
        if self._ports and not self._files_left():
            self._clock.callLater(LOOK_AGAIN, self._look_again)
            return
        self.paused = False
        if self._ports:
            self.log.info("Accepting goes on for {what}", what=self._what)
        for port in self._ports:
            port.startReading()

    def _files_left(self) -> bool:
        """Tell whether there are files left: a new one gets the lowest number that is free."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            lowest = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            return False
        os.close(lowest)
        return soft == resource.RLIM_INFINITY or lowest < soft - min(SPARED, soft // 2)
