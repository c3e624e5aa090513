"""Bound what all connections together hold of unfinished requests."""

from collections import OrderedDict
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from govi_server.runtime.malloc import FreedMemory
from govi_server.runtime.throttled_warnings import ThrottledWarnings


class Holder(Protocol):
    """A connection, which holds received bytes or an unsent response."""

    def reject(self) -> None:
        """End the connection with its request, and hold nothing from now on."""


class UnfinishedRequests:
    """Counts the bytes of unfinished requests, and rejects the oldest large ones while they exceed a limit.

    limit: in bytes. connections: the number of connections that share it. A connection that holds no more than an
    equal share is never rejected: so clients that send a lot, or slowly, do not displace those with common requests.
    If the limit is exceeded, at least one connection holds more than its share.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, limit: int, connections: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.incidents = ThrottledWarnings(self.log, clock)
        self.freed = FreedMemory(clock)
        self._share = limit // connections
        # Ordered by the time at which they exceeded their share; see TimeoutHandler.
        self._large: OrderedDict[Holder, None] = OrderedDict()

    def change(self, holder: Holder, before: int, after: int) -> None:
        """Change the number of bytes that a connection holds; reject others, or itself, if they are too many."""
        self.bytes += after - before
        if after < before:
            self.freed.add(before - after)
        if after > self._share:
            self._large[holder] = None
        elif before > self._share:
            self._large.pop(holder, None)
        while self.bytes > self.limit and self._large:
            oldest, _ = self._large.popitem(last=False)
            self.incidents.add(
                "unfinished",
                "A request was rejected: unfinished requests hold more than {limit} bytes",
                limit=self.limit,
            )
            oldest.reject()
