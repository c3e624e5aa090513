"""The forms in which the log is written: text, JSON lines, or lines for journald with their priority."""

import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from twisted.logger import FileLogObserver, LogEvent, LogLevel, formatEvent, textFileLogObserver
from twisted.python.failure import Failure

PRIORITIES = {LogLevel.debug: 7, LogLevel.info: 6, LogLevel.warn: 4, LogLevel.error: 3, LogLevel.critical: 2}
"""Priorities of syslog(3), as systemd reads them at the beginning of a line (sd-daemon(3))."""


def is_journal(file: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a file is a connection to systemd's journal (JOURNAL_STREAM, systemd.exec(5))."""
    try:
        status = os.fstat(file.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def make_observer(log_format: str, file: TextIO | None) -> FileLogObserver | None:
    """Return the observer that writes the log; None if twistd's own does.

    log_format: auto, text, json or journal; auto is text, or journal if stdout is the journal. file: None for stdout.
    """
    output = sys.stdout if file is None else file
    if log_format == "auto":
        log_format = "journal" if file is None and is_journal(output) else "text"
    if log_format == "text":
        return None if file is None else textFileLogObserver(output)
    return FileLogObserver(output, as_json if log_format == "json" else as_journal_lines)


def as_json(event: LogEvent) -> str | None:
    """Format an event as a JSON line with time, level, namespace and text; with traceback after an exception."""
    text = formatEvent(event)
    if not text and "log_failure" not in event:
        return None
    time = datetime.fromtimestamp(event.get("log_time", 0), UTC)
    fields = {
        "time": f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03}Z",
        "level": _level(event).name,
        "namespace": event.get("log_namespace", ""),
        "text": text,
    }
    if traceback := _traceback(event):
        fields["traceback"] = traceback
    return f"{json.dumps(fields)}\n"


def as_journal_lines(event: LogEvent) -> str | None:
    """Format an event as lines that begin with a priority. The journal adds the time, and the name of the program."""
    text = formatEvent(event)
    if not text and "log_failure" not in event:
        return None
    prefix = f"<{PRIORITIES[_level(event)]}>"
    lines = [f"[{event.get('log_namespace', '-')}] {text}", *_traceback(event).splitlines()]
    return "".join(f"{prefix}{line}\n" for part in lines for line in part.split("\n"))


def _level(event: LogEvent) -> Any:
    return event.get("log_level") or LogLevel.info


def _traceback(event: LogEvent) -> str:
    failure = event.get("log_failure")
    return failure.getTraceback() if isinstance(failure, Failure) else ""
