"""Collapsed requests: equal requests of several clients are sent to the main process once."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from govi_server.http.state import TimeoutHandler
from govi_server.runtime.cooperative import CooperativeRunner

_Request = TypeVar("_Request", bound=Hashable)
_Response = TypeVar("_Response")


class _InProgress(Generic[_Response]):
    """A request in progress, with the clients that wait for it."""

    __slots__ = ("is_late", "response", "waiters")

    def __init__(self, response: Deferred[_Response]) -> None:
        self.response = response
        self.waiters: dict[Deferred[_Response], None] = {}
        self.is_late = False


class CollapsedRequests(Generic[_Request, _Response]):
    """The requests in progress (RFC 9111 section 4, collapsed requests).

    send: sends a request. timeout: seconds until a request is cancelled, and make_late_response() makes its response.
    A request is cancelled as well when the clients that wait for it have left, so there are no more than clients.
    """

    def __init__(
        self,
        clock: IReactorTime,
        runner: CooperativeRunner,
        timeout: float,
        send: Callable[[_Request], Deferred[_Response]],
        make_late_response: Callable[[], _Response],
    ) -> None:
        self._runner = runner
        self._send = send
        self._make_late_response = make_late_response
        self._requests: dict[_Request, _InProgress[_Response]] = {}
        self._timeouts: TimeoutHandler[_InProgress[_Response]] = TimeoutHandler(clock, timeout, _expire)

    def __len__(self) -> int:
        return len(self._requests)

    def join(self, request: _Request) -> tuple[Deferred[_Response], bool]:
        """Return a Deferred of the response to a request, and whether the request was in progress before.

        Cancelling the Deferred ends this wait only.
        """
        entry = self._requests.get(request)
        is_joined = entry is not None
        if entry is None:
            entry = self._requests[request] = _InProgress(self._send(request))
            self._timeouts.start(entry)
        waiter: Deferred[_Response] = Deferred(lambda waiter: self._leave(request, entry, waiter))
        entry.waiters[waiter] = None
        if not is_joined:
            entry.response.addBoth(self._resume, request, entry)
        return waiter, is_joined

    def _leave(self, request: _Request, entry: _InProgress[_Response], waiter: Deferred[_Response]) -> None:
        if entry.waiters.pop(waiter, waiter) is None and not entry.waiters:
            entry.response.cancel()

    def _resume(self, result: _Response | Failure, request: _Request, entry: _InProgress[_Response]) -> None:
        self._timeouts.stop(entry)
        del self._requests[request]
        if entry.is_late and isinstance(result, Failure):  # not always with a CancelledError
            result = self._make_late_response()
        self._runner.resume(entry.waiters, result)


def _expire(entry: _InProgress[_Response]) -> None:
    entry.is_late = True
    entry.response.cancel()
