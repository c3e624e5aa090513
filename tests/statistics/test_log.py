"""Tests of govi_server.statistics.log, and of the clients' addresses in it."""

import errno
import json
import os
from tempfile import TemporaryDirectory
from typing import cast
from unittest import mock

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import StartupError
from govi_server.http.addresses import ip_of, truncated
from govi_server.statistics.log import StatisticsLog, format_line, statistics_publisher
from govi_server.statistics.records import ConnectionStatistics, Exchange, RequestStatistics
from tests.client import NOW, Client, WireTestCase


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

    def log_connection(self) -> None:
        """Open a connection, send a request, and close it."""
        client: Client = self.client()
        client.get("/parrot/text/a")
        client.leave()

    def test_log_is_written_while_running(self) -> None:
        """While the service runs, each connection is one line; other events are not written."""
        log = StatisticsLog("govi-cache", self.path, 10**6, 3, Clock())
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

    def test_full_file_is_rotated(self) -> None:
        """A full file is rotated, and only the configured number of old files remains."""
        log = StatisticsLog("govi-cache", self.path, 256, 2, Clock())
        log.startService()
        for _ in range(10):
            self.log_connection()
        log.stopService()
        folder = os.path.dirname(self.path)
        self.assertEqual(sorted(os.listdir(folder)), ["statistics.log", "statistics.log.1", "statistics.log.2"])

    def test_line_is_lost_on_full_disk(self) -> None:
        """Lines that cannot be written are lost, counted, and logged once; later lines are complete."""
        log = StatisticsLog("govi-cache", self.path, 10**6, 2, self.clock)
        log.startService()
        write = os.write

        def fill_disk(number: int, data: bytes) -> int:
            """Write eight bytes, after which the disk is full."""
            if os.fstat(number).st_size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(number, data[:8])

        with capturedLogs() as events:
            with mock.patch("os.write", fill_disk):
                for _ in range(3):
                    self.log_connection()
            self.assertFalse(log.writable)
            warnings = [event for event in events if event["log_level"] is LogLevel.warn]
            self.assertEqual(log.incidents.counts, {"unwritable": 3})
            self.assertEqual(len(warnings), 1)
            self.assertIn(f"Statistics log {self.path}: cannot be written ([Errno ", formatEvent(warnings[0]))
            self.log_connection()
        self.assertTrue(log.writable)
        log.stopService()
        with open(self.path, encoding="utf-8") as file:
            partial, complete = file
        self.assertEqual((partial, complete[0], complete[-2:]), ('{"time":\n', "{", "}\n"))

    def test_full_device(self) -> None:
        """A device that is always full does not prevent the start."""
        log = StatisticsLog("govi-cache", "/dev/full", 10**6, 2, self.clock)
        log.startService()
        self.log_connection()
        log.stopService()
        self.assertEqual((log.writable, log.incidents.counts), (False, {"unwritable": 1}))

    def test_unwritable_file_fails_startup(self) -> None:
        """The error of a file that cannot be opened names it."""
        log = StatisticsLog("govi-cache", "/nonexistent/statistics.log", 256, 2, Clock())
        with self.assertRaises(StartupError) as caught:
            log.startService()
        self.assertEqual(
            str(caught.exception),
            "statistics.file (--statistics): cannot write /nonexistent/statistics.log: No such file or directory",
        )
