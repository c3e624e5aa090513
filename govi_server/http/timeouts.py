"""Deadlines of connections: one delayed call serves all deadlines of the same length."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_Connection = TypeVar("_Connection")


class TimeoutHandler(Generic[_Connection]):
    """Deadlines of one length for many connections: calls expire with each connection that reaches its deadline.

    As all deadlines are equally long, they expire in the order in which they were set. So one dictionary and one
    callLater serve them all, and setting a deadline is O(1). (The dictionary is an OrderedDict, since repeatedly
    removing the first key of a plain dict needs quadratic time.)
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
        """Remove a connection's deadline, if it is set."""
        self._started_at.pop(connection, None)

    def __iter__(self) -> Iterator[_Connection]:
        """Iterate over the connections that have a deadline, the earliest first."""
        return iter(self._started_at)

    def cancel(self) -> None:
        """Remove all deadlines."""
        self._started_at.clear()
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _check(self) -> None:
        """Expire connections past their deadline, and schedule the next check."""
        now = self._clock.seconds()
        while self._started_at:
            connection, started_at = next(iter(self._started_at.items()))
            remaining = started_at + self._limit - now
            # More than the limit (plus a second for rounding) means that the clock was set back: expire it as well.
            if 0 < remaining < self._limit + 1:
                self._call = self._clock.callLater(remaining, self._check)
                return
            del self._started_at[connection]
            try:
                self._expire(connection)
            except Exception:
                self.log.failure("Handling a deadline failed")  # the other deadlines are still checked
        self._call = None
