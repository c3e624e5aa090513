"""The report of ``govi-cache stats --html``: one page with plots, without scripts or network access."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.runtime.templates import environment
from govi_server.statistics.formatting import milliseconds, share
from govi_server.statistics.plots import (
    BOUNDS,
    HEIGHT,
    WIDTH,
    LogScale,
    Plot,
    TimeAxis,
    bars,
    bound_labels,
    count_rules,
    height,
    rule,
)
from govi_server.statistics.quantiles import QUANTILES, QuantileSketch
from govi_server.statistics.records import CACHE_RESULTS, PHASES, CacheResult
from govi_server.statistics.report import EXPLANATIONS, verdict
from govi_server.statistics.summary import (
    FROM_MEMORY,
    FROM_SOURCE,
    STATUS_CLASSES,
    Group,
    LogSummary,
    Period,
    StatusClass,
    merged,
)

MAX_STOPS = 20
"""Rows in the table of the slowest stops."""

_ENVIRONMENT = environment("govi_server.statistics")
_ENVIRONMENT.filters["units"] = "{:.1f}".format
_PAGE = _ENVIRONMENT.get_template("report.html")

_HISTOGRAMS: tuple[tuple[str, str, str, tuple[CacheResult, ...]], ...] = (
    ("memory", "From memory", "hit and stale", FROM_MEMORY),
    ("source", "From the source", "miss and joined", FROM_SOURCE),
    ("dim", "Without the cache", "none", ("none",)),
)
"""CSS class, title, cache results as text, and cache results."""
_STATUS_DESCRIPTIONS = {
    "2xx": "successful",
    "3xx": "not modified",
    "4xx": "not found, rejected or timed out",
    "5xx": "failed",
    "other": "other codes",
    "none": "closed before a response",
}
_STATUS_TITLES = {"none": "No response", "other": "Other status"}
_STATUS_STYLES = {"2xx": "memory", "3xx": "memory", "4xx": "dim"}


@dataclass(frozen=True, slots=True)
class Section:
    """Plots under a heading."""

    title: str
    note: str
    plots: Sequence[Plot]


@dataclass(frozen=True, slots=True)
class Table:
    """A table. head: the names of the columns after the first, which contains the names of the rows."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def page(summary: LogSummary, now: datetime) -> str:
    """Return the page as HTML. now: the time of the report, which the page states."""
    has_requests = bool(summary.total.total.requests)
    return _PAGE.render(
        period=_period(summary),
        verdict=verdict(summary),
        totals=_totals(summary),
        sections=[_response_times(summary.total), *_over_time(summary)] if has_requests else [],
        tables=_tables(summary) if has_requests else [],
        explanations=_explanations() if has_requests else {},
        other_stops=f"{summary.other_stops.requests:,}" if has_requests and summary.other_stops.requests else "",
        generated=f"{now.astimezone(LOCAL_ZONE):%Y-%m-%d %H:%M %Z}",
        plot_width=WIDTH,
        plot_height=HEIGHT,
    )


def _explanations() -> Mapping[str, Mapping[str, str]]:
    """Return what the names on the page mean: in its tables, share replaces memory."""
    columns = {"share": "part of all requests", **EXPLANATIONS["Columns"]}
    del columns["memory"]
    return {**EXPLANATIONS, "Columns": columns}


def _period(summary: LogSummary) -> str:
    if summary.first is None or summary.last is None:
        return "No line matched."
    first, last = (datetime.fromtimestamp(moment, LOCAL_ZONE) for moment in (summary.first, summary.last))
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M %Z}"


def _totals(summary: LogSummary) -> list[tuple[str, str]]:
    group, ratio = summary.total.total, summary.total.memory_ratio
    totals = [
        ("Requests", f"{group.requests:,}"),
        ("Connections", f"{summary.connections:,}"),
        ("From memory", "-" if ratio is None else f"{ratio:.1%}"),
        ("Failed", f"{group.failed:,}"),
        ("Response p50", _with_unit(group.response_times.quantile(0.5))),
        ("Response p99", _with_unit(group.response_times.quantile(0.99))),
    ]
    if summary.bad:
        totals.append(("Bad lines", f"{summary.bad:,}"))
    return totals


def _with_unit(time: float | None) -> str:
    return "-" if time is None else f"{milliseconds(time)} ms"


def _response_times(total: Period) -> Section:
    """Return histograms by cache result. All share a time axis, from the first bar to the last of any of them."""
    histograms = []
    for style, title, results, caches in _HISTOGRAMS:
        times = merged(total.caches[cache] for cache in caches if cache in total.caches).response_times
        if times.count:
            histograms.append((style, title, results, times, times.bucket_counts(BOUNDS)))
    used = [index for index in range(len(BOUNDS) + 1) if any(counts[index] for *_, counts in histograms)]
    first, last = (used[0], used[-1]) if used else (0, 0)
    plots = []
    for style, title, results, times, counts in histograms:
        quantiles = ", ".join(f"{name} {_with_unit(times.quantile(part))}" for name, part in QUANTILES.items())
        plots.append(
            Plot(
                title,
                (f"({results}): {times.count:,}", quantiles),
                f"{title}, {results}: {times.count:,} responses, {quantiles}",
                count_rules(max(counts)),
                bound_labels(first, last),
                bars(style, counts, first, last),
            )
        )
    return Section("Response times", "Responses by duration; each plot has its own vertical scale.", plots)


def _over_time(summary: LogSummary) -> list[Section]:
    axis, total = TimeAxis(summary), summary.total
    plots = [_hit_ratio(axis, total)]
    plots += [
        _counts(axis, status, total.status_classes[status])
        for status in STATUS_CLASSES
        if total.status_classes[status]
    ]
    phases = [
        _phase(axis, phase, [period.phases.get(phase) for _, period in axis.periods], total.phases[phase])
        for phase in PHASES
        if phase in total.phases
    ]
    response_times = [period.total.response_times for _, period in axis.periods]
    phases.append(_phase(axis, "response", response_times, total.total.response_times))
    note = "Solid: p50, dashed: p99. The vertical scale is logarithmic: each line is a factor of ten."
    return [
        Section("Over time", f"By {summary.width}; each plot of requests has its own vertical scale.", plots),
        Section("Phases over time", note, phases),
    ]


def _hit_ratio(axis: TimeAxis, total: Period) -> Plot:
    overall = "the cache was not used" if total.memory_ratio is None else f"{total.memory_ratio:.1%} overall"
    ratios = (period.memory_ratio for _, period in axis.periods)
    return Plot(
        "Hit ratio",
        (f"hit and stale: {overall}",),
        f"Hit ratio over time, {overall}",
        [rule(part, f"{part:.0%}") for part in (0, 0.5, 1)],
        axis.labels(),
        lines=[axis.line("memory", [None if ratio is None else height(ratio) for ratio in ratios])],
    )


def _counts(axis: TimeAxis, status: StatusClass, total: int) -> Plot:
    title = _STATUS_TITLES.get(status, f"Status {status}")
    counts = [period.status_classes[status] for _, period in axis.periods]
    heights = [height(count / max(counts)) for count in counts]
    return Plot(
        title,
        (f"{_STATUS_DESCRIPTIONS[status]}: {total:,}",),
        f"{title}, {_STATUS_DESCRIPTIONS[status]}, over time: {total:,} overall",
        count_rules(max(counts)),
        axis.labels(),
        lines=[axis.line(_STATUS_STYLES.get(status, "bad"), heights)],
    )


def _phase(axis: TimeAxis, name: str, by_period: Sequence[QuantileSketch | None], total: QuantileSketch) -> Plot:
    values = {
        style: [None if times is None else times.quantile(fraction) for times in by_period]
        for style, fraction in (("source", 0.99), ("memory", 0.5))
    }
    scale = LogScale(value for line in values.values() for value in line)
    quantiles = f"p50 {_with_unit(total.quantile(0.5))}, p99 {_with_unit(total.quantile(0.99))}"
    return Plot(
        name,
        (quantiles,),
        f"Phase {name} over time: {quantiles} overall",
        scale.rules(),
        axis.labels(),
        lines=[axis.line(style, map(scale.y, line)) for style, line in values.items()],
    )


def _tables(summary: LogSummary) -> list[Table]:
    total = summary.total
    modules = [(name or "/", group) for name, group in summary.modules]
    if summary.without_module.requests:
        modules.append(("no module", summary.without_module))
    caches = [(cache, total.caches[cache]) for cache in CACHE_RESULTS if cache in total.caches]
    phases = [(phase, total.phases[phase]) for phase in PHASES] + [("response", total.total.response_times)]
    tables = [
        _group_table("Status codes", summary.statuses, total),
        _group_table("Cache results", caches, total),
        _group_table("Modules", modules, total),
        Table(
            "Phases",
            ["count", *QUANTILES, "max"],
            [[name, f"{times.count:,}", *_times(times)] for name, times in phases],
        ),
    ]
    stops = []
    for code, stop in summary.slowest(MAX_STOPS):
        counts = [f"{number:,}" for number in (stop.requests, stop.failed, stop.timed)]
        stops.append([code, *counts, milliseconds(stop.mean_ms), milliseconds(stop.max_ms)])
    if stops:
        head = ["requests", "failed", "not mem.", "mean", "max"]
        tables.append(Table("Slowest stops", head, stops))
    return tables


def _group_table(title: str, groups: Iterable[tuple[str, Group]], total: Period) -> Table:
    rows = [
        [
            name,
            f"{group.requests:,}",
            share(group.requests, total.total.requests),
            f"{group.failed:,}",
            *_times(group.response_times),
        ]
        for name, group in groups
    ]
    return Table(title, ["requests", "share", "failed", *QUANTILES, "max"], rows)


def _times(times: QuantileSketch) -> list[str]:
    """Format the quantiles and the maximum, in milliseconds."""
    quantiles = [milliseconds(times.quantile(fraction)) for fraction in QUANTILES.values()]
    return [*quantiles, milliseconds(times.maximum if times.count else None)]
