"""Tests of sharing.engine, sharing.connection and sharing.status: one node with an engine in memory."""

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver, StringTransport
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.sharing.address import parse_engine_url
from govi_server.sharing.connection import MAX_REPLY_BYTES, MAX_UNANSWERED_BYTES, EngineConnection
from govi_server.sharing.engine import REPLY_TIMEOUT, RETRY_SECONDS, EngineError, EngineUnavailable, Script
from tests.sharing.fake_engine import FakeEngine

UNAVAILABLE = "Engine engine.example:6379: unavailable, continuing without shared boards "
CONNECTED = "Engine engine.example:6379 (redis 7.0.15): connected, boards are shared"


class ConnectionTests(SynchronousTestCase):
    """A connection, with replies as bytes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.messages: list[tuple[bytes, bytes]] = []
        self.connection = EngineConnection(
            self.clock, CooperativeRunner(self.clock), lambda *message: self.messages.append(message)
        )
        self.transport = StringTransport()
        self.transport.abortConnection = self.lose  # type: ignore[method-assign]
        self.connection.makeConnection(self.transport)

    def lose(self) -> None:
        self.connection.connectionLost(Failure(ConnectionLost()))

    def lost(self) -> str:
        """Return why the connection was lost."""
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return self.successResultOf(self.connection.lost)

    def test_replies_in_order(self) -> None:
        """Replies belong to the commands in order, whole or byte by byte; messages may come between them."""
        for size in (1, 1000):
            first, second = self.connection.command("GET", b"a"), self.connection.command("GET", 1)
            self.assertEqual(self.transport.value(), b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*2\r\n$3\r\nGET\r\n$1\r\n1\r\n")
            self.transport.clear()
            data = b"$3\r\none\r\n>3\r\n+message\r\n+c\r\n+text\r\n>2\r\n+invalidate\r\n_\r\n-WRONGTYPE no\r\n"
            for i in range(0, len(data), size):
                self.connection.dataReceived(data[i : i + size])
            self.assertEqual(self.successResultOf(first), b"one")
            self.assertEqual(str(self.failureResultOf(second, EngineError).value), "WRONGTYPE no")
            self.assertEqual(self.messages.pop(), (b"c", b"text"))
        self.lose()
        self.assertEqual(self.lost(), "connection lost")

    def test_no_reply_in_time(self) -> None:
        """A connection without a reply in time is aborted; all its commands, and later ones, fail."""
        first = self.connection.command("PING")
        self.clock.advance(REPLY_TIMEOUT / 2)
        self.connection.dataReceived(b"+PONG\r\n")
        second = self.connection.command("PING")
        self.clock.advance(REPLY_TIMEOUT * 0.75)
        self.assertNoResult(second)
        self.clock.advance(REPLY_TIMEOUT / 2)
        self.assertEqual(self.lost(), "no reply within 0.4 s")
        self.assertEqual(self.successResultOf(first), b"PONG")
        self.failureResultOf(second, EngineUnavailable)
        self.failureResultOf(self.connection.command("PING"), EngineUnavailable)

    def test_invalid_replies(self) -> None:
        """What is not RESP3, too long, or a reply to nothing, ends the connection."""
        for data, reason in [
            (b"HTTP/1.1 400 Bad Request\r\n", 'invalid reply: Protocol error, got "H" as reply type byte'),
            (b"*99999999\r\n", "reply too long"),
            (b"*1\r\n*1\r\n%12345\r\n", "reply too long"),
            (b"$5000000\r\n" + b"x" * (MAX_REPLY_BYTES // 4) * 6, "reply too long"),
            (b"%1\r\n*0\r\n+x\r\n", "invalid reply: unhashable type: 'list'"),
            (b"+OK\r\n+OK\r\n", "reply without a command"),
        ]:
            self.setUp()
            command = self.connection.command("PING")
            for start in range(0, len(data), 1 << 16):
                self.connection.dataReceived(data[start : start + (1 << 16)])
            self.assertEqual(self.lost(), reason)
            if b"OK" not in data:
                self.failureResultOf(command, EngineUnavailable)

    def test_invalid_messages(self) -> None:
        """A message whose channel or content is no text is ignored."""
        command = self.connection.command("PING")
        self.connection.dataReceived(b">3\r\n+message\r\n*0\r\n+x\r\n>3\r\n+message\r\n+c\r\n:1\r\n>0\r\n+PONG\r\n")
        self.assertEqual((self.successResultOf(command), self.messages), (b"PONG", []))

    def test_commands_that_wait_are_bounded(self) -> None:
        """Commands beyond MAX_UNANSWERED_BYTES fail at once."""
        first = self.connection.command("SET", b"x" * (MAX_UNANSWERED_BYTES - 100))
        self.failureResultOf(self.connection.command("SET", b"x" * 200), EngineUnavailable)
        self.connection.dataReceived(b"+OK\r\n")
        self.successResultOf(first)
        second = self.connection.command("SET", b"x" * 200)
        self.lose()
        self.lost()
        self.failureResultOf(second, EngineUnavailable)

    def test_cancelled_command(self) -> None:
        """The reply to a cancelled command is ignored."""
        first, second = self.connection.command("PING"), self.connection.command("PING")
        first.addErrback(lambda _: None)
        first.cancel()
        self.connection.dataReceived(b"+1\r\n+2\r\n")
        self.assertEqual(self.successResultOf(second), b"2")
        self.lose()
        self.lost()


class EngineTests(SynchronousTestCase):
    """The states of the engine, and its log lines."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = FakeEngine(self.clock)
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)

    def start(self, url: str = "redis://engine.example") -> None:
        self.engine = self.server.node(parse_engine_url(url))
        self.engine.listen("channel", lambda message: None)
        self.engine.startService()
        self.pass_time(0.5)

    def tearDown(self) -> None:
        stopped = Deferred.fromCoroutine(self.engine.stopService())
        self.pass_time(0.5)
        self.successResultOf(stopped)
        self.assertEqual((self.clock.getDelayedCalls(), self.server.connections), ([], []))

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.05] * round(seconds / 0.05))

    def lines(self) -> list[str]:
        """Return the log lines since the last call."""
        lines = [formatEvent(event) for event in self.events]
        self.events._events.clear()
        return lines

    def test_log_in(self) -> None:
        """The connection is prepared for a user, a database and channels, one command after another."""
        self.start("redis://node:p%40ss@engine.example/3")
        self.assertEqual(
            self.server.commands,
            [
                [b"HELLO", b"3", b"AUTH", b"node", b"p@ss", b"SETNAME", b"govi-cache"],
                [b"SELECT", b"3"],
                [b"SUBSCRIBE", b"channel"],
            ],
        )
        self.assertEqual(self.lines(), [CONNECTED])

    def test_unsuitable_engines(self) -> None:
        """Old engines and replicas are not used; they are tried again, with one log line."""
        for hello, reason in [
            ({"server": "redis", "version": "6.2.14", "role": "master"}, "redis 6.2.14 is not supported"),
            ({"server": "redis", "version": "7.0.1", "role": "replica"}, "the engine is a replica"),
            ({"server": "x\x1b", "version": "?", "role": "master"}, "x\\x1b ? is not supported"),
            ([1], "invalid reply to HELLO"),
        ]:
            self.server.model.hello = hello  # type: ignore[assignment]
            self.start()
            self.pass_time(3)
            (line,) = self.lines()
            self.assertTrue(line.startswith(f"{UNAVAILABLE}(engine.example:6379: {reason}"), line)
            self.server.model.hello = {"server": "valkey", "version": "8.0.1", "role": "master"}
            self.pass_time(RETRY_SECONDS + 0.5)
            (line,) = self.lines()
            self.assertIn("(valkey 8.0.1): available again after ", line)
            self.tearDown()

    def test_scripts_are_executed_in_order(self) -> None:
        """The first use of a script on a connection sends all of it, so that no script is sent again out of order."""
        first, second = Script("return 1"), Script("return 2")
        for _ in range(2):
            self.server.commands.clear()
            self.start()
            for script in (second, first, second):
                self.engine.run(script, ()).addErrback(lambda _: None)
            self.pass_time(0.2)
            scripts = [command[:2] for command in self.server.commands if command[0].startswith(b"EVAL")]
            self.assertEqual(
                scripts,
                [[b"EVAL", b"return 2"], [b"EVAL", b"return 1"], [b"EVALSHA", second.digest.encode()]],
            )
            self.tearDown()

    def test_scripts_are_sent_again_when_the_engine_has_dropped_them(self) -> None:
        """A script that the engine no longer has is sent again; if that fails as well, the error is the result."""
        self.start()
        self.engine.run(Script("return 1"), ("key",), 2).addErrback(lambda _: None)
        self.pass_time(0.2)
        self.server.commands.clear()
        self.server.model.scripts.clear()
        self.server.model.error = "OOM full"
        result = self.engine.run(Script("return 1"), ("key",), 2)
        self.pass_time(0.2)
        self.assertEqual(str(self.failureResultOf(result, EngineError).value), "OOM full")
        names = [command[0] for command in self.server.commands if command[0].startswith(b"EVAL")]
        self.assertEqual(names, [b"EVALSHA", b"EVAL"])
        self.assertEqual(self.lines()[1:], [f"{UNAVAILABLE}(OOM full)"])

    def test_read_only_engine_is_left(self) -> None:
        """An engine that is no longer the master is disconnected."""
        self.start()
        self.server.model.error = "READONLY You can't write against a read only replica."
        self.engine.run(Script("return 1"), ()).addErrback(lambda _: None)
        self.server.model.hello["role"] = "replica"
        self.pass_time(0.5)
        self.assertEqual(self.server.connections, [])
        self.assertIn("READONLY", self.lines()[1])

    def test_engine_that_hangs_without_requests(self) -> None:
        """An engine that does not reply is noticed without requests; one that never replies to HELLO is left."""
        self.start()
        self.server.is_silent = True
        self.pass_time(2)
        self.assertFalse(self.engine.status.is_sharing)
        self.failureResultOf(self.engine.run(Script("return 1"), ()), EngineUnavailable)
        self.pass_time(10)
        self.server.is_silent = False
        self.pass_time(5)
        self.assertTrue(self.engine.status.is_sharing)
        lines = self.lines()
        self.assertEqual(lines[:2], [CONNECTED, f"{UNAVAILABLE}(engine.example:6379: no reply within 0.4 s)"])
        self.assertEqual(len(lines), 3)

    def test_refused_connections(self) -> None:
        """An engine that does not run is one log line, as is its start."""
        self.server.refuses = True
        self.start()
        self.pass_time(100)
        self.assertEqual(self.lines(), [f"{UNAVAILABLE}(engine.example:6379: connection refused)"])
        self.server.refuses = False
        self.pass_time(RETRY_SECONDS + 0.5)
        self.assertEqual(len(self.lines()), 1)


class AddressTests(SynchronousTestCase):
    """URLs of engines."""

    def test_valid(self) -> None:
        """A URL names one or more hosts or a socket, the user, the password and the database."""
        for text, hosts, path, is_tls, user, password, database in [
            ("redis://host", (("host", 6379),), "", False, "default", "", 0),
            ("rediss://:a%3Ab@[::1]:1,host:2/7", (("::1", 1), ("host", 2)), "", True, "default", "a:b", 7),
            ("valkeys://user:p@host/", (("host", 6379),), "", True, "user", "p", 0),
            ("unix:///run/redis.sock?db=2", (), "/run/redis.sock", False, "default", "", 2),
            ("unix://u:p@/run/a%20b", (), "/run/a b", False, "u", "p", 0),
        ]:
            url = parse_engine_url(text)
            self.assertEqual((url.hosts, url.path, url.is_tls), (hosts, path, is_tls))
            self.assertEqual((url.user, url.password, url.database), (user, password, database))
            self.assertNotIn("a:b", repr(url))

    def test_invalid(self) -> None:
        """The error of an invalid URL states the form, without the password."""
        for text in (
            "redis://", "redis://host:0", "redis://host:x", "redis://:secret@host/x", "redis://host,", "http://host",
            "unix://run/redis.sock", "unix:///a?x=1", "redis://host?db=1", "redis://host/-1", "redis://[::1",
        ):  # fmt: skip
            error = self.assertRaises(ValueError, parse_engine_url, text)
            self.assertIn("expected one such as redis://", str(error))
            self.assertNotIn("secret", str(error))
