"""Deadlines of connections: many of the same length for the price of one delayed call."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_Connection = TypeVar("_Connection")


class TimeoutHandler(Generic[_Connection]):
    """A deadline of the same length for many connections: calls expire with each that reaches it, oldest first.

    As all deadlines are equally long, they expire in the order in which they were set: one dictionary and one
    callLater serve them all, and setting one is O(1). (An OrderedDict, since removing the first key of a plain dict
    again and again takes quadratic time.)
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, limit: float, expire: Callable[[_Connection], None]) -> None:
        self._clock = clock
        self._limit = limit
        self._expire = expire
        self._started_at: OrderedDict[_Connection, float] = OrderedDict()
        self._call: IDelayedCall | None = None
        self._last_start = 0.0

    def start(self, connection: _Connection) -> None:
        """Set a connection's deadline, counted from now."""
        started_at, now = self._started_at, self._clock.seconds()
        started_at[connection] = now
        started_at.move_to_end(connection)
        if self._call is None:
            self._call = self._clock.callLater(self._limit, self._check)
        elif now < self._last_start and self._call.active() and self._call.getTime() - now > self._limit:
            self._call.reset(self._limit)  # the clock was set back
        self._last_start = now

    def stop(self, connection: _Connection) -> None:
        """Remove a connection's deadline, if it has one."""
        self._started_at.pop(connection, None)

    def __iter__(self) -> Iterator[_Connection]:
        """Iterate over the connections that have a deadline, the nearest first."""
        return iter(self._started_at)

    def cancel(self) -> None:
        """Remove all deadlines."""
        self._started_at.clear()
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _check(self) -> None:
        """Expire what is due, and schedule the next check."""
        now = self._clock.seconds()
        while self._started_at:
            connection, started_at = next(iter(self._started_at.items()))
            remaining = started_at + self._limit - now
            # More than the limit, and a second for rounding: the clock was set back, and this one expires, too.
            if 0 < remaining < self._limit + 1:
                self._call = self._clock.callLater(remaining, self._check)
                return
            del self._started_at[connection]
            try:
                self._expire(connection)
            except Exception:
                self.log.failure("A deadline failed")  # the others are checked all the same
        self._call = None
