"""The command ``govi-cache record``, which records the messages of the KV78turbo feed for inspection or replay."""

import os
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from gzip import compress
from pathlib import Path
from typing import Any, TextIO

import click
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import FileLogObserver, LogEvent, LogLevel, formatEventAsClassicLogText, globalLogBeginner

from govi_server.command.completion import complete_file
from govi_server.errors import StartupError
from govi_server.kv78turbo.recording import make_record, write_record
from govi_server.kv78turbo.subscriber import Subscriber
from govi_server.runtime.printable_log import install
from govi_server.runtime.repeated_call import RepeatedCall
from govi_server.runtime.text import printable
from govi_server.settings import FEED_ADDRESS

_MAX_PENDING_BYTES = 1 << 20
"""More pending bytes are written immediately instead of once a second."""
_PROGRESS_INTERVAL = 60
"""Seconds between progress lines if they are not on a terminal."""


class _File:
    """A new file that is only extended by complete writes; partial ones are rolled back.

    Raises StartupError if the file exists or cannot be created.
    """

    def __init__(self, name: str) -> None:
        self.size = 0
        """Bytes written."""
        try:
            if name == "-":
                self._fd = os.dup(1)
            else:
                # Recordings cannot be repeated, so they are never overwritten; pipes and devices may exist.
                flags = 0 if Path(name).exists() and not Path(name).is_file() else os.O_CREAT | os.O_EXCL
                self._fd = os.open(name, os.O_WRONLY | flags, 0o666)
        except OSError as error:
            raise StartupError(f"cannot write {name}: {error.strerror}") from None
        self._is_regular = name != "-" and stat.S_ISREG(os.fstat(self._fd).st_mode)

    def add(self, data: bytes) -> None:
        """Append data, completely or not at all. Raises OSError."""
        unwritten = memoryview(data)
        try:
            while unwritten:
                unwritten = unwritten[os.write(self._fd, unwritten) :]
        except OSError:
            if self._is_regular:
                os.ftruncate(self._fd, self.size)
            raise
        self.size += len(data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class Recorder(Service):
    """Writes messages to a file, and reports progress.

    clock: the source of arrival times. name: the name of the file; "-" is stdout, and a name that ends in .gz
    compresses. progress: the output for progress. failed: called if writing fails. Raises StartupError if the file
    cannot be created.
    """

    def __init__(
        self, clock: IReactorTime, name: str, progress: TextIO, failed: Callable[[], object] = lambda: None
    ) -> None:
        self._clock = clock
        self._name = name
        self._file = _File(name)
        self._compresses = name.endswith(".gz")
        self._progress = progress
        self._in_place = progress.isatty()
        self._failed = failed
        self._pending = bytearray()
        self._pending_messages = self._pending_records = 0
        self._ticks = 0
        self._ticking = RepeatedCall("Recording", clock, 1.0, self._tick, now=False)
        self._last_data: float | None = None
        self.messages = self.records = 0
        """The number of messages, and of KV7 and KV8 records, that were written."""
        self.error: str | None = None
        """The reason why writing failed; None if it did not."""

    def startService(self) -> None:
        """Start writing once a second."""
        super().startService()
        self._ticking.startService()

    def stopService(self) -> None:
        """Write the pending messages and report the totals."""
        super().stopService()
        self._ticking.stopService()
        self._write()
        self._file.close()
        self._report(f"{self._name}: {self.summary()}", done=True)

    def received(self, envelope: str, payload: bytes) -> None:
        """Record a message."""
        if self.error is not None:
            return
        now = self._last_data = self._clock.seconds()
        record = make_record(envelope, payload, now)
        self._pending += write_record(record)
        self._pending_messages += 1
        self._pending_records += _count_records(record.ctx or "")
        if len(self._pending) > _MAX_PENDING_BYTES:
            self._write()

    def summary(self) -> str:
        """Return the totals as text."""
        return f"{self.messages} messages, {self.records} records, {self._file.size} bytes"

    def _tick(self) -> None:
        self._write()
        self._ticks += 1
        if self.error is None and (self._in_place or self._ticks % _PROGRESS_INTERVAL == 0):
            last = self._last_data
            age = "none yet" if last is None else f"{max(0, self._clock.seconds() - last):.0f} s ago"
            self._report(f"{self.summary()}, last data {age}")

    def _report(self, line: str, done: bool = False) -> None:
        with suppress(OSError):  # the terminal is gone, or its file system full: the recording goes on
            self._progress.write(f"\r{line}\x1b[K" + ("\n" if done else "") if self._in_place else f"{line}\n")
            self._progress.flush()

    def _write(self) -> None:
        """Write pending messages, as a separate gzip member if compressed, so that the file is always complete."""
        if not self._pending or self.error is not None:
            return
        try:
            self._file.add(compress(self._pending, 6) if self._compresses else bytes(self._pending))
        except OSError as error:
            self.error = f"cannot write {self._name}: {error.strerror}"
            if self.running:
                self._failed()
            return
        self.messages += self._pending_messages
        self.records += self._pending_records
        self._pending_messages = self._pending_records = 0
        self._pending.clear()


def _count_records(ctx: str) -> int:
    """Return the number of records in CTX: its lines without control lines."""
    return sum(line[:2] not in ("", "\\G", "\\T", "\\L") for line in ctx.split("\n"))


@click.command()
@click.option(
    "--feed",
    "-f",
    "feeds",
    metavar="ADDRESS",
    multiple=True,
    default=[FEED_ADDRESS],
    show_default=True,
    help="Address of the feed; repeat it for fallbacks.",
)
@click.option("--prefix", "-p", default="/GOVI/", show_default=True, help="Record only envelopes with this prefix.")
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    shell_complete=complete_file,
    help="Output file; - is stdout, .gz compresses.  [default: recording-<UTC>.jsonl]",
)
def record(feeds: Sequence[str], prefix: str, output: str | None) -> None:
    """Record the live feed, until Ctrl-C.

    The recording has a JSON object per line, with time, envelope and ctx. govi-simulator replays it.
    """
    from twisted.internet import reactor as the_reactor  # the import installs the reactor

    reactor: Any = the_reactor
    install()
    globalLogBeginner.beginLoggingTo([_observer(sys.stderr)], redirectStandardIO=False)
    try:
        recording = Recording(reactor, feeds, prefix, output, sys.stderr)
        recording.startService()
    except StartupError as error:
        raise SystemExit(f"govi-cache record: {printable(str(error))}") from None
    reactor.addSystemEventTrigger("before", "shutdown", recording.stopService)
    reactor.run()
    if recording.recorder.error is not None:
        raise SystemExit(f"govi-cache record: {printable(recording.recorder.error)}")


class Recording(MultiService):
    """A subscriber and the recorder of its messages."""

    def __init__(self, reactor: Any, feeds: Sequence[str], prefix: str, output: str | None, progress: TextIO) -> None:
        super().__init__()
        now = datetime.fromtimestamp(reactor.seconds(), UTC)
        name = output or f"recording-{now:%Y%m%dT%H%M%SZ}.jsonl"
        # The subscriber first: an invalid address must not leave an empty file.
        self._subscriber = Subscriber(reactor, feeds, [prefix], self._received)
        self.recorder = Recorder(reactor, name, progress, reactor.stop)
        self._subscriber.setServiceParent(self)

    def _received(self, envelope: str, payload: bytes) -> None:
        self.recorder.received(envelope, payload)

    def startService(self) -> None:
        """Start recording."""
        self.recorder.startService()
        super().startService()

    def stopService(self) -> Deferred[Any]:
        """Close the connection and then the file; return a Deferred that fires afterwards."""
        return maybeDeferred(super().stopService).addBoth(lambda _: self.recorder.stopService())


def _observer(out: TextIO) -> FileLogObserver:
    """Return an observer that writes the log, and on a terminal overwrites the progress line."""

    def line(event: LogEvent) -> str | None:
        # Twisted's own events matter only from warnings upwards.
        if event["log_level"] < LogLevel.warn and not event["log_namespace"].startswith("govi_server"):
            return None
        text = formatEventAsClassicLogText(event)
        return f"\r\x1b[K{text}" if text and out.isatty() else text

    return FileLogObserver(out, line)
