"""Endless responses: each write is sent immediately, for as long as the client is connected."""

from twisted.internet.defer import Deferred

from govi_server.http.state import Lifecycle, State
from govi_server.sockets.transport import IClientTransport, write_now


class Stream:
    """A body that ends when its connection closes (RFC 9112 section 6.3, item 8).

    final_chunk: written when the server ends the stream.
    """

    def __init__(self, sock: IClientTransport, connection: Lifecycle, final_chunk: bytes) -> None:
        self._sock = sock
        self._connection = connection
        self._final_chunk = final_chunk
        self.size = 0
        """Bytes written."""
        self.ended: Deferred[None] = Deferred()
        """Fires when the server ends the stream; cancelled with the request when the client closes the connection."""

    def write(self, data: bytes) -> bool:
        """Write all of data, or nothing while the client does not read and after the end; return whether it was."""
        if self._connection.state is not State.STREAMING or self.ended.called:
            return False
        self.size += len(data)
        write_now(self._sock, data)
        return True

    def end(self) -> None:
        """Write the final chunk and fire ``ended``; then the connection is closed."""
        self.write(self._final_chunk)
        if not self.ended.called:
            self.ended.callback(None)
