"""Tests of docs/operations.md and etc/: they name all that exists, and nothing else."""

import gzip
import json
import re
from pathlib import Path

from prometheus_client import generate_latest

from govi_server.kv55.gateway import GatewayEvent
from govi_server.operations.components import KINDS
from govi_server.statistics.log import format_line
from govi_server.statistics.records import ConnectionStatistics, RequestStatistics
from tests import feed as kv
from tests.client import NOW
from tests.operations.test_operations import OperationsTestCase

ROOT = Path(__file__).parent.parent
_METRIC = re.compile(r"\bgovi_[a-z_]+")
_SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


def text(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


class DeploymentTests(OperationsTestCase):
    """Tests of the runbook, the alerts and the dashboard."""

    def metrics_of_program(self) -> set[str]:
        self.happened(("/kv55/1", 200, "hit"))
        self.log_gateway_events()
        self.feed.received("/GOVI/KV8passtimes/LIN", gzip.compress(kv.passtimes({})))
        self.feed.received("/GOVI/KV8passtimes/LIN", b"no gzip")
        lines = generate_latest(self.metrics.registry).decode().splitlines()
        names = {line.split("{")[0].split(" ")[0] for line in lines if line.startswith("govi_")}
        return {_SUFFIX.sub("", name) for name in names}

    def log_gateway_events(self) -> None:
        for event in ("taken", "answered"):
            self.metrics({"flight": GatewayEvent("kv55", event, 1.0)})

    def test_metrics(self) -> None:
        """The runbook has every metric, and every metric that a file names exists."""
        existing = self.metrics_of_program()
        runbook = set(_METRIC.findall(text("docs/operations.md")))
        self.assertEqual(existing - runbook, set())
        for path in ("docs/operations.md", "etc/prometheus/alerts.yml", "etc/grafana/govi-cache.json"):
            named = {_SUFFIX.sub("", name) for name in _METRIC.findall(text(path))}
            self.assertEqual(named - existing, set(), path)

    def test_incidents(self) -> None:
        """The runbook has every kind of incident."""
        _, _, section = text("docs/operations.md").partition("### Incidents")
        rows = re.findall(r"^\| (\w+) \| ([\w ]+) \| \S", section.partition("\n## ")[0], re.MULTILINE)
        documented = [row for row in rows if row != ("where", "kind")]
        self.assertEqual(
            sorted(documented), sorted((where, kind) for where, kinds in KINDS.items() for kind in kinds)
        )

    def test_fields(self) -> None:
        """The runbook has every field of the statistics log."""
        connection = ConnectionStatistics("x", "192.0.2.0/24", NOW, requests=[RequestStatistics(NOW)])
        line = json.loads(format_line({"statistics": connection}, "x") or "")
        for field in (*line, *line["requests"][0]):
            self.assertIn(f"`{field}`", text("docs/operations.md"))

    def test_alerts(self) -> None:
        """Every alert links to a section of the runbook that names it."""
        alerts, runbook = text("etc/prometheus/alerts.yml"), text("docs/operations.md")
        for name in re.findall(r"alert: (\w+)", alerts):
            self.assertIn(f"`{name}`", runbook)
        for anchor in re.findall(r"docs/operations.md#([a-z-]+)", alerts):
            self.assertIn(f'<a id="{anchor}"></a>', runbook)
