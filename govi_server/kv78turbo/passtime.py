"""A passtime: one journey at one stop, from KV8, KV7 or GTFS."""

from collections.abc import Callable
from datetime import date
from typing import Any, NamedTuple

from msgspec import Struct

from govi_server.departures.display import HIDDEN_AFTER_SECONDS, Provenance, Reliability
from govi_server.departures.times import moment, write_time


class Passtime(Struct, frozen=True, kw_only=True, gc=False):
    """One journey at one stop on one operating date. Texts are None if unknown.

    Moments are epoch seconds, None if there is no such time: nothing departs at a LAST stop (docs/protocols.md,
    section 5.8). A Struct, because creating a frozen dataclass is several times slower.
    """

    data_owner_code: str
    local_service_level_code: str
    line_planning_number: str
    journey_number: str
    fortify_order_number: str
    operation_date: date
    user_stop_order_number: str
    user_stop_code: str
    timing_point_code: str
    timing_point_data_owner_code: str | None = None
    last_update: float | None = None
    target_arrival_time: str | None = None
    """HH:MM:SS on the operating date; past 24:00:00 on the next day, and with a minus sign on the day before."""
    expected_arrival_time: str | None = None
    target_departure_time: str | None = None
    expected_departure_time: str | None = None
    target_arrival: float | None = None
    expected_arrival: float | None = None
    target_departure: float | None = None
    expected_departure: float | None = None
    trip_stop_status: str
    journey_stop_type: str
    wheelchair: str = "UNKNOWN"
    destination_code: str | None = None
    line_direction: str | None = None
    journey_pattern_code: str | None = None
    is_timing_stop: bool = False
    side_code: str | None = None
    number_of_coaches: str | None = None
    operator_code: str | None = None
    product_formula_type: str | None = None
    line_public_number: str | None = None
    destination_name: str | None = None
    reliability: Reliability = "current"
    """Whether KV8 still repeats it."""
    last_heard: float | None = None
    """When KV8 last sent it (epoch seconds); None if it is reliable."""
    provenance: Provenance = "kv8"
    headsign: str | None = None
    """The name of its journey's destination in GTFS, which has no DestinationCode."""
    extra: tuple[tuple[str, str], ...] = ()
    """The other columns of KV8 that have a value: (name, text)."""

    @property
    def reported_status(self) -> str:
        """The TripStopStatus; UNKNOWN if it is no longer reliable. What has passed or is cancelled stays so."""
        is_final = self.trip_stop_status in ("PASSED", "CANCEL", "PLANNED")
        return self.trip_stop_status if is_final or self.reliability == "current" else "UNKNOWN"

    @property
    def is_departure(self) -> bool:
        """Whether passengers can board: at its last stop a journey only arrives."""
        return self.journey_stop_type != "LAST"

    @property
    def expected(self) -> float:
        """The expected departure, or the arrival at the last stop (epoch seconds): the sort key of boards."""
        times = (self.expected_departure, self.target_departure, self.expected_arrival, self.target_arrival)
        return next((time for time in times if time is not None), 0.0)

    @property
    def hidden_after(self) -> float:
        """When it is no longer displayed (epoch seconds; docs/protocols.md, section 5.7)."""
        times = [time for time in (self.expected_arrival, self.expected_departure) if time is not None]
        return max(times or [self.expected]) + HIDDEN_AFTER_SECONDS

    @property
    def journey(self) -> str:
        """OVapi's key of its journey: GVB_20260421_7_7189_0."""
        return "_".join(
            (
                self.data_owner_code,
                self.local_service_level_code,
                self.line_planning_number,
                self.journey_number,
                self.fortify_order_number,
            )
        )


def planned_passtime(day: date, arrival: int | None, departure: int | None, **fields: Any) -> Passtime:
    """Return a passtime of the planning: its expected times are the planned ones.

    arrival, departure: seconds since the beginning of the operating date. fields: the others of Passtime.
    """
    arrival_time, departure_time = (None if time is None else write_time(time) for time in (arrival, departure))
    arrives, departs = (None if time is None else moment(day, time) for time in (arrival, departure))
    return Passtime(
        operation_date=day,
        target_arrival_time=arrival_time,
        expected_arrival_time=arrival_time,
        target_departure_time=departure_time,
        expected_departure_time=departure_time,
        target_arrival=arrives,
        expected_arrival=arrives,
        target_departure=departs,
        expected_departure=departs,
        timing_point_data_owner_code="ALGEMEEN",
        trip_stop_status="PLANNED",
        **fields,
    )


class PlannedCall(NamedTuple):
    """A planned passtime on one date, which is made when it is needed."""

    key: bytes
    """Its key in KV8; from GTFS, which does not have UserStopOrderNumber, one that KV8 cannot have."""
    day: date
    time: float
    """Its departure, or its arrival at the last stop (epoch seconds)."""
    make: Callable[[], Passtime]
