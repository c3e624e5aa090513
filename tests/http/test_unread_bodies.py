"""Bodies are received only if a module reads them, and in a buffer that is not copied for each piece."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.body import body_reader
from govi_server.http.client_limits import ClientLimits
from govi_server.http.receiver import MAX_DISCARDED_BODY_BYTES, MAX_FIELDS
from govi_server.http.request import CHUNKED
from govi_server.http.unfinished import UnfinishedRequests
from govi_server.settings import AccessSettings, ServerSettings
from tests.client import Client, WireTestCase

REJECTED = (
    (b"GET", b"/parrot/text/a", 200),
    (b"HEAD", b"/parrot/text/a", 200),
    (b"OPTIONS", b"/parrot/x", 204),
    (b"POST", b"/absent", 404),
    (b"POST", b"/bare", 404),
    (b"PUT", b"/parrot/x", 405),
    (b"DELETE", b"/parrot/x", 405),
    (b"BREW", b"/parrot/x", 501),
)
"""Requests whose body no module reads, with their status."""

LENGTHS = (1, MAX_DISCARDED_BODY_BYTES, MAX_DISCARDED_BODY_BYTES + 1, 900_001, 1 << 20)


def head(method: bytes, path: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join((b"%b %b HTTP/1.1" % (method, path), b"Host: x", *fields, b"", b""))


class UnreadBodyTests(WireTestCase):
    """Requests with a body that no module reads."""

    def test_response_precedes_the_body(self) -> None:
        """The response is sent before the body, which is not held, whatever its length."""
        for method, path, status in REJECTED:
            for field in (*(b"Content-Length: %d" % n for n in LENGTHS), b"Transfer-Encoding: chunked"):
                client = self.client()
                client.send(head(method, path, field))
                self.assertEqual(client.response(method.decode()).status, status)
                client.send(b"100000\r\n" + b"x" * 900_000)
                self.assertEqual(self.server.unfinished.bytes, 0)
                self.assertLess(client.handler.held, 100)
                client.leave()

    def test_short_body_is_discarded(self) -> None:
        """The connection persists after a short body, however it is divided."""
        body = b"GET /parrot/text/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        chunked = b"%x\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (len(body), body)
        following = head(b"GET", b"/parrot/text/next")
        for method, path, status in REJECTED:
            for data in (
                head(method, path, b"Content-Length: %d" % len(body)) + body,
                head(method, path, b"Transfer-Encoding: chunked") + chunked,
            ):
                for size in (1, 7, 1000):
                    client = self.client()
                    sent = data + following + data + following
                    for start in range(0, len(sent), size):
                        client.send(sent[start : start + size])
                    self.clock.advance(0)
                    responses = client.responses(method.decode(), "GET", method.decode(), "GET")
                    self.assertEqual([response.status for response in responses], [status, 200, status, 200])
                    self.assertEqual(responses[3].body, b"next")
                    self.assertFalse(client.closed)
                    client.leave()

    def test_long_body_closes_the_connection(self) -> None:
        """A long body is announced to close the connection; the bytes that follow are no request."""
        client = self.client()
        client.send(head(b"POST", b"/absent", b"Content-Length: %d" % (MAX_DISCARDED_BODY_BYTES + 1)))
        client.send(head(b"GET", b"/parrot/text/smuggled"))
        self.assertEqual(client.response().headers["Connection"], "close")
        self.assertTrue(client.closed)

    def test_long_chunked_body_closes_the_connection(self) -> None:
        """A chunked body of unknown length is discarded up to a limit, or up to an error."""
        for body in (b"%x\r\n" % (MAX_DISCARDED_BODY_BYTES + 1), b"nonsense\r\n"):
            client = self.client()
            client.send(head(b"POST", b"/absent", b"Transfer-Encoding: chunked") + body)
            self.assertEqual(client.response().status, 404)
            self.assertTrue(client.closed)

    def test_no_continue_for_an_unread_body(self) -> None:
        """A client that expects 100 Continue gets the final status, and may then leave the body out."""
        for method, path, status in REJECTED:
            client = self.client()
            client.send(head(method, path, b"Expect: 100-continue", b"Content-Length: 3"))
            response = client.response(method.decode())
            self.assertEqual((response.status, response.headers["Connection"]), (status, "close"))

    def test_rate_limit_precedes_the_body(self) -> None:
        """A request over the rate gets 429 before its body."""
        self.server.access = ClientLimits(self.clock, AccessSettings(rate=1, burst=1, unlimited=()))
        client = self.client()
        post = head(b"POST", b"/parrot/x", b"Content-Length: 3")
        client.send(post + b"abc" + post)
        self.assertEqual([response.status for response in client.responses()], [200, 429])

    def test_slow_unread_body_is_bounded_in_time(self) -> None:
        """The rest of a body must arrive before the request's deadline; no second response is sent."""
        client = self.client()
        client.send(head(b"PUT", b"/parrot/x", b"Content-Length: 3") + b"a")
        client.received()
        self.clock.advance(13)
        self.assertEqual(client.received(), b"")
        self.assertTrue(client.transport.disconnected)

    def test_draining_does_not_wait_for_an_unread_body(self) -> None:
        """Draining closes a connection whose unread body is incomplete."""
        client = self.client()
        client.send(head(b"PUT", b"/parrot/x", b"Content-Length: 3") + b"a")
        self.server.drain()
        self.clock.advance(0)
        self.assertTrue(client.closed)


class ReadBodyTests(WireTestCase):
    """Requests with a body that a module reads."""

    limits = ServerSettings(body=2_000_000)

    def test_body_in_pieces(self) -> None:
        """A body in pieces of any size is joined, and held once."""
        body = bytes(range(256)) * 400
        for size in (1, 1000, 65536):
            client = self.client()
            client.send(head(b"POST", b"/parrot/x", b"Content-Length: %d" % (len(body) + 1)))
            for start in range(0, len(body), size):
                client.send(body[start : start + size])
            self.assertLess(client.handler.held, len(body) + 100)
            self.assertEqual(self.server.unfinished.bytes, client.handler.held)
            client.send(b"x")
            self.assertEqual(client.response().body, body + b"x")
            self.assertEqual(self.server.unfinished.bytes, 0)

    def test_body_is_not_copied(self) -> None:
        """The body of a reader is one object, not joined from pieces at each access."""
        for length, data in ((3000, b"x" * 3000), (CHUNKED, b"5dc\r\n" + b"x" * 1500 + b"\r\n")):
            reader = body_reader(length, 5000)
            for at in range(0, len(data), 10):
                reader.feed(data[at : at + 10])
            self.assertIs(reader.body, reader.body)


class HeaderSectionTests(WireTestCase):
    """Header sections in pieces, and their amplification."""

    def test_number_of_fields_is_bounded(self) -> None:
        """More fields than MAX_FIELDS get 431, since each needs many times its bytes."""
        for n, status in ((MAX_FIELDS - 1, 200), (MAX_FIELDS + 1, 431)):
            client = self.client()
            client.send(head(b"GET", b"/parrot/text/a", *[b"a:"] * n))
            self.assertEqual(client.response().status, status)

    def test_pieces_are_appended(self) -> None:
        """Pieces of a header section are appended to one buffer, and searched once."""
        client = self.client()
        data = head(b"GET", b"/parrot/text/a", b"X: " + b"y" * 9000)
        client.send(data[:10])
        client.send(data[10:11])
        buffer = client.handler._buffer
        for at in range(11, len(data) - 1):
            client.send(data[at : at + 1])
            self.assertIs(client.handler._buffer, buffer)
        client.send(data[-1:])
        self.assertEqual(client.response().status, 200)
        self.assertEqual(client.handler.held, 0)


class ManyHoldersTests(WireTestCase):
    """What all connections together hold."""

    limits = ServerSettings(body=60_000)

    def setUp(self) -> None:
        super().setUp()
        self.server.unfinished = UnfinishedRequests(self.clock, 100_000, 100)

    def test_oldest_large_request_is_rejected(self) -> None:
        """The oldest large request gets 503; small ones are served, and what was held is forgotten."""
        small = [self.client() for _ in range(50)]
        for client in small:
            client.send(b"GET /parrot/text/a ")
        large = [self.client() for _ in range(8)]
        for client in large:
            client.send(b"GET / HTTP/1.1\r\nX: " + b"y" * 15_000)
        self.assertEqual([client.closed for client in large], [True, True, *[False] * 6])
        self.assertEqual(large[0].response().status, 503)
        self.assertLessEqual(self.server.unfinished.bytes, 100_000)
        for client in small:
            client.send(b"HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(client.response().status, 200)
        for client in large:
            client.leave()
        self.assertEqual(self.server.unfinished.bytes, 0)

    def test_all_kinds_are_bounded(self) -> None:
        """Header sections, bodies, pipelined requests and unread responses count alike."""
        post = head(b"POST", b"/parrot/x", b"Content-Length: 50000") + b"x" * 40_000
        pipelined = head(b"GET", b"/parrot/defer") + b"x" * 15_000
        rejected = self.server.unfinished.incidents.counts
        for data in (head(b"GET", b"/x")[:-2] + b"X: " + b"y" * 15_000, post, pipelined):
            rejected.clear()
            for _ in range(12):
                self.client().send(data)
                self.assertLessEqual(self.server.unfinished.bytes, 100_000)
            self.assertGreater(rejected["unfinished"], 2)
        rejected.clear()
        for _ in range(12):
            client = self.client()
            write = client.transport.write

            def pause(data: bytes, client: Client = client, write: object = write) -> None:
                client.handler.pauseProducing()

            client.transport.write = pause  # type: ignore[method-assign]
            client.send(head(b"GET", b"/parrot/large/40000"))
            self.assertLessEqual(self.server.unfinished.bytes, 100_000)
        self.assertGreater(rejected["unfinished"], 2)


class ShareTests(SynchronousTestCase):
    """The limit of all connections."""

    def test_default_share_exceeds_common_requests(self) -> None:
        """By default each of all connections may hold a request of some kilobytes."""
        self.assertGreater(ServerSettings().unfinished // AccessSettings().connections, 6000)
