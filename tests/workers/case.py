"""A worker in front of a main process with all modules, both in memory with the same clock."""

import re
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.testing import EventLoggingObserver
from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.caching.response_cache import AGE_STEP
from govi_server.http.client_limits import UNLIMITED, ClientLimits
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from govi_server.settings import AccessSettings
from govi_server.statistics.records import ConnectionStatistics, RequestStatistics
from govi_server.workers.fields import CHARGED
from govi_server.workers.origin import OriginHandler
from govi_server.workers.proxy import Proxy
from tests.client import Client, Response
from tests.examples import Program
from tests.workers.pipe import PipeEndpoint


class WorkerProgram(Program):
    """All modules of the program behind the server of a worker.

    address: the main process's. origin: the main process's server. statistics: of the worker's connections.
    """

    pauses = (*[0.0] * 8, *Program.pauses)  # for the turns of two processes

    def __init__(self, source: str, has_data: bool = True, access: AccessSettings = UNLIMITED) -> None:
        super().__init__(source, has_data)
        clock = cast(Any, self.clock)
        errors = self.server.errors
        self.origin = Server(
            "", 0, OriginHandler, clock=clock, find_module=self.modules.getServiceNamed, errors=errors
        )
        self.address = PipeEndpoint(clock, self.origin)
        self.proxy = Proxy(clock, self.address, [str(module.name) for module in self.modules])
        self.events = EventLoggingObserver()
        self.server = Server(
            "",
            0,
            RequestHandler,
            clock=clock,
            find_module=self.proxy.find_module,
            headers=self.server.headers,  # the same as without workers
            access=ClientLimits(clock, access),
            observer=self.events,
            errors=errors,
        )

    @property
    def records(self) -> list[RequestStatistics]:
        """The requests in the published statistics of the worker."""
        connections: list[ConnectionStatistics] = [event["statistics"] for event in self.events]
        return [request for connection in connections for request in connection.requests]

    def turn(self, turns: int = 8) -> None:
        """Pass turns of both processes, in no time."""
        for _ in range(turns):
            self.clock.advance(0)


class WorkerCase(SynchronousTestCase):
    """A test case with a worker in front of the live feed."""

    source = "feed"

    def setUp(self) -> None:
        self.program = WorkerProgram(self.source)
        self.clock = self.program.clock

    def client(self) -> Client:
        return Client(self.program.server)

    def turn(self) -> None:
        self.program.turn()

    def get(self, path: str, **headers: str) -> Response:
        """Send a request on a new connection, and return the response."""
        client = self.client()
        client.get(path, **headers)
        self.turn()
        response = client.response()
        client.leave()
        return response

    @property
    def upstream(self) -> list[str]:
        """The targets of the requests to the main process, without those repeated because work was charged."""
        sections = self.program.address.requests
        return [section.split()[1].decode() for section in sections if CHARGED.encode() not in section]


_ID = re.compile(rb"^id: [0-9a-f]+$", re.MULTILINE)  # of an event: a digest that includes ages in microseconds
_TIMES = re.compile(r"^(?:(Age): |Cache-.*?(?:(max-age)|ttl)=)(-?[0-9]+)", re.MULTILINE)


def differences(response: Response, expected: Response) -> list[str]:
    """Return how a worker's response differs from that of a single process.

    Seconds may be rounded up, so that a response seems older by one, or by AGE_STEP in max-age, but never younger.
    """
    differing = []
    status, expected_status = f"{response.status} {response.reason}", f"{expected.status} {expected.reason}"
    if status != expected_status:
        differing.append(f"{status}, not {expected_status}")
    if _ID.sub(b"", response.body) != _ID.sub(b"", expected.body):
        differing.append(f"{response.body!r}, not {expected.body!r}")
    fields, expected_fields = (
        "\n".join(f"{name}: {value}" for name, value in headers.items())
        for headers in (response.headers, expected.headers)
    )
    if _TIMES.sub("", fields) != _TIMES.sub("", expected_fields):
        differing.append(f"{fields}, not {expected_fields}")
    for time, expected_time in zip(_TIMES.finditer(fields), _TIMES.finditer(expected_fields), strict=False):
        older = int(time[3]) - int(expected_time[3])
        if not 0 <= (older if time[1] else -older) <= (AGE_STEP if time[2] else 1):
            differing.append(f"{time[0]}, not {expected_time[0]}")
    return differing


def compare(single: Program, worker: WorkerProgram, request: Callable[[Program], Response]) -> list[str]:
    """Make a request to both at the same time; return the differences of the responses."""
    now = max(single.clock.seconds(), worker.clock.seconds())
    for program in (single, worker):
        program.clock.advance(now - program.clock.seconds())
    return differences(request(worker), request(single))
