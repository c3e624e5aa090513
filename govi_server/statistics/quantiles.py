"""Quantiles of any number of times in constant memory."""

from math import ceil

from ddsketch.ddsketch import BaseDDSketch
from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import DenseStore

RELATIVE_ACCURACY = 0.01
"""Largest error of a quantile, as a fraction of the true value."""

RESOLUTION_MS = 0.001
"""Resolution of the statistics log; shorter times count as 0."""

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}

_MAPPING = LogarithmicMapping(RELATIVE_ACCURACY)


class QuantileSketch:
    """A sketch of times in milliseconds: their number, quantiles within RELATIVE_ACCURACY, and exact maximum.

    Needs a few kB, and merging two sketches loses no accuracy (DDSketch, VLDB 2019).
    """

    __slots__ = ("_sketch", "_store", "maximum")

    def __init__(self) -> None:
        self._store = DenseStore()
        self._sketch = BaseDDSketch(_MAPPING, self._store, DenseStore(), 0.0)
        self.maximum = 0.0

    def add(self, milliseconds: float) -> None:
        """Count a time. A negative time, measured while the clock was set back, counts as 0."""
        self._sketch.add(milliseconds if milliseconds >= RESOLUTION_MS else 0.0)
        if milliseconds > self.maximum:
            self.maximum = milliseconds

    def merge(self, other: "QuantileSketch") -> None:
        """Add the times of another sketch."""
        self._sketch.merge(other._sketch)
        self.maximum = max(self.maximum, other.maximum)

    @property
    def count(self) -> int:
        """The number of times."""
        return int(self._sketch.count)

    def quantile(self, fraction: float) -> float | None:
        """Return the shortest time that at least a fraction (0 to 1) of all times do not exceed.

        Returns None if there are no times.
        """
        count = self.count
        if not count:
            return None
        # The sketch rounds a rank down, which for few times is far from a p99. So request the rank above; half a rank
        # more prevents rounding errors from selecting the rank before it.
        rank = min(ceil(fraction * count) - 0.5, count - 1)
        value = self._sketch.get_quantile_value(rank / (count - 1) if rank > 0 else 0.0)
        return None if value is None else min(value, self.maximum)

    def bucket_counts(self, bounds: list[float]) -> list[int]:
        """Return the number of times in each bucket, the last one above all bounds.

        bounds: upper bounds in milliseconds, ascending. A time within RELATIVE_ACCURACY of a bound may be counted on
        either side of it.
        """
        counts = [0] * (len(bounds) + 1)
        counts[0] = self.count - int(self._store.count)  # times that count as 0
        index = 0
        for key, number in enumerate(self._store.bins, self._store.offset):
            if number:
                while index < len(bounds) and _MAPPING.value(key) > bounds[index]:
                    index += 1
                counts[index] += int(number)
        return counts
