"""What leaves from a stop: the values that sources make and modules render."""

from dataclasses import dataclass

from msgspec import Struct


class Trip(Struct, frozen=True, gc=False):
    """One departure of one journey at one stop.

    The values are the texts of the source: None where an element is absent, "" where it is empty. Times are
    HH:MM:SS on ``operating_date`` and run on past 24:00 (docs/protocols.md 1.2). Enumerations are open.

    A Struct, made in a tenth of the time that a dataclass takes, and no work for the garbage collector, for a cache
    has a million of them; nothing in it could refer back to it.
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
    """Elements that nobody knows, each as the XML text that the source sent."""


@dataclass(frozen=True, slots=True)
class Board:
    """The departures of one stop as a source told them at one moment."""

    code: str
    """TimingPointCode: ASCII digits, leading zeros significant."""
    trips: tuple[Trip, ...]
    received_at: float
    """Epoch seconds at which the source's answer was there: what its age is counted from."""
    envelope: tuple[tuple[str, str], ...] = ()
    """Header elements (name, text) of the message that brought it; none where no message did."""
