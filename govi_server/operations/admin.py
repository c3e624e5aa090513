"""The operators' endpoint: /health, /ready, /metrics, /status and /status.json, on a port of its own."""

from collections.abc import Callable

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.pages import notFound
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Site

from govi_server.operations.metrics import Metrics
from govi_server.operations.readiness import Readiness
from govi_server.operations.status import Status
from govi_server.operations.status_page import page
from govi_server.sockets.accepting import AcceptThrottle

_TEXT = "text/plain; charset=utf-8"


class Admin(Site):
    """Answers operators and their tools; what: the name that logs call it by."""

    name = "operators"
    noisy = False

    def __init__(self, clock: IReactorTime, metrics: Metrics, status: Status, ready: Readiness) -> None:
        root = _Root()
        super().__init__(root, reactor=clock)
        self.accepting = AcceptThrottle(clock, self.name)
        root.putChild(b"", _Page("text/html; charset=utf-8", lambda: page(status.json())))
        root.putChild(b"health", _Page(_TEXT, lambda: b"alive\n"))
        root.putChild(b"ready", _Ready(ready))
        root.putChild(b"metrics", _Page(CONTENT_TYPE_LATEST, lambda: generate_latest(metrics.registry)))
        root.putChild(b"status", _Page("text/html; charset=utf-8", lambda: page(status.json())))
        root.putChild(b"status.json", _Page("application/json", lambda: msgspec.json.encode(status.json())))

    def logPrefix(self) -> str:
        """Say what listens, in Twisted's own log lines."""
        return self.name

    def log(self, request: Request) -> None:
        """Keep quiet: scrapes come every few seconds."""


class _Root(Resource):
    def getChild(self, path: bytes, request: Request) -> IResource:
        return notFound()


class _Page(Resource):
    """One path, made when it is asked for."""

    isLeaf = True

    def __init__(self, content_type: str, make: Callable[[], bytes]) -> None:
        super().__init__()
        self._content_type = content_type
        self._make = make

    def render_GET(self, request: Request) -> bytes:
        _say(request, 200, self._content_type)
        return self._make()


class _Ready(Resource):
    """Whether a question would be answered now: asks one."""

    isLeaf = True
    log = Logger()

    def __init__(self, ready: Readiness) -> None:
        super().__init__()
        self._ready = ready

    def render_GET(self, request: Request) -> int:
        asked = Deferred.fromCoroutine(self._ready.why_not())
        request.notifyFinish().addErrback(lambda gone: asked.cancel())
        asked.addCallback(self._answer, request)
        asked.addErrback(self._failed, request)
        return NOT_DONE_YET

    def _answer(self, why: list[str], request: Request) -> None:
        _say(request, 503 if why else 200, _TEXT)
        request.write(("".join(f"{reason}\n" for reason in why) or "ready\n").encode())
        request.finish()

    def _failed(self, failure: Failure, request: Request) -> None:
        if failure.check(CancelledError):
            return  # who asked has gone
        self.log.failure("/ready failed", failure)
        _say(request, 500, _TEXT)
        request.write(b"the check itself failed; the log has more\n")
        request.finish()


def _say(request: Request, status: int, content_type: str) -> None:
    request.setResponseCode(status)
    request.setHeader("content-type", content_type)
    request.setHeader("cache-control", "no-store")
