"""The pages of the operators' port: /health, /ready, /metrics, /status and /status.json."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics import exposition
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from govi_server.departures.times import utc_timestamp
from govi_server.operations.health import HealthMonitor
from govi_server.operations.metrics import Metrics
from govi_server.operations.problem import Problem
from govi_server.operations.readiness import Readiness
from govi_server.operations.site import HTML, JSON, TEXT, Alternatives, OperatorsSite, Page, accepted_type, send
from govi_server.operations.status import Status
from govi_server.operations.status_page import REFRESH_SECONDS, page
from govi_server.runtime.text import escape_json


class Admin(OperatorsSite):
    """The web site of govi-cache for operators. hosts: names of the server besides its addresses and localhost."""

    def __init__(
        self,
        clock: IReactorTime,
        metrics: Metrics,
        status: Status,
        readiness: Readiness,
        monitor: HealthMonitor,
        hosts: Sequence[str] = (),
    ) -> None:
        registry = metrics.registry
        pages = {
            "": _StatusPage(status),
            "health": Alternatives(
                {"text/plain": Page(TEXT, lambda: b"alive\n"), JSON: Page(JSON, lambda: _health_json(monitor))}
            ),
            "ready": _Ready(readiness),
            "metrics": Alternatives(
                {
                    "text/plain": Page(CONTENT_TYPE_LATEST, lambda: generate_latest(registry)),
                    "application/openmetrics-text": Page(
                        exposition.CONTENT_TYPE_LATEST, lambda: exposition.generate_latest(registry)
                    ),
                }
            ),
            "status": _StatusPage(status),
            "status.json": Page(JSON, lambda: _json(status.json())),
        }
        super().__init__(clock, pages, hosts)


def _json(value: Any) -> bytes:
    return escape_json(msgspec.json.encode(value).decode()).encode()


def _health_json(monitor: HealthMonitor) -> bytes:
    health = monitor.health()
    since = utc_timestamp(health.since) + "Z"
    return _json({"alive": True, "status": health.status, "since": since, "problems": _objects(health.problems)})


def _objects(problems: Iterable[Problem]) -> list[dict[str, str]]:
    return [problem._asdict() for problem in problems]


class _StatusPage(Resource):
    """The status page, which reloads itself unless the query is "still"."""

    isLeaf = True

    def __init__(self, status: Status) -> None:
        super().__init__()
        self._status = status

    def render_GET(self, request: Request) -> int:
        is_still = request.uri.partition(b"?")[2] == b"still"
        if not is_still:
            request.setHeader("refresh", f"{REFRESH_SECONDS}")
        send(request, 200, HTML, page(self._status.json(), is_still))
        return NOT_DONE_YET


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

    def _respond(self, problems: list[Problem], request: Request) -> None:
        status = 503 if problems else 200
        if accepted_type(request, ("text/plain", JSON)) == JSON:
            send(request, status, JSON, _json({"ready": not problems, "problems": _objects(problems)}))
        else:
            text = "".join(f"{problem.text}\n" for problem in problems) or "ready\n"
            send(request, status, TEXT, text.encode())

    def _failed(self, failure: Failure, request: Request) -> None:
        if failure.check(CancelledError):
            return  # the client has disconnected
        self.log.failure("/ready: check failed", failure)
        send(request, 500, TEXT, b"readiness check failed; see the log\n")
