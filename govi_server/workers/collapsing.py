"""Send equal requests of several clients to the main process once."""

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from govi_server.runtime.cooperative import CooperativeRunner

_Request = TypeVar("_Request", bound=Hashable)
_Response = TypeVar("_Response")


class _InProgress(Generic[_Response]):
    """A request in progress, with the clients that wait for it."""

    def __init__(self, response: Deferred[_Response]) -> None:
        self.response = response
        self.waiters: dict[Deferred[_Response], None] = {}


class CollapsedRequests(Generic[_Request, _Response]):
    """The requests in progress (RFC 9111 section 4, collapsed requests).

    send: sends a request. A request is cancelled when the clients that wait for it have left, so there are at most as
    many as clients.
    """

    def __init__(self, runner: CooperativeRunner, send: Callable[[_Request], Coroutine[Any, Any, _Response]]) -> None:
        self._send = send
        self._runner = runner
        self._requests: dict[_Request, _InProgress[_Response]] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def join(self, request: _Request) -> tuple[Deferred[_Response], bool]:
        """Return a Deferred of the response to a request, and whether the request was in progress before.

        Cancelling the Deferred ends this wait only.
        """
        entry = self._requests.get(request)
        is_joined = entry is not None
        if entry is None:
            entry = self._requests[request] = _InProgress(Deferred.fromCoroutine(self._send(request)))
        waiter: Deferred[_Response] = Deferred(lambda waiter: self._leave(request, entry, waiter))
        entry.waiters[waiter] = None
        if not is_joined:
            entry.response.addBoth(self._resume, request, entry)
        return waiter, is_joined

    def _leave(self, request: _Request, entry: _InProgress[_Response], waiter: Deferred[_Response]) -> None:
        if entry.waiters.pop(waiter, waiter) is None and not entry.waiters:
            del self._requests[request]
            entry.response.cancel()

    def _resume(self, result: _Response | Failure, request: _Request, entry: _InProgress[_Response]) -> None:
        if isinstance(result, Failure) and result.check(CancelledError):
            return  # no client waits
        del self._requests[request]
        self._runner.resume(entry.waiters, result)
