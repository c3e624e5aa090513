"""Warm restart: what is in memory is saved now and then, and read when the program starts again.

The file is a header, records, and a checksum: it is whole, or it is put aside. It holds passing times of minutes,
and nothing that was not public.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import CooperativeTask, Cooperator, TaskStopped
from twisted.logger import Logger

from govi_server.departures.board import Board
from govi_server.departures.cache import BoardCache
from govi_server.errors import StartupError
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.kv7_timetable import Update
from govi_server.kv78turbo.passtime import GeneralMessage
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.settings import SnapshotSettings

HEADER = b"govi-cache snapshot 1\n"
"""How a snapshot begins; another form gets another number."""

AT_ONCE = 500
"""Passes of a record: about a millisecond's work."""

_LENGTH = struct.Struct(">I")


class StopRecord(Struct, tag="stop", array_like=True):
    """Some live passes of a stop, and its messages."""

    code: str
    passes: dict[bytes, bytes]
    messages: list[GeneralMessage]


class HeardRecord(Struct, tag="heard", array_like=True):
    """When data owners were heard of."""

    heard: dict[str, float]
    updated: dict[str, str]


class PlanningRecord(Struct, tag="planning", array_like=True):
    """Some of the planning."""

    update: Update


class BoardRecord(Struct, tag="board", array_like=True):
    """A board that came from the gateway of a module."""

    module: str
    board: Board


Record = StopRecord | HeardRecord | PlanningRecord | BoardRecord


class Damaged(Exception):
    """A file that is no whole snapshot."""


def records_of(caches: Mapping[str, BoardCache], feed: Feed | None) -> Iterator[Record]:
    """Go through what is worth saving; what changes meanwhile is saved as it is when its turn comes."""
    for name, cache in caches.items():
        for board in cache.boards():
            yield BoardRecord(name, board)
    if feed is None:
        return
    for update in feed.timetable.updates():
        yield PlanningRecord(update)
    yield HeardRecord(dict(feed.passtimes.heard), dict(feed.passtimes.updated))
    for code in list(feed.passtimes.stops):
        stop = feed.passtimes.stops[code]
        passes = list(stop.passes.items())
        messages = list((stop.messages or {}).values())
        for at in range(0, max(len(passes), 1), AT_ONCE):
            yield StopRecord(code, dict(passes[at : at + AT_ONCE]), messages if at == 0 else [])


def take(record: Record, caches: Mapping[str, BoardCache], feed: Feed | None, now: float) -> None:
    """Put back what a record says, as far as it is still worth it."""
    if isinstance(record, BoardRecord):
        cache = caches.get(record.module)
        if cache is not None and 0 <= now - record.board.received_at <= cache.limits.stale:
            cache.put(record.board)
    elif feed is None:
        return
    elif isinstance(record, PlanningRecord):
        feed.timetable.apply(record.update)
    elif isinstance(record, HeardRecord):
        feed.passtimes.hear_again(record.heard, record.updated)
    else:
        feed.passtimes.put_back(record.code, record.passes, record.messages, now)


def write(records: Iterator[Record], path: Path) -> Iterator[None]:
    """Write a snapshot bit by bit, and put it in its place at once when it is whole. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    encode = msgspec.msgpack.Encoder().encode
    checksum = 0
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(HEADER)
            for record in records:
                data = encode(record)
                data = _LENGTH.pack(len(data)) + data
                checksum = zlib.crc32(data, checksum)
                file.write(data)
                yield
            file.write(_LENGTH.pack(0) + _LENGTH.pack(checksum))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(data: bytes) -> Iterator[Record]:
    """Read a snapshot; it is looked through before its first record is given. Raises Damaged."""
    if not data.startswith(HEADER):
        raise Damaged("it is no snapshot of this version")
    ends = len(data) - 2 * _LENGTH.size
    if ends < len(HEADER) or data[ends:] != _LENGTH.pack(0) + _LENGTH.pack(zlib.crc32(data[len(HEADER) : ends])):
        raise Damaged("it is not whole")
    return _records(data, ends)


def _records(data: bytes, ends: int) -> Iterator[Record]:
    decode = msgspec.msgpack.Decoder(Record).decode
    at = len(HEADER)
    while at < ends:
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        try:
            yield decode(memoryview(data)[at : at + length])
        except msgspec.MsgspecError as error:
            raise Damaged(f"a record cannot be read: {error}") from None
        at += length


class Snapshots(Service):
    """Reads the snapshot when it starts, saves one every now and then, and a last one when it stops."""

    log = Logger()

    def __init__(
        self,
        caches: Mapping[str, BoardCache],
        feed: Feed | None,
        settings: SnapshotSettings,
        clock: IReactorTime,
        cooperator: Cooperator,
    ) -> None:
        self._caches = caches
        self._feed = feed
        self._path = Path(settings.file).absolute()
        self._every = settings.every
        self._clock = clock
        self._cooperator = cooperator
        self._call: IDelayedCall | None = None
        self._work: CooperativeTask[Iterator[None]] | None = None
        self._is_read = False
        self.writable = True
        """Whether the last one could be written."""
        self.incidents = ThrottledWarnings(self.log, clock)

    def startService(self) -> None:
        """Read what there is. Raises CannotStart where none could be written."""
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            why = "may not be written" if self._path.parent.is_dir() else "is no directory"
            raise StartupError(f"cannot write the snapshot {self._path}: {self._path.parent} {why}")
        super().startService()
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            self._later()
        except OSError as error:
            self.log.warn("The snapshot {path} cannot be read: {error}", path=self._path, error=str(error))
            self._later()
        else:
            self._go(self._take(data))

    def stopService(self) -> None:
        """Save a last one, in one go, for nobody is served any more; not over one that is not yet read."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._work is not None:
            self._work.stop()
        if self._is_read:
            for _ in self._save():
                pass

    def _go(self, work: Iterator[None]) -> None:
        """Read or write bit by bit, and save again after a while."""
        self._call = None
        self._work = self._cooperator.cooperate(work)
        self._work.whenDone().addCallbacks(lambda _: self._later(), lambda failure: failure.trap(TaskStopped))

    def _later(self) -> None:
        self._work = None
        self._is_read = True
        self._call = self._clock.callLater(self._every, lambda: self._go(self._save()))

    def _save(self) -> Iterator[None]:
        try:
            yield from write(records_of(self._caches, self._feed), self._path)
            self.writable = True
        except OSError as error:
            self.writable = False
            text = "The snapshot {path} cannot be written: {error}"
            self.incidents.add("unwritable", text, path=self._path, error=str(error))

    def _take(self, data: bytes) -> Iterator[None]:
        now, count = self._clock.seconds(), 0
        try:
            for record in read(data):
                take(record, self._caches, self._feed, now)
                count += 1
                yield
        except Damaged as error:
            aside = self._path.with_name(self._path.name + ".damaged")
            self.log.warn("The snapshot is put aside as {path}: {error}", path=aside, error=str(error))
            try:
                os.replace(self._path, aside)
            except OSError as problem:
                self.log.warn("It cannot be put aside: {error}", error=str(problem))
            return
        took = self._clock.seconds() - now
        self.log.info("The snapshot is read: {n} records in {took:.1f} s", n=count, took=took)
