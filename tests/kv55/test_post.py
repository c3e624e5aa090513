"""POSTs over persistent connections."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from govi_server.kv55 import post
from govi_server.kv55.gateway import IPoster
from govi_server.kv55.post import IDLE_TIMEOUT, MAX_CLOSED_IN_TURN, MAX_CONNECTING, MAX_CONNECTIONS, Poster
from govi_server.kv55.post_connection import (
    BODY_TIMEOUT,
    CLOSE_TIMEOUT,
    MAX_HEAD_BYTES,
    MAX_RESPONSE_BYTES,
    PostConnection,
    PostError,
)
from tests.client import NOW

URL = "http://gateway.example/TMI_Post?a=b"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """The server's side of a connection."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.transport = StringTransport()
        self.is_aborted = False
        self.transport.abortConnection = self.abort  # type: ignore[method-assign]
        connection.makeConnection(self.transport)

    def abort(self) -> None:
        self.is_aborted = True

    @property
    def is_closed(self) -> bool:
        return self.is_aborted or self.transport.disconnecting

    def requests(self) -> bytes:
        """Return the bytes that were received since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def send(self, data: bytes) -> None:
        self.connection.dataReceived(data)

    def lose(self, error: type[Exception] = ConnectionDone) -> None:
        self.connection.connectionLost(Failure(error()))


class Endpoint:
    """An endpoint whose connections the test accepts or refuses."""

    def __init__(self) -> None:
        self.pending: list[tuple[Factory, Deferred[Any]]] = []
        self.cancelled = 0

    def connect(self, factory: Factory) -> Deferred[Any]:
        def cancel(connected: Deferred[Any]) -> None:
            self.cancelled += 1

        connected: Deferred[Any] = Deferred(cancel)
        self.pending.append((factory, connected))
        return connected

    def accept(self) -> Peer:
        factory, connected = self.pending.pop(0)
        connection = factory.buildProtocol(None)
        peer = Peer(connection)
        connected.callback(connection)
        return peer

    def refuse(self) -> None:
        self.pending.pop(0)[1].errback(ConnectionRefusedError(111))


class PosterTests(SynchronousTestCase):
    """The connections of POSTs."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.endpoint = Endpoint()
        self.patch(post, "HostnameEndpoint", lambda *arguments: self.endpoint)
        self.url = URL
        self.poster = Poster(self.clock, lambda: self.url)

    def posted(self) -> tuple[Deferred[None], Peer]:
        """Post over a new connection; return the result and the peer, which has received it."""
        result = self.poster.post(b"<a/>")
        peer = self.endpoint.accept()
        peer.requests()
        return result, peer

    def assert_fails(self, result: Deferred[None], reason: str) -> None:
        self.assertEqual(str(self.failureResultOf(result, PostError).value), reason)

    def test_provides(self) -> None:
        """A Poster provides IPoster."""
        self.assertTrue(IPoster.providedBy(self.poster))

    def test_refused_connections(self) -> None:
        """When connections are refused, the POSTs that wait try in turn."""
        results = [self.poster.post(b"") for _ in range(2 * MAX_CONNECTING)]
        for result in results:
            self.endpoint.refuse()
            self.assert_fails(result, "connection refused")
        self.assertEqual(self.endpoint.pending, [])

    def test_request(self) -> None:
        """A POST has the path, the host and the length."""
        result = self.poster.post(b"<a/>", "gzip")
        peer = self.endpoint.accept()
        self.assertEqual(
            peer.requests(),
            b"POST /TMI_Post?a=b HTTP/1.1\r\nHost: gateway.example\r\nUser-Agent: govi-cache\r\n"
            b"Content-Type: text/xml\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n<a/>",
        )
        self.assertNoResult(result)
        peer.send(OK)
        self.assertIsNone(self.successResultOf(result))

    def test_hosts(self) -> None:
        """The Host field has the port unless it is the default, and the brackets of an IPv6 address."""
        for self.url, host, path in (
            ("http://gateway.example:80", b"gateway.example", b"/"),
            ("http://gateway.example:8080/x", b"gateway.example:8080", b"/x"),
            ("http://[2001:db8::1]:8080/", b"[2001:db8::1]:8080", b"/"),
        ):
            self.poster.post(b"")
            request = self.endpoint.accept().requests()
            self.assertTrue(request.startswith(b"POST %b HTTP/1.1\r\nHost: %b\r\n" % (path, host)), request)

    def test_connection_is_reused(self) -> None:
        """A POST uses an idle connection; one at the same time opens another."""
        result, peer = self.posted()
        peer.send(OK)
        self.successResultOf(result)
        results = [self.poster.post(b"<b/>") for _ in range(2)]
        self.assertTrue(peer.requests().endswith(b"<b/>"))
        self.endpoint.accept().send(OK)
        peer.send(OK)
        for result in results:
            self.successResultOf(result)

    def test_idle_connections_are_closed(self) -> None:
        """A connection is closed when it has been idle for IDLE_TIMEOUT."""
        peers = []
        for _ in range(2):
            result, peer = self.posted()
            peers.append((result, peer))
        for _, peer in peers:
            self.clock.advance(1)
            peer.send(OK)
        self.clock.advance(IDLE_TIMEOUT - 1)
        self.assertEqual([peer.is_closed for _, peer in peers], [True, False])
        self.clock.advance(1)
        self.assertTrue(peers[1][1].is_closed)
        for _, peer in peers:
            peer.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_few_idle_connections_are_closed_in_a_turn(self) -> None:
        """Of many connections that have been idle for too long, few are closed in a turn, the others in the next."""
        posted = [self.posted() for _ in range(2 * MAX_CLOSED_IN_TURN + 1)]
        for _, peer in posted:
            peer.send(OK)
        (call,) = self.clock.getDelayedCalls()
        check: Any = call.func  # type: ignore[attr-defined]  # advance() would also run the calls of later turns
        call.cancel()
        self.clock.advance(IDLE_TIMEOUT)
        check()
        self.assertEqual(sum(peer.is_closed for _, peer in posted), MAX_CLOSED_IN_TURN)
        self.clock.advance(0)
        self.assertTrue(all(peer.is_closed for _, peer in posted))

    def test_connection_to_another_address_is_not_used(self) -> None:
        """When the address changes, idle connections are closed."""
        _, peer = self.posted()
        peer.send(OK)
        self.url = "http://other.example/"
        self.poster.post(b"")
        self.assertTrue(peer.is_closed)
        self.assertEqual(len(self.endpoint.pending), 1)

    def test_concurrent_posts_are_bounded(self) -> None:
        """Few connections are opened at a time; further POSTs wait for one of MAX_CONNECTIONS, unless cancelled."""
        results = [self.poster.post(b"<%d/>" % n) for n in range(MAX_CONNECTIONS + 3)]
        self.assertEqual(len(self.endpoint.pending), MAX_CONNECTING)
        peers = [self.endpoint.accept() for _ in range(MAX_CONNECTIONS)]
        self.assertEqual(self.endpoint.pending, [])
        results[MAX_CONNECTIONS].cancel()
        self.failureResultOf(results[MAX_CONNECTIONS])
        peers[0].requests()
        peers[0].send(OK)
        self.assertTrue(peers[0].requests().endswith(b"<%d/>" % (MAX_CONNECTIONS + 1)))
        self.assertEqual(peers[0].requests(), b"")
        peers[1].lose()
        self.failureResultOf(results[1], PostError)
        self.assertTrue(self.endpoint.accept().requests().endswith(b"<%d/>" % (MAX_CONNECTIONS + 2)))

    def test_connections_of_incomplete_responses_are_bounded(self) -> None:
        """A connection counts until the body of its response has ended, or it is lost."""
        posted = [self.posted() for _ in range(MAX_CONNECTIONS)]
        for result, peer in posted:
            peer.send(OK[:-1])
            self.successResultOf(result)
        for n in range(2):
            self.poster.post(b"<%d/>" % n)
        self.assertEqual(self.endpoint.pending, [])
        posted[0][1].send(OK[-1:])
        self.assertTrue(posted[0][1].requests().endswith(b"<0/>"))
        posted[1][1].lose(ConnectionLost)
        self.assertTrue(self.endpoint.accept().requests().endswith(b"<1/>"))

    def test_clock_set_back(self) -> None:
        """The connections that have been idle for too long are closed, also if others seem to be idle since later."""
        lost, later, earlier = (self.posted()[1] for _ in range(3))
        lost.send(OK)
        lost.lose()
        self.clock.advance(2)
        later.send(OK)
        self.clock.rightNow = NOW - 0.5
        earlier.send(OK)
        self.clock.advance(IDLE_TIMEOUT + 0.5)
        self.assertEqual([later.is_closed, earlier.is_closed], [False, True])
        self.clock.advance(2)
        self.assertTrue(later.is_closed)

    def test_stale_connection(self) -> None:
        """A POST over a connection that the peer closes without a response is repeated once, over a new one."""
        _, peer = self.posted()
        peer.send(OK)
        result = self.poster.post(b"<b/>")
        peer.lose()
        self.assertNoResult(result)
        repeated = self.endpoint.accept()
        self.assertTrue(repeated.requests().endswith(b"<b/>"))
        repeated.lose()
        self.assert_fails(result, "connection closed without a response")

    def test_post_is_not_repeated_after_a_part_of_its_response(self) -> None:
        """A POST is not repeated if the connection is lost during the response."""
        _, peer = self.posted()
        peer.send(OK)
        result = self.poster.post(b"<b/>")
        peer.send(b"HTTP/1.1 200")
        peer.lose(ConnectionLost)
        self.assert_fails(result, "connection lost")

    def test_reasons(self) -> None:
        """The error of a POST is its reason."""
        result = self.poster.post(b"")
        self.endpoint.refuse()
        self.assert_fails(result, "connection refused")
        for response, reason in (
            (b"HTTP/1.1 503 Busy\r\n\r\n", "responded 503 Busy"),
            (b"HTTP/1.1 302\r\n\r\n", "responded 302"),
            (b"HTTP/1.1 500 \x1b[2J\r\n\r\n", r"responded 500 \x1b[2J"),
            (b"SSH-2.0-OpenSSH\r\n", "response is not HTTP/1.1"),
        ):
            result, peer = self.posted()
            peer.send(response)
            self.assert_fails(result, reason)

    def test_cancelled(self) -> None:
        """Cancelling a POST cancels its attempt to connect, or aborts its connection; it is not repeated."""
        result = self.poster.post(b"")
        result.cancel()
        self.failureResultOf(result)
        self.assertEqual(self.endpoint.cancelled, 1)
        self.endpoint.pending.clear()
        _, peer = self.posted()
        peer.send(OK)
        result = self.poster.post(b"")
        result.cancel()
        self.failureResultOf(result)
        self.assertTrue(peer.is_aborted)
        peer.lose()
        self.assertEqual(self.endpoint.pending, [])

    def test_close(self) -> None:
        """close() closes all connections and waits for them."""
        self.successResultOf(self.poster.close())
        results, peers = zip(*(self.posted() for _ in range(2)), strict=True)
        peers[0].send(OK)
        closed = self.poster.close()
        self.assertTrue(all(peer.is_closed for peer in peers))
        peers[0].lose()
        self.assertNoResult(closed)
        peers[1].lose(ConnectionLost)
        self.successResultOf(closed)
        self.failureResultOf(results[1], PostError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PostConnectionTests(SynchronousTestCase):
    """The responses to POSTs."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.released: list[PostConnection] = []

    def posted(self) -> tuple[Deferred[tuple[int, str]], Peer]:
        """Send a request over a new connection; return the Deferred of the status, and the peer."""
        self.released.clear()
        connection = PostConnection(self.clock, self.released.append, lambda connection: None)
        peer = Peer(connection)
        return connection.send(b"POST"), peer

    def test_responses_that_keep_the_connection(self) -> None:
        """After a response of known length another POST may follow, however the response is split."""
        for response in (
            OK,
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nServer: x\r\nCONTENT-LENGTH:  2 \r\nVary: x\r\n\r\nok",
        ):
            for size in (1, 7, len(response)):
                status, peer = self.posted()
                for start in range(0, len(response), size):
                    self.assertEqual(self.released, [])
                    peer.send(response[start : start + size])
                self.assertEqual(self.successResultOf(status)[0] // 100, 2)
                self.assertEqual(self.released, [peer.connection])
                self.assertFalse(peer.is_closed)
                self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_responses_that_close_the_connection(self) -> None:
        """After another response the connection is closed, once its body has ended."""
        for response in (
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\nok",
            OK + b"more",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * (MAX_RESPONSE_BYTES + 1),
        ):
            status, peer = self.posted()
            peer.send(response)
            self.assertEqual(self.successResultOf(status), (200, "OK"))
            self.assertTrue(peer.is_closed, response[:100])
            self.assertEqual(self.released, [])
            peer.lose()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_incomplete_bodies(self) -> None:
        """A status counts before its body, for which the peer has BODY_TIMEOUT."""
        for fields in (b"", b"Content-Length: 9\r\n"):
            status, peer = self.posted()
            peer.send(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\nok")
            self.assertEqual(self.successResultOf(status), (200, "OK"))
            self.assertFalse(peer.is_closed)
            self.clock.advance(BODY_TIMEOUT)
            self.assertTrue(peer.is_aborted)

    def test_invalid_responses(self) -> None:
        """Whatever is not the header section of an HTTP/1.x response fails the POST and aborts the connection."""
        for response in (
            b"HTTP/2",
            b"\0",
            b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (MAX_HEAD_BYTES // 6),
            b"HTTP/1.1 999 X\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\na: b\rc\r\n\r\n",
        ):
            status, peer = self.posted()
            peer.send(response)
            self.failureResultOf(status, PostError)
            self.assertTrue(peer.is_aborted)

    def test_chunks_are_bounded(self) -> None:
        """A response in thousands of chunks, each of which needs two microseconds, is not read."""
        status, peer = self.posted()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n")
        self.assertEqual(self.successResultOf(status), (200, "OK"))
        self.assertTrue(peer.is_aborted)

    def test_bytes_without_a_request(self) -> None:
        """Bytes that nothing requested abort the connection: one that closes would accept the next POST."""
        _, peer = self.posted()
        peer.send(OK)
        peer.send(OK)
        self.assertTrue(peer.is_aborted)

    def test_peer_does_not_close(self) -> None:
        """A connection that closes is aborted after CLOSE_TIMEOUT: with TLS, it would wait for the peer."""
        _, peer = self.posted()
        peer.send(OK)
        peer.connection.close()
        self.assertFalse(peer.is_aborted)
        self.clock.advance(CLOSE_TIMEOUT)
        self.assertTrue(peer.is_aborted)
