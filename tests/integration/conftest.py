"""What the tests over real sockets share: a service, the program, a gateway as others would write it, clients."""

import gzip
import random
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
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

GOVI_ANSWER = f"""<?xml version="1.0"?>

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


_given: set[int] = set()


def free_port() -> int:
    """Find a port that nobody listens on, and that the system gives to no outgoing connection meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)  # the other generator is hypothesis's to seed
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


@dataclass
class Answer:
    """An answer, read to its end."""

    code: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return values[0] if values else None


async def request(method: str, url: str, body: bytes = b"", pool: HTTPConnectionPool | None = None) -> Answer:
    """Ask over a connection of its own, or of the pool."""
    pool = pool or HTTPConnectionPool(reactor, persistent=False)
    response = await treq.request(method, url, data=body or None, pool=pool, unbuffered=True)
    return Answer(response.code, response.headers, await response.content())


def later(seconds: float) -> Deferred[None]:
    """Wait."""
    return deferLater(reactor, seconds, lambda: None)


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until something holds; fails when it does not in this many seconds."""
    end = reactor.seconds() + seconds
    while not condition():
        assert reactor.seconds() < end, "it never came to hold"
        await later(0.01)


@dataclass
class Govi(Resource):
    """A gateway: takes questions on any path, and calls back as it is told to."""

    callback_url: str
    answers: list[bytes] = field(default_factory=list)
    """What is posted to the callback address after each question, one after the other."""
    code: int = 200
    """How a question is answered."""
    questions: list[bytes] = field(default_factory=list)
    callbacks: list[Answer] = field(default_factory=list)
    """How the callbacks were answered."""
    hangs_up: bool = False
    """Whether the next question is not answered, but its connection closed."""
    endless: bool = False
    """Whether the answer to a question is longer than what is sent of it."""
    isLeaf = True

    def __post_init__(self) -> None:
        super().__init__()

    def render_POST(self, asked: Request) -> bytes | int:
        assert asked.content is not None
        self.questions.append(asked.content.read())
        if self.hangs_up:
            self.hangs_up = False
            cast(ITCPTransport, asked.transport).abortConnection()
            return b""
        asked.setResponseCode(self.code)
        answers = list(self.answers) if self.code == 200 else []
        reactor.callLater(0.05, lambda: Deferred.fromCoroutine(self.call_back(answers)))
        if self.endless:
            asked.setHeader(b"Content-Length", b"1000")
            asked.write(b"<DRIS_55_RES/>")
            return NOT_DONE_YET
        return b"<DRIS_55_RES/>"

    async def call_back(self, answers: list[bytes]) -> None:
        for answer in answers:
            self.callbacks.append(await request("POST", self.callback_url, answer))


@dataclass
class Running:
    """A running server."""

    port: int
    callback_port: int
    statistics: Path
    service: IService
    govi: Govi

    def url(self, code: str, module: str = "kv55") -> str:
        return f"http://127.0.0.1:{self.port}/{module}/{code}"

    async def get(self, code: str) -> Answer:
        return await request("GET", self.url(code))


Start = Callable[..., Running]


@pytest_twisted.async_yield_fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Give a function that starts a server in this process, with a Govi as its gateway."""
    services: list[IService] = []
    ports = []

    def start(toml: str = "", *more: str) -> Running:
        port, callback_port = free_port(), free_port()
        govi = Govi(f"http://127.0.0.1:{callback_port}/KV55", [GOVI_ANSWER.encode()])
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
                *more,
            ]
        )  # fmt: skip
        service = tap.makeService(options, reactor)
        service.privilegedStartService()
        service.startService()
        services.append(service)
        return Running(port, callback_port, statistics, service, govi)

    yield start
    for service in services:
        if service.running:
            await service.stopService()
    for listening in ports:
        await listening.stopListening()


@pytest.fixture
def answer() -> bytes:
    """Give a gateway's answer, as bytes."""
    return GOVI_ANSWER.encode()


def compressed(data: bytes) -> bytes:
    """Compress as a gateway does."""
    return gzip.compress(data)


TWISTD = "from twisted.scripts.twistd import run; run()"

Twistd = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def twistd(tmp_path: Path) -> Iterator[Twistd]:
    """Give a function that runs twistd in a directory of its own, and ends what it started."""
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
        process.communicate()


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    """Read what a process says until this text is in a line."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"it ended without saying {text!r}: {said}")


def arguments(port: int, *more: str) -> list[str]:
    return [
        "govi-cache", "--listen", f"tcp:{port}:interface=127.0.0.1",
        "--callback", f"tcp:{free_port()}:interface=127.0.0.1", "--admin", "", *more,
    ]  # fmt: skip
