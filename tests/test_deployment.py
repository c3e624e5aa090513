"""Documents, alerts and dashboards are complete, and name only what exists in the program."""

import gzip
import json
import re
from pathlib import Path
from typing import get_args

from prometheus_client import generate_latest

from govi_server.feed_proxy.proxy import FeedProxy
from govi_server.feed_proxy.site import ProxyMetrics
from govi_server.kv55.gateway import GatewayEvent
from govi_server.operations.components import INCIDENT_KINDS
from govi_server.operations.problem import ProblemCode
from govi_server.server import ServerFigures
from govi_server.sharing.status import SharingStatus
from govi_server.statistics.log import format_line
from govi_server.statistics.records import ConnectionStatistics, Exchange, RequestStatistics
from govi_server.workers.messages import Figures
from tests import feed as kv
from tests.client import NOW
from tests.operations.case import OperationsTestCase

ROOT = Path(__file__).parent.parent
_METRIC = re.compile(r"\bgovi_[a-z_]+")
_SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


def text(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


class DeploymentTests(OperationsTestCase):
    """The pages for operators, the alerts and the dashboard."""

    def exported_metrics(self) -> set[str]:
        """Return the names of all exported metrics."""
        self.components.sharing = SharingStatus(self.clock, "engine")
        self.log_requests(("/kv55/1", 200, "hit"))
        self.log_gateway_events()
        self.add_workers(Figures(ServerFigures(), 0.0, 0))
        self.add_planning()
        self.feed.received("/GOVI/KV8passtimes/LIN", gzip.compress(kv.passtimes({})))
        self.feed.received("/GOVI/KV8passtimes/LIN", b"no gzip")
        lines = generate_latest(self.metrics.registry).decode().splitlines()
        names = {line.split("{")[0].split(" ")[0] for line in lines if line.startswith("govi_")}
        return {_SUFFIX.sub("", name) for name in names}

    def proxy_metrics(self) -> set[str]:
        """Return the names of the metrics of a feed proxy."""
        proxy = FeedProxy(self.clock, ["tcp://127.0.0.1:1"], "tcp://127.0.0.1:*")
        return {metric.name for metric in ProxyMetrics(proxy).collect()}

    def log_gateway_events(self) -> None:
        for name in ("taken", "answered"):
            self.metrics({"flight": GatewayEvent("kv55", name, 1.0)})

    def test_metrics_are_documented(self) -> None:
        """Every metric is documented, and every metric that a file names is exported."""
        exported = self.exported_metrics()
        self.assertEqual(exported - set(_METRIC.findall(text("docs/metrics.md"))), set())
        alerts, dashboard = "etc/prometheus/alerts.yml", "etc/grafana/govi-cache.json"
        for path in ("docs/metrics.md", "docs/operations.md", alerts, dashboard):
            named = {_SUFFIX.sub("", name) for name in _METRIC.findall(text(path))}
            self.assertEqual(named - exported - self.proxy_metrics(), set(), path)

    def test_dashboard_shows_every_metric(self) -> None:
        """The dashboard uses every metric, in a row for each subject."""
        dashboard = json.loads(text("etc/grafana/govi-cache.json"))
        named = {
            _SUFFIX.sub("", name)
            for panel in dashboard["panels"]
            for target in panel.get("targets", ())
            for name in _METRIC.findall(target["expr"])
        }
        self.assertEqual(self.exported_metrics() - named, set())
        rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
        self.assertEqual(rows, ["Clients", "Gateway", "Feed", "Cache", "Process"])

    def test_problem_codes_are_documented(self) -> None:
        """Exactly the existing codes of problems are documented."""
        section = text("docs/operations.md").partition("### Problem codes")[2].partition("\n### ")[0]
        codes = [code for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for code in row.split(", ")]
        self.assertEqual(sorted(codes), sorted(f"`{code}`" for code in get_args(ProblemCode)))

    def test_incidents_are_documented(self) -> None:
        """Exactly the existing kinds of incidents are documented."""
        _, _, section = text("docs/metrics.md").partition("\n## Incidents\n")
        rows = re.findall(r"^\| (\w+) \| ([\w ]+) \| \S", section.partition("\n## ")[0], re.MULTILINE)
        documented = [row for row in rows if row != ("where", "kind")]
        self.assertEqual(
            sorted(documented), sorted((where, kind) for where in INCIDENT_KINDS for kind in INCIDENT_KINDS[where])
        )

    def test_fields_are_documented(self) -> None:
        """Every field of the statistics log is documented."""
        request = RequestStatistics(Exchange(module="kv55", stop="1"))
        connection = ConnectionStatistics("x", "192.0.2.0/24", NOW, requests=[request], worker=1)
        line = json.loads(format_line({"statistics": connection}, "x") or "")
        for field in (*line, *line["requests"][0]):
            self.assertIn(f"`{field}`", text("docs/statistics.md"))

    def test_alerts_are_in_the_runbook(self) -> None:
        """Every alert links to the section of the runbook that names it, and has a test."""
        alerts, runbook = text("etc/prometheus/alerts.yml"), text("docs/operations.md")
        tests = text("etc/prometheus/alerts_test.yml")
        rules = re.findall(r"- alert: (\w+)\n.*?\n +runbook: docs/operations.md#([a-z-]+)\n", alerts, re.DOTALL)
        self.assertEqual([name for name, _ in rules], re.findall(r"alert: (\w+)", alerts))
        for name, anchor in rules:
            _, _, section = runbook.partition(f'<a id="{anchor}"></a>')
            self.assertIn(f"`{name}`", section.partition("\n### ")[0])
            self.assertRegex(tests, rf"alertname: {name}\n +exp_alerts:\n")
