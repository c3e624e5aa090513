"""How often an operator repeats its passtimes, and which of them are overdue (docs/protocols.md, section 2.10).

The feed repeats passtimes until they have passed. One that it no longer repeats is unreliable, although its operator
still sends others. How often an operator repeats follows from the gaps between its rows for the same passtime.
"""

import math
from collections import deque

from govi_server.departures.display import Reliability
from govi_server.departures.times import MINUTE

OVERDUE_INTERVALS = 5
"""Intervals without a repetition after which a passtime is overdue; four to six while the interval fluctuates."""

MIN_OVERDUE_SECONDS = 1.0 * MINUTE
"""A passtime is never overdue earlier."""

UNKNOWN_LIMIT_SECONDS = 5.0 * MINUTE
"""Twice the silence that is an outage while the interval is unknown."""

FRESH_INTERVALS = 2
"""Intervals of silence after which an operator's data is stale: one repetition may be lost."""

MIN_GAPS = 3
"""Gaps before an interval is known."""

MAX_GAPS = 256
"""Latest gaps of an operator that are stored."""

GAPS_PER_UPDATE = 8
"""The interval is updated when one in so many gaps is new."""

MIN_GAP_SECONDS = 0.5
"""Shorter gaps are of messages that are sent twice."""

QUANTILE = 0.8
"""The fraction of observed time that lies in gaps up to the interval. Passtimes that are updated more often have more
gaps, and some return after a long absence."""

MIN_LONG_GAPS = 3
"""Gaps of more than half the limit from which an operator is found to repeat more slowly, if they have at least half
of the rows of the latest gaps. Others come from absent journeys, outages, or old messages that are sent again."""

LATEST_GAPS = 20
"""The number of these latest gaps."""

RESTORED_GAPS = 10
"""Gaps for which an interval counts that was learned before a restart, each with the rows of the largest
one after it."""

MIN_CENSUS = 50
"""Passtimes of an operator from which it is concluded that it sends most of them only once."""

_MAX_OUTAGES = 8


class Repetition:
    """The repetitions of one operator. Times are epoch seconds."""

    __slots__ = (
        "_first_heard", "_gaps", "_last_heard", "_limit", "_n_new", "_outages", "_restored", "_was_unreliable",
        "interval", "is_complete",
    )  # fmt: skip

    def __init__(self) -> None:
        self.interval: float | None = None
        """Seconds between two repetitions; None until it is known."""
        self.is_complete = True
        """Whether the operator repeats all of its passtimes, or at least half of them."""
        self._limit = UNKNOWN_LIMIT_SECONDS
        self._was_unreliable = False
        self._n_new = 0
        self._gaps: deque[tuple[float, float]] = deque(maxlen=MAX_GAPS)  # seconds, and their number of rows
        self._restored: float | None = None  # the interval before a restart, until MAX_GAPS are known after it
        self._first_heard: float | None = None  # since a restart
        self._last_heard: float | None = None
        self._outages: deque[tuple[float, float]] = deque(maxlen=_MAX_OUTAGES)  # start and end

    @property
    def limit(self) -> float:
        """The age in seconds above which a passtime is overdue; infinite until an interval is known."""
        return self._limit if self.interval is not None and self.is_complete else math.inf

    def invalidates(self, previous: float) -> bool:
        """Return whether a change of the limit from the previous one may change what was displayed.

        A higher limit only does if a passtime was displayed as overdue: displays are valid until it would be by the
        limit of their time.
        """
        limit = self.limit
        invalidates = limit < previous or (limit > previous and self._was_unreliable)
        if invalidates:
            self._was_unreliable = False
        return invalidates

    def restore(self, last_heard: float, interval: float | None) -> None:
        """Continue after a restart; data may have arrived since. The pause is an outage."""
        if self._last_heard is None:
            self._last_heard = last_heard
        elif self._first_heard is not None and last_heard < self._first_heard:
            self._outages.appendleft((last_heard, self._first_heard))
        if interval is not None and self.interval is None:
            self._restored = interval
            self._set_interval(interval)

    def data_received(self, now: float) -> bool:
        """Record that data of the operator arrived, before the gaps of its rows.

        Return whether passtimes that were overdue may be current again, because the clock was set back.
        """
        last, start = self._last_heard, self._outage_start
        self._last_heard = now
        if self._first_heard is None:
            self._first_heard = now
        if now > start:
            self._extend_outages(start, now)
        elif (last is not None and now < last) or (self._outages and now < self._outages[-1][1]):
            self._outages.clear()
            return True
        return False

    @property
    def _outage_start(self) -> float:
        """When an outage begins if no more data arrives; not before the end of the previous one."""
        if self._last_heard is None:
            return math.inf
        start = self._last_heard if self._first_heard is None else self._last_heard + self._limit / 2
        return max(start, self._outages[-1][1]) if self._outages else start

    def add_outage(self, start: float, end: float) -> bool:
        """Record that no operator has sent data between two moments, which is an outage however short it is.

        Return whether passtimes that were overdue may be current again.
        """
        start = min(start, self._outage_start)
        if self._outages:
            start = max(start, self._outages[-1][1])
        if start >= end:
            return False
        self._extend_outages(start, end)
        was_unreliable, self._was_unreliable = self._was_unreliable, False
        return was_unreliable

    def _extend_outages(self, start: float, end: float) -> None:
        if self._outages and start == self._outages[-1][1]:
            start, _ = self._outages.pop()
        self._outages.append((start, end))

    def add_gap(self, last_heard: float, now: float, n_rows: float = 1) -> None:
        """Add the gap of a passtime that was repeated. n_rows: number of rows that it represents."""
        gap = now - last_heard
        if gap < MIN_GAP_SECONDS or self.age(last_heard, now) < gap:
            return  # the operator was silent meanwhile
        if len(self._gaps) == MAX_GAPS:
            self._restored = None
        self._gaps.append((gap, n_rows))
        self._n_new += 1
        n_gaps = len(self._gaps) + (RESTORED_GAPS if self._restored is not None else 0)
        if n_gaps >= MIN_GAPS and n_gaps <= GAPS_PER_UPDATE * self._n_new:
            self._n_new = 0
            self._set_interval(self._quantile())

    def _quantile(self) -> float:
        """Return the interval: the time-weighted quantile of the gaps, without long ones while these are few.

        Gaps of overdue passtimes weigh less.
        """
        known = list(self._gaps)
        if self._restored is not None:
            rows = max(n_rows for _, n_rows in known)
            known = [(self._restored, rows)] * RESTORED_GAPS + known
        gaps = sorted(known)
        limit = self._limit if self.interval is not None else 2 * gaps[-1][0]
        least = max(limit / 2, MIN_OVERDUE_SECONDS)
        usual = [item for item in gaps if item[0] <= least]
        latest = known[-LATEST_GAPS:]
        long = [n_rows for gap, n_rows in latest if gap > least]
        if usual and (len(long) < MIN_LONG_GAPS or 2 * sum(long) < sum(n_rows for _, n_rows in latest)):
            gaps = usual
        rest = QUANTILE * sum(min(gap, limit) * n_rows for gap, n_rows in gaps)
        for gap, n_rows in gaps:
            rest -= min(gap, limit) * n_rows
            if rest <= 0:
                return gap
        return gaps[-1][0]

    def _set_interval(self, interval: float) -> None:
        limit = max(OVERDUE_INTERVALS * interval, MIN_OVERDUE_SECONDS)
        # A new limit invalidates everything cached, so the limit does not follow small fluctuations.
        if self.interval is None or abs(limit - self._limit) > interval:
            self._limit = limit
        self.interval = interval

    def age(self, last_heard: float, now: float) -> float:
        """Return the seconds since a passtime was sent, without those in which the operator sent nothing at all.

        Such an outage begins after half the time after which a passtime is overdue: in the rest, the operator can
        repeat everything. A restart, and a silence of the whole feed, are outages as a whole.
        """
        silent = sum(end - max(start, last_heard) for start, end in self._outages if end > last_heard)
        silent += max(now - max(self._outage_start, last_heard), 0.0)
        return max(now - last_heard - silent, 0.0)

    def is_overdue(self, last_heard: float, now: float) -> bool:
        """Return whether a passtime should have been repeated since."""
        return self.interval is not None and self.age(last_heard, now) > self._limit

    def fresh_seconds(self, fresh: float, stale: float) -> float:
        """Return how long the operator may be silent before its data is stale, from fresh to stale seconds."""
        return fresh if self.interval is None else max(fresh, min(FRESH_INTERVALS * self.interval, stale))

    def reliability(self, last_heard: float, now: float, stale: float) -> tuple[Reliability, float]:
        """Return the reliability of a passtime, and for how many seconds, unless it is repeated or the state changes.

        stale: the age in seconds after which an overdue passtime is last known; it is unknown before, for at least a
        minute.
        """
        limit = self.limit
        if limit == math.inf:
            return "current", math.inf
        age = self.age(last_heard, now)
        if age <= limit:
            return "current", limit - age
        self._was_unreliable = True
        stale = max(stale, limit + MINUTE)
        if age <= stale:
            return "unknown", stale - age
        return "last_known", math.inf


class Census:
    """Counts an operator's passtimes, to determine whether it repeats all of them."""

    __slots__ = ("n_passtimes", "n_sent_once")

    def __init__(self) -> None:
        self.n_passtimes = 0
        self.n_sent_once = 0
        """Overdue passtimes that were never repeated. Those that were repeated before count as reliably repeated."""

    @property
    def is_complete(self) -> bool:
        """Whether most passtimes are repeated; also if there are too few to know."""
        return self.n_passtimes < MIN_CENSUS or self.n_sent_once <= self.n_passtimes / 2
