"""The web site for operators, on a separate port: /health, /ready, /metrics, /status and /status.json."""

from collections.abc import Callable

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Site

from govi_server.operations.metrics import Metrics
from govi_server.operations.readiness import Readiness
from govi_server.operations.status import Status
from govi_server.operations.status_page import page
from govi_server.sockets.accepting import AcceptThrottle

_TEXT = "text/plain; charset=utf-8"


class Admin(Site):
    """The web site for operators and their tools. name: the name in log lines."""

    name = "operators"
    noisy = False

    def __init__(self, clock: IReactorTime, metrics: Metrics, status: Status, readiness: Readiness) -> None:
        root = _Root()
        super().__init__(root, reactor=clock)
        self.accepting = AcceptThrottle(clock, self.name)
        root.putChild(b"", _Page("text/html; charset=utf-8", lambda: page(status.json())))
        root.putChild(b"health", _Page(_TEXT, lambda: b"alive\n"))
        root.putChild(b"ready", _Ready(readiness))
        root.putChild(b"metrics", _Page(CONTENT_TYPE_LATEST, lambda: generate_latest(metrics.registry)))
        root.putChild(b"status", _Page("text/html; charset=utf-8", lambda: page(status.json())))
        root.putChild(b"status.json", _Page("application/json", lambda: msgspec.json.encode(status.json())))

    def logPrefix(self) -> str:
        """Return the name in Twisted's own log lines."""
        return self.name

    def log(self, request: Request) -> None:
        """Do not log requests: metrics are scraped every few seconds."""


class _Root(Resource):
    def getChild(self, path: bytes, request: Request) -> IResource:
        return _Page(_TEXT, lambda: b"no such path\n", 404)


class _Page(Resource):
    """A page that is rendered for each request."""

    isLeaf = True

    def __init__(self, content_type: str, render: Callable[[], bytes], status: int = 200) -> None:
        super().__init__()
        self._status = status
        self._content_type = content_type
        self._render = render

    def render_GET(self, request: Request) -> bytes:
        _set_head(request, self._status, self._content_type)
        return self._render()


class _Ready(Resource):
    """The readiness: 200, or 503 with the reasons."""

    isLeaf = True
    log = Logger()

    def __init__(self, readiness: Readiness) -> None:
        super().__init__()
        self._readiness = readiness

    def render_GET(self, request: Request) -> int:
        problems = Deferred.fromCoroutine(self._readiness.problems())
        request.notifyFinish().addErrback(lambda disconnected: problems.cancel())
        problems.addCallback(self._respond, request)
        problems.addErrback(self._failed, request)
        return NOT_DONE_YET

    def _respond(self, problems: list[str], request: Request) -> None:
        _send(request, 503 if problems else 200, "".join(f"{problem}\n" for problem in problems) or "ready\n")

    def _failed(self, failure: Failure, request: Request) -> None:
        if failure.check(CancelledError):
            return  # the client has disconnected
        self.log.failure("/ready: check failed", failure)
        _send(request, 500, "readiness check failed; see the log\n")


def _set_head(request: Request, status: int, content_type: str) -> None:
    request.setResponseCode(status)
    request.setHeader("content-type", content_type)
    request.setHeader("cache-control", "no-store")


def _send(request: Request, status: int, text: str) -> None:
    """Send a response with its length, which HEAD states as well."""
    body = text.encode()
    _set_head(request, status, _TEXT)
    request.setHeader("content-length", f"{len(body)}")
    request.write(body)
    request.finish()
