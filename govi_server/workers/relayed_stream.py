"""An event stream of the main process, relayed to all clients of a worker that request it (WHATWG HTML 9.2)."""

import re
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Cooperator

from govi_server.http.event_listeners import EventListeners
from govi_server.http.stream import Stream
from govi_server.workers.fields import RESULT
from govi_server.workers.response import client_fields
from govi_server.workers.upstream_connection import MAX_BODY_BYTES, Message, UpstreamConnection, UpstreamError

CHECK_INTERVAL = 0.5
"""Seconds after which the latest event is sent again to clients that could not receive it."""

JOIN_SECONDS = 5.0
"""Seconds from the first event within which the clients that waited for it join, as a worker's time permits."""

_RETRY = re.compile(rb"^retry: .*\n", re.MULTILINE)
_ID = re.compile(rb"^id: (.*)$", re.MULTILINE)
_BYE = re.compile(rb"^event: bye$", re.MULTILINE)


class RelayedStream:
    """An event stream that the main process sends once for all clients.

    An event with an id, such as a board, replaces the one before it, so it is all that a client needs that joins
    later. The others are beats. ended: called when the main process has ended the stream, or no client listens.
    """

    def __init__(
        self,
        clock: IReactorTime,
        cooperator: Cooperator,
        message: Message,
        connection: UpstreamConnection,
        ended: Callable[[], object],
    ) -> None:
        self.fields = client_fields(message.fields)
        self.stop = dict(message.fields).get(RESULT, "").partition(" ")[2]
        self.first_event: Deferred[None] = Deferred(lambda first: connection.abort())
        """Fires when clients may join; fails with UpstreamError if the stream ends before. Cancelling it ends it."""
        self._listeners = EventListeners(cooperator)
        self._clock = clock
        self._connection = connection
        self._on_ended = ended
        self._buffer = bytearray()
        self._is_ended = False
        self._check_call: IDelayedCall | None = None
        self._join_call: IDelayedCall | None = None
        """The end of the time in which clients join; until then the stream has a use without any."""
        connection.read_stream(self._receive, self._end)

    def join(self, stream: Stream, last: str) -> None:
        """Add a client. last: the id of its last event."""
        self._listeners.join(stream, last)
        if self._is_ended:
            stream.end()
        else:
            self._schedule_check()

    def leave(self, stream: Stream) -> None:
        """Remove a client."""
        self._listeners.leave(stream)
        self._abort_if_unused()

    def _receive(self, data: bytes) -> None:
        searched = len(self._buffer)
        self._buffer += data
        while (end := self._buffer.find(b"\n\n", max(searched - 1, 0)) + 2) > 1:
            event = bytes(self._buffer[:end])
            del self._buffer[:end]
            searched = 0
            self._relay(_RETRY.sub(b"", event))  # each client has a time of its own
        if len(self._buffer) > MAX_BODY_BYTES:
            self._connection.abort()

    def _relay(self, event: bytes) -> None:
        if match := _ID.search(event):
            self._listeners.id, self._listeners.event = match[1].decode("latin-1"), event
            self._listeners.send_latest()
            self._schedule_check()
            if not self.first_event.called:
                self._join_call = self._clock.callLater(JOIN_SECONDS, self._end_joining)
                self.first_event.callback(None)
        elif not _BYE.search(event):  # a client's stream ends with its own
            self._listeners.send_beat()

    def _schedule_check(self) -> None:
        if self._check_call is None and self._listeners.are_outdated:
            self._check_call = self._clock.callLater(CHECK_INTERVAL, self._check)

    def _check(self) -> None:
        self._check_call = None
        self._listeners.send_latest()
        self._schedule_check()

    def _end_joining(self) -> None:
        self._join_call = None
        self._abort_if_unused()

    def _abort_if_unused(self) -> None:
        if not self._listeners and self._join_call is None:
            self._connection.abort()

    def _end(self) -> None:
        self._is_ended = True
        if not self.first_event.called:
            self.first_event.errback(UpstreamError("connection closed before the first event"))
        self._on_ended()
        self._listeners.end()
        for call in (self._check_call, self._join_call):
            if call is not None:
                call.cancel()
        self._check_call = self._join_call = None
