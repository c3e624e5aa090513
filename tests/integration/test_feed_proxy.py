"""Tests of the feed proxy over real ZeroMQ sockets."""

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import pytest_twisted
import zmq

from govi_server.feed_proxy.proxy import FeedProxy
from govi_server.feed_proxy.publisher import MAX_TOPICS
from govi_server.kv78turbo.subscriber import PREFIXES
from govi_server.settings import SubscriberSettings
from tests.integration.conftest import Twistd, becomes_true, reactor, sleep, until, wait_for
from tests.integration.test_subscriber import ENVELOPE, Publisher, count_libzmq_threads, tcp
from tests.ports import free_port

QUICK = SubscriberSettings(silence=0.5, recovery=0.3, back_off=0.1)
OWN = [b"\1" + prefix.encode() for prefix in PREFIXES]
PROBE = b"probe"
"""The data of messages that tell whether a node has subscribed."""


class Node:
    """A subscriber of the proxy. max_queued: messages that it queues itself."""

    def __init__(self, address: str, *topics: bytes, max_queued: int = 0) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.SUB)
        self.socket.linger = 0
        self.socket.rcvhwm = max_queued
        if max_queued:
            self.socket.rcvbuf = 4096
        self.socket.reconnect_ivl = 20
        for topic in topics or (b"/GOVI/",):
            self.socket.subscribe(topic)
        self.socket.connect(address)
        self.received: list[list[bytes]] = []
        self.n_probes = 0

    def read(self) -> list[list[bytes]]:
        """Read what has arrived; return everything that was read, except probes."""
        while self.socket.poll(0):
            message = self.socket.recv_multipart()
            if message[1:] == [PROBE]:
                self.n_probes += 1
            else:
                self.received.append(message)
        return self.received

    def close(self) -> None:
        self._context.destroy(linger=0)


class Site:
    """A publisher, a proxy and its nodes."""

    def __init__(self) -> None:
        self.feed = Publisher(tcp())
        self.address = tcp()
        self.proxies: list[FeedProxy] = []
        self.nodes: list[Node] = []
        self._subscriptions: list[bytes] = []

    def subscriptions(self) -> list[bytes]:
        """Return all subscriptions to the feed and their cancellations, except those before restart_feed()."""
        self._subscriptions.extend(self.feed.subscriptions())
        return self._subscriptions

    def proxy(self, limits: SubscriberSettings = QUICK, max_queued: int = 1000) -> FeedProxy:
        self.proxies.append(FeedProxy(reactor, [self.feed.address], self.address, limits, max_queued))
        self.proxies[-1].startService()
        return self.proxies[-1]

    async def node(self, *topics: bytes, max_queued: int = 0) -> Node:
        """Return a node whose subscriptions have arrived at the proxy."""
        publisher = self.proxies[-1].publisher
        before = publisher.subscribers
        node = Node(self.address, *topics, max_queued=max_queued)
        self.nodes.append(node)
        await until(lambda: publisher.subscribers > before and publisher.topics >= set(topics or (b"/GOVI/",)))
        await self.subscribed(node, topics[-1] if topics else b"/GOVI/")
        return node

    async def subscribed(self, node: Node, topic: bytes = b"/GOVI/") -> None:
        """Wait until the subscription of a node has arrived: only the first one to a topic is reported."""
        publisher, before = self.proxies[-1].publisher, node.n_probes

        def is_subscribed() -> bool:
            assert publisher._socket is not None
            publisher._socket.send_multipart([topic, PROBE])
            node.read()  # libzmq subscribes again when its socket is used
            return node.n_probes > before

        await until(is_subscribed)

    def publish(self, number: int, size: int = 0) -> None:
        self.feed.send(ENVELOPE.encode(), b"%d," % number + b"x" * size)

    def restart_feed(self) -> None:
        self.feed.close()
        self._subscriptions.clear()
        self.feed = Publisher(self.feed.address)

    async def close(self) -> None:
        for proxy in self.proxies:
            if proxy.running:
                await proxy.stopService()
        for node in self.nodes:
            node.close()
        self.feed.close()


@pytest_twisted.async_yield_fixture
async def site() -> AsyncIterator[Site]:
    """Yield a Site, which is closed after the test."""
    site = Site()
    yield site
    await site.close()


async def until_received(node: Node, number: int) -> None:
    """Wait until a node has received a message."""
    await until(lambda: numbers(node)[-1:] == [number])


def numbers(node: Node) -> list[int]:
    """Return the numbers of the messages that a node has received."""
    return [int(data.partition(b",")[0]) for _, data in node.read()]


@pytest_twisted.ensureDeferred
async def test_one_subscription_serves_all_nodes(site: Site) -> None:
    """Two nodes receive every message as it was sent, heartbeats included; the feed has one connection."""
    proxy = site.proxy()
    await until(lambda: sorted(site.subscriptions()) == sorted(OWN))
    nodes = [await site.node(*map(str.encode, PREFIXES)) for _ in range(2)]
    messages = [
        [ENVELOPE.encode(), b"a", b"", b"b" * 100_000],
        [b"/GOVI/KV8heartbeat"],
        [b"/GOVI/KV7planning/X", b""],
    ]
    for message in messages:
        site.feed.send(*message)
    await until(lambda: all(node.read() == messages for node in nodes))
    assert sorted(site.subscriptions()) == sorted(OWN)  # those of one connection, none for the nodes
    assert (proxy.messages, proxy.bytes) == (3, sum(len(frame) for message in messages for frame in message))
    assert proxy.publisher.subscribers == 2
    assert proxy.receives_data


@pytest_twisted.ensureDeferred
async def test_topics_are_forwarded(site: Site) -> None:
    """The feed gets a further topic at its first subscriber, and loses it with the last one."""
    site.proxy()
    other = await site.node(b"/GOVI/KV8")
    nodes = [await site.node(b"/CXX/KV6") for _ in range(2)]
    await until(lambda: b"\1/CXX/KV6" in site.subscriptions())
    site.feed.send(b"/CXX/KV6posinfo", b"1,")
    await until(lambda: all(numbers(node) == [1] for node in nodes))
    assert other.read() == []
    nodes[0].close()
    await until(lambda: site.proxies[0].publisher.subscribers == 2)
    site.restart_feed()
    await until(lambda: {*OWN, b"\1/CXX/KV6"} == set(site.subscriptions()))  # on the new connection as well
    nodes[1].close()
    await until(lambda: b"\0/CXX/KV6" in site.subscriptions())


@pytest_twisted.ensureDeferred
async def test_restarted_feed(site: Site) -> None:
    """After the feed restarts, nodes receive messages again without a reconnection of their own."""
    proxy = site.proxy()
    node = await site.node()
    await site.feed.subscribed()
    site.publish(1)
    await until(lambda: numbers(node) == [1])
    site.feed.close()
    await until(lambda: not proxy.receives_data)
    site.feed = Publisher(site.feed.address)
    await site.feed.subscribed()
    site.publish(2)
    await until(lambda: numbers(node) == [1, 2])
    assert proxy.receives_data


@pytest_twisted.ensureDeferred
async def test_silent_feed_is_reconnected(site: Site) -> None:
    """A feed that sends nothing is reconnected; heartbeats alone keep the connection, but are no data."""
    proxy = site.proxy()
    await site.feed.subscribed()
    await site.feed.subscribed()  # again, after the silence
    reconnects = proxy.reconnects
    assert reconnects >= 1
    for _ in range(15):
        site.feed.send(b"/GOVI/KV8heartbeat")
        await sleep(0.1)
    assert proxy.reconnects <= reconnects + 1  # at most one that had begun
    assert proxy.messages > 0
    assert not proxy.receives_data


@pytest_twisted.ensureDeferred
async def test_restarted_proxy(site: Site) -> None:
    """Nodes receive messages again after the proxy has restarted."""
    nodes = [Node(site.address), Node(site.address)]
    site.nodes += nodes
    for number in (1, 2):
        site.proxy()
        for node in nodes:
            await site.subscribed(node)
        await site.feed.subscribed()
        site.publish(number)
        for node in nodes:
            await until_received(node, number)
        await site.proxies[-1].stopService()


@pytest_twisted.ensureDeferred
async def test_stop_releases_all_resources(site: Site) -> None:
    """Stopping leaves no thread, reader or delayed call."""
    threads, readers, calls = count_libzmq_threads(), set(reactor.getReaders()), set(reactor.getDelayedCalls())
    for seconds in (0.0, 0.1):
        proxy = site.proxy()
        await sleep(seconds)  # before and after the connection is established
        assert count_libzmq_threads() > threads
        await proxy.stopService()
        await until(lambda: count_libzmq_threads() == threads)  # the kernel lists a thread a little longer
        assert set(reactor.getReaders()) == readers
        assert set(reactor.getDelayedCalls()) <= calls


@pytest_twisted.ensureDeferred
async def test_slow_node_loses_messages_alone(site: Site) -> None:
    """A node that does not read loses messages; another one gets all of them, and both get what comes later."""
    site.proxy(SubscriberSettings(), max_queued=50)
    slow, fast = await site.node(max_queued=5), await site.node()
    await site.feed.subscribed()
    for number in range(600):
        site.publish(number, size=50_000)
        if number % 20 == 0:
            await until_received(fast, number)
    await until_received(fast, 599)
    assert numbers(fast) == list(range(600))
    assert site.proxies[0].messages == 600
    lost = 600 - len(numbers(slow))
    assert lost > 100
    last = 600
    while numbers(slow)[-1] < 600:  # the first ones may still be lost
        site.publish(last)
        await until_received(fast, last)
        last += 1


@pytest_twisted.ensureDeferred
async def test_topics_are_bounded(site: Site) -> None:
    """Topics over the maximum are not forwarded; the other ones are served."""
    publisher = site.proxy().publisher
    node = await site.node()
    site.nodes.append(Node(site.address, *(b"%d" % number for number in range(MAX_TOPICS + 10))))
    await until(lambda: len(publisher.topics) == MAX_TOPICS)
    await site.feed.subscribed()
    site.publish(1)
    await until_received(node, 1)


@pytest_twisted.ensureDeferred
async def test_address_in_use(site: Site) -> None:
    """The error of an address in use names the option; nothing of the proxy remains."""
    site.proxy()
    threads = count_libzmq_threads()
    with pytest.raises(SystemExit):
        site.proxy()
    site.proxies.pop()
    await until(lambda: count_libzmq_threads() == threads)


def get(url: str) -> tuple[int, str]:
    """Return the status and the body of a response."""
    try:
        with urlopen(url, timeout=13) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_command(twistd: Twistd, tmp_path: Path) -> None:
    """A govi-cache behind the command serves the simulator's feed; /health and /metrics follow the feed."""
    feed, publish, admin, port = tcp(), f"ipc://{tmp_path}/proxy", free_port(), free_port()
    proxy = twistd(
        "govi-feed-proxy", "--feed", feed, "--publish", publish, "--admin", f"tcp:{admin}:interface=127.0.0.1"
    )
    wait_for(proxy, "publishing on")
    status, body = get(f"http://127.0.0.1:{admin}/health")
    assert (status, json.loads(body)["status"]) == (503, "UNKNOWN")
    node = twistd(
        "govi-cache", "--listen", f"tcp:{port}:interface=127.0.0.1", "--admin", "", "--feed", publish, "--gtfs", ""
    )
    wait_for(node, "for govi-cache")
    twistd("govi-simulator", "--listen", f"tcp:{free_port()}:interface=127.0.0.1", "--feed", feed)
    wait_for(node, "(RECOVERING)")
    assert becomes_true(lambda: get(f"http://127.0.0.1:{port}/tpc/57330430")[0] == 200)
    status, body = get(f"http://127.0.0.1:{admin}/health")
    report = json.loads(body)
    assert (status, report["status"], report["subscribers"], report["feed"]) == (200, "RECOVERING", 1, feed)
    assert report["bytes"] > report["messages"] > 0
    _, metrics = get(f"http://127.0.0.1:{admin}/metrics")
    assert 'govi_feed_state{state="RECOVERING"} 1.0' in metrics
    assert "govi_feed_proxy_subscribers 1.0" in metrics
    proxy.send_signal(signal.SIGTERM)
    output, _ = proxy.communicate(timeout=60)
    assert proxy.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert "Traceback" not in output
