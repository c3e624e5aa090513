"""The statistics log: one line of JSON per closed connection."""

from datetime import UTC, datetime
from functools import lru_cache
from math import modf
from typing import cast

import msgspec
from msgspec import UNSET, Struct, UnsetType
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger, LogPublisher, globalLogPublisher

from govi_server.errors import StartupError
from govi_server.runtime.log_file import LogFile
from govi_server.runtime.repeated_call import RepeatedCall
from govi_server.runtime.text import escape_json, pluralize
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.statistics.log_lines import Phases
from govi_server.statistics.records import CacheResult, ConnectionStatistics, End, RequestStatistics

FLUSH_INTERVAL = 1.0
"""Seconds between writes: the longest delay of a line, and what a killed process may lose."""

BATCH_BYTES = 64 << 10
"""Bytes of lines that are written at once, without waiting for FLUSH_INTERVAL."""

MAX_UNWRITTEN_BYTES = 1 << 20
"""Bytes of lines that are buffered while the file cannot be written; further lines are lost."""


def statistics_publisher() -> LogPublisher:
    """Return a publisher for events about connections and gateway requests, which may be thousands per second.

    They bypass the text log, which would examine each of them; only failures of their observers reach it.
    """
    return LogPublisher(cast(ILogObserver, _forward_failure))


def _forward_failure(event: LogEvent) -> None:
    if "log_failure" in event:
        globalLogPublisher(event)


VERSION = 2
"""The version of the format. Lines of version 1 have no version, and no module and stop."""


class _Request(Struct, omit_defaults=True, gc=False):
    """A request in the log; see RequestStatistics. Fields with a default are omitted if unknown."""

    method: str | None
    path: str | None
    status: int | None
    bytes: int
    cache: CacheResult
    phases: Phases
    module: str | None = None
    stop: str = ""


class _Line(Struct, kw_only=True):
    """A line of the log; see ConnectionStatistics."""

    time: str
    client: str
    duration: float
    """Milliseconds."""
    end: End
    version: int
    worker: int | UnsetType = UNSET
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
        time=_time(statistics.ended),
        client=statistics.client,
        duration=int(max(statistics.ended - statistics.began, 0.0) * 1_000_000 + 0.5) / 1000,
        end=statistics.end,
        version=VERSION,
        worker=statistics.worker or UNSET,
        requests=[_request(request) for request in statistics.requests],
    )
    return f"{escape_json(_encode(line).decode())}\n"


def _time(seconds: float) -> str:
    """Return a time in ISO 8601, rounded to microseconds and cut to milliseconds, as datetime.isoformat() does."""
    fraction, second = modf(seconds)
    epoch, milliseconds = divmod(int(second) * 1000 + round(fraction * 1_000_000) // 1000, 1000)
    return f"{_second(epoch)}.{milliseconds:03}+00:00"


@lru_cache(maxsize=16)
def _second(epoch: int) -> str:
    """Return an epoch second in ISO 8601, without its offset. Cached, since datetime needs 2 us or more."""
    return datetime.fromtimestamp(epoch, UTC).replace(tzinfo=None).isoformat()


def _request(request: RequestStatistics) -> _Request:
    """Return a request as it is logged."""
    exchange, wait = request.exchange, request.wait
    receive, parse, lookup = request.receive, request.parse, request.lookup
    render, send = request.render, request.send
    phases = Phases(  # milliseconds, rounded to 1 us; written out, since a loop takes twice as long
        receive and int(receive * 1_000_000 + 0.5) / 1000,
        parse and int(parse * 1_000_000 + 0.5) / 1000,
        lookup and int(lookup * 1_000_000 + 0.5) / 1000,
        wait and int(wait * 1_000_000 + 0.5) / 1000,
        render and int(render * 1_000_000 + 0.5) / 1000,
        send and int(send * 1_000_000 + 0.5) / 1000,
    )
    return _Request(
        exchange.method,
        exchange.path,
        exchange.status,
        exchange.bytes,
        exchange.cache,
        phases,
        exchange.module,
        exchange.stop,
    )


class StatisticsLog(Service):
    """Writes the statistics log of a server, JSON lines in a file that is rotated by size, while it runs.

    Lines are buffered, and written together. While they cannot be written, for example because the disk is full,
    serving continues, and the log is retried every FLUSH_INTERVAL.
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
        self._observer = cast(ILogObserver, self._observe)
        self._unwritten = bytearray()
        """Complete lines."""
        self._flushes = RepeatedCall("Writing the statistics log", clock, FLUSH_INTERVAL, self.flush, now=False)
        self.writable = False
        """Whether the last lines were written."""

    def startService(self) -> None:
        """Open the file and start observing. Raises StartupError."""
        try:
            self._file = LogFile(self._path, self._rotate_bytes, self._keep_files)
        except (OSError, ValueError) as error:  # ValueError: the name contains NUL
            reason = getattr(error, "strerror", None) or error
            raise StartupError(f"statistics.file (--statistics): cannot write {self._path}: {reason}") from None
        self.writable = True
        self._publisher.addObserver(self._observer)
        self._flushes.startService()
        super().startService()
        self.log.info("Statistics log {path}: opened", path=self._path)

    def stopService(self) -> None:
        """Stop observing, write the last lines, and close the file."""
        super().stopService()
        if self._file is None:
            return
        self._publisher.removeObserver(self._observer)
        self._flushes.stopService()
        self.flush()
        if lost := self._unwritten.count(b"\n"):
            lines = pluralize(lost, "line")
            self.log.error("Statistics log {path}: {lines} lost at the end", path=self._path, lines=lines)
            self._unwritten.clear()
        self._file.close()
        self._file = None

    def reopen(self) -> None:
        """Write the buffered lines, close the file, and open the one that has its name now. Raises OSError."""
        if self._file is not None:
            self.flush()
            self._file.reopen()

    def flush(self) -> None:
        """Write the buffered lines; those that cannot be written remain."""
        assert self._file is not None
        try:
            while self._unwritten:
                del self._unwritten[: self._file.append(self._unwritten)]
            self.writable = True
        except OSError as error:
            self.writable = False
            text = "Statistics log {path}: cannot be written ({error})"
            self.incidents.add("unwritable", text, path=self._path, error=str(error))

    def _observe(self, event: LogEvent) -> None:
        line = format_line(event, self._server)
        if line is None:
            return
        if len(self._unwritten) >= MAX_UNWRITTEN_BYTES:
            text = "Statistics log {path}: a line is lost, because the file cannot be written"
            self.incidents.add("lost", text, path=self._path)
            return
        self._unwritten += line.encode()
        if self.writable and len(self._unwritten) >= BATCH_BYTES:
            self.flush()
