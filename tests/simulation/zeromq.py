"""ZeroMQ in memory: PUB/SUB with limited queues, lost messages, reconnection and edge-triggered descriptors."""

import itertools
import select
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import zmq

from tests.simulation.network import File, Network
from tests.simulation.scheduler import Event, Scheduler

Frames = list[bytes]


class ZeroMQ:
    """The publishers of the world, by address, and their subscribers."""

    def __init__(self, scheduler: Scheduler, network: Network, random: Random) -> None:
        self.scheduler = scheduler
        self.network = network
        self.random = random
        self.publishers: dict[str, PublisherSocket] = {}
        self.ports = itertools.count(50000)
        self.on_read: Callable[[Frames], object] = lambda frames: None
        self.loss = 0.0
        """The fraction of messages that are lost."""
        self.duplicates = 0.0
        """The fraction of messages that arrive twice."""
        self.reordered = 0.0
        """The fraction of messages that later ones overtake."""

    def context(self) -> "Context":
        return Context(self)


class Context:
    """A context of one program."""

    def __init__(self, zeromq: ZeroMQ) -> None:
        self._zeromq = zeromq

    def socket(self, kind: int) -> Any:
        return {zmq.SUB: SubscriberSocket, zmq.XPUB: PublisherSocket}[zmq.SocketType(kind)](self._zeromq)

    def term(self) -> None:
        pass


class SubscriberSocket(File):
    """A SUB socket. Its descriptor becomes readable when a message arrives, until its events are read."""

    linger = 0
    rcvhwm = 1000
    maxmsgsize = -1
    ipv6 = tcp_keepalive = False
    tcp_keepalive_idle = reconnect_ivl = reconnect_ivl_max = 100

    def __init__(self, zeromq: ZeroMQ) -> None:
        super().__init__(zeromq.network)
        self._zeromq = zeromq
        self._prefixes: list[bytes] = []
        self._queue: deque[Frames] = deque()
        self._signalled = False
        self._address = ""
        self._publisher: PublisherSocket | None = None
        self._retry: Event | None = None
        self.closed = False

    @property
    def FD(self) -> int:
        return self.number

    def subscribe(self, prefix: str | bytes) -> None:
        self._prefixes.append(prefix.encode() if isinstance(prefix, str) else prefix)

    def connect(self, address: str) -> None:
        self._address = address
        self._retry = self._zeromq.scheduler.after(0.01, self._try)

    def _try(self) -> None:
        if self.closed:
            return
        publisher = self._zeromq.publishers.get(self._address)
        if publisher is None:
            delay = self.reconnect_ivl / 1000 * (1 + self._zeromq.random.random())
            self._retry = self._zeromq.scheduler.after(delay, self._try)
        else:
            self._publisher = publisher
            publisher.connected(self)

    def disconnected(self) -> None:
        """The publisher is gone; connect again."""
        self._publisher = None
        if not self.closed:
            self._retry = self._zeromq.scheduler.after(self.reconnect_ivl / 1000, self._try)

    def wants(self, envelope: bytes) -> bool:
        return any(map(envelope.startswith, self._prefixes))

    def deliver(self, frames: Frames) -> None:
        """A message arrives; it is lost if too many wait."""
        if self.closed:
            return
        if len(self._queue) < self.rcvhwm:
            self._queue.append(frames)
            self._signalled = True
            self.changed()

    def events(self) -> int:
        return select.EPOLLIN if self._signalled else 0

    def get(self, option: int) -> int:
        assert option == zmq.EVENTS
        self._signalled = False
        return int(zmq.POLLIN) if self._queue else 0

    def recv_multipart(self, flags: int = 0) -> Frames:
        if not self._queue:
            raise zmq.Again
        frames = self._queue.popleft()
        self._zeromq.on_read(frames)
        return frames

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            super().close()
            if self._publisher is not None:
                self._publisher.subscribers.pop(self, None)
            if self._retry is not None:
                self._retry.cancel()


class PublisherSocket:
    """An XPUB socket."""

    linger = 0
    ipv6 = False

    def __init__(self, zeromq: ZeroMQ) -> None:
        self._zeromq = zeromq
        self.subscribers: dict[SubscriberSocket, float] = {}
        self._subscriptions: deque[bytes] = deque()
        self.last_endpoint = b""

    def bind(self, address: str) -> None:
        address = address.replace(":*", f":{next(self._zeromq.ports)}")
        self.last_endpoint = address.encode()
        self._zeromq.publishers[address] = self

    def connected(self, subscriber: SubscriberSocket) -> None:
        self.subscribers[subscriber] = 0.0
        self._subscriptions.append(b"\1")

    def poll(self, timeout: float) -> int:
        return len(self._subscriptions)

    def recv(self, flags: int = 0) -> bytes:
        return self._subscriptions.popleft()

    def send_multipart(self, frames: Sequence[bytes], flags: int = 0) -> None:
        zeromq = self._zeromq
        for subscriber, last in list(self.subscribers.items()):
            if not subscriber.wants(frames[0]) or zeromq.random.random() < zeromq.loss:
                continue
            arrival = max(zeromq.scheduler.now + 0.002, last)
            self.subscribers[subscriber] = arrival
            if zeromq.random.random() < zeromq.reordered:
                arrival += 3 * zeromq.random.random()
            zeromq.scheduler.at(arrival, subscriber.deliver, list(frames))
            if zeromq.random.random() < zeromq.duplicates:
                zeromq.scheduler.at(arrival + zeromq.random.random(), subscriber.deliver, list(frames))

    def forget(self) -> None:
        """Lose the subscribers without a word: their connections stay open, and nothing arrives there."""
        self.subscribers.clear()

    def close(self) -> None:
        address = self.last_endpoint.decode()
        if self._zeromq.publishers.get(address) is self:
            del self._zeromq.publishers[address]
            for subscriber in list(self.subscribers):
                subscriber.disconnected()
            self.subscribers.clear()
