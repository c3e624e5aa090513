"""The shapes of SIRI Lite's JSON: names, nesting and words are those of SIRI 2.0 (CEN/TS 15531-3).

Texts are arrays of {"value": ...}, references are {"value": ...}. How far a time can be relied upon is judged as on
the board.
"""

from typing import Any

import msgspec

from govi_server.departures.display import RowState, platform, row_state
from govi_server.departures.times import local_timestamp
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import Freshness
from govi_server.kv78turbo.passtime import Passtime
from govi_server.kv78turbo.stop_departures import StopDepartures
from govi_server.openapi.schema import FLAG, NUMBER, TEXT, arrays, objects

Json = dict[str, Any]

_MODES = {"BUS": "bus", "METRO": "metro", "TRAM": "tram", "TRAIN": "rail", "BOAT": "ferry"}
"""KV7's TransportTypes (docs/protocols.md 2.6) in the words of SIRI 2.0's VehicleModesEnumeration, which are air, bus, coach,
ferry, metro, rail, tram and underground."""

# The board's word on a departure in those of SIRI's CallStatusEnumeration. Of the rest nobody can say when it comes.
_STATUSES: dict[RowState, str] = {
    "on_time": "onTime", "late": "delayed", "early": "early", "cancelled": "cancelled", "stopped": "arrived",
}  # fmt: skip

ERRORS: dict[Freshness, tuple[str, str]] = {
    "unknown": ("InvalidDataReferencesError", "Unknown MonitoringRef"),
    "old": ("NoInfoForTopicError", "What is known of this stop is too old"),
    "down": ("ServiceNotAvailableError", "The feed tells nothing"),
}
"""Which SIRI error says why there is no board."""

_ERROR_NAMES = ("OtherError", *(name for name, _ in ERRORS.values()))
_ERROR = objects({"ErrorText": TEXT})
_REF = objects({"value": TEXT})
_TEXTS = arrays(_REF)
_CALL = objects(
    {
        "StopPointRef": _REF, "Order": NUMBER, "StopPointName": _TEXTS, "VehicleAtStop": FLAG,
        "DestinationDisplay": _TEXTS, "AimedArrivalTime": TEXT, "ExpectedArrivalTime": TEXT, "ArrivalStatus": TEXT,
        "ArrivalPlatformName": _REF, "AimedDepartureTime": TEXT, "ExpectedDepartureTime": TEXT,
        "DepartureStatus": TEXT, "DeparturePlatformName": _REF,
    },
    ("StopPointRef", "Order", "StopPointName", "VehicleAtStop", "DestinationDisplay"),
)  # fmt: skip
_JOURNEY = objects(
    {
        "LineRef": _REF, "DirectionRef": _REF, "JourneyPatternRef": _REF, "VehicleMode": arrays(TEXT),
        "FramedVehicleJourneyRef": objects({"DataFrameRef": _REF, "DatedVehicleJourneyRef": TEXT}),
        "PublishedLineName": _TEXTS, "OperatorRef": _REF, "DestinationRef": _REF, "DestinationName": _TEXTS,
        "Monitored": FLAG, "MonitoredCall": _CALL,
    },
    ("LineRef", "FramedVehicleJourneyRef", "PublishedLineName", "OperatorRef", "DestinationName", "Monitored",
     "MonitoredCall"),
)  # fmt: skip
_VISIT = objects(
    {
        "RecordedAtTime": TEXT,
        "ItemIdentifier": TEXT,
        "MonitoringRef": _REF,
        "MonitoredVehicleJourney": _JOURNEY,
    }
)
_DELIVERY = objects(
    {
        "ResponseTimestamp": TEXT, "Version": TEXT, "Status": FLAG, "MonitoredStopVisit": arrays(_VISIT),
        "ErrorCondition": objects(dict.fromkeys(_ERROR_NAMES, _ERROR), ()),
    },
    ("ResponseTimestamp", "Version", "Status", "MonitoredStopVisit"),
)  # fmt: skip
SCHEMA = objects(
    {
        "Siri": objects(
            {
                "ServiceDelivery": objects(
                    {
                        "ResponseTimestamp": TEXT,
                        "ProducerRef": _REF,
                        "StopMonitoringDelivery": {**arrays(_DELIVERY), "minItems": 1, "maxItems": 1},
                    }
                )
            }
        )
    }
)
"""What is answered, whatever the status."""


class SiriDocuments:
    """Makes the JSON of a feed's boards."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._timetable = feed.timetable

    def delivery(self, visits: list[Json], error: tuple[str, str] | None = None) -> bytes:
        """Write the whole answer. error: the name of a SIRI error, and its text."""
        now = local_timestamp(self._feed.clock.seconds())
        delivery: Json = {
            "ResponseTimestamp": now,
            "Version": "2.0",
            "Status": error is None,
            "MonitoredStopVisit": visits,
        }
        if error is not None:
            delivery["ErrorCondition"] = {error[0]: {"ErrorText": error[1]}}
        service = {
            "ResponseTimestamp": now,
            "ProducerRef": _ref("govi-cache"),
            "StopMonitoringDelivery": [delivery],
        }
        return msgspec.json.encode({"Siri": {"ServiceDelivery": service}})

    def visits(self, board: StopDepartures, line: str | None, most: int | None) -> list[Json]:
        """Describe the passes of a board, those of one line if it is told."""
        wanted = [
            one
            for one in board.passtimes
            if line is None or line in (_line(one), one.line_planning_number, self._timetable.public_number(one))
        ]
        return [self._visit(one) for one in wanted[:most]]

    def _visit(self, one: Passtime) -> Json:
        line = self._timetable.lines.get((one.data_owner_code, one.line_planning_number))
        mode = _MODES.get(line.transport_type or "") if line is not None else None
        call, is_monitored = self._call(one)
        journey: Json = {
            "LineRef": _ref(_line(one)),
            "DirectionRef": _ref(one.line_direction),
            "FramedVehicleJourneyRef": {
                "DataFrameRef": _ref(one.operation_date.isoformat()),
                "DatedVehicleJourneyRef": one.journey.replace("_", ":"),
            },
            "JourneyPatternRef": _ref(one.journey_pattern_code),
            "VehicleMode": [mode] if mode else None,
            "PublishedLineName": _texts(self._timetable.public_number(one)),
            "OperatorRef": _ref(one.operator_code or one.data_owner_code),
            "DestinationRef": _ref(one.destination_code),
            "DestinationName": _texts(self._timetable.destination(one)),
            "Monitored": is_monitored,
            "MonitoredCall": call,
        }
        return {
            "RecordedAtTime": local_timestamp(one.last_update or self._feed.clock.seconds()),
            "ItemIdentifier": f"{one.journey}_{one.operation_date}_{one.user_stop_order_number}".replace("_", ":"),
            "MonitoringRef": _ref(one.timing_point_code),
            "MonitoredVehicleJourney": _said(journey),
        }

    def _call(self, one: Passtime) -> tuple[Json, bool]:
        """Describe the call, and tell whether anybody knows more of it than the timetable."""
        point = self._timetable.timing_points.get(one.timing_point_code)
        silent = self._feed.operator_freshness(one.data_owner_code)[0] != "fresh"
        call: Json = {
            "StopPointRef": _ref(one.timing_point_code),
            "Order": int(one.user_stop_order_number),
            "StopPointName": _texts((point and point.name) or one.timing_point_code),
            "VehicleAtStop": one.trip_stop_status == "ARRIVED" and not silent,
            "DestinationDisplay": _texts(self._timetable.destination(one)),
        }
        is_monitored = False
        for what, aimed, told in (
            ("Arrival", one.target_arrival, one.expected_arrival),
            ("Departure", one.target_departure, one.expected_departure),
        ):
            if aimed is None and told is None:
                continue
            status = _status(what, one.trip_stop_status, aimed, told, silent)
            is_monitored |= status != "noReport"
            if status in ("noReport", "cancelled"):
                told = None
            call[f"Aimed{what}Time"] = None if aimed is None else local_timestamp(aimed)
            call[f"Expected{what}Time"] = None if told is None else local_timestamp(told)
            call[f"{what}Status"] = status
            call[f"{what}PlatformName"] = _ref(platform(one.side_code))
        return _said(call), is_monitored


def _status(what: str, status: str, aimed: float | None, told: float | None, silent: bool) -> str:
    """Give SIRI's CallStatus of an arrival or a departure, by the rule of the board."""
    if what == "Departure" and status == "ARRIVED":
        status = "DRIVING"  # it has still to leave, on time or not
    state = row_state(status, aimed, told, silent)
    if state is None:
        return "departed" if what == "Departure" else "arrived"
    return _STATUSES.get(state, "noReport")


def _line(one: Passtime) -> str:
    return f"{one.data_owner_code}:{one.line_planning_number}"


def _ref(text: str | None) -> dict[str, str] | None:
    return None if text is None else {"value": text}


def _texts(text: str) -> list[dict[str, str]]:
    return [{"value": text}]


def _said(members: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is not known."""
    return {name: value for name, value in members.items() if value is not None}
