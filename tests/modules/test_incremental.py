"""Documents made from what is remembered equal, byte for byte, those made from nothing."""

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any
from weakref import ref

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.application.service import Service

from govi_server.departures.times import local_timestamp, write_time
from govi_server.kv78turbo.joined_stop import UNUSED_SECONDS, JoinedStop
from govi_server.modules.board import BoardPages
from govi_server.modules.display_source import FeedDisplays
from govi_server.modules.kv55_feed import Kv55Feed
from govi_server.modules.ovapi import ovapi_modules
from govi_server.modules.siri import PATH, Siri
from govi_server.runtime.bounded_memory import BoundedMemory
from tests import feed as kv
from tests.client import NOW, Response
from tests.doubles import ingest
from tests.modules.board_model import Journey
from tests.modules.test_kv55_feed import LiveTestCase
from tests.modules.test_planned_boards import planning_of

STOPS = ("30000001", "30000002")
USER_STOPS = ("u1", "u2")
JOURNEYS = ("1", "2", "3")
HOUR, MINUTE = 3600, 60

EXAMPLES = int(os.environ.get("GOVI_EXAMPLES", "25"))
"""Sequences of changes; more find more."""

REQUESTS = (
    *(("/kv55/{}", "text/xml"), ("/kv55/{}?limit=2&horizon=60", "text/xml"), ("/kv55/{}?line=4", "text/xml")),
    *(("/tpc/{}", "application/json"), ("/tpc/{}/departures", "application/json")),
    *(("/tpc/{}?direction=1&horizon=1440", "application/json"), ("/stopareacode/Area", "application/json")),
    *((f"{PATH}?MonitoringRef={{}}{line}", "application/json") for line in ("", "&LineRef=4")),
    *(("/board/{}", kind) for kind in ("text/html", "application/json", "text/plain")),
    *(("/board/{}?lang=nl&limit=2", kind) for kind in ("text/html", "application/json", "text/plain")),
    ("/board/{}?fields=time,words,expected,line,stop&horizon=1440", "application/json"),
    ("/board/{}?fields=planned,minutes,destination,state&chars=30", "text/plain"),
    *(("/board/p{}", kind) for kind in ("text/html", "application/json")),
    *((f"/board/{{}}?to={place}", "application/json") for place in (STOPS[1], f"p{STOPS[0]}")),
    ("/board/p{}?after=5&mode=bus&operator=LIN&limit=2", "application/json"),
    ("/board/{}?operator=BUS", "application/json"),
)
"""Requests for a stop, with their media types."""

_MOMENTS = re.compile(rb"<(?:Send|Request)Timestamp>[^<]*<")
"""When a document was made."""


Action = Callable[["IncrementalTests"], object]
_Document = tuple[int, list[tuple[str, str]], bytes]
"""Status, header fields and body."""


def moments(*, arrives: float, departs: float, late: float) -> dict[str, str | None]:
    """Return the times of a row, in minutes from the start of the test."""
    times = {"TargetArrivalTime": arrives, "TargetDepartureTime": departs}
    times |= {"ExpectedArrivalTime": arrives + late, "ExpectedDepartureTime": departs + late}
    return {name: write_time(HOUR + round(minutes * MINUTE)) for name, minutes in times.items()}


PASSTIMES = st.builds(
    lambda times, optional, columns: {**times, **optional, **columns},
    st.builds(
        moments,
        arrives=st.integers(-40, 130),
        departs=st.integers(-40, 130),
        late=st.sampled_from((0, 0.5, 3, 45)),
    ),
    st.fixed_dictionaries(
        {}, optional={name: st.none() for name in ("ExpectedDepartureTime", "TargetDepartureTime", "SideCode")}
    ),
    st.fixed_dictionaries(
        {
            "DataOwnerCode": st.sampled_from(("LIN", "LIN", "BUS")),
            "JourneyNumber": st.sampled_from(JOURNEYS),
            "UserStopOrderNumber": st.sampled_from("34"),
            "TimingPointCode": st.sampled_from(STOPS),
            "UserStopCode": st.sampled_from(USER_STOPS),
            "TripStopStatus": st.sampled_from(("DRIVING", "CANCEL", "PASSED", "ARRIVED", "PLANNED")),
            "JourneyStopType": st.sampled_from(("FIRST", "INTERMEDIATE", "INTERMEDIATE", "LAST")),
            "MessageContent": st.sampled_from((None, "Extra & <stop>")),
            "LinePublicNumber": st.sampled_from((None, "44")),
            "WheelChairAccessible": st.sampled_from(("ACCESSIBLE", "UNKNOWN")),
        }
    ),
)
PLANNED = st.builds(
    lambda minutes, stop, columns: {
        **dict.fromkeys(("TargetArrivalTime", "TargetDepartureTime"), write_time(HOUR + minutes * MINUTE)),
        "UserStopOrderNumber": "34"[stop],
        "UserStopCode": USER_STOPS[stop],
        **columns,
    },
    st.integers(-40, 160),
    st.sampled_from((0, 1)),
    st.fixed_dictionaries(
        {"JourneyNumber": st.sampled_from(JOURNEYS), "ProductFormulaType": st.sampled_from((None, "2"))}
    ),
)


def send_passtimes(rows: list[Mapping[str, str | None]], age: float | None) -> Action:
    """Return the receipt of rows of KV8. age: seconds since their update; None for rows without a timestamp."""

    def act(test: "IncrementalTests") -> None:
        stamp = None if age is None else local_timestamp(test.clock.seconds() - age)
        test.rows = [{**row, "LastUpdateTimeStamp": stamp} for row in rows]
        ingest(test.feed, kv.passtimes(*test.rows))

    return act


def repeat(test: "IncrementalTests") -> None:
    """Receive the latest rows again."""
    ingest(test.feed, kv.passtimes(*test.rows))


def plan(rows: list[Mapping[str, str | None]], number: str) -> Action:
    """Return the publication of a timetable. number: the LinePublicNumber."""

    def act(test: "IncrementalTests") -> None:
        published = local_timestamp(test.clock.seconds())
        points = [{"TimingPointCode": code, "StopAreaCode": "Area"} for code in STOPS]
        stops = [
            {"TimingPointCode": code, "UserStopCode": stop} for code, stop in zip(STOPS, USER_STOPS, strict=True)
        ]
        ingest(
            test.feed,
            kv.planning(
                *rows, points=points, user_stops=stops, lines=[{"LinePublicNumber": number}], published=published
            ),
            kv.calendar("2026-01-01", published=published),
        )

    return act


def plan_from_gtfs(number: str, minutes: Sequence[int], line: str) -> Action:
    """Return the use of a GTFS file: a journey calls at both stops, some minutes after the start of the test."""
    calls = tuple((stop, HOUR + at * MINUTE) for stop, at in zip(STOPS, sorted(minutes), strict=True))
    journey = Journey("LIN", line, "77", number, frozenset({date(2026, 1, 1)}), (*calls, ("30000009", 5 * HOUR)))

    def act(test: "IncrementalTests") -> None:
        test.feed.use_planning(planning_of([journey], date(2025, 12, 30)))
        for _ in range(20):
            test.clock.advance(0)

    return act


def message(code: str, minutes: int) -> Action:
    """Return the receipt of a general message that ends after some minutes."""
    end = local_timestamp(NOW + minutes * MINUTE)
    update = kv.general_message({"TimingPointCode": code, "MessageEndTime": end})
    return lambda test: ingest(test.feed, update)


def delete(code: str) -> Action:
    """Return the deletion of the general message."""
    return lambda test: ingest(test.feed, kv.general_message_delete({"TimingPointCode": code}))


def wait(seconds: float) -> Action:
    """Return a step of the clock, which may be backwards."""

    def act(test: "IncrementalTests") -> None:
        test.clock.rightNow += seconds

    return act


def sweep(test: "IncrementalTests") -> None:
    """Remove what has expired."""
    for steps in (test.feed.passtimes.sweep(), test.feed.timetable.sweep()):
        for _ in steps:
            pass


def evict(test: "IncrementalTests") -> None:
    """Evict everything that is remembered."""
    test.forget(test.feed.boards.joined, test.feed.boards.documents)


def evict_joined(test: "IncrementalTests") -> None:
    """Evict the joined passtimes, but not the documents."""
    test.forget(test.feed.boards.joined)


def drop_parts(test: "IncrementalTests") -> None:
    """Drop the parts of documents that were not used since the last time."""
    for code in STOPS:
        joined = test.feed.boards.joined.get(code)
        for entry in () if joined is None else joined.passtimes:
            entry.fragments.drop_unused()


def check(test: "IncrementalTests") -> None:
    """Compare all documents."""
    test.check()


ACTIONS: st.SearchStrategy[Action] = st.one_of(
    st.builds(send_passtimes, st.lists(PASSTIMES, min_size=1, max_size=4), st.sampled_from((0.0, 0.0, 30.0, None))),
    st.builds(send_passtimes, st.lists(PASSTIMES, min_size=1, max_size=2), st.just(0.0)),
    st.builds(wait, st.sampled_from((0.3, 5, 20, 59, 61, 301, 1900, -20, -4000))),
    st.just(repeat),
    st.builds(plan, st.lists(PLANNED, max_size=4), st.sampled_from(("4", "5"))),
    st.builds(
        plan_from_gtfs,
        st.sampled_from(JOURNEYS),
        st.lists(st.integers(0, 160), min_size=2, max_size=2),
        st.sampled_from(("L004", "L004", "L005")),
    ),
    st.builds(message, st.sampled_from(STOPS), st.sampled_from((1, 90))),
    st.builds(delete, st.sampled_from(STOPS)),
    st.just(sweep),
    st.just(evict),
    st.just(evict_joined),
    st.just(drop_parts),
    st.just(check),
    st.just(check),
)


class Observed:
    """An object of which it is observed whether it is freed."""


class IncrementalTests(LiveTestCase):
    """What is remembered of a stop, after any sequence of changes."""

    def start(self) -> None:
        self.setUp()
        self.up()
        self.rows: list[Mapping[str, str | None]] = [{}]
        board = BoardPages(FeedDisplays(self.feed), self.clock)
        modules: list[Service] = [Kv55Feed("kv55", self.feed), *ovapi_modules(self.feed), Siri(self.feed), board]
        for module in modules:
            module.setServiceParent(self.modules)

    def forget(self, *memories: BoundedMemory[Any]) -> None:
        """Evict everything."""
        for memory in memories:
            for key in list(memory._values):
                memory.discard(key)

    def documents(self) -> dict[tuple[str, str], _Document]:
        """Return the responses to all requests."""
        responses = {}
        for template, accept in REQUESTS:
            for path in dict.fromkeys(template.format(code) for code in STOPS):
                response: Response = self.request(path, Accept=accept)
                responses[path, accept] = response.status, response.headers.items(), response.body
        return responses

    def from_nothing(self) -> dict[tuple[str, str], _Document]:
        """Return the responses made from nothing; what is remembered stays so."""
        boards = self.feed.boards
        joined, documents = boards.joined, boards.documents
        remembered, planned_at = (joined._values, joined.bytes), dict(boards._planned_at)
        joined._values, joined.bytes = OrderedDict(), 0
        self.forget(documents)
        try:
            return self.documents()
        finally:
            joined._values, joined.bytes = remembered
            boards._planned_at.clear()
            boards._planned_at.update(planned_at)
            self.forget(documents)

    @settings(deadline=None, max_examples=EXAMPLES)
    @given(st.lists(ACTIONS, min_size=1, max_size=14))
    def test_equal_to_documents_from_nothing(self, actions: list[Action]) -> None:
        """Stored documents, and those made of stored parts, equal documents made from nothing."""
        self.start()
        for action in (*actions, check):
            action(self)

    def update_places(self) -> None:
        """Build an index of the current places."""
        self.feed.places._pause = 0.0
        self.feed.places.index()
        self.clock.pump([0.0] * 20)

    def check(self) -> None:
        self.update_places()
        stored = {path: self.request(path).body for path in self.stored_paths()}
        self.forget(self.feed.boards.documents)
        documents, expected = self.documents(), self.from_nothing()
        for request, document in expected.items():
            self.assertEqual(documents[request], document, request)
        plain = {path: body for (path, _), (_, _, body) in expected.items()}
        for path, body in stored.items():
            self.assertEqual(_MOMENTS.sub(b"", body), _MOMENTS.sub(b"", plain[path]), path)

    def joined_stop(self) -> JoinedStop:
        """Start with one passtime, and make all documents; return the joined passtimes of its stop."""
        self.start()
        send_passtimes([moments(arrives=10, departs=10, late=0)], 0.0)(self)
        self.update_places()
        self.documents()
        joined = self.feed.boards.joined.get(STOPS[0])
        assert joined is not None
        return joined

    def test_memory_of_replaced_passtime_is_freed(self) -> None:
        """What was made of a passtime that has changed is freed: the collector does not visit it."""
        joined = self.joined_stop()
        freed = Observed()
        is_freed = ref(freed)
        joined.passtimes[0].fragments.parts["observed"] = freed
        del joined, freed
        self.documents()
        self.assertIsNotNone(is_freed())
        send_passtimes([moments(arrives=10, departs=10, late=3)], 0.0)(self)
        self.documents()
        self.assertIsNone(is_freed())

    def test_parts_are_dropped_before_stops(self) -> None:
        """When memory is short, parts of documents that are not requested any more make room, not other stops."""
        self.start()
        rows: list[Mapping[str, str | None]] = [
            moments(arrives=n, departs=n, late=0) | {"JourneyNumber": f"{n}", "TimingPointCode": f"3000000{n % 10}"}
            for n in range(10, 60)
        ]
        send_passtimes(rows, 0.0)(self)
        boards = self.feed.boards
        paths = {path: sorted(f"/{path}/{code}" for code in boards.passtimes.stops) for path in ("tpc", "kv55")}
        for path in paths["tpc"]:
            self.request(path)
        boards._measure(self.clock.seconds())
        n_stops, size = len(boards.joined), boards.joined.bytes
        boards.joined.max_bytes = round(1.05 * size)
        evicted = []
        for _ in range(5):
            self.clock.advance(UNUSED_SECONDS)
            self.forget(boards.documents)
            for path in paths["kv55"]:
                self.request(path)
            boards._measure(self.clock.seconds())
            evicted.append(boards.joined.n_evicted)
        self.assertEqual((len(boards.joined), evicted[-1]), (n_stops, evicted[-3]))
        parts = {
            form
            for joined in map(boards.joined.get, boards.passtimes.stops)
            if joined is not None
            for entry in joined.passtimes
            for form in entry.fragments.parts
        }
        self.assertEqual(parts, {"kv55"})
        self.assertLess(boards.joined.bytes, size)

    def test_parts_of_unreliable_passtimes_are_dropped(self) -> None:
        """The parts of a passtime that is displayed as unreliable are dropped like others."""
        joined = self.joined_stop()
        joined.passtimes[0].with_reliability("unknown", self.clock.seconds()).fragments.store("form", "text")
        size = joined.size
        for n in range(2):
            joined.drop_unused(self.clock.seconds() + n * UNUSED_SECONDS)
        unreliable = joined.passtimes[0].unreliable
        assert unreliable is not None
        self.assertEqual((joined.passtimes[0].fragments.size, unreliable.fragments.size), (0, 0))
        self.assertLess(joined.size, size)

    def stored_paths(self) -> list[str]:
        """Return the paths whose documents do not depend on the moment, besides that at which they were made."""
        return [f"/{module}/{code}" for module in ("kv55", "tpc") for code in STOPS]
