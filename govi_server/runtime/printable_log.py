"""Make the events of the log printable before they are written: one place for all log lines, Twisted's included.

Paths, header fields, envelopes of the feed, texts of gateways, names of files, and exceptions that quote them come
from outside. In the log, on a terminal and on the status page they are escaped, and bounded in length.
"""

from functools import partial
from typing import cast

from twisted.logger import ILogObserver, LogEvent, LogPublisher, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from govi_server.runtime.text import printable

MAX_TRACEBACK_LINES = 100
"""Lines of a traceback that are written, half of them from its end; each has at most MAX_LINE_CHARACTERS."""


def install(publisher: LogPublisher = globalLogPublisher) -> None:
    """Make all events of a publisher printable. To be called before the observers that write them are added.

    Observers receive the same event in the order in which they were added, so this one changes it for those after it.
    """
    publisher.removeObserver(cast(ILogObserver, make_printable))
    publisher.addObserver(cast(ILogObserver, make_printable))


def make_printable(event: LogEvent) -> None:
    """Replace the text, the system and the traceback of an event, if they are not printable or too long."""
    text = formatEvent(event)
    line = printable(text)
    if line != text:
        event["log_format"] = line.replace("{", "{{").replace("}", "}}")
    system = event.get("log_system")
    if isinstance(system, str):
        event["log_system"] = printable(system)
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        _make_failure_printable(failure)


def _make_failure_printable(failure: Failure) -> None:
    try:
        traceback = failure.getTraceback()
    except Exception:
        return  # the observers report this themselves
    lines = traceback.split("\n")
    if len(lines) > MAX_TRACEBACK_LINES:
        half = MAX_TRACEBACK_LINES // 2
        lines = [*lines[:half], f"  ({len(lines) - 2 * half} lines omitted)", *lines[-half:]]
    text = "\n".join(printable(line) for line in lines)
    if text != traceback:
        failure.getTraceback = partial(str, text)  # type: ignore[method-assign]  # of this failure, for each observer
