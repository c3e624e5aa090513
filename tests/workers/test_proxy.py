"""Tests of a worker's requests to the main process."""

import gc
import weakref
from typing import Any, cast

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Protocol, ServerFactory

from govi_server.http.client_limits import ClientLimits
from govi_server.settings import AccessSettings
from tests.client import Client, Response
from tests.examples import Program
from tests.workers.case import WorkerCase, WorkerProgram

STOP = "/kv55/57330430"

LIMITS = AccessSettings(rate=1, burst=10)


class CacheTests(WorkerCase):
    """Responses from a worker's memory."""

    def test_response_is_stored_while_it_is_fresh(self) -> None:
        """The main process is asked once in max-age seconds; meanwhile max-age and ttl decrease."""
        values = []
        for _ in range(5):
            response = self.get(STOP, accept_encoding="gzip")
            values.append((response.headers["Cache-Control"], response.headers["Cache-Status"]))
            self.clock.advance(3)
        expected = [(f"public, max-age={n}", f"govi-cache; hit; ttl={n}") for n in (10, 7, 4, 1, 10)]
        self.assertEqual((values, self.upstream), (expected, [STOP] * 2))

    def test_age_continues(self) -> None:
        """A response with Age is stored until a second before it is as old as max-age, and its Age continues."""
        program = WorkerProgram("gateway")
        self.clock, self.program = program.clock, program
        values = []
        for _ in range(5):
            response = self.get(STOP)
            values.append((response.headers["Age"], response.headers["Cache-Status"]))
            self.clock.advance(14.5)
        statuses = [f"govi-cache; hit; ttl={ttl}" for ttl in (60, 45, 31, 16, 2)]
        self.assertEqual(values, list(zip(("0", "15", "29", "44", "58"), statuses, strict=True)))
        self.assertEqual(self.upstream, [STOP])
        self.clock.advance(1.5)  # at 60 seconds: stale
        self.assertEqual((self.get(STOP).headers["Age"], len(self.upstream)), ("74", 2))

    def test_clock_set_back(self) -> None:
        """When a clock that was set back has caught up, a response that was received before is not sent again."""
        self.get(STOP)
        self.program.proxy.clock_set_back()
        self.get(STOP)
        self.assertEqual(self.upstream, [STOP] * 2)

    def test_vary(self) -> None:
        """Requests share a response unless they differ in a field that Vary names."""
        self.get(STOP, accept="text/html", accept_language="de")
        self.get(STOP, accept="application/json", user_agent="x")
        self.assertEqual(self.upstream, [STOP])
        self.get(STOP, accept_encoding="br, gzip")
        self.get(STOP, accept_encoding="gzip")
        self.assertEqual(self.upstream, [STOP] * 2)
        types = {
            self.get("/board/57330430", accept=accept).headers["Content-Type"] for accept in ("text/html", "*/*")
        }
        types.add(self.get("/board/57330430", accept="application/json").headers["Content-Type"])
        self.assertEqual(types, {"text/html; charset=utf-8", "application/json; charset=utf-8"})

    def test_preconditions_are_evaluated_in_the_worker(self) -> None:
        """A client that has the representation gets a 304 from memory; HEAD uses the response to GET."""
        etag = self.get(STOP).headers["ETag"]
        self.assertEqual(self.get(STOP, if_none_match=etag).status, 304)
        self.assertEqual(self.get(STOP, if_match='"other"').status, 412)
        client = self.client()
        client.send(f"HEAD {STOP} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.assertEqual((client.response("HEAD").headers["ETag"], self.upstream), (etag, [STOP]))

    def test_responses_that_must_not_be_stored(self) -> None:
        """Responses without max-age, with no-cache or no-store, and stale ones are fetched for each request."""
        for path in ("/", "/board/1", "/kv55/x", "/assets/front.css", "/places"):
            for _ in range(2):
                self.get(path)
        self.assertEqual(len(self.upstream), 10)

    def test_memory_is_bounded(self) -> None:
        """The least recently used responses are evicted."""
        memory = self.program.proxy._memory
        memory.max_bytes = 10_000
        for n in range(20):
            self.get(f"/docs?n={n}")  # larger than the memory
            self.get(f"/kv55/57330080?n={n}", accept_encoding="gzip")
        self.assertLessEqual(memory.bytes, 10_000)
        self.assertLess(len(memory), 10)
        self.assertEqual(len(self.upstream), 40)

    def test_fast_path(self) -> None:
        """A repeated request is served by the memo, with the same bytes, until the response is no longer fresh."""
        client = self.client()
        received = []
        for _ in range(4):
            client.get(STOP)
            self.turn()
            received.append(client.received())
        self.assertEqual(len(set(received)), 1)
        self.assertEqual(len(self.program.server.request_memo), 1)
        self.clock.advance(11)
        client.get(STOP)
        self.turn()
        self.assertIn(b"ttl=10", client.received())
        self.assertEqual(len(self.upstream), 2)

    def test_evicted_response_is_freed(self) -> None:
        """The fast path does not hold a response that was evicted from memory."""
        client = self.client()
        for _ in range(3):
            client.get(STOP)
            self.turn()
        memory = self.program.proxy._memory
        stored = [value for value, _ in memory._values.values() if not isinstance(value, tuple)]
        bodies = [weakref.ref(value._representation) for value in stored]
        del stored
        memory._values.clear()
        gc.collect()
        self.assertEqual([body() for body in bodies], [None])
        client.get(STOP)
        self.turn()
        self.assertEqual(self.upstream, [STOP] * 2)

    def test_unknown_module(self) -> None:
        """A path of no module, and a method that no module has, do not reach the main process."""
        self.assertEqual(self.get("/nothing").status, 404)
        client = self.client()
        client.send(b"POST /kv55/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
        self.assertEqual((client.response().status, self.upstream), (405, []))


class CollapsingTests(WorkerCase):
    """Equal requests at the same time."""

    source = "gateway"

    def setUp(self) -> None:
        self.program = WorkerProgram(self.source, has_data=False)
        self.clock = self.program.clock

    def test_equal_requests_are_sent_once(self) -> None:
        """Concurrent requests share one request, even if it fails; each but the first is a collapsed one."""
        clients = [self.client() for _ in range(20)]
        for client in clients:
            client.get(STOP)
        self.turn()
        self.assertEqual([client.received() for client in clients], [b""] * 20)
        self.clock.advance(11)
        self.turn()
        responses = [client.response() for client in clients]
        self.assertEqual({response.status for response in responses}, {504})
        statuses = [response.headers["Cache-Status"] for response in responses]
        self.assertEqual(statuses, ["govi-cache; fwd=miss"] + ["govi-cache; fwd=miss; collapsed"] * 19)
        self.assertEqual(self.upstream, [STOP])
        for client in clients:
            client.leave()
        caches = [record.exchange.cache for record in self.program.records]
        self.assertEqual(caches, ["miss"] + ["joined"] * 19)

    def test_client_that_leaves(self) -> None:
        """A client that leaves ends its own wait; the last one cancels the request to the main process."""
        first, second = self.client(), self.client()
        for client in (first, second):
            client.get(STOP)
        self.turn()
        first.leave()
        self.turn()
        self.assertEqual(len(self.program.origin.connections), 1)
        second.leave()
        self.turn()
        self.assertEqual((len(self.program.origin.connections), len(self.program.proxy._requests)), (0, 0))

    def test_deadline(self) -> None:
        """A main process that hangs costs its clients 13 s, also one that joins late, and is asked again after it."""
        hanging = _Factory(b"")
        self.program.address.server = hanging
        first = self.client()
        first.get(STOP)
        self.clock.advance(7)
        second = self.client()
        second.get(STOP)
        self.clock.advance(6)
        self.turn()
        responses = first.response(), second.response()
        self.assertEqual([response.status for response in responses], [504, 504])
        self.assertEqual([response.headers["Retry-After"] for response in responses], ["5", "5"])
        first.leave()
        third = self.client()
        third.get(STOP)
        self.turn()
        self.assertEqual(len(hanging.protocols), 2)

    def test_deadline_while_connecting(self) -> None:
        """A main process that does not accept connections costs a client as long, with the same response."""

        def connect(_: object) -> Deferred[Any]:  # fails as Twisted's endpoints do when it is cancelled
            return Deferred(lambda connecting: connecting.errback(ConnectingCancelledError(UNIXAddress(""))))

        self.patch(self.program.address, "connect", connect)
        client, other = self.client(), self.client()
        client.get(STOP)
        other.get("/kv55/57330080")
        other.leave()
        self.clock.advance(13)
        self.turn()
        response = client.response()
        self.assertEqual((response.status, response.headers["Retry-After"]), (504, "5"))
        self.assertEqual(len(self.program.proxy._requests), 0)


class ChargeTests(WorkerCase):
    """The work of requests, which the worker charges."""

    def setUp(self) -> None:
        self.program = WorkerProgram("feed", access=LIMITS)
        self.clock = self.program.clock

    def test_work_is_charged_as_by_a_single_process(self) -> None:
        """The cost of a request is charged before the work; a client that cannot pay gets 429."""
        single = Program("feed")
        single.server.access = ClientLimits(cast(Any, single.clock), LIMITS)
        results = [
            [(response.status, response.headers["Retry-After"]) for response in responses]
            for responses in (
                [program.request(f"/kv55/57330430,57330080?limit={n}") for n in range(1, 6)]
                for program in (single, self.program)
            )
        ]
        self.assertEqual(results[1], results[0])
        self.assertEqual({status for status, _ in results[1]}, {200, 429})

    def test_each_client_is_charged(self) -> None:
        """Clients that wait for the same request are all charged, and those that cannot pay get 429."""
        path = "/kv55/57330430,57330080,57330440"
        clients = [self.client() for _ in range(4)]
        for client in clients:
            client.get(path)
        self.turn()
        self.assertEqual([client.response().status for client in clients], [200, 200, 429, 429])

    def test_client_cannot_claim_to_be_charged(self) -> None:
        """The field of a worker has no effect in a client's request."""
        path = "/kv55/" + ",".join(f"{n}" for n in range(9))
        self.assertEqual(self.get(path, Govi_Charged="yes").status, 404)
        self.assertEqual(self.get(path, Govi_Charged="yes").status, 429)


class FailureTests(WorkerCase):
    """A main process that does not respond as it should."""

    def respond(self, data: bytes, is_closed: bool = True) -> Response:
        """Return the response to a client if the main process sends these bytes."""
        self.program.address.server = _Factory(data, is_closed)
        return self.get(STOP)

    def test_main_process_is_gone(self) -> None:
        """Without a main process, stored responses are still served, and others are a 503 with Retry-After."""
        self.get(STOP)
        for transport in self.program.address.connections:
            transport.abortConnection()
        self.program.address.server = None
        self.turn()
        self.assertEqual(self.get(STOP).status, 200)
        response = self.get("/kv55/57330080")
        self.assertEqual((response.status, response.headers["Retry-After"]), (503, "5"))
        self.assertEqual(response.headers["Cache-Control"], "no-store")

    def test_invalid_responses(self) -> None:
        """Anything but a complete response is a 502; the worker and its other connections go on."""
        for data in (
            b"",
            b"SSH-2.0-x\r\n",
            b"HTTP/1.1 200 Ok\r\nContent-Length: 5\r\n\r\nab",
            b"HTTP/1.1 200 Ok\r\nContent-Length: -5\r\n\r\n",
            b"HTTP/1.1 200 Ok\r\nContent-Length: 99999999999\r\n\r\n",
            b"HTTP/1.1 200 Ok\r\nbroken\r\n\r\n",
            b"HTTP/1.1 200 Ok\r\nContent-Length: 1\r\n\r\nabc",
            b"HTTP/1.1 200 Ok\r\nX: " + b"x" * 70_000,
            b"HTTP/1.1 200 Ok\r\n\r\nid: unfinished",
        ):
            response = self.respond(data)
            self.assertEqual((response.status, response.headers["Retry-After"]), (502, "5"), data[:40])

    def test_idle_connection_was_closed(self) -> None:
        """A request on a connection that the main process has just closed is sent again, once."""
        self.get(STOP)
        (connection,) = self.program.address.connections
        connection.protocol.dataReceived = lambda data: connection.loseConnection()
        self.assertEqual(self.get("/kv55/57330080").status, 200)
        self.assertEqual(len(self.program.address.connections), 2)
        for transport in self.program.address.connections:
            transport.protocol.dataReceived = lambda data, transport=transport: transport.loseConnection()
        self.program.address.server = _Factory(b"", True)
        self.turn()
        self.assertEqual(self.get("/kv55/57330440").status, 502)
        self.assertEqual(len(self.program.address.connections), 3)

    def test_connections_are_reused(self) -> None:
        """Requests one after the other use one connection."""
        for path in (STOP, "/kv55/57330080", "/nothing", "/docs", "/kv55/x", "/"):
            self.get(path)
        self.assertEqual(len(self.program.address.connections), 1)


class StatisticsTests(WorkerCase):
    """What a worker records of requests."""

    def test_records_are_those_of_a_single_process(self) -> None:
        """Module, stop, cache result, status and size are recorded, from the main process and from memory."""
        client: Client = self.client()
        for path in (STOP, STOP, STOP, "/tpc/57330430,57330080", "/board/1", "/docs", "/nothing/1", "/siri"):
            client.get(path)
            self.turn()
        client.leave()
        exchanges = [record.exchange for record in self.program.records]
        self.assertEqual(
            [(exchange.module, exchange.stop, exchange.cache, exchange.status) for exchange in exchanges],
            [
                ("kv55", "57330430", "hit", 200), ("kv55", "57330430", "hit", 200), ("kv55", "57330430", "hit", 200),
                ("tpc", "several", "hit", 200), ("board", "1", "hit", 404), ("docs", "", "none", 200),
                (None, "", "none", 404), ("siri", "", "none", 404),
            ],
        )  # fmt: skip
        phases = [tuple(record.phases) for record in self.program.records]
        self.assertEqual(phases[0], ("receive", "parse", "lookup", "wait", "render", "send"))
        self.assertEqual(phases[2], ("receive", "parse", "lookup", "render", "send"))

    def test_internal_fields_reach_no_client(self) -> None:
        """Fields between worker and main process are in no response."""
        for path in (STOP, STOP, "/kv55/1,2,3", "/nothing", "/kv55/x", "/events/57330430"):
            self.assertNotIn("govi-", str(self.get(path).headers).replace("govi-cache", "").lower(), path)


class _Factory(ServerFactory[Protocol]):
    """A server that responds to any bytes with its own."""

    def __init__(self, data: bytes, is_closed: bool = False) -> None:
        self.protocols: list[Protocol] = []
        self._data = data
        self._is_closed = is_closed

    def buildProtocol(self, addr: object) -> Protocol:
        protocol = Protocol()
        self.protocols.append(protocol)

        def received(data: bytes) -> None:
            assert protocol.transport is not None
            protocol.transport.write(self._data)
            if self._is_closed:
                protocol.transport.loseConnection()

        protocol.dataReceived = received  # type: ignore[method-assign]
        return protocol
