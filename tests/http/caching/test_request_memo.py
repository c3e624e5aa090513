"""The short way of a request that comes again does what the long way does."""

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
from govi_server.http.caching import request_memo
from govi_server.http.caching.representation import make_representation
from govi_server.http.caching.request_memo import LONGEST, MemoEntry, RequestMemo
from govi_server.http.client_limits import ClientLimits
from govi_server.http.state import State
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
from tests.doubles import FakeSource, FakeSubscriber, live_feed, take

CODES = ("57330430", "031102")
STOP = "30000001"
HEADERS = {"Access-Control-Allow-Origin": "*"}


class Forgetful(RequestMemo):
    """Learns nothing: every request goes the long way."""

    def store(self, block: bytes, repeat: MemoEntry) -> None: ...


class Ticking(Clock):
    """A clock that goes on while it is read."""

    tick = 0.0

    def seconds(self) -> float:
        self.rightNow += self.tick
        return super().seconds()


class World:
    """A server with clients, and all that is seen of it from outside."""

    def __init__(self, repeats: RequestMemo, limits: AccessSettings) -> None:
        self.clock = Ticking()
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
        self.server.request_memo = repeats
        self.clients: list[Client] = []
        self.full = False
        self.boards = 0
        for code in CODES:
            self.tell(code)
        self.clock.advance(0.125)  # a board's ttl is a whole second less as soon as it ages

    def connect(self, host: str) -> None:
        client = Client(self.server, IPv4Address("TCP", host, 1))
        write = client.transport.write

        def choke(data: bytes) -> None:
            write(data)
            if self.full:
                client.handler.pauseProducing()

        client.transport.write = choke  # type: ignore[method-assign]
        self.clients.append(client)

    def tell(self, code: str) -> None:
        self.boards += 1
        self.cache.put(Board(code, (Trip(journey_number=str(self.boards)),), self.clock.seconds()))

    def purge(self, code: str) -> None:
        self.cache.purge(code)

    def land(self, _: str) -> None:
        """Answer what was asked, or fail to."""
        for asked, answer in zip(self.source.asked, self.source.answers, strict=True):
            if answer.called:
                continue
            if asked == CODES[0]:
                answer.callback(Board(asked, (), self.clock.seconds()))
            else:
                answer.errback(SourceSilent("no answer"))

    def send(self, which: int, data: bytes) -> None:
        client = self.clients[which % len(self.clients)]
        if not client.closed:
            client.send(data)

    def choke(self, full: bool) -> None:
        self.full = full
        if not full:
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

    def seen(self) -> list[object]:
        """Give what clients got, who was asked, whose deadlines are when, and whom the limits count."""
        server = self.server
        number = {client.handler.connection: i for i, client in enumerate(self.clients)}
        return [
            [(client.transport.value(), client.closed, client.transport.producerState) for client in self.clients],
            self.source.asked,
            [
                [(number[c], c.state, c.end) for c in timeout]
                for timeout in (*server.timeouts.values(), server.reports)
            ],
            list(self.server.access._busy_until.items()),
            set(self.cache._entries),  # who was used last is known to the second
            sorted((call.getTime(), cast(Any, call).func.__qualname__) for call in self.clock.getDelayedCalls()),
        ]


@contextmanager
def statistics() -> Iterator[Callable[[], list[Any]]]:
    """Collect what is said of connections."""
    events = EventLoggingObserver()
    globalLogPublisher.addObserver(events)
    try:
        yield lambda: [msgspec.to_builtins(event["statistics"]) for event in events if "statistics" in event]
    finally:
        globalLogPublisher.removeObserver(events)


def block(path: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"{method} {path} HTTP/{version}\r\nHost: x\r\n{lines}\r\n".encode("latin-1")


def etag_of(board: int) -> str:
    """Give the entity tag of one of the boards of a world."""
    world = World(Forgetful(), AccessSettings())
    while world.boards < board:
        world.tell(CODES[0])
    world.connect("192.0.2.1")
    world.send(0, block(f"/kv55/{CODES[0]}"))
    return world.clients[0].answer().headers["ETag"]


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
CLOSING = block(f"/kv55/{CODES[0]}", "Connection: close")
HOME = "127.0.0.1"
PATHS = (*(f"/kv55/{code}" for code in CODES), f"/kv55/{CODES[0]}?x=1", "/kv55/x", "/nothing", "*")
BLOCKS = st.builds(
    lambda path, fields, method, version: block(path, *fields, method=method, version=version),
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
    st.tuples(st.just("tell"), st.sampled_from(CODES)),
    st.tuples(st.just("purge"), st.sampled_from(CODES)),
    st.tuples(st.just("land"), st.just("")),
    st.tuples(st.just("connect"), st.sampled_from(["127.0.0.1", "192.0.2.1"])),
    st.tuples(st.just("choke"), st.booleans()),
    st.tuples(st.just("pause"), st.integers(0, 2)),
    st.tuples(st.just("half_close"), st.integers(0, 2)),
    st.tuples(st.just("drain"), st.none()),
)
LIMITS = (AccessSettings(rate=1, burst=4), AccessSettings(rate=1, burst=4, proxies=("192.0.2.0/24",)))


class SameTests(SynchronousTestCase):
    """Two servers, one of which forgets, are told the same and say the same."""

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(LIMITS), st.lists(BLOCKS, min_size=4, max_size=4), st.lists(STEPS, max_size=30))
    @example(
        LIMITS[0],
        [block(PATHS[0]), block(PATHS[0], FIELDS[4]), block(PATHS[0], method="HEAD"), CLOSING],
        [
            *(("send", 0, [0]), ("send", 0, [0]), ("send", 0, [1]), ("tell", CODES[0]), ("send", 0, [1])),
            *(("choke", True), ("send", 0, [0]), ("send", 0, [2]), ("choke", False), ("send", 0, [3])),
            *(("send", 1, [0, 2]), ("send", 1, [0, 2]), ("send", 1, [3])),
        ],
    )
    @example(  # the last request of a connection, of HTTP/1.1 and of HTTP/1.0
        LIMITS[0],
        [CLOSING, block(PATHS[0], version="1.0"), block(PATHS[0], FIELDS[3], version="1.0"), block(PATHS[0])],
        [step for which in (0, 1, 2, 2, 3) for _ in range(2) for step in (("connect", HOME), ("send", -1, [which]))],
    )
    @example(  # a connection that brings requests of others and its own
        LIMITS[1],
        [block(PATHS[0]), block(PATHS[0], FIELDS[10]), block(PATHS[0]), block(PATHS[0])],
        [("send", 0, [0]), ("send", 1, [1]), ("send", 1, [0]), ("send", 1, [1]), ("send", 1, [0])],
    )
    @example(  # a client that does not take its answers
        LIMITS[0],
        [block(PATHS[0])] * 4,
        [
            *(("send", 0, [0]), ("choke", True), ("send", 0, [0]), ("send", 0, [0]), ("advance", 12.9)),
            *(("send", 0, [0]), ("choke", False), ("send", 0, [0]), ("choke", True), ("send", 0, [0])),
            ("advance", 300.0),
        ],
    )
    @example(  # who does not take the first answer has the time that is left of his first deadline
        LIMITS[0],
        [block(PATHS[0])] * 4,
        [("send", 0, [0]), ("advance", 1.0), ("choke", True), ("send", 0, [0]), ("send", 1, [0]), ("advance", 12.9)],
    )
    @example(  # the server drains while a client has not taken its answer
        LIMITS[0],
        [block(PATHS[0])] * 4,
        [("send", 0, [0]), ("choke", True), ("send", 0, [0]), ("drain", None), ("choke", False)],
    )
    @example(  # the transport asks for a pause between two requests
        LIMITS[0],
        [block(PATHS[0])] * 4,
        [("send", 0, [0]), ("pause", 0), ("send", 0, [0]), ("choke", False), ("send", 0, [0])],
    )
    @example(  # a request that comes while the server drains
        LIMITS[0],
        [block(PATHS[0])] * 4,
        [("send", 0, [0]), ("drain", None), ("connect", HOME), ("send", -1, [0])],
    )
    def test_any_steps(self, limits: AccessSettings, blocks: list[bytes], steps: list[tuple[Any, ...]]) -> None:
        """Whatever comes in whatever order, bytes, statistics, deadlines, limits and questions are the same."""
        worlds, said = (World(RequestMemo(), limits), World(Forgetful(), limits)), []
        for world in worlds:
            with statistics() as events:
                for host in ("127.0.0.1", "192.0.2.1"):
                    world.connect(host)
                for kind, *what in steps:
                    if kind == "advance":
                        world.clock.pump([what[0]])
                    elif kind == "send" and isinstance(what[1], list):
                        world.send(what[0], b"".join(blocks[which] for which in what[1]))
                    else:
                        getattr(world, kind)(*what)
                seen = world.seen()
                for client in world.clients:
                    client.leave()
                said.append((seen, events()))
            self.flushLoggedErrors()
        self.assertEqual(said[0], said[1])


class ShortWayTests(SynchronousTestCase):
    """What goes the short way, and what does not."""

    def setUp(self) -> None:
        self.world = World(RequestMemo(), AccessSettings(rate=1, burst=3, proxies=("203.0.113.1/32",)))

    def parsed(self, *blocks: bytes, host: str = "127.0.0.1") -> int:
        """Send header blocks, each on a connection of its own; tell how many were parsed."""
        with mock.patch.object(environ, "parse", wraps=environ.parse) as parse:
            for one in blocks:
                self.world.connect(host)
                self.world.send(-1, one)
        return parse.call_count

    def test_once(self) -> None:
        """A header block is parsed once, however many send it on however many connections."""
        self.assertEqual(self.parsed(*[block(PATHS[0])] * 9, *[block(PATHS[1], "Connection: close")] * 9), 2)
        self.assertEqual([len(client.answers()) for client in self.world.clients], [1] * 18)

    def test_one_write(self) -> None:
        """An answer is one write, and its head is written once a second."""
        self.parsed(block(PATHS[0]))
        client = self.world.clients[0]
        with (
            mock.patch.object(client.transport, "write") as write,
            mock.patch("govi_server.http.caching.cached_response.format_head") as head,
        ):
            head.return_value = b"head"
            for _ in range(5):
                client.get(f"/kv55/{CODES[0]}")
            self.world.clock.advance(1)
            client.get(f"/kv55/{CODES[0]}")
        self.assertEqual((write.call_count, head.call_count), (6, 1))

    def test_looked_up_once(self) -> None:
        """In a second a board is looked up once for each header block; what is said is not kept longer."""
        self.parsed(block(PATHS[0]))
        client = self.world.clients[0]
        with mock.patch.object(self.world.cache, "fresh", wraps=self.world.cache.fresh) as fresh:
            for _ in range(5):
                client.get(f"/kv55/{CODES[0]}")
            self.assertEqual((fresh.call_count, len(self.world.server.request_memo.said)), (1, 1))
            self.world.clock.advance(1)
            self.parsed(block(PATHS[1]), block(PATHS[1]))
        self.assertEqual(list(self.world.server.request_memo.said), [block(PATHS[1])])

    def test_ages(self) -> None:
        """The Age of a board goes on as it gets older, and Date as the clock does, also within a second."""
        self.world.clock.advance(0.375)
        self.world.tell(CODES[0])
        ages = []
        for seconds in (0.0, 0.25, 0.25, 0.25, 0.25, 0.25):
            self.world.clock.advance(seconds)
            self.parsed(*[block(PATHS[0])] * 2)
            headers = [client.answer().headers for client in self.world.clients[-2:]]
            self.assertEqual(headers[0].items(), headers[1].items())
            ages.append((headers[0]["Age"], headers[0]["Date"][-6:-4], headers[0]["Cache-Status"][-2:]))
        steps = [("0", "00", "60"), ("0", "00", "59"), ("0", "01", "59"), ("0", "01", "59"), ("1", "01", "59")]
        self.assertEqual(ages, [*steps, ("1", "01", "58")])

    def test_ages_otherwise(self) -> None:
        """Nor does what is left of its being fresh go wrong, where that is no whole seconds."""
        said = []
        for known in (RequestMemo(), Forgetful()):
            self.world = World(known, AccessSettings())
            self.world.cache.limits = CacheSettings(fresh=60.25)
            self.world.tell(CODES[0])
            for _ in range(20):
                self.world.clock.advance(0.125)
                self.parsed(*[block(PATHS[0])] * 3)
            said.append([client.answer().headers.items() for client in self.world.clients])
        self.assertEqual(*said)

    def second_of(self, at: float, *, asked_until: float) -> list[tuple[str, str]]:
        """Ask again and again from a moment on while time passes; list the Date and ttl of each answer."""
        self.parsed(*[block(PATHS[0])] * 2)
        clock = self.world.clock
        clock.advance(at - clock.seconds())
        clock.tick = 1e-4
        answers = []
        while clock.seconds() < asked_until:
            self.parsed(block(PATHS[0]))
            headers = self.world.clients[-1].answer().headers
            answers.append((headers["Date"][-6:-4], headers["Cache-Status"]))
        return answers

    def test_a_second_begins(self) -> None:
        """An answer that is made while a second begins has the Date of one of the two, and not for long."""
        for early in range(1, 12):
            with self.subTest(early):
                self.setUp()
                answers = self.second_of(NOW + 2 - early * 1e-4, asked_until=NOW + 2.02)
                self.assertEqual([date for date, _ in answers][2:], ["02"] * (len(answers) - 2))

    def test_a_board_grows_stale(self) -> None:
        """A board that gets too old while it is looked up is not told as fresh, or as stale without a question."""
        for early in range(1, 12):
            with self.subTest(early):
                self.setUp()
                self.second_of(NOW + 60 - early * 1e-4, asked_until=NOW + 60.02)
                self.assertEqual(self.world.source.asked, [CODES[0]])

    def test_new_board(self) -> None:
        """A board that comes is told at once, though the last one was told in the same second."""
        self.parsed(*[block(PATHS[0])] * 3)
        self.world.tell(CODES[0])
        self.parsed(*[block(PATHS[0])] * 3)
        tags = [client.answer().headers["ETag"] for client in self.world.clients]
        self.assertEqual(tags, [tags[0]] * 3 + [tags[-1]] * 3)
        self.assertNotEqual(tags[0], tags[-1])

    def test_said_is_bounded(self) -> None:
        """However many header blocks come in a second, so many of their answers are kept."""
        with mock.patch.object(request_memo, "MOST", 3):
            for n in range(9):
                self.parsed(*[block(PATHS[0], f"X: {n}")] * 2)
                self.assertLessEqual(len(self.world.server.request_memo.said), 3)

    def test_rendered_once(self) -> None:
        """A board is rendered once for each of its forms."""
        with mock.patch(
            "govi_server.modules.kv55_gateway.make_representation", wraps=make_representation
        ) as rendered:
            self.parsed(*[block(PATHS[0])] * 3, *[block(PATHS[0], FIELDS[0])] * 3)
        self.assertEqual(rendered.call_count, 2)

    def test_conditional(self) -> None:
        """Who asks whether a board has changed is told so the short way, until it has."""
        asked = block(PATHS[0], f"If-None-Match: {etag_of(1)}")
        self.assertEqual(self.parsed(asked, asked), 1)
        self.world.tell(CODES[0])
        self.assertEqual(self.parsed(asked), 0)
        self.assertEqual([client.answer().status for client in self.world.clients], [304, 304, 200])

    def test_not_kept(self) -> None:
        """What depends on more than its bytes, or is not answered from memory, is read each time."""
        for one in (
            block(PATHS[0], "If-Match: *"),
            block(PATHS[0], "If-Unmodified-Since: Thu, 01 Jan 2026 00:00:00 GMT"),
            block(PATHS[0], "X-Forwarded-For: 192.0.2.9"),
            block(PATHS[0], "Forwarded: for=192.0.2.9"),
            block(PATHS[0], "Content-Length: 3") + b"abc",
            block(PATHS[0], method="POST"),
            block(PATHS[0], f"X-Padding: {'x' * LONGEST}"),
            block("/kv55/x"),
            block("/nothing"),
            block(PATHS[0]) + block(PATHS[0]),
            block("/nothing") + block(PATHS[0]),
        ):
            with self.subTest(one[:80]):
                self.assertEqual(self.parsed(one, one), 2 * one.count(b" HTTP/1.1"))
                self.assertEqual(len(self.world.server.request_memo), 0)

    def test_in_pieces(self) -> None:
        """A header block that comes in pieces is read, though it is known."""
        self.parsed(block(PATHS[0]))
        whole = block(PATHS[0])
        client = self.world.clients[0]
        client.answer()
        client.send(whole[:20])
        client.send(whole[20:])
        client.send(whole)
        self.assertEqual([answer.status for answer in client.answers()], [200, 200])

    def test_too_often(self) -> None:
        """Who asks too often is refused, though the header block is known."""
        self.parsed(*[block(PATHS[0])] * 5, host="192.0.2.1")
        statuses = [client.answer().status for client in self.world.clients]
        self.assertEqual(statuses, [200, 200, 200, 429, 429])

    def test_many_at_once(self) -> None:
        """Who asks for many stops in one request has asked as often, the short way, too."""
        module = BoardPages(CacheDisplays(self.world.cache, self.world.clock), self.world.clock)
        module.setServiceParent(self.world.modules)
        self.assertEqual(self.parsed(*[block(f"/board/{','.join(CODES)}")] * 2, host="192.0.2.1"), 2)
        self.assertEqual([client.answer().status for client in self.world.clients], [200, 429])

    def test_no_hit(self) -> None:
        """When there is no hit any more, the long way asks the source."""
        self.parsed(block(PATHS[0]))
        self.world.purge(CODES[0])
        self.assertEqual(self.parsed(block(PATHS[0])), 1)
        self.assertEqual(self.world.source.asked, [CODES[0]])

    def test_fails(self) -> None:
        """A module that fails gets its 500 and its traceback from the long way."""
        self.parsed(block(PATHS[0]))
        with mock.patch.object(self.world.cache, "fresh", side_effect=ZeroDivisionError):
            self.parsed(block(PATHS[0]))
        self.assertEqual(self.world.clients[-1].answer().status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_bounded(self) -> None:
        """Of header blocks so many are kept; the one that was not seen longest goes first."""
        with mock.patch.object(request_memo, "MOST", 3):
            self.parsed(*(block(f"/kv55/{code}", f"X: {n}") for n in range(3) for code in CODES[:1]))
            self.parsed(block(PATHS[0], "X: 0"), block(PATHS[0], "X: 3"))
        self.assertEqual(len(self.world.server.request_memo), 3)
        self.assertEqual(self.parsed(block(PATHS[0], "X: 0"), block(PATHS[0], "X: 1")), 1)

    def test_client_is_let_go(self) -> None:
        """What is kept of a header block holds on to no connection."""
        self.parsed(block(PATHS[0], FIELDS[4]))
        (repeat,) = self.world.server.request_memo._known.values()
        self.assertNotIn(self.world.clients[0].handler, vars(repeat.condition).values())

    def test_fields_are_let_go(self) -> None:
        """Of a header block's fields those are kept that its answer depends on, however many lines they have."""
        fields = ('If-None-Match: "1"', "Accept: text/xml", 'If-None-Match: "2"')
        self.parsed(block(PATHS[0], *fields))
        (repeat,) = self.world.server.request_memo._known.values()
        self.assertEqual(dict(repeat.condition or {}), {"if-none-match": '"1","2"'})


PATHS_LIVE = (
    *(f"/live/{STOP}", f"/live/{STOP}/", f"/live/{STOP}?limit=1", "/live/1", f"/tpc/{STOP}", f"/tpc/{STOP}/"),
    *(f"/board/{STOP}", f"/board/{STOP},1?lang=en", f"/board/{STOP}?limit=0", f"{PATH}?MonitoringRef={STOP}", PATH),
    *(f"/tpc/{STOP}/departures", f"/tpc/{STOP}/x", f"/tpc/{STOP},1", f"/tpc/{STOP}?limit=1", "/tpc/", "/lastupdate"),
)


class LiveTests(SynchronousTestCase):
    """The module that answers from the live feed."""

    def test_same(self) -> None:
        """The short way and the long way say the same, while the feed goes on, ages, goes and comes back."""
        seen = []
        for repeats_ in (RequestMemo(), Forgetful()):
            world = World(repeats_, AccessSettings())
            feed = live_feed(world.clock)
            subscriber = FakeSubscriber("UP")
            feed.subscriber = cast(Subscriber, subscriber)
            boards = BoardPages(FeedDisplays(feed), world.clock)
            modules: list[Any] = [Kv55Feed("live", feed), *ovapi_modules(feed), boards, Siri(feed)]
            for module in modules:
                verifyObject(ICacheableModule, module)
                module.setServiceParent(world.modules)
            with statistics() as events, mock.patch.object(environ, "parse", wraps=environ.parse) as parse:
                for told in range(4):
                    if told != 2:  # the feed is silent for a time, and its word grows old
                        take(feed, kv.passtimes({"JourneyNumber": f"{told}", "ExpectedDepartureTime": "01:59:00"}))
                    for state in ("UP", "DOWN"):
                        subscriber.state = state
                        for path in PATHS_LIVE:
                            for fields in ((), ("Accept-Encoding: gzip",)):
                                world.connect("127.0.0.1")
                                world.send(-1, block(path, *fields))
                        world.clock.pump([200.0])
                for client in world.clients:
                    client.leave()
                seen.append((world.seen(), events(), parse.call_count))
        self.assertEqual(seen[0][:2], seen[1][:2])
        self.assertLess(seen[0][2], seen[1][2])
        statuses = {client.answers()[0].status for client in world.clients}
        self.assertEqual(statuses, {200, 400, 404, 503})
