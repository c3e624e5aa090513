"""Statistics: what a connection's requests were and how long each of their phases took.

A RequestHandler publishes one event when its connection closes, with a ConnectionStatistics under the key
``statistics`` and no text. Whoever wants it observes it; the statistics log is such an observer.
"""

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, cast, get_args

import msgspec
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, LogPublisher, globalLogPublisher
from twisted.python.logfile import LogFile

from govi_server.incidents import Incidents
from govi_server.services import CannotStart

if TYPE_CHECKING:
    from govi_server.repeats import Said

Phase = Literal["receive", "parse", "lookup", "wait", "render", "send"]
PHASES: tuple[Phase, ...] = get_args(Phase)
CacheResult = Literal["hit", "stale", "joined", "miss", "none"]
End = Literal["client", "server", "timeout", "error", "open"]
"""Who ended a connection; 'error' is a connection that broke, 'open' is one that goes on."""

MAX_PATH = 200
"""Characters of a path that are kept: those of our own are far shorter, what is longer is a stranger's."""

MOST_REQUESTS = 100
"""Requests of one connection after which its statistics are written, however young they are."""


class RequestStatistics(msgspec.Struct, gc=False):
    """One request. Phases are in seconds, None for those that were not reached.

    A Struct, small and soon made, for each cached answer has one; nothing in it could refer back to it.
    """

    marked: float
    """When the last phase ended, or the first began (epoch seconds)."""
    method: str | None = None
    path: str | None = None
    status: int | None = None
    bytes: int = 0
    cache: CacheResult = "none"
    receive: float | None = None
    parse: float | None = None
    lookup: float | None = None
    wait: float | None = None
    render: float | None = None
    send: float | None = None

    @property
    def phases(self) -> dict[Phase, float]:
        """Give the phases that were reached, in their order."""
        times = ((phase, getattr(self, phase)) for phase in PHASES)
        return {phase: seconds for phase, seconds in times if seconds is not None}

    def mark(self, phase: Phase, now: float) -> None:
        """Say that a phase ends now: it has lasted since the one before it ended."""
        # Never below 0, as it would be after the clock was set back.
        setattr(self, phase, (getattr(self, phase) or 0.0) + max(now - self.marked, 0.0))
        self.marked = now


class ConnectionStatistics(msgspec.Struct):
    """One connection from its accept, or from the last event about it. Moments are epoch seconds."""

    server: str
    """The name of the server that it was a connection of."""
    client: str
    began: float
    ended: float = 0.0
    end: End = "open"
    requests: list[RequestStatistics] = []


class Record:
    """Keeps the statistics of one connection as it goes, its requests one after the other.

    server: the name of the server. client: the name of the client. observer: where the events go.
    """

    __slots__ = ("_clock", "_connection", "_observer", "_request")

    def __init__(self, server: str, client: str, clock: IReactorTime, observer: ILogObserver) -> None:
        self._clock = clock
        self._observer = observer
        now = clock.seconds()
        self._connection = ConnectionStatistics(server, client, now)
        self._request: RequestStatistics | None = RequestStatistics(now)

    @property
    def in_request(self) -> bool:
        """Whether a request has begun; the first one begins with the connection."""
        return self._request is not None

    def begin(self) -> None:
        """A request begins."""
        self._request = RequestStatistics(self._clock.seconds())

    def mark(self, phase: Phase, cache: CacheResult | None = None) -> None:
        """A phase of the request ends; cache is what the cache had for it."""
        if self._request is not None:
            self._request.mark(phase, self._clock.seconds())
            if cache is not None:
                self._request.cache = cache

    def describe(self, method: str, path: str) -> None:
        """Say what the request is."""
        if self._request is not None:
            self._request.method = method[:MAX_PATH]
            self._request.path = path[:MAX_PATH]

    def repeat(self, client: str, said: "Said", received: float, found: float, sent: float | None) -> None:
        """A client's request was received and understood, its answer found, and sent, each at a moment.

        sent: None if it is under way, and finish() comes later.
        """
        self.come_from(client)
        began = received if self._request is None else self._request.marked
        receive = received - began if received > began else 0.0  # as in mark()
        lookup = found - received if found > received else 0.0
        send = None if sent is None else max(sent - found, 0.0)
        repeat = said.repeat
        request = RequestStatistics(
            found, repeat.method, repeat.path, said.status, len(said.body), said.cache,
            receive, 0.0, lookup, None, 0.0, send,
        )  # fmt: skip
        if sent is None:
            self._request = request
        else:
            self._request = None
            self._add(request)

    def answer(self, status: int, size: int) -> None:
        """The request has its answer."""
        if self._request is not None:
            self._request.status = status
            self._request.bytes = size

    def finish(self) -> None:
        """The answer is sent: the request is over."""
        request, self._request = self._request, None
        if request is not None:
            request.mark("send", self._clock.seconds())
            self._add(request)

    def give_up(self, phase: Phase) -> None:
        """The connection ends in the midst of a request, which was in this phase if it has no answer."""
        request, self._request = self._request, None
        if request is not None:
            if request.status is None:
                request.mark(phase, self._clock.seconds())
            self._add(request)

    def _add(self, request: RequestStatistics) -> None:
        requests = self._connection.requests
        requests.append(request)
        if len(requests) >= MOST_REQUESTS:
            self.flush("open")

    def come_from(self, client: str) -> None:
        """Say whom the request is from: what is written is about one client at a time."""
        if client != self._connection.client:
            if self._connection.requests:
                self.flush("open")
            self._connection.client = client

    def flush(self, end: End) -> None:
        """Write what there is since the connection's begin, or since the last flush, as one event."""
        connection, now = self._connection, self._clock.seconds()
        connection.ended = now
        connection.end = end
        if end == "open":
            self._connection = ConnectionStatistics(connection.server, connection.client, now)
        # As a Logger would, which takes longer to make the event than all observers together take to note it.
        self._observer(
            {"log_level": LogLevel.info, "log_namespace": __name__, "log_time": now, "statistics": connection}
        )


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
        self.incidents = Incidents(self.log, clock)
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
            raise CannotStart(f"cannot write the statistics log {self._path}: {reason}") from None
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
