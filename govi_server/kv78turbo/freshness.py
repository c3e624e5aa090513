"""How fresh an operator's data is."""

from typing import Literal

Freshness = Literal["fresh", "stale", "old", "unknown", "down"]
"""How far a board can be relied upon: "fresh" and "stale" are shown; "old", "unknown" (no such stop) and "down" (no
feed, and so nobody knows) are three kinds of having none."""


SERVABLE: tuple[Freshness, ...] = ("fresh", "stale")
"""The conditions of a board in which it is shown."""
