"""The workers of the main process: starts them, watches them, replaces them, and receives their reports.

Longer than other modules: the life of one process is one class.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from shutil import rmtree
from struct import pack
from tempfile import mkdtemp
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import ILogObserver, Logger, LogLevel
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.runtime.program import IReloadable
from govi_server.runtime.repeated_call import RepeatedCall
from govi_server.server import Server, ServerFigures
from govi_server.settings import AccessSettings
from govi_server.sockets.listener import OnListening, listening_errors
from govi_server.sockets.ports import PortService
from govi_server.statistics.records import ConnectionStatistics
from govi_server.workers.listening import SharedEndpoint
from govi_server.workers.messages import (
    MAX_MESSAGE_BYTES,
    REPORT_INTERVAL,
    TLS,
    Assignment,
    Figures,
    LogLine,
    Statistics,
    decode_report,
    encode,
    unpack_statistics,
)

MAX_SILENCE = 5
"""Reports that may be missing, about the same number of seconds, before a worker is killed and replaced."""

MAX_START_SECONDS = 30
"""Time for a worker to start, on a busy machine as well."""

MIN_LIFE_SECONDS = 10.0
"""A worker that ends earlier is replaced after a pause, which doubles each time up to MAX_PAUSE_SECONDS."""

MAX_PAUSE_SECONDS = 30.0

MAX_WAIT_SECONDS = 2.0
"""Longer pauses are too long for connections to wait in the kernel: the worker's sockets stop listening."""

KILL_SECONDS = 2.0
"""Time after the drain for a worker to end before it is killed."""

_FIRST_FD = 3
"""The descriptor of a worker's first listening socket."""

log = Logger()


class _InvalidReport(Exception):
    """The output of a worker is no report."""


class _Reports(Int32StringReceiver):
    """Splits the output of a worker into reports. received: called with each."""

    MAX_LENGTH = MAX_MESSAGE_BYTES

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self.stringReceived = received  # type: ignore[method-assign]

    def lengthLimitExceeded(self, length: int) -> None:
        """Reject a report that is too long."""
        raise _InvalidReport(f"{length} bytes")


class Worker(ProcessProtocol):
    """A worker process, which is replaced when it ends. number: from 1."""

    transport: IProcessTransport | None = None

    def __init__(self, pool: "WorkerPool", number: int) -> None:
        self._pool = pool
        self.number = number
        self.figures: Figures | None = None
        """The latest figures; None until the worker serves clients, and when it has ended."""
        self.restarts = 0
        self.pid: int | None = None
        self._silence = 0
        """Seconds without a report, counted by the calls of watch()."""
        self._is_killed = False
        self._started = 0.0
        self._pause = 0.0
        self._reports = _Reports(self._received)
        self._errors = b""
        self._restart: IDelayedCall | None = None
        self._ended: Deferred[None] | None = None

    @property
    def is_missing(self) -> bool:
        """Whether the process has ended, and its replacement serves no clients yet."""
        return self.figures is None and self.restarts > 0

    def start(self) -> None:
        """Start the process."""
        self._restart = None
        self._reports = _Reports(self._received)
        self._errors, self._silence, self._is_killed = b"", MAX_SILENCE - MAX_START_SECONDS, False
        pool = self._pool
        self._started = pool.clock.seconds()
        sockets = [endpoint.socket(self.number) for endpoint in pool.endpoints]
        descriptors: dict[int, Any] = {0: "w", 1: "r", 2: "r", **dict(enumerate(sockets, _FIRST_FD))}
        # -P: modules in the current directory, which may be anything, are not imported.
        command = [sys.executable, "-P", "-m", "govi_server.workers", str(self.number)]
        command += [TLS] * any(endpoint.uses_tls for endpoint in pool.endpoints)
        try:
            transport = pool.reactor.spawnProcess(self, command[0], command, os.environ, childFDs=descriptors)
        except OSError as error:
            self._replace(f"cannot be started ({error.strerror})")
            return
        self.pid = transport.pid
        self.assign()

    def assign(self) -> None:
        """Send the process its assignment, or a changed one, of which it uses limits of clients and certificates."""
        if self.transport is not None:
            message = encode(self._pool.assignment(self.number))
            self.transport.write(pack("!I", len(message)) + message)

    # The reports.

    def outReceived(self, data: bytes) -> None:
        """Receive a part of the reports."""
        if not self._is_killed:
            try:
                self._reports.dataReceived(data)
            except (_InvalidReport, ValueError, IndexError) as error:
                self._kill(f"killed, invalid report ({error})")

    def errReceived(self, data: bytes) -> None:
        """Log the lines of standard error, on which Python reports why a worker cannot start."""
        *lines, self._errors = (self._errors + data).split(b"\n")
        self._errors = self._errors[-1000:]
        for line in lines:
            self._log(LogLevel.error, line.decode("utf-8", "backslashreplace"))

    def _received(self, message: bytes) -> None:
        report = decode_report(message)
        if isinstance(report, Figures):
            self._silence = 0
            if self.figures is None:
                self._log(LogLevel.info, f"serving clients (process {self.pid})")
            self.figures = report
        elif isinstance(report, LogLine):
            self._log(LogLevel.lookupByName(report.level), report.text)
            for line in report.traceback.splitlines():
                self._log(LogLevel.info, line)
        else:
            self._publish(report)

    def _publish(self, report: Statistics) -> None:
        for connection in unpack_statistics(report, self._pool.server_name, self.number):
            self._pool.publish(connection)

    def _log(self, level: Any, text: str) -> None:
        log.emit(level, "Worker {worker}: {text}", worker=self.number, text=text)

    # The end.

    def watch(self) -> None:
        """Kill the process if it is silent for too long. To be called at every REPORT_INTERVAL.

        Calls are counted, not seconds: a pause of the main process, or a clock that is set, is no silence.
        """
        if self.transport is not None and not self._is_killed:
            self._silence += 1
            if self._silence > MAX_SILENCE:
                self._kill(f"no sign of life for {MAX_SILENCE} s; killed" if self.figures else "start failed; killed")

    def _kill(self, reason: str) -> None:
        self._log(LogLevel.error, reason)
        self._is_killed = True
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self.transport is not None:
            with suppress(ProcessExitedAlready):  # processEnded() follows when its pipes are read
                self.transport.signalProcess(number)

    def processEnded(self, reason: Failure) -> None:
        """Replace the process, unless it was to end."""
        self.transport = None
        if self._errors:
            self.errReceived(b"\n")
        if self._ended is not None:
            self._end()
            return
        error = reason.value
        if isinstance(error, ProcessTerminated):
            cause = f"signal {error.signal}" if error.signal is not None else f"exit status {error.exitCode}"
        else:
            cause = "exit status 0"
        self._replace(f"ended ({cause})")

    def _replace(self, event: str) -> None:
        has_served = self.figures is not None
        self.figures, self.pid = None, None
        lived = self._pool.clock.seconds() - self._started if has_served else 0.0
        self._pause = 0.0 if lived >= MIN_LIFE_SECONDS else min(max(1.0, self._pause * 2), MAX_PAUSE_SECONDS)
        self._log(LogLevel.error, f"{event}; replaced {f'in {self._pause:.0f} s' if self._pause else 'now'}")
        if self._pause > MAX_WAIT_SECONDS or not has_served:
            for endpoint in self._pool.endpoints:
                endpoint.stop_listening(self.number)
        self.restarts += 1
        self._restart = self._pool.clock.callLater(self._pause, self.start)

    def stop(self) -> Deferred[None]:
        """Let the process drain and end; return a Deferred that fires afterwards."""
        self._ended = ended = Deferred[None]()
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self.transport is None:
            self._end()
        else:
            self.transport.closeStdin()
        return ended

    def _end(self) -> None:
        assert self._ended is not None
        self.figures, self.pid = None, None
        self._ended.callback(None)


@implementer(IReloadable)
class WorkerPool(Service):
    """The workers of a main process, and the unix socket by which they reach it.

    setting: the name of the number of workers in errors. endpoints: those of clients. server: serves the workers'
    requests. assignment: what all workers serve; its number, endpoints and upstream are replaced. observer: receives
    the statistics of their connections. listening: as of a Listener.
    """

    log = log

    def __init__(
        self,
        reactor: Any,
        setting: str,
        workers: int,
        endpoints: Sequence[SharedEndpoint],
        server: Server,
        assignment: Assignment,
        observer: ILogObserver,
        listening: OnListening,
    ) -> None:
        self.reactor = self.clock = reactor
        self.endpoints = endpoints
        self.workers = [Worker(self, number) for number in range(1, workers + 1)]
        self.is_draining = False
        self.server_name = assignment.name
        self._setting = setting
        self._server = server
        self._assignment = assignment
        self._observer = observer
        self._listening = listening
        self._directory = ""
        self._port: PortService | None = None
        self._watch = RepeatedCall("Watching the workers", reactor, REPORT_INTERVAL, self._watch_workers, now=False)

    @property
    def figures(self) -> ServerFigures:
        """The figures of all workers together."""
        return sum((worker.figures.server for worker in self.workers if worker.figures), ServerFigures())

    @property
    def is_serving(self) -> bool:
        """Whether at least one worker serves clients."""
        return any(worker.figures for worker in self.workers)

    def assignment(self, number: int) -> Assignment:
        """Return the assignment of a worker."""
        assigned = [endpoint.assigned(fd) for fd, endpoint in enumerate(self.endpoints, _FIRST_FD)]
        return msgspec.structs.replace(
            self._assignment, number=number, endpoints=assigned, upstream=self._socket_path
        )

    @property
    def _socket_path(self) -> str:
        return os.path.join(self._directory, "http")

    def publish(self, connection: ConnectionStatistics) -> None:
        """Publish the statistics of a connection, as its recorder does without workers."""
        self._observer(
            {
                "log_level": LogLevel.info,
                "log_namespace": __name__,
                "log_time": connection.ended,
                "statistics": connection,
            }
        )

    def privilegedStartService(self) -> None:
        """Open the listening sockets. Raises StartupError."""
        super().privilegedStartService()
        for endpoint in self.endpoints:
            endpoint.open()

    def startService(self) -> None:
        """Listen on the unix socket, and start the workers. Raises StartupError."""
        super().startService()
        self._directory = mkdtemp(prefix="govi-cache-")  # as the user of the workers, and for this user alone
        path = self._socket_path
        self._port = PortService(self.reactor, UNIXServerEndpoint(self.reactor, path, mode=0o600), self._server)
        with listening_errors(self._setting, f"unix:{path}"):  # for example if $TMPDIR is too long
            self._port.startService()
        for endpoint in self.endpoints:
            endpoint.report(self.server_name, self._listening)
        for worker in self.workers:
            worker.start()
        self._watch.startService()

    def change_limits(self, access: AccessSettings) -> None:
        """Send changed limits of clients to the workers: all but the number of connections."""
        access = msgspec.structs.replace(access, connections=self._assignment.access.connections)
        if access != self._assignment.access:
            self._assignment = msgspec.structs.replace(self._assignment, access=access)
            self._assign()

    def reload(self) -> None:
        """Send renewed certificates to the workers."""
        renewed = [endpoint for endpoint in self.endpoints if endpoint.reload()]
        if renewed:
            self._assign()

    def _assign(self) -> None:
        for worker in self.workers:
            worker.assign()

    def _watch_workers(self) -> None:
        self.reload()
        for worker in self.workers:
            worker.watch()

    async def _stop(self) -> None:
        self.is_draining = True
        for endpoint in self.endpoints:
            await endpoint.close()
        self._watch.stopService()
        ended = DeferredList([worker.stop() for worker in self.workers])
        killing = self.clock.callLater(self._assignment.limits.drain + KILL_SECONDS, self._kill)
        await ended
        if killing.active():
            killing.cancel()
        if self._port is not None:
            await self._port.stopService()
        await self._server.drain()
        rmtree(self._directory, ignore_errors=True)

    def _kill(self) -> None:
        for worker in self.workers:
            worker.signal(signal.SIGKILL)

    def stopService(self) -> Deferred[None]:
        """Stop listening, let the workers finish their requests and end; return a Deferred that fires afterwards."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())
