"""Writing and closing immediately, without the transport's queue."""

from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from govi_server.sockets.transport import IClientTransport, close_now, write_now


class Socket(Connection):
    """A connection whose socket accepts so many bytes, or raises an error. calls: calls and data, in order."""

    def __init__(self, accepts: int | OSError, queued: bytes = b"") -> None:
        self._accepts = accepts
        self.socket = cast(Any, self)
        self.dataBuffer = queued
        self._tempDataBuffer: list[bytes] = []
        self.calls: list[tuple[str, bytes]] = []

    def send(self, data: bytes) -> int:
        self.calls.append(("send", data))
        if isinstance(self._accepts, OSError):
            raise self._accepts
        return self._accepts

    def write(self, data: bytes) -> None:
        self.calls.append(("write", data))

    def connectionLost(self, reason: Failure) -> None:
        reason.trap(ConnectionDone)
        self.calls.append(("lost", b""))


class WriteTests(SynchronousTestCase):
    """write_now()."""

    def calls_of_write(self, sock: Socket) -> list[tuple[str, bytes]]:
        write_now(cast(IClientTransport, sock), b"abcd")
        return sock.calls

    def test_accepted_data_is_not_queued(self) -> None:
        """Data that the socket accepts is not queued."""
        self.assertEqual(self.calls_of_write(Socket(4)), [("send", b"abcd")])

    def test_rest_is_queued(self) -> None:
        """Only the data that the socket does not accept is queued."""
        self.assertEqual(self.calls_of_write(Socket(3)), [("send", b"abcd"), ("write", b"d")])
        self.assertEqual(self.calls_of_write(Socket(BlockingIOError())), [("send", b"abcd"), ("write", b"abcd")])

    def test_order_is_preserved(self) -> None:
        """Data is queued after data that is already queued."""
        self.assertEqual(self.calls_of_write(Socket(4, b"x")), [("write", b"abcd")])
        sock = Socket(4)
        sock._tempDataBuffer = [b"x"]
        self.assertEqual(self.calls_of_write(sock), [("write", b"abcd")])

    def test_lost_connection_is_left_to_the_transport(self) -> None:
        """The transport handles a lost connection."""
        self.assertEqual(self.calls_of_write(Socket(ConnectionResetError())), [("send", b"abcd"), ("write", b"abcd")])

    def test_other_transports_use_their_own_write(self) -> None:
        """A transport that is not a socket writes by its own method."""
        transport = StringTransport()
        write_now(cast(IClientTransport, transport), b"abcd")
        self.assertEqual(transport.value(), b"abcd")


class CloseTests(SynchronousTestCase):
    """close_now()."""

    def test_connection_without_queued_data_is_closed(self) -> None:
        """A connection without queued data is closed immediately."""
        sock = Socket(4)
        self.assertTrue(close_now(cast(IClientTransport, sock)))
        self.assertEqual(sock.calls, [("lost", b"")])

    def test_connection_with_queued_data_is_not_closed(self) -> None:
        """A connection with queued data, or one that is not a socket, is not closed."""
        sock = Socket(4, b"x")
        self.assertFalse(close_now(cast(IClientTransport, sock)))
        self.assertEqual(sock.calls, [])
        self.assertFalse(close_now(cast(IClientTransport, StringTransport())))
