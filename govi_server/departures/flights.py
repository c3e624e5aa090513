"""What becomes of a question to a source: events of the log, for whoever wants figures of them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class FlightEvent:
    """One thing that happened to a question. Written to the log under the key ``flight``, with no text."""

    module: str
    """The module that asked."""
    what: Literal["taken", "answered", "late"]
    """Taken is the acknowledgement; late is an answer after the deadline."""
    seconds: float
    """Since the question."""
