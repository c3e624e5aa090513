"""The gateway: what it is asked, what becomes of its callbacks, and what is said of it in the log."""

import gzip
from typing import Any

from lxml import etree
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from govi_server.departures.board import Board, Trip
from govi_server.departures.source import IDepartureSource, NoBoard, SourceBroken, SourceSilent, SourceUnreachable
from govi_server.kv55.gateway import LATE, Gateway, IPoster, Unsolicited
from govi_server.kv55.messages import BadMessage, read_dris_55_req, write_dris_55, write_error
from govi_server.kv55.post import PostError
from govi_server.settings import GatewaySettings
from tests.doubles import FakePoster

NOW = 1327272349.0  # 2012-01-22T23:45:49+01:00
CODE = "57330430"

# A callback that breaks off after it has named its stop, and one that breaks off before.
BROKEN = b"<DRIS_55><Request><TimingPoint><TimingPointCode>57330430</TimingPointCode><Tri"
BROKEN_EARLY = b"<DRIS_55><Request><TimingPoint><TimingPointCo"


def answer(*codes: str, number: str | None = None, journey: str = "143") -> bytes:
    """Write a callback with one trip for each stop; without a number it has no SequenceNumber."""
    envelope: tuple[tuple[str, str], ...] = (("SubscriberID", "openOV"),)
    if number is not None:
        envelope += (("SequenceNumber", number),)
    return write_dris_55([Board(code, (Trip(journey_number=journey),), NOW, envelope) for code in codes])


def journey(board: Board) -> str | None:
    """Tell which answer a board is from, where the test has given each a journey of its own."""
    return board.trips[0].journey_number


class DoubleTests(SynchronousTestCase):
    """The poster of these tests."""

    def test_provides(self) -> None:
        """The double has what a poster has."""
        verifyObject(IPoster, FakePoster())


class GatewayTestCase(SynchronousTestCase):
    """A gateway whose POSTs the test answers, and whose callbacks the test sends."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.heard: list[Board] = []
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)
        self.use(GatewaySettings())

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def use(self, limits: GatewaySettings) -> None:
        """Begin with a gateway that has asked nothing yet."""
        self.poster = FakePoster()
        self.gateway = Gateway(self.poster, self.clock, "GOVI", limits=limits)
        self.gateway.listen(self.heard.append)

    def ask(self, code: str = CODE, taken: bool = True) -> Deferred[Board]:
        """Ask for a stop; the gateway takes the question, or says nothing to it yet."""
        board = self.gateway.board(code)
        if taken:
            self.poster.posts[-1].callback(None)
        return board

    def ask_in_vain(self, code: str = CODE) -> str:
        """Ask for a stop, let the time go by, and give the question's number."""
        board = self.ask(code)
        self.clock.advance(10)
        self.failureResultOf(board, SourceSilent)
        return self.number()

    def number(self) -> str:
        """Give the number of the last question."""
        return read_dris_55_req(self.poster.bodies[-1]).sequence_number

    def assertAnswered(self, board: Deferred[Board], expected: str = "143", code: str = CODE) -> None:
        """Check that a question was answered, and with which answer."""
        result = self.successResultOf(board)
        self.assertEqual((result.code, journey(result)), (code, expected))

    def assertFails(self, board: Deferred[Board], error: type[NoBoard], why: str) -> None:
        """Check that a question failed, and why."""
        failure = self.failureResultOf(board, error)
        self.assertEqual(failure.getErrorMessage(), why)

    def assertCounts(self, **counts: int) -> None:
        """Check how many incidents there were, of all kinds."""
        self.assertEqual(self.gateway.incidents.counts, counts)

    def lines(self) -> list[tuple[Any, str]]:
        """Give what the log says, with the levels."""
        return [(event["log_level"], formatEvent(event)) for event in self.events if "flight" not in event]


class QuestionTests(GatewayTestCase):
    """What is posted to the gateway."""

    def test_provides(self) -> None:
        """The gateway is a source."""
        verifyObject(IDepartureSource, self.gateway)

    def test_message(self) -> None:
        """A question is a DRIS_55_REQ with all elements of the interface in their order, for one stop."""
        self.gateway = Gateway(self.poster, self.clock, "GOVI", "us & them")
        board = self.ask("031102")
        self.assertEqual(len(self.poster.bodies), 1)
        document = etree.fromstring(self.poster.bodies[0])
        self.assertEqual(
            [(element.tag, (element.text or "").strip()) for element in document.iter()],
            [
                ("DRIS_55_REQ", ""),
                ("SubscriberID", "us & them"),
                ("Version", "0.0.1"),
                ("DossierName", "KV55"),
                ("SendTimestamp", "2012-01-22T23:45:49+01:00"),
                ("Request", ""),
                ("RequestTimestamp", "2012-01-22T22:45:49"),
                ("SequenceNumber", "1"),
                ("TimingPoint", ""),
                ("TimingPointCode", "031102"),
            ],
        )
        self.assertEqual(self.poster.encodings, [None])
        self.gateway.deliver(answer("031102"))
        self.assertAnswered(board, code="031102")

    def test_numbers(self) -> None:
        """Questions are numbered from 1 on, whatever stop they are for and whatever became of the last one."""
        for number, code in enumerate(("1", "2", "2", "3", "1"), 1):
            board = self.ask(code)
            self.assertEqual((self.number(), len(self.poster.bodies)), (str(number), number))
            if number % 2:
                self.gateway.deliver(answer(code))
                self.successResultOf(board)
            else:
                self.clock.advance(10)
                self.failureResultOf(board, SourceSilent)

    def test_asked_each_time(self) -> None:
        """The gateway does not join questions: that is the cache's."""
        boards = [self.ask(), self.ask()]
        self.assertEqual(len(self.poster.bodies), 2)
        for number, board in enumerate(boards, 1):
            self.gateway.deliver(answer(CODE, number=str(number), journey=str(number)))
            self.assertAnswered(board, str(number))


class AnswerTests(GatewayTestCase):
    """Callbacks that come in time."""

    def test_answered(self) -> None:
        """A callback, gzip or plain, answers the question of its stop, as of the moment it came."""
        for packed in (answer(CODE), gzip.compress(answer(CODE)), gzip.compress(answer(CODE), mtime=0)):
            board = self.ask()
            self.clock.advance(0.25)
            self.assertNoResult(board)
            self.gateway.deliver(packed)
            result = self.successResultOf(board)
            self.assertEqual((result.code, journey(result)), (CODE, "143"))
            self.assertEqual(result.received_at, self.clock.seconds())
        self.assertEqual(self.heard, [])
        self.assertCounts()
        self.assertEqual(self.lines(), [])

    def test_envelope(self) -> None:
        """A board brings the header of its message along."""
        board = self.ask()
        self.gateway.deliver(answer(CODE, number="1"))
        envelope = dict(self.successResultOf(board).envelope)
        self.assertEqual((envelope["SubscriberID"], envelope["SequenceNumber"]), ("openOV", "1"))

    def test_before_taken(self) -> None:
        """A callback may overtake the answer to the POST, which may then be anything."""
        for becomes in (None, PostError("answered 500")):
            board = self.ask(taken=False)
            self.gateway.deliver(answer(CODE))
            self.assertAnswered(board)
            if becomes is None:
                self.poster.posts[-1].callback(None)
            else:
                self.poster.posts[-1].errback(becomes)
        self.assertCounts()
        self.assertEqual(self.lines(), [])

    def test_at_the_last_moment(self) -> None:
        """A callback just before the deadline is in time."""
        board = self.ask()
        self.clock.advance(9.9375)
        self.gateway.deliver(answer(CODE))
        self.assertAnswered(board)

    def test_numbers(self) -> None:
        """The gateway may echo the number, always send the same one, one that nobody knows, or none at all."""
        for number in ("1", "56", "0", "", "none", None):
            self.use(GatewaySettings())
            board = self.ask()
            self.gateway.deliver(answer(CODE, number=number))
            self.assertAnswered(board)
            self.assertEqual(self.heard, [])

    def test_always_the_same_number(self) -> None:
        """A gateway that always sends 56 answers every question, also long after that was the number of one."""
        for number in range(1, 62):
            board = self.ask()
            self.assertEqual(self.number(), str(number))
            self.clock.advance(1)
            self.gateway.deliver(answer(CODE, number="56", journey=str(number)))
            self.assertAnswered(board, str(number))
        self.assertEqual(self.heard, [])
        self.assertCounts()

    def test_several_stops(self) -> None:
        """One callback may answer for several stops; those that nobody asked for are left out."""
        boards = {code: self.ask(code) for code in ("1", "2", "4")}
        self.gateway.deliver(answer("0", "1", "2", "3"))
        for code in ("1", "2"):
            self.assertAnswered(boards[code], code=code)
        self.assertNoResult(boards["4"])
        self.assertEqual(self.heard, [])
        self.gateway.deliver(answer("4"))
        self.assertAnswered(boards["4"], code="4")
        self.assertCounts()

    def test_codes_are_text(self) -> None:
        """A leading zero makes another stop."""
        board = self.ask("031102")
        self.assertRaises(Unsolicited, self.gateway.deliver, answer("31102"))
        self.assertNoResult(board)
        self.gateway.deliver(answer("031102"))
        self.assertAnswered(board, code="031102")

    def test_asks_again_at_once(self) -> None:
        """Who asks again on getting an answer or a failure is asked for like any other."""
        for fails in (False, True):
            board = self.ask()
            again: list[Deferred[Board]] = []

            def ask_again(_: object, again: list[Deferred[Board]] = again) -> None:
                again.append(self.ask())

            board.addBoth(ask_again)
            if fails:
                self.clock.advance(10)
            else:
                self.gateway.deliver(answer(CODE, journey="1"))
            self.gateway.deliver(answer(CODE, journey="2"))
            self.assertAnswered(again[0], "2")
        self.assertEqual(self.heard, [])


class DeadlineTests(GatewayTestCase):
    """Questions that get no answer in time, or are not taken."""

    def test_default(self) -> None:
        """An answer may take ten seconds, below the thirteen of a connection."""
        self.assertEqual(GatewaySettings().answer, 10.0)

    def test_silent(self) -> None:
        """A question that was taken fails after ten seconds as one that got no answer."""
        board = self.ask()
        self.clock.advance(9.9375)
        self.assertNoResult(board)
        self.clock.advance(0.0625)
        self.assertFails(board, SourceSilent, "no answer within 10 s")
        self.assertCounts(silent=1)

    def test_not_taken(self) -> None:
        """A question that was not taken after ten seconds fails as that, and its POST is given up."""
        board = self.ask(taken=False)
        self.clock.advance(9.9375)
        self.assertNoResult(board)
        self.assertEqual(self.poster.cancelled, [])
        self.clock.advance(0.0625)
        self.assertFails(board, SourceUnreachable, "the question was not taken within 10 s")
        self.assertEqual(self.poster.cancelled, self.poster.posts)
        self.assertCounts()

    def test_taken_late(self) -> None:
        """The ten seconds are counted from the question, not from when it was taken."""
        board = self.ask(taken=False)
        self.clock.advance(9)
        self.poster.posts[0].callback(None)
        self.clock.advance(1)
        self.assertFails(board, SourceSilent, "no answer within 10 s")

    def test_refused(self) -> None:
        """A question whose POST fails fails at once, with what the POST failed with."""
        for seconds in (0, 3):
            board = self.ask(taken=False)
            self.clock.advance(seconds)
            self.poster.posts[-1].errback(PostError("answered 503 Busy"))
            self.assertFails(board, SourceUnreachable, "answered 503 Busy")

    def test_refused_before_it_returns(self) -> None:
        """A POST may fail before post() has returned."""
        self.poster.at_once = PostError("connection refused")
        self.assertFails(self.gateway.board(CODE), SourceUnreachable, "connection refused")

    def test_limit(self) -> None:
        """The deadline is the one that was set."""
        self.use(GatewaySettings(answer=2.5))
        board = self.ask()
        self.clock.advance(2.5)
        self.assertFails(board, SourceSilent, "no answer within 2.5 s")

    def test_each_its_own(self) -> None:
        """A lost question keeps nobody waiting but those who asked it: each has a deadline of its own."""
        boards = []
        for _ in range(4):
            boards.append(self.ask())
            self.clock.advance(5)
        self.assertEqual([board.called for board in boards], [True, True, True, False])
        self.gateway.deliver(answer(CODE, number="4"))
        self.assertAnswered(boards.pop())
        for board in boards:
            self.failureResultOf(board, SourceSilent)


class BrokenTests(GatewayTestCase):
    """Callbacks that cannot be read."""

    def break_off(self, data: bytes) -> str:
        """Send what cannot be read, and give what is said of it."""
        with self.assertRaises(BadMessage) as caught:
            self.gateway.deliver(data)
        return str(caught.exception)

    def test_names_the_stop(self) -> None:
        """A broken callback that names its stop fails that stop's question at once, and no other."""
        for data in (BROKEN, write_error(CODE, "Timeout"), answer(CODE)[:-20]):
            board, other = self.ask(), self.ask("1")
            why = self.break_off(data)
            self.assertFails(board, SourceBroken, why)
            self.assertNoResult(other)
            self.clock.advance(10)
            self.assertFails(other, SourceSilent, "no answer within 10 s")

    def test_names_no_stop(self) -> None:
        """After a broken callback that names no stop, all who wait in vain know why at their deadline."""
        for data in (BROKEN_EARLY, b"", b"nonsense", b"\x1f\x8bnonsense", gzip.compress(BROKEN_EARLY)):
            taken = self.ask("1")
            self.clock.advance(5)
            not_taken = self.ask("2", taken=False)
            why = self.break_off(data)
            later = self.ask("3")
            self.assertNoResult(taken)
            self.clock.advance(5)
            self.assertFails(taken, SourceBroken, why)
            self.clock.advance(5)
            self.assertFails(not_taken, SourceBroken, why)
            self.assertFails(later, SourceSilent, "no answer within 10 s")
            self.assertIs(self.poster.cancelled[-1], self.poster.posts[-2])

    def test_compressed(self) -> None:
        """A broken callback that names its stop is known for its stop's, compressed or not."""
        board, other = self.ask(), self.ask("1")
        self.break_off(gzip.compress(write_error(CODE, "Timeout")))
        self.failureResultOf(board, SourceBroken)
        self.clock.advance(10)
        self.failureResultOf(other, SourceSilent)

    def test_names_a_strange_stop(self) -> None:
        """A broken callback for a stop that nobody asked for is nobody's."""
        board = self.ask()
        self.break_off(write_error("999", "Timeout"))
        self.clock.advance(10)
        self.failureResultOf(board, SourceSilent)

    def test_then_right(self) -> None:
        """After a broken callback the right answer still answers."""
        board = self.ask()
        self.break_off(BROKEN_EARLY)
        self.clock.advance(1)
        self.gateway.deliver(answer(CODE))
        self.assertAnswered(board)
        self.assertEqual(self.heard, [])

    def test_then_right_too_late(self) -> None:
        """The right answer after the broken one that failed its question is kept."""
        board = self.ask()
        self.break_off(BROKEN)
        self.failureResultOf(board, SourceBroken)
        self.gateway.deliver(answer(CODE))
        self.assertEqual([heard.code for heard in self.heard], [CODE])

    def test_lands_the_one_that_waits(self) -> None:
        """A broken callback fails the question that waits, not one whose time is over."""
        self.ask_in_vain()
        board = self.ask()
        self.assertFails(board, SourceBroken, self.break_off(BROKEN))

    def test_nobody_waits(self) -> None:
        """A broken callback for which nobody waits changes nothing for who asks next."""
        self.break_off(BROKEN)
        self.ask_in_vain()
        self.break_off(BROKEN)
        self.break_off(BROKEN_EARLY)
        board = self.ask()
        self.gateway.deliver(answer(CODE, number="2"))
        self.assertAnswered(board)
        self.assertCounts(broken=3, silent=1)

    def test_too_large(self) -> None:
        """A callback over the limit, before or after gunzip, is broken."""
        self.use(GatewaySettings(message=2000))
        board = self.ask()
        for data in (b" " * 2000 + answer(CODE), gzip.compress(b" " * 2001)):
            self.assertRegex(self.break_off(data), "more than 2000 bytes")
        self.gateway.deliver(answer(CODE))
        self.assertAnswered(board)


class UnsolicitedTests(GatewayTestCase):
    """Callbacks that answer no question that waits."""

    def test_nobody_asked(self) -> None:
        """A callback that nobody asked for is refused, counted, and never heard."""
        for n in (1, 2, 3):
            with self.assertRaises(Unsolicited) as caught:
                self.gateway.deliver(answer(CODE, number="1"))
            self.assertEqual(str(caught.exception), f"nobody asked for stop {CODE}")
            self.assertCounts(unsolicited=n)
        self.assertEqual(self.heard, [])

    def test_another_stop(self) -> None:
        """An answer for another stop is refused, whatever its number, and the question goes on."""
        board = self.ask()
        for number in (None, self.number()):
            self.assertRaises(Unsolicited, self.gateway.deliver, answer("1", "2", number=number))
        self.assertNoResult(board)
        self.clock.advance(9)
        self.gateway.deliver(answer(CODE))
        self.assertAnswered(board)
        self.assertEqual(self.heard, [])
        self.assertCounts(unsolicited=2)

    def test_late(self) -> None:
        """An answer after the deadline is heard by everybody who listens, and counted."""
        also_heard: list[Board] = []
        self.gateway.listen(also_heard.append)
        self.ask_in_vain()
        self.clock.advance(5)
        self.gateway.deliver(answer(CODE))
        self.assertEqual([(board.code, board.received_at) for board in self.heard], [(CODE, self.clock.seconds())])
        self.assertEqual(also_heard, self.heard)
        self.assertCounts(silent=1, late=1)

    def test_late_after_not_taken(self) -> None:
        """An answer to a question that seemed not to be taken is heard too."""
        board = self.ask(taken=False)
        self.poster.posts[0].errback(PostError("broken off"))
        self.failureResultOf(board, SourceUnreachable)
        self.gateway.deliver(answer(CODE))
        self.assertEqual(len(self.heard), 1)

    def test_how_late(self) -> None:
        """An answer is late up to five minutes after its question; after that nobody has asked for it."""
        self.assertEqual(LATE, 300.0)
        for seconds, late in ((10, True), (299, True), (300, True), (300.5, False), (3600, False)):
            self.use(GatewaySettings())
            self.heard.clear()
            self.ask_in_vain()
            self.clock.advance(seconds - 10)
            if late:
                self.gateway.deliver(answer(CODE))
            else:
                self.assertRaises(Unsolicited, self.gateway.deliver, answer(CODE))
            self.assertEqual(len(self.heard), late, seconds)

    def test_repeated(self) -> None:
        """An answer that comes again is accepted, counted, and not heard: in time, late, or both."""
        for late, repeated in ((False, 2), (True, 4)):
            if late:
                self.ask_in_vain()
                self.gateway.deliver(answer(CODE))
            else:
                board = self.ask()
                self.gateway.deliver(answer(CODE))
                self.assertAnswered(board)
            for _ in range(2):
                self.clock.advance(1)
                self.gateway.deliver(answer(CODE))
            self.assertEqual(len(self.heard), late)
            self.assertEqual(self.gateway.incidents.counts["repeated"], repeated)

    def test_repeated_long_after(self) -> None:
        """An answer that is repeated after five minutes is one that nobody asked for."""
        board = self.ask()
        self.gateway.deliver(answer(CODE))
        self.assertAnswered(board)
        self.clock.advance(300.5)
        self.assertRaises(Unsolicited, self.gateway.deliver, answer(CODE))

    def test_late_while_a_newer_waits(self) -> None:
        """A late answer with the older question's number is heard, and the newer question waits for its own."""
        older = self.ask_in_vain()
        board = self.ask()
        newer = self.number()
        self.gateway.deliver(answer(CODE, number=older, journey="1"))
        self.assertNoResult(board)
        self.assertEqual([journey(heard) for heard in self.heard], ["1"])
        self.gateway.deliver(answer(CODE, number=newer, journey="2"))
        self.assertAnswered(board, "2")
        self.assertEqual(len(self.heard), 1)
        self.assertCounts(silent=1, late=1)

    def test_no_number_while_a_newer_waits(self) -> None:
        """An answer without a number is for the question that waits, if there is one."""
        self.ask_in_vain()
        board = self.ask()
        self.gateway.deliver(answer(CODE))
        self.assertAnswered(board)
        self.assertEqual(self.heard, [])

    def test_some_late(self) -> None:
        """Of several stops in one callback each goes to where it belongs."""
        self.ask_in_vain("1")
        board = self.ask("2")
        self.gateway.deliver(answer("1", "2", "3"))
        self.assertEqual([heard.code for heard in self.heard], ["1"])
        self.assertAnswered(board, code="2")
        self.assertCounts(silent=1, late=1)

    def test_nobody_listens(self) -> None:
        """A late answer is taken where nobody listens."""
        self.gateway = Gateway(self.poster, self.clock, "GOVI")
        self.ask_in_vain()
        self.gateway.deliver(answer(CODE))
        self.assertEqual(self.heard, [])

    def test_refuse(self) -> None:
        """A callback from somebody who may not send any is counted."""
        self.gateway.refuse("192.0.2.0/24")
        self.assertCounts(refused=1)


class MemoryTests(GatewayTestCase):
    """What the gateway remembers of its questions."""

    def test_oldest_forgotten(self) -> None:
        """Of more questions than are remembered the oldest are forgotten, so late answers to them are refused."""
        self.use(GatewaySettings(remembered=3))
        codes = [str(n) for n in range(8)]
        for code in codes:
            self.ask_in_vain(code)
        for code in codes[:4]:
            self.assertRaises(Unsolicited, self.gateway.deliver, answer(code))
        for code in codes[-3:]:
            self.gateway.deliver(answer(code))
        self.assertEqual([board.code for board in self.heard], codes[-3:])

    def test_waiting_is_not_forgotten(self) -> None:
        """A question that waits is remembered, however many there are."""
        self.use(GatewaySettings(remembered=1))
        boards = {str(n): self.ask(str(n)) for n in range(20)}
        for code, board in boards.items():
            self.gateway.deliver(answer(code))
            self.assertAnswered(board, code=code)

    def test_bounded(self) -> None:
        """However many questions and stops there were, no more of them are in memory than the limit, and one."""
        self.use(GatewaySettings(remembered=10))
        for n in range(100):
            board = self.ask(str(n))
            self.gateway.deliver(answer(str(n)))
            self.successResultOf(board)
        asked = self.gateway._asked
        self.assertLessEqual(len(asked.in_order), 11)
        self.assertEqual(set(asked.by_code), {flight.code for flight in asked.in_order})

    def test_old_forgotten(self) -> None:
        """What was asked too long ago to be answered late is not in memory any more when the next is asked."""
        for n in range(100):
            board = self.ask(str(n % 7))
            self.gateway.deliver(answer(str(n % 7)))
            self.successResultOf(board)
        self.clock.advance(LATE + 0.5)
        board = self.ask()
        self.gateway.deliver(answer(CODE))
        self.successResultOf(board)
        self.assertEqual(len(self.gateway._asked.in_order), 1)
        self.assertEqual(list(self.gateway._asked.by_code), [CODE])


class StopTests(GatewayTestCase):
    """The end of the gateway."""

    def test_stop(self) -> None:
        """What is on its way fails, nothing is left to be called, and the connections are closed."""
        self.gateway.startService()
        boards = [self.ask("1"), self.ask("2", taken=False), self.ask("1")]
        self.ask_and_answer("3")
        self.assertFalse(self.poster.closed)
        self.successResultOf(self.gateway.stopService())
        for board in boards:
            self.assertFails(board, SourceSilent, "the server stops")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(self.poster.closed)
        self.assertFalse(self.gateway.running)

    def ask_and_answer(self, code: str) -> None:
        board = self.ask(code)
        self.gateway.deliver(answer(code))
        self.assertAnswered(board, code=code)

    def test_post_ends(self) -> None:
        """A question that is answered before it is acknowledged does not stay with the poster for good."""
        board = self.ask(taken=False)
        self.gateway.deliver(answer(CODE))
        self.assertAnswered(board)
        self.assertEqual(self.poster.cancelled, [])
        self.clock.advance(10)
        self.assertEqual(self.poster.cancelled, self.poster.posts)
        self.assertEqual(self.lines(), [])

    def test_events(self) -> None:
        """How long questions took is told in events: until they were taken, and until they were answered."""
        self.ask()
        self.clock.advance(2)
        self.gateway.deliver(answer(CODE))
        flights = [event["flight"] for event in self.events if "flight" in event]
        self.assertEqual([(one.name, one.seconds) for one in flights], [("taken", 0.0), ("answered", 2.0)])

    def test_stop_idle(self) -> None:
        """A gateway that was asked nothing stops as well."""
        self.gateway.startService()
        self.successResultOf(self.gateway.stopService())
        self.assertTrue(self.poster.closed)

    def test_after_stop(self) -> None:
        """What comes of a question after the end is nobody's error, and is not told."""
        boards = [self.ask("1", taken=False), self.ask("2", taken=False)]
        self.successResultOf(self.gateway.stopService())
        for board in boards:
            self.failureResultOf(board, SourceSilent)
        self.assertEqual(set(self.poster.cancelled), set(self.poster.posts))
        self.assertEqual(self.lines(), [])


class LogTests(GatewayTestCase):
    """What the log says."""

    def be_refused(self) -> None:
        """Have a question refused."""
        board = self.ask(taken=False)
        self.poster.posts[-1].errback(PostError("connection refused"))
        self.failureResultOf(board, SourceUnreachable)

    def be_answered(self) -> None:
        """Have a question answered."""
        board = self.ask()
        self.gateway.deliver(answer(CODE))
        self.successResultOf(board)

    def test_quiet(self) -> None:
        """When all goes well nothing is said."""
        for _ in range(3):
            self.be_answered()
        self.assertEqual(self.lines(), [])

    def test_fails_once(self) -> None:
        """While the gateway fails that is said once, and when it answers again that is said once."""
        for _ in range(3):
            self.be_refused()
            self.clock.advance(0.5)
        self.assertEqual(self.lines(), [(LogLevel.warn, "GOVI fails: connection refused")])
        for _ in range(3):
            self.be_answered()
        self.assertEqual(self.lines()[1:], [(LogLevel.info, "GOVI takes questions again, after 1.5 s")])

    def test_fails_again(self) -> None:
        """When it fails again that is said again, but of one that comes and goes no more than once a minute."""
        for _ in range(7):
            self.be_refused()
            self.be_answered()
            self.clock.advance(15)
        self.assertEqual([level for level, _ in self.lines()], [LogLevel.warn, LogLevel.info] * 2)

    def test_not_taken(self) -> None:
        """A gateway that does not take questions fails."""
        for _ in range(2):
            board = self.ask(taken=False)
            self.clock.advance(10)
            self.failureResultOf(board, SourceUnreachable)
        self.assertEqual(self.lines(), [(LogLevel.warn, "GOVI fails: the question was not taken within 10 s")])

    def test_taken_again(self) -> None:
        """A gateway that takes a question does not fail any more, whether it answers or not."""
        self.be_refused()
        self.ask_in_vain()
        self.assertEqual(self.lines()[1], (LogLevel.info, "GOVI takes questions again, after 0.0 s"))

    def test_answers_before_it_takes(self) -> None:
        """A callback that overtakes the answer to its POST shows that the gateway does not fail any more."""
        self.be_refused()
        board = self.ask(taken=False)
        self.gateway.deliver(answer(CODE))
        self.successResultOf(board)
        self.assertEqual(self.lines()[1:], [(LogLevel.info, "GOVI takes questions again, after 0.0 s")])
        self.poster.posts[-1].callback(None)
        self.assertEqual(len(self.lines()), 2)

    def test_incidents(self) -> None:
        """Every kind of incident is told as a warning that says what, which stop and who."""
        self.ask_in_vain()
        self.clock.advance(2.5)
        self.gateway.deliver(answer(CODE))
        self.gateway.deliver(answer(CODE))
        self.assertRaises(Unsolicited, self.gateway.deliver, answer("1", "2"))
        self.assertRaises(BadMessage, self.gateway.deliver, write_error("1", "Timeout"))
        self.gateway.refuse("192.0.2.0/24")
        self.assertEqual(
            self.lines(),
            [
                (LogLevel.warn, line)
                for line in (
                    "GOVI took the question for stop 57330430, no answer came within 10 s",
                    "GOVI answered for stop 57330430 late, after 12.5 s: kept",
                    "GOVI repeated its answer for stop 57330430",
                    "GOVI sent stop 1, 2, which nobody asked for: refused",
                    "GOVI sent what cannot be read: the answer is an error: 'Timeout'",
                    "A callback for GOVI from 192.0.2.0/24, who may not send any: refused",
                )
            ],
        )
        self.assertCounts(silent=1, late=1, repeated=1, unsolicited=1, broken=1, refused=1)

    def test_once_a_minute(self) -> None:
        """However often an incident happens it is told once a minute, with how many there were."""
        for n in range(121):
            self.assertRaises(Unsolicited, self.gateway.deliver, answer(str(n)))
            self.clock.advance(1)
        more = "(and 59 more of this kind since the last such line)"
        self.assertEqual(
            [line for _, line in self.lines()],
            [
                "GOVI sent stop 0, which nobody asked for: refused",
                f"GOVI sent stop 60, which nobody asked for: refused {more}",
                f"GOVI sent stop 120, which nobody asked for: refused {more}",
            ],
        )
        self.assertCounts(unsolicited=121)

    def test_many_stops(self) -> None:
        """A callback with very many stops does not fill the log."""
        self.assertRaises(Unsolicited, self.gateway.deliver, answer(*map(str, range(1000))))
        self.assertEqual(
            self.lines(), [(LogLevel.warn, "GOVI sent stop 0, 1, 2, 3, 4, which nobody asked for: refused")]
        )
