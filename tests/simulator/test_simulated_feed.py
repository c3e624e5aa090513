"""Tests of the service that publishes the simulated feed."""

from collections.abc import Iterator, Sequence
from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.simulator.feed import HEARTBEAT_INTERVAL, SILENCE_INTERVAL, Publisher, SimulatedFeed
from govi_server.simulator.feed_faults import FaultInjector, FeedFaults
from govi_server.simulator.replay import Replay
from govi_server.simulator.town_feed import Message, TownFeed
from tests.simulator.messages import FRIDAY, MESSAGES, TOWN, at


class FakePublisher(Publisher):
    """A publisher that records what it sends; has_subscription is set by the test."""

    def __init__(self) -> None:
        self.sent: list[Sequence[bytes]] = []
        self.is_open = self.has_subscription = False

    def open(self) -> str:
        self.is_open = True
        return "tcp://fake:1"

    def has_new_subscription(self) -> bool:
        return self.has_subscription

    def send(self, frames: Sequence[bytes]) -> None:
        self.sent.append(frames)

    def close(self) -> None:
        self.is_open = False

    def heartbeats(self) -> int:
        return sum(len(frames) == 1 for frames in self.sent)


class ThreeMessages(Replay):
    """A replay of three messages, one every two seconds."""

    def __init__(self) -> None:
        pass

    def __str__(self) -> str:
        return "three messages"

    def __iter__(self) -> Iterator[tuple[list[Message], float]]:
        yield [MESSAGES[0]], 2.0
        yield [MESSAGES[1]], 2.0
        yield [MESSAGES[2]], 0.0


class SimulatedFeedTests(SynchronousTestCase):
    """The service that publishes the feed, in memory."""

    def start(self, source: TownFeed | Replay, faults: FeedFaults | None = None, silence: float = 0) -> None:
        self.clock = Clock()
        self.clock.rightNow = at(FRIDAY, 3)  # when few buses run
        self.publisher = FakePublisher()
        self.feed = SimulatedFeed(
            self.clock, self.publisher, source, FaultInjector(faults or FeedFaults(), Random(1)), silence
        )
        self.feed.privilegedStartService()
        self.feed.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        self.feed.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.publisher.is_open)

    def town(self) -> TownFeed:
        return TownFeed(TOWN, lambda: self.clock.seconds())

    def test_town(self) -> None:
        """The town's messages are sent at the start and every second; heartbeats every ten seconds."""
        self.start(self.town())
        self.assertEqual(self.publisher.heartbeats(), 2)
        self.clock.advance(0)
        first = len(self.publisher.sent)
        self.assertGreater(first, 10)
        self.clock.pump([0.5] * 2 * HEARTBEAT_INTERVAL)
        self.assertEqual(self.publisher.heartbeats(), 4)
        self.assertGreater(len(self.publisher.sent), first + 2)

    def test_silence(self) -> None:
        """During a silence nothing is sent, not even heartbeats; then sending continues."""
        self.start(ThreeMessages(), silence=30)
        self.publisher.has_subscription = True
        self.clock.pump([1] * SILENCE_INTERVAL)
        count = len(self.publisher.sent)
        self.assertGreater(count, 2 * SILENCE_INTERVAL / HEARTBEAT_INTERVAL)
        self.clock.pump([1] * 29)
        self.assertEqual(len(self.publisher.sent), count)
        self.clock.pump([1] * (1 + HEARTBEAT_INTERVAL))
        self.assertGreater(len(self.publisher.sent), count)

    def test_replay_waits_for_subscription(self) -> None:
        """A replay waits for a subscription, then follows the recorded pace."""
        self.start(ThreeMessages(), FeedFaults(out_of_order=1))
        self.clock.pump([1] * 9)
        self.assertEqual(len(self.publisher.sent), 2)  # heartbeats
        self.publisher.has_subscription = True
        self.clock.pump([0.1] * 60)
        messages = [frames for frames in self.publisher.sent if len(frames) > 1]
        self.assertEqual(len(messages), 3)
