"""Short garbage collections, however much memory is in use.

A full collection visits all objects that may be part of a cycle, 0.4 to 1 us each, and all clients wait. Almost
everything that the program stores for long, and all that a connection leaves (tests/http/test_release.py), is freed
without the collector. So what survives a full collection is frozen, if it is much, which exempts it from later ones:
each visits only what was made since. The interpreter begins one when a quarter more than survived the last one is
old, up to 70 ms of work while a program grows; here it begins when MAX_OLD objects are old. Frozen cycles that are
not used any more, 90 bytes for a connection to a gateway, are freed once a day, when the fewest clients wait.
"""

import gc
from datetime import datetime, timedelta

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from govi_server.runtime.clock import LOCAL_ZONE

COLLECTION_HOUR = 4
"""The hour of the day, in local time, at which all objects are collected."""


MAX_OLD = 5_000
"""Old objects at which a full collection begins. It takes 3 to 7 ms, which delay all requests."""

MIN_SURVIVORS = MAX_OLD // 2
"""Objects that survive a full collection from which they are frozen; otherwise the next one would begin soon."""


class GarbageCollection(Service):
    """Freezes what survives a full collection, if it is much, and collects all objects once a day."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._call: IDelayedCall | None = None
        self._collection: IDelayedCall | None = None
        """A full collection that is due."""
        self._old = 0
        """An upper bound on the number of old objects. To count them at each partial collection took 0.7 ms."""

    def startService(self) -> None:
        """Begin to freeze objects."""
        super().startService()
        self._old = len(gc.get_objects(2))
        gc.callbacks.append(self._on_collection)
        self._schedule()

    def stopService(self) -> None:
        """Let the collector visit all objects again."""
        super().stopService()
        gc.callbacks.remove(self._on_collection)
        gc.unfreeze()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._collection is not None:
            self._collection.cancel()
            self._collection = None

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        generation = info["generation"]
        if not generation:
            return
        if phase == "start":
            self._old += len(gc.get_objects(0)) + len(gc.get_objects(1))  # those that survive become old
        elif generation == 2:
            self._old = len(gc.get_objects(2))
            if self._old >= MIN_SURVIVORS:
                gc.freeze()
                self._old = 0
        elif self._old >= MAX_OLD:
            self._old = len(gc.get_objects(2))
            if self._old >= MAX_OLD and self._collection is None:  # not during another collection
                self._collection = self._clock.callLater(0, self._collect)

    def _collect(self) -> None:
        self._collection = None
        gc.collect()

    def _schedule(self) -> None:
        now = datetime.fromtimestamp(self._clock.seconds(), LOCAL_ZONE)
        due = now.replace(hour=COLLECTION_HOUR, minute=0, second=0, microsecond=0)
        if due <= now:
            due += timedelta(1)
        self._call = self._clock.callLater(due.timestamp() - now.timestamp(), self._collect_all)

    def _collect_all(self) -> None:
        self._schedule()
        gc.unfreeze()
        gc.collect()
