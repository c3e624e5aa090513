"""The table that is bounded by the memory of its values."""

from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime import bounded_memory
from govi_server.runtime.bounded_memory import UNCONDITIONAL_SHARE, BoundedMemory


class BoundedMemoryTests(SynchronousTestCase):
    """What is stored, and what is evicted."""

    def setUp(self) -> None:
        self.memory: BoundedMemory[int] = BoundedMemory(800)

    def stored(self) -> list[int]:
        return [key for key in range(100) if self.memory.get(key) is not None]

    def test_least_recently_used_is_evicted(self) -> None:
        """Beyond its bytes, the least recently used values are evicted, and counted."""
        for key in range(8):
            self.memory.put(key, key, 100)
        self.memory.get(0)
        self.memory.put(8, 8, 150)
        self.assertEqual(self.stored(), [0, 3, 4, 5, 6, 7, 8])
        self.assertEqual((self.memory.bytes, self.memory.n_evicted), (750, 2))

    def test_replaced_value(self) -> None:
        """A replaced value frees its bytes; one that is too large is removed."""
        for size in (100, 200):
            self.memory.put(1, size, size)
            self.assertEqual((self.memory.bytes, self.memory.get(1)), (size, size))
        self.memory.put(1, 900, 900)
        self.assertEqual((self.memory.bytes, self.stored()), (0, []))

    def test_discarded(self) -> None:
        """A discarded value frees its bytes."""
        self.memory.put(1, 1, 100)
        self.memory.discard(1)
        self.memory.discard(1)
        self.assertEqual((self.memory.bytes, len(self.memory)), (0, 0))


class AdmissionTests(SynchronousTestCase):
    """A memory that admits repeated keys."""

    def setUp(self) -> None:
        self.memory: BoundedMemory[int] = BoundedMemory(800, admits_repeated=True)
        self.memory.put("first", 0, round(800 * UNCONDITIONAL_SHARE))

    def test_stored_the_second_time(self) -> None:
        """The first value of a key is not stored, except in a memory that is nearly empty."""
        self.assertEqual(self.memory.get("first"), 0)
        for n in range(3):
            self.memory.put("second", n, 100)
            self.assertEqual(self.memory.get("second"), n or None)

    def test_single_use_evicts_nothing(self) -> None:
        """Values whose keys are put once evict nothing."""
        for n in range(100):
            self.memory.put(n, n, 100)
        self.assertEqual((self.memory.get("first"), len(self.memory), self.memory.n_evicted), (0, 1, 0))

    def test_evicted_key_must_be_repeated_again(self) -> None:
        """An evicted key is a new one."""
        for n in [n for n in range(8) for _ in range(2)]:
            self.memory.put(n, n, 100)
        self.assertIsNone(self.memory.get("first"))
        self.memory.put("first", 1, 100)
        self.assertIsNone(self.memory.get("first"))
        self.memory.put("first", 2, 100)
        self.assertEqual(self.memory.get("first"), 2)

    def test_candidates_are_bounded(self) -> None:
        """At most MAX_CANDIDATES keys are remembered."""
        with mock.patch.object(bounded_memory, "MAX_CANDIDATES", 4):
            for n in range(5):
                self.memory.put(n, n, 100)
            self.memory.put(0, 0, 100)
            self.memory.put(4, 4, 100)
        self.assertEqual((self.memory.get(0), self.memory.get(4)), (None, 4))
