"""The PROXY protocol in front of a server."""

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs, formatEvent

from govi_server.sockets.proxy_protocol import (
    MAX_BYTES_1,
    MAX_BYTES_2,
    SIGNATURE_2,
    InvalidHeader,
    ProxyFactory,
    ProxyHeader,
    parse_header,
)
from tests.client import WireTestCase, read_responses

PROXY = IPv4Address("TCP", "192.0.2.200", 40000)
REQUEST = b"GET /parrot/text/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def header_2(version_command: int, family_protocol: int, addresses: bytes = b"") -> bytes:
    """Return a header of version 2."""
    return SIGNATURE_2 + bytes([version_command, family_protocol]) + len(addresses).to_bytes(2) + addresses


TCP4 = bytes([198, 51, 100, 1, 203, 0, 113, 5]) + (1234).to_bytes(2) + (443).to_bytes(2)
TCP6 = bytes.fromhex("20010db8000100020003000400050006" + "20010db8" + 23 * "0" + "1") + bytes([0x30, 0x39, 0, 80])
TLV = b"\x03\x00\x04abcd" + b"\x20\x00\x05\x01\x00\x00\x00\x00"

# A header, and the client's address; None if it is the proxy's own.
VALID: list[tuple[bytes, IAddress | None]] = [
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    (b"PROXY UNKNOWN " + b"x" * (MAX_BYTES_1 - 16) + b"\r\n", None),
    (b"PROXY TCP4 198.51.100.1 203.0.113.5 1234 443\r\n", IPv4Address("TCP", "198.51.100.1", 1234)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", IPv4Address("TCP", "255.255.255.255", 65535)),
    (b"PROXY TCP6 2001:DB8:0::1 ::1 1 2\r\n", IPv6Address("TCP", "2001:db8::1", 1)),
    (b"PROXY TCP6 ::ffff:198.51.100.1 ::1 1 2\r\n", IPv6Address("TCP", "::ffff:198.51.100.1", 1)),
    (header_2(0x20, 0x00), None),  # LOCAL, as a health check of haproxy
    (header_2(0x20, 0x11, TCP4 + TLV), None),
    (header_2(0x21, 0x00), None),  # UNSPEC
    (header_2(0x21, 0x00, TLV), None),
    (header_2(0x21, 0x10, TCP4), None),
    (header_2(0x21, 0x11, TCP4), IPv4Address("TCP", "198.51.100.1", 1234)),
    (header_2(0x21, 0x11, TCP4 + TLV), IPv4Address("TCP", "198.51.100.1", 1234)),
    (header_2(0x21, 0x21, TCP6), IPv6Address("TCP", "2001:db8:1:2:3:4:5:6", 12345)),
    (header_2(0x21, 0x31, b"/run/x".ljust(108, b"\0") + bytes(108)), UNIXAddress("/run/x")),
    (header_2(0x21, 0x31, bytes(216)), UNIXAddress("")),
    (header_2(0x21, 0x11, TCP4 + bytes(MAX_BYTES_2 - 16 - len(TCP4))), IPv4Address("TCP", "198.51.100.1", 1234)),
]

INVALID = [
    b"G",
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00",  # TLS
    b"proxy UNKNOWN\r\n",
    b"PROXY \r\n",
    b"PROXY UNKNOWN\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY UDP4 198.51.100.1 203.0.113.5 1234 443\r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP4 198.51.100.1 203.0.113.5 1234\r\n",
    b"PROXY TCP4 198.51.100.1 203.0.113.5 1234 443 \r\n",
    b"PROXY TCP4  198.51.100.1 203.0.113.5 1234 443\r\n",
    b"PROXY TCP4 198.51.100.256 203.0.113.5 1234 443\r\n",
    b"PROXY TCP4 2001:db8::1 ::1 1234 443\r\n",
    b"PROXY TCP6 198.51.100.1 203.0.113.5 1234 443\r\n",
    b"PROXY TCP4 \xff 203.0.113.5 1234 443\r\n",
    b"PROXY TCP4 198.51.100.1 203.0.113.5 a 443\r\n",
    b"PROXY TCP4 198.51.100.1 203.0.113.5 -1 443\r\n",
    b"PROXY TCP4 198.51.100.1 203.0.113.5 65536 443\r\n",
    b"PROXY UNKNOWN " + b"x" * (MAX_BYTES_1 - 15) + b"\r\n",
    header_2(0x11, 0x11, TCP4),  # version 1
    header_2(0x22, 0x11, TCP4),  # an unknown command
    header_2(0x21, 0x41, TCP4),  # an unknown family
    header_2(0x21, 0x13, TCP4),  # an unknown transport
    header_2(0x21, 0x11, TCP4[:-1]),
    header_2(0x21, 0x21, TCP6[:-1]),
    header_2(0x21, 0x31, bytes(215)),
    header_2(0x20, 0x00, bytes(MAX_BYTES_2)),
]


class ParserTests(WireTestCase):
    """parse_header()."""

    def test_valid_headers(self) -> None:
        """A header has its client's address, and ends where it says; all shorter pieces are incomplete."""
        for data, source in VALID:
            parsed = parse_header(data + REQUEST)
            assert parsed is not None
            self.assertEqual((parsed.source, parsed.size), (source, len(data)), data)
            for end in range(1, len(data)):
                self.assertIsNone(parse_header(data[:end]), data[:end])

    def test_invalid_headers(self) -> None:
        """An invalid header is rejected at the latest when it is complete."""
        for data in INVALID:
            with self.assertRaises(InvalidHeader, msg=repr(data)):
                parse_header(data)

    def test_endless_header_is_rejected(self) -> None:
        """A header of version 1 without an end is rejected at its maximum size."""
        data = b"PROXY UNKNOWN ".ljust(MAX_BYTES_1, b"x")
        self.assertIsNone(parse_header(data[:-1]))
        self.assertRaises(InvalidHeader, parse_header, data)

    @given(st.sampled_from([b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", SIGNATURE_2, b""]), st.binary(max_size=300))
    def test_any_bytes(self, prefix: bytes, rest: bytes) -> None:
        """Any bytes are a header, or incomplete, or invalid."""
        try:
            parsed = parse_header((prefix + rest) or b"x")
        except InvalidHeader:
            return
        self.assertIsInstance(parsed, ProxyHeader | None)


class ProxyTests(WireTestCase):
    """A server behind a proxy."""

    def setUp(self) -> None:
        super().setUp()
        self.factory = ProxyFactory(cast(Any, self.server), self.clock)

    def connect(self) -> tuple[Any, StringTransport]:
        protocol = self.factory.buildProtocol(PROXY)
        transport = StringTransport(peerAddress=PROXY)
        protocol.makeConnection(transport)
        return protocol, transport

    def test_requests_after_every_header_are_served(self) -> None:
        """The request after a header is served, in pieces of any size; its client is the header's or the proxy."""
        for data, source in VALID:
            for size in (1, 7, 10_000):
                protocol, transport = self.connect()
                received = data + REQUEST
                for start in range(0, len(received), size):
                    protocol.dataReceived(received[start : start + size])
                (response,) = read_responses(transport.value())
                self.assertEqual((response.status, response.body), (200, b"a"))
                self.assertEqual(protocol.getPeer(), source or PROXY)

    def test_invalid_header_closes_the_connection(self) -> None:
        """An invalid header closes the connection without a response; the log has one short, escaped line."""
        with capturedLogs() as events:
            for _ in range(3):
                protocol, transport = self.connect()
                protocol.dataReceived(b"GET /\x1b[2J\r\n" + b"x" * 10_000)
                protocol.dataReceived(b"PROXY UNKNOWN\r\n" + REQUEST)
                self.assertTrue(transport.disconnecting)
                self.assertEqual(transport.value(), b"")
        (line,) = [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn]
        self.assertTrue(line.isprintable(), line)
        self.assertLess(len(line), 200)
