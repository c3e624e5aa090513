"""The feed proxy: relays the messages of one subscription to any number of subscribers."""

from collections.abc import Sequence
from typing import Any

from govi_server.feed_proxy.publisher import MAX_QUEUED_MESSAGES, Publisher
from govi_server.kv78turbo.subscriber import PREFIXES, Subscriber
from govi_server.runtime.ordered_services import OrderedMultiService
from govi_server.settings import SubscriberSettings


class FeedProxy(OrderedMultiService):
    """Subscribes to a feed once, and publishes each message as it was received, heartbeats included.

    The subscription is to KV7 and KV8, so that the proxy knows without subscribers whether data arrives, and to
    whatever else its subscribers subscribe to. What subscribers get depends on their own topics.

    reactor: an IReactorTime, IReactorFDSet and IReactorThreads. addresses: of the feed, used in turn. publish: the
    address to listen on. Raises StartupError for an invalid address.
    """

    def __init__(
        self,
        reactor: Any,
        addresses: Sequence[str],
        publish: str,
        limits: SubscriberSettings = SubscriberSettings(),
        max_queued: int = MAX_QUEUED_MESSAGES,
    ) -> None:
        super().__init__()
        self.reactor = reactor
        self.subscriber = Subscriber(
            reactor, addresses, PREFIXES, lambda envelope, data: None, limits, relay=self._relay
        )
        self.publisher = Publisher(reactor, publish, self._subscribe, self._unsubscribe, max_queued)
        self._forwarded: set[bytes] = set()
        """The topics of subscribers that are not part of the proxy's own subscription."""
        self.messages = 0
        """Messages received, heartbeats included."""
        self.bytes = 0
        """Their size."""
        self.addService(self.publisher)
        self.addService(self.subscriber)

    @property
    def receives_data(self) -> bool:
        """Whether data arrives from the feed."""
        return self.subscriber.state in ("UP", "RECOVERING")

    @property
    def reconnects(self) -> int:
        """Connections to the feed after the first."""
        return max(self.subscriber.attempts - 1, 0)

    def _relay(self, frames: list[bytes]) -> None:
        self.messages += 1
        self.bytes += sum(map(len, frames))
        self.publisher.send(frames)

    def _subscribe(self, topic: bytes) -> None:
        if self.subscriber.subscribe(topic):
            self._forwarded.add(topic)

    def _unsubscribe(self, topic: bytes) -> None:
        if topic in self._forwarded:
            self._forwarded.discard(topic)
            self.subscriber.unsubscribe(topic)
