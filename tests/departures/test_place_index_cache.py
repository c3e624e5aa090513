"""Tests of departures.place_index_cache: when the index is built, and what requests get meanwhile."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.place_index import PlaceIndex
from govi_server.departures.place_index_cache import REBUILD_PAUSE_FACTOR, PlaceIndexCache
from govi_server.departures.places import StopRecord
from govi_server.runtime.cooperative import CooperativeRunner


class Stops:
    """Stops whose version is their number; reading one takes a second of the clock."""

    def __init__(self, clock: Clock) -> None:
        self.runner = CooperativeRunner(clock)
        self.stop_codes = ["1", "2"]
        self.is_broken = False
        self._clock = clock

    @property
    def stops_version(self) -> int:
        return len(self.stop_codes)

    def stop_record(self, code: str) -> StopRecord:
        self._clock.rightNow += 1
        if self.is_broken:
            raise ValueError(code)
        return StopRecord(code, None, None, frozenset(), 0)


class PlaceIndexCacheTests(SynchronousTestCase):
    """PlaceIndexCache."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1e9)
        self.stops = Stops(self.clock)
        self.cache = PlaceIndexCache(self.stops, self.clock)

    def index(self) -> Deferred[PlaceIndex]:
        index = self.cache.index()
        self.clock.pump([0.0] * 20)
        return index

    def places(self) -> int:
        """Return the number of places that a request gets."""
        return len(self.successResultOf(self.index()))

    def test_rebuilt_after_a_pause(self) -> None:
        """New stops are found after a pause in proportion to the duration of the last build."""
        self.assertEqual(self.places(), 2)
        self.stops.stop_codes.append("3")
        self.assertEqual((self.places(), self.places()), (2, 2))
        self.clock.advance(2 * REBUILD_PAUSE_FACTOR)
        self.assertEqual((self.places(), self.places()), (2, 3))

    def test_clock_set_back(self) -> None:
        """A clock that is set back does not prolong the pause."""
        self.places()
        self.stops.stop_codes.append("3")
        self.clock.rightNow -= 86400
        self.assertEqual((self.places(), self.places()), (2, 3))

    def test_first_build_fails(self) -> None:
        """Requests fail with the first build, and until the next one."""
        self.stops.is_broken = True
        self.failureResultOf(self.index(), RuntimeError)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.stops.is_broken = False
        self.failureResultOf(self.index(), RuntimeError)
        self.clock.advance(2 * REBUILD_PAUSE_FACTOR)
        self.assertEqual(self.places(), 2)

    def test_waiting_request_is_cancelled(self) -> None:
        """A request that is cancelled gets no index; the others do."""
        first, second = self.cache.index(), self.cache.index()
        first.cancel()
        self.clock.pump([0.0] * 20)
        self.assertEqual(len(self.successResultOf(second)), 2)
        self.failureResultOf(first)
