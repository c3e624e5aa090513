"""KV8: the live passtimes and general messages of each stop (docs/protocols.md, sections 2.5 to 2.8).

A country has millions of passtimes, so each is stored as two byte strings, key and values, taken from its row.
kv8_columns.parse_passtime() parses them when a stop is requested.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta

from govi_server.departures.times import local_date, local_timestamp
from govi_server.departures.timing_point import TIMING_POINT_CODE_PATTERN
from govi_server.kv78turbo.ctx import NULL, Records, Reject, texts
from govi_server.kv78turbo.general_message import GeneralMessage, Row, message_key, parse_message
from govi_server.kv78turbo.kv8_columns import (
    EMPTY,
    STATUS,
    WHEELCHAIR,
    TableLayout,
    compare_timestamps,
    expires_at,
    is_valid_key,
    is_valid_values,
    journey_of,
    line_of,
    table_layout,
    timestamp_of,
    without_invalid,
)
from govi_server.settings import PasstimeSettings

MAX_AHEAD_SECONDS = 900.0
"""How far a publisher's clock may be ahead of ours."""

DAYS_BACK, DAYS_AHEAD = 2, 7
"""Operating dates that are accepted, relative to today."""

MAX_OPERATORS = 1000
"""Operators whose latest update is stored; the feed has about thirty."""

MAX_LAYOUTS = 100
"""Cached table layouts; publishers use a few."""

_CODE = re.compile(TIMING_POINT_CODE_PATTERN.encode())
_UNKNOWN = EMPTY | {b"UNKNOWN"}
_SECONDS_DIGITS = len("2021-06-06T18:26:05")

PASSTIME_DEFAULTS = PasstimeSettings()


class LiveStop:
    """The live passtimes and messages of one stop."""

    __slots__ = ("messages", "passtimes", "version")

    def __init__(self) -> None:
        self.passtimes: dict[bytes, bytes] = {}
        """Stored values by key."""
        self.messages: dict[str, GeneralMessage] | None = None
        self.version = 0
        """Changes with each update."""


class Passtimes:
    """Stores the data of KV8. now: returns the time in epoch seconds."""

    def __init__(self, now: Callable[[], float], limits: PasstimeSettings = PASSTIME_DEFAULTS) -> None:
        self._now = now
        self._limits = limits
        self._version = 0
        self._layouts: dict[tuple[str, ...], TableLayout | None] = {}
        self._today: date | None = None
        self._dates: frozenset[bytes] = frozenset()
        self._line_of: dict[bytes, tuple[str, str, str]] = {}
        self.stops: dict[str, LiveStop] = {}
        """By TimingPointCode. Stops are never removed; at night they have no passtimes."""
        self.journeys: dict[bytes, list[str]] = {}
        """The TimingPointCodes of each journey with passtimes, by journey_of() its keys."""
        self.lines: dict[tuple[str, str, str], dict[bytes, None]] = {}
        """The journeys by DataOwnerCode, LinePlanningNumber and LineDirection."""
        self.last_update: dict[str, str] = {}
        """The latest LastUpdateTimeStamp of each operator."""
        self.last_heard: dict[str, float] = {}
        """When the latest data of each operator arrived, in epoch seconds."""
        self.n_passtimes = 0
        self.n_messages = 0

    def ingest(self, records: Records, reject: Reject) -> int:
        """Store records of KV8 and return their number; return 0 for other tables."""
        if records.table == "DATEDPASSTIME":
            self._ingest_passtimes(records, reject)
        elif records.table == "GENERALMESSAGEUPDATE":
            self._ingest_messages(records, self._update_message, reject)
        elif records.table == "GENERALMESSAGEDELETE":
            self._ingest_messages(records, self._delete_message, reject)
        else:
            return 0
        return len(records.lines)

    # Passtimes.

    def _ingest_passtimes(self, records: Records, reject: Reject) -> None:
        layout = self._layout(records.labels)
        if layout is None:
            for _ in records.lines:
                reject("key column")
            return
        now = self._now()
        self._set_dates(now)
        key_of, values_of, code_at, type_at, date_at, operator_at, splits, has_missing = layout
        join, dates = b"|".join, self._dates
        # A row from further ahead would supersede all rows that arrive after it.
        latest = local_timestamp(now + MAX_AHEAD_SECONDS)[:_SECONDS_DIGITS].encode()
        latest_values: dict[bytes, bytes] = {}  # of each operator
        for line in records.lines:
            fields = line.split(b"|", splits)
            if fields[type_at] == b"INFOPOINT":
                continue  # not for passengers
            if has_missing:
                fields.append(NULL)
            key, values = join(key_of(fields)), join(values_of(fields))
            if fields[date_at] not in dates:
                reject("date")
            elif not is_valid_key(key):
                reject("key")
            elif not (is_valid_values(values) or is_valid_values(values := without_invalid(values, reject))):
                reject("time")
            elif latest < values[:_SECONDS_DIGITS] < b"3" and _is_ahead(values, now):
                reject("future")
            else:
                self._store(key, values, fields[code_at], reject)
                latest_values[fields[operator_at]] = values
        for name, values in latest_values.items():
            operator, timestamp = name.decode(), values.partition(b"|")[0]
            self._set_last_heard(operator, now, reject)
            if timestamp not in EMPTY and operator in self.last_heard:
                self.last_update[operator] = timestamp.decode()

    def _set_last_heard(self, operator: str, now: float, reject: Reject) -> None:
        if operator in self.last_heard or len(self.last_heard) < MAX_OPERATORS:
            self.last_heard[operator] = now
        else:
            reject("too many owners")

    def _store(self, key: bytes, values: bytes, raw_code: bytes, reject: Reject) -> None:
        """Store a passtime, unless a newer one is stored."""
        stop = self._stop(raw_code, reject)
        if stop is None:
            return
        stored = stop.passtimes.get(key)
        if stored is None:
            if self.n_passtimes >= self._limits.passes:
                reject("too many passes")
                return
            self._add(key, values, raw_code.decode())
        else:
            if stored == values:
                return
            order = compare_timestamps(stored, values)
            if order > 0:
                reject("older")
                return
            values = _merged(stored, values, order)
            if values == stored:
                return
        stop.passtimes[key] = values
        self._version = stop.version = self._version + 1

    def _add(self, key: bytes, values: bytes, code: str) -> None:
        """Add a new passtime to its journey and line."""
        self.n_passtimes += 1
        journey = journey_of(key)
        for other in self.journeys.get(journey, ()):
            if key in self.stops[other].passtimes:  # moved here from another TimingPoint
                self._remove(other, key)
                break
        codes = self.journeys.get(journey)
        if codes is not None:
            codes.append(code)
            return
        self.journeys[journey] = [code]
        line = self._line_of[journey] = line_of(key, values)
        self.lines.setdefault(line, {})[journey] = None

    def _stop(self, raw_code: bytes, reject: Reject) -> LiveStop | None:
        stop = self.stops.get(raw_code.decode())
        if stop is None:
            if not _CODE.fullmatch(raw_code):
                reject("TimingPointCode")
            elif len(self.stops) >= self._limits.stops:
                reject("too many stops")
            else:
                stop = self.stops[raw_code.decode()] = LiveStop()
        return stop

    def _layout(self, labels: tuple[str, ...]) -> TableLayout | None:
        if labels not in self._layouts:
            if len(self._layouts) >= MAX_LAYOUTS:
                self._layouts.clear()
            self._layouts[labels] = table_layout(labels)
        return self._layouts[labels]

    def _set_dates(self, now: float) -> None:
        today = local_date(now)
        if today != self._today:
            self._today = today
            days = range(-DAYS_BACK, DAYS_AHEAD + 1)
            self._dates = frozenset((today + timedelta(n)).isoformat().encode() for n in days)

    def _remove(self, code: str, key: bytes) -> None:
        """Remove a passtime from its stop, journey and line."""
        stop = self.stops[code]
        del stop.passtimes[key]
        self._version = stop.version = self._version + 1
        self.n_passtimes -= 1
        journey = journey_of(key)
        codes = self.journeys[journey]
        codes.remove(code)
        if not codes:
            del self.journeys[journey]
            line = self._line_of.pop(journey)
            del self.lines[line][journey]
            if not self.lines[line]:
                del self.lines[line]

    def has_passtime(self, key: bytes) -> bool:
        """Return whether a passtime with this key is stored, at any TimingPoint."""
        return any(key in self.stops[code].passtimes for code in self.journeys.get(journey_of(key), ()))

    # General messages.

    def _ingest_messages(
        self, records: Records, ingest: Callable[[str, str, Row, Reject], None], reject: Reject
    ) -> None:
        now = self._now()
        for line in records.lines:
            row = dict(zip(records.labels, texts(line), strict=True))
            key = message_key(row)
            if key is None:
                reject("key")
                continue
            self._set_last_heard(str(row["DataOwnerCode"]), now, reject)
            ingest(key, str(row["TimingPointCode"]), row, reject)

    def _update_message(self, key: str, code: str, row: Row, reject: Reject) -> None:
        message = parse_message(key, row, reject)
        stop = self._stop(code.encode(), reject)
        if stop is None:
            return
        stored = stop.messages.get(key) if stop.messages is not None else None
        if stored == message:
            return
        if stored is None:
            if self.n_messages >= self._limits.messages:
                reject("too many messages")
                return
            self.n_messages += 1
        elif stored.timestamp > message.timestamp:
            reject("older")
            return
        if stop.messages is None:
            stop.messages = {}
        stop.messages[key] = message
        self._version = stop.version = self._version + 1

    def _delete_message(self, key: str, code: str, row: Row, reject: Reject) -> None:
        stop = self.stops.get(code)
        if stop is not None and stop.messages is not None and stop.messages.pop(key, None) is not None:
            self.n_messages -= 1
            self._version = stop.version = self._version + 1

    # Restoring a snapshot.

    def restore_stop(
        self, code: str, passtimes: dict[bytes, bytes], messages: list[GeneralMessage], now: float, reject: Reject
    ) -> None:
        """Store a snapshot's passtimes and messages of a stop that are valid and not expired."""
        for key, values in passtimes.items():
            if is_valid_key(key) and is_valid_values(values) and expires_at(key, values) > now:
                self._store(key, values, code.encode(), reject)
        stop = self._stop(code.encode(), reject)
        for message in messages:
            if stop is not None and (message.ends is None or message.ends > now):
                stop.messages = stop.messages or {}
                self.n_messages += message.key not in stop.messages
                stop.messages.setdefault(message.key, message)
                self._version = stop.version = self._version + 1

    def restore_operators(self, last_heard: dict[str, float], last_update: dict[str, str]) -> None:
        """Restore the operators' latest updates, except those in the future, saved while the clock was ahead."""
        now = self._now()
        past = {operator: time for operator, time in last_heard.items() if time <= now}
        self.last_heard = {**past, **self.last_heard}
        self.last_update = {**last_update, **self.last_update}

    # Removing expired data.

    def sweep(self) -> Iterator[None]:
        """Remove expired passtimes and messages; yields after each stop."""
        now = self._now()
        # After the clock was set back, operators would seem fresh until it has caught up.
        self.last_heard.update({operator: now for operator, time in self.last_heard.items() if time > now})
        for code in list(self.stops):
            stop = self.stops[code]
            now = self._now()
            for key, values in list(stop.passtimes.items()):
                if expires_at(key, values) <= now:
                    self._remove(code, key)
            if stop.messages:
                for message in list(stop.messages.values()):
                    if message.ends is not None and message.ends <= now:
                        del stop.messages[message.key]
                        self.n_messages -= 1
            yield


def _is_ahead(values: bytes, now: float) -> bool:
    timestamp = timestamp_of(values)
    return timestamp is not None and timestamp > now + MAX_AHEAD_SECONDS


def _merged(stored: bytes, values: bytes, order: int) -> bytes:
    """Return new values, completed from the stored ones. order: the result of compare_timestamps()."""
    old, new = stored.split(b"|", WHEELCHAIR + 1), values.split(b"|", WHEELCHAIR + 1)
    if order == 0 and old[STATUS] == b"CANCEL" and new[STATUS] != b"CANCEL":
        return stored  # only a newer update revokes a cancellation
    lacks_timestamp = new[0] in EMPTY
    lacks_wheelchair = new[WHEELCHAIR] in _UNKNOWN and old[WHEELCHAIR] not in _UNKNOWN
    if lacks_timestamp:
        new[0] = old[0]  # otherwise, an older update could supersede it
    if lacks_wheelchair:
        new[WHEELCHAIR] = old[WHEELCHAIR]  # known accessibility stays (docs/protocols.md, section 5.7)
    return b"|".join(new) if lacks_timestamp or lacks_wheelchair else values
