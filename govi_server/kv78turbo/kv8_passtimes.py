"""KV8: what runs now. Passing times and messages as the feed tells them, kept by stop (docs/protocols.md 2.5 to 2.8).

Memory is what counts here: a country has millions of passes. One is two byte strings, its key and its values, taken
from its record unread but for what decides whether it is kept; pass_of() reads them when somebody asks for the stop.
"""

import math
import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from govi_server.departures.times import (
    MINUTE,
    local_date,
    local_timestamp,
    moment,
    moments,
    read_date,
    read_time,
    read_timestamp,
)
from govi_server.kv78turbo.ctx import NULL, Records, text
from govi_server.kv78turbo.passtime import DROPPED_AFTER, GeneralMessage, Passtime
from govi_server.settings import PasstimeSettings

# What tells a pass from all others, its journey's key first, and the operating date, so that two days never collide.
_KEY = (
    "DataOwnerCode",
    "LocalServiceLevelCode",
    "LinePlanningNumber",
    "JourneyNumber",
    "FortifyOrderNumber",
    "OperationDate",
    "UserStopOrderNumber",
    "UserStopCode",
)
_JOURNEY = 5
"""Columns of the key that tell the journey."""

# What is kept of a pass. The first seven are looked at when it comes, in this order.
_VALUES = (
    "LastUpdateTimeStamp",
    "ExpectedArrivalTime",
    "ExpectedDepartureTime",
    "TargetArrivalTime",
    "TargetDepartureTime",
    "TripStopStatus",
    "WheelChairAccessible",
    "JourneyStopType",
    "DestinationCode",
    "LineDirection",
    "JourneyPatternCode",
    "IsTimingStop",
    "SideCode",
    "NumberOfCoaches",
    "OperatorCode",
    "TimingPointDataOwnerCode",
    "MessageContent",
    "MessageType",
    "ReasonType",
    "SubReasonType",
    "ReasonContent",
    "AdviceType",
    "SubAdviceType",
    "AdviceContent",
    "LinePublicNumber",
    "DestinationName",
)
_STATUS, _WHEELCHAIR = _VALUES.index("TripStopStatus"), _VALUES.index("WheelChairAccessible")
_DIRECTION = _VALUES.index("LineDirection")
# Without these a record says nothing that anybody could show; the others are null where a publisher leaves them out.
_NEEDED = {*_KEY, "TimingPointCode", "JourneyStopType", "TripStopStatus", "TargetArrivalTime", "TargetDepartureTime",
           "ExpectedArrivalTime", "ExpectedDepartureTime"}  # fmt: skip

_TIME = rb"(?:(?:[0-3][0-9]|4[0-7]):[0-5][0-9]:[0-5][0-9]|\\0|)\|"
_DAY = rb"20[0-9]{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_TIMESTAMP = rb"(?:\\0||%bT(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][0-9.:+\-Z]{0,13})\|" % _DAY
_SOUND = re.compile(_TIMESTAMP + _TIME * 4)
_TIMELESS = re.compile(rb"[^|]*\|(?:(?:\\0)?\|){4}")
_CODE = re.compile(rb"[0-9]{1,10}")
# All there, with nothing that is escaped, and a number for the order of the stop, for that is counted with.
_SOUND_KEY = re.compile(rb"[^|\\]+\|[^|\\]+\|[^|\\]+\|[^|\\]+\|[^|\\]+\|[^|\\]+\|[0-9]{1,5}\|[^|\\]+\Z")
_UNSAID = frozenset({NULL, b""})
_UNKNOWN = _UNSAID | {b"UNKNOWN"}

_MOMENT = len("2021-06-06T18:26:05")

MOST_AHEAD = 900.0
"""Seconds by which a publisher's clock may be ahead of ours."""

_LATE_GONE = 30 * MINUTE
"""Seconds before it was last spoken of that a pass may have been: in the hour that comes twice, more are the next."""

DAYS_BACK, DAYS_AHEAD = 2, 7
"""Operating dates that are taken, seen from today."""

OWNERS = 1000
"""Data owners of whom it is remembered when they were heard: there are some thirty."""


class Stop:
    """What is known of one stop now."""

    __slots__ = ("messages", "passes", "version")

    def __init__(self) -> None:
        self.passes: dict[bytes, bytes] = {}
        self.messages: dict[str, GeneralMessage] | None = None
        self.version = 0
        """Another number after each change."""


class _Columns(NamedTuple):
    """Where the columns of a table stand in its records."""

    key: Callable[[list[bytes]], tuple[bytes, ...]]
    values: Callable[[list[bytes]], tuple[bytes, ...]]
    code: int
    stop_type: int
    date: int
    owner: int
    most: int
    """Separators at which a record need be cut."""
    lacks: bool
    """Whether there are columns that are null in every record: they are read from a field put behind the last."""


class Passtimes:
    """Keeps what KV8 says. now: gives the moment in epoch seconds; refused: is told why a record is not taken."""

    def __init__(
        self,
        now: Callable[[], float],
        refused: Callable[[str], object],
        limits: PasstimeSettings = PasstimeSettings(),
    ) -> None:
        self._now = now
        self._refused = refused
        self._limits = limits
        self._version = 0
        self._columns: dict[tuple[str, ...], _Columns | None] = {}
        self._days: frozenset[bytes] = frozenset()
        self._line_of: dict[bytes, tuple[str, str, str]] = {}
        self._today: date | None = None
        self.stops: dict[str, Stop] = {}
        """By TimingPointCode. Once it was spoken of a stop stays, without passes in the night."""
        self.journeys: dict[bytes, list[str]] = {}
        """The TimingPointCodes of each journey that has passes, by the key's first part."""
        self.lines: dict[tuple[str, str, str], dict[bytes, None]] = {}
        """The journeys of each DataOwnerCode, LinePlanningNumber and LineDirection."""
        self.updated: dict[str, str] = {}
        """The last LastUpdateTimeStamp of each DataOwnerCode."""
        self.heard: dict[str, float] = {}
        """When each DataOwnerCode was last heard of, in epoch seconds."""
        self.n_passes = 0
        self.n_messages = 0

    def ingest(self, records: Records) -> int:
        """Take some records of a table, tell how many: what is not of KV8 is passed over."""
        if records.table == "DATEDPASSTIME":
            self._take_passes(records)
        elif records.table == "GENERALMESSAGEUPDATE":
            self._take_messages(records, self._update_message)
        elif records.table == "GENERALMESSAGEDELETE":
            self._take_messages(records, self._delete_message)
        else:
            return 0
        return len(records.lines)

    # Passes.

    def _take_passes(self, records: Records) -> None:
        columns = self._columns_of(records.labels)
        if columns is None:
            for _ in records.lines:
                self._refused("key column")
            return
        now = self._now()
        self._note_day(now)
        key_of, values_of, at_code, at_type, at_date, at_owner, most, lacks = columns
        join, sound_key, sound, days = b"|".join, _SOUND_KEY.match, _SOUND.match, self._days
        # A row from further ahead would outlast all that come after it.
        latest = local_timestamp(now + MOST_AHEAD)[:_MOMENT].encode()
        spoke: dict[bytes, bytes] = {}  # the last values of each data owner
        for line in records.lines:
            fields = line.split(b"|", most)
            if fields[at_type] == b"INFOPOINT":
                continue  # nobody gets on or off
            if lacks:
                fields.append(NULL)
            key, values = join(key_of(fields)), join(values_of(fields))
            if fields[at_date] not in days:
                self._refused("date")
            elif not sound_key(key):
                self._refused("key")
            elif not sound(values) or _TIMELESS.match(values):
                self._refused("time")
            elif latest < values[:_MOMENT] < b"3" and _is_ahead(values, now):
                self._refused("future")
            else:
                self._put(key, values, fields[at_code])
                spoke[fields[at_owner]] = values
        for owner, values in spoke.items():
            self._hear(owner.decode(), now)
            stamp = values.partition(b"|")[0]
            if stamp not in _UNSAID and owner.decode() in self.heard:
                self.updated[owner.decode()] = stamp.decode()

    def _hear(self, owner: str, now: float) -> None:
        if owner in self.heard or len(self.heard) < OWNERS:
            self.heard[owner] = now
        else:
            self._refused("too many owners")

    def _put(self, key: bytes, values: bytes, raw_code: bytes) -> None:
        """Keep a pass, unless something newer or surer is known of it."""
        stop = self._stop(raw_code)
        if stop is None:
            return
        old = stop.passes.get(key)
        if old is None:
            if self.n_passes >= self._limits.passes:
                self._refused("too many passes")
                return
            self.n_passes += 1
            journey = _journey(key)
            codes = self.journeys.get(journey)
            for code in codes or ():  # it may have moved here from another TimingPoint
                if key in self.stops[code].passes:
                    self._remove(code, key)
                    break
            codes = self.journeys.get(journey)
            if codes is None:
                self.journeys[journey] = [raw_code.decode()]
                line = self._line_of[journey] = _line(key, values)
                self.lines.setdefault(line, {})[journey] = None
            else:
                codes.append(raw_code.decode())
        else:
            if old == values:
                return
            order = _compare(old, values)
            if order > 0:
                self._refused("older")
                return
            kept, new = old.split(b"|", _WHEELCHAIR + 1), values.split(b"|", _WHEELCHAIR + 1)
            if order == 0 and kept[_STATUS] == b"CANCEL" and new[_STATUS] != b"CANCEL":
                return  # only a newer word takes a cancellation back
            if new[0] in _UNSAID:
                new[0] = kept[0]  # or what is older than the one before could follow
                values = b"|".join(new)
            if new[_WHEELCHAIR] in _UNKNOWN and kept[_WHEELCHAIR] not in _UNKNOWN:
                new[_WHEELCHAIR] = kept[_WHEELCHAIR]  # nobody unlearns this (docs/protocols.md 5.7)
                values = b"|".join(new)
            if values == old:
                return
        stop.passes[key] = values
        self._version = stop.version = self._version + 1

    def _stop(self, raw_code: bytes) -> Stop | None:
        stop = self.stops.get(raw_code.decode())
        if stop is None:
            if not _CODE.fullmatch(raw_code):
                self._refused("TimingPointCode")
            elif len(self.stops) >= self._limits.stops:
                self._refused("too many stops")
            else:
                stop = self.stops[raw_code.decode()] = Stop()
        return stop

    def _columns_of(self, labels: tuple[str, ...]) -> _Columns | None:
        """Find the columns of a table; None if it lacks one that is needed."""
        if labels not in self._columns:
            if len(self._columns) > 100:  # nobody has so many forms of one table
                self._columns.clear()
            at = {label: i for i, label in enumerate(labels)}
            if at.keys() >= _NEEDED:
                wanted = {*_KEY, *_VALUES, "TimingPointCode"}
                most = max(at[label] for label in wanted if label in at) + 1
                self._columns[labels] = _Columns(
                    itemgetter(*(at[label] for label in _KEY)),
                    itemgetter(*(at.get(label, -1) for label in _VALUES)),
                    at["TimingPointCode"],
                    at["JourneyStopType"],
                    at["OperationDate"],
                    at["DataOwnerCode"],
                    most,
                    not wanted <= at.keys(),
                )
            else:
                self._columns[labels] = None
        return self._columns[labels]

    def _note_day(self, now: float) -> None:
        today = local_date(now)
        if today != self._today:
            self._today = today
            self._days = frozenset(
                (today + timedelta(days)).isoformat().encode() for days in range(-DAYS_BACK, DAYS_AHEAD + 1)
            )

    # Messages.

    def _take_messages(self, records: Records, take: Callable[[str, str, dict[str, str | None]], None]) -> None:
        now = self._now()
        for line in records.lines:
            row = dict(zip(records.labels, map(text, line.split(b"|")), strict=True))
            parts = [row.get(label) for label in _MESSAGE_KEY]
            if not all(parts):
                self._refused("key")
                continue
            self._hear(str(row["DataOwnerCode"]), now)
            take("_".join(map(str, parts)), str(row["TimingPointCode"]), row)

    def _update_message(self, key: str, code: str, row: dict[str, str | None]) -> None:
        start, end = row.get("MessageStartTime"), row.get("MessageEndTime")
        starts = read_timestamp(start) if start else 0.0
        ends = read_timestamp(end) if end else None
        if starts is None or (end and ends is None):
            self._refused("time")
            return
        stop = self._stop(code.encode())
        if stop is None:
            return
        if stop.messages is None:
            stop.messages = {}
        if key not in stop.messages:
            if self.n_messages >= self._limits.messages:
                self._refused("too many messages")
                return
            self.n_messages += 1
        message = GeneralMessage(key, tuple(row.items()), starts, ends)
        old = stop.messages.get(key)
        if old == message:
            return
        if old is not None and (_stamp(old.fields) or 0.0) > (_stamp(message.fields) or 0.0):
            self._refused("older")
            return
        stop.messages[key] = message
        self._version = stop.version = self._version + 1

    def _delete_message(self, key: str, code: str, row: dict[str, str | None]) -> None:
        stop = self.stops.get(code)
        if stop is not None and stop.messages is not None and stop.messages.pop(key, None) is not None:
            self.n_messages -= 1
            self._version = stop.version = self._version + 1

    # What was saved.

    def put_back(self, code: str, passes: dict[bytes, bytes], messages: list[GeneralMessage], now: float) -> None:
        """Take saved passes and messages of a stop back, unless they are over."""
        self._note_day(now)
        for key, values in passes.items():
            if _SOUND_KEY.match(key) and _SOUND.match(values) and _forgotten(key, values) > now:
                self._put(key, values, code.encode())
        stop = self._stop(code.encode())
        for message in messages:
            if stop is not None and (message.ends is None or message.ends > now):
                stop.messages = stop.messages or {}
                self.n_messages += message.key not in stop.messages
                stop.messages.setdefault(message.key, message)
                self._version = stop.version = self._version + 1

    def hear_again(self, heard: dict[str, float], updated: dict[str, str]) -> None:
        """Take back when data owners were heard of; not what was in a future of a clock that was wrong."""
        now = self._now()
        self.heard = {**{owner: when for owner, when in heard.items() if when <= now}, **self.heard}
        self.updated = {**updated, **self.updated}

    # What is over.

    def sweep(self) -> Iterator[None]:
        """Forget what is over; yields after each stop, so that it can be done bit by bit."""
        now = self._now()
        # Who was heard before the clock was set back would seem to have just spoken for as long as that.
        self.heard.update({owner: now for owner, when in self.heard.items() if when > now})
        for code in list(self.stops):
            stop = self.stops[code]
            now = self._now()
            self._sweep_passes(stop, code, now)
            if stop.messages:
                for key in [m.key for m in stop.messages.values() if m.ends is not None and m.ends <= now]:
                    del stop.messages[key]
                    self.n_messages -= 1
            yield

    def _sweep_passes(self, stop: Stop, code: str, now: float) -> None:
        for key, values in list(stop.passes.items()):
            if _forgotten(key, values) > now:
                continue
            self._remove(code, key)

    def _remove(self, code: str, key: bytes) -> None:
        """Take a pass from its stop."""
        stop = self.stops[code]
        del stop.passes[key]
        self._version = stop.version = self._version + 1
        self.n_passes -= 1
        journey = _journey(key)
        codes = self.journeys[journey]
        codes.remove(code)
        if not codes:
            del self.journeys[journey]
            line = self._line_of.pop(journey)
            del self.lines[line][journey]
            if not self.lines[line]:
                del self.lines[line]

    def tells(self, key: bytes) -> bool:
        """Tell whether KV8 has spoken of a pass, at whatever TimingPoint."""
        return any(key in self.stops[code].passes for code in self.journeys.get(_journey(key), ()))


_MESSAGE_KEY = (
    "DataOwnerCode",
    "MessageCodeDate",
    "MessageCodeNumber",
    "TimingPointDataOwnerCode",
    "TimingPointCode",
)


def _stamp(fields: tuple[tuple[str, str | None], ...]) -> float | None:
    return read_timestamp(dict(fields).get("MessageTimeStamp") or "")


def _journey(key: bytes) -> bytes:
    return b"|".join(key.split(b"|", _JOURNEY)[:_JOURNEY])


def _line(key: bytes, values: bytes) -> tuple[str, str, str]:
    owner, _, line, _ = key.decode().split("|", 3)
    return owner, line, text(values.split(b"|", _DIRECTION + 1)[_DIRECTION]) or ""


def _is_ahead(values: bytes, now: float) -> bool:
    stamp = read_timestamp(values.partition(b"|")[0].decode())
    return stamp is not None and stamp > now + MOST_AHEAD


def _compare(old: bytes, new: bytes) -> int:
    """Compare the timestamps of two values: above 0 if the old one is newer, 0 if the new one does not tell."""
    before, after = old.partition(b"|")[0], new.partition(b"|")[0]
    if before == after:
        return 0
    if len(before) == len(after) and before[-6:] == after[-6:]:  # of the same form and offset: as texts
        return 1 if before > after else -1
    older, newer = read_timestamp(before.decode()), read_timestamp(after.decode())
    if newer is None:
        return 0
    return -1 if older is None else (older > newer) - (older < newer)


@lru_cache(maxsize=1 << 16)
def _epoch(day: bytes, time: bytes) -> float | None:
    read = read_time(time.decode())
    on = read_date(day.decode())
    return None if read is None or on is None else moment(on, read, math.inf)


def _forgotten(key: bytes, values: bytes) -> float:
    """Tell when a pass may be forgotten, an hour late on the night in which an hour comes twice."""
    day = key.split(b"|", _JOURNEY + 2)[_JOURNEY]
    moments = (_epoch(day, time) for time in values.split(b"|", 5)[1:5])
    return max((m for m in moments if m is not None), default=0.0) + DROPPED_AFTER


def parse_passtime(key: bytes, values: bytes, code: str) -> Passtime:
    """Read a pass that is kept."""
    owner, level, line, journey, fortify, day, order, user_stop = (text(field) or "" for field in key.split(b"|"))
    said = dict(zip(_VALUES, map(text, values.split(b"|")), strict=True))
    last_update = read_timestamp(said["LastUpdateTimeStamp"] or "")
    on = read_date(day)
    assert on is not None  # or it would not be kept
    last = said["JourneyStopType"] == "LAST"
    # What has come or gone did so before that was said, and what has not may be some seconds late already.
    late = _LATE_GONE if said["TripStopStatus"] in ("ARRIVED", "PASSED") else MINUTE
    after = 0.0 if last_update is None else last_update - late
    seconds = {
        label: None if last and "Departure" in label else read_time(said[label] or "") for label in _VALUES[1:5]
    }
    times = {label: None if read is None else said[label] for label, read in seconds.items()}
    target_arrival, expected_arrival = moments(
        on, seconds["TargetArrivalTime"], seconds["ExpectedArrivalTime"], after
    )
    target_departure, expected_departure = moments(
        on, seconds["TargetDepartureTime"], seconds["ExpectedDepartureTime"], after
    )
    return Passtime(
        owner,
        level,
        line,
        journey,
        fortify,
        on,
        order,
        user_stop,
        code,
        said["TimingPointDataOwnerCode"],
        last_update,
        times["TargetArrivalTime"],
        times["ExpectedArrivalTime"],
        times["TargetDepartureTime"],
        times["ExpectedDepartureTime"],
        target_arrival,
        expected_arrival,
        target_departure,
        expected_departure,
        said["TripStopStatus"] or "UNKNOWN",
        said["JourneyStopType"] or "UNKNOWN",
        said["WheelChairAccessible"] or "UNKNOWN",
        said["DestinationCode"],
        said["LineDirection"],
        said["JourneyPatternCode"],
        said["IsTimingStop"] == "1",
        said["SideCode"],
        said["NumberOfCoaches"],
        said["OperatorCode"],
        None,
        said["LinePublicNumber"],
        said["DestinationName"],
        tuple((label, value) for label in _REMARKS if (value := said[label])),
    )


_REMARKS = _VALUES[_VALUES.index("MessageContent") : _VALUES.index("AdviceContent") + 1]
