"""Check the Host of requests to private ports, which DNS rebinding would otherwise open to any web page."""

import re
from collections.abc import Collection, Sequence
from ipaddress import ip_address

from govi_server.http.request import ascii_lower

MISDIRECTED = "421 Misdirected Request"
"""The status of a rejected request (RFC 9110 section 15.5.20)."""

_HOST = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]*))(?::[0-9]*)?")


def rejected_host(hosts: Sequence[str], allowed: Collection[str]) -> str | None:
    """Return the first of a request's hosts that may belong to another site; None if there is none.

    hosts: the Host fields, and the host of a target in absolute form. allowed: the names in admin.hosts.

    A site can resolve its name to this server's address (DNS rebinding), so that its pages may read the responses:
    such requests name that site as their host. IP addresses cannot be rebound, nor can localhost and names below it,
    which browsers resolve themselves (RFC 6761 section 6.3). Browsers always send Host: a request without it is
    accepted.
    """
    names = {name_of(host) for host in allowed}
    return next((host for host in hosts if not _is_own(name_of(host), names)), None)


def name_of(host: str) -> str:
    """Return the name or address in a Host: in lower case, without port, brackets and the final dot of the root.

    An invalid Host is returned in lower case.
    """
    match = _HOST.fullmatch(host)
    return ascii_lower(host if match is None else match[1] or match[2].removesuffix("."))


def rejection(host: str, setting: str = "admin.hosts") -> str:
    """Return the body of the response to a request with a rejected host. setting: lists the allowed names."""
    return f"Host {host[:100]!a} is not allowed (expected an IP address, localhost or a name in {setting})\n"


def _is_own(name: str, allowed: Collection[str]) -> bool:
    if name in allowed or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
