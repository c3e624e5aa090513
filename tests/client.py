"""A client of a Server in memory: bytes in, bytes out, on a stepped clock."""

import http.client
import io
from collections.abc import Iterable
from typing import NamedTuple, cast

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver, StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from govi_server.http.parameters import InvalidParameter
from govi_server.http.request import Environ
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from govi_server.settings import ServerSettings
from govi_server.statistics.records import ConnectionStatistics
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


class Answer(NamedTuple):
    """An answer as a client reads it."""

    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes


class _Socket:
    def __init__(self, file: io.BytesIO) -> None:
        self._file = file

    def makefile(self, mode: str) -> io.BytesIO:
        return self._file


def read_answers(data: bytes, methods: Iterable[str] = ()) -> list[Answer]:
    """Read a stream of answers to requests of these methods (GET when they run out), to its very end."""
    file = io.BytesIO(data)
    file.close = lambda: None  # type: ignore[method-assign]  # http.client closes it after each answer
    answers = []
    of = iter(methods)
    while file.tell() < len(data):
        response = http.client.HTTPResponse(_Socket(file), method=next(of, "GET"))  # type: ignore[arg-type]
        response.begin()
        answers.append(Answer(response.status, response.reason, response.msg, response.read()))
    return answers


@implementer(IWebModule)
class Parrot(Service):
    """A module whose answers follow from the path: /parrot/says, /parrot/waits, /parrot/fails and so on."""

    name = "parrot"

    def __init__(self) -> None:
        self.waiting: list[Deferred[str]] = []
        self.handlers: list[ParrotHandler] = []

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "ParrotHandler":
        handler = ParrotHandler(request_handler, env)
        handler.parrot = self
        self.handlers.append(handler)
        return handler


class ParrotHandler(WebHandler):
    """Says what it was told to."""

    methods = ("GET", "HEAD", "POST")
    parrot: Parrot

    async def get(self) -> None:
        what = self.env["path_info"].removeprefix("/parrot/")
        if what.startswith("says/"):
            self.send_response(what.removeprefix("says/"))
        elif what.startswith("large/"):
            self.send_response(b"x" * int(what.removeprefix("large/")))
        elif what == "waits":
            answer: Deferred[str] = Deferred()
            self.parrot.waiting.append(answer)
            said = await answer
            self.mark("wait")
            self.send_response(said)
        elif what == "gives-up":
            self.request_handler.send_timeout()
        elif what == "cleans-up":
            try:
                await Deferred()
            finally:
                raise ZeroDivisionError("as asked")
        elif what == "bad-query":
            raise InvalidParameter("q is missing")
        elif what == "fails":
            raise ZeroDivisionError("as asked")
        elif what == "fails-after":
            self.send_response("said")
            raise ZeroDivisionError("as asked")
        elif what == "repeats":
            self.send_response("once")
            self.send_response("twice")
        elif what == "injects":
            self.send_response("", headers={"X-Said": "a\r\nSet-Cookie: b"})

    async def post(self) -> None:
        self.send_response(self.env.body)


class Client:
    """One connection to a server."""

    def __init__(self, server: Server, addr: IAddress | None = None) -> None:
        self.transport = StringTransport(peerAddress=addr, lenient=True)
        self.handler = cast(RequestHandler, server.buildProtocol(self.transport.getPeer()))
        self.handler.makeConnection(self.transport)
        self._read = 0

    def send(self, data: bytes) -> None:
        self.handler.dataReceived(data)

    def received(self) -> bytes:
        """Give what came since this was last asked."""
        data: bytes = self.transport.value()[self._read :]
        self._read += len(data)
        return data

    def answers(self, *methods: str) -> list[Answer]:
        return read_answers(self.received(), methods)

    def answer(self, method: str = "GET") -> Answer:
        """Give the one answer that came."""
        (answer,) = self.answers(method)
        return answer

    def get(self, path: str, **headers: str) -> None:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode("latin-1"))

    @property
    def closed(self) -> bool:
        """Whether the server has closed its side."""
        return self.transport.disconnecting

    def half_close(self) -> None:
        self.handler.readConnectionLost()

    def leave(self, reason: type[Exception] = ConnectionDone) -> None:
        """Close the connection, as the client or because the server did."""
        self.handler.connectionLost(Failure(reason()))


class WireTestCase(SynchronousTestCase):
    """Has a server with a Parrot, and the statistics events of its connections."""

    limits: ServerSettings = ServerSettings()

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.parrot = Parrot()
        modules = MultiService()
        self.parrot.setServiceParent(modules)
        Service().setServiceParent(modules)
        deaf = Service()
        deaf.setName("deaf")  # a service that is no web module
        deaf.setServiceParent(modules)
        self.server = Server(
            "",
            0,
            RequestHandler,
            clock=self.clock,
            find_module=modules.getServiceNamed,
            limits=self.limits,
            headers={"Access-Control-Allow-Origin": "*"},
        )
        events = EventLoggingObserver()
        globalLogPublisher.addObserver(events)
        self.addCleanup(globalLogPublisher.removeObserver, events)
        self._events = events

    @property
    def statistics(self) -> list[ConnectionStatistics]:
        """List what was said of connections so far."""
        return [event["statistics"] for event in self._events if "statistics" in event]

    def client(self) -> Client:
        return Client(self.server)
