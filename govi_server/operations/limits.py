"""What the program holds, against its limits."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from govi_server.kv78turbo.feed import Feed
from govi_server.operations.components import Components
from govi_server.settings import Config


class Usage(NamedTuple):
    """What is used of a limit. limit: None if there is none. setting: that of the limit, "" if there is none."""

    name: str
    used: int
    limit: int | None
    unit: Literal["", "bytes"]
    setting: str


def usages(components: Components, config: Config, resident_bytes: int) -> Iterator[Usage]:
    """Yield the queues and the memory of a program. resident_bytes: of its process."""
    figures = components.figures
    processes = max(config.workers, 1)
    yield Usage("resident memory", resident_bytes, None, "bytes", "")
    yield Usage("connections", figures.connections, figures.limit, "", "access.connections")
    unfinished = config.limits.unfinished * processes
    yield Usage("unfinished requests", figures.unfinished_bytes, unfinished, "bytes", "limits.unfinished")
    for name, gateway in components.gateways.items():
        cache, limits = gateway.cache, gateway.cache.limits
        yield Usage(f"/{name}: gateway requests", len(cache.pending), limits.flights, "", "cache.flights")
        yield Usage(f"/{name}: boards", cache.entries, limits.entries, "", "cache.entries")
        yield Usage(f"/{name}: memory of boards", cache.bytes, limits.bytes, "bytes", "cache.bytes")
    if components.feed is not None:
        yield from _usages_of_feed(components.feed, config)


def _usages_of_feed(feed: Feed, config: Config) -> Iterator[Usage]:
    passtimes, settings = feed.passtimes, config.feed
    remembered, documents = feed.boards.joined, feed.boards.documents
    tables, planned = settings.passtimes, settings.planning.planned
    yield Usage("live passing times", passtimes.n_passtimes, tables.passes, "", "feed.passtimes.passes")
    yield Usage("memory of these", passtimes.n_bytes, tables.bytes, "bytes", "feed.passtimes.bytes")
    yield Usage("stops of the feed", len(passtimes.stops), tables.stops, "", "feed.passtimes.stops")
    yield Usage("general messages", passtimes.n_messages, tables.messages, "", "feed.passtimes.messages")
    yield Usage("planned passing times", feed.timetable.n_planned, planned, "", "feed.planning.planned")
    yield Usage("requested stops", remembered.bytes, remembered.max_bytes, "bytes", "feed.cache.bytes")
    yield Usage("documents", documents.bytes, documents.max_bytes, "bytes", "feed.cache.bytes")
