"""A client of a server in memory, with a clock that the test advances."""

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
    """Parse all responses in data, to requests with these methods, and GET for any further ones."""
    file = io.BytesIO(data)
    file.close = lambda: None  # type: ignore[method-assign]  # http.client closes it after each response
    responses = []
    request_methods = iter(methods)
    while file.tell() < len(data):
        response = http.client.HTTPResponse(_Socket(file), method=next(request_methods, "GET"))  # type: ignore[arg-type]
        response.begin()
        responses.append(Response(response.status, response.reason, response.msg, response.read()))
    return responses


@implementer(IWebModule)
class Parrot(Service):
    """A module whose responses the path determines: /parrot/text/hello, /parrot/defer, /parrot/error and so on."""

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
    """Does what the path of its request names."""

    methods = ("GET", "HEAD", "POST")
    parrot: Parrot

    async def get(self) -> None:
        action, _, argument = self.env["path_info"].removeprefix("/parrot/").partition("/")
        if action == "text":
            self.send_response(argument)
        elif action == "large":
            self.send_response(b"x" * int(argument))
        elif action == "defer":
            body: Deferred[str] = Deferred()
            self.parrot.waiting.append(body)
            text = await body
            self.mark("wait")
            self.send_response(text)
        elif action == "timeout":
            self.request_handler.send_timeout()
        elif action == "fail-when-cancelled":
            try:
                await Deferred()
            finally:
                raise ZeroDivisionError("on request")
        elif action == "invalid-parameter":
            raise InvalidParameter("q is missing")
        elif action == "stop":
            self.request_handler.set_stop(argument)
            self.send_response("")
        elif action == "error":
            raise ZeroDivisionError("on request")
        elif action == "respond-then-fail":
            self.send_response("sent")
            raise ZeroDivisionError("on request")
        elif action == "respond-twice":
            self.send_response("first")
            self.send_response("second")
        elif action == "inject-header":
            self.send_response("", headers={"X-Injected": "a\r\nSet-Cookie: b"})

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
        """Return the responses that were sent since the last call, to requests with these methods."""
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
    """A test case with a server that has a Parrot, and with the statistics of its connections."""

    limits: ServerSettings = ServerSettings()

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.parrot = Parrot()
        modules = MultiService()
        self.parrot.setServiceParent(modules)
        Service().setServiceParent(modules)
        bare = Service()
        bare.setName("bare")  # a service that is not a web module
        bare.setServiceParent(modules)
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
        """The published statistics of connections."""
        return [event["statistics"] for event in self._events if "statistics" in event]

    def client(self) -> Client:
        return Client(self.server)
