"""Serve connections with pipelined requests in rotation."""

from collections import OrderedDict
from itertools import islice
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

MAX_RESUMED = 16
"""Connections that are resumed in one turn of the reactor: with four requests each, they need some 5 ms."""


class Yielding(Protocol):
    """A connection whose next requests wait."""

    def resume(self) -> None:
        """Process the next requests."""


class Turns:
    """Resumes connections in the order in which they were added, a few in each turn of the reactor.

    In between, other connections are served, and the end of these is detected.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: OrderedDict[Yielding, None] = OrderedDict()
        self._call: IDelayedCall | None = None

    def add(self, connection: Yielding) -> None:
        """Resume a connection in a later turn."""
        self._waiting[connection] = None
        if self._call is None:
            self._call = self._clock.callLater(0, self._resume)

    def remove(self, connection: Yielding) -> None:
        """Forget a connection that has ended."""
        self._waiting.pop(connection, None)
        if not self._waiting and self._call is not None:
            self._call.cancel()
            self._call = None

    def _resume(self) -> None:
        self._call = None
        for connection in list(islice(self._waiting, MAX_RESUMED)):
            if connection in self._waiting:  # resuming another one has not ended it
                del self._waiting[connection]
                connection.resume()
        if self._waiting and self._call is None:
            self._call = self._clock.callLater(0, self._resume)
