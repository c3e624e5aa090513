"""The status as a page that needs no scripts and nothing from the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from govi_server.runtime.templates import environment

REFRESH = 10
"""Seconds after which the page reloads itself."""

MAX_EVENTS = 6
"""Warnings and errors that are shown before they are unfolded."""

_ENVIRONMENT = environment("govi_server.operations")
_ENVIRONMENT.filters["number"] = "{:,.0f}".format
_PAGE = _ENVIRONMENT.get_template("status.html")

_VERDICT_COLORS = {"UP": "good", "RECOVERING": "middle", "DEGRADED": "middle", "DOWN": "bad"}
_STATE_COLORS = {"UP": "good", "closed": "good", "DOWN": "bad", "open": "bad"}

_CHART_HEIGHT = 128
_GAP = 1
"""Between stacked bars that are higher than twice as much."""


def page(status: Mapping[str, Any]) -> bytes:
    """Make the page of a status, as Status.json() returns it."""
    outcomes: Mapping[str, Sequence[int]] = status["hour"]["outcomes"]
    totals = {outcome: sum(minutes) for outcome, minutes in outcomes.items()}
    total = sum(totals.values())
    return _PAGE.render(
        status=status,
        today=status["now"].partition("T")[0],
        refresh=REFRESH,
        max_events=MAX_EVENTS,
        verdict_color=_VERDICT_COLORS.get(status["verdict"], "bad"),
        state_colors=_STATE_COLORS,
        chart=_chart(outcomes),
        totals=[(outcome, n, _share(n, total)) for outcome, n in totals.items()],
    ).encode()


def _share(part: int, total: int) -> str:
    """Format a share in percent; a small one does not become 0%."""
    if not part:
        return ""
    return "<1%" if part < total / 100 else f"{part / total:.0%}"


@dataclass(frozen=True, slots=True)
class Bar:
    """The requests of a minute with one outcome; x, y and height are units of the chart, whose y grows downwards."""

    x: int
    y: str
    height: str
    outcome: str
    n: int
    minutes_ago: int


@dataclass(frozen=True, slots=True)
class Chart:
    """Stacked bars of an hour, 10 units wide for each minute. top: the requests of the highest bar."""

    top: int
    height: int
    bars: Sequence[Bar]


def _chart(outcomes: Mapping[str, Sequence[int]]) -> Chart:
    """Make the chart of the requests of each minute by outcome; the oldest minute is on the left."""
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
