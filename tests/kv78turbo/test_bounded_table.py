"""Tests of kv78turbo.bounded_table: which entries of a full table make room for new ones."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.kv78turbo import bounded_table
from govi_server.kv78turbo.bounded_table import (
    CONFIRM_SECONDS,
    MAX_COHORTS,
    STEP_ENTRIES,
    BoundedTable,
    Probation,
    largest_cohort,
)

RETENTION = 100.0
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "repeat", "confirm", "discard", "sweep", "wait"]),
        st.integers(0, 30),
        st.integers(1, 5),
        st.floats(-20, 40),
    ),
    max_size=120,
)


class BoundedTableTests(SynchronousTestCase):
    """BoundedTable."""

    def make_table(self, limit: int = 100) -> BoundedTable[str, int]:
        return BoundedTable(limit, RETENTION)

    def put(self, table: BoundedTable[str, int], prefix: str, number: int, now: float, rate: float = 1e9) -> set[str]:
        """Put entries at a rate per second; return their keys."""
        keys = [f"{prefix}{n}" for n in range(number)]
        for n, key in enumerate(keys):
            table.put(key, n, now + n / rate)
        return set(keys)

    def test_new_entries_are_stored_in_a_full_table(self) -> None:
        """New entries replace those of a flood, however long ago it was and at whatever rate it came."""
        for rate in (1e9, 1000.0, 100.0):
            for pause in (0.0, 5.0, 60.0):
                table = self.make_table()
                self.put(table, "flood", 1000, 0.0, rate)
                new = self.put(table, "new", 20, 1000 / rate + pause, 5.0)
                self.assertLessEqual(new, table.keys(), (rate, pause))

    def test_known_entries_survive_a_flood(self) -> None:
        """Entries that were there before a flood stay, even if they were received only once."""
        table = self.make_table()
        known = self.put(table, "known", 20, 0.0)
        self.put(table, "flood", 1000, 2.0, 500.0)
        self.assertLessEqual(known, table.keys())
        self.assertEqual(len(table), 100)

    def test_confirmed_entries_survive_slow_floods(self) -> None:
        """Entries that were repeated, or requested, survive any number of entries that were not."""
        table = self.make_table()
        known = self.put(table, "known", 20, 0.0)
        for key in sorted(known):
            if key < "known15":
                table.confirm(key)
            else:
                table.repeat(key, CONFIRM_SECONDS)
        self.put(table, "flood", 2000, 20.0, 1.0)
        self.assertLessEqual(known, table.keys())

    def test_early_repetition_does_not_confirm(self) -> None:
        """An entry that is repeated at once is still unconfirmed."""
        table = self.make_table()
        self.put(table, "flood", 50, 0.0)
        self.put(table, "flood", 50, CONFIRM_SECONDS / 2)
        self.assertFalse(any(map(table.is_confirmed, table)))

    def test_repeated_flood_leaves_room(self) -> None:
        """A flood that is repeated for ever fills three quarters of a table; new entries still find room."""
        table = self.make_table()
        for repetition in range(5):
            self.put(table, "flood", 300, 30.0 * repetition)
        self.assertLessEqual(sum(map(table.is_confirmed, table)), 75)
        new = self.put(table, "new", 10, 200.0)
        self.assertLessEqual(new, table.keys())

    def test_unused_entries_are_removed(self) -> None:
        """Entries that were neither received nor used within the retention are removed, in steps."""
        table = self.make_table(1000)
        self.put(table, "old", 600, 0.0)
        used = self.put(table, "used", 10, 0.0)
        heard = self.put(table, "heard", 10, 50.0)
        self.assertGreaterEqual(len(list(table.sweep(80.0, used.__contains__))), 600 // STEP_ENTRIES)
        self.assertEqual(len(table), 620)
        for _ in table.sweep(101.0, lambda key: False):
            pass
        self.assertEqual(table.keys(), used | heard)

    def test_entries_of_a_fast_clock_are_removed(self) -> None:
        """After the clock was set back, entries are removed after the retention as well."""
        table = self.make_table()
        self.put(table, "old", 10, 1e6)
        for now in (0.0, RETENTION + 1):
            for _ in table.sweep(now, lambda key: False):
                pass
        self.assertEqual(table, {})

    def test_keys_of_removed_entries_are_dropped(self) -> None:
        """Entries that leave while others of the same second stay need no memory, whatever their order."""
        table = self.make_table()
        for n in range(1000):
            table.put(f"{n}", n, 0.0)
            table.discard(f"{n - 40}" if n % 2 else f"{n - 20}")
        (cohort,) = table._probation._cohorts.values()
        self.assertGreater(cohort.n, 10)
        self.assertLess(len(cohort.keys), 3 * cohort.n)

    def test_eviction_is_brief_after_the_first_entries_left(self) -> None:
        """The search for the next victim does not examine the keys of all earlier entries, which have left."""
        numbers: dict[int, int] = {}
        examined: list[int] = []

        def number_of(key: int) -> int:
            examined.append(key)
            return numbers.get(key, 0)

        probation = Probation(1000, number_of)
        for key in range(1000):
            numbers[key] = probation.add(key, 1, 0.0)
        for key in range(490):
            probation.discard(numbers.pop(key), 1)
        examined.clear()
        self.assertEqual((probation.victim(), examined), (490, [490]))

    def test_largest_cohort(self) -> None:
        """The largest group of unconfirmed entries is selected, the oldest first."""
        self.assertEqual(largest_cohort([("a", 1), ("b", 2), ("c", 0), ("d", 2)]), ["b", "d"])
        self.assertEqual(largest_cohort([("a", 0)]), [])

    def test_many_cohorts(self) -> None:
        """Entries that arrive over a long time are evicted oldest first."""
        table = self.make_table(4 * MAX_COHORTS)
        self.put(table, "slow", 6 * MAX_COHORTS, 0.0, 0.5)
        self.assertNotIn("slow0", table)
        self.assertIn(f"slow{6 * MAX_COHORTS - 1}", table)

    def test_new_entries_are_stored_after_cohorts_were_merged(self) -> None:
        """A cohort from which entries are evicted may be merged with another one meanwhile."""
        table = self.make_table(400)
        self.put(table, "first", 1, 0.0)
        self.put(table, "flood", 300, 1.0)
        slow = self.put(table, "slow", MAX_COHORTS + 40, 2.0, 1.0)
        self.assertLessEqual(slow, table.keys())
        self.assertEqual(len(table), 400)

    @settings(deadline=None)
    @given(STEPS)
    def test_any_order(self, steps: list[tuple[str, int, int, float]]) -> None:
        """Whatever happens, the table is within its limit, its parts are consistent, and it makes room."""
        self.patch(bounded_table, "MAX_COHORTS", 3)
        table: BoundedTable[int, int] = BoundedTable(40, RETENTION, size_of=lambda value: value)
        now = 0.0
        for action, key, value, seconds in steps:
            if action == "put":
                is_stored = table.put(key, value, now)
                self.assertEqual(is_stored, table.get(key) == value)
                confirmed = sum(size for key, size in table.items() if table.is_confirmed(key))
                self.assertTrue(is_stored or confirmed + value > 40)
            elif action == "sweep":
                for _ in table.sweep(now, lambda key: key % 2):
                    pass
            elif action == "wait":
                now += seconds
            elif action == "discard":
                table.discard(key)
            elif key in table:
                if action == "repeat":
                    table.repeat(key, now)
                else:
                    table.confirm(key)
            self.assertEqual(table.size, sum(table.values()))
            self.assertLessEqual(table.size, 40)
            confirmed = sum(size for key, size in table.items() if table.is_confirmed(key))
            self.assertLessEqual(confirmed, 30 + 5)  # confirmed entries may grow
            self.assertEqual(set(table._last_heard), set(table))
            probation, found = table._probation, set[int]()
            for cohort in probation._cohorts.values():
                keys = {key for key in cohort.keys if probation._contains(cohort, key)}
                self.assertEqual((cohort.n, cohort.size), (len(keys), sum(table[key] for key in keys)))
                found |= keys
            self.assertEqual(found, set(table.unconfirmed))
