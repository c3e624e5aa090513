"""Departures of a stop: the values that sources create and modules render."""

from dataclasses import dataclass

from msgspec import Struct


class Trip(Struct, frozen=True, gc=False):
    """One departure of one journey at one stop.

    The values are the texts of the source: None if an element is absent, "" if it is empty. Times are HH:MM:SS on
    ``operating_date`` and continue past 24:00 (docs/protocols.md, section 1.2). Enumerations are open.

    A Struct, created in a tenth of a dataclass's time and without work for the garbage collector: a cache has a
    million of them, and they cannot form cycles.
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
    """Unknown elements, each as the XML text of the source."""


@dataclass(frozen=True, slots=True)
class Board:
    """The departures of one stop in one response of a source."""

    code: str
    """TimingPointCode: ASCII digits, leading zeros significant."""
    trips: tuple[Trip, ...]
    received_at: float
    """Epoch seconds at which the source's response was complete; ages count from it."""
    envelope: tuple[tuple[str, str], ...] = ()
    """Header elements (name, text) of the message that it is from; empty without a message."""
