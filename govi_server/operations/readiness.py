"""Readiness: whether a question would be answered now, found out by asking one."""

import re
from typing import cast

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from govi_server.operations.components import Components
from govi_server.operations.health import state_of
from govi_server.server import ConnectionHandler, Server
from govi_server.sockets.transport import IClientTransport

_ERROR = re.compile(b"<Error>(.{1,200}?)</Error>")


class _Inside:
    """A client's connection that stays in the house: sends one request, and keeps the whole answer."""

    disconnecting = False

    def __init__(self, server: Server, path: str) -> None:
        self.answer: Deferred[bytes] = Deferred(lambda _: self._end())
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
        if not self.answer.called:
            self.answer.callback(self._received)

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
    """Asks each source for a board, the way that a request goes: from its bytes to the bytes of the answer.

    probe: the TimingPointCode to ask for; "" is the one that was told last. A server of its own takes the requests,
    over the same modules, so that they are in no statistics and come under no client's limits.
    """

    def __init__(self, parts: Components, probe: str, clock: IReactorTime) -> None:
        self._parts = parts
        self._probe = probe
        public = parts.server
        self._server = Server(
            "",
            0,
            public.request_handler,
            clock=clock,
            find_module=lambda segment: public.find_module(segment),
            limits=public.limits,
            name="readiness",
        )

    async def why_not(self) -> list[str]:
        """List why questions would not be answered; nothing if they would, by every module."""
        why = self._closed()
        for name, source in self._parts.gateways.items():
            code = self._probe or source.cache.last_requested
            said = await self._ask(f"/{name}/{code}") if code else "200"  # a made-up stop would say nothing
            if said[:3] != "200":
                why.append(f"/{name}: stop {code}: {said}")
            elif source.breaker.state != "closed":  # the stop was told from memory; others would not be
                why.append(f"/{name}: the gateway does not take questions")
        feed = self._parts.feed
        if feed is None:
            return why
        code = next(reversed(feed.passtimes.stops), "") or next(iter(feed.timetable.timing_points), "")
        if feed.subscriber is not None and feed.state not in ("UP", "RECOVERING"):
            why.append(state_of(feed))
        elif not code:
            why.append("no stop is known yet")
        # That there is nothing to tell of a stop, a 503 or 404, is no failure: at night operators are silent.
        elif (said := await self._ask(f"/tpc/{code}"))[:3] not in ("200", "404", "503"):
            why.append(f"/tpc: stop {code}: {said}")
        return why

    def _closed(self) -> list[str]:
        """List why no client would come in at all."""
        why = []
        if self._parts.server.draining:
            why.append("the server stops")
        if self._parts.server.accepting.paused:
            why.append("too many open files: no connections are accepted")
        return why

    async def _ask(self, path: str) -> str:
        """Ask for a path; give the status of the answer, with the reason if it says one."""
        answer = await _Inside(self._server, path).answer
        head, _, body = answer.partition(b"\r\n\r\n")
        status = head.partition(b"\r\n")[0].partition(b" ")[2].decode("latin-1")
        error = _ERROR.search(body)
        return f"{status}, {error[1].decode()}" if error else status
