"""Addresses of clients: as numbers, and as what may be written down of them."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias

from twisted.internet.interfaces import IAddress

Address: TypeAlias = IPv4Address | IPv6Address


NOBODY = IPv6Address("::")
"""Stands for a peer whose address is none."""


def host_of(addr: IAddress | None) -> str | None:
    """Give the IP address of a peer as it is written; None on a unix socket."""
    host: str | None = getattr(addr, "host", None)
    return host


def ip_of(addr: IAddress | None) -> Address | None:
    """Give the IP address of a peer, IPv4 also where it came mapped into IPv6; None on a unix socket."""
    return ip_from(host_of(addr))


def ip_from(host: str | None) -> Address | None:
    """Read what host_of() gave."""
    if host is None:
        return None
    try:
        return read_ip(host)
    except ValueError:  # a PROXY header may claim anything
        return NOBODY


@lru_cache(maxsize=10_000)
def read_ip(text: str) -> Address:
    """Read an IP address, as IPv4 where it is one mapped into IPv6. Raises ValueError."""
    address = ip_address(text.partition("%")[0])  # a link-local address has its interface behind a %
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def truncated(address: Address | None) -> str:
    """Name a peer without telling who it is: the /24 of an IPv4, the /48 of an IPv6 address, or 'local'."""
    if address is None:
        return "local"
    return str(ip_network((address, 24 if address.version == 4 else 48), strict=False))
