"""The current place index: rebuilt in the background when the known stops change."""

from collections.abc import Iterable
from typing import Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from govi_server.departures.place_index import PlaceIndex
from govi_server.departures.places import StopRecord
from govi_server.runtime.cooperative import CooperativeRunner

REBUILD_PAUSE_FACTOR = 20
"""Pause after a build, as a multiple of its duration: at night KV7 changes every second."""

FAILED = "building the place index failed"


class KnownStops(Protocol):
    """The stops to index."""

    runner: CooperativeRunner
    """Builds the index."""

    @property
    def stops_version(self) -> object:
        """A token that changes whenever the stops have changed."""

    @property
    def stop_codes(self) -> Iterable[str]:
        """All TimingPointCodes, each once."""

    def stop_record(self, code: str) -> StopRecord:
        """Return what is known of a TimingPointCode."""


class PlaceIndexCache:
    """Caches an index of the known stops. The first request builds it; later ones rebuild it if stops changed."""

    def __init__(self, stops: KnownStops, clock: IReactorTime) -> None:
        self._stops = stops
        self._clock = clock
        self.runner = stops.runner
        self.latest: PlaceIndex | None = None
        """The last index that was built."""
        self._version: object = None
        self._ended_at = 0.0
        self._pause = 0.0
        """Seconds from the end of a build to the next one."""
        self._waiters: dict[Deferred[PlaceIndex], None] | None = None

    def index(self) -> Deferred[PlaceIndex]:
        """Return the index, the previous one during a rebuild. Fails with RuntimeError until a build succeeds."""
        now, version = self._clock.seconds(), self._stops.stops_version
        is_pausing = 0 <= now - self._ended_at < self._pause  # not after the clock was set back
        if version != self._version and self._waiters is None and not is_pausing:
            self._version, self._waiters = version, {}
            steps = PlaceIndex.make(self._stops.stop_codes, self._stops.stop_record, self._built)
            self.runner.cooperator.coiterate(steps).addBoth(self._ended, now)
        if self._waiters is not None and self.latest is None:
            waiters = self._waiters
            waiter: Deferred[PlaceIndex] = Deferred(lambda cancelled: waiters.pop(cancelled, None))
            waiters[waiter] = None
            return waiter
        return fail(RuntimeError(FAILED)) if self.latest is None else succeed(self.latest)

    def _built(self, index: PlaceIndex) -> None:
        self.latest = index

    def _ended(self, result: object, started: float) -> object:
        waiters, self._waiters = self._waiters or {}, None
        if self.latest is None:
            self._version = None
        self._ended_at = self._clock.seconds()
        self._pause = REBUILD_PAUSE_FACTOR * max(self._ended_at - started, 0.0)
        failure = Failure(RuntimeError(FAILED))
        self.runner.resume(waiters, failure if self.latest is None else self.latest)
        return result
