"""Build messages of KV7 and KV8 as the feed sends them, from rows with only the relevant columns.

Each row maps columns to values, None for null, and is merged into a complete row of the tables below. Their values
match each other and tests.client.NOW, which is 01:00 on Thursday 2026-01-01 in the Netherlands: journey 1001 of
line 4 departs from stop 30000001 at 01:30, as planned on its operating date, and is under way.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from govi_server.kv78turbo import ctx

Row = Mapping[str, str | None]

PUBLISHED = "2026-01-01T00:59:50+01:00"
"""The default time of publication: ten seconds before tests.client.NOW."""

_GENERAL_MESSAGE_KEY: Row = {
    "DataOwnerCode": "LIN",
    "MessageCodeDate": "2026-01-01",
    "MessageCodeNumber": "27",
    "TimingPointDataOwnerCode": "ALGEMEEN",
    "TimingPointCode": "30000001",
}
_LEVEL: Row = {"DataOwnerCode": "LIN", "LocalServiceLevelCode": "77"}

TABLES: Mapping[str, Row] = {
    "DATEDPASSTIME": {
        "DataOwnerCode": "LIN",
        "OperationDate": "2026-01-01",
        "LinePlanningNumber": "L004",
        "JourneyNumber": "1001",
        "FortifyOrderNumber": "0",
        "UserStopOrderNumber": "3",
        "UserStopCode": "u1",
        "LocalServiceLevelCode": "77",
        "JourneyPatternCode": "900",
        "LineDirection": "1",
        "LastUpdateTimeStamp": PUBLISHED,
        "DestinationCode": "D1",
        "IsTimingStop": "0",
        "ExpectedArrivalTime": "01:30:00",
        "ExpectedDepartureTime": "01:30:00",
        "TripStopStatus": "DRIVING",
        "MessageContent": None,
        "MessageType": None,
        "SideCode": "-",
        "NumberOfCoaches": None,
        "WheelChairAccessible": "ACCESSIBLE",
        "OperatorCode": None,
        "ReasonType": None,
        "SubReasonType": None,
        "ReasonContent": None,
        "AdviceType": None,
        "SubAdviceType": None,
        "AdviceContent": None,
        "TimingPointDataOwnerCode": "ALGEMEEN",
        "TimingPointCode": "30000001",
        "JourneyStopType": "INTERMEDIATE",
        "TargetArrivalTime": "01:30:00",
        "TargetDepartureTime": "01:30:00",
        "RecordedArrivalTime": None,
        "RecordedDepartureTime": None,  # the 35 columns of 2012 end here
        "DetectedUserStopCode": "u1",
        "DistanceSinceDetectedUserStop": "120",
        "Detected_RD_X": None,
        "Detected_RD_Y": None,
        "VehicleNumber": None,
        "BlockCode": None,
        "LineVeTagNumber": "4",
        "VejoJourneyNumber": "1001",
        "VehicleJourneyType": "PUJO",
        "VejoBlockNumCode": None,
        "JourneyModificationType": "NONE",
        "VejoDepartureTime": "01:20:00",
        "VejoArrivalTime": "01:50:00",
        "VejoTripStatusType": None,  # and the 49 of 2017 here
        "ExtraJourney": "0",
        "CancelledJourney": "0",
        "ShowCancelledTrip": "TRUE",
        "ShowFlexibleTrip": "TRUE",
        "Monitored": "1",
        "MonitoringError": None,
        "ExtraCall": "0",
        "CancelledCall": "0",
        "ShowCancelledStop": "1",
        "AimedQuayRef": None,
        "ExpectedQuayRef": None,
        "ActualQuayRef": None,
        "Occupancy": None,
        "LineDestIcon": None,
        "LineDestColor": None,
        "LineDestTextColor": None,
    },
    "GENERALMESSAGEUPDATE": {
        **_GENERAL_MESSAGE_KEY,
        "MessageType": "GENERAL",
        "MessageDurationType": "REMOVE",
        "MessageStartTime": "2026-01-01T00:50:00+01:00",
        "MessageEndTime": None,
        "MessageContent": "Line 4 does not call at Brug.",
        "ReasonType": "0",
        "SubReasonType": "0",
        "ReasonContent": None,
        "EffectType": "0",
        "SubEffectType": "0",
        "EffectContent": None,
        "MeasureType": "0",
        "SubMeasureType": "6",
        "MeasureContent": None,
        "AdviceType": "0",
        "SubAdviceType": "0",
        "AdviceContent": None,
        "MessageTimeStamp": PUBLISHED,
    },
    "GENERALMESSAGEDELETE": _GENERAL_MESSAGE_KEY,
    "DESTINATION": {
        "DataOwnerCode": "LIN",
        "DestinationCode": "D1",
        "DestinationName50": "Lindedorp via Brug",
        "DestinationName30": "Lindedorp via Brug",
        "DestinationName24": "Lindedorp",
        "DestinationName19": "Lindedorp",
        "DestinationName16": "Lindedorp",
        "DestinationDetail24": "via Brug",
        "DestinationDetail19": "via Brug",
        "DestinationDetail16": "",
        "DestinationDisplay16": None,
    },
    "TIMINGPOINT": {
        "DataOwnerCode": "ALGEMEEN",
        "TimingPointCode": "30000001",
        "TimingPointName": "Lindedorp, Brug",
        "TimingPointTown": "Lindedorp",
        "LocationX_EW": "155000",
        "LocationY_NS": "463000",
        "LocationZ": None,
        "StopAreaCode": "LdBrug",
    },
    "USERTIMINGPOINT": {
        "DataOwnerCode": "LIN",
        "UserStopCode": "u1",
        "TimingPointDataOwnerCode": "ALGEMEEN",
        "TimingPointCode": "30000001",
        "GetIn": "1",
        "GetOut": "1",
    },
    "STOPAREA": {"DataOwnerCode": "ALGEMEEN", "StopAreaCode": "LdBrug", "StopAreaName": "Lindedorp, Brug"},
    "LINE": {
        "DataOwnerCode": "LIN",
        "LinePlanningNumber": "L004",
        "LinePublicNumber": "4",
        "LineName": "Lindedorp - Station",
        "LineVeTagNumber": "4",
        "TransportType": "BUS",
    },
    "LOCALSERVICEGROUPPASSTIME": {
        **_LEVEL,
        "LinePlanningNumber": "L004",
        "JourneyNumber": "1001",
        "FortifyOrderNumber": "0",
        "UserStopCode": "u1",
        "UserStopOrderNumber": "3",
        "JourneyPatternCode": "900",
        "LineDirection": "1",
        "DestinationCode": "D1",
        "TargetArrivalTime": "01:30:00",
        "TargetDepartureTime": "01:30:00",
        "SideCode": "-",
        "WheelChairAccessible": "ACCESSIBLE",
        "JourneyStopType": "INTERMEDIATE",
        "IsTimingStop": "0",
        "ProductFormulaType": "18",
    },
    "LOCALSERVICEGROUP": _LEVEL,
    "LOCALSERVICEGROUPVALIDITY": {**_LEVEL, "OperationDate": "2026-01-01"},
}
"""A complete row of each table, with the columns in the feed's order."""


def table(name: str, rows: Iterable[Row], columns: Sequence[str] | None = None) -> ctx.Table:
    """Return a table for message(), with rows merged into a complete one. columns: its columns; None for all."""
    complete = TABLES[name]
    labels = list(complete) if columns is None else list(columns)
    return name, labels, [[*map({**complete, **row}.get, labels)] for row in rows]


def message(label: str, *tables: ctx.Table, published: str = PUBLISHED) -> bytes:
    """Return a message of one group: message("KV7turbo_planning", table("LINE", [{}]), table("STOPAREA", []))."""
    return ctx.write(label, "openOV LIN", published, tables)


def passtimes(*rows: Row, columns: int | Sequence[str] | None = None, published: str = PUBLISHED) -> bytes:
    """Return KV8 passing times. columns: how many of the 65 columns, or their labels; None for all."""
    labels = list(TABLES["DATEDPASSTIME"])[:columns] if columns is None or isinstance(columns, int) else columns
    return message("KV8turbo_passtimes", table("DATEDPASSTIME", rows, labels), published=published)


def general_message(*rows: Row, published: str = PUBLISHED) -> bytes:
    """Return KV8 general messages."""
    return message("KV8turbo_generalmessages", table("GENERALMESSAGEUPDATE", rows), published=published)


def general_message_delete(*rows: Row, published: str = PUBLISHED) -> bytes:
    """Return KV8 deletions of general messages."""
    return message("KV8turbo_generalmessages", table("GENERALMESSAGEDELETE", rows), published=published)


def planning(
    *planned: Row,
    lines: Iterable[Row] = ({},),
    destinations: Iterable[Row] = ({},),
    points: Iterable[Row] = ({},),
    user_stops: Iterable[Row] = ({},),
    areas: Iterable[Row] = ({},),
    published: str = PUBLISHED,
) -> bytes:
    """Return KV7 planning: these planned passtimes, and by default one row of each other table."""
    return message(
        "KV7turbo_planning",
        table("DESTINATION", destinations),
        table("TIMINGPOINT", points),
        table("USERTIMINGPOINT", user_stops),
        table("STOPAREA", areas),
        table("LINE", lines),
        table("LOCALSERVICEGROUPPASSTIME", planned),
        published=published,
    )


def calendar(*dates: str, level: Row = {}, published: str = PUBLISHED) -> bytes:  # noqa: B006  # it is only read
    """Return a KV7 calendar: one service level on these operating dates (YYYY-MM-DD)."""
    return message(
        "KV7turbo_calendar",
        table("LOCALSERVICEGROUP", [level]),
        table("LOCALSERVICEGROUPVALIDITY", [{**level, "OperationDate": date} for date in dates]),
        published=published,
    )


def records(message: bytes, reject: Callable[[str], object] | None = None) -> list[ctx.Records]:
    """Parse a message; without reject all of its records must be valid."""

    def fail(kind: str) -> None:
        raise AssertionError(f"record rejected: {kind}")

    return list(ctx.read([message], reject or fail))
