"""Tests that a worker's responses equal those of a single process."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.board import Board, Trip
from govi_server.departures.cache import BoardCache
from govi_server.http import event_listeners
from govi_server.http.caching.representation import make_representation
from govi_server.http.request import Environ
from govi_server.kv55.messages import CONTENT_TYPE, LICENSE, write_dris_55
from govi_server.modules.assets import Assets
from govi_server.modules.board import BoardPages
from govi_server.modules.display_source import CacheDisplays
from govi_server.modules.kv55_gateway import Kv55Gateway
from govi_server.request_handler import RequestHandler
from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.server import Server
from govi_server.settings import CacheSettings
from govi_server.workers.origin import OriginHandler
from govi_server.workers.proxy import SELECTING_FIELDS, Proxy
from tests.client import NOW, Client, Response
from tests.doubles import FakeSource
from tests.examples import SOURCES, Program
from tests.workers.case import WorkerProgram, compare, differences
from tests.workers.pipe import PipeEndpoint

_ACCEPT = st.sampled_from(("text/html", "*/*", "application/json, */*;q=0.1", "text/plain;q=0", "a/b", ", ,"))
_ENCODING = st.sampled_from(("gzip", "gzip;q=0", "identity;q=0, *", "deflate, gzip;q=0.5", "br", "x-gzip, identity"))
_LANGUAGE = st.sampled_from(("de", "fr;q=0.5, en", "nl-BE", "xx, *;q=0.1", "EN"))
BOARD = Board("57330430", (Trip("2026-01-01", target_departure_time="01:30:00"),), NOW - 7.6)
TAG = make_representation(write_dris_55([BOARD], LICENSE), CONTENT_TYPE, False).etag

_TAGS = st.sampled_from(("*", '"x"', 'W/"x", "y"', TAG))
_DATES = st.sampled_from(("Wed, 31 Dec 2025 23:59:52 GMT", "Sun, 06 Nov 1994 08:49:37 GMT", "tomorrow"))
_NAMES = {
    "Accept": _ACCEPT, "accept-encoding": _ENCODING, "Accept-Language": _LANGUAGE, "If-None-Match": _TAGS,
    "If-Match": _TAGS, "If-Modified-Since": _DATES, "If-Unmodified-Since": _DATES, "Govi-Charged": st.just("yes"),
    "Connection": st.sampled_from(("close", "keep-alive")), "Origin": st.just("null"),
    "Access-Control-Request-Method": st.just("GET"), "X-Any": st.just("\xe9"),
}  # fmt: skip
_FIELDS = st.lists(
    st.sampled_from(sorted(_NAMES)).flatmap(lambda name: _NAMES[name].map(lambda value: f"{name}: {value}\r\n")),
    max_size=5,
).map("".join)
_PATHS = st.sampled_from(("/kv55/57330430", "/board/57330430", "/assets/front.css", "/kv55/x", "/nothing"))
_METHODS = st.sampled_from(("GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "DELETE", "FOO"))

FIELDS = (
    "",
    "Accept: text/html\r\nAccept-Language: de, en;q=0.5\r\nAccept-Encoding: gzip, br\r\n",
    "Accept: application/json\r\nAccept-Encoding: identity\r\n",
    "Accept: text/plain\r\nAccept: text/html;q=0.1\r\nCookie: a=b\r\nRange: bytes=0-9\r\n",
    "If-None-Match: *\r\nConnection: close\r\n",
    'If-Match: "other"\r\n',
)
PATHS = (
    "/", "/?q=linde&lang=en", "/?lang=xx", "/index.html", "/favicon.ico", "/make", "/board/", "/events/",
    "/assets/front.css", "/assets/none", "/docs", "/docs/",
    "/openapi.json", "/board/57330430", "/board/57330430,57330080?limit=2", "/board/57330430?limit=x", "/board/1",
    "/board", "/kv55/57330430", "/kv55/%35%37330430", "/kv55/1", "/kv55/x%0ay", "/kv55/57330430,57330080",
    "/kv55/57330430?limit=1", "/tpc", "/tpc/57330430", "/tpc/57330430/departures", "/tpc/57330430,57330080",
    "/stopareacode/", "/line/", "/line/x", "/journey/", "/journey/x", "/generalmessage/", "/lastupdate/", "/places",
    "/places?q=markt", "/board/p57330430", "/near?lat=52.22&lon=5.48", "/near?lat=x", "/trip/x",
    "/siri/stop-monitoring.json?MonitoringRef=57330430", "/siri/stop-monitoring.json", "/siri",
    "/events/57330430?as=json", "/events/x", "/nothing", "//", "/%2e%2e/",
)  # fmt: skip
"""Of every module: valid requests, errors, and paths that name nothing."""


def send(program: Program, method: str, path: str, fields: str) -> Response:
    return program.request(path, method=method, more=fields)


class EqualityTests(SynchronousTestCase):
    """A worker beside a single process with the same data."""

    def setUp(self) -> None:
        self.patch(event_listeners, "RETRY_RANGE", (4000, 4000))

    def test_every_module(self) -> None:
        """Responses are the same for every module and source, from the main process and from memory."""
        for source in SOURCES:
            single, worker = Program(source), WorkerProgram(source)
            covered = {path.lstrip("/").partition("/")[0].partition("?")[0] for path in PATHS}
            self.assertEqual({str(module.name) for module in single.modules} - covered, set())
            for path in PATHS:
                for method in ("GET", "GET", "HEAD", "POST", "OPTIONS"):
                    found = compare(single, worker, partial(send, method=method, path=path, fields=FIELDS[0]))
                    self.assertEqual(found, [], f"{source}: {method} {path}")

    def test_header_fields(self) -> None:
        """Responses are the same for fields that select one, preconditions, and fields that no module reads."""
        for fields in FIELDS[1:]:
            single, worker = Program("feed"), WorkerProgram("feed")
            for path in PATHS:
                for _ in range(2):
                    found = compare(single, worker, partial(send, method="GET", path=path, fields=fields))
                    self.assertEqual(found, [], f"{path} {fields!r}")

    def test_modules_read_no_other_fields(self) -> None:
        """The fields that modules read are sent to the main process, or evaluated by the worker."""
        names: set[str] = set()
        get_all = Environ.get_all

        def recording(env: Environ, name: str, failobj: Any = None) -> Any:
            names.add(name)
            return get_all(env, name, failobj)

        self.patch(Environ, "get_all", recording)
        self.patch(Environ, "get", lambda env, name, failobj=None: (recording(env, name) or [failobj])[0])
        self.patch(Environ, "__contains__", lambda env, name: recording(env, name) is not None)
        program = Program("demo")
        for path in PATHS:
            send(program, "GET", path, FIELDS[1])
        items = {"http_host", "request_method", "path_info", "query_string"}
        connection = {"host", "connection", "expect", "content-length", "transfer-encoding"}
        evaluated = {"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "last-event-id"}
        preflight = {"access-control-request-method"}
        self.assertLessEqual(set(SELECTING_FIELDS), names)
        self.assertEqual(names - items - connection - evaluated - preflight - set(SELECTING_FIELDS), set())

    @given(st.lists(st.tuples(_METHODS, _PATHS, _FIELDS, st.sampled_from((0.0, 0.3, 2.0, 40.0))), max_size=6))
    @example([("GET", "/board/57330430", "", pause) for pause in (40.0, 40.0, 2.0, 0.0)])  # stale from the third on
    @settings(deadline=None)
    def test_any_requests(self, requests: list[tuple[str, str, str, float]]) -> None:
        """Responses to any sequence of requests for a gateway's board are the same at any time."""
        clock = MemoryReactorClock()
        clock.advance(NOW)
        modules, origin_modules = _modules(clock), _modules(clock)
        single = _server(clock, modules.__getitem__, RequestHandler)
        origin = _server(clock, origin_modules.__getitem__, OriginHandler)
        proxy = Proxy(cast(Any, clock), PipeEndpoint(clock, origin), list(modules))
        worker = _server(clock, proxy.find_module, RequestHandler)
        for method, path, fields, pause in requests:
            expected, response = (_request(clock, server, method, path, fields) for server in (single, worker))
            self.assertEqual(differences(response, expected), [], f"{method} {path} {fields!r}")
            clock.advance(pause)


ASSETS = Assets()


def _modules(clock: Any) -> dict[str, Any]:
    """Return modules with the board of one stop."""
    source = FakeSource()
    source.immediate = BOARD
    cache = BoardCache(source, clock, CacheSettings(), CooperativeRunner(clock))
    cache.put(BOARD)
    pages = BoardPages(CacheDisplays(cache, clock), clock)
    return {"kv55": Kv55Gateway("kv55", cache), "board": pages, "assets": ASSETS}


def _server(clock: Any, find_module: Callable[[str], object], handler: type[RequestHandler]) -> Server:
    headers = {} if handler is OriginHandler else {"Access-Control-Allow-Origin": "*"}
    return Server("", 0, handler, clock=clock, find_module=find_module, headers=headers)


def _request(clock: MemoryReactorClock, server: Server, method: str, path: str, fields: str) -> Response:
    client = Client(server)
    client.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode("latin-1"))
    for _ in range(8):
        clock.advance(0)
    response = client.response(method)
    client.leave()
    return response
