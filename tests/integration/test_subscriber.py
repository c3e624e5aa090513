"""Tests of the connection to the KV78turbo feed over real ZeroMQ sockets."""

import os
import threading
import time
from collections.abc import AsyncIterator

import pytest
import pytest_twisted
import zmq
from twisted.internet.defer import Deferred

from govi_server.errors import StartupError
from govi_server.kv78turbo.subscriber import Subscriber
from govi_server.settings import SubscriberSettings
from tests.integration.conftest import reactor, sleep, until
from tests.ports import free_port

ENVELOPE = "/GOVI/KV8passtimes/ARR"
QUICK = SubscriberSettings(silence=0.3, recovery=0.3, back_off=0.1)


class Publisher:
    """A publisher in this process, and the subscriptions to it."""

    def __init__(self, address: str, max_queued: int = 0) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.linger = 0
        self._socket.sndhwm = max_queued
        self._socket.xpub_verbose = True
        self._socket.bind(address)
        self.address = address

    def subscriptions(self) -> list[bytes]:
        """Return the subscriptions since the last call; those with a first byte of 0 are cancellations."""
        messages = []
        while self._socket.poll(0):
            messages.append(self._socket.recv())
        return messages

    async def subscribed(self) -> None:
        """Wait for a subscription."""
        await until(lambda: any(message[0] == 1 for message in self.subscriptions()))

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart(frames)

    def close(self) -> None:
        self._context.destroy(linger=0)


def tcp() -> str:
    """Return an unused address."""
    return f"tcp://127.0.0.1:{free_port()}"


def count_libzmq_threads() -> int:
    """Return the number of threads that Python did not start: those of libzmq."""
    return len(os.listdir("/proc/self/task")) - threading.active_count()


class Feed:
    """Publishers, subscribers, and the received messages."""

    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.subscribers: list[Subscriber] = []
        self.publishers: list[Publisher] = []

    def publish(self, address: str | None = None) -> Publisher:
        self.publishers.append(Publisher(address or tcp()))
        return self.publishers[-1]

    def subscribe(
        self, *addresses: str, prefixes: tuple[str, ...] = ("/GOVI/",), limits: SubscriberSettings = QUICK
    ) -> Subscriber:
        subscriber = Subscriber(reactor, addresses, prefixes, self.receive, limits)
        self.subscribers.append(subscriber)
        subscriber.startService()
        return subscriber

    def receive(self, envelope: str, data: bytes) -> Deferred[None] | None:
        self.received.append((envelope, data))
        return None

    async def wait_for(self, count: int) -> None:
        await until(lambda: len(self.received) >= count)


@pytest_twisted.async_yield_fixture
async def feed() -> AsyncIterator[Feed]:
    """Yield a Feed whose publishers and subscribers are closed after the test."""
    feed = Feed()
    yield feed
    for subscriber in feed.subscribers:
        await subscriber.stopService()
    for publisher in feed.publishers:
        publisher.close()


@pytest_twisted.async_yield_fixture
async def no_leaks() -> AsyncIterator[None]:
    """Assert that a test leaves no reader, delayed call or file descriptor."""
    await sleep(0)  # the reactor makes readers of its own when it starts
    readers, calls = set(reactor.getReaders()), set(reactor.getDelayedCalls())
    descriptors = len(os.listdir("/proc/self/fd"))
    yield
    assert set(reactor.getReaders()) == readers
    assert set(reactor.getDelayedCalls()) <= calls
    end = time.monotonic() + 5
    while len(os.listdir("/proc/self/fd")) != descriptors:  # a thread of libzmq closes some
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest_twisted.ensureDeferred
async def test_messages_are_received(feed: Feed) -> None:
    """Messages are received with their envelopes and joined frames; the state is RECOVERING, then UP."""
    publisher = feed.publish()
    subscriber = feed.subscribe(publisher.address)
    await publisher.subscribed()
    start = reactor.seconds()
    publisher.send(ENVELOPE.encode(), b"first")
    publisher.send(b"/GOVI/KV8generalmessages/GVB", b"s", b"", b"e" * 100_000, b"c")
    await feed.wait_for(2)
    assert feed.received == [(ENVELOPE, b"first"), ("/GOVI/KV8generalmessages/GVB", b"s" + b"e" * 100_000 + b"c")]
    assert subscriber.state == "RECOVERING"
    assert subscriber.address == publisher.address
    assert subscriber.last is not None
    assert start <= subscriber.last <= reactor.seconds()
    while subscriber.state == "RECOVERING":
        publisher.send(ENVELOPE.encode(), b"more")
        await sleep(0.05)
    assert subscriber.state == "UP"
    assert reactor.seconds() - start >= QUICK.recovery


@pytest_twisted.ensureDeferred
async def test_heartbeats_keep_the_connection_open(feed: Feed) -> None:
    """With heartbeats alone the connection stays open, but the state is DOWN."""
    publisher = feed.publish()
    subscriber = feed.subscribe(publisher.address)
    await publisher.subscribed()
    end = reactor.seconds() + 3 * QUICK.silence
    while reactor.seconds() < end:
        publisher.send(ENVELOPE.encode())
        await sleep(0.05)
    assert (feed.received, subscriber.state, subscriber.last) == ([], "DOWN", None)
    assert subscriber.alive is not None
    assert publisher.subscriptions() == []  # no reconnection


@pytest_twisted.ensureDeferred
async def test_only_subscribed_prefixes_are_received(feed: Feed) -> None:
    """Only envelopes with one of the prefixes are received."""
    publisher = feed.publish()
    feed.subscribe(publisher.address, prefixes=("/GOVI/KV8pass", "/GOVI/KV8gen"))
    await publisher.subscribed()
    await sleep(0.05)  # for the other subscription
    for envelope in (b"/GOVI/KV7planning/ARR", b"/RIG/KV6posinfo", b"/GOVI/KV8genmsg", b"/GOVI/KV8passtimes/GVB"):
        publisher.send(envelope, b"gz")
    await feed.wait_for(2)
    assert [envelope for envelope, _ in feed.received] == ["/GOVI/KV8genmsg", "/GOVI/KV8passtimes/GVB"]


@pytest_twisted.ensureDeferred
async def test_burst_is_received_in_order(feed: Feed) -> None:
    """Five thousand messages in a burst are received in order, and other work runs meanwhile."""
    publisher = feed.publish()
    feed.subscribe(publisher.address)
    await publisher.subscribed()
    for number in range(5000):
        publisher.send(ENVELOPE.encode(), b"%d" % number, b"x" * 1000)
    iterations = []
    while len(feed.received) < 5000:
        iterations.append(len(feed.received))
        assert len(iterations) < 100_000
        await sleep(0)
    assert [int(data.partition(b"x")[0]) for _, data in feed.received] == list(range(5000))
    assert len(iterations) >= 5000 / 200


@pytest_twisted.ensureDeferred
async def test_slow_consumer_receives_all_messages(feed: Feed) -> None:
    """A slow consumer receives all messages, one at a time."""
    publisher = feed.publish()
    in_progress: list[bytes] = []

    def receive(envelope: str, data: bytes) -> Deferred[None]:
        assert not in_progress
        in_progress.append(data)
        feed.received.append((envelope, data))
        return sleep(0.001).addCallback(lambda _: in_progress.clear())

    feed.receive = receive  # type: ignore[method-assign]
    feed.subscribe(publisher.address)
    await publisher.subscribed()
    for number in range(300):
        publisher.send(ENVELOPE.encode(), b"%d" % number)
        if number % 50 == 0:
            await sleep(0.01)
    await feed.wait_for(300)
    assert [data for _, data in feed.received] == [b"%d" % number for number in range(300)]


@pytest_twisted.ensureDeferred
async def test_restarted_publisher_is_received_again(feed: Feed) -> None:
    """After a publisher restarts, messages are received again."""
    publisher = feed.publish()
    subscriber = feed.subscribe(publisher.address)
    await publisher.subscribed()
    publisher.send(ENVELOPE.encode(), b"before")
    await feed.wait_for(1)
    feed.publishers.remove(publisher)
    publisher.close()
    await until(lambda: subscriber.state == "DOWN")
    restarted = feed.publish(publisher.address)
    await restarted.subscribed()
    restarted.send(ENVELOPE.encode(), b"after")
    await feed.wait_for(2)
    assert (feed.received[1], subscriber.state) == ((ENVELOPE, b"after"), "RECOVERING")


@pytest_twisted.ensureDeferred
async def test_short_absence_of_the_publisher(feed: Feed) -> None:
    """libzmq reconnects to a publisher that was absent for less than the configured silence."""
    publisher = feed.publish()
    subscriber = feed.subscribe(publisher.address, limits=SubscriberSettings(silence=60, back_off=0.1))
    await publisher.subscribed()
    publisher.send(ENVELOPE.encode(), b"before")
    await feed.wait_for(1)
    feed.publishers.remove(publisher)
    publisher.close()
    restarted = feed.publish(publisher.address)
    await restarted.subscribed()
    restarted.send(ENVELOPE.encode(), b"after")
    await feed.wait_for(2)
    assert subscriber.state == "RECOVERING"


@pytest_twisted.ensureDeferred
async def test_silent_address_is_followed_by_the_next(feed: Feed) -> None:
    """After a silence of the first address the subscriber connects to the second one."""
    silent, publisher = feed.publish(), feed.publish()
    subscriber = feed.subscribe(silent.address, publisher.address)
    await silent.subscribed()
    assert subscriber.address == silent.address
    await publisher.subscribed()
    await until(lambda: any(message[0] == 0 for message in silent.subscriptions()))
    publisher.send(ENVELOPE.encode(), b"gz")
    await feed.wait_for(1)
    assert subscriber.address == publisher.address


@pytest_twisted.ensureDeferred
async def test_unreachable_addresses_are_skipped(feed: Feed) -> None:
    """Unknown hosts and closed ports are tried in turn with the other addresses."""
    publisher = feed.publish()
    subscriber = feed.subscribe("tcp://nowhere.invalid:7817", tcp(), publisher.address)
    await publisher.subscribed()
    publisher.send(ENVELOPE.encode(), b"gz")
    await feed.wait_for(1)
    assert subscriber.address == publisher.address


@pytest_twisted.ensureDeferred
async def test_oversized_messages_are_not_received(feed: Feed) -> None:
    """A frame over the limit causes a reconnection; a message of several frames over the limit is skipped."""
    publisher = feed.publish()
    subscriber = feed.subscribe(publisher.address, limits=SubscriberSettings(silence=0.5, back_off=0.1, message=1000))
    await publisher.subscribed()
    publisher.send(ENVELOPE.encode(), *[b"x" * 300] * 4)
    publisher.send(ENVELOPE.encode(), b"1")
    await feed.wait_for(1)
    assert subscriber.incidents.counts == {"too large": 1}
    publisher.send(ENVELOPE.encode(), b"x" * 1001)
    publisher.send(ENVELOPE.encode(), b"lost")
    await publisher.subscribed()
    publisher.send(ENVELOPE.encode(), b"2")
    await feed.wait_for(2)
    assert [data for _, data in feed.received] == [b"1", b"2"]


@pytest.mark.usefixtures("no_leaks")
@pytest_twisted.ensureDeferred
async def test_stop_releases_all_resources() -> None:
    """Stopping in any state leaves no reader, delayed call, thread of libzmq or file descriptor."""
    before = count_libzmq_threads()
    for wait in (0.0, 0.1, 0.35, 0.6):
        subscriber = Subscriber(reactor, [tcp(), tcp()], [""], lambda envelope, data: None, QUICK)
        subscriber.startService()
        await sleep(wait)
        assert count_libzmq_threads() > before
        start = reactor.seconds()
        await subscriber.stopService()
        assert reactor.seconds() - start < 1
        await until(lambda: count_libzmq_threads() == before)  # the kernel lists a thread a little longer


@pytest.mark.usefixtures("no_leaks")
@pytest_twisted.ensureDeferred
async def test_address_that_libzmq_rejects() -> None:
    """The error of an address that only libzmq rejects names it, and no thread remains."""
    before = count_libzmq_threads()
    subscriber = Subscriber(reactor, ["ipc://@"], [""], lambda envelope, data: None, QUICK)
    with pytest.raises(StartupError, match="ipc://@"):
        subscriber.startService()
    await until(lambda: count_libzmq_threads() == before)
