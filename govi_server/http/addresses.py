"""Parse client addresses, and truncate them for logs."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias

from twisted.internet.interfaces import IAddress

Address: TypeAlias = IPv4Address | IPv6Address

UNSPECIFIED = IPv6Address("::")
"""The address of a peer whose address is invalid."""


def host_of(addr: IAddress | None) -> str | None:
    """Return the IP address of a peer as text; None for a unix socket."""
    host: str | None = getattr(addr, "host", None)
    return host


def ip_of(addr: IAddress | None) -> Address | None:
    """Return the IP address of a peer, an IPv4-mapped IPv6 address as IPv4; None for a unix socket."""
    return ip_of_host(host_of(addr))


def ip_of_host(host: str | None) -> Address | None:
    """Parse a result of host_of(); return UNSPECIFIED if it is invalid."""
    if host is None:
        return None
    try:
        return parse_ip(host)
    except ValueError:  # a PROXY header may contain anything
        return UNSPECIFIED


@lru_cache(maxsize=2_000)
def parse_ip(text: str) -> Address:
    """Parse an IP address; return an IPv4-mapped IPv6 address as IPv4. Raises ValueError."""
    address = ip_address(text.partition("%")[0])  # a % separates the interface of a link-local address
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def truncated(address: Address | None) -> str:
    """Return a peer's network, which does not identify the peer: IPv4 /24, IPv6 /48, or 'local' for None."""
    if address is None:
        return "local"
    return str(ip_network((address, 24 if address.version == 4 else 48), strict=False))
