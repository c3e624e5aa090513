"""What a connection held is freed at its end, over real sockets of each kind, without the garbage collector."""

import socket
import ssl
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.http.request import Environ
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from govi_server.settings import ServerSettings
from govi_server.sockets.listener import server_service
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler
from tests.garbage import clean_failure, created_objects, original_init, without_collector
from tests.integration.conftest import reactor, sleep, until
from tests.integration.test_kv55 import make_certificate
from tests.ports import free_port

LIMITS = ServerSettings(connection=1.0, keep_alive=1.0)

GET = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /text HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 900

DATA = {
    "nothing": b"",
    "a response": GET % b"text",
    "no module": GET % b"absent",
    "waits": GET % b"wait",
    "pipelined": GET % b"wait" + GET % b"text" * 100,
    "exception": GET % b"fail",
    "half a header section": (GET % b"text")[:-4],
    "half a body": POST,
    "unread body": POST.replace(b"POST", b"PUT"),
    "not HTTP": b"\x00\x01\x02",
    "a response that is not read": GET % b"large",
    "a stream": GET % b"stream",
}
"""What a client sends before its connection ends."""

ENDS = ("close", "reset", "half-close", "wait")
"""How it ends: the client closes it, resets it, closes its sending side, or waits until the server closes it."""


@implementer(IWebModule)
class Module:
    """Responds as the path says."""

    def __init__(self, name: str) -> None:
        self.name = name

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "Handler":
        return Handler(request_handler, env)


class Handler(WebHandler):
    """Responds as the path says."""

    methods = ("GET", "POST")

    async def get(self) -> None:
        action = self.env["path_info"][1:]
        if action == "wait":
            await Deferred()
        elif action == "fail":
            raise ZeroDivisionError("on request")
        elif action == "stream":
            stream = self.stream((), b"end")
            stream.write(b"event")
            await stream.ended
        self.send_response(b"x" * (20_000_000 if action == "large" else 10))

    async def post(self) -> None:
        self.send_response(self.env.body)


def find_module(name: str) -> Module:
    if name == "absent":
        raise KeyError(name)
    return Module(name)


async def connect(kind: str, address: Any, tls: ssl.SSLContext) -> socket.socket:
    """Return a connected socket that does not block; TLS is established, and the PROXY header sent."""
    client = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
    client.connect(address)
    client.setblocking(False)
    if kind == "haproxy":
        client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
    if kind != "ssl":
        return client
    tls_client = tls.wrap_socket(client, do_handshake_on_connect=False)
    while True:
        try:
            tls_client.do_handshake()
        except ssl.SSLWantReadError:
            await sleep(0.001)
        else:
            return tls_client


def end(client: socket.socket, how: str) -> None:
    """End a connection, or wait for its end."""
    if how == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    elif how == "half-close":
        with suppress(OSError):  # the server has closed it
            socket.socket.shutdown(client, socket.SHUT_WR)
    if how in ("close", "reset"):
        client.close()


@pytest.mark.parametrize("kind", ["tcp", "unix", "ssl", "haproxy"])
@pytest_twisted.ensureDeferred
async def test_nothing_is_left(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of connections of each kind, however they end."""
    monkeypatch.setattr(Failure, "__init__", original_init)
    monkeypatch.setattr(Failure, "cleanFailure", clean_failure)
    monkeypatch.setattr("govi_server.server.LINGER_SECONDS", 0.3)
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make_certificate(key, certificate)
    tls = ssl.create_default_context(cafile=str(certificate))
    tls.check_hostname = False
    port, path = free_port(), str(tmp_path / "socket")
    endpoint = {
        "tcp": f"tcp:{port}:interface=127.0.0.1",
        "unix": f"unix:{path}",
        "ssl": f"ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={certificate}",
        "haproxy": f"haproxy:tcp:{port}:interface=127.0.0.1",
    }[kind]
    observer = cast(ILogObserver, lambda event: None)
    server = Server(
        "", 0, RequestHandler, clock=reactor, find_module=find_module, limits=LIMITS, observer=observer
    )  # fmt: skip
    service = MultiService()
    server_service(reactor, "listen", [endpoint], server).setServiceParent(service)
    service.privilegedStartService()
    service.startService()
    address = path if kind == "unix" else ("127.0.0.1", port)
    (await connect(kind, address, tls)).close()  # creates what is cached
    await until(lambda: not server.connections)
    clients = []
    with without_collector():
        for name, data in DATA.items():
            for how in ENDS[: 3 if name == "a stream" else 4]:
                client = await connect(kind, address, tls)
                if data:
                    client.send(data)
                clients.append((client, how))
        if kind in ("ssl", "haproxy"):  # without a TLS handshake or a PROXY header
            client = await connect("tcp", address, tls)
            client.send(b"nonsense" * 20)
            clients.append((client, "wait"))
        await sleep(0.2)
        for client, how in clients:
            end(client, how)
        await until(lambda: not server.connections, 20)
        await sleep(0.1)
        left = created_objects()
    for client, _ in clients:
        client.close()
    await service.stopService()
    assert left - Counter(Client=2, Deferred=1) == {}  # cached clients, and the sleep of this test
