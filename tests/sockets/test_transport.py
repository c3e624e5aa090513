"""Writing and closing at once."""

from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from govi_server.sockets.transport import IClientTransport, close_now, write_now


class Socket(Connection):
    """A connection whose socket accepts so many bytes, or fails. calls: those made, in order."""

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
    """What is sent at once, and what is queued."""

    def calls(self, sock: Socket) -> list[tuple[str, bytes]]:
        write_now(cast(IClientTransport, sock), b"abcd")
        return sock.calls

    def test_at_once(self) -> None:
        """Data that the socket accepts is not queued."""
        self.assertEqual(self.calls(Socket(4)), [("send", b"abcd")])

    def test_partial(self) -> None:
        """Data that the socket does not accept is queued, and nothing twice."""
        self.assertEqual(self.calls(Socket(3)), [("send", b"abcd"), ("write", b"d")])
        self.assertEqual(self.calls(Socket(BlockingIOError())), [("send", b"abcd"), ("write", b"abcd")])

    def test_order(self) -> None:
        """Data after queued data is queued."""
        self.assertEqual(self.calls(Socket(4, b"x")), [("write", b"abcd")])
        sock = Socket(4)
        sock._tempDataBuffer = [b"x"]
        self.assertEqual(self.calls(sock), [("write", b"abcd")])

    def test_lost(self) -> None:
        """A lost connection is left to the transport."""
        self.assertEqual(self.calls(Socket(ConnectionResetError())), [("send", b"abcd"), ("write", b"abcd")])

    def test_other_transports(self) -> None:
        """A transport that is not a socket writes in its own way."""
        transport = StringTransport()
        write_now(cast(IClientTransport, transport), b"abcd")
        self.assertEqual(transport.value(), b"abcd")


class CloseTests(SynchronousTestCase):
    """What is closed at once."""

    def test_at_once(self) -> None:
        """A connection with nothing queued is closed at once."""
        sock = Socket(4)
        self.assertTrue(close_now(cast(IClientTransport, sock)))
        self.assertEqual(sock.calls, [("lost", b"")])

    def test_queued(self) -> None:
        """A connection with queued data, or one that is not a socket, is not."""
        sock = Socket(4, b"x")
        self.assertFalse(close_now(cast(IClientTransport, sock)))
        self.assertEqual(sock.calls, [])
        self.assertFalse(close_now(cast(IClientTransport, StringTransport())))
