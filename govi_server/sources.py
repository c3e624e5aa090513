"""The sources of departures, made from a Config: the live feed, and gateways whose boards nodes may share."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from govi_server.departures.breaker import CircuitBreaker
from govi_server.departures.cache import BoardCache
from govi_server.errors import StartupError
from govi_server.http.client_limits import UNLIMITED, ClientLimits
from govi_server.kv55.gateway import Gateway, IPeers
from govi_server.kv55.post import Poster
from govi_server.kv78turbo.feed import Feed
from govi_server.modules.callback import Callback
from govi_server.operations.callback_reach import find_obstacle, gateway_host, is_default_gateway, known_addresses
from govi_server.operations.components import Components, GatewayComponents
from govi_server.planning.service import PlanningService
from govi_server.planning.store import PlanningStore, cache_directory
from govi_server.request_handler import RequestHandler
from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.runtime.ordered_services import OrderedMultiService
from govi_server.runtime.version import SOFTWARE, VERSION
from govi_server.server import Server
from govi_server.settings import Config, ModuleSettings, ShareSettings
from govi_server.settings_loader import setting_name
from govi_server.sharing.address import engine_endpoints, parse_engine_url
from govi_server.sharing.boards import RENEW_SECONDS, SharedBoards
from govi_server.sharing.engine import Engine
from govi_server.sharing.peers import Peers
from govi_server.sharing.source import SharedSource
from govi_server.sharing.status import SharingStatus
from govi_server.simulator.feed import make_town_feed
from govi_server.simulator.gateway import GatewayBehaviour, make_gateway_server
from govi_server.sockets.listener import server_service

CALLBACK_DRAIN_SECONDS = 1.0
"""Time for callbacks in flight to finish at shutdown, when no client waits for them."""

MAX_CALLBACK_CONNECTIONS = 1024
"""Open connections from gateways; the longest idle one is closed to make room."""

SERVER = {"Server": SOFTWARE}
"""The header field of every response that names the program (RFC 9110, section 10.2.4)."""

log = Logger()


def add_feed(
    services: OrderedMultiService,
    name: str,
    config: Config,
    components: Components,
    runner: CooperativeRunner,
    reactor: Any,
) -> Feed:
    """Add the live feed with its planning, and in the demo the simulated feed that it subscribes to.

    name: of the program, for its User-Agent.
    """
    settings = config.feed
    feed = Feed(
        reactor,
        () if config.is_demo else settings.addresses,
        settings.timetable,
        settings.limits,
        subscriber=settings.subscriber,
        passtimes=settings.passtimes,
        timetable=settings.planning,
        cache_bytes=settings.cache.bytes,
        runner=runner,
    )
    if config.is_demo:
        seed = GatewayBehaviour().seed
        services.addService(make_town_feed(reactor, seed, lambda address: feed.subscribe([address])))
    services.addService(feed)
    if config.is_live and settings.gtfs:
        store = PlanningStore(cache_directory(os.environ, Path(os.path.expanduser("~"))), settings.gtfs)
        limits = settings.planning.planned, settings.planning.names
        contact = f" ({settings.contact})" if settings.contact else ""
        agent = f"{name}/{VERSION}{contact}"
        components.planning = PlanningService(reactor, settings.gtfs, store, feed.use_planning, limits, agent)
        services.addService(components.planning)
    return feed


def add_gateway(
    services: OrderedMultiService,
    name: str,
    settings: ModuleSettings,
    config: Config,
    components: Components,
    engine: Engine | None,
    runner: CooperativeRunner,
    reactor: Any,
) -> BoardCache:
    """Add a module's gateway, and return the cache of its boards. engine: shares them with other nodes."""
    callback_address = ListeningAddress()
    boards = None if engine is None else SharedBoards(engine, name, config.share.prefix, reactor)
    peers = None if boards is None else _make_peers(boards, settings, callback_address, reactor)
    gateway = _add_gateway(services, name, settings, config, components, callback_address, peers, reactor)
    breaker = CircuitBreaker(gateway, reactor, config.breaker, gateway.description)
    if boards is None or peers is None:
        cache, probe = BoardCache(breaker, reactor, config.cache, runner), breaker.board
    else:
        # After a takeover a request lasts longer than one of the gateway, but not as long as its client's.
        deadline = max(config.gateway.answer + RENEW_SECONDS, config.limits.connection - 0.5)
        shared = SharedSource(breaker, boards, reactor, runner, config.cache.fresh, deadline)
        services.addService(peers)
        components.appliers[f"modules.{name}.allow"].append(
            lambda changed: peers.set_allow(changed.modules[name].allow)
        )
        services.addService(shared)
        cache, probe = BoardCache(shared, reactor, config.cache, runner), shared.new_board
    components.gateways[name] = GatewayComponents(gateway, breaker, cache, probe)
    return cache


def _add_gateway(
    services: OrderedMultiService,
    name: str,
    settings: ModuleSettings,
    config: Config,
    components: Components,
    callback_address: "ListeningAddress",
    peers: IPeers | None,
    reactor: Any,
) -> Gateway:
    """Add a module's gateway and its callback endpoint, and in the demo the simulated gateway.

    callback_address: set when the endpoint listens. peers: other nodes that share boards, if there are any.
    """
    is_demo, simulator_address = settings.source == "demo", ListeningAddress()
    server = components.server  # callbacks share its observer and its bytes of unfinished requests
    poster = Poster(reactor, simulator_address.url if is_demo else lambda: settings.gateway_url)
    gateway = Gateway(
        poster, reactor, f"Gateway of /{name}", settings.subscriber_id, config.gateway, name, server.observer, peers
    )
    callback = Callback(gateway, settings.allow, reactor.seconds, settings.subscriber_id, config.admin.hosts)
    components.appliers["admin.hosts"].append(lambda changed: callback.set_hosts(changed.admin.hosts))
    components.appliers[f"modules.{name}.allow"].append(
        lambda changed: callback.set_allow(changed.modules[name].allow)
    )
    callback_server = Server(
        "",
        0,
        RequestHandler,
        clock=reactor,
        find_module=lambda segment: callback,
        limits=msgspec.structs.replace(config.limits, body=config.gateway.message, drain=CALLBACK_DRAIN_SECONDS),
        headers=SERVER,
        access=ClientLimits(reactor, msgspec.structs.replace(UNLIMITED, connections=MAX_CALLBACK_CONNECTIONS)),
        name=f"{name} callbacks",
        observer=server.observer,
        unfinished=server.unfinished,
    )
    setting = setting_name(f"modules.{name}.callback")
    services.addService(server_service(reactor, setting, [settings.callback], callback_server, callback_address.set))
    if is_demo:
        simulator = make_gateway_server(reactor, GatewayBehaviour(), callback_address.url)
        any_port = ["tcp:0:interface=127.0.0.1"]
        services.addService(server_service(reactor, simulator.name, any_port, simulator, simulator_address.set))
    services.addService(gateway)
    source = "the simulated gateway" if is_demo else f"the gateway {settings.gateway_url}"
    if not is_demo and is_default_gateway(settings):
        source += " (the default of gateway_url)"
    log.info("/{name}: departures from {source}", name=name, source=source)
    obstacle = None if is_demo else find_obstacle(settings, known_addresses(gateway_host(settings.gateway_url)))
    if obstacle is not None:
        key = setting_name(f"modules.{name}.{obstacle.setting}")
        log.warn("{key}: {text}; {advice}", key=key, text=obstacle.text, advice=obstacle.advice)
    return gateway


def add_engine(
    services: OrderedMultiService,
    settings: ShareSettings,
    components: Components,
    runner: CooperativeRunner,
    reactor: Any,
) -> Engine:
    """Add the engine through which nodes share boards. Its dependency is optional, so it is imported here."""
    try:
        from govi_server.sharing.connection import EngineConnection
    except ImportError as error:
        extra = "requires the extra \"share\": pip install '.[share]' in the checkout"
        raise StartupError(f"{setting_name('share.url')}: {extra} ({error})") from None
    try:
        url = parse_engine_url(settings.url)
    except ValueError as error:
        raise StartupError(f"{setting_name('share.url')}: {error}") from None
    try:
        endpoints = engine_endpoints(reactor, url, settings.authorities, settings.certificate)
    except (OSError, ValueError) as error:
        raise StartupError(f"share.authorities, share.certificate: cannot be read ({error})") from None
    addresses = ", ".join(endpoints)
    components.sharing = SharingStatus(reactor, addresses)
    engine = Engine(reactor, url, endpoints, components.sharing, partial(EngineConnection, reactor, runner))
    services.addService(engine)
    log.info("Boards are shared through {engine}, prefix {prefix}", engine=addresses, prefix=settings.prefix)
    return engine


def _make_peers(
    boards: SharedBoards, settings: ModuleSettings, callback_address: "ListeningAddress", reactor: Any
) -> Peers:
    """Return the other nodes of a module."""
    return Peers(
        boards,
        reactor,
        callback_address.host_and_port,
        settings.allow,
        lambda url: Poster(reactor, lambda: url),
        settings.nodes,
    )


class ListeningAddress:
    """The address of a port, which is known once it listens."""

    def __init__(self) -> None:
        self._url = "http://unknown.invalid/"
        self._address: IAddress | None = None

    def set(self, address: IAddress, scheme: str) -> None:
        """Set the address on which the port listens."""
        self._url = local_url(address, scheme) or self._url
        self._address = address if scheme == "http" else None

    def host_and_port(self) -> tuple[str, int] | None:
        """Return the IP address and port of an http endpoint; None if it is another one."""
        address = self._address
        return (address.host, address.port) if isinstance(address, IPv4Address | IPv6Address) else None

    def url(self) -> str:
        """Return the URL."""
        return self._url


def local_url(address: IAddress, scheme: str) -> str | None:
    """Return the URL of a listening address, as it is reached from this machine; None for a UNIX socket."""
    if isinstance(address, IPv4Address):
        return f"{scheme}://{'127.0.0.1' if address.host == '0.0.0.0' else address.host}:{address.port}/"
    if isinstance(address, IPv6Address):
        return f"{scheme}://[{'::1' if address.host == '::' else address.host}]:{address.port}/"
    return None
