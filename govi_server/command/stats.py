"""The command ``govi-stats``, which reports on statistics logs, including rotated and compressed ones."""

import argparse
import gzip
import json
import os
import stat
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from govi_server.runtime.text import escape_json, printable
from govi_server.runtime.version import version_text
from govi_server.statistics.formatting import read_moment
from govi_server.statistics.html_report import page
from govi_server.statistics.log_lines import split_lines
from govi_server.statistics.report import as_json, as_text
from govi_server.statistics.summary import LogSummary

CHUNK_BYTES = 1 << 20
"""Maximum size of a chunk that is read."""

FIRST_UPDATE_SECONDS = 1.0
"""Seconds after which the progress bar appears."""

UPDATE_INTERVAL = 0.2
"""Seconds between updates of the progress bar."""


class Progress:
    """A progress bar on a terminal, which appears after FIRST_UPDATE_SECONDS.

    total: bytes to read, None if unknown. seconds: a monotonic clock.
    """

    def __init__(self, terminal: TextIO, total: int | None, seconds: Callable[[], float] = time.monotonic) -> None:
        self._terminal = terminal
        self._total = total
        self._seconds = seconds
        self._began = seconds()
        self._next_update = self._began + FIRST_UPDATE_SECONDS if terminal.isatty() else float("inf")
        self._is_drawn = False

    def update(self, done: int) -> None:
        """Draw the bar if an update is due. done: bytes read so far."""
        now = self._seconds()
        if now >= self._next_update:
            self._next_update = now + UPDATE_INTERVAL
            self._is_drawn = True
            print("\r" + self._bar(done, now - self._began), end="\x1b[K", file=self._terminal, flush=True)

    def clear(self) -> None:
        """Remove the bar before other text is written."""
        if self._is_drawn:
            print("\r", end="\x1b[K", file=self._terminal, flush=True)
            self._is_drawn = False

    def _bar(self, done: int, elapsed: float) -> str:
        if not self._total:
            return f"{done / 1e6:,.0f} MB read"
        fraction = min(1.0, done / self._total)  # a log may grow while it is read
        left = f", {elapsed / fraction - elapsed:,.0f} s left" if fraction else ""
        return f"[{'#' * round(fraction * 30):30}] {fraction:4.0%} of {self._total / 1e6:,.0f} MB{left}"


def read_chunks(file: BinaryIO, report: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the content of a file in chunks, decompressed if the file begins with the magic number of gzip.

    report: called with the number of bytes read so far. Raises OSError, EOFError or zlib.error.
    """
    magic = file.read(2)
    counting: Any = _CountingFile(magic, file)
    source = gzip.GzipFile(fileobj=counting) if magic == b"\x1f\x8b" else counting
    while chunk := source.read1(CHUNK_BYTES):
        report(counting.position)
        yield chunk


class _CountingFile:
    """A file, seekable or not, whose first bytes (head) were already read; counts the bytes read."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head = head
        self._file = file
        self.position = 0

    def read(self, size: int = -1) -> bytes:
        head, self._head = self._head, b""
        data = head or self._file.read(size)
        self.position += len(data)
        return data

    read1 = read


def read_files(
    names: Sequence[str], summary: LogSummary, report_error: Callable[[str], None], terminal: TextIO
) -> bool:
    """Add the lines of files to a summary; return whether all files could be read.

    names: the files; "-" is stdin. report_error: called with a text for each file that cannot be read to its end.
    """
    progress = Progress(terminal, _total_bytes(names))
    done = 0
    is_complete = True
    for name in names:
        position = 0

        def report(bytes_read: int, before: int = done) -> None:
            nonlocal position
            position = bytes_read
            progress.update(before + bytes_read)

        try:
            with ExitStack() as stack:
                file = sys.stdin.buffer if name == "-" else stack.enter_context(open(name, "rb"))
                for line in split_lines(read_chunks(file, report)):
                    summary.add_line(line)
        except (OSError, EOFError, ValueError, zlib.error) as error:  # ValueError: the name contains NUL
            progress.clear()
            reason = "unexpected end of the gzip data" if isinstance(error, EOFError) else _reason(error)
            report_error(f"cannot read {name}: {reason}")
            is_complete = False
        done += position
    progress.clear()
    return is_complete


def _total_bytes(names: Sequence[str]) -> int | None:
    """Return the total size of files in bytes; None if it is unknown."""
    total = 0
    for name in names:
        try:
            status = os.stat(name)
        except (OSError, ValueError):
            if name == "-":
                return None
            continue  # reported when it is opened
        if not stat.S_ISREG(status.st_mode):
            return None
        total += status.st_size
    return total


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def write_file(name: str, text: str) -> None:
    """Write a file atomically. Raises OSError, or ValueError for a name that contains NUL."""
    path = Path(name)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=".govi-stats", delete=False, encoding="utf-8"
        ) as file:
            temporary = Path(file.name)
            file.write(text)
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(file.fileno(), 0o666 & ~mask)  # like other files; temporary files are private to their owner
        temporary.replace(path)
    except (OSError, ValueError):
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="govi-stats",
        description="Report requests, response times and failures from statistics logs of govi-cache.",
        epilog="MOMENT: 2026-11-22, 2026-11-22T15:30 (Dutch time unless it has an offset), or an age: 90s, 30m, 2h, "
        "3d, 1w.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a log, possibly rotated or gzipped; - reads stdin")
    parser.add_argument("--version", action="version", version=version_text("govi-stats"))
    parser.add_argument("--since", metavar="MOMENT", help="skip lines written before this moment")
    parser.add_argument("--until", metavar="MOMENT", help="skip lines written at or after this moment")
    parser.add_argument("--json", action="store_true", help="write a JSON object instead of text")
    parser.add_argument("--html", metavar="FILE", help="also write an HTML report with plots")
    return parser.parse_args(arguments)


def run(arguments: Sequence[str] | None, now: datetime) -> int:
    """Run the command; return its exit status: 1 if a file cannot be read or written, 2 for invalid arguments."""
    options = _parse(arguments)
    limits: dict[str, datetime | None] = {"since": None, "until": None}
    for name in limits:
        moment = getattr(options, name)
        if moment is not None:
            try:
                limits[name] = read_moment(moment, now)
            except ValueError as error:
                _print_error(f"--{name}: {error}")
                return 2
    summary = LogSummary(**limits)
    is_complete = read_files(options.files, summary, _print_error, sys.stderr)
    if not is_complete and not summary.lines + summary.bad + summary.outside:
        return 1  # no file could be read; the errors were printed
    if not summary.lines:
        _print_error(f"no line matches: {summary.bad:,} bad, {summary.outside:,} outside the period")
    if options.json:
        print(escape_json(json.dumps(as_json(summary), indent=2)))
    else:
        print(as_text(summary), end="")
    if options.html:
        text = page(summary, now)
        try:
            write_file(options.html, text)
        except (OSError, ValueError) as error:
            _print_error(f"cannot write {options.html}: {_reason(error)}")
            is_complete = False
    return 0 if is_complete else 1


def _print_error(text: str) -> None:
    print(f"govi-stats: {printable(text)}", file=sys.stderr)


def main() -> None:
    """Run the command and exit."""
    try:
        status = run(None, datetime.now(UTC))
        sys.stdout.flush()
    except BrokenPipeError:  # as with | head; the rest of the buffer must not raise again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    except KeyboardInterrupt:
        print("\r", end="\x1b[K" if sys.stderr.isatty() else "", file=sys.stderr)
        status = 130
    sys.exit(status)
