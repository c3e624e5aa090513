"""The statistics log."""

import json
import os
from tempfile import TemporaryDirectory
from typing import cast

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, capturedLogs, formatEvent
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase

from govi_server.errors import StartupError
from govi_server.http.addresses import ip_of, truncated
from govi_server.statistics.log import StatisticsLog, format_line, statistics_publisher
from govi_server.statistics.records import ConnectionStatistics, RequestStatistics
from tests.client import NOW, Client, WireTestCase


class FormatTests(SynchronousTestCase):
    """A line of the log."""

    def test_line(self) -> None:
        """A connection becomes one line of JSON, times in milliseconds."""
        request = RequestStatistics(NOW, "GET", "/kv55/1\n\u2028é", 200, 4321, "joined")
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
                        "status": 200,
                        "bytes": 4321,
                        "cache": "joined",
                        "phases": {"receive": 101.0, "wait": 399.0},
                    }
                ],
            },
        )

    def test_other_events(self) -> None:
        """Any other event has no line, nor has a connection of another server."""
        self.assertIsNone(format_line({"log_format": "hello"}, "govi-cache"))
        other = ConnectionStatistics("callbacks", "local", NOW)
        self.assertIsNone(format_line({"statistics": other}, "govi-cache"))


class PublisherTests(SynchronousTestCase):
    """What events about connections go through."""

    def test_faults(self) -> None:
        """The log hears nothing of connections, but of an observer that fails, and the others go on."""
        publisher = statistics_publisher()
        seen: list[LogEvent] = []

        def fails(event: LogEvent) -> None:
            raise ZeroDivisionError

        for observer in (fails, seen.append):
            publisher.addObserver(cast(ILogObserver, observer))
        with capturedLogs() as told:
            publisher({"statistics": ConnectionStatistics("govi-cache", "local", NOW)})
        self.assertEqual(len([event for event in seen if "statistics" in event]), 1)
        self.assertEqual(["statistics" in event for event in told], [False])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class AddressTests(SynchronousTestCase):
    """Who a client is, as far as it may be written down."""

    def test_truncated(self) -> None:
        """No address is written down whole."""
        for addr, expected in [
            (IPv4Address("TCP", "192.0.2.77", 1), "192.0.2.0/24"),
            (IPv6Address("TCP", "2001:db8:1:2:3:4:5:6", 1), "2001:db8:1::/48"),
            (IPv6Address("TCP", "::ffff:192.0.2.77", 1), "192.0.2.0/24"),
            (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::/48"),
            (UNIXAddress("/run/x"), "local"),
        ]:
            self.assertEqual(truncated(ip_of(addr)), expected)

    def test_ip_of(self) -> None:
        """An IPv4 address is one, also where it came mapped into IPv6."""
        self.assertEqual(str(ip_of(IPv6Address("TCP", "::ffff:127.0.0.1", 1))), "127.0.0.1")
        self.assertIsNone(ip_of(UNIXAddress(None)))


class StatisticsLogTests(WireTestCase):
    """The log as a service."""

    def setUp(self) -> None:
        super().setUp()
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "statistics.log")

    def lines(self) -> list[dict[str, object]]:
        with open(self.path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def converse(self) -> None:
        client: Client = self.client()
        client.get("/parrot/says/a")
        client.leave()

    def test_on_and_off(self) -> None:
        """Connections are logged while the service runs, one line each, and nothing else is."""
        log = StatisticsLog("govi-cache", self.path, 10**6, 3, Clock())
        self.converse()
        log.startService()
        self.converse()
        Logger().info("something else")
        self.converse()
        log.stopService()
        self.converse()
        self.assertEqual(len(self.lines()), 2)
        log.startService()
        self.converse()
        log.stopService()
        self.assertEqual(len(self.lines()), 3)

    def test_rotates(self) -> None:
        """A file that is full is put aside, and of those only so many are kept."""
        log = StatisticsLog("govi-cache", self.path, 256, 2, Clock())
        log.startService()
        for _ in range(10):
            self.converse()
        log.stopService()
        folder = os.path.dirname(self.path)
        self.assertEqual(sorted(os.listdir(folder)), ["statistics.log", "statistics.log.1", "statistics.log.2"])

    def test_full_disk(self) -> None:
        """A line that cannot be written is lost, told once, and counted; the next one that can is written whole."""
        log = StatisticsLog("govi-cache", "/dev/full", 10**6, 2, self.clock)
        log._open = lambda: LogFile("full", "/dev", defaultMode=None)  # type: ignore[method-assign]
        with capturedLogs() as events:
            log.startService()
            for _ in range(3):
                self.converse()
            warnings = [event for event in events if event["log_level"] is LogLevel.warn]
            self.assertEqual(log.incidents.counts, {"unwritable": 3})
            self.assertEqual(len(warnings), 1)
            self.assertIn("/dev/full cannot be written: [Errno 28]", formatEvent(warnings[0]))
            del log._open
            log._path = self.path
            with open(self.path, "w", encoding="utf-8") as file:
                file.write('{"time":')  # as far as there was room for it
            self.converse()
            log.stopService()
        with open(self.path, encoding="utf-8") as file:
            half, whole = file
        self.assertEqual((half, whole[0], whole[-2:]), ('{"time":\n', "{", "}\n"))

    def test_unusable(self) -> None:
        """A file that cannot be written is told by its name."""
        log = StatisticsLog("govi-cache", "/nonexistent/statistics.log", 256, 2, Clock())
        with self.assertRaises(StartupError) as caught:
            log.startService()
        self.assertEqual(
            str(caught.exception),
            "cannot write the statistics log /nonexistent/statistics.log: No such file or directory",
        )
