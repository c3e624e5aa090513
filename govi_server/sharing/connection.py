"""A connection to an engine: RESP3, with a time limit for each reply. The only module that needs hiredis.

The protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

import re
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.runtime.text import printable
from govi_server.sharing.engine import MAX_REASON, REPLY_TIMEOUT, EngineError, EngineUnavailable
from govi_server.sockets.transport import IClientTransport, write_now

MAX_REPLY_BYTES = 1 << 20
"""Bytes of a reply: several times the largest board."""

MAX_UNANSWERED_BYTES = 16 << 20
"""Bytes of the commands without a reply; further ones fail at once. An engine that does not read must not fill the
memory within the time limit of replies."""

_INCOMPLETE = object()

# Memory is allocated for as many elements as a reply announces; those that we request have fewer than a thousand, and
# the documents of boards contain no CR.
_is_huge = re.compile(rb"\n[*%~>|][0-9]{4,}\r").search
_MAX_HEADER_BYTES = 16


class EngineConnection(Protocol):
    """A connection that sends commands in order, and receives their replies and the messages of channels.

    on_message: called with a channel and a message. runner: fails the commands that have no reply when the connection
    is lost.
    """

    def __init__(
        self, clock: IReactorTime, runner: CooperativeRunner, on_message: Callable[[bytes, bytes], object]
    ) -> None:
        self._clock = clock
        self._runner = runner
        self._on_message = on_message
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._unparsed = 0
        self._end_of_data = b"\n"
        self._pending: deque[tuple[Deferred[Any], float, int]] = deque()
        """The commands without a reply: with the time when they were sent, and their bytes."""
        self._unanswered_bytes = 0
        self._deadline: IDelayedCall | None = None
        self._abort_reason = ""
        self._timeout = REPLY_TIMEOUT
        self.lost: Deferred[str] = Deferred()
        """Fires with the reason when the connection is lost."""
        self.is_lost = False

    def connectionMade(self) -> None:
        """Send commands without waiting for the acknowledgement of earlier ones (Nagle's algorithm)."""
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):  # not on a UNIX socket
            transport.setTcpNoDelay(True)

    def command(self, *arguments: str | bytes | int) -> Deferred[Any]:
        """Send a command; return a Deferred of the reply. Fails with EngineError or EngineUnavailable."""
        if self.is_lost:
            return fail(EngineUnavailable(self._abort_reason))
        data = hiredis.pack_command(arguments)  # type: ignore[arg-type]  # a tuple of any length
        if self._unanswered_bytes + len(data) > MAX_UNANSWERED_BYTES:
            return fail(EngineUnavailable("too many commands are waiting"))
        reply: Deferred[Any] = Deferred()
        self._pending.append((reply, self._clock.seconds(), len(data)))
        self._unanswered_bytes += len(data)
        write_now(cast(IClientTransport, self.transport), data)
        if self._deadline is None:
            self._deadline = self._clock.callLater(self._timeout, self._check_deadline)
        return reply

    def set_timeout(self, seconds: float) -> None:
        """Set the time limit of replies."""
        self._timeout = seconds
        if self._deadline is not None:
            self._deadline.reset(seconds)

    def abort(self, reason: str) -> None:
        """Close the connection without waiting for replies."""
        self._abort_reason = self._abort_reason or reason
        cast(IClientTransport, self.transport).abortConnection()

    def close(self) -> None:
        """Close the connection when all commands are sent."""
        self._abort_reason = "closed"
        cast(IClientTransport, self.transport).loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Receive replies and messages."""
        if self._abort_reason:
            return
        self._unparsed += len(data)
        if self._unparsed > MAX_REPLY_BYTES + len(data) or _is_huge(self._end_of_data + data):
            self.abort("reply too long")
            return
        self._end_of_data = data[-_MAX_HEADER_BYTES:]
        self._reader.feed(data)
        while (reply := self._next_reply()) is not _INCOMPLETE:
            self._unparsed = 0
            self._received(reply)

    def _next_reply(self) -> Any:
        """Return the next reply or message; _INCOMPLETE without one, and after an invalid one."""
        try:
            return self._reader.gets()
        except (hiredis.ProtocolError, TypeError) as error:  # TypeError: a map with a list as a key
            self.abort(f"invalid reply: {printable(str(error), MAX_REASON)}")
            return _INCOMPLETE

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the commands that have no reply."""
        self.is_lost = True
        error = reason.value
        if not self._abort_reason:
            is_plain = isinstance(error, ConnectionDone | ConnectionLost)
            self._abort_reason = "connection lost" if is_plain else printable(str(error), MAX_REASON)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        pending = {reply: None for reply, _, _ in self._pending if not reply.called}
        self._pending.clear()
        self.lost.callback(self._abort_reason)
        self._runner.resume(pending, Failure(EngineUnavailable(self._abort_reason)))

    def _received(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            match list(reply):
                case [b"message", bytes(channel), bytes(message)]:
                    self._on_message(channel, message)
                    return
            if reply[:1] != [b"subscribe"]:
                return
        if not self._pending:
            self.abort("reply without a command")
            return
        result, _, size = self._pending.popleft()
        self._unanswered_bytes -= size
        if result.called:
            return  # cancelled
        if isinstance(reply, hiredis.ReplyError):
            result.errback(EngineError(printable(str(reply), MAX_REASON)))
        else:
            result.callback(reply)

    def _check_deadline(self) -> None:
        self._deadline = None
        if not self._pending:
            return
        waited = self._clock.seconds() - self._pending[0][1]
        if 0 <= waited < self._timeout:  # below 0 after the clock was set back
            self._deadline = self._clock.callLater(self._timeout - waited, self._check_deadline)
        else:
            self.abort(f"no reply within {self._timeout:g} s")
