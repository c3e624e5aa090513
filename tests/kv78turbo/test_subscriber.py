"""The connection to the KV78turbo feed, on a clock of the test's and sockets that are none."""

import errno
from collections import deque
from collections.abc import Callable
from typing import cast

import zmq
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from govi_server.errors import StartupError
from govi_server.kv78turbo.subscriber import TURN_MESSAGES, Subscriber, _Descriptor
from govi_server.settings import SubscriberSettings

ADDRESS = "tcp://feed.example:7817"
OTHER = "tcp://other.example:7817"
ENVELOPE = "/GOVI/KV8passtimes/ARR"


class FakeSocket:
    """A SUB socket whose messages the test gives; readable by its own account only, as libzmq's are."""

    FD = 99

    def __init__(self) -> None:
        self.messages: deque[list[bytes]] = deque()
        self.closed = False
        self.error: zmq.ZMQError | None = None
        """What reading fails with."""
        self.asked = 0
        """How often it was asked for its events."""

    def get(self, option: int) -> int:
        assert option == zmq.EVENTS
        assert not self.closed
        self.asked += 1
        return zmq.POLLOUT | (zmq.POLLIN if self.messages or self.error else 0)

    def recv_multipart(self, flags: int) -> list[bytes]:
        assert flags == zmq.NOBLOCK
        assert not self.closed
        if self.error:
            raise self.error
        return self.messages.popleft()

    def close(self) -> None:
        self.closed = True


class FakeSockets:
    """Makes such sockets. refused: addresses that libzmq would not take."""

    def __init__(self) -> None:
        self.made: list[tuple[float, str, bool]] = []
        self.sockets: list[FakeSocket] = []
        self.refused: set[str] = set()
        self.first: list[list[bytes]] = []
        """What waits in a new one."""
        self.closed = False
        self.clock: MemoryReactorClock

    def connect(self, address: str, ipv6: bool) -> FakeSocket:
        self.made.append((self.clock.seconds(), address, ipv6))
        if address in self.refused:
            raise zmq.ZMQError(errno.ENODEV)
        self.sockets.append(FakeSocket())
        self.sockets[-1].messages.extend(self.first)
        return self.sockets[-1]

    def close(self) -> Deferred[None]:
        assert all(socket.closed for socket in self.sockets)
        self.closed = True
        return succeed(None)


class SubscriberTestCase(SynchronousTestCase):
    """A subscriber that has just started."""

    addresses: tuple[str, ...] = (ADDRESS,)
    limits = SubscriberSettings()

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.clock.advance(1_000_000)
        self.started = self.clock.seconds()
        self.sockets = FakeSockets()
        self.sockets.clock = self.clock
        self.received: list[tuple[str, bytes]] = []
        self.consume: Callable[[], Deferred[None] | None] = lambda: None
        self.logged = EventLoggingObserver()
        globalLogPublisher.addObserver(self.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged)
        self.subscriber = Subscriber(
            self.clock,
            self.addresses,
            ["/GOVI/"],
            self._receive,
            self.limits,
            _sockets=self.sockets,  # type: ignore[arg-type]
        )
        self.subscriber.startService()
        self.clock.advance(0)
        self.addCleanup(self._stop)

    def _receive(self, envelope: str, data: bytes) -> Deferred[None] | None:
        self.received.append((envelope, data))
        return self.consume()

    def _stop(self) -> None:
        self.successResultOf(self.subscriber.stopService())
        self.assertTrue(self.sockets.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.clock.getReaders(), [])

    @property
    def socket(self) -> FakeSocket:
        return self.sockets.sockets[-1]

    def now(self) -> float:
        return self.clock.seconds() - self.started

    def wake(self) -> None:
        """Have the reactor see the descriptor readable, and come round once more."""
        (reader,) = self.clock.getReaders()
        cast(IReadDescriptor, reader).doRead()
        self.clock.advance(0)

    def come(self, *frames: bytes) -> None:
        self.socket.messages.append(list(frames))
        self.wake()

    def data(self, data: bytes = b"gz") -> None:
        self.come(ENVELOPE.encode(), data)

    def heartbeat(self) -> None:
        self.come(ENVELOPE.encode())

    def wait(self, seconds: int) -> None:
        self.clock.pump([1.0] * seconds)

    def lines(self) -> list[str]:
        return [str(event["log_format"]).format(**event) for event in self.logged if event["log_namespace"] != "-"]


class MessageTests(SubscriberTestCase):
    """What comes, and what is handed over."""

    limits = SubscriberSettings(message=256)

    def test_frames(self) -> None:
        """All frames behind the envelope are one file."""
        self.data(b"one")
        self.come(ENVELOPE.encode(), b"o", b"", b"ne")
        self.assertEqual(self.received, [(ENVELOPE, b"one")] * 2)

    def test_heartbeat(self) -> None:
        """An envelope alone is a sign of life and nothing else."""
        self.assertIsNone(self.subscriber.alive)
        self.heartbeat()
        self.assertEqual(self.received, [])
        self.assertEqual((self.subscriber.alive, self.subscriber.last), (self.started, None))
        self.assertEqual(self.subscriber.state, "UNKNOWN")
        self.wait(5)
        self.data()
        self.assertEqual((self.subscriber.alive, self.subscriber.last), (self.started + 5, self.started + 5))

    def test_odd_messages(self) -> None:
        """What is too large, has no data or no envelope in ASCII is left out and counted; the feed goes on."""
        self.come(b"/GOVI/" + b"\xff", b"gz")
        self.come("/GOVI/KV8\u00e9".encode(), b"gz")
        self.come(ENVELOPE.encode(), b"", b"")
        self.come(b"e" * 56, b"x" * 100, b"x" * 101)
        self.assertEqual(self.subscriber.incidents.counts, {"envelope": 2, "empty": 1, "too large": 1})
        self.assertEqual((self.received, self.subscriber.state), ([], "UNKNOWN"))
        self.come(b"e" * 56, b"x" * 100, b"x" * 100)
        self.assertEqual(self.received, [("e" * 56, b"x" * 200)])

    def test_before_the_first_readiness(self) -> None:
        """What came before the reactor watches the descriptor is read without its being readable."""
        self.sockets.first = [[ENVELOPE.encode(), b"gz"]]
        self.wait(60 + 1)
        self.assertEqual(len(self.received), 1)


class TurnTests(SubscriberTestCase):
    """How much is read at a time."""

    def setUp(self) -> None:
        super().setUp()
        self.seen: list[int] = []

    def read(self, count: int, work: Callable[[], object] = lambda: None) -> list[int]:
        """Have so many messages come; give how many had been read each time that other work had its turn."""
        self.socket.messages.extend([ENVELOPE.encode(), b"%d" % number] for number in range(count))
        (reader,) = self.clock.getReaders()
        cast(IReadDescriptor, reader).doRead()
        self.assertEqual(self.received, [])
        self._work(work)
        self.clock.advance(0)
        self.assertEqual(self.received, [(ENVELOPE, b"%d" % number) for number in range(count)])
        return self.seen

    def _work(self, work: Callable[[], object]) -> None:
        if self.received:
            self.seen.append(len(self.received))
            work()
        if self.socket.messages:
            self.clock.callLater(0, self._work, work)

    def test_count(self) -> None:
        """After so many messages other work has its turn; no further readiness is needed for the rest."""
        self.assertEqual(self.read(2 * TURN_MESSAGES + 1), [TURN_MESSAGES, 2 * TURN_MESSAGES, 2 * TURN_MESSAGES + 1])

    def test_exactly_so_many(self) -> None:
        """With as many messages as a turn has, the events are asked for once more, and then no more."""
        asked = self.socket.asked
        self.read(TURN_MESSAGES)
        self.assertEqual(self.socket.asked - asked, 1 + TURN_MESSAGES + 1)

    def test_time(self) -> None:
        """After 5 ms other work has its turn, too."""

        def slow() -> None:
            self.clock.rightNow += 0.002

        self.consume = slow
        self.assertEqual(self.read(7), [3, 6, 7])

    def test_clock_is_set_back(self) -> None:
        """A clock that is set back within a turn ends it."""

        def set_back() -> None:
            self.clock.rightNow -= 3600
            self.consume = lambda: None
            self.clock.callLater(0, self._work, lambda: None)

        self.consume = set_back
        self.socket.messages.extend([ENVELOPE.encode(), b"gz"] for _ in range(5))
        self.wake()
        self.assertEqual(self.seen, [1, 5])

    def test_readable_meanwhile(self) -> None:
        """While a turn is due, readiness is taken back and adds no other turn."""
        asked = []

        def wake() -> None:
            (reader,) = self.clock.getReaders()
            before = self.socket.asked
            cast(IReadDescriptor, reader).doRead()
            asked.append(self.socket.asked - before)

        self.assertEqual(self.read(2 * TURN_MESSAGES, wake)[:2], [TURN_MESSAGES, 2 * TURN_MESSAGES])
        self.assertEqual(asked[0], 1)

    def test_reading_fails(self) -> None:
        """When libzmq cannot read, the connection is made anew."""
        self.socket.error = zmq.ZMQError(zmq.ENOTSOCK)
        self.wake()
        self.assertTrue(self.socket.closed)
        self.assertEqual(self.subscriber.state, "DOWN")
        self.wait(1)
        self.data()
        self.assertEqual(len(self.received), 1)


class ConsumerTests(SubscriberTestCase):
    """Who takes the messages in."""

    def test_back_pressure(self) -> None:
        """Nothing is read until the Deferred of the last message fires; what came meanwhile is read then."""
        taken: Deferred[None] = Deferred()
        self.consume = lambda: taken
        self.socket.messages.append([ENVELOPE.encode(), b"1"])
        self.data(b"2")
        self.data(b"3")
        self.assertEqual(len(self.received), 1)
        self.consume = lambda: None
        taken.callback(None)
        self.assertEqual(len(self.received), 1)
        self.clock.advance(0)
        self.assertEqual([data for _, data in self.received], [b"1", b"2", b"3"])

    def test_at_once(self) -> None:
        """A Deferred that has fired stops nothing."""
        self.consume = lambda: succeed(None)
        self.socket.messages.extend([ENVELOPE.encode(), b"gz"] for _ in range(5))
        self.wake()
        self.assertEqual(len(self.received), 5)

    def test_fails(self) -> None:
        """One that raises, or whose Deferred fails, is counted and told to the log once; the feed goes on."""

        def fails() -> None:
            raise ValueError("no")

        self.consume = fails
        self.data()
        later: Deferred[None] = Deferred()
        self.consume = lambda: later
        self.data()
        later.errback(Failure(ValueError("nor now")))
        self.clock.advance(0)
        self.consume = lambda: None
        self.data()
        self.assertEqual(len(self.received), 3)
        self.assertEqual(self.subscriber.incidents.counts, {"not consumed": 2})
        told = [line for line in self.lines() if "taken in" in line]
        self.assertEqual(told, [f"A message of the live feed in {ENVELOPE} could not be taken in: ValueError('no')"])

    def test_slow(self) -> None:
        """A consumer that takes longer than the silence is not the feed's: it stays connected, and it is logged."""
        taken: Deferred[None] = Deferred()
        self.consume = lambda: taken
        self.data()
        self.wait(200)
        self.assertEqual((self.subscriber.state, self.socket.closed), ("RECOVERING", False))
        self.assertEqual(self.subscriber.incidents.counts, {"slow": 3})
        taken.callback(None)
        self.wait(30)
        self.assertEqual(self.subscriber.state, "RECOVERING")
        self.wait(60)
        self.assertEqual(self.subscriber.state, "DOWN")

    def test_stops(self) -> None:
        """One that stops the service gets no further message."""

        def stop() -> None:
            self.subscriber.stopService()

        self.consume = stop
        self.socket.messages.extend([ENVELOPE.encode(), b"gz"] for _ in range(5))
        self.wake()
        self.assertEqual(len(self.received), 1)

    def test_after_the_stop(self) -> None:
        """A Deferred that fires after the stop does nothing any more."""
        taken: Deferred[None] = Deferred()
        self.consume = lambda: taken
        self.data()
        self.subscriber.stopService()
        taken.callback(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StateTests(SubscriberTestCase):
    """UNKNOWN, RECOVERING, UP and DOWN."""

    def test_up(self) -> None:
        """From the first message it recovers for a minute in which data comes, then it is up."""
        self.assertEqual(self.subscriber.state, "UNKNOWN")
        self.data()
        for _ in range(59):
            self.wait(1)
            self.data()
            self.assertEqual(self.subscriber.state, "RECOVERING")
        self.wait(1)
        self.assertEqual(self.subscriber.state, "RECOVERING")
        self.data()
        self.assertEqual(self.subscriber.state, "UP")
        self.assertEqual(
            self.lines(),
            [
                f"The live feed from {ADDRESS} is RECOVERING: data comes",
                f"The live feed from {ADDRESS} is UP: data has come for 60 s",
            ],
        )

    def test_heartbeats_only(self) -> None:
        """Heartbeats alone keep the connection, but it is down until data comes."""
        for _ in range(59):
            self.wait(1)
            self.heartbeat()
        self.assertEqual(self.subscriber.state, "UNKNOWN")
        self.wait(1)
        self.assertEqual(self.subscriber.state, "DOWN")
        for _ in range(100):
            self.wait(1)
            self.heartbeat()
        self.assertEqual((len(self.sockets.made), self.subscriber.state), (1, "DOWN"))
        self.data()
        self.assertEqual(self.subscriber.state, "RECOVERING")
        self.assertEqual(self.lines()[0], f"The live feed from {ADDRESS} is DOWN: only heartbeats came for 60 s")

    def test_data_stops(self) -> None:
        """When only heartbeats go on, it stays what it was for minutes, and is down then, on the same connection."""
        self.data()
        self.wait(60 - 1)
        self.heartbeat()
        self.wait(1)
        self.data()
        states = []
        for _ in range(20):
            self.wait(30)
            self.heartbeat()
            states.append(self.subscriber.state)
        self.assertEqual((states[8], states[-1], self.subscriber.attempts), ("UP", "DOWN", 1))
        self.assertEqual(self.subscriber.last, self.started + 60)
        self.assertEqual(self.subscriber.alive, self.started + 660)
        self.data()
        self.assertEqual(self.subscriber.state, "RECOVERING")

    def test_silence(self) -> None:
        """A minute without any frame: down, one line says so, and what comes then begins anew."""
        self.data()
        self.wait(40)
        self.heartbeat()
        self.wait(59)
        self.assertEqual(self.subscriber.state, "RECOVERING")
        self.wait(1)
        self.assertEqual((self.subscriber.state, self.subscriber.address), ("DOWN", None))
        self.assertEqual(
            self.lines()[1:],
            [f"Nothing came from {ADDRESS} for 60 s: the live feed is DOWN, {ADDRESS} is tried in 1 s"],
        )
        self.wait(1)
        self.assertEqual(self.subscriber.address, ADDRESS)
        self.data()
        self.assertEqual(self.subscriber.state, "RECOVERING")

    def test_set_back_while_recovering(self) -> None:
        """After the clock was set back, recovering takes its time from then."""
        self.data()
        self.clock.rightNow -= 3600
        self.data()
        self.wait(59)
        self.data()
        self.assertEqual(self.subscriber.state, "RECOVERING")
        self.wait(1)
        self.data()
        self.assertEqual(self.subscriber.state, "UP")


class AttemptTests(SubscriberTestCase):
    """Silence, and what is tried then."""

    addresses = (ADDRESS, OTHER)

    def test_back_off(self) -> None:
        """The wait doubles up to 30 s; the addresses take turns, every other round without IPv6; one at a time."""
        self.wait(8 * 60 + 1 + 2 + 4 + 8 + 16 + 30 + 30)
        at, expected = 0, []
        for number, wait in enumerate([1, 2, 4, 8, 16, 30, 30, 30]):
            expected.append((self.started + at, (ADDRESS, OTHER)[number % 2], number // 2 % 2 == 0))
            at += 60 + wait
        self.assertEqual(self.sockets.made, expected)
        self.assertTrue(all(socket.closed for socket in self.sockets.sockets[:-1]))
        self.assertEqual(len(self.lines()), 8)

    def test_back_to_one(self) -> None:
        """Once data has come, the wait is 1 s again; heartbeats do not make it so."""
        self.wait(61 + 62)
        self.heartbeat()
        self.wait(60)
        self.assertIn("is tried in 4 s", self.lines()[-1])
        self.wait(4)
        self.data()
        self.wait(60)
        self.assertIn("is tried in 1 s", self.lines()[-1])

    def test_refused(self) -> None:
        """A further address that libzmq does not take is passed over, after the back-off."""
        self.sockets.refused = {OTHER}
        self.wait(60 + 1 + 2)
        self.assertEqual([address for _, address, _ in self.sockets.made], [ADDRESS, OTHER, ADDRESS])
        self.data()
        self.assertEqual(len(self.received), 1)

    def test_waiting_is_no_silence(self) -> None:
        """When something waits in libzmq by the end of the silence, it is read, and there was none."""
        self.wait(59)
        self.socket.messages.append([ENVELOPE.encode(), b"gz"])
        self.wait(2)
        self.assertEqual((len(self.received), len(self.sockets.made)), (1, 1))

    def test_stop_in_the_back_off(self) -> None:
        """A stop between two attempts leaves nothing behind."""
        self.wait(60)
        self.subscriber.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_readable_after_the_close(self) -> None:
        """A readiness that the reactor had seen before the connection was given up does nothing."""
        (reader,) = self.clock.getReaders()
        self.wait(60)
        cast(IReadDescriptor, reader).doRead()

    def test_set_forward(self) -> None:
        """A clock that is set forward is no silence; a silence then takes its time."""
        self.data()
        self.wait(10)
        self.clock.advance(3600)
        self.assertEqual((self.subscriber.state, self.socket.closed), ("RECOVERING", False))
        self.wait(59)
        self.assertFalse(self.socket.closed)
        self.wait(1)
        self.assertTrue(self.socket.closed)

    def test_set_back(self) -> None:
        """A clock that is set back while frames come: the next silence is noticed in its time."""
        self.data()
        self.clock.rightNow -= 3600
        self.data()
        self.wait(59)
        self.assertFalse(self.socket.closed)
        self.wait(1)
        self.assertTrue(self.socket.closed)

    def test_set_back_in_silence(self) -> None:
        """A clock that is set back during a silence: it is noticed when the clock is where it was, and no sooner."""
        self.data()
        self.clock.rightNow -= 3600
        self.wait(3660)
        self.assertTrue(self.socket.closed)


class AddressTests(SynchronousTestCase):
    """What may be an address."""

    def subscriber(self, *addresses: str, sockets: FakeSockets | None = None) -> Subscriber:
        return Subscriber(
            MemoryReactorClock(),
            addresses,
            [""],
            lambda envelope, data: None,
            _sockets=sockets,  # type: ignore[arg-type]
        )

    def test_good(self) -> None:
        """Hosts by name, IPv4 and IPv6, and what is in the same machine."""
        for address in (ADDRESS, "tcp://83.98.158.170:7817", "tcp://[::1]:1", "tcp://x:65535", "ipc:///run/feed"):
            self.assertIsNone(self.subscriber(address).address)

    def test_bad(self) -> None:
        """The constructor refuses what can be no address, wherever it stands, in one line that names it."""
        for address in (
            "", "feed.example:7817", "tcp://feed.example", "tcp://feed.example:", "tcp://feed.example:x",
            "tcp://feed.example:0", "tcp://feed.example:65536", "tcp://:7817", "tcp://*:7817", "tcp://a b:1",
            "tcp://\u00e9:1", "tcp://x:\u0661", "tcp://x:1/path", "http://x:1", "udp://x:1", "tcp:/x:1", "ipc://",
            "inproc://", "ipc://" + 200 * "x", "tcp://x:1\n",
        ):  # fmt: skip
            with self.assertRaises(StartupError) as caught:
                self.subscriber(ADDRESS, address)
            self.assertIn(repr(address), str(caught.exception))

    def test_none(self) -> None:
        """Without an address, or a prefix, there is nothing to do."""
        self.assertRaises(StartupError, self.subscriber)
        with self.assertRaises(StartupError):
            Subscriber(MemoryReactorClock(), [ADDRESS], [], lambda envelope, data: None)

    def test_refused(self) -> None:
        """What libzmq does not take at the start ends the start, with nothing left behind."""
        sockets = FakeSockets()
        sockets.refused, sockets.clock = {ADDRESS}, MemoryReactorClock()
        subscriber = self.subscriber(ADDRESS, sockets=sockets)
        self.assertRaises(StartupError, subscriber.startService)
        self.assertTrue(sockets.closed)
        self.assertFalse(subscriber.running)

    def test_never_started(self) -> None:
        """One that was never started has nothing to stop."""
        self.successResultOf(self.subscriber(ADDRESS).stopService())


class DescriptorTests(SynchronousTestCase):
    """What the reactor watches, and the limits."""

    def test_interface(self) -> None:
        """It is what a reactor reads from."""
        descriptor = _Descriptor(FakeSocket(), lambda: None)  # type: ignore[arg-type]
        self.assertTrue(verifyObject(IReadDescriptor, descriptor))
        self.assertEqual((descriptor.fileno(), descriptor.logPrefix()), (99, "kv78turbo"))
        descriptor.connectionLost(Failure(ValueError()))
