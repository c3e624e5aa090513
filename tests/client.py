"""A client of a Server in memory: bytes in, bytes out, with a stepped clock."""

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


class Response(NamedTuple):
    """A response as a client parses it."""

    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes


class _Socket:
    def __init__(self, file: io.BytesIO) -> None:
        self._file = file

    def makefile(self, mode: str) -> io.BytesIO:
        return self._file


def read_responses(data: bytes, methods: Iterable[str] = ()) -> list[Response]:
    """Parse all responses in data, to requests of these methods (GET after the last of them)."""
    file = io.BytesIO(data)
    file.close = lambda: None  # type: ignore[method-assign]  # http.client closes it after each response
    responses = []
    remaining = iter(methods)
    while file.tell() < len(data):
        response = http.client.HTTPResponse(_Socket(file), method=next(remaining, "GET"))  # type: ignore[arg-type]
        response.begin()
        responses.append(Response(response.status, response.reason, response.msg, response.read()))
    return responses


@implementer(IWebModule)
class Parrot(Service):
    """A module whose responses the path determines: /parrot/says, /parrot/waits, /parrot/fails and so on."""

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
    """Responds as the path of its request determines."""

    methods = ("GET", "HEAD", "POST")
    parrot: Parrot

    async def get(self) -> None:
        action = self.env["path_info"].removeprefix("/parrot/")
        if action.startswith("says/"):
            self.send_response(action.removeprefix("says/"))
        elif action.startswith("large/"):
            self.send_response(b"x" * int(action.removeprefix("large/")))
        elif action == "waits":
            text: Deferred[str] = Deferred()
            self.parrot.waiting.append(text)
            body = await text
            self.mark("wait")
            self.send_response(body)
        elif action == "gives-up":
            self.request_handler.send_timeout()
        elif action == "cleans-up":
            try:
                await Deferred()
            finally:
                raise ZeroDivisionError("on request")
        elif action == "bad-query":
            raise InvalidParameter("q is missing")
        elif action.startswith("stop/"):
            self.request_handler.set_stop(action.removeprefix("stop/"))
            self.send_response("")
        elif action == "fails":
            raise ZeroDivisionError("on request")
        elif action == "fails-after":
            self.send_response("said")
            raise ZeroDivisionError("on request")
        elif action == "repeats":
            self.send_response("once")
            self.send_response("twice")
        elif action == "injects":
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
        """Return the bytes that were sent since the last call."""
        data: bytes = self.transport.value()[self._read :]
        self._read += len(data)
        return data

    def responses(self, *methods: str) -> list[Response]:
        return read_responses(self.received(), methods)

    def response(self, method: str = "GET") -> Response:
        """Return the only response that was sent since the last call."""
        (response,) = self.responses(method)
        return response

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
        """Lose the connection, because the client or the server has closed it."""
        self.handler.connectionLost(Failure(reason()))


class WireTestCase(SynchronousTestCase):
    """A test with a server, a Parrot, and the statistics of the server's connections."""

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
        """Return the published statistics of connections."""
        return [event["statistics"] for event in self._events if "statistics" in event]

    def client(self) -> Client:
        return Client(self.server)
