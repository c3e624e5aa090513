"""The operators' port of the feed proxy: /health and /metrics."""

from collections.abc import Iterator, Sequence
from typing import get_args

import msgspec
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from govi_server.feed_proxy.proxy import FeedProxy
from govi_server.kv78turbo.subscriber import State
from govi_server.operations.site import OperatorsSite, Page, send


class Health(msgspec.Struct):
    """The JSON of /health."""

    status: State
    """UP or RECOVERING while data arrives."""
    feed: str | None
    """The address of the feed; null between connections."""
    data_age: float | None
    """Seconds since the last message with data."""
    message_age: float | None
    """Seconds since the last message, heartbeats included."""
    messages: int
    bytes: int
    reconnects: int
    subscribers: int
    topics: int


def health(proxy: FeedProxy) -> Health:
    """Return the health of a proxy."""
    subscriber, publisher = proxy.subscriber, proxy.publisher
    return Health(
        status=subscriber.state,
        feed=subscriber.address,
        data_age=_age(proxy, subscriber.last),
        message_age=_age(proxy, subscriber.alive),
        messages=proxy.messages,
        bytes=proxy.bytes,
        reconnects=proxy.reconnects,
        subscribers=publisher.subscribers,
        topics=len(publisher.topics),
    )


def _age(proxy: FeedProxy, time: float | None) -> float | None:
    return None if time is None else round(max(proxy.reactor.seconds() - time, 0.0), 1)


class ProxySite(OperatorsSite):
    """The web site of a feed proxy for operators. hosts: names of the server besides its addresses and localhost."""

    def __init__(self, proxy: FeedProxy, hosts: Sequence[str] = ()) -> None:
        registry = CollectorRegistry()
        registry.register(ProxyMetrics(proxy))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        pages = {
            "health": _HealthPage(proxy),
            "metrics": Page(CONTENT_TYPE_LATEST, lambda: generate_latest(registry)),
        }
        super().__init__(proxy.reactor, pages, hosts, "--admin-host")


class _HealthPage(Resource):
    """The health: 200 while data arrives from the feed, otherwise 503."""

    isLeaf = True

    def __init__(self, proxy: FeedProxy) -> None:
        super().__init__()
        self._proxy = proxy

    def render_GET(self, request: Request) -> int:
        body = msgspec.json.encode(health(self._proxy)) + b"\n"
        send(request, 200 if self._proxy.receives_data else 503, "application/json", body)
        return NOT_DONE_YET


class ProxyMetrics(Collector):
    """Reads the state of a proxy when scraped."""

    def __init__(self, proxy: FeedProxy) -> None:
        self._proxy = proxy

    def collect(self) -> Iterator[Metric]:
        """Return all metrics."""
        now = health(self._proxy)
        state = GaugeMetricFamily("govi_feed_state", "1 for the current state of the feed.", labels=("state",))
        for name in get_args(State):
            state.add_metric((name,), name == now.status)
        yield state
        yield CounterMetricFamily("govi_feed_reconnects", "Connections to the feed after the first.", now.reconnects)
        text = "Messages received from the feed, heartbeats included."
        yield CounterMetricFamily("govi_feed_proxy_messages", text, now.messages)
        yield CounterMetricFamily("govi_feed_proxy_bytes", "Bytes received from the feed.", now.bytes)
        if now.data_age is not None:
            text = "Seconds since the last message with data."
            yield GaugeMetricFamily("govi_feed_proxy_data_age_seconds", text, now.data_age)
        yield GaugeMetricFamily("govi_feed_proxy_subscribers", "Connected subscribers.", now.subscribers)
        yield GaugeMetricFamily("govi_feed_proxy_topics", "Topics of all subscribers.", now.topics)
