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
from twisted.python import usage

from govi_server.access import UNLIMITED, Access, Limits, networks
from govi_server.clock import ClockWatch
from govi_server.config import Config, ConfigError, Kv55Module, load
from govi_server.departures.breaker import CircuitBreaker
from govi_server.departures.cache import BoardCache
from govi_server.kv55 import messages
from govi_server.kv55.gateway import Gateway
from govi_server.kv55.post import Poster
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.finder import Finder
from govi_server.modules import kv55_live
from govi_server.modules.assets import Assets
from govi_server.modules.board import BoardPages
from govi_server.modules.callback import Callback
from govi_server.modules.events import Events
from govi_server.modules.front import Front
from govi_server.modules.kv55 import Kv55
from govi_server.modules.kv55_live import Kv55Live
from govi_server.modules.openapi import Contracts, openapi_modules
from govi_server.modules.ovapi import ovapi_modules
from govi_server.modules.signs import CacheSigns, FeedSigns
from govi_server.modules.siri import Siri
from govi_server.modules.stops import Near, Stops
from govi_server.open_files import raise_limit
from govi_server.operations.admin import Admin
from govi_server.operations.hour import LastHour
from govi_server.operations.log_levels import LogLevels
from govi_server.operations.metrics import FailingStops, Metrics
from govi_server.operations.parts import GatewayParts, Parts
from govi_server.operations.ready import Ready
from govi_server.operations.snapshot import Snapshots
from govi_server.operations.status import Status
from govi_server.operations.tally import Tally
from govi_server.operations.verbs import Verbs
from govi_server.operations.verdict import Judge
from govi_server.pages.front import Source
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from govi_server.services import CannotStart, Drain, InOrder, Listener, Observers, serving
from govi_server.simulator.feed import town_feed
from govi_server.simulator.gateway import Behaviour, simulation
from govi_server.simulator.town import STATION
from govi_server.slices import in_slices
from govi_server.statistics import StatisticsLog, statistics_publisher

NAME = "govi-cache"

# Pages of other sites may read what is served here (DOMAIN.md 1.2 and 1.4).
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


class Options(usage.Options):
    """What can be said on the command line; it wins over the configuration file."""

    synopsis = "[options]"
    longdesc = "Serves the next departures of a stop, GET /kv55/<TimingPointCode>, from memory."
    optParameters = [
        ["config", "c", None, "Configuration file (TOML); etc/govi-cache.toml describes it."],
        ["callback", None, None, "Endpoint for the gateway's answers [default: tcp:8082:interface=127.0.0.1]."],
        ["source", "s", None, "Where departures come from: demo, govi or kv78turbo [default: demo]."],
        ["gateway-url", "g", None, "Where the GOVI gateway takes questions; means --source govi."],
        ["timetable", "t", None, "Folder of recorded KV7, *.ctx and *.gz; means --source kv78turbo."],
        ["admin", None, None, "Endpoint for operators, '' for none [default: tcp:8081:interface=127.0.0.1]."],
        ["manhole", None, None, "Endpoint for a Python prompt over SSH, such as tcp:2222:interface=127.0.0.1."],
        ["manhole-keys", None, None, "File of the public keys that may come in there."],
        ["snapshot", None, None, "File that keeps what is in memory for the next start [default: none]."],
        ["statistics", None, None, "File for the statistics log [default: none is kept]."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.listen: list[str] = []
        self.feed: list[str] = []

    def opt_listen(self, endpoint: str) -> None:
        """Endpoint to listen on, as often as there are [default: tcp:8080]."""
        self.listen.append(endpoint)

    opt_l = opt_listen

    def opt_feed(self, address: str) -> None:
        """ZeroMQ address of the KV78turbo feed, as often as there are, tried in turn; means --source kv78turbo."""
        self.feed.append(address)

    opt_f = opt_feed

    def settings(self) -> dict[str, Any]:
        """Give what was said, in the shape of the configuration file."""
        settings: dict[str, Any] = {}
        kv55 = {
            "callback": self["callback"],
            "source": self["source"] or self._meant_source(),
            "gateway_url": self["gateway-url"],
        }
        if said := {key: value for key, value in kv55.items() if value is not None}:
            settings["modules"] = {"kv55": said}
        feed = {"addresses": self.feed or None, "timetable": self["timetable"]}
        if said := {key: value for key, value in feed.items() if value is not None}:
            settings["feed"] = said
        if self.listen:
            settings["listen"] = self.listen
        if self["statistics"] is not None:
            settings["statistics"] = {"file": self["statistics"]}
        if self["snapshot"] is not None:
            settings["snapshot"] = {"file": self["snapshot"]}
        manhole = {"listen": self["manhole"], "keys": self["manhole-keys"]}
        if said := {key: value for key, value in manhole.items() if value is not None}:
            settings["manhole"] = said
        if self["admin"] is not None:
            settings["admin"] = {"listen": self["admin"]}
        return settings

    def _meant_source(self) -> str | None:
        """Give the source that the other options mean."""
        if self["gateway-url"] is not None:
            return "govi"
        return "kv78turbo" if self.feed or self["timetable"] is not None else None


def makeService(options: Options, reactor: Any = None) -> IService:
    """Make the server's service; a configuration that cannot be used ends the program with one line."""
    if reactor is None:
        from twisted.internet import reactor
    gc.set_threshold(*gc.get_threshold()[:2], SELDOM)
    try:
        return _service(load(options["config"], options.settings()), reactor)
    except (ConfigError, CannotStart) as error:
        raise SystemExit(f"{NAME}: {error}") from None


def _service(config: Config, reactor: Any) -> InOrder:
    """Put the parts together, in the order in which they start; they stop in the reverse one."""
    services, modules = InOrder(), MultiService()
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
        access=Access(reactor, _that_fit(config.access)),
        what=NAME,
        observer=statistics,
    )
    parts = Parts(server)
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
        parts.snapshots = Snapshots(parts, config.snapshot, reactor, in_slices(reactor))
        services.addService(parts.snapshots)
    services.addService(serving(reactor, server, config.listen, _suggest))
    return services


def _add_modules(services: InOrder, modules: MultiService, config: Config, parts: Parts, reactor: Any) -> None:
    """Make what answers under which path segment, and what it answers from; a new kind of module is added here.

    One that provides IDeclared is told of in /openapi.json and /docs.
    """
    finder = None
    if config.is_live or config.is_demo:
        parts.feed = feed = _feed(services, config, reactor)
        finder = Finder(feed)
        for live in (*ovapi_modules(feed), Stops(feed, finder), Near(feed, finder), Siri(feed)):
            modules.addService(live)
    sources = []
    for name, module in config.modules.items():
        license_url = module.license or (kv55_live if module.source == "kv78turbo" else messages).LICENSE
        sources.append(Source(name, module.source, license_url))
        if module.source == "kv78turbo":
            modules.addService(Kv55Live(name, feed, license_url))
            log.info("/{name} is answered from the KV78turbo feed", name=name)
            continue
        gateway = _gateway(services, name, module, config, parts.server.observer, reactor)
        breaker = CircuitBreaker(gateway, reactor, config.breaker, gateway.called)
        cache = BoardCache(breaker, reactor, config.cache)
        parts.gateways[name] = GatewayParts(gateway, breaker, cache)
        modules.addService(Kv55(name, cache, license_url))
    # Pages are of the feed, which knows most; without one, of the gateway that is named first.
    signs = FeedSigns(parts.feed) if parts.feed else CacheSigns(next(iter(parts.gateways.values())).cache, reactor)
    contracts = Contracts(lambda: modules, version("govi-server"), config.access)
    front = Front(sources, parts.feed, finder, version("govi-server"), STATION if config.is_demo else "")
    events = Events(signs, reactor, in_slices(reactor))
    for page in (front, BoardPages(signs, reactor), events, Assets(), *openapi_modules(contracts)):
        modules.addService(page)


def _operators(config: Config, parts: Parts, statistics: LogPublisher, reactor: Any) -> InOrder:
    """Make the operators' endpoint, and what watches the logs for it."""
    tally = Tally(NAME)
    hour = LastHour(reactor, tally, parts.modules)
    judge = Judge(parts, hour, reactor)
    metrics = Metrics(parts, judge, tally)
    metrics.registry.register(FailingStops(hour))
    status = Status(parts, hour, judge, reactor, version("govi-server"))
    services = InOrder()
    services.addService(Observers((tally,), statistics))
    services.addService(Observers((hour, metrics)))
    services.addService(timer := TimerService(JUDGE_EVERY, judge.verdict))
    timer.clock = reactor
    if config.admin.listen:
        admin = Admin(reactor, metrics, status, Ready(parts, config.admin.probe, reactor))
        services.addService(Listener(reactor, config.admin.listen, admin))
    if config.manhole.listen:
        _add_manhole(services, config, parts, hour, status, reactor)
    return services


def _add_manhole(
    services: InOrder, config: Config, parts: Parts, hour: LastHour, status: Status, reactor: Any
) -> None:
    """Make the way in for operators. What it needs is imported here, for it need not be installed."""
    try:
        from govi_server.operations.manhole import KeysFile, Manhole
    except ImportError as error:
        raise CannotStart(f"the manhole needs more: pip install 'govi-server[manhole]' ({error})") from None
    if not config.manhole.keys:
        raise CannotStart("the manhole needs --manhole-keys, the file of the public keys that may come in")
    levels = LogLevels()
    verbs = Verbs(parts, status, levels, reactor, reactor.stop)
    objects = {
        "parts": parts, "server": parts.server, "gateways": parts.gateways, "feed": parts.feed,
        "hour": hour, "reactor": reactor,
    }  # fmt: skip
    manhole = Manhole(reactor, KeysFile(config.manhole.keys), verbs, objects)
    services.addService(levels)
    services.addService(Drain(manhole.close))
    services.addService(Listener(reactor, config.manhole.listen, cast(Any, manhole)))


def _that_fit(limits: Limits) -> Limits:
    """Lower the limit of connections to what the limit of open files, raised as far as may be, leaves for them."""
    files = raise_limit(limits.connections + OTHER_FILES)
    fit = max(files - OTHER_FILES, files // 8)
    if fit >= limits.connections:
        return limits
    log.warn("{n} connections at once: the limit of {files} open files allows no more", n=fit, files=files)
    return msgspec.structs.replace(limits, connections=fit)


def _feed(services: InOrder, config: Config, reactor: Any) -> Feed:
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
        kept=config.cache.bytes,
    )
    if config.is_demo:
        services.addService(town_feed(reactor, Behaviour().seed, lambda address: feed.subscribe([address])))
    services.addService(feed)
    return feed


def _gateway(
    services: InOrder, name: str, module: Kv55Module, config: Config, observer: ILogObserver, reactor: Any
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
        access=Access(reactor, msgspec.structs.replace(UNLIMITED, connections=CALLBACK_CONNECTIONS)),
        what=f"{name} callbacks",
        observer=observer,
    )
    services.addService(serving(reactor, callbacks, [module.callback], callback.learn))
    if module.source == "demo":
        simulator = simulation(reactor, Behaviour(), callback.url)
        services.addService(serving(reactor, simulator, ["tcp:0:interface=127.0.0.1"], asked.learn))
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
