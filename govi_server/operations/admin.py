"""The pages of the operators' port: /health, /ready, /metrics, /status and /status.json."""

from collections.abc import Sequence

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from govi_server.operations.metrics import Metrics
from govi_server.operations.readiness import Readiness
from govi_server.operations.site import HTML, TEXT, OperatorsSite, Page, send
from govi_server.operations.status import Status
from govi_server.operations.status_page import page
from govi_server.runtime.text import escape_json


class Admin(OperatorsSite):
    """The web site of govi-cache for operators. hosts: names of the server besides its addresses and localhost."""

    def __init__(
        self,
        clock: IReactorTime,
        metrics: Metrics,
        status: Status,
        readiness: Readiness,
        hosts: Sequence[str] = (),
    ) -> None:
        pages = {
            "": Page(HTML, lambda: page(status.json())),
            "health": Page(TEXT, lambda: b"alive\n"),
            "ready": _Ready(readiness),
            "metrics": Page(CONTENT_TYPE_LATEST, lambda: generate_latest(metrics.registry)),
            "status": Page(HTML, lambda: page(status.json())),
            "status.json": Page("application/json", lambda: _status_json(status)),
        }
        super().__init__(clock, pages, hosts)


def _status_json(status: Status) -> bytes:
    return escape_json(msgspec.json.encode(status.json()).decode()).encode()


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
        text = "".join(f"{problem}\n" for problem in problems) or "ready\n"
        send(request, 503 if problems else 200, TEXT, text.encode())

    def _failed(self, failure: Failure, request: Request) -> None:
        if failure.check(CancelledError):
            return  # the client has disconnected
        self.log.failure("/ready: check failed", failure)
        send(request, 500, TEXT, b"readiness check failed; see the log\n")
