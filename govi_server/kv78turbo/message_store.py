"""Stores KV8's general messages with their stops (docs/protocols.md, sections 2.5 and 2.9)."""

from collections.abc import Callable, Mapping
from sys import intern

from govi_server.departures.times import DAY
from govi_server.kv78turbo.bounded_table import BoundedTable, largest_cohort
from govi_server.kv78turbo.ctx import Records, Reject, texts
from govi_server.kv78turbo.general_message import MAX_MESSAGE_BYTES, GeneralMessage, message_key, parse_message
from govi_server.kv78turbo.passtime_index import LiveStop
from govi_server.kv78turbo.stamps import (
    TICKS,
    TOMBSTONE_SECONDS,
    FirstReceipts,
    Stamp,
    Tombstones,
    is_older,
    read_stamp,
    stamp_of,
)
from govi_server.settings import PasstimeSettings

MAX_LEAD_SECONDS = 2
"""How much earlier than its publication a message may be stamped. A changed message is deleted and published again at
once (docs/protocols.md, section 2.5): in the captures, the message's timestamp is a second before its group's, with
which the deletion is stamped."""


MAX_STOP_MESSAGES = 100
"""Messages of a stop; it has a few."""

RETENTION_SECONDS = DAY
"""How long a message without an end is retained after the feed last sent it: its deletion may have been missed."""

MAX_END_SECONDS = 366 * DAY
"""Messages that end later have no end: 9999-12-31 is one."""


class MessageStore:
    """Stores and deletes messages.

    stops: by TimingPointCode. add_stop: returns a stop, added if it is new, or None if it was rejected.
    data_received: called with the operator of each row. changed: called with each changed stop.
    """

    def __init__(
        self,
        stops: Mapping[str, LiveStop],
        add_stop: Callable[[str, float, Reject], LiveStop | None],
        data_received: Callable[[str, float, Reject], None],
        changed: Callable[[LiveStop], None],
        limits: PasstimeSettings,
    ) -> None:
        self._stops = stops
        self._add_stop = add_stop
        self._data_received = data_received
        self._changed = changed
        min_size = limits.message_bytes // limits.messages  # so that the limit in bytes limits the number as well
        self._messages: BoundedTable[str, GeneralMessage] = BoundedTable(
            limits.message_bytes,
            RETENTION_SECONDS,
            size_of=lambda message: max(message.size, min_size),
            remove=self._evict,
        )
        self.tombstones: Tombstones[str] = Tombstones()
        self._receipts = FirstReceipts()

    @property
    def n_messages(self) -> int:
        """The number of stored messages."""
        return len(self._messages)

    @property
    def n_bytes(self) -> int:
        """The memory of the stored messages."""
        return self._messages.size

    @property
    def n_evicted(self) -> int:
        """The number of messages evicted to make room."""
        return self._messages.n_evicted

    def last_heard(self, key: str) -> float:
        """Return when a message was last received (epoch seconds)."""
        return self._messages.last_heard(key)

    def ingest(self, records: Records, now: float, reject: Reject) -> None:
        """Ingest records of one of the two tables of messages. now: the time of receipt (epoch seconds)."""
        received = stamp_of(now)
        published = read_stamp(records.group.timestamp, received)
        published = received if published is None else published
        labels = [intern(label) for label in records.labels]
        for line in records.lines:
            row = dict(zip(labels, texts(line), strict=True))
            key = message_key(row)
            if key is None:
                reject("key")
                continue
            self._data_received(str(row["DataOwnerCode"]), now, reject)
            if records.table == "GENERALMESSAGEDELETE":
                stamp = self._receipts.stamp(key.encode(), records.group.timestamp.encode(), published, received)
                self._delete(key, str(row["TimingPointCode"]), stamp or published, now, reject)
            else:
                timestamp = row.get("MessageTimeStamp") or ""
                stamp = self._receipts.stamp(
                    key.encode(), timestamp.encode(), read_stamp(timestamp, received), received
                )
                message = parse_message(key, row, published if stamp is None else stamp, reject)
                self._put(message, str(row["TimingPointCode"]), now, reject)

    def _put(self, message: GeneralMessage, code: str, now: float, reject: Reject) -> None:
        """Store a message, unless a newer one is stored or was removed."""
        stop = self._stops.get(code)
        stored = stop.messages.get(message.key) if stop is not None and stop.messages is not None else None
        removed = self.tombstones.stamp(message.key)
        if stored is not None and stored.fields == message.fields:
            self._messages.repeat(message.key, now)
            return
        if is_older(message.stamp, stored.stamp if stored is not None else None) or (
            removed is not None and message.stamp <= removed  # a repeat of what was removed has the same stamp
        ):
            reject("older")
            return
        if message.size > MAX_MESSAGE_BYTES:
            reject("length")
            return
        stop = self._add_stop(code, now, reject)
        if stop is None:
            return
        if stored is None and len(stop.messages or ()) >= MAX_STOP_MESSAGES:
            for key in largest_cohort((key, self._messages.cohort(key)) for key in stop.messages or ())[:1]:
                self._evict(key)
        if (stored is None and len(stop.messages or ()) >= MAX_STOP_MESSAGES) or not self._messages.put(
            message.key, message, now
        ):
            reject("too many messages")
            return
        stop.messages = stop.messages or {}
        stop.messages[message.key] = message
        self._changed(stop)

    def _evict(self, key: str) -> None:
        """Remove a message that the feed may send again."""
        stop = self._stops[key.rpartition("_")[2]]
        assert stop.messages is not None
        del stop.messages[key]
        self._messages.discard(key)
        self._changed(stop)

    def remove_stop(self, stop: LiveStop) -> None:
        """Remove all messages of a stop that is evicted."""
        for key in list(stop.messages or ()):
            self._evict(key)

    def confirm(self, stop: LiveStop) -> None:
        """Record that a stop's messages were requested, so that they are not evicted."""
        for key in stop.messages or ():
            self._messages.confirm(key)

    def _delete(self, key: str, code: str, stamp: Stamp, now: float, reject: Reject) -> None:
        """Delete a message, unless it is newer, and let no older one bring it back."""
        stop = self._stops.get(code)
        stored = stop.messages.get(key) if stop is not None and stop.messages is not None else None
        if stored is not None and is_older(stamp, stored.stamp):
            reject("older")
            return
        if stored is not None:
            self._remove(stored, now)
        self.tombstones.put(key, stamp - MAX_LEAD_SECONDS * TICKS, now + TOMBSTONE_SECONDS)

    def _remove(self, message: GeneralMessage, now: float) -> None:
        self._evict(message.key)
        self.tombstones.put(message.key, message.stamp, now + TOMBSTONE_SECONDS)

    def restore(self, code: str, message: GeneralMessage, last_heard: float, now: float, reject: Reject) -> None:
        """Store a message of a snapshot that has not ended. What is already stored arrived later."""
        stop = self._stops.get(code)
        stored = stop.messages.get(message.key) if stop is not None and stop.messages is not None else None
        if message.ends is not None and message.ends <= now:
            return
        if stored is None or is_older(stored.stamp, message.stamp):
            self._put(message, code, now, reject)
            if message.key in self._messages:
                self._messages.restore_last_heard(message.key, last_heard)

    def restore_tombstone(self, key: str, stamp: Stamp, until: float) -> None:
        """Restore the tombstone of a message, and remove the message if an older version has been stored since."""
        stop = self._stops.get(key.rpartition("_")[2])
        stored = stop.messages.get(key) if stop is not None and stop.messages is not None else None
        if stored is not None and stored.stamp <= stamp:
            self._remove(stored, until - TOMBSTONE_SECONDS)
        self.tombstones.put(key, stamp, until)

    def sweep(self, now: float) -> None:
        """Drop what is known of removed and repeated messages and is no longer needed."""
        self.tombstones.sweep(now)
        self._receipts.sweep(now)

    def sweep_stop(self, stop: LiveStop, now: float) -> None:
        """Remove a stop's messages that have ended, and those without an end that the feed no longer sends."""
        for message in list((stop.messages or {}).values()):
            if message.ends is not None and message.ends <= now:
                self._remove(message, now)
            elif (message.ends is None or message.ends > now + MAX_END_SECONDS) and self._messages.is_idle(
                message.key, now
            ):
                self._evict(message.key)
