"""Limit the open connections and the request rate of each client."""

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import ip_network
from typing import NamedTuple

import msgspec
from twisted.internet.interfaces import IAddress, IReactorTime

from govi_server.http.addresses import Address, host_of, ip_of, ip_of_host, parse_ip, truncated
from govi_server.http.request import Environ, ascii_lower
from govi_server.settings import AccessSettings, Network, parse_networks

ROUNDING_SECONDS = 1e-3
"""Shorter waits are ignored: epoch seconds are inexact as floats, and rounding errors add up over many requests."""

MAX_CLIENTS = 100_000
"""Clients whose request rate is tracked; the least recently active is evicted first."""

MAX_PARSED = 2_000
"""Addresses whose Client is stored, 500 bytes each: it saves 10 us for a connection."""


UNLIMITED = AccessSettings(unlimited=("0.0.0.0/0", "::/0"))


class Client(NamedTuple):
    """The client of a request."""

    name: str
    """The truncated address, for logs."""
    rate_key: str | None
    """The network whose requests share a limit; None if its requests are unlimited."""
    connection_key: str | None
    """The network whose connections share a limit; None if they are unlimited, as for proxies."""


class ClientLimits:
    """Counts the connections and requests of each client.

    A client is an IPv4 address, or an IPv6 /64, since a household has at least one. Peers on unix sockets are
    unlimited.
    """

    def __init__(self, clock: IReactorTime, limits: AccessSettings) -> None:
        self._clock = clock
        self._set_limits(limits)
        self.changed: Callable[[], object] = lambda: None
        """Called after the limits have changed."""
        self._connections: Counter[str] = Counter()
        # The time at which each leaky bucket will be empty (epoch seconds), as in the virtual scheduling algorithm.
        self._busy_until: OrderedDict[str, float] = OrderedDict()

    def change_limits(self, limits: AccessSettings) -> None:
        """Change all limits but the number of all connections; open connections count for the client they had."""
        self._set_limits(msgspec.structs.replace(limits, connections=self.limits.connections))
        self.changed()

    def _set_limits(self, limits: AccessSettings) -> None:
        self.limits = limits
        self._unlimited = parse_networks(limits.unlimited)
        self._proxies = parse_networks(limits.proxies)
        self._header = ascii_lower(limits.header)
        # Keyed by text: hashing an ipaddress object costs more than the cache saves.
        self._client = lru_cache(maxsize=MAX_PARSED)(self._make_client)

    def acquire_connection(self, client: Client) -> bool:
        """Count a connection; return whether it is within its client's limit.

        Must be followed by release_connection(), even if the result is False.
        """
        if client.connection_key is None:
            return True
        self._connections[client.connection_key] += 1
        return self._connections[client.connection_key] <= self.limits.per_client

    def release_connection(self, client: Client) -> None:
        """Stop counting a connection."""
        if client.connection_key is not None:
            self._connections[client.connection_key] -= 1
            if not self._connections[client.connection_key]:
                del self._connections[client.connection_key]

    def seconds_to_wait(self, rate_key: str | None, cost: int = 1) -> float:
        """Charge a request to a client's rate; return the seconds to wait. A rejected request is not charged.

        cost: 1 for a request with a cached response, or about a half millisecond of work; see web_handler.Responder.
        """
        if rate_key is None:
            return 0.0
        now = self._clock.seconds()
        empty_at = self._busy_until.pop(rate_key, 0.0)
        if not empty_at:
            self._evict(now)
        if not now <= empty_at <= now + self.limits.burst / self.limits.rate + 1:
            empty_at = now  # the bucket is empty, or the clock was set
        cost = min(cost, self.limits.burst)  # a higher cost would always be rejected
        wait = empty_at + (cost - self.limits.burst) / self.limits.rate - now
        self._busy_until[rate_key] = empty_at if wait > ROUNDING_SECONDS else empty_at + cost / self.limits.rate
        return wait if wait > ROUNDING_SECONDS else 0.0

    def clock_set_back(self) -> None:
        """Forget the requests so far: they would count again once the clock has caught up."""
        self._busy_until.clear()

    def _evict(self, now: float) -> None:
        """Evict the two least recently active clients if their buckets are empty, or if there are MAX_CLIENTS.

        Called for each new client, so the table has little more than those of the last seconds.
        """
        for _ in range(2):
            oldest = next(iter(self._busy_until.values()), now)
            if oldest < now or len(self._busy_until) >= MAX_CLIENTS:
                self._busy_until.popitem(last=False)

    def seconds_to_wait_for_work(self, rate_key: str | None, cost: int) -> float:
        """Charge the work of a request that was charged 1 on arrival; return as seconds_to_wait() does.

        cost: of the request in total. What exceeds `burst` is free, since no client could ever pay it.
        """
        further = min(cost, self.limits.burst) - 1
        return self.seconds_to_wait(rate_key, further) if further > 0 else 0.0

    def peer(self, addr: IAddress | None) -> Client:
        """Return the client of a connection."""
        return self._client(host_of(addr))

    def client(self, addr: IAddress | None, env: Environ) -> Client:
        """Return the client of a request."""
        address = self.address(addr, env)
        return self._client(None if address is None else str(address))

    def is_gateway(self, addr: IAddress | None) -> bool:
        """Return whether a peer is a trusted gateway (RFC 9110 section 7.4): a proxy, or on a unix socket."""
        address = ip_of(addr)
        return address is None or _is_within(address, self._proxies)

    def is_forwarded(self, env: Environ) -> bool:
        """Return whether a proxy forwards a request, so that its client is not the peer of its connection."""
        return bool(self._proxies) and self._header in env

    def address(self, addr: IAddress | None, env: Environ) -> Address | None:
        """Return the address of a request's client: the peer's, or the one in the header field of trusted proxies.

        Each proxy appends its peer, so the field is read from the end: the client is the first address that is not a
        trusted proxy. If any proxy is trusted, so is a peer on a unix socket.
        """
        address = ip_of(addr)
        if not self.is_forwarded(env):
            return address
        elements = ",".join(env.get_all(self._header, [])).split(",")
        for text in reversed(_forwarded_addresses(elements, self._header == "forwarded")):
            if address is not None and not _is_within(address, self._proxies):
                break
            try:
                address = parse_ip(text)
            except ValueError:  # "unknown", or an obfuscated identifier (RFC 7239 section 6)
                break
        return address

    def _make_client(self, host: str | None) -> Client:
        address, network = ip_of_host(host), None
        if address is not None and not _is_within(address, self._unlimited):
            network = str(ip_network((address, 32 if address.version == 4 else 64), strict=False))
        is_proxy = address is not None and _is_within(address, self._proxies)
        return Client(truncated(address), network, None if is_proxy else network)


# The "for" parameter of a Forwarded element: a token or a quoted string, with or without a port (RFC 7239 section 6).
_FOR = re.compile(r'(?:^|;)[ \t]*[Ff][Oo][Rr]=(?:"([^"\\]*)"|([^;, \t"]*))')
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)|([0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*))(?::[0-9]{1,5})?")


def _forwarded_addresses(elements: Sequence[str], have_parameters: bool) -> list[str]:
    """Return the addresses that a request was forwarded for, the nearest last; "" for an invalid address.

    elements: of X-Forwarded-For, or of Forwarded, which have parameters. Invalid addresses are not left out, or else
    an element written by the client could pass for a proxy's. Empty elements are (RFC 9110 section 5.6.1.2).
    """
    nodes = [node for node in (element.strip(" \t") for element in elements) if node]
    if have_parameters:
        nodes = [(match[1] or match[2] or "") if match else "" for match in map(_FOR.search, nodes)]
    addresses = (_NODE.fullmatch(node.strip(" \t")) for node in nodes)
    return [next(filter(None, match.groups()), "") if match else "" for match in addresses]


def _is_within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
