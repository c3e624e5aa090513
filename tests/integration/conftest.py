"""Fixtures of the tests over real sockets: the service, the program, a gateway, and requests."""

import gzip
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Any, cast

import pytest
import pytest_twisted
import treq
from twisted.application.service import IService
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import deferLater
from twisted.web.client import HTTPConnectionPool
from twisted.web.http import Request
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from govi_server import tap
from govi_server.tap import Options
from tests.ports import free_port

reactor: Any = the_reactor

GOVI_TRIP = """
      <Trip>
        <OperatingDate>2012-01-22</OperatingDate>
        <DataOwnerCode>GVB</DataOwnerCode>
        <LinePlanningNumber>69</LinePlanningNumber>
        <DestinationName>(69) Station Sloterdijk</DestinationName>
        <JourneyNumber>148</JourneyNumber>
        <FortifyOrderNumber>0</FortifyOrderNumber>
        <TargetDepartureTime>24:32:46</TargetDepartureTime>
        <ExpectedDepartureTime>24:33:10</ExpectedDepartureTime>
      </Trip>"""

GOVI_RESPONSE = f"""<?xml version="1.0"?>

<DRIS_55>
  <SubscriberID>openOV</SubscriberID>
  <Version>0.0.1</Version>
  <DossierName>KV55</DossierName>
  <SendTimestamp>2012-01-22T23:45:49+01:00</SendTimestamp>
  <Request>
    <RequestTimestamp>2012-01-22T22:45:49</RequestTimestamp>
    <SequenceNumber>56</SequenceNumber>
    <TimingPoint>
      <TimingPointCode>031102</TimingPointCode>{GOVI_TRIP}
    </TimingPoint>
  </Request>
</DRIS_55>
"""


@dataclass
class Response:
    """A response with its complete body."""

    code: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return values[0] if values else None


async def request(method: str, url: str, body: bytes = b"", pool: HTTPConnectionPool | None = None) -> Response:
    """Send a request over a new connection, or one of the pool; return the response."""
    pool = pool or HTTPConnectionPool(reactor, persistent=False)
    response = await treq.request(method, url, data=body or None, pool=pool, unbuffered=True)
    return Response(response.code, response.headers, await response.content())


def sleep(seconds: float) -> Deferred[None]:
    """Return a Deferred that fires after so many seconds."""
    return deferLater(reactor, seconds, lambda: None)


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for a condition. Raises AssertionError after so many seconds."""
    end = reactor.seconds() + seconds
    while not condition():
        assert reactor.seconds() < end, "the condition did not become true"
        await sleep(0.01)


@dataclass
class Govi(Resource):
    """A gateway that accepts requests on any path, and posts the configured responses to the callback URL."""

    callback_url: str
    responses: list[bytes] = field(default_factory=list)
    """Bodies that are posted to the callback URL, in order, after each request."""
    code: int = 200
    """Status of the acknowledgement of a request."""
    requests: list[bytes] = field(default_factory=list)
    callbacks: list[Response] = field(default_factory=list)
    """The responses to the callbacks."""
    closes_connection: bool = False
    """Whether the gateway closes the connection of the next request without an acknowledgement."""
    is_incomplete: bool = False
    """Whether acknowledgements are shorter than their Content-Length."""
    isLeaf = True

    def __post_init__(self) -> None:
        super().__init__()

    def render_POST(self, received: Request) -> bytes | int:
        assert received.content is not None
        self.requests.append(received.content.read())
        if self.closes_connection:
            self.closes_connection = False
            cast(ITCPTransport, received.transport).abortConnection()
            return b""
        received.setResponseCode(self.code)
        responses = list(self.responses) if self.code == 200 else []
        reactor.callLater(0.05, lambda: Deferred.fromCoroutine(self.post_callbacks(responses)))
        if self.is_incomplete:
            received.setHeader(b"Content-Length", b"1000")
            received.write(b"<DRIS_55_RES/>")
            return NOT_DONE_YET
        return b"<DRIS_55_RES/>"

    async def post_callbacks(self, bodies: list[bytes]) -> None:
        for body in bodies:
            self.callbacks.append(await request("POST", self.callback_url, body))


@dataclass
class Running:
    """A running server and its gateway."""

    port: int
    callback_port: int
    statistics: Path
    service: IService
    govi: Govi
    gateway_port: int

    def url(self, code: str, module: str = "kv55") -> str:
        return f"http://127.0.0.1:{self.port}/{module}/{code}"

    async def get(self, code: str) -> Response:
        return await request("GET", self.url(code))


Start = Callable[..., Running]


@pytest_twisted.async_yield_fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Return a function that starts a server in this process, with a Govi as its gateway."""
    services: list[IService] = []
    ports = []

    def start(toml: str = "", *more: str) -> Running:
        port, callback_port = free_port(), free_port()
        govi = Govi(f"http://127.0.0.1:{callback_port}/KV55", [GOVI_RESPONSE.encode()])
        listening = reactor.listenTCP(0, Site(govi), interface="127.0.0.1")
        ports.append(listening)
        config = tmp_path / "govi-cache.toml"
        config.write_text(toml)
        options = Options()
        statistics = tmp_path / "statistics.log"
        options.parseOptions(
            [
                "--config", str(config),
                "--listen", f"tcp:{port}:interface=127.0.0.1",
                "--callback", f"tcp:{callback_port}:interface=127.0.0.1",
                "--gateway-url", f"http://127.0.0.1:{listening.getHost().port}/TMI_Post/KV55/openOV",
                "--statistics", str(statistics),
                "--admin", "",
                *more,
            ]
        )  # fmt: skip
        service = tap.makeService(options, reactor)
        service.privilegedStartService()
        service.startService()
        services.append(service)
        return Running(port, callback_port, statistics, service, govi, listening.getHost().port)

    yield start
    for service in services:
        if service.running:
            await service.stopService()
    for listening in ports:
        await listening.stopListening()


@pytest.fixture
def govi_response() -> bytes:
    """Return a gateway's response."""
    return GOVI_RESPONSE.encode()


def compressed(data: bytes) -> bytes:
    """Return compressed data, as from a gateway that uses gzip."""
    return gzip.compress(data)


TWISTD = "from twisted.scripts.twistd import run; run()"

Twistd = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def twistd(tmp_path: Path) -> Iterator[Twistd]:
    """Return a function that runs twistd in the test's directory; its processes are killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def twistd(*arguments: str, files: int | None = None) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile=", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=None if files is None else lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
        )
        started.append(process)
        return process

    yield twistd
    for process in started:
        process.kill()
        print(process.communicate()[0])  # pytest shows it if the test fails
    for log in tmp_path.glob("twistd.log*"):
        print(log.name, log.read_text(), sep="\n")


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    """Return the output of a process up to a line that contains text; end it after a minute without one."""
    assert process.stdout is not None
    output = ""
    deadline = Timer(60, process.kill)
    deadline.start()
    try:
        for line in process.stdout:
            output += line
            if text in line:
                return output
    finally:
        deadline.cancel()
    raise AssertionError(f"the process ended without {text!r}: {output}")


def becomes_true(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Return whether a condition becomes true within so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def arguments(port: int, *more: str) -> list[str]:
    """Return the arguments of twistd for a govi-cache that listens on a port, by default with the demo."""
    has_source = {"--source", "--feed", "--timetable", "--gateway-url", "--config"} & set(more)
    source = [] if has_source else ["--source", "demo"]
    return [
        "govi-cache", "--listen", f"tcp:{port}:interface=127.0.0.1",
        "--callback", f"tcp:{free_port()}:interface=127.0.0.1", "--admin", "", *source, *more,
    ]  # fmt: skip
