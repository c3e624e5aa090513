"""Tests of govi_server.operations.history."""

from twisted.logger import Logger

from govi_server.departures.board import Board, Trip
from govi_server.operations.history import HISTORY_MINUTES, MAX_NAMES, OTHERS
from govi_server.statistics.records import SEVERAL, ConnectionStatistics
from tests.client import NOW
from tests.operations.case import CODE, OperationsTestCase


class RecentHistoryTests(OperationsTestCase):
    """The last hour by minute."""

    def test_requests_are_counted_by_result(self) -> None:
        """Requests are counted by result; requests, failures and the longest waits by stop."""
        self.log_requests((f"/kv55/{CODE}", 200, "hit"), ("/kv55/1", 504, "miss"), ("/kv55/2", 503, "miss"))
        self.log_requests(("/kv55/3", 404, "none"), (f"/tpc/{CODE}/departures", 200, "stale"), wait=2.5)
        (minute,) = self.history.minutes()
        self.assertEqual(minute.results, {"hit": 1, "timeout": 1, "failed": 1, "stale": 1})
        self.assertEqual(minute.stops, {CODE: 2, "1": 1, "2": 1, "3": 1})
        self.assertEqual((minute.failed_stops, minute.unknown_stops), ({"1": 1, "2": 1}, {"3": 1}))
        self.assertEqual(minute.longest_waits, {"3": 2.5, CODE: 2.5})

    def test_module_and_stop_of_requests(self) -> None:
        """Requests on both paths are counted for the module and the stop that their handling set."""
        self.cache.put(Board(CODE, (Trip(),), NOW))
        client = self.client()
        for path in (f"/kv55/{CODE}", f"/kv55/{CODE}", f"/tpc/{CODE},1", "/elsewhere/1"):
            client.get(path)
        client.leave()
        (minute,) = self.history.minutes()
        self.assertEqual(minute.stops, {CODE: 2, SEVERAL: 1})
        self.assertEqual(minute.modules["kv55"].results, {("hit", 200): 2})
        self.assertEqual(self.metric('govi_requests_total{cache="none",module="other",status="404"}'), "1.0")

    def test_other_servers_are_ignored(self) -> None:
        """Connections of other servers, such as the callbacks', are not counted."""
        Logger().info(statistics=ConnectionStatistics("kv55 callbacks", "local", NOW))
        self.assertEqual(list(self.history.minutes()), [])

    def test_history_ends_after_an_hour(self) -> None:
        """Minutes older than an hour are dropped."""
        for _ in range(2 * HISTORY_MINUTES):
            self.log_requests((f"/kv55/{CODE}", 200, "hit"))
            self.clock.advance(60)
        self.assertLessEqual(len(list(self.history.minutes())), HISTORY_MINUTES)
        self.clock.advance(3700)
        self.assertEqual(list(self.history.minutes()), [])

    def test_names_are_bounded(self) -> None:
        """A minute counts at most MAX_NAMES stops and clients separately."""
        for n in range(MAX_NAMES + 500):
            self.log_requests((f"/kv55/{n}", 404, "none"), client=f"client {n}")
        (minute,) = self.history.minutes()
        self.assertEqual((len(minute.stops), minute.stops[OTHERS]), (MAX_NAMES + 1, 500))
        self.assertEqual(len(minute.clients), MAX_NAMES + 1)

    def test_failures_of_feed_modules(self) -> None:
        """A 503 of a feed module is a failure although it has no cache result; other statuses and paths are not."""
        self.log_requests(
            ("/tpc/1", 503, "none"), ("/tpc/2", 404, "none"), ("/b", 503, "none"), ("/tpc/1", 501, "none")
        )
        (minute,) = self.history.minutes()
        self.assertEqual(minute.results, {"failed": 1})
