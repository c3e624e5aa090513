"""Tests of govi_server.operations.health."""

from typing import Any, cast

from twisted.internet.defer import Deferred

from govi_server.departures.source import SourceUnreachable
from govi_server.departures.times import utc_timestamp
from govi_server.operations.health import MAX_CHANGES, MAX_PLANNING_AGE, RECOVERY_SECONDS
from govi_server.server import ServerFigures
from govi_server.settings import AccessSettings
from govi_server.workers.messages import Figures
from tests import feed as kv
from tests.client import NOW
from tests.doubles import ingest
from tests.operations.case import CODE, OperationsTestCase


class HealthMonitorTests(OperationsTestCase):
    """The health of the program, and its reasons."""

    def health(self) -> str:
        return self.monitor.health().status

    def fail_gateway(self) -> None:
        """Fail ten requests, which opens the breaker."""
        for n in range(10):
            _, board = self.cache.board(str(n))
            cast("Deferred[object]", board).addErrback(lambda failure: failure.trap(SourceUnreachable))
            self.source.results[-1].errback(SourceUnreachable("refused"))

    def test_up_since_start(self) -> None:
        """Without problems the health is UP since the start."""
        self.assertEqual(self.health(), "UP")
        self.clock.advance(100)
        self.assertEqual(self.monitor.health().since, NOW)

    def test_planning(self) -> None:
        """A GTFS source without a file is a problem; one whose attempts fail only when the file in use is old."""
        service = self.add_planning()
        self.assertEqual((self.health(), self.metric("govi_gtfs_failing")), ("UP", "0.0"))
        service.problem = "/gtfs: No such file or directory"
        self.assertEqual((self.health(), self.metric("govi_gtfs_failing")), ("UP", "1.0"))
        self.clock.advance(MAX_PLANNING_AGE + 1)
        self.assertRegex(
            self.monitor.health().reasons[0],
            r"^GTFS /gtfs: no new file since .* \(gtfs-kv7-20260101.zip is in use; /g",
        )
        self.assertEqual(self.metric("govi_gtfs_age_seconds"), "259201.0")
        service.planning = None
        self.assertRegex(
            self.monitor.health().reasons[0], r"^GTFS /gtfs: no file since .* \(/gtfs: No such file or directory\): "
        )
        self.assertEqual((self.health(), self.metric("govi_gtfs_age_seconds")), ("DEGRADED", None))
        service.problem = ""
        self.assertEqual(self.health(), "RECOVERING")

    def test_health_by_number_of_failing_sources(self) -> None:
        """With one of two sources failing the health is DEGRADED, with both DOWN, then RECOVERING, then UP."""
        self.subscriber.state = "DOWN"
        health = self.monitor.health()
        self.assertEqual(health.status, "DEGRADED")
        self.assertRegex(
            health.reasons[0], r"^Live feed DOWN since ..:.. UTC, 0 min ago \(last data received 0 s ago\): "
        )
        self.fail_gateway()
        self.clock.advance(5)
        health = self.monitor.health()
        self.assertEqual((health.status, health.since), ("DOWN", NOW + 5))
        self.assertTrue(health.reasons[0].startswith("/kv55: gateway not accepting requests since "), health.reasons)
        self.subscriber.state = "UP"
        self.assertEqual(self.health(), "DEGRADED")
        del self.components.gateways["kv55"]
        self.assertEqual(
            self.monitor.health().reasons, ("Service is resuming, normally within a minute; no action needed.",)
        )
        self.assertEqual(self.health(), "RECOVERING")
        self.clock.advance(RECOVERY_SECONDS + 1)
        self.assertEqual(self.health(), "UP")

    def test_many_failing_requests_are_reported(self) -> None:
        """A few failed requests are not reported; many for several stops are reported with details."""
        self.log_requests(*[(f"/kv55/{CODE}", 200, "hit")] * 10)
        self.log_requests(*((f"/kv55/{n}", 504, "miss") for n in range(4)))
        self.assertEqual(self.health(), "UP")
        self.log_requests(("/kv55/1", 406, "miss"))
        self.assertEqual(self.health(), "DEGRADED")
        self.clock.advance(120)
        (reason,) = self.monitor.health().reasons
        since = utc_timestamp(NOW)[11:16]
        details = "5 of 15 in 5 min, stops: 4; 504: 4, 406: 1"
        self.assertTrue(
            reason.startswith(f"/kv55: requests failing since {since} UTC, 2 min ago ({details}): "), reason
        )
        self.log_requests(*[(f"/kv55/{CODE}", 200, "hit")] * 500)
        self.assertEqual(self.health(), "RECOVERING")

    def test_stop_that_may_not_exist(self) -> None:
        """Failures of a single stop that never had a board are mentioned, but do not change the health."""
        self.log_requests(*[(f"/kv55/{CODE}", 200, "hit")] * 100, *[("/kv55/99999999", 504, "miss")] * 55)
        health = self.monitor.health()
        self.assertEqual(health.status, "UP")
        self.assertEqual(health.reasons, ("/kv55: 55 of 155 in 5 min failed, all for 99999999, which may not exist",))
        stops = self.status.json()["stops"]
        self.assertEqual((stops["never_answered"], stops["most_failed"]), ({"99999999": 55}, {}))

    def test_failing_stop_that_exists(self) -> None:
        """Failures of a single stop that had a board before change the health."""
        self.log_requests((f"/kv55/{CODE}", 200, "miss"), *[(f"/kv55/{CODE}", 502, "miss")] * 5)
        self.assertEqual(self.health(), "DEGRADED")

    def test_outage_of_the_only_source(self) -> None:
        """If the only source is a gateway that accepts requests without responding, the health is DOWN."""
        self.components.feed = None
        self.log_requests(*((f"/kv55/{n}", 200, "miss") for n in range(5)))
        self.assertEqual(self.health(), "UP")
        self.clock.advance(180)
        self.log_requests(*((f"/kv55/{n}", 504, "miss") for n in range(5)))
        health = self.monitor.health()
        self.assertEqual(health.status, "DOWN")
        self.assertIn("/kv55: gateway accepts requests but does not respond", health.reasons[0])
        refused = self.components.gateways["kv55"].breaker.board("1")
        self.source.results[-1].errback(SourceUnreachable("refused"))
        self.failureResultOf(refused, SourceUnreachable)
        self.assertIn("/kv55: gateway not accepting requests", self.monitor.health().reasons[0])
        self.assertIn("0 of 5 answered in 3 min; 504: 5", health.reasons[0])
        self.log_requests(*[("/kv55/1", 200, "hit")] * 5)
        self.assertEqual(self.health(), "DEGRADED")

    def test_requests_of_departed_clients_are_failures(self) -> None:
        """Requests whose client disconnected before the response count as failed."""
        self.components.feed = None
        self.log_requests(*((f"/kv55/{n}", None, "miss") for n in range(5)))
        self.assertEqual(self.health(), "DOWN")
        self.assertIn("client left: 5", self.monitor.health().reasons[0])

    def test_unknown_stops_are_not_an_outage(self) -> None:
        """Failures of stops that never had a board are not an outage of a source that responds for others."""
        self.components.feed = None
        self.log_requests((f"/kv55/{CODE}", 200, "miss"))
        self.clock.advance(300)
        self.log_requests(*((f"/kv55/{n}", 504, "miss") for n in range(5)))
        self.assertEqual(self.health(), "DEGRADED")
        self.log_requests(*[(f"/kv55/{CODE}", 504, "miss")])
        self.assertEqual(self.health(), "DOWN")

    def test_outage_of_the_feed(self) -> None:
        """A feed that is UP but has no boards counts as failing."""
        del self.components.gateways["kv55"]
        ingest(self.feed, kv.passtimes({"TimingPointCode": "0"}))
        self.log_requests(*((f"/{module}/{n}", 503, "none") for n in range(3) for module in ("kv55", "tpc")))
        health = self.monitor.health()
        self.assertEqual(health.status, "DOWN")
        self.assertIn("0 of 6 answered in 3 min; 503: 6", health.reasons[0])

    def test_requests_before_the_first_stop_are_no_failures(self) -> None:
        """503s of /places, and of stops that the feed does not know, are mentioned, but do not change the health."""
        del self.components.gateways["kv55"]
        self.components.modules = ("places", "near", "tpc")
        self.log_requests(
            *((path, 503, "none") for path in ("/places", "/near", "/tpc/999", "/tpc/998") for _ in range(9))
        )
        health = self.monitor.health()
        self.assertEqual(health.status, "UP")
        self.assertIn("36 of 36 in 5 min failed, all for ", health.reasons[0])
        self.assertIn(", ..., which may not exist", health.reasons[0])
        ingest(self.feed, kv.passtimes({"TimingPointCode": "999"}))
        self.assertEqual(self.health(), "DOWN")

    def test_fault_of_a_page_is_reported(self) -> None:
        """A 500 changes the health, also of a path without a stop."""
        self.components.modules = ("places",)
        self.log_requests(*[("/places", 500, "none")] * 5)
        self.assertEqual(self.health(), "DEGRADED")

    def test_missing_worker_is_reported(self) -> None:
        """A worker that is being replaced changes the health; one that starts with the program does not."""
        figures = Figures(ServerFigures(), 0.0, 0)
        self.add_workers(figures, None)
        self.assertEqual(self.health(), "DEGRADED")
        self.assertIn("Worker 2 not running since", self.monitor.health().reasons[0])
        self.add_workers(figures, figures)
        assert self.components.workers is not None
        self.components.workers.workers[1].figures = None
        self.assertEqual(self.health(), "RECOVERING")

    def test_server_problems_are_reported(self) -> None:
        """Connections near their limit, too many open files and unwritable files are reported."""
        self.server.access.limits = AccessSettings(connections=1, unlimited=())
        self.client()
        self.server.accepting.paused = True
        unwritable = type("Unwritable", (), {"writable": False, "incidents": self.feed.incidents})()
        self.components.statistics = self.components.snapshots = cast(Any, unwritable)
        reasons = self.monitor.health().reasons
        self.assertEqual(len(reasons), 4)
        self.assertIn("(1 of 1 in use)", reasons[0])

    def test_feed_in_unknown_state(self) -> None:
        """A feed in state UNKNOWN is reported with the age of its data."""
        self.subscriber.state = "UNKNOWN"
        self.assertEqual(self.monitor.health().reasons, ("Live feed UNKNOWN: last data received 0 s ago",))

    def test_changes(self) -> None:
        """The start and the end of each problem are stored, also while others last; their number is bounded."""
        self.subscriber.state = "DOWN"
        self.monitor.health()
        self.server.accepting.paused = True
        self.monitor.health()
        self.subscriber.state = "UP"
        self.monitor.health()
        self.server.accepting.paused = False
        self.monitor.health()
        self.clock.advance(RECOVERY_SECONDS)
        self.monitor.health()
        self.monitor.health()
        files = "Not accepting connections: too many open files"
        self.assertEqual(
            [(change.status, change.reason) for change in reversed(self.monitor.changes)],
            [
                ("DEGRADED", "Live feed DOWN"),
                ("DEGRADED", files),
                ("DEGRADED", "Live feed DOWN: over"),
                ("RECOVERING", f"{files}: over"),
                ("UP", ""),
            ],
        )
        for paused in (True, False) * MAX_CHANGES:
            self.server.accepting.paused = paused
            self.monitor.health()
        self.assertEqual(len(self.monitor.changes), MAX_CHANGES)
