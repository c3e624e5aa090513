"""Tests of kv78turbo.timetable_directory: the selection, order and rereading of files."""

import gzip
import os
from collections.abc import Iterator
from tempfile import TemporaryDirectory

from twisted.internet.task import Clock, Cooperator
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import StartupError
from govi_server.kv78turbo.ctx import CHUNK_BYTES
from govi_server.kv78turbo.timetable_directory import SCAN_INTERVAL, TimetableDirectory
from tests.client import NOW


class TimetableDirectoryTests(SynchronousTestCase):
    """A directory whose files the test writes."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = directory.name
        self.clock = Clock()
        self.clock.advance(NOW)
        self.read: list[bytes] = []
        """The content of each file, up to the point where reading ended."""
        self.senders: list[str] = []
        self.directory = self.make_directory(self.path)
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)

    def make_directory(self, path: str) -> TimetableDirectory:
        cooperator = Cooperator(
            # One step per turn.
            terminationPredicateFactory=lambda: lambda: True,
            scheduler=lambda call: self.clock.callLater(0.001, call),
        )
        return TimetableDirectory(path, self.clock, cooperator, self.ingest)

    def ingest(self, chunks: Iterator[bytes], sender: str) -> Iterator[None]:
        self.read.append(b"")
        self.senders.append(sender)
        for chunk in chunks:
            if chunk.startswith(b"boom"):
                raise ZeroDivisionError("a bug")
            self.read[-1] += chunk
            yield

    def write(self, name: str, data: bytes, mtime: int = 0) -> None:
        path = os.path.join(self.path, name)
        with open(path, "wb") as file:
            file.write(data)
        if mtime:
            os.utime(path, (mtime, mtime))

    def scan(self) -> list[bytes]:
        """Return the files that the next scan reads."""
        self.read.clear()
        self.clock.advance(SCAN_INTERVAL)
        self.clock.pump([0.001] * 50)
        return self.read

    def start(self) -> list[bytes]:
        """Return the files that are read at startup."""
        self.directory.startService()
        self.addCleanup(self.directory.stopService)
        self.clock.pump([0.001] * 50)
        return self.read

    def lines(self, level: LogLevel) -> list[str]:
        """Return the lines of its log, with ... as its path."""
        lines = [
            (formatEvent(event) or "").replace(self.path, "...")
            for event in self.events
            if event["log_namespace"] == "govi_server.kv78turbo.timetable_directory.TimetableDirectory"
            and event["log_level"] is level
        ]
        self.events._events.clear()
        return lines

    def test_files_in_order_of_names(self) -> None:
        """Timetable files, compressed or not, are read in order of their names; other files are ignored."""
        self.write("b.ctx", b"B")
        self.write("a.gz", gzip.compress(b"A"))
        self.write("c.ctx.gz", gzip.compress(b"C") + gzip.compress(b"CC"))
        for name in ("README", "d.ctx.part", "ctx", "e.CTX", "f.txt"):
            self.write(name, b"no")
        os.mkdir(os.path.join(self.path, "g.ctx"))
        os.symlink("b.ctx", os.path.join(self.path, "h.ctx"))
        os.symlink("nowhere", os.path.join(self.path, "i.ctx"))
        self.assertEqual(self.start(), [b"A", b"B", b"CCC", b"B"])
        self.assertEqual(self.lines(LogLevel.info), ["Timetable ...: 4 files read in 0.0 s"])
        self.assertEqual(self.lines(LogLevel.warn), [])
        names = [os.path.relpath(sender, self.path) for sender in self.senders]
        self.assertEqual(names, ["a.gz", "b.ctx", "c.ctx.gz", "h.ctx"])

    def test_large_file_is_read_in_steps(self) -> None:
        """A large file is read in chunks, with other work between them."""
        data = os.urandom(5 * CHUNK_BYTES)
        self.write("a.ctx", data)
        self.directory.startService()
        self.addCleanup(self.directory.stopService)
        sizes = []
        for _ in range(8):
            self.clock.advance(0.001)
            sizes.append(sum(map(len, self.read)) // CHUNK_BYTES)
        self.assertEqual(sizes, [1, 2, 3, 4, 5, 5, 5, 5])
        self.assertEqual(self.read, [data])

    def test_changed_files_are_read_again(self) -> None:
        """The next scan reads new and changed files only."""
        self.write("a.ctx", b"A", 1000)
        self.write("b.ctx", b"B", 1000)
        self.assertEqual(self.start(), [b"A", b"B"])
        self.lines(LogLevel.info)
        self.assertEqual(self.scan(), [])
        self.assertEqual(self.lines(LogLevel.info), [])
        self.write("c.ctx", b"C", 1000)
        self.assertEqual(self.scan(), [b"C"])
        self.write("a.ctx", b"a", 1001)
        self.assertEqual(self.scan(), [b"a"])
        self.write("b.ctx", b"BB", 1000)
        self.assertEqual(self.scan(), [b"BB"])
        os.unlink(os.path.join(self.path, "c.ctx"))
        self.assertEqual(self.scan(), [])

    def test_loaded_fires_after_ingestion(self) -> None:
        """The Deferred of a scan fires when its files have been ingested."""
        self.write("a.ctx", b"A")
        self.directory.startService()
        self.addCleanup(self.directory.stopService)
        loaded = self.directory.loaded
        assert loaded is not None
        self.assertNoResult(loaded)
        self.clock.pump([0.001] * 3)
        self.successResultOf(loaded)
        self.assertEqual(self.read, [b"A"])

    def test_broken_file_is_logged_once(self) -> None:
        """A broken file is logged once and read again when it changes; other files are read."""
        valid = gzip.compress(os.urandom(1000), mtime=0)
        wrong_checksum = valid[:-8] + bytes(8)
        flipped = valid[:12] + bytes([valid[12] ^ 0xFF]) + valid[13:]
        for name, data in [("a.gz", b"plain"), ("b.gz", valid[:-20]), ("c.gz", wrong_checksum), ("d.gz", flipped)]:
            self.write(name, data, 1000)
        self.write("e.ctx", b"E", 1000)
        self.assertEqual(self.start()[-1], b"E")
        lines = self.lines(LogLevel.warn)
        self.assertEqual(
            [line.partition(": not read to its end: ")[0] for line in lines],
            [f"Timetable file .../{name}.gz" for name in "abcd"],
        )
        self.assertEqual(self.scan(), [])
        self.assertEqual(self.lines(LogLevel.warn), [])
        self.write("a.gz", gzip.compress(b"A"), 1001)
        self.assertEqual(self.scan(), [b"A"])

    def test_exception_does_not_stop_scans(self) -> None:
        """An exception is logged; other files and the next scan are not affected."""
        self.write("a.ctx", b"boom", 1000)
        self.write("b.ctx", b"B", 1000)
        self.assertEqual(self.start()[-1], b"B")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.write("c.ctx", b"C", 1000)
        self.assertEqual(self.scan(), [b"C"])

    def test_unreadable_directory_fails_startup(self) -> None:
        """A directory that cannot be read at startup is a StartupError that names it."""
        self.write("a.ctx", b"A")
        for name, reason in [("nowhere", "No such file or directory"), ("a.ctx", "Not a directory")]:
            path = os.path.join(self.path, name)
            with self.assertRaises(StartupError) as caught:
                self.make_directory(path).startService()
            self.assertEqual(str(caught.exception), f"feed.timetable (--timetable): cannot read {path}: {reason}")

    def test_missing_directory_is_logged(self) -> None:
        """A directory that disappears is logged, and read once it is back."""
        self.start()
        os.rename(self.path, self.path + "x")
        self.assertEqual(self.scan(), [])
        (line,) = self.lines(LogLevel.warn)
        self.assertTrue(line.startswith("Timetable ...: cannot be read: "), line)
        os.rename(self.path + "x", self.path)
        self.write("a.ctx", b"A")
        self.assertEqual(self.scan(), [b"A"])

    def test_relative_path(self) -> None:
        """A relative path is resolved at creation: twistd changes its directory."""
        current = os.getcwd()
        self.addCleanup(os.chdir, current)
        os.chdir(self.path)
        self.directory = self.make_directory(".")
        os.chdir(current)
        self.write("a.ctx", b"A")
        self.assertEqual(self.start(), [b"A"])

    def test_stop_ends_scans(self) -> None:
        """After a stop no scan is scheduled, even if a file is being read."""
        self.write("a.ctx", bytes(3 * CHUNK_BYTES))
        self.directory.startService()
        self.clock.advance(0.001)
        self.directory.stopService()
        self.clock.pump([0.001] * 20)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.directory.startService()
        self.clock.pump([0.001] * 20)
        self.directory.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
