"""The PROXY protocol: a header at the start of a connection, in which a proxy names its client.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, sections 2.1 (version 1, text) and 2.2 (version 2,
binary). Twisted's implementation rejects PROXY UNKNOWN without addresses, and headers that arrive in pieces.
"""

import re
from ipaddress import IPv4Address as IPv4
from ipaddress import IPv6Address as IPv6
from socket import AF_INET6, inet_ntop
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

from govi_server.runtime.throttled_warnings import ThrottledWarnings

SIGNATURE_2 = b"\r\n\r\n\0\r\nQUIT\n"
"""The first bytes of a header of version 2."""

FIXED_BYTES_2 = 16
"""Bytes of a header of version 2 before its addresses: signature, version and command, family, length."""

MAX_BYTES_1 = 107
"""Bytes of a header of version 1, including CR LF."""

MAX_BYTES_2 = 4096
"""Bytes of a header of version 2: addresses need up to 216, the rest is for extensions (TLVs), which are ignored."""

MAX_PORT = 65535

MAX_LOGGED_BYTES = 40
"""Bytes of an invalid header in the log."""

_PREFIX_1 = b"PROXY "
_HEADER_1 = re.compile(rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|TCP([46]) ([^ ]+) ([^ ]+) (\d{1,5}) (\d{1,5}))\r\n")

# Values of version 2.
_LOCAL = 0
_UNSPECIFIED, _INET, _INET6, _UNIX = range(4)
_ADDRESS_BYTES = {_INET: 4, _INET6: 16, _UNIX: 108}


class InvalidHeader(Exception):
    """The first bytes of a connection are not a PROXY header."""


class ProxyHeader(NamedTuple):
    """A header. source, destination: the addresses of the proxied connection; None if the proxy does not know them,
    or if it connects by itself, for example for a health check.
    """

    source: IAddress | None
    destination: IAddress | None
    size: int
    """Bytes of the header."""


def parse_header(data: bytes) -> ProxyHeader | None:
    """Parse the header at the start of a connection; return None if it is incomplete. Raises InvalidHeader."""
    if data.startswith(_PREFIX_1[: len(data)]):
        return _parse_1(data)
    if data.startswith(SIGNATURE_2[: len(data)]):
        return _parse_2(data)
    raise InvalidHeader


def _parse_1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\n", 0, MAX_BYTES_1) + 1
    if not end:
        if len(data) >= MAX_BYTES_1:
            raise InvalidHeader
        return None
    match = _HEADER_1.fullmatch(data[:end])
    if match is None:
        raise InvalidHeader
    version, source, destination, source_port, destination_port = match.groups()
    if version is None:
        return ProxyHeader(None, None, end)
    ports = int(source_port), int(destination_port)
    parse = IPv4 if version == b"4" else IPv6
    try:
        hosts = parse(source.decode("ascii")), parse(destination.decode("ascii"))
    except ValueError:
        raise InvalidHeader from None
    if max(ports) > MAX_PORT:
        raise InvalidHeader
    return ProxyHeader(_ip_address(hosts[0], ports[0]), _ip_address(hosts[1], ports[1]), end)


def _parse_2(data: bytes) -> ProxyHeader | None:
    if len(data) < FIXED_BYTES_2:
        return None
    version_command, family_protocol = data[12:14]
    end = FIXED_BYTES_2 + int.from_bytes(data[14:16])
    command, family, transport = version_command & 0xF, family_protocol >> 4, family_protocol & 0xF
    if version_command >> 4 != 2 or command > 1 or family > _UNIX or transport > 2 or end > MAX_BYTES_2:
        raise InvalidHeader
    if len(data) < end:
        return None
    if command == _LOCAL or family == _UNSPECIFIED or transport == _UNSPECIFIED:
        return ProxyHeader(None, None, end)
    addresses, size = data[FIXED_BYTES_2:end], _ADDRESS_BYTES[family]
    source, destination, ports = addresses[:size], addresses[size : 2 * size], addresses[2 * size :]
    if family == _UNIX:
        if len(destination) < size:
            raise InvalidHeader
        return ProxyHeader(UNIXAddress(source.rstrip(b"\0")), UNIXAddress(destination.rstrip(b"\0")), end)
    if len(ports) < 4:
        raise InvalidHeader
    parse = IPv4 if family == _INET else IPv6
    return ProxyHeader(
        _ip_address(parse(source), int.from_bytes(ports[:2])),
        _ip_address(parse(destination), int.from_bytes(ports[2:4])),
        end,
    )


def _ip_address(host: IPv4 | IPv6, port: int) -> IAddress:
    if host.version == 4:
        return IPv4Address("TCP", str(host), port)
    # The kernel's text: that of ipaddress depends on the version of Python for an IPv4 address in an IPv6 one.
    return IPv6Address("TCP", inet_ntop(AF_INET6, host.packed), port)


class ProxyProtocol(ProtocolWrapper):
    """Reads the header of a connection, and is the transport of the protocol after it.

    The addresses are those of the header, or without addresses in it, those of the connection itself.
    """

    factory: "ProxyFactory"

    def __init__(self, factory: "ProxyFactory", wrappedProtocol: IProtocol) -> None:
        super().__init__(factory, wrappedProtocol)
        self._received = b""
        self._header: ProxyHeader | None = None

    def dataReceived(self, data: bytes) -> None:
        """Receive bytes; after an invalid header, close the connection."""
        if self._header is None:
            if self.disconnecting:
                return
            self._received += data
            try:
                self._header = parse_header(self._received)
            except InvalidHeader:
                self.factory.rejected(self._received)
                self._received = b""
                self.loseConnection()
                return
            if self._header is None:
                return
            data, self._received = self._received[self._header.size :], b""
        if data:
            self.wrappedProtocol.dataReceived(data)

    def getPeer(self) -> IAddress:
        """Return the client's address."""
        source = self._header and self._header.source
        peer: IAddress = source or super().getPeer()
        return peer

    def getHost(self) -> IAddress:
        """Return the address to which the client connected."""
        destination = self._header and self._header.destination
        host: IAddress = destination or super().getHost()
        return host


class ProxyFactory(WrappingFactory[ProxyProtocol]):
    """Wraps the protocols of another factory in ProxyProtocol."""

    protocol = ProxyProtocol
    noisy = False
    log = Logger()

    def __init__(self, wrappedFactory: IProtocolFactory, clock: IReactorTime) -> None:
        super().__init__(wrappedFactory)
        self._warnings = ThrottledWarnings(self.log, clock)

    def rejected(self, received: bytes) -> None:
        """Log an invalid header."""
        text = "{name}: connection without a valid PROXY header closed: {received!r}"
        self._warnings.add(
            "invalid", text, name=self.wrappedFactory.logPrefix(), received=received[:MAX_LOGGED_BYTES]
        )

    def logPrefix(self) -> str:
        """Return the name in Twisted's own log lines."""
        name: str = self.wrappedFactory.logPrefix()
        return name


@implementer(IStreamServerEndpoint)
class ProxyEndpoint:
    """Listens on another endpoint for connections that begin with a PROXY header."""

    def __init__(self, reactor: Any, endpoint: IStreamServerEndpoint) -> None:
        self._reactor = reactor
        self.endpoint = endpoint

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen on the other endpoint."""
        return self.endpoint.listen(ProxyFactory(protocolFactory, self._reactor))
