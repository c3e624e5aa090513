"""One connection to the server, in memory."""

import doctest
from collections.abc import Iterable
from itertools import accumulate, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from govi_server.http import receiver
from govi_server.request_handler import MAX_REQUESTS_IN_TURN, RequestHandler
from govi_server.server import Server
from govi_server.settings import ServerSettings
from govi_server.statistics.records import MAX_REQUESTS
from tests.client import NOW, Client, WireTestCase, read_responses


class ReferenceTests(WireTestCase):
    """The handler without a connection."""

    def test_documented_example_holds(self) -> None:
        """The documented example of parse_request() has the documented items."""
        result = doctest.testmod(receiver, extraglobs={"RequestHandler": RequestHandler})
        self.assertEqual((result.failed, result.attempted), (0, 3))

    def test_handler_provides_interfaces(self) -> None:
        """The handler provides the interfaces that its transport calls."""
        handler = RequestHandler(self.server, None)
        verifyObject(IHalfCloseableProtocol, handler)
        verifyObject(IPushProducer, handler)


class ResponseTests(WireTestCase):
    """Responses to valid requests."""

    def test_get_is_routed_by_its_first_segment(self) -> None:
        """A GET is routed to the module of its first segment, and the connection persists."""
        client = self.client()
        client.send(b"GET /parrot/text/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(
            client.received(),
            b"HTTP/1.1 200 Ok\r\n"
            b"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
            b"Content-Type: text/plain; charset=utf-8\r\n"
            b"Access-Control-Allow-Origin: *\r\n"
            b"X-Content-Type-Options: nosniff\r\n"
            b"Content-Security-Policy: default-src 'none'; sandbox\r\n"
            b"Content-Length: 5\r\n"
            b"\r\n"
            b"hello",
        )
        self.assertFalse(client.closed)

    def test_division_does_not_matter(self) -> None:
        """Responses do not depend on how the bytes are divided; line ends may be bare line feeds."""
        requests = (
            b"POST /parrot/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
            b"GET /parrot/text/b HTTP/1.1\nHost: x\n\n"
        )
        client = self.client()
        client.send(requests)
        data = client.received()
        self.assertEqual([response.body for response in read_responses(data)], [b"abc", b"b"])
        client = self.client()
        for i in range(len(requests)):
            client.send(requests[i : i + 1])
        self.assertEqual(client.received(), data)

    def test_chunks_are_joined(self) -> None:
        """The chunks of a body are joined, and the connection persists."""
        client = self.client()
        client.send(
            b"POST /parrot/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
        )
        self.assertEqual(client.response().body, b"abcde")
        client.get("/parrot/text/next")
        self.assertEqual(client.response().body, b"next")

    def test_head_has_no_body(self) -> None:
        """The response to HEAD is that to GET without the body, and has its length."""
        client = self.client()
        client.send(b"HEAD /parrot/text/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        data = client.received()
        self.assertIn(b"Content-Length: 5\r\n", data)
        self.assertTrue(data.endswith(b"\r\n\r\n"))

    def test_pipelined_responses_are_in_order(self) -> None:
        """Pipelined requests get their responses in order; a slow response delays those after it."""
        client = self.client()
        client.send(
            b"GET /parrot/text/1 HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /parrot/defer HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /parrot/text/3 HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /parrot/defer HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        self.assertEqual([response.body for response in client.responses()], [b"1"])
        self.parrot.waiting.pop().callback("2")
        self.assertEqual([response.body for response in client.responses()], [b"2", b"3"])
        self.parrot.waiting.pop().callback("4")
        self.assertEqual([response.body for response in client.responses()], [b"4"])

    def test_unused_body_is_not_a_request(self) -> None:
        """A body that no module reads is never parsed as a request."""
        for path, method, status in [
            (b"/parrot/text/a", b"GET", 200),
            (b"/absent", b"GET", 404),
            (b"/parrot/x", b"DELETE", 405),
            (b"/parrot/x", b"BREW", 501),
        ]:
            client = self.client()
            body = b"GET /parrot/text/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
            client.send(b"%b %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (method, path, len(body)) + body)
            client.get("/parrot/text/next")
            first, second = client.responses()
            self.assertEqual((first.status, second.body), (status, b"next"))

    def test_unsupported_methods_are_rejected(self) -> None:
        """A method that the module does not allow gets 405 with Allow; an unknown method gets 501."""
        client = self.client()
        client.send(b"PUT /parrot/x HTTP/1.1\r\nHost: x\r\n\r\nFOO /parrot/x HTTP/1.1\r\nHost: x\r\n\r\n")
        put, foo = client.responses()
        self.assertEqual((put.status, put.headers["Allow"]), (405, "GET, HEAD, POST, OPTIONS"))
        self.assertEqual(foo.status, 501)

    def test_unknown_module_is_not_found(self) -> None:
        """A path gets 404 if its first segment names no service, or a service that is not a web module."""
        for path in ("/", "/absent/x", "/bare/x", "/parrots", "/x/parrot"):
            client = self.client()
            client.get(path)
            self.assertEqual(client.response().status, 404, path)

    def test_module_may_send_504(self) -> None:
        """A module can send the 504 of an internal gateway."""
        client = self.client()
        client.get("/parrot/timeout")
        self.assertEqual(client.response().status, 504)

    def test_continue_is_sent_before_the_body(self) -> None:
        """Expect: 100-continue, in any case, gets 100 Continue before the body; HTTP/1.0 never does."""
        client = self.client()
        client.send(b"POST /parrot/x HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
        self.assertEqual(client.received(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"ab")
        self.assertEqual(client.response().body, b"ab")
        client.send(b"POST /parrot/x HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab")
        self.assertEqual(client.response().body, b"ab")

    def test_http_1_0_persistence(self) -> None:
        """An HTTP/1.0 connection is closed after the response unless the client requests keep-alive."""
        client = self.client()
        client.send(b"GET /parrot/text/a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
        self.assertEqual(client.response().headers["Connection"], "keep-alive")
        self.assertFalse(client.closed)
        client.send(b"GET /parrot/text/b HTTP/1.0\r\n\r\n")
        self.assertEqual(client.response().headers["Connection"], "close")
        self.assertTrue(client.closed)

    def test_connection_close_closes_the_connection(self) -> None:
        """Connection: close is echoed, and closes the connection; requests after it get no response."""
        client = self.client()
        client.send(
            b"GET /parrot/text/a HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n"
            b"GET /parrot/text/b HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        self.assertEqual(client.response().headers["Connection"], "close")
        self.assertTrue(client.closed)

    def test_empty_lines_are_ignored(self) -> None:
        """Empty lines before a request are ignored, and do not start its deadline."""
        client = self.client()
        client.get("/parrot/text/a")
        client.send(b"\r\n\r\n")
        client.send(b"\r")
        self.clock.advance(12.9)
        client.send(b"\n")
        client.get("/parrot/text/b")
        self.assertEqual([response.body for response in client.responses()], [b"a", b"b"])
        client.send(b"\r")
        self.clock.advance(13)
        self.assertEqual((client.closed, client.received()), (True, b""))

    def test_many_empty_lines_are_rejected(self) -> None:
        """More than a few empty lines before a request are rejected."""
        client = self.client()
        client.send(b"\n" * 1000)
        self.assertEqual(client.response().status, 400)
        self.assertTrue(client.closed)


class SmallLimitsTests(WireTestCase):
    """Requests over the limits."""

    limits = ServerSettings(request_line=256, head=512, body=256)

    def assert_rejected(self, data: bytes, status: int) -> None:
        for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
            client = self.client()
            for piece in pieces:
                client.send(piece)
            client.send(b"GET /parrot/text/next HTTP/1.1\r\nHost: x\r\n\r\n")
            response = client.response()
            self.assertEqual((response.status, response.headers["Connection"]), (status, "close"))
            self.assertTrue(client.closed)

    def test_long_request_line_is_rejected(self) -> None:
        """A request line over its limit gets 414, even before its end is received."""
        self.assert_rejected(b"GET /" + b"x" * 260 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414)
        self.assert_rejected(b"GET /" + b"x" * 600, 414)

    def test_large_header_section_is_rejected(self) -> None:
        """A header section over its limit gets 431: one long line, many short ones, a line without an end."""
        start = b"GET / HTTP/1.1\r\nHost: x\r\n"
        self.assert_rejected(start + b"A: " + b"x" * 500 + b"\r\n\r\n", 431)
        self.assert_rejected(start + b"A: x\r\n" * 100 + b"\r\n", 431)
        self.assert_rejected(start + b"A: " + b"x" * 600, 431)

    def test_large_body_is_rejected(self) -> None:
        """A body over its limit gets 413, before it is received if its length is known."""
        head = b"POST /parrot/x HTTP/1.1\r\nHost: x\r\n"
        self.assert_rejected(head + b"Content-Length: 257\r\n\r\n", 413)
        self.assert_rejected(head + b"Transfer-Encoding: chunked\r\n\r\n101\r\n", 413)

    def test_no_continue_for_large_body(self) -> None:
        """A body over its limit is rejected without 100 Continue."""
        self.assert_rejected(
            b"POST /parrot/x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 300\r\n\r\n", 413
        )


class RejectedTests(WireTestCase):
    """Malformed requests, and modules that fail."""

    def test_malformed_requests_are_rejected(self) -> None:
        """A malformed request gets its status after the responses to earlier requests, and the connection closes."""
        for data, status in [
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"nonsense\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
            (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            (b"POST / HTTP/1.1\r\nHost: x\r\nExpect: unknown\r\nContent-Length: 1\r\n\r\n", 417),
            (b"POST /parrot/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ]:
            client = self.client()
            client.get("/parrot/defer")
            client.send(data)
            self.assertEqual(client.received(), b"")
            self.parrot.waiting.pop().callback("first")
            first, second = client.responses()
            self.assertEqual((first.body, second.status), (b"first", status))
            self.assertEqual(second.headers["Connection"], "close")
            self.assertTrue(client.closed)
            client.leave()

    def test_failing_module_causes_500(self) -> None:
        """An exception in a module causes a 500 and a traceback in the log; the connection persists."""
        client = self.client()
        client.get("/parrot/error")
        client.get("/parrot/text/next")
        failed, following = client.responses()
        self.assertEqual((failed.status, following.body), (500, b"next"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_invalid_parameter_causes_400(self) -> None:
        """InvalidParameter causes an uncacheable 400 with its text, and is not logged."""
        client = self.client()
        client.get("/parrot/invalid-parameter")
        client.get("/parrot/text/next")
        rejected, following = client.responses()
        self.assertEqual((rejected.status, rejected.body, following.body), (400, b"q is missing\n", b"next"))
        self.assertEqual(rejected.headers["Cache-Control"], "no-store")

    def test_failure_after_the_response_is_logged(self) -> None:
        """An exception after the response is logged; the client has received the response."""
        client = self.client()
        client.get("/parrot/respond-then-fail")
        client.get("/parrot/text/next")
        self.assertEqual([response.body for response in client.responses()], [b"sent", b"next"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failure_after_the_connection_closed_is_logged(self) -> None:
        """An exception in a module is logged even if the connection has closed."""
        client = self.client()
        client.get("/parrot/fail-when-cancelled")
        client.leave()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_second_response_is_not_sent(self) -> None:
        """A second response to a request is not sent, and is logged as an error of the module."""
        client = self.client()
        client.get("/parrot/respond-twice")
        self.assertEqual(client.response().body, b"first")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_module_without_a_response_causes_500(self) -> None:
        """If a module returns without a response, the client gets 500."""
        client = self.client()
        client.get("/parrot/nothing")
        self.assertEqual(client.response().status, 500)

    def test_header_injection_is_not_sent(self) -> None:
        """A line end in the value of a header field is an error of the module, and is not sent."""
        client = self.client()
        client.get("/parrot/inject-header")
        response = client.response()
        self.assertEqual((response.status, response.headers["Set-Cookie"]), (500, None))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


def stop_reading(client: Client) -> None:
    """Make a client stop reading: each write pauses the producer."""

    def write(data: bytes) -> None:
        client.transport.io.write(data)
        client.handler.pauseProducing()

    client.transport.write = write  # type: ignore[method-assign]  # StringTransport never pauses


class DeadlineTests(WireTestCase):
    """The deadlines of connections and requests."""

    def assert_timeout(self, client: Client) -> None:
        data = client.received()
        self.assertTrue(data.startswith(b"HTTP/1.1 406 Gateway timeout\r\n"), data)
        (response,) = read_responses(data)
        self.assertEqual(response.headers["Connection"], "close")
        self.assertTrue(client.closed)

    def test_silent_client_times_out(self) -> None:
        """A client that sends nothing gets the 406 exactly 13 s after it connected."""
        client = self.client()
        self.clock.advance(12.99)
        self.assertEqual(client.received(), b"")
        self.clock.advance(0.01)
        self.assert_timeout(client)

    def test_slow_sender_does_not_extend_the_deadline(self) -> None:
        """Further bytes of a header section or a body do not extend the deadline."""
        for start in (b"GET / HTTP/1.1\r\n", b"POST /parrot/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"):
            client = self.client()
            client.send(start)
            for _ in range(12):
                self.clock.advance(1)
                client.send(b"A")
            self.assertEqual(client.received(), b"")
            self.clock.advance(1)
            self.assert_timeout(client)

    def test_slow_module_times_out(self) -> None:
        """A module that exceeds the deadline is cancelled, and its response is not sent."""
        client = self.client()
        client.get("/parrot/defer")
        self.clock.advance(13)
        self.assert_timeout(client)
        body = self.parrot.waiting.pop()
        self.assertTrue(body.called)  # by the cancellation
        self.parrot.handlers[0].send_response("late")
        self.assertEqual(client.received(), b"")

    def test_idle_connection_is_closed(self) -> None:
        """A connection that is idle after a response is closed without another response."""
        client = self.client()
        self.clock.advance(5)
        client.get("/parrot/text/a")
        client.received()
        self.clock.advance(12.99)
        self.assertFalse(client.closed)
        self.clock.advance(0.02)
        self.assertTrue(client.closed)
        self.assertEqual(client.received(), b"")

    def test_each_request_has_its_own_deadline(self) -> None:
        """The deadline of a later request starts at its first byte."""
        client = self.client()
        client.get("/parrot/text/a")
        self.clock.advance(12)
        client.send(b"G")
        self.clock.advance(12.9)
        client.send(b"ET /parrot/text/b HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual([response.body for response in client.responses()], [b"a", b"b"])
        client.send(b"G")
        client.received()
        self.clock.advance(13)
        self.assert_timeout(client)

    def test_slow_reader_is_aborted(self) -> None:
        """A connection whose response is not read in time is aborted, without a 406 inside the response."""
        client = self.client()
        stop_reading(client)
        client.get("/parrot/text/a")
        client.get("/parrot/text/b")
        self.assertEqual([response.body for response in client.responses()], [b"a"])
        self.clock.advance(13)
        self.assertTrue(client.transport.disconnected)
        self.assertEqual(client.received(), b"")
        client.leave()
        self.assertEqual(self.statistics[0].end, "timeout")

    def test_lingering_connection_is_aborted(self) -> None:
        """A connection that the client does not close is aborted 2 s after the last response."""
        client = self.client()
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(client.closed)
        client.send(b"still sending")
        self.clock.advance(1.9)
        self.assertFalse(client.transport.disconnected)
        self.clock.advance(0.1)
        self.assertTrue(client.transport.disconnected)

    def test_no_delayed_call_remains(self) -> None:
        """After the last connection no delayed call remains."""
        for _ in range(3):
            client = self.client()
            client.get("/parrot/defer")
            client.leave()
        self.successResultOf(self.server.drain())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class BackPressureTests(WireTestCase):
    """Clients that send more than they read."""

    def test_requests_are_not_processed_while_writing_is_paused(self) -> None:
        """While the client does not read, its requests are not processed, and nothing more is received."""
        client = self.client()
        handler = client.handler
        stop_reading(client)
        client.send(b"GET /parrot/text/a HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        self.assertEqual(len(client.responses()), 1)
        self.assertEqual(client.transport.producerState, "paused")
        handler.resumeProducing()
        self.assertEqual(len(client.responses()), 1)
        handler.resumeProducing()
        handler.resumeProducing()
        self.assertEqual(len(client.responses()), 1)
        self.assertEqual(len(self.parrot.handlers), 3)
        self.assertEqual(client.transport.producerState, "producing")

    def test_pipelined_requests_yield(self) -> None:
        """Many pipelined requests get their responses in order, but yield to other connections in between."""
        client = self.client()
        requests = [b"GET /parrot/text/%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(100)]
        client.send(b"".join(requests))
        self.assertEqual(len(self.parrot.handlers), MAX_REQUESTS_IN_TURN)
        client.half_close()
        self.assertFalse(client.closed)
        for _ in range(100 // MAX_REQUESTS_IN_TURN):
            self.clock.advance(0)
        self.assertEqual([response.body for response in client.responses()], [b"%d" % n for n in range(100)])
        self.assertTrue(client.closed)
        client.leave()

    def test_closed_while_yielding(self) -> None:
        """A connection that closes while it yields leaves no delayed call."""
        client = self.client()
        client.send(b"GET /parrot/text/a HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        client.leave()
        self.successResultOf(self.server.drain())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.parrot.handlers), MAX_REQUESTS_IN_TURN)

    def test_buffer_is_bounded(self) -> None:
        """A bounded number of bytes of pipelined requests is received ahead."""
        client = self.client()
        client.get("/parrot/defer")
        sent = 0
        while client.transport.producerState == "producing" and sent < 1000:
            client.send(b"GET /parrot/text/a HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
            sent += 10
        self.assertLess(sent, 700)

    def test_reading_ahead_is_bounded(self) -> None:
        """While a request waits, at most about one header section is read ahead; reading resumes afterwards."""
        client = self.client()
        client.get("/parrot/defer")
        client.send(b"x" * (self.limits.head + 1))
        self.assertEqual(client.transport.producerState, "paused")
        self.parrot.waiting.pop().callback("")
        self.assertEqual([response.status for response in client.responses()], [200, 414])

    def test_half_close_with_pending_requests(self) -> None:
        """A half-closed connection closes after the responses to all requests that were received."""
        client = self.client()
        client.get("/parrot/defer")
        client.get("/parrot/text/b")
        client.half_close()
        self.assertFalse(client.closed)
        self.parrot.waiting.pop().callback("a")
        first, last = client.responses()
        self.assertEqual((first.body, first.headers["Connection"]), (b"a", None))
        self.assertEqual((last.body, last.headers["Connection"]), (b"b", "close"))
        self.assertTrue(client.closed)
        client.leave()
        self.assertEqual(self.statistics[0].end, "client")

    def test_half_close_without_a_complete_request(self) -> None:
        """A connection that is half-closed without a complete request closes."""
        for data in (b"", b"GET / HT"):
            client = self.client()
            client.send(data)
            client.half_close()
            self.assertTrue(client.closed)
            self.assertEqual(client.received(), b"")


class StatisticsTests(WireTestCase):
    """The statistics of connections."""

    def test_phases_are_recorded(self) -> None:
        """The phases that a request reached are recorded with their durations."""
        client = self.client()
        self.clock.advance(1)
        client.send(b"GET /parrot/defer?x HTTP/1.1\r\n")
        self.clock.advance(2)
        client.send(b"Host: x\r\n\r\n")
        self.clock.advance(4)
        self.parrot.waiting.pop().callback("text")
        client.get("/absent")
        self.clock.advance(1)
        client.leave()
        (connection,) = self.statistics
        self.assertEqual((connection.end, connection.client), ("client", "192.168.1.0/24"))
        self.assertEqual(connection.ended - connection.began, 8)
        parrot, not_found = connection.requests
        exchange = parrot.exchange
        self.assertEqual((exchange.method, exchange.path), ("GET", "/parrot/defer"))
        self.assertEqual((exchange.status, exchange.bytes), (200, 4))
        self.assertEqual(parrot.phases, {"receive": 3, "parse": 0, "lookup": 0, "wait": 4, "send": 0})
        self.assertEqual(
            (not_found.exchange.status, list(not_found.phases)), (404, ["receive", "parse", "lookup", "send"])
        )

    def test_end_is_recorded(self) -> None:
        """The cause of a connection's end is recorded: client, server, timeout or error."""
        client = self.client()
        client.leave()
        client = self.client()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        client.leave()
        client = self.client()
        self.clock.advance(13)
        client.leave()
        client = self.client()
        client.get("/parrot/defer")
        client.leave(ConnectionLost)
        self.assertEqual([connection.end for connection in self.statistics], ["client", "server", "timeout", "error"])
        statuses = [[request.exchange.status for request in connection.requests] for connection in self.statistics]
        self.assertEqual(statuses, [[], [404], [406], [None]])

    def test_malformed_request_is_recorded(self) -> None:
        """A malformed request is recorded with its status, without a method."""
        client = self.client()
        client.send(b"nonsense HTTP/1.1\r\n\r\n")
        client.leave()
        (request,) = self.statistics[0].requests
        exchange = request.exchange
        self.assertEqual((exchange.method, exchange.path, exchange.status), (None, None, 400))
        self.assertEqual(list(request.phases), ["receive", "parse", "send"])

    def test_module_and_stop_are_recorded(self) -> None:
        """The module that the path names and the stop that the module sets are recorded."""
        client = self.client()
        client.get("/parrot/stop/57330430")
        client.get("/parrot/text/x")
        client.get("/nothing")
        client.leave()
        requests = [(r.exchange.module, r.exchange.stop) for r in self.statistics[0].requests]
        self.assertEqual(requests, [("parrot", "57330430"), ("parrot", ""), (None, "")])

    def test_abandoned_request_is_recorded(self) -> None:
        """A request whose client disconnects during the wait is recorded with the duration of the wait."""
        client = self.client()
        client.get("/parrot/defer")
        self.clock.advance(3)
        client.leave()
        self.assertTrue(self.parrot.waiting[0].called)
        (request,) = self.statistics[0].requests
        self.assertEqual((request.exchange.status, request.phases["wait"]), (None, 3))

    def test_open_connection_is_published_periodically(self) -> None:
        """The statistics of an open connection are published every minute, and every MAX_REQUESTS requests."""
        client = self.client()
        for _ in range(13):
            self.clock.advance(5)
            client.get("/parrot/text/x")
        (event,) = self.statistics
        self.assertEqual((event.end, event.ended - event.began, len(event.requests)), ("open", 60, 11))
        for _ in range(200):
            client.get("/parrot/text/x")
        client.leave()
        self.assertEqual(
            [(event.end, len(event.requests)) for event in self.statistics[1:]],
            [*[("open", MAX_REQUESTS)] * 4, ("client", 2)],
        )

    def test_long_path_is_truncated(self) -> None:
        """A recorded path has at most 200 characters."""
        client = self.client()
        client.get("/" + "x" * 3000)
        client.leave()
        self.assertEqual(len(self.statistics[0].requests[0].exchange.path or ""), 200)


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                b"GET /parrot/text/a HTTP/1.1\r\nHost: x\r\n\r\n",
                b"GET /parrot/defer HTTP/1.1\r\nHost: x\r\n\r\n",
                b"POST /parrot/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n",
                b"POST /parrot/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"3\r\nabc\r\n",
                b"0\r\n\r\n",
                b"\r\n",
                b"\n",
            ]
        ),
    ),
    max_size=12,
)
"""What a client may send."""


class AnyInputTests(WireTestCase):
    """Arbitrary input."""

    def responses(self, pieces: Iterable[bytes]) -> tuple[bytes, bool]:
        """Return the bytes that a client receives that sends pieces, and whether it is disconnected."""
        clock = Clock()
        clock.advance(NOW)
        client = Client(Server("", 0, RequestHandler, clock=clock, find_module={"parrot": self.parrot}.__getitem__))
        for piece in pieces:
            if not client.closed:
                client.send(piece)
        for _ in range(20):  # until all that waits has its turn
            while self.parrot.waiting:
                self.parrot.waiting.pop(0).callback("")
            clock.advance(0)
        received = client.received(), client.closed
        client.leave()
        return received

    @settings(deadline=None, max_examples=50)
    @given(PIECES, st.lists(st.integers(1, 60), max_size=30))
    def test_responses_are_independent_of_cuts(self, pieces: list[bytes], sizes: list[int]) -> None:
        """The same bytes get the same responses, wherever the network cuts them."""
        data = b"".join(pieces)
        ends = [0, *(end for end in accumulate(sizes) if end < len(data)), len(data)]
        expected = self.responses([data])
        self.assertEqual(self.responses(data[start:end] for start, end in pairwise(ends)), expected)
        self.assertEqual(self.responses(data[n : n + 1] for n in range(len(data))), expected)

    @settings(deadline=None)
    @given(PIECES)
    def test_any_input_gets_complete_responses(self, pieces: list[bytes]) -> None:
        """Any bytes get complete responses; afterwards the connection is closed, and no delayed call remains."""
        clock = Clock()
        clock.advance(NOW)
        server = Server("", 0, RequestHandler, clock=clock, find_module={"parrot": self.parrot}.__getitem__)
        self.parrot.waiting.clear()
        client = Client(server)
        for piece in pieces:
            client.send(piece)
            self.assertLess(len(client.handler._buffer), self.limits.head + 65536)
            while self.parrot.waiting:
                self.parrot.waiting.pop().callback("")
        if b"HEAD " not in b"".join(pieces):  # the end of its response depends on the request
            read_responses(client.received())
        clock.pump([13, 13, 2])
        self.assertTrue(client.closed)
        client.leave()
        self.successResultOf(server.drain())
        self.assertEqual(clock.getDelayedCalls(), [])
