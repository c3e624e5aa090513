"""The columns of KV8's passing times (DATEDPASSTIME), and how one row is checked, stored and parsed.

To store a further column, in snapshots as well, and to write it into OVapi's JSON and its schema as a text, only add
a line to _VALUE_COLUMNS. For a member of another type or name, give the column a field, and add that field
to Passtime (passtime.py) and the member to documents/ovapi_structs.py and documents/ovapi.py.

Longer than other modules, so that all that a column needs is in one place.
"""

import math
import re
from collections.abc import Callable, Iterable
from datetime import date
from functools import lru_cache
from operator import itemgetter
from sys import intern
from typing import Any, NamedTuple

from govi_server.departures.display import HIDDEN_AFTER_SECONDS
from govi_server.departures.times import (
    DAY,
    HALF_DAY,
    MINUTE,
    PassingTimes,
    moment,
    moments,
    read_date,
    read_time,
    read_timestamp,
    resolve,
    write_time,
)
from govi_server.kv78turbo.ctx import KEY_FIELD, NULL, Reject, text, texts
from govi_server.kv78turbo.passtime import Passtime
from govi_server.runtime.text import nonblank

MAX_CODE_BYTES = 32
"""Maximum length of a code: the longest in the captures has 13 bytes (docs/protocols.md, section 2.4)."""

MAX_KEY_BYTES = 128
"""Maximum length of a key: those of the captures have up to 50 bytes."""

_MAX_TEXT_BYTES = 512
"""Maximum length of a text: the longest in the captures has 108 characters, and those of KV15 have up to 255."""


class Column(NamedTuple):
    """A column of DATEDPASSTIME."""

    name: str
    """Its label in KV8."""
    field: str = ""
    """The field of Passtime; "" for a text in Passtime.extra, a member of the same name in OVapi's JSON."""
    parse: Callable[[str | None], Any] = nonblank
    """Converts the column's text, or None for null, to the field's value; by default a blank text is unknown."""
    is_required: bool = False
    """Whether tables without it are rejected, because their rows cannot be displayed."""
    max_bytes: int = MAX_CODE_BYTES
    """Longer values are omitted."""


# Most passtimes share their times and timestamps with many others.
_seconds = lru_cache(maxsize=1 << 16)(read_time)
_timestamp = lru_cache(maxsize=1 << 12)(read_timestamp)
_time = lru_cache(maxsize=1 << 16)(write_time)


def _or_empty(value: str | None) -> str:
    return value or ""


def _or_unknown(value: str | None) -> str:
    return nonblank(value) or "UNKNOWN"


_REQUIRED = True

# The journey's columns, then the operating date, which distinguishes a journey's runs on different days, and the
# number of the stop in the journey. The stop itself may change: see passtime_index.
_KEY_COLUMNS = (
    Column("DataOwnerCode", "data_owner_code", _or_empty, _REQUIRED),
    Column("LocalServiceLevelCode", "local_service_level_code", _or_empty, _REQUIRED),
    Column("LinePlanningNumber", "line_planning_number", _or_empty, _REQUIRED),
    Column("JourneyNumber", "journey_number", _or_empty, _REQUIRED),
    Column("FortifyOrderNumber", "fortify_order_number", _or_empty, _REQUIRED),
    Column("OperationDate", "operation_date", lambda value: read_date(value or ""), _REQUIRED),
    Column("UserStopOrderNumber", "user_stop_order_number", _or_empty, _REQUIRED),
)
# Add columns at the end: rows are checked, compared and merged by the positions of the first eight. The first nine
# differ between the passtimes of a journey, the others rarely; nearly all rows have no value in any column from
# MessageContent on, and are stored without these.
_VALUE_COLUMNS = (
    Column("LastUpdateTimeStamp", "last_update", lambda value: _timestamp(value or "")),
    Column("ExpectedArrivalTime", "expected_arrival_time", is_required=True),
    Column("ExpectedDepartureTime", "expected_departure_time", is_required=True),
    Column("TargetArrivalTime", "target_arrival_time", is_required=True),
    Column("TargetDepartureTime", "target_departure_time", is_required=True),
    Column("TripStopStatus", "trip_stop_status", _or_unknown, _REQUIRED),
    Column("WheelChairAccessible", "wheelchair", _or_unknown),
    Column("JourneyStopType", "journey_stop_type", _or_unknown, _REQUIRED),
    Column("UserStopCode", "user_stop_code", is_required=True),
    Column("DestinationCode", "destination_code"),
    Column("LineDirection", "line_direction"),
    Column("JourneyPatternCode", "journey_pattern_code"),
    Column("IsTimingStop", "is_timing_stop", lambda value: value == "1"),
    Column("SideCode", "side_code"),
    Column("NumberOfCoaches", "number_of_coaches"),
    Column("OperatorCode", "operator_code"),
    Column("TimingPointDataOwnerCode", "timing_point_data_owner_code"),
    Column("MessageContent", max_bytes=_MAX_TEXT_BYTES),
    Column("MessageType"),
    Column("ReasonType"),
    Column("SubReasonType"),
    Column("ReasonContent", max_bytes=_MAX_TEXT_BYTES),
    Column("AdviceType"),
    Column("SubAdviceType"),
    Column("AdviceContent", max_bytes=_MAX_TEXT_BYTES),
    Column("LinePublicNumber", "line_public_number"),
    Column("DestinationName", "destination_name", max_bytes=100),
)
# Passtimes are stored under it, not with it.
_STOP_COLUMN = Column("TimingPointCode", "timing_point_code", _or_empty, _REQUIRED)

COLUMNS = (*_KEY_COLUMNS, *_VALUE_COLUMNS, _STOP_COLUMN)
"""All columns that are read."""

EXTRA_NAMES = tuple(column.name for column in COLUMNS if not column.field)
"""The columns of Passtime.extra, in order."""

KEY_NAMES = tuple(column.name for column in _KEY_COLUMNS)
"""The columns of a stored passtime's key, in order."""

VALUE_NAMES = tuple(column.name for column in _VALUE_COLUMNS)
"""The columns of a stored passtime's values, in order."""

NO_RARE_VALUES = (b"|" + NULL) * (len(VALUE_NAMES) - VALUE_NAMES.index("MessageContent"))
"""The columns from MessageContent on if they are null: stored values do not contain them."""

_TARGET_DEPARTURE = VALUE_NAMES.index("TargetDepartureTime")
STATUS = VALUE_NAMES.index("TripStopStatus")
WHEELCHAIR = VALUE_NAMES.index("WheelChairAccessible")
"""Positions of columns in the values."""
_STOP_TYPE = VALUE_NAMES.index("JourneyStopType")
_DIRECTION = VALUE_NAMES.index("LineDirection")
_COMMON = VALUE_NAMES.index("UserStopCode") + 1
"""The position of the first value that is common to the passtimes of a journey."""
_FIRST_PARSERS = tuple((column.field, column.parse) for column in (*_KEY_COLUMNS, *_VALUE_COLUMNS[:_COMMON]))
_REQUIRED_NAMES = {column.name for column in COLUMNS if column.is_required}
_JOURNEY_COLUMNS = 5
"""Columns of the key that identify the journey."""

_TIME = rb"(?:(?:[0-3][0-9]|4[0-7]):[0-5][0-9]:[0-5][0-9]|\\0|)\|"
_USUAL_TIME = rb"[0-3][0-9]:[0-5][0-9]:[0-5][0-9]\|"
_DAY = rb"20[0-9]{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_OFFSET = rb"(?:Z|[+-][01][0-9](?::?[0-5][0-9])?)?"
_TIMESTAMP = rb"(?:\\0||%bT(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?%b)\|" % (_DAY, _OFFSET)
# At a last stop, departures at midnight are none (docs/protocols.md, section 5.8).
_NO_TIME, _NO_DEPARTURE = rb"(?:\\0)?\|", rb"(?:\\0|00:00:00)?\|"
_NO_ARRIVAL = rb"(?:%b%b){2}[^|]*\|[^|]*\|LAST\|" % (_NO_TIME, _NO_DEPARTURE)
_SOME_TIMES = rb"(?!%b|%b)%b" % (_NO_TIME * 4, _NO_ARRIVAL, _TIME * 4)
_VALID_VALUES = re.compile(rb"%b(?:%b|%b)" % (_TIMESTAMP, _USUAL_TIME * 4, _SOME_TIMES))
_CHECKED = (re.compile(_TIMESTAMP), *[re.compile(_TIME)] * 4)
_USUAL_KEY_FIELD = rb"[!-\[\]-{}~]+"
# The order of the stop is a number.
_VALID_KEY = re.compile(
    rb"(?!.{%d})(?:(?:%b\|){6}|(?:%b\|){6})[0-9]{1,5}\Z" % (MAX_KEY_BYTES + 1, _USUAL_KEY_FIELD, KEY_FIELD),
    re.DOTALL,
)
_MAX_VALUE_BYTES = tuple(column.max_bytes for column in _VALUE_COLUMNS)
# Values of up to this length in total are not examined one by one: those without a text have about 200 bytes.
_MAX_SHORT_BYTES = 384

EMPTY = frozenset({NULL, b""})
"""Fields without a value."""

_REPORT_SECONDS = 30 * MINUTE
"""How long after a passing its updates may arrive, to select one of the two moments in the repeated hour."""

is_valid_key = _VALID_KEY.match
"""Return a match if a stored key is valid."""

is_valid_values = _VALID_VALUES.match
"""Return a match if the timestamp and times of stored values are valid, and at least one time is known."""


def all_values(values: bytes) -> bytes:
    """Return stored values with those that are not stored because they are null."""
    return values + NO_RARE_VALUES if values.count(b"|") < len(VALUE_NAMES) - 1 else values


def is_planned_at(values: bytes, passtime: Passtime) -> bool:
    """Return whether stored values have the planned departure of a passtime, or its arrival at the last stop."""
    arrival, departure = values.split(b"|", _TARGET_DEPARTURE + 1)[_TARGET_DEPARTURE - 1 : _TARGET_DEPARTURE + 1]
    if passtime.target_departure_time is None:
        return text(arrival) == passtime.target_arrival_time
    return text(departure) == passtime.target_departure_time


def without_invalid(values: bytes, reject: Reject) -> bytes:
    """Return stored values with null for an invalid timestamp and invalid times, which are rejected as "value"."""
    fields = values.split(b"|", len(_CHECKED))
    for i, pattern in enumerate(_CHECKED):
        if not pattern.fullmatch(fields[i] + b"|"):
            fields[i] = NULL
            reject("value")
    return b"|".join(fields)


class TableLayout(NamedTuple):
    """The positions of columns in the rows of a table."""

    key: Callable[[list[bytes]], tuple[bytes, ...]]
    values: Callable[[list[bytes]], tuple[bytes, ...]]
    code: int
    stop_type: int
    date: int
    operator: int
    splits: int
    """Number of separators at which a row is split; columns beyond are not read."""
    has_missing: bool
    """Whether columns are missing; these are read from a null field appended to the row."""


def table_layout(labels: tuple[str, ...]) -> TableLayout | None:
    """Return the layout of a table with these labels; None if a required column is missing."""
    index = {label: i for i, label in enumerate(labels)}
    if not index.keys() >= _REQUIRED_NAMES:
        return None
    names = {column.name for column in COLUMNS}
    return TableLayout(
        itemgetter(*(index[name] for name in KEY_NAMES)),
        itemgetter(*(index.get(name, -1) for name in VALUE_NAMES)),
        index["TimingPointCode"],
        index["JourneyStopType"],
        index["OperationDate"],
        index["DataOwnerCode"],
        max(index[name] for name in names if name in index) + 1,
        not names <= index.keys(),
    )


def journey_of(key: bytes) -> bytes:
    """Return the columns of a key that identify the journey."""
    return key.rsplit(b"|", len(_KEY_COLUMNS) - _JOURNEY_COLUMNS)[0]


def without_long_values(values: bytes, reject: Reject) -> bytes:
    """Return values with null for those that are longer than their column permits, unless the total is short."""
    if len(values) <= _MAX_SHORT_BYTES:
        return values
    fields = values.split(b"|")
    for i, (field, maximum) in enumerate(zip(fields, _MAX_VALUE_BYTES, strict=False)):
        if len(field) > maximum:
            reject("long value")
            fields[i] = NULL
    return b"|".join(fields)


def line_of(key: bytes, values: bytes) -> tuple[str, str, str]:
    """Return DataOwnerCode, LinePlanningNumber and LineDirection."""
    operator, _, line, _ = key.decode().split("|", 3)
    return operator, line, text(values.split(b"|", _DIRECTION + 1)[_DIRECTION]) or ""


_TIME_FIELDS = ("expected_arrival_time", "expected_departure_time", "target_arrival_time", "target_departure_time")
"""The fields of Passtime with times, in the order of their columns."""
_RESOLVED_FIELDS = tuple(f"{name}_time" for name in PassingTimes._fields)
_RECORDED = ("ARRIVED", "PASSED")
"""TripStopStatuses of events that have happened."""


def _literal_times(times: Iterable[str]) -> PassingTimes:
    """Return times as they are written. times: the texts of their columns, in order."""
    expected_arrival, expected_departure, target_arrival, target_departure = map(_seconds, times)
    return PassingTimes(target_arrival, target_departure, expected_arrival, expected_departure)


def _passing_times(
    day: date, literal: PassingTimes, updated: float | None, status: str, stop_type: str
) -> PassingTimes:
    """Return the times of a passtime on the days that make sense; the same object if these are the literal ones."""
    return resolve(day, literal.at_stop(stop_type), updated, is_recorded=status in _RECORDED)


def expires_at(key: bytes, values: bytes, updated_by: float = math.inf) -> float:
    """Return when a passtime may be removed (epoch seconds); a time in the repeated hour is its second moment.

    updated_by: its last update is not later (epoch seconds).
    """
    day = read_date(key.split(b"|", _JOURNEY_COLUMNS + 2)[_JOURNEY_COLUMNS].decode())
    timestamp, *times, status, _, stop_type = values.decode().split("|", _STOP_TYPE + 1)[: _STOP_TYPE + 1]
    if day is None:
        return 0.0
    updated = _timestamp(timestamp)
    updated = None if updated is None else min(updated, updated_by)
    earliest, latest = _seconds(min(times)), _seconds(max(times))
    # Nearly always all are known, and of the operating date.
    if (
        earliest
        and latest
        and latest < DAY
        and latest - earliest <= HALF_DAY
        and (earliest >= HALF_DAY or updated is None or updated < moment(day, latest) + HALF_DAY)
    ):
        return moment(day, latest, math.inf) + HIDDEN_AFTER_SECONDS
    resolved = _passing_times(day, _literal_times(times), updated, status, stop_type)
    latest = max((time for time in resolved if time is not None), default=None)
    return 0.0 if latest is None else moment(day, latest, math.inf) + HIDDEN_AFTER_SECONDS


def _interned(record: bytes) -> list[str | None]:
    """Decode all fields of a record; equal texts are one object.

    Parsed passtimes are remembered, and share nearly all texts with others: half of the memory of a joined one.
    """
    return [None if text is None else intern(text) for text in texts(record)]


@lru_cache(maxsize=1 << 12)
def _parse_common(values: bytes) -> dict[str, Any]:
    """Parse the last values of a stored passtime, which others share, into fields of Passtime.

    Cached, which saves a quarter of parse_passtime(), and memory of its results, which share the fields. The cache
    has 5 MB, or 15 MB if all values have long texts; nothing invalidates it.
    """
    fields: dict[str, Any] = {}
    extra: list[tuple[str, str]] = []
    columns = _interned(values + NO_RARE_VALUES)
    for (name, field, parse, *_), column in zip(_VALUE_COLUMNS[_COMMON:], columns, strict=False):
        value = parse(column)
        if field:
            fields[field] = value
        elif value is not None:
            extra.append((name, value))
    fields["extra"] = tuple(extra)
    return fields


def parse_passtime(key: bytes, values: bytes, code: str, updated_by: float = math.inf) -> Passtime:
    """Parse a stored passtime of a TimingPointCode. updated_by: its last update is not later (epoch seconds)."""
    *first, common = values.split(b"|", _COMMON)
    fields = _parse_common(common).copy()
    for (field, parse), column in zip(_FIRST_PARSERS, _interned(b"|".join((key, *first))), strict=True):
        fields[field] = parse(column)
    fields["user_stop_code"] = fields["user_stop_code"] or code
    if fields["last_update"] is not None:
        fields["last_update"] = min(fields["last_update"], updated_by)
    day, status, last_update = fields["operation_date"], fields["trip_stop_status"], fields["last_update"]
    columns = [fields[field] or "" for field in _TIME_FIELDS]
    literal = _literal_times(columns)
    times = _passing_times(day, literal, last_update, status, fields["journey_stop_type"])
    # Past events are reported afterwards, and expected ones may already be some seconds late.
    late = _REPORT_SECONDS if status in _RECORDED else MINUTE
    after = 0.0 if last_update is None else last_update - late
    target_arrival, expected_arrival = moments(day, times.target_arrival, times.expected_arrival, after)
    target_departure, expected_departure = moments(day, times.target_departure, times.expected_departure, after)
    if expected_departure == expected_arrival:
        expected_departure = expected_arrival  # one object
    if target_departure == target_arrival:
        target_departure = target_arrival
    if times is not literal:
        for field, time in zip(_RESOLVED_FIELDS, times, strict=True):
            fields[field] = None if time is None else _time(time)
    return Passtime(
        timing_point_code=code,
        target_arrival=target_arrival,
        expected_arrival=expected_arrival,
        target_departure=target_departure,
        expected_departure=expected_departure,
        **fields,
    )
