"""The work of requests: in short steps, charged before it is done, and for lists of up to 1,000 codes.

Table-driven over all operations that the modules describe: a new one must be added here.
"""

import re
from collections.abc import Callable, Generator, Iterator
from functools import cache
from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.times import local_timestamp, write_time
from govi_server.documents import board as board_documents
from govi_server.documents.ovapi import OvapiDocuments
from govi_server.documents.siri import SiriDocuments
from govi_server.http.caching import representation
from govi_server.http.client_limits import ClientLimits
from govi_server.kv78turbo import display, joined_stop, journeys
from govi_server.kv78turbo.kv7_timetable import Timetable
from govi_server.kv78turbo.kv8_columns import parse_passtime
from govi_server.kv78turbo.stop_departures import COST_PASSTIMES
from govi_server.modules.kv55_feed import Kv55Feed
from govi_server.modules.query_parameters import MAX_CODES
from govi_server.pages import board_page
from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.settings import AccessSettings
from tests import feed as kv
from tests.client import Client, Response
from tests.examples import MORNING, Program

STOPS, JOURNEYS, LINES = 40, 30, 3
DAY = local_timestamp(MORNING)[:10]
CODES = [str(30000001 + n) for n in range(STOPS)]
AREAS = [f"Area{n}" for n in range(STOPS // 10)]

LISTS = ",".join(CODES)
PATHS: dict[str, tuple[str, ...]] = {
    "/kv55/{TimingPointCodes}": (f"/kv55/{CODES[0]}", f"/kv55/{LISTS}?limit=5", f"/kv55/{LISTS}?horizon=1440"),
    "/tpc/": ("/tpc/", "/tpc"),
    "/tpc/{TimingPointCodes}": (f"/tpc/{CODES[0]}", f"/tpc/{LISTS}", f"/tpc/{LISTS}?line=none"),
    "/tpc/{TimingPointCodes}/departures": (f"/tpc/{LISTS}/departures", f"/tpc/{CODES[0]}/departures"),
    "/stopareacode/": ("/stopareacode/",),
    "/stopareacode/{StopAreaCodes}": (f"/stopareacode/{','.join(AREAS)}?horizon=1440", "/stopareacode/Area1"),
    "/stopareacode/{StopAreaCodes}/departures": (f"/stopareacode/{','.join(AREAS)}/departures",),
    "/line/": ("/line/",),
    "/line/{Lines}": ("/line/LIN_L0_1,LIN_L1_1,LIN_L2_1", "/line/LIN_L0_1"),
    "/line/{Lines}/actuals": ("/line/LIN_L0_1,LIN_L1_1,LIN_L2_1/actuals",),
    "/journey/": ("/journey/",),
    "/journey/{Journeys}": ("/journey/" + ",".join(f"LIN_77_L0_{n}_0" for n in range(JOURNEYS)),),
    "/generalmessage": ("/generalmessage",),
    "/lastupdate": ("/lastupdate",),
    "/board/{TimingPointCodes}": (f"/board/{LISTS}", f"/board/{LISTS}?horizon=1440", f"/board/{CODES[0]}"),
    "/events/{TimingPointCodes}": (f"/events/{LISTS}", f"/events/{CODES[0]}?as=json"),
    "/siri/stop-monitoring.json": (f"/siri/stop-monitoring.json?MonitoringRef={CODES[0]}&PreviewInterval=P1D",),
    "/places": ("/places?q=l",),
    "/trip/{Journey}": ("/trip/LIN_77_L0_1_0",),
    "/near": ("/near?lat=52.1&lon=5.3",),
    "/": ("/", "/?q=l"),
    "/docs": ("/docs",),
    "/make": (f"/make?stop={CODES[0]}", "/make?q=l"),
    "/favicon.ico": ("/favicon.ico",),
    "/openapi.json": ("/openapi.json",),
    "/assets/{name}": ("/assets/board.css",),
}
"""Requests of each operation, by its template."""

LIST_PATHS = ("/kv55/{}", "/tpc/{}", "/tpc/{}/departures", "/board/{}", "/events/{}")
"""Paths with a list of TimingPointCodes."""

COUNTED: tuple[tuple[Any, str], ...] = (
    (joined_stop, "parse_passtime"),
    (journeys, "parse_passtime"),
    (Timetable, "_passtime"),
    (OvapiDocuments, "passtime"),
    (SiriDocuments, "_visit"),
    (Kv55Feed, "_trip"),
    (display, "_row"),
    (board_page, "_row"),
    (board_documents, "_json"),
)
"""Functions that each handle one passtime; the first three parse one."""

MAX_STEP = 4
"""Passtimes that a step may handle: about a tenth of a millisecond."""


def rows(status: str) -> Iterator[dict[str, str | None]]:
    """Yield a row for each journey and stop; every journey calls at every stop."""
    for line in range(LINES):
        for journey in range(JOURNEYS // LINES):
            for n, code in enumerate(CODES):
                time = write_time(6 * 3600 + 600 + journey * 600 + n * 30)
                kind = "FIRST" if n == 0 else "LAST" if n == STOPS - 1 else "INTERMEDIATE"
                yield {
                    "LinePlanningNumber": f"L{line}", "JourneyNumber": str(journey * LINES), "OperationDate": DAY,
                    "UserStopOrderNumber": str(n + 1), "UserStopCode": code, "TimingPointCode": code,
                    "TargetArrivalTime": time, "TargetDepartureTime": time, "ExpectedArrivalTime": time,
                    "ExpectedDepartureTime": time, "JourneyStopType": kind, "TripStopStatus": status,
                    "LastUpdateTimeStamp": local_timestamp(MORNING),
                }  # fmt: skip


@cache
def messages() -> list[bytes]:
    """Return the messages of the feed: planned journeys, twice as many as are under way, on one day."""
    points = [
        {"TimingPointCode": code, "StopAreaCode": AREAS[n % len(AREAS)], "TimingPointName": f"Lindedorp, L {code}"}
        for n, code in enumerate(CODES)
    ]
    stops = [{"UserStopCode": code, "TimingPointCode": code} for code in CODES]
    planned = [
        {**row, "JourneyNumber": str(int(row["JourneyNumber"] or 0) + later)}
        for row in rows("PLANNED")
        for later in (0, 1)
    ]
    published = local_timestamp(MORNING)
    return [
        kv.planning(*planned, points=points, user_stops=stops, published=published),
        kv.calendar(DAY, published=published),
        kv.passtimes(*rows("DRIVING"), published=published),
    ]


class WorkTestCase(SynchronousTestCase):
    """All modules, with a feed of lines that call at every stop."""

    def setUp(self) -> None:
        self.program = Program("feed", has_data=False)
        assert self.program.components.feed is not None
        self.feed = self.program.components.feed
        self.limit(1_000_000)
        self.ingest(*messages())
        self.counts = {"all": 0, "live": 0, "parsed": 0, "in steps": 0, "largest step": 0}
        for i, (owner, name) in enumerate(COUNTED):
            self.patch(owner, name, self.counted(getattr(owner, name), parses=i < 3))
        self.patch(CooperativeRunner, "run", self.run_counted)

    def ingest(self, *messages: bytes) -> None:
        for message in messages:
            for _ in self.feed.ingest(iter([message]), "LIN"):
                pass

    def limit(self, burst: int) -> None:
        access = ClientLimits(self.program.clock, AccessSettings(rate=1, burst=burst))
        self.program.server.access = access

    def counted(self, function: Callable[..., Any], parses: bool) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.counts["all"] += 1
            self.counts["live"] += function is parse_passtime
            self.counts["parsed"] += parses
            return function(*arguments)

        return call

    async def run_counted(self, steps: Generator[None, None, Any]) -> Any:
        """Run work as CooperativeRunner.run() does, without a pause; count what each step handles."""
        while True:
            before = self.counts["all"]
            try:
                next(steps)
            except StopIteration as end:
                return end.value
            finally:
                handled = self.counts["all"] - before
                self.counts["in steps"] += handled
                self.counts["largest step"] = max(self.counts["largest step"], handled)

    def request(self, path: str) -> Response:
        client = Client(self.program.server, IPv4Address("TCP", "192.0.2.1", 4000))
        client.get(path, Accept="application/json" if "/board" in path and "horizon" in path else "*/*")
        for _ in range(100):
            if client.transport.value():
                break
            self.program.clock.advance(0.001)
        response = client.response()
        client.leave()
        return response


class StepTests(WorkTestCase):
    """The steps of the work."""

    def test_every_operation_is_tested(self) -> None:
        """The table has the operations that the modules describe."""
        described = {operation.template for operation in self.program.operations}
        self.assertEqual(described - PATHS.keys(), set())

    def test_steps_are_short(self) -> None:
        """All passtimes are handled in steps, each of which handles few of them."""
        self.feed.boards.joined.max_bytes = 0  # nothing is remembered of the previous request
        handled = 0
        for path in (path for paths in PATHS.values() for path in paths):
            self.counts.update(dict.fromkeys(self.counts, 0))
            self.assertIn(self.request(path).status, (200, 404), path)
            self.assertLessEqual(self.counts["largest step"], MAX_STEP, path)
            self.assertEqual(self.counts["all"], self.counts["in steps"], path)
            handled += self.counts["all"]
        self.assertGreater(handled, 30_000)


class CostTests(WorkTestCase):
    """What requests are charged."""

    def charged(self, path: str) -> int:
        """Return what a request was charged to its client."""
        charged = []
        access = self.program.server.access
        with mock.patch.object(access, "seconds_to_wait", wraps=access.seconds_to_wait) as wait:
            self.request(path)
            charged = [(*call.args, 1)[1] for call in wait.call_args_list]
        return sum(charged)

    def test_pages_are_made_in_steps(self) -> None:
        """Pages are rendered in steps, and not compressed in one."""
        n_steps: list[int] = []

        async def run(_: CooperativeRunner, steps: Generator[None, None, Any]) -> Any:
            n_steps.append(0)
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    return end.value
                n_steps[-1] += 1

        self.patch(CooperativeRunner, "run", run)
        self.patch(representation, "run_now", lambda steps: self.fail("made in one step"))
        for path in ("/", "/trip/LIN_77_L0_1_0", f"/make?stop={CODES[0]}"):
            self.assertEqual(self.request(path).status, 200, path)
            self.assertGreater(n_steps[-1], 3, path)

    def test_charge_covers_the_work(self) -> None:
        """A request is charged for each stop and two hours, and for every 20 passtimes (for stops: of KV8)."""
        self.feed.boards.joined.max_bytes = 0
        for path in (path for paths in PATHS.values() for path in paths):
            self.counts.update(dict.fromkeys(self.counts, 0))
            charged = self.charged(path)
            stops = len(re.findall(r"3[0-9]{7}", path)) or path.count("Area") * STOPS // len(AREAS)
            passtimes = self.counts["live" if stops else "parsed"]
            self.assertGreaterEqual(charged * COST_PASSTIMES, passtimes, path)
            self.assertGreaterEqual(charged, stops * (12 if "1440" in path or "P1D" in path else 1), path)

    def test_cached_response_costs_one(self) -> None:
        """A response from memory costs 1, for any number of stops."""
        for path in (f"/board/{','.join(CODES[:5])}", f"/kv55/{CODES[0]}", f"/tpc/{CODES[1]}", "/places?q=l"):
            self.charged(path)
            self.assertEqual(self.charged(path), 1, path)

    def test_rejected_request_causes_no_work(self) -> None:
        """A request beyond the client's rate is rejected before its work is done."""
        self.limit(30)
        for path in (path for paths in PATHS.values() for path in paths):
            self.program.clock.advance(31)
            self.request(path)
            self.counts.update(dict.fromkeys(self.counts, 0))
            response = self.request("/tpc/" + ",".join(CODES[:30]))
            self.assertEqual((response.status, self.counts["all"]), (429, 0), path)
            self.assertGreater(int(response.headers["Retry-After"]), 0)

    def test_most_expensive_request_is_served(self) -> None:
        """A request that costs more than burst is charged burst, and served to a client that has rested."""
        self.limit(30)
        for _ in range(2):
            self.program.clock.advance(31)
            self.assertEqual(self.request(f"/tpc/{LISTS}").status, 200)
            self.assertEqual(self.request(f"/tpc/{CODES[0]}").status, 429)


class ListTests(WorkTestCase):
    """The length of lists."""

    def test_thousand_codes_are_served(self) -> None:
        """Lists of 1,000 codes are served, with duplicates and additional commas."""
        others = [str(n) for n in range(MAX_CODES - 1)]
        for template in LIST_PATHS:
            path = template.format(",".join([CODES[0], *others, CODES[0], "", ""]))
            response = self.request(path)
            self.assertEqual(response.status, 200, template)
            self.assertIn(CODES[0].encode(), response.body)

    def test_more_codes_are_rejected(self) -> None:
        """A longer list is a 400 whose text states the limit, also for lines, journeys and areas."""
        codes = ",".join(str(n) for n in range(MAX_CODES + 1))
        for template in (*LIST_PATHS, "/line/{}", "/line/{}/actuals", "/journey/{}", "/stopareacode/{}"):
            response = self.request(template.format(codes))
            self.assertEqual(response.status, 400, template)
            self.assertRegex(response.body, rb"^\w+ must be at most 1000, not 1001\n$")
            self.assertEqual(self.counts["all"], 0)

    def test_stops_of_areas_count(self) -> None:
        """Areas with more than 1,000 stops together are a 400."""
        points = [{"TimingPointCode": str(n), "StopAreaCode": f"New{n % 2}"} for n in range(MAX_CODES + 1)]
        self.ingest(kv.planning(points=points, published=local_timestamp(MORNING)))
        self.assertEqual(self.request("/stopareacode/New0").status, 200)
        response = self.request("/stopareacode/New0,New1")
        self.assertEqual(
            (response.status, response.body), (400, b"StopAreaCodes must have at most 1000 stops, not 1001\n")
        )
