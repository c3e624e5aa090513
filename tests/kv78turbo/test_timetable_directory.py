"""A folder of recorded KV7: which of its files are read, in which order, and when again."""

import gzip
import os
from collections.abc import Iterator
from tempfile import TemporaryDirectory

from twisted.internet.task import Clock, Cooperator
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import StartupError
from govi_server.kv78turbo.ctx import PIECE
from govi_server.kv78turbo.timetable_directory import LOOK_EVERY, TimetableDirectory
from tests.client import NOW


class FolderTests(SynchronousTestCase):
    """A folder whose files the test writes."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = directory.name
        self.clock = Clock()
        self.clock.advance(NOW)
        self.read: list[bytes] = []
        """The files that were read, as far as they could be."""
        self.folder = self.make(self.path)
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)

    def make(self, path: str) -> TimetableDirectory:
        cooperator = Cooperator(
            # One bit of work in each turn.
            terminationPredicateFactory=lambda: lambda: True,
            scheduler=lambda call: self.clock.callLater(0.001, call),
        )
        return TimetableDirectory(path, self.clock, cooperator, self.take)

    def take(self, chunks: Iterator[bytes]) -> Iterator[None]:
        self.read.append(b"")
        for chunk in chunks:
            if chunk.startswith(b"boom"):
                raise ZeroDivisionError("as asked")
            self.read[-1] += chunk
            yield

    def write(self, name: str, data: bytes, mtime: int = 0) -> None:
        path = os.path.join(self.path, name)
        with open(path, "wb") as file:
            file.write(data)
        if mtime:
            os.utime(path, (mtime, mtime))

    def look(self) -> list[bytes]:
        """Give what is read in the next look."""
        self.read.clear()
        self.clock.advance(LOOK_EVERY)
        self.clock.pump([0.001] * 50)
        return self.read

    def start(self) -> list[bytes]:
        """Give what is read at the start."""
        self.folder.startService()
        self.addCleanup(self.folder.stopService)
        self.clock.pump([0.001] * 50)
        return self.read

    def lines(self, level: LogLevel) -> list[str]:
        """Give what was told of the folder, with its path left out."""
        lines = [
            (formatEvent(event) or "").replace(self.path, "...")
            for event in self.events
            if event["log_namespace"] == "govi_server.kv78turbo.timetable_directory.TimetableDirectory"
            and event["log_level"] is level
        ]
        self.events._events.clear()
        return lines

    def test_order(self) -> None:
        """Files are read in the order of their names, compressed or not; nothing else that is there is."""
        self.write("b.ctx", b"B")
        self.write("a.gz", gzip.compress(b"A"))
        self.write("c.ctx.gz", gzip.compress(b"C") + gzip.compress(b"CC"))
        for name in ("README", "d.ctx.part", "ctx", "e.CTX", "f.txt"):
            self.write(name, b"no")
        os.mkdir(os.path.join(self.path, "g.ctx"))
        os.symlink("b.ctx", os.path.join(self.path, "h.ctx"))
        os.symlink("nowhere", os.path.join(self.path, "i.ctx"))
        self.assertEqual(self.start(), [b"A", b"B", b"CCC", b"B"])
        self.assertEqual(self.lines(LogLevel.info), ["4 files of timetable read in 0.0 s"])
        self.assertEqual(self.lines(LogLevel.warn), [])

    def test_bit_by_bit(self) -> None:
        """A large file is read in pieces, with turns of others between them."""
        data = os.urandom(5 * PIECE)
        self.write("a.ctx", data)
        self.folder.startService()
        self.addCleanup(self.folder.stopService)
        sizes = []
        for _ in range(8):
            self.clock.advance(0.001)
            sizes.append(sum(map(len, self.read)) // PIECE)
        self.assertEqual(sizes, [1, 2, 3, 4, 5, 5, 5, 5])
        self.assertEqual(self.read, [data])

    def test_again(self) -> None:
        """What is new or has changed is read in the next look, and only that."""
        self.write("a.ctx", b"A", 1000)
        self.write("b.ctx", b"B", 1000)
        self.assertEqual(self.start(), [b"A", b"B"])
        self.lines(LogLevel.info)
        self.assertEqual(self.look(), [])
        self.assertEqual(self.lines(LogLevel.info), [])
        self.write("c.ctx", b"C", 1000)
        self.assertEqual(self.look(), [b"C"])
        self.write("a.ctx", b"a", 1001)
        self.assertEqual(self.look(), [b"a"])
        self.write("b.ctx", b"BB", 1000)
        self.assertEqual(self.look(), [b"BB"])
        os.unlink(os.path.join(self.path, "c.ctx"))
        self.assertEqual(self.look(), [])

    def test_loaded(self) -> None:
        """It is told when what is new has been read."""
        self.write("a.ctx", b"A")
        self.folder.startService()
        self.addCleanup(self.folder.stopService)
        loaded = self.folder.loaded
        assert loaded is not None
        self.assertNoResult(loaded)
        self.clock.pump([0.001] * 3)
        self.successResultOf(loaded)
        self.assertEqual(self.read, [b"A"])

    def test_broken(self) -> None:
        """A file that is broken is named once, the others are read, and it is read again when it is another."""
        whole = gzip.compress(os.urandom(1000), mtime=0)
        wrong = whole[:-8] + bytes(8)
        flipped = whole[:12] + bytes([whole[12] ^ 0xFF]) + whole[13:]
        for name, data in [("a.gz", b"plain"), ("b.gz", whole[:-20]), ("c.gz", wrong), ("d.gz", flipped)]:
            self.write(name, data, 1000)
        self.write("e.ctx", b"E", 1000)
        self.assertEqual(self.start()[-1], b"E")
        lines = self.lines(LogLevel.warn)
        self.assertEqual(
            [line.partition(": ")[0] for line in lines], [f".../{name}.gz is not read to its end" for name in "abcd"]
        )
        self.assertEqual(self.look(), [])
        self.assertEqual(self.lines(LogLevel.warn), [])
        self.write("a.gz", gzip.compress(b"A"), 1001)
        self.assertEqual(self.look(), [b"A"])

    def test_failure(self) -> None:
        """What goes wrong with a file in earnest is logged, and neither the others nor the next look suffer."""
        self.write("a.ctx", b"boom", 1000)
        self.write("b.ctx", b"B", 1000)
        self.assertEqual(self.start()[-1], b"B")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.write("c.ctx", b"C", 1000)
        self.assertEqual(self.look(), [b"C"])

    def test_not_there(self) -> None:
        """A folder that cannot be read when the program starts ends it with a line that names it."""
        self.write("a.ctx", b"A")
        for name, why in [("nowhere", "No such file or directory"), ("a.ctx", "Not a directory")]:
            path = os.path.join(self.path, name)
            with self.assertRaises(StartupError) as caught:
                self.make(path).startService()
            self.assertEqual(str(caught.exception), f"cannot read the timetable in {path}: {why}")

    def test_goes_away(self) -> None:
        """A folder that goes away later is told of, and read when it is back."""
        self.start()
        os.rename(self.path, self.path + "x")
        self.assertEqual(self.look(), [])
        (line,) = self.lines(LogLevel.warn)
        self.assertTrue(line.startswith("Cannot read the timetable in ...: "), line)
        os.rename(self.path + "x", self.path)
        self.write("a.ctx", b"A")
        self.assertEqual(self.look(), [b"A"])

    def test_relative(self) -> None:
        """Its path is that of the moment when it was made: twistd changes its directory."""
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(self.path)
        self.folder = self.make(".")
        os.chdir(here)
        self.write("a.ctx", b"A")
        self.assertEqual(self.start(), [b"A"])

    def test_stop(self) -> None:
        """A stopped one looks no more, even if it was stopped while it read."""
        self.write("a.ctx", bytes(3 * PIECE))
        self.folder.startService()
        self.clock.advance(0.001)
        self.folder.stopService()
        self.clock.pump([0.001] * 20)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.folder.startService()
        self.clock.pump([0.001] * 20)
        self.folder.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
