"""The status as a page without scripts or external resources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from govi_server.operations.history import OTHERS
from govi_server.runtime.templates import environment
from govi_server.statistics.records import SEVERAL

REFRESH_SECONDS = 10
"""Interval at which the page reloads."""

MAX_EVENTS = 6
"""Warnings and errors that are visible before the list is unfolded."""

_ENVIRONMENT = environment("govi_server.operations")
_ENVIRONMENT.filters["number"] = "{:,.0f}".format
_PAGE = _ENVIRONMENT.get_template("status.html")

_VERDICT_COLORS = {"UP": "good", "RECOVERING": "middle", "DEGRADED": "middle", "DOWN": "bad"}
_STATE_COLORS = {
    **_VERDICT_COLORS, "closed": "good", "open": "bad", "fresh": "good", "old": "bad", "down": "bad",
}  # fmt: skip

NEAR_LIMIT = 0.9
"""Fraction of a limit from which its use is marked."""

_LIST_NAMES = {SEVERAL: "(several stops)", OTHERS: "(others)"}
"""Display names of list entries that are neither a TimingPointCode nor a client."""

_CHART_HEIGHT = 128
_GAP = 1
"""Units between stacked bars, if they are more than twice as high."""


def page(status: Mapping[str, Any], is_still: bool = False) -> bytes:
    """Return the page of a status (a result of Status.json()) as HTML. is_still: whether it does not reload."""
    outcomes: Mapping[str, Sequence[int]] = status["hour"]["outcomes"]
    totals = {outcome: sum(minutes) for outcome, minutes in outcomes.items()}
    total = sum(totals.values())
    return _PAGE.render(
        status=status,
        today=status["now"].partition("T")[0],
        refresh=REFRESH_SECONDS,
        is_still=is_still,
        max_events=MAX_EVENTS,
        verdict_color=_verdict_color(status),
        near_limit=NEAR_LIMIT,
        state_colors=_STATE_COLORS,
        list_names=_LIST_NAMES,
        chart=_chart(outcomes),
        totals=[(outcome, n, _share(n, total)) for outcome, n in totals.items()],
    ).encode()


def _verdict_color(status: Mapping[str, Any]) -> str:
    """Return the color of the verdict: never that of a healthy service above a chart with many failures."""
    color = _VERDICT_COLORS.get(status["verdict"], "bad")
    return "middle" if color == "good" and status["failing"] else color


def _share(part: int, total: int) -> str:
    """Format part/total as a percentage: "<1%" if small, "" if 0."""
    if not part:
        return ""
    return "<1%" if part < total / 100 else f"{part / total:.0%}"


@dataclass(frozen=True, slots=True)
class Bar:
    """The requests of a minute with the same outcome. x, y and height are in units of the chart; y points down."""

    x: int
    y: str
    height: str
    outcome: str
    n: int
    minutes_ago: int


@dataclass(frozen=True, slots=True)
class Chart:
    """Stacked bars of an hour, 10 units per minute. top: the requests of the highest bar."""

    top: int
    height: int
    bars: Sequence[Bar]


def _chart(outcomes: Mapping[str, Sequence[int]]) -> Chart:
    """Return a chart of the requests per minute by outcome, the oldest minute on the left."""
    minutes = list(zip(*outcomes.values(), strict=True))
    top = max(map(sum, minutes), default=0)
    bars = []
    for index, counts in enumerate(minutes):
        y = float(_CHART_HEIGHT)
        for outcome, n in zip(outcomes, counts, strict=True):
            if n:
                height = n / top * _CHART_HEIGHT
                y -= height
                visible = height - _GAP if height > 2 * _GAP else height
                bars.append(Bar(index * 10, f"{y:.1f}", f"{visible:.1f}", outcome, n, len(minutes) - 1 - index))
    return Chart(top, _CHART_HEIGHT, bars)
