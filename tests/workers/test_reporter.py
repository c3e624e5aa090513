"""Tests of a worker's reports."""

from struct import pack, unpack

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.resident_memory import resident_bytes
from govi_server.server import ServerFigures
from govi_server.settings import AccessSettings, ServerSettings
from govi_server.statistics.records import ConnectionStatistics, Exchange, RequestStatistics
from govi_server.workers.messages import Assignment, Figures, LogLine, Report, Statistics, decode_report, encode
from govi_server.workers.reporter import BATCH_SECONDS, MAX_BATCH, MAX_WAITING, Reporter


def connection(n_requests: int = 1) -> ConnectionStatistics:
    """Return the statistics of a connection."""
    requests = [RequestStatistics(Exchange("GET", "/", 200)) for _ in range(n_requests)]
    return ConnectionStatistics("govi-cache", "local", 1.0, 2.0, "client", requests)


class ReporterTests(SynchronousTestCase):
    """Tests of Reporter."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[object] = []
        self.reporter = Reporter(
            self.clock, self.events.append, lambda: self.events.append("stop"), lambda: self.events.append("lost")
        )
        self.transport = StringTransport()
        self.reporter.receiver.makeConnection(self.transport)
        self.reporter.connect(self.transport)

    def reports(self) -> list[Report]:
        """Return the reports since the last call."""
        data, reports = self.transport.value(), []
        self.transport.clear()
        while data:
            (size,) = unpack("!I", data[:4])
            reports.append(decode_report(data[4 : 4 + size]))
            data = data[4 + size :]
        return reports

    def connections(self) -> list[int]:
        """Return the number of connections in each report of statistics since the last call."""
        return [len(report.connections) for report in self.reports() if isinstance(report, Statistics)]

    def test_assignment(self) -> None:
        """The assignment arrives on standard input, in pieces."""
        assignment = Assignment(
            1, "govi-cache", [], "/run/x", ["kv55"], ServerSettings(), AccessSettings(proxies=("192.0.2.0/24",)),
            [("A", "b")],
        )  # fmt: skip
        message = encode(assignment)
        for byte in pack("!I", len(message)) + message:
            self.reporter.receiver.dataReceived(bytes([byte]))
        self.assertEqual(self.events, [assignment])

    def test_end_of_input_is_the_order_to_stop(self) -> None:
        """The end of standard input is the order to stop; after that of the output the main process is lost."""
        self.reporter.receiver.readConnectionLost()
        self.assertEqual(self.events, ["stop"])
        self.reporter.receiver.writeConnectionLost()
        self.assertEqual(self.events, ["stop", "lost"])

    def test_log(self) -> None:
        """Events of the log are reported with their tracebacks."""
        log = Logger(observer=self.reporter.log_event)  # type: ignore[arg-type]
        log.warn("{n} slow clients", n=3)
        try:
            raise ValueError("wrong")
        except ValueError:
            log.failure("failed", Failure())
        first, second = self.reports()
        self.assertEqual(first, LogLine("warn", "3 slow clients"))
        assert isinstance(second, LogLine)
        self.assertEqual((second.level, second.text), ("critical", "failed"))
        self.assertIn("ValueError: wrong", second.traceback)

    def test_figures(self) -> None:
        """Figures arrive as they were sent."""
        figures = Figures(ServerFigures(1, 2, 3, 4, 5, True), 6.5, resident_bytes())
        self.reporter.send(figures)
        self.assertEqual(self.reports(), [figures])

    def test_statistics_are_reported_together(self) -> None:
        """Connections are reported together: when they are many, have many requests, or after a short time."""
        for _ in range(MAX_BATCH // 2 + 1):
            self.reporter.statistics_event({"statistics": connection()})
        self.assertEqual(self.connections(), [MAX_BATCH // 2])
        self.clock.advance(BATCH_SECONDS)
        self.assertEqual(self.connections(), [1])
        self.reporter.statistics_event({"statistics": connection(MAX_BATCH)})
        self.assertEqual(self.connections(), [1])
        self.reporter.statistics_event({"log_level": LogLevel.info})
        self.clock.advance(BATCH_SECONDS)
        self.assertEqual(self.connections(), [])

    def test_main_process_that_is_behind(self) -> None:
        """While the main process does not read, a bounded number of connections waits."""
        self.reporter.pauseProducing()
        for _ in range(MAX_WAITING // 10 + 3):
            self.reporter.statistics_event({"statistics": connection(9)})
        self.reporter.send(Figures(ServerFigures(), 0.0, 0))
        self.clock.advance(BATCH_SECONDS)
        self.assertEqual(self.reports(), [])
        self.reporter.resumeProducing()
        self.assertEqual(self.connections(), [MAX_BATCH // 10] * (MAX_WAITING // MAX_BATCH))
        self.reporter.statistics_event({"statistics": connection()})
        self.clock.advance(BATCH_SECONDS)
        self.assertEqual(self.connections(), [1])

    def test_close(self) -> None:
        """At the end the remaining connections are reported."""
        self.reporter.statistics_event({"statistics": connection()})
        closed = self.reporter.close()
        self.assertEqual(self.connections(), [1])
        self.assertTrue(self.transport.disconnecting)
        self.assertNoResult(closed)
        self.reporter.receiver.connectionLost()
        self.successResultOf(closed)
        self.assertEqual(self.events, [])
