"""Whatever a connection held is freed when it ends, without the garbage collector."""

from collections import Counter
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from govi_server.request_handler import MAX_REQUESTS_IN_TURN
from tests.garbage import clean_failure, created_objects, original_init, without_collector
from tests.http.test_state import (
    CACHED,
    CONNECT,
    CROWD,
    DELETE,
    LAST,
    MANY,
    POST,
    READ,
    RESPOND,
    RESPOND_THEN_WAIT,
    SCENARIOS,
    STALL,
    STEPS,
    STREAM,
    WAIT,
    Step,
    World,
    request,
)  # fmt: skip

CACHED_OBJECTS = Counter(
    Client=2, MemoEntry=1, SerializedResponse=1, Board=2, Trip=2, Entry=2, CachedResponse=9, Representation=9
)
"""Objects that a server caches, whatever its connections do; there may be fewer."""

MISS = request("/kv55/57330431")
HELD = b"POST /scripted HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 900
CHUNKED = b"POST /scripted HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
TOO_LARGE = b"POST /scripted HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"

LEAVES = ("leave", 0)
WAYS: Mapping[str, list[Step]] = {
    "nothing sent": [CONNECT, LEAVES],
    "hit": [CONNECT, ("send", 0, CACHED), ("send", 0, CACHED), LEAVES],
    "hit, then keep-alive expires": [CONNECT, ("send", 0, CACHED), ("advance", 13), ("advance", 2)],
    "miss": [CONNECT, ("send", 0, MISS), ("board",), LEAVES],
    "miss that fails": [CONNECT, ("send", 0, MISS), ("no_board",), LEAVES],
    "miss that fails at once": [CONNECT, ("break_source",), ("send", 0, MISS), LEAVES],
    "exception of a Deferred": [CONNECT, ("send", 0, request("/scripted/await-failed")), LEAVES],
    "invalid parameter in a Deferred": [CONNECT, ("send", 0, request("/scripted/await-invalid")), LEAVES],
    "left while the gateway works": [CONNECT, ("send", 0, MISS), LEAVES],
    "left while the gateway works, which responds later": [CONNECT, ("send", 0, MISS), LEAVES, ("board",)],
    "left while the gateway works, also for others": [
        CONNECT, CONNECT, ("send", 0, MISS), ("send", 1, MISS), LEAVES, ("board",), LEAVES
    ],
    "timed out while the gateway works": [CONNECT, ("send", 0, MISS), ("advance", 13), ("advance", 2)],
    "not found": [CONNECT, ("send", 0, request("/nothing")), LEAVES],
    "not allowed, with a body": [CONNECT, ("send", 0, DELETE + b"abc"), LEAVES],
    "not allowed, with half a body": [CONNECT, ("send", 0, DELETE + b"a"), LEAVES],
    "unknown method": [CONNECT, ("send", 0, DELETE.replace(b"DELETE", b"BREW")), LEAVES],
    "body": [CONNECT, ("send", 0, POST + b"abc"), LEAVES],
    "half a body": [CONNECT, ("send", 0, HELD), LEAVES],
    "half a body, timed out": [CONNECT, ("send", 0, HELD), ("advance", 13), ("advance", 2)],
    "half a chunked body": [CONNECT, ("send", 0, CHUNKED + b"3\r\nabc\r\n9\r\nabc"), LEAVES],
    "malformed chunked body": [CONNECT, ("send", 0, CHUNKED + b"zz\r\n"), LEAVES],
    "too large a body": [CONNECT, ("send", 0, TOO_LARGE), ("send", 0, b"x" * 9999), LEAVES],
    "half a header section": [CONNECT, ("send", 0, CACHED[:-9]), LEAVES],
    "half a header section, timed out": [CONNECT, ("send", 0, CACHED[:-9]), ("advance", 13), ("advance", 2)],
    "too large a header section": [CONNECT, ("send", 0, request("/x", "A: " + "x" * 99999)), LEAVES],
    "not HTTP": [CONNECT, ("send", 0, b"\x16\x03\x01"), LEAVES],
    "exception": [CONNECT, ("send", 0, request("/scripted/fail")), LEAVES],
    "exception after the response": [CONNECT, ("send", 0, request("/scripted/respond/fail")), LEAVES],
    "exception when resumed": [CONNECT, ("send", 0, request("/scripted/wait/fail")), ("resume",), LEAVES],
    "invalid parameter": [CONNECT, ("send", 0, request("/scripted/invalid")), LEAVES],
    "no response": [CONNECT, ("send", 0, request("/scripted/wait")), ("resume",), LEAVES],
    "left while the module works": [CONNECT, ("send", 0, WAIT), LEAVES],
    "left after the response": [CONNECT, ("send", 0, RESPOND_THEN_WAIT), LEAVES],
    "aborted after the response": [CONNECT, ("send", 0, RESPOND_THEN_WAIT), ("advance", 13)],
    "half-closed": [CONNECT, ("send", 0, WAIT + RESPOND), ("half_close", 0), ("resume",), ("advance", 2)],
    "Connection: close": [CONNECT, ("send", 0, LAST), ("advance", 2)],
    "pipelined": [CONNECT, ("send", 0, MANY), LEAVES],
    "pipelined, in turns": [CONNECT, ("send", 0, RESPOND * 3 * MAX_REQUESTS_IN_TURN), ("advance", 0), LEAVES],
    "pipelined behind a wait": [CONNECT, ("send", 0, WAIT + b"x" * 99999), LEAVES],
    "does not read": [CONNECT, STALL, ("send", 0, RESPOND), ("advance", 13)],
    "does not read, and leaves": [CONNECT, STALL, ("send", 0, CACHED), LEAVES],
    "reads again": [CONNECT, STALL, ("send", 0, CACHED), READ, LEAVES],
    "stream": [CONNECT, ("send", 0, STREAM), ("publish",), LEAVES],
    "stream, not read": [CONNECT, ("send", 0, STREAM), STALL, ("publish",), LEAVES],
    "stream with bytes behind it": [CONNECT, ("send", 0, STREAM), ("send", 0, b"x" * 9999), LEAVES],
    "stream, drained": [CONNECT, ("send", 0, STREAM), ("drain",), LEAVES],
    "drained": [*CROWD, ("send", 0, WAIT), ("send", 1, CACHED), ("drain",), ("advance", 13), ("advance", 2)],
    "dropped": [*CROWD, ("send", 0, CACHED[:-9]), CONNECT, CONNECT, ("advance", 2)],
    "rejected": [*CROWD, ("send", 0, WAIT), ("send", 1, WAIT), ("send", 2, WAIT), CONNECT],
    **SCENARIOS,
}  # fmt: skip
"""Every way in which a connection ends. At its end, those that are open leave."""


class ReleaseTests(SynchronousTestCase):
    """Objects that are left when all connections of a server have ended."""

    def setUp(self) -> None:
        self.patch(Failure, "__init__", original_init)
        self.patch(Failure, "cleanFailure", clean_failure)

    def left_after(self, steps: list[Step]) -> Counter[str]:
        """Return the objects that are left after steps, although the server forgot its connections."""
        world = World()
        with without_collector(), world.recorded():
            for step in steps:
                world.run(step)
            while world.handlers:
                world.leave(0)
            world.scripted.waiting.clear()
            world.scripted.streams.clear()
            world.forget_source()
            world.advance(0)
            self.flushLoggedErrors(ZeroDivisionError)
            left = created_objects() - CACHED_OBJECTS
        del left["LogEntry"]  # the text of a log line, if other tests left a RecentHistory
        return left

    def test_nothing_is_left(self) -> None:
        """After every way in which a connection may end, nothing of it is left."""
        left = {way: after for way, steps in WAYS.items() if (after := self.left_after(steps))}
        self.assertEqual(left, {})

    @settings(max_examples=100, deadline=None)
    @given(st.lists(STEPS, max_size=20))
    def test_nothing_is_left_after_any_events(self, steps: list[Step]) -> None:
        """After any events, nothing of a closed connection is left."""
        self.assertEqual(self.left_after([CONNECT, *steps]), {})
