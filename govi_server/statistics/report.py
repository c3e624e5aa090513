"""Format the summary of a log as JSON, and as plain text of 80 columns, which explains itself."""

import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.statistics.formatting import MOMENT_FORMATS, milliseconds, share
from govi_server.statistics.quantiles import QUANTILES, QuantileSketch
from govi_server.statistics.records import CACHE_RESULTS, ENDS, PHASES
from govi_server.statistics.summary import STATUS_CLASSES, Group, LogSummary, Period, Width

MAX_HOURS_IN_TEXT = 48
"""Hours that the text lists; longer logs are listed by day."""

MAX_STOPS_IN_TEXT = 10
MAX_STOPS_IN_JSON = 100

TEXT_COLUMNS = 80

MAX_FAILURE_RATIO = 0.01
"""Fraction of failed requests from which the verdict is a warning, as for the health of the service."""

EXPLANATIONS = {
    "Columns": {
        "count": "requests that reached the phase",
        "requests": "requests that were received, also if the client left before the response",
        "failed": "responses with 5xx, or 406: the deadline of the connection",
        "p50, p90, p99": "50, 90, 99% of the responses took at most this time, within 1%",
        "memory": "part of the cache look-ups that was served from memory",
        "not mem.": "responses that were not from memory; mean and max are theirs",
    },
    "Phases": {
        "receive": "the header section arrives; it depends on the client",
        "parse, lookup": "the request is parsed; its stop is looked up",
        "wait": "for the gateway",
        "render, send": "the document is made; it is written to the connection",
        "response": "the sum of all phases except receive",
    },
    "Cache results": {
        "hit, stale": "from memory; stale: while it is refreshed, or the gateway fails",
        "miss, joined": "from a gateway request; joined: one that was already in flight",
        "none": "no cache is used",
    },
}
"""What the names in reports mean, by heading."""

NAME_COLUMNS = 22
"""Width of a table's first column in characters."""

_TIMES_HEAD = [*QUANTILES, "max"]
_GROUP_HEAD = ["requests", "failed", *_TIMES_HEAD]


def as_json(summary: LogSummary) -> dict[str, Any]:
    """Return the object of ``--json``. Times are in milliseconds; missing values are null.

    ========================  ==================================================================================
    key                       value
    ========================  ==================================================================================
    ``from``, ``to``          the earliest and the latest line that counts, ISO 8601 in Dutch time
    ``lines``                 ``counted``, ``outside`` (before --since, from --until on), ``bad``
    ``verdict``               the first sentences of the text report
    ``connections``           number of closed connections
    ``ends``                  lines by end: ``client``, ``server``, ``timeout``, ``error``, and ``open``: interim
                              lines of open connections
    ``requests``, ``failed``  numbers; failed requests have a 5xx or 406 response
    ``bytes``                 total size of all response bodies
    ``memory_ratio``          fraction of cache look-ups with the result hit or stale
    ``answers``               response times: ``count``, ``p50``, ``p90``, ``p99``, ``max``
    ``phases``                times by phase, likewise
    ``modules``               by module: ``requests``, ``failed``, and ``answers`` likewise; the front page is ``""``
    ``elsewhere``             the same for requests without a module
    ``caches``, ``statuses``  the same by cache result, and by status; ``none`` is without a response
    ``width``                 width of the periods: ``hour``, ``day``, ``month`` or ``year``
    ``periods``               a list in order: ``begin``, ``requests``, ``failed``, ``memory_ratio``, ``answers``,
                              ``phases``, and ``statuses``: requests by ``2xx`` ... ``5xx``, ``other``, ``none``
    ``slowest``               at most 100 stops, the slowest by ``mean`` first, those with fewer than 5 ``timed``
                              last: ``stop``, ``requests``, ``failed``; ``timed``: responses that were not from
                              memory, and their ``mean`` and ``max``
    ``stops``                 ``distinct``: stops that are counted separately; ``others``: requests for other stops
    ========================  ==================================================================================

    A response time is the sum of all phases except ``receive``. Quantiles are within 1 % of the true values.
    """
    total = summary.total
    return {
        "from": _iso(summary.first),
        "to": _iso(summary.last),
        "lines": {"counted": summary.lines, "outside": summary.outside, "bad": summary.bad},
        "verdict": verdict(summary),
        "connections": summary.connections,
        "ends": {end: summary.ends[end] for end in ENDS},
        "requests": total.total.requests,
        "failed": total.total.failed,
        "bytes": summary.bytes,
        "memory_ratio": total.memory_ratio,
        "answers": _times_json(total.total.response_times),
        "phases": _phases_json(total),
        "modules": {name: _group_json(group) for name, group in summary.modules},
        "elsewhere": _group_json(summary.without_module),
        "caches": {cache: _group_json(total.caches[cache]) for cache in CACHE_RESULTS if cache in total.caches},
        "statuses": {status: _group_json(group) for status, group in summary.statuses},
        "width": _width(summary),
        "periods": [_period_json(begin, period) for begin, period in summary.periods("hour")],
        "slowest": [
            {
                "stop": code,
                "requests": stop.requests,
                "failed": stop.failed,
                "timed": stop.timed,
                "mean": round(stop.mean_ms, 3),
                "max": stop.max_ms,
            }
            for code, stop in summary.slowest(MAX_STOPS_IN_JSON)
        ],
        "stops": {"distinct": len(summary.stops), "others": summary.other_stops.requests},
    }


def _period_json(begin: datetime, period: Period) -> dict[str, Any]:
    group = period.total
    return {
        "begin": begin.isoformat(),
        "requests": group.requests,
        "failed": group.failed,
        "memory_ratio": period.memory_ratio,
        "answers": _times_json(group.response_times),
        "phases": _phases_json(period),
        "statuses": {name: period.status_classes[name] for name in STATUS_CLASSES if name in period.status_classes},
    }


def _phases_json(period: Period) -> dict[str, Any]:
    return {phase: _times_json(period.phases[phase]) for phase in PHASES if phase in period.phases}


def _group_json(group: Group) -> dict[str, Any]:
    return {"requests": group.requests, "failed": group.failed, "answers": _times_json(group.response_times)}


def _times_json(times: QuantileSketch) -> dict[str, Any]:
    quantiles = {name: _rounded(times.quantile(fraction)) for name, fraction in QUANTILES.items()}
    return {"count": times.count, **quantiles, "max": _rounded(times.maximum if times.count else None)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _width(summary: LogSummary) -> Width:
    """Return the width of the periods; only the HTML report shows minutes."""
    return "hour" if summary.width == "minute" else summary.width


def _iso(moment: float | None) -> str | None:
    return None if moment is None else _local(moment).isoformat(timespec="milliseconds")


def _local(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, LOCAL_ZONE)


def as_text(summary: LogSummary) -> str:
    """Return the report as ASCII text of at most 80 columns."""
    total = summary.total
    sentences = textwrap.fill(verdict(summary), TEXT_COLUMNS, break_on_hyphens=False)
    sections = [sentences, _totals(summary, total)]
    if total.total.requests:
        modules = [(name or "/", group) for name, group in summary.modules]
        if summary.without_module.requests:
            modules.append(("(no module)", summary.without_module))
        caches = [(cache, total.caches[cache]) for cache in CACHE_RESULTS if cache in total.caches]
        sections += [
            _phases(total),
            _groups("Responses by module, in ms", modules),
            _groups("Responses by cache result, in ms", caches),
            _groups("Responses by status, in ms", summary.statuses),
            _periods(summary),
            _slowest_stops(summary),
            *(_explanations(title, names) for title, names in EXPLANATIONS.items()),
        ]
    return "\n\n".join(sections) + "\n"


def verdict(summary: LogSummary) -> str:
    """Return in two or three sentences how many requests failed, where and when, and how long responses took."""
    group = summary.total.total
    if not group.requests:
        return "No requests."
    counts = f"{group.failed:,} of {group.requests:,} requests failed ({share(group.failed, group.requests)})"
    if not group.failed:
        sentences = [f"No failures: all of {group.requests:,} requests were served."]
    elif group.failed <= group.requests * MAX_FAILURE_RATIO:
        sentences = [f"Few failures: {counts}."]
    else:
        name, module = max(summary.modules, key=lambda item: item[1].failed, default=("", summary.without_module))
        status, responses = max(summary.statuses, key=lambda item: item[1].failed)
        width = _width(summary)
        begin, period = max(summary.periods("hour"), key=lambda item: item[1].total.failed)
        sentences = [
            f"Many failures: {counts}.",
            f"Most by module: {plain('/' + name)} ({module.failed:,}); by status: {status} ({responses.failed:,}); "
            f"by {width}: {begin.strftime(MOMENT_FORMATS[width])} ({period.total.failed:,}).",
        ]
    times = group.response_times
    if times.count:
        median, slow = milliseconds(times.quantile(0.5)), milliseconds(times.quantile(0.99))
        sentences.append(f"Half of the responses took at most {median} ms, 99% at most {slow} ms.")
    return " ".join(sentences)


def _totals(summary: LogSummary, total: Period) -> str:
    group = total.total
    ends = ", ".join(f"{end} {summary.ends[end]:,}" for end in ENDS if end != "open" and summary.ends[end])
    rows = []
    if summary.first is not None and summary.last is not None:
        first, last = _local(summary.first), _local(summary.last)
        rows.append(("Period", f"{first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S %Z}"))
    rows.append(("Connections", f"{summary.connections:,} closed" + (f", ended by: {ends}" if ends else "")))
    if summary.ends["open"]:
        rows.append(("", f"and {summary.ends['open']:,} interim lines of open connections"))
    rows.append(("Requests", f"{group.requests:,}, {summary.bytes / 1e6:,.1f} MB of response bodies"))
    if group.requests:
        lookups = total.cache_lookups
        rows.append(("From memory", f"{share(total.from_memory, lookups)} of {lookups:,} cache look-ups"))
        failed = f"{group.failed:,} ({share(group.failed, group.requests)}), with 5xx or 406"
        rows.append(("Failed", failed if group.failed else "none"))
    rows.append(("Bad lines", f"{summary.bad:,} of {summary.bad + summary.lines + summary.outside:,}"))
    if summary.outside:
        rows.append(("Skipped", f"{summary.outside:,} lines outside the period"))
    return "\n".join(f"{name:13}{text}" for name, text in rows)


def _phases(total: Period) -> str:
    times = {phase: total.phases[phase] for phase in PHASES if phase in total.phases}
    rows = [
        [name, f"{sketch.count:,}", *_times_cells(sketch)]
        for name, sketch in (*times.items(), ("response", total.total.response_times))
    ]
    return _table("Phases, in ms", ["count", *_TIMES_HEAD], rows)


def _groups(title: str, groups: Sequence[tuple[str, Group]]) -> str:
    rows = [
        [name, f"{group.requests:,}", f"{group.failed:,}", *_times_cells(group.response_times)]
        for name, group in groups
    ]
    return _table(title, _GROUP_HEAD, rows)


def _periods(summary: LogSummary) -> str:
    periods, width = summary.periods("hour"), _width(summary)
    if len(periods) > MAX_HOURS_IN_TEXT and width == "hour":
        width = "day"
        periods = summary.periods(width)
    rows = []
    for begin, period in periods:
        group, ratio = period.total, period.memory_ratio
        memory = "-" if ratio is None else f"{ratio:.1%}"
        numbers = [f"{group.requests:,}", memory, f"{group.failed:,}"]
        rows.append([begin.strftime(MOMENT_FORMATS[width]), *numbers, *_times_cells(group.response_times)[1:]])
    head = ["requests", "memory", "failed", *_TIMES_HEAD[1:]]
    table = _table(f"Responses by {width}, Dutch time, in ms", head, rows)
    return table if width == _width(summary) else table + "\nBy hour: --json, or a shorter --since and --until."


def _slowest_stops(summary: LogSummary) -> str:
    slowest = summary.slowest(MAX_STOPS_IN_TEXT)
    if not slowest:
        return "Slowest stops: none; all responses for stops were from memory."
    rows = []
    for code, stop in slowest:
        counts = [f"{number:,}" for number in (stop.requests, stop.failed, stop.timed)]
        rows.append([code, *counts, milliseconds(stop.mean_ms), milliseconds(stop.max_ms)])
    head = ["requests", "failed", "not mem.", "mean", "max"]
    table = _table("Slowest stops, by mean time of responses not from memory, in ms", head, rows)
    if summary.other_stops.requests:
        others = f"{summary.other_stops.requests:,} requests for stops beyond the first {len(summary.stops):,}"
        table += f"\n{others} are counted together and not listed."
    return table


def _explanations(title: str, names: Mapping[str, str]) -> str:
    indent = " " * (max(map(len, EXPLANATIONS["Columns"])) + 1)
    lines = [
        textwrap.fill(text, TEXT_COLUMNS, initial_indent=name.ljust(len(indent)), subsequent_indent=indent)
        for name, text in names.items()
    ]
    return "\n".join([title, *lines])


def _times_cells(times: QuantileSketch) -> list[str]:
    """Return the cells p50, p90, p99 and max."""
    quantiles = [milliseconds(times.quantile(fraction)) for fraction in QUANTILES.values()]
    return [*quantiles, milliseconds(times.maximum if times.count else None)]


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    """Format a table. head: the names of the columns after the first, which contains the names of the rows."""
    width = max([NAME_COLUMNS, *(len(plain(row[0])) for row in rows)])
    lines = [title, " " * width + "".join(f"{name:>9}" for name in head)]
    for name, *cells in rows:
        lines.append(f"{plain(name):{width}}" + "".join(f"{cell:>9}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def plain(name: str) -> str:
    """Return a name from a log as printable ASCII for a terminal, at most NAME_COLUMNS characters."""
    text = "".join(character if " " <= character <= "~" else "?" for character in name)
    return text if len(text) <= NAME_COLUMNS else text[: NAME_COLUMNS - 3] + "..."
