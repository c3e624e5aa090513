"""The departures that a request selects."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from msgspec import Struct

from govi_server.departures.modes import Mode
from govi_server.departures.times import HOUR

DEFAULT_HORIZON = 2 * HOUR
"""Seconds ahead for which departures are returned without a horizon parameter."""


class Selectable(Protocol):
    """The columns of a departure that a query selects by."""

    @property
    def line_planning_number(self) -> str:
        """LinePlanningNumber."""

    @property
    def line_direction(self) -> str | None:
        """LineDirection; None if unknown."""


_Departure = TypeVar("_Departure", bound=Selectable)


class Query(Struct, frozen=True):
    """The parameters of a request that select departures."""

    limit: int | None = None
    """Maximum departures; None for all."""
    lines: frozenset[str] = frozenset()
    """LinePublicNumbers or LinePlanningNumbers; empty selects all."""
    direction: str | None = None
    """LineDirection; None selects both."""
    horizon: float | None = None
    """Seconds; None selects the module's own default."""
    modes: frozenset[Mode] = frozenset()
    """Empty selects all."""
    operators: frozenset[str] = frozenset()
    """DataOwnerCodes; empty selects all."""
    after: tuple[float, ...] = ()
    """Seconds until departure at least: one number for all stops, or one for each; empty selects all."""
    to: str = ""
    """The id, the code or the words of a place at which departures must call later; "" selects all."""

    def horizon_or(self, default: float) -> float:
        """Return the horizon of the request, or the module's default after the first departure that is selected."""
        return default + max(self.after, default=0.0) if self.horizon is None else self.horizon

    def after_at(self, stop: int) -> float:
        """Return the seconds until departure at least, for the stop with this index."""
        return self.after[stop if len(self.after) > 1 else 0] if self.after else 0.0

    def select(
        self, departures: Iterable[_Departure], public_number: Callable[[_Departure], str]
    ) -> Iterator[_Departure | None]:
        """Yield the selected departures, in order, and None for each that is not.

        public_number: returns a departure's LinePublicNumber.
        """
        n = 0
        if self.limit is None and not self.lines and self.direction is None:
            yield from departures
            return
        for departure in departures:
            is_line = not self.lines or {departure.line_planning_number, public_number(departure)} & self.lines
            if is_line and self.direction in (None, departure.line_direction):
                yield departure
                n += 1
                if n == self.limit:
                    return
            else:
                yield None
