"""Tests of kv78turbo.stop_departures: joining KV7 and KV8, and caching rendered documents."""

from collections.abc import Generator
from datetime import date

from msgspec import structs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.times import HOUR, MINUTE
from govi_server.kv78turbo import stop_departures
from govi_server.kv78turbo.joined_stop import PASSTIME_BYTES, STOP_BYTES
from govi_server.kv78turbo.stop_departures import (
    MAX_CHEAP_PASSTIMES,
    MAX_VALID_SECONDS,
    MEASURE_SECONDS,
    RENDERING_BYTES,
    StopDepartures,
)
from govi_server.runtime.cooperative import run_now
from govi_server.settings import FeedLimitSettings
from tests import feed as kv
from tests.client import NOW
from tests.doubles import ingest, live_feed

CODE = "30000001"
HORIZON = 60.0 * MINUTE


def at(minutes: float) -> str:
    """Return the local time some minutes after NOW, which is 01:00:00."""
    seconds = round(HOUR + minutes * MINUTE)
    return f"{seconds // HOUR:02}:{seconds // MINUTE % 60:02}:{seconds % 60:02}"


def live(journey: str, minutes: float, **columns: str | None) -> dict[str, str | None]:
    """Return a row of KV8 whose journey is expected in some minutes."""
    time = at(minutes)
    return {
        "JourneyNumber": journey,
        "ExpectedArrivalTime": time,
        "ExpectedDepartureTime": time,
        "TargetArrivalTime": time,
        "TargetDepartureTime": time,
        **columns,
    }


def planned(journey: str, minutes: float, **columns: str | None) -> dict[str, str | None]:
    """Return a row of KV7 whose journey is planned in some minutes."""
    time = at(minutes)
    return {"JourneyNumber": journey, "TargetArrivalTime": time, "TargetDepartureTime": time, **columns}


class StopDeparturesTestCase(SynchronousTestCase):
    """The departures of stops, from a feed without a connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.feed = live_feed(self.clock, limits=FeedLimitSettings(stale=86400))
        self.boards = self.feed.boards

    def board(self, horizon: float = HORIZON, code: str = CODE) -> StopDepartures:
        return self.boards.board(code, horizon)

    def included(self, horizon: float = HORIZON, code: str = CODE) -> list[tuple[str, str]]:
        """Return journey and status of a stop's departures."""
        return [
            (passtime.journey_number, passtime.trip_stop_status) for passtime in self.board(horizon, code).passtimes
        ]

    def wait(self, minutes: float) -> None:
        """Advance the clock, and sweep."""
        self.clock.advance(minutes * MINUTE)
        for _ in self.feed.passtimes.sweep():
            pass
        for _ in self.feed.timetable.sweep():
            pass


class JoinTests(StopDeparturesTestCase):
    """Joining KV7 and KV8."""

    def test_unknown_stop_is_empty(self) -> None:
        """An unknown stop has no departures."""
        board = self.board()
        self.assertEqual(
            (board.code, board.passtimes, board.messages, board.realtime_operators), (CODE, (), (), frozenset())
        )
        self.assertFalse(board.has_planning)
        self.assertEqual(board.valid_until, NOW + MAX_VALID_SECONDS)
        self.assertFalse(self.boards.is_known_stop(CODE))

    def test_known_stops(self) -> None:
        """A stop is known by a passtime of KV8, a TimingPoint of KV7, or a user stop of KV7."""
        point, stop = {"TimingPointCode": "5"}, {"TimingPointCode": "6", "UserStopCode": "u6"}
        ingest(self.feed, kv.passtimes(live("1", 5)), kv.planning(points=[point], user_stops=[stop]))
        self.assertEqual(
            [self.boards.is_known_stop(code) for code in (CODE, "5", "6", "7")], [True, True, True, False]
        )

    def test_order_of_expected_time(self) -> None:
        """Passtimes are sorted by expected time, then by journey."""
        ingest(
            self.feed,
            kv.passtimes(
                live("9", 30),
                live("1", 20),
                live("2", 30),
                live("3", 5, ExpectedArrivalTime=at(40), ExpectedDepartureTime=at(41)),
                live("4", 45, ExpectedArrivalTime=at(10), ExpectedDepartureTime=at(10)),
                live("5", 25, ExpectedArrivalTime=None, ExpectedDepartureTime=None),
            ),
        )
        self.assertEqual([journey for journey, _ in self.included()], ["4", "1", "5", "2", "9", "3"])

    def test_departures_within_horizon(self) -> None:
        """Departures up to the horizon are included; later ones once they are within it."""
        ingest(self.feed, kv.passtimes(live("1", 20), live("2", 20.5)))
        self.assertEqual(self.included(20 * MINUTE), [("1", "DRIVING")])
        self.assertEqual(self.board(20 * MINUTE).valid_until, NOW + 30)
        self.clock.advance(30)
        self.assertEqual(self.included(20 * MINUTE), [("1", "DRIVING"), ("2", "DRIVING")])

    def test_hidden_a_minute_after_expected_times(self) -> None:
        """A passtime is hidden a minute after both its expected times."""
        for arrival, departure in [(5, 7), (7, 5), (None, 7), (7, None)]:
            expected = {
                "ExpectedArrivalTime": None if arrival is None else at(arrival),
                "ExpectedDepartureTime": None if departure is None else at(departure),
            }
            self.setUp()
            ingest(self.feed, kv.passtimes(live("1", 2, **expected)))
            self.assertEqual(self.board().valid_until, NOW + 8 * MINUTE)
            self.clock.advance(8 * MINUTE - 0.001)
            self.assertEqual(self.included(), [("1", "DRIVING")])
            self.clock.advance(0.001)
            self.assertEqual(self.included(), [])

    def test_last_has_no_departure(self) -> None:
        """At its LAST stop a journey has no departure, although its time is 00:00:00."""
        midnight = {"ExpectedDepartureTime": "00:00:00", "TargetDepartureTime": "00:00:00"}
        rows = [live("1", 10, JourneyStopType="LAST", **midnight), live("2", 5)]
        ingest(self.feed, kv.passtimes(*rows))
        self.assertEqual(self.included(), [("2", "DRIVING"), ("1", "DRIVING")])
        last = self.board().passtimes[1]
        self.assertEqual(
            (last.expected, last.is_departure, last.expected_departure), (NOW + 10 * MINUTE, False, None)
        )

    def test_time_past_midnight(self) -> None:
        """A time of 25:10 on yesterday's operating date is today, planned and live."""
        times = {"TargetArrivalTime": "25:10:00", "TargetDepartureTime": "25:10:00"}
        ingest(self.feed, kv.planning(planned("1", 0, **times)), kv.calendar("2025-12-31"))
        self.assertEqual(self.included(), [("1", "PLANNED")])
        expected = {"ExpectedArrivalTime": "25:12:00", "ExpectedDepartureTime": "25:12:00"}
        ingest(self.feed, kv.passtimes(live("1", 0, OperationDate="2025-12-31", **times, **expected)))
        self.assertEqual(self.included(), [("1", "DRIVING")])
        (passtime,) = self.board().passtimes
        self.assertEqual((passtime.expected, passtime.operation_date), (NOW + 12 * MINUTE, date(2025, 12, 31)))

    def test_live_passtime_replaces_planned_one(self) -> None:
        """A planned passtime is included on its dates until it is in KV8."""
        ingest(self.feed, kv.planning(planned("1", 30), planned("2", 20)))
        self.assertEqual(self.included(), [])
        ingest(self.feed, kv.calendar("2026-01-01"))
        self.assertEqual(self.included(), [("2", "PLANNED"), ("1", "PLANNED")])
        ingest(self.feed, kv.passtimes(live("2", 40)))
        self.assertEqual(self.included(), [("1", "PLANNED"), ("2", "DRIVING")])
        self.assertEqual(self.board().realtime_operators, {"LIN"})

    def test_realtime_operators(self) -> None:
        """The realtime operators are those of the included live passtimes."""
        ingest(self.feed, kv.planning(planned("1", 30)), kv.calendar("2026-01-01"))
        self.assertEqual((self.board().realtime_operators, self.board().has_planning), (frozenset(), True))
        ingest(self.feed, kv.passtimes(live("2", 5, DataOwnerCode="A"), live("3", 90, DataOwnerCode="B")))
        self.assertEqual(self.board().realtime_operators, {"A"})

    def test_passtime_moves_to_other_stop(self) -> None:
        """A passtime that KV8 reports at another TimingPoint is there only."""
        ingest(self.feed, kv.planning(planned("1", 30)), kv.calendar("2026-01-01"))
        self.assertEqual(self.included(), [("1", "PLANNED")])
        for code in ("30000002", "30000003"):
            ingest(self.feed, kv.passtimes(live("1", 30, TimingPointCode=code)))
            self.assertEqual((self.included(), self.included(code=code)), ([], [("1", "DRIVING")]))
            self.assertEqual(self.feed.passtimes.n_passtimes, 1)
        self.assertEqual(self.included(code="30000002"), [])

    def test_planned_departures_of_stale_operator(self) -> None:
        """Planned departures are stale if their operator's data is; operators without any data do not matter."""
        self.feed = live_feed(self.clock)
        self.boards = self.feed.boards
        ingest(self.feed, kv.planning(planned("2", 200), planned("3", 200)), kv.calendar("2026-01-01"))
        self.assertEqual(self.feed.freshness(self.board(HORIZON * 4))[0], "fresh")
        ingest(self.feed, kv.passtimes(live("1", 1)))
        self.clock.advance(2 * HOUR)
        self.assertEqual(self.feed.freshness(self.board(HORIZON * 4)), ("stale", 2 * HOUR))

    def test_stale_operators(self) -> None:
        """An operator is stale if it has live passtimes that are not hidden, even beyond the horizon."""
        self.feed = live_feed(self.clock)
        self.boards = self.feed.boards
        ingest(
            self.feed,
            kv.planning(planned("1", 60, DataOwnerCode="HIDDEN"), user_stops=[{"DataOwnerCode": "HIDDEN"}]),
            kv.calendar("2026-01-01", level={"DataOwnerCode": "HIDDEN"}),
            kv.passtimes(live("2", 90, DataOwnerCode="LATER")),
            kv.passtimes(live("3", 2, DataOwnerCode="HIDDEN")),
        )
        self.clock.advance(20 * MINUTE)
        ingest(self.feed, kv.passtimes(live("4", 40)))
        board = self.board(HORIZON)
        self.assertEqual((board.stale_operators, board.operators), ({"LATER"}, {"LATER", "LIN", "HIDDEN"}))
        self.assertEqual([passtime.journey_number for passtime in board.passtimes], ["4", "1"])

    def test_departures_of_stale_operator_are_left_out(self) -> None:
        """Only live departures of operators with too old data are left out."""
        self.feed = live_feed(self.clock)
        self.boards = self.feed.boards
        ingest(self.feed, kv.planning(planned("2", 30)), kv.calendar("2026-01-01"))
        rows = (live("1", 30, DataOwnerCode="A"), live("2", 40))
        ingest(self.feed, kv.passtimes(*rows))
        self.clock.advance(301)
        board = self.board()
        self.assertEqual((board.has_passtimes, board.stale_operators), (False, {"A", "LIN"}))
        ingest(self.feed, kv.passtimes(rows[0]))
        board = self.board()
        self.assertEqual((self.included(), board.stale_operators), ([("1", "DRIVING")], {"LIN"}))
        self.assertEqual(self.feed.freshness(board), ("stale", 301))
        ingest(self.feed, kv.passtimes(rows[1]))
        self.assertEqual(self.included(), [("1", "DRIVING"), ("2", "DRIVING")])

    def test_early_departure_does_not_return_as_planned(self) -> None:
        """An early departure, once hidden, does not reappear as planned before its planned time."""
        ingest(self.feed, kv.planning(planned("1", 10)), kv.calendar("2026-01-01"))
        early = {"ExpectedArrivalTime": at(1), "ExpectedDepartureTime": at(1), "TripStopStatus": "PASSED"}
        ingest(self.feed, kv.passtimes(live("1", 10, **early)))
        self.assertEqual(self.included(), [("1", "PASSED")])
        for _ in range(12):
            self.wait(1)
            if self.clock.seconds() >= NOW + 2 * MINUTE:
                self.assertEqual(self.included(), [], self.clock.seconds() - NOW)
        self.assertEqual(self.feed.passtimes.n_passtimes, 0)

    def test_late_departure_is_included_once(self) -> None:
        """A late departure is included once, also after its planned time."""
        ingest(self.feed, kv.planning(planned("1", -25)), kv.calendar("2026-01-01"))
        self.assertEqual(self.included(), [])
        expected = {"ExpectedArrivalTime": at(5), "ExpectedDepartureTime": at(5)}
        ingest(self.feed, kv.passtimes(live("1", -25, **expected)))
        self.assertEqual(self.included(), [("1", "DRIVING")])
        self.assertEqual(self.board().passtimes[0].product_formula_type, "18")

    def test_cancellation_replaces_planned_one(self) -> None:
        """A cancelled passtime replaces the planned one."""
        ingest(self.feed, kv.planning(planned("1", 10)), kv.calendar("2026-01-01"))
        ingest(self.feed, kv.passtimes(live("1", 10, TripStopStatus="CANCEL")))
        self.assertEqual(self.included(), [("1", "CANCEL")])

    def test_values_of_kv7_are_joined(self) -> None:
        """Values that only KV7 has are joined, as is wheelchair accessibility if KV8 lacks it."""
        ingest(self.feed, kv.planning(planned("1", 10), planned("2", 20), planned("3", 30)))
        ingest(self.feed, kv.calendar("2026-01-01"))
        rows = [live(journey, 10, WheelChairAccessible=known) for journey, known in
                [("1", "UNKNOWN"), ("2", "NOTACCESSIBLE"), ("4", "UNKNOWN")]]  # fmt: skip
        ingest(self.feed, kv.passtimes(*rows))
        self.assertEqual(
            [
                (passtime.journey_number, passtime.wheelchair, passtime.product_formula_type)
                for passtime in self.board().passtimes
            ],
            [
                ("1", "ACCESSIBLE", "18"),
                ("2", "NOTACCESSIBLE", "18"),
                ("4", "UNKNOWN", None),
                ("3", "ACCESSIBLE", "18"),
            ],
        )

    def test_update_of_one_passtime(self) -> None:
        """An update of one passtime leaves the others of the stop unchanged."""
        ingest(self.feed, kv.passtimes(live("1", 10), live("2", 20)), kv.passtimes(live("3", 30)))
        newer = {"TripStopStatus": "ARRIVED", "LastUpdateTimeStamp": "2026-01-01T01:00:00+01:00"}
        ingest(self.feed, kv.passtimes(live("2", 20, **newer)))
        self.assertEqual(self.included(), [("1", "DRIVING"), ("2", "ARRIVED"), ("3", "DRIVING")])

    def test_messages_bound_validity(self) -> None:
        """A message is included from its start to its end, and departures are valid until then at most."""
        beginning, end = "2026-01-01T01:02:00+01:00", "2026-01-01T01:05:00+01:00"
        ingest(self.feed, kv.general_message({"MessageStartTime": beginning, "MessageEndTime": end}))
        for minutes, n_messages, valid_until in [(0, 0, 2), (2, 1, 5), (3, 0, None)]:
            self.clock.advance(minutes * MINUTE)
            board = self.board()
            self.assertEqual(len(board.messages), n_messages)
            if valid_until is not None:
                self.assertEqual(board.valid_until, NOW + valid_until * MINUTE)
        ingest(self.feed, kv.general_message({"MessageCodeNumber": "28"}))
        self.assertEqual([message.key for message in self.board().messages], ["LIN_2026-01-01_28_ALGEMEEN_30000001"])
        ingest(self.feed, kv.general_message_delete({"MessageCodeNumber": "28"}))
        self.assertEqual(self.board().messages, ())


class CacheTests(StopDeparturesTestCase):
    """Caching rendered documents."""

    def setUp(self) -> None:
        super().setUp()
        self.n_renderings = 0

    def render(self, board: StopDepartures) -> Generator[None, None, bytes]:
        self.n_renderings += 1
        yield
        return b"%d passtimes" % len(board.passtimes)

    def lookup(self, code: str = CODE, form: object = "form") -> tuple[StopDepartures, bytes]:
        """Return the cached rendering, or else render."""
        cached = self.boards.lookup(code, form)
        return cached or run_now(self.boards.render(code, HORIZON, form, self.render))

    def rendered(self, code: str = CODE, form: object = "form") -> bytes:
        return self.lookup(code, form)[1]

    def test_rendered_once(self) -> None:
        """A form is rendered at the first request, then cached with its departures."""
        ingest(self.feed, kv.passtimes(live("1", 30)))
        self.assertEqual(self.n_renderings, 0)
        first = self.lookup()
        for _ in range(5):
            self.clock.advance(MINUTE)
            again = self.lookup()
            self.assertEqual(again[0], structs.replace(first[0], entries=(), messages=()))
            self.assertIs(again[1], first[1])
        self.assertEqual(self.n_renderings, 1)

    def test_forms_are_separate(self) -> None:
        """Each form is cached separately."""
        ingest(self.feed, kv.passtimes(live("1", 30)))
        for form in ("a", "b", "a", "b"):
            self.rendered(form=form)
        self.assertEqual(self.n_renderings, 2)

    def test_change_of_stop_invalidates(self) -> None:
        """A change of the stop invalidates its entries; changes of other stops and repeated rows do not."""
        for message, n_renderings in [
            (kv.passtimes(live("1", 30)), 1),
            (kv.passtimes(live("1", 30)), 1),
            (kv.passtimes(live("1", 30, TimingPointCode="30000002", UserStopOrderNumber="4")), 1),
            (kv.passtimes(live("2", 30)), 2),
            (kv.general_message({}), 3),
            (kv.general_message({}), 3),
            (kv.general_message_delete({}), 4),
            (kv.planning(planned("3", 20)), 5),
            (kv.calendar("2026-01-01"), 6),
        ]:
            ingest(self.feed, message)
            self.rendered()
            self.assertEqual(self.n_renderings, n_renderings)
        self.assertEqual(self.rendered(), b"3 passtimes")

    def test_hidden_departure_invalidates(self) -> None:
        """An entry is invalid as soon as its next departure is hidden."""
        ingest(self.feed, kv.passtimes(live("1", 3), live("2", 5)))
        self.assertEqual(self.rendered(), b"2 passtimes")
        self.clock.advance(4 * MINUTE - 0.001)
        self.assertEqual((self.rendered(), self.n_renderings), (b"2 passtimes", 1))
        self.clock.advance(0.001)
        self.assertEqual((self.rendered(), self.n_renderings), (b"1 passtimes", 2))

    def test_departure_within_horizon_invalidates(self) -> None:
        """An entry is invalid as soon as another departure is within the horizon, live or planned."""
        ingest(self.feed, kv.passtimes(live("1", 62)), kv.planning(planned("2", 64), planned("3", 75)))
        ingest(self.feed, kv.calendar("2026-01-01"))
        seen = []
        for _ in range(17):
            seen.append(self.rendered())
            self.clock.advance(MINUTE)
        self.assertEqual(
            seen, [b"0 passtimes"] * 2 + [b"1 passtimes"] * 2 + [b"2 passtimes"] * 11 + [b"3 passtimes"] * 2
        )
        self.assertLess(self.n_renderings, 6)

    def test_least_recently_used_is_evicted(self) -> None:
        """Beyond the size limit the least recently used entries are evicted."""
        codes = ["1", "2", "3"]
        ingest(self.feed, kv.passtimes(*(live(code, 30, TimingPointCode=code) for code in codes)))
        self.boards.documents.max_bytes = 2 * (RENDERING_BYTES + len("1 passtimes"))
        for code, n_renderings in [("1", 1), ("2", 2), ("1", 2), ("3", 3), ("1", 3), ("2", 4)]:
            self.rendered(code)
            self.assertEqual(self.n_renderings, n_renderings)

    def test_small_entries_are_bounded(self) -> None:
        """An entry counts as the memory that it needs, which is much more than a small body."""
        codes = [str(code) for code in range(20)]
        ingest(self.feed, kv.passtimes(*(live(code, 30, TimingPointCode=code) for code in codes)))
        self.boards.documents.max_bytes = 10 * RENDERING_BYTES
        for code in [code for code in codes for _ in range(2)]:
            self.rendered(code)
        self.assertEqual(len(self.boards.documents), 9)
        self.assertGreater(self.boards.documents.bytes, 9 * RENDERING_BYTES)

    def test_joined_passtimes_are_bounded(self) -> None:
        """The joined passtimes of the stops that were used least recently are evicted, with their fragments."""
        codes = [str(code) for code in range(20)]
        ingest(self.feed, kv.passtimes(*(live(code, 30, TimingPointCode=code) for code in codes)))
        self.boards.joined.max_bytes = 10 * (STOP_BYTES + PASSTIME_BYTES + 300)
        for code in codes:
            (entry,) = self.board(code=code).entries
            entry.fragments.store("form", b"x" * 100)
            self.clock.advance(MEASURE_SECONDS)
        self.board(code=codes[-1])
        self.assertEqual([self.boards.joined.get(code) is None for code in codes], [True] * 10 + [False] * 10)
        self.assertGreater(self.boards.joined.bytes, 10 * (STOP_BYTES + PASSTIME_BYTES + 100))
        self.assertEqual(self.boards.joined.n_evicted, 10)

    def test_few_passtimes_are_measured_at_once(self) -> None:
        """However many passtimes stops have, the fragments of few are counted in one step."""
        self.patch(stop_departures, "MAX_UNMEASURED", 100)
        codes = [str(code) for code in range(30)]
        for code in codes:
            ingest(self.feed, kv.passtimes(*(live(f"{code}{n:02}", 30, TimingPointCode=code) for n in range(20))))
        for code in codes * 2:
            self.board(code=code)
            used = self.boards._used.values()
            self.assertLessEqual(sum(len(joined.passtimes) for joined in used), 100)

    def test_past_planned_passtimes_are_forgotten(self) -> None:
        """Nothing remains of planned passtimes that have passed, however long their stop is requested."""
        rows = [planned(str(n), 10 * n) for n in range(60)]
        ingest(self.feed, kv.planning(*rows), kv.calendar("2026-01-01"))
        for _ in range(9):
            self.board()
            self.assertLess(len(self.boards._planned_at), 20)
            self.clock.advance(HOUR)

    def test_change_between_two_steps(self) -> None:
        """Departures that are selected in steps do not change when another request joins a changed passtime."""
        ingest(self.feed, kv.passtimes(*(live(str(n), 1 + n / 2) for n in range(100))))
        expected = self.board().passtimes
        steps = self.boards.board_steps(CODE, HORIZON)
        next(steps)
        ingest(self.feed, kv.passtimes(live("99", 1), live("0", 55), published="2026-01-01T00:59:55+01:00"))
        self.assertNotEqual(self.board().passtimes, expected)
        self.assertEqual(run_now(steps).passtimes, expected)

    def test_stop_that_grew_is_not_cheap(self) -> None:
        """The board of a remembered stop with many passtimes is not cheap, whenever they were received."""
        ingest(self.feed, kv.passtimes(*(live(str(n), 30) for n in range(20))))
        self.board()
        self.assertTrue(self.boards.is_cheap(CODE, HORIZON))
        ingest(self.feed, kv.passtimes(*(live(str(n), 40) for n in range(20, MAX_CHEAP_PASSTIMES))))
        self.assertTrue(self.boards.is_cheap(CODE, HORIZON))
        ingest(self.feed, kv.passtimes(live("99", 40)))
        self.assertFalse(self.boards.is_cheap(CODE, HORIZON))

    def test_planned_passtime_that_moves_after_an_eviction(self) -> None:
        """A planned passtime that KV8 has at another stop invalidates documents of an evicted stop as well."""
        ingest(self.feed, kv.planning(planned("1", 30)), kv.calendar("2026-01-01"))
        self.assertEqual(self.rendered(), b"1 passtimes")
        self.clock.advance(MEASURE_SECONDS)
        self.boards.joined.discard(CODE)
        self.board(code="30000002")
        ingest(self.feed, kv.passtimes(live("1", 30, TimingPointCode="30000002")))
        self.assertEqual(self.rendered(), b"0 passtimes")

    def test_planned_passtime_that_moves_after_concurrent_requests(self) -> None:
        """It invalidates documents also if another request joined the stop's passtimes at the same time."""
        rows = [planned(str(n), 30 + n / 10) for n in range(200)]
        ingest(self.feed, kv.planning(*rows), kv.calendar("2026-01-01"))
        overtaken = self.boards.board_steps(CODE, HORIZON)
        for _ in range(100):
            next(overtaken)
        other = self.boards.board_steps(CODE, HORIZON)
        for _ in range(50):
            next(other)
        self.assertEqual(self.rendered(), b"200 passtimes")
        run_now(overtaken)
        other.close()
        self.assertEqual(self.rendered(), b"200 passtimes")
        del overtaken, other
        self.clock.advance(2 * MEASURE_SECONDS)
        self.board(code="30000002")
        self.board(code="30000003")
        for n in (0, 120, 180):
            ingest(self.feed, kv.passtimes(live(str(n), 30, TimingPointCode="30000002")))
            self.assertNotEqual(self.rendered(), b"200 passtimes")

    def test_clock_that_is_set_back_invalidates(self) -> None:
        """An entry made before the clock was set back is invalid: hidden departures are displayed again."""
        ingest(self.feed, kv.passtimes(live("1", 3), live("2", 6)))
        self.clock.advance(4 * MINUTE)
        self.assertEqual(self.rendered(), b"1 passtimes")
        self.clock.rightNow -= MINUTE
        self.assertEqual(self.rendered(), b"2 passtimes")

    def test_too_large_for_the_cache(self) -> None:
        """Documents larger than the cache are returned but not cached."""
        ingest(self.feed, kv.passtimes(live("1", 30)))
        self.feed.boards.documents.max_bytes = 5
        self.assertEqual([self.rendered(), self.rendered()], [b"1 passtimes"] * 2)
        self.assertEqual(self.n_renderings, 2)

    def test_unknown_stops_are_not_cached(self) -> None:
        """Unknown stops are not cached: ten thousand million codes are possible."""
        self.assertEqual([self.rendered(), self.rendered()], [b"0 passtimes"] * 2)
        self.assertEqual(self.n_renderings, 2)


class JourneyTests(StopDeparturesTestCase):
    """The passtimes of a journey."""

    def journey(self, key: str = "LIN_77_L004_1_0") -> list[tuple[str, str, str]]:
        return sorted(
            (passtime.user_stop_order_number, passtime.timing_point_code, passtime.trip_stop_status)
            for passtime in run_now(self.feed.journeys.passtimes(key))
        )

    def test_unknown_journey(self) -> None:
        """Invalid keys and unknown journeys have no passtimes."""
        ingest(self.feed, kv.passtimes(live("1", 30)))
        for key in (
            "",
            "x",
            "LIN_77_L004_1",
            "LIN_77_L004_2_0",
            "LIN_77_L004_1_1",
            "LIN|77|L004|1|0",
            "LIN_77_L004__0",
        ):
            self.assertEqual(self.journey(key), [], key)

    def test_live_passtimes_replace_planned_ones(self) -> None:
        """Planned passtimes are included until they are in KV8, stop by stop."""
        second = {"UserStopOrderNumber": "4", "UserStopCode": "u2"}
        stops: list[dict[str, str | None]] = [{}, {"UserStopCode": "u2", "TimingPointCode": "30000002"}]
        planning = kv.planning(planned("1", 30), planned("1", 32, **second), planned("11", 30), user_stops=stops)
        ingest(self.feed, planning, kv.calendar("2026-01-01"))
        self.assertEqual(self.journey(), [("3", CODE, "PLANNED"), ("4", "30000002", "PLANNED")])
        ingest(self.feed, kv.passtimes(live("1", 35, TimingPointCode="30000002", **second)))
        self.assertEqual(self.journey(), [("3", CODE, "PLANNED"), ("4", "30000002", "DRIVING")])
        live_passtime = next(
            passtime
            for passtime in run_now(self.feed.journeys.passtimes("LIN_77_L004_1_0"))
            if passtime.trip_stop_status == "DRIVING"
        )
        self.assertEqual(live_passtime.product_formula_type, "18")

    def test_nearest_date(self) -> None:
        """The passtimes of a journey are those of the nearest operating date."""
        rows = [live("1", 30, OperationDate=day) for day in ("2026-01-01", "2026-01-02")]
        ingest(self.feed, kv.passtimes(*rows))
        self.assertEqual(
            [passtime.operation_date for passtime in run_now(self.feed.journeys.passtimes("LIN_77_L004_1_0"))],
            [date(2026, 1, 1)],
        )

    def test_separator_in_line_number(self) -> None:
        """The number of a line may contain the separator."""
        ingest(self.feed, kv.passtimes(live("1", 30, LinePlanningNumber="L_4_")))
        self.assertEqual(self.journey("LIN_77_L_4__1_0"), [("3", CODE, "DRIVING")])
