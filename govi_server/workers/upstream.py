"""Send requests to the main process over persistent connections."""

from typing import cast

from twisted.internet.defer import Deferred, DeferredSemaphore, fail
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from govi_server.workers.upstream_connection import Message, UpstreamConnection, UpstreamError

MAX_CONNECTING = 32
"""Connections that are opened at a time, which are accepted in one turn of the main process."""


class Upstream:
    """Sends requests to the main process. endpoint: its address. There are as many connections as requests.

    The main process closes idle connections.
    """

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint
        self._idle: dict[UpstreamConnection, None] = {}
        self._connecting = DeferredSemaphore(MAX_CONNECTING)
        self._factory = Factory.forProtocol(lambda: UpstreamConnection(self._released, self._lost))
        self._factory.noisy = False

    def send(self, request: bytes) -> Deferred[Message]:
        """Send a request; return a Deferred of the response, which may fail with UpstreamError.

        A request is repeated once if the main process has closed the idle connection meanwhile.
        """
        if self._idle:
            connection, _ = self._idle.popitem()
            return connection.send(request).addErrback(self._repeat, request)
        return Deferred.fromCoroutine(self._connect_and_send(request))

    def _repeat(self, failure: Failure, request: bytes) -> Deferred[Message]:
        if isinstance(failure.value, UpstreamError) and failure.value.is_stale:
            return Deferred.fromCoroutine(self._connect_and_send(request))
        return fail(failure)

    async def _connect_and_send(self, request: bytes) -> Message:
        await self._connecting.acquire()
        try:
            connection = cast(UpstreamConnection, await self._endpoint.connect(self._factory))
        except ConnectError as error:
            reason = f"no connection to the main process ({error})"
            raise UpstreamError(reason, "503 Service Unavailable") from None
        finally:
            self._connecting.release()
        return await connection.send(request)

    def _released(self, connection: UpstreamConnection) -> None:
        self._idle[connection] = None

    def _lost(self, connection: UpstreamConnection) -> None:
        self._idle.pop(connection, None)
