"""The general messages that apply now, each with its number of stops."""

from collections.abc import Generator
from functools import partial
from heapq import nlargest

from msgspec import Struct

from govi_server.departures.display import clean
from govi_server.kv78turbo.feed import Feed
from govi_server.runtime.cooperative import STEP_ITEMS

MAX_DISRUPTIONS = 8

INTERVAL = 30.0
"""Seconds between updates, each of which reads all stops."""


class Disruption(Struct, frozen=True):
    """A text, the operator that sent it, one of its stops, and their number."""

    text: str
    operator: str
    code: str
    n_stops: int


class CurrentDisruptions:
    """The messages of a feed with most stops, at most INTERVAL old."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._latest: list[Disruption] = []
        self._next_update = 0.0

    async def latest(self) -> list[Disruption]:
        """Return them, those with most stops first.

        Concurrent callers share an update, which is cancelled when all of them are.
        """
        now = self._feed.clock.seconds()
        if not self._next_update - INTERVAL <= now < self._next_update:
            self._latest = await self._feed.runner.run_shared(self, partial(self._read, now))
            self._next_update = now + INTERVAL
        return self._latest

    def _read(self, now: float) -> Generator[None, None, list[Disruption]]:
        stops = self._feed.passtimes.stops
        counts: dict[tuple[str, str], tuple[str, int]] = {}
        work = 0
        for code in [*stops]:
            stop = stops.get(code)
            messages = {} if stop is None or stop.messages is None else stop.messages
            work += 1 + len(messages)
            for message in messages.values():
                fields = dict(message.fields)
                text = clean(fields.get("MessageContent"))
                if text and message.is_current(now):
                    key = text, fields.get("DataOwnerCode") or ""
                    first, count = counts.get(key, (code, 0))
                    counts[key] = first, count + 1
            if work >= STEP_ITEMS:
                work = 0
                yield
        return nlargest(
            MAX_DISRUPTIONS,
            [Disruption(text, operator, *counted) for (text, operator), counted in counts.items()],
            key=lambda disruption: disruption.n_stops,
        )
