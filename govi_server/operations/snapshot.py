"""Warm restarts: memory is saved to a snapshot at an interval, and restored at the next start.

A snapshot is a file with a header that names the stored columns of KV8 (those of kv78turbo/kv8_columns), records, and
a checksum. A damaged file is renamed. Snapshots contain passing times of the next hours, and only public data.
"""

import glob
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO, TypeVar

import msgspec
from msgspec import Struct
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import CooperativeTask, Cooperator, TaskStopped
from twisted.logger import Logger

from govi_server.departures.board import Board, Trip
from govi_server.departures.cache import BoardCache
from govi_server.errors import StartupError
from govi_server.kv78turbo.ctx import NULL
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.general_message import GeneralMessage
from govi_server.kv78turbo.kv7_reader import Update
from govi_server.kv78turbo.kv8_columns import KEY_NAMES, VALUE_NAMES
from govi_server.kv78turbo.passtime_index import StoredPasstime
from govi_server.kv78turbo.stamps import Stamp
from govi_server.runtime.text import pluralize
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.settings import SnapshotSettings

HEADER = b"govi-cache snapshot 2\n"
"""The first line of a snapshot, with the number of the format. The second line names the columns."""

HEADER_1 = b"govi-cache snapshot 1\n"
"""The first line of version 1, which does not name its columns."""

MAX_PASSTIMES = 500
"""Passtimes in a record, which needs about a millisecond."""

STEP_BYTES = 1 << 20
"""Bytes of which a step computes the checksum, which needs about a millisecond."""

_T = TypeVar("_T")
_LENGTH = struct.Struct(">I")


class Columns(Struct, frozen=True):
    """The columns of KV8's stored passtimes, in order."""

    key: tuple[str, ...] = KEY_NAMES
    values: tuple[str, ...] = VALUE_NAMES


COLUMNS_1 = Columns(
    (
        *("DataOwnerCode", "LocalServiceLevelCode", "LinePlanningNumber", "JourneyNumber", "FortifyOrderNumber"),
        *("OperationDate", "UserStopOrderNumber", "UserStopCode"),
    ),
    (
        *("LastUpdateTimeStamp", "ExpectedArrivalTime", "ExpectedDepartureTime", "TargetArrivalTime"),
        *("TargetDepartureTime", "TripStopStatus", "WheelChairAccessible", "JourneyStopType", "DestinationCode"),
        *("LineDirection", "JourneyPatternCode", "IsTimingStop", "SideCode", "NumberOfCoaches", "OperatorCode"),
        *("TimingPointDataOwnerCode", "MessageContent", "MessageType", "ReasonType", "SubReasonType"),
        *("ReasonContent", "AdviceType", "SubAdviceType", "AdviceContent", "LinePublicNumber", "DestinationName"),
    ),
)
"""The columns of version 1."""


class StopRecord(Struct, tag="stop", array_like=True):
    """Live passtimes of a stop, and its general messages. Stops with many passtimes have several records."""

    code: str
    passtimes: dict[bytes, bytes]
    messages: list[GeneralMessage]
    states: list[tuple[Stamp | None, Stamp | None, float, bool]] = []
    """Of each passtime: stamp, access_stamp, last_heard and is_repeated (see StoredPasstime)."""
    messages_heard: list[float] = []
    """When each message was last received (epoch seconds)."""


class OperatorsRecord(Struct, tag="heard", array_like=True):
    """The times of the operators' last messages."""

    last_heard: dict[str, float]
    last_update: dict[str, str]
    passtime_tombstones: dict[bytes, tuple[Stamp, float]] = {}
    message_tombstones: dict[str, tuple[Stamp, float]] = {}
    """Of removed records: their stamp, and when it is dropped (epoch seconds)."""
    intervals: dict[str, float] = {}
    """Seconds between two repetitions of the operators' passtimes."""


class PlanningRecord(Struct, tag="planning", array_like=True):
    """Part of the timetable."""

    update: Update


class StoredBoard(Struct, rename={"received_at": "made"}):
    """A Board, with the field names of the file."""

    code: str
    trips: tuple[Trip, ...]
    received_at: float
    envelope: tuple[tuple[str, str], ...] = ()


class BoardRecord(Struct, tag="board", array_like=True):
    """A cached board of a gateway's module."""

    module: str
    board: StoredBoard


Record = StopRecord | OperatorsRecord | PlanningRecord | BoardRecord


class DamagedSnapshot(Exception):
    """A file is not a complete snapshot."""


def records_of(caches: Mapping[str, BoardCache], feed: Feed | None) -> Iterator[Record]:
    """Yield the records to save; a change made between steps is included unless its part was already yielded."""
    for name, cache in caches.items():
        for board in cache.boards():
            yield BoardRecord(name, StoredBoard(board.code, board.trips, board.received_at, board.envelope))
    if feed is None:
        return
    for update in feed.timetable.updates():
        yield PlanningRecord(update)
    repetitions = feed.passtimes.repetitions.items()
    intervals = {operator: item.interval for operator, item in repetitions if item.interval is not None}
    last_heard, last_update = dict(feed.passtimes.last_heard), dict(feed.passtimes.last_update)
    yield OperatorsRecord(last_heard, last_update, intervals=intervals)
    for passtimes in _parts(feed.passtimes.tombstones.items()):
        yield OperatorsRecord({}, {}, dict(passtimes))
    for messages in _parts(feed.passtimes.message_tombstones.items()):
        yield OperatorsRecord({}, {}, {}, dict(messages))
    for code in list(feed.passtimes.stops):
        stop = feed.passtimes.stops.get(code)
        if stop is None:
            continue
        heard = [feed.passtimes.message_last_heard(key) for key in stop.messages or ()]
        yield StopRecord(code, {}, list((stop.messages or {}).values()), [], heard)
        for part in _parts(list(stop.passtimes.items())):
            yield _stop_record(code, part)
            for key, passtime in part:
                if passtime.code != code:  # moved to a stop whose records may have been yielded already
                    yield _stop_record(passtime.code, [(key, passtime)])


def _parts(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Yield items in parts of a record each."""
    return (items[start : start + MAX_PASSTIMES] for start in range(0, len(items), MAX_PASSTIMES))


def _stop_record(code: str, passtimes: Sequence[tuple[bytes, StoredPasstime]]) -> StopRecord:
    here = [(key, passtime) for key, passtime in passtimes if passtime.code == code]
    return StopRecord(
        code,
        {key: passtime.values for key, passtime in here},
        [],
        [(passtime.stamp, passtime.access_stamp, passtime.last_heard, passtime.is_repeated) for _, passtime in here],
    )


def restore(
    record: Record, caches: Mapping[str, BoardCache], feed: Feed | None, now: float, reject: Callable[[str], object]
) -> Iterator[None]:
    """Restore a record in steps, except data that is too old. reject: called with the kind of each rejected item."""
    if isinstance(record, BoardRecord):
        cache, board = caches.get(record.module), record.board
        present = cache.peek(board.code) if cache is not None else None
        if present is not None and present.board.received_at >= board.received_at:
            return  # it arrived since the start
        if cache is not None and 0 <= now - board.received_at <= cache.limits.stale:
            cache.put(Board(board.code, board.trips, board.received_at, board.envelope))
    elif feed is None:
        return
    elif isinstance(record, PlanningRecord):
        yield from feed.timetable.restore(record.update, reject)
    elif isinstance(record, OperatorsRecord):
        feed.passtimes.restore_operators(record.last_heard, record.last_update, record.intervals)
        feed.passtimes.restore_tombstones(record.passtime_tombstones, record.message_tombstones)
    else:
        if len(record.states) != len(record.passtimes):  # before they were saved
            record.states = [(None, None, 0.0, False)] * len(record.passtimes)
        for (key, values), state in zip(record.passtimes.items(), record.states, strict=True):
            feed.passtimes.restore_passtime(key, StoredPasstime(record.code, values, *state), reject)
        heard = record.messages_heard or [now] * len(record.messages)
        for message, last_heard in zip(record.messages, heard, strict=True):
            feed.passtimes.restore_message(record.code, message, last_heard, reject)


def write(records: Iterator[Record], path: Path) -> Iterator[None]:
    """Write a snapshot step by step; replace the previous one when it is complete. Raises OSError."""
    encode = msgspec.msgpack.Encoder().encode
    columns = msgspec.json.encode(Columns()) + b"\n"
    checksum = zlib.crc32(columns)
    # A file of its own, in case another process writes a snapshot of the same name.
    number, temporary = mkstemp(".new", f"{path.name}.", path.parent)
    try:
        with open(number, "wb") as file:
            file.write(HEADER + columns)
            begun = 0
            for record in records:
                data = encode(record)
                data = _LENGTH.pack(len(data)) + data
                checksum = zlib.crc32(data, checksum)
                file.write(data)
                if file.tell() - begun > STEP_BYTES:
                    file.flush()
                    _begin_writeback(number)
                    begun = file.tell()
                yield
            file.write(_LENGTH.pack(0) + _LENGTH.pack(checksum))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _begin_writeback(descriptor: int) -> None:
    """Let the kernel write a file to disk from now on: otherwise fsync() waits for all of it, 50 ms for 100 MB."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # Linux writes pages before it drops them


def read(file: BinaryIO) -> Iterator[Record | None]:
    """Verify the checksum of a snapshot, yielding None after each step, then yield its records.

    Raises DamagedSnapshot.
    """
    header = file.readline(len(HEADER))
    if header not in (HEADER, HEADER_1):
        raise DamagedSnapshot("not a snapshot of this program")
    begin, end = file.tell(), os.fstat(file.fileno()).st_size - 2 * _LENGTH.size
    checksum = 0
    for start in range(begin, end, STEP_BYTES):
        checksum = zlib.crc32(file.read(min(STEP_BYTES, end - start)), checksum)
        yield None
    if end < begin or file.read() != _LENGTH.pack(0) + _LENGTH.pack(checksum):
        raise DamagedSnapshot("incomplete")
    file.seek(begin)
    columns = COLUMNS_1
    if header == HEADER:
        try:
            columns = msgspec.json.decode(file.readline(end - begin), type=Columns)
        except msgspec.MsgspecError as error:
            raise DamagedSnapshot(f"invalid header: {error}") from None
    yield from _records(file, end, columns)


def _records(file: BinaryIO, end: int, columns: Columns) -> Iterator[Record]:
    decode = msgspec.msgpack.Decoder(Record).decode
    convert = _converter(columns)
    while file.tell() < end:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        try:
            record = decode(file.read(length))
        except msgspec.MsgspecError as error:
            raise DamagedSnapshot(f"unreadable record: {error}") from None
        if isinstance(record, StopRecord):
            record.passtimes = dict(convert(key, values) for key, values in record.passtimes.items())
        yield record


def _converter(stored: Columns) -> Callable[[bytes, bytes], tuple[bytes, bytes]]:
    """Return a function that maps stored keys and values to the current columns by name; missing ones become null."""
    index = {name: i for i, name in enumerate(stored.key + stored.values)}
    key_of, values_of = (itemgetter(*(index.get(name, -1) for name in names)) for names in (KEY_NAMES, VALUE_NAMES))

    def convert(key: bytes, values: bytes) -> tuple[bytes, bytes]:
        if key.count(b"|") != len(stored.key) - 1 or values.count(b"|") != len(stored.values) - 1:
            raise DamagedSnapshot("the fields of a passtime do not match the columns")
        if stored == Columns():
            return key, values
        fields = [*key.split(b"|"), *values.split(b"|"), NULL]
        return b"|".join(key_of(fields)), b"|".join(values_of(fields))

    return convert


class Snapshots(Service):
    """Restores the snapshot at startup; saves one at an interval, and at shutdown.

    caches: the board caches by module. feed: the live feed, or None.
    """

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
        self._interval = settings.every
        self._clock = clock
        self._cooperator = cooperator
        self._call: IDelayedCall | None = None
        self._task: CooperativeTask[Iterator[None]] | None = None
        self._is_restored = False
        self.writable = True
        """Whether the last snapshot was written."""
        self.incidents = ThrottledWarnings(self.log, clock)

    def startService(self) -> None:
        """Restore the snapshot, if it exists. Raises StartupError if snapshots cannot be written."""
        reason = ""
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            is_directory = self._path.parent.is_dir()
            reason = f"{self._path.parent} is not {'writable' if is_directory else 'a directory'}"
        elif self._path.is_dir():
            reason = "it is a directory"
        if reason:
            raise StartupError(f"snapshot.file (--snapshot): cannot write {self._path}: {reason}")
        super().startService()
        for unfinished in self._path.parent.glob(f"{glob.escape(self._path.name)}.*.new"):
            unfinished.unlink(missing_ok=True)  # the process was killed while it wrote
        if self._path.exists():
            self._run(self._restore())
        else:
            self._schedule()

    def stopService(self) -> None:
        """Save a last snapshot, unless restoring is incomplete; synchronously, since no more requests are served."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._task is not None:
            self._task.stop()
        if self._is_restored:
            for _ in self._save():
                pass

    def _run(self, steps: Iterator[None]) -> None:
        """Restore or save step by step, and save again after the interval."""
        self._call = None
        self._task = self._cooperator.cooperate(steps)
        self._task.whenDone().addCallbacks(lambda _: self._schedule(), lambda failure: failure.trap(TaskStopped))

    def _schedule(self) -> None:
        self._task = None
        self._is_restored = True
        self._call = self._clock.callLater(self._interval, lambda: self._run(self._save()))

    def _save(self) -> Iterator[None]:
        try:
            yield from write(records_of(self._caches, self._feed), self._path)
            self.writable = True
        except OSError as error:
            self.writable = False
            text = "Snapshot {path}: cannot be written: {error}"
            self.incidents.add("unwritable", text, path=self._path, error=str(error))

    def _restore(self) -> Iterator[None]:
        started, n_records = self._clock.seconds(), 0
        reject = partial(self._feed.reject, str(self._path)) if self._feed is not None else lambda kind: None
        try:
            with open(self._path, "rb") as file:
                for record in read(file):
                    if record is not None:
                        yield from restore(record, self._caches, self._feed, started, reject)
                        n_records += 1
                    yield
        except DamagedSnapshot as error:
            self._rename_damaged(str(error))
            return
        except OSError as error:
            self.log.warn("Snapshot {path}: cannot be read: {error}", path=self._path, error=str(error))
            return
        seconds = self._clock.seconds() - started
        self.log.info(
            "Snapshot {path}: {records} restored in {seconds:.1f} s",
            path=self._path,
            records=pluralize(n_records, "record"),
            seconds=seconds,
        )

    def _rename_damaged(self, reason: str) -> None:
        target = self._path.with_name(self._path.name + ".damaged")
        self.log.warn("Snapshot {path}: {reason}; renamed to {target}", path=self._path, reason=reason, target=target)
        try:
            os.replace(self._path, target)
        except OSError as error:
            self.log.warn("Snapshot {path}: cannot be renamed: {error}", path=self._path, error=str(error))
