"""The command ``govi-record``: saves what the KV78turbo feed sends, to be read or replayed later.

A recording is text: a JSON object a line, with the time at which a message came, its envelope, and its CTX.
"""

import base64
import os
import stat
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from gzip import compress
from pathlib import Path
from typing import Any, TextIO

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import FileLogObserver, LogEvent, LogLevel, formatEventAsClassicLogText, globalLogBeginner
from twisted.python import usage

from govi_server.errors import StartupError
from govi_server.kv78turbo.recording import Record, write_record
from govi_server.kv78turbo.subscriber import Subscriber
from govi_server.runtime.gunzip import gunzip
from govi_server.settings import FEED_ADDRESS

LIMIT = 64 << 20
"""Bytes of one message's CTX: a larger one is kept compressed."""

_WAITING = 1 << 20
"""Bytes that wait to be written, but for those of one second."""
_LINE_EVERY = 60
"""Seconds between two lines of progress where there is no terminal."""


def record_of(envelope: str, payload: bytes, now: float) -> Record:
    """Make the record of a message that came now (epoch seconds)."""
    time = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    try:
        return Record(time, envelope, ctx=gunzip(payload, LIMIT).decode())
    except ValueError:
        return Record(time, envelope, base64=base64.b64encode(payload).decode())


class _File:
    """A file that is only ever added to, in whole: what could not be written whole is taken away again.

    Raises CannotStart for a file that is there already or cannot be made.
    """

    def __init__(self, name: str) -> None:
        self.size = 0
        """Bytes that were written."""
        try:
            if name == "-":
                self._number = os.dup(1)
            else:
                # A recording cannot be made again, so none is overwritten; a pipe or a device may be there.
                fresh = 0 if Path(name).exists() and not Path(name).is_file() else os.O_CREAT | os.O_EXCL
                self._number = os.open(name, os.O_WRONLY | fresh, 0o666)
        except OSError as error:
            raise StartupError(f"cannot write {name}: {error.strerror}") from None
        self._is_cut = name != "-" and stat.S_ISREG(os.fstat(self._number).st_mode)

    def add(self, data: bytes) -> None:
        """Write. Raises OSError when that cannot be done."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._number, rest) :]
        except OSError:
            if self._is_cut:
                os.ftruncate(self._number, self.size)
            raise
        self.size += len(data)

    def close(self) -> None:
        """Write no more."""
        os.close(self._number)


class Recorder(Service):
    """Writes messages to a file, and tells how far it is.

    clock: when messages come. name: of the file; - is stdout, .gz at its end has it compressed. progress: where that
    is told. failed: called when nothing more can be written. Raises CannotStart for a file that cannot be made.
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
        self._waiting = bytearray()
        self._messages = self._records = 0  # of what waits
        self._ticks = 0
        self._looping = LoopingCall(self._tick)
        self._looping.clock = clock
        self._last: float | None = None
        self.messages = self.records = 0
        """How many were written."""
        self.error: str | None = None
        """Why nothing more can be written."""

    def startService(self) -> None:
        """Write once a second from now on."""
        super().startService()
        self._looping.start(1, now=False)

    def stopService(self) -> None:
        """Write what waits, and tell what came of it."""
        super().stopService()
        if self._looping.running:
            self._looping.stop()
        self._write()
        self._file.close()
        self._tell(f"{self._name}: {self.summary()}", done=True)

    def received(self, envelope: str, payload: bytes) -> None:
        """Take a message."""
        if self.error is not None:
            return
        now = self._last = self._clock.seconds()
        record = record_of(envelope, payload, now)
        self._waiting += write_record(record)
        self._messages += 1
        self._records += _rows(record.ctx or "")
        if len(self._waiting) > _WAITING:
            self._write()

    def summary(self) -> str:
        """Tell how much was written."""
        return f"{self.messages} messages, {self.records} records, {self._file.size} bytes"

    def _tick(self) -> None:
        self._write()
        self._ticks += 1
        if self.error is None and (self._in_place or self._ticks % _LINE_EVERY == 0):
            age = "none yet" if self._last is None else f"{max(0, self._clock.seconds() - self._last):.0f} s ago"
            self._tell(f"{self.summary()}, last data {age}")

    def _tell(self, line: str, done: bool = False) -> None:
        if self._in_place:
            self._progress.write(f"\r{line}\x1b[K" + ("\n" if done else ""))
        else:
            self._progress.write(f"{line}\n")
        self._progress.flush()

    def _write(self) -> None:
        """Write what waits: in a file of its own if compressed, as gzip files may follow each other in one.

        So it is whole after each second, however the recorder ends.
        """
        if not self._waiting or self.error is not None:
            return
        try:
            self._file.add(compress(self._waiting, 6) if self._compresses else bytes(self._waiting))
        except OSError as error:
            self.error = f"cannot write {self._name}: {error.strerror}"
            if self.running:
                self._failed()
            return
        self.messages += self._messages
        self.records += self._records
        self._messages = self._records = 0
        self._waiting.clear()


def _rows(ctx: str) -> int:
    """Count the records of a message: its lines but for those of control."""
    return sum(line[:2] not in ("", "\\G", "\\T", "\\L") for line in ctx.split("\n"))


class Options(usage.Options):
    """What can be said on the command line."""

    synopsis = "Usage: govi-record [options]"
    longdesc = (
        "Saves what the KV78turbo feed sends: a JSON object a line, with time, envelope and ctx. Ends on Ctrl-C."
    )
    optParameters = [
        ["prefix", "p", "/GOVI/", "What the envelopes that are saved begin with."],
        ["output", "o", None, "File to write; - is stdout, .gz compresses.  [default: recording-<UTC>.jsonl]"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["feeds"] = []

    def opt_feed(self, address: str) -> None:
        """Address of the feed; more than one are tried in turn.  [default: tcp://pubsub.besteffort.ndovloket.nl:7817]"""
        self["feeds"].append(address)

    opt_f = opt_feed


class Recording(MultiService):
    """A recorder and the subscriber that it records; run by main(), and ended by it."""

    def __init__(self, reactor: Any, options: Options, progress: TextIO) -> None:
        super().__init__()
        now = datetime.fromtimestamp(reactor.seconds(), UTC)
        name = options["output"] or f"recording-{now:%Y%m%dT%H%M%SZ}.jsonl"
        feeds: Sequence[str] = options["feeds"] or [FEED_ADDRESS]
        # The address is looked at first, so that a wrong one leaves no empty file.
        self._subscriber = Subscriber(reactor, feeds, [options["prefix"]], self._received)
        self.recorder = Recorder(reactor, name, progress, reactor.stop)
        self._subscriber.setServiceParent(self)

    def _received(self, envelope: str, payload: bytes) -> None:
        self.recorder.received(envelope, payload)

    def startService(self) -> None:
        """Record."""
        self.recorder.startService()
        super().startService()

    def stopService(self) -> Deferred[Any]:
        """End the connection, and then the file."""
        return maybeDeferred(super().stopService).addBoth(lambda _: self.recorder.stopService())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with status 1 and one line for what cannot be done."""
    options = Options()
    try:
        options.parseOptions(arguments)
    except usage.UsageError as error:
        raise SystemExit(f"govi-record: {error}") from None
    from twisted.internet import reactor as the_reactor

    reactor: Any = the_reactor
    globalLogBeginner.beginLoggingTo([_observer(sys.stderr)], redirectStandardIO=False)
    try:
        recording = Recording(reactor, options, sys.stderr)
        recording.startService()
    except StartupError as error:
        raise SystemExit(f"govi-record: {error}") from None
    reactor.addSystemEventTrigger("before", "shutdown", recording.stopService)
    reactor.run()
    if recording.recorder.error is not None:
        raise SystemExit(f"govi-record: {recording.recorder.error}")


def _observer(out: TextIO) -> FileLogObserver:
    """Make an observer that writes the log, over the line of progress where there is a terminal."""

    def line(event: LogEvent) -> str | None:
        # What goes well in the reactor is nothing to who records.
        if event["log_level"] < LogLevel.warn and not event["log_namespace"].startswith("govi_server"):
            return None
        text = formatEventAsClassicLogText(event)
        return f"\r\x1b[K{text}" if text and out.isatty() else text

    return FileLogObserver(out, line)
