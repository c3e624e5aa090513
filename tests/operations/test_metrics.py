"""Tests of govi_server.operations.metrics."""

import gzip
import re
from pathlib import Path
from typing import get_args

from twisted.logger import Logger

import govi_server
from govi_server.http.state import State
from govi_server.kv55.gateway import GatewayEvent
from govi_server.kv78turbo.joined_stop import PASSTIME_BYTES, STOP_BYTES
from govi_server.kv78turbo.stop_departures import RENDERING_BYTES
from govi_server.operations.components import INCIDENT_KINDS
from govi_server.operations.health import HealthStatus
from govi_server.operations.status_page import page
from govi_server.runtime.cooperative import map_in_steps, run_now
from govi_server.server import ServerFigures
from govi_server.sharing.status import SharingStatus
from govi_server.workers.messages import Figures
from tests import feed as kv
from tests.operations.case import CODE, OperationsTestCase


class MetricsTests(OperationsTestCase):
    """Metrics for Prometheus."""

    def test_workers(self) -> None:
        """The connections are those of all workers; each worker has metrics of its own."""
        self.client()
        figures = Figures(ServerFigures(3, 10, 1, 500, 2, True), 1.5, 50_000_000)
        self.add_workers(figures, None, figures)
        for line, value in {
            "govi_connections": "6.0",  # without the main process's, which are those of workers
            "govi_connections_limit": "20.0",
            "govi_streams": "2.0",
            "govi_unfinished_request_bytes": "1000.0",
            "govi_accepting": "0.0",
            'govi_incidents_total{kind="unfinished",where="connections"}': "4.0",
            'govi_worker_serving{worker="1"}': "1.0",
            'govi_worker_serving{worker="2"}': "0.0",
            'govi_worker_restarts_total{worker="2"}': "1.0",
            'govi_worker_cpu_seconds_total{worker="3"}': "1.5",
            'govi_worker_resident_memory_bytes{worker="3"}': "5e+07",
        }.items():
            self.assertEqual(self.metric(line), value, line)

    def test_requests_by_module_status_and_cache(self) -> None:
        """Requests are counted by module, status and cache result; those without a module are one module."""
        self.log_requests(
            (f"/kv55/{CODE}", 200, "hit"), ("/a", 404, "none"), ("/b", 404, "none"), ("/tpc/1", None, "none"),
            ("", 400, "none"),
        )  # fmt: skip
        for labels, value in {
            'cache="hit",module="kv55",status="200"': "1.0",
            'cache="none",module="other",status="404"': "2.0",
            'cache="none",module="tpc",status="none"': "1.0",
            'cache="none",module="",status="400"': "1.0",  # rejected before its path was known
        }.items():
            self.assertEqual(self.metric(f"govi_requests_total{{{labels}}}"), value)
        self.assertEqual(self.metric('govi_request_phase_seconds_count{phase="lookup"}'), "5.0")
        self.assertEqual(self.metric('govi_connections_ended_total{end="client"}'), "1.0")

    def test_streams_are_counted_separately(self) -> None:
        """Streams are counted separately in the metrics, in the status and on its page."""
        for stream in (True, True, False):
            handler = self.client().handler
            if stream:
                handler.connection.enter(State.RECEIVING)
                handler.connection.enter(State.PROCESSING)
                handler.stream((), b"")
        self.assertEqual((self.metric("govi_connections"), self.metric("govi_streams")), ("3.0", "2.0"))
        status = self.status.json()
        self.assertEqual((status["connections"]["open"], status["connections"]["streams"]), (3, 2))
        self.assertIn(b"event streams</th><td>2", page(status))

    def test_gateway_latencies_are_counted(self) -> None:
        """Acknowledgements and callbacks are counted separately."""
        Logger().info(flight=GatewayEvent("kv55", "taken", 0.05))
        Logger().info(flight=GatewayEvent("kv55", "answered", 1.5))
        Logger().info(flight=GatewayEvent("kv55", "late", 12))
        self.assertEqual(self.metric('govi_gateway_acknowledgement_seconds_count{module="kv55"}'), "1.0")
        self.assertEqual(self.metric('govi_gateway_callback_seconds_sum{module="kv55"}'), "13.5")
        self.assertEqual(self.metric('govi_breaker_state{module="kv55",state="closed"}'), "1.0")

    def test_failing_stops_are_counted(self) -> None:
        """Each stop with failed requests in the last five minutes is counted once."""
        self.log_requests(("/kv55/1", 504, "miss"), ("/kv55/1", 504, "miss"), ("/kv55/2", 502, "miss"))
        self.log_requests(("/kv55/3", None, "miss"), ("/kv55/4", 200, "miss"))
        self.assertEqual(self.metric('govi_failing_stops{module="kv55"}'), "2.0")
        self.assertEqual(self.metric('govi_failing_stops{module="tpc"}'), "0.0")
        self.clock.advance(300)
        self.assertEqual(self.metric('govi_failing_stops{module="kv55"}'), "0.0")

    def test_incident_kinds_are_complete(self) -> None:
        """Each kind of incident is exported from the start, at 0; the table has exactly the kinds in the code."""
        self.components.sharing = SharingStatus(self.clock, "engine")
        for where, kinds in INCIDENT_KINDS.items():
            if where in ("statistics", "snapshot"):
                continue  # these components are absent here
            for kind in kinds:
                name = "kv55" if where == "gateway" else where
                self.assertEqual(self.metric(f'govi_incidents_total{{kind="{kind}",where="{name}"}}'), "0.0")
        added = set()
        for path in Path(govi_server.__file__).parent.rglob("*.py"):
            if path.parent.name == "simulator":
                continue  # has no metrics
            calls = r'(?:incidents\.add|\b_?reject|self\._drop)\(\s*"([^"]+)"'
            added |= set(re.findall(calls, path.read_text("utf-8")))
        self.assertEqual(added, {kind for kinds in INCIDENT_KINDS.values() for kind in kinds})
        self.assertIn("too many names", added)

    def test_cached_documents_of_the_feed(self) -> None:
        """The cache of the feed's documents has the same metrics as those of the gateways."""
        self.feed.received("/GOVI/KV8passtimes/LIN", gzip.compress(kv.passtimes({})))
        (code,) = self.feed.passtimes.stops
        for form in "aabbcc":
            run_now(
                self.feed.boards.render(
                    code, 7200, form, lambda board: map_in_steps(int, b"0" * ((1 << 19) - RENDERING_BYTES))
                )
            )
        size = STOP_BYTES + PASSTIME_BYTES + (1 << 19)
        self.assertEqual(self.metric('govi_cache_entries{module="feed"}'), "2.0")  # the joined stop and a document
        self.assertEqual(self.metric('govi_cache_bytes{module="feed"}'), f"{size:.1f}")
        self.assertEqual(self.metric('govi_cache_evictions_total{module="feed"}'), "2.0")

    def test_feed_has_metrics(self) -> None:
        """The feed has metrics of its state, records, operators and incidents."""
        self.feed.received("/GOVI/KV8passtimes/OWN", gzip.compress(kv.passtimes({})))
        self.feed.received("/GOVI/KV8passtimes/OWN", b"no gzip")
        self.clock.advance(7)
        self.assertEqual(self.metric("govi_feed_records_total"), "1.0")
        (operator,) = self.feed.passtimes.last_heard
        self.assertEqual(self.metric(f'govi_feed_age_seconds{{owner="{operator}"}}'), "7.0")
        self.assertEqual(self.metric('govi_incidents_total{kind="broken message",where="feed"}'), "1.0")
        self.assertEqual(self.metric('govi_feed_state{state="UP"}'), "1.0")

    def test_verdict_has_one_series_per_status(self) -> None:
        """The series of the current health status is 1, the others are 0."""
        self.subscriber.state = "DOWN"
        values = {status: self.metric(f'govi_verdict{{verdict="{status}"}}') for status in get_args(HealthStatus)}
        self.assertEqual(values, {"UP": "0.0", "RECOVERING": "0.0", "DEGRADED": "1.0", "DOWN": "0.0"})
