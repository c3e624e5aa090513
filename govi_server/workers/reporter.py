"""A worker's side of the pipes to the main process: reports go out, the assignment comes in."""

from collections import deque
from collections.abc import Callable
from struct import pack
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import LogEvent, Logger, formatEvent
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.statistics.records import ConnectionStatistics
from govi_server.workers.messages import (
    MAX_MESSAGE_BYTES,
    Assignment,
    LogLine,
    Report,
    decode_assignment,
    encode,
    pack_statistics,
)

MAX_BATCH = 200
"""Connections and requests from which their statistics are reported."""

BATCH_SECONDS = 0.1
"""Time after which fewer are reported."""

MAX_WAITING = 20_000
"""Connections and requests that wait while the main process reads no reports; further ones are lost."""

log = Logger()


class Reporter:
    """Reports to the main process, and receives the assignment from it.

    assigned: called with the assignment. stop: called when this process must drain and end. lost: called when the
    main process has ended.
    """

    def __init__(
        self,
        reactor: Any,
        assigned: Callable[[Assignment], None],
        stop: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self.receiver = _Receiver(assigned, stop, self._disconnected)
        self._lost = lost
        self._closing: Deferred[None] | None = None
        self._connections: deque[ConnectionStatistics] = deque()
        self._n_waiting = 0
        """Connections and requests that are not reported yet."""
        self._n_lost = 0
        self._is_paused = False
        self._is_flush_scheduled = False

    def send(self, report: Report) -> None:
        """Send a report; discard it while the main process is behind with reading."""
        if not self._is_paused:
            message = encode(report)
            self.receiver.transport.write(pack("!I", len(message)) + message)

    # The log.

    def log_event(self, event: LogEvent) -> None:
        """Report an event of the log."""
        failure = event.get("log_failure")
        traceback = failure.getTraceback() if isinstance(failure, Failure) else ""
        text = formatEvent(event)
        if text or traceback:
            self.send(LogLine(event["log_level"].name, text, traceback))

    # Statistics.

    def statistics_event(self, event: LogEvent) -> None:
        """Report the statistics of a connection, together with others."""
        connection = event.get("statistics")
        if not isinstance(connection, ConnectionStatistics):
            return
        if self._n_waiting >= MAX_WAITING:
            self._n_lost += 1
            return
        self._connections.append(connection)
        self._n_waiting += _size(connection)
        if self._n_waiting >= MAX_BATCH:
            self.flush()
        elif not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._reactor.callLater(BATCH_SECONDS, self._flush_scheduled)

    def _flush_scheduled(self) -> None:
        self._is_flush_scheduled = False
        self.flush()

    def flush(self) -> None:
        """Report the statistics that wait, unless the main process is behind with reading."""
        while self._connections and not self._is_paused:
            batch, size = [], 0
            while self._connections and size < MAX_BATCH:
                batch.append(self._connections.popleft())
                size += _size(batch[-1])
            self._n_waiting -= size
            self.send(pack_statistics(batch))
        if self._n_lost and not self._is_paused:
            n, self._n_lost = self._n_lost, 0
            log.warn("Statistics of {n} connections lost: the main process was too slow", n=n)

    # As the producer of the pipe's data.

    def connect(self, transport: Any) -> None:
        """Begin with a connected transport."""
        transport.registerProducer(self, True)

    def pauseProducing(self) -> None:
        """Wait until the main process has read the reports."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Continue."""
        self._is_paused = False
        self.flush()

    def stopProducing(self) -> None:
        """Send nothing more."""
        self._is_paused = True

    def close(self) -> Deferred[None]:
        """Send the remaining reports; return a Deferred that fires afterwards."""
        self._is_paused = False
        self.flush()
        self._closing = closing = Deferred[None]()
        self.receiver.transport.unregisterProducer()
        self.receiver.transport.loseConnection()
        return closing

    def _disconnected(self) -> None:
        if self._closing is not None:
            self._closing.callback(None)
        else:
            self._lost()


def _size(connection: ConnectionStatistics) -> int:
    return 1 + len(connection.requests)


@implementer(IHalfCloseableProtocol)
class _Receiver(Int32StringReceiver):
    """Receives the assignment on standard input, whose end is the order to stop."""

    MAX_LENGTH = MAX_MESSAGE_BYTES
    transport: Any

    def __init__(
        self, assigned: Callable[[Assignment], None], stop: Callable[[], None], lost: Callable[[], None]
    ) -> None:
        self._assigned = assigned
        self._stop = stop
        self._lost = lost

    def stringReceived(self, string: bytes) -> None:
        """Receive a message."""
        self._assigned(decode_assignment(string))

    def readConnectionLost(self) -> None:
        """Drain and end."""
        self._stop()

    def writeConnectionLost(self) -> None:
        """End at once: the reports would not be read."""
        self._lost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End, because the last report was sent."""
        self._lost()
