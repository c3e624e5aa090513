"""Tests of operations.snapshot and operations.snapshot_file: a warm restart."""

import os
import struct
import zlib
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest import mock

import msgspec
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.board import Board, Trip
from govi_server.departures.cache import BoardCache
from govi_server.errors import StartupError
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.kv8_columns import KEY_NAMES, VALUE_NAMES, all_values
from govi_server.operations.snapshot import Snapshots
from govi_server.operations.snapshot_file import (
    HEADER,
    BoardRecord,
    Columns,
    OperatorsRecord,
    Record,
    StopRecord,
    StoredBoard,
    read,
    write,
)
from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.settings import SnapshotSettings
from tests import feed as kv
from tests.client import NOW
from tests.doubles import FakeSource, ingest, live_feed

CODE = "57330430"
FEED_CODE = "30000001"
VERSION_1 = Path(__file__).with_name("snapshot_1.bin")
"""A snapshot that version 1 wrote, with a board, a planned passtime, a live one and a general message."""


def snapshot_file(columns: Columns, *records: Record) -> bytes:
    """Return a snapshot with these columns and records."""
    data = [msgspec.msgpack.encode(record) for record in records]
    content = msgspec.json.encode(columns) + b"\n" + b"".join(struct.pack(">I", len(part)) + part for part in data)
    return HEADER + content + bytes(4) + struct.pack(">I", zlib.crc32(content))


class Program(NamedTuple):
    """The components of a program that a snapshot contains."""

    cache: BoardCache
    feed: Feed


class SnapshotTests(SynchronousTestCase):
    """Warm restart."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "snapshot"
        self.clock = Clock()
        self.clock.advance(NOW)
        self.program = self.make_program()

    def make_program(self) -> Program:
        """Return the components of a program that has just started."""
        return Program(BoardCache(FakeSource(), self.clock), live_feed(self.clock))

    def make_snapshots(self, program: Program, path: str = "") -> Snapshots:
        settings = SnapshotSettings(path or str(self.path), 60.0)
        cooperator = CooperativeRunner(self.clock).cooperator
        return Snapshots({"kv55": program.cache}, program.feed, settings, self.clock, cooperator)

    def start(self, program: Program) -> Snapshots:
        """Start the snapshots of a program, which reads the existing one."""
        snapshots = self.make_snapshots(program)
        snapshots.startService()
        self.clock.pump([0.01] * 100)
        return snapshots

    def fill(self) -> None:
        self.program.cache.put(Board(CODE, (Trip(operating_date="2026-01-01"),), NOW))
        ingest(
            self.program.feed, kv.planning({}), kv.calendar("2026-01-01"), kv.passtimes({}), kv.general_message({})
        )

    def save(self) -> None:
        """Fill the program and stop it."""
        self.fill()
        self.start(self.program).stopService()

    def stored_values(self) -> dict[bytes, bytes]:
        """Return the values of the stored passtimes by key."""
        passtimes = self.program.feed.passtimes.stops[FEED_CODE].passtimes
        return {key: all_values(passtime.values) for key, passtime in passtimes.items()}

    def restart(self) -> tuple[Program, list[str]]:
        """Return a program that has read the snapshot, and the lines that its snapshots logged."""
        program = self.make_program()
        with capturedLogs() as events:
            self.start(program)
        lines = [formatEvent(event) for event in events]
        return program, [line for line in lines if line.startswith("Snapshot ")]

    def test_restart_restores_memory(self) -> None:
        """Boards, departures and planned passtimes are restored after a clean stop and a start."""
        self.save()
        program, _ = self.restart()
        before = self.program.feed.boards.board(FEED_CODE, 86400)
        self.assertEqual(program.cache.board(CODE)[0], "hit")
        self.assertEqual((len(before.passtimes), len(before.messages)), (1, 1))
        after = program.feed.boards.board(FEED_CODE, 86400)
        self.assertEqual(after.passtimes, before.passtimes)
        self.assertEqual(msgspec.structs.replace(after, entries=()), msgspec.structs.replace(before, entries=()))
        self.assertEqual(program.feed.passtimes.last_heard, self.program.feed.passtimes.last_heard)
        self.assertEqual(program.feed.timetable.n_planned, 1)

    def test_requests_wait_meanwhile(self) -> None:
        """Requests wait from the start until the snapshot is restored, damaged or not, or the program stops."""
        self.save()
        content = self.path.read_bytes()
        for stored in (content, content[:-9]):
            self.path.write_bytes(stored)
            program = self.make_program()
            snapshots = self.make_snapshots(program)
            snapshots.startService()
            self.assertTrue(program.feed.restoration.is_running)
            self.clock.pump([0.01] * 100)
            self.assertFalse(program.feed.restoration.is_running)
            snapshots.stopService()
        self.path.write_bytes(content)
        program = self.make_program()
        snapshots = self.make_snapshots(program)
        snapshots.startService()
        snapshots.stopService()
        self.assertFalse(program.feed.restoration.is_running)

    def test_newer_content_is_kept(self) -> None:
        """Boards and names that arrived since the start are not replaced by those of the snapshot."""
        self.save()
        self.clock.advance(10)
        program = self.make_program()
        program.cache.put(Board(CODE, (), NOW + 5))
        ingest(program.feed, kv.planning(lines=[{"LinePublicNumber": "N4"}]))
        self.start(program)
        entry = program.cache.peek(CODE)
        assert entry is not None
        self.assertEqual(entry.board.received_at, NOW + 5)
        self.assertEqual(program.feed.timetable.lines["LIN", "L004"].public_number, "N4")

    def test_future_times_are_dropped(self) -> None:
        """Times in the future, from a clock that was ahead, are dropped: they would keep operators fresh."""
        passtimes = self.program.feed.passtimes
        passtimes.restore_operators({"A": NOW + 3600, "B": NOW - 5}, {}, {})
        self.assertEqual(passtimes.last_heard, {"B": NOW - 5})

    def test_expired_content_is_dropped(self) -> None:
        """Boards and passtimes that have expired by the next start are not restored."""
        self.save()
        self.clock.advance(2 * 86400)
        program, _ = self.restart()
        self.assertEqual((program.cache.entries, program.feed.passtimes.n_passtimes), (0, 0))

    def test_snapshot_every_minute(self) -> None:
        """A complete snapshot is written every minute."""
        snapshots = self.start(self.program)
        self.fill()
        self.assertFalse(self.path.exists())
        self.clock.pump([60, *[0.01] * 100])
        self.assertTrue(self.path.read_bytes().startswith(HEADER))
        self.assertEqual([path.name for path in self.path.parent.iterdir()], ["snapshot"])
        snapshots.stopService()

    def test_large_snapshot_is_written_to_disk_in_between(self) -> None:
        """The kernel writes parts of a large snapshot while the next ones are made, so that its end is brief."""
        synced: list[int] = []
        self.patch(os, "posix_fadvise", lambda number, *arguments: synced.append(os.fstat(number).st_size))
        board = BoardRecord("kv55", StoredBoard(CODE, (Trip(destination_name="x" * 100_000),), NOW))
        for _ in write(iter([board] * 50), self.path):
            pass
        self.assertGreater(len(synced), 3)
        self.assertLess(max(after - before for before, after in pairwise([0, *synced])), 2 << 20)

    def test_two_programs_write_one_file(self) -> None:
        """Snapshots that two programs write at the same time are complete; what a killed program left is removed."""
        first, second = (write(iter([OperatorsRecord({name: NOW}, {})] * 3), self.path) for name in "AB")
        for _ in zip(first, second, strict=True):
            pass
        with open(self.path, "rb") as file:
            self.assertEqual(sum(record is not None for record in read(file)), 3)
        self.path.with_name("snapshot.x.new").touch()
        self.start(self.program).stopService()
        self.assertEqual([path.name for path in self.path.parent.iterdir()], ["snapshot"])

    def test_damaged_file_is_put_aside(self) -> None:
        """A damaged or foreign file is renamed with one log line, wherever the damage is."""
        self.save()
        content = self.path.read_bytes()
        for data in (b"", b"foreign", content[:-1], content + b"x", content[:100] + b"\xff" + content[101:], HEADER):
            self.path.write_bytes(data)
            program, (line,) = self.restart()
            self.assertIn("; renamed to ", line)
            self.assertEqual(program.cache.entries, 0)
            self.assertEqual([path.name for path in self.path.parent.iterdir()], ["snapshot.damaged"])
            (self.path.parent / "snapshot.damaged").unlink()

    def test_write_errors_are_counted(self) -> None:
        """A snapshot that cannot be written is logged and counted; the next attempt is made on time."""
        folder = self.path.parent / "folder"
        folder.mkdir()
        snapshots = self.make_snapshots(self.program, str(folder / "snapshot"))
        snapshots.startService()
        self.assertTrue(snapshots.writable)
        folder.rmdir()
        self.clock.advance(60)
        self.assertEqual(snapshots.incidents.counts, {"unwritable": 1})
        self.assertFalse(snapshots.writable)
        folder.mkdir()
        self.clock.pump([60, *[0.01] * 100])
        self.assertTrue(snapshots.writable)
        (folder / "snapshot").unlink()
        folder.rmdir()
        snapshots.stopService()
        self.assertEqual(snapshots.incidents.counts, {"unwritable": 2})

    def test_unexpected_exception_does_not_end_saving(self) -> None:
        """A snapshot that fails for an unknown reason is logged; the next attempt is made on time."""
        self.fill()
        snapshots = self.start(self.program)
        self.addCleanup(snapshots.stopService)
        with mock.patch.object(BoardCache, "boards", side_effect=ZeroDivisionError):
            self.clock.pump([60, *[0.01] * 100])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertFalse(self.path.exists())
        self.clock.pump([60, *[0.01] * 100])
        self.assertTrue(self.path.exists())

    def test_file_that_cannot_be_restored_is_put_aside(self) -> None:
        """A file whose restoring fails for an unknown reason is renamed before the next one is saved."""
        self.save()
        content = self.path.read_bytes()
        program = self.make_program()
        with mock.patch.object(BoardCache, "put", side_effect=ZeroDivisionError):
            snapshots = self.start(program)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertFalse(program.feed.restoration.is_running)
        snapshots.stopService()
        self.assertEqual(self.path.with_name("snapshot.damaged").read_bytes(), content)
        self.assertNotEqual(self.path.read_bytes(), content)

    def test_impossible_file_fails_startup(self) -> None:
        """The program does not start if the snapshot's directory does not exist, or its file is a directory."""
        folder = self.path.parent
        for path, reason in (
            ("/nonexistent/snapshot", "/nonexistent is not a directory"),
            (str(folder), "it is a directory"),
        ):
            error = self.assertRaises(StartupError, self.make_snapshots(self.program, path).startService)
            self.assertEqual(str(error), f"snapshot.file (--snapshot): cannot write {path}: {reason}")
        self.assertTrue(folder.is_dir())

    def test_unread_snapshot_is_not_overwritten(self) -> None:
        """A program that stops before it has read the snapshot does not overwrite it."""
        self.save()
        content = self.path.read_bytes()
        snapshots = self.make_snapshots(self.make_program())
        snapshots.startService()
        snapshots.stopService()
        self.assertEqual(self.path.read_bytes(), content)

    def test_version_1_is_restored(self) -> None:
        """A snapshot of version 1, without names of columns, is restored."""
        self.path.write_bytes(VERSION_1.read_bytes())
        program, (line,) = self.restart()
        self.assertIn("records restored", line)
        self.assertEqual(program.cache.board(CODE)[0], "hit")
        departures = program.feed.boards.board(FEED_CODE, 86400)
        (passtime,) = departures.passtimes
        self.assertEqual((passtime.trip_stop_status, passtime.number_of_coaches), ("DRIVING", "2"))
        self.assertEqual(passtime.extra, (("MessageContent", "Extra stop"),))
        self.assertEqual((len(departures.messages), program.feed.timetable.n_planned), (1, 1))
        self.assertEqual(program.feed.passtimes.last_heard, {"LIN": NOW})

    def test_columns_are_mapped_by_name(self) -> None:
        """Columns missing in the snapshot are None, unknown ones are dropped, and their order is free."""
        self.fill()
        stop = self.program.feed.passtimes.stops[FEED_CODE]
        ((key, stored),) = stop.passtimes.items()
        row = dict(zip(KEY_NAMES + VALUE_NAMES, (key + b"|" + all_values(stored.values)).split(b"|"), strict=True))
        old_values = (*(name for name in reversed(VALUE_NAMES) if name != "DestinationCode"), "Abolished")
        columns = Columns(KEY_NAMES[::-1], old_values)
        old_key = b"|".join(row[name] for name in columns.key)
        old = b"|".join(row.get(name, b"x") for name in columns.values)
        records = (OperatorsRecord({"LIN": NOW}, {}), StopRecord(FEED_CODE, {old_key: old}, []))
        self.path.write_bytes(snapshot_file(columns, *records))
        program, _ = self.restart()
        (passtime,) = program.feed.boards.board(FEED_CODE, 86400).passtimes
        self.assertEqual((passtime.journey, passtime.destination_code), ("LIN_77_L004_1001_0", None))
        self.assertEqual((passtime.trip_stop_status, passtime.wheelchair), ("DRIVING", "ACCESSIBLE"))

    def test_missing_key_column_drops_passtimes(self) -> None:
        """If a column of the key is missing, passtimes are dropped, and the rest is restored."""
        self.fill()
        ((key, stored),) = self.program.feed.passtimes.stops[FEED_CODE].passtimes.items()
        columns = Columns(KEY_NAMES[:-1], VALUE_NAMES)
        (message,) = (self.program.feed.passtimes.stops[FEED_CODE].messages or {}).values()
        record = StopRecord(FEED_CODE, {key.rpartition(b"|")[0]: all_values(stored.values)}, [message])
        self.path.write_bytes(snapshot_file(columns, record))
        program, _ = self.restart()
        self.assertEqual((program.feed.passtimes.n_passtimes, program.feed.passtimes.n_messages), (0, 1))

    def test_foreign_columns_are_put_aside(self) -> None:
        """A snapshot with an unreadable header, or with passtimes that do not fit it, is renamed."""
        self.fill()
        passtimes = self.stored_values()
        valid = snapshot_file(Columns(), StopRecord(FEED_CODE, passtimes, []))
        content = valid[len(HEADER) : -8].replace(b'{"key":[', b'{"key":{')
        unreadable = HEADER + content + bytes(4) + struct.pack(">I", zlib.crc32(content))
        short = snapshot_file(Columns(KEY_NAMES, VALUE_NAMES[:-1]), StopRecord(FEED_CODE, passtimes, []))
        for data in (unreadable, short):
            self.path.write_bytes(data)
            program, (line,) = self.restart()
            self.assertIn("; renamed to ", line)
            self.assertEqual(program.feed.passtimes.n_passtimes, 0)

    def test_rejected_record_names_the_snapshot(self) -> None:
        """A rejected record is logged with the path of its snapshot."""
        self.fill()
        passtimes = self.stored_values()
        self.path.write_bytes(snapshot_file(Columns(), StopRecord("no code", passtimes, [])))
        with capturedLogs() as events:
            self.start(self.make_program())
        lines = [formatEvent(event) for event in events]
        self.assertIn(f"Record of '{self.path}' rejected: invalid TimingPointCode (TimingPointCode)", lines)
