"""Read the messages of the town's feed in tests."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from itertools import chain

from govi_server.departures.times import MINUTE
from govi_server.kv78turbo import ctx
from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.simulator.town import Town
from govi_server.simulator.town_feed import Message, TownFeed

FRIDAY = date(2026, 5, 8)
SPRING, AUTUMN = date(2026, 3, 29), date(2026, 10, 25)  # the clocks change
TOWN = Town()

Row = dict[str, str | None]


def at(day: date, hour: int, minute: int = 0) -> float:
    """Return the epoch seconds of a local time in the Netherlands."""
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=LOCAL_ZONE).timestamp()


def read(messages: Iterable[Message]) -> dict[str, list[Row]]:
    """Return the rows of messages, by table. Raises AssertionError if one cannot be read."""
    rejected: list[str] = []
    tables: dict[str, list[Row]] = {}
    for message in messages:
        for records in ctx.read([message.ctx], rejected.append):
            for line in records.lines:
                row = dict(zip(records.labels, ctx.texts(line), strict=True))
                tables.setdefault(records.table, []).append(row)
    assert not rejected, rejected
    return tables


def key(row: Row, *labels: str) -> tuple[str | None, ...]:
    """Return the values of these columns."""
    return tuple(row[label] for label in labels)


PASS_KEY = (
    "DataOwnerCode", "LocalServiceLevelCode", "LinePlanningNumber", "JourneyNumber", "FortifyOrderNumber",
    "UserStopCode", "UserStopOrderNumber",
)  # fmt: skip
DATED_KEY = (*PASS_KEY, "OperationDate")


class TownMessages:
    """The messages of a town feed, second by second. speed: seconds of the town per second."""

    def __init__(self, start: float, speed: float = 1) -> None:
        self.start = start
        self.speed = speed
        self.second = -1
        self.feed = TownFeed(TOWN, lambda: self.now)

    @property
    def now(self) -> float:
        return self.start + self.second * self.speed

    def next_second(self) -> list[Message]:
        """Return the messages of the next second."""
        self.second += 1
        return list(chain.from_iterable(self.feed.steps(self.second)))

    def rows(self) -> list[Row]:
        """Return the KV8 rows of the next second."""
        passes = (message for message in self.next_second() if "passtimes" in message.envelope)
        return read(passes).get("DATEDPASSTIME", [])


_town = TownMessages(at(FRIDAY, 17), speed=5 * MINUTE)  # nearly every row changes each second
MESSAGES = [message for _ in range(4) for message in _town.next_second()]


def payload(frames: Sequence[bytes]) -> bytes:
    """Return the payload of a ZeroMQ message."""
    return b"".join(frames[1:])
