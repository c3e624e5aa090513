"""Addresses of clients: as numbers, and as what may be written down of them."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from twisted.internet.interfaces import IAddress


def ip_of(addr: IAddress) -> IPv4Address | IPv6Address | None:
    """Give the IP address of a peer, IPv4 also where it came mapped into IPv6; None on a unix socket."""
    host = getattr(addr, "host", None)
    if host is None:
        return None
    address = ip_address(host.partition("%")[0])  # a link-local address has its interface behind a %
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def truncated(addr: IAddress) -> str:
    """Name a peer without telling who it is: the /24 of an IPv4, the /48 of an IPv6 address, or 'local'."""
    address = ip_of(addr)
    if address is None:
        return "local"
    return str(ip_network((address, 24 if address.version == 4 else 48), strict=False))
