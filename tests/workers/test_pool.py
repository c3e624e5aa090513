"""Tests of the main process's side of its workers, with processes in memory."""

import os
import signal
from pathlib import Path
from struct import pack
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from govi_server.request_handler import RequestHandler
from govi_server.server import Server, ServerFigures
from govi_server.settings import AccessSettings, ServerSettings
from govi_server.statistics.records import ConnectionStatistics, Exchange, RequestStatistics
from govi_server.workers.listening import SharedEndpoint
from govi_server.workers.messages import (
    MAX_MESSAGE_BYTES,
    Assignment,
    Figures,
    LogLine,
    Report,
    decode_assignment,
    encode,
    pack_statistics,
)
from govi_server.workers.messages import Endpoint as AssignedEndpoint
from govi_server.workers.pool import MAX_PAUSE_SECONDS, MAX_SILENCE, MAX_START_SECONDS, Worker, WorkerPool

FIGURES = Figures(ServerFigures(connections=3, limit=10), 1.5, 50_000_000)


class Process:
    """A worker process in memory."""

    def __init__(self, protocol: Worker, command: list[str], descriptors: dict[int, Any], pid: int) -> None:
        self.protocol, self.command, self.descriptors, self.pid = protocol, command, descriptors, pid
        self.written = b""
        self.is_stdin_closed = self.has_exited = False
        self.signals: list[int] = []
        protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        self.written += data

    def closeStdin(self) -> None:
        self.is_stdin_closed = True

    def signalProcess(self, number: int) -> None:
        if self.has_exited:
            raise ProcessExitedAlready
        self.signals.append(number)

    def report(self, *reports: Report) -> None:
        """Send reports, in pieces."""
        data = b"".join(pack("!I", len(message)) + message for message in map(encode, reports))
        self.protocol.outReceived(data[:5])
        self.protocol.outReceived(data[5:])

    def end(self, signal_number: int | None = None) -> None:
        """End, by a signal or by itself."""
        reason = ProcessDone(0) if signal_number is None else ProcessTerminated(None, signal_number)
        self.protocol.processEnded(Failure(reason))


class Endpoint:
    """An endpoint without sockets.

    stopped: the workers whose sockets have stopped listening. is_renewed: whether its certificate has changed.
    """

    def __init__(self) -> None:
        self.stopped: list[int] = []
        self.is_renewed = False

    uses_tls = False

    def socket(self, worker: int) -> int:
        return 100

    def assigned(self, fd: int) -> AssignedEndpoint:
        return AssignedEndpoint(fd)

    def reload(self) -> bool:
        is_renewed, self.is_renewed = self.is_renewed, False
        return is_renewed

    def stop_listening(self, worker: int) -> None:
        self.stopped.append(worker)

    def close(self) -> Deferred[None]:
        return succeed(None)


class Reactor(MemoryReactorClock):
    """A reactor whose processes are in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.error: OSError | None = None

    def spawnProcess(self, protocol: Any, executable: str, args: Any, env: Any, childFDs: Any) -> Any:
        if self.error is not None:
            raise self.error
        self.processes.append(Process(protocol, args, childFDs, 1000 + len(self.processes)))
        return self.processes[-1]


class WorkerPoolTests(SynchronousTestCase):
    """Tests of WorkerPool."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.statistics: list[ConnectionStatistics] = []
        server = Server("", 0, RequestHandler, clock=self.reactor, find_module=dict[str, object]().__getitem__)
        assignment = Assignment(0, "govi-cache", [], "", ["kv55"], ServerSettings(), AccessSettings(), [])
        self.pool = WorkerPool(
            self.reactor, "workers (--workers)", 2, [], server, assignment,
            cast(Any, lambda event: self.statistics.append(event["statistics"])), lambda address, scheme: None,
        )  # fmt: skip
        self.log = EventLoggingObserver()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)
        self.pool.privilegedStartService()
        self.pool.startService()
        self.directory = Path(self.reactor.unixServers[0][0]).parent
        self.first, self.second = self.reactor.processes
        self.is_stopped = False
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """Stop the pool; its processes end."""
        if not self.is_stopped:
            self.is_stopped = True
            stopped = self.pool.stopService()
            for process in self.reactor.processes:
                if process.protocol.transport is cast(Any, process):
                    process.end()
            self.successResultOf(stopped)

    def lines(self) -> list[str]:
        """Return the lines of the log since the last call."""
        events, self.log._events = list(self.log), []
        return [formatEvent(event) for event in events if event.get("log_level")]

    def test_start(self) -> None:
        """Each worker is assigned its number, and a socket in a directory for this user alone."""
        assignments = [decode_assignment(process.written[4:]) for process in self.reactor.processes]
        self.assertEqual([assignment.number for assignment in assignments], [1, 2])
        self.assertEqual({assignment.upstream for assignment in assignments}, {str(self.directory / "http")})
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)
        self.assertEqual(self.first.command[1:], ["-P", "-m", "govi_server.workers", "1"])

    def test_option_for_tls(self) -> None:
        """A worker with an endpoint for TLS is started with an option, without which it cannot load OpenSSL."""
        endpoint = Endpoint()
        endpoint.uses_tls = True
        self.pool.endpoints = [cast(SharedEndpoint, Endpoint()), cast(SharedEndpoint, endpoint)]
        self.first.end(9)
        self.reactor.advance(1)
        self.assertEqual(self.reactor.processes[-1].command[1:], ["-P", "-m", "govi_server.workers", "1", "--tls"])

    def test_figures_are_added(self) -> None:
        """The figures of the workers that serve clients are added."""
        self.assertFalse(self.pool.is_serving)
        self.first.report(FIGURES)
        self.assertTrue(self.pool.is_serving)
        self.second.report(FIGURES)
        self.assertEqual(self.pool.figures, ServerFigures(connections=6, limit=20))
        self.second.end(signal.SIGKILL)
        self.assertEqual(self.pool.figures, ServerFigures(connections=3, limit=10))

    def test_statistics_are_published(self) -> None:
        """The statistics of a worker's connections are published, with its number."""
        requests = [RequestStatistics(Exchange("GET", "/", 200))]
        self.second.report(
            pack_statistics([ConnectionStatistics("govi-cache", "local", 1.0, 2.0, "client", requests)])
        )
        (connection,) = self.statistics
        self.assertEqual((connection.worker, connection.client, connection.ended), (2, "local", 2.0))
        self.assertEqual(connection.requests[0].exchange.path, "/")

    def test_log_lines_are_written(self) -> None:
        """A worker's log lines, tracebacks and errors are in the log, with its number."""
        self.lines()
        self.first.report(LogLine("warn", "{text} of a client", "Traceback\n  ..."))
        self.first.protocol.errReceived(b"No module\nnamed ")
        self.first.protocol.errReceived(b"x\n")
        self.assertEqual(
            self.lines(),
            [
                "Worker 1: {text} of a client", "Worker 1: Traceback", "Worker 1:   ...", "Worker 1: No module",
                "Worker 1: named x",
            ],
        )  # fmt: skip

    def test_ended_worker_is_replaced(self) -> None:
        """A worker that ends is replaced at once if it lived long enough."""
        self.first.report(FIGURES)
        self.reactor.advance(10)
        self.lines()
        self.first.end(signal.SIGKILL)
        self.assertEqual(self.lines(), ["Worker 1: ended (signal 9); replaced now"])
        self.assertTrue(self.pool.workers[0].is_missing)
        self.reactor.advance(0)
        (_, _, third) = self.reactor.processes
        self.assertEqual(decode_assignment(third.written[4:]).number, 1)
        third.report(FIGURES)
        self.assertEqual(self.lines(), [f"Worker 1: serving clients (process {third.pid})"])
        self.assertFalse(self.pool.workers[0].is_missing)
        self.assertEqual(self.pool.workers[0].restarts, 1)

    def test_pause_doubles(self) -> None:
        """A worker that cannot start is replaced after pauses that double up to a limit."""
        pauses = []
        for _ in range(8):
            process = self.reactor.processes[-1]
            process.end()
            began = self.reactor.seconds()
            while self.reactor.processes[-1] is process:
                self.reactor.advance(0.5)
            pauses.append(self.reactor.seconds() - began)
        self.assertEqual(pauses, [1, 2, 4, 8, 16, *[MAX_PAUSE_SECONDS] * 3])

    def test_connections_do_not_wait_for_a_worker_that_is_missing_for_long(self) -> None:
        """The socket of a worker that ends again and again, or before it has served clients, stops listening."""
        endpoint = Endpoint()
        self.pool.endpoints = [cast(SharedEndpoint, endpoint)]
        self.first.report(FIGURES)
        self.reactor.advance(10)
        self.second.report(FIGURES)
        self.first.end(signal.SIGKILL)
        for pause in (0, 1, 2):
            self.reactor.advance(pause)
            self.reactor.processes[-1].report(FIGURES)
            self.assertEqual(endpoint.stopped, [])
            self.reactor.processes[-1].end(signal.SIGKILL)
        self.assertEqual(endpoint.stopped, [1])  # for 4 s
        self.reactor.advance(4)
        self.reactor.advance(MAX_START_SECONDS - 1)
        self.reactor.processes[-1].end(signal.SIGKILL)
        self.assertEqual(endpoint.stopped, [1, 1])
        self.assertEqual(self.lines()[-1], "Worker 1: ended (signal 9); replaced in 8 s")

    def test_renewed_certificate(self) -> None:
        """Workers get an assignment with a renewed certificate, within a second."""
        endpoint = Endpoint()
        self.pool.endpoints = [cast(SharedEndpoint, endpoint)]
        self.first.written = self.second.written = b""
        self.reactor.advance(1)
        self.assertEqual(self.first.written, b"")
        endpoint.is_renewed = True
        self.reactor.advance(1)
        numbers = [decode_assignment(process.written[4:]).number for process in (self.first, self.second)]
        self.assertEqual(numbers, [1, 2])

    def test_failing_spawn_is_retried(self) -> None:
        """If no process can be created, it is tried again later."""
        self.lines()
        self.reactor.error = OSError(11, "Resource temporarily unavailable")
        self.second.end()
        self.reactor.advance(1)
        self.assertEqual(
            self.lines()[-1],
            "Worker 2: cannot be started (Resource temporarily unavailable); replaced in 2 s",
        )
        self.reactor.error = None
        self.reactor.advance(2)
        self.assertEqual(len(self.reactor.processes), 3)

    def test_silent_worker_is_killed(self) -> None:
        """A worker without a sign of life is killed; one that reports is not."""
        for process in (self.first, self.second):
            process.report(FIGURES)
        for _ in range(MAX_SILENCE + 1):
            self.assertEqual(self.first.signals, [])
            self.reactor.advance(1)
            self.second.report(FIGURES)
        self.assertEqual(self.first.signals, [signal.SIGKILL])
        self.reactor.pump([1] * 10)
        self.assertEqual(self.first.signals, [signal.SIGKILL])
        self.assertEqual(len(self.second.signals), 1)  # since it is silent by now
        self.assertIn("Worker 1: no sign of life for 5 s; killed", self.lines())

    def test_pause_of_the_main_process_is_no_silence(self) -> None:
        """If the main process itself pauses, or the clock is set, no worker is killed."""
        self.first.report(FIGURES)
        self.reactor.advance(3600)
        self.assertEqual(self.first.signals, [])

    def test_worker_that_ends_while_it_is_killed(self) -> None:
        """A worker that has exited, but whose end is not known yet, cannot be killed; it is replaced all the same."""
        self.first.has_exited = True
        self.reactor.pump([1] * (MAX_START_SECONDS + 1))
        self.first.end()
        self.reactor.advance(1)
        self.assertEqual(len(self.reactor.processes), 3)
        self.reactor.pump([1] * (MAX_START_SECONDS + 1))
        self.assertEqual(self.reactor.processes[2].signals, [signal.SIGKILL])

    def test_slow_start(self) -> None:
        """A worker has more time to start."""
        self.reactor.pump([1] * MAX_START_SECONDS)
        self.assertEqual(self.first.signals, [])
        self.reactor.advance(1)
        self.assertEqual(self.first.signals, [signal.SIGKILL])

    def test_invalid_reports(self) -> None:
        """A worker whose output is no report is killed, and the rest is ignored."""
        self.first.protocol.outReceived(pack("!I", 3) + b"abc")
        self.second.protocol.outReceived(pack("!I", MAX_MESSAGE_BYTES + 1))
        for process in (self.first, self.second):
            self.assertEqual(process.signals, [signal.SIGKILL])
            process.report(FIGURES)
        self.assertFalse(self.pool.is_serving)

    def test_stop(self) -> None:
        """At the end workers drain: their input is closed. Those that do not end in time are killed."""
        self.first.report(FIGURES)
        stopped = self.pool.stopService()
        self.is_stopped = True
        self.assertTrue(self.pool.is_draining)
        self.assertTrue(self.first.is_stdin_closed)
        self.second.end()
        self.reactor.advance(14.9)
        self.assertEqual(self.first.signals, [])
        self.reactor.advance(0.2)
        self.assertEqual(self.first.signals, [signal.SIGKILL])
        self.assertNoResult(stopped)
        self.first.end(signal.SIGKILL)
        self.successResultOf(stopped)
        self.assertFalse(os.path.exists(self.directory))
        self.assertEqual(len(self.reactor.processes), 2)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop_during_a_pause(self) -> None:
        """A worker that was to be replaced later is not."""
        self.first.end()
        self.stop()
        self.reactor.advance(60)
        self.assertEqual(len(self.reactor.processes), 2)

    def test_log_level(self) -> None:
        """A log line has the level that it had in the worker."""
        self.first.report(LogLine("warn", "slow"))
        (event,) = [event for event in self.log if event.get("text") == "slow"]
        self.assertEqual(event["log_level"], LogLevel.warn)
