"""The components of a program with a gateway and a feed, for the tests of operations."""

from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

from prometheus_client import generate_latest
from twisted.application.service import MultiService
from twisted.internet.task import Clock
from twisted.logger import Logger

from govi_server.departures.breaker import CircuitBreaker
from govi_server.departures.cache import BoardCache
from govi_server.kv55.gateway import Gateway
from govi_server.kv78turbo.subscriber import State
from govi_server.modules.kv55_gateway import Kv55Gateway
from govi_server.modules.ovapi import ovapi_modules
from govi_server.operations.components import Components, GatewayComponents
from govi_server.operations.health import HealthMonitor
from govi_server.operations.history import RecentHistory
from govi_server.operations.metrics import FailingStops, Metrics
from govi_server.operations.status import Status
from govi_server.planning.service import PlanningService
from govi_server.planning.store import PlanningStore
from govi_server.runtime.ordered_services import Observers
from govi_server.runtime.turn_watch import TurnWatch
from govi_server.settings import Config
from govi_server.statistics.batches import StatisticsBatcher
from govi_server.statistics.records import ConnectionStatistics, Exchange, RequestStatistics
from govi_server.workers.messages import Assignment, Figures
from govi_server.workers.pool import WorkerPool
from tests.client import NOW, WireTestCase
from tests.doubles import FakePoster, FakeSource, live_feed
from tests.planning.files import planning, temporary_directory

CODE = "57330430"


class FakeSubscriber:
    """A connection to the feed in a state that the test sets."""

    def __init__(self) -> None:
        self.state: State = "UP"
        self.last: float | None = NOW
        self.address: str | None = "tcp://feed.example:7817"
        self.attempts = 1
        self.incidents = Gateway(FakePoster(), Clock(), "the feed").incidents


class OperationsTestCase(WireTestCase):
    """A test case that has the components of a program with a gateway and a feed, and their observers."""

    def setUp(self) -> None:
        super().setUp()
        self.components = Components(self.server, turns=TurnWatch(None))
        self.source = FakeSource()
        gateway = Gateway(FakePoster(), self.clock, "the gateway")
        breaker = CircuitBreaker(self.source, self.clock)
        self.cache = BoardCache(breaker, self.clock)
        self.components.gateways["kv55"] = GatewayComponents(gateway, breaker, self.cache, breaker.board)
        self.components.feed = self.feed = live_feed(self.clock)
        self.subscriber = FakeSubscriber()
        self.feed.subscriber = self.subscriber  # type: ignore[assignment]
        self.components.modules = ("kv55", "tpc")
        modules = MultiService()
        for module in (Kv55Gateway("kv55", self.cache), *ovapi_modules(self.feed)):
            modules.addService(module)
        self.server.find_module = modules.getServiceNamed
        batcher = StatisticsBatcher(self.server.name)
        self.history = RecentHistory(self.clock, batcher, self.components.modules)
        self.monitor = HealthMonitor(self.components, self.history, self.clock)
        self.metrics = Metrics(self.components, self.monitor, batcher)
        self.metrics.registry.register(FailingStops(self.history))
        self.status = Status(self.components, self.history, self.monitor, self.clock, "1.2.3", Config)
        observers = Observers((batcher, self.history, self.metrics))
        observers.startService()
        self.addCleanup(observers.stopService)

    def log_requests(
        self, *requests: tuple[str, int | None, str], client: str = "192.0.2.0/24", wait: float = 0.0
    ) -> None:
        """Log a connection with requests: path, status and cache result of each, routed as by the handler."""
        connection = ConnectionStatistics(self.server.name, client, self.clock.seconds())
        for path, status, cache in requests:
            exchange = Exchange("GET", path, status, 100, cast(Any, cache))
            segment, _, rest = path.lstrip("/").partition("/")
            if segment in self.components.modules:
                exchange.module, exchange.stop = segment, rest.partition("/")[0]
            phases = {"wait": wait} if wait else {"lookup": 0.001}
            connection.requests.append(RequestStatistics(exchange, **phases))
        connection.ended, connection.end = self.clock.seconds(), "client"
        Logger().info(statistics=connection)

    def add_workers(self, *figures: Figures | None) -> None:
        """Let workers with these figures serve the clients; None for a worker that is being replaced."""
        assignment = Assignment(0, self.server.name, [], "", [], self.server.limits, self.server.access.limits, [])
        self.components.workers = pool = WorkerPool(
            self.clock, "workers", len(figures), [], self.server, assignment, Mock(), Mock()
        )
        for worker, current in zip(pool.workers, figures, strict=True):
            worker.figures = current
            worker.pid = None if current is None else 4710 + worker.number
            worker.restarts = 0 if current else 1

    def add_planning(self) -> PlanningService:
        """Add a GTFS source whose file was published now."""
        service = PlanningService(self.clock, "/gtfs", PlanningStore(Path(), "/gtfs"), self.fail, (1, 1), "")
        service.planning = planning(temporary_directory(self))
        service.planning.header.published = self.clock.seconds()
        self.components.planning = service
        return service

    def metric(self, line: str) -> str | None:
        """Return the value of the metric with this name and these labels, or None."""
        lines = generate_latest(self.metrics.registry).decode().splitlines()
        return next((text.rpartition(" ")[2] for text in lines if text.rpartition(" ")[0] == line), None)
