"""Writing and closing at once."""

from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from govi_server.sockets.transport import IClientTransport, close_now, write_now


class Socket(Connection):
    """A connection whose socket takes so many bytes at once, or fails. calls: what was done with it, in order."""

    def __init__(self, takes: int | OSError, queued: bytes = b"") -> None:
        self._takes = takes
        self.socket = cast(Any, self)
        self.dataBuffer = queued
        self._tempDataBuffer: list[bytes] = []
        self.calls: list[tuple[str, bytes]] = []

    def send(self, data: bytes) -> int:
        self.calls.append(("send", data))
        if isinstance(self._takes, OSError):
            raise self._takes
        return self._takes

    def write(self, data: bytes) -> None:
        self.calls.append(("write", data))

    def connectionLost(self, reason: Failure) -> None:
        reason.trap(ConnectionDone)
        self.calls.append(("lost", b""))


class WriteTests(SynchronousTestCase):
    """What goes at once and what is queued."""

    def calls(self, sock: Socket) -> list[tuple[str, bytes]]:
        write_now(cast(IClientTransport, sock), b"abcd")
        return sock.calls

    def test_at_once(self) -> None:
        """What the socket takes whole is not queued."""
        self.assertEqual(self.calls(Socket(4)), [("send", b"abcd")])

    def test_some(self) -> None:
        """What the socket does not take is queued, and nothing twice."""
        self.assertEqual(self.calls(Socket(3)), [("send", b"abcd"), ("write", b"d")])
        self.assertEqual(self.calls(Socket(BlockingIOError())), [("send", b"abcd"), ("write", b"abcd")])

    def test_order(self) -> None:
        """Behind what is queued everything is."""
        self.assertEqual(self.calls(Socket(4, b"x")), [("write", b"abcd")])
        sock = Socket(4)
        sock._tempDataBuffer = [b"x"]
        self.assertEqual(self.calls(sock), [("write", b"abcd")])

    def test_lost(self) -> None:
        """A connection that is lost is left to the transport to find out."""
        self.assertEqual(self.calls(Socket(ConnectionResetError())), [("send", b"abcd"), ("write", b"abcd")])

    def test_other_transports(self) -> None:
        """What is no socket writes in its own way."""
        transport = StringTransport()
        write_now(cast(IClientTransport, transport), b"abcd")
        self.assertEqual(transport.value(), b"abcd")


class CloseTests(SynchronousTestCase):
    """What is closed at once."""

    def test_at_once(self) -> None:
        """A connection whose answers have all been taken ends there and then."""
        sock = Socket(4)
        self.assertTrue(close_now(cast(IClientTransport, sock)))
        self.assertEqual(sock.calls, [("lost", b"")])

    def test_queued(self) -> None:
        """One with something to be sent, and what is no socket, is left alone."""
        sock = Socket(4, b"x")
        self.assertFalse(close_now(cast(IClientTransport, sock)))
        self.assertEqual(sock.calls, [])
        self.assertFalse(close_now(cast(IClientTransport, StringTransport())))
