"""A stop's departures: the values that sources create and modules render."""

from dataclasses import dataclass
from itertools import chain
from sys import getsizeof

from msgspec import Struct
from msgspec.structs import astuple


class Trip(Struct, frozen=True, gc=False):
    """The departure of a journey from a stop.

    Values are the source's text: None for an absent element, "" for an empty one. Times are HH:MM:SS on
    ``operating_date`` and may exceed 24:00 (docs/protocols.md, section 1.2). Enumerations are open.

    A msgspec Struct is created in a tenth of the time of a dataclass and not tracked by the garbage collector. A
    cache may hold a million trips, and they cannot form cycles.
    """

    operating_date: str | None = None
    data_owner_code: str | None = None
    line_planning_number: str | None = None
    line_public_number: str | None = None
    destination_name: str | None = None
    journey_number: str | None = None
    fortify_order_number: str | None = None
    target_arrival_time: str | None = None
    expected_arrival_time: str | None = None
    target_departure_time: str | None = None
    expected_departure_time: str | None = None
    trip_stop_status: str | None = None
    extra: tuple[str, ...] = ()
    """Unknown elements, each as its XML in the source."""


@dataclass(frozen=True, slots=True)
class Board:
    """The departures of one stop in one response of a source."""

    code: str
    """TimingPointCode: ASCII digits, leading zeros significant."""
    trips: tuple[Trip, ...]
    received_at: float
    """When the source's response was complete, in epoch seconds; the board's age counts from here."""
    envelope: tuple[tuple[str, str], ...] = ()
    """Header elements (name, text) of the source's message; empty for a board without a message."""

    @property
    def size(self) -> int:
        """Bytes of memory that its trips and texts occupy."""
        values = chain.from_iterable((*self.envelope, *(astuple(trip)[:-1] for trip in self.trips)))
        extra = chain.from_iterable(trip.extra for trip in self.trips)
        texts = [text for text in chain(values, extra) if text]  # None and "" are shared
        all_texts = "".join(texts)
        is_ascii = all_texts.isascii()  # then the size is computed in a tenth of the time
        size = len(all_texts) + len(texts) * getsizeof("") if is_ascii else sum(map(getsizeof, texts))
        return sum(map(getsizeof, self.trips)) + size
