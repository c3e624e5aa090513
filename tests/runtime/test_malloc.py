"""Freed memory is returned to the kernel, some megabytes at a time."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime import malloc
from govi_server.runtime.malloc import FREED_BYTES, RETURN_DELAY, FreedMemory


class FreedMemoryTests(SynchronousTestCase):
    """Freed memory."""

    def setUp(self) -> None:
        self.calls: list[int] = []
        self.patch(malloc, "malloc_trim", self.calls.append)
        self.clock = Clock()
        self.freed = FreedMemory(self.clock)

    def test_little_memory_is_kept(self) -> None:
        """Less than FREED_BYTES is left to malloc(), and no call is pending."""
        self.freed.add(FREED_BYTES - 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_much_memory_is_returned_once(self) -> None:
        """FREED_BYTES are returned once, after RETURN_DELAY, with what was freed meanwhile."""
        for _ in range(4):
            self.freed.add(FREED_BYTES // 2)
        self.clock.advance(RETURN_DELAY)
        self.freed.add(FREED_BYTES // 2)
        self.clock.advance(RETURN_DELAY)
        self.assertEqual(self.calls, [0])

    def test_malloc_trim_is_callable(self) -> None:
        """The function of the C library, or its substitute, is callable."""
        malloc._find_malloc_trim()(0)
