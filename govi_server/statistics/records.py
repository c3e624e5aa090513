"""Statistics: what a connection's requests were and how long each of their phases took.

A RequestHandler publishes one event when its connection closes, with a ConnectionStatistics under the key
``statistics`` and no text. Whoever wants it observes it; the statistics log is such an observer.
"""

from typing import Literal, Protocol, get_args

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogLevel

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
    module: str = ""
    """The first segment of the path if a module answers it; "" otherwise."""
    stop: str = ""
    """The stop that the request is about, "several" for more than one; "" for none."""

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


class KnownRequest(Protocol):
    """A request that was parsed before: the values that its statistics repeat."""

    @property
    def method(self) -> str:
        """The method, at most MAX_PATH characters."""

    @property
    def path(self) -> str:
        """The path, at most MAX_PATH characters."""

    @property
    def module(self) -> str:
        """The first segment of the path."""

    @property
    def stop(self) -> str:
        """The stop, "several" for more than one, "" for none."""


class ConnectionStatistics(msgspec.Struct):
    """One connection from its accept, or from the last event about it. Moments are epoch seconds."""

    server: str
    """The name of the server that it was a connection of."""
    client: str
    began: float
    ended: float = 0.0
    end: End = "open"
    requests: list[RequestStatistics] = []


class ConnectionRecorder:
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

    def set_module(self, module: str) -> None:
        """Set the module that answers the request."""
        if self._request is not None:
            self._request.module = module

    @property
    def stop(self) -> str:
        """The stop of the request, "several" for more than one, "" for none."""
        return "" if self._request is None else self._request.stop

    @stop.setter
    def stop(self, stop: str) -> None:
        if self._request is not None:
            self._request.stop = stop

    def repeat(
        self,
        client: str,
        known: KnownRequest,
        status: int,
        size: int,
        cache: CacheResult,
        received: float,
        found: float,
        sent: float | None,
    ) -> None:
        """Record a whole request of a client whose response was cached.

        size: bytes of its body. received, found, sent: when its header section was received, its response found and
        sent (epoch seconds). sent: None if sending goes on; finish() comes later.
        """
        self.set_client(client)
        began = received if self._request is None else self._request.marked
        receive = received - began if received > began else 0.0  # as in mark()
        lookup = found - received if found > received else 0.0
        send = None if sent is None else max(sent - found, 0.0)
        request = RequestStatistics(
            found, known.method, known.path, status, size, cache,
            receive, 0.0, lookup, None, 0.0, send, known.module, known.stop,
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

    def abandon(self, phase: Phase) -> None:
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

    def set_client(self, client: str) -> None:
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
