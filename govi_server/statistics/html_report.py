"""The page of ``govi-stats --html``: one file with plots, which needs neither scripts nor the network.

Plots are SVG, 360 units wide: as wide as a phone's screen, two beside each other on a larger one.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from html import escape
from itertools import pairwise
from math import ceil, floor, log10

from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.statistics.formatting import MOMENT_FORMATS, milliseconds, share
from govi_server.statistics.quantiles import QUANTILES, RESOLUTION_MS, QuantileSketch
from govi_server.statistics.records import CACHE_RESULTS, PHASES
from govi_server.statistics.summary import (
    FROM_MEMORY,
    STATUS_CLASSES,
    WAITED,
    Group,
    LogSummary,
    Period,
    StatusClass,
    merged,
)

BOUNDS = [step * 10.0**power for power in range(-2, 4) for step in (1, 2, 5)] + [10_000.0, 13_000.0]
"""Milliseconds: of the bars of a histogram, up to the 13 seconds that no client waits longer than."""
STOPS = 20
MOST_LABELS = 6
_LONGEST = {"minute": 60, "hour": 3600, "day": 86400, "month": 31 * 86400, "year": 366 * 86400}
_STEPS = [timedelta(minutes=n) for n in (1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720)]
_STEPS += [timedelta(days=n) for n in (1, 2, 7)]

_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH = 54.0, 344.0, 14.0, 150.0, 360

# Contrast with the background is 4.5 to 1 or more for text and plots alike, in light and in dark.
_STYLE = """
:root { color-scheme: light dark; --back: #fff; --card: #f6f7f9; --text: #1c2024; --dim: #545b64; --line: #c9ced6;
  --memory: #0b6b5d; --source: #a03c0a; --bad: #b3123c }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --card: #1d2127; --text: #e8eaed; --dim: #a9b0ba;
  --line: #434a54; --memory: #54c7b2; --source: #f2a065; --bad: #ff8ba3 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 64rem; background: var(--back); color: var(--text);
  font: 1rem/1.45 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
p { margin: .3rem 0; max-width: 45rem } .dim { color: var(--dim) }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .6rem; margin: 1rem 0 }
dl div { background: var(--card); border-radius: .4rem; padding: .5rem .7rem }
dt { color: var(--dim); font-size: .875rem } dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: .8rem }
figure { margin: 0; background: var(--card); border-radius: .4rem; padding: .5rem }
figcaption { font-weight: 600; padding: 0 .2rem } figcaption span { font-weight: 400; color: var(--dim) }
svg { display: block; width: 100%; height: auto; font-size: 11px; fill: var(--text) }
svg .dim { fill: var(--dim) } svg .grid { stroke: var(--line); stroke-width: 1 }
.memory { fill: var(--memory) } .source { fill: var(--source) } .bad { fill: var(--bad) }
path.memory, path.source, path.bad, svg path.dim { fill: none; stroke-width: 2;
  stroke-linejoin: round; stroke-linecap: round }
path.memory { stroke: var(--memory) } path.source { stroke: var(--source); stroke-dasharray: 5 4 }
path.bad { stroke: var(--bad) }
svg path.dim { stroke: var(--dim) }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9375rem }
th, td { text-align: right; padding: .2rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap }
thead th { color: var(--dim); font-weight: 600 } th:first-child { text-align: left; padding-left: 0 }
tbody th { font-weight: 400 }
"""


def page(figures: LogSummary, now: datetime) -> str:
    """Make the page. now: the moment that it says it was made at."""
    whole = figures.total
    if figures.first is None or figures.last is None:
        period = "No line matched."
    else:
        first, last = (datetime.fromtimestamp(moment, LOCAL_ZONE) for moment in (figures.first, figures.last))
        period = f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M %Z}"
    body = [f"<header><h1>govi-cache statistics</h1><p>{period}</p></header>", _totals(figures, whole)]
    if whole.total.requests:
        body += [_latency(whole), _over_time(figures), _phases(figures, whole), _tables(figures, whole)]
    made = f"{now.astimezone(LOCAL_ZONE):%Y-%m-%d %H:%M %Z}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>govi-cache statistics</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + f'\n<footer><p class="dim">Made by govi-stats, {made}. Times are Dutch; quantiles are within 1 % of the '
        "true ones. An answer's time is that of all phases but receive, which is the client's.</p></footer>"
        "\n</body></html>\n"
    )


def _totals(figures: LogSummary, whole: Period) -> str:
    group = whole.total
    ratio = whole.memory_ratio
    facts = [
        ("Requests", f"{group.requests:,}"),
        ("Connections", f"{figures.connections:,}"),
        ("From memory", "-" if ratio is None else f"{ratio:.1%}"),
        ("Failed", f"{group.failed:,}"),
        ("Answer p50", _with_unit(group.response_times.quantile(0.5))),
        ("Answer p99", _with_unit(group.response_times.quantile(0.99))),
    ]
    if figures.bad:
        facts.append(("Bad lines", f"{figures.bad:,}"))
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts) + "</dl>"


def _with_unit(time: float | None) -> str:
    return "-" if time is None else f"{milliseconds(time)} ms"


def _latency(whole: Period) -> str:
    kinds = [
        ("memory", "From memory", "hit and stale", FROM_MEMORY),
        ("source", "From the source", "miss and joined", WAITED),
        ("dim", "No cache asked", "none", ("none",)),
    ]
    groups = [
        (style, title, what, merged(whole.caches[each] for each in caches if each in whole.caches).response_times)
        for style, title, what, caches in kinds
    ]
    shown = [each for each in groups if each[3].count]
    bars = [times.bucket_counts(BOUNDS) for *_, times in shown]
    # One time axis for all, from the first bar to the last that anybody has.
    used = [index for index in range(len(BOUNDS) + 1) if any(counts[index] for counts in bars)]
    first, last = (used[0], used[-1]) if used else (0, 0)
    plots = [
        _histogram(style, title, what, times, counts, first, last)
        for (style, title, what, times), counts in zip(shown, bars, strict=True)
    ]
    return _section(
        "How long answers take", "Bars say how many answers took how long; each plot has its own height.", plots
    )


def _histogram(
    style: str, title: str, what: str, times: QuantileSketch, counts: list[int], first: int, last: int
) -> str:
    most = max(counts)
    step = (_RIGHT - _LEFT) / (last - first + 1)
    parts = _count_axis(most)
    for index in range(first, last + 1):
        x, height = _LEFT + (index - first) * step, (_BOTTOM - _TOP) * counts[index] / most
        edge = "more" if index == len(BOUNDS) else f"up to {_bound(BOUNDS[index])}"
        if counts[index]:
            # A single answer among millions is seen, too.
            height = max(1.5, height)
            parts.append(
                f'<rect class="{style}" x="{x + 1:.1f}" y="{_BOTTOM - height:.1f}" width="{max(1, step - 2):.1f}" '
                f'height="{height:.1f}"><title>{edge}: {counts[index]:,}</title></rect>'
            )
        if index < len(BOUNDS) and index % 3 == 0:  # 0.01, 0.1, 1 ...
            parts.append(_text(x + step, _BOTTOM + 15, _bound(BOUNDS[index]), "middle"))
    quantiles = ", ".join(f"{name} {_with_unit(times.quantile(fraction))}" for name, fraction in QUANTILES.items())
    label = f"{title}, {what}: {times.count:,} answers, {quantiles}"
    return _figure(title, f"({what}): {times.count:,}<br>{quantiles}", label, parts)


def _bound(bound: float) -> str:
    return f"{bound / 1000:g} s" if bound >= 1000 else f"{bound:g} ms"


class _Times:
    """The horizontal axis of plots over time: where a period is, and its labels."""

    def __init__(self, figures: LogSummary) -> None:
        self.periods = figures.periods()
        self._format = MOMENT_FORMATS[figures.width]
        self._first = self.periods[0][0].timestamp()
        self._span = self.periods[-1][0].timestamp() - self._first
        self._long = {"minute": 60, "hour": 3600, "day": 86400, "month": 31 * 86400, "year": 366 * 86400}[
            figures.width
        ]

    def x(self, begin: datetime) -> float:
        """Where a period is."""
        if not self._span:
            return (_LEFT + _RIGHT) / 2
        return _LEFT + (_RIGHT - _LEFT) * (begin.timestamp() - self._first) / self._span

    def labels(self) -> list[str]:
        """Name round times, or else the first and the last period."""
        step = next((step for step in _STEPS if self._span <= MOST_LABELS * step.total_seconds()), None)
        if step is not None and self._span and self._long <= 3600:
            return self._clock(step)
        begins = [begin.strftime(self._format).removesuffix(begin.strftime(" %Z")) for begin, _ in self.periods]
        if len(begins) == 1:
            return [_text(self.x(self.periods[0][0]), _BOTTOM + 15, begins[0], "middle")]
        return [_text(_LEFT, _BOTTOM + 15, begins[0], "start"), _text(_RIGHT, _BOTTOM + 15, begins[-1], "end")]

    def _clock(self, step: timedelta) -> list[str]:
        labels = []
        first = self.periods[0][0].replace(tzinfo=None)
        at = first + -(first - datetime.min) % step
        # Counted on the wall, so that midnights are midnights on the day the clocks change, too.
        while (begin := at.replace(tzinfo=LOCAL_ZONE)) <= self.periods[-1][0]:
            text = f"{begin:%H:%M}" if begin.hour or begin.minute else f"{begin:%a %d}"
            labels.append(_text(self.x(begin), _BOTTOM + 15, text, "middle"))
            at += step
        return labels

    def line(self, style: str, places: Iterable[float | None]) -> str:
        """Draw a line through a place for each period; None for a period without one."""
        path: list[str] = []
        before: float | None = None
        for (begin, _), place in zip(self.periods, places, strict=True):
            moment = begin.timestamp()
            if place is None:
                before = None
                continue
            # A gap in the log is one in the line. A day may have 25 hours, so half a period more is none.
            joined = before is not None and moment - before < 1.5 * self._long
            path.append(f"{'L' if joined else 'M'}{self.x(begin):.1f} {place:.1f}")
            before = moment
        line = f'<path class="{style}" d="{"".join(path)}"/>' if path else ""
        # A line through a single place cannot be seen.
        dots = [step[1:].split() for step, after in pairwise([*path, "M"]) if step[0] == after[0] == "M"]
        return line + "".join(f'<circle class="{style}" cx="{x}" cy="{y}" r="3"/>' for x, y in dots)


def _over_time(figures: LogSummary) -> str:
    times = _Times(figures)

    ratios = [period.memory_ratio for _, period in times.periods]
    axis = [_rule(_height(part), f"{part:.0%}") for part in (0, 0.5, 1)]
    whole = figures.total
    said = "the cache was never asked" if whole.memory_ratio is None else f"{whole.memory_ratio:.1%} in all"
    hits = [
        *axis,
        *times.labels(),
        times.line("memory", [None if ratio is None else _height(ratio) for ratio in ratios]),
    ]
    plots = [_figure("Hit ratio", f"hit and stale: {said}", f"Hit ratio over time, {said}", hits)]
    words = {"2xx": "answered", "3xx": "not changed", "4xx": "unknown, refused or timed out", "5xx": "failed"}
    words |= {"other": "others", "none": "without an answer"}
    styles = {"2xx": "memory", "3xx": "memory", "4xx": "dim"}
    for each in STATUS_CLASSES:
        total = whole.status_classes[each]
        if total:
            name = "No answer" if each == "none" else "Other status" if each == "other" else f"Status {each}"
            plots.append(_counts(times, each, name, words[each], total, styles.get(each, "bad")))
    return _section("Over time", f"By {figures.width}; each plot of requests has its own height.", plots)


def _counts(times: _Times, each: StatusClass, name: str, word: str, total: int, style: str) -> str:
    most = max(period.status_classes[each] for _, period in times.periods)

    line = times.line(style, [_height(period.status_classes[each] / most) for _, period in times.periods])
    parts = [*_count_axis(most), *times.labels(), line]
    return _figure(name, f"{word}: {total:,}", f"{name}, {word}, over time: {total:,} in all", parts)


def _phases(figures: LogSummary, whole: Period) -> str:
    times = _Times(figures)
    plots = []
    for phase in PHASES:
        if phase in whole.phases:
            by_period = [period.phases.get(phase) for _, period in times.periods]
            plots.append(_phase(times, phase, by_period, whole.phases[phase]))
    answers = [period.total.response_times for _, period in times.periods]
    plots.append(_phase(times, "answer", answers, whole.total.response_times))
    note = "Solid: p50, which half do not exceed. Dashed: p99, which 99 of 100 do not. A step is tenfold."
    return _section("Phases over time", note, plots)


def _phase(times: _Times, name: str, by_period: Sequence[QuantileSketch | None], whole: QuantileSketch) -> str:
    lines = [
        (style, [_quantile(each, part) for each in by_period]) for style, part in (("source", 0.99), ("memory", 0.5))
    ]
    known = [max(RESOLUTION_MS, value) for _, values in lines for value in values if value is not None]
    least = floor(log10(min(known, default=RESOLUTION_MS)))
    decades = max(1, ceil(log10(max(known, default=RESOLUTION_MS))) - least)

    def place(value: float | None) -> float | None:
        return None if value is None else _height((log10(max(value, RESOLUTION_MS)) - least) / decades)

    parts = [_rule(_height(power / decades), _bound(10.0 ** (least + power))) for power in range(decades + 1)]
    parts += times.labels()
    parts += [times.line(style, [place(value) for value in values]) for style, values in lines]
    quantiles = f"p50 {_with_unit(whole.quantile(0.5))}, p99 {_with_unit(whole.quantile(0.99))}"
    return _figure(name, quantiles, f"Phase {name} over time: {quantiles} in all", parts)


def _quantile(times: QuantileSketch | None, fraction: float) -> float | None:
    return None if times is None else times.quantile(fraction)


def _height(part: float) -> float:
    """Tell where a part (0 to 1) of a plot's height is."""
    return _BOTTOM - (_BOTTOM - _TOP) * part


def _tables(figures: LogSummary, whole: Period) -> str:
    head = ["requests", "share", "failed", *QUANTILES, "max"]
    total = whole.total.requests

    def rows(groups: Iterable[tuple[str, Group]]) -> list[list[str]]:
        return [
            [
                name,
                f"{each.requests:,}",
                share(each.requests, total),
                f"{each.failed:,}",
                *_times(each.response_times),
            ]
            for name, each in groups
        ]

    modules = [(name or "/", group) for name, group in figures.modules]
    if figures.without_module.requests:
        modules.append(("no module", figures.without_module))
    caches = [(each, whole.caches[each]) for each in CACHE_RESULTS if each in whole.caches]
    phases = [[each, f"{whole.phases[each].count:,}", *_times(whole.phases[each])] for each in PHASES]
    phases.append(["answer", f"{whole.total.response_times.count:,}", *_times(whole.total.response_times)])
    stops = []
    for code, stop in figures.slowest(STOPS):
        counts = [f"{number:,}" for number in (stop.requests, stop.failed, stop.timed)]
        stops.append([code, *counts, milliseconds(stop.mean_ms), milliseconds(stop.max_ms)])
    tables = [
        _table("Status codes", head, rows(figures.statuses)),
        _table("Cache results", head, rows(caches)),
        _table("Modules", head, rows(modules)),
        _table("Phases", ["count", *QUANTILES, "max"], phases),
    ]
    if stops:
        stop_head = ["requests", "failed", "not from memory", "their mean", "their max"]
        tables.append(_table("Slowest stops", stop_head, stops))
    if figures.other_stops.requests:
        tables.append(f"<p>{figures.other_stops.requests:,} requests about further stops are counted together.</p>")
    return '<p class="dim">Times in the tables are in milliseconds.</p>' + "\n".join(tables)


def _times(times: QuantileSketch) -> list[str]:
    quantiles = [milliseconds(times.quantile(fraction)) for fraction in QUANTILES.values()]
    return [*quantiles, milliseconds(times.maximum if times.count else None)]


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>\n"
        for name, *cells in rows
    )
    return (
        f'<h2>{escape(title)}</h2><div class="wide" tabindex="0" role="region" aria-label="{escape(title)}">'
        f'<table><thead><tr><th scope="col"></th>{names}</tr></thead>\n<tbody>{body}</tbody></table></div>'
    )


def _section(title: str, note: str, plots: Iterable[str]) -> str:
    return f'<h2>{title}</h2><p class="dim">{note}</p><div class="plots">{"".join(plots)}</div>'


def _figure(title: str, note: str, label: str, parts: Iterable[str]) -> str:
    """Put a plot into a card. note is HTML, the other texts are not."""
    return (
        f"<figure><figcaption>{escape(title)} <span>{note}</span></figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} 172" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg></figure>\n'
    )


def _count_axis(most: int) -> list[str]:
    return [_rule(_BOTTOM, "0"), _rule(_TOP, _short(most))]


def _short(number: int) -> str:
    """Write a number in five characters or so."""
    for size, letter in ((10**9, " G"), (10**6, " M"), (10**4, " k")):
        if number >= size:
            return f"{number / (1000 if letter == ' k' else size):.3g}{letter}"
    return f"{number:,}"


def _rule(y: float, text: str) -> str:
    line = f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _text(_LEFT - 5, y + 4, text, "end")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="dim" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
