"""Writing at once."""

from typing import cast

from twisted.internet.error import ConnectionLost
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from govi_server.at_once import write
from govi_server.interfaces import IClientTransport


class Socket(Connection):
    """A socket that takes so many bytes at once. calls: what was done with it, in order."""

    def __init__(self, takes: int | ConnectionLost, queued: bytes = b"") -> None:
        self._takes = takes
        self.dataBuffer = queued
        self._tempDataBuffer: list[bytes] = []
        self.calls: list[tuple[str, bytes]] = []

    def writeSomeData(self, data: bytes) -> int | ConnectionLost:
        self.calls.append(("some", data))
        return self._takes

    def write(self, data: bytes) -> None:
        self.calls.append(("write", data))


class WriteTests(SynchronousTestCase):
    """What goes at once and what is queued."""

    def calls(self, sock: Socket) -> list[tuple[str, bytes]]:
        write(cast(IClientTransport, sock), b"abcd")
        return sock.calls

    def test_at_once(self) -> None:
        """What the socket takes whole is not queued."""
        self.assertEqual(self.calls(Socket(4)), [("some", b"abcd")])

    def test_some(self) -> None:
        """What the socket does not take is queued, and nothing twice."""
        self.assertEqual(self.calls(Socket(3)), [("some", b"abcd"), ("write", b"d")])
        self.assertEqual(self.calls(Socket(0)), [("some", b"abcd"), ("write", b"abcd")])

    def test_order(self) -> None:
        """Behind what is queued everything is."""
        self.assertEqual(self.calls(Socket(4, b"x")), [("write", b"abcd")])
        sock = Socket(4)
        sock._tempDataBuffer = [b"x"]
        self.assertEqual(self.calls(sock), [("write", b"abcd")])

    def test_lost(self) -> None:
        """A connection that is lost is left to the transport to find out."""
        self.assertEqual(self.calls(Socket(ConnectionLost())), [("some", b"abcd"), ("write", b"abcd")])

    def test_other_transports(self) -> None:
        """What is no socket writes in its own way."""
        transport = StringTransport()
        write(cast(IClientTransport, transport), b"abcd")
        self.assertEqual(transport.value(), b"abcd")
