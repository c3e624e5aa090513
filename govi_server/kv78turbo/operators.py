"""The operators of KV8: when each was last heard, and how often it repeats its passtimes."""

import math
from collections.abc import Iterator

from govi_server.departures.times import MINUTE
from govi_server.kv78turbo.bounded_table import BoundedTable
from govi_server.kv78turbo.ctx import Reject
from govi_server.kv78turbo.kv8_columns import MAX_CODE_BYTES
from govi_server.kv78turbo.passtime_index import RETENTION_SECONDS, StoredPasstime
from govi_server.kv78turbo.repetition import FRESH_INTERVALS, Census, Repetition
from govi_server.kv78turbo.stamps import TICKS, Stamp, latest_timestamp

SILENT_FEED_SECONDS = 1.0 * MINUTE
"""Silence of all operators that is an outage of the feed, if several were active, and if it is longer than two
intervals of one of them."""

ACTIVE_SECONDS = 5.0 * MINUTE
"""Time since its latest data in which an operator is active."""

OLD_SECONDS = 1.0 * MINUTE
"""A message that was published so long before the latest one of its operator is sent again, not a repetition."""

MAX_OPERATORS = 1000
"""Operators whose latest update is stored; the feed has about thirty."""


class Operators:
    """Stores the latest data of each operator."""

    def __init__(self) -> None:
        self.last_heard: BoundedTable[str, float] = BoundedTable(
            MAX_OPERATORS, RETENTION_SECONDS, remove=self._remove
        )
        """When the latest data of each operator arrived, in epoch seconds."""
        self.last_update: dict[str, str] = {}
        """The latest LastUpdateTimeStamp of each operator."""
        self.repetitions: dict[str, Repetition] = {}
        """How often each operator repeats its passtimes; of the operators in last_heard."""
        self._published: dict[str, Stamp] = {}
        """When the latest message of each operator was published."""
        self._latest = math.inf
        """When any operator last sent data; infinite before."""
        self.reliability_version = 0
        """Changes when the passtimes of an operator may begin or cease to be overdue for another reason than time and
        their own repetition: rarely, since it invalidates everything cached."""

    def data_received(self, operator: str, now: float, reject: Reject) -> None:
        """Record that an operator sent data; reject it if there is no room for the operator."""
        latest, self._latest = self._latest, now
        if self._is_outage(latest, now):
            self.add_outage(latest, now)
        if len(operator) > MAX_CODE_BYTES:
            reject("key")
        elif self.last_heard.put(operator, now, now):
            self.reliability_version += self.repetitions.setdefault(operator, Repetition()).data_received(now)
        else:
            reject("too many owners")

    def add_outage(self, start: float, end: float) -> None:
        """Record that the feed failed between two moments (epoch seconds)."""
        for repetition in self.repetitions.values():
            self.reliability_version += repetition.add_outage(start, end)

    def _is_outage(self, start: float, end: float) -> bool:
        """Return whether the feed failed between two moments at which operators sent data."""
        if end - start <= SILENT_FEED_SECONDS:
            return False
        active = [operator for operator, time in self.last_heard.items() if start - time < ACTIVE_SECONDS]
        intervals = [self.repetitions[operator].interval or 0.0 for operator in active]
        return len(active) > 1 and end - start > FRESH_INTERVALS * min(intervals)

    def updated(self, operator: str, timestamp: str, now: float) -> None:
        """Record the LastUpdateTimeStamp of an operator's row."""
        latest = latest_timestamp(self.last_update.get(operator), timestamp, now)
        if latest is not None and operator in self.last_heard:
            self.last_update[operator] = latest

    def add_gap(
        self, operator: str, last_heard: float | None, now: float, n_rows: int, published: Stamp | None = None
    ) -> None:
        """Add the time between two rows for a passtime to the operator's gaps, for all rows of a message.

        last_heard: when the passtime was sent before (epoch seconds); None if never. published: when the message was.
        """
        repetition = self.repetitions.get(operator)
        if repetition is None:
            return
        if published is not None:
            latest = self._published[operator] = max(published, self._published.get(operator, published))
            if latest - published > OLD_SECONDS * TICKS:
                return
        if last_heard is not None:
            limit = repetition.limit
            repetition.add_gap(last_heard, now, n_rows)
            self.reliability_version += repetition.invalidates(limit)

    def was_overdue(self, operator: str, last_heard: float, now: float) -> bool:
        """Return whether a passtime that is repeated now was overdue."""
        repetition = self.repetitions.get(operator)
        return (
            repetition is not None
            and now - last_heard > (limit := repetition.limit)  # outages only make it less
            and repetition.age(last_heard, now) > limit
        )

    def restore(
        self, last_heard: dict[str, float], last_update: dict[str, str], intervals: dict[str, float], now: float
    ) -> None:
        """Restore the operators' latest updates, except those in the future, saved while the clock was ahead."""
        for operator, time in last_heard.items():
            if time > now or len(operator) > MAX_CODE_BYTES:
                continue
            if operator in self.last_heard or self.last_heard.put(operator, time, now):
                self.repetitions.setdefault(operator, Repetition()).restore(time, intervals.get(operator))
                self.reliability_version += 1
        for operator, timestamp in last_update.items():
            if operator in self.last_heard:
                self.last_update.setdefault(operator, timestamp)

    def _remove(self, operator: str) -> None:
        self.last_heard.discard(operator)
        self.last_update.pop(operator, None)
        self._published.pop(operator, None)
        repetition = self.repetitions.pop(operator, None)
        self.reliability_version += repetition is not None and repetition.limit != math.inf

    # Sweeping.

    def set_back(self, now: float) -> None:
        """Correct times in the future: after the clock was set back, operators would seem fresh until then."""
        self.last_heard.update({operator: now for operator, time in self.last_heard.items() if time > now})

    def count(self, key: bytes, passtime: StoredPasstime, now: float, censuses: dict[str, Census]) -> None:
        """Count a passtime in the census of its operator."""
        operator = key.partition(b"|")[0].decode()
        census = censuses.get(operator)
        if census is None:
            census = censuses[operator] = Census()
        census.n_passtimes += 1
        if not passtime.is_repeated:
            repetition = self.repetitions.get(operator)
            census.n_sent_once += repetition is not None and repetition.is_overdue(passtime.last_heard, now)

    def sweep(self, censuses: dict[str, Census], now: float) -> Iterator[None]:
        """Apply a census of all passtimes, and remove the operators that no longer send data; in steps."""
        for operator, repetition in self.repetitions.items():
            census = censuses.get(operator)
            limit = repetition.limit
            repetition.is_complete = census is None or census.is_complete
            self.reliability_version += repetition.invalidates(limit)
        yield from self.last_heard.sweep(now, lambda operator: False)
