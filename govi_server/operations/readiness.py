"""Readiness: whether requests would be served now, checked by sending some."""

import re
from typing import cast

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from govi_server.http.connection import ConnectionHandler
from govi_server.operations.components import Components
from govi_server.operations.health import describe_feed
from govi_server.server import Server
from govi_server.sockets.transport import IClientTransport

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
    """Requests a board from each source, through the same code as clients' requests.

    probe: the TimingPointCode to request from gateways; "" for the last stop that a client requested. The requests go
    to a separate server with the same modules, so that they neither appear in statistics nor count towards limits.
    """

    def __init__(self, components: Components, probe: str, clock: IReactorTime) -> None:
        self._components = components
        self._probe = probe
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

    async def problems(self) -> list[str]:
        """Return the reasons why requests would fail, empty if the service is ready."""
        problems = self._server_problems()
        for name, gateway in self._components.gateways.items():
            code = self._probe or gateway.cache.last_requested
            # Without a known stop nothing is requested: a fictitious stop would prove nothing.
            status = await self._request(f"/{name}/{code}") if code else "200"
            if status[:3] != "200":
                problems.append(f"/{name}: stop {code}: {status}")
            elif gateway.breaker.state != "closed":  # this board was from memory; other stops would fail
                problems.append(f"/{name}: gateway not accepting requests")
        return problems + await self._feed_problems()

    async def _feed_problems(self) -> list[str]:
        feed = self._components.feed
        if feed is None:
            return []
        problems = []
        code = next(reversed(feed.passtimes.stops), "") or next(iter(feed.timetable.timing_points), "")
        if feed.subscriber is not None and feed.state not in ("UP", "RECOVERING"):
            problems.append(describe_feed(feed))
        elif not code:
            problems.append("Live feed: no stops known yet")
        # A stop without departures (503 or 404) is not a failure: operators send no data at night.
        elif (status := await self._request(f"/tpc/{code}"))[:3] not in ("200", "404", "503"):
            problems.append(f"/tpc: stop {code}: {status}")
        return problems

    def _server_problems(self) -> list[str]:
        """Return the reasons why the server accepts no connections."""
        problems = []
        if self._components.server.draining:
            problems.append("server is stopping")
        if self._components.server.accepting.paused:
            problems.append("not accepting connections: too many open files")
        return problems

    async def _request(self, path: str) -> str:
        """Request a path; return the status of the response, and the text of its Error element if it has one."""
        response = await _LocalTransport(self._server, path).response
        head, _, body = response.partition(b"\r\n\r\n")
        status = head.partition(b"\r\n")[0].partition(b" ")[2].decode("latin-1")
        error = _ERROR.search(body)
        return f"{status}, {error[1].decode()}" if error else status
