"""KV8: the live passtimes and general messages of each stop (docs/protocols.md, sections 2.5 to 2.8).

A country has millions of passtimes, so each is stored as two byte strings, key and values, taken from its row.
kv8_columns.parse_passtime() parses them when a stop is requested.

Longer than other modules: restoring a snapshot follows the same rules as ingesting a row, and stands beside it.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import date, timedelta

from govi_server.departures.times import local_date
from govi_server.departures.timing_point import is_timing_point_code
from govi_server.kv78turbo.ctx import NULL, Records, Reject
from govi_server.kv78turbo.general_message import GeneralMessage
from govi_server.kv78turbo.kv8_columns import (
    NO_RARE_VALUES,
    TableLayout,
    expires_at,
    is_valid_key,
    is_valid_values,
    table_layout,
    without_invalid,
    without_long_values,
)
from govi_server.kv78turbo.message_store import MessageStore
from govi_server.kv78turbo.operators import Operators
from govi_server.kv78turbo.passtime_index import (
    RETENTION_SECONDS,
    LiveStop,
    PasstimeIndex,
    StoredPasstime,
    merge,
)
from govi_server.kv78turbo.repetition import MIN_OVERDUE_SECONDS, Census
from govi_server.kv78turbo.stamps import (
    TOMBSTONE_SECONDS,
    FirstReceipts,
    ReceivedStamps,
    Stamp,
    Tombstones,
    is_older,
    read_stamp,
    stamp_of,
)
from govi_server.settings import PasstimeSettings

DAYS_BACK, DAYS_AHEAD = 2, 7
"""Operating dates that are accepted, relative to today."""

MAX_LAYOUTS = 100
"""Cached table layouts; publishers use a few."""

STEP_REMOVALS = 500
"""Passtimes that a step of ingesting may remove to make room: about two milliseconds of work."""

PASSTIME_DEFAULTS = PasstimeSettings()


class Passtimes:
    """Stores the data of KV8. now: returns the time in epoch seconds."""

    def __init__(self, now: Callable[[], float], limits: PasstimeSettings = PASSTIME_DEFAULTS) -> None:
        self._now = now
        self._limits = limits
        self._index = PasstimeIndex(limits, lambda stop: self._messages.remove_stop(stop))
        self._layouts: dict[tuple[str, ...], TableLayout | None] = {}
        self._today: date | None = None
        self._dates: frozenset[bytes] = frozenset()
        self.stops = self._index.stops
        self.journeys = self._index.journeys
        self.lines = self._index.lines
        self._operators = Operators()
        self.last_heard = self._operators.last_heard
        self.last_update = self._operators.last_update
        self.repetitions = self._operators.repetitions
        self.tombstones: Tombstones[bytes] = Tombstones()
        """Of passtimes that have expired."""
        self._receipts = FirstReceipts()
        self._messages = MessageStore(
            self.stops, self._stop, self._operators.data_received, self._index.changed, limits
        )
        self.message_tombstones = self._messages.tombstones

    @property
    def reliability_version(self) -> int:
        """Changes when passtimes may begin or cease to be overdue for other reasons than time and repetition."""
        return self._operators.reliability_version

    @property
    def n_messages(self) -> int:
        """The number of stored general messages."""
        return self._messages.n_messages

    @property
    def n_passtimes(self) -> int:
        """The number of stored passtimes."""
        return self._index.n_passtimes

    @property
    def n_message_bytes(self) -> int:
        """The memory of the stored general messages."""
        return self._messages.n_bytes

    @property
    def n_bytes(self) -> int:
        """The memory of the stored passtimes."""
        return self._index.n_bytes

    @property
    def evictions(self) -> dict[str, int]:
        """The number of entries evicted to make room, by table."""
        return {
            "passes": self._index.n_evicted,
            "stops": self.stops.n_evicted,
            "messages": self._messages.n_evicted,
            "owners": self.last_heard.n_evicted,
        }

    def ingest(self, records: Records, reject: Reject) -> Generator[None, None, int]:
        """Store records of KV8 in steps and return their number; return 0 for other tables."""
        if records.table == "DATEDPASSTIME":
            yield from self._ingest_passtimes(records, reject)
        elif records.table in ("GENERALMESSAGEUPDATE", "GENERALMESSAGEDELETE"):
            self._messages.ingest(records, self._now(), reject)
        else:
            return 0
        return len(records.lines)

    # Passtimes.

    def _ingest_passtimes(self, records: Records, reject: Reject) -> Iterator[None]:
        layout = self._layout(records.labels)
        if layout is None:
            for _ in records.lines:
                reject("key column")
            return
        now = self._now()
        self._set_dates(now)
        key_of, values_of, code_at, type_at, date_at, operator_at, splits, has_missing = layout
        join, dates, stops, stamps = b"|".join, self._dates, self.stops, ReceivedStamps(now)
        latest_rows: dict[bytes, tuple[bytes, float | None]] = {}  # of each operator, and when it was last heard
        n_removed = self._index.n_removed
        for line in records.lines:
            if self._index.n_removed > n_removed + STEP_REMOVALS:
                n_removed = self._index.n_removed
                yield
            fields = line.split(b"|", splits)
            if fields[type_at] == b"INFOPOINT":
                continue  # not for passengers
            if has_missing:
                fields.append(NULL)
            if fields[date_at] not in dates:
                reject("date")
                continue
            key, values = join(key_of(fields)), join(values_of(fields)).removesuffix(NO_RARE_VALUES)
            code = fields[code_at].decode()
            stop = stops.get(code)
            stored = stop.passtimes.get(key) if stop is not None else None
            if stored is None or stored.values != values:  # otherwise it is as valid as when it was stored
                if stored is None and not is_valid_key(key):
                    reject("key")
                    continue
                if not (is_valid_values(values) or is_valid_values(values := without_invalid(values, reject))):
                    reject("time")
                    continue
                values = without_long_values(values, reject)
            if stored is not None and stored.values == values:
                last_heard: float | None = stored.last_heard
                self._repeat(key, stored, stored.last_heard, now)
            else:
                last_heard = self._store(key, stored, values, code, stamps, reject)
            latest_rows[fields[operator_at]] = values, last_heard
        published = read_stamp(records.group.timestamp, stamps.received)
        for name, (values, last_heard) in latest_rows.items():
            operator = name.decode()
            self._operators.data_received(operator, now, reject)
            self._operators.add_gap(operator, last_heard, now, len(records.lines), published)
            self._operators.updated(operator, values.partition(b"|")[0].decode(), now)

    def _store(
        self,
        key: bytes,
        stored: StoredPasstime | None,
        values: bytes,
        code: str,
        stamps: ReceivedStamps,
        reject: Reject,
    ) -> float | None:
        """Store a passtime, unless a newer version is stored; return when it was last heard, None if never.

        stored: its version at this stop.
        """
        now = stamps.now
        timestamp = values.partition(b"|")[0]
        stamp = self._receipts.stamp(key, timestamp, stamps[timestamp], stamps.received)
        if stored is None:
            stored = self._index.find(key)  # it may have been at another stop
            if stored is None:
                self._store_new(key, values, code, stamp, now, reject)
                return None
        last_heard = stored.last_heard
        if is_older(stamp, stored.stamp):
            latest = merge(stored, StoredPasstime(stored.code, values, stamp, stamp, last_heard, True))
            if latest.values == stored.values:
                stored.access_stamp = latest.access_stamp  # it may confirm the accessibility
                reject("older")
            else:
                self._index.update(key, stored, latest)
            return None
        if code != stored.code:
            if self._stop(code, now, reject) is None:
                return None
            if stored.code not in self.stops:  # evicted to make room for this one
                self._store_new(key, values, code, stamp, now, reject)
                return None
        self._index.update(key, stored, merge(stored, StoredPasstime(code, values, stamp, stamp, now, True)))
        self._repeat(key, stored, last_heard, now)
        return last_heard

    def _repeat(self, key: bytes, stored: StoredPasstime, last_heard: float, now: float) -> None:
        """Record that a passtime is received again, before at last_heard. This changes its stop if it was overdue."""
        stored.last_heard, stored.is_repeated = now, True
        if stored.cohort:
            self._index.repeat(key, stored, now)
        if stored.code in self.stops.unconfirmed:  # a confirmed one is in use while it has passtimes
            self.stops.repeat(stored.code, now)
        if now - last_heard > MIN_OVERDUE_SECONDS and self._operators.was_overdue(
            key.partition(b"|")[0].decode(), last_heard, now
        ):
            self._index.changed(self.stops[stored.code])

    def _store_new(
        self, key: bytes, values: bytes, code: str, stamp: Stamp | None, now: float, reject: Reject
    ) -> None:
        if is_older(stamp, self.tombstones.stamp(key)):
            reject("older")
        else:
            self._add(key, StoredPasstime(code, values, stamp, stamp, now, False), now, reject)

    def _add(self, key: bytes, passtime: StoredPasstime, now: float, reject: Reject) -> None:
        """Add a passtime that is not stored, if there is room."""
        if self._index.make_room(key, passtime, reject) and self._stop(passtime.code, now, reject) is not None:
            self._index.add(key, passtime, now)

    def _stop(self, code: str, now: float, reject: Reject) -> LiveStop | None:
        """Return a stop that is received, added if it is new; reject it and return None if there is no room."""
        if code in self.stops:
            self.stops.repeat(code, now)
        elif not is_timing_point_code(code):
            reject("TimingPointCode")
        elif not self.stops.put(code, LiveStop(code), now):
            reject("too many stops")
        return self.stops.get(code)

    def confirm_stop(self, code: str) -> None:
        """Record that a stop was requested, so that it and its messages are not evicted."""
        stop = self.stops.get(code)
        if stop is not None:
            self.stops.confirm(code)
            self._messages.confirm(stop)

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

    def message_last_heard(self, key: str) -> float:
        """Return when the feed last sent a stored message (epoch seconds)."""
        return self._messages.last_heard(key)

    def watch_keys(self, key_changed: Callable[[bytes, str], object]) -> None:
        """Call a function with the key and the TimingPointCode of each passtime that is added or removed."""
        self._index.key_changed = key_changed

    def has_passtime(self, key: bytes) -> bool:
        """Return whether a passtime with this key is stored, at any TimingPoint."""
        return self._index.find(key) is not None

    # Restoring a snapshot.

    def restore_passtime(self, key: bytes, restored: StoredPasstime, reject: Reject) -> None:
        """Store a passtime of a snapshot if it is valid and not expired. What is already stored arrived later."""
        now = self._now()
        restored.values = restored.values.removesuffix(NO_RARE_VALUES)
        if not (is_valid_key(key) and is_valid_values(restored.values)):
            return
        operator = key.partition(b"|")[0].decode()
        restored.last_heard = min(restored.last_heard or self.last_heard.get(operator, now), now)
        if restored.stamp is None:  # older snapshots do not contain it
            restored.stamp = restored.access_stamp = ReceivedStamps(now)[restored.values.partition(b"|")[0]]
        if expires_at(key, restored.values, restored.updated_by) <= now:
            return
        if is_older(restored.stamp, self.tombstones.stamp(key)):
            reject("older")
        elif self._index.find(key) is None:
            self._add(key, restored, now, reject)
        elif self._stop(restored.code, now, reject) is not None:
            stored = self._index.find(key)
            if stored is None:  # its stop was evicted to make room for this one
                self._add(key, restored, now, reject)
            else:
                self._index.update(key, stored, merge(restored, stored))

    def restore_message(self, code: str, message: GeneralMessage, last_heard: float, reject: Reject) -> None:
        """Store a message of a snapshot. last_heard: when the feed last sent it (epoch seconds)."""
        now = self._now()
        if not message.stamp:  # older snapshots do not contain it
            stamp = read_stamp(dict(message.fields).get("MessageTimeStamp") or "", stamp_of(now))
            message = replace(message, stamp=stamp or 0)
        self._messages.restore(code, message, min(last_heard, now), now, reject)

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
        """Restore the operators' latest updates, and the intervals of their repetitions."""
        self._operators.restore(last_heard, last_update, intervals, self._now())

    def add_outage(self, since: float) -> None:
        """Record that the feed has failed since a moment (epoch seconds) until now."""
        self._operators.add_outage(since, self._now())

    # Removing expired data.

    def sweep(self) -> Iterator[None]:
        """Remove expired passtimes and messages; yields after each stop."""
        now = self._now()
        self._operators.set_back(now)
        censuses: dict[str, Census] = {}
        for code in list(self.stops):
            stop = self.stops.get(code)
            if stop is None:
                continue
            now = self._now()
            for key, passtime in list(stop.passtimes.items()):
                passtime.last_heard = min(passtime.last_heard, now)
                if expires_at(key, passtime.values, passtime.updated_by) > now and not _is_forgotten(passtime, now):
                    self._operators.count(key, passtime, now, censuses)
                    continue
                self._index.remove(key, passtime)
                if passtime.stamp is not None:  # an older version might be expected later
                    self.tombstones.put(key, passtime.stamp, now + TOMBSTONE_SECONDS)
            self._messages.sweep_stop(stop, now)
            yield
        yield from self._operators.sweep(censuses, now)
        yield from self.stops.sweep(now, lambda code: self.stops[code].passtimes or self.stops[code].messages)
        self.tombstones.sweep(now)
        self._messages.sweep(now)
        self._receipts.sweep(now)


def _is_forgotten(passtime: StoredPasstime, now: float) -> bool:
    """Return whether the feed no longer repeats a passtime. Old snapshots do not contain when it last did."""
    return 0 < passtime.last_heard < now - RETENTION_SECONDS
