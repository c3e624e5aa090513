"""Tests of kv78turbo.spread_version: changes that reach the stops one after another."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.kv78turbo.spread_version import (
    GROUPS,
    MAX_SPREAD_SECONDS,
    MAX_STOPS_AT_ONCE,
    MIN_SPREAD_SECONDS,
    STOPS_PER_SECOND,
    SpreadVersion,
)
from tests.client import NOW

CODES = [str(30_000_000 + n) for n in range(20 * GROUPS)]
SECONDS = len(CODES) / STOPS_PER_SECOND
"""Time in which a change reaches so many stops."""


class SpreadVersionTests(SynchronousTestCase):
    """The versions of many stops."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.n_stops = len(CODES)
        self.spread = SpreadVersion(self.clock.seconds, lambda: self.n_stops)

    def reached(self, latest: int) -> int:
        """Return the number of stops that have the latest version."""
        return sum(self.spread.of(code, latest) == latest for code in CODES)

    def test_change_reaches_stops_one_after_another(self) -> None:
        """A change reaches about as many stops in each second."""
        self.assertEqual(self.reached(1), 0)
        numbers = []
        for _ in range(10):
            self.clock.advance(SECONDS / 10 + 0.001)
            numbers.append(self.reached(1))
        self.assertEqual((numbers, numbers[-1]), (sorted(numbers), len(CODES)))
        for before, after in zip([0, *numbers], numbers, strict=False):
            self.assertLess(after - before, len(CODES) / 5)

    def test_few_stops(self) -> None:
        """If few stops are stored, a change reaches all of them at once."""
        self.n_stops = MAX_STOPS_AT_ONCE
        self.assertEqual(self.reached(1), len(CODES))

    def test_bounds(self) -> None:
        """However many stops are stored, a change reaches them neither much faster nor much more slowly."""
        for latest, (n_stops, seconds) in enumerate(((201, MIN_SPREAD_SECONDS), (10**6, MAX_SPREAD_SECONDS)), 1):
            self.n_stops = n_stops
            self.reached(latest)
            self.clock.advance(0.9 * seconds)
            self.assertLess(self.reached(latest), len(CODES))
            self.clock.advance(0.1 * seconds)
            self.assertEqual(self.reached(latest), len(CODES))

    def test_changes_one_after_another(self) -> None:
        """Of many changes, a stop gets two within the time of one at most, and the latest one at the end."""
        seen: dict[str, set[int]] = {code: set() for code in CODES}
        for latest in range(1, 101):
            for code in CODES[::7]:
                seen[code].add(self.spread.of(code, latest))
            self.clock.advance(SECONDS / 100)
        self.assertLessEqual(max(map(len, seen.values())), 3)  # and the first one
        self.spread.of("1", 100)
        self.clock.advance(SECONDS)
        self.assertEqual(self.reached(100), len(CODES))

    def test_clock_set_back(self) -> None:
        """After the clock was set back, a change reaches all stops."""
        self.reached(1)
        self.clock.rightNow -= 3600
        self.assertEqual(self.reached(1), len(CODES))

    @given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, SECONDS / 2)), max_size=20))
    def test_several_stops(self, steps: list[tuple[int, float]]) -> None:
        """The version of several stops changes exactly when that of one of them does."""
        self.setUp()
        latest, codes = 0, CODES[:9]
        before = self.spread.of_all(codes, 0), [self.spread.of(code, 0) for code in codes]
        for change, seconds in steps:
            latest += change
            self.clock.advance(seconds)
            each = [self.spread.of(code, latest) for code in codes]
            after = self.spread.of_all(codes, latest), each
            self.assertEqual(before[0] == after[0], before[1] == after[1])
            before = after
