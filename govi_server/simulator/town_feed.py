"""The town as the KV78turbo feed tells it: messages of KV7 and KV8 (docs/protocols.md 2). Pure, but for whose time it is."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, timedelta
from itertools import count
from typing import NamedTuple

from govi_server.departures.times import (
    HOUR,
    MINUTE,
    local_date,
    local_timestamp,
    moment,
    write_time,
)
from govi_server.kv78turbo import ctx
from govi_server.simulator.town import STATION, STATION_AREA, Call, Journey, Line, Town

CYCLE = 25
"""Seconds in which all that is under way is said again, as the feed does (docs/protocols.md 2.2)."""
TIMETABLE_CYCLE = 60
"""Seconds after which KV7 is said again. The feed does it at night; here somebody waits for it."""
AHEAD = HOUR
"""How long before its start a journey is in KV8."""
AFTER = 2 * MINUTE
"""How long after its end it still is, so that its last stop is seen to be passed."""
ROWS = 50
"""Rows of a KV8 message."""

_OWNER = "LINDEBUS"
_GENERAL = "ALGEMEEN"  # who owns the stops
_DESTINATION_CUTS = (30, 24, 19, 16)

# The tables with their columns, as they were in 2021 (docs/protocols.md 2.3 to 2.5).
_TABLES = {
    "DATAOWNER": "DataOwnerCode DataOwnerType DataOwnerName DataOwnerCompanyNumber",
    "DESTINATION": """
        DataOwnerCode DestinationCode DestinationName50 DestinationName30 DestinationName24 DestinationName19
        DestinationName16 DestinationDetail24 DestinationDetail19 DestinationDetail16 DestinationDisplay16
        DestinationName21 DestinationDetail21 RelevantDestNameDetail DestIcon DestColor DestTextColor""",
    "TIMINGPOINT": """
        DataOwnerCode TimingPointCode TimingPointName TimingPointTown LocationX_EW LocationY_NS LocationZ
        StopAreaCode""",
    "USERTIMINGPOINT": "DataOwnerCode UserStopCode TimingPointDataOwnerCode TimingPointCode GetIn GetOut",
    "STOPAREA": "DataOwnerCode StopAreaCode StopAreaName",
    "LINE": """
        DataOwnerCode LinePlanningNumber LinePublicNumber LineName LineVeTagNumber TransportType LineIcon LineColor
        LineTextColor""",
    "LOCALSERVICEGROUPPASSTIME": """
        DataOwnerCode LocalServiceLevelCode LinePlanningNumber JourneyNumber FortifyOrderNumber UserStopCode
        UserStopOrderNumber JourneyPatternCode LineDirection DestinationCode TargetArrivalTime TargetDepartureTime
        SideCode WheelChairAccessible JourneyStopType IsTimingStop ProductFormulaType GetIn GetOut ShowFlexibleTrip
        LineDestIcon LineDestColor LineDestTextColor BlockCode SequenceInBlock VehicleJourneyType""",
    "LOCALSERVICEGROUP": "DataOwnerCode LocalServiceLevelCode",
    "LOCALSERVICEGROUPVALIDITY": "DataOwnerCode LocalServiceLevelCode OperationDate",
    "DATEDPASSTIME": """
        DataOwnerCode OperationDate LinePlanningNumber JourneyNumber FortifyOrderNumber UserStopOrderNumber
        UserStopCode LocalServiceLevelCode JourneyPatternCode LineDirection LastUpdateTimeStamp DestinationCode
        IsTimingStop ExpectedArrivalTime ExpectedDepartureTime TripStopStatus MessageContent MessageType SideCode
        NumberOfCoaches WheelChairAccessible OperatorCode ReasonType SubReasonType ReasonContent AdviceType
        SubAdviceType AdviceContent TimingPointDataOwnerCode TimingPointCode JourneyStopType TargetArrivalTime
        TargetDepartureTime RecordedArrivalTime RecordedDepartureTime DetectedUserStopCode
        DistanceSinceDetectedUserStop Detected_RD_X Detected_RD_Y VehicleNumber BlockCode LineVeTagNumber
        VejoJourneyNumber VehicleJourneyType VejoBlockNumCode JourneyModificationType VejoDepartureTime
        VejoArrivalTime VejoTripStatusType ExtraJourney CancelledJourney ShowCancelledTrip ShowFlexibleTrip Monitored
        MonitoringError ExtraCall CancelledCall ShowCancelledStop AimedQuayRef ExpectedQuayRef ActualQuayRef
        Occupancy LineDestIcon LineDestColor LineDestTextColor""",
    "GENERALMESSAGEUPDATE": """
        DataOwnerCode MessageCodeDate MessageCodeNumber TimingPointDataOwnerCode TimingPointCode MessageType
        MessageDurationType MessageStartTime MessageEndTime MessageContent ReasonType SubReasonType ReasonContent
        EffectType SubEffectType EffectContent MeasureType SubMeasureType MeasureContent AdviceType SubAdviceType
        AdviceContent MessageTimeStamp""",
    "GENERALMESSAGEDELETE": """
        DataOwnerCode MessageCodeDate MessageCodeNumber TimingPointDataOwnerCode TimingPointCode""",
}
COLUMNS = {table: columns.split() for table, columns in _TABLES.items()}
_PASSTIME = COLUMNS["DATEDPASSTIME"]
_STAMP = _PASSTIME.index("LastUpdateTimeStamp")

Row = tuple[str | None, ...]


class Message(NamedTuple):
    """Something to say."""

    envelope: str
    ctx: bytes
    payload: bytes | None = None
    """What goes in place of compressed CTX, when it was recorded as no CTX."""


def _message(kind: str, now: float, **tables: Iterable[Row]) -> Message:
    """Make a message of KV7planning, KV7calendar, KV8passtimes or KV8generalmessages."""
    named = ((table, COLUMNS[table], rows) for table, rows in tables.items())
    label = f"{kind[:3]}turbo_{kind[3:]}"
    return Message(f"/GOVI/{kind}/{_OWNER}", ctx.write(label, _OWNER, local_timestamp(now), named))


# KV7


def timetable(town: Town, now: float) -> list[Message]:
    """Give the calendar of eight days from yesterday on, and the planning line by line."""
    yesterday = local_date(now) - timedelta(days=1)
    days = [yesterday + timedelta(days=days) for days in range(8)]
    levels = dict.fromkeys(line.service_level(day) for line in town.lines for day in days)
    calendar = _message(
        "KV7calendar",
        now,
        LOCALSERVICEGROUP=[(_OWNER, level) for level in levels],
        LOCALSERVICEGROUPVALIDITY=[
            (_OWNER, line.service_level(day), day.isoformat()) for line in town.lines for day in days
        ],
    )
    return [calendar, *(_planning(town, line, days, now) for line in town.lines)]


def _planning(town: Town, line: Line, days: Sequence[date], now: float) -> Message:
    owners = [(_GENERAL, "ALG", _GENERAL, "10"), (_OWNER, "PUCO", "Lindebus", "999")]
    stops = [town.stops[code] for code in line.route]
    points = [
        (_GENERAL, stop.code, f"{stop.town}, {stop.name}", stop.town, str(stop.x), str(stop.y), None, stop.area)
        for stop in stops
    ]
    own = [(_OWNER, stop.user_stop_code, _GENERAL, stop.code, "1", "1") for stop in stops]
    planning, public = line.line_planning_number, line.line_public_number
    lines = [(_OWNER, planning, public, line.name, planning[1:], "BUS", None, *line.colors)]
    of_kind = {line.service_level(day): day for day in days}  # weekdays are alike, and so are weekends
    passes = [
        row
        for day in of_kind.values()
        for journey in town.journeys(day)
        if journey.line is line
        for row in _planned(town, journey)
    ]
    return _message(
        "KV7planning",
        now,
        DATAOWNER=owners,
        DESTINATION=[_destination(line, direction) for direction in (1, 2)],
        TIMINGPOINT=points,
        USERTIMINGPOINT=own,
        STOPAREA=[(_GENERAL, STATION_AREA, f"{town.stops[STATION].town}, Station")],
        LINE=lines,
        LOCALSERVICEGROUPPASSTIME=passes,
    )


def _destination(line: Line, direction: int) -> Row:
    name = line.destinations[direction - 1]
    short, via, detail = name.partition(" via ")
    details = (f"via {detail}" if via else None,) * 3
    names = (short[:cut] for cut in _DESTINATION_CUTS)
    code = line.destination_code(direction)
    # fmt: off
    return (
        _OWNER, code, name, *names, *details, None, short[:21], details[0], "1" if via else "0", None, None, None
    )
    # fmt: on


def _planned(town: Town, journey: Journey) -> Iterator[Row]:
    line, direction = journey.line, journey.direction
    for order, call in enumerate(journey.calls, 1):
        kind = _stop_type(journey, order)
        yield (
            _OWNER,
            line.service_level(journey.operating_date),
            line.line_planning_number,
            str(journey.number),
            str(journey.fortify_order),
            town.stops[call.code].user_stop_code,
            str(order),
            line.journey_pattern_code(direction),
            str(direction),
            line.destination_code(direction),
            write_time(call.arrival),
            _departure(kind, call.departure),
            "-",
            "ACCESSIBLE",
            kind,
            _is_timing_stop(kind, call),
            "0",
            "1",
            "1",
            *(None,) * 6,
            "PUJO",
        )


def _stop_type(journey: Journey, order: int) -> str:
    return "FIRST" if order == 1 else "LAST" if order == len(journey.calls) else "INTERMEDIATE"


def _departure(stop_type: str, seconds: int) -> str:
    """Write a departure; where nothing leaves, it is as if it were at midnight (docs/protocols.md 2.4)."""
    return "00:00:00" if stop_type == "LAST" else write_time(seconds)


def _is_timing_stop(stop_type: str, call: Call) -> str:
    return "1" if stop_type == "FIRST" or call.code == STATION else "0"


# KV8


def under_way(town: Town, now: float) -> Iterator[Journey]:
    """Give the journeys that KV8 tells of now (epoch seconds)."""
    today = local_date(now)
    for day in (today + timedelta(days=days) for days in (-1, 0, 1)):
        for journey in town.journeys(day):
            # When clocks change, a journey may take an hour more or less than it should, as they count here.
            first, last = journey.calls[0].departure, journey.calls[-1].arrival
            if moment(day, first) - AHEAD <= now < moment(day, last) + 2 * HOUR:
                end = moment(day, last + town.delay(journey, now))
                if now < end + AFTER:
                    yield journey


def passtimes(town: Town, journey: Journey, now: float) -> list[Row]:
    """Give a journey's rows now (epoch seconds), but for LastUpdateTimeStamp, which is empty."""
    line, direction, calls = journey.line, journey.direction, journey.calls
    delay = town.delay(journey, now)
    values: dict[str, str | None] = {
        "DataOwnerCode": _OWNER,
        "OperationDate": journey.operating_date.isoformat(),
        "LinePlanningNumber": line.line_planning_number,
        "JourneyNumber": str(journey.number),
        "FortifyOrderNumber": str(journey.fortify_order),
        "LocalServiceLevelCode": line.service_level(journey.operating_date),
        "JourneyPatternCode": line.journey_pattern_code(direction),
        "LineDirection": str(direction),
        "LastUpdateTimeStamp": "",
        "DestinationCode": line.destination_code(direction),
        "SideCode": "-",
        "WheelChairAccessible": "ACCESSIBLE",
        "TimingPointDataOwnerCode": _GENERAL,
        "LineVeTagNumber": line.line_planning_number[1:],
        "VejoJourneyNumber": str(journey.number),
        "VehicleJourneyType": "PUJO",
        "JourneyModificationType": "NONE",
        "VejoDepartureTime": write_time(calls[0].departure),
        "VejoArrivalTime": write_time(calls[-1].arrival),
        "ExtraJourney": "0",
        "CancelledJourney": "0",  # even when it is (docs/protocols.md 2.5)
        "ShowCancelledTrip": "TRUE",
        "ShowFlexibleTrip": "1",
        "Monitored": "1",
        "MonitoringError": "0",
        "ExtraCall": "0",
        "CancelledCall": "0",
        "ShowCancelledStop": "1",
    }
    rows = []
    for order, call in enumerate(calls, 1):
        kind, status = _stop_type(journey, order), town.status(journey, call, now)
        arrival, departure = call.arrival + delay, call.departure + delay
        recorded: list[str | None] = [None, None]
        if status in ("ARRIVED", "PASSED"):
            arrival = _passed(town, journey, call.arrival)
            recorded[0] = write_time(arrival)
        if status == "PASSED":
            departure = _passed(town, journey, call.departure)
            recorded[1] = None if kind == "LAST" else write_time(departure)
        stop = town.stops[call.code]
        values |= {
            "UserStopOrderNumber": str(order),
            "UserStopCode": stop.user_stop_code,
            "TimingPointCode": stop.code,
            "JourneyStopType": kind,
            "IsTimingStop": _is_timing_stop(kind, call),
            "ExpectedArrivalTime": write_time(arrival),
            "ExpectedDepartureTime": _departure(kind, departure),
            "TripStopStatus": status,
            "TargetArrivalTime": write_time(call.arrival),
            "TargetDepartureTime": _departure(kind, call.departure),
            "RecordedArrivalTime": recorded[0],
            "RecordedDepartureTime": recorded[1],
        }
        rows.append(tuple(map(values.get, _PASSTIME)))
    return rows


def _passed(town: Town, journey: Journey, seconds: int) -> int:
    """Tell at what time of its operating date a journey did what it should have done at another."""
    # It is late by what it was when it came, which was late by that: this soon comes to rest.
    delay = 0
    for _ in range(10):
        before, delay = delay, town.delay(journey, moment(journey.operating_date, seconds + delay))
        if delay == before:
            break
    return seconds + delay


_MESSAGES = (
    "Door werk aan het Stationsplein vertrekken de bussen van lijn 3 vanaf het Theaterplein.",
    "Lijn 160 rijdt vandaag met kleinere bussen. Het kan drukker zijn dan u gewend bent.",
)
_MESSAGE_PERIOD, _MESSAGE_SHOWN = 10 * MINUTE, 8 * MINUTE


def general_message(now: float) -> Message:
    """Give what is said at the station: every ten minutes a new message, deleted two minutes before the next."""
    number, since = divmod(int(now), _MESSAGE_PERIOD)
    began = local_timestamp(now - since)
    key = (_OWNER, began[:10], str(number % 1000), _GENERAL, STATION)
    if since >= _MESSAGE_SHOWN:
        return _message("KV8generalmessages", now, GENERALMESSAGEDELETE=[key])
    content = _MESSAGES[number % len(_MESSAGES)]
    cause = ("0", "0", None)
    row = (*key, "GENERAL", "REMOVE", began, None, content, *cause, *cause, *cause, *cause, began)
    return _message("KV8generalmessages", now, GENERALMESSAGEUPDATE=[row])


class TownFeed:
    """Says what becomes of the town, second after second.

    now: gives the town's time, in epoch seconds. waits: whether it begins only when somebody has subscribed.
    """

    def __init__(self, town: Town, now: Callable[[], float], waits: bool = False) -> None:
        self._town = town
        self._now = now
        self.waits = waits
        self._timetable: list[Message] = []
        self._of: date | None = None  # whose timetable that is
        self._told: dict[tuple[date, str, int, int], list[tuple[Row, str]]] = {}
        self._said = b""  # the general message or its deletion, as it was last told

    def __str__(self) -> str:
        return "the town"

    def __iter__(self) -> Iterator[tuple[list[Message], float]]:
        """Give what is to be said, and how many seconds there are until the next."""
        for second in count():
            yield list(self.say(second)), 1.0

    def say(self, second: int) -> Iterator[Message]:
        """Give what is to be said after so many seconds."""
        now = self._now()
        today = local_date(now)
        if today != self._of:
            self._of, self._timetable = today, timetable(self._town, now)
            yield from self._timetable
        elif second % TIMETABLE_CYCLE == 0:
            yield from self._timetable
        rows = list(self._rows(second, now))
        for at in range(0, len(rows), ROWS):
            yield _message("KV8passtimes", now, DATEDPASSTIME=rows[at : at + ROWS])
        general = general_message(now)
        _, _, said = general.ctx.partition(b"\n")  # but for the moment of sending
        if said != self._said or second % CYCLE == 0:
            self._said = said
            yield general

    def _rows(self, second: int, now: float) -> Iterator[Row]:
        """Give the rows that have changed, and those whose turn it is in the cycle."""
        before, self._told = self._told, {}
        stamp = local_timestamp(now)
        for journey in under_way(self._town, now):
            line = journey.line.line_planning_number
            key = (journey.operating_date, line, journey.number, journey.fortify_order)
            rows = passtimes(self._town, journey, now)
            old = before.get(key, [((), "")] * len(rows))
            told = [(row, when if row == was else stamp) for row, (was, when) in zip(rows, old, strict=True)]
            self._told[key] = told
            is_turn = zlib.crc32(repr(key).encode()) % CYCLE == second % CYCLE
            for (row, when), (was, _) in zip(told, old, strict=True):
                if is_turn or row != was:
                    yield (*row[:_STAMP], when, *row[_STAMP + 1 :])
