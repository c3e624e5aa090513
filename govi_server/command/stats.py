"""The command ``govi-cache stats``, which reports on statistics logs, including rotated and compressed ones."""

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
from typing import Any, BinaryIO, NoReturn, TextIO

import click

from govi_server.command.completion import complete_file
from govi_server.runtime.text import escape_json, printable
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
            "w", dir=path.parent, prefix=".govi-cache", delete=False, encoding="utf-8"
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


@click.command(
    epilog="MOMENT: 2026-11-22, 2026-11-22T15:30 (Dutch time without an offset), or an age: 90s, 30m, 2h, 3d, 1w."
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", shell_complete=complete_file)
@click.option("--since", metavar="MOMENT", help="Skip lines written before this moment.")
@click.option("--until", metavar="MOMENT", help="Skip lines written at or after this moment.")
@click.option("--json", "writes_json", is_flag=True, help="Write a JSON object instead of text.")
@click.option("--html", metavar="FILE", shell_complete=complete_file, help="Also write an HTML report with plots.")
def stats(**options: Any) -> NoReturn:
    """Report requests, response times and failures from statistics logs.

    Each FILE is a log, possibly rotated or compressed with gzip; - reads stdin.
    """
    try:
        status = run(**options, now=datetime.now(UTC))
        sys.stdout.flush()
    except BrokenPipeError:  # as with | head; the rest of the buffer must not raise again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    except KeyboardInterrupt:
        print("\r", end="\x1b[K" if sys.stderr.isatty() else "", file=sys.stderr)
        status = 130
    sys.exit(status)


def run(
    files: Sequence[str], since: str | None, until: str | None, writes_json: bool, html: str | None, now: datetime
) -> int:
    """Write the report; return the exit status: 1 if a file cannot be read or written, 2 for an invalid moment."""
    limits: dict[str, datetime | None] = {"since": None, "until": None}
    for name, moment in (("since", since), ("until", until)):
        if moment is not None:
            try:
                limits[name] = read_moment(moment, now)
            except ValueError as error:
                _print_error(f"--{name}: {error}")
                return 2
    summary = LogSummary(**limits)
    is_complete = read_files(files, summary, _print_error, sys.stderr)
    if not is_complete and not summary.lines + summary.bad + summary.outside:
        return 1  # no file could be read; the errors were printed
    if not summary.lines:
        _print_error(f"no line matches: {summary.bad:,} bad, {summary.outside:,} outside the period")
    if writes_json:
        print(escape_json(json.dumps(as_json(summary), indent=2)))
    else:
        print(as_text(summary), end="")
    if html:
        text = page(summary, now)
        try:
            write_file(html, text)
        except (OSError, ValueError) as error:
            _print_error(f"cannot write {html}: {_reason(error)}")
            is_complete = False
    return 0 if is_complete else 1


def _print_error(text: str) -> None:
    print(f"govi-cache stats: {printable(text)}", file=sys.stderr)
