"""Short garbage collections, however much memory is in use.

A full collection visits all objects that may be part of a cycle, 0.4 us each, and all clients wait. Almost
everything that the program stores for long, and all that a connection leaves (tests/http/test_release.py), is freed
without the collector. So what survives a full collection is frozen, if it is much, which exempts it from later ones:
each visits only what was made since. The interpreter begins one when a quarter more than survived the last one is
old, up to 70 ms of work while a program grows; here it begins as soon as so much is old that it would be frozen.
Frozen cycles that are not used any more are freed once a day, when the fewest clients wait.
"""

import gc
from datetime import datetime, timedelta

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from govi_server.runtime.clock import LOCAL_ZONE

COLLECTION_HOUR = 4
"""The hour of the day, in local time, at which all objects are collected."""


MIN_SURVIVORS = 20_000
"""Objects that survive a full collection from which they are frozen; visiting them takes 8 ms. Freezing fewer would
also freeze the cycles in use at each of many collections: 90 bytes for each connection to a gateway, until 04:00."""


class GarbageCollection(Service):
    """Freezes what survives a full collection, if it is much, and collects all objects once a day."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._call: IDelayedCall | None = None
        self._collection: IDelayedCall | None = None
        """A full collection that is due."""

    def startService(self) -> None:
        """Begin to freeze objects."""
        super().startService()
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
        if phase == "start" or not info["generation"] or len(gc.get_objects(2)) < MIN_SURVIVORS:
            return
        if info["generation"] == 2:
            gc.freeze()
        elif self._collection is None:  # not during another collection
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
