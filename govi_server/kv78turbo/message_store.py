"""Stores KV8's general messages with their stops (docs/protocols.md, sections 2.5 and 2.9)."""

from collections.abc import Callable, Mapping

from govi_server.kv78turbo.ctx import Records, Reject, texts
from govi_server.kv78turbo.general_message import GeneralMessage, Row, message_key, parse_message
from govi_server.kv78turbo.passtime_index import LiveStop
from govi_server.kv78turbo.stamps import (
    TICKS,
    TOMBSTONE_SECONDS,
    Stamp,
    Tombstones,
    is_older,
    read_stamp,
    stamp_of,
)

MAX_LEAD_SECONDS = 2
"""How much earlier than its publication a message may be stamped. A changed message is deleted and published again at
once (docs/protocols.md, section 2.5): in the captures, the message's timestamp is a second before its group's, with
which the deletion is stamped."""


class MessageStore:
    """Stores and deletes messages.

    stops: by TimingPointCode. add_stop: returns a stop, added if it is new, or None if it was rejected. set_heard:
    called with the operator of each row. changed: called with each changed stop. limit: maximum number of messages.
    """

    def __init__(
        self,
        stops: Mapping[str, LiveStop],
        add_stop: Callable[[bytes, Reject], LiveStop | None],
        set_heard: Callable[[str, float, Reject], None],
        changed: Callable[[LiveStop], None],
        limit: int,
    ) -> None:
        self._stops = stops
        self._add_stop = add_stop
        self._set_heard = set_heard
        self._changed = changed
        self._limit = limit
        self.tombstones: Tombstones[str] = Tombstones()
        self.n_messages = 0

    def ingest(self, records: Records, now: float, reject: Reject) -> None:
        """Ingest records of one of the two tables of messages. now: the time of receipt (epoch seconds)."""
        received = stamp_of(now)
        published = read_stamp(records.group.timestamp, received)
        published = received if published is None else published
        for line in records.lines:
            row = dict(zip(records.labels, texts(line), strict=True))
            key = message_key(row)
            if key is None:
                reject("key")
                continue
            self._set_heard(str(row["DataOwnerCode"]), now, reject)
            if records.table == "GENERALMESSAGEDELETE":
                self._delete(key, str(row["TimingPointCode"]), published, now, reject)
            else:
                stamp = read_stamp(row.get("MessageTimeStamp") or "", received)
                self._update(key, row, published if stamp is None else stamp, reject)

    def _update(self, key: str, row: Row, stamp: Stamp, reject: Reject) -> None:
        self._put(parse_message(key, row, stamp, reject), str(row["TimingPointCode"]), reject)

    def _put(self, message: GeneralMessage, code: str, reject: Reject) -> None:
        """Store a message, unless a newer one is stored or was removed."""
        stop = self._stops.get(code)
        stored = stop.messages.get(message.key) if stop is not None and stop.messages is not None else None
        removed = self.tombstones.stamp(message.key)
        if stored is not None and stored.fields == message.fields:
            return
        if is_older(message.stamp, stored.stamp if stored is not None else None) or (
            removed is not None and message.stamp <= removed  # a repeat of what was removed has the same stamp
        ):
            reject("older")
            return
        if stored is None and self.n_messages >= self._limit:
            reject("too many messages")
            return
        stop = self._add_stop(code.encode(), reject)
        if stop is not None:
            self.n_messages += stored is None
            stop.messages = stop.messages or {}
            stop.messages[message.key] = message
            self._changed(stop)

    def _delete(self, key: str, code: str, stamp: Stamp, now: float, reject: Reject) -> None:
        """Delete a message, unless it is newer, and let no older one bring it back."""
        stop = self._stops.get(code)
        stored = stop.messages.get(key) if stop is not None and stop.messages is not None else None
        if stored is not None and is_older(stamp, stored.stamp):
            reject("older")
            return
        if stop is not None and stored is not None:
            self._remove(stop, stored, now)
        self.tombstones.put(key, stamp - MAX_LEAD_SECONDS * TICKS, now + TOMBSTONE_SECONDS)

    def _remove(self, stop: LiveStop, message: GeneralMessage, now: float) -> None:
        assert stop.messages is not None
        del stop.messages[message.key]
        self.n_messages -= 1
        self.tombstones.put(message.key, message.stamp, now + TOMBSTONE_SECONDS)
        self._changed(stop)

    def restore(self, code: str, message: GeneralMessage, now: float, reject: Reject) -> None:
        """Store a message of a snapshot that has not ended. What is already stored arrived later."""
        stop = self._stops.get(code)
        stored = stop.messages.get(message.key) if stop is not None and stop.messages is not None else None
        if message.ends is not None and message.ends <= now:
            return
        if stored is None or is_older(stored.stamp, message.stamp):
            self._put(message, code, reject)

    def restore_tombstone(self, key: str, stamp: Stamp, until: float) -> None:
        """Restore the tombstone of a message, and remove the message if an older version has been stored since."""
        stop = self._stops.get(key.rpartition("_")[2])
        stored = stop.messages.get(key) if stop is not None and stop.messages is not None else None
        if stop is not None and stored is not None and stored.stamp <= stamp:
            self._remove(stop, stored, until - TOMBSTONE_SECONDS)
        self.tombstones.put(key, stamp, until)

    def sweep_stop(self, stop: LiveStop, now: float) -> None:
        """Remove a stop's messages that have ended."""
        for message in list((stop.messages or {}).values()):
            if message.ends is not None and message.ends <= now:
                self._remove(stop, message, now)
