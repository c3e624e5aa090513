"""Who may connect, how many at once, and how often they may ask."""

import re
from collections import Counter, OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_network
from typing import NamedTuple

from twisted.internet.interfaces import IAddress, IReactorTime

from govi_server.http.addresses import Address, host_of, ip_from, ip_of, read_ip, truncated
from govi_server.http.request import Environ
from govi_server.settings import AccessSettings, Network, parse_networks

ROUNDING = 1e-3
"""Seconds: moments of today are inexact as floats, and hundreds are added up."""

REMEMBERED = 100_000
"""Clients whose last requests are remembered; the ones that were silent longest are forgotten first."""


def request_cost(env: Environ) -> int:
    """Tell how many things a request asks for, each of which counts against the limit: members of a comma list."""
    return env["path_info"].count(",") + 1


UNLIMITED = AccessSettings(unlimited=("0.0.0.0/0", "::/0"))


class Client(NamedTuple):
    """Whom a request is from."""

    name: str
    """As it may be written down."""
    rate_key: str | None
    """Whom the limits count its requests for, a network; None for one without limits."""
    connection_key: str | None
    """Whom they count its connections for: nobody, if it is a proxy, which brings many clients."""


class ClientLimits:
    """Counts the connections and requests of each client.

    A client is an IPv4 address or the /64 of an IPv6 address, of which a household has one or more. A peer on a unix
    socket is nobody in particular and has no limits.
    """

    def __init__(self, clock: IReactorTime, limits: AccessSettings) -> None:
        self._clock = clock
        self.limits = limits
        self._unlimited = parse_networks(limits.unlimited)
        self._proxies = parse_networks(limits.proxies)
        # By the text of the address: to hash an address of the standard library takes longer than to find its client.
        self._client = lru_cache(maxsize=REMEMBERED // 10)(self._find_client)
        self._connections: Counter[str] = Counter()
        # When the bucket of each client is empty of requests again, as a moment: the virtual scheduling algorithm.
        self._busy_until: OrderedDict[str, float] = OrderedDict()

    def acquire_connection(self, client: Client) -> bool:
        """Count a connection, which disconnects() takes back in any case; tell whether its client may have it."""
        if client.connection_key is None:
            return True
        self._connections[client.connection_key] += 1
        return self._connections[client.connection_key] <= self.limits.per_client

    def release_connection(self, client: Client) -> None:
        """Take a connection back."""
        if client.connection_key is not None:
            self._connections[client.connection_key] -= 1
            if not self._connections[client.connection_key]:
                del self._connections[client.connection_key]

    def seconds_to_wait(self, counted: str | None, asked: int = 1) -> float:
        """Count a request; tell how many seconds too early it is, 0 if it is not. One too early does not count.

        asked: for how many things it asks, each of which counts as a request does.
        """
        if counted is None:
            return 0.0
        now = self._clock.seconds()
        busy = self._busy_until.pop(counted, now)
        if not now <= busy <= now + self.limits.burst / self.limits.rate + 1:
            busy = now  # it has rested, or the clock was set
        asked = min(asked, self.limits.burst)  # or it would be too early for ever
        early = busy + (asked - self.limits.burst) / self.limits.rate - now
        self._busy_until[counted] = busy if early > ROUNDING else busy + asked / self.limits.rate
        if len(self._busy_until) > REMEMBERED:
            self._busy_until.popitem(last=False)
        return early if early > ROUNDING else 0.0

    def peer(self, addr: IAddress | None) -> Client:
        """Tell whom a connection is from."""
        return self._client(host_of(addr))

    def client(self, addr: IAddress | None, env: Environ) -> Client:
        """Tell whom a request is from."""
        address = self.address(addr, env)
        return self._client(None if address is None else str(address))

    def is_forwarded(self, env: Environ) -> bool:
        """Tell whether it takes more than the connection to know whom a request is from."""
        return bool(self._proxies) and ("forwarded" in env or "x-forwarded-for" in env)

    def address(self, addr: IAddress | None, env: Environ) -> Address | None:
        """Give the address that a request is from: the peer's, or the one that proxies we believe say that it is.

        Forwarded (RFC 7239) goes before X-Forwarded-For. Each proxy appends the peer it saw, so they are read from
        the end: the first that is no proxy of ours is the client. A peer on a unix socket is a proxy if any are.
        """
        address = ip_of(addr)
        if not self._proxies:
            return address
        for text in reversed(_forwarded(env)):
            if address is not None and not _within(address, self._proxies):
                break
            try:
                address = read_ip(text)
            except ValueError:  # "unknown", or a name that hides the client (RFC 7239 section 6)
                break
        return address

    def _find_client(self, host: str | None) -> Client:
        address, counted = ip_from(host), None
        if address is not None and not _within(address, self._unlimited):
            counted = str(ip_network((address, 32 if address.version == 4 else 64), strict=False))
        is_proxy = address is not None and _within(address, self._proxies)
        return Client(truncated(address), counted, None if is_proxy else counted)


# The "for" of a Forwarded element: a token, or quoted, with a port or without (RFC 7239 section 6).
_FOR = re.compile(r'(?:^|;)[ \t]*[Ff][Oo][Rr]=(?:"([^"\\]*)"|([^;, \t"]*))')
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)|([0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*))(?::[0-9]{1,5})?")


def _forwarded(env: Environ) -> list[str]:
    """List whom a request was forwarded for, the nearest last; what is no address is "".

    Nothing is left out, or what a client wrote itself would be taken for the word of the proxy behind it.
    """
    if "forwarded" in env:
        elements = map(_FOR.search, ",".join(env.get_all("forwarded", [])).split(","))
        nodes = [(found[1] or found[2] or "") if found else "" for found in elements]
    elif "x-forwarded-for" in env:
        nodes = ",".join(env.get_all("x-forwarded-for", [])).split(",")
    else:
        nodes = []
    addresses = (_NODE.fullmatch(node.strip(" \t")) for node in nodes)
    return [next(filter(None, found.groups()), "") if found else "" for found in addresses]


def _within(address: Address, among: Sequence[Network]) -> bool:
    return any(address in network for network in among)
