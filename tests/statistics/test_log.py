"""Tests of govi_server.statistics.log, and of the clients' addresses in it."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from tempfile import TemporaryDirectory
from typing import cast
from unittest import mock

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import StartupError
from govi_server.http.addresses import ip_of, truncated
from govi_server.runtime.text import escape_json
from govi_server.statistics.log import (
    BATCH_BYTES,
    FLUSH_INTERVAL,
    MAX_UNWRITTEN_BYTES,
    StatisticsLog,
    format_line,
    statistics_publisher,
)
from govi_server.statistics.records import (
    CACHE_RESULTS,
    ENDS,
    PHASES,
    ConnectionStatistics,
    Exchange,
    RequestStatistics,
)
from tests.client import NOW, Client, WireTestCase

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ['"phases":{}', '\\"phases":{}', "{}", "]}", "/kv55/57330430", "\x9b\u202e"]
)
SECONDS = st.integers(0, 2000).map(lambda steps: steps * 2.0**-22) | st.floats(0, 1e9)
EXCHANGES = st.lists(
    st.builds(
        Exchange,
        method=st.none() | TEXTS,
        path=st.none() | TEXTS,
        status=st.none() | st.integers(100, 999),
        bytes=st.integers(0, 1 << 40),
        cache=st.sampled_from(CACHE_RESULTS),
        module=st.none() | TEXTS,
        stop=TEXTS,
    ),
    min_size=1,
    max_size=3,
)
CONNECTIONS = EXCHANGES.flatmap(
    lambda exchanges: st.builds(
        ConnectionStatistics,
        server=st.just("x"),
        client=TEXTS,
        began=st.floats(0, 1e10),
        ended=st.floats(0, 1e10),
        end=st.sampled_from(ENDS),
        requests=st.lists(
            st.builds(
                RequestStatistics,
                exchange=st.sampled_from(exchanges),
                **{phase: st.none() | SECONDS for phase in PHASES},
            )
        ),
    )
)


def milliseconds(seconds: float) -> float:
    """Convert seconds to milliseconds with three decimals."""
    return int(seconds * 1_000_000 + 0.5) / 1000


def as_document(request: RequestStatistics) -> dict[str, object]:
    """Return the document of a request in a line."""
    exchange = request.exchange
    document: dict[str, object] = {
        "method": exchange.method,
        "path": exchange.path,
        "status": exchange.status,
        "bytes": exchange.bytes,
        "cache": exchange.cache,
        "phases": {phase: milliseconds(seconds) for phase, seconds in request.phases.items()},
    }
    if exchange.module is not None:
        document["module"] = exchange.module
    if exchange.stop:
        document["stop"] = exchange.stop
    return document


class FormatTests(SynchronousTestCase):
    """Formatting a line of the log."""

    def test_connection_is_one_line_of_json(self) -> None:
        """A connection is one line of JSON, with times in milliseconds."""
        exchange = Exchange("GET", "/kv55/1\n\u2028é", 200, 4321, "joined", "kv55", "1")
        request = RequestStatistics(exchange, NOW)
        request.mark("receive", NOW + 0.001)
        request.mark("wait", NOW + 0.4)
        request.mark("receive", NOW + 0.5)
        connection = ConnectionStatistics("govi-cache", "192.0.2.0/24", NOW, NOW + 1.5, "client", [request])
        line = format_line({"statistics": connection}, "govi-cache")
        assert line is not None
        self.assertEqual((line.count("\n"), line[-1]), (1, "\n"))
        self.assertEqual(
            json.loads(line),
            {
                "time": "2026-01-01T00:00:01.500+00:00",
                "client": "192.0.2.0/24",
                "duration": 1500.0,
                "end": "client",
                "version": 2,
                "requests": [
                    {
                        "method": "GET",
                        "path": "/kv55/1\n\u2028é",
                        "module": "kv55",
                        "stop": "1",
                        "status": 200,
                        "bytes": 4321,
                        "cache": "joined",
                        "phases": {"receive": 101.0, "wait": 399.0},
                    }
                ],
            },
        )

    def test_control_characters_are_escaped(self) -> None:
        """No path or method, whatever it contains, has a character that a terminal obeys, or ends a line."""
        for text in ("".join(map(chr, range(256))), "\x1b[2J\x9b\x7f\x85", "\u202e\u2028\ufeff", "\xad"):
            request = RequestStatistics(Exchange(text, text, 200, 1, "hit"))
            connection = ConnectionStatistics("govi-cache", "local", NOW, NOW, "client", [request])
            line = format_line({"statistics": connection}, "govi-cache")
            assert line is not None
            self.assertTrue(line[:-1].replace("\N{NO-BREAK SPACE}", "").isprintable(), line)
            (logged,) = json.loads(line)["requests"]
            self.assertEqual((logged["method"], logged["path"]), (text, text))

    def test_unknown_module_and_stop_are_omitted(self) -> None:
        """Without a module or a stop the fields are omitted; the module of the front page is the empty string."""
        requests = [RequestStatistics(Exchange()), RequestStatistics(Exchange(module=""))]
        connection = ConnectionStatistics("govi-cache", "local", NOW, requests=requests)
        first, second = json.loads(format_line({"statistics": connection}, "govi-cache") or "")["requests"]
        self.assertEqual(first.keys(), {"method", "path", "status", "bytes", "cache", "phases"})
        self.assertEqual(second.keys() - first.keys(), {"module"})

    @settings(deadline=None)
    @given(CONNECTIONS)
    def test_line_equals_the_straightforward_encoding(self, connection: ConnectionStatistics) -> None:
        """A line has the bytes of its document encoded as a whole, whatever it contains and was formatted before."""
        document = {
            "time": datetime.fromtimestamp(connection.ended, UTC).isoformat(timespec="milliseconds"),
            "client": connection.client,
            "duration": milliseconds(max(connection.ended - connection.began, 0.0)),
            "end": connection.end,
            "version": 2,
            "requests": [as_document(request) for request in connection.requests],
        }
        expected = escape_json(msgspec.json.encode(document).decode()) + "\n"
        self.assertEqual(format_line({"statistics": connection}, "x"), expected)

    def test_other_events_have_no_line(self) -> None:
        """Other events and connections of other servers have no line."""
        self.assertIsNone(format_line({"log_format": "hello"}, "govi-cache"))
        other = ConnectionStatistics("callbacks", "local", NOW)
        self.assertIsNone(format_line({"statistics": other}, "govi-cache"))


class PublisherTests(SynchronousTestCase):
    """The publisher of connections' statistics."""

    def test_failing_observer_is_logged(self) -> None:
        """A failing observer is logged, and others get the event; the event itself is not logged."""
        publisher = statistics_publisher()
        observed: list[LogEvent] = []

        def fail(event: LogEvent) -> None:
            raise ZeroDivisionError

        for observer in (fail, observed.append):
            publisher.addObserver(cast(ILogObserver, observer))
        with capturedLogs() as logged:
            publisher({"statistics": ConnectionStatistics("govi-cache", "local", NOW)})
        self.assertEqual(len([event for event in observed if "statistics" in event]), 1)
        self.assertEqual(["statistics" in event for event in logged], [False])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class AddressTests(SynchronousTestCase):
    """The addresses of clients in the log."""

    def test_addresses_are_truncated(self) -> None:
        """An address is truncated to its network."""
        for addr, expected in [
            (IPv4Address("TCP", "192.0.2.77", 1), "192.0.2.0/24"),
            (IPv6Address("TCP", "2001:db8:1:2:3:4:5:6", 1), "2001:db8:1::/48"),
            (IPv6Address("TCP", "::ffff:192.0.2.77", 1), "192.0.2.0/24"),
            (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::/48"),
            (UNIXAddress("/run/x"), "local"),
        ]:
            self.assertEqual(truncated(ip_of(addr)), expected)

    def test_mapped_ipv4_address(self) -> None:
        """An IPv4 address mapped into IPv6 becomes the IPv4 address."""
        self.assertEqual(str(ip_of(IPv6Address("TCP", "::ffff:127.0.0.1", 1))), "127.0.0.1")
        self.assertIsNone(ip_of(UNIXAddress(None)))


class StatisticsLogTests(WireTestCase):
    """The service that writes the log."""

    def setUp(self) -> None:
        super().setUp()
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "statistics.log")

    def lines(self) -> list[dict[str, object]]:
        with open(self.path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def start(self, rotate_bytes: int = 10**6, path: str | None = None) -> StatisticsLog:
        log = StatisticsLog("govi-cache", path or self.path, rotate_bytes, 2, self.clock)
        log.startService()
        self.addCleanup(log.stopService)
        return log

    def log_connection(self) -> None:
        """Open a connection, send a request, and close it."""
        client: Client = self.client()
        client.get("/parrot/text/a")
        client.leave()

    @contextmanager
    def full_disk(self, free: int = 0) -> Iterator[None]:
        """Let the disk be full after a number of further bytes."""
        write, remaining = os.write, [free]

        def fill_disk(number: int, data: bytes) -> int:
            if not remaining[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = write(number, data[: remaining[0]])
            remaining[0] -= written
            return written

        with mock.patch("os.write", fill_disk):
            yield

    def test_log_is_written_while_running(self) -> None:
        """While the service runs, each connection is one line; other events are not written."""
        clock = Clock()
        log = StatisticsLog("govi-cache", self.path, 10**6, 3, clock)
        self.log_connection()
        log.startService()
        self.log_connection()
        Logger().info("something else")
        self.log_connection()
        log.stopService()
        self.log_connection()
        self.assertEqual(len(self.lines()), 2)
        log.startService()
        self.log_connection()
        log.stopService()
        self.assertEqual(len(self.lines()), 3)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_lines_are_written_together(self) -> None:
        """The lines of an interval are written at its end by one call."""
        self.start()
        with mock.patch("os.write", wraps=os.write) as write:
            for _ in range(10):
                self.log_connection()
            self.assertEqual(write.call_count, 0)
            self.clock.advance(FLUSH_INTERVAL)
            self.assertEqual(write.call_count, 1)
        self.assertEqual(len(self.lines()), 10)

    def test_full_batch_is_written(self) -> None:
        """Under load lines are written sooner, in batches of about the same size, so that the buffer is bounded."""
        self.start(rotate_bytes=10**9)
        sizes: list[int] = []
        for _ in range(1000):
            before = os.path.getsize(self.path)
            self.log_connection()
            if written := os.path.getsize(self.path) - before:
                sizes.append(written)
        self.assertGreater(len(sizes), 1)
        self.assertTrue(all(BATCH_BYTES <= size < BATCH_BYTES + 1000 for size in sizes), sizes)

    def test_reopening_writes(self) -> None:
        """Lines are written before the file is reopened."""
        log = self.start()
        self.log_connection()
        log.reopen()
        self.assertEqual(len(self.lines()), 1)

    def test_renamed_and_truncated_files_lose_no_line(self) -> None:
        """Lines that are buffered while another program renames or truncates the file are written to the new one."""
        self.start()
        self.log_connection()
        self.clock.advance(FLUSH_INTERVAL)
        self.log_connection()
        os.rename(self.path, f"{self.path}.1")
        self.log_connection()
        self.clock.advance(FLUSH_INTERVAL)
        self.assertEqual(len(self.lines()), 2)
        self.log_connection()
        os.truncate(self.path, 0)
        self.clock.advance(FLUSH_INTERVAL)
        self.assertEqual(len(self.lines()), 1)

    def test_full_file_is_rotated(self) -> None:
        """A full file is rotated, and only the configured number of old files remains."""
        self.start(rotate_bytes=256)
        for _ in range(10):
            self.log_connection()
            self.clock.advance(FLUSH_INTERVAL)
        folder = os.path.dirname(self.path)
        self.assertEqual(sorted(os.listdir(folder)), ["statistics.log", "statistics.log.1", "statistics.log.2"])

    def test_lines_wait_for_space_on_a_full_disk(self) -> None:
        """Lines that do not fit the disk are written when there is space; the failure is logged once.

        A line that was written in part is ended, and written again.
        """
        log = self.start()
        with capturedLogs() as events, self.full_disk(free=8):
            for _ in range(3):
                self.log_connection()
                self.clock.advance(FLUSH_INTERVAL)
            self.assertFalse(log.writable)
        warnings = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual(log.incidents.counts, {"unwritable": 3})
        self.assertEqual(len(warnings), 1)
        self.assertIn(f"Statistics log {self.path}: cannot be written ([Errno ", formatEvent(warnings[0]))
        self.clock.advance(FLUSH_INTERVAL)
        self.assertTrue(log.writable)
        with open(self.path, encoding="utf-8") as file:
            partial, *complete = file
        self.assertEqual((partial, len(complete)), ('{"time":\n', 3))
        for line in complete:
            json.loads(line)

    def test_lost_lines_are_counted(self) -> None:
        """On a full disk a bounded number of lines waits; further ones are lost and counted, and logged once."""
        log = self.start(rotate_bytes=10**9)
        with capturedLogs() as events, self.full_disk():
            for count in range(10_000):
                self.log_connection()
                if log.incidents.counts["lost"] == 100:
                    break
                if count % 100 == 0:
                    self.clock.advance(FLUSH_INTERVAL / 10)
        lost = [event for event in events if "lost" in event.get("log_format", "")]
        self.assertEqual(len(lost), 1)
        self.clock.advance(FLUSH_INTERVAL)
        self.log_connection()
        self.clock.advance(FLUSH_INTERVAL)
        self.assertEqual(len(self.lines()) + 100, count + 1 + 1)
        self.assertLess(os.path.getsize(self.path), MAX_UNWRITTEN_BYTES + 1000)
        self.assertTrue(log.writable)

    def test_full_device(self) -> None:
        """A device that is always full does not prevent the start; at the end lost lines are logged."""
        log = StatisticsLog("govi-cache", "/dev/full", 10**6, 2, self.clock)
        log.startService()
        self.log_connection()
        with capturedLogs() as events:
            log.stopService()
            self.assertEqual((log.writable, log.incidents.counts), (False, {"unwritable": 1}))
            log.startService()
            log.stopService()  # without the lines that were lost
        texts = [formatEvent(event) for event in events if event["log_level"] is LogLevel.error]
        self.assertEqual(texts, ["Statistics log /dev/full: 1 line lost at the end"])

    def test_unwritable_file_fails_startup(self) -> None:
        """The error of a file that cannot be opened names it."""
        log = StatisticsLog("govi-cache", "/nonexistent/statistics.log", 256, 2, Clock())
        with self.assertRaises(StartupError) as caught:
            log.startService()
        self.assertEqual(
            str(caught.exception),
            "statistics.file (--statistics): cannot write /nonexistent/statistics.log: No such file or directory",
        )
