"""The display of a journey: the stops at which it calls, and where it is. Pure."""

from typing import Literal

from msgspec import Struct

from govi_server.departures.display import RowState
from govi_server.departures.modes import Mode

CallState = RowState | Literal["passed"]


class Call(Struct, frozen=True):
    """One stop of a journey. Moments are epoch seconds, of the departure, or of the arrival at the last stop."""

    code: str
    """The TimingPointCode."""
    name: str
    """"" if unknown."""
    planned: float
    expected: float
    """The planned time if unknown."""
    state: CallState
    platform: str | None = None


Progress = Literal["before", "at", "towards", "ended", "cancelled", "unknown"]
"""Where a vehicle is: before its first stop, at a stop, on its way to a stop, or at the end of its journey."""


class JourneyDisplay(Struct, frozen=True):
    """The display of one journey; calls are in order."""

    line: str
    destination: str
    calls: tuple[Call, ...]
    operator: str = ""
    """DataOwnerCode."""
    mode: Mode | None = None
    color: str | None = None
    """See DisplayRow."""
    text_color: str | None = None
    is_stale: bool = False
    """Whether its data is too old for a statement on where it is."""
    age: float = 0.0
    """The age of the data in seconds."""

    def progress(self, now: float) -> tuple[Progress, int | None]:
        """Return where the vehicle is, and the number of the call it is at or on its way to. now: epoch seconds."""
        served = [number for number, call in enumerate(self.calls) if call.state != "cancelled"]
        if not served:
            return "cancelled", None
        if self.is_stale:
            return "unknown", None
        reached = [number for number in served if self.calls[number].state in ("passed", "stopped")]
        if not reached:
            first = self.calls[served[0]]
            if first.state == "planned" and first.expected > now:
                return "before", None
            # Without a report it is not known whether a journey that should have begun has done so.
            return (
                ("unknown", None) if first.state in ("planned", "unknown", "last_known") else ("towards", served[0])
            )
        if self.calls[reached[-1]].state == "stopped":
            return "at", reached[-1]
        following = next((number for number in served if number > reached[-1]), None)
        return ("ended", None) if following is None else ("towards", following)
