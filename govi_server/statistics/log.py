"""The statistics log: one line of JSON per closed connection."""

from datetime import UTC, datetime
from typing import cast

import msgspec
from msgspec import Struct
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger, LogPublisher, globalLogPublisher

from govi_server.errors import StartupError
from govi_server.runtime.log_file import LogFile
from govi_server.runtime.text import escape_json
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.statistics.records import CacheResult, ConnectionStatistics, End, RequestStatistics


def statistics_publisher() -> LogPublisher:
    """Return a publisher for events about connections and gateway requests, which may be thousands per second.

    They bypass the text log, which would examine each of them; only failures of their observers reach it.
    """
    return LogPublisher(cast(ILogObserver, _forward_failure))


def _forward_failure(event: LogEvent) -> None:
    if "log_failure" in event:
        globalLogPublisher(event)


class _Phases(Struct, omit_defaults=True, gc=False):
    """The phases of a request in milliseconds; None, which is omitted, for those that it did not reach."""

    receive: float | None = None
    parse: float | None = None
    lookup: float | None = None
    wait: float | None = None
    render: float | None = None
    send: float | None = None


class _Request(Struct, omit_defaults=True, gc=False):
    """A request in the log; see RequestStatistics. Fields with a default are omitted if unknown."""

    method: str | None
    path: str | None
    status: int | None
    bytes: int
    cache: CacheResult
    phases: _Phases
    module: str | None = None
    stop: str = ""


class _Line(Struct):
    """A line of the log; see ConnectionStatistics."""

    time: str
    client: str
    duration: float
    """Milliseconds."""
    end: End
    requests: list[_Request]


_encode = msgspec.json.Encoder().encode


def format_line(event: LogEvent, server: str) -> str | None:
    """Return the line of the statistics log for an event: a JSON object and a line feed.

    Returns None for other events, and for connections of another server.
    """
    statistics = event.get("statistics")
    if not isinstance(statistics, ConnectionStatistics) or statistics.server != server:
        return None
    line = _Line(
        datetime.fromtimestamp(statistics.ended, UTC).isoformat(timespec="milliseconds"),
        statistics.client,
        _milliseconds(max(statistics.ended - statistics.began, 0.0)),
        statistics.end,
        [
            _Request(
                method=r.method,
                path=r.path,
                status=r.status,
                bytes=r.bytes,
                cache=r.cache,
                phases=_phases(r),
                module=r.module,
                stop=r.stop,
            )
            for r in statistics.requests
        ],
    )
    return escape_json(_encode(line).decode()) + "\n"


def _phases(request: RequestStatistics) -> _Phases:
    times = (request.receive, request.parse, request.lookup, request.wait, request.render, request.send)
    return _Phases(*[None if seconds is None else _milliseconds(seconds) for seconds in times])


def _milliseconds(seconds: float) -> float:
    """Convert seconds to milliseconds, rounded to 1 us; more than twice as fast as round()."""
    return int(seconds * 1_000_000 + 0.5) / 1000


class StatisticsLog(Service):
    """Writes the statistics log of a server, JSON lines in a file that is rotated by size, while it runs.

    Lines that cannot be written, for example because the disk is full, are lost and counted; serving continues.
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
        self.writable = False
        """Whether the last line was written."""

    def startService(self) -> None:
        """Open the file and start observing. Raises StartupError."""
        try:
            self._file = LogFile(self._path, self._rotate_bytes, self._keep_files)
        except (OSError, ValueError) as error:  # ValueError: the name contains NUL
            reason = getattr(error, "strerror", None) or error
            raise StartupError(f"statistics.file (--statistics): cannot write {self._path}: {reason}") from None
        self.writable = True
        self._publisher.addObserver(self._observer)
        super().startService()
        self.log.info("Statistics log {path}: opened", path=self._path)

    def stopService(self) -> None:
        """Stop observing and close the file."""
        super().stopService()
        self._publisher.removeObserver(self._observer)
        if self._file is not None:
            self._file.close()
            self._file = None

    def reopen(self) -> None:
        """Close the file and open the one that has its name now. Raises OSError."""
        if self._file is not None:
            self._file.reopen()

    def _write(self, event: LogEvent) -> None:
        line = format_line(event, self._server)
        if line is None or self._file is None:
            return
        try:
            self._file.write(line)
            self.writable = True
        except OSError as error:
            self.writable = False
            self.incidents.add(
                "unwritable",
                "Statistics log {path}: cannot be written ({error})",
                path=self._path,
                error=str(error),
            )
