"""Tests of connections to the main process."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from govi_server.workers.upstream_connection import Message, UpstreamConnection, UpstreamError

RESPONSE = b"HTTP/1.1 200 Ok\r\nX: a: b\r\nContent-Length: 5\r\n\r\n\r\n\r\nx"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n"
STREAM = b"HTTP/1.1 200 Ok\r\nConnection: close\r\n\r\none"


class UpstreamConnectionTests(SynchronousTestCase):
    """A connection whose bytes the test sends."""

    def setUp(self) -> None:
        self.released: list[UpstreamConnection] = []
        self.lost: list[UpstreamConnection] = []
        self.connection = UpstreamConnection(self.released.append, self.lost.append)
        self.transport = StringTransport(lenient=True)
        self.connection.makeConnection(self.transport)

    def receive(self, data: bytes, sizes: list[int]) -> None:
        """Receive bytes in pieces of these sizes, and then the rest."""
        for size in sizes:
            self.connection.dataReceived(data[:size])
            data = data[size:]
            if not data:
                return
        self.connection.dataReceived(data)

    @given(st.lists(st.integers(1, 30)))
    def test_responses_in_pieces(self, sizes: list[int]) -> None:
        """Responses are the same for any division of their bytes, one after the other on one connection."""
        self.setUp()
        for data, message in (
            (RESPONSE, Message("200 Ok", (("X", "a: b"), ("Content-Length", "5")), b"\r\n\r\nx")),
            (NO_CONTENT, Message("204 No Content", (("Allow", "GET"),))),
        ):
            response = self.connection.send(b"request")
            self.receive(data, sizes)
            self.assertEqual(self.successResultOf(response), message)
        self.assertEqual(self.released, [self.connection] * 2)

    @given(st.lists(st.integers(1, 30)))
    def test_stream_in_pieces(self, sizes: list[int]) -> None:
        """A body without a length lasts until the connection is closed."""
        self.setUp()
        received: list[bytes] = []

        def read(message: Message) -> None:
            assert message.stream is not None
            message.stream.read_stream(received.append, lambda: received.append(b"END"))

        self.connection.send(b"request").addCallback(read)
        self.receive(STREAM, sizes)
        self.connection.dataReceived(b"two")
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((b"".join(received), self.released), (b"onetwoEND", []))

    def test_bytes_without_a_request(self) -> None:
        """Unrequested bytes close the connection, so that no later request takes them for its response."""
        self.connection.send(b"request")
        self.connection.dataReceived(RESPONSE)
        self.connection.dataReceived(RESPONSE)
        self.assertTrue(self.transport.disconnecting)

    def test_connection_is_closed(self) -> None:
        """Only a reused connection that is closed before any byte may be stale; a cancelled request fails at once."""
        for data, is_stale in ((b"", True), (RESPONSE[:5], False), (RESPONSE[:-1], False)):
            self.setUp()
            self.connection.send(b"request")
            self.connection.dataReceived(RESPONSE)
            response = self.connection.send(b"request")
            if data:
                self.connection.dataReceived(data)
            self.connection.connectionLost(Failure(ConnectionDone()))
            error = self.failureResultOf(response, UpstreamError).value
            self.assertEqual((error.is_stale, self.lost), (is_stale, [self.connection]))
