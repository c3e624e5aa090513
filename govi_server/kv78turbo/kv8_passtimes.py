"""KV8: the live passtimes and general messages of each stop (docs/protocols.md, sections 2.5 to 2.8).

A country has millions of passtimes, so each is stored as two byte strings, key and values, taken from its row.
kv8_columns.parse_passtime() parses them when a stop is requested.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta

from govi_server.departures.times import local_date
from govi_server.departures.timing_point import TIMING_POINT_CODE_PATTERN
from govi_server.kv78turbo.ctx import NULL, Records, Reject
from govi_server.kv78turbo.general_message import GeneralMessage
from govi_server.kv78turbo.kv8_columns import (
    EMPTY,
    TableLayout,
    expires_at,
    is_valid_key,
    is_valid_values,
    table_layout,
    without_invalid,
)
from govi_server.kv78turbo.message_store import MessageStore
from govi_server.kv78turbo.passtime_index import LiveStop, PasstimeIndex, StoredPasstime, merge
from govi_server.kv78turbo.repetition import MIN_OVERDUE_SECONDS, Census, Repetition
from govi_server.kv78turbo.stamps import (
    TOMBSTONE_SECONDS,
    Stamp,
    Tombstones,
    is_older,
    latest_timestamp,
    read_stamp,
    stamp_of,
)
from govi_server.settings import PasstimeSettings

DAYS_BACK, DAYS_AHEAD = 2, 7
"""Operating dates that are accepted, relative to today."""

MAX_OPERATORS = 1000
"""Operators whose latest update is stored; the feed has about thirty."""

MAX_LAYOUTS = 100
"""Cached table layouts; publishers use a few."""

_CODE = re.compile(TIMING_POINT_CODE_PATTERN.encode())

PASSTIME_DEFAULTS = PasstimeSettings()


class _Stamps(dict[bytes, Stamp | None]):
    """The stamps of one message's timestamps, each parsed once. received: the stamp of its receipt."""

    def __init__(self, received: Stamp) -> None:
        self._received = received

    def __missing__(self, text: bytes) -> Stamp | None:
        self[text] = stamp = None if text in EMPTY else read_stamp(text.decode(), self._received)
        return stamp


class Passtimes:
    """Stores the data of KV8. now: returns the time in epoch seconds."""

    def __init__(self, now: Callable[[], float], limits: PasstimeSettings = PASSTIME_DEFAULTS) -> None:
        self._now = now
        self._limits = limits
        self._index = PasstimeIndex()
        self._layouts: dict[tuple[str, ...], TableLayout | None] = {}
        self._today: date | None = None
        self._dates: frozenset[bytes] = frozenset()
        self.stops = self._index.stops
        self.journeys = self._index.journeys
        self.lines = self._index.lines
        self.last_update: dict[str, str] = {}
        """The latest LastUpdateTimeStamp of each operator."""
        self.last_heard: dict[str, float] = {}
        """When the latest data of each operator arrived, in epoch seconds."""
        self.repetitions: dict[str, Repetition] = {}
        """How often each operator repeats its passtimes; of the operators in last_heard."""
        self.reliability_version = 0
        """Changes when the passtimes of an operator begin or cease to be overdue without repetitions."""
        self.tombstones: Tombstones[bytes] = Tombstones()
        """Of passtimes that have expired."""
        self._messages = MessageStore(
            self.stops, self._stop, self._set_last_heard, self._index.changed, limits.messages
        )
        self.message_tombstones = self._messages.tombstones

    @property
    def n_messages(self) -> int:
        """The number of stored general messages."""
        return self._messages.n_messages

    @property
    def n_passtimes(self) -> int:
        """The number of stored passtimes."""
        return self._index.n_passtimes

    def ingest(self, records: Records, reject: Reject) -> int:
        """Store records of KV8 and return their number; return 0 for other tables."""
        if records.table == "DATEDPASSTIME":
            self._ingest_passtimes(records, reject)
        elif records.table in ("GENERALMESSAGEUPDATE", "GENERALMESSAGEDELETE"):
            self._messages.ingest(records, self._now(), reject)
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
        join, dates, stamps = b"|".join, self._dates, _Stamps(stamp_of(now))
        latest_rows: dict[bytes, tuple[bytes, float | None]] = {}  # of each operator, and when it was last heard
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
            else:
                last_heard = self._store(key, values, fields[code_at], stamps, now, reject)
                latest_rows[fields[operator_at]] = values, last_heard
        for name, (values, last_heard) in latest_rows.items():
            operator, timestamp = name.decode(), values.partition(b"|")[0].decode()
            self._set_last_heard(operator, now, reject)
            if last_heard is not None and operator in self.repetitions:
                self._learn_interval(self.repetitions[operator], last_heard, now, len(records.lines))
            latest = latest_timestamp(self.last_update.get(operator), timestamp, now)
            if latest is not None and operator in self.last_heard:
                self.last_update[operator] = latest

    def _set_last_heard(self, operator: str, now: float, reject: Reject) -> None:
        if operator in self.last_heard or len(self.last_heard) < MAX_OPERATORS:
            self.last_heard[operator] = now
            self.repetitions.setdefault(operator, Repetition()).heard(now)
        else:
            reject("too many owners")

    def _store(
        self, key: bytes, values: bytes, raw_code: bytes, stamps: _Stamps, now: float, reject: Reject
    ) -> float | None:
        """Store a passtime, unless a newer version is stored; return when it was last heard, None if never."""
        stop = self.stops.get(raw_code.decode())
        stored = stop.passtimes.get(key) if stop is not None else None
        if stop is not None and stored is not None and stored.values == values:
            last_heard, stored.last_heard, stored.is_repeated = stored.last_heard, now, True
            if not 0 <= now - last_heard <= MIN_OVERDUE_SECONDS:
                self._index.changed(stop)  # it may have been overdue
            return last_heard
        stamp = stamps[values.partition(b"|")[0]]
        if stored is None:
            stored = self._index.find(key)  # it may have been at another stop
        if stored is None:
            self._store_new(key, values, raw_code, stamp, now, reject)
            return None
        is_rejected = is_older(stamp, stored.stamp)
        stop = self.stops[stored.code] if is_rejected else self._stop(raw_code, reject)
        if stop is None:
            return None
        last_heard = stored.last_heard
        row = StoredPasstime(stop.code, values, stamp, stamp, last_heard if is_rejected else now, True)
        latest = merge(stored, row)
        if is_rejected and latest.values == stored.values:
            reject("older")
        else:
            self._index.update(key, stored, latest)
        return None if is_rejected else last_heard

    def _store_new(
        self, key: bytes, values: bytes, raw_code: bytes, stamp: Stamp | None, now: float, reject: Reject
    ) -> None:
        if is_older(stamp, self.tombstones.stamp(key)):
            reject("older")
        elif self.n_passtimes >= self._limits.passes:
            reject("too many passes")
        elif (stop := self._stop(raw_code, reject)) is not None:
            self._index.add(key, StoredPasstime(stop.code, values, stamp, stamp, now, False))

    def _learn_interval(self, repetition: Repetition, last_heard: float, now: float, n_rows: int) -> None:
        """Learn from a passtime that an operator repeats, an example of the rows of its message."""
        was_learned = repetition.is_learned
        repetition.add_gap(last_heard, now, n_rows)
        self.reliability_version += repetition.is_learned != was_learned

    def _stop(self, raw_code: bytes, reject: Reject) -> LiveStop | None:
        code = raw_code.decode()
        stop = self.stops.get(code)
        if stop is None:
            if not _CODE.fullmatch(raw_code):
                reject("TimingPointCode")
            elif len(self.stops) >= self._limits.stops:
                reject("too many stops")
            else:
                stop = self.stops[code] = LiveStop(code)
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

    def has_passtime(self, key: bytes) -> bool:
        """Return whether a passtime with this key is stored, at any TimingPoint."""
        return self._index.find(key) is not None

    # Restoring a snapshot.

    def restore_passtime(self, key: bytes, restored: StoredPasstime, reject: Reject) -> None:
        """Store a passtime of a snapshot if it is valid and not expired. What is already stored arrived later."""
        now = self._now()
        if not (is_valid_key(key) and is_valid_values(restored.values)):
            return
        operator = key.partition(b"|")[0].decode()
        restored.last_heard = min(restored.last_heard or self.last_heard.get(operator, now), now)
        if restored.stamp is None:  # older snapshots do not contain it
            restored.stamp = restored.access_stamp = _Stamps(stamp_of(now))[restored.values.partition(b"|")[0]]
        if expires_at(key, restored.values, restored.updated_by) <= now:
            return
        stored = self._index.find(key)
        if is_older(restored.stamp, self.tombstones.stamp(key)):
            reject("older")
        elif stored is None and self.n_passtimes >= self._limits.passes:
            reject("too many passes")
        elif self._stop(restored.code.encode(), reject) is None:
            return
        elif stored is None:
            self._index.add(key, restored)
        else:
            self._index.update(key, stored, merge(restored, stored))

    def restore_message(self, code: str, message: GeneralMessage, reject: Reject) -> None:
        """Store a message of a snapshot."""
        now = self._now()
        if not message.stamp:  # older snapshots do not contain it
            stamp = read_stamp(dict(message.fields).get("MessageTimeStamp") or "", stamp_of(now))
            message = replace(message, stamp=stamp or 0)
        self._messages.restore(code, message, now, reject)

    def restore_tombstones(
        self, passtimes: dict[bytes, tuple[Stamp, float]], messages: dict[str, tuple[Stamp, float]]
    ) -> None:
        """Restore the tombstones of a snapshot, and remove what is older and has been stored since."""
        now = self._now()
        for key, (stamp, until) in passtimes.items():
            if now < until <= now + TOMBSTONE_SECONDS:
                stored = self._index.find(key)
                if stored is not None and is_older(stored.stamp, stamp):
                    self._index.remove(key, stored)
                self.tombstones.put(key, stamp, until)
        for message, (stamp, until) in messages.items():
            if now < until <= now + TOMBSTONE_SECONDS:
                self._messages.restore_tombstone(message, stamp, until)

    def restore_operators(
        self, last_heard: dict[str, float], last_update: dict[str, str], intervals: dict[str, float]
    ) -> None:
        """Restore the operators' latest updates, except those in the future, saved while the clock was ahead."""
        now = self._now()
        past = {operator: time for operator, time in last_heard.items() if time <= now}
        self.last_heard = {**past, **self.last_heard}
        self.last_update = {**last_update, **self.last_update}
        for operator, time in past.items():
            self.repetitions.setdefault(operator, Repetition()).restore(time, intervals.get(operator))

    # Removing expired data.

    def sweep(self) -> Iterator[None]:
        """Remove expired passtimes and messages; yields after each stop."""
        now = self._now()
        # After the clock was set back, operators would seem fresh until it has caught up.
        self.last_heard.update({operator: now for operator, time in self.last_heard.items() if time > now})
        censuses: dict[bytes, Census] = {}
        for code in list(self.stops):
            stop = self.stops[code]
            now = self._now()
            for key, passtime in list(stop.passtimes.items()):
                passtime.last_heard = min(passtime.last_heard, now)
                if expires_at(key, passtime.values, passtime.updated_by) > now:
                    self._count(key, passtime, now, censuses)
                    continue
                self._index.remove(key, passtime)
                if passtime.stamp is not None:  # an older version might be expected later
                    self.tombstones.put(key, passtime.stamp, now + TOMBSTONE_SECONDS)
            self._messages.sweep_stop(stop, now)
            yield
        for operator, repetition in self.repetitions.items():
            census = censuses.get(operator.encode())
            was_learned = repetition.is_learned
            repetition.is_complete = census is None or census.is_complete
            self.reliability_version += repetition.is_learned != was_learned
        self.tombstones.sweep(now)
        self.message_tombstones.sweep(now)

    def _count(self, key: bytes, passtime: StoredPasstime, now: float, censuses: dict[bytes, Census]) -> None:
        operator = key.partition(b"|")[0]
        census = censuses.get(operator)
        if census is None:
            census = censuses[operator] = Census()
        census.n_passtimes += 1
        if not passtime.is_repeated:
            repetition = self.repetitions.get(operator.decode())
            census.n_sent_once += repetition is not None and repetition.is_overdue(passtime.last_heard, now)
