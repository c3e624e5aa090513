"""Whether callbacks of a gateway can arrive, as far as the settings tell. Pure."""

from collections.abc import Collection
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from govi_server.http.addresses import Address, parse_ip
from govi_server.settings import GATEWAY_URL, ModuleSettings, parse_networks
from govi_server.sockets.endpoint_syntax import parse_endpoint_text

LOOPBACK = ip_address("127.0.0.1")


class Obstacle(NamedTuple):
    """Why callbacks cannot arrive. setting: callback or allow, the one to correct."""

    setting: str
    text: str
    advice: str


def gateway_host(url: str) -> str:
    """Return the host of a gateway's URL."""
    return urlsplit(url).hostname or ""


def known_addresses(host: str) -> list[Address]:
    """Return the addresses of a host that are known without DNS; [] for other names."""
    if host == "localhost":
        return [LOOPBACK]
    try:
        return [parse_ip(host)]
    except ValueError:
        return []


def find_obstacle(settings: ModuleSettings, addresses: Collection[Address]) -> Obstacle | None:
    """Return what keeps callbacks of a gateway from arriving; None if nothing is known to.

    addresses: of the gateway; if there are none, it is taken to be on another machine. A gateway may send from other
    addresses, and a tunnel may end on loopback, so an obstacle is a reason to warn, not to refuse.
    """
    is_remote = not any(address.is_loopback for address in addresses)
    host = gateway_host(settings.gateway_url)
    kind, arguments = parse_endpoint_text(settings.callback)
    if kind == "unix":  # its peers are a proxy's, and always allowed
        return None
    if is_remote and any(address.is_loopback for address in known_addresses(arguments.get("interface", ""))):
        return Obstacle(
            "callback",
            f"{settings.callback}: only reachable from this machine, but the gateway is {host}",
            f"set callback = 'tcp:{arguments['port']}' and the gateway's network in allow, unless a tunnel or proxy "
            "here passes the callbacks on",
        )
    networks = parse_networks(settings.allow)
    if addresses:
        is_allowed = any(address in network for address in addresses for network in networks)
    else:
        is_allowed = not all(network.is_loopback for network in networks)
    if is_allowed:
        return None
    named = ", ".join(map(str, addresses)) or host
    return Obstacle(
        "allow",
        f"callbacks from the gateway, {named}, get a 403: allowed are {', '.join(settings.allow) or 'none'}",
        "add the network from which the gateway sends its callbacks",
    )


def is_default_gateway(settings: ModuleSettings) -> bool:
    """Return whether the gateway is the default, GOVI's own, which serves subscribers only."""
    return settings.gateway_url == GATEWAY_URL
