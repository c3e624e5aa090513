"""The rows of the town in the tables of KV7 and KV8 (docs/protocols.md, sections 2.3 to 2.5). Pure."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from govi_server.departures.times import HOUR, MINUTE, local_date, local_timestamp, moment, write_time
from govi_server.simulator.town import STATION, STATION_AREA, Call, Journey, Line, Town

BEFORE_START = HOUR
"""Seconds before its start from which a journey is in KV8."""
AFTER_END = 2 * MINUTE
"""Seconds after its end until which a journey is in KV8, so that its last stop is reported as passed."""

OPERATOR = "LINDEBUS"
_STOP_OWNER = "ALGEMEEN"  # the DataOwnerCode of the stops
_DESTINATION_LENGTHS = (30, 24, 19, 16)

Row = tuple[str | None, ...]

# The columns of each table in 2021.
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
UPDATED_COLUMN = COLUMNS["DATEDPASSTIME"].index("LastUpdateTimeStamp")


# KV7


def calendar_rows(town: Town, days: Sequence[date]) -> dict[str, list[Row]]:
    """Return the rows of a calendar message, by table: the service levels of all lines on these days."""
    levels = dict.fromkeys(line.service_level(day) for line in town.lines for day in days)
    return {
        "LOCALSERVICEGROUP": [(OPERATOR, level) for level in levels],
        "LOCALSERVICEGROUPVALIDITY": [
            (OPERATOR, line.service_level(day), day.isoformat()) for line in town.lines for day in days
        ],
    }


def planning_rows(town: Town, line: Line, days: Sequence[date]) -> dict[str, list[Row]]:
    """Return the rows of a planning message, by table: a line, its stops and destinations, and its passtimes."""
    stops = [town.stops[code] for code in line.route]
    planning, public = line.line_planning_number, line.line_public_number
    day_of_level = {
        line.service_level(day): day for day in days
    }  # all days of a service level have the same journeys
    return {
        "DATAOWNER": [(_STOP_OWNER, "ALG", _STOP_OWNER, "10"), (OPERATOR, "PUCO", "Lindebus", "999")],
        "DESTINATION": [_destination_row(line, direction) for direction in (1, 2)],
        "TIMINGPOINT": [
            (
                _STOP_OWNER,
                stop.code,
                f"{stop.town}, {stop.name}",
                stop.town,
                str(stop.x),
                str(stop.y),
                None,
                stop.area,
            )
            for stop in stops
        ],
        "USERTIMINGPOINT": [(OPERATOR, stop.user_stop_code, _STOP_OWNER, stop.code, "1", "1") for stop in stops],
        "STOPAREA": [(_STOP_OWNER, STATION_AREA, f"{town.stops[STATION].town}, Station")],
        "LINE": [(OPERATOR, planning, public, line.name, planning[1:], "BUS", None, *line.colors)],
        "LOCALSERVICEGROUPPASSTIME": [
            row
            for day in day_of_level.values()
            for journey in town.journeys(day)
            if journey.line is line
            for row in _planned_passtimes(town, journey)
        ],
    }


def _destination_row(line: Line, direction: int) -> Row:
    name = line.destinations[direction - 1]
    short, via, detail = name.partition(" via ")
    details = (f"via {detail}" if via else None,) * 3
    names = (short[:length] for length in _DESTINATION_LENGTHS)
    code = line.destination_code(direction)
    # fmt: off
    return (
        OPERATOR, code, name, *names, *details, None, short[:21], details[0], "1" if via else "0", None, None, None
    )
    # fmt: on


def _planned_passtimes(town: Town, journey: Journey) -> Iterator[Row]:
    line, direction = journey.line, journey.direction
    for order, call in enumerate(journey.calls, 1):
        stop_type = _stop_type(journey, order)
        yield (
            OPERATOR,
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
            _departure_time(stop_type, call.departure),
            "-",
            "ACCESSIBLE",
            stop_type,
            _is_timing_stop(stop_type, call),
            "0",
            "1",
            "1",
            *(None,) * 6,
            "PUJO",
        )


def _stop_type(journey: Journey, order: int) -> str:
    return "FIRST" if order == 1 else "LAST" if order == len(journey.calls) else "INTERMEDIATE"


def _departure_time(stop_type: str, seconds: int) -> str:
    """Format a departure time; at a last stop it is midnight (docs/protocols.md, section 2.4)."""
    return "00:00:00" if stop_type == "LAST" else write_time(seconds)


def _is_timing_stop(stop_type: str, call: Call) -> str:
    return "1" if stop_type == "FIRST" or call.code == STATION else "0"


# KV8


def journeys_in_kv8(town: Town, now: float) -> Iterator[Journey]:
    """Return the journeys in KV8 now (epoch seconds): those under way, about to start, or just ended."""
    today = local_date(now)
    for day in (today + timedelta(days=days) for days in (-1, 0, 1)):
        time = now - moment(day, 0)  # on that date, within an hour if the clocks change
        for journey in town.journeys(day):
            start, end = journey.calls[0].departure, journey.calls[-1].arrival
            if not start - BEFORE_START - HOUR <= time < end + 3 * HOUR:
                continue  # as nearly all are, which is found out without their moments
            # When the clocks change, a journey may take an hour more or less than its times suggest.
            if moment(day, start) - BEFORE_START <= now < moment(day, end) + 2 * HOUR:
                expected_end = moment(day, end + town.delay(journey, now))
                if now < expected_end + AFTER_END:
                    yield journey


def passtime_rows(town: Town, journey: Journey, now: float) -> list[Row]:
    """Return a journey's DATEDPASSTIME rows now (epoch seconds), with an empty LastUpdateTimeStamp."""
    delay = town.delay(journey, now)
    values = _journey_values(journey)
    rows = []
    for order, call in enumerate(journey.calls, 1):
        stop_type, status = _stop_type(journey, order), town.status(journey, call, now)
        arrival, departure = call.arrival + delay, call.departure + delay
        recorded_arrival = recorded_departure = None
        if status in ("ARRIVED", "PASSED"):
            arrival = _actual_time(town, journey, call.arrival)
            recorded_arrival = write_time(arrival)
        if status == "PASSED":
            departure = _actual_time(town, journey, call.departure)
            recorded_departure = None if stop_type == "LAST" else write_time(departure)
        stop = town.stops[call.code]
        values |= {
            "UserStopOrderNumber": str(order),
            "UserStopCode": stop.user_stop_code,
            "TimingPointCode": stop.code,
            "JourneyStopType": stop_type,
            "IsTimingStop": _is_timing_stop(stop_type, call),
            "ExpectedArrivalTime": write_time(arrival),
            "ExpectedDepartureTime": _departure_time(stop_type, departure),
            "TripStopStatus": status,
            "TargetArrivalTime": write_time(call.arrival),
            "TargetDepartureTime": _departure_time(stop_type, call.departure),
            "RecordedArrivalTime": recorded_arrival,
            "RecordedDepartureTime": recorded_departure,
        }
        rows.append(tuple(map(values.get, COLUMNS["DATEDPASSTIME"])))
    return rows


def _journey_values(journey: Journey) -> dict[str, str | None]:
    """Return the columns of DATEDPASSTIME that are the same at all stops of a journey."""
    line, direction, calls = journey.line, journey.direction, journey.calls
    return {
        "DataOwnerCode": OPERATOR,
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
        "TimingPointDataOwnerCode": _STOP_OWNER,
        "LineVeTagNumber": line.line_planning_number[1:],
        "VejoJourneyNumber": str(journey.number),
        "VehicleJourneyType": "PUJO",
        "JourneyModificationType": "NONE",
        "VejoDepartureTime": write_time(calls[0].departure),
        "VejoArrivalTime": write_time(calls[-1].arrival),
        "ExtraJourney": "0",
        "CancelledJourney": "0",  # also of cancelled journeys (docs/protocols.md, section 2.5)
        "ShowCancelledTrip": "TRUE",
        "ShowFlexibleTrip": "1",
        "Monitored": "1",
        "MonitoringError": "0",
        "ExtraCall": "0",
        "CancelledCall": "0",
        "ShowCancelledStop": "1",
    }


def _actual_time(town: Town, journey: Journey, target: int) -> int:
    """Return the actual time of an arrival or departure in the past; times are seconds of the operating date."""
    # The delay depends on the actual time, which depends on the delay: a few iterations find both.
    delay = 0
    for _ in range(10):
        previous, delay = delay, town.delay(journey, moment(journey.operating_date, target + delay))
        if delay == previous:
            break
    return target + delay


_GENERAL_MESSAGES = (
    "Door werk aan het Stationsplein vertrekken de bussen van lijn 3 vanaf het Theaterplein.",
    "Lijn 160 rijdt vandaag met kleinere bussen. Het kan drukker zijn dan u gewend bent.",
)
_GENERAL_MESSAGE_PERIOD = 10 * MINUTE
_GENERAL_MESSAGE_DURATION = 8 * MINUTE


def general_message_rows(now: float) -> dict[str, list[Row]]:
    """Return the rows of a general message at the station, by table.

    A new message begins every ten minutes, and is deleted two minutes before the next one.
    """
    number, age = divmod(int(now), _GENERAL_MESSAGE_PERIOD)
    start = local_timestamp(now - age)
    key = (OPERATOR, start[:10], str(number % 1000), _STOP_OWNER, STATION)
    if age >= _GENERAL_MESSAGE_DURATION:
        return {"GENERALMESSAGEDELETE": [key]}
    content = _GENERAL_MESSAGES[number % len(_GENERAL_MESSAGES)]
    cause = ("0", "0", None)
    row = (*key, "GENERAL", "REMOVE", start, None, content, *cause, *cause, *cause, *cause, start)
    return {"GENERALMESSAGEUPDATE": [row]}
