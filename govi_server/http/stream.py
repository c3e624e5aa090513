"""Answers without an end of their own: what is written goes out at once, for as long as the client stays."""

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from govi_server.sockets.transport import write_now

if TYPE_CHECKING:
    from govi_server.request_handler import RequestHandler


class Stream:
    """A body that goes on. The connection closes behind it (RFC 9112 section 6.3, the last way to tell its length).

    farewell: what is written when the server ends it.
    """

    def __init__(self, handler: "RequestHandler", farewell: bytes) -> None:
        self._handler = handler
        self._farewell = farewell
        self.size = 0
        """Bytes that were written."""
        self.ended: Deferred[None] = Deferred()
        """Fires when the server ends; is cancelled with the request when the client has gone."""

    def write(self, data: bytes) -> bool:
        """Write something whole, or nothing while the client does not take what there is; tell whether it was."""
        if self._handler.write_paused or self._handler.connection.closing:
            return False
        self.size += len(data)
        write_now(self._handler.sock, data)
        return True

    def end(self) -> None:
        """Say farewell; the connection closes."""
        self.write(self._farewell)
        if not self.ended.called:
            self.ended.callback(None)
