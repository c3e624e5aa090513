"""The command ``twistd govi-cache``: the one room that knows all the others."""

import gc
import os
from importlib.metadata import version
from typing import Any, cast

import msgspec
from twisted.application.internet import TimerService
from twisted.application.service import IService, MultiService
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.logger import ILogObserver, Logger, LogPublisher

from govi_server.departures.breaker import CircuitBreaker
from govi_server.departures.cache import BoardCache
from govi_server.departures.stop_index_cache import StopIndexCache
from govi_server.departures.timing_point import is_timing_point_code
from govi_server.errors import ConfigError, StartupError
from govi_server.http.client_limits import UNLIMITED, ClientLimits
from govi_server.kv55 import messages
from govi_server.kv55.gateway import Gateway
from govi_server.kv55.post import Poster
from govi_server.kv78turbo.feed import Feed
from govi_server.modules import kv55_feed as kv55_live
from govi_server.modules.assets import Assets
from govi_server.modules.board import BoardPages
from govi_server.modules.callback import Callback
from govi_server.modules.display_source import CacheDisplays, FeedDisplays
from govi_server.modules.docs import Documentation, openapi_modules
from govi_server.modules.events import Events
from govi_server.modules.front import Front
from govi_server.modules.kv55_feed import Kv55Feed
from govi_server.modules.kv55_gateway import Kv55Gateway
from govi_server.modules.ovapi import ovapi_modules
from govi_server.modules.siri import Siri
from govi_server.modules.stops import Near, Stops
from govi_server.operations.admin import Admin
from govi_server.operations.commands import ManholeCommands
from govi_server.operations.components import Components, GatewayComponents
from govi_server.operations.health import HealthMonitor
from govi_server.operations.history import RecentHistory
from govi_server.operations.log_levels import LogLevels
from govi_server.operations.metrics import FailingStops, Metrics
from govi_server.operations.readiness import Readiness
from govi_server.operations.snapshot import Snapshots
from govi_server.operations.status import Status
from govi_server.pages.front_page import Source
from govi_server.request_handler import RequestHandler
from govi_server.runtime.clock import ClockWatch
from govi_server.runtime.cooperative import make_cooperator
from govi_server.runtime.services import Drain, Observers, OrderedMultiService
from govi_server.server import Server
from govi_server.settings import AccessSettings, Config, ModuleSettings, networks
from govi_server.simulator.feed import town_feed
from govi_server.simulator.gateway import Behaviour, simulation
from govi_server.simulator.town import STATION
from govi_server.sockets.accepting import raise_limit
from govi_server.sockets.listener import Listener, server_service
from govi_server.statistics.batches import StatisticsBatcher
from govi_server.statistics.log import StatisticsLog, statistics_publisher

NAME = "govi-cache"

# Pages of other sites may read what is served here (docs/protocols.md 1.2 and 1.4).
PUBLIC_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Age, Cache-Status, ETag, Feed-State, Retry-After",
}

INNER_DRAIN = 1.0
"""Seconds that callbacks in flight have when the server stops: nobody waits for them any more."""

CALLBACK_CONNECTIONS = 1024
"""Connections that gateways may have open at once to bring answers; the oldest idle one makes room for a new one."""

JUDGE_EVERY = 10.0
"""Seconds after which it is judged anew whether travellers get answers, so that it is known since when not."""

OTHER_FILES = 1536
"""Open files that are not clients' connections: those to the gateway, its callbacks, logs, and those that are closed
in a moment, to make room."""

SELDOM = 100
"""Collections of the middle generation after which the garbage collector looks through everything, Python's 10. With
5,000 questions on their way, that stops the server for a third of a second each time, and finds little."""

log = Logger()


def make_service(config: Config, reactor: Any) -> OrderedMultiService:
    """Put the parts together, in the order in which they start; they stop in the reverse one."""
    gc.set_threshold(*gc.get_threshold()[:2], SELDOM)
    if config.admin.probe and not is_timing_point_code(config.admin.probe):
        raise ConfigError(f"admin.probe is not a TimingPointCode: {config.admin.probe!r}")
    services, modules = OrderedMultiService(), MultiService()
    statistics = statistics_publisher()
    services.addService(ClockWatch(reactor))
    server = Server(
        "",
        0,
        RequestHandler,
        clock=reactor,
        find_module=modules.getServiceNamed,
        limits=config.limits,
        headers=PUBLIC_HEADERS,
        access=ClientLimits(reactor, _that_fit(config.access)),
        name=NAME,
        observer=statistics,
    )
    parts = Components(server)
    if config.statistics.file:
        # Absolute, for twistd changes its directory before anything is opened.
        path = os.path.abspath(config.statistics.file)
        parts.statistics = StatisticsLog(
            NAME, path, config.statistics.rotate, config.statistics.keep, reactor, statistics
        )
        services.addService(parts.statistics)
    _add_modules(services, modules, config, parts, reactor)
    parts.modules = tuple(str(module.name) for module in modules)
    services.addService(modules)
    if config.admin.listen or config.manhole.listen:
        services.addService(_operators(config, parts, statistics, reactor))
    if config.snapshot.file:
        caches = {name: gateway.cache for name, gateway in parts.gateways.items()}
        parts.snapshots = Snapshots(caches, parts.feed, config.snapshot, reactor, make_cooperator(reactor))
        services.addService(parts.snapshots)
    services.addService(server_service(reactor, server, config.listen, _suggest))
    return services


def _add_modules(
    services: OrderedMultiService, modules: MultiService, config: Config, parts: Components, reactor: Any
) -> None:
    """Make what answers under which path segment, and what it answers from; a new kind of module is added here.

    One that provides IDeclared is told of in /openapi.json and /docs.
    """
    finder = None
    if config.is_live or config.is_demo:
        parts.feed = feed = _feed(services, config, reactor)
        finder = StopIndexCache(feed, reactor)
        for live in (*ovapi_modules(feed), Stops(feed, finder), Near(feed, finder), Siri(feed)):
            _add_module(modules, live)
    sources = []
    for name, module in config.modules.items():
        license_url = module.license or (kv55_live if module.source == "kv78turbo" else messages).LICENSE
        sources.append(Source(name, module.source, license_url))
        if module.source == "kv78turbo":
            _add_module(modules, Kv55Feed(name, feed, license_url))
            log.info("/{name} is answered from the KV78turbo feed", name=name)
            continue
        gateway = _gateway(services, name, module, config, parts.server.observer, reactor)
        breaker = CircuitBreaker(gateway, reactor, config.breaker, gateway.description)
        cache = BoardCache(breaker, reactor, config.cache)
        parts.gateways[name] = GatewayComponents(gateway, breaker, cache)
        _add_module(modules, Kv55Gateway(name, cache, license_url))
    # Pages are of the feed, which knows most; without one, of the gateway that is named first.
    signs = (
        FeedDisplays(parts.feed) if parts.feed else CacheDisplays(next(iter(parts.gateways.values())).cache, reactor)
    )
    contracts = Documentation(lambda: modules, version("govi-server"), config.access)
    front = Front(sources, parts.feed, finder, version("govi-server"), STATION if config.is_demo else "")
    events = Events(signs, reactor, make_cooperator(reactor))
    for page in (front, BoardPages(signs, reactor), events, Assets(), *openapi_modules(contracts)):
        _add_module(modules, page)


def _add_module(modules: MultiService, module: object) -> None:
    """Add a module under its name, a path segment. Raises ConfigError if the segment is taken."""
    service = IService(module)
    if service.name in modules.namedServices:
        raise ConfigError(f"modules: {service.name!r} is a path that is answered already")
    modules.addService(service)


def _operators(config: Config, parts: Components, statistics: LogPublisher, reactor: Any) -> OrderedMultiService:
    """Make the operators' endpoint, and what watches the logs for it."""
    tally = StatisticsBatcher(NAME)
    hour = RecentHistory(reactor, tally, parts.modules)
    judge = HealthMonitor(parts, hour, reactor)
    metrics = Metrics(parts, judge, tally)
    metrics.registry.register(FailingStops(hour))
    status = Status(parts, hour, judge, reactor, version("govi-server"))
    services = OrderedMultiService()
    services.addService(Observers((tally,), statistics))
    services.addService(Observers((hour, metrics)))
    services.addService(timer := TimerService(JUDGE_EVERY, judge.health))
    timer.clock = reactor
    if config.admin.listen:
        admin = Admin(reactor, metrics, status, Readiness(parts, config.admin.probe, reactor))
        services.addService(Listener(reactor, config.admin.listen, admin))
    if config.manhole.listen:
        _add_manhole(services, config, parts, hour, status, reactor)
    return services


def _add_manhole(
    services: OrderedMultiService,
    config: Config,
    parts: Components,
    hour: RecentHistory,
    status: Status,
    reactor: Any,
) -> None:
    """Make the way in for operators. What it needs is imported here, for it need not be installed."""
    try:
        from govi_server.operations.manhole import KeysFile, Manhole
    except ImportError as error:
        raise StartupError(f"the manhole needs more: pip install 'govi-server[manhole]' ({error})") from None
    if not config.manhole.keys:
        raise StartupError("the manhole needs --manhole-keys, the file of the public keys that may come in")
    levels = LogLevels()
    verbs = ManholeCommands(parts, status, levels, reactor, reactor.stop)
    objects = {
        "parts": parts, "server": parts.server, "gateways": parts.gateways, "feed": parts.feed,
        "hour": hour, "reactor": reactor,
    }  # fmt: skip
    manhole = Manhole(reactor, KeysFile(config.manhole.keys), verbs, objects)
    services.addService(levels)
    services.addService(Drain(manhole.close))
    services.addService(Listener(reactor, config.manhole.listen, cast(Any, manhole)))


def _that_fit(limits: AccessSettings) -> AccessSettings:
    """Lower the limit of connections to what the limit of open files, raised as far as may be, leaves for them."""
    files = raise_limit(limits.connections + OTHER_FILES)
    fit = max(files - OTHER_FILES, files // 8)
    if fit >= limits.connections:
        return limits
    log.warn("{n} connections at once: the limit of {files} open files allows no more", n=fit, files=files)
    return msgspec.structs.replace(limits, connections=fit)


def _feed(services: OrderedMultiService, config: Config, reactor: Any) -> Feed:
    """Add the live feed, and in the demo the simulator at the other end."""
    settings = config.feed
    feed = Feed(
        reactor,
        () if config.is_demo else settings.addresses,
        settings.timetable,
        settings.limits,
        subscriber=settings.subscriber,
        passtimes=settings.passtimes,
        timetable=settings.planning,
        cache_bytes=config.cache.bytes,
    )
    if config.is_demo:
        services.addService(town_feed(reactor, Behaviour().seed, lambda address: feed.subscribe([address])))
    services.addService(feed)
    return feed


def _gateway(
    services: OrderedMultiService,
    name: str,
    module: ModuleSettings,
    config: Config,
    observer: ILogObserver,
    reactor: Any,
) -> Gateway:
    """Add what a module's gateway needs: its callback endpoint, and in the demo the simulator at the other end."""
    callback = _Address()
    asked = _Address()
    poster = Poster(reactor, asked.url if module.source == "demo" else lambda: module.gateway_url)
    said = f"the simulated gateway of /{name}" if module.source == "demo" else f"the gateway {module.gateway_url}"
    gateway = Gateway(poster, reactor, said, module.subscriber_id, config.gateway, name)
    receiver = Callback(gateway, networks(module.allow), reactor.seconds, module.subscriber_id)
    callbacks = Server(
        "",
        0,
        RequestHandler,
        clock=reactor,
        find_module=lambda segment: receiver,
        limits=msgspec.structs.replace(config.limits, body=config.gateway.message, drain=INNER_DRAIN),
        access=ClientLimits(reactor, msgspec.structs.replace(UNLIMITED, connections=CALLBACK_CONNECTIONS)),
        name=f"{name} callbacks",
        observer=observer,
    )
    services.addService(server_service(reactor, callbacks, [module.callback], callback.learn))
    if module.source == "demo":
        simulator = simulation(reactor, Behaviour(), callback.url)
        services.addService(server_service(reactor, simulator, ["tcp:0:interface=127.0.0.1"], asked.learn))
    services.addService(gateway)
    log.info("/{name} is answered from {gateway}", name=name, gateway=said)
    return gateway


class _Address:
    """An address on this machine that is known once something listens there."""

    def __init__(self) -> None:
        self._authority = "nobody.invalid"

    def learn(self, address: IAddress) -> None:
        if isinstance(address, IPv4Address):
            host = "127.0.0.1" if address.host == "0.0.0.0" else address.host
            self._authority = f"{host}:{address.port}"
        elif isinstance(address, IPv6Address):
            host = "::1" if address.host == "::" else address.host
            self._authority = f"[{host}]:{address.port}"

    def url(self) -> str:
        return f"http://{self._authority}/"


def _suggest(address: IAddress) -> None:
    if isinstance(address, IPv4Address | IPv6Address):
        log.info("Try http://localhost:{port}/kv55/{code}", port=address.port, code=STATION)
