"""Records of connections: their requests, and the duration of each phase of a request.

When its connection closes, a RequestHandler publishes an event without text that has a ConnectionStatistics under the
key ``statistics``. The statistics log, the metrics and the recent history observe these events.
"""

from typing import Literal, Protocol, get_args

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogLevel

Phase = Literal["receive", "parse", "lookup", "wait", "render", "send"]
PHASES: tuple[Phase, ...] = get_args(Phase)
CacheResult = Literal["hit", "stale", "joined", "miss", "none"]
CACHE_RESULTS: tuple[CacheResult, ...] = get_args(CacheResult)
End = Literal["client", "server", "timeout", "error", "open"]
"""The side that ended a connection; 'error' is a broken connection, 'open' a connection that has not ended."""
ENDS: tuple[End, ...] = get_args(End)

MAX_PATH = 200
"""Characters of a method or path that are recorded."""

MAX_REQUESTS = 50
"""Requests of a connection after which its statistics are published, before its next regular report. The requests
of many connections may be published in a row, which takes microseconds for each (docs/performance.md, Pauses)."""

MIN_REQUESTS = 8
"""The same if many connections are open, since each recorded request needs some 200 bytes until it is published."""

MAX_RECORDS = 10_000
"""Unpublished requests of all connections, unless each has fewer than MIN_REQUESTS."""

SEVERAL = "several"
"""The name that stands for the stops of a request for more than one."""


class Exchange(msgspec.Struct, gc=False, eq=False):
    """A request and its response, without times. Repetitions with the same response share one object.

    Compared by identity, so that repetitions can be counted and formatted together. The garbage collector does not
    track it, because it cannot be part of a reference cycle.
    """

    method: str | None = None
    path: str | None = None
    status: int | None = None
    bytes: int = 0
    """Bytes of the response body."""
    cache: CacheResult = "none"
    module: str | None = None
    """The name of the module that the request was routed to, "" for the front page; None for no module."""
    stop: str = ""
    """The stop of the request, SEVERAL for more than one, "" for none."""


class RequestStatistics(msgspec.Struct, gc=False):
    """A request and its phases in seconds; None for those that it did not reach.

    A Struct without cycles, as Exchange, because one is created for each cached response.
    """

    exchange: Exchange
    marked: float = 0.0
    """The end of the last phase, or the start of the first one (epoch seconds); 0.0 in a finished request."""
    receive: float | None = None
    parse: float | None = None
    lookup: float | None = None
    wait: float | None = None
    render: float | None = None
    send: float | None = None

    @property
    def phases(self) -> dict[Phase, float]:
        """The phases that the request reached, in order."""
        times = ((phase, getattr(self, phase)) for phase in PHASES)
        return {phase: seconds for phase, seconds in times if seconds is not None}

    def mark(self, phase: Phase, now: float) -> None:
        """Record the end of a phase, which began at the end of the one before it. now: epoch seconds."""
        # Not below 0, even if the clock was set back.
        setattr(self, phase, (getattr(self, phase) or 0.0) + max(now - self.marked, 0.0))
        self.marked = now


class ConnectionStatistics(msgspec.Struct):
    """A connection since it was accepted, or since the last event about it. Times are epoch seconds."""

    server: str
    """The name of the server that accepted it."""
    client: str
    """The client's network, or 'local'."""
    began: float
    ended: float = 0.0
    end: End = "open"
    requests: list[RequestStatistics] = []
    worker: int = 0
    """The number of the worker process that accepted it, 0 for the main process."""


class RecordingServer(Protocol):
    """The server of a connection."""

    name: str
    clock: IReactorTime
    observer: ILogObserver
    """Receives the events."""
    max_records: int
    """Requests of a connection after which its statistics are published."""


class ConnectionRecorder:
    """Records the requests of a connection of a server, one after the other. client: the name of the client."""

    __slots__ = ("_connection", "_request", "_server")

    def __init__(self, server: RecordingServer, client: str) -> None:
        self._server = server
        now = server.clock.seconds()
        self._connection = ConnectionStatistics(server.name, client, now)
        self._request: RequestStatistics | None = RequestStatistics(Exchange(), now)

    def begin(self) -> None:
        """Begin a request."""
        self._request = RequestStatistics(Exchange(), self._server.clock.seconds())

    def mark(self, phase: Phase, cache: CacheResult | None = None) -> None:
        """Record the end of a phase of the request. cache: the result of its cache look-up, if any."""
        if self._request is not None:
            self._request.mark(phase, self._server.clock.seconds())
            if cache is not None:
                self._request.exchange.cache = cache

    def describe(self, method: str, path: str) -> None:
        """Set the method and path of the request."""
        if self._request is not None:
            self._request.exchange.method = method[:MAX_PATH]
            self._request.exchange.path = path[:MAX_PATH]

    def set_module(self, module: str) -> None:
        """Set the module that the request was routed to."""
        if self._request is not None:
            self._request.exchange.module = module

    def set_stop(self, stop: str) -> None:
        """Set the stop of the request: SEVERAL for more than one, "" for none."""
        if self._request is not None:
            self._request.exchange.stop = stop

    def add_known_request(
        self, client: str, exchange: Exchange, received: float, looked_up: float, sent: float | None
    ) -> None:
        """Record a request of a client with a cached response.

        received, looked_up, sent: the times at which its header section was received, and the response looked up and
        sent (epoch seconds). sent is None if sending continues; then finish() must follow.
        """
        if client != self._connection.client:
            self.set_client(client)
        began = received if self._request is None else self._request.marked
        receive = received - began if received > began else 0.0  # as in mark()
        lookup = looked_up - received if looked_up > received else 0.0
        if sent is None:
            self._request = RequestStatistics(exchange, looked_up, receive, 0.0, lookup, None, 0.0)
            return
        send = sent - looked_up if sent > looked_up else 0.0
        self._request = None
        self._add(RequestStatistics(exchange, 0.0, receive, 0.0, lookup, None, 0.0, send))

    def set_response(self, status: int, size: int) -> None:
        """Set the status of the response, and the bytes of its body."""
        if self._request is not None:
            self._request.exchange.status = status
            self._request.exchange.bytes = size

    def finish(self) -> None:
        """End the request: its response was sent."""
        request, self._request = self._request, None
        if request is not None:
            request.mark("send", self._server.clock.seconds())
            request.marked = 0.0
            self._add(request)

    def abandon(self, phase: Phase) -> None:
        """End the request because its connection ended. phase: the current one if no response was sent."""
        request, self._request = self._request, None
        if request is not None:
            if request.exchange.status is None:
                request.mark(phase, self._server.clock.seconds())
            request.marked = 0.0
            self._add(request)

    def _add(self, request: RequestStatistics) -> None:
        requests = self._connection.requests
        requests.append(request)
        if len(requests) >= self._server.max_records:
            self.flush("open")

    def set_client(self, client: str) -> None:
        """Set the client of the following requests, which a proxy may change; each event is about one client."""
        if client != self._connection.client:
            if self._connection.requests:
                self.flush("open")
            self._connection.client = client

    def flush(self, end: End) -> None:
        """Publish the connection, since it was accepted or last flushed, as an event."""
        connection, now = self._connection, self._server.clock.seconds()
        connection.ended = now
        connection.end = end
        if end == "open":
            self._connection = ConnectionStatistics(connection.server, connection.client, now)
        # Creating the event with a Logger would cost more than all its observers together.
        self._server.observer(
            {"log_level": LogLevel.info, "log_namespace": __name__, "log_time": now, "statistics": connection}
        )
