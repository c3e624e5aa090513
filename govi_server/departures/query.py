"""Which departures a request selects."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from govi_server.departures.times import HOUR
from govi_server.kv78turbo.passtime import Passtime

DEFAULT_HORIZON = 2 * HOUR
"""Seconds of departures in a response without a horizon parameter."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which passes are wanted. The parameters are our own: limit, line, direction, horizon."""

    limit: int | None = None
    lines: frozenset[str] = frozenset()
    """LinePublicNumbers or LinePlanningNumbers; none is any."""
    direction: str | None = None
    horizon: float | None = None
    """Seconds; None is what the module gives by itself."""

    def select(self, passes: Iterable[Passtime], public_number: Callable[[Passtime], str]) -> list[Passtime]:
        """Pick the passes that are wanted. public_number: gives the LinePublicNumber of a pass."""
        wanted = []
        for one in passes:
            if self.lines and not {one.line_planning_number, public_number(one)} & self.lines:
                continue
            if self.direction is not None and one.line_direction != self.direction:
                continue
            wanted.append(one)
        return wanted[: self.limit]
