"""SIRI Lite's JSON: a StopMonitoring response as Structs, which define the bytes and the JSON Schema.

Names, nesting and enumerations are those of SIRI 2.0 (CEN/TS 15531-3). Times are reliable by the same rules as on the
departure board.
"""

from collections.abc import Generator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from govi_server.departures.display import Reliability, RowState, platform, row_state
from govi_server.departures.fragments import STEP_PARTS, make_part
from govi_server.departures.modes import Mode, mode_of
from govi_server.departures.times import local_timestamp
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import Freshness, reliability
from govi_server.kv78turbo.passtime import Passtime
from govi_server.kv78turbo.stop_departures import StopDepartures

_CallStatus = Literal["onTime", "delayed", "early", "cancelled", "arrived", "departed", "noReport"]
_STATUSES: dict[RowState, _CallStatus] = {
    "on_time": "onTime", "late": "delayed", "early": "early", "cancelled": "cancelled", "stopped": "arrived",
}  # fmt: skip
"""A departure's state as SIRI's CallStatusEnumeration. The other states have no reliable time: noReport."""


class Value(Struct, gc=False):
    """A reference or a text."""

    value: str


class FramedVehicleJourneyRef(Struct, gc=False):
    """A journey of an operating date."""

    DataFrameRef: Value
    DatedVehicleJourneyRef: str


class MonitoredCall(Struct, kw_only=True):
    """The call at the stop. Unknown times are absent."""

    StopPointRef: Value
    Order: int
    StopPointName: list[Value]
    VehicleAtStop: bool
    DestinationDisplay: list[Value] | UnsetType = UNSET
    AimedArrivalTime: str | UnsetType = UNSET
    ExpectedArrivalTime: str | UnsetType = UNSET
    ArrivalStatus: _CallStatus | UnsetType = UNSET
    ArrivalPlatformName: Value | UnsetType = UNSET
    AimedDepartureTime: str | UnsetType = UNSET
    ExpectedDepartureTime: str | UnsetType = UNSET
    DepartureStatus: _CallStatus | UnsetType = UNSET
    DeparturePlatformName: Value | UnsetType = UNSET


class MonitoredVehicleJourney(Struct, kw_only=True):
    """The journey of a visit. Monitored: whether real-time data is known."""

    LineRef: Value
    DirectionRef: Value | UnsetType = UNSET
    FramedVehicleJourneyRef: "FramedVehicleJourneyRef"
    JourneyPatternRef: Value | UnsetType = UNSET
    VehicleMode: list[Mode] | UnsetType = UNSET
    PublishedLineName: list[Value]
    OperatorRef: Value
    DestinationRef: Value | UnsetType = UNSET
    DestinationName: list[Value] | UnsetType = UNSET
    Monitored: bool
    MonitoredCall: "MonitoredCall"


class MonitoredStopVisit(Struct):
    """A visit of a vehicle to the stop."""

    RecordedAtTime: str
    ItemIdentifier: str
    MonitoringRef: Value
    MonitoredVehicleJourney: "MonitoredVehicleJourney"


class SiriError(Struct, gc=False):
    """A description of an error."""

    ErrorText: str


class ErrorCondition(Struct):
    """Why there are no visits: one of these errors."""

    OtherError: SiriError | UnsetType = UNSET
    InvalidDataReferencesError: SiriError | UnsetType = UNSET
    NoInfoForTopicError: SiriError | UnsetType = UNSET
    ServiceNotAvailableError: SiriError | UnsetType = UNSET


class StopMonitoringDelivery(Struct):
    """The visits, or the ErrorCondition."""

    ResponseTimestamp: str
    Version: str
    Status: bool
    MonitoredStopVisit: "list[MonitoredStopVisit]"
    ErrorCondition: "ErrorCondition | UnsetType" = UNSET


class ServiceDelivery(Struct):
    """The delivery of a request."""

    ResponseTimestamp: str
    ProducerRef: Value
    StopMonitoringDelivery: Annotated[list["StopMonitoringDelivery"], Meta(min_length=1, max_length=1)]


class Siri(Struct):
    """The container of the ServiceDelivery."""

    ServiceDelivery: "ServiceDelivery"


class SiriResponse(Struct):
    """A SIRI Lite 2.0 StopMonitoring response."""

    Siri: "Siri"


ERRORS: dict[Freshness, ErrorCondition] = {
    "old": ErrorCondition(NoInfoForTopicError=SiriError("The data of this stop is too old")),
    "down": ErrorCondition(ServiceNotAvailableError=SiriError("There is no live data")),
}
"""The errors of known stops without a board."""


def unknown_stop(similar: Sequence[str]) -> ErrorCondition:
    """Return the error of a stop that does not exist. similar: codes and names of those that may be meant."""
    text = f"Unknown MonitoringRef; similar: {'; '.join(similar)}" if similar else "Unknown MonitoringRef"
    return ErrorCondition(InvalidDataReferencesError=SiriError(text))


def other_error(text: str) -> ErrorCondition:
    """Return the error of an invalid request."""
    return ErrorCondition(OtherError=SiriError(text))


class SiriDocuments:
    """Makes SIRI documents of a feed's boards."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._timetable = feed.timetable

    def delivery(self, visits: list[MonitoredStopVisit], error: ErrorCondition | UnsetType = UNSET) -> bytes:
        """Return a response as JSON."""
        now = local_timestamp(self._feed.clock.seconds())
        delivery = StopMonitoringDelivery(now, "2.0", error is UNSET, visits, error)
        return msgspec.json.encode(SiriResponse(Siri(ServiceDelivery(now, Value("govi-cache"), [delivery]))))

    def visits(
        self, board: StopDepartures, line: str | None, limit: int | None
    ) -> Generator[None, None, list[MonitoredStopVisit]]:
        """Return the visits of a board, in steps.

        line: a LineRef, LinePlanningNumber or LinePublicNumber, None for all.
        """
        outdated = self._feed.outdated_operators(board)
        visits: list[Any] = []
        for n, entry in enumerate(board.entries, 1):
            was_stored = False
            if line is None or line in self._line_refs(entry.passtime):
                reliable = reliability(entry.passtime, outdated)
                # Without a timestamp, it depends on the moment.
                fragments = None if entry.passtime.last_update is None else entry.fragments
                form = f"siri {reliable}"
                visit, was_stored = make_part(fragments, form, None, self._encoded, entry.passtime, reliable)
                visits.append(Raw(visit))
                if len(visits) == limit:
                    break
            if not was_stored or n % STEP_PARTS == 0:
                yield
        return visits

    def _line_refs(self, passtime: Passtime) -> tuple[str, ...]:
        """Return the texts by which a request may select the line of a passtime."""
        return _line(passtime), passtime.line_planning_number, self._timetable.public_number(passtime)

    def _encoded(self, passtime: Passtime, reliable: Reliability) -> bytes:
        return msgspec.json.encode(self._visit(passtime, reliable))

    def _visit(self, passtime: Passtime, reliable: Reliability) -> MonitoredStopVisit:
        line = self._timetable.line(passtime.data_owner_code, passtime.line_planning_number)
        mode = mode_of(line.transport_type) if line is not None else None
        call = self._call(passtime, reliable)
        # ItemIdentifier and DatedVehicleJourneyRef are OVapi's key of the journey, with SIRI's separator.
        journey = passtime.journey.replace("_", ":")
        day, now = passtime.operation_date.isoformat(), self._feed.clock.seconds()
        return MonitoredStopVisit(
            local_timestamp(now if passtime.last_update is None else passtime.last_update),
            f"{journey}:{day}:{passtime.user_stop_order_number}",
            Value(passtime.timing_point_code),
            MonitoredVehicleJourney(
                LineRef=Value(_line(passtime)),
                DirectionRef=_value(passtime.line_direction),
                FramedVehicleJourneyRef=FramedVehicleJourneyRef(Value(day), journey),
                JourneyPatternRef=_value(passtime.journey_pattern_code),
                VehicleMode=[mode] if mode else UNSET,
                PublishedLineName=[Value(self._timetable.public_number(passtime))],
                OperatorRef=Value(passtime.operator_code or passtime.data_owner_code),
                DestinationRef=_value(passtime.destination_code),
                DestinationName=_values(self._timetable.destination(passtime)),
                Monitored={call.ArrivalStatus, call.DepartureStatus} - {UNSET, "noReport"} != set(),
                MonitoredCall=call,
            ),
        )

    def _call(self, passtime: Passtime, reliable: Reliability) -> MonitoredCall:
        point = self._timetable.timing_point(passtime.timing_point_code)
        status = passtime.trip_stop_status
        call = MonitoredCall(
            StopPointRef=Value(passtime.timing_point_code),
            Order=int(passtime.user_stop_order_number),
            StopPointName=[Value((point and point.name) or passtime.timing_point_code)],
            VehicleAtStop=status == "ARRIVED" and reliable == "current",
            DestinationDisplay=_values(self._timetable.destination(passtime)),
        )
        quay = _value(platform(passtime.side_code))
        aimed, expected = passtime.target_arrival, passtime.expected_arrival
        if aimed is not None or expected is not None:
            call.ArrivalStatus = _status(status, aimed, expected, reliable, passed="arrived")
            call.AimedArrivalTime = _timestamp(aimed)
            call.ExpectedArrivalTime = _expected(call.ArrivalStatus, expected)
            call.ArrivalPlatformName = quay
        aimed, expected = passtime.target_departure, passtime.expected_departure
        if aimed is not None or expected is not None:
            # A vehicle at the stop has yet to depart, on time or not.
            status = "DRIVING" if status == "ARRIVED" else status
            call.DepartureStatus = _status(status, aimed, expected, reliable, passed="departed")
            call.AimedDepartureTime = _timestamp(aimed)
            call.ExpectedDepartureTime = _expected(call.DepartureStatus, expected)
            call.DeparturePlatformName = quay
        return call


def _status(
    status: str, aimed: float | None, expected: float | None, reliability: Reliability, passed: _CallStatus
) -> _CallStatus:
    """Return SIRI's status of an arrival or departure. passed: the status after the vehicle has left the stop."""
    state = row_state(status, aimed, expected, reliability)
    return passed if state is None else _STATUSES.get(state, "noReport")


def _timestamp(moment: float | None) -> str | UnsetType:
    return UNSET if moment is None else local_timestamp(moment)


def _expected(status: _CallStatus, moment: float | None) -> str | UnsetType:
    """Format an expected time; it is absent if it is unreliable or the call is cancelled."""
    return UNSET if status in ("noReport", "cancelled") else _timestamp(moment)


def _line(passtime: Passtime) -> str:
    return f"{passtime.data_owner_code}:{passtime.line_planning_number}"


def _value(text: str | None) -> Value | UnsetType:
    return UNSET if text is None else Value(text)


def _values(text: str) -> list[Value] | UnsetType:
    return [Value(text)] if text else UNSET
