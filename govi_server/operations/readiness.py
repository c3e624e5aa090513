"""Readiness: whether requests would be served now, checked by sending some."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import TypeVar, cast

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from govi_server.departures.source import NoBoard, SourceUnreachable
from govi_server.http.connection import ConnectionHandler
from govi_server.operations.components import Components, GatewayComponents
from govi_server.operations.health import describe_feed
from govi_server.operations.problem import Problem
from govi_server.server import Server
from govi_server.sockets.transport import IClientTransport

CHECK_INTERVAL = 5.0
"""Seconds for which the result of a check is reused, and so between requests to a gateway."""

MAX_PROBE_SECONDS = 5.0
"""Time for a gateway to respond. A load balancer that checks every 5 s detects a silent gateway within 15 s."""

UNKNOWN_STOP_SECONDS = 60.0
"""Time for which a stop that may not exist counts."""

MAX_PROBE_STOPS = 10
"""Stops that are tried in turn while a gateway does not respond, since one of them may no longer exist."""

_T = TypeVar("_T")

_ERROR = re.compile(b"<Error>(.{1,200}?)</Error>")


class _LocalTransport:
    """The transport of a client in the same process, which sends one request and collects the response.

    Provides the methods of IClientTransport that one request needs.
    """

    disconnecting = False

    def __init__(self, server: Server, path: str) -> None:
        self.response: Deferred[bytes] = Deferred(lambda _: self._end())
        self._received = b""
        client = server.access.peer(self.getPeer())
        handler = server.handle_accept(client)
        self._handler: ConnectionHandler | None = handler
        handler.makeConnection(cast(IClientTransport, self))
        handler.dataReceived(f"GET {path} HTTP/1.0\r\n\r\n".encode())

    def write(self, data: bytes) -> None:
        self._received += data

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._end()
        if not self.response.called:
            self.response.callback(self._received)

    abortConnection = loseConnection

    def _end(self) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.connectionLost(Failure(ConnectionDone()))

    def getPeer(self) -> UNIXAddress:
        return UNIXAddress(None)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    pauseProducing = resumeProducing = unregisterProducer


class Readiness:
    """Checks the sources of departures with requests like those of clients.

    probe: the TimingPointCode to request from gateways; "" for a stop whose board was received. Gateways get a
    request of their own, since a cached board proves nothing; modules get requests on a separate server, so that they
    neither appear in statistics nor count towards limits. Concurrent checks share one, and its result is reused for
    CHECK_INTERVAL: /ready does not make a gateway work for each request.
    """

    def __init__(self, components: Components, probe: str, clock: IReactorTime) -> None:
        self._components = components
        self._probe = probe
        self._clock = clock
        public = components.server
        self._server = Server(
            "",
            0,
            public.request_handler,
            clock=clock,
            find_module=lambda segment: public.find_module(segment),
            limits=public.limits,
            name="readiness",
        )
        self._checked_at: float | None = None
        self._check_in_progress: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self._failure: Failure | None = None
        """The unexpected exception of the last check, if any."""
        self._gateway_problems: dict[str, Problem | None] = {}
        """By module."""
        self._silent_probes: Counter[str] = Counter()
        """Consecutive requests to each gateway that had no response."""
        self._feed_problem: Problem | None = None

    async def problems(self) -> list[Problem]:
        """Return the reasons why requests would fail, empty if the service is ready."""
        now = self._clock.seconds()
        is_recent = self._checked_at is not None and 0 <= now - self._checked_at < CHECK_INTERVAL
        if self._check_in_progress is None and not is_recent:
            self._checked_at = now
            self._check_in_progress = check = Deferred.fromCoroutine(self._check())
            check.addBoth(self._checked)
        if self._check_in_progress is not None:
            waiting: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(waiting)
            await waiting
        if self._failure is not None:
            self._failure.raiseException()
        return [*self._server_problems(), *self._source_problems()]

    def _checked(self, result: Failure | None) -> None:
        self._check_in_progress = None
        self._failure = result
        waiting, self._waiting = self._waiting, []
        for check in waiting:
            check.callback(None)

    def _source_problems(self) -> Iterator[Problem]:
        """Yield the problems of the sources: their current states, and the results of the last check."""
        for name, gateway in self._components.gateways.items():
            if problem := self._gateway_problems.get(name):
                yield problem
            elif gateway.breaker.state != "closed":
                yield Problem("gateway-unreachable", name, f"/{name}: gateway not accepting requests")
        feed = self._components.feed
        if feed is not None and feed.subscriber is not None and feed.state not in ("UP", "RECOVERING"):
            yield Problem("feed-down", "feed", describe_feed(feed))
        elif self._feed_problem is not None:
            yield self._feed_problem

    async def _check(self) -> None:
        """Send a request to each source."""
        gateways = self._components.gateways.items()
        checks = [Deferred.fromCoroutine(self._check_gateway(name, gateway)) for name, gateway in gateways]
        problems = [await check for check in checks]
        self._gateway_problems = dict(zip(self._components.gateways, problems, strict=True))
        self._feed_problem = await self._check_feed()

    async def _check_gateway(self, name: str, gateway: GatewayComponents) -> Problem | None:
        """Request a board from a gateway and then from its module; return the problem, None if there is none."""
        code, is_known = self._stop(name, gateway)
        if not code:
            return None
        try:
            await _first_result(gateway.cache.refresh(code, gateway.probe), MAX_PROBE_SECONDS, self._clock)
        except SourceUnreachable as error:
            return Problem("gateway-unreachable", name, f"/{name}: gateway not accepting requests ({error})")
        except (NoBoard, TimeoutError) as error:
            self._silent_probes[name] += 1
            reason = str(error) if isinstance(error, NoBoard) else f"no response within {MAX_PROBE_SECONDS:g} s"
            return Problem("gateway-silent", name, f"/{name}: stop {code}: {reason}") if is_known else None
        self._silent_probes[name] = 0
        status = await self._request(f"/{name}/{code}")
        return None if status[:3] == "200" else Problem("module-failing", name, f"/{name}: stop {code}: {status}")

    def _stop(self, name: str, gateway: GatewayComponents) -> tuple[str, bool]:
        """Return the stop to request from a gateway, "" for none, and whether a missing response is a problem.

        A gateway does not respond for stops that do not exist. So each stop whose board was received is tried in
        turn. Before the first board, a stop that clients have requested may not exist: a missing response counts for
        UNKNOWN_STOP_SECONDS only, or else one such request would end the readiness for good. Later it is requested
        only to find out whether the gateway accepts requests again.
        """
        if self._probe:
            return self._probe, True
        if codes := gateway.cache.recent(MAX_PROBE_STOPS):
            return codes[self._silent_probes[name] % len(codes)], True
        if gateway.cache.last_request is None:
            return "", False
        code, requested_at = gateway.cache.last_request
        is_recent = 0 <= self._clock.seconds() - requested_at < UNKNOWN_STOP_SECONDS
        return code if is_recent or gateway.breaker.state != "closed" else "", is_recent

    async def _check_feed(self) -> Problem | None:
        """Request a stop of the feed; return the problem, None if there is none."""
        feed = self._components.feed
        if feed is None or feed.restoration.is_running:  # requests wait meanwhile, which is no failure
            return None
        code = next(reversed(feed.passtimes.stops), "") or next(feed.timetable.stop_codes(), "")
        if not code:
            return Problem("feed-empty", "feed", "Live feed: no stops known yet")
        status = await self._request(f"/tpc/{code}")
        # A stop without departures (503 or 404) is not a failure: operators send no data at night.
        if status[:3] in ("200", "404", "503"):
            return None
        return Problem("module-failing", "feed", f"/tpc: stop {code}: {status}")

    def _server_problems(self) -> Iterator[Problem]:
        """Yield the reasons why the server accepts no connections."""
        if self._components.is_draining:
            yield Problem("stopping", "server", "server is stopping")
        workers = self._components.workers
        if workers is not None and not workers.is_serving:
            yield Problem("no-worker", "server", "no worker is running")
        if self._components.figures.paused:
            yield Problem("too-many-files", "server", "not accepting connections: too many open files")

    async def _request(self, path: str) -> str:
        """Request a path; return the status of the response, and the text of its Error element if it has one."""
        response = await _LocalTransport(self._server, path).response
        head, _, body = response.partition(b"\r\n\r\n")
        status = head.partition(b"\r\n")[0].partition(b" ")[2].decode("latin-1")
        error = _ERROR.search(body)
        return f"{status}, {error[1].decode()}" if error else status


def _first_result(deferred: Deferred[_T], seconds: float, clock: IReactorTime) -> Deferred[_T]:
    """Return a Deferred of the result of another, which is not cancelled; it fails with TimeoutError after a time."""
    first: Deferred[_T] = Deferred()

    def fire(result: _T | Failure) -> None:
        if not first.called:
            first.callback(result)  # a Failure is passed to the errbacks

    deferred.addBoth(fire)
    return first.addTimeout(seconds, clock)
