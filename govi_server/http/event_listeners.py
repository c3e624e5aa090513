"""The clients of an event stream, which all receive its latest event (WHATWG HTML 9.2)."""

from collections.abc import Callable, Iterator
from random import Random

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.python.failure import Failure

from govi_server.http.stream import Stream

RETRY_RANGE = (2000, 8000)
"""Milliseconds until a client reconnects; random, so that not all clients reconnect together."""

# The comment prevents proxies from closing the connection. Scripts in browsers do not see comments, so the event lets
# them distinguish a lost connection from an idle one.
BEAT = b":\nevent: beat\ndata:\n\n"

_random = Random()


def retry_field() -> bytes:
    """Return the field with the time after which a client reconnects.

    It is part of an event: some clients report a block of lines without data as an empty event.
    """
    return b"retry: %d\n" % _random.randint(*RETRY_RANGE)


def bye() -> bytes:
    """Return the last event of a stream, before the server stops."""
    return retry_field() + b"event: bye\ndata:\n\n"


class EventListeners:
    """The clients of an event stream, each with the id of the last event that it received.

    A client that does not read receives only the latest event, after it has read again. cooperator: runs the sending,
    which takes 10 us for each client.
    """

    log = Logger()

    def __init__(self, cooperator: Cooperator) -> None:
        self.id = ""
        self.event = b""
        """The latest event, with its id."""
        self._cooperator = cooperator
        self._received: dict[Stream, str] = {}
        self._sending: Deferred[None] | None = None

    def __len__(self) -> int:
        return len(self._received)

    def join(self, stream: Stream, last: str) -> None:
        """Add a client, and send it the latest event, or a beat if it has it. last: the id of its last event."""
        self._received[stream] = self.id
        if not stream.write(retry_field() + (BEAT if last == self.id else self.event)):
            self._received[stream] = last

    def leave(self, stream: Stream) -> None:
        """Remove a client."""
        del self._received[stream]

    @property
    def are_outdated(self) -> bool:
        """Whether a client has not received the latest event."""
        return any(event_id != self.id for event_id in self._received.values())

    def send_latest(self) -> None:
        """Begin to send the latest event to the clients that have not received it."""
        outdated = [stream for stream, event_id in self._received.items() if event_id != self.id]
        if outdated and self._sending is None:
            self._sending = self._for_each(outdated, self._send).addBoth(self._sent)

    def send_beat(self) -> None:
        """Begin to send a beat to all clients."""
        self._for_each(list(self._received), lambda stream: stream.write(BEAT)).addErrback(self._log_failure)

    def end(self) -> None:
        """Begin to end all streams."""
        self._for_each(list(self._received), Stream.end).addErrback(self._log_failure)

    def _send(self, stream: Stream) -> None:
        """Send the latest event to a client, unless it has received it, has left, or does not read."""
        if self._received.get(stream, self.id) != self.id and stream.write(self.event):
            self._received[stream] = self.id

    def _sent(self, result: object) -> None:
        self._sending = None
        self._log_failure(result)

    def _log_failure(self, result: object) -> None:
        if isinstance(result, Failure) and not result.check(CancelledError):
            self.log.failure("Sending events failed", result)

    def _for_each(self, streams: list[Stream], send: Callable[[Stream], object]) -> Deferred[Iterator[None]]:
        """Call a function with each stream, in cooperative steps."""

        def steps() -> Iterator[None]:
            for stream in streams:
                send(stream)
                yield

        return self._cooperator.coiterate(steps())
