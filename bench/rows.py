"""Creates messages of KV7 and KV8 with fictitious content, in the form of the public feed (docs/protocols.md, 2)."""

import gzip
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta

from govi_server.departures.times import local_timestamp
from govi_server.kv78turbo import ctx

LABELS = (
    "DataOwnerCode|OperationDate|LinePlanningNumber|JourneyNumber|FortifyOrderNumber|UserStopOrderNumber|UserStopCode|"
    "LocalServiceLevelCode|JourneyPatternCode|LineDirection|LastUpdateTimeStamp|DestinationCode|IsTimingStop|"
    "ExpectedArrivalTime|ExpectedDepartureTime|TripStopStatus|MessageContent|MessageType|SideCode|NumberOfCoaches|"
    "WheelChairAccessible|OperatorCode|ReasonType|SubReasonType|ReasonContent|AdviceType|SubAdviceType|AdviceContent|"
    "TimingPointDataOwnerCode|TimingPointCode|JourneyStopType|TargetArrivalTime|TargetDepartureTime|"
    "RecordedArrivalTime|RecordedDepartureTime|DetectedUserStopCode|DistanceSinceDetectedUserStop|Detected_RD_X|"
    "Detected_RD_Y|VehicleNumber|BlockCode|LineVeTagNumber|VejoJourneyNumber|VehicleJourneyType|VejoBlockNumCode|"
    "JourneyModificationType|VejoDepartureTime|VejoArrivalTime|VejoTripStatusType|ExtraJourney|CancelledJourney|"
    "ShowCancelledTrip|ShowFlexibleTrip|Monitored|MonitoringError|ExtraCall|CancelledCall|ShowCancelledStop|"
    "AimedQuayRef|ExpectedQuayRef|ActualQuayRef|Occupancy|LineDestIcon|LineDestColor|LineDestTextColor"
)
"""The 65 columns of DATEDPASSTIME."""

RECORD = (
    r"OWN|2026-01-01|3051|7039|0|20|54002060|6787227|298074|1|2026-01-01T18:26:05+01:00|3042|0|18:24:55|18:24:51|"
    r"DRIVING|\0|\0|-|1|UNKNOWN|\0|\0|\0|\0|\0|\0|\0|ALGEMEEN|42013502|INTERMEDIATE|18:26:02|18:26:02|18:24:51|"
    r"18:25:05|54002060|700|80485|454340|5172|206|51|7039|PUJO|\0|NONE|17:55:00|18:30:00|\0|0|0|TRUE|\0|1|\0|0|0|TRUE|"
    r"\0|\0|\0|UNKNOWN|\0|\0|\0"
)

_FIELDS = RECORD.split("|")
_COLUMNS = {label: i for i, label in enumerate(LABELS.split("|"))}


def passtime_row(values: Mapping[str, str]) -> str:
    """Return a row of DATEDPASSTIME: the fictitious record with these values."""
    fields = _FIELDS.copy()
    for label, value in values.items():
        fields[_COLUMNS[label]] = value
    return "|".join(fields)


def kv8_message(rows: Iterable[str], now: float) -> bytes:
    """Return a message of DATEDPASSTIME rows, published now (epoch seconds), compressed."""
    head = f"\\GKV8turbo_passtimes|KV8turbo_passtimes|bench|||UTF-8|0.1|{local_timestamp(now)}|\ufeff"
    lines = [head, "\\TDATEDPASSTIME|DATEDPASSTIME|start object", f"\\L{LABELS}", *rows, ""]
    return gzip.compress("\r\n".join(lines).encode(), 1)


def kv7_message(operator: str, now: float, tables: Iterable[ctx.Table]) -> bytes:
    """Return a message of KV7 tables, published now (epoch seconds)."""
    return ctx.write("KV7turbo_planning", operator, local_timestamp(now), tables)


def stop_tables(operator: str, codes: Sequence[str]) -> list[ctx.Table]:
    """Return the tables of an operator's stops. The code of stop n is 40000000 + n; stop areas have ten stops."""
    labels = ("DataOwnerCode", "TimingPointCode", "TimingPointName", "TimingPointTown")
    points = []
    for code in codes:
        n = int(code) - 40000000
        place = (f"{100 + n % 70}000", f"{400 + n // 70}000", f"Area{n // 10}")
        points.append(("ALGEMEEN", code, f"Town {n % 500}, Stop {n}", f"Town {n % 500}", *place))
    user_points = [(operator, code, code) for code in codes]
    return [
        ("TIMINGPOINT", (*labels, "LocationX_EW", "LocationY_NS", "StopAreaCode"), points),
        ("USERTIMINGPOINT", ("DataOwnerCode", "UserStopCode", "TimingPointCode"), user_points),
    ]


def line_tables(operator: str, lines: Sequence[str]) -> list[ctx.Table]:
    """Return the tables of an operator's lines, by LinePlanningNumber, and of a destination D<line> for each."""
    public = [(operator, line, line[-4:], f"Line {line}", "BUS") for line in lines]
    labels = ("DataOwnerCode", "LinePlanningNumber", "LinePublicNumber", "LineName", "TransportType")
    names = [(operator, f"D{line}", f"Town of line {line}", f"Town {line}") for line in lines]
    return [
        ("LINE", labels, public),
        ("DESTINATION", ("DataOwnerCode", "DestinationCode", "DestinationName50", "DestinationName16"), names),
    ]


def calendar_tables(operator: str, level: str, first: date, days: int) -> list[ctx.Table]:
    """Return the tables of a service level that is valid on so many days."""
    dates = [(operator, level, (first + timedelta(n)).isoformat()) for n in range(days)]
    return [
        ("LOCALSERVICEGROUP", ("DataOwnerCode", "LocalServiceLevelCode"), [(operator, level)]),
        ("LOCALSERVICEGROUPVALIDITY", ("DataOwnerCode", "LocalServiceLevelCode", "OperationDate"), dates),
    ]


def planned_table(rows: Iterable[Sequence[str]]) -> ctx.Table:
    """Return a table of planned passtimes, rows of planned_row()."""
    labels = (
        "DataOwnerCode", "LocalServiceLevelCode", "LinePlanningNumber", "JourneyNumber", "FortifyOrderNumber",
        "UserStopOrderNumber", "UserStopCode", "JourneyPatternCode", "LineDirection", "DestinationCode",
        "TargetArrivalTime", "TargetDepartureTime", "JourneyStopType", "IsTimingStop",
    )  # fmt: skip
    return "LOCALSERVICEGROUPPASSTIME", labels, rows


def planned_row(
    operator: str, level: str, line: str, journey: int, order: int, code: str, time: str, stop_type: str
) -> Sequence[str]:
    """Return a row of planned_table()."""
    key = (operator, level, line, str(journey), "0", str(order))
    return (*key, code, "900", "1", f"D{line}", time, time, stop_type, "1")


def journey_stop_type(order: int, stops: int) -> str:
    """Return the JourneyStopType of the stop with this UserStopOrderNumber, of so many stops."""
    return "FIRST" if order == 1 else "LAST" if order == stops else "INTERMEDIATE"
