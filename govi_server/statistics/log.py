"""The statistics log: one JSON line for each closed connection."""

import os
from datetime import UTC, datetime
from typing import cast

import msgspec
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger, LogPublisher, globalLogPublisher
from twisted.python.logfile import LogFile

from govi_server.errors import StartupError
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.statistics.records import ConnectionStatistics


def statistics_publisher() -> LogPublisher:
    """Make what events about connections go through beside the log.

    The text log looks at every event, and there are thousands a second. It gets but the faults of who observes them.
    """
    return LogPublisher(cast(ILogObserver, _tell_fault))


def _tell_fault(event: LogEvent) -> None:
    if "statistics" not in event:
        globalLogPublisher(event)


def format_line(event: LogEvent, server: str) -> str | None:
    """Make the statistics log's line of an event: a JSON object and a line end.

    None for any other event, and for those about connections of another server than the one of this name.
    """
    statistics = event.get("statistics")
    if not isinstance(statistics, ConnectionStatistics) or statistics.server != server:
        return None
    line = {
        "time": datetime.fromtimestamp(statistics.ended, UTC).isoformat(timespec="milliseconds"),
        "client": statistics.client,
        "duration": _milliseconds(max(statistics.ended - statistics.began, 0.0)),
        "end": statistics.end,
        "requests": [
            {
                "method": request.method,
                "path": request.path,
                "status": request.status,
                "bytes": request.bytes,
                "cache": request.cache,
                "phases": {phase: _milliseconds(seconds) for phase, seconds in request.phases.items()},
            }
            for request in statistics.requests
        ],
    }
    return msgspec.json.encode(line).decode() + "\n"


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


class StatisticsLog(Service):
    """Writes the statistics log of a server while it runs: JSON lines, in a file that is rotated by its size.

    What cannot be written, on a full disk for example, is lost and counted; serving goes on.
    """

    log = Logger()
    name = "statistics"

    def __init__(
        self,
        server: str,
        path: str,
        rotate_bytes: int,
        keep_files: int,
        clock: IReactorTime,
        publisher: LogPublisher = globalLogPublisher,
    ) -> None:
        self.incidents = ThrottledWarnings(self.log, clock)
        self._publisher = publisher
        self._server = server
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._keep_files = keep_files
        self._file: LogFile | None = None
        self._observer = cast(ILogObserver, self._write)

    def startService(self) -> None:
        """Open the file and begin to observe. Raises CannotStart."""
        try:
            self._file = self._open()
        except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
            reason = getattr(error, "strerror", None) or error
            raise StartupError(f"cannot write the statistics log {self._path}: {reason}") from None
        self._publisher.addObserver(self._observer)
        super().startService()
        self.log.info("Statistics go to {path}", path=self._path)

    def stopService(self) -> None:
        """Stop observing and close the file."""
        super().stopService()
        self._publisher.removeObserver(self._observer)
        self._close()

    @property
    def writable(self) -> bool:
        """Whether the last line could be written."""
        return self._file is not None

    def _open(self) -> LogFile:
        folder, name = os.path.split(self._path)
        return LogFile(name, folder, rotateLength=self._rotate_bytes, maxRotatedFiles=self._keep_files)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, event: LogEvent) -> None:
        line = format_line(event, self._server)
        if line is None:
            return
        try:
            if self._file is not None and not os.path.exists(self._path):
                self._close()  # it was removed, to make room perhaps, which it gives back only now
            if self._file is None:
                self._file = self._open()
                if self._file.size:
                    line = "\n" + line  # what was written last may be half a line
            self._file.write(line)
        except OSError as error:
            self._close()
            self.incidents.add(
                "unwritable",
                "The statistics log {path} cannot be written: {error}",
                path=self._path,
                error=str(error),
            )
