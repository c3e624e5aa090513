"""The main process's side of a worker's connection."""

from collections.abc import Callable

from twisted.python.failure import Failure

from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.response import Headers, pairs
from govi_server.http.stream import Stream
from govi_server.request_handler import RequestHandler
from govi_server.statistics.records import CacheResult, Phase
from govi_server.workers.fields import CHARGED, COST, RESULT


class _NotCharged(Exception):
    """The worker must charge the work of a request to its client. cost: see Responder."""

    def __init__(self, cost: int) -> None:
        super().__init__(cost)
        self.cost = cost


class OriginHandler(RequestHandler):
    """Serves workers as RequestHandler serves clients, except for limits and statistics, which are the workers' own.

    Work that costs more than a request is done only if the worker has charged it: otherwise the response states the
    cost. So a request does not name its client, and equal requests of different clients are equal byte for byte.
    Every response states what the worker records in its statistics.
    """

    _cache: CacheResult = "none"
    _stop = ""

    def next_request(self) -> None:
        """Discard the current request."""
        super().next_request()
        self._cache, self._stop = "none", ""

    def mark(self, phase: Phase, cache: CacheResult | None = None) -> None:
        """Record the cache's result for the worker."""
        super().mark(phase, cache)
        self._cache = cache or self._cache

    def set_stop(self, stop: str) -> None:
        """Set the stop of the request: a TimingPointCode, SEVERAL or ""."""
        super().set_stop(stop)
        self._stop = stop

    def charge(self, cost: int) -> None:
        """Reject a request whose client the worker has not charged for work."""
        if cost > 1 and self._env is not None and CHARGED not in self._env:
            raise _NotCharged(cost)

    def send_response(self, response: str | bytes, status: str = "200 Ok", headers: Headers | None = None) -> None:
        """Send a response."""
        super().send_response(response, status, [*pairs(headers or ()), _result(self._cache, self._stop)])

    def send_representation(self, response: CachedResponse, unchanged: bool) -> None:  # type: ignore[override]
        """Send a cached response."""
        super().send_representation(_with_result(response, self._stop), unchanged)

    def stream(self, headers: Headers, final_chunk: bytes) -> Stream:
        """Begin a response that lasts until either side closes the connection."""
        return super().stream([*pairs(headers), _result(self._cache, self._stop)], final_chunk)

    def store_in_memo(self, respond: Callable[[], object], stop: str) -> None:
        """Let the fast path respond to later requests with the same header section."""

        def respond_with_result() -> object:
            response = respond()
            return _with_result(response, stop) if isinstance(response, CachedResponse) else response

        super().store_in_memo(respond_with_result, stop)

    def _respond_to(self, failure: Failure) -> None:
        if isinstance(failure.value, _NotCharged):
            self.send_response(b"", "402 Payment Required", {COST: f"{failure.value.cost}"})
        else:
            super()._respond_to(failure)


def _with_result(response: CachedResponse, stop: str) -> CachedResponse:
    return response._replace(headers=(*response.headers, _result(response.cache, stop)))


def _result(cache: CacheResult, stop: str) -> tuple[str, str]:
    return RESULT, f"{cache} {stop}".rstrip()
