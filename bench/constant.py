"""Servers of one constant response, the file that BENCH_BODY names: the minimal cost of other frameworks.

python bench/constant.py "aiohttp" | "twisted.web[ with its access log]" | "bare Twisted protocol" PORT
"""

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

with open(os.environ["BENCH_BODY"], "rb") as file:
    BODY = file.read()


async def app(scope: dict[str, Any], receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """Respond as an ASGI application."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"text/xml"), (b"content-length", b"%d" % len(BODY))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})


def aiohttp(port: int) -> None:
    """Respond with aiohttp."""
    from aiohttp import web

    async def respond(request: web.Request) -> web.Response:
        return web.Response(body=BODY, content_type="text/xml")

    application = web.Application()
    application.router.add_get("/{path:.*}", respond)
    web.run_app(application, host="127.0.0.1", port=port, access_log=None, print=None)


def twisted_web(port: int, logs: bool) -> None:
    """Respond with twisted.web."""
    from twisted.python.log import startLogging
    from twisted.web import resource, server

    class Constant(resource.Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            request.setHeader(b"content-type", b"text/xml")
            return BODY

    site = server.Site(Constant())
    if logs:
        startLogging(sys.stdout, setStdout=False)
    else:
        site.log = lambda request: None  # type: ignore[method-assign]  # no access log
    _listen(port, site)


def bare(port: int) -> None:
    """Respond with a protocol that looks up the received bytes and writes immediately: Twisted's minimal cost."""
    from twisted.internet import protocol

    def make_response(data: bytes) -> bytes:
        connection = b"close" if b"Connection: close" in data else b"keep-alive"
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %b\r\n\r\n%b" % (len(BODY), connection, BODY)

    responses: dict[bytes, bytes] = {}

    class Bare(protocol.Protocol):
        transport: Any

        def dataReceived(self, data: bytes) -> None:
            response = responses.get(data) or responses.setdefault(data, make_response(data))
            sent = self.transport.writeSomeData(response)
            if sent != len(response):
                self.transport.write(response[sent:])
            if b"close" in data:
                self.transport.loseConnection()

    _listen(port, protocol.Factory.forProtocol(Bare))


def _listen(port: int, factory: Any) -> None:
    from twisted.internet import reactor

    reactor.listenTCP(port, factory, interface="127.0.0.1", backlog=1024)
    reactor.run()


if __name__ == "__main__":
    name, port = sys.argv[1], int(sys.argv[2])
    if name.startswith("twisted.web"):
        twisted_web(port, logs="access log" in name)
    else:
        {"aiohttp": aiohttp, "bare Twisted protocol": bare}[name](port)
