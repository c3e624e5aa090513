"""Garbage collections of a program with much memory."""

import gc
import weakref

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime import garbage_collection
from govi_server.runtime.garbage_collection import MAX_OLD, MIN_SURVIVORS, GarbageCollection
from tests.client import NOW


class Thing:
    """An object that can refer to itself."""

    itself: "Thing | None" = None


class GarbageCollectionTests(SynchronousTestCase):
    """The service, at 01:00 in the Netherlands."""

    def setUp(self) -> None:
        gc.collect()
        self.clock = Clock()
        self.clock.advance(NOW)
        self.patch(garbage_collection, "MIN_SURVIVORS", 1)
        self.service = GarbageCollection(self.clock)
        self.service.startService()
        self.daily = self.clock.getDelayedCalls()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        if self.service.running:
            self.service.stopService()

    def is_visited(self, thing: object) -> bool:
        return any(other is thing for other in gc.get_objects())

    def test_survivors_are_not_visited_again(self) -> None:
        """What survives a full collection is not visited by later ones; a partial collection freezes nothing."""
        thing = Thing()
        gc.collect(1)
        self.assertTrue(self.is_visited(thing))
        gc.collect()
        self.assertFalse(self.is_visited(thing))

    def test_few_survivors_are_not_frozen(self) -> None:
        """What survives a full collection is frozen only if it is much: cycles that are used then are freed later."""
        gc.collect()
        self.patch(garbage_collection, "MIN_SURVIVORS", MIN_SURVIVORS)
        thing = Thing()
        gc.collect()
        self.assertTrue(self.is_visited(thing))
        things = [Thing() for _ in range(MIN_SURVIVORS)]
        gc.collect()
        self.assertFalse(self.is_visited(things[0]))

    def test_full_collections_are_early(self) -> None:
        """A full collection begins after a partial one that leaves many old objects, and is not repeated soon."""
        gc.collect()
        self.patch(garbage_collection, "MIN_SURVIVORS", MIN_SURVIVORS)
        few = [Thing() for _ in range(MAX_OLD // 2)]
        gc.collect(1)
        self.assertEqual(self.clock.getDelayedCalls(), self.daily)
        things = [Thing() for _ in range(MAX_OLD)]
        gc.collect(1)
        self.assertTrue(self.is_visited(things[0]))
        self.clock.advance(0)
        self.assertFalse(self.is_visited(things[0]) or self.is_visited(few[0]))
        gc.collect(1)
        self.assertEqual(self.clock.getDelayedCalls(), self.daily)

    def test_old_objects_are_counted_rarely(self) -> None:
        """Partial collections do not count the old objects until MAX_OLD have become old."""
        gc.collect()
        counted = []
        get_objects = gc.get_objects

        def spy(generation: int) -> list[object]:
            if generation == 2:
                counted.append(generation)
            return get_objects(generation=generation)

        self.patch(gc, "get_objects", spy)
        things = [Thing() for _ in range(MAX_OLD // 2)]
        for _ in range(10):
            gc.collect(1)
        self.assertEqual(counted, [])
        things = [Thing() for _ in range(MAX_OLD)]  # half of the old ones are freed
        gc.collect(1)
        self.assertEqual((len(things), len(counted)), (MAX_OLD, 1))

    def test_unused_cycles_are_freed(self) -> None:
        """A cycle is freed by the next collection, or at 04:00 if it was frozen when it was used, every day."""
        young = Thing()
        young.itself, reference = young, weakref.ref(young)
        del young
        gc.collect()
        self.assertIsNone(reference())
        for hours in (3, 24):
            frozen = Thing()
            frozen.itself, reference = frozen, weakref.ref(frozen)
            gc.collect()
            del frozen
            gc.collect()
            self.clock.advance(hours * 3600 - 1)
            self.assertIsNotNone(reference())
            self.clock.advance(1)
            self.assertIsNone(reference())

    def test_collector_is_restored(self) -> None:
        """When the service stops, the collector visits all objects."""
        thing = Thing()
        gc.collect()
        self.service.stopService()
        self.assertTrue(self.is_visited(thing))
        self.assertEqual((gc.get_freeze_count(), self.clock.getDelayedCalls()), (0, []))
