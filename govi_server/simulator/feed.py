"""The simulated KV78turbo feed: the town's timetable and what becomes of it, over ZeroMQ (DOMAIN.md 2).

First what is said, which needs no socket and no reactor: messages of KV7 and KV8, faults, and recordings that are
said again. Last the service that says it. However fast the town's time goes, cycles and pauses are of real seconds,
as who reads the feed counts them.
"""

import gzip
import re
import zlib
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from random import Random
from typing import NamedTuple, cast

import zmq
from msgspec import Struct
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from govi_server.departures.times import (
    AMSTERDAM,
    HOUR,
    MINUTE,
    local_date,
    local_timestamp,
    moment,
    read_date,
    read_timestamp,
    write_time,
)
from govi_server.kv78turbo import ctx
from govi_server.recorder import read_record
from govi_server.services import CannotStart
from govi_server.simulator.town import STATION, STATION_AREA, Call, Journey, Line, Town

CYCLE = 25
"""Seconds in which all that is under way is said again, as the feed does (DOMAIN.md 2.2)."""
TIMETABLE_CYCLE = 60
"""Seconds after which KV7 is said again. The feed does it at night; here somebody waits for it."""
HEARTBEAT = 10
"""Seconds between two envelopes alone."""
AHEAD = HOUR
"""How long before its start a journey is in KV8."""
AFTER = 2 * MINUTE
"""How long after its end it still is, so that its last stop is seen to be passed."""
ROWS = 50
"""Rows of a KV8 message."""
SILENCE_EVERY = 3 * MINUTE
"""How long the feed speaks before it is silent for a time, when it is to be."""

_OWNER = "LINDEBUS"
_GENERAL = "ALGEMEEN"  # who owns the stops
_DESTINATION_CUTS = (30, 24, 19, 16)

# The tables with their columns, as they were in 2021 (DOMAIN.md 2.3 to 2.5).
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
_LEVEL = {"DataOwnerCode", "LocalServiceLevelCode"}

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
    lines = [(_OWNER, planning, public, line.name, planning[1:], "BUS", None, None, None)]
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
    """Write a departure; where nothing leaves, it is as if it were at midnight (DOMAIN.md 2.4)."""
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
        "CancelledJourney": "0",  # even when it is (DOMAIN.md 2.5)
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
    """Says what becomes of the town, second after second. now: gives the town's time, in epoch seconds."""

    waits = False
    """Whether it begins only when somebody has subscribed."""

    def __init__(self, town: Town, now: Callable[[], float]) -> None:
        self._town = town
        self._now = now
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


# Faults


class Faults(Struct, frozen=True):
    """What goes wrong on the way, as fractions of the messages, from 0 to 1."""

    garbage: float = 0.0
    """Messages in whose place nonsense comes."""
    duplicate: float = 0.0
    """Messages that come twice."""
    out_of_order: float = 0.0
    """Messages that come after some later ones."""


class Way:
    """The way of messages to the socket, on which some are spoilt: the same ones for the same random numbers."""

    def __init__(self, faults: Faults, random: Random) -> None:
        self._faults = faults
        self._random = random
        self._held: list[tuple[int, list[bytes]]] = []  # after how many messages, and what

    def frames(self, message: Message) -> list[list[bytes]]:
        """Give the ZeroMQ messages to send for a message: itself, more, or none for now."""
        draws = [self._random.random() for _ in range(3)]
        if draws[0] < self._faults.garbage and message.payload is None:
            spoil = self._random.choice(_SPOILS)
            frames = _frames(message.envelope, spoil(message.ctx, self._random))
        else:
            frames = _frames(message.envelope, message.payload or _compress(message.ctx))
        sent = [frames] * (2 if draws[1] < self._faults.duplicate else 1)
        held = [(after - 1, frames) for after, frames in self._held]
        if draws[2] < self._faults.out_of_order:
            held.append((self._random.randint(1, 5), sent.pop()))
        self._held = [(after, frames) for after, frames in held if after > 0]
        return sent + [frames for after, frames in held if after <= 0]

    def rest(self) -> list[list[bytes]]:
        """Give what is still kept back."""
        held, self._held = self._held, []
        return [frames for _, frames in held]


def _frames(envelope: str, payload: bytes) -> list[bytes]:
    """Make a message of the envelope and its payload, a large one in two frames."""
    half = len(payload) // 2
    return [envelope.encode(), payload] if half < 2048 else [envelope.encode(), payload[:half], payload[half:]]


def _compress(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


_RECORD = re.compile(rb"^(?!\\[GTL])[^\r\n]+", re.MULTILINE)


def _noise(data: bytes, random: Random) -> bytes:
    return _compress(data)[:10] + random.randbytes(200)


def _truncated(data: bytes, random: Random) -> bytes:
    payload = _compress(data)
    return payload[: random.randrange(len(payload))] or payload[:1]


def _badly_encoded(data: bytes, random: Random) -> bytes:
    return _compress(_RECORD.sub(rb"\g<0>" + b"\xeb", data))  # of another encoding


def _of_few_columns(data: bytes, random: Random) -> bytes:
    return _compress(_RECORD.sub(lambda record: record[0].rpartition(b"|")[0], data))


def _out_of_time(data: bytes, random: Random) -> bytes:
    return _compress(re.sub(rb"(?<=\|)\d\d:\d\d:\d\d(?=\|)", b"99:99:99", data))


_SPOILS = (_noise, _truncated, _badly_encoded, _of_few_columns, _out_of_time)


# Recordings

_DATED = re.compile(rb"(?<=\|)\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d[0-9.]*(?:Z|[+-]\d\d:?\d\d)?)?(?=[|\r\n]|\Z)")


def shift(data: bytes, days: int) -> bytes:
    """Put all dates of a message so many days later, and its moments, with the offset of their new date.

    A field that is no date, or one beyond all calendars, stays as it is; so does the rest, unread.
    """
    return _DATED.sub(lambda field: _shifted(field[0], days), data) if days else data


@lru_cache(maxsize=4096)
def _shifted(field: bytes, days: int) -> bytes:
    text, later = field.decode(), timedelta(days=days)
    try:
        if "T" not in text:
            return (date.fromisoformat(text) + later).isoformat().encode()
        read = datetime.fromisoformat(text)
        wall = (read.astimezone(AMSTERDAM) if read.tzinfo else read).replace(tzinfo=None) + later
        return (wall.replace(tzinfo=AMSTERDAM) if read.tzinfo else wall).isoformat().encode()
    except (ValueError, OverflowError):
        return field


class Recordings:
    """Says again what is in the files of a directory, in the order of their names, once and with its dates shifted.

    Read are .jsonl and .jsonl.gz of govi-record, at the pace at which they were recorded, and .ctx and .ctx.gz, which
    are a message each, one a second. speed: how many times faster than that.

    One shift, of whole days, is for all. If there is KV8, the day on which the earliest of it was sent becomes today.
    If there is only KV7, the day on which most is planned does, as the calendar is meant for weeks, and somebody
    wants to see buses today. Without a calendar it is the day on which the first message was sent.

    today: a date in the Netherlands. Raises CannotStart when there is nothing to say.
    """

    log = Logger()
    waits = True  # what is said only once should be heard

    def __init__(self, directory: Path, today: date, speed: float) -> None:
        self._directory = directory
        self._speed = speed
        try:
            names = sorted(path for path in directory.iterdir() if path.name.endswith(_ENDS))
        except OSError as error:
            raise CannotStart(f"cannot read {directory}: {error.strerror}") from None
        survey = _Survey()
        self._files = [path for path in names if self._surveyed(path, survey)]
        if not self._files:
            raise CannotStart(f"there is no recording in {directory}: no {', '.join(_ENDS)} that can be read")
        self._messages = survey.messages
        self.day = survey.day()
        self.days = 0 if self.day is None else (today - self.day).days

    def __str__(self) -> str:
        told = f"{self._messages} messages in {len(self._files)} files of {self._directory}"
        return told if self.day is None else f"{told}, with {self.day} as today (dates {self.days:+} days)"

    def __iter__(self) -> Iterator[tuple[list[Message], float]]:
        """Give what is to be said, and how many seconds there are until the next."""
        held: list[Message] = []
        for pause, message in chain.from_iterable(map(self._paced, self._files)):
            if held:
                yield held, pause / self._speed
            held = [message._replace(ctx=shift(message.ctx, self.days))]
        yield held, 0.0

    def _surveyed(self, path: Path, survey: "_Survey") -> bool:
        """Look a file through; tell whether there is anything in it."""
        before = survey.messages
        for _, message in _recorded(path, lambda why: self.log.warn("{path}: {why}", path=path, why=why)):
            survey.see(message)
        return survey.messages > before

    def _paced(self, path: Path) -> Iterator[tuple[float, Message]]:
        """Give the messages of a file with the seconds from the one before."""
        before: float | None = None
        for time, message in _recorded(path, lambda why: None):
            yield 1.0 if time is None or before is None else max(0.0, time - before), message
            before = time


class _Survey:
    """What the messages of recordings say of the days that they are of."""

    def __init__(self) -> None:
        self.messages = 0
        self._first: date | None = None
        self._kv8: set[date] = set()
        self._valid: dict[tuple[bytes, ...], set[date]] = {}
        self._passes: Counter[tuple[bytes, ...]] = Counter()

    def see(self, message: Message) -> None:
        """Take a message into account."""
        self.messages += 1
        label, _, stamp = _group(message.ctx)
        sent = read_timestamp(stamp)
        if sent is not None:
            self._first = self._first or local_date(sent)
            if label.startswith("KV8"):
                self._kv8.add(local_date(sent))
        if label.startswith("KV7") and not self._kv8:  # which goes before
            for records in ctx.read(ctx.pieces(message.ctx), lambda why: None):
                self._see_timetable(records)

    def _see_timetable(self, records: ctx.Records) -> None:
        if not _LEVEL.issubset(records.labels):
            return
        owner, level = map(records.labels.index, ("DataOwnerCode", "LocalServiceLevelCode"))
        rows = (line.split(b"|") for line in records.lines)
        if records.table == "LOCALSERVICEGROUPPASSTIME":
            self._passes.update((row[owner], row[level]) for row in rows)
        elif records.table == "LOCALSERVICEGROUPVALIDITY" and "OperationDate" in records.labels:
            at = records.labels.index("OperationDate")
            for row in rows:
                day = read_date(row[at].decode())
                if day is not None:
                    self._valid.setdefault((row[owner], row[level]), set()).add(day)

    def day(self) -> date | None:
        """Tell which day is to be today."""
        if self._kv8:
            return min(self._kv8)
        planned: Counter[date] = Counter()
        for group, days in self._valid.items():
            planned.update(dict.fromkeys(days, self._passes[group]))
        return max(sorted(planned), key=planned.__getitem__, default=self._first)


_ENDS = (".ctx", ".ctx.gz", ".jsonl", ".jsonl.gz")
_LARGEST = 256 << 20
"""Bytes of a line or file of CTX that are read at once."""
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error)


def _recorded(path: Path, bad: Callable[[str], object]) -> Iterator[tuple[float | None, Message]]:
    """Read the messages of a file with their times (epoch seconds), if they have any.

    bad: told of what is passed over.
    """
    number = 0
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            if ".jsonl" not in path.suffixes:
                yield None, _captured(file.read(_LARGEST))
                return
            while line := file.readline(_LARGEST):
                number += 1
                try:
                    yield _recorded_line(line)
                except ValueError as error:
                    bad(f"line {number} is passed over: {error}")
    except _UNREADABLE as error:
        bad(f"{'ends' if number else 'is passed over'}: {error or 'it is cut off'}")


def _recorded_line(line: bytes) -> tuple[float, Message]:
    record = read_record(line)
    time = datetime.fromisoformat(record.time).timestamp()
    if record.ctx is not None:
        return time, Message(record.envelope, record.ctx.encode())
    return time, Message(record.envelope, b"", b64decode(record.base64 or "", validate=True))


def _captured(data: bytes) -> Message:
    """Make a message of CTX whose envelope is not known. Raises ValueError for what is none of KV78turbo."""
    label, subscription, _ = _group(data)
    what = re.fullmatch(r"(KV7|KV8)turbo_(\w+)", label)
    if what is None:
        raise ValueError("it is no CTX of KV78turbo")
    return Message(f"/GOVI/{what[1]}{what[2]}/{subscription}", data)


def _group(data: bytes) -> ctx.Group:
    """Read what a message says of itself in its first line."""
    line, _, _ = data.partition(b"\n")
    if not line.startswith(b"\\G"):
        return ctx.Group()
    fields = line[2:].decode(errors="replace").rstrip("\r").split("|") + [""] * 8
    return ctx.Group(fields[0], fields[2], fields[7])


# The socket

_ADDRESS = re.compile(r"ipc://.+|tcp://.+:(\d{1,5})", re.ASCII)


class Publisher:
    """A ZeroMQ socket that says things to whoever subscribes.

    address: such as tcp://127.0.0.1:7817. Raises CannotStart for what is none.
    """

    def __init__(self, address: str) -> None:
        match = _ADDRESS.fullmatch(address)
        if match is None or not 0 < int(match[1] or 1) < 65536:  # libzmq takes any number
            raise CannotStart(f"{address!r} is no address of a feed: it is of the form tcp://127.0.0.1:7817")
        self._address = address
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def open(self) -> str:
        """Listen, and give the address. Raises CannotStart."""
        self._context = zmq.Context()  # not sooner: its threads would not survive twistd's fork
        socket = self._context.socket(zmq.XPUB)  # a PUB that tells who subscribes
        socket.linger = 0
        socket.ipv6 = "[" in self._address
        try:
            socket.bind(self._address)
        except zmq.ZMQError as error:
            socket.close()
            self._context.term()
            reason = zmq.strerror(error.errno or 0)
            raise CannotStart(f"cannot listen on {self._address} for the feed: {reason}") from None
        self._socket = socket
        return cast(bytes, socket.last_endpoint).decode().rstrip("\0")

    def subscribed(self) -> bool:
        """Tell whether anybody has subscribed since this was last asked."""
        assert self._socket is not None
        told = []
        while self._socket.poll(0):
            told.append(self._socket.recv(zmq.NOBLOCK))
        return any(message.startswith(b"\1") for message in told)  # the others have left

    def send(self, frames: Sequence[bytes]) -> None:
        """Say something; it is lost for whoever is too slow."""
        assert self._socket is not None
        self._socket.send_multipart(frames, zmq.NOBLOCK)

    def close(self) -> None:
        """Say no more."""
        if self._socket is not None and self._context is not None:
            self._socket.close()
            self._context.term()
            self._socket = self._context = None


class Feed(Service):
    """Says what its source has to say, and heartbeats. silence: seconds, every few minutes.

    way: of its messages to the publisher.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        publisher: Publisher,
        source: TownFeed | Recordings,
        way: Way,
        silence: float = 0.0,
    ) -> None:
        self._clock = clock
        self._publisher = publisher
        self._source = source
        self._way = way
        self._silence = silence
        self._is_silent = False
        self._saying: Iterator[tuple[list[Message], float]] = iter(())
        self._next: IDelayedCall | None = None
        self._turn: IDelayedCall | None = None  # from speech to silence, or back
        self._beating = LoopingCall(self._beat)
        self._beating.clock = clock

    def privilegedStartService(self) -> None:
        """Listen. Raises CannotStart, for example when the address is taken."""
        super().privilegedStartService()
        address = self._publisher.open()
        self.log.info("Listening on {address} for the feed of {source}", address=address, source=self._source)

    def startService(self) -> None:
        """Begin to speak, at once or when somebody listens."""
        super().startService()
        self._beating.start(HEARTBEAT)
        if self._silence:
            self._turn = self._clock.callLater(SILENCE_EVERY, self._be_silent)
        self._saying = iter(self._source)
        self._next = self._clock.callLater(0, self._wait if self._source.waits else self._say)

    def stopService(self) -> None:
        """Say no more."""
        super().stopService()
        if self._beating.running:
            self._beating.stop()
        for call in (self._next, self._turn):
            if call is not None and call.active():
                call.cancel()
        self._publisher.close()

    def _wait(self) -> None:
        """Wait for a subscriber, and a moment for the rest of its subscriptions: what is said before is lost."""
        is_there = self._publisher.subscribed()
        self._next = self._clock.callLater(0.1, self._say if is_there else self._wait)

    def _say(self) -> None:
        self._publisher.subscribed()  # or they would pile up
        messages, pause = next(self._saying, ([], None))
        for message in messages:
            for frames in self._way.frames(message):
                self._send(frames)
        if pause is not None:
            self._next = self._clock.callLater(pause, self._say)
            return
        for frames in self._way.rest():
            self._send(frames)
        self.log.info("All of {source} has been sent", source=self._source)

    def _beat(self) -> None:
        """Give a sign of life to whoever has subscribed to half of the feed, too."""
        self._send([b"/GOVI/KV7heartbeat"])
        self._send([b"/GOVI/KV8heartbeat"])

    def _send(self, frames: Sequence[bytes]) -> None:
        if not self._is_silent:
            self._publisher.send(frames)

    def _be_silent(self) -> None:
        self.log.info("The feed is silent for {seconds:g} s", seconds=self._silence)
        self._is_silent = True
        self._turn = self._clock.callLater(self._silence, self._be_heard)

    def _be_heard(self) -> None:
        self.log.info("The feed is heard again")
        self._is_silent = False
        self._turn = self._clock.callLater(SILENCE_EVERY, self._be_silent)
