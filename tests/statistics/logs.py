"""Lines of a statistics log, and their summaries."""

import json
from datetime import UTC, datetime
from typing import Any

from govi_server.statistics.summary import LogSummary

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HIT = {"receive": 50.0, "parse": 0.1, "lookup": 0.2, "render": 0.1, "send": 0.1}


def request(
    module: str | None = "kv55", stop: str = "1", status: int | None = 200, cache: str = "hit", **phases: float
) -> dict[str, Any]:
    """Return a request of a line of the log. module: None for a path without a module."""
    fields = {"method": "GET", "path": f"/{module}/{stop}"}
    if module is not None:
        fields["module"] = module
    if stop:
        fields["stop"] = stop
    return {**fields, "status": status, "bytes": 100, "cache": cache, "phases": phases or HIT}


def line(*requests: dict[str, Any], time: str = "2026-11-23T12:30:00.000+00:00", end: str = "client") -> bytes:
    """Return a line of the log, with one default request if none are passed."""
    fields = {
        "time": time,
        "client": "192.0.2.0/24",
        "duration": 5.0,
        "end": end,
        "requests": requests or [request()],
    }
    return json.dumps(fields).encode()


def summarize(*lines: bytes, since: datetime | None = None, until: datetime | None = None) -> LogSummary:
    """Return the summary of lines."""
    summary = LogSummary(since, until)
    for data in lines:
        summary.add_line(data)
    return summary
