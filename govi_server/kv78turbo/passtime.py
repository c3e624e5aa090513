"""What KV7 and KV8 both tell of: a journey at a stop; and the messages for a stop. Values."""

from dataclasses import dataclass
from datetime import date

from govi_server.departures.display import GONE_AFTER

DROPPED_AFTER = GONE_AFTER
"""Seconds after both its expected times for which a pass is still shown (docs/protocols.md 5.7)."""


@dataclass(frozen=True, slots=True)
class Passtime:
    """One journey at one stop on one operating date, as KV7 or KV8 tells it. Texts are None where nothing is said.

    Moments are epoch seconds, None where there is no such time: at LAST nothing departs (docs/protocols.md 5.8).
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
    timing_point_data_owner_code: str | None
    last_update: float | None
    target_arrival_time: str | None
    expected_arrival_time: str | None
    target_departure_time: str | None
    expected_departure_time: str | None
    target_arrival: float | None
    expected_arrival: float | None
    target_departure: float | None
    expected_departure: float | None
    trip_stop_status: str
    journey_stop_type: str
    wheelchair: str
    destination_code: str | None
    line_direction: str | None
    journey_pattern_code: str | None
    is_timing_stop: bool
    side_code: str | None = None
    number_of_coaches: str | None = None
    operator_code: str | None = None
    product_formula_type: str | None = None
    line_public_number: str | None = None
    destination_name: str | None = None
    remarks: tuple[tuple[str, str], ...] = ()
    """What else is said of it: (MessageContent, text), (ReasonType, text) and so on."""

    @property
    def is_departure(self) -> bool:
        """Whether it takes passengers: at its last stop it only arrives."""
        return self.journey_stop_type != "LAST"

    @property
    def expected(self) -> float:
        """When it is expected to leave, or to arrive at its last stop: what boards are sorted by."""
        moments = (self.expected_departure, self.target_departure, self.expected_arrival, self.target_arrival)
        return next((m for m in moments if m is not None), 0.0)

    @property
    def hidden_after(self) -> float:
        """When it is no longer shown."""
        expected = [m for m in (self.expected_arrival, self.expected_departure) if m is not None]
        return max(expected or [self.expected]) + DROPPED_AFTER

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


@dataclass(frozen=True, slots=True)
class GeneralMessage:
    """A text for a stop."""

    key: str
    """OVapi's: RET_2017-04-11_27_ALGEMEEN_31001347."""
    fields: tuple[tuple[str, str | None], ...]
    """Its columns by name, as they came."""
    starts: float
    ends: float | None
    """Epoch seconds; None is until it is taken back."""

    def shown(self, now: float) -> bool:
        """Tell whether it is for now."""
        return self.starts <= now and (self.ends is None or now < self.ends)
