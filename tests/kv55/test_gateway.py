"""Tests of kv55.gateway: gateway requests, callbacks, incidents and log lines."""

import gzip
from typing import Any
from unittest import mock

from lxml import etree
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from govi_server.departures.board import Board, Trip
from govi_server.departures.source import IAcknowledgingSource, NoBoard, SourceBroken, SourceSilent, SourceUnreachable
from govi_server.kv55.gateway import MAX_LATE_SECONDS, Gateway, IPeers, IPoster, OfferResult, Unsolicited
from govi_server.kv55.messages import read_dris_55_req, write_dris_55, write_error
from govi_server.kv55.parsing import BadMessage
from govi_server.kv55.post_connection import PostError
from govi_server.settings import GatewaySettings
from tests.doubles import FakePoster

NOW = 1327272349.0  # 2012-01-22T23:45:49+01:00
CODE = "57330430"

# Truncated callbacks: after the code of the stop, and before it.
BROKEN = b"<DRIS_55><Request><TimingPoint><TimingPointCode>57330430</TimingPointCode><Tri"
BROKEN_EARLY = b"<DRIS_55><Request><TimingPoint><TimingPointCo"


def callback(*codes: str, number: str | None = None, journey: str = "143") -> bytes:
    """Return a callback with one trip for each stop; without a number it has no SequenceNumber."""
    envelope: tuple[tuple[str, str], ...] = (("SubscriberID", "openOV"),)
    if number is not None:
        envelope += (("SequenceNumber", number),)
    return write_dris_55([Board(code, (Trip(journey_number=journey),), NOW, envelope) for code in codes])


def journey(board: Board) -> str | None:
    """Return the journey number of a board's trip, which identifies a callback in these tests."""
    return board.trips[0].journey_number


class DoubleTests(SynchronousTestCase):
    """The poster of these tests."""

    def test_provides(self) -> None:
        """The double provides IPoster."""
        verifyObject(IPoster, FakePoster())


class GatewayTestCase(SynchronousTestCase):
    """A gateway whose POSTs the test accepts or rejects, and whose callbacks the test sends."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.late: list[Board] = []
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)
        self.set_up_gateway(GatewaySettings())

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def set_up_gateway(self, limits: GatewaySettings) -> None:
        """Set up a gateway without requests."""
        self.poster = FakePoster()
        self.gateway = Gateway(self.poster, self.clock, "GOVI", limits=limits)
        self.gateway.listen(self.late.append)

    def request(self, code: str = CODE, accepted: bool = True) -> Deferred[Board]:
        """Request a stop; the gateway acknowledges the request, or does not respond to it yet."""
        board = self.gateway.board(code)
        if accepted:
            self.poster.posts[-1].callback(None)
        return board

    def request_without_response(self, code: str = CODE) -> str:
        """Request a stop, let the deadline pass, and return the request's number."""
        board = self.request(code)
        self.clock.advance(10)
        self.failureResultOf(board, SourceSilent)
        return self.number()

    def deliver(self, data: bytes) -> None:
        """Deliver and serve a callback; raise the error for which it is rejected."""
        delivery = self.gateway.deliver(data)
        delivery.serve()
        if delivery.error is not None:
            raise delivery.error

    def number(self) -> str:
        """Return the number of the last request."""
        return read_dris_55_req(self.poster.bodies[-1]).sequence_number

    def assertResolved(self, board: Deferred[Board], expected: str = "143", code: str = CODE) -> None:
        """Assert that a request was resolved with the board of this journey."""
        result = self.successResultOf(board)
        self.assertEqual((result.code, journey(result)), (code, expected))

    def assertFails(self, board: Deferred[Board], error: type[NoBoard], text: str) -> None:
        """Assert that a request failed with this error and text."""
        failure = self.failureResultOf(board, error)
        self.assertEqual(failure.getErrorMessage(), text)

    def assertCounts(self, **counts: int) -> None:
        """Assert the counts of all kinds of incidents."""
        self.assertEqual(self.gateway.incidents.counts, counts)

    def lines(self) -> list[tuple[Any, str]]:
        """Return the log lines with their levels."""
        return [(event["log_level"], formatEvent(event)) for event in self.events if "flight" not in event]


class RequestTests(GatewayTestCase):
    """The messages that are posted to the gateway."""

    def test_provides(self) -> None:
        """The gateway provides IAcknowledgingSource."""
        verifyObject(IAcknowledgingSource, self.gateway)

    def test_message(self) -> None:
        """A request is a DRIS_55_REQ for one stop, with all elements of the interface in their order."""
        self.gateway = Gateway(self.poster, self.clock, "GOVI", "us & them")
        board = self.request("031102")
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
        self.deliver(callback("031102"))
        self.assertResolved(board, code="031102")

    def test_questions_are_numbered(self) -> None:
        """Requests are numbered from 1, regardless of their stops and outcomes."""
        for number, code in enumerate(("1", "2", "2", "3", "1"), 1):
            board = self.request(code)
            self.assertEqual((self.number(), len(self.poster.bodies)), (str(number), number))
            if number % 2:
                self.deliver(callback(code))
                self.successResultOf(board)
            else:
                self.clock.advance(10)
                self.failureResultOf(board, SourceSilent)

    def test_questions_are_not_joined(self) -> None:
        """Each call sends its own gateway request; the cache collapses them."""
        boards = [self.request(), self.request()]
        self.assertEqual(len(self.poster.bodies), 2)
        for number, board in enumerate(boards, 1):
            self.deliver(callback(CODE, number=str(number), journey=str(number)))
            self.assertResolved(board, str(number))


class ResponseTests(GatewayTestCase):
    """Callbacks before the deadline."""

    def test_callback_resolves_request(self) -> None:
        """A callback, gzip or plain, resolves the request of its stop; the board has the time of its receipt."""
        for data in (callback(CODE), gzip.compress(callback(CODE)), gzip.compress(callback(CODE), mtime=0)):
            board = self.request()
            self.clock.advance(0.25)
            self.assertNoResult(board)
            self.deliver(data)
            result = self.successResultOf(board)
            self.assertEqual((result.code, journey(result)), (CODE, "143"))
            self.assertEqual(result.received_at, self.clock.seconds())
        self.assertEqual(self.late, [])
        self.assertCounts()
        self.assertEqual(self.lines(), [])

    def test_envelope(self) -> None:
        """A board has the header elements of its message."""
        board = self.request()
        self.deliver(callback(CODE, number="1"))
        envelope = dict(self.successResultOf(board).envelope)
        self.assertEqual((envelope["SubscriberID"], envelope["SequenceNumber"]), ("openOV", "1"))

    def test_callback_overtakes_acknowledgement(self) -> None:
        """A callback may arrive before the response to the POST, whose outcome then does not matter."""
        for error in (None, PostError("responded 500")):
            board = self.request(accepted=False)
            self.deliver(callback(CODE))
            self.assertResolved(board)
            if error is None:
                self.poster.posts[-1].callback(None)
            else:
                self.poster.posts[-1].errback(error)
        self.assertCounts()
        self.assertEqual(self.lines(), [])

    def test_callback_just_before_the_deadline(self) -> None:
        """A callback just before the deadline is in time."""
        board = self.request()
        self.clock.advance(9.9375)
        self.deliver(callback(CODE))
        self.assertResolved(board)

    def test_sequence_numbers(self) -> None:
        """The gateway may echo the number, always send the same one, an unknown one, or none."""
        for number in ("1", "56", "0", "", "none", None):
            self.set_up_gateway(GatewaySettings())
            board = self.request()
            self.deliver(callback(CODE, number=number))
            self.assertResolved(board)
            self.assertEqual(self.late, [])

    def test_always_the_same_number(self) -> None:
        """A gateway that always sends 56 resolves every request, including those long after number 56."""
        for number in range(1, 62):
            board = self.request()
            self.assertEqual(self.number(), str(number))
            self.clock.advance(1)
            self.deliver(callback(CODE, number="56", journey=str(number)))
            self.assertResolved(board, str(number))
        self.assertEqual(self.late, [])
        self.assertCounts()

    def test_repeated_response_of_a_gateway_that_echoes_numbers(self) -> None:
        """A repeated response is not taken for that of another request, pending or refused."""
        for number in ("1", "2"):
            board = self.request()
            self.deliver(callback(CODE, number=number, journey=number))
            self.assertResolved(board, number)
        refused = self.request(accepted=False)
        self.poster.posts[-1].errback(PostError("responded 503"))
        self.failureResultOf(refused, SourceUnreachable)
        pending = self.request()
        self.deliver(callback(CODE, number="1", journey="1"))
        self.assertNoResult(pending)
        self.assertEqual(self.late, [])
        self.deliver(callback(CODE, number="4", journey="4"))
        self.assertResolved(pending, "4")
        self.assertCounts(repeated=1)

    def test_several_stops(self) -> None:
        """One callback may have several stops; those that were not requested are ignored."""
        boards = {code: self.request(code) for code in ("1", "2", "4")}
        self.deliver(callback("0", "1", "2", "3"))
        for code in ("1", "2"):
            self.assertResolved(boards[code], code=code)
        self.assertNoResult(boards["4"])
        self.assertEqual(self.late, [])
        self.deliver(callback("4"))
        self.assertResolved(boards["4"], code="4")
        self.assertCounts()

    def test_codes_are_text(self) -> None:
        """Codes that differ in leading zeros are different stops."""
        board = self.request("031102")
        self.assertRaises(Unsolicited, self.deliver, callback("31102"))
        self.assertNoResult(board)
        self.deliver(callback("031102"))
        self.assertResolved(board, code="031102")

    def test_request_from_a_callback(self) -> None:
        """A caller may request the stop again when it gets its board or failure."""
        for fails in (False, True):
            board = self.request()
            again: list[Deferred[Board]] = []

            def request_again(_: object, again: list[Deferred[Board]] = again) -> None:
                again.append(self.request())

            board.addBoth(request_again)
            if fails:
                self.clock.advance(10)
            else:
                self.deliver(callback(CODE, journey="1"))
            self.deliver(callback(CODE, journey="2"))
            self.assertResolved(again[0], "2")
        self.assertEqual(self.late, [])


class DeliveryTests(GatewayTestCase):
    """A delivered callback before its boards are served."""

    def test_boards_wait_for_serve(self) -> None:
        """The callers get their boards and errors when the callback is served, not before."""
        for data in (callback(CODE), BROKEN):
            board = self.request()
            delivery = self.gateway.deliver(data)
            self.assertNoResult(board)
            delivery.serve()
            self.assertTrue(board.called)
            board.addErrback(lambda failure: failure.trap(SourceBroken))

    def test_late_boards_wait_for_serve(self) -> None:
        """The listeners get a late board when the callback is served."""
        self.request_without_response()
        delivery = self.gateway.deliver(callback(CODE))
        self.assertEqual(self.late, [])
        delivery.serve()
        self.assertEqual(len(self.late), 1)

    def test_late_board_does_not_supersede_a_later_one(self) -> None:
        """A late response is not stored if a later request for the stop was answered."""
        number = self.request_without_response()
        board = self.request()
        self.deliver(callback(CODE, number=self.number()))
        self.assertResolved(board, code=CODE)
        self.deliver(callback(CODE, number=number))
        self.assertEqual(self.late, [])

    def test_deadline_and_stop_before_serve(self) -> None:
        """A delivered board is not lost when the deadline passes or the service stops before it is served."""
        boards = [self.request("1"), self.request("2")]
        deliveries = [self.gateway.deliver(callback("1")), self.gateway.deliver(callback("2"))]
        self.clock.advance(10)
        deliveries[0].serve()
        self.successResultOf(self.gateway.stopService())
        deliveries[1].serve()
        for code, board in zip("12", boards, strict=True):
            self.assertResolved(board, code=code)

    def test_failing_listener(self) -> None:
        """An exception of a listener is logged; the other listeners and callers are served."""
        self.gateway = Gateway(self.poster, self.clock, "GOVI")

        def fail(board: Board) -> None:
            raise ZeroDivisionError

        self.gateway.listen(fail)
        self.gateway.listen(self.late.append)
        self.request_without_response("1")
        board = self.request("2")
        self.deliver(callback("1", "2"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.late), 1)
        self.assertResolved(board, code="2")

    def test_same_stop_twice(self) -> None:
        """Two boards of a stop in one callback resolve two requests."""
        older, newer = self.request(), self.request()
        delivery = self.gateway.deliver(callback(CODE, CODE))
        delivery.serve()
        self.assertResolved(newer)
        self.assertResolved(older)
        self.assertCounts()


class DeadlineTests(GatewayTestCase):
    """Requests without a response in time, and requests that are not accepted."""

    def test_default_deadline(self) -> None:
        """The default deadline is ten seconds, below the thirteen of a connection."""
        self.assertEqual(GatewaySettings().answer, 10.0)

    def test_no_response(self) -> None:
        """A request that was accepted fails after ten seconds with SourceSilent."""
        board = self.request()
        self.clock.advance(9.9375)
        self.assertNoResult(board)
        self.clock.advance(0.0625)
        self.assertFails(board, SourceSilent, "no response within 10 s")
        self.assertCounts(silent=1)

    def test_not_accepted(self) -> None:
        """A request that was not accepted within ten seconds fails with SourceUnreachable; its POST is cancelled."""
        board = self.request(accepted=False)
        self.clock.advance(9.9375)
        self.assertNoResult(board)
        self.assertEqual(self.poster.cancelled, [])
        self.clock.advance(0.0625)
        self.assertFails(board, SourceUnreachable, "request not accepted within 10 s")
        self.assertEqual(self.poster.cancelled, self.poster.posts)
        self.assertCounts()

    def test_accepted_late(self) -> None:
        """The ten seconds count from the request, not from its acknowledgement."""
        board = self.request(accepted=False)
        self.clock.advance(9)
        self.poster.posts[0].callback(None)
        self.clock.advance(1)
        self.assertFails(board, SourceSilent, "no response within 10 s")

    def test_post_fails(self) -> None:
        """A failed POST fails its request immediately, with the same text."""
        for seconds in (0, 3):
            board = self.request(accepted=False)
            self.clock.advance(seconds)
            self.poster.posts[-1].errback(PostError("responded 503 Busy"))
            self.assertFails(board, SourceUnreachable, "responded 503 Busy")

    def test_post_fails_immediately(self) -> None:
        """A POST may fail before post() has returned."""
        self.poster.immediate = PostError("connection refused")
        self.assertFails(self.gateway.board(CODE), SourceUnreachable, "connection refused")

    def test_deadline_is_configurable(self) -> None:
        """The deadline is the configured one."""
        self.set_up_gateway(GatewaySettings(answer=2.5))
        board = self.request()
        self.clock.advance(2.5)
        self.assertFails(board, SourceSilent, "no response within 2.5 s")

    def test_each_question_has_its_deadline(self) -> None:
        """A lost request delays only its own callers: each request has its own deadline."""
        boards = []
        for _ in range(4):
            boards.append(self.request())
            self.clock.advance(5)
        self.assertEqual([board.called for board in boards], [True, True, True, False])
        self.deliver(callback(CODE, number="4"))
        self.assertResolved(boards.pop())
        for board in boards:
            self.failureResultOf(board, SourceSilent)


class UnreadableTests(GatewayTestCase):
    """Unreadable callbacks."""

    def deliver_unreadable(self, data: bytes) -> str:
        """Send an unreadable callback, and return the text of its error."""
        with self.assertRaises(BadMessage) as caught:
            self.deliver(data)
        return str(caught.exception)

    def test_unreadable_callback_with_code(self) -> None:
        """An unreadable callback with a code fails only that stop's request, immediately."""
        for data in (BROKEN, write_error(CODE, "Timeout"), callback(CODE)[:-20]):
            board, other = self.request(), self.request("1")
            error = self.deliver_unreadable(data)
            self.assertFails(board, SourceBroken, error)
            self.assertNoResult(other)
            self.clock.advance(10)
            self.assertFails(other, SourceSilent, "no response within 10 s")

    def test_unreadable_callback_without_code(self) -> None:
        """After an unreadable callback without a code, pending requests fail with its error at their deadline."""
        for data in (BROKEN_EARLY, b"", b"nonsense", b"\x1f\x8bnonsense", gzip.compress(BROKEN_EARLY)):
            accepted = self.request("1")
            self.clock.advance(5)
            pending = self.request("2", accepted=False)
            error = self.deliver_unreadable(data)
            later = self.request("3")
            self.assertNoResult(accepted)
            self.clock.advance(5)
            self.assertFails(accepted, SourceBroken, error)
            self.clock.advance(5)
            self.assertFails(pending, SourceBroken, error)
            self.assertFails(later, SourceSilent, "no response within 10 s")
            self.assertIs(self.poster.cancelled[-1], self.poster.posts[-2])

    def test_unreadable_compressed_callback(self) -> None:
        """An unreadable callback fails the request of its code, compressed or not."""
        board, other = self.request(), self.request("1")
        self.deliver_unreadable(gzip.compress(write_error(CODE, "Timeout")))
        self.failureResultOf(board, SourceBroken)
        self.clock.advance(10)
        self.failureResultOf(other, SourceSilent)

    def test_unreadable_callback_with_unknown_code(self) -> None:
        """An unreadable callback for a stop that was not requested fails no request."""
        board = self.request()
        self.deliver_unreadable(write_error("999", "Timeout"))
        self.clock.advance(10)
        self.failureResultOf(board, SourceSilent)

    def test_readable_callback_follows(self) -> None:
        """A readable callback after an unreadable one resolves the request."""
        board = self.request()
        self.deliver_unreadable(BROKEN_EARLY)
        self.clock.advance(1)
        self.deliver(callback(CODE))
        self.assertResolved(board)
        self.assertEqual(self.late, [])

    def test_readable_callback_follows_late(self) -> None:
        """A readable callback for a request that an unreadable one failed is late, and passed to the listeners."""
        board = self.request()
        self.deliver_unreadable(BROKEN)
        self.failureResultOf(board, SourceBroken)
        self.deliver(callback(CODE))
        self.assertEqual([board.code for board in self.late], [CODE])

    def test_unreadable_callback_fails_the_pending_request(self) -> None:
        """An unreadable callback fails the pending request, not one past its deadline."""
        self.request_without_response()
        board = self.request()
        self.assertFails(board, SourceBroken, self.deliver_unreadable(BROKEN))

    def test_unreadable_callback_without_requests(self) -> None:
        """An unreadable callback without a pending request does not affect later ones."""
        self.deliver_unreadable(BROKEN)
        self.request_without_response()
        self.deliver_unreadable(BROKEN)
        self.deliver_unreadable(BROKEN_EARLY)
        board = self.request()
        self.deliver(callback(CODE, number="2"))
        self.assertResolved(board)
        self.assertCounts(broken=3, silent=1)

    def test_too_large_callback(self) -> None:
        """A callback beyond the limit, before or after gunzip, is unreadable."""
        self.set_up_gateway(GatewaySettings(message=2000))
        board = self.request()
        for data in (b" " * 2000 + callback(CODE), gzip.compress(b" " * 2001)):
            self.assertRegex(self.deliver_unreadable(data), "more than 2000 bytes")
        self.deliver(callback(CODE))
        self.assertResolved(board)


class UnsolicitedTests(GatewayTestCase):
    """Callbacks without a pending request."""

    def test_unsolicited_callback(self) -> None:
        """A callback that was not requested is rejected, counted, and not passed to listeners."""
        for n in (1, 2, 3):
            with self.assertRaises(Unsolicited) as caught:
                self.deliver(callback(CODE, number="1"))
            self.assertEqual(str(caught.exception), f"stop {CODE} was not requested")
            self.assertCounts(unsolicited=n)
        self.assertEqual(self.late, [])

    def test_callback_for_another_stop(self) -> None:
        """A callback for another stop is rejected regardless of its number; the request stays pending."""
        board = self.request()
        for number in (None, self.number()):
            self.assertRaises(Unsolicited, self.deliver, callback("1", "2", number=number))
        self.assertNoResult(board)
        self.clock.advance(9)
        self.deliver(callback(CODE))
        self.assertResolved(board)
        self.assertEqual(self.late, [])
        self.assertCounts(unsolicited=2)

    def test_late_callback(self) -> None:
        """A callback after the deadline is passed to all listeners, and counted."""
        also_late: list[Board] = []
        self.gateway.listen(also_late.append)
        self.request_without_response()
        self.clock.advance(5)
        self.deliver(callback(CODE))
        self.assertEqual([(board.code, board.received_at) for board in self.late], [(CODE, self.clock.seconds())])
        self.assertEqual(also_late, self.late)
        self.assertCounts(silent=1, late=1)

    def test_late_callback_after_failed_post(self) -> None:
        """A callback to a request whose POST failed is passed to the listeners."""
        board = self.request(accepted=False)
        self.poster.posts[0].errback(PostError("broken off"))
        self.failureResultOf(board, SourceUnreachable)
        self.deliver(callback(CODE))
        self.assertEqual(len(self.late), 1)

    def test_callback_is_late_for_five_minutes(self) -> None:
        """A callback is late until five minutes after its request, and unsolicited after that."""
        self.assertEqual(MAX_LATE_SECONDS, 300.0)
        for seconds, late in ((10, True), (299, True), (300, True), (300.5, False), (3600, False)):
            self.set_up_gateway(GatewaySettings())
            self.late.clear()
            self.request_without_response()
            self.clock.advance(seconds - 10)
            if late:
                self.deliver(callback(CODE))
            else:
                self.assertRaises(Unsolicited, self.deliver, callback(CODE))
            self.assertEqual(len(self.late), late, seconds)

    def test_repeated_callback(self) -> None:
        """A repeated callback is accepted, counted, and not passed to listeners, in time or late."""
        for late, repeated in ((False, 2), (True, 4)):
            if late:
                self.request_without_response()
                self.deliver(callback(CODE))
            else:
                board = self.request()
                self.deliver(callback(CODE))
                self.assertResolved(board)
            for _ in range(2):
                self.clock.advance(1)
                self.deliver(callback(CODE))
            self.assertEqual(len(self.late), late)
            self.assertEqual(self.gateway.incidents.counts["repeated"], repeated)

    def test_repeated_callback_after_five_minutes(self) -> None:
        """A repetition after five minutes is unsolicited."""
        board = self.request()
        self.deliver(callback(CODE))
        self.assertResolved(board)
        self.clock.advance(300.5)
        self.assertRaises(Unsolicited, self.deliver, callback(CODE))

    def test_repeated_callback_with_an_older_unanswered_request(self) -> None:
        """A request that is too old to be answered does not make a repetition of a newer response unsolicited."""
        self.request_without_response()
        self.clock.advance(295)
        board = self.request()
        self.deliver(callback(CODE))
        self.assertResolved(board)
        self.clock.advance(5)
        self.deliver(callback(CODE))
        self.assertEqual(self.late, [])

    def test_late_callback_with_a_newer_request(self) -> None:
        """A late callback with an older request's number reaches the listeners; the newer request stays pending."""
        older = self.request_without_response()
        board = self.request()
        newer = self.number()
        self.deliver(callback(CODE, number=older, journey="1"))
        self.assertNoResult(board)
        self.assertEqual([journey(board) for board in self.late], ["1"])
        self.deliver(callback(CODE, number=newer, journey="2"))
        self.assertResolved(board, "2")
        self.assertEqual(len(self.late), 1)
        self.assertCounts(silent=1, late=1)

    def test_callback_without_number_with_a_newer_request(self) -> None:
        """A callback without a number resolves the pending request, if any."""
        self.request_without_response()
        board = self.request()
        self.deliver(callback(CODE))
        self.assertResolved(board)
        self.assertEqual(self.late, [])

    def test_callback_with_late_and_pending_stops(self) -> None:
        """Each stop of a callback is matched on its own."""
        self.request_without_response("1")
        board = self.request("2")
        self.deliver(callback("1", "2", "3"))
        self.assertEqual([board.code for board in self.late], ["1"])
        self.assertResolved(board, code="2")
        self.assertCounts(silent=1, late=1)

    def test_late_callback_without_listeners(self) -> None:
        """A late callback is accepted without listeners."""
        self.gateway = Gateway(self.poster, self.clock, "GOVI")
        self.request_without_response()
        self.deliver(callback(CODE))
        self.assertEqual(self.late, [])

    def test_refused_client(self) -> None:
        """A callback from a client that is not allowed is counted."""
        self.gateway.refuse("192.0.2.0/24", "the module's `allow`")
        self.assertCounts(refused=1)


class MemoryTests(GatewayTestCase):
    """The bounds of stored requests."""

    def test_oldest_questions_are_removed(self) -> None:
        """Beyond the limit the oldest requests are removed: late callbacks to them are unsolicited."""
        self.set_up_gateway(GatewaySettings(remembered=3))
        codes = [str(n) for n in range(8)]
        for code in codes:
            self.request_without_response(code)
        for code in codes[:4]:
            self.assertRaises(Unsolicited, self.deliver, callback(code))
        for code in codes[-3:]:
            self.deliver(callback(code))
        self.assertEqual([board.code for board in self.late], codes[-3:])

    def test_pending_questions_are_not_removed(self) -> None:
        """Pending requests are not removed, regardless of their number."""
        self.set_up_gateway(GatewaySettings(remembered=1))
        boards = {str(n): self.request(str(n)) for n in range(20)}
        for code, board in boards.items():
            self.deliver(callback(code))
            self.assertResolved(board, code=code)

    def test_questions_are_bounded(self) -> None:
        """At most one request more than the limit is stored, regardless of the number of stops."""
        self.set_up_gateway(GatewaySettings(remembered=10))
        for n in range(100):
            board = self.request(str(n))
            self.deliver(callback(str(n)))
            self.successResultOf(board)
        requests = self.gateway._requests
        self.assertLessEqual(len(requests.in_order), 11)
        self.assertEqual(set(requests.by_code), {request.code for request in requests.in_order})

    def test_old_questions_are_removed(self) -> None:
        """Requests that are too old for a late callback are removed with the next request."""
        for n in range(100):
            board = self.request(str(n % 7))
            self.deliver(callback(str(n % 7)))
            self.successResultOf(board)
        self.clock.advance(MAX_LATE_SECONDS + 0.5)
        board = self.request()
        self.deliver(callback(CODE))
        self.successResultOf(board)
        self.assertEqual(len(self.gateway._requests.in_order), 1)
        self.assertEqual(list(self.gateway._requests.by_code), [CODE])


class StopTests(GatewayTestCase):
    """The end of the service."""

    def test_stop_fails_pending_requests(self) -> None:
        """Pending requests fail, no delayed call is left, and the connections are closed."""
        self.gateway.startService()
        boards = [self.request("1"), self.request("2", accepted=False), self.request("1")]
        self.request_and_respond("3")
        self.assertFalse(self.poster.closed)
        self.successResultOf(self.gateway.stopService())
        for board in boards:
            self.assertFails(board, SourceSilent, "the server is stopping")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(self.poster.closed)
        self.assertFalse(self.gateway.running)

    def request_and_respond(self, code: str) -> None:
        board = self.request(code)
        self.deliver(callback(code))
        self.assertResolved(board, code=code)

    def test_post_is_cancelled_at_its_deadline(self) -> None:
        """The POST of a request that is never acknowledged is cancelled at the deadline."""
        board = self.request(accepted=False)
        self.deliver(callback(CODE))
        self.assertResolved(board)
        self.assertEqual(self.poster.cancelled, [])
        self.clock.advance(10)
        self.assertEqual(self.poster.cancelled, self.poster.posts)
        self.assertEqual(self.lines(), [])

    def test_events(self) -> None:
        """Events have the seconds until a request was acknowledged, and until its callback."""
        self.request()
        self.clock.advance(2)
        self.deliver(callback(CODE))
        events = [event["flight"] for event in self.events if "flight" in event]
        self.assertEqual([(event.name, event.seconds) for event in events], [("taken", 0.0), ("answered", 2.0)])

    def test_stop_without_requests(self) -> None:
        """A gateway without requests can be stopped."""
        self.gateway.startService()
        self.successResultOf(self.gateway.stopService())
        self.assertTrue(self.poster.closed)

    def test_cancelled_posts_are_not_logged(self) -> None:
        """POSTs that are cancelled at the end are not logged."""
        boards = [self.request("1", accepted=False), self.request("2", accepted=False)]
        self.successResultOf(self.gateway.stopService())
        for board in boards:
            self.failureResultOf(board, SourceSilent)
        self.assertEqual(set(self.poster.cancelled), set(self.poster.posts))
        self.assertEqual(self.lines(), [])


class LogTests(GatewayTestCase):
    """The log lines."""

    def fail_request(self) -> None:
        """Send a request whose POST fails."""
        board = self.request(accepted=False)
        self.poster.posts[-1].errback(PostError("connection refused"))
        self.failureResultOf(board, SourceUnreachable)

    def resolve_request(self) -> None:
        """Send a request and its callback."""
        board = self.request()
        self.deliver(callback(CODE))
        self.successResultOf(board)

    def test_success_is_not_logged(self) -> None:
        """Without failures nothing is logged."""
        for _ in range(3):
            self.resolve_request()
        self.assertEqual(self.lines(), [])

    def test_failure_and_recovery_are_logged_once(self) -> None:
        """A failing gateway is logged once, and its recovery once."""
        for _ in range(3):
            self.fail_request()
            self.clock.advance(0.5)
        self.assertEqual(self.lines(), [(LogLevel.warn, "GOVI: failing (connection refused)")])
        for _ in range(3):
            self.resolve_request()
        self.assertEqual(self.lines()[1:], [(LogLevel.info, "GOVI: accepting requests again after 1.5 s")])

    def test_flapping_gateway_is_logged_once_a_minute(self) -> None:
        """Each failure is logged, but at most one a minute."""
        for _ in range(7):
            self.fail_request()
            self.resolve_request()
            self.clock.advance(15)
        self.assertEqual([level for level, _ in self.lines()], [LogLevel.warn, LogLevel.info] * 2)

    def test_gateway_that_does_not_accept_is_failing(self) -> None:
        """A gateway that does not accept requests is failing."""
        for _ in range(2):
            board = self.request(accepted=False)
            self.clock.advance(10)
            self.failureResultOf(board, SourceUnreachable)
        self.assertEqual(self.lines(), [(LogLevel.warn, "GOVI: failing (request not accepted within 10 s)")])

    def test_acknowledgement_is_recovery(self) -> None:
        """A gateway that acknowledges a request has recovered, with or without a response."""
        self.fail_request()
        self.request_without_response()
        self.assertEqual(self.lines()[1], (LogLevel.info, "GOVI: accepting requests again after 0.0 s"))

    def test_acknowledgements_are_reported(self) -> None:
        """Listeners are called for each acknowledgement, before its response, and not for a failure."""
        accepted = mock.Mock()
        self.gateway.listen_accepted(accepted)
        self.fail_request()
        self.assertEqual(accepted.call_count, 0)
        for n in (1, 2):
            board = self.request()
            self.assertEqual(accepted.call_count, n)
            self.deliver(callback(CODE))
            self.successResultOf(board)
        self.assertEqual(accepted.call_count, 2)

    def test_callback_is_recovery(self) -> None:
        """A callback that arrives before the response to its POST is a recovery."""
        self.fail_request()
        board = self.request(accepted=False)
        self.deliver(callback(CODE))
        self.successResultOf(board)
        self.assertEqual(self.lines()[1:], [(LogLevel.info, "GOVI: accepting requests again after 0.0 s")])
        self.poster.posts[-1].callback(None)
        self.assertEqual(len(self.lines()), 2)

    def test_incidents(self) -> None:
        """Each kind of incident is a warning with the event, the stop and the client."""
        self.request_without_response()
        self.clock.advance(2.5)
        self.deliver(callback(CODE))
        self.deliver(callback(CODE))
        self.assertRaises(Unsolicited, self.deliver, callback("1", "2"))
        self.assertRaises(BadMessage, self.deliver, write_error("1", "Timeout"))
        self.gateway.refuse("192.0.2.0/24", "the module's `allow`")
        self.assertEqual(
            self.lines(),
            [
                (LogLevel.warn, line)
                for line in (
                    "GOVI: no response for stop 57330430 within 10 s (request was accepted)",
                    "GOVI: response for stop 57330430 after 12.5 s, stored",
                    "GOVI: repeated response for stop 57330430",
                    "GOVI: unsolicited callback for stop 1, 2 rejected",
                    "GOVI: unreadable callback (the response is an error: 'Timeout')",
                    "GOVI: callback from 192.0.2.0/24, which is not in the module's `allow`, rejected",
                )
            ],
        )
        self.assertCounts(silent=1, late=1, repeated=1, unsolicited=1, broken=1, refused=1)

    def test_incidents_are_logged_once_a_minute(self) -> None:
        """An incident is logged once a minute, with the number of omitted repeats."""
        for n in range(121):
            self.assertRaises(Unsolicited, self.deliver, callback(str(n)))
            self.clock.advance(1)
        more = "(and 59 more of this kind since the last such line)"
        self.assertEqual(
            [line for _, line in self.lines()],
            [
                "GOVI: unsolicited callback for stop 0 rejected",
                f"GOVI: unsolicited callback for stop 60 rejected {more}",
                f"GOVI: unsolicited callback for stop 120 rejected {more}",
            ],
        )
        self.assertCounts(unsolicited=121)

    def test_long_callback_is_logged_briefly(self) -> None:
        """A callback with many stops does not fill the log."""
        self.assertRaises(Unsolicited, self.deliver, callback(*map(str, range(100))))
        self.assertEqual(
            self.lines(), [(LogLevel.warn, "GOVI: unsolicited callback for stop 0, 1, 2, 3, 4 rejected")]
        )


@implementer(IPeers)
class FakePeers:
    """Other nodes whose result the test sets."""

    def __init__(self) -> None:
        self.result: OfferResult = "unknown"
        self.offered: list[Board] = []

    def offer(self, board: Board) -> Deferred[OfferResult]:
        self.offered.append(board)
        return succeed(self.result)


class PeersTests(GatewayTestCase):
    """Callbacks to requests of other nodes."""

    def set_up_gateway(self, limits: GatewaySettings) -> None:
        self.poster, self.peers = FakePoster(), FakePeers()
        self.gateway = Gateway(self.poster, self.clock, "GOVI", limits=limits, peers=self.peers)
        self.gateway.listen(self.late.append)

    def offer(self, result: OfferResult, *codes: str, is_passed_on: bool = False) -> Exception | None:
        """Deliver a callback of which the peers have this opinion; return the error for which it is rejected."""
        self.peers.result = result
        delivery = self.gateway.deliver(callback(*codes), is_passed_on)
        if delivery.unmatched:
            self.successResultOf(Deferred.fromCoroutine(self.gateway.offer(delivery)))
        delivery.serve()
        return delivery.error

    def test_provides(self) -> None:
        """The double provides IPeers."""
        verifyObject(IPeers, self.peers)

    def test_request_of_another_node(self) -> None:
        """A board that no request of this node waits for is accepted if another node has requested it."""
        self.assertIsNone(self.offer("stored", CODE))
        self.assertIsNone(self.offer("repeated", CODE))
        self.assertIsInstance(self.offer("unknown", CODE), Unsolicited)
        self.assertEqual([board.code for board in self.peers.offered], [CODE] * 3)
        self.assertCounts(repeated=1, unsolicited=1)

    def test_own_request_comes_first(self) -> None:
        """A board that this node waits for is not offered; a repeated one is, since another node may wait for it."""
        board = self.request()
        self.assertIsNone(self.offer("unknown", CODE))
        self.assertResolved(board)
        self.assertEqual(self.peers.offered, [])
        self.assertIsNone(self.offer("stored", CODE))
        self.assertCounts()
        self.assertIsNone(self.offer("unknown", CODE))
        self.assertCounts(repeated=1)

    def test_boards_of_several_nodes(self) -> None:
        """A callback is accepted if any of its boards was requested."""
        board = self.request()
        self.assertIsNone(self.offer("unknown", "1", CODE))
        self.assertResolved(board)
        self.assertEqual([board.code for board in self.peers.offered], ["1"])

    def test_superseded_board(self) -> None:
        """A late board is not stored if another node has received the response to a later request."""
        number = self.request_without_response()
        board = self.request()
        board.addErrback(lambda failure: failure.trap(CancelledError))
        board.cancel()
        self.gateway.deliver(callback(CODE, number=number)).serve()
        self.assertEqual(self.late, [])
        self.assertEqual([board.code for board in self.peers.offered], [CODE])  # another node may wait for it

    def test_response_to_another_nodes_request(self) -> None:
        """A board whose number is that of another node's request is not late here; a pending request may use it."""
        number = self.request_without_response()
        delivery = self.gateway.deliver(callback(CODE, number="99"))
        self.assertEqual([board.code for board in delivery.unmatched], [CODE])
        board = self.request()
        self.gateway.deliver(callback(CODE, number="99")).serve()
        self.assertResolved(board)
        self.assertEqual([board.code for board in self.peers.offered], [CODE])
        for late in (number, str(int(number) + 1)):  # the second one is superseded by nothing
            self.gateway.deliver(callback(CODE, number=late)).serve()
        self.assertEqual(len(self.late), 2)

    def test_late_board_is_offered(self) -> None:
        """A late board may be that of another node's request, with the same number or without any."""
        number = self.request_without_response()
        self.gateway.deliver(callback(CODE, number="0")).serve()
        self.request_without_response()
        self.gateway.deliver(callback(CODE, number=str(int(number) + 1))).serve()
        self.assertEqual([board.code for board in self.late], [CODE] * 2)
        self.assertEqual([board.code for board in self.peers.offered], [CODE] * 2)

    def test_callback_is_passed_on_once(self) -> None:
        """A callback that another node has passed on is not offered again."""
        self.assertIsInstance(self.offer("stored", CODE, is_passed_on=True), Unsolicited)
        self.assertEqual(self.peers.offered, [])

    def test_cancelled_request(self) -> None:
        """A request that is cancelled, since another node has the response, ends without an incident."""
        board = self.request()
        board.cancel()
        self.failureResultOf(board, CancelledError)
        self.clock.advance(20)
        self.assertCounts()
        self.assertIsNone(self.offer("unknown", CODE))
        self.assertEqual([journey(late) for late in self.late], ["143"])
