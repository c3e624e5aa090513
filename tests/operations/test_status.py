"""Tests of govi_server.operations.status."""

import json

from twisted.logger import Logger

from govi_server.kv55.gateway import GatewayEvent
from govi_server.operations.status_page import page
from govi_server.server import ServerFigures
from govi_server.sharing.status import SharingStatus
from govi_server.workers.messages import Figures
from tests.operations.case import CODE, OperationsTestCase


class StatusTests(OperationsTestCase):
    """The status of the program."""

    def test_status_is_json(self) -> None:
        """The status is JSON, with the last hour by minute."""
        self.log_requests((f"/kv55/{CODE}", 200, "hit"), ("/kv55/1", 504, "miss"))
        Logger().info(flight=GatewayEvent("kv55", "taken", 0.05))
        Logger().warn("<b>something</b>")
        status = json.loads(json.dumps(self.status.json()))
        self.assertEqual(status["verdict"], "UP")
        self.assertEqual(status["hour"]["outcomes"]["hit"], [0] * 59 + [1])
        self.assertEqual(status["stops"]["never_answered"], {"1": 1})
        self.assertEqual(status["events"][0]["text"], "<b>something</b>")
        self.assertEqual(status["feed"]["state"], "UP")

    def test_sharing(self) -> None:
        """The state of the engine, and where boards came from, are shown; without the engine, health is DEGRADED."""
        self.assertIsNone(self.status.json()["sharing"])
        self.components.sharing = sharing = SharingStatus(self.clock, "engine.example:6379")
        sharing.connected("engine.example:6379 (redis 7.0.15)")
        sharing.results["kv55", "waited"] += 2
        self.assertEqual(
            self.status.json()["sharing"],
            {
                "state": "UP",
                "since": "2026-01-01T00:00:00Z",
                "engine": "engine.example:6379 (redis 7.0.15)",
                "why": "",
                "results": {"kv55": {"waited": 2}},
            },
        )
        sharing.unavailable("no reply <b>")
        status = self.status.json()
        self.assertEqual((status["verdict"], status["sharing"]["state"]), ("DEGRADED", "DOWN"))
        self.assertIn("Boards not shared", status["why"][0])
        self.assertIn(b"no reply &lt;b&gt;", page(status))
        self.assertEqual(self.metric("govi_sharing"), "0.0")
        self.assertEqual(self.metric('govi_sharing_results_total{module="kv55",result="waited"}'), "2.0")

    def test_workers(self) -> None:
        """The status, and its page, have the workers; without workers there is no such table."""
        self.assertEqual(self.status.json()["workers"], [])
        self.assertNotIn(b"Workers", page(self.status.json()))
        self.add_workers(Figures(ServerFigures(3, 10), 1.5, 50_000_000), None)
        status = self.status.json()
        self.assertEqual(status["connections"]["open"], 3)
        self.assertEqual(
            status["workers"],
            [
                {
                    "number": 1,
                    "process": 4711,
                    "serving": True,
                    "connections": 3,
                    "memory": 50_000_000,
                    "restarts": 0,
                },
                {"number": 2, "process": None, "serving": False, "connections": 0, "memory": 0, "restarts": 1},
            ],
        )
        text = page(status).decode()
        self.assertIn("worker 1</th><td>3 connections, 50 MB</td>", text)
        self.assertIn('worker 2</th><td><b class="bad">not running</b>, restarts: 1</td>', text)

    def test_latencies_by_module(self) -> None:
        """Latencies are shown by module, for the last hour and the last minutes, for any number of them."""
        self.components.gateways["other"] = self.components.gateways["kv55"]
        for _ in range(1000):
            Logger().info(flight=GatewayEvent("kv55", "answered", 0.1))
        self.clock.advance(600)
        for _ in range(2000):
            Logger().info(flight=GatewayEvent("kv55", "answered", 8))
        Logger().info(flight=GatewayEvent("other", "taken", 0.05))
        gateways = self.status.json()["gateways"]
        durations = {name: gateways["kv55"][name]["answer_ms"] for name in ("hour", "lately")}
        self.assertApproximates(durations["hour"]["p50"], 8000, 80)
        self.assertEqual(durations["hour"]["p50"], durations["lately"]["p99"])
        self.assertEqual(gateways["other"]["lately"]["answer_ms"]["p50"], None)
        self.assertApproximates(gateways["other"]["hour"]["acknowledgement_ms"]["p50"], 50, 0.5)
