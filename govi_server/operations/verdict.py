"""The verdict: whether travellers get answers, since when that is so, and why."""

from dataclasses import dataclass
from typing import Literal

from twisted.internet.interfaces import IReactorTime

from govi_server.kv78turbo.feed import Feed
from govi_server.operations.hour import LastHour
from govi_server.operations.parts import Parts

Word = Literal["UP", "RECOVERING", "DEGRADED", "DOWN"]

LOOKED_AT = 5
"""Minutes of answers that are judged."""

TOLERATED = 0.01
"""Share of answers that may fail before it is told."""

ENOUGH = 5
"""Failed answers below which nobody is woken."""

CALM = 60.0
"""Seconds without a reason after which it is UP again, and no longer RECOVERING."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What there is to say. since: epoch seconds."""

    word: Word
    since: float
    why: tuple[str, ...]


def state_of(feed: Feed) -> str:
    """Say how the live feed is doing."""
    age = "there never was any data" if feed.age is None else f"the last data came {feed.age:.0f} s ago"
    return f"the live feed is {feed.state}: {age}"


class Judge:
    """Tells the verdict, and remembers since when it is so."""

    def __init__(self, parts: Parts, hour: LastHour, clock: IReactorTime) -> None:
        self._parts = parts
        self._hour = hour
        self._clock = clock
        self._verdict = Verdict("UP", clock.seconds(), ())
        self._trouble: float | None = None

    def verdict(self) -> Verdict:
        """Judge what there is now."""
        now = self._clock.seconds()
        down, degraded = self._sources()
        if not down:
            degraded += self._answers() + self._house()
        word: Word
        if down or degraded:
            self._trouble = now
            word = "DOWN" if down else "DEGRADED"
            why = tuple(down + degraded)
        elif settling := self._settling(now):
            word, why = "RECOVERING", (settling,)
        else:
            word, why = "UP", ()
        since = min(self._verdict.since, now) if word == self._verdict.word else now
        self._verdict = Verdict(word, since, why)
        return self._verdict

    def _sources(self) -> tuple[list[str], list[str]]:
        """List why sources do not answer: of all of them, and of some."""
        failing = [
            f"/{name}: the gateway does not take questions"
            for name, source in self._parts.gateways.items()
            if source.breaker.state != "closed"
        ]
        count, feed = len(self._parts.gateways), self._parts.feed
        if feed is not None and feed.subscriber is not None:
            count += 1
            if feed.state == "DOWN":
                failing.append(state_of(feed))
        return (failing, []) if failing and len(failing) == count else ([], failing)

    def _answers(self) -> list[str]:
        """Say so if too many answers fail."""
        minutes = list(self._hour.minutes())[-LOOKED_AT:]
        now = self._clock.seconds()
        recent = [minute for minute in minutes if now - minute.begins < LOOKED_AT * 60]
        answers = sum(sum(minute.statuses.values()) for minute in recent)
        failed = sum(
            n for minute in recent for status, n in minute.statuses.items() if status >= 500 or status == 406
        )
        if failed >= ENOUGH and failed > answers * TOLERATED:
            return [f"{failed} of {answers} answers failed in the last {LOOKED_AT} minutes"]
        return []

    def _house(self) -> list[str]:
        """List what is wrong in the house itself."""
        why = []
        server, statistics = self._parts.server, self._parts.statistics
        used, limit = len(server.connections), server.access.limits.connections
        if used >= limit * 0.9:
            why.append(f"{used} of {limit} connections are in use")
        if server.accepting.paused:
            why.append("too many open files: no connections are accepted")
        if statistics is not None and not statistics.writable:
            why.append("the statistics log cannot be written")
        return why

    def _settling(self, now: float) -> str:
        """Say why it is too early for UP."""
        feed = self._parts.feed
        if feed is not None and feed.subscriber is not None and feed.state != "UP":
            return state_of(feed)
        if self._trouble is not None and 0 <= now - self._trouble < CALM:
            return "it was in trouble a minute ago"
        return ""
