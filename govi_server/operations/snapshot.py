"""Warm restarts: memory is saved to a snapshot at an interval, and restored at the next start.

A file that cannot be restored is renamed. Snapshots contain passing times of the next hours, and only public data.
"""

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import CooperativeTask, Cooperator, TaskStopped
from twisted.logger import Logger
from twisted.python.failure import Failure

from govi_server.departures.board import Board
from govi_server.departures.cache import BoardCache
from govi_server.errors import StartupError
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.kv8_columns import all_values
from govi_server.kv78turbo.passtime_index import StoredPasstime
from govi_server.operations.snapshot_file import (
    BoardRecord,
    DamagedSnapshot,
    OperatorsRecord,
    PlanningRecord,
    Record,
    StopRecord,
    StoredBoard,
    read,
    write,
)
from govi_server.runtime.text import pluralize
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.settings import SnapshotSettings

MAX_PASSTIMES = 500
"""Passtimes in a record, which needs about a millisecond."""

_T = TypeVar("_T")


def records_of(caches: Mapping[str, BoardCache], feed: Feed | None) -> Iterator[Record]:
    """Yield the records to save; a change made between steps is included unless its part was already yielded."""
    for name, cache in caches.items():
        for board in cache.boards():
            yield BoardRecord(name, StoredBoard(board.code, board.trips, board.received_at, board.envelope))
    if feed is not None:
        yield from _records_of_feed(feed)


def _records_of_feed(feed: Feed) -> Iterator[Record]:
    # Operators first, before much data has arrived: the time before it was no pause between two repetitions.
    passtimes = feed.passtimes
    intervals = {
        operator: item.interval for operator, item in passtimes.repetitions.items() if item.interval is not None
    }
    yield OperatorsRecord(dict(passtimes.last_heard), dict(passtimes.last_update), intervals=intervals)
    for update in feed.timetable.updates():
        yield PlanningRecord(update)
    for part in _parts(passtimes.tombstones.items()):
        yield OperatorsRecord({}, {}, dict(part))
    for messages in _parts(passtimes.message_tombstones.items()):
        yield OperatorsRecord({}, {}, {}, dict(messages))
    for code in list(passtimes.stops):
        stop = passtimes.stops.get(code)
        if stop is not None:
            heard = [passtimes.message_last_heard(key) for key in stop.messages or ()]
            yield StopRecord(code, {}, list((stop.messages or {}).values()), [], heard)
            yield from _records_of_passtimes(code, list(stop.passtimes.items()))


def _records_of_passtimes(code: str, passtimes: Sequence[tuple[bytes, StoredPasstime]]) -> Iterator[Record]:
    """Yield the records of a stop's passtimes."""
    for part in _parts(passtimes):
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
        {key: all_values(passtime.values) for key, passtime in here},
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
            task = self._run(self._restore())
            if self._feed is not None:
                restoration = self._feed.restoration
                restoration.begin()
                task.whenDone().addBoth(lambda _: restoration.end())
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

    def _run(self, steps: Iterator[None]) -> CooperativeTask[Iterator[None]]:
        """Restore or save step by step, and save again after the interval."""
        self._call = None
        self._task = task = self._cooperator.cooperate(steps)
        task.whenDone().addCallbacks(lambda _: self._schedule(), self._failed)
        return task

    def _failed(self, failure: Failure) -> None:
        """Log an unexpected exception, and save again after the interval; do nothing if the task was stopped."""
        if not failure.check(TaskStopped):
            self.log.failure("Snapshot {path}: saving failed", failure, path=self._path)
            self._schedule()

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
            self._rename(str(error))
            return
        except OSError as error:
            self._rename(f"cannot be read ({error})")
            return
        except Exception:  # a fault of the program, for whose report the file is needed
            self.log.failure("Snapshot {path}: restoring failed", path=self._path)
            self._rename("cannot be restored")
            return
        seconds = self._clock.seconds() - started
        self.log.info(
            "Snapshot {path}: {records} restored in {seconds:.1f} s",
            path=self._path,
            records=pluralize(n_records, "record"),
            seconds=seconds,
        )

    def _rename(self, reason: str) -> None:
        """Put the file aside, which the next one would replace."""
        target = self._path.with_name(self._path.name + ".damaged")
        self.log.warn("Snapshot {path}: {reason}; renamed to {target}", path=self._path, reason=reason, target=target)
        try:
            os.replace(self._path, target)
        except OSError as error:
            self.log.warn("Snapshot {path}: cannot be renamed: {error}", path=self._path, error=str(error))
