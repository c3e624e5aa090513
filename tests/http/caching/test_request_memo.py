"""The fast path for repeated requests, which must send the same bytes as the slow path."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from unittest import mock

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.application.service import MultiService
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from govi_server.departures.board import Board, Trip
from govi_server.departures.cache import BoardCache
from govi_server.departures.source import SourceSilent
from govi_server.http import request as environ
from govi_server.http.caching.cached_response import CachedResponse, Validity
from govi_server.http.caching.representation import make_representation
from govi_server.http.caching.request_memo import (
    ENTRY_BYTES,
    MAX_HEADER_SECTION_BYTES,
    MemoEntry,
    RequestMemo,
)
from govi_server.http.client_limits import ClientLimits
from govi_server.http.state import State
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.subscriber import State as FeedState
from govi_server.kv78turbo.subscriber import Subscriber
from govi_server.modules.board import BoardPages
from govi_server.modules.display_source import CacheDisplays, FeedDisplays
from govi_server.modules.kv55_feed import Kv55Feed
from govi_server.modules.kv55_gateway import Kv55Gateway
from govi_server.modules.ovapi import ovapi_modules
from govi_server.modules.siri import PATH, Siri
from govi_server.request_handler import RequestHandler
from govi_server.server import Server
from govi_server.settings import AccessSettings, CacheSettings
from govi_server.web_handler import ICacheableModule
from tests import feed as kv
from tests.client import NOW, Client
from tests.doubles import FakeSource, FakeSubscriber, ingest, live_feed

CODES = ("57330430", "031102")
STOP = "30000001"
HEADERS = {"Access-Control-Allow-Origin": "*"}


class NoMemo(RequestMemo):
    """A memo that stores nothing: every request uses the slow path."""

    def store(self, header_section: bytes, entry: MemoEntry) -> None: ...


class TickingClock(Clock):
    """A clock that advances each time it is read."""

    tick = 0.0

    def seconds(self) -> float:
        self.rightNow += self.tick
        return super().seconds()


class World:
    """A server with clients, and its externally visible state."""

    def __init__(self, memo: RequestMemo, limits: AccessSettings) -> None:
        self.clock = TickingClock()
        self.clock.advance(NOW)
        self.source = FakeSource()
        self.cache = BoardCache(self.source, self.clock)
        self.modules = MultiService()
        Kv55Gateway("kv55", self.cache).setServiceParent(self.modules)
        self.server = Server(
            "",
            0,
            RequestHandler,
            clock=self.clock,
            find_module=self.modules.getServiceNamed,
            headers=HEADERS,
            access=ClientLimits(self.clock, limits),
        )
        self.server.request_memo = memo
        self.clients: list[Client] = []
        self.is_full = False
        self.boards = 0
        for code in CODES:
            self.put(code)
        self.clock.advance(0.125)  # the ttl decreases by a second as soon as the board ages

    def connect(self, host: str) -> None:
        client = Client(self.server, IPv4Address("TCP", host, 1))
        write = client.transport.write

        def write_and_pause(data: bytes) -> None:
            write(data)
            if self.is_full:
                client.handler.pauseProducing()

        client.transport.write = write_and_pause  # type: ignore[method-assign]
        self.clients.append(client)

    def put(self, code: str) -> None:
        self.boards += 1
        self.cache.put(Board(code, (Trip(journey_number=str(self.boards)),), self.clock.seconds()))

    def purge(self, code: str) -> None:
        self.cache.purge(code)

    def resolve(self, _: str) -> None:
        """Have the source return the boards of one stop, and fail for the other."""
        for code, board in zip(self.source.requested, self.source.results, strict=True):
            if board.called:
                continue
            if code == CODES[0]:
                board.callback(Board(code, (), self.clock.seconds()))
            else:
                board.errback(SourceSilent("no response"))

    def send(self, which: int, data: bytes) -> None:
        client = self.clients[which % len(self.clients)]
        if not client.closed:
            client.send(data)

    def fill_buffers(self, is_full: bool) -> None:
        """Make the transports' buffers full or empty."""
        self.is_full = is_full
        if not is_full:
            for client in self.clients:
                if client.handler.connection.state is State.WRITE_PAUSED and not client.closed:
                    client.handler.resumeProducing()

    def pause(self, which: int) -> None:
        client = self.clients[which % len(self.clients)]
        if not client.closed:
            client.handler.pauseProducing()

    def half_close(self, which: int) -> None:
        self.clients[which % len(self.clients)].half_close()

    def drain(self, _: object) -> None:
        if not self.server.draining:
            self.server.drain()

    def state(self) -> list[object]:
        """Return the clients' data, the requests to the source, the deadlines, and the counts of the limits."""
        server = self.server
        number = {client.handler.connection: i for i, client in enumerate(self.clients)}
        return [
            [(client.transport.value(), client.closed, client.transport.producerState) for client in self.clients],
            self.source.requested,
            [
                [(number[c], c.state, c.end) for c in timeout]
                for timeout in (*server.timeouts.values(), server.reports)
            ],
            list(self.server.access._busy_until.items()),
            set(self.cache._entries),  # without their order, which may differ within a second
            sorted((call.getTime(), cast(Any, call).func.__qualname__) for call in self.clock.getDelayedCalls()),
        ]


@contextmanager
def statistics() -> Iterator[Callable[[], list[Any]]]:
    """Collect the statistics of connections."""
    events = EventLoggingObserver()
    globalLogPublisher.addObserver(events)
    try:
        yield lambda: [msgspec.to_builtins(event["statistics"]) for event in events if "statistics" in event]
    finally:
        globalLogPublisher.removeObserver(events)


def header_section(path: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"{method} {path} HTTP/{version}\r\nHost: x\r\n{lines}\r\n".encode("latin-1")


def etag_of(board: int) -> str:
    """Return the entity tag of one of the boards of a world."""
    world = World(NoMemo(), AccessSettings())
    while world.boards < board:
        world.put(CODES[0])
    world.connect("192.0.2.1")
    world.send(0, header_section(f"/kv55/{CODES[0]}"))
    return world.clients[0].response().headers["ETag"]


FIELDS = (
    "Accept-Encoding: gzip",
    "Accept-Encoding: br, gzip;q=0",
    "Connection: close",
    "Connection: keep-alive",
    f"If-None-Match: {etag_of(3)}",
    'If-None-Match: "other"',
    "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT",
    "If-Modified-Since: Thu, 01 Jan 2026 00:00:30 GMT",
    "If-Unmodified-Since: Thu, 01 Jan 2026 00:00:00 GMT",
    'If-Match: "other"',
    "X-Forwarded-For: 198.51.100.7",
    "Content-Length: 3",
    "Expect: 100-continue",
    "Cache-Control: no-cache",
)
CLOSING = header_section(f"/kv55/{CODES[0]}", "Connection: close")
LOCAL = "127.0.0.1"
PATHS = (*(f"/kv55/{code}" for code in CODES), f"/kv55/{CODES[0]}?x=1", "/kv55/x", "/nothing", "*")
HEADER_SECTIONS = st.builds(
    lambda path, fields, method, version: header_section(path, *fields, method=method, version=version),
    st.sampled_from([PATHS[0]] * 9 + list(PATHS)),
    st.one_of(st.just([]), st.lists(st.sampled_from(FIELDS), max_size=2)),
    st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "OPTIONS"]),
    st.sampled_from(["1.1", "1.1", "1.0"]),
)
STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 2), st.lists(st.integers(0, 3), min_size=1, max_size=2)),
    st.tuples(st.just("send"), st.integers(0, 2), st.lists(st.integers(0, 1), min_size=1, max_size=1)),
    st.tuples(st.just("send"), st.integers(0, 5), st.just([0])),
    st.tuples(st.just("send"), st.integers(0, 2), st.sampled_from([b"abc", b"\r\n", b"GET /kv55/57330430 HT"])),
    st.tuples(st.just("advance"), st.sampled_from([0.3, 1.0, 12.9, 40.0, 300.0])),
    st.tuples(st.just("put"), st.sampled_from(CODES)),
    st.tuples(st.just("purge"), st.sampled_from(CODES)),
    st.tuples(st.just("resolve"), st.just("")),
    st.tuples(st.just("connect"), st.sampled_from(["127.0.0.1", "192.0.2.1"])),
    st.tuples(st.just("fill_buffers"), st.booleans()),
    st.tuples(st.just("pause"), st.integers(0, 2)),
    st.tuples(st.just("half_close"), st.integers(0, 2)),
    st.tuples(st.just("drain"), st.none()),
)
LIMITS = (AccessSettings(rate=1, burst=4), AccessSettings(rate=1, burst=4, proxies=("192.0.2.0/24",)))


class EquivalenceTests(SynchronousTestCase):
    """A server with a memo and one without receive the same bytes and send the same bytes."""

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(LIMITS), st.lists(HEADER_SECTIONS, min_size=4, max_size=4), st.lists(STEPS, max_size=30))
    @example(
        LIMITS[0],
        [
            header_section(PATHS[0]),
            header_section(PATHS[0], FIELDS[4]),
            header_section(PATHS[0], method="HEAD"),
            CLOSING,
        ],
        [
            *(("send", 0, [0]), ("send", 0, [0]), ("send", 0, [1]), ("put", CODES[0]), ("send", 0, [1])),
            *(("fill_buffers", True), ("send", 0, [0]), ("send", 0, [2]), ("fill_buffers", False), ("send", 0, [3])),
            *(("send", 1, [0, 2]), ("send", 1, [0, 2]), ("send", 1, [3])),
        ],
    )
    @example(  # the last request of a connection, of HTTP/1.1 and of HTTP/1.0
        LIMITS[0],
        [
            CLOSING,
            header_section(PATHS[0], version="1.0"),
            header_section(PATHS[0], FIELDS[3], version="1.0"),
            header_section(PATHS[0]),
        ],
        [step for which in (0, 1, 2, 2, 3) for _ in range(2) for step in (("connect", LOCAL), ("send", -1, [which]))],
    )
    @example(  # a proxy's connection with requests of its clients and its own
        LIMITS[1],
        [
            header_section(PATHS[0]),
            header_section(PATHS[0], FIELDS[10]),
            header_section(PATHS[0]),
            header_section(PATHS[0]),
        ],
        [("send", 0, [0]), ("send", 1, [1]), ("send", 1, [0]), ("send", 1, [1]), ("send", 1, [0])],
    )
    @example(  # a client that does not read
        LIMITS[0],
        [header_section(PATHS[0])] * 4,
        [
            *(("send", 0, [0]), ("fill_buffers", True), ("send", 0, [0]), ("send", 0, [0]), ("advance", 12.9)),
            *(("send", 0, [0]), ("fill_buffers", False), ("send", 0, [0]), ("fill_buffers", True), ("send", 0, [0])),
            ("advance", 300.0),
        ],
    )
    @example(  # a client that does not read its first response: the first deadline continues
        LIMITS[0],
        [header_section(PATHS[0])] * 4,
        [
            ("send", 0, [0]),
            ("advance", 1.0),
            ("fill_buffers", True),
            ("send", 0, [0]),
            ("send", 1, [0]),
            ("advance", 12.9),
        ],
    )
    @example(  # the server drains while a client does not read
        LIMITS[0],
        [header_section(PATHS[0])] * 4,
        [("send", 0, [0]), ("fill_buffers", True), ("send", 0, [0]), ("drain", None), ("fill_buffers", False)],
    )
    @example(  # the transport pauses between two requests
        LIMITS[0],
        [header_section(PATHS[0])] * 4,
        [("send", 0, [0]), ("pause", 0), ("send", 0, [0]), ("fill_buffers", False), ("send", 0, [0])],
    )
    @example(  # a request while the server drains
        LIMITS[0],
        [header_section(PATHS[0])] * 4,
        [("send", 0, [0]), ("drain", None), ("connect", LOCAL), ("send", -1, [0])],
    )
    def test_same_with_and_without_memo(
        self, limits: AccessSettings, sections: list[bytes], steps: list[tuple[Any, ...]]
    ) -> None:
        """Bytes, statistics, deadlines, limits and requests to the source are the same for any events."""
        worlds, results = (World(RequestMemo(), limits), World(NoMemo(), limits)), []
        for world in worlds:
            with statistics() as events:
                for host in ("127.0.0.1", "192.0.2.1"):
                    world.connect(host)
                for kind, *arguments in steps:
                    if kind == "advance":
                        world.clock.pump([arguments[0]])
                    elif kind == "send" and isinstance(arguments[1], list):
                        world.send(arguments[0], b"".join(sections[which] for which in arguments[1]))
                    else:
                        getattr(world, kind)(*arguments)
                state = world.state()
                for client in world.clients:
                    client.leave()
                results.append((state, events()))
            self.flushLoggedErrors()
        self.assertEqual(results[0], results[1])


class FastPathTests(SynchronousTestCase):
    """The requests that use the fast path, and those that do not."""

    def setUp(self) -> None:
        self.world = World(RequestMemo(), AccessSettings(rate=1, burst=3, proxies=("203.0.113.1/32",)))

    def count_parsed(self, *sections: bytes, host: str = "127.0.0.1") -> int:
        """Send header sections, each over its own connection; return the number that were parsed."""
        with mock.patch.object(environ, "parse", wraps=environ.parse) as parse:
            for data in sections:
                self.world.connect(host)
                self.world.send(-1, data)
        return parse.call_count

    def test_header_section_is_parsed_once(self) -> None:
        """A header section is parsed once, on any number of connections."""
        self.assertEqual(
            self.count_parsed(*[header_section(PATHS[0])] * 9, *[header_section(PATHS[1], "Connection: close")] * 9),
            2,
        )
        self.assertEqual([len(client.responses()) for client in self.world.clients], [1] * 18)

    def test_response_is_serialized_once(self) -> None:
        """A response is sent in one write, and serialized once while its Age and ttl stay the same."""
        self.count_parsed(header_section(PATHS[0]))
        client = self.world.clients[0]
        with (
            mock.patch.object(client.transport, "write") as write,
            mock.patch.object(CachedResponse, "serialize") as serialize,
        ):
            serialize.return_value = (b"HTTP/1.1 200 Ok\r\nDate: ", b"\r\n\r\n", b"", 200)
            for _ in range(5):
                client.get(f"/kv55/{CODES[0]}")
            self.world.clock.advance(1)
            client.get(f"/kv55/{CODES[0]}")
        self.assertEqual((write.call_count, serialize.call_count), (6, 2))

    def test_board_is_looked_up_once(self) -> None:
        """A board is looked up once per header section while its Age and ttl stay the same."""
        self.count_parsed(header_section(PATHS[0]))
        client = self.world.clients[0]
        with mock.patch.object(self.world.cache, "fresh", wraps=self.world.cache.fresh) as fresh:
            for _ in range(5):
                client.get(f"/kv55/{CODES[0]}")
            self.assertEqual(fresh.call_count, 1)

    def test_board_in_use_is_looked_up(self) -> None:
        """A serialized response is looked up after MAX_SECONDS, even if it has not changed."""
        respond = mock.Mock(return_value=self.response(until=NOW + 3600))
        entry = self.entry(respond)
        for seconds in range(25):
            self.assertIsNotNone(entry.response(NOW + seconds, ()))
        self.assertEqual(respond.call_count, 3)

    def test_body_belongs_to_the_module(self) -> None:
        """A serialized response holds no body: it is looked up again when the module has discarded it."""
        respond = mock.Mock(return_value=self.response(until=NOW + 3600))
        entry = self.entry(respond)
        for _ in range(3):
            self.assertIsNotNone(entry.response(NOW, ()))
        self.assertEqual(respond.call_count, 1)
        respond.return_value = None
        self.assertIsNone(entry.response(NOW, ()))

    def response(self, until: float) -> CachedResponse:
        validity = Validity(NOW, until, mock.Mock(is_current=True))
        return CachedResponse(make_representation(b"body", "text/plain", False), (), "hit", validity)

    def entry(self, respond: Callable[[], object]) -> MemoEntry:
        return MemoEntry("GET", "/", respond, None, False, "", "", "")

    def test_age_and_date_advance(self) -> None:
        """Age advances with the age of the board, and Date with the clock, even within a second."""
        self.world.clock.advance(0.375)
        self.world.put(CODES[0])
        ages = []
        for seconds in (0.0, 0.25, 0.25, 0.25, 0.25, 0.25):
            self.world.clock.advance(seconds)
            self.count_parsed(*[header_section(PATHS[0])] * 2)
            headers = [client.response().headers for client in self.world.clients[-2:]]
            self.assertEqual(headers[0].items(), headers[1].items())
            ages.append((headers[0]["Age"], headers[0]["Date"][-6:-4], headers[0]["Cache-Status"][-2:]))
        steps = [("0", "00", "60"), ("0", "00", "59"), ("0", "01", "59"), ("0", "01", "59"), ("1", "01", "59")]
        self.assertEqual(ages, [*steps, ("1", "01", "58")])

    def test_ttl_with_a_fraction_of_a_second(self) -> None:
        """The ttl is right if `cache.fresh` is not a whole number of seconds."""
        headers = []
        for memo in (RequestMemo(), NoMemo()):
            self.world = World(memo, AccessSettings())
            self.world.cache.limits = CacheSettings(fresh=60.25)
            self.world.put(CODES[0])
            for _ in range(20):
                self.world.clock.advance(0.125)
                self.count_parsed(*[header_section(PATHS[0])] * 3)
            headers.append([client.response().headers.items() for client in self.world.clients])
        self.assertEqual(*headers)

    def request_from(self, at: float, *, until: float) -> list[tuple[str, str]]:
        """Send requests from one time to another; return the Date and Cache-Status of each response."""
        self.count_parsed(*[header_section(PATHS[0])] * 2)
        clock = self.world.clock
        clock.advance(at - clock.seconds())
        clock.tick = 1e-4
        responses = []
        while clock.seconds() < until:
            self.count_parsed(header_section(PATHS[0]))
            headers = self.world.clients[-1].response().headers
            responses.append((headers["Date"][-6:-4], headers["Cache-Status"]))
        return responses

    def test_date_at_the_start_of_a_second(self) -> None:
        """A response that is serialized while a second starts has the Date of either second."""
        for early in range(1, 12):
            with self.subTest(early):
                self.setUp()
                responses = self.request_from(NOW + 2 - early * 1e-4, until=NOW + 2.02)
                self.assertEqual([date for date, _ in responses][2:], ["02"] * (len(responses) - 2))

    def test_board_becomes_stale(self) -> None:
        """A board that becomes stale during its look-up is not served as fresh, nor as stale without a refresh."""
        for early in range(1, 12):
            with self.subTest(early):
                self.setUp()
                self.request_from(NOW + 60 - early * 1e-4, until=NOW + 60.02)
                self.assertEqual(self.world.source.requested, [CODES[0]])

    def test_new_board_is_served_immediately(self) -> None:
        """A new board is served immediately, even if the previous one was served in the same second."""
        self.count_parsed(*[header_section(PATHS[0])] * 3)
        self.world.put(CODES[0])
        self.count_parsed(*[header_section(PATHS[0])] * 3)
        tags = [client.response().headers["ETag"] for client in self.world.clients]
        self.assertEqual(tags, [tags[0]] * 3 + [tags[-1]] * 3)
        self.assertNotEqual(tags[0], tags[-1])

    def test_board_is_rendered_once_per_form(self) -> None:
        """A board is rendered once in each form."""
        with mock.patch(
            "govi_server.modules.kv55_gateway.make_representation", wraps=make_representation
        ) as rendered:
            self.count_parsed(*[header_section(PATHS[0])] * 3, *[header_section(PATHS[0], FIELDS[0])] * 3)
        self.assertEqual(rendered.call_count, 2)

    def test_conditional_request_uses_the_fast_path(self) -> None:
        """A conditional request uses the fast path, with a 304 until the board changes."""
        request = header_section(PATHS[0], f"If-None-Match: {etag_of(1)}")
        self.assertEqual(self.count_parsed(request, request), 1)
        self.world.put(CODES[0])
        self.assertEqual(self.count_parsed(request), 0)
        self.assertEqual([client.response().status for client in self.world.clients], [304, 304, 200])

    def test_field_that_is_not_read_uses_the_fast_path(self) -> None:
        """A field that does not name the client, since it is not the one in access.header, uses the fast path."""
        request = header_section(PATHS[0], "Forwarded: for=192.0.2.9")
        self.assertEqual(self.count_parsed(request, request), 1)

    def test_other_requests_use_the_slow_path(self) -> None:
        """A request is parsed each time if its response is not cached, or depends on more than its bytes."""
        for data in (
            header_section(PATHS[0], "If-Match: *"),
            header_section(PATHS[0], "If-Unmodified-Since: Thu, 01 Jan 2026 00:00:00 GMT"),
            header_section(PATHS[0], "X-Forwarded-For: 192.0.2.9"),
            header_section(PATHS[0], "Content-Length: 3") + b"abc",
            header_section(PATHS[0], method="POST"),
            header_section(PATHS[0], f"X-Padding: {'x' * MAX_HEADER_SECTION_BYTES}"),
            header_section("/kv55/x"),
            header_section("/nothing"),
            header_section(PATHS[0]) + header_section(PATHS[0]),
            header_section("/nothing") + header_section(PATHS[0]),
        ):
            with self.subTest(data[:80]):
                self.assertEqual(self.count_parsed(data, data), 2 * data.count(b" HTTP/1.1"))
                self.assertEqual(len(self.world.server.request_memo), 0)

    def test_header_section_in_pieces_is_parsed(self) -> None:
        """A header section that arrives in pieces is parsed, even if it is stored."""
        self.count_parsed(header_section(PATHS[0]))
        section = header_section(PATHS[0])
        client = self.world.clients[0]
        client.response()
        client.send(section[:20])
        client.send(section[20:])
        client.send(section)
        self.assertEqual([response.status for response in client.responses()], [200, 200])

    def test_rate_limit_applies(self) -> None:
        """The rate limit of a client applies to the fast path."""
        self.count_parsed(*[header_section(PATHS[0])] * 5, host="192.0.2.1")
        statuses = [client.response().status for client in self.world.clients]
        self.assertEqual(statuses, [200, 200, 200, 429, 429])

    def test_proxy_that_is_added_names_clients(self) -> None:
        """After a proxy was added, a stored request is charged to the client that the proxy names."""
        proxy, section = "198.51.100.7", header_section(PATHS[0], "X-Forwarded-For: 203.0.113.9")
        self.world.server.access.change_limits(AccessSettings())
        self.assertEqual(self.count_parsed(section, section, host=proxy), 1)
        limits = AccessSettings(rate=1, burst=2, proxies=(f"{proxy}/32",))
        self.world.server.access.change_limits(limits)
        self.count_parsed(*[section] * 3, header_section(PATHS[0], "X-Forwarded-For: 203.0.113.10"), host=proxy)
        statuses = [client.response().status for client in self.world.clients[2:]]
        self.assertEqual(statuses, [200, 200, 429, 200])

    def test_cached_response_costs_one(self) -> None:
        """A request for several stops is charged for each of them, but for one if its response is cached."""
        module = BoardPages(CacheDisplays(self.world.cache, self.world.clock), self.world.clock)
        module.setServiceParent(self.world.modules)
        self.count_parsed(*[header_section(f"/board/{','.join(CODES)}")] * 3, host="192.0.2.1")
        self.assertEqual([client.response().status for client in self.world.clients], [200, 200, 429])

    def test_miss_uses_the_slow_path(self) -> None:
        """If the board was removed, the slow path requests it from the source."""
        self.count_parsed(header_section(PATHS[0]))
        self.world.purge(CODES[0])
        self.assertEqual(self.count_parsed(header_section(PATHS[0])), 1)
        self.assertEqual(self.world.source.requested, [CODES[0]])

    def test_failing_module_uses_the_slow_path(self) -> None:
        """If a module fails, the slow path sends the 500 and logs the traceback."""
        self.count_parsed(header_section(PATHS[0]))
        with mock.patch.object(self.world.cache, "fresh", side_effect=ZeroDivisionError):
            self.count_parsed(header_section(PATHS[0]))
        self.assertEqual(self.world.clients[-1].response().status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_entries_are_bounded(self) -> None:
        """Header sections need at most max_bytes; the least recently used is evicted."""
        self.world.server.request_memo = RequestMemo(round(3.5 * ENTRY_BYTES))
        self.count_parsed(*(header_section(PATHS[0], f"X: {n}") for n in range(3)))
        self.count_parsed(header_section(PATHS[0], "X: 0"), header_section(PATHS[0], "X: 3"))
        self.assertEqual(len(self.world.server.request_memo), 3)
        self.assertEqual(self.count_parsed(header_section(PATHS[0], "X: 0"), header_section(PATHS[0], "X: 1")), 1)

    def test_entry_does_not_hold_a_connection(self) -> None:
        """An entry holds no reference to a connection."""
        self.count_parsed(header_section(PATHS[0], FIELDS[4]))
        ((entry, _),) = self.world.server.request_memo._entries._values.values()
        self.assertNotIn(self.world.clients[0].handler, vars(entry.condition).values())

    def test_only_conditions_are_stored(self) -> None:
        """An entry holds only the fields on which its response depends."""
        fields = ('If-None-Match: "1"', "Accept: text/xml", 'If-None-Match: "2"')
        self.count_parsed(header_section(PATHS[0], *fields))
        ((entry, _),) = self.world.server.request_memo._entries._values.values()
        self.assertEqual(dict(entry.condition or {}), {"if-none-match": '"1","2"'})


LIVE_PATHS = (
    *(f"/live/{STOP}", f"/live/{STOP}/", f"/live/{STOP}?limit=1", "/live/1", f"/tpc/{STOP}", f"/tpc/{STOP}/"),
    *(f"/board/{STOP}", f"/board/{STOP},1?lang=en", f"/board/{STOP}?limit=0", f"{PATH}?MonitoringRef={STOP}", PATH),
    *(f"/tpc/{STOP}/departures", f"/tpc/{STOP}/x", f"/tpc/{STOP},1", f"/tpc/{STOP}?limit=1", "/tpc/", "/lastupdate"),
)


FAST_PATHS = (f"/live/{STOP}", f"/tpc/{STOP}", f"/board/{STOP}", f"{PATH}?MonitoringRef={STOP}")
STATES: tuple[FeedState, ...] = ("UP", "DOWN")


class FeedTests(SynchronousTestCase):
    """The modules of the live feed."""

    def world(self, memo: RequestMemo) -> tuple[World, Feed, FakeSubscriber]:
        """Return a world with the feed's modules, the feed and its subscriber."""
        world = World(memo, AccessSettings())
        feed, subscriber = live_feed(world.clock), FakeSubscriber("UP")
        feed.subscriber = cast(Subscriber, subscriber)
        boards = BoardPages(FeedDisplays(feed), world.clock)
        modules: list[Any] = [Kv55Feed("live", feed), *ovapi_modules(feed), boards, Siri(feed)]
        for module in modules:
            verifyObject(ICacheableModule, module)
            module.setServiceParent(world.modules)
        return world, feed, subscriber

    def test_same_with_and_without_memo(self) -> None:
        """Bytes and statistics are the same while data ages, and while the feed goes down and up again."""
        results = []
        for memo in (RequestMemo(), NoMemo()):
            world, feed, subscriber = self.world(memo)
            with statistics() as events, mock.patch.object(environ, "parse", wraps=environ.parse) as parse:
                for step in range(4):
                    if step != 2:  # the feed is silent for one step, and its data ages
                        ingest(feed, kv.passtimes({"JourneyNumber": f"{step}", "ExpectedDepartureTime": "01:59:00"}))
                    for state in STATES:
                        subscriber.state = state
                        for path in LIVE_PATHS:
                            for fields in ((), ("Accept-Encoding: gzip",)):
                                world.connect("127.0.0.1")
                                world.send(-1, header_section(path, *fields))
                        world.clock.pump([200.0])
                for client in world.clients:
                    client.leave()
                results.append((world.state(), events(), parse.call_count))
        self.assertEqual(results[0][:2], results[1][:2])
        self.assertLess(results[0][2], results[1][2])
        statuses = {client.responses()[0].status for client in world.clients}
        self.assertEqual(statuses, {200, 400, 404, 503})

    def test_module_and_stop_are_recorded(self) -> None:
        """The statistics have the module and the stop of a request on both paths."""
        world, feed, _ = self.world(RequestMemo())
        ingest(feed, kv.passtimes({"TimingPointCode": STOP, "ExpectedDepartureTime": "01:59:00"}))
        stops = {
            f"/kv55/{CODES[0]}": CODES[0], "/kv55/x": "", f"/live/{STOP}": STOP, f"/live/{STOP},1": "several",
            "/live/x": "", f"/tpc/{STOP}": STOP, f"/tpc/{STOP},1/departures": "several", "/tpc/": "", "/tpc/x": "",
            "/stopareacode/1": "", "/line/1": "", f"/board/{STOP}": STOP, f"/board/{STOP},1": "several",
        }  # fmt: skip
        with statistics() as events:
            for path in stops:
                world.connect("127.0.0.1")
                for _ in range(3):
                    world.send(-1, header_section(path))
                world.clients[-1].leave()
        for connection, (path, stop) in zip(events(), stops.items(), strict=True):
            exchanges = [request["exchange"] for request in connection["requests"]]
            recorded = [(exchange["module"], exchange["stop"]) for exchange in exchanges]
            self.assertEqual(recorded, [(path.split("/")[1], stop)] * 3, path)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("request"), st.sampled_from(FAST_PATHS)),
                st.tuples(st.just("advance"), st.sampled_from([0.03, 0.25, 0.5, 1.0, 29.75, 30.0, 59.75])),
                st.tuples(st.just("state"), st.sampled_from(STATES)),
                st.tuples(st.just("passtime"), st.sampled_from([STOP, "30000002"])),
            ),
            min_size=4,
            max_size=40,
        )
    )
    def test_same_for_any_events(self, steps: list[tuple[str, Any]]) -> None:
        """Bytes are the same for any order of changes of data, time and the feed's state, even within a second."""
        results = []
        for memo in (RequestMemo(), NoMemo()):
            world, feed, subscriber = self.world(memo)
            ingest(feed, kv.passtimes({"TimingPointCode": STOP, "ExpectedDepartureTime": "01:02:00"}))
            for number, (kind, value) in enumerate(steps):
                if kind == "request":
                    world.connect("127.0.0.1")
                    world.send(-1, header_section(value))
                elif kind == "advance":
                    world.clock.pump([value])
                elif kind == "state":
                    subscriber.state = value
                else:
                    departure = {"JourneyNumber": f"{number}", "ExpectedDepartureTime": "01:59:00"}
                    ingest(feed, kv.passtimes({"TimingPointCode": value, **departure}))
            results.append([client.transport.value() for client in world.clients])
        self.assertEqual(results[0], results[1])
