"""Plots of the HTML report: coordinates of bars, lines and labels in an SVG image. The template draws them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from math import ceil, floor, log10

from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.statistics.formatting import MOMENT_FORMATS
from govi_server.statistics.quantiles import RESOLUTION_MS
from govi_server.statistics.summary import LogSummary, Period

WIDTH, HEIGHT = 360, 172
"""Units of an image, which is as wide as a phone's screen; larger screens have room for two in a row."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 344.0, 14.0, 150.0
_BASELINE = _BOTTOM + 15
"""The y coordinate of the labels of the horizontal axis."""

_MIN_BAR_HEIGHT = 1.5
"""The minimum, so that a single response among millions is visible."""

BOUNDS = [step * 10.0**power for power in range(-2, 4) for step in (1, 2, 5)] + [10_000.0, 13_000.0]
"""Upper bounds of a histogram's bars in milliseconds, up to the 13 seconds after which the server disconnects."""
_BOUNDS_PER_LABEL = 3
"""Every third bound is labelled: 0.01, 0.1, 1 ms ..."""

MAX_LABELS = 6
_LABEL_STEPS = [timedelta(minutes=n) for n in (1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720)]
_LABEL_STEPS += [timedelta(days=n) for n in (1, 2, 7)]
_PERIOD_SECONDS = {"minute": 60, "hour": 3600, "day": 86400, "month": 31 * 86400, "year": 366 * 86400}


@dataclass(frozen=True, slots=True)
class Label:
    """A text. anchor: the part of it that is at x: start, middle or end."""

    x: float
    y: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Rule:
    """A horizontal line of the grid, with its label."""

    y: float
    label: Label
    left: float = _LEFT
    right: float = _RIGHT


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a histogram. style: its CSS class."""

    style: str
    x: float
    y: float
    width: float
    height: float
    description: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line with gaps. path: an SVG path, "" if there are no points. dots: isolated points."""

    style: str
    path: str
    dots: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Plot:
    """An image whose caption consists of a title and lines of a note. description: for screen readers."""

    title: str
    note: Sequence[str]
    description: str
    rules: Sequence[Rule]
    labels: Sequence[Label]
    bars: Sequence[Bar] = ()
    lines: Sequence[Line] = ()


def height(share: float) -> float:
    """Return the y coordinate of a share (0 to 1) of a plot's height."""
    return _BOTTOM - (_BOTTOM - _TOP) * share


def rule(share: float, text: str) -> Rule:
    """Return the line of the grid at a share (0 to 1) of a plot's height."""
    y = height(share)
    return Rule(y, Label(_LEFT - 5, y + 4, text, "end"))


def count_rules(highest: int) -> list[Rule]:
    """Return the grid of a plot of counts, from 0 to the highest."""
    return [rule(0, "0"), rule(1, _abbreviate(highest))]


def _abbreviate(number: int) -> str:
    """Format a number in about five characters."""
    for size, letter in ((10**9, " G"), (10**6, " M"), (10**4, " k")):
        if number >= size:
            return f"{number / (1000 if letter == ' k' else size):.3g}{letter}"
    return f"{number:,}"


def bars(style: str, counts: Sequence[int], first: int, last: int) -> list[Bar]:
    """Return the bars of a histogram.

    counts: by upper bound, the last one above all bounds. first, last: indexes of the counts to show.
    """
    highest = max(counts)
    step = (_RIGHT - _LEFT) / (last - first + 1)
    result = []
    for index in range(first, last + 1):
        if counts[index]:
            size = max(_MIN_BAR_HEIGHT, (_BOTTOM - _TOP) * counts[index] / highest)
            edge = "more" if index == len(BOUNDS) else f"up to {bound_text(BOUNDS[index])}"
            x = _LEFT + (index - first) * step + 1
            result.append(Bar(style, x, _BOTTOM - size, max(1, step - 2), size, f"{edge}: {counts[index]:,}"))
    return result


def bound_labels(first: int, last: int) -> list[Label]:
    """Return the labels below the bars of a histogram."""
    step = (_RIGHT - _LEFT) / (last - first + 1)
    return [
        Label(_LEFT + (index - first + 1) * step, _BASELINE, bound_text(BOUNDS[index]))
        for index in range(first, min(last + 1, len(BOUNDS)))
        if index % _BOUNDS_PER_LABEL == 0
    ]


def bound_text(milliseconds: float) -> str:
    """Format a bound in ms or s."""
    return f"{milliseconds / 1000:g} s" if milliseconds >= 1000 else f"{milliseconds:g} ms"


class LogScale:
    """A vertical axis of times, from a power of ten below all values to one above them.

    values: milliseconds; None is ignored.
    """

    def __init__(self, values: Iterable[float | None]) -> None:
        times = [max(RESOLUTION_MS, value) for value in values if value is not None]
        self._exponent = floor(log10(min(times, default=RESOLUTION_MS)))
        self._decades = max(1, ceil(log10(max(times, default=RESOLUTION_MS))) - self._exponent)

    def rules(self) -> list[Rule]:
        """Return a line of the grid for each power of ten."""
        return [
            rule(power / self._decades, bound_text(10.0 ** (self._exponent + power)))
            for power in range(self._decades + 1)
        ]

    def y(self, value: float | None) -> float | None:
        """Return the y coordinate of a value; None for None."""
        if value is None:
            return None
        return height((log10(max(value, RESOLUTION_MS)) - self._exponent) / self._decades)


class TimeAxis:
    """The horizontal axis of plots over time: the periods of a summary."""

    def __init__(self, summary: LogSummary) -> None:
        self.periods: Sequence[tuple[datetime, Period]] = summary.periods()
        self._format = MOMENT_FORMATS[summary.width]
        self._first = self.periods[0][0].timestamp()
        self._span = self.periods[-1][0].timestamp() - self._first
        self._period_seconds = _PERIOD_SECONDS[summary.width]

    def x(self, begin: datetime) -> float:
        """Return the x coordinate of a period."""
        if not self._span:
            return (_LEFT + _RIGHT) / 2
        return _LEFT + (_RIGHT - _LEFT) * (begin.timestamp() - self._first) / self._span

    def labels(self) -> list[Label]:
        """Return labels at round times, or else at the first and the last period."""
        step = next((step for step in _LABEL_STEPS if self._span <= MAX_LABELS * step.total_seconds()), None)
        if step is not None and self._span and self._period_seconds <= 3600:
            return self._clock_labels(step)
        begins = [begin.strftime(self._format).removesuffix(begin.strftime(" %Z")) for begin, _ in self.periods]
        if len(begins) == 1:
            return [Label(self.x(self.periods[0][0]), _BASELINE, begins[0])]
        return [Label(_LEFT, _BASELINE, begins[0], "start"), Label(_RIGHT, _BASELINE, begins[-1], "end")]

    def _clock_labels(self, step: timedelta) -> list[Label]:
        labels = []
        first = self.periods[0][0].replace(tzinfo=None)
        wall_time = first + -(first - datetime.min) % step
        # In wall-clock time, so that midnight is a label on the days of clock changes as well.
        while (begin := wall_time.replace(tzinfo=LOCAL_ZONE)) <= self.periods[-1][0]:
            text = f"{begin:%H:%M}" if begin.hour or begin.minute else f"{begin:%a %d}"
            labels.append(Label(self.x(begin), _BASELINE, text))
            wall_time += step
        return labels

    def line(self, style: str, heights: Iterable[float | None]) -> Line:
        """Return a line. heights: the y coordinate of each period, None for a gap."""
        steps: list[tuple[str, float, float]] = []
        previous: float | None = None
        for (begin, _), y in zip(self.periods, heights, strict=True):
            moment = begin.timestamp()
            if y is None:
                previous = None
                continue
            # Periods missing in the log are a gap; a tolerance of half a period allows for days of 25 hours.
            joined = previous is not None and moment - previous < 1.5 * self._period_seconds
            steps.append(("L" if joined else "M", self.x(begin), y))
            previous = moment
        path = "".join(f"{command}{x:.1f} {y:.1f}" for command, x, y in steps)
        end = ("M", 0.0, 0.0)
        # A line through a single point is invisible.
        dots = [(x, y) for (command, x, y), after in pairwise([*steps, end]) if command == after[0] == "M"]
        return Line(style, path, dots)
