"""What operators are given: it names what there is, and all of it."""

import gzip
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import generate_latest

from govi_server.kv55.gateway import GatewayEvent
from govi_server.operations.components import INCIDENT_KINDS
from govi_server.settings import Config
from govi_server.statistics.log import format_line
from govi_server.statistics.records import ConnectionStatistics, RequestStatistics
from tests import feed as kv
from tests.client import NOW
from tests.operations.case import OperationsTestCase

ROOT = Path(__file__).parent.parent
_METRIC = re.compile(r"\bgovi_[a-z_]+")
_SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


def text(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


def keys(table: dict[str, Any], under: str = "") -> dict[str, Any]:
    """List the keys of nested tables by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= keys(value, f"{under}{key}.")
        else:
            found[f"{under}{key}"] = value
    return found


class DeploymentTests(OperationsTestCase):
    """The handbook, the alerts and the dashboard."""

    def metrics_there_are(self) -> set[str]:
        self.log_requests(("/kv55/1", 200, "hit"))
        self.log_flights()
        self.feed.received("/GOVI/KV8passtimes/LIN", gzip.compress(kv.passtimes({})))
        self.feed.received("/GOVI/KV8passtimes/LIN", b"no gzip")
        lines = generate_latest(self.metrics.registry).decode().splitlines()
        names = {line.split("{")[0].split(" ")[0] for line in lines if line.startswith("govi_")}
        return {_SUFFIX.sub("", name) for name in names}

    def log_flights(self) -> None:
        for what in ("taken", "answered"):
            self.metrics({"flight": GatewayEvent("kv55", what, 1.0)})

    def test_metrics(self) -> None:
        """Every metric is in the handbook, and every one that a file names there is."""
        there_are = self.metrics_there_are()
        handbook = set(_METRIC.findall(text("docs/operations.md")))
        self.assertEqual(there_are - handbook, set())
        for path in ("docs/operations.md", "etc/prometheus/alerts.yml", "etc/grafana/govi-cache.json"):
            named = {_SUFFIX.sub("", name) for name in _METRIC.findall(text(path))}
            self.assertEqual(named - there_are, set(), path)

    def test_incidents(self) -> None:
        """The handbook has every kind of incident."""
        _, _, section = text("docs/operations.md").partition("### Incidents")
        rows = re.findall(r"^\| (\w+) \| ([\w ]+) \| \S", section.partition("\n## ")[0], re.MULTILINE)
        told = [row for row in rows if row != ("where", "kind")]
        self.assertEqual(
            sorted(told), sorted((where, kind) for where, kinds in INCIDENT_KINDS.items() for kind in kinds)
        )

    def test_settings(self) -> None:
        """The handbook has every key of the configuration with its default, as the file that explains them."""
        rows = re.findall(r"^\| `([a-z0-9_.]+)` \| `(.+)` \| \S", text("docs/operations.md"), re.MULTILINE)
        told = {key: tomllib.loads(f"value = {value}")["value"] for key, value in rows}
        defaults = json.loads(msgspec.json.encode(msgspec.convert({}, Config)))
        self.assertEqual(told, keys(defaults))

    def test_fields(self) -> None:
        """The handbook has every field of the statistics log."""
        connection = ConnectionStatistics("x", "192.0.2.0/24", NOW, requests=[RequestStatistics(NOW)])
        line = json.loads(format_line({"statistics": connection}, "x") or "")
        for field in (*line, *line["requests"][0]):
            self.assertIn(f"`{field}`", text("docs/operations.md"))

    def test_alerts(self) -> None:
        """Every alert leads to a row of the handbook, which names it."""
        alerts, handbook = text("etc/prometheus/alerts.yml"), text("docs/operations.md")
        for name in re.findall(r"alert: (\w+)", alerts):
            self.assertIn(f"`{name}`", handbook)
        for anchor in re.findall(r"docs/operations.md#([a-z-]+)", alerts):
            self.assertIn(f'<a id="{anchor}"></a>', handbook)
