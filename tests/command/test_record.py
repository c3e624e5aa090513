"""Tests of command.record and kv78turbo.recording."""

import base64
import gzip
import io
import json
import resource
import tempfile
from errno import EIO
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.command.record import Recorder, record
from govi_server.errors import StartupError
from govi_server.kv78turbo.recording import make_record, read_record, write_record
from govi_server.settings import FEED_ADDRESS

NOW = 1_778_234_400.25  # 2026-05-08T10:00:00.250Z
CTX = "\\GKV8turbo_passtimes|x\r\n\\TA|A\r\n\\LB|C\r\n\\0|Café\r\nEBS|\\0\r\n"
MESSAGE = gzip.compress(CTX.encode(), mtime=0)


class RecordTests(SynchronousTestCase):
    """Lines of a recording."""

    def test_ctx_is_text(self) -> None:
        """CTX is recorded as text, including line ends and escapes."""
        line = write_record(make_record("/GOVI/KV8passtimes/EBS", MESSAGE, NOW))
        self.assertEqual(line.count(b"\n"), 1)
        expected = {
            "time": "2026-05-08T10:00:00.250Z",
            "envelope": "/GOVI/KV8passtimes/EBS",
            "ctx": CTX,
            "version": 1,
        }
        self.assertEqual(json.loads(line), expected)
        self.assertEqual(read_record(line).ctx, CTX)

    def test_other_payload_is_base64(self) -> None:
        """A payload that is not complete gzip of UTF-8 is recorded unchanged."""
        for payload in (b"nonsense", MESSAGE[:-5], MESSAGE + b"x", gzip.compress(b"\xe9"), b""):
            line = write_record(make_record("x", payload, NOW))
            self.assertEqual(base64.b64decode(json.loads(line)["base64"]), payload)
            self.assertNotIn("ctx", json.loads(line))
            self.assertEqual(read_record(line).base64, base64.b64encode(payload).decode())

    def test_large_payload_is_base64(self) -> None:
        """A payload of more than 64 MiB is recorded compressed."""
        payload = gzip.compress(bytes((64 << 20) + 1), 1)
        self.assertIsNone(make_record("x", payload, NOW).ctx)

    def test_invalid_record_raises_value_error(self) -> None:
        """Reading an invalid record raises ValueError."""
        for line in (
            b"",
            b"{}",
            b"[]",
            b"nonsense",
            b"\xff",
            b'{"time": "x", "envelope": "x", "ctx": ""}',
            b'{"time": "2026-05-08T10:00:00.250Z", "envelope": "x"}',
            b'{"time": "2026-05-08T10:00:00.250Z", "envelope": "x", "ctx": "", "base64": ""}',
        ):
            self.assertRaises(ValueError, read_record, line)


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class BrokenTerminal(Terminal):
    """A terminal that is gone."""

    def write(self, text: str) -> int:
        raise OSError(EIO, "Input/output error")


class RecorderTests(SynchronousTestCase):
    """A recording on disk."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "recording.jsonl"
        self.clock = Clock()
        self.clock.rightNow = NOW
        self.progress = io.StringIO()
        self.failures = 0

    def start(self, path: Path | None = None) -> Recorder:
        recorder = Recorder(self.clock, str(path or self.path), self.progress, self.count_failure)
        recorder.startService()
        return recorder

    def count_failure(self) -> None:
        self.failures += 1

    def progress_lines(self) -> list[str]:
        return self.progress.getvalue().splitlines()

    def test_messages_are_written_every_second(self) -> None:
        """Messages are written after a second, and the last ones when the recorder stops."""
        recorder = self.start()
        recorder.received("a", MESSAGE)
        recorder.received("b", b"nonsense")
        self.assertEqual(self.path.read_bytes(), b"")
        self.clock.advance(1)
        self.assertEqual([read_record(line).envelope for line in self.path.read_bytes().splitlines()], ["a", "b"])
        recorder.received("c", MESSAGE)
        recorder.stopService()
        self.assertEqual(
            [read_record(line).envelope for line in self.path.read_bytes().splitlines()], ["a", "b", "c"]
        )
        size = self.path.stat().st_size
        self.assertEqual(self.progress_lines(), [f"{self.path}: 3 messages, 4 records, {size} bytes"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_large_messages_are_written_immediately(self) -> None:
        """Large messages are written before a second has passed."""
        recorder = self.start()
        payload = gzip.compress(bytes(1 << 20))
        recorder.received("a", payload)
        self.assertGreater(self.path.stat().st_size, 1 << 20)
        recorder.stopService()

    def test_compressed_recording_is_complete_each_second(self) -> None:
        """A compressed recording can be read after each second."""
        path = self.path.with_suffix(".jsonl.gz")
        recorder = self.start(path)
        for count in range(3):
            recorder.received(str(count), MESSAGE)
            self.clock.advance(1)
            with gzip.open(path) as file:
                self.assertEqual(len([read_record(line) for line in file]), count + 1)
        recorder.stopService()

    def test_progress_each_minute(self) -> None:
        """Without a terminal, progress is one line each minute."""
        recorder = self.start()
        self.clock.pump([1] * 60)
        recorder.received("a", MESSAGE)
        self.clock.pump([1] * 60)
        recorder.stopService()
        size = self.path.stat().st_size
        self.assertEqual(
            self.progress_lines()[:2],
            [
                "0 messages, 0 records, 0 bytes, last data none yet",
                f"1 messages, 2 records, {size} bytes, last data 60 s ago",
            ],
        )

    def test_progress_that_cannot_be_written(self) -> None:
        """Recording goes on when its terminal is gone."""
        self.progress = BrokenTerminal()
        recorder = self.start()
        for count in range(3):
            recorder.received("a", MESSAGE)
            self.clock.advance(1)
            self.assertEqual(self.path.read_bytes().count(b"\n"), count + 1)
        recorder.stopService()

    def test_progress_in_place(self) -> None:
        """On a terminal, progress is one line that is overwritten each second."""
        self.progress = Terminal()
        recorder = self.start()
        recorder.received("a", MESSAGE)
        self.clock.pump([1] * 3)
        self.assertEqual(self.progress.getvalue().count("\r"), 3)
        self.assertNotIn("\n", self.progress.getvalue())
        recorder.stopService()
        self.assertTrue(self.progress.getvalue().endswith("bytes\x1b[K\n"))

    def test_existing_file_is_not_overwritten(self) -> None:
        """An existing recording is not overwritten."""
        self.path.write_text("existing")
        error = self.assertRaises(StartupError, self.start)
        self.assertEqual(str(error), f"cannot write {self.path}: File exists")
        self.assertEqual(self.path.read_text(), "existing")

    def test_missing_directory_is_named(self) -> None:
        """The error of a file that cannot be created names it."""
        error = self.assertRaises(StartupError, self.start, Path("/nonexistent/x"))
        self.assertEqual(str(error), "cannot write /nonexistent/x: No such file or directory")

    def test_full_disk_ends_recording(self) -> None:
        """A full disk is reported once, and ends the recording."""
        recorder = self.start(Path("/dev/full"))
        recorder.received("a", MESSAGE)
        self.clock.advance(1)
        self.assertEqual((self.failures, recorder.error), (1, "cannot write /dev/full: No space left on device"))
        recorder.received("b", MESSAGE)
        self.clock.advance(1)
        recorder.stopService()
        self.assertEqual(self.failures, 1)

    def test_incomplete_write_is_undone(self) -> None:
        """An incomplete write is undone, so that every line is complete."""
        recorder = self.start()
        recorder.received("a", MESSAGE)
        self.clock.advance(1)
        size = self.path.stat().st_size
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        recorder.received("b", MESSAGE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
        try:
            self.clock.advance(1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.assertEqual(recorder.error, f"cannot write {self.path}: File too large")
        self.assertEqual(self.path.stat().st_size, size)
        recorder.stopService()
        self.assertEqual([read_record(line).envelope for line in self.path.read_bytes().splitlines()], ["a"])


class OptionsTests(SynchronousTestCase):
    """The options of the command line."""

    def test_feed_option_is_repeatable(self) -> None:
        """--feed may be repeated."""
        arguments = ["--feed", "tcp://a:1", "--feed", "tcp://b:1", "--output", "-"]
        values = record.make_context("record", arguments).params
        self.assertEqual(values, {"feeds": ("tcp://a:1", "tcp://b:1"), "output": "-", "prefix": "/GOVI/"})
        self.assertEqual(record.make_context("record", []).params["feeds"], (FEED_ADDRESS,))
