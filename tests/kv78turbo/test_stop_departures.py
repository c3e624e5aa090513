"""What leaves from a stop, from KV7 and KV8 together; and what is made of it once."""

from dataclasses import replace
from datetime import date

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.times import HOUR, MINUTE
from govi_server.kv78turbo.stop_departures import MAX_VALID_SECONDS, StopDepartures
from govi_server.settings import FeedLimitSettings
from tests import feed as kv
from tests.client import NOW
from tests.doubles import live_feed, take

CODE = "30000001"
HORIZON = 60.0 * MINUTE


def at(minutes: float) -> str:
    """Write the time of so many minutes after NOW, which is 01:00:00."""
    seconds = round(HOUR + minutes * MINUTE)
    return f"{seconds // HOUR:02}:{seconds // MINUTE % 60:02}:{seconds % 60:02}"


def live(journey: str, minutes: float, **columns: str | None) -> dict[str, str | None]:
    """Make a row of KV8: a journey that is expected in so many minutes."""
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
    """Make a row of KV7: a journey that is planned in so many minutes."""
    time = at(minutes)
    return {"JourneyNumber": journey, "TargetArrivalTime": time, "TargetDepartureTime": time, **columns}


class BoardsTestCase(SynchronousTestCase):
    """A feed, and the boards that are made from it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.feed = live_feed(self.clock, limits=FeedLimitSettings(stale=86400))
        self.boards = self.feed.boards

    def board(self, horizon: float = HORIZON, code: str = CODE) -> StopDepartures:
        return self.boards.board(code, horizon)

    def shown(self, horizon: float = HORIZON, code: str = CODE) -> list[tuple[str, str]]:
        """List the journeys of a stop's board, and their statuses."""
        return [(one.journey_number, one.trip_stop_status) for one in self.board(horizon, code).passtimes]

    def wait(self, minutes: float) -> None:
        """Let time pass, with the sweep that comes with it."""
        self.clock.advance(minutes * MINUTE)
        for _ in self.feed.passtimes.sweep():
            pass
        self.feed.timetable.sweep()


class BoardTests(BoardsTestCase):
    """What is shown of a stop."""

    def test_unknown(self) -> None:
        """A stop that nobody has spoken of has an empty board."""
        board = self.board()
        self.assertEqual(
            (board.code, board.passtimes, board.messages, board.realtime_operators), (CODE, (), (), frozenset())
        )
        self.assertFalse(board.has_planning)
        self.assertEqual(board.valid_until, NOW + MAX_VALID_SECONDS)
        self.assertFalse(self.boards.is_known_stop(CODE))

    def test_known(self) -> None:
        """A stop is known by what KV8 says of it, by a row of its own in KV7, or by the stops of an operator."""
        point, stop = {"TimingPointCode": "5"}, {"TimingPointCode": "6", "UserStopCode": "u6"}
        take(self.feed, kv.passtimes(live("1", 5)), kv.planning(points=[point], user_stops=[stop]))
        self.assertEqual(
            [self.boards.is_known_stop(code) for code in (CODE, "5", "6", "7")], [True, True, True, False]
        )

    def test_order(self) -> None:
        """Passes are in order of expected time, whatever was planned; at one moment in order of their journeys."""
        take(
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
        self.assertEqual([journey for journey, _ in self.shown()], ["4", "1", "5", "2", "9", "3"])

    def test_horizon(self) -> None:
        """What is expected at the horizon is shown, what is expected after it comes when it is due."""
        take(self.feed, kv.passtimes(live("1", 20), live("2", 20.5)))
        self.assertEqual(self.shown(20 * MINUTE), [("1", "DRIVING")])
        self.assertEqual(self.board(20 * MINUTE).valid_until, NOW + 30)
        self.clock.advance(30)
        self.assertEqual(self.shown(20 * MINUTE), [("1", "DRIVING"), ("2", "DRIVING")])

    def test_gone(self) -> None:
        """A pass is shown for a minute after both its expected times."""
        for arrival, departure in [(5, 7), (7, 5), (None, 7), (7, None)]:
            expected = {
                "ExpectedArrivalTime": None if arrival is None else at(arrival),
                "ExpectedDepartureTime": None if departure is None else at(departure),
            }
            self.setUp()
            take(self.feed, kv.passtimes(live("1", 2, **expected)))
            self.assertEqual(self.board().valid_until, NOW + 8 * MINUTE)
            self.clock.advance(8 * MINUTE - 0.001)
            self.assertEqual(self.shown(), [("1", "DRIVING")])
            self.clock.advance(0.001)
            self.assertEqual(self.shown(), [])

    def test_last(self) -> None:
        """At its last stop a journey has no departure, least of all at midnight."""
        midnight = {"ExpectedDepartureTime": "00:00:00", "TargetDepartureTime": "00:00:00"}
        rows = [live("1", 10, JourneyStopType="LAST", **midnight), live("2", 5)]
        take(self.feed, kv.passtimes(*rows))
        self.assertEqual(self.shown(), [("2", "DRIVING"), ("1", "DRIVING")])
        last = self.board().passtimes[1]
        self.assertEqual(
            (last.expected, last.is_departure, last.expected_departure), (NOW + 10 * MINUTE, False, None)
        )

    def test_past_midnight(self) -> None:
        """A pass of yesterday's operating date at 25:10 is one of today, planned and live."""
        times = {"TargetArrivalTime": "25:10:00", "TargetDepartureTime": "25:10:00"}
        take(self.feed, kv.planning(planned("1", 0, **times)), kv.calendar("2025-12-31"))
        self.assertEqual(self.shown(), [("1", "PLANNED")])
        expected = {"ExpectedArrivalTime": "25:12:00", "ExpectedDepartureTime": "25:12:00"}
        take(self.feed, kv.passtimes(live("1", 0, OperationDate="2025-12-31", **times, **expected)))
        self.assertEqual(self.shown(), [("1", "DRIVING")])
        (one,) = self.board().passtimes
        self.assertEqual((one.expected, one.operation_date), (NOW + 12 * MINUTE, date(2025, 12, 31)))

    def test_planned_until_live(self) -> None:
        """What is planned is shown until KV8 speaks of it, on the days on which it runs."""
        take(self.feed, kv.planning(planned("1", 30), planned("2", 20)))
        self.assertEqual(self.shown(), [])
        take(self.feed, kv.calendar("2026-01-01"))
        self.assertEqual(self.shown(), [("2", "PLANNED"), ("1", "PLANNED")])
        take(self.feed, kv.passtimes(live("2", 40)))
        self.assertEqual(self.shown(), [("1", "PLANNED"), ("2", "DRIVING")])
        self.assertEqual(self.board().realtime_operators, {"LIN"})

    def test_owners(self) -> None:
        """A board rests on the word of the owners whose live passes it shows."""
        take(self.feed, kv.planning(planned("1", 30)), kv.calendar("2026-01-01"))
        self.assertEqual((self.board().realtime_operators, self.board().has_planning), (frozenset(), True))
        take(self.feed, kv.passtimes(live("2", 5, DataOwnerCode="A"), live("3", 90, DataOwnerCode="B")))
        self.assertEqual(self.board().realtime_operators, {"A"})

    def test_moves(self) -> None:
        """A pass that KV8 tells of at another TimingPoint than planned, or than before, is at that one alone."""
        take(self.feed, kv.planning(planned("1", 30)), kv.calendar("2026-01-01"))
        self.assertEqual(self.shown(), [("1", "PLANNED")])
        for code in ("30000002", "30000003"):
            take(self.feed, kv.passtimes(live("1", 30, TimingPointCode=code)))
            self.assertEqual((self.shown(), self.shown(code=code)), ([], [("1", "DRIVING")]))
            self.assertEqual(self.feed.passtimes.n_passtimes, 1)
        self.assertEqual(self.shown(code="30000002"), [])

    def test_silent_planned(self) -> None:
        """What is planned by who has fallen silent is marked, however long ago; who never spoke is not missed."""
        self.feed = live_feed(self.clock)
        self.boards = self.feed.boards
        take(self.feed, kv.planning(planned("2", 200), planned("3", 200)), kv.calendar("2026-01-01"))
        self.assertEqual(self.feed.freshness(self.board(HORIZON * 4))[0], "fresh")
        take(self.feed, kv.passtimes(live("1", 1)))
        self.clock.advance(2 * HOUR)
        self.assertEqual(self.feed.freshness(self.board(HORIZON * 4)), ("stale", 2 * HOUR))

    def test_silent_owner(self) -> None:
        """Who has said nothing for minutes is left out, planned or not, until he is heard again; others are not."""
        self.feed = live_feed(self.clock)
        self.boards = self.feed.boards
        take(self.feed, kv.planning(planned("2", 30)), kv.calendar("2026-01-01"))
        rows = (live("1", 30, DataOwnerCode="A"), live("2", 40))
        take(self.feed, kv.passtimes(*rows))
        self.clock.advance(301)
        board = self.board()
        self.assertEqual((board.has_passtimes, board.stale_operators), (False, {"A", "LIN"}))
        take(self.feed, kv.passtimes(rows[0]))
        board = self.board()
        self.assertEqual((self.shown(), board.stale_operators), ([("1", "DRIVING")], {"LIN"}))
        self.assertEqual(self.feed.freshness(board), ("stale", 301))
        take(self.feed, kv.passtimes(rows[1]))
        self.assertEqual(self.shown(), [("1", "DRIVING"), ("2", "DRIVING")])

    def test_gone_early(self) -> None:
        """What has gone before its time does not come back as planned, until the planned time has passed, too."""
        take(self.feed, kv.planning(planned("1", 10)), kv.calendar("2026-01-01"))
        early = {"ExpectedArrivalTime": at(1), "ExpectedDepartureTime": at(1), "TripStopStatus": "PASSED"}
        take(self.feed, kv.passtimes(live("1", 10, **early)))
        self.assertEqual(self.shown(), [("1", "PASSED")])
        for _ in range(12):
            self.wait(1)
            if self.clock.seconds() >= NOW + 2 * MINUTE:
                self.assertEqual(self.shown(), [], self.clock.seconds() - NOW)
        self.assertEqual(self.feed.passtimes.n_passtimes, 0)

    def test_late(self) -> None:
        """What is late is shown once, as KV8 has it, while planned times have passed."""
        take(self.feed, kv.planning(planned("1", -25)), kv.calendar("2026-01-01"))
        self.assertEqual(self.shown(), [])
        expected = {"ExpectedArrivalTime": at(5), "ExpectedDepartureTime": at(5)}
        take(self.feed, kv.passtimes(live("1", -25, **expected)))
        self.assertEqual(self.shown(), [("1", "DRIVING")])
        self.assertEqual(self.board().passtimes[0].product_formula_type, "18")

    def test_cancelled(self) -> None:
        """A cancellation is shown in place of what was planned."""
        take(self.feed, kv.planning(planned("1", 10)), kv.calendar("2026-01-01"))
        take(self.feed, kv.passtimes(live("1", 10, TripStopStatus="CANCEL")))
        self.assertEqual(self.shown(), [("1", "CANCEL")])

    def test_filled(self) -> None:
        """What only the planning knows is filled in; a wheelchair's place only where KV8 does not know."""
        take(self.feed, kv.planning(planned("1", 10), planned("2", 20), planned("3", 30)))
        take(self.feed, kv.calendar("2026-01-01"))
        rows = [live(journey, 10, WheelChairAccessible=known) for journey, known in
                [("1", "UNKNOWN"), ("2", "NOTACCESSIBLE"), ("4", "UNKNOWN")]]  # fmt: skip
        take(self.feed, kv.passtimes(*rows))
        self.assertEqual(
            [(one.journey_number, one.wheelchair, one.product_formula_type) for one in self.board().passtimes],
            [
                ("1", "ACCESSIBLE", "18"),
                ("2", "NOTACCESSIBLE", "18"),
                ("4", "UNKNOWN", None),
                ("3", "ACCESSIBLE", "18"),
            ],
        )

    def test_other_trips_stay(self) -> None:
        """News of one trip leaves the stop's others as they were."""
        take(self.feed, kv.passtimes(live("1", 10), live("2", 20)), kv.passtimes(live("3", 30)))
        newer = {"TripStopStatus": "ARRIVED", "LastUpdateTimeStamp": "2026-01-01T01:00:00+01:00"}
        take(self.feed, kv.passtimes(live("2", 20, **newer)))
        self.assertEqual(self.shown(), [("1", "DRIVING"), ("2", "ARRIVED"), ("3", "DRIVING")])

    def test_messages(self) -> None:
        """A message is there from its beginning to its end, and the board is for no longer than either."""
        beginning, end = "2026-01-01T01:02:00+01:00", "2026-01-01T01:05:00+01:00"
        take(self.feed, kv.general_message({"MessageStartTime": beginning, "MessageEndTime": end}))
        for minutes, shown, until in [(0, 0, 2), (2, 1, 5), (3, 0, None)]:
            self.clock.advance(minutes * MINUTE)
            board = self.board()
            self.assertEqual(len(board.messages), shown)
            if until is not None:
                self.assertEqual(board.valid_until, NOW + until * MINUTE)
        take(self.feed, kv.general_message({"MessageCodeNumber": "28"}))
        self.assertEqual([message.key for message in self.board().messages], ["LIN_2026-01-01_28_ALGEMEEN_30000001"])
        take(self.feed, kv.general_message_delete({"MessageCodeNumber": "28"}))
        self.assertEqual(self.board().messages, ())


class MadeTests(BoardsTestCase):
    """What is made of a board, and when it is made again."""

    def setUp(self) -> None:
        super().setUp()
        self.n_made = 0

    def make(self, board: StopDepartures) -> bytes:
        self.n_made += 1
        return b"%d passes" % len(board.passtimes)

    def made(self, code: str = CODE, form: object = "form") -> bytes:
        return self.boards.made(code, HORIZON, form, self.make)[1]

    def test_once(self) -> None:
        """It is made when somebody asks, and then given again, with its board."""
        take(self.feed, kv.passtimes(live("1", 30)))
        self.assertEqual(self.n_made, 0)
        first = self.boards.made(CODE, HORIZON, "form", self.make)
        for _ in range(5):
            self.clock.advance(MINUTE)
            again = self.boards.made(CODE, HORIZON, "form", self.make)
            self.assertEqual(again[0], replace(first[0], passtimes=(), messages=()))
            self.assertIs(again[1], first[1])
        self.assertEqual(self.n_made, 1)

    def test_forms(self) -> None:
        """Each form is kept by itself."""
        take(self.feed, kv.passtimes(live("1", 30)))
        for form in ("a", "b", "a", "b"):
            self.made(form=form)
        self.assertEqual(self.n_made, 2)

    def test_change(self) -> None:
        """It is made again when the stop has changed, and not for another stop's change or the same word again."""
        for message, n_made in [
            (kv.passtimes(live("1", 30)), 1),
            (kv.passtimes(live("1", 30)), 1),
            (kv.passtimes(live("1", 30, TimingPointCode="30000002", UserStopCode="u2")), 1),
            (kv.passtimes(live("2", 30)), 2),
            (kv.general_message({}), 3),
            (kv.general_message({}), 3),
            (kv.general_message_delete({}), 4),
            (kv.planning(planned("3", 20)), 5),
            (kv.calendar("2026-01-01"), 6),
        ]:
            take(self.feed, message)
            self.made()
            self.assertEqual(self.n_made, n_made)
        self.assertEqual(self.made(), b"3 passes")

    def test_expiry(self) -> None:
        """It is made again when its next pass has gone, and not before."""
        take(self.feed, kv.passtimes(live("1", 3), live("2", 5)))
        self.assertEqual(self.made(), b"2 passes")
        self.clock.advance(4 * MINUTE - 0.001)
        self.assertEqual((self.made(), self.n_made), (b"2 passes", 1))
        self.clock.advance(0.001)
        self.assertEqual((self.made(), self.n_made), (b"1 passes", 2))

    def test_horizon(self) -> None:
        """It is made again when another pass comes within the horizon, live or planned."""
        take(self.feed, kv.passtimes(live("1", 62)), kv.planning(planned("2", 64), planned("3", 75)))
        take(self.feed, kv.calendar("2026-01-01"))
        seen = []
        for _ in range(17):
            seen.append(self.made())
            self.clock.advance(MINUTE)
        self.assertEqual(seen, [b"0 passes"] * 2 + [b"1 passes"] * 2 + [b"2 passes"] * 11 + [b"3 passes"] * 2)
        self.assertLess(self.n_made, 6)

    def test_bound(self) -> None:
        """Only so many bytes are kept; what nobody has asked for the longest goes first."""
        codes = ["1", "2", "3"]
        take(self.feed, kv.passtimes(*(live("1", 30, TimingPointCode=code) for code in codes)))
        self.feed.boards._size = 2 * len("1 passes")
        for code, n_made in [("1", 1), ("2", 2), ("1", 2), ("3", 3), ("1", 3), ("2", 4), ("3", 5)]:
            self.made(code)
            self.assertEqual(self.n_made, n_made)

    def test_too_large(self) -> None:
        """What is larger than all that may be kept is given, and not kept."""
        take(self.feed, kv.passtimes(live("1", 30)))
        self.feed.boards._size = 5
        self.assertEqual([self.made(), self.made()], [b"1 passes"] * 2)
        self.assertEqual(self.n_made, 2)

    def test_unknown(self) -> None:
        """Nothing is kept of a stop that there is not: anybody can make up ten thousand million codes."""
        self.assertEqual([self.made(), self.made()], [b"0 passes"] * 2)
        self.assertEqual(self.n_made, 2)


class JourneyTests(BoardsTestCase):
    """A journey's passes."""

    def journey(self, key: str = "LIN_77_L004_1_0") -> list[tuple[str, str, str]]:
        return sorted(
            (one.user_stop_order_number, one.timing_point_code, one.trip_stop_status)
            for one in self.boards.journey(key)
        )

    def test_none(self) -> None:
        """What is no journey's key has no passes, and neither has a journey that there is not."""
        take(self.feed, kv.passtimes(live("1", 30)))
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

    def test_joined(self) -> None:
        """What is planned is there until KV8 speaks of it, stop by stop."""
        second = {"UserStopOrderNumber": "4", "UserStopCode": "u2"}
        stops: list[dict[str, str | None]] = [{}, {"UserStopCode": "u2", "TimingPointCode": "30000002"}]
        passes = kv.planning(planned("1", 30), planned("1", 32, **second), planned("11", 30), user_stops=stops)
        take(self.feed, passes, kv.calendar("2026-01-01"))
        self.assertEqual(self.journey(), [("3", CODE, "PLANNED"), ("4", "30000002", "PLANNED")])
        take(self.feed, kv.passtimes(live("1", 35, TimingPointCode="30000002", **second)))
        self.assertEqual(self.journey(), [("3", CODE, "PLANNED"), ("4", "30000002", "DRIVING")])
        live_one = next(one for one in self.boards.journey("LIN_77_L004_1_0") if one.trip_stop_status == "DRIVING")
        self.assertEqual(live_one.product_formula_type, "18")

    def test_dates(self) -> None:
        """Of a journey that runs on several days, the day that is nearest is given."""
        rows = [live("1", 30, OperationDate=day) for day in ("2026-01-01", "2026-01-02")]
        take(self.feed, kv.passtimes(*rows))
        self.assertEqual([one.operation_date for one in self.boards.journey("LIN_77_L004_1_0")], [date(2026, 1, 1)])

    def test_separator(self) -> None:
        """A line's number may have the separator in it."""
        take(self.feed, kv.passtimes(live("1", 30, LinePlanningNumber="L_4_")))
        self.assertEqual(self.journey("LIN_77_L_4__1_0"), [("3", CODE, "DRIVING")])
