"""The service tree of govi-cache, made from a Config: the server of clients, URL modules, and the side of operators.

Longer than other modules, since every one of them is made here, each in a few lines.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast, get_args

import msgspec
from twisted.application.service import IService, MultiService
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger, LogPublisher

from govi_server.departures.timing_point import TIMING_POINT_CODE_FORMAT, is_timing_point_code
from govi_server.errors import ConfigError, StartupError
from govi_server.http.client_limits import UNLIMITED, ClientLimits
from govi_server.http.cors import public_headers
from govi_server.http.error_responses import DETAIL, QUERY, ErrorFormats, ErrorKind
from govi_server.http.unfinished import UnfinishedRequests
from govi_server.kv55 import messages
from govi_server.modules import kv55_feed
from govi_server.modules.assets import Assets
from govi_server.modules.board import BoardPages
from govi_server.modules.display_source import CacheDisplays, FeedDisplays
from govi_server.modules.docs import ADDRESS, Documentation, openapi_modules
from govi_server.modules.events import Events
from govi_server.modules.favicon import Favicon
from govi_server.modules.front import Front
from govi_server.modules.kv55_feed import Kv55Feed
from govi_server.modules.kv55_gateway import Kv55Gateway
from govi_server.modules.make import Make
from govi_server.modules.ovapi import PATHS as OVAPI_PATHS
from govi_server.modules.ovapi import ovapi_modules
from govi_server.modules.places import Near, Places
from govi_server.modules.siri import Siri
from govi_server.modules.trip import Trips
from govi_server.operations.admin import Admin
from govi_server.operations.commands import ManholeCommands
from govi_server.operations.components import Components
from govi_server.operations.health import HealthMonitor
from govi_server.operations.history import RecentHistory
from govi_server.operations.log_levels import LogLevels
from govi_server.operations.metrics import FailingStops, Metrics
from govi_server.operations.readiness import Readiness
from govi_server.operations.reloading import Reloading
from govi_server.operations.snapshot import Snapshots
from govi_server.operations.status import Status
from govi_server.pages.assets import PAGE_HEADERS
from govi_server.pages.error_page import error_pages
from govi_server.pages.front_page import SourceDescription
from govi_server.request_handler import RequestHandler
from govi_server.runtime.clock import ClockWatch
from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.runtime.garbage_collection import GarbageCollection
from govi_server.runtime.log_file import LogFile
from govi_server.runtime.ordered_services import Drain, Observers, OrderedMultiService
from govi_server.runtime.program import Program
from govi_server.runtime.repeated_call import RepeatedCall
from govi_server.runtime.text import pluralize
from govi_server.runtime.turn_watch import TurnWatch
from govi_server.runtime.version import VERSION
from govi_server.server import Server
from govi_server.settings import Config, ManholeSettings, ModuleSettings
from govi_server.settings_loader import setting_name, shown
from govi_server.simulator.town import STATION
from govi_server.sockets.accepting import fit_connections
from govi_server.sockets.listener import Listener, server_service
from govi_server.sources import MAX_CALLBACK_CONNECTIONS, SERVER, add_engine, add_feed, add_gateway, local_url
from govi_server.statistics.batches import StatisticsBatcher
from govi_server.statistics.log import StatisticsLog, statistics_publisher
from govi_server.workers.listening import SharedEndpoint
from govi_server.workers.messages import Assignment
from govi_server.workers.origin import OriginHandler
from govi_server.workers.pool import WorkerPool

NAME = "govi-cache"

HEALTH_INTERVAL = 10.0
"""Seconds between health checks, which determine when a failure began."""

DEMO = {"Data-Source": "demo"}
"""The header field of every response of a demo, so that its departures are not taken for real ones."""

_HEADERS = {**SERVER, **public_headers("Feed-State", *DEMO)}

RELOADABLE_ACCESS = ("per_client", "rate", "burst", "unlimited", "proxies", "header")
"""The settings of [access] that can be reloaded: all but connections, which is fitted to the limit of open files."""

log = Logger()


def make_service(
    config: Config, reactor: Any, log_file: LogFile | None = None, load: Callable[[], Config] | None = None
) -> OrderedMultiService:
    """Return the service tree of a configuration, which logs to a file if there is one.

    load: returns the configuration on SIGHUP, when it may have changed. Raises ConfigError or StartupError.

    Services start in this order and stop in reverse order, one after another. So on SIGTERM the public server first
    stops listening and drains; then the operators' endpoints close, the sources and their callback endpoints stop,
    the last snapshot is written, with what has arrived until then, and finally the statistics log is closed.
    """
    if config.admin.probe and not is_timing_point_code(config.admin.probe):
        raise ConfigError(
            f"admin.probe: invalid TimingPointCode {shown(config.admin.probe)} (expected {TIMING_POINT_CODE_FORMAT})"
        )
    services, sources = Program(reactor, log_file, config.log.format), OrderedMultiService()
    modules = MultiService()
    if config.is_demo:
        log.warn("Demo: all departures are fictional; start with another --source to serve real ones")
    if config.access.proxies:
        log.info("access.header: proxies name clients in {name}", name=config.access.header or "no header field")
    statistics = statistics_publisher()
    connections = fit_connections(config.access.connections, len(config.listen) + len(config.modules))
    server = (_origin if config.workers else _public_server)(config, modules, connections, statistics, reactor)
    components = Components(server)
    services.manager.status = lambda: pluralize(components.figures.connections, "connection")
    levels = LogLevels(config.log.levels)
    components.appliers["log.levels"].append(lambda changed: levels.configure(changed.log.levels))
    reloading = Reloading(config, load or (lambda: config), components.appliers)

    clock_watch = ClockWatch(reactor)
    clock_watch.set_back.extend((server.access.clock_set_back, server.request_memo.clear))
    services.addService(clock_watch)
    if isinstance(reactor, ReactorBase):  # tests use other clocks, and observe the log themselves
        services.addService(levels)
        components.turns = TurnWatch(reactor)
        services.addService(components.turns)
        services.addService(GarbageCollection(reactor))
    if config.statistics.file:
        path = os.path.abspath(config.statistics.file)  # twistd changes its directory before the file is opened
        components.statistics = StatisticsLog(
            NAME, path, config.statistics.rotate, config.statistics.keep, reactor, statistics
        )
        services.addService(components.statistics)
        services.logs.append(components.statistics)
    runner = add_modules(sources, modules, config, components, reactor)
    for gateway in components.gateways.values():
        clock_watch.set_back += gateway.cache.clock_set_back, gateway.gateway.clock_set_back
    components.modules = tuple(str(module.name) for module in modules)
    if config.snapshot.file:
        caches = {name: gateway.cache for name, gateway in components.gateways.items()}
        components.snapshots = Snapshots(caches, components.feed, config.snapshot, reactor, runner.cooperator)
        services.addService(components.snapshots)
    services.addService(sources)
    services.addService(modules)
    if config.admin.listen or config.manhole.listen:
        services.addService(_operations(config, reloading, components, statistics, levels, reactor))
    if load is not None:
        services.addService(reloading)
    if config.workers:
        components.workers = _worker_pool(config, components, statistics, reactor)
        services.addService(components.workers)
    else:
        services.addService(server_service(reactor, setting_name("listen"), config.listen, server, _open_url))
    limits = components.workers or server.access
    for setting in RELOADABLE_ACCESS:
        components.appliers[f"access.{setting}"].append(lambda changed: limits.change_limits(changed.access))
    return services


# The public server


def _public_server(
    config: Config, modules: MultiService, connections: int, statistics: LogPublisher, reactor: Any
) -> Server:
    """Return the server of clients. connections: their maximum number."""
    return Server(
        "",
        0,
        RequestHandler,
        clock=reactor,
        find_module=modules.getServiceNamed,
        limits=config.limits,
        headers=response_headers(config),
        access=ClientLimits(reactor, msgspec.structs.replace(config.access, connections=connections)),
        name=NAME,
        observer=statistics,
        unfinished=_unfinished_requests(config, connections, reactor),
        errors=error_formats(config),
    )


def error_formats(config: Config) -> ErrorFormats:
    """Return the formats of errors for the clients of a configuration."""
    return ErrorFormats(
        error_pages(get_args(ErrorKind), DETAIL, QUERY, has_search=config.is_live or config.is_demo),
        list(PAGE_HEADERS),
        texts=[*config.modules, *OVAPI_PATHS, Siri.name],
        problems=[Places.name, Near.name],
    )


def _unfinished_requests(config: Config, connections: int, reactor: Any) -> UnfinishedRequests:
    shares = connections + MAX_CALLBACK_CONNECTIONS * len(config.modules)
    return UnfinishedRequests(reactor, config.limits.unfinished, shares)


def _origin(
    config: Config, modules: MultiService, connections: int, statistics: LogPublisher, reactor: Any
) -> Server:
    """Return the server of the workers, which limit the clients and record their requests. connections: as above."""
    return Server(
        "",
        0,
        OriginHandler,
        clock=reactor,
        find_module=modules.getServiceNamed,
        limits=config.limits,
        access=ClientLimits(reactor, msgspec.structs.replace(UNLIMITED, connections=connections)),
        name=f"{NAME} workers",  # not NAME, the server of which operators see the statistics
        observer=statistics,
        unfinished=_unfinished_requests(config, connections, reactor),
        errors=error_formats(config),
    )


def _worker_pool(config: Config, components: Components, statistics: LogPublisher, reactor: Any) -> WorkerPool:
    """Return the workers, which serve the clients."""
    setting = setting_name("listen")
    endpoints = [SharedEndpoint(reactor, setting, text, config.workers) for text in config.listen]
    assignment = Assignment(
        number=0,
        name=NAME,
        endpoints=[],
        upstream="",
        modules=list(components.modules),
        limits=config.limits,
        access=config.access,
        headers=list(response_headers(config).items()),
        errors=error_formats(config),
    )
    log.info("Number of workers: {n}", n=config.workers)
    return WorkerPool(
        reactor,
        setting_name("workers"),
        config.workers,
        endpoints,
        components.server,
        assignment,
        statistics,
        _open_url,
    )


def response_headers(config: Config) -> dict[str, str]:
    """Return the header fields of every response of the public server."""
    return {**_HEADERS, **DEMO} if config.is_demo else _HEADERS


def _mark_fictional(server: Server) -> None:
    """Mark the responses of a server whose feed turned out to be fictional. server: of the clients or the workers."""
    log.warn("Feed: its data is marked as fictional, as that of the simulator; all pages and responses say so")
    server.headers = tuple({**dict(server.headers), **DEMO}.items())


def _open_url(address: IAddress, scheme: str) -> str | None:
    """Return the URL of a server's front page for people on this machine; None for a UNIX socket."""
    url = local_url(address, scheme)
    return url and url.replace("//127.0.0.1:", "//localhost:").replace("//[::1]:", "//localhost:")


def _open_status_url(address: IAddress, scheme: str) -> str | None:
    """Return the URL of the status page for people on this machine; None for a UNIX socket."""
    url = _open_url(address, scheme)
    return url and f"{url}status"


# URL modules and their sources


def add_modules(
    services: OrderedMultiService, modules: MultiService, config: Config, components: Components, reactor: Any
) -> CooperativeRunner:
    """Add the URL modules, by path segment, and the services of their sources. A new URL module is added here.

    Modules that provide IDocumented are described in /openapi.json and /docs. Returns the runner of all their work.
    Raises ConfigError.
    """
    runner = CooperativeRunner(reactor)
    engine = add_engine(services, config.share, components, runner, reactor) if config.share.url else None
    if config.is_live or config.is_demo:
        components.feed = feed = add_feed(services, NAME, config, components, runner, reactor)
        if not config.is_demo:
            feed.on_fictional = partial(_mark_fictional, components.server)
        for live_module in (*ovapi_modules(feed), Places(feed), Near(feed), Siri(feed), Trips(feed, config.is_demo)):
            _add_module(modules, live_module)
    for name, settings in config.modules.items():
        if settings.source == "kv78turbo":
            assert components.feed is not None
            _add_module(modules, Kv55Feed(name, components.feed, _license(settings)))
            log.info("/{name}: departures from the KV78turbo feed", name=name)
            if settings.callback != ModuleSettings().callback:
                log.warn("{key}: not used by source 'kv78turbo'", key=setting_name(f"modules.{name}.callback"))
        else:
            cache = add_gateway(services, name, settings, config, components, engine, runner, reactor)
            _add_module(modules, Kv55Gateway(name, cache, _license(settings)))
    _add_pages(modules, config, components, reactor)
    return runner


def _add_pages(modules: MultiService, config: Config, components: Components, reactor: Any) -> None:
    """Add the pages and the documentation, for the live feed if there is one, else for the first gateway."""
    displays: FeedDisplays | CacheDisplays
    if components.feed is not None:
        displays = FeedDisplays(components.feed)
    else:
        displays = CacheDisplays(next(iter(components.gateways.values())).cache, reactor)
    sources = [SourceDescription(name, module.source, _license(module)) for name, module in config.modules.items()]

    def is_demo() -> bool:
        return config.is_demo or (components.feed is not None and components.feed.is_fictional)

    documentation = Documentation(lambda: modules, VERSION, config.access, is_demo, config.pages.address or ADDRESS)
    for page in (
        Front(sources, components.feed, VERSION, reactor, components.unreachable, STATION if config.is_demo else ""),
        BoardPages(displays, reactor, config.is_demo, config.pages.embed),
        Make(displays, components.feed, config.pages.address),
        Events(displays, reactor),
        Assets(),
        Favicon(),
        *openapi_modules(documentation),
    ):
        _add_module(modules, page)


def _add_module(modules: MultiService, module: object) -> None:
    """Add a module under its name, a path segment. Raises ConfigError if the name is taken."""
    service = IService(module)
    if service.name in modules.namedServices:
        raise ConfigError(f"modules.{service.name}: invalid name (/{service.name} is a path of the program)")
    modules.addService(service)


def _license(settings: ModuleSettings) -> str:
    return settings.license or (kv55_feed if settings.source == "kv78turbo" else messages).LICENSE


# Operations


def _operations(
    config: Config,
    reloading: Reloading,
    components: Components,
    statistics: LogPublisher,
    levels: LogLevels,
    reactor: Any,
) -> OrderedMultiService:
    """Return the operators' endpoints, and the log observers that supply their data."""
    batcher = StatisticsBatcher(NAME)
    history = RecentHistory(reactor, batcher, components.modules)
    health_monitor = HealthMonitor(components, history, reactor)
    metrics = Metrics(components, health_monitor, batcher)
    metrics.registry.register(FailingStops(history))
    status = Status(components, history, health_monitor, reactor, VERSION, lambda: reloading.config)

    services = OrderedMultiService()
    services.addService(Observers((batcher, history, metrics), statistics))
    services.addService(Observers((history,)))
    services.addService(RepeatedCall("Checking the health", reactor, HEALTH_INTERVAL, health_monitor.health))
    if config.admin.listen:
        readiness = Readiness(components, config.admin.probe, reactor)
        admin = Admin(reactor, metrics, status, readiness, health_monitor, config.admin.hosts)
        components.appliers["admin.hosts"].append(lambda changed: admin.set_hosts(changed.admin.hosts))
        services.addService(
            Listener(reactor, setting_name("admin.listen"), config.admin.listen, admin, _open_status_url)
        )
    if config.manhole.listen:
        _add_manhole(services, config.manhole, components, history, status, levels, reactor)
    return services


def _add_manhole(
    services: OrderedMultiService,
    settings: ManholeSettings,
    components: Components,
    history: RecentHistory,
    status: Status,
    levels: LogLevels,
    reactor: Any,
) -> None:
    """Add the Python prompt over SSH. Its dependencies are optional, so it is imported here."""
    try:
        from govi_server.operations.manhole import KeysFile, Manhole
    except ImportError as error:
        command = f"{sys.executable} -m pip install 'twisted[conch]'"
        raise StartupError(f"{setting_name('manhole.listen')}: requires conch: {command} ({error})") from None
    commands = ManholeCommands(components, status, levels, reactor, reactor.stop)
    namespace = {
        "components": components, "server": components.server, "gateways": components.gateways,
        "feed": components.feed, "history": history, "reactor": reactor,
    }  # fmt: skip
    manhole = Manhole(reactor, KeysFile(settings.keys), commands, namespace)
    services.addService(Drain(manhole.close))
    services.addService(Listener(reactor, setting_name("manhole.listen"), settings.listen, cast(Any, manhole)))
