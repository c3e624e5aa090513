"""Send requests to the main process over persistent connections."""

from typing import cast

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory

from govi_server.workers.upstream_connection import Message, UpstreamConnection, UpstreamError

MAX_CONNECTING = 32
"""Connections that are opened at a time, which are accepted in one turn of the main process."""


class Upstream:
    """Sends requests to the main process. endpoint: its address. There are as many connections as requests."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint
        self._idle: dict[UpstreamConnection, None] = {}
        self._connecting = DeferredSemaphore(MAX_CONNECTING)
        self._factory = Factory.forProtocol(lambda: UpstreamConnection(self._released, self._lost))
        self._factory.noisy = False

    async def send(self, request: bytes) -> tuple[Message, UpstreamConnection]:
        """Send a request; return the response and its connection. Raises UpstreamError.

        A request is repeated if the main process has closed the idle connection meanwhile.
        """
        if self._idle:
            connection, _ = self._idle.popitem()
            try:
                return await connection.send(request), connection
            except UpstreamError as error:
                if not error.is_stale:
                    raise
        connection = await self._connect()
        return await connection.send(request), connection

    async def _connect(self) -> UpstreamConnection:
        await self._connecting.acquire()
        try:
            return cast(UpstreamConnection, await self._endpoint.connect(self._factory))
        except ConnectError as error:
            raise UpstreamError(f"no connection to the main process ({error})", "503 Service Unavailable") from None
        finally:
            self._connecting.release()

    def _released(self, connection: UpstreamConnection) -> None:
        self._idle[connection] = None

    def _lost(self, connection: UpstreamConnection) -> None:
        self._idle.pop(connection, None)
