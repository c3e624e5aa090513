"""One connection, in memory."""

import doctest

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
from tests.client import NOW, Client, WireTestCase, read_answers


class ReferenceTests(WireTestCase):
    """The handler by itself."""

    def test_doctest(self) -> None:
        """The reference's example holds, item by item."""
        result = doctest.testmod(receiver, extraglobs={"RequestHandler": RequestHandler})
        self.assertEqual((result.failed, result.attempted), (0, 3))

    def test_interfaces(self) -> None:
        """It is what its transport needs it to be."""
        handler = RequestHandler(self.server, None)
        verifyObject(IHalfCloseableProtocol, handler)
        verifyObject(IPushProducer, handler)


class AnswerTests(WireTestCase):
    """Requests that are answered at once."""

    def test_get(self) -> None:
        """A GET is answered by the module of its first segment, and the connection stays."""
        client = self.client()
        client.send(b"GET /parrot/says/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(
            client.received(),
            b"HTTP/1.1 200 Ok\r\n"
            b"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
            b"Content-Type: text/plain; charset=utf-8\r\n"
            b"Access-Control-Allow-Origin: *\r\n"
            b"Content-Length: 5\r\n"
            b"\r\n"
            b"hello",
        )
        self.assertFalse(client.closed)

    def test_byte_by_byte(self) -> None:
        """However the bytes come, the answer is the same; with bare line feeds, too."""
        whole = (
            b"POST /parrot/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
            b"GET /parrot/says/b HTTP/1.1\nHost: x\n\n"
        )
        client = self.client()
        client.send(whole)
        at_once = client.received()
        self.assertEqual([answer.body for answer in read_answers(at_once)], [b"abc", b"b"])
        client = self.client()
        for i in range(len(whole)):
            client.send(whole[i : i + 1])
        self.assertEqual(client.received(), at_once)

    def test_chunked(self) -> None:
        """A chunked body is put together."""
        client = self.client()
        client.send(
            b"POST /parrot/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
        )
        self.assertEqual(client.answer().body, b"abcde")
        client.get("/parrot/says/on")
        self.assertEqual(client.answer().body, b"on")

    def test_head(self) -> None:
        """HEAD is GET without the body, its length included."""
        client = self.client()
        client.send(b"HEAD /parrot/says/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        data = client.received()
        self.assertIn(b"Content-Length: 5\r\n", data)
        self.assertTrue(data.endswith(b"\r\n\r\n"))

    def test_pipelining(self) -> None:
        """Requests that come at once are answered in their order, the one that waits holding up the others."""
        client = self.client()
        client.send(
            b"GET /parrot/says/1 HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /parrot/waits HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /parrot/says/3 HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /parrot/waits HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        self.assertEqual([answer.body for answer in client.answers()], [b"1"])
        self.parrot.waiting.pop().callback("2")
        self.assertEqual([answer.body for answer in client.answers()], [b"2", b"3"])
        self.parrot.waiting.pop().callback("4")
        self.assertEqual([answer.body for answer in client.answers()], [b"4"])

    def test_bodies_of_no_interest(self) -> None:
        """A body that nobody wants is never taken for the next request."""
        for path, method, status in [
            (b"/parrot/says/a", b"GET", 200),
            (b"/nobody", b"GET", 404),
            (b"/parrot/x", b"DELETE", 405),
            (b"/parrot/x", b"BREW", 501),
        ]:
            client = self.client()
            body = b"GET /parrot/says/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
            client.send(b"%b %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (method, path, len(body)) + body)
            client.get("/parrot/says/next")
            first, second = client.answers()
            self.assertEqual((first.status, second.body), (status, b"next"))

    def test_methods(self) -> None:
        """A known method that the module does not answer gets 405 with Allow, an unknown one 501."""
        client = self.client()
        client.send(b"PUT /parrot/x HTTP/1.1\r\nHost: x\r\n\r\nFOO /parrot/x HTTP/1.1\r\nHost: x\r\n\r\n")
        put, foo = client.answers()
        self.assertEqual((put.status, put.headers["Allow"]), (405, "GET, HEAD, POST, OPTIONS"))
        self.assertEqual(foo.status, 501)

    def test_not_found(self) -> None:
        """A segment that names no service, or one that is no web module, gets 404."""
        for path in ("/", "/nobody/x", "/deaf/x", "/parrots", "/x/parrot"):
            client = self.client()
            client.get(path)
            self.assertEqual(client.answer().status, 404, path)

    def test_gateway_timeout(self) -> None:
        """A module can say that an internal gateway did not answer in time."""
        client = self.client()
        client.get("/parrot/gives-up")
        self.assertEqual(client.answer().status, 504)

    def test_continue(self) -> None:
        """A client that waits for 100 Continue gets it before its body, in any case of letters; HTTP/1.0 never."""
        client = self.client()
        client.send(b"POST /parrot/x HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
        self.assertEqual(client.received(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"ab")
        self.assertEqual(client.answer().body, b"ab")
        client.send(b"POST /parrot/x HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab")
        self.assertEqual(client.answer().body, b"ab")

    def test_http_1_0(self) -> None:
        """HTTP/1.0 is closed after the answer, unless the client asks to keep it."""
        client = self.client()
        client.send(b"GET /parrot/says/a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
        self.assertEqual(client.answer().headers["Connection"], "keep-alive")
        self.assertFalse(client.closed)
        client.send(b"GET /parrot/says/b HTTP/1.0\r\n\r\n")
        self.assertEqual(client.answer().headers["Connection"], "close")
        self.assertTrue(client.closed)

    def test_connection_close(self) -> None:
        """A client that says close is told so and closed; what it sent behind is not answered."""
        client = self.client()
        client.send(
            b"GET /parrot/says/a HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n"
            b"GET /parrot/says/b HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        self.assertEqual(client.answer().headers["Connection"], "close")
        self.assertTrue(client.closed)

    def test_blank_lines_between(self) -> None:
        """Empty lines before a request are passed over, and do not begin one."""
        client = self.client()
        client.get("/parrot/says/a")
        client.send(b"\r\n\r\n")
        client.send(b"\r")
        self.clock.advance(12.9)
        client.send(b"\n")
        client.get("/parrot/says/b")
        self.assertEqual([answer.body for answer in client.answers()], [b"a", b"b"])
        client.send(b"\r")
        self.clock.advance(13)
        self.assertEqual((client.closed, client.received()), (True, b""))

    def test_blank_lines_without_end(self) -> None:
        """A client that sends nothing but empty lines is refused after a few."""
        client = self.client()
        client.send(b"\n" * 1000)
        self.assertEqual(client.answer().status, 400)
        self.assertTrue(client.closed)


class SmallLimitsTests(WireTestCase):
    """Requests that are too large."""

    limits = ServerSettings(request_line=256, head=512, body=256)

    def assert_refused(self, data: bytes, status: int) -> None:
        for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
            client = self.client()
            for piece in pieces:
                client.send(piece)
            client.send(b"GET /parrot/says/next HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = client.answer()
            self.assertEqual((answer.status, answer.headers["Connection"]), (status, "close"))
            self.assertTrue(client.closed)

    def test_request_line(self) -> None:
        """A request line over its limit is 414, whether its end comes or not."""
        self.assert_refused(b"GET /" + b"x" * 260 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414)
        self.assert_refused(b"GET /" + b"x" * 600, 414)

    def test_head(self) -> None:
        """A head over its limit is 431: one long line, many short ones, a line without an end."""
        start = b"GET / HTTP/1.1\r\nHost: x\r\n"
        self.assert_refused(start + b"A: " + b"x" * 500 + b"\r\n\r\n", 431)
        self.assert_refused(start + b"A: x\r\n" * 100 + b"\r\n", 431)
        self.assert_refused(start + b"A: " + b"x" * 600, 431)

    def test_body(self) -> None:
        """A body over its limit is 413, before it has come where its length is told."""
        head = b"POST /parrot/x HTTP/1.1\r\nHost: x\r\n"
        self.assert_refused(head + b"Content-Length: 257\r\n\r\n", 413)
        self.assert_refused(head + b"Transfer-Encoding: chunked\r\n\r\n101\r\n", 413)

    def test_no_continue(self) -> None:
        """A body that would be refused is not asked for."""
        self.assert_refused(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 300\r\n\r\n", 413)


class RefusedTests(WireTestCase):
    """Requests that cannot be read."""

    def test_bad_requests(self) -> None:
        """What is no request gets its status and is closed, after the answers that were due before it."""
        for data, status in [
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"nonsense\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
            (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            (b"POST / HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\nContent-Length: 1\r\n\r\n", 417),
            (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ]:
            client = self.client()
            client.get("/parrot/waits")
            client.send(data)
            self.assertEqual(client.received(), b"")
            self.parrot.waiting.pop().callback("first")
            first, second = client.answers()
            self.assertEqual((first.body, second.status), (b"first", status))
            self.assertEqual(second.headers["Connection"], "close")
            self.assertTrue(client.closed)
            client.leave()

    def test_module_fails(self) -> None:
        """An exception in a module is a 500 to that client and a traceback in the log; the connection goes on."""
        client = self.client()
        client.get("/parrot/fails")
        client.get("/parrot/says/on")
        failed, on = client.answers()
        self.assertEqual((failed.status, on.body), (500, b"on"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_bad_query(self) -> None:
        """A query that cannot be answered is a 400 that says why, which nobody keeps; the log has nothing."""
        client = self.client()
        client.get("/parrot/bad-query")
        client.get("/parrot/says/on")
        refused, on = client.answers()
        self.assertEqual((refused.status, refused.body, on.body), (400, b"q is missing\n", b"on"))
        self.assertEqual(refused.headers["Cache-Control"], "no-store")

    def test_module_fails_after_its_answer(self) -> None:
        """An exception after the answer is logged, and the client has its answer."""
        client = self.client()
        client.get("/parrot/fails-after")
        client.get("/parrot/says/on")
        self.assertEqual([answer.body for answer in client.answers()], [b"said", b"on"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_module_fails_after_the_end(self) -> None:
        """An exception in a module whose client has gone is in the log all the same."""
        client = self.client()
        client.get("/parrot/cleans-up")
        client.leave()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_module_repeats_itself(self) -> None:
        """A second answer is never sent; it is the module's error."""
        client = self.client()
        client.get("/parrot/repeats")
        self.assertEqual(client.answer().body, b"once")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_module_says_nothing(self) -> None:
        """A module that ends without an answer is a 500."""
        client = self.client()
        client.get("/parrot/nothing")
        self.assertEqual(client.answer().status, 500)

    def test_module_injects(self) -> None:
        """A line end in a header's value never reaches the client."""
        client = self.client()
        client.get("/parrot/injects")
        answer = client.answer()
        self.assertEqual((answer.status, answer.headers["Set-Cookie"]), (500, None))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


def choke(client: Client) -> None:
    """Have a client that does not read what it is sent."""

    def write(data: bytes) -> None:
        client.transport.io.write(data)
        client.handler.pauseProducing()

    client.transport.write = write  # type: ignore[method-assign]  # there is no such client ready-made


class DeadlineTests(WireTestCase):
    """No client waits longer than 13 seconds."""

    def assert_timeout(self, client: Client) -> None:
        data = client.received()
        self.assertTrue(data.startswith(b"HTTP/1.1 406 Gateway timeout\r\n"), data)
        (answer,) = read_answers(data)
        self.assertEqual(answer.headers["Connection"], "close")
        self.assertTrue(client.closed)

    def test_silent_client(self) -> None:
        """A client that never says anything gets the 406 at 13 s from its accept, and not before."""
        client = self.client()
        self.clock.advance(12.99)
        self.assertEqual(client.received(), b"")
        self.clock.advance(0.01)
        self.assert_timeout(client)

    def test_drips(self) -> None:
        """Drips of a head or a body do not renew the deadline."""
        for start in (b"GET / HTTP/1.1\r\n", b"POST /parrot/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"):
            client = self.client()
            client.send(start)
            for _ in range(12):
                self.clock.advance(1)
                client.send(b"A")
            self.assertEqual(client.received(), b"")
            self.clock.advance(1)
            self.assert_timeout(client)

    def test_slow_module(self) -> None:
        """A module that does not answer in time is given up, and its answer is not sent any more."""
        client = self.client()
        client.get("/parrot/waits")
        self.clock.advance(13)
        self.assert_timeout(client)
        waiting = self.parrot.waiting.pop()
        self.assertTrue(waiting.called)  # it was cancelled
        self.parrot.handlers[0].send_response("late")
        self.assertEqual(client.received(), b"")

    def test_idle(self) -> None:
        """A connection that idles after a whole answer is closed without another."""
        client = self.client()
        self.clock.advance(5)
        client.get("/parrot/says/a")
        client.received()
        self.clock.advance(12.99)
        self.assertFalse(client.closed)
        self.clock.advance(0.02)
        self.assertTrue(client.closed)
        self.assertEqual(client.received(), b"")

    def test_each_request_has_its_own(self) -> None:
        """The deadline of a later request counts from its first byte."""
        client = self.client()
        client.get("/parrot/says/a")
        self.clock.advance(12)
        client.send(b"G")
        self.clock.advance(12.9)
        client.send(b"ET /parrot/says/b HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual([answer.body for answer in client.answers()], [b"a", b"b"])
        client.send(b"G")
        client.received()
        self.clock.advance(13)
        self.assert_timeout(client)

    def test_client_that_does_not_read(self) -> None:
        """A client that does not take its answer within the time is dropped, without a 406 amid the answer."""
        client = self.client()
        choke(client)
        client.get("/parrot/says/a")
        client.get("/parrot/says/b")
        self.assertEqual([answer.body for answer in client.answers()], [b"a"])
        self.clock.advance(13)
        self.assertTrue(client.transport.disconnected)
        self.assertEqual(client.received(), b"")
        client.leave()
        self.assertEqual(self.statistics[0].end, "timeout")

    def test_lingering(self) -> None:
        """A client that does not close its side is dropped two seconds after the last answer."""
        client = self.client()
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(client.closed)
        client.send(b"still sending")
        self.clock.advance(1.9)
        self.assertFalse(client.transport.disconnected)
        self.clock.advance(0.1)
        self.assertTrue(client.transport.disconnected)

    def test_nothing_is_left(self) -> None:
        """After the last connection no call is left behind on the clock."""
        for _ in range(3):
            client = self.client()
            client.get("/parrot/waits")
            client.leave()
        self.successResultOf(self.server.drain())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class BackPressureTests(WireTestCase):
    """Clients that send more than they read."""

    def test_choked(self) -> None:
        """While the client does not read, no further request of it is processed, and nothing more is read."""
        client = self.client()
        handler = client.handler
        choke(client)
        client.send(b"GET /parrot/says/a HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        self.assertEqual(len(client.answers()), 1)
        self.assertEqual(client.transport.producerState, "paused")
        handler.resumeProducing()
        self.assertEqual(len(client.answers()), 1)
        handler.resumeProducing()
        handler.resumeProducing()
        self.assertEqual(len(client.answers()), 1)
        self.assertEqual(len(self.parrot.handlers), 3)
        self.assertEqual(client.transport.producerState, "producing")

    def test_turns(self) -> None:
        """Who sends many requests in one piece gets them answered in turns with others, and in order."""
        client = self.client()
        paths = [b"GET /parrot/says/%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(100)]
        client.send(b"".join(paths))
        self.assertEqual(len(self.parrot.handlers), MAX_REQUESTS_IN_TURN)
        client.half_close()
        self.assertFalse(client.closed)
        for _ in range(100 // MAX_REQUESTS_IN_TURN):
            self.clock.advance(0)
        self.assertEqual([answer.body for answer in client.answers()], [b"%d" % n for n in range(100)])
        self.assertTrue(client.closed)
        client.leave()

    def test_leaves_between_turns(self) -> None:
        """A client that leaves while it waits for its turn leaves nothing behind."""
        client = self.client()
        client.send(b"GET /parrot/says/a HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        client.leave()
        self.successResultOf(self.server.drain())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.parrot.handlers), MAX_REQUESTS_IN_TURN)

    def test_flood(self) -> None:
        """However much a client sends ahead, only so much of it is taken in."""
        client = self.client()
        client.get("/parrot/waits")
        sent = 0
        while client.transport.producerState == "producing" and sent < 1000:
            client.send(b"GET /parrot/says/a HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
            sent += 10
        self.assertLess(sent, 500)

    def test_read_ahead(self) -> None:
        """While a request waits, no more than about a head's worth is read ahead; afterwards reading goes on."""
        client = self.client()
        client.get("/parrot/waits")
        client.send(b"x" * (self.limits.head + 1))
        self.assertEqual(client.transport.producerState, "paused")
        self.parrot.waiting.pop().callback("")
        self.assertEqual([answer.status for answer in client.answers()], [200, 414])

    def test_half_close(self) -> None:
        """A client that has closed its side gets the answers to all that it sent, and is then closed."""
        client = self.client()
        client.get("/parrot/waits")
        client.get("/parrot/says/b")
        client.half_close()
        self.assertFalse(client.closed)
        self.parrot.waiting.pop().callback("a")
        a, b = client.answers()
        self.assertEqual(
            (a.body, a.headers["Connection"], b.body, b.headers["Connection"]), (b"a", None, b"b", "close")
        )
        self.assertTrue(client.closed)
        client.leave()
        self.assertEqual(self.statistics[0].end, "client")

    def test_half_close_idle(self) -> None:
        """A client that closes its side with nothing in flight, or with half a head, is closed."""
        for data in (b"", b"GET / HT"):
            client = self.client()
            client.send(data)
            client.half_close()
            self.assertTrue(client.closed)
            self.assertEqual(client.received(), b"")


class StatisticsTests(WireTestCase):
    """What a connection leaves in the statistics."""

    def test_phases(self) -> None:
        """A request's phases are those that it reached, each with its time."""
        client = self.client()
        self.clock.advance(1)
        client.send(b"GET /parrot/waits?x HTTP/1.1\r\n")
        self.clock.advance(2)
        client.send(b"Host: x\r\n\r\n")
        self.clock.advance(4)
        self.parrot.waiting.pop().callback("said")
        client.get("/nobody")
        self.clock.advance(1)
        client.leave()
        (connection,) = self.statistics
        self.assertEqual((connection.end, connection.client), ("client", "192.168.1.0/24"))
        self.assertEqual(connection.ended - connection.began, 8)
        said, nobody = connection.requests
        self.assertEqual((said.method, said.path, said.status, said.bytes), ("GET", "/parrot/waits", 200, 4))
        self.assertEqual(said.phases, {"receive": 3, "parse": 0, "lookup": 0, "wait": 4, "send": 0})
        self.assertEqual((nobody.status, list(nobody.phases)), (404, ["receive", "parse", "lookup", "send"]))

    def test_ends(self) -> None:
        """Who ended a connection is told: the client, the server, the deadline, or an accident."""
        client = self.client()
        client.leave()
        client = self.client()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        client.leave()
        client = self.client()
        self.clock.advance(13)
        client.leave()
        client = self.client()
        client.get("/parrot/waits")
        client.leave(ConnectionLost)
        self.assertEqual([connection.end for connection in self.statistics], ["client", "server", "timeout", "error"])
        statuses = [[request.status for request in connection.requests] for connection in self.statistics]
        self.assertEqual(statuses, [[], [404], [406], [None]])

    def test_refused(self) -> None:
        """A request that cannot be read is there with its status, without a method."""
        client = self.client()
        client.send(b"nonsense\r\n\r\n")
        client.leave()
        (request,) = self.statistics[0].requests
        self.assertEqual((request.method, request.path, request.status), (None, None, 400))
        self.assertEqual(list(request.phases), ["receive", "parse", "send"])

    def test_client_leaves(self) -> None:
        """A client that leaves during the wait is counted with the time that it waited."""
        client = self.client()
        client.get("/parrot/waits")
        self.clock.advance(3)
        client.leave()
        self.assertTrue(self.parrot.waiting[0].called)
        (request,) = self.statistics[0].requests
        self.assertEqual((request.status, request.phases["wait"]), (None, 3))

    def test_long_connection(self) -> None:
        """A connection that stays open is told of every minute, and every hundred requests."""
        client = self.client()
        for _ in range(13):
            self.clock.advance(5)
            client.get("/parrot/says/x")
        (event,) = self.statistics
        self.assertEqual((event.end, event.ended - event.began, len(event.requests)), ("open", 60, 11))
        for _ in range(200):
            client.get("/parrot/says/x")
        client.leave()
        self.assertEqual(
            [(event.end, len(event.requests)) for event in self.statistics[1:]],
            [("open", 100), ("open", 100), ("client", 2)],
        )

    def test_long_path(self) -> None:
        """Of a path only so much is kept."""
        client = self.client()
        client.get("/" + "x" * 3000)
        client.leave()
        self.assertEqual(len(self.statistics[0].requests[0].path or ""), 200)


class AnythingTests(WireTestCase):
    """Whatever comes in."""

    @settings(deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=40),
                st.sampled_from(
                    [
                        b"GET /parrot/says/a HTTP/1.1\r\nHost: x\r\n\r\n",
                        b"GET /parrot/waits HTTP/1.1\r\nHost: x\r\n\r\n",
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
    )
    def test_anything(self, pieces: list[bytes]) -> None:
        """Any bytes end in whole answers, a closed connection at last, and no call left behind."""
        clock = Clock()
        clock.advance(NOW)
        server = Server("", 0, RequestHandler, clock=clock, find_module={"parrot": self.parrot}.__getitem__)
        self.parrot.waiting.clear()
        client = Client(server)
        for piece in pieces:
            client.send(piece)
            self.assertLess(len(client.handler._buffer), client.handler.MAX_LENGTH + 65536)
            while self.parrot.waiting:
                self.parrot.waiting.pop().callback("")
        if b"HEAD " not in b"".join(pieces):  # whose answer has no body, which only a client that asked knows
            read_answers(client.received())
        clock.pump([13, 13, 2])
        self.assertTrue(client.closed)
        client.leave()
        self.successResultOf(server.drain())
        self.assertEqual(clock.getDelayedCalls(), [])
